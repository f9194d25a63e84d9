/* Append-only lists. A list never shrinks, so its reads tell the order of all appends up to the longest read; a step back is
 * never needed. With `longest` for that read, and its length m:
 *
 * Step 0. Each read must be a beginning of `longest`: the list has the length of each once only, and the longer one grew
 * from the shorter. So a read is known by its length, and appends are known by their element.
 *
 * The state is the length k. At length k <= m, of a right order of what is left (if there is one):
 *
 * Step 1. Candidate reads of length k are taken at once. Proof: moved to the front the read sees the same, changes nothing,
 * and no other comes nearer to one that must be before it; it was a candidate, so nothing had to be before it.
 *
 * Step 2. When other reads of length k are left, there is no order: they are no candidates, so something must go first, which
 * is no read (others see other lengths), so it is an append, and length k never comes again.
 *
 * Step 3. For k < m with reads left, the first in the order is now an append of element k of `longest`: there is a read of
 * length m left, so the list must come to be that. Of several candidates for it take the required one that ends first, or if
 * there is none the optional one that was invoked first. Proof: let the order have b first, and a be our choice. If a is later
 * in the order, swap them: a was a candidate; b goes to where a was, which is before a's end, so before b's end, as a ends
 * no later; both append the same. If a is not in the order, it is optional, so b is as well; put a in b's place.
 *
 * Step 4. When no reads are left, take the required appends by their ends; leave the others. Each is a candidate at its turn,
 * as it was invoked before its own end, which is the bound. */
#include "test/lin/history.h"
#include "test/lin/search.h"

#include <stdlib.h>
#include <string.h>

struct list {
	const struct lin_problem *p;
	struct lin_budget *budget;
	struct lin_window window;
	uint32_t m;
	lin_value *elements;   /* of `longest`: [0, m) */
	lin_value *beginnings; /* of `longest`: [0, m], by length */
	uint32_t *reads;       /* by length: how many are left */
	uint32_t reads_left;
	uint32_t *optional;    /* those whose element is in `longest`, by element, then by inv */
	uint32_t optional_count;
	uint32_t *next;        /* by position in `optional`, of a group's first only: how many of the group were taken */
	uint32_t *order;
	uint32_t order_count;
};

static size_t length_of(const struct list *l, const struct lin_item *read)
{
	return lin_list_length(l->p->h, read->need);
}

static int by_element(const void *a, const void *b, void *items_ptr)
{
	const struct lin_item *items = items_ptr;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	if (items[x].make != items[y].make)
		return items[x].make < items[y].make ? -1 : 1;
	return x < y ? -1 : x > y;
}

static bool init(struct list *l)
{
	const struct lin_problem *p = l->p;
	lin_value longest = LIN_EMPTY;

	for (uint32_t i = 0; i < p->count; i++)
		if (lin_is_read(&p->items[i]) && length_of(l, &p->items[i]) > lin_list_length(p->h, longest))
			longest = p->items[i].need;
	l->m = (uint32_t)lin_list_length(p->h, longest);
	l->elements = malloc(((size_t)l->m + 1) * sizeof *l->elements);
	l->beginnings = malloc(((size_t)l->m + 1) * sizeof *l->beginnings);
	l->reads = calloc((size_t)l->m + 1, sizeof *l->reads);
	l->optional = malloc(((size_t)p->count + 1) * sizeof *l->optional);
	l->next = calloc((size_t)p->count + 1, sizeof *l->next);
	l->order = malloc(((size_t)p->count + 1) * sizeof *l->order);
	if (!l->elements || !l->beginnings || !l->reads || !l->optional || !l->next || !l->order ||
	    !lin_window_init(&l->window, p->items, p->count))
		return false;
	for (uint32_t k = l->m; k > 0; k--) {
		l->beginnings[k] = longest;
		longest = lin_list_pop(p->h, longest, &l->elements[k - 1]);
	}
	l->beginnings[0] = LIN_EMPTY;
	for (uint32_t i = 0; i < p->count; i++)
		if (p->items[i].optional)
			l->optional[l->optional_count++] = i;
	qsort_r(l->optional, l->optional_count, sizeof *l->optional, by_element, p->items);
	return true;
}

