/* Inside of a node. Threads:
 *
 *   node       steps the core, writes and syncs the journal, sends. The only one that touches `raft`, `cache`, `pending`'s links.
 *   publisher  publishes committed entries that no connection of this process publishes itself
 *   checkpoint checkpoints, restarts of the WAL, trimming of the journal
 *   upkeep     journal segments ahead of need, watchdog of the wal-index header
 *   images     serves images to joining nodes
 *   control    accepts on node.sock, and a thread for each connection answers (control.c; attach_host.c for attached processes)
 *   query      answer questions of hosts without a replica, while there are any (query.c)
 *   mover      keeps the write lock while leadership goes elsewhere (handover.c)
 *   application threads come in through vfs_node_ops (node_ops.c), wait on their request's condition
 *
 * Locks (outer first): the registry's (registry.c; not held while a node starts or ends), `mu` (inbox, shared state, pendings' states), then nothing. `image_mu` guards the image queue alone.
 * None is held over I/O, a call of the core, the journal, the link or vfs. `lease` is read without any. */
#ifndef SHELL_NODE_IMPL_H
#define SHELL_NODE_IMPL_H

#include "raft/journal.h"
#include "raft/raft.h"
#include "shell/events.h"
#include "shell/grants.h"
#include "shell/ledger.h"
#include "shell/node.h"
#include "shell/shared.h"
#include "shell/txid.h"
#include "wire/clock.h"
#include "wire/link.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>


/* What a node does with what is committed: a full replica keeps its database (store_db.c), a witness only the log (witness.c). Called with no lock held, on
 * the node's threads, unless said otherwise. */
struct node_store {
	bool witness;
	unsigned threads; /* of enum node_thread, those that it needs */
	/* Before any thread runs. st: what the journal recovered; its publications are copied before anything is appended. Errors as of shell_node_acquire. */
	int (*open)(struct shell_node *n, const struct raft_journal_state *st, struct wire_err *err);
	void (*close)(struct shell_node *n); /* after the last thread has ended; also when open failed */
	uint64_t (*applied)(struct shell_node *n); /* index that its state is at; an atomic load */
	void (*moved)(struct shell_node *n);       /* what may be applied may have moved; mu held */
	void (*upkeep)(struct shell_node *n);      /* every UPKEEP_POLL_US, on a thread that nobody waits for */
	void (*status)(struct shell_node *n, struct vfs_db_status *ret_status);
	int (*view_open)(struct shell_node *n, struct vfs_view **ret_view, struct vfs_view_info *ret_info, struct wire_err *err); /* for images */
};
extern const struct node_store node_store_database, node_store_witness;

enum request_kind { REQUEST_PROPOSE, REQUEST_READ, REQUEST_MEMBER, REQUEST_OUTCOME };

/* A question of an application thread to the node thread; one reference each. done, abandoned, code, index are under `mu`. */
struct request {
	enum request_kind kind;
	unsigned refs; /* mu */
	bool done, abandoned;
	bool is_close;  /* PROPOSE: wait for the commit, not only for the index */
	int code;       /* answer */
	uint64_t epoch; /* PROPOSE: term it may be proposed in; OUTCOME: that of the leader that answered */
	uint64_t index; /* PROPOSE: given to the entry; READ: the read index */
	uint8_t *data;  /* PROPOSE: the entry; MEMBER: the line; OUTCOME: the id; owned */
	uint32_t size;
	uint64_t posted_us; /* when it was put into the queue */
	uint64_t begun_us; /* READ: a reading of the leases' clock before it was asked; 0: none */
	uint64_t corr; /* READ, MEMBER; of another node's PROPOSE: its number of the request */
	uint64_t asker, grant; /* PROPOSE: of another node, under that grant of this leader (grants.c); 0: this node's own */
	char why[WIRE_TEXT_MAX + 1]; /* PROPOSE: the leader's refusal */
	struct wire_buf answer; /* MEMBER: JSON; OUTCOME: why not, as a text */
	pthread_cond_t cond;
	struct request *next; /* inbox, then the node thread's list of reads or of questions to the leader */
};

/* A closing entry in flight that some connection waits for. When it is committed and its asker is still there, the asker publishes it, and the
 * publisher stays below it until commit_end; else the publisher does. All under `mu`. */
