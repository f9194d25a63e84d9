/* Elections: pre-vote (thesis 9.6), vote (paper 5.2, 5.4.1), and their refusal under a live leader (thesis 4.2.3), unless
 * that leader asked for the election (3.10). */
#include "raft/core.h"

static uint64_t granted(const struct raft_peer *p)
{
	return p->granted;
}

static uint64_t not_refused(const struct raft_peer *p)
{
	return !p->voted || p->granted;
}

void raft_ask_votes(struct raft *r)
{
	bool pre = r->role == RAFT_PRECANDIDATE;

	r->ask_due_us = r->now_us + r->heartbeat_us;
	for (uint32_t i = 0; i < r->n_peers; i++) {
		struct raft_peer *p = &r->peers[i];
		if (p->voted || !(p->flags & (RAFT_VOTER | RAFT_VOTER_OLD)))
			continue;
		/* I9: a vote request tells of a term and of a vote for ourselves. */
		struct wire_msg *m = raft_send(r, pre ? WIRE_MSG_PREVOTE_REQ : WIRE_MSG_VOTE_REQ, p->id, true);
		if (!m)
			return;
		m->term = pre ? r->term + 1 : r->term;
		m->flags = r->ordered ? WIRE_MSG_TRANSFER : 0;
		m->corr = r->campaign;
		m->index = raft_log_last(&r->log);
		m->log_term = raft_log_last_term(&r->log);
	}
}

static void stand(struct raft *r, enum raft_role role)
{
	raft_become(r, role);
	for (uint32_t i = 0; i < r->n_peers; i++)
		r->peers[i].voted = r->peers[i].granted = false;
	r->campaign++;
	r->stood_us = r->now_us;
	raft_ask_votes(r);
}

static void stand_for_vote(struct raft *r)
{
	r->term++;
	r->vote = r->self;
	r->hard_changed = true;
	r->matched = r->commit;
	bool alone = raft_alone(r);

	stand(r, RAFT_CANDIDATE);
	if (!alone)
		return;
	r->elected_alone = true;
	raft_become(r, RAFT_LEADER);
}

void raft_campaign_ordered(struct raft *r)
{
	assert(raft_may_campaign(r) && r->role == RAFT_FOLLOWER);
	raft_tell(r, RAFT_TOLD_ELECTION_ORDERED, r->leader, r->term, raft_log_last(&r->log), 0);
	r->ordered = true;
	stand_for_vote(r);
}

void raft_campaign(struct raft *r)
{
	assert(raft_may_campaign(r) && r->role != RAFT_LEADER);
	bool alone = raft_alone(r);

	if (r->no_prevote) {
		if (r->role != RAFT_FOLLOWER)
			raft_become_follower(r, r->term, 0);
		stand_for_vote(r);
		return;
	}
	stand(r, RAFT_PRECANDIDATE);
	if (alone)
		stand_for_vote(r);
}

const char *raft_hindrance(const struct raft *r)
{
	if (r->forgetful)
		return "its disk was lost: it must be re-admitted first";
	if (r->n_holes)
		return "its disk has lost entries";
	if (!raft_may_campaign(r))
		return raft_config_current(r)->n ? "it is no voter" : "it knows no configuration";
	if (raft_disk_hangs(r))
		return "its disk hangs";
	return raft_leader_alive(r) ? "by the clock of the leases its promise to the leader still holds" : NULL;
}

/* I11: for the shortest election timeout after a sign of the leader nobody can be elected in its place. A leader is its
 * own sign: CheckQuorum ends it when it has become useless. */
bool raft_leader_alive(const struct raft *r)
{
	return r->role == RAFT_LEADER || (r->ever_contact && r->now_us < r->contact_us + r->election_us) || raft_lease_promised(r);
}

/* Removed members are sent nothing any more, so this is how they learn of it. It is news for people and changes nothing here: the
 * one that says so may be behind, and by its own log a node may have to stand (thesis 4.2.2). */
static bool knows_not(const struct raft *r, uint64_t id)
{
	const struct raft_config *c = &r->configs[0].config;

	return c->n && !raft_config_find(c, id);
}

void raft_heed_removal(struct raft *r, const struct wire_msg *m)
{
	bool answer = m->type == WIRE_MSG_PREVOTE_RESP || m->type == WIRE_MSG_VOTE_RESP;

	if (answer && (m->flags & WIRE_MSG_REMOVED) && m->corr == r->campaign && r->role != RAFT_LEADER)
		r->told_removed = true;
}

