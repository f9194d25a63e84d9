/* Who had better lead: priorities of members, and data voters before witnesses. Nothing here is needed for safety, or may harm it:
 * it makes elections later or asks for a transfer (transfer.c), and who wins is decided by votes as ever.
 *
 * Standing. A voter waits one election timeout longer for each voter that comes before it, up to RAFT_PRIORITY_STEPS; with priority 0,
 * where others have one, always for one more than that. So those that come first have stood before, if they are there; if they are not, or
 * their logs are too old, the others follow. Pre-votes and votes are given as usual: a candidate that comes late
 * must not be refused, since it may be the only one that can win.
 *
 * Handing over. A leader gives way to the voter with the highest priority above its own that has been fit for RAFT_FIT_HEARTBEATS
 * without interruption: heard lately (as CheckQuorum counts), its log replicated in a pipeline and near the end. After a try the next one to
 * the same member waits for RAFT_RETRY_TIMEOUTS election timeouts, then twice as long each time, up to RAFT_RETRY_LONGEST of
 * them; a member that nothing was tried with for eight times its wait begins anew. The memory is the node's, over its terms as
 * a leader, so that a member that cannot win, or cannot stay, disturbs ever less.
 *
 * A transfer that somebody asked for (RAFT_EV_TRANSFER) is not undone at once: TIMEOUT_NOW tells the new leader for how long
 * it is to leave leadership where it is, RAFT_ASKED_TIMEOUTS if a peer was named, else RAFT_LEFT_TIMEOUTS, which is for a
 * node that is about to end. A change of priorities that comes later ends that. */
#include "raft/core.h"

static bool data_before(uint8_t flags, uint8_t self)
{
	return !(flags & RAFT_WITNESS) && (self & RAFT_WITNESS);
}

/* How much later than others it stands. In steps of what the network needs, not of what an idle leader may be silent. */
uint64_t raft_priority_delay(const struct raft *r)
{
	const struct raft_config *c = raft_config_current(r);
	const struct raft_member *self = raft_config_find(c, r->self);
	uint64_t before = 0;

	if (!self || !(self->flags & (RAFT_VOTER | RAFT_VOTER_OLD)))
		return 0;
	for (uint32_t i = 0; i < c->n; i++) {
		const struct raft_member *m = &c->m[i];
		if (m == self || !(m->flags & (RAFT_VOTER | RAFT_VOTER_OLD)) || data_before(self->flags, m->flags))
			continue;
		before += data_before(m->flags, self->flags) || m->priority > self->priority;
	}
	if (before > RAFT_PRIORITY_STEPS)
		before = RAFT_PRIORITY_STEPS;
	if (before && !self->priority)
		before = RAFT_PRIORITY_STEPS + 1;
	return before * raft_patience(r);
}

static uint8_t own_priority(const struct raft *r)
{
	const struct raft_member *self = raft_config_find(raft_config_current(r), r->self);

	return self ? self->priority : 0;
}

static bool fit(const struct raft *r, const struct raft_peer *p)
{
	return (p->flags & RAFT_VOTER) && !(p->flags & RAFT_WITNESS) && p->state == RAFT_REPLICATE && !p->full && !p->forgot && p->heard_us &&
	       r->now_us < p->alive_until_us && raft_transfer_near(r, p);
}

static uint64_t wait_of(const struct raft *r, const struct raft_peer *p)
{
	uint64_t timeouts = RAFT_RETRY_TIMEOUTS;

	for (uint32_t i = 1; i < p->tries && timeouts < RAFT_RETRY_LONGEST; i++)
		timeouts *= 2;
	return p->tries ? timeouts * r->election_us : 0;
}

/* When it may be tried. */
static uint64_t due(const struct raft *r, const struct raft_peer *p)
{
	uint64_t steady = p->fit_since_us + RAFT_FIT_HEARTBEATS * (uint64_t)r->heartbeat_us, again = p->tried_us + wait_of(r, p);
	uint64_t at = steady > again ? steady : again;

	return at > r->hold_until_us ? at : r->hold_until_us;
}

static bool quiet(const struct raft *r)
{
	return raft_leader_is_ready(r) && !r->transfer_to && !r->n_new && raft_config_committed(r) && !raft_config_current(r)->joint;
}

void raft_priority_pump(struct raft *r)
{
	struct raft_peer *best = NULL;
	uint8_t own = own_priority(r);

	if (raft_self_witness(r))
		return;
	for (uint32_t i = 0; i < r->n_peers; i++) {
		struct raft_peer *p = &r->peers[i];
		if (p->priority <= own || !fit(r, p))
			p->fit_since_us = 0;
		else if (!p->fit_since_us)
			p->fit_since_us = r->now_us;
		if (!p->fit_since_us || r->now_us < due(r, p))
			continue;
		if (!best || p->priority > best->priority || (p->priority == best->priority && p->match > best->match))
			best = p;
	}
	if (!best || !quiet(r))
		return;
	if (best->tries && r->now_us > best->tried_us + 8 * wait_of(r, best))
		best->tries = 0;
	best->tries++;
	best->tried_us = r->now_us;
	best->fit_since_us = 0;
	if (!r->ask_first) {
		raft_transfer_auto(r, best);
		return;
	}
	r->prefer = r->preferred = best->id;
	raft_tell(r, RAFT_TOLD_TRANSFER_PROPOSED, best->id, raft_log_last(&r->log), best->match, 0);
}

uint64_t raft_priority_deadline(const struct raft *r)
{
	uint64_t d = UINT64_MAX;

	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		/* What is due and was not done waits for something else than time. */
		if (p->fit_since_us && due(r, p) < d && due(r, p) > r->now_us)
			d = due(r, p);
	}
	return d;
}
