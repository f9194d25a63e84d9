/* Recovery: what counts in -wal is read by its own rule (walfmt.h), and the real wal-index is brought to it. Where the wal-index was right so far, only the rest
 * is appended, so that stock readers who use it notice nothing; else it is made anew under the locks that keep all of them out. */
#include "vfs/db_impl.h"
#include "wire/buf.h"
#include <stdlib.h>
#include <string.h>

#define LOCK_WAIT_US 2000000u
#define LOCK_NAP_US 10000u

struct scan {
	uint32_t frames, db_pages, cksum[2]; /* at the last valid commit */
	uint32_t *pgnos, n_pgnos, cap;       /* of all valid frames */
	uint32_t probe, probe_cksum[2];      /* the chain at frame `probe`, when it is valid */
	bool probe_found;
};

static int keep_pgno(struct scan *s, uint32_t pgno, const char *name, struct wire_err *err)
{
	if (s->n_pgnos == s->cap) {
		uint32_t cap = s->cap ? s->cap * 2 : 4096;
		uint32_t *grown = realloc(s->pgnos, cap * sizeof *grown);

		if (!grown)
			return wire_fail(err, WIRE_NOMEM, "reading %s: out of memory", name);
		s->pgnos = grown;
		s->cap = cap;
	}
	s->pgnos[s->n_pgnos++] = pgno;
	return WIRE_OK;
}

/* WIRE_OK with *ret_valid false ends the scan. */
static int take_frame(struct vfs_db *db, struct scan *s, const uint8_t *frame, uint32_t sum[2], bool *ret_valid, struct wire_err *err)
{
	const struct vfs_wal_header *w = &db->wal_hdr;
	struct vfs_frame_header f;
	int rc;

	*ret_valid = false;
	vfs_frame_get(frame, &f);
	if (f.pgno == 0 || f.salt[0] != w->salt[0] || f.salt[1] != w->salt[1])
		return WIRE_OK;
	vfs_wal_cksum(w->big_end_cksum, frame, 8, sum);
	vfs_wal_cksum(w->big_end_cksum, frame + VFS_FRAME_HDR, w->page_size, sum);
	if (sum[0] != f.cksum[0] || sum[1] != f.cksum[1])
		return WIRE_OK;
	rc = keep_pgno(s, f.pgno, db->wal.name, err);
	if (rc)
		return rc;
	if (f.db_pages) {
		s->frames = s->n_pgnos;
		s->db_pages = f.db_pages;
		memcpy(s->cksum, sum, sizeof s->cksum);
	}
	if (s->n_pgnos == s->probe) {
		memcpy(s->probe_cksum, sum, sizeof s->probe_cksum);
		s->probe_found = true;
	}
	*ret_valid = true;
	return WIRE_OK;
}

static int scan_frames(struct vfs_db *db, struct scan *s, uint64_t size, struct wire_err *err)
{
	const size_t frame_bytes = VFS_FRAME_HDR + db->wal_hdr.page_size, per_read = DB_IO_BYTES / frame_bytes;
	uint64_t left = (size - VFS_WAL_HDR) / frame_bytes, at = VFS_WAL_HDR;
	uint32_t sum[2] = { db->wal_hdr.cksum[0], db->wal_hdr.cksum[1] };
	bool valid = true;

	while (left > 0 && valid) {
		size_t n = left < per_read ? (size_t)left : per_read;
		int rc = db_file_read(db, &db->wal, db->io_buf, n * frame_bytes, at, NULL, err);

		for (size_t i = 0; i < n && valid && rc == WIRE_OK; i++)
			rc = take_frame(db, s, db->io_buf + i * frame_bytes, sum, &valid, err);
		if (rc)
			return rc;
		left -= n;
		at += n * frame_bytes;
	}
	return WIRE_OK;
}

