#include "vfs/proxy.h"
#include "vfs/conn.h"
#include "vfs/db_impl.h"
#include "vfs/walfmt.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

struct vfs_proxy {
	struct vfs_conn conn; /* of which the session is used, and what capture.c tells */
	sqlite3_vfs vfs;      /* leads to the base VFS, for frames that do not fit into memory */
	bool held;
	int frames_failed;    /* an SQLite code */
};

struct vfs_proxy *vfs_proxy_new(struct vfs_db *db)
{
	struct vfs_proxy *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->vfs.pAppData = db->base;
	p->conn.vfs = &p->vfs;
	p->conn.db = db;
	p->conn.path = db->path;
	p->conn.page_size = db->page_size;
	p->conn.read_slot = -1;
	p->conn.proxy = true;
	p->conn.generation = shim_fork_generation();
	return p;
}

void vfs_proxy_free(struct vfs_proxy *p)
{
	const struct vfs_node_ops *ops;

	if (!p)
		return;
	ops = vfs_db_ops(p->conn.db);
	vfs_proxy_unlock(p, false);
	ops->write_forget(ops->ctx, &p->conn);
	shim_session_free(&p->conn);
	free(p);
}

int vfs_proxy_lock(struct vfs_proxy *p, unsigned flags, uint32_t timeout_ms, struct vfs_proxy_grant *ret_grant, struct wire_err *err)
{
	struct vfs_conn *c = &p->conn;
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);
	struct vfs_proxy_grant g;
	int rc;

	if (p->held) { /* it was had ahead (VFS_WRITE_AHEAD): this answer counts, which may be another one */
		p->held = false;
		shim_session_end(c);
	}
	rc = ops->write_lock(ops->ctx, c, flags, timeout_ms, &g.grant, err);
	if (rc)
		return rc;
	p->held = true;
	vfs_db_state(c->db, &c->pull.hdr, &c->seen);
	shim_session_begin(c, &g.grant, false);
	p->frames_failed = SQLITE_OK;
	g.base = c->pull.hdr;
	g.sequence = c->seen;
	*ret_grant = g;
	return WIRE_OK;
}

uint32_t vfs_proxy_sleep(struct vfs_proxy *p, uint32_t us)
{
	const struct vfs_node_ops *ops = vfs_db_ops(p->conn.db);

	return ops->write_sleep(ops->ctx, &p->conn, us);
}

void vfs_proxy_unlock(struct vfs_proxy *p, bool keep)
{
	const struct vfs_node_ops *ops = vfs_db_ops(p->conn.db);

	if (!p->held)
		return;
	p->held = false;
	shim_session_end(&p->conn);
	ops->write_unlock(ops->ctx, &p->conn, keep);
}

void vfs_proxy_frames(struct vfs_proxy *p, uint64_t at, const void *data, uint32_t n)
{
	struct shim_session *s = &p->conn.session;

	if (!p->held || p->frames_failed)
		return;
	if (at == 0)
		shim_store_clear(&s->store); /* a commit that was given up is sent anew */
	if (at != s->store.end) {
		p->frames_failed = shim_fail(&p->conn, WALRAFT_IOERR_NODE, "%s: frames of the transaction came in disorder; it is not committed", p->conn.path);
		return;
	}
	p->frames_failed = shim_store_write(&s->store, shim_base(&p->conn), data, n, at);
	if (p->frames_failed)
		shim_fail(&p->conn, p->frames_failed, "%s: no room for the frames of the transaction in the process that hosts the node (SQLite code %d); it is not committed", p->conn.path,
		          p->frames_failed);
}

/* By the frames' own headers. */
static int list_frames(struct vfs_conn *c, uint32_t n_frames)
{
	struct shim_session *s = &c->session;
	const uint32_t size = VFS_FRAME_HDR + c->page_size;
	uint8_t head[VFS_FRAME_HDR];
	struct vfs_frame_header f;

	if (n_frames > s->cap) {
		uint32_t *grown = realloc(s->pgnos, n_frames * sizeof *grown);

		if (!grown)
			return shim_fail(c, WALRAFT_IOERR_NOT_COMMITTED, "%s: out of memory in the process that hosts the node; the transaction is not committed", c->path);
		s->pgnos = grown;
		s->cap = n_frames;
	}
	for (uint32_t i = 0; i < n_frames; i++) {
		int rc = shim_store_read(&s->store, head, sizeof head, (uint64_t)i * size);

		if (rc)
			return shim_fail(c, rc, "%s: reading frames of the transaction failed in the process that hosts the node (SQLite code %d)", c->path, rc);
		vfs_frame_get(head, &f);
		if (f.pgno == 0) /* a WAL ends there */
			return shim_fail(c, WALRAFT_IOERR_NODE, "%s: frame %u of the transaction has no page; it is not committed", c->path, i + 1);
		s->pgnos[i] = f.pgno;
	}
	s->n_frames = n_frames;
	return SQLITE_OK;
}

static int commit(struct vfs_proxy *p, const struct vfs_remote_commit *r)
{
	struct vfs_conn *c = &p->conn;
	struct shim_session *s = &c->session;
	int rc;

	if (!p->held || r->epoch != s->epoch || r->sequence != s->sequence || memcmp(&r->base, &s->base, sizeof s->base) != 0)
		return shim_fail(c, WALRAFT_IOERR_FENCED, "%s: the transaction has lost the write lock; it is not committed, repeat it", c->path);
	if (p->frames_failed)
		return p->frames_failed;
	if (r->n_frames == 0 || r->db_after == 0 || r->bytes != (uint64_t)r->n_frames * (VFS_FRAME_HDR + c->page_size) || s->store.end != r->bytes)
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s: %llu bytes came for the %u frames of the transaction; it is not committed", c->path, (unsigned long long)s->store.end, r->n_frames);
	/* Every new page has a frame, but the lock-byte page. */
	if (r->db_after > (uint64_t)s->base.n_page + r->n_frames + 1)
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s: %u frames came for a transaction that ends with %u pages; it is not committed", c->path, r->n_frames, r->db_after);
	rc = shim_session_check(c);
	if (rc == SQLITE_OK)
		rc = list_frames(c, r->n_frames);
	if (rc)
		return rc;
	s->rewritten = r->rewritten ? 1 : 0;
	s->once = r->once;
	c->timeout_ms = r->timeout_ms;
	return shim_commit(c, r->n_frames, r->db_after);
}

void vfs_proxy_commit(struct vfs_proxy *p, const struct vfs_remote_commit *r, struct vfs_remote_result *ret_result)
{
	struct shim_session *s = &p->conn.session;

	*ret_result = (struct vfs_remote_result){ .code = commit(p, r) };
	if (ret_result->code == SQLITE_OK) {
		ret_result->mended = s->mended;
		ret_result->index = p->conn.last_index;
		ret_result->after = s->after;
		vfs_proxy_unlock(p, false);
		return;
	}
	/* It is not to be gone on with: SQLite rolls it back. */
	if (!s->failed)
		s->failed = ret_result->code;
	snprintf(ret_result->text, sizeof ret_result->text, "%s", p->conn.error);
}
