/* The network: messages in the order of their sending, which wait until they are delivered or dropped.
 *
 * Images are not the core's: where a leader has trimmed what a member needs, it is offered what the leader has applied, as
 * one message "snapshot", like InstallSnapshot (paper, section 7); once it is durable there, "snapshot_resp" tells the leader
 * what an acknowledged append would. */
#include "test/script/adapter.h"
#include <stdlib.h>
#include <string.h>

/* Words that those use who know Raft from elsewhere. */
static const struct { uint8_t type; const char *kind; } kinds[] = {
	{ WIRE_MSG_PREVOTE_REQ, "prevote" },
	{ WIRE_MSG_PREVOTE_RESP, "prevote_resp" },
	{ WIRE_MSG_VOTE_REQ, "vote" },
	{ WIRE_MSG_VOTE_RESP, "vote_resp" },
	{ WIRE_MSG_APPEND, "append" },
	{ WIRE_MSG_APPEND_RESP, "append_resp" },
	{ WIRE_MSG_HEARTBEAT, "heartbeat" },
	{ WIRE_MSG_HEARTBEAT_RESP, "heartbeat_resp" },
	{ WIRE_MSG_READ_REQ, "read" },
	{ WIRE_MSG_READ_RESP, "read_resp" },
	{ WIRE_MSG_TIMEOUT_NOW, "timeout_now" },
	{ WIRE_MSG_CATCH_UP, "catch_up" },
	{ WIRE_MSG_FETCH_REQ, "fetch" },
	{ WIRE_MSG_FETCH_RESP, "fetch_resp" },
	{ WIRE_MSG_PROMOTE_REQ, "promote" },
	{ WIRE_MSG_PROMOTE_RESP, "promote_resp" },
	{ WIRE_MSG_NONE, "snapshot" },
	{ WIRE_MSG_NONE, "snapshot_resp" },
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static const char *kind_of(int type)
{
	for (size_t i = 0; i < KINDS; i++)
		if (kinds[i].type == type)
			return kinds[i].kind;
	return wire_msg_name(type);
}

bool net_known_kind(const char *kind)
{
	for (size_t i = 0; i < KINDS; i++)
		if (!strcmp(kinds[i].kind, kind))
			return true;
	return false;
}

void packet_free(struct packet *p)
{
	entries_free(&p->entries);
	image_free(p->image);
	*p = (struct packet){ 0 };
}

/* The core leaves out the entries' data. */
void packet_make(struct packet *p, struct node *n, const struct wire_msg *m)
{
	*p = (struct packet){ .kind = kind_of(m->type), .m = *m };
	for (uint32_t i = 0; i < m->n_entries; i++)
		entries_add(&p->entries, node_entry(n, m->index + 1 + i));
	p->m.entries = NULL;
	p->m.n_entries = (uint32_t)p->entries.n;
}

void net_send(struct packet *p)
{
	world.net = grow(world.net, &world.cap_net, world.n_net, sizeof(*world.net));
	world.net[world.n_net++] = *p;
	*p = (struct packet){ 0 };
}

bool net_match(const struct packet *p, uint64_t from, uint64_t to, const char *kind)
{
	return p->m.from == from && p->m.to == to && (!kind || !strcmp(p->kind, kind));
}

struct packet net_take(size_t i)
{
	struct packet p = world.net[i];

	memmove(world.net + i, world.net + i + 1, (--world.n_net - i) * sizeof(p));
	return p;
}

void net_forget(void)
{
	while (world.n_net)
		packet_free(&world.net[--world.n_net]);
	free(world.net);
	world.net = NULL;
	world.cap_net = 0;
}

static bool waiting(uint64_t from, uint64_t to, const char *kind)
{
	for (size_t i = 0; i < world.n_net; i++)
		if (net_match(&world.net[i], from, to, kind))
			return true;
	return false;
}

static bool writing_image(uint64_t to)
{
	const struct node *n = node_find(to);

	for (size_t i = 0; n && i < n->n_writes; i++)
		if (n->writes[i].image)
			return true;
	return false;
}

/* A witness must begin no later than where every data voter has got to. */
static void offer(struct node *n, uint64_t to, bool witness)
{
	size_t cap = 0;
	uint64_t index = witness && n->u.keep_above < n->applied_index ? n->u.keep_above : n->applied_index;

	if (index < n->mem.base_index)
		return;
	struct image *i = memset(grow(NULL, &cap, 0, sizeof(*i)), 0, sizeof(*i));
	struct packet p = { .kind = "snapshot", .image = i };

	i->index = index;
	i->term = raft_term_of(n->raft, i->index);
	node_config_at(n, i->index, &i->config);
	entries_copy(&i->applied, &n->applied, i->index);
	p.m = (struct wire_msg){ .from = n->id, .to = to, .term = n->u.term, .index = i->index, .log_term = i->term };
	net_send(&p);
}

/* One at a time, until it has been answered. */
void net_offer_images(struct node *n)
{
	const struct raft_config *c = raft_config_current(n->raft);
	struct raft_progress g;

	for (uint32_t i = 0; n->u.role == RAFT_LEADER && i < c->n; i++) {
		uint64_t to = c->m[i].id;
		if (to != n->id && raft_progress_of(n->raft, to, &g) && g.state == RAFT_SNAPSHOT && !waiting(n->id, to, "snapshot") &&
		    !waiting(to, n->id, "snapshot_resp") && !writing_image(to))
			offer(n, to, (c->m[i].flags & RAFT_WITNESS) != 0);
	}
}

/* All up to there is committed, so that it matches the log of whoever leads (I3). */
void net_image_done(struct node *n, uint64_t leader)
{
	struct packet p = { .kind = "snapshot_resp" };

	p.m = (struct wire_msg){
		.type = WIRE_MSG_APPEND_RESP, .from = n->id, .to = leader, .term = n->u.term, .index = n->u.commit
	};
	net_send(&p);
}

/* It is a sign of the leader too: a heartbeat that tells nothing says so, and is refused if the term is over. */
static void deliver_image(struct node *n, struct packet *p)
{
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .from = p->m.from, .to = n->id, .term = p->m.term };

	node_step(n, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &m }, NULL, NULL);
	if (!n->raft || n->u.leader != p->m.from)
		return;
	node_write_image(n, p->image, p->m.from);
	p->image = NULL;
}

bool net_deliver(struct packet *p)
{
	struct node *n = node_find(p->m.to);
	bool up = n && n->raft;

	if (up && p->image) {
		deliver_image(n, p);
	} else if (up) {
		p->m.entries = p->entries.e;
		node_step(n, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &p->m }, NULL, NULL);
	}
	packet_free(p);
	return up;
}
