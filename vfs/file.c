/* The main database file: reads pass through; writing, exclusive locks and what would leave WAL mode are refused, for in WAL mode an application needs none of
 * it, but the close of the last connection, PRAGMA journal_mode and locking_mode=exclusive would use it to go past the wal-index. */
#include "vfs/conn.h"
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

static struct vfs_conn *conn(sqlite3_file *f)
{
	return ((struct shim_file *)f)->conn;
}

static int main_close(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	f->pMethods = NULL;
	/* A child leaves the parent's handle as it is: its locks and mutexes are the parent's. */
	if (shim_alive(c) != SQLITE_OK)
		return SQLITE_OK;
	shim_shm_unmap(f, 0);
	c->real->pMethods->xClose(c->real);
	shim_conn_close(c);
	return SQLITE_OK;
}

static int main_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (c->ahead)
		shim_ahead_read(c);
	if (rc == SQLITE_OK)
		rc = shim_matches(c);
	return rc ? rc : c->real->pMethods->xRead(c->real, p, n, at);
}

static int read_only(struct vfs_conn *c, const char *what)
{
	return shim_fail(c, SQLITE_IOERR_WRITE, "%s: SQLite tried to %s past the WAL; a replicated database stays in WAL mode", c->path, what);
}

static int main_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (rc == SQLITE_OK && !c->node)
		rc = read_only(c, "write the database file");
	return rc ? rc : c->real->pMethods->xWrite(c->real, p, n, at);
}

static int main_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (rc == SQLITE_OK && !c->node)
		rc = read_only(c, "cut the database file");
	return rc ? rc : c->real->pMethods->xTruncate(c->real, size);
}

static int main_sync(sqlite3_file *f, int flags)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc || !c->node ? rc : c->real->pMethods->xSync(c->real, flags);
}

static int main_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xFileSize(c->real, ret_size);
}

static int main_lock(sqlite3_file *f, int level)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (rc)
		return rc;
	if (level > SQLITE_LOCK_SHARED)
		return shim_fail(c, SQLITE_BUSY, "%s is replicated: its node alone may take it exclusively", c->path);
	return c->real->pMethods->xLock(c->real, level);
}

static int main_unlock(sqlite3_file *f, int level)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xUnlock(c->real, level);
}

static int main_reserved(sqlite3_file *f, int *ret)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	return rc ? rc : c->real->pMethods->xCheckReservedLock(c->real, ret);
}

/* ---- pragmas ---- */

/* arg: text out, name, value or NULL. */
static int pragma_read(struct vfs_conn *c, char **arg)
{
	struct wire_err err = { 0 };
	char level[VFS_WANT_TEXT_BYTES];

	/* The value is answered after setting it too: an answer without text has a column without a name, which some clients take for lack of memory. */
	if (arg[2] && vfs_conn_set_read_level(c, arg[2], &err) != WIRE_OK) {
		arg[0] = sqlite3_mprintf("%s", err.text);
	} else {
		vfs_conn_read_level(c, level);
		arg[0] = sqlite3_mprintf("%s", level);
	}
	return err.code ? SQLITE_ERROR : SQLITE_OK;
}

static int pragma_write(struct vfs_conn *c, char **arg)
{
	struct wire_err err = { 0 };

	if (arg[2] && vfs_conn_set_write(c, arg[2], &err) != WIRE_OK)
		arg[0] = sqlite3_mprintf("%s", err.text);
	else
		arg[0] = sqlite3_mprintf("%s", vfs_conn_write(c));
	return err.code ? SQLITE_ERROR : SQLITE_OK;
}

static int pragma_timeout(struct vfs_conn *c, char **arg)
{
	struct wire_err err = { 0 };
	uint32_t ms;

	if (arg[2] && (shim_parse_ms(arg[2], &ms, &err) != WIRE_OK || vfs_conn_set_timeout_ms(c, ms, &err) != WIRE_OK))
		arg[0] = sqlite3_mprintf("%s", err.text);
	else
		arg[0] = sqlite3_mprintf("%u", vfs_conn_timeout_ms(c));
	return err.code ? SQLITE_ERROR : SQLITE_OK;
}

int shim_pragma(struct vfs_conn *c, char **arg)
{
	const char *name = arg[1], *value = arg[2];

	if (sqlite3_stricmp(name, "walraft_read") == 0)
		return pragma_read(c, arg);
	if (sqlite3_stricmp(name, "walraft_write") == 0)
		return pragma_write(c, arg);
	if (sqlite3_stricmp(name, "walraft_timeout") == 0)
		return pragma_timeout(c, arg);
	if (sqlite3_stricmp(name, "journal_mode") == 0 && value && sqlite3_stricmp(value, "wal") != 0) {
		arg[0] = sqlite3_mprintf("a replicated database stays in WAL mode: journal_mode=%s is refused", value);
		return SQLITE_ERROR;
	}
	if (sqlite3_stricmp(name, "locking_mode") == 0 && value && sqlite3_stricmp(value, "exclusive") == 0) {
		arg[0] = sqlite3_mprintf("a replicated database is shared with its node: locking_mode=exclusive is refused");
		return SQLITE_ERROR;
	}
	return SQLITE_NOTFOUND;
}

