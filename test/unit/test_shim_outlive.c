/* Connections that live longer than the node that they began with: it is closed and started again beneath them. */
#include "test/unit/db_world.h"
#include "test/unit/shim_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA                                                                                                                                   \
	"CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE TABLE t(id INTEGER PRIMARY KEY, x, w, i);" \
	"CREATE UNIQUE INDEX twi ON t(w, i); CREATE TABLE counter(n); INSERT INTO counter VALUES (0);"                                           \
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO a SELECT i, 1000 FROM n;"                     \
	"INSERT INTO b SELECT id, 0 FROM a;"

static void make_rows(sqlite3 *db, int who, int n)
{
	shim_sql(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO t(x, w, i) SELECT randomblob(900), %d, i FROM n", n, who);
}

static int64_t rows(sqlite3 *db)
{
	return shim_int(db, "SELECT count(*) FROM t");
}

/* What each kind of connection sees and is told when its node has gone and come again. */
static void all_kinds(bool checkpoint)
{
	struct shim_cluster c;
	struct vfs_db *before;
	sqlite3 *reader, *writer, *idle, *deferred, *cursor, *fresh;
	sqlite3_stmt *st;
	uint64_t opens;
	int n = 1;

	shim_cluster_new(&c, 1, 4096, SCHEMA);
	reader = shim_open(&c.node[0], NULL);
	writer = shim_open(&c.node[0], NULL);
	idle = shim_open(&c.node[0], NULL);
	deferred = shim_open(&c.node[0], NULL);
	cursor = shim_open(&c.node[0], NULL);
	make_rows(writer, 1, 100);
	assert_int_equal(rows(idle), 100);

	shim_sql(reader, "BEGIN");
	assert_int_equal(rows(reader), 100);
	shim_sql(deferred, "BEGIN");
	assert_int_equal(rows(deferred), 100);
	assert_int_equal(sqlite3_prepare_v2(cursor, "SELECT i FROM t ORDER BY i", -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	shim_sql(writer, "PRAGMA cache_size = 5; BEGIN IMMEDIATE");
	make_rows(writer, 2, 50);

	before = c.node[0].db;
	vfs_db_ref(before);
	opens = c.n_opens;
	shim_restart(&c.node[0], checkpoint);
	assert_true(vfs_db_is_retired(before));
	assert_int_equal(c.n_opens, opens); /* nobody is in a hurry */

	/* The writer is fenced; whatever it had goes. */
	assert_int_equal(shim_try(writer, "COMMIT"), WALRAFT_IOERR_FENCED);
	assert_non_null(strstr(vfs_error_text(writer), "ended during the transaction"));
	if (!sqlite3_get_autocommit(writer))
		shim_sql(writer, "ROLLBACK");
	assert_int_equal(rows(writer), 100);
	make_rows(writer, 3, 50);

	/* Those who were reading see what they saw, to the last page of it, also past a checkpoint; and no restart of the WAL takes their frames. */
	for (int i = 0; i < 3; i++) {
		struct wire_err err;
		bool restarted = false;

		make_rows(writer, 10 + i, 300);
		assert_int_equal(vfs_db_checkpoint(c.node[0].db, 0, &restarted, &err), WIRE_OK);
		assert_false(restarted);
	}
	assert_int_equal(rows(reader), 100);
	assert_int_equal(shim_int(reader, "SELECT sum(length(x)) FROM t"), 90000);
	while (sqlite3_step(st) == SQLITE_ROW)
		assert_int_equal(sqlite3_column_int(st, 0), ++n);
	assert_int_equal(n, 100);
	sqlite3_finalize(st);
	assert_int_equal(rows(deferred), 100);
	assert_int_equal(shim_try(deferred, "INSERT INTO t(w, i) VALUES(4, 1)"), SQLITE_BUSY_SNAPSHOT);
	shim_sql(deferred, "ROLLBACK; INSERT INTO t(w, i) VALUES(4, 1)");
	shim_sql(reader, "COMMIT");
	assert_int_equal(rows(reader), 1051);
	assert_int_equal(rows(idle), 1051);
	shim_sql(idle, "INSERT INTO t(w, i) VALUES(5, 1)");
	assert_int_equal(rows(cursor), 1052);

	/* All have gone over: the first object has only the reference of this test, and one that comes now finds the second. */
	assert_int_equal(vfs_db_connections(before), 1);
	fresh = shim_open(&c.node[0], NULL);
	assert_int_equal(vfs_db_connections(c.node[0].db), 6);
	vfs_db_unref(before);
	sqlite3_close(fresh);
	sqlite3_close(reader);
	sqlite3_close(writer);
	sqlite3_close(idle);
	sqlite3_close(deferred);
	sqlite3_close(cursor);
	shim_check(&c.node[0]);
	shim_cluster_free(&c);
}

static void test_closed_beneath(void **state)
{
	(void)state;
	all_kinds(false);
}

static void test_checkpointed_beneath(void **state)
{
	(void)state;
	all_kinds(true);
}

/* A connection that is closed without having gone over, in each of its states. */
static void test_close_without_change(void **state)
{
	struct shim_cluster c;
	sqlite3 *db[4];

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	for (int i = 0; i < 4; i++)
		db[i] = shim_open(&c.node[0], NULL);
	shim_sql(db[1], "BEGIN");
	rows(db[1]);
	shim_sql(db[2], "BEGIN IMMEDIATE");
	make_rows(db[2], 1, 10);
	rows(db[3]);
	shim_restart(&c.node[0], false);
	for (int i = 0; i < 4; i++)
		assert_int_equal(sqlite3_close(db[i]), SQLITE_OK);
	shim_check(&c.node[0]);
	shim_cluster_free(&c);
}

/* ---- threads ---- */

#define WRITERS 4
#define PER_WRITER 150
#define RESTARTS 60

struct job { struct shim_cluster *c; uint32_t who; };
static atomic_uint writing;
static atomic_ulong reads, fenced, snapshots;

static void stop_here(sqlite3 *db, const char *what, int rc)
{
	fprintf(stderr, "%s: %d %s (%s)\n", what, rc, sqlite3_errmsg(db), vfs_error_text(db));
	abort();
}

static void end_transaction(sqlite3 *db)
{
	if (!sqlite3_get_autocommit(db))
		shim_sql(db, "ROLLBACK");
}

static void write_until_done(sqlite3 *db, uint32_t who, uint32_t i)
{
	const char *const begin[3] = { "", "BEGIN IMMEDIATE;", "BEGIN; SELECT sum(v) FROM a;" };
	char sql[400];
	int rc;

	snprintf(sql, sizeof sql, "%s UPDATE a SET v = v - 3 WHERE id = %u", begin[i % 3], i % 100 + 1);
	if (i % 3)
		snprintf(sql + strlen(sql), sizeof sql - strlen(sql), "; UPDATE b SET v = v + 3 WHERE id = %u; UPDATE counter SET n = n + 1; INSERT INTO t(x, w, i) VALUES(randomblob(%u), %u, %u); COMMIT",
		         (i + who) % 100 + 1, i % 7 ? 100 : 30000, who, i);
	else
		snprintf(sql, sizeof sql, "INSERT INTO t(x, w, i) VALUES(randomblob(200), %u, %u)", who, i);
	while ((rc = shim_try(db, sql)) != SQLITE_OK) {
		if (rc == WALRAFT_IOERR_FENCED)
			atomic_fetch_add(&fenced, 1);
		else if (rc == SQLITE_BUSY_SNAPSHOT || (rc == SQLITE_BUSY && i % 3 == 2)) /* it had read before */
			atomic_fetch_add(&snapshots, 1);
		else
			stop_here(db, sql, rc);
		end_transaction(db);
	}
}

static void *writer(void *arg)
{
	struct job *j = arg;
	sqlite3 *db = shim_open(&j->c->node[0], j->who % 2 ? "&walraft_read=stale" : NULL);

	for (uint32_t i = 0; i < PER_WRITER; i++)
		write_until_done(db, j->who, i);
	sqlite3_close(db);
	atomic_fetch_sub(&writing, 1);
	return NULL;
}

/* Odd ones hold each snapshot for a while, and look twice. */
static void *reader(void *arg)
{
	struct job *j = arg;
	sqlite3 *db = shim_open(&j->c->node[0], j->who & 2 ? "&walraft_read=stale" : NULL);
	int64_t last = 0;

	while (atomic_load(&writing) > 0) {
		int64_t n;

		shim_sql(db, "BEGIN");
		n = shim_int(db, "SELECT n FROM counter");
		if (shim_int(db, "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)") != WORLD_TOTAL || n < last)
			stop_here(db, "inconsistent read", 0);
		if (j->who & 1) {
			sqlite3_sleep(20);
			if (shim_int(db, "SELECT n FROM counter") != n || shim_int(db, "SELECT count(*) FROM t WHERE length(x) = 0") != 0)
				stop_here(db, "a snapshot that changes", 0);
		}
		shim_sql(db, "COMMIT");
		last = n;
		atomic_fetch_add(&reads, 1);
	}
	sqlite3_close(db);
	return NULL;
}

static void *restarter(void *arg)
{
	struct job *j = arg;

	for (uint32_t i = 0; i < RESTARTS && atomic_load(&writing) > 0; i++) {
		struct wire_err err;
		bool restarted;

		if (i % 3 == 0 && vfs_db_checkpoint(j->c->node[0].db, 50, &restarted, &err) != WIRE_OK) {
			fprintf(stderr, "%s\n", err.text);
			abort();
		}
		shim_restart(&j->c->node[0], i % 2);
		sqlite3_sleep(5);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct shim_cluster c;
	struct world stock = { .seed = 0 };
	struct job jobs[WRITERS + 5];
	pthread_t threads[WRITERS + 5];
	uint32_t n = 0;
	pid_t pid;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	snprintf(stock.dir, sizeof stock.dir, "%s", c.dir);
	snprintf(stock.replica, sizeof stock.replica, "%s", c.node[0].path);
	pid = world_start_reader(&stock);
	atomic_store(&writing, WRITERS);
	for (; n < WRITERS + 4; n++) {
		jobs[n] = (struct job){ &c, n };
		assert_int_equal(pthread_create(&threads[n], NULL, n < WRITERS ? writer : reader, &jobs[n]), 0);
	}
	jobs[n] = (struct job){ &c, n };
	assert_int_equal(pthread_create(&threads[n], NULL, restarter, &jobs[n]), 0);
	for (n++; n > 0;)
		pthread_join(threads[--n], NULL);
	printf("# %lu reads, %lu by a stock process, %lu fenced, %lu stale snapshots\n", atomic_load(&reads), (unsigned long)world_stop_reader(pid, &stock), atomic_load(&fenced),
	       atomic_load(&snapshots));
	assert_int_equal(vfs_db_connections(c.node[0].db), 0);
	db = shim_open(&c.node[0], NULL);
	assert_int_equal(rows(db), WRITERS * PER_WRITER);
	assert_int_equal(shim_int(db, "SELECT n FROM counter"), WRITERS * PER_WRITER * 2 / 3);
	sqlite3_close(db);
	shim_check(&c.node[0]);
	shim_cluster_free(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_closed_beneath), cmocka_unit_test(test_checkpointed_beneath), cmocka_unit_test(test_close_without_change),
		                            cmocka_unit_test(test_threads) };
	int status;

	if (world_main(argc, argv, &status))
		return status;
	world_init_sqlite();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
