/* Links between nodes of one process, a second process that can be stopped, and raw sockets that misbehave. */
#include "wire/hash.h"
#include "wire/link.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* nng counts references with atomics that ThreadSanitizer does not see in a library that it did not build. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
	return "race_top:pthread_mutex_destroy\n";
}

enum { EVENTS_MAX = 256, DEADLINE_MS = 20000, CLUSTER = 4711, CHILD_ID = 90, CHILD_PEER_ID = 91 };

struct event {
	uint64_t peer;
	bool up;
};

struct node {
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

static uint64_t now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct timespec in_ms(uint64_t ms) {
	uint64_t at = now_ns() + ms * 1000000u;
	return (struct timespec){ .tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u) };
}

static void free_url(char *dst, size_t cap) {
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) || getsockname(fd, (struct sockaddr *)&a, &n))
		abort();
	close(fd);
	snprintf(dst, cap, "tcp://127.0.0.1:%d", ntohs(a.sin_port));
}

static void on_msg(void *ctx, struct wire_link_msg *m) {
	struct node *n = ctx;
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

static void on_peer(void *ctx, uint64_t peer, bool up) {
	struct node *n = ctx;
	pthread_mutex_lock(&n->lock);
	if (n->n_events < EVENTS_MAX)
		n->events[n->n_events++] = (struct event){ peer, up };
	pthread_cond_broadcast(&n->news);
	pthread_mutex_unlock(&n->lock);
}

static void on_refused(void *ctx, uint64_t peer, const char *why) {
	struct node *n = ctx;
	pthread_mutex_lock(&n->lock);
	n->n_refused++;
	n->refused_peer = peer;
	snprintf(n->refused, sizeof(n->refused), "%s", why);
	pthread_cond_broadcast(&n->news);
	pthread_mutex_unlock(&n->lock);
}

static struct wire_link_opts options(struct node *n, uint64_t id, uint64_t cluster) {
	return (struct wire_link_opts){ .listen_url = n->url,
		                        .cluster = cluster,
		                        .self = id,
		                        .silence_ms = 60000,
		                        .ctx = n,
		                        .on_msg = on_msg,
		                        .on_peer = on_peer,
		                        .on_refused = on_refused };
}

static void init(struct node *n) {
	memset(n, 0, sizeof(*n));
	n->last = &n->first;
	pthread_mutex_init(&n->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&n->news, &attr);
	pthread_condattr_destroy(&attr);
	free_url(n->url, sizeof(n->url));
}

static void open_node(struct node *n, uint64_t id, uint64_t cluster) {
	init(n);
	struct wire_link_opts o = options(n, id, cluster);
	struct wire_err err = { 0 };
	if (wire_link_open(&o, &n->link, &err))
		fail_msg("%s", err.text);
}

static void close_node(struct node *n) {
	wire_link_close(n->link);
	while (n->first) {
		struct wire_link_msg *m = n->first;
		n->first = m->next;
		wire_link_msg_free(m);
	}
	pthread_cond_destroy(&n->news);
	pthread_mutex_destroy(&n->lock);
}

static void add(struct node *n, uint64_t id, const char *url) {
	struct wire_err err = { 0 };
	if (wire_link_add_peer(n->link, id, url, &err))
		fail_msg("%s", err.text);
}

/* The next message, or NULL at the deadline. */
static struct wire_link_msg *take(struct node *n, uint64_t ms) {
	struct timespec t = in_ms(ms);
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

/* Waits until the condition, which is evaluated with the node's lock held, is true. */
#define WAIT(n, cond)                                                                                                  \
	do {                                                                                                           \
		struct timespec until_ = in_ms(DEADLINE_MS);                                                           \
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
#define POLL(cond)                                                                                                     \
	do {                                                                                                           \
		uint64_t end_ = now_ns() + DEADLINE_MS * 1000000ull;                                                   \
		bool ok_;                                                                                              \
		while (!(ok_ = (cond)) && now_ns() < end_)                                                             \
			sched_yield();                                                                                 \
		if (!ok_)                                                                                              \
			fail_msg("no '%s' within %d ms", #cond, DEADLINE_MS);                                          \
	} while (0)

static size_t count(const struct node *n, uint64_t peer, bool up) {
	size_t k = 0;
	for (size_t i = 0; i < n->n_events; i++)
		k += n->events[i].peer == peer && n->events[i].up == up;
	return k;
}

static void check_alternating(const struct node *n, uint64_t peer) {
	bool up = false;
	for (size_t i = 0; i < n->n_events; i++) {
		if (n->events[i].peer != peer)
			continue;
		assert_true(n->events[i].up == !up);
		up = n->events[i].up;
	}
}

static void send_all(struct node *n, uint64_t peer, enum wire_lane lane, const struct wire_msg *m) {
	int rc;
	while ((rc = wire_link_send(n->link, peer, lane, m)) == WIRE_BUSY)
		sched_yield();
	assert_int_equal(rc, WIRE_OK);
}

static void connect_nodes(struct node *v, size_t n) {
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n; k++)
			if (i != k)
				add(&v[i], k + 1, v[k].url);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n; k++)
			if (i != k) {
				WAIT(&v[i], count(&v[i], k + 1, true) == 1);
				for (int lane = 0; lane < WIRE_LANE_COUNT; lane++) {
					struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .corr = 0 };
					POLL(wire_link_send(v[i].link, k + 1, (enum wire_lane)lane, &m) == WIRE_OK);
				}
			}
}

static void drain(struct node *n, size_t messages) {
	for (size_t i = 0; i < messages; i++) {
		struct wire_link_msg *m = take(n, DEADLINE_MS);
		assert_non_null(m);
		wire_link_msg_free(m);
	}
}

static void count_only(struct node *n) {
	pthread_mutex_lock(&n->lock);
	n->counting = true;
	pthread_mutex_unlock(&n->lock);
}

static void order_per_lane(struct node *v, size_t nodes, uint64_t messages) {
	for (size_t i = 0; i < nodes; i++)
		open_node(&v[i], i + 1, CLUSTER);
	connect_nodes(v, nodes);
	for (size_t i = 0; i < nodes; i++) {
		drain(&v[i], (nodes - 1) * WIRE_LANE_COUNT);
		count_only(&v[i]);
	}
	struct wire_msg m = { .type = WIRE_MSG_APPEND_RESP };
	for (uint64_t k = 1; k <= messages; k++)
		for (size_t i = 0; i < nodes; i++)
			for (size_t to = 0; to < nodes; to++)
				for (int lane = 0; lane < WIRE_LANE_COUNT && i != to; lane++) {
					m.group = (uint64_t)lane;
					m.corr = k;
					send_all(&v[i], to + 1, (enum wire_lane)lane, &m);
				}
	for (size_t i = 0; i < nodes; i++)
		for (size_t from = 0; from < nodes; from++)
			for (int lane = 0; lane < WIRE_LANE_COUNT && i != from; lane++)
				WAIT(&v[i], v[i].seen[lane][from + 1] == messages);
	for (size_t i = 0; i < nodes; i++) {
		assert_false(v[i].disorder);
		assert_int_equal(v[i].n_events, nodes - 1);
	}
	for (size_t i = 0; i < nodes; i++)
		close_node(&v[i]);
}

static void order_of_two(void **state) {
	(void)state;
	static struct node v[2];
	order_per_lane(v, 2, 20000);
}

static void order_of_three(void **state) {
	(void)state;
	static struct node v[3];
	order_per_lane(v, 3, 2000);
}

static void big_message(void **state) {
	(void)state;
	static struct node v[2];
	uint8_t *data = malloc(WIRE_ENTRY_MAX);
	assert_non_null(data);
	for (size_t i = 0; i < WIRE_ENTRY_MAX; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	open_node(&v[0], 1, CLUSTER);
	open_node(&v[1], 2, CLUSTER);
	connect_nodes(v, 2);
	drain(&v[1], WIRE_LANE_COUNT);
	struct wire_entry e = { .term = 3,
		                .kind = WIRE_ENTRY_DATA,
		                .size = WIRE_ENTRY_MAX,
		                .sum = wire_hash(data, WIRE_ENTRY_MAX, 0),
		                .data = data };
	struct wire_msg m = { .type = WIRE_MSG_APPEND, .index = 41, .n_entries = 1, .entries = &e };
	for (int i = 0; i < 4; i++)
		assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_LOG, &m), WIRE_OK);
	for (int i = 0; i < 4; i++) {
		struct wire_link_msg *r = take(&v[1], DEADLINE_MS);
		assert_non_null(r);
		assert_false(r->guest);
		assert_true(r->msg.from == 1 && r->msg.n_entries == 1 && r->msg.entries[0].index == 42);
		assert_memory_equal(r->msg.entries[0].data, data, WIRE_ENTRY_MAX);
		wire_link_msg_free(r);
	}
	struct wire_entry three[3] = { e, e, e };
	m.entries = three;
	m.n_entries = 3;
	assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_LOG, &m), WIRE_TOOBIG);
	close_node(&v[0]);
	close_node(&v[1]);
	free(data);
}

