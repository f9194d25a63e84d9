/* One replicated database as its node sees it: the files through SQLite's unix VFS, the locks that keep others from writing, the published state, and
 * the one way in which anything is published. See vfs/README.md for the rules and the lock order.
 *
 * Files. `anchor` is a handle of the unix VFS on the database; it holds a SHARED lock on it, and WRITE and CKPT on -shm for as long as the object lives (these two by vfs/shmlock.h).
 * `wal` is a handle on -wal. All real I/O of the object goes through these two (I14). The wal-index that the object writes is the real mapping
 * (anchor's xShmMap).
 *
 * Published state = (index, wal-index header, pages, checksum). It moves only in vfs_db_publish (and restart), under `pub`; a publication is visible to
 * stock readers, to connections of this process (they pull), and to `published` waiters in one step.
 *
 * Lock order (outer first): publisher lock, write-lock queue's mutex, pub. `publisher` is held through a whole publication, checkpoint's end or restart: one
 * at a time; `pub` only while state in memory and the wal-index change or are copied. No callback of vfs_node_ops is called under pub. */
#ifndef VFS_DB_H
#define VFS_DB_H

#include "vfs/pages.h"
#include "vfs/pageset.h"
#include "vfs/walfmt.h"
#include "vfs/walindex.h"
#include "wire/env.h"

struct vfs_db;
struct vfs_conn;
struct vfs_shared;        /* shared.h */
struct vfs_remote_commit; /* attached.h */
struct vfs_remote_result;

enum vfs_read_level {
	VFS_READ_LINEARIZABLE,
	VFS_READ_LEASE,   /* linearizable, but at once or not at all where that needs no message: on the leader without a lease, and without a leader, an error */
	VFS_READ_BOUNDED, /* sees all that was acknowledged by anybody more than bound_ms before the read began */
	VFS_READ_STALE,   /* what is published here */
};
struct vfs_read_want { enum vfs_read_level level; uint32_t bound_ms; };
#define VFS_BOUND_MS_MAX 86400000u
#define VFS_WANT_TEXT_BYTES 32
/* level.c. "linearizable", "lease", "bounded:500", "stale", in any case of letters; WIRE_INVALID: the text lists what is possible. And back. */
int vfs_read_want_parse(const char *text, struct vfs_read_want *ret_want, struct wire_err *err);
void vfs_read_want_text(const struct vfs_read_want *want, char dst[VFS_WANT_TEXT_BYTES]);

/* The right to run one write transaction: the write lock of the cluster, held for one connection. */
struct vfs_grant {
	uint64_t epoch;               /* names it in later calls; never 0, and never given twice by a node's process */
	uint8_t txid[VFS_TXID_BYTES]; /* of the transaction that is run under it; no other ever gets it */
	bool fresh; /* asked for by this very call, of another node that led for certain when it gave it: all that was acknowledged before the call is published here */
};
enum vfs_write_flags {
	VFS_WRITE_LOCAL = 1, /* only where this node leads: never ask another one */
	VFS_WRITE_AHEAD = 2, /* SQLite has not asked yet: it begins to read, for a statement that will most likely write. What is had so is void unless it is asked for without this in a moment */
};

/* What an entry of the log did besides changing pages: it was the first that was looked at of its term, or it brought a transaction to its end. A close that is skipped, and
 * a chunk before its close, did nothing. */
struct vfs_effect {
	uint64_t index;
	uint64_t term;    /* of the entry; 0: the one in which its transaction was granted (a commit of this process) */
	bool transaction; /* the rest is of it */
	uint8_t txid[VFS_TXID_BYTES];
	uint64_t timestamp_us;
	struct vfs_once once;
};

/* The latest step of a client's that was applied; index 0: none. */
struct vfs_step { uint64_t seq, index; };

/* A place in the real WAL: its last commit frame. mx_frame 0 with salts: a header and no frame. */
struct vfs_wal_pos { uint32_t salt[2], mx_frame, cksum[2]; };

