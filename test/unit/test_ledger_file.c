/* shell/ledger_file: through crashes, damage, and copies of one that changes. */
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

/* The number of effects that a ledger at this index has seen. */
static size_t effects_at(const struct model *m, uint64_t index)
{
	size_t n = 0;

	while (n < m->n && m->e[n].index <= index)
		n++;
	return n;
}

static void remember(struct model *m, struct shell_ledger *l)
{
	m->checksum[m->n ? m->n - 1 : 0] = sum_of(l);
}

/* Work, flushes, power losses at any change of the disk: what opens is a state that there was, and none before the last flush that had succeeded. */
static void crashes(void **state)
{
	long lives = 0, torn = 0, missing = 0;

	(void)state;
	for (int round = 0; round < 25; round++) {
		struct disk *d = disk_new();
		struct shell_ledger *l = fresh();
		struct wire_err err;
		struct model m;
		uint64_t durable = 0;

		model_begin(&m, 60);
		for (int life = 0; life < 15; life++, lives++) {
			bool power = true;

			disk_cut_power(d, below(3) ? (int)below(life ? 60 : 10) : -1);
			for (uint32_t flushes = 1 + below(12); flushes && power; flushes--) {
				size_t had = m.n;

				for (uint32_t n = 1 + below(300); n; n--)
					model_add(&m);
				feed(l, &m, had, m.n);
				remember(&m, l);
				power = shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err) == WIRE_OK;
				if (power)
					durable = m.index;
				else
					assert_int_not_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
			}
			shell_ledger_free(l);
			l = NULL;
			disk_crash(d, ((uint64_t)below(1u << 30) << 20) + (uint64_t)life);
			uint64_t cut = 0;
			struct shell_ledger_state st = { 0 };
			int rc = shell_ledger_open(disk_env(d), PATH, GROUP, &l, &cut, &err);
			if (rc) {
				if (durable || (rc != WIRE_NOTFOUND && rc != WIRE_CORRUPT))
					fail_msg("life %d: %s", life, err.text);
				missing++;
				l = fresh();
			} else {
				shell_ledger_state(l, &st);
			}
			torn += cut > 0;
			assert_true(st.index >= durable);
			size_t n = effects_at(&m, st.index);
			if (!rc)
				assert_true(n && m.e[n - 1].index == st.index && m.checksum[n - 1] == st.checksum);
			feed(l, &m, n, m.n); /* as a start does, from the journal */
			if (m.n) {
				check_sessions(l, &m, m.n);
				check_outcomes(l, &m, m.n, 30);
			}
		}
		shell_ledger_free(l);
		model_free(&m);
		disk_free(d);
	}
	printf("# %ld lives, %ld with a torn tail, %ld before the first flush\n", lives, torn, missing);
	assert_true(torn > 0 && missing > 0);
}

static struct disk *some_file(struct model *m)
{
	struct disk *d = disk_new();
	struct shell_ledger *l = fresh();
	struct wire_err err;

	model_begin(m, 20);
	for (int i = 0; i < 6; i++) {
		size_t had = m->n;

		for (int n = 0; n < 40; n++)
			model_add(m);
		feed(l, m, had, m->n);
		remember(m, l);
		assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
	}
	shell_ledger_free(l);
	return d;
}

/* It opens as some state that was flushed, or does not open. */
static bool opens(struct disk *d, const struct model *m, uint64_t *ret_index)
{
	struct shell_ledger_state st;
	struct shell_ledger *l;
	struct wire_err err;
	uint64_t cut;
	int rc = shell_ledger_open(disk_env(d), PATH, GROUP, &l, &cut, &err);
	size_t n;

	if (rc) {
		assert_true(rc == WIRE_CORRUPT || rc == WIRE_VERSION || rc == WIRE_FOREIGN);
		return false;
	}
	shell_ledger_state(l, &st);
	shell_ledger_free(l);
	n = effects_at(m, st.index);
	assert_true(n && m->checksum[n - 1] && m->checksum[n - 1] == st.checksum);
	*ret_index = st.index;
	return true;
}

