/* Peers, and the interface of a link. */
#include "wire/link_impl.h"
#include "wire/link_nng.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SILENCE_MS = 1500, STRANGER_MAX_BYTES = 4096 };

static const size_t QUEUE_MAX_BYTES = (size_t)32 << 20;

void wire_link_wake(struct wire_link *l)
{
	pthread_mutex_lock(&l->table);
	l->wake_due = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->table);
}

/* peers */

struct wire_peer *wire_peer_find_locked(struct wire_link *l, uint64_t id)
{
	for (size_t i = 0; i < l->n_peers; i++)
		if (l->peers[i]->id == id)
			return l->peers[i];
	return NULL;
}

struct wire_peer *wire_peer_use(struct wire_link *l, uint64_t id)
{
	pthread_mutex_lock(&l->table);
	struct wire_peer *p = wire_peer_find_locked(l, id);
	if (p)
		atomic_fetch_add(&p->users, 1);
	pthread_mutex_unlock(&l->table);
	return p;
}

void wire_peer_unuse(struct wire_peer *p)
{
	atomic_fetch_sub(&p->users, 1);
}

void wire_peer_bury_locked(struct wire_link *l, struct wire_peer *p)
{
	atomic_store(&p->live, false);
	for (size_t i = 0; i < l->n_peers; i++) {
		if (l->peers[i] == p) {
			l->peers[i] = l->peers[--l->n_peers];
			break;
		}
	}
	p->next_dead = l->dead;
	l->dead = p;
	l->wake_due = true;
	pthread_cond_signal(&l->wake);
}

static bool peer_up(struct wire_peer *p)
{
	return wire_outlet_up(p->lanes[WIRE_LANE_CONTROL].out) && wire_outlet_up(p->lanes[WIRE_LANE_LOG].out);
}

static uint64_t peer_losses(struct wire_peer *p)
{
	return wire_outlet_losses(p->lanes[WIRE_LANE_CONTROL].out) + wire_outlet_losses(p->lanes[WIRE_LANE_LOG].out);
}

void wire_peer_tell(struct wire_peer *p)
{
	struct wire_link *l = p->link;
	pthread_mutex_lock(&l->tell);
	if (atomic_exchange(&p->anew, false))
		p->told = false;
	if (atomic_load(&p->live) && !atomic_load(&p->guest) && !atomic_load(&l->closing)) {
		uint64_t losses;
		bool up;
		do {
			losses = peer_losses(p);
			up = peer_up(p);
		} while (losses != peer_losses(p));
		if (p->told && (!up || losses != p->told_losses)) {
			p->told = false;
			l->opts.on_peer(l->opts.ctx, p->id, false);
		}
		p->told_losses = losses;
		if (up && !p->told) {
			p->told = true;
			l->opts.on_peer(l->opts.ctx, p->id, true);
		}
	}
	pthread_mutex_unlock(&l->tell);
}

struct wire_packet *wire_link_packet(const struct wire_msg *m, int *ret_code)
{
	size_t n = wire_msg_size(m);
	if (n > WIRE_MSG_MAX) {
		*ret_code = WIRE_TOOBIG;
		return NULL;
	}
	struct wire_packet *packet = wire_packet_new(n);
	if (!packet) {
		*ret_code = WIRE_NOMEM;
		return NULL;
	}
	/* The size is exact, so the buffer never grows and can be the packet's own memory. */
	struct wire_buf b = { .data = packet->data, .cap = n };
	*ret_code = wire_msg_encode(m, &b, NULL);
	if (*ret_code) {
		wire_packet_free(packet);
		return NULL;
	}
	return packet;
}

static struct wire_packet *peer_greeting(void *ctx)
{
	struct wire_peer_lane *lane = ctx;
	struct wire_link *l = lane->peer->link;
	struct wire_msg m = { .type = WIRE_MSG_HELLO,
		              .group = l->opts.group,
		              .from = l->opts.self,
		              .to = lane->peer->id,
		              .term = atomic_load(&l->cluster),
		              .index = lane->no,
		              .hint = WIRE_FEATURES };
	snprintf(m.text, sizeof(m.text), "%s", l->url);
	int rc = WIRE_OK;
	return wire_link_packet(&m, &rc);
}

static void peer_changed(void *ctx)
{
	struct wire_peer_lane *lane = ctx;
	wire_peer_tell(lane->peer);
	wire_link_wake(lane->peer->link);
}

void wire_peer_close(struct wire_peer *p)
{
	for (size_t i = 0; i < WIRE_LANE_COUNT; i++)
		if (p->lanes[i].out)
			wire_outlet_close(p->lanes[i].out);
	free(p);
}

