/* What connections ask of the node (vfs_node_ops), on their own threads. */
#include "shell/node_impl.h"
#include "vfs/wlock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Chunks of a large transaction that may be uncommitted at a time: bounds memory on every node. */
#define CHUNKS_IN_FLIGHT 6

struct request *request_new(enum request_kind kind)
{
	struct request *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->kind = kind;
	r->refs = 2;
	node_cond_init(&r->cond);
	return r;
}

int node_closed(struct shell_node *n, struct wire_err *err)
{
	return wire_fail(err, WIRE_CLOSED, "the node of %s has ended its part: %s", n->paths.db,
	                 n->failed ? n->failure : "it is being closed");
}

static void enqueue(struct shell_node *n, struct request *r) /* mu held */
{
	r->corr = ++n->next_corr;
	r->posted_us = node_now_us(n);
	*n->requests_tail = r;
	n->requests_tail = &r->next;
	pthread_cond_signal(&n->wake);
}

int request_ask(struct shell_node *n, struct request *r, uint64_t deadline_us, struct wire_err *err)
{
	int rc = WIRE_OK;

	pthread_mutex_lock(&n->mu);
	if (n->stop || n->failed) {
		r->refs--; /* the node thread's */
		rc = node_closed(n, err);
	} else {
		enqueue(n, r);
		while (!r->done && node_wait(n, &r->cond, deadline_us))
			;
		if (!r->done) {
			r->abandoned = true;
			rc = n->failed ? node_closed(n, err) : wire_fail(err, WIRE_TIMEOUT, "no answer in time");
		}
	}
	pthread_mutex_unlock(&n->mu);
	return rc;
}

void request_post(struct shell_node *n, struct request *r)
{
	pthread_mutex_lock(&n->mu);
	r->refs--;
	if (n->stop || n->failed)
		request_unref(r);
	else
		enqueue(n, r);
	pthread_mutex_unlock(&n->mu);
}

void request_drop(struct shell_node *n, struct request *r)
{
	pthread_mutex_lock(&n->mu);
	request_unref(r);
	pthread_mutex_unlock(&n->mu);
}

void node_member_ask(struct shell_node *n, const char *line, unsigned timeout_ms, struct wire_buf *ret_answer)
{
	struct request *r = request_new(REQUEST_MEMBER);
	struct wire_err err = { .text = "out of memory" };
	int rc = WIRE_NOMEM;

	if (r && (r->data = (uint8_t *)strdup(line))) {
		r->size = (uint32_t)strlen(line);
		rc = request_ask(n, r, node_now_us(n) + (uint64_t)timeout_ms * 1000, &err);
	} else if (r) {
		r->refs--; /* the node thread's */
	}
	if (!rc && r->code)
		rc = wire_fail(&err, r->code, "this node is being closed");
	if (!rc)
		wire_put_bytes(ret_answer, r->answer.data, r->answer.len);
	else if (rc == WIRE_TIMEOUT)
		node_member_answer(ret_answer, "working", "the leader does not answer");
	else
		node_member_answer(ret_answer, "failed", "%s", err.text);
	if (r)
		request_drop(n, r);
}

/* --- writes --- */

