/* The store of a full replica: its database, published into by the node (vfs/db.h). */
#include "shell/node_impl.h"

#include <stdlib.h>
#include <string.h>

int node_read_entry(void *node, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data,
                    struct wire_err *err)
{
	struct shell_node *n = node;
	struct wire_entry e;
	int rc = raft_journal_read(n->journal, index, ret_data, &e, err);

	if (rc)
		return rc;
	node_tell_fetch(n->events, index, index, e.size);
	*ret_kind = e.kind;
	*ret_term = e.term;
	return WIRE_OK;
}

/* st's entries and configurations are gone by now, its publications are copied before anything is appended. */
static int open_database(struct shell_node *n, const struct raft_journal_state *st, struct wire_err *err)
{
	struct vfs_known_pos *known = calloc(st->n_publications + 1, sizeof *known);
	struct vfs_node_ops ops;
	struct vfs_db *db;
	struct vfs_db_start start = {
		.path = n->paths.db,
		.pages_path = n->paths.pages,
		.group = n->conf.group,
		.mark_index = st->mark.index,
		.mark_checksum = st->mark.checksum,
		.mark_db_pages = st->mark.db_pages,
		.last_index = st->base_index + st->n_entries,
		.known = known,
		.n_known = st->n_publications,
		.read_ctx = n,
		.read_entry = node_read_entry,
		.env = n->env,
		.ops = &ops,
		.shared = &n->shown->pub,
	};
	int rc;

	/* The installation that it is of was complete when node.conf called this a full replica. */
	(void)n->env->unlink(n->env->ctx, n->paths.installing, NULL);
	if (!known)
		return wire_fail(err, WIRE_NOMEM, "no memory for starting %s", n->paths.db);
	for (size_t i = 0; i < st->n_publications; i++) {
		const struct raft_journal_publication *p = &st->publications[i];

		known[i].index = p->index;
		known[i].pos.mx_frame = p->mx_frame;
		memcpy(known[i].pos.salt, p->salt, sizeof p->salt);
		memcpy(known[i].pos.cksum, p->cksum, sizeof p->cksum);
	}
	node_ops_make(n, &ops);
	rc = vfs_db_open(&start, &db, err);
	if (!rc && (rc = node_ledger_open(n, st, vfs_db_published(db), err)))
		vfs_db_close(db);
	if (!rc)
		n->db = db;
	if (!rc)
		node_grants_open(n);
	free(known);
	return rc;
}

/* What is published goes into the database file: it is whole without its WAL then, as after any last close, and the next start finds its position at once. */
static void last_checkpoint(struct shell_node *n)
{
	struct wire_err err;
	bool restarted;
	int rc;

	if (n->failed || n->has_heirs || !(n->started & THREAD_NODE))
		return;
	rc = vfs_db_checkpoint(n->db, UINT32_MAX, &restarted, &err);
	if (rc && rc != WIRE_BUSY) /* nothing is lost: the next start does it */
		shell_log(n, "the last checkpoint failed: %s", err.text);
}

static void close_database(struct shell_node *n)
{
	if (!n->db)
		return;
	last_checkpoint(n);
	node_grants_close(n);
	vfs_db_close(n->db);
	node_ledger_close(n);
}

static uint64_t applied(struct shell_node *n)
{
	return n->db ? vfs_db_published(n->db) : n->start_base;
}

static void moved(struct shell_node *n)
{
	if (n->db && vfs_db_published(n->db) < node_publish_limit(n))
		pthread_cond_signal(&n->publish_wake);
}

static void upkeep(struct shell_node *n)
{
	if (n->db)
		vfs_db_watchdog(n->db);
}

static void status(struct shell_node *n, struct vfs_db_status *ret_status)
{
	if (n->db)
		vfs_db_status(n->db, ret_status);
	else
		*ret_status = (struct vfs_db_status){ .index = n->start_base };
}

static int view_open(struct shell_node *n, struct vfs_view **ret_view, struct vfs_view_info *ret_info, struct wire_err *err)
{
	if (!n->db)
		return wire_fail(err, WIRE_BUSY, "this member is being repaired: ask another one");
	return vfs_view_open(n->db, ret_view, ret_info, err);
}

const struct node_store node_store_database = {
	.threads = THREAD_PUBLISHER | THREAD_CHECKPOINT,
	.open = open_database,
	.close = close_database,
	.applied = applied,
	.moved = moved,
	.upkeep = upkeep,
	.status = status,
	.view_open = view_open,
};
