/* Heartbeats and their answers that leave in one turn, as one message (raft/bundle.h); in the runs whose drivers do so. */
#include "raft/bundle.h"
#include "test/sim/check.h"
#include <stdlib.h>
#include <string.h>

bool bundles_take(struct sim_node *n, const struct wire_msg *m)
{
	struct wire_msg of_group = *m;
	struct wire_err err;

	if (!n->sim->p.bundles || !raft_bundle_takes(m))
		return false;
	if (!n->bundle && !(n->bundle = raft_bundle_new()))
		abort();
	of_group.group = GROUP;
	if (raft_bundle_put(n->bundle, &of_group, &err))
		sim_fail(n->sim, "bundles", "%s: %s", node_name(n), err.text);
	return true;
}

void bundles_flush(struct sim_node *n)
{
	struct wire_msg m;

	while (n->bundle && raft_bundle_get(n->bundle, &m)) {
		const struct sim_node *to = sim_by_id(n->sim, m.to);
		if (!to)
			continue;
		struct sim_msg *c = malloc(sizeof(*c) + m.data_len);
		if (!c)
			abort();
		*c = (struct sim_msg){ .type = m.type, .flags = m.flags, .from_slot = (uint8_t)n->slot, .to_slot = (uint8_t)to->slot, .from = m.from,
			               .to = m.to, .corr = m.corr, .term = m.term, .index = m.index, .log_term = m.log_term, .commit = m.commit,
			               .hint = m.hint, .bytes = 64 + m.data_len, .data_len = m.data_len };
		if (m.data_len)
			memcpy(c + 1, m.data, m.data_len);
		net_send(n->sim, c);
	}
}

void bundles_drop(struct sim_node *n)
{
	raft_bundle_free(n->bundle);
	n->bundle = NULL;
}

void bundles_open(struct sim_node *n, const struct sim_msg *c, void (*each)(struct sim_node *n, struct wire_msg *m))
{
	struct wire_msg whole = { .type = c->type, .from = c->from, .to = c->to, .data_len = c->data_len, .data = (const uint8_t *)(c + 1) };
	struct wire_msg *m;
	struct wire_err err;
	size_t count;

	if (raft_bundle_open(&whole, &m, &count, &err)) {
		sim_fail(n->sim, "bundles", "%s: %s", node_name(n), err.text);
		return;
	}
	for (size_t i = 0; i < count; i++)
		each(n, &m[i]);
	free(m);
}
