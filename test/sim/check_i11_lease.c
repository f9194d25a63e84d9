/* I11: as long as a leader's lease is valid on its own clock, no other node becomes the leader of a later term. Judged in
 * true time, at the moment of the election: clocks differ and drift, leaders sleep. A lease is void from the moment on at
 * which its holder tells another node to stand (TIMEOUT_NOW); that the core gives it up then is part of the check, since
 * the flagged election goes through. Not checked when clocks drift beyond the bound. */
#include "test/sim/check.h"

void check_i11_elected(struct sim_node *n)
{
	struct sim *s = n->sim;

	for (uint32_t i = 0; i < SLOTS; i++) {
		struct sim_node *o = &s->n[i];
		if (o == n || !o->up || o->role != RAFT_LEADER || o->term >= n->term || node_local_us(o) >= o->lease_until_local_us)
			continue;
		sim_fail(s, "I11 leases", "%s leads term %llu while %s, leader of term %llu, has a lease for another %llu us of its clock",
		         node_name(n), (unsigned long long)n->term, node_name(o), (unsigned long long)o->term,
		         (unsigned long long)(o->lease_until_local_us - node_local_us(o)));
	}
}

void check_i11_told(struct sim_node *n, const struct wire_msg *m)
{
	struct check *k = n->sim->check;

	if (m->type != WIRE_MSG_TIMEOUT_NOW)
		return;
	while (m->term >= k->cap_told) {
		size_t before = k->cap_told;
		k->told = sim_grow(k->told, &k->cap_told, before, sizeof(*k->told));
		for (size_t i = before; i < k->cap_told; i++)
			k->told[i] = 0;
	}
	struct sim_node *to = sim_by_id(n->sim, m->to);
	if (to)
		k->told[m->term] |= UINT64_C(1) << to->slot;
	if (n->lease_until_local_us > node_local_us(n))
		sim_fail(n->sim, "I11 leases", "%s tells node %llu to stand, and keeps its lease", node_name(n), (unsigned long long)m->to);
}
