/* I3: a new leader's log has all that was committed in earlier terms. (One that is elected late, in a term that is over, may
 * lack what a later leader has committed.) */
#include "test/sim/check.h"

void check_i3_complete(struct sim_node *n)
{
	const struct check *k = n->sim->check;
	uint64_t i = k->last;

	while (i && k->committed[i].told_term > n->term)
		i--;
	if (n->log_last < i || (n->log_base < i && n->log[i].chain != k->committed[i].chain))
		sim_fail(n->sim, "I3 leader completeness", "%s leads term %llu; its log ends at %llu, and lacks committed entry %llu of term %llu",
		         node_name(n), (unsigned long long)n->term, (unsigned long long)n->log_last, (unsigned long long)i,
		         (unsigned long long)k->committed[i].term);
}
