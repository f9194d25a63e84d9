/* Damage to what was durable: what is told apart, and holes and how they are filled. raft/JOURNAL.md, "Damage". */
#include "test/unit/journal_damage.h"

/* ---- holes, one by one ---- */

static struct wire_entry entry_of(uint64_t i, uint8_t data[100])
{
	memset(data, data_of(i), 100);
	return (struct wire_entry){ .index = i, .term = 3, .kind = WIRE_ENTRY_DATA, .size = 100, .sum = wire_hash(data, 100, 0), .data = data };
}

static void check_entry(struct raft_journal *j, uint64_t i)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;
	uint8_t data[100];

	must(raft_journal_read(j, i, &b, &e, &err), &err);
	assert_int_equal(e.size, 100);
	assert_memory_equal(e.data, entry_of(i, data).data, 100);
	wire_buf_free(&b);
}

/* Whole records are gone: their terms follow from their neighbours, and a later header tells that they were no configurations. */
static void test_lost_records(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_jrn_at at[101];
	struct raft_journal *j = with_entries(d, 100, at);
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[100];

	(void)ctx;
	must(raft_journal_append_commit(j, 100, &err), &err);
	raft_journal_close(j);
	assert_int_equal(at[5].seg, 1);
	assert_int_equal(at[8].seg, 1);
	memset(segment(d, 1) + at[5].off, 0, at[8].off - at[5].off);
	segment(d, at[40].seg)[at[40].off + 100] ^= 4;
	j = reopen(disk_env(d), "j", &small, &st);
	assert_int_equal(st.n_holes, 4);
	assert_int_equal(st.holes[0], 5);
	assert_int_equal(st.holes[2], 7);
	assert_int_equal(st.holes[3], 40);
	assert_int_equal(st.entries[5].size, 0);
	assert_int_equal(st.entries[5].term, 3);
	assert_int_equal(st.entries[39].size, 100);
	struct wire_entry e = entry_of(6, data);
	e.term = 4;
	assert_int_equal(raft_journal_fill(j, &e, &err), WIRE_INVALID);
	e.term = 3;
	e.sum++;
	assert_int_equal(raft_journal_fill(j, &e, &err), WIRE_INVALID);
	e = entry_of(41, data);
	e.index = 40; /* not what is missing, by its sum */
	assert_int_equal(raft_journal_fill(j, &e, &err), WIRE_INVALID);
	e = entry_of(9, data);
	assert_int_equal(raft_journal_fill(j, &e, &err), WIRE_INVALID);
	for (uint64_t i = 7; i >= 5; i -= 2) {
		e = entry_of(i, data);
		must(raft_journal_fill(j, &e, &err), &err);
		check_entry(j, i);
	}
	raft_journal_close(j);
	j = reopen(disk_env(d), "j", &small, &st);
	assert_int_equal(st.n_holes, 2);
	assert_int_equal(st.holes[0], 6);
	assert_int_equal(st.entries[4].size, 100);
	check_entry(j, 5);
	check_entry(j, 7);
	e = entry_of(6, data);
	must(raft_journal_fill(j, &e, &err), &err);
	e = entry_of(40, data);
	must(raft_journal_fill(j, &e, &err), &err);
	raft_journal_close(j);
	/* A fill may be damaged too. */
	j = reopen(disk_env(d), "j", &small, &st);
	assert_int_equal(st.n_holes, 0);
	struct raft_jrn_at filled = j->log.at[j->log.head + 5];
	must(append(j, 101, 3, data, 100, &err), &err);
	raft_journal_close(j);
	segment(d, filled.seg)[filled.off + 60] ^= 1;
	j = reopen(disk_env(d), "j", &small, &st);
	assert_int_equal(st.n_holes, 1);
	assert_int_equal(st.holes[0], 6);
	raft_journal_close(j);
	disk_free(d);
}

/* ---- configurations among what is lost ---- */

static struct raft_config members(uint32_t n)
{
	struct raft_config c = { .n = n };

	for (uint32_t i = 0; i < n; i++) {
		c.m[i].id = i + 1;
		c.m[i].flags = RAFT_VOTER;
		snprintf(c.m[i].url, sizeof(c.m[i].url), "tcp://127.0.0.1:%u", 7401 + i);
	}
	return c;
}

