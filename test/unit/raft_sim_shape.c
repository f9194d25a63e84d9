/* Groups that are not all alike: quorums of other sizes than a majority, priorities, witnesses. A node is a witness by its id for as
 * long as no committed configuration has made it a full replica. */
#include "test/unit/raft_sim_impl.h"

static const uint8_t priorities[] = { 0, 50, RAFT_PRIORITY, 255 };

static void draw_priorities(struct sim *s, struct raft_config *c)
{
	for (uint32_t i = 0; i < c->n; i++)
		c->m[i].priority = priorities[sim_random(s, 4)];
}

static void draw_quorums(struct sim *s, struct raft_config *c)
{
	uint32_t n = raft_config_voters(c, false);

	c->quorums = (struct raft_quorums){ 0 };
	if (!n || sim_chance(s, 400))
		return;
	uint8_t elect = (uint8_t)(n / 2 + 1 + sim_random(s, n - n / 2));
	c->quorums.elect = sim_chance(s, 800) ? elect : 0;
	elect = (uint8_t)raft_config_quorum(c, false, RAFT_TO_ELECT);
	c->quorums.commit = (uint8_t)(n - elect + 1 + sim_random(s, elect));
}

static bool any_data_voter(const struct raft_config *c)
{
	for (uint32_t i = 0; i < c->n; i++)
		if ((c->m[i].flags & RAFT_VOTER) && !(c->m[i].flags & RAFT_WITNESS))
			return true;
	return false;
}

void sim_shape_draw(struct sim *s, struct raft_config *first)
{
	s->with_shapes = sim_chance(s, 500);
	if (!s->with_shapes)
		return;
	draw_priorities(s, first);
	if (sim_chance(s, 600))
		s->witnesses = sim_chance(s, 500) ? 1u << 3 | 1u << 6 : 1u << 2 | 1u << 5;
	for (uint32_t i = 0; i < first->n; i++)
		if (s->witnesses >> first->m[i].id & 1)
			first->m[i].flags |= RAFT_WITNESS;
	draw_quorums(s, first);
}

void sim_shape(struct sim *s, const struct raft_config *now, struct raft_config *c)
{
	bool promote = sim_chance(s, 200);

	draw_priorities(s, c);
	for (uint32_t i = 0; i < c->n; i++) {
		const struct raft_member *was = raft_config_find(now, c->m[i].id);
		if (!(s->witnesses & ~s->have_data) || !((s->witnesses & ~s->have_data) >> c->m[i].id & 1))
			continue;
		if (was ? (was->flags & RAFT_WITNESS) && !promote : true)
			c->m[i].flags |= RAFT_WITNESS;
	}
	for (uint32_t i = 0; i < c->n && !any_data_voter(c); i++)
		if (!(c->m[i].flags & RAFT_WITNESS))
			c->m[i].flags = RAFT_VOTER;
	draw_quorums(s, c);
}

bool sim_shape_spares(const struct raft_config *c, uint64_t id)
{
	const struct raft_member *m = raft_config_find(c, id);
	uint32_t data[2] = { 0 };

	for (uint32_t i = 0; i < c->n; i++) {
		bool counts = c->m[i].id != id && !(c->m[i].flags & RAFT_WITNESS);
		data[0] += counts && (c->m[i].flags & RAFT_VOTER);
		data[1] += counts && (c->m[i].flags & RAFT_VOTER_OLD);
	}
	for (int old = 0; m && old <= c->joint; old++) {
		uint32_t n = raft_config_voters(c, old);
		if (!(m->flags & (old ? RAFT_VOTER_OLD : RAFT_VOTER)))
			continue;
		if (!data[old] || raft_config_quorum(c, old, RAFT_TO_COMMIT) >= n || raft_config_quorum(c, old, RAFT_TO_ELECT) >= n)
			return false;
	}
	return true;
}

bool sim_is_witness(const struct sim *s, uint64_t id)
{
	return (s->witnesses & ~s->have_data) >> id & 1;
}

static bool has(const struct sim *s, const struct sim_node *n, uint64_t index)
{
	const struct sim_log *d = &n->disk;

	if (index <= d->base)
		return true;
	return index <= d->last && d->e[index].term == s->committed.e[index].term;
}

/* As seen from outside: the latest committed configuration, and what is on the disks. */
void sim_check_keep(struct sim *s)
{
	const struct raft_config *c = &s->configs[s->n_configs - 1].config;

	for (uint32_t i = 0; i < c->n && s->witnesses; i++) {
		struct sim_node *w = &s->n[c->m[i].id - 1];
		if (!(c->m[i].flags & RAFT_WITNESS)) {
			s->have_data |= s->witnesses & 1u << c->m[i].id;
			continue;
		}
		if (!(c->m[i].flags & RAFT_VOTER))
			continue;
		for (uint32_t k = 0; k < c->n; k++) {
			struct sim_node *d = &s->n[c->m[k].id - 1];
			bool counts = (c->m[k].flags & (RAFT_VOTER | RAFT_VOTER_OLD)) && !(c->m[k].flags & RAFT_WITNESS);
			if (counts && !d->forgetful && !has(s, d, w->disk.base))
				sim_fail(s, "K: witness %u has forgotten what is up to %u, node %u lacks it", (unsigned)w->id,
				         (unsigned)w->disk.base, (unsigned)d->id);
		}
	}
}
