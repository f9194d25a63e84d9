/* Sending, the cache of entries that saves reading the journal for it, and whom the link dials. Node thread only. */
#include "shell/node_impl.h"
#include "wire/hash.h"

#include <stdlib.h>
#include <string.h>

/* --- entry cache --- */

static void slot_drop(struct entry_cache *c, struct cache_slot *s)
{
	c->bytes -= s->e.size;
	free(s->data);
	memset(s, 0, sizeof *s);
}

void entry_cache_put(struct entry_cache *c, const struct wire_entry *e)
{
	struct cache_slot *s = &c->slot[e->index % CACHE_SLOTS];
	uint8_t *copy = malloc(e->size ? e->size : 1);

	if (s->e.index)
		slot_drop(c, s);
	if (!copy)
		return; /* the journal has it */
	if (e->size)
		memcpy(copy, e->data, e->size);
	s->e = *e;
	s->e.data = s->data = copy;
	c->bytes += e->size;
	if (!c->oldest || c->oldest + CACHE_SLOTS <= e->index)
		c->oldest = e->index >= CACHE_SLOTS ? e->index - CACHE_SLOTS + 1 : 1;
	for (; c->bytes > CACHE_BYTES && c->oldest < e->index; c->oldest++) {
		s = &c->slot[c->oldest % CACHE_SLOTS];
		if (s->e.index == c->oldest)
			slot_drop(c, s);
	}
}

const struct cache_slot *entry_cache_get(const struct entry_cache *c, uint64_t index, uint64_t term)
{
	const struct cache_slot *s = &c->slot[index % CACHE_SLOTS];

	return s->e.index == index && s->e.term == term ? s : NULL;
}

void entry_cache_drop_from(struct entry_cache *c, uint64_t index)
{
	for (size_t i = 0; i < CACHE_SLOTS; i++)
		if (c->slot[i].e.index >= index && c->slot[i].e.index)
			slot_drop(c, &c->slot[i]);
}

void entry_cache_free(struct entry_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < CACHE_SLOTS; i++)
		free(c->slot[i].data);
	free(c);
}

/* --- sending --- */

static enum wire_lane lane_of(uint8_t type)
{
	switch (type) {
	case WIRE_MSG_APPEND:
	case WIRE_MSG_FETCH_RESP:
		return WIRE_LANE_LOG;
	case WIRE_MSG_IMAGE_INFO:
	case WIRE_MSG_IMAGE_CHUNK:
		return WIRE_LANE_BULK;
	default:
		return WIRE_LANE_CONTROL;
	}
}

/* Points a message's entries at their data: in the cache, else read from the journal into scratch. */
static int fill_entries(struct shell_node *n, struct wire_msg *m, struct wire_err *err)
{
	struct wire_buf one = WIRE_BUF_INIT;
	size_t offset[WIRE_ENTRIES_MAX];
	uint64_t first = 0, last = 0;
	int rc = WIRE_OK;

	wire_buf_reset(&n->scratch);
	for (uint32_t i = 0; i < m->n_entries && !rc; i++) {
		struct wire_entry *e = &m->entries[i];
		const struct cache_slot *s = entry_cache_get(n->cache, e->index, e->term);

		offset[i] = SIZE_MAX;
		if (s) {
			*e = s->e;
			continue;
		}
		rc = raft_journal_read(n->journal, e->index, &one, e, err);
		offset[i] = n->scratch.len;
		if (!rc)
			wire_put_bytes(&n->scratch, one.data, e->size);
		first = first ? first : e->index;
		last = e->index;
	}
	if (first && !rc)
		node_tell_fetch(n->events, first, last, n->scratch.len);
	if (!rc && n->scratch.failed)
		rc = wire_fail(err, WIRE_NOMEM, "no memory for sending entries");
	for (uint32_t i = 0; i < m->n_entries && !rc; i++)
		if (offset[i] != SIZE_MAX)
			m->entries[i].data = m->entries[i].size ? n->scratch.data + offset[i] : NULL;
	wire_buf_free(&one);
	return rc;
}