int shim_null_io(struct vfs_conn *c)
{
	return shim_fail(c, SQLITE_ERROR, "%s is replicated: SQLITE_FCNTL_NULL_IO is refused, because it would drop the node's locks", c->path);
}

static int main_control(sqlite3_file *f, int op, void *arg)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	if (rc) /* a child's connection reaches no file: just what NULL_IO is for */
		return op == SQLITE_FCNTL_NULL_IO ? SQLITE_OK : rc;
	switch (op) {
	case SQLITE_FCNTL_PRAGMA:
		return c->node ? SQLITE_NOTFOUND : shim_pragma(c, arg);
	case SQLITE_FCNTL_PDB:
		c->sql = arg;
		break;
	case SQLITE_FCNTL_COMMIT_PHASETWO:
		if (!c->phantom)
			break;
		c->phantom = false;
		return WALRAFT_IOERR_NOT_COMMITTED;
	case SQLITE_FCNTL_PERSIST_WAL:
		*(int *)arg = 1;
		return SQLITE_OK;
	case SQLITE_FCNTL_LOCK_TIMEOUT: /* blocking locks would take WRITE before READ */
		return SQLITE_NOTFOUND;
	case SQLITE_FCNTL_CHUNK_SIZE: /* these make the base VFS change the file's size */
	case SQLITE_FCNTL_SIZE_HINT:
		if (!c->node)
			return SQLITE_OK;
		break;
	case SQLITE_FCNTL_VFSNAME:
		rc = c->real->pMethods->xFileControl(c->real, op, arg);
		if (rc == SQLITE_OK)
			*(char **)arg = sqlite3_mprintf("walraft/%z", *(char **)arg);
		return rc;
	case SQLITE_FCNTL_NULL_IO:
		return shim_null_io(c);
	default:
		break;
	}
	return c->real->pMethods->xFileControl(c->real, op, arg);
}

static int main_sector(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	return c->real->pMethods->xSectorSize(c->real);
}

/* Without powersafe overwrite synchronous=FULL would repeat the commit frame. */
static int main_traits(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	return c->real->pMethods->xDeviceCharacteristics(c->real) | SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* Version 2: no xFetch, so that no page is read but through xRead. */
const sqlite3_io_methods shim_main_methods = {
	.iVersion = 2,
	.xClose = main_close,
	.xRead = main_read,
	.xWrite = main_write,
	.xTruncate = main_truncate,
	.xSync = main_sync,
	.xFileSize = main_size,
	.xLock = main_lock,
	.xUnlock = main_unlock,
	.xCheckReservedLock = main_reserved,
	.xFileControl = main_control,
	.xSectorSize = main_sector,
	.xDeviceCharacteristics = main_traits,
	.xShmMap = shim_shm_map,
	.xShmLock = shim_shm_lock,
	.xShmBarrier = shim_shm_barrier,
	.xShmUnmap = shim_shm_unmap,
};

/* ---- a database that could not be opened ---- */

static int failed_close(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);

	f->pMethods = NULL;
	shim_conn_close(c);
	return SQLITE_OK;
}

/* sqlite3_open looks at the first 100 bytes. It has to succeed, so that there is a connection on which the auto-extension can say what is wrong. */
static int failed_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	(void)f;
	if (at != 0 || n != 100)
		return WALRAFT_CANTOPEN;
	memset(p, 0, (size_t)n);
	return SQLITE_IOERR_SHORT_READ;
}

static int failed_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	(void)f, (void)p, (void)n, (void)at;
	return WALRAFT_CANTOPEN;
}

static int failed_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	(void)f, (void)size;
	return WALRAFT_CANTOPEN;
}

static int failed_int(sqlite3_file *f, int level)
{
	(void)f, (void)level;
	return WALRAFT_CANTOPEN;
}

static int failed_unlock(sqlite3_file *f, int level)
{
	(void)f, (void)level;
	return SQLITE_OK;
}

/* Asked at the open with immutable=1. Not empty: an empty database would be read without any call. */
static int failed_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
	(void)f;
	*ret_size = 1;
	return SQLITE_OK;
}

static int failed_reserved(sqlite3_file *f, int *ret)
{
	(void)f, (void)ret;
	return WALRAFT_CANTOPEN;
}

static int failed_control(sqlite3_file *f, int op, void *arg)
{
	if (op != SQLITE_FCNTL_PRAGMA)
		return SQLITE_NOTFOUND;
	*(char **)arg = sqlite3_mprintf("%s", conn(f)->open_error);
	return WALRAFT_CANTOPEN;
}

static int failed_sector(sqlite3_file *f)
{
	(void)f;
	return 4096;
}

static int failed_traits(sqlite3_file *f)
{
	(void)f;
	return 0;
}

const sqlite3_io_methods shim_failed_methods = {
	.iVersion = 1,
	.xClose = failed_close,
	.xRead = failed_read,
	.xWrite = failed_write,
	.xTruncate = failed_truncate,
	.xSync = failed_int,
	.xFileSize = failed_size,
	.xLock = failed_int,
	.xUnlock = failed_unlock,
	.xCheckReservedLock = failed_reserved,
	.xFileControl = failed_control,
	.xSectorSize = failed_sector,
	.xDeviceCharacteristics = failed_traits,
};
