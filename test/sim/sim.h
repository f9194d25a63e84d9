/* A deterministic simulator of one group: raft/ and the journal as they are shipped, linked into a world of simulated
 * clocks, network, disks, processes, members and clients. One seed, one run, bit for bit. README.md says what is simulated
 * and checked, and how to use it.
 *
 *   sim.c      the world: events in order of time, randomness, the trace, the end of a run
 *   net.c      messages on their way
 *   disk.c     files that forget (a wire_env)
 *   machine.c  the replicated state machine
 *   node.c     a node's driver: the loop of raft/README.md
 *   store.c    a node's journal, checkpoints, starting, stopping
 *   install.c  new and lost disks, images
 *   client.c   clients that read, write and retry
 *   admin.c    who is a member, who leads
 *   chaos.c    faults
 *   memory.c   memory that runs short
 *   mistakes.c calls that must be refused
 *   check_*.c  the properties, one a file; check.h
 *
 * Times: *_us in the world's own (true) time, local_us on a node's clock. */
#ifndef TEST_SIM_SIM_H
#define TEST_SIM_SIM_H

#include "raft/journal.h"
#include "raft/raft.h"
#include "raft/telemetry.h"
#include "test/sim/disk.h"
#include "test/sim/machine.h"
#include "test/sim/rng.h"

enum {
	SLOTS = 7,     /* places for nodes; a place whose disk is lost gets a node with a new id */
	CLIENTS = MACHINE_CLIENTS,
	TRACE_MAX = 1024,
	MSG_KINDS = WIRE_MSG_COUNT,
	GROUP = 77,
};

enum chaos_kind {
	CHAOS_KILL, CHAOS_POWER, CHAOS_ALL, CHAOS_IO_CRASH, CHAOS_CUT, CHAOS_HEAL, CHAOS_SLOW, CHAOS_PAUSE, CHAOS_CLOCK, CHAOS_SYNC_ERROR,
	CHAOS_WRITE_ERROR, CHAOS_FULL, CHAOS_ROT, CHAOS_WIPE, CHAOS_MEMBERS, CHAOS_TRANSFER, CHAOS_CLEAN, CHAOS_LINK, CHAOS_BURST,
	CHAOS_MEMORY, CHAOS_MISTAKE, CHAOS_FORGET, CHAOS_ROLL_BACK, CHAOS_UPGRADE, CHAOS_KINDS
};

struct sim_counts { /* numbers only, all uint64_t */
	uint64_t runs, sim_us, steps, commits, writes_ok, writes_lost, writes_unknown, writes_again, reads_ok, reads_failed, lease_reads;
	uint64_t elections, crashes, power_losses, io_crashes, starts, configs, transfers, handed_over, images, joins, trims, wipes, forgets, rollbacks, salvages, readmitted, witnesses_led, risen, raised, upgrades, preferred, hangs, holes, filled, images_running;
	uint64_t rots_found, rots_cut, episodes, judged; /* judged: operations that test/lin has looked at */
	uint64_t faults[CHAOS_KINDS], memory, jumps, stalls, one_way;
	struct disk_counts disk;
	uint64_t sent[MSG_KINDS], lost[MSG_KINDS], repeated[MSG_KINDS], overtaken[MSG_KINDS];
	uint64_t told[RAFT_TOLD_COUNT]; /* telemetry of the core */
	uint64_t journal_told[RAFT_JOURNAL_EVENTS]; /* and of the journal */
};
/* Adds b's numbers to a's. */
void sim_counts_add(struct sim_counts *a, const struct sim_counts *b);

