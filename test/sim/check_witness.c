/* Witnesses (raft/witness.c, K): none forgets an entry that is not durable on every data voter, of the committed configuration and of all
 * later ones; of its word keep_above the same is asked at once. Without that, a write that a data voter and a witness have acknowledged
 * could be lost with that data voter. And a witness that leads serves nobody: it is never ready. */
#include "test/sim/check.h"

#define NAME "I5 witnesses keep what data voters lack"

static bool data_voter(const struct members *c, uint32_t i, uint8_t halves)
{
	return (c->m[i].flags & halves) && !(c->m[i].flags & RAFT_WITNESS);
}

/* In which halves it votes, as flags. Of one that votes in the outgoing half alone only the data voters of that can need something: an
 * incoming one that lacks more is no part of a quorum of its half before it has got it from one that has the database. */
static uint8_t votes(const struct members *c, uint64_t id)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].id == id)
			return c->m[i].flags & RAFT_VOTER ? RAFT_VOTER | RAFT_VOTER_OLD : c->m[i].flags & RAFT_VOTER_OLD;
	return 0;
}

static void all_have(struct sim_node *n, const struct members *c, uint64_t index, const char *what)
{
	struct sim *s = n->sim;
	uint8_t halves = votes(c, n->id);

	if (!halves)
		return; /* nobody counts on it, or every data voter is asked before it is made a voter */
	for (uint32_t i = 0; i < c->n; i++) {
		struct sim_node *o = sim_by_id(s, c->m[i].id);
		/* One whose disk is lost, or that has forgotten, is dead as a data voter. */
		if (!data_voter(c, i, halves) || !o || !o->has_journal || o->forgetful || o->dur_forgetful || o->rotted || o->salvaging)
			continue;
		if (!check_has_durable(s, c->m[i].id, index, n->log[index].chain))
			sim_fail(s, NAME, "%s %s entry %llu, which data voter %llu has not on its disk", node_name(n), what, (unsigned long long)index,
			         (unsigned long long)c->m[i].id);
	}
}

/* By the committed configuration and all above that the leader has. */
static void judge(struct sim_node *n, uint64_t index, const char *what)
{
	struct check *k = n->sim->check;
	const struct sim_node *l = sim_leader(n->sim);

	/* It is committed as soon as a quorum has it, published later. */
	const struct members *committed = &k->configs[k->n_configs - 1];
	size_t later = 0;
	for (size_t i = 0; l && i < l->n_configs; i++) {
		const struct node_config *c = &l->configs[i];
		if (c->index <= k->last || c->index <= l->log_base)
			later = i + 1;
		else if (check_quorum_durable(n->sim, &c->m, true, c->index, l->log[c->index].chain))
			committed = &c->m, later = i + 1;
	}
	all_have(n, committed, index, what);
	for (size_t i = later; l && i < l->n_configs; i++)
		all_have(n, &l->configs[i].m, index, what);
}

void check_witness_trimmed(struct sim_node *n)
{
	uint64_t base = raft_journal_base(n->journal);

	if (node_is_witness(n) && base > n->log_base)
		judge(n, base, "forgets");
}

void check_witness_told(struct sim_node *n, const struct raft_update *u)
{
	const struct raft_member *self = raft_config_find(raft_config_current(n->raft), n->id);

	if (u->keep_above < n->keep_above && self && (self->flags & RAFT_WITNESS))
		sim_fail(n->sim, NAME, "%s says that witnesses may forget up to %llu, after %llu", node_name(n), (unsigned long long)u->keep_above,
		         (unsigned long long)n->keep_above);
	if (node_is_witness(n) && u->leader_ready)
		sim_fail(n->sim, NAME, "%s, a witness, leads as if it had a database", node_name(n));
}
