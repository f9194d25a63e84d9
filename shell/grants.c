/* The leader's side of writing on other nodes: tickets of theirs in the queue of the write lock, grants, and entries under them.
 *
 * A ticket is QUEUED in the queue of the write lock (an asynchronous one, vfs/wlock.h), has the lock once it is HANDED it, and becomes a GIVEN grant when all of this leader's log is published here, and it is
 * certain to lead: the grant names the position. By the first entry that closes a transaction it is CLOSING, and keeps the lock until that entry is published here.
 * It ends before that when its asker says so, is not heard of for LAPSE_US, has started anew, or this node's leadership ends. Then no entry is proposed under it any more. */
#include "shell/grants_impl.h"
#include "shell/node_impl.h"
#include "vfs/wlock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAPSE_US 800000u  /* an asker that is not heard of for so long is gone */
#define LOOK_US 10000u    /* while tickets wait: what has lapsed before them does not tell */
#define ANSWER_US 1000000u /* so long a first answer may wait for a lock that is about to be free */
#define END_US 500000u     /* and a connection here */

static struct vfs_wlock *wlock(struct shell_node *n)
{
	return vfs_db_wlock(n->db);
}

/* --- tickets; mu held --- */

static struct grant_ticket *find(struct shell_node *n, uint64_t node, uint64_t id)
{
	struct grant_ticket *t = n->grants.first;

	while (t && (t->node != node || t->id != id))
		t = t->next;
	return t;
}

static void unlink_ticket(struct shell_node *n, struct grant_ticket *t)
{
	struct grant_ticket **at = &n->grants.first;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	atomic_fetch_sub(&n->grants.count, 1);
}

static void add_ticket(struct shell_node *n, struct grant_ticket *t)
{
	struct grant_ticket **at = &n->grants.first;

	while (*at)
		at = &(*at)->next;
	*at = t;
	atomic_fetch_add(&n->grants.count, 1);
}

/* --- without mu --- */

/* Of a ticket that is in the list no more: what it has of the lock goes to others. */
static void let_go(struct shell_node *n, struct grant_ticket *t)
{
	vfs_wlock_forget(wlock(n), t);
	if (t->round) {
		pthread_mutex_lock(&n->mu);
		request_unref(t->round);
		pthread_mutex_unlock(&n->mu);
	}
	free(t);
}

/* Ends all of a node's tickets (0: of all nodes) for which over() holds. */
static void end_if(struct shell_node *n, uint64_t node, bool (*over)(const struct grant_ticket *t, const void *arg), const void *arg)
{
	for (;;) {
		struct grant_ticket *t;

		pthread_mutex_lock(&n->mu);
		t = n->grants.first;
		while (t && ((node && t->node != node) || !over(t, arg)))
			t = t->next;
		if (t)
			unlink_ticket(n, t);
		pthread_mutex_unlock(&n->mu);
		if (!t)
			return;
		let_go(n, t);
	}
}

/* What was proposed keeps the lock. */
static bool is_open(const struct grant_ticket *t, const void *unused)
{
	(void)unused;
	return t->state < GRANT_CLOSING;
}

/* But for those that another thread lets go of just now. */
static bool is_any(const struct grant_ticket *t, const void *unused)
{
	(void)unused;
	return t->state != GRANT_LEAVING;
}

static bool is_of_other_base(const struct grant_ticket *t, const void *base)
{
	return t->state < GRANT_CLOSING && t->id >> 32 != *(const uint64_t *)base;
}

void node_grants_end_all(struct shell_node *n)
{
	for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++)
		n->grants.asker[i] = (struct grants_asker){ 0 };
	if (!n->db)
		return;
	end_if(n, 0, is_any, NULL);
	vfs_wlock_void(wlock(n));
}

