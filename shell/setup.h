/* Making a database the first node of a cluster, what can be done to it while no node runs, and making it a plain database again. For the command, and for the
 * extension inside of an application, where it may be called from within SQLite's xOpen or xLock of another connection.
 *
 * All of it: sqlite3_api must be set; no output, no signal, no exit; any thread, also several at a time. Calls for one database exclude each other, and its node,
 * by the node directory's lock, in all processes. The database is opened by a connection of its own on the VFS that is below walraft's; one that is locked is waited
 * for, for at most 2 s in all. paths->db is canonical (shell_paths_make). After a failure the database is what it was, but may be in WAL mode by now. */
#ifndef SHELL_SETUP_H
#define SHELL_SETUP_H

#include "raft/journal.h"
#include "shell/conf.h"

#define SHELL_JOURNAL_FIRST_BYTES (128u << 10) /* raft_journal_opts.first_bytes of every new journal */

/* Pages are being read: bytes done and in all. Called on the caller's thread; done == total ends it. */
typedef void shell_setup_progress(uint64_t done_bytes, uint64_t total_bytes);

struct shell_setup_opts {
	const char *listen; /* URL; NULL: a cluster of one without an address */
	bool insecure;
	bool auto_made;     /* nobody asked for it: see node.conf. An empty database is refused then */
	shell_setup_progress *progress; /* NULL: none */
};
struct shell_setup_result {
	struct shell_conf conf;
	uint32_t page_size, pages;
	uint64_t index, checksum; /* state checksum, and the index that it belongs to */
	uint64_t at_risk;         /* adopted: transactions that the journal has behind its last mark, and the file may not have */
};

/* Makes an existing database of SQLite's, in place, the only node of a new cluster; durable on return. Of the file nothing changes but header bytes 18 and 19 (2 is WAL)
 * where it was not in WAL mode, and bytes behind its last page; a hot journal is rolled back, as whoever opens it first would do. WIRE_EXISTS: it is set up
 * already, or has begun to join a cluster; WIRE_BUSY: in use (the text says by whom); WIRE_NOTFOUND, WIRE_PERM, WIRE_INVALID (not a database), WIRE_CORRUPT, WIRE_FULL. */
int shell_setup_new(const struct wire_env *env, const struct shell_paths *paths, const struct shell_setup_opts *opts, struct shell_setup_result *ret_result,
                    struct wire_err *err);
/* The same without a listener, for a database that is opened in automatic mode. WIRE_EXISTS also when another process was faster. */
int shell_setup_auto(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err);

/* Gives a node that was set up without a listener its address; ids stay. The cluster's configuration follows when the node leads (members.c). WIRE_EXISTS: it has
 * one already, this or another; WIRE_NOTFOUND: not set up; WIRE_BUSY: its node runs. */
int shell_setup_listen(const struct wire_env *env, const struct shell_paths *paths, const char *listen, bool insecure, struct shell_conf *ret_conf,
                       struct wire_err *err);

/* Takes the file as it is for the new state of a database whose cluster has no other member: for one that was changed while its node was stopped, and is refused by it.
 * Ids stay; the state gets the index after the journal's last, in a term of its own. What the file does not have is gone. progress may be NULL. WIRE_UNSUPPORTED: the
 * cluster has other members; WIRE_NOTFOUND: not set up; WIRE_BUSY. After a failure, and after a crash at any moment, the node refuses the file as before, or has it. */
int shell_setup_adopt(const struct wire_env *env, const struct shell_paths *paths, shell_setup_progress *progress, struct shell_setup_result *ret_result,
                      struct wire_err *err);
/* WIRE_UNSUPPORTED: its cluster has other members, so that adopt will refuse; WIRE_BUSY: its node runs. */
int shell_setup_check_sole(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err);
/* Adopts like shell_setup_adopt, but only a database that was set up in automatic mode and has no listener yet, else WIRE_UNSUPPORTED. */
int shell_setup_readopt(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err);

/* Makes it a plain database in WAL mode, with an empty WAL or none. What only the journal holds is gone: the caller has had the node publish it all. Also finishes
 * a detach that was interrupted. WIRE_NOTFOUND: not set up; WIRE_BUSY. After a crash at any moment it is the one or the other. */
int shell_setup_detach(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err);
/* Such an interrupted detach is to be finished: the database is a plain one, and its node directory still there. */
bool shell_setup_is_detached(const struct shell_paths *paths);

/* ---- the node directory ---- */

/* Makes it where it is missing, and takes its lock; its name is durable after shell_dir_sync_parent. WIRE_BUSY: another process has the lock. */
int shell_dir_make(const struct wire_env *env, const struct shell_paths *paths, int *ret_lock, struct wire_err *err);
/* Removes what a node, or the making of one, keeps in it, but for node.conf and the lock. The caller has the lock. */
void shell_dir_clear(const struct wire_env *env, const struct shell_paths *paths);
/* Removes it whole, as far as it is walraft's. The caller has the lock, and still releases it. */
void shell_dir_remove(const struct wire_env *env, const struct shell_paths *paths);
/* That a database is set up, as WIRE_EXISTS with what to do. */
int shell_dir_tell_exists(const struct shell_paths *paths, const struct shell_conf *conf, struct wire_err *err);
/* Makes a change to the directory of paths->db durable. */
int shell_dir_sync_parent(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err);
uint64_t shell_random_id(const struct wire_env *env); /* not 0 */

#endif