static void other_cluster_is_refused(void **state) {
	(void)state;
	static struct node a, b;
	open_node(&a, 1, CLUSTER);
	open_node(&b, 2, CLUSTER + 1);
	add(&a, 2, b.url);
	WAIT(&a, a.n_refused > 0);
	assert_true(a.refused_peer == 2);
	assert_non_null(strstr(a.refused, "cluster 0000000000001268"));
	assert_non_null(strstr(a.refused, b.url));
	struct wire_msg m = { .type = WIRE_MSG_VOTE_REQ };
	(void)wire_link_send(a.link, 2, WIRE_LANE_CONTROL, &m);
	WAIT(&a, a.n_refused > 1); /* it stays refused, and says so again */
	assert_null(b.first);
	assert_int_equal(b.n_refused, 0);
	close_node(&a);
	close_node(&b);
}

static void other_node_is_refused(void **state) {
	(void)state;
	static struct node a, b;
	open_node(&a, 1, CLUSTER);
	open_node(&b, 2, CLUSTER);
	add(&a, 3, b.url);
	WAIT(&a, a.n_refused > 0);
	assert_non_null(strstr(a.refused, "node 2"));
	struct wire_err err;
	assert_int_equal(wire_link_add_peer(a.link, 1, b.url, &err), WIRE_INVALID);
	assert_int_equal(wire_link_add_peer(a.link, 0, b.url, &err), WIRE_INVALID);
	assert_int_equal(wire_link_add_peer(a.link, 4, "tcp://nowhere", &err), WIRE_INVALID);
	close_node(&a);
	close_node(&b);
}

