/* Asynchronous tickets of the write lock: holders that no thread here stands for, beside threads that do. */
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
#define THREADS 4
#define REMOTE 4

static const char A[1], B[1], C[1], D[1];
static atomic_int handed;

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

static void on_handed(void *ctx)
{
	assert_non_null(vfs_wlock_holder(ctx)); /* it may be called from here: no lock of the queue's is held */
	atomic_fetch_add(&handed, 1);
}

static struct vfs_wlock *start(void)
{
	struct vfs_wlock *const w = vfs_wlock_new();
	assert_non_null(w);
	vfs_wlock_on_handed(w, on_handed, w);
	atomic_store(&handed, 0);
	return w;
}

static void handed_over_in_order(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_int_equal(vfs_wlock_ask(w, A), VFS_WLOCK_HELD);
	assert_int_equal(vfs_wlock_ask(w, A), VFS_WLOCK_HELD); /* again: it has it */
	assert_int_equal(vfs_wlock_ask(w, B), VFS_WLOCK_QUEUED);
	assert_int_equal(vfs_wlock_ask(w, C), VFS_WLOCK_QUEUED);
	assert_int_equal(vfs_wlock_ask(w, B), VFS_WLOCK_QUEUED); /* again: its place stays */
	assert_int_equal(atomic_load(&handed), 0);
	vfs_wlock_release(w, A, false);
	assert_ptr_equal(vfs_wlock_holder(w), B);
	assert_int_equal(atomic_load(&handed), 1);
	assert_false(vfs_wlock_try(w, D)); /* a thread that runs does not barge past those that are handed over to */
	vfs_wlock_release(w, B, false);
	assert_ptr_equal(vfs_wlock_holder(w), C);
	vfs_wlock_release(w, C, false);
	assert_null(vfs_wlock_holder(w));
	assert_int_equal(atomic_load(&handed), 2);
	assert_true(vfs_wlock_try(w, D));
	vfs_wlock_release(w, D, false);
	vfs_wlock_free(w);
}

static void they_do_not_lapse(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_true(vfs_wlock_try(w, A));
	assert_int_equal(vfs_wlock_ask(w, B), VFS_WLOCK_QUEUED);
	pass_ms(150); /* the ticket of a connection would be gone */
	vfs_wlock_release(w, A, false);
	assert_ptr_equal(vfs_wlock_holder(w), B);
	pass_ms(80); /* and its reservation */
	vfs_wlock_settle(w);
	assert_ptr_equal(vfs_wlock_holder(w), B);
	vfs_wlock_release(w, B, false);
	vfs_wlock_free(w);
}

/* A connection asked twice, so that the lock is reserved for it after a while, and is gone. Nobody else calls: settling sees to those behind it. */
static void what_lapsed_is_passed(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();
	const uint64_t end = now_ns() + 2000 * MS;

	assert_true(vfs_wlock_try(w, A));
	assert_false(vfs_wlock_try(w, D));
	assert_false(vfs_wlock_try(w, D));
	assert_int_equal(vfs_wlock_ask(w, B), VFS_WLOCK_QUEUED);
	pass_ms(5);
	vfs_wlock_release(w, A, false);
	assert_null(vfs_wlock_holder(w)); /* it is D's turn */
	while (vfs_wlock_holder(w) == NULL && now_ns() < end) {
		pass_ms(5);
		vfs_wlock_settle(w);
	}
	assert_ptr_equal(vfs_wlock_holder(w), B);
	vfs_wlock_forget(w, B);
	vfs_wlock_free(w);
}

static void forgotten(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_int_equal(vfs_wlock_ask(w, A), VFS_WLOCK_HELD);
	assert_int_equal(vfs_wlock_ask(w, B), VFS_WLOCK_QUEUED);
	assert_int_equal(vfs_wlock_ask(w, C), VFS_WLOCK_QUEUED);
	vfs_wlock_forget(w, B);
	vfs_wlock_forget(w, A); /* with the lock */
	assert_ptr_equal(vfs_wlock_holder(w), C);
	vfs_wlock_forget(w, C);
	assert_null(vfs_wlock_holder(w));
	vfs_wlock_forget(w, C); /* of nothing */
	vfs_wlock_free(w);
}

static void void_takes_it_from_all_but_the_node(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();

	assert_true(vfs_wlock_try(w, A));
	vfs_wlock_void(w);
	assert_null(vfs_wlock_holder(w));
	assert_true(vfs_wlock_try(w, B));
	vfs_wlock_release(w, A, false); /* of what it has no more */
	assert_ptr_equal(vfs_wlock_holder(w), B);
	vfs_wlock_release(w, B, true);
	vfs_wlock_void(w); /* what was kept for B */
	assert_true(vfs_wlock_try(w, A));
	vfs_wlock_release(w, A, false);
	assert_int_equal(vfs_wlock_ask(w, C), VFS_WLOCK_HELD);
	vfs_wlock_void(w);
	assert_null(vfs_wlock_holder(w));
	assert_true(vfs_wlock_take(w, D, 1000));
	vfs_wlock_void(w);
	assert_ptr_equal(vfs_wlock_holder(w), D); /* a restart of the WAL goes on */
	vfs_wlock_release(w, D, false);
	vfs_wlock_free(w);
}

