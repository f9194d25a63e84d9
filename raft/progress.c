/* A peer's progress as the leader sees it. Three states:
 *
 *   PROBE      where its log agrees with ours is not known, or what was in flight may be lost: one append at a time
 *   REPLICATE  known: appends are pipelined, up to window_msgs and window_bytes in flight
 *   SNAPSHOT   it needs entries that are trimmed here: nothing is sent but heartbeats
 *
 * Nothing stalls for ever on a lane that loses messages: each heartbeat answer tells up to where the peer's log is
 * durable and known to match, so that a lost ack is made up for, and a lost append is noticed by the lack of progress. */
#include "raft/core.h"
#include <stdlib.h>
#include <string.h>

struct raft_peer *raft_peer(struct raft *r, uint64_t id)
{
	for (uint32_t i = 0; i < r->n_peers; i++)
		if (r->peers[i].id == id)
			return &r->peers[i];
	return NULL;
}

static void begin(struct raft *r, struct raft_peer *p)
{
	p->epoch = 0;
	p->match = p->first_match = p->applied = p->commit_sent = p->awaits = p->round_ack = p->leased_us = 0;
	p->heard_us = p->fit_since_us = 0;
	p->level = 0;
	p->full = p->forgot = false;
	raft_round_begin(r, p);
	raft_source_begin(r, p);
	raft_pulse_begin(r, p);
	p->state = RAFT_PROBE;
	p->paused = false;
	p->next = raft_log_last(&r->log) + 1;
	raft_flow_begin(r, p);
	p->fl_head = p->fl_n = 0;
	p->fl_bytes = 0;
}

void raft_peers_begin(struct raft *r)
{
	for (uint32_t i = 0; i < r->n_peers; i++)
		begin(r, &r->peers[i]);
}

/* Members that stay keep their progress; the others' is made anew. */
bool raft_peers_sync(struct raft *r)
{
	const struct raft_config *c = raft_config_current(r);
	struct raft_peer next[RAFT_MEMBERS_MAX] = { 0 };
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->n; i++) {
		if (c->m[i].id == r->self)
			continue;
		struct raft_peer *old = raft_peer(r, c->m[i].id), *p = &next[n++];
		if (old) {
			*p = *old;
			old->fl = NULL;
			if (c->m[i].flags & ~p->flags & (RAFT_VOTER | RAFT_VOTER_OLD))
				raft_pulse_made_voter(r, p);
		} else {
			p->id = c->m[i].id;
			p->fl = calloc(r->window_msgs, sizeof(*p->fl));
			if (!p->fl)
				r->nomem = true;
			begin(r, p);
			/* The entry that brings it in is there already, and is the first to be sent. */
			p->next = c->n && raft_config_last(r)->index > r->log.base_index ? raft_config_last(r)->index
			                                                                 : raft_log_last(&r->log) + 1;
		}
		p->flags = c->m[i].flags;
		p->priority = c->m[i].priority;
	}
	raft_peers_free(r);
	memcpy(r->peers, next, sizeof(next));
	r->n_peers = n;
	return !r->nomem;
}

void raft_peers_free(struct raft *r)
{
	for (uint32_t i = 0; i < r->n_peers; i++)
		free(r->peers[i].fl);
	memset(r->peers, 0, sizeof(r->peers));
	r->n_peers = 0;
}

/* All moves are possible, but each has its terms. */
void raft_peer_to(struct raft *r, struct raft_peer *p, enum raft_progress_state state)
{
	static const enum raft_told_event told[] = { RAFT_TOLD_PEER_PROBE, RAFT_TOLD_PEER_REPLICATE, RAFT_TOLD_PEER_SNAPSHOT };

	switch (state) {
	case RAFT_PROBE:
		p->epoch++;
		if (p->state == RAFT_REPLICATE)
			p->next = p->match + 1;
		break;
	case RAFT_REPLICATE:
		assert(p->match + 1 >= p->next);
		p->next = p->match + 1;
		p->sent_us = r->now_us;
		break;
	case RAFT_SNAPSHOT:
		assert(p->next <= r->log.base_index);
		break;
	}
	if (p->state != state)
		raft_tell(r, told[state], p->id, p->match, p->next, 0);
	p->state = (uint8_t)state;
	p->paused = false;
	p->fl_head = p->fl_n = 0;
	p->fl_bytes = 0;
	if (p->commit_sent > p->match)
		p->commit_sent = p->match;
}

static void free_inflight(struct raft *r, struct raft_peer *p)
{
	uint64_t before = p->fl_bytes;

	while (p->fl_n && p->fl[p->fl_head].last <= p->match) {
		p->fl_bytes -= p->fl[p->fl_head].bytes;
		p->fl_head = (p->fl_head + 1) % r->window_msgs;
		p->fl_n--;
	}
	raft_flow_acked(r, p, before, before - p->fl_bytes);
}

