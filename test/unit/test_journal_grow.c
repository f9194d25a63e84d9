/* A journal that begins small: what it costs, how it grows, also over restarts, records larger than what is there, and what
 * becomes of the small files. */
#include "test/unit/journal_kit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KIB = 1 << 10, MIB = 1 << 20 };

static const struct raft_journal_opts real = { .group = 7, .first_bytes = 128 * KIB };
static const struct raft_journal_opts tiny = { .group = 7, .first_bytes = 2 * KIB, .segment_bytes = 16 * KIB };
static const struct raft_journal_opts grown = { .group = 7, .segment_bytes = 16 * KIB };

static const char *segment(uint64_t no)
{
	static char path[64];

	snprintf(path, sizeof(path), "j/%016llu.seg", (unsigned long long)no);
	return path;
}

static size_t file_size(struct disk *d, uint64_t no)
{
	size_t size = 0;

	return disk_bytes(d, segment(no), &size) ? size : 0;
}

static void add(struct raft_journal *j, uint64_t index, uint32_t size)
{
	struct wire_err err;
	uint8_t *data = calloc(1, size + 1);

	assert_non_null(data);
	memset(data, (int)index, size);
	must(append(j, index, 3, data, size, &err), &err);
	free(data);
}

static void check_entry(struct raft_journal *j, uint64_t index, uint32_t size)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;

	must(raft_journal_read(j, index, &b, &e, &err), &err);
	assert_int_equal(b.len, size);
	assert_true(!size || (b.data[0] == (uint8_t)index && b.data[size - 1] == (uint8_t)index));
	wire_buf_free(&b);
}

static uint64_t total(struct disk *d, struct raft_journal *j)
{
	struct raft_journal_stats s;

	raft_journal_stats(j, &s);
	assert_int_equal(s.disk_bytes, disk_total(d));
	return s.disk_bytes;
}

static void test_what_it_costs(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct raft_journal_stats s;
	struct wire_err err;
	uint64_t i = 0;

	(void)ctx;
	create(disk_env(d), "j", &real, 0);
	for (int life = 0; life < 5; life++) { /* opened, used a little, idle, closed */
		struct raft_journal *j = reopen(disk_env(d), "j", &real, &st);
		for (int turn = 0; turn < 20; turn++) {
			if (turn < 8)
				add(j, ++i, 1000);
			must(raft_journal_sync(j, &err), &err);
			must(raft_journal_upkeep(j, &err), &err);
		}
		assert_int_equal(disk_files(d), 1);
		assert_int_equal(total(d, j), 128 * KIB);
		raft_journal_close(j);
	}
	struct raft_journal *j = reopen(disk_env(d), "j", &real, &st);
	uint64_t before = 128 * KIB;
	do {
		add(j, ++i, 300);
		must(raft_journal_upkeep(j, &err), &err);
		raft_journal_stats(j, &s);
		if (disk_total(d) != before)
			print_message("# %llu KiB of disk for %zu KiB in segment %llu\n", (unsigned long long)disk_total(d) / KIB,
			              (size_t)j->off / KIB, (unsigned long long)raft_jrn_current(j)->no);
		before = disk_total(d);
		assert_true(j->n_segs > 1 || total(d, j) == (j->off > 64 * KIB ? 384 : 128) * KIB);
	} while (s.bytes_appended < 560 * KIB);
	assert_true(before < MIB);
	raft_journal_close(j);
	disk_free(d);
}

/* 1,500 commits a second, upkeep that comes only every 67 ms: the next segment is there whenever one is full. */
static void test_steady_load(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_err err;
	uint64_t i = 0;

	(void)ctx;
	create(disk_env(d), "j", &real, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &real, &st);
	while (raft_jrn_current(j)->no < 9) {
		add(j, ++i, 300);
		if (i % 100)
			continue;
		must(raft_journal_sync(j, &err), &err);
		must(raft_journal_upkeep(j, &err), &err);
	}
	assert_int_equal(j->late, 0);
	for (uint64_t no = 1; no <= 9; no++)
		assert_int_equal(file_size(d, no), no < 8 ? 128 * KIB << (no - 1) : 16 * MIB);
	raft_journal_close(j);
	disk_free(d);
}

