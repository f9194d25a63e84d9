/* I11: as long as a leader's lease is valid by its own clock, no other node becomes the leader of a later term. Judged in true
 * time, at the moment of the election: clocks differ and drift, leaders sleep. A lease is void from the moment on at which its
 * holder tells another node to stand (TIMEOUT_NOW). */
#include "test/sim/check.h"

void check_i11_elected(struct sim_node *n)
{
	struct sim *s = n->sim;

	for (uint32_t i = 0; i < SLOTS; i++) {
		struct sim_node *o = &s->n[i];
		if (o == n || o->term >= n->term || !node_has_lease(o))
			continue;
		sim_fail(s, "I11 leases", "%s leads term %llu while %s, leader of term %llu, has a lease until %llu of its clock", node_name(n),
		         (unsigned long long)n->term, node_name(o), (unsigned long long)o->term, (unsigned long long)o->lease_until_us);
	}
}

void check_i11_told(struct sim_node *n, const struct wire_msg *m)
{
	if (m->type == WIRE_MSG_TIMEOUT_NOW && node_has_lease(n))
		sim_fail(n->sim, "I11 leases", "%s tells node %llu to stand, and keeps its lease", node_name(n), (unsigned long long)m->to);
}
