/* Registers: read, write, cas. The search of Wing & Gong with Lowe's memo, and rules that spare it most alternatives.
 *
 * The state is the value. A right order, below, is one of what is left, from the configuration at hand. A *plain* write is
 * one that is no cas. A value is *idle* when nothing that is left needs it; so is a plain required write that makes one.
 * Moving a candidate to the front never offends against time: nothing that is left had to be before it, and nothing else
 * moves relative to another.
 *
 * Rule A. Candidate reads of the state are taken at once. Proof: moved to the front, the read sees the same, and changes
 * nothing.
 *
 * Rule B. When a plain write goes first, all idle candidates may go before it (other than itself). Proof: behind an idle write
 * u, where it was, there followed a plain write or the end, since nothing needs what u made; so u can be left out there. In
 * front, its value is overwritten at once by the next idle one or by the plain write. So an idle write needs no alternatives
 * of its own: either another plain write comes first, and takes the idle ones along; or an idle one does, and behind it
 * comes a plain write again or the end, so all the idle ones may come at once (their order among them does not matter).
 *
 * Rule C. When the state is idle, all idle candidates are taken at once. Proof: nothing needs the state, so a plain write goes
 * first; by rule B.
 *
 * Rule D. When the state is idle: let w be a required plain candidate that makes v, v not idle, such that only reads need v, and each
 * of these was invoked before the earliest end of everything required that is neither w nor one of them. Then w is taken at
 * once. (The reads follow by rule A.) Proof: put w in front of a right order, and behind it all these reads. That offends
 * against no time, as each was invoked before all others' ends. Where the reads were, nothing changes without them. Where w was,
 * there followed, but for reads, a plain write or the end, as nothing else needs v; so it can be left out there. What was first
 * is a plain write, since the state is idle, and may as well follow the reads.
 * With values that are written once, and no cas, some write is always of this kind if there is an order at all: the search
 * never steps back (Gibbons & Korach 1997 have a similar argument).
 *
 * Rule E. Of plain candidates that make the same value, only the required one that ends first is tried, or if none is
 * required, the optional one that was invoked first. Likewise of cas between the same values. Proof: as step 3 in list.c.
 *
 * Rule F. An optional operation is tried only when a candidate needs what it makes, other than the state. Proof: if what
 * follows right behind it does not need what it made, it can be left out (reduce.c, rule 1); it follows right behind, so it is a
 * candidate already, for an optional operation does not move the bound. One that makes the state anew can be left out too.
 *
 * Rule G. A configuration is a dead end when a value is needed by required operations, is not the state, and nothing left makes
 * it; or when more required cas need it than it can come to be: each uses it up.
 *
 * Rule H, where optional operations are unlimited. A value is *free* when a plain optional write of it is a candidate, and so it
 * stays. When the state is free, or idle while some value is free, each candidate is taken at once that needs nothing or what
 * is free, and makes nothing or what is free. Proof: in front of a right order put a write of what it needs, the candidate, and a
 * write of the state that was, or of any free value if that was idle. Nothing else misses what the candidate made, for it can
 * be had. Likewise a cas from what is free can be next whatever the free state is. So all free states are as one, and there is no
 * reason to change them by a plain optional write. */
#include "test/lin/history.h"
#include "test/lin/register.h"

#include <stdlib.h>
#include <string.h>

/* Configurations that the deep search may look at, per operation, and besides. */
#define DEEP_PER_OP 20u
#define DEEP_MORE 20000u

static bool can_be_met(const struct lin_register *s, uint32_t value)
{
	const struct lin_counts *c = &s->counts[value];
	uint32_t times = c->makers + (s->state == value);

	return (c->cas <= times && (!c->reads || times)) || (s->thrift == LIN_UNLIMITED && c->optional);
}

static bool is_idle_write(const struct lin_register *s, const struct lin_item *it)
{
	return it->need == LIN_NONE && lin_is_idle(s, it->make);
}

/* Rule A. Returns whether any was taken. */
static bool take_reads(struct lin_register *s)
{
	bool any = false, again = true;

	while (again) {
		uint32_t bound = lin_window_bound(&s->window);

		again = false;
		for (uint32_t next, i = lin_window_first(&s->window, bound); i != LIN_NONE; i = next) {
			next = lin_window_next(&s->window, bound, i);
			if (!lin_is_read(&s->items[i]) || s->items[i].need != s->state)
				continue;
			lin_register_take(s, i);
			again = any = true;
		}
	}
	return any;
}

