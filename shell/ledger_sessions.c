/* Sessions: found by their client's id, listed by their latest step, and in a heap by the time at which they are forgotten. */
#include "shell/ledger_impl.h"
#include "wire/buf.h"
#include "wire/hash.h"

#include <stdlib.h>
#include <string.h>

#define SEED 3

struct ledger_session *ledger_sessions_at(const struct ledger_sessions *t, uint32_t ref)
{
	return &t->chunk[(ref - 1) / LEDGER_CHUNK][(ref - 1) % LEDGER_CHUNK];
}

static uint64_t hash_of(const struct ledger_session *e)
{
	uint8_t b[32 + VFS_ONCE_ID_MAX];

	wire_set_le64(b, e->s.seq);
	wire_set_le64(b + 8, e->s.index);
	wire_set_le64(b + 16, e->s.time_us);
	wire_set_le64(b + 24, e->s.until_us);
	memcpy(b + 32, e->id, e->len);
	return wire_hash(b, 32 + (size_t)e->len, SEED);
}

static uint32_t *bucket_of(const struct ledger_sessions *t, const uint8_t *id, size_t len)
{
	return &t->bucket[(uint32_t)wire_hash(id, len, SEED) & (t->n_buckets - 1)];
}

/* ---- the heap ---- */

static uint64_t due(const struct ledger_sessions *t, uint32_t ref)
{
	return ledger_sessions_at(t, ref)->s.until_us;
}

static void set_heap(struct ledger_sessions *t, uint32_t at, uint32_t ref)
{
	t->heap[at] = ref;
	ledger_sessions_at(t, ref)->heap_at = at;
}