struct taker { struct vfs_wlock *w; pthread_t thread; atomic_bool began, had; };

static void *take(void *arg)
{
	struct taker *const t = arg;
	atomic_store(&t->began, true);
	atomic_store(&t->had, vfs_wlock_take(t->w, t, 5000));
	if (atomic_load(&t->had))
		vfs_wlock_release(t->w, t, false);
	return NULL;
}

/* The mover, and a restart, wait for whoever has the lock, and go before those that wait. */
static void taking_goes_first(void **state)
{
	(void)state;
	struct vfs_wlock *const w = start();
	struct taker t = { .w = w };

	assert_int_equal(vfs_wlock_ask(w, A), VFS_WLOCK_HELD);
	assert_int_equal(vfs_wlock_ask(w, B), VFS_WLOCK_QUEUED);
	assert_int_equal(pthread_create(&t.thread, NULL, take, &t), 0);
	while (!atomic_load(&t.began))
		pass_ms(1);
	pass_ms(20);
	assert_false(atomic_load(&t.had));
	vfs_wlock_release(w, A, false);
	pthread_join(t.thread, NULL);
	assert_true(atomic_load(&t.had));
	assert_ptr_equal(vfs_wlock_holder(w), B); /* handed over when the taker let go */
	vfs_wlock_release(w, B, false);
	vfs_wlock_free(w);
}

/* ---- all together ---- */

struct local { struct vfs_wlock *w; pthread_t thread; uint64_t end_ns; uint32_t count; };
static uint64_t plain; /* only the holder touches it */

static void transaction(void)
{
	const uint64_t until = now_ns() + 200000;

	while (now_ns() < until)
		;
	plain++;
}

static void *write_here(void *arg)
{
	struct local *const l = arg;
	while (now_ns() < l->end_ns) {
		if (!vfs_wlock_try(l->w, l)) {
			vfs_wlock_sleep(l->w, l, 1000);
			continue;
		}
		transaction();
		l->count++;
		vfs_wlock_release(l->w, l, false);
	}
	vfs_wlock_forget(l->w, l);
	return NULL;
}

/* The owner of all asynchronous tickets, as a node's thread is: wakes when something was handed over. */
static struct { pthread_mutex_t mutex; pthread_cond_t cond; bool news; } owner = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false };

static void tell_owner(void *ctx)
{
	(void)ctx;
	pthread_mutex_lock(&owner.mutex);
	owner.news = true;
	pthread_cond_signal(&owner.cond);
	pthread_mutex_unlock(&owner.mutex);
}

static void wait_for_news(void)
{
	struct timespec at;
	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_nsec += 5000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_sec++;
		at.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&owner.mutex);
	while (!owner.news && pthread_cond_timedwait(&owner.cond, &owner.mutex, &at) == 0)
		;
	owner.news = false;
	pthread_mutex_unlock(&owner.mutex);
}

static void fair_with_threads(void **state)
{
	(void)state;
	struct vfs_wlock *const w = vfs_wlock_new();
	struct local locals[THREADS];
	uint32_t remote[REMOTE] = { 0 };
	const uint64_t end = now_ns() + 1500 * MS;
	uint64_t total = 0;
	uint32_t least = UINT32_MAX, most = 0;

	plain = 0;
	vfs_wlock_on_handed(w, tell_owner, NULL);
	for (int i = 0; i < THREADS; i++) {
		locals[i] = (struct local){ .w = w, .end_ns = end };
		assert_int_equal(pthread_create(&locals[i].thread, NULL, write_here, &locals[i]), 0);
	}
	while (now_ns() < end) {
		const void *holder;

		for (int i = 0; i < REMOTE; i++)
			(void)vfs_wlock_ask(w, &remote[i]); /* as those that come back at once */
		holder = vfs_wlock_holder(w);
		if (holder >= (const void *)remote && holder < (const void *)(remote + REMOTE)) {
			transaction();
			remote[(const uint32_t *)holder - remote]++;
			vfs_wlock_release(w, holder, false);
		} else {
			vfs_wlock_settle(w);
			wait_for_news();
		}
	}
	for (int i = 0; i < REMOTE; i++)
		vfs_wlock_forget(w, &remote[i]);
	for (int i = 0; i < THREADS; i++)
		pthread_join(locals[i].thread, NULL);
	for (int i = 0; i < THREADS + REMOTE; i++) {
		const uint32_t count = i < THREADS ? locals[i].count : remote[i - THREADS];
		total += count;
		least = count < least ? count : least;
		most = count > most ? count : most;
	}
	printf("# %d threads beside %d asynchronous tickets: %llu turns, least %u, most %u; of tickets %u\n", THREADS, REMOTE, (unsigned long long)total, least, most, remote[0]);
	assert_null(vfs_wlock_holder(w));
	assert_int_equal(plain, total);
	/* They come in turn; the bound leaves room for a loaded machine. */
	assert_true(least > 0 && least >= most / 8);
	vfs_wlock_free(w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(handed_over_in_order), cmocka_unit_test(they_do_not_lapse), cmocka_unit_test(what_lapsed_is_passed),
		cmocka_unit_test(forgotten), cmocka_unit_test(void_takes_it_from_all_but_the_node), cmocka_unit_test(taking_goes_first),
		cmocka_unit_test(fair_with_threads),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
