/* Feature levels: what a configuration's level allows is in a log only if every member's program understood it when that was appended
 * by a leader. (A member that comes back later with an older program stops by itself.) And levels do not fall. */
#include "test/sim/check.h"

#define NAME "feature levels"

static uint8_t level_of(const struct members *c)
{
	return c->level ? c->level : 1;
}

void check_level_config(struct sim_node *n, uint64_t index, const struct members *c)
{
	const struct members *before = &n->configs[n->n_configs - 1].m;
	bool needs = c->quorums.commit || c->quorums.elect || c->old_quorums.commit || c->old_quorums.elect;

	if (level_of(c) < level_of(before))
		sim_fail(n->sim, NAME, "%s appends a configuration of level %u at %llu, after one of level %u", node_name(n), level_of(c),
		         (unsigned long long)index, level_of(before));
	if (level_of(c) > n->level)
		sim_fail(n->sim, NAME, "%s takes a configuration of level %u at %llu, and knows only %u", node_name(n), level_of(c),
		         (unsigned long long)index, n->level);
	for (uint32_t i = 0; i < c->n; i++) {
		const struct sim_node *o = sim_by_id(n->sim, c->m[i].id);
		needs |= (c->m[i].flags & RAFT_WITNESS) != 0;
		if (n->role == RAFT_LEADER && level_of(c) > level_of(before) && o && o->level < level_of(c))
			sim_fail(n->sim, NAME, "%s raises the level to %u at %llu; node %llu knows only %u", node_name(n), level_of(c),
			         (unsigned long long)index, (unsigned long long)o->id, o->level);
	}
	if (needs && level_of(c) < 2)
		sim_fail(n->sim, NAME, "%s appends witnesses or sizes of quorums at %llu, at level %u", node_name(n), (unsigned long long)index,
		         level_of(c));
}