/* With the write lock had: may a transaction begin under this node's leadership? */
static int write_begin(struct shell_node *n, const void *who, struct vfs_grant *ret_grant, struct wire_err *err)
{
	int rc = WIRE_OK;

	pthread_mutex_lock(&n->mu);
	if (n->stop || n->failed)
		rc = node_closed(n, err);
	else if (n->shared.role != RAFT_LEADER && (n->shared.leader || n->shared.removed))
		rc = wire_fail(err, WIRE_NOTLEADER, "this node does not lead");
	else if (n->shared.role != RAFT_LEADER) /* worth waiting for: it may be this one */
		rc = wire_fail(err, WIRE_BUSY, "no leader is known: an election is under way, or this node is cut off from the majority");
	else if (n->shared.transfer_to)
		rc = wire_fail(err, WIRE_BUSY, "this node is handing the leadership over");
	/* It was had under an earlier leadership, and taken away before this one showed: somebody else may have it, or have had it. (A leaf's mutex.) */
	else if (vfs_wlock_holder(vfs_db_wlock(n->db)) != who)
		rc = wire_fail(err, WIRE_BUSY, "leadership is changing hands");
	else if (!n->shared.leader_ready || n->proposing || vfs_db_published(n->db) != n->shared.last_index)
		rc = wire_fail(err, WIRE_BUSY, "the leader has entries that are not settled yet");
	else
		shell_txid_next(&n->txids, n->shared.term, n->shared.last_index, ret_grant->txid);
	if (!rc) {
		ret_grant->epoch = n->shared.term;
		ret_grant->fresh = false;
		n->granted_who = who;
		memcpy(n->granted_txid, ret_grant->txid, sizeof n->granted_txid);
	}
	pthread_mutex_unlock(&n->mu);
	return rc;
}

static void grant_over(struct shell_node *n, const void *who)
{
	pthread_mutex_lock(&n->mu);
	if (n->granted_who == who) /* it may have been another's since the lock was voided */
		n->granted_who = NULL;
	pthread_mutex_unlock(&n->mu);
}

static int lock_here(struct shell_node *n, const void *who, struct vfs_grant *ret_grant, struct wire_err *err)
{
	struct vfs_wlock *w = vfs_db_wlock(n->db);
	int rc;

	node_forward_forget(n, who); /* of a leader before this one */
	if (!vfs_wlock_try(w, who) && !(node_grants_await_end(n, who) && vfs_wlock_try(w, who)))
		return WIRE_BUSY;
	rc = write_begin(n, who, ret_grant, err);
	if (rc)
		vfs_wlock_release(w, who, false);
	return rc;
}

static int write_lock(void *ctx, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err)
{
	struct shell_node *n = ctx;

	if (err)
		*err = (struct wire_err){ 0 };
	if ((flags & VFS_WRITE_LOCAL) || !atomic_load_explicit(&n->forward.away, memory_order_relaxed))
		return lock_here(n, who, ret_grant, err);
	return node_forward_lock(n, who, flags, timeout_ms, ret_grant, err);
}

bool node_grant_is_held(const struct shell_node *n, const uint8_t txid[VFS_TXID_BYTES])
{
	return (n->granted_who && memcmp(n->granted_txid, txid, VFS_TXID_BYTES) == 0) || node_grants_holds(n, txid);
}

static uint32_t write_sleep(void *ctx, const void *who, uint32_t us)
{
	struct shell_node *n = ctx;

	uint32_t slept;

	return node_forward_sleep(n, who, us, &slept) ? slept : vfs_wlock_sleep(vfs_db_wlock(n->db), who, us);
}

static void write_unlock(void *ctx, const void *who, bool keep)
{
	struct shell_node *n = ctx;

	if (node_forward_unlock(n, who, keep))
		return;
	grant_over(n, who);
	vfs_wlock_release(vfs_db_wlock(n->db), who, keep);
}

static void write_forget(void *ctx, const void *who)
{
	struct shell_node *n = ctx;

	node_forward_forget(n, who);
	vfs_wlock_forget(vfs_db_wlock(n->db), who);
}

static bool epoch_valid(void *ctx, uint64_t epoch)
{
	struct shell_node *n = ctx;
	bool valid;

	if (epoch & NODE_FORWARD_EPOCH)
		return node_forward_valid(n, epoch);
	pthread_mutex_lock(&n->mu);
	valid = !n->stop && !n->failed && n->shared.role == RAFT_LEADER && n->shared.term == epoch;
	pthread_mutex_unlock(&n->mu);
	return valid;
}

static struct request *proposal(uint64_t epoch, const void *data, size_t len, bool is_close, struct wire_err *err)
{
	struct request *r = len <= WIRE_ENTRY_MAX ? request_new(REQUEST_PROPOSE) : NULL;