/* Whoever sends is alive. base 0: the message does not tell. */
static void heard(struct shell_node *n, uint64_t node, uint64_t base)
{
	struct grants_asker *a = n->grants.asker, *end = a + RAFT_MEMBERS_MAX, *place = NULL;

	for (; a < end && a->node != node; a++)
		if (!a->node && !place)
			place = a;
	if (a == end) {
		if (!place || !base)
			return; /* more than can be members: those of earlier ones lapse */
		a = place;
		*a = (struct grants_asker){ .node = node, .base = base };
	}
	a->heard_us = node_now_us(n);
	if (base && a->base != base) {
		a->base = base;
		end_if(n, node, is_of_other_base, &base);
	}
}

/* --- answers --- */

void grants_refuse(struct shell_node *n, const struct wire_msg *q, uint8_t type, int code, const char *why)
{
	struct wire_msg m = { .type = type, .flags = WIRE_MSG_REJECT, .corr = q->corr, .hint = (uint64_t)code, .term = q->term, .log_term = q->log_term, .commit = q->commit };

	snprintf(m.text, sizeof m.text, "%s", why);
	node_send(n, q->from, &m);
}

static void tell_queued(struct shell_node *n, struct grant_ticket *t)
{
	struct wire_msg q = { .from = t->node, .corr = t->id };

	t->answered = true;
	grants_refuse(n, &q, WIRE_MSG_LOCK_RESP, WIRE_BUSY, "");
}

static void tell_given(struct shell_node *n, struct grant_ticket *t)
{
	struct wire_msg m = { .type = WIRE_MSG_LOCK_RESP, .corr = t->id, .term = n->shared.term, .index = t->position, .log_term = t->number, .hint = n->env->wall_us(n->env->ctx) };

	t->answered = true;
	node_send(n, t->node, &m);
}

/* --- from the lock to the grant --- */

/* All that this leader has is published: what the asker then has published, too, is the base of its transaction. */
static bool is_settled(const struct shell_node *n) /* mu held */
{
	return !n->stop && !n->failed && n->shared.role == RAFT_LEADER && n->shared.leader_ready && !n->shared.transfer_to && !n->proposing &&
	       vfs_db_published(n->db) == n->shared.last_index;
}

/* A transaction reads under its grant alone: whoever gives it must lead. With a lease it does, else a round of heartbeats tells. False: not known yet. */
static bool leads_for_sure(struct shell_node *n, struct grant_ticket *t)
{
	struct raft_event ev = { .type = RAFT_EV_READ };
	struct request *r = t->round;
	uint64_t index;
	bool done = false, sure = false;

	if (node_lease_covers(n, &index))
		return true;
	if (r) {
		pthread_mutex_lock(&n->mu);
		done = r->done;
		sure = done && r->code == WIRE_OK;
		if (done)
			request_unref(r);
		pthread_mutex_unlock(&n->mu);
		if (done)
			t->round = NULL;
		if (sure || !done)
			return sure;
	}
	t->round = r = request_new(REQUEST_READ);
	if (!r)
		return false; /* it is tried again */
	pthread_mutex_lock(&n->mu);
	ev.corr = r->corr = ++n->next_corr;
	pthread_mutex_unlock(&n->mu);
	*n->reads_tail = r;
	n->reads_tail = &r->next;
	(void)node_step(n, &ev, NULL, NULL); /* a failure ends the node */
	return false;
}

static void try_give(struct shell_node *n, struct grant_ticket *t)
{
	struct raft_event tell = { .type = RAFT_EV_TELL };
	struct node_grants *g = &n->grants;
	bool settled;

	pthread_mutex_lock(&n->mu);
	settled = is_settled(n);
	pthread_mutex_unlock(&n->mu);
	if (!settled || !leads_for_sure(n, t))
		return;
	pthread_mutex_lock(&n->mu);
	settled = is_settled(n);
	if (settled) {
		t->position = n->shared.last_index;
		t->number = shell_txid_next(&n->txids, n->shared.term, t->position, t->txid);
		t->state = GRANT_GIVEN;
		if (g->used_term != n->shared.term) {
			memset(g->used, 0, sizeof g->used);
			g->used_term = n->shared.term;
			g->used_forgotten = 0;
		}
	}
	pthread_mutex_unlock(&n->mu);
	if (!settled)
		return;
	tell.peer = t->node;
	tell.index = t->position;
	tell_given(n, t);
	/* It has to publish all that. Last: t may not survive it, as a step may end the leadership. */
	(void)node_step(n, &tell, NULL, NULL);
}

