/* Nodes for the tests of links: an inbox, and a record of events, each. */
#ifndef TEST_LINK_WORLD_H
#define TEST_LINK_WORLD_H

#include "wire/link.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { EVENTS_MAX = 256, DEADLINE_MS = 20000, CLUSTER = 4711 };

struct event {
	uint64_t peer;
	bool up;
};

struct link_node {
	struct wire_link *link;
	char url[64];
	pthread_mutex_t lock;
	pthread_cond_t news;
	struct wire_link_msg *first, **last;
	struct event events[EVENTS_MAX];
	size_t n_events, n_refused;
	uint64_t refused_peer;
	char refused[512];
	uint64_t seen[WIRE_LANE_COUNT][8]; /* [group][from]: messages of a lane come as corr 1, 2, 3 ... */
	bool counting, disorder;
};

uint64_t link_now_ns(void);
struct timespec link_in_ms(uint64_t ms); /* of CLOCK_MONOTONIC, for the condition `news` */
void link_free_url(char *dst, size_t cap);
/* What a node is opened with: a long silence, and events that go to the node. */
struct wire_link_opts link_options(struct link_node *n, uint64_t id, uint64_t cluster);
void link_init_node(struct link_node *n); /* everything but the link */
void link_open_node(struct link_node *n, uint64_t id, uint64_t cluster);
void link_close_node(struct link_node *n);
void link_add(struct link_node *n, uint64_t id, const char *url);
struct wire_link_msg *link_take(struct link_node *n, uint64_t ms); /* the next message, or NULL at the deadline */
void link_drain(struct link_node *n, size_t messages);
size_t link_count(const struct link_node *n, uint64_t peer, bool up); /* events; in LINK_WAIT or when all is quiet */
void link_check_alternating(const struct link_node *n, uint64_t peer);
void link_send_all(struct link_node *n, uint64_t peer, enum wire_lane lane,
                   const struct wire_msg *m); /* in spite of BUSY */
/* Introduces all to all, ids 1, 2 ..., and waits until all lanes work; each gets a HEARTBEAT per peer and lane. */
void link_connect_nodes(struct link_node *v, size_t n);

/* Waits until the condition, which is evaluated with the node's lock held, is true. */
#define LINK_WAIT(n, cond)                                                                                             \
	do {                                                                                                           \
		struct timespec until_ = link_in_ms(DEADLINE_MS);                                                      \
		int rc_ = 0;                                                                                           \
		pthread_mutex_lock(&(n)->lock);                                                                        \
		while (!(cond) && rc_ == 0)                                                                            \
			rc_ = pthread_cond_timedwait(&(n)->news, &(n)->lock, &until_);                                 \
		bool ok_ = (cond);                                                                                     \
		pthread_mutex_unlock(&(n)->lock);                                                                      \
		if (!ok_)                                                                                              \
			fail_msg("no '%s' within %d ms", #cond, DEADLINE_MS);                                          \
	} while (0)

/* The same for what no callback tells. */
#define LINK_POLL(cond)                                                                                                \
	do {                                                                                                           \
		uint64_t end_ = link_now_ns() + DEADLINE_MS * 1000000ull;                                              \
		bool ok_;                                                                                              \
		while (!(ok_ = (cond)) && link_now_ns() < end_)                                                        \
			sched_yield();                                                                                 \
		if (!ok_)                                                                                              \
			fail_msg("no '%s' within %d ms", #cond, DEADLINE_MS);                                          \
	} while (0)

#endif
