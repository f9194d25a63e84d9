/* Insides of the journal, shared by the raft/journal*.c files and by nobody else. raft/JOURNAL.md gives the bytes, the
 * validity rule and the recovery algorithm.
 *
 * journal_record.c  bytes of records and segment headers
 * journal_log.c     what the journal knows of the log in memory: where entries lie, terms, configurations, hard state
 * journal_seg.c     segment files: preparing, rolling, recycling, removing
 * journal_open.c    create and open
 * journal_scan.c    files as they are: reading them, what is recognised in them, where the log begins
 * journal_replay.c  records in their order: what each one changes, and what is certain in spite of damage before it
 * journal_recover.c where the log ends, cutting what is behind
 * journal_salvage.c what is kept of a journal that is damaged beyond that
 * journal.c         append, sync
 * journal_use.c     read, trim, upkeep
 *
 * Locks: `wmu` is held by whoever appends, over a whole call; `mu` protects everything in struct raft_journal and is
 * held over a write but never over a sync, a read, or the preparation of a segment. Order: wmu, then mu. */
#ifndef RAFT_JOURNAL_IMPL_H
#define RAFT_JOURNAL_IMPL_H

#include "raft/journal.h"
#include "wire/hash.h"
#include <pthread.h>

enum {
	RAFT_JRN_VERSION = 2,
	RAFT_JRN_REC_HEAD = 28,  /* bytes of every record before its payload */
	RAFT_JRN_ENTRY_HEAD = 20, /* bytes of an entry record's payload before the data */
	RAFT_JRN_END_BYTES = 32, /* a segment end, always kept free at the end of a segment */
	RAFT_JRN_NOTE_MAX = 512,
	RAFT_JRN_PUBS = 4,       /* publications that a segment header repeats */
	RAFT_JRN_SECTOR = 512,
	RAFT_JRN_HEADER_MAX = 16 << 10,
	RAFT_JRN_SPARES = 2,     /* trimmed segments that are kept for reuse */
	RAFT_JRN_PATH_MAX = 4096,
};
#define RAFT_JRN_SEGMENT_DEFAULT (16u << 20)
#define RAFT_JRN_SEGMENT_MIN (2u << 10)
#define RAFT_JRN_SEGMENT_MAX (1u << 30)

enum raft_jrn_type {
	RAFT_JRN_NONE,
	RAFT_JRN_ENTRY,
	RAFT_JRN_TRUNCATE,
	RAFT_JRN_VOTE,
	RAFT_JRN_COMMIT,
	RAFT_JRN_PUBLICATION,
	RAFT_JRN_MARK,
	RAFT_JRN_NOTE,
	RAFT_JRN_SYNC,
	RAFT_JRN_TRIM,
	RAFT_JRN_END,
	RAFT_JRN_FILL, /* an entry's data again, in place of what is damaged */
	RAFT_JRN_TYPES,
};

/* A place in the journal: segment number and offset in its file; places compare as numbers do. */
static inline uint64_t raft_jrn_pos(uint64_t no, uint32_t off)
{
	return no << 32 | off;
}

static inline uint32_t raft_jrn_align(uint32_t n)
{
	return (n + 7u) & ~7u;
}

/* ---- journal_record.c ---- */
struct raft_jrn_rec {
	uint8_t type, kind;
	uint32_t total;          /* bytes with padding */
	uint64_t synced, commit; /* synced: a place; 0: nothing said */
	const uint8_t *payload;
	uint32_t length; /* of the payload */
	/* entries and fills */
	uint64_t term, sum;
	uint32_t index_low, size;
	const uint8_t *data;
};
static inline bool raft_jrn_has_data(uint8_t type)
{
	return type == RAFT_JRN_ENTRY || type == RAFT_JRN_FILL;
}
/* Appends a record that lies at (no, off). rec gives type, kind, synced, commit, and payload/length; of an entry or a fill instead
 * index_low, term, sum, size and data. Check b->failed afterwards. */