/* What the node does for the database. Called on application threads (A), the node's publisher (P), its maintenance thread (M); never under pub. */
struct vfs_node_ops {
	void *ctx;
	/* A: may a read that wants this begin now? Blocks up to timeout_ms. *ret_waited: time passed since the caller's header was read. Errors:
	 * WIRE_TIMEOUT, WIRE_CLOSED; the text is for walraft_error(). */
	int (*read_gate)(void *ctx, const struct vfs_read_want *want, uint32_t timeout_ms, bool *ret_waited, struct wire_err *err);
	/* A: blocks until `index` is published here, timeout_ms at most (0: only looks). WIRE_TIMEOUT: it is not, and the text says how far this node is. WIRE_CLOSED. */
	int (*wait_published)(void *ctx, uint64_t index, uint32_t timeout_ms, struct wire_err *err);
	/* A: the cluster's write lock for `who`, a connection (any non-NULL pointer), which is in one call at a time. WIRE_OK: it is held, and all entries before the
	 * transaction are published here: nothing but this transaction is published until write_unlock, or the grant is void (epoch_valid). Waits for the network and for what is
	 * to be published, timeout_ms at most, never for other writers: WIRE_BUSY when another one has it, or the leader is not so far; `who` has a ticket then, which
	 * lapses when it neither asks nor sleeps for it for 100 ms. WIRE_NOTLEADER: there is no leader to ask, or flags have LOCAL. WIRE_CLOSED, WIRE_TIMEOUT: nobody
	 * answers. flags: enum vfs_write_flags. */
	int (*write_lock)(void *ctx, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err);
	/* A: after WIRE_BUSY: sleeps us microseconds at most, less when the lock is there for `who` to take, which then must ask at once. Returns the time slept. */
	uint32_t (*write_sleep)(void *ctx, const void *who, uint32_t us);
	/* A: the transaction is over, whatever became of it. keep: the caller is back at once (SQLITE_BUSY_SNAPSHOT), and is to have it again before others. The lock itself stays with a
	 * proposed entry until that is resolved. */
	void (*write_unlock)(void *ctx, const void *who, bool keep);
	/* A: `who` is gone, with its ticket. It holds nothing. */
	void (*write_forget)(void *ctx, const void *who);
	bool (*epoch_valid)(void *ctx, uint64_t epoch);
	/* A: proposes one chunk that is not the last; returns its index at once, but first waits (bounded) while more than a few MiB are
	 * uncommitted. `data` is copied. WIRE_FENCED, WIRE_TIMEOUT, WIRE_CLOSED: nothing of this transaction will ever be applied (no close follows). */
	int (*propose)(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err);
	/* A: proposes the entry that closes the transaction and waits. WIRE_OK: committed by a quorum, durable here, and all before it is published; the caller must now call
	 * vfs_db_publish for *ret_index, then commit_end. WIRE_NOTLEADER / WIRE_FENCED / WIRE_BUSY: refused before it was proposed. WIRE_LOST: superseded. WIRE_UNKNOWN: not known in
	 * time; the node will publish it by itself should it be committed. */
	int (*commit)(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err);
	/* A: after commit gave WIRE_OK. published: vfs_db_publish succeeded; else the node ends its part (it can't serve this database). */
	void (*commit_end)(void *ctx, uint64_t index, bool published);
	/* A,P: before each publication, unsynced. */
	int (*note_publication)(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err);
	/* A,P: entries up to `upto` are about to be published, with these effects, in the order of the log; called under the publisher's lock once nothing but this can fail
	 * any more, before any of it is visible. Failing is final, as it is for note_publication. NULL: nobody keeps such things. */
	int (*effects)(void *ctx, uint64_t upto, const struct vfs_effect *effects, size_t n, struct wire_err *err);
	/* M,P: before the WAL is restarted: durable on return. pos has the new salts and mx_frame 1. Also from within vfs_db_open, when there is no usable WAL. */
	int (*note_restart)(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err);
	/* M: WAL and pages are durable up to index: append a checkpoint mark and sync. */
	int (*note_mark)(void *ctx, uint64_t index, uint64_t checksum, uint32_t db_pages, struct wire_err *err);
	/* A: JSON-free facts for SQL functions and pragmas: leader's URL ("" unknown). */
	void (*leader_url)(void *ctx, char *dst, size_t cap);
	/* A: does a quorum need more than this node? Under a transaction over two databases it may not be. */
	bool (*several_voters)(void *ctx);
	/* A: how far the client of that step has come, by what is published here. What it fails with means that a step that was applied cannot be told from a new one: WIRE_UNSUPPORTED, WIRE_FULL, WIRE_CLOSED. */
	int (*step_of)(void *ctx, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err);
	/* A: what became of a transaction. WIRE_OK: *ret_index is that of its entry, which is published here (if that was to be had in time); or 0: it is not committed, and never will be. Else it cannot be told now, or not any
	 * more; the text says why: WIRE_UNKNOWN, WIRE_CLOSED, WIRE_TIMEOUT. Asks the leader and waits for what is to be published, timeout_ms at most. */
	int (*outcome)(void *ctx, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err);
	/* A: the leader's wall clock, for a transaction under that grant. */
	uint64_t (*wall_us)(void *ctx, uint64_t epoch);
	/* A: of an attached database only (attached.h), else NULL: the host is sent the private frames of `who`'s transaction, makes an entry of them, commits and publishes it. WIRE_OK: it
	 * answered. WIRE_FENCED: it has not got them all, and nothing is committed; WIRE_UNKNOWN: it did not answer in time, or has ended. */
	int (*commit_frames)(void *ctx, const void *who, const struct vfs_remote_commit *c, struct vfs_remote_result *ret_result, struct wire_err *err);
};

