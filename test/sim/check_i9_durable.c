/* I9: what a message claims is durable on the sender when it leaves: a term, a vote, entries; and what is published is
 * durable where it is published. The disk is asked, not the journal.
 *
 * An acknowledgement may leave after what it speaks of was superseded in a later term: all that was written until then must be
 * durable, and what matters is that it had been written before. It is like one that was late on the network. */
#include "test/sim/check.h"

#define NAME "I9 durability before messages"

static void check_claims(struct sim_node *n, const struct wire_msg *m)
{
	bool of_term = m->type != WIRE_MSG_READ_REQ && m->type != WIRE_MSG_READ_RESP && m->type != WIRE_MSG_PREVOTE_REQ &&
	               m->type != WIRE_MSG_PREVOTE_RESP && m->type != WIRE_MSG_FETCH_RESP; /* which is compared with the receiver's, no more */
	bool acks = (m->type == WIRE_MSG_APPEND_RESP && !(m->flags & WIRE_MSG_REJECT)) || m->type == WIRE_MSG_HEARTBEAT_RESP;

	if (of_term && m->term > n->dur_term)
		sim_fail(n->sim, NAME, "%s sends %s of term %llu, on its disk is term %llu", node_name(n), wire_msg_name(m->type),
		         (unsigned long long)m->term, (unsigned long long)n->dur_term);
	if (acks && m->index > n->dur_index && m->term == n->dur_term)
		sim_fail(n->sim, NAME, "%s acknowledges entry %llu by %s, on its disk the log ends at %llu", node_name(n),
		         (unsigned long long)m->index, wire_msg_name(m->type), (unsigned long long)n->dur_index);
}

void check_i9_message(struct sim_node *n, const struct wire_msg *m, uint64_t mark)
{
	uint64_t to = 0;

	check_refresh(n);
	if (mark && !disk_durable(n->disk, mark))
		sim_fail(n->sim, NAME, "%s sends %s of term %llu before what was written until then is durable", node_name(n),
		         wire_msg_name(m->type), (unsigned long long)m->term);
	check_claims(n, m);
	if (m->type == WIRE_MSG_VOTE_RESP && !(m->flags & WIRE_MSG_REJECT))
		to = m->to;
	if (m->type == WIRE_MSG_VOTE_REQ)
		to = n->id;
	if (!to)
		return;
	if (n->dur_term == m->term && n->dur_vote != to)
		sim_fail(n->sim, NAME, "%s votes for %llu in term %llu, on its disk is a vote for %llu", node_name(n), (unsigned long long)to,
		         (unsigned long long)m->term, (unsigned long long)n->dur_vote);
	if (m->term < n->voted_term || (m->term == n->voted_term && to != n->voted_for))
		sim_fail(n->sim, NAME, "%s votes for %llu in term %llu after %llu in term %llu", node_name(n), (unsigned long long)to,
		         (unsigned long long)m->term, (unsigned long long)n->voted_for, (unsigned long long)n->voted_term);
	n->voted_term = m->term;
	n->voted_for = to;
}

void check_i9_publish(struct sim_node *n, uint64_t index)
{
	check_refresh(n);
	if (index > n->dur_index)
		sim_fail(n->sim, NAME, "%s publishes entry %llu, on its disk the log ends at %llu", node_name(n), (unsigned long long)index,
		         (unsigned long long)n->dur_index);
}
