/* Raft as a pure function: raft_step(event) -> update. No clock, I/O, threads, SQLite. The driver's loop, the order of
 * durability and each event are described in raft/README.md.
 *
 * Time is in microseconds on any clock that does not go back; randomness is seeded at init. One raft object is used by
 * one thread at a time. The core keeps metadata of the log (term, size, kind per entry), never the entries' data, except
 * for configurations.
 *
 * Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (figures 2, 7, 8; section 8);
 * Ongaro's thesis, 3.10 (leadership transfer), 4.3 (joint consensus), 6.4 (read-index, leases), 9.6 (PreVote), 6.2
 * (CheckQuorum). */
#ifndef RAFT_RAFT_H
#define RAFT_RAFT_H

#include "raft/config.h"
#include "wire/msg.h"

struct raft;
struct raft_told;

enum raft_role { RAFT_FOLLOWER, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };
const char *raft_role_name(enum raft_role r); /* "follower", ... */

/* What the journal recovered. `entries` (metadata only, data NULL) are base_index+1 .. in order; `configs` are the
 * CONFIG entries among them, in order. All of it must be durable. */
struct raft_log_config { uint64_t index; struct raft_config config; };
struct raft_init {
	uint64_t self, seed, now_us; /* seed: another one at each start, else ids of an earlier life come again */
	uint64_t term, vote; /* vote 0: none */
	uint64_t base_index, base_term;
	struct raft_config base_config; /* in force at base_index; n = 0: not a member of anything yet */
	const struct wire_entry *entries;
	size_t n_entries;
	const struct raft_log_config *configs;
	size_t n_configs;
	uint64_t commit, applied; /* known committed; applied <= what this node has published */
	uint32_t election_us;     /* shortest election timeout; the longest is twice that. 0: 300,000 */
	uint32_t heartbeat_us;    /* 0: 50,000 */
	uint32_t window_msgs;     /* appends in flight per follower. 0: 64 */
	uint32_t window_bytes;    /* the most that it may grow to, of entries' bytes (raft/flow.c). 0: 8 MiB */
	uint32_t append_max_bytes; /* entries' bytes in one append (one larger entry goes alone). 0: 1 MiB */
	uint32_t commit_delay_us; /* how long a moved commit index may wait for an append to carry it. 0: 500 */
	/* Leases (I11): by how much the rate of any member's clock may be wrong, parts per million. 0: RAFT_DRIFT_PPM;
	 * RAFT_NO_LEASES: this node takes none (it keeps its promises to others all the same). All members must have the same
	 * election_us, and bounds that hold for each of them; where clocks jump forward, no bound does. */
	uint32_t drift_ppm;
	/* The node has lost, or may have lost, what it had acknowledged or voted: an empty or damaged disk under an old id. It gives no
	 * vote and does not stand until a committed configuration that was made after its return has it as no voter
	 * (raft/README.md, forgetful nodes). */
	bool forgetful;
	/* Entries of the log whose data cannot be read here, ascending; their terms in `entries` are right. They are fetched from
	 * other members; nothing at or above the first is published before. */
	const uint64_t *holes;
	size_t n_holes;
	uint32_t level;            /* feature level that this program understands. 0: RAFT_LEVEL */
	uint32_t uncommitted_bytes; /* a leader refuses proposals beyond so many bytes that are not committed. 0: 64 MiB */
	/* The driver has something to end before leadership moves: for a priority the core begins no transfer, it says in update.prefer who
	 * should lead, and the driver asks for it (RAFT_EV_TRANSFER) when it is ready, or not. */
	bool ask_first;
	uint32_t catch_up_bytes;   /* a member further behind is sent to another one for entries. 0: 4 MiB; UINT32_MAX: never */
	uint32_t keep_log_bytes;   /* of a witness: the most that its log may hold. 0: 1 GiB */
	uint32_t persist_us;       /* a leader whose disk shows no progress for that long steps down, if another voter's does. 0: election_us */
	/* The longest that a leader may ask its followers to wait for a heartbeat: where delays vary, and when the group is idle. The same on
	 * all members. 0: 10 * election_us; election_us: no timeout is ever longer than that (raft/pulse.c). */
	uint32_t silence_max_us;
	bool telemetry;            /* fill update.told */
	/* Raft without what is built on top of it, to be looked at; the product never sets them. no_prevote: stands for election at
	 * once when its timer ends (paper 5.2). no_check_quorum: as a leader it stays one until it sees a later term, and
	 * takes no leases; as a voter it votes although a leader is alive, while pre-votes are refused all the same (thesis 9.6). */
	bool no_prevote, no_check_quorum;
	/* No leader counts on what this node answered in an earlier life: it has been down for longer than an election timeout, or is
	 * new, or no member takes leases. Else a restart counts as a sign of a leader, and it votes for nobody at first (I11). */
	bool promised_nothing;
	/* For tests of elections: a leader that a configuration leaves out tells nobody to stand in its place. */
	bool leave_silently;
};

