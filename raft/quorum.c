/* Counting quorums. A configuration may ask for more or fewer voters than a majority, by two sizes: `commit` and `elect`, with
 * 2 * elect > voters and elect + commit > voters (raft_config_check). Any two election quorums share a voter, and so do any
 * election quorum and any commit quorum; two commit quorums need not. That is all that Raft's proofs use (Howard, Malkhi,
 * Spiegelman, "Flexible Paxos", section 4, for Raft section 6):
 *
 *   I1  a voter votes once in a term, two election quorums share one: one leader in a term. What follows from that alone, log matching
 *       (I2), needs no quorum.
 *   I3  what is committed lies in the logs of a commit quorum; a later leader was elected by one of those, whose log it must reach
 *       (paper 5.4.1 to 5.4.3).
 *
 * What else is counted, is counted by commit quorums, since each must meet every election quorum and nothing more:
 *
 *   read rounds   a commit quorum answered in this term, after the round began. Had a later leader been elected before, one of
 *                 them would have voted for it, and would have refused the heartbeat: so whatever is committed by another
 *                 is committed after the round began, and the read need not see it (thesis 6.4).
 *   leases        as long as the promises of a commit quorum hold, each election quorum has a voter that does not vote (lease.c).
 *   CheckQuorum   for liveness only: a leader that hears a commit quorum can commit, and no other can be elected in its place,
 *                 since those refuse; one that does not can commit nothing, and had better go.
 *
 * In a joint configuration both halves must have a quorum, each of its own sizes. A change of sizes goes through one, as a change of
 * voters does: commits by the old sizes need not meet elections by the new ones. While joint, either decision has a quorum
 * of the old half, which meets those before, and of the new half, which meets those after; and nobody decides by the new half
 * alone before a commit quorum of the old one has the joint entry in its log, so that no election by the old half alone
 * can succeed any more without it (thesis 4.3, with these quorums in place of majorities). */
#include "raft/core.h"

static uint64_t half_quorum(const struct raft *r, bool old_half, enum raft_quorum_kind kind,
                            uint64_t (*get)(const struct raft_peer *), uint64_t self_value)
{
	const struct raft_config *c = raft_config_current(r);
	struct raft_quorums q = old_half ? c->old_quorums : c->quorums;
	uint8_t flag = old_half ? RAFT_VOTER_OLD : RAFT_VOTER, size = kind == RAFT_TO_ELECT ? q.elect : q.commit;
	uint64_t v[RAFT_MEMBERS_MAX];
	uint32_t n = 0;

	if (raft_self_flags(r) & flag)
		v[n++] = self_value;
	for (uint32_t i = 0; i < r->n_peers; i++)
		if (r->peers[i].flags & flag)
			v[n++] = get(&r->peers[i]);
	if (!n)
		return 0;
	for (uint32_t i = 1; i < n; i++) {
		uint64_t x = v[i];
		uint32_t k = i;
		for (; k > 0 && v[k - 1] < x; k--)
			v[k] = v[k - 1];
		v[k] = x;
	}
	assert(size <= n);
	return v[size ? size - 1u : n / 2];
}

uint64_t raft_quorum(const struct raft *r, enum raft_quorum_kind kind, uint64_t (*get)(const struct raft_peer *), uint64_t self_value)
{
	uint64_t v = half_quorum(r, false, kind, get, self_value);

	if (raft_config_current(r)->joint) {
		uint64_t old = half_quorum(r, true, kind, get, self_value);
		if (old < v)
			v = old;
	}
	return v;
}
