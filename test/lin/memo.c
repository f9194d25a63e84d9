/* The set of configurations: fixed-size entries in one array, chained by hash of their exact words. */
#include "test/lin/search.h"

#include <stdlib.h>
#include <string.h>

#define NO_ENTRY UINT32_MAX

struct lin_memo {
	size_t exact, used, stride; /* in words; an entry is its chain's next, the exact words, the used words */
	uint64_t *entries;
	size_t count, cap;
	uint32_t *buckets;
	size_t bucket_count; /* a power of two */
	uint64_t work;
	bool frugal;
};

struct lin_memo *lin_memo_new(size_t exact, size_t used, bool frugal)
{
	struct lin_memo *m = calloc(1, sizeof *m);

	if (!m)
		return NULL;
	m->exact = exact;
	m->used = used;
	m->frugal = frugal;
	m->stride = 1 + exact + used;
	return m;
}

void lin_memo_free(struct lin_memo *m)
{
	if (!m)
		return;
	free(m->entries);
	free(m->buckets);
	free(m);
}

static uint64_t hash(const struct lin_memo *m, const uint64_t *words)
{
	uint64_t h = 0;

	for (size_t i = 0; i < m->exact; i++) {
		h = (h ^ words[i]) * 0x9e3779b97f4a7c15u;
		h ^= h >> 32;
	}
	return h * 0xbf58476d1ce4e5b9u >> 16;
}

static void link_entry(struct lin_memo *m, size_t i)
{
	uint64_t *e = m->entries + i * m->stride;
	uint32_t *head = &m->buckets[hash(m, e + 1) & (m->bucket_count - 1)];

	e[0] = *head;
	*head = (uint32_t)i;
}

static void link_all(struct lin_memo *m)
{
	memset(m->buckets, 0xff, m->bucket_count * sizeof *m->buckets);
	for (size_t i = 0; i < m->count; i++)
		link_entry(m, i);
}

static bool make_room(struct lin_memo *m)
{
	size_t cap = m->cap ? m->cap + m->cap / 2 : 1024, buckets = m->bucket_count ? m->bucket_count * 2 : 1024;
	uint64_t *entries;
	uint32_t *heads;

	if (m->count >= m->cap) {
		if (cap >= NO_ENTRY)
			return false;
		entries = reallocarray(m->entries, cap, m->stride * sizeof *entries);
		if (!entries)
			return false;
		m->entries = entries;
		m->cap = cap;
	}
	if (m->count < m->bucket_count)
		return true;
	heads = malloc(buckets * sizeof *heads);
	if (!heads)
		return false;
	free(m->buckets);
	m->buckets = heads;
	m->bucket_count = buckets;
	link_all(m);
	return true;
}

void lin_memo_forget(struct lin_memo *m, uint64_t word)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->count; i++)
		if (m->entries[i * m->stride + 1] >= word)
			memmove(m->entries + kept++ * m->stride, m->entries + i * m->stride, m->stride * sizeof *m->entries);
	m->count = kept;
	if (m->buckets)
		link_all(m);
}

size_t lin_memo_count(const struct lin_memo *m)
{
	return m->count;
}

static bool is_enough(const struct lin_memo *m, const uint64_t *a, const uint64_t *b)
{
	size_t words = m->used;
	int more = 0;

	for (size_t i = 0; i < words && m->frugal; i++)
		more += __builtin_popcountll(a[i]) - __builtin_popcountll(b[i]);
	if (m->frugal)
		return more <= 0;
	for (size_t i = 0; i < words; i++)
		if (a[i] & ~b[i])
			return false;
	return true;
}

enum lin_memo_result lin_memo_add(struct lin_memo *m, const uint64_t *words)
{
	uint64_t *e;

	if (!make_room(m))
		return LIN_MEMO_NOMEM;
	for (uint32_t i = m->buckets[hash(m, words) & (m->bucket_count - 1)]; i != NO_ENTRY; i = (uint32_t)e[0]) {
		e = m->entries + i * m->stride;
		m->work++;
		if (memcmp(e + 1, words, m->exact * sizeof *words) == 0 && is_enough(m, e + 1 + m->exact, words + m->exact))
			return LIN_MEMO_KNOWN;
	}
	e = m->entries + m->count * m->stride;
	memcpy(e + 1, words, (m->exact + m->used) * sizeof *words);
	link_entry(m, m->count++);
	return LIN_MEMO_NEW;
}

uint64_t lin_memo_work(const struct lin_memo *m)
{
	return m->work;
}
