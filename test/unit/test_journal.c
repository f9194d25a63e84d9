/* The journal as its users see it: what goes in comes out, also after closing; trimming, rolling, failures. */
#include "test/unit/journal_kit.h"
#include <stdio.h>
#include <string.h>

static void test_roundtrip(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_config c = { .n = 2, .m = { { .id = 1, .flags = RAFT_VOTER, .url = "a" }, { .id = 2, .flags = RAFT_LEARNER, .url = "b" } } };
	struct raft_journal_publication p = { .salt = { 1, 2 }, .mx_frame = 3, .cksum = { 4, 5 }, .index = 12 };
	struct raft_journal_state st;
	struct wire_buf b = WIRE_BUF_INIT, cb = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;
	char text[4000];

	(void)ctx;
	create(env, "j", &small, 10);
	struct raft_journal *j = reopen(env, "j", &small, &st);
	assert_int_equal(st.term, 3);
	assert_int_equal(st.vote, 0);
	assert_int_equal(st.base_index, 10);
	assert_int_equal(st.base_term, 2);
	assert_int_equal(st.base_config.m[0].id, 1);
	assert_int_equal(st.mark.index, 10);
	assert_int_equal(st.mark.db_pages, 2);
	assert_int_equal(st.commit, 10);
	must(raft_journal_append_vote(j, 4, 9, &err), &err);
	must(append(j, 11, 4, NULL, 0, &err), &err);
	must(append(j, 12, 4, "hello", 5, &err), &err);
	raft_config_put(&c, &cb);
	e = (struct wire_entry){ .index = 13, .term = 4, .kind = WIRE_ENTRY_CONFIG, .size = (uint32_t)cb.len,
		                 .sum = wire_hash(cb.data, cb.len, 0), .data = cb.data };
	must(raft_journal_append_entries(j, &e, 1, 11, &err), &err);
	must(raft_journal_append_publication(j, &p, &err), &err);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	must(raft_journal_append_note(j, text, &err), &err);
	must(raft_journal_read(j, 12, &b, &e, &err), &err);
	assert_int_equal(b.len, 5);
	assert_memory_equal(b.data, "hello", 5);
	assert_int_equal(raft_journal_read(j, 10, &b, &e, &err), WIRE_NOTFOUND);
	assert_int_equal(raft_journal_read(j, 14, &b, &e, &err), WIRE_NOTFOUND);
	raft_journal_close(j);

	j = reopen(env, "j", &small, &st);
	assert_int_equal(st.cut_bytes, 0);
	assert_int_equal(st.term, 4);
	assert_int_equal(st.vote, 9);
	assert_int_equal(st.n_entries, 3);
	assert_int_equal(st.entries[1].size, 5);
	assert_int_equal(st.entries[1].kind, WIRE_ENTRY_DATA);
	assert_null(st.entries[1].data);
	assert_int_equal(st.n_configs, 1);
	assert_int_equal(st.configs[0].index, 13);
	assert_int_equal(st.configs[0].config.m[1].flags, RAFT_LEARNER);
	assert_int_equal(st.commit, 12);
	assert_int_equal(st.n_publications, 1);
	assert_memory_equal(&st.publications[0], &p, sizeof(p));
	must(raft_journal_append_mark(j, &(struct raft_journal_mark){ 12, 77, 8 }, &err), &err);
	must(raft_journal_append_truncate(j, 13, &err), &err);
	raft_journal_close(j);
	j = reopen(env, "j", &small, &st);
	assert_int_equal(st.n_entries, 2);
	assert_int_equal(st.n_configs, 0);
	assert_int_equal(st.mark.index, 12);
	assert_int_equal(st.mark.checksum, 77);
	assert_int_equal(st.n_publications, 1);
	raft_journal_close(j);
	wire_buf_free(&b);
	wire_buf_free(&cb);
	disk_free(d);
}

