/* Large histories: how many states are looked at, whatever the machine; and limits, which are never a verdict. The loads are
 * the same every time, but with WALRAFT_SEED, which bounds are not made for. */
#include "test/unit/lin_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct large {
	const char *name;
	struct load load;
	enum lin_verdict verdict;
	uint64_t states_max; /* for the verdict */
};

#define LOAD(k, o, u, lying, at) { .kind = (k), .processes = 16, .ops = (o), .unknown = (u), .reads_of_10 = 5, .lie = (lying), .lie_at = (at) }

/* The first four come out without any alternative. */
static const struct large larges[] = {
	{ "50,000 writes and reads, 500 unknown", LOAD(LOAD_UNIQUE, 50000, 500, LIE_NONE, 0), LIN_LINEARIZABLE, 50000 },
	{ "50,000 with cas, 500 unknown", LOAD(LOAD_CAS, 50000, 500, LIE_NONE, 0), LIN_LINEARIZABLE, 50000 },
	{ "50,000 appends and reads, 500 unknown", LOAD(LOAD_LIST, 50000, 500, LIE_NONE, 0), LIN_LINEARIZABLE, 50000 },
	{ "50,000 appends of five values, 500 unknown", LOAD(LOAD_LIST_FEW, 50000, 500, LIE_NONE, 0), LIN_LINEARIZABLE, 50000 },
	{ "50,000 of five values", LOAD(LOAD_FEW, 50000, 0, LIE_NONE, 0), LIN_LINEARIZABLE, 250000 },
	{ "50,000 of five values, 500 unknown", LOAD(LOAD_FEW, 50000, 500, LIE_NONE, 0), LIN_LINEARIZABLE, 25000000 },
	{ "50,000, 500 unknown that are repeated", LOAD(LOAD_AGAIN, 50000, 500, LIE_NONE, 0), LIN_LINEARIZABLE, 50000 },
	{ "20,000 writes, 5,000 unknown", LOAD(LOAD_UNIQUE, 20000, 5000, LIE_NONE, 0), LIN_LINEARIZABLE, 20000 },
	{ "a stale read among 50,000 operations", LOAD(LOAD_UNIQUE, 50000, 500, LIE_STALE, 40000), LIN_VIOLATION, 50000 },
	{ "a stale read among 50,000, 500 unknown that are repeated", LOAD(LOAD_AGAIN, 50000, 500, LIE_STALE, 40000), LIN_VIOLATION, 5000000 },
	{ "a stale read among 50,000 with cas", LOAD(LOAD_CAS, 50000, 500, LIE_STALE, 40000), LIN_VIOLATION, 50000 },
	{ "a stale read of a list of 25,000", LOAD(LOAD_LIST, 50000, 500, LIE_STALE, 40000), LIN_VIOLATION, 50000 },
	{ "a lost append among 50,000", LOAD(LOAD_LIST, 50000, 500, LIE_LOST, 40000), LIN_VIOLATION, 50000 },
	{ "a lost append of five values among 50,000", LOAD(LOAD_LIST_FEW, 50000, 500, LIE_LOST, 40000), LIN_VIOLATION, 50000 },
	{ "a value that nobody wrote, among 50,000", LOAD(LOAD_CAS, 50000, 500, LIE_UNHEARD, 40000), LIN_VIOLATION, 50000 },
	{ "a wrong last read of five values, behind 20,000", LOAD(LOAD_FEW, 20000, 0, LIE_LAST, 0), LIN_VIOLATION, 2000000 },
};

static uint64_t seed = 1;

static void check_large(void **state)
{
	const struct large *c = *state;
	struct load load = c->load;
	struct lin_history *h;
	struct lin_report *r;

	load.seed = seed;
	h = load_make(&load);
	assert_int_equal(lin_check(h, NULL, &r, NULL), WIRE_OK);
	printf("# %s: %llu states; %zu ok before the violation, a conflict of %zu\n", c->name, (unsigned long long)r->keys[0].states,
	       r->keys[0].prefix_ok, r->keys[0].conflict_count);
	assert_string_equal(lin_verdict_text(r->verdict), lin_verdict_text(c->verdict));
	if (seed == 1)
		assert_true(r->keys[0].states <= c->states_max);
	if (c->load.kind != LOAD_FEW && c->verdict == LIN_VIOLATION) {
		assert_true(r->keys[0].exact);
		assert_in_range(r->keys[0].conflict_count, 1, 8);
		assert_true(r->keys[0].order_count >= r->keys[0].prefix_ok);
	}
	lin_report_free(r);
	lin_history_free(h);
}

static struct lin_history *few(uint32_t ops, enum load_lie lie)
{
	return load_make(&(struct load)LOAD(LOAD_FEW, ops, 0, lie, 0));
}

