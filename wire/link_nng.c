/* The transport: nng's byte streams, with messages framed by a length.
 *
 * Why not nng's push and pull sockets: in nng 1.5.2 closing one of their connections while traffic goes over it is not
 * safe. When a send completes as its pipe is closed by another thread, the dead pipe stays in the push socket's list of
 * ready ones, and the next send uses freed memory. When a header or a part of a message was just read or written, the
 * continuation is started on a stream that is closed already and never completes; the single thread that disposes of
 * pipes waits for it for ever, and with it every later nng_close. Both were met within seconds under load. Below those
 * sockets the streams are sound if one keeps to this:
 * - An operation that is started after nng_stream_close never completes by itself, but can be cancelled. So whoever
 *   starts one looks afterwards whether the stream was killed meanwhile, and cancels.
 * - A stream is freed only after its aios were stopped, which waits for their callbacks.
 * - A dialer is used for one attempt: a second one may begin while the first is still being cancelled.
 * - nng is held (link_nng.h) by who calls anything here.
 * - An aio without callback completes in the thread that started it. With that a send on an idle connection is one
 *   system call, without waking another thread. */
#include "wire/buf.h"
#include "wire/link_io.h"
#include "wire/link_nng.h"
#include "wire/msg.h"
#include <arpa/inet.h>
#include <nng/nng.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BUFFER_BYTES = 32768, DIAL_TIMEOUT_MS = 2000, ACCEPT_RETRY_MS = 50, PREFIX_BYTES = 4 };

uint64_t wire_link_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int fail_nng(struct wire_err *err, int rv, const char *what, const char *url)
{
	return wire_fail(err, rv == NNG_ENOMEM ? WIRE_NOMEM : WIRE_IO, "cannot %s %s: %s", what, url, nng_strerror(rv));
}

struct wire_packet *wire_packet_new(size_t n)
{
	struct wire_packet *p = n <= UINT32_MAX ? malloc(sizeof(*p) + n) : NULL;
	if (p) {
		p->size = (uint32_t)n;
		wire_set_le32(p->prefix, (uint32_t)n);
	}
	return p;
}

void wire_packet_free(struct wire_packet *p)
{
	free(p);
}

/* stream */

struct wire_stream {
	nng_stream *tcp;
	nng_aio *recv;  /* always in flight or in its callback, until `lost` */
	nng_aio *now;   /* no callback */
	nng_aio *later; /* in flight, or in its callback, while out_len > 0 */
	struct wire_stream_events events;
	atomic_bool dead;
	atomic_size_t packet_max;
	/* Receiving: the callback's. */
	struct wire_packet *in; /* a packet that is larger than the buffer, in_have bytes of it here */
	size_t in_have, have;   /* have: bytes in the buffer */
	/* Sending: the sender's while idle, else the callback's of `later`. */
	struct wire_packet *out[WIRE_BATCH_MAX];
	size_t out_len, out_done; /* bytes done of the first */
	uint8_t buffer[BUFFER_BYTES];
};

static void set_iov(nng_aio *aio, void *p, size_t n)
{
	nng_iov iov = { .iov_buf = p, .iov_len = n };
	nng_aio_set_iov(aio, 1, &iov);
}

static void receive(struct wire_stream *s)
{
	if (s->in)
		set_iov(s->recv, s->in->data + s->in_have, s->in->size - s->in_have);
	else
		set_iov(s->recv, s->buffer + s->have, sizeof(s->buffer) - s->have);
	nng_stream_recv(s->tcp, s->recv);
	if (atomic_load(&s->dead))
		nng_aio_cancel(s->recv);
}

void wire_stream_kill(struct wire_stream *s)
{
	if (atomic_exchange(&s->dead, true))
		return;
	nng_stream_close(s->tcp);
	nng_aio_cancel(s->recv);
}

