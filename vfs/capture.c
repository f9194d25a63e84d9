/* From the private frames of a transaction to an entry, and to the publication of the same frames.
 *
 * The old version of each page is read and hashed before it is compared: a page that went bad on this disk refuses the commit instead of being taken for
 * the base of everybody's next version. All that may fail for want of memory or space is done before the last chunk is proposed. */
#include "vfs/conn.h"
#include "vfs/walfmt.h"
#include "wire/buf.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

struct capture {
	struct vfs_conn *c;
	struct vfs_db *db;
	const struct vfs_node_ops *ops;
	uint32_t page_size, n_frames, db_before, db_after;
	uint64_t *last; /* pgno << 32 | private frame: the last one of each page, ascending */
	uint32_t n_last;
	uint8_t *frame, *old; /* header and page; page */
	struct vfs_pageset_enc enc;
	struct vfs_pageset_head head;
	struct wire_buf out;
	struct vfs_page_update *updates;
	uint32_t n_updates, n_chunks;
	uint64_t sum, first_index;
};

static int no_memory(struct capture *k)
{
	return shim_fail(k->c, WALRAFT_IOERR_NOT_COMMITTED, "%s: out of memory for the page set of the transaction; it is not committed", k->c->path);
}

/* ---- which frames ---- */

static int by_value(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

	return (a > b) - (a < b);
}

static int list_pages(struct capture *k)
{
	const struct shim_session *s = &k->c->session;
	uint32_t n = 0, n_new = 0, want;

	k->last = malloc(k->n_frames * sizeof *k->last);
	if (!k->last)
		return no_memory(k);
	for (uint32_t i = 0; i < k->n_frames; i++)
		k->last[i] = (uint64_t)s->pgnos[i] << 32 | i;
	qsort(k->last, k->n_frames, sizeof *k->last, by_value);
	for (uint32_t i = 0; i < k->n_frames; i++) {
		uint32_t pgno = (uint32_t)(k->last[i] >> 32);

		if (i + 1 < k->n_frames && (uint32_t)(k->last[i + 1] >> 32) == pgno)
			continue;
		if (pgno == 0 || pgno > k->db_after || vfs_pages_is_lock_page(k->page_size, pgno))
			continue;
		n_new += pgno > k->db_before;
		k->last[n++] = k->last[i];
	}
	k->n_last = n;
	want = k->db_after > k->db_before ? k->db_after - k->db_before : 0;
	for (uint32_t pgno = k->db_before + 1; pgno <= k->db_after; pgno++) {
		if (vfs_pages_is_lock_page(k->page_size, pgno))
			want--;
	}
	if (n_new != want)
		return shim_fail(k->c, WALRAFT_IOERR_NODE, "%s: the transaction adds %u pages but writes only %u of them; it is not committed", k->c->path, want, n_new);
	return SQLITE_OK;
}

/* ---- proposing ---- */

static int refused(struct capture *k, int code, const struct wire_err *err)
{
	const char *path = k->c->path;

	switch (code) {
	case WIRE_FENCED:
	case WIRE_NOTLEADER:
		return shim_fail(k->c, WALRAFT_IOERR_FENCED, "%s: not committed, repeat it: %s", path, err->text);
	case WIRE_UNKNOWN:
		return shim_fail(k->c, WALRAFT_IOERR_UNKNOWN, "%s: %s; walraft_outcome(walraft_transaction()) tells, here or by its id on any node", path, err->text);
	default:
		return shim_fail(k->c, WALRAFT_IOERR_NOT_COMMITTED, "%s: not committed, repeat it: %s", path, err->text);
	}
}

static int finish_entry(struct capture *k, bool close)
{
	struct wire_err err;

	k->head.flags = (uint8_t)((k->n_chunks == 0 ? VFS_PAGESET_FIRST : 0) | (close ? VFS_PAGESET_CLOSE : 0));
	k->head.chunk = (uint16_t)(k->n_chunks < UINT16_MAX ? k->n_chunks : UINT16_MAX);
	k->head.n_chunks = k->n_chunks + 1;
	k->head.first_index = k->first_index;
	k->head.sum_after = k->sum;
	k->head.db_after = k->db_after;
	wire_buf_reset(&k->out);
	if (vfs_pageset_enc_finish(&k->enc, &k->head, &k->out, &err) != WIRE_OK)
		return shim_fail(k->c, WALRAFT_IOERR_NOT_COMMITTED, "%s: not committed: %s", k->c->path, err.text);
	return SQLITE_OK;
}

