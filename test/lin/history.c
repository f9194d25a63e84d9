/* Feeding a history: which event may follow which. */
#include "test/lin/history.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS_SHOWN 4

int lin_history_new(struct lin_history **ret_h, enum lin_order order, struct wire_err *err)
{
	struct lin_history *h = calloc(1, sizeof *h);
	int rc;

	if (!h)
		return wire_fail(err, WIRE_NOMEM, "no memory for a history");
	h->order = order;
	h->has_times = order == LIN_ORDER_TIME;
	rc = lin_values_init(h, err);
	if (rc) {
		lin_history_free(h);
		return rc;
	}
	*ret_h = h;
	return WIRE_OK;
}

void lin_history_free(struct lin_history *h)
{
	if (!h)
		return;
	wire_buf_free(&h->text);
	free(h->values);
	free(h->buckets);
	free(h->ops);
	free(h->processes);
	free(h->keys);
	free(h);
}

const char *lin_kind_text(enum lin_kind kind)
{
	static const char *const texts[] = { "?", "read", "write", "cas", "append" };

	return texts[kind];
}

static const char *type_text(enum lin_type type)
{
	static const char *const texts[] = { "?", "invoke", "ok", "fail", "info" };

	return texts[type];
}

/* A value as part of a sentence for a person, short. */
struct name {
	char text[80];
};

static struct name name_of(const struct lin_history *h, lin_value v)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct name name = { "?" };

	lin_value_put(h, v, ITEMS_SHOWN, &b);
	if (!b.failed && b.len < sizeof name.text)
		snprintf(name.text, sizeof name.text, "%.*s", (int)b.len, (const char *)b.data);
	else if (!b.failed)
		snprintf(name.text, sizeof name.text, "%.60s...", (const char *)b.data);
	wire_buf_free(&b);
	return name;
}

#define NAME(h, v) (name_of((h), (v)).text)

static int process_of(struct lin_history *h, lin_value name, struct lin_process **ret_p, struct wire_err *err)
{
	uint32_t i = h->values[name].process;

	if (i == LIN_NO_OP) {
		if (!lin_grow(&h->processes, &h->process_cap, h->process_count, sizeof *h->processes))
			return wire_fail(err, WIRE_NOMEM, "no memory for another process");
		i = (uint32_t)h->process_count++;
		h->processes[i] = (struct lin_process){ .open = LIN_NO_OP };
		h->values[name].process = i;
	}
	*ret_p = &h->processes[i];
	return WIRE_OK;
}

static int key_of(struct lin_history *h, lin_value name, struct lin_key **ret_k, struct wire_err *err)
{
	uint32_t i = h->values[name].key;

	if (i == LIN_NO_OP) {
		if (!lin_grow(&h->keys, &h->key_cap, h->key_count, sizeof *h->keys))
			return wire_fail(err, WIRE_NOMEM, "no memory for another key");
		i = (uint32_t)h->key_count++;
		h->keys[i] = (struct lin_key){ .name = name };
		h->values[name].key = i;
	}
	*ret_k = &h->keys[i];
	return WIRE_OK;
}

enum lin_model lin_key_model(const struct lin_key *k)
{
	if (k->register_line || k->plain_read_line)
		return LIN_REGISTER;
	return k->list_line || k->list_read_line ? LIN_LIST : LIN_REGISTER;
}

/* A key is what is done to it; a read tells only by what it returns. */
static int check_model(const struct lin_history *h, const struct lin_key *k, enum lin_kind kind, struct wire_err *err)
{
	bool writes = kind == LIN_WRITE || kind == LIN_CAS;

	if (writes && k->list_line)
		return wire_fail(err, WIRE_INVALID, "%s of key %s, to which line %zu appends: a key is either a register (write, cas) or a list (append)",
		                 lin_kind_text(kind), NAME(h, k->name), k->list_line);
	if (kind == LIN_APPEND && k->register_line)
		return wire_fail(err, WIRE_INVALID, "append to key %s, which is a register by line %zu: a key is either a register (write, cas) or a list (append)",
		                 NAME(h, k->name), k->register_line);
	if (kind == LIN_APPEND && k->plain_read_line)
		return wire_fail(err, WIRE_INVALID, "append to key %s, of which line %zu read what is no list", NAME(h, k->name),
		                 k->plain_read_line);
	return WIRE_OK;
}

