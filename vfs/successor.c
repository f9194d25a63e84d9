/* A connection outlives the node that it began with. Once its vfs_db is retired it goes over to the one that has come after it, at the first moment when it holds no lock and SQLite is
 * about to look at the wal-index anew: before a READ lock, when it finds the header torn, and when it maps the wal-index.
 *
 * Till then: a read under way goes on, its lock is on a handle of its own, and so are its pages; the regions are private anyway. A write is fenced (shim_session_check). A read that
 * passed the gate, but could not pull before the object was retired, must not go on with what it has: its private header is made invalid, so that SQLite begins it again. */
#include "vfs/attached.h"
#include "vfs/conn.h"
#include <string.h>

SQLITE_EXTENSION_INIT3

#define TRIES 8 /* the next one may be gone as soon as it is there */
#define END_NAP_US 1000
#define END_NAPS 1000

bool shim_must_change(struct vfs_conn *c)
{
	return !c->node && vfs_db_is_retired(c->db);
}

bool shim_await_end(struct vfs_conn *c)
{
	/* An answer that a host gives no more is there a moment before the thread that looks after that has noticed. */
	for (int i = 0; vfs_db_is_attached(c->db) && i < END_NAPS && !shim_must_change(c); i++)
		shim_base(c)->xSleep(shim_base(c), END_NAP_US);
	return shim_must_change(c);
}

void shim_spoil_header(struct vfs_conn *c)
{
	memset(c->region[0], 0, 2 * sizeof c->pull.hdr);
	memset(&c->pull.hdr, 0, sizeof c->pull.hdr);
	c->retrying = false;
}

/* The handle is of the file that was opened; the node works on the one that has the name now. */
static int same_file(struct vfs_conn *c, struct vfs_db *db)
{
	int moved = 0;

	if (c->real->pMethods && c->real->pMethods->xFileControl(c->real, SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved)
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s is another file now than the one that was opened: open it again", c->path);
	if (vfs_db_page_size(db) != c->page_size)
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s has pages of %u bytes now, not of %u any more: open it again", c->path, vfs_db_page_size(db), c->page_size);
	return SQLITE_OK;
}

static int change_once(struct vfs_conn *c)
{
	struct vfs_host_ops ops = shim_host_ops();
	struct vfs_db *db = NULL, *old;
	struct wire_err err = { 0 };
	int rc;

	if (ops.open_db(ops.ctx, c->path, c->may_set_up, &db, &err) != WIRE_OK)
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s: its node has ended, and there is no other: %s", c->path, err.text);
	rc = same_file(c, db);
	if (rc == SQLITE_OK) {
		shim_end_ahead(c); /* it was the other node's */
		old = shim_conn_set_db(c, db);
		c->token = c->retrying = c->confirming = false;
	} else {
		old = db;
	}
	ops.close_db(ops.ctx, old);
	vfs_db_unref(old);
	return rc;
}

int shim_change_over(struct vfs_conn *c)
{
	int rc = SQLITE_OK;

	for (int i = 0; i < TRIES && rc == SQLITE_OK && shim_must_change(c); i++) {
		rc = change_once(c);
		if (rc == SQLITE_OK && c->region && c->region[0])
			rc = shim_pull_anew(c);
	}
	if (rc == SQLITE_OK && shim_must_change(c))
		rc = shim_fail(c, WALRAFT_IOERR_NODE, "%s: its node ends again and again", c->path);
	return rc;
}