static int propose_chunk(struct capture *k)
{
	struct wire_err err = { 0 };
	uint64_t index;
	int rc = finish_entry(k, false);

	if (rc)
		return rc;
	rc = k->ops->propose(k->ops->ctx, k->c->session.epoch, k->out.data, k->out.len, k->c->timeout_ms, &index, &err);
	if (rc)
		return refused(k, rc == WIRE_UNKNOWN ? WIRE_LOST : rc, &err); /* without its close it is nothing */
	if (k->n_chunks++ == 0)
		k->first_index = index;
	return SQLITE_OK;
}

/* ---- pages ---- */

static int read_frame(struct capture *k, uint32_t frame)
{
	const uint32_t size = VFS_FRAME_HDR + k->page_size;
	int rc = shim_store_read(&k->c->session.store, k->frame, size, (uint64_t)frame * size);

	return rc == SQLITE_IOERR_SHORT_READ ? shim_fail(k->c, WALRAFT_IOERR_NODE, "%s: frame %u of the transaction was never written", k->c->path, frame + 1) : rc;
}

static int read_old(struct capture *k, uint32_t pgno, uint64_t *ret_hash)
{
	struct wire_err err = { 0 };
	int rc = vfs_db_read_page(k->db, pgno, k->old, &err);
	int lost;

	*ret_hash = vfs_db_page_hash(k->db, pgno);
	if (rc == WIRE_OK && wire_page_hash(pgno, k->old, k->page_size) == *ret_hash)
		return SQLITE_OK;
	lost = shim_session_check(k->c); /* others' pages came in between */
	if (lost)
		return lost;
	if (rc)
		return shim_fail(k->c, WALRAFT_IOERR_NODE, "%s: not committed: %s", k->c->path, err.text);
	return shim_fail(k->c, WALRAFT_IOERR_NODE, "%s: not committed: page %u is not what was written there (bit rot, or a change from outside walraft); this replica must be healed from another",
	                 k->c->path, pgno);
}

/* ---- the chain of checksums ---- */

/* Are the salts, and the sizes that make commits, where they belong? */
static int check_headers(struct capture *k, bool *ret_right)
{
	const uint32_t size = VFS_FRAME_HDR + k->page_size;
	const struct shim_session *s = &k->c->session;
	uint8_t head[VFS_FRAME_HDR];
	struct vfs_frame_header f;

	*ret_right = true;
	for (uint32_t i = 0; i < k->n_frames && *ret_right; i++) {
		int rc = shim_store_read(&k->c->session.store, head, sizeof head, (uint64_t)i * size);

		if (rc)
			return rc;
		vfs_frame_get(head, &f);
		*ret_right = f.pgno == s->pgnos[i] && f.db_pages == (i + 1 < k->n_frames ? 0 : k->db_after) && f.salt[0] == wire_be32(s->base.salt) &&
		             f.salt[1] == wire_be32(s->base.salt + 4);
	}
	return SQLITE_OK;
}

/* SQLite 3.40 forgets where it has to begin with rewriting checksums when a savepoint is rolled back to before that place: frames keep headers without
 * salts, and the chain is broken. Published like that, the transaction would be gone after a recovery. */
static int mend_chain(struct capture *k)
{
	struct shim_session *s = &k->c->session;
	const uint32_t size = VFS_FRAME_HDR + k->page_size;
	const struct vfs_wal_header h = { .page_size = k->page_size, .salt = { wire_be32(s->base.salt), wire_be32(s->base.salt + 4) }, .big_end_cksum = s->base.big_end_cksum };
	uint32_t sum[2] = { s->base.frame_cksum[0], s->base.frame_cksum[1] };
	uint8_t head[VFS_FRAME_HDR];

	for (uint32_t i = 0; i < k->n_frames; i++) {
		int rc = read_frame(k, i);

		if (rc)
			return rc;
		vfs_frame_put(&h, s->pgnos[i], i + 1 < k->n_frames ? 0 : k->db_after, k->frame + VFS_FRAME_HDR, sum, head);
		if (memcmp(head, k->frame, sizeof head) == 0)
			continue;
		s->mended = true;
		rc = shim_store_write(&s->store, shim_base(k->c), head, sizeof head, (uint64_t)i * size);
		if (rc)
			return rc;
	}
	return SQLITE_OK;
}