void raft_jrn_put(struct wire_buf *b, uint64_t group, uint64_t no, uint32_t off, const struct raft_jrn_rec *rec);
uint32_t raft_jrn_entry_bytes(uint32_t size); /* of an entry's record, with padding */
/* True when a record with a valid head lies at (no, off), of which n bytes are at p; an entry's data is not looked at. */
bool raft_jrn_parse(const uint8_t *p, size_t n, uint64_t group, uint64_t no, uint32_t off, struct raft_jrn_rec *ret_rec);
bool raft_jrn_data_ok(const struct raft_jrn_rec *rec);
void raft_jrn_put_publication(uint8_t dst[28], const struct raft_journal_publication *p);
void raft_jrn_get_publication(const uint8_t src[28], struct raft_journal_publication *p);

struct raft_jrn_header {
	uint32_t bytes; /* of the header's area; records begin behind it */
	uint32_t segment_bytes;
	bool recycled; /* bytes behind the records may be those of an older segment, not zeros */
	bool forgetful;
	uint64_t group, no, oldest, synced, commit, first_index, prev_term, term, vote;
	struct raft_journal_mark mark;
	struct raft_journal_publication pubs[RAFT_JRN_PUBS];
	uint32_t n_pubs;
	struct raft_config config;
};
/* Appends the header's area, zeros included. `bytes` is not looked at. */
void raft_jrn_put_header(struct wire_buf *b, const struct raft_jrn_header *h);
/* Bytes of that area; 0: no memory. */
uint32_t raft_jrn_header_bytes(const struct raft_jrn_header *h);
/* WIRE_CORRUPT when there is no valid header of segment `no` at p. */
int raft_jrn_get_header(const uint8_t *p, size_t n, uint64_t no, struct raft_jrn_header *ret_h, struct wire_err *err);

/* ---- journal_log.c ---- */
struct raft_jrn_at {
	uint32_t seg, off, size; /* off 0: the record is lost */
};
struct raft_jrn_hole {
	uint64_t index, sum;
	uint32_t size;
	uint8_t kind;
	bool known; /* kind, size and sum: the record's head is valid */
};
struct raft_jrn_run { /* entries from `first` on have this term */
	uint64_t first, term;
};
struct raft_jrn_log {
	uint64_t base_index, base_term;
	struct raft_config base_config;
	struct raft_jrn_at *at; /* entry base_index + 1 + i is at[head + i] */
	size_t head, n, cap;
	struct raft_jrn_run *runs;
	size_t n_runs, cap_runs;
	struct raft_log_config *configs;
	size_t n_configs, cap_configs;
	struct raft_jrn_hole *holes; /* ascending */
	size_t n_holes, cap_holes;
	uint64_t term, vote;
	bool forgetful;
	struct raft_journal_mark mark;
	struct raft_journal_publication pubs[RAFT_JRN_PUBS]; /* the latest, oldest first */
	uint32_t n_pubs;
};
void raft_jrn_log_free(struct raft_jrn_log *l);
static inline uint64_t raft_jrn_log_last(const struct raft_jrn_log *l)
{
	return l->base_index + l->n;
}
/* Room for n more entries, of which n_configs carry configurations. False when memory is short. */
bool raft_jrn_log_reserve(struct raft_jrn_log *l, size_t n, size_t n_configs);
/* Appends entry last + 1; room was reserved. config: NULL unless it carries one. */
void raft_jrn_log_append(struct raft_jrn_log *l, uint64_t term, struct raft_jrn_at at, const struct raft_config *config);
void raft_jrn_log_truncate(struct raft_jrn_log *l, uint64_t from); /* base < from <= last */
struct raft_jrn_hole *raft_jrn_log_hole(const struct raft_jrn_log *l, uint64_t index); /* NULL: it is none */
bool raft_jrn_log_add_hole(struct raft_jrn_log *l, const struct raft_jrn_hole *h); /* false: no memory */
/* The hole's data lies at `at` now. */
void raft_jrn_log_fill(struct raft_jrn_log *l, struct raft_jrn_hole *h, struct raft_jrn_at at);
/* The index up to `last` that has the given low half. */
static inline uint64_t raft_jrn_full_index(uint64_t last, uint32_t low)
{
	return last - (uint32_t)((uint32_t)last - low);
}
void raft_jrn_log_rebase(struct raft_jrn_log *l, uint64_t base);   /* base_index <= base <= last */
uint64_t raft_jrn_log_term(const struct raft_jrn_log *l, uint64_t index); /* base <= index <= last */
const struct raft_config *raft_jrn_log_config(const struct raft_jrn_log *l, uint64_t index); /* in force there */
void raft_jrn_log_published(struct raft_jrn_log *l, const struct raft_journal_publication *p);
/* Doubles *mem until n + more elements of `size` bytes fit. */
bool raft_jrn_grow(void **mem, size_t *cap, size_t n, size_t more, size_t size);