static int outlet_open(struct wire_link *l, struct wire_peer_lane *lane, bool early, struct wire_err *err)
{
	struct wire_outlet_opts o = { .url = lane->peer->url,
		                      .queue_max_bytes = l->opts.queue_max_bytes,
		                      .early = early,
		                      .ctx = lane,
		                      .greeting = peer_greeting,
		                      .packet = wire_link_on_answer,
		                      .changed = peer_changed };
	return wire_outlet_open(&o, &lane->out, err);
}

static bool room_locked(struct wire_link *l)
{
	if (l->n_peers < l->cap_peers)
		return true;
	size_t cap = l->cap_peers ? l->cap_peers * 2 : 16;
	struct wire_peer **v = realloc(l->peers, cap * sizeof(struct wire_peer *));
	if (!v)
		return false;
	l->peers = v;
	l->cap_peers = cap;
	return true;
}

int wire_peer_add(struct wire_link *l, uint64_t id, const char *url, bool guest, struct wire_err *err)
{
	struct wire_peer *p = calloc(1, sizeof(*p));
	if (!p)
		return wire_fail(err, WIRE_NOMEM, "no memory for the peer %s", url);
	p->link = l;
	p->id = id;
	atomic_store(&p->guest, guest);
	atomic_store(&p->heard_ns, wire_link_now_ns());
	snprintf(p->url, sizeof(p->url), "%s", url);
	int rc = WIRE_OK;
	for (int i = 0; i < WIRE_LANE_COUNT && rc == WIRE_OK; i++) {
		p->lanes[i].peer = p;
		p->lanes[i].no = (enum wire_lane)i;
		rc = outlet_open(l, &p->lanes[i], guest, err);
	}
	pthread_mutex_lock(&l->table);
	struct wire_peer *old = rc == WIRE_OK ? wire_peer_find_locked(l, id) : NULL;
	if (rc == WIRE_OK && !room_locked(l))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for the peer %s", url);
	if (rc == WIRE_OK && old && !guest)
		wire_peer_bury_locked(l, old);
	if (rc == WIRE_OK && (!old || !guest)) {
		l->peers[l->n_peers++] = p;
		atomic_store(&p->live, true);
	} else {
		wire_peer_bury_locked(l, p);
	}
	/* Events that came before it was live are made up for by the thread. */
	l->wake_due = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->table);
	return rc;
}

int wire_link_add_peer(struct wire_link *l, uint64_t peer, const char *url, struct wire_err *err)
{
	int rc = wire_url_check(url, NULL, err);
	if (rc)
		return rc;
	if (peer == 0 || peer == l->opts.self)
		return wire_fail(err, WIRE_INVALID, "peer %s cannot have the id %" PRIu64 "%s", url, peer,
		                 peer ? ", which is this node's own" : "");
	pthread_mutex_lock(&l->table);
	struct wire_peer *p = wire_peer_find_locked(l, peer);
	bool same = p && strcmp(p->url, url) == 0;
	if (same && atomic_exchange(&p->guest, false)) {
		atomic_store(&p->heard_ns, wire_link_now_ns());
		l->wake_due = true;
		pthread_cond_signal(&l->wake);
	}
	pthread_mutex_unlock(&l->table);
	return same ? WIRE_OK : wire_peer_add(l, peer, url, false, err);
}

void wire_link_remove_peer(struct wire_link *l, uint64_t peer)
{
	pthread_mutex_lock(&l->table);
	struct wire_peer *p = wire_peer_find_locked(l, peer);
	if (p && wire_link_greeted_locked(l, peer)) {
		atomic_store(&p->anew, true);
		atomic_store(&p->guest, true);
	} else if (p) {
		wire_peer_bury_locked(l, p);
	}
	pthread_mutex_unlock(&l->table);
}

bool wire_link_is_up(struct wire_link *l, uint64_t peer)
{
	struct wire_peer *p = wire_peer_use(l, peer);
	bool up = p && peer_up(p);
	if (p)
		wire_peer_unuse(p);
	return up;
}

int wire_link_send(struct wire_link *l, uint64_t peer, enum wire_lane lane, const struct wire_msg *m)
{
	if (lane >= WIRE_LANE_COUNT)
		return WIRE_INVALID;
	struct wire_peer *p = wire_peer_use(l, peer);
	if (!p)
		return WIRE_CLOSED;
	struct wire_outlet *out = p->lanes[lane].out;
	int rc = WIRE_CLOSED;
	if (wire_outlet_takes(out)) {
		struct wire_msg mine = *m;
		mine.from = l->opts.self;
		struct wire_packet *packet = wire_link_packet(&mine, &rc);
		if (packet && (rc = wire_outlet_send(out, packet)) != WIRE_OK)
			wire_packet_free(packet);
	}
	wire_peer_unuse(p);
	return rc;
}

