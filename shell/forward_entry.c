/* Entries of this node's connections on their way through another node, the leader: sent, found in this node's own log, settled there. */
#include "shell/forward_impl.h"
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPEAT_US 250000u /* a proposal that was neither answered nor seen */

static void unlink_forwarded(struct shell_node *n, struct forwarded *f) /* mu held */
{
	struct forwarded **at = &n->forward.waiting;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	atomic_fetch_sub(&n->forward.n_waiting, 1);
}

/* Answers it, and drops it. mu held. */
static void end_forwarded(struct shell_node *n, struct forwarded *f, int code, uint64_t index)
{
	unlink_forwarded(n, f);
	node_settle(f->req, code, index);
	free(f);
}

/* The log's lane: the control lane must not be held up by a large entry. */
static void send_entry(struct shell_node *n, struct forwarded *f)
{
	const struct request *r = f->req;
	struct wire_msg m = { .type = WIRE_MSG_PROPOSE_REQ, .corr = f->corr, .term = f->term, .log_term = f->number, .commit = f->sendings++, .hint = r->is_close, .data = r->data, .data_len = r->size };

	/* What does not leave is sent again. */
	(void)forward_send(n, f->leader, WIRE_LANE_LOG, &m);
}

static int outcome(const struct request *r, uint32_t timeout_ms, struct wire_err *err)
{
	switch (r->code) {
	case WIRE_OK:
		return WIRE_OK;
	case WIRE_LOST:
		return wire_fail(err, WIRE_LOST, "another leader superseded the transaction: it is not committed");
	case WIRE_UNKNOWN:
		return wire_fail(err, WIRE_UNKNOWN, "the node ended its part: whether the transaction is committed is open");
	case WIRE_TIMEOUT:
		return wire_fail(err, r->is_close ? WIRE_UNKNOWN : WIRE_TIMEOUT,
		                 r->is_close ? "no quorum within %u ms: whether the transaction is committed is open" : "the leader did not take the transaction within %u ms", timeout_ms);
	default:
		return wire_fail(err, r->code, "the leader refused the transaction: %s", r->why);
	}
}

int node_forward_propose(struct shell_node *n, uint64_t epoch, struct request *r, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	const uint64_t deadline = node_now_us(n) + (uint64_t)timeout_ms * 1000;
	struct forwarded *f = calloc(1, sizeof *f);
	struct forward_ticket *t;
	int rc;

	if (!f) {
		r->refs--;
		return wire_fail(err, WIRE_NOMEM, "no memory for proposing a transaction");
	}
	pthread_mutex_lock(&n->mu);
	t = forward_find_epoch(n, epoch);
	if (n->stop || n->failed || !t || forward_is_stale(n, t)) {
		rc = n->stop || n->failed ? forward_may_ask(n, err) : wire_fail(err, WIRE_FENCED, "the write lock was lost before the transaction was proposed");
		r->refs--;
		pthread_mutex_unlock(&n->mu);
		free(f);
		return rc;
	}
	*f = (struct forwarded){ .next = n->forward.waiting, .req = r, .leader = t->leader, .term = t->term, .number = t->number, .corr = ++n->next_corr, .sent_us = node_now_us(n) };
	memcpy(f->txid, t->txid, sizeof f->txid);
	n->forward.waiting = f;
	atomic_fetch_add(&n->forward.n_waiting, 1);
	forward_look_soon(n, f->sent_us);
	send_entry(n, f); /* the caller's reference keeps its data; f may be gone when it returns */
	while (!r->done && node_wait(n, &r->cond, deadline))
		;
	if (!r->done) {
		r->abandoned = true; /* for the one that is found in the log */
		for (f = n->forward.waiting; f && f->req != r; f = f->next)
			;
		if (f)
			end_forwarded(n, f, WIRE_TIMEOUT, 0);
		r->code = WIRE_TIMEOUT;
	}
	rc = outcome(r, timeout_ms, err);
	if (!rc)
		*ret_index = r->index;
	t = forward_find_epoch(n, epoch);
	if (t && r->is_close)
		t->closed = !rc;
	pthread_mutex_unlock(&n->mu);
	return rc;
}

