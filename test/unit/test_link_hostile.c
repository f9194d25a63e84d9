/* Links against raw connections that misbehave. */
#include "test/unit/link_world.h"
#include "wire/hash.h"
#include <arpa/inet.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A connection that says what it likes. */
static int raw_open(const char *url)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	a.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void raw_send(int fd, const void *p, size_t n)
{
	assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), n);
}

static bool raw_closed(int fd, int ms)
{
	char c;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	while (poll(&p, 1, ms) > 0)
		if (recv(fd, &c, 1, 0) <= 0)
			return true;
	return false;
}

static bool raw_read(int fd, void *dst, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	return poll(&p, 1, DEADLINE_MS) > 0 && recv(fd, dst, n, MSG_WAITALL) == (ssize_t)n;
}

/* The length before a packet. */
static void raw_send_size(int fd, uint32_t n)
{
	uint8_t prefix[4];
	wire_set_le32(prefix, n);
	raw_send(fd, prefix, sizeof(prefix));
}

static void raw_send_msg(int fd, const struct wire_msg *m, int version)
{
	struct wire_buf b = WIRE_BUF_INIT;
	assert_int_equal(wire_msg_encode(m, &b, NULL), WIRE_OK);
	b.data[0] = (uint8_t)version;
	wire_set_le64(b.data + b.len - 8, wire_hash(b.data, b.len - 8, (uint64_t)version));
	raw_send_size(fd, (uint32_t)b.len);
	raw_send(fd, b.data, b.len);
	wire_buf_free(&b);
}

/* What goes on the wire for it. */
static struct wire_buf raw_packet(const struct wire_msg *m)
{
	struct wire_buf b = WIRE_BUF_INIT;
	wire_put_u32(&b, 0);
	assert_int_equal(wire_msg_encode(m, &b, NULL), WIRE_OK);
	wire_set_u32(&b, 0, (uint32_t)(b.len - 4));
	return b;
}

static void other_version_is_refused(void **state)
{
	(void)state;
	static struct link_node a;
	uint8_t bytes[4096];
	link_open_node(&a, 1, CLUSTER);
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
	link_close_node(&a);
}

static void take_from(struct link_node *n, uint64_t from)
{
	struct wire_link_msg *m = link_take(n, DEADLINE_MS);
	assert_non_null(m);
	assert_true(m->msg.from == from);
	wire_link_msg_free(m);
}

static void garbage_is_thrown_out(void **state)
{
	(void)state;
	static struct link_node v[2];
	link_open_node(&v[0], 1, CLUSTER);
	link_open_node(&v[1], 2, CLUSTER);
	static const char junk[] = "GET / HTTP/1.1\r\n\r\n";
	struct wire_msg heartbeat = { .type = WIRE_MSG_HEARTBEAT, .from = 3, .to = 1 }, other = heartbeat;
	struct wire_msg hello = {
		.type = WIRE_MSG_HELLO, .from = 3, .to = 1, .term = CLUSTER, .text = "tcp://127.0.0.1:1"
	};
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
	link_connect_nodes(v, 2);
	link_close_node(&v[0]);
	link_close_node(&v[1]);
}

static void torn_packets_are_put_together(void **state)
{
	(void)state;
	static struct link_node a;
	static uint8_t data[100000];
	link_open_node(&a, 1, CLUSTER);
	int fd = raw_open(a.url);
	struct wire_msg hello = {
		.type = WIRE_MSG_HELLO, .from = 3, .to = 1, .term = CLUSTER, .text = "tcp://127.0.0.1:1"
	};
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
		struct wire_link_msg *m = link_take(&a, DEADLINE_MS);
		assert_non_null(m);
		assert_true(m->msg.corr == i && m->msg.data_len == (i % 7 ? i * 13 : i * 1600));
		wire_link_msg_free(m);
	}
	wire_buf_free(&all);
	close(fd);
	link_close_node(&a);
}

static void silent_strangers_are_bounded(void **state)
{
	(void)state;
	static struct link_node v[2];
	int fds[80];
	link_open_node(&v[0], 1, CLUSTER);
	link_open_node(&v[1], 2, CLUSTER);
	for (int i = 0; i < 80; i++)
		fds[i] = raw_open(v[0].url);
	for (int i = 0; i < 16; i++)
		assert_true(raw_closed(fds[i], DEADLINE_MS)); /* the oldest go first */
	assert_false(raw_closed(fds[79], 0));
	link_connect_nodes(v, 2);
	for (int i = 0; i < 80; i++)
		close(fds[i]);
	link_close_node(&v[0]);
	link_close_node(&v[1]);
}

