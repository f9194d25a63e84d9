/* The node of one database in this process: threads, files, links around the Raft core. See shell/README.md.
 *
 * shell_node_acquire starts the node at its first call for a database, later ones share it; the last release stops it. */
#ifndef SHELL_NODE_H
#define SHELL_NODE_H

#include "shell/conf.h"
#include "vfs/db.h"

struct shell_node;

/* path: of the database, as given by a person. WIRE_NOTFOUND: not set up; WIRE_BUSY: another process is its node. WIRE_CHANGED: the files were changed outside
 * walraft, by someone who had all that was acknowledged before; WIRE_CORRUPT when some of that was in the journal only. */
int shell_node_acquire(const char *path, struct shell_node **ret_node, struct wire_err *err);
/* A start whose journal was damaged waits for other members (repair.c): half a minute at the most, then WIRE_TIMEOUT, or what its files gave before; what came in by then is kept. Other databases of the process are
 * not kept waiting; who wants the same one gets the same answer.
 *
 * The same, for whoever does without a database: acquire refuses a witness, as WIRE_UNSUPPORTED. stop: asked on this thread whether to give up such a start, with WIRE_CLOSED, which then
 * waits for members to come as long as it takes; NULL: as above. */
int shell_node_run(const char *path, bool (*stop)(void), struct shell_node **ret_node, struct wire_err *err);
void shell_node_release(struct shell_node *n);
/* Makes the caller's reference one of a connection's, and returns the database with a vfs_db_ref. shell_node_left(db) gives it back, also when the node is gone. */
struct vfs_db *shell_node_connected(struct shell_node *n);
void shell_node_left(struct vfs_db *db);
/* Ends the node though connections have it open: they go over to the one that comes after it (vfs_db_close). The transaction under way gets 2 s to end. Takes the caller's reference; returns when it
 * has ended, once those who ask it something have their answers. *ret_lock_fd: the lock of the node directory, for another process to be sent, unless another thread had it end already. */
void shell_node_end(struct shell_node *n, int *ret_lock_fd);
/* The running node of this process for a canonical path, with a reference; NULL: none. */
struct shell_node *shell_node_find(const char *canonical_path);
struct vfs_db *shell_node_db(struct shell_node *n); /* NULL: a witness */
const struct shell_paths *shell_node_paths(struct shell_node *n);

/* Lines for the person who runs a daemon; NULL (the default): silence. Called from any thread, must not block for long. */
void shell_log_to(void (*line)(const char *text));

/* Status as a JSON object (shell/status.c lists the keys), appended without newline. */
void shell_node_status_json(struct shell_node *n, struct wire_buf *b);
/* The group's members for the table walraft_members, as bytes that may travel to another process (shell/members_table.c reads them): varint number, then for each
 * u64 id, texts name ("" none), URL, kind, role; varints applied, lag in entries, lag_ms, last_contact_ms, each one more than it is and 0 where it is not known; u8 1 if it is this node. */
void shell_node_members_rows(struct shell_node *n, struct wire_buf *b);
/* What to tell about the node's failure; "" while it works. */
void shell_node_failure(struct shell_node *n, char *dst, size_t cap);
void shell_node_leader_url(struct shell_node *n, char *dst, size_t cap);

/* The ledger was lost (shell/ledger_node.c), and the node's person has decided that clients begin anew: done when the node ends, which is to be at once. False: it is whole. */
bool shell_node_renew_ledger(struct shell_node *n);

/* The state of this node's own membership, for join and detach. */
struct shell_self {
	bool voter, learner, rising, removed, has_leader, stable; /* rising: a learner on its way to vote; removed: no member any more; stable: the configuration is committed and not joint */
	uint32_t members;            /* this one among them */
	uint64_t published, leader_commit, last_index;
};
void shell_node_self(struct shell_node *n, struct shell_self *ret_self);
/* The leader's last refusal to make this learner a voter, which it keeps asking for; "" none. */
void shell_node_promotion_refusal(struct shell_node *n, char *dst, size_t cap);

/* Asks the process that runs the node of a database over node.sock. WIRE_CLOSED: none runs. The answer ends with a newline. */
int shell_control_ask(const struct shell_paths *paths, const char *request, struct wire_buf *ret_answer, struct wire_err *err);

#endif
