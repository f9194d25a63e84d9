/* Entries of a node's journal whose data its disk has lost: found at a start, filled by what the core fetches. */
#include "test/sim/check.h"
#include <string.h>

void holes_found(struct sim_node *n, const struct raft_journal_state *st)
{
	/* Those that were not filled for good are there again; others need a reason. */
	for (size_t i = 0; i < st->n_holes; i++) {
		bool known = false;
		for (size_t k = 0; k < n->n_holes; k++)
			known |= n->holes[k] == st->holes[i];
		/* A trim that was not durable is undone. */
		known |= st->holes[i] <= n->core_base;
		if (!known && !n->rotted && !n->salvaging)
			sim_fail(n->sim, "I10 only what is synced counts", "%s cannot read entry %llu after a start", node_name(n),
			         (unsigned long long)st->holes[i]);
		n->sim->counts->holes += !known;
	}
	if (st->n_holes)
		sim_trace(n->sim, "node %llu: %llu holes, from %llu to %llu", n->id, st->n_holes, st->holes[0], st->holes[st->n_holes - 1], 0, 0);
	n->n_holes = 0;
	for (size_t i = 0; i < st->n_holes; i++) {
		n->holes = sim_grow(n->holes, &n->cap_holes, n->n_holes, sizeof(*n->holes));
		n->holes[n->n_holes++] = st->holes[i];
	}
	n->n_fills = 0;
}

static void end(struct sim_node *n, uint64_t index)
{
	size_t k = 0;

	while (k < n->n_holes && n->holes[k] != index)
		k++;
	if (k == n->n_holes)
		return;
	n->n_holes--;
	memmove(n->holes + k, n->holes + k + 1, (n->n_holes - k) * sizeof(*n->holes));
}

int holes_write(struct sim_node *n, const struct raft_update *u, struct wire_err *err)
{
	for (uint32_t i = 0; i < u->n_fills; i++) {
		check_holes_filled(n, &u->fills[i]);
		int rc = raft_journal_fill(n->journal, &u->fills[i], err);
		if (rc)
			return rc;
		n->fills = sim_grow(n->fills, &n->cap_fills, n->n_fills, sizeof(*n->fills));
		n->fills[n->n_fills++] = (struct sim_fill){ .index = u->fills[i].index, .term = u->fills[i].term };
	}
	return WIRE_OK;
}

struct sim_fill holes_next_durable(struct sim_node *n)
{
	struct sim_fill f = { 0 };

	while (n->fills_late && n->n_fills) {
		f = n->fills[0];
		n->n_fills--;
		n->fills_late--;
		memmove(n->fills, n->fills + 1, n->n_fills * sizeof(*n->fills));
		if (f.index > n->log_last || f.index <= n->log_base || n->log[f.index].term != f.term)
			continue; /* superseded, or trimmed */
		end(n, f.index);
		n->sim->counts->filled++;
		return f;
	}
	n->fills_late = 0;
	return (struct sim_fill){ 0 };
}

void holes_truncate(struct sim_node *n, uint64_t from)
{
	while (n->n_holes && n->holes[n->n_holes - 1] >= from)
		n->n_holes--;
}

void holes_trim(struct sim_node *n)
{
	uint64_t base = n->journal && !n->failing ? raft_journal_base(n->journal) : 0;

	while (n->n_holes && n->holes[0] <= base)
		end(n, n->holes[0]);
}
