/* Writing on a node that does not lead, the asker's side: the write lock comes from the leader, the page set goes there, and this node's own log tells what became of it.
 *
 * A connection that asks gets a ticket, which the leader knows by its number: ASKED until the first answer, QUEUED while others go before it, GRANTED once the lock is there to take, TAKEN while this node makes
 * itself ready, HELD under a transaction. VOID: the leader, or the term, is another one, or the leader knows nothing of it. A connection has one at the most, and is in one call at a time; what nobody looks after
 * any more goes back. With the grant goes this node's own write lock (vfs/wlock.h), in the ticket's name: it keeps restarts of the WAL away. */
#include "shell/forward_impl.h"
#include "shell/node_impl.h"
#include "vfs/wlock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNTOLD_US 2000000u    /* a leader that has not answered for so long has most likely given the lock to others */
#define READY_MS 1000u        /* for this node's own write lock, once the grant is there */

void node_forward_init(struct shell_node *n)
{
	uint32_t base;

	n->env->random(n->env->ctx, &base, sizeof base);
	n->forward.base = (uint64_t)(base ? base : 1) << 32;
	n->forward.next_id = n->forward.base;
	/* Numbers of questions and proposals, too, are others than in an earlier life, whose answers may still be under way. */
	n->env->random(n->env->ctx, &n->next_corr, sizeof n->next_corr);
	n->next_corr >>= 2;
	atomic_store(&n->forward.away, true);
}

void node_forward_role(struct shell_node *n, enum raft_role role)
{
	const bool away = role != RAFT_LEADER;

	if (away == atomic_load(&n->forward.away))
		return;
	atomic_store(&n->forward.away, away);
	if (n->db)
		vfs_db_set_writes_far(n->db, away);
}

/* --- sending, on a connection's thread --- */

/* mu held, let go of meanwhile. A node that ends closes its link only when nobody is at it. */
int forward_send(struct shell_node *n, uint64_t to, enum wire_lane lane, struct wire_msg *m)
{
	int rc;

	if (n->stop || n->failed || !n->link)
		return WIRE_CLOSED;
	m->group = n->conf.group;
	m->from = n->conf.node;
	m->to = to;
	n->forward.sending++;
	pthread_mutex_unlock(&n->mu);
	rc = wire_link_send(n->link, to, lane, m);
	pthread_mutex_lock(&n->mu);
	if (--n->forward.sending == 0 && n->stop)
		pthread_cond_broadcast(&n->published_cond);
	return rc;
}

void node_forward_close(struct shell_node *n)
{
	pthread_mutex_lock(&n->mu);
	while (n->forward.sending)
		pthread_cond_wait(&n->published_cond, &n->mu);
	pthread_mutex_unlock(&n->mu);
}

/* --- tickets; mu held --- */

static struct forward_ticket *find(struct shell_node *n, const void *who)
{
	struct forward_ticket *t = n->forward.first;

	while (t && t->who != who)
		t = t->next;
	return t;
}

struct forward_ticket *forward_find_id(struct shell_node *n, uint64_t id)
{
	struct forward_ticket *t = n->forward.first;

	while (t && t->id != id)
		t = t->next;
	return t;
}

struct forward_ticket *forward_find_epoch(struct shell_node *n, uint64_t epoch)
{
	struct forward_ticket *t = n->forward.first;

	while (t && (t->state != TICKET_HELD || t->epoch != epoch))
		t = t->next;
	return t;
}

bool forward_is_stale(const struct shell_node *n, const struct forward_ticket *t)
{
	return t->term != n->shared.term || t->leader != n->shared.leader || n->shared.role == RAFT_LEADER;
}

void forward_look_soon(struct shell_node *n, uint64_t now)
{
	const bool asleep = n->forward.ticks_until_us < now + FORWARD_KEEP_US;

	n->forward.ticks_until_us = now + FORWARD_TICKS_US;
	if (asleep) {
		n->forward.keep_at_us = now + FORWARD_KEEP_US;
		atomic_store(&n->side_look, true);
		pthread_cond_signal(&n->wake);
	}
}

