/* What became of a transaction (walraft_outcome), on any node, and how far a client has come (walraft_once).
 *
 * The ledger knows what is applied here. An id that it does not have, of a term that is still the latest one applied, is open: the transaction may run, wait for its quorum, or
 * be on its way to this node. The leader settles it (OUTCOME_REQ). It answers with an index once nothing can be proposed under that id any more:
 *   - it leads in a later term than the id's: nothing of that term can be proposed by anybody; its own first entry is in its log
 *   - it leads in the id's term, and so gave the grant itself, which is over: whatever was proposed under it is in its log, at or below the last index
 *     (asked and answered on the node thread, which also proposes: a proposal that waits in line belongs to somebody who still holds the grant, or was given up and is dropped)
 * Whoever asked waits until that index is published at its own node. An answer of the id's own term settles it then: where the log has that leader's entry at the index, it is that leader's log up to there; where it
 * has not, nothing of that term can follow. An answer of a later term does so only by what has come in, an entry of a later term than the id's (which the ledger sees): should that leader have lost its
 * entry again, another one may have the id's entries further behind, those after a chunk or a configuration, which are not published yet. Then the question is put again.
 *
 * While there is no leader the questions are repeated. An entry of a later term that comes in meanwhile settles it as well. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_US 20000u /* a question that could not be answered, or whose answer is missing, is put again */
#define LOST_US 300000u

int node_step_of(void *node, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err)
{
	struct shell_node *n = node;
	struct shell_session s;
	int rc = shell_ledger_session(n->ledger, once->id, once->id_len, &s, err);

	if (!rc)
		*ret_step = (struct vfs_step){ .seq = s.seq, .index = s.index };
	return rc;
}

/* ---- the node thread ---- */

/* Here, as the leader: *ret_index as in OUTCOME_RESP. */
static int settle_here(struct shell_node *n, const uint8_t txid[VFS_TXID_BYTES], uint64_t *ret_index, const char **ret_why)
{
	struct shell_txid id;
	uint64_t last = n->last_index;
	bool open;

	shell_txid_get(txid, &id);
	pthread_mutex_lock(&n->mu);
	open = id.term == n->shared.term && node_grant_is_held(n, txid);
	pthread_mutex_unlock(&n->mu);
	*ret_why = NULL;
	if (n->shared.role != RAFT_LEADER || raft_term_of(n->raft, last) != n->shared.term)
		*ret_why = "an election is under way";
	else if (id.term > n->shared.term)
		*ret_why = "there is no leader yet of the term that it is of";
	else if (open)
		*ret_why = "it is still running";
	*ret_index = last;
	return *ret_why ? WIRE_BUSY : WIRE_OK;
}

void node_outcome_request(struct shell_node *n, struct request *r)
{
	struct wire_msg q = { .type = WIRE_MSG_OUTCOME_REQ, .corr = r->corr, .data = r->data, .data_len = r->size };
	const char *why = NULL;
	uint64_t index = 0;
	int code;

	if (n->shared.role != RAFT_LEADER && n->shared.leader && !n->shared.removed) {
		r->next = n->outcomes;
		n->outcomes = r;
		node_send(n, n->shared.leader, &q);
		return;
	}
	code = n->shared.role == RAFT_LEADER ? settle_here(n, r->data, &index, &why) : WIRE_NOTLEADER;
	pthread_mutex_lock(&n->mu);
	if (why)
		wire_put_text(&r->answer, why);
	r->epoch = n->shared.term;
	node_settle(r, code, index);
	pthread_mutex_unlock(&n->mu);
}

static void serve(struct shell_node *n, const struct wire_msg *q)
{
	struct wire_msg m = { .type = WIRE_MSG_OUTCOME_RESP, .corr = q->corr, .term = n->shared.term };
	const char *why;

	if (q->data_len != VFS_TXID_BYTES || !raft_config_find(raft_config_current(n->raft), q->from))
		return;
	if (settle_here(n, q->data, &m.index, &why)) {
		m.flags = WIRE_MSG_REJECT;
		snprintf(m.text, sizeof m.text, "%s", why);
	}
	node_send(n, q->from, &m);
}

static void take_answer(struct shell_node *n, const struct wire_msg *m)
{
	pthread_mutex_lock(&n->mu);
	for (struct request **at = &n->outcomes, *r; (r = *at); at = &r->next) {
		if (r->corr != m->corr)
			continue;
		*at = r->next;
		if (m->flags & WIRE_MSG_REJECT)
			wire_put_text(&r->answer, m->text);
		r->epoch = m->term;
		node_settle(r, m->flags & WIRE_MSG_REJECT ? WIRE_BUSY : WIRE_OK, m->index);
		break;
	}
	pthread_mutex_unlock(&n->mu);
}

bool node_outcome_msg(struct shell_node *n, const struct wire_link_msg *lm)
{
	if (lm->msg.type != WIRE_MSG_OUTCOME_REQ && lm->msg.type != WIRE_MSG_OUTCOME_RESP)
		return false;
	if (lm->guest || lm->msg.group != n->conf.group || lm->msg.to != n->conf.node)
		return true;
	if (lm->msg.type == WIRE_MSG_OUTCOME_REQ)
		serve(n, &lm->msg);
	else
		take_answer(n, &lm->msg);
	return true;
}

