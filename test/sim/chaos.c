/* Faults. Which kinds a run has, and how often they come, follows from the seed. */
#include "test/sim/check.h"
#include <stdlib.h>

static void restart_later(struct sim *s, struct sim_node *n)
{
	uint64_t us = rng_chance(&s->rng, 800) ? 5000 + rng_below(&s->rng, 1500000) : rng_below(&s->rng, 12000000);

	sim_post(s, (struct sim_event){ .at_us = s->now_us + us, .type = EV_START, .slot = (uint8_t)n->slot, .life = n->life });
}

static bool crash(struct sim *s, struct sim_node *n, enum node_end how)
{
	if (!n->up)
		return false;
	node_stop(n, how);
	restart_later(s, n);
	return true;
}

static bool crash_all(struct sim *s)
{
	uint32_t most = rng_chance(&s->rng, 300) ? 1000 : 500;
	bool any = false;

	if (!rng_chance(&s->rng, 250))
		return false;
	for (uint32_t i = 0; i < SLOTS; i++)
		if (rng_chance(&s->rng, most))
			any |= crash(s, &s->n[i], rng_chance(&s->rng, 700) ? END_POWER : END_KILL);
	return any;
}

/* One node from some or all others, two halves, or one direction only. */
static bool cut(struct sim *s)
{
	uint32_t how = rng_below32(&s->rng, 4), a = rng_below32(&s->rng, SLOTS), side = rng_below32(&s->rng, 1u << SLOTS);
	const struct sim_node *l = sim_leader(s);

	if (l && rng_chance(&s->rng, 400))
		a = l->slot;
	s->counts->one_way += how == 2;
	for (uint32_t i = 0; i < SLOTS; i++) {
		for (uint32_t k = 0; k < SLOTS; k++) {
			bool of_a = i == a || k == a;
			if (i == k)
				continue;
			if ((how == 0 && of_a) || (how == 1 && of_a && rng_chance(&s->rng, 600)) || (how == 2 && i == a) ||
			    (how == 3 && ((side >> i ^ side >> k) & 1)))
				net_cut(s, i, k);
		}
	}
	return true;
}

static bool heal(struct sim *s)
{
	net_heal(s);
	return true;
}

static bool slow(struct sim *s, const struct sim_node *n)
{
	s->link[n->slot][rng_below(&s->rng, SLOTS)].slow_us = 1 + rng_below32(&s->rng, s->p.election_us);
	return true;
}

static bool tell_link(struct sim *s)
{
	struct sim_node *n = &s->n[rng_below(&s->rng, SLOTS)];
	struct raft_event ev = { .type = rng_chance(&s->rng, 500) ? RAFT_EV_UNREACHABLE : RAFT_EV_REACHABLE,
		                 .peer = s->n[rng_below(&s->rng, SLOTS)].id };

	if (!node_ask(n, ev, NULL, NULL))
		return false;
	node_drain(n);
	node_settled(n);
	return true;
}

static bool sleep_for(struct sim *s, struct sim_node *n, uint64_t us)
{
	if (!n->up)
		return false;
	n->asleep_until_us = s->now_us + us;
	sim_post(s, (struct sim_event){ .at_us = n->asleep_until_us, .type = EV_WAKE, .slot = (uint8_t)n->slot, .life = n->life });
	return true;
}

static int64_t some_ppm(struct sim *s)
{
	if (rng_chance(&s->rng, 500))
		return rng_chance(&s->rng, 500) ? s->p.drift_ppm : -(int64_t)s->p.drift_ppm;
	return (int64_t)rng_below(&s->rng, 2 * (uint64_t)s->p.drift_ppm + 1) - s->p.drift_ppm;
}

static void set_clock(struct sim *s, struct sim_node *n)
{
	node_set_clock(n, some_ppm(s), s->p.jumps ? (int64_t)rng_below(&s->rng, 2 * (uint64_t)s->p.election_us) : 0);
	s->counts->jumps += s->p.jumps;
	if (n->clock_early_us)
		node_draw_interval(n);
}

static bool set_clocks(struct sim *s, const struct sim_node *n)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (&s->n[i] == n || rng_chance(&s->rng, 400))
			set_clock(s, &s->n[i]);
	return true;
}

static bool rot(struct sim *s, struct sim_node *n)
{
	bool much = rng_chance(&s->rng, 400);

	if (!admin_may_lose(s, n) || !disk_rot(n->disk, much))
		return false;
	sim_trace(s, "node %llu: its disk rots (0 a bit, 1 more): %llu", n->id, much, 0, 0, 0, 0);
	n->rotted = true;
	n->rotted_much = much;
	s->lost_id = n->id;
	/* A damaged node may vote and acknowledge as long as it does not look; it soon will. */
	node_stop(n, END_POWER);
	restart_later(s, n);
	return true;
}

static bool lose_disk(struct sim *s, struct sim_node *n)
{
	if (!rng_chance(&s->rng, 300) || !admin_may_lose(s, n))
		return false;
	node_wipe(n);
	return true;
}

