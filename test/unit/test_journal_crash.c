/* What a journal is after it was cut, damaged, or lost what was not synced: the state of the model after some number of
 * operations. With segments of one size, and with growing ones.
 *
 * WALRAFT_SEED repeats the random part: WALRAFT_SEED=n test_journal_crash */
#include "test/unit/journal_model.h"
#include <stdio.h>
#include <string.h>

/* The next one is prepared, and the last records are not synced. */
static void journal_of_a_few_segments(struct model_world *w, const struct model_shape *shape)
{
	size_t segments = shape->opts.first_bytes ? 4 : 3;
	struct wire_err err;

	model_begin(w, shape);
	while (w->j->n_segs < segments || w->j->off < raft_jrn_current(w->j)->size / 8 * 5)
		model_act(w, false);
	model_sync(w);
	must(raft_journal_upkeep(w->j, &err), &err);
	model_entries(w, 3);
	model_publish(w);
	assert_non_null(w->j->next);
	assert_true(!shape->opts.first_bytes || w->j->next->size > w->j->segs[2]->size);
}

static void segment_path(uint64_t no, char path[64])
{
	snprintf(path, 64, "j/%016llu.seg", (unsigned long long)no);
}

static void test_every_cut(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	long cut_some = 0, rot = 0, holes = 0;

	model_random = 11;
	journal_of_a_few_segments(&w, shape);
	uint64_t synced = w.j->synced, said = w.j->synced_said, end = raft_jrn_pos(raft_jrn_current(w.j)->no, w.j->off);
	for (uint64_t no = 1; no <= raft_jrn_current(w.j)->no; no++) {
		uint32_t stop = no == raft_jrn_current(w.j)->no ? w.j->off : w.j->segs[no - 1]->size;
		for (uint32_t off = 0; off <= stop; off++) {
			struct disk *d = disk_copy(w.d);
			struct raft_journal_state st;
			struct raft_journal *j;
			struct wire_err err;
			char path[64];
			size_t size;

			segment_path(no, path);
			uint8_t *bytes = disk_bytes(d, path, &size);
			if (off % 2)
				disk_shorten(d, path, off);
			else
				memset(bytes + off, 0, size - off);
			int rc = raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err);
			/* The end of a full segment says nothing but where it ends: a cut in the zeros behind it is none. */
			if (raft_jrn_pos(no, off) >= synced)
				assert_int_equal(rc, WIRE_OK);
			if (rc) {
				assert_int_equal(rc, WIRE_CORRUPT);
				assert_non_null(strstr(err.text, ".seg"));
				rot++;
			} else {
				if (no < said >> 32) {
					assert_true(model_match_damaged(&w.m, &st));
					holes += st.n_holes > 0;
				} else {
					assert_true(model_match(&w.m, &st, raft_jrn_pos(no, off) >= synced ? w.m.synced : 0) >= 0);
					assert_int_equal(st.n_holes, 0);
				}
				if (raft_jrn_pos(no, off) == end)
					assert_int_equal(model_match(&w.m, &st, 0), w.m.n);
				model_check_data(j, &st);
				cut_some += st.cut_bytes > 0;
				model_check_goes_on(shape, d, j, &st);
			}
			disk_free(d);
		}
	}
	print_message("# cuts: %ld reported as rot, %ld left holes, %ld cut\n", rot, holes, cut_some);
	assert_true(cut_some > 100 && rot > 100 && holes > 100);
	model_drop(w.j);
	disk_free(w.d);
}

static void test_every_bit_flip(void **ctx)
{
	const struct model_shape *shape = *ctx;
	uint32_t stride = shape->opts.first_bytes ? 7 : 1;
	static struct model_world w;
	long rot = 0, cut = 0, holes = 0, harmless = 0;

	model_random = 12;
	journal_of_a_few_segments(&w, shape);
	uint64_t said = w.j->synced_said;
	for (uint64_t no = 1; no <= raft_jrn_current(w.j)->no; no++) {
		bool last = no == raft_jrn_current(w.j)->no;
		uint32_t stop = last ? w.j->off + 600 : w.j->segs[no - 1]->size;
		struct disk *d = disk_copy(w.d);
		for (uint32_t bit = 0; bit < stop * 8; bit += last ? stride : stride * 3) {
			struct raft_journal_state st;
			struct raft_journal *j;
			struct wire_err err;
			char path[64];
			size_t size;

			segment_path(no, path);
			disk_bytes(d, path, &size)[bit / 8] ^= (uint8_t)(1 << bit % 8);
			int rc = raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err);
			if (rc) {
				assert_int_equal(rc, WIRE_CORRUPT);
				assert_true(raft_jrn_pos(no, bit / 8) < said); /* never for what was not known durable */
				disk_bytes(d, path, &size)[bit / 8] ^= (uint8_t)(1 << bit % 8);
				rot++;
				continue;
			}
			bool durable = raft_jrn_pos(no, bit / 8) < said;
			long p = durable ? (long)w.m.n : model_match(&w.m, &st, w.m.synced);
			assert_true(durable ? model_match_damaged(&w.m, &st) : p >= 0);
			assert_true(st.n_holes <= durable);
			model_check_data(j, &st);
			if (st.n_holes) {
				holes++;
				model_fill(&w.m, j, &st);
				raft_journal_close(j);
				must(raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err), &err);
				assert_int_equal(st.n_holes, 0);
				assert_true(model_match_damaged(&w.m, &st));
				model_check_data(j, &st);
			} else if (p < (long)w.m.n) {
				cut++;
			} else {
				harmless++;
			}
			model_drop(j);
			disk_free(d);
			d = disk_copy(w.d); /* the cut changed it */
		}
		disk_free(d);
	}
	print_message("# bit flips: %ld reported as rot, %ld left a hole, %ld cut, %ld harmless\n", rot, holes, cut, harmless);
	assert_true(rot > 1000 / stride && holes > 5000 / stride && cut > 500 / stride);
	model_drop(w.j);
	disk_free(w.d);
}

