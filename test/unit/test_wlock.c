#include "vfs/wlock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define MS 1000000ull

static const char A[1], B[1], C[1], D[1];

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

/* Time itself is what is tested here: it has to pass. */
static void pass_ms(uint64_t ms)
{
	const struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * MS) };
	nanosleep(&t, NULL);
}

static struct vfs_wlock *start(void)
{
	struct vfs_wlock *const w = vfs_wlock_new();
	assert_non_null(w);
	return w;
}

/* A thread that sleeps for the lock like a busy handler, takes it, notes the order, and gives it back. */
struct waiter {
	struct vfs_wlock *w;
	pthread_t thread;
	uint32_t us;
	atomic_int asked, got;
	uint32_t slept_us;
};

static atomic_int order;

static void *wait_for_it(void *arg)
{
	struct waiter *const s = arg;
	const uint64_t end = now_ns() + 5000 * MS;
	bool held = vfs_wlock_try(s->w, s);

	atomic_store(&s->asked, 1);
	while (!held && now_ns() < end) {
		s->slept_us += vfs_wlock_sleep(s->w, s, s->us);
		held = vfs_wlock_try(s->w, s);
	}
	if (held) {
		atomic_store(&s->got, atomic_fetch_add(&order, 1) + 1);
		vfs_wlock_release(s->w, s, false);
	}
	return NULL;
}

static void begin(struct waiter *s, struct vfs_wlock *w, uint32_t us)
{
	*s = (struct waiter){ .w = w, .us = us };
	assert_int_equal(pthread_create(&s->thread, NULL, wait_for_it, s), 0);
	while (!atomic_load(&s->asked))
		pass_ms(1);
}

static void one_holder(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_null(vfs_wlock_holder(w));
	assert_true(vfs_wlock_try(w, A));
	assert_true(vfs_wlock_try(w, A)); /* had it before */
	assert_ptr_equal(vfs_wlock_holder(w), A);
	assert_false(vfs_wlock_try(w, B));
	vfs_wlock_release(w, B, false); /* not the holder */
	assert_ptr_equal(vfs_wlock_holder(w), A);
	vfs_wlock_release(w, A, false);
	assert_null(vfs_wlock_holder(w));
	assert_true(vfs_wlock_try(w, C)); /* B asked once and is gone: it blocks nobody */
	vfs_wlock_release(w, C, false);
	pass_ms(3);
	assert_true(vfs_wlock_try(w, C));
	vfs_wlock_release(w, C, false);
	vfs_wlock_free(w);
	vfs_wlock_free(NULL);
}

/* A waiter of under 2 ms is overtaken, one of over 2 ms is not. */
static void barging_is_bounded(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();
	int overtaken = 0;

	/* The first part depends on the machine's pace; it must succeed at least once. */
	for (int i = 0; i < 50 && overtaken == 0; i++) {
		assert_true(vfs_wlock_try(w, A));
		const uint64_t asked = now_ns();
		vfs_wlock_try(w, B);
		vfs_wlock_try(w, B);
		vfs_wlock_release(w, A, false);
		const bool again = vfs_wlock_try(w, A);
		overtaken += again;
		if (!again)
			assert_true(now_ns() - asked >= 2 * MS);
		if (again)
			vfs_wlock_release(w, A, false);
		vfs_wlock_forget(w, B);
	}
	assert_true(overtaken > 0);

	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, B));
	pass_ms(4);
	assert_false(vfs_wlock_try(w, B));
	vfs_wlock_release(w, A, false);
	assert_false(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, C));
	assert_true(vfs_wlock_try(w, B));
	vfs_wlock_release(w, B, false);
	vfs_wlock_free(w);
}

static void unclaimed_reservations_lapse(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, B));
	pass_ms(4);
	assert_false(vfs_wlock_try(w, B));
	const uint64_t released = now_ns();
	vfs_wlock_release(w, A, false);
	while (!vfs_wlock_try(w, C)) { /* B never comes */
		assert_true(now_ns() - released < 1000 * MS);
		pass_ms(1);
	}
	const uint64_t waited = now_ns() - released;
	assert_true(waited >= 45 * MS);
	/* Its ticket went too: it stands behind the others now. */
	vfs_wlock_release(w, C, false);
	assert_true(vfs_wlock_try(w, D));
	vfs_wlock_release(w, D, false);
	vfs_wlock_free(w);
}

/* A sleeper gets up when the reservation of another lapses, without anyone calling. */
static void sleepers_notice_a_lapse(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();
	struct waiter s;

	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, B));
	pass_ms(4);
	assert_false(vfs_wlock_try(w, B));
	begin(&s, w, 4000000);
	const uint64_t released = now_ns();
	vfs_wlock_release(w, A, false);
	pthread_join(s.thread, NULL);
	assert_true(atomic_load(&s.got) > 0);
	assert_true(now_ns() - released < 1000 * MS);
	vfs_wlock_free(w);
}