/* A connection that says what it likes. */
static int raw_open(const char *url) {
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	a.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void raw_send(int fd, const void *p, size_t n) {
	assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), n);
}

static bool raw_closed(int fd, int ms) {
	char c;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	while (poll(&p, 1, ms) > 0)
		if (recv(fd, &c, 1, 0) <= 0)
			return true;
	return false;
}

static bool raw_read(int fd, void *dst, size_t n) {
	struct pollfd p = { .fd = fd, .events = POLLIN };
	return poll(&p, 1, DEADLINE_MS) > 0 && recv(fd, dst, n, MSG_WAITALL) == (ssize_t)n;
}

/* The length before a packet. */
static void raw_send_size(int fd, uint32_t n) {
	uint8_t prefix[4];
	wire_set_le32(prefix, n);
	raw_send(fd, prefix, sizeof(prefix));
}

static void raw_send_msg(int fd, const struct wire_msg *m, int version) {
	struct wire_buf b = WIRE_BUF_INIT;
	assert_int_equal(wire_msg_encode(m, &b, NULL), WIRE_OK);
	b.data[0] = (uint8_t)version;
	wire_set_le64(b.data + b.len - 8, wire_hash(b.data, b.len - 8, (uint64_t)version));
	raw_send_size(fd, (uint32_t)b.len);
	raw_send(fd, b.data, b.len);
	wire_buf_free(&b);
}

static void other_version_is_refused(void **state) {
	(void)state;
	static struct node a;
	uint8_t bytes[4096];
	open_node(&a, 1, CLUSTER);
	int fd = raw_open(a.url);
	struct wire_msg m = { .type = WIRE_MSG_HELLO, .from = 7, .to = 1, .term = CLUSTER, .corr = 99 }, reply;
	snprintf(m.text, sizeof(m.text), "tcp://127.0.0.1:9");
	raw_send_msg(fd, &m, WIRE_PROTOCOL + 1);
	unsigned version = 0;
	assert_true(raw_read(fd, bytes, 4));
	size_t n = wire_le32(bytes);
	assert_true(n < sizeof(bytes) && raw_read(fd, bytes, n));
	assert_int_equal(wire_msg_decode_hello(bytes, n, &reply, &version, NULL), WIRE_OK);
	assert_true(reply.type == WIRE_MSG_HELLO_REPLY && reply.flags == WIRE_MSG_REJECT);
	assert_true(reply.from == 1 && reply.to == 7 && reply.corr == 99);
	assert_non_null(strstr(reply.text, "protocol version"));
	m.type = WIRE_MSG_VOTE_REQ;
	raw_send_msg(fd, &m, WIRE_PROTOCOL);
	assert_true(raw_closed(fd, DEADLINE_MS));
	assert_null(a.first);
	close(fd);
	close_node(&a);
}

