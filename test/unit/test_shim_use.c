/* Opening, pragmas, reads, roles; what is refused, and how it says so. */
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
#include <sys/wait.h>
#include <unistd.h>

#define SCHEMA "CREATE TABLE t(id INTEGER PRIMARY KEY, x, y); CREATE INDEX ty ON t(y);"
#define FILL "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO t(x, y) SELECT randomblob(%d), i FROM n"

static void test_follower(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 4096, SCHEMA);
	db = shim_open(&c.node[1], NULL);
	assert_int_equal(shim_try(db, "INSERT INTO t(x) VALUES(0)"), WALRAFT_READONLY_NOT_LEADER);
	assert_non_null(strstr(vfs_error_text(db), "tcp://leader:1"));
	assert_int_equal(shim_try(db, "BEGIN IMMEDIATE"), WALRAFT_READONLY_NOT_LEADER);
	shim_sql(db, "BEGIN");
	assert_int_equal(shim_int(db, "SELECT count(*) FROM t"), 0);
	assert_int_equal(shim_try(db, "INSERT INTO t(x) VALUES(0)"), WALRAFT_READONLY_NOT_LEADER);
	assert_int_equal(shim_int(db, "SELECT count(*) FROM t"), 0); /* the transaction goes on */
	shim_sql(db, "ROLLBACK");
	shim_lead(&c, &c.node[1]);
	shim_sql(db, "INSERT INTO t(x) VALUES(0)");
	sqlite3_close(db);
	shim_cluster_free(&c);
}

static void test_gate(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;
	uint64_t n;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_int(db, "SELECT count(*) FROM t");
	n = c.node[0].n_gates;
	assert_true(n > 0);
	shim_int(db, "SELECT count(*) FROM t");
	assert_int_equal(c.node[0].n_gates, n + 1); /* each read, once */
	c.gate = WIRE_TIMEOUT;
	assert_int_equal(shim_try(db, "SELECT count(*) FROM t"), WALRAFT_IOERR_READ);
	assert_non_null(strstr(vfs_error_text(db), "no quorum"));
	shim_sql(db, "PRAGMA walraft_read = 'stale'");
	n = c.node[0].n_gates;
	shim_int(db, "SELECT count(*) FROM t");
	assert_int_equal(c.node[0].n_gates, n);
	shim_sql(db, "PRAGMA walraft_read = linearizable");
	assert_int_equal(shim_try(db, "SELECT count(*) FROM t"), WALRAFT_IOERR_READ);
	c.gate = WIRE_OK;
	shim_int(db, "SELECT count(*) FROM t");
	sqlite3_close(db);
	shim_cluster_free(&c);
}

static void publish_more(struct shim_cluster *c)
{
	shim_follow(&c->node[1]);
}

/* Where the write lock is another node's to give, a statement that writes needs no gate when it was given the lock while it waited for it; one that was on its way before the statement began tells nothing: it
 * may be over, and others have written since. */
