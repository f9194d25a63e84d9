/* The checker against brute force, on small random histories. WALRAFT_SEED repeats one of them and prints it; WALRAFT_RUNS
 * sets how many there are. */
#include "test/unit/lin_brute.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RUNS 120000u
#define OPS_MAX 7u

static uint64_t running, good, bad, undecided;

/* An assertion in the checker has spoken: say about which history. */
static void on_abort(int sig)
{
	char text[96];
	int n = snprintf(text, sizeof text, "# repeat: WALRAFT_SEED=%llu test/unit/test_lin_random\n", (unsigned long long)running);

	if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(2);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* The conflict is one, and none of it can be spared; the prefix is linearizable, and no longer one is. */
static const char *wrong_reason(const struct brute *b, uint32_t key, const uint32_t *op_of, const struct lin_key_report *r)
{
	uint32_t all = (1u << b->count) - 1, conflict = 0, stuck = BRUTE_OPS_MAX;

	for (uint32_t i = 0; i < b->count; i++) {
		stuck = op_of[i] == r->stuck ? i : stuck;
		for (size_t k = 0; k < r->conflict_count; k++)
			conflict |= op_of[i] == r->conflict[k] ? 1u << i : 0;
	}
	if (stuck == BRUTE_OPS_MAX || !(conflict & 1u << stuck) || !r->exact)
		return "the operation that is stuck";
	if (!brute_check(b, key, b->ops[stuck].end, 0) || brute_check(b, key, b->ops[stuck].end + 1, 0))
		return "the prefix";
	if (brute_check(b, key, b->ops[stuck].end + 1, all & ~conflict))
		return "the conflict";
	for (uint32_t i = 0; i < b->count; i++)
		if ((conflict & 1u << i) && !brute_check(b, key, b->ops[stuck].end + 1, all & ~(conflict & ~(1u << i))))
			return "the conflict, of which something can be spared";
	return NULL;
}

static const char *compare_keys(const struct brute *b, const struct lin_history *h, const uint32_t *op_of, const struct lin_report *r, bool coarse)
{
	bool all = true;

	for (size_t k = 0; k < r->key_count; k++) {
		uint32_t key = 0;
		bool is;
		const char *wrong = NULL;

		for (uint32_t i = 0; i < b->count; i++)
			key = lin_op_at(h, op_of[i])->key == r->keys[k].key ? b->ops[i].key : key;
		is = brute_check(b, key, BRUTE_NEVER, 0);
		all = all && is;
		if (r->keys[k].verdict != (is ? LIN_LINEARIZABLE : LIN_VIOLATION))
			return is ? "a linearizable key's verdict" : "a violation's verdict";
		/* With coarse times several end at once, and any of them may be the one. */
		if (!is && !coarse)
			wrong = wrong_reason(b, key, op_of, &r->keys[k]);
		if (wrong)
			return wrong;
	}
	*(all ? &good : &bad) += 1;
	return r->verdict == (all ? LIN_LINEARIZABLE : LIN_VIOLATION) ? NULL : "the whole verdict";
}

/* With next to no states to look at, the verdict is the same or open. */
static const char *compare_limited(const struct lin_history *h, const struct lin_report *whole, uint64_t states)
{
	struct lin_report *r;
	const char *wrong = NULL;

	assert_int_equal(lin_check(h, &(struct lin_limits){ .states = states }, &r, NULL), WIRE_OK);
	for (size_t k = 0; k < r->key_count; k++)
		if (r->keys[k].verdict != LIN_UNDECIDED && r->keys[k].verdict != whole->keys[k].verdict)
			wrong = "a verdict with a limit";
	undecided += r->verdict == LIN_UNDECIDED;
	lin_report_free(r);
	return wrong;
}

static void run(uint64_t seed, bool tell)
{
	struct brute b;
	uint32_t op_of[BRUTE_OPS_MAX];
	bool coarse = seed % 8 == 7;
	struct lin_history *h;
	struct lin_report *r;
	const char *wrong;

	running = seed;
	signal(SIGABRT, on_abort);
	brute_make(&b, seed, OPS_MAX);
	if (tell)
		brute_print(&b);
	h = brute_feed(&b, coarse, op_of);
	for (uint32_t i = 0; coarse && i < b.count; i++) {
		b.ops[i].inv /= 10;
		b.ops[i].end = b.ops[i].end == BRUTE_NEVER ? BRUTE_NEVER : b.ops[i].end / 10;
	}
	assert_int_equal(lin_check(h, &(struct lin_limits){ .search = (enum lin_search)(seed % 3) }, &r, NULL), WIRE_OK);
	wrong = compare_keys(&b, h, op_of, r, coarse);
	if (!wrong && seed % 4 == 0)
		wrong = compare_limited(h, r, 1 + seed / 4 % 3);
	lin_report_free(r);
	lin_history_free(h);
	if (wrong) {
		brute_print(&b);
		printf("# repeat: WALRAFT_SEED=%llu test/unit/test_lin_random\n", (unsigned long long)seed);
		fail_msg("differs from brute force: %s", wrong);
	}
}

static void against_brute_force(void **state)
{
	const char *one = getenv("WALRAFT_SEED"), *many = getenv("WALRAFT_RUNS");
	uint64_t runs = one ? 1 : many ? strtoull(many, NULL, 10) : RUNS;
	uint64_t first = one ? strtoull(one, NULL, 10) : (uint64_t)time(NULL) * 1000000;

	(void)state;
	printf("# seeds %llu .. %llu\n", (unsigned long long)first, (unsigned long long)(first + runs - 1));
	for (uint64_t seed = first; seed < first + runs; seed++)
		run(seed, one != NULL);
	printf("# %llu linearizable, %llu not; %llu undecided with a limit\n", (unsigned long long)good, (unsigned long long)bad,
	       (unsigned long long)undecided);
	if (runs >= 1000) {
		assert_true(good > runs / 3);
		assert_true(bad > runs / 3);
		assert_true(undecided > runs / 100);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(against_brute_force) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("linearizability, random", tests, NULL, NULL);
}
