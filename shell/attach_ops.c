/* What connections ask of a node that another process hosts (vfs_node_ops), on their own threads. */
#include "shell/attach_impl.h"
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDLE_MAX 4u          /* lines that wait for their next use */
#define SEND_BYTES (128u << 10)
#define LOOK_MS 250u         /* how often who waits for a commit looks whether the host is stuck */
#define STUCK_US 5000000u    /* without a sign of life */

static uint64_t now_us(const struct shell_attached *a)
{
	return a->env->now_ns(a->env->ctx) / 1000;
}

static bool is_gone(const struct shell_attached *a)
{
	return atomic_load_explicit(&a->gone, memory_order_relaxed) || !attached_is_owner_there(a);
}

/* ---- lines ---- */

static void unlink_line(struct shell_attached *a, struct attach_line *l) /* mu held */
{
	for (struct attach_line **at = &a->lines; *at; at = &(*at)->next) {
		if (*at == l) {
			*at = l->next;
			return;
		}
	}
}

static void line_free(struct shell_attached *a, struct attach_line *l)
{
	pthread_mutex_lock(&a->mu);
	unlink_line(a, l);
	pthread_mutex_unlock(&a->mu);
	attach_link_close(&l->link);
	free(l);
}

void attached_drop_lines(struct shell_attached *a)
{
	while (a->lines)
		line_free(a, a->lines);
}

/* Nothing goes over it any more; what stood behind it is given up by the host. */
static void line_dies(struct attach_line *l)
{
	l->dead = true;
	attach_link_close(&l->link);
}

static struct attach_line *line_of(struct shell_attached *a, const void *who)
{
	struct attach_line *l;

	pthread_mutex_lock(&a->mu);
	for (l = a->lines; l && l->who != who; l = l->next)
		;
	pthread_mutex_unlock(&a->mu);
	return l;
}

/* One that waits, or a new one; who: NULL for a single question. */
static int line_take(struct shell_attached *a, const void *who, struct attach_line **ret_line, struct wire_err *err)
{
	struct attach_line *l;
	int rc;

	if (is_gone(a))
		return attached_gone(a, err);
	pthread_mutex_lock(&a->mu);
	for (l = a->lines; l && (l->who || l->taken); l = l->next)
		;
	if (l) {
		l->who = who;
		l->taken = true;
		a->idle--;
	}
	pthread_mutex_unlock(&a->mu);
	if (l) {
		*ret_line = l;
		return WIRE_OK;
	}
	l = calloc(1, sizeof *l);
	if (!l)
		return wire_fail(err, WIRE_NOMEM, "no memory for a connection to the process that hosts the node");
	rc = attached_connect(a, &l->link, err);
	if (rc) {
		free(l);
		return rc;
	}
	l->who = who;
	l->taken = true;
	pthread_mutex_lock(&a->mu);
	l->next = a->lines;
	a->lines = l;
	pthread_mutex_unlock(&a->mu);
	*ret_line = l;
	return WIRE_OK;
}

static void line_give(struct shell_attached *a, struct attach_line *l)
{
	bool keep;

	pthread_mutex_lock(&a->mu);
	keep = !l->dead && !l->held && a->idle < IDLE_MAX;
	if (keep) {
		l->who = NULL;
		l->taken = false;
		l->epoch = 0;
		a->idle++;
	}
	pthread_mutex_unlock(&a->mu);
	if (!keep)
		line_free(a, l);
}

