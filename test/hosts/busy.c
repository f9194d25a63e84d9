/* Waiting and being interrupted. */
#include "test/hosts/host.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct patience {
	int calls, limit, nap_ms;
};

static int on_busy(void *p, int before)
{
	struct patience *b = p;

	(void)before;
	b->calls++;
	if (b->nap_ms)
		sqlite3_sleep(b->nap_ms);
	return b->calls < b->limit;
}

struct release {
	sqlite3 *db;
	int after_ms;
};

static void release_later(void *p)
{
	struct release *r = p;

	rest_ms(r->after_ms);
	exec(r->db, "COMMIT");
}

static void busy_handler(void)
{
	sqlite3 *a = host_open("-"), *b = host_open("-");
	struct patience p = { .limit = 7 };
	struct release r = { a, 30 };
	struct task *t;

	exec(a, "DROP TABLE IF EXISTS waited; CREATE TABLE waited(a)");
	exec(b, "SELECT * FROM waited");
	exec(a, "BEGIN IMMEDIATE; INSERT INTO waited VALUES(1)");
	sqlite3_busy_handler(b, on_busy, &p);
	saw_sql(b, "gives up", "INSERT INTO waited VALUES(2)");
	saw("calls", "%d", p.calls);
	saw_sql(b, "gives up at BEGIN IMMEDIATE", "BEGIN IMMEDIATE");
	p = (struct patience){ .limit = 5, .nap_ms = 1 };
	saw_sql(b, "with sqlite3_sleep", "INSERT INTO waited VALUES(3)");
	saw("calls with sqlite3_sleep", "%d", p.calls);
	sqlite3_busy_handler(b, NULL, NULL);
	saw_sql(b, "without a handler", "INSERT INTO waited VALUES(4)");
	for (int nap = 0; nap <= 1; nap++) {
		p = (struct patience){ .limit = 1 << 30, .nap_ms = nap };
		sqlite3_busy_handler(b, on_busy, &p);
		t = task_start(release_later, &r);
		saw_sql(b, nap ? "waits with sqlite3_sleep" : "waits", "INSERT INTO waited VALUES(5)");
		task_join(t);
		saw(nap ? "it was called, with sqlite3_sleep" : "it was called", "%d", p.calls > 0);
		exec(a, "BEGIN IMMEDIATE");
	}
	exec(a, "COMMIT");
	/* A snapshot that is not the newest one any more is no reason to wait. */
	p = (struct patience){ .limit = 100 };
	exec(b, "BEGIN; SELECT * FROM waited");
	exec(a, "INSERT INTO waited VALUES(6)");
	saw_sql(b, "from an old snapshot", "INSERT INTO waited VALUES(7)");
	saw("calls from an old snapshot", "%d", p.calls);
	exec(b, "COMMIT");
	saw_sql(b, "rows", "SELECT a FROM waited");
	host_close(a);
	host_close(b);
}

static void busy_timeout(void)
{
	sqlite3 *a = host_open("-"), *b = host_open("-");
	struct release r = { a, 60 };
	struct task *t;
	int64_t t0, took;

	exec(a, "DROP TABLE IF EXISTS waited; CREATE TABLE waited(a)");
	saw_sql(b, "set", "PRAGMA busy_timeout=150; PRAGMA busy_timeout");
	exec(a, "BEGIN IMMEDIATE; INSERT INTO waited VALUES(1)");
	t0 = now_ms();
	saw_sql(b, "too long", "INSERT INTO waited VALUES(2)");
	took = now_ms() - t0;
	saw("in time", "%d", took >= 120 && took < 2000);
	sqlite3_busy_timeout(b, 10000);
	t = task_start(release_later, &r);
	t0 = now_ms();
	saw_sql(b, "long enough", "INSERT INTO waited VALUES(3)");
	took = now_ms() - t0;
	saw("soon after", "%d", took >= 30 && took < 3000);
	task_join(t);
	saw_sql(b, "rows", "SELECT a FROM waited");
	host_close(a);
	host_close(b);
}

/* ---- sqlite3_interrupt ---- */

static void interrupt_later(void *p)
{
	rest_ms(30);
	sqlite3_interrupt(p);
}

static void interrupt(void)
{
	static const char endless[] = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) ";
	sqlite3 *db = host_open("-");
	struct task *t;
	char sql[300];

	exec(db, "DROP TABLE IF EXISTS stopped; CREATE TABLE stopped(a); INSERT INTO stopped VALUES(1)");
	t = task_start(interrupt_later, db);
	snprintf(sql, sizeof sql, "%s SELECT max(i) FROM n, stopped", endless);
	saw_sql(db, "a long read", sql);
	task_join(t);
	saw_sql(db, "and the next", "SELECT a FROM stopped");
	t = task_start(interrupt_later, db);
	snprintf(sql, sizeof sql, "%s INSERT INTO stopped SELECT i FROM n", endless);
	saw_sql(db, "a long write", sql);
	task_join(t);
	saw_sql(db, "left nothing", "SELECT count(*) FROM stopped");
	exec(db, "BEGIN; INSERT INTO stopped VALUES(2)");
	t = task_start(interrupt_later, db);
	saw_sql(db, "a long write in a transaction", sql);
	task_join(t);
	saw("which is over", "%d", sqlite3_get_autocommit(db));
	if (!sqlite3_get_autocommit(db))
		exec(db, "ROLLBACK");
	saw_sql(db, "rows", "INSERT INTO stopped VALUES(3); SELECT a FROM stopped");
	host_close(db);
}

/* A commit on its way, in three commands, so that the driver can keep it from its quorum meanwhile. */
static struct {
	sqlite3 *db;
	struct task *task;
	atomic_bool done;
	const char *sql;
	char answer[ASK_BYTES];
} commit;

static void commit_main(void *p)
{
	(void)p;
	ask_into(commit.answer, sizeof commit.answer, commit.db, commit.sql);
	commit.done = true;
}

static void commit_begin(void)
{
	commit.db = host_open("walraft_timeout=20000");
	exec(commit.db, "CREATE TABLE IF NOT EXISTS stopped(a)");
	exec(commit.db, "BEGIN; INSERT INTO stopped VALUES(99)");
}

/* host.arg: commit or read. */
static void commit_go(void)
{
	commit.sql = strcmp(host.arg, "read") == 0 ? "SELECT count(*) FROM stopped" : "COMMIT";
	commit.done = false;
	commit.task = task_start(commit_main, NULL);
}

static bool commit_is_done(void *p)
{
	(void)p;
	return commit.done;
}

static void commit_interrupt(void)
{
	int64_t t0 = now_ms();

	saw("under way", "%d", !until(commit_is_done, NULL, 200));
	sqlite3_interrupt(commit.db);
	saw("interrupt returns at once", "%d", now_ms() - t0 < 2000);
	saw("still under way", "%d", !until(commit_is_done, NULL, 200));
}

static void commit_end(void)
{
	task_join(commit.task);
	saw("answer", "%s", commit.answer);
	if (!sqlite3_get_autocommit(commit.db))
		exec(commit.db, "ROLLBACK");
}

static void commit_close(void)
{
	saw_sql(commit.db, "rows", "SELECT a FROM stopped WHERE a = 99");
	host_close(commit.db);
}

const struct host_case busy_cases[] = {
	{ "busy-handler", busy_handler }, { "busy-timeout", busy_timeout }, { "interrupt", interrupt }, { "commit-begin", commit_begin }, { "commit-go", commit_go },
	{ "commit-interrupt", commit_interrupt }, { "commit-end", commit_end }, { "commit-close", commit_close },
	{ 0 },
};
