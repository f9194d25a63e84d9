/* Reads from etcd (v3: gRPC, which is HTTP/2 with a frame format of its own) by closed-loop clients, a connection each, all in one thread.
 * usage: etcd ADDR fill                                   puts the 1000 keys that are read
 *        etcd ADDR read|stale CLIENTS SECONDS FIGURE      linearizable | serializable gets
 * A call has succeeded when a DATA frame came before the trailers: errors have none. */
#define _GNU_SOURCE
#include "common.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEYS 1000
#define CLIENTS_MAX 256
#define FRAME_HEAD 9
enum { DATA, HEADERS, RST = 3, SETTINGS, PING = 6, GOAWAY, WINDOW };
#define END_STREAM 1
#define END_HEADERS 4
#define ACK 1

struct client {
	int fd;
	unsigned stream, seed;
	double sent;
	bool got;
	size_t n;
	unsigned char in[16384];
};

static char mode; /* f, r, s */

static size_t head(unsigned char *p, size_t len, int type, int flags, unsigned stream)
{
	const unsigned char h[FRAME_HEAD] = { (unsigned char)(len >> 16), (unsigned char)(len >> 8), (unsigned char)len, (unsigned char)type, (unsigned char)flags,
		                              (unsigned char)(stream >> 24), (unsigned char)(stream >> 16), (unsigned char)(stream >> 8), (unsigned char)stream };

	memcpy(p, h, sizeof h);
	return sizeof h + len;
}

static void put_all(int fd, const void *p, size_t n)
{
	if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n) /* far less than the socket's buffer */
		die("send");
}

static int dial(const char *address)
{
	static const unsigned char start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\6\4\0\0\0\0\0\0\4\x7f\xff\0\0\0\0\4\10\0\0\0\0\0\x7f\0\0\0"; /* large windows */
	struct sockaddr_in sa = { .sin_family = AF_INET };
	char host[64];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, port;

	if (sscanf(address, "%63[^:]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &sa.sin_addr) != 1)
		die("address");
	sa.sin_port = htons((uint16_t)port);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa))
		die(address);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	put_all(fd, start, sizeof start - 1);
	return fd;
}

/* A header as a literal that is not indexed: by the number of its name in HPACK's table, or with its name. */
static unsigned char *header(unsigned char *p, unsigned number, const char *name, const char *value)
{
	const char *texts[] = { name, value };

	if (number < 15) {
		*p++ = (unsigned char)number;
	} else {
		*p++ = 15;
		*p++ = (unsigned char)(number - 15);
	}
	for (int i = 0; i < 2; i++)
		if (texts[i]) {
			*p++ = (unsigned char)strlen(texts[i]);
			p = (unsigned char *)memcpy(p, texts[i], strlen(texts[i])) + strlen(texts[i]);
		}
	return p;
}