struct pending {
	uint64_t index, term;
	struct request *req; /* a reference; NULL once handed over */
	struct pending *next;
};

/* The latest entries' data, for sending without reading the journal. */
struct cache_slot { struct wire_entry e; uint8_t *data; };
#define CACHE_SLOTS 4096
#define CACHE_BYTES (8u << 20)
struct entry_cache {
	struct cache_slot slot[CACHE_SLOTS]; /* by index % CACHE_SLOTS */
	uint64_t oldest;                     /* indexes below are not in it */
	size_t bytes;
};

/* The longest silence of an idle group's leader; it sends something every 7/10 of that (raft/pulse.c), and the link takes a peer for gone
 * after twice that. */
#define NODE_IDLE_US 1900000u
#define NODE_LINK_SILENCE_MS 2700u

struct peer_event { uint64_t peer; bool up; struct peer_event *next; };

struct image_session {
	uint64_t from, corr;
	struct vfs_view *view;
	struct vfs_view_info info;
	struct wire_file *ledger; /* a copy that has no name */
	uint64_t ledger_bytes, used_us;
};
#define IMAGE_SESSIONS 4

#define NODE_SILENT_US 1000000u /* so long after its election a leader waits for members to be heard of, before it calls them unreachable */

/* lag.c: how far the members are, by the leader's latest word: its own look where it leads. For people and for choosing whom to ask. */
enum node_lag_flags { LAG_ALIVE = 1, LAG_FORGOT = 2, LAG_FULL = 4, LAG_IMAGE = 8 };
struct node_lag_row {
	uint64_t id, applied;
	uint64_t lag_us;    /* how long the first entry that it lacked had been committed when it told so; 0: it lacked none */
	uint64_t silent_us; /* since it was heard of, at at_us; UINT64_MAX: never */
	uint8_t flags;
};
struct node_lag {
	uint64_t at_us; /* when it was so, or came in; 0: nothing known */
	uint64_t term, leader, commit;
	uint32_t n;
	struct node_lag_row row[RAFT_MEMBERS_MAX];
};
/* When the commit index was where, lately. */
#define NODE_COMMITS 256
struct node_commits { struct { uint64_t index, us; } at[NODE_COMMITS]; uint32_t n; };

#define NODE_HINT_BYTES 360

struct node_shared { /* what other threads read, under mu */
	enum raft_role role;
	uint64_t term, leader, commit, last_index, persisted;
	bool leader_ready;
	uint64_t transfer_to; /* who shall lead instead of this node; 0: nobody */
	struct raft_config config;
	bool config_committed;
	bool removed; /* it is no member any more, and knows it */
	uint32_t level;
	struct raft_progress progress[RAFT_MEMBERS_MAX]; /* as of now_us; zeros where this node does not lead */
	bool up[RAFT_MEMBERS_MAX];
	uint64_t now_us;
	bool forgetful;      /* it has lost what it had promised, and is not re-admitted yet */
	bool needs_image;    /* no member's log has what this one lacks */
	bool mending;        /* its database is not open yet: the log does not reach it, or has holes there */
	uint32_t holes;      /* entries that are to be fetched from other members */
	uint64_t keep_above; /* journal entries above it are needed by some member */
	struct node_lag lag;
};

/* How new what is published here will be known to be, for bounded reads; times by the leases' clock (reads.c, README.md). node_lease.fresh_us is how new it is. */
struct node_fresh {
	_Atomic uint64_t asked_us;       /* the latest question to the leader that no reader waits for; node_now_us */
	uint64_t known_us, known_index;  /* all that was acknowledged until then is at or below that index; mu */
};

/* Reads that asked the core, questions to the leader, rounds of heartbeats for reads; since the start. Node thread writes. */
struct node_read_counts { _Atomic uint64_t asked, requests, rounds; };

/* witness.c. */
struct node_witness {
	_Atomic uint64_t durable; /* committed and durable here */
	uint64_t trimmed_at_us;   /* upkeep's */
	/* It becomes a full replica: its journal must hold all above the image's index, whose mark has to be the last one. */
	pthread_mutex_t mark_mu; /* over appending a mark; outside of all other locks */
	char lacking[RAFT_URL_MAX + 1]; /* for whom the log is kept, "" nobody known; mu */
	bool full;                      /* the core takes no more entries; mu */
	bool hold; /* no mark is made; mark_mu */
	/* Answers to the requests for an image; image_mu. */
	bool fetching;
	struct wire_link_msg *inbox, **inbox_tail;
	pthread_cond_t inbox_cond;
	unsigned queued;
};

