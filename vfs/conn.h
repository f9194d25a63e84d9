/* Private to the shim (vfs.c open.c successor.c newborn.c file.c shm.c wal.c store.c capture.c): one connection of SQLite's to a replicated database.
 *
 * Threads: SQLite calls the files of one connection from one thread at a time, so that nothing here needs a lock but what is shared between connections:
 * seats and the list of writers (vfs.c). See vfs/README.md for the lock order. */
#ifndef VFS_CONN_H
#define VFS_CONN_H

#include "vfs/vfs.h"
#include <sqlite3ext.h>

/* SQLite 3.48 and later: closes the descriptor of the file, and so drops all that this process has locked in it. */
#ifndef SQLITE_FCNTL_NULL_IO
#define SQLITE_FCNTL_NULL_IO 43
#endif

#define SHIM_WRITE 0
#define SHIM_CKPT 1
#define SHIM_RECOVER 2
#define SHIM_READ0 3
#define SHIM_TEXT 600

/* ---- store.c: bytes that only one connection sees ---- */

#define SHIM_STORE_MEMORY (4u << 20) /* bytes kept in memory; what is above goes to an unlinked temporary file */

struct shim_store {
	uint8_t *mem;
	size_t cap;
	uint64_t end;
	sqlite3_file *file; /* NULL: not needed yet */
};
/* All return SQLite codes. A write begins at most at `end`; a read beyond it is zero-filled and SQLITE_IOERR_SHORT_READ. */
int shim_store_write(struct shim_store *s, sqlite3_vfs *base, const void *p, uint32_t n, uint64_t at);
int shim_store_read(struct shim_store *s, void *p, uint32_t n, uint64_t at);
void shim_store_clear(struct shim_store *s); /* keeps a little memory for the next transaction */
void shim_store_free(struct shim_store *s);

/* ---- a write transaction's private part: from the grant of WRITE to its unlock ---- */

struct shim_session {
	bool open, committed, wrote;
	bool moved;   /* the published state had moved on when WRITE was granted: SQLite answers BUSY_SNAPSHOT and comes back */
	int failed;   /* what a call of this session was answered for good; 0: none */
	uint64_t epoch, sequence;
	struct vfs_walindex_hdr base;  /* as published at the grant */
	struct vfs_walindex_hdr after; /* committed: as published then, which is what SQLite must arrive at too */
	uint64_t base_at;              /* offset of the first private frame */
	uint8_t txid[VFS_TXID_BYTES];
	struct shim_store store;
	uint32_t *pgnos, n_frames, cap; /* of the private frames, by their headers */
	uint32_t due;     /* private frame (1-based) with a commit header whose body is the next write; 0: none */
	uint32_t unsalted; /* private frame that got a commit header without salts: checksums are being rewritten; 0: none */
	uint32_t rewritten; /* first private frame whose body was written again; 0: none */
	bool mended;        /* SQLite's checksums were wrong: its header is not the published one */
	uint32_t headed;  /* private frame whose header was the last write; 0: something else was */
	uint32_t db_after; /* of the commit header */
	/* once.c. An attached process sends `once` along with the frames (vfs_remote_commit), and the host's proxy has it from there. */
	struct vfs_once once; /* the step that the transaction is; id_len 0: none */
	bool repeated;        /* the step was applied before: no frame is taken */
	int savepoints, once_at; /* open ones; how many there were when it was declared */
};

struct shim_seat;