static void ask(struct client *c, unsigned key)
{
	unsigned char b[512], *p = b + FRAME_HEAD, *msg;
	size_t len;
	char name[8];

	*p++ = 0x83; /* :method POST */
	*p++ = 0x86; /* :scheme http */
	p = header(p, 4, NULL, mode == 'f' ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range");
	p = header(p, 1, NULL, "127.0.0.1");
	p = header(p, 31, NULL, "application/grpc");
	p = header(p, 0, "te", "trailers");
	c->stream = c->stream ? c->stream + 2 : 1;
	p = b + head(b, (size_t)(p - b) - FRAME_HEAD, HEADERS, END_HEADERS, c->stream);
	msg = p + FRAME_HEAD;
	memset(msg, 0, 5); /* not compressed; length */
	snprintf(name, sizeof name, "k%06u", key);
	len = 5;
	msg[len++] = 0x0a; /* key */
	msg[len++] = 7;
	memcpy(msg + len, name, 7);
	len += 7;
	if (mode == 'f') {
		msg[len++] = 0x12; /* value */
		msg[len++] = 100;
		memset(msg + len, 'x', 100);
		len += 100;
	} else if (mode == 's') {
		msg[len++] = 0x38; /* serializable */
		msg[len++] = 1;
	}
	msg[4] = (unsigned char)(len - 5);
	p += head(p, len, DATA, END_STREAM, c->stream);
	c->got = false;
	c->sent = now_us();
	put_all(c->fd, b, (size_t)(p - b));
}

/* Looks at a frame of len bytes behind its head; true when the call is over. */
static bool frame(struct client *c, unsigned char *f, size_t len)
{
	const unsigned stream = (unsigned)f[5] << 24 | (unsigned)f[6] << 16 | (unsigned)f[7] << 8 | f[8];

	if (f[3] == SETTINGS && !(f[4] & ACK)) {
		head(f, 0, SETTINGS, ACK, 0);
		put_all(c->fd, f, FRAME_HEAD);
	} else if (f[3] == PING && !(f[4] & ACK)) {
		head(f, len, PING, ACK, 0);
		put_all(c->fd, f, FRAME_HEAD + len);
	} else if (f[3] == GOAWAY || f[3] == RST) {
		die("etcd broke the call off");
	} else if (f[3] == DATA && stream == c->stream) {
		c->got |= len >= (mode == 'f' ? 6 : 105);
	} else if (f[3] == HEADERS && (f[4] & END_STREAM) && stream == c->stream) {
		if (!c->got)
			die("etcd gave an error");
		return true;
	}
	return false;
}

static bool receive(struct client *c)
{
	ssize_t r = recv(c->fd, c->in + c->n, sizeof c->in - c->n, 0);
	size_t off = 0;
	bool over = false;

	if (r <= 0)
		die("etcd closed the connection");
	c->n += (size_t)r;
	while (c->n - off >= FRAME_HEAD) {
		unsigned char *f = c->in + off;
		size_t len = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];

		if (FRAME_HEAD + len > sizeof c->in)
			die("etcd sent a large frame");
		if (c->n - off < FRAME_HEAD + len)
			break;
		off += FRAME_HEAD + len;
		over |= frame(c, f, len);
	}
	memmove(c->in, c->in + off, c->n - off);
	c->n -= off;
	return over;
}

static void fill(struct client *c)
{
	for (unsigned key = 0; key < KEYS; key++) {
		ask(c, key);
		while (!receive(c))
			;
	}
}

static void load(struct client *c, int n, double seconds, const char *figure)
{
	const double from = now_us() + 0.5e6, end = from + seconds * 1e6;
	struct epoll_event ev[CLIENTS_MAX];
	struct lat lat = { 0 };
	int ep = epoll_create1(EPOLL_CLOEXEC);

	for (int i = 0; i < n; i++) {
		ev[0] = (struct epoll_event){ .events = EPOLLIN, .data.ptr = &c[i] };
		epoll_ctl(ep, EPOLL_CTL_ADD, c[i].fd, &ev[0]);
		ask(&c[i], (unsigned)rand_r(&c[i].seed) % KEYS);
	}
	while (now_us() < end) {
		int ready = epoll_wait(ep, ev, CLIENTS_MAX, 100);

		for (int i = 0; i < ready; i++) {
			struct client *k = ev[i].data.ptr;

			if (!receive(k))
				continue;
			if (k->sent >= from)
				lat_add(&lat, now_us() - k->sent);
			ask(k, (unsigned)rand_r(&k->seed) % KEYS);
		}
	}
	emit_run("etcd", figure, &lat, (now_us() - from) / 1e6);
	free(lat.v);
}

int main(int argc, char **argv)
{
	static struct client c[CLIENTS_MAX];
	int n = argc == 6 ? atoi(argv[3]) : 1;

	if ((argc != 3 && argc != 6) || n < 1 || n > CLIENTS_MAX)
		return 2;
	mode = argv[2][0];
	for (int i = 0; i < n; i++) {
		c[i].fd = dial(argv[1]);
		c[i].seed = (unsigned)i;
	}
	if (mode == 'f')
		fill(c);
	else
		load(c, n, atof(argv[4]), argv[5]);
	return 0;
}
