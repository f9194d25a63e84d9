/* Opening: files, locks, recovery, position, and a WAL that is never empty; and closing. */
#include "vfs/db_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

#define LOCK_WAIT_US 1500000u
#define LOCK_NAP_US 5000u

/* Below the shim, where that is registered. */
static sqlite3_vfs *base_vfs(void)
{
	sqlite3_vfs *shim = sqlite3_vfs_find("walraft");

	return shim ? shim->pAppData : sqlite3_vfs_find(NULL);
}

struct vfs_db *db_new(const char *path, const struct wire_env *env, const struct vfs_node_ops *ops, struct wire_err *err)
{
	struct vfs_db *db = calloc(1, sizeof *db);

	if (!db)
		goto nomem;
	pthread_mutex_init(&db->ckpt, NULL);
	pthread_mutex_init(&db->publisher, NULL);
	pthread_mutex_init(&db->pub, NULL);
	pthread_mutex_init(&db->anchor.io, NULL);
	pthread_mutex_init(&db->wal.io, NULL);
	pthread_mutex_init(&db->door, NULL);
	pthread_cond_init(&db->left, NULL);
	db->env = env;
	db->ops = *ops;
	db_ops_behind_door(db);
	db->base = base_vfs();
	db->path = calloc(1, db->base ? (size_t)db->base->mxPathname + 1 : 1);
	if (db->base && db->path)
		return db;
	vfs_db_close(db);
nomem:
	wire_fail(err, WIRE_NOMEM, "opening %s: out of memory", path);
	return NULL;
}

static struct vfs_db *new_published(const struct vfs_db_start *start, struct wire_err *err)
{
	struct vfs_db *db = db_new(start->path, start->env, start->ops, err);

	if (!db)
		return NULL;
	db->group = start->group;
	db->shared = start->shared;
	db->wlock = vfs_wlock_new();
	db->pages_path = strdup(start->pages_path);
	db->io_buf = malloc(DB_IO_BYTES);
	db->page_buf = malloc(65536);
	if (db->wlock && db->pages_path && db->io_buf && db->page_buf)
		return db;
	vfs_db_close(db);
	wire_fail(err, WIRE_NOMEM, "opening %s: out of memory", start->path);
	return NULL;
}

static int open_files(struct vfs_db *db, const char *path, struct wire_err *err)
{
	char *journal, *wal;
	int rc = db->base->xFullPathname(db->base, path, db->base->mxPathname + 1, db->path);

	if ((rc & 0xff) != SQLITE_OK)
		return db_fail(db, err, rc, "resolving", path);
	journal = sqlite3_mprintf("%s-journal", db->path);
	wal = sqlite3_mprintf("%s-wal", db->path);
	if (journal && wal)
		db->file_name = sqlite3_create_filename(db->path, journal, wal, 0, NULL);
	sqlite3_free(journal);
	sqlite3_free(wal);
	if (!db->file_name || asprintf(&db->shm_name, "%s-shm", db->path) < 0)
		return wire_fail(err, WIRE_NOMEM, "opening %s: out of memory", db->path);
	return db_file_open(db, &db->anchor, db->file_name, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, err);
}

static int lock_database(struct vfs_db *db)
{
	return db->anchor.f->pMethods->xLock(db->anchor.f, SQLITE_LOCK_SHARED);
}

static int lock_shm(struct vfs_db *db)
{
	void volatile *p;
	int rc;

	if (!db->shm_mapped) {
		rc = db->anchor.f->pMethods->xShmMap(db->anchor.f, 0, VFS_REGION_BYTES, 1, &p);
		if (rc != SQLITE_OK) {
			db->anchor.f->pMethods->xShmUnmap(db->anchor.f, 0);
			return rc;
		}
		db->shm_mapped = true;
	}
	_Static_assert(DB_SHM_CKPT == DB_SHM_WRITE + 1, "one range");
	rc = strcmp(db->base->zName, "unix") == 0 ? vfs_shmlock_take(db->shm_name, &db->shmlock, NULL) : WIRE_UNSUPPORTED;
	if (rc != WIRE_UNSUPPORTED)
		return rc == WIRE_OK ? SQLITE_OK : rc == WIRE_BUSY ? SQLITE_BUSY : SQLITE_IOERR_SHMLOCK;
	rc = db_shm_lock(db, DB_SHM_WRITE, 2);
	db->shm_locked = rc == SQLITE_OK;
	return rc;
}

