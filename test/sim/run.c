#include "test/sim/run.h"
#include "test/sim/check.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct sim *running; /* for a failed assertion of the core */
static const struct run_options *running_with;

static double wall_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void say_repeat(uint64_t seed, const struct run_options *o)
{
	printf("# repeat: make sim SEED=%llu TIME=%llu    (test/sim/sim --seed %llu --time %llu --verbose tells all)\n",
	       (unsigned long long)seed, (unsigned long long)o->time_s, (unsigned long long)seed, (unsigned long long)o->time_s);
	if (o->without)
		printf("# with the option --without '%s'\n", o->without);
	if (running && !strcmp(running->property, CHECK_LINEAR))
		printf("# a picture: the same with --history FILE, then test/lin/lin --lines --html PAGE FILE\n");
}

static void on_abort(int sig)
{
	signal(sig, SIG_DFL);
	if (running) {
		snprintf(running->property, sizeof(running->property), "assertion in the code under test");
		snprintf(running->error, sizeof(running->error), "aborted");
		running->failed = true;
		if (running_with->terse)
			printf("failed %llu %.1f %s\n", (unsigned long long)running->seed, (double)running->now_us / 1e6, running->property);
		sim_report(running, running_with->tail);
		say_repeat(running->seed, running_with);
		fflush(stdout);
	}
	raise(sig);
}

static void write_history(const struct sim *s, const char *path)
{
	FILE *f = fopen(path, "w");

	if (f)
		check_linear_write(s, f);
	if (!f || ferror(f) | fclose(f)) {
		fprintf(stderr, "sim: cannot write %s: %s\n", path, strerror(errno));
		exit(2);
	}
}

bool run_one(uint64_t seed, const struct run_options *o, struct sim_counts *counts, uint64_t *ret_digest)
{
	struct sim *s;
	bool ok = sim_run(seed, o->time_s * 1000000, o->verbose, o->without, counts, &s);

	if (ret_digest)
		*ret_digest = rng_mix(s->digest, rng_mix(s->seq, s->check->last));
	if (!ok && o->terse)
		printf("failed %llu %.1f %s\n", (unsigned long long)seed, (double)counts->sim_us / 1e6, s->property);
	if (!ok && !o->terse) {
		sim_report(s, o->tail);
		say_repeat(seed, o);
	} else if (o->verbose) {
		sim_report(s, o->tail);
	}
	fflush(stdout);
	if (o->history)
		write_history(s, o->history);
	running = NULL;
	sim_free(s);
	return ok;
}

void sim_running(struct sim *s)
{
	running = s;
}

/* One process of several: every jobs-th seed until one fails, or there are no more, or time is up. */
static bool work(const struct run_options *o, uint64_t job, struct sim_counts *counts)
{
	double end = wall_s() + (double)o->wall_s;

	for (uint64_t i = job; o->wall_s ? wall_s() < end : i < o->runs; i += o->jobs)
		if (!run_one(o->seed + i, o, counts, NULL))
			return false;
	return true;
}

static pid_t spawn(const struct run_options *o, uint64_t job, int *ret_fd)
{
	struct sim_counts c = { 0 };
	int fd[2];
	pid_t pid;

	if (pipe(fd) || (pid = fork()) < 0) {
		perror("sim: cannot start a process");
		exit(2);
	}
	if (!pid) {
		close(fd[0]);
		bool ok = work(o, job, &c);
		if (write(fd[1], &c, sizeof(c)) != sizeof(c))
			_exit(2);
		_exit(ok ? 0 : 1);
	}
	close(fd[1]);
	*ret_fd = fd[0];
	return pid;
}

bool run_all(const struct run_options *o)
{
	struct sim_counts all = { 0 }, c;
	enum { JOBS_MAX = 64 };
	pid_t pid[JOBS_MAX];
	int fd[JOBS_MAX], status;
	uint64_t jobs = o->jobs < JOBS_MAX ? o->jobs : JOBS_MAX;
	double from = wall_s();
	bool ok = true;

	fflush(stdout);
	if (jobs == 1) {
		ok = work(o, 0, &all);
	} else {
		for (uint64_t i = 0; i < jobs; i++)
			pid[i] = spawn(o, i, &fd[i]);
		for (uint64_t i = 0; i < jobs; i++) {
			if (read(fd[i], &c, sizeof(c)) == sizeof(c))
				sim_counts_add(&all, &c);
			close(fd[i]);
			ok &= waitpid(pid[i], &status, 0) == pid[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0;
		}
	}
	if (!o->terse)
		run_print(&all, wall_s() - from);
	return ok;
}

void run_options_set(const struct run_options *o)
{
	running_with = o;
	signal(SIGABRT, on_abort);
}

uint64_t run_cores(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	return cores > 0 ? (uint64_t)cores : 1;
}
