/* Clocks to measure leases by. ClockBound's is read from segments that are written here, as its documentation says. */
#include "wire/clock.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define NS INT64_C(1000000000)

/* ---- a writer, with its own idea of the layout ---- */

enum { AT_MAGIC = 0, AT_SIZE = 8, AT_VERSION = 12, AT_GENERATION = 14, AT_AS_OF = 16, AT_VOID_AFTER = 32, AT_BOUND = 48,
       AT_MARKER = 56, AT_DRIFT = 64, AT_STATUS = 68, AT_SUPPORT = 72, SEGMENT = 80 };

struct facts { int64_t as_of_ns, void_ns, bound_ns; uint32_t drift_ppb; int32_t status; };

static char top[64], path[128];
static uint8_t *segment;

static void put(size_t at, const void *value, size_t n)
{
	memcpy(segment + at, value, n);
}

static void put_time(size_t at, int64_t ns)
{
	const int64_t v[2] = { ns / NS, ns % NS };

	put(at, v, sizeof v);
}

static _Atomic uint16_t *generation(void)
{
	return (_Atomic uint16_t *)(void *)(segment + AT_GENERATION);
}

static void map(bool make_anew)
{
	int fd = open(path, O_RDWR | O_CREAT | (make_anew ? O_TRUNC : 0), 0644);

	assert_true(fd >= 0 && ftruncate(fd, SEGMENT) == 0);
	segment = mmap(NULL, SEGMENT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(segment != MAP_FAILED);
	close(fd);
}

static void make(void)
{
	const uint32_t magic[2] = { 0x414d5a4e, 0x43420200 }, size = SEGMENT;
	const uint16_t version = 2;

	map(true);
	put(AT_MAGIC, magic, sizeof magic);
	put(AT_SIZE, &size, sizeof size);
	put(AT_VERSION, &version, sizeof version);
}

static void facts(const struct facts *f)
{
	put_time(AT_AS_OF, f->as_of_ns);
	put_time(AT_VOID_AFTER, f->void_ns);
	put(AT_BOUND, &f->bound_ns, 8);
	put(AT_DRIFT, &f->drift_ppb, 4);
	put(AT_STATUS, &f->status, 4);
}

/* Odd while it is written; from the largest even number on with 2. */
static void update(const struct facts *f)
{
	uint16_t g = (uint16_t)(atomic_load(generation()) | 1);

	atomic_store(generation(), g);
	atomic_thread_fence(memory_order_seq_cst);
	facts(f);
	atomic_thread_fence(memory_order_seq_cst);
	atomic_store(generation(), (uint16_t)(g + 1) ? (uint16_t)(g + 1) : 2);
}

/* ---- fake time ---- */

static _Atomic int64_t real_ns, mono_ns, asleep_ns;

static int64_t fake_real(void *ctx)
{
	(void)ctx;
	return real_ns;
}

static int64_t fake_mono(void *ctx)
{
	(void)ctx;
	return mono_ns;
}

static int64_t fake_boot(void *ctx)
{
	(void)ctx;
	return mono_ns + asleep_ns;
}

static const struct wire_clockbound_clocks fake = { NULL, fake_real, fake_mono, fake_boot };

static void pass(int64_t ns)
{
	real_ns += ns;
	mono_ns += ns;
}

static struct wire_clock clock_;
static const int64_t start_real = INT64_C(1700000000) * NS, start_mono = 5000 * NS;

static struct wire_clock_reading now(void)
{
	struct wire_clock_reading r;

	clock_.now(clock_.ctx, &r);
	if (r.status != WIRE_CLOCK_OK)
		assert_true(r.earliest_us == 0 && r.latest_us == 0);
	return r;
}

static struct facts good(void)
{
	return (struct facts){ mono_ns, mono_ns + 1000 * NS, 50000, 0, 1 };
}

/* Opened a moment before its segment was written last. */
static int setup(void **state)
{
	struct wire_err err;

	(void)state;
	strcpy(top, "/tmp/walraft-clock-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(path, sizeof path, "%s/shm0", top);
	real_ns = start_real;
	mono_ns = start_mono;
	asleep_ns = 77 * NS;
	make();
	struct facts f = good();
	update(&f);
	if (wire_clock_clockbound(path, &fake, &clock_, &err)) {
		print_error("%s\n", err.text);
		return -1;
	}
	pass(1000);
	f = good();
	update(&f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (clock_.close)
		clock_.close(clock_.ctx);
	memset(&clock_, 0, sizeof clock_);
	if (segment)
		munmap(segment, SEGMENT);
	segment = NULL;
	unlink(path);
	return rmdir(top);
}

/* ---- tests ---- */

static void boottime(void **state)
{
	struct wire_clock c;
	struct wire_clock_reading r;
	const struct wire_env *env = wire_env_posix();
	uint64_t before, after;

	(void)state;
	wire_clock_boottime(env, &c);
	before = env->now_ns(env->ctx) / 1000;
	c.now(c.ctx, &r);
	after = env->now_ns(env->ctx) / 1000;
	assert_true(r.status == WIRE_CLOCK_OK && r.earliest_us == r.latest_us && r.earliest_us >= before && r.latest_us <= after);
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	assert_true(after <= (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000);
	c.close(c.ctx);
}

/* The interval is the bound on either side, and grows with the drift since as-of. */
static void interval(void **state)
{
	struct facts f = good();
	struct wire_clock_reading r = now();

	(void)state;
	assert_int_equal(r.status, WIRE_CLOCK_OK);
	assert_int_equal(r.earliest_us, real_ns / 1000 - 51);
	assert_int_equal(r.latest_us, real_ns / 1000 + 51);
	f.drift_ppb = 1000; /* a microsecond a second */
	f.status = 2;
	update(&f);
	pass(30 * NS);
	r = now();
	assert_int_equal(r.status, WIRE_CLOCK_OK);
	assert_int_equal(r.latest_us - r.earliest_us, 2 * (50 + 30 + 1));
	assert_true(r.earliest_us < (uint64_t)real_ns / 1000 && r.latest_us > (uint64_t)real_ns / 1000);
}

static void statuses(void **state)
{
	static const struct { int64_t as_of, void_after, bound; uint32_t drift; int32_t status; enum wire_clock_status want; } cases[] = {
		{ 0, 1, 5, 0, 1, WIRE_CLOCK_OK },
		{ 0, 1, 5, 999999999, 2, WIRE_CLOCK_OK },
		{ 0, 1, 5, 0, 0, WIRE_CLOCK_UNKNOWN },
		{ 0, 1, 5, 0, 3, WIRE_CLOCK_DISRUPTED },
		{ 0, 1, 5, 0, 4, WIRE_CLOCK_MALFORMED },
		{ 0, 1, 5, 0, -1, WIRE_CLOCK_MALFORMED },
		{ 0, 0, 5, 0, 1, WIRE_CLOCK_VOID },
		{ 1, 2, 5, 0, 1, WIRE_CLOCK_AHEAD },
		{ 0, 1, -1, 0, 1, WIRE_CLOCK_MALFORMED },
		{ 0, 1, INT64_MAX, 0, 1, WIRE_CLOCK_MALFORMED },
		{ 0, 1, 5, 1000000000, 1, WIRE_CLOCK_MALFORMED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		update(&(struct facts){ mono_ns + cases[i].as_of, mono_ns + cases[i].void_after, cases[i].bound, cases[i].drift, cases[i].status });
		assert_int_equal(now().status, cases[i].want);
	}
	/* Nanoseconds that are none. */
	struct facts f = good();
	update(&f);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	put(AT_AS_OF + 8, &(int64_t){ NS }, 8);
	assert_int_equal(now().status, WIRE_CLOCK_MALFORMED);
	put(AT_AS_OF, &(int64_t[2]){ INT64_MAX, 0 }, 16);
	assert_int_equal(now().status, WIRE_CLOCK_MALFORMED);
}

/* Nothing of what is void is given to anybody: the last good moment, and the first bad one. */
static void void_after(void **state)
{
	struct facts f = good();

	(void)state;
	update(&f);
	pass(1000 * NS - 1);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	pass(1);
	assert_int_equal(now().status, WIRE_CLOCK_VOID);
	f = good();
	update(&f);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
}

static void generations(void **state)
{
	struct facts f = good();

	(void)state;
	atomic_store(generation(), 7);
	assert_int_equal(now().status, WIRE_CLOCK_WRITING);
	atomic_store(generation(), 0); /* made, not filled */
	assert_int_equal(now().status, WIRE_CLOCK_WRITING);
	atomic_store(generation(), 65534);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	update(&f);
	assert_int_equal(atomic_load(generation()), 2);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
}

static void headers(void **state)
{
	struct facts f = good();

	(void)state;
	/* As the documentation prints it. */
	put(AT_MAGIC, "\x41\x4d\x5a\x4e\x43\x42\x02\x00", 8);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	put(AT_MAGIC, "\x41\x4d\x5a\x4e\x43\x42\x03\x00", 8);
	assert_int_equal(now().status, WIRE_CLOCK_MALFORMED);
	munmap(segment, SEGMENT);
	make();
	update(&f);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	put(AT_VERSION, &(uint16_t){ 1 }, 2);
	assert_int_equal(now().status, WIRE_CLOCK_VERSION);
	put(AT_VERSION, &(uint16_t){ 3 }, 2);
	assert_int_equal(now().status, WIRE_CLOCK_VERSION);
	put(AT_VERSION, &(uint16_t){ 0 }, 2); /* the daemon begins anew */
	assert_int_equal(now().status, WIRE_CLOCK_WRITING);
	put(AT_VERSION, &(uint16_t){ 2 }, 2);
	put(AT_SIZE, &(uint32_t){ 79 }, 4);
	assert_int_equal(now().status, WIRE_CLOCK_MALFORMED);
	put(AT_SIZE, &(uint32_t){ 4096 }, 4); /* a later one may have more behind it */
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	/* Truncated, as it is for a moment when the daemon starts: an error, not a dead process. */
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(now().status, WIRE_CLOCK_MALFORMED);
	assert_int_equal(truncate(path, 79), 0);
	assert_int_not_equal(now().status, WIRE_CLOCK_OK);
}

static void opening(void **state)
{
	struct wire_clock c;
	struct wire_err err = { 0 };

	(void)state;
	assert_int_equal(wire_clock_clockbound("/nonexistent/shm0", &fake, &c, &err), WIRE_NOTFOUND);
	assert_non_null(strstr(err.text, "/nonexistent/shm0"));
	assert_int_not_equal(wire_clock_clockbound(top, &fake, &c, &err), WIRE_OK);
	put(AT_VERSION, &(uint16_t){ 1 }, 2);
	assert_int_equal(wire_clock_clockbound(path, &fake, &c, &err), WIRE_VERSION);
	assert_non_null(strstr(err.text, "layout"));
	put(AT_MAGIC, "x", 1);
	assert_int_equal(wire_clock_clockbound(path, &fake, &c, &err), WIRE_CORRUPT);
	assert_non_null(strstr(err.text, path));
	/* Being written, or knowing nothing yet, is no reason. */
	munmap(segment, SEGMENT);
	make();
	assert_int_equal(wire_clock_clockbound(path, &fake, &c, &err), WIRE_OK);
	c.close(c.ctx);
	for (int s = WIRE_CLOCK_OK; s <= WIRE_CLOCK_AHEAD; s++)
		assert_true(strlen(wire_clock_status_text((enum wire_clock_status)s)) > 5);
	assert_string_equal(wire_clock_status_text((enum wire_clock_status)99), "?");
}

/* What was written before the opening, or before a suspension, does not count. */
static void suspension(void **state)
{
	struct wire_clock first = clock_;
	struct facts f = good();

	(void)state;
	assert_int_equal(wire_clock_clockbound(path, &fake, &clock_, NULL), WIRE_OK);
	assert_int_equal(now().status, WIRE_CLOCK_SUSPENDED);
	pass(1);
	assert_int_equal(now().status, WIRE_CLOCK_SUSPENDED);
	f = good();
	update(&f);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	for (int i = 0; i < 3; i++) {
		asleep_ns += 2000000; /* MONOTONIC stood still for two milliseconds */
		real_ns += 2000000;
		assert_int_equal(now().status, WIRE_CLOCK_SUSPENDED);
		pass(NS / 2);
		assert_int_equal(now().status, WIRE_CLOCK_SUSPENDED);
		f = good();
		f.as_of_ns = mono_ns - NS / 2; /* written after it, for a moment before */
		update(&f);
		assert_int_equal(now().status, WIRE_CLOCK_SUSPENDED);
		f = good();
		update(&f);
		assert_int_equal(now().status, WIRE_CLOCK_OK);
	}
	first.close(first.ctx);
}

/* A daemon that made another file is found within a second of the first doubt. */
static void another_file(void **state)
{
	struct facts f;

	(void)state;
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	unlink(path);
	munmap(segment, SEGMENT);
	make();
	pass(1000 * NS);
	f = good();
	update(&f);
	assert_int_equal(now().status, WIRE_CLOCK_VOID);
	assert_int_equal(now().status, WIRE_CLOCK_OK);
	/* Not there for a while. */
	unlink(path);
	pass(1000 * NS);
	assert_int_equal(now().status, WIRE_CLOCK_VOID);
	munmap(segment, SEGMENT);
	make();
	f = good();
	update(&f);
	assert_int_equal(now().status, WIRE_CLOCK_VOID);
	pass(NS);
	now();
	assert_int_equal(now().status, WIRE_CLOCK_OK);
}

/* ---- a busy writer ---- */

static atomic_bool stop;

/* Facts that change all the time, and of which any that belong together give the same interval at the same moment. The drift
 * lies in another cache line than the rest: what is in one is hardly ever torn. */
static struct facts facts_of(int64_t k)
{
	int64_t age_s = 1 + k % 100;
	uint32_t ppb = 1 + (uint32_t)(k * 7919 % 10000000);

	return (struct facts){ mono_ns - age_s * NS, mono_ns + NS, 2000000000 - age_s * ppb, ppb, 1 };
}

static void *write_busily(void *arg)
{
	(void)arg;
	for (int64_t k = 0; !stop; k++) {
		struct facts f = facts_of(k);
		update(&f);
	}
	return NULL;
}

static atomic_uint n_good, n_torn, n_writing, n_other;

static void *read_busily(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100000 && n_good < 40000; i++) {
		struct wire_clock_reading r;
		clock_.now(clock_.ctx, &r);
		if (r.status == WIRE_CLOCK_OK && r.latest_us - r.earliest_us == 2 * (2000000 + 1))
			n_good++;
		else if (r.status == WIRE_CLOCK_OK)
			n_torn++;
		else if (r.status == WIRE_CLOCK_WRITING)
			n_writing++;
		else
			n_other++;
	}
	return NULL;
}

static void busy_writer(void **state)
{
	pthread_t w, r[3];

	(void)state;
	pass(2000 * NS); /* all that is written is later than the opening */
	stop = false;
	n_good = n_torn = n_writing = n_other = 0;
	struct facts f = facts_of(0);
	update(&f);
	assert_int_equal(pthread_create(&w, NULL, write_busily, NULL), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&r[i], NULL, read_busily, NULL), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(r[i], NULL);
	stop = true;
	pthread_join(w, NULL);
	printf("# %u whole readings, %u torn, %u given up, %u others\n", n_good, n_torn, n_writing, n_other);
	assert_int_equal(n_torn, 0);
	assert_int_equal(n_other, 0);
	assert_true(n_good > 100);
}

/* With the system's own clocks. */
static void system_clocks(void **state)
{
	struct wire_clock mine = clock_;
	struct timespec t;
	struct facts f = { 0, 0, 1000000, 50000, 1 };

	(void)state;
	assert_int_equal(wire_clock_clockbound(path, NULL, &clock_, NULL), WIRE_OK);
	clock_gettime(CLOCK_MONOTONIC, &t); /* the coarse one is behind by a tick: wait for it in steps of a look */
	int64_t opened = (int64_t)t.tv_sec * NS + t.tv_nsec;
	do {
		clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
		f.as_of_ns = (int64_t)t.tv_sec * NS + t.tv_nsec;
	} while (f.as_of_ns <= opened);
	f.void_ns = f.as_of_ns + 60 * NS;
	update(&f);
	clock_gettime(CLOCK_REALTIME, &t);
	struct wire_clock_reading r = now();
	uint64_t us = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
	assert_int_equal(r.status, WIRE_CLOCK_OK);
	assert_true(r.latest_us >= us + 1000 && r.earliest_us + 1000 >= us && r.latest_us - r.earliest_us >= 2000);
	mine.close(mine.ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(boottime),
		cmocka_unit_test_setup_teardown(interval, setup, teardown),
		cmocka_unit_test_setup_teardown(statuses, setup, teardown),
		cmocka_unit_test_setup_teardown(void_after, setup, teardown),
		cmocka_unit_test_setup_teardown(generations, setup, teardown),
		cmocka_unit_test_setup_teardown(headers, setup, teardown),
		cmocka_unit_test_setup_teardown(opening, setup, teardown),
		cmocka_unit_test_setup_teardown(suspension, setup, teardown),
		cmocka_unit_test_setup_teardown(another_file, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_writer, setup, teardown),
		cmocka_unit_test_setup_teardown(system_clocks, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("clocks", tests, NULL, NULL);
}