/* Nobody writes any more, and yet the lock is not free: what another node has committed, as its connection may know already, is being published here. That is nothing to tell a writer
 * of. holder: of the write lock. mu held. */
static bool is_being_published(const struct shell_node *n, const void *holder)
{
	for (const struct grant_ticket *t = n->grants.first; t; t = t->next)
		if (t->state >= GRANT_CLOSING && t == holder)
			return t->last_index <= n->shared.commit;
	return false;
}

/* The same, or this node restarts its WAL. mu held. */
static bool is_ending(const struct shell_node *n, const void *holder)
{
	return holder == n->db || is_being_published(n, holder);
}

/* The end of a restart is not waited for: it waits for readers, of whom this one is. */
bool node_grants_await_end(struct shell_node *n, const void *who)
{
	const void *holder = vfs_wlock_holder(wlock(n));
	bool ending;

	pthread_mutex_lock(&n->mu);
	ending = is_being_published(n, holder);
	pthread_mutex_unlock(&n->mu);
	if (ending)
		(void)vfs_wlock_sleep(wlock(n), who, END_US);
	return ending;
}

/* --- messages --- */

/* It waits for its first answer. */
static void see_to(struct shell_node *n, struct grant_ticket *t)
{
	const void *holder;
	bool ending;

	do {
		holder = vfs_wlock_holder(wlock(n));
		pthread_mutex_lock(&n->mu);
		if (t->state == GRANT_QUEUED && t == holder)
			t->state = GRANT_HANDED;
		ending = !holder || is_ending(n, holder);
		pthread_mutex_unlock(&n->mu);
	} while (!ending && t->state == GRANT_QUEUED && vfs_wlock_holder(wlock(n)) != holder);
	if (t->state == GRANT_HANDED)
		try_give(n, t);
	else if (!t->answered && (!ending || node_now_us(n) > t->asked_us + ANSWER_US))
		tell_queued(n, t);
}

static struct grant_ticket *new_ticket(struct shell_node *n, const struct wire_msg *m)
{
	struct grant_ticket *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	*t = (struct grant_ticket){ .node = m->from, .id = m->corr, .asked_us = node_now_us(n) };
	pthread_mutex_lock(&n->mu);
	add_ticket(n, t);
	pthread_mutex_unlock(&n->mu);
	return t;
}

void grants_end(struct shell_node *n, struct grant_ticket *t)
{
	pthread_mutex_lock(&n->mu);
	unlink_ticket(n, t);
	pthread_mutex_unlock(&n->mu);
	let_go(n, t);
}

static void on_lock_req(struct shell_node *n, const struct wire_msg *m)
{
	enum grant_state state = GRANT_CLOSING;
	struct grant_ticket *t;

	if (n->shared.role != RAFT_LEADER || !n->db || n->store->witness) {
		grants_refuse(n, m, WIRE_MSG_LOCK_RESP, WIRE_NOTLEADER, "it does not lead");
		return;
	}
	pthread_mutex_lock(&n->mu);
	t = find(n, m->from, m->corr);
	if (t)
		state = t->state; /* a CLOSING one may be gone at any moment, others end on this thread */
	pthread_mutex_unlock(&n->mu);
	if (t) { /* asked again: an answer may have been lost */
		if (state == GRANT_QUEUED && t->answered)
			tell_queued(n, t);
		else if (state == GRANT_GIVEN)
			tell_given(n, t);
		return;
	}
	t = new_ticket(n, m);
	if (!t) {
		grants_refuse(n, m, WIRE_MSG_LOCK_RESP, WIRE_NOMEM, "the leader is short of memory");
		return;
	}
	switch (vfs_wlock_ask(wlock(n), t)) {
	case VFS_WLOCK_HELD:
		pthread_mutex_lock(&n->mu);
		t->state = GRANT_HANDED;
		pthread_mutex_unlock(&n->mu);
		try_give(n, t);
		break;
	case VFS_WLOCK_QUEUED:
		see_to(n, t);
		break;
	case VFS_WLOCK_NOMEM:
		grants_end(n, t);
		grants_refuse(n, m, WIRE_MSG_LOCK_RESP, WIRE_NOMEM, "the leader is short of memory");
		break;
	}
}

