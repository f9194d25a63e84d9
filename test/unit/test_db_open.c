/* Finding the position again: after a clean end, after kill -9, after stock processes, with and without the notes of publications. */
#include "test/unit/db_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint32_t seed = 1;

static void make_log(struct world *w, uint32_t page_size, int n)
{
	world_new(w, page_size, seed);
	for (int i = 0; i < n; i++)
		world_transaction(w);
}

static void checkpoint(struct vfs_db *db, uint32_t restart_frames)
{
	struct wire_err err = { 0 };

	if (vfs_db_checkpoint(db, restart_frames, NULL, &err) != WIRE_OK)
		fail_msg("checkpoint: %s", err.text);
}

static void forget_notes(struct world *w) { w->journal->n_known = 0; }

/* The state a node starts from may be that of any later entry without pages too. */
static void assert_position(struct world *w, struct vfs_db *db, uint64_t least, uint64_t want)
{
	uint64_t at = vfs_db_published(db);

	if (at < least || w->state[at].sum != w->state[want].sum)
		fail_msg("position %llu, should be as %llu and not below %llu", (unsigned long long)at, (unsigned long long)want, (unsigned long long)least);
	world_check(w, db);
}

static void test_reopen(void **state)
{
	struct world w;
	uint64_t at = 0;

	(void)state;
	make_log(&w, 4096, 300);
	while (at < w.n) {
		struct vfs_db *db = world_must_open(&w);

		assert_position(&w, db, w.journal->mark_index, at);
		at += 1 + world_random(&w, 30);
		at = at < w.n ? at : w.n;
		world_apply(&w, db, at);
		if (world_random(&w, 4) == 0)
			checkpoint(db, world_random(&w, 2) ? 1 : 100000);
		vfs_db_close(db);
		if (world_random(&w, 2))
			forget_notes(&w);
		if (world_random(&w, 3) == 0) /* recovers, checkpoints and deletes the WAL */
			assert_int_equal(world_stock(w.replica, "SELECT count(*) FROM t", NULL, 0), SQLITE_OK);
		if (world_random(&w, 5) == 0) {
			char shm[128];

			snprintf(shm, sizeof shm, "%s-shm", w.replica);
			unlink(shm);
		}
	}
	world_free(&w);
}

static void nap_us(long us) { nanosleep(&(struct timespec){ 0, us * 1000 }, NULL); }

/* A child publishes and is killed at any instant; what it left is opened here and by the next child. */
static void kill_rounds(uint32_t page_size, int n_tx, int rounds)
{
	struct world w;
	int kills = 0;

	setenv("WORLD_PATIENT", "1", 1);
	make_log(&w, page_size, n_tx);
	sqlite3_close(w.sql); /* nothing of SQLite's may be open over fork() */
	w.sql = NULL;
	for (int round = 0; round < rounds; round++) {
		uint64_t until = w.journal->n_known + world_random(&w, (uint32_t)(n_tx / rounds)) + 1;
		uint32_t how = world_random(&w, 8);
		pid_t reader = how == 7 ? world_start_reader(&w) : 0, pid = fork();
		int status = 0;

		if (pid == 0) {
			struct vfs_db *db = NULL;
			struct wire_err err;

			if (world_open(&w, &db, &err) != WIRE_OK)
				_exit(err.code == WIRE_BUSY ? 0 : 1);
			for (uint64_t at = vfs_db_published(db); at < w.n;) {
				at += at % 20 == 0 ? 6 : 1;
				if (vfs_db_apply(db, at < w.n ? at : w.n, world_read_entry, &w, &err) != WIRE_OK)
					_exit(2);
				if (at % 25 == 0 && vfs_db_checkpoint(db, 100, NULL, &err) != WIRE_OK)
					_exit(3);
			}
			_exit(0);
		}
		assert_true(pid > 0);
		while (__atomic_load_n(&w.journal->n_known, __ATOMIC_ACQUIRE) < until && waitpid(pid, &status, WNOHANG) == 0)
			nap_us(10);
		nap_us(world_random(&w, 200));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0); /* unless that was seen above */
		if (WIFEXITED(status))
			assert_int_equal(WEXITSTATUS(status), 0);
		else
			kills++;
		if (how < 2)
			forget_notes(&w);
		if (how % 3 == 1)
			assert_int_equal(world_stock(w.replica, "SELECT count(*) FROM t", NULL, 0), SQLITE_OK);
		struct vfs_db *db = world_must_open(&w);
		world_check(&w, db);
		vfs_db_close(db);
		if (reader)
			world_stop_reader(reader, &w);
	}
	struct vfs_db *db = world_must_open(&w);
	world_apply(&w, db, w.n);
	world_check(&w, db);
	vfs_db_close(db);
	printf("# %d of %d killed in the middle, %llu marks, %llu restarts\n", kills, rounds, (unsigned long long)w.journal->n_marks, (unsigned long long)w.journal->n_restarts);
	assert_true(kills > rounds / 3);
	unsetenv("WORLD_PATIENT");
	world_free(&w);
}

static void test_kill_4096(void **state) { (void)state; kill_rounds(4096, 1200, 40); }
static void test_kill_512(void **state) { (void)state; kill_rounds(512, 600, 20); }