/* All that Linux lets anybody do to the rate of its clocks: a tenth by the tick of adjtimex (chronyd slews by it), an eighth
 * by its offset (half a second, a fourth of it in the first second; systemd-timesyncd comes near), 500 ppm each by frequency
 * and adjtime; and a crystal is wrong by a few hundred. So much margin costs little: a lease of 188 ms instead of 300,
 * renewed every 50. */
#define RAFT_DRIFT_PPM 230000u
#define RAFT_NO_LEASES 1000000u

enum raft_event_type {
	RAFT_EV_TICK,        /* only time passed */
	RAFT_EV_MESSAGE,     /* msg arrived */
	RAFT_EV_PROPOSE,     /* entries: kind DATA with size, sum and data set; index and term are given by the core */
	RAFT_EV_CONFIG,      /* config: the target configuration, not joint; the core goes through the joint one and leaves it by itself.
	                      * Its level is ignored: the core sees to that */
	RAFT_EV_TRANSFER,    /* peer: the voter that shall lead instead of this node; 0: whichever suits best */
	RAFT_EV_READ,        /* a linearizable read wants an index; corr names it */
	RAFT_EV_TELL,        /* peer waits to hear that the entry at index is committed: at once then, not with what goes out next. On a leader; of the latest such index only */
	RAFT_EV_PERSISTED,   /* the log up to the entry at index is durable here; term: that entry's term */
	RAFT_EV_APPLIED,     /* index: published here */
	RAFT_EV_UNREACHABLE, /* peer: its link went down, what was in flight may be lost */
	RAFT_EV_REACHABLE,   /* peer: its link came up */
	RAFT_EV_TRIMMED,     /* index: the journal keeps only entries above it */
	RAFT_EV_FILLED,      /* index, term: the fill of that entry is durable here */
	/* index, term, config: an image up to that committed entry has replaced the state; corr: the current term of whoever made it. If
	 * raft_term_of(index) is that term, the log and the journal stay; else the journal has begun anew there, and the log does. Not on a leader */
	RAFT_EV_IMAGE,
};

/* What the clock of the leases says of the present (raft/lease.c; wire/clock.h has such clocks): it is within
 * earliest_us .. latest_us. unsure: it cannot tell; whoever switches to another clock says so once in between. All 0: it
 * is the clock of now_us. */
struct raft_clock { uint64_t earliest_us, latest_us; bool unsure; };

struct raft_event {
	enum raft_event_type type;
	uint64_t now_us;
	struct raft_clock clock;
	const struct wire_msg *msg;
	const struct wire_entry *entries;
	uint32_t n_entries;
	const struct raft_config *config;
	uint64_t corr, index, term, peer;
	bool lease_used; /* somebody has read by the lease since the last event: it is worth renewing though nothing else happens */
};

/* One settled read. index: the read may be served once this node has published it. code: WIRE_OK, or WIRE_NOTLEADER /
 * WIRE_TIMEOUT (no leader known, leadership lost, round unanswered for an election timeout): ask again. */
struct raft_read { uint64_t corr, index; int code; };

/* What the driver must do, in this order (raft/README.md says why):
 *   1. send msgs whose after_persist is false (the leader's appends overlap its own disk write)
 *   2. journal: truncation, entries, then term and vote; sync when must_sync
 *   3. send msgs whose after_persist is true
 *   4. settle proposals and reads, publish up to commit
 *   5. step RAFT_EV_PERSISTED for the entries
 * All pointers are valid until the next raft_step on the same object; msgs' and entries' data may point into the event. */
