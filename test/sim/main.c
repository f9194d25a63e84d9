/* The simulator's command line; see README.md.
 *
 *   sim [--seed N] [--runs N] [--time S] [--wall S] [--jobs N] [--tail N] [--verbose] [--terse] [--history FILE] [--without NAME]
 *
 * Without --seed a random one; --jobs 0: as many as there are cores. --history: of one run, the clients' operations for test/lin.
 * --without: properties whose name begins so are not looked at; to see which other one finds a bug. */
#include "test/sim/run.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int usage(void)
{
	fprintf(stderr, "usage: sim [--seed N] [--runs N] [--time S] [--wall S] [--jobs N] [--tail N] [--verbose] [--terse] "
	                "[--history FILE] [--without NAME]\n");
	return 2;
}

static bool parse(int argc, char **argv, struct run_options *o)
{
	static const char *const names[] = { "--seed", "--runs", "--time", "--wall", "--jobs", "--tail" };
	uint64_t *const values[] = { &o->seed, &o->runs, &o->time_s, &o->wall_s, &o->jobs, &o->tail };

	for (int i = 1; i < argc; i++) {
		size_t k = 0;
		char *end;
		while (k < 6 && strcmp(argv[i], names[k]))
			k++;
		if (!strcmp(argv[i], "--history") && i + 1 < argc) {
			o->history = argv[++i];
		} else if (!strcmp(argv[i], "--without") && i + 1 < argc) {
			o->without = argv[++i];
		} else if (!strcmp(argv[i], "--verbose")) {
			o->verbose = true;
		} else if (!strcmp(argv[i], "--terse")) {
			o->terse = true;
		} else if (k < 6 && i + 1 < argc) {
			*values[k] = strtoull(argv[++i], &end, 10);
			if (*end)
				return false;
		} else {
			return false;
		}
	}
	return !o->history || (o->runs == 1 && o->jobs == 1 && !o->wall_s);
}

int main(int argc, char **argv)
{
	static struct run_options o = { .seed = UINT64_MAX, .runs = 1, .time_s = 200, .jobs = 1, .tail = 40 };

	if (!parse(argc, argv, &o))
		return usage();
	run_options_set(&o);
	if (!o.jobs)
		o.jobs = run_cores();
	if (o.seed == UINT64_MAX)
		o.seed = (uint64_t)time(NULL) * 1000000 + (uint64_t)getpid() % 1000 * 1000;
	if (!o.terse)
		printf("# seeds from %llu, %llu simulated seconds each\n", (unsigned long long)o.seed, (unsigned long long)o.time_s);
	return run_all(&o) ? 0 : 1;
}