static bool is_named(const struct wire_msg *m, uint64_t id)
{
	struct wire_in in = wire_in_make(m->data, m->data_len);

	while (wire_in_left(&in))
		if (wire_get_varint(&in) == id && !in.bad)
			return true;
	return false;
}

static bool is_left_out(const struct grant_ticket *t, const void *keep)
{
	const struct wire_msg *m = keep;

	return t->state < GRANT_CLOSING && t->id <= m->index && !is_named(m, t->id);
}

static void on_keep(struct shell_node *n, const struct wire_msg *m)
{
	struct wire_msg a = { .type = WIRE_MSG_LOCK_KEEP, .flags = WIRE_MSG_REJECT, .corr = m->corr };
	struct wire_in in = wire_in_make(m->data, m->data_len);
	struct wire_buf unknown = WIRE_BUF_INIT;

	end_if(n, m->from, is_left_out, m);
	pthread_mutex_lock(&n->mu);
	while (wire_in_left(&in)) {
		uint64_t id = wire_get_varint(&in);

		if (!in.bad && (n->shared.role != RAFT_LEADER || !find(n, m->from, id)))
			wire_put_varint(&unknown, id);
	}
	pthread_mutex_unlock(&n->mu);
	a.data = unknown.data;
	a.data_len = (uint32_t)unknown.len;
	if (!unknown.failed)
		node_send(n, m->from, &a);
	wire_buf_free(&unknown);
}

static void on_end(struct shell_node *n, const struct wire_msg *m)
{
	struct grant_ticket *t;

	pthread_mutex_lock(&n->mu);
	t = find(n, m->from, m->corr);
	if (t && t->state >= GRANT_CLOSING)
		t = NULL;
	if (t)
		unlink_ticket(n, t);
	pthread_mutex_unlock(&n->mu);
	if (t)
		let_go(n, t);
}

int node_grants_msg(struct shell_node *n, const struct wire_link_msg *lm)
{
	const struct wire_msg *m = &lm->msg;

	if (lm->guest || m->group != n->conf.group || m->to != n->conf.node || !raft_config_find(raft_config_current(n->raft), m->from))
		return WIRE_OK;
	if (m->flags & WIRE_MSG_REJECT || m->type == WIRE_MSG_LOCK_RESP || m->type == WIRE_MSG_PROPOSE_RESP) {
		node_forward_msg(n, lm);
		return WIRE_OK;
	}
	if (m->type == WIRE_MSG_PROPOSE_REQ) {
		heard(n, m->from, 0);
		return node_grants_propose(n, m);
	}
	heard(n, m->from, (m->type == WIRE_MSG_LOCK_KEEP ? m->index : m->corr) >> 32);
	if (m->type == WIRE_MSG_LOCK_REQ)
		on_lock_req(n, m);
	else if (m->type == WIRE_MSG_LOCK_KEEP)
		on_keep(n, m);
	else if (m->type == WIRE_MSG_LOCK_END)
		on_end(n, m);
	return n->failed ? WIRE_CLOSED : WIRE_OK;
}

bool node_grants_holds(const struct shell_node *n, const uint8_t txid[VFS_TXID_BYTES])
{
	for (const struct grant_ticket *t = n->grants.first; t; t = t->next)
		if (t->state == GRANT_GIVEN && memcmp(t->txid, txid, VFS_TXID_BYTES) == 0)
			return true;
	return false;
}