struct vfs_conn {
	struct vfs_db *db; /* NULL: opening failed, open_error says why; or newborn */
	sqlite3_vfs *vfs;
	sqlite3_file *real; /* the base VFS's handle, behind ours in SQLite's memory */
	const char *name; /* as SQLite gave it: by it the -wal finds its main file, whatever VFS of the application's lies between */
	struct vfs_conn *next;
	char *path, *open_error;
	bool node; /* one of the node's own */
	bool serves; /* does not keep the node running (vfs_thread_serves) */
	bool several_voters; /* as of its last write transaction */
	int lock_level;     /* newborn: of its file, SQLITE_LOCK_* */
	bool wrote_newborn; /* newborn: there may be something in the database now */
	bool may_set_up;    /* as given to open_db */
	bool named, plain;  /* newborn: auto was asked for in its own URI; it is not to be set up at all */
	unsigned generation;
	struct shim_seat *seat;
	sqlite3 **sql; /* FCNTL_PDB; NULL: not told */
	struct vfs_conn *next_writer;
	sqlite3_stmt *refused_stmt; /* that was refused WRITE, in its run of that number; compared only */
	int refused_run;
	struct vfs_read_want want;
	uint32_t timeout_ms, page_size;
	unsigned write_flags; /* VFS_WRITE_LOCAL, or 0 */

	/* the private wal-index */
	void **region;
	uint32_t n_regions;
	struct vfs_ckpt_info *real_ckpt; /* by its own handle's mapping */
	struct vfs_pull pull; /* what the private copy has */
	uint64_t seen;        /* vfs_db_sequence that it was pulled at */
	bool mapped;
	int pull_failed;      /* what the latest pull failed with; 0: it did not */
	bool proxy;           /* proxy.c: stands for a connection of another process */

	/* locks */
	int read_slot; /* READ lock held shared; -1: none */
	bool write;
	bool ahead;      /* the write lock was had before the READ lock, and SQLite has not asked for it yet */
	uint32_t ahead_reads; /* of pages since then */
	bool unmatched;  /* what SQLite has committed is published in other frames than it thinks: nothing may be read till its READ lock is gone */
	bool phantom;    /* SQLite took for committed what never was: told at FCNTL_COMMIT_PHASETWO */
	bool rereading;  /* SQLite looks at a header that it found torn, under a WRITE that is none */
	bool confirming; /* READ was just granted: the next barrier is followed by SQLite's check that nothing has changed */
	bool retrying;   /* SQLite is bound to find a change and to try again: same read */
	bool token;      /* that next try passes the gate */
	uint32_t retries;
	struct shim_session session;

	uint64_t last_index;
	uint8_t txid[VFS_TXID_BYTES];
	char error[SHIM_TEXT];
	uint64_t error_at; /* order of all errors of the process */
};

struct shim_file { /* what SQLite gets for a main database */
	sqlite3_file head;
	struct vfs_conn *conn;
};
struct shim_wal {
	sqlite3_file head;
	struct vfs_conn *conn;
	sqlite3_file *real;
};

extern const sqlite3_io_methods shim_main_methods, shim_failed_methods, shim_wal_methods, shim_newborn_methods;

