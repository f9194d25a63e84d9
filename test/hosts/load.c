/* Loading the module, and what SQLite itself can be told to do beneath it. Each case is for a fresh process. */
#include "test/hosts/host.h"
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int load_from(sqlite3 *db, const char *path, char **ret_why)
{
	sqlite3_enable_load_extension(db, 1);
	return sqlite3_load_extension(db, path, NULL, ret_why);
}

static sqlite3 *memory(void)
{
	sqlite3 *db = NULL;

	must(sqlite3_open(":memory:", &db) == SQLITE_OK, ":memory:");
	return db;
}

/* That a connection writes to the replicated database: the position is of its last commit. */
static void saw_replicated(const char *what)
{
	sqlite3 *db = host_open("-");
	char key[100];

	snprintf(key, sizeof key, "%s: write", what);
	saw_sql(db, key, "INSERT INTO loaded VALUES(1)");
	snprintf(key, sizeof key, "%s: replicated", what);
	saw_sql(db, key, "SELECT walraft_position() > '', json_extract(walraft_status(), '$.role')");
	host_close(db);
}

static void start(void)
{
	sqlite3 *db;

	host_load();
	db = host_open("-");
	exec(db, "DROP TABLE IF EXISTS loaded; CREATE TABLE loaded(a)");
	host_close(db);
}

static void from_memory(void)
{
	start();
	saw_replicated("first");
	saw_replicated("again");
}

static void shutdown_again(void)
{
	char uri[5000];
	sqlite3 *db;

	start();
	saw_replicated("before");
	for (int i = 0; i < 3; i++) {
		saw("shutdown", "%d", sqlite3_shutdown());
		saw("initialize", "%d", sqlite3_initialize());
		saw_replicated("after");
	}
	saw("shutdown", "%d", sqlite3_shutdown());
	host_load();
	saw_replicated("loaded again");
	must(sqlite3_open_v2(host_uri(uri, sizeof uri, "/nonexistent/x.db", "-"), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL) != SQLITE_OK, "nowhere");
	sqlite3_close(db);
}

/* The switches of the process, which sqlite3_shutdown takes back in part. */
static void switches(void)
{
	char path[5000], plain_path[5000];
	sqlite3 *db;

	host_load();
	snprintf(path, sizeof path, "%s/auto.db", host.dir);
	snprintf(plain_path, sizeof plain_path, "%s/plain.db", host.dir);
	db = memory();
	saw_sql(db, "at first", "SELECT walraft_auto(), walraft_default_vfs()");
	saw_sql(db, "auto on", "SELECT walraft_auto(1), walraft_auto()");
	saw_sql(db, "default on", "SELECT walraft_default_vfs(1), walraft_default_vfs()");
	saw_sql(db, "auto 2", "SELECT walraft_auto(2)");
	saw_sql(db, "auto NULL", "SELECT walraft_auto(NULL)");
	saw_sql(db, "auto text", "SELECT walraft_auto('yes')");
	saw_sql(db, "default -1", "SELECT walraft_default_vfs(-1)");
	saw_sql(db, "default text", "SELECT walraft_default_vfs('walraft')");
	saw_sql(db, "two arguments", "SELECT walraft_auto(1, 1)");
	saw_sql(db, "not by a view", "CREATE VIEW v AS SELECT walraft_auto(0); SELECT * FROM v");
	host_close(db);
	saw("default VFS", "%s", sqlite3_vfs_find(NULL)->zName);
	must(sqlite3_open(path, &db) == SQLITE_OK, "open %s", path);
	saw_sql(db, "a new file", "CREATE TABLE t(a); INSERT INTO t VALUES(1); SELECT walraft_position() > '', json_extract(walraft_status(), '$.role')");
	host_close(db);
	must(sqlite3_open(host.db, &db) == SQLITE_OK, "open %s", host.db);
	saw_sql(db, "what is set up", "INSERT INTO seed VALUES(1); SELECT walraft_position() > '', json_extract(walraft_status(), '$.role')");
	host_close(db);
	sqlite3_shutdown();
	sqlite3_initialize();
	saw("default VFS after sqlite3_shutdown", "%s", sqlite3_vfs_find(NULL)->zName);
	db = host_open("-");
	saw_sql(db, "switches after sqlite3_shutdown", "SELECT walraft_auto(), walraft_default_vfs()");
	saw_sql(db, "by name after sqlite3_shutdown", "INSERT INTO seed VALUES(2); SELECT walraft_position() > ''");
	host_close(db);
	host_load();
	saw("default VFS when loaded again", "%s", sqlite3_vfs_find(NULL)->zName);
	sqlite3_reset_auto_extension();
	must(sqlite3_open(host.db, &db) == SQLITE_OK, "open %s", host.db);
	saw_sql(db, "by default after a reset", "INSERT INTO seed VALUES(3); SELECT walraft_position() > ''");
	saw_sql(db, "off", "SELECT walraft_auto(0), walraft_default_vfs(0)");
	host_close(db);
	saw("default VFS when off", "%s", sqlite3_vfs_find(NULL)->zName);
	must(sqlite3_open(plain_path, &db) == SQLITE_OK, "open %s", plain_path);
	saw_sql(db, "a plain file", "CREATE TABLE t(a); PRAGMA journal_mode; SELECT walraft_status()");
	host_close(db);
}

