/* The latest ids: a ring with chains through it. */
#include "shell/ledger_impl.h"
#include "wire/buf.h"
#include "wire/hash.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 256u
#define SEED 2

static uint32_t bucket_of(const struct ledger_ids *w, const uint8_t id[VFS_TXID_BYTES])
{
	return (uint32_t)wire_hash(id, VFS_TXID_BYTES, SEED) & (w->cap - 1);
}

static uint64_t hash_of(const struct ledger_id *e)
{
	uint8_t b[VFS_TXID_BYTES + 8];

	memcpy(b, e->id, VFS_TXID_BYTES);
	wire_set_le64(b + VFS_TXID_BYTES, e->index);
	return wire_hash(b, sizeof b, SEED);
}

static void chain(struct ledger_ids *w, uint32_t slot)
{
	uint32_t b = bucket_of(w, w->slot[slot].id);

	w->next[slot] = w->bucket[b];
	w->bucket[b] = slot + 1;
}

static void unchain(struct ledger_ids *w, uint32_t slot)
{
	uint32_t *at = &w->bucket[bucket_of(w, w->slot[slot].id)];

	while (*at != slot + 1)
		at = &w->next[*at - 1];
	*at = w->next[slot];
}

static int grow(struct ledger_ids *w)
{
	struct ledger_ids g = { .cap = w->cap ? w->cap * 2 : FIRST_CAP, .n = w->n, .end = w->end, .sum = w->sum };

	g.slot = malloc(g.cap * sizeof *g.slot);
	g.next = malloc(g.cap * sizeof *g.next);
	g.bucket = calloc(g.cap, sizeof *g.bucket);
	if (!g.slot || !g.next || !g.bucket) {
		ledger_ids_free(&g);
		return WIRE_NOMEM;
	}
	for (uint64_t i = w->end - w->n; i < w->end; i++) {
		uint32_t slot = (uint32_t)(i & (g.cap - 1));

		g.slot[slot] = *ledger_ids_at(w, i);
		chain(&g, slot);
	}
	ledger_ids_free(w);
	*w = g;
	return WIRE_OK;
}

int ledger_ids_put(struct ledger_ids *w, const uint8_t id[VFS_TXID_BYTES], uint64_t index, uint64_t *from)
{
	uint32_t slot;

	if (w->n == w->cap && w->cap < SHELL_LEDGER_IDS && grow(w))
		return WIRE_NOMEM;
	slot = (uint32_t)(w->end & (w->cap - 1));
	if (w->n == w->cap) {
		unchain(w, slot);
		w->sum ^= hash_of(&w->slot[slot]);
		*from = w->slot[slot].index;
		w->n--;
	}
	memcpy(w->slot[slot].id, id, VFS_TXID_BYTES);
	w->slot[slot].index = index;
	chain(w, slot);
	w->sum ^= hash_of(&w->slot[slot]);
	w->end++;
	w->n++;
	return WIRE_OK;
}

const struct ledger_id *ledger_ids_find(const struct ledger_ids *w, const uint8_t id[VFS_TXID_BYTES])
{
	for (uint32_t ref = w->cap ? w->bucket[bucket_of(w, id)] : 0; ref; ref = w->next[ref - 1])
		if (memcmp(w->slot[ref - 1].id, id, VFS_TXID_BYTES) == 0)
			return &w->slot[ref - 1];
	return NULL;
}

const struct ledger_id *ledger_ids_at(const struct ledger_ids *w, uint64_t number)
{
	return &w->slot[number & (w->cap - 1)];
}

void ledger_ids_free(struct ledger_ids *w)
{
	free(w->slot);
	free(w->next);
	free(w->bucket);
	*w = (struct ledger_ids){ 0 };
}
