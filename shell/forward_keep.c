/* Tickets of this node's connections at the leader: what it says of them, and what becomes of those that nobody looks after. */
#include "shell/forward_impl.h"
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLAIM_US 50000u       /* a grant that nobody takes by then goes back */
#define CLAIM_FIRST_US 2000u  /* the same for one that asked but once: most of those have no busy handler, and are gone */
#define LEFT_US 100000u       /* a ticket whose connection neither asks nor sleeps */
#define AHEAD_US 1000000u       /* a lock that was had ahead, and not asked for since */

/* --- answers --- */

static void granted(struct shell_node *n, struct forward_ticket *t, const struct wire_msg *m)
{
	const struct shell_txid id = { .term = m->term, .index = m->index, .number = (uint32_t)m->log_term };

	t->number = m->log_term;
	t->index = m->index;
	t->wall_us = m->hint;
	t->wall_at_us = t->since_us = node_now_us(n);
	shell_txid_put(&id, t->txid);
	t->state = TICKET_GRANTED;
	if (!t->users) { /* nobody is there for it */
		atomic_store(&n->side_look, true);
		pthread_cond_signal(&n->wake);
	}
	pthread_cond_broadcast(&t->cond);
}

static bool lock_answer(struct shell_node *n, const struct wire_msg *m) /* mu held */
{
	struct forward_ticket *t = forward_find_id(n, m->corr);

	if (!t || t->state == TICKET_VOID || t->leader != m->from)
		return m->flags & WIRE_MSG_REJECT;
	if (m->flags & WIRE_MSG_REJECT) {
		if (t->state == TICKET_ASKED && m->hint == WIRE_BUSY)
			t->state = TICKET_QUEUED;
		else if (t->state <= TICKET_QUEUED && m->hint != WIRE_BUSY)
			forward_make_void(n, t, (int)m->hint, m->text), t->refused = true;
		pthread_cond_broadcast(&t->cond);
	} else if (t->state <= TICKET_QUEUED && m->term == t->term && m->index < 1ull << 48 && m->term < 1ull << 48) {
		granted(n, t, m);
	}
	return true;
}

bool node_forward_answer(struct shell_node *n, const struct wire_link_msg *lm)
{
	const struct wire_msg *m = &lm->msg;
	bool done = true;

	if ((m->type != WIRE_MSG_LOCK_RESP && m->type != WIRE_MSG_PROPOSE_RESP) || lm->guest || m->group != n->conf.group || m->to != n->conf.node)
		return false;
	pthread_mutex_lock(&n->mu);
	if (m->type == WIRE_MSG_LOCK_RESP)
		done = lock_answer(n, m);
	else
		forward_entry_answer(n, m);
	pthread_mutex_unlock(&n->mu);
	return done;
}

/* The leader has lost, or never had, what is named there: asked for again, or void. */
static void kept(struct shell_node *n, const struct wire_msg *m)
{
	struct wire_in in = wire_in_make(m->data, m->data_len);
	struct forward_outbox o = { .n = 0 };

	pthread_mutex_lock(&n->mu);
	for (struct forward_ticket *t = n->forward.first; t; t = t->next)
		if (t->leader == m->from && m->corr == n->forward.keeps)
			t->told_us = n->forward.keep_at_us - FORWARD_KEEP_US > t->told_us ? n->forward.keep_at_us - FORWARD_KEEP_US : t->told_us;
	while (wire_in_left(&in)) {
		struct forward_ticket *t = forward_find_id(n, wire_get_varint(&in));

		if (in.bad || !t || t->leader != m->from || t->state == TICKET_VOID)
			continue;
		if (t->state <= TICKET_QUEUED) {
			t->state = TICKET_ASKED;
			if (o.n < FORWARD_OUT_MAX)
				o.msg[o.n++] = (struct forward_out){ WIRE_MSG_LOCK_REQ, t->leader, t->id };
		} else if (t->kept && m->corr >= t->kept) { /* else it may have been given since */
			forward_make_void(n, t, WIRE_FENCED, "the leader did not hear from this node for too long");
		}
	}
	forward_send_out(n, &o);
	pthread_mutex_unlock(&n->mu);
}

