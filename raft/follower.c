/* Following: appends and heartbeats of the term's leader (paper figure 2, AppendEntries, receiver). */
#include "raft/core.h"
#include <stdlib.h>

/* I9: answers wait for the disk. */
static struct wire_msg *reply(struct raft *r, enum wire_msg_type type, uint64_t to)
{
	struct wire_msg *a = raft_send(r, type, to, true);

	if (a && r->forgetful)
		a->flags = WIRE_MSG_FORGOT;
	return a;
}

/* Is this the leader of the current term? Answers one of an earlier term, so that it steps down; takes up a new one. */
static bool accept_leader(struct raft *r, const struct wire_msg *m, enum wire_msg_type answer)
{
	if (m->term < r->term) {
		struct wire_msg *a = reply(r, answer, m->from);
		if (a)
			a->flags |= WIRE_MSG_REJECT;
		raft_tell_why(r, RAFT_TOLD_ROLE_NO_LEADER, m->from, "its term is over", m->term, r->term, 0);
		return false;
	}
	/* I1: two leaders in one term do not exist; whoever says so is ignored. */
	if (m->term == r->term && (r->role == RAFT_LEADER || (r->leader && r->leader != m->from))) {
		raft_tell_why(r, RAFT_TOLD_ROLE_NO_LEADER, m->from, "that term has another leader", m->term, r->term, 0);
		return false;
	}
	raft_become_follower(r, m->term, m->from);
	raft_contact(r);
	return true;
}

static void refuse(struct raft *r, const struct wire_msg *m)
{
	struct wire_msg *a = reply(r, WIRE_MSG_APPEND_RESP, m->from);

	if (!a)
		return;
	a->flags |= WIRE_MSG_REJECT;
	a->corr = m->corr;
	a->index = m->index;
	a->hint = raft_log_back_up(&r->log, m->index, m->log_term);
	a->log_term = raft_log_term(&r->log, a->hint);
	raft_tell_why(r, RAFT_TOLD_LOG_REFUSED, m->from, "the log does not agree there", m->index, a->hint, 0);
}

bool raft_take(struct raft *r, uint64_t first, const struct wire_entry *entries, uint32_t n)
{
	struct raft_config c;

	while (n && first <= raft_log_last(&r->log) && raft_log_term(&r->log, first) == entries->term) {
		first++;
		entries++;
		n--;
	}
	if (!n)
		return true;
	/* I3, I4: what is committed is in every leader's log, a leader appends only, and terms do not fall. Who says otherwise lies. */
	if (first <= r->matched || entries->term < raft_log_term(&r->log, first - 1))
		return false;
	uint8_t level = raft_config_before(r, first)->level;
	for (uint32_t i = 0; i < n; i++) {
		if (entries[i].kind != WIRE_ENTRY_CONFIG)
			continue;
		if (!raft_level_reads(r, &entries[i], &c) || c.level < level)
			return false;
		level = c.level;
	}
	if (first <= raft_log_last(&r->log)) {
		raft_tell(r, RAFT_TOLD_LOG_TRUNCATED, 0, first, raft_log_last(&r->log), 0);
		raft_log_truncate(&r->log, first);
		raft_configs_truncate(r, first);
		raft_holes_truncate(r, first);
		r->truncate_from = first;
		if (r->durable >= first)
			r->durable = first - 1;
	}
	for (uint32_t i = 0; i < n && !r->nomem; i++) {
		struct wire_entry e = entries[i];
		e.index = first + i;
		raft_append(r, &e);
		if (!r->nomem && e.kind == WIRE_ENTRY_CONFIG && raft_config_get(e.data, e.size, &c, NULL) == WIRE_OK)
			raft_configs_push(r, e.index, &c);
	}
	return !r->nomem;
}

/* I9: it waits for the disk. `matched` covers what was acknowledged before and may have been lost on the way. */
void raft_ack(struct raft *r, uint64_t leader)
{
	struct wire_msg *a = reply(r, WIRE_MSG_APPEND_RESP, leader);

	if (a)
		a->index = raft_hole_before(r, 0, r->matched);
}

void raft_on_append(struct raft *r, const struct wire_msg *m)
{
	if (!raft_entries_plausible(m) || !accept_leader(r, m, WIRE_MSG_APPEND_RESP))
		return;
	raft_holes_offer(r, m->index + 1, m->entries, m->n_entries);
	uint64_t prev = m->index, last = m->index + m->n_entries;
	const struct wire_entry *entries = m->entries;
	uint32_t n = m->n_entries;

	if (prev < r->commit) {
		/* What is committed agrees; it may be trimmed here. */
		uint64_t skip = r->commit - prev < n ? r->commit - prev : n;
		entries += skip;
		n -= (uint32_t)skip;
		prev += skip;
	} else if (!raft_log_matches(&r->log, prev, m->log_term)) {
		refuse(r, m);
		return;
	}
	if (n && !(m->flags & WIRE_MSG_FULL) && raft_witness_declines(r, prev + 1, entries, n)) {
		raft_tell_why(r, RAFT_TOLD_LOG_REFUSED, m->from, "the log of this witness is full", prev, raft_log_last(&r->log), 0);
		return;
	}
	if (n && !raft_take(r, prev + 1, entries, n)) {
		raft_tell_why(r, RAFT_TOLD_LOG_REFUSED, m->from, "a configuration cannot be read", prev, raft_log_last(&r->log), 0);
		return;
	}
	if (r->n_new)
		raft_tell(r, RAFT_TOLD_LOG_TAKEN, m->from, r->new_entries->index, raft_log_last(&r->log), 0);
	if (last > r->matched)
		r->matched = last;
	raft_commit_to(r, m->commit < r->matched ? m->commit : r->matched);
	raft_ack(r, m->from);
}

void raft_on_heartbeat(struct raft *r, const struct wire_msg *m)
{
	if (!accept_leader(r, m, WIRE_MSG_HEARTBEAT_RESP))
		return;
	raft_pulse_announced(r, m);
	/* The leader tells no more than what we have acknowledged to it, perhaps before a restart; unless that was forgotten. */
	uint64_t last = r->forgetful ? r->matched : raft_log_last(&r->log), commit = m->commit < last ? m->commit : last;
	if (commit > r->matched)
		r->matched = commit;
	raft_commit_to(r, commit);
	raft_keep_told(r, m->hint < r->commit ? m->hint : r->commit);
	struct wire_msg *a = reply(r, WIRE_MSG_HEARTBEAT_RESP, m->from);
	if (!a)
		return;
	a->corr = m->corr;
	a->log_term = m->log_term;
	a->index = raft_hole_before(r, 0, r->matched < r->durable ? r->matched : r->durable);
	a->hint = r->applied;
	a->commit = r->level;
	a->flags |= raft_witness_full(r) ? WIRE_MSG_FULL : 0;
}