/* Between the node thread, which wants no transaction under way, and the mover, which sees to it by keeping the write lock. Under mu. */
struct node_drain {
	bool wanted;  /* by the node thread, for `line` */
	bool run;     /* now: the node thread shall do it */
	bool at_it;   /* the node thread does it */
	bool holding; /* no write transaction is under way, or it has had its time */
	char *line;   /* as for node_member_line; owned */
};

/* Of the registry (registry.c): STARTS until RUNS or FAILED; ENDS until ENDED, or FAILED. */
enum node_phase { NODE_STARTS, NODE_RUNS, NODE_ENDS, NODE_ENDED, NODE_FAILED };

struct shell_node {
	/* registry.c's, under its lock */
	struct shell_node *next;
	unsigned refs, waiting; /* waiting: threads that want it once it runs, or is gone */
	unsigned connections;   /* those of refs that are connections' */
	enum node_phase phase;
	struct wire_err start_err; /* why it FAILED */

	bool (*stop_asked)(void); /* while it starts: may be NULL */
	sigset_t host_signals;    /* mask of the thread that starts it */
	struct shell_paths paths;
	struct shell_conf conf;
	const struct wire_env *env;
	int lock_fd;
	struct raft *raft;
	struct raft_journal *journal;
	struct wire_link *link;
	const struct node_store *store;
	atomic_bool renew_ledger; /* shell_node_renew_ledger */
	struct shell_ledger *_Atomic ledger; /* set before db is; NULL: a witness, or not open yet */
	struct vfs_db *_Atomic db; /* NULL: a witness, or not open yet (repair.c) */
	struct node_witness witness;
	struct node_events *events;

	pthread_mutex_t mu;
	pthread_cond_t wake;            /* node thread */
	pthread_cond_t publish_wake;    /* publisher */
	pthread_cond_t published_cond;  /* those who wait for an index to be published, or for a role */
	struct wire_link_msg *inbox, **inbox_tail;
	struct request *requests, **requests_tail;
	struct peer_event *peer_events, **peer_events_tail;
	bool stop, failed;
	bool has_heirs; /* other processes go on with the files, as soon as this one lets go of them */
	bool keep_lock; /* it is sent to one of them */
	char failure[512];
	struct node_shared shared;
	struct node_lease *lease; /* in `shown`, where that is had */
	struct node_lease own_lease;
	struct shell_shared *shown; /* to other processes of the machine; NULL: not yet, or a witness */
	struct shell_shared_marks *marks; /* of theirs */
	struct node_fresh fresh;
	struct node_read_counts read_counts;
	/* Entries sent, and how many lz4 blocks were unpacked for that: none, they go as they are stored. */
	_Atomic uint64_t entries_sent, send_unpacks;
	struct wire_clock clock; /* of the leases */
	struct pending *pending; /* ascending index */
	enum { HAND_OVER_NONE, HAND_OVER_ASKED, HAND_OVER_REFUSED, HAND_OVER_UNDER_WAY } hand_over;
	bool proposing; /* the node thread has an entry in hand that last_index does not tell of yet: nobody may begin beside it */
	uint64_t next_corr, trim_to; /* trim_to 0: nothing to trim */
	char promotion_refusal[256], refused[256];
	struct node_drain drain;
	pthread_cond_t drain_wake; /* mover */
	struct shell_txid_source txids; /* of all grants that this node gives as the leader; mu */
	struct node_grants grants;
	struct node_forward forward;
	atomic_bool side_look; /* the node thread is to look after its tickets, or others', at once */
	const void *granted_who; /* whose transaction runs here, under the grant with this id; NULL: nobody's; mu */
	uint8_t granted_txid[VFS_TXID_BYTES];