static void the_limit_of_states(void **state)
{
	struct lin_history *h = few(2000, LIE_NONE);
	struct lin_report *r;

	(void)state;
	for (uint64_t states = 1; states <= 100; states *= 10) {
		assert_int_equal(lin_check(h, &(struct lin_limits){ .states = states }, &r, NULL), WIRE_OK);
		assert_int_equal(r->verdict, LIN_UNDECIDED);
		assert_int_equal(r->keys[0].verdict, LIN_UNDECIDED);
		assert_int_equal(r->keys[0].limit, LIN_LIMIT_STATES);
		assert_true(r->keys[0].states <= states);
		assert_int_equal(r->keys[0].order_count, 0);
		lin_report_free(r);
	}
	assert_int_equal(lin_check(h, NULL, &r, NULL), WIRE_OK);
	assert_int_equal(r->verdict, LIN_LINEARIZABLE);
	lin_report_free(r);
	lin_history_free(h);
}

static void the_limit_of_time(void **state)
{
	struct lin_history *h = few(400000, LIE_LAST);
	struct lin_report *r;

	(void)state;
	assert_int_equal(lin_check(h, &(struct lin_limits){ .time_ms = 1 }, &r, NULL), WIRE_OK);
	assert_int_equal(r->verdict, LIN_UNDECIDED);
	assert_int_equal(r->keys[0].limit, LIN_LIMIT_TIME);
	lin_report_free(r);
	lin_history_free(h);
}

static void add(struct lin_history *h, enum lin_type type, enum lin_kind kind, const char *key, int64_t value)
{
	struct lin_event e = { .type = type, .process = lin_text(h, "another"), .kind = kind, .key = lin_text(h, key) };

	if ((type == LIN_OK) == (kind == LIN_READ))
		e.value = lin_int(h, value);
	assert_int_equal(lin_history_add(h, &e, NULL), WIRE_OK);
}

/* A key that is undecided hides neither a violation of another nor makes it undecided. */
static void other_keys_are_decided(void **state)
{
	struct lin_history *h = few(2000, LIE_NONE);
	const struct lin_limits limits = { .states = 10 };
	struct lin_report *r;

	(void)state;
	add(h, LIN_INVOKE, LIN_WRITE, "good", 1);
	add(h, LIN_OK, LIN_WRITE, "good", 1);
	assert_int_equal(lin_check(h, &limits, &r, NULL), WIRE_OK);
	assert_int_equal(r->verdict, LIN_UNDECIDED);
	assert_int_equal(r->keys[1].verdict, LIN_LINEARIZABLE);
	lin_report_free(r);
	add(h, LIN_INVOKE, LIN_READ, "good", 0);
	add(h, LIN_OK, LIN_READ, "good", 2);
	assert_int_equal(lin_check(h, &limits, &r, NULL), WIRE_OK);
	assert_int_equal(r->verdict, LIN_VIOLATION);
	assert_int_equal(r->keys[0].verdict, LIN_UNDECIDED);
	assert_int_equal(r->keys[1].verdict, LIN_VIOLATION);
	lin_report_free(r);
	lin_history_free(h);
}

/* The picture of what is large has the end of it, and stays small. */
static void a_page_stays_small(void **state)
{
	struct lin_history *h = load_make(&(struct load)LOAD(LOAD_LIST, 20000, 500, LIE_STALE, 15000));
	struct wire_buf b = WIRE_BUF_INIT;
	struct lin_report *r;

	(void)state;
	assert_int_equal(lin_check(h, NULL, &r, NULL), WIRE_OK);
	lin_put_html(h, r, "a large one", &b);
	assert_false(b.failed);
	assert_in_range(b.len, 5000, 200000);
	wire_put_u8(&b, 0);
	assert_non_null(strstr((const char *)b.data, "class=\"stuck\""));
	assert_non_null(strstr((const char *)b.data, "Not shown: "));
	wire_buf_free(&b);
	lin_report_free(r);
	lin_history_free(h);
}

#define LARGES (sizeof larges / sizeof *larges)

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(the_limit_of_states),
		cmocka_unit_test(the_limit_of_time),
		cmocka_unit_test(other_keys_are_decided),
		cmocka_unit_test(a_page_stays_small),
	};
	struct CMUnitTest tests[LARGES + sizeof others / sizeof *others];

	if (getenv("WALRAFT_SEED"))
		seed = strtoull(getenv("WALRAFT_SEED"), NULL, 10);
	printf("# seed %llu; another: WALRAFT_SEED=%llu test/unit/test_lin_large\n", (unsigned long long)seed, (unsigned long long)seed + 1);
	for (size_t i = 0; i < LARGES; i++)
		tests[i] = (struct CMUnitTest){ larges[i].name, check_large, NULL, NULL, (void *)(uintptr_t)&larges[i] };
	memcpy(tests + LARGES, others, sizeof others);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("large histories", tests, NULL, NULL);
}