/* A stock process that is just closing, or writing, is waited for a moment. */
static int patiently(struct vfs_db *db, int (*step)(struct vfs_db *db), struct wire_err *err)
{
	uint32_t waited = 0;
	int rc;

	while (((rc = step(db)) & 0xff) == SQLITE_BUSY && waited < LOCK_WAIT_US) {
		db_nap_us(db, LOCK_NAP_US);
		waited += LOCK_NAP_US;
	}
	if ((rc & 0xff) == SQLITE_BUSY)
		return wire_fail(err, WIRE_BUSY, "%s is in use: another walraft node serves it, or a program without walraft is writing to it or checkpoints it; close that one, then start again",
		                 db->path);
	return rc == SQLITE_OK ? WIRE_OK : db_fail(db, err, rc, "locking", db->path);
}

int db_open_anchor(struct vfs_db *db, const char *path, struct wire_err *err)
{
	int rc = open_files(db, path, err);

	if (rc == WIRE_OK)
		rc = patiently(db, lock_database, err);
	if (rc == WIRE_OK)
		db->db_locked = true;
	return rc;
}

static int take_locks(struct vfs_db *db, struct wire_err *err)
{
	int rc = patiently(db, lock_shm, err);

	if (rc)
		return rc;
	/* Only now: a stock process that closed last may have deleted -wal while we waited. */
	return db_file_open(db, &db->wal, sqlite3_filename_wal(db->file_name), SQLITE_OPEN_WAL | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
}

int vfs_db_open(const struct vfs_db_start *start, struct vfs_db **ret_db, struct wire_err *err)
{
	struct vfs_db *db = new_published(start, err);
	int rc;

	if (!db)
		return WIRE_NOMEM;
	rc = db_open_anchor(db, start->path, err);
	if (rc == WIRE_OK)
		rc = take_locks(db, err);
	if (rc == WIRE_OK)
		rc = db_recover(db, err);
	if (rc == WIRE_OK)
		rc = db_find_position(db, start, err);
	if (rc == WIRE_OK && db->hdr.mx_frame == 0) {
		pthread_mutex_lock(&db->publisher);
		rc = db_restart_wal_locked(db, err);
		pthread_mutex_unlock(&db->publisher);
	}
	if (rc) {
		vfs_db_close(db);
		return rc;
	}
	if (db->shared)
		vfs_shared_restart(db->shared, false);
	db_share(db, atomic_load_explicit(&db->index, memory_order_relaxed));
	db_list(db);
	*ret_db = db;
	return WIRE_OK;
}

void db_free(struct vfs_db *db)
{
	if (db->unmap)
		db->unmap(db->shared);
	vfs_pages_free(db->pages);
	if (db->wlock)
		vfs_wlock_free(db->wlock);
	pthread_mutex_destroy(&db->ckpt);
	pthread_mutex_destroy(&db->publisher);
	pthread_mutex_destroy(&db->pub);
	pthread_mutex_destroy(&db->anchor.io);
	pthread_mutex_destroy(&db->wal.io);
	pthread_mutex_destroy(&db->door);
	pthread_cond_destroy(&db->left);
	free(db->region);
	free(db->shm_name);
	free(db->io_buf);
	free(db->page_buf);
	free(db->pages_path);
	free(db->path);
	free(db);
}

void vfs_db_close(struct vfs_db *db)
{
	if (!db)
		return;
	if (db->listed)
		db_unlist(db);
	db_shut(db);
	pthread_mutex_lock(&db->pub);
	db->n_regions = 0; /* who pulls finds nothing */
	pthread_mutex_unlock(&db->pub);
	db_file_close(&db->wal);
	if (db->shm_locked)
		db_shm_unlock(db, DB_SHM_WRITE, 2);
	if (db->shm_mapped)
		db->anchor.f->pMethods->xShmUnmap(db->anchor.f, 0);
	if (db->db_locked)
		db->anchor.f->pMethods->xUnlock(db->anchor.f, SQLITE_LOCK_NONE);
	db_file_close(&db->anchor);
	if (db->shmlock) /* after SQLite has closed what it may */
		vfs_shmlock_release(db->shmlock, !atomic_load(&db->shmlock_shared));
	db->shmlock = NULL;
	if (db->file_name)
		sqlite3_free_filename((char *)(uintptr_t)db->file_name);
	db->file_name = NULL;
	if (db_closed(db))
		db_free(db);
}
