/* The -wal as a connection sees it: what is published comes from the base VFS's file, what this connection writes goes to its own store, at offsets from
 * the end of what was published when it was granted WRITE. Nothing here ever writes the real file, except for the node's own connections.
 *
 * A commit shows as a 24-byte frame header with a database size and salts. Either its body is the next write (the usual case), or checksums are being
 * rewritten: then the same frame was written before, header without salts and body, and this header is the transaction's last write. SQLite rewrites from the
 * first frame on that it had changed in place; in 3.40 that may lie beyond the commit frame (it was rolled back to a savepoint since), and no header with
 * salts ever follows. */
#include "vfs/conn.h"
#include "vfs/walfmt.h"
#include "wire/buf.h"
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

#define KEEP_FRAMES 4096u

/* ---- session ---- */

void shim_session_begin(struct vfs_conn *c, const struct vfs_grant *grant, bool moved)
{
	struct shim_session *s = &c->session;

	s->open = true;
	s->moved = moved;
	s->committed = s->wrote = s->mended = false;
	s->failed = 0;
	s->epoch = grant->epoch;
	s->sequence = c->seen;
	s->base = c->pull.hdr;
	s->base_at = vfs_frame_offset(c->page_size, s->base.mx_frame + 1);
	s->once.id_len = 0;
	s->repeated = false;
	s->savepoints = s->once_at = 0;
	s->n_frames = s->due = s->unsalted = s->rewritten = s->headed = s->db_after = 0;
	memcpy(s->txid, grant->txid, sizeof s->txid);
	if (!moved)
		memcpy(c->txid, grant->txid, sizeof c->txid);
}

void shim_session_end(struct vfs_conn *c)
{
	struct shim_session *s = &c->session;

	s->open = false;
	shim_store_clear(&s->store);
	if (s->cap > KEEP_FRAMES) {
		free(s->pgnos);
		s->pgnos = NULL;
		s->cap = 0;
	}
}

void shim_session_free(struct vfs_conn *c)
{
	shim_store_free(&c->session.store);
	free(c->session.pgnos);
	c->session = (struct shim_session){ 0 };
}

int shim_session_check(struct vfs_conn *c)
{
	struct shim_session *s = &c->session;
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);

	if (s->failed)
		return s->failed;
	if (s->repeated)
		return shim_once_refused(c);
	if (ops->epoch_valid(ops->ctx, s->epoch) && vfs_db_sequence(c->db) == s->sequence)
		return SQLITE_OK;
	if (vfs_db_is_retired(c->db))
		return s->failed = shim_fail(c, WALRAFT_IOERR_FENCED, "the node of %s ended during the transaction, which is rolled back; repeat it", c->path);
	s->failed = shim_fail(c, WALRAFT_IOERR_FENCED,
	                      "the write lock of %s was lost during the transaction, which is rolled back: leadership changed, or the leader did not hear from this node; repeat it", c->path);
	return s->failed;
}

static int note_frame(struct shim_session *s, uint32_t frame, uint32_t pgno)
{
	if (frame > s->cap) {
		uint32_t cap = s->cap ? s->cap * 2 : 64;
		uint32_t *grown = realloc(s->pgnos, cap * sizeof *grown);

		if (!grown)
			return SQLITE_IOERR_NOMEM;
		s->pgnos = grown;
		s->cap = cap;
	}
	s->pgnos[frame - 1] = pgno;
	if (frame > s->n_frames)
		s->n_frames = frame;
	return SQLITE_OK;
}

/* ---- writes ---- */

static int write_header(struct vfs_conn *c, const uint8_t *p, uint32_t frame, uint64_t at)
{
	struct shim_session *s = &c->session;
	struct vfs_frame_header h;
	bool salted;
	int rc = shim_session_check(c);

	if (rc)
		return rc;
	vfs_frame_get(p, &h);
	if (frame > s->n_frames + 1)
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s: frame %u was written after frame %u", c->path, frame, s->n_frames);
	rc = shim_store_write(&s->store, shim_base(c), p, VFS_FRAME_HDR, at);
	if (rc == SQLITE_OK)
		rc = note_frame(s, frame, h.pgno);
	if (rc)
		return rc;
	salted = h.salt[0] != 0 || h.salt[1] != 0;
	s->headed = frame;
	s->due = 0;
	if (h.db_pages == 0)
		return SQLITE_OK;
	s->db_after = h.db_pages;
	if (!salted) {
		s->unsalted = frame;
	} else if (s->unsalted == frame) {
		s->unsalted = 0;
		return shim_commit(c, frame, h.db_pages);
	} else {
		s->due = frame;
	}
	return SQLITE_OK;
}