/* Power losses in the middle of work: the journal always opens, and nothing durable is missing. */
static void test_lost_writes(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	uint64_t seed = model_seed();
	long crashes = 0, cuts = 0, trimmed = 0, grown = 0;

	for (uint64_t round = 0; round < 200; round++) {
		model_random = (seed * 1000 + round) * 0x9e3779b97f4a7c15u + 1;
		model_begin(&w, shape);
		uint32_t largest = 0;
		for (int life = 0; life < 12; life++) {
			struct raft_journal_state st;
			struct wire_err err;

			for (uint64_t n = model_rnd(120); n > 0; n--)
				model_act(&w, true);
			trimmed += raft_journal_base(w.j) > MODEL_BASE;
			grown += raft_jrn_current(w.j)->size > largest;
			largest = raft_jrn_current(w.j)->size;
			if (model_rnd(8) == 0) {
				raft_journal_close(w.j);
				w.m.synced = w.m.n;
			} else {
				model_drop(w.j);
			}
			for (int twice = 0; twice < 2; twice++) {
				disk_crash(w.d, model_rnd(1u << 30));
				crashes++;
				int rc = raft_journal_open(disk_env(w.d), "j", &shape->opts, &w.j, &st, &err);
				if (rc)
					fail_msg("seed %llu round %llu: %s", (unsigned long long)seed, (unsigned long long)round, err.text);
				long p = model_match(&w.m, &st, w.m.synced);
				if (p < 0)
					fail_msg("seed %llu round %llu: not a legal state", (unsigned long long)seed,
					         (unsigned long long)round);
				model_check_data(w.j, &st);
				cuts += st.cut_bytes > 0;
				model_go_back(&w, (size_t)p, &st);
				if (!twice && model_rnd(2))
					break;
				if (!twice)
					model_drop(w.j); /* a crash right after a recovery */
			}
		}
		model_drop(w.j);
		disk_free(w.d);
	}
	print_message("# %ld crashes, %ld with a torn tail, %ld with a trimmed journal, %ld after larger segments were begun\n", crashes,
	              cuts, trimmed, grown);
	assert_true(cuts > 50 && trimmed > 50 && (grown > 200) == (shape->opts.first_bytes > 0));
}

/* A segment that is trimmed before its end was synced: recovery may begin in it as long as its file is there. */
static void test_trim_before_sync(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static uint8_t data[900];

	for (uint64_t seed = 0; seed < 50; seed++) {
		struct disk *d = model_disk(shape);
		struct raft_journal_state st;
		struct raft_journal *j;
		struct wire_err err;

		must(raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err), &err);
		for (uint64_t i = 1; j->n_segs == 1; i++) {
			must(append(j, MODEL_BASE + i, 2, data, sizeof(data), &err), &err);
			if (j->n_segs == 1)
				must(raft_journal_sync(j, &err), &err);
		}
		uint64_t last = raft_jrn_log_last(&j->log);
		must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = last - 1 }, &err), &err);
		must(raft_journal_trim(j, last - 1, &err), &err);
		assert_int_equal(j->n_segs, 1);
		must(raft_journal_sync(j, &err), &err);
		must(append(j, last + 1, 2, data, sizeof(data), &err), &err);
		must(raft_journal_sync(j, &err), &err);
		model_drop(j);
		disk_crash(d, seed);
		must(raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err), &err);
		assert_int_equal(st.base_index, last - 1);
		assert_int_equal(st.n_entries, 2);
		model_drop(j);
		disk_free(d);
	}
}

