/* From a history to problems, one for each key, and from their answers to the report. */
#include "test/lin/history.h"
#include "test/lin/search.h"

#include <assert.h>
#include <stdlib.h>

/* Keys are first tried with so many states, so that one that is hard does not take the time from all others. */
#define FIRST_TRY_STATES 100000u

struct moment {
	int64_t time_ns;
	uint64_t seq;
	uint32_t op;
	bool is_end;
};

struct span {
	uint32_t inv, ret;
};

struct checker {
	const struct lin_history *h;
	struct span *spans;    /* by operation */
	uint32_t *ops;         /* by key, then by inv */
	uint32_t *key_begin;   /* in `ops`; key_count + 1 of them */
	uint32_t *dense;       /* by lin_value: its number among those of the problem, when its stamp is the problem's */
	uint32_t *dense_stamp, stamp;
	uint64_t states_max, deadline_ns;
	enum lin_search search;
	struct lin_report *report;
};

int lin_solve(const struct lin_problem *p, struct lin_budget *b, struct lin_answer *ret_answer)
{
	struct lin_answer a = { 0 };
	int rc = p->model == LIN_LIST ? lin_solve_list(p, b, &a) : lin_solve_register(p, b, &a);

	if (rc)
		return rc;
	assert(a.verdict != LIN_LINEARIZABLE || lin_order_is_right(p, a.order, a.order_count));
	*ret_answer = a;
	return WIRE_OK;
}

/* At one time, what is invoked goes before what ends: a clock that does not tell them apart must not tell that one ended
 * before the other began. */