static void test_wrong_uses(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	const struct raft_journal_opts other = { .group = 8, .segment_bytes = 4096 }, odd = { .group = 7, .segment_bytes = 1000 };
	struct raft_journal_mark m = { .index = 1 };
	struct raft_config c = { .n = 0 };
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_err err;
	static uint8_t big[4096];

	(void)ctx;
	assert_int_equal(raft_journal_open(env, "j", &small, &j, &st, &err), WIRE_NOTFOUND);
	assert_int_equal(raft_journal_create(env, "j", &odd, 1, 1, 1, &c, &m, &err), WIRE_INVALID);
	create(env, "j", &small, 1);
	assert_int_equal(raft_journal_create(env, "j", &small, 1, 1, 1, &c, &m, &err), WIRE_EXISTS);
	assert_int_equal(raft_journal_open(env, "j", &other, &j, &st, &err), WIRE_FOREIGN);
	j = reopen(env, "j", &small, &st);
	assert_int_equal(append(j, 3, 3, "x", 1, &err), WIRE_INVALID);  /* a gap */
	assert_int_equal(append(j, 2, 1, "x", 1, &err), WIRE_INVALID);  /* term goes back */
	assert_int_equal(append(j, 2, 3, big, sizeof(big), &err), WIRE_TOOBIG);
	must(append(j, 2, 3, "x", 1, &err), &err);
	must(raft_journal_sync(j, &err), &err);
	must(raft_journal_append_commit(j, 2, &err), &err);
	assert_int_equal(raft_journal_append_truncate(j, 2, &err), WIRE_INVALID); /* committed */
	assert_int_equal(raft_journal_append_truncate(j, 9, &err), WIRE_INVALID);
	assert_int_equal(raft_journal_append_vote(j, 2, 1, &err), WIRE_INVALID);
	assert_int_equal(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = 5 }, &err), WIRE_INVALID);
	assert_int_equal(raft_journal_trim(j, 2, &err), WIRE_INVALID); /* above the mark */
	must(append(j, 3, 3, "y", 1, &err), &err);                    /* and it still works */
	raft_journal_close(j);
	disk_free(d);
}

static void test_trim_and_recycle(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_journal_stats stats;
	struct raft_journal_state st;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;
	uint8_t data[300];

	(void)ctx;
	create(env, "j", &small, 0);
	struct raft_journal *j = reopen(env, "j", &small, &st);
	for (uint64_t i = 1; i <= 400; i++) {
		memset(data, (int)i, sizeof(data));
		must(append(j, i, 3, data, sizeof(data), &err), &err);
		if (i % 50)
			continue;
		must(raft_journal_sync(j, &err), &err);
		must(raft_journal_append_publication(j, &(struct raft_journal_publication){ .mx_frame = (uint32_t)i, .index = i }, &err), &err);
		must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = i, .checksum = i }, &err), &err);
		must(raft_journal_trim(j, i - 5, &err), &err);
		must(raft_journal_upkeep(j, &err), &err);
		assert_true(raft_journal_base(j) > i - 5 - 14 && raft_journal_base(j) <= i - 5);
		raft_journal_stats(j, &stats);
		assert_true(stats.disk_bytes <= 6 * 4096);
		assert_true(disk_files(d) <= 6);
		if (i % 100)
			continue;
		uint64_t base = raft_journal_base(j);
		raft_journal_close(j);
		j = reopen(env, "j", &small, &st);
		assert_int_equal(st.base_index, base);
		assert_int_equal(st.base_term, 3);
		assert_int_equal(st.base_config.m[0].id, 1);
		assert_int_equal(st.base_index + st.n_entries, i);
		assert_int_equal(st.mark.checksum, i);
		assert_int_equal(st.cut_bytes, 0);
		assert_int_equal(st.publications[st.n_publications - 1].mx_frame, i);
		assert_int_equal(raft_journal_read(j, base, &b, &e, &err), WIRE_NOTFOUND);
		must(raft_journal_read(j, base + 1, &b, &e, &err), &err);
		assert_int_equal(b.data[299], (uint8_t)(base + 1));
	}
	assert_true(raft_jrn_current(j)->no > 30);
	raft_journal_close(j);
	wire_buf_free(&b);
	disk_free(d);
}

/* A trim right up to a segment's beginning: mark, publication and configuration lie in what is dropped. */
static void test_trim_keeps_what_headers_repeat(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_config c = { .n = 1, .m = { { .id = 44, .flags = RAFT_VOTER, .url = "z" } } };
	struct raft_journal_state st;
	struct wire_buf cb = WIRE_BUF_INIT;
	struct wire_err err;
	uint8_t data[900] = { 0 };

	(void)ctx;
	create(env, "j", &small, 0);
	struct raft_journal *j = reopen(env, "j", &small, &st);
	raft_config_put(&c, &cb);
	struct wire_entry e = { .index = 1, .term = 3, .kind = WIRE_ENTRY_CONFIG, .size = (uint32_t)cb.len,
		                .sum = wire_hash(cb.data, cb.len, 0), .data = cb.data };
	must(raft_journal_append_entries(j, &e, 1, 0, &err), &err);
	must(append(j, 2, 5, data, 900, &err), &err);
	must(raft_journal_append_publication(j, &(struct raft_journal_publication){ .mx_frame = 21, .index = 2 }, &err), &err);
	must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = 2, .checksum = 22 }, &err), &err);
	for (uint64_t i = 3; j->n_segs == 1; i++)
		must(raft_journal_append_note(j, "a long enough note to fill the rest of the segment", &err), &err);
	must(append(j, 3, 5, "q", 1, &err), &err);
	must(raft_journal_trim(j, 2, &err), &err);
	assert_int_equal(j->n_segs, 1);
	raft_journal_close(j);
	j = reopen(env, "j", &small, &st);
	assert_int_equal(st.base_index, 2);
	assert_int_equal(st.base_term, 5);
	assert_int_equal(st.term, 5);
	assert_int_equal(st.base_config.m[0].id, 44);
	assert_int_equal(st.mark.checksum, 22);
	assert_int_equal(st.n_publications, 1);
	assert_int_equal(st.publications[0].mx_frame, 21);
	assert_int_equal(st.n_entries, 1);
	raft_journal_close(j);
	wire_buf_free(&cb);
	disk_free(d);
}

