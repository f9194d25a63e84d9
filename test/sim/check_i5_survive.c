/* I5: an acknowledged commit survives any minority of crashes, power losses and lost disks: when a client is told, a quorum
 * has it on its disks, and what was on a disk is there after a restart (I10: only what was synced counts). */
#include "test/sim/check.h"
#include <stdlib.h>
#include <string.h>

void check_i5_acked(struct sim *s, uint64_t index)
{
	const struct check *k = s->check;

	if (index > k->last) {
		sim_fail(s, "I5 acknowledged commits survive", "a client is told of entry %llu, which no node has published", (unsigned long long)index);
		return;
	}
	/* While a joint configuration is left, the incoming half alone may commit. */
	const struct members *c = &k->configs[k->committed[index].config];
	if (!check_quorum_durable(s, c, false, index, k->committed[index].chain))
		sim_fail(s, "I5 acknowledged commits survive", "a client is told of entry %llu, which no quorum has on its disks",
		         (unsigned long long)index);
}

void check_i5_wiped(struct sim_node *n)
{
	struct check *k = n->sim->check;

	check_refresh(n);
	/* A restart may have found less than what it has acknowledged. */
	size_t bytes = ((n->log_last > n->dur_index ? n->log_last : n->dur_index) + 1) * sizeof(*n->log);
	k->lost = sim_grow(k->lost, &k->cap_lost, k->n_lost, sizeof(*k->lost));
	struct lost_member *l = &k->lost[k->n_lost++];
	*l = (struct lost_member){ .id = n->id, .dur_index = n->dur_index, .log = malloc(bytes) };
	if (!l->log)
		abort();
	memcpy(l->log, n->log, bytes);
	for (uint64_t i = 0; i <= n->log_base && i <= k->last; i++)
		l->log[i].chain = k->committed[i].chain;
}

/* The log that was found, as a chain; what is below its base is committed. */
static void rebuild(struct sim_node *n, const struct raft_journal_state *st, struct log_link *at_durable)
{
	struct check *k = n->sim->check;
	/* A witness forgets what is committed, and no node may have published it yet. */
	uint64_t chain = st->base_index <= k->last ? k->committed[st->base_index].chain : check_i2_chain(n->sim, st->base_index, st->base_term);
	size_t hole = 0;

	if (n->dur_index < n->cap_log)
		*at_durable = n->log[n->dur_index];
	n->log_base = st->base_index;
	n->log_last = st->base_index + st->n_entries;
	while (n->cap_log <= n->log_last)
		n->log = sim_grow(n->log, &n->cap_log, n->cap_log, sizeof(*n->log));
	n->log[n->log_base] = (struct log_link){ .term = st->base_term, .chain = chain };
	for (size_t i = 0; i < st->n_entries; i++) {
		const struct wire_entry *e = &st->entries[i];
		bool lost = hole < st->n_holes && st->holes[hole] == e->index && !e->sum;
		hole += hole < st->n_holes && st->holes[hole] == e->index;
		chain = lost ? check_i2_chain(n->sim, e->index, e->term) : check_chain(chain, e->term, e->kind, e->sum, e->size);
		n->log[e->index] = (struct log_link){ .term = e->term, .chain = chain };
		check_i2_recovered(n, e->index);
	}
}

static void check_commit(struct sim_node *n, const struct raft_journal_state *st)
{
	const struct check *k = n->sim->check;

	if (st->base_index > k->last ? !n->witness || !n->log[n->log_base].chain : k->committed[st->base_index].term != st->base_term)
		sim_fail(n->sim, "I10 only what is synced counts", "the journal of %s begins above %llu, of term %llu, which is not committed so",
		         node_name(n), (unsigned long long)st->base_index, (unsigned long long)st->base_term);
	else if (st->commit > n->log_last)
		sim_fail(n->sim, "I10 only what is synced counts", "the journal of %s says that %llu is committed, and ends at %llu", node_name(n),
		         (unsigned long long)st->commit, (unsigned long long)n->log_last);
	else if (st->commit <= k->last && st->commit > n->log_base && n->log[st->commit].chain != k->committed[st->commit].chain)
		sim_fail(n->sim, "I10 only what is synced counts", "the journal of %s says that its entry %llu is committed: another is", node_name(n),
		         (unsigned long long)st->commit);
}

bool check_i10_recovered(struct sim_node *n, const struct raft_journal_state *st)
{
	struct sim *s = n->sim;
	struct log_link durable = { 0 };
	uint64_t dur = n->dur_index;
	bool lost_log, lost_vote;

	rebuild(n, st, &durable);
	lost_log = n->log_last < dur || (dur > n->log_base && n->log[dur].chain != durable.chain);
	lost_vote = st->term < n->dur_term || (st->term == n->dur_term && n->dur_vote && st->vote != n->dur_vote);
	if ((lost_log || lost_vote) && n->rotted && (n->rotted_much || n->log_last >= n->dur_attested))
		return false;
	if (lost_log)
		sim_fail(s, "I5 acknowledged commits survive", "%s had entry %llu of term %llu on its disk; after a restart its log ends at %llu, of term %llu",
		         node_name(n), (unsigned long long)dur, (unsigned long long)durable.term, (unsigned long long)n->log_last,
		         (unsigned long long)n->log[n->log_last].term);
	else if (lost_vote)
		sim_fail(s, "I9 durability before messages", "%s had term %llu, vote %llu on its disk; after a restart it has term %llu, vote %llu",
		         node_name(n), (unsigned long long)n->dur_term, (unsigned long long)n->dur_vote, (unsigned long long)st->term,
		         (unsigned long long)st->vote);
	else
		check_commit(n, st);
	return true;
}