/* The sizes go on where they were, whatever first_bytes says then. */
static void test_growth_over_restarts(void **ctx)
{
	static const uint32_t kib[] = { 2, 4, 8, 16, 16, 16 };
	struct disk *d = disk_new();
	struct raft_journal_state st;
	uint64_t i = 0;

	(void)ctx;
	create(disk_env(d), "j", &tiny, 0);
	for (bool more = true; more;) {
		struct raft_journal *j = reopen(disk_env(d), "j", i % 2 ? &tiny : &grown, &st);
		assert_int_equal(st.n_entries, i);
		add(j, ++i, 200);
		more = raft_jrn_current(j)->no < 6;
		raft_journal_close(j);
	}
	for (uint64_t no = 1; no <= 6; no++)
		assert_int_equal(file_size(d, no), kib[no - 1] * KIB);
	assert_int_equal(disk_files(d), 6);
	disk_free(d);
}

/* What is larger than the current segment and the prepared one gets a segment of its size. */
static void test_large_entry(void **ctx)
{
	struct raft_journal_state st;
	struct wire_err err;

	(void)ctx;
	for (int prepared = 0; prepared < 2; prepared++) {
		struct disk *d = disk_new();
		create(disk_env(d), "j", &real, 0);
		struct raft_journal *j = reopen(disk_env(d), "j", &real, &st);
		add(j, 1, 70 * KIB);
		if (prepared)
			must(raft_journal_upkeep(j, &err), &err);
		assert_int_equal(file_size(d, 2), prepared ? 256 * KIB : 0);
		add(j, 2, WIRE_ENTRY_MAX);
		assert_int_equal(disk_files(d), 2);
		assert_int_equal(file_size(d, 2), 8 * MIB);
		assert_int_equal(total(d, j), 128 * KIB + 8 * MIB);
		uint8_t *big = calloc(1, WIRE_ENTRY_MAX + 1);
		assert_non_null(big);
		assert_int_equal(append(j, 3, 3, big, WIRE_ENTRY_MAX + 1, &err), WIRE_TOOBIG);
		free(big);
		for (uint64_t i = 3; i < 8; i++)
			add(j, i, WIRE_ENTRY_MAX);
		for (int turn = 0; turn < 2; turn++) {
			check_entry(j, 1, 70 * KIB);
			for (uint64_t i = 2; i < 8; i++)
				check_entry(j, i, WIRE_ENTRY_MAX);
			raft_journal_close(j);
			j = reopen(disk_env(d), "j", &real, &st);
			assert_int_equal(st.n_entries, 7);
		}
		assert_int_equal(file_size(d, 3), 16 * MIB);
		raft_journal_close(j);
		disk_free(d);
	}
}

/* The limit is that of the largest segments, and all below it is taken, in one batch too. */
static void test_limit(void **ctx)
{
	static uint8_t data[16 * KIB];
	uint32_t most = 16 * KIB - 2 * RAFT_JRN_SECTOR - RAFT_JRN_END_BYTES - RAFT_JRN_REC_HEAD - RAFT_JRN_ENTRY_HEAD;
	struct raft_journal_state st;
	struct wire_err err;

	(void)ctx;
	most &= ~7u;
	for (uint32_t size = 0; size <= most; size += 128) {
		struct disk *d = disk_new();
		struct wire_entry e[3];
		create(disk_env(d), "j", &tiny, 0);
		struct raft_journal *j = reopen(disk_env(d), "j", &tiny, &st);
		if (size + 128 > most)
			size = most;
		for (uint32_t i = 0; i < 3; i++) {
			uint32_t bytes = i == 1 ? size : 100;
			e[i] = (struct wire_entry){ .index = i + 1, .term = 3, .kind = WIRE_ENTRY_DATA, .size = bytes,
				                    .sum = wire_hash(data, bytes, 0), .data = data };
		}
		must(raft_journal_append_entries(j, e, 3, 0, &err), &err);
		for (size_t i = 1; i < j->n_segs; i++) /* each begun for an entry that it then had */
			assert_true(j->segs[i]->first_index > j->segs[i - 1]->first_index);
		assert_int_equal(append(j, 4, 3, data, most + 1, &err), WIRE_TOOBIG);
		raft_journal_close(j);
		j = reopen(disk_env(d), "j", &tiny, &st);
		assert_int_equal(st.n_entries, 3);
		assert_int_equal(st.entries[1].size, size);
		raft_journal_close(j);
		disk_free(d);
	}
}

