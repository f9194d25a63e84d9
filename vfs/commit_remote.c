/* A commit of a connection whose node another process hosts: the private frames go there as they are, and it does with them what capture.c does for its own (proxy.c). */
#include "vfs/attached.h"
#include "vfs/conn.h"
#include "vfs/walfmt.h"
#include <string.h>
#include <time.h>

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

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* The host ended, or was cut off, before it answered. Whoever hosts the node next, be it this process, can tell what became of the transaction, by its id: that one is asked, while the connection
 * keeps its locks and its session; it goes over later, as always. */
static int settle(struct vfs_conn *c, const char *why, uint64_t deadline_us)
{
	struct vfs_host_ops host = shim_host_ops();
	struct shim_session *s = &c->session;
	const struct vfs_node_ops *ops;
	struct vfs_db *db = NULL;
	struct wire_err err = { 0 };
	uint64_t index = 0, now;
	int rc = WIRE_CLOSED;

	while (rc == WIRE_CLOSED && (now = now_us()) < deadline_us) {
		rc = host.open_db(host.ctx, c->path, c->may_set_up, &db, &err);
		if (rc)
			break;
		ops = vfs_db_ops(db);
		now = now_us();
		rc = ops->outcome(ops->ctx, s->txid, now < deadline_us ? (uint32_t)((deadline_us - now) / 1000) : 0, &index, &err);
		if (rc == WIRE_OK && index && (now = now_us()) < deadline_us)
			(void)ops->wait_published(ops->ctx, index, (uint32_t)((deadline_us - now) / 1000), &err);
		host.close_db(host.ctx, db);
		vfs_db_unref(db);
		if (rc == WIRE_CLOSED) /* that one has ended, too, or is about to */
			shim_base(c)->xSleep(shim_base(c), 2000);
	}
	if (rc)
		return shim_fail(c, WALRAFT_IOERR_UNKNOWN, "%s: %s; %s; walraft_outcome(walraft_transaction()) tells, here or by its id on any node", c->path, why, *err.text ? err.text : "nobody could be asked in time");
	if (!index)
		return shim_fail(c, WALRAFT_IOERR_NOT_COMMITTED, "%s: not committed, repeat it: %s", c->path, why);
	/* What SQLite now has is not what was published, but for the contents. */
	s->after = s->base;
	s->committed = s->mended = c->unmatched = true;
	c->last_index = index;
	return SQLITE_OK;
}

int shim_matches(struct vfs_conn *c)
{
	if (!c->unmatched || c->session.open)
		return SQLITE_OK;
	return shim_fail(c, WALRAFT_IOERR_FENCED, "%s: the process that hosted the node ended during a commit of this connection; it is committed, but a statement that was open across it has to be begun again",
	                 c->path);
}

int shim_commit_remote(struct vfs_conn *c, uint32_t n_frames, uint32_t db_after)
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);
	struct shim_session *s = &c->session;
	struct vfs_remote_commit commit = { .epoch = s->epoch, .sequence = s->sequence, .base = s->base, .n_frames = n_frames, .db_after = db_after, .timeout_ms = c->timeout_ms, .once = s->once,
		                            .rewritten = s->rewritten != 0, .bytes = (uint64_t)n_frames * (VFS_FRAME_HDR + c->page_size), .read_ctx = c, .read = read_store };
	struct vfs_remote_result result = { 0 };
	struct wire_err err = { 0 };
	const uint64_t deadline_us = now_us() + (uint64_t)c->timeout_ms * 1000;
	int rc = shim_session_check(c);

	/* All that SQLite needs after a commit is had before it. */
	if (rc == SQLITE_OK)
		rc = shim_regions_for(c, n_frames);
	if (rc)
		return rc;
	rc = ops->commit_frames(ops->ctx, c, &commit, &result, &err);
	if (rc == WIRE_UNKNOWN)
		return settle(c, err.text, deadline_us);
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
