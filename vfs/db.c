/* State, files, registry, and what connections take from the published state. */
#include "vfs/child.h"
#include "vfs/db_impl.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct {
	pthread_mutex_t mutex;
	struct vfs_db *first, *inherited; /* inherited: were open in the process that this one was forked from */
} registry = { PTHREAD_MUTEX_INITIALIZER, NULL, NULL };

/* ---- files ---- */

int db_fail(struct vfs_db *db, struct wire_err *err, int rc, const char *what, const char *file)
{
	int sys = db->base->xGetLastError ? db->base->xGetLastError(db->base, 0, NULL) : 0;
	int code = WIRE_IO;

	switch (rc & 0xff) {
	case SQLITE_FULL: return wire_fail(err, WIRE_FULL, "%s %s: no space left on the device; make room and start again", what, file);
	case SQLITE_BUSY: return wire_fail(err, WIRE_BUSY, "%s %s: in use by another process", what, file);
	case SQLITE_NOMEM: return wire_fail(err, WIRE_NOMEM, "%s %s: out of memory", what, file);
	case SQLITE_READONLY:
	case SQLITE_PERM: code = WIRE_PERM; break;
	case SQLITE_CANTOPEN:
		code = sys == ENOENT ? WIRE_NOTFOUND : (sys == EACCES || sys == EROFS || sys == EPERM) ? WIRE_PERM : WIRE_IO;
		break;
	default: break;
	}
	if (rc == SQLITE_IOERR_NOMEM)
		code = WIRE_NOMEM;
	wire_fail(err, code, "%s %s: %s (SQLite code %d)", what, file, sys ? strerror(sys) : "failed", rc);
	if (err)
		err->sys = sys;
	return code;
}

int db_file_open(struct vfs_db *db, struct db_file *f, const char *name, int flags, struct wire_err *err)
{
	sqlite3_file *h = calloc(1, (size_t)db->base->szOsFile);
	int out = 0, rc;

	if (!h)
		return wire_fail(err, WIRE_NOMEM, "opening %s: out of memory", name);
	rc = vfs_db_open_handle(db->base, name, h, flags, &out);
	if (rc == SQLITE_OK && !(out & SQLITE_OPEN_READWRITE)) {
		h->pMethods->xClose(h);
		free(h);
		return wire_fail(err, WIRE_PERM, "%s can't be opened for writing: give this user write permission on it and its directory", name);
	}
	if (rc != SQLITE_OK) {
		if (h->pMethods)
			h->pMethods->xClose(h);
		free(h);
		return db_fail(db, err, rc, "opening", name);
	}
	f->f = h;
	f->name = name;
	return WIRE_OK;
}

void db_file_close(struct db_file *f)
{
	if (!f->f)
		return;
	f->f->pMethods->xClose(f->f);
	free(f->f);
	f->f = NULL;
}

int db_file_read(struct vfs_db *db, struct db_file *f, void *dst, size_t n, uint64_t at, bool *ret_short, struct wire_err *err)
{
	uint8_t *p = dst;
	bool is_short = false;

	while (n > 0 && !is_short) {
		int part = (int)(n < DB_IO_BYTES ? n : DB_IO_BYTES), rc;

		pthread_mutex_lock(&f->io);
		rc = f->f->pMethods->xRead(f->f, p, part, (sqlite3_int64)at);
		pthread_mutex_unlock(&f->io);
		if (rc == SQLITE_IOERR_SHORT_READ)
			is_short = true;
		else if (rc != SQLITE_OK)
			return db_fail(db, err, rc, "reading", f->name);
		p += part;
		n -= (size_t)part;
		at += (uint64_t)part;
	}
	if (is_short && !ret_short)
		return wire_fail(err, WIRE_CORRUPT, "%s ends before byte %llu, where data of the database should be", f->name, (unsigned long long)at);
	if (ret_short)
		*ret_short = is_short;
	return WIRE_OK;
}