/* Hands over the packets in the buffer. False: what came is no packet, or there is no memory for it. */
static bool take_packets(struct wire_stream *s)
{
	size_t at = 0;
	while (s->have - at >= PREFIX_BYTES && !atomic_load(&s->dead)) {
		size_t n = wire_le32(s->buffer + at), there = s->have - at - PREFIX_BYTES;
		if (n == 0 || n > atomic_load(&s->packet_max))
			return false;
		if (there < n && n <= sizeof(s->buffer) - PREFIX_BYTES)
			break;
		struct wire_packet *p = wire_packet_new(n);
		if (!p)
			return false;
		size_t copy = there < n ? there : n;
		memcpy(p->data, s->buffer + at + PREFIX_BYTES, copy);
		at += PREFIX_BYTES + copy;
		if (copy < n) {
			s->in = p;
			s->in_have = copy;
		} else {
			s->events.packet(s->events.ctx, s, p);
		}
	}
	memmove(s->buffer, s->buffer + at, s->have - at);
	s->have -= at;
	return true;
}

static void on_received(void *arg)
{
	struct wire_stream *s = arg;
	bool ok = nng_aio_result(s->recv) == 0 && !atomic_load(&s->dead);
	if (ok && s->in) {
		s->in_have += nng_aio_count(s->recv);
		if (s->in_have == s->in->size) {
			struct wire_packet *p = s->in;
			s->in = NULL;
			s->events.packet(s->events.ctx, s, p);
		}
	} else if (ok) {
		s->have += nng_aio_count(s->recv);
		ok = take_packets(s);
	}
	if (ok && !atomic_load(&s->dead)) {
		receive(s);
		return;
	}
	wire_stream_kill(s);
	s->events.lost(s->events.ctx, s);
}

static void set_out_iov(const struct wire_stream *s, nng_aio *aio)
{
	nng_iov iov[WIRE_BATCH_MAX];
	for (size_t i = 0; i < s->out_len; i++) {
		size_t skip = i ? 0 : s->out_done;
		iov[i].iov_buf = (uint8_t *)s->out[i] + offsetof(struct wire_packet, prefix) + skip;
		iov[i].iov_len = PREFIX_BYTES + (size_t)s->out[i]->size - skip;
	}
	nng_aio_set_iov(aio, (unsigned)s->out_len, iov);
}

static void written(struct wire_stream *s, size_t n)
{
	size_t done = 0;
	n += s->out_done;
	while (done < s->out_len && n >= PREFIX_BYTES + (size_t)s->out[done]->size) {
		n -= PREFIX_BYTES + (size_t)s->out[done]->size;
		wire_packet_free(s->out[done++]);
	}
	s->out_len -= done;
	s->out_done = n;
	memmove(s->out, s->out + done, s->out_len * sizeof(s->out[0]));
}

static void on_sent(void *arg)
{
	struct wire_stream *s = arg;
	if (nng_aio_result(s->later) != 0) {
		wire_stream_kill(s);
		return;
	}
	written(s, nng_aio_count(s->later));
	if (s->out_len) {
		set_out_iov(s, s->later);
		nng_stream_send(s->tcp, s->later);
	} else {
		s->events.sent(s->events.ctx, s);
	}
}

bool wire_stream_send(struct wire_stream *s, struct wire_packet **v, size_t n)
{
	memcpy(s->out, v, n * sizeof(*v));
	s->out_len = n;
	s->out_done = 0;
	set_out_iov(s, s->now);
	nng_stream_send(s->tcp, s->now);
	nng_aio_cancel(s->now); /* does nothing when it was written, and takes it back when the socket was full */
	nng_aio_wait(s->now);
	if (nng_aio_result(s->now) == 0)
		written(s, nng_aio_count(s->now));
	if (!s->out_len)
		return true;
	set_out_iov(s, s->later);
	nng_stream_send(s->tcp, s->later);
	return false;
}

void wire_stream_limit(struct wire_stream *s, size_t packet_max_bytes)
{
	atomic_store(&s->packet_max, packet_max_bytes);
}

void wire_stream_host(struct wire_stream *s, char *dst, size_t cap)
{
	nng_sockaddr a;
	char text[INET6_ADDRSTRLEN] = "";
	dst[0] = 0;
	if (nng_stream_get_addr(s->tcp, NNG_OPT_REMADDR, &a) != 0)
		return;
	if (a.s_family == NNG_AF_INET && inet_ntop(AF_INET, &a.s_in.sa_addr, text, sizeof(text)))
		snprintf(dst, cap, "%s", text);
	else if (a.s_family == NNG_AF_INET6 && inet_ntop(AF_INET6, a.s_in6.sa_addr, text, sizeof(text)))
		snprintf(dst, cap, "[%s]", text);
}

