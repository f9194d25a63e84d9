/* Entries that other nodes propose under this leader's grants. Node thread. */
#include "shell/grants_impl.h"
#include "shell/node_impl.h"

#include <stdlib.h>
#include <string.h>

static struct grant_ticket *find_grant(struct shell_node *n, uint64_t node, uint64_t number) /* mu held */
{
	struct grant_ticket *t = n->grants.first;

	while (t && (t->state < GRANT_GIVEN || t->node != node || t->number != number))
		t = t->next;
	return t;
}

static void tell_proposed(struct shell_node *n, uint64_t to, uint64_t corr, uint64_t number, uint64_t index)
{
	struct wire_msg m = { .type = WIRE_MSG_PROPOSE_RESP, .corr = corr, .term = n->shared.term, .log_term = number, .index = index };

	node_send(n, to, &m);
}

/* An entry whose base is not this leader's state would stop every replica, and a close that does not name all chunks would be a commit to its asker and to nobody else: better to refuse them here. */
static bool fits(struct shell_node *n, const struct grant_ticket *t, const struct wire_msg *m)
{
	struct vfs_pageset_head h;
	struct vfs_db_status s;
	struct wire_err err;

	if (vfs_pageset_head_get(m->data, m->data_len, &h, &err) || memcmp(h.txid, t->txid, sizeof h.txid) != 0)
		return false;
	if (!(h.flags & VFS_PAGESET_CLOSE) != (m->hint != 1) || h.chunk != (t->entries < UINT16_MAX ? t->entries : UINT16_MAX))
		return false;
	if (t->entries)
		return m->hint != 1 || (h.n_chunks == t->entries + 1 && h.first_index == t->first_index);
	vfs_db_status(n->db, &s);
	return h.sum_before == s.checksum && h.db_before == s.db_pages && h.page_size == s.page_size;
}

/* Never before, and never from now on: the grant is over with it. certain: whatever is said to other copies of the same. */
static void refuse_for_good(struct shell_node *n, const struct wire_msg *m, bool certain, int code, const char *why)
{
	struct wire_msg q = { .from = m->from, .corr = m->corr, .term = m->term, .log_term = m->log_term, .commit = certain };
	struct grant_ticket *t;

	pthread_mutex_lock(&n->mu);
	t = certain ? find_grant(n, m->from, m->log_term) : NULL;
	pthread_mutex_unlock(&n->mu);
	if (t && t->state == GRANT_GIVEN)
		grants_end(n, t);
	grants_refuse(n, &q, WIRE_MSG_PROPOSE_RESP, code, why);
}

/* What is asked twice is answered twice and proposed once. Of a grant that is not known any more nobody can say whether something was proposed under it, unless its asker
 * has sent this but once. */
static int answer_known(struct shell_node *n, const struct wire_msg *m, bool *ret_open)
{
	const struct node_grants *g = &n->grants;
	const struct grants_used *u = &g->used[m->log_term % GRANTS_USED];
	bool current = n->shared.role == RAFT_LEADER && n->shared.term == m->term, open, late, certain;
	struct grant_ticket *t;
	uint64_t repeated = 0;

	*ret_open = false;
	pthread_mutex_lock(&n->mu);
	t = current ? find_grant(n, m->from, m->log_term) : NULL;
	if (t && t->last_corr == m->corr)
		repeated = t->last_index;
	else if (current && g->used_term == m->term && u->number == m->log_term)
		repeated = u->index;
	open = t && t->state == GRANT_GIVEN && !repeated;
	late = open && m->corr < t->last_corr; /* a copy of a chunk that was overtaken by the next one */
	certain = open || (current && g->used_term == m->term && m->log_term > g->used_forgotten);
	pthread_mutex_unlock(&n->mu);
	if (repeated)
		tell_proposed(n, m->from, m->corr, m->log_term, repeated);
	else if (open && !late && fits(n, t, m))
		*ret_open = true;
	else if (!late && (certain || !m->commit))
		refuse_for_good(n, m, certain, WIRE_FENCED, open ? "the transaction does not fit the leader's state" : "the write lock was lost: another leader, or the leader did not hear from this node for too long");
	return WIRE_OK;
}

int node_grants_propose(struct shell_node *n, const struct wire_msg *m)
{
	struct request *r;
	bool open;
	int rc = answer_known(n, m, &open);

	if (rc || !open)
		return rc;
	for (r = n->held; r && (r->asker != m->from || r->corr != m->corr); r = r->next)
		;
	if (r)
		return WIRE_OK; /* it waits already */
	r = request_new(REQUEST_PROPOSE);
	if (r)
		r->refs = 1; /* nobody waits for it here */
	if (r && !(r->data = malloc(m->data_len))) {
		request_unref(r);
		r = NULL;
	}
	if (!r) {
		refuse_for_good(n, m, true, WIRE_NOMEM, "the leader is short of memory");
		return WIRE_OK;
	}
	memcpy(r->data, m->data, m->data_len);
	r->size = m->data_len;
	r->epoch = m->term;
	r->is_close = m->hint == 1;
	r->asker = m->from;
	r->grant = m->log_term;
	r->corr = m->corr;
	return node_handle_requests(n, r);
}

bool node_grants_may_propose(struct shell_node *n, const struct request *r)
{
	const struct grant_ticket *t;
	bool may;

	pthread_mutex_lock(&n->mu);
	t = find_grant(n, r->asker, r->grant);
	may = t && t->state == GRANT_GIVEN;
	pthread_mutex_unlock(&n->mu);
	return may;
}

void node_grants_proposed(struct shell_node *n, struct request *r, int code, uint64_t index)
{
	const struct wire_msg q = { .from = r->asker, .corr = r->corr, .term = r->epoch, .log_term = r->grant };
	struct node_grants *g = &n->grants;
	struct grants_used *u = &g->used[r->grant % GRANTS_USED];
	struct grant_ticket *t;

	if (code) {
		refuse_for_good(n, &q, true, code, code == WIRE_BUSY ? "the leader is handing the leadership over" : "the write lock was lost before the transaction was proposed");
		return;
	}
	pthread_mutex_lock(&n->mu);
	t = find_grant(n, r->asker, r->grant);
	if (t) {
		t->last_corr = r->corr;
		t->last_index = index;
		if (t->entries++ == 0)
			t->first_index = index;
		if (r->is_close)
			t->state = GRANT_CLOSING;
	}
	if (r->is_close) {
		if (u->number > g->used_forgotten)
			g->used_forgotten = u->number;
		*u = (struct grants_used){ r->grant, index };
	}
	pthread_mutex_unlock(&n->mu);
	/* The asker finds what closes a transaction in its own log. */
	if (r->is_close)
		(void)node_step(n, &(struct raft_event){ .type = RAFT_EV_TELL, .peer = r->asker, .index = index }, NULL, NULL); /* a failure ends the node */
	else
		tell_proposed(n, r->asker, r->corr, r->grant, index);
}
