/* What the tests of damaged journals share. */
#ifndef TEST_UNIT_JOURNAL_DAMAGE_H
#define TEST_UNIT_JOURNAL_DAMAGE_H

#include "test/unit/journal_model.h"
#include <stdio.h>
#include <string.h>

static inline void segment_path(uint64_t no, char path[64])
{
	snprintf(path, 64, "j/%016llu.seg", (unsigned long long)no);
}

static inline uint8_t *segment(struct disk *d, uint64_t no)
{
	char path[64];
	size_t size;

	segment_path(no, path);
	uint8_t *p = disk_bytes(d, path, &size);
	assert_non_null(p);
	return p;
}

static inline int open_it(struct disk *d, const struct raft_journal_opts *opts, struct raft_journal **j, struct raft_journal_state *st)
{
	struct wire_err err;
	int rc = raft_journal_open(disk_env(d), "j", opts, j, st, &err);

	if (rc && rc != WIRE_CORRUPT && rc != WIRE_IO)
		fail_msg("%s", err.text);
	return rc;
}

static inline const struct raft_journal_start *start_at(uint64_t index)
{
	static struct raft_journal_start s;

	s = (struct raft_journal_start){ .term = 2, .base_index = index, .base_term = 2, .mark = { .index = index } };
	s.base_config = (struct raft_config){ .n = 1, .m = { { .id = 1, .flags = RAFT_VOTER, .url = "tcp://127.0.0.1:7401" } } };
	return &s;
}

static inline struct raft_journal *salvage(struct disk *d, const struct raft_journal_opts *opts, struct raft_journal_state *st)
{
	struct raft_journal_remains remains;
	struct wire_err err;

	must(raft_journal_examine(disk_env(d), "j", opts, &remains, &err), &err);
	must(raft_journal_salvage(disk_env(d), "j", opts, start_at(MODEL_BASE), &err), &err);
	struct raft_journal *j = reopen(disk_env(d), "j", opts, st);
	assert_true(st->forgetful);
	assert_true(st->term >= remains.term);
	if (remains.log) {
		assert_true(st->base_index >= remains.base_index); /* trims that were interrupted are done again */
		assert_int_equal(st->base_index + st->n_entries, remains.last_index);
		assert_true(st->n_holes <= remains.n_holes);
		assert_int_equal(st->commit, remains.commit);
	} else {
		assert_int_equal(st->base_index, MODEL_BASE);
		assert_int_equal(st->n_entries, 0);
	}
	return j;
}

static inline uint8_t data_of(uint64_t i)
{
	return (uint8_t)(i * 13 + 1);
}

/* Entries 1 .. n of 100 bytes in term 3, synced; where entry k's record lies in at[k]. */
static inline struct raft_journal *with_entries(struct disk *d, uint64_t n, struct raft_jrn_at *at)
{
	struct raft_journal_state st;
	struct wire_err err;
	uint8_t data[100];

	create(disk_env(d), "j", &small, 0);
	struct raft_journal *j = reopen(disk_env(d), "j", &small, &st);
	for (uint64_t i = 1; i <= n; i++) {
		memset(data, data_of(i), sizeof(data));
		must(append(j, i, 3, data, sizeof(data), &err), &err);
		at[i] = j->log.at[j->log.head + i - 1];
	}
	must(raft_journal_sync(j, &err), &err);
	return j;
}

#endif
