/* The store of a witness: nothing but the log. What is committed and durable here counts as applied.
 *
 * It forgets entries only when every data voter has them on its disk (keep_above, from the core), so that of a data voter and the witness that are left one can
 * always bring the other up to all that was ever committed (DESIGN.md section 13). The journal wants a mark before it trims: for a database it tells how far that is
 * durable, here it is just the place up to which nothing is needed. */
#include "shell/image_in.h"
#include "shell/node_impl.h"

#include <inttypes.h>
#include <string.h>

#define TRIM_POLL_US 500000u

/* A promotion that was cut short may have left things; before node.conf calls this a full replica they are nobody's (rise.c). */
static int open_log(struct shell_node *n, const struct raft_journal_state *st, struct wire_err *err)
{
	(void)err;
	(void)shell_image_undo(n->env, &n->paths);
	(void)n->env->unlink(n->env->ctx, n->paths.image, NULL);
	(void)n->env->unlink(n->env->ctx, n->paths.pages, NULL);
	atomic_store(&n->witness.durable, st->base_index);
	return WIRE_OK;
}

static void close_log(struct shell_node *n)
{
	(void)n; /* the journal is the node's */
}

static uint64_t applied(struct shell_node *n)
{
	return atomic_load(&n->witness.durable);
}

static void moved(struct shell_node *n)
{
	uint64_t limit = n->shared.commit < n->shared.persisted ? n->shared.commit : n->shared.persisted;

	if (limit > n->witness.durable)
		atomic_store(&n->witness.durable, limit);
}

/* The next upkeep of the journal syncs mark and trim before it removes any file. */
static void upkeep(struct shell_node *n)
{
	struct raft_journal_mark m = { 0 };
	uint64_t now = node_now_us(n);
	struct wire_err err;
	int rc = WIRE_OK;

	if (now < n->witness.trimmed_at_us + TRIM_POLL_US)
		return;
	n->witness.trimmed_at_us = now;
	pthread_mutex_lock(&n->witness.mark_mu);
	pthread_mutex_lock(&n->mu);
	m.index = n->shared.keep_above < applied(n) ? n->shared.keep_above : applied(n);
	pthread_mutex_unlock(&n->mu);
	if (!n->witness.hold && m.index > n->mark_index) {
		rc = raft_journal_append_mark(n->journal, &m, &err);
		pthread_mutex_lock(&n->mu);
		n->mark_index = rc ? n->mark_index : m.index;
		pthread_mutex_unlock(&n->mu);
	}
	pthread_mutex_unlock(&n->witness.mark_mu);
	if (rc)
		node_fail(n, "journal: %s", err.text);
	else
		node_ask_trim(n, m.index);
}

static void status(struct shell_node *n, struct vfs_db_status *ret_status)
{
	*ret_status = (struct vfs_db_status){ .index = applied(n) };
}

static int view_open(struct shell_node *n, struct vfs_view **ret_view, struct vfs_view_info *ret_info, struct wire_err *err)
{
	(void)n, (void)ret_view, (void)ret_info;
	return wire_fail(err, WIRE_UNSUPPORTED, "this member is a witness, it has no database: ask another one");
}

const struct node_store node_store_witness = {
	.witness = true,
	.open = open_log,
	.close = close_log,
	.applied = applied,
	.moved = moved,
	.upkeep = upkeep,
	.status = status,
	.view_open = view_open,
};

void node_witness_status(struct shell_node *n, struct wire_buf *b)
{
	char url[RAFT_URL_MAX + 1];
	uint64_t above = raft_journal_base(n->journal);
	uint32_t limit = n->conf.keep_log_bytes ? n->conf.keep_log_bytes : SHELL_KEEP_LOG_BYTES;
	bool full;

	if (!n->store->witness) {
		node_json_put(b, "\"witness\":null,");
		return;
	}
	pthread_mutex_lock(&n->mu);
	memcpy(url, n->witness.lacking, sizeof url);
	full = n->witness.full;
	pthread_mutex_unlock(&n->mu);
	node_json_put(b, "\"witness\":{\"kept_above\":%" PRIu64 ",", above);
	node_json_text(b, "kept_for", url);
	node_json_put(b, "\"limit_bytes\":%" PRIu32 ",\"full\":%s},", limit, full ? "true" : "false");
}

/* --- answers to requests for an image --- */

#define QUEUE_MAX 64u /* as many as are asked for at a time, with room for late ones */

void node_witness_init(struct shell_node *n)
{
	pthread_mutex_init(&n->witness.mark_mu, NULL);
	node_cond_init(&n->witness.inbox_cond);
	n->witness.inbox_tail = &n->witness.inbox;
}

void node_witness_queue(struct shell_node *n, struct wire_link_msg *m)
{
	struct node_witness *w = &n->witness;

	pthread_mutex_lock(&n->image_mu);
	if (!w->fetching || w->queued >= QUEUE_MAX) {
		pthread_mutex_unlock(&n->image_mu);
		wire_link_msg_free(m);
		return;
	}
	m->next = NULL;
	*w->inbox_tail = m;
	w->inbox_tail = &m->next;
	w->queued++;
	pthread_cond_signal(&w->inbox_cond);
	pthread_mutex_unlock(&n->image_mu);
}

void node_witness_drop(struct shell_node *n)
{
	struct wire_link_msg *m;

	while ((m = n->witness.inbox)) {
		n->witness.inbox = m->next;
		wire_link_msg_free(m);
	}
	n->witness.inbox_tail = &n->witness.inbox;
	n->witness.queued = 0;
}
