/* Connections to members, and what is asked over them. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLACK_MS 1000u /* the member's own time-out comes first, and says why */
#define BATCH_FIRST 16384u
#define HINTS_MAX 2

struct remote_link {
	char *urls, *level;
	unsigned at;      /* which of the addresses answered last */
	struct wire_ask *ask; /* NULL: not connected */
	char url[WIRE_TEXT_MAX + 1]; /* of the connection */
	uint64_t generation, corr; /* generation: of the connection */
	struct remote_answer *answers; /* open ones */
	struct remote_link *next;
};

struct remote_pool { struct remote_link *links; };

struct remote_pool *remote_pool_new(void)
{
	return calloc(1, sizeof(struct remote_pool));
}

void remote_pool_free(struct remote_pool *p)
{
	while (p->links) {
		struct remote_link *l = p->links;

		p->links = l->next;
		wire_ask_close(l->ask);
		free(l->urls);
		free(l->level);
		free(l);
	}
	free(p);
}

static struct remote_link *link_of(struct remote_table *t)
{
	struct remote_link *l = t->pool->links;

	while (l && (strcmp(l->urls, t->urls) || strcmp(l->level, t->level)))
		l = l->next;
	if (l)
		return l;
	l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->urls = strdup(t->urls);
	l->level = strdup(t->level);
	if (!l->urls || !l->level) {
		free(l->urls);
		free(l->level);
		free(l);
		return NULL;
	}
	l->next = t->pool->links;
	t->pool->links = l;
	return l;
}

/* --- connections --- */

static unsigned count(const char *urls)
{
	unsigned n = 1;

	for (; (urls = strchr(urls, ',')); urls++)
		n++;
	return n;
}

static void nth(const char *urls, unsigned n, char *dst, size_t cap)
{
	size_t len;

	while (n--)
		urls = strchr(urls, ',') + 1;
	len = strcspn(urls, ",");
	snprintf(dst, cap, "%.*s", (int)(len < cap ? len : cap - 1), urls);
}

/* What is open on it is lost. */
static void disconnect(struct remote_link *l, const struct wire_err *why)
{
	for (struct remote_answer *a = l->answers; a; a = a->next)
		if (!a->err.code && !a->last && a->generation == l->generation)
			wire_fail(&a->err, why->code, a->began ? "%s: the rest of the rows is lost, and the snapshot with it: run the statement again" : "%s", why->text);
	wire_ask_close(l->ask);
	l->ask = NULL;
	l->generation++;
}

static int connect_to(struct remote_link *l, const char *url, uint32_t timeout_ms, struct wire_err *err)
{
	snprintf(l->url, sizeof l->url, "%s", url);
	return wire_ask_open(url, timeout_ms, &l->ask, err);
}

/* --- what comes in --- */

static struct remote_answer *find(struct remote_link *l, uint64_t corr)
{
	struct remote_answer *a = l->answers;

	while (a && a->corr != corr)
		a = a->next;
	return a;
}

static void leave(struct remote_answer *a)
{
	struct remote_answer **at = &a->link->answers;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	a->link = NULL;
}

/* ret_hint[WIRE_TEXT_MAX + 1]: who may do better. */
static void take(struct remote_link *l, const struct wire_msg *m, char *ret_hint)
{
	struct remote_answer *a = find(l, m->corr);

	if (!a || m->type != WIRE_MSG_QUERY_ROWS || (m->hint == 2 && !(m->flags & WIRE_MSG_REJECT)))
		return;
	a->asked = false;
	if (m->flags & WIRE_MSG_REJECT) {
		wire_fail(&a->err, m->hint && m->hint < WIRE_CODE_COUNT ? (int)m->hint : WIRE_IO, "%s: %.*s%s%s%s", l->url, (int)(m->data_len < 400 ? m->data_len : 400),
		          (const char *)m->data, *m->text ? " (" : "", m->text, *m->text ? " may do better)" : "");
		if (ret_hint)
			memcpy(ret_hint, m->text, sizeof m->text);
		return;
	}
	a->last = m->hint == 1;
	a->began = true;
	wire_put_bytes(&a->ahead, m->data, m->data_len);
	if (a->ahead.failed)
		wire_fail(&a->err, WIRE_NOMEM, "no memory for what %s answers", l->url);
}

