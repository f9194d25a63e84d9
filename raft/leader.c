/* Leading: entries in, appends and heartbeats out, commit. */
#include "raft/core.h"
#include "wire/hash.h"

/* Who has forgotten what it promised is as good as crashed (forgetful.c). */
static uint64_t match_of(const struct raft_peer *p)
{
	return p->forgot ? 0 : p->match;
}

bool raft_leader_is_ready(const struct raft *r)
{
	return r->role == RAFT_LEADER && r->commit >= r->term_start;
}

/* I9: what tells of our term goes out before our own disk write only when that term is durable already. It is by the
 * time somebody else's vote has come in, since the request for it waited for the disk. */
static bool term_may_be_lost(const struct raft *r)
{
	return r->elected_alone && r->durable < r->term_start;
}

struct wire_msg *raft_leader_send(struct raft *r, enum wire_msg_type type, uint64_t to)
{
	assert(!r->hard_changed || term_may_be_lost(r));
	return raft_send(r, type, to, term_may_be_lost(r));
}

void raft_append_local(struct raft *r, enum wire_entry_kind kind, const uint8_t *data, uint32_t size)
{
	uint64_t index = raft_log_last(&r->log) + 1;

	if (kind == WIRE_ENTRY_NOOP)
		raft_tell_why(r, RAFT_TOLD_LOG_PROPOSED, 0, index == r->term_start ? "the first entry of a leader" : "gives the lease back after a transfer", index, index, 0);
	raft_append(r, &(struct wire_entry){
		.index = index,
		.term = r->term,
		.kind = (uint8_t)kind,
		.size = size,
		.sum = wire_hash(size ? (const void *)data : "", size, 0),
		.data = size ? data : NULL,
	});
}

/* An entry of its own term lets a leader commit what earlier ones left (paper 5.4.2, 8). */
void raft_leader_begin(struct raft *r)
{
	r->votes_took_us = r->now_us - r->stood_us;
	raft_peers_begin(r);
	raft_lease_begin(r);
	r->round = r->round_done = 0;
	r->news.beat_us = 0;
	r->news.idle = false;
	r->commit_due_us = UINT64_MAX;
	r->term_start = raft_log_last(&r->log) + 1;
	raft_append_local(r, WIRE_ENTRY_NOOP, NULL, 0);
	raft_read_adopt(r);
}

static int refuse(struct raft *r, int code, const char *why)
{
	raft_tell_why(r, RAFT_TOLD_LOG_PROPOSAL_REFUSED, 0, why, raft_flow_backlog(r), 0, 0);
	return code;
}

static int admit(struct raft *r, const struct raft_event *ev)
{
	if (r->role != RAFT_LEADER)
		return refuse(r, WIRE_NOTLEADER, "this node does not lead");
	for (uint32_t i = 0; i < ev->n_entries; i++)
		if (ev->entries[i].kind != WIRE_ENTRY_DATA)
			return refuse(r, WIRE_INVALID, "it is none of data");
	if (!ev->n_entries)
		return refuse(r, WIRE_INVALID, "it is empty");
	/* Thesis 3.10: the one that shall lead must be able to get level. */
	if (r->transfer_to)
		return refuse(r, WIRE_BUSY, "leadership is being handed over");
	if (raft_self_witness(r))
		return refuse(r, WIRE_BUSY, "a witness leads");
	return raft_flow_admits(r, ev->entries, ev->n_entries) ? WIRE_OK : refuse(r, WIRE_BUSY, "too much is not committed yet");
}

void raft_propose(struct raft *r, const struct raft_event *ev)
{
	uint64_t bytes = 0;

	r->proposal_code = admit(r, ev);
	if (r->proposal_code != WIRE_OK)
		return;
	r->proposal_index = raft_log_last(&r->log) + 1;
	for (uint32_t i = 0; i < ev->n_entries; i++) {
		struct wire_entry e = ev->entries[i];
		e.index = raft_log_last(&r->log) + 1;
		e.term = r->term;
		bytes += e.size;
		raft_append(r, &e);
	}
	raft_tell(r, RAFT_TOLD_LOG_PROPOSED, 0, r->proposal_index, raft_log_last(&r->log), bytes);
}

