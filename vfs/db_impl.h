/* Private to vfs/db*.c. The object, its lock rules, and what its phases offer each other.
 *
 * Locks, outer first: ckpt, (the virtual write lock), publisher, pub; each db_file's io mutex is a leaf. Suffix _locked: the caller holds publisher. */
#ifndef VFS_DB_IMPL_H
#define VFS_DB_IMPL_H

#include "vfs/db.h"
#include "vfs/shared.h"
#include "vfs/shmlock.h"
#include "vfs/wlock.h"
#include <pthread.h>
#include <sqlite3ext.h>
#include <stdatomic.h>

#define DB_IO_BYTES (120u * 1024) /* unix xWrite masks a length to 17 bits */
#define DB_FRAME_MAX (VFS_FRAME_HDR + 65536u)
#define DB_SHM_WRITE 0
#define DB_SHM_CKPT 1
#define DB_SHM_READ(i) (3 + (i))

typedef int (*db_read_entry_fn)(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err);

/* A handle of the base VFS. Builds of SQLite without pread seek before they read, so every transfer takes io. */
struct db_file {
	sqlite3_file *f; /* NULL: not open */
	const char *name;
	pthread_mutex_t io;
};

/* The chunked transaction whose close has not been seen. first 0: none. */
struct db_open_tx {
	uint64_t first, term;
	uint32_t chunks;
	uint8_t txid[VFS_TXID_BYTES];
};

struct vfs_db {
	struct vfs_db *next; /* these three under the registry's mutex */
	uint32_t refs;
	bool listed, closed; /* closed: freed with the last reference */

	char *path, *pages_path;
	const char *file_name; /* of sqlite3_create_filename */
	uint64_t group;
	uint32_t page_size;
	sqlite3_vfs *base;
	struct db_file anchor, wal;
	bool db_locked, shm_mapped, shm_locked; /* shm_locked: by the anchor, where there is no shmlock */
	char *shm_name;
	struct vfs_shmlock *shmlock; /* WRITE and CKPT */
	atomic_bool shmlock_shared;  /* other processes rely on it */
	const struct wire_env *env;
	struct vfs_node_ops ops, door_ops;
	struct vfs_wlock *wlock;
	atomic_bool writes_far;
	/* What other processes see of it; NULL: nobody is to. attached: it is another process's, `owner`'s (attached.h), and this one only reads it. */
	struct vfs_shared *shared;
	uint64_t owner;
	void (*unmap)(const struct vfs_shared *shared);
	bool attached;

	/* db_life.c */
	atomic_bool retiring, shut;
	_Atomic uint32_t inside;
	pthread_mutex_t door; /* a leaf */
	pthread_cond_t left;

	pthread_mutex_t ckpt, publisher, pub;

	/* under pub */
	void **region;
	uint32_t n_regions, cap_regions;
	struct vfs_walindex_hdr hdr; /* as published */
	struct vfs_pages *pages;
	struct db_open_tx open; /* written under publisher too */
	uint64_t n_publications, n_restarts, n_checkpoints;
	_Atomic uint64_t index, sequence;

	/* under publisher */
	struct vfs_wal_header wal_hdr;
	uint8_t *io_buf; /* DB_IO_BYTES */
	uint8_t *page_buf;
	int failed; /* a publication was cut short: nothing may follow */
	struct wire_err failure;

	/* under ckpt */
	uint64_t marked_index;
	bool db_synced; /* what the wal-index says is backfilled is durable in the database file */
	uint64_t restart_not_before_ns;
	uint32_t restart_failures;
	int ckpt_failed;
};

/* db.c */
int db_fail(struct vfs_db *db, struct wire_err *err, int rc, const char *what, const char *file);
int db_file_open(struct vfs_db *db, struct db_file *f, const char *name, int flags, struct wire_err *err);
void db_file_close(struct db_file *f);
/* Exactly n bytes, or *ret_short (when given) says that the file ends before; without ret_short that is WIRE_CORRUPT. */
int db_file_read(struct vfs_db *db, struct db_file *f, void *dst, size_t n, uint64_t at, bool *ret_short, struct wire_err *err);
int db_file_write(struct vfs_db *db, struct db_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err);
int db_file_sync(struct vfs_db *db, struct db_file *f, struct wire_err *err);
int db_file_size(struct vfs_db *db, struct db_file *f, uint64_t *ret_size, struct wire_err *err);
int db_shm_lock(struct vfs_db *db, int first, int n); /* EX; an SQLite code */
void db_shm_unlock(struct vfs_db *db, int first, int n);
struct vfs_regions db_regions(struct vfs_db *db); /* use under pub */
int db_map_regions(struct vfs_db *db, uint32_t count, struct wire_err *err);
struct vfs_ckpt_info *db_ckpt_info(struct vfs_db *db);
void db_load_ckpt_info(struct vfs_db *db, struct vfs_ckpt_info *dst); /* from the real mapping; region 0 is there */
void db_nap_us(struct vfs_db *db, uint32_t us);
/* The index that stands for the state as published: below the beginning of an open chunked transaction, so that it is read again after a start from there. Under pub. */
uint64_t db_state_index(struct vfs_db *db);
/* Shows the published state, of that index, to other processes; under pub. Before vfs_db_published tells of it: this process lets readers of others pass by that. */
void db_share(struct vfs_db *db, uint64_t index);
void db_list(struct vfs_db *db);
void db_unlist(struct vfs_db *db);
bool db_closed(struct vfs_db *db); /* from now on the last reference frees it; true: there is none */

