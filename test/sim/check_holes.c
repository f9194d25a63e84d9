/* Entries whose data the disk has lost (raft/holes.c): what takes their place is what was there (I2); until it is durable, the node
 * acknowledges nothing from there on, and does not stand for election. That it publishes nothing from there on needs no check: it cannot. */
#include "test/sim/check.h"

#define NAME "I2 holes"

void check_holes_message(struct sim_node *n, const struct wire_msg *m)
{
	bool acks = (m->type == WIRE_MSG_APPEND_RESP && !(m->flags & WIRE_MSG_REJECT)) || m->type == WIRE_MSG_HEARTBEAT_RESP;

	if (!n->n_holes || m->term != n->term)
		return;
	size_t k = 0;
	while (k < n->n_holes && n->holes[k] <= n->core_base)
		k++;
	if (k == n->n_holes)
		return;
	uint64_t first = n->holes[k];
	if (acks && m->index >= first)
		sim_fail(n->sim, NAME, "%s acknowledges entry %llu, and has no data of entry %llu", node_name(n), (unsigned long long)m->index,
		         (unsigned long long)first);
	if (m->type == WIRE_MSG_VOTE_REQ || m->type == WIRE_MSG_PREVOTE_REQ)
		sim_fail(n->sim, NAME, "%s sends %s, and has no data of entry %llu", node_name(n), wire_msg_name(m->type),
		         (unsigned long long)first);
}

void check_holes_filled(struct sim_node *n, const struct wire_entry *e)
{
	if (e->index > n->log_last || e->index <= n->log_base ||
	    check_chain(n->log[e->index - 1].chain, e->term, e->kind, e->sum, e->size) != n->log[e->index].chain)
		sim_fail(n->sim, NAME, "%s fills entry %llu with something else than was there", node_name(n), (unsigned long long)e->index);
}
