/* Commits by connections of one node, and what of them comes out on another. */
#include "test/unit/db_world.h"
#include "test/unit/shim_host.h"
#include "wire/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA "CREATE TABLE t(id INTEGER PRIMARY KEY, x, y); CREATE INDEX ty ON t(y);"
#define FILL "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO t(x, y) SELECT randomblob(%d), i FROM n"

static void commits(uint32_t page_size)
{
	struct shim_cluster c;
	sqlite3 *a, *b, *f;
	char out[64];

	shim_cluster_new(&c, 2, page_size, SCHEMA);
	a = shim_open(&c.node[0], NULL);
	b = shim_open(&c.node[0], NULL);
	f = shim_open(&c.node[1], NULL);
	for (int i = 1; i <= 40; i++) {
		shim_sql(i % 2 ? a : b, "INSERT INTO t(x, y) VALUES(randomblob(%d), %d)", i * 50, i);
		assert_int_equal(shim_int(i % 2 ? b : a, "SELECT count(*) FROM t"), i);
		assert_true(vfs_conn_last_index(vfs_conn_of(i % 2 ? a : b)) == c.n);
	}
	shim_sql(a, "BEGIN; UPDATE t SET x = 1; DELETE FROM t WHERE id > 20; COMMIT");
	shim_sql(b, "BEGIN; UPDATE t SET x = 2; ROLLBACK");
	shim_sql(a, "BEGIN IMMEDIATE; COMMIT");
	assert_int_equal(shim_int(b, "SELECT sum(x) FROM t"), 20);
	shim_sql(a, FILL, 300, 100);
	shim_sql(a, "DELETE FROM t WHERE id %% 2; VACUUM");
	shim_same_state(&c);
	assert_int_equal(shim_int(f, "SELECT count(*) FROM t"), shim_int(a, "SELECT count(*) FROM t"));
	assert_int_equal(world_stock(c.node[0].path, "SELECT count(*) FROM t", out, sizeof out), SQLITE_OK);
	assert_int_equal(atoi(out), shim_int(a, "SELECT count(*) FROM t"));
	assert_int_equal(world_stock(c.node[0].path, "INSERT INTO t(x) VALUES(1)", NULL, 0), SQLITE_BUSY);
	shim_no_complaint(a);
	shim_no_complaint(b);
	shim_check(&c.node[0]);
	shim_check(&c.node[1]);
	sqlite3_close(a);
	sqlite3_close(b);
	sqlite3_close(f);
	shim_cluster_free(&c);
}

static void test_commits(void **state)
{
	(void)state;
	for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2)
		commits(page_size);
}

