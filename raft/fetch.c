/* Entries from other members than the leader: asked for, served and taken.
 *
 * A request names the entry before the first and the last one wanted. The answer comes in two messages, as far as there is more
 * than one holds; each says with `hint` where the second ends, and the next request leaves when the first is there, so that
 * a slow link is never idle for a round trip. A request that nothing came of is repeated, RAFT_FETCH_TRIES times.
 *
 * Catching up (WIRE_MSG_CATCH_UP; the leader's side is source.c). The source serves what is committed there as it knows; whoever
 * took it from a leader could have taken it from anybody (I4). Two conditions make that so here:
 *   - The entry before the first is one that we know to be committed, or has the same term in both logs (I2), and only those up to
 *     the source's commit index are taken. They replace what differs, which cannot be committed.
 *   - The source's term is not above ours. It knows of no commit of a later term than its own, so what it serves was committed in our
 *     term or before, and our leader, and each one of later terms, has it (I3). Without this we might believe to be committed, in
 *     term 4, what is so in term 5 only, while the leader of 4 has another entry there, and the rule that what is committed
 *     agrees with any leader's append would mix the two logs.
 * So what was taken is known to match the leader's log, and is acknowledged to it when it is durable. It is no sign of the leader:
 * neither election timer nor promises nor vote change. The leader may be wrong about who is a good source: that costs time.
 *
 * Holes (holes.c) are asked for in the same way, from anybody. */
#include "raft/core.h"

/* Two of them are on their way at once. A slower link than this in an election timeout is left to the leader. */
#define CHUNK_BYTES (256u << 10)

uint32_t raft_fill_msg(struct raft *r, struct wire_msg *m, uint64_t from, uint64_t last, uint64_t max_bytes, uint64_t *ret_bytes)
{
	uint64_t bytes = 0;
	uint32_t n = 0;

	r->msg_at[r->n_msgs - 1] = r->n_pool;
	for (uint64_t i = from; i <= last && n < WIRE_ENTRIES_MAX; i++) {
		struct raft_log_meta e = raft_log_at(&r->log, i);
		if (n && bytes + e.size > max_bytes)
			break;
		if (!raft_grow(r, (void **)&r->pool, &r->cap_pool, r->n_pool, sizeof(*r->pool)))
			break;
		r->pool[r->n_pool++] = (struct wire_entry){ .index = i, .term = e.term, .kind = e.kind, .size = e.size };
		bytes += e.size;
		n++;
	}
	m->n_entries = n;
	*ret_bytes = bytes;
	return n;
}

bool raft_entries_plausible(const struct wire_msg *m)
{
	uint64_t term = m->log_term;

	if (m->n_entries && !m->entries)
		return false;
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct wire_entry *e = &m->entries[i];
		if (!e->term || e->term < term || e->term > m->term || e->kind > WIRE_ENTRY_CONFIG)
			return false;
		term = e->term;
	}
	return term <= m->term;
}

/* ---- who has them ---- */

/* The last entry that may be served. By I2 an asker that has the term of the last one wanted may have it, and all before,
 * whether it is committed or not. */
static uint64_t servable(const struct raft *r, const struct wire_msg *m)
{
	uint64_t limit = r->commit < r->durable ? r->commit : r->durable;

	if (m->commit && m->hint <= r->durable && raft_log_matches(&r->log, m->hint, m->commit))
		limit = m->hint;
	if (m->hint < limit)
		limit = m->hint;
	return raft_hole_before(r, m->index, limit);
}

static void answer(struct raft *r, const struct wire_msg *q, uint64_t from, uint64_t last)
{
	uint64_t max = r->append_max_bytes < CHUNK_BYTES ? r->append_max_bytes : CHUNK_BYTES, bytes;
	size_t first = r->n_msgs;

	for (int part = 0; part < 2 && from <= last; part++) {
		/* Not held back for the disk: what it serves is durable, and its term is told only to be compared. */
		struct wire_msg *m = raft_send(r, WIRE_MSG_FETCH_RESP, q->from, false);
		if (!m)
			return;
		m->corr = q->corr;
		m->index = from - 1;
		m->log_term = raft_log_term(&r->log, from - 1);
		m->commit = r->commit;
		from += raft_fill_msg(r, m, from, last, max, &bytes);
		if (r->nomem)
			return;
	}
	for (size_t i = first; i < r->n_msgs; i++)
		r->msgs[i].hint = from - 1;
	raft_tell(r, RAFT_TOLD_FETCH_SERVED, q->from, q->index + 1, from - 1, 0);
}

void raft_on_fetch_req(struct raft *r, const struct wire_msg *m)
{
	if (!raft_peer(r, m->from) || m->hint > RAFT_NUMBER_MAX)
		return;
	uint64_t last = servable(r, m);

	if (m->index >= r->log.base_index && m->index < last) {
		answer(r, m, m->index + 1, last);
		return;
	}
	raft_tell_why(r, RAFT_TOLD_FETCH_REFUSED, m->from, m->index < r->log.base_index ? "that is trimmed" : "that is not known to be committed here", m->index + 1, last, 0);
	struct wire_msg *a = raft_send(r, WIRE_MSG_FETCH_RESP, m->from, false);
	if (!a)
		return;
	a->flags = WIRE_MSG_REJECT;
	a->corr = m->corr;
	a->index = m->index;
}

/* ---- who lacks them ---- */

