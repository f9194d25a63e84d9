/* The ledger of a replicated database: what became of transactions, and how far clients have come that want their steps applied exactly once. It derives from the entries of the log
 * alone, so that it is the same on all nodes at one index, and is kept beside the journal; nothing of it is in the user's database.
 *
 *   terms     each term that has an entry, and the index of its first one; for ever
 *   ids       of the latest 131,072 transactions, with their index. All transactions above the index `from` are among them
 *   sessions  a client's id (1 to 64 bytes): number and index of its latest step, the time of the log then, and the time until which it is kept: that plus the step's idle
 *             timeout, or what an earlier step promised, if that is later
 *
 * The time of the log is the highest timestamp of its transactions so far. A session that was to be kept until before that is gone with the entry that says so, on all nodes alike. A
 * clock that was far ahead takes the time of the log along: what was to be kept until then is forgotten early, by as much. Then it stands still until the others have come so far, and what comes meanwhile is
 * forgotten late.
 *
 * Outcomes. An id was made in term T with index B published (txid.h), and what is proposed under it is of term T. So when it is not among the ids, B is not below `from`, and an
 * entry of a later term was applied, it is lost for good. Where B is below `from` it may have been among those that are forgotten: too old to tell, unless the
 * first entry of the next term shows that T had none above B. As long as T is the latest term it is open: the leader has to say whether something may come yet (outcome.c).
 *
 * The file. Appended to at each checkpoint mark, with what has changed since the one before; written anew, and renamed into place, when half of it is outdated.
 *
 *   0    u64 sum     wire_hash of bytes 8..63
 *   8    u64 magic   "wlvraftL"
 *   16   u32 version 1, u32 number of ids that are kept
 *   24   u64 group, u64 number of the file (random), zeros
 *   64   blocks: u32 length of the items, and 2^31 when the last one is a C; items; u64 sum: wire_hash of what is before it in the block, seeded with (number of the file XOR
 *        offset of the block)
 *   items, each with its letter first; numbers are varints unless said otherwise:
 *     T  term, first index
 *     I  index, then the id as: term, index minus the one in the id (zigzag), number
 *     S  index, step, time of the log, until when it is kept minus that, u8 length of the id, the id
 *     C  u8 flags (1: sessions may be missing), index, term of the entry there, time of the log, from, number of terms, of ids, of sessions, u64 checksum
 *   Valid are all blocks up to the last with a C before which every block is valid; a C ends its block. Terms and ids ascend; a later S of the same client goes before an earlier one; what is not
 *   kept any more by the time of that C is left out (an earlier S is never kept for longer than a later one, so those that are gone need no record); then numbers and checksum are those of the C.
 * What follows the last valid C is a torn tail and does not count. It can be nothing that is needed: the checkpoint mark of the journal is written after the ledger is durable, and whoever
 * opens it finds out whether it reaches that mark. One that does not is damaged, however well it parses.
 *
 * Threads: any. One mutex, a leaf, held for moments. Flushing is for one thread at a time, the one that makes checkpoint marks. */
#ifndef SHELL_LEDGER_H
#define SHELL_LEDGER_H

#include "vfs/db.h"

#define SHELL_LEDGER_IDS (1u << 17)
#define SHELL_LEDGER_SESSIONS_MAX 1000000u /* no new one is begun (shell_ledger_step) when there are so many */
#define SHELL_LEDGER_IDLE_S 86400u         /* idle timeout where none is given */
#define SHELL_LEDGER_IDLE_MAX_S (10u * 365 * 86400)

struct shell_ledger;

/* Of a database whose state begins with the entry at index, of that term. whole: no session was before. Else it is what can be told when a ledger was lost: nothing
 * that lies before. NULL: no memory. */
struct shell_ledger *shell_ledger_new(uint64_t index, uint64_t term, bool whole);
void shell_ledger_free(struct shell_ledger *l);

/* Entries up to `upto` are applied, with these effects (vfs_node_ops.effects). What it has already is skipped. WIRE_NOMEM: it is as after some of them; final. */
int shell_ledger_apply(struct shell_ledger *l, uint64_t upto, const struct vfs_effect *effects, size_t n, struct wire_err *err);

/* Somebody has decided that no session is missing any more. False: none was. */
bool shell_ledger_declare_whole(struct shell_ledger *l); /* on the thread that flushes */

enum shell_outcome { SHELL_OUTCOME_COMMITTED, SHELL_OUTCOME_LOST, SHELL_OUTCOME_OPEN, SHELL_OUTCOME_TOO_OLD };
/* settled: it is known that nothing of that id comes after what is applied here; then it is not OPEN. *ret_index: of a committed one. */
enum shell_outcome shell_ledger_outcome(struct shell_ledger *l, const uint8_t txid[VFS_TXID_BYTES], bool settled, uint64_t *ret_index);

struct shell_session { uint64_t seq, index, time_us, until_us; };
/* The latest step of a client's; ret_session is all zeros when there is none. WIRE_UNSUPPORTED: sessions may be missing here; WIRE_FULL: it has none, and there is no room for another. */
int shell_ledger_session(struct shell_ledger *l, const uint8_t *id, size_t len, struct shell_session *ret_session, struct wire_err *err);

struct shell_ledger_state {
	uint64_t index, term, time_us; /* applied; its term; the time of the log */
	uint64_t from;                 /* ids of transactions above it are kept */
	uint64_t checksum;             /* of terms, ids and sessions: XOR of a hash of each */
	uint32_t terms, ids, sessions;
	bool whole;                    /* no session is missing */
	uint64_t memory_bytes, file_bytes;
};
void shell_ledger_state(struct shell_ledger *l, struct shell_ledger_state *ret_state);

/* Reads a file, and keeps it open for flushing. *ret_cut: bytes of a torn tail, which the next flush leaves behind. WIRE_NOTFOUND; WIRE_CORRUPT, WIRE_VERSION, WIRE_FOREIGN (of another group): the text says what to do. */
int shell_ledger_open(const struct wire_env *env, const char *path, uint64_t group, struct shell_ledger **ret_ledger, uint64_t *ret_cut, struct wire_err *err);
/* Makes it durable at path (at its present index at least), where it was opened, or where a first flush puts it. A failure is final: no flush after it succeeds. */
int shell_ledger_flush(struct shell_ledger *l, const struct wire_env *env, const char *path, uint64_t group, struct wire_err *err);
/* Writes it whole into a new file at path, for somebody else; not synced. Others may apply and flush meanwhile; the copy is as at some index of that time, *ret_index. */
int shell_ledger_copy(struct shell_ledger *l, const struct wire_env *env, const char *path, uint64_t group, uint64_t *ret_index, struct wire_err *err);

#endif
