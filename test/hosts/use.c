/* What an application does on a connection: blobs, hooks, limits, other databases beside it. */
#include "test/hosts/host.h"
#include <stdio.h>
#include <string.h>

static sqlite3 *inside;

static void blob(void)
{
	sqlite3 *db = host_open("-"), *other = host_open("-");
	sqlite3_blob *b = NULL;
	char text[6] = "";

	exec(db, "DROP TABLE IF EXISTS blobs; CREATE TABLE blobs(id INTEGER PRIMARY KEY, b); INSERT INTO blobs VALUES(1, zeroblob(20000)), (2, 'x')");
	saw_rc(db, "open to write", sqlite3_blob_open(db, "main", "blobs", "b", 1, 1, &b));
	saw("size", "%d", sqlite3_blob_bytes(b));
	saw_rc(db, "write", sqlite3_blob_write(b, "hello", 5, 9000));
	saw_rc(db, "read", sqlite3_blob_read(b, text, 5, 9000));
	saw("text", "%s", text);
	saw_sql(other, "before it is closed", "SELECT hex(substr(b, 9001, 5)) FROM blobs WHERE id = 1");
	saw_rc(db, "beyond its end", sqlite3_blob_write(b, "hello", 5, 19998));
	saw_rc(db, "close", sqlite3_blob_close(b));
	saw_sql(other, "after it is closed", "SELECT hex(substr(b, 9001, 5)) FROM blobs WHERE id = 1");
	saw_rc(db, "no such row", sqlite3_blob_open(db, "main", "blobs", "b", 7, 1, &b));
	saw_rc(db, "open to read", sqlite3_blob_open(db, "main", "blobs", "b", 1, 0, &b));
	saw_rc(db, "write to read-only", sqlite3_blob_write(b, "hello", 5, 0));
	exec(db, "UPDATE blobs SET b = 'short' WHERE id = 1");
	saw_rc(db, "row changed", sqlite3_blob_read(b, text, 5, 0));
	saw_rc(db, "close expired", sqlite3_blob_close(b));
	host_close(db);
	host_close(other);
}

static void cacheflush(void)
{
	static const char fill[] = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO flushed SELECT NULL, hex(zeroblob(500)) FROM n";
	sqlite3 *db = host_open("-"), *other = host_open("-");

	exec(db, "DROP TABLE IF EXISTS flushed; CREATE TABLE flushed(id INTEGER PRIMARY KEY, pad)");
	saw_rc(db, "nothing to flush", sqlite3_db_cacheflush(db));
	exec(db, "BEGIN");
	exec(db, fill);
	saw_rc(db, "flush", sqlite3_db_cacheflush(db));
	saw_sql(db, "own view", "SELECT count(*) FROM flushed");
	saw_sql(other, "others' view", "SELECT count(*) FROM flushed");
	exec(db, "ROLLBACK");
	saw_sql(db, "rolled back", "SELECT count(*) FROM flushed");
	exec(db, "BEGIN");
	exec(db, fill);
	saw_rc(db, "flush again", sqlite3_db_cacheflush(db));
	exec(db, "UPDATE flushed SET pad = 'short' WHERE id % 3 = 0; SAVEPOINT s; DELETE FROM flushed WHERE id < 100");
	saw_rc(db, "flush in a savepoint", sqlite3_db_cacheflush(db));
	exec(db, "ROLLBACK TO s; COMMIT");
	saw_sql(other, "committed", "SELECT count(*), sum(length(pad)) FROM flushed");
	saw_sql(other, "in order", "PRAGMA integrity_check");
	host_close(db);
	host_close(other);
}

/* ---- hooks ---- */

struct calls {
	int commits, rollbacks, updates, statements, refuse;
};

static int on_commit(void *p)
{
	struct calls *c = p;

	c->commits++;
	return c->refuse;
}

static void on_rollback(void *p)
{
	((struct calls *)p)->rollbacks++;
}

static void on_update(void *p, int op, const char *schema, const char *table, sqlite3_int64 row)
{
	(void)op, (void)schema, (void)table, (void)row;
	((struct calls *)p)->updates++;
}

