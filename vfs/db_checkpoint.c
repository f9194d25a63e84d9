/* From the WAL into the database file, marks, restarts, and the watchdog over the real header.
 *
 * The copying is done here and not by a connection of SQLite's: every transfer goes through the object's own handles (I14), the file is synced before
 * backfill moves whatever the WAL grew meanwhile, and a restart can be decided in the same hold of the locks. The protocol towards readers is that of SQLite's passive
 * checkpoint: a read mark that can't be raised bounds what is copied, READ0 is held exclusively while the file changes. */
#include "vfs/db_impl.h"
#include "wire/buf.h"
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

#define RESTART_WAIT_MS 400u
#define RESTART_NAP_US 1000u
#define RESTART_BACKOFF_NS 1000000000ull
#define RESTART_BACKOFF_MAX 4u /* doublings */
#define WAL_KEEP_BYTES (64ull << 20)

static int ckpt_sync(struct vfs_db *db, struct db_file *f, struct wire_err *err)
{
	int rc = db_file_sync(db, f, err);

	/* What a failed sync left undone is not tried again: the kernel may have forgotten it. */
	if (rc)
		db->ckpt_failed = rc;
	return rc;
}

/* ---- passive copying ---- */

/* The last frame that may be copied: not beyond what a reader of an older state still wants from the file. */
static uint32_t safe_frame(struct vfs_db *db, uint32_t mx_frame)
{
	struct vfs_ckpt_info *info = db_ckpt_info(db);
	uint32_t safe = mx_frame;

	for (int i = 1; i < VFS_READERS; i++) {
		uint32_t mark = __atomic_load_n(&info->read_mark[i], __ATOMIC_SEQ_CST);

		if (mark >= safe)
			continue;
		if (db_shm_lock(db, DB_SHM_READ(i), 1) == SQLITE_OK) {
			vfs_db_read_mark_store(db, i, i == 1 ? safe : VFS_READMARK_NOT_USED);
			db_shm_unlock(db, DB_SHM_READ(i), 1);
		} else {
			safe = mark;
		}
	}
	return safe;
}

static int by_value(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

	return (a > b) - (a < b);
}

/* pgno << 32 | frame of frames first..last, sorted. */
static int list_frames(struct vfs_db *db, uint32_t first, uint32_t last, uint64_t **ret_list, struct wire_err *err)
{
	size_t n = last - first + 1;
	uint64_t *list = malloc(n * sizeof *list);

	if (!list)
		return wire_fail(err, WIRE_NOMEM, "checkpoint of %s: out of memory", db->path);
	for (size_t i = 0; i < n;) {
		struct vfs_regions r = db_regions(db);

		pthread_mutex_lock(&db->pub);
		for (size_t end = n - i < 4096 ? n : i + 4096; i < end; i++)
			list[i] = (uint64_t)vfs_walindex_pgno(&r, first + (uint32_t)i) << 32 | (first + i);
		pthread_mutex_unlock(&db->pub);
	}
	qsort(list, n, sizeof *list, by_value);
	*ret_list = list;
	return WIRE_OK;
}

static int copy_frames(struct vfs_db *db, uint32_t first, uint32_t last, uint32_t db_pages, struct wire_err *err)
{
	uint64_t *list = NULL;
	size_t n = last - first + 1;
	int rc = list_frames(db, first, last, &list, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < n && rc == WIRE_OK; i++) {
		uint32_t pgno = (uint32_t)(list[i] >> 32), frame = (uint32_t)list[i];

		if ((i + 1 < n && (uint32_t)(list[i + 1] >> 32) == pgno) || pgno > db_pages)
			continue;
		rc = db_file_read(db, &db->wal, db->page_buf, db->page_size, vfs_frame_offset(db->page_size, frame) + VFS_FRAME_HDR, NULL, err);
		if (rc == WIRE_OK)
			rc = db_file_write(db, &db->anchor, db->page_buf, db->page_size, (uint64_t)(pgno - 1) * db->page_size, err);
	}
	free(list);
	return rc;
}