	/* node thread only */
	struct entry_cache *cache;
	struct wire_msg *late;
	size_t n_late, cap_late;
	struct request *reads, **reads_tail, *asks; /* asks: questions that went to the leader */
	struct request *outcomes; /* likewise (outcome.c) */
	struct node_commits commits;
	struct node_lag lag_said; /* the latest LAG that went out */
	bool lag_said_twice;
	uint64_t lag_told_id[RAFT_MEMBERS_MAX], lag_told_us[RAFT_MEMBERS_MAX]; /* leader: when that member last told how far it is */
	_Atomic uint64_t leader_heard_us; /* the latest message from whoever led then */
	struct request *held;   /* proposals refused for the backlog, oldest first */
	uint64_t backlog_bytes, held_backlog; /* of the latest step; when the latest proposal was held */
	char refusal[256];            /* the core's latest, of a configuration */
	char transfer_note[160];      /* what became of the last transfer that was asked for; "" */
	struct raft_config linked; /* whose members the link dials */
	bool keeps_log; /* as a witness must: it trims to what the core says, also while it leads */
	uint64_t leads_term, leads_since_us; /* the latest term that this node led in, and since when */
	uint64_t last_index, deadline_us, applied_told, promote_at_us, progress_at_us;
	uint64_t side_due_us; /* when grants.c or forward.c want to be called again */
	bool must_sync;
	struct wire_buf scratch;

	/* image service */
	pthread_mutex_t image_mu;
	pthread_cond_t image_wake;
	struct wire_link_msg *image_inbox, **image_tail;
	unsigned image_queued;
	struct image_session image[IMAGE_SESSIONS];

	/* Connections of attached processes (attach_host.c). */
	pthread_mutex_t attach_mu; /* a leaf */
	struct node_peer *peers;
	unsigned n_peers; /* whose thread has not ended */
	pthread_cond_t attach_left;
	bool attach_closed, attach_relied_on; /* relied_on: by the processes that could be the next host */

	struct node_queries *queries; /* query.c */

	int control_fd, control_stop[2];
	pthread_t thread_node, thread_publisher, thread_checkpoint, thread_upkeep, thread_images, thread_control, thread_mover;
	unsigned started; /* bits of enum node_thread */
	uint64_t mark_index;

	struct wire_entry *filled; /* node thread: fills that are to be synced; index and term */
	size_t n_filled, cap_filled;
	bool forgetful;           /* node thread: the journal says so */
	uint64_t start_base;      /* of the journal, at the start */
	uint64_t readmit_at_us;   /* node thread */
};

enum node_thread { THREAD_NODE = 1, THREAD_PUBLISHER = 2, THREAD_CHECKPOINT = 4, THREAD_UPKEEP = 8, THREAD_IMAGES = 16, THREAD_CONTROL = 32, THREAD_MOVER = 64,
	THREADS_ALWAYS = THREAD_NODE | THREAD_UPKEEP | THREAD_IMAGES | THREAD_CONTROL | THREAD_MOVER };