/* What the journal knows, for finding the position at start (DESIGN, section 5). read_entry gives the data of an entry in (mark_index, last_index]. */
struct vfs_db_start {
	const char *path;       /* of the database */
	const char *pages_path; /* of the file `pages` */
	uint64_t group;
	uint64_t mark_index, mark_checksum;
	uint32_t mark_db_pages;
	uint64_t last_index;    /* last entry in the journal (not the commit index: what is published may be above what is known to be committed) */
	const struct vfs_known_pos { struct vfs_wal_pos pos; uint64_t index; } *known; /* publications, oldest first */
	size_t n_known;
	void *read_ctx;
	/* kind as in wire/msg.h; data only for DATA */
	int (*read_entry)(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err);
	const struct wire_env *env;
	const struct vfs_node_ops *ops; /* copied */
	struct vfs_shared *shared; /* where to show the published state to other processes, until vfs_db_close; NULL: nowhere */
};

/* Takes the locks (WIRE_BUSY: someone uses the database, with what to do), recovers the WAL and wal-index, finds the position, loads pages, makes the WAL non-empty (header and page 1 as commit frame 1) and
 * the database known to the shim by its canonical path. WIRE_CHANGED: content matches no committed position (the text names the file, and walraft's ways out). */
int vfs_db_open(const struct vfs_db_start *start, struct vfs_db **ret_db, struct wire_err *err);
/* Ends it: refuses new connections, waits for those that are inside (vfs_db_enter; the caller has seen to it that nothing there waits for long), releases locks and files, which are ordinary
 * ones then, and needs no node any more. Connections that are left keep the object, retired, until their last vfs_db_unref: their reads under way go on, by handles of
 * their own; what they were writing is fenced; at their next read they ask vfs_host_ops.open_db for the one that came after it. */
void vfs_db_close(struct vfs_db *db);
/* The descriptor with the locks of -shm, to be sent to processes that are attached (vfs/shmlock.h); -1: none. shared: some rely on it, so that the close leaves the locks to them.
 * For the node; any thread before vfs_db_close. */
