/* Many connections and threads at once: writers with a busy timeout get no error, readers no inconsistent sum, while checkpoints restart the WAL, another node
 * follows, and stock processes read both databases. */
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
#include <time.h>

#define WRITERS 8
#define PER_WRITER 250
#define SCHEMA                                                                                                                                    \
	"CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE TABLE t(id INTEGER PRIMARY KEY, x, w, i);"  \
	"CREATE UNIQUE INDEX twi ON t(w, i); CREATE TABLE counter(n); INSERT INTO counter VALUES (0);"                                            \
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO a SELECT i, 1000 FROM n;"                      \
	"INSERT INTO b SELECT id, 0 FROM a;"

struct job { struct shim_cluster *c; struct shim_node *n; uint32_t who; const char *parameters; };
static atomic_uint writing;
static atomic_ulong reads, snapshots;

static void stop_here(sqlite3 *db, const char *what, int rc)
{
	fprintf(stderr, "%s: %d %s (%s)\n", what, rc, sqlite3_errmsg(db), vfs_error_text(db));
	abort();
}

static void write_one(sqlite3 *db, uint32_t who, uint32_t i)
{
	char sql[400];
	int rc;

	switch (i % 3) {
	case 0:
		snprintf(sql, sizeof sql, "INSERT INTO t(x, w, i) VALUES(randomblob(200), %u, %u)", who, i);
		rc = shim_try(db, sql);
		break;
	case 1:
		snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; UPDATE a SET v = v - 3 WHERE id = %u; UPDATE b SET v = v + 3 WHERE id = %u;"
		         "UPDATE counter SET n = n + 1; INSERT INTO t(x, w, i) VALUES(1, %u, %u); COMMIT", i % 100 + 1, (i + who) % 100 + 1, who, i);
		rc = shim_try(db, sql);
		break;
	default: /* reads first: others may write in between, then it has to begin again */
		snprintf(sql, sizeof sql, "BEGIN; SELECT sum(v) FROM a; INSERT INTO t(x, w, i) VALUES(2, %u, %u); COMMIT", who, i);
		rc = shim_try(db, sql);
		if (rc == SQLITE_BUSY_SNAPSHOT || rc == SQLITE_BUSY) {
			atomic_fetch_add(&snapshots, 1);
			shim_sql(db, "ROLLBACK");
			snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; SELECT sum(v) FROM a; INSERT INTO t(x, w, i) VALUES(2, %u, %u); COMMIT", who, i);
			rc = shim_try(db, sql);
		}
	}
	if (rc != SQLITE_OK)
		stop_here(db, sql, rc);
}

static void *writer(void *arg)
{
	struct job *j = arg;
	sqlite3 *db = shim_open(j->n, j->parameters);

	for (uint32_t i = 0; i < PER_WRITER; i++)
		write_one(db, j->who, i);
	sqlite3_close(db);
	atomic_fetch_sub(&writing, 1);
	return NULL;
}

static void *reader(void *arg)
{
	struct job *j = arg;
	sqlite3 *db = shim_open(j->n, j->parameters);
	int64_t last = 0;

	while (atomic_load(&writing) > 0) {
		int64_t n;

		shim_sql(db, "BEGIN");
		n = shim_int(db, "SELECT n FROM counter");
		if (shim_int(db, "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)") != WORLD_TOTAL || n < last)
			stop_here(db, "inconsistent read", 0);
		shim_sql(db, "COMMIT");
		last = n;
		atomic_fetch_add(&reads, 1);
	}
	sqlite3_close(db);
	return NULL;
}

static void *checkpointer(void *arg)
{
	struct job *j = arg;

	while (atomic_load(&writing) > 0) {
		struct timespec t = { .tv_nsec = 5000000 };
		struct wire_err err;
		bool restarted;

		if (vfs_db_checkpoint(j->n->db, 200, &restarted, &err) != WIRE_OK) {
			fprintf(stderr, "%s\n", err.text);
			abort();
		}
		vfs_db_watchdog(j->n->db);
		nanosleep(&t, NULL);
	}
	return NULL;
}

static void *follower(void *arg)
{
	struct job *j = arg;

	while (atomic_load(&writing) > 0)
		shim_follow(j->n);
	return NULL;
}

static void test_threads(void **state)
{
	struct shim_cluster c;
	struct world stock[2] = { { .seed = 0 } };
	struct job jobs[WRITERS + 6];
	pthread_t threads[WRITERS + 6];
	pid_t pids[2];
	uint32_t n = 0;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 4096, SCHEMA);
	for (uint32_t i = 0; i < 2; i++) {
		snprintf(stock[i].dir, sizeof stock[i].dir, "%s", c.dir);
		snprintf(stock[i].replica, sizeof stock[i].replica, "%s", c.node[i].path);
	}
	pids[0] = world_start_reader(&stock[0]);
	atomic_store(&writing, WRITERS);
	for (; n < WRITERS; n++) {
		jobs[n] = (struct job){ &c, &c.node[0], n, n % 2 ? "&walraft_read=stale" : NULL };
		assert_int_equal(pthread_create(&threads[n], NULL, writer, &jobs[n]), 0);
	}
	for (uint32_t i = 0; i < 2; i++) {
		void *(*const what[3])(void *) = { reader, checkpointer, i ? follower : reader };

		for (uint32_t k = 0; k < 3; k++, n++) {
			jobs[n] = (struct job){ &c, &c.node[i], n, k ? "&walraft_read=stale" : NULL };
			assert_int_equal(pthread_create(&threads[n], NULL, what[k], &jobs[n]), 0);
		}
	}
	while (n > 0)
		pthread_join(threads[--n], NULL);
	shim_follow(&c.node[1]);
	printf("# %lu reads, %lu by a stock process, %lu stale snapshots, %lu and %lu restarts\n", atomic_load(&reads), (unsigned long)world_stop_reader(pids[0], &stock[0]),
	       atomic_load(&snapshots), (unsigned long)c.node[0].n_restarts, (unsigned long)c.node[1].n_restarts);
	assert_true(c.node[0].n_restarts > 1);
	for (uint32_t i = 0; i < 2; i++) {
		db = shim_open(&c.node[i], NULL);
		assert_int_equal(shim_int(db, "SELECT count(*) FROM t"), WRITERS * PER_WRITER);
		sqlite3_close(db);
		shim_check(&c.node[i]);
	}
	assert_int_equal(c.node[0].n_commits, WRITERS * PER_WRITER);
	shim_cluster_free(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };
	int status;

	if (world_main(argc, argv, &status))
		return status;
	world_init_sqlite();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
