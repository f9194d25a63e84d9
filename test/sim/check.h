/* The properties, numbered as in the documentation. Each file check_*.c holds one, with what it must remember; here is what
 * they share: the log as it was committed, seen from outside of all nodes. A violation ends the run (sim_fail). */
#ifndef TEST_SIM_CHECK_H
#define TEST_SIM_CHECK_H

#include "test/sim/sim.h"
#include <stdio.h>

struct committed { /* by index */
	uint64_t term, chain, hash; /* hash: of the state machine after it */
	uint64_t told_term;         /* of the node that published it first: it was committed in that one or before */
	uint32_t config;            /* number of the configuration in force */
};

/* A configuration without addresses. */
struct members {
	bool joint;
	uint8_t level;
	struct raft_quorums quorums, old_quorums;
	uint32_t n;
	struct { uint64_t id; uint8_t flags, priority; } m[RAFT_MEMBERS_MAX];
};

struct vote { uint64_t term, voter, candidate; };

struct node_config { uint64_t index; struct members m; };

struct attempt { /* a proposal of a client */
	uint64_t seq, index; /* index: where it was committed; 0: not */
	uint32_t client, key;
	int told;            /* WIRE_OK, WIRE_LOST, or WIRE_UNKNOWN as long as nobody was told anything definite */
};

struct version { uint64_t index, value, list; };
struct key_history { /* of one key: each write that took effect */
	struct version *v; /* v[0]: before the first */
	size_t n, cap;
	uint64_t seen;     /* the latest version that a completed operation has seen or made */
};

struct happened { /* of a client's operation: its invocation or its end (enum lin_type) */
	uint64_t at_us, value;
	uint8_t client, type, key;
	bool write;
};

struct known { uint64_t index, term, chain, owner; }; /* owner: who may write another one yet, see check_i2 */
struct lost_member { uint64_t id, dur_index; struct log_link *log; };

struct check {
	struct committed *committed;
	size_t cap_committed;
	uint64_t last; /* latest index that any node has published */
	struct members *configs;
	size_t n_configs, cap_configs;
	struct machine machine;

	uint64_t *leaders; /* by term: id */
	size_t cap_leaders;
	struct known *known; /* a hash table of (index, term) */
	size_t n_known, cap_known;
	struct attempt *attempts;
	size_t n_attempts, cap_attempts;
	struct key_history keys[MACHINE_KEYS];
	uint64_t made[MACHINE_CLIENTS]; /* version that the client's latest write made */
	struct happened *history;
	size_t n_history, cap_history;
	struct vote *votes; /* that were sent */
	size_t n_votes, cap_votes;
	struct lost_member *lost;
	size_t n_lost, cap_lost;
};

/* ---- check.c ---- */
void check_new(struct sim *s, const struct raft_config *first);
void check_free(struct sim *s);
uint64_t check_chain(uint64_t before, uint64_t term, uint8_t kind, uint64_t sum, uint32_t size);
void check_members(const struct raft_config *c, struct members *ret);
/* A node published its entry `index`; the first that does so extends the committed log. */
void check_published(struct sim_node *n, uint64_t index, const struct wire_entry *e);
/* Whether commit quorums of the configuration have the log up to index, with that chain, on their disks. old_half: also of the
 * outgoing one when it is joint. */
bool check_quorum_durable(struct sim *s, const struct members *c, bool old_half, uint64_t index, uint64_t chain);

/* I1 */ void check_i1_leader(struct sim_node *n, uint64_t term);
/* Its quorums, by check_quorums.c alone. */
uint32_t check_quorum_size(const struct members *c, bool old_half, bool elect);
void check_quorums_config(struct sim_node *n, uint64_t index, const struct members *c);
void check_quorums_vote(struct sim_node *n, const struct wire_msg *m);
void check_quorums_elected(struct sim_node *n);
/* I2 */ void check_i2_appended(struct sim_node *n, uint64_t index);
/*    */ void check_i2_recovered(struct sim_node *n, uint64_t index); /* must have been seen before */
/*    */ uint64_t check_i2_chain(struct sim *s, uint64_t index, uint64_t term); /* of the log with that entry; 0: nobody ever had one */
/* I3 */ void check_i3_complete(struct sim_node *n);
/* I4 */ void check_i4_same(struct sim_node *n, uint64_t index);
/* I5 */ void check_i5_acked(struct sim *s, uint64_t index);
/*    */ void check_i5_wiped(struct sim_node *n); /* its disk is about to be lost; what it had counts as kept by the dead */
/* What a restart found. False: a damaged tail was cut, which no later record attests; the node counts as lost. */
bool check_i10_recovered(struct sim_node *n, const struct raft_journal_state *st);
/* I7: of a client's operation; floor: what it must at least see. */
uint64_t check_i7_invoked(struct sim *s, uint32_t key);
void check_i7_wrote(struct sim *s, uint32_t client, uint32_t key, uint64_t floor);
void check_i7_read(struct sim_node *n, uint32_t key, uint64_t floor);
void check_i7_applied(struct sim *s, const struct machine_op *op, uint64_t index);
/* I7, by the clients' history alone. value: what is written, or was read; code: WIRE_OK, or else nobody knows (of a write). */
#define CHECK_LINEAR "I7 linearizable history of the clients"
void check_linear_invoked(struct sim *s, uint32_t client, bool write, uint32_t key, uint64_t value);
void check_linear_ended(struct sim *s, uint32_t client, int code, uint64_t value);
void check_linear(struct sim *s);                          /* at the end of a run */
void check_linear_write(const struct sim *s, FILE *f);     /* as JSON lines for test/lin */
/* I8 */ uint64_t check_i8_attempt(struct sim *s, uint32_t client, uint32_t key, uint64_t seq);
void check_i8_committed(struct sim *s, const struct machine_op *op, uint64_t index);
void check_i8_told(struct sim *s, uint64_t attempt, int code, uint64_t index);
/* I9 */ void check_i9_message(struct sim_node *n, const struct wire_msg *m, uint64_t mark);
/*    */ void check_i9_publish(struct sim_node *n, uint64_t index);
/* I9, of nodes that have forgotten */
void check_forgetful_begins(struct sim_node *n);
void check_forgetful_message(struct sim_node *n, const struct wire_msg *m);
void check_forgetful_ends(struct sim_node *n); /* it says so */
/* Entries whose data the disk has lost */
void check_holes_message(struct sim_node *n, const struct wire_msg *m);
void check_holes_filled(struct sim_node *n, const struct wire_entry *e);
/* I5, of witnesses; trimmed: its journal */
void check_witness_trimmed(struct sim_node *n);
void check_witness_told(struct sim_node *n, const struct raft_update *u);
/* Levels: a configuration was appended */
void check_level_config(struct sim_node *n, uint64_t index, const struct members *c);
bool check_has_durable(struct sim *s, uint64_t id, uint64_t index, uint64_t chain); /* it has, or had when its disk was lost */
/* I11 */ void check_i11_elected(struct sim_node *n);
/*     */ void check_i11_told(struct sim_node *n, const struct wire_msg *m);
/* I12 */ void check_i12_message(struct sim_node *n, const struct wire_msg *m);
/* I13 */ void check_i13_appended(struct sim_node *n, const struct wire_entry *e);
/*     */ void check_i13_in_force(struct sim_node *n);
/* Faults have stopped: the group works again within a bound. */
void check_live(struct sim *s);
/* What of a node's log is durable by now, as its disk says. */
void check_refresh(struct sim_node *n);

#endif
