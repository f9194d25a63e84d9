/* The shim VFS "walraft": what SQLite's connections see of a replicated database. Everything else passes through to its base, the VFS that was the default when
 * walraft was loaded (unix). See vfs/README.md. */
#ifndef VFS_VFS_H
#define VFS_VFS_H

#include "vfs/db.h"
#include "vfs/wlock.h"

struct sqlite3;

/* Extended result codes that applications see. */
#define WALRAFT_READONLY_NOT_LEADER (8 | (0x57 << 8))   /* SQLITE_READONLY: writes do not get from here to the leader (walraft_leader()): walraft_write=local, or it does not answer, or this node was removed */
#define WALRAFT_READONLY_REPEATED (8 | (0x58 << 8))     /* SQLITE_READONLY: the transaction repeats a client's step that was applied before: nothing of it is written */
#define WALRAFT_IOERR_NOT_COMMITTED (10 | (0x57 << 8))  /* SQLITE_IOERR: superseded or refused; nothing of the transaction is or will be there: retry */
#define WALRAFT_IOERR_UNKNOWN (10 | (0x58 << 8))        /* outcome unknown within the timeout */
#define WALRAFT_IOERR_FENCED (10 | (0x59 << 8))         /* leadership was lost during the transaction: rolled back, retry on the leader */
#define WALRAFT_IOERR_READ (10 | (0x5a << 8))           /* a read gate could not be passed: walraft_error() says why */
#define WALRAFT_IOERR_NODE (10 | (0x5b << 8))           /* this node has failed (disk) or was closed */
#define WALRAFT_ERROR_TWO_DATABASES (1 | (0x57 << 8))   /* SQLITE_ERROR: one transaction would write to two replicated databases */
#define WALRAFT_CANTOPEN (14 | (0x57 << 8))             /* SQLITE_CANTOPEN: not set up, or the node can't start */

/* How the shell starts the node of a database when a connection opens it. Called inside SQLite's xOpen, xLock, xShmMap or xShmLock, on the application's threads. */
struct vfs_host_ops {
	void *ctx;
	/* A connection is about to be made: what the host may have taken away since the last one (auto-extensions) can be put back. */
	void (*opening)(void *ctx);
	/* Is there a node directory for the database at this full path? Cheap: asked at every open. */
	bool (*is_set_up)(void *ctx, const char *path);
	/* path: full. Finds or starts the node and returns its database with a vfs_db_ref taken; WIRE_NOTFOUND: not set up. may_set_up: a database that holds pages and is not
	 * set up becomes a cluster of one node first; one that was set up so, and was changed by others while it was closed, is taken as it is. The text is shown to the user. */
	int (*open_db)(void *ctx, const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err);
	/* A connection is done with what open_db gave it (the vfs_db_unref follows); db may be retired. The last one may stop the node. */
	void (*close_db)(void *ctx, struct vfs_db *db);
};

/* Registers the VFS "walraft" over the current default one; once per process, later calls change ops, and make it the default again when it was before
 * sqlite3_shutdown. sqlite3_api must be set. WIRE_EXISTS: another copy of the library has registered that name. */
int vfs_register(const struct vfs_host_ops *ops, struct wire_err *err);
const char *vfs_base_name(void); /* of the base VFS; "unix" before vfs_register */

/* "walraft" as the process's default VFS: databases that are set up are replicated whatever way they are opened, others pass through (or are set up). */
int vfs_set_default(bool on, struct wire_err *err);
bool vfs_is_default(void);
/* Whether databases that are not set up become clusters of one node: an existing one when it is opened, a new one when its first transaction is committed. For later opens of main
 * databases in the process; the URI parameter walraft_auto goes before it, and counts for ATTACH too. Databases that are opened read-only are never set up. */
void vfs_set_auto(bool on);
bool vfs_auto(void);

/* Connections opened by this thread while it's on are the node's own: no gate, real wal-index mapping, WRITE and CKPT answered without being taken (checkpoints). */
void vfs_thread_is_node(bool on);

/* Connections opened by this thread while it's on are ordinary ones, but do not keep the node running: who opens them closes them before the node ends. */
void vfs_thread_serves(bool on);

