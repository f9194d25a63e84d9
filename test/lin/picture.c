#include "test/lin/picture.h"
#include "test/lin/history.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ORDER_SHOWN 32u    /* the last operations of the order */
#define CONFLICT_SHOWN 24u /* the last of the conflict */
#define MAKERS_SHOWN 4u    /* who made the values that the conflict needs */
#define LABEL_PIXELS 7.2   /* a character */
#define GAP_MIN 9.0
#define GAP_MAX 70.0
#define BREAK_WIDTH 46.0

/* When an event happened: in the order that counts. */
static int64_t when(const struct lin_history *h, const struct lin_op *op, bool end)
{
	if (lin_has_times(h))
		return end ? op->ended_ns : op->invoked_ns;
	return (int64_t)(end ? op->end_seq : op->invoke_seq);
}

struct maker {
	const struct lin_history *h;
	const struct lin_key_report *k;
	struct lin_picture *p;
	bool *shown;     /* by operation */
	uint32_t *place; /* by operation: in the order, or LIN_NO_OP */
	int64_t from, to; /* of what is shown */
	int64_t *moments; /* of the ends of shown bars, without doubles */
	double *pixels;
	size_t moment_count;
};

static bool is_stuck_or_conflict(const struct maker *m, uint32_t op)
{
	for (size_t i = 0; i < m->k->conflict_count; i++)
		if (m->k->conflict[i] == op)
			return true;
	return op == m->k->stuck;
}

/* Who made the value that an operation of the conflict needs, or last appended to the list that it read. */
static bool makes_what_is_needed(const struct maker *m, const struct lin_op *op)
{
	if (op->kind == LIN_READ)
		return false;
	for (size_t i = 0; i < m->k->conflict_count && m->k->conflict_count < CONFLICT_SHOWN; i++) {
		const struct lin_op *c = lin_op_at(m->h, m->k->conflict[i]);
		lin_value need = c->kind == LIN_READ ? c->value : c->kind == LIN_CAS ? c->old : LIN_NULL;

		if (lin_list_length(m->h, need) && m->k->model == LIN_LIST)
			lin_list_pop(m->h, need, &need);
		if (need != LIN_NULL && need == op->value)
			return true;
	}
	return false;
}

/* Operations that are not in the order, or early in it, but help to understand. From the last one back. */
static void choose_others(struct maker *m)
{
	int64_t cut = when(m->h, lin_op_at(m->h, m->k->stuck), true), from = cut;
	size_t makers = 0;

	/* Those of unknown outcome never end: only new ones are of interest. */
	for (uint32_t i = 0; i < lin_op_count(m->h); i++)
		if (m->place[i] != LIN_NO_OP && m->place[i] + ORDER_SHOWN >= m->k->order_count && lin_op_at(m->h, i)->outcome == LIN_OK)
			from = when(m->h, lin_op_at(m->h, i), false) < from ? when(m->h, lin_op_at(m->h, i), false) : from;

	for (uint32_t i = (uint32_t)lin_op_count(m->h); i-- > 0;) {
		const struct lin_op *op = lin_op_at(m->h, i);

		if (op->key != m->k->key || op->outcome == LIN_FAIL || m->shown[i])
			continue;
		if (when(m->h, op, false) > cut)
			m->shown[i] = false;
		else if (op->outcome == LIN_OK && when(m->h, op, true) > cut)
			m->shown[i] = true; /* under way when the prefix ended */
		else if (makes_what_is_needed(m, op))
			m->shown[i] = makers++ < MAKERS_SHOWN;
		else if (op->outcome == LIN_INFO)
			m->shown[i] = when(m->h, op, false) >= from;
		m->p->left_out += !m->shown[i];
	}
}

static bool choose(struct maker *m)
{
	const struct lin_key_report *k = m->k;
	size_t from = k->order_count > ORDER_SHOWN ? k->order_count - ORDER_SHOWN : 0;

	m->shown = calloc(lin_op_count(m->h) + 1, sizeof *m->shown);
	m->place = malloc((lin_op_count(m->h) + 1) * sizeof *m->place);
	if (!m->shown || !m->place)
		return false;
	memset(m->place, 0xff, (lin_op_count(m->h) + 1) * sizeof *m->place);
	for (size_t i = 0; i < k->order_count; i++)
		m->place[k->order[i]] = (uint32_t)i;
	for (size_t i = from; i < k->order_count; i++)
		m->shown[k->order[i]] = true;
	for (size_t i = 0; i < k->conflict_count; i++)
		m->shown[k->conflict[i]] = i + CONFLICT_SHOWN >= k->conflict_count;
	m->shown[k->stuck] = true;
	choose_others(m);
	return true;
}

