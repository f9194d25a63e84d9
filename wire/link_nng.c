/* The transport: nng push sockets out, one nng pull socket in.
 *
 * What of nng's behaviour this rests on (1.5.2 and later):
 * - A pull socket with one receive aio, re-armed after the hand-over, keeps the order of each pipe; several do not.
 * - A send on an idle push pipe writes the socket in the calling thread; an aio without callback completes there too, so
 *   that an idle lane costs no thread switch. On a busy pipe a send with timeout zero fails at once, and then the aio
 *   with callback takes over.
 * - A push socket hands what waits in it to the next pipe before anybody is told of that pipe. Therefore nothing may wait
 *   in it across connections: sends are started only with our lock held while a pipe is known, and the event of its
 *   removal, which precedes any redial, cancels the waiting one under the same lock.
 * - A removal event may overtake the event that a pipe was added. */
#include "wire/link_io.h"
#include "wire/msg.h"
#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	REDIAL_MIN_MS = 10,
	REDIAL_MAX_MS = 250,
	QUICK_LOSSES = 4,    /* connections in a row that were lost within QUICK_LOSS_NS: the other side throws us out */
};

static const uint64_t MS = 1000000;
#define QUICK_LOSS_NS (200 * MS)
#define STUCK_DIAL_NS (2000 * MS) /* a SYN or a greeting that got no answer for that long is tried anew */

/* nng starts its threads in its first call, and they inherit the mask; the host's signals are the host's business. */
static sigset_t block_signals(void) {
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	return old;
}

static void restore_signals(const sigset_t *old) {
	pthread_sigmask(SIG_SETMASK, old, NULL);
}

uint64_t wire_link_now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int fail_nng(struct wire_err *err, int rv, const char *what, const char *url) {
	int code = rv == NNG_ENOMEM ? WIRE_NOMEM : rv == NNG_EADDRINVAL ? WIRE_INVALID : WIRE_IO;
	return wire_fail(err, code, "cannot %s %s: %s", what, url, nng_strerror(rv));
}

/* packets */

static nng_msg *to_nng(struct wire_packet *p) {
	return (nng_msg *)p;
}

struct wire_packet *wire_packet_new(size_t n) {
	nng_msg *m = NULL;
	return nng_msg_alloc(&m, n) == 0 ? (struct wire_packet *)m : NULL;
}

void wire_packet_free(struct wire_packet *p) {
	if (p)
		nng_msg_free(to_nng(p));
}

uint8_t *wire_packet_data(struct wire_packet *p) {
	return nng_msg_body(to_nng(p));
}

size_t wire_packet_size(const struct wire_packet *p) {
	return nng_msg_len((const nng_msg *)p);
}

/* outlet */

struct wire_outlet {
	struct wire_outlet_opts opts;
	char url[WIRE_TEXT_MAX + 1];
	nng_socket sock;
	nng_dialer dialer; /* tick, and close when no tick runs */
	bool dialing;      /* dialer is there; same rule */
	nng_aio *now;      /* no callback, timeout zero */
	nng_aio *later;    /* with callback; at most one send in flight */

	pthread_mutex_t lock; /* all below */
	uint32_t coming;      /* pipe that was announced but not yet added; 0: none */
	uint32_t pipe;        /* 0: not connected */
	bool greeted, greeting_due, closed;
	bool later_busy, later_greets; /* `later` is in flight; and carries the greeting */
	uint32_t later_pipe;
	size_t later_bytes;
	struct wire_packet **ring; /* waiting packets: ring_len from ring_head on, ring_cap a power of two */
	size_t ring_cap, ring_head, ring_len, queued_bytes;
	uint64_t losses, since_ns, dial_ns, hold_until_ns;
	unsigned quick;
};

static bool queue_push(struct wire_outlet *o, struct wire_packet *p) {
	if (o->ring_len == o->ring_cap) {
		size_t cap = o->ring_cap ? o->ring_cap * 2 : 16;
		struct wire_packet **ring = malloc(cap * sizeof(*ring));
		if (!ring)
			return false;
		for (size_t i = 0; i < o->ring_len; i++)
			ring[i] = o->ring[(o->ring_head + i) & (o->ring_cap - 1)];
		free(o->ring);
		o->ring = ring;
		o->ring_cap = cap;
		o->ring_head = 0;
	}
	o->ring[(o->ring_head + o->ring_len++) & (o->ring_cap - 1)] = p;
	o->queued_bytes += wire_packet_size(p);
	return true;
}

