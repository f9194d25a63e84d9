#include "test/lin/search.h"

#include <stdlib.h>
#include <time.h>

uint64_t lin_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool lin_budget_out_of_time(struct lin_budget *b)
{
	if (b->deadline_ns && lin_clock_ns() >= b->deadline_ns)
		b->hit = LIN_LIMIT_TIME;
	return b->hit != LIN_LIMIT_NONE;
}

struct end {
	uint32_t ret, item;
};

static int by_ret(const void *a, const void *b)
{
	const struct end *x = a, *y = b;

	if (x->ret != y->ret)
		return x->ret < y->ret ? -1 : 1;
	return x->item < y->item ? -1 : x->item > y->item;
}

bool lin_window_init(struct lin_window *w, const struct lin_item *items, uint32_t count)
{
	size_t n = (size_t)count + 1;
	struct end *ends = malloc(n * sizeof *ends);
	uint32_t last = count;

	*w = (struct lin_window){ .items = items, .count = count };
	w->inv_next = malloc(n * sizeof *w->inv_next);
	w->inv_prev = malloc(n * sizeof *w->inv_prev);
	w->by_ret = malloc(n * sizeof *w->by_ret);
	w->rank = malloc(n * sizeof *w->rank);
	w->taken = calloc(n, sizeof *w->taken);
	if (!ends || !w->inv_next || !w->inv_prev || !w->by_ret || !w->rank || !w->taken) {
		free(ends);
		return false;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (items[i].optional)
			continue;
		ends[w->required++] = (struct end){ items[i].ret, i };
		w->inv_next[last] = i;
		w->inv_prev[i] = last;
		last = i;
	}
	w->inv_next[last] = count;
	w->inv_prev[count] = last;
	qsort(ends, w->required, sizeof *ends, by_ret);
	for (uint32_t k = 0; k < w->required; k++) {
		w->by_ret[k] = ends[k].item;
		w->rank[ends[k].item] = k;
	}
	free(ends);
	return true;
}

void lin_window_free(struct lin_window *w)
{
	free(w->inv_next);
	free(w->inv_prev);
	free(w->by_ret);
	free(w->rank);
	free(w->taken);
}
