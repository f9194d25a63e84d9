/* Who uses nng, from when until when, and what a fork does to it. */
#include "wire/link_nng.h"
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users;    /* lock */
static bool ending_later; /* lock */
/* nng is there, or on its way in or out: changed under the lock, but read by a fork, and by who must not wait. */
static atomic_bool live;
static _Atomic pid_t owner; /* of the live one */
static atomic_bool lost;

bool wire_nng_lost(void)
{
	/* The process id tells of children that were made without running the handlers. */
	return atomic_load(&lost) || (atomic_load(&live) && atomic_load(&owner) != getpid());
}

static void before_fork(void)
{
	wire_nng_fork_lock();
}

static void after_fork_in_parent(void)
{
	wire_nng_fork_unlock();
}

static void after_fork_in_child(void)
{
	if (atomic_load(&live)) {
		atomic_store(&lost, true);
		wire_nng_fork_close();
	}
	wire_nng_fork_unlock();
	/* It may have been another thread's, with nng gone already or not there yet. */
	pthread_mutex_init(&lock, NULL);
}

static void look_after_forks(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Threads set aside. Without memory or room for a thread in the middle of its first call nng crashes or hangs, so they
 * are there before. */

enum { SPARE_MAX = 512 };

struct spare {
	pthread_t id;
	void *(*run)(void *);
	void *arg;
};

static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t spare_news = PTHREAD_COND_INITIALIZER;
static struct spare spare[SPARE_MAX]; /* from here on: spare_lock */
static unsigned n_spare;
static bool dismissed;

static void *await_work(void *arg)
{
	struct spare *s = arg;
	pthread_mutex_lock(&spare_lock);
	while (!s->run && !dismissed)
		pthread_cond_wait(&spare_news, &spare_lock);
	void *(*run)(void *) = s->run;
	void *run_arg = s->arg;
	pthread_mutex_unlock(&spare_lock);
	return run ? run(run_arg) : NULL;
}

int wire_nng_take_thread(pthread_t *id, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	pthread_mutex_lock(&spare_lock);
	struct spare *s = n_spare ? &spare[--n_spare] : NULL;
	if (s) {
		*id = s->id;
		s->arg = arg;
		s->run = run;
		pthread_cond_broadcast(&spare_news);
	}
	pthread_mutex_unlock(&spare_lock);
	return s ? 0 : pthread_create(id, attr, run, arg);
}

static void dismiss(void)
{
	pthread_mutex_lock(&spare_lock);
	dismissed = true;
	pthread_cond_broadcast(&spare_news);
	pthread_mutex_unlock(&spare_lock);
	while (n_spare)
		pthread_join(spare[--n_spare].id, NULL);
}

static int set_aside(unsigned n, struct wire_err *err)
{
	int sys = 0;
	dismissed = false;
	for (unsigned i = 0; i < n && i < SPARE_MAX && sys == 0; i++) {
		struct spare *s = &spare[i];
		*s = (struct spare){ 0 };
		sys = pthread_create(&s->id, NULL, await_work, s);
		n_spare += sys == 0;
	}
	if (sys == 0)
		return WIRE_OK;
	unsigned had = n_spare;
	dismiss();
	return wire_fail_errno(err, sys,
	                       "connections to other nodes need %u threads, and this process may have only %u more "
	                       "(see `ulimit -u`, and the limits of its container or service)",
	                       n, had);
}

/* Holders */

enum { NAMES_WAIT_MS = 100, NAMES_AGAIN_MS = 60000 };

static int start(struct wire_err *err)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = set_aside(wire_nng_threads(), err);
	/* A shared nng makes threads itself: room for them is all that can be done for it. */
	if (rc == WIRE_OK && !wire_nng_own)
		dismiss();
	if (rc == WIRE_OK) {
		rc = wire_nng_start(err);
		if (wire_nng_own)
			dismiss();
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

int wire_nng_hold(const char *url, struct wire_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, look_after_forks);
	if (wire_nng_lost())
		return wire_fail(err, WIRE_UNSUPPORTED,
		                 "cannot listen on %s: this process was forked from one that was connected to other "
		                 "nodes, which works in that one only; start a program of its own (exec) instead, or open "
		                 "the database only after the fork",
		                 url);
	int rc = WIRE_OK;
	pthread_mutex_lock(&lock);
	if (!atomic_load(&live)) {
		atomic_store(&owner, getpid());
		atomic_store(&live, true);
		rc = start(err);
		if (rc)
			atomic_store(&live, false);
	}
	if (rc == WIRE_OK)
		users++;
	pthread_mutex_unlock(&lock);
	return rc ? wire_context(err, "cannot listen on %s", url) : WIRE_OK;
}

static void *end_later(void *arg)
{
	(void)arg;
	for (;;) {
		(void)wire_nng_names_done(NAMES_AGAIN_MS);
		pthread_mutex_lock(&lock);
		if (users || wire_nng_names_done(0))
			break;
		pthread_mutex_unlock(&lock);
	}
	ending_later = false;
	if (!users) {
		wire_nng_stop();
		atomic_store(&live, false);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

static bool can_end_later(void)
{
	pthread_t t;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	bool ok = pthread_create(&t, NULL, end_later, NULL) == 0;
	if (ok)
		pthread_detach(t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ok;
}

void wire_nng_release(void)
{
	pthread_mutex_lock(&lock);
	if (--users == 0 && wire_nng_own && !ending_later) {
		ending_later = !wire_nng_names_done(NAMES_WAIT_MS) && can_end_later();
		if (!ending_later) {
			wire_nng_stop();
			atomic_store(&live, false);
		}
	}
	pthread_mutex_unlock(&lock);
}
