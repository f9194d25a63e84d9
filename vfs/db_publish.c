/* The one way in which anything becomes visible: frames into the real -wal, a note into the journal, then wal-index and state in memory under pub.
 *
 * Whatever can be wrong is found before the last frame, the one that commits, is written: until then nothing but bytes beyond the end of the WAL has changed. */
#include "vfs/db_impl.h"
#include "wire/buf.h"
#include <string.h>

#define APPEND_BATCH 1024u /* frames per hold of pub */

int vfs_db_publish_prepare(struct vfs_db *db, uint32_t n_frames, uint32_t db_pages, struct wire_err *err)
{
	uint32_t mx_frame;
	int rc;

	pthread_mutex_lock(&db->pub);
	mx_frame = db->hdr.mx_frame;
	rc = vfs_pages_reserve(db->pages, db_pages > vfs_pages_count(db->pages) ? db_pages : vfs_pages_count(db->pages), err);
	pthread_mutex_unlock(&db->pub);
	if (rc)
		return rc;
	if (n_frames > UINT32_MAX - mx_frame - VFS_REGION_FRAMES)
		return wire_fail(err, WIRE_TOOBIG, "%s-wal has no room for %u more frames", db->path, n_frames);
	/* One region more, for what other publications take before this one. */
	return db_map_regions(db, vfs_walindex_region_of(mx_frame + n_frames) + 2, err);
}

static int check_publication(struct vfs_db *db, const struct vfs_publication *p, struct wire_err *err)
{
	uint64_t sum = vfs_pages_checksum(db->pages);
	uint32_t count = vfs_pages_count(db->pages), prev = 0;

	if (p->n_frames == 0 || p->db_pages == 0 || p->index <= vfs_db_published(db))
		return wire_fail(err, WIRE_INVALID, "publication of entry %llu (%u frames, %u pages) after %llu", (unsigned long long)p->index, p->n_frames,
		                 p->db_pages, (unsigned long long)vfs_db_published(db));
	for (uint32_t pgno = p->db_pages + 1; pgno <= count; pgno++)
		sum ^= vfs_pages_hash(db->pages, pgno);
	for (uint32_t i = 0; i < p->n_updates; i++) {
		const struct vfs_page_update *u = &p->updates[i];

		if (u->pgno <= prev || u->pgno > p->db_pages)
			return wire_fail(err, WIRE_INVALID, "publication of entry %llu: page %u is out of order or beyond the end", (unsigned long long)p->index, u->pgno);
		prev = u->pgno;
		if (!vfs_pages_is_lock_page(db->page_size, u->pgno))
			sum ^= vfs_pages_hash(db->pages, u->pgno) ^ u->hash;
	}
	if (sum != p->checksum_after)
		return wire_fail(err, WIRE_CORRUPT, "%s: entry %llu would leave state checksum %016llx, its own is %016llx: this replica has diverged and must be healed",
		                 db->path, (unsigned long long)p->index, (unsigned long long)sum, (unsigned long long)p->checksum_after);
	return WIRE_OK;
}

static int check_verbatim(struct vfs_db *db, const struct vfs_publication *p, uint32_t i, const uint8_t *frame, uint32_t sum[2], struct wire_err *err)
{
	struct vfs_frame_header f;
	bool last = i + 1 == p->n_frames, edge = i == 0 || last;

	vfs_frame_get(frame, &f);
	/* The ends of the chain are checked: where it joins what is published, and what the published header will say. */
	if (edge) {
		vfs_wal_cksum(db->wal_hdr.big_end_cksum, frame, 8, sum);
		vfs_wal_cksum(db->wal_hdr.big_end_cksum, frame + VFS_FRAME_HDR, db->page_size, sum);
	}
	if (f.pgno != p->pgnos[i] || f.salt[0] != db->wal_hdr.salt[0] || f.salt[1] != db->wal_hdr.salt[1] || f.db_pages != (last ? p->db_pages : 0) ||
	    (edge && (sum[0] != f.cksum[0] || sum[1] != f.cksum[1])))
		return wire_fail(err, WIRE_INTERNAL, "%s: frame %u of entry %llu does not continue the published WAL", db->path, i + 1, (unsigned long long)p->index);
	sum[0] = f.cksum[0];
	sum[1] = f.cksum[1];
	return WIRE_OK;
}

