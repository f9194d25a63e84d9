/* Clocks to measure leases by. Each reading is an interval that contains the present, in microseconds since a moment that is
 * the clock's own; or it says that it cannot tell. How leases use them, and why that is safe: raft/lease.c.
 *
 *   boottime     now_ns of an env: CLOCK_BOOTTIME, which runs on while the machine is suspended. No error, but a rate that may
 *                be wrong by drift_ppm.
 *   ClockBound   true time (UTC) and a bound on its error, from the shared memory of AWS's ClockBound daemon.
 *
 * Threads: a clock may be read by any number of threads at a time. */
#ifndef WIRE_CLOCK_H
#define WIRE_CLOCK_H

#include "wire/env.h"
#include "wire/err.h"

#define WIRE_CLOCK_STATUSES(X)                                                                                         \
	X(OK, "the clock is good")                                                                                     \
	X(UNREADABLE, "the segment cannot be read; is clockbound running?")                                            \
	X(MALFORMED, "the segment is not one of ClockBound's, or it is incomplete")                                    \
	X(VERSION, "the segment has a layout that this program does not know")                                         \
	X(WRITING, "the segment is being written, or its writer died at it")                                           \
	X(VOID, "the segment was not brought up to date in time; is clockbound running?")                              \
	X(UNKNOWN, "ClockBound does not know how good the clock is; is chronyd running?")                              \
	X(DISRUPTED, "the clock was disrupted, and has not been set since")                                            \
	X(SUSPENDED, "the machine was suspended, and the clock has not been checked since")                            \
	X(AHEAD, "the segment was written later than now")

enum wire_clock_status {
#define X(name, text) WIRE_CLOCK_##name,
	WIRE_CLOCK_STATUSES(X)
#undef X
};
const char *wire_clock_status_text(enum wire_clock_status status);

struct wire_clock_reading {
	uint64_t earliest_us, latest_us; /* both ends belong to it; 0 unless OK */
	enum wire_clock_status status;
};

struct wire_clock {
	const char *name;
	uint32_t drift_ppm; /* by how much the rate of earliest_us may be wrong; 0: the default of raft/raft.h */
	void *ctx;
	void (*now)(void *ctx, struct wire_clock_reading *ret_reading);
	void (*close)(void *ctx);
};

/* On the env's clock. env outlives it. Needs no close, but may be closed. */
void wire_clock_boottime(const struct wire_env *env, struct wire_clock *ret_clock);

#define WIRE_CLOCKBOUND_PATH "/var/run/clockbound/shm0"

/* The system's clocks, for tests to replace; nanoseconds of CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME. */
struct wire_clockbound_clocks {
	void *ctx;
	int64_t (*realtime_ns)(void *ctx);
	int64_t (*monotonic_ns)(void *ctx);
	int64_t (*boottime_ns)(void *ctx);
};

/* Opens the segment at path (NULL: WIRE_CLOCKBOUND_PATH). clocks: NULL for the system's. Fails when there is no segment of a
 * known layout there, with the reason; the caller then takes another clock. Later trouble is told by each reading's status.
 * The first reading is OK only when the segment was written after the opening (once a second, as a rule). Close frees it. */
int wire_clock_clockbound(const char *path, const struct wire_clockbound_clocks *clocks, struct wire_clock *ret_clock,
                          struct wire_err *err);

#endif
