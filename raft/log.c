/* Metadata of the log: one 24-byte record per entry above the base, in a ring that doubles when full, so that lookup is
 * O(1), also of the bytes above an entry, and append and trim are amortised O(1). */
#include "raft/core.h"
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct raft_log_meta) == 24, "one entry's metadata stays small");

uint64_t raft_log_last(const struct raft_log *l)
{
	return l->base_index + l->n;
}

struct raft_log_meta raft_log_at(const struct raft_log *l, uint64_t index)
{
	assert(index > l->base_index && index <= raft_log_last(l));
	return l->ring[(l->head + (size_t)(index - l->base_index - 1)) & (l->cap - 1)];
}

uint64_t raft_log_term(const struct raft_log *l, uint64_t index)
{
	if (index == l->base_index)
		return l->base_term;
	if (index < l->base_index || index > raft_log_last(l))
		return 0;
	return raft_log_at(l, index).term;
}

uint64_t raft_log_last_term(const struct raft_log *l)
{
	return raft_log_term(l, raft_log_last(l));
}

bool raft_log_matches(const struct raft_log *l, uint64_t index, uint64_t term)
{
	return index >= l->base_index && index <= raft_log_last(l) && raft_log_term(l, index) == term;
}

/* Bytes of all entries up to there, counted from some beginning. */
static uint64_t end_of(const struct raft_log *l, uint64_t index)
{
	return index > l->base_index ? raft_log_at(l, index).end : l->base_end;
}

static bool grow(struct raft_log *l)
{
	size_t cap = l->cap ? l->cap * 2 : 64;
	struct raft_log_meta *ring = malloc(cap * sizeof(*ring));

	if (!ring)
		return false;
	for (size_t i = 0; i < l->n; i++)
		ring[i] = l->ring[(l->head + i) & (l->cap - 1)];
	free(l->ring);
	l->ring = ring;
	l->cap = cap;
	l->head = 0;
	return true;
}

bool raft_log_append(struct raft_log *l, uint64_t term, uint32_t size, uint8_t kind)
{
	if (l->n == l->cap && !grow(l))
		return false;
	l->ring[(l->head + l->n) & (l->cap - 1)] =
		(struct raft_log_meta){ .term = term, .end = end_of(l, raft_log_last(l)) + size, .size = size, .kind = kind };
	l->n++;
	return true;
}

void raft_log_truncate(struct raft_log *l, uint64_t from)
{
	assert(from > l->base_index && from <= raft_log_last(l));
	l->n = (size_t)(from - l->base_index - 1);
}

void raft_log_trim(struct raft_log *l, uint64_t upto)
{
	assert(upto >= l->base_index && upto <= raft_log_last(l));
	l->base_end = end_of(l, upto);
	l->base_term = raft_log_term(l, upto);
	size_t drop = (size_t)(upto - l->base_index);
	if (l->cap)
		l->head = (l->head + drop) & (l->cap - 1);
	l->n -= drop;
	l->base_index = upto;
}

void raft_log_restart(struct raft_log *l, uint64_t index, uint64_t term)
{
	l->n = l->head = 0;
	l->base_index = index;
	l->base_term = term;
}

void raft_log_correct(struct raft_log *l, uint64_t index, uint32_t size, uint8_t kind)
{
	assert(index > l->base_index && index <= raft_log_last(l));
	size_t at = l->head + (size_t)(index - l->base_index - 1);
	uint64_t more = size - (uint64_t)l->ring[at & (l->cap - 1)].size; /* modulo 2^64 */

	l->ring[at & (l->cap - 1)].size = size;
	l->ring[at & (l->cap - 1)].kind = kind;
	for (; index <= raft_log_last(l); index++, at++)
		l->ring[at & (l->cap - 1)].end += more;
}

uint64_t raft_log_bytes_above(const struct raft_log *l, uint64_t index)
{
	uint64_t last = raft_log_last(l);

	return end_of(l, last) - end_of(l, index < last ? index : last);
}

uint64_t raft_log_back_up(const struct raft_log *l, uint64_t index, uint64_t term)
{
	if (index > raft_log_last(l))
		index = raft_log_last(l);
	while (index >= l->base_index && index > 0 && raft_log_term(l, index) > term)
		index--;
	return index;
}
