/* The WAL as an application may handle it: checkpoints, hooks, snapshots, file controls, what a close does. */
#include "test/hosts/host.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void checkpoints(void)
{
	static const struct { const char *name; int mode; } modes[] = {
		{ "PASSIVE", SQLITE_CHECKPOINT_PASSIVE }, { "FULL", SQLITE_CHECKPOINT_FULL }, { "RESTART", SQLITE_CHECKPOINT_RESTART }, { "TRUNCATE", SQLITE_CHECKPOINT_TRUNCATE },
	};
	sqlite3 *db = host_open("-");
	char key[80], sql[120];
	int64_t t0;

	exec(db, "DROP TABLE IF EXISTS checked; CREATE TABLE checked(a)");
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		int log = -7, done = -7, rc;

		exec(db, "INSERT INTO checked VALUES(1)");
		t0 = now_ms();
		rc = sqlite3_wal_checkpoint_v2(db, "main", modes[i].mode, &log, &done);
		snprintf(key, sizeof key, "call %s", modes[i].name);
		saw(key, "%d %s, all copied %d", rc, rc ? sqlite3_errmsg(db) : "", log == done);
		snprintf(sql, sizeof sql, "PRAGMA wal_checkpoint(%s)", modes[i].name);
		snprintf(key, sizeof key, "pragma %s", modes[i].name);
		saw(key, "busy %lld", (long long)ask_int(db, sql));
		snprintf(key, sizeof key, "quick %s", modes[i].name);
		saw(key, "%d", now_ms() - t0 < 2000);
	}
	saw_rc(db, "old call", sqlite3_wal_checkpoint(db, "none"));
	exec(db, "BEGIN; INSERT INTO checked VALUES(2)");
	saw_sql(db, "in a transaction", "PRAGMA wal_checkpoint");
	exec(db, "COMMIT");
	saw_sql(db, "rows", "SELECT count(*) FROM checked");
	host_close(db);
}

static int on_wal(void *p, sqlite3 *db, const char *schema, int frames)
{
	(void)db;
	if (strcmp(schema, "main") == 0 && frames > 0)
		++*(int *)p;
	return SQLITE_OK;
}

static void autocheckpoint(void)
{
	sqlite3 *db = host_open("-");
	int calls = 0;

	exec(db, "DROP TABLE IF EXISTS auto_checked; CREATE TABLE auto_checked(a)");
	saw_sql(db, "default", "PRAGMA wal_autocheckpoint");
	saw_sql(db, "set", "PRAGMA wal_autocheckpoint=1");
	for (int i = 0; i < 20; i++)
		exec(db, "INSERT INTO auto_checked VALUES(randomblob(3000))");
	saw_sql(db, "after commits", "SELECT count(*) FROM auto_checked");
	sqlite3_wal_hook(db, on_wal, &calls);
	for (int i = 0; i < 20; i++)
		exec(db, "INSERT INTO auto_checked VALUES(zeroblob(3000))");
	exec(db, "BEGIN; SELECT count(*) FROM auto_checked; COMMIT");
	saw("calls of the hook", "%d", calls);
	saw_rc(db, "off", sqlite3_wal_autocheckpoint(db, 0));
	exec(db, "UPDATE auto_checked SET a = zeroblob(100)");
	saw("replaces the hook", "%d", calls);
	saw_sql(db, "asked", "PRAGMA wal_autocheckpoint");
	host_close(db);
}

/* ---- snapshots: only where SQLite was built with them ---- */

typedef int snapshot_get_fn(sqlite3 *, const char *, sqlite3_snapshot **);
typedef int snapshot_open_fn(sqlite3 *, const char *, sqlite3_snapshot *);
typedef void snapshot_free_fn(sqlite3_snapshot *);
typedef int snapshot_cmp_fn(sqlite3_snapshot *, sqlite3_snapshot *);
typedef int snapshot_recover_fn(sqlite3 *, const char *);

