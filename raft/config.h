/* Membership of a group. Encoded into the data of CONFIG entries; a configuration takes effect when it is appended.
 *
 *   bytes   u8 version (2), u8 joint, u8 level, u8 commit, u8 elect, u8 old commit, u8 old elect, u16 count, then per member
 *           u64 id, u8 flags, u8 priority, text url
 *   valid if and only if ids are distinct and not 0, count <= RAFT_MEMBERS_MAX, flags are known, OLD flags and old quorums occur only
 *           when joint. */
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
	RAFT_WITNESS = 8,   /* beside VOTER or LEARNER: keeps the log but no database; leads only to level a data voter and hand over */
	RAFT_RISING = 16,   /* on its way, and asks for it once it is ready: a LEARNER to be a voter, a WITNESS to be a full replica */
	RAFT_AWAITED = 32,  /* LEARNER only: named before it came. Its node fetches an image when it joins, so that nobody keeps a log for it */
};

/* Feature levels. A configuration's level is what the group may use: it is raised, never lowered, once every member has announced
 * that it understands it. A node that finds a level above its own in its log does not go on.
 *   1   all that is not named below
 *   2   witnesses, quorums of other sizes than a majority */
#define RAFT_LEVEL 2u
#define RAFT_PRIORITY 100 /* what a member has unless somebody chose */

/* How many voters a commit (and a read round, a lease, CheckQuorum) and an election take. 0: a majority. Allowed only where any two
 * quorums that must meet do: elect + commit > voters and 2 * elect > voters. Why that is enough: raft/quorum.c. */
struct raft_quorums { uint8_t commit, elect; };
enum raft_quorum_kind { RAFT_TO_COMMIT, RAFT_TO_ELECT };

struct raft_member {
	uint64_t id; /* random, never 0 */
	uint8_t flags;
	uint8_t priority; /* for leading: the highest that can leads, sooner or later. 0: only while nobody else can */
	char url[RAFT_URL_MAX + 1];
};

struct raft_config {
	bool joint;
	uint8_t level;
	struct raft_quorums quorums, old_quorums; /* old: of the outgoing half, when joint */
	uint32_t n;
	struct raft_member m[RAFT_MEMBERS_MAX];
};

void raft_config_put(const struct raft_config *c, struct wire_buf *b);
int raft_config_get(const void *p, size_t n, struct raft_config *ret_config, struct wire_err *err);
uint8_t raft_config_peek_level(const void *p, size_t n); /* of an encoded one, whatever else is in it; 0: of no known format */
const struct raft_member *raft_config_find(const struct raft_config *c, uint64_t id); /* NULL when not a member */

/* Whether it may be a target or be in force. WIRE_INVALID with the reason: flags that contradict each other, no voter or none but
 * witnesses in one half, quorums that need not meet, features of a higher level than its own. One without members is right. */
int raft_config_check(const struct raft_config *c, struct wire_err *err);

uint32_t raft_config_voters(const struct raft_config *c, bool old_half);
/* How many voters of that half make a quorum of that kind. */
uint32_t raft_config_quorum(const struct raft_config *c, bool old_half, enum raft_quorum_kind kind);
uint8_t raft_config_needs(const struct raft_config *c); /* the lowest level that has all that it uses */

#endif