static struct wire_packet *queue_pop(struct wire_outlet *o) {
	if (!o->ring_len)
		return NULL;
	struct wire_packet *p = o->ring[o->ring_head];
	o->ring_head = (o->ring_head + 1) & (o->ring_cap - 1);
	o->ring_len--;
	o->queued_bytes -= wire_packet_size(p);
	return p;
}

static void queue_drop(struct wire_outlet *o) {
	for (struct wire_packet *p; (p = queue_pop(o));)
		wire_packet_free(p);
}

/* True when the pipe took the packet. */
static bool send_now(struct wire_outlet *o, struct wire_packet *p) {
	nng_aio_set_msg(o->now, to_nng(p));
	nng_send_aio(o->sock, o->now);
	nng_aio_wait(o->now); /* never waits: complete on return */
	nng_aio_set_msg(o->now, NULL);
	return nng_aio_result(o->now) == 0;
}

static void pump(struct wire_outlet *o) {
	if (o->closed || o->later_busy || !o->pipe)
		return;
	struct wire_packet *p;
	bool greets = o->greeting_due;
	if (greets) {
		p = o->opts.greeting(o->opts.ctx);
		if (!p) {
			nng_pipe_close((nng_pipe){ .id = o->pipe });
			return;
		}
		o->greeting_due = false;
	} else if (!(p = queue_pop(o))) {
		return;
	}
	o->later_busy = true;
	o->later_greets = greets;
	o->later_pipe = o->pipe;
	o->later_bytes = wire_packet_size(p);
	nng_aio_set_msg(o->later, to_nng(p));
	nng_send_aio(o->sock, o->later);
}

static void on_sent(void *arg) {
	struct wire_outlet *o = arg;
	bool changed = false;
	pthread_mutex_lock(&o->lock);
	if (nng_aio_result(o->later) != 0) {
		nng_msg_free(nng_aio_get_msg(o->later));
		nng_aio_set_msg(o->later, NULL);
		/* Only a lost pipe makes a send fail; should it be another reason, order needs a new connection. */
		if (o->pipe && o->pipe == o->later_pipe)
			nng_pipe_close((nng_pipe){ .id = o->pipe });
	} else if (o->later_greets && o->pipe && o->pipe == o->later_pipe) {
		changed = !o->greeted;
		o->greeted = true;
	}
	o->later_busy = false;
	o->later_bytes = 0;
	pump(o);
	pthread_mutex_unlock(&o->lock);
	if (changed)
		o->opts.changed(o->opts.ctx);
}

static void pipe_announced(struct wire_outlet *o, uint32_t id) {
	pthread_mutex_lock(&o->lock);
	/* A renewed dialer can be quicker than the removal of its predecessor's pipe. */
	bool refuse = o->closed || o->pipe != 0;
	if (!refuse)
		o->coming = id;
	pthread_mutex_unlock(&o->lock);
	if (refuse)
		nng_pipe_close((nng_pipe){ .id = id });
}

static void pipe_added(struct wire_outlet *o, uint32_t id) {
	pthread_mutex_lock(&o->lock);
	bool use = o->coming == id && !o->closed;
	if (use) {
		o->coming = 0;
		o->pipe = id;
		o->since_ns = wire_link_now_ns();
		o->greeting_due = true;
		pump(o);
	}
	pthread_mutex_unlock(&o->lock);
	if (!use)
		nng_pipe_close((nng_pipe){ .id = id });
}