static void snapshot(void)
{
	snapshot_get_fn *get = (snapshot_get_fn *)dlsym(RTLD_DEFAULT, "sqlite3_snapshot_get");
	snapshot_open_fn *open = (snapshot_open_fn *)dlsym(RTLD_DEFAULT, "sqlite3_snapshot_open");
	snapshot_free_fn *done = (snapshot_free_fn *)dlsym(RTLD_DEFAULT, "sqlite3_snapshot_free");
	snapshot_cmp_fn *cmp = (snapshot_cmp_fn *)dlsym(RTLD_DEFAULT, "sqlite3_snapshot_cmp");
	snapshot_recover_fn *recover = (snapshot_recover_fn *)dlsym(RTLD_DEFAULT, "sqlite3_snapshot_recover");
	sqlite3_snapshot *old = NULL, *new = NULL;
	sqlite3 *a, *b;

	if (!get || !open || !done || !cmp || !recover) {
		saw("not built in", "1");
		return;
	}
	a = host_open("-");
	b = host_open("-");
	sqlite3_busy_timeout(b, 50);
	exec(a, "DROP TABLE IF EXISTS snapped; CREATE TABLE snapped(a); INSERT INTO snapped VALUES(1)");
	exec(a, "BEGIN; SELECT * FROM snapped");
	saw_rc(a, "get", get(a, "main", &old));
	exec(b, "INSERT INTO snapped VALUES(2)");
	saw_sql(a, "a read that goes on", "SELECT count(*) FROM snapped");
	exec(b, "BEGIN; SELECT * FROM snapped");
	saw_rc(b, "get the newer", get(b, "main", &new));
	saw("compare", "%d", old && new ? cmp(old, new) < 0 : -1);
	exec(b, "COMMIT; BEGIN");
	saw_rc(b, "open the older", open(b, "main", old));
	saw_sql(b, "rows of the older", "SELECT count(*) FROM snapped");
	saw_sql(b, "write on the older", "INSERT INTO snapped VALUES(3)");
	exec(b, "ROLLBACK; BEGIN");
	saw_rc(b, "open the newer", open(b, "main", new));
	saw_sql(b, "rows of the newer", "SELECT count(*) FROM snapped");
	exec(b, "COMMIT");
	exec(a, "COMMIT");
	saw_rc(a, "recover", recover(a, "main"));
	saw_sql(a, "in the end", "INSERT INTO snapped VALUES(4); SELECT a FROM snapped");
	done(old);
	done(new);
	host_close(a);
	host_close(b);
}

/* ---- mapped memory ---- */

static void memory_map(void)
{
	sqlite3 *a = host_open("-"), *b = host_open("-");
	char buf[ASK_BYTES];
	int same = 0;

	saw_sql(a, "default", "PRAGMA mmap_size");
	saw_sql(a, "set", "PRAGMA mmap_size=67108864");
	saw_sql(a, "asked", "PRAGMA mmap_size");
	exec(b, "DROP TABLE IF EXISTS mapped; CREATE TABLE mapped(id INTEGER PRIMARY KEY, pad)");
	for (int i = 0; i < 30; i++) {
		exec(b, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO mapped SELECT NULL, randomblob(2000) FROM n");
		if (i % 10 == 9)
			exec(b, "DELETE FROM mapped WHERE id % 2; VACUUM");
		if (i % 3 == 0)
			exec(b, "UPDATE mapped SET pad = zeroblob(1000) WHERE id % 7 = 0");
		ask_into(buf, sizeof buf, b, "SELECT count(*), sum(length(pad)), sum(id), max(hex(pad)) FROM mapped");
		same += strcmp(buf, ask(a, "SELECT count(*), sum(length(pad)), sum(id), max(hex(pad)) FROM mapped")) == 0;
	}
	saw("equal reads", "%d", same);
	exec(b, "DELETE FROM mapped");
	saw_sql(a, "in order", "PRAGMA integrity_check");
	host_close(a);
	host_close(b);
}

/* ---- closing ---- */

static int file_is_there(const char *suffix)
{
	char path[5000];
	struct stat st;

	snprintf(path, sizeof path, "%s%s", host.db, suffix);
	return stat(path, &st) == 0;
}

/* For the only connection to the database: what is left after the last close, and what a next open finds. */
static void last_close(void)
{
	sqlite3 *db = host_open("-");

	exec(db, "DROP TABLE IF EXISTS closed; CREATE TABLE closed(a); INSERT INTO closed VALUES(1)");
	host_close(db);
	saw("-wal after a close", "%d", file_is_there("-wal"));
	db = host_open("-");
	saw_sql(db, "opened again", "INSERT INTO closed VALUES(2); SELECT a FROM closed");
	saw_rc(db, "no checkpoint on close", sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL));
	exec(db, "INSERT INTO closed VALUES(3)");
	host_close(db);
	saw("-wal after a close without a checkpoint", "%d", file_is_there("-wal"));
	db = host_open("-");
	saw_sql(db, "rows", "SELECT a FROM closed");
	saw_sql(db, "in order", "PRAGMA integrity_check");
	host_close(db);
}

const struct host_case wal_cases[] = {
	{ "checkpoints", checkpoints }, { "autocheckpoint", autocheckpoint }, { "snapshot", snapshot }, { "memory-map", memory_map }, { "last-close", last_close },
	{ 0 },
};
