/* LD_PRELOAD for process tests: a machine whose clock has a wrong rate.
 *
 *   SKEW=FILE  CLOCK_BOOTTIME and CLOCK_MONOTONIC of the process are what FILE says of them (levels.py writes it): six numbers of 8 bytes, in this machine's
 *              order. All processes that are given the same file see the same clocks, like those of one machine. A FILE that is not there when the process starts: right clocks.
 *
 *                 turn               odd while the others change, for a moment; else another number after each change
 *                 rate_ppm           by how many parts per million the clocks run too fast; negative: too slow; above -1,000,000
 *                 true, shown        nanoseconds: CLOCK_MONOTONIC showed `shown` when it was `true`
 *                 true, shown        of CLOCK_BOOTTIME
 *
 * What waits until a moment of these clocks waits until then: condition variables, semaphores, clock_nanosleep. Sleeps and waits that are given a length
 * go by the true clock; CLOCK_REALTIME and CLOCK_MONOTONIC_RAW are true. By the latter the tests note when things happened. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000
#define LOOK_NS 10000000       /* a wait looks at the rate again so often */
#define UPTIME_MAX_S 900000000 /* nothing is up for so long: such a time is one of CLOCK_REALTIME */

enum { MONOTONIC, BOOTTIME, CLOCKS };

static struct machine {
	atomic_llong turn, rate_ppm;
	struct { atomic_llong truth, shown; } then[CLOCKS];
} right_clocks, *machine = &right_clocks;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_clockwait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
static int (*real_semwait)(sem_t *, clockid_t, const struct timespec *);
static int (*real_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int64_t to_ns(const struct timespec *t)
{
	return (int64_t)t->tv_sec * SECOND_NS + t->tv_nsec;
}

static struct timespec of_ns(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / SECOND_NS, .tv_nsec = ns % SECOND_NS };
}

static int64_t true_ns(int clock)
{
	struct timespec t;

	real_gettime(clock == BOOTTIME ? CLOCK_BOOTTIME : CLOCK_MONOTONIC, &t);
	return to_ns(&t);
}

static void *next(const char *name, const char *version)
{
	void *p = dlvsym(RTLD_NEXT, name, version);

	return p ? p : dlsym(RTLD_NEXT, name);
}

static void find(void)
{
	const char *file = getenv("SKEW");
	int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	void *p;

	real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	/* Without a version that would be the condition variable of an older ABI. */
	real_timedwait = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))next("pthread_cond_timedwait", "GLIBC_2.3.2");
	real_clockwait = (int (*)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *))dlsym(RTLD_NEXT, "pthread_cond_clockwait");
	real_semwait = (int (*)(sem_t *, clockid_t, const struct timespec *))dlsym(RTLD_NEXT, "sem_clockwait");
	real_nanosleep = (int (*)(clockid_t, int, const struct timespec *, struct timespec *))dlsym(RTLD_NEXT, "clock_nanosleep");
	if (fd < 0)
		return;
	p = mmap(NULL, sizeof *machine, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		machine = p;
}

static int64_t scaled(int64_t ns, int64_t ppm)
{
	return (int64_t)((__int128)ns * ppm / 1000000);
}

static int64_t shown_ns(int clock)
{
	pthread_once(&once, find);
	for (;;) {
		long long turn = machine->turn;
		int64_t truth = true_ns(clock), then = machine->then[clock].truth, ns = machine->then[clock].shown + (truth - then) + scaled(truth - then, machine->rate_ppm);

		if (!(turn & 1) && turn == machine->turn)
			return ns;
		sched_yield();
	}
}

static int clock_of(clockid_t id)
{
	return id == CLOCK_MONOTONIC ? MONOTONIC : id == CLOCK_BOOTTIME ? BOOTTIME : -1;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	int clock = clock_of(id);

	pthread_once(&once, find);
	if (clock < 0)
		return real_gettime(id, t);
	*t = of_ns(shown_ns(clock));
	return 0;
}

/* True while there is something to wait for: until ret_until by the true clock, a little at a time. */
static bool wait_on(int clock, const struct timespec *at, struct timespec *ret_until)
{
	int64_t left = to_ns(at) - shown_ns(clock);

	if (left > 0)
		left = (int64_t)((__int128)left * 1000000 / (1000000 + machine->rate_ppm)) + 1;
	if (left > LOOK_NS)
		left = LOOK_NS;
	*ret_until = of_ns(true_ns(clock) + (left > 0 ? left : 0));
	return left > 0;
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *at)
{
	struct timespec until;
	int rc = ETIMEDOUT;

	pthread_once(&once, find);
	if (at->tv_sec > UPTIME_MAX_S)
		return real_timedwait(c, m, at);
	for (bool more = true; more && rc == ETIMEDOUT;) {
		more = wait_on(MONOTONIC, at, &until);
		rc = real_timedwait(c, m, &until);
	}
	return rc;
}

int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t id, const struct timespec *at)
{
	struct timespec until;
	int rc = ETIMEDOUT;

	pthread_once(&once, find);
	if (id != CLOCK_MONOTONIC)
		return real_clockwait(c, m, id, at);
	for (bool more = true; more && rc == ETIMEDOUT;) {
		more = wait_on(MONOTONIC, at, &until);
		rc = real_clockwait(c, m, id, &until);
	}
	return rc;
}

int sem_clockwait(sem_t *s, clockid_t id, const struct timespec *at)
{
	struct timespec until;
	int rc = -1;

	pthread_once(&once, find);
	if (id != CLOCK_MONOTONIC)
		return real_semwait(s, id, at);
	errno = ETIMEDOUT;
	for (bool more = true; more && rc && errno == ETIMEDOUT;) {
		more = wait_on(MONOTONIC, at, &until);
		rc = real_semwait(s, id, &until);
	}
	return rc;
}

int clock_nanosleep(clockid_t id, int flags, const struct timespec *t, struct timespec *left)
{
	struct timespec until;
	int clock = clock_of(id), rc = 0;

	pthread_once(&once, find);
	if (clock < 0 || !(flags & TIMER_ABSTIME))
		return real_nanosleep(id, flags, t, left);
	while (!rc && wait_on(clock, t, &until))
		rc = real_nanosleep(id, flags, &until, left);
	return rc;
}
