/* The VFS's methods that are the base VFS's own. */
#include "vfs/conn.h"

SQLITE_EXTENSION_INIT3

static int vfs_full_pathname(sqlite3_vfs *v, const char *name, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xFullPathname(base, name, n, out);
}

static void *vfs_dl_open(sqlite3_vfs *v, const char *name)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xDlOpen(base, name);
}

static void vfs_dl_error(sqlite3_vfs *v, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	base->xDlError(base, n, out);
}

static void (*vfs_dl_sym(sqlite3_vfs *v, void *lib, const char *symbol))(void)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xDlSym(base, lib, symbol);
}

static void vfs_dl_close(sqlite3_vfs *v, void *lib)
{
	sqlite3_vfs *base = v->pAppData;

	base->xDlClose(base, lib);
}

static int vfs_randomness(sqlite3_vfs *v, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xRandomness(base, n, out);
}

static int vfs_current_time(sqlite3_vfs *v, double *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xCurrentTime(base, out);
}

static int vfs_last_error(sqlite3_vfs *v, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xGetLastError ? base->xGetLastError(base, n, out) : 0;
}

static int vfs_current_time_int64(sqlite3_vfs *v, sqlite3_int64 *out)
{
	sqlite3_vfs *base = v->pAppData;
	double day;
	int rc;

	if (base->iVersion >= 2 && base->xCurrentTimeInt64)
		return base->xCurrentTimeInt64(base, out);
	rc = base->xCurrentTime(base, &day);
	*out = (sqlite3_int64)(day * 86400000.0);
	return rc;
}

void shim_pass_through(sqlite3_vfs *v)
{
	v->xFullPathname = vfs_full_pathname;
	v->xDlOpen = vfs_dl_open;
	v->xDlError = vfs_dl_error;
	v->xDlSym = vfs_dl_sym;
	v->xDlClose = vfs_dl_close;
	v->xRandomness = vfs_randomness;
	v->xCurrentTime = vfs_current_time;
	v->xGetLastError = vfs_last_error;
	v->xCurrentTimeInt64 = vfs_current_time_int64;
}