/* Puts ref where it belongs, `at` being free. */
static void sift(struct ledger_sessions *t, uint32_t at, uint32_t ref)
{
	uint64_t mine = due(t, ref);

	while (at && due(t, t->heap[(at - 1) / 2]) > mine) {
		set_heap(t, at, t->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (uint32_t child; (child = 2 * at + 1) < t->n; at = child) {
		if (child + 1 < t->n && due(t, t->heap[child + 1]) < due(t, t->heap[child]))
			child++;
		if (due(t, t->heap[child]) >= mine)
			break;
		set_heap(t, at, t->heap[child]);
	}
	set_heap(t, at, ref);
}

/* ---- the list ---- */

static void list_in(struct ledger_sessions *t, uint32_t ref)
{
	struct ledger_session *e = ledger_sessions_at(t, ref);

	e->newer = 0;
	e->older = t->newest;
	if (t->newest)
		ledger_sessions_at(t, t->newest)->newer = ref;
	t->newest = ref;
}

static void list_out(struct ledger_sessions *t, uint32_t ref)
{
	struct ledger_session *e = ledger_sessions_at(t, ref);

	if (e->newer)
		ledger_sessions_at(t, e->newer)->older = e->older;
	else
		t->newest = e->older;
	if (e->older)
		ledger_sessions_at(t, e->older)->newer = e->newer;
}

/* ---- room ---- */

static int more_buckets(struct ledger_sessions *t)
{
	uint32_t n = t->n_buckets ? t->n_buckets * 2 : 64;
	uint32_t *bucket = calloc(n, sizeof *bucket);

	if (!bucket)
		return WIRE_NOMEM;
	free(t->bucket);
	t->bucket = bucket;
	t->n_buckets = n;
	for (uint32_t i = 0; i < t->n; i++) {
		struct ledger_session *e = ledger_sessions_at(t, t->heap[i]);
		uint32_t *b = bucket_of(t, e->id, e->len);

		e->chain = *b;
		*b = t->heap[i];
	}
	return WIRE_OK;
}

static int more_slots(struct ledger_sessions *t)
{
	if (t->n_chunks == t->cap_chunks) {
		uint32_t cap = t->cap_chunks ? t->cap_chunks * 2 : 8;
		struct ledger_session **grown = realloc(t->chunk, cap * sizeof *grown);

		if (!grown)
			return WIRE_NOMEM;
		t->chunk = grown;
		t->cap_chunks = cap;
	}
	t->chunk[t->n_chunks] = calloc(LEDGER_CHUNK, sizeof **t->chunk);
	if (!t->chunk[t->n_chunks])
		return WIRE_NOMEM;
	t->n_chunks++;
	return WIRE_OK;
}

static int more_heap(struct ledger_sessions *t)
{
	uint32_t cap = t->cap_heap ? t->cap_heap + t->cap_heap / 2 : 64;
	uint32_t *grown = realloc(t->heap, cap * sizeof *grown);

	if (!grown)
		return WIRE_NOMEM;
	t->heap = grown;
	t->cap_heap = cap;
	return WIRE_OK;
}

/* ---- use ---- */

static uint32_t find(const struct ledger_sessions *t, const uint8_t *id, size_t len)
{
	uint32_t ref = t->n ? *bucket_of(t, id, len) : 0;

	for (; ref; ref = ledger_sessions_at(t, ref)->chain) {
		const struct ledger_session *e = ledger_sessions_at(t, ref);

		if (e->len == len && memcmp(e->id, id, len) == 0)
			break;
	}
	return ref;
}

const struct ledger_session *ledger_sessions_find(const struct ledger_sessions *t, const uint8_t *id, size_t len)
{
	uint32_t ref = find(t, id, len);

	return ref ? ledger_sessions_at(t, ref) : NULL;
}

static int add(struct ledger_sessions *t, const uint8_t *id, size_t len, uint32_t *ret_ref)
{
	struct ledger_session *e;
	uint32_t *b, ref;

	if ((t->n >= t->n_buckets && more_buckets(t)) || (t->n == t->cap_heap && more_heap(t)) ||
	    (!t->free && t->used == t->n_chunks * LEDGER_CHUNK && more_slots(t)))
		return WIRE_NOMEM;
	ref = t->free ? t->free : ++t->used;
	e = ledger_sessions_at(t, ref);
	if (t->free)
		t->free = e->older;
	*e = (struct ledger_session){ .len = (uint8_t)len };
	memcpy(e->id, id, len);
	t->id_bytes += len;
	b = bucket_of(t, id, len);
	e->chain = *b;
	*b = ref;
	set_heap(t, t->n++, ref);
	list_in(t, ref);
	*ret_ref = ref;
	return WIRE_OK;
}

int ledger_sessions_put(struct ledger_sessions *t, const uint8_t *id, size_t len, const struct shell_session *s)
{
	uint32_t ref = find(t, id, len);
	struct ledger_session *e;

	if (ref) {
		e = ledger_sessions_at(t, ref);
		t->sum ^= hash_of(e);
		list_out(t, ref);
		list_in(t, ref);
	} else if (add(t, id, len, &ref)) {
		return WIRE_NOMEM;
	}
	e = ledger_sessions_at(t, ref);
	e->s = *s;
	t->sum ^= hash_of(e);
	sift(t, e->heap_at, ref);
	return WIRE_OK;
}

static void forget(struct ledger_sessions *t, uint32_t ref)
{
	struct ledger_session *e = ledger_sessions_at(t, ref);
	uint32_t *b = bucket_of(t, e->id, e->len), at = e->heap_at, last = t->heap[--t->n];

	t->sum ^= hash_of(e);
	while (*b != ref)
		b = &ledger_sessions_at(t, *b)->chain;
	*b = e->chain;
	if (last != ref)
		sift(t, at, last);
	list_out(t, ref);
	t->id_bytes -= e->len;
	e->len = 0;
	e->older = t->free;
	t->free = ref;
}

void ledger_sessions_expire(struct ledger_sessions *t, uint64_t time_us)
{
	while (t->n && due(t, t->heap[0]) < time_us)
		forget(t, t->heap[0]);
}

uint64_t ledger_sessions_memory(const struct ledger_sessions *t)
{
	return (uint64_t)t->n_chunks * LEDGER_CHUNK * sizeof(struct ledger_session) + t->cap_chunks * sizeof *t->chunk +
	       ((uint64_t)t->n_buckets + t->cap_heap) * sizeof(uint32_t);
}

void ledger_sessions_free(struct ledger_sessions *t)
{
	for (uint32_t i = 0; i < t->n_chunks; i++)
		free(t->chunk[i]);
	free(t->chunk);
	free(t->bucket);
	free(t->heap);
	*t = (struct ledger_sessions){ 0 };
}