static int scan_wal(struct vfs_db *db, struct scan *s, struct wire_err *err)
{
	uint8_t head[VFS_WAL_HDR];
	uint64_t size;
	int rc = db_file_size(db, &db->wal, &size, err);

	db->wal_hdr = (struct vfs_wal_header){ 0 };
	if (rc || size < VFS_WAL_HDR)
		return rc;
	rc = db_file_read(db, &db->wal, head, sizeof head, 0, NULL, err);
	if (rc)
		return rc;
	if (!vfs_wal_header_get(head, &db->wal_hdr)) {
		db->wal_hdr = (struct vfs_wal_header){ 0 };
		return WIRE_OK;
	}
	return scan_frames(db, s, size, err);
}

/* Of the database file itself; 0 pages when it is empty. */
static int read_db_shape(struct vfs_db *db, uint32_t *ret_page_size, uint32_t *ret_pages, struct wire_err *err)
{
	uint8_t head[100];
	uint64_t size;
	uint32_t page_size;
	int rc = db_file_size(db, &db->anchor, &size, err);

	if (rc)
		return rc;
	if (size < sizeof head) {
		*ret_page_size = *ret_pages = 0;
		return WIRE_OK;
	}
	rc = db_file_read(db, &db->anchor, head, sizeof head, 0, NULL, err);
	if (rc)
		return rc;
	page_size = (uint32_t)head[16] << 8 | (uint32_t)head[17] << 16;
	if (memcmp(head, "SQLite format 3", 16) != 0 || page_size < 512 || page_size > 65536 || (page_size & (page_size - 1)))
		return wire_fail(err, WIRE_CORRUPT, "%s is not an SQLite database", db->path);
	*ret_page_size = page_size;
	*ret_pages = (uint32_t)(size / page_size);
	return WIRE_OK;
}

static void put_header(struct vfs_db *db, const struct scan *s, uint32_t file_pages, uint32_t change)
{
	struct vfs_walindex_hdr *h = &db->hdr;

	*h = (struct vfs_walindex_hdr){ .version = 3007000, .change = change, .is_init = 1, .big_end_cksum = db->wal_hdr.big_end_cksum };
	h->page_size = (uint16_t)((db->page_size & 0xff00) | (db->page_size >> 16));
	h->mx_frame = s->frames;
	h->n_page = s->frames ? s->db_pages : file_pages;
	memcpy(h->frame_cksum, s->frames ? s->cksum : db->wal_hdr.cksum, sizeof h->frame_cksum);
	wire_set_be32(h->salt, db->wal_hdr.salt[0]);
	wire_set_be32(h->salt + 4, db->wal_hdr.salt[1]);
}

static int append_frames(struct vfs_db *db, const struct scan *s, uint32_t from, struct wire_err *err)
{
	struct vfs_regions r = db_regions(db);
	int rc = db_map_regions(db, vfs_walindex_region_of(s->frames ? s->frames : 1) + 1, err);

	for (uint32_t frame = from; rc == WIRE_OK && frame <= s->frames; frame++)
		rc = vfs_walindex_append(&r, frame, s->pgnos[frame - 1], err);
	return rc;
}

static int rebuild(struct vfs_db *db, const struct scan *s, uint32_t file_pages, struct wire_err *err)
{
	struct vfs_ckpt_info *info = db_ckpt_info(db);
	uint32_t waited = 0;
	int rc;

	/* Not RECOVER: who finds that taken is told `database is locked`, where without it he waits until the header is there. */
	/* READ0 may stay with its holders: they read the file alone, which nothing here changes. So they do where a restart of the WAL was cut short. */
	while ((rc = db_shm_lock(db, DB_SHM_READ(1), VFS_READERS - 1)) == SQLITE_BUSY && waited < LOCK_WAIT_US) {
		db_nap_us(db, LOCK_NAP_US);
		waited += LOCK_NAP_US;
	}
	if ((rc & 0xff) == SQLITE_BUSY)
		return wire_fail(err, WIRE_BUSY, "%s-wal must be recovered, but another process is reading the database: end its transaction, then start again", db->path);
	if (rc != SQLITE_OK)
		return db_fail(db, err, rc, "locking the -shm of", db->path);
	/* Should we die from here on, the next opener finds no header and recovers for itself. */
	memset(db->region[0], 0, 2 * sizeof db->hdr);
	atomic_thread_fence(memory_order_seq_cst);
	rc = append_frames(db, s, 1, err);
	if (rc == WIRE_OK) {
		info->backfill = 0;
		info->backfill_attempted = s->frames;
		info->read_mark[0] = 0;
		for (int i = 1; i < VFS_READERS; i++)
			info->read_mark[i] = i == 1 && s->frames ? s->frames : VFS_READMARK_NOT_USED;
		put_header(db, s, file_pages, 1);
		vfs_walindex_write_header(db->region[0], &db->hdr);
	}
	db_shm_unlock(db, DB_SHM_READ(1), VFS_READERS - 1);
	return rc;
}