/* Takes tcp also when it fails. */
static struct wire_stream *stream_new(nng_stream *tcp)
{
	struct wire_stream *s = malloc(sizeof(*s));
	if (!s) {
		nng_stream_free(tcp);
		return NULL;
	}
	memset(s, 0, offsetof(struct wire_stream, buffer)); /* the buffer stays untouched until it is used */
	s->tcp = tcp;
	if (nng_aio_alloc(&s->recv, on_received, s) || nng_aio_alloc(&s->now, NULL, NULL) ||
	    nng_aio_alloc(&s->later, on_sent, s)) {
		wire_stream_free(s);
		return NULL;
	}
	wire_nng_came(s, tcp);
	return s;
}

void wire_stream_start(struct wire_stream *s, const struct wire_stream_events *events, size_t packet_max_bytes)
{
	s->events = *events;
	atomic_store(&s->packet_max, packet_max_bytes);
	receive(s);
}

void wire_stream_free(struct wire_stream *s)
{
	wire_nng_went(s);
	nng_stream_close(s->tcp);
	nng_aio *const aios[] = { s->recv, s->later, s->now };
	for (size_t i = 0; i < sizeof(aios) / sizeof(aios[0]); i++)
		if (aios[i])
			nng_aio_stop(aios[i]);
	nng_stream_free(s->tcp);
	for (size_t i = 0; i < sizeof(aios) / sizeof(aios[0]); i++)
		nng_aio_free(aios[i]);
	for (size_t i = 0; i < s->out_len; i++)
		wire_packet_free(s->out[i]);
	wire_packet_free(s->in);
	free(s);
}

/* dial */

struct wire_dial {
	char url[WIRE_TEXT_MAX + 1];
	void *ctx;
	void (*done)(void *ctx, struct wire_stream *s);
	nng_stream_dialer *dialer; /* of the last attempt */
	nng_aio *aio;
	bool sleeping;
};

static void attempt(struct wire_dial *d)
{
	nng_stream_dialer_free(d->dialer);
	d->dialer = NULL;
	d->sleeping = false;
	if (nng_stream_dialer_alloc(&d->dialer, d->url) != 0) {
		d->dialer = NULL;
		d->done(d->ctx, NULL);
		return;
	}
	(void)nng_stream_dialer_set_bool(d->dialer, NNG_OPT_TCP_NODELAY, true); /* the default anyway */
	nng_aio_set_timeout(d->aio, DIAL_TIMEOUT_MS);
	nng_stream_dialer_dial(d->dialer, d->aio);
}

static void on_dialled(void *arg)
{
	struct wire_dial *d = arg;
	int rv = nng_aio_result(d->aio);
	/* An aio that has slept once reports later time-outs as success: then there is no stream. */
	nng_stream *tcp = rv == 0 && !d->sleeping ? nng_aio_get_output(d->aio, 0) : NULL;
	if (rv == 0 && d->sleeping)
		attempt(d);
	else if (rv == 0)
		d->done(d->ctx, tcp ? stream_new(tcp) : NULL);
	else if (rv != NNG_ECANCELED && rv != NNG_ECLOSED)
		d->done(d->ctx, NULL);
}

int wire_dial_new(const char *url, void *ctx, void (*done)(void *ctx, struct wire_stream *s), struct wire_dial **ret,
                  struct wire_err *err)
{
	struct wire_dial *d = calloc(1, sizeof(*d));
	if (!d)
		return wire_fail(err, WIRE_NOMEM, "no memory for a connection to %s", url);
	snprintf(d->url, sizeof(d->url), "%s", url);
	d->ctx = ctx;
	d->done = done;
	int rv = nng_aio_alloc(&d->aio, on_dialled, d);
	if (rv == 0 && (rv = nng_stream_dialer_alloc(&d->dialer, url)) != 0)
		nng_aio_free(d->aio);
	if (rv) {
		free(d);
		return fail_nng(err, rv, "dial", url);
	}
	*ret = d;
	return WIRE_OK;
}