static void tickets_lapse(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, B));
	assert_false(vfs_wlock_try(w, B));
	pass_ms(110);
	vfs_wlock_release(w, A, false);
	assert_true(vfs_wlock_try(w, A)); /* nothing is reserved for B any more */
	vfs_wlock_release(w, A, false);
	vfs_wlock_free(w);
}

static void kept_for_the_retry(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_true(vfs_wlock_try(w, A));
	vfs_wlock_release(w, A, true);
	assert_null(vfs_wlock_holder(w));
	const uint64_t released = now_ns();
	if (!vfs_wlock_try(w, B))
		assert_true(vfs_wlock_try(w, A));
	else
		assert_true(now_ns() - released >= 50 * MS);
	vfs_wlock_forget(w, B == vfs_wlock_holder(w) ? A : B);
	vfs_wlock_release(w, vfs_wlock_holder(w), true);
	const uint64_t again = now_ns();
	while (!vfs_wlock_try(w, C)) {
		assert_true(now_ns() - again < 1000 * MS);
		pass_ms(1);
	}
	assert_true(now_ns() - again >= 45 * MS);
	vfs_wlock_release(w, C, false);
	vfs_wlock_free(w);
}

static void forgotten(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, B));
	pass_ms(4);
	assert_false(vfs_wlock_try(w, B));
	vfs_wlock_release(w, A, false);
	assert_false(vfs_wlock_try(w, C)); /* reserved for B */
	vfs_wlock_forget(w, B);
	assert_true(vfs_wlock_try(w, C));
	vfs_wlock_release(w, C, true);
	vfs_wlock_forget(w, C);
	assert_true(vfs_wlock_try(w, A));
	vfs_wlock_release(w, A, false);
	vfs_wlock_forget(w, D); /* never heard of */
	vfs_wlock_free(w);
}

static void sleeping(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	/* Without a ticket: just time. */
	uint64_t before = now_ns();
	assert_true(vfs_wlock_sleep(w, A, 3000) >= 3000);
	assert_true(now_ns() - before >= 3 * MS);
	/* With one, the lock taken: the whole time. */
	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, B));
	before = now_ns();
	assert_true(vfs_wlock_sleep(w, B, 5000) >= 5000);
	assert_true(now_ns() - before >= 5 * MS);
	/* The lock free: at once, and then it is its own. */
	vfs_wlock_release(w, A, false);
	assert_true(vfs_wlock_sleep(w, B, 2000000) < 1000000);
	assert_false(vfs_wlock_try(w, A));
	assert_true(vfs_wlock_try(w, B));
	vfs_wlock_release(w, B, false);

	/* Also for one that has waited so little that others might still go before. */
	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, C));
	vfs_wlock_release(w, A, false);
	vfs_wlock_sleep(w, C, 2000000);
	assert_false(vfs_wlock_try(w, A));
	assert_true(vfs_wlock_try(w, C));
	vfs_wlock_release(w, C, false);
	vfs_wlock_forget(w, A);

	/* Woken by the release. */
	struct waiter s;
	assert_true(vfs_wlock_try(w, A));
	begin(&s, w, 4000000);
	pass_ms(5);
	before = now_ns();
	vfs_wlock_release(w, A, false);
	pthread_join(s.thread, NULL);
	assert_true(atomic_load(&s.got) > 0);
	assert_true(now_ns() - before < 1000 * MS);
	vfs_wlock_free(w);
}

static void sleepers_come_in_order(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();
	struct waiter s[5];

	atomic_store(&order, 0);
	assert_true(vfs_wlock_try(w, A));
	for (int i = 0; i < 5; i++)
		begin(&s[i], w, 4000000);
	pass_ms(5);
	vfs_wlock_release(w, A, false);
	for (int i = 0; i < 5; i++)
		pthread_join(s[i].thread, NULL);
	for (int i = 0; i < 5; i++)
		assert_int_equal(atomic_load(&s[i].got), i + 1);
	vfs_wlock_free(w);
}

struct taker { struct vfs_wlock *w; pthread_t thread; uint32_t timeout_ms; bool got; int place; atomic_int done; };

static void *take_it(void *arg)
{
	struct taker *const t = arg;
	t->got = vfs_wlock_take(t->w, t, t->timeout_ms);
	if (t->got) {
		t->place = atomic_fetch_add(&order, 1) + 1;
		vfs_wlock_release(t->w, t, false);
	}
	atomic_store(&t->done, 1);
	return NULL;
}

