/* I13: a configuration change begins only after the previous one and an entry of the leader's term are committed: both are on
 * the disks of majorities when the leader appends it. And the configuration in force is the latest in the log, committed or
 * not (thesis 4.1). */
#include "test/sim/check.h"

static uint64_t first_of_term(const struct sim_node *n, uint64_t below)
{
	uint64_t i = below;

	while (i > n->log_base + 1 && n->log[i - 1].term == n->term)
		i--;
	return i;
}

void check_i13_appended(struct sim_node *n, const struct wire_entry *e)
{
	struct sim *s = n->sim;

	if (n->role != RAFT_LEADER || e->term != n->term)
		return;
	const struct node_config *before = &n->configs[n->n_configs - 1];
	uint64_t at = before->index, own = first_of_term(n, e->index);
	if (at > n->log_base && !check_quorum_durable(s, &before->m, true, at, n->log[at].chain))
		sim_fail(s, "I13 one change at a time", "%s appends a configuration at %llu; that at %llu is not committed", node_name(n),
		         (unsigned long long)e->index, (unsigned long long)at);
	if (own == e->index)
		sim_fail(s, "I13 one change at a time", "%s begins term %llu with a configuration", node_name(n), (unsigned long long)n->term);
	else if (own > n->log_base && !check_quorum_durable(s, &before->m, true, own, n->log[own].chain))
		sim_fail(s, "I13 one change at a time", "%s appends a configuration at %llu in term %llu, of which nothing is committed",
		         node_name(n), (unsigned long long)e->index, (unsigned long long)n->term);
}

void check_i13_in_force(struct sim_node *n)
{
	const struct raft_config *c = raft_config_current(n->raft);
	const struct node_config *mine = &n->configs[n->n_configs - 1];
	const struct raft_quorums q[] = { c->quorums, c->old_quorums, mine->m.quorums, mine->m.old_quorums };
	bool same = c->joint == mine->m.joint && c->n == mine->m.n && c->level == mine->m.level && q[0].commit == q[2].commit &&
	            q[0].elect == q[2].elect && q[1].commit == q[3].commit && q[1].elect == q[3].elect;

	for (uint32_t i = 0; same && i < c->n; i++)
		same = c->m[i].id == mine->m.m[i].id && c->m[i].flags == mine->m.m[i].flags && c->m[i].priority == mine->m.m[i].priority;
	if (!same)
		sim_fail(n->sim, "I13 one change at a time", "%s goes by another configuration than the latest of its log, that at %llu",
		         node_name(n), (unsigned long long)mine->index);
}
