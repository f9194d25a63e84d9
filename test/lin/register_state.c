/* The configuration of a register's search: taking and giving back, and its key in the memo. */
#include "test/lin/register.h"

#include <stdlib.h>
#include <string.h>

static int by_group(const void *a, const void *b, void *items_ptr)
{
	const struct lin_item *items = items_ptr;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	if (items[x].need != items[y].need)
		return items[x].need < items[y].need ? -1 : 1;
	if (items[x].make != items[y].make)
		return items[x].make < items[y].make ? -1 : 1;
	return x < y ? -1 : x > y;
}

static void group_optional(struct lin_register *s)
{
	uint32_t n = 0, first = 0;

	for (uint32_t i = 0; i < s->count; i++)
		if (s->items[i].optional)
			s->optional[n++] = i;
	s->optional_count = n;
	qsort_r(s->optional, n, sizeof *s->optional, by_group, (void *)(uintptr_t)s->items);
	for (uint32_t k = 0; k < n; k++) {
		const struct lin_item *a = &s->items[s->optional[first]], *b = &s->items[s->optional[k]];

		if (a->need != b->need || a->make != b->make)
			first = k;
		s->group_count += first == k;
		s->group[s->optional[k]] = first;
		s->group_end[first] = k + 1;
	}
}

/* The slot that was left last is the next one's. The lists by inv and ret are at hand in the window. */
static bool give_slots(struct lin_register *s)
{
	uint32_t *unused = malloc(((size_t)s->count + 1) * sizeof *unused), unused_count = 0, slots = 0, ends = 0;
	const struct lin_window *w = &s->window;

	if (!unused)
		return false;
	for (uint32_t i = w->inv_next[s->count]; i != s->count; i = w->inv_next[i]) {
		while (ends < w->required && s->items[w->by_ret[ends]].ret < s->items[i].inv)
			unused[unused_count++] = s->slot[w->by_ret[ends++]];
		s->slot[i] = unused_count ? unused[--unused_count] : slots++;
	}
	free(unused);
	s->slot_words = ((size_t)slots + 63) / 64;
	return true;
}

/* Changes by `times` how often operations like this one are left. */
static void count_left(struct lin_register *s, const struct lin_item *it, uint32_t times)
{
	if (it->make != LIN_NONE)
		s->counts[it->make].makers += times;
	if (it->need == LIN_NONE)
		return;
	if (it->optional)
		s->counts[it->need].optional_cas += times;
	else if (lin_is_cas(it))
		s->counts[it->need].cas += times;
	else
		s->counts[it->need].reads += times;
}

#define ONE_LESS ((uint32_t)-1)

static void count_all(struct lin_register *s)
{
	s->free_inv = LIN_NEVER;
	for (uint32_t v = 0; v < s->value_count; v++)
		s->counts[v].free_inv = LIN_NEVER;
	for (uint32_t i = 0; i < s->count; i++) {
		const struct lin_item *it = &s->items[i];

		count_left(s, it, 1);
		if (it->optional)
			s->counts[it->make].optional = true;
		if (it->optional && it->need == LIN_NONE && s->counts[it->make].free_inv == LIN_NEVER)
			s->counts[it->make].free_inv = it->inv;
		if (it->optional && it->need == LIN_NONE && s->free_inv == LIN_NEVER)
			s->free_inv = it->inv;
		if (lin_is_read(it) && it->inv > s->counts[it->need].last_inv)
			s->counts[it->need].last_inv = it->inv;
	}
}

bool lin_register_init(struct lin_register *s)
{
	size_t n = (size_t)s->count + 1;

	s->counts = calloc((size_t)s->value_count + 1, sizeof *s->counts);
	s->marks = calloc((size_t)s->value_count + 1, sizeof *s->marks);
	s->optional = malloc(n * sizeof *s->optional);
	s->group_end = calloc(n, sizeof *s->group_end);
	s->group_taken = calloc(n, sizeof *s->group_taken);
	s->group = malloc(n * sizeof *s->group);
	s->slot = malloc(n * sizeof *s->slot);
	if (!s->counts || !s->marks || !s->optional || !s->group_end || !s->group_taken || !s->group || !s->slot ||
	    !lin_window_init(&s->window, s->items, s->count) || !give_slots(s))
		return false;
	count_all(s);
	group_optional(s);
	s->used_words = ((size_t)s->optional_count + 63) / 64;
	s->key = malloc((1 + s->slot_words + s->used_words) * sizeof *s->key);
	s->memo = lin_memo_new(1 + s->slot_words, s->used_words, false);
	return s->key && s->memo;
}

void lin_register_done(struct lin_register *s)
{
	lin_window_free(&s->window);
	lin_memo_free(s->memo);
	free(s->counts);
	free(s->marks);
	free(s->steps);
	free(s->optional);
	free(s->group_end);
	free(s->group_taken);
	free(s->group);
	free(s->slot);
	free(s->key);
	free(s->choices);
}

void lin_register_take(struct lin_register *s, uint32_t i)
{
	const struct lin_item *it = &s->items[i];

	s->steps[s->step_count++] = (struct lin_step){ i, s->state };
	if (!it->optional)
		lin_window_take(&s->window, i);
	else if (s->thrift != LIN_UNLIMITED)
		s->group_taken[s->group[i]]++;
	if (!it->optional || s->thrift != LIN_UNLIMITED)
		count_left(s, it, ONE_LESS);
	s->state = it->make != LIN_NONE ? it->make : s->state;
}