static bool index_is_right_so_far(struct vfs_db *db, const struct scan *s, const struct vfs_walindex_hdr *old)
{
	uint8_t salt[8];

	if (old->mx_frame == 0 && s->frames == 0)
		return db_ckpt_info(db)->backfill == 0;
	wire_set_be32(salt, db->wal_hdr.salt[0]);
	wire_set_be32(salt + 4, db->wal_hdr.salt[1]);
	if (memcmp(old->salt, salt, sizeof salt) != 0 || old->mx_frame > s->frames)
		return false;
	return old->mx_frame == 0 || (s->probe_found && memcmp(old->frame_cksum, s->probe_cksum, sizeof s->probe_cksum) == 0);
}

int db_recover(struct vfs_db *db, struct wire_err *err)
{
	struct vfs_walindex_hdr old = { 0 };
	struct scan s = { 0 };
	uint32_t file_page_size = 0, file_pages = 0;
	bool have_old;
	int rc = db_map_regions(db, 1, err);

	if (rc)
		return rc;
	have_old = vfs_walindex_read_header(db->region[0], true, &old);
	s.probe = have_old ? old.mx_frame : 0;
	rc = scan_wal(db, &s, err);
	if (rc == WIRE_OK)
		rc = read_db_shape(db, &file_page_size, &file_pages, err);
	if (rc)
		goto out;
	db->page_size = s.frames ? db->wal_hdr.page_size : file_page_size;
	if (db->page_size == 0) {
		rc = wire_fail(err, WIRE_CORRUPT, "%s is empty and so is its -wal: restore it from a copy, or remove it and %s-walraft and join again", db->path, db->path);
		goto out;
	}
	if (s.frames && !file_page_size) { /* SQLite reads no WAL beside it: to all others there is nothing in this database */
		rc = wire_fail(err, WIRE_CHANGED, "%s was changed outside walraft: it was emptied, while its -wal is still there. Restore it from a copy, or, where it is its cluster's only member, take it as it is: walraft adopt %s", db->path, db->path);
		goto out;
	}
	if (s.frames && file_page_size != db->page_size) {
		rc = wire_fail(err, WIRE_CORRUPT, "%s has pages of %u bytes, its -wal of %u: the two don't belong together", db->path, file_page_size, db->page_size);
		goto out;
	}
	if (have_old && index_is_right_so_far(db, &s, &old)) {
		/* A restart of the WAL that was cut short after the header: nothing of this WAL is in the file. Others may be reading it already, so that it is not made anew. */
		if (db_ckpt_info(db)->backfill > old.mx_frame)
			__atomic_store_n(&db_ckpt_info(db)->backfill, 0, __ATOMIC_SEQ_CST);
		rc = append_frames(db, &s, old.mx_frame + 1, err);
		if (rc)
			goto out;
		put_header(db, &s, file_pages, old.mx_frame == s.frames ? old.change : old.change + 1);
		vfs_walindex_write_header(db->region[0], &db->hdr);
	} else {
		rc = rebuild(db, &s, file_pages, err);
	}
out:
	free(s.pgnos);
	return rc;
}