/* What a run is like; drawn from the seed. */
struct sim_params {
	uint32_t voters, clients;
	uint8_t level;                                       /* feature level that the group begins with */
	bool shaped;                                         /* quorums of other sizes than a majority */
	uint32_t witnesses;                                  /* so many of the voters are to be witnesses */
	bool bundles;                                        /* drivers bundle heartbeats */
	bool ask_first;                                      /* before leadership moves for a priority */
	bool priorities;                                     /* members have different ones */
	uint32_t old_programs;                               /* per mille of nodes whose program knows level 1 only, until it is replaced */
	uint32_t keep_log_bytes;                             /* of witnesses */
	uint32_t catch_up_bytes;                             /* as in raft_init */
	uint32_t election_us, heartbeat_us, window_msgs, window_bytes, append_max_bytes, cache_slots;
	uint32_t uncommitted_bytes, silence_max_us, persist_us; /* as in raft_init */
	uint32_t delay_us, jitter_us, slow_us, loss, repeat; /* loss, repeat: per mille */
	uint32_t bytes_per_ms;                               /* of a link; 0: any number */
	bool fifo;                                           /* links keep order */
	uint32_t sync_us, stall_us;                          /* stall_us: longest; 0: never */
	bool overlap;                                        /* the node works on while its disk syncs */
	uint32_t apply_us;                                   /* how far publication may lag */
	uint32_t segment_bytes, first_bytes;
	uint32_t think_us, entry_bytes;                      /* means */
	uint32_t trim_every, trim_past;                      /* entries between checkpoints; per mille of trims that heed nobody */
	uint32_t drift_ppm;                                  /* each clock's largest deviation from the world's */
	uint32_t bound_ppm;                                  /* what the nodes believe of that; RAFT_NO_LEASES where clocks jump */
	bool jumps, lease_reads;                             /* lease_reads: readers look at the lease themselves */
	uint32_t interval_clocks;                            /* per mille of nodes that know true time, with an error */
	uint32_t chaos_us;                                   /* mean time between faults */
	uint32_t chaos_mask;                                 /* which kinds there are: bit enum chaos_kind */
};

struct sim_msg {
	uint32_t n_entries;
	uint8_t type, flags, from_slot, to_slot;
	uint64_t from, to, corr, term, index, log_term, commit, hint;
	uint32_t bytes, data_len; /* data_len: of a BUNDLE, behind the struct */
	uint64_t number; /* of its link */
	uint64_t mark; /* what must be durable on the sender before it leaves; 0: nothing */
	struct wire_entry entries[]; /* their data behind them */
};

enum sim_event_type { EV_MSG, EV_SYNCED, EV_START, EV_UPKEEP, EV_APPLY, EV_CLIENT, EV_ADMIN, EV_CHAOS, EV_CUTOFF, EV_WAKE };
struct sim_event {
	uint64_t at_us, seq;
	uint8_t type, slot;
	uint64_t life; /* the node's, when the event was made; another one by then: the event is void */
	struct sim_msg *msg;
};

struct sim_fill { uint64_t index, term; };

struct sim_request { /* what waits for the node thread */
	enum { REQ_MSG, REQ_WRITE, REQ_READ } kind;
	struct sim_msg *msg;
	uint32_t client;
	uint64_t attempt;
};

struct sim_pending { uint64_t index, term, attempt; uint32_t client; };
struct sim_reading { uint64_t corr, index, asked_us; uint32_t client; bool granted; };

struct cache_slot {
	struct wire_entry e;
	uint8_t *data;
	uint32_t cap;
};

struct log_link { uint64_t term, chain; }; /* chain: hash of the log up to here */

/* What was written to the journal, and what the disk must have told before it counts as durable. attests: up to where the log
 * was durable when it was written, which its records say; damage below that is always found. */
struct written { uint64_t mark, index, term, vote, attests; bool forgetful; };

struct members; /* check.h */
struct node_config;

