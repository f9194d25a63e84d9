/* Writing on nodes that do not lead: state of the leader's side (grants.c) and of the asker's (forward.c). README.md has the steps, and why it is safe.
 *
 * All of it is under the node's `mu`, but for what is atomic; messages are sent, and the queue of the write lock (vfs/wlock.h) is called, without it. */
#ifndef SHELL_GRANTS_H
#define SHELL_GRANTS_H

#include "raft/raft.h"
#include "vfs/db.h"
#include "wire/link.h"
#include <stdatomic.h>

struct shell_node;
struct request;
struct raft_update;
struct grant_ticket;
struct forward_ticket;
struct forwarded;

/* --- the leader's side --- */

#define GRANTS_USED 256u

struct grants_asker { uint64_t node, base, heard_us; }; /* base: of its tickets' numbers, another one after each start */

struct node_grants {
	struct grant_ticket *first; /* of all askers, in the order of arrival */
	atomic_uint count;          /* of tickets */
	struct grants_asker asker[RAFT_MEMBERS_MAX]; /* node thread's; node 0: free */
	/* Closing entries that were proposed under grants of used_term, by number % GRANTS_USED: an asker that repeats itself must be told of the entry, not that there is none. */
	uint64_t used_term;
	struct grants_used { uint64_t number, index; } used[GRANTS_USED];
	uint64_t used_forgotten; /* highest number that was overwritten */
};

void node_grants_open(struct shell_node *n);  /* once the database is open */
void node_grants_close(struct shell_node *n); /* no thread runs any more, the database is open still */
/* Node thread: a message of LOCK_REQ to PROPOSE_RESP, whichever side it is for. */
int node_grants_msg(struct shell_node *n, const struct wire_link_msg *m);
int node_grants_propose(struct shell_node *n, const struct wire_msg *m); /* PROPOSE_REQ */
/* Node thread, before another role or term shows in the shared state: nobody has the write lock of this database any more. */
void node_grants_end_all(struct shell_node *n);
void node_grants_run(struct shell_node *n); /* node thread, each batch; for both sides */
/* Any thread, after the published index moved. */
void node_grants_published(struct shell_node *n);
/* On who's thread, after vfs_wlock_try failed: is the lock only not free yet because what was committed is being published, or the WAL restarted? Then it sleeps until that is over, for a while. */
bool node_grants_await_end(struct shell_node *n, const void *who);
/* Of another node: may something still be proposed under the grant with that id? mu held. */
bool node_grants_holds(const struct shell_node *n, const uint8_t txid[VFS_TXID_BYTES]);
/* Node thread: a proposal of another node, which came in by node_grants_msg: may it be proposed (still)? And what became of it. */
bool node_grants_may_propose(struct shell_node *n, const struct request *r);
void node_grants_proposed(struct shell_node *n, struct request *r, int code, uint64_t index);

/* --- the asker's side --- */

struct node_forward {
	atomic_bool away;        /* this node does not lead: writes are asked of another one */
	atomic_uint n_tickets, n_waiting;
	struct forward_ticket *first;
	struct forwarded *waiting; /* proposals that are neither refused nor found in the log yet */
	uint64_t base, next_id, next_epoch;
	uint64_t keep_at_us, keeps;
	unsigned sending;        /* threads of connections that use the link */
	uint64_t ticks_until_us; /* the node thread looks after the tickets, until then at least */
};

void node_forward_init(struct shell_node *n);
void node_forward_close(struct shell_node *n);                  /* the node has stopped: waits for connections that still send something */
void node_forward_role(struct shell_node *n, enum raft_role role); /* mu held */
/* As the operations of vfs_node_ops. They return false, or have nothing to say, where `who` has no ticket of the leader's. */
int node_forward_lock(struct shell_node *n, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err);
bool node_forward_sleep(struct shell_node *n, const void *who, uint32_t us, uint32_t *ret_slept);
bool node_forward_unlock(struct shell_node *n, const void *who, bool keep);
void node_forward_forget(struct shell_node *n, const void *who);
/* For epochs with the top bit. */
#define NODE_FORWARD_EPOCH (1ull << 63)
bool node_forward_valid(struct shell_node *n, uint64_t epoch);
uint64_t node_forward_wall_us(struct shell_node *n, uint64_t epoch);
int node_forward_propose(struct shell_node *n, uint64_t epoch, struct request *r, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err); /* r: the caller's reference stays */

/* The link's threads: LOCK_RESP and PROPOSE_RESP go straight to the thread that waits for them. False: it is for the node thread. */
bool node_forward_answer(struct shell_node *n, const struct wire_link_msg *m);
void node_forward_msg(struct shell_node *n, const struct wire_link_msg *m); /* node thread: an answer of those, or to LOCK_KEEP */
/* Node thread: looks for what waits among the entries that come in; before the commit index of the same update is shared. */
void node_forward_bind(struct shell_node *n, const struct raft_update *u);
void node_forward_settle(struct shell_node *n);                 /* node thread, mu held: after role, term or commit moved */
void node_forward_drop_all(struct shell_node *n);                /* mu held: the node ends its part */
void node_forward_release_void(struct shell_node *n);           /* node thread: what is void has this node's own write lock no more */
uint64_t node_forward_run(struct shell_node *n, uint64_t now_us); /* node thread, each batch; returns when it wants to be called again */

#endif