/* A peer that welcomes everyone and then reads nothing. On a thread of its own, where nothing can be asserted: that a
 * lane is gone before it was welcomed is no fault. */
struct mute_server {
	int listener, over; /* over: a pipe that is closed at the end */
	struct wire_buf welcome;
};

static void *mute_server(void *arg)
{
	struct mute_server *s = arg;
	int fds[WIRE_LANE_COUNT], n = 0;
	/* Ends early when the test is over before all lanes had dialled. */
	while (n < WIRE_LANE_COUNT && (fds[n] = accept(s->listener, NULL, NULL)) >= 0)
		(void)!send(fds[n++], s->welcome.data, s->welcome.len, MSG_NOSIGNAL);
	struct pollfd over = { .fd = s->over, .events = POLLIN };
	poll(&over, 1, -1);
	while (n)
		close(fds[--n]);
	return NULL;
}

static void full_queue_is_busy(void **state)
{
	(void)state;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(listener, 8), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	pthread_t server;
	int over[2];
	assert_int_equal(pipe(over), 0);
	struct wire_msg reply = { .type = WIRE_MSG_HELLO_REPLY, .from = 2, .to = 1, .term = CLUSTER };
	struct mute_server mute = { listener, over[0], raw_packet(&reply) };
	assert_int_equal(pthread_create(&server, NULL, mute_server, &mute), 0);
	static struct link_node n;
	link_init_node(&n);
	struct wire_link_opts o = link_options(&n, 1, CLUSTER);
	o.queue_max_bytes = 1 << 20;
	assert_int_equal(wire_link_open(&o, &n.link, NULL), WIRE_OK);
	char url[64];
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", ntohs(a.sin_port));
	link_add(&n, 2, url);
	LINK_WAIT(&n, link_count(&n, 2, true) == 1);
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
	link_close_node(&n);
	shutdown(listener, SHUT_RDWR);
	close(over[1]);
	pthread_join(server, NULL);
	close(over[0]);
	close(listener);
	wire_buf_free(&mute.welcome);
	free(data);
}

struct impatient {
	struct sockaddr_in addr;
	struct wire_buf hello;
	atomic_bool stop;
	atomic_uint answered;
};

static void *greet_without_pause(void *arg)
{
	struct impatient *g = arg;
	/* From elsewhere: a socket can connect to itself, and takes the address then. */
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1) };
	while (!atomic_load(&g->stop)) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		char c;
		if (bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0 &&
		    connect(fd, (struct sockaddr *)&g->addr, sizeof(g->addr)) == 0 &&
		    send(fd, g->hello.data, g->hello.len, MSG_NOSIGNAL) > 0 && recv(fd, &c, 1, 0) == 1)
			atomic_fetch_add(&g->answered, 1);
		close(fd);
	}
	return NULL;
}

/* Somebody is at the door before the link is all there. */
static void greeted_while_it_opens(void **state)
{
	(void)state;
	static struct impatient g;
	static struct link_node n;
	struct wire_msg hello = {
		.type = WIRE_MSG_HELLO, .from = 3, .to = 1, .term = CLUSTER, .text = "tcp://127.0.0.1:1"
	};
	pthread_t t;
	link_init_node(&n);
	g.hello = raw_packet(&hello);
	g.addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	g.addr.sin_port = htons((uint16_t)atoi(strrchr(n.url, ':') + 1));
	assert_int_equal(pthread_create(&t, NULL, greet_without_pause, &g), 0);
	for (int i = 0; i < 50; i++) {
		struct wire_link_opts o = link_options(&n, 1, CLUSTER);
		struct wire_err err = { 0 };
		unsigned before = atomic_load(&g.answered);
		if (wire_link_open(&o, &n.link, &err))
			fail_msg("%s", err.text);
		LINK_POLL(atomic_load(&g.answered) > before);
		wire_link_close(n.link);
	}
	atomic_store(&g.stop, true);
	pthread_join(t, NULL);
	n.link = NULL;
	link_close_node(&n);
	wire_buf_free(&g.hello);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_version_is_refused),
		cmocka_unit_test(garbage_is_thrown_out),
		cmocka_unit_test(torn_packets_are_put_together),
		cmocka_unit_test(silent_strangers_are_bounded),
		cmocka_unit_test(full_queue_is_busy),
		cmocka_unit_test(greeted_while_it_opens),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