bool raft_removed(const struct raft *r)
{
	return !r->leader && (r->told_removed || knows_not(r, r->self));
}

static void tell_refusal(struct raft *r, const struct wire_msg *m, const char *why)
{
	raft_tell_why(r, RAFT_TOLD_ELECTION_REFUSED, m->from, why, m->term, m->type == WIRE_MSG_PREVOTE_REQ, 0);
}

/* why: of a refusal; NULL grants. */
static void answer(struct raft *r, const struct wire_msg *m, const char *why)
{
	bool pre = m->type == WIRE_MSG_PREVOTE_REQ, grant = !why;

	if (grant)
		raft_tell(r, RAFT_TOLD_ELECTION_GRANTED, m->from, m->term, pre, 0);
	else
		tell_refusal(r, m, why);
	struct wire_msg *a = raft_send(r, pre ? WIRE_MSG_PREVOTE_RESP : WIRE_MSG_VOTE_RESP, m->from, true);

	if (!a)
		return;
	a->corr = m->corr;
	if (!grant)
		a->flags = WIRE_MSG_REJECT | (knows_not(r, m->from) ? WIRE_MSG_REMOVED : 0);
	else if (pre)
		a->term = m->term;
}

static const char an_old_term[] = "its term is over", log_behind[] = "its log is behind";

/* Who is not a voter, as far as its own log goes, is not refused: it may have been made one by an entry that it lacks.
 * Candidates ask and count only voters of their configuration. */
void raft_on_vote_req(struct raft *r, const struct wire_msg *m)
{
	bool pre = m->type == WIRE_MSG_PREVOTE_REQ;
	uint64_t last_term = raft_log_last_term(&r->log);
	/* Election restriction (paper 5.4.1). */
	bool up_to_date = m->log_term > last_term || (m->log_term == last_term && m->index >= raft_log_last(&r->log));

	/* Thesis 3.10: it is the leader's own wish. Otherwise the same rules hold. */
	bool ordered = !pre && (m->flags & WIRE_MSG_TRANSFER);

	bool alive = raft_leader_alive(r) && (pre || !r->no_check_quorum);

	if (r->forgetful || ((alive || (pre && raft_leader_expected(r))) && !ordered)) {
		const char *why = r->forgetful ? "what this node has promised is lost" : "a leader is alive";
		if (pre)
			answer(r, m, why);
		else
			tell_refusal(r, m, why);
		return;
	}
	if (m->term < r->term) {
		answer(r, m, an_old_term);
		return;
	}
	if (pre) {
		answer(r, m, m->term <= r->term ? an_old_term : up_to_date ? NULL : log_behind);
		return;
	}
	if (m->term > r->term) {
		/* A stranger may be a member by a configuration that we lack, but then its log is ahead. One that was
		 * removed must not push terms up (thesis 4.2.3). */
		if (!up_to_date && !raft_config_find(raft_config_current(r), m->from)) {
			tell_refusal(r, m, "it is no member, and its log is behind");
			return;
		}
		raft_become_follower(r, m->term, 0);
	}
	bool grant = up_to_date && (r->vote == m->from || (!r->vote && !r->leader));
	if (grant && !r->vote) {
		r->vote = m->from;
		r->hard_changed = true;
	}
	if (grant)
		raft_reset_election(r);
	answer(r, m, grant ? NULL : !up_to_date ? log_behind : "this node has voted in that term, or knows its leader");
}

void raft_on_vote_resp(struct raft *r, const struct wire_msg *m)
{
	bool pre = m->type == WIRE_MSG_PREVOTE_RESP;
	struct raft_peer *p = raft_peer(r, m->from);

	/* The campaign's number keeps a late answer from counting in a later pre-vote of the same term. */
	if (!p || r->role != (pre ? RAFT_PRECANDIDATE : RAFT_CANDIDATE) || m->corr != r->campaign || p->voted)
		return;
	p->voted = true;
	p->granted = !(m->flags & WIRE_MSG_REJECT);
	raft_tell(r, RAFT_TOLD_ELECTION_COUNTED, p->id, r->term + pre, pre, p->granted);
	if (raft_quorum(r, RAFT_TO_ELECT, granted, 1)) {
		if (pre)
			stand_for_vote(r);
		else
			raft_become(r, RAFT_LEADER);
	} else if (!raft_quorum(r, RAFT_TO_ELECT, not_refused, 1)) {
		raft_tell(r, RAFT_TOLD_ELECTION_LOST, 0, r->term + pre, pre, 0);
		raft_become_follower(r, r->term, 0);
	}
}