void node_outcome_tick(struct shell_node *n)
{
	if (!n->outcomes)
		return;
	pthread_mutex_lock(&n->mu);
	for (struct request **at = &n->outcomes, *r; (r = *at);) {
		if (r->abandoned) {
			*at = r->next;
			node_settle(r, WIRE_TIMEOUT, 0);
		} else {
			at = &r->next;
		}
	}
	pthread_mutex_unlock(&n->mu);
}

void node_outcome_end(struct shell_node *n)
{
	for (struct request *r = n->outcomes, *next; r; r = next) {
		next = r->next;
		node_settle(r, WIRE_CLOSED, 0);
	}
	n->outcomes = NULL;
}

/* ---- who asks ---- */

/* One question to the leader. WIRE_OK: *ret_index, *ret_term. Else it may be put again, unless it is WIRE_CLOSED or WIRE_NOMEM. */
static int ask_leader(struct shell_node *n, const uint8_t txid[VFS_TXID_BYTES], uint64_t deadline_us, uint64_t *ret_index, uint64_t *ret_term, struct wire_err *err)
{
	struct request *r = request_new(REQUEST_OUTCOME);
	char why[WIRE_TEXT_MAX + 1] = "no leader is known here: an election is under way, or this node is cut off from the majority";
	uint64_t until = node_now_us(n) + LOST_US;
	int rc;

	if (r && !(r->data = malloc(VFS_TXID_BYTES))) {
		r->refs = 1;
		request_drop(n, r);
		r = NULL;
	}
	if (!r)
		return wire_fail(err, WIRE_NOMEM, "no memory for a question");
	memcpy(r->data, txid, VFS_TXID_BYTES);
	r->size = VFS_TXID_BYTES;
	rc = request_ask(n, r, until < deadline_us ? until : deadline_us, err);
	if (rc == WIRE_TIMEOUT) {
		rc = wire_fail(err, rc, "the leader does not answer");
	} else if (!rc && r->code == WIRE_OK) {
		*ret_index = r->index;
		*ret_term = r->epoch;
	} else if (!rc) {
		struct wire_in in = wire_in_make(r->answer.data, r->answer.len);

		rc = r->code;
		if (r->answer.len)
			wire_get_text(&in, why, sizeof why);
		wire_fail(err, rc, "%s", rc == WIRE_CLOSED ? "this node is being closed" : why);
	}
	request_drop(n, r);
	return rc;
}

static int too_old(struct shell_node *n, struct wire_err *err)
{
	struct shell_ledger_state st;

	shell_ledger_state(n->ledger, &st);
	return wire_fail(err, WIRE_UNKNOWN, "it is too old to tell: transactions up to entry %llu are not listed any more", (unsigned long long)st.from);
}

/* WIRE_BUSY: open. */
static int look_up(struct shell_node *n, const uint8_t txid[VFS_TXID_BYTES], bool settled, uint64_t *ret_index, struct wire_err *err)
{
	uint64_t index = 0;

	switch (shell_ledger_outcome(n->ledger, txid, settled, &index)) {
	case SHELL_OUTCOME_OPEN:
		return WIRE_BUSY;
	case SHELL_OUTCOME_TOO_OLD:
		return too_old(n, err);
	case SHELL_OUTCOME_COMMITTED:
	case SHELL_OUTCOME_LOST:
		*ret_index = index;
		return WIRE_OK;
	}
	return WIRE_INTERNAL;
}

/* What the ledger has is published the next moment, or, after a power loss, when it is published again. */
static int seen(struct shell_node *n, uint64_t index, uint64_t deadline_us, uint64_t *ret_index)
{
	uint64_t now = node_now_us(n);
	struct wire_err late;

	if (index)
		(void)node_wait_published(n, index, now < deadline_us ? (uint32_t)((deadline_us - now) / 1000) : 0, &late);
	*ret_index = index;
	return WIRE_OK;
}

static void pause_until(struct shell_node *n, uint64_t until_us)
{
	pthread_mutex_lock(&n->mu);
	if (!n->stop && !n->failed)
		node_wait(n, &n->published_cond, until_us);
	pthread_mutex_unlock(&n->mu);
}

int node_outcome(void *node, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct shell_node *n = node;
	uint64_t deadline = node_now_us(n) + (uint64_t)timeout_ms * 1000, upto = 0, term = 0, index = 0, now;
	struct wire_err why = { 0 };
	struct shell_txid id;
	bool settled = false;
	int rc;

	shell_txid_get(txid, &id);
	for (;;) {
		struct wire_err latest = { 0 };

		rc = look_up(n, txid, settled, &index, err);
		if (!rc)
			return seen(n, index, deadline, ret_index);
		if (rc != WIRE_BUSY)
			return rc;
		now = node_now_us(n);
		rc = ask_leader(n, txid, deadline, &upto, &term, &latest);
		/* The last question has little time: that it was not answered says less than the answer before. */
		if (rc && (rc != WIRE_TIMEOUT || !*why.text || deadline > now + LOST_US))
			why = latest;
		if (!rc) {
			now = node_now_us(n);
			rc = node_wait_published(n, upto, now < deadline ? (uint32_t)((deadline - now) / 1000) : 0, &why);
			settled = !rc && term == id.term;
		}
		if (rc == WIRE_CLOSED || rc == WIRE_NOMEM)
			return wire_fail(err, rc, "%s", why.text);
		now = node_now_us(n);
		if (rc && now >= deadline)
			return wire_fail(err, WIRE_UNKNOWN, "it is not known yet: %s", why.text);
		if (rc)
			pause_until(n, now + AGAIN_US < deadline ? now + AGAIN_US : deadline);
	}
}