/* --- now and then --- */

void node_grants_published(struct shell_node *n)
{
	struct grant_ticket *t;
	bool waits = false;

	if (!atomic_load(&n->grants.count))
		return;
	pthread_mutex_lock(&n->mu);
	for (t = n->grants.first; t && (t->state != GRANT_CLOSING || t->last_index > vfs_db_published(n->db)); t = t->next)
		waits |= t->state == GRANT_HANDED;
	if (t)
		t->state = GRANT_LEAVING;
	if (waits) {
		atomic_store(&n->side_look, true);
		pthread_cond_signal(&n->wake);
	}
	pthread_mutex_unlock(&n->mu);
	if (!t)
		return;
	/* In the list until the lock is free: who is asked meanwhile must see that it is about to be. */
	vfs_wlock_forget(wlock(n), t);
	pthread_mutex_lock(&n->mu);
	unlink_ticket(n, t);
	pthread_mutex_unlock(&n->mu);
	let_go(n, t);
}

static void handed(void *node) /* vfs/wlock.h */
{
	struct shell_node *n = node;

	pthread_mutex_lock(&n->mu);
	atomic_store(&n->side_look, true);
	pthread_cond_signal(&n->wake);
	pthread_mutex_unlock(&n->mu);
}

static void lapse(struct shell_node *n, uint64_t now_us)
{
	for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
		struct grants_asker *a = &n->grants.asker[i];

		if (!a->node || now_us < a->heard_us + LAPSE_US)
			continue;
		end_if(n, a->node, is_open, NULL);
		*a = (struct grants_asker){ 0 };
	}
}

/* Each of those that wait for an answer, or for what must be so before the grant. Only this thread makes them, and ends any but CLOSING ones. */
static bool see_to_waiting(struct shell_node *n)
{
	const void *holder = vfs_wlock_holder(wlock(n));
	struct { uint64_t node, id; } waiting[64];
	size_t count = 0;
	bool queued = false;

	pthread_mutex_lock(&n->mu);
	for (struct grant_ticket *t = n->grants.first; t; t = t->next) {
		queued |= t->state == GRANT_QUEUED || t->state == GRANT_HANDED;
		if (count < 64 && (t->state == GRANT_HANDED || (t->state == GRANT_QUEUED && (t == holder || !t->answered))))
			waiting[count].node = t->node, waiting[count++].id = t->id;
	}
	pthread_mutex_unlock(&n->mu);
	for (size_t i = 0; i < count; i++) {
		struct grant_ticket *t;

		pthread_mutex_lock(&n->mu);
		t = find(n, waiting[i].node, waiting[i].id); /* seeing to the ones before may have ended this node's leadership, and all of them */
		pthread_mutex_unlock(&n->mu);
		if (t)
			see_to(n, t);
	}
	return queued;
}

static uint64_t run(struct shell_node *n, uint64_t now_us)
{
	bool queued;

	if (!atomic_load_explicit(&n->grants.count, memory_order_relaxed) || !n->db)
		return UINT64_MAX;
	lapse(n, now_us);
	node_grants_published(n);
	vfs_wlock_settle(wlock(n));
	queued = see_to_waiting(n);
	return now_us + (queued ? LOOK_US : LAPSE_US / 8);
}

void node_grants_run(struct shell_node *n)
{
	const uint64_t now = node_now_us(n), leader = run(n, now), asker = node_forward_run(n, now);

	n->side_due_us = leader < asker ? leader : asker;
}

void node_grants_open(struct shell_node *n)
{
	vfs_wlock_on_handed(wlock(n), handed, n);
	vfs_db_set_writes_far(n->db, atomic_load(&n->forward.away));
}

void node_grants_close(struct shell_node *n)
{
	if (n->db)
		end_if(n, 0, is_any, NULL);
}