void shell_log(const struct shell_node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t node_now_us(const struct shell_node *n);
/* Ends this node's part: it answers nobody any more, everything that waits gets an error. Any thread. The first reason stays. */
void node_fail(struct shell_node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool node_stopping(struct shell_node *n);
/* Waits on cond with mu held until deadline_us (env's clock); false: it passed. */
bool node_wait(struct shell_node *n, pthread_cond_t *cond, uint64_t deadline_us);
void node_cond_init(pthread_cond_t *c);
/* node.c, for registry.c: a node's life. start: errors as of shell_node_acquire; stop follows in any case. */
struct shell_node *node_new(const struct shell_paths *paths);
int node_start(struct shell_node *n, struct wire_err *err);
void node_stop(struct shell_node *n);
void node_free(struct shell_node *n);
/* attach_host.c: processes that use this node. From node_show on who is attached to the process that was the host before knows that it is no more: before anything of the database changes. After
 * node_unshow, when no thread of the node is left, nobody is the host. */
int node_show(struct shell_node *n, struct wire_err *err);
void node_unshow(struct shell_node *n);
/* mu held: a grant of the write lock may have become void (epoch_valid); the voters may have changed. */
void node_grants_void(struct shell_node *n);
void node_show_voters(struct shell_node *n);
void node_show_alive(struct shell_node *n); /* upkeep */
/* Answers an attach connection on a thread of its own from now on; fd is taken. */
void node_attach_serve(struct shell_node *n, int fd, const char *line);
void node_attach_after_fork(struct shell_node *n); /* in the child: closes them here */
/* Takes no further question of theirs, and waits, for a moment, for the answers to those under way: a commit that was sent shall have its outcome. */
void node_attach_drain(struct shell_node *n);
void node_attach_close(struct shell_node *n); /* cuts all of them off, and waits for their threads */
bool node_several_voters(const struct shell_node *n); /* mu held */
/* handover.c. Nothing when this node does not lead. Else has another voter lead, and waits until it does: a second at most, since without one that suits there is nothing to wait for. */
void node_hand_over(struct shell_node *n);
void *node_mover_main(void *node);
/* Node thread: has `line` done by node_member_line once no write transaction is under way here, and none begins until it is over. */
void node_drain_for(struct shell_node *n, const char *line);
bool node_is_drained(struct shell_node *n); /* node thread: it is being done */
void node_drain_run(struct shell_node *n);  /* node thread, each batch */
/* Highest index that the publisher may publish: committed, durable here, and below every entry that a connection publishes. mu held. */
uint64_t node_publish_limit(const struct shell_node *n);
/* After published moved: wakes those who wait. */
void node_published(struct shell_node *n);
int node_read_entry(void *node, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data,
                    struct wire_err *err);

void node_ops_make(struct shell_node *n, struct vfs_node_ops *ret_ops);
/* Any thread, without locks: this node leads by its lease, and what is committed is at most *ret_index. */
bool node_lease_covers(struct shell_node *n, uint64_t *ret_index);
void *node_thread_main(void *node);       /* driver.c */
int node_driver_start(struct shell_node *n, const struct raft_journal_state *st, struct wire_err *err);
void node_driver_free(struct shell_node *n);
void node_on_msg(void *node, struct wire_link_msg *m);
void node_on_peer(void *node, uint64_t peer, bool up);
void node_on_refused(void *node, uint64_t peer, const char *why);
void *node_publisher_main(void *node);    /* workers.c */
void *node_checkpoint_main(void *node);
void *node_upkeep_main(void *node);
void node_ask_trim(struct shell_node *n, uint64_t to); /* has the journal forget up to there, or to what a member needs; workers.c */
void node_witness_init(struct shell_node *n); /* witness.c */
void node_witness_status(struct shell_node *n, struct wire_buf *b); /* of status.c's object: the key and a comma */
void node_witness_queue(struct shell_node *n, struct wire_link_msg *m);
void node_witness_drop(struct shell_node *n);
/* witness_member.c: membership of witnesses, on the node thread. base: puts into a JOIN_RESP where its log begins; false: not known now. asks: a PROMOTE_REQ of a voting
 * witness, while the configuration may be changed. tell, told: with heartbeats to a witness, for whom it keeps its log. */
bool node_witness_base(struct shell_node *n, struct wire_msg *ret_msg);
void node_witness_asks(struct shell_node *n, const struct wire_msg *m, const struct raft_member *self);
void node_witness_tick(struct shell_node *n, uint64_t now_us);
void node_witness_tell(struct shell_node *n, struct wire_msg *m);
void node_witness_told(struct shell_node *n, const struct wire_msg *m);
void *node_images_main(void *node);       /* images.c */
void node_images_queue(struct shell_node *n, struct wire_link_msg *m);
void node_images_close(struct shell_node *n);
struct sockaddr_un;
/* control.c. The address of node.sock, valid until *ret_dir_fd (-1: none) is closed. */
int node_control_address(const struct shell_paths *paths, struct sockaddr_un *a, int *ret_dir_fd, struct wire_err *err);
int node_control_open(struct shell_node *n, struct wire_err *err);
/* query.c: questions of hosts without a replica. take, gone: from the link's threads; stop: waits for those that are answered, and closes their connections to the
 * database; later ones are dropped. free: after the link's end. stop and free: NULL allowed. */
struct node_queries *node_queries_new(struct shell_node *n);
void node_queries_take(struct node_queries *q, struct wire_link_msg *m);
void node_queries_gone(void *node, uint32_t conn);
void node_queries_stop(struct node_queries *q);
void node_queries_free(struct node_queries *q);
int node_control_open(struct shell_node *n, struct wire_err *err); /* control.c */
void *node_control_main(void *node);
void node_control_close(struct shell_node *n);
/* repair.c: a journal that was damaged, lost or put back */
int node_journal_open(struct shell_node *n, struct raft_journal_state *ret_st, struct wire_err *err);
/* Opens the store as soon as it can be: at once, or when enough was fetched from other members, with the node's threads running meanwhile. */
int node_store_open(struct shell_node *n, struct raft_journal_state *st, struct wire_err *err);
/* Node thread: update.fills into the journal; and, once they are synced, to the core. */
int node_fills_write(struct shell_node *n, const struct raft_update *u, struct wire_err *err);
int node_fills_done(struct shell_node *n);
int node_start_threads(struct shell_node *n, unsigned which, struct wire_err *err); /* node.c; those that run already stay */
/* ledger_node.c. published: by the database that was just opened; st as for node_store.open. */
int node_ledger_open(struct shell_node *n, const struct raft_journal_state *st, uint64_t published, struct wire_err *err);
void node_ledger_close(struct shell_node *n);
int node_ledger_effects(void *node, uint64_t upto, const struct vfs_effect *effects, size_t count, struct wire_err *err); /* vfs_node_ops.effects */
int node_ledger_flush(struct shell_node *n, uint64_t mark_index, struct wire_err *err); /* before the mark at that index; one thread at a time */
/* A copy of it, at `below` or above, open for reading, which goes with its close. slot: one at a time for each number below IMAGE_SESSIONS. */
int node_ledger_copy(struct shell_node *n, unsigned slot, uint64_t below, struct wire_file **ret_file, uint64_t *ret_bytes, struct wire_err *err);
void node_ledger_status(struct shell_node *n, struct wire_buf *b);                       /* of status.c's object: the key and a comma */
/* node_ops.c; mu held. May something still be proposed under that grant of this node's? */
bool node_grant_is_held(const struct shell_node *n, const uint8_t txid[VFS_TXID_BYTES]);
/* outcome.c: for vfs_node_ops; on the node thread; and, with mu held, its end. msg: false: it is none of these messages. */
int node_step_of(void *node, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err);
int node_outcome(void *node, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err);
void node_outcome_request(struct shell_node *n, struct request *r); /* takes the node thread's reference */
bool node_outcome_msg(struct shell_node *n, const struct wire_link_msg *lm);
void node_outcome_tick(struct shell_node *n);
void node_outcome_end(struct shell_node *n);
/* mark.c: the latest checkpoint mark, beside the journal. WIRE_NOTFOUND. */
int node_mark_write(struct shell_node *n, const struct raft_journal_mark *m, struct wire_err *err);
int node_mark_read(struct shell_node *n, struct raft_journal_start *ret_mark, struct wire_err *err);
void node_readmit_tick(struct shell_node *n, uint64_t now_us); /* readmit.c; node thread */
/* members.c: membership requests, on the node thread. */
void node_membership_msg(struct shell_node *n, const struct wire_link_msg *m);
void node_membership_tick(struct shell_node *n, uint64_t now_us);
/* change.c: requests about members, a line each, on the node thread; grammar and answers are described there. */
#define NODE_LINE_MAX 8192
void node_member_line(struct shell_node *n, const char *line, struct wire_buf *answer); /* where this node leads */
void node_member_request(struct shell_node *n, struct request *r); /* members.c; takes the node thread's reference */
void node_member_tick(struct shell_node *n); /* drops what nobody waits for any more */
/* An answer: state is done, working, refused, noleader, removed or failed. */
void node_member_answer(struct wire_buf *answer, const char *state, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
enum node_readiness { NODE_READY, NODE_WORKING, NODE_REFUSED };
/* May that learner be a voter now? Fills why[cap] unless NODE_READY. This node leads. */
enum node_readiness node_ready_to_vote(struct shell_node *n, const struct raft_member *m, char *why, size_t cap);
/* Any thread: has a line answered by the leader, and waits for it. */
void node_member_ask(struct shell_node *n, const char *line, unsigned timeout_ms, struct wire_buf *ret_answer);
void node_share_progress(struct shell_node *n, uint64_t now_us); /* driver.c; node thread */
/* status.c: the members of the group as the inside of a JSON object, without braces. */
void node_members_json(const struct shell_node *n, const struct node_shared *s, struct wire_buf *b);
void node_json_put(struct wire_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void node_json_string(struct wire_buf *b, const char *s);
void node_json_text(struct wire_buf *b, const char *key, const char *value); /* "key":"value" or null, and a comma */
/* Steps the core and does what it asks for, but for the sync and what must follow it. *ret_code, *ret_index: PROPOSE and CONFIG; may be NULL. */
int node_step(struct shell_node *n, struct raft_event *ev, int *ret_code, uint64_t *ret_index); /* driver.c */
void node_send(struct shell_node *n, uint64_t to, const struct wire_msg *m); /* send.c; fills group and from */
int node_send_raft(struct shell_node *n, struct wire_msg *m);       /* a message of the core: fills entries' data */
void node_link_members(struct shell_node *n);                         /* after a change of configuration */
int node_send_late(struct shell_node *n, const struct wire_msg *m); /* keeps it for after the sync */
/* node_ops.c: requests of application threads. */
struct request *request_new(enum request_kind kind); /* two references: the caller's and the node thread's; NULL: no memory */
/* Hands r to the node thread and waits for its answer. WIRE_OK: answered, r->code tells. WIRE_TIMEOUT: not in time; the node
 * thread may still be at it. The caller's reference is dropped by the caller. */
int request_ask(struct shell_node *n, struct request *r, uint64_t deadline_us, struct wire_err *err);
void request_post(struct shell_node *n, struct request *r); /* the same, but nobody waits: takes both references */
void request_drop(struct shell_node *n, struct request *r);
int node_closed(struct shell_node *n, struct wire_err *err); /* mu held; WIRE_CLOSED and why */
/* reads.c: of vfs_node_ops */
int node_read_gate(void *node, const struct vfs_read_want *want, uint32_t timeout_ms, bool *ret_waited, struct wire_err *err);
int node_wait_published(void *node, uint64_t index, uint32_t timeout_ms, struct wire_err *err);
bool node_lease_used(struct shell_node *n, uint64_t now_us); /* node thread: since the last call, or it is to be kept anyway */
/* All that was acknowledged by anybody until at_us (leases' clock) is at or below index. mu held. */
void node_fresh_learn(struct shell_node *n, uint64_t at_us, uint64_t index);
/* lag_news.c */
void node_lag_commit(struct node_commits *c, uint64_t commit, uint64_t now_us);
/* For how long, at `when_us`, the entry behind `applied` had been committed; 0: it was not, as far as is remembered. */
uint64_t node_lag_behind_us(const struct node_commits *c, uint64_t applied, uint64_t when_us);
void node_lag_put(const struct node_lag *lag, struct wire_buf *b);
int node_lag_get(const void *p, size_t size, struct node_lag *ret_lag, struct wire_err *err); /* WIRE_CORRUPT; at_us, term and leader are 0 */
const struct node_lag_row *node_lag_row(const struct node_lag *lag, uint64_t id); /* NULL: it has none */
/* lag.c; node thread */
void node_lag_heard(struct shell_node *n, const struct wire_msg *m); /* each message of the core */
void node_lag_tick(struct shell_node *n, uint64_t now_us);
void node_lag_msg(struct shell_node *n, const struct wire_link_msg *m);
/* mu held: the highest index that this node knows to be committed; and "; better try URL, ..." for an error's end, or "". */
uint64_t node_known_commit(const struct shell_node *n);
void node_lag_hint(const struct shell_node *n, char dst[NODE_HINT_BYTES]);
/* settle.c; mu held */
int node_handle_requests(struct shell_node *n, struct request *list); /* node thread; takes the list's references */
int node_handle_held(struct shell_node *n);
void node_drop_held(struct shell_node *n); /* mu held */

void request_unref(struct request *r);
void node_settle(struct request *r, int code, uint64_t index);
void node_settle_pending(struct shell_node *n);
void node_settle_reads(struct shell_node *n, const struct raft_update *u);
void node_pending_add(struct shell_node *n, struct pending *p); /* owned from now on */
void node_pending_remove(struct shell_node *n, uint64_t index);

void entry_cache_put(struct entry_cache *c, const struct wire_entry *e);
const struct cache_slot *entry_cache_get(const struct entry_cache *c, uint64_t index, uint64_t term);
void entry_cache_drop_from(struct entry_cache *c, uint64_t index);
void entry_cache_free(struct entry_cache *c);

#endif