/* Entries 1 to 60: at 5 a second member comes, at 7 it goes; the others are data. Records say that all up to `commit` is committed. */
static struct disk *there_and_back(uint64_t commit, struct raft_jrn_at *at)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[100];

	create(disk_env(d), "j", &small, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &small, &st);
	for (uint64_t i = 1; i <= 60; i++) {
		struct wire_entry e = entry_of(i, data);
		struct wire_buf b = WIRE_BUF_INIT;
		struct raft_config c = members(i == 5 ? 2 : 1);
		if (i == 5 || i == 7) {
			raft_config_put(&c, &b);
			e = (struct wire_entry){ .index = i, .term = 3, .kind = WIRE_ENTRY_CONFIG, .size = (uint32_t)b.len, .sum = wire_hash(b.data, b.len, 0),
				                 .data = b.data };
		}
		must(raft_journal_append_entries(j, &e, 1, i - 1 < commit ? i - 1 : commit, &err), &err);
		at[i] = j->log.at[j->log.head + i - 1];
		if (i == 30)
			must(raft_journal_sync(j, &err), &err);
		wire_buf_free(&b);
	}
	raft_journal_close(j);
	return d;
}

static void lose(struct disk *d, const struct raft_jrn_at *at, uint64_t first, uint64_t last)
{
	assert_int_equal(at[first].seg, at[last + 1].seg);
	memset(segment(d, at[first].seg) + at[first].off, 0, at[last + 1].off - at[first].off);
}

/* A change of members and the way back are lost: the next header has the configuration that the log has without them. While the way back can be
 * superseded the change is not known, so the journal does not open. */
static void test_lost_there_and_back(void **ctx)
{
	struct raft_jrn_at at[61];
	struct raft_journal_state st;
	struct raft_journal *j;

	(void)ctx;
	for (uint64_t last = 6; last <= 10; last++) /* with 6 the way back can be read */
		for (uint64_t commit = 0; commit <= 12; commit++) {
			struct disk *d = there_and_back(commit, at);
			bool certain = commit >= 7 && commit >= (last == 6 ? 7 : last);
			lose(d, at, 5, last);
			int rc = open_it(d, &small, &j, &st);
			assert_int_equal(rc, certain ? WIRE_OK : WIRE_CORRUPT);
			if (rc) {
				j = salvage(d, &small, &st);
				assert_int_equal(st.base_index + st.n_entries, 4);
			} else {
				assert_int_equal(st.n_holes, last - 4);
				assert_int_equal(st.commit, commit);
			}
			raft_journal_close(j);
			disk_free(d);
		}
}

/* One lost entry may be anything: the header tells. */
static void test_one_lost(void **ctx)
{
	struct raft_jrn_at at[61];
	struct raft_journal_state st;
	struct raft_journal *j;

	(void)ctx;
	for (uint64_t i = 2; i <= 12; i++) {
		struct disk *d = there_and_back(0, at);
		lose(d, at, i, i);
		int rc = open_it(d, &small, &j, &st);
		/* Before 7, where two are members, a lost one is followed by a change whose undoing would tell what was in force; at 7 the header has another one. */
		assert_int_equal(rc, i <= 7 ? WIRE_CORRUPT : WIRE_OK);
		if (rc)
			j = salvage(d, &small, &st);
		raft_journal_close(j);
		disk_free(d);
	}
}

/* The way back is superseded, as the journal itself tells. */
static void test_back_is_superseded(void **ctx)
{
	struct raft_jrn_at at[61];
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[100];

	(void)ctx;
	for (uint64_t from = 5; from <= 9; from++)
		for (int more = 0; more < 2; more++) {
			struct disk *d = there_and_back(from - 1, at);
			struct raft_journal *j = reopen(disk_env(d), "j", &small, &st);
			must(raft_journal_append_truncate(j, from, &err), &err);
			memset(data, 9, sizeof(data));
			for (uint64_t i = from; more && i < 60; i++)
				must(append(j, i, 4, data, sizeof(data), &err), &err);
			raft_journal_close(j);
			lose(d, at, 5, 8);
			int rc = open_it(d, &small, &j, &st);
			if (!rc) {
				/* What is in force at its end is what was. */
				const struct raft_config *c = st.n_configs ? &st.configs[st.n_configs - 1].config : &st.base_config;
				assert_int_equal(c->n, from == 6 || from == 7 ? 2 : 1);
			} else {
				j = salvage(d, &small, &st);
				assert_int_equal(st.base_index + st.n_entries, 4);
			}
			raft_journal_close(j);
			disk_free(d);
		}
}

