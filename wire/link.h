/* Links: one listening URL per node; to each peer three outgoing lanes with a connection each.
 *
 * A message is queued, never waited for: delivery is not promised, order per lane is. A lane's queue is bounded in
 * bytes; what does not fit is refused with WIRE_BUSY and the caller's protocol copes (Raft resends). When a lane loses
 * its connection its queue is dropped and on_peer tells.
 *
 * Every connection starts with HELLO, answered on the same connection by HELLO_REPLY; nothing else is sent before the
 * other side accepted. Anything else first, another protocol version, or another cluster closes it, and the refused side
 * gets the reason by on_refused. A HELLO with cluster 0 is a *guest* (a node that is joining): its messages are delivered
 * with guest = true, and it can be answered by its node id for as long as it stays connected (the link dials the URL of
 * its HELLO, with the connection's own address in place of a wildcard host). So can a node of our cluster that is no peer,
 * or none any more: it may have to be told so. Its messages have guest = false.
 * A node that joins may know only an address, not the id behind it: it may add a peer by a made-up id. As long as one
 * side has cluster 0 that passes; between members a HELLO that means another node id is refused.
 *
 * A HELLO with cluster 0 and no URL is an *asker* (wire/ask.h): a program that is no node, has no address of its own, and gets its
 * answers on the connection that it made. Of its messages only QUERY_OPEN, QUERY_NEXT and QUERY_CLOSE are taken, of WIRE_ASK_MAX bytes at
 * most; their `conn` says which connection to answer. Askers come only to links with on_asker_gone; one that says nothing for two
 * minutes is disconnected.
 *
 * A received message's `from` is always the node that greeted; wire_link_send puts our own id there.
 *
 * A peer from which nothing arrived for silence_ms although its lane is up is taken as gone: its connections are closed
 * and dialled again; callers send heartbeats more often than that. Redialling waits up to 250 ms, after a refusal a
 * second. Guests, and a link that is a guest itself, are not watched for silence.
 *
 * What it leaves in its host: after the last wire_link_close of the process neither threads nor descriptors, unless
 * the shared libnng was configured, which keeps a fixed number of both. (A name server that does not answer holds them
 * up until the system gives up asking it; the close itself does not wait for that.)
 *
 * Fork: in a child all descriptors of its parent's links are closed before fork returns. If the parent had a link then,
 * the child can have none: wire_link_open gives WIRE_UNSUPPORTED, wire_link_close does nothing, and nothing else may be
 * called with the parent's links. If it had none (any more), the child may use links, but not with the shared libnng
 * when any was used before. A shared libnng that the host itself used before the fork ends the child (abort) when it
 * opens a link, which cannot be known here.
 *
 * Threads: all functions may be called from any thread, except wire_link_close, which must not be called from a
 * callback. Callbacks run on nng's threads, several at a time for different connections (one at a time for each); they
 * must only hand over: no blocking, no calls of this interface but wire_link_msg_free. */
#ifndef WIRE_LINK_H
#define WIRE_LINK_H

#include "wire/env.h"
#include "wire/err.h"
#include "wire/msg.h"

#define WIRE_ASK_MAX 65536u /* bytes of an asker's message */
#define WIRE_ASKERS_MAX 64u

enum wire_lane { WIRE_LANE_CONTROL, WIRE_LANE_LOG, WIRE_LANE_BULK, WIRE_LANE_COUNT };

struct wire_link;

/* A received message and the memory behind it. Free with wire_link_msg_free. */
struct wire_link_msg {
	struct wire_msg msg;
	bool guest;
	uint32_t conn;                /* of an asker; 0: a node's */
	void *impl;                   /* private */
	struct wire_link_msg *next;   /* for the receiver's queue */
};

struct wire_link_opts {
	const char *listen_url; /* tcp://HOST:PORT */
	uint64_t cluster;       /* 0: we are a guest */
	uint64_t self;          /* node id */
	uint64_t group;
	uint32_t silence_ms;    /* 0: 1500 */
	size_t queue_max_bytes; /* a lane's queue; 0: 32 MiB */
	void *ctx;
	void (*on_msg)(void *ctx, struct wire_link_msg *m); /* takes ownership */
	/* Both control and log lane of the peer are accepted (up) or no longer are (down). Not for guests, nor for a
	 * peer that was removed. */
	void (*on_peer)(void *ctx, uint64_t peer, bool up);
	/* A peer refused our HELLO. peer is the id given to wire_link_add_peer. Comes again every second or so while it
	 * lasts. */
	void (*on_refused)(void *ctx, uint64_t peer, const char *why);
	/* The connection of an asker is closed; the last that is heard of it. NULL: askers are refused. */
	void (*on_asker_gone)(void *ctx, uint32_t conn);
};

/* Listens. WIRE_BUSY when the address is taken (the text says how to find out by whom), WIRE_INVALID for a bad URL,
 * WIRE_UNSUPPORTED in a forked child (above), WIRE_IO when there are not enough threads or descriptors left. All
 * signals are blocked in the threads that nng starts. */
int wire_link_open(const struct wire_link_opts *opts, struct wire_link **ret_link, struct wire_err *err);
void wire_link_close(struct wire_link *l); /* stops callbacks, closes everything, waits until done */

/* From a guest to a member: HELLO goes out again with this cluster id on the connections that are there, and on later
 * ones; connections from nodes of other clusters are closed. */
void wire_link_set_cluster(struct wire_link *l, uint64_t cluster);

/* Dials a peer and keeps it dialled. A second add with another URL replaces the first, one with the same URL changes
 * nothing. WIRE_INVALID: bad URL, id 0 or our own id. */
int wire_link_add_peer(struct wire_link *l, uint64_t peer, const char *url, struct wire_err *err);
/* Nothing more is heard of the peer's connections but a call of on_peer that is already under way. While it stays connected to us it can
 * still be answered. */
void wire_link_remove_peer(struct wire_link *l, uint64_t peer);

/* Encodes and queues; on an idle lane it writes the socket itself. WIRE_CLOSED: no such peer or not connected;
 * WIRE_BUSY: queue full; WIRE_NOMEM; and as wire_msg_encode. */
int wire_link_send(struct wire_link *l, uint64_t peer, enum wire_lane lane, const struct wire_msg *m);
/* To an asker. WIRE_CLOSED: it is gone; WIRE_BUSY: it does not read what it asked for; WIRE_NOMEM; and as wire_msg_encode. */
int wire_link_answer(struct wire_link *l, uint32_t conn, const struct wire_msg *m);
void wire_link_hang_up(struct wire_link *l, uint32_t conn); /* on_asker_gone follows */
bool wire_link_is_up(struct wire_link *l, uint64_t peer);
void wire_link_msg_free(struct wire_link_msg *m);

/* WIRE_INVALID unless url is tcp://HOST:PORT with HOST an IPv4 address, [IPv6] or name, PORT 1..65535;
 * *ret_loopback: 127.0.0.0/8, [::1] or localhost. */
int wire_url_check(const char *url, bool *ret_loopback, struct wire_err *err);

#endif