/* Receives until a has its piece, or its error. Pieces for other questions go to them. */
static int await(struct remote_answer *a, uint32_t timeout_ms, char *ret_hint, struct wire_err *err)
{
	struct remote_link *l = a->link;

	while (a->asked && !a->err.code) {
		struct wire_msg m;
		struct wire_err e;
		int rc = wire_ask_receive(l->ask, timeout_ms > UINT32_MAX - SLACK_MS ? timeout_ms : timeout_ms + SLACK_MS, &m, &e);

		if (rc) {
			disconnect(l, &e);
			break;
		}
		take(l, &m, ret_hint);
	}
	if (a->err.code && err)
		*err = a->err;
	return a->err.code;
}

/* --- asking --- */

static int send_open(struct remote_answer *a, struct remote_table *t, const struct wire_query *q, uint64_t instead_of, bool shape, uint64_t rows, struct wire_err *err)
{
	struct wire_query full = *q;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_msg m = { .type = WIRE_MSG_QUERY_OPEN, .corr = a->corr, .index = instead_of, .commit = BATCH_FIRST, .term = rows, .hint = shape };
	int rc;

	full.table = t->name;
	full.level = t->level;
	full.timeout_ms = t->timeout_ms;
	full.shape = shape ? 0 : wire_shape_fingerprint(t->shape);
	wire_query_put(&b, &full);
	m.data = b.data;
	m.data_len = (uint32_t)b.len;
	rc = b.failed ? wire_fail(err, WIRE_NOMEM, "no memory for a question") : wire_ask_send(a->link->ask, &m, t->timeout_ms, err);
	wire_buf_free(&b);
	return rc;
}

static bool elsewhere(int code)
{
	return code == WIRE_TIMEOUT || code == WIRE_CLOSED || code == WIRE_BUSY || code == WIRE_UNSUPPORTED || code == WIRE_FOREIGN;
}

/* Over the connection that is there. */
static int ask_here(struct remote_answer *a, struct remote_table *t, const struct wire_query *q, bool shape, uint64_t rows, char *ret_hint, struct wire_err *err)
{
	struct remote_link *l = a->link;
	bool again = a->corr && a->generation == l->generation && !a->err.code;
	uint64_t instead_of = again ? a->corr : 0;
	int rc;

	a->corr = ++l->corr;
	a->generation = l->generation;
	a->in.len = a->used = a->ahead.len = 0;
	a->end = a->last = a->began = false;
	a->err.code = 0;
	a->asked = true;
	a->batch = BATCH_FIRST;
	rc = send_open(a, t, q, instead_of, shape, rows, err);
	if (rc == WIRE_TOOBIG || rc == WIRE_NOMEM)
		a->asked = false; /* nothing was sent */
	else if (rc)
		disconnect(l, err);
	return rc ? rc : await(a, t->timeout_ms, ret_hint, err);
}

/* Connects to each address in turn, and to those that are named instead, until one answers. */
static int ask_anew(struct remote_answer *a, struct remote_table *t, const struct wire_query *q, bool shape, uint64_t rows, struct wire_err *err)
{
	struct remote_link *l = a->link;
	unsigned n = count(l->urls);
	char url[WIRE_TEXT_MAX + 1], hint[WIRE_TEXT_MAX + 1] = "";
	int rc = WIRE_CLOSED, hints = 0;
	struct wire_err first = { 0 };

	for (unsigned i = 0; i < n || (*hint && hints < HINTS_MAX);) {
		if (*hint && hints < HINTS_MAX) {
			snprintf(url, sizeof url, "%s", hint);
			hints++;
		} else {
			nth(l->urls, (l->at + i) % n, url, sizeof url);
			i++;
		}
		*hint = 0;
		rc = connect_to(l, url, t->timeout_ms, err);
		if (!rc)
			rc = ask_here(a, t, q, shape, rows, hint, err);
		if (!rc || !elsewhere(rc)) {
			if (!hints)
				l->at = (l->at + (i ? i - 1 : 0)) % n;
			return rc;
		}
		if (!first.code)
			first = *err;
		disconnect(l, err);
	}
	/* What the first one said is mostly the better explanation, where there is only one address or all say the same. */
	if (n > 1 || hints)
		wire_fail(err, first.code, "none of the members answers; the first: %s", first.text);
	return rc;
}

