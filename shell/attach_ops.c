/* What connections ask of a node that another process hosts (vfs_node_ops), on their own threads. */
#include "shell/attach_impl.h"
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now_us(const struct shell_attached *a)
{
	return a->env->now_ns(a->env->ctx) / 1000;
}

/* ---- reads ---- */

/* As lease_covers of a reader in the host (node_ops.c), with the same order: the lease's end, the clock, the index. Here the host may be killed, and another process of this machine be the host
 * then, who under a lease without an end, a single voter's, may commit at once: so last of all it is made sure that `owner` is the one who gave the lease. It is changed
 * before the next host begins, so that at the moment of the first load nobody but this host could acknowledge anything on this machine; on others the lease keeps them from it, whoever is
 * alive here. A time namespace of its own would make our clock another one: then the lease is not used. */
static bool lease_covers(struct shell_attached *a, uint64_t *ret_index)
{
	const struct node_lease *lease = &a->shared->lease;
	uint64_t until = atomic_load_explicit(&lease->until_us, memory_order_acquire), index;
	struct wire_clock_reading now;

	if (!until || (until != UINT64_MAX && !a->same_clock))
		return false;
	if (until != UINT64_MAX) {
		a->clock.now(a->clock.ctx, &now);
		if (now.status != WIRE_CLOCK_OK || now.latest_us >= until)
			return false;
	}
	index = atomic_load_explicit(&lease->read_index, memory_order_acquire);
	if (atomic_load_explicit(&lease->ended, memory_order_seq_cst) || !attached_is_owner_there(a))
		return false;
	if (!atomic_load_explicit(&a->marks->lease_used, memory_order_relaxed))
		atomic_store_explicit(&a->marks->lease_used, 1, memory_order_relaxed);
	*ret_index = index;
	return true;
}

static int wait_published(void *ctx, uint64_t index, uint32_t timeout_ms, struct wire_err *err)
{
	struct shell_attached *a = ctx;
	struct attach_line *l;
	struct wire_in in;
	size_t at;
	int rc;

	if (vfs_db_published(a->db) >= index)
		return WIRE_OK;
	rc = attached_line_take(a, NULL, timeout_ms, &l, err);
	if (rc)
		return rc;
	at = attach_begin(&l->link, ATTACH_WAIT);
	wire_put_u64(&l->link.out, index);
	wire_put_u32(&l->link.out, timeout_ms);
	attach_end(&l->link, at);
	rc = attached_line_ask(a, l, timeout_ms, ATTACH_DONE, &in, err);
	attached_line_give(a, l);
	return rc;
}

static int read_gate(void *ctx, const struct vfs_read_want *want, uint32_t timeout_ms, bool *ret_waited, struct wire_err *err)
{
	struct shell_attached *a = ctx;
	struct attach_line *l;
	struct wire_in in;
	uint64_t index;
	size_t at;
	int rc;

	*ret_waited = false;
	if (want->level == VFS_READ_STALE)
		return WIRE_OK;
	if (want->level == VFS_READ_LEASE && !atomic_load_explicit(&a->marks->lease_wanted, memory_order_relaxed))
		atomic_store_explicit(&a->marks->lease_wanted, 1, memory_order_relaxed);
	if (want->level == VFS_READ_BOUNDED && attached_is_fresh(a, want->bound_ms))
		return WIRE_OK;
	if (want->level != VFS_READ_BOUNDED && lease_covers(a, &index) && vfs_db_published(a->db) >= index)
		return WIRE_OK;
	*ret_waited = true;
	rc = attached_line_take(a, NULL, timeout_ms, &l, err);
	if (rc)
		return rc;
	at = attach_begin(&l->link, ATTACH_GATE);
	wire_put_u8(&l->link.out, (uint8_t)want->level);
	wire_put_u32(&l->link.out, want->bound_ms);
	wire_put_u32(&l->link.out, timeout_ms);
	attach_end(&l->link, at);
	rc = attached_line_ask(a, l, timeout_ms, ATTACH_DONE, &in, err);
	attached_line_give(a, l);
	return rc;
}

/* ---- the write lock ---- */

static int write_lock(void *ctx, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = attached_line_of(a, who);
	struct vfs_walindex_hdr hdr;
	const uint8_t *txid;
	bool fresh;
	struct wire_in in;
	uint64_t epoch, voided;
	size_t at;
	int rc = WIRE_OK;

	if (err)
		*err = (struct wire_err){ 0 };
	if (l && l->dead) {
		attached_line_free(a, l);
		l = NULL;
	}
	if (!l)
		rc = attached_line_take(a, who, timeout_ms, &l, err);
	if (rc)
		return rc;
	at = attach_begin(&l->link, ATTACH_LOCK);
	wire_put_u32(&l->link.out, flags);
	wire_put_u32(&l->link.out, timeout_ms);
	attach_end(&l->link, at);
	rc = attached_line_ask(a, l, timeout_ms, ATTACH_GRANT, &in, err);
	if (rc) {
		pthread_mutex_lock(&a->mu);
		l->held = false; /* by VFS_WRITE_AHEAD it may have been */
		l->epoch = 0;
		pthread_mutex_unlock(&a->mu);
		return rc;
	}
	epoch = wire_get_u64(&in);
	txid = wire_get_bytes(&in, VFS_TXID_BYTES);
	fresh = wire_get_u8(&in) != 0;
	(void)wire_get_u64(&in); /* the connection finds the published state by itself */
	voided = wire_get_u64(&in);
	attach_get_header(&in, &hdr);
	if (!attach_is_whole(&in) || !epoch || !txid)
		return attached_bad_answer(l, err);
	pthread_mutex_lock(&a->mu);
	attached_line_first(a, l); /* it is looked for at every frame */
	l->held = true;
	l->epoch = epoch;
	l->voided = voided;
	l->grant = ++a->n_grants;
	*ret_grant = (struct vfs_grant){ .epoch = l->grant, .fresh = fresh };
	pthread_mutex_unlock(&a->mu);
	memcpy(ret_grant->txid, txid, VFS_TXID_BYTES);
	return WIRE_OK;
}