struct sim_node {
	struct sim *sim;
	uint32_t slot;
	uint64_t id, generation;
	uint64_t life;
	bool up, has_journal, wiped; /* wiped: the disk of a member is lost */
	bool rotted, rotted_much;    /* damage was done to its disk; much: what told of the last batch may be gone with it */
	bool witness;   /* it has no database: nothing is published, no state machine; what is committed counts as applied */
	uint32_t level; /* feature level that its program knows */
	bool full;      /* as a leader heard from it */
	bool salvaging; /* of its journal; not known to have ended */
	bool alone; /* the core does not start: it has forgotten, and is the only voter that it knows of */
	bool forgetful, readmitted, dur_forgetful; /* it may have lost what it had promised; the same as its disk knows it */
	uint64_t asleep_until_us, hangs_until_us; /* hangs: its disk */
	/* clock */
	uint64_t clock_real_us, clock_local_us;
	int64_t clock_ppm;
	uint64_t clock_early_us, clock_late_us; /* errors of an interval clock; 0, 0: it has none */
	bool clock_unsure;

	struct sim_disk *disk, *backup; /* backup: as it was once; NULL: none */
	struct raft_journal *journal;
	bool journal_forgetful; /* it says so */
	struct raft *raft;
	bool failing;

	/* driver */
	uint64_t deadline_local_us, last_index;
	uint64_t memory_in; /* which of the next allocations fails; 0: none */
	bool must_sync, syncing;
	uint64_t sync_index, sync_term; /* the log's end when the sync under way began */
	struct sim_msg **late;
	size_t n_late, cap_late, sync_late;
	struct sim_request *inbox;
	size_t n_inbox, cap_inbox;
	struct cache_slot *cache;
	enum raft_role role;
	uint64_t term, leader, commit, transfer_to;
	bool ready;
	uint64_t *holes;     /* in its journal, ascending, until they are filled for good */
	size_t n_holes, cap_holes;
	uint64_t core_base; /* the core was told that what is up to here is trimmed; the journal may have more */
	struct sim_fill *fills; /* written; fills_late of them before the sync under way began */
	size_t n_fills, cap_fills, fills_late;
	bool needs_image;
	struct raft_bundle *bundle; /* NULL: nothing was put in yet */
	uint64_t prefer; /* who should lead instead; 0: nobody */
	uint64_t trim_to;    /* asked for; 0: nothing */
	uint64_t marked;     /* the journal's latest mark */
	uint64_t keep_above; /* members may need what is above it */
	uint64_t due_us, due_for_us; /* when the deadline due_for_us comes */
	uint64_t lease_until_us, read_index; /* by the clock of the leases; 0: none */
	bool lease_used; /* by a reader, since the core was last told */
	struct sim_pending *pending;
	size_t n_pending, cap_pending;
	struct sim_reading *readings;
	size_t n_readings, cap_readings;
	uint64_t next_corr;
	struct wire_buf scratch;

	/* what it has published, and what of that is on its disk */
	struct machine machine, checkpoint, backup_checkpoint;
	uint64_t applied_told;
	bool apply_due;

	/* for the checks: the log as written, and what of it is durable according to the disk */
	struct log_link *log;
	size_t cap_log;
	uint64_t log_base, log_last, hard_term, hard_vote;
	struct written *written;
	size_t n_written, cap_written;
	uint64_t dur_index, dur_attested, dur_term, dur_vote;
	uint64_t must_mark; /* of the latest write that had to be synced */
	uint64_t voted_term, voted_for; /* what others have heard of it */
	uint64_t forgot_at; /* what was committed when it came back as one that has forgotten */
	uint64_t commit_at_election, commit_heard;
	struct node_config *configs; /* in its log: the one in force at the base, and all above */
	size_t n_configs, cap_configs;
};

enum client_state { CLIENT_IDLE, CLIENT_WRITING, CLIENT_READING };
struct sim_client {
	enum client_state state;
	uint32_t slot, key, hint;
	uint64_t seq, attempt, floor, began_us, deadline_us;
	bool again; /* the outcome of an attempt for this seq is unknown: it is tried again */
};

struct sim_link {
	bool cut;
	uint32_t slow_us;
	uint64_t sent, arrived; /* numbers of messages */
	uint64_t last_us[2], busy_us[2]; /* by lane, control and log: latest arrival; when the wire is free */
};

struct sim_trace { const char *fmt; uint64_t at_us, a[6]; };

struct check; /* check.h */