void wire_dial_start(struct wire_dial *d, uint32_t delay_ms)
{
	d->sleeping = true;
	nng_aio_set_timeout(d->aio, NNG_DURATION_INFINITE);
	nng_sleep_aio((nng_duration)delay_ms, d->aio);
}

void wire_dial_free(struct wire_dial *d)
{
	nng_aio_stop(d->aio);
	nng_aio_free(d->aio);
	nng_stream_dialer_free(d->dialer);
	free(d);
}

/* inlet */

struct guest_stream {
	struct wire_inlet *inlet;
	struct wire_stream *stream;
	uint32_t id;
	bool replying;
	struct guest_stream *next;
};

struct wire_inlet {
	struct wire_inlet_opts opts;
	nng_stream_listener *listener;
	nng_aio *accept;
	bool sleeping;
	pthread_mutex_t lock; /* below; held while a stream found in `open` is used */
	uint32_t next_id;
	struct guest_stream *open, *gone;
};

static void on_inlet_packet(void *ctx, struct wire_stream *s, struct wire_packet *p)
{
	(void)s;
	struct guest_stream *g = ctx;
	g->inlet->opts.packet(g->inlet->opts.ctx, g->id, p);
}

static void on_inlet_sent(void *ctx, struct wire_stream *s)
{
	(void)s;
	struct guest_stream *g = ctx;
	pthread_mutex_lock(&g->inlet->lock);
	g->replying = false;
	pthread_mutex_unlock(&g->inlet->lock);
	g->inlet->opts.sent(g->inlet->opts.ctx, g->id);
}

static void on_inlet_lost(void *ctx, struct wire_stream *s)
{
	(void)s;
	struct guest_stream *g = ctx;
	struct wire_inlet *in = g->inlet;
	uint32_t id = g->id;
	pthread_mutex_lock(&in->lock);
	for (struct guest_stream **at = &in->open; *at; at = &(*at)->next) {
		if (*at == g) {
			*at = g->next;
			g->next = in->gone;
			in->gone = g;
			break;
		}
	}
	pthread_mutex_unlock(&in->lock);
	in->opts.closed(in->opts.ctx, id);
}

static void welcome(struct wire_inlet *in, struct wire_stream *s)
{
	struct guest_stream *g = calloc(1, sizeof(*g));
	if (!g) {
		wire_stream_free(s);
		return;
	}
	g->inlet = in;
	g->stream = s;
	pthread_mutex_lock(&in->lock);
	if (++in->next_id == 0)
		in->next_id = 1;
	g->id = in->next_id;
	pthread_mutex_unlock(&in->lock);
	if (!in->opts.opened(in->opts.ctx, g->id)) {
		wire_stream_free(s);
		free(g);
		return;
	}
	struct wire_stream_events e = { g, on_inlet_packet, on_inlet_sent, on_inlet_lost };
	pthread_mutex_lock(&in->lock);
	g->next = in->open;
	in->open = g;
	/* Under the lock, so that nobody finds it before it is started. */
	wire_stream_start(s, &e, in->opts.packet_max_bytes);
	pthread_mutex_unlock(&in->lock);
}

static void on_accepted(void *arg)
{
	struct wire_inlet *in = arg;
	int rv = nng_aio_result(in->accept);
	if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
		return;
	nng_stream *tcp = rv == 0 && !in->sleeping ? nng_aio_get_output(in->accept, 0) : NULL;
	if (tcp) {
		struct wire_stream *s = stream_new(tcp);
		if (s)
			welcome(in, s);
	}
	/* Out of descriptors, say: pause, for the error would come again at once. */
	in->sleeping = rv != 0;
	if (in->sleeping)
		nng_sleep_aio(ACCEPT_RETRY_MS, in->accept);
	else
		nng_stream_listener_accept(in->listener, in->accept);
}