static struct forward_ticket *new_ticket(struct shell_node *n, const void *who, uint64_t now)
{
	struct forward_ticket *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	node_cond_init(&t->cond);
	t->who = who;
	t->id = ++n->forward.next_id;
	t->leader = n->shared.leader;
	t->term = n->shared.term;
	t->since_us = t->told_us = now;
	t->next = n->forward.first;
	n->forward.first = t;
	atomic_fetch_add(&n->forward.n_tickets, 1);
	forward_look_soon(n, now);
	return t;
}

/* Nobody else may use it any more. Its part of this node's own write lock must be gone. */
void forward_free_ticket(struct shell_node *n, struct forward_ticket *t)
{
	struct forward_ticket **at = &n->forward.first;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	atomic_fetch_sub(&n->forward.n_tickets, 1);
	pthread_cond_destroy(&t->cond);
	free(t);
}

void forward_make_void(struct shell_node *n, struct forward_ticket *t, int code, const char *text)
{
	if (t->state == TICKET_HELD)
		node_grants_void(n);
	t->state = TICKET_VOID;
	t->code = code;
	snprintf(t->text, sizeof t->text, "%s", text);
	pthread_cond_broadcast(&t->cond);
}

void forward_say_end(struct forward_outbox *o, const struct forward_ticket *t)
{
	if (o->n < FORWARD_OUT_MAX) /* else the leader learns it from the next LOCK_KEEP */
		o->msg[o->n++] = (struct forward_out){ WIRE_MSG_LOCK_END, t->leader, t->id };
}

void forward_send_out(struct shell_node *n, struct forward_outbox *o) /* mu held, let go of meanwhile */
{
	for (unsigned i = 0; i < o->n; i++) {
		struct wire_msg m = { .type = o->msg[i].type, .corr = o->msg[i].id };

		(void)forward_send(n, o->msg[i].to, WIRE_LANE_CONTROL, &m);
	}
	o->n = 0;
}

/* Gives this node's own write lock back, of which t has a part. mu is let go of meanwhile. */
void forward_release_local(struct shell_node *n, struct forward_ticket *t)
{
	if (!t->local)
		return;
	t->local = false;
	t->users++;
	pthread_mutex_unlock(&n->mu);
	vfs_wlock_release(vfs_db_wlock(n->db), t, false);
	pthread_mutex_lock(&n->mu);
	t->users--;
	pthread_cond_broadcast(&t->cond);
}

/* By the connection that it is of: also waits for others who are at it. mu is let go of meanwhile. */
static void dismiss(struct shell_node *n, struct forward_ticket *t)
{
	forward_release_local(n, t);
	while (t->users)
		pthread_cond_wait(&t->cond, &n->mu);
	forward_free_ticket(n, t);
}

/* --- asking --- */

int forward_may_ask(const struct shell_node *n, struct wire_err *err) /* mu held */
{
	const struct node_shared *s = &n->shared;

	if (n->stop || n->failed)
		return wire_fail(err, WIRE_CLOSED, "the node of %s has ended its part: %s", n->paths.db, n->failed ? n->failure : "it is being closed");
	if (s->removed)
		return wire_fail(err, WIRE_NOTLEADER, "this node was removed from its cluster, and can write no more: use another member, or walraft detach %s", n->paths.db);
	if (!s->leader || s->leader == n->conf.node)
		return wire_fail(err, WIRE_BUSY, "no leader is known: an election is under way, or this node is cut off from the majority");
	return WIRE_OK;
}

/* A ticket of who's that the leader has answered, or that is granted. mu held. */
static int ask_leader(struct shell_node *n, const void *who, unsigned flags, uint64_t deadline, struct forward_ticket **ret_ticket, bool *ret_new, struct wire_err *err)
{
	const uint64_t now = node_now_us(n);
	struct forward_ticket *t = find(n, who);
	int rc;

	if (t && (t->state == TICKET_VOID || forward_is_stale(n, t))) {
		dismiss(n, t);
		t = NULL;
	}
	rc = forward_may_ask(n, err);
	if (rc)
		return rc;
	*ret_new = !t;
	if (!t) {
		struct wire_msg m = { .type = WIRE_MSG_LOCK_REQ };

		t = new_ticket(n, who, now);
		if (!t)
			return wire_fail(err, WIRE_NOMEM, "no memory for asking for the write lock");
		m.corr = t->id;
		t->users++;
		rc = forward_send(n, t->leader, WIRE_LANE_CONTROL, &m);
		t->users--;
		if (rc) {
			dismiss(n, t);
			return wire_fail(err, WIRE_BUSY, "this node is not connected to the leader");
		}
	}
	t->asks += flags & VFS_WRITE_AHEAD ? 0 : 1; /* SQLite's own are what tells whether it comes back */
	t->since_us = now;
	t->users++;
	while (t->state == TICKET_ASKED && !forward_is_stale(n, t) && !n->stop && !n->failed && node_wait(n, &t->cond, deadline))
		;
	t->users--;
	*ret_ticket = t;
	return WIRE_OK;
}

