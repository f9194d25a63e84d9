/* Askers: connections that are answered on themselves. Each has a queue here, since a connection takes one packet at a time. An asker gets
 * no more than it asked for, so the queue is short; one that does not read what it asked for fills it. */
#include "wire/link_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_MAX = 64 };

struct wire_asker {
	uint32_t conn;
	bool busy; /* somebody sends, or `sent` is due; that one goes on with the queue */
	size_t len;
	struct wire_packet *queue[QUEUE_MAX];
	struct wire_asker *next;
};

static struct wire_asker *find_locked(struct wire_link *l, uint32_t conn)
{
	struct wire_asker *a = l->askers;
	while (a && a->conn != conn)
		a = a->next;
	return a;
}

bool wire_asker_add(struct wire_link *l, uint32_t conn)
{
	struct wire_asker *a = calloc(1, sizeof(*a));
	if (!a)
		return false;
	a->conn = conn;
	pthread_mutex_lock(&l->ask);
	bool room = l->n_askers < WIRE_ASKERS_MAX;
	if (room) {
		a->next = l->askers;
		l->askers = a;
		l->n_askers++;
	}
	pthread_mutex_unlock(&l->ask);
	if (!room)
		free(a);
	return room;
}

void wire_asker_remove(struct wire_link *l, uint32_t conn)
{
	struct wire_asker *gone = NULL;
	pthread_mutex_lock(&l->ask);
	for (struct wire_asker **at = &l->askers; *at && !gone; at = &(*at)->next) {
		if ((*at)->conn == conn) {
			gone = *at;
			*at = gone->next;
			l->n_askers--;
			break;
		}
	}
	pthread_mutex_unlock(&l->ask);
	if (!gone)
		return;
	for (size_t i = 0; i < gone->len; i++)
		wire_packet_free(gone->queue[i]);
	free(gone);
	l->opts.on_asker_gone(l->opts.ctx, conn);
}

bool wire_asker_may_send(const struct wire_link_msg *m)
{
	return m->msg.type == WIRE_MSG_QUERY_OPEN || m->msg.type == WIRE_MSG_QUERY_NEXT || m->msg.type == WIRE_MSG_QUERY_CLOSE;
}

/* Sends what is in the queue until it is empty or the connection is busy. The caller has set busy. */
static void send_on(struct wire_link *l, uint32_t conn, struct wire_packet *packet)
{
	while (packet && wire_inlet_reply(l->inlet, conn, packet)) {
		packet = NULL;
		pthread_mutex_lock(&l->ask);
		struct wire_asker *a = find_locked(l, conn);
		if (a && a->len) {
			packet = a->queue[0];
			memmove(a->queue, a->queue + 1, --a->len * sizeof(a->queue[0]));
		} else if (a) {
			a->busy = false;
		}
		pthread_mutex_unlock(&l->ask);
	}
}

void wire_link_on_sent(void *ctx, uint32_t conn)
{
	struct wire_link *l = ctx;
	struct wire_packet *packet = NULL;
	pthread_mutex_lock(&l->ask);
	struct wire_asker *a = find_locked(l, conn);
	if (a && a->len) {
		packet = a->queue[0];
		memmove(a->queue, a->queue + 1, --a->len * sizeof(a->queue[0]));
	} else if (a) {
		a->busy = false;
	}
	pthread_mutex_unlock(&l->ask);
	send_on(l, conn, packet);
}

static int give(struct wire_link *l, uint32_t conn, struct wire_packet *packet)
{
	int rc = WIRE_OK;
	bool mine = false;
	pthread_mutex_lock(&l->ask);
	struct wire_asker *a = find_locked(l, conn);
	if (!a) {
		rc = WIRE_CLOSED;
	} else if (!a->busy) {
		a->busy = mine = true;
	} else if (a->len < QUEUE_MAX) {
		a->queue[a->len++] = packet;
	} else {
		rc = WIRE_BUSY;
	}
	pthread_mutex_unlock(&l->ask);
	if (mine)
		send_on(l, conn, packet);
	if (rc)
		wire_packet_free(packet);
	return rc;
}

int wire_link_answer(struct wire_link *l, uint32_t conn, const struct wire_msg *m)
{
	struct wire_msg mine = *m;
	mine.from = l->opts.self;
	int rc = WIRE_OK;
	struct wire_packet *packet = wire_link_packet(&mine, &rc);
	return packet ? give(l, conn, packet) : rc;
}

void wire_link_hang_up(struct wire_link *l, uint32_t conn)
{
	wire_inlet_drop(l->inlet, conn);
}

void wire_asker_greet(struct wire_link *l, uint32_t conn, const struct wire_msg *hello, unsigned version)
{
	char why[WIRE_TEXT_MAX + 1];
	bool ok = false;
	if (version != WIRE_PROTOCOL)
		snprintf(why, sizeof(why), "it speaks protocol version %d and you speak %u: install the same release on both", WIRE_PROTOCOL,
		         version);
	else if (!l->opts.on_asker_gone)
		snprintf(why, sizeof(why), "it answers no questions");
	else if (!wire_asker_add(l, conn))
		snprintf(why, sizeof(why), "it is busy with %u connections that ask it: ask another member, or try again later", WIRE_ASKERS_MAX);
	else
		ok = true;
	if (!ok) {
		wire_link_greeting_refuse(l, conn, hello, why);
		return;
	}
	pthread_mutex_lock(&l->table);
	struct wire_conn *c = wire_conns_find(&l->conns, conn);
	if (c) {
		c->greeted = c->guest = c->asker = true;
		c->peer = c->cluster = 0;
		c->since_ns = wire_link_now_ns();
	}
	pthread_mutex_unlock(&l->table);
	if (!c) {
		wire_asker_remove(l, conn);
		return;
	}
	wire_inlet_limit(l->inlet, conn, WIRE_ASK_MAX);
	struct wire_msg m = { .type = WIRE_MSG_HELLO_REPLY, .group = l->opts.group, .corr = hello->corr, .term = atomic_load(&l->cluster), .hint = WIRE_FEATURES };
	(void)wire_link_answer(l, conn, &m);
}
