/* That a process stays with a database for as long as it has connections on it: when the process that hosts the node ends, the node is hosted here, or this process attaches to the one that was
 * faster, at once and whether or not a connection asks for anything; the connections go over to that by themselves (vfs/successor.c). And a daemon that wants to host the node gets it. */
#ifndef SHELL_RESIDENT_H
#define SHELL_RESIDENT_H

#include "vfs/db.h"

struct shell_resident_ops {
	/* As vfs_host_ops: hosts the node, or attaches. */
	int (*open)(const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err);
	void (*close)(struct vfs_db *db);
};
/* Once, before the others. */
void shell_resident_init(const struct shell_resident_ops *ops);
/* A connection begins, or goes over; and its end, which may be that of node and threads. */
int shell_resident_open(const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err);
void shell_resident_close(struct vfs_db *db);
/* From a thread of the node: whoever is at the other end of the socket is to host it. False: it is not ours to give (there are no connections here); fd stays the caller's then. */
bool shell_resident_yield(const char *canonical_path, int fd);

#endif
