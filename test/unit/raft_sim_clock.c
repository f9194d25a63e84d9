/* The simulator's clocks, and what leases promise (I11). True time is s->now_us; each node reads a clock of its own, whose
 * rate is wrong by as much as the run allows, and changes. */
#include "test/unit/raft_sim_impl.h"

/* Where an absolute clock's count begins. */
#define EPOCH_US UINT64_C(1700000000000000)
#define LENGTH_UNIT 1000000

static uint64_t reading(const struct sim_clock *c, uint64_t true_us)
{
	uint64_t gone = true_us - c->since_us;

	return c->read_us + (c->ppm >= 0 ? gone + gone * (uint64_t)c->ppm / LENGTH_UNIT : gone - gone * (uint64_t)-c->ppm / LENGTH_UNIT);
}

uint64_t sim_clock(const struct sim *s, const struct sim_node *n)
{
	return reading(&n->clock, s->now_us);
}

uint64_t sim_clock_when(const struct sim *s, const struct sim_node *n, uint64_t read_us)
{
	const struct sim_clock *c = &n->clock;

	if (read_us == UINT64_MAX)
		return UINT64_MAX;
	if (read_us <= reading(c, s->now_us))
		return s->now_us;
	uint64_t left = read_us - reading(c, s->now_us);
	uint64_t at = s->now_us + left * LENGTH_UNIT / (uint64_t)(LENGTH_UNIT + c->ppm);
	while (reading(c, at) < read_us)
		at++;
	return at;
}

/* Mostly as wrong as can be: that is where the rule is tight. In half of the runs also in the worst way: leaders are slow,
 * the others fast. */
static void set(struct sim *s, struct sim_node *n, uint64_t read_us)
{
	uint64_t bound = s->drift_ppm, dice = s->worst_rates ? n->role != RAFT_LEADER : sim_random(s, 4);

	n->clock.since_us = s->now_us;
	n->clock.read_us = read_us;
	if (dice == 0)
		n->clock.ppm = -(int64_t)bound;
	else if (dice == 1)
		n->clock.ppm = (int64_t)bound;
	else
		n->clock.ppm = (int64_t)sim_random(s, 2 * bound + 1) - (int64_t)bound;
}

void sim_clock_start(struct sim *s, struct sim_node *n)
{
	set(s, n, 1000 + sim_random(s, 1000000));
}

void sim_clock_rate(struct sim *s, struct sim_node *n)
{
	set(s, n, sim_clock(s, n));
}

/* Back: any clock, and it is looked at before it has caught up. On: a leader's only; a follower's would break its promise. */
void sim_clock_jump(struct sim *s, struct sim_node *n)
{
	uint64_t now = sim_clock(s, n), by = 1 + sim_random(s, 400000);

	if (n->role == RAFT_LEADER && sim_chance(s, 500))
		set(s, n, now + by);
	else if (n->raft && n->clock_seen_us > by)
		set(s, n, n->clock_seen_us - by);
	sim_step(s, n, (struct raft_event){ .type = RAFT_EV_TICK });
}

struct raft_clock sim_lease_clock(struct sim *s, struct sim_node *n)
{
	struct raft_clock c = { 0 };

	if (!n->absolute)
		return c;
	uint64_t now = EPOCH_US + s->now_us, low = sim_random(s, s->clock_error_us + 1);

	c.earliest_us = now - low;
	c.latest_us = now + (s->clock_error_us - low);
	c.unsure = !s->all_absolute && sim_chance(s, 10);
	return c;
}

/* By the reading that shows the least time gone. */
bool sim_lease_valid(const struct sim *s, const struct sim_node *n)
{
	uint64_t now = n->absolute ? EPOCH_US + s->now_us : sim_clock(s, n);

	return n->raft && now < n->lease_until_us;
}

/* I11, I7: whoever holds a lease at this moment, its node's thread awake or not, may serve a read with what it knows. */
void sim_check_leases(struct sim *s, const struct sim_node *leader)
{
	for (uint32_t i = 0; i < NODES; i++) {
		const struct sim_node *n = &s->n[i];
		if (!sim_lease_valid(s, n))
			continue;
		if (n->read_index < s->committed.last)
			sim_fail(s, "I7: by its lease node %u would read at %u, but %u is published", i + 1, (unsigned)n->read_index,
			         (unsigned)s->committed.last);
		if (leader && n != leader)
			sim_fail(s, "I11: node %u holds a lease, but node %u leads term %u", i + 1, (unsigned)leader->id,
			         (unsigned)leader->now_term);
	}
}

void sim_read_by_lease(struct sim *s)
{
	for (uint32_t i = 0; i < NODES; i++)
		s->counts->lease_reads += sim_lease_valid(s, &s->n[i]);
	sim_check_leases(s, NULL);
}
