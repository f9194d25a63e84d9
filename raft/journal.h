/* The journal: the durable log of a group. Segmented, preallocated, append-only; entries, truncations, term and vote,
 * commit index, publications, checkpoint marks and WAL restarts in one sequence of records. raft/JOURNAL.md gives the
 * bytes and the validity rule.
 *
 * Threads: every function may be called from any thread; appends are short (a copy and a write, no sync);
 * raft_journal_sync does not block appends. One slow job (zeroing the next segment, unlinking old ones) is done by
 * raft_journal_upkeep, which the shell calls from a thread that nobody waits for.
 *
 * Errors are final: after a failed write or sync every later call but read and close fails with the first error. A
 * failed sync is never retried. Two failures are not final, since nothing was written: a call that is refused for its
 * arguments (WIRE_INVALID, WIRE_TOOBIG), and upkeep that finds no room for the next segment (WIRE_FULL); the current segment
 * can still be filled, and running into its end without a next one then is final. */
#ifndef RAFT_JOURNAL_H
#define RAFT_JOURNAL_H

#include "raft/raft.h"
#include "wire/env.h"

struct raft_journal;

/* One publication: the last commit frame of the real WAL after it, and the index that it brought the database to. */
struct raft_journal_publication {
	uint32_t salt[2], mx_frame, cksum[2];
	uint64_t index;
};

/* A checkpoint mark: WAL (or database) and `pages` are durable up to this index. */
struct raft_journal_mark {
	uint64_t index;
	uint64_t checksum; /* state checksum at index */
	uint32_t db_pages; /* database size in pages at index */
};

/* What the journal did, and the numbers a and b that say how much. */
enum raft_journal_event {
	RAFT_JOURNAL_APPEND,       /* entries: first index, last index */
	RAFT_JOURNAL_COMMIT_BUFFER, /* records are handed to the file: bytes, offset in the segment */
	RAFT_JOURNAL_FETCH,        /* one entry is read: index, bytes of its data */
	RAFT_JOURNAL_REVERSE_FIND, /* a segment is searched for from the end, for trimming: index, the base that it would give (the old one: none was found) */
	RAFT_JOURNAL_REWIND,       /* a truncation goes back into an older segment: index, number of the segment that it is in */
	RAFT_JOURNAL_TRUNCATE,     /* first index that is superseded, how many there were */
	RAFT_JOURNAL_SYNC,         /* a sync ended: microseconds that it took, last durable index */
	RAFT_JOURNAL_FILL,         /* a hole was filled: index, bytes */
	RAFT_JOURNAL_EVENTS,
};
const char *raft_journal_event_name(enum raft_journal_event event); /* "append", ... */

/* A new journal's first segment has first_bytes; each next one is twice the one before, or the least doubling that holds
 * the record which needs it, but never more than segment_bytes. Where growth stands is read from the files: opening needs
 * no first_bytes. Both are multiples of 512 bytes from 2 KiB to 1 GiB. An entry may be as large as segment_bytes allows, whatever
 * the current segment has. */
struct raft_journal_opts {
	uint64_t group;          /* written into each segment header; another one there is WIRE_FOREIGN */
	uint32_t segment_bytes;  /* of the largest segments; 0: 16 MiB */
	uint32_t first_bytes;    /* at most segment_bytes; 0: the same */
	/* Telemetry; NULL: none. Called within the journal's functions, on their threads, with its locks held: it must be short and must not call the
	 * journal. Not called while a journal is opened. */
	void (*on_event)(void *ctx, enum raft_journal_event event, uint64_t a, uint64_t b);
	void *event_ctx;
};

/* What open found. Arrays are owned by the journal, valid until the first append. */
struct raft_journal_state {
	uint64_t term, vote;
	uint64_t base_index, base_term; /* entries at and below it are trimmed */
	struct raft_config base_config;
	const struct wire_entry *entries; /* metadata only */
	size_t n_entries;
	const struct raft_log_config *configs;
	size_t n_configs;
	uint64_t commit;
	struct raft_journal_mark mark; /* the latest one */
	const struct raft_journal_publication *publications; /* since the latest mark and one before it, oldest first */
	size_t n_publications;
	uint64_t cut_bytes; /* bytes of a torn tail that were cut; 0: clean */
	/* Entries that are certain to have been there, and whose data is damaged: ascending. Their index and term in `entries` are right; kind, size and
	 * sum too, or, when the whole record is damaged, DATA, 0 and 0. None is a configuration that `configs` lacks, unless a later one took
	 * its place below `commit`, so that no truncation puts it in force again. */
	const uint64_t *holes;
	size_t n_holes;
	bool forgetful; /* raft_init.forgetful: what the node acknowledged or voted may be lost */
};

/* Makes a new journal directory whose log begins above base (index, term, config), with a first mark there; term: the current term to start with.
 * Durable on return. WIRE_EXISTS when there is one. */
int raft_journal_create(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts,
                        uint64_t term, uint64_t base_index, uint64_t base_term, const struct raft_config *base_config,
                        const struct raft_journal_mark *mark, struct wire_err *err);

/* Opens and recovers. A torn tail is cut. Bytes below a recorded sync mark or the known commit index are never cut: where they are damaged, and it is certain
 * what was there but for entries' data, the journal opens with holes; else it is WIRE_CORRUPT, naming segment and offset and what to do (raft/JOURNAL.md,
 * "Damage"), and nothing is changed. WIRE_NOTFOUND: there is no journal. */
