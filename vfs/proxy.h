/* In the process that hosts the node: stands for one connection of another process. It has that connection's ticket and grant, takes its private frames, and commits them by the very
 * code that commits a connection's of this process (capture.c): hashes, ranges, checks and the publication are all done here. To the node `who` is the proxy.
 *
 * Threads: one call at a time. Locks as a connection's. */
#ifndef VFS_PROXY_H
#define VFS_PROXY_H

#include "vfs/attached.h"

struct vfs_proxy;

/* db outlives it. NULL: no memory. */
struct vfs_proxy *vfs_proxy_new(struct vfs_db *db);
void vfs_proxy_free(struct vfs_proxy *p); /* gives up lock and ticket; what was proposed takes its course */

struct vfs_proxy_grant {
	struct vfs_grant grant;
	struct vfs_walindex_hdr base; /* published at the grant, and until its end, or it is void */
	uint64_t sequence;
};
/* As vfs_node_ops.write_lock. */
int vfs_proxy_lock(struct vfs_proxy *p, unsigned flags, uint32_t timeout_ms, struct vfs_proxy_grant *ret_grant, struct wire_err *err);
uint32_t vfs_proxy_sleep(struct vfs_proxy *p, uint32_t us);
void vfs_proxy_unlock(struct vfs_proxy *p, bool keep); /* nothing when it is not held */

/* The bytes of private frames from `at` on, in order, from 0 or from where the latest ended. What goes wrong with them is told at the commit. */
void vfs_proxy_frames(struct vfs_proxy *p, uint64_t at, const void *data, uint32_t n);
/* Checks all that `c` says against the grant. `read` is not used. A transaction that was committed is over: the lock is free again. */
void vfs_proxy_commit(struct vfs_proxy *p, const struct vfs_remote_commit *c, struct vfs_remote_result *ret_result);

#endif