/* ---- journal_seg.c ---- */
struct raft_jrn_seg {
	uint64_t no;
	uint32_t size;
	bool recycled;
	bool lost_header;    /* recovery cannot begin in it */
	uint32_t refs;       /* reads and syncs under way */
	uint64_t first_index; /* of the header: the index that followed the log's end when the segment began */
	uint64_t free_after; /* retired: may be reused or removed once this place is durable */
	struct wire_file *file;
};

struct raft_journal {
	const struct wire_env *env;
	char *dir;
	uint64_t group;
	uint32_t segment_bytes; /* segments grow up to that */
	uint32_t first_bytes;   /* of the first segment of a new journal */
	void (*on_event)(void *ctx, enum raft_journal_event event, uint64_t a, uint64_t b);
	void *event_ctx;

	pthread_mutex_t wmu, mu;
	pthread_cond_t cv; /* with mu: a sync or a preparation ended */

	struct raft_jrn_seg **segs; /* numbers without gaps; the last one is written to */
	size_t n_segs, cap_segs;
	uint32_t off; /* where the next record goes */
	struct raft_jrn_seg *next; /* prepared; NULL: none yet */
	bool preparing;
	struct raft_jrn_seg **retired; /* ascending */
	size_t n_retired, cap_retired;

	struct raft_jrn_log log;
	uint64_t commit_seen;   /* largest commit index that we were told */
	uint64_t commit_said;   /* largest that a record carries */
	uint64_t durable_index; /* the log is durable up to it */
	uint64_t synced;        /* place below which all is durable */
	uint64_t synced_said;   /* largest such place that a record carries */
	bool syncing;
	uint64_t sync_index;    /* durable_index once the sync under way ends */
	uint64_t dirty_from;    /* segments below this number need no sync */

	bool failed;
	struct wire_err failure;
	struct wire_buf out; /* under wmu */
	uint64_t bytes_appended, syncs, entries;
	uint64_t late; /* segments that an append had to prepare itself */

	/* what open found, until the first append */
	struct wire_entry *open_entries;
	size_t n_open_entries, cap_open_entries;
	struct raft_journal_publication *open_pubs;
	size_t n_open_pubs, cap_open_pubs;
	uint64_t *open_holes;
};

void raft_jrn_path(const struct raft_journal *j, uint64_t no, char path[RAFT_JRN_PATH_MAX]);
int raft_jrn_zero(const struct wire_env *env, struct wire_file *f, uint32_t from, uint32_t to, struct wire_err *err);
/* The header of a segment that begins now, at the log's end. */
void raft_jrn_make_header(const struct raft_journal *j, uint64_t no, uint32_t size, bool recycled, uint64_t oldest,
                          struct raft_jrn_header *ret_h);
/* Makes a durable file of `size` bytes named for segment `no`, in place of one that is there: zeros behind the given first
 * bytes. */
int raft_jrn_seg_create(const struct raft_journal *j, uint64_t no, uint32_t size, const void *head, size_t head_bytes,
                        struct raft_jrn_seg **ret_seg, struct wire_err *err);
/* `from` doubled until it is at_least, and never above segment_bytes. */
uint32_t raft_jrn_double(const struct raft_journal *j, uint64_t from, uint32_t at_least);
/* True when a file of `size` bytes may be the segment that follows one of prev_bytes. */
bool raft_jrn_may_follow(const struct raft_journal *j, uint32_t size, uint32_t prev_bytes);
void raft_jrn_seg_free(const struct raft_journal *j, struct raft_jrn_seg *s); /* closes; NULL is fine */
bool raft_jrn_segs_push(struct raft_journal *j, struct raft_jrn_seg *s);    /* false: no memory */
bool raft_jrn_retired_push(struct raft_journal *j, struct raft_jrn_seg *s); /* likewise */
/* The commit index that a record written now may carry: what it names is durable here, so that a record that carries it
 * proves that entries up to it were on disk. */
