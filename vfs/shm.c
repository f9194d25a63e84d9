/* The wal-index as a connection sees it: private regions under SQLite's pointers, virtual WRITE and CKPT, real READ locks, the read gate.
 *
 * Foreign changes come in by a pull, in xShmBarrier and at the grant of WRITE, never while WRITE is held. SQLite reads a header's first copy before a barrier and the
 * second one after it, so that a pull there looks like a torn header: it asks for WRITE without a READ lock, and reads again under it. That grant is empty: no lock
 * stands behind it, only the private copy stands still until its unlock. (BUSY would make SQLite start over, and from the tenth time on after a sleep, during which
 * busy writers change the header for sure: SQLITE_PROTOCOL in the end.)
 * The barrier after a READ lock was granted is followed by SQLite's comparison of the header with the one it read before: what was published while the gate waited
 * makes it start over, so that a read that passed the gate never sees less than the gate demanded. */
#include "vfs/conn.h"
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

#define HEADERS_BYTES (2 * sizeof(struct vfs_walindex_hdr))
#define RETRIES_MAX 90u /* SQLite gives up after 100; a token must not outlive its read */

static struct vfs_conn *conn(sqlite3_file *f)
{
	return ((struct shim_file *)f)->conn;
}

static int base_lock(struct vfs_conn *c, int first, int n, int flags)
{
	return c->real->pMethods->xShmLock(c->real, first, n, flags);
}

/* ---- regions and pulls ---- */

void *shim_region(struct vfs_conn *c, uint32_t region)
{
	if (region >= c->n_regions) {
		uint32_t n = region + 8;
		void **grown = realloc(c->region, n * sizeof *grown);

		if (!grown)
			return NULL;
		memset(grown + c->n_regions, 0, (n - c->n_regions) * sizeof *grown);
		c->region = grown;
		c->n_regions = n;
	}
	if (!c->region[region])
		c->region[region] = calloc(1, VFS_REGION_BYTES);
	return c->region[region];
}

static void *region_get(void *ctx, uint32_t region)
{
	return shim_region(ctx, region);
}

/* Brings the private copy to the published state; true when it was another one. */
static bool pull(struct vfs_conn *c)
{
	const struct vfs_regions regions = { c, region_get };
	const uint64_t sequence = vfs_db_sequence(c->db);
	const struct vfs_walindex_hdr before = c->pull.hdr;
	struct wire_err err;
	int rc = vfs_db_pull(c->db, &c->pull, &regions, &err);

	if (rc == WIRE_CLOSED) { /* shim_must_change: what failed before, failed at a node that is gone */
		c->pull_failed = 0;
		return false;
	}
	c->pull_failed = rc == WIRE_OK ? 0 : rc == WIRE_NOMEM ? SQLITE_IOERR_NOMEM : WALRAFT_IOERR_NODE;
	if (c->pull_failed) {
		shim_fail(c, c->pull_failed, "%s", err.text);
		return false;
	}
	c->seen = sequence;
	return memcmp(&before, &c->pull.hdr, sizeof before) != 0;
}

int shim_pull_anew(struct vfs_conn *c)
{
	memset(&c->pull.hdr, 0, sizeof c->pull.hdr);
	pull(c);
	return c->pull_failed;
}

/* SQLite found the header torn, which it is not after this (a failed pull leaves it as it was, and is told at the next lock). */
static void repair(struct vfs_conn *c)
{
	const struct vfs_walindex_hdr *copy = c->region[0];

	if (vfs_db_sequence(c->db) != c->seen)
		pull(c);
	if (memcmp(&copy[0], &c->pull.hdr, sizeof *copy) != 0 || memcmp(&copy[1], &c->pull.hdr, sizeof *copy) != 0) {
		memset(&c->pull.hdr, 0, sizeof c->pull.hdr);
		pull(c);
	}
}

