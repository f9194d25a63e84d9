/* A few nodes flown by hand, for scripted tests: time stands still unless moved, messages wait in one queue until they are
 * delivered, writes are durable at once unless held. Node ids are 1, 2, ... */
#ifndef TEST_UNIT_RAFT_PILOT_H
#define TEST_UNIT_RAFT_PILOT_H

#include "raft/raft.h"
#include "raft/telemetry.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { PILOT_NODES = 9, PILOT_LOG = 256, PILOT_QUEUE = 4096, PILOT_READS = 1024 };

struct pilot_entry { uint64_t term, sum; uint32_t size; uint8_t kind; bool hole; uint8_t data[600]; };
struct pilot_node {
	struct raft *raft;
	uint64_t term, vote, last, commit; /* as on disk */
	bool unpublished;                  /* when it starts again nothing counts as published */
	bool forgetful;                    /* the same: its disk was lost */
	struct pilot_entry log[PILOT_LOG]; /* by index */
	uint64_t preferred;                /* the latest update.prefer; 0: none yet */
	struct raft_config base_config;
	struct raft_update u; /* of its last step; pointers are cleared */
	bool hold;            /* PERSISTED is not stepped */
	int32_t rate_ppm;     /* its clock goes that much faster */
	bool absolute, unsure; /* measures leases by true time, known to be within early_us below and late_us above */
	uint64_t early_us, late_us;
	struct raft_read reads[PILOT_READS];
	uint32_t n_reads;
	char refusal[512]; /* of the latest step; "" when there is none */
};
struct pilot_msg { struct wire_msg m; struct wire_entry *entries; };
struct pilot {
	uint64_t now_us;
	uint32_t count;
	struct pilot_node n[PILOT_NODES + 1]; /* by id */
	bool cut[PILOT_NODES + 1][PILOT_NODES + 1];
	bool deaf_to[WIRE_MSG_COUNT]; /* types that the network loses */
	struct pilot_msg q[PILOT_QUEUE];
	uint32_t n_q;
	struct raft_init knobs; /* timeouts and windows for nodes to come */
};

/* Not NULL: nodes that start have telemetry on, and after each step it is given what was told. */
extern void (*pilot_on_told)(uint64_t node, const struct raft_told *told, uint32_t n);

struct pilot *pilot_open(uint32_t voters, uint32_t others); /* others: with an empty configuration */
struct pilot *pilot_open_as(const struct raft_config *c, uint32_t count); /* its members know it, nodes besides have none */
struct pilot *pilot_open_no_leases(uint32_t voters, uint32_t others); /* so that reads need rounds */
struct pilot *pilot_open_led(uint32_t voters, uint32_t others); /* node 1 leads term 1, and all know what is committed */
void pilot_close(struct pilot *p);
/* Starts (again) what is on the node's disk. */
void pilot_start(struct pilot *p, uint64_t id);
void pilot_stop(struct pilot *p, uint64_t id);
/* Stops it, and takes all from its disk but its id; when it starts again it is forgetful. */
void pilot_wipe(struct pilot *p, uint64_t id);
/* Writes a log of data entries with these terms onto the disk of a stopped node; the current term is `term`. */
void pilot_log(struct pilot *p, uint64_t id, uint64_t term, const uint64_t *terms, uint32_t n);

uint64_t pilot_clock(const struct pilot *p, uint64_t id); /* what that node's clock shows */
void pilot_isolate(struct pilot *p, uint64_t id, bool cut); /* from all others; false: not any more */
void pilot_step(struct pilot *p, uint64_t id, struct raft_event ev);
void pilot_deliver(struct pilot *p, struct wire_msg m);     /* one message, now, not through the queue */
bool pilot_next(struct pilot *p);                           /* delivers the first of the queue; false: it is empty */
void pilot_damage(struct pilot *p, uint64_t id, uint64_t index); /* that entry's data cannot be read any more; the node is stopped */
void pilot_run(struct pilot *p);                            /* delivers until the queue is empty */
void pilot_wait(struct pilot *p, uint64_t us);              /* time passes: ticks when due, messages arrive */
void pilot_elect(struct pilot *p, uint64_t id);             /* long silence, then this node's timer is first */
int pilot_propose(struct pilot *p, uint64_t id, uint32_t n); /* n entries of 100 bytes; the answer's code */
int pilot_change(struct pilot *p, uint64_t id, const struct raft_config *c); /* the answer's code */
/* "vvl-": members 1, 2 voters, 3 learner, 4 none; w: a witness that votes, x: one that learns; the answer's code */
int pilot_config(struct pilot *p, uint64_t id, const char *flags);
void pilot_members(struct raft_config *c, const char *flags); /* such members, the level; the rest is left alone */
int pilot_transfer(struct pilot *p, uint64_t id, uint64_t peer); /* the answer's code */
void pilot_read(struct pilot *p, uint64_t id, uint64_t corr);
const struct raft_read *pilot_settled(struct pilot *p, uint64_t id, uint64_t corr); /* NULL: not yet */

/* The queue: the latest message of this type between these nodes, 0 for any; NULL when there is none. */
struct wire_msg *pilot_find(struct pilot *p, enum wire_msg_type type, uint64_t from, uint64_t to);
uint32_t pilot_count(struct pilot *p, enum wire_msg_type type, uint64_t from, uint64_t to);
void pilot_drop_all(struct pilot *p);

#endif
