/* Ages, for bounded reads (README.md, "Levels of reads"), and the gate of bounded reads in attached processes. */
#include "raft/raft.h"
#include "shell/attach_impl.h"

/* Readings of clocks are cut to whole microseconds, on both sides of a difference. */
#define GRAIN_US 2u
#define AGE_MAX_US (UINT64_MAX / 1000000)

uint64_t shell_age_us(const struct wire_clock *clock, uint64_t at_us, const struct wire_clock_reading *now)
{
	uint64_t drift = clock->drift_ppm ? clock->drift_ppm : RAFT_DRIFT_PPM;

	if (!at_us || now->status != WIRE_CLOCK_OK || now->latest_us < at_us || now->latest_us - at_us > AGE_MAX_US - GRAIN_US || drift >= 1000000)
		return UINT64_MAX;
	return (now->latest_us - at_us + GRAIN_US) * 1000000 / (1000000 - drift) + 1;
}

/* Up to half the bound: behind that the host is asked, which mostly lets it pass at once, and sees to it that there is something newer. The owner last, as in lease_covers. */
bool attached_is_fresh(const struct shell_attached *a, uint32_t bound_ms)
{
	struct wire_clock_reading now;
	uint64_t at = atomic_load_explicit(&a->shared->lease.fresh_us, memory_order_acquire);

	if (!at || !a->same_clock)
		return false;
	a->clock.now(a->clock.ctx, &now);
	return shell_age_us(&a->clock, at, &now) <= (uint64_t)bound_ms * 500 && attached_is_owner_there(a);
}
