/* What a host shows to other processes: readers always get a whole state, never an older one than the sequence that they saw, whatever the host is at. */
#include "vfs/shared.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define STATES 200000u

static struct vfs_walindex_hdr state(uint32_t n)
{
	struct vfs_walindex_hdr h;
	uint32_t *word = (uint32_t *)&h;

	for (size_t i = 0; i < sizeof h / sizeof *word; i++)
		word[i] = n;
	return h;
}

/* The number of a state in which all words agree; UINT32_MAX: they do not. */
static uint32_t number(const struct vfs_walindex_hdr *h)
{
	const uint32_t *word = (const uint32_t *)h;

	for (size_t i = 1; i < sizeof *h / sizeof *word; i++)
		if (word[i] != word[0])
			return UINT32_MAX;
	return word[0];
}

static void *show_all(void *arg)
{
	struct vfs_shared *s = arg;

	for (uint32_t n = 1; n <= STATES; n++) {
		struct vfs_walindex_hdr h = state(n);

		vfs_shared_show(s, &h, n, n);
	}
	return NULL;
}

static void whole_states(void **unused)
{
	struct vfs_shared s = { 0 };
	struct vfs_walindex_hdr h;
	pthread_t writer;
	uint64_t sequence, index;
	uint32_t got, before = 0;

	(void)unused;
	assert_int_equal(pthread_create(&writer, NULL, show_all, &s), 0);
	do {
		index = atomic_load_explicit(&s.index, memory_order_acquire);
		sequence = atomic_load_explicit(&s.sequence, memory_order_acquire);
		vfs_shared_state(&s, &h);
		got = number(&h);
		assert_true(sequence >= index);
		assert_true(got != UINT32_MAX && got >= sequence && got >= before);
		before = got;
	} while (before < STATES);
	pthread_join(writer, NULL);
}

/* Killed at any place: the latest whole state is there at once. */
static void killed(void **unused)
{
	struct vfs_shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	(void)unused;
	assert_true(s != MAP_FAILED);
	for (int round = 0; round < 30; round++) {
		struct vfs_walindex_hdr h;
		uint64_t sequence;
		pid_t child;

		memset(s, 0, sizeof *s);
		child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			show_all(s);
			_exit(0);
		}
		while (atomic_load(&s->sequence) < 100u * (unsigned)round + 1)
			;
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		sequence = atomic_load(&s->sequence);
		vfs_shared_state(s, &h);
		assert_true(number(&h) != UINT32_MAX && number(&h) >= sequence && number(&h) <= sequence + 1);
	}
	munmap(s, sizeof *s);
}

static void restarts(void **unused)
{
	struct vfs_shared s = { 0 };

	(void)unused;
	vfs_shared_restart(&s, true);
	assert_int_equal(atomic_load(&s.restarts) & 1, 1);
	vfs_shared_restart(&s, false);
	assert_int_equal(atomic_load(&s.restarts), 2);
	/* The next host ends what the one before it was killed in, and a copy that was begun before sees that. */
	vfs_shared_restart(&s, true);
	vfs_shared_restart(&s, false);
	vfs_shared_restart(&s, false);
	assert_int_equal(atomic_load(&s.restarts), 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(whole_states), cmocka_unit_test(killed), cmocka_unit_test(restarts) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