/* The node comes back under its id, without what it had promised. */
static bool forget(struct sim *s, struct sim_node *n, enum chaos_kind kind)
{
	struct sim_node *from = sim_leader(s);

	if (!admin_may_lose(s, n) || n->forgetful || n->dur_forgetful)
		return false;
	return kind == CHAOS_ROLL_BACK ? node_roll_back(n) : rng_chance(&s->rng, 300) && node_forget(n, from);
}

static bool disk_fault(struct sim *s, struct sim_node *n, enum chaos_kind kind)
{
	if (!n->has_journal)
		return false;
	if (kind == CHAOS_SYNC_ERROR) {
		disk_fail_sync(n->disk);
	} else if (kind == CHAOS_WRITE_ERROR) {
		disk_fail_write(n->disk);
	} else if (kind == CHAOS_IO_CRASH) {
		disk_crash_after(n->disk, 1 + rng_below32(&s->rng, 30));
	} else {
		bool full = rng_chance(&s->rng, 500);
		disk_set_full(n->disk, full);
		return full;
	}
	return true;
}

/* Stale leaders too: what they took in is truncated later. */
static bool burst(struct sim *s)
{
	bool any = false;

	for (uint32_t i = 0; i < SLOTS; i++) {
		if (s->n[i].role != RAFT_LEADER || !s->n[i].up)
			continue;
		client_burst(&s->n[i], 1 + rng_below32(&s->rng, rng_chance(&s->rng, 200) ? 200 : 20));
		node_drain(&s->n[i]);
		node_settled(&s->n[i]);
		any = true;
	}
	return any;
}

/* False: it had no effect. */
static bool strike(struct sim *s, enum chaos_kind kind)
{
	struct sim_node *n = &s->n[rng_below(&s->rng, SLOTS)], *l = sim_leader(s);

	if (l && rng_chance(&s->rng, 300))
		n = l;
	if (s->verbose)
		sim_trace(s, "chaos: kind %llu, node %llu", kind, n->id, 0, 0, 0, 0);
	switch (kind) {
	case CHAOS_KILL:
		return crash(s, n, END_KILL);
	case CHAOS_POWER:
		return crash(s, n, END_POWER);
	case CHAOS_CLEAN:
		return crash(s, n, END_CLEAN);
	case CHAOS_ALL:
		return crash_all(s);
	case CHAOS_CUT:
		return cut(s);
	case CHAOS_HEAL:
		return heal(s);
	case CHAOS_SLOW:
		return slow(s, n);
	case CHAOS_PAUSE:
		return sleep_for(s, n, rng_below(&s->rng, 4 * (uint64_t)s->p.election_us));
	case CHAOS_CLOCK:
		return set_clocks(s, n);
	case CHAOS_SYNC_ERROR:
	case CHAOS_WRITE_ERROR:
	case CHAOS_IO_CRASH:
	case CHAOS_FULL:
		return disk_fault(s, n, kind);
	case CHAOS_ROT:
		return rot(s, n);
	case CHAOS_WIPE:
		return lose_disk(s, n);
	case CHAOS_MEMBERS:
		return admin_change(s);
	case CHAOS_TRANSFER:
		return admin_transfer(s);
	case CHAOS_LINK:
		return tell_link(s);
	case CHAOS_BURST:
		return burst(s);
	case CHAOS_MEMORY:
		n->memory_in = 1 + rng_below(&s->rng, rng_chance(&s->rng, 500) ? 4 : 40);
		return true;
	case CHAOS_MISTAKE:
		return mistake(n);
	case CHAOS_FORGET:
	case CHAOS_ROLL_BACK:
		return forget(s, n, kind);
	case CHAOS_UPGRADE:
		if (n->level == RAFT_LEVEL || !n->up)
			return false;
		n->level = RAFT_LEVEL;
		s->counts->upgrades++;
		return crash(s, n, END_CLEAN);
	case CHAOS_KINDS:
		break;
	}
	return false;
}

void chaos_event(struct sim *s)
{
	sim_post(s, (struct sim_event){ .at_us = s->now_us + 1 + rng_below(&s->rng, 2 * (uint64_t)s->p.chaos_us), .type = EV_CHAOS });
	if (s->quiet)
		return;
	enum chaos_kind kind = (enum chaos_kind)rng_below(&s->rng, CHAOS_KINDS);
	if (s->p.chaos_mask >> kind & 1)
		s->counts->faults[kind] += strike(s, kind);
}

void chaos_end(struct sim *s)
{
	bool limited = s->p.keep_log_bytes != 0;

	s->quiet = true;
	s->p.keep_log_bytes = 0;
	s->p.loss = s->p.repeat = s->p.slow_us = 0;
	net_heal(s);
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct sim_node *n = &s->n[i];
		disk_clear_faults(n->disk);
		n->memory_in = 0;
		/* Programs are replaced, and witnesses get a larger limit: where the group cannot do without one, that is what it takes. */
		if (n->level < RAFT_LEVEL || (limited && node_is_witness(n)))
			node_stop(n, END_CLEAN);
		n->level = RAFT_LEVEL;
		node_set_clock(n, 0, 0);
		n->clock_unsure = false;
		n->asleep_until_us = s->now_us;
		if (n->up)
			node_drain(n);
		else
			node_start(n);
		if (s->failed)
			return;
	}
}
