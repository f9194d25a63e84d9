/* shell/ledger against a naive model, with random entries. */
#include "test/unit/journal_disk.h"
#include "test/unit/ledger_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GROUP 77
#define PATH "n/ledger"

static void against_the_model(void **state)
{
	(void)state;
	for (int round = 0; round < 12; round++) {
		struct shell_ledger *l = fresh();
		struct model m;

		model_begin(&m, 1 + below(256));
		for (int step = 0; step < 20; step++) {
			size_t had = m.n;

			for (uint32_t n = below(120); n; n--)
				model_add(&m);
			feed(l, &m, had, m.n);
			if (!m.n)
				continue;
			check_sessions(l, &m, m.n);
			check_outcomes(l, &m, m.n, 60);
			/* What it has already changes nothing. */
			uint64_t sum = sum_of(l);
			feed(l, &m, m.n / 2, m.n);
			assert_true(sum_of(l) == sum);
		}
		shell_ledger_free(l);
		model_free(&m);
	}
}

/* In one go, one by one, or over a file: the same. */
static void one_state_for_one_index(void **state)
{
	struct disk *d = disk_new();
	struct shell_ledger *a = fresh(), *b = fresh(), *c = NULL;
	struct wire_err err;
	struct model m;
	uint64_t index, cut;

	(void)state;
	model_begin(&m, 200);
	for (int i = 0; i < 3000; i++)
		model_add(&m);
	feed(a, &m, 0, m.n);
	for (size_t i = 0; i < m.n; i++) {
		assert_int_equal(shell_ledger_apply(b, m.e[i].index, &m.e[i], 1, &err), WIRE_OK);
		if (i == 1000) {
			assert_int_equal(shell_ledger_copy(b, disk_env(d), "copy", GROUP, &index, &err), WIRE_OK);
			assert_true(index == m.e[i].index);
		}
	}
	assert_int_equal(shell_ledger_open(disk_env(d), "copy", GROUP, &c, &cut, &err), WIRE_OK);
	assert_int_equal(cut, 0);
	feed(c, &m, 0, m.n);
	assert_true(sum_of(a) == sum_of(b) && sum_of(a) == sum_of(c) && sum_of(a) != 0);
	check_sessions(c, &m, m.n);
	check_outcomes(c, &m, m.n, 500);
	shell_ledger_free(a);
	shell_ledger_free(b);
	shell_ledger_free(c);
	model_free(&m);
	disk_free(d);
}

/* A window that has moved on tells what it cannot tell. */
static void window(void **state)
{
	struct shell_ledger *l = fresh();
	struct shell_txid_source source = { 0 };
	struct vfs_effect e = { .index = 1, .transaction = true };
	struct shell_ledger_state st;
	uint8_t first[VFS_TXID_BYTES], unused[VFS_TXID_BYTES], edge[VFS_TXID_BYTES];
	struct wire_err err;
	uint64_t at = 0;

	(void)state;
	for (uint32_t i = 0; i < SHELL_LEDGER_IDS + 1000; i++) {
		e.term = 2;
		shell_txid_next(&source, e.term, e.index, e.txid);
		if (i == 0)
			memcpy(first, e.txid, sizeof first);
		if (i == 1)
			shell_txid_next(&source, e.term, e.index, unused);
		e.index++;
		assert_int_equal(shell_ledger_apply(l, e.index, &e, 1, &err), WIRE_OK);
	}
	shell_ledger_state(l, &st);
	assert_int_equal(st.ids, SHELL_LEDGER_IDS);
	assert_true(st.from == 1001);
	assert_int_equal(shell_ledger_outcome(l, first, false, &at), SHELL_OUTCOME_OPEN);
	assert_int_equal(shell_ledger_outcome(l, first, true, &at), SHELL_OUTCOME_TOO_OLD);
	assert_int_equal(shell_ledger_outcome(l, unused, true, &at), SHELL_OUTCOME_TOO_OLD);
	shell_txid_put(&(struct shell_txid){ .term = 2, .index = st.from, .number = UINT32_MAX }, edge);
	assert_int_equal(shell_ledger_outcome(l, edge, true, &at), SHELL_OUTCOME_LOST);
	shell_txid_put(&(struct shell_txid){ .term = 2, .index = st.from - 1, .number = UINT32_MAX }, edge);
	assert_int_equal(shell_ledger_outcome(l, edge, true, &at), SHELL_OUTCOME_TOO_OLD);
	/* The next term begins right above the index at which this one was granted: nothing of its own term can be there. */
	shell_txid_put(&(struct shell_txid){ .term = 1, .index = 1, .number = 1 }, edge);
	assert_int_equal(shell_ledger_outcome(l, edge, false, &at), SHELL_OUTCOME_LOST);
	assert_int_equal(shell_ledger_outcome(l, e.txid, false, &at), SHELL_OUTCOME_COMMITTED);
	assert_true(at == e.index);
	shell_ledger_free(l);
}

