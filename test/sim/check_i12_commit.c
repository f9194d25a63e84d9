/* I12: a leader commits by counting replicas only entries of its own term (paper 5.4.2, figure 8). So a commit index that it
 * tells, above what it knew when it was elected or was told, is that of an entry of its term. */
#include "test/sim/check.h"

void check_i12_message(struct sim_node *n, const struct wire_msg *m)
{
	uint64_t known = n->commit_at_election > n->commit_heard ? n->commit_at_election : n->commit_heard;

	if (m->type != WIRE_MSG_APPEND || m->commit <= known || m->commit <= n->log_base)
		return;
	if (n->log[m->commit].term != m->term)
		sim_fail(n->sim, "I12 commit of the own term", "%s, leader of term %llu, commits entry %llu of term %llu", node_name(n),
		         (unsigned long long)m->term, (unsigned long long)m->commit, (unsigned long long)n->log[m->commit].term);
}
