/* Forgetful nodes: an old id with a disk that was lost or damaged. What it has voted for and acknowledged it may not know.
 *
 * Rule 1. Until it is over, such a node counts nowhere: it gives no vote and no pre-vote (not to one that the leader sends
 * either), does not stand, and all its answers carry WIRE_MSG_FORGOT, by which a leader knows not to count them for commits,
 * read rounds, leases and CheckQuorum. It is sent entries like everybody, so that it is level by the time it is re-admitted.
 *
 *   To the others it is then a voter that has crashed, and whose disk may hold anything it had promised; all that was proved of
 *   crashed voters holds (I1 to I5), with what it had said before, too: late messages of the life before are as good as
 *   they were. Its new acks must not count, although it votes for nobody: before the loss it may have voted for C in term
 *   T+1. If it now acknowledged entries of the leader of term T, which it had promised not to, that leader and it would be a
 *   quorum of three for a commit, and C and its old vote one for an election that knows nothing of that entry.
 *
 * Rule 2. It is over when
 *   a) after its return a leader was asked for a read index, which it gives after a quorum has confirmed that it leads (or
 *      under a lease), with an entry of its own term committed; with the answer came the end of its log, the floor;
 *   b) all up to the floor is committed, as this node knows, and durable here, without holes;
 *   c) the latest configuration that it knows (it knows one) is committed, and this node is no voter in it, in neither half.
 * It then sets its vote in the current term to the leader, and is an ordinary learner, whose promotion re-admits it. Nothing of
 * this is remembered: whoever starts as forgetful asks anew, and floors only rise.
 *
 * Why it may count again. Let L of term T be the leader of a), K the configuration of c); A means before the loss, B after it is
 * over. B behaves like a new node with another id that was added by a configuration after K:
 *   - What A acknowledged and is committed, or may be yet, B has. An entry acknowledged in a term below T and ever committed is in L's
 *     log (I3); one of term T was in L's log before the question came; none was of a later term, since nobody led one before L
 *     was confirmed. So all are below the floor, and b) makes B's log hold them.
 *   - B's votes and acks are asked for only by nodes that have K: B votes for those whose log is as good as its own, which has K
 *     (I3, 5.4.1), and follows leaders of terms in which K was committed already. They count B by a configuration after K.
 *   - A's old vote for C in a term U beside B's for D in U. B votes in terms after that in which it was re-admitted, so U is later than
 *     the term in which K was committed, and than T. If C won U with A's vote, it had all that was committed by then (I3): of
 *     the joint configuration on the way to K, too. For the quorum M that acknowledged that has no ack of a forgetful node in
 *     it, and meets any quorum E of the same voters in one that is not A, or in A before it voted. In numbers: of 2f+1 or 2f
 *     voters both E and M are f+1; E without A is f of the 2f or 2f-1 others, and f + f+1 is more than either. Quorums of
 *     chosen sizes meet likewise (config.h). So C's log equals B's up to the floor and has K, by which A is no voter. A later
 *     configuration that has A as voter again would be above the floor, made by L or a later leader after the question. But C
 *     asked A before the loss.
 *   - An old configuration that left A out, and another that brought it back, both from before the loss, are below the floor, so
 *     that their replay ends nothing: c) asks for the latest.
 *
 * Groups of two voters cannot lose either: the other one alone is no quorum, and nothing is committed, its re-admission neither,
 * until an administrator makes a new group of the one that is left (it has all that was committed). A lone voter has nobody to
 * re-admit it; raft_new refuses. A witness is a voter here. A learner may be one by an entry that it lacks; if it is not it ends
 * by rule 2 as soon as it is level. A second voter that forgets is like a second one that has crashed.
 *
 * A forgetful node's log may hold, above what it knows to be committed, entries that its life before had truncated. So it
 * believes no commit index above what has matched in this life (a heartbeat's says what the leader had heard from the life
 * before), and a leader takes its answer for what it has, also when that is less than it once had. */
#include "raft/core.h"

