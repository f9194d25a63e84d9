/* ClockBound's clock: CLOCK_REALTIME, and a bound on its error that the daemon `clockbound` keeps in shared memory (its
 * shared memory protocol, version 2).
 *
 *   bytes   u64 magic, u32 size, u16 version, u16 generation, i64 i64 as-of (seconds, nanoseconds), i64 i64 void-after, i64 bound
 *           (ns), u64 disruption marker, u32 max drift (parts per 10^9), i32 status, u8 disruption support, u8 x 7 padding;
 *           all in the machine's byte order. The magic is two u32, 414D5A4E and 43420200: that is how the daemon writes it. Its
 *           documentation gives it as the bytes 41 4D 5A 4E 43 42 02 00; both are taken.
 *   valid   if and only if magic and version are right, the size is not below 80, and the generation is even, not 0, and the
 *           same before and after the reading. The writer makes it odd, writes, and makes it even again; from 65,534 it goes
 *           on with 2.
 *   means   at CLOCK_MONOTONIC as-of, CLOCK_REALTIME was wrong by at most `bound`; since then, by at most `max drift` times the
 *           time gone by more. Nothing is known from void-after on, nor when the status is Unknown or Disrupted (Synchronized
 *           and FreeRunning are good).
 *
 * Read by pread, not by mapping: the daemon truncates the file when it makes it anew, and a look into the mapping at that
 * moment would kill the process. It is a library's guest there.
 *
 * A suspended machine: CLOCK_MONOTONIC stands still, so that as-of would seem younger than it is, and the kernel sets
 * CLOCK_REALTIME afterwards by a clock that is good to a second. It shows in the distance of CLOCK_BOOTTIME from
 * CLOCK_MONOTONIC. From then on only a segment that was written later counts; the same at the opening, about whose past
 * nothing is known. A disruption of a virtual machine is known from the time when the daemon has noted it: VMClock, by which a
 * client could learn of it earlier, is not read. */
#include "wire/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000
#define SECONDS_MAX ((int64_t)1 << 32)
#define BOUND_MAX_NS ((int64_t)86400 * NS)
#define TRIES 100
#define REOPEN_NS NS
#define SUSPEND_NS 1000000 /* shorter ones can't be told from the time between two looks */

struct header {
	uint32_t magic[2], size;
	uint16_t version, generation;
};
struct segment {
	struct header head;
	int64_t as_of_s, as_of_ns, void_s, void_ns, bound_ns;
	uint64_t marker;
	uint32_t drift_ppb;
	int32_t status;
	uint8_t disruption_support, padding[7];
};
_Static_assert(sizeof(struct header) == 16 && sizeof(struct segment) == 80, "the documented layout");

enum { VERSION = 2, UNKNOWN = 0, SYNCHRONIZED = 1, FREE_RUNNING = 2, DISRUPTED = 3 };

struct bound {
	int fd; /* stays the same number: another file is put in its place */
	struct wire_clockbound_clocks clocks;
	_Atomic int64_t asleep_ns; /* BOOTTIME - MONOTONIC, at most, as known */
	_Atomic int64_t since_ns;  /* MONOTONIC: what was written up to then does not count */
	pthread_mutex_t mu;        /* for changing the above; leaf */
	int64_t opened_ns;         /* MONOTONIC of the latest attempt */
	char path[];
};

/* ---- the system's clocks ---- */

static int64_t system_ns(clockid_t id)
{
	struct timespec t;

	if (clock_gettime(id, &t))
		abort(); /* only on a kernel without it */
	return (int64_t)t.tv_sec * NS + t.tv_nsec;
}

static int64_t system_realtime(void *ctx)
{
	(void)ctx;
	return system_ns(CLOCK_REALTIME);
}

static int64_t system_monotonic(void *ctx)
{
	(void)ctx;
	return system_ns(CLOCK_MONOTONIC);
}

static int64_t system_boottime(void *ctx)
{
	(void)ctx;
	return system_ns(CLOCK_BOOTTIME);
}

static int64_t monotonic(const struct bound *b)
{
	return b->clocks.monotonic_ns(b->clocks.ctx);
}

/* ---- the segment ---- */

static enum wire_clock_status check_header(const struct header *h)
{
	static const uint8_t bytes[8] = { 0x41, 0x4d, 0x5a, 0x4e, 0x43, 0x42, 0x02, 0x00 };
	bool words = h->magic[0] == 0x414d5a4e && h->magic[1] == 0x43420200;