static void replicate(struct raft *r, struct raft_peer *p)
{
	raft_flow_note(r, p);
	while (raft_peer_may_send(r, p)) {
		uint64_t prev = p->next - 1, bytes;
		if (prev < r->log.base_index) {
			raft_peer_to(r, p, RAFT_SNAPSHOT);
			return;
		}
		struct wire_msg *m = raft_leader_send(r, WIRE_MSG_APPEND, p->id);
		if (!m)
			return;
		m->index = prev;
		m->log_term = raft_log_term(&r->log, prev);
		m->commit = r->commit;
		m->corr = p->epoch;
		m->flags = p->full ? WIRE_MSG_FULL : 0;
		uint64_t last = prev + raft_fill_msg(r, m, p->next, p->full ? raft_full_upto(r) : raft_log_last(&r->log), raft_flow_append_max(r, p), &bytes);
		if (r->nomem)
			return;
		raft_peer_sent(r, p, last, bytes);
		uint64_t told = r->commit < last ? r->commit : last;
		if (told > p->commit_sent)
			p->commit_sent = told;
	}
}

/* Never tells more than what the peer is known to have (it cannot tell which of its entries above that are ours). */
static uint64_t commit_for(const struct raft *r, const struct raft_peer *p)
{
	return r->commit < p->match ? r->commit : p->match;
}

void raft_heartbeat(struct raft *r, struct raft_peer *p)
{
	struct wire_msg *m = raft_leader_send(r, WIRE_MSG_HEARTBEAT, p->id);

	if (!m)
		return;
	m->commit = p->commit_sent = commit_for(r, p);
	m->corr = r->round;
	m->log_term = raft_lease_stamp(r);
	m->hint = raft_keep_hint(r, p);
	raft_pulse_announce(r, p, m);
}

static bool owes_commit(const struct raft *r, const struct raft_peer *p)
{
	return commit_for(r, p) > p->commit_sent;
}

void raft_tell_commit(struct raft *r)
{
	for (uint32_t i = 0; i < r->n_peers; i++)
		if (owes_commit(r, &r->peers[i]))
			raft_heartbeat(r, &r->peers[i]);
	r->commit_due_us = UINT64_MAX;
}

void raft_tell_soon(struct raft *r, uint64_t peer, uint64_t index)
{
	struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer(r, peer) : NULL;

	if (p && index > p->commit_sent)
		p->awaits = index;
}

/* To somebody who waits for that half a millisecond is long. */
static void tell_waiting(struct raft *r, struct raft_peer *p)
{
	if (!p->awaits || commit_for(r, p) < p->awaits)
		return;
	p->awaits = 0;
	if (owes_commit(r, p))
		raft_heartbeat(r, p);
}

void raft_leader_timers(struct raft *r)
{
	/* CheckQuorum (thesis 6.2): a leader that hears from no quorum for an election timeout is none. */
	if (raft_quorum_lost(r)) {
		raft_pulse_tell_lost(r);
		raft_become_follower(r, r->term, 0);
		return;
	}
	if (raft_disk_replaces(r) || raft_witness_leaves(r))
		return;
	raft_pulse_flush(r);
	if (r->now_us >= r->commit_due_us)
		raft_tell_commit(r);
	raft_transfer_timers(r);
}

/* I12, paper 5.4.2 and figure 8: counting replicas commits only entries of the current term, and those below them. Only
 * what is durable counts, on this node too (thesis 10.2.1: its own disk may be the slowest). */
static void advance_commit(struct raft *r)
{
	uint64_t index = raft_quorum(r, RAFT_TO_COMMIT, match_of, r->durable);

	if (index > r->commit && raft_log_term(&r->log, index) == r->term)
		raft_commit_to(r, index);
}