static void pipe_removed(struct wire_outlet *o, uint32_t id) {
	bool changed = false;
	pthread_mutex_lock(&o->lock);
	if (o->coming == id)
		o->coming = 0;
	if (o->pipe == id) {
		uint64_t now = wire_link_now_ns();
		changed = o->greeted;
		o->losses += o->greeted;
		o->quick = now - o->since_ns < QUICK_LOSS_NS ? o->quick + 1 : 0;
		if (o->quick >= QUICK_LOSSES) {
			o->hold_until_ns = now + REDIAL_MAX_MS * MS;
			changed = true;
		}
		o->pipe = 0;
		o->greeted = o->greeting_due = false;
		o->dial_ns = now;
		queue_drop(o);
		nng_aio_cancel(o->later);
	}
	pthread_mutex_unlock(&o->lock);
	if (changed)
		o->opts.changed(o->opts.ctx);
}

static void on_pipe(nng_pipe pipe, nng_pipe_ev ev, void *arg) {
	uint32_t id = (uint32_t)nng_pipe_id(pipe);
	if (ev == NNG_PIPE_EV_ADD_PRE)
		pipe_announced(arg, id);
	else if (ev == NNG_PIPE_EV_ADD_POST)
		pipe_added(arg, id);
	else if (ev == NNG_PIPE_EV_REM_POST)
		pipe_removed(arg, id);
}

static int notify_all(nng_socket sock, nng_pipe_cb cb, void *arg) {
	int rv = nng_pipe_notify(sock, NNG_PIPE_EV_ADD_PRE, cb, arg);
	if (rv == 0)
		rv = nng_pipe_notify(sock, NNG_PIPE_EV_ADD_POST, cb, arg);
	return rv ? rv : nng_pipe_notify(sock, NNG_PIPE_EV_REM_POST, cb, arg);
}

static int start_dialer(struct wire_outlet *o) {
	int rv = nng_dialer_create(&o->dialer, o->sock, o->url);
	if (rv)
		return rv;
	if ((rv = nng_dialer_set_bool(o->dialer, NNG_OPT_TCP_NODELAY, true)) != 0 ||
	    (rv = nng_dialer_set_ms(o->dialer, NNG_OPT_RECONNMINT, REDIAL_MIN_MS)) != 0 ||
	    (rv = nng_dialer_set_ms(o->dialer, NNG_OPT_RECONNMAXT, REDIAL_MAX_MS)) != 0 ||
	    (rv = nng_dialer_start(o->dialer, NNG_FLAG_NONBLOCK)) != 0) {
		nng_dialer_close(o->dialer);
		return rv;
	}
	o->dialing = true;
	return 0;
}

static int open_socket(struct wire_outlet *o) {
	int rv = nng_push0_open(&o->sock);
	if (rv)
		return rv;
	if ((rv = nng_aio_alloc(&o->now, NULL, NULL)) == 0 && (rv = nng_aio_alloc(&o->later, on_sent, o)) == 0 &&
	    (rv = notify_all(o->sock, on_pipe, o)) == 0) {
		nng_aio_set_timeout(o->now, NNG_DURATION_ZERO);
		nng_aio_set_timeout(o->later, NNG_DURATION_INFINITE);
		/* The other side never sends here; whatever it sends is dropped by nng, so let it be small. */
		if ((rv = nng_socket_set_size(o->sock, NNG_OPT_RECVMAXSZ, 64)) == 0)
			rv = start_dialer(o);
	}
	if (rv) {
		nng_close(o->sock);
		nng_aio_free(o->now);
		nng_aio_free(o->later);
	}
	return rv;
}

int wire_outlet_open(const struct wire_outlet_opts *opts, struct wire_outlet **ret, struct wire_err *err) {
	struct wire_outlet *o = calloc(1, sizeof(*o));
	if (!o)
		return wire_fail(err, WIRE_NOMEM, "no memory for a connection to %s", opts->url);
	o->opts = *opts;
	snprintf(o->url, sizeof(o->url), "%s", opts->url);
	o->opts.url = o->url;
	o->dial_ns = wire_link_now_ns();
	pthread_mutex_init(&o->lock, NULL);
	sigset_t old = block_signals();
	int rv = open_socket(o);
	restore_signals(&old);
	if (rv) {
		pthread_mutex_destroy(&o->lock);
		free(o);
		return fail_nng(err, rv, "dial", opts->url);
	}
	*ret = o;
	return WIRE_OK;
}

