/* Private to link*.c: the connections that others made to us, and whom a greeting lets in. Pure: no locks, no I/O. */
#ifndef WIRE_LINK_GREET_H
#define WIRE_LINK_GREET_H

#include "wire/link.h"

#define WIRE_UNGREETED_MAX 64u
#define WIRE_UNGREETED_NS 5000000000u
#define WIRE_ASKER_IDLE_NS 120000000000u
#define WIRE_REFUSED_NS 1000000000u /* time to read why */

struct wire_conn {
	uint32_t id;
	bool greeted, refused, guest, asker; /* at most one of the first two */
	uint8_t lane;
	uint64_t peer, cluster; /* as greeted */
	uint64_t since_ns; /* an asker: its last message */
};

struct wire_conns {
	struct wire_conn *v; /* oldest first */
	size_t len, cap;
};

/* Adds a connection. *ret_evict: one that has to be closed because too many have not greeted, removed already; else 0.
 * False: no memory, and nothing was added. */
bool wire_conns_add(struct wire_conns *c, uint32_t id, uint64_t now_ns, uint32_t *ret_evict);
struct wire_conn *wire_conns_find(struct wire_conns *c, uint32_t id); /* valid until the next add or remove */
void wire_conns_remove(struct wire_conns *c, uint32_t id);            /* nothing happens when it is not there */
/* Removes and returns one connection for which pick is true; 0 when there is none. */
uint32_t wire_conns_take(struct wire_conns *c, bool (*pick)(const struct wire_conn *, const void *), const void *arg);
void wire_conns_free(struct wire_conns *c);

/* Decides on a HELLO with a valid URL. False: `why` is the sentence for the other side. */
bool wire_greet_admits(uint64_t self, uint64_t cluster, const struct wire_msg *hello, unsigned version, char *why,
                       size_t cap);

#endif
