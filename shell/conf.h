/* node.conf: what a node is, in lines of "key value". Written by init, join, and a first open in automatic mode; read at every start.
 *
 *   version 1
 *   state member | joining
 *   cluster, group, node   16 hex digits each
 *   listen URL             absent: no listener
 *   insecure yes           a listener beyond loopback without TLS was asked for
 *   kind witness           votes and keeps the log, has no database; absent: a full replica
 *   keep-log BYTES         of a witness: the most that its log may hold; at the limit it takes no more, and does not count. Absent: 1 GiB
 *   promote-after SECONDS  of a witness: it shall become a full replica when a data voter is silent for so long. Absent: never by itself
 *   auto yes               nobody asked for this cluster: the database was set up when it was opened, and has no listener yet
 * Unknown keys, missing ones and bad values are errors that name the line. '#' starts a comment. */
#ifndef SHELL_CONF_H
#define SHELL_CONF_H

#include "raft/config.h"
#include "wire/env.h"
#include <limits.h>

#define SHELL_KEEP_LOG_BYTES (1u << 30)      /* unless node.conf says otherwise; as raft_init.keep_log_bytes has it */
#define SHELL_KEEP_LOG_MIN (256u << 10)     /* bytes; less than a few segments cannot be kept to */
#define SHELL_KEEP_LOG_MAX (UINT32_MAX - 1)
#define SHELL_PROMOTE_AFTER_MAX 31536000u    /* a year */

struct shell_conf {
	bool joining, insecure, auto_made, witness;
	uint32_t keep_log_bytes, promote_after_s; /* 0: absent */
	uint64_t cluster, group, node;
	char listen[RAFT_URL_MAX + 1]; /* "" none */
};

/* Paths of the node directory of a database. */
struct shell_paths {
	char db[PATH_MAX], dir[PATH_MAX], conf[PATH_MAX], lock[PATH_MAX], sock[PATH_MAX], shared[PATH_MAX], journal[PATH_MAX], pages[PATH_MAX], mark[PATH_MAX], ledger[PATH_MAX],
	        image[PATH_MAX], installing[PATH_MAX], /* installing: a join is putting the database into place */
	        detached[PATH_MAX];                    /* node.conf's name from the moment on that the database is a plain one again */
};

/* db need not exist, its directory must; ret_paths->db is canonical. WIRE_INVALID when too long. */
int shell_paths_make(const char *db, struct shell_paths *ret_paths, struct wire_err *err);
/* WIRE_NOTFOUND: not set up (the text names `walraft init`). */
int shell_conf_read(const struct wire_env *env, const struct shell_paths *paths, struct shell_conf *ret_conf,
                    struct wire_err *err);
int shell_conf_write(const struct wire_env *env, const struct shell_paths *paths, const struct shell_conf *conf,
                     struct wire_err *err);

/* The lock that makes this process the node, or lets it make, change or remove the node directory. node.conf is looked at under it: what was read before may be
 * gone. WIRE_BUSY, with EWOULDBLOCK in err->sys, names the process that has it; WIRE_NOTFOUND: there is no node directory. The descriptor is kept till unlock. */
int shell_lock_take(const struct shell_paths *paths, int *ret_fd, struct wire_err *err);
void shell_lock_release(int fd);
/* The next shell_lock_take has it already, by this descriptor that another process sent. */
void shell_lock_inherit(int fd);
/* The process that has or had the lock last, as a number in text; "" when that is not known. */
void shell_lock_holder(const struct shell_paths *paths, char dst[32]);

#endif
