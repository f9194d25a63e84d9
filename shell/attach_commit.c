/* A commit's frames on their way to the host, and its outcome. */
#include "shell/attach_impl.h"

#include <stdio.h>
#include <string.h>

#define SEND_BYTES (128u << 10)
#define LOOK_MS 250u         /* how often who waits for a commit looks whether the host is stuck */
#define STUCK_US 5000000u    /* without a sign of life */

static uint64_t now_us(const struct shell_attached *a)
{
	return a->env->now_ns(a->env->ctx) / 1000;
}

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
	wire_put_u64(b, l->epoch);
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
		if (attached_is_gone(a) || (now >= patient_until && atomic_load_explicit(&a->shared->alive_us, memory_order_relaxed) + STUCK_US < now))
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
	attached_line_dies(l);
	return wire_fail(err, WIRE_UNKNOWN, "%s while the transaction was being committed: whether it is committed is open",
	                 rc == WIRE_TIMEOUT && !attached_is_gone(a) ? "the process that hosts the node did not answer" : "the process that hosted the node ended");
}

int attached_commit_frames(void *ctx, const void *who, const struct vfs_remote_commit *c, struct vfs_remote_result *ret_result, struct wire_err *err)
{
	struct shell_attached *a = ctx;
	struct attach_line *l = attached_line_of(a, who);
	int code = 0, rc;

	if (!l || l->dead || !l->held || l->grant != c->epoch)
		return wire_fail(err, WIRE_FENCED, "the process that hosts the node has ended, or was out of reach, during the transaction");
	rc = send_frames(l, c, &code, err);
	if (rc || code)
		attached_line_dies(l); /* in the middle of a message, which was not the last one */
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
