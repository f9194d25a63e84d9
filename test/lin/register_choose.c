/* What can be next in a register's search, after the rules of register.c that leave no alternative. */
#include "test/lin/history.h"
#include "test/lin/register.h"

static bool push(struct lin_register *s, uint32_t item, uint32_t rank)
{
	if (!lin_grow(&s->choices, &s->choice_cap, s->choice_count, sizeof *s->choices))
		return false;
	s->choices[s->choice_count++] = (struct lin_choice){ item, rank };
	return true;
}

static void want(struct lin_register *s, uint32_t value, uint32_t ret)
{
	struct lin_mark *m = &s->marks[value];

	if (m->wanted_stamp != s->stamp || ret < m->wanted_ret)
		m->wanted_ret = ret;
	m->wanted_stamp = s->stamp;
}

/* Rule E, among required ones. */
static void offer(struct lin_register *s, uint32_t i)
{
	const struct lin_item *it = &s->items[i];
	struct lin_mark *m = &s->marks[it->make];
	uint64_t *stamp = lin_is_cas(it) ? &m->cas_stamp : &m->write_stamp;
	uint32_t *best = lin_is_cas(it) ? &m->cas : &m->write;

	if (*stamp != s->stamp || it->ret < s->items[*best].ret)
		*best = i;
	*stamp = s->stamp;
}

/* The next optional one of a group, if it is a candidate. */
static uint32_t next_of(const struct lin_register *s, uint32_t group, uint32_t bound)
{
	uint32_t at = group + s->group_taken[group];

	return at < s->group_end[group] && s->items[s->optional[at]].inv < bound ? s->optional[at] : LIN_NONE;
}

/* Marks what candidates need, and which of the required ones are to be tried. Returns the earliest end of an idle write, or
 * LIN_NEVER when there is none. */
static uint32_t mark(struct lin_register *s, uint32_t bound)
{
	uint32_t idle_ret = LIN_NEVER;

	s->stamp++;
	for (uint32_t i = lin_window_first(&s->window, bound); i != LIN_NONE; i = lin_window_next(&s->window, bound, i)) {
		const struct lin_item *it = &s->items[i];

		if (it->need != LIN_NONE)
			want(s, it->need, it->ret);
		if (it->make == LIN_NONE || (it->need != LIN_NONE && !lin_is_met(s, it->need, bound)))
			continue;
		if (it->need != LIN_NONE || !lin_is_idle(s, it->make))
			offer(s, i);
		else if (it->ret < idle_ret)
			idle_ret = it->ret;
	}
	for (uint32_t g = 0; g < s->optional_count; g = s->group_end[g]) {
		uint32_t i = next_of(s, g, bound);

		if (i != LIN_NONE && s->items[i].need != LIN_NONE)
			want(s, s->items[i].need, LIN_NEVER);
	}
	return idle_ret;
}

/* Something that is needed soon is tried soon, or the first end would come too early for what needs it. */
static uint32_t rank_of(const struct lin_register *s, uint32_t i)
{
	const struct lin_mark *m = &s->marks[s->items[i].make];

	return m->wanted_stamp == s->stamp && m->wanted_ret < s->items[i].ret ? m->wanted_ret : s->items[i].ret;
}

static bool push_required(struct lin_register *s, uint32_t bound)
{
	for (uint32_t i = lin_window_first(&s->window, bound); i != LIN_NONE; i = lin_window_next(&s->window, bound, i)) {
		const struct lin_mark *m;

		if (s->items[i].make == LIN_NONE)
			continue;
		m = &s->marks[s->items[i].make];
		if (!(m->write_stamp == s->stamp && m->write == i) && !(m->cas_stamp == s->stamp && m->cas == i))
			continue;
		if (!push(s, i, rank_of(s, i)))
			return false;
	}
	return true;
}

/* Rules E, F, and H. They are tried last: they would mend what should be done otherwise, and be missing later. */
static bool push_optional(struct lin_register *s, uint32_t bound)
{
	bool state_free = lin_is_state_free(s, bound);

	for (uint32_t g = 0; g < s->optional_count; g = s->group_end[g]) {
		uint32_t i = next_of(s, g, bound);
		const struct lin_item *it = &s->items[s->optional[g]];
		const struct lin_mark *m = &s->marks[it->make];
		bool plain = it->need == LIN_NONE;

		if (i == LIN_NONE || m->wanted_stamp != s->stamp || it->make == s->state ||
		    (plain ? state_free : !lin_is_met(s, it->need, bound)))
			continue;
		if ((plain ? m->write_stamp : m->cas_stamp) == s->stamp)
			continue;
		if (!push(s, i, LIN_NEVER))
			return false;
	}
	return true;
}

bool lin_register_choose(struct lin_register *s)
{
	uint32_t bound = lin_window_bound(&s->window), idle_ret = mark(s, bound);
	size_t first = s->choice_count;

	if (!push_required(s, bound) || !push_optional(s, bound) || (idle_ret != LIN_NEVER && !push(s, LIN_ALL_IDLE, idle_ret)))
		return false;
	/* Few, and as a rule nearly in order. */
	for (size_t i = first + 1; i < s->choice_count; i++) {
		struct lin_choice c = s->choices[i];
		size_t at = i;

		for (; at > first && s->choices[at - 1].rank > c.rank; at--)
			s->choices[at] = s->choices[at - 1];
		s->choices[at] = c;
	}
	return true;
}
