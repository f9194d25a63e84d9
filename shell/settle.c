/* Answers to those who wait: what became of proposals and reads, and how far the publisher may go. mu is held. */
#include "shell/node_impl.h"

#include <stdlib.h>

void request_unref(struct request *r)
{
	if (--r->refs)
		return;
	pthread_cond_destroy(&r->cond);
	free(r->data);
	wire_buf_free(&r->answer);
	free(r);
}

void node_settle(struct request *r, int code, uint64_t index)
{
	r->done = true;
	r->code = code;
	r->index = index;
	pthread_cond_signal(&r->cond);
	request_unref(r);
}

/* What came earlier may lie higher: it was truncated, and nobody knows yet what takes its place. */
void node_pending_add(struct shell_node *n, struct pending *p)
{
	struct pending **at = &n->pending;

	while (*at && (*at)->index <= p->index)
		at = &(*at)->next;
	p->next = *at;
	*at = p;
}

void node_pending_remove(struct shell_node *n, uint64_t index)
{
	for (struct pending **at = &n->pending, *p; (p = *at); at = &p->next)
		if (p->index == index) {
			*at = p->next;
			free(p);
			return;
		}
}

/* Committed ones go to their askers; lost is what has another entry committed in its place. An entry that is only truncated here may still be on
 * a node that leads later, and be committed then. mu held. */
void node_settle_pending(struct shell_node *n)
{
	struct pending **at = &n->pending, *p;
	uint64_t sure = n->shared.commit < n->shared.persisted ? n->shared.commit : n->shared.persisted;

	while ((p = *at)) {
		bool lost;

		/* An abandoned one must not stay: its place may be another's after a truncation. */
		if (!p->req || (p->index > sure && !p->req->abandoned)) {
			at = &p->next;
			continue;
		}
		lost = p->index <= sure && raft_term_of(n->raft, p->index) != p->term;
		if (!lost && !p->req->abandoned) { /* stays listed until commit_end */
			node_settle(p->req, WIRE_OK, p->index);
			p->req = NULL;
			at = &p->next;
			continue;
		}
		node_settle(p->req, lost ? WIRE_LOST : WIRE_UNKNOWN, p->index);
		*at = p->next;
		free(p);
	}
}

void node_settle_reads(struct shell_node *n, const struct raft_update *u)
{
	for (uint32_t i = 0; i < u->n_reads; i++)
		for (struct request **at = &n->reads, *r; (r = *at); at = &r->next)
			if (r->corr == u->reads[i].corr) {
				*at = r->next;
				if (!r->next)
					n->reads_tail = at;
				if (!u->reads[i].code) {
					node_tell(n->events, RAFT_TOLD_MACHINE_QUERY, 0, u->reads[i].index, 0);
					node_fresh_learn(n, r->begun_us, u->reads[i].index);
				}
				node_settle(r, u->reads[i].code, u->reads[i].index);
				break;
			}
}

uint64_t node_publish_limit(const struct shell_node *n)
{
	uint64_t limit = n->shared.commit < n->shared.persisted ? n->shared.commit : n->shared.persisted;

	if (n->pending && n->pending->index <= limit)
		limit = n->pending->index - 1;
	return limit;
}
