/* JSON lines as events. */
#include "test/lin/history.h"
#include "test/lin/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

struct reader {
	struct lin_history *h;
	struct lin_json json;
	bool by_lines, first_seen;
	bool timed; /* the first line has a time, so all must */
	struct wire_err *err;
};

static int find_word(const struct lin_json *j, const char *name, const char *const *words, int count, int *ret_index, struct wire_err *err)
{
	const struct lin_json_member *m = lin_json_find(j, name);
	struct wire_buf b = WIRE_BUF_INIT;
	int found = 0;

	for (int i = 1; m && i <= count && !found; i++) {
		lin_value word = lin_text(j->h, words[i]);

		if (word == LIN_BAD)
			return wire_fail(err, WIRE_NOMEM, "no memory for a line");
		found = m->value == word ? i : 0;
	}
	if (found) {
		*ret_index = found;
		return WIRE_OK;
	}
	for (int i = 1; i <= count; i++)
		lin_putf(&b, "%s%s", i == 1 ? "" : i == count ? " or " : ", ", words[i]);
	wire_put_u8(&b, 0);
	wire_fail(err, WIRE_INVALID, "%s \"%s\": it is %s", m ? "unknown" : "there is no", name, b.failed ? "" : (const char *)b.data);
	wire_buf_free(&b);
	return WIRE_INVALID;
}

/* A name is an integer or a string that is not empty. */
static int find_name(const struct lin_json *j, const char *name, bool needed, lin_value *ret_value, struct wire_err *err)
{
	const struct lin_json_member *m = lin_json_find(j, name);

	if (!m && needed)
		return wire_fail(err, WIRE_INVALID, "there is no \"%s\"", name);
	if (!m)
		return WIRE_OK;
	if (!m->is_int && (!m->is_string || m->value == lin_text(j->h, "")))
		return wire_fail(err, WIRE_INVALID, "\"%s\" must be an integer or a string that is not empty", name);
	*ret_value = m->value;
	return WIRE_OK;
}

static int find_time(struct reader *r, struct lin_event *e)
{
	const struct lin_json_member *m = lin_json_find(&r->json, "time");

	if (!r->first_seen) {
		r->first_seen = true;
		r->timed = m != NULL;
		r->h->order = r->timed && !r->by_lines ? LIN_ORDER_TIME : LIN_ORDER_FED;
		r->h->has_times = r->timed;
	}
	if (m && !r->timed)
		return wire_fail(r->err, WIRE_INVALID, "the line has a time, but the lines before have none: all need one, or none");
	if (!m && r->timed)
		return wire_fail(r->err, WIRE_INVALID, "the line has no time, but the lines before have: all need one, or none");
	if (m && !m->is_int)
		return wire_fail(r->err, WIRE_INVALID, "\"time\" must be an integer: nanoseconds");
	e->time_ns = m ? m->number_value : 0;
	return WIRE_OK;
}

static int invoke_value(struct reader *r, struct lin_event *e, const struct lin_json_member *m)
{
	lin_value pair;

	if (e->kind == LIN_READ) {
		if (m && m->value != LIN_NULL)
			return wire_fail(r->err, WIRE_INVALID, "a read is invoked without a value (or null); what it read belongs to its ok");
		return WIRE_OK;
	}
	if (!m)
		return wire_fail(r->err, WIRE_INVALID, "there is no \"value\" to %s", lin_kind_text(e->kind));
	e->value = m->value;
	if (e->kind == LIN_CAS) {
		if (lin_list_length(r->h, m->value) != 2)
			return wire_fail(r->err, WIRE_INVALID, "\"value\" of a cas must be [old,new]");
		pair = lin_list_pop(r->h, m->value, &e->value);
		lin_list_pop(r->h, pair, &e->old);
	}
	return WIRE_OK;
}

/* Recorders repeat the value at the end of an operation; one that differs is a mistake of theirs. */
static bool repeats(const struct lin_history *h, const struct lin_op *op, lin_value v)
{
	lin_value new;

	if (v == LIN_NULL || (op->kind != LIN_CAS && v == op->value))
		return true;
	if (op->kind != LIN_CAS || lin_list_length(h, v) != 2)
		return false;
	v = lin_list_pop(h, v, &new);
	lin_list_pop(h, v, &v);
	return v == op->old && new == op->value;
}

static int end_value(struct reader *r, struct lin_event *e, const struct lin_json_member *m)
{
	const struct lin_op *op = lin_open_op(r->h, e->process);

	if (!op)
		return WIRE_OK; /* lin_history_add has the words for it */
	if (op->kind == LIN_READ) {
		if (e->type == LIN_OK && !m)
			return wire_fail(r->err, WIRE_INVALID, "there is no \"value\": the ok of a read says what was read (null: the key is absent)");
		if (e->type == LIN_OK)
			e->value = m->value;
		return WIRE_OK;
	}
	if (m && !repeats(r->h, op, m->value))
		return wire_fail(r->err, WIRE_INVALID, "\"value\" is not the one of the invocation in line %zu", op->invoke_line);
	return WIRE_OK;
}

static int take_line(struct reader *r, const char *line, size_t len, size_t number)
{
	static const char *const types[] = { "", "invoke", "ok", "fail", "info" };
	static const char *const kinds[] = { "", "read", "write", "cas", "append" };
	struct lin_event e = { .line = number };
	const struct lin_json_member *m;
	int rc = WIRE_OK, type = 0, kind = 0;

	if (!lin_json_parse(&r->json, line, len))
		return r->json.nomem ? wire_fail(r->err, WIRE_NOMEM, "no memory for the line")
		                     : wire_fail(r->err, WIRE_INVALID, "%s", r->json.problem);
	rc = find_word(&r->json, "type", types, 4, &type, r->err);
	if (!rc && (type == LIN_INVOKE || lin_json_find(&r->json, "op")))
		rc = find_word(&r->json, "op", kinds, 4, &kind, r->err);
	e.type = (enum lin_type)type;
	e.kind = (enum lin_kind)kind;
	if (!rc)
		rc = find_name(&r->json, "process", true, &e.process, r->err);
	if (!rc)
		rc = find_name(&r->json, "key", type == LIN_INVOKE, &e.key, r->err);
	if (!rc)
		rc = find_time(r, &e);
	m = lin_json_find(&r->json, "value");
	if (!rc)
		rc = type == LIN_INVOKE ? invoke_value(r, &e, m) : end_value(r, &e, m);
	return rc ? rc : lin_history_add(r->h, &e, r->err);
}

static bool is_blank(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r' && line[i] != '\n')
			return false;
	return true;
}

int lin_history_read(struct lin_history **ret_h, FILE *f, const char *name, bool by_lines, struct wire_err *err)
{
	struct wire_err own;
	struct reader r = { .by_lines = by_lines, .err = err ? err : &own };
	char *line = NULL;
	size_t cap = 0, number = 0;
	ssize_t n;
	int rc = lin_history_new(&r.h, LIN_ORDER_FED, r.err);

	if (rc)
		return rc;
	r.json.h = r.h;
	errno = 0;
	while (!rc && (n = getline(&line, &cap, f)) >= 0) {
		number++;
		if (is_blank(line, (size_t)n))
			continue;
		rc = take_line(&r, line, (size_t)n, number);
		if (rc)
			wire_context(r.err, "%s:%zu", name, number);
		errno = 0;
	}
	if (!rc && !feof(f))
		rc = wire_fail_errno(r.err, errno, "%s: cannot read behind line %zu", name, number);
	free(line);
	lin_json_free(&r.json);
	if (rc)
		lin_history_free(r.h);
	else
		*ret_h = r.h;
	return rc;
}
