#include "test/unit/lin_brute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint32_t below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(rng(state) % n);
}

struct store {
	int value, list[BRUTE_OPS_MAX], list_len;
};

/* Whether the store would answer so; does it if it would. */
static bool execute(const struct brute_op *op, bool list, struct store *s)
{
	switch (op->kind) {
	case LIN_READ:
		if (list)
			return op->list_len == s->list_len &&
			       memcmp(op->list, s->list, (size_t)s->list_len * sizeof *s->list) == 0;
		return op->value == s->value;
	case LIN_APPEND:
		s->list[s->list_len++] = op->value;
		return true;
	case LIN_CAS:
		if (op->old != s->value)
			return false;
		break;
	case LIN_WRITE:
		break;
	}
	s->value = op->value;
	return true;
}

struct question {
	const struct brute *b;
	uint32_t may, must;         /* operations that can and must be placed */
	uint32_t end[BRUTE_OPS_MAX];
	uint32_t placed[BRUTE_OPS_MAX];
};

static bool place(struct question *q, uint32_t depth, uint32_t done, const struct store *s)
{
	if ((q->must & ~done) == 0)
		return true;
	for (uint32_t i = 0; i < q->b->count; i++) {
		struct store next = *s;
		bool fits = (q->may & ~done & 1u << i) != 0;

		for (uint32_t k = 0; k < depth && fits; k++)
			fits = q->end[i] >= q->b->ops[q->placed[k]].inv;
		if (!fits || !execute(&q->b->ops[i], q->b->list, &next))
			continue;
		q->placed[depth] = i;
		if (place(q, depth + 1, done | 1u << i, &next))
			return true;
	}
	return false;
}

bool brute_check(const struct brute *b, uint32_t key, uint32_t cut, uint32_t doubted)
{
	struct question q = { .b = b };

	for (uint32_t i = 0; i < b->count; i++) {
		const struct brute_op *op = &b->ops[i];
		bool sure = op->outcome == LIN_OK && op->end < cut && !(doubted & 1u << i);

		if (op->key != key || op->outcome == LIN_FAIL || op->inv >= cut || (op->kind == LIN_READ && !sure))
			continue;
		q.may |= 1u << i;
		q.must |= sure ? 1u << i : 0;
		q.end[i] = sure ? op->end : BRUTE_NEVER;
	}
	return place(&q, 0, 0, &(struct store){ 0 });
}

/* Processes at work on a true store: each invokes, takes effect, ends. */
enum stage { FREE, INVOKED, DONE };

struct worker {
	enum stage stage;
	uint32_t op, process;
};

static void invoke(struct brute *b, uint64_t *r, struct worker *w, uint32_t now, bool two_keys, bool unique)
{
	struct brute_op *op = &b->ops[b->count];

	memset(op, 0, sizeof *op);
	op->process = w->process;
	op->key = two_keys ? below(r, 2) : 0;
	op->outcome = LIN_INFO;
	op->inv = now;
	op->end = BRUTE_NEVER;
	op->kind = below(r, 2) ? LIN_READ : b->list ? LIN_APPEND : below(r, 3) ? LIN_WRITE : LIN_CAS;
	if (op->kind != LIN_READ)
		op->value = unique ? (int)b->count + 1 : (int)below(r, 4);
	if (op->kind == LIN_APPEND && !unique)
		op->value = 1 + (int)below(r, 2);
	if (op->kind == LIN_CAS)
		op->old = (int)below(r, unique ? b->count + 1 : 3);
	w->op = b->count++;
	w->stage = INVOKED;
}

static void take_effect(struct brute *b, struct worker *w, struct store *s)
{
	struct brute_op *op = &b->ops[w->op];

	if (op->kind == LIN_READ) {
		op->value = s->value;
		op->list_len = s->list_len;
		memcpy(op->list, s->list, sizeof s->list);
	} else if (!execute(op, b->list, s)) {
		op->outcome = LIN_FAIL;
	}
	w->stage = DONE;
}

static void end(struct brute *b, uint64_t *r, struct worker *w, uint32_t now, uint32_t unknown)
{
	struct brute_op *op = &b->ops[w->op];
	bool known = below(r, 8) >= unknown;

	w->stage = FREE;
	if (known || op->outcome == LIN_FAIL) {
		op->outcome = op->outcome == LIN_FAIL ? LIN_FAIL : LIN_OK;
		op->end = now;
		return;
	}
	w->process += 10;
	if (op->kind == LIN_READ)
		op->value = op->list_len = 0;
}

static void lie(struct brute *b, uint64_t *r)
{
	struct brute_op *op = &b->ops[below(r, b->count)];

	if (op->kind == LIN_READ && op->outcome == LIN_OK && b->list) {
		if (below(r, 2) && op->list_len)
			op->list_len--;
		else if (op->list_len < BRUTE_OPS_MAX)
			op->list[op->list_len++] = 1 + (int)below(r, 3);
	} else if (op->kind == LIN_READ && op->outcome == LIN_OK) {
		op->value = (int)below(r, 4);
	} else if (op->outcome == LIN_FAIL) {
		op->outcome = LIN_OK;
	} else if (op->outcome == LIN_OK && below(r, 2)) {
		op->outcome = LIN_FAIL;
	} else if (op->outcome == LIN_OK && op->kind == LIN_CAS) {
		op->old = (int)below(r, 4);
	} else if (op->outcome == LIN_OK) {
		op->value = 1 + (int)below(r, 3);
	}
}

