#include "vfs/wlock.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define MS 1000000ull
#define BARGE_NS (2 * MS)
#define RESERVE_NS (50 * MS)
#define TICKET_NS (100 * MS)
#define FOREVER UINT64_MAX

struct ticket {
	struct ticket *next;
	const void *who;
	uint64_t since_ns, asked_ns;
	uint32_t asks;
	bool urgent;   /* in vfs_wlock_take */
	bool sleeping; /* its thread waits on cond, and frees the ticket should it find it gone */
	bool woken;    /* signalled since it last looked: one wake-up at a time is enough */
	bool gone;     /* no longer in the queue */
	bool async;    /* nobody sleeps on it: it is handed the lock */
	pthread_cond_t cond;
};

/* reserved: who alone may take the free lock, until reserved_until_ns. kept: it was the holder, and goes before everyone. */
struct vfs_wlock {
	pthread_mutex_t mutex;
	const void *holder, *reserved;
	uint64_t reserved_until_ns;
	bool kept;
	bool taken;  /* the holder has it by vfs_wlock_take */
	bool handed; /* an asynchronous ticket got it, and its owner is not told yet */
	void (*on_handed)(void *ctx);
	void *handed_ctx;
	struct ticket *first;
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static bool cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	bool ok = pthread_condattr_init(&attr) == 0;

	if (ok) {
		ok = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 && pthread_cond_init(cond, &attr) == 0;
		pthread_condattr_destroy(&attr);
	}
	return ok;
}

/* Waits for a signal, at most until the deadline or until something may lapse that nobody would be there to tell of: a reservation that
 * exists, or one that is made while this thread waits. */
static void wait_for_change(struct vfs_wlock *w, struct ticket *t, uint64_t now, uint64_t deadline_ns)
{
	const uint64_t look_ns = w->holder == NULL ? w->reserved_until_ns : now + RESERVE_NS;
	const uint64_t until_ns = look_ns < deadline_ns ? look_ns : deadline_ns;
	const struct timespec at = { .tv_sec = (time_t)(until_ns / (1000 * MS)), .tv_nsec = (long)(until_ns % (1000 * MS)) };

	t->woken = false; /* whoever woke it before did so for what it has just looked at */
	pthread_cond_timedwait(&t->cond, &w->mutex, &at);
	t->woken = false;
}

struct vfs_wlock *vfs_wlock_new(void)
{
	struct vfs_wlock *const w = calloc(1, sizeof *w);

	if (w != NULL && pthread_mutex_init(&w->mutex, NULL) != 0) {
		free(w);
		return NULL;
	}
	return w;
}

/* ---- the queue; all below with the mutex held ---- */

static struct ticket *find(const struct vfs_wlock *w, const void *who)
{
	struct ticket *t = w->first;
	while (t != NULL && t->who != who)
		t = t->next;
	return t;
}

static void unlink_ticket(struct vfs_wlock *w, struct ticket *t)
{
	struct ticket **at = &w->first;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	t->next = NULL;
}

/* Urgent ones stand before the others; within both, who came first. */
static void link_ticket(struct vfs_wlock *w, struct ticket *t)
{
	struct ticket **at = &w->first;
	while (*at != NULL && ((*at)->urgent || !t->urgent))
		at = &(*at)->next;
	t->next = *at;
	*at = t;
}

static void destroy(struct ticket *t)
{
	pthread_cond_destroy(&t->cond);
	free(t);
}

static void drop(struct vfs_wlock *w, struct ticket *t)
{
	unlink_ticket(w, t);
	t->gone = true;
	if (t->sleeping)
		pthread_cond_signal(&t->cond);
	else
		destroy(t);
}

static void unreserve(struct vfs_wlock *w)
{
	w->reserved = NULL;
	w->kept = false;
}

static void lapse(struct vfs_wlock *w, uint64_t now)
{
	for (struct ticket *t = w->first, *next; t != NULL; t = next) {
		next = t->next;
		if (t->urgent || t->sleeping || t->async || now - t->asked_ns < TICKET_NS)
			continue;
		if (w->reserved == t->who)
			unreserve(w);
		drop(w, t);
	}
	if (w->reserved == NULL || now < w->reserved_until_ns)
		return;

	struct ticket *const t = find(w, w->reserved);
	unreserve(w);
	if (t == NULL)
		return;
	if (!t->sleeping) {
		drop(w, t);
	} else { /* its thread did not get to run: the next one's turn */
		unlink_ticket(w, t);
		t->since_ns = now;
		link_ticket(w, t);
	}
}

