/* A VFS of the application's on top of walraft's, as those that check sums or count calls are: the private frames stay private. */
#include "test/unit/db_world.h"
#include "test/unit/shim_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

struct outer_file {
	sqlite3_file head;
	sqlite3_file *inner; /* behind it in the same memory */
};

static sqlite3_vfs outer, *below;

static sqlite3_file *inner(sqlite3_file *f) { return ((struct outer_file *)f)->inner; }
static int f_close(sqlite3_file *f) { return inner(f)->pMethods->xClose(inner(f)); }
static int f_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at) { return inner(f)->pMethods->xRead(inner(f), p, n, at); }
static int f_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at) { return inner(f)->pMethods->xWrite(inner(f), p, n, at); }
static int f_truncate(sqlite3_file *f, sqlite3_int64 size) { return inner(f)->pMethods->xTruncate(inner(f), size); }
static int f_sync(sqlite3_file *f, int flags) { return inner(f)->pMethods->xSync(inner(f), flags); }
static int f_size(sqlite3_file *f, sqlite3_int64 *size) { return inner(f)->pMethods->xFileSize(inner(f), size); }
static int f_lock(sqlite3_file *f, int level) { return inner(f)->pMethods->xLock(inner(f), level); }
static int f_unlock(sqlite3_file *f, int level) { return inner(f)->pMethods->xUnlock(inner(f), level); }
static int f_reserved(sqlite3_file *f, int *ret) { return inner(f)->pMethods->xCheckReservedLock(inner(f), ret); }
static int f_control(sqlite3_file *f, int op, void *arg) { return inner(f)->pMethods->xFileControl(inner(f), op, arg); }
static int f_sector(sqlite3_file *f) { return inner(f)->pMethods->xSectorSize(inner(f)); }
static int f_traits(sqlite3_file *f) { return inner(f)->pMethods->xDeviceCharacteristics(inner(f)); }
static int f_shm_map(sqlite3_file *f, int i, int n, int extend, void volatile **pp) { return inner(f)->pMethods->xShmMap(inner(f), i, n, extend, pp); }
static int f_shm_lock(sqlite3_file *f, int i, int n, int flags) { return inner(f)->pMethods->xShmLock(inner(f), i, n, flags); }
static void f_shm_barrier(sqlite3_file *f) { inner(f)->pMethods->xShmBarrier(inner(f)); }
static int f_shm_unmap(sqlite3_file *f, int delete) { return inner(f)->pMethods->xShmUnmap(inner(f), delete); }

static int outer_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
	static const sqlite3_io_methods methods = {
		.iVersion = 2, .xClose = f_close, .xRead = f_read, .xWrite = f_write, .xTruncate = f_truncate, .xSync = f_sync, .xFileSize = f_size,
		.xLock = f_lock, .xUnlock = f_unlock, .xCheckReservedLock = f_reserved, .xFileControl = f_control, .xSectorSize = f_sector,
		.xDeviceCharacteristics = f_traits, .xShmMap = f_shm_map, .xShmLock = f_shm_lock, .xShmBarrier = f_shm_barrier, .xShmUnmap = f_shm_unmap,
	};
	struct outer_file *o = (struct outer_file *)f;
	int rc;

	(void)v;
	o->inner = (sqlite3_file *)(o + 1);
	memset(o->inner, 0, (size_t)below->szOsFile);
	rc = below->xOpen(below, name, o->inner, flags, out);
	f->pMethods = o->inner->pMethods ? &methods : NULL;
	return rc;
}

static int outer_delete(sqlite3_vfs *v, const char *name, int sync) { (void)v; return below->xDelete(below, name, sync); }
static int outer_access(sqlite3_vfs *v, const char *name, int flags, int *ret) { (void)v; return below->xAccess(below, name, flags, ret); }
static int outer_full(sqlite3_vfs *v, const char *name, int n, char *ret) { (void)v; return below->xFullPathname(below, name, n, ret); }

static sqlite3 *open_outer(struct shim_node *n)
{
	sqlite3 *db;

	if (!below) {
		below = sqlite3_vfs_find("walraft");
		assert_non_null(below);
		outer = *below;
		outer.zName = "outer";
		outer.pNext = NULL;
		outer.szOsFile = below->szOsFile + (int)sizeof(struct outer_file);
		outer.xOpen = outer_open;
		outer.xDelete = outer_delete;
		outer.xAccess = outer_access;
		outer.xFullPathname = outer_full;
		assert_int_equal(sqlite3_vfs_register(&outer, 0), SQLITE_OK);
	}
	assert_int_equal(sqlite3_open_v2(n->path, &db, SQLITE_OPEN_READWRITE, "outer"), SQLITE_OK);
	sqlite3_extended_result_codes(db, 1);
	return db;
}

static void test_outer(void **state)
{
	struct shim_cluster c;
	sqlite3 *db, *plain;

	(void)state;
	shim_cluster_new(&c, 2, 4096, "CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
	db = shim_open(&c.node[0], NULL); /* registers the shim, and compares */
	plain = db;
	db = open_outer(&c.node[0]);
	shim_sql(db, "INSERT INTO t(x) VALUES(1)");
	assert_int_equal(c.n_entries, 1);
	assert_int_equal(shim_int(plain, "SELECT count(*) FROM t"), 1);
	c.outcome = WIRE_LOST;
	assert_int_equal(shim_try(db, "INSERT INTO t(x) VALUES(2)"), WALRAFT_IOERR_NOT_COMMITTED);
	c.outcome = WIRE_OK;
	shim_follow(&c.node[0]);
	assert_int_equal(world_stock(c.node[0].path, "SELECT raise_if FROM (SELECT abs(iif(count(*) = 1, 1, -9223372036854775807 - 1)) AS raise_if FROM t)", NULL, 0), SQLITE_OK);
	shim_sql(db, "INSERT INTO t(x) VALUES(3)");
	assert_int_equal(shim_int(db, "SELECT sum(x) FROM t"), 4);
	shim_same_state(&c);
	sqlite3_close(db);
	sqlite3_close(plain);
	shim_cluster_free(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_outer) };
	int status;

	if (world_main(argc, argv, &status))
		return status;
	world_init_sqlite();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
