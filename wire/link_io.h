/* Private to link*.c: connections without any idea of nodes. link_nng.c implements it; no type of nng shows.
 *
 * An *outlet* is one outgoing connection that is kept dialled; it sends its greeting first on every connection. The
 * *inlet* is the listening socket with all connections that others made to us. Packets are memory that the transport
 * takes over without copying.
 *
 * Locks: an outlet has one of its own, innermost: nothing of link.c is called under it but `greeting`. Callbacks come
 * from the transport's threads with no lock held, and may call everything here but open and close. */
#ifndef WIRE_LINK_IO_H
#define WIRE_LINK_IO_H

#include "wire/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_packet;
struct wire_packet *wire_packet_new(size_t n); /* NULL: no memory */
void wire_packet_free(struct wire_packet *p);  /* NULL allowed */
uint8_t *wire_packet_data(struct wire_packet *p);
size_t wire_packet_size(const struct wire_packet *p);

struct wire_outlet_opts {
	const char *url;
	size_t queue_max_bytes;
	bool early; /* packets are taken before the first connection is there, too */
	void *ctx;
	/* The packet that goes first on a connection; NULL (no memory) closes it. Called with the outlet's lock held. */
	struct wire_packet *(*greeting)(void *ctx);
	/* wire_outlet_up or wire_outlet_losses changed, or a tick is due earlier than usual. */
	void (*changed)(void *ctx);
};

struct wire_outlet;

int wire_outlet_open(const struct wire_outlet_opts *opts, struct wire_outlet **ret, struct wire_err *err);
/* Waits until no callback runs any more. Not from a callback. */
void wire_outlet_close(struct wire_outlet *o);
/* Takes the packet when it returns WIRE_OK. WIRE_CLOSED: not connected; WIRE_BUSY: the queue is full; WIRE_NOMEM. */
int wire_outlet_send(struct wire_outlet *o, struct wire_packet *p);
/* Connected and the greeting handed over. */
bool wire_outlet_up(struct wire_outlet *o);
/* Would take a packet now, but for the size of its queue. */
bool wire_outlet_takes(struct wire_outlet *o);
/* How often a connection was lost after its greeting. */
uint64_t wire_outlet_losses(struct wire_outlet *o);
/* When the present connection was made; 0 when there is none. */
uint64_t wire_outlet_since_ns(struct wire_outlet *o);
/* Sends the greeting again, before what is queued. */
void wire_outlet_greet_again(struct wire_outlet *o);
/* Closes the connection, which is dialled again. */
void wire_outlet_reset(struct wire_outlet *o);
/* No connection before that time. */
void wire_outlet_hold(struct wire_outlet *o, uint64_t until_ns);
/* To be called every 100 ms or so, by one thread at a time, not from a callback: renews a dialer that hangs or that is
 * thrown out again and again. */
void wire_outlet_tick(struct wire_outlet *o, uint64_t now_ns);

struct wire_inlet_opts {
	const char *url;
	size_t packet_max_bytes;
	void *ctx;
	void (*opened)(void *ctx, uint32_t conn);
	void (*closed)(void *ctx, uint32_t conn);
	/* Takes the packet. One at a time; in order for each connection. */
	void (*packet)(void *ctx, uint32_t conn, struct wire_packet *p);
};

struct wire_inlet;

/* WIRE_BUSY when the address is taken, WIRE_INVALID when it is none of this machine. */
int wire_inlet_open(const struct wire_inlet_opts *opts, struct wire_inlet **ret, struct wire_err *err);
void wire_inlet_close(struct wire_inlet *in); /* waits until no callback runs any more; not from a callback */
void wire_inlet_drop(struct wire_inlet *in, uint32_t conn);
/* The other end's address as it stands in a URL, e.g. "10.0.0.1" or "[fd00::1]"; "" when unknown. */
void wire_inlet_host(struct wire_inlet *in, uint32_t conn, char *dst, size_t cap);

uint64_t wire_link_now_ns(void); /* CLOCK_BOOTTIME */

#endif