static void sleep_us(uint64_t us)
{
	struct timespec t = { .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 };

	nanosleep(&t, NULL);
}

/* In pieces of the host's choice: a shorter one than was asked for says that the lock is there to take. */
static uint32_t write_sleep(void *ctx, const void *who, uint32_t us)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = attached_line_of(a, who);
	const uint64_t start = now_us(a), end = start + us;

	while (l && !l->dead) {
		uint64_t now = now_us(a);
		uint32_t left = now < end ? (uint32_t)(end - now) : 0, want = left < 100000 ? left : 100000, slept;
		struct wire_in in;
		size_t at;

		if (!left)
			break;
		at = attach_begin(&l->link, ATTACH_SLEEP);
		wire_put_u32(&l->link.out, want);
		attach_end(&l->link, at);
		if (attached_line_ask(a, l, want / 1000, ATTACH_DONE, &in, NULL))
			break;
		slept = wire_get_u32(&in);
		if (!attach_is_whole(&in)) {
			attached_line_dies(l);
			break;
		}
		if (slept < want)
			return (uint32_t)(now_us(a) - start);
	}
	if (now_us(a) < end)
		sleep_us(end - now_us(a));
	return us;
}

static void write_unlock(void *ctx, const void *who, bool keep)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = attached_line_of(a, who);
	size_t at;

	if (!l)
		return;
	if (l->held && !l->dead) {
		at = attach_begin(&l->link, ATTACH_UNLOCK);
		wire_put_u8(&l->link.out, keep);
		attach_end(&l->link, at);
		if (attach_send(&l->link, ATTACH_PATIENCE_MS, NULL))
			attached_line_dies(l);
	}
	pthread_mutex_lock(&a->mu);
	l->held = false;
	l->epoch = 0;
	pthread_mutex_unlock(&a->mu);
	if (l->dead)
		attached_line_free(a, l);
}

static void write_forget(void *ctx, const void *who)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = attached_line_of(a, who);

	if (l)
		attached_line_give(a, l);
}

/* Asked at every frame. */
static bool epoch_valid(void *ctx, uint64_t epoch)
{
	struct shell_attached *a = ctx;
	struct attach_line *l;
	struct wire_in in;
	uint64_t voided;
	bool valid;
	size_t at;

	if (attached_is_gone(a))
		return false;
	pthread_mutex_lock(&a->mu);
	for (l = a->lines; l && !(l->held && l->grant == epoch); l = l->next)
		;
	pthread_mutex_unlock(&a->mu);
	if (!l || l->dead)
		return false;
	if (atomic_load_explicit(&a->shared->voided, memory_order_acquire) == l->voided)
		return true;
	at = attach_begin(&l->link, ATTACH_VALID);
	wire_put_u64(&l->link.out, l->epoch);
	attach_end(&l->link, at);
	if (attached_line_ask(a, l, 0, ATTACH_DONE, &in, NULL))
		return false;
	valid = wire_get_u8(&in) != 0;
	voided = wire_get_u64(&in);
	if (!attach_is_whole(&in)) {
		attached_line_dies(l);
		return false;
	}
	if (valid)
		l->voided = voided;
	return valid;
}

/* ---- facts ---- */

/* Those who ask have no error to give. */
static void leader_url(void *ctx, char *dst, size_t cap)
{
	struct shell_attached *a = ctx;
	struct attach_line *l;
	struct wire_in in;
	char url[RAFT_URL_MAX + 1] = "";

	*dst = 0;
	if (attached_line_take(a, NULL, 0, &l, NULL))
		return;
	attach_end(&l->link, attach_begin(&l->link, ATTACH_LEADER));
	if (!attached_line_ask(a, l, 0, ATTACH_DONE, &in, NULL)) {
		wire_get_text(&in, url, sizeof url);
		if (attach_is_whole(&in))
			snprintf(dst, cap, "%s", url);
	}
	attached_line_give(a, l);
}

static bool several_voters(void *ctx)
{
	struct shell_attached *a = ctx;

	return atomic_load(&a->shared->several_voters) != 0;
}

static uint64_t wall_us(void *ctx, uint64_t epoch)
{
	struct shell_attached *a = ctx;

	(void)epoch;
	return a->env->wall_us(a->env->ctx);
}

/* What only a node does has no function. */
void attached_ops_make(struct shell_attached *a, struct vfs_node_ops *ret_ops)
{
	*ret_ops = (struct vfs_node_ops){
		.ctx = a,
		.read_gate = read_gate,
		.wait_published = wait_published,
		.write_lock = write_lock,
		.write_sleep = write_sleep,
		.write_unlock = write_unlock,
		.write_forget = write_forget,
		.epoch_valid = epoch_valid,
		.leader_url = leader_url,
		.several_voters = several_voters,
		.wall_us = wall_us,
		.step_of = attached_step_of,
		.outcome = attached_outcome,
		.commit_frames = attached_commit_frames,
	};
}