static int on_trace(unsigned what, void *p, void *statement, void *x)
{
	(void)what, (void)statement, (void)x;
	((struct calls *)p)->statements++;
	return 0;
}

static int deny_delete(void *p, int action, const char *a, const char *b, const char *schema, const char *trigger)
{
	(void)p, (void)a, (void)b, (void)schema, (void)trigger;
	return action == SQLITE_DELETE ? SQLITE_DENY : SQLITE_OK;
}

static int give_up(void *p)
{
	return ++*(int *)p > 20;
}

static void hooks(void)
{
	sqlite3 *db = host_open("-");
	struct calls c = { 0 };
	int steps = 0;

	exec(db, "DROP TABLE IF EXISTS hooked; CREATE TABLE hooked(id INTEGER PRIMARY KEY)");
	sqlite3_commit_hook(db, on_commit, &c);
	sqlite3_rollback_hook(db, on_rollback, &c);
	sqlite3_update_hook(db, on_update, &c);
	sqlite3_trace_v2(db, SQLITE_TRACE_STMT, on_trace, &c);
	exec(db, "INSERT INTO hooked VALUES(1), (2)");
	c.refuse = 1;
	saw_sql(db, "refused by the commit hook", "INSERT INTO hooked VALUES(3)");
	c.refuse = 0;
	exec(db, "BEGIN; INSERT INTO hooked VALUES(4); ROLLBACK; BEGIN; INSERT INTO hooked VALUES(5); COMMIT");
	saw("calls", "%d commits, %d rollbacks, %d updates, %d statements", c.commits, c.rollbacks, c.updates, c.statements);
	sqlite3_commit_hook(db, NULL, NULL);
	sqlite3_set_authorizer(db, deny_delete, NULL);
	saw_sql(db, "denied by the authorizer", "DELETE FROM hooked");
	sqlite3_set_authorizer(db, NULL, NULL);
	sqlite3_progress_handler(db, 100, give_up, &steps);
	saw_sql(db, "ended by the progress handler", "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO hooked SELECT i FROM n");
	sqlite3_progress_handler(db, 0, NULL, NULL);
	saw_sql(db, "rows", "SELECT id FROM hooked");
	saw("changes", "%d, last row %lld", sqlite3_changes(db), (long long)sqlite3_last_insert_rowid(db));
	host_close(db);
}

/* ---- facts and limits ---- */

static void limits(void)
{
	static const struct { int id, value; } low[] = {
		{ SQLITE_LIMIT_LENGTH, 5000 },       { SQLITE_LIMIT_SQL_LENGTH, 500 },    { SQLITE_LIMIT_COLUMN, 10 },
		{ SQLITE_LIMIT_EXPR_DEPTH, 10 },     { SQLITE_LIMIT_COMPOUND_SELECT, 3 }, { SQLITE_LIMIT_FUNCTION_ARG, 4 },
		{ SQLITE_LIMIT_ATTACHED, 0 },        { SQLITE_LIMIT_TRIGGER_DEPTH, 2 },   { SQLITE_LIMIT_VARIABLE_NUMBER, 3 },
		{ SQLITE_LIMIT_WORKER_THREADS, 2 },
	};
	sqlite3 *db = host_open("-");

	exec(db, "DROP TABLE IF EXISTS limited; CREATE TABLE limited(a)");
	for (size_t i = 0; i < sizeof low / sizeof *low; i++)
		sqlite3_limit(db, low[i].id, low[i].value);
	saw_sql(db, "within", "INSERT INTO limited VALUES(hex(zeroblob(2000))); SELECT length(a) FROM limited");
	saw_sql(db, "too long", "INSERT INTO limited VALUES(zeroblob(6000))");
	saw_sql(db, "too many attached", "ATTACH ':memory:' AS m");
	saw_sql(db, "too many terms", "SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4");
	saw("asked", "%d", sqlite3_limit(db, SQLITE_LIMIT_LENGTH, -1));
	host_close(db);
}

