/* Private to link*.c: the state of a link. link.c has peers and the interface, link_in.c what comes in, link_watch.c
 * the thread that looks after all of it.
 *
 * Locks, outermost first: `tell` (serialises on_peer; held while it runs), `table` (peers, incoming connections,
 * lists), then an outlet's own. Nothing that a program may call takes `tell`, so that a callback may wait for a lock
 * that the caller of wire_link_send holds. A peer found in the table is used under a count of users; who takes it out
 * of the table leaves it to the link's thread, which closes it once nobody uses it. */
#ifndef WIRE_LINK_IMPL_H
#define WIRE_LINK_IMPL_H

#include "wire/link.h"
#include "wire/link_greet.h"
#include "wire/link_io.h"
#include <pthread.h>
#include <stdatomic.h>

#define WIRE_LINK_MS 1000000u /* nanoseconds */

struct wire_peer;

struct wire_peer_lane {
	struct wire_peer *peer;
	enum wire_lane no;
	struct wire_outlet *out;
};

struct wire_peer {
	struct wire_link *link;
	uint64_t id;
	char url[WIRE_TEXT_MAX + 1];
	struct wire_peer_lane lanes[WIRE_LANE_COUNT];
	atomic_uint users;
	atomic_bool live; /* all its lanes are there, and it is or is about to be in the table */
	atomic_bool guest;
	atomic_bool anew; /* it was removed since it was last told of */
	_Atomic uint64_t heard_ns;
	uint64_t told_losses; /* this and the next: `tell` */
	bool told;
	struct wire_peer *next_dead;
};

struct wire_asker;

struct wire_link {
	struct wire_link_opts opts;
	char url[WIRE_TEXT_MAX + 1];
	uint64_t silence_ns;
	_Atomic uint64_t cluster, grace_ns; /* silence counts from grace_ns on at the earliest */
	atomic_bool closing;
	struct wire_inlet *inlet;
	pthread_t thread;
	pthread_cond_t wake;
	pthread_mutex_t tell, table;
	bool wake_due, stop; /* from here on: table */
	struct wire_peer **peers;
	size_t n_peers, cap_peers;
	struct wire_peer **scratch; /* the thread's own */
	size_t cap_scratch;
	struct wire_peer *dead;
	struct wire_conns conns;
	pthread_mutex_t ask; /* innermost; below */
	struct wire_asker *askers;
	unsigned n_askers;
};

/* link.c. Functions called ..._locked need `table`. */
void wire_link_wake(struct wire_link *l);
struct wire_peer *wire_peer_find_locked(struct wire_link *l, uint64_t id);
struct wire_peer *wire_peer_use(struct wire_link *l, uint64_t id); /* NULL: none of that id */
void wire_peer_unuse(struct wire_peer *p);
/* Takes it out of the table, if it is there, and leaves it to the thread. */
void wire_peer_bury_locked(struct wire_link *l, struct wire_peer *p);
/* Calls on_peer when there is news. */
void wire_peer_tell(struct wire_peer *p);
/* Opens a peer and puts it into the table in place of any other of its id (a guest: only if there is none). */
int wire_peer_add(struct wire_link *l, uint64_t id, const char *url, bool guest, struct wire_err *err);
void wire_peer_close(struct wire_peer *p);                                     /* and frees it */
struct wire_packet *wire_link_packet(const struct wire_msg *m, int *ret_code); /* NULL: see *ret_code */

/* link_in.c */
void wire_link_greeting_answer(struct wire_link *l, uint32_t conn, const struct wire_msg *hello, const char *why); /* why: it is refused */
void wire_link_greeting_refuse(struct wire_link *l, uint32_t conn, const struct wire_msg *hello, const char *why);
bool wire_link_greeted_locked(struct wire_link *l, uint64_t id); /* a member of our cluster by that id is connected to us */
bool wire_link_on_opened(void *ctx, uint32_t conn);
void wire_link_on_closed(void *ctx, uint32_t conn);
void wire_link_on_packet(void *ctx, uint32_t conn, struct wire_packet *packet);
/* To our greeting; ctx: struct wire_peer_lane, whose `out` may not be set yet. */
void wire_link_on_answer(void *ctx, struct wire_outlet *out, struct wire_packet *packet);

/* link_ask.c */
bool wire_asker_add(struct wire_link *l, uint32_t conn); /* false: there are too many, or there is no memory */
void wire_asker_remove(struct wire_link *l, uint32_t conn); /* and tells; nothing when it is none */
void wire_asker_greet(struct wire_link *l, uint32_t conn, const struct wire_msg *hello, unsigned version);
bool wire_asker_may_send(const struct wire_link_msg *m);
void wire_link_on_sent(void *ctx, uint32_t conn);

/* link_watch.c */
void *wire_link_watch(void *arg);

#endif