static int check_values(const struct lin_history *h, const struct lin_event *e, struct wire_err *err)
{
	if (e->process == LIN_BAD || e->key == LIN_BAD || e->value == LIN_BAD || e->old == LIN_BAD)
		return wire_fail(err, WIRE_NOMEM, "no memory for a value");
	if (e->process >= h->value_count || e->key >= h->value_count || e->value >= h->value_count || e->old >= h->value_count)
		return wire_fail(err, WIRE_INVALID, "a value is not of this history");
	if (e->process == LIN_NULL)
		return wire_fail(err, WIRE_INVALID, "the event has no process");
	if (e->type < LIN_INVOKE || e->type > LIN_INFO)
		return wire_fail(err, WIRE_INVALID, "unknown type of event %d", (int)e->type);
	if ((int)e->kind < 0 || e->kind > LIN_APPEND)
		return wire_fail(err, WIRE_INVALID, "unknown operation %d", (int)e->kind);
	return WIRE_OK;
}

static int check_time(const struct lin_history *h, const struct lin_process *p, const struct lin_event *e, struct wire_err *err)
{
	if (h->order == LIN_ORDER_TIME && p->seen && e->time_ns < p->last_ns)
		return wire_fail(err, WIRE_INVALID, "time of process %s goes back: %" PRId64 " is before %" PRId64 " in line %zu",
		                 NAME(h, e->process), e->time_ns, p->last_ns, p->last_line);
	return WIRE_OK;
}

static int check_invoke(const struct lin_history *h, const struct lin_event *e, const struct lin_process *p, struct wire_err *err)
{
	if (!e->kind)
		return wire_fail(err, WIRE_INVALID, "an invocation needs its operation");
	if (e->key == LIN_NULL)
		return wire_fail(err, WIRE_INVALID, "an invocation needs its key");
	if (e->kind == LIN_READ && e->value != LIN_NULL)
		return wire_fail(err, WIRE_INVALID, "a read is invoked without a value; what it read belongs to its ok");
	if (p->open != LIN_NO_OP)
		return wire_fail(err, WIRE_INVALID, "process %s invokes an operation while its %s of line %zu is under way; end that one first, by info if its outcome is unknown",
		                 NAME(h, e->process), lin_kind_text(h->ops[p->open].kind), h->ops[p->open].invoke_line);
	if (h->op_count >= LIN_NO_OP / 4)
		return wire_fail(err, WIRE_TOOBIG, "a history has at most %u operations", LIN_NO_OP / 4);
	return WIRE_OK;
}

static int invoke(struct lin_history *h, const struct lin_event *e, size_t line, struct lin_process *p, struct wire_err *err)
{
	struct lin_key *k = NULL;
	int rc = check_invoke(h, e, p, err);

	if (!rc)
		rc = key_of(h, e->key, &k, err);
	if (!rc)
		rc = check_model(h, k, e->kind, err);
	if (rc)
		return rc;
	if (!lin_grow(&h->ops, &h->op_cap, h->op_count, sizeof *h->ops))
		return wire_fail(err, WIRE_NOMEM, "no memory for another operation");
	if (e->kind == LIN_APPEND && !k->list_line)
		k->list_line = line;
	if ((e->kind == LIN_WRITE || e->kind == LIN_CAS) && !k->register_line)
		k->register_line = line;
	p->open = (uint32_t)h->op_count;
	h->ops[h->op_count++] = (struct lin_op){
		.process = e->process, .key = e->key, .kind = e->kind, .outcome = LIN_INFO, .value = e->value,
		.old = e->kind == LIN_CAS ? e->old : LIN_NULL, .invoked_ns = e->time_ns, .invoke_line = line,
		.invoke_seq = h->events + 1, .session = p->session,
	};
	return WIRE_OK;
}

