/* Catch-up rounds (thesis 4.2.1): is a member near enough to the leader's log to be made a voter without holding commits up?
 *
 * A round is to replicate what was in the leader's log when the round began. The first begins with the leader's term, or when the
 * member is added; the next one as soon as the last is over and there is something that the member lacks. Rounds shrink as it
 * gains on the leader; it is caught up once one took less than an election timeout, and as long as the one that runs has not
 * taken longer. Where nobody writes no other round follows the first, which an image may have made a long one: there it is caught up when it
 * has lacked nothing for an election timeout. A member that is slower than the writers never is. Only for who decides: nothing here
 * is needed for safety. */
#include "raft/core.h"

void raft_round_begin(struct raft *r, struct raft_peer *p)
{
	p->rounds = p->round_us = 0;
	p->round_target = raft_log_last(&r->log);
	p->round_began_us = r->now_us;
	p->round_open = true;
}

void raft_round_step(struct raft *r, struct raft_peer *p)
{
	/* What it has is not known before it has answered. */
	if (p->round_open && p->heard_us && p->match >= p->round_target) {
		uint64_t took = r->now_us - p->round_began_us;
		bool was = raft_caught_up(r, p);
		p->rounds++;
		p->round_us = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
		p->round_open = false;
		/* Who keeps up has a round with each commit. */
		if (!was)
			raft_tell_why(r, RAFT_TOLD_PEER_ROUND, p->id, raft_caught_up(r, p) ? "it is caught up" : NULL, p->rounds, took, p->round_target);
	}
	if (!p->round_open && p->match < raft_log_last(&r->log)) {
		p->round_target = raft_log_last(&r->log);
		p->round_began_us = r->now_us;
		p->round_open = true;
	}
}

bool raft_caught_up(const struct raft *r, const struct raft_peer *p)
{
	if (!p->rounds || p->forgot || r->now_us >= p->alive_until_us)
		return false;
	if (!p->round_open && r->now_us >= p->round_began_us + p->round_us + r->election_us)
		return true;
	return p->round_us < r->election_us && (!p->round_open || r->now_us < p->round_began_us + r->election_us);
}
