/* Leadership goes elsewhere: at the end of a node, and on request. A transfer refuses proposals while it is under way, so that a transaction that had begun would fail at its
 * COMMIT. On request, therefore, the mover first takes the virtual write lock, ahead of all writers: the one under way ends, the others wait with their busy timeouts, and
 * are told who leads once it lets go. The same for a change of members that leaves this node out with nobody to hand over to: what is proposed behind the last
 * configuration would have no leader to learn its outcome from. */
#include "shell/node_impl.h"
#include "vfs/wlock.h"

#include <stdlib.h>
#include <string.h>

#define HAND_OVER_US 1000000u
#define LAST_WRITER_MS 500u /* for the transaction under way to end, where the node itself is about to */

void node_hand_over(struct shell_node *n)
{
	uint64_t deadline;
	bool leads, had = false;

	/* Transactions of other nodes' connections end first, as with the mover; this node's own have ended, or are nothing to wait for. */
	pthread_mutex_lock(&n->mu);
	leads = n->shared.role == RAFT_LEADER && n->shared.config.n > 1 && !n->stop && !n->failed && atomic_load(&n->grants.count);
	pthread_mutex_unlock(&n->mu);
	if (leads && n->db)
		had = vfs_wlock_take(vfs_db_wlock(n->db), &n->hand_over, LAST_WRITER_MS);
	deadline = node_now_us(n) + HAND_OVER_US;
	pthread_mutex_lock(&n->mu);
	if (n->shared.role == RAFT_LEADER && n->shared.config.n > 1 && !n->stop && !n->failed) {
		n->hand_over = HAND_OVER_ASKED;
		pthread_cond_signal(&n->wake);
		/* Until somebody else is known to lead, or the core has given it up: it leads on then, and transfer_to is 0 again. */
		while (!n->failed && n->hand_over != HAND_OVER_REFUSED && (!n->shared.leader || n->shared.leader == n->conf.node) &&
		       !(n->hand_over == HAND_OVER_UNDER_WAY && n->shared.role == RAFT_LEADER && !n->shared.transfer_to) && node_wait(n, &n->published_cond, deadline))
			;
	}
	pthread_mutex_unlock(&n->mu);
	if (had)
		vfs_wlock_release(vfs_db_wlock(n->db), &n->hand_over, false);
}

/* --- the mover --- */

#define WRITER_MS 2000u       /* for the transaction under way to end; an idle one is then fenced */
#define SETTLE_US 20000u      /* until what was asked for shows in the shared state */
#define MOVE_US 3000000u      /* it must not keep the writers out for longer, whatever happens */
#define LOOK_US 5000u

void node_drain_for(struct shell_node *n, const char *line)
{
	pthread_mutex_lock(&n->mu);
	if (!n->drain.wanted && (n->drain.line = strdup(line))) {
		n->drain.wanted = true;
		pthread_cond_signal(&n->drain_wake);
	}
	pthread_mutex_unlock(&n->mu);
}

bool node_is_drained(struct shell_node *n)
{
	bool drained;

	pthread_mutex_lock(&n->mu);
	drained = n->drain.at_it && n->drain.holding;
	pthread_mutex_unlock(&n->mu);
	return drained;
}

void node_drain_run(struct shell_node *n)
{
	struct wire_buf answer = WIRE_BUF_INIT; /* whoever asked asks again */
	char *line = NULL;

	pthread_mutex_lock(&n->mu);
	if (n->drain.run) {
		n->drain.run = false;
		n->drain.at_it = true;
		line = n->drain.line;
		n->drain.line = NULL;
	}
	pthread_mutex_unlock(&n->mu);
	if (!line)
		return;
	if (n->shared.role == RAFT_LEADER)
		node_member_line(n, line, &answer);
	wire_buf_free(&answer);
	free(line);
	pthread_mutex_lock(&n->mu);
	n->drain.at_it = false;
	pthread_mutex_unlock(&n->mu);
}

static bool is_moving(const struct shell_node *n) /* mu held */
{
	const struct node_shared *s = &n->shared;

	return n->drain.run || n->drain.at_it || (s->role == RAFT_LEADER && (s->transfer_to || s->config.joint || !s->config_committed));
}

/* With mu held; the write lock is had, if it was to be had. */
static void keep(struct shell_node *n)
{
	uint64_t now = node_now_us(n), end = now + MOVE_US, settled = now + SETTLE_US;

	n->drain.holding = n->drain.run = true;
	pthread_cond_signal(&n->wake);
	while (!n->stop && !n->failed && (now = node_now_us(n)) < end && (is_moving(n) || (n->shared.role == RAFT_LEADER && now < settled)))
		node_wait(n, &n->published_cond, now + LOOK_US);
	n->drain.holding = n->drain.wanted = n->drain.run = false;
	free(n->drain.line);
	n->drain.line = NULL;
}

void *node_mover_main(void *node)
{
	struct shell_node *n = node;

	pthread_mutex_lock(&n->mu);
	while (!n->stop && !n->failed) {
		bool had;

		if (!n->drain.wanted) {
			pthread_cond_wait(&n->drain_wake, &n->mu);
			continue;
		}
		pthread_mutex_unlock(&n->mu);
		had = n->db && vfs_wlock_take(vfs_db_wlock(n->db), &n->drain, WRITER_MS); /* a witness has no writers */
		pthread_mutex_lock(&n->mu);
		keep(n);
		pthread_mutex_unlock(&n->mu);
		if (had)
			vfs_wlock_release(vfs_db_wlock(n->db), &n->drain, false);
		pthread_mutex_lock(&n->mu);
	}
	pthread_mutex_unlock(&n->mu);
	return NULL;
}