static int make_frame(struct vfs_db *db, const struct vfs_publication *p, uint32_t i, uint8_t *dst, uint32_t sum[2], struct wire_err *err)
{
	int rc;

	if (p->verbatim) {
		rc = p->frame(p->ctx, i, dst, err);
		return rc ? rc : check_verbatim(db, p, i, dst, sum, err);
	}
	rc = p->frame(p->ctx, i, dst + VFS_FRAME_HDR, err);
	if (rc)
		return rc;
	vfs_frame_put(&db->wal_hdr, p->pgnos[i], i + 1 == p->n_frames ? p->db_pages : 0, dst + VFS_FRAME_HDR, sum, dst);
	return WIRE_OK;
}

static int fail_for_good(struct vfs_db *db, int rc, const struct wire_err *cause)
{
	db->failed = rc;
	db->failure = *cause;
	return rc;
}

/* Leaves sum at the last frame's. */
static int write_frames(struct vfs_db *db, const struct vfs_publication *p, uint32_t sum[2], struct wire_err *err)
{
	const size_t frame_bytes = VFS_FRAME_HDR + db->page_size;
	uint64_t at = vfs_frame_offset(db->page_size, db->hdr.mx_frame + 1);
	size_t filled = 0;

	for (uint32_t i = 0; i < p->n_frames; i++) {
		int rc = make_frame(db, p, i, db->io_buf + filled, sum, err);

		if (rc)
			return rc;
		filled += frame_bytes;
		if (filled + frame_bytes <= DB_IO_BYTES && i + 1 < p->n_frames)
			continue;
		rc = db_file_write(db, &db->wal, db->io_buf, filled, at, err);
		if (rc)
			return i + 1 < p->n_frames ? rc : fail_for_good(db, rc, err);
		at += filled;
		filled = 0;
	}
	return WIRE_OK;
}

static void append_index(struct vfs_db *db, const struct vfs_publication *p)
{
	struct vfs_regions r = db_regions(db);
	uint32_t mx_frame = db->hdr.mx_frame;

	for (uint32_t i = 0; i < p->n_frames;) {
		uint32_t end = p->n_frames - i < APPEND_BATCH ? p->n_frames : i + APPEND_BATCH;

		pthread_mutex_lock(&db->pub);
		for (; i < end; i++)
			vfs_walindex_append(&r, mx_frame + 1 + i, p->pgnos[i], NULL); /* its regions are mapped: can't fail */
		pthread_mutex_unlock(&db->pub);
	}
}

static void show(struct vfs_db *db, const struct vfs_publication *p, const uint32_t sum[2])
{
	pthread_mutex_lock(&db->pub);
	vfs_pages_resize(db->pages, p->db_pages, NULL); /* reserved: can't fail */
	for (uint32_t i = 0; i < p->n_updates; i++)
		if (!vfs_pages_is_lock_page(db->page_size, p->updates[i].pgno))
			vfs_pages_set(db->pages, p->updates[i].pgno, p->updates[i].hash, p->updates[i].index);
	db->hdr.change++;
	db->hdr.mx_frame += p->n_frames;
	db->hdr.n_page = p->db_pages;
	db->hdr.frame_cksum[0] = sum[0];
	db->hdr.frame_cksum[1] = sum[1];
	vfs_walindex_write_header(db->region[0], &db->hdr);
	db->open = (struct db_open_tx){ 0 };
	db->n_publications++;
	/* In this order: a reader whom the gate lets pass because of the index must find its copy of the header old. */
	atomic_fetch_add_explicit(&db->sequence, 1, memory_order_acq_rel);
	db_share(db, p->index);
	atomic_store_explicit(&db->index, p->index, memory_order_release);
	pthread_mutex_unlock(&db->pub);
}