static void every_cut_and_every_flipped_bit(void **state)
{
	struct model m;
	struct disk *d = some_file(&m);
	long cut = 0, refused = 0, shorter = 0;
	size_t size;
	uint8_t *bytes;
	uint64_t index = 0;

	(void)state;
	bytes = disk_bytes(d, PATH, &size);
	for (size_t i = 0; i < size * 8; i += 11) {
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		if (opens(d, &m, &index))
			shorter++;
		else
			refused++;
		/* What reaches the last flush has all of it. */
		assert_true(index < m.e[m.n - 1].index || opens(d, &m, &index) == false);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	assert_true(opens(d, &m, &index) && index == m.e[m.n - 1].index);
	for (size_t n = size; n > 5; n -= 1 + below(5)) {
		struct disk *copy = disk_copy(d);

		disk_shorten(copy, PATH, n - 1);
		index = 0;
		cut += opens(copy, &m, &index);
		assert_true(index < m.e[m.n - 1].index);
		disk_free(copy);
	}
	printf("# %zu bytes; flips: %ld refused, %ld opened as of an earlier flush; %ld shorter files opened\n", size, refused, shorter, cut);
	assert_true(refused > 100 && shorter > 100 && cut > 50);
	model_free(&m);
	disk_free(d);
}

static void of_another_database(void **state)
{
	struct model m;
	struct disk *d = some_file(&m);
	struct shell_ledger *l;
	struct wire_err err;
	uint64_t cut;

	(void)state;
	assert_int_equal(shell_ledger_open(disk_env(d), PATH, GROUP + 1, &l, &cut, &err), WIRE_FOREIGN);
	assert_int_equal(shell_ledger_open(disk_env(d), "n/other", GROUP, &l, &cut, &err), WIRE_NOTFOUND);
	model_free(&m);
	disk_free(d);
}

/* ---- copies while it changes ---- */

struct busy { struct shell_ledger *l; struct model *m; size_t at; _Atomic bool done; };

static void *apply_on(void *arg)
{
	struct busy *b = arg;
	struct wire_err err;

	for (; b->at < b->m->n; b->at++) {
		if (shell_ledger_apply(b->l, b->m->e[b->at].index, &b->m->e[b->at], 1, &err))
			abort();
		b->m->checksum[b->at] = sum_of(b->l);
	}
	b->done = true;
	return NULL;
}

static void copies_of_a_busy_one(void **state)
{
	struct busy b = { .l = fresh() };
	struct disk *d = disk_new();
	uint64_t *indexes = calloc(2000, sizeof *indexes);
	long copies = 0, flushes = 0;
	struct wire_err err;
	struct model m;
	pthread_t t;

	(void)state;
	model_begin(&m, 256);
	for (int i = 0; i < 30000; i++)
		model_add(&m);
	b.m = &m;
	assert_int_equal(pthread_create(&t, NULL, apply_on, &b), 0);
	while (!b.done && copies < 2000) {
		char name[32];

		snprintf(name, sizeof name, "copy%ld", copies % 100);
		assert_int_equal(shell_ledger_copy(b.l, disk_env(d), name, GROUP, &indexes[copies % 100], &err), WIRE_OK);
		copies++;
		assert_int_equal(shell_ledger_flush(b.l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
		flushes++;
	}
	pthread_join(t, NULL);
	for (long i = 0; i < copies && i < 100; i++) {
		struct shell_ledger *l;
		uint64_t cut;
		char name[32];
		size_t n;

		snprintf(name, sizeof name, "copy%ld", i);
		if (shell_ledger_open(disk_env(d), name, GROUP, &l, &cut, &err))
			fail_msg("%s", err.text);
		n = effects_at(&m, indexes[i]);
		assert_true(cut == 0 && (!n || sum_of(l) == m.checksum[n - 1]));
		shell_ledger_free(l);
	}
	printf("# %ld copies and %ld flushes while 30,000 entries were applied\n", copies, flushes);
	assert_true(copies > 3);
	free(indexes);
	shell_ledger_free(b.l);
	model_free(&m);
	disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crashes), cmocka_unit_test(every_cut_and_every_flipped_bit), cmocka_unit_test(of_another_database), cmocka_unit_test(copies_of_a_busy_one),
	};

	ledger_seed("test_ledger_file");
	return cmocka_run_group_tests_name("ledger_file", tests, NULL, NULL);
}
