/* I7: reads and writes are linearizable. The order of writes is that of the committed log, and each write of a key has a
 * version, so a history is linearizable if and only if each operation sees or makes a version that is not below any
 * that a completed operation had seen or made before this one was invoked, a write a later one. */
#include "test/sim/check.h"

#define NAME "I7 linearizable reads and writes"

uint64_t check_i7_invoked(struct sim *s, uint32_t key)
{
	return s->check->keys[key].seen;
}

void check_i7_applied(struct sim *s, const struct machine_op *op, uint64_t index)
{
	struct key_history *h = &s->check->keys[op->key];
	const struct machine_key *now = &s->check->machine.key[op->key];

	h->v = sim_grow(h->v, &h->cap, h->n, sizeof(*h->v));
	h->v[h->n++] = (struct version){ .index = index, .value = op->value, .list = now->list };
	s->check->made[op->client] = h->n - 1;
}

void check_i7_wrote(struct sim *s, uint32_t client, uint32_t key, uint64_t floor)
{
	struct key_history *h = &s->check->keys[key];
	uint64_t made = s->check->made[client];

	if (made <= floor)
		sim_fail(s, NAME, "a write of key %u made version %llu, but version %llu had been seen before it began", key,
		         (unsigned long long)made, (unsigned long long)floor);
	if (made > h->seen)
		h->seen = made;
}

void check_i7_read(struct sim_node *n, uint32_t key, uint64_t floor)
{
	struct key_history *h = &n->sim->check->keys[key];
	const struct machine_key *k = &n->machine.key[key];

	if (k->version >= h->n || h->v[k->version].value != k->value || h->v[k->version].list != k->list)
		sim_fail(n->sim, NAME, "%s reads version %llu of key %u with a value that was never committed so", node_name(n),
		         (unsigned long long)k->version, key);
	else if (k->version < floor)
		sim_fail(n->sim, NAME, "%s reads version %llu of key %u, but version %llu had been seen before the read began", node_name(n),
		         (unsigned long long)k->version, key, (unsigned long long)floor);
	else if (k->version > h->seen)
		h->seen = k->version;
}