void lin_register_untake(struct lin_register *s)
{
	const struct lin_step *step = &s->steps[--s->step_count];
	const struct lin_item *it = &s->items[step->item];

	s->state = step->state_before;
	if (!it->optional)
		lin_window_untake(&s->window, step->item);
	else if (s->thrift != LIN_UNLIMITED)
		s->group_taken[s->group[step->item]]--;
	if (!it->optional || s->thrift != LIN_UNLIMITED)
		count_left(s, it, 1);
}

/* What is left decides what can follow, so two configurations are the same when the same operations are left and the state is
 * the same. Of required operations, all that were invoked behind the bound are left, and all that ended before it are taken;
 * the others were open at the bound, so slots tell them apart. A state that nobody needs any more is as good as another such, and
 * likewise a free one.
 *
 * Of two configurations that differ only in the optional operations taken, one's being a subset of the other's, the one that
 * has taken fewer can do all that the other can; the memo looks for that. */
enum lin_memo_result lin_register_remember(struct lin_register *s)
{
	uint32_t bound = lin_window_bound(&s->window), state = s->state;
	uint64_t *slots = s->key + 1, *used = slots + s->slot_words;

	if (lin_is_state_free(s, bound))
		state = LIN_NONE - 1;
	else if (lin_is_idle(s, state))
		state = LIN_NONE;
	memset(s->key, 0, (1 + s->slot_words + s->used_words) * sizeof *s->key);
	s->key[0] = (uint64_t)bound << 32 | state;
	for (uint32_t i = lin_window_first(&s->window, bound); i != LIN_NONE; i = lin_window_next(&s->window, bound, i))
		slots[s->slot[i] / 64] |= (uint64_t)1 << (s->slot[i] % 64);
	/* Of a group the first ones are taken first, so the number taken tells which. */
	for (uint32_t g = 0; g < s->optional_count; g = s->group_end[g])
		for (uint32_t k = g; k < g + s->group_taken[g]; k++)
			used[k / 64] |= (uint64_t)1 << (k % 64);
	return lin_memo_add(s->memo, s->key);
}

void lin_register_forget(struct lin_register *s, uint32_t rank)
{
	if (rank < s->window.required)
		lin_memo_forget(s->memo, (uint64_t)s->items[s->window.by_ret[rank]].ret << 32);
}

bool lin_register_restart(struct lin_register *s, enum lin_thrift thrift)
{
	while (s->step_count)
		lin_register_untake(s);
	s->choice_count = 0;
	lin_memo_free(s->memo);
	s->memo = lin_memo_new(1 + s->slot_words, s->used_words, thrift == LIN_FRUGAL);
	s->thrift = thrift;
	return s->memo != NULL;
}

static uint32_t first_not_before(const struct lin_register *s, uint32_t pos)
{
	uint32_t low = 0, high = s->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (s->items[middle].inv < pos)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct lin_snapshot *lin_register_save(const struct lin_register *s)
{
	uint32_t bound = lin_window_bound(&s->window), open = 0, n = 0;
	struct lin_snapshot *c;

	for (uint32_t i = lin_window_first(&s->window, bound); i != LIN_NONE; i = lin_window_next(&s->window, bound, i))
		open++;
	c = malloc(sizeof *c + ((size_t)open + s->group_count) * sizeof *c->words);
	if (!c)
		return NULL;
	*c = (struct lin_snapshot){ .state = s->state, .cursor = first_not_before(s, bound), .open = open };
	for (uint32_t i = lin_window_first(&s->window, bound); i != LIN_NONE; i = lin_window_next(&s->window, bound, i))
		c->words[n++] = i;
	for (uint32_t g = 0; g < s->optional_count; g = s->group_end[g]) {
		c->words[n++] = s->group_taken[g];
		c->used += s->group_taken[g];
	}
	return c;
}

static void set_taken(struct lin_register *s, uint32_t i, bool taken)
{
	if (s->items[i].optional || s->window.taken[i] == taken)
		return;
	s->window.taken[i] = taken;
	count_left(s, &s->items[i], taken ? ONE_LESS : 1);
}

static void set_groups(struct lin_register *s, const uint32_t *taken)
{
	for (uint32_t n = 0, g = 0; g < s->optional_count; g = s->group_end[g], n++) {
		count_left(s, &s->items[s->optional[g]], s->group_taken[g] - taken[n]);
		s->group_taken[g] = taken[n];
	}
}

/* Without its steps, the configuration is the one that was loaded last. All below the cursors are taken but a few, and none above; so only what is between the cursors, and these few, change. The
 * list has these few, and all from the cursor on. */
void lin_register_load(struct lin_register *s, const struct lin_snapshot *c)
{
	struct lin_window *w = &s->window;
	uint32_t rest, last = s->count;

	while (s->step_count)
		lin_register_untake(s);
	for (rest = w->inv_next[s->count]; rest < s->cursor; rest = w->inv_next[rest])
		set_taken(s, rest, true);
	for (uint32_t i = s->cursor; i < c->cursor; i++)
		set_taken(s, i, true);
	while (rest < c->cursor)
		rest = w->inv_next[rest];
	for (uint32_t i = s->cursor; i-- > c->cursor;) {
		if (s->items[i].optional)
			continue;
		set_taken(s, i, false);
		w->inv_next[i] = rest;
		w->inv_prev[rest] = i;
		rest = i;
	}
	w->first = w->required;
	for (uint32_t k = 0; k < c->open; k++) {
		uint32_t i = c->words[k];

		set_taken(s, i, false);
		w->inv_next[last] = i;
		w->inv_prev[i] = last;
		last = i;
		w->first = w->rank[i] < w->first ? w->rank[i] : w->first;
	}
	w->inv_next[last] = rest;
	w->inv_prev[rest] = last;
	set_groups(s, c->words + c->open);
	s->cursor = c->cursor;
	s->state = c->state;
	s->choice_count = 0;
}