static void reserve(struct vfs_wlock *w, const struct ticket *t, uint64_t now)
{
	w->reserved = t->who;
	w->reserved_until_ns = t->urgent ? FOREVER : now + RESERVE_NS;
}

static void wake(struct ticket *t)
{
	if (t != NULL && t->sleeping && !t->woken) {
		t->woken = true;
		pthread_cond_signal(&t->cond);
	}
}

static void hold(struct vfs_wlock *w, const void *who)
{
	w->holder = who;
	w->taken = false;
	unreserve(w);
}

static void hand_over(struct vfs_wlock *w, struct ticket *t)
{
	hold(w, t->who);
	drop(w, t);
	w->handed = true;
}

/* Brings the state up to `now`: what has lapsed goes; a free lock is reserved for whom it is due, and its sleeper woken, or handed over. */
static void settle(struct vfs_wlock *w, uint64_t now)
{
	lapse(w, now);
	if (w->holder != NULL)
		return;
	if (w->first != NULL && w->first->urgent && !w->kept)
		reserve(w, w->first, now);
	if (w->reserved != NULL) {
		wake(find(w, w->reserved));
		return;
	}

	struct ticket *t = w->first;
	while (t != NULL && !t->sleeping && !t->async && t->asks < 2)
		t = t->next;
	if (t != NULL && !t->async && now - t->since_ns >= BARGE_NS) {
		reserve(w, t, now);
		wake(t);
		return;
	}
	while (t != NULL && !t->sleeping && !t->async)
		t = t->next;
	if (t != NULL && t->async)
		hand_over(w, t);
	else
		wake(t);
}

/* Tells of a hand-over, which must not be done with the mutex held. True: it was let go meanwhile. */
static bool tell(struct vfs_wlock *w)
{
	if (!w->handed)
		return false;
	w->handed = false;
	pthread_mutex_unlock(&w->mutex);
	w->on_handed(w->handed_ctx);
	pthread_mutex_lock(&w->mutex);
	return true;
}

static void leave(struct vfs_wlock *w)
{
	while (tell(w))
		;
	pthread_mutex_unlock(&w->mutex);
}

static bool may_take(const struct vfs_wlock *w, const void *who)
{
	return w->holder == NULL && (w->reserved == NULL || w->reserved == who);
}

static struct ticket *ticket_of(struct vfs_wlock *w, const void *who, uint64_t now)
{
	struct ticket *t = find(w, who);

	if (t == NULL) {
		t = calloc(1, sizeof *t);
		if (t == NULL || !cond_init(&t->cond)) {
			free(t);
			return NULL; /* without a ticket it still gets the lock when it asks at a free one */
		}
		t->who = who;
		t->since_ns = now;
		link_ticket(w, t);
	}
	t->asked_ns = now;
	return t;
}

/* ---- the interface ---- */

void vfs_wlock_free(struct vfs_wlock *w)
{
	if (w == NULL)
		return;
	while (w->first != NULL) {
		assert(!w->first->sleeping);
		drop(w, w->first);
	}
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

static enum vfs_wlock_asked ask(struct vfs_wlock *w, const void *who, bool async)
{
	assert(who != NULL);
	enum vfs_wlock_asked got = VFS_WLOCK_HELD;
	pthread_mutex_lock(&w->mutex);
	const uint64_t now = now_ns();
	bool held = w->holder == who;

	settle(w, now);
	if (!held && may_take(w, who)) {
		struct ticket *const t = find(w, who);
		if (t != NULL)
			drop(w, t);
		hold(w, who);
		held = true;
	}
	if (!held) {
		struct ticket *const t = ticket_of(w, who, now);
		got = t != NULL ? VFS_WLOCK_QUEUED : VFS_WLOCK_NOMEM;
		if (t != NULL) {
			t->asks++;
			t->async = async;
		}
	}
	leave(w);
	return got;
}

bool vfs_wlock_try(struct vfs_wlock *w, const void *who)
{
	return ask(w, who, false) == VFS_WLOCK_HELD;
}

enum vfs_wlock_asked vfs_wlock_ask(struct vfs_wlock *w, const void *who)
{
	return ask(w, who, true);
}

void vfs_wlock_on_handed(struct vfs_wlock *w, void (*handed)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&w->mutex);
	w->on_handed = handed;
	w->handed_ctx = ctx;
	pthread_mutex_unlock(&w->mutex);
}