static void reset_auto(void)
{
	char path[5000], uri[6000];
	sqlite3 *open_before, *db = NULL;
	int rc;

	start();
	open_before = host_open("-");
	sqlite3_reset_auto_extension();
	saw_replicated("after");
	saw_sql(open_before, "open before", "INSERT INTO loaded VALUES(2); SELECT walraft_position() > ''");
	host_close(open_before);
	sqlite3_reset_auto_extension();
	snprintf(path, sizeof path, "%s/never.db", host.dir);
	rc = sqlite3_open_v2(host_uri(uri, sizeof uri, path, "-"), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
	saw("what is not set up", "%d: %s", rc, sqlite3_errmsg(db));
	sqlite3_close(db);
	sqlite3_reset_auto_extension();
	host_load();
	saw_replicated("loaded again");
}

static void unload(void)
{
	void *lib;
	int n = 0;

	start();
	while ((lib = dlopen(host.module, RTLD_NOW | RTLD_NOLOAD)) && n < 100) {
		dlclose(lib);
		dlclose(lib);
		n++;
	}
	saw("still there", "%d", n == 100);
	saw_replicated("after");
}

static void twice(void)
{
	sqlite3 *a, *b;
	char *why = NULL, sql[5000];

	start();
	a = memory();
	b = host_open("-");
	saw("by another connection", "%d", load_from(a, host.module, &why));
	saw("by one that is replicated", "%d", load_from(b, host.module, &why));
	snprintf(sql, sizeof sql, "SELECT load_extension('%s')", host.module);
	saw_sql(a, "by SQL", sql);
	saw_sql(b, "by SQL on a replicated one", sql);
	saw("by the name of its entry", "%d", sqlite3_load_extension(a, host.module, "sqlite3_walraft_init", &why));
	host_close(a);
	saw_sql(b, "which writes", "INSERT INTO loaded VALUES(3); SELECT walraft_position() > ''");
	host_close(b);
	saw_replicated("after");
}

static void copy(void)
{
	sqlite3 *db, *held;
	char *why = NULL;

	start();
	held = host_open("-");
	db = memory();
	saw("code", "%d", load_from(db, host.arg, &why));
	saw("text", "%s", why ? why : "");
	sqlite3_free(why);
	host_close(db);
	saw_sql(held, "the first", "INSERT INTO loaded VALUES(4); SELECT walraft_position() > ''");
	host_close(held);
	saw_replicated("after");
}

/* ---- sqlite3_config ---- */

static void single_thread(void)
{
	sqlite3 *db;
	char *why = NULL;

	must(sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) == SQLITE_OK, "config");
	db = memory();
	saw("code", "%d", load_from(db, host.module, &why));
	saw("text", "%s", why ? why : "");
	sqlite3_free(why);
	sqlite3_close(db);
}

static void multi_thread(void)
{
	must(sqlite3_config(SQLITE_CONFIG_MULTITHREAD) == SQLITE_OK, "config");
	start();
	saw_replicated("after");
}

static atomic_int n_logged;

static void on_log(void *p, int code, const char *text)
{
	(void)p;
	if ((code & 0xff) == SQLITE_NOTICE) /* "recovered frames from WAL file": depends on what was before */
		return;
	if (n_logged++ < 10)
		saw("logged", "%d %s", code, text);
}

static void error_log(void)
{
	sqlite3 *db, *other;

	must(sqlite3_config(SQLITE_CONFIG_LOG, on_log, NULL) == SQLITE_OK, "config");
	host_load();
	db = host_open("-");
	other = host_open("-");
	exec(db, "DROP TABLE IF EXISTS logged; CREATE TABLE logged(a); BEGIN; INSERT INTO logged VALUES(1); ROLLBACK");
	for (int i = 0; i < 50; i++) {
		exec(db, "INSERT INTO logged VALUES(zeroblob(3000))");
		exec(other, "UPDATE logged SET a = zeroblob(100); SELECT count(*) FROM logged");
	}
	exec(other, "VACUUM");
	host_close(db);
	host_close(other);
	saw("messages", "%d", n_logged);
}

static void map_config(void)
{
	sqlite3 *db;

	must(sqlite3_config(SQLITE_CONFIG_MMAP_SIZE, (sqlite3_int64)1 << 26, (sqlite3_int64)1 << 30) == SQLITE_OK, "config");
	host_load();
	db = host_open("-");
	saw_sql(db, "mapped by default", "PRAGMA mmap_size");
	host_close(db);
}

const struct host_case load_cases[] = {
	{ "from-memory", from_memory }, { "shutdown", shutdown_again }, { "switches", switches }, { "reset-auto", reset_auto }, { "unload", unload }, { "load-twice", twice }, { "load-copy", copy },
	{ "single-thread", single_thread }, { "multi-thread", multi_thread }, { "error-log", error_log }, { "map-config", map_config },
	{ 0 },
};