void raft_fetch_ask(struct raft *r, uint64_t peer, uint64_t corr, uint64_t prev, uint64_t last, uint64_t last_term)
{
	struct wire_msg *m = raft_send(r, WIRE_MSG_FETCH_REQ, peer, false);

	if (!m)
		return;
	m->term = 0;
	m->corr = corr;
	m->index = prev;
	m->log_term = raft_log_term(&r->log, prev);
	m->hint = last;
	m->commit = last_term;
	raft_tell_why(r, RAFT_TOLD_FETCH_ASKED, peer, last_term ? "a hole" : "to catch up", prev + 1, last, 0);
}

static void end(struct raft *r, const char *why)
{
	raft_tell_why(r, RAFT_TOLD_FETCH_ENDED, r->fetch.source, why, r->fetch.upto, r->commit, 0);
	r->fetch.source = r->fetch.upto = 0;
	r->fetch.due_us = UINT64_MAX;
}

static void ask(struct raft *r, uint64_t prev)
{
	r->fetch.asked = prev;
	r->fetch.due_us = r->now_us + raft_patience(r);
	raft_fetch_ask(r, r->fetch.source, r->fetch.corr, prev, r->fetch.upto, 0);
}

void raft_on_catch_up(struct raft *r, const struct wire_msg *m)
{
	if (r->role != RAFT_FOLLOWER || m->term != r->term || m->from != r->leader)
		return;
	if (!m->hint) {
		raft_image_told(r, m->index);
		return;
	}
	/* It may be a member by an entry that we lack: no link to it either. */
	if (m->hint == r->self || !raft_peer(r, m->hint) || m->index <= r->commit) {
		raft_tell_why(r, RAFT_TOLD_FETCH_DECLINED, m->hint, m->index <= r->commit ? "this node has that" : "it is no other member that this node knows", m->index, r->commit, 0);
		return;
	}
	if (r->fetch.source == m->hint && r->fetch.term == r->term) {
		if (m->index > r->fetch.upto)
			r->fetch.upto = m->index;
		return;
	}
	r->fetch.source = m->hint;
	r->fetch.upto = m->index;
	r->fetch.term = r->term;
	r->fetch.tries = 0;
	r->fetch.corr = ++r->read_id;
	ask(r, r->commit);
}

/* The part of the answer that is new and committed. false: it is not to be had from there. */
static bool take(struct raft *r, const struct wire_msg *m)
{
	uint64_t prev = m->index, last = prev + m->n_entries;
	const struct wire_entry *entries = m->entries;

	if (last > m->commit)
		last = m->commit;
	/* In the wrong order, or again: nothing to be said against it. */
	if (prev > raft_log_last(&r->log) || last <= r->commit || last <= prev)
		return true;
	if (prev >= r->commit && !raft_log_matches(&r->log, prev, m->log_term))
		return false;
	if (prev < r->commit) {
		entries += r->commit - prev;
		prev = r->commit;
	}
	uint32_t n = (uint32_t)(last - prev);
	if (raft_witness_declines(r, prev + 1, entries, n) || !raft_take(r, prev + 1, entries, n))
		return false;
	raft_commit_to(r, last);
	raft_tell(r, RAFT_TOLD_FETCH_TAKEN, m->from, prev + 1, last, 0);
	r->fetch.tries = 0;
	if (r->leader)
		raft_ack(r, r->leader);
	return true;
}

void raft_on_fetch_resp(struct raft *r, const struct wire_msg *m)
{
	bool ours = r->fetch.source == m->from && r->fetch.corr == m->corr && r->fetch.term == r->term && r->role == RAFT_FOLLOWER;

	if (!raft_peer(r, m->from) || !raft_entries_plausible(m) || m->hint > RAFT_NUMBER_MAX)
		return;
	raft_holes_answered(r, m);
	if (!ours || m->term > r->term)
		return;
	if ((m->flags & WIRE_MSG_REJECT) || !take(r, m)) {
		end(r, "it cannot be had there");
		return;
	}
	if (r->commit >= r->fetch.upto && m->hint >= r->fetch.upto)
		end(r, "done");
	else if (m->hint > r->fetch.asked && m->hint < r->fetch.upto)
		ask(r, m->hint);
}

void raft_fetch_step(struct raft *r)
{
	if (!r->fetch.source)
		return;
	if (r->fetch.term != r->term || r->role != RAFT_FOLLOWER || !raft_peer(r, r->fetch.source) || r->commit >= r->fetch.upto) {
		end(r, r->commit >= r->fetch.upto ? "done" : "the leader or the source is gone");
		return;
	}
	if (r->now_us < r->fetch.due_us)
		return;
	if (++r->fetch.tries > RAFT_FETCH_TRIES)
		end(r, "no answer came");
	else
		ask(r, r->commit);
}

uint64_t raft_fetch_deadline(const struct raft *r)
{
	return r->fetch.source ? r->fetch.due_us : UINT64_MAX;
}

void raft_image_told(struct raft *r, uint64_t index)
{
	bool needed = raft_needs_image(r);

	r->image_index = index;
	r->image_term = r->term;
	if (!needed && raft_needs_image(r))
		raft_tell(r, RAFT_TOLD_ROLE_IMAGE, r->leader, index, raft_hole_before(r, 0, r->matched), 0);
}

bool raft_needs_image(const struct raft *r)
{
	return r->image_index > raft_hole_before(r, 0, r->matched) && r->image_term == r->term && r->leader && r->role == RAFT_FOLLOWER;
}