/* Entries of an older segment are superseded: it cannot be trimmed by what its successors say of dead entries. */
static void test_truncate_over_segments(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_journal_state st;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;
	uint8_t data[900] = { 0 };
	uint64_t i;

	(void)ctx;
	create(env, "j", &small, 0);
	struct raft_journal *j = reopen(env, "j", &small, &st);
	for (i = 1; i <= 12; i++)
		must(append(j, i, 3, data, 900, &err), &err);
	assert_true(j->n_segs >= 3);
	must(raft_journal_append_truncate(j, 2, &err), &err);
	for (i = 2; i <= 9; i++)
		must(append(j, i, 4, data, (uint32_t)(800 + i), &err), &err);
	must(raft_journal_sync(j, &err), &err);
	must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = 8 }, &err), &err);
	for (uint64_t to = 0; to <= 8; to++) {
		must(raft_journal_trim(j, to, &err), &err);
		assert_true(raft_journal_base(j) <= to);
		for (i = raft_journal_base(j) + 1; i <= 9; i++) {
			must(raft_journal_read(j, i, &b, &e, &err), &err);
			assert_int_equal(e.term, i == 1 ? 3 : 4);
			assert_int_equal(e.size, i == 1 ? 900 : 800 + i);
		}
		raft_journal_close(j);
		j = reopen(env, "j", &small, &st);
		assert_int_equal(st.base_index + st.n_entries, 9);
		assert_int_equal(st.base_term, st.base_index == 0 ? 2 : st.base_index == 1 ? 3 : 4);
	}
	assert_true(raft_journal_base(j) >= 4);
	raft_journal_close(j);
	wire_buf_free(&b);
	disk_free(d);
}

static void test_failures_are_final(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_journal_state st;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;
	uint8_t data[900] = { 0 };
	uint64_t i = 0;

	(void)ctx;
	create(env, "j", &small, 0);
	struct raft_journal *j = reopen(env, "j", &small, &st);
	must(append(j, ++i, 3, "a", 1, &err), &err);
	disk_fail_sync(d, 0);
	assert_int_equal(raft_journal_sync(j, &err), WIRE_IO);
	assert_int_equal(raft_journal_sync(j, &err), WIRE_IO); /* the second one of the disk would have succeeded */
	assert_int_equal(append(j, 2, 3, "b", 1, &err), WIRE_IO);
	assert_int_equal(raft_journal_append_vote(j, 5, 1, &err), WIRE_IO);
	assert_int_equal(raft_journal_upkeep(j, &err), WIRE_IO);
	assert_non_null(strstr(err.text, "sync failed"));
	must(raft_journal_read(j, 1, &b, &e, &err), &err);
	raft_journal_close(j);
	disk_crash(d, 3);
	j = reopen(env, "j", &small, &st);

	/* Disk full: at each write in turn, until one run gets through. */
	i = st.n_entries;
	for (int after = 0; after < 40; after++) {
		disk_fail_write(d, after);
		int rc = WIRE_OK;
		uint64_t synced = i;
		for (int n = 0; n < 6 && !rc; n++) {
			rc = append(j, i + 1, 3, data, 900, &err);
			i += !rc;
			if (!rc && !(rc = raft_journal_sync(j, &err)))
				synced = i;
		}
		if (!rc)
			rc = raft_journal_upkeep(j, &err);
		if (rc) {
			assert_int_equal(rc, WIRE_FULL);
			raft_journal_close(j);
			disk_fail_write(d, -1);
			j = reopen(env, "j", &small, &st);
			assert_true(st.n_entries >= synced && st.n_entries <= i + 1);
			i = st.n_entries;
		}
	}
	disk_fail_write(d, -1);
	raft_journal_close(j);
	wire_buf_free(&b);
	disk_free(d);
}