/* Of a ticket that the leader has refused, or left without an answer; it goes. mu held. */
static int not_granted(struct shell_node *n, struct forward_ticket *t, struct forward_outbox *o, struct wire_err *err)
{
	const bool unanswered = t->state == TICKET_ASKED && !forward_is_stale(n, t) && !n->stop && !n->failed;
	int rc = forward_may_ask(n, err);

	if (t->state == TICKET_QUEUED && !forward_is_stale(n, t) && !rc) {
		if (err)
			*err = (struct wire_err){ .code = WIRE_BUSY };
		return WIRE_BUSY; /* and it stays */
	}
	if (!rc && unanswered) {
		forward_say_end(o, t);
		rc = wire_fail(err, WIRE_TIMEOUT, "the leader does not answer");
	} else if (!rc && t->refused && t->code != WIRE_NOTLEADER) {
		rc = wire_fail(err, WIRE_BUSY, "the leader gives no write lock: %s", t->text);
	} else if (!rc) {
		rc = wire_fail(err, WIRE_BUSY, "leadership is changing hands");
	}
	dismiss(n, t);
	return rc;
}

/* This node has all that was before the transaction, and its own write lock. mu held; let go of meanwhile. */
static int make_ready(struct shell_node *n, struct forward_ticket *t, uint64_t deadline, struct wire_err *err)
{
	uint64_t left_ms, now;
	bool had;

	t->state = TICKET_TAKEN;
	while (t->state == TICKET_TAKEN && !n->stop && !n->failed && vfs_db_published(n->db) < t->index && node_wait(n, &n->published_cond, deadline))
		;
	if (t->state == TICKET_TAKEN && vfs_db_published(n->db) < t->index)
		return n->stop || n->failed ? forward_may_ask(n, err) : wire_fail(err, WIRE_TIMEOUT, "this node is %llu entries behind the leader", (unsigned long long)(t->index - vfs_db_published(n->db)));
	now = node_now_us(n);
	left_ms = now < deadline ? (deadline - now) / 1000 + 1 : 1;
	t->users++;
	pthread_mutex_unlock(&n->mu);
	had = vfs_wlock_take(vfs_db_wlock(n->db), t, left_ms < READY_MS ? (uint32_t)left_ms : READY_MS);
	pthread_mutex_lock(&n->mu);
	t->users--;
	t->local = had;
	if (!had)
		return wire_fail(err, WIRE_BUSY, "this node is busy with its WAL");
	if (t->state != TICKET_TAKEN || forward_is_stale(n, t))
		return wire_fail(err, WIRE_BUSY, "leadership is changing hands");
	t->state = TICKET_HELD;
	t->epoch = NODE_FORWARD_EPOCH | ++n->forward.next_epoch;
	return WIRE_OK;
}

int node_forward_lock(struct shell_node *n, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err)
{
	const uint64_t deadline = node_now_us(n) + (uint64_t)timeout_ms * 1000;
	struct forward_ticket *t = NULL;
	struct forward_outbox o = { .n = 0 };
	bool fresh = false; /* an older ticket's grant may have been on its way for long, and be over: the leader does not wait for who is stopped */
	int rc;

	pthread_mutex_lock(&n->mu);
	rc = ask_leader(n, who, flags, deadline, &t, &fresh, err);
	if (!rc && t->state == TICKET_GRANTED && !forward_is_stale(n, t)) {
		rc = make_ready(n, t, deadline, err);
		if (rc) {
			forward_say_end(&o, t);
			dismiss(n, t);
		} else {
			t->ahead = true;
		}
	} else if (!rc && t->state != TICKET_HELD) {
		rc = not_granted(n, t, &o, err);
	}
	if (!rc) { /* HELD: now, or since it was asked for ahead */
		t->ahead = t->ahead && (flags & VFS_WRITE_AHEAD);
		t->since_us = node_now_us(n);
		*ret_grant = (struct vfs_grant){ .epoch = t->epoch, .fresh = fresh };
		memcpy(ret_grant->txid, t->txid, sizeof t->txid);
	}
	forward_send_out(n, &o);
	pthread_mutex_unlock(&n->mu);
	return rc;
}