/* Filled holes and their fills, when what is around them is superseded, trimmed, and its segments used again. */
static void test_filled_then_gone(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_jrn_at at[101];
	struct raft_journal *j = with_entries(d, 60, at);
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[100];

	(void)ctx;
	raft_journal_close(j);
	for (uint64_t i = 10; i <= 50; i += 20)
		segment(d, at[i].seg)[at[i].off + 90] ^= 1;
	j = reopen(disk_env(d), "j", &small, &st);
	assert_int_equal(st.n_holes, 3);
	for (uint64_t i = 10; i <= 50; i += 40) {
		struct wire_entry e = entry_of(i, data);
		must(raft_journal_fill(j, &e, &err), &err);
	}
	must(raft_journal_append_truncate(j, 25, &err), &err); /* over one that was filled and one that was not */
	memset(data, 7, sizeof(data));
	for (uint64_t i = 25; i <= 55; i++)
		must(append(j, i, 4, data, 100, &err), &err);
	raft_journal_close(j);
	j = reopen(disk_env(d), "j", &small, &st);
	assert_int_equal(st.n_holes, 0);
	assert_int_equal(st.n_entries, 55);
	assert_int_equal(st.entries[29].term, 4);
	check_entry(j, 10);
	/* The segment that the hole was in goes, the one with the fill stays, then that goes too. */
	for (uint64_t i = 56; i <= 400; i++) {
		must(append(j, i, 4, data, 100, &err), &err);
		if (i % 40)
			continue;
		must(raft_journal_sync(j, &err), &err);
		must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = i - 10 }, &err), &err);
		must(raft_journal_trim(j, i - 30 > 9 && i < 100 ? 9 : i - 30, &err), &err);
		must(raft_journal_upkeep(j, &err), &err);
		if (raft_journal_base(j) < 10)
			check_entry(j, 10);
		uint64_t base = raft_journal_base(j);
		raft_journal_close(j);
		j = reopen(disk_env(d), "j", &small, &st);
		assert_int_equal(st.base_index, base);
		assert_int_equal(st.n_holes, 0);
		model_check_data(j, &st);
	}
	assert_true(raft_journal_base(j) > 300);
	raft_journal_close(j);
	disk_free(d);
}

/* A fill that is cut short was none. */
static void test_fill_at_every_cut(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_jrn_at at[21];
	struct raft_journal *j = with_entries(d, 20, at);
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[100];
	long holes = 0;

	(void)ctx;
	raft_journal_close(j);
	segment(d, at[9].seg)[at[9].off + 90] ^= 1;
	j = reopen(disk_env(d), "j", &small, &st);
	uint32_t from = j->off;
	struct wire_entry e = entry_of(9, data);
	must(raft_journal_fill(j, &e, &err), &err);
	check_entry(j, 9);
	uint64_t no = raft_jrn_current(j)->no;
	uint32_t to = j->off;
	assert_int_equal(to - from, raft_jrn_entry_bytes(100));
	model_drop(j);
	for (uint32_t cut = from; cut <= to; cut++) {
		struct disk *c = disk_copy(d);
		char path[64];
		size_t size;
		segment_path(no, path);
		uint8_t *p = disk_bytes(c, path, &size);
		memset(p + cut, 0, size - cut);
		j = reopen(disk_env(c), "j", &small, &st);
		holes += st.n_holes > 0;
		assert_int_equal(st.n_entries, 20);
		assert_int_equal(st.n_holes, st.cut_bytes || cut == from);
		if (!st.n_holes)
			check_entry(j, 9);
		e = entry_of(9, data);
		assert_int_equal(raft_journal_fill(j, &e, &err), st.n_holes ? WIRE_OK : WIRE_INVALID);
		raft_journal_close(j);
		j = reopen(disk_env(c), "j", &small, &st);
		assert_int_equal(st.n_holes, 0);
		check_entry(j, 9);
		raft_journal_close(j);
		disk_free(c);
	}
	assert_true(holes >= to - from - 4);
	disk_free(d);
}