/* Rule B: all idle candidates but one. */
static bool take_idle(struct lin_register *s, uint32_t but)
{
	uint32_t bound = lin_window_bound(&s->window);
	bool any = false;

	for (uint32_t next, i = lin_window_first(&s->window, bound); i != LIN_NONE; i = next) {
		next = lin_window_next(&s->window, bound, i);
		if (i == but || !is_idle_write(s, &s->items[i]))
			continue;
		lin_register_take(s, i);
		any = true;
	}
	return any;
}

/* Rule H. */
static bool take_free(struct lin_register *s)
{
	uint32_t bound = lin_window_bound(&s->window);
	bool any = false;

	if (!lin_is_state_free(s, bound))
		return false;
	for (uint32_t next, i = lin_window_first(&s->window, bound); i != LIN_NONE; i = next) {
		const struct lin_item *it = &s->items[i];

		next = lin_window_next(&s->window, bound, i);
		if ((it->need != LIN_NONE && !lin_is_free(s, it->need, bound)) || (it->make != LIN_NONE && !lin_is_free(s, it->make, bound)))
			continue;
		lin_register_take(s, i);
		any = true;
	}
	return any;
}

/* Rule D, of one write. */
static bool is_ready(const struct lin_register *s, uint32_t w)
{
	const struct lin_item *it = &s->items[w];
	const struct lin_counts *c = &s->counts[it->make];

	if (it->need != LIN_NONE || !c->reads || c->cas || c->optional_cas)
		return false;
	for (uint32_t k = s->window.first; k < s->window.required; k++) {
		uint32_t i = s->window.by_ret[k];

		if (s->items[i].ret > c->last_inv)
			return true;
		if (i != w && !s->window.taken[i] && !(lin_is_read(&s->items[i]) && s->items[i].need == it->make))
			return false;
	}
	return true;
}

static uint32_t find_ready(const struct lin_register *s)
{
	uint32_t bound = lin_window_bound(&s->window);

	for (uint32_t i = lin_window_first(&s->window, bound); i != LIN_NONE; i = lin_window_next(&s->window, bound, i))
		if (s->items[i].make != LIN_NONE && is_ready(s, i))
			return i;
	return LIN_NONE;
}

static enum lin_outcome look(struct lin_register *s)
{
	struct lin_budget *b = s->budget;

	if (b->states >= b->states_max)
		b->hit = LIN_LIMIT_STATES;
	else if (b->states++ % 256 == 0)
		lin_budget_out_of_time(b);
	return b->hit || (s->deep_max && b->states > s->deep_max) ? LIN_GIVEN_UP : LIN_FORK;
}

static enum lin_outcome remember_it(struct lin_register *s)
{
	enum lin_memo_result r = lin_register_remember(s);

	return r == LIN_MEMO_NEW ? LIN_FORK : r == LIN_MEMO_KNOWN ? LIN_DEAD_END : LIN_NOMEM;
}

/* By rule G. Only the value that was left and the one that came can have become impossible to meet: of the idle ones between,
 * nothing is needed. */
bool lin_register_apply(struct lin_register *s, uint32_t choice)
{
	uint32_t before = s->state;

	if (choice == LIN_ALL_IDLE || s->items[choice].need == LIN_NONE)
		take_idle(s, choice);
	if (choice != LIN_ALL_IDLE)
		lin_register_take(s, choice);
	return can_be_met(s, before) && can_be_met(s, s->state);
}

/* Room for what is taken up to the next time here: each required one at most once, and two choices. */
static bool have_room(struct lin_register *s)
{
	while (s->step_cap < s->step_count + s->window.required + 2)
		if (!lin_grow(&s->steps, &s->step_cap, s->step_cap, sizeof *s->steps))
			return false;
	return true;
}

