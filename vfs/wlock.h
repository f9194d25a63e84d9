/* The virtual write lock of a database: a queue with bounded barging. A running caller may take a free lock; a waiter of more than 2 ms reserves it; an
 * unclaimed reservation lapses after 50 ms; a ticket lapses when its connection has not asked or slept for it for 100 ms. The lock is the right to run a write transaction here; whether this node
 * may let one begin at all is for the node to know, once the lock is had.
 *
 * A caller that asked once and never slept reserves nothing: most of those have no busy handler and are gone. A reservation that lapses takes its ticket along.
 *
 * Asynchronous tickets are for holders that no thread here stands for: writers of other nodes. Such a one never sleeps: the free lock is handed over to it when it is the first in line (of those that sleep, or are handed over
 * to; who waited for 2 ms goes first in any case), and the owner is told by a callback. They do not lapse: who makes them takes them away.
 *
 * Threads: any. Own mutex, a leaf; the callback is called without it. */
#ifndef VFS_WLOCK_H
#define VFS_WLOCK_H

#include "wire/err.h"
#include <stdbool.h>
#include <stdint.h>

struct vfs_wlock;
struct vfs_wlock *vfs_wlock_new(void);
void vfs_wlock_free(struct vfs_wlock *w);

/* who: any non-NULL pointer that names the caller (the connection), which is in one call at a time. true: held now (also when it was before). false: `who` has a ticket in the queue now. */
bool vfs_wlock_try(struct vfs_wlock *w, const void *who);
/* Sleeps at most us microseconds, less when `who` becomes the one that may take the lock. For the shim's xSleep. Returns the microseconds slept.
 * Coming back early it has the lock reserved for it, so that early returns do not use up a busy handler's count. */
uint32_t vfs_wlock_sleep(struct vfs_wlock *w, const void *who, uint32_t us);
/* keep: the caller will be back at once (SQLITE_BUSY_SNAPSHOT): the lock stays reserved for it for up to 50 ms. Nothing when `who` does not hold it. */
void vfs_wlock_release(struct vfs_wlock *w, const void *who, bool keep);
void vfs_wlock_forget(struct vfs_wlock *w, const void *who); /* drops ticket, reservation, and the lock if it has that: `who` is gone */
/* Blocks up to timeout_ms for the lock, ahead of the queue (the node's own restarts). */
bool vfs_wlock_take(struct vfs_wlock *w, const void *who, uint32_t timeout_ms);
const void *vfs_wlock_holder(struct vfs_wlock *w); /* compared only: it may be gone by now */

/* Asynchronous. handed: called on whatever thread freed the lock, after it went to some ticket: vfs_wlock_holder tells. Without any lock of ours; it may call the functions here. To be set before the first ask. */
void vfs_wlock_on_handed(struct vfs_wlock *w, void (*handed)(void *ctx), void *ctx);
enum vfs_wlock_asked { VFS_WLOCK_HELD, VFS_WLOCK_QUEUED, VFS_WLOCK_NOMEM };
/* For `who`: as vfs_wlock_try, but the ticket is an asynchronous one. VFS_WLOCK_NOMEM: neither held nor in the queue. */
enum vfs_wlock_asked vfs_wlock_ask(struct vfs_wlock *w, const void *who);
/* What lapsed goes, and a free lock goes on: for the owner of asynchronous tickets, now and then. */
void vfs_wlock_settle(struct vfs_wlock *w);
/* Whoever has the lock by vfs_wlock_try or vfs_wlock_ask has it no more, nor a reservation: the right that it stood for is gone. Its release will do nothing. */
void vfs_wlock_void(struct vfs_wlock *w);

#endif
