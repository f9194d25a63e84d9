/* Threads: connections of their own, one that is shared, one that is handed on. */
#include "test/hosts/host.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define THREADS 8
#define ROWS 24

struct job {
	sqlite3 *db; /* NULL: one of its own */
	const char *sql;
	int id, flags;
	char answer[ASK_BYTES];
};

static void insert_rows(void *p)
{
	struct job *j = p;
	sqlite3 *db = j->db;

	if (!db) {
		must(host_try("-", SQLITE_OPEN_READWRITE | j->flags, &db) == SQLITE_OK, "open in a thread");
		sqlite3_extended_result_codes(db, 1);
		sqlite3_busy_timeout(db, 20000);
	}
	for (int i = 0; i < ROWS; i++) {
		char sql[120];

		snprintf(sql, sizeof sql, "INSERT INTO threaded(by, n) VALUES(%d, %d)", j->id, i);
		exec(db, sql);
		if (i % 8 == 0)
			exec(db, "SELECT count(*), sum(n) FROM threaded");
	}
	if (!j->db)
		host_close(db);
}

static void in_all(sqlite3 *db, int flags, const char *what)
{
	struct job jobs[THREADS] = { 0 };
	struct task *tasks[THREADS];
	sqlite3 *look = host_open("-");
	char key[80];

	exec(look, "DELETE FROM threaded");
	for (int i = 0; i < THREADS; i++) {
		jobs[i] = (struct job){ .db = db, .id = i, .flags = flags };
		tasks[i] = task_start(insert_rows, &jobs[i]);
	}
	for (int i = 0; i < THREADS; i++)
		task_join(tasks[i]);
	snprintf(key, sizeof key, "rows, %s", what);
	saw_sql(look, key, "SELECT count(*), count(DISTINCT by * 1000 + n), sum(n) FROM threaded; PRAGMA integrity_check");
	host_close(look);
}

static void threads(void)
{
	sqlite3 *db = host_open("-"), *full = NULL;

	exec(db, "DROP TABLE IF EXISTS threaded; CREATE TABLE threaded(by, n)");
	in_all(NULL, SQLITE_OPEN_NOMUTEX, "connections without a mutex");
	in_all(NULL, SQLITE_OPEN_FULLMUTEX, "connections with a mutex");
	must(host_try("-", SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, &full) == SQLITE_OK, "open");
	sqlite3_busy_timeout(full, 20000);
	in_all(full, 0, "one connection for all");
	host_close(full);
	exec(db, "DELETE FROM threaded");
	host_close(db);
}

/* ---- one connection, from thread to thread ---- */

static void one_step(void *p)
{
	struct job *j = p;

	if (strcmp(j->sql, "open") == 0)
		snprintf(j->answer, sizeof j->answer, "%d", host_try("-", SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, &j->db));
	else if (strcmp(j->sql, "close") == 0)
		snprintf(j->answer, sizeof j->answer, "%d", sqlite3_close(j->db));
	else
		ask_into(j->answer, sizeof j->answer, j->db, j->sql);
}

static void handed_on(void)
{
	static const char *const steps[] = {
		"open", "DROP TABLE IF EXISTS handed; CREATE TABLE handed(a)", "BEGIN IMMEDIATE", "INSERT INTO handed VALUES(1)", "SAVEPOINT s", "INSERT INTO handed VALUES(2)",
		"ROLLBACK TO s", "SELECT count(*) FROM handed", "COMMIT", "BEGIN", "SELECT * FROM handed", "INSERT INTO handed VALUES(3)", "ROLLBACK", "SELECT a FROM handed", "close",
	};
	struct job j = { 0 };

	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		j.sql = steps[i];
		task_join(task_start(one_step, &j));
		saw(steps[i], "%s", j.answer);
	}
}

/* A writer that was refused in one thread is let in in another. */
static void refused_elsewhere(void)
{
	sqlite3 *holder = host_open("-");
	struct job j = { .db = host_open("-") };

	exec(holder, "DROP TABLE IF EXISTS handed; CREATE TABLE handed(a); BEGIN IMMEDIATE");
	sqlite3_busy_timeout(j.db, 20);
	j.sql = "INSERT INTO handed VALUES(1)";
	task_join(task_start(one_step, &j));
	saw("refused", "%s", j.answer);
	exec(holder, "COMMIT");
	task_join(task_start(one_step, &j));
	saw("let in", "%s", j.answer);
	saw_sql(holder, "rows", "SELECT count(*) FROM handed");
	host_close(j.db);
	saw_sql(holder, "the holder again", "INSERT INTO handed VALUES(2); SELECT a FROM handed");
	host_close(holder);
}

/* ---- opening and closing at the same time ---- */

static void come_and_go(void *p)
{
	struct job *j = p;

	for (int i = 0; i < 15; i++) {
		sqlite3 *db = host_open("-");
		char sql[120];

		snprintf(sql, sizeof sql, "INSERT INTO threaded(by, n) VALUES(%d, %d)", j->id, i);
		sqlite3_busy_timeout(db, 20000);
		exec(db, sql);
		host_close(db);
	}
}

/* Without any other connection, so that the node starts and stops all the time. */
static void opening(void)
{
	struct job jobs[4] = { 0 };
	struct task *tasks[4];
	sqlite3 *db = host_open("-");

	exec(db, "DROP TABLE IF EXISTS threaded; CREATE TABLE threaded(by, n)");
	host_close(db);
	for (int i = 0; i < 4; i++) {
		jobs[i].id = i;
		tasks[i] = task_start(come_and_go, &jobs[i]);
	}
	for (int i = 0; i < 4; i++)
		task_join(tasks[i]);
	db = host_open("-");
	saw_sql(db, "rows", "SELECT count(*), count(DISTINCT by * 1000 + n) FROM threaded; PRAGMA integrity_check");
	exec(db, "DELETE FROM threaded");
	host_close(db);
}

const struct host_case thread_cases[] = {
	{ "threads", threads }, { "handed-on", handed_on }, { "refused-elsewhere", refused_elsewhere }, { "opening", opening },
	{ 0 },
};
