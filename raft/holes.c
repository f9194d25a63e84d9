/* Holes: entries of this node's log whose data its disk has lost. Index and term are known, so it goes on as a voter with the log
 * that it has: what it voted for and acknowledged holds, and it refuses its vote to whoever's log is worse than that.
 *
 *   - An entry with the hole's index and term is the entry (I2), committed or not, whoever has it. So it is asked for from the leader,
 *     then the others in turn, all the time; and taken from an append as well. No leader is needed: a group in which each
 *     node has a hole somewhere else recovers before it elects one.
 *   - Nothing at or above the first hole that is not published yet is published, and none of it is acknowledged any more: a leader
 *     of a later term must not take it to be here. What was acknowledged before stays with its leader; a node whose hole is
 *     the last copy has failed as a crashed one has, and then all is well for as long as a minority has failed.
 *   - It does not stand for election, and so nobody leads with a hole: an entry that it cannot send could never be superseded by
 *     those who lack it, nor be committed. If the entry is committed, a member of the quorum that has it can be elected. If nobody
 *     else has it, then it may or may not be committed, with those who are down: as long as this node is needed for a quorum the
 *     group waits for them. If the others are a quorum without it, it was not, and the new leader's log takes its place.
 *   - It need not be forgetful for that: nothing that it said is forgotten, only data.
 * A hole ends when its data is durable here (RAFT_EV_FILLED, I9), is superseded, or is trimmed. If it is committed and the leader has
 * trimmed it, the node needs an image (update.needs_image): the driver tells of it by RAFT_EV_IMAGE, then trims its log. A lone voter without other members has nobody
 * to ask; raft_new refuses. */
#include "raft/core.h"
#include <stdlib.h>
#include <string.h>

/* Asked for at once, at most. */
#define RUN_MAX 64u

int raft_holes_begin(struct raft *r, const uint64_t *holes, size_t n, struct wire_err *err)
{
	uint64_t above = r->log.base_index;

	for (size_t i = 0; i < n; above = holes[i++])
		if (holes[i] <= above || holes[i] > raft_log_last(&r->log))
			return wire_fail(err, WIRE_INVALID, "entry %llu cannot be a hole of a log from %llu to %llu", (unsigned long long)holes[i],
			                 (unsigned long long)r->log.base_index + 1, (unsigned long long)raft_log_last(&r->log));
	if (!n)
		return WIRE_OK;
	if (raft_alone(r) && !r->n_peers)
		return wire_fail(err, WIRE_CORRUPT, "entry %llu cannot be read, and there is no other member that has it; restore this node from "
		                 "a backup", (unsigned long long)holes[0]);
	r->holes = calloc(n, sizeof(*r->holes));
	if (!r->holes)
		return wire_fail(err, WIRE_NOMEM, "raft: no memory for %zu holes", n);
	for (size_t i = 0; i < n; i++)
		r->holes[i].index = holes[i];
	r->n_holes = n;
	r->holes_corr = ++r->read_id;
	return WIRE_OK;
}

static void drop(struct raft *r, size_t at, size_t n)
{
	if (!n) /* there may be none at all */
		return;
	memmove(r->holes + at, r->holes + at + n, (r->n_holes - at - n) * sizeof(*r->holes));
	r->n_holes -= n;
}

void raft_holes_truncate(struct raft *r, uint64_t from)
{
	while (r->n_holes && r->holes[r->n_holes - 1].index >= from)
		r->n_holes--;
}

void raft_holes_trim(struct raft *r, uint64_t upto)
{
	size_t n = 0;

	while (n < r->n_holes && r->holes[n].index <= upto)
		n++;
	drop(r, 0, n);
}

uint64_t raft_hole_before(const struct raft *r, uint64_t above, uint64_t last)
{
	for (size_t i = 0; i < r->n_holes; i++)
		if (r->holes[i].index > above)
			return r->holes[i].index <= last ? r->holes[i].index - 1 : last;
	return last;
}

/* Entries that somebody has sent: those that are holes here go to the driver. */
void raft_holes_offer(struct raft *r, uint64_t first, const struct wire_entry *entries, uint32_t n)
{
	for (size_t i = 0; i < r->n_holes && r->holes[i].index < first + n; i++) {
		struct raft_hole *h = &r->holes[i];
		if (h->index < first || h->handed)
			continue;
		struct wire_entry e = entries[h->index - first];
		if (e.term != raft_log_term(&r->log, h->index) || (e.size && !e.data))
			continue;
		if (!raft_grow(r, (void **)&r->fills, &r->cap_fills, r->n_fills, sizeof(*r->fills)))
			return;
		e.index = h->index;
		r->fills[r->n_fills++] = e;
		h->handed = true;
		/* Not even that may have been readable. */
		raft_log_correct(&r->log, e.index, e.size, e.kind);
	}
}

void raft_on_filled(struct raft *r, uint64_t index, uint64_t term)
{
	for (size_t i = 0; i < r->n_holes; i++) {
		if (r->holes[i].index != index || !r->holes[i].handed || raft_log_term(&r->log, index) != term)
			continue;
		drop(r, i, 1);
		raft_tell(r, RAFT_TOLD_FETCH_FILLED, 0, index, 0, 0);
		return;
	}
}

static size_t first_open(const struct raft *r)
{
	size_t i = 0;

	while (i < r->n_holes && r->holes[i].handed)
		i++;
	return i;
}

void raft_holes_answered(struct raft *r, const struct wire_msg *m)
{
	size_t before = r->n_fills, i = first_open(r);

	if (i == r->n_holes || m->corr != r->holes_corr)
		return;
	if ((m->flags & WIRE_MSG_REJECT) && m->from == r->leader && m->term == r->term && r->holes[i].index <= r->commit) {
		/* It has all that is committed, so it has had it. */
		raft_image_told(r, r->holes[i].index);
	}
	raft_holes_offer(r, m->index + 1, m->entries, m->n_entries);
	if (r->n_fills == before)
		return;
	/* It has more, perhaps: the same one is asked on. */
	r->holes_turn--;
	r->holes_due_us = r->now_us;
}

/* The leader, then everybody in turn. */
static uint64_t whom(struct raft *r)
{
	uint32_t turn = r->holes_turn % (r->n_peers + 1);

	if (!turn && r->leader && r->leader != r->self)
		return r->leader;
	return r->peers[turn ? turn - 1 : 0].id;
}

void raft_holes_step(struct raft *r)
{
	size_t i = first_open(r), k;

	if (i == r->n_holes || !r->n_peers || r->now_us < r->holes_due_us)
		return;
	for (k = i; k + 1 < r->n_holes && k - i < RUN_MAX && r->holes[k + 1].index == r->holes[k].index + 1; k++)
		;
	uint64_t last = r->holes[k].index;
	raft_fetch_ask(r, whom(r), r->holes_corr, r->holes[i].index - 1, last, raft_log_term(&r->log, last));
	r->holes_turn++;
	r->holes_due_us = r->now_us + 2 * (uint64_t)r->heartbeat_us;
}

uint64_t raft_holes_deadline(const struct raft *r)
{
	return first_open(r) < r->n_holes && r->n_peers ? r->holes_due_us : UINT64_MAX;
}