/* Sends what was put together and waits for the answer. FAIL is its error; any other answer than `want` ends the line. WIRE_CLOSED: the host has ended. */
static int ask(struct shell_attached *a, struct attach_line *l, uint64_t timeout_ms, enum attach_type want, struct wire_in *ret_in, struct wire_err *err)
{
	const unsigned patience_ms = timeout_ms + ATTACH_PATIENCE_MS < UINT32_MAX / 2 ? (unsigned)timeout_ms + ATTACH_PATIENCE_MS : UINT32_MAX / 2;
	char text[sizeof err->text];
	enum attach_type type;
	struct wire_in in;
	uint32_t code;
	int rc = attach_send(&l->link, ATTACH_PATIENCE_MS, err);

	if (!rc)
		rc = attach_receive(&l->link, patience_ms, ATTACH_PATIENCE_MS, &type, &in, err);
	if (!rc && type == want) {
		*ret_in = in;
		return WIRE_OK;
	}
	if (!rc && type == ATTACH_FAIL) {
		code = wire_get_u32(&in);
		wire_get_text(&in, text, sizeof text);
		if (attach_is_whole(&in) && code > WIRE_OK && code < WIRE_CODE_COUNT) {
			wire_fail(err, (int)code, "%s", text);
			return (int)code;
		}
	}
	line_dies(l);
	if (rc == WIRE_TIMEOUT)
		return wire_fail(err, rc, "the process that hosts the node does not answer: it is stopped, or stuck");
	if (rc == WIRE_CLOSED)
		return attached_gone(a, err);
	return rc ? rc : wire_fail(err, WIRE_INVALID, "the process that hosts the node gave an answer that is none");
}

static int bad_answer(struct attach_line *l, struct wire_err *err)
{
	line_dies(l);
	return wire_fail(err, WIRE_INVALID, "the process that hosts the node gave an answer that is none");
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
	rc = line_take(a, NULL, &l, err);
	if (rc)
		return rc;
	at = attach_begin(&l->link, ATTACH_WAIT);
	wire_put_u64(&l->link.out, index);
	wire_put_u32(&l->link.out, timeout_ms);
	attach_end(&l->link, at);
	rc = ask(a, l, timeout_ms, ATTACH_DONE, &in, err);
	line_give(a, l);
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
	rc = line_take(a, NULL, &l, err);
	if (rc)
		return rc;
	at = attach_begin(&l->link, ATTACH_GATE);
	wire_put_u8(&l->link.out, (uint8_t)want->level);
	wire_put_u32(&l->link.out, want->bound_ms);
	wire_put_u32(&l->link.out, timeout_ms);
	attach_end(&l->link, at);
	rc = ask(a, l, timeout_ms, ATTACH_DONE, &in, err);
	line_give(a, l);
	return rc;
}

/* ---- the write lock ---- */

