/* I2: if two logs have an entry of the same index and term, they are the same up to there. Each log's chain of hashes is
 * looked up by (index, term) among all that were ever written, on any node.
 *
 * A node that is alone leads before its term is durable. Should it crash then, it may lead the same term again with other
 * entries: nobody has heard of the first ones. */
#include "test/sim/check.h"
#include <stdlib.h>

static struct known *find(struct check *k, uint64_t index, uint64_t term)
{
	size_t at = rng_mix(index, term) & (k->cap_known - 1);

	while (k->known[at].index && (k->known[at].index != index || k->known[at].term != term))
		at = (at + 1) & (k->cap_known - 1);
	return &k->known[at];
}

static void make_room(struct check *k)
{
	struct known *old = k->known;
	size_t cap = k->cap_known;

	if (k->n_known * 2 < cap)
		return;
	k->cap_known = cap ? cap * 2 : 1024;
	k->known = calloc(k->cap_known, sizeof(*k->known));
	if (!k->known)
		abort();
	for (size_t i = 0; i < cap; i++)
		if (old[i].index)
			*find(k, old[i].index, old[i].term) = old[i];
	free(old);
}

static void differ(struct sim_node *n, uint64_t index)
{
	sim_fail(n->sim, "I2 log matching", "the log of %s has an entry %llu of term %llu like another log, but not the same log before it",
	         node_name(n), (unsigned long long)index, (unsigned long long)n->log[index].term);
}

void check_i2_appended(struct sim_node *n, uint64_t index)
{
	struct check *k = n->sim->check;

	make_room(k);
	struct known *e = find(k, index, n->log[index].term);
	uint64_t owner = n->log[index].term > n->dur_term ? n->id : 0;
	if (!e->index || e->owner == n->id) {
		k->n_known += !e->index;
		*e = (struct known){ .index = index, .term = n->log[index].term, .chain = n->log[index].chain, .owner = owner };
	} else if (e->chain != n->log[index].chain) {
		differ(n, index);
	}
}

void check_i2_recovered(struct sim_node *n, uint64_t index)
{
	struct check *k = n->sim->check;

	make_room(k);
	const struct known *e = find(k, index, n->log[index].term);
	if (!e->index)
		sim_fail(n->sim, "I2 log matching", "the journal of %s has an entry %llu of term %llu that nobody ever wrote", node_name(n),
		         (unsigned long long)index, (unsigned long long)n->log[index].term);
	else if (e->chain != n->log[index].chain)
		differ(n, index);
}

uint64_t check_i2_chain(struct sim *s, uint64_t index, uint64_t term)
{
	make_room(s->check);
	const struct known *e = find(s->check, index, term);
	return e->index ? e->chain : 0;
}