int db_file_write(struct vfs_db *db, struct db_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	const uint8_t *p = src;

	while (n > 0) {
		int part = (int)(n < DB_IO_BYTES ? n : DB_IO_BYTES), rc;

		pthread_mutex_lock(&f->io);
		rc = f->f->pMethods->xWrite(f->f, p, part, (sqlite3_int64)at);
		pthread_mutex_unlock(&f->io);
		if (rc != SQLITE_OK)
			return db_fail(db, err, rc, "writing", f->name);
		p += part;
		n -= (size_t)part;
		at += (uint64_t)part;
	}
	return WIRE_OK;
}

int db_file_sync(struct vfs_db *db, struct db_file *f, struct wire_err *err)
{
	int rc = f->f->pMethods->xSync(f->f, SQLITE_SYNC_NORMAL);

	return rc == SQLITE_OK ? WIRE_OK : db_fail(db, err, rc, "syncing", f->name);
}

int db_file_size(struct vfs_db *db, struct db_file *f, uint64_t *ret_size, struct wire_err *err)
{
	sqlite3_int64 size;
	int rc = f->f->pMethods->xFileSize(f->f, &size);

	if (rc != SQLITE_OK)
		return db_fail(db, err, rc, "asking the size of", f->name);
	*ret_size = (uint64_t)size;
	return WIRE_OK;
}

/* ---- -shm ---- */

