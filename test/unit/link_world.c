/* Nodes for the tests of links. */
#include "test/unit/link_world.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

uint64_t link_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct timespec link_in_ms(uint64_t ms)
{
	uint64_t at = link_now_ns() + ms * 1000000u;
	return (struct timespec){ .tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u) };
}

/* Below the ports that the kernel gives to outgoing connections, of which there are many here and in other tests. */
void link_free_url(char *dst, size_t cap)
{
	enum { FIRST = 10000, PORTS = 22000 };
	static atomic_uint tried;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int port, rc;
	do {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		port = FIRST + (int)(((unsigned)getpid() * 89 + atomic_fetch_add(&tried, 1)) % PORTS);
		a.sin_port = htons((uint16_t)port);
		rc = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof(a));
		if (fd < 0 || (rc && errno != EADDRINUSE))
			abort();
		close(fd);
	} while (rc);
	snprintf(dst, cap, "tcp://127.0.0.1:%d", port);
}

static void on_msg(void *ctx, struct wire_link_msg *m)
{
	struct link_node *n = ctx;
	pthread_mutex_lock(&n->lock);
	if (n->counting) {
		uint64_t *seen = &n->seen[m->msg.group][m->msg.from];
		if (m->msg.corr != *seen + 1)
			n->disorder = true;
		*seen = m->msg.corr;
		wire_link_msg_free(m);
	} else {
		m->next = NULL;
		*n->last = m;
		n->last = &m->next;
	}
	pthread_cond_broadcast(&n->news);
	pthread_mutex_unlock(&n->lock);
}

static void on_peer(void *ctx, uint64_t peer, bool up)
{
	struct link_node *n = ctx;
	pthread_mutex_lock(&n->lock);
	if (n->n_events < EVENTS_MAX)
		n->events[n->n_events++] = (struct event){ peer, up };
	pthread_cond_broadcast(&n->news);
	pthread_mutex_unlock(&n->lock);
}

static void on_refused(void *ctx, uint64_t peer, const char *why)
{
	struct link_node *n = ctx;
	pthread_mutex_lock(&n->lock);
	n->n_refused++;
	n->refused_peer = peer;
	snprintf(n->refused, sizeof(n->refused), "%s", why);
	pthread_cond_broadcast(&n->news);
	pthread_mutex_unlock(&n->lock);
}

struct wire_link_opts link_options(struct link_node *n, uint64_t id, uint64_t cluster)
{
	return (struct wire_link_opts){ .listen_url = n->url,
		                        .cluster = cluster,
		                        .self = id,
		                        .silence_ms = 60000,
		                        .ctx = n,
		                        .on_msg = on_msg,
		                        .on_peer = on_peer,
		                        .on_refused = on_refused };
}

void link_init_node(struct link_node *n)
{
	memset(n, 0, sizeof(*n));
	n->last = &n->first;
	pthread_mutex_init(&n->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&n->news, &attr);
	pthread_condattr_destroy(&attr);
	link_free_url(n->url, sizeof(n->url));
}

void link_open_node(struct link_node *n, uint64_t id, uint64_t cluster)
{
	link_init_node(n);
	struct wire_link_opts o = link_options(n, id, cluster);
	struct wire_err err = { 0 };
	if (wire_link_open(&o, &n->link, &err))
		fail_msg("%s", err.text);
}

void link_close_node(struct link_node *n)
{
	wire_link_close(n->link);
	while (n->first) {
		struct wire_link_msg *m = n->first;
		n->first = m->next;
		wire_link_msg_free(m);
	}
	pthread_cond_destroy(&n->news);
	pthread_mutex_destroy(&n->lock);
}

void link_add(struct link_node *n, uint64_t id, const char *url)
{
	struct wire_err err = { 0 };
	if (wire_link_add_peer(n->link, id, url, &err))
		fail_msg("%s", err.text);
}

struct wire_link_msg *link_take(struct link_node *n, uint64_t ms)
{
	struct timespec t = link_in_ms(ms);
	int rc = 0;
	pthread_mutex_lock(&n->lock);
	while (!n->first && rc == 0)
		rc = pthread_cond_timedwait(&n->news, &n->lock, &t);
	struct wire_link_msg *m = n->first;
	if (m && !(n->first = m->next))
		n->last = &n->first;
	pthread_mutex_unlock(&n->lock);
	return m;
}

size_t link_count(const struct link_node *n, uint64_t peer, bool up)
{
	size_t k = 0;
	for (size_t i = 0; i < n->n_events; i++)
		k += n->events[i].peer == peer && n->events[i].up == up;
	return k;
}

void link_check_alternating(const struct link_node *n, uint64_t peer)
{
	bool up = false;
	for (size_t i = 0; i < n->n_events; i++) {
		if (n->events[i].peer != peer)
			continue;
		assert_true(n->events[i].up == !up);
		up = n->events[i].up;
	}
}

void link_send_all(struct link_node *n, uint64_t peer, enum wire_lane lane, const struct wire_msg *m)
{
	int rc;
	while ((rc = wire_link_send(n->link, peer, lane, m)) == WIRE_BUSY)
		sched_yield();
	assert_int_equal(rc, WIRE_OK);
}

void link_connect_nodes(struct link_node *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n; k++)
			if (i != k)
				link_add(&v[i], k + 1, v[k].url);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n; k++)
			if (i != k) {
				LINK_WAIT(&v[i], link_count(&v[i], k + 1, true) == 1);
				for (int lane = 0; lane < WIRE_LANE_COUNT; lane++) {
					struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .corr = 0 };
					LINK_POLL(wire_link_send(v[i].link, k + 1, (enum wire_lane)lane, &m) ==
					          WIRE_OK);
				}
			}
}

void link_drain(struct link_node *n, size_t messages)
{
	for (size_t i = 0; i < messages; i++) {
		struct wire_link_msg *m = link_take(n, DEADLINE_MS);
		assert_non_null(m);
		wire_link_msg_free(m);
	}
}