static void what_was_lost_is_not_invented(void **state)
{
	struct shell_ledger *l = shell_ledger_new(500, 3, false), *again = NULL;
	struct disk *d = disk_new();
	struct vfs_effect e = { .index = 600, .term = 9 };
	uint8_t id[VFS_TXID_BYTES];
	struct shell_ledger_state st;
	struct shell_session s;
	struct wire_err err;
	uint64_t at = 0, cut;

	(void)state;
	assert_non_null(l);
	assert_int_equal(shell_ledger_apply(l, 700, &e, 1, &err), WIRE_OK);
	shell_txid_put(&(struct shell_txid){ .term = 3, .index = 400, .number = 1 }, id);
	assert_int_equal(shell_ledger_outcome(l, id, false, &at), SHELL_OUTCOME_TOO_OLD);
	shell_txid_put(&(struct shell_txid){ .term = 3, .index = 500, .number = 1 }, id);
	assert_int_equal(shell_ledger_outcome(l, id, false, &at), SHELL_OUTCOME_LOST);
	assert_int_equal(shell_ledger_session(l, (const uint8_t *)"x", 1, &s, &err), WIRE_UNSUPPORTED);
	e = (struct vfs_effect){ .index = 701, .term = 9, .transaction = true, .timestamp_us = 5, .once = { .seq = 4, .idle_s = 60, .id_len = 1, .id = "x" } };
	assert_int_equal(shell_ledger_apply(l, 701, &e, 1, &err), WIRE_OK);
	assert_int_equal(shell_ledger_session(l, (const uint8_t *)"x", 1, &s, &err), WIRE_OK);
	assert_true(s.seq == 4 && s.index == 701);
	assert_int_equal(shell_ledger_session(l, (const uint8_t *)"y", 1, &s, &err), WIRE_UNSUPPORTED);
	assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
	assert_int_equal(shell_ledger_open(disk_env(d), PATH, GROUP, &again, &cut, &err), WIRE_OK);
	shell_ledger_state(again, &st);
	assert_true(!st.whole && st.index == 701 && st.from == 500);
	shell_ledger_free(l);
	shell_ledger_free(again);
	disk_free(d);
}

/* ---- size ---- */

#define MANY 100000u

static void many_sessions(void **state)
{
	struct shell_ledger *l = fresh(), *again;
	struct disk *d = disk_new();
	struct shell_txid_source source = { 0 };
	struct vfs_effect e = { .index = 1, .term = 7, .transaction = true, .timestamp_us = 1700000000000000u };
	struct shell_ledger_state st, back;
	struct wire_err err;
	uint64_t cut, most = 0;

	(void)state;
	for (uint32_t i = 0; i < 4 * MANY; i++) {
		char id[VFS_ONCE_ID_MAX + 1];

		snprintf(id, sizeof id, "%064u", i % MANY);
		shell_txid_next(&source, e.term, e.index, e.txid);
		e.index++;
		e.timestamp_us += 1000;
		e.once = (struct vfs_once){ .seq = i, .idle_s = SHELL_LEDGER_IDLE_S, .id_len = VFS_ONCE_ID_MAX };
		memcpy(e.once.id, id, VFS_ONCE_ID_MAX);
		assert_int_equal(shell_ledger_apply(l, e.index, &e, 1, &err), WIRE_OK);
		if (i % 500 == 0) {
			assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
			shell_ledger_state(l, &st);
			most = st.file_bytes > most ? st.file_bytes : most;
		}
	}
	assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
	shell_ledger_state(l, &st);
	assert_true(st.sessions == MANY && st.ids == SHELL_LEDGER_IDS);
	printf("# %u sessions with ids of %d bytes, and %u ids: %.1f MiB of memory, at most %.1f MiB of file\n", st.sessions, VFS_ONCE_ID_MAX, st.ids,
	       (double)st.memory_bytes / 1048576, (double)most / 1048576);
	assert_true(st.memory_bytes < 20u << 20);
	assert_true(most < 20u << 20);
	assert_int_equal(shell_ledger_open(disk_env(d), PATH, GROUP, &again, &cut, &err), WIRE_OK);
	shell_ledger_state(again, &back);
	assert_true(back.checksum == st.checksum && back.sessions == MANY && back.memory_bytes < 20u << 20);
	/* All of them are idle for too long at once. */
	e.index++;
	e.timestamp_us += (uint64_t)SHELL_LEDGER_IDLE_S * 1000000 + 1;
	e.once = (struct vfs_once){ .seq = 1, .idle_s = 60, .id_len = 3, .id = "new" };
	shell_txid_next(&source, e.term, e.index, e.txid);
	assert_int_equal(shell_ledger_apply(again, e.index, &e, 1, &err), WIRE_OK);
	shell_ledger_state(again, &back);
	assert_int_equal(back.sessions, 1);
	shell_ledger_free(l);
	shell_ledger_free(again);
	disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_the_model), cmocka_unit_test(one_state_for_one_index), cmocka_unit_test(window),
		cmocka_unit_test(what_was_lost_is_not_invented), cmocka_unit_test(many_sessions),
	};

	ledger_seed("test_ledger");
	return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
