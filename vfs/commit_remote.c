/* A commit of a connection whose node another process hosts: the private frames go there as they are, and it does with them what capture.c does for its own (proxy.c). */
#include "vfs/attached.h"
#include "vfs/conn.h"
#include "vfs/walfmt.h"
#include <string.h>

SQLITE_EXTENSION_INIT3

int shim_regions_for(struct vfs_conn *c, uint32_t n_frames)
{
	const uint32_t mx_frame = c->session.base.mx_frame;

	for (uint32_t i = vfs_walindex_region_of(mx_frame + 1); i <= vfs_walindex_region_of(mx_frame + n_frames); i++) {
		if (!shim_region(c, i))
			return shim_fail(c, WALRAFT_IOERR_NOT_COMMITTED, "%s: out of memory for the transaction; it is not committed", c->path);
	}
	return SQLITE_OK;
}

static int read_store(void *ctx, void *dst, uint32_t n, uint64_t at)
{
	struct vfs_conn *c = ctx;

	return shim_store_read(&c->session.store, dst, n, at);
}

int shim_commit_remote(struct vfs_conn *c, uint32_t n_frames, uint32_t db_after)
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);
	struct shim_session *s = &c->session;
	struct vfs_remote_commit commit = { .epoch = s->epoch, .sequence = s->sequence, .base = s->base, .n_frames = n_frames, .db_after = db_after, .timeout_ms = c->timeout_ms, .once = s->once,
		                            .rewritten = s->rewritten != 0, .bytes = (uint64_t)n_frames * (VFS_FRAME_HDR + c->page_size), .read_ctx = c, .read = read_store };
	struct vfs_remote_result result = { 0 };
	struct wire_err err = { 0 };
	int rc = shim_session_check(c);

	/* All that SQLite needs after a commit is had before it. */
	if (rc == SQLITE_OK)
		rc = shim_regions_for(c, n_frames);
	if (rc)
		return rc;
	rc = ops->commit_frames(ops->ctx, c, &commit, &result, &err);
	if (rc == WIRE_UNKNOWN)
		return shim_fail(c, WALRAFT_IOERR_UNKNOWN, "%s: %s", c->path, err.text);
	if (rc == WIRE_FENCED)
		return shim_fail(c, WALRAFT_IOERR_FENCED, "%s: not committed, repeat it: %s", c->path, err.text);
	if (rc)
		return shim_fail(c, WALRAFT_IOERR_NOT_COMMITTED, "%s: not committed, repeat it: %s", c->path, err.text);
	if (result.code != SQLITE_OK)
		return shim_fail(c, (result.code & 0xff) == SQLITE_BUSY ? WALRAFT_IOERR_NOT_COMMITTED : result.code, "%s", result.text);
	s->after = result.after;
	s->mended = result.mended;
	s->committed = true;
	c->last_index = result.index;
	return SQLITE_OK;
}
