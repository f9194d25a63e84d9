/* A connection idles in a write transaction, with changes in its cache, spilled, rewritten, under savepoints, while its node loses leadership and others' entries are
 * published beneath it. Whether it then rolls back or commits into the fence: nothing of it is anywhere, it reads what all read, and what it writes next is right. */
#include "test/unit/db_world.h"
#include "test/unit/shim_host.h"
#include "wire/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SCHEMA                                                                                                                                   \
	"CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE TABLE t(id INTEGER PRIMARY KEY, x);"       \
	"CREATE INDEX tx ON t(length(x)); CREATE TABLE counter(n); INSERT INTO counter VALUES (0);"                                              \
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO a SELECT i, 1000 FROM n;"                     \
	"INSERT INTO b SELECT id, 0 FROM a; INSERT INTO t(x) SELECT randomblob(300) FROM a, a LIMIT 600;"

static uint32_t seed;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % below;
}

/* Of all rows; *ret_rc instead when reading fails. */
static uint64_t digest(sqlite3 *db, int *ret_rc)
{
	sqlite3_stmt *st;
	uint64_t sum = 0;
	int rc = sqlite3_prepare_v2(db, "SELECT 1, id, v FROM a UNION ALL SELECT 2, id, v FROM b UNION ALL SELECT 3, id, x FROM t UNION ALL SELECT 4, n, 0 FROM counter", -1, &st, NULL);

	while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		uint64_t key = (uint64_t)sqlite3_column_int64(st, 0) << 56 ^ (uint64_t)sqlite3_column_int64(st, 1);
		const void *p = sqlite3_column_blob(st, 2);

		sum += wire_hash(p, (size_t)sqlite3_column_bytes(st, 2), key);
		rc = SQLITE_OK;
	}
	sqlite3_finalize(st);
	*ret_rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
	return sum;
}

static uint64_t must_digest(sqlite3 *db)
{
	int rc;
	uint64_t sum = digest(db, &rc);

	if (rc != SQLITE_OK)
		fail_msg("reading: %d %s (%s)", rc, sqlite3_errmsg(db), vfs_error_text(db));
	return sum;
}

/* One random change within a transaction. */
static int change(sqlite3 *db)
{
	char sql[256];

	switch (rnd(7)) {
	case 0: snprintf(sql, sizeof sql, "INSERT INTO t(x) VALUES(randomblob(%u))", rnd(9000) + 1); break;
	case 1: snprintf(sql, sizeof sql, "UPDATE t SET x = randomblob(%u) WHERE id %% %u = 0", rnd(600) + 1, rnd(9) + 1); break;
	case 2: snprintf(sql, sizeof sql, "DELETE FROM t WHERE id %% 11 = %u", rnd(11)); break;
	case 3: snprintf(sql, sizeof sql, "SAVEPOINT s; UPDATE t SET x = randomblob(%u); ROLLBACK TO s; RELEASE s", rnd(400) + 1); break;
	case 4: snprintf(sql, sizeof sql, "SAVEPOINT s; UPDATE t SET x = randomblob(100) WHERE id < %u; RELEASE s", rnd(400)); break;
	case 5: snprintf(sql, sizeof sql, "INSERT INTO t(x) SELECT randomblob(200) FROM a LIMIT %u", rnd(100)); break;
	default: {
		uint32_t n = rnd(30);
		snprintf(sql, sizeof sql, "UPDATE a SET v = v - %u WHERE id = %u; UPDATE b SET v = v + %u WHERE id = %u", n, rnd(100) + 1, n, rnd(100) + 1);
	}
	}
	return shim_try(db, sql);
}

static void transaction(sqlite3 *db)
{
	shim_sql(db, "BEGIN IMMEDIATE");
	shim_sql(db, "UPDATE counter SET n = n + 1");
	for (uint32_t i = rnd(4) + 1; i > 0; i--)
		assert_int_equal(change(db), SQLITE_OK);
	shim_sql(db, "COMMIT");
	if (rnd(40) == 0)
		shim_sql(db, "VACUUM");
}

static void checkpoint(struct shim_node *n, bool *ret_restarted)
{
	struct wire_err err;

	*ret_restarted = false;
	if (vfs_db_checkpoint(n->db, 50, ret_restarted, &err) != WIRE_OK)
		fail_msg("%s", err.text);
}

