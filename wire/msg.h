/* Messages between nodes, and the entries of a group's log.
 *
 * All messages are one-way; `corr` ties an answer to its question. One flat struct serves all types; the table below
 * says which fields a type uses, the others are 0 and are still carried (a zero varint is one byte).
 *
 *   bytes   u8 version (WIRE_PROTOCOL), u8 type, u8 flags, varints group, from, to, corr, term, index, log_term,
 *           commit, hint, text (varint length + bytes), varint count of entries, then per entry
 *           varint term, u8 kind, u64 sum, varint size, bytes; then varint size of data, data bytes;
 *           last u64 XXH3 of all bytes before it (seed WIRE_PROTOCOL).
 *   valid if and only if the version is ours, the type is known and not NONE, every count is within the limits below,
 *           the fields end exactly at the checksum, the checksum matches, each entry's kind is known, and its sum is
 *           wire_hash(data, size, 0).
 *
 * HELLO and HELLO_REPLY keep this layout in every version of the protocol (the checksum's seed is the version byte), so
 * that a node can tell one of another version why it is refused. */
#ifndef WIRE_MSG_H
#define WIRE_MSG_H

#include "wire/buf.h"
#include "wire/err.h"

#define WIRE_PROTOCOL 1
#define WIRE_FEATURES 1 /* HELLO: feature level of the link itself */
#define WIRE_TEXT_MAX 255
#define WIRE_MSG_MAX (8u << 20)      /* whole message, bytes; larger ones are refused by both sides */
#define WIRE_ENTRIES_MAX 1024u       /* in one message */
#define WIRE_ENTRY_MAX (4u << 20)    /* one entry's data, bytes */

/* An entry of the log. The bytes and their sum are the same in the proposer, in the journal and on the wire. */
enum wire_entry_kind { WIRE_ENTRY_NOOP = 0, WIRE_ENTRY_DATA = 1, WIRE_ENTRY_CONFIG = 2 };
struct wire_entry {
	uint64_t index, term;
	uint8_t kind;        /* enum wire_entry_kind */
	uint32_t size;       /* bytes at data */
	uint64_t sum;        /* wire_hash(data, size, 0) */
	const uint8_t *data; /* borrowed; NULL when size is 0, or where the documentation says metadata only */
};

#define WIRE_MSG_TYPES(X)                                                                                              \
	X(NONE)                                                                                                        \
	/* link: text = sender's listening URL, term = cluster id (0: a guest that is joining), hint = features,        \
	 * index = lane */                                                                                             \
	X(HELLO)                                                                                                       \
	/* link, answer: flags REJECT with the reason in text, or term = cluster id, from = node id */                 \
	X(HELLO_REPLY)                                                                                                 \
	/* Raft: term, index/log_term = last log entry of the candidate */                                            \
	X(PREVOTE_REQ)                                                                                                 \
	X(PREVOTE_RESP) /* term, flags REJECT */                                                                       \
	X(VOTE_REQ)     /* the same; flags TRANSFER: the leader wants the election */                                  \
	X(VOTE_RESP)                                                                                                   \
	/* term, index/log_term = entry before the first, commit, entries; flags FULL: to be taken by a full witness too. The core leaves entries[].data NULL; the    \
	 * driver fills them from the journal */                                                                       \
	X(APPEND)                                                                                                      \
	/* term, index = last matching and locally durable index; or REJECT: index = the refused previous index,       \
	 * hint = where to try next, log_term = term there */                                                          \
	X(APPEND_RESP)                                                                                                 \
	/* term, commit (never above what is known to match), corr = read round, log_term = number of the sending, for the  \
	 * lease (0: none), index = for how long the leader may be silent, in microseconds (0: the election timeout),     \
	 * hint = entries up to it are committed and durable on every data voter, for ever */                                          \
	X(HEARTBEAT)                                                                                                   \
	/* term, corr and log_term echoed, index = last durable index, hint = applied index, commit = feature level that  \
	 * the sender understands; flags FORGOT, FULL */                                                               \
	X(HEARTBEAT_RESP)                                                                                              \
	X(READ_REQ)       /* follower to leader: corr */                                                               \
	X(READ_RESP)      /* corr, index = read index, hint = end of the leader's log; or REJECT */                                                    \
	/* leader to who shall lead instead: term, index/log_term = last log entry of both, hint = for how many             \
	 * microseconds it is not to hand leadership on for the sake of priorities */                                 \
	X(TIMEOUT_NOW)                                                                                                 \
	/* leader to a member that is far behind: term, index = committed entries up to there may be had from member hint;     \
	 * hint 0: all up to index is trimmed at the leader */                                                         \
	X(CATCH_UP)                                                                                                    \
	/* any member to any: entries wanted: corr, index/log_term = entry before the first (term 0: not known yet),        \
	 * hint = the last, commit = term of that one; 0: not known, only committed ones will do */                     \
	X(FETCH_REQ)                                                                                                   \
	/* term, corr, index/log_term = entry before the first, commit, entries, hint = last index of all answers to that   \
	 * request (two at most); or REJECT: not to be had there */                                                    \
	X(FETCH_RESP)                                                                                                  \
	/* heartbeats and their answers of several groups between two nodes: data = them, each as varint length + bytes */ \
	X(BUNDLE)                                                                                                      \
	/* membership: text = URL of the node that asks, from = its id, hint = what it wants to be (enum raft_member_flags), \
	 * index = its priority */                                                                                     \
	X(JOIN_REQ)                                                                                                    \
	/* corr, term = cluster id, group, data = configuration; or REJECT with text (hint = leader's id, data = its   \
	 * URL, when another node leads; index = the id under which this address is awaited: ask as that one) */       \
	X(JOIN_RESP)                                                                                                   \
	X(PROMOTE_REQ)  /* from asks to become a voter, index = its applied index */                                   \
	X(PROMOTE_RESP) /* corr, or REJECT with text */                                                                \
	X(MEMBER_REQ)   /* member to leader: corr, data = a line as on node.sock (shell/change.c) */                   \
	X(MEMBER_RESP)  /* corr, data = the answer, a JSON object */                                                   \
	/* the write lock of the group, for connections of a member that does not lead (shell/grants.c): corr = ticket, made by the asker, another one  \
	 * whenever a connection begins to ask; its high 32 bits are the same for one run of the asker. Asked again it is answered again */ \
	X(LOCK_REQ)                                                                                                    \
	/* corr, term, index = all up to there must be published at the asker before it begins, log_term = number of the    \
	 * grant in its term, hint = leader's wall clock (us); or REJECT, hint = a code of wire/err.h (BUSY: the ticket is in   \
	 * the queue, an answer without REJECT follows when its turn comes), text */                                   \
	X(LOCK_RESP)                                                                                                   \
	/* asker to leader, several times a second while it has any: data = its tickets, as varints: those up to index that are \
	 * not named are gone; corr = number of the sending. Answered by the same with REJECT and those which the leader does not know */    \
	X(LOCK_KEEP)                                                                                                   \
	X(LOCK_END)       /* asker to leader: corr = ticket, over */ \
	/* an entry of a transaction under a grant: corr = request, term, log_term = number of the grant, commit = how often it was sent   \
	 * before, hint = 1: it closes the transaction, data = the entry's */                                           \
	X(PROPOSE_REQ)                                                                                                 \
	/* corr, term, log_term, index given to the entry; or REJECT, hint = code, text: it was not proposed, and never will be; commit = 0:   \
	 * that holds if it was sent but once */                                                                       \
	X(PROPOSE_RESP)                                                                                                \
	X(OUTCOME_REQ)    /* member to leader: corr, data = transaction id */                                          \
	X(OUTCOME_RESP)   /* corr, term, index = up to there the answer must be looked up at the asker; nothing of the id comes later; or REJECT, text */ \
	/* leader to all, now and then: data = how far each member is (shell/lag.c) */                                 \
	X(LAG)                                                                                                         \
	/* questions in SQL from a host without a replica (shell/query.c): corr = question, chosen by the asker */     \
	X(QUERY_OPEN)                                                                                                  \
	X(QUERY_ROWS)                                                                                                  \
	X(QUERY_NEXT)                                                                                                  \
	X(QUERY_CLOSE)                                                                                                 \
	/* images: corr = transfer id chosen by the receiver */                                                        \
	X(IMAGE_OPEN)                                                                                                  \
	X(IMAGE_INFO)  /* data = struct snap_info as bytes; or REJECT with text */                                     \
	X(IMAGE_GET)   /* index = first page, hint = number of pages; index 0: a piece of the ledger, hint = its number */                                                \
	X(IMAGE_CHUNK) /* index, hint as asked, data = chunk */                                                        \
	X(IMAGE_CLOSE)