	if (len > WIRE_ENTRY_MAX) {
		wire_fail(err, WIRE_TOOBIG, "an entry of %zu bytes is over the limit", len);
		return NULL;
	}
	if (r && !(r->data = malloc(len ? len : 1))) {
		r->refs = 1;
		request_unref(r);
		r = NULL;
	}
	if (!r) {
		wire_fail(err, WIRE_NOMEM, "no memory for proposing a transaction");
		return NULL;
	}
	memcpy(r->data, data, len);
	r->size = (uint32_t)len;
	r->epoch = epoch;
	r->is_close = is_close;
	return r;
}

/* Under a grant of the leader's. */
static int propose_away(struct shell_node *n, uint64_t epoch, const void *data, size_t len, bool is_close, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct request *r = proposal(epoch, data, len, is_close, err);
	int rc;

	if (!r)
		return err ? err->code : WIRE_NOMEM;
	rc = node_forward_propose(n, epoch, r, timeout_ms, ret_index, err);
	request_drop(n, r);
	return rc;
}

static int propose(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index,
                   struct wire_err *err)
{
	struct shell_node *n = ctx;
	uint64_t deadline = node_now_us(n) + (uint64_t)timeout_ms * 1000;
	struct request *r;
	int rc = WIRE_OK;

	if (epoch & NODE_FORWARD_EPOCH)
		return propose_away(n, epoch, data, len, false, timeout_ms, ret_index, err);
	pthread_mutex_lock(&n->mu);
	/* Polled: commit moves without a signal of its own, and a chunk takes milliseconds anyway. */
	while (!n->stop && !n->failed && n->shared.term == epoch && n->shared.last_index > n->shared.commit + CHUNKS_IN_FLIGHT &&
	       node_now_us(n) < deadline)
		node_wait(n, &n->published_cond, node_now_us(n) + 1000);
	if (n->stop || n->failed)
		rc = node_closed(n, err);
	else if (n->shared.term == epoch && n->shared.last_index > n->shared.commit + CHUNKS_IN_FLIGHT)
		rc = wire_fail(err, WIRE_TIMEOUT, "the quorum does not keep up with the transaction");
	pthread_mutex_unlock(&n->mu);
	if (rc)
		return rc;
	if (!(r = proposal(epoch, data, len, false, err)))
		return err ? err->code : WIRE_NOMEM;
	rc = request_ask(n, r, deadline, err);
	if (!rc && r->code)
		rc = wire_fail(err, r->code == WIRE_NOTLEADER ? WIRE_FENCED : r->code, "leadership was lost during the transaction");
	if (!rc)
		*ret_index = r->index;
	request_drop(n, r);
	return rc;
}

static int commit(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index,
                  struct wire_err *err)
{
	struct shell_node *n = ctx;
	struct request *r;
	int rc;

	if (epoch & NODE_FORWARD_EPOCH)
		return propose_away(n, epoch, data, len, true, timeout_ms, ret_index, err);
	r = proposal(epoch, data, len, true, err);
	if (!r)
		return err ? err->code : WIRE_NOMEM;
	rc = request_ask(n, r, node_now_us(n) + (uint64_t)timeout_ms * 1000, err);
	if (rc == WIRE_TIMEOUT)
		rc = wire_fail(err, WIRE_UNKNOWN, "no quorum within %u ms: whether the transaction is committed is open", timeout_ms);
	else if (rc == WIRE_CLOSED && r->abandoned)
		rc = wire_fail(err, WIRE_UNKNOWN, "this node failed while the transaction was being committed: its outcome is open");
	else if (!rc && r->code == WIRE_LOST)
		rc = wire_fail(err, WIRE_LOST, "another leader superseded the transaction: it is not committed");
	else if (!rc && r->code == WIRE_UNKNOWN)
		rc = wire_fail(err, WIRE_UNKNOWN, "the node ended its part: whether the transaction is committed is open");
	else if (!rc && r->code)
		rc = wire_fail(err, r->code, r->code == WIRE_BUSY ? "this node is handing the leadership over" : "leadership was lost before the transaction was proposed");
	else if (!rc)
		*ret_index = r->index;
	request_drop(n, r);
	return rc;
}