/* The peer's log is durable and equals ours up to index. */
void raft_peer_ack(struct raft *r, struct raft_peer *p, uint64_t index)
{
	bool moved = index > p->match;

	if (moved) {
		p->match = index;
		if (!p->first_match)
			p->first_match = index;
		p->sent_us = r->now_us;
		raft_flow_moved(r, p);
	}
	bool reached = p->match + 1 >= p->next;
	if (p->next <= p->match)
		p->next = p->match + 1;
	if (p->state == RAFT_SNAPSHOT && p->match >= r->log.base_index) {
		raft_peer_to(r, p, RAFT_PROBE);
		p->catching = true;
	}
	/* After a stall, no more than one append with each heartbeat until one has got through. */
	if (p->state == RAFT_PROBE && reached && (moved || !p->backing))
		raft_peer_to(r, p, RAFT_REPLICATE);
	else if (p->state == RAFT_REPLICATE)
		free_inflight(r, p);
}

/* Its log does not agree with ours at m->index. Both sides skip over whole terms (end of paper 5.3): m->hint is the last
 * place where it may, given the term that we said there. */
void raft_peer_reject(struct raft *r, struct raft_peer *p, const struct wire_msg *m)
{
	/* Late: since then it has acknowledged more, or we have gone elsewhere. The epoch, carried by the append and its
	 * answer, keeps the refusals of one reordered pipeline from starting it again and again. */
	if (m->corr != p->epoch || m->index <= p->match || p->state == RAFT_SNAPSHOT || m->index >= p->next ||
	    (p->state == RAFT_PROBE && m->index != p->next - 1))
		return;
	uint64_t next = raft_log_back_up(&r->log, m->hint < m->index ? m->hint : m->index - 1, m->log_term) + 1;

	if (next > m->index)
		next = m->index;
	if (next <= p->match)
		next = p->match + 1;
	raft_tell(r, RAFT_TOLD_PEER_REFUSED, p->id, m->index, next, 0);
	raft_peer_to(r, p, RAFT_PROBE);
	p->next = next;
}

/* Called at a sign of life: entries were sent a while ago, and nothing came of it. The wait doubles; in between each sign of life is
 * answered with one small append (flow.c), so that a peer with a slow disk is not drowned in repetitions. */
void raft_peer_check_stall(struct raft *r, struct raft_peer *p)
{
	bool waiting = p->state == RAFT_REPLICATE ? p->fl_n > 0 : p->state == RAFT_PROBE && p->paused;

	if (waiting && p->backing && p->state == RAFT_PROBE && r->now_us >= p->sent_us + r->heartbeat_us)
		p->paused = false;
	if (!waiting || r->now_us < p->sent_us + p->stall_us)
		return;
	raft_flow_stalled(r, p);
	if (p->stall_us < 8 * (uint64_t)r->election_us)
		p->stall_us *= 2;
	raft_peer_to(r, p, RAFT_PROBE);
}

/* An append with entries up to `last` went out. */
void raft_peer_sent(struct raft *r, struct raft_peer *p, uint64_t last, uint64_t bytes)
{
	if (p->next > raft_log_last(&r->log) || last == raft_log_last(&r->log))
		p->batch_due_us = 0;
	if (p->state == RAFT_PROBE) {
		p->paused = true;
		p->sent_us = r->now_us;
		return;
	}
	assert(p->state == RAFT_REPLICATE && p->fl_n < r->window_msgs && last >= p->next);
	if (!p->fl_n)
		p->sent_us = r->now_us;
	p->fl[(p->fl_head + p->fl_n++) % r->window_msgs] = (struct raft_inflight){ .last = last, .bytes = bytes };
	p->fl_bytes += bytes;
	p->next = last + 1;
}

bool raft_peer_may_send(const struct raft *r, const struct raft_peer *p)
{
	if (p->next > raft_log_last(&r->log) || (p->full && p->next > raft_full_upto(r)) || p->source || raft_level_lacks(r, p))
		return false;
	if (p->state == RAFT_PROBE)
		return !p->paused;
	return p->state == RAFT_REPLICATE && raft_flow_ready(r, p);
}

bool raft_progress_of(const struct raft *r, uint64_t peer, struct raft_progress *ret_progress)
{
	if (r->role != RAFT_LEADER)
		return false;
	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		if (p->id != peer)
			continue;
		*ret_progress = (struct raft_progress){
			.state = (enum raft_progress_state)p->state,
			.match = p->match,
			.next = p->next,
			.applied = p->applied,
			.last_contact_us = p->heard_us,
			.alive = p->heard_us && r->now_us < p->alive_until_us,
			.level = p->level,
			.full = p->full,
			.inflight = p->state == RAFT_PROBE ? p->paused : p->fl_n,
			.forgot = p->forgot,
			.source = p->source,
			.rounds = p->rounds,
			.round_us = p->round_us,
			.caught_up = raft_caught_up(r, p),
			.rtt_us = p->rtt_us,
			.rtt_var_us = p->rtt_var_us,
			.window_bytes = p->window,
		};
		return true;
	}
	return false;
}

uint64_t raft_min_match(const struct raft *r)
{
	uint64_t min = raft_log_last(&r->log);

	if (r->role != RAFT_LEADER)
		return 0;
	for (uint32_t i = 0; i < r->n_peers; i++)
		if (!(r->peers[i].flags & RAFT_AWAITED) && r->peers[i].match < min)
			min = r->peers[i].match;
	return min;
}