int vfs_db_lock_fd(struct vfs_db *db, bool shared);
bool vfs_db_is_retired(struct vfs_db *db); /* or about to be; an atomic load */
void vfs_db_retire(struct vfs_db *db);     /* it is about to be closed: new reads and writes ask for the next one; what is under way goes on */
/* While a caller is inside, the object is not closed: between the two all calls below, and vfs_db_ops_inside, may be used. false: it is retired. Who calls has a
 * reference. What needs neither: vfs_db_ops, _is_retired, _sequence, _published, _path, _page_size, _pull (WIRE_CLOSED), _status (as it was). */
bool vfs_db_enter(struct vfs_db *db);
void vfs_db_leave(struct vfs_db *db);
uint32_t vfs_db_connections(struct vfs_db *db);

struct vfs_db_status {
	uint64_t index;    /* published */
	uint64_t checksum; /* state checksum at index */
	uint32_t db_pages, page_size, wal_frames, backfilled;
	uint64_t publications, restarts, checkpoints;
};
void vfs_db_status(struct vfs_db *db, struct vfs_db_status *ret_status); /* one consistent reading */
uint64_t vfs_db_published(struct vfs_db *db);                            /* an atomic load */

/* Publishes the committed entries (first = published + 1 .. last), read by read_entry, the one way for all that did not run on a connection here: many small ones in one publication,
 * chunked ones at their close (their chunks read again from the first). Verifies checksums before and after: WIRE_CORRUPT names index and page, the state stays as after the last good entry.
 * Any other error: the state is as after some entry in the range, nothing half-published. */
int vfs_db_apply(struct vfs_db *db, uint64_t last,
                 int (*read_entry)(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err), void *read_ctx,
                 struct wire_err *err);
/* The effects of the entries first..last as they lie in the log, in order, for who was not told by vfs_node_ops.effects: what vfs_db_apply would have told, and nothing is changed. `first` must
 * not lie within a chunked transaction (a checkpoint mark + 1 does not). `each` returning an error ends the walk with it. */
int vfs_log_effects(uint64_t first, uint64_t last, int (*read_entry)(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err),
                    void *read_ctx, int (*each)(void *ctx, const struct vfs_effect *e, struct wire_err *err), void *ctx, struct wire_err *err);
/* The published index is advanced over entries without pages in vfs_db_apply; trimming of the journal must not pass this (beginning of an open chunked transaction - 1, or the published index). */
uint64_t vfs_db_trim_limit(struct vfs_db *db);

/* A publication, built by apply and by a connection's commit alike. frame(ctx, i, dst) fills dst: with verbatim 24 + page_size bytes (header and page, ready), else the page only.
 * pgnos: per frame, in frame order. updates: each page's hash after, once per page, ascending. Everything that can fail without harm is done by vfs_db_publish_prepare. */
struct vfs_publication {
	uint64_t index;
	uint32_t n_frames, db_pages;
	const uint32_t *pgnos;
	bool verbatim;
	void *ctx;
	int (*frame)(void *ctx, uint32_t i, uint8_t *dst, struct wire_err *err);
	uint32_t n_updates;
	const struct vfs_page_update { uint32_t pgno; uint64_t hash; uint64_t index; } *updates;
	uint64_t checksum_after;
	size_t n_effects;
	const struct vfs_effect *effects;
};
/* Makes sure that regions and page records for n_frames more frames and db_pages pages are there, so that only file writes can fail later. */
int vfs_db_publish_prepare(struct vfs_db *db, uint32_t n_frames, uint32_t db_pages, struct wire_err *err);
int vfs_db_publish(struct vfs_db *db, const struct vfs_publication *p, struct wire_err *err);