static void take_from(struct node *n, uint64_t from) {
	struct wire_link_msg *m = take(n, DEADLINE_MS);
	assert_non_null(m);
	assert_true(m->msg.from == from);
	wire_link_msg_free(m);
}

static void garbage_is_thrown_out(void **state) {
	(void)state;
	static struct node v[2];
	open_node(&v[0], 1, CLUSTER);
	open_node(&v[1], 2, CLUSTER);
	static const char junk[] = "GET / HTTP/1.1\r\n\r\n";
	struct wire_msg heartbeat = { .type = WIRE_MSG_HEARTBEAT, .from = 3, .to = 1 }, other = heartbeat;
	struct wire_msg hello = { .type = WIRE_MSG_HELLO, .from = 3, .to = 1, .term = CLUSTER, .text = "tcp://127.0.0.1:1" };
	struct wire_msg nowhere = hello;
	other.from = 4;
	strcpy(nowhere.text, "tcp://");
	for (int round = 0; round < 10; round++) {
		int fd = raw_open(v[0].url);
		if (round >= 5) {
			raw_send_msg(fd, &hello, WIRE_PROTOCOL);
			raw_send_msg(fd, &heartbeat, WIRE_PROTOCOL);
			take_from(&v[0], 3);
		}
		switch (round) {
		case 0:
			raw_send(fd, junk, sizeof(junk)); /* its first bytes are far too great a length */
			break;
		case 1:
			raw_send_size(fd, 0);
			break;
		case 2:
			raw_send_size(fd, 5000); /* more than a greeting needs */
			break;
		case 3:
			raw_send_msg(fd, &heartbeat, WIRE_PROTOCOL); /* no greeting */
			break;
		case 4:
			raw_send_msg(fd, &nowhere, WIRE_PROTOCOL);
			break;
		case 5:
			raw_send_size(fd, sizeof(junk));
			raw_send(fd, junk, sizeof(junk));
			break;
		case 6:
			raw_send_msg(fd, &other, WIRE_PROTOCOL); /* in another's name */
			break;
		case 7:
			raw_send_size(fd, WIRE_MSG_MAX + 1);
			break;
		case 8:
			raw_send_msg(fd, &heartbeat, WIRE_PROTOCOL + 1);
			break;
		default:
			raw_send_size(fd, 100000); /* begins a message and dies */
			raw_send(fd, junk, sizeof(junk));
			shutdown(fd, SHUT_WR);
		}
		assert_true(raw_closed(fd, DEADLINE_MS));
		close(fd);
	}
	assert_null(v[0].first);
	connect_nodes(v, 2);
	close_node(&v[0]);
	close_node(&v[1]);
}

static void torn_packets_are_put_together(void **state) {
	(void)state;
	static struct node a;
	static uint8_t data[100000];
	open_node(&a, 1, CLUSTER);
	int fd = raw_open(a.url);
	struct wire_msg hello = { .type = WIRE_MSG_HELLO, .from = 3, .to = 1, .term = CLUSTER, .text = "tcp://127.0.0.1:1" };
	struct wire_buf all = WIRE_BUF_INIT;
	raw_send_msg(fd, &hello, WIRE_PROTOCOL);
	for (uint32_t i = 0; i < 60; i++) {
		struct wire_msg m = { .type = WIRE_MSG_IMAGE_CHUNK, .from = 3, .corr = i, .data = data };
		m.data_len = i % 7 ? i * 13 : i * 1600;
		size_t at = all.len;
		wire_put_u32(&all, 0);
		assert_int_equal(wire_msg_encode(&m, &all, NULL), WIRE_OK);
		wire_set_u32(&all, at, (uint32_t)(all.len - at - 4));
	}
	for (size_t at = 0, n = 1; at < all.len; at += n, n = n * 7 % 4099 + 1) {
		n = n < all.len - at ? n : all.len - at;
		raw_send(fd, all.data + at, n);
	}
	for (uint32_t i = 0; i < 60; i++) {
		struct wire_link_msg *m = take(&a, DEADLINE_MS);
		assert_non_null(m);
		assert_true(m->msg.corr == i && m->msg.data_len == (i % 7 ? i * 13 : i * 1600));
		wire_link_msg_free(m);
	}
	wire_buf_free(&all);
	close(fd);
	close_node(&a);
}