static void test_spilled(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, "PRAGMA cache_size = 10; PRAGMA synchronous = FULL");
	shim_sql(db, FILL, 2000, 500); /* spills; over a region of the wal-index, two chunks */
	assert_true(c.n >= 2);
	shim_sql(db, "BEGIN; UPDATE t SET x = randomblob(400) WHERE id < 500; UPDATE t SET x = randomblob(400) WHERE id < 500; COMMIT"); /* rewritten frames */
	shim_sql(db, "BEGIN; UPDATE t SET x = 1; SAVEPOINT s; UPDATE t SET x = randomblob(600), y = -id; ROLLBACK TO s; INSERT INTO t(x) VALUES(2); COMMIT");
	assert_int_equal(shim_int(db, "SELECT sum(x) FROM t"), 2002);
	assert_int_equal(shim_int(db, "SELECT count(*) FROM t WHERE y < 0"), 0);
	shim_sql(db, "BEGIN; UPDATE t SET x = randomblob(700); ROLLBACK");
	assert_int_equal(shim_int(db, "SELECT sum(x) FROM t"), 2002);
	shim_sql(db, FILL, 40000, 500); /* a temporary file, several regions and chunks */
	assert_true(c.largest < (2u << 20));
	shim_sql(db, "DELETE FROM t WHERE id > 1000; VACUUM");
	shim_no_complaint(db);
	shim_same_state(&c);
	shim_check(&c.node[0]);
	shim_check(&c.node[1]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* The last spilled bodies of a rolled back savepoint lie where the commit frame comes: they must not be taken for its body. */
static void test_savepoint_leftovers(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 1024, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, FILL, 500, 300);
	shim_sql(db, "PRAGMA cache_size = 5");
	for (int i = 1; i <= 60; i++) {
		shim_sql(db, "BEGIN; SAVEPOINT s; UPDATE t SET x = randomblob(300) WHERE id %% %d = 0; ROLLBACK TO s; UPDATE t SET y = y + 1 WHERE id = %d; COMMIT", i % 7 + 1, i);
		assert_int_equal(shim_int(db, "SELECT y FROM t WHERE id = %d", i), i + 1);
		shim_same_state(&c);
	}
	shim_no_complaint(db);
	shim_check(&c.node[1]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* SQLite 3.40 loses track of the frames whose checksums it has to rewrite, when a savepoint is rolled back to before them. */
static void test_forgotten_checksums(void **state)
{
	struct shim_cluster c;
	char sql[128], out[64];
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 1024, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, FILL, 400, 700);
	shim_sql(db, "PRAGMA cache_size = 5");
	for (int i = 0; i < 8; i++) {
		/* What is rewritten are new pages, which a rollback does not bring back: the transaction then ends before their frames, or beyond. */
		static const int rows[] = { 1, 3, 8, 20, 50, 100, 200, 399 };

		shim_sql(db, "BEGIN; SAVEPOINT s; " FILL, 100, 700);
		shim_sql(db, "UPDATE t SET x = randomblob(700) WHERE id > 410; ROLLBACK TO s");
		shim_sql(db, "UPDATE t SET x = zeroblob(700 - %d) WHERE id <= %d; COMMIT", i, rows[i]);
		shim_same_state(&c);
		assert_int_equal(shim_int(db, "SELECT count(*) FROM t WHERE x = zeroblob(700 - %d)", i), rows[i]);
		snprintf(sql, sizeof sql, "SELECT count(*) FROM t WHERE x = zeroblob(700 - %d)", i);
		assert_int_equal(world_stock(c.node[0].path, sql, out, sizeof out), SQLITE_OK);
		assert_int_equal(atoi(out), rows[i]);
	}
	shim_no_complaint(db);
	shim_check(&c.node[0]);
	shim_check(&c.node[1]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* Leadership goes between the chunks of a transaction. */
static void test_lost_chunks(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, "INSERT INTO t(x) VALUES(1)");
	for (uint32_t left = 1; left <= 4; left++) {
		c.proposals_left = left;
		shim_sql(db, "BEGIN; " FILL, 9000, 400);
		assert_int_equal(shim_try(db, "COMMIT"), WALRAFT_IOERR_FENCED);
		assert_int_equal(shim_int(db, "SELECT count(*) FROM t"), left);
		shim_lead(&c, &c.node[0]);
		shim_sql(db, "INSERT INTO t(x) VALUES(1)");
		shim_same_state(&c);
	}
	shim_check(&c.node[0]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* Commits that shrink the database, that change no byte of any page, that replace it as a whole, and big rows. */
static void test_odd_commits(void **state)
{
	struct shim_cluster c;
	sqlite3 *db, *mem, *shared;
	sqlite3_backup *backup;
	char uri[200];
	int64_t n;

	(void)state;
	shim_cluster_new(&c, 2, 1024, "PRAGMA auto_vacuum = 1; VACUUM; " SCHEMA);
	db = shim_open(&c.node[0], NULL);
	for (int i = 1; i <= 10; i++) {
		shim_sql(db, FILL, 200, 900);
		shim_sql(db, "UPDATE t SET y = y WHERE id = 1");
		shim_sql(db, "DELETE FROM t WHERE id %% %d", i);
		shim_same_state(&c);
	}
	n = (int64_t)c.n;
	shim_sql(db, "UPDATE t SET y = y + 0");
	assert_int_equal((int64_t)c.n, n + 1); /* its frames are published, so it is an entry */
	shim_sql(db, "INSERT INTO t(x) VALUES(randomblob(3000000)); DELETE FROM t WHERE length(x) = 3000000");
	shim_same_state(&c);

	assert_int_equal(sqlite3_open(":memory:", &mem), SQLITE_OK);
	shim_sql(mem, "PRAGMA page_size = 1024; CREATE TABLE u(x); INSERT INTO u VALUES(randomblob(5000)), (2), (3)");
	backup = sqlite3_backup_init(db, "main", mem, "main");
	assert_non_null(backup);
	assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
	assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
	sqlite3_close(mem);
	assert_int_equal(shim_int(db, "SELECT count(*) FROM u"), 3);
	shim_same_state(&c);

	snprintf(uri, sizeof uri, "file:%s?vfs=walraft&cache=shared", c.node[0].path);
	assert_int_equal(sqlite3_open_v2(uri, &shared, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL), SQLITE_OK);
	shim_sql(shared, "INSERT INTO u VALUES(4)");
	assert_int_equal(shim_int(db, "SELECT count(*) FROM u"), 4);
	sqlite3_close(shared);
	shim_no_complaint(db);
	shim_same_state(&c);
	shim_check(&c.node[0]);
	shim_check(&c.node[1]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* Committed by all, but this node cannot show it. */
static void test_failed_publication(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, "INSERT INTO t(x) VALUES(1)");
	c.fail_publication = true;
	assert_int_equal(shim_try(db, "INSERT INTO t(x) VALUES(2)"), WALRAFT_IOERR_UNKNOWN);
	assert_non_null(strstr(vfs_error_text(db), "disk is full"));
	assert_int_equal(shim_int(db, "SELECT count(*) FROM t"), 1);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

static void test_failed_commits(void **state)
{
	static const struct { int outcome, code; } cases[] = {
		{ WIRE_LOST, WALRAFT_IOERR_NOT_COMMITTED },   { WIRE_BUSY, WALRAFT_IOERR_NOT_COMMITTED }, { WIRE_FENCED, WALRAFT_IOERR_FENCED },
		{ WIRE_NOTLEADER, WALRAFT_IOERR_FENCED },     { WIRE_UNKNOWN, WALRAFT_IOERR_UNKNOWN },   { WIRE_CLOSED, WALRAFT_IOERR_NOT_COMMITTED },
		{ WIRE_TIMEOUT, WALRAFT_IOERR_NOT_COMMITTED },
	};
	struct shim_cluster c;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, "INSERT INTO t(x) VALUES(0)");
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (int explicit = 0; explicit < 2; explicit ++) {
			int64_t before = shim_int(db, "SELECT count(*) FROM t"), after;

			c.outcome = cases[i].outcome;
			if (explicit) {
				shim_sql(db, "BEGIN; INSERT INTO t(x, y) SELECT randomblob(3000), id FROM t");
				assert_int_equal(shim_try(db, "COMMIT"), cases[i].code);
				assert_int_equal(sqlite3_get_autocommit(db), 1);
			} else {
				assert_int_equal(shim_try(db, "INSERT INTO t(x) VALUES(1)"), cases[i].code);
			}
			assert_string_not_equal(vfs_error_text(db), "");
			c.outcome = WIRE_OK;
			assert_int_equal(shim_int(db, "SELECT count(*) FROM t"), before);
			shim_follow(&c.node[0]); /* what was unknown turns out committed */
			after = shim_int(db, "SELECT count(*) FROM t");
			assert_true(cases[i].outcome == WIRE_UNKNOWN ? after > before : after == before);
			shim_sql(db, "INSERT INTO t(x) VALUES(2)");
			assert_int_equal(shim_int(db, "SELECT count(*) FROM t"), after + 1);
		}
	}
	shim_same_state(&c);
	shim_check(&c.node[0]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* SELECTs that are open across commits and rollbacks of the same connection go on where they were. */
static void test_open_select(void **state)
{
	struct shim_cluster c;
	sqlite3_stmt *st;
	sqlite3 *db;
	int n = 0;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, FILL, 300, 500);
	shim_sql(db, "PRAGMA cache_size = 10");
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT id FROM t ORDER BY id", -1, &st, NULL), SQLITE_OK);
	while (sqlite3_step(st) == SQLITE_ROW) {
		n++;
		if (n % 3 == 0)
			shim_sql(db, "UPDATE t SET x = randomblob(400) WHERE id = %d", n);
		if (n % 50 == 0)
			shim_sql(db, "BEGIN; UPDATE t SET x = randomblob(450); COMMIT");
	}
	assert_int_equal(sqlite3_finalize(st), SQLITE_OK);
	assert_int_equal(n, 300);
	shim_no_complaint(db);
	shim_check(&c.node[0]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commits),
		cmocka_unit_test(test_spilled),
		cmocka_unit_test(test_savepoint_leftovers),
		cmocka_unit_test(test_forgotten_checksums),
		cmocka_unit_test(test_lost_chunks),
		cmocka_unit_test(test_odd_commits),
		cmocka_unit_test(test_failed_publication),
		cmocka_unit_test(test_failed_commits),
		cmocka_unit_test(test_open_select),
	};
	int status;

	if (world_main(argc, argv, &status))
		return status;
	world_init_sqlite();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