/* Without room for the next segment the current one can still be filled. */
static void test_full_disk_in_upkeep(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[900] = { 0 };

	(void)ctx;
	create(disk_env(d), "j", &small, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &small, &st);
	must(append(j, 1, 3, data, 900, &err), &err);
	disk_fail_write(d, 0);
	assert_int_equal(raft_journal_upkeep(j, &err), WIRE_FULL);
	assert_int_equal(disk_files(d), 1);
	disk_fail_write(d, -1);
	must(append(j, 2, 3, data, 900, &err), &err);
	must(raft_journal_upkeep(j, &err), &err);
	assert_int_equal(disk_files(d), 2);
	unsigned syncs = disk_syncs(d);
	for (uint64_t i = 3; i < 6; i++)
		must(append(j, i, 3, data, 900, &err), &err);
	assert_int_equal(j->n_segs, 2);
	assert_int_equal(disk_syncs(d), syncs); /* the roll had nothing to wait for */
	raft_journal_close(j);
	disk_free(d);
}

static void test_missing_segment(void **ctx)
{
	struct disk *d = disk_new();
	const struct wire_env *env = disk_env(d);
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[900] = { 0 };

	(void)ctx;
	create(env, "j", &small, 0);
	struct raft_journal *j = reopen(env, "j", &small, &st);
	for (uint64_t i = 1; i <= 14; i++)
		must(append(j, i, 3, data, 900, &err), &err);
	uint64_t n = j->n_segs;
	raft_journal_close(j);
	for (uint64_t no = 1; no < n; no++) {
		struct disk *c = disk_copy(d);
		char path[64];
		snprintf(path, sizeof(path), "j/%016llu.seg", (unsigned long long)no);
		must(disk_env(c)->unlink(disk_env(c)->ctx, path, &err), &err);
		assert_int_equal(raft_journal_open(disk_env(c), "j", &small, &j, &st, &err), WIRE_CORRUPT);
		assert_non_null(strstr(err.text, "missing"));
		disk_free(c);
	}
	disk_free(d);
}

/* A read finds what the disk did to an entry after it was opened. */
static void test_read_checks(void **ctx)
{
	struct disk *d = disk_new();
	struct raft_journal_state st;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;
	size_t size;

	(void)ctx;
	create(disk_env(d), "j", &small, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &small, &st);
	must(append(j, 1, 3, "hello", 5, &err), &err);
	uint8_t *p = disk_bytes(d, "j/0000000000000001.seg", &size);
	for (size_t i = 0; i + 5 < size; i++)
		if (!memcmp(p + i, "hello", 5))
			p[i] ^= 1;
	assert_int_equal(raft_journal_read(j, 1, &b, &e, &err), WIRE_CORRUPT);
	must(append(j, 2, 3, "again", 5, &err), &err);
	raft_journal_close(j);
	wire_buf_free(&b);
	disk_free(d);
}

static void test_many_small_entries(void **ctx)
{
	struct disk *d = disk_new();
	const struct raft_journal_opts opts = { .group = 1, .segment_bytes = 1u << 20 };
	struct raft_journal_state st;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry batch[100], e;
	struct wire_err err;
	uint64_t values[100];

	(void)ctx;
	create(disk_env(d), "j", &opts, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &opts, &st);
	for (uint64_t i = 0; i < 100000; i += 100) {
		for (uint64_t k = 0; k < 100; k++) {
			values[k] = (i + k + 1) * 77;
			batch[k] = (struct wire_entry){ .index = i + k + 1, .term = 3 + (i + k) / 30000, .kind = WIRE_ENTRY_DATA, .size = 8,
				                        .sum = wire_hash(&values[k], 8, 0), .data = (uint8_t *)&values[k] };
		}
		must(raft_journal_append_entries(j, batch, 100, i, &err), &err);
		if (i % 10000 == 0)
			must(raft_journal_sync(j, &err), &err);
	}
	assert_true(j->n_segs > 4);
	for (int turn = 0; turn < 2; turn++) {
		for (uint64_t i = 1; i <= 100000; i += 997) {
			uint64_t v;
			must(raft_journal_read(j, i, &b, &e, &err), &err);
			memcpy(&v, b.data, 8);
			assert_int_equal(v, i * 77);
			assert_int_equal(e.term, 3 + (i - 1) / 30000);
		}
		raft_journal_close(j);
		j = reopen(disk_env(d), "j", &opts, &st);
		assert_int_equal(st.n_entries, 100000);
	}
	raft_journal_close(j);
	wire_buf_free(&b);
	disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roundtrip),
		cmocka_unit_test(test_wrong_uses),
		cmocka_unit_test(test_trim_and_recycle),
		cmocka_unit_test(test_trim_keeps_what_headers_repeat),
		cmocka_unit_test(test_truncate_over_segments),
		cmocka_unit_test(test_failures_are_final),
		cmocka_unit_test(test_full_disk_in_upkeep),
		cmocka_unit_test(test_missing_segment),
		cmocka_unit_test(test_read_checks),
		cmocka_unit_test(test_many_small_entries),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