struct round { struct shim_cluster *c; struct shim_node *own, *next; sqlite3 *x, *y; };

static void leave_behind(struct round *r)
{
	uint64_t at_begin = must_digest(r->x);
	bool restarted;
	int rc = SQLITE_OK;

	shim_sql(r->x, "PRAGMA cache_size = %u", rnd(3) ? 8 : 2000);
	shim_sql(r->x, rnd(4) ? "BEGIN IMMEDIATE" : "BEGIN; SELECT count(*) FROM t; UPDATE counter SET n = n + 0");
	for (uint32_t i = rnd(6); i > 0; i--)
		assert_int_equal(change(r->x), SQLITE_OK);

	shim_lead(r->c, r->next);
	for (uint32_t i = rnd(5) + 1; i > 0; i--) {
		transaction(r->y);
		if (rnd(2))
			shim_follow(r->own);
	}
	shim_follow(r->own);
	if (rnd(4) == 0) {
		checkpoint(r->own, &restarted);
		assert_false(restarted); /* it would pull the WAL from under the transaction */
	}
	for (uint32_t i = rnd(4); i > 0 && rc == SQLITE_OK; i--)
		rc = change(r->x);
	if (rc == SQLITE_OK && rnd(2))
		digest(r->x, &rc);
	if (rc == SQLITE_OK && rnd(2) && sqlite3_get_autocommit(r->x) == 0) {
		rc = shim_try(r->x, "UPDATE counter SET n = n + 1; COMMIT");
		assert_int_not_equal(rc, SQLITE_OK);
	}
	if (rc != SQLITE_OK)
		assert_int_equal(rc, WALRAFT_IOERR_FENCED);
	if (sqlite3_get_autocommit(r->x) == 0)
		shim_sql(r->x, "ROLLBACK");
	assert_true(at_begin != must_digest(r->x));
}

static void run(uint32_t page_size, uint32_t rounds)
{
	struct shim_cluster c;
	struct world w = { 0 };
	struct round r = { .c = &c };
	sqlite3 *db[2];
	bool restarted;
	pid_t reader;

	shim_cluster_new(&c, 2, page_size, SCHEMA);
	strcpy(w.dir, c.dir);
	strcpy(w.replica, c.node[0].path);
	/* shim_check runs a second stock process beside it: each that closes holds PENDING for a moment, and the other's opening is told BUSY. So it is between
	 * stock processes on any database. */
	setenv("WORLD_PATIENT", "1", 1);
	reader = world_start_reader(&w);
	db[0] = shim_open(&c.node[0], NULL);
	db[1] = shim_open(&c.node[1], NULL);
	for (uint32_t i = 0; i < rounds; i++) {
		const uint32_t who = rnd(2);

		r.own = &c.node[who];
		r.next = &c.node[1 - who];
		r.x = db[who];
		r.y = db[1 - who];
		shim_lead(&c, r.own);
		if (rnd(3))
			transaction(r.x);
		if (rnd(4) == 0)
			checkpoint(r.own, &restarted);
		leave_behind(&r);
		assert_true(must_digest(r.x) == must_digest(r.y));
		shim_lead(&c, r.own);
		transaction(r.x);
		shim_follow(r.next);
		assert_true(must_digest(r.x) == must_digest(r.y));
		if (i % 40 == 39) {
			shim_check(&c.node[0]);
			shim_check(&c.node[1]);
		}
	}
	world_stop_reader(reader, &w);
	sqlite3_close(db[0]);
	sqlite3_close(db[1]);
	shim_cluster_free(&c);
}

static void test_small_pages(void **state) { (void)state; run(512, 60); }
static void test_usual_pages(void **state) { (void)state; run(4096, 120); }
static void test_large_pages(void **state) { (void)state; run(65536, 15); }

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_pages),
		cmocka_unit_test(test_usual_pages),
		cmocka_unit_test(test_large_pages),
	};
	const char *given = getenv("WALRAFT_SEED");
	int status;

	if (world_main(argc, argv, &status))
		return status;
	seed = given ? (uint32_t)strtoul(given, NULL, 0) : (uint32_t)time(NULL);
	printf("# WALRAFT_SEED=%" PRIu32 " %s\n", seed, argv[0]);
	fflush(stdout);
	world_init_sqlite();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
