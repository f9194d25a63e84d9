/* Roles: the one place that changes them, and the timers that go with them. */
#include "raft/core.h"

static const char *const names[] = { "follower", "precandidate", "candidate", "leader" };

const char *raft_role_name(enum raft_role r)
{
	return (unsigned)r < sizeof(names) / sizeof(names[0]) ? names[r] : "?";
}

/* Figure 4 of the paper, with the pre-vote before the vote (thesis 9.6), or without when the leader told us to stand (3.10).
 * A leader never goes back to standing for election in one move, a follower never leads without having been a candidate. */
static const bool allowed[4][4] = {
	/* to:              follower precandidate candidate leader */
	[RAFT_FOLLOWER] = { true, true, true, false },
	[RAFT_PRECANDIDATE] = { true, true, true, false },
	[RAFT_CANDIDATE] = { true, true, false, true },
	[RAFT_LEADER] = { true, false, false, false },
};

void raft_become(struct raft *r, enum raft_role role)
{
	assert(allowed[r->role][role]);
	(void)allowed;
	enum raft_role from = r->role;
	static const enum raft_told_event told[] = { 0, RAFT_TOLD_ROLE_PRECANDIDATE, RAFT_TOLD_ROLE_CANDIDATE, RAFT_TOLD_ROLE_LEADER };

	r->role = role;
	if (role != from && role != RAFT_FOLLOWER) /* of that raft_become_follower knows more */
		raft_tell(r, told[role], 0, r->term, raft_log_last(&r->log), 0);
	if (role != RAFT_CANDIDATE)
		r->ordered = false;
	if (role == RAFT_LEADER) {
		r->leader = r->self;
		r->told_removed = false;
		r->election_deadline_us = UINT64_MAX;
		raft_leader_begin(r);
		return;
	}
	if (role != RAFT_FOLLOWER || from == RAFT_LEADER)
		r->leader = 0;
	if (from == RAFT_LEADER) {
		r->commit_due_us = UINT64_MAX;
		r->elected_alone = false;
		raft_transfer_end(r);
		raft_read_fail_all(r);
	}
	if (role != RAFT_FOLLOWER || from == RAFT_LEADER)
		raft_reset_election(r);
}

void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader)
{
	assert(term >= r->term);
	bool new_term = term > r->term, new_leader = leader && (new_term || r->leader != leader);

	if (new_term) {
		r->term = term;
		r->vote = 0;
		r->hard_changed = true;
		/* Leader completeness (I3): whoever leads this term has all that is committed. */
		r->matched = r->commit;
		if (r->role != RAFT_LEADER)
			r->leader = 0;
	}
	/* Paper 5.2: a follower's timer begins anew by a leader or by a vote that it gives, not by a later term alone: who asks in vain
	 * again and again must not keep those from standing who could win. */
	bool restart = r->role != RAFT_FOLLOWER;
	raft_become(r, RAFT_FOLLOWER);
	if (restart || new_term || new_leader)
		raft_tell_why(r, RAFT_TOLD_ROLE_FOLLOWER, leader, new_leader ? "a leader of the term" : new_term ? "a later term" : "it stands or leads no more", r->term,
		              raft_log_last(&r->log), 0);
	if (restart)
		raft_reset_election(r);
	if (leader && r->leader != leader) {
		r->leader = leader;
		raft_pulse_forget_leader(r);
		/* Requests to an earlier leader may never be answered. */
		r->request_due_us = 0;
		raft_read_forward(r);
	}
}

/* Randomised in [T, 2T), T being election_us or longer (paper 5.2; pulse.c), and later where others had better lead. Only voters
 * stand for election; the others use the same timer to forget a leader that is gone. */
void raft_reset_election(struct raft *r)
{
	uint64_t t = raft_election_timeout(r);

	r->election_deadline_us = r->now_us + t + raft_random(r) % t + raft_priority_delay(r);
}

void raft_contact(struct raft *r)
{
	r->contact_us = r->now_us;
	r->ever_contact = true;
	r->told_removed = false;
	r->news.lonely = NULL;
	raft_lease_contact(r);
	raft_reset_election(r);
}
