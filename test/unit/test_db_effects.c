/* What entries did, as it is told before it is published (vfs_node_ops.effects), and as it is read from the log. */
#include "test/unit/db_world.h"
#include "vfs/db_impl.h"
#include "wire/msg.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint32_t seed;
static struct vfs_db *told_by;
static struct vfs_effect *told;
static size_t n_told, cap_told;
static uint64_t told_upto, fail_at;

/* A range that is applied begins with its first entry's term, known or not. */
static void keep(const struct vfs_effect *e)
{
	if (!e->transaction && n_told && told[n_told - 1].term == e->term)
		return;
	if (n_told == cap_told)
		told = realloc(told, (cap_told = cap_told * 2 + 64) * sizeof *told);
	told[n_told++] = *e;
}

static int listen(struct world *w, uint64_t upto, const struct vfs_effect *effects, size_t n)
{
	(void)w;
	assert_true(upto > told_upto);
	if (fail_at && upto >= fail_at)
		return WIRE_NOMEM;
	for (size_t i = 0; i < n; i++) {
		assert_true(effects[i].index > told_upto && effects[i].index <= upto);
		assert_true(i == 0 || effects[i].index > effects[i - 1].index);
		assert_true(!told_by || vfs_db_published(told_by) < effects[i].index);
		keep(&effects[i]);
	}
	told_upto = upto;
	return WIRE_OK;
}

static void begin(struct world *w, uint32_t page_size)
{
	n_told = 0;
	told_upto = fail_at = 0;
	world_new(w, page_size, seed);
	w->effects = listen;
}

/* Transactions of all kinds in some terms, some of them chunked, some of those never closed. */
static void make_log(struct world *w, int n)
{
	for (int i = 0; i < n; i++) {
		switch (world_random(w, 12)) {
		case 0:
			w->term += world_random(w, 3);
			world_noop(w);
			break;
		case 1:
			world_sql(w, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t(x) SELECT printf('%%0900d', i) FROM n");
			world_commit(w, 30, true);
			break;
		case 2:
			world_sql(w, "INSERT INTO t(x) SELECT randomblob(700) FROM a LIMIT 40");
			world_commit(w, 5, false);
			w->term++;
			world_commit(w, 0, true);
			break;
		default:
			world_transaction(w);
		}
	}
}

static int same_as_told(void *ctx, const struct vfs_effect *e, struct wire_err *err)
{
	size_t *at = ctx;
	const struct vfs_effect *t = &told[*at];

	(void)err;
	if (!e->transaction && *at && told[*at - 1].term == e->term)
		return WIRE_OK;
	assert_true(*at < n_told);
	assert_true(t->index == e->index && t->term == e->term && t->transaction == e->transaction && t->timestamp_us == e->timestamp_us);
	assert_memory_equal(t->txid, e->txid, sizeof e->txid);
	++*at;
	return WIRE_OK;
}

static void read_again(struct world *w)
{
	struct wire_err err = { 0 };
	size_t at = 0;

	if (vfs_log_effects(1, w->n, world_read_entry, w, same_as_told, &at, &err))
		fail_msg("%s", err.text);
	assert_int_equal(at, n_told);
}

static void all_are_told(void **state)
{
	size_t transactions = 0, terms = 0;
	struct world w;

	(void)state;
	begin(&w, 1024);
	make_log(&w, 400);
	told_by = world_must_open(&w);
	for (uint64_t at = 0; at < w.n; ) {
		at += 1 + world_random(&w, 60);
		at = at < w.n ? at : w.n;
		world_apply(&w, told_by, at);
		assert_true(told_upto == at);
	}
	for (size_t i = 0; i < n_told; i++) {
		transactions += told[i].transaction;
		terms += i && told[i].term != told[i - 1].term;
		assert_true(w.log[told[i].index - 1].term == told[i].term);
	}
	printf("# %llu entries, %zu transactions, %zu terms\n", (unsigned long long)w.n, transactions, terms);
	assert_true(transactions > 200 && terms > 20);
	read_again(&w);
	vfs_db_close(told_by);
	told_by = NULL;
	world_free(&w);
}

/* An entry that is refused has told nothing; those before it have, once. */
static void refused_ones_are_not_told(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 4096);
	make_log(&w, 120);
	told_by = world_must_open(&w);
	for (int round = 0; round < 20; round++) {
		uint64_t bad = vfs_db_published(told_by) + 1 + world_random(&w, 20);
		struct wire_err err = { 0 };
		uint8_t *sum;

		while (bad <= w.n && w.log[bad - 1].kind != WIRE_ENTRY_DATA)
			bad++;
		if (bad > w.n)
			break;
		sum = w.log[bad - 1].data + 48; /* checksum before */
		sum[0] ^= 1;
		/* A chunk's is not looked at. */
		if (vfs_db_apply(told_by, w.n, world_read_entry, &w, &err) == WIRE_CORRUPT)
			assert_true(vfs_db_published(told_by) == told_upto);
		sum[0] ^= 1;
	}
	world_apply(&w, told_by, w.n);
	read_again(&w);
	vfs_db_close(told_by);
	told_by = NULL;
	world_free(&w);
}

/* Whoever cannot keep it must not see it published. */
static void failing_is_final(void **state)
{
	struct wire_err err = { 0 };
	struct world w;

	(void)state;
	begin(&w, 4096);
	make_log(&w, 60);
	told_by = world_must_open(&w);
	fail_at = w.n / 2;
	assert_int_equal(vfs_db_apply(told_by, w.n, world_read_entry, &w, &err), WIRE_NOMEM);
	assert_true(vfs_db_published(told_by) < fail_at && vfs_db_published(told_by) == told_upto);
	fail_at = 0;
	assert_int_equal(vfs_db_apply(told_by, w.n, world_read_entry, &w, &err), WIRE_NOMEM);
	vfs_db_close(told_by);
	told_by = NULL;
	world_free(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(all_are_told), cmocka_unit_test(refused_ones_are_not_told), cmocka_unit_test(failing_is_final) };
	int status;

	if (world_main(argc, argv, &status))
		return status;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	seed = getenv("WALRAFT_SEED") ? (uint32_t)strtoul(getenv("WALRAFT_SEED"), NULL, 10) : (uint32_t)time(NULL) ^ (uint32_t)getpid();
	printf("# WALRAFT_SEED=%u %s\n", seed, argv[0]);
	fflush(stdout);
	world_init_sqlite();
	return cmocka_run_group_tests_name("db_effects", tests, NULL, NULL);
}