/* A segment with a damaged header never becomes the oldest; but it may be the first one that is left, when a kill comes between the
 * removals after a later trim. */
static void test_trimmed_damage_is_first(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_jrn_at at[101];
	struct raft_journal *j = with_entries(d, 100, at);
	struct raft_journal_state st;
	struct wire_err err;
	uint64_t second = 1, fourth = 1;

	(void)ctx;
	while (at[second].seg < 2)
		second++;
	while (at[fourth].seg < 4)
		fourth++;
	must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = second }, &err), &err);
	must(raft_journal_trim(j, second, &err), &err);
	raft_journal_close(j);
	segment(d, 2)[20] ^= 1;
	j = reopen(env, "j", &small, &st);
	assert_int_equal(st.base_index, 0);
	raft_journal_close(j);
	struct disk *before = disk_copy(d);
	/* Without a later trim the second one is needed. */
	must(disk_env(before)->unlink(disk_env(before)->ctx, "j/0000000000000001.seg", &err), &err);
	assert_int_equal(open_it(before, &small, &j, &st), WIRE_CORRUPT);
	disk_free(before);
	j = reopen(env, "j", &small, &st);
	must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = fourth }, &err), &err);
	must(raft_journal_trim(j, fourth, &err), &err);
	raft_journal_close(j);
	must(env->unlink(env->ctx, "j/0000000000000001.seg", &err), &err);
	j = reopen(env, "j", &small, &st);
	assert_true(st.base_index >= second && st.base_index <= fourth);
	assert_int_equal(st.base_index + st.n_entries, 100);
	raft_journal_close(j);
	disk_free(d);
}

/* ---- votes ---- */

static struct raft_journal_state flip_and_open(struct disk *d, uint64_t no, uint32_t off, struct raft_journal **ret_j, int want)
{
	struct raft_journal_state st = { 0 };

	segment(d, no)[off] ^= 0x10;
	assert_int_equal(open_it(d, &small, ret_j, &st), want);
	return st;
}

/* A vote that nothing repeats may have been anything; one that a later one, or a header, makes up for is no loss. */
static void test_lost_vote(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_jrn_at at[101];
	struct raft_journal *j = with_entries(d, 5, at);
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[900] = { 0 };

	(void)ctx;
	uint32_t first = j->off;
	must(raft_journal_append_vote(j, 4, 7, &err), &err);
	must(append(j, 6, 4, data, 100, &err), &err);
	uint32_t second = j->off;
	must(raft_journal_append_vote(j, 6, 9, &err), &err);
	must(append(j, 7, 6, data, 100, &err), &err);
	raft_journal_close(j);

	struct disk *c = disk_copy(d);
	st = flip_and_open(c, 1, first + 40, &j, WIRE_OK);
	assert_int_equal(st.vote, 9);
	assert_int_equal(st.n_entries, 7);
	assert_int_equal(st.n_holes, 0);
	raft_journal_close(j);
	disk_free(c);

	c = disk_copy(d);
	flip_and_open(c, 1, second + 40, &j, WIRE_CORRUPT);
	j = salvage(c, &small, &st);
	assert_int_equal(st.n_entries, 7); /* the log is certain */
	assert_int_equal(st.term, 6);
	assert_int_equal(st.vote, 0);
	must(raft_journal_append_forgetful(j, false, &err), &err);
	raft_journal_close(j);
	j = reopen(disk_env(c), "j", &small, &st); /* the old damage is settled now */
	assert_false(st.forgetful);
	assert_int_equal(st.n_entries, 7);
	raft_journal_close(j);
	disk_free(c);

	j = reopen(disk_env(d), "j", &small, &st);
	for (uint64_t i = 8; j->n_segs == 1; i++)
		must(append(j, i, 6, data, 900, &err), &err);
	raft_journal_close(j);
	st = flip_and_open(d, 1, second + 40, &j, WIRE_OK);
	assert_int_equal(st.vote, 9);
	assert_int_equal(st.term, 6);
	raft_journal_close(j);
	disk_free(d);
}

