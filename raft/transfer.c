/* Handing leadership over (thesis 3.10). The leader takes no more proposals, brings the voter that shall lead level with
 * its own log, and tells it to stand for election at once; its requests carry WIRE_MSG_TRANSFER, so that they are heard
 * although the leader is alive. Nothing here is needed for safety: who is told this could as well have waited for its
 * election timeout, and wins by the same votes.
 *
 * Three ask for it: the driver (raft_transfer), priorities (priority.c), and a witness that leads (witness.c). The last two wait for another
 * step when one has just ended, so that each end is seen.
 *
 * A leader that has to go, since the configuration leaves it out or its disk hangs, tells a level voter the same and steps down with that. */
#include "raft/core.h"

/* It must be able to win within an election timeout: what waits for an image is not. */
static bool suits(const struct raft *r, const struct raft_peer *p)
{
	return (p->flags & RAFT_VOTER) && !(p->flags & RAFT_WITNESS) && !p->forgot && p->state != RAFT_SNAPSHOT && p->heard_us &&
	       r->now_us < p->alive_until_us;
}

bool raft_transfer_near(const struct raft *r, const struct raft_peer *p)
{
	return p->match + RAFT_NEAR_ENTRIES >= raft_log_last(&r->log);
}

/* Of those that lack little the one with the highest priority; then the one that lacks least; among equals the one that has
 * published most, since it will serve first. */
static bool better(const struct raft *r, const struct raft_peer *p, const struct raft_peer *b)
{
	bool near = raft_transfer_near(r, p);

	if (near != raft_transfer_near(r, b))
		return near;
	if (near && p->priority != b->priority)
		return p->priority > b->priority;
	return p->match > b->match || (p->match == b->match && p->applied > b->applied);
}

/* in_turn: before all, who was tried longest ago. */
static struct raft_peer *best(struct raft *r, bool in_turn)
{
	struct raft_peer *b = NULL;

	for (uint32_t i = 0; i < r->n_peers; i++) {
		struct raft_peer *p = &r->peers[i];
		if (!suits(r, p))
			continue;
		if (!b || (in_turn && p->tried_us < b->tried_us) || ((!in_turn || p->tried_us == b->tried_us) && better(r, p, b)))
			b = p;
	}
	return b;
}

static const char asked[] = "asked for";

/* Whoever was not asked tries again and again. */
static int refuse(struct raft *r, uint64_t peer, int code, const char *wish, const char *why)
{
	if (wish == asked)
		raft_tell_why(r, RAFT_TOLD_TRANSFER_REFUSED, peer, why, raft_log_last(&r->log), 0, 0);
	return code;
}

static int begin(struct raft *r, uint64_t peer, uint64_t hold_us, const char *why)
{
	const struct raft_peer *p = peer ? raft_peer(r, peer) : NULL;

	if (r->role != RAFT_LEADER)
		return refuse(r, peer, WIRE_NOTLEADER, why, "this node does not lead");
	if (peer && !(p && (p->flags & (RAFT_VOTER | RAFT_VOTER_OLD)) && !(p->flags & RAFT_WITNESS) && !p->forgot))
		return refuse(r, peer, WIRE_INVALID, why, "it is no other voter with a database");
	if (r->transfer_to && peer && peer != r->transfer_to)
		return refuse(r, peer, WIRE_BUSY, why, "another transfer is under way");
	if (r->transfer_to) {
		if (hold_us > r->transfer_hold_us)
			r->transfer_hold_us = hold_us;
		return WIRE_OK;
	}
	/* So the target stays a voter: no other change begins before this has ended. */
	if (!raft_config_committed(r) || raft_config_current(r)->joint)
		return refuse(r, peer, WIRE_BUSY, why, "a change of the configuration is not over");
	if (!p)
		p = best(r, false);
	if (!p)
		return refuse(r, peer, WIRE_INVALID, why, "no other voter suits");
	r->transfer_to = p->id;
	r->transfer_index = raft_log_last(&r->log);
	r->transfer_due_us = UINT64_MAX;
	r->transfer_end_us = r->now_us + raft_patience(r);
	r->transfer_hold_us = hold_us;
	raft_tell_why(r, RAFT_TOLD_TRANSFER_BEGUN, p->id, why, r->transfer_index, p->match, 0);
	return WIRE_OK;
}

