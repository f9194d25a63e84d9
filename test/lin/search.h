/* The search for an order, for one key. Each model's search takes the same problem and gives the same answer.
 *
 * A problem: operations, each open from its invocation to its end, as positions in the history. A *required* one must get a
 * place before its end; an *optional* one (a write of unknown outcome) may get a place at any time after its invocation,
 * or none. An order is right when no operation stands in it before one that ended before it was invoked, and the model
 * accepts it.
 *
 * The idea is that of Wing & Gong (1993): take operations one by one; one may be taken next when no required one that is
 * left ended before it was invoked, that is, when it was invoked before the *bound*, the earliest end of all required ones
 * left (the operations for which this is so are the *candidates*). Step back when there is none that fits. Lowe (2017): do
 * not go twice from the same set of taken operations with the same state. Everything else, rules by which most steps need
 * no alternative, is proved where it stands. */
#ifndef TEST_LIN_SEARCH_H
#define TEST_LIN_SEARCH_H

#include "test/lin/lin.h"

#define LIN_NEVER UINT32_MAX /* a position behind all others */
#define LIN_NONE UINT32_MAX  /* no value */

/* A read needs a value, a write or append makes one, a cas needs one and makes another. */
struct lin_item {
	uint32_t inv, ret; /* positions; no inv equals a ret. ret is LIN_NEVER if and only if optional */
	/* Values. Register: numbers below value_count, 0 is that of the absent key. List: lin_value, of what is appended or of
	 * the whole list that was read. */
	uint32_t need, make;
	uint32_t op; /* its number in the history */
	bool optional;
};

struct lin_problem {
	const struct lin_history *h;
	enum lin_model model;
	struct lin_item *items; /* by rising inv; no optional reads */
	uint32_t count;
	uint32_t value_count;
};

static inline bool lin_is_read(const struct lin_item *i)
{
	return i->make == LIN_NONE;
}

static inline bool lin_is_cas(const struct lin_item *i)
{
	return i->need != LIN_NONE && i->make != LIN_NONE;
}

/* What may still be spent. */
struct lin_budget {
	uint64_t states, states_max; /* spent on the problem, and the bound */
	uint64_t deadline_ns;        /* of CLOCK_MONOTONIC; 0: none */
	enum lin_limit hit;
	enum lin_search search;
};

uint64_t lin_clock_ns(void);
/* Whether it is spent; then `hit` says what. */
bool lin_budget_out_of_time(struct lin_budget *b);

struct lin_answer {
	enum lin_verdict verdict;
	uint32_t *order; /* indexes of items, owned by the caller; NULL when not LIN_LINEARIZABLE */
	uint32_t order_count;
};

/* WIRE_OK or WIRE_NOMEM. */
int lin_solve(const struct lin_problem *p, struct lin_budget *b, struct lin_answer *ret_answer);
int lin_solve_register(const struct lin_problem *p, struct lin_budget *b, struct lin_answer *ret_answer);
int lin_solve_list(const struct lin_problem *p, struct lin_budget *b, struct lin_answer *ret_answer);

/* Whether the order is right, by the definition alone: each required operation is there once. Independent of the searches. */
bool lin_order_is_right(const struct lin_problem *p, const uint32_t *order, uint32_t count);

/* Finds, for a problem that is a violation, what lin_key_report says of it, as operations of the history. WIRE_NOMEM. */
int lin_explain(const struct lin_problem *p, struct lin_budget *b, struct lin_key_report *r);

/* ---- The required operations of a problem that are left ---- */

struct lin_window {
	const struct lin_item *items;
	uint32_t count;              /* of all items; also the head of the list */
	uint32_t *inv_next, *inv_prev; /* those left, by inv */
	uint32_t *by_ret;            /* all required ones, by ret ... */
	uint32_t required;           /* ... so many */
	uint32_t *rank;              /* by item: its place in by_ret */
	bool *taken;                 /* by item */
	uint32_t first;              /* place of the first one left in by_ret, `required` when none is */
};

/* False when memory fails; lin_window_free then too. */
bool lin_window_init(struct lin_window *w, const struct lin_item *items, uint32_t count);
void lin_window_free(struct lin_window *w);

static inline void lin_window_take(struct lin_window *w, uint32_t i)
{
	w->inv_next[w->inv_prev[i]] = w->inv_next[i];
	w->inv_prev[w->inv_next[i]] = w->inv_prev[i];
	w->taken[i] = true;
	/* What is behind the first one and taken was open together with it, so there are few of them. */
	while (w->first < w->required && w->taken[w->by_ret[w->first]])
		w->first++;
}

/* The last one taken that was not given back yet. */
static inline void lin_window_untake(struct lin_window *w, uint32_t i)
{
	w->inv_next[w->inv_prev[i]] = w->inv_prev[w->inv_next[i]] = i;
	w->taken[i] = false;
	if (w->rank[i] < w->first)
		w->first = w->rank[i];
}

static inline bool lin_window_done(const struct lin_window *w)
{
	return w->first == w->required;
}

/* The bound; LIN_NEVER when nothing required is left. */
static inline uint32_t lin_window_bound(const struct lin_window *w)
{
	return lin_window_done(w) ? LIN_NEVER : w->items[w->by_ret[w->first]].ret;
}

/* The first required candidate, the next one, LIN_NONE behind the last. */
static inline uint32_t lin_window_first(const struct lin_window *w, uint32_t bound)
{
	uint32_t i = w->inv_next[w->count];

	return i != w->count && w->items[i].inv < bound ? i : LIN_NONE;
}

static inline uint32_t lin_window_next(const struct lin_window *w, uint32_t bound, uint32_t i)
{
	i = w->inv_next[i];
	return i != w->count && w->items[i].inv < bound ? i : LIN_NONE;
}

/* ---- Problems made simpler without changing the answer (registers) ---- */

/* Changes `items` in place, keeps their order, and lowers *count. False: there is no order. `ret_map[i]` is the index that
 * item i of the result had before. WIRE_NOMEM. */
int lin_reduce_register(struct lin_item *items, uint32_t *count, uint32_t value_count, uint32_t *ret_map, bool *ret_possible);

/* ---- Configurations that were looked at ---- */

struct lin_memo;

/* A configuration is `exact` words that must be equal, and `used` words, a set of optional operations. */
struct lin_memo *lin_memo_new(size_t exact, size_t used, bool frugal); /* NULL when memory fails */
void lin_memo_free(struct lin_memo *m);
enum lin_memo_result { LIN_MEMO_NEW, LIN_MEMO_KNOWN, LIN_MEMO_NOMEM };
/* KNOWN when one with equal exact words, and a subset of the used ones, was added before; a frugal memo takes a set that is not
 * larger for a subset. */
enum lin_memo_result lin_memo_add(struct lin_memo *m, const uint64_t *words);
/* Forgets those whose first exact word is below `word`. */
void lin_memo_forget(struct lin_memo *m, uint64_t word);
size_t lin_memo_count(const struct lin_memo *m);
uint64_t lin_memo_work(const struct lin_memo *m); /* comparisons so far */

#endif