/* Backfill and read marks as they are now. They are read beside others' writes, word by word, as SQLite itself does. */
static void load_ckpt_info(struct vfs_conn *c)
{
	struct vfs_ckpt_info *to = vfs_walindex_ckpt_info(c->region[0]);
	const struct vfs_ckpt_info *from = c->real_ckpt;

	to->backfill = __atomic_load_n(&from->backfill, __ATOMIC_SEQ_CST);
	for (int i = 0; i < VFS_READERS; i++)
		to->read_mark[i] = __atomic_load_n(&from->read_mark[i], __ATOMIC_SEQ_CST);
	to->backfill_attempted = __atomic_load_n(&from->backfill_attempted, __ATOMIC_SEQ_CST);
}

static int map_first(struct vfs_conn *c, int size)
{
	void volatile *p = NULL;
	int rc = c->node ? SQLITE_OK : shim_change_over(c);

	/* The mapping is this handle's own: it stands for as long as the handle has it, whatever becomes of the node. */
	if (rc == SQLITE_OK)
		rc = c->real->pMethods->xShmMap(c->real, 0, size, 0, &p);
	if (rc != SQLITE_OK)
		return rc;
	if (!p)
		return shim_fail(c, SQLITE_IOERR_SHMMAP, "%s-shm has no first region", c->path);
	c->real_ckpt = vfs_walindex_ckpt_info((void *)(uintptr_t)p);
	if (!c->node) {
		rc = shim_pull_anew(c);
		if (rc != SQLITE_OK)
			return rc;
	}
	c->mapped = true;
	return SQLITE_OK;
}

int shim_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **pp)
{
	struct vfs_conn *c = conn(f);
	int rc = shim_alive(c);

	*pp = NULL;
	if (rc == SQLITE_OK && size != VFS_REGION_BYTES)
		rc = shim_fail(c, SQLITE_IOERR_SHMSIZE, "this SQLite has wal-index regions of %d bytes", size);
	if (rc == SQLITE_OK && !c->mapped)
		rc = map_first(c, size);
	if (rc)
		return rc;
	if (c->node)
		*pp = vfs_db_real_region(c->db, (uint32_t)region, extend != 0);
	else if (extend || ((uint32_t)region < c->n_regions && c->region[region]))
		*pp = shim_region(c, (uint32_t)region);
	return *pp || !extend ? SQLITE_OK : SQLITE_IOERR_NOMEM;
}

int shim_shm_unmap(sqlite3_file *f, int delete)
{
	struct vfs_conn *c = conn(f);

	(void)delete; /* -shm is the node's */
	if (shim_alive(c) != SQLITE_OK)
		return SQLITE_OK;
	shim_write_end(c);
	for (uint32_t i = 0; i < c->n_regions; i++)
		free(c->region[i]);
	free(c->region);
	c->region = NULL;
	c->n_regions = 0;
	c->read_slot = -1;
	c->confirming = c->retrying = c->token = c->rereading = c->unmatched = false;
	if (!c->mapped)
		return SQLITE_OK;
	c->mapped = false;
	return c->real->pMethods->xShmUnmap(c->real, 0);
}

void shim_shm_barrier(sqlite3_file *f)
{
	struct vfs_conn *c = conn(f);
	bool changed = false;

	if (shim_alive(c) != SQLITE_OK)
		return;
	if (c->node) {
		c->real->pMethods->xShmBarrier(c->real);
		return;
	}
	if (!c->mapped || c->write || c->rereading)
		return;
	if (vfs_db_sequence(c->db) != c->seen)
		changed = pull(c);
	if (c->confirming && shim_must_change(c) && vfs_db_sequence(c->db) != c->seen)
		shim_spoil_header(c); /* the gate saw more than this read would */
	if (c->read_slot < 0)
		load_ckpt_info(c); /* a reader that is kept from READ1..4 by a restart must learn that READ0 will do */
	if (c->confirming) {
		c->confirming = false;
		c->retrying |= changed;
		if (!c->retrying)
			c->retries = 0;
	}
}

/* ---- READ ---- */

