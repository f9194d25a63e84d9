/* Transactions as their application knows them: by id, and as the step of a client that is to be applied exactly once.
 *
 * A step is declared under WRITE, so that nothing can come in between: what is published then is all that can have been applied before it, and stays so until the transaction's own entry or
 * its end. The declaration is the session's, and lives as long; savepoints that are rolled back take it along. It goes into the entry with the pages, and so is applied with
 * them or not at all. It is looked at once more before the entry is made, in the process that hosts the node, so that no way leads past that. */
#include "vfs/conn.h"
#include <string.h>

SQLITE_EXTENSION_INIT3

bool vfs_conn_txid(struct vfs_conn *c, uint8_t ret_txid[VFS_TXID_BYTES])
{
	static const uint8_t none[VFS_TXID_BYTES];

	if (memcmp(c->txid, none, sizeof none) == 0)
		return false;
	memcpy(ret_txid, c->txid, sizeof c->txid);
	return true;
}

/* ---- outcomes ---- */

int vfs_conn_outcome(struct vfs_conn *c, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	const struct vfs_node_ops *ops;
	int rc;

	if (shim_alive(c) != SQLITE_OK)
		return wire_fail(err, WIRE_CLOSED, "%s", c->error);
	if (!c->db)
		return wire_fail(err, WIRE_INVALID, "%s is not replicated yet", c->path);
	if (c->session.open && memcmp(c->session.txid, txid, VFS_TXID_BYTES) == 0) {
		rc = wire_fail(err, WIRE_UNKNOWN, "it is the transaction that this connection is just running");
	} else {
		if (c->read_slot < 0 && !c->write && shim_change_over(c) != SQLITE_OK)
			return wire_fail(err, WIRE_CLOSED, "%s", c->error);
		ops = vfs_db_ops(c->db);
		rc = ops->outcome(ops->ctx, txid, timeout_ms, ret_index, err);
	}
	if (rc)
		shim_fail(c, SQLITE_OK, "%s: %s", c->path, err->text);
	return rc;
}

/* ---- steps ---- */

static int find(struct vfs_conn *c, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err)
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);

	return ops->step_of(ops->ctx, once, ret_step, err);
}

static int is_repeated(struct vfs_conn *c, const struct vfs_once *once, const struct vfs_step *step)
{
	return shim_fail(c, WALRAFT_READONLY_REPEATED, "%s: the client's step %llu was applied before (its latest is %llu): nothing of this transaction is written", c->path,
	                 (unsigned long long)once->seq, (unsigned long long)step->seq);
}

int vfs_conn_once(struct vfs_conn *c, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err)
{
	struct shim_session *s = &c->session;
	struct vfs_step step;
	int rc;

	if (!s->open || s->committed)
		return wire_fail(err, WIRE_INVALID, "no write transaction is under way");
	if (s->once.id_len || s->repeated)
		return wire_fail(err, WIRE_INVALID, "this transaction is a client's step already: one transaction is one step");
	rc = shim_session_check(c);
	if (rc)
		return wire_fail(err, WIRE_FENCED, "%s", c->error);
	rc = find(c, once, &step, err);
	if (rc)
		return rc;
	s->once_at = s->savepoints;
	s->repeated = step.index && once->seq <= step.seq;
	if (!s->repeated)
		s->once = *once;
	if (step.index && once->seq < step.seq)
		(void)shim_fail(c, WALRAFT_READONLY_REPEATED, "%s: the client's sequence has moved on: step %llu was asked for, and step %llu was applied already, at position %016llx", c->path,
		                (unsigned long long)once->seq, (unsigned long long)step.seq, (unsigned long long)step.index);
	*ret_step = step;
	return WIRE_OK;
}

void vfs_conn_savepoint(struct vfs_conn *c, enum vfs_savepoint_op op, int n)
{
	struct shim_session *s = &c->session;

	if (op == VFS_SAVEPOINT_BEGIN) {
		s->savepoints = n + 1;
		return;
	}
	s->savepoints = op == VFS_SAVEPOINT_ROLLBACK ? n + 1 : n;
	if (s->once_at <= n)
		return;
	s->once_at = n;
	if (op == VFS_SAVEPOINT_ROLLBACK) {
		s->once.id_len = 0;
		s->repeated = false;
	}
}

int shim_once_refused(struct vfs_conn *c)
{
	return c->session.failed = shim_fail(c, WALRAFT_READONLY_REPEATED, "%s: the transaction repeats a step that was applied before: nothing of it is written", c->path);
}

int shim_once_check(struct vfs_conn *c)
{
	const struct vfs_once *once = &c->session.once;
	struct wire_err err = { 0 };
	struct vfs_step step;

	if (!once->id_len)
		return SQLITE_OK;
	if (find(c, once, &step, &err) != WIRE_OK)
		return shim_fail(c, WALRAFT_IOERR_NOT_COMMITTED, "%s: not committed: %s", c->path, err.text);
	return step.index && once->seq <= step.seq ? is_repeated(c, once, &step) : SQLITE_OK;
}