/* The connection of db's main file when it is one of the shim's (also one that failed to open, or whose database is still empty), else NULL. */
struct vfs_conn *vfs_conn_of(struct sqlite3 *db);
/* The path of db's main database when that was opened by the VFS walraft by name, is not set up and so passed through; else NULL. Attached ones may pass through;
 * a main one is an error of the application's, which the auto-extension gives. */
const char *vfs_stray_main(struct sqlite3 *db);
/* The path of db's main database when that was opened before, or past, the VFS walraft, although opening it by name would replicate it now (it is set up, or automatic mode is on, and
 * walraft is the default VFS); else NULL. */
const char *vfs_unreplicated_main(struct sqlite3 *db);
/* Text of the last failure in walraft's hands, of the databases that db has open (main and attached ones) and of this thread's opens (a failed ATTACH leaves nothing to ask);
 * "" none. Valid until the next call on db or open on this thread. */
const char *vfs_error_text(struct sqlite3 *db);
struct vfs_db *vfs_conn_db(struct vfs_conn *c);          /* NULL when opening failed, or the database is still empty */
/* A new connection is complete: sets its main database up when that is to be, and there is something in it. Called by the auto-extension, so that an error carries its text. */
int vfs_conn_begin(struct vfs_conn *c, struct wire_err *err);
const char *vfs_conn_open_error(struct vfs_conn *c);      /* NULL: opened well. xOpen succeeds with a file whose every call is WALRAFT_CANTOPEN, so that the auto-extension can give the text */
/* The level at which its reads begin from now on, as text (vfs_read_want_parse). */
void vfs_conn_read_level(struct vfs_conn *c, char dst[VFS_WANT_TEXT_BYTES]);
int vfs_conn_set_read_level(struct vfs_conn *c, const char *text, struct wire_err *err);
/* Blocks until `index` is published on the node that c's reads are served by; from then on each of them sees it, at level stale too. What it fails with is
 * remembered for vfs_error_text. WIRE_TIMEOUT, WIRE_CLOSED; WIRE_INVALID: c has no database. */
int vfs_conn_wait(struct vfs_conn *c, uint64_t index, uint32_t timeout_ms, struct wire_err *err);
uint32_t vfs_conn_timeout_ms(struct vfs_conn *c);         /* default 5000 */
int vfs_conn_set_timeout_ms(struct vfs_conn *c, uint32_t ms, struct wire_err *err);
/* "forward": where this node does not lead, the write lock is asked of the leader; "local": writes are refused there (WALRAFT_READONLY_NOT_LEADER). */
int vfs_conn_set_write(struct vfs_conn *c, const char *text, struct wire_err *err);
const char *vfs_conn_write(struct vfs_conn *c);
/* Last committed position of this connection: index, 0 none yet. */
uint64_t vfs_conn_last_index(struct vfs_conn *c);

/* once.c. The id of the write transaction that c runs, else of its latest one, whatever became of it; false: there was none. */
bool vfs_conn_txid(struct vfs_conn *c, uint8_t ret_txid[VFS_TXID_BYTES]);
/* As vfs_node_ops.outcome; why it is not known is remembered for vfs_error_text. */
int vfs_conn_outcome(struct vfs_conn *c, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err);
/* c's write transaction is that step. *ret_step: the client's latest one before; when that is not below, the transaction is a repetition, and its writes
 * are refused from now on with WALRAFT_READONLY_REPEATED, at the latest by its COMMIT; when that one is above, so it says in vfs_error_text. WIRE_INVALID: it is a step already, or there is no transaction; WIRE_FENCED; what
 * vfs_node_ops.step_of fails with: then it is no step. */
int vfs_conn_once(struct vfs_conn *c, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err);
/* What SQLite does with savepoints within c's write transaction, as it tells virtual tables: the step belongs to the savepoint that it was declared in. */
enum vfs_savepoint_op { VFS_SAVEPOINT_BEGIN, VFS_SAVEPOINT_RELEASE, VFS_SAVEPOINT_ROLLBACK };
void vfs_conn_savepoint(struct vfs_conn *c, enum vfs_savepoint_op op, int n);

#endif
