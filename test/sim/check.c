/* What the properties share: the committed log, seen from outside. */
#include "test/sim/check.h"
#include <stdlib.h>
#include <string.h>

void check_members(const struct raft_config *c, struct members *ret)
{
	*ret = (struct members){ .joint = c->joint, .level = c->level, .quorums = c->quorums, .old_quorums = c->old_quorums, .n = c->n };
	for (uint32_t i = 0; i < c->n; i++) {
		ret->m[i].id = c->m[i].id;
		ret->m[i].flags = c->m[i].flags;
		ret->m[i].priority = c->m[i].priority;
	}
}

static void add_config(struct check *k, const struct raft_config *c)
{
	k->configs = sim_grow(k->configs, &k->cap_configs, k->n_configs, sizeof(*k->configs));
	check_members(c, &k->configs[k->n_configs++]);
}

void check_new(struct sim *s, const struct raft_config *first)
{
	struct check *k = calloc(1, sizeof(*k));

	if (!k)
		abort();
	s->check = k;
	k->committed = sim_grow(NULL, &k->cap_committed, 0, sizeof(*k->committed));
	k->committed[0] = (struct committed){ 0 };
	add_config(k, first);
	for (uint32_t i = 0; i < MACHINE_KEYS; i++) {
		struct key_history *h = &k->keys[i];
		h->v = sim_grow(NULL, &h->cap, 0, sizeof(*h->v));
		h->v[h->n++] = (struct version){ 0 };
	}
}

void check_free(struct sim *s)
{
	struct check *k = s->check;

	if (!k)
		return;
	for (uint32_t i = 0; i < MACHINE_KEYS; i++)
		free(k->keys[i].v);
	for (size_t i = 0; i < k->n_lost; i++)
		free(k->lost[i].log);
	free(k->votes);
	free(k->lost);
	free(k->history);
	free(k->committed);
	free(k->configs);
	free(k->leaders);
	free(k->known);
	free(k->attempts);
	free(k);
	s->check = NULL;
}

uint64_t check_chain(uint64_t before, uint64_t term, uint8_t kind, uint64_t sum, uint32_t size)
{
	return rng_mix(rng_mix(rng_mix(before, term), sum), (uint64_t)size << 8 | kind);
}

static void extend(struct sim_node *n, uint64_t index, const struct wire_entry *e)
{
	struct sim *s = n->sim;
	struct check *k = s->check;
	struct machine_op op;
	struct raft_config c;
	bool has = e->kind == WIRE_ENTRY_DATA && machine_op_get(e->data, e->size, &op);

	if (e->kind == WIRE_ENTRY_DATA && !has) {
		sim_fail(s, "I4 state machine safety", "%s publishes entry %llu, whose data no client made", node_name(n),
		         (unsigned long long)index);
		return;
	}
	k->committed = sim_grow(k->committed, &k->cap_committed, index, sizeof(*k->committed));
	k->last = index;
	s->counts->commits++;
	if (e->kind == WIRE_ENTRY_CONFIG && raft_config_get(e->data, e->size, &c, NULL) == WIRE_OK) {
		add_config(k, &c);
		s->counts->configs++;
		s->counts->raised += k->configs[k->n_configs - 1].level > k->configs[k->n_configs - 2].level;
		sim_trace(s, "committed: configuration at %llu, %llu members, joint %llu", index, c.n, c.joint, 0, 0, 0);
	}
	if (machine_apply(&k->machine, e->term, has ? &op : NULL))
		check_i7_applied(s, &op, index);
	k->committed[index] = (struct committed){ .term = e->term, .chain = n->log[index].chain, .hash = k->machine.hash,
		                                  .told_term = n->term, .config = (uint32_t)k->n_configs - 1 };
	if (has)
		check_i8_committed(s, &op, index);
}

void check_published(struct sim_node *n, uint64_t index, const struct wire_entry *e)
{
	check_i9_publish(n, index);
	if (index == n->sim->check->last + 1)
		extend(n, index, e);
}

void check_refresh(struct sim_node *n)
{
	size_t k = 0;

	while (k < n->n_written && disk_durable(n->disk, n->written[k].mark))
		k++;
	if (!k)
		return;
	const struct written *w = &n->written[k - 1];
	n->dur_index = w->index;
	if (w->attests > n->dur_attested)
		n->dur_attested = w->attests;
	n->dur_term = w->term;
	n->dur_vote = w->vote;
	n->dur_forgetful = w->forgetful;
	n->n_written -= k;
	memmove(n->written, n->written + k, n->n_written * sizeof(*n->written));
}

bool check_has_durable(struct sim *s, uint64_t id, uint64_t index, uint64_t chain)
{
	const struct check *k = s->check;
	struct sim_node *n = sim_by_id(s, id);

	if (n && n->has_journal)
		check_refresh(n);
	/* What one acknowledges that has forgotten its votes must not count (raft/forgetful.c). */
	if (n && n->has_journal && !n->dur_forgetful) {
		if (index == n->log_base && n->log[index].chain == chain)
			return true;
		if (index < n->log_base && (index > k->last || k->committed[index].chain == chain))
			return true;
		if (index > n->log_base && n->dur_index >= index && n->log[index].chain == chain)
			return true;
	}
	/* It may have been lost since, under the same id too. */
	for (size_t i = 0; i < k->n_lost; i++)
		if (k->lost[i].id == id && k->lost[i].dur_index >= index && k->lost[i].log[index].chain == chain)
			return true;
	return false;
}

static bool half_durable(struct sim *s, const struct members *c, bool old_half, uint64_t index, uint64_t chain)
{
	uint32_t have = 0;

	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].flags & (old_half ? RAFT_VOTER_OLD : RAFT_VOTER))
			have += check_has_durable(s, c->m[i].id, index, chain);
	return have >= check_quorum_size(c, old_half, false);
}

bool check_quorum_durable(struct sim *s, const struct members *c, bool old_half, uint64_t index, uint64_t chain)
{
	return half_durable(s, c, false, index, chain) && (!c->joint || !old_half || half_durable(s, c, true, index, chain));
}
