/* I4: what nodes publish at an index never differs, nor does the state that comes of it. */
#include "test/sim/check.h"

void check_i4_same(struct sim_node *n, uint64_t index)
{
	const struct check *k = n->sim->check;

	if (n->sim->failed)
		return;
	const struct committed *c = &k->committed[index];
	if (index > k->last)
		sim_fail(n->sim, "I4 state machine safety", "%s publishes entry %llu before entry %llu", node_name(n), (unsigned long long)index,
		         (unsigned long long)k->last + 1);
	else if (n->log[index].term != c->term || n->log[index].chain != c->chain)
		sim_fail(n->sim, "I4 state machine safety", "%s publishes another entry %llu, of term %llu; committed was one of term %llu",
		         node_name(n), (unsigned long long)index, (unsigned long long)n->log[index].term, (unsigned long long)c->term);
	else if (n->machine.hash != c->hash)
		sim_fail(n->sim, "I4 state machine safety", "%s has another state after entry %llu", node_name(n), (unsigned long long)index);
}
