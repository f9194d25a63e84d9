/* What the tests of the journal share. */
#ifndef TEST_UNIT_JOURNAL_KIT_H
#define TEST_UNIT_JOURNAL_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "raft/journal_impl.h"
#include "test/unit/journal_disk.h"

static const struct raft_journal_opts small = { .group = 7, .segment_bytes = 4096 };

static inline void must(int rc, const struct wire_err *err)
{
	if (rc)
		fail_msg("%s", err->text);
}

static inline void create(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, uint64_t base)
{
	struct raft_config c = { .n = 1, .m = { { .id = 1, .flags = RAFT_VOTER, .url = "tcp://127.0.0.1:7401" } } };
	struct raft_journal_mark m = { .index = base, .checksum = 5, .db_pages = 2 };
	struct wire_err err;

	must(raft_journal_create(env, dir, opts, 3, base, 2, &c, &m, &err), &err);
}

static inline struct raft_journal *reopen(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts,
                                   struct raft_journal_state *st)
{
	struct raft_journal *j;
	struct wire_err err;

	must(raft_journal_open(env, dir, opts, &j, st, &err), &err);
	return j;
}

static inline int append(struct raft_journal *j, uint64_t index, uint64_t term, const void *data, uint32_t size, struct wire_err *err)
{
	struct wire_entry e = { .index = index, .term = term, .kind = size ? WIRE_ENTRY_DATA : WIRE_ENTRY_NOOP, .size = size,
		                .sum = wire_hash(data, size, 0), .data = data };

	return raft_journal_append_entries(j, &e, 1, 0, err);
}

#endif
