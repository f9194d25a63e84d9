/* Random runs of the core in the simulator. WALRAFT_SEED repeats one run and tells its story; WALRAFT_RUNS sets how many
 * there are. */
#include "test/unit/raft_sim.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t running;

/* An assertion in the core has spoken: say which run it was. */
static void on_abort(int sig)
{
	char text[96];
	int n = snprintf(text, sizeof(text), "# repeat: WALRAFT_SEED=%llu test/unit/test_raft_sim\n", (unsigned long long)running);

	if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(2);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void random_runs(void **state)
{
	const char *one = getenv("WALRAFT_SEED"), *many = getenv("WALRAFT_RUNS");
	uint64_t runs = one ? 1 : many ? strtoull(many, NULL, 10) : 1500;
	uint64_t first = one ? strtoull(one, NULL, 10) : (uint64_t)time(NULL) * 1000000;
	struct raft_sim_counts c = { 0 };

	(void)state;
	printf("# seeds %llu .. %llu\n", (unsigned long long)first, (unsigned long long)(first + runs - 1));
	for (uint64_t seed = first; seed < first + runs; seed++) {
		running = seed;
		signal(SIGABRT, on_abort);
		if (raft_sim_run(seed, one != NULL, 1, &c))
			continue;
		printf("# %s\n# repeat: WALRAFT_SEED=%llu test/unit/test_raft_sim\n", raft_sim_error(), (unsigned long long)seed);
		fail_msg("%s", raft_sim_error());
	}
	printf("# %llu steps, %llu commits, %llu elections, reads %llu served %llu refused, %llu by leases, %llu configurations, %llu images, %llu crashes, %llu lost disks, %llu holes filled, %llu entries from others, %llu of %llu transfers\n",
	       (unsigned long long)c.steps, (unsigned long long)c.commits, (unsigned long long)c.elections,
	       (unsigned long long)c.reads_ok, (unsigned long long)c.reads_failed,
	       (unsigned long long)c.lease_reads, (unsigned long long)c.configs,
	       (unsigned long long)c.images, (unsigned long long)c.crashes, (unsigned long long)c.losses, (unsigned long long)c.fills, (unsigned long long)c.fetched,
	       (unsigned long long)c.handed_over, (unsigned long long)c.transfers);
	if (!one) {
		assert_true(c.commits > runs);
		assert_true(c.reads_ok > runs);
		assert_true(c.lease_reads > runs);
		assert_true(c.configs > runs / 10);
		assert_true(c.handed_over > runs / 10);
		assert_true(c.losses > runs / 20);
		assert_true(c.fills > runs / 20 && c.fetched > runs / 10);
	}
}

/* Clocks that are worse than the core was told must be found out: the runs above could have failed. */
static void control_with_bad_clocks(void **state)
{
	uint64_t first = (uint64_t)time(NULL) * 1000000, seed = first;
	struct raft_sim_counts c = { 0 };

	(void)state;
	if (getenv("WALRAFT_SEED"))
		skip();
	while (raft_sim_run(seed, false, 4, &c))
		if (++seed == first + 20000)
			fail_msg("with clocks four times worse than the bound no lease is wrong in seeds %llu .. %llu",
			         (unsigned long long)first, (unsigned long long)seed);
	printf("# control: %s, in run %llu\n", raft_sim_error(), (unsigned long long)(seed - first + 1));
	assert_non_null(strstr(raft_sim_error(), "lease"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(random_runs), cmocka_unit_test(control_with_bad_clocks) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft simulator", tests, NULL, NULL);
}