static void test_forgetful_stays(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[900] = { 0 };

	(void)ctx;
	must(raft_journal_salvage(disk_env(d), "j", &small, start_at(4), &err), &err);
	struct raft_journal *j = reopen(disk_env(d), "j", &small, &st);
	assert_true(st.forgetful);
	assert_int_equal(st.base_config.n, 1);
	for (uint64_t i = 5; i < 40; i++) {
		must(append(j, i, 2, data, 900, &err), &err);
		if (i == 20)
			must(raft_journal_append_vote(j, 3, 0, &err), &err);
	}
	must(raft_journal_sync(j, &err), &err);
	must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = 30 }, &err), &err);
	must(raft_journal_trim(j, 30, &err), &err);
	raft_journal_close(j);
	j = reopen(disk_env(d), "j", &small, &st);
	assert_true(st.forgetful && st.base_index > 20 && st.term == 3);
	must(raft_journal_append_forgetful(j, false, &err), &err);
	raft_journal_close(j);
	j = reopen(disk_env(d), "j", &small, &st);
	assert_false(st.forgetful);
	raft_journal_close(j);
	assert_int_equal(raft_journal_salvage(disk_env(d), "j", &small, NULL, &err), WIRE_OK); /* of a sound one: all of it is kept */
	j = reopen(disk_env(d), "j", &small, &st);
	assert_true(st.forgetful);
	assert_int_equal(st.base_index + st.n_entries, 39);
	raft_journal_close(j);
	disk_free(d);
	d = disk_new();
	assert_int_equal(raft_journal_salvage(disk_env(d), "j", &small, NULL, &err), WIRE_NOTFOUND);
	disk_free(d);
}

static void test_older_format(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_err err;

	(void)ctx;
	create(disk_env(d), "j", &small, 0);
	uint8_t *p = segment(d, 1), place[24] = { 0 };
	wire_set_le32(p + 16, 1);
	wire_set_le64(place + 8, 1);
	wire_set_le64(p, wire_hash(p + 8, wire_le32(p + 24) - 8, wire_hash(place, sizeof(place), 1)));
	assert_int_equal(raft_journal_open(disk_env(d), "j", &small, &j, &st, &err), WIRE_VERSION);
	disk_free(d);
}

/* ---- events ---- */

static uint64_t told[RAFT_JOURNAL_EVENTS];

static void on_event(void *ctx, enum raft_journal_event event, uint64_t a, uint64_t b)
{
	(void)a, (void)b;
	assert_ptr_equal(ctx, told);
	told[event]++;
}

static void test_events(void **ctx)
{
	const struct raft_journal_opts opts = { .group = 7, .segment_bytes = 4096, .on_event = on_event, .event_ctx = told };
	struct disk *d = disk_new();
	struct raft_jrn_at at[101];
	struct raft_journal_state st;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;
	uint8_t data[100];

	(void)ctx;
	raft_journal_close(with_entries(d, 100, at));
	segment(d, at[9].seg)[at[9].off + 90] ^= 1;
	struct raft_journal *j = reopen(disk_env(d), "j", &opts, &st);
	must(raft_journal_read(j, 3, &b, &e, &err), &err);
	e = entry_of(9, data);
	must(raft_journal_fill(j, &e, &err), &err);
	must(raft_journal_append_truncate(j, 20, &err), &err);
	must(append(j, 20, 4, data, 100, &err), &err);
	must(raft_journal_sync(j, &err), &err);
	must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = 19 }, &err), &err);
	must(raft_journal_trim(j, 19, &err), &err);
	for (int i = 0; i < RAFT_JOURNAL_EVENTS; i++)
		if (!told[i])
			fail_msg("nothing told of %s", raft_journal_event_name((enum raft_journal_event)i));
	assert_int_equal(told[RAFT_JOURNAL_FILL], 1);
	raft_journal_close(j);
	wire_buf_free(&b);
	disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost_records),
		cmocka_unit_test(test_lost_there_and_back),
		cmocka_unit_test(test_one_lost),
		cmocka_unit_test(test_back_is_superseded),
		cmocka_unit_test(test_filled_then_gone),
		cmocka_unit_test(test_fill_at_every_cut),
		cmocka_unit_test(test_trimmed_damage_is_first),
		cmocka_unit_test(test_lost_vote),
		cmocka_unit_test(test_forgetful_stays),
		cmocka_unit_test(test_older_format),
		cmocka_unit_test(test_events),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