static void done(struct list *l)
{
	lin_window_free(&l->window);
	free(l->elements);
	free(l->beginnings);
	free(l->reads);
	free(l->optional);
	free(l->next);
	free(l->order);
}

/* Step 0. */
static bool reads_agree(struct list *l)
{
	for (uint32_t i = 0; i < l->p->count; i++) {
		const struct lin_item *read = &l->p->items[i];
		size_t k = length_of(l, read);

		if (!lin_is_read(read))
			continue;
		if (read->need != l->beginnings[k] && read->need != LIN_NULL)
			return false;
		l->reads[k]++;
		l->reads_left++;
	}
	return true;
}

static void take(struct list *l, uint32_t i)
{
	if (!l->p->items[i].optional)
		lin_window_take(&l->window, i);
	l->order[l->order_count++] = i;
}

/* Step 1. A read that is taken may raise the bound. */
static void take_reads(struct list *l, uint32_t k)
{
	bool again = true;

	while (again) {
		uint32_t bound = lin_window_bound(&l->window);

		again = false;
		for (uint32_t next, i = lin_window_first(&l->window, bound); i != LIN_NONE; i = next) {
			next = lin_window_next(&l->window, bound, i);
			if (!lin_is_read(&l->p->items[i]) || length_of(l, &l->p->items[i]) != k)
				continue;
			take(l, i);
			l->reads[k]--;
			l->reads_left--;
			again = true;
		}
	}
}

/* The first optional append of the element that is not taken, if it is a candidate. */
static uint32_t optional_append(struct list *l, lin_value element, uint32_t bound)
{
	uint32_t low = 0, high = l->optional_count, i;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (l->p->items[l->optional[middle]].make < element)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == l->optional_count)
		return LIN_NONE;
	i = low + l->next[low];
	if (i >= l->optional_count || l->p->items[l->optional[i]].make != element || l->p->items[l->optional[i]].inv >= bound)
		return LIN_NONE;
	l->next[low]++;
	return l->optional[i];
}

/* Step 3; LIN_NONE when there is no candidate. */
static uint32_t next_append(struct list *l, lin_value element)
{
	uint32_t bound = lin_window_bound(&l->window), found = LIN_NONE;

	for (uint32_t i = lin_window_first(&l->window, bound); i != LIN_NONE; i = lin_window_next(&l->window, bound, i))
		if (l->p->items[i].make == element && (found == LIN_NONE || l->p->items[i].ret < l->p->items[found].ret))
			found = i;
	return found != LIN_NONE ? found : optional_append(l, element, bound);
}

static enum lin_verdict run(struct list *l)
{
	if (!reads_agree(l))
		return LIN_VIOLATION;
	for (uint32_t k = 0; l->reads_left; k++) {
		uint32_t i;

		if (++l->budget->states > l->budget->states_max)
			l->budget->hit = LIN_LIMIT_STATES;
		else if (k % 1024 == 0)
			lin_budget_out_of_time(l->budget);
		if (l->budget->hit)
			return LIN_UNDECIDED;
		take_reads(l, k);
		if (l->reads[k])
			return LIN_VIOLATION;
		if (!l->reads_left)
			break;
		i = next_append(l, l->elements[k]);
		if (i == LIN_NONE)
			return LIN_VIOLATION;
		take(l, i);
	}
	while (!lin_window_done(&l->window))
		take(l, l->window.by_ret[l->window.first]);
	return LIN_LINEARIZABLE;
}

int lin_solve_list(const struct lin_problem *p, struct lin_budget *b, struct lin_answer *ret_answer)
{
	struct list l = { .p = p, .budget = b };
	struct lin_answer answer = { 0 };

	if (!init(&l)) {
		done(&l);
		return WIRE_NOMEM;
	}
	answer.verdict = run(&l);
	if (answer.verdict == LIN_LINEARIZABLE) {
		answer.order = l.order;
		answer.order_count = l.order_count;
		l.order = NULL;
	}
	done(&l);
	*ret_answer = answer;
	return WIRE_OK;
}