void node_send(struct shell_node *n, uint64_t to, const struct wire_msg *m)
{
	struct wire_msg copy = *m;

	copy.group = n->conf.group;
	copy.from = n->conf.node;
	copy.to = to;
	/* What is not sent is lost like any message; Raft and the membership requests repeat themselves. */
	if (n->link)
		(void)wire_link_send(n->link, to, lane_of(m->type), &copy);
}

int node_send_raft(struct shell_node *n, struct wire_msg *m)
{
	uint64_t unpacks = wire_lz4_unpacks();
	struct wire_err err;

	if (m->type == WIRE_MSG_HEARTBEAT)
		node_witness_tell(n, m);
	if (m->type == WIRE_MSG_HEARTBEAT_RESP && n->store->witness) {
		pthread_mutex_lock(&n->mu);
		n->witness.full = m->flags & WIRE_MSG_FULL;
		pthread_mutex_unlock(&n->mu);
	}
	if (m->n_entries) { /* APPEND, FETCH_RESP */
		if (m->n_entries > WIRE_ENTRIES_MAX)
			return wire_fail(NULL, WIRE_INTERNAL, "append too long");
		if (fill_entries(n, m, &err)) {
			node_fail(n, "%s", err.text);
			return err.code;
		}
	}
	node_send(n, m->to, m);
	if (m->type == WIRE_MSG_READ_REQ)
		atomic_fetch_add_explicit(&n->read_counts.requests, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&n->entries_sent, m->n_entries, memory_order_relaxed);
	atomic_fetch_add_explicit(&n->send_unpacks, wire_lz4_unpacks() - unpacks, memory_order_relaxed);
	return WIRE_OK;
}

int node_send_late(struct shell_node *n, const struct wire_msg *m)
{
	if (n->n_late == n->cap_late) {
		size_t cap = n->cap_late ? 2 * n->cap_late : 64;
		struct wire_msg *p = realloc(n->late, cap * sizeof *p);

		if (!p) {
			node_fail(n, "out of memory");
			return WIRE_NOMEM;
		}
		n->late = p;
		n->cap_late = cap;
	}
	n->late[n->n_late] = *m;
	if (m->n_entries) { /* metadata only; the array is the core's and gone at the next step */
		struct wire_entry *copy = malloc(m->n_entries * sizeof *copy);

		if (!copy) {
			node_fail(n, "out of memory");
			return WIRE_NOMEM;
		}
		memcpy(copy, m->entries, m->n_entries * sizeof *copy);
		n->late[n->n_late].entries = copy;
	}
	n->n_late++;
	return WIRE_OK;
}

/* --- whom the link dials --- */

/* Those that are awaited have nobody who listens yet, or a guest that does not know its id. */
static bool is_dialled(const struct shell_node *n, const struct raft_config *c, uint64_t id)
{
	const struct raft_member *m = raft_config_find(c, id);

	return m && id != n->conf.node && !(m->flags & RAFT_AWAITED);
}

void node_link_members(struct shell_node *n)
{
	const struct raft_config *c = raft_config_current(n->raft);
	struct wire_err err;

	if (!n->link)
		return;
	for (uint32_t i = 0; i < n->linked.n; i++)
		if (is_dialled(n, &n->linked, n->linked.m[i].id) && !is_dialled(n, c, n->linked.m[i].id))
			wire_link_remove_peer(n->link, n->linked.m[i].id);
	for (uint32_t i = 0; i < c->n; i++) {
		uint64_t id = c->m[i].id;

		if (!is_dialled(n, c, id) || (is_dialled(n, &n->linked, id) && !strcmp(raft_config_find(&n->linked, id)->url, c->m[i].url)))
			continue;
		if (wire_link_add_peer(n->link, id, c->m[i].url, &err))
			shell_log(n, "cannot dial member %s: %s", c->m[i].url, err.text);
	}
	n->linked = *c;
}
