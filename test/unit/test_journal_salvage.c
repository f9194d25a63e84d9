/* Journals that are damaged in any way: they open and nothing is missing, or they are salvaged, at every crash. raft/JOURNAL.md, "Damage" and "Salvage".
 *
 * WALRAFT_SEED repeats the random part: WALRAFT_SEED=n test_journal_salvage */
#include "test/unit/journal_damage.h"

static void test_salvage_after_every_flip(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	long salvaged = 0, nothing = 0, whole = 0;

	model_random = 21;
	model_begin(&w, shape);
	while (w.j->n_segs < 4)
		model_act(&w, true);
	model_sync(&w);
	raft_journal_close(w.j);
	for (uint64_t no = 1; no <= 4; no++) {
		char path[64];
		size_t size;
		segment_path(no, path);
		if (!disk_bytes(w.d, path, &size))
			continue;
		for (size_t at = 0; at < size; at += 3) {
			struct disk *d = disk_copy(w.d);
			struct raft_journal_state st;
			struct raft_journal *j;
			segment(d, no)[at] ^= (uint8_t)(1 << at % 8);
			if (open_it(d, &shape->opts, &j, &st) == WIRE_OK) {
				assert_true(model_match_damaged(&w.m, &st));
				model_drop(j);
			} else {
				j = salvage(d, &shape->opts, &st);
				salvaged++;
				nothing += st.n_entries == 0;
				whole += st.base_index + st.n_entries == w.s.last;
				assert_true(st.n_entries == 0 || model_match_salvaged(&w.m, &st));
				model_check_data(j, &st);
				model_check_goes_on(shape, d, j, &st);
			}
			disk_free(d);
		}
	}
	print_message("# %ld salvaged, %ld of them whole, %ld empty\n", salvaged, whole, nothing);
	assert_true(salvaged > 100 && whole > 10 && nothing > 10 && nothing < salvaged / 2);
	disk_free(w.d);
}

/* Several places of a journal at once, in any way: it opens and nothing is missing, or it can be salvaged. */
static void test_much_damage(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	uint64_t seed = model_seed();
	long opened = 0, holes = 0, salvaged = 0;

	for (uint64_t round = 0; round < 300; round++) {
		struct raft_journal_state st;
		struct raft_journal *j;
		model_random = (seed * 1000 + round) * 0x9e3779b97f4a7c15u + 1;
		model_begin(&w, shape);
		for (uint64_t n = model_rnd(400); n > 0; n--)
			model_act(&w, true);
		model_sync(&w);
		/* What is behind that place attests what is before it. */
		uint64_t first = w.j->segs[0]->no, n_segs = w.j->n_segs;
		uint32_t end = w.j->off;
		raft_journal_close(w.j);
		for (int life = 0; life < 4; life++) {
			for (uint64_t n = model_rnd(3) + 1; n > 0; n--) {
				char path[64];
				size_t size;
				uint64_t no = first + model_rnd(n_segs);
				segment_path(no, path);
				uint8_t *p = disk_bytes(w.d, path, &size);
				if (no == first + n_segs - 1)
					size = end;
				size_t at = (size_t)model_rnd(size), many = model_rnd(3) ? 1 : (size_t)model_rnd(600);
				for (size_t i = at; i < size && i < at + many; i++)
					p[i] ^= (uint8_t)(1 << model_rnd(8));
			}
			if (open_it(w.d, &shape->opts, &j, &st) != WIRE_OK) {
				j = salvage(w.d, &shape->opts, &st);
				if (st.n_entries && !model_match_salvaged(&w.m, &st))
					fail_msg("seed %llu round %llu: salvaged what never was", (unsigned long long)seed, (unsigned long long)round);
				salvaged++;
				model_check_goes_on(shape, w.d, j, &st);
				break;
			}
			opened++;
			holes += st.n_holes > 0;
			if (!model_match_damaged(&w.m, &st))
				fail_msg("seed %llu round %llu: not what it was", (unsigned long long)seed, (unsigned long long)round);
			model_check_data(j, &st);
			if (model_rnd(2))
				model_fill(&w.m, j, &st);
			raft_journal_close(j);
		}
		disk_free(w.d);
	}
	print_message("# %ld opened, %ld with holes, %ld salvaged\n", opened, holes, salvaged);
	assert_true(opened > 100 && holes > 50 && salvaged > 50);
}