static void commit_end(void *ctx, uint64_t index, bool published)
{
	struct shell_node *n = ctx;

	if (published)
		node_tell(n->events, RAFT_TOLD_MACHINE_COMMAND, 0, index, 0);
	pthread_mutex_lock(&n->mu);
	node_pending_remove(n, index);
	if (vfs_db_published(n->db) < node_publish_limit(n))
		pthread_cond_signal(&n->publish_wake);
	pthread_cond_broadcast(&n->published_cond);
	pthread_mutex_unlock(&n->mu);
	if (!published)
		node_fail(n, "a committed transaction (entry %llu) could not be written to the WAL", (unsigned long long)index);
}

/* --- notes in the journal --- */

static int note_publication(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err)
{
	struct shell_node *n = ctx;
	struct raft_journal_publication p = { .mx_frame = pos->mx_frame, .index = index };

	memcpy(p.salt, pos->salt, sizeof p.salt);
	memcpy(p.cksum, pos->cksum, sizeof p.cksum);
	return raft_journal_append_publication(n->journal, &p, err);
}

static int note_restart(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err)
{
	struct shell_node *n = ctx;
	int rc = note_publication(ctx, pos, index, err);

	return rc ? rc : raft_journal_sync(n->journal, err);
}

static int note_mark(void *ctx, uint64_t index, uint64_t checksum, uint32_t db_pages, struct wire_err *err)
{
	struct shell_node *n = ctx;
	struct raft_journal_mark m = { .index = index, .checksum = checksum, .db_pages = db_pages };
	int rc = node_ledger_flush(n, index, err);

	if (!rc)
		rc = node_mark_write(n, &m, err);
	if (!rc)
		rc = raft_journal_append_mark(n->journal, &m, err);
	if (!rc)
		rc = raft_journal_sync(n->journal, err);
	if (!rc) {
		pthread_mutex_lock(&n->mu);
		n->mark_index = index;
		pthread_mutex_unlock(&n->mu);
	}
	return rc;
}

static void leader_url(void *ctx, char *dst, size_t cap)
{
	shell_node_leader_url(ctx, dst, cap);
}

static uint32_t count_voters(const struct shell_node *n) /* mu held */
{
	const struct raft_config *c = &n->shared.config;
	uint32_t voters = 0;

	for (uint32_t i = 0; i < c->n; i++)
		voters += c->m[i].flags & (RAFT_VOTER | RAFT_VOTER_OLD) ? 1 : 0;
	return voters;
}

bool node_several_voters(const struct shell_node *n)
{
	return count_voters(n) > 1;
}

static bool several_voters(void *ctx)
{
	struct shell_node *n = ctx;
	bool several;

	pthread_mutex_lock(&n->mu);
	several = node_several_voters(n);
	pthread_mutex_unlock(&n->mu);
	return several;
}

static uint64_t wall_us(void *ctx, uint64_t epoch)
{
	struct shell_node *n = ctx;

	if (epoch & NODE_FORWARD_EPOCH)
		return node_forward_wall_us(n, epoch);
	return n->env->wall_us(n->env->ctx);
}

void node_ops_make(struct shell_node *n, struct vfs_node_ops *ret_ops)
{
	*ret_ops = (struct vfs_node_ops){
		.ctx = n,
		.read_gate = node_read_gate,
		.wait_published = node_wait_published,
		.write_lock = write_lock,
		.write_sleep = write_sleep,
		.write_unlock = write_unlock,
		.write_forget = write_forget,
		.epoch_valid = epoch_valid,
		.propose = propose,
		.commit = commit,
		.commit_end = commit_end,
		.note_publication = note_publication,
		.effects = node_ledger_effects,
		.note_restart = note_restart,
		.note_mark = note_mark,
		.leader_url = leader_url,
		.several_voters = several_voters,
		.wall_us = wall_us,
		.step_of = node_step_of,
		.outcome = node_outcome,
	};
}