int wire_inlet_open(const struct wire_inlet_opts *opts, struct wire_inlet **ret, struct wire_err *err)
{
	struct wire_inlet *in = calloc(1, sizeof(*in));
	if (!in)
		return wire_fail(err, WIRE_NOMEM, "no memory to listen on %s", opts->url);
	in->opts = *opts;
	pthread_mutex_init(&in->lock, NULL);
	int rv = nng_stream_listener_alloc(&in->listener, opts->url);
	if (rv == 0)
		rv = nng_aio_alloc(&in->accept, on_accepted, in);
	if (rv == 0)
		rv = nng_stream_listener_set_bool(in->listener, NNG_OPT_TCP_NODELAY, true);
	if (rv == 0)
		rv = nng_stream_listener_listen(in->listener);
	if (rv == 0) {
		wire_nng_listens(in, in->listener);
		*ret = in; /* before anyone can come in: callbacks use it */
		nng_stream_listener_accept(in->listener, in->accept);
		return WIRE_OK;
	}
	nng_aio_free(in->accept);
	nng_stream_listener_free(in->listener);
	pthread_mutex_destroy(&in->lock);
	free(in);
	const char *port = strrchr(opts->url, ':');
	if (rv == NNG_EADDRINUSE)
		return wire_fail(
		        err, WIRE_BUSY,
		        "cannot listen on %s: the address is taken. `ss -ltnp 'sport = %s'` shows by which program; "
		        "end that or choose another port",
		        opts->url, port ? port : "");
	if (rv == NNG_EADDRINVAL)
		return wire_fail(err, WIRE_INVALID, "cannot listen on %s: no address of this machine", opts->url);
	return fail_nng(err, rv, "listen on", opts->url);
}

void wire_inlet_tick(struct wire_inlet *in)
{
	pthread_mutex_lock(&in->lock);
	struct guest_stream *g = in->gone;
	in->gone = NULL;
	pthread_mutex_unlock(&in->lock);
	while (g) {
		struct guest_stream *next = g->next;
		wire_stream_free(g->stream);
		free(g);
		g = next;
	}
}

void wire_inlet_close(struct wire_inlet *in)
{
	wire_nng_went(in);
	nng_stream_listener_close(in->listener);
	nng_aio_stop(in->accept);
	nng_aio_free(in->accept);
	nng_stream_listener_free(in->listener);
	/* Stopping a stream's aios reports it as lost, or finds it reported; either way it is in `gone` afterwards. */
	for (;;) {
		pthread_mutex_lock(&in->lock);
		struct guest_stream *g = in->open;
		if (g)
			wire_stream_kill(g->stream);
		bool more = in->open || in->gone;
		pthread_mutex_unlock(&in->lock);
		if (!more)
			break;
		wire_inlet_tick(in);
		if (g)
			sched_yield();
	}
	pthread_mutex_destroy(&in->lock);
	free(in);
}

static struct guest_stream *find_locked(struct wire_inlet *in, uint32_t conn)
{
	struct guest_stream *g = in->open;
	while (g && g->id != conn)
		g = g->next;
	return g;
}

void wire_inlet_drop(struct wire_inlet *in, uint32_t conn)
{
	pthread_mutex_lock(&in->lock);
	struct guest_stream *g = find_locked(in, conn);
	if (g)
		wire_stream_kill(g->stream);
	pthread_mutex_unlock(&in->lock);
}

bool wire_inlet_reply(struct wire_inlet *in, uint32_t conn, struct wire_packet *p)
{
	pthread_mutex_lock(&in->lock);
	struct guest_stream *g = find_locked(in, conn);
	bool busy = g && g->replying;
	if (g && !busy)
		busy = g->replying = !wire_stream_send(g->stream, &p, 1);
	else
		wire_packet_free(p);
	pthread_mutex_unlock(&in->lock);
	return !busy;
}

void wire_inlet_limit(struct wire_inlet *in, uint32_t conn, size_t packet_max_bytes)
{
	pthread_mutex_lock(&in->lock);
	struct guest_stream *g = find_locked(in, conn);
	if (g)
		wire_stream_limit(g->stream, packet_max_bytes);
	pthread_mutex_unlock(&in->lock);
}

void wire_inlet_host(struct wire_inlet *in, uint32_t conn, char *dst, size_t cap)
{
	dst[0] = 0;
	pthread_mutex_lock(&in->lock);
	struct guest_stream *g = find_locked(in, conn);
	if (g)
		wire_stream_host(g->stream, dst, cap);
	pthread_mutex_unlock(&in->lock);
}