static void silent_strangers_are_bounded(void **state) {
	(void)state;
	static struct node v[2];
	int fds[80];
	open_node(&v[0], 1, CLUSTER);
	open_node(&v[1], 2, CLUSTER);
	for (int i = 0; i < 80; i++)
		fds[i] = raw_open(v[0].url);
	for (int i = 0; i < 16; i++)
		assert_true(raw_closed(fds[i], DEADLINE_MS)); /* the oldest go first */
	assert_false(raw_closed(fds[79], 0));
	connect_nodes(v, 2);
	for (int i = 0; i < 80; i++)
		close(fds[i]);
	close_node(&v[0]);
	close_node(&v[1]);
}

static void guest_joins(void **state) {
	(void)state;
	static struct node a, g;
	open_node(&a, 1, CLUSTER);
	open_node(&g, 77, 0);
	add(&g, 5, a.url); /* a guest knows an address, not whose it is */
	WAIT(&g, count(&g, 5, true) == 1);
	struct wire_msg m = { .type = WIRE_MSG_JOIN_REQ, .corr = 9 };
	assert_int_equal(wire_link_send(g.link, 5, WIRE_LANE_CONTROL, &m), WIRE_OK);
	struct wire_link_msg *r = take(&a, DEADLINE_MS);
	assert_non_null(r);
	assert_true(r->guest && r->msg.type == WIRE_MSG_JOIN_REQ && r->msg.from == 77);
	wire_link_msg_free(r);
	m = (struct wire_msg){ .type = WIRE_MSG_JOIN_RESP, .corr = 9, .term = CLUSTER };
	assert_int_equal(wire_link_send(a.link, 77, WIRE_LANE_CONTROL, &m), WIRE_OK);
	r = take(&g, DEADLINE_MS);
	assert_non_null(r);
	assert_true(!r->guest && r->msg.type == WIRE_MSG_JOIN_RESP && r->msg.from == 1);
	wire_link_msg_free(r);
	assert_int_equal(a.n_events, 0);

	/* On the same connection, a member from now on. */
	wire_link_remove_peer(g.link, 5);
	add(&g, 1, a.url);
	WAIT(&g, count(&g, 1, true) == 1);
	m = (struct wire_msg){ .type = WIRE_MSG_READ_REQ };
	assert_int_equal(wire_link_send(g.link, 1, WIRE_LANE_CONTROL, &m), WIRE_OK);
	wire_link_set_cluster(g.link, CLUSTER);
	assert_int_equal(wire_link_send(g.link, 1, WIRE_LANE_CONTROL, &m), WIRE_OK);
	for (int i = 0; i < 2; i++) {
		r = take(&a, DEADLINE_MS);
		assert_non_null(r);
		assert_int_equal(r->guest, i == 0);
		wire_link_msg_free(r);
	}
	assert_int_equal(g.n_refused, 0);
	add(&a, 77, g.url); /* a guest becomes a peer without a new connection */
	WAIT(&a, count(&a, 77, true) == 1);
	close_node(&g);
	WAIT(&a, count(&a, 77, false) == 1);
	close_node(&a);
}

static void guest_is_forgotten(void **state) {
	(void)state;
	static struct node a, g;
	open_node(&a, 1, CLUSTER);
	open_node(&g, 77, 0);
	add(&g, 5, a.url);
	POLL(wire_link_is_up(a.link, 77));
	close_node(&g);
	/* Until then the guest's queue takes packets, for its return; afterwards nobody of that name is known. */
	struct wire_msg m = { .type = WIRE_MSG_JOIN_RESP };
	POLL(wire_link_send(a.link, 77, WIRE_LANE_CONTROL, &m) == WIRE_CLOSED);
	close_node(&a);
}