/* The power goes at each change of a salvage in turn: then the journal is the damaged one still, or the salvaged one. */
static void crash_salvage(const struct model_shape *shape, struct disk *damaged, const struct raft_journal_state *want, bool missing)
{
	bool more = true;

	for (int changes = 0; more; changes++) {
		for (uint64_t seed = 0; seed < 3; seed++) {
			struct disk *d = disk_copy(damaged);
			struct raft_journal_state st;
			struct raft_journal *j;
			struct wire_err err;
			disk_cut_power(d, changes);
			more = raft_journal_salvage(disk_env(d), "j", &shape->opts, start_at(MODEL_BASE), &err) != WIRE_OK;
			disk_crash(d, seed * 1000 + (uint64_t)changes);
			disk_cut_power(d, (int)(seed * 7)); /* and again in what finishes it */
			int rc = raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err);
			if (!rc)
				model_drop(j);
			disk_crash(d, seed * 77 + (uint64_t)changes);
			rc = raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err);
			if (rc) {
				assert_true(more);
				assert_int_equal(rc, missing ? WIRE_NOTFOUND : WIRE_CORRUPT);
				must(raft_journal_salvage(disk_env(d), "j", &shape->opts, start_at(MODEL_BASE), &err), &err);
				j = reopen(disk_env(d), "j", &shape->opts, &st);
			}
			assert_true(st.forgetful);
			assert_int_equal(st.vote, 0);
			assert_int_equal(st.term, want->term);
			assert_int_equal(st.base_index, want->base_index);
			assert_int_equal(st.n_entries, want->n_entries);
			assert_int_equal(st.n_holes, want->n_holes);
			assert_int_equal(st.mark.index, want->mark.index);
			model_check_data(j, &st);
			model_check_goes_on(shape, d, j, &st);
			disk_free(d);
		}
	}
}

static void test_crash_in_salvage(void **ctx)
{
	const struct model_shape *shape = *ctx;
	static struct model_world w;
	int damages = 0;

	model_random = 22;
	model_begin(&w, shape);
	while (w.j->n_segs < 4)
		model_act(&w, false);
	model_sync(&w);
	uint64_t last = raft_jrn_current(w.j)->no;
	raft_journal_close(w.j);
	for (uint64_t no = 1; no <= last; no++)
		for (size_t at = no == 1 ? 3 : 515; at < 3000; at += 303) {
			struct disk *d = disk_copy(w.d), *c;
			struct raft_journal_state want;
			struct raft_journal *j;
			memset(segment(d, no) + at, 0xee, no == 1 ? 20 : 140);
			c = disk_copy(d);
			if (open_it(c, &shape->opts, &j, &want) == WIRE_OK) {
				model_drop(j);
			} else {
				j = salvage(c, &shape->opts, &want);
				crash_salvage(shape, d, &want, false);
				model_drop(j);
				damages++;
			}
			disk_free(c);
			disk_free(d);
		}
	assert_true(damages >= 4);
	disk_free(w.d);
	struct disk *none = disk_new();
	crash_salvage(shape, none, &(struct raft_journal_state){ .term = 2, .base_index = MODEL_BASE, .mark.index = MODEL_BASE }, true);
	disk_free(none);
}

/* Salvaged again and again: what is set aside does not grow without end. */
static void test_bad_files_are_few(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_jrn_at at[101];
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[900] = { 0 };

	(void)ctx;
	raft_journal_close(with_entries(d, 100, at));
	uint64_t index = 100;
	for (int turn = 0; turn < 6; turn++) {
		struct raft_journal *j;
		memset(segment(d, 2), 0xee, 4096);
		memset(segment(d, 3), 0xee, 4096);
		assert_int_equal(open_it(d, &small, &j, &st), WIRE_CORRUPT);
		j = salvage(d, &small, &st);
		index = st.base_index + st.n_entries;
		while (j->n_segs < 6)
			must(append(j, ++index, 3, data, 900, &err), &err);
		raft_journal_close(j);
		size_t bad = 0;
		for (size_t i = 0; i < disk_files(d); i++)
			bad += strstr(disk_name(d, i), ".bad") != NULL;
		assert_true(bad > 0 && bad <= 8);
	}
	disk_free(d);
}

#define OF(test, shape) { .name = #test ", " #shape, .test_func = test, .initial_state = (void *)&model_##shape }

int main(void)
{
	const struct CMUnitTest tests[] = {
		OF(test_salvage_after_every_flip, equal),
		OF(test_salvage_after_every_flip, growing),
		OF(test_much_damage, equal),
		OF(test_much_damage, growing),
		OF(test_crash_in_salvage, equal),
		OF(test_crash_in_salvage, growing),
		cmocka_unit_test(test_bad_files_are_few),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
