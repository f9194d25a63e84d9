/* Why there is no order: questions about weaker problems, answered by the searches themselves. All rest on one fact: a problem
 * from which an end, a read, or the outcome of a write is left out has an order if the whole one has, namely the same one. So
 * yes and no do not alternate, and can be searched by halving. */
#include "test/lin/search.h"

#include <stdlib.h>
#include <string.h>

/* That may be looked at, at most. Of a register with few values the conflict may well be half the history: any write that is
 * doubted would explain the read. Such a one is not worth much. */
#define PREFIX_STATES 20000000u
#define CORE_STATES 5000000u

struct why {
	const struct lin_problem *p;
	struct lin_budget *budget;
	uint32_t *ends; /* the required items by their ends */
	uint32_t end_count;
	bool *kept;     /* by item: it is believed as it is told */
	struct lin_item *items;
	uint32_t *map;  /* of `items` to those of the problem */
	bool nomem;
};

/* The history before position `cut`. Of required operations that ended before, those that are `kept` (NULL: all) stay so; a
 * write that is believed less may have come later or never, a read is left out. */
static enum lin_verdict ask(struct why *y, uint32_t cut, const bool *kept, struct lin_answer *ret_answer)
{
	struct lin_problem sub = *y->p;
	struct lin_answer a;

	sub.items = y->items;
	sub.count = 0;
	for (uint32_t i = 0; i < y->p->count && y->p->items[i].inv < cut; i++) {
		struct lin_item it = y->p->items[i];
		bool required = it.ret < cut && (!kept || kept[i]);

		if (!required && lin_is_read(&it))
			continue;
		if (!required) {
			it.optional = true;
			it.ret = LIN_NEVER;
		}
		y->map[sub.count] = i;
		y->items[sub.count++] = it;
	}
	if (y->nomem || lin_solve(&sub, y->budget, &a)) {
		y->nomem = true;
		return LIN_UNDECIDED;
	}
	for (uint32_t n = 0; n < a.order_count; n++)
		a.order[n] = y->map[a.order[n]];
	if (ret_answer && a.verdict == LIN_LINEARIZABLE)
		*ret_answer = a;
	else
		free(a.order);
	return a.verdict;
}

static int by_ret(const void *a, const void *b, void *items_ptr)
{
	const struct lin_item *items = items_ptr;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return items[x].ret < items[y].ret ? -1 : items[x].ret > items[y].ret;
}

/* The number of ends with which there is an order, while with one more there is none. What is undecided is taken as if there
 * was one: with one more than the result there is none in any case. */
static uint32_t longest_prefix(struct why *y, bool *exact)
{
	uint32_t low = 0, high = y->end_count;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		enum lin_verdict v = ask(y, y->p->items[y->ends[middle - 1]].ret + 1, NULL, NULL);

		*exact = *exact && v != LIN_UNDECIDED;
		if (v == LIN_VIOLATION)
			high = middle;
		else
			low = middle;
	}
	return high - 1;
}

/* Whether there is a conflict among `core` and the ends from `first` up to, and without, `last`. */
static bool conflicts(struct why *y, const bool *core, uint32_t first, uint32_t last)
{
	memcpy(y->kept, core, y->p->count * sizeof *core);
	for (uint32_t i = first; i < last; i++)
		y->kept[y->ends[i]] = true;
	return ask(y, y->p->items[y->ends[last]].ret + 1, y->kept, NULL) == LIN_VIOLATION;
}

/* Marks in `core` what the conflict at end number `last` needs. What is near in time is preferred: of the stretches that reach
 * up to `last`, the shortest that is in conflict with the core so far begins with an end that is needed, and those before it
 * are not. Each one found could not be spared with more kept than in the end, so it cannot be spared then. */
static void find_core(struct why *y, uint32_t last, bool *core, bool *exact)
{
	uint32_t begin = 0; /* the core with [begin, last) is in conflict */

	core[y->ends[last]] = true;
	while (!conflicts(y, core, last, last)) {
		uint32_t low = begin, high = last; /* with [low, last) a conflict, with [high, last) none */

		while (high - low > 1 && !y->budget->hit && !y->nomem) {
			uint32_t middle = low + (high - low) / 2;

			if (conflicts(y, core, middle, last))
				low = middle;
			else
				high = middle;
		}
		if (y->budget->hit || y->nomem) {
			memset(core, 0, y->p->count * sizeof *core);
			*exact = false;
			return;
		}
		core[y->ends[low]] = true;
		begin = low + 1;
	}
}

static int init(struct why *y)
{
	y->ends = malloc(((size_t)y->p->count + 1) * sizeof *y->ends);
	y->kept = malloc(((size_t)y->p->count + 1) * sizeof *y->kept);
	y->items = malloc(((size_t)y->p->count + 1) * sizeof *y->items);
	y->map = malloc(((size_t)y->p->count + 1) * sizeof *y->map);
	if (!y->ends || !y->kept || !y->items || !y->map)
		return WIRE_NOMEM;
	for (uint32_t i = 0; i < y->p->count; i++)
		if (!y->p->items[i].optional)
			y->ends[y->end_count++] = i;
	qsort_r(y->ends, y->end_count, sizeof *y->ends, by_ret, y->p->items);
	return WIRE_OK;
}

static void to_ops(const struct lin_problem *p, uint32_t *items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		items[i] = p->items[items[i]].op;
}

static int report(struct why *y, uint32_t last, const bool *core, bool exact, struct lin_key_report *r)
{
	struct lin_answer prefix = { 0 };
	uint32_t *conflict = malloc(((size_t)y->p->count + 1) * sizeof *conflict);

	if (!conflict)
		return WIRE_NOMEM;
	for (uint32_t i = 0; i < y->p->count; i++)
		if (core[i])
			conflict[r->conflict_count++] = y->p->items[i].op;
	r->conflict = conflict;
	r->stuck = y->p->items[y->ends[last]].op;
	r->prefix_ok = last;
	/* Its states were looked at before, in the search for the prefix; so they are not worth a refusal now. */
	y->budget->hit = LIN_LIMIT_NONE;
	y->budget->states = 0;
	if (ask(y, y->p->items[y->ends[last]].ret, NULL, &prefix) == LIN_LINEARIZABLE) {
		to_ops(y->p, prefix.order, prefix.order_count);
		r->order = prefix.order;
		r->order_count = prefix.order_count;
	} else {
		exact = false;
	}
	r->exact = exact;
	return y->nomem ? WIRE_NOMEM : WIRE_OK;
}

int lin_explain(const struct lin_problem *p, struct lin_budget *b, struct lin_key_report *r)
{
	struct why y = { .p = p, .budget = b };
	bool *core = calloc((size_t)p->count + 1, sizeof *core), exact = true;
	uint64_t states_max = b->states_max;
	int rc = core ? init(&y) : WIRE_NOMEM;
	uint32_t last;

	if (!rc) {
		b->states_max = states_max < PREFIX_STATES ? states_max : PREFIX_STATES;
		last = longest_prefix(&y, &exact);
		b->hit = b->hit == LIN_LIMIT_STATES ? LIN_LIMIT_NONE : b->hit;
		b->states = 0;
		b->states_max = states_max < CORE_STATES ? states_max : CORE_STATES;
		find_core(&y, last, core, &exact);
		b->states_max = states_max;
		rc = y.nomem ? WIRE_NOMEM : report(&y, last, core, exact, r);
	}
	free(core);
	free(y.ends);
	free(y.kept);
	free(y.items);
	free(y.map);
	return rc;
}