static int by_moment(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static bool add_bar(struct maker *m, uint32_t i)
{
	const struct lin_op *op = lin_op_at(m->h, i);
	struct lin_bar *bar = &m->p->bars[m->p->bar_count];
	struct wire_buf b = WIRE_BUF_INIT;
	int64_t cut = when(m->h, lin_op_at(m->h, m->k->stuck), true);
	int n;

	*bar = (struct lin_bar){ .op = i, .place = m->place[i] };
	bar->mark = i == m->k->stuck ? LIN_STUCK : m->place[i] != LIN_NO_OP ? LIN_FITS : LIN_PENDING;
	bar->conflict = is_stuck_or_conflict(m, i);
	bar->open = op->outcome != LIN_OK || when(m->h, op, true) > cut;
	lin_op_put(m->h, i, &b);
	if (b.failed)
		return false;
	n = snprintf(bar->label, sizeof bar->label, "%.*s", (int)b.len, (const char *)b.data);
	/* What does not fit ends with dots, and not within a character. */
	if (n >= (int)sizeof bar->label) {
		size_t at = sizeof bar->label - 4;

		while (at && (bar->label[at] & 0xc0) == 0x80)
			at--;
		memcpy(bar->label + at, "...", 4);
	}
	wire_buf_free(&b);
	m->p->bar_count++;
	m->moments[m->moment_count++] = when(m->h, op, false);
	if (!bar->open)
		m->moments[m->moment_count++] = when(m->h, op, true);
	return true;
}

static bool add_bars(struct maker *m)
{
	size_t count = 0, unique = 0;

	for (uint32_t i = 0; i < lin_op_count(m->h); i++)
		count += m->shown[i];
	m->p->bars = malloc((count + 1) * sizeof *m->p->bars);
	m->moments = malloc((2 * count + 1) * sizeof *m->moments);
	m->pixels = malloc((2 * count + 1) * sizeof *m->pixels);
	if (!m->p->bars || !m->moments || !m->pixels)
		return false;
	for (uint32_t i = 0; i < lin_op_count(m->h); i++)
		if (m->shown[i] && !add_bar(m, i))
			return false;
	qsort(m->moments, m->moment_count, sizeof *m->moments, by_moment);
	for (size_t i = 0; i < m->moment_count; i++)
		if (!i || m->moments[i] != m->moments[unique - 1])
			m->moments[unique++] = m->moments[i];
	m->moment_count = unique;
	return true;
}

static size_t moment_index(const struct maker *m, int64_t t)
{
	size_t low = 0, high = m->moment_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->moments[middle] < t)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static double typical_gap(const struct maker *m)
{
	int64_t *gaps = malloc((m->moment_count + 1) * sizeof *gaps);
	double typical;

	if (!gaps)
		return 1;
	for (size_t i = 1; i < m->moment_count; i++)
		gaps[i - 1] = m->moments[i] - m->moments[i - 1];
	qsort(gaps, m->moment_count - 1, sizeof *gaps, by_moment);
	typical = m->moment_count > 1 ? (double)gaps[(m->moment_count - 1) / 2] : 1;
	free(gaps);
	return typical > 1 ? typical : 1;
}

/* Gaps grow with time, but less and less, so that the order of events can be seen everywhere; really long ones are cut. Each
 * bar is made wide enough for its label. */
static bool stretch(struct maker *m)
{
	double typical = typical_gap(m), *gaps = calloc(m->moment_count + 1, sizeof *gaps), x = 0;
	struct lin_picture *p = m->p;

	p->breaks = malloc((m->moment_count + 1) * sizeof *p->breaks);
	p->ticks = malloc((m->moment_count + 1) * sizeof *p->ticks);
	if (!gaps || !p->breaks || !p->ticks) {
		free(gaps);
		return false;
	}
	for (size_t i = 1; i < m->moment_count; i++) {
		double ratio = (double)(m->moments[i] - m->moments[i - 1]) / typical;

		gaps[i] = ratio > 25 ? BREAK_WIDTH : fmin(GAP_MAX, GAP_MIN + 12 * log2(1 + ratio));
	}
	for (size_t n = 0; n < p->bar_count; n++) {
		const struct lin_op *op = lin_op_at(m->h, p->bars[n].op);
		size_t from = moment_index(m, when(m->h, op, false)), to;
		double has = 0, want = (double)strlen(p->bars[n].label) * LABEL_PIXELS + 30;

		to = p->bars[n].open ? m->moment_count - 1 : moment_index(m, when(m->h, op, true));
		for (size_t i = from + 1; i <= to; i++)
			has += gaps[i];
		if (has < want && to > from && !p->bars[n].open)
			for (size_t i = from + 1; i <= to; i++)
				gaps[i] += (want - has) / (double)(to - from);
	}
	for (size_t i = 0; i < m->moment_count; i++) {
		double ratio = i ? (double)(m->moments[i] - m->moments[i - 1]) / typical : 0;

		x += gaps[i];
		m->pixels[i] = x;
		if (ratio > 25)
			p->breaks[p->break_count++] = (struct lin_break){ x - gaps[i] / 2, (double)(m->moments[i] - m->moments[i - 1]) };
	}
	p->width = x + 90;
	free(gaps);
	return true;
}

static int by_left(const void *a, const void *b)
{
	const struct lin_bar *x = a, *y = b;

	if (x->left != y->left)
		return x->left < y->left ? -1 : 1;
	return x->op < y->op ? -1 : x->op > y->op;
}

static void place_bars(struct maker *m)
{
	struct lin_picture *p = m->p;
	int64_t begin = lin_has_times(m->h) ? INT64_MAX : 0;
	double last = -1000;

	for (size_t n = 0; n < p->bar_count; n++) {
		const struct lin_op *op = lin_op_at(m->h, p->bars[n].op);

		p->bars[n].left = m->pixels[moment_index(m, when(m->h, op, false))];
		p->bars[n].right = p->bars[n].open ? p->width - 6 : m->pixels[moment_index(m, when(m->h, op, true))];
	}
	qsort(p->bars, p->bar_count, sizeof *p->bars, by_left);
	p->end = m->pixels[moment_index(m, when(m->h, lin_op_at(m->h, m->k->stuck), true))];
	for (size_t i = 0; i < lin_op_count(m->h) && lin_has_times(m->h); i++)
		begin = lin_op_at(m->h, i)->invoked_ns < begin ? lin_op_at(m->h, i)->invoked_ns : begin;
	for (size_t i = 0; i < m->moment_count; i++) {
		if (m->pixels[i] < last + 80)
			continue;
		last = m->pixels[i];
		p->ticks[p->tick_count++] = (struct lin_tick){ last, m->moments[i] - begin };
	}
}

/* A lane for each process, and a new one when it went on after an operation of unknown outcome. */
static bool give_lanes(struct maker *m)
{
	struct lin_picture *p = m->p;

	p->lanes = malloc((p->bar_count + 1) * sizeof *p->lanes);
	if (!p->lanes)
		return false;
	for (size_t n = 0; n < p->bar_count; n++) {
		const struct lin_op *op = lin_op_at(m->h, p->bars[n].op);
		size_t lane = 0;

		for (; lane < p->lane_count; lane++) {
			const struct lin_op *other = lin_op_at(m->h, p->lanes[lane]);

			if (other->process == op->process && other->session == op->session)
				break;
		}
		if (lane == p->lane_count)
			p->lanes[p->lane_count++] = p->bars[n].op;
		p->bars[n].lane = (uint32_t)lane;
	}
	return true;
}

static int by_place(const void *a, const void *b)
{
	const struct lin_bar *const *x = a, *const *y = b;

	return (*x)->place < (*y)->place ? -1 : (*x)->place > (*y)->place;
}

/* Points in the order: each behind all invocations of those up to it, before all ends of those from it on. There is room, for
 * the order is right; those that share it, share it evenly. */
static bool place_points(struct lin_picture *p)
{
	struct lin_bar **bars = malloc((p->bar_count + 1) * sizeof(struct lin_bar *));
	double *latest = malloc((p->bar_count + 1) * sizeof *latest), from = 0, limit = p->end;
	size_t count = 0;

	if (!bars || !latest) {
		free(bars);
		free(latest);
		return false;
	}
	for (size_t n = 0; n < p->bar_count; n++)
		if (p->bars[n].mark == LIN_FITS)
			bars[count++] = &p->bars[n];
	qsort(bars, count, sizeof(struct lin_bar *), by_place);
	for (size_t n = count; n-- > 0;) {
		limit = fmin(limit, bars[n]->right);
		latest[n] = limit;
	}
	for (size_t n = 0; n < count; n++) {
		size_t same = n;

		while (same + 1 < count && latest[same + 1] == latest[n])
			same++;
		from = fmax(from, bars[n]->left);
		from += fmin(14, (latest[n] - from) / (double)(same - n + 2));
		bars[n]->point = from;
	}
	free(bars);
	free(latest);
	return true;
}

bool lin_picture_make(struct lin_picture *p, const struct lin_history *h, const struct lin_key_report *k)
{
	struct maker m = { .h = h, .k = k, .p = p };
	bool ok;

	*p = (struct lin_picture){ 0 };
	ok = choose(&m) && add_bars(&m) && stretch(&m);
	if (ok) {
		place_bars(&m);
		ok = give_lanes(&m) && place_points(p);
	}
	free(m.shown);
	free(m.place);
	free(m.moments);
	free(m.pixels);
	return ok;
}

void lin_picture_free(struct lin_picture *p)
{
	free(p->bars);
	free(p->lanes);
	free(p->breaks);
	free(p->ticks);
}