static int right_chain(struct capture *k)
{
	bool right = false;
	int rc = k->c->session.rewritten ? SQLITE_OK : check_headers(k, &right);

	return rc || right ? rc : mend_chain(k);
}

static int add_page(struct capture *k, uint32_t pgno, uint32_t frame)
{
	const uint8_t *page = k->frame + VFS_FRAME_HDR;
	const bool is_new = pgno > k->db_before;
	uint64_t before = 0, after;
	int rc = read_frame(k, frame);

	if (rc == SQLITE_OK && !is_new)
		rc = read_old(k, pgno, &before);
	if (rc)
		return rc;
	if (!is_new && memcmp(k->old, page, k->page_size) == 0)
		return SQLITE_OK;
	if (k->enc.body.len >= VFS_CHUNK_BYTES) {
		rc = propose_chunk(k);
		if (rc)
			return rc;
	}
	after = wire_page_hash(pgno, page, k->page_size);
	vfs_pageset_enc_add(&k->enc, pgno, is_new ? NULL : k->old, page, after);
	k->updates[k->n_updates++] = (struct vfs_page_update){ .pgno = pgno, .hash = after };
	k->sum ^= before ^ after;
	return SQLITE_OK;
}

/* A size that changes must show in an entry with a page. */
static int add_unchanged(struct capture *k)
{
	uint64_t hash;
	int rc = read_old(k, 1, &hash);

	if (rc)
		return rc;
	vfs_pageset_enc_add(&k->enc, 1, k->old, k->old, hash);
	k->updates[k->n_updates++] = (struct vfs_page_update){ .pgno = 1, .hash = hash };
	return SQLITE_OK;
}

static int add_pages(struct capture *k)
{
	int rc = SQLITE_OK;

	k->updates = malloc((k->n_last + 1) * sizeof *k->updates);
	if (!k->updates)
		return no_memory(k);
	for (uint32_t pgno = k->db_after + 1; pgno <= k->db_before; pgno++)
		k->sum ^= vfs_db_page_hash(k->db, pgno);
	for (uint32_t i = 0; i < k->n_last && rc == SQLITE_OK; i++)
		rc = add_page(k, (uint32_t)(k->last[i] >> 32), (uint32_t)k->last[i]);
	if (rc == SQLITE_OK && k->n_updates == 0 && k->db_after != k->db_before)
		rc = add_unchanged(k);
	return rc;
}

/* ---- publication ---- */

static int publication_frame(void *ctx, uint32_t i, uint8_t *dst, struct wire_err *err)
{
	struct capture *k = ctx;
	const uint32_t size = VFS_FRAME_HDR + k->page_size;
	int rc = shim_store_read(&k->c->session.store, dst, size, (uint64_t)i * size);

	return rc ? wire_fail(err, WIRE_IO, "reading private frame %u of %s: SQLite code %d", i + 1, k->c->path, rc) : WIRE_OK;
}

/* All that the publication, and SQLite's own appending to its wal-index after it, will need. */
static int prepare(struct capture *k)
{
	struct wire_err err;

	if (vfs_db_publish_prepare(k->db, k->n_frames, k->db_after, &err) != WIRE_OK)
		return shim_fail(k->c, WALRAFT_IOERR_NOT_COMMITTED, "%s: not committed: %s", k->c->path, err.text);
	return k->c->proxy ? SQLITE_OK : shim_regions_for(k->c, k->n_frames);
}

/* The wal-index header that follows from the last frame: what the publication shows, and what SQLite will write into its private copy. */
static int expect_header(struct capture *k)
{
	struct shim_session *s = &k->c->session;
	struct vfs_walindex_hdr copies[2];
	struct vfs_frame_header f;
	int rc = read_frame(k, k->n_frames - 1);

	if (rc)
		return rc;
	vfs_frame_get(k->frame, &f);
	s->after = s->base;
	s->after.change++;
	s->after.mx_frame += k->n_frames;
	s->after.n_page = k->db_after;
	s->after.frame_cksum[0] = f.cksum[0];
	s->after.frame_cksum[1] = f.cksum[1];
	vfs_walindex_write_header(copies, &s->after);
	return SQLITE_OK;
}