static void test_gate_and_grant(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;
	uint64_t n;

	(void)state;
	shim_cluster_new(&c, 1, 4096, "CREATE TABLE t(a)");
	db = shim_open(&c.node[0], "");
	shim_sql(db, "INSERT INTO t VALUES (1)");
	vfs_db_set_writes_far(c.node[0].db, true);
	n = c.node[0].n_gates;
	shim_sql(db, "INSERT INTO t VALUES (2)");
	assert_int_equal(c.node[0].n_gates, n);
	c.old_grants = true;
	shim_sql(db, "INSERT INTO t VALUES (3)");
	assert_int_equal(c.node[0].n_gates, n + 1);
	shim_sql(db, "BEGIN IMMEDIATE; ROLLBACK");
	assert_int_equal(c.node[0].n_gates, n + 2);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* Entries that come in while the gate is passed are seen, and the gate is asked once for the whole read. */
static void test_gate_sees(void **state)
{
	struct shim_cluster c;
	sqlite3 *a, *b;
	uint64_t n;

	(void)state;
	shim_cluster_new(&c, 2, 4096, SCHEMA);
	a = shim_open(&c.node[0], NULL);
	b = shim_open(&c.node[1], NULL);
	for (int i = 1; i <= 20; i++) {
		shim_int(b, "SELECT count(*) FROM t");
		shim_sql(a, "INSERT INTO t(x) VALUES(0)");
		publish_more(&c);
		n = c.node[1].n_gates;
		assert_int_equal(shim_int(b, "SELECT count(*) FROM t"), i);
		assert_int_equal(c.node[1].n_gates, n + 1);
	}
	sqlite3_close(a);
	sqlite3_close(b);
	shim_cluster_free(&c);
}

static char *pragma_text(sqlite3 *db, const char *sql)
{
	static char text[200];
	sqlite3_stmt *st;

	text[0] = 0;
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
	if (sqlite3_step(st) == SQLITE_ROW)
		snprintf(text, sizeof text, "%s", (const char *)sqlite3_column_text(st, 0));
	sqlite3_finalize(st);
	return text;
}

static void refused(sqlite3 *db, const char *sql, const char *why)
{
	assert_int_not_equal(shim_try(db, sql), SQLITE_OK);
	if (!strstr(sqlite3_errmsg(db), why))
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
}

static void test_pragmas(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	db = shim_open(&c.node[0], "&walraft_read=stale&walraft_timeout=1234");
	assert_string_equal(pragma_text(db, "PRAGMA walraft_read"), "stale");
	assert_string_equal(pragma_text(db, "PRAGMA walraft_timeout"), "1234");
	shim_sql(db, "PRAGMA walraft_read = 'linearizable'; PRAGMA walraft_timeout = 77");
	assert_string_equal(pragma_text(db, "PRAGMA walraft_read"), "linearizable");
	assert_string_equal(pragma_text(db, "PRAGMA walraft_timeout"), "77");
	refused(db, "PRAGMA walraft_read = 'wrong'", "'wrong'");
	refused(db, "PRAGMA walraft_timeout = 0", "milliseconds");
	refused(db, "PRAGMA walraft_timeout = 'soon'", "milliseconds");
	refused(db, "PRAGMA journal_mode = delete", "stays in WAL mode");
	refused(db, "PRAGMA locking_mode = exclusive", "locking_mode");
	assert_string_equal(pragma_text(db, "PRAGMA journal_mode = wal"), "wal");
	assert_string_equal(pragma_text(db, "PRAGMA journal_mode"), "wal");
	assert_string_equal(pragma_text(db, "PRAGMA locking_mode"), "normal");
	assert_string_equal(pragma_text(db, "PRAGMA wal_checkpoint(TRUNCATE)"), "1");
	shim_sql(db, "INSERT INTO t(x) VALUES(1)");
	sqlite3_close(db);
	shim_cluster_free(&c);
}

static void open_refused(const char *path, const char *parameters, const char *why)
{
	char uri[256];
	sqlite3 *db;
	struct vfs_conn *k;

	snprintf(uri, sizeof uri, "file:%s?vfs=walraft%s", path, parameters);
	assert_int_equal(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL), SQLITE_OK);
	sqlite3_extended_result_codes(db, 1);
	k = vfs_conn_of(db);
	assert_non_null(k);
	assert_null(vfs_conn_db(k));
	assert_non_null(strstr(vfs_conn_open_error(k), why));
	assert_int_equal(shim_try(db, "SELECT * FROM sqlite_schema") & 0xff, SQLITE_CANTOPEN);
	assert_int_equal(shim_try(db, "CREATE TABLE u(x)") & 0xff, SQLITE_CANTOPEN);
	sqlite3_close(db);
}

static void test_opens(void **state)
{
	struct shim_cluster c;
	sqlite3 *db, *plain;
	char other[128];

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	snprintf(other, sizeof other, "%s/other.db", c.dir);
	open_refused(other, "", "walraft init");
	assert_int_not_equal(access(other, F_OK), 0);
	open_refused(c.node[0].path, "&immutable=1", "immutable");
	open_refused(c.node[0].path, "&nolock=1", "nolock");
	open_refused(c.node[0].path, "&walraft_read=wrong", "wrong");
	open_refused(c.node[0].path, "&walraft_timeout=-1", "milliseconds");
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, "INSERT INTO t(x) VALUES(1)");
	plain = shim_open(&c.node[0], "&mode=ro");
	assert_int_equal(shim_int(plain, "SELECT count(*) FROM t"), 1);
	assert_int_equal(shim_try(plain, "INSERT INTO t(x) VALUES(1)") & 0xff, SQLITE_READONLY);
	sqlite3_close(plain);
	shim_sql(db, "ATTACH ':memory:' AS m; CREATE TABLE m.u AS SELECT * FROM t; CREATE TEMP TABLE w(x); INSERT INTO w VALUES(1)");
	sqlite3_close(db);
	shim_cluster_free(&c);
}