static void assert_refused(struct world *w)
{
	struct vfs_db *db;
	struct wire_err err = { 0 };

	assert_int_equal(world_open(w, &db, &err), WIRE_CHANGED);
	assert_non_null(strstr(err.text, "changed outside walraft"));
	assert_non_null(strstr(err.text, w->replica));
}

static void foreign(const char *sql, bool with_notes)
{
	struct vfs_db *db;
	struct world w;

	make_log(&w, 4096, 60);
	db = world_must_open(&w);
	world_apply(&w, db, w.n / 2);
	checkpoint(db, 1);
	world_apply(&w, db, w.n - 5);
	vfs_db_close(db);
	if (!with_notes)
		forget_notes(&w);
	assert_int_equal(world_stock(w.replica, sql, NULL, 0), SQLITE_OK);
	assert_refused(&w);
	world_free(&w);
}

static void test_foreign_change(void **state)
{
	(void)state;
	foreign("UPDATE a SET v = v + 1 WHERE id = 50", true);
	foreign("UPDATE a SET v = v + 1 WHERE id = 50", false);
	foreign("INSERT INTO t(x) VALUES (randomblob(20000))", true);
	foreign("PRAGMA journal_mode = delete", true);
	foreign("DELETE FROM t; VACUUM", true);
}

/* A commit of walraft's whose note was lost, and one frame of which never reached the disk. */
static void test_cut_wal(void **state)
{
	struct vfs_db_status st;
	struct vfs_db *db;
	struct world w;
	char wal[128];

	(void)state;
	make_log(&w, 4096, 80);
	for (int cut = 0; cut < 6; cut++) {
		db = world_must_open(&w);
		uint64_t from = vfs_db_published(db);
		for (uint64_t i = from + 1; i <= from + 8; i++)
			world_apply(&w, db, i);
		vfs_db_status(db, &st);
		vfs_db_close(db);
		snprintf(wal, sizeof wal, "%s-wal", w.replica);
		assert_int_equal(truncate(wal, cut == 5 ? 10 : (off_t)vfs_frame_offset(4096, st.wal_frames - world_random(&w, 5)) + 100), 0);
		if (cut % 2)
			forget_notes(&w);
		db = world_must_open(&w);
		assert_true(vfs_db_published(db) < from + 8);
		world_check(&w, db);
		world_apply(&w, db, from + 8);
		world_check(&w, db);
		vfs_db_close(db);
	}
	world_free(&w);
}

/* A flush of the page table that no mark followed. */
static int refuse_mark(void *ctx, uint64_t index, uint64_t checksum, uint32_t db_pages, struct wire_err *err)
{
	(void)ctx;
	(void)index;
	(void)checksum;
	(void)db_pages;
	return wire_fail(err, WIRE_IO, "no mark");
}

static void test_flush_without_mark(void **state)
{
	struct vfs_db *db;
	struct wire_err err;
	struct world w;

	(void)state;
	make_log(&w, 4096, 200);
	for (uint64_t at = 20; at < w.n; at += 30) {
		db = world_must_open(&w);
		world_apply(&w, db, at);
		if (at % 60 == 20) {
			struct vfs_node_ops *ops = (struct vfs_node_ops *)(uintptr_t)vfs_db_ops_inside(db);

			ops->note_mark = refuse_mark;
			assert_int_equal(vfs_db_checkpoint(db, 1, NULL, &err), WIRE_IO);
		} else {
			checkpoint(db, 1);
		}
		vfs_db_close(db);
		if (at % 90 == 20)
			forget_notes(&w);
		db = world_must_open(&w);
		assert_position(&w, db, w.journal->mark_index, at);
		vfs_db_close(db);
	}
	world_free(&w);
}

static void test_busy(void **state)
{
	struct vfs_db *db, *second;
	struct wire_err err = { 0 };
	struct world w;

	(void)state;
	make_log(&w, 4096, 5);
	db = world_must_open(&w);
	assert_int_equal(world_open(&w, &second, &err), WIRE_BUSY);
	assert_non_null(strstr(err.text, "another walraft node"));
	assert_int_equal(world_stock(w.replica, "BEGIN IMMEDIATE", NULL, 0), SQLITE_BUSY);
	assert_int_equal(world_stock(w.replica, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, 0), SQLITE_OK);
	world_apply(&w, db, w.n);
	world_check(&w, db);
	vfs_db_close(db);
	/* Both refusals left nothing behind. */
	db = world_must_open(&w);
	world_check(&w, db);
	vfs_db_close(db);
	unlink(w.replica);
	assert_int_equal(world_open(&w, &db, &err), WIRE_NOTFOUND);
	world_free(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reopen),         cmocka_unit_test(test_kill_4096), cmocka_unit_test(test_kill_512),
		cmocka_unit_test(test_foreign_change), cmocka_unit_test(test_cut_wal),   cmocka_unit_test(test_flush_without_mark),
		cmocka_unit_test(test_busy),
	};
	int status;

	if (world_main(argc, argv, &status))
		return status;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	if (getenv("WALRAFT_SEED"))
		seed = (uint32_t)strtoul(getenv("WALRAFT_SEED"), NULL, 10);
	printf("# WALRAFT_SEED=%u %s\n", seed, argv[0]);
	fflush(stdout);
	world_init_sqlite();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