struct raft_update {
	bool must_sync; /* hard state changed, or entries were appended or truncated */
	bool hard_state_changed;
	uint64_t term, vote; /* current values, always set */
	uint64_t truncate_from; /* 0: none; else entries at and above it are superseded */
	const struct wire_entry *entries; /* to append, after the truncation */
	uint32_t n_entries;
	const struct wire_entry *fills; /* data of holes, to be put in place (raft_journal_fill) before the sync; then RAFT_EV_FILLED for each */
	uint32_t n_fills;
	struct wire_msg *msgs; /* entries in APPENDs carry metadata; the driver fills data from its cache or the journal */
	uint32_t n_msgs;
	/* Answer to PROPOSE, CONFIG: WIRE_OK with the first index given; WIRE_NOTLEADER; WIRE_BUSY (a transfer is under way, or, with
	 * backlog_bytes, too much is not committed yet;
	 * CONFIG also: another one is, or no entry of this term is committed yet: I13); WIRE_INVALID (CONFIG: would leave no
	 * voter, ...); refusal says which; WIRE_VERSION (needs a feature
	 * level that proposal_member lacks). A witness that leads answers BUSY to both.
	 * Answer to TRANSFER: WIRE_OK (under way; also when it was already, to the same peer or with peer 0); WIRE_NOTLEADER;
	 * WIRE_INVALID (peer is no other voter, or a witness; peer 0: no other voter was heard from within an election timeout, or all such
	 * wait for an image); WIRE_BUSY (one to another peer is under way, or a configuration is not committed or is joint). */
	int proposal_code;
	uint64_t proposal_index;
	uint64_t proposal_member; /* CONFIG refused with WIRE_VERSION: the member whose feature level is too low, or not known; else 0 */
	const char *refusal; /* why a CONFIG was refused, for a person; NULL: it was not */
	const struct raft_read *reads;
	uint32_t n_reads;
	/* current values, always set. commit: known committed and durable here (I9), so it may be published at once */
	uint64_t commit, last_index;
	enum raft_role role;
	uint64_t leader;        /* 0: unknown */
	bool leader_ready;      /* leads, is no witness, and an entry of its own term is committed */
	/* The lease (I11): until the clock of the leases has certainly reached lease_until_us, nobody else can commit anything, so
	 * that a read that sees read_index is linearizable. 0: none; UINT64_MAX: for as long as this is said. A driver that shows
	 * it to other threads must do so before it sends this update's messages. */
	uint64_t lease_until_us;
	uint64_t read_index;    /* known committed; may be above `commit`, not being durable here yet */
	uint64_t prefer;        /* leader, with ask_first: who should lead instead, in the step in which a transfer would begin; 0: nobody */
	uint64_t transfer_to;   /* leader: who shall lead instead; 0: no transfer is under way (any more) */
	bool forgetful;         /* as in the init, until it is over; the journal records the end before anything else is sent */
	bool removed;           /* a committed configuration that this node has, or a member that it asked, says that it is no member, and no
	                         * leader has spoken to it since. For people: one that is being added may be told so, too */
	bool needs_image;       /* the leader has trimmed what this node needs; falls when it has it, or another one leads */
	uint64_t backlog_bytes; /* leader: proposed and not committed yet */
	uint64_t keep_above;    /* a witness must not trim above it: some data voter may lack it. Others need not heed it. Never falls on a witness */
	uint32_t level;         /* feature level in force: that of the committed configuration */
	const struct raft_told *told; /* telemetry of this step, raft/telemetry.h; NULL unless asked for */
	uint32_t n_told;
	bool role_changed;      /* role, leader or term differ from before this step */
	bool config_changed;    /* raft_config_current differs from before this step */
	uint64_t deadline_us;   /* step RAFT_EV_TICK no later than this; UINT64_MAX: never */
};

/* NULL when memory is short or the init contradicts itself (text in err). A group whose only voter is this node becomes leader on its first tick. */
struct raft *raft_new(const struct raft_init *init, struct wire_err *err);
void raft_free(struct raft *r);

/* Never fails on bad input from a peer: such a message is ignored. *ret_update is filled anew. Returns WIRE_NOMEM when
 * memory is short, WIRE_VERSION when the group uses a feature level that this program does not know (raft/level.c), WIRE_CORRUPT when an image contradicts what is committed here; the object
 * must then only be freed (the node stops). */
int raft_step(struct raft *r, const struct raft_event *ev, struct raft_update *ret_update, struct wire_err *err);

const struct raft_config *raft_config_current(const struct raft *r); /* latest in the log, committed or not */
bool raft_config_committed(const struct raft *r);                     /* the current one is committed */
uint64_t raft_term_of(const struct raft *r, uint64_t index);          /* 0: not in the log (trimmed, or above the end) */

/* How a peer is doing, as the leader sees it; false when not leader or no such member. */
enum raft_progress_state { RAFT_PROBE, RAFT_REPLICATE, RAFT_SNAPSHOT };
struct raft_progress {
	enum raft_progress_state state;
	uint64_t match, next, applied;
	uint64_t last_contact_us; /* 0: never */
	bool alive;               /* it has answered, and lately enough for CheckQuorum */
	uint32_t inflight;
	uint32_t rtt_us, rtt_var_us; /* of heartbeats, smoothed as in RFC 6298; 0: unknown */
	uint64_t window_bytes;     /* what may be in flight now */
	uint32_t level;            /* feature level that it has announced; 0: none yet */
	bool forgot, full;         /* as its latest answer says */
	uint64_t source;           /* member that serves its catch-up; 0: this node */
	/* Catch-up rounds (thesis 4.2.1): each sends what was there when it began. caught_up: one took less than an election timeout, or it
	 * has lacked nothing for so long, and it has kept up since. */
	uint32_t rounds, round_us; /* finished rounds; how long the latest one took */
	bool caught_up;
};
bool raft_progress_of(const struct raft *r, uint64_t peer, struct raft_progress *ret_progress);

/* Lowest match of all members but this one and those that are awaited (this node's last index when there is none; 0 when it does not lead and so does not know): the journal must keep what is above it. */
uint64_t raft_min_match(const struct raft *r);

#endif