static int copy_under_read0(struct vfs_db *db, const struct vfs_walindex_hdr *hdr, uint32_t safe, struct wire_err *err)
{
	struct vfs_ckpt_info *info = db_ckpt_info(db);
	int rc;

	__atomic_store_n(&info->backfill_attempted, safe, __ATOMIC_SEQ_CST);
	rc = ckpt_sync(db, &db->wal, err);
	if (rc == WIRE_OK)
		rc = copy_frames(db, info->backfill + 1, safe, hdr->n_page, err);
	if (rc == WIRE_OK && safe == hdr->mx_frame) {
		int rc2;

		pthread_mutex_lock(&db->anchor.io);
		rc2 = db->anchor.f->pMethods->xTruncate(db->anchor.f, (sqlite3_int64)hdr->n_page * db->page_size);
		pthread_mutex_unlock(&db->anchor.io);
		if (rc2 != SQLITE_OK)
			rc = db_fail(db, err, rc2, "truncating", db->path);
	}
	if (rc == WIRE_OK)
		rc = ckpt_sync(db, &db->anchor, err);
	if (rc)
		return rc;
	db->db_synced = true;
	pthread_mutex_lock(&db->pub);
	__atomic_store_n(&info->backfill, safe, __ATOMIC_SEQ_CST);
	db->n_checkpoints++;
	pthread_mutex_unlock(&db->pub);
	return WIRE_OK;
}

/* *ret_all: all that is published now is in the file. */
static int backfill(struct vfs_db *db, bool *ret_all, struct wire_err *err)
{
	struct vfs_walindex_hdr hdr;
	uint32_t safe;
	int rc = WIRE_OK;

	pthread_mutex_lock(&db->pub);
	hdr = db->hdr;
	pthread_mutex_unlock(&db->pub);
	safe = safe_frame(db, hdr.mx_frame);
	if (db_ckpt_info(db)->backfill < safe && db_shm_lock(db, DB_SHM_READ(0), 1) == SQLITE_OK) {
		rc = copy_under_read0(db, &hdr, safe, err);
		db_shm_unlock(db, DB_SHM_READ(0), 1);
	}
	*ret_all = db_ckpt_info(db)->backfill == hdr.mx_frame;
	return rc;
}

/* ---- marks ---- */

static int mark(struct vfs_db *db, struct wire_err *err)
{
	struct vfs_pages_flush *flush = NULL;
	uint64_t index, sum;
	uint32_t db_pages;
	int rc = WIRE_OK;

	pthread_mutex_lock(&db->pub);
	index = db_state_index(db);
	sum = vfs_pages_checksum(db->pages);
	db_pages = vfs_pages_count(db->pages);
	if (index != db->marked_index)
		rc = vfs_pages_flush_begin(db->pages, index, &flush, err);
	pthread_mutex_unlock(&db->pub);
	if (rc || !flush)
		return rc;
	/* The state at index must be durable first: in the WAL, and what was backfilled by others before we came in the file. */
	rc = ckpt_sync(db, &db->wal, err);
	if (rc == WIRE_OK && !db->db_synced) {
		rc = ckpt_sync(db, &db->anchor, err);
		db->db_synced = rc == WIRE_OK;
	}
	{
		struct wire_err late = { 0 };
		int rc2 = vfs_pages_flush_write(flush, db->env, db->pages_path, rc ? &late : err);

		rc = rc ? rc : rc2;
	}
	if (rc) {
		pthread_mutex_lock(&db->pub);
		vfs_pages_dirty_all(db->pages);
		pthread_mutex_unlock(&db->pub);
		return rc;
	}
	rc = db->ops.note_mark(db->ops.ctx, index, sum, db_pages, err);
	if (rc == WIRE_OK)
		db->marked_index = index;
	return rc;
}

/* ---- restart ---- */

