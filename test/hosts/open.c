/* Ways to open: flags, URI parameters, the shared cache. */
#include "test/hosts/host.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens, writes and reads by it; each step may fail. */
static void try_uri(const char *what, const char *uri, int flags, const char *vfs)
{
	sqlite3 *db = NULL;
	char key[80];
	int rc = sqlite3_open_v2(uri, &db, flags, vfs);

	snprintf(key, sizeof key, "%s: open", what);
	if (rc != SQLITE_OK) {
		saw(key, "error %d: %s", sqlite3_extended_errcode(db), sqlite3_errmsg(db));
		sqlite3_close(db);
		return;
	}
	saw(key, "0");
	sqlite3_extended_result_codes(db, 1);
	sqlite3_busy_timeout(db, 5000);
	snprintf(key, sizeof key, "%s: write", what);
	saw_sql(db, key, "INSERT INTO opened(a) VALUES(1)");
	snprintf(key, sizeof key, "%s: read", what);
	saw_sql(db, key, "SELECT count(*) FROM opened");
	host_close(db);
}

static void try_params(const char *params)
{
	char uri[5000];

	try_uri(params, host_uri(uri, sizeof uri, host.db, params), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
}

static void parameters(void)
{
	static const char *const all[] = {
		"mode=ro", "mode=rw", "mode=rwc", "cache=private", "psow=0", "psow=1", "immutable=0&nolock=0&readonly_shm=0",
		"mode=wrong", "vfs=none", "immutable=1", "nolock=1", "readonly_shm=1",
	};
	sqlite3 *db = host_open("-");

	exec(db, "DROP TABLE IF EXISTS opened; CREATE TABLE opened(id INTEGER PRIMARY KEY, a)");
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		try_params(all[i]);
	saw_sql(db, "rows", "SELECT count(*) FROM opened");
	exec(db, "DROP TABLE opened");
	host_close(db);
}

static void flags(void)
{
	const char *vfs = host.vfs;
	char uri[5000], at[4096];
	sqlite3 *db = host_open("-");

	exec(db, "DROP TABLE IF EXISTS opened; CREATE TABLE opened(id INTEGER PRIMARY KEY, a)");
	try_uri("named VFS", host.db, SQLITE_OPEN_READWRITE, vfs);
	try_uri("read-only", host.db, SQLITE_OPEN_READONLY, vfs);
	try_uri("no mutex", host.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, vfs);
	try_uri("full mutex", host.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, vfs);
	try_uri("private cache", host.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE, vfs);
	try_uri("read-only, URI asks for more", host_uri(uri, sizeof uri, host.db, "mode=rw"), SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
	snprintf(uri, sizeof uri, "%s/link.db", host.dir);
	unlink(uri);
	must(symlink(host.db, uri) == 0, "symlink");
	try_uri("by a symbolic link", uri, SQLITE_OPEN_READWRITE, vfs);
	try_uri("no symbolic links", uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW, vfs);
	must(getcwd(at, sizeof at) && chdir(host.dir) == 0, "chdir");
	try_uri("by a relative link", "./link.db", SQLITE_OPEN_READWRITE, vfs);
	must(chdir(at) == 0, "chdir");
	saw_sql(db, "rows", "SELECT count(*) FROM opened");
	host_close(db);
}

/* What does not exist is not made unless it may be, and never under the name of a database that is replicated. */
static void missing(void)
{
	char path[2000], uri[3000];
	struct stat st;

	snprintf(path, sizeof path, "%s/none.db", host.dir);
	try_uri("mode=rw", host_uri(uri, sizeof uri, path, "mode=rw"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL);
	saw("made by mode=rw", "%d", stat(path, &st) == 0);
	try_uri("mode=ro", host_uri(uri, sizeof uri, path, "mode=ro"), SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
	saw("made by mode=ro", "%d", stat(path, &st) == 0);
	try_uri("no directory", host_uri(uri, sizeof uri, "/nonexistent/none.db", "mode=rwc"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
	try_uri("a directory", host_uri(uri, sizeof uri, host.dir, "-"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
	try_uri("mode=rwc", host_uri(uri, sizeof uri, path, "mode=rwc"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
	saw("made by mode=rwc", "%d", stat(path, &st) == 0);
	snprintf(path, sizeof path, "%s/named.db", host.dir);
	try_uri("named VFS", path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, host.vfs);
}

/* ---- shared cache ---- */

static void shared_cache(void)
{
	sqlite3 *a = host_open("cache=shared"), *b = host_open("cache=shared"), *c = host_open("-");

	exec(c, "DROP TABLE IF EXISTS cached; DROP TABLE IF EXISTS cached2; CREATE TABLE cached(a); CREATE TABLE cached2(a)");
	sqlite3_busy_timeout(a, 0);
	sqlite3_busy_timeout(b, 0);
	exec(a, "BEGIN; INSERT INTO cached VALUES(1)");
	saw_sql(b, "a locked table", "SELECT * FROM cached");
	saw_sql(b, "another table", "SELECT count(*) FROM cached2");
	saw_sql(b, "a second writer", "INSERT INTO cached2 VALUES(1)");
	saw_sql(b, "uncommitted, on demand", "PRAGMA read_uncommitted=1; SELECT * FROM cached; PRAGMA read_uncommitted=0");
	saw_sql(c, "not of the shared cache", "SELECT count(*) FROM cached");
	exec(a, "COMMIT");
	saw_sql(b, "after the commit", "SELECT * FROM cached");
	exec(b, "BEGIN; INSERT INTO cached VALUES(2); ROLLBACK; INSERT INTO cached VALUES(3)");
	saw_sql(a, "by the other", "SELECT a FROM cached");
	host_close(a);
	saw_sql(b, "the first is closed", "INSERT INTO cached VALUES(4); SELECT a FROM cached");
	host_close(b);
	saw_rc(c, "by default", sqlite3_enable_shared_cache(1));
	a = host_open("-");
	b = host_open("-");
	sqlite3_busy_timeout(b, 0);
	exec(a, "BEGIN; INSERT INTO cached VALUES(5)");
	saw_sql(b, "a locked table by default", "SELECT * FROM cached");
	exec(a, "COMMIT");
	host_close(a);
	host_close(b);
	sqlite3_enable_shared_cache(0);
	saw_sql(c, "rows", "SELECT a FROM cached");
	host_close(c);
}

struct notice {
	int calls;
};

static void on_unlock(void **args, int n)
{
	for (int i = 0; i < n; i++)
		((struct notice *)args[i])->calls++;
}

static void unlock_notify(void)
{
	sqlite3 *a, *b;
	struct notice told = { 0 };

	if (!sqlite3_compileoption_used("ENABLE_UNLOCK_NOTIFY")) {
		saw("not built in", "1");
		return;
	}
	a = host_open("cache=shared");
	b = host_open("cache=shared");
	exec(a, "DROP TABLE IF EXISTS notified; CREATE TABLE notified(a)");
	sqlite3_busy_timeout(b, 0);
	saw_rc(b, "not blocked", sqlite3_unlock_notify(b, on_unlock, &told));
	saw("called at once", "%d", told.calls);
	exec(a, "BEGIN IMMEDIATE; INSERT INTO notified VALUES(1)");
	saw_sql(b, "blocked", "SELECT * FROM notified");
	saw_rc(b, "notify", sqlite3_unlock_notify(b, on_unlock, &told));
	saw("before the commit", "%d", told.calls);
	exec(a, "COMMIT");
	saw("after the commit", "%d", told.calls);
	saw_sql(b, "no longer blocked", "SELECT * FROM notified");
	host_close(a);
	host_close(b);
}

const struct host_case open_cases[] = {
	{ "parameters", parameters }, { "flags", flags }, { "missing", missing }, { "shared-cache", shared_cache }, { "unlock-notify", unlock_notify },
	{ 0 },
};
