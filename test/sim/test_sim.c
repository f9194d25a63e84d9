/* The simulator as a test: fixed seeds, those that failed once (seeds.txt), and a repetition. WALRAFT_SEED runs one of the
 * fixed ones, telling all. */
#include "test/lin/lin.h"
#include "test/sim/run.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUNS = 600, TIME_S = 100, FIRST = 1000 };

static bool point(unsigned *number, bool ok, const char *what)
{
	printf("%sok %u - %s\n", ok ? "" : "not ", ++*number, what);
	fflush(stdout);
	return ok;
}

static bool same_twice(struct run_options o)
{
	struct sim_counts a = { 0 }, b = { 0 };
	uint64_t x, y;

	o.seed = 7;
	o.time_s = 60;
	bool ok = run_one(o.seed, &o, &a, &x) && run_one(o.seed, &o, &b, &y);
	if (ok && (x != y || memcmp(&a, &b, sizeof(a)))) {
		printf("# seed %llu ran otherwise the second time\n", (unsigned long long)o.seed);
		ok = false;
	}
	return ok;
}

/* What --history writes is read again, and is linearizable for test/lin too. */
static bool history(struct run_options o)
{
	struct sim_counts c = { 0 };
	struct lin_history *h = NULL;
	struct lin_report *r = NULL;
	struct wire_err err = { 0 };
	char path[64];
	FILE *f = NULL;

	snprintf(path, sizeof(path), "test_sim_history.%ld", (long)getpid());
	o.history = path;
	bool ok = run_one(FIRST, &o, &c, NULL) && (f = fopen(path, "r")) && !lin_history_read(&h, f, path, true, &err) &&
	          !lin_check(h, NULL, &r, &err) && r->verdict == LIN_LINEARIZABLE && lin_op_count(h) == c.judged && c.judged > 0;
	if (!ok)
		printf("# %s\n", err.text[0] ? err.text : "the history is not what the simulator has judged");
	if (f)
		fclose(f);
	lin_report_free(r);
	lin_history_free(h);
	remove(path);
	return ok;
}

static bool regressions(struct run_options o, const char *path)
{
	struct sim_counts c = { 0 };
	unsigned long long seed, seconds;
	char line[256];
	FILE *f = fopen(path, "r");
	bool ok = true;

	if (!f) {
		printf("# cannot read %s: %s\n", path, strerror(errno));
		return false;
	}
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llu %llu", &seed, &seconds) != 2)
			continue;
		o.time_s = seconds;
		ok &= run_one(seed, &o, &c, NULL);
	}
	fclose(f);
	return ok;
}

int main(void)
{
	static struct run_options o = { .seed = FIRST, .runs = RUNS, .time_s = TIME_S, .tail = 40 };
	const char *src = getenv("WALRAFT_SRC"), *seed = getenv("WALRAFT_SEED");
	unsigned number = 0;
	char path[4096];
	bool ok;

	run_options_set(&o);
	o.jobs = run_cores();
	if (seed) {
		o.seed = strtoull(seed, NULL, 10);
		o.runs = o.jobs = 1;
		o.verbose = true;
		printf("1..1\n");
		return point(&number, run_all(&o), "one seed") ? 0 : 1;
	}
	snprintf(path, sizeof(path), "%s/test/sim/seeds.txt", src ? src : ".");
	printf("1..4\n");
	ok = point(&number, same_twice(o), "a seed gives the same run each time");
	ok &= point(&number, history(o), "the clients' history as a file for test/lin");
	ok &= point(&number, regressions(o, path), "seeds that failed once");
	ok &= point(&number, run_all(&o), "fixed seeds");
	return ok ? 0 : 1;
}
