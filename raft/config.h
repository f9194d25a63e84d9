/* Membership of a group. Encoded into the data of CONFIG entries; a configuration takes effect when it is appended.
 *
 *   bytes   u8 version (1), u8 joint, u16 count, then per member u64 id, u8 flags, text url
 *   valid if and only if ids are distinct and not 0, count <= RAFT_MEMBERS_MAX, flags are known, OLD occurs only when joint. */
#ifndef RAFT_CONFIG_H
#define RAFT_CONFIG_H

#include "wire/buf.h"
#include "wire/err.h"

#define RAFT_MEMBERS_MAX 32
#define RAFT_URL_MAX 255

enum raft_member_flags {
	RAFT_VOTER = 1,     /* votes in the current, or when joint the incoming, configuration */
	RAFT_VOTER_OLD = 2, /* joint only: votes in the outgoing configuration */
	RAFT_LEARNER = 4,   /* receives the log, does not vote */
};

struct raft_member {
	uint64_t id; /* random, never 0 */
	uint8_t flags;
	char url[RAFT_URL_MAX + 1];
};

struct raft_config {
	bool joint;
	uint32_t n;
	struct raft_member m[RAFT_MEMBERS_MAX];
};

void raft_config_put(const struct raft_config *c, struct wire_buf *b);
int raft_config_get(const void *p, size_t n, struct raft_config *ret_config, struct wire_err *err);
const struct raft_member *raft_config_find(const struct raft_config *c, uint64_t id); /* NULL when not a member */

#endif