struct sim {
	uint64_t seed, now_us, seq, end_us, digest;
	struct rng rng;
	bool verbose, failed, quiet, resting; /* quiet: no more faults; resting: clients begin nothing */
	const char *without; /* properties whose name begins so are not looked at; NULL: all are */
	struct sim_params p;
	struct sim_event *heap;
	size_t n_heap, cap_heap;
	struct sim_node n[SLOTS];
	struct sim_link link[SLOTS][SLOTS];
	struct sim_client c[CLIENTS];
	uint64_t asked_until_us; /* leadership stays where somebody asked for it */
	uint64_t lost_id; /* a member whose disk is gone; 0: none, so another may be lost */
	struct check *check;
	struct sim_counts *counts;
	struct sim_trace trace[TRACE_MAX];
	uint64_t n_trace;
	char property[64], error[600];
};

/* ---- sim.c ---- */
/* Runs one seed for about time_us. False when a property failed; *ret_sim is then what is left for a report, and true or
 * false it is freed by sim_free. without: as in struct sim. */
bool sim_run(uint64_t seed, uint64_t time_us, bool verbose, const char *without, struct sim_counts *counts, struct sim **ret_sim);
void sim_free(struct sim *s);
void sim_running(struct sim *s); /* main.c: told of the run that begins, for the case of an abort */
void sim_report(const struct sim *s, size_t tail); /* the property and the end of the trace, to stdout */