void vfs_wlock_settle(struct vfs_wlock *w)
{
	pthread_mutex_lock(&w->mutex);
	settle(w, now_ns());
	leave(w);
}

void vfs_wlock_void(struct vfs_wlock *w)
{
	pthread_mutex_lock(&w->mutex);
	if (!w->taken)
		w->holder = NULL;
	if (w->kept)
		unreserve(w);
	settle(w, now_ns());
	leave(w);
}

/* Sleeps on the ticket until who may take the lock, or the deadline. */
static void sleep_on(struct vfs_wlock *w, struct ticket *t, uint64_t deadline_ns)
{
	t->sleeping = true;
	for (;;) {
		const uint64_t now = now_ns();
		settle(w, now);
		if (!t->gone && may_take(w, t->who)) {
			/* The early return ends in a try that nobody may beat it to. */
			if (w->reserved == NULL)
				reserve(w, t, now);
			break;
		}
		if (t->gone || now >= deadline_ns)
			break;
		if (!tell(w))
			wait_for_change(w, t, now, deadline_ns);
	}
	t->sleeping = false;
	t->asked_ns = now_ns();
}

static uint32_t sleep_plain(uint32_t us, uint64_t start)
{
	struct timespec left = { .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) != 0)
		;
	const uint64_t slept = (now_ns() - start) / 1000;
	return slept > UINT32_MAX ? UINT32_MAX : (uint32_t)slept;
}

uint32_t vfs_wlock_sleep(struct vfs_wlock *w, const void *who, uint32_t us)
{
	const uint64_t start = now_ns();

	pthread_mutex_lock(&w->mutex);
	struct ticket *const t = find(w, who);
	if (t == NULL) {
		pthread_mutex_unlock(&w->mutex);
		return sleep_plain(us, start);
	}
	sleep_on(w, t, start + (uint64_t)us * 1000);
	if (t->gone)
		destroy(t);
	/* A wake-up that was meant for this one may have come with its deadline: hand it on. */
	settle(w, now_ns());
	leave(w);
	const uint64_t slept = (now_ns() - start) / 1000;
	return slept > UINT32_MAX ? UINT32_MAX : (uint32_t)slept;
}

void vfs_wlock_release(struct vfs_wlock *w, const void *who, bool keep)
{
	pthread_mutex_lock(&w->mutex);
	if (w->holder == who) {
		const uint64_t now = now_ns();
		w->holder = NULL;
		if (keep) {
			w->reserved = who;
			w->reserved_until_ns = now + RESERVE_NS;
			w->kept = true;
		}
		settle(w, now);
	}
	leave(w);
}

void vfs_wlock_forget(struct vfs_wlock *w, const void *who)
{
	pthread_mutex_lock(&w->mutex);
	struct ticket *const t = find(w, who);

	if (w->holder == who)
		w->holder = NULL;
	if (t != NULL)
		drop(w, t);
	if (w->reserved == who)
		unreserve(w);
	settle(w, now_ns());
	leave(w);
}

bool vfs_wlock_take(struct vfs_wlock *w, const void *who, uint32_t timeout_ms)
{
	assert(who != NULL);
	struct ticket t = { .who = who, .urgent = true, .sleeping = true };
	const uint64_t start = now_ns();
	const uint64_t deadline = start + timeout_ms * MS;

	if (!cond_init(&t.cond))
		return false;
	pthread_mutex_lock(&w->mutex);
	struct ticket *const ordinary = find(w, who);
	if (ordinary != NULL)
		drop(w, ordinary);

	bool held = w->holder == who;
	if (!held) {
		t.since_ns = start;
		link_ticket(w, &t);
		for (;;) {
			const uint64_t now = now_ns();
			settle(w, now);
			held = may_take(w, who);
			if (held || now >= deadline)
				break;
			if (!tell(w))
				wait_for_change(w, &t, now, deadline);
		}
		unlink_ticket(w, &t);
		if (held) {
			hold(w, who);
			w->taken = true;
		} else if (w->reserved == who) {
			unreserve(w);
		}
		settle(w, now_ns());
	}
	leave(w);
	pthread_cond_destroy(&t.cond);
	return held;
}

const void *vfs_wlock_holder(struct vfs_wlock *w)
{
	pthread_mutex_lock(&w->mutex);
	const void *const holder = w->holder;
	pthread_mutex_unlock(&w->mutex);
	return holder;
}
