/* Running seeds: one, or many on all cores; what is printed of them. */
#ifndef TEST_SIM_RUN_H
#define TEST_SIM_RUN_H

#include "test/sim/sim.h"

struct run_options {
	uint64_t seed, runs;  /* the first one, and how many */
	uint64_t time_s;      /* simulated, of each */
	uint64_t wall_s;      /* instead of `runs`: until so much time has passed; 0: not */
	uint64_t jobs, tail;  /* processes; lines of the trace of a run that failed */
	bool verbose, terse;  /* terse: one line "failed SEED SECONDS PROPERTY", for programs */
	const char *history;  /* where to write the clients' history, for test/lin; NULL: not. For one run */
	const char *without;  /* properties whose name begins so are not looked at; NULL: all are */
};

/* Which options a failed assertion of the code under test is reported with. They live for ever. */
void run_options_set(const struct run_options *o);
/* False: a property failed, and was printed with the seed, the trace's tail and how to repeat it. ret_digest (may be NULL):
 * a hash of all that happened. */
bool run_one(uint64_t seed, const struct run_options *o, struct sim_counts *counts, uint64_t *ret_digest);
/* All of them; prints the counts. */
bool run_all(const struct run_options *o);
uint64_t run_cores(void);
/* counts.c: what was done, and what went wrong. */
void run_print(const struct sim_counts *c, double wall_s);

#endif
