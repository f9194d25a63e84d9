/* Cores in memory, driven by text: one command a line comes in, one JSON answer a line goes out (README.md has the
 * commands). Nothing happens by itself: no clock runs, no message travels, no disk works unless a command says so, and
 * the same commands give the same answers each time.
 *
 *   adapter.c       lines, arguments, the commands
 *   adapter_node.c  a node: its core, its clock, its disk, what it applied
 *   adapter_net.c   messages that wait, their delivery, images of what is trimmed
 *   adapter_show.c  answers as JSON */
#ifndef TEST_SCRIPT_ADAPTER_H
#define TEST_SCRIPT_ADAPTER_H

#include "raft/raft.h"
#include <stdio.h>

#define NODES_MAX 64u
#define HEARTBEAT_US 100000u
#define ELECTION_US (10 * HEARTBEAT_US) /* `tick ID 10` */

/* Entries with their data, both owned. */
struct entries {
	struct wire_entry *e;
	size_t n, cap;
};

/* What a log, its base and the hard state are, in memory or on the disk. */
struct store {
	uint64_t term, vote, base_index, base_term;
	struct raft_config base_config;
	struct entries log; /* base_index+1 .. */
};

/* All that was applied up to an entry, as one node gives it to another that needs what is trimmed. */
struct image {
	uint64_t index, term;
	struct raft_config config;
	struct entries applied;
};

struct packet {
	const char *kind;
	struct wire_msg m;
	struct entries entries; /* where m.entries points */
	struct image *image;    /* kind "snapshot"; owned */
};

/* One write to the disk that has not ended, and what waits for it. */
struct write {
	bool real; /* else it writes nothing, but its messages wait for the writes before it */
	bool hard;
	uint64_t term, vote, truncate_from;
	struct entries entries;
	struct image *image;
	uint64_t image_from;
	struct packet *after;
	size_t n_after, cap_after;
};

struct pending_read { uint64_t corr, index; bool granted; };

struct options { bool no_prevote, no_check_quorum, lease; uint32_t window_msgs, append_bytes, catch_up_bytes; };

struct node {
	uint64_t id, now_us, lives;
	struct raft *raft; /* NULL: down */
	struct options options;
	struct raft_update u; /* the latest, without its pointers */
	struct store mem, disk;
	struct entries applied; /* of kind DATA; survives restarts, as a database does */
	uint64_t applied_index;
	bool hold, fail_next, forgetful;
	struct write *writes;
	size_t n_writes, cap_writes;
	struct pending_read *reads;
	size_t n_reads, cap_reads;
};

enum { PLAN_MAX = 64 };
enum change_kind { ADD, ADD_LEARNER, ADD_WITNESS, REMOVE, PROMOTE };
struct change { enum change_kind kind; uint64_t id; };
struct plan { uint32_t n; struct change what[PLAN_MAX]; };

struct world {
	struct node *nodes[NODES_MAX];
	size_t n_nodes;
	struct packet *net; /* in the order of sending */
	size_t n_net, cap_net;
	struct plan plan;   /* a change of members that begins once they have the log */
	bool begun;         /* a core was stepped */
	uint64_t corr;
	char refusal[512];  /* of the latest change of members, by the core */
	char broken[600];   /* why a core could not start, or has contradicted itself */
	bool failed;        /* a core has contradicted itself */
};
extern struct world world;

/* ---- adapter_node.c ---- */
void *grow(void *array, size_t *cap, size_t n, size_t elem); /* room for one more; ends the program when memory is short */
void entries_add(struct entries *l, const struct wire_entry *e);
void entries_cut(struct entries *l, uint64_t from); /* those at and above index `from` go */
void entries_copy(struct entries *to, const struct entries *from, uint64_t upto);
void entries_free(struct entries *l);
void image_free(struct image *i);