/* Whatever a file that is prepared and not begun has for bytes, and however many: it holds nothing, and hides nothing. */
static void test_prepared_states(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_err err;
	char path[64], tmp[72];
	size_t size, older_size, whole;

	model_random = 13;
	journal_of_a_few_segments(&w, shape);
	segment_path(w.j->next->no, path);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	assert_non_null(disk_bytes(w.d, path, &whole));
	for (size_t step = 0; step <= whole / 32; step++) {
		struct disk *d = disk_copy(w.d);
		const struct wire_env *env = disk_env(d);
		if (step % 4 == 1)
			must(env->rename(env->ctx, path, tmp, &err), &err);
		disk_shorten(d, step % 4 == 1 ? tmp : path, step * 32);
		uint8_t *bytes = disk_bytes(d, step % 4 == 1 ? tmp : path, &size);
		const uint8_t *older = disk_bytes(d, "j/0000000000000001.seg", &older_size);
		if (step % 4 == 2)
			memset(bytes, (int)step, size);
		if (step % 4 == 3) /* none of these records is where it was written */
			memcpy(bytes, older, older_size < size ? older_size : size);
		must(raft_journal_open(env, "j", &shape->opts, &j, &st, &err), &err);
		assert_int_equal(st.cut_bytes, 0);
		assert_int_equal(model_match(&w.m, &st, w.m.n), w.m.n);
		assert_null(disk_bytes(d, tmp, &size));
		/* It is used if it is as large as one that would be prepared now; the rest is removed. */
		assert_int_equal(j->next != NULL, step == whole / 32 && step % 4 != 1);
		assert_int_equal(disk_files(d), j->n_segs + (j->next != NULL));
		model_check_data(j, &st);
		model_check_goes_on(shape, d, j, &st);
		disk_free(d);
	}
	model_drop(w.j);
	disk_free(w.d);
}

/* The power goes at each change that is made to the disk in turn, and sometimes again while the journal is opened. */
static void test_power_at_every_change(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	uint64_t seed = model_seed();
	struct raft_journal_state st;
	struct wire_err err;
	int changes = 0;

	for (bool more = true; more; changes++) {
		model_random = seed;
		model_begin(&w, shape);
		disk_cut_power(w.d, changes);
		for (int i = 0; i < 300 && !w.dead; i++)
			model_act(&w, true);
		more = w.dead;
		model_drop(w.j);
		model_random = seed + (uint64_t)changes;
		disk_crash(w.d, model_rnd(1u << 30));
		disk_cut_power(w.d, (int)model_rnd(12));
		int rc = raft_journal_open(disk_env(w.d), "j", &shape->opts, &w.j, &st, &err);
		if (!rc)
			model_drop(w.j);
		else
			assert_int_equal(rc, WIRE_IO);
		disk_crash(w.d, model_rnd(1u << 30));
		must(raft_journal_open(disk_env(w.d), "j", &shape->opts, &w.j, &st, &err), &err);
		long p = model_match(&w.m, &st, w.m.synced);
		if (p < 0)
			fail_msg("seed %llu, change %d: not a legal state", (unsigned long long)seed, changes);
		model_check_data(w.j, &st);
		model_go_back(&w, (size_t)p, &st);
		for (int i = 0; i < 30; i++)
			model_act(&w, true);
		raft_journal_close(w.j);
		must(raft_journal_open(disk_env(w.d), "j", &shape->opts, &w.j, &st, &err), &err);
		assert_int_equal(st.cut_bytes, 0);
		assert_int_equal(model_match(&w.m, &st, w.m.n), w.m.n);
		model_drop(w.j);
		disk_free(w.d);
	}
	print_message("# %d changes\n", changes);
	assert_true(changes > 100);
}

static void test_power_in_create(void **ctx)
{
	const struct model_shape *shape = *ctx;
	struct raft_config c = { .n = 1, .m = { { .id = 1, .flags = RAFT_VOTER, .url = "tcp://127.0.0.1:7401" } } };
	struct raft_journal_mark m = { .index = 4 };
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_err err;
	bool more = true;
	int changes;

	for (changes = 0; more; changes++) {
		struct disk *d = disk_new();
		disk_cut_power(d, changes);
		more = raft_journal_create(disk_env(d), "j", &shape->opts, 1, 4, 1, &c, &m, &err) != WIRE_OK;
		disk_crash(d, (uint64_t)changes * 7);
		int rc = raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err);
		if (rc) {
			assert_true(more);
			assert_int_equal(rc, WIRE_NOTFOUND);
			must(raft_journal_create(disk_env(d), "j", &shape->opts, 1, 4, 1, &c, &m, &err), &err);
			must(raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err), &err);
		}
		assert_int_equal(st.base_index, 4);
		assert_int_equal(disk_files(d), 1);
		assert_int_equal(disk_total(d), shape->opts.first_bytes ? shape->opts.first_bytes : shape->opts.segment_bytes);
		model_check_goes_on(shape, d, j, &st);
		disk_free(d);
	}
	assert_true(changes > 6);
}

#define OF(test, shape) { .name = #test ", " #shape, .test_func = test, .initial_state = (void *)&model_##shape }

int main(void)
{
	const struct CMUnitTest tests[] = {
		OF(test_every_cut, equal),
		OF(test_every_cut, growing),
		OF(test_every_bit_flip, equal),
		OF(test_every_bit_flip, growing),
		OF(test_prepared_states, equal),
		OF(test_prepared_states, growing),
		OF(test_trim_before_sync, equal),
		OF(test_trim_before_sync, growing),
		OF(test_power_in_create, equal),
		OF(test_power_in_create, growing),
		OF(test_power_at_every_change, equal),
		OF(test_power_at_every_change, growing),
		OF(test_power_at_every_change, steep),
		OF(test_lost_writes, equal),
		OF(test_lost_writes, growing),
		OF(test_lost_writes, steep),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