enum lin_outcome lin_register_advance(struct lin_register *s, enum lin_remember remember)
{
	for (;;) {
		size_t first = s->choice_count;
		enum lin_outcome o = remember == LIN_REMEMBER_NONE ? LIN_FORK : look(s);
		uint32_t next;

		if (o != LIN_FORK)
			return o;
		if (!have_room(s))
			return LIN_NOMEM;
		while (take_reads(s) || (lin_is_idle(s, s->state) && take_idle(s, LIN_NONE)) || take_free(s))
			continue;
		if (lin_window_done(&s->window))
			return LIN_FOUND;
		if (remember == LIN_REMEMBER_ALL && (o = remember_it(s)) != LIN_FORK)
			return o;
		next = lin_is_idle(s, s->state) ? find_ready(s) : LIN_NONE;
		if (next == LIN_NONE) {
			if (!lin_register_choose(s))
				return LIN_NOMEM;
			if (s->choice_count == first)
				return LIN_DEAD_END;
			if (s->choice_count > first + 1)
				return remember == LIN_REMEMBER_FORKS ? remember_it(s) : LIN_FORK;
			next = s->choices[first].item;
			s->choice_count = first;
		}
		if (!lin_register_apply(s, next))
			return LIN_DEAD_END;
	}
}

/* The questions that are simpler than the real one, and then that. */
static enum lin_outcome search_wide(struct lin_register *s)
{
	static const struct {
		enum lin_thrift thrift;
		enum lin_outcome settles;
	} questions[] = { { LIN_UNLIMITED, LIN_DEAD_END }, { LIN_FRUGAL, LIN_FOUND } };
	enum lin_outcome o;

	for (size_t i = 0; s->optional_count && i < sizeof questions / sizeof *questions; i++) {
		if (!lin_register_restart(s, questions[i].thrift))
			return LIN_NOMEM;
		o = lin_register_wide(s);
		if (o == questions[i].settles || (o != LIN_FOUND && o != LIN_DEAD_END))
			return o;
	}
	return lin_register_restart(s, LIN_EXACT) ? lin_register_wide(s) : LIN_NOMEM;
}

static enum lin_outcome search(struct lin_register *s)
{
	enum lin_outcome o;

	for (uint32_t v = 0; v < s->value_count; v++)
		if (!can_be_met(s, v))
			return LIN_DEAD_END;
	if (s->budget->search == LIN_WIDE)
		return search_wide(s);
	if (s->budget->search == LIN_DEEP_THEN_WIDE)
		s->deep_max = s->budget->states + (uint64_t)s->count * DEEP_PER_OP + DEEP_MORE;
	o = lin_register_deep(s);
	if (o != LIN_GIVEN_UP || s->budget->hit)
		return o;
	s->deep_max = 0;
	return search_wide(s);
}

static int answer_of(struct lin_register *s, const uint32_t *map, struct lin_answer *ret_answer)
{
	struct lin_answer a = { .verdict = LIN_LINEARIZABLE };

	a.order = malloc((s->step_count + 1) * sizeof *a.order);
	if (!a.order)
		return WIRE_NOMEM;
	for (size_t i = 0; i < s->step_count; i++)
		a.order[i] = map[s->steps[i].item];
	a.order_count = (uint32_t)s->step_count;
	*ret_answer = a;
	return WIRE_OK;
}

static int solve_reduced(struct lin_register *s, const uint32_t *map, struct lin_answer *ret_answer)
{
	enum lin_outcome o = lin_register_init(s) ? search(s) : LIN_NOMEM;
	int rc = WIRE_OK;

	if (o == LIN_NOMEM)
		rc = WIRE_NOMEM;
	else if (o == LIN_FOUND)
		rc = answer_of(s, map, ret_answer);
	else
		*ret_answer = (struct lin_answer){ .verdict = o == LIN_GIVEN_UP ? LIN_UNDECIDED : LIN_VIOLATION };
	lin_register_done(s);
	return rc;
}

int lin_solve_register(const struct lin_problem *p, struct lin_budget *b, struct lin_answer *ret_answer)
{
	struct lin_item *items = malloc(((size_t)p->count + 1) * sizeof *items);
	uint32_t *map = malloc(((size_t)p->count + 1) * sizeof *map);
	struct lin_register s = { .items = items, .count = p->count, .value_count = p->value_count, .budget = b };
	bool possible = false;
	int rc = WIRE_NOMEM;

	if (items && map) {
		memcpy(items, p->items, p->count * sizeof *items);
		rc = lin_reduce_register(items, &s.count, p->value_count, map, &possible);
		if (!rc && !possible)
			*ret_answer = (struct lin_answer){ .verdict = LIN_VIOLATION };
		else if (!rc)
			rc = solve_reduced(&s, map, ret_answer);
	}
	free(items);
	free(map);
	return rc;
}
