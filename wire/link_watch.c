/* The link's thread: redials, closes what was taken out of the table, notices silence. */
#include "wire/link_impl.h"
#include <stdlib.h>
#include <time.h>

enum { TICK_MIN_MS = 5, TICK_MAX_MS = 50 };

static const uint64_t GUEST_IDLE_NS =
        3000ull * WIRE_LINK_MS; /* a guest is forgotten that long after its last connection */

static bool of_peer(const struct wire_conn *c, const void *arg)
{
	return c->greeted && c->peer == ((const struct wire_peer *)arg)->id;
}

static bool overdue(const struct wire_conn *c, const void *arg)
{
	if (c->asker)
		return *(const uint64_t *)arg > c->since_ns + WIRE_ASKER_IDLE_NS;
	return !c->greeted && *(const uint64_t *)arg > c->since_ns + (c->refused ? WIRE_REFUSED_NS : WIRE_UNGREETED_NS);
}

static void drop_all(struct wire_link *l, bool (*pick)(const struct wire_conn *, const void *), const void *arg)
{
	uint32_t id;
	do {
		pthread_mutex_lock(&l->table);
		id = wire_conns_take(&l->conns, pick, arg);
		pthread_mutex_unlock(&l->table);
		if (id)
			wire_inlet_drop(l->inlet, id);
	} while (id);
}

/* Copies the table into scratch and counts as a user of each; without memory for that, the next round does it. */
static size_t snapshot(struct wire_link *l)
{
	pthread_mutex_lock(&l->table);
	if (l->cap_scratch < l->n_peers) {
		struct wire_peer **v = realloc(l->scratch, l->cap_peers * sizeof(struct wire_peer *));
		if (v) {
			l->scratch = v;
			l->cap_scratch = l->cap_peers;
		}
	}
	size_t n = l->cap_scratch < l->n_peers ? 0 : l->n_peers;
	for (size_t i = 0; i < n; i++) {
		l->scratch[i] = l->peers[i];
		atomic_fetch_add(&l->scratch[i]->users, 1);
	}
	pthread_mutex_unlock(&l->table);
	return n;
}

static void check_silence(struct wire_link *l, struct wire_peer *p, uint64_t now)
{
	uint64_t last = atomic_load(&p->heard_ns), grace = atomic_load(&l->grace_ns);
	if (grace > last)
		last = grace;
	bool connected = false;
	for (int i = 0; i < WIRE_LANE_COUNT; i++) {
		uint64_t since = wire_outlet_since_ns(p->lanes[i].out);
		connected = connected || since;
		if (since > last)
			last = since;
	}
	if (!connected || now <= last + l->silence_ns)
		return;
	for (int i = 0; i < WIRE_LANE_COUNT; i++)
		wire_outlet_reset(p->lanes[i].out);
	drop_all(l, of_peer, p);
}

static void check_guest(struct wire_link *l, struct wire_peer *p, uint64_t now)
{
	pthread_mutex_lock(&l->table);
	bool here = false;
	for (size_t i = 0; i < l->conns.len && !here; i++)
		here = of_peer(&l->conns.v[i], p);
	if (here)
		atomic_store(&p->heard_ns, now);
	else if (now > atomic_load(&p->heard_ns) + GUEST_IDLE_NS && atomic_load(&p->live) && atomic_load(&p->guest))
		wire_peer_bury_locked(l, p);
	pthread_mutex_unlock(&l->table);
}

static void look_after_peers(struct wire_link *l, uint64_t now)
{
	size_t n = snapshot(l);
	for (size_t i = 0; i < n; i++) {
		struct wire_peer *p = l->scratch[i];
		for (int k = 0; k < WIRE_LANE_COUNT; k++)
			wire_outlet_tick(p->lanes[k].out, now);
		if (atomic_load(&p->guest))
			check_guest(l, p, now);
		else if (atomic_load(&l->cluster) != 0)
			check_silence(l, p, now);
		wire_peer_tell(p);
		wire_peer_unuse(p);
	}
}

static void close_dead(struct wire_link *l)
{
	struct wire_peer *ready = NULL;
	pthread_mutex_lock(&l->table);
	for (struct wire_peer **at = &l->dead; *at;) {
		struct wire_peer *p = *at;
		if (atomic_load(&p->users) == 0) {
			*at = p->next_dead;
			p->next_dead = ready;
			ready = p;
		} else {
			at = &p->next_dead;
		}
	}
	pthread_mutex_unlock(&l->table);
	for (struct wire_peer *p; (p = ready);) {
		ready = p->next_dead;
		wire_peer_close(p);
	}
}

static uint64_t tick_ns(const struct wire_link *l)
{
	uint64_t ms = l->silence_ns / WIRE_LINK_MS / 10;
	return (ms < TICK_MIN_MS ? TICK_MIN_MS : ms > TICK_MAX_MS ? TICK_MAX_MS : ms) * WIRE_LINK_MS;
}

static bool wait_for_tick(struct wire_link *l)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	uint64_t at = (uint64_t)t.tv_nsec + tick_ns(l);
	t.tv_sec += (time_t)(at / 1000000000u);
	t.tv_nsec = (long)(at % 1000000000u);
	pthread_mutex_lock(&l->table);
	int rc = 0;
	while (!l->stop && !l->wake_due && rc == 0)
		rc = pthread_cond_timedwait(&l->wake, &l->table, &t);
	l->wake_due = false;
	bool go_on = !l->stop;
	pthread_mutex_unlock(&l->table);
	return go_on;
}

void *wire_link_watch(void *arg)
{
	struct wire_link *l = arg;
	pthread_setname_np(pthread_self(), "walraft:link");
	uint64_t before = wire_link_now_ns();
	while (wait_for_tick(l)) {
		uint64_t now = wire_link_now_ns();
		/* After we were stopped ourselves, what the peers sent meanwhile is still unread: they are not silent.
		 */
		if (now - before > tick_ns(l) + l->silence_ns / 2)
			atomic_store(&l->grace_ns, now);
		before = now;
		wire_inlet_tick(l->inlet);
		close_dead(l);
		look_after_peers(l, now);
		drop_all(l, overdue, &now);
	}
	return NULL;
}