/* No room for a larger one than what is prepared: final then, nothing is lost, and the prepared one serves on. */
static void test_large_entry_without_room(void **ctx)
{
	static uint8_t data[8 * KIB];
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_err err;

	(void)ctx;
	create(disk_env(d), "j", &tiny, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &tiny, &st);
	add(j, 1, 1000);
	must(raft_journal_upkeep(j, &err), &err);
	assert_int_equal(file_size(d, 2), 4 * KIB);
	disk_fail_write(d, 0);
	assert_int_equal(append(j, 2, 3, data, sizeof(data), &err), WIRE_FULL);
	assert_int_equal(append(j, 2, 3, data, 1, &err), WIRE_FULL);
	raft_journal_close(j);
	disk_fail_write(d, -1);
	j = reopen(disk_env(d), "j", &tiny, &st);
	assert_int_equal(st.n_entries, 1);
	assert_non_null(j->next);
	assert_int_equal(disk_total(d), 6 * KIB);
	for (uint64_t i = 2; i < 5; i++)
		add(j, i, 700);
	assert_int_equal(j->late, 0);
	assert_int_equal(raft_jrn_current(j)->size, 4 * KIB);
	add(j, 5, sizeof(data));
	raft_journal_close(j);
	disk_free(d);
}

/* A header may be larger than a small segment: a configuration of many members. */
static void test_large_header(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_config c = { .n = 9 };
	struct raft_journal_mark m = { .index = 0 };
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_err err;

	(void)ctx;
	for (uint32_t i = 0; i < c.n; i++) {
		c.m[i].id = i + 1;
		c.m[i].flags = RAFT_VOTER;
		memset(c.m[i].url, 'u', RAFT_URL_MAX);
	}
	must(raft_journal_create(env, "new", &tiny, 1, 0, 0, &c, &m, &err), &err);
	assert_int_equal(disk_total(d), 4 * KIB);
	raft_config_put(&c, &b);
	create(env, "j", &tiny, 0);
	j = reopen(env, "j", &tiny, &st);
	add(j, 1, 1000);
	must(raft_journal_upkeep(j, &err), &err);
	assert_int_equal(file_size(d, 2), 4 * KIB);
	struct wire_entry e = { .index = 2, .term = 3, .kind = WIRE_ENTRY_CONFIG, .size = (uint32_t)b.len,
		                .sum = wire_hash(b.data, b.len, 0), .data = b.data };
	must(raft_journal_append_entries(j, &e, 1, 0, &err), &err); /* into the prepared one, whose header is short */
	add(j, 3, 1000);
	add(j, 4, 6000); /* header and entry in 16 KiB */
	add(j, 5, 1000);
	raft_journal_close(j);
	j = reopen(env, "j", &tiny, &st);
	assert_int_equal(st.n_entries, 5);
	assert_int_equal(raft_jrn_current(j)->size, 16 * KIB);
	raft_journal_close(j);
	wire_buf_free(&b);
	disk_free(d);
}

/* first_bytes of segment_bytes, or none: byte for byte the same. And the rules of old: prepared at a quarter, two spares. */
static void test_equal_sizes(void **ctx)
{
	struct raft_journal_opts opts = grown;
	struct disk *d[2] = { disk_new(), disk_new() };
	struct raft_journal *j[2];
	struct raft_journal_state st;
	struct wire_err err;

	(void)ctx;
	for (int k = 0; k < 2; k++) {
		opts.first_bytes = k ? opts.segment_bytes : 0;
		create(disk_env(d[k]), "j", &opts, 0);
		j[k] = reopen(disk_env(d[k]), "j", &opts, &st);
		for (uint64_t i = 1; i <= 600; i++) {
			add(j[k], i, (uint32_t)(i * 13 % 400));
			must(raft_journal_sync(j[k], &err), &err);
			if (i % 100 == 0) {
				must(raft_journal_append_mark(j[k], &(struct raft_journal_mark){ .index = i }, &err), &err);
				must(raft_journal_trim(j[k], i, &err), &err);
			}
			const struct raft_jrn_seg *next = j[k]->next;
			must(raft_journal_upkeep(j[k], &err), &err);
			bool still = next && next != raft_jrn_current(j[k]); /* upkeep's own record may have begun it */
			assert_int_equal(j[k]->next != NULL, still || j[k]->off > 4 * KIB);
			assert_true(j[k]->n_retired <= RAFT_JRN_SPARES);
		}
		assert_true(raft_jrn_current(j[k])->recycled);
		assert_true(raft_jrn_current(j[k])->no > 8);
		raft_journal_close(j[k]);
	}
	assert_int_equal(disk_files(d[0]), disk_files(d[1]));
	for (size_t i = 0; i < disk_files(d[0]); i++) {
		size_t size[2];
		const uint8_t *a = disk_bytes(d[0], disk_name(d[0], i), &size[0]), *b = disk_bytes(d[1], disk_name(d[0], i), &size[1]);
		assert_non_null(b);
		assert_int_equal(size[0], 16 * KIB);
		assert_int_equal(size[1], size[0]);
		assert_memory_equal(a, b, size[0]);
	}
	disk_free(d[0]);
	disk_free(d[1]);
}