/* At the end of each step: whatever it made possible. */
void raft_leader_flush(struct raft *r)
{
	advance_commit(r);
	raft_change_go_on(r);
	if (r->role != RAFT_LEADER)
		return;
	if (raft_lease_wants_entry(r))
		raft_append_local(r, WIRE_ENTRY_NOOP, NULL, 0); /* an idle leader would have none again */
	for (uint32_t i = 0; i < r->n_peers && !r->nomem; i++) {
		raft_round_step(r, &r->peers[i]);
		raft_source_step(r, &r->peers[i]);
		replicate(r, &r->peers[i]);
		if (r->peers[i].state == RAFT_SNAPSHOT)
			raft_source_step(r, &r->peers[i]);
	}
	raft_priority_pump(r);
	raft_witness_pump(r);
	raft_transfer_pump(r);
	if (r->n_new || r->n_reads || r->transfer_to)
		raft_pulse_active(r);
	raft_read_pump(r);
	raft_pulse_flush(r);
	for (uint32_t i = 0; i < r->n_peers; i++)
		tell_waiting(r, &r->peers[i]);
	bool owed = false;
	for (uint32_t i = 0; i < r->n_peers; i++)
		owed |= owes_commit(r, &r->peers[i]);
	if (!owed)
		r->commit_due_us = UINT64_MAX;
	else if (r->commit_due_us == UINT64_MAX)
		r->commit_due_us = r->now_us + r->commit_delay_us;
}

uint64_t raft_leader_deadline(const struct raft *r)
{
	uint64_t d = raft_pulse_deadline(r), transfer = raft_transfer_deadline(r);

	if (r->commit_due_us < d)
		d = r->commit_due_us;
	if (raft_flow_deadline(r) < d)
		d = raft_flow_deadline(r);
	if (transfer < d)
		d = transfer;
	if (raft_source_deadline(r) < d)
		d = raft_source_deadline(r);
	if (raft_priority_deadline(r) < d)
		d = raft_priority_deadline(r);
	return d;
}

static struct raft_peer *hear(struct raft *r, const struct wire_msg *m)
{
	struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer(r, m->from) : NULL;

	if (p) {
		p->heard_us = r->now_us;
		if (!p->forgot)
			raft_pulse_contact(r, p);
		raft_pulse_tell_heard(r);
	}
	return p;
}

void raft_on_append_resp(struct raft *r, const struct wire_msg *m)
{
	struct raft_peer *p = hear(r, m);

	if (!p || !raft_peer_remembers(r, p, m) || m->index > raft_log_last(&r->log))
		return;
	if (m->flags & WIRE_MSG_REJECT)
		raft_peer_reject(r, p, m);
	else
		raft_peer_ack(r, p, m->index);
}

void raft_on_heartbeat_resp(struct raft *r, const struct wire_msg *m)
{
	struct raft_peer *p = hear(r, m);

	if (!p || !raft_peer_remembers(r, p, m))
		return;
	if (m->hint > p->applied)
		p->applied = m->hint;
	raft_pulse_answered(r, p, m->log_term);
	if (!p->forgot) {
		if (m->corr > p->round_ack && m->corr <= r->round)
			p->round_ack = m->corr;
		raft_lease_ack(r, p, m->log_term);
	}
	if (m->commit != p->level)
		raft_tell(r, RAFT_TOLD_PEER_LEVEL, p->id, m->commit, raft_level_in_force(r), 0);
	p->level = m->commit < UINT32_MAX ? (uint32_t)m->commit : UINT32_MAX;
	raft_witness_heard(r, p, (m->flags & WIRE_MSG_FULL) != 0);
	if (m->index <= raft_log_last(&r->log))
		raft_peer_ack(r, p, m->index);
	raft_peer_check_stall(r, p);
}