static int by_moment(const void *a, const void *b)
{
	const struct moment *x = a, *y = b;

	if (x->time_ns != y->time_ns)
		return x->time_ns < y->time_ns ? -1 : 1;
	if (x->is_end != y->is_end)
		return x->is_end ? 1 : -1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int by_seq(const void *a, const void *b)
{
	const struct moment *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int place_spans(struct checker *c)
{
	const struct lin_history *h = c->h;
	struct moment *moments = malloc((h->op_count * 2 + 1) * sizeof *moments);
	size_t n = 0;

	if (!moments)
		return WIRE_NOMEM;
	for (uint32_t i = 0; i < h->op_count; i++) {
		const struct lin_op *op = &h->ops[i];

		moments[n++] = (struct moment){ op->invoked_ns, op->invoke_seq, i, false };
		if (op->outcome == LIN_OK)
			moments[n++] = (struct moment){ op->ended_ns, op->end_seq, i, true };
		c->spans[i].ret = LIN_NEVER;
	}
	qsort(moments, n, sizeof *moments, h->order == LIN_ORDER_TIME ? by_moment : by_seq);
	for (uint32_t pos = 0; pos < n; pos++)
		*(moments[pos].is_end ? &c->spans[moments[pos].op].ret : &c->spans[moments[pos].op].inv) = pos;
	free(moments);
	return WIRE_OK;
}

static int by_inv(const void *a, const void *b, void *spans_ptr)
{
	const struct span *spans = spans_ptr;
	uint32_t x = spans[*(const uint32_t *)a].inv, y = spans[*(const uint32_t *)b].inv;

	return x < y ? -1 : x > y;
}

static void sort_by_key(struct checker *c)
{
	const struct lin_history *h = c->h;

	for (size_t i = 0; i < h->op_count; i++)
		c->key_begin[h->values[h->ops[i].key].key + 1]++;
	for (size_t k = 0; k < h->key_count; k++)
		c->key_begin[k + 1] += c->key_begin[k];
	for (uint32_t i = (uint32_t)h->op_count; i-- > 0;)
		c->ops[--c->key_begin[h->values[h->ops[i].key].key + 1]] = i;
	/* Each beginning has now moved down to the one before: the last is put back. */
	for (size_t k = 0; k < h->key_count; k++)
		c->key_begin[k] = c->key_begin[k + 1];
	c->key_begin[h->key_count] = (uint32_t)h->op_count;
	for (size_t k = 0; k < h->key_count; k++)
		qsort_r(c->ops + c->key_begin[k], c->key_begin[k + 1] - c->key_begin[k], sizeof *c->ops, by_inv, c->spans);
}

static uint32_t number_of(struct checker *c, lin_value v, uint32_t *count)
{
	if (v == LIN_NULL)
		return 0;
	if (c->dense_stamp[v] != c->stamp) {
		c->dense_stamp[v] = c->stamp;
		c->dense[v] = (*count)++;
	}
	return c->dense[v];
}

/* Appends the operation to the problem, unless it means nothing: it did not happen, or is a read that nobody knows of. */
static void add_item(struct checker *c, uint32_t op_index, struct lin_problem *p)
{
	const struct lin_op *op = &c->h->ops[op_index];
	struct lin_item it = { .inv = c->spans[op_index].inv, .ret = c->spans[op_index].ret, .need = LIN_NONE, .make = LIN_NONE,
		               .op = op_index, .optional = op->outcome == LIN_INFO };

	if (op->outcome == LIN_FAIL || (op->kind == LIN_READ && op->outcome != LIN_OK))
		return;
	if (op->kind == LIN_READ)
		it.need = p->model == LIN_LIST ? op->value : number_of(c, op->value, &p->value_count);
	else
		it.make = p->model == LIN_LIST ? op->value : number_of(c, op->value, &p->value_count);
	if (op->kind == LIN_CAS)
		it.need = number_of(c, op->old, &p->value_count);
	p->items[p->count++] = it;
}

static int make_problem(struct checker *c, size_t k, struct lin_problem *ret_p)
{
	uint32_t begin = c->key_begin[k], end = c->key_begin[k + 1];
	struct lin_problem p = { .h = c->h, .model = lin_key_model(&c->h->keys[k]), .value_count = 1 };

	p.items = malloc(((size_t)(end - begin) + 1) * sizeof *p.items);
	if (!p.items)
		return WIRE_NOMEM;
	c->stamp++;
	for (uint32_t i = begin; i < end; i++)
		add_item(c, c->ops[i], &p);
	*ret_p = p;
	return WIRE_OK;
}

static int take_answer(struct checker *c, const struct lin_problem *p, struct lin_answer *a, struct lin_key_report *r)
{
	struct lin_budget why = { .states_max = c->states_max, .deadline_ns = c->deadline_ns, .search = c->search };

	r->verdict = a->verdict;
	if (a->verdict == LIN_VIOLATION)
		return lin_explain(p, &why, r);
	for (uint32_t i = 0; i < a->order_count; i++)
		a->order[i] = p->items[a->order[i]].op;
	r->order = a->order;
	r->order_count = a->order_count;
	return WIRE_OK;
}

/* Lets the search look at that many states of the key. */
static int check_key(struct checker *c, size_t k, uint64_t states_max, struct lin_key_report *r)
{
	struct lin_budget b = { .states_max = states_max, .deadline_ns = c->deadline_ns, .search = c->search };
	struct lin_problem p;
	struct lin_answer a;
	int rc = make_problem(c, k, &p);

	if (rc)
		return rc;
	rc = lin_solve(&p, &b, &a);
	if (!rc) {
		r->states = b.states;
		r->limit = b.hit;
		rc = take_answer(c, &p, &a, r);
	}
	free(p.items);
	return rc;
}

static void count_key(struct checker *c, size_t k, struct lin_key_report *r)
{
	r->key = c->h->keys[k].name;
	r->model = lin_key_model(&c->h->keys[k]);
	r->verdict = LIN_UNDECIDED;
	r->stuck = LIN_NO_OP;
	for (uint32_t i = c->key_begin[k]; i < c->key_begin[k + 1]; i++) {
		enum lin_type outcome = c->h->ops[c->ops[i]].outcome;

		r->ops++;
		*(outcome == LIN_OK ? &r->ok : outcome == LIN_FAIL ? &r->fail : &r->info) += 1;
	}
}

static int check_keys(struct checker *c)
{
	struct lin_report *report = c->report;
	int rc = WIRE_OK;

	for (size_t k = 0; k < report->key_count && !rc; k++) {
		struct lin_key_report *r = &report->keys[k];
		uint64_t first = FIRST_TRY_STATES + 20 * (uint64_t)(c->key_begin[k + 1] - c->key_begin[k]);

		count_key(c, k, r);
		rc = check_key(c, k, first < c->states_max ? first : c->states_max, r);
	}
	for (size_t k = 0; k < report->key_count && !rc; k++) {
		struct lin_key_report *r = &report->keys[k];

		if (r->verdict == LIN_UNDECIDED && r->limit == LIN_LIMIT_STATES && r->states < c->states_max)
			rc = check_key(c, k, c->states_max, r);
	}
	report->verdict = LIN_LINEARIZABLE;
	for (size_t k = 0; k < report->key_count && !rc; k++) {
		enum lin_verdict v = report->keys[k].verdict;

		if (v == LIN_VIOLATION || (v == LIN_UNDECIDED && report->verdict == LIN_LINEARIZABLE))
			report->verdict = v;
	}
	return rc;
}

static int run(struct checker *c)
{
	const struct lin_history *h = c->h;
	int rc;

	c->spans = calloc(h->op_count + 1, sizeof *c->spans);
	c->ops = malloc((h->op_count + 1) * sizeof *c->ops);
	c->key_begin = calloc(h->key_count + 2, sizeof *c->key_begin);
	c->dense = malloc((h->value_count + 1) * sizeof *c->dense);
	c->dense_stamp = calloc(h->value_count + 1, sizeof *c->dense_stamp);
	c->report->keys = calloc(h->key_count + 1, sizeof *c->report->keys);
	if (!c->spans || !c->ops || !c->key_begin || !c->dense || !c->dense_stamp || !c->report->keys)
		return WIRE_NOMEM;
	c->report->key_count = h->key_count;
	rc = place_spans(c);
	if (rc)
		return rc;
	sort_by_key(c);
	return check_keys(c);
}

int lin_check(const struct lin_history *h, const struct lin_limits *limits, struct lin_report **ret_report, struct wire_err *err)
{
	struct checker c = { .h = h, .report = calloc(1, sizeof *c.report) };
	int rc;

	c.states_max = limits && limits->states ? limits->states : LIN_STATES_DEFAULT;
	c.deadline_ns = limits && limits->time_ms ? lin_clock_ns() + limits->time_ms * 1000000u : 0;
	c.search = limits ? limits->search : LIN_DEEP_THEN_WIDE;
	rc = c.report ? run(&c) : WIRE_NOMEM;
	free(c.spans);
	free(c.ops);
	free(c.key_begin);
	free(c.dense);
	free(c.dense_stamp);
	if (rc) {
		lin_report_free(c.report);
		return wire_fail(err, rc, "no memory to check a history of %zu operations", h->op_count);
	}
	*ret_report = c.report;
	return WIRE_OK;
}

void lin_report_free(struct lin_report *r)
{
	if (!r)
		return;
	for (size_t k = 0; k < r->key_count; k++) {
		free(r->keys[k].order);
		free(r->keys[k].conflict);
	}
	free(r->keys);
	free(r);
}

const char *lin_verdict_text(enum lin_verdict v)
{
	static const char *const texts[] = { "linearizable", "violation", "undecided" };

	return texts[v];
}