	if (!words && memcmp(h->magic, bytes, sizeof bytes) != 0)
		return WIRE_CLOCK_MALFORMED;
	if (h->version == 0 || h->generation == 0 || h->generation % 2)
		return WIRE_CLOCK_WRITING;
	if (h->version != VERSION)
		return WIRE_CLOCK_VERSION;
	return h->size < sizeof(struct segment) ? WIRE_CLOCK_MALFORMED : WIRE_CLOCK_OK;
}

static enum wire_clock_status read_at(int fd, void *dst, size_t n)
{
	ssize_t got;

	do
		got = pread(fd, dst, n, 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return WIRE_CLOCK_UNREADABLE;
	return (size_t)got == n ? WIRE_CLOCK_OK : WIRE_CLOCK_MALFORMED;
}

static enum wire_clock_status read_segment(int fd, struct segment *ret)
{
	enum wire_clock_status status = WIRE_CLOCK_WRITING;

	for (int i = 0; i < TRIES && status == WIRE_CLOCK_WRITING; i++) {
		struct header before, after;

		status = read_at(fd, &before, sizeof before);
		if (status == WIRE_CLOCK_OK)
			status = check_header(&before);
		if (status != WIRE_CLOCK_OK)
			continue;
		/* The kernel copies with plain loads; these keep the three in order. */
		atomic_thread_fence(memory_order_seq_cst);
		status = read_at(fd, ret, sizeof *ret);
		atomic_thread_fence(memory_order_seq_cst);
		if (status == WIRE_CLOCK_OK)
			status = read_at(fd, &after, sizeof after);
		if (status == WIRE_CLOCK_OK && memcmp(&before, &after, sizeof before) != 0)
			status = WIRE_CLOCK_WRITING;
	}
	return status;
}

static bool time_ok(int64_t s, int64_t ns)
{
	return s >= 0 && s < SECONDS_MAX && ns >= 0 && ns < NS;
}

static enum wire_clock_status check_segment(const struct segment *g)
{
	if (!time_ok(g->as_of_s, g->as_of_ns) || !time_ok(g->void_s, g->void_ns) || g->bound_ns < 0 || g->bound_ns > BOUND_MAX_NS ||
	    g->drift_ppb >= NS)
		return WIRE_CLOCK_MALFORMED;
	switch (g->status) {
	case SYNCHRONIZED:
	case FREE_RUNNING:
		return WIRE_CLOCK_OK;
	case DISRUPTED:
		return WIRE_CLOCK_DISRUPTED;
	case UNKNOWN:
		return WIRE_CLOCK_UNKNOWN;
	default:
		return WIRE_CLOCK_MALFORMED;
	}
}

/* Drift in whole seconds and in the rest, so that nothing overflows; rounded up. */
static int64_t error_ns(const struct segment *g, int64_t gone_ns)
{
	int64_t s = gone_ns / NS, rest = gone_ns % NS;

	return g->bound_ns + s * (int64_t)g->drift_ppb + rest * (int64_t)g->drift_ppb / NS + 1;
}

static int open_segment(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode))) {
		close(fd);
		errno = EINVAL;
		return -1;
	}
	return fd;
}

/* A daemon that was started anew may have made another file. */
static void reopen(struct bound *b)
{
	int64_t now = monotonic(b);
	int fd;

	if (pthread_mutex_trylock(&b->mu))
		return;
	if (now - b->opened_ns >= REOPEN_NS) {
		b->opened_ns = now;
		fd = open_segment(b->path);
		if (fd >= 0) {
			(void)dup3(fd, b->fd, O_CLOEXEC); /* fails only with errors that the next attempt will have too */
			close(fd);
		}
	}
	pthread_mutex_unlock(&b->mu);
}

/* ---- suspension ---- */

/* True when what was written at as_of may not be relied on. */
static bool slept_since(struct bound *b, int64_t as_of)
{
	/* Between two looks at MONOTONIC, so that being kept from running in between does not look like a suspension. */
	int64_t before = monotonic(b), boot = b->clocks.boottime_ns(b->clocks.ctx), after = monotonic(b);

	if (boot - after > atomic_load_explicit(&b->asleep_ns, memory_order_acquire) + SUSPEND_NS) {
		pthread_mutex_lock(&b->mu);
		if (boot - after > atomic_load_explicit(&b->asleep_ns, memory_order_relaxed) + SUSPEND_NS) {
			atomic_store_explicit(&b->since_ns, after, memory_order_release);
			atomic_store_explicit(&b->asleep_ns, boot - before, memory_order_release);
		}
		pthread_mutex_unlock(&b->mu);
	}
	return as_of <= atomic_load_explicit(&b->since_ns, memory_order_acquire);
}