static void facts(void)
{
	sqlite3 *db = host_open("-"), *ro = NULL;
	int rc;

	saw("file name", "%d", strcmp(sqlite3_db_filename(db, "main"), host.db));
	saw("read-only", "%d %d", sqlite3_db_readonly(db, "main"), sqlite3_db_readonly(db, "none"));
	exec(db, "DROP TABLE IF EXISTS facts; CREATE TABLE facts(a PRIMARY KEY); INSERT INTO facts VALUES(1)");
	saw("state outside", "%d, autocommit %d", sqlite3_txn_state(db, "main"), sqlite3_get_autocommit(db));
	exec(db, "BEGIN; SELECT * FROM facts");
	saw("state in a read", "%d", sqlite3_txn_state(db, "main"));
	exec(db, "INSERT INTO facts VALUES(2)");
	saw("state in a write", "%d", sqlite3_txn_state(db, "main"));
	exec(db, "COMMIT");
	sqlite3_extended_result_codes(db, 0);
	rc = sqlite3_exec(db, "INSERT INTO facts VALUES(2)", NULL, NULL, NULL);
	saw("plain code", "%d, extended %d", rc, sqlite3_extended_errcode(db));
	sqlite3_extended_result_codes(db, 1);
	rc = sqlite3_exec(db, "INSERT INTO facts VALUES(2)", NULL, NULL, NULL);
	saw("extended code", "%d, %d", rc, sqlite3_errcode(db));
	rc = host_try("-", SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, &ro);
	saw("asked for at open", "%d", rc ? rc : sqlite3_exec(ro, "INSERT INTO facts VALUES(2)", NULL, NULL, NULL));
	host_close(ro);
	host_close(db);
}

/* On a node that does not lead, with writes to stay there: the code as the host asked for it, and what can be done about it. */
static void codes(void)
{
	sqlite3 *db = host_open("-");
	int rc;

	exec(db, "PRAGMA walraft_write=local");
	sqlite3_extended_result_codes(db, 0);
	rc = sqlite3_exec(db, "INSERT INTO seed VALUES('not here')", NULL, NULL, NULL);
	saw("plain", "%d, extended %d", rc, sqlite3_extended_errcode(db));
	sqlite3_extended_result_codes(db, 1);
	rc = sqlite3_exec(db, "INSERT INTO seed VALUES('not here')", NULL, NULL, NULL);
	saw("extended", "%d", rc);
	saw_sql(db, "reason", "SELECT walraft_error()");
	exec(db, "BEGIN; SELECT count(*) FROM seed");
	rc = sqlite3_exec(db, "INSERT INTO seed VALUES('not here')", NULL, NULL, NULL);
	saw("in a transaction", "%d", rc);
	saw_sql(db, "which can still read", "SELECT count(*) > 0 FROM seed");
	exec(db, "COMMIT");
	host_close(db);
}

static void spill(void)
{
	sqlite3 *db = host_open("-");

	exec(db, "PRAGMA cache_size=5; DROP TABLE IF EXISTS spilled; CREATE TABLE spilled(id INTEGER PRIMARY KEY, pad); CREATE INDEX spilled_i ON spilled(pad)");
	exec(db, "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO spilled SELECT i, hex(i * 7919) || hex(zeroblob(300)) FROM n");
	exec(db, "SAVEPOINT a; UPDATE spilled SET pad = 'a' || pad WHERE id % 2; SAVEPOINT b; DELETE FROM spilled WHERE id % 3; ROLLBACK TO b; RELEASE b");
	saw_sql(db, "inside", "SELECT count(*), sum(length(pad)) FROM spilled");
	exec(db, "ROLLBACK TO a; UPDATE spilled SET pad = 'b' || pad WHERE id % 5 = 0; COMMIT");
	saw_sql(db, "committed", "SELECT count(*), sum(length(pad)) FROM spilled");
	exec(db, "BEGIN; DELETE FROM spilled; ROLLBACK");
	saw_sql(db, "rolled back", "SELECT count(*), sum(length(pad)) FROM spilled");
	saw_sql(db, "in order", "PRAGMA integrity_check");
	host_close(db);
}