static int pass_gate(struct vfs_conn *c)
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);
	struct wire_err err = { 0 };
	bool waited;
	int rc;

	if (c->want.level == VFS_READ_STALE)
		return SQLITE_OK;
	rc = ops->read_gate(ops->ctx, &c->want, c->timeout_ms, &waited, &err);
	if (rc == WIRE_OK)
		return SQLITE_OK;
	if (rc == WIRE_CLOSED)
		(void)shim_await_end(c);
	return shim_fail(c, WALRAFT_IOERR_READ, "%s: the read could not be confirmed: %s", c->path, err.text);
}

/* READ is taken again in the middle of a write by a connection that had READ0. Meanwhile it was protected by no lock: when others' entries came in (it is
 * fenced then), what it has read may be gone. */
static int relock_in_session(struct vfs_conn *c, int slot)
{
	int rc = base_lock(c, SHIM_READ0 + slot, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);

	if (rc)
		return rc;
	rc = shim_session_check(c);
	if (rc) {
		base_lock(c, SHIM_READ0 + slot, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
		return rc;
	}
	load_ckpt_info(c);
	c->read_slot = slot;
	return SQLITE_OK;
}

/* SQLite will ask again for the read that it is beginning: once through the gate is enough. */
static void give_token(struct vfs_conn *c)
{
	c->token = c->retries < RETRIES_MAX;
	c->retries++;
}

/* The lock that was had ahead was not wanted after all. */
void shim_end_ahead(struct vfs_conn *c)
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);

	if (!c->ahead)
		return;
	c->ahead = false;
	ops->write_unlock(ops->ctx, c, false);
}

void shim_ahead_read(struct vfs_conn *c)
{
	if (c->ahead_reads++ > 1)
		shim_end_ahead(c);
}

/* Where the write lock is another node's to give, a statement that will write asks for it before it reads: what it reads then is what it may write from, and no second round trip is
 * needed for the read. When it cannot be had, all goes on as without. */
static bool lock_ahead(struct vfs_conn *c) /* true: instead of the gate */
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);
	struct vfs_grant grant;
	struct wire_err err;

	if (c->ahead && c->token)
		return true; /* the same read, once more */
	shim_end_ahead(c);
	if (!vfs_db_writes_far(c->db) || c->write_flags || !shim_sole_writer(c))
		return false;
	c->several_voters = ops->several_voters(ops->ctx);
	if (shim_other_writer(c))
		return false;
	c->ahead = ops->write_lock(ops->ctx, c, VFS_WRITE_AHEAD, c->timeout_ms, &grant, &err) == WIRE_OK;
	c->ahead_reads = 0;
	/* A grant that was on its way before this read began may be over, and others have written since: the gate has to tell. Unless this run of the statement has passed it once. */
	return c->ahead && (shim_repeats_refused(c) || grant.fresh);
}

/* The gate, at the node that there is. Should it end meanwhile, at the next one. */
static int begin_read(struct vfs_conn *c)
{
	int rc;

	do {
		rc = shim_change_over(c);
		if (rc == SQLITE_OK && !lock_ahead(c) && !c->token && !shim_repeats_refused(c))
			rc = pass_gate(c);
	} while (rc == WALRAFT_IOERR_READ && shim_must_change(c));
	return rc;
}