void sim_post(struct sim *s, struct sim_event ev);
void sim_fail(struct sim *s, const char *property, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* fmt takes six unsigned long long, or fewer, and lives for ever. */
void sim_trace(struct sim *s, const char *fmt, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f);
void *sim_grow(void *array, size_t *cap, size_t n, size_t elem); /* room for one more; aborts without memory */
/* Runs the world until then, or until something failed. */
void sim_until(struct sim *s, uint64_t at_us);

/* ---- net.c ---- */
void net_send(struct sim *s, struct sim_msg *m); /* takes m */
void net_arrive(struct sim *s, struct sim_msg *m);
void net_heal(struct sim *s);
void net_cut_off(struct sim *s, uint32_t slot); /* from all, both ways */
void net_cut(struct sim *s, uint32_t from, uint32_t to);

/* ---- node.c ---- */
uint64_t node_local_us(const struct sim_node *n);
bool node_has_lease(const struct sim_node *n);
void node_draw_interval(struct sim_node *n); /* its interval clock's errors anew */
uint64_t node_due_us(const struct sim_node *n); /* when its deadline comes, in the world's time; UINT64_MAX: never */
void node_set_clock(struct sim_node *n, int64_t ppm, int64_t jump_us);
void node_tick(struct sim_node *n);
void node_deliver(struct sim_node *n, struct sim_request r);
void node_synced(struct sim_node *n);
void node_apply(struct sim_node *n);
/* For events from outside the loop; the code and index answer PROPOSE, CONFIG, TRANSFER. False: it was busy, asleep or down. */
bool node_ask(struct sim_node *n, struct raft_event ev, int *ret_code, uint64_t *ret_index);
/* By the latest configuration that names it. */
bool node_is_witness(const struct sim_node *n);
bool node_keeps(const struct sim_node *n); /* it may count as a witness by some configuration of its log */
bool node_awake(const struct sim_node *n);
void node_fail(struct sim_node *n, const char *why, const struct wire_err *err);
void node_settled(struct sim_node *n); /* at the end of whatever made it work: it stops if it failed */
void node_drain(struct sim_node *n);   /* what waited while it was busy or asleep */
const char *node_name(const struct sim_node *n);

/* Calls of the code under test are between these two: memory may run short. False: it did. */
void node_call(struct sim_node *n);
bool node_called(struct sim_node *n);

/* ---- store.c ---- */
#define STORE_DIRECTORY "node/journal"
struct raft_journal_opts store_options(const struct sim *s);
void store_write(struct sim_node *n, const struct raft_update *u);
/* From the update, the cache or the journal; data is valid until the next call. False: the node failed. u may be NULL. */
bool store_entry(struct sim_node *n, const struct raft_update *u, uint64_t index, uint64_t term, struct wire_entry *ret_e);
void store_remember(struct sim_node *n, const struct raft_update *u); /* for the checks and the cache; before anything is sent */
void store_upkeep(struct sim_node *n);
void store_trim(struct sim_node *n);
void store_publish(struct sim_node *n, uint64_t upto);
/* ---- bundles.c ---- */
bool bundles_take(struct sim_node *n, const struct wire_msg *m); /* false: it goes by itself */
void bundles_flush(struct sim_node *n);
void bundles_drop(struct sim_node *n);
void bundles_open(struct sim_node *n, const struct sim_msg *c, void (*each)(struct sim_node *n, struct wire_msg *m));

/* ---- holes.c ---- */
void holes_found(struct sim_node *n, const struct raft_journal_state *st);
int holes_write(struct sim_node *n, const struct raft_update *u, struct wire_err *err); /* the fills of an update */
void holes_truncate(struct sim_node *n, uint64_t from);
void holes_trim(struct sim_node *n);
/* What the sync that ended has made durable, one after the other; index 0: no more. */
struct sim_fill holes_next_durable(struct sim_node *n);

/* ---- install.c ---- */
void node_create(struct sim_node *n, const struct raft_config *c); /* a journal for a first member */
void node_start(struct sim_node *n); /* store.c */
/* store.c: ends the process: clean, by a kill (what was written stays), or with the power (what was not synced may go). */
enum node_end { END_CLEAN, END_KILL, END_POWER };
void node_stop(struct sim_node *n, enum node_end how);
void node_wipe(struct sim_node *n); /* a lost disk; the next node there has another id */
/* A stopped or running node gets the state of `from`; keep: it stays the same node, with its term and vote. */
/* For a running node that needs one; false: not now. */
bool node_take_image(struct sim_node *n, struct sim_node *from);
void node_install(struct sim_node *n, struct sim_node *from, bool keep);
/* The same id with an empty disk, or with one from earlier (node_backup). False: it cannot be now. */
bool node_forget(struct sim_node *n, struct sim_node *from);
bool node_roll_back(struct sim_node *n);
uint64_t node_image_index(const struct sim_node *n, const struct sim_node *from);
bool node_rise(struct sim_node *n, struct sim_node *from); /* a witness gets a database */
bool node_salvage(struct sim_node *n, struct sim_node *from); /* of a journal that is damaged; install.c */
void node_backup(struct sim_node *n);

/* ---- client.c, admin.c, chaos.c ---- */
void client_begin(struct sim *s);
void client_event(struct sim *s, uint32_t client);
void client_write(struct sim_node *n, uint32_t client, uint64_t attempt);
void client_read(struct sim_node *n, uint32_t client);
void client_settle(struct sim_node *n);  /* proposals that were published, or lost */
void client_granted(struct sim_node *n, const struct raft_read *r);
void client_serve(struct sim_node *n);   /* reads whose index is published */
void client_burst(struct sim_node *n, uint32_t count); /* proposals that nobody waits for */
void client_forget_writes(struct sim_node *n);
void client_gone(struct sim_node *n);    /* the node stopped */

void admin_event(struct sim *s);
bool admin_transfer(struct sim *s); /* true: it is under way */
bool admin_change(struct sim *s);
uint8_t admin_draw_priority(struct sim *s);
void admin_draw_quorums(struct sim *s, struct raft_config *c);
bool admin_may_lose(struct sim *s, const struct sim_node *n); /* its disk may be lost without the group's being so */
struct sim_node *sim_leader(struct sim *s);                   /* the one with the latest term; NULL: none */
struct sim_node *sim_by_id(struct sim *s, uint64_t id);       /* NULL: no such node any more */

bool mistake(struct sim_node *n); /* mistakes.c; false: there was nobody to make one with */
void chaos_event(struct sim *s);
void chaos_end(struct sim *s); /* faults stop: all is healed, all start */

#endif