static void peer_comes_and_goes(void **state) {
	(void)state;
	static struct node v[2];
	open_node(&v[0], 1, CLUSTER);
	open_node(&v[1], 2, CLUSTER);
	connect_nodes(v, 2);
	assert_true(wire_link_is_up(v[0].link, 2));
	for (size_t round = 1; round <= 3; round++) {
		char url[64];
		memcpy(url, v[1].url, sizeof(url));
		close_node(&v[1]);
		WAIT(&v[0], count(&v[0], 2, false) == round);
		struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .corr = 5 };
		POLL(wire_link_send(v[0].link, 2, WIRE_LANE_CONTROL, &m) == WIRE_CLOSED); /* lanes are lost one by one */
		assert_false(wire_link_is_up(v[0].link, 2));
		init(&v[1]);
		memcpy(v[1].url, url, sizeof(url));
		struct wire_link_opts o = options(&v[1], 2, CLUSTER);
		struct wire_err err = { 0 };
		if (wire_link_open(&o, &v[1].link, &err))
			fail_msg("%s", err.text);
		WAIT(&v[0], count(&v[0], 2, true) == round + 1);
		assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_CONTROL, &m), WIRE_OK);
		struct wire_link_msg *r = take(&v[1], DEADLINE_MS);
		assert_non_null(r);
		assert_true(r->msg.corr == 5);
		wire_link_msg_free(r);
	}
	check_alternating(&v[0], 2);
	wire_link_remove_peer(v[0].link, 2);
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT };
	assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_CONTROL, &m), WIRE_CLOSED);
	close_node(&v[0]);
	close_node(&v[1]);
}

/* A peer that welcomes everyone and then reads nothing. */
static void *mute_server(void *arg) {
	struct wire_msg m = { .type = WIRE_MSG_HELLO_REPLY, .from = 2, .to = 1, .term = CLUSTER };
	int listener = *(int *)arg;
	for (int i = 0; i < WIRE_LANE_COUNT; i++) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			abort();
		raw_send_msg(fd, &m, WIRE_PROTOCOL);
	}
	return NULL;
}

static void full_queue_is_busy(void **state) {
	(void)state;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(listener, 8), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	pthread_t server;
	assert_int_equal(pthread_create(&server, NULL, mute_server, &listener), 0);
	static struct node n;
	init(&n);
	struct wire_link_opts o = options(&n, 1, CLUSTER);
	o.queue_max_bytes = 1 << 20;
	assert_int_equal(wire_link_open(&o, &n.link, NULL), WIRE_OK);
	char url[64];
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", ntohs(a.sin_port));
	add(&n, 2, url);
	WAIT(&n, count(&n, 2, true) == 1);
	uint8_t *data = calloc(1, 100000);
	assert_non_null(data);
	struct wire_msg m = { .type = WIRE_MSG_IMAGE_CHUNK, .data = data, .data_len = 100000 };
	int rc = WIRE_OK, sent = 0;
	for (; sent < 1000 && rc == WIRE_OK; sent++)
		rc = wire_link_send(n.link, 2, WIRE_LANE_CONTROL, &m);
	assert_int_equal(rc, WIRE_BUSY);
	assert_true(sent > 10);
	struct wire_msg small = { .type = WIRE_MSG_HEARTBEAT };
	assert_int_equal(wire_link_send(n.link, 2, WIRE_LANE_LOG, &small), WIRE_OK); /* lanes are apart */
	assert_int_equal(n.n_events, 1);
	close_node(&n);
	pthread_join(server, NULL);
	close(listener);
	free(data);
}

static void address_taken(void **state) {
	(void)state;
	static struct node a, b;
	struct wire_err err;
	open_node(&a, 1, CLUSTER);
	init(&b);
	memcpy(b.url, a.url, sizeof(b.url));
	struct wire_link_opts o = options(&b, 2, CLUSTER);
	assert_int_equal(wire_link_open(&o, &b.link, &err), WIRE_BUSY);
	assert_non_null(strstr(err.text, a.url));
	assert_non_null(strstr(err.text, "taken"));
	assert_non_null(strstr(err.text, "ss -ltnp"));
	o.listen_url = "tcp://198.51.100.7:7401"; /* documentation range: not ours */
	assert_int_equal(wire_link_open(&o, &b.link, &err), WIRE_INVALID);
	o.listen_url = "tcp://127.0.0.1";
	assert_int_equal(wire_link_open(&o, &b.link, &err), WIRE_INVALID);
	close_node(&a);
	b.link = NULL;
	close_node(&b);
}

struct sender {
	struct node *node;
	uint64_t peer;
	atomic_bool *stop;
};

