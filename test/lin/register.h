/* The search for a register's order: its configuration, and the moves on it. The rules and their proofs are in register.c.
 *
 * There are two searches over the same moves. The *deep* one goes on from where it came to, and steps back from dead ends: where
 * there is an order it looks at about one configuration an operation, as a rule. When it needs many more, because there is
 * no order, or because an early mistake shows late (operations of unknown outcome are good at that: they mend any mistake until
 * there are no more of them), it would look at the same small differences again and again, far from the mistake. Then the
 * *wide* one begins: all configurations in the order of their bounds, so that what is behind can be forgotten, and its work is at
 * most the length of the history times what can be different at one time.
 *
 * What can be different at one time is small, but for the set of optional operations used so far, which is different for
 * ever. So when there are such, two questions that do without that set come first, and only when they do not settle it the real
 * one: see enum lin_thrift. */
#ifndef TEST_LIN_REGISTER_H
#define TEST_LIN_REGISTER_H

#include "test/lin/search.h"

/* How the wide search takes optional operations. */
enum lin_thrift {
	/* As they are. */
	LIN_EXACT,
	/* Each as often as one likes, once it was invoked. An order of the problem is one here, too: when there is none here,
	 * there is none at all. All rules hold, for this is a problem with more optional operations; and rule H comes in. */
	LIN_UNLIMITED,
	/* As they are, but of configurations that differ in nothing else only one is followed that has used the fewest, and of each
	 * bound only those with the fewest, or LIN_FRUGAL_SLACK more. What is found is an order; when nothing is found, that says nothing. */
	LIN_FRUGAL
};

#define LIN_FRUGAL_SLACK 1u

/* How many operations that are left ... */
struct lin_counts {
	uint32_t reads, cas; /* ... need a value, required ones */
	uint32_t optional_cas; /* ... need it, optional ones */
	uint32_t makers; /* ... make it */
	uint32_t last_inv; /* of all required reads of the value, also those taken: the latest invocation */
	uint32_t free_inv; /* of all optional plain writes of the value: the earliest invocation, or LIN_NEVER */
	bool optional;     /* some optional operation makes the value */
};

struct lin_step {
	uint32_t item, state_before;
};

/* A choice besides an item: all idle candidates (see register.c) and nothing else. */
#define LIN_ALL_IDLE (UINT32_MAX - 1)

struct lin_choice {
	uint32_t item; /* or LIN_ALL_IDLE */
	uint32_t rank; /* lower ones first */
};

/* Of a value, while choices are made; each is valid when its stamp is the search's. */
struct lin_mark {
	uint64_t wanted_stamp, write_stamp, cas_stamp;
	uint32_t wanted_ret; /* earliest end of a candidate that needs the value */
	uint32_t write, cas; /* of the required candidates that make it, the one that ends first */
};

struct lin_register {
	const struct lin_item *items;
	uint32_t count, value_count;
	struct lin_budget *budget;
	struct lin_window window;
	uint32_t state, cursor; /* cursor: as lin_register_load left it */
	struct lin_counts *counts; /* by value */
	struct lin_step *steps;
	size_t step_count, step_cap;

	/* Optional ones, grouped by (need, make), in a group by inv. A group goes by the place of its first in `optional`. */
	uint32_t *optional;
	uint32_t optional_count;
	uint32_t *group;       /* by item */
	uint32_t *group_end;   /* by group: the place behind its last, where the next group begins */
	uint32_t *group_taken; /* by group: how many are taken, from its first on */
	uint32_t group_count;
	uint32_t free_inv; /* the lowest free_inv of all values */

	uint32_t *slot; /* by item: no two required ones that are open at the same time have the same */
	size_t slot_words, used_words;
	uint64_t *key;
	struct lin_memo *memo;

	enum lin_thrift thrift;
	uint64_t deep_max; /* of the budget's states, where the deep search is to give up; 0: none */
	struct lin_choice *choices;
	size_t choice_count, choice_cap;
	struct lin_mark *marks;
	uint64_t stamp;
};