void node_forward_msg(struct shell_node *n, const struct wire_link_msg *lm)
{
	const struct wire_msg *m = &lm->msg;

	if (lm->guest || m->group != n->conf.group || m->to != n->conf.node)
		return;
	if (m->type == WIRE_MSG_LOCK_KEEP) {
		kept(n, m);
	} else if (m->type == WIRE_MSG_LOCK_RESP) { /* a grant for nobody who is still there */
		struct wire_msg end = { .type = WIRE_MSG_LOCK_END, .corr = m->corr };

		node_send(n, m->from, &end);
	}
}

/* --- now and then --- */

/* Is it nobody's concern any more? Fills *ret_due with when it will be, at the earliest. mu held. */
static bool is_left(const struct forward_ticket *t, uint64_t now, uint64_t *ret_due)
{
	uint64_t patience;

	if (t->users)
		return false;
	switch (t->state) {
	case TICKET_ASKED:
	case TICKET_QUEUED:
		patience = LEFT_US;
		break;
	case TICKET_GRANTED:
		patience = t->asks < 2 ? CLAIM_FIRST_US : CLAIM_US;
		break;
	case TICKET_HELD:
		if (!t->ahead)
			return false;
		patience = AHEAD_US;
		break;
	default:
		return false;
	}
	if (now >= t->since_us + patience)
		return true;
	if (t->since_us + patience < *ret_due)
		*ret_due = t->since_us + patience;
	return false;
}

static void drop_left(struct shell_node *n, uint64_t now, struct forward_outbox *o, uint64_t *ret_due) /* mu held */
{
	for (struct forward_ticket *t = n->forward.first, *next; t; t = next) {
		next = t->next;
		if (!is_left(t, now, ret_due))
			continue;
		forward_say_end(o, t);
		if (t->state == TICKET_HELD) /* its connection knows of it; node_forward_release_void sees to the rest */
			forward_make_void(n, t, WIRE_FENCED, "it was not asked for in time");
		else
			forward_free_ticket(n, t);
	}
}

static void keep(struct shell_node *n, uint64_t now)
{
	struct wire_msg m = { .type = WIRE_MSG_LOCK_KEEP };
	struct wire_buf b = WIRE_BUF_INIT;
	uint64_t leader;

	pthread_mutex_lock(&n->mu);
	leader = n->shared.leader;
	m.index = n->forward.next_id;
	m.corr = ++n->forward.keeps;
	for (struct forward_ticket *t = n->forward.first; t; t = t->next) {
		if (t->state == TICKET_VOID || t->leader != leader)
			continue;
		wire_put_varint(&b, t->id);
		if (t->state >= TICKET_GRANTED && !t->kept)
			t->kept = m.corr;
	}
	n->forward.keep_at_us = now + FORWARD_KEEP_US;
	pthread_mutex_unlock(&n->mu);
	m.data = b.data;
	m.data_len = (uint32_t)b.len;
	if (leader && leader != n->conf.node && b.len && !b.failed)
		node_send(n, leader, &m);
	wire_buf_free(&b);
}

void node_forward_release_void(struct shell_node *n)
{
	if (!atomic_load_explicit(&n->forward.n_tickets, memory_order_relaxed))
		return;
	pthread_mutex_lock(&n->mu);
	for (struct forward_ticket *t = n->forward.first; t;) {
		if (t->state == TICKET_VOID && t->local) {
			forward_release_local(n, t);
			t = n->forward.first;
		} else {
			t = t->next;
		}
	}
	pthread_mutex_unlock(&n->mu);
}

uint64_t node_forward_run(struct shell_node *n, uint64_t now_us)
{
	struct forward_outbox o = { .n = 0 };
	uint64_t due = now_us + FORWARD_KEEP_US;
	bool any;

	if (!atomic_load(&n->forward.n_tickets) && !atomic_load(&n->forward.n_waiting) && now_us >= n->forward.ticks_until_us)
		return UINT64_MAX;
	pthread_mutex_lock(&n->mu);
	any = n->forward.first || n->forward.waiting;
	if (any)
		n->forward.ticks_until_us = now_us + FORWARD_TICKS_US;
	drop_left(n, now_us, &o, &due);
	forward_repeat(n, now_us);
	forward_send_out(n, &o);
	pthread_mutex_unlock(&n->mu);
	node_forward_release_void(n);
	if (any && now_us >= n->forward.keep_at_us)
		keep(n, now_us);
	if (n->forward.keep_at_us > now_us && n->forward.keep_at_us < due)
		due = n->forward.keep_at_us;
	return due;
}