/* Like one of this node's own from now on (settle.c). mu held. */
static void bind(struct shell_node *n, struct forwarded *f, const struct wire_entry *e)
{
	struct pending *p = calloc(1, sizeof *p);

	if (!p) { /* it is published by the publisher, should it be committed */
		end_forwarded(n, f, WIRE_UNKNOWN, 0);
		return;
	}
	unlink_forwarded(n, f);
	*p = (struct pending){ .index = e->index, .term = e->term, .req = f->req };
	node_pending_add(n, p);
	free(f);
}

void node_forward_bind(struct shell_node *n, const struct raft_update *u)
{
	if (!atomic_load(&n->forward.n_waiting))
		return;
	for (uint32_t i = 0; i < u->n_entries; i++) {
		const struct wire_entry *e = &u->entries[i];
		struct vfs_pageset_head h;
		struct forwarded *f;

		if (e->kind != WIRE_ENTRY_DATA || vfs_pageset_head_get(e->data, e->size, &h, NULL) || !(h.flags & VFS_PAGESET_CLOSE))
			continue;
		pthread_mutex_lock(&n->mu);
		for (f = n->forward.waiting; f && (!f->req->is_close || memcmp(f->txid, h.txid, sizeof h.txid) != 0); f = f->next)
			;
		if (f)
			bind(n, f, e);
		pthread_mutex_unlock(&n->mu);
	}
}

/* mu held, as settle.c's. What was not found when an entry of a later term is committed never will be: it can only be proposed in the term of its grant, all entries that
 * came in since it was sent were looked at, and those of that term lie below. A chunk waits for its leader alone: without a close it is nothing. */
void forward_settle_entries(struct shell_node *n)
{
	const uint64_t commit_term = n->forward.waiting ? raft_term_of(n->raft, n->shared.commit) : 0;

	for (struct forwarded *f = n->forward.waiting, *next; f; f = next) {
		next = f->next;
		if (commit_term > f->term)
			end_forwarded(n, f, WIRE_LOST, 0);
		else if (!f->req->is_close && (n->shared.term != f->term || n->shared.leader != f->leader))
			end_forwarded(n, f, WIRE_LOST, 0);
	}
}

void forward_drop_entries(struct shell_node *n)
{
	while (n->forward.waiting)
		end_forwarded(n, n->forward.waiting, n->forward.waiting->req->is_close ? WIRE_UNKNOWN : WIRE_CLOSED, 0);
}

void forward_entry_answer(struct shell_node *n, const struct wire_msg *m) /* mu held */
{
	struct forwarded *f = n->forward.waiting;

	while (f && (f->corr != m->corr || f->leader != m->from || f->term != m->term || f->number != m->log_term))
		f = f->next;
	if (!f)
		return;
	if (m->flags & WIRE_MSG_REJECT) {
		if (!m->commit && f->sendings > 1) /* who says so saw one copy, and may not know of another that was taken before */
			return;
		snprintf(f->req->why, sizeof f->req->why, "%s", m->text);
		end_forwarded(n, f, m->hint && m->hint < WIRE_CODE_COUNT && m->hint != WIRE_UNKNOWN ? (int)m->hint : WIRE_FENCED, 0);
	} else if (!f->req->is_close) {
		end_forwarded(n, f, WIRE_OK, m->index);
	}
}

/* Once more to the same leader: it proposes what it has not proposed yet, once (grants.c). mu held, let go of meanwhile. */
void forward_repeat(struct shell_node *n, uint64_t now)
{
	for (struct forwarded *f = n->forward.waiting; f; f = f->next) {
		struct request *r = f->req;

		if (now < f->sent_us + REPEAT_US || n->shared.leader != f->leader || n->shared.term != f->term)
			continue;
		f->sent_us = now;
		r->refs++;
		send_entry(n, f);
		request_unref(r);
		return; /* the list may be another one; the next time comes soon */
	}
}