/* Order: the old header with everything backfilled sends every reader to the file until the new header stands; only then backfill is taken back. */
static void show_restart(struct vfs_db *db, const struct vfs_wal_header *w, const uint32_t sum[2], bool locked)
{
	struct vfs_ckpt_info *info;
	struct vfs_regions r = db_regions(db);

	pthread_mutex_lock(&db->pub);
	info = db_ckpt_info(db);
	if (db->shared)
		vfs_shared_restart(db->shared, true);
	vfs_walindex_append(&r, 1, 1, NULL); /* region 0 is mapped: can't fail */
	db->wal_hdr = *w;
	db->hdr.change++;
	db->hdr.big_end_cksum = w->big_end_cksum;
	db->hdr.mx_frame = 1;
	db->hdr.frame_cksum[0] = sum[0];
	db->hdr.frame_cksum[1] = sum[1];
	wire_set_be32(db->hdr.salt, w->salt[0]);
	wire_set_be32(db->hdr.salt + 4, w->salt[1]);
	vfs_walindex_write_header(db->region[0], &db->hdr);
	if (locked) {
		__atomic_store_n(&info->backfill, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&info->backfill_attempted, 0, __ATOMIC_SEQ_CST);
		for (int i = 0; i < VFS_READERS; i++)
			__atomic_store_n(&info->read_mark[i], i < 2 ? 0 : VFS_READMARK_NOT_USED, __ATOMIC_SEQ_CST);
	}
	db->n_restarts++;
	atomic_fetch_add_explicit(&db->sequence, 1, memory_order_acq_rel);
	db_share(db, atomic_load_explicit(&db->index, memory_order_relaxed));
	if (db->shared)
		vfs_shared_restart(db->shared, false);
	pthread_mutex_unlock(&db->pub);
}

/* Header and first frame go in one write and are durable before anything follows: torn, they make the WAL count as empty, which the file then is enough for. */
static int write_wal_start(struct vfs_db *db, struct vfs_wal_header *w, uint32_t sum[2], struct wire_err *err)
{
	uint8_t *frame = db->io_buf + VFS_WAL_HDR, *page = frame + VFS_FRAME_HDR;
	struct vfs_wal_pos pos;
	uint64_t index;
	int rc = db_read_page(db, 1, page, err);

	if (rc)
		return rc;
	vfs_wal_header_put(w, db->io_buf);
	memcpy(sum, w->cksum, sizeof w->cksum);
	vfs_frame_put(w, 1, db->hdr.n_page, page, sum, frame);
	pos = (struct vfs_wal_pos){ { w->salt[0], w->salt[1] }, 1, { sum[0], sum[1] } };
	pthread_mutex_lock(&db->pub);
	index = db_state_index(db);
	pthread_mutex_unlock(&db->pub);
	rc = db->ops.note_restart(db->ops.ctx, &pos, index, err);
	if (rc)
		return rc;
	rc = db_file_write(db, &db->wal, db->io_buf, VFS_WAL_HDR + VFS_FRAME_HDR + db->page_size, 0, err);
	if (rc == WIRE_OK)
		rc = db_file_sync(db, &db->wal, err);
	if (rc) {
		db->failed = rc;
		db->failure = *err;
	}
	return rc;
}

int db_restart_wal_locked(struct vfs_db *db, struct wire_err *err)
{
	struct vfs_wal_header w = { .page_size = db->page_size, .ckpt_seq = db->wal_hdr.ckpt_seq + 1, .big_end_cksum = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ };
	struct wire_err own = { 0 };
	uint32_t sum[2];
	uint64_t size;
	bool locked = false; /* with an empty WAL no reader has anything to lose */
	int rc;

	if (!err)
		err = &own;
	if (db->failed) {
		*err = db->failure;
		return db->failed;
	}
	if (db->hdr.mx_frame) {
		if (db_ckpt_info(db)->backfill != db->hdr.mx_frame || db_shm_lock(db, DB_SHM_READ(1), VFS_READERS - 1) != SQLITE_OK)
			return wire_fail(err, WIRE_BUSY, "readers still use %s-wal", db->path);
		locked = true;
	}
	rc = db->db_synced ? WIRE_OK : db_file_sync(db, &db->anchor, err);
	db->db_synced = rc == WIRE_OK;
	db->env->random(db->env->ctx, w.salt, sizeof w.salt);
	if (db->wal_hdr.page_size)
		w.salt[0] = db->wal_hdr.salt[0] + 1;
	if (rc == WIRE_OK)
		rc = write_wal_start(db, &w, sum, err);
	if (rc == WIRE_OK) {
		show_restart(db, &w, sum, locked);
		/* A huge transaction's space goes back; failing that it is only kept for later. */
		if (db_file_size(db, &db->wal, &size, NULL) == WIRE_OK && size > WAL_KEEP_BYTES)
			db->wal.f->pMethods->xTruncate(db->wal.f, (sqlite3_int64)vfs_frame_offset(db->page_size, 2));
	}
	if (locked)
		db_shm_unlock(db, DB_SHM_READ(1), VFS_READERS - 1);
	return rc;
}