static int check_end(const struct lin_history *h, const struct lin_event *e, const struct lin_process *p, struct wire_err *err)
{
	const struct lin_op *op;
	const struct lin_key *k;

	if (p->open == LIN_NO_OP)
		return wire_fail(err, WIRE_INVALID, "process %s ends an operation (%s), but has none under way", NAME(h, e->process),
		                 type_text(e->type));
	op = &h->ops[p->open];
	if (e->kind && e->kind != op->kind)
		return wire_fail(err, WIRE_INVALID, "process %s ends a %s, but has a %s of line %zu under way", NAME(h, e->process),
		                 lin_kind_text(e->kind), lin_kind_text(op->kind), op->invoke_line);
	if (e->key != LIN_NULL && e->key != op->key)
		return wire_fail(err, WIRE_INVALID, "process %s ends an operation on key %s, but the one of line %zu under way is on key %s",
		                 NAME(h, e->process), NAME(h, e->key), op->invoke_line, NAME(h, op->key));
	k = &h->keys[h->values[op->key].key];
	if (e->type == LIN_OK && op->kind == LIN_READ && k->list_line && e->value != LIN_NULL && !lin_is_list(h, e->value))
		return wire_fail(err, WIRE_INVALID, "%s was read of key %s, which is a list by line %zu: a read returns the list, or null",
		                 NAME(h, e->value), NAME(h, op->key), k->list_line);
	return WIRE_OK;
}

static int end(struct lin_history *h, const struct lin_event *e, size_t line, struct lin_process *p, struct wire_err *err)
{
	struct lin_op *op;
	struct lin_key *k;
	int rc = check_end(h, e, p, err);

	if (rc)
		return rc;
	op = &h->ops[p->open];
	k = &h->keys[h->values[op->key].key];
	op->outcome = e->type;
	op->ended_ns = e->time_ns;
	op->end_line = line;
	op->end_seq = h->events + 1;
	if (e->type == LIN_OK && op->kind == LIN_READ) {
		op->value = e->value;
		if (lin_is_list(h, e->value) && !k->list_read_line)
			k->list_read_line = line;
		else if (e->value != LIN_NULL && !lin_is_list(h, e->value) && !k->plain_read_line)
			k->plain_read_line = line;
	}
	p->open = LIN_NO_OP;
	if (e->type == LIN_INFO)
		p->session++;
	return WIRE_OK;
}

int lin_history_add(struct lin_history *h, const struct lin_event *e, struct wire_err *err)
{
	size_t line = e->line ? e->line : (size_t)h->events + 1;
	struct lin_process *p = NULL;
	int rc = check_values(h, e, err);

	if (!rc)
		rc = process_of(h, e->process, &p, err);
	if (!rc)
		rc = check_time(h, p, e, err);
	if (!rc)
		rc = e->type == LIN_INVOKE ? invoke(h, e, line, p, err) : end(h, e, line, p, err);
	if (rc)
		return rc;
	p->seen = true;
	p->last_ns = e->time_ns;
	p->last_line = line;
	h->events++;
	if (e->time_ns)
		h->has_times = true;
	return WIRE_OK;
}

const struct lin_op *lin_open_op(const struct lin_history *h, lin_value process)
{
	uint32_t i = process < h->value_count ? h->values[process].process : LIN_NO_OP;

	return i == LIN_NO_OP || h->processes[i].open == LIN_NO_OP ? NULL : &h->ops[h->processes[i].open];
}

size_t lin_op_count(const struct lin_history *h)
{
	return h->op_count;
}

const struct lin_op *lin_op_at(const struct lin_history *h, size_t op)
{
	return &h->ops[op];
}

bool lin_has_times(const struct lin_history *h)
{
	return h->has_times;
}

void lin_op_put(const struct lin_history *h, size_t i, struct wire_buf *b)
{
	const struct lin_op *op = &h->ops[i];

	lin_putf(b, "%s", lin_kind_text(op->kind));
	if (op->kind == LIN_READ && op->outcome != LIN_OK)
		return;
	wire_put_u8(b, ' ');
	if (op->kind == LIN_CAS) {
		lin_value_put(h, op->old, ITEMS_SHOWN, b);
		wire_put_u8(b, ' ');
	}
	if (op->kind == LIN_READ || op->kind == LIN_CAS)
		wire_put_bytes(b, "-> ", 3);
	lin_value_put(h, op->value, ITEMS_SHOWN, b);
}
