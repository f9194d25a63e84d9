/* The end of a published database under connections that outlive it. A connection's calls go through a door: once that is shut nobody comes in any more, and who closes waits until
 * the last one has left. Then files, locks and node go; the object stays for those who hold a reference, who find out by vfs_db_is_retired, and ask for the next one
 * when they hold no lock. */
#include "vfs/db_impl.h"
#include <stdlib.h>
#include <string.h>

#define SLEEP_US 50000u /* at a time, so that a sleeper keeps nobody from closing for longer */

bool vfs_db_enter(struct vfs_db *db)
{
	atomic_fetch_add(&db->inside, 1);
	if (!atomic_load(&db->shut))
		return true;
	vfs_db_leave(db);
	return false;
}

void vfs_db_leave(struct vfs_db *db)
{
	if (atomic_fetch_sub(&db->inside, 1) == 1 && atomic_load(&db->shut)) {
		pthread_mutex_lock(&db->door);
		pthread_cond_broadcast(&db->left);
		pthread_mutex_unlock(&db->door);
	}
}

void vfs_db_retire(struct vfs_db *db)
{
	atomic_store(&db->retiring, true);
}

void db_shut(struct vfs_db *db)
{
	vfs_db_retire(db);
	atomic_store(&db->shut, true);
	pthread_mutex_lock(&db->door);
	while (atomic_load(&db->inside) != 0)
		pthread_cond_wait(&db->left, &db->door);
	pthread_mutex_unlock(&db->door);
}

bool vfs_db_is_retired(struct vfs_db *db)
{
	return atomic_load(&db->retiring) || (db->attached && !attached_is_ours(db));
}

int vfs_db_lock_fd(struct vfs_db *db, bool shared)
{
	atomic_store(&db->shmlock_shared, shared);
	return db->shmlock ? vfs_shmlock_fd(db->shmlock) : -1;
}

static int ended(struct vfs_db *db, struct wire_err *err)
{
	return wire_fail(err, WIRE_CLOSED, "the node of %s has ended", db->path);
}

/* ---- vfs_node_ops behind the door; ctx is the vfs_db ---- */

static int read_gate(void *ctx, const struct vfs_read_want *want, uint32_t timeout_ms, bool *ret_waited, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	*ret_waited = false;
	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.read_gate(db->ops.ctx, want, timeout_ms, ret_waited, err);
	vfs_db_leave(db);
	return rc;
}

static int wait_published(void *ctx, uint64_t index, uint32_t timeout_ms, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.wait_published(db->ops.ctx, index, timeout_ms, err);
	vfs_db_leave(db);
	return rc;
}

static int write_lock(void *ctx, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.write_lock(db->ops.ctx, who, flags, timeout_ms, ret_grant, err);
	vfs_db_leave(db);
	return rc;
}

static uint32_t write_sleep(void *ctx, const void *who, uint32_t us)
{
	struct vfs_db *db = ctx;
	uint32_t slept = 0;

	while (slept < us && vfs_db_enter(db)) {
		uint32_t want = us - slept < SLEEP_US ? us - slept : SLEEP_US, got;

		got = db->ops.write_sleep(db->ops.ctx, who, want);
		vfs_db_leave(db);
		slept += got;
		if (got < want) /* it is this one's turn */
			break;
	}
	return slept;
}

static void write_unlock(void *ctx, const void *who, bool keep)
{
	struct vfs_db *db = ctx;

	if (!vfs_db_enter(db))
		return;
	db->ops.write_unlock(db->ops.ctx, who, keep);
	vfs_db_leave(db);
}

static void write_forget(void *ctx, const void *who)
{
	struct vfs_db *db = ctx;

	if (!vfs_db_enter(db))
		return;
	db->ops.write_forget(db->ops.ctx, who);
	vfs_db_leave(db);
}

static bool epoch_valid(void *ctx, uint64_t epoch)
{
	struct vfs_db *db = ctx;
	bool valid;

	if (!vfs_db_enter(db))
		return false;
	valid = db->ops.epoch_valid(db->ops.ctx, epoch);
	vfs_db_leave(db);
	return valid;
}

static int propose(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.propose(db->ops.ctx, epoch, data, len, timeout_ms, ret_index, err);
	vfs_db_leave(db);
	return rc;
}

static int commit(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.commit(db->ops.ctx, epoch, data, len, timeout_ms, ret_index, err);
	vfs_db_leave(db);
	return rc;
}

static void commit_end(void *ctx, uint64_t index, bool published)
{
	struct vfs_db *db = ctx;

	if (!vfs_db_enter(db))
		return;
	db->ops.commit_end(db->ops.ctx, index, published);
	vfs_db_leave(db);
}

static void leader_url(void *ctx, char *dst, size_t cap)
{
	struct vfs_db *db = ctx;

	if (cap)
		*dst = 0;
	if (!vfs_db_enter(db))
		return;
	db->ops.leader_url(db->ops.ctx, dst, cap);
	vfs_db_leave(db);
}

static bool several_voters(void *ctx)
{
	struct vfs_db *db = ctx;
	bool several;

	if (!vfs_db_enter(db))
		return true; /* the careful answer */
	several = db->ops.several_voters(db->ops.ctx);
	vfs_db_leave(db);
	return several;
}

static uint64_t wall_us(void *ctx, uint64_t epoch)
{
	struct vfs_db *db = ctx;
	uint64_t us;

	if (!vfs_db_enter(db))
		return 0;
	us = db->ops.wall_us(db->ops.ctx, epoch);
	vfs_db_leave(db);
	return us;
}

static int commit_frames(void *ctx, const void *who, const struct vfs_remote_commit *c, struct vfs_remote_result *ret_result, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.commit_frames(db->ops.ctx, who, c, ret_result, err);
	vfs_db_leave(db);
	return rc;
}

static int step_of(void *ctx, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	if (!db->ops.step_of)
		return wire_fail(err, WIRE_UNSUPPORTED, "it can be asked in the process that hosts the node only");
	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.step_of(db->ops.ctx, once, ret_step, err);
	vfs_db_leave(db);
	return rc;
}

static int outcome(void *ctx, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct vfs_db *db = ctx;
	int rc;

	if (!db->ops.outcome)
		return wire_fail(err, WIRE_UNKNOWN, "it can be asked in the process that hosts the node only");
	if (!vfs_db_enter(db))
		return ended(db, err);
	rc = db->ops.outcome(db->ops.ctx, txid, timeout_ms, ret_index, err);
	vfs_db_leave(db);
	return rc;
}

void db_ops_behind_door(struct vfs_db *db)
{
	_Static_assert(sizeof db->door_ops == 21 * sizeof(void *), "each operation that connections use stands below");
	db->door_ops = (struct vfs_node_ops){
		.ctx = db,
		.read_gate = read_gate,
		.wait_published = wait_published,
		.write_lock = write_lock,
		.write_sleep = write_sleep,
		.write_unlock = write_unlock,
		.write_forget = write_forget,
		.epoch_valid = epoch_valid,
		.propose = propose,
		.commit = commit,
		.commit_end = commit_end,
		.leader_url = leader_url,
		.several_voters = several_voters,
		.wall_us = wall_us,
		.step_of = step_of,
		.outcome = outcome,
		.commit_frames = db->ops.commit_frames ? commit_frames : NULL,
	};
}

const struct vfs_node_ops *vfs_db_ops(struct vfs_db *db)
{
	return &db->door_ops;
}

const struct vfs_node_ops *vfs_db_ops_inside(struct vfs_db *db)
{
	return &db->ops;
}
