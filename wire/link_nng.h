/* Private to link*.c: when nng runs in this process, and what a forked child must know of it.
 *
 * nng starts its threads with its first call, and has no use for a forked child: it aborts there. So whoever uses it
 * holds it from before the first call until after the last one. link_nng_use.c counts the holders; one of two others
 * says what can be done with nng itself:
 *
 *   link_nng_own.c     nng is a copy of the static library, ours alone: it is ended with the last holder, and all its
 *                      descriptors are known
 *   link_nng_shared.c  nng is a shared library that the host may be using, too: it is never ended */
#ifndef WIRE_LINK_NNG_H
#define WIRE_LINK_NNG_H

#include "wire/err.h"
#include <pthread.h>
#include <stdbool.h>

/* Starts nng for the first holder, with all signals blocked in its threads. `url` is for the error's text.
 * WIRE_UNSUPPORTED: see wire_nng_lost; WIRE_IO: no threads or no descriptors are left; WIRE_NOMEM. */
int wire_nng_hold(const char *url, struct wire_err *err);
/* The last one ends nng, if it is ours: afterwards none of its threads and descriptors is left. Waits for it, but not
 * for a name server: if one has not answered yet, nng ends when it has. */
void wire_nng_release(void);
/* True: this is a forked child, and nng ran in its parent then. It will not run here, and what uses it in memory must
 * not be touched. */
bool wire_nng_lost(void);

/* link_nng_own.c or link_nng_shared.c, for link_nng_use.c */

extern const bool wire_nng_own;
int wire_nng_start(struct wire_err *err); /* calls nng for the first time */
/* These two are called only if it is our own. */
void wire_nng_stop(void);
/* Waits until no name is being looked up any more, but not longer than that, and tells whether it is so. */
bool wire_nng_names_done(unsigned wait_ms);

unsigned wire_nng_threads(void); /* how many nng starts */
/* Around a fork: between the two no descriptor of nng appears or goes, as far as it is known. */
void wire_nng_fork_lock(void);
void wire_nng_fork_unlock(void);
void wire_nng_fork_close(void); /* in the child, before the unlock: closes what is known of the parent's nng */

/* For link_nng.c: a connection or a listener of nng came up, or goes down. `key` tells them apart. */
struct nng_stream;
struct nng_stream_listener;
void wire_nng_came(const void *key, struct nng_stream *s);
void wire_nng_listens(const void *key, struct nng_stream_listener *l);
void wire_nng_went(const void *key);

/* link_nng_use.c, for the others: pthread_create, with a thread that was set aside as long as there is one. */
int wire_nng_take_thread(pthread_t *id, const pthread_attr_t *attr, void *(*run)(void *), void *arg);

#endif
