/* Outlets: redialling, the greeting, the queue. */
#include "wire/link_io.h"
#include "wire/msg.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REDIAL_MIN_MS = 10, REDIAL_MAX_MS = 250, BACK_MAX_BYTES = 4096 };

static const uint64_t MS = 1000000;
static const uint64_t QUICK_LOSS_NS = 200 * 1000000u;   /* who loses connections so early waits ever longer */
static const uint64_t NO_ANSWER_NS = 2000 * 1000000ull; /* a greeting without answer for that long is tried anew */
static const uint64_t REFUSED_NS = 1000 * 1000000u;

struct wire_outlet {
	struct wire_outlet_opts opts;
	char url[WIRE_TEXT_MAX + 1];
	struct wire_dial *dial;

	pthread_mutex_t lock; /* all below */
	struct wire_stream *stream;
	struct wire_stream *gone; /* lost, to be freed by the next tick, which comes before the next dialling */
	bool closed, dialling;
	bool greeting_due, accepted;
	bool busy; /* the stream has not written all it was given: out_bytes */
	size_t out_bytes;
	struct wire_packet **ring; /* waiting packets: ring_len from ring_head on, ring_cap a power of two */
	size_t ring_cap, ring_head, ring_len, queued_bytes;
	uint64_t losses, made_ns, accepted_ns, hold_until_ns;
	uint32_t backoff_ms;
	unsigned quick;
};

static bool queue_push(struct wire_outlet *o, struct wire_packet *p)
{
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
	o->queued_bytes += p->size;
	return true;
}

static struct wire_packet *queue_pop(struct wire_outlet *o)
{
	if (!o->ring_len)
		return NULL;
	struct wire_packet *p = o->ring[o->ring_head];
	o->ring_head = (o->ring_head + 1) & (o->ring_cap - 1);
	o->ring_len--;
	o->queued_bytes -= p->size;
	return p;
}

static void queue_drop(struct wire_outlet *o)
{
	for (struct wire_packet *p; (p = queue_pop(o));)
		wire_packet_free(p);
}

static void pump(struct wire_outlet *o)
{
	while (o->stream && !o->closed && !o->busy) {
		struct wire_packet *v[WIRE_BATCH_MAX], *p;
		size_t n = 0;
		if (o->greeting_due) {
			p = o->opts.greeting(o->opts.ctx);
			if (!p) {
				wire_stream_kill(o->stream);
				return;
			}
			o->greeting_due = false;
			v[n++] = p;
		}
		while (o->accepted && n < WIRE_BATCH_MAX && (p = queue_pop(o)))
			v[n++] = p;
		if (!n)
			return;
		o->out_bytes = 0;
		for (size_t i = 0; i < n; i++)
			o->out_bytes += v[i]->size;
		o->busy = !wire_stream_send(o->stream, v, n);
	}
}

static void on_packet(void *ctx, struct wire_stream *s, struct wire_packet *p)
{
	(void)s;
	struct wire_outlet *o = ctx;
	o->opts.packet(o->opts.ctx, o, p);
}

static void on_sent(void *ctx, struct wire_stream *s)
{
	struct wire_outlet *o = ctx;
	pthread_mutex_lock(&o->lock);
	if (o->stream == s) {
		o->busy = false;
		pump(o);
	}
	pthread_mutex_unlock(&o->lock);
}

static void on_lost(void *ctx, struct wire_stream *s)
{
	struct wire_outlet *o = ctx;
	pthread_mutex_lock(&o->lock);
	bool ours = o->stream == s;
	if (ours) {
		uint64_t now = wire_link_now_ns();
		o->quick = now - o->made_ns < QUICK_LOSS_NS ? o->quick + 1 : 0;
		uint64_t wait_ms = o->quick > 5 ? REDIAL_MAX_MS
		                   : o->quick   ? (uint64_t)REDIAL_MIN_MS << (o->quick - 1)
		                                : 0;
		if (now + wait_ms * MS > o->hold_until_ns)
			o->hold_until_ns = now + wait_ms * MS;
		o->losses += o->accepted;
		/* What was given for a first connection waits for it. */
		if (o->accepted || !o->opts.early)
			queue_drop(o);
		o->gone = s;
		o->stream = NULL;
		o->accepted = o->busy = false;
	}
	pthread_mutex_unlock(&o->lock);
	if (ours)
		o->opts.changed(o->opts.ctx);
}