static int write_lock(void *ctx, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = line_of(a, who);
	struct vfs_walindex_hdr hdr;
	const uint8_t *txid;
	struct wire_in in;
	uint64_t epoch, voided;
	size_t at;
	int rc = WIRE_OK;

	if (err)
		*err = (struct wire_err){ 0 };
	if (l && l->dead) {
		line_free(a, l);
		l = NULL;
	}
	if (!l)
		rc = line_take(a, who, &l, err);
	if (rc)
		return rc;
	at = attach_begin(&l->link, ATTACH_LOCK);
	wire_put_u32(&l->link.out, flags);
	wire_put_u32(&l->link.out, timeout_ms);
	attach_end(&l->link, at);
	rc = ask(a, l, timeout_ms, ATTACH_GRANT, &in, err);
	if (rc)
		return rc;
	epoch = wire_get_u64(&in);
	txid = wire_get_bytes(&in, VFS_TXID_BYTES);
	(void)wire_get_u64(&in); /* the connection finds the published state by itself */
	voided = wire_get_u64(&in);
	attach_get_header(&in, &hdr);
	if (!attach_is_whole(&in) || !epoch || !txid)
		return bad_answer(l, err);
	pthread_mutex_lock(&a->mu);
	l->held = true;
	l->epoch = epoch;
	l->voided = voided;
	pthread_mutex_unlock(&a->mu);
	ret_grant->epoch = epoch;
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
	struct attach_line *l = line_of(a, who);
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
		if (ask(a, l, want / 1000, ATTACH_DONE, &in, NULL))
			break;
		slept = wire_get_u32(&in);
		if (!attach_is_whole(&in)) {
			line_dies(l);
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
	struct attach_line *l = line_of(a, who);
	size_t at;

	if (!l)
		return;
	if (l->held && !l->dead) {
		at = attach_begin(&l->link, ATTACH_UNLOCK);
		wire_put_u8(&l->link.out, keep);
		attach_end(&l->link, at);
		if (attach_send(&l->link, ATTACH_PATIENCE_MS, NULL))
			line_dies(l);
	}
	pthread_mutex_lock(&a->mu);
	l->held = false;
	l->epoch = 0;
	pthread_mutex_unlock(&a->mu);
	if (l->dead)
		line_free(a, l);
}

static void write_forget(void *ctx, const void *who)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = line_of(a, who);

	if (l)
		line_give(a, l);
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

	if (is_gone(a))
		return false;
	pthread_mutex_lock(&a->mu);
	for (l = a->lines; l && !(l->held && l->epoch == epoch); l = l->next)
		;
	pthread_mutex_unlock(&a->mu);
	if (!l || l->dead)
		return false;
	if (atomic_load_explicit(&a->shared->voided, memory_order_acquire) == l->voided)
		return true;
	at = attach_begin(&l->link, ATTACH_VALID);
	wire_put_u64(&l->link.out, epoch);
	attach_end(&l->link, at);
	if (ask(a, l, 0, ATTACH_DONE, &in, NULL))
		return false;
	valid = wire_get_u8(&in) != 0;
	voided = wire_get_u64(&in);
	if (!attach_is_whole(&in)) {
		line_dies(l);
		return false;
	}
	if (valid)
		l->voided = voided;
	return valid;
}

/* ---- commits ---- */

/* Puts frames and the question into the line, sending what is too much to keep. WIRE_OK with *ret_code: an SQLite code of reading them. */
static int send_frames(struct attach_line *l, const struct vfs_remote_commit *c, int *ret_code, struct wire_err *err)
{
	struct wire_buf *b = &l->link.out;
	size_t at;
	int rc = WIRE_OK;

	for (uint64_t done = 0; done < c->bytes && !rc;) {
		uint32_t n = c->bytes - done < ATTACH_PIECE ? (uint32_t)(c->bytes - done) : ATTACH_PIECE;

		at = attach_begin(&l->link, ATTACH_FRAMES);
		wire_put_u64(b, done);
		if (!wire_buf_reserve(b, n))
			return wire_fail(err, WIRE_NOMEM, "no memory for a message");
		*ret_code = c->read(c->read_ctx, b->data + b->len, n, done);
		if (*ret_code)
			return WIRE_OK;
		b->len += n;
		attach_end(&l->link, at);
		done += n;
		if (b->len >= SEND_BYTES)
			rc = attach_send(&l->link, STUCK_US / 1000, err);
	}
	if (rc)
		return rc;
	at = attach_begin(&l->link, ATTACH_COMMIT);
	wire_put_u64(b, c->epoch);
	wire_put_u64(b, c->sequence);
	wire_put_u32(b, c->n_frames);
	wire_put_u32(b, c->db_after);
	wire_put_u32(b, c->timeout_ms);
	wire_put_u8(b, c->rewritten);
	wire_put_u64(b, c->bytes);
	attach_put_header(b, &c->base);
	attach_put_step(b, &c->once);
	attach_end(&l->link, at);
	return attach_send(&l->link, STUCK_US / 1000, err);
}

