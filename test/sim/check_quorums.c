/* Quorums of chosen sizes: in every configuration that a log has, any two elections share a voter, and so do any election and any
 * commit (I1, I3 rest on that); and whoever leads has the votes of so many voters, of both halves when joint, as were sent to it in
 * that term. Commits are judged where they are told (I5): check_quorum_durable goes by the sizes too. */
#include "test/sim/check.h"

#define NAME "I1 quorums of elections and commits meet"

uint32_t check_quorum_size(const struct members *c, bool old_half, bool elect)
{
	const struct raft_quorums q = old_half ? c->old_quorums : c->quorums;
	uint32_t voters = 0, size = elect ? q.elect : q.commit;

	for (uint32_t i = 0; i < c->n; i++)
		voters += (c->m[i].flags & (old_half ? RAFT_VOTER_OLD : RAFT_VOTER)) != 0;
	return size ? size : voters / 2 + 1;
}

static void half_meets(struct sim_node *n, uint64_t index, const struct members *c, bool old_half)
{
	uint32_t voters = 0, elect = check_quorum_size(c, old_half, true), commit = check_quorum_size(c, old_half, false);

	for (uint32_t i = 0; i < c->n; i++)
		voters += (c->m[i].flags & (old_half ? RAFT_VOTER_OLD : RAFT_VOTER)) != 0;
	if (!voters || elect > voters || commit > voters || 2 * elect <= voters || elect + commit <= voters)
		sim_fail(n->sim, NAME, "%s appends a configuration at %llu of %u voters%s, of which %u elect and %u commit", node_name(n),
		         (unsigned long long)index, voters, old_half ? " in its outgoing half" : "", elect, commit);
}

void check_quorums_config(struct sim_node *n, uint64_t index, const struct members *c)
{
	half_meets(n, index, c, false);
	if (c->joint)
		half_meets(n, index, c, true);
}

void check_quorums_vote(struct sim_node *n, const struct wire_msg *m)
{
	struct check *k = n->sim->check;

	if (m->type != WIRE_MSG_VOTE_RESP || (m->flags & WIRE_MSG_REJECT))
		return;
	k->votes = sim_grow(k->votes, &k->cap_votes, k->n_votes, sizeof(*k->votes));
	k->votes[k->n_votes++] = (struct vote){ .term = m->term, .voter = n->id, .candidate = m->to };
}

static bool voted(const struct check *k, uint64_t term, uint64_t voter, uint64_t candidate)
{
	enum { FAR = 4096 };

	for (size_t i = k->n_votes; i && k->n_votes - i < FAR; i--)
		if (k->votes[i - 1].term == term && k->votes[i - 1].voter == voter && k->votes[i - 1].candidate == candidate)
			return true;
	return false;
}

static void half_voted(struct sim_node *n, const struct members *c, bool old_half)
{
	uint32_t votes = 0, need = check_quorum_size(c, old_half, true);

	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].flags & (old_half ? RAFT_VOTER_OLD : RAFT_VOTER))
			votes += c->m[i].id == n->id || voted(n->sim->check, n->term, c->m[i].id, n->id);
	if (votes < need)
		sim_fail(n->sim, NAME, "%s leads term %llu with %u votes%s, %u are needed", node_name(n), (unsigned long long)n->term, votes,
		         old_half ? " of the outgoing half" : "", need);
}

void check_quorums_elected(struct sim_node *n)
{
	const struct members *c = &n->configs[n->n_configs - 1].m;

	half_voted(n, c, false);
	if (c->joint)
		half_voted(n, c, true);
}