int raft_journal_open(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts,
                      struct raft_journal **ret_journal, struct raft_journal_state *ret_state, struct wire_err *err);

/* What can be kept of a journal that does not open for WIRE_CORRUPT. */
struct raft_journal_remains {
	uint64_t term;                   /* the highest that is found anywhere */
	bool log;                        /* something can be kept: entries base_index + 1 .. last_index, of which n_holes are holes */
	uint64_t base_index, last_index, commit;
	size_t n_holes;
	struct raft_config config;       /* the latest in that */
	struct raft_journal_mark mark;   /* likewise */
};
/* Changes nothing. WIRE_NOTFOUND: there are no files. */
int raft_journal_examine(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, struct raft_journal_remains *ret_remains,
                         struct wire_err *err);

/* Where a journal begins of which nothing can be kept, or that is missing. */
struct raft_journal_start {
	uint64_t term, base_index, base_term; /* term: at least so high */
	struct raft_config base_config;
	struct raft_journal_mark mark; /* at base_index at most */
};
/* Makes of a damaged or missing journal one that opens, and is forgetful: it keeps what examine tells (nothing: then it begins at *start; start NULL:
 * WIRE_NOTFOUND), in the highest term found anywhere, and sets files that it does not keep aside as *.seg.bad, eight at most. Durable on return. After a crash
 * or an error at any point the journal is what it was, or the next open finishes this. The node must not give votes, nor acknowledge as before, until it was
 * re-admitted (raft/README.md); so whoever calls this for a lone voter loses acknowledged entries. */
int raft_journal_salvage(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct raft_journal_start *start,
                         struct wire_err *err);
/* Writes a sync mark, syncs, closes. Never fails: a journal that had failed is only closed. */
void raft_journal_close(struct raft_journal *j);

/* Entries' index, term, kind, sum, size, data set; indexes continue the log. The header of each record carries `commit`,
 * the commit index known when it was written. */
int raft_journal_append_entries(struct raft_journal *j, const struct wire_entry *entries, uint32_t n, uint64_t commit,
                                struct wire_err *err);
int raft_journal_append_truncate(struct raft_journal *j, uint64_t from, struct wire_err *err);
int raft_journal_append_vote(struct raft_journal *j, uint64_t term, uint64_t vote, struct wire_err *err);
/* The node is forgetful from the next sync on, or (false) is so no longer. Term and vote stay. */
int raft_journal_append_forgetful(struct raft_journal *j, bool forgetful, struct wire_err *err);
/* Puts a hole's data in place: it can be read at once, and after the next sync for good. Index and term must be the hole's, kind, size and sum what is
 * known of them, the sum the data's; WIRE_INVALID otherwise, and when there is no such hole. */
int raft_journal_fill(struct raft_journal *j, const struct wire_entry *entry, struct wire_err *err);
size_t raft_journal_holes(struct raft_journal *j); /* that are left */
int raft_journal_append_commit(struct raft_journal *j, uint64_t commit, struct wire_err *err);
int raft_journal_append_publication(struct raft_journal *j, const struct raft_journal_publication *p, struct wire_err *err);
int raft_journal_append_mark(struct raft_journal *j, const struct raft_journal_mark *m, struct wire_err *err);
/* Role changes and the like, for people who read the journal: a short text. */
int raft_journal_append_note(struct raft_journal *j, const char *text, struct wire_err *err);

/* On return all that was appended before the call is durable. Concurrent callers share one sync. */
int raft_journal_sync(struct raft_journal *j, struct wire_err *err);

/* Reads one entry's data into *ret_data (replaced) and its metadata. WIRE_NOTFOUND when trimmed or above the end,
 * WIRE_CORRUPT when it is a hole, or its sum does not match. O(1). */
int raft_journal_read(struct raft_journal *j, uint64_t index, struct wire_buf *ret_data, struct wire_entry *ret_entry,
                      struct wire_err *err);
/* Forgets whole segments that hold nothing above index. Allowed only up to the latest mark. The new base's term and configuration are kept. */
int raft_journal_trim(struct raft_journal *j, uint64_t index, struct wire_err *err);
/* The base that such a trim would leave: segments go as a whole. */
uint64_t raft_journal_trim_base(struct raft_journal *j, uint64_t index);
uint64_t raft_journal_base(struct raft_journal *j);
/* Term of the entry at index, from the base on; 0: trimmed, or above the end. */
uint64_t raft_journal_term(struct raft_journal *j, uint64_t index);
/* What holds at an entry from the base on, for raft_journal_salvage's start: term, config, and the current term. The mark is left alone. WIRE_NOTFOUND. */
int raft_journal_start_at(struct raft_journal *j, uint64_t index, struct raft_journal_start *ret_start, struct wire_err *err);
/* Says in a record what is durable; prepares the next segment once the current one is a quarter full (half, as long as
 * segments grow), so that few appends wait for that; removes trimmed segments that are not needed as spares. */
int raft_journal_upkeep(struct raft_journal *j, struct wire_err *err);

/* Since open, but for disk_bytes: the size of all files. bytes_appended counts records and segment headers. */
struct raft_journal_stats { uint64_t bytes_appended, disk_bytes, syncs, entries; };
void raft_journal_stats(struct raft_journal *j, struct raft_journal_stats *ret_stats);

#endif