static void on_dialled(void *ctx, struct wire_stream *s)
{
	struct wire_outlet *o = ctx;
	uint32_t delay_ms = 0;
	pthread_mutex_lock(&o->lock);
	bool closed = o->closed;
	if (closed) {
		o->dialling = false;
	} else if (!s) {
		delay_ms = o->backoff_ms;
		o->backoff_ms = delay_ms * 2 > REDIAL_MAX_MS ? REDIAL_MAX_MS : delay_ms * 2;
	} else {
		struct wire_stream_events e = { o, on_packet, on_sent, on_lost };
		o->dialling = false;
		o->backoff_ms = REDIAL_MIN_MS;
		o->made_ns = wire_link_now_ns();
		o->stream = s;
		o->greeting_due = true;
		wire_stream_start(s, &e, BACK_MAX_BYTES);
		pump(o);
	}
	pthread_mutex_unlock(&o->lock);
	if (closed && s)
		wire_stream_free(s);
	else if (!closed && !s)
		wire_dial_start(o->dial, delay_ms);
}

int wire_outlet_open(const struct wire_outlet_opts *opts, struct wire_outlet **ret, struct wire_err *err)
{
	struct wire_outlet *o = calloc(1, sizeof(*o));
	if (!o)
		return wire_fail(err, WIRE_NOMEM, "no memory for a connection to %s", opts->url);
	o->opts = *opts;
	snprintf(o->url, sizeof(o->url), "%s", opts->url);
	o->opts.url = o->url;
	o->backoff_ms = REDIAL_MIN_MS;
	o->dialling = true;
	int rc = wire_dial_new(o->url, o, on_dialled, &o->dial, err);
	if (rc) {
		free(o);
		return rc;
	}
	pthread_mutex_init(&o->lock, NULL);
	wire_dial_start(o->dial, 0);
	*ret = o;
	return WIRE_OK;
}

void wire_outlet_close(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	o->closed = true;
	pthread_mutex_unlock(&o->lock);
	wire_dial_free(o->dial);
	pthread_mutex_lock(&o->lock);
	struct wire_stream *s = o->stream, *gone = o->gone;
	o->stream = o->gone = NULL;
	pthread_mutex_unlock(&o->lock);
	if (s)
		wire_stream_free(s);
	if (gone)
		wire_stream_free(gone);
	queue_drop(o);
	free(o->ring);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

void wire_outlet_accepted(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	bool news = o->stream && !o->accepted;
	if (news) {
		o->accepted = true;
		o->accepted_ns = wire_link_now_ns();
		pump(o);
	}
	pthread_mutex_unlock(&o->lock);
	if (news)
		o->opts.changed(o->opts.ctx);
}

static bool takes(const struct wire_outlet *o)
{
	return !o->closed && (o->accepted || o->opts.early);
}

int wire_outlet_send(struct wire_outlet *o, struct wire_packet *p)
{
	int rc = WIRE_OK;
	pthread_mutex_lock(&o->lock);
	size_t held = o->queued_bytes + (o->busy ? o->out_bytes : 0);
	if (!takes(o))
		rc = WIRE_CLOSED;
	else if (held && held + p->size > o->opts.queue_max_bytes)
		rc = WIRE_BUSY;
	else if (!queue_push(o, p))
		rc = WIRE_NOMEM;
	else
		pump(o);
	pthread_mutex_unlock(&o->lock);
	return rc;
}

bool wire_outlet_up(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	bool up = o->accepted && !o->closed;
	pthread_mutex_unlock(&o->lock);
	return up;
}

bool wire_outlet_takes(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	bool yes = takes(o);
	pthread_mutex_unlock(&o->lock);
	return yes;
}

uint64_t wire_outlet_losses(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	uint64_t n = o->losses;
	pthread_mutex_unlock(&o->lock);
	return n;
}

uint64_t wire_outlet_since_ns(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	uint64_t t = o->accepted ? o->accepted_ns : 0;
	pthread_mutex_unlock(&o->lock);
	return t;
}

void wire_outlet_greet_again(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	if (o->stream) {
		o->greeting_due = true;
		pump(o);
	}
	pthread_mutex_unlock(&o->lock);
}

void wire_outlet_reset(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	if (o->stream)
		wire_stream_kill(o->stream);
	pthread_mutex_unlock(&o->lock);
}

void wire_outlet_refused(struct wire_outlet *o)
{
	pthread_mutex_lock(&o->lock);
	o->hold_until_ns = wire_link_now_ns() + REFUSED_NS;
	if (o->stream)
		wire_stream_kill(o->stream);
	pthread_mutex_unlock(&o->lock);
}

void wire_outlet_tick(struct wire_outlet *o, uint64_t now_ns)
{
	pthread_mutex_lock(&o->lock);
	struct wire_stream *gone = o->gone;
	o->gone = NULL;
	if (o->stream && !o->accepted && now_ns > o->made_ns + NO_ANSWER_NS)
		wire_stream_kill(o->stream);
	bool dial = !o->stream && !o->dialling && !o->closed && now_ns >= o->hold_until_ns;
	o->dialling = o->dialling || dial;
	pthread_mutex_unlock(&o->lock);
	if (gone)
		wire_stream_free(gone);
	if (dial)
		wire_dial_start(o->dial, 0);
}
