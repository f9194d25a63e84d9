/* Shared by forward.c (tickets), forward_keep.c (what the leader says of them, and what is left) and forward_entry.c (entries) only. All under the node's mu. */
#ifndef SHELL_FORWARD_IMPL_H
#define SHELL_FORWARD_IMPL_H

#include "shell/node_impl.h"

#define FORWARD_KEEP_US 200000u       /* so often the leader hears of the tickets */
#define FORWARD_TICKS_US 1000000u /* the node thread looks on for so long after the last ticket */

enum forward_state { TICKET_ASKED, TICKET_QUEUED, TICKET_GRANTED, TICKET_TAKEN, TICKET_HELD, TICKET_VOID };

struct forward_ticket {
	struct forward_ticket *next;
	const void *who;
	enum forward_state state;
	unsigned users;   /* threads that wait on cond, or hold on to it without mu */
	unsigned asks;
	bool ahead;       /* HELD: by a read that is likely to write */
	bool local;       /* this node's own write lock is held in its name */
	bool closed;      /* what closes the transaction is committed: the leader lets go by itself */
	bool refused;     /* VOID, and not from a change of leaders: code and text tell */
	int code;
	char text[WIRE_TEXT_MAX + 1];
	uint64_t id, leader, term;
	uint64_t since_us; /* of its latest call, or of its grant */
	uint64_t kept;     /* the first LOCK_KEEP that was made after the grant; 0: none yet */
	uint64_t told_us;  /* when that was sent which the leader answered last */
	uint64_t number, index, epoch, wall_us, wall_at_us; /* of the grant */
	uint8_t txid[VFS_TXID_BYTES];
	pthread_cond_t cond;
};

/* An entry that went to the leader. */
struct forwarded {
	struct forwarded *next;
	struct request *req; /* a reference */
	uint64_t leader, term, number, corr, sent_us, sendings;
	uint8_t txid[VFS_TXID_BYTES];
};

struct forward_out { uint8_t type; uint64_t to, id; }; /* a message that waits until mu is free */
#define FORWARD_OUT_MAX 32u
struct forward_outbox { struct forward_out msg[FORWARD_OUT_MAX]; unsigned n; };

struct forward_ticket *forward_find_id(struct shell_node *n, uint64_t id);
void forward_make_void(struct shell_node *n, struct forward_ticket *t, int code, const char *text);
void forward_free_ticket(struct shell_node *n, struct forward_ticket *t); /* nobody else may use it any more, and it has no part of this node's own write lock */
void forward_release_local(struct shell_node *n, struct forward_ticket *t); /* gives that back; mu is let go of meanwhile */
void forward_say_end(struct forward_outbox *o, const struct forward_ticket *t);
void forward_send_out(struct shell_node *n, struct forward_outbox *o); /* mu is let go of meanwhile */

struct forward_ticket *forward_find_epoch(struct shell_node *n, uint64_t epoch);
/* Of another leader or term than the present one. */
bool forward_is_stale(const struct shell_node *n, const struct forward_ticket *t);
/* The node thread is to look after what there is. */
void forward_look_soon(struct shell_node *n, uint64_t now);
/* On a connection's thread; mu is let go of meanwhile. A node that ends closes its link only when nobody is at it. */
int forward_send(struct shell_node *n, uint64_t to, enum wire_lane lane, struct wire_msg *m);
int forward_may_ask(const struct shell_node *n, struct wire_err *err);

void forward_entry_answer(struct shell_node *n, const struct wire_msg *m); /* PROPOSE_RESP */
void forward_settle_entries(struct shell_node *n);
void forward_drop_entries(struct shell_node *n);
void forward_repeat(struct shell_node *n, uint64_t now); /* mu is let go of meanwhile */

#endif
