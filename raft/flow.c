/* Flow: how much goes to a peer, in what pieces, and when; and what a leader takes from its clients.
 *
 * Window. Bytes in flight per peer are bounded by a window that adapts: it begins at one append, grows by what is acknowledged as long
 * as it is below `slow_bytes` (slow start), then by one append per window; a stall (progress.c) halves it, and slow_bytes
 * follows. It grows only where it was the limit; it is never below one append, nor above window_bytes. Messages in flight are bounded
 * by window_msgs as ever. So what a follower that has stopped makes a leader hold is one window; of the rest the core keeps the
 * metadata, 24 bytes an entry, until the log is trimmed.
 *
 * Back-off. A peer that answers heartbeats but makes no progress is sent one small append with each of them, from where its log is
 * known to match: it goes on as soon as one gets through, and has little to repeat.
 *
 * Pieces. Appends hold up to append_max_bytes. A peer that comes out of SNAPSHOT, or for which more than FAR appends are waiting, is
 * catching up: until all is sent to it appends may hold up to half its window, at most WIRE_MSG_MAX / 2.
 *
 * Moments. With nothing in flight an append goes at once. Else what is small waits for company: until all in flight is acknowledged,
 * append_max_bytes are there, or a quarter of a round trip has passed. A writer that waits for each commit finds nothing in flight to
 * the peers that made the last one, so it never waits; many at once share appends. Where round trips are shorter than
 * PROMPT_US nothing waits.
 *
 * Backlog. Entries that are not committed yet are bounded by uncommitted_bytes: a proposal beyond is refused with BUSY, so that a
 * lagging majority slows writers down instead of filling memory; but one is taken however large it is if nothing else waits.
 *
 * All of this decides about when and how much. What an append says is what it always was, so no rule of the log is touched. */
#include "raft/core.h"

enum { FAR = 4, PROMPT_US = 400, SMALL_BYTES = 64 * 1024 };

static uint64_t least(const struct raft *r)
{
	return r->append_max_bytes < r->window_bytes ? r->append_max_bytes : r->window_bytes;
}

void raft_flow_begin(struct raft *r, struct raft_peer *p)
{
	p->window = p->window_told = least(r);
	p->slow_bytes = r->window_bytes;
	p->catching = p->backing = false;
	p->batch_due_us = 0;
	p->stall_us = raft_flow_stall(r, p);
}

uint64_t raft_flow_stall(const struct raft *r, const struct raft_peer *p)
{
	uint64_t trip = p->rtt_us + 4 * (uint64_t)p->rtt_var_us + r->heartbeat_us, beats = 2 * (uint64_t)r->heartbeat_us;

	return trip > beats ? trip : beats;
}

static uint64_t pending(const struct raft *r, const struct raft_peer *p)
{
	return raft_log_bytes_above(&r->log, p->next - 1);
}

static void set(struct raft *r, struct raft_peer *p, uint64_t window)
{
	if (window < least(r))
		window = least(r);
	if (window > r->window_bytes)
		window = r->window_bytes;
	if (window == p->window)
		return;
	p->window = window;
	if (window > p->window_told / 2 && window < 2 * p->window_told)
		return;
	raft_tell(r, RAFT_TOLD_PEER_WINDOW, p->id, window, p->rtt_us, 0);
	p->window_told = window;
}

void raft_flow_acked(struct raft *r, struct raft_peer *p, uint64_t in_flight, uint64_t acked)
{
	if (!acked || 2 * in_flight < p->window)
		return;
	if (p->window < p->slow_bytes)
		set(r, p, p->window + acked);
	else
		set(r, p, p->window + 1 + least(r) * acked / p->window);
}

void raft_flow_stalled(struct raft *r, struct raft_peer *p)
{
	raft_tell(r, RAFT_TOLD_PEER_STALLED, p->id, r->now_us - p->sent_us, p->match, 0);
	set(r, p, p->window / 2);
	p->slow_bytes = p->window;
	p->backing = true;
}

void raft_flow_moved(struct raft *r, struct raft_peer *p)
{
	p->backing = false;
	p->stall_us = raft_flow_stall(r, p);
}

uint64_t raft_flow_append_max(const struct raft *r, const struct raft_peer *p)
{
	uint64_t large = p->window / 2 < WIRE_MSG_MAX / 2 ? p->window / 2 : WIRE_MSG_MAX / 2;

	if (p->backing)
		return r->append_max_bytes < SMALL_BYTES ? r->append_max_bytes : SMALL_BYTES;
	return p->catching && large > r->append_max_bytes ? large : r->append_max_bytes;
}

/* Called before anything is sent to it in a step. */
void raft_flow_note(struct raft *r, struct raft_peer *p)
{
	if (p->next > raft_log_last(&r->log)) {
		p->catching = false;
		p->batch_due_us = 0;
		return;
	}
	if (pending(r, p) > (uint64_t)FAR * r->append_max_bytes)
		p->catching = true;
	if (!p->batch_due_us)
		p->batch_due_us = r->now_us + (p->rtt_us < PROMPT_US ? 0 : p->rtt_us / 4 < r->heartbeat_us ? p->rtt_us / 4 : r->heartbeat_us);
}

bool raft_flow_ready(const struct raft *r, const struct raft_peer *p)
{
	if (p->fl_n >= r->window_msgs || (p->fl_n && p->fl_bytes >= p->window))
		return false;
	return !p->fl_n || r->now_us >= p->batch_due_us || pending(r, p) >= r->append_max_bytes ||
	       raft_log_last(&r->log) - p->next + 1 >= WIRE_ENTRIES_MAX;
}

uint64_t raft_flow_deadline(const struct raft *r)
{
	uint64_t d = UINT64_MAX;

	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		/* What is due and was not sent waits for an answer. */
		if (p->state == RAFT_REPLICATE && p->batch_due_us > r->now_us && p->batch_due_us < d)
			d = p->batch_due_us;
	}
	return d;
}

uint64_t raft_flow_backlog(const struct raft *r)
{
	return r->role == RAFT_LEADER ? raft_log_bytes_above(&r->log, r->commit) : 0;
}

bool raft_flow_admits(const struct raft *r, const struct wire_entry *entries, uint32_t n)
{
	uint64_t backlog = raft_flow_backlog(r), bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		bytes += entries[i].size;
	return !backlog || backlog + bytes <= r->uncommitted_bytes;
}
