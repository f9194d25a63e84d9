/* Private to attach.c, attach_lines.c, attach_ops.c and attach_commit.c.
 *
 * Locks: the registry's (attach.c), then `mu`; none is held over I/O. A line that is taken is its taker's. */
#ifndef SHELL_ATTACH_IMPL_H
#define SHELL_ATTACH_IMPL_H

#include "shell/attach.h"
#include "shell/attach_msg.h"
#include "shell/shared.h"
#include "wire/clock.h"
#include <pthread.h>
#include <stdatomic.h>

/* One connection to the host. With `who` it belongs to a connection of SQLite's, whose ticket or lock the other end keeps; without it is anybody's. */
struct attach_line {
	struct attach_line *next;
	const void *who;
	bool taken;            /* a line of anybody's in use; mu */
	bool held;             /* the write lock stands behind it */
	bool dead;             /* so does nothing any more */
	uint64_t grant;        /* what its epoch is called in this process, where no two have the same: a host may give its next grant, of the same epoch, before it is known here that this one is over */
	uint64_t epoch, voided; /* of the grant, at the host; shell_shared.voided up to which it is known to be valid */
	struct attach_link link;
};

struct shell_attached {
	struct shell_attached *next; /* these two under the registry's lock */
	unsigned refs;
	struct shell_paths paths;
	const struct wire_env *env;
	struct wire_clock clock;
	bool same_clock; /* as the host's, so that its lease can be compared with ours */
	const struct shell_shared *shared;
	struct shell_shared_marks *marks;
	uint64_t owner;
	uint32_t page_size;
	struct vfs_db *db;
	struct vfs_shmlock *lock; /* NULL: the host has none to give */
	atomic_bool gone, closing;
	struct attach_link watch; /* of the thread's */
	pthread_t watcher;
	bool watching;
	bool closed; /* db, by the watcher */

	pthread_mutex_t mu;
	struct attach_line *lines;
	uint64_t n_grants;
	unsigned idle;   /* of anybody's, not taken */
	unsigned n_shared; /* of anybody's */
	pthread_cond_t given; /* one was given back */
};

#define ATTACH_PATIENCE_MS 2000u /* beyond the time that a call may take by itself */

/* attach.c. A new connection, past its greeting, to the host that `a` is attached to. */
int attached_connect(struct shell_attached *a, struct attach_link *ret_link, struct wire_err *err);
bool attached_is_owner_there(const struct shell_attached *a); /* an atomic load */
int attached_gone(struct shell_attached *a, struct wire_err *err); /* WIRE_CLOSED */
bool attached_is_fresh(const struct shell_attached *a, uint32_t bound_ms); /* fresh.c: a bounded read may begin */

/* attach_lines.c. One that waits, or a new one. who: NULL for a single question, for which there are only so many: timeout_ms is for waiting then. WIRE_CLOSED. */
int attached_line_take(struct shell_attached *a, const void *who, uint32_t timeout_ms, struct attach_line **ret_line, struct wire_err *err);
void attached_line_give(struct shell_attached *a, struct attach_line *l); /* it is anybody's again, or closed */
void attached_line_free(struct shell_attached *a, struct attach_line *l); /* one with `who` */
struct attach_line *attached_line_of(struct shell_attached *a, const void *who); /* NULL: it has none */
void attached_line_first(struct shell_attached *a, struct attach_line *l); /* to the head of the list; mu held */
void attached_line_dies(struct attach_line *l); /* nothing goes over it any more; what stood behind it is given up by the host */
/* Sends what was put together and waits for the answer. FAIL is its error; any other answer than `want` ends the line. WIRE_CLOSED: the host has ended. */
int attached_line_ask(struct shell_attached *a, struct attach_line *l, uint64_t timeout_ms, enum attach_type want, struct wire_in *ret_in, struct wire_err *err);
int attached_bad_answer(struct attach_line *l, struct wire_err *err); /* ends it: WIRE_INVALID */
bool attached_is_gone(const struct shell_attached *a);
void attached_drop_lines(struct shell_attached *a);

/* attach_commit.c; of vfs_node_ops */
int attached_commit_frames(void *ctx, const void *who, const struct vfs_remote_commit *c, struct vfs_remote_result *ret_result, struct wire_err *err);

/* attach_ops.c */
void attached_ops_make(struct shell_attached *a, struct vfs_node_ops *ret_ops);
/* A question of its own, all of which is in q; the answer's bytes, of which there must be n, go to dst. */
int attached_ask(struct shell_attached *a, enum attach_type type, const struct wire_buf *q, uint32_t timeout_ms, void *dst, size_t n, struct wire_err *err);
/* attach_ask.c: for vfs_node_ops */
int attached_step_of(void *ctx, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err);
int attached_outcome(void *ctx, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err);

#endif
