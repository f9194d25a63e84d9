/* Memory that runs short while a journal is opened, looked at or salvaged: that is what is told, nothing on the disk has changed for the worse, and
 * the next try finds what it would have found before. Each allocation fails in turn. Linked so that malloc and its kin come to test/sim/memory.c. */
#include "test/unit/journal_damage.h"
#include "test/sim/memory.h"

/* The disk's own memory does not run short: its calls stand between memory_end and memory_begin. */
static const struct wire_env *real;
static struct wire_env env;
static bool ran_short;

static uint64_t pause_it(void)
{
	bool failed;
	uint64_t left = memory_end(&failed);

	ran_short |= failed;
	return left;
}

#define WITHOUT(call) \
	uint64_t left = pause_it(); \
	int rc = real->call; \
	memory_begin(left); \
	return rc

static int e_open(void *ctx, const char *path, int flags, struct wire_file **ret_file, struct wire_err *err)
{
	WITHOUT(open(ctx, path, flags, ret_file, err));
}

static int e_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	WITHOUT(write(ctx, f, src, n, at, err));
}

static int e_truncate(void *ctx, struct wire_file *f, uint64_t size, struct wire_err *err)
{
	WITHOUT(truncate(ctx, f, size, err));
}

static int e_rename(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	WITHOUT(rename(ctx, from, to, err));
}

static int e_rename_new(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	WITHOUT(rename_new(ctx, from, to, err));
}

static int e_unlink(void *ctx, const char *path, struct wire_err *err)
{
	WITHOUT(unlink(ctx, path, err));
}

static int e_sync_dir(void *ctx, const char *path, struct wire_err *err)
{
	WITHOUT(sync_dir(ctx, path, err));
}

static const struct wire_env *env_of(struct disk *d)
{
	real = disk_env(d);
	env = *real;
	env.open = e_open;
	env.write = e_write;
	env.truncate = e_truncate;
	env.rename = e_rename;
	env.rename_new = e_rename_new;
	env.unlink = e_unlink;
	env.sync_dir = e_sync_dir;
	return &env;
}

static bool short_of_memory(void)
{
	pause_it();
	return ran_short;
}

static void begin(uint64_t allocation)
{
	ran_short = false;
	memory_begin(allocation);
}

static bool same(const struct raft_journal_state *a, const struct raft_journal_state *b)
{
	bool same = a->term == b->term && a->vote == b->vote && a->base_index == b->base_index && a->n_entries == b->n_entries &&
	            a->n_configs == b->n_configs && a->base_config.n == b->base_config.n && a->commit == b->commit &&
	            a->mark.index == b->mark.index && a->n_publications == b->n_publications && a->n_holes == b->n_holes &&
	            a->forgetful == b->forgetful;

	for (size_t i = 0; same && i < a->n_configs; i++)
		same = a->configs[i].index == b->configs[i].index && a->configs[i].config.n == b->configs[i].config.n;
	for (size_t i = 0; same && i < a->n_holes; i++)
		same = a->holes[i] == b->holes[i];
	return same;
}

/* Opens it with each allocation failing in turn; how many there were. */
static uint64_t open_short(const struct model_shape *shape, struct disk *damaged, int want, const struct raft_journal_state *st)
{
	for (uint64_t k = 1;; k++) {
		struct disk *d = disk_copy(damaged);
		struct raft_journal_state found;
		struct raft_journal *j;
		struct wire_err err;
		begin(k);
		int rc = raft_journal_open(env_of(d), "j", &shape->opts, &j, &found, &err);
		bool was_short = short_of_memory();
		if (was_short && rc) {
			if (rc != WIRE_NOMEM)
				fail_msg("allocation %llu failed, and it said: %s", (unsigned long long)k, err.text);
			rc = raft_journal_open(disk_env(d), "j", &shape->opts, &j, &found, &err);
		}
		assert_int_equal(rc, want);
		if (!rc) {
			assert_true(same(&found, st));
			model_drop(j);
		}
		disk_free(d);
		if (!was_short)
			return k;
	}
}

static uint64_t salvage_short(const struct model_shape *shape, struct disk *damaged, const struct raft_journal_state *want)
{
	for (uint64_t k = 1;; k++) {
		struct disk *d = disk_copy(damaged);
		struct raft_journal_state found;
		struct raft_journal_remains a, b;
		struct wire_err err;
		must(raft_journal_examine(disk_env(d), "j", &shape->opts, &a, &err), &err);
		begin(k);
		int rc = raft_journal_examine(env_of(d), "j", &shape->opts, &b, &err);
		bool was_short = short_of_memory();
		assert_true(rc == WIRE_OK || (was_short && rc == WIRE_NOMEM));
		if (!rc)
			assert_true(a.term == b.term && a.log == b.log && a.last_index == b.last_index && a.n_holes == b.n_holes && a.config.n == b.config.n);
		begin(k);
		rc = raft_journal_salvage(env_of(d), "j", &shape->opts, start_at(MODEL_BASE), &err);
		was_short = short_of_memory();
		assert_true(rc == WIRE_OK || (was_short && rc == WIRE_NOMEM));
		if (rc) {
			struct raft_journal *j;
			/* Nothing has happened yet, or what has begun is finished. */
			rc = raft_journal_open(disk_env(d), "j", &shape->opts, &j, &found, &err);
			assert_true(rc == WIRE_OK || rc == WIRE_CORRUPT);
			if (!rc)
				model_drop(j);
			else
				must(raft_journal_salvage(disk_env(d), "j", &shape->opts, start_at(MODEL_BASE), &err), &err);
		}
		struct raft_journal *j = reopen(disk_env(d), "j", &shape->opts, &found);
		assert_true(same(&found, want));
		model_drop(j);
		disk_free(d);
		if (!was_short)
			return k;
	}
}

static void test_short_memory(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	long opened = 0, holes = 0, salvaged = 0;
	uint64_t tries = 0;

	model_random = 31;
	model_begin(&w, shape);
	while (w.j->n_segs < 4)
		model_act(&w, true);
	model_sync(&w);
	uint64_t last = raft_jrn_current(w.j)->no;
	raft_journal_close(w.j);
	for (uint64_t no = 1; no <= last; no++) {
		char path[64];
		size_t size;
		segment_path(no, path);
		if (!disk_bytes(w.d, path, &size))
			continue;
		for (size_t at = 3; at + 200 < size; at += 303) {
			struct disk *d = disk_copy(w.d), *c;
			struct raft_journal_state st = { 0 };
			struct raft_journal *j;
			memset(segment(d, no) + at, 0xee, at % 2 ? 20 : 200);
			c = disk_copy(d);
			int rc = open_it(c, &shape->opts, &j, &st);
			tries += open_short(shape, d, rc, &st);
			opened += !rc;
			holes += !rc && st.n_holes;
			if (rc) {
				j = salvage(c, &shape->opts, &st);
				tries += salvage_short(shape, d, &st);
				salvaged++;
			}
			model_drop(j);
			disk_free(c);
			disk_free(d);
		}
	}
	print_message("# %ld opened, %ld with holes, %ld salvaged; %llu allocations failed\n", opened, holes, salvaged, (unsigned long long)tries);
	assert_true(opened > 5 && holes > 5 && salvaged > 5);
	disk_free(w.d);
}

#define OF(test, shape) { .name = #test ", " #shape, .test_func = test, .initial_state = (void *)&model_##shape }

int main(void)
{
	const struct CMUnitTest tests[] = {
		OF(test_short_memory, equal),
		OF(test_short_memory, growing),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
