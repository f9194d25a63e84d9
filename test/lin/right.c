/* The definition of a right order, as plainly as possible: what the searches find is held against it. */
#include "test/lin/history.h"
#include "test/lin/search.h"

#include <stdlib.h>

static bool fits(const struct lin_problem *p, const struct lin_item *i, uint32_t *state)
{
	if (p->model == LIN_LIST) {
		if (i->make != LIN_NONE) {
			/* A list that nobody read is no value of the history, and no read will ask for it. */
			*state = *state == LIN_BAD ? LIN_BAD : lin_find_push(p->h, *state, i->make);
			return true;
		}
		return *state == (i->need == LIN_NULL ? LIN_EMPTY : i->need);
	}
	if (i->need != LIN_NONE && i->need != *state)
		return false;
	if (i->make != LIN_NONE)
		*state = i->make;
	return true;
}

bool lin_order_is_right(const struct lin_problem *p, const uint32_t *order, uint32_t count)
{
	bool *taken = calloc((size_t)p->count + 1, sizeof *taken), right = true;
	uint32_t state = p->model == LIN_LIST ? LIN_EMPTY : 0, latest_inv = 0;

	if (!taken)
		return true; /* no memory to look is no proof of a mistake */
	for (uint32_t n = 0; right && n < count; n++) {
		const struct lin_item *i = &p->items[order[n]];

		latest_inv = i->inv > latest_inv ? i->inv : latest_inv;
		right = !taken[order[n]] && i->ret > latest_inv && fits(p, i, &state);
		taken[order[n]] = true;
	}
	for (uint32_t i = 0; right && i < p->count; i++)
		right = taken[i] || p->items[i].optional;
	free(taken);
	return right;
}
