/* A database whose node another process of the machine hosts: the second kind of struct vfs_db. It reads the files itself, by handles of the base VFS of its own, and takes the published
 * state from memory that the host shows (vfs/shared.h). It publishes nothing and holds no lock but SHARED on the database file, which keeps stock processes
 * from deleting -wal should the host be killed.
 *
 * Of vfs/db.h it has: ref, unref, find, connections, close, ops, path, page_size, sequence, published, pull, ckpt_info_load, read_mark_store, real_region. The rest is a node's.
 * Of its vfs_node_ops a connection uses read_gate, write_*, epoch_valid, several_voters, leader_url, and commit_frames in place of propose, commit and commit_end. */
#ifndef VFS_ATTACHED_H
#define VFS_ATTACHED_H

#include "vfs/db.h"
#include "vfs/shared.h"

struct vfs_attached_start {
	const char *path;
	const struct vfs_shared *shared; /* mapped for as long as the object is there: connections may keep it beyond vfs_db_close */
	void (*unmap)(const struct vfs_shared *shared); /* at its end; NULL: nothing is to be done. Not when the opening fails */
	uint64_t owner;                  /* the host's; once another one's is there the database is of no use any more */
	uint32_t page_size;
	const struct wire_env *env;
	const struct vfs_node_ops *ops;  /* copied */
};
/* Makes it known to the shim as vfs_db_open does. WIRE_CLOSED: the host is gone; WIRE_BUSY: someone keeps the file exclusively. */
int vfs_db_attach(const struct vfs_attached_start *start, struct vfs_db **ret_db, struct wire_err *err);
bool vfs_db_is_attached(const struct vfs_db *db);

/* A transaction's private frames on their way to the host. */
struct vfs_remote_commit {
	uint64_t epoch, sequence;       /* of the grant, and as of then: the host compares */
	struct vfs_walindex_hdr base;   /* likewise */
	uint32_t n_frames, db_after, timeout_ms;
	struct vfs_once once;           /* the step that the transaction is */
	bool rewritten;                 /* the chain of checksums is to be looked through */
	uint64_t bytes;                 /* of all frames, headers included */
	void *read_ctx;
	int (*read)(void *ctx, void *dst, uint32_t n, uint64_t at); /* an SQLite code */
};
#define VFS_REMOTE_TEXT 600
struct vfs_remote_result {
	int code;                       /* what SQLite is to be answered */
	char text[VFS_REMOTE_TEXT];     /* unless it is SQLITE_OK */
	bool mended;                    /* committed, but SQLite's header will not be the published one */
	uint64_t index;
	struct vfs_walindex_hdr after;  /* committed: the published header */
};

#endif
