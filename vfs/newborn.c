/* A database that is to be set up: at once when the open is through (vfs_conn_begin), unless there is nothing in it yet. Page size, auto_vacuum and encoding are open until its first transaction, and SQLite keeps an empty database in
 * rollback mode: so that transaction goes to the file as SQLite does it anyway. When the connection lets go of the file, the setting up puts the database into WAL mode, the node is
 * made, and the connection becomes a replicated one; others that have the file open follow at their next read.
 *
 * Until then all who have the file open, stock processes too, are in rollback mode, and keep each other out by its locks: the header must not say WAL while a connection still
 * goes on by the old rules (it may keep SHARED over its commit, for a statement that is open). So whoever brings the birth about takes EXCLUSIVE first, as a change of the journal mode
 * in SQLite does, and whoever takes SHARED looks again. What is ATTACHed (VACUUM INTO does that too) is set up only when its own URI says so; it is a plain database then, and these
 * methods pass everything on. Whatever fails leaves an ordinary database with the transaction in it, an error at the connection's next use, and another
 * attempt then. */
#include "vfs/conn.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

#define VERSIONS_AT 18 /* file format write and read version: 2 is WAL */
#define LOCK_TRIES 10

/* One birth at a time in the process: the others then find the database set up. Outermost. */
static pthread_mutex_t birth = PTHREAD_MUTEX_INITIALIZER;

void shim_newborn_after_fork(void)
{
	pthread_mutex_init(&birth, NULL);
}

static struct vfs_conn *conn(sqlite3_file *f)
{
	return ((struct shim_file *)f)->conn;
}

/* ---- birth ---- */

static bool is_wal(struct vfs_conn *c)
{
	uint8_t versions[2];

	return c->real->pMethods->xRead(c->real, versions, sizeof versions, VERSIONS_AT) == SQLITE_OK && versions[1] == 2;
}

static int nobody_inside(struct vfs_conn *c)
{
	const sqlite3_io_methods *m = c->real->pMethods;
	int rc = m->xLock(c->real, SQLITE_LOCK_SHARED);

	if (rc == SQLITE_OK)
		rc = m->xLock(c->real, SQLITE_LOCK_EXCLUSIVE);
	m->xUnlock(c->real, SQLITE_LOCK_NONE);
	return rc;
}

/* The connection holds no lock. SQLITE_OK with the main methods in place, or as before when there is nothing in the database. The setting up takes EXCLUSIVE itself, and waits for it:
 * without patience that is not begun while others are inside. */
static int try_birth(sqlite3_file *f, bool patient)
{
	struct vfs_conn *c = conn(f);
	struct vfs_host_ops ops = shim_host_ops();
	struct wire_err err = { 0 };
	sqlite3_int64 size;
	int rc = c->real->pMethods->xFileSize(c->real, &size);
	bool set_up = ops.is_set_up(ops.ctx, c->path);

	if (rc != SQLITE_OK || (!size && !set_up))
		return rc;
	if (!set_up && !patient && !is_wal(c))
		rc = nobody_inside(c);
	if (rc != SQLITE_OK)
		return rc;
	if (shim_attach(c, true, &err) == WIRE_OK) {
		f->pMethods = &shim_main_methods;
		return SQLITE_OK;
	}
	/* What was there may have been half a transaction, which was rolled back. */
	if (c->real->pMethods->xFileSize(c->real, &size) == SQLITE_OK && !size)
		return SQLITE_OK;
	return shim_fail(c, WALRAFT_CANTOPEN, "%s", err.text);
}

static int come_to_life(sqlite3_file *f, bool patient)
{
	int rc;

	if (conn(f)->plain)
		return SQLITE_OK;
	pthread_mutex_lock(&birth);
	rc = try_birth(f, patient);
	pthread_mutex_unlock(&birth);
	return rc;
}

/* Asked at the first use, when SQLite has given the file its place. */
static bool is_attached(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);
	sqlite3_file *main = NULL;

	return c->sql && *c->sql && sqlite3_file_control(*c->sql, "main", SQLITE_FCNTL_FILE_POINTER, &main) == SQLITE_OK && main != f;
}

int vfs_conn_begin(struct vfs_conn *c, struct wire_err *err)
{
	/* The file lies in SQLite's memory just before the base VFS's. */
	sqlite3_file *f = (sqlite3_file *)((struct shim_file *)c->real - 1);

	if (f->pMethods != &shim_newborn_methods || come_to_life(f, true) == SQLITE_OK)
		return WIRE_OK;
	return wire_fail(err, WIRE_IO, "%s", *c->error ? c->error : "its file cannot be read");
}

/* ---- the file ---- */

static int newborn_close(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	f->pMethods = NULL;
	if (shim_alive(c) != SQLITE_OK)
		return SQLITE_OK;
	c->real->pMethods->xClose(c->real);
	shim_conn_close(c);
	return SQLITE_OK;
}

static int newborn_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xRead(c->real, p, n, at);
}

static int newborn_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xWrite(c->real, p, n, at);
}

static int newborn_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xTruncate(c->real, size);
}

static int newborn_sync(sqlite3_file *f, int flags)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xSync(c->real, flags);
}

static int newborn_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xFileSize(c->real, ret_size);
}