void raft_transfer(struct raft *r, uint64_t peer)
{
	/* The answer to update.prefer is a transfer of our own. */
	bool ours = peer && peer == r->preferred;

	r->preferred = 0;
	r->proposal_code = begin(r, peer, ours ? 0 : (peer ? RAFT_ASKED_TIMEOUTS : RAFT_LEFT_TIMEOUTS) * (uint64_t)r->election_us, asked);
}

void raft_transfer_auto(struct raft *r, struct raft_peer *p)
{
	if (!r->transfer_to && !r->transfer_ended)
		(void)begin(r, p->id, 0, "it comes before this node by priority");
}

void raft_transfer_next(struct raft *r)
{
	struct raft_peer *p = r->transfer_to || r->transfer_ended ? NULL : best(r, true);

	if (p && begin(r, p->id, 0, "a witness leads") == WIRE_OK)
		p->tried_us = r->now_us;
}

void raft_transfer_end(struct raft *r)
{
	r->transfer_ended |= r->transfer_to != 0;
	r->transfer_to = r->transfer_index = r->transfer_hold_us = 0;
	r->transfer_due_us = r->transfer_end_us = UINT64_MAX;
}

void raft_transfer_timers(struct raft *r)
{
	if (!r->transfer_to || r->now_us < r->transfer_end_us)
		return;
	raft_tell_why(r, RAFT_TOLD_TRANSFER_GIVEN_UP, r->transfer_to, "it does not lead in time", r->transfer_index, 0, 0);
	raft_transfer_end(r);
}

void raft_transfer_pump(struct raft *r)
{
	if (!r->transfer_to)
		return;
	const struct raft_peer *p = raft_peer(r, r->transfer_to);
	bool first = r->transfer_due_us == UINT64_MAX;

	assert(p);
	if (p->match < r->transfer_index || (!first && r->now_us < r->transfer_due_us))
		return;
	struct wire_msg *m = raft_leader_send(r, WIRE_MSG_TIMEOUT_NOW, p->id);
	if (!m)
		return;
	m->index = r->transfer_index;
	m->log_term = raft_log_term(&r->log, r->transfer_index);
	m->hint = r->transfer_hold_us;
	if (first)
		raft_tell(r, RAFT_TOLD_TRANSFER_TOLD, p->id, r->transfer_index, 0, 0);
	r->transfer_due_us = r->now_us + r->heartbeat_us;
	raft_lease_told(r, r->transfer_index);
}

uint64_t raft_transfer_leave(struct raft *r)
{
	const struct raft_peer *level = NULL;

	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		if (suits(r, p) && p->match == raft_log_last(&r->log) && (!level || better(r, p, level)))
			level = p;
	}
	struct wire_msg *m = level ? raft_leader_send(r, WIRE_MSG_TIMEOUT_NOW, level->id) : NULL;
	if (m) {
		m->index = raft_log_last(&r->log);
		m->log_term = raft_log_last_term(&r->log);
		raft_tell(r, RAFT_TOLD_TRANSFER_TOLD, level->id, m->index, 0, 0);
	}
	raft_become_follower(r, r->term, 0);
	return level ? level->id : 0;
}

uint64_t raft_transfer_deadline(const struct raft *r)
{
	return r->transfer_due_us < r->transfer_end_us ? r->transfer_due_us : r->transfer_end_us;
}

/* One that comes late, after the transfer was given up, must not depose a leader that went on: a later term is seen by
 * the term, and in the same term our log has grown beyond the message's, unless nothing was proposed since. It cannot be
 * longer for any other reason: what a leader's log ends with in its own term, ours ends with too. */
void raft_on_timeout_now(struct raft *r, const struct wire_msg *m)
{
	const char *why = r->role != RAFT_FOLLOWER || m->term != r->term || m->from != r->leader ? "it does not lead this node" :
	                  !raft_may_campaign(r) ? raft_hindrance(r) :
	                  m->index != raft_log_last(&r->log) || m->log_term != raft_log_last_term(&r->log) ? "the log has another end" : NULL;

	if (why) {
		raft_tell_why(r, RAFT_TOLD_ELECTION_DECLINED, m->from, why, m->term, m->index, 0);
		return;
	}
	uint64_t longest = RAFT_ASKED_TIMEOUTS * (uint64_t)r->election_us;
	r->hold_until_us = r->now_us + (m->hint < longest ? m->hint : longest);
	raft_campaign_ordered(r);
}