static void taking_goes_first(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();
	struct waiter s;
	struct taker t = { .w = w, .timeout_ms = 5000 };

	assert_true(vfs_wlock_take(w, A, 0)); /* free */
	assert_true(vfs_wlock_take(w, A, 0)); /* had it before */
	uint64_t before = now_ns();
	assert_false(vfs_wlock_take(w, B, 20));
	assert_true(now_ns() - before >= 20 * MS);
	assert_false(vfs_wlock_take(w, B, 0));
	vfs_wlock_release(w, A, false);
	assert_true(vfs_wlock_try(w, A)); /* who gave up blocks nobody */

	atomic_store(&order, 0);
	begin(&s, w, 4000000);
	assert_int_equal(pthread_create(&t.thread, NULL, take_it, &t), 0);
	pass_ms(10);
	vfs_wlock_release(w, A, false);
	pthread_join(t.thread, NULL);
	pthread_join(s.thread, NULL);
	assert_true(t.got);
	assert_int_equal(t.place, 1);
	assert_int_equal(atomic_load(&s.got), 2);

	/* Also before one that has a reservation but does not come. */
	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, B));
	pass_ms(4);
	assert_false(vfs_wlock_try(w, B));
	vfs_wlock_release(w, A, false);
	before = now_ns();
	assert_true(vfs_wlock_take(w, C, 10));
	vfs_wlock_release(w, C, false);
	assert_true(vfs_wlock_try(w, B));
	vfs_wlock_release(w, B, false);
	vfs_wlock_free(w);
}

/* ---- many threads ---- */

#define THREADS 8

struct worker { struct vfs_wlock *w; pthread_t thread; uint64_t end_ns, longest_ns; uint32_t count; int kind; };

static int plain; /* guarded by the lock under test: ThreadSanitizer tells when it is not */
static atomic_int inside, clashes;

static void *work(void *arg)
{
	struct worker *const me = arg;
	while (now_ns() < me->end_ns) {
		const uint64_t before = now_ns();
		bool held = me->kind == 2 ? vfs_wlock_take(me->w, me, 1000) : vfs_wlock_try(me->w, me);
		while (!held && now_ns() < me->end_ns + 1000 * MS) {
			vfs_wlock_sleep(me->w, me, 20000);
			held = vfs_wlock_try(me->w, me);
		}
		if (!held)
			break;
		if (atomic_fetch_add(&inside, 1) != 0)
			atomic_fetch_add(&clashes, 1);
		plain++;
		for (const uint64_t until = now_ns() + 10000; now_ns() < until;)
			;
		atomic_fetch_sub(&inside, 1);
		const uint64_t waited = now_ns() - before;
		if (waited > me->longest_ns)
			me->longest_ns = waited;
		me->count++;
		vfs_wlock_release(me->w, me, me->kind == 1 && me->count % 16 == 0);
		if (me->kind == 2)
			pass_ms(7);
	}
	vfs_wlock_forget(me->w, me);
	return NULL;
}

static uint32_t run(struct worker *workers, int n, int kinds, uint64_t ms)
{
	struct vfs_wlock *const w = start();
	uint32_t total = 0;

	plain = 0;
	atomic_store(&clashes, 0);
	for (int i = 0; i < n; i++) {
		workers[i] = (struct worker){ .w = w, .end_ns = now_ns() + ms * MS, .kind = i % kinds };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (int i = 0; i < n; i++) {
		pthread_join(workers[i].thread, NULL);
		total += workers[i].count;
	}
	assert_null(vfs_wlock_holder(w));
	assert_int_equal(atomic_load(&clashes), 0);
	assert_int_equal(plain, total);
	vfs_wlock_free(w);
	return total;
}

static void fair_among_eight(void **state)
{
	(void)state;
	struct worker w[THREADS];
	const uint32_t alone = run(w, 1, 1, 300);
	const uint32_t total = run(w, THREADS, 1, 1000);
	uint64_t longest = 0;
	uint32_t least = UINT32_MAX, most = 0;

	for (int i = 0; i < THREADS; i++) {
		longest = w[i].longest_ns > longest ? w[i].longest_ns : longest;
		least = w[i].count < least ? w[i].count : least;
		most = w[i].count > most ? w[i].count : most;
	}
	printf("# per second: 1 thread %u, 8 threads %u; least %u, most %u of a thread; longest wait %.1f ms\n",
	       alone * 10 / 3, total, least, most, (double)longest / 1e6);
	/* With turns of about 2 ms nobody starves; the bounds leave room for a loaded machine. */
	assert_true(least > 0);
	assert_true(longest < 800 * MS);
	assert_true(least >= most / 50);
	assert_true(total >= alone / 3); /* strict alternation would be far below */
}

static void all_kinds_together(void **state)
{
	(void)state;
	struct worker w[THREADS];
	assert_true(run(w, THREADS, 3, 700) > 0);
	for (int i = 0; i < THREADS; i++)
		assert_true(w[i].count > 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_holder), cmocka_unit_test(barging_is_bounded),
		cmocka_unit_test(unclaimed_reservations_lapse), cmocka_unit_test(sleepers_notice_a_lapse),
		cmocka_unit_test(tickets_lapse), cmocka_unit_test(kept_for_the_retry), cmocka_unit_test(forgotten),
		cmocka_unit_test(sleeping), cmocka_unit_test(sleepers_come_in_order), cmocka_unit_test(taking_goes_first),
		cmocka_unit_test(fair_among_eight), cmocka_unit_test(all_kinds_together),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
