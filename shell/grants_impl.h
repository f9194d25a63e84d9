/* Shared by grants.c (tickets) and grants_entry.c (entries under a grant) only. */
#ifndef SHELL_GRANTS_IMPL_H
#define SHELL_GRANTS_IMPL_H

#include "shell/node_impl.h"

enum grant_state { GRANT_QUEUED, GRANT_HANDED, GRANT_GIVEN, GRANT_CLOSING, GRANT_LEAVING };

struct grant_ticket {
	struct grant_ticket *next;
	uint64_t node, id; /* its asker, and its number there */
	enum grant_state state;
	bool answered;
	uint64_t asked_us;
	uint64_t position, number; /* GIVEN */
	uint8_t txid[VFS_TXID_BYTES];
	uint64_t last_corr, last_index; /* the latest entry that was proposed under it */
	uint64_t first_index;           /* the first one */
	uint32_t entries;               /* how many */
	struct request *round;          /* HANDED, without a lease: makes sure that this node leads */
};

/* Node thread. refuse: q tells to whom, and what. end: one that is not CLOSING; nothing is proposed under it any more. */
void grants_refuse(struct shell_node *n, const struct wire_msg *q, uint8_t type, int code, const char *why);
void grants_end(struct shell_node *n, struct grant_ticket *t);

#endif