/* ---- other databases beside it ---- */

static void beside(void)
{
	sqlite3 *db = host_open("-");
	char sql[1200];

	exec(db, "DROP TABLE IF EXISTS beside; CREATE TABLE beside(a)");
	exec(db, "CREATE TEMP TABLE tmp(a); ATTACH ':memory:' AS mem; CREATE TABLE mem.m(a); ATTACH '' AS scratch; CREATE TABLE scratch.s(a)");
	snprintf(sql, sizeof sql, "ATTACH '%s/beside.db' AS file", host.dir);
	saw_sql(db, "attach a file", sql);
	saw_sql(db, "journal mode of the file", "PRAGMA file.journal_mode");
	saw_sql(db, "write to the file", "DROP TABLE IF EXISTS file.f; CREATE TABLE file.f(a)");
	exec(db, "BEGIN; INSERT INTO beside VALUES(1); INSERT INTO tmp VALUES(2); INSERT INTO m VALUES(3); INSERT INTO s VALUES(4)");
	saw_sql(db, "write to all", "INSERT INTO f VALUES(5); COMMIT; SELECT a FROM beside, f UNION ALL SELECT a FROM tmp UNION ALL SELECT a FROM m UNION ALL SELECT a FROM s");
	saw_sql(db, "roll back all", "BEGIN; DELETE FROM beside; DELETE FROM f; DELETE FROM tmp; DELETE FROM m; ROLLBACK; SELECT count(*) FROM beside, f, tmp, m, s");
	saw_sql(db, "file in WAL mode", "PRAGMA file.journal_mode=wal");
	saw_sql(db, "write to both", "BEGIN; INSERT INTO beside VALUES(6); INSERT INTO f VALUES(7); COMMIT; SELECT sum(beside.a) FROM beside; SELECT sum(a) FROM f");
	saw_sql(db, "modes", "PRAGMA main.journal_mode; PRAGMA temp.journal_mode; PRAGMA mem.journal_mode");
	saw_sql(db, "detach", "DETACH file; DETACH mem; DETACH scratch");
	host_close(db);
}

static void attached_to(const char *main_name, const char *what)
{
	sqlite3 *db = NULL;
	char sql[1200], uri[1000], key[80];

	must(sqlite3_open_v2(main_name, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL) == SQLITE_OK, "open %s", main_name);
	sqlite3_extended_result_codes(db, 1);
	snprintf(sql, sizeof sql, "ATTACH '%s' AS r", host_uri(uri, sizeof uri, host.db, "-"));
	exec(db, "DROP TABLE IF EXISTS own; CREATE TABLE own(a)");
	snprintf(key, sizeof key, "attach to %s", what);
	saw_sql(db, key, sql);
	snprintf(key, sizeof key, "write both from %s", what);
	saw_sql(db, key, "BEGIN; INSERT INTO own VALUES(1); INSERT INTO r.guests VALUES(1); COMMIT; SELECT count(*) FROM guests; SELECT count(*) FROM own");
	snprintf(key, sizeof key, "roll back both from %s", what);
	saw_sql(db, key, "BEGIN; DELETE FROM own; DELETE FROM guests; ROLLBACK; SELECT count(*) FROM guests; SELECT count(*) FROM own");
	snprintf(key, sizeof key, "journal mode from %s", what);
	saw_sql(db, key, "PRAGMA journal_mode=delete");
	snprintf(key, sizeof key, "journal mode after it from %s", what);
	saw_sql(db, key, "PRAGMA r.journal_mode; INSERT INTO r.guests VALUES(2)");
	snprintf(key, sizeof key, "locking mode from %s", what);
	saw_sql(db, key, "PRAGMA locking_mode=exclusive");
	snprintf(key, sizeof key, "read after it from %s", what);
	saw_sql(db, key, "SELECT count(*) > 0 FROM guests");
	snprintf(key, sizeof key, "write after it from %s", what);
	saw_sql(db, key, "INSERT INTO guests VALUES(3)");
	snprintf(key, sizeof key, "reason from %s", what);
	if (host.module)
		saw_sql(db, key, "SELECT walraft_error()");
	snprintf(key, sizeof key, "back to normal from %s", what);
	saw_sql(db, key, "PRAGMA locking_mode=normal; INSERT INTO guests VALUES(4); DELETE FROM guests");
	host_close(db);
}