/* However long it takes: each step of the host's has its own limit. Not when it gives no sign of life. */
static int await_outcome(struct shell_attached *a, struct attach_line *l, uint32_t timeout_ms, struct vfs_remote_result *ret_result, struct wire_err *err)
{
	const uint64_t patient_until = now_us(a) + (uint64_t)timeout_ms * 1000 + ATTACH_PATIENCE_MS * 1000;
	struct vfs_remote_result r = { 0 };
	enum attach_type type;
	struct wire_in in;
	int rc;

	for (;;) {
		uint64_t now;

		rc = attach_receive(&l->link, LOOK_MS, ATTACH_PATIENCE_MS, &type, &in, err);
		if (rc != WIRE_TIMEOUT)
			break;
		now = now_us(a);
		if (is_gone(a) || (now >= patient_until && atomic_load_explicit(&a->shared->alive_us, memory_order_relaxed) + STUCK_US < now))
			break;
	}
	if (!rc && type == ATTACH_COMMITTED) {
		r.code = (int)wire_get_u32(&in);
		wire_get_text(&in, r.text, sizeof r.text);
		r.mended = wire_get_u8(&in) != 0;
		r.index = wire_get_u64(&in);
		attach_get_header(&in, &r.after);
		if (attach_is_whole(&in)) {
			*ret_result = r;
			return WIRE_OK;
		}
	}
	line_dies(l);
	return wire_fail(err, WIRE_UNKNOWN, "%s while the transaction was being committed: whether it is committed is open",
	                 rc == WIRE_TIMEOUT && !is_gone(a) ? "the process that hosts the node did not answer" : "the process that hosted the node ended");
}

static int commit_frames(void *ctx, const void *who, const struct vfs_remote_commit *c, struct vfs_remote_result *ret_result, struct wire_err *err)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = line_of(a, who);
	int code = 0, rc;

	if (!l || l->dead || !l->held || l->epoch != c->epoch)
		return wire_fail(err, WIRE_FENCED, "the process that hosts the node has ended, or was out of reach, during the transaction");
	rc = send_frames(l, c, &code, err);
	if (rc || code)
		line_dies(l); /* in the middle of a message, which was not the last one */
	if (rc)
		return wire_fail(err, WIRE_FENCED, "the process that hosts the node has ended, or takes nothing");
	if (code) {
		*ret_result = (struct vfs_remote_result){ .code = code };
		snprintf(ret_result->text, sizeof ret_result->text, "reading the transaction's own pages failed (SQLite code %d); it is not committed", code);
		return WIRE_OK;
	}
	rc = await_outcome(a, l, c->timeout_ms, ret_result, err);
	if (!rc && ret_result->code == 0) { /* the host has ended the transaction with that */
		pthread_mutex_lock(&a->mu);
		l->held = false;
		l->epoch = 0;
		pthread_mutex_unlock(&a->mu);
	}
	return rc;
}

/* A question of its own, which is all in q; the answer's bytes, of which there must be n, go to dst. */
int attached_ask(struct shell_attached *a, enum attach_type type, const struct wire_buf *q, uint32_t timeout_ms, void *dst, size_t n, struct wire_err *err)
{
	struct attach_line *l;
	struct wire_in in;
	size_t at;
	int rc = line_take(a, NULL, &l, err);

	if (rc)
		return rc;
	at = attach_begin(&l->link, type);
	wire_put_bytes(&l->link.out, q->data, q->len);
	attach_end(&l->link, at);
	rc = q->failed ? wire_fail(err, WIRE_NOMEM, "no memory for a message") : ask(a, l, timeout_ms, ATTACH_DONE, &in, err);
	if (!rc && wire_in_left(&in) != n)
		rc = bad_answer(l, err);
	if (!rc)
		memcpy(dst, wire_get_bytes(&in, n), n);
	line_give(a, l);
	return rc;
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
	if (line_take(a, NULL, &l, NULL))
		return;
	attach_end(&l->link, attach_begin(&l->link, ATTACH_LEADER));
	if (!ask(a, l, 0, ATTACH_DONE, &in, NULL)) {
		wire_get_text(&in, url, sizeof url);
		if (attach_is_whole(&in))
			snprintf(dst, cap, "%s", url);
	}
	line_give(a, l);
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
		.commit_frames = commit_frames,
	};
}
