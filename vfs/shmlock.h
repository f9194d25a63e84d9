/* WRITE and CKPT of a -shm as an open-file-description lock. Whoever has a descriptor of that description holds it, in whatever process: it is handed to the processes that are attached to a node
 * (SCM_RIGHTS), so that stock writers find no gap when the one that hosts it dies. Between processes, and against POSIX locks also of the same process, it excludes as
 * those that SQLite takes there; the only ones of SQLite's in a process that uses this are READ locks and DMS.
 *
 * The trap: when any descriptor of a file is closed, all POSIX locks of the process on it go, which are SQLite's (also those of connections that walraft knows nothing of). So a
 * descriptor is closed only when the process has no other one of that file open, looked for with SQLite's own mutex held under which it opens them; till then
 * it is kept, and used again.
 *
 * Threads: any; one mutex inside, held before SQLite's. */
#ifndef VFS_SHMLOCK_H
#define VFS_SHMLOCK_H

#include "wire/err.h"
#include <stdbool.h>

struct vfs_shmlock;

/* For a node. path: of the -shm, which is there, and stays for as long as the lock is had. Uses the description that this process has of it, or makes one. WIRE_BUSY: locked by another
 * description, by another node of this process, or by a program without walraft; WIRE_UNSUPPORTED: there are no such locks here. */
int vfs_shmlock_take(const char *path, struct vfs_shmlock **ret_lock, struct wire_err *err);
/* One more holder of a description that this process has locked; NULL: it has none. */
struct vfs_shmlock *vfs_shmlock_hold(const char *path);
/* A descriptor that another process sent; it is taken in any case. */
int vfs_shmlock_adopt(const char *path, int fd, struct vfs_shmlock **ret_lock, struct wire_err *err);
int vfs_shmlock_fd(const struct vfs_shmlock *l); /* to send to others; stays the lock's */
/* The node's end. Unless somebody in this process holds it, it is unlocked for all when `alone` says that no other process relies on it; else it goes with the last descriptor anywhere. */
void vfs_shmlock_release(struct vfs_shmlock *l, bool alone);
void vfs_shmlock_let_go(struct vfs_shmlock *l); /* of hold and adopt */
/* Closes what may be closed now: a file of SQLite's was closed. */
void vfs_shmlock_sweep(void);
/* Does another description, of a process that uses walraft, hold the lock? So it is where processes are attached to a node whose own process is gone. */
bool vfs_shmlock_is_elsewhere(const char *path);
void vfs_shmlock_after_fork(void);

#endif
