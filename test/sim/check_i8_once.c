/* I8: a write that was not acknowledged is applied once or not at all; one that is said to be lost never is, one that is
 * acknowledged is where it was said to be. */
#include "test/sim/check.h"

#define NAME "I8 once or not at all"

uint64_t check_i8_attempt(struct sim *s, uint32_t client, uint32_t key, uint64_t seq)
{
	struct check *k = s->check;

	k->attempts = sim_grow(k->attempts, &k->cap_attempts, k->n_attempts, sizeof(*k->attempts));
	k->attempts[k->n_attempts++] = (struct attempt){ .client = client, .key = key, .seq = seq, .told = WIRE_UNKNOWN };
	return k->n_attempts;
}

void check_i8_committed(struct sim *s, const struct machine_op *op, uint64_t index)
{
	struct check *k = s->check;
	struct attempt *a = op->attempt && op->attempt <= k->n_attempts ? &k->attempts[op->attempt - 1] : NULL;

	if (!a || a->client != op->client || a->seq != op->seq || a->key != op->key)
		sim_fail(s, NAME, "entry %llu was made by no client", (unsigned long long)index);
	else if (a->index)
		sim_fail(s, NAME, "proposal %llu is committed at %llu and at %llu", (unsigned long long)op->attempt, (unsigned long long)a->index,
		         (unsigned long long)index);
	else if (a->told == WIRE_LOST)
		sim_fail(s, NAME, "proposal %llu, of which the client was told that it is lost, is committed at %llu", (unsigned long long)op->attempt,
		         (unsigned long long)index);
	else
		a->index = index;
}

void check_i8_told(struct sim *s, uint64_t attempt, int code, uint64_t index)
{
	struct attempt *a = &s->check->attempts[attempt - 1];

	a->told = code;
	if (code == WIRE_OK && a->index != index)
		sim_fail(s, NAME, "proposal %llu is acknowledged as entry %llu, but was committed at %llu (0: not)", (unsigned long long)attempt,
		         (unsigned long long)index, (unsigned long long)a->index);
	if (code == WIRE_LOST && a->index)
		sim_fail(s, NAME, "proposal %llu is said to be lost, but was committed at %llu", (unsigned long long)attempt,
		         (unsigned long long)a->index);
}
