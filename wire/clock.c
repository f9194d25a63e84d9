/* Clocks to measure leases by: what they have in common, and the plain one. */
#include "wire/clock.h"

const char *wire_clock_status_text(enum wire_clock_status status)
{
	static const char *const texts[] = {
#define X(name, text) text,
		WIRE_CLOCK_STATUSES(X)
#undef X
	};

	return (unsigned)status < sizeof texts / sizeof texts[0] ? texts[status] : "?";
}

static void boottime_now(void *ctx, struct wire_clock_reading *ret_reading)
{
	const struct wire_env *env = ctx;
	uint64_t us = env->now_ns(env->ctx) / 1000;

	*ret_reading = (struct wire_clock_reading){ us, us, WIRE_CLOCK_OK };
}

static void boottime_close(void *ctx)
{
	(void)ctx;
}

void wire_clock_boottime(const struct wire_env *env, struct wire_clock *ret_clock)
{
	*ret_clock = (struct wire_clock){
		.name = "boottime",
		.ctx = (void *)env, /* only read */
		.now = boottime_now,
		.close = boottime_close,
	};
}