static int tell_effects(struct vfs_db *db, uint64_t upto, const struct vfs_effect *effects, size_t n, struct wire_err *err)
{
	int rc = db->ops.effects ? db->ops.effects(db->ops.ctx, upto, effects, n, err) : WIRE_OK;

	return rc ? fail_for_good(db, rc, err) : WIRE_OK;
}

int db_publish_locked(struct vfs_db *db, const struct vfs_publication *p, struct wire_err *err)
{
	uint32_t sum[2] = { db->hdr.frame_cksum[0], db->hdr.frame_cksum[1] };
	struct vfs_wal_pos pos;
	struct wire_err own = { 0 };
	int rc;

	if (!err)
		err = &own;
	if (db->failed) {
		*err = db->failure;
		return db->failed;
	}
	rc = vfs_db_publish_prepare(db, p->n_frames, p->db_pages, err);
	if (rc == WIRE_OK)
		rc = check_publication(db, p, err);
	if (rc == WIRE_OK)
		rc = write_frames(db, p, sum, err);
	if (rc)
		return rc;
	pos = (struct vfs_wal_pos){ { db->wal_hdr.salt[0], db->wal_hdr.salt[1] }, db->hdr.mx_frame + p->n_frames, { sum[0], sum[1] } };
	rc = db->ops.note_publication(db->ops.ctx, &pos, p->index, err);
	if (rc)
		return fail_for_good(db, rc, err);
	rc = tell_effects(db, p->index, p->effects, p->n_effects, err);
	if (rc)
		return rc;
	append_index(db, p);
	show(db, p, sum);
	return WIRE_OK;
}

int vfs_db_publish(struct vfs_db *db, const struct vfs_publication *p, struct wire_err *err)
{
	int rc;

	pthread_mutex_lock(&db->publisher);
	rc = db_publish_locked(db, p, err);
	pthread_mutex_unlock(&db->publisher);
	return rc;
}

int db_advance_locked(struct vfs_db *db, uint64_t index, const struct db_open_tx *open, const struct vfs_effect *effects, size_t n_effects, struct wire_err *err)
{
	struct wire_err own = { 0 };
	int rc = WIRE_OK;

	if (db->failed) {
		if (err)
			*err = db->failure;
		return db->failed;
	}
	if (index > vfs_db_published(db))
		rc = tell_effects(db, index, effects, n_effects, err ? err : &own);
	if (rc)
		return rc;
	pthread_mutex_lock(&db->pub);
	db->open = *open;
	if (index > atomic_load_explicit(&db->index, memory_order_relaxed)) {
		db_share(db, index);
		atomic_store_explicit(&db->index, index, memory_order_release);
	}
	pthread_mutex_unlock(&db->pub);
	return WIRE_OK;
}

int db_read_page(struct vfs_db *db, uint32_t pgno, void *dst, struct wire_err *err)
{
	for (;;) {
		struct vfs_regions r = db_regions(db);
		uint32_t frame, count;
		uint64_t sequence;
		int rc;

		pthread_mutex_lock(&db->pub);
		sequence = atomic_load_explicit(&db->sequence, memory_order_relaxed);
		frame = db->hdr.mx_frame ? vfs_walindex_find(&r, pgno, 1, db->hdr.mx_frame) : 0;
		count = db->hdr.n_page;
		pthread_mutex_unlock(&db->pub);
		if (pgno == 0 || pgno > count)
			return wire_fail(err, WIRE_INVALID, "%s has no page %u (%u pages)", db->path, pgno, count);
		rc = frame ? db_file_read(db, &db->wal, dst, db->page_size, vfs_frame_offset(db->page_size, frame) + VFS_FRAME_HDR, NULL, err)
		           : db_file_read(db, &db->anchor, dst, db->page_size, (uint64_t)(pgno - 1) * db->page_size, NULL, err);
		/* A publication and a checkpoint meanwhile may have put a newer version into the file, a restart another frame into the WAL. */
		if (sequence == vfs_db_sequence(db))
			return rc;
	}
}

int vfs_db_read_page(struct vfs_db *db, uint32_t pgno, void *dst, struct wire_err *err)
{
	int rc = db_read_page(db, pgno, dst, err);

	return rc ? wire_context(err, "page %u", pgno) : WIRE_OK;
}