bool node_forward_sleep(struct shell_node *n, const void *who, uint32_t us, uint32_t *ret_slept)
{
	const uint64_t start = node_now_us(n), deadline = start + us;
	struct forward_ticket *t;
	bool mine;

	if (!atomic_load(&n->forward.n_tickets) && !atomic_load(&n->forward.away))
		return false;
	pthread_mutex_lock(&n->mu);
	t = find(n, who);
	mine = t != NULL;
	if (t) {
		t->users++;
		while (t->state <= TICKET_QUEUED && !forward_is_stale(n, t) && !n->stop && !n->failed && node_wait(n, &t->cond, deadline))
			;
		t->users--;
		t->since_us = node_now_us(n);
	} else if (atomic_load(&n->forward.away)) { /* nobody to ask: until there is somebody, or the time is over */
		mine = !n->shared.leader && !n->stop && !n->failed;
		while (!n->stop && !n->failed && !n->shared.leader && node_wait(n, &n->published_cond, deadline))
			;
	}
	pthread_mutex_unlock(&n->mu);
	*ret_slept = (uint32_t)(node_now_us(n) - start);
	return mine;
}

bool node_forward_unlock(struct shell_node *n, const void *who, bool keep)
{
	struct forward_outbox o = { .n = 0 };
	struct forward_ticket *t;

	if (!atomic_load(&n->forward.n_tickets))
		return false;
	pthread_mutex_lock(&n->mu);
	t = find(n, who);
	if (t && t->state == TICKET_HELD && keep && !forward_is_stale(n, t)) {
		t->state = TICKET_GRANTED;
		t->asks = 2;
		t->since_us = node_now_us(n);
		forward_release_local(n, t);
	} else if (t) {
		if (!t->closed)
			forward_say_end(&o, t);
		dismiss(n, t);
	}
	forward_send_out(n, &o);
	pthread_mutex_unlock(&n->mu);
	return t != NULL;
}

void node_forward_forget(struct shell_node *n, const void *who)
{
	(void)node_forward_unlock(n, who, false);
}

bool node_forward_valid(struct shell_node *n, uint64_t epoch)
{
	const struct forward_ticket *t;
	bool valid;

	pthread_mutex_lock(&n->mu);
	t = forward_find_epoch(n, epoch);
	valid = t && !n->stop && !n->failed && !forward_is_stale(n, t) && node_now_us(n) < t->told_us + UNTOLD_US;
	pthread_mutex_unlock(&n->mu);
	return valid;
}

uint64_t node_forward_wall_us(struct shell_node *n, uint64_t epoch)
{
	const struct forward_ticket *t;
	uint64_t us = 0;

	pthread_mutex_lock(&n->mu);
	t = forward_find_epoch(n, epoch);
	if (t)
		us = t->wall_us + (node_now_us(n) - t->wall_at_us);
	pthread_mutex_unlock(&n->mu);
	return us ? us : n->env->wall_us(n->env->ctx); /* no entry comes of it then */
}

/* mu held, as settle.c's. */
void node_forward_settle(struct shell_node *n)
{
	forward_settle_entries(n);
	for (struct forward_ticket *t = n->forward.first; t; t = t->next)
		if (t->state != TICKET_VOID && forward_is_stale(n, t))
			forward_make_void(n, t, WIRE_NOTLEADER, "leadership changed");
}

void node_forward_drop_all(struct shell_node *n)
{
	forward_drop_entries(n);
	for (struct forward_ticket *t = n->forward.first; t; t = t->next)
		forward_make_void(n, t, WIRE_CLOSED, "the node has ended its part");
}
