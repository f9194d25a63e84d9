/* shell/lag_news.c: what LAG carries, and the memory for when what was committed. */
#include "shell/node_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct node_lag some(uint32_t n)
{
	struct node_lag lag = { .commit = UINT64_MAX - 3, .n = n };

	for (uint32_t i = 0; i < n; i++)
		lag.row[i] = (struct node_lag_row){ .id = UINT64_MAX - i, .applied = i * 1000003u, .lag_us = i ? (uint64_t)i << 40 : 0, .silent_us = i % 3 ? i : UINT64_MAX, .flags = (uint8_t)(i % 16) };
	return lag;
}

static void there_and_back(void **state)
{
	(void)state;
	for (uint32_t n = 0; n <= RAFT_MEMBERS_MAX; n++) {
		const struct node_lag lag = some(n);
		struct wire_buf b = WIRE_BUF_INIT;
		struct node_lag back;

		node_lag_put(&lag, &b);
		assert_false(b.failed);
		assert_int_equal(node_lag_get(b.data, b.len, &back, NULL), WIRE_OK);
		assert_int_equal(back.n, n);
		assert_true(back.commit == lag.commit);
		for (uint32_t i = 0; i < n; i++) {
			assert_true(back.row[i].id == lag.row[i].id && back.row[i].applied == lag.row[i].applied && back.row[i].lag_us == lag.row[i].lag_us);
			assert_true(back.row[i].silent_us == lag.row[i].silent_us && back.row[i].flags == lag.row[i].flags);
			assert_ptr_equal(node_lag_row(&back, lag.row[i].id), &back.row[i]);
		}
		assert_null(node_lag_row(&back, 1));
		wire_buf_free(&b);
	}
}

/* Cut anywhere, with more behind, of another format, with too many rows: refused, and nothing is filled in. */
static void malformed(void **state)
{
	const struct node_lag lag = some(5);
	struct wire_buf b = WIRE_BUF_INIT;
	struct node_lag back = { .commit = 77 };
	struct wire_err err;

	(void)state;
	node_lag_put(&lag, &b);
	for (size_t n = 0; n < b.len; n++) {
		uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read beyond it */

		memcpy(exact, b.data, n);
		assert_int_equal(node_lag_get(exact, n, &back, &err), WIRE_CORRUPT);
		free(exact);
	}
	wire_put_u8(&b, 0);
	assert_int_equal(node_lag_get(b.data, b.len, &back, &err), WIRE_CORRUPT);
	b.data[0]++;
	assert_int_equal(node_lag_get(b.data, b.len - 1, &back, &err), WIRE_CORRUPT);
	wire_buf_reset(&b);
	wire_put_varint(&b, 1);
	wire_put_varint(&b, 9);
	wire_put_varint(&b, UINT64_MAX);
	assert_int_equal(node_lag_get(b.data, b.len, &back, &err), WIRE_CORRUPT);
	assert_true(back.commit == 77);
	wire_buf_free(&b);
}

static void random_bytes(void **state)
{
	const char *given = getenv("WALRAFT_SEED");
	unsigned seed = given ? (unsigned)atoi(given) : 20251u;
	struct node_lag back;

	(void)state;
	printf("# seed %u; repeat with: WALRAFT_SEED=%u test/unit/test_lag\n", seed, seed);
	for (int i = 0; i < 100000; i++) {
		uint8_t bytes[64];
		size_t n;

		for (size_t j = 0; j < sizeof bytes; j++)
			bytes[j] = (uint8_t)((seed = seed * 1103515245u + 12345u) >> 16) & (i % 2 ? 0x83 : 0xff);
		bytes[0] = i % 4 ? 1 : bytes[0];
		n = (seed >> 8) % (sizeof bytes + 1);
		if (node_lag_get(bytes, n, &back, NULL) == WIRE_OK)
			assert_true(back.n <= RAFT_MEMBERS_MAX);
	}
}

/* It goes back to the beginning, in order, however long that is ago, and knows the latest to the sample. */
static void commits(void **state)
{
	struct node_commits *c = calloc(1, sizeof *c);
	uint64_t now = 1000000;

	(void)state;
	for (uint64_t index = 1; index <= 20000; index++, now += 3000)
		node_lag_commit(c, index, now);
	assert_true(c->n > NODE_COMMITS / 4 && c->n <= NODE_COMMITS);
	assert_true(c->at[0].index <= 4 && c->at[0].us == 1000000);
	for (uint32_t i = 1; i < c->n; i++)
		assert_true(c->at[i].index > c->at[i - 1].index && c->at[i].us >= c->at[i - 1].us + 10000);
	assert_true(c->at[c->n - 1].us + 20000 >= now && c->at[c->n - 1].index == 20000);
	assert_int_equal(node_lag_behind_us(c, 20000, now), 0);
	assert_true(node_lag_behind_us(c, 19990, now + 500) >= 20000 && node_lag_behind_us(c, 19990, now) <= 50000);
	assert_true(node_lag_behind_us(c, 0, now) == now - 1000000);
	node_lag_commit(c, 20000, now + 50000); /* no news */
	assert_true(c->at[c->n - 1].us < now);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(malformed),
		cmocka_unit_test(random_bytes),
		cmocka_unit_test(commits),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