static int close_transaction(struct capture *k)
{
	struct vfs_conn *c = k->c;
	struct wire_err err = { 0 };
	struct vfs_publication p = { .n_frames = k->n_frames, .db_pages = k->db_after, .pgnos = c->session.pgnos, .verbatim = true, .ctx = k,
		                     .frame = publication_frame, .n_updates = k->n_updates, .updates = k->updates, .checksum_after = k->sum, .n_effects = 1 };
	struct vfs_effect effect = { .transaction = true, .timestamp_us = k->head.timestamp_us, .once = k->head.once };
	int rc = finish_entry(k, true);

	if (rc == SQLITE_OK)
		rc = expect_header(k);
	if (rc)
		return rc;
	memcpy(effect.txid, k->head.txid, sizeof effect.txid);
	p.effects = &effect;
	rc = k->ops->commit(k->ops->ctx, c->session.epoch, k->out.data, k->out.len, c->timeout_ms, &p.index, &err);
	if (rc)
		return refused(k, rc, &err);
	for (uint32_t i = 0; i < k->n_updates; i++)
		k->updates[i].index = p.index;
	effect.index = p.index;
	rc = vfs_db_publish(k->db, &p, &err);
	k->ops->commit_end(k->ops->ctx, p.index, rc == WIRE_OK);
	if (rc)
		return shim_fail(c, WALRAFT_IOERR_UNKNOWN, "%s: committed by the cluster (entry %llu), but this node could not write it to the WAL and ends its part: %s", c->path,
		                 (unsigned long long)p.index, err.text);
	c->session.committed = true;
	c->last_index = p.index;
	return SQLITE_OK;
}

static int capture(struct capture *k)
{
	struct vfs_db_status status;
	int rc;

	k->frame = malloc(VFS_FRAME_HDR + k->page_size);
	k->old = malloc(k->page_size);
	if (!k->frame || !k->old)
		return no_memory(k);
	vfs_db_status(k->db, &status);
	k->sum = k->head.sum_before = status.checksum;
	rc = shim_session_check(k->c); /* the checksum is of the session's base */
	if (rc == SQLITE_OK)
		rc = list_pages(k);
	if (rc == SQLITE_OK)
		rc = right_chain(k);
	if (rc == SQLITE_OK)
		rc = prepare(k);
	if (rc == SQLITE_OK)
		rc = add_pages(k);
	if (rc == SQLITE_OK)
		rc = shim_session_check(k->c);
	return rc ? rc : close_transaction(k);
}

int shim_commit(struct vfs_conn *c, uint32_t n_frames, uint32_t db_after)
{
	const struct shim_session *s = &c->session;
	struct capture k = { .c = c, .db = c->db, .ops = vfs_db_ops_inside(c->db), .page_size = c->page_size, .n_frames = n_frames, .db_before = s->base.n_page, .db_after = db_after };
	int rc;

	if (k.ops->commit_frames)
		return shim_commit_remote(c, n_frames, db_after);
	/* From here to commit_end the node cannot go: what it said is committed is published, and it is told so. */
	if (!vfs_db_enter(k.db))
		return shim_session_check(c);
	vfs_pageset_enc_init(&k.enc, k.page_size);
	k.head = (struct vfs_pageset_head){ .once = s->once, .page_size = k.page_size, .db_before = k.db_before, .timestamp_us = k.ops->wall_us(k.ops->ctx, s->epoch) };
	memcpy(k.head.txid, s->txid, sizeof k.head.txid);
	rc = shim_once_check(c);
	if (rc == SQLITE_OK)
		rc = capture(&k);
	free(k.last);
	free(k.frame);
	free(k.old);
	free(k.updates);
	wire_buf_free(&k.out);
	vfs_pageset_enc_free(&k.enc);
	vfs_db_leave(k.db);
	return (rc & 0xff) == SQLITE_BUSY ? WALRAFT_IOERR_NOT_COMMITTED : rc;
}