struct node *node_find(uint64_t id); /* NULL: not there */
struct node *node_new(uint64_t id, const struct store *disk, const struct options *o); /* takes the store; not started */
/* Starts the core from the disk. false: it refuses (text in world.broken). */
bool node_start(struct node *n);
void node_stop(struct node *n); /* what is not durable is lost */
void node_free(struct node *n);
/* The event, with the node's time; *ret_code and *ret_index are the answer to a proposal (may be NULL). Then the disk,
 * unless it holds, and the state machine do their work. */
void node_step(struct node *n, struct raft_event ev, int *ret_code, uint64_t *ret_index);
void node_tick(struct node *n, uint64_t us);
void node_timeout(struct node *n);
void node_release(struct node *n, size_t count); /* so many of the writes that wait */
size_t node_writes(const struct node *n);
void node_read(struct node *n);
void node_write_image(struct node *n, struct image *i, uint64_t from); /* takes the image */
void node_compact(struct node *n, uint64_t index); /* first index < index+1 <= applied */
void node_config_at(const struct node *n, uint64_t index, struct raft_config *ret_config); /* in force there */
const struct wire_entry *node_entry(const struct node *n, uint64_t index); /* in memory */

/* ---- adapter_net.c ---- */
void packet_free(struct packet *p);
void packet_make(struct packet *p, struct node *n, const struct wire_msg *m);
void net_send(struct packet *p); /* takes it */
void net_offer_images(struct node *n);
void net_image_done(struct node *n, uint64_t leader);
bool net_match(const struct packet *p, uint64_t from, uint64_t to, const char *kind);
struct packet net_take(size_t i);
bool net_deliver(struct packet *p); /* takes it; false: the node is down, it is lost */
bool net_known_kind(const char *kind);
void net_forget(void);

/* ---- adapter.c: the words of a line; `at` is the next to be looked at ---- */
enum { ARGS_MAX = 80 };

struct line {
	char *arg[ARGS_MAX];
	int n, at;
	bool wrong;
};

/* Each takes a word. When it is not as it should be the answer is an error, and `wrong` is set. */
bool line_wrong(struct line *l, const char *what, const char *arg);
bool line_number(const char *s, uint64_t *ret_v);
uint64_t line_id(struct line *l);
struct node *line_node(struct line *l);
struct node *line_live(struct line *l);
uint64_t line_count(struct line *l, uint64_t standard);
char *line_option(struct line *l, const char *key);
bool line_ended(struct line *l);
uint32_t line_ids(struct line *l, char *s, uint64_t *ret_ids, uint32_t max);
bool line_flag(struct line *l, const char *v);
void line_option_number(struct line *l, const char *v, uint64_t *ret);

/* ---- adapter_new.c, adapter_cmd.c ---- */
void cmd_new(struct line *l);
void cmd_tick(struct line *l);
void cmd_timeout(struct line *l);
void cmd_propose(struct line *l);
void cmd_conf(struct line *l);
void cmd_transfer(struct line *l);
void cmd_read(struct line *l);
void cmd_queue(struct line *l);
void cmd_deliver(struct line *l);
void cmd_drop(struct line *l);
void cmd_settle(struct line *l);
void cmd_unreachable(struct line *l);
void cmd_reachable(struct line *l);
void cmd_persist(struct line *l);
void cmd_restart(struct line *l);
void cmd_compact(struct line *l);
void cmd_state(struct line *l);
void cmd_log(struct line *l);
void cmd_applied(struct line *l);

bool plan_target(const struct node *n, struct raft_config *ret_target); /* the plan can be tried on this leader now */

/* ---- adapter_show.c ---- */
void show_ok(void);
void show_text(const char *s, size_t n);
void show_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void show_id(const char *key, uint64_t id); /* ,"key":id or null */
void show_state(const struct node *n);
void show_log(const struct node *n, bool kinds);
void show_entries(const struct entries *l, uint64_t upto, bool kinds);
void show_queue(uint64_t from, uint64_t to);
void show_read(const struct node *n, uint64_t index);
void show_read_refused(const struct node *n, const char *why);
bool valid_utf8(const char *s);

#endif
