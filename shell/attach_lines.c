/* Connections to the host: which of them a question goes over, and the answer. */
#include "shell/attach_impl.h"
#include "shell/node_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDLE_MAX 16u         /* lines that wait for their next use */
#define SHARED_MAX 64u       /* for single questions: who is one more waits */
#define GONE_NAPS 200        /* of a millisecond */

bool attached_is_gone(const struct shell_attached *a)
{
	return atomic_load_explicit(&a->gone, memory_order_relaxed) || !attached_is_owner_there(a);
}

static void unlink_line(struct shell_attached *a, struct attach_line *l) /* mu held */
{
	for (struct attach_line **at = &a->lines; *at; at = &(*at)->next) {
		if (*at == l) {
			*at = l->next;
			return;
		}
	}
}

void attached_line_first(struct shell_attached *a, struct attach_line *l)
{
	if (a->lines == l)
		return;
	unlink_line(a, l);
	l->next = a->lines;
	a->lines = l;
}

void attached_line_free(struct shell_attached *a, struct attach_line *l)
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
		attached_line_free(a, a->lines);
}

void attached_line_dies(struct attach_line *l)
{
	l->dead = true;
	attach_link_close(&l->link);
}

struct attach_line *attached_line_of(struct shell_attached *a, const void *who)
{
	struct attach_line *l;

	pthread_mutex_lock(&a->mu);
	for (l = a->lines; l && l->who != who; l = l->next)
		;
	pthread_mutex_unlock(&a->mu);
	return l;
}

static void forget_shared(struct shell_attached *a) /* mu held */
{
	a->n_shared--;
	pthread_cond_signal(&a->given);
}

/* One that waits, or room for a new one (*ret_line NULL). mu held; lets go of it while there is none. */
static int find_line(struct shell_attached *a, const void *who, uint32_t timeout_ms, struct attach_line **ret_line, struct wire_err *err)
{
	struct timespec until;
	struct attach_line *l;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000 + 1;
	for (;;) {
		for (l = a->lines; l && (l->who || l->taken); l = l->next)
			;
		if (l || who || a->n_shared < SHARED_MAX)
			break;
		if (pthread_cond_timedwait(&a->given, &a->mu, &until))
			return wire_fail(err, WIRE_TIMEOUT, "%u other threads wait for the process that hosts the node", SHARED_MAX);
	}
	if (l) {
		a->idle--;
		l->who = who;
		l->taken = true;
	}
	if (l && who)
		forget_shared(a);
	else if (!l && !who)
		a->n_shared++;
	*ret_line = l;
	return WIRE_OK;
}

int attached_line_take(struct shell_attached *a, const void *who, uint32_t timeout_ms, struct attach_line **ret_line, struct wire_err *err)
{
	struct attach_line *l = NULL;
	int rc;

	if (attached_is_gone(a))
		return attached_gone(a, err);
	pthread_mutex_lock(&a->mu);
	rc = find_line(a, who, timeout_ms, &l, err);
	pthread_mutex_unlock(&a->mu);
	if (!rc && l)
		*ret_line = l;
	if (rc || l)
		return rc;
	l = calloc(1, sizeof *l);
	rc = l ? attached_connect(a, &l->link, err) : wire_fail(err, WIRE_NOMEM, "no memory for a connection to the process that hosts the node");
	pthread_mutex_lock(&a->mu);
	if (rc) {
		if (!who)
			forget_shared(a);
	} else {
		l->who = who;
		l->taken = true;
		l->next = a->lines;
		a->lines = l;
	}
	pthread_mutex_unlock(&a->mu);
	if (rc)
		free(l);
	else
		*ret_line = l;
	return rc;
}

void attached_line_give(struct shell_attached *a, struct attach_line *l)
{
	bool keep;

	pthread_mutex_lock(&a->mu);
	keep = !l->dead && !l->held && a->idle < IDLE_MAX;
	if (keep) {
		if (l->who)
			a->n_shared++;
		l->who = NULL;
		l->taken = false;
		l->epoch = 0;
		a->idle++;
		pthread_cond_signal(&a->given);
	} else if (!l->who) {
		forget_shared(a);
	}
	pthread_mutex_unlock(&a->mu);
	if (!keep)
		attached_line_free(a, l);
}

/* The host closed a line: mostly because it has ended, which the watcher finds out at the same time. The caller's error then leads it to the next host. */
static void await_gone(const struct shell_attached *a)
{
	const struct timespec nap = { .tv_nsec = 1000000 };

	for (int i = 0; i < GONE_NAPS && !vfs_db_is_retired(a->db); i++)
		nanosleep(&nap, NULL);
}

int attached_line_ask(struct shell_attached *a, struct attach_line *l, uint64_t timeout_ms, enum attach_type want, struct wire_in *ret_in, struct wire_err *err)
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
	attached_line_dies(l);
	if (rc == WIRE_TIMEOUT)
		return wire_fail(err, rc, "the process that hosts the node does not answer: it is stopped, or stuck; continue it, or kill it, and another takes over");
	if (rc == WIRE_CLOSED) {
		await_gone(a);
		return attached_gone(a, err);
	}
	return rc ? rc : wire_fail(err, WIRE_INVALID, "the process that hosts the node gave an answer that is none: has it another version of walraft?");
}

int attached_bad_answer(struct attach_line *l, struct wire_err *err)
{
	attached_line_dies(l);
	return wire_fail(err, WIRE_INVALID, "the process that hosts the node gave an answer that is none: has it another version of walraft?");
}

int attached_ask(struct shell_attached *a, enum attach_type type, const struct wire_buf *q, uint32_t timeout_ms, void *dst, size_t n, struct wire_err *err)
{
	struct attach_line *l;
	struct wire_in in;
	size_t at;
	int rc = attached_line_take(a, NULL, timeout_ms, &l, err);

	if (rc)
		return rc;
	at = attach_begin(&l->link, type);
	wire_put_bytes(&l->link.out, q->data, q->len);
	attach_end(&l->link, at);
	rc = q->failed ? wire_fail(err, WIRE_NOMEM, "no memory for a message") : attached_line_ask(a, l, timeout_ms, ATTACH_DONE, &in, err);
	if (!rc && wire_in_left(&in) != n)
		rc = attached_bad_answer(l, err);
	if (!rc)
		memcpy(dst, wire_get_bytes(&in, n), n);
	attached_line_give(a, l);
	return rc;
}