enum wire_msg_type {
#define X(name) WIRE_MSG_##name,
	WIRE_MSG_TYPES(X)
#undef X
	        WIRE_MSG_COUNT
};

enum wire_msg_flags {
	WIRE_MSG_REJECT = 1,   /* an answer: no */
	WIRE_MSG_TRANSFER = 2, /* VOTE_REQ: to be considered although a leader is alive (Raft thesis 3.10) */
	WIRE_MSG_FORGOT = 4,   /* HEARTBEAT_RESP, APPEND_RESP: the sender has lost what it had promised; it must be re-admitted (raft/README.md) */
	WIRE_MSG_FULL = 8,     /* HEARTBEAT_RESP: a witness at the limit of its journal, it takes no more entries for now. APPEND: yet it must take these */
	WIRE_MSG_REMOVED = 16, /* REJECT: the sender's committed configuration does not have the addressee */
	WIRE_MSG_IDLE = 32,    /* HEARTBEAT: the leader is silent for lack of news; what it announces says nothing of the network */
};

struct wire_msg {
	uint8_t type, flags;
	bool after_persist; /* not on the wire: the core's note that what was written must be durable before sending */
	uint64_t group, from, to, corr, term, index, log_term, commit, hint;
	char text[WIRE_TEXT_MAX + 1];
	uint32_t n_entries;
	struct wire_entry *entries; /* indexes are index+1, index+2, ...; not separately on the wire */
	uint32_t data_len;
	const uint8_t *data;
};

const char *wire_msg_name(int type); /* "APPEND"; "?" outside the range */

/* Exact size in bytes of the encoded message. */
size_t wire_msg_size(const struct wire_msg *m);

/* Appends the encoded message to `b`; nothing on failure. WIRE_TOOBIG past a limit above, WIRE_NOMEM, WIRE_INVALID for an
 * unknown type or kind, or data that is missing. Entries' sums are taken as they are. */
int wire_msg_encode(const struct wire_msg *m, struct wire_buf *b, struct wire_err *err);

/* Decodes exactly n bytes. Data pointers point into `p`. Entries go to *ret_entries_mem (malloc'ed, caller frees after
 * use; NULL when there are none). WIRE_VERSION for another protocol version, WIRE_CORRUPT for anything malformed. */
int wire_msg_decode(const void *p, size_t n, struct wire_msg *ret_msg, struct wire_entry **ret_entries_mem,
                    struct wire_err *err);

/* Decodes a HELLO or HELLO_REPLY of any protocol version, which is *ret_version. WIRE_CORRUPT for anything else. */
int wire_msg_decode_hello(const void *p, size_t n, struct wire_msg *ret_msg, unsigned *ret_version, struct wire_err *err);

#endif