/* For connections of the shim. All under pub: copies the published header, and the regions that differ from what the connection has, into its private copies. */
struct vfs_pull { struct vfs_walindex_hdr hdr; /* in: what the copy has; out: published */ };
uint64_t vfs_db_sequence(struct vfs_db *db); /* changes with every publication and restart; atomic */
void vfs_db_state(struct vfs_db *db, struct vfs_walindex_hdr *ret_hdr, uint64_t *ret_sequence); /* the published header, and the sequence that it is of */
/* regions: the private copies (get may not fail for regions up to the published tail: reserved before by the caller through n_regions); returns WIRE_NOMEM when get fails, WIRE_CLOSED when it is retired. */
int vfs_db_pull(struct vfs_db *db, struct vfs_pull *pull, const struct vfs_regions *private_regions, struct wire_err *err);
void vfs_db_ckpt_info_load(struct vfs_db *db, struct vfs_ckpt_info *dst);       /* the 40 bytes, from the real mapping */
void vfs_db_read_mark_store(struct vfs_db *db, int slot, uint32_t mark);        /* aReadMark[slot] of the real mapping; the caller holds EX on READ slot */
void *vfs_db_real_region(struct vfs_db *db, uint32_t region, bool extend);      /* real mapping; NULL: not there */
/* Page pgno as of the published state (latest frame in WAL, else the file), for building ranges while the write lock is held. */
int vfs_db_read_page(struct vfs_db *db, uint32_t pgno, void *dst, struct wire_err *err);
uint64_t vfs_db_page_hash(struct vfs_db *db, uint32_t pgno);
uint32_t vfs_db_page_size(struct vfs_db *db);
const char *vfs_db_path(struct vfs_db *db);
/* For connections: as the node gave them, but WIRE_CLOSED, or false, or nothing, once the object is retired. Without the note_ ones. */
const struct vfs_node_ops *vfs_db_ops(struct vfs_db *db);
const struct vfs_node_ops *vfs_db_ops_inside(struct vfs_db *db); /* the node's own */
struct vfs_wlock *vfs_db_wlock(struct vfs_db *db);
/* Is the write lock another node's to give? Then a read that is likely to write asks for it (VFS_WRITE_AHEAD) before it begins. The node says so, at any time; an atomic load. */
void vfs_db_set_writes_far(struct vfs_db *db, bool far);
bool vfs_db_writes_far(struct vfs_db *db);
/* The open database of this process at that canonical path, with a reference that keeps it from closing (NULL: none). */
struct vfs_db *vfs_db_find(const char *canonical_path);
void vfs_db_ref(struct vfs_db *db);   /* one more connection */
/* The last one frees a retired object. */
void vfs_db_unref(struct vfs_db *db);
/* In a forked child: the parent's databases are not open here. Its own handles on them are no SQLite's, since SQLite's notes of the parent's locks are in the child's memory (child.h). */
void vfs_db_after_fork(void);
void vfs_db_inherit(struct vfs_db *db); /* after that: one more of the parent's, a retired one that connections still had */
/* As base->xOpen, for a main database. */
struct sqlite3_vfs;
struct sqlite3_file;
int vfs_db_open_handle(struct sqlite3_vfs *base, const char *path, struct sqlite3_file *f, int flags, int *out);

/* Maintenance (M). Checkpoint as in DESIGN section 4: WAL synced, pages flushed, mark; passive copying, db synced; and when the WAL is above restart_frames: takes the write queue (bounded), again, restart (header + sync, page 1 as commit frame 1).
 * leader or not. *ret_restarted tells. A restart that readers prevented is put off for 1 s, then 2, up to 16. A failed sync is final: every later call fails. */
int vfs_db_checkpoint(struct vfs_db *db, uint32_t restart_frames, bool *ret_restarted, struct wire_err *err);
void vfs_db_watchdog(struct vfs_db *db); /* compares the real header copies with what was published, rewrites a torn one */

/* A pinned, read-only view at one index (a transaction boundary), for images. Neither checkpoints nor publications wait for it; restarts do. Any thread, one at a time. */
struct vfs_view;
struct vfs_view_info { uint64_t index, checksum; uint32_t db_pages, page_size; };
int vfs_view_open(struct vfs_db *db, struct vfs_view **ret_view, struct vfs_view_info *ret_info, struct wire_err *err);
int vfs_view_read(struct vfs_view *v, uint32_t pgno, void *dst, struct wire_err *err);
uint64_t vfs_view_page_hash(struct vfs_view *v, uint32_t pgno, const void *page);
void vfs_view_close(struct vfs_view *v);

#endif
