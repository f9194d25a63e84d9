/* Requests of connections on the node thread: proposals, those of them that wait for the backlog to fall, and reads. */
#include "shell/node_impl.h"
#include "wire/hash.h"

#include <stdlib.h>

/* Refused because too much is not committed yet, not for a transfer: nobody else may lead, so it waits. mu held. */
static bool hold(struct shell_node *n, struct request *r)
{
	struct request **at = &n->held;

	if (!n->backlog_bytes || n->shared.transfer_to || n->shared.role != RAFT_LEADER)
		return false;
	while (*at)
		at = &(*at)->next;
	*at = r;
	n->held_backlog = n->backlog_bytes;
	return true;
}

static int handle_propose(struct shell_node *n, struct request *r)
{
	struct wire_entry e = { .kind = WIRE_ENTRY_DATA, .size = r->size, .data = r->data };
	struct raft_event ev = { .type = RAFT_EV_PROPOSE, .entries = &e, .n_entries = 1 };
	struct pending *p = NULL;
	uint64_t index = 0, term = n->shared.term; /* only this thread changes it */
	int code = WIRE_FENCED, rc = WIRE_OK;
	bool wanted, answer = false;

	pthread_mutex_lock(&n->mu);
	wanted = !r->abandoned;
	n->proposing = wanted;
	pthread_mutex_unlock(&n->mu);
	if (r->is_close && !r->asker && !(p = calloc(1, sizeof *p)))
		code = WIRE_NOMEM;
	else if (n->shared.role == RAFT_LEADER && term == r->epoch && wanted && (!r->asker || node_grants_may_propose(n, r))) {
		e.sum = wire_hash(r->data, r->size, 0);
		rc = node_step(n, &ev, &code, &index);
	}
	pthread_mutex_lock(&n->mu);
	n->proposing = false;
	if (!rc && code == WIRE_BUSY && hold(n, r)) {
		free(p);
	} else if (r->asker) {
		answer = true;
	} else if (rc || code || !r->is_close) {
		/* A step that failed may have sent the entry already. */
		node_settle(r, !rc ? code : r->is_close ? WIRE_UNKNOWN : WIRE_CLOSED, index);
		free(p);
	} else {
		*p = (struct pending){ .index = index, .term = term, .req = r };
		node_pending_add(n, p);
	}
	pthread_mutex_unlock(&n->mu);
	if (answer) { /* after a step that failed nobody can tell */
		if (!rc)
			node_grants_proposed(n, r, code, index);
		pthread_mutex_lock(&n->mu);
		request_unref(r);
		pthread_mutex_unlock(&n->mu);
	}
	return rc;
}

int node_handle_requests(struct shell_node *n, struct request *list)
{
	struct request *next;
	int rc = WIRE_OK;

	for (struct request *r = list; r; r = next) {
		next = r->next;
		r->next = NULL;
		if (rc) {
			pthread_mutex_lock(&n->mu);
			node_settle(r, WIRE_CLOSED, 0);
			pthread_mutex_unlock(&n->mu);
		} else if (r->kind == REQUEST_PROPOSE) {
			rc = handle_propose(n, r);
		} else if (r->kind == REQUEST_MEMBER) {
			node_member_request(n, r);
		} else if (r->kind == REQUEST_OUTCOME) {
			node_outcome_request(n, r);
		} else {
			struct raft_event ev = { .type = RAFT_EV_READ, .corr = r->corr };

			*n->reads_tail = r; /* oldest first, as they are answered */
			n->reads_tail = &r->next;
			atomic_fetch_add_explicit(&n->read_counts.asked, 1, memory_order_relaxed);
			rc = node_step(n, &ev, NULL, NULL);
		}
	}
	return rc;
}

/* Held ones are proposed again when the backlog has changed, and answered when there is no use in it any more: handle_propose sees to that
 * which is abandoned, or of a term that is over. The core wakes the thread for each acknowledgement and each heartbeat. */
int node_handle_held(struct shell_node *n)
{
	struct request *list = n->held;
	bool over;

	if (!list)
		return WIRE_OK;
	pthread_mutex_lock(&n->mu);
	over = list->abandoned || n->shared.role != RAFT_LEADER || n->shared.term != list->epoch || n->shared.transfer_to;
	pthread_mutex_unlock(&n->mu);
	if (!over && n->backlog_bytes == n->held_backlog)
		return WIRE_OK;
	n->held = NULL;
	return node_handle_requests(n, list);
}

void node_drop_held(struct shell_node *n)
{
	for (struct request *r = n->held, *next; r; r = next) {
		next = r->next;
		node_settle(r, WIRE_CLOSED, 0);
	}
	n->held = NULL;
}
