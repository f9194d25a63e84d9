/* The journal under several threads, and on the real disk. */
#include "test/unit/journal_kit.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct raft_journal_opts growing = { .group = 7, .segment_bytes = 16 << 10, .first_bytes = 2 << 10 };

struct gate {
	atomic_int inside, open;
	struct raft_journal *j;
};

static void wait_at_gate(void *arg)
{
	struct gate *g = arg;

	atomic_fetch_add(&g->inside, 1);
	while (!atomic_load(&g->open))
		sched_yield();
}

static void *sync_thread(void *arg)
{
	struct gate *g = arg;
	struct wire_err err;

	return raft_journal_sync(g->j, &err) ? arg : NULL;
}

/* While one sync is under way others gather, and share the next; appends go on meanwhile. */
static void test_shared_sync(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct raft_journal_stats stats;
	struct gate g = { .open = 0 };
	pthread_t t[9];
	struct wire_err err;

	(void)ctx;
	create(disk_env(d), "j", &small, 0);
	g.j = reopen(disk_env(d), "j", &small, &st);
	must(append(g.j, 1, 3, "a", 1, &err), &err);
	disk_on_sync(d, wait_at_gate, &g);
	pthread_create(&t[0], NULL, sync_thread, &g);
	while (!atomic_load(&g.inside))
		sched_yield();
	must(append(g.j, 2, 3, "b", 1, &err), &err); /* does not wait for the sync */
	for (int i = 1; i < 9; i++)
		pthread_create(&t[i], NULL, sync_thread, &g);
	atomic_store(&g.open, 1);
	for (int i = 0; i < 9; i++) {
		void *failed;
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	raft_journal_stats(g.j, &stats);
	assert_int_equal(stats.syncs, 2);
	raft_journal_close(g.j);
	disk_free(d);
}

static void *upkeep_thread(void *arg)
{
	struct gate *g = arg;
	struct wire_err err;

	return raft_journal_upkeep(g->j, &err) ? arg : NULL;
}

static void *large_thread(void *arg)
{
	static const uint8_t data[8000];
	struct gate *g = arg;
	struct wire_err err;

	return append(g->j, 2, 3, data, sizeof(data), &err) ? arg : NULL;
}

/* An entry that is larger than the segment which upkeep is preparing waits for that one, and then makes its own. */
static void test_large_beside_upkeep(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct gate g = { .open = 0 };
	pthread_t t[2];
	struct wire_err err;
	uint8_t data[1000] = { 0 };

	(void)ctx;
	create(disk_env(d), "j", &growing, 0);
	g.j = reopen(disk_env(d), "j", &growing, &st);
	must(append(g.j, 1, 3, data, sizeof(data), &err), &err);
	disk_on_sync(d, wait_at_gate, &g);
	pthread_create(&t[0], NULL, upkeep_thread, &g);
	while (!atomic_load(&g.inside))
		sched_yield();
	pthread_create(&t[1], NULL, large_thread, &g);
	while (!pthread_mutex_trylock(&g.j->wmu)) { /* until the append has it */
		pthread_mutex_unlock(&g.j->wmu);
		sched_yield();
	}
	atomic_store(&g.open, 1);
	for (int i = 0; i < 2; i++) {
		void *failed;
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(disk_files(d), 2);
	assert_int_equal(raft_jrn_current(g.j)->size, 16 << 10);
	raft_journal_close(g.j);
	g.j = reopen(disk_env(d), "j", &growing, &st);
	assert_int_equal(st.n_entries, 2);
	raft_journal_close(g.j);
	disk_free(d);
}

struct crowd {
	struct raft_journal *j;
	atomic_int stop, trouble;
	atomic_ullong last;
};

static void *publisher(void *arg)
{
	struct crowd *c = arg;
	struct wire_err err;

	while (!atomic_load(&c->stop)) {
		uint64_t last = atomic_load(&c->last);
		struct raft_journal_publication p = { .mx_frame = 1, .index = last };
		if (last && (raft_journal_append_publication(c->j, &p, &err) || raft_journal_sync(c->j, &err)))
			atomic_store(&c->trouble, 1);
		sched_yield();
	}
	return NULL;
}

static void *reader(void *arg)
{
	struct crowd *c = arg;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;

	while (!atomic_load(&c->stop)) {
		uint64_t last = atomic_load(&c->last), index = raft_journal_base(c->j) + 1;
		for (; index <= last; index += 3) {
			int rc = raft_journal_read(c->j, index, &b, &e, &err);
			if (rc == WIRE_NOTFOUND)
				continue; /* trimmed meanwhile */
			if (rc || b.len != 200 || b.data[7] != (uint8_t)index)
				atomic_store(&c->trouble, 2);
		}
		if (raft_journal_upkeep(c->j, &err))
			atomic_store(&c->trouble, 3);
	}
	wire_buf_free(&b);
	return NULL;
}

static void test_crowd(void **ctx)
{
	const struct raft_journal_opts *opts = *ctx;
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct crowd c = { .stop = 0 };
	pthread_t t[4];
	struct wire_err err;
	uint8_t data[200];

	create(disk_env(d), "j", opts, 0);
	c.j = reopen(disk_env(d), "j", opts, &st);
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, i < 2 ? publisher : reader, &c);
	for (uint64_t i = 1; i <= 3000; i++) {
		memset(data, (int)i, sizeof(data));
		must(append(c.j, i, 3, data, sizeof(data), &err), &err);
		if (i % 10)
			continue;
		must(raft_journal_sync(c.j, &err), &err);
		atomic_store(&c.last, i);
		if (i % 100 == 0) {
			must(raft_journal_append_mark(c.j, &(struct raft_journal_mark){ .index = i - 20 }, &err), &err);
			must(raft_journal_trim(c.j, i - 40, &err), &err);
		}
	}
	atomic_store(&c.stop, 1);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&c.trouble), 0);
	raft_journal_close(c.j);
	c.j = reopen(disk_env(d), "j", opts, &st);
	assert_int_equal(st.base_index + st.n_entries, 3000);
	raft_journal_close(c.j);
	disk_free(d);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void test_on_disk(void **ctx)
{
	const struct wire_env *env = wire_env_posix();
	const struct raft_journal_opts opts = { .group = 1, .segment_bytes = 4u << 20 };
	struct raft_journal_state st;
	struct raft_journal_stats stats;
	struct wire_err err;
	struct wire_file *f;
	uint8_t data[300] = { 1 };
	char dir[] = "journal-test-XXXXXX", path[64], command[64];
	enum { N = 300 };

	(void)ctx;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/raw", dir);
	must(env->open(env->ctx, path, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &f, &err), &err);
	must(raft_jrn_zero(env, f, 0, 1u << 20, &err), &err);
	must(env->sync(env->ctx, f, &err), &err);
	double t0 = now_us();
	for (uint64_t i = 0; i < N; i++) {
		must(env->write(env->ctx, f, data, sizeof(data), i * 352, &err), &err);
		must(env->sync(env->ctx, f, &err), &err);
	}
	double raw = (now_us() - t0) / N;
	env->close(env->ctx, f);
	snprintf(path, sizeof(path), "%s/j", dir);
	create(env, path, &opts, 0);
	struct raft_journal *j = reopen(env, path, &opts, &st);
	t0 = now_us();
	for (uint64_t i = 1; i <= N; i++) {
		must(append(j, i, 3, data, sizeof(data), &err), &err);
		must(raft_journal_sync(j, &err), &err);
	}
	double ours = (now_us() - t0) / N;
	raft_journal_stats(j, &stats);
	print_message("# append of 300 bytes and sync: %.0f us; write and fdatasync alone: %.0f us; %.0f journal bytes an entry\n", ours,
	              raw, (double)stats.bytes_appended / N);
	assert_int_equal(stats.bytes_appended, N * 352);
	raft_journal_close(j);
	j = reopen(env, path, &opts, &st);
	assert_int_equal(st.n_entries, N);
	raft_journal_close(j);
	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_sync),
		cmocka_unit_test(test_large_beside_upkeep),
		{ .name = "test_crowd, segments of one size", .test_func = test_crowd, .initial_state = (void *)&small },
		{ .name = "test_crowd, growing segments", .test_func = test_crowd, .initial_state = (void *)&growing },
		cmocka_unit_test(test_on_disk),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