static int ask(struct remote_answer *a, struct remote_table *t, const struct wire_query *q, bool shape, uint64_t rows, struct wire_err *err)
{
	struct remote_link *l = a->link;
	struct wire_err why;
	bool others = false, was_there;
	int rc;

	if (!l) {
		l = link_of(t);
		if (!l)
			return wire_fail(err, WIRE_NOMEM, "no memory for a connection");
		a->link = l;
		a->corr = 0;
		a->next = l->answers;
		l->answers = a;
	}
	if (l->ask && !wire_ask_is_ours(l->ask)) {
		wire_fail(&why, WIRE_CLOSED, "the connection to %s was made before this process was forked", l->url);
		disconnect(l, &why);
	}
	if (a->corr && a->generation != l->generation)
		return wire_fail(err, WIRE_CLOSED, "the connection to %s was lost, and the snapshot with it: run the statement again", l->url);
	for (const struct remote_answer *o = l->answers; o; o = o->next)
		others |= o != a && o->corr && o->generation == l->generation && !o->err.code;
	was_there = l->ask;
	if (was_there) {
		bool began = a->corr != 0;

		rc = ask_here(a, t, q, shape, rows, NULL, err);
		/* A connection that nothing is open on may have been closed meanwhile, for having been idle. */
		if (!rc || began || others || !elsewhere(rc))
			return rc;
		disconnect(l, err);
	}
	a->corr = 0;
	return ask_anew(a, t, q, shape, rows, err);
}

/* What was received is there to be used. */
static int give(struct remote_answer *a, struct wire_err *err)
{
	wire_put_bytes(&a->in, a->ahead.data, a->ahead.len);
	a->ahead.len = 0;
	a->end = a->last;
	return a->in.failed ? wire_fail(err, WIRE_NOMEM, "no memory for rows") : WIRE_OK;
}

int remote_ask(struct remote_answer *a, struct remote_table *t, const struct wire_query *q, uint64_t rows, struct wire_err *err)
{
	int rc = ask(a, t, q, false, rows, err);

	return rc ? rc : give(a, err);
}

static int ask_for_more(struct remote_answer *a, struct remote_table *t, struct wire_err *err)
{
	struct wire_msg m = { .type = WIRE_MSG_QUERY_NEXT, .corr = a->corr };
	int rc;

	if (a->batch < WIRE_QUERY_BATCH_MAX / 4)
		a->batch *= 4;
	m.commit = a->batch;
	a->asked = true;
	rc = wire_ask_send(a->link->ask, &m, t->timeout_ms, err);
	if (rc)
		disconnect(a->link, err);
	return rc;
}

/* a can still be answered. */
static int check(const struct remote_answer *a, struct wire_err *err)
{
	if (a->err.code)
		*err = a->err;
	else if (a->generation != a->link->generation || !wire_ask_is_ours(a->link->ask))
		wire_fail(err, WIRE_CLOSED, "the connection to %s is not there any more, or was made before this process was forked: run the statement again", a->link->url);
	else
		return WIRE_OK;
	return err->code;
}

/* While the rows of one piece are used, the next one is on its way; but for the first, which often is all that is wanted. */
int remote_ask_more(struct remote_answer *a, struct remote_table *t, struct wire_err *err)
{
	struct wire_err later;
	int rc = WIRE_OK;

	if (!a->ahead.len && !a->last) {
		rc = check(a, err);
		if (!rc && !a->asked)
			rc = ask_for_more(a, t, err);
		if (!rc)
			rc = await(a, t->timeout_ms, NULL, err);
	}
	if (!rc)
		rc = give(a, err);
	if (!rc && !a->end && !check(a, &later))
		(void)ask_for_more(a, t, &later); /* if it fails, a->err says so when the rows that are there are used up */
	return rc;
}

void remote_ask_end(struct remote_answer *a)
{
	struct remote_link *l = a->link;
	struct wire_msg m = { .type = WIRE_MSG_QUERY_CLOSE, .corr = a->corr };
	struct wire_err err;

	if (l && l->ask && a->corr && a->generation == l->generation && !a->err.code && wire_ask_is_ours(l->ask) && wire_ask_send(l->ask, &m, 1000, &err))
		disconnect(l, &err);
	if (l)
		leave(a);
	wire_buf_free(&a->in);
	wire_buf_free(&a->ahead);
	*a = (struct remote_answer){ 0 };
}

int remote_ask_shape(struct remote_table *t, struct wire_shape **ret_shape, struct wire_err *err)
{
	struct remote_answer a = { 0 };
	struct wire_query q = { 0 };
	int rc = ask(&a, t, &q, true, 0, err);

	if (!rc)
		rc = wire_shape_get(a.ahead.data, a.ahead.len, ret_shape, err);
	remote_ask_end(&a);
	return rc;
}
