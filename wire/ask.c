#include "wire/ask.h"
#include "wire/buf.h"
#include "wire/link.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PREFIX_BYTES = 4, READ_BYTES = 65536 };

struct wire_ask {
	int fd;
	pid_t pid;
	char url[WIRE_TEXT_MAX + 1];
	uint8_t *in; /* what was received: `have` bytes, of which the first `used` were given out */
	size_t have, used, cap;
	struct wire_buf out;
};

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* WIRE_OK: it may be that it is ready. */
static int wait_for(const struct wire_ask *a, short events, uint64_t deadline_ms, struct wire_err *err)
{
	for (;;) {
		struct pollfd p = { .fd = a->fd, .events = events };
		uint64_t now = now_ms();
		int rc = now < deadline_ms ? poll(&p, 1, (int)(deadline_ms - now > 60000 ? 60000 : deadline_ms - now)) : 0;
		if (rc > 0)
			return WIRE_OK;
		if (rc < 0 && errno != EINTR)
			return wire_fail_errno(err, errno, "cannot wait for %s", a->url);
		if (rc == 0 && now_ms() >= deadline_ms)
			return wire_fail(err, WIRE_TIMEOUT, "%s does not answer in time", a->url);
	}
}

static int lost(const struct wire_ask *a, int sys, struct wire_err *err)
{
	if (!sys || sys == ECONNRESET || sys == EPIPE)
		return wire_fail(err, WIRE_CLOSED, "%s has closed the connection", a->url);
	wire_fail_errno(err, sys, "connection to %s", a->url);
	if (err)
		err->code = WIRE_CLOSED;
	return WIRE_CLOSED;
}

static int connect_to(struct wire_ask *a, const struct addrinfo *to, uint64_t deadline_ms, struct wire_err *err)
{
	int on = 1, sys = 0, rc = WIRE_OK;
	socklen_t n = sizeof(sys);
	a->fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd < 0)
		return wire_fail_errno(err, errno, "cannot make a socket for %s", a->url);
	(void)setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(a->fd, to->ai_addr, to->ai_addrlen) != 0) {
		sys = errno;
		if (sys == EINPROGRESS) {
			rc = wait_for(a, POLLOUT, deadline_ms, err);
			if (rc == WIRE_OK && getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &sys, &n) != 0)
				sys = errno;
		}
		if (rc == WIRE_OK && sys)
			rc = wire_fail(err, WIRE_CLOSED, "cannot connect to %s: %s; does its node run?", a->url, strerror(sys));
	}
	if (rc) {
		close(a->fd);
		a->fd = -1;
	}
	return rc;
}

static int dial(struct wire_ask *a, uint64_t deadline_ms, struct wire_err *err)
{
	char host[WIRE_TEXT_MAX + 1];
	const char *from = a->url + strlen("tcp://"), *colon = strrchr(a->url, ':');
	size_t n = (size_t)(colon - from);
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	if (*from == '[') {
		from++;
		n -= 2;
	}
	memcpy(host, from, n);
	host[n] = 0;
	int rc = getaddrinfo(host, colon + 1, &hints, &list);
	if (rc)
		return wire_fail(err, WIRE_CLOSED, "cannot find %s: %s", a->url, gai_strerror(rc));
	rc = wire_fail(err, WIRE_CLOSED, "%s has no address", a->url);
	for (const struct addrinfo *i = list; i && rc && now_ms() <= deadline_ms; i = i->ai_next)
		rc = connect_to(a, i, deadline_ms, err);
	freeaddrinfo(list);
	return rc;
}

static int send_all(struct wire_ask *a, const uint8_t *p, size_t n, uint64_t deadline_ms, struct wire_err *err)
{
	while (n) {
		ssize_t put = send(a->fd, p, n, MSG_NOSIGNAL);
		if (put < 0 && (errno == EAGAIN || errno == EINTR)) {
			int rc = wait_for(a, POLLOUT, deadline_ms, err);
			if (rc)
				return rc;
			continue;
		}
		if (put < 0)
			return lost(a, errno, err);
		p += put;
		n -= (size_t)put;
	}
	return WIRE_OK;
}

int wire_ask_send(struct wire_ask *a, const struct wire_msg *m, uint32_t timeout_ms, struct wire_err *err)
{
	wire_buf_reset(&a->out);
	wire_put_u32(&a->out, (uint32_t)wire_msg_size(m));
	int rc = wire_msg_encode(m, &a->out, err);
	if (!rc && a->out.failed)
		rc = wire_fail(err, WIRE_NOMEM, "no memory for a question to %s", a->url);
	if (!rc && a->out.len > WIRE_ASK_MAX)
		rc = wire_fail(err, WIRE_TOOBIG, "a question of %zu bytes is over the limit of %u", a->out.len, WIRE_ASK_MAX);
	return rc ? rc : send_all(a, a->out.data, a->out.len, now_ms() + timeout_ms, err);
}