/* A journal of full-sized segments is not made smaller by options that would begin one small. */
static void test_grown_journal_stays(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_err err;
	size_t files = 0;
	uint64_t i = 0;

	(void)ctx;
	create(disk_env(d), "j", &grown, 0);
	for (int life = 0; life < 8; life++) {
		struct raft_journal *j = reopen(disk_env(d), "j", life ? &tiny : &grown, &st);
		assert_int_equal(disk_files(d), life ? files : 1); /* a prepared one is kept */
		for (int n = 0; n < 20; n++)
			add(j, ++i, 500);
		must(raft_journal_upkeep(j, &err), &err);
		files = j->n_segs + (j->next != NULL);
		raft_journal_close(j);
	}
	assert_true(files > 5);
	assert_int_equal(disk_total(d), files * 16 * KIB);
	disk_free(d);
}

/* Small ones are removed once they are trimmed, and never used again; those of full size are. upkeep_from: the segment from
 * which on there is any. */
static void trim_and_grow(uint64_t upkeep_from)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_err err;
	uint32_t before = 0;
	uint64_t i = 0;

	create(disk_env(d), "j", &tiny, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &tiny, &st);
	while (raft_jrn_current(j)->no < 14) {
		uint64_t no = raft_jrn_current(j)->no;
		add(j, ++i, 300);
		if (raft_jrn_current(j)->no != no) {
			struct raft_jrn_seg *s = raft_jrn_current(j);
			assert_true(s->size == (before * 2 < 16 * KIB ? before * 2 : 16 * KIB));
			assert_int_equal(file_size(d, s->no), s->size);
			must(raft_journal_sync(j, &err), &err);
			must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = i - 1 }, &err), &err);
			must(raft_journal_trim(j, i - 1, &err), &err);
			if (s->no == 3) { /* killed before they are removed: the next life does it */
				assert_true(j->n_retired > 0);
				raft_journal_close(j);
				j = reopen(disk_env(d), "j", &tiny, &st);
				assert_true(j->n_retired > 0);
			}
		}
		before = raft_jrn_current(j)->size;
		if (raft_jrn_current(j)->no < upkeep_from)
			continue;
		must(raft_journal_upkeep(j, &err), &err);
		for (size_t k = 0; k < j->n_retired; k++)
			assert_int_equal(j->retired[k]->size, 16 * KIB);
		assert_true(total(d, j) <= 4 * 16 * KIB);
	}
	assert_true(raft_jrn_current(j)->recycled);
	for (size_t k = 0; k < i; k++) /* what is left of the log */
		if (k + 1 > raft_journal_base(j))
			check_entry(j, k + 1, 300);
	raft_journal_close(j);
	disk_free(d);
}

static void test_trimmed_small_ones(void **ctx)
{
	(void)ctx;
	trim_and_grow(0);
	trim_and_grow(6);
	trim_and_grow(12);
}

static void test_wrong_sizes(void **ctx)
{
	static const struct raft_journal_opts wrong[] = {
		{ .first_bytes = 32 * KIB, .segment_bytes = 16 * KIB }, { .first_bytes = 32 * MIB }, { .first_bytes = KIB },
		{ .first_bytes = 3000 }, { .segment_bytes = KIB }, { .first_bytes = 4 * KIB, .segment_bytes = 16 * KIB + 8 },
		{ .first_bytes = 4 * KIB, .segment_bytes = RAFT_JRN_SEGMENT_MAX + 512 },
	};
	struct raft_config c = { .n = 0 };
	struct raft_journal_mark m = { .index = 0 };
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_err err;

	(void)ctx;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct disk *d = disk_new();
		assert_int_equal(raft_journal_create(disk_env(d), "j", &wrong[i], 1, 0, 0, &c, &m, &err), WIRE_INVALID);
		assert_int_equal(raft_journal_open(disk_env(d), "j", &wrong[i], &j, &st, &err), WIRE_INVALID);
		assert_int_equal(disk_files(d), 0);
		disk_free(d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_it_costs),
		cmocka_unit_test(test_steady_load),
		cmocka_unit_test(test_growth_over_restarts),
		cmocka_unit_test(test_large_entry),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_large_entry_without_room),
		cmocka_unit_test(test_large_header),
		cmocka_unit_test(test_equal_sizes),
		cmocka_unit_test(test_grown_journal_stays),
		cmocka_unit_test(test_trimmed_small_ones),
		cmocka_unit_test(test_wrong_sizes),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
