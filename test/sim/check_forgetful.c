/* A node that came back under its id with a lost disk, or an old one, has forgotten what it voted and acknowledged. Until that is over
 * it votes for nobody, does not stand, and says in all answers that they are not to be counted; and it is over, durably, only
 * when its disk has all again that was committed when it came back, and the latest configuration of its log, which is committed,
 * has it as no voter (raft/forgetful.c). That no vote is given twice, before and after, is I9's business. */
#include "test/sim/check.h"

#define NAME "I9 forgetful nodes"

void check_forgetful_begins(struct sim_node *n)
{
	n->forgot_at = n->sim->check->last;
}

void check_forgetful_message(struct sim_node *n, const struct wire_msg *m)
{
	bool refusal = m->flags & WIRE_MSG_REJECT, answers = m->type == WIRE_MSG_APPEND_RESP || m->type == WIRE_MSG_HEARTBEAT_RESP;
	bool votes = (m->type == WIRE_MSG_VOTE_RESP || m->type == WIRE_MSG_PREVOTE_RESP) && !refusal;

	if (!n->dur_forgetful)
		return;
	if (votes || m->type == WIRE_MSG_VOTE_REQ || m->type == WIRE_MSG_PREVOTE_REQ)
		sim_fail(n->sim, NAME, "%s, which may have forgotten its votes, sends %s", node_name(n), wire_msg_name(m->type));
	if (answers && !(m->flags & WIRE_MSG_FORGOT))
		sim_fail(n->sim, NAME, "%s, which may have forgotten what it promised, sends %s as if it had not", node_name(n), wire_msg_name(m->type));
}

void check_forgetful_ends(struct sim_node *n)
{
	struct sim *s = n->sim;
	const struct check *k = s->check;
	const struct node_config *c = &n->configs[n->n_configs - 1];

	s->counts->readmitted++;
	check_refresh(n);
	if (n->dur_index < n->forgot_at || (n->forgot_at > n->log_base && n->log[n->forgot_at].chain != k->committed[n->forgot_at].chain))
		sim_fail(s, NAME, "%s is itself again with a log to %llu on its disk; it may have acknowledged %llu", node_name(n),
		         (unsigned long long)n->dur_index, (unsigned long long)n->forgot_at);
	if (c->index > n->log_base && !check_quorum_durable(s, &c->m, true, c->index, n->log[c->index].chain))
		sim_fail(s, NAME, "%s is itself again by a configuration at %llu, which is not committed", node_name(n), (unsigned long long)c->index);
	for (uint32_t i = 0; i < c->m.n; i++)
		if (c->m.m[i].id == n->id && (c->m.m[i].flags & (RAFT_VOTER | RAFT_VOTER_OLD)))
			sim_fail(s, NAME, "%s is itself again, and a voter by the configuration at %llu", node_name(n), (unsigned long long)c->index);
}