static int receive_some(struct wire_ask *a, size_t want, uint64_t deadline_ms, struct wire_err *err)
{
	if (a->cap - a->have < READ_BYTES) {
		size_t cap = (want > a->have ? want : a->have) + READ_BYTES;
		uint8_t *p = realloc(a->in, cap);
		if (!p)
			return wire_fail(err, WIRE_NOMEM, "no memory for an answer of %s", a->url);
		a->in = p;
		a->cap = cap;
	}
	for (;;) {
		ssize_t got = recv(a->fd, a->in + a->have, a->cap - a->have, 0);
		if (got > 0) {
			a->have += (size_t)got;
			return WIRE_OK;
		}
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			return lost(a, got ? errno : 0, err);
		int rc = wait_for(a, POLLIN, deadline_ms, err);
		if (rc)
			return rc;
	}
}

/* The bytes of the next packet, at *ret_p. */
static int next_packet(struct wire_ask *a, uint64_t deadline_ms, const uint8_t **ret_p, size_t *ret_n, struct wire_err *err)
{
	a->have -= a->used;
	if (a->used && a->have)
		memmove(a->in, a->in + a->used, a->have);
	a->used = 0;
	for (;;) {
		size_t n = a->have < PREFIX_BYTES ? 0 : wire_le32(a->in);
		if (a->have >= PREFIX_BYTES && (n == 0 || n > WIRE_MSG_MAX))
			return wire_fail(err, WIRE_CORRUPT, "%s does not speak as a node does", a->url);
		if (n && a->have - PREFIX_BYTES >= n) {
			*ret_p = a->in + PREFIX_BYTES;
			*ret_n = n;
			a->used = PREFIX_BYTES + n;
			return WIRE_OK;
		}
		int rc = receive_some(a, n + PREFIX_BYTES, deadline_ms, err);
		if (rc)
			return rc;
	}
}

int wire_ask_receive(struct wire_ask *a, uint32_t timeout_ms, struct wire_msg *ret_msg, struct wire_err *err)
{
	const uint8_t *p = NULL;
	struct wire_entry *entries = NULL;
	size_t n = 0;
	int rc = next_packet(a, now_ms() + timeout_ms, &p, &n, err);
	if (!rc)
		rc = wire_msg_decode(p, n, ret_msg, &entries, err);
	if (!rc && entries) {
		ret_msg->entries = NULL; /* no answer has any */
		ret_msg->n_entries = 0;
		free(entries);
	}
	return rc;
}

static int greet(struct wire_ask *a, uint64_t deadline_ms, struct wire_err *err)
{
	struct wire_msg hello = { .type = WIRE_MSG_HELLO, .hint = WIRE_FEATURES }, m;
	const uint8_t *p = NULL;
	size_t n = 0;
	unsigned version = 0;
	int rc = wire_ask_send(a, &hello, (uint32_t)(deadline_ms - now_ms()), err);
	if (!rc)
		rc = next_packet(a, deadline_ms, &p, &n, err);
	if (rc == WIRE_CLOSED)
		return wire_fail(err, WIRE_CLOSED, "%s hung up: it is no node, or one of an older release, which answers no questions", a->url);
	if (rc)
		return rc;
	rc = wire_msg_decode_hello(p, n, &m, &version, NULL);
	if (rc || m.type != WIRE_MSG_HELLO_REPLY)
		return wire_fail(err, WIRE_CLOSED, "%s does not speak as a node does", a->url);
	if (m.flags & WIRE_MSG_REJECT)
		return wire_fail(err, WIRE_FOREIGN, "%s refuses: %s", a->url, m.text);
	return version == WIRE_PROTOCOL ? WIRE_OK : wire_fail(err, WIRE_VERSION, "%s speaks protocol version %u, and this library %d: install the same release on both", a->url, version, WIRE_PROTOCOL);
}

int wire_ask_open(const char *url, uint32_t timeout_ms, struct wire_ask **ret_ask, struct wire_err *err)
{
	uint64_t deadline_ms = now_ms() + timeout_ms;
	int rc = wire_url_check(url, NULL, err);
	if (rc)
		return rc;
	struct wire_ask *a = calloc(1, sizeof(*a));
	if (!a)
		return wire_fail(err, WIRE_NOMEM, "no memory for a connection to %s", url);
	a->fd = -1;
	a->pid = getpid();
	snprintf(a->url, sizeof(a->url), "%s", url);
	rc = dial(a, deadline_ms, err);
	if (!rc && now_ms() >= deadline_ms)
		rc = wire_fail(err, WIRE_TIMEOUT, "%s does not answer in time", url);
	if (!rc)
		rc = greet(a, deadline_ms, err);
	if (rc) {
		wire_ask_close(a);
		return rc;
	}
	*ret_ask = a;
	return WIRE_OK;
}

void wire_ask_close(struct wire_ask *a)
{
	if (!a)
		return;
	if (a->fd >= 0)
		close(a->fd);
	free(a->in);
	wire_buf_free(&a->out);
	free(a);
}

bool wire_ask_is_ours(const struct wire_ask *a)
{
	return a->pid == getpid();
}