enum lin_outcome {
	LIN_FOUND,    /* `steps` has the order */
	LIN_DEAD_END, /* nothing more from here */
	LIN_FORK,     /* the last of `choices` are the alternatives */
	LIN_GIVEN_UP, /* a limit was hit: the budget's, or deep_max */
	LIN_NOMEM
};

/* Which configurations advance looks up in the memo, and adds. */
enum lin_remember {
	LIN_REMEMBER_NONE,  /* nor does it count states: the way is known */
	LIN_REMEMBER_FORKS, /* those with alternatives: nothing will come back to the others, without a fork below */
	LIN_REMEMBER_ALL
};

/* False when memory fails; lin_register_done also then. The items must outlive it. */
bool lin_register_init(struct lin_register *s);
void lin_register_done(struct lin_register *s);
/* Back to the beginning, with an empty memo; false when memory fails. Not after a wide search without lin_register_load. */
bool lin_register_restart(struct lin_register *s, enum lin_thrift thrift);

/* Goes on by rules that leave no alternative, and by choices of one. */
enum lin_outcome lin_register_advance(struct lin_register *s, enum lin_remember remember);
/* Takes a choice, after a fork; false when that is a dead end. */
bool lin_register_apply(struct lin_register *s, uint32_t choice);
enum lin_outcome lin_register_deep(struct lin_register *s);
/* From the beginning, where the configuration must be. LIN_DEAD_END and LIN_FOUND mean what the thrift says. */
enum lin_outcome lin_register_wide(struct lin_register *s);

/* For these: */
void lin_register_take(struct lin_register *s, uint32_t i);
void lin_register_untake(struct lin_register *s); /* the last one taken */
/* Whether the configuration is new to the memo. */
enum lin_memo_result lin_register_remember(struct lin_register *s);
/* Forgets those with a bound before the one at place `rank` in by_ret. */
void lin_register_forget(struct lin_register *s, uint32_t rank);
/* Pushes what can be next, in the order in which to try it; false when memory fails. */
bool lin_register_choose(struct lin_register *s);

/* A configuration without the way to it. */
struct lin_snapshot {
	struct lin_snapshot *next; /* for who holds it */
	uint32_t node;             /* likewise */
	uint32_t used;             /* how many optional ones are taken */
	uint32_t state, open, cursor; /* of the required items below `cursor`, the candidates, `open` ones are left */
	uint32_t words[];             /* these, by inv; then for each group how many of it are taken */
};

struct lin_snapshot *lin_register_save(const struct lin_register *s); /* NULL when memory fails; to be freed */
/* From any configuration to the one that was saved; `steps` and `choices` become empty. */
void lin_register_load(struct lin_register *s, const struct lin_snapshot *c);

static inline bool lin_is_idle(const struct lin_register *s, uint32_t value)
{
	const struct lin_counts *c = &s->counts[value];

	return !c->reads && !c->cas && !c->optional_cas;
}

/* Rule H: whether the value can be had at any time from now on, that is, with this bound or a later one. */
static inline bool lin_is_free(const struct lin_register *s, uint32_t value, uint32_t bound)
{
	return s->thrift == LIN_UNLIMITED && s->counts[value].free_inv < bound;
}

/* Whether the state can be left and had again, or one that is as good. */
static inline bool lin_is_state_free(const struct lin_register *s, uint32_t bound)
{
	return lin_is_free(s, s->state, bound) || (s->thrift == LIN_UNLIMITED && s->free_inv < bound && lin_is_idle(s, s->state));
}

/* Whether an operation that needs `value` can be next. */
static inline bool lin_is_met(const struct lin_register *s, uint32_t value, uint32_t bound)
{
	return value == s->state || (lin_is_free(s, value, bound) && lin_is_state_free(s, bound));
}

#endif
