/* What is particular of witnesses, for the command and the extension: refusing what needs a database, and becoming a full replica. */
#ifndef SHELL_RISE_H
#define SHELL_RISE_H

#include "shell/node.h"

/* WIRE_UNSUPPORTED, always: the node of these paths has no database; names the leader where that can be found out. n: its node in this process, or NULL. */
int shell_witness_refuse(const struct shell_paths *paths, struct shell_node *n, struct wire_err *err);

/* The cluster wants this witness to be a full replica: shell_witness_rise is to be called. */
bool shell_witness_is_rising(struct shell_node *n);

/* Fetches an image from a member that has a database, while the witness goes on voting and keeping the log, and puts it into place. On WIRE_OK node.conf
 * says that this is a full replica: the caller releases the node, and acquires it anew; that one catches up, and asks the leader to be counted as what it is.
 * On any error, and after a kill at any moment, it is the witness it was, or that full replica; it may be called again. Blocks, on the caller's thread, as long as something
 * moves, at most timeout_s seconds else; asks `stop` (may be NULL) whether to give up, with WIRE_BUSY. WIRE_EXISTS: somebody's file stands where the database has to be. */
int shell_witness_rise(struct shell_node *n, unsigned timeout_s, bool (*stop)(void), struct wire_err *err);

#endif
