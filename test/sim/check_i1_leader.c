/* I1: at most one leader in a term (paper, figure 3: election safety). */
#include "test/sim/check.h"
#include <stdlib.h>

void check_i1_leader(struct sim_node *n, uint64_t term)
{
	struct check *k = n->sim->check;

	while (term >= k->cap_leaders) {
		size_t before = k->cap_leaders;
		k->leaders = sim_grow(k->leaders, &k->cap_leaders, before, sizeof(*k->leaders));
		for (size_t i = before; i < k->cap_leaders; i++)
			k->leaders[i] = 0;
	}
	if (k->leaders[term] && k->leaders[term] != n->id)
		sim_fail(n->sim, "I1 one leader per term", "%s leads term %llu, which node %llu has led", node_name(n),
		         (unsigned long long)term, (unsigned long long)k->leaders[term]);
	k->leaders[term] = n->id;
}
