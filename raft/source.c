/* Which member serves one that is far behind: the leader sends a member that lacks more than catch_up_bytes of what is committed
 * to another one (WIRE_MSG_CATCH_UP), and no entries itself meanwhile, so that its own link and disk cache stay with the writers.
 *
 * A source has nearly all that is committed, was heard from lately, has forgotten nothing, and is not behind itself. Among those it
 * is one that does not vote, then one that serves fewest, then the next in turn. As long as the member's match moves, it goes on,
 * and is told of what was committed meanwhile. When nothing has moved for RAFT_SOURCE_TIMEOUTS patient waits, the next member is
 * tried, and when all have been, the leader sends what is missing itself for RAFT_SOURCE_PAUSE election timeouts. Once the member
 * has what the source was asked for, the leader's own appends go on where it is.
 *
 * Nothing here is needed for safety: what the member takes is safe by fetch.c, and match moves by its own acks as ever.
 *
 * A member that needs what is trimmed here (RAFT_SNAPSHOT) is told so by the same message, with hint 0: update.needs_image. */
#include "raft/core.h"

/* With something for each entry, so that entries without data count as well. */
#define ENTRY_BYTES 32u

static bool lacks(const struct raft *r, const struct raft_peer *p)
{
	uint64_t from = p->match > r->log.base_index ? p->match : r->log.base_index;

	return from < r->commit && raft_log_bytes_above(&r->log, from) - raft_log_bytes_above(&r->log, r->commit) +
	                                   (r->commit - from) * ENTRY_BYTES > r->catch_up_bytes;
}

/* Else nothing that it lacks says anything of its source. */
static bool heard_lately(const struct raft *r, const struct raft_peer *p)
{
	return p->heard_us && r->now_us < p->heard_us + raft_patience(r);
}

static bool serves(const struct raft *r, const struct raft_peer *s, const struct raft_peer *p)
{
	return s != p && s->state == RAFT_REPLICATE && !s->forgot && !s->source && s->heard_us && r->now_us < s->alive_until_us &&
	       s->match + RAFT_NEAR_ENTRIES >= r->commit && s->match > p->match;
}

/* Lower is better. */
static uint32_t rank(const struct raft *r, const struct raft_peer *s)
{
	uint32_t serving = 0;

	for (uint32_t i = 0; i < r->n_peers; i++)
		serving += r->peers[i].source == s->id;
	return serving * 2 + ((s->flags & (RAFT_VOTER | RAFT_VOTER_OLD)) != 0);
}

/* The best of those that were not tried since the leader last helped out. */
static const struct raft_peer *choose(const struct raft *r, const struct raft_peer *p)
{
	const struct raft_peer *best = NULL;

	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *s = &r->peers[i];
		if (serves(r, s, p) && !(p->sources_tried >> i & 1) && (!best || rank(r, s) < rank(r, best)))
			best = s;
	}
	return best;
}

static void say(struct raft *r, struct raft_peer *p, uint64_t upto, uint64_t source)
{
	struct wire_msg *m = raft_leader_send(r, WIRE_MSG_CATCH_UP, p->id);

	if (!m)
		return;
	m->index = upto;
	m->hint = source;
	p->source_say_us = r->now_us + (source ? r->heartbeat_us : r->election_us);
}

static void moved(struct raft *r, struct raft_peer *p)
{
	p->source_match = p->match;
	p->source_due_us = r->now_us + RAFT_SOURCE_TIMEOUTS * raft_patience(r);
}

static void leave(struct raft *r, struct raft_peer *p, const char *why)
{
	p->source = p->source_look_us = 0;
	raft_tell_why(r, RAFT_TOLD_PEER_SOURCE, p->id, why, 0, p->match, 0);
}

/* With the source that it has. */
static void go_on(struct raft *r, struct raft_peer *p)
{
	const struct raft_peer *s = raft_peer(r, p->source);

	if (p->match > p->source_match)
		moved(r, p);
	if (p->match >= p->source_upto || !heard_lately(r, p)) {
		leave(r, p, p->match >= p->source_upto ? "it has that" : "nothing was heard from it");
		return;
	}
	if (r->now_us >= p->source_due_us || !s || s->forgot || r->now_us >= s->alive_until_us) {
		if (s)
			p->sources_tried |= 1u << (s - r->peers);
		leave(r, p, "nothing has moved, or the source is gone");
		return;
	}
	if (r->now_us < p->source_say_us)
		return;
	p->source_upto = r->commit < s->match ? r->commit : s->match;
	say(r, p, p->source_upto, p->source);
}

static void find(struct raft *r, struct raft_peer *p)
{
	/* What it has is known by the answer to a heartbeat, unless a probe says more soon. */
	if (r->now_us < p->source_look_us || !p->level || (p->state == RAFT_PROBE && p->next != p->match + 1) || !heard_lately(r, p) || p->full)
		return;
	p->source_look_us = r->now_us + r->heartbeat_us;
	if (!lacks(r, p)) {
		p->sources_tried = 0;
		return;
	}
	const struct raft_peer *s = choose(r, p);
	if (!s) {
		if (p->sources_tried)
			p->source_look_us = r->now_us + RAFT_SOURCE_PAUSE * (uint64_t)r->election_us;
		p->sources_tried = 0;
		return;
	}
	p->source = s->id;
	p->source_upto = r->commit < s->match ? r->commit : s->match;
	moved(r, p);
	say(r, p, p->source_upto, s->id);
	raft_tell_why(r, RAFT_TOLD_PEER_SOURCE, p->id, "it is far behind", s->id, p->source_upto, 0);
}

void raft_source_begin(struct raft *r, struct raft_peer *p)
{
	(void)r;
	p->source = p->source_upto = p->source_match = p->source_due_us = p->source_look_us = p->source_say_us = 0;
	p->sources_tried = 0;
}

void raft_source_step(struct raft *r, struct raft_peer *p)
{
	if (p->state == RAFT_SNAPSHOT) {
		p->source = 0;
		if (p->heard_us && r->now_us < p->alive_until_us && r->now_us >= p->source_say_us)
			say(r, p, r->log.base_index, 0);
		return;
	}
	if (p->source)
		go_on(r, p);
	if (!p->source && r->catch_up_bytes != UINT32_MAX && p->match < r->commit)
		find(r, p);
}

uint64_t raft_source_deadline(const struct raft *r)
{
	uint64_t d = UINT64_MAX;

	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		bool told = p->source || (p->state == RAFT_SNAPSHOT && p->heard_us && r->now_us < p->alive_until_us);
		if (told && p->source_say_us < d)
			d = p->source_say_us;
		if (p->source && p->source_due_us < d)
			d = p->source_due_us;
	}
	return d;
}
