/* The wide search: forks in the order of their bounds. A fork's successors have its bound or a later one, so when all of a bound
 * are done with, what the memo knows of earlier ones is not needed any more; and of each fork only where it came from is kept,
 * for the order in the end. */
#include "test/lin/history.h"
#include "test/lin/register.h"

#include <stdlib.h>

#define FORGET_AT 100000u

/* A fork, and the choice at the one before that led to it. */
struct node {
	uint32_t before, choice;
};

struct wide {
	struct lin_register *s;
	struct lin_snapshot *begin;    /* of the history */
	struct lin_snapshot **waiting; /* by place of the bound's operation in by_ret */
	struct node *nodes;
	size_t node_count, node_cap;
	size_t forget_at;
};

/* Where it came from matters only for an order. */
static bool add_node(struct wide *w, uint32_t before, uint32_t choice, uint32_t *ret_node)
{
	if (w->s->thrift != LIN_UNLIMITED || w->node_count == 0) {
		if (!lin_grow(&w->nodes, &w->node_cap, w->node_count, sizeof *w->nodes))
			return false;
		w->nodes[w->node_count++] = (struct node){ before, choice };
	}
	*ret_node = (uint32_t)w->node_count - 1;
	return true;
}

/* The configuration is a fork: it waits for its turn. Those that used few optional operations have theirs first. */
static bool put(struct wide *w, uint32_t before, uint32_t choice)
{
	struct lin_snapshot *c = lin_register_save(w->s), **at = &w->waiting[w->s->window.first];

	if (!c)
		return false;
	if (!add_node(w, before, choice, &c->node)) {
		free(c);
		return false;
	}
	while (*at && (*at)->used < c->used && w->s->thrift == LIN_FRUGAL)
		at = &(*at)->next;
	c->next = *at;
	*at = c;
	return true;
}

/* Goes the way to the fork `node`, then to the end by `choice`, once more, so that the steps are in one piece. */
static enum lin_outcome repeat_way(struct wide *w, uint32_t node, uint32_t choice)
{
	struct lin_register *s = w->s;
	uint32_t *choices = malloc(w->node_count * sizeof *choices), count = 0;
	enum lin_outcome o;

	if (!choices)
		return LIN_NOMEM;
	for (; node != 0; node = w->nodes[node].before) {
		choices[count++] = choice;
		choice = w->nodes[node].choice;
	}
	choices[count++] = choice;
	lin_register_load(s, w->begin);
	do {
		o = lin_register_advance(s, LIN_REMEMBER_NONE);
		s->choice_count = 0;
	} while (o == LIN_FORK && count && lin_register_apply(s, choices[--count]));
	free(choices);
	return o;
}

/* All choices of the fork `node`, which has just been loaded. */
static enum lin_outcome try_all(struct wide *w, uint32_t node)
{
	struct lin_register *s = w->s;
	size_t count;

	if (!lin_register_choose(s))
		return LIN_NOMEM;
	count = s->choice_count;
	for (size_t k = 0; k < count; k++) {
		uint32_t choice = s->choices[k].item;
		enum lin_outcome o = lin_register_apply(s, choice) ? lin_register_advance(s, LIN_REMEMBER_ALL) : LIN_DEAD_END;

		if (o == LIN_FOUND)
			return s->thrift == LIN_UNLIMITED ? o : repeat_way(w, node, choice);
		if (o == LIN_FORK && !put(w, node, choice))
			return LIN_NOMEM;
		if (o != LIN_FORK && o != LIN_DEAD_END)
			return o;
		while (s->step_count)
			lin_register_untake(s);
		s->choice_count = count;
	}
	return LIN_DEAD_END;
}

static enum lin_outcome go(struct wide *w)
{
	struct lin_register *s = w->s;
	enum lin_outcome o = lin_register_advance(s, LIN_REMEMBER_ALL);

	if (o != LIN_FORK)
		return o; /* the way to the end had no fork */
	if (!put(w, 0, 0))
		return LIN_NOMEM;
	o = LIN_DEAD_END;
	for (uint32_t at = 0; at < s->window.required && o == LIN_DEAD_END; at++) {
		uint32_t fewest = w->waiting[at] ? w->waiting[at]->used : 0;

		while (w->waiting[at] && o == LIN_DEAD_END) {
			struct lin_snapshot *c = w->waiting[at];

			w->waiting[at] = c->next;
			if (c->used <= fewest + LIN_FRUGAL_SLACK || s->thrift != LIN_FRUGAL) {
				lin_register_load(s, c);
				o = try_all(w, c->node);
			}
			free(c);
		}
		if (lin_memo_count(s->memo) < w->forget_at)
			continue;
		lin_register_forget(s, at + 1);
		w->forget_at = lin_memo_count(s->memo) * 2 + FORGET_AT;
	}
	return o;
}

enum lin_outcome lin_register_wide(struct lin_register *s)
{
	struct wide w = { .s = s, .forget_at = FORGET_AT };
	enum lin_outcome o = LIN_NOMEM;

	w.begin = lin_register_save(s);
	w.waiting = calloc((size_t)s->window.required + 1, sizeof(struct lin_snapshot *));
	if (w.begin && w.waiting)
		o = go(&w);
	if (w.begin && (o == LIN_DEAD_END || s->thrift == LIN_UNLIMITED))
		lin_register_load(s, w.begin);
	for (uint32_t at = 0; w.waiting && at < s->window.required; at++) {
		for (struct lin_snapshot *next, *c = w.waiting[at]; c; c = next) {
			next = c->next;
			free(c);
		}
	}
	free(w.begin);
	free(w.waiting);
	free(w.nodes);
	return o;
}