static inline uint64_t raft_jrn_sayable_commit(const struct raft_journal *j)
{
	return j->commit_seen < j->durable_index ? j->commit_seen : j->durable_index;
}
static inline struct raft_jrn_seg *raft_jrn_current(const struct raft_journal *j)
{
	return j->segs[j->n_segs - 1];
}
struct raft_jrn_seg *raft_jrn_seg_find(const struct raft_journal *j, uint64_t no); /* NULL when it is not in use */
/* mu is held, preparing is false, next is NULL; drops mu meanwhile. The segment has at_least so many bytes, which are no more
 * than segment_bytes. */
int raft_jrn_prepare(struct raft_journal *j, uint32_t at_least, struct wire_err *err);
/* wmu and mu are held; may drop mu meanwhile. Begins a new segment, in which a record of `bytes` fits if it does in any. */
int raft_jrn_roll(struct raft_journal *j, uint32_t bytes, struct wire_err *err);
/* mu is held; drops it meanwhile. Removes retired segments that are too many, or too small to be used again. */
int raft_jrn_remove_retired(struct raft_journal *j, struct wire_err *err);
/* Drops segs[0 .. k-1]: they become retired, and the log's base moves up. False: no memory, nothing was done. */
bool raft_jrn_retire(struct raft_journal *j, size_t k);

/* ---- journal.c ---- */
static inline void raft_jrn_tell(const struct raft_journal *j, enum raft_journal_event event, uint64_t a, uint64_t b)
{
	if (j->on_event)
		j->on_event(j->event_ctx, event, a, b);
}
/* Takes both locks, unless the journal failed: then that is reported and nothing is locked. */
int raft_jrn_begin_append(struct raft_journal *j, struct wire_err *err);
/* Gives them back. `cause` is what made rc, when rc is a failure of the journal. */
int raft_jrn_end_append(struct raft_journal *j, int rc, const struct wire_err *cause, struct wire_err *err);
/* The same for a caller's mistake: nothing was written, the journal lives on. */
int raft_jrn_refuse_append(struct raft_journal *j, int rc);
/* Writes one small record. wmu and mu are held. */
int raft_jrn_append_small(struct raft_journal *j, uint8_t type, uint8_t kind, const void *payload, uint32_t length, struct wire_err *err);
/* A trim record that says where the log begins now. */
int raft_jrn_say_oldest(struct raft_journal *j, struct wire_err *err);
int raft_jrn_report(const struct raft_journal *j, struct wire_err *err); /* the failure; mu is held */
void raft_jrn_forget_open_state(struct raft_journal *j);

/* ---- journal_scan.c ---- */
/* What the records found so far say. */
struct raft_jrn_claims {
	uint64_t synced, commit, oldest;
	uint64_t term; /* the highest */
	uint32_t end; /* end of the last record or header recognised in the segment swept last; 0: none */
};

/* What damage leaves open, until something behind it settles it (raft/JOURNAL.md, "Damage"). */
struct raft_jrn_doubt {
	bool log;    /* entries may be missing, or truncations: until an entry or a header tells where the log stood */
	bool hard;   /* votes may be missing, or the beginning or end of forgetfulness: until a vote record or a header */
	bool config; /* missing entries may have been configurations: until a header */
	uint64_t at; /* place of the first damage that log or config come from */
	uint64_t bytes; /* of the damage that `log` comes from: so many entries can have been in there */
	uint64_t lost_first, lost_last; /* config: the entries that may have been some */
	/* At these indexes a configuration may have been in force that the log does not tell of, though what is in force above them is certain. Harmless once a truncation
	 * cannot lead there, so until the log is known to be committed above `hidden_last`. hidden_at 0: there are none; else the place of the damage. */
	uint64_t hidden_first, hidden_last, hidden_at;
};