static int write_body(struct vfs_conn *c, const void *p, uint32_t frame, uint64_t at)
{
	struct shim_session *s = &c->session;
	const bool follows = s->headed == frame;
	int rc = follows ? SQLITE_OK : shim_session_check(c);

	s->headed = 0;
	if (!follows && (s->rewritten == 0 || frame < s->rewritten))
		s->rewritten = frame;
	if (rc == SQLITE_OK)
		rc = shim_store_write(&s->store, shim_base(c), p, c->page_size, at);
	if (rc || !follows)
		return rc;
	if (s->due == frame || (s->unsalted == frame && s->rewritten > frame)) {
		s->due = s->unsalted = 0;
		rc = shim_commit(c, frame, s->db_after);
	}
	return rc;
}

static int wal_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 offset)
{
	struct shim_wal *w = (struct shim_wal *)f;
	struct vfs_conn *c = w->conn;
	struct shim_session *s = &c->session;
	int rc = shim_alive(c);
	uint64_t at, within;
	uint32_t frame;

	if (rc)
		return rc;
	if (c->node)
		return w->real->pMethods->xWrite(w->real, p, n, offset);
	if (!s->open || s->committed || (uint64_t)offset < s->base_at)
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s-wal: a write of %d bytes at %lld %s; only the node writes what is published", c->path, n, (long long)offset,
		                 !s->open ? "without a write transaction" : s->committed ? "after the commit" : "below the transaction's own frames");
	at = (uint64_t)offset - s->base_at;
	within = at % (VFS_FRAME_HDR + c->page_size);
	frame = (uint32_t)(at / (VFS_FRAME_HDR + c->page_size)) + 1;
	s->wrote = true;
	if (n == VFS_FRAME_HDR && within == 0)
		rc = write_header(c, p, frame, at);
	else if (n == (int)c->page_size && within == VFS_FRAME_HDR)
		rc = write_body(c, p, frame, at);
	else
		rc = shim_fail(c, WALRAFT_IOERR_NODE, "%s-wal: a write of %d bytes at %lld is neither a frame's header nor a page", c->path, n, (long long)offset);
	if (rc && !s->failed)
		s->failed = rc;
	return rc;
}

/* ---- everything else ---- */

static int wal_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
	struct shim_wal *w = (struct shim_wal *)f;
	struct shim_session *s = &w->conn->session;
	int rc = shim_alive(w->conn);

	if (rc)
		return rc;
	if (w->conn->ahead)
		shim_ahead_read(w->conn);
	if (s->open && (uint64_t)offset >= s->base_at)
		return shim_store_read(&s->store, p, (uint32_t)n, (uint64_t)offset - s->base_at);
	rc = shim_matches(w->conn);
	if (rc)
		return rc;
	return w->real->pMethods->xRead(w->real, p, n, offset);
}

static int wal_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
	struct shim_wal *w = (struct shim_wal *)f;
	struct shim_session *s = &w->conn->session;
	int rc = shim_alive(w->conn);

	if (rc)
		return rc;
	if (!s->open || s->store.end == 0)
		return w->real->pMethods->xFileSize(w->real, ret_size);
	*ret_size = (sqlite3_int64)(s->base_at + s->store.end);
	return SQLITE_OK;
}

static int wal_close(sqlite3_file *f)
{
	struct shim_wal *w = (struct shim_wal *)f;

	if (shim_alive(w->conn) == SQLITE_OK)
		w->real->pMethods->xClose(w->real);
	f->pMethods = NULL;
	return SQLITE_OK;
}

/* Durability is the journal's, and the node alone shortens the file. */
static int wal_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct shim_wal *w = (struct shim_wal *)f;

	return w->conn->node ? w->real->pMethods->xTruncate(w->real, size) : shim_alive(w->conn);
}

static int wal_sync(sqlite3_file *f, int flags)
{
	struct shim_wal *w = (struct shim_wal *)f;

	return w->conn->node ? w->real->pMethods->xSync(w->real, flags) : shim_alive(w->conn);
}

static int wal_lock(sqlite3_file *f, int level)
{
	(void)f;
	(void)level;
	return SQLITE_OK;
}

static int wal_reserved(sqlite3_file *f, int *ret)
{
	(void)f;
	*ret = 0;
	return SQLITE_OK;
}

static int wal_control(sqlite3_file *f, int op, void *arg)
{
	struct shim_wal *w = (struct shim_wal *)f;

	return w->conn->node ? w->real->pMethods->xFileControl(w->real, op, arg) : SQLITE_NOTFOUND;
}

static int wal_sector(sqlite3_file *f)
{
	(void)f;
	return 4096;
}

static int wal_traits(sqlite3_file *f)
{
	(void)f;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

const sqlite3_io_methods shim_wal_methods = {
	.iVersion = 1,
	.xClose = wal_close,
	.xRead = wal_read,
	.xWrite = wal_write,
	.xTruncate = wal_truncate,
	.xSync = wal_sync,
	.xFileSize = wal_size,
	.xLock = wal_lock,
	.xUnlock = wal_lock,
	.xCheckReservedLock = wal_reserved,
	.xFileControl = wal_control,
	.xSectorSize = wal_sector,
	.xDeviceCharacteristics = wal_traits,
};