static void test_two_databases(void **state)
{
	struct shim_cluster c;
	char sql[300];
	sqlite3 *db;

	(void)state;
	shim_cluster_new(&c, 2, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	snprintf(sql, sizeof sql, "ATTACH 'file:%s?vfs=walraft' AS other", c.node[1].path);
	assert_int_equal(shim_try(db, sql), SQLITE_OK);
	shim_sql(db, "INSERT INTO main.t(x) VALUES(1)");
	assert_int_equal(shim_int(db, "SELECT count(*) FROM other.t"), 0);
	shim_sql(db, "BEGIN; INSERT INTO main.t(x) VALUES(1)");
	assert_int_equal(shim_try(db, "INSERT INTO other.t(x) VALUES(1)"), WALRAFT_ERROR_TWO_DATABASES);
	shim_sql(db, "COMMIT");
	assert_int_equal(shim_int(db, "SELECT count(*) FROM main.t"), 2);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

static void test_fork(void **state)
{
	struct shim_cluster c;
	int status;
	sqlite3 *db;
	pid_t pid;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, "INSERT INTO t(x) VALUES(1)");
	pid = fork();
	if (pid == 0) {
		int bad = shim_try(db, "SELECT count(*) FROM t") != WALRAFT_IOERR_NODE;

		bad |= shim_try(db, "INSERT INTO t(x) VALUES(1)") != WALRAFT_IOERR_NODE;
		bad |= strstr(vfs_error_text(db), "fork") == NULL;
		bad |= sqlite3_close(db) != SQLITE_OK;
		_exit(bad);
	}
	assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	shim_sql(db, "INSERT INTO t(x) VALUES(1)"); /* the parent's locks are still there */
	assert_int_equal(world_stock(c.node[0].path, "INSERT INTO t(x) VALUES(1)", NULL, 0), SQLITE_BUSY);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

/* A page that went bad on this disk refuses the commit of its next version. */
static void test_bit_rot(void **state)
{
	struct shim_cluster c;
	sqlite3 *db;
	char byte = 0;
	int root;
	FILE *f;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA "INSERT INTO t(x, y) VALUES(zeroblob(1000), 1);");
	db = shim_open(&c.node[0], NULL);
	root = (int)shim_int(db, "SELECT rootpage FROM sqlite_schema WHERE name = 't'");
	f = fopen(c.node[0].path, "r+");
	assert_non_null(f);
	assert_int_equal(fseek(f, root * 4096 - 100, SEEK_SET), 0);
	assert_int_equal(fread(&byte, 1, 1, f), 1);
	byte ^= 1;
	assert_int_equal(fseek(f, root * 4096 - 100, SEEK_SET), 0);
	assert_int_equal(fwrite(&byte, 1, 1, f), 1);
	/* Not fclose: on this file it would drop the locks of the process. */
	fflush(f);
	assert_int_equal(shim_try(db, "INSERT INTO t(x) VALUES(1)"), WALRAFT_IOERR_NODE);
	assert_non_null(strstr(vfs_error_text(db), "bit rot"));
	assert_int_equal(c.n, 0);
	sqlite3_close(db);
	shim_cluster_free(&c);
	fclose(f);
}

static void test_node_connection(void **state)
{
	struct shim_cluster c;
	sqlite3 *db, *own;

	(void)state;
	shim_cluster_new(&c, 1, 4096, SCHEMA);
	db = shim_open(&c.node[0], NULL);
	shim_sql(db, FILL, 100, 100);
	vfs_thread_is_node(true);
	own = shim_open(&c.node[0], NULL);
	vfs_thread_is_node(false);
	c.gate = WIRE_TIMEOUT;
	assert_int_equal(shim_int(own, "SELECT count(*) FROM t"), 100);
	assert_string_equal(pragma_text(own, "PRAGMA wal_checkpoint(PASSIVE)"), "0");
	c.gate = WIRE_OK;
	sqlite3_close(own);
	shim_sql(db, FILL, 100, 100);
	assert_int_equal(world_stock(c.node[0].path, "INSERT INTO t(x) VALUES(1)", NULL, 0), SQLITE_BUSY);
	shim_check(&c.node[0]);
	sqlite3_close(db);
	shim_cluster_free(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follower),
		cmocka_unit_test(test_gate),
		cmocka_unit_test(test_gate_sees),
		cmocka_unit_test(test_gate_and_grant),
		cmocka_unit_test(test_pragmas),
		cmocka_unit_test(test_opens),
		cmocka_unit_test(test_two_databases),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_bit_rot),
		cmocka_unit_test(test_node_connection),
	};
	int status;

	if (world_main(argc, argv, &status))
		return status;
	world_init_sqlite();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