/* SHARED is held, so that from here on nobody changes what this tells. */
static bool born_meanwhile(struct vfs_conn *c)
{
	struct vfs_host_ops ops = shim_host_ops();

	return ops.is_set_up(ops.ctx, c->path) || is_wal(c);
}

static int newborn_lock(sqlite3_file *f, int level)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (rc == SQLITE_OK && !c->named && !c->plain && c->lock_level == SQLITE_LOCK_NONE)
		c->plain = is_attached(f);
	if (rc || c->plain || c->lock_level != SQLITE_LOCK_NONE) {
		rc = rc ? rc : c->real->pMethods->xLock(c->real, level);
	} else {
		for (int i = 0; i < LOCK_TRIES; i++) {
			rc = come_to_life(f, false);
			if (rc == SQLITE_OK && f->pMethods == &shim_main_methods)
				return f->pMethods->xLock(f, level);
			if (rc == SQLITE_OK)
				rc = c->real->pMethods->xLock(c->real, level);
			if (rc != SQLITE_OK || !born_meanwhile(c))
				break;
			/* In WAL mode SQLite would keep this lock, and a wal-index that these methods don't have would be asked for. */
			c->real->pMethods->xUnlock(c->real, SQLITE_LOCK_NONE);
			rc = SQLITE_BUSY;
		}
	}
	if (rc == SQLITE_OK)
		c->lock_level = level;
	return rc;
}

static int newborn_unlock(sqlite3_file *f, int level)
{
	struct vfs_conn *c = conn(f);
	const bool wrote = c->lock_level >= SQLITE_LOCK_RESERVED;
	int rc = shim_alive(c);

	if (rc == SQLITE_OK)
		rc = c->real->pMethods->xUnlock(c->real, level);
	if (rc != SQLITE_OK)
		return rc;
	c->wrote_newborn |= wrote;
	if (level < c->lock_level)
		c->lock_level = level;
	/* The transaction stands, whatever comes of this: what fails here is tried, and told, at the next use. */
	if (level == SQLITE_LOCK_NONE && c->wrote_newborn)
		(void)come_to_life(f, false);
	return SQLITE_OK;
}

static int newborn_reserved(sqlite3_file *f, int *ret)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xCheckReservedLock(c->real, ret);
}

static int newborn_control(sqlite3_file *f, int op, void *arg)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (rc)
		return op == SQLITE_FCNTL_NULL_IO ? SQLITE_OK : rc;
	switch (op) {
	case SQLITE_FCNTL_PRAGMA:
		return c->plain ? c->real->pMethods->xFileControl(c->real, op, arg) : shim_pragma(c, arg);
	case SQLITE_FCNTL_PDB:
		c->sql = arg;
		break;
	case SQLITE_FCNTL_LOCK_TIMEOUT:
		if (!c->plain)
			return SQLITE_NOTFOUND;
		break;
	case SQLITE_FCNTL_VFSNAME:
		rc = c->real->pMethods->xFileControl(c->real, op, arg);
		if (rc == SQLITE_OK)
			*(char **)arg = sqlite3_mprintf("walraft/%z", *(char **)arg);
		return rc;
	case SQLITE_FCNTL_NULL_IO:
		if (!c->plain)
			return shim_null_io(c);
		break;
	default:
		break;
	}
	return c->real->pMethods->xFileControl(c->real, op, arg);
}

static int newborn_sector(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	return c->real->pMethods->xSectorSize(c->real);
}

static int newborn_traits(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	return c->real->pMethods->xDeviceCharacteristics(c->real);
}

/* Before it is set up there is no WAL, and nothing of SQLite's comes here. */
static int no_wal(struct vfs_conn *c, int code)
{
	return shim_fail(c, code, "%s is not set up yet", c->path);
}

static int newborn_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **pp)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	*pp = NULL;
	if (rc)
		return rc;
	return c->plain ? c->real->pMethods->xShmMap(c->real, region, size, extend, pp) : no_wal(c, SQLITE_IOERR_SHMMAP);
}

static int newborn_shm_lock(sqlite3_file *f, int first, int n, int flags)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (rc)
		return rc;
	return c->plain ? c->real->pMethods->xShmLock(c->real, first, n, flags) : no_wal(c, SQLITE_IOERR_SHMLOCK);
}

static void newborn_shm_barrier(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	if (c->plain && shim_alive(c) == SQLITE_OK)
		c->real->pMethods->xShmBarrier(c->real);
}

static int newborn_shm_unmap(sqlite3_file *f, int delete)
{
	struct vfs_conn *c = conn(f);

	return c->plain && shim_alive(c) == SQLITE_OK ? c->real->pMethods->xShmUnmap(c->real, delete) : SQLITE_OK;
}

const sqlite3_io_methods shim_newborn_methods = {
	.iVersion = 2,
	.xClose = newborn_close,
	.xRead = newborn_read,
	.xWrite = newborn_write,
	.xTruncate = newborn_truncate,
	.xSync = newborn_sync,
	.xFileSize = newborn_size,
	.xLock = newborn_lock,
	.xUnlock = newborn_unlock,
	.xCheckReservedLock = newborn_reserved,
	.xFileControl = newborn_control,
	.xSectorSize = newborn_sector,
	.xDeviceCharacteristics = newborn_traits,
	.xShmMap = newborn_shm_map,
	.xShmLock = newborn_shm_lock,
	.xShmBarrier = newborn_shm_barrier,
	.xShmUnmap = newborn_shm_unmap,
};