void db_free(struct vfs_db *db); /* db_open.c; closed, and nobody has a reference */

/* db_life.c */
void db_ops_behind_door(struct vfs_db *db); /* makes door_ops */
void db_shut(struct vfs_db *db);            /* on return nobody is inside, and nobody will be */

/* db_open.c */
struct vfs_db *db_new(const char *path, const struct wire_env *env, const struct vfs_node_ops *ops, struct wire_err *err);
int db_open_anchor(struct vfs_db *db, const char *path, struct wire_err *err); /* sets path, opens the file and takes SHARED; WIRE_BUSY */

/* attached.c: db->attached */
bool attached_is_ours(const struct vfs_db *db); /* the host is still the one that it was attached to */
uint64_t attached_sequence(const struct vfs_db *db);
uint64_t attached_published(const struct vfs_db *db);
int attached_pull(struct vfs_db *db, struct vfs_pull *pull, const struct vfs_regions *to, struct wire_err *err);

/* db_log.c: transactions as they lie in the log */
enum db_step {
	DB_STEP_SKIP,  /* changes nothing: a chunk that is not the last, or a close without its chunks */
	DB_STEP_WHOLE, /* a transaction in one entry */
	DB_STEP_CLOSE, /* closes t->first .. index */
};
enum db_step db_open_tx_step(struct db_open_tx *t, const struct vfs_pageset_head *h, uint64_t index, uint64_t term);

/* What the transaction that is at its end with the entry at index did. */
struct vfs_effect db_effect_of(const struct vfs_pageset_head *h, uint64_t index, uint64_t term);

/* Walks over the pages of the transaction in entries first..close that have its term and id. */
struct db_cursor {
	db_read_entry_fn read_entry;
	void *read_ctx;
	uint64_t first, close, term;
	uint8_t txid[VFS_TXID_BYTES];
	uint32_t page_size, db_after;
	uint64_t at; /* next entry to read */
	uint32_t last_pgno;
	bool decoding;
	struct wire_buf data;
	struct vfs_pageset_dec dec;
};
void db_cursor_init(struct db_cursor *c, db_read_entry_fn read_entry, void *read_ctx, uint64_t first, uint64_t close, uint64_t term, const struct vfs_pageset_head *h);
void db_cursor_rewind(struct db_cursor *c);
/* *ret_page valid until the next call; pgno 0: the end. Pages ascend and are at most db_after: WIRE_CORRUPT names the entry. */
int db_cursor_next(struct db_cursor *c, struct vfs_pageset_page *ret_page, struct wire_err *err);
void db_cursor_free(struct db_cursor *c);

/* db_recover.c */
/* Reads the WAL up to its last valid commit and brings the real wal-index to it, so that stock readers have all of it. Sets hdr, wal_hdr
 * (page_size 0: no valid header) and page_size. WIRE_BUSY: the wal-index must be made anew and readers hold on to it. */
int db_recover(struct vfs_db *db, struct wire_err *err);

/* db_position.c: sets db->pages, db->index, db->open. */
int db_find_position(struct vfs_db *db, const struct vfs_db_start *start, struct wire_err *err);

/* db_publish.c */
int db_publish_locked(struct vfs_db *db, const struct vfs_publication *p, struct wire_err *err);
/* Over entries without pages. */
int db_advance_locked(struct vfs_db *db, uint64_t index, const struct db_open_tx *open, const struct vfs_effect *effects, size_t n_effects, struct wire_err *err);
int db_read_page(struct vfs_db *db, uint32_t pgno, void *dst, struct wire_err *err);

/* db_checkpoint.c: a new WAL, header and page 1 as commit frame 1, durable. WIRE_BUSY: readers use the old one. The WAL must be wholly in the synced database file. */
int db_restart_wal_locked(struct vfs_db *db, struct wire_err *err);

#endif