void wire_link_msg_free(struct wire_link_msg *m)
{
	if (!m)
		return;
	wire_packet_free(m->impl);
	free(m->msg.entries);
	free(m);
}

static bool of_other_cluster(const struct wire_conn *c, const void *arg)
{
	const uint64_t *cluster = arg;
	return c->greeted && c->cluster != 0 && c->cluster != *cluster;
}

void wire_link_set_cluster(struct wire_link *l, uint64_t cluster)
{
	atomic_store(&l->grace_ns, wire_link_now_ns());
	atomic_store(&l->cluster, cluster);
	pthread_mutex_lock(&l->table);
	for (size_t i = 0; i < l->n_peers; i++)
		for (int k = 0; k < WIRE_LANE_COUNT; k++)
			wire_outlet_greet_again(l->peers[i]->lanes[k].out);
	pthread_mutex_unlock(&l->table);
	for (uint32_t id = 1; id && cluster;) {
		pthread_mutex_lock(&l->table);
		id = wire_conns_take(&l->conns, of_other_cluster, &cluster);
		pthread_mutex_unlock(&l->table);
		if (id)
			wire_inlet_drop(l->inlet, id);
	}
}

static void link_free(struct wire_link *l)
{
	wire_conns_free(&l->conns);
	free(l->peers);
	free(l->scratch);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->tell);
	pthread_mutex_destroy(&l->ask);
	pthread_mutex_destroy(&l->table);
	free(l);
}

static int start(struct wire_link *l, struct wire_err *err)
{
	struct wire_inlet_opts o = { .url = l->url,
		                     .packet_max_bytes = STRANGER_MAX_BYTES,
		                     .ctx = l,
		                     .opened = wire_link_on_opened,
		                     .closed = wire_link_on_closed,
		                     .packet = wire_link_on_packet,
		                     .sent = wire_link_on_sent };
	int rc = wire_nng_hold(l->url, err);
	if (rc)
		return rc;
	rc = wire_inlet_open(&o, &l->inlet, err);
	if (rc) {
		wire_nng_release();
		return rc;
	}
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int sys = pthread_create(&l->thread, NULL, wire_link_watch, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (sys) {
		wire_inlet_close(l->inlet);
		wire_nng_release();
		return wire_fail_errno(err, sys, "cannot start a thread for %s", l->url);
	}
	return WIRE_OK;
}

int wire_link_open(const struct wire_link_opts *opts, struct wire_link **ret_link, struct wire_err *err)
{
	int rc = wire_url_check(opts->listen_url, NULL, err);
	if (rc)
		return rc;
	if (!opts->self || !opts->on_msg || !opts->on_peer || !opts->on_refused)
		return wire_fail(err, WIRE_INVALID, "a link needs a node id other than 0, and all callbacks");
	struct wire_link *l = calloc(1, sizeof(*l));
	if (!l)
		return wire_fail(err, WIRE_NOMEM, "no memory to listen on %s", opts->listen_url);
	l->opts = *opts;
	snprintf(l->url, sizeof(l->url), "%s", opts->listen_url);
	l->opts.listen_url = l->url;
	if (!l->opts.queue_max_bytes)
		l->opts.queue_max_bytes = QUEUE_MAX_BYTES;
	l->silence_ns = (uint64_t)(opts->silence_ms ? opts->silence_ms : SILENCE_MS) * WIRE_LINK_MS;
	atomic_store(&l->cluster, opts->cluster);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&l->tell, NULL);
	pthread_mutex_init(&l->table, NULL);
	pthread_mutex_init(&l->ask, NULL);
	rc = start(l, err);
	if (rc) {
		link_free(l);
		return rc;
	}
	*ret_link = l;
	return WIRE_OK;
}

void wire_link_close(struct wire_link *l)
{
	if (!l || wire_nng_lost())
		return;
	atomic_store(&l->closing, true);
	pthread_mutex_lock(&l->table);
	l->stop = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->table);
	pthread_join(l->thread, NULL);
	wire_inlet_close(l->inlet);
	for (size_t i = 0; i < l->n_peers; i++)
		wire_peer_close(l->peers[i]);
	for (struct wire_peer *p; (p = l->dead);) {
		l->dead = p->next_dead;
		wire_peer_close(p);
	}
	link_free(l);
	wire_nng_release();
}