static void put_off_restart(struct vfs_db *db, uint64_t now_ns)
{
	/* A reader that keeps its snapshot for long must not cost every writer 400 ms again and again. */
	db->restart_not_before_ns = now_ns + (RESTART_BACKOFF_NS << db->restart_failures);
	if (db->restart_failures < RESTART_BACKOFF_MAX)
		db->restart_failures++;
}

static int restart(struct vfs_db *db, bool *ret_restarted, struct wire_err *err)
{
	uint64_t now = db->env->now_ns(db->env->ctx), end;
	bool all = false;
	int rc;

	if (now < db->restart_not_before_ns)
		return WIRE_OK;
	if (!vfs_wlock_take(db->wlock, db, RESTART_WAIT_MS)) {
		put_off_restart(db, db->env->now_ns(db->env->ctx));
		return WIRE_OK;
	}
	/* With both held nothing new is published, so that new readers need the WAL no more while the old ones drain. */
	pthread_mutex_lock(&db->publisher);
	end = db->env->now_ns(db->env->ctx) + RESTART_WAIT_MS * 1000000ull;
	for (;;) {
		rc = backfill(db, &all, err);
		if (rc == WIRE_OK && all) {
			rc = db_restart_wal_locked(db, err);
			if (rc != WIRE_BUSY)
				break;
			rc = WIRE_OK;
		}
		now = db->env->now_ns(db->env->ctx);
		if (rc || now >= end)
			break;
		all = false;
		db_nap_us(db, RESTART_NAP_US);
	}
	pthread_mutex_unlock(&db->publisher);
	vfs_wlock_release(db->wlock, db, false);
	if (rc)
		return rc;
	if (!all || now >= end) {
		put_off_restart(db, now);
		return WIRE_OK;
	}
	db->restart_failures = 0;
	*ret_restarted = true;
	return WIRE_OK;
}

int vfs_db_checkpoint(struct vfs_db *db, uint32_t restart_frames, bool *ret_restarted, struct wire_err *err)
{
	bool all, restarted = false;
	uint32_t mx_frame;
	int rc = WIRE_OK;

	pthread_mutex_lock(&db->ckpt);
	if (db->ckpt_failed)
		rc = wire_fail(err, db->ckpt_failed, "%s: an earlier sync failed; its bytes can't be trusted to the disk any more: start the node again", db->path);
	if (rc == WIRE_OK)
		rc = mark(db, err);
	if (rc == WIRE_OK)
		rc = backfill(db, &all, err);
	pthread_mutex_lock(&db->pub);
	mx_frame = db->hdr.mx_frame;
	pthread_mutex_unlock(&db->pub);
	if (rc == WIRE_OK && mx_frame > restart_frames && mx_frame > 1)
		rc = restart(db, &restarted, err);
	pthread_mutex_unlock(&db->ckpt);
	if (rc == WIRE_OK && ret_restarted)
		*ret_restarted = restarted;
	return rc;
}

/* ---- watchdog ---- */

void vfs_db_watchdog(struct vfs_db *db)
{
	const uint8_t *real;

	if (pthread_mutex_trylock(&db->publisher) != 0)
		return; /* a publication is under way and will write it */
	pthread_mutex_lock(&db->pub);
	real = db->region[0];
	if (memcmp(real, &db->hdr, sizeof db->hdr) != 0 || memcmp(real + sizeof db->hdr, &db->hdr, sizeof db->hdr) != 0)
		vfs_walindex_write_header(db->region[0], &db->hdr);
	pthread_mutex_unlock(&db->pub);
	pthread_mutex_unlock(&db->publisher);
}
