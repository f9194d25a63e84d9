/* What comes in: greetings, answers to ours, messages. */
#include "wire/link_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUESTS_MAX = 32 };

static void on_refusal(struct wire_peer *p, struct wire_msg *m)
{
	struct wire_link *l = p->link;
	for (char *c = m->text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	char why[2 * WIRE_TEXT_MAX + 64];
	snprintf(why, sizeof(why), "the node at %s refused this one: %s", p->url, m->text);
	if (atomic_load(&p->live) && !atomic_load(&p->guest) && !atomic_load(&l->closing))
		l->opts.on_refused(l->opts.ctx, p->id, why);
}

void wire_link_on_answer(void *ctx, struct wire_outlet *out, struct wire_packet *packet)
{
	struct wire_peer_lane *lane = ctx;
	struct wire_peer *p = lane->peer;
	struct wire_msg m;
	unsigned version = 0;
	int rc = wire_msg_decode_hello(packet->data, packet->size, &m, &version, NULL);
	wire_packet_free(packet);
	if (rc != WIRE_OK || m.type != WIRE_MSG_HELLO_REPLY ||
	    (version != WIRE_PROTOCOL && !(m.flags & WIRE_MSG_REJECT))) {
		wire_outlet_reset(out);
	} else if (m.flags & WIRE_MSG_REJECT) {
		wire_outlet_refused(out);
		/* All lanes are refused alike; one says so. */
		if (lane->no == WIRE_LANE_CONTROL)
			on_refusal(p, &m);
	} else {
		atomic_store(&p->heard_ns, wire_link_now_ns());
		wire_outlet_accepted(out);
	}
}

void wire_link_greeting_answer(struct wire_link *l, uint32_t conn, const struct wire_msg *hello, const char *why)
{
	struct wire_msg m = { .type = WIRE_MSG_HELLO_REPLY,
		              .flags = why ? WIRE_MSG_REJECT : 0,
		              .group = hello->group,
		              .from = l->opts.self,
		              .to = hello->from,
		              .corr = hello->corr,
		              .term = why ? 0 : atomic_load(&l->cluster),
		              .hint = WIRE_FEATURES };
	snprintf(m.text, sizeof(m.text), "%s", why ? why : "");
	int rc = WIRE_OK;
	struct wire_packet *packet = wire_link_packet(&m, &rc);
	if (packet)
		wire_inlet_reply(l->inlet, conn, packet);
	else
		wire_inlet_drop(l->inlet, conn);
}

static void drop(struct wire_link *l, uint32_t conn)
{
	pthread_mutex_lock(&l->table);
	wire_conns_remove(&l->conns, conn);
	pthread_mutex_unlock(&l->table);
	wire_inlet_drop(l->inlet, conn);
}

bool wire_link_on_opened(void *ctx, uint32_t conn)
{
	struct wire_link *l = ctx;
	uint32_t evict = 0;
	pthread_mutex_lock(&l->table);
	bool added = wire_conns_add(&l->conns, conn, wire_link_now_ns(), &evict);
	pthread_mutex_unlock(&l->table);
	if (evict)
		wire_inlet_drop(l->inlet, evict);
	return added;
}

void wire_link_on_closed(void *ctx, uint32_t conn)
{
	struct wire_link *l = ctx;
	pthread_mutex_lock(&l->table);
	wire_conns_remove(&l->conns, conn);
	pthread_mutex_unlock(&l->table);
	wire_asker_remove(l, conn);
	wire_link_wake(l);
}

/* The address to dial back: as given, but where it says "all interfaces" the connection's own source. */
static bool answer_url(struct wire_link *l, uint32_t conn, const char *given, char *dst, size_t cap)
{
	if (wire_url_check(given, NULL, NULL) != WIRE_OK)
		return false;
	const char *host = given + strlen("tcp://"), *port = strrchr(given, ':');
	size_t n = (size_t)(port - host);
	char from[64] = "";
	if ((n == strlen("0.0.0.0") && strncmp(host, "0.0.0.0", n) == 0) || (n == 4 && strncmp(host, "[::]", n) == 0))
		wire_inlet_host(l->inlet, conn, from, sizeof(from));
	int len = from[0] ? snprintf(dst, cap, "tcp://%s%s", from, port) : snprintf(dst, cap, "%s", given);
	return len > 0 && (size_t)len < cap;
}

/* Connections are numbered as they come. */
static bool older_of_lane(const struct wire_conn *a, const void *arg)
{
	const struct wire_conn *b = arg;
	return a->greeted && (int32_t)(a->id - b->id) < 0 && a->peer == b->peer && a->lane == b->lane;
}

/* After a pause of ours, several connections of one lane greet at a time, and in any order: the newest is the one. */
static bool outdated_locked(const struct wire_link *l, const struct wire_conn *b)
{
	for (size_t i = 0; i < l->conns.len; i++)
		if (older_of_lane(b, &l->conns.v[i]) && l->conns.v[i].greeted)
			return true;
	return false;
}

/* False: room for guests is exhausted. */
static bool welcome_guest(struct wire_link *l, uint64_t id, const char *url)
{
	size_t guests = 0;
	pthread_mutex_lock(&l->table);
	/* It has another id now: two of us that dial one address would take each other's place there. */
	for (size_t i = l->n_peers; i-- > 0;)
		if (atomic_load(&l->peers[i]->guest) && l->peers[i]->id != id && !strcmp(l->peers[i]->url, url))
			wire_peer_bury_locked(l, l->peers[i]);
	struct wire_peer *known = wire_peer_find_locked(l, id);
	for (size_t i = 0; i < l->n_peers; i++)
		guests += atomic_load(&l->peers[i]->guest);
	if (known && atomic_load(&known->guest) && strcmp(known->url, url) != 0) {
		wire_peer_bury_locked(l, known);
		known = NULL;
		guests--;
	}
	pthread_mutex_unlock(&l->table);
	if (known)
		return true;
	return guests < GUESTS_MAX && wire_peer_add(l, id, url, true, NULL) == WIRE_OK;
}

bool wire_link_greeted_locked(struct wire_link *l, uint64_t id)
{
	for (size_t i = 0; i < l->conns.len; i++)
		if (l->conns.v[i].greeted && l->conns.v[i].peer == id && l->conns.v[i].cluster && l->conns.v[i].cluster == atomic_load(&l->cluster))
			return true;
	return false;
}

static bool is_stranger(struct wire_link *l, const struct wire_msg *hello)
{
	pthread_mutex_lock(&l->table);
	bool known = wire_peer_find_locked(l, hello->from) != NULL;
	pthread_mutex_unlock(&l->table);
	return !known && hello->term != 0 && hello->term == atomic_load(&l->cluster);
}

void wire_link_greeting_refuse(struct wire_link *l, uint32_t conn, const struct wire_msg *hello, const char *why)
{
	pthread_mutex_lock(&l->table);
	struct wire_conn *c = wire_conns_find(&l->conns, conn);
	if (c) {
		c->refused = true;
		c->greeted = false;
		c->since_ns = wire_link_now_ns();
	}
	pthread_mutex_unlock(&l->table);
	wire_link_greeting_answer(l, conn, hello, why);
}

static void on_greeting(struct wire_link *l, uint32_t id, struct wire_packet *packet)
{
	struct wire_msg m;
	unsigned version = 0;
	char url[WIRE_TEXT_MAX + 1], why[WIRE_TEXT_MAX + 1];
	int rc = wire_msg_decode_hello(packet->data, packet->size, &m, &version, NULL);
	if (rc == WIRE_OK && m.type == WIRE_MSG_HELLO && !m.term && !m.text[0]) {
		wire_asker_greet(l, id, &m, version);
		return;
	}
	if (rc != WIRE_OK || m.type != WIRE_MSG_HELLO || !answer_url(l, id, m.text, url, sizeof(url))) {
		drop(l, id);
		return;
	}
	uint64_t cluster = atomic_load(&l->cluster);
	bool guest = m.term == 0 && cluster != 0;
	bool ok = wire_greet_admits(l->opts.self, cluster, &m, version, why, sizeof(why));
	if (ok && (guest || is_stranger(l, &m)) && !welcome_guest(l, m.from, url)) {
		snprintf(why, sizeof(why), "it is busy with %d other nodes that join: try again later", GUESTS_MAX);
		ok = false;
	}
	if (!ok) {
		wire_link_greeting_refuse(l, id, &m, why);
		return;
	}
	pthread_mutex_lock(&l->table);
	uint32_t stale = 0;
	struct wire_conn *c = wire_conns_find(&l->conns, id);
	if (c) {
		c->greeted = true;
		c->guest = guest;
		c->peer = m.from;
		c->cluster = m.term;
		c->lane = (uint8_t)m.index;
		struct wire_conn me = *c;
		bool outdated = outdated_locked(l, &me);
		stale = outdated ? id : wire_conns_take(&l->conns, older_of_lane, &me);
		if (outdated)
			wire_conns_remove(&l->conns, id);
		struct wire_peer *p = wire_peer_find_locked(l, m.from);
		if (p)
			atomic_store(&p->heard_ns, wire_link_now_ns());
	}
	pthread_mutex_unlock(&l->table);
	if (stale)
		wire_inlet_drop(l->inlet, stale);
	if (stale == id)
		return;
	wire_inlet_limit(l->inlet, id, WIRE_MSG_MAX);
	wire_link_greeting_answer(l, id, &m, NULL);
}

/* Takes the packet. */
static void deliver(struct wire_link *l, const struct wire_conn *c, struct wire_packet *packet)
{
	struct wire_link_msg *m = calloc(1, sizeof(*m));
	struct wire_entry *entries = NULL;
	int rc = m ? wire_msg_decode(packet->data, packet->size, &m->msg, &entries, NULL) : WIRE_NOMEM;
	if (rc == WIRE_OK && (m->msg.from != c->peer || (c->asker && !wire_asker_may_send(m)))) {
		free(entries);
		rc = WIRE_INVALID;
	}
	if (rc != WIRE_OK || atomic_load(&l->closing)) {
		free(rc == WIRE_OK ? entries : NULL);
		free(m);
		wire_packet_free(packet);
		/* Without memory the message is lost, as a message may be; anything else is not what a node sends. */
		if (rc != WIRE_OK && rc != WIRE_NOMEM)
			drop(l, c->id);
		return;
	}
	m->guest = c->guest;
	m->conn = c->asker ? c->id : 0;
	m->impl = packet;
	l->opts.on_msg(l->opts.ctx, m);
}

void wire_link_on_packet(void *ctx, uint32_t id, struct wire_packet *packet)
{
	struct wire_link *l = ctx;
	struct wire_conn conn = { 0 };
	pthread_mutex_lock(&l->table);
	struct wire_conn *c = wire_conns_find(&l->conns, id);
	if (c) {
		conn = *c;
		if (c->asker)
			c->since_ns = wire_link_now_ns();
		struct wire_peer *p = c->greeted ? wire_peer_find_locked(l, c->peer) : NULL;
		if (p)
			atomic_store_explicit(&p->heard_ns, wire_link_now_ns(), memory_order_relaxed);
	}
	pthread_mutex_unlock(&l->table);
	bool greets = packet->size > 1 && packet->data[1] == WIRE_MSG_HELLO;
	if (c && conn.greeted && (!greets || conn.asker)) {
		deliver(l, &conn, packet);
		return;
	}
	if (c && !conn.refused)
		on_greeting(l, id, packet);
	wire_packet_free(packet);
}