int db_shm_lock(struct vfs_db *db, int first, int n)
{
	return db->anchor.f->pMethods->xShmLock(db->anchor.f, first, n, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
}

void db_shm_unlock(struct vfs_db *db, int first, int n)
{
	db->anchor.f->pMethods->xShmLock(db->anchor.f, first, n, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
}

static void *region_get(void *ctx, uint32_t region)
{
	struct vfs_db *db = ctx;

	return region < db->n_regions ? db->region[region] : NULL;
}

struct vfs_regions db_regions(struct vfs_db *db)
{
	return (struct vfs_regions){ db, region_get };
}

static int map_one(struct vfs_db *db, uint32_t region, void **ret_p, struct wire_err *err)
{
	void volatile *p = NULL;
	int rc = db->anchor.f->pMethods->xShmMap(db->anchor.f, (int)region, VFS_REGION_BYTES, 1, &p);

	if (rc != SQLITE_OK || !p)
		return db_fail(db, err, rc == SQLITE_OK ? SQLITE_IOERR : rc, "mapping the -shm of", db->path);
	*ret_p = (void *)(uintptr_t)p;
	return WIRE_OK;
}

int db_map_regions(struct vfs_db *db, uint32_t count, struct wire_err *err)
{
	for (;;) {
		uint32_t next;
		void *p = NULL;

		pthread_mutex_lock(&db->pub);
		next = db->n_regions;
		if (count > db->cap_regions) {
			uint32_t cap = count + 64;
			void **grown = realloc(db->region, cap * sizeof *grown);

			if (!grown) {
				pthread_mutex_unlock(&db->pub);
				return wire_fail(err, WIRE_NOMEM, "mapping the -shm of %s: out of memory", db->path);
			}
			db->region = grown;
			db->cap_regions = cap;
		}
		pthread_mutex_unlock(&db->pub);
		if (next >= count)
			return WIRE_OK;
		int rc = map_one(db, next, &p, err);
		if (rc)
			return rc;
		pthread_mutex_lock(&db->pub);
		if (db->n_regions == next) /* another thread may have mapped it meanwhile: at the same address */
			db->region[db->n_regions++] = p;
		pthread_mutex_unlock(&db->pub);
	}
}

struct vfs_ckpt_info *db_ckpt_info(struct vfs_db *db)
{
	return vfs_walindex_ckpt_info(db->region[0]);
}

/* Those of an attached database are kept as they are met; failing that they are asked for again. */
static void note_region(struct vfs_db *db, uint32_t region, void *p)
{
	pthread_mutex_lock(&db->pub);
	if (region == db->n_regions && region >= db->cap_regions) {
		void **grown = realloc(db->region, (region + 64) * sizeof *grown);

		if (grown) {
			db->region = grown;
			db->cap_regions = region + 64;
		}
	}
	if (region == db->n_regions && region < db->cap_regions)
		db->region[db->n_regions++] = p;
	pthread_mutex_unlock(&db->pub);
}

void *vfs_db_real_region(struct vfs_db *db, uint32_t region, bool extend)
{
	void volatile *p = NULL;
	void *have;

	pthread_mutex_lock(&db->pub);
	have = region_get(db, region);
	pthread_mutex_unlock(&db->pub);
	if (have)
		return have;
	if (db->anchor.f->pMethods->xShmMap(db->anchor.f, (int)region, VFS_REGION_BYTES, extend, &p) != SQLITE_OK)
		return NULL;
	if (db->attached && p)
		note_region(db, region, (void *)(uintptr_t)p);
	return (void *)(uintptr_t)p;
}

/* Word by word: readers of other processes move their marks, and a checkpoint its progress, without pub. */
void db_load_ckpt_info(struct vfs_db *db, struct vfs_ckpt_info *dst)
{
	const struct vfs_ckpt_info *src = db_ckpt_info(db);

	dst->backfill = __atomic_load_n(&src->backfill, __ATOMIC_SEQ_CST);
	for (int i = 0; i < VFS_READERS; i++)
		dst->read_mark[i] = __atomic_load_n(&src->read_mark[i], __ATOMIC_SEQ_CST);
	memcpy(dst->lock, src->lock, sizeof dst->lock);
	dst->backfill_attempted = __atomic_load_n(&src->backfill_attempted, __ATOMIC_SEQ_CST);
	dst->unused = src->unused;
}

void vfs_db_ckpt_info_load(struct vfs_db *db, struct vfs_ckpt_info *dst)
{
	pthread_mutex_lock(&db->pub);
	db_load_ckpt_info(db, dst);
	pthread_mutex_unlock(&db->pub);
}

void vfs_db_read_mark_store(struct vfs_db *db, int slot, uint32_t mark)
{
	pthread_mutex_lock(&db->pub);
	__atomic_store_n(&db_ckpt_info(db)->read_mark[slot], mark, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&db->pub);
}

/* ---- what connections pull ---- */

static int pull_region(struct vfs_db *db, const struct vfs_regions *to, uint32_t region, struct wire_err *err)
{
	uint8_t *dst = to->get(to->ctx, region), *src = db->region[region];
	size_t skip = region == 0 ? 2 * sizeof db->hdr + sizeof(struct vfs_ckpt_info) : 0;

	if (!dst)
		return wire_fail(err, WIRE_NOMEM, "no room for region %u of a connection's wal-index", region);
	if (dst != src)
		memcpy(dst + skip, src + skip, VFS_REGION_BYTES - skip);
	return WIRE_OK;
}

int vfs_db_pull(struct vfs_db *db, struct vfs_pull *pull, const struct vfs_regions *private_regions, struct wire_err *err)
{
	uint8_t *region0;
	uint32_t from = 0;
	int rc = WIRE_OK;

	if (db->attached) {
		if (!vfs_db_enter(db))
			return wire_fail(err, WIRE_CLOSED, "%s has no node now", db->path);
		rc = attached_pull(db, pull, private_regions, err);
		vfs_db_leave(db);
		return rc;
	}
	pthread_mutex_lock(&db->pub);
	if (db->n_regions == 0)
		rc = wire_fail(err, WIRE_CLOSED, "%s has no node now", db->path);
	if (rc || memcmp(&pull->hdr, &db->hdr, sizeof db->hdr) == 0)
		goto out;
	/* Frames of one WAL never change, so that only the regions from the old tail on can differ. */
	if (pull->hdr.is_init && memcmp(pull->hdr.salt, db->hdr.salt, sizeof db->hdr.salt) == 0 && pull->hdr.mx_frame > 0 &&
	    pull->hdr.mx_frame <= db->hdr.mx_frame)
		from = vfs_walindex_region_of(pull->hdr.mx_frame);
	for (uint32_t i = from; i <= vfs_walindex_region_of(db->hdr.mx_frame ? db->hdr.mx_frame : 1) && rc == WIRE_OK; i++)
		rc = pull_region(db, private_regions, i, err);
	if (rc)
		goto out;
	region0 = private_regions->get(private_regions->ctx, 0);
	if (!region0) {
		rc = wire_fail(err, WIRE_NOMEM, "no room for region 0 of a connection's wal-index");
		goto out;
	}
	if (region0 != db->region[0]) {
		/* With the header also backfill: an old one that happens to equal the new mxFrame would send the reader past the WAL. */
		db_load_ckpt_info(db, vfs_walindex_ckpt_info(region0));
		memcpy(region0 + sizeof db->hdr, &db->hdr, sizeof db->hdr);
		atomic_thread_fence(memory_order_seq_cst);
		memcpy(region0, &db->hdr, sizeof db->hdr);
	}
	pull->hdr = db->hdr;
out:
	pthread_mutex_unlock(&db->pub);
	return rc;
}

uint64_t vfs_db_sequence(struct vfs_db *db)
{
	return db->attached ? attached_sequence(db) : atomic_load_explicit(&db->sequence, memory_order_acquire);
}

void vfs_db_state(struct vfs_db *db, struct vfs_walindex_hdr *ret_hdr, uint64_t *ret_sequence)
{
	pthread_mutex_lock(&db->pub);
	*ret_hdr = db->hdr;
	*ret_sequence = atomic_load_explicit(&db->sequence, memory_order_relaxed);
	pthread_mutex_unlock(&db->pub);
}

void db_share(struct vfs_db *db, uint64_t index)
{
	if (db->shared)
		vfs_shared_show(db->shared, &db->hdr, atomic_load_explicit(&db->sequence, memory_order_relaxed), index);
}

uint64_t vfs_db_published(struct vfs_db *db)
{
	return db->attached ? attached_published(db) : atomic_load_explicit(&db->index, memory_order_acquire);
}

uint64_t db_state_index(struct vfs_db *db)
{
	uint64_t index = atomic_load_explicit(&db->index, memory_order_relaxed);

	return db->open.first && db->open.first <= index ? db->open.first - 1 : index;
}

uint64_t vfs_db_trim_limit(struct vfs_db *db)
{
	uint64_t limit;

	pthread_mutex_lock(&db->pub);
	limit = db_state_index(db);
	pthread_mutex_unlock(&db->pub);
	return limit;
}

void vfs_db_status(struct vfs_db *db, struct vfs_db_status *ret_status)
{
	pthread_mutex_lock(&db->pub);
	*ret_status = (struct vfs_db_status){
		.index = atomic_load_explicit(&db->index, memory_order_relaxed),
		.checksum = vfs_pages_checksum(db->pages),
		.db_pages = db->hdr.n_page,
		.page_size = db->page_size,
		.wal_frames = db->hdr.mx_frame,
		.backfilled = db->n_regions ? __atomic_load_n(&db_ckpt_info(db)->backfill, __ATOMIC_SEQ_CST) : 0,
		.publications = db->n_publications,
		.restarts = db->n_restarts,
		.checkpoints = db->n_checkpoints,
	};
	pthread_mutex_unlock(&db->pub);
}

uint64_t vfs_db_page_hash(struct vfs_db *db, uint32_t pgno)
{
	uint64_t hash;

	pthread_mutex_lock(&db->pub);
	hash = vfs_pages_hash(db->pages, pgno);
	pthread_mutex_unlock(&db->pub);
	return hash;
}

uint32_t vfs_db_page_size(struct vfs_db *db) { return db->page_size; }
const char *vfs_db_path(struct vfs_db *db) { return db->path; }
struct vfs_wlock *vfs_db_wlock(struct vfs_db *db) { return db->wlock; }

void vfs_db_set_writes_far(struct vfs_db *db, bool far)
{
	atomic_store_explicit(&db->writes_far, far, memory_order_relaxed);
	if (db->shared)
		atomic_store_explicit(&db->shared->writes_far, far, memory_order_relaxed);
}

bool vfs_db_writes_far(struct vfs_db *db)
{
	return db->attached ? atomic_load_explicit(&db->shared->writes_far, memory_order_relaxed) != 0 : atomic_load_explicit(&db->writes_far, memory_order_relaxed);
}

void db_nap_us(struct vfs_db *db, uint32_t us)
{
	db->base->xSleep(db->base, (int)us);
}

/* ---- registry ---- */

void db_list(struct vfs_db *db)
{
	pthread_mutex_lock(&registry.mutex);
	db->next = registry.first;
	registry.first = db;
	db->listed = true;
	pthread_mutex_unlock(&registry.mutex);
}

void db_unlist(struct vfs_db *db)
{
	pthread_mutex_lock(&registry.mutex);
	for (struct vfs_db **at = &registry.first; *at; at = &(*at)->next) {
		if (*at == db) {
			*at = db->next;
			break;
		}
	}
	db->listed = false;
	pthread_mutex_unlock(&registry.mutex);
}

struct vfs_db *vfs_db_find(const char *canonical_path)
{
	struct vfs_db *db;

	pthread_mutex_lock(&registry.mutex);
	for (db = registry.first; db && strcmp(db->path, canonical_path) != 0; db = db->next)
		;
	if (db)
		db->refs++;
	pthread_mutex_unlock(&registry.mutex);
	return db;
}

void vfs_db_after_fork(void)
{
	struct vfs_db **at = &registry.inherited;

	pthread_mutex_init(&registry.mutex, NULL); /* another thread of the parent may have held it */
	vfs_shmlock_after_fork();
	while (*at)
		at = &(*at)->next;
	*at = registry.first;
	registry.first = NULL;
}

void vfs_db_inherit(struct vfs_db *db)
{
	struct vfs_db *have = registry.inherited;

	while (have && have != db)
		have = have->next;
	if (have)
		return;
	db->next = registry.inherited;
	registry.inherited = db;
}

static bool is_inherited(const char *path)
{
	struct vfs_db *db;

	pthread_mutex_lock(&registry.mutex);
	for (db = registry.inherited; db && strcmp(db->path, path) != 0; db = db->next)
		;
	pthread_mutex_unlock(&registry.mutex);
	return db != NULL;
}

int vfs_db_open_handle(sqlite3_vfs *base, const char *path, sqlite3_file *f, int flags, int *out)
{
	return (flags & SQLITE_OPEN_MAIN_DB) && is_inherited(path) ? child_open(base, path, f, flags, out) : base->xOpen(base, path, f, flags, out);
}

void vfs_db_ref(struct vfs_db *db)
{
	pthread_mutex_lock(&registry.mutex);
	db->refs++;
	pthread_mutex_unlock(&registry.mutex);
}

void vfs_db_unref(struct vfs_db *db)
{
	bool last;

	pthread_mutex_lock(&registry.mutex);
	last = --db->refs == 0 && db->closed;
	pthread_mutex_unlock(&registry.mutex);
	if (last)
		db_free(db);
}

bool db_closed(struct vfs_db *db)
{
	bool last;

	pthread_mutex_lock(&registry.mutex);
	db->closed = true;
	last = db->refs == 0;
	pthread_mutex_unlock(&registry.mutex);
	return last;
}

uint32_t vfs_db_connections(struct vfs_db *db)
{
	uint32_t refs;

	pthread_mutex_lock(&registry.mutex);
	refs = db->refs;
	pthread_mutex_unlock(&registry.mutex);
	return refs;
}