static void *send_until_stopped(void *arg) {
	struct sender *s = arg;
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .text = "x" };
	for (unsigned i = 0; !atomic_load(s->stop); i++) {
		(void)wire_link_send(s->node->link, s->peer, (enum wire_lane)(i % WIRE_LANE_COUNT), &m);
		(void)wire_link_is_up(s->node->link, s->peer);
		if (i % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static void changes_under_load(void **state) {
	(void)state;
	static struct node v[2];
	static atomic_bool stop[2];
	pthread_t t[2];
	struct sender s[2] = { { &v[0], 2, &stop[0] }, { &v[1], 1, &stop[1] } };
	open_node(&v[0], 1, CLUSTER);
	open_node(&v[1], 2, CLUSTER);
	connect_nodes(v, 2);
	for (int i = 0; i < 2; i++) {
		drain(&v[i], WIRE_LANE_COUNT);
		count_only(&v[i]); /* the inbox stays empty; the order is not looked at */
		assert_int_equal(pthread_create(&t[i], NULL, send_until_stopped, &s[i]), 0);
	}
	for (size_t round = 0; round < 20; round++) {
		wire_link_remove_peer(v[0].link, 2);
		add(&v[0], 2, v[1].url);
		add(&v[0], 2, v[1].url);
		WAIT(&v[0], count(&v[0], 2, true) == round + 2);
	}
	/* One is closed while the other still sends to it. */
	for (int i = 1; i >= 0; i--) {
		atomic_store(&stop[i], true);
		pthread_join(t[i], NULL);
		close_node(&v[i]);
	}
}

/* The other process: answers READ_REQ, and sends heartbeats every 50 ms otherwise. It is forked before nng is used. */
static pid_t child_pid;
static char child_url[64], child_peer_url[64];

static void child_main(void) {
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	static struct node n;
	init(&n);
	memcpy(n.url, child_url, sizeof(n.url));
	struct wire_link_opts o = options(&n, CHILD_ID, CLUSTER);
	struct wire_err err = { 0 };
	if (wire_link_open(&o, &n.link, &err) || wire_link_add_peer(n.link, CHILD_PEER_ID, child_peer_url, &err)) {
		fprintf(stderr, "# %s\n", err.text);
		_exit(1);
	}
	for (;;) {
		struct wire_link_msg *m = take(&n, 50);
		struct wire_msg out = { .type = m ? WIRE_MSG_READ_RESP : WIRE_MSG_HEARTBEAT };
		if (m) {
			out.corr = m->msg.corr;
			out.data = m->msg.data;
			out.data_len = m->msg.data_len;
		}
		(void)wire_link_send(n.link, CHILD_PEER_ID, WIRE_LANE_CONTROL, &out);
		wire_link_msg_free(m);
	}
}

static void open_child_peer(struct node *n) {
	init(n);
	memcpy(n->url, child_peer_url, sizeof(n->url));
	struct wire_link_opts o = options(n, CHILD_PEER_ID, CLUSTER);
	o.silence_ms = 300;
	struct wire_err err = { 0 };
	if (wire_link_open(&o, &n->link, &err))
		fail_msg("%s", err.text);
	add(n, CHILD_ID, child_url);
	WAIT(n, count(n, CHILD_ID, true) == 1);
}

/* Waits for the answer to a question that may have to be asked again, because a connection may be lost in between. */
static void ask(struct node *n, uint64_t corr, const uint8_t *data, uint32_t len) {
	struct wire_msg m = { .type = WIRE_MSG_READ_REQ, .corr = corr, .data = data, .data_len = len };
	for (uint64_t end = now_ns() + DEADLINE_MS * 1000000ull; now_ns() < end;) {
		uint64_t again = now_ns() + 100 * 1000000ull;
		int rc = wire_link_send(n->link, CHILD_ID, WIRE_LANE_CONTROL, &m);
		do {
			struct wire_link_msg *r = take(n, rc == WIRE_OK ? 100 : 5);
			bool mine = r && r->msg.type == WIRE_MSG_READ_RESP && r->msg.corr == corr;
			wire_link_msg_free(r);
			if (mine)
				return;
		} while (rc == WIRE_OK && now_ns() < again);
	}
	fail_msg("no answer from the other process");
}

static int compare(const void *a, const void *b) {
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void round_trip_time(void **state) {
	(void)state;
	enum { ROUNDS = 3000 };
	static uint64_t t[ROUNDS];
	static uint8_t data[280];
	static struct node n;
	open_child_peer(&n);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t from = now_ns();
		ask(&n, i + 1, data, sizeof(data));
		t[i] = now_ns() - from;
	}
	qsort(t, ROUNDS, sizeof(t[0]), compare);
	printf("# round trip of a 300-byte message between two processes: p50 %.1f us, p99 %.1f us\n",
	       (double)t[ROUNDS / 2] / 1000, (double)t[ROUNDS * 99 / 100] / 1000);
	close_node(&n);
}

static void stopped_peer_is_noticed(void **state) {
	(void)state;
	static struct node n;
	open_child_peer(&n);
	ask(&n, 1, NULL, 0);
	for (size_t round = 1; round <= 2; round++) {
		uint64_t from = now_ns();
		assert_int_equal(kill(child_pid, SIGSTOP), 0);
		WAIT(&n, count(&n, CHILD_ID, false) == round);
		uint64_t silent_ms = (now_ns() - from) / 1000000u;
		assert_int_equal(kill(child_pid, SIGCONT), 0);
		from = now_ns();
		ask(&n, 1000 + round, NULL, 0);
		printf("# stopped peer noticed after %" PRIu64 " ms, back after %" PRIu64 " ms\n", silent_ms,
		       (now_ns() - from) / 1000000u);
		WAIT(&n, count(&n, CHILD_ID, true) >= round + 1);
	}
	check_alternating(&n, CHILD_ID);
	close_node(&n);
}

static void killed_peer_is_noticed(void **state) {
	(void)state;
	static struct node n;
	open_child_peer(&n);
	ask(&n, 1, NULL, 0);
	size_t before = count(&n, CHILD_ID, false);
	uint64_t from = now_ns();
	assert_int_equal(kill(child_pid, SIGKILL), 0);
	WAIT(&n, count(&n, CHILD_ID, false) > before);
	printf("# killed peer noticed after %" PRIu64 " us\n", (now_ns() - from) / 1000u);
	assert_int_equal(waitpid(child_pid, NULL, 0), child_pid);
	close_node(&n);
}

/* How many threads of nng or ours there are; fails when one would take the application's signals. */
static unsigned check_threads(void) {
	char path[64], line[256], name[64] = "";
	unsigned checked = 0;
	DIR *dir = opendir("/proc/self/task");
	assert_non_null(dir);
	for (struct dirent *d; (d = readdir(dir));) {
		int tid = atoi(d->d_name);
		snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
		FILE *f = tid && tid != (int)getpid() ? fopen(path, "r") : NULL;
		while (f && fgets(line, sizeof(line), f)) {
			unsigned long long blocked;
			(void)sscanf(line, "Name: %63[^\n]", name);
			if (sscanf(line, "SigBlk: %llx", &blocked) != 1 || (strncmp(name, "nng:", 4) && strcmp(name, "walraft:link")))
				continue;
			unsigned long long want = 1ull << (SIGTERM - 1) | 1ull << (SIGCHLD - 1); /* they stand for all */
			assert_true((blocked & want) == want);
			checked++;
		}
		if (f)
			fclose(f);
	}
	closedir(dir);
	return checked;
}

static void signals_stay_with_the_host(void **state) {
	(void)state;
	static struct node n;
	open_node(&n, 1, CLUSTER);
	add(&n, 2, "tcp://127.0.0.1:1");
	assert_true(check_threads() > 3);
	close_node(&n);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_stay_with_the_host),
		cmocka_unit_test(order_of_two),
		cmocka_unit_test(order_of_three),
		cmocka_unit_test(big_message),
		cmocka_unit_test(other_cluster_is_refused),
		cmocka_unit_test(other_node_is_refused),
		cmocka_unit_test(other_version_is_refused),
		cmocka_unit_test(garbage_is_thrown_out),
		cmocka_unit_test(torn_packets_are_put_together),
		cmocka_unit_test(silent_strangers_are_bounded),
		cmocka_unit_test(guest_joins),
		cmocka_unit_test(guest_is_forgotten),
		cmocka_unit_test(peer_comes_and_goes),
		cmocka_unit_test(full_queue_is_busy),
		cmocka_unit_test(address_taken),
		cmocka_unit_test(changes_under_load),
		cmocka_unit_test(round_trip_time),
		cmocka_unit_test(stopped_peer_is_noticed),
		cmocka_unit_test(killed_peer_is_noticed),
	};
	free_url(child_url, sizeof(child_url));
	free_url(child_peer_url, sizeof(child_peer_url));
	child_pid = fork();
	if (child_pid == 0)
		child_main();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	kill(child_pid, SIGKILL);
	return rc;
}
