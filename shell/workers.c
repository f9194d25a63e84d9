/* The publisher, checkpoint and upkeep threads of a node. */
#include "shell/node_impl.h"

#include <stdlib.h>

#define CHECKPOINT_FRAMES 1000u  /* not backfilled yet: time for a checkpoint */
#define RESTART_FRAMES 4000u     /* above it the WAL is restarted after a checkpoint */
#define CHECKPOINT_POLL_US 50000
#define UPKEEP_POLL_US 10000

void *node_publisher_main(void *node)
{
	struct shell_node *n = node;
	struct wire_err err;
	uint64_t limit, before;
	int rc;

	for (;;) {
		pthread_mutex_lock(&n->mu);
		while (!n->stop && !n->failed && node_publish_limit(n) <= vfs_db_published(n->db))
			node_wait(n, &n->publish_wake, UINT64_MAX);
		limit = node_publish_limit(n);
		if (n->stop || n->failed) {
			pthread_mutex_unlock(&n->mu);
			return NULL;
		}
		pthread_mutex_unlock(&n->mu);
		before = vfs_db_published(n->db);
		rc = vfs_db_apply(n->db, limit, node_read_entry, n, &err);
		node_tell(n->events, RAFT_TOLD_MACHINE_COMMANDS, 0, before + 1, vfs_db_published(n->db));
		node_published(n);
		if (rc)
			node_fail(n, "publishing stopped after entry %llu: %s", (unsigned long long)vfs_db_published(n->db), err.text);
	}
}

/* Waits for us microseconds or the end; false: the end. */
static bool pause_us(struct shell_node *n, uint64_t us)
{
	uint64_t deadline = node_now_us(n) + us;
	bool go;

	pthread_mutex_lock(&n->mu);
	while (!n->stop && !n->failed && node_wait(n, &n->published_cond, deadline))
		;
	go = !n->stop && !n->failed;
	pthread_mutex_unlock(&n->mu);
	return go;
}

/* The node thread lets go of what neither a start of this node nor a member needs. */
void node_ask_trim(struct shell_node *n, uint64_t to)
{
	pthread_mutex_lock(&n->mu);
	if (n->mark_index < to)
		to = n->mark_index;
	if (n->shared.keep_above < to)
		to = n->shared.keep_above;
	if (to > raft_journal_base(n->journal)) {
		n->trim_to = to;
		pthread_cond_signal(&n->wake);
	}
	pthread_mutex_unlock(&n->mu);
}

void *node_checkpoint_main(void *node)
{
	struct shell_node *n = node;
	struct vfs_db_status s;
	struct wire_err err;
	bool restarted;
	int rc = WIRE_OK;

	while (!rc && pause_us(n, CHECKPOINT_POLL_US)) {
		vfs_db_status(n->db, &s);
		if (s.wal_frames < s.backfilled + CHECKPOINT_FRAMES && s.wal_frames < RESTART_FRAMES)
			continue;
		rc = vfs_db_checkpoint(n->db, RESTART_FRAMES, &restarted, &err);
		if (rc == WIRE_BUSY)
			rc = WIRE_OK; /* readers: next time */
		if (!rc)
			node_ask_trim(n, vfs_db_trim_limit(n->db));
	}
	if (rc)
		node_fail(n, "checkpoint: %s", err.text);
	return NULL;
}

void *node_upkeep_main(void *node)
{
	struct shell_node *n = node;
	struct wire_err err;

	while (pause_us(n, UPKEEP_POLL_US)) {
		n->store->upkeep(n);
		node_show_alive(n);
		if (raft_journal_upkeep(n->journal, &err)) {
			node_fail(n, "journal: %s", err.text);
			break;
		}
	}
	return NULL;
}
