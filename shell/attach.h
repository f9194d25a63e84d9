/* A database whose node another process of this machine hosts, as this process uses it (vfs/attached.h): one object for each database, shared by its connections. Reads go to the files; what
 * needs the node goes over connections to node.sock (attach_msg.h), one for each of SQLite's that writes, and a few for all others.
 *
 * Each object has a thread that waits for the end of the host. From then on the object is *gone*: its database is retired (vfs_db_close), its connections go over to what comes after it, later opens host the node
 * themselves, or attach to whoever does. */
#ifndef SHELL_ATTACH_H
#define SHELL_ATTACH_H

#include "shell/conf.h"
#include "vfs/db.h"

struct shell_attached;

/* path: of the database. Attaches to the process that hosts its node, or shares what is attached already. WIRE_CLOSED: no host answers; WIRE_BUSY: it is starting or ending; WIRE_TIMEOUT: it is
 * stopped, or stuck; WIRE_VERSION, WIRE_UNSUPPORTED, WIRE_FULL with what to do. */
int shell_attach(const char *path, struct shell_attached **ret_attached, struct wire_err *err);
/* The last one closes it: no connection is left on its database then. Not from within the function of shell_attach_on_gone. */
void shell_attached_release(struct shell_attached *a);
/* The object that a database belongs to, with a reference; NULL: it is none of an attached one. */
struct shell_attached *shell_attached_find(const struct vfs_db *db);
struct vfs_db *shell_attached_db(struct shell_attached *a);
bool shell_attached_is_gone(const struct shell_attached *a); /* for good. Another host may be there before this says so */
/* Called once for each object whose host has ended, on a thread of ours with all signals blocked, while the object is there. NULL (the default): nothing is. */
void shell_attach_on_gone(void (*gone)(struct shell_attached *a));

const struct shell_paths *shell_attached_paths(const struct shell_attached *a);
/* Of the host's. WIRE_CLOSED, WIRE_TIMEOUT. */
int shell_attached_status(struct shell_attached *a, struct vfs_db_status *ret_status, struct wire_err *err);

#endif