struct raft_jrn_recovery {
	struct raft_journal *j;
	uint64_t *nos; /* numbers of the files, ascending */
	size_t n_nos, cap_nos;
	bool nomem;
	uint8_t *buf; /* the segment read last, zeros behind the end of its file */
	size_t cap;
	uint32_t size, file_size;
	struct raft_jrn_claims claims; /* of all that was recognised so far */
	struct raft_jrn_claims said;   /* of what was replayed */
	bool swept;                    /* claims has all that lies behind the first place that was not valid */
	struct raft_jrn_doubt doubt;
	uint64_t limit;  /* replaying stops there; UINT64_MAX: where it must */
	bool decided;    /* and what is behind it counts no more */
	uint64_t attested; /* where it was decided: the claims' `synced` then */
	uint64_t begins;   /* likewise: the segment that the log begins in */
	uint64_t stop;   /* the first place that was not replayed */
	uint32_t end;    /* where the log ends in the last segment replayed */
	uint64_t floor;  /* files from this number on are there without a gap */
	uint64_t oldest; /* where the log begins: not below floor; 0: nothing found yet */
	uint64_t without; /* a lower one that it could be is damaged: a trim that is replayed must leave that out; 0: none */
};

/* What a salvage decided: the journal is kept up to a place; what attests that, and where the log begins. */
struct raft_jrn_decided {
	uint64_t keep, synced, oldest;
};
static inline void raft_jrn_follow(struct raft_jrn_recovery *r, const struct raft_jrn_decided *d)
{
	r->decided = true;
	r->limit = d->keep;
	r->attested = d->synced;
	r->begins = d->oldest;
}

int raft_jrn_compare_nos(const void *a, const void *b); /* for qsort */
bool raft_jrn_is_there(const struct raft_jrn_recovery *r, uint64_t no);
int raft_jrn_damaged(const struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const char *what, struct wire_err *err);
int raft_jrn_open_file(const struct raft_jrn_recovery *r, uint64_t no, struct wire_file **ret_file, struct wire_err *err);
int raft_jrn_list_segments(struct raft_jrn_recovery *r, struct wire_err *err);
static inline void raft_jrn_raise(uint64_t *v, uint64_t to)
{
	if (to > *v)
		*v = to;
}
/* Reads a file, or its first `limit` bytes, into buf; zeros stand for what is missing up to the size in its header. */
int raft_jrn_load_file(struct raft_jrn_recovery *r, struct wire_file *f, uint64_t no, uint32_t limit, struct wire_err *err);
int raft_jrn_load(struct raft_jrn_recovery *r, uint64_t no, uint32_t limit, struct wire_err *err);
void raft_jrn_claim_record(struct raft_jrn_claims *c, const struct raft_jrn_rec *rec);
void raft_jrn_claim_header(struct raft_jrn_claims *c, const struct raft_jrn_header *h);
/* Looks for valid heads at every place from `from` on in the segment that was read. */
void raft_jrn_sweep(struct raft_jrn_recovery *r, uint64_t no, uint32_t from);
/* From the numbers of the files: which segment the log begins in. */
int raft_jrn_find_oldest(struct raft_jrn_recovery *r, struct wire_err *err);

/* ---- journal_replay.c ---- */
/* The first damage that what was replayed leaves open, if it is about the log or configurations; 0: none. */
uint64_t raft_jrn_doubtful(const struct raft_jrn_recovery *r);
/* Replays from r->oldest on, as far as it is certain what was there; sets stop, end, doubt. Changes nothing on the disk. WIRE_CORRUPT: a record
 * contradicts what was before it, r->stop is its place. */
int raft_jrn_walk(struct raft_jrn_recovery *r, struct wire_err *err);

/* ---- journal_recover.c ---- */
/* Fills the journal from the files, cuts a torn tail; *ret_cut_bytes: how much of it there was. */
int raft_jrn_replay(struct raft_jrn_recovery *r, uint64_t *ret_cut_bytes, struct wire_err *err);

/* ---- journal_open.c ---- */
int raft_jrn_new(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, struct raft_journal **ret_journal, struct wire_err *err);
/* Opens without looking for a salvage that was begun. decided: by one; NULL: nothing. */
int raft_jrn_open_as_is(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct raft_jrn_decided *decided,
                        struct raft_journal **ret_journal, struct raft_journal_state *ret_state, struct wire_err *err);
/* The first segment of a journal whose log, term and mark are set: its header says all there is to say. */
int raft_jrn_create_first(struct raft_journal *j, struct wire_err *err);
int raft_jrn_remove_unfinished(const struct raft_journal *j, struct wire_err *err);

/* ---- journal_salvage.c ---- */
/* Ends a salvage that was begun, if there is one. */
int raft_jrn_finish_salvage(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, struct wire_err *err);

#endif