void raft_forgetful_begin(struct raft *r)
{
	r->forgetful = true;
	/* One of the ids of reads: no answer to an earlier life has it. */
	r->forgetful_corr = ++r->read_id;
}

static void ask(struct raft *r)
{
	if (!r->leader || r->now_us < r->forgetful_due_us)
		return;
	struct wire_msg *m = raft_send(r, WIRE_MSG_READ_REQ, r->leader, false);
	if (!m)
		return;
	m->term = 0;
	m->corr = r->forgetful_corr;
	if (!r->forgetful_due_us)
		raft_tell(r, RAFT_TOLD_ROLE_FORGETFUL, r->leader, r->term, raft_log_last(&r->log), 0);
	r->forgetful_due_us = r->now_us + r->heartbeat_us;
}

bool raft_forgetful_told(struct raft *r, const struct wire_msg *m)
{
	if (!r->forgetful || m->corr != r->forgetful_corr)
		return false;
	if (!(m->flags & WIRE_MSG_REJECT) && m->hint && m->hint <= RAFT_NUMBER_MAX && !r->forgetful_floor)
		r->forgetful_floor = m->hint;
	return true;
}

void raft_forgetful_step(struct raft *r)
{
	uint64_t have = raft_hole_before(r, 0, r->commit < r->durable ? r->commit : r->durable);

	if (!r->forgetful)
		return;
	if (!r->forgetful_floor) {
		ask(r);
		return;
	}
	if (have < r->forgetful_floor || raft_config_last(r)->index > have || !raft_config_current(r)->n || raft_self_votes(r) || !r->leader)
		return;
	r->forgetful = false;
	if (!r->vote)
		r->vote = r->leader;
	r->hard_changed = true; /* the end is recorded with it, before any answer without the flag goes out (I9) */
	raft_tell(r, RAFT_TOLD_ROLE_READMITTED, r->leader, r->term, have, 0);
}

uint64_t raft_forgetful_deadline(const struct raft *r)
{
	return r->forgetful && !r->forgetful_floor && r->leader ? r->forgetful_due_us : UINT64_MAX;
}

/* ---- the leader's side ---- */

/* What it has is known anew, and may be less. */
static void restart(struct raft *r, struct raft_peer *p, uint64_t match)
{
	p->match = match <= raft_log_last(&r->log) ? match : 0;
	p->first_match = p->match;
	p->applied = p->leased_us = p->round_ack = 0;
	raft_peer_to(r, p, RAFT_PROBE);
	p->next = p->match + 1;
	raft_round_begin(r, p);
}

bool raft_peer_remembers(struct raft *r, struct raft_peer *p, const struct wire_msg *m)
{
	bool heartbeat = m->type == WIRE_MSG_HEARTBEAT_RESP, refusal = m->flags & WIRE_MSG_REJECT;

	if (!(m->flags & WIRE_MSG_FORGOT)) {
		if (!p->forgot)
			return true;
		/* Re-admitted, or late from before the loss; it is true in either case, but what was said in between must not count. An
		 * append's answer is not needed for that, and may be of the life before: ignored. */
		if (heartbeat) {
			raft_tell(r, RAFT_TOLD_PEER_REMEMBERS, p->id, m->index, 0, 0);
			p->forgot = false;
			restart(r, p, m->index);
		}
		return heartbeat;
	}
	if (!p->forgot || (heartbeat && m->index < p->match)) {
		raft_tell(r, RAFT_TOLD_PEER_FORGOT, p->id, p->match, refusal ? m->hint : m->index, 0);
		p->forgot = true;
		if (r->transfer_to == p->id) { /* it will not stand */
			raft_tell_why(r, RAFT_TOLD_TRANSFER_GIVEN_UP, p->id, "it has forgotten", r->transfer_index, 0, 0);
			raft_transfer_end(r);
		}
		restart(r, p, refusal ? 0 : m->index);
		if (refusal)
			p->next = raft_log_back_up(&r->log, m->hint < m->index ? m->hint : m->index, m->log_term) + 1;
		return !refusal;
	}
	return true;
}