static int read_shared(struct vfs_conn *c, int slot)
{
	uint32_t mark;
	int rc = SQLITE_OK;

	shim_read_begins();
	if (c->pull_failed && !shim_must_change(c))
		rc = c->pull_failed;
	else if (c->session.open)
		return relock_in_session(c, slot);
	else
		rc = begin_read(c);
	if (rc == SQLITE_OK)
		rc = base_lock(c, SHIM_READ0 + slot, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
	c->token = false;
	if (rc == SQLITE_BUSY)
		give_token(c);
	else if (rc)
		shim_end_ahead(c);
	if (rc)
		return rc;
	mark = vfs_walindex_ckpt_info(c->region[0])->read_mark[slot];
	load_ckpt_info(c);
	c->read_slot = slot;
	c->confirming = true;
	c->retrying = slot > 0 && mark != vfs_walindex_ckpt_info(c->region[0])->read_mark[slot];
	return SQLITE_OK;
}

static int read_exclusive(struct vfs_conn *c, int slot, int n)
{
	int rc;

	/* All of READ1..4 would be for a restart, READ0 for a checkpoint: both the node's. */
	if (n > 1 || slot == 0)
		return SQLITE_BUSY;
	rc = base_lock(c, SHIM_READ0 + slot, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
	if (rc == SQLITE_OK)
		load_ckpt_info(c);
	return rc;
}

static int read_unlock(struct vfs_conn *c, int slot, int n, bool exclusive)
{
	if (n > 1 || (exclusive && slot == 0))
		return SQLITE_OK;
	if (exclusive) {
		__atomic_store_n(&c->real_ckpt->read_mark[slot], vfs_walindex_ckpt_info(c->region[0])->read_mark[slot], __ATOMIC_SEQ_CST);
		return base_lock(c, SHIM_READ0 + slot, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
	}
	if (c->retrying)
		give_token(c);
	else
		shim_end_ahead(c);
	c->retrying = c->confirming = c->unmatched = false;
	c->read_slot = -1;
	return base_lock(c, SHIM_READ0 + slot, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
}

/* ---- WRITE ---- */

static int not_writable(struct vfs_conn *c, int code, const struct wire_err *err)
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);
	char url[256] = "";

	switch (code) {
	case WIRE_BUSY: /* other writers are nothing to tell of */
		return *err->text ? shim_fail(c, SQLITE_BUSY, "%s: %s", c->path, err->text) : SQLITE_BUSY;
	case WIRE_TIMEOUT:
	case WIRE_NOTLEADER:
		ops->leader_url(ops->ctx, url, sizeof url);
		if (!(c->write_flags & VFS_WRITE_LOCAL))
			return shim_fail(c, WALRAFT_READONLY_NOT_LEADER, "%s cannot be written to from here at present: %s%s%s", c->path, err->text, *url ? "; the leader is " : "", url);
		return shim_fail(c, WALRAFT_READONLY_NOT_LEADER, "%s is written to on the leader, which is %s", c->path,
		                 *url ? url : "not known at present (an election may be under way: try again)");
	default:
		return shim_fail(c, WALRAFT_IOERR_NODE, "%s: %s", c->path, err->text);
	}
}

/* What this transaction has read is the former node's state. One that has only just begun is begun again by SQLite, at the node that there is now; else it is
 * told as a snapshot that is too old to be written from. */
static int node_has_ended(struct vfs_conn *c)
{
	return shim_fail(c, SQLITE_BUSY_SNAPSHOT, "the node of %s ended after the transaction began: roll it back and begin again", c->path);
}

static int write_lock(struct vfs_conn *c)
{
	const struct vfs_node_ops *ops = vfs_db_ops(c->db);
	struct wire_err err = { 0 };
	struct vfs_conn *other;
	struct vfs_grant grant;
	int rc;

	if (c->write)
		return SQLITE_OK;
	if (shim_must_change(c))
		return node_has_ended(c);
	c->several_voters = ops->several_voters(ops->ctx);
	other = shim_other_writer(c);
	if (other)
		return shim_fail(c, WALRAFT_ERROR_TWO_DATABASES, "one transaction cannot write to two replicated databases (%s and %s): it would not be atomic", other->path, c->path);
	rc = ops->write_lock(ops->ctx, c, c->write_flags, c->timeout_ms, &grant, &err);
	c->ahead = false;
	if (rc != WIRE_OK && (shim_must_change(c) || (rc == WIRE_CLOSED && shim_await_end(c))))
		return node_has_ended(c);
	if (rc == WIRE_BUSY)
		shim_refused(c, false);
	if (rc)
		return not_writable(c, rc, &err);
	const bool moved = vfs_db_sequence(c->db) != c->seen && pull(c);
	if (vfs_db_sequence(c->db) != c->seen && shim_must_change(c)) {
		ops->write_unlock(ops->ctx, c, false);
		return node_has_ended(c);
	}
	if (c->pull_failed) {
		ops->write_unlock(ops->ctx, c, false);
		return c->pull_failed;
	}
	shim_granted(c);
	shim_session_begin(c, &grant, moved);
	c->write = true;
	shim_writer_add(c);
	return SQLITE_OK;
}

/* What the private copy has after the session. */
static void settle_header(struct vfs_conn *c)
{
	struct shim_session *s = &c->session;
	const struct vfs_walindex_hdr *want = s->committed ? &s->after : &s->base;

	if (memcmp(c->region[0], want, sizeof *want) == 0) {
		c->pull.hdr = *want;
		return;
	}
	if (!s->committed) {
		c->phantom = true;
		shim_fail(c, SQLITE_OK, "%s: SQLite ended a transaction as committed that was not; nothing of it is there", c->path);
	} else if (!s->mended) {
		shim_fail(c, SQLITE_OK, "%s: after the commit SQLite's wal-index header is not the published one; it is read again", c->path);
	}
	memset(&c->pull.hdr, 0, sizeof c->pull.hdr);
	c->seen--; /* differs from the present sequence for sure: it never goes back */
}

void shim_write_end(struct vfs_conn *c)
{
	const struct vfs_node_ops *ops;
	bool keep = false;

	if (!c->write)
		return;
	c->write = false;
	if (c->node)
		return;
	ops = vfs_db_ops(c->db);
	/* BUSY_SNAPSHOT at the beginning of a transaction: SQLite begins again at once when it may wait. */
	if (c->session.moved && !c->session.wrote && c->sql && *c->sql)
		keep = sqlite3_txn_state(*c->sql, NULL) == SQLITE_TXN_NONE;
	settle_header(c);
	shim_session_end(c);
	shim_writer_remove(c);
	ops->write_unlock(ops->ctx, c, keep);
	if (keep)
		shim_refused(c, true);
}

/* ---- dispatch ---- */

static int node_lock(struct vfs_conn *c, int first, int n, int flags)
{
	if (first >= SHIM_READ0)
		return base_lock(c, first, n, flags);
	if ((flags & SQLITE_SHM_LOCK) && (n > 1 || first == SHIM_RECOVER)) {
		vfs_db_watchdog(c->db);
		return SQLITE_BUSY;
	}
	return SQLITE_OK;
}

/* For a look at the header without anything to compare it with yet. */
static int reread(struct vfs_conn *c)
{
	do {
		int rc = shim_change_over(c);

		if (rc)
			return rc;
		repair(c);
		if (c->pull_failed)
			return c->pull_failed;
	} while (!c->pull.hdr.is_init && shim_must_change(c));
	c->rereading = true;
	return SQLITE_OK;
}

int shim_shm_lock(sqlite3_file *f, int first, int n, int flags)
{
	struct vfs_conn *c = conn(f);
	const bool lock = flags & SQLITE_SHM_LOCK, exclusive = flags & SQLITE_SHM_EXCLUSIVE;
	int rc = shim_alive(c);

	if (rc)
		return rc;
	if (!c->mapped)
		return SQLITE_IOERR_SHMLOCK;
	if (c->node)
		return node_lock(c, first, n, flags);
	if (first >= SHIM_READ0) {
		if (!lock)
			return read_unlock(c, first - SHIM_READ0, n, exclusive);
		return exclusive ? read_exclusive(c, first - SHIM_READ0, n) : read_shared(c, first - SHIM_READ0);
	}
	if (!lock) {
		if (first == SHIM_WRITE && n == 1) {
			c->rereading = false;
			shim_write_end(c);
		}
		return SQLITE_OK;
	}
	if (first == SHIM_WRITE && n == 1 && exclusive)
		return c->read_slot >= 0 ? write_lock(c) : reread(c);
	/* Asked to tell whether somebody recovers the WAL: nobody does while a node has it. */
	if (first == SHIM_RECOVER && !exclusive)
		return SQLITE_OK;
	/* To keep an older snapshot from being checkpointed away while it is opened. It is not worth waiting for. */
	if (first == SHIM_CKPT && !exclusive)
		return shim_fail(c, SQLITE_ERROR_SNAPSHOT, "%s is replicated: its node moves on, and older snapshots cannot be opened", c->path);
	/* A checkpoint's CKPT, or a recovery's CKPT to RECOVER: both the node's. */
	return SQLITE_BUSY;
}