/* Pragmas without a schema's name are for all attached databases; they do not come to the VFS of an attached one. */
static void guest(void)
{
	sqlite3 *db = host_open("-");
	char path[1000];

	exec(db, "DROP TABLE IF EXISTS guests; CREATE TABLE guests(a)");
	host_close(db);
	attached_to(":memory:", "memory");
	snprintf(path, sizeof path, "%s/host-of-guest.db", host.dir);
	attached_to(path, "a file");
	db = host_open("-");
	saw_sql(db, "rows", "SELECT count(*) FROM guests");
	host_close(db);
}

/* A connection of the same process that knows nothing of walraft, by itself and attached. */
static void outsider(void)
{
	sqlite3 *db = host_open("-"), *plain = NULL;
	char sql[5000];

	exec(db, "DROP TABLE IF EXISTS inside; CREATE TABLE inside(a); INSERT INTO inside VALUES(1)");
	must(sqlite3_open(host.db, &plain) == SQLITE_OK, "open %s", host.db);
	sqlite3_extended_result_codes(plain, 1);
	saw_sql(plain, "read", "SELECT a FROM inside");
	saw_sql(plain, "write", "INSERT INTO inside VALUES(2)");
	saw_sql(plain, "checkpoint", "PRAGMA wal_checkpoint(TRUNCATE)");
	saw_sql(plain, "journal mode", "PRAGMA journal_mode=delete");
	saw_sql(plain, "vacuum", "VACUUM");
	exec(db, "INSERT INTO inside VALUES(3)");
	saw_sql(plain, "sees commits", "SELECT a FROM inside");
	host_close(plain);
	must(sqlite3_open(":memory:", &plain) == SQLITE_OK, ":memory:");
	sqlite3_extended_result_codes(plain, 1);
	snprintf(sql, sizeof sql, "ATTACH '%s' AS r; SELECT a FROM r.inside", host.db);
	saw_sql(plain, "attached", sql);
	saw_sql(plain, "write attached", "INSERT INTO r.inside VALUES(4)");
	host_close(plain);
	saw_sql(db, "the replicated one goes on", "INSERT INTO inside VALUES(5); SELECT a FROM inside; PRAGMA integrity_check");
	inside = db;
}

static void outsider_end(void)
{
	exec(inside, "INSERT INTO inside VALUES(6)");
	host_close(inside);
}

static void twice(void)
{
	sqlite3 *db = host_open("-");
	char sql[1200], uri[1000];

	exec(db, "DROP TABLE IF EXISTS twice; CREATE TABLE twice(a)");
	snprintf(sql, sizeof sql, "ATTACH '%s' AS again", host_uri(uri, sizeof uri, host.db, "-"));
	sqlite3_busy_timeout(db, 0);
	saw_sql(db, "attach", sql);
	saw_sql(db, "one", "INSERT INTO main.twice VALUES(1); INSERT INTO again.twice VALUES(2); SELECT a FROM again.twice");
	exec(db, "BEGIN; INSERT INTO main.twice VALUES(3)");
	saw_sql(db, "both at once", "INSERT INTO again.twice VALUES(4)");
	exec(db, "COMMIT");
	saw_sql(db, "rows", "SELECT a FROM main.twice");
	host_close(db);
}

const struct host_case use_cases[] = {
	{ "blob", blob }, { "cacheflush", cacheflush }, { "hooks", hooks }, { "limits", limits },
	{ "facts", facts }, { "codes", codes }, { "spill", spill }, { "beside", beside }, { "guest", guest }, { "twice", twice },
	{ "outsider", outsider }, { "outsider-end", outsider_end },
	{ 0 },
};
