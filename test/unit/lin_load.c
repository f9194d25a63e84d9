#include "test/unit/lin_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY 64 /* how many of the store's older states a stale read may tell of */

struct worker {
	bool busy, done, unknown;
	uint32_t process;
	enum lin_kind kind;
	lin_value value, old, seen;
	bool again; /* `value` is to be written once more */
};

/* A write whose client gave up, and that has not taken effect yet. */
struct late {
	enum lin_kind kind;
	lin_value value, old;
};

struct run {
	const struct load *l;
	struct lin_history *h;
	uint64_t rng;
	lin_value key, state;
	lin_value older[HISTORY];
	uint32_t changes, invoked;
	int64_t next_value;
	struct late *late;
	uint32_t late_count, processes;
	bool lied;
};

static uint32_t below(struct run *r, uint32_t n)
{
	uint64_t z = r->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ (z >> 31)) % n);
}

static void add(struct run *r, const struct lin_event *e)
{
	struct wire_err err;

	if (lin_history_add(r->h, e, &err)) {
		fprintf(stderr, "# %s\n", err.text);
		abort();
	}
}

static bool few(const struct run *r)
{
	return r->l->kind == LOAD_FEW || r->l->kind == LOAD_LIST_FEW;
}

static bool list(const struct run *r)
{
	return r->l->kind == LOAD_LIST || r->l->kind == LOAD_LIST_FEW;
}

static void set_state(struct run *r, lin_value v)
{
	if (v == r->state)
		return;
	r->older[r->changes++ % HISTORY] = r->state;
	r->state = v;
}

/* False: a cas that found something else. */
static bool execute(struct run *r, enum lin_kind kind, lin_value value, lin_value old)
{
	if (kind == LIN_CAS && r->state != old)
		return false;
	set_state(r, kind == LIN_APPEND ? lin_push(r->h, r->state, value) : value);
	return true;
}

static void invoke(struct run *r, struct worker *w)
{
	/* Spread evenly over the load. */
	bool unknown = r->l->unknown && r->invoked % (r->l->ops / r->l->unknown) == 0;
	bool read = !unknown && !w->again && below(r, 10) < r->l->reads_of_10;
	bool cas = (r->l->kind == LOAD_CAS || r->l->kind == LOAD_FEW) && below(r, 2);
	lin_value again = w->again ? w->value : LIN_NULL;

	*w = (struct worker){ .busy = true, .process = w->process, .seen = w->seen, .unknown = unknown, .value = again };
	w->kind = read ? LIN_READ : list(r) ? LIN_APPEND : cas ? LIN_CAS : LIN_WRITE;
	if (!read && !again)
		w->value = lin_int(r->h, few(r) ? below(r, 5) : r->next_value++);
	if (w->kind == LIN_CAS)
		w->old = few(r) ? lin_int(r->h, below(r, 5)) : w->seen;
	r->invoked++;
	add(r, &(struct lin_event){ .type = LIN_INVOKE, .process = lin_int(r->h, w->process), .kind = w->kind, .key = r->key,
		                    .value = w->value, .old = w->old });
}

static lin_value told(struct run *r)
{
	bool now = !r->lied && r->invoked > r->l->lie_at && r->changes > HISTORY;

	if (now && r->l->lie == LIE_STALE) {
		r->lied = true;
		return r->older[r->changes % HISTORY];
	}
	if (now && r->l->lie == LIE_UNHEARD) {
		r->lied = true;
		return list(r) ? lin_push(r->h, r->state, lin_int(r->h, -1)) : lin_int(r->h, -1);
	}
	return r->state;
}

static void take_effect(struct run *r, struct worker *w)
{
	w->done = true;
	if (w->unknown && below(r, 2)) {
		r->late[r->late_count++] = (struct late){ w->kind, w->value, w->old };
		return;
	}
	if (w->kind == LIN_READ)
		w->value = told(r);
	else if (!execute(r, w->kind, w->value, w->old))
		w->kind = 0;
}

static void end(struct run *r, struct worker *w)
{
	enum lin_type type = w->unknown ? LIN_INFO : w->kind ? LIN_OK : LIN_FAIL;

	add(r, &(struct lin_event){ .type = type, .process = lin_int(r->h, w->process),
		                    .value = w->kind == LIN_READ ? w->value : LIN_NULL });
	w->busy = false;
	w->seen = r->state;
	w->again = type == LIN_INFO && r->l->kind == LOAD_AGAIN;
	if (type == LIN_INFO)
		w->process = ++r->processes;
	if (type == LIN_OK && w->kind != LIN_READ && r->l->lie == LIE_LOST && !r->lied && r->invoked > r->l->lie_at && r->state == w->value) {
		r->state = r->older[(r->changes - 1) % HISTORY];
		r->lied = true;
	}
	if (type == LIN_OK && w->kind == LIN_APPEND && r->l->lie == LIE_LOST && !r->lied && r->invoked > r->l->lie_at) {
		r->state = lin_list_pop(r->h, r->state, NULL);
		r->lied = true;
	}
}

static void step(struct run *r, struct worker *w)
{
	if (!w->busy && r->invoked < r->l->ops)
		invoke(r, w);
	else if (w->busy && !w->done)
		take_effect(r, w);
	else if (w->busy)
		end(r, w);
	if (r->late_count && below(r, 500) == 0) {
		uint32_t which = below(r, r->late_count);
		struct late late = r->late[which];

		r->late[which] = r->late[--r->late_count];
		execute(r, late.kind, late.value, late.old);
	}
}

/* When all have ended, a read does not tell of the write before it. */
static void last_word(struct run *r, struct worker *workers)
{
	struct worker *w = &workers[0];
	lin_value wrong;

	for (uint32_t i = 0; i < r->l->processes; i++)
		while (workers[i].busy)
			step(r, &workers[i]);
	wrong = r->state;
	for (int64_t n = 0; wrong == r->state; n++)
		wrong = lin_int(r->h, n);
	add(r, &(struct lin_event){ .type = LIN_INVOKE, .process = lin_int(r->h, w->process), .kind = LIN_WRITE, .key = r->key,
		                    .value = r->state });
	add(r, &(struct lin_event){ .type = LIN_OK, .process = lin_int(r->h, w->process) });
	add(r, &(struct lin_event){ .type = LIN_INVOKE, .process = lin_int(r->h, w->process), .kind = LIN_READ, .key = r->key });
	add(r, &(struct lin_event){ .type = LIN_OK, .process = lin_int(r->h, w->process), .value = wrong });
}

struct lin_history *load_make(const struct load *l)
{
	struct worker *workers = calloc(l->processes, sizeof *workers);
	struct run r = { .l = l, .rng = l->seed, .processes = l->processes, .late = calloc(l->unknown + 2, sizeof *r.late) };

	if (!workers || !r.late || lin_history_new(&r.h, LIN_ORDER_FED, NULL))
		abort();
	r.key = lin_text(r.h, "x");
	r.state = list(&r) ? LIN_EMPTY : LIN_NULL;
	for (uint32_t i = 0; i < l->processes; i++)
		workers[i].process = i + 1;
	while (r.invoked < l->ops)
		step(&r, &workers[below(&r, l->processes)]);
	if (l->lie == LIE_LAST)
		last_word(&r, workers);
	free(workers);
	free(r.late);
	return r.h;
}