/* ---- vfs.c ---- */
sqlite3_vfs *shim_base(struct vfs_conn *c);
struct vfs_host_ops shim_host_ops(void);
struct shim_seat *shim_seat_take(struct vfs_conn *c);
void shim_seat_leave(struct shim_seat *s); /* waits until no thread sleeps on it */
/* Its database from now on; returns the one before, whose reference is the caller's now. */
struct vfs_db *shim_conn_set_db(struct vfs_conn *c, struct vfs_db *db);
unsigned shim_fork_generation(void);
bool shim_thread_is_node(void);
/* Remembers the text and returns the code. */
int shim_fail(struct vfs_conn *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* SQLITE_OK, or the error for a connection that a forked child inherited. */
int shim_alive(struct vfs_conn *c);
uint64_t shim_error_number(void); /* for error_at */
void shim_refused(struct vfs_conn *c, bool reserved); /* for xSleep: this thread waits for the write lock; reserved: it has it already */
void shim_granted(struct vfs_conn *c);
bool shim_sole_writer(struct vfs_conn *c); /* Does a single statement of c's run, and may it write? In a call of SQLite's on c only */
/* Is the read that begins a repetition within the call that was refused WRITE? That call has passed the gate. */
bool shim_repeats_refused(struct vfs_conn *c);
void shim_read_begins(void); /* what this thread was refused before is over: no sleep of now belongs to it */
/* Another database that the same sqlite3 object writes to now, when one of the two has several voters; NULL: none. */
struct vfs_conn *shim_other_writer(struct vfs_conn *c);
void shim_writer_add(struct vfs_conn *c);
void shim_writer_remove(struct vfs_conn *c);

/* ---- pass.c ---- */
void shim_pass_through(sqlite3_vfs *v); /* sets the methods that do nothing but ask the base VFS, v->pAppData */

/* ---- open.c ---- */
const char *shim_thread_open_error(uint64_t *ret_at); /* of the latest open on this thread; "" and 0 when it succeeded */
int shim_open_main(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out);
int shim_open_wal(struct vfs_conn *c, const char *name, sqlite3_file *f, int flags, int *out);
/* Gives the connection its database and node. */
int shim_attach(struct vfs_conn *c, bool may_set_up, struct wire_err *err);
int shim_parse_ms(const char *text, uint32_t *ret_ms, struct wire_err *err);
void shim_conn_close(struct vfs_conn *c); /* all but the base handle is gone; frees c */

/* ---- successor.c ---- */
bool shim_must_change(struct vfs_conn *c); /* its node has ended: to be asked when no lock is held */
bool shim_await_end(struct vfs_conn *c);   /* WIRE_CLOSED was the answer: must it change? Waits a moment where that may become known */
/* Goes over to the node that there is now, when it must; starts it if need be. No lock is held. An SQLite code. */
int shim_change_over(struct vfs_conn *c);
void shim_spoil_header(struct vfs_conn *c); /* SQLite then begins its read anew */

/* ---- newborn.c ---- */
void shim_newborn_after_fork(void);

/* ---- file.c ---- */
int shim_pragma(struct vfs_conn *c, char **arg); /* SQLITE_FCNTL_PRAGMA; SQLITE_NOTFOUND: SQLite's own */
int shim_null_io(struct vfs_conn *c);            /* SQLITE_FCNTL_NULL_IO: refused */

/* ---- shm.c ---- */
int shim_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **pp);
int shim_shm_lock(sqlite3_file *f, int first, int n, int flags);
void shim_shm_barrier(sqlite3_file *f);
int shim_shm_unmap(sqlite3_file *f, int delete);
int shim_pull_anew(struct vfs_conn *c); /* all of the private copy; SQLITE_OK also when it is to be done later (retired) */
void *shim_region(struct vfs_conn *c, uint32_t region); /* makes it when missing; NULL: no memory */
void shim_end_ahead(struct vfs_conn *c);                /* the write lock that was had before SQLite asked goes back */
void shim_write_end(struct vfs_conn *c);                /* WRITE unlock; nothing when it isn't held */
/* Something is read. SQLite asks for WRITE after page 1 at the latest: a statement that reads on without it writes elsewhere, and the lock that was had ahead goes back. */
void shim_ahead_read(struct vfs_conn *c);

/* ---- wal.c ---- */
void shim_session_begin(struct vfs_conn *c, const struct vfs_grant *grant, bool moved);
void shim_session_end(struct vfs_conn *c);
void shim_session_free(struct vfs_conn *c);
/* SQLITE_OK while this node may still commit what the session began with. */
int shim_session_check(struct vfs_conn *c);

/* ---- once.c ---- */
int shim_once_refused(struct vfs_conn *c); /* for a write of a repetition */
int shim_once_check(struct vfs_conn *c);   /* SQLITE_OK: no step, or one that was not applied yet */

/* ---- capture.c ---- */
/* Commits the session's first n_frames private frames: page set, proposal, publication. An SQLite code, never plain SQLITE_BUSY. */
int shim_commit(struct vfs_conn *c, uint32_t n_frames, uint32_t db_after);

/* ---- commit_remote.c ---- */
int shim_matches(struct vfs_conn *c); /* before reading pages: SQLITE_OK, or the error of an unmatched connection */
/* The same where another process hosts the node: the frames go there. */
int shim_commit_remote(struct vfs_conn *c, uint32_t n_frames, uint32_t db_after);
/* The private regions that SQLite will write to when it has committed n_frames. An SQLite code. */
int shim_regions_for(struct vfs_conn *c, uint32_t n_frames);

#endif