void wire_outlet_close(struct wire_outlet *o) {
	pthread_mutex_lock(&o->lock);
	o->closed = true;
	pthread_mutex_unlock(&o->lock);
	nng_close(o->sock);
	nng_aio_stop(o->later);
	nng_aio_free(o->later);
	nng_aio_free(o->now);
	queue_drop(o);
	free(o->ring);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static bool takes(const struct wire_outlet *o) {
	return !o->closed && (o->pipe || o->opts.early);
}

int wire_outlet_send(struct wire_outlet *o, struct wire_packet *p) {
	size_t n = wire_packet_size(p);
	int rc = WIRE_OK;
	pthread_mutex_lock(&o->lock);
	bool idle = o->greeted && !o->later_busy && !o->greeting_due && !o->ring_len;
	size_t held = o->queued_bytes + o->later_bytes;
	if (!takes(o))
		rc = WIRE_CLOSED;
	else if (idle && send_now(o, p))
		rc = WIRE_OK;
	else if (held && held + n > o->opts.queue_max_bytes)
		rc = WIRE_BUSY;
	else if (!queue_push(o, p))
		rc = WIRE_NOMEM;
	else
		pump(o);
	pthread_mutex_unlock(&o->lock);
	return rc;
}

bool wire_outlet_up(struct wire_outlet *o) {
	pthread_mutex_lock(&o->lock);
	bool up = o->greeted && !o->closed;
	pthread_mutex_unlock(&o->lock);
	return up;
}

bool wire_outlet_takes(struct wire_outlet *o) {
	pthread_mutex_lock(&o->lock);
	bool yes = takes(o);
	pthread_mutex_unlock(&o->lock);
	return yes;
}

uint64_t wire_outlet_losses(struct wire_outlet *o) {
	pthread_mutex_lock(&o->lock);
	uint64_t n = o->losses;
	pthread_mutex_unlock(&o->lock);
	return n;
}

uint64_t wire_outlet_since_ns(struct wire_outlet *o) {
	pthread_mutex_lock(&o->lock);
	uint64_t t = o->pipe ? o->since_ns : 0;
	pthread_mutex_unlock(&o->lock);
	return t;
}

void wire_outlet_greet_again(struct wire_outlet *o) {
	pthread_mutex_lock(&o->lock);
	if (o->pipe) {
		o->greeting_due = true;
		pump(o);
	}
	pthread_mutex_unlock(&o->lock);
}

void wire_outlet_reset(struct wire_outlet *o) {
	pthread_mutex_lock(&o->lock);
	uint32_t id = o->pipe;
	pthread_mutex_unlock(&o->lock);
	if (id)
		nng_pipe_close((nng_pipe){ .id = id });
}

void wire_outlet_hold(struct wire_outlet *o, uint64_t until_ns) {
	pthread_mutex_lock(&o->lock);
	if (until_ns > o->hold_until_ns)
		o->hold_until_ns = until_ns;
	pthread_mutex_unlock(&o->lock);
}

void wire_outlet_tick(struct wire_outlet *o, uint64_t now_ns) {
	pthread_mutex_lock(&o->lock);
	bool hold = o->hold_until_ns > now_ns;
	bool stuck = !o->pipe && now_ns > o->dial_ns + STUCK_DIAL_NS;
	bool closed = o->closed;
	pthread_mutex_unlock(&o->lock);
	if (closed)
		return;
	sigset_t old = block_signals();
	if (o->dialing && (hold || stuck)) {
		nng_dialer_close(o->dialer);
		o->dialing = false;
	}
	/* Without memory for a dialer the next tick tries again. */
	bool started = !o->dialing && !hold && start_dialer(o) == 0;
	restore_signals(&old);
	if (started) {
		pthread_mutex_lock(&o->lock);
		o->dial_ns = now_ns;
		pthread_mutex_unlock(&o->lock);
	}
}

/* inlet */

struct wire_inlet {
	struct wire_inlet_opts opts;
	nng_socket sock;
	nng_aio *recv;
};

static void on_received(void *arg) {
	struct wire_inlet *in = arg;
	int rv = nng_aio_result(in->recv);
	if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
		return;
	if (rv == 0) {
		nng_msg *m = nng_aio_get_msg(in->recv);
		nng_aio_set_msg(in->recv, NULL);
		in->opts.packet(in->opts.ctx, (uint32_t)nng_pipe_id(nng_msg_get_pipe(m)), (struct wire_packet *)m);
	}
	nng_recv_aio(in->sock, in->recv);
}

static void on_inlet_pipe(nng_pipe pipe, nng_pipe_ev ev, void *arg) {
	struct wire_inlet *in = arg;
	uint32_t id = (uint32_t)nng_pipe_id(pipe);
	if (ev == NNG_PIPE_EV_ADD_PRE)
		in->opts.opened(in->opts.ctx, id);
	else if (ev == NNG_PIPE_EV_REM_POST)
		in->opts.closed(in->opts.ctx, id);
}

static int listen_on(struct wire_inlet *in, const char *url) {
	nng_listener listener;
	int rv = nng_pull0_open(&in->sock);
	if (rv)
		return rv;
	if ((rv = nng_aio_alloc(&in->recv, on_received, in)) == 0 &&
	    (rv = notify_all(in->sock, on_inlet_pipe, in)) == 0 &&
	    (rv = nng_socket_set_size(in->sock, NNG_OPT_RECVMAXSZ, in->opts.packet_max_bytes)) == 0 &&
	    (rv = nng_listener_create(&listener, in->sock, url)) == 0 &&
	    (rv = nng_listener_set_bool(listener, NNG_OPT_TCP_NODELAY, true)) == 0)
		rv = nng_listener_start(listener, 0);
	if (rv) {
		nng_close(in->sock);
		nng_aio_free(in->recv);
		return rv;
	}
	nng_recv_aio(in->sock, in->recv);
	return 0;
}

int wire_inlet_open(const struct wire_inlet_opts *opts, struct wire_inlet **ret, struct wire_err *err) {
	struct wire_inlet *in = calloc(1, sizeof(*in));
	if (!in)
		return wire_fail(err, WIRE_NOMEM, "no memory to listen on %s", opts->url);
	in->opts = *opts;
	in->opts.url = NULL;
	sigset_t old = block_signals();
	int rv = listen_on(in, opts->url);
	restore_signals(&old);
	if (rv) {
		free(in);
		const char *port = strrchr(opts->url, ':');
		if (rv == NNG_EADDRINUSE)
			return wire_fail(err, WIRE_BUSY,
			                 "cannot listen on %s: the address is taken. `ss -ltnp 'sport = %s'` shows by which "
			                 "program; end that or choose another port",
			                 opts->url, port ? port : "");
		if (rv == NNG_EADDRINVAL)
			return wire_fail(err, WIRE_INVALID, "cannot listen on %s: no address of this machine", opts->url);
		return fail_nng(err, rv, "listen on", opts->url);
	}
	*ret = in;
	return WIRE_OK;
}

void wire_inlet_close(struct wire_inlet *in) {
	nng_close(in->sock);
	nng_aio_stop(in->recv);
	nng_aio_free(in->recv);
	free(in);
}

void wire_inlet_drop(struct wire_inlet *in, uint32_t conn) {
	(void)in;
	nng_pipe_close((nng_pipe){ .id = conn });
}

void wire_inlet_host(struct wire_inlet *in, uint32_t conn, char *dst, size_t cap) {
	(void)in;
	nng_sockaddr a;
	char text[INET6_ADDRSTRLEN] = "";
	dst[0] = 0;
	if (nng_pipe_get_addr((nng_pipe){ .id = conn }, NNG_OPT_REMADDR, &a) != 0)
		return;
	if (a.s_family == NNG_AF_INET && inet_ntop(AF_INET, &a.s_in.sa_addr, text, sizeof(text)))
		snprintf(dst, cap, "%s", text);
	else if (a.s_family == NNG_AF_INET6 && inet_ntop(AF_INET6, a.s_in6.sa_addr, text, sizeof(text)))
		snprintf(dst, cap, "[%s]", text);
}
