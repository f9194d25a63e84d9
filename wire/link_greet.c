/* Incoming connections and the rules of greeting. */
#include "wire/link_greet.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void remove_at(struct wire_conns *c, size_t i)
{
	memmove(&c->v[i], &c->v[i + 1], (c->len - i - 1) * sizeof(c->v[0]));
	c->len--;
}

bool wire_conns_add(struct wire_conns *c, uint32_t id, uint64_t now_ns, uint32_t *ret_evict)
{
	if (c->len == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 16;
		struct wire_conn *v = realloc(c->v, cap * sizeof(*v));
		if (!v)
			return false;
		c->v = v;
		c->cap = cap;
	}
	size_t ungreeted = 0, oldest = SIZE_MAX;
	for (size_t i = 0; i < c->len; i++) {
		if (c->v[i].greeted)
			continue;
		ungreeted++;
		if (oldest == SIZE_MAX)
			oldest = i;
	}
	uint32_t evict = 0;
	if (ungreeted >= WIRE_UNGREETED_MAX) {
		evict = c->v[oldest].id;
		remove_at(c, oldest);
	}
	c->v[c->len++] = (struct wire_conn){ .id = id, .since_ns = now_ns };
	*ret_evict = evict;
	return true;
}

struct wire_conn *wire_conns_find(struct wire_conns *c, uint32_t id)
{
	for (size_t i = 0; i < c->len; i++)
		if (c->v[i].id == id)
			return &c->v[i];
	return NULL;
}

void wire_conns_remove(struct wire_conns *c, uint32_t id)
{
	struct wire_conn *conn = wire_conns_find(c, id);
	if (conn)
		remove_at(c, (size_t)(conn - c->v));
}

uint32_t wire_conns_take(struct wire_conns *c, bool (*pick)(const struct wire_conn *, const void *), const void *arg)
{
	for (size_t i = 0; i < c->len; i++) {
		if (!pick(&c->v[i], arg))
			continue;
		uint32_t id = c->v[i].id;
		remove_at(c, i);
		return id;
	}
	return 0;
}

void wire_conns_free(struct wire_conns *c)
{
	free(c->v);
	*c = (struct wire_conns){ 0 };
}

bool wire_greet_admits(uint64_t self, uint64_t cluster, const struct wire_msg *hello, unsigned version, char *why,
                       size_t cap)
{
	bool members = hello->term != 0 && cluster != 0;
	if (version != WIRE_PROTOCOL)
		snprintf(why, cap, "it speaks protocol version %d and you speak %u: install the same release on both",
		         WIRE_PROTOCOL, version);
	else if (members && hello->term != cluster)
		snprintf(why, cap,
		         "it belongs to cluster %016" PRIx64 " and you to %016" PRIx64
		         ": check the address, or join its cluster as a new node",
		         cluster, hello->term);
	else if (hello->from == self)
		snprintf(why, cap, "you have its node id %016" PRIx64 ": two nodes of one id cannot run at a time", self);
	else if (members && hello->to != 0 && hello->to != self)
		snprintf(why, cap, "it is node %016" PRIx64 " and you meant node %016" PRIx64 ": check the addresses", self,
		         hello->to);
	else if (hello->from == 0 || hello->index >= WIRE_LANE_COUNT)
		snprintf(why, cap, "your greeting names node %" PRIu64 " and lane %" PRIu64 ", which cannot be",
		         hello->from, hello->index);
	else
		return true;
	return false;
}
