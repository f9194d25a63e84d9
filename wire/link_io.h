/* Private to link*.c: connections without any idea of nodes. No type of nng shows.
 *
 *   packet   the bytes of one message; on a connection its length goes before it (u32, little endian)
 *   stream   one connection (link_nng.c)
 *   dial     attempts to make a connection (link_nng.c)
 *   inlet    the listening address and the streams that others made to it (link_nng.c)
 *   outlet   one stream to another node: dialled again and again, greets first, has a queue (link_outlet.c)
 *
 * Callbacks come from the transport's threads, with no lock held but where it is said. Functions called `free` or
 * `close` wait until no callback of that object runs any more; therefore they must not be called from a callback. */
#ifndef WIRE_LINK_IO_H
#define WIRE_LINK_IO_H

#include "wire/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_BATCH_MAX 8 /* packets in one system call */

struct wire_packet {
	uint32_t size;
	uint8_t prefix[4]; /* what goes on the wire starts here */
	uint8_t data[];
};
_Static_assert(offsetof(struct wire_packet, data) == offsetof(struct wire_packet, prefix) + 4, "one piece of memory");

struct wire_packet *wire_packet_new(size_t n); /* NULL: no memory */
void wire_packet_free(struct wire_packet *p);  /* NULL allowed */

uint64_t wire_link_now_ns(void); /* CLOCK_BOOTTIME */

/* stream */

struct wire_stream;
struct wire_stream_events {
	void *ctx;
	void (*packet)(void *ctx, struct wire_stream *s, struct wire_packet *p); /* takes it; one at a time, in order */
	void (*sent)(void *ctx, struct wire_stream *s); /* what wire_stream_send could not write at once is written */
	void (*lost)(void *ctx,
	             struct wire_stream *s); /* once, the last of `packet` and `lost`; a `sent` may come later */
};

/* Sends packets, at most WIRE_BATCH_MAX, and takes them. True: all is written, or the connection is lost. False: more
 * may be sent only after `sent`. Calls must not overlap, nor run beside a `sent` that was not waited for. */
bool wire_stream_send(struct wire_stream *s, struct wire_packet **v, size_t n);
/* Packets larger than that close the connection. */
void wire_stream_limit(struct wire_stream *s, size_t packet_max_bytes);
void wire_stream_kill(struct wire_stream *s); /* `lost` follows, perhaps before this returns */
/* The other end's address as it stands in a URL, e.g. "10.0.0.1" or "[fd00::1]"; "" when unknown. */
void wire_stream_host(struct wire_stream *s, char *dst, size_t cap);
/* Begins to receive. Events come from now on. */
void wire_stream_start(struct wire_stream *s, const struct wire_stream_events *events, size_t packet_max_bytes);
void wire_stream_free(struct wire_stream *s); /* started or not */

/* dial */

struct wire_dial;
/* done gets a stream that is not started, or NULL; it may call wire_dial_start. */
int wire_dial_new(const char *url, void *ctx, void (*done)(void *ctx, struct wire_stream *s), struct wire_dial **ret,
                  struct wire_err *err);
void wire_dial_start(struct wire_dial *d, uint32_t delay_ms); /* one attempt at a time */
void wire_dial_free(struct wire_dial *d);

/* inlet */

struct wire_inlet_opts {
	const char *url;
	size_t packet_max_bytes; /* at first */
	void *ctx;
	/* False: closed at once. */
	bool (*opened)(void *ctx, uint32_t conn);
	void (*packet)(void *ctx, uint32_t conn, struct wire_packet *p);
	/* What wire_inlet_reply could not write at once is written. May come after `closed`. */
	void (*sent)(void *ctx, uint32_t conn);
	void (*closed)(void *ctx, uint32_t conn); /* the last one but `sent` for this connection; a tick is due */
};

struct wire_inlet;

/* WIRE_BUSY when the address is taken, WIRE_INVALID when it is none of this machine. */
int wire_inlet_open(const struct wire_inlet_opts *opts, struct wire_inlet **ret, struct wire_err *err);
void wire_inlet_close(struct wire_inlet *in);
void wire_inlet_drop(struct wire_inlet *in, uint32_t conn); /* nothing when it is gone */
/* Sends a packet back, unless an earlier one is not written yet, and takes it. True: all is written, or the connection is gone. False:
 * the next one may be sent only after `sent`. */
bool wire_inlet_reply(struct wire_inlet *in, uint32_t conn, struct wire_packet *p);
void wire_inlet_limit(struct wire_inlet *in, uint32_t conn, size_t packet_max_bytes);
void wire_inlet_host(struct wire_inlet *in, uint32_t conn, char *dst, size_t cap);
void wire_inlet_tick(struct wire_inlet *in); /* frees what is gone; by one thread at a time, not from a callback */

/* outlet */

struct wire_outlet;

struct wire_outlet_opts {
	const char *url;
	size_t queue_max_bytes;
	bool early; /* packets are taken before the first connection is there, too */
	void *ctx;
	/* The packet that goes first on a connection; NULL (no memory) closes it. Called with the outlet's lock held.
	 */
	struct wire_packet *(*greeting)(void *ctx);
	/* What the other side sent back. Takes the packet. */
	void (*packet)(void *ctx, struct wire_outlet *o, struct wire_packet *p);
	/* wire_outlet_up or wire_outlet_losses changed, or a tick is due. */
	void (*changed)(void *ctx);
};

int wire_outlet_open(const struct wire_outlet_opts *opts, struct wire_outlet **ret, struct wire_err *err);
void wire_outlet_close(struct wire_outlet *o);
/* The greeting was accepted: to be called from `packet`. */
void wire_outlet_accepted(struct wire_outlet *o);
/* Takes the packet when it returns WIRE_OK. WIRE_CLOSED: not accepted yet; WIRE_BUSY: the queue is full; WIRE_NOMEM. */
int wire_outlet_send(struct wire_outlet *o, struct wire_packet *p);
bool wire_outlet_takes(struct wire_outlet *o);        /* would take a packet now, but for the size of its queue */
bool wire_outlet_up(struct wire_outlet *o);           /* connected and accepted */
uint64_t wire_outlet_losses(struct wire_outlet *o);   /* how often an accepted connection was lost */
uint64_t wire_outlet_since_ns(struct wire_outlet *o); /* when the present one was accepted; 0 when it was not */
void wire_outlet_greet_again(struct wire_outlet *o);  /* before what is queued */
void wire_outlet_reset(struct wire_outlet *o);        /* closes the connection, which is dialled again */
void wire_outlet_refused(struct wire_outlet *o);      /* closes it, and dials again only after a second */
/* To be called every 50 ms or so, and after `changed`, by one thread at a time, not from a callback. */
void wire_outlet_tick(struct wire_outlet *o, uint64_t now_ns);

#endif