void brute_make(struct brute *b, uint64_t seed, uint32_t max)
{
	uint64_t r = seed;
	struct worker workers[4] = { { FREE, 0, 1 }, { FREE, 0, 2 }, { FREE, 0, 3 }, { FREE, 0, 4 } };
	struct store stores[2] = { 0 };
	uint32_t wanted = 2 + below(&r, max - 1), processes = 2 + below(&r, 3), lies = below(&r, 6), unknown = below(&r, 5);
	bool two_keys = below(&r, 8) == 0, unique = below(&r, 3) == 0;

	*b = (struct brute){ .list = below(&r, 3) == 0 };
	for (uint32_t now = 1, busy = 1; busy; now++) {
		struct worker *w = &workers[below(&r, processes)];

		if (w->stage == FREE && b->count < wanted)
			invoke(b, &r, w, now, two_keys, unique);
		else if (w->stage == INVOKED)
			take_effect(b, w, &stores[b->ops[w->op].key]);
		else if (w->stage == DONE)
			end(b, &r, w, now, unknown);
		busy = b->count < wanted;
		for (uint32_t i = 0; i < processes; i++)
			busy |= workers[i].stage != FREE && below(&r, 16) != 0;
	}
	/* Whoever is still at work is never heard of again. */
	for (uint32_t i = 0; i < b->count; i++)
		if (b->ops[i].end == BRUTE_NEVER)
			b->ops[i].outcome = LIN_INFO;
	for (; lies > 0; lies--)
		lie(b, &r);
}

static lin_value value_of(struct lin_history *h, int v)
{
	return v ? lin_int(h, v) : LIN_NULL;
}

static lin_value read_of(struct lin_history *h, const struct brute *b, const struct brute_op *op)
{
	lin_value list = LIN_EMPTY;

	if (!b->list)
		return value_of(h, op->value);
	for (int i = 0; i < op->list_len; i++)
		list = lin_push(h, list, lin_int(h, op->list[i]));
	return list;
}

static void feed(struct lin_history *h, const struct brute *b, uint32_t i, bool is_end, int64_t time_ns)
{
	const struct brute_op *op = &b->ops[i];
	struct lin_event e = { .type = is_end ? op->outcome : LIN_INVOKE, .process = lin_int(h, op->process), .kind = op->kind,
		               .key = lin_int(h, op->key), .time_ns = time_ns };
	struct wire_err err;

	if (!is_end && op->kind != LIN_READ)
		e.value = value_of(h, op->value);
	if (!is_end && op->kind == LIN_CAS)
		e.old = value_of(h, op->old);
	if (is_end && op->kind == LIN_READ && op->outcome == LIN_OK)
		e.value = read_of(h, b, op);
	if (lin_history_add(h, &e, &err)) {
		fprintf(stderr, "# %s\n", err.text);
		abort();
	}
}

static void feed_op(struct lin_history *h, const struct brute *b, uint32_t i, uint32_t *ret_op)
{
	ret_op[i] = (uint32_t)lin_op_count(h);
	feed(h, b, i, false, b->ops[i].inv / 10);
	if (b->ops[i].end != BRUTE_NEVER)
		feed(h, b, i, true, b->ops[i].end / 10);
}

struct lin_history *brute_feed(const struct brute *b, bool coarse, uint32_t *ret_op)
{
	struct lin_history *h;
	uint32_t last = 0;

	if (lin_history_new(&h, coarse ? LIN_ORDER_TIME : LIN_ORDER_FED, NULL))
		abort();
	for (uint32_t i = 0; i < b->count; i++)
		last = b->ops[i].process > last ? b->ops[i].process : last;
	for (uint32_t process = last; coarse && process > 0; process--)
		for (uint32_t i = 0; i < b->count; i++)
			if (b->ops[i].process == process)
				feed_op(h, b, i, ret_op);
	for (uint32_t now = 0, left = coarse ? 0 : 2 * b->count; left > 0; now++) {
		for (uint32_t i = 0; i < b->count; i++) {
			if (b->ops[i].inv == now)
				feed(h, b, i, false, 0);
			if (b->ops[i].end == now)
				feed(h, b, i, true, 0);
			left -= b->ops[i].inv == now || b->ops[i].end == now;
			left -= b->ops[i].inv == now && b->ops[i].end == BRUTE_NEVER;
		}
		for (uint32_t i = 0; i < b->count && !coarse; i++)
			ret_op[i] = i;
	}
	return h;
}

void brute_print(const struct brute *b)
{
	static const char *const kinds[] = { "?", "read", "write", "cas", "append" }, *const types[] = { "?", "?", "ok", "fail", "info" };

	for (uint32_t i = 0; i < b->count; i++) {
		const struct brute_op *op = &b->ops[i];

		printf("# %u: process %u key %u %s old %d value %d [", i, op->process, op->key, kinds[op->kind], op->old, op->value);
		for (int k = 0; k < op->list_len; k++)
			printf("%d ", op->list[k]);
		printf("] %s, %u to %d\n", types[op->outcome], op->inv, (int)op->end);
	}
}
