/* Heartbeats of many groups between the same two nodes travel as one message. For a driver with many raft objects: whatever its
 * groups want to send in one turn of its loop and raft_bundle_takes() is put in, then everything is taken out and sent; so
 * the number of messages per peer does not grow with the number of groups. Groups' heartbeats fall on the same moments by themselves
 * (raft/pulse.c), if they have the same intervals and clock.
 *
 *   bytes   BUNDLE message, group 0; data = per message varint length, then the message as wire_msg_encode gives it
 *   valid if and only if lengths fill the data exactly, there are 1 .. RAFT_BUNDLE_MAX messages, each is valid, of a type that
 *           raft_bundle_takes, without entries, text or data, and has the bundle's own `from` and `to`.
 *
 * A message that must wait for the disk (after_persist) is put in when that has happened. One thread at a time. */
#ifndef RAFT_BUNDLE_H
#define RAFT_BUNDLE_H

#include "wire/msg.h"

#define RAFT_BUNDLE_MAX 4096u /* messages in one bundle */

struct raft_bundle;

struct raft_bundle *raft_bundle_new(void); /* NULL: no memory */
void raft_bundle_free(struct raft_bundle *b);

bool raft_bundle_takes(const struct wire_msg *m); /* a heartbeat or its answer */

/* Copies m, whose group, from and to are set. WIRE_INVALID: it does not take such; WIRE_NOMEM: m is not in it, the rest is. */
int raft_bundle_put(struct raft_bundle *b, const struct wire_msg *m, struct wire_err *err);

/* Takes out the next message to be sent, in the order of putting per peer; one that is alone goes as it was put. Its data are valid
 * until the next call. false: it is empty. */
bool raft_bundle_get(struct raft_bundle *b, struct wire_msg *ret_msg);

/* Takes a BUNDLE apart: all its messages or none. *ret_msgs is an array (caller frees). WIRE_CORRUPT with what is wrong; WIRE_NOMEM. */
int raft_bundle_open(const struct wire_msg *m, struct wire_msg **ret_msgs, size_t *ret_n, struct wire_err *err);

#endif
