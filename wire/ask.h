/* A connection of a program that is no node to a node: it asks, and is answered on the same connection (askers, wire/link.h). A plain
 * socket, used by the thread that calls: no thread, no nng, and nothing left after the close.
 *
 * Fork: the descriptor is closed at exec; a forked child must not use its parent's connection, which wire_ask_is_ours tells, but may
 * close it, which does the parent's no harm, and open its own.
 *
 * Threads: one at a time for each connection. */
#ifndef WIRE_ASK_H
#define WIRE_ASK_H

#include "wire/err.h"
#include "wire/msg.h"

struct wire_ask;

/* Connects and greets, in timeout_ms (but for a name server that takes longer). WIRE_INVALID: no address; WIRE_CLOSED: nobody listens there, or
 * it is no node; WIRE_TIMEOUT; WIRE_FOREIGN: it refused, for the reason in the text. */
int wire_ask_open(const char *url, uint32_t timeout_ms, struct wire_ask **ret_ask, struct wire_err *err);
void wire_ask_close(struct wire_ask *a); /* NULL allowed */
bool wire_ask_is_ours(const struct wire_ask *a); /* false: it was opened before this process was forked */

/* After any failure but WIRE_TOOBIG and WIRE_NOMEM of a send the connection is of no more use. WIRE_CLOSED: the other side ended it. */
int wire_ask_send(struct wire_ask *a, const struct wire_msg *m, uint32_t timeout_ms, struct wire_err *err);
/* The next message; its data is valid until the next call. */
int wire_ask_receive(struct wire_ask *a, uint32_t timeout_ms, struct wire_msg *ret_msg, struct wire_err *err);

#endif