static void begin(struct bound *b)
{
	int64_t least = INT64_MAX;

	for (int i = 0; i < 16; i++) {
		int64_t before = monotonic(b), distance = b->clocks.boottime_ns(b->clocks.ctx) - before;

		if (distance < least)
			least = distance;
	}
	atomic_store(&b->asleep_ns, least);
	atomic_store(&b->since_ns, monotonic(b));
	b->opened_ns = monotonic(b);
}

/* ---- the clock ---- */

static enum wire_clock_status look(struct bound *b, struct wire_clock_reading *ret)
{
	struct segment g;
	int64_t real, mono, as_of, error;
	enum wire_clock_status status = read_segment(b->fd, &g);

	if (status == WIRE_CLOCK_OK)
		status = check_segment(&g);
	if (status != WIRE_CLOCK_OK)
		return status;
	/* In this order: whatever happens between the two makes the error larger, not smaller. */
	real = b->clocks.realtime_ns(b->clocks.ctx);
	mono = monotonic(b);
	as_of = g.as_of_s * NS + g.as_of_ns;
	if (mono >= g.void_s * NS + g.void_ns)
		return WIRE_CLOCK_VOID;
	if (as_of > mono)
		return WIRE_CLOCK_AHEAD;
	if (slept_since(b, as_of))
		return WIRE_CLOCK_SUSPENDED;
	error = error_ns(&g, mono - as_of);
	if (real <= error + 1000)
		return WIRE_CLOCK_UNKNOWN;
	ret->earliest_us = (uint64_t)(real - error) / 1000;
	ret->latest_us = (uint64_t)(real + error + 999) / 1000;
	return WIRE_CLOCK_OK;
}

static void bound_now(void *ctx, struct wire_clock_reading *ret_reading)
{
	struct bound *b = ctx;

	*ret_reading = (struct wire_clock_reading){ 0 };
	ret_reading->status = look(b, ret_reading);
	switch (ret_reading->status) {
	case WIRE_CLOCK_UNREADABLE:
	case WIRE_CLOCK_MALFORMED:
	case WIRE_CLOCK_VERSION:
	case WIRE_CLOCK_WRITING:
	case WIRE_CLOCK_VOID:
		reopen(b);
		break;
	default:
		break;
	}
}

static void bound_close(void *ctx)
{
	struct bound *b = ctx;

	if (b->fd >= 0)
		close(b->fd);
	pthread_mutex_destroy(&b->mu);
	free(b);
}

int wire_clock_clockbound(const char *path, const struct wire_clockbound_clocks *clocks, struct wire_clock *ret_clock,
                          struct wire_err *err)
{
	static const struct wire_clockbound_clocks system = { NULL, system_realtime, system_monotonic, system_boottime };
	struct segment g;
	enum wire_clock_status status;
	struct bound *b;
	size_t len;

	if (!path)
		path = WIRE_CLOCKBOUND_PATH;
	len = strlen(path) + 1;
	b = calloc(1, sizeof *b + len);
	if (!b)
		return wire_fail(err, WIRE_NOMEM, "no memory for the clock of %s", path);
	memcpy(b->path, path, len);
	b->clocks = clocks ? *clocks : system;
	pthread_mutex_init(&b->mu, NULL);
	b->fd = open_segment(path);
	if (b->fd < 0) {
		int sys = errno;

		bound_close(b);
		return wire_fail_errno(err, sys, "cannot open ClockBound's segment %s", path);
	}
	begin(b);
	/* One that is being written, or says that it knows nothing, may be good later. */
	status = read_segment(b->fd, &g);
	if (status != WIRE_CLOCK_OK && status != WIRE_CLOCK_WRITING) {
		bound_close(b);
		return wire_fail(err, status == WIRE_CLOCK_VERSION ? WIRE_VERSION : WIRE_CORRUPT, "%s: %s", path,
		                 wire_clock_status_text(status));
	}
	*ret_clock = (struct wire_clock){ .name = "ClockBound", .ctx = b, .now = bound_now, .close = bound_close };
	return WIRE_OK;
}
