#include "test/unit/journal_model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const struct model_shape model_equal = { { .group = 7, .segment_bytes = 4096 }, 900 };
const struct model_shape model_growing = { { .group = 7, .segment_bytes = 16 << 10, .first_bytes = 2 << 10 }, 2500 };
const struct model_shape model_steep = { { .group = 7, .segment_bytes = 256 << 10, .first_bytes = 2 << 10 }, 3000 };

uint64_t model_random;

uint64_t model_rnd(uint64_t n)
{
	model_random = model_random * 6364136223846793005u + 1442695040888963407u;
	return (model_random >> 33) % n;
}

uint64_t model_seed(void)
{
	const char *given = getenv("WALRAFT_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);

	print_message("# WALRAFT_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

enum { MEMBERS_AT_START = 3 };

static struct raft_config config_of(uint32_t members)
{
	struct raft_config c = { .n = members };

	for (uint32_t i = 0; i < members; i++) {
		c.m[i].id = i + 1;
		c.m[i].flags = RAFT_VOTER;
		snprintf(c.m[i].url, sizeof(c.m[i].url), "tcp://127.0.0.1:%u", 7401 + i);
	}
	return c;
}

/* Into data: what an entry is made of. */
static void content(uint8_t *data, const struct model_op *o)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct raft_config c = config_of(o->members);

	if (o->members) {
		raft_config_put(&c, &b);
		assert_int_equal(b.len, o->size);
		memcpy(data, b.data, b.len);
		wire_buf_free(&b);
		return;
	}
	for (uint32_t i = 0; i < o->size; i++)
		data[i] = (uint8_t)(o->tag * 31 + i * 7 + (i >> 8));
}

static uint32_t config_bytes(uint32_t members)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct raft_config c = config_of(members);

	raft_config_put(&c, &b);
	uint32_t n = (uint32_t)b.len;
	wire_buf_free(&b);
	return n;
}

static void apply(struct model_state *s, const struct model_op *o)
{
	switch (o->what) {
	case MODEL_ENTRY:
		s->log[++s->last] = *o;
		if (o->term > s->term) {
			s->term = o->term;
			s->vote = 0;
		}
		break;
	case MODEL_TRUNCATE:
		s->last = o->index - 1;
		break;
	case MODEL_VOTE:
		s->term = o->term;
		s->vote = o->vote;
		break;
	case MODEL_PUBLISH:
		s->pub = o->tag;
		break;
	case MODEL_MARK:
		s->mark = o->index;
		break;
	}
}

static void state_at_start(struct model_state *s)
{
	memset(s, 0, offsetof(struct model_state, log));
	s->last = MODEL_BASE;
	s->term = 2;
	s->mark = MODEL_BASE;
}

struct disk *model_disk(const struct model_shape *shape)
{
	struct disk *d = disk_new();
	struct raft_config c = config_of(MEMBERS_AT_START);
	struct raft_journal_mark m = { .index = MODEL_BASE, .checksum = 99, .db_pages = 3 };
	struct wire_err err;

	must(raft_journal_create(disk_env(d), "j", &shape->opts, 2, MODEL_BASE, 2, &c, &m, &err), &err);
	return d;
}

static uint32_t members_at(const struct model_state *s, uint64_t index)
{
	for (; index > MODEL_BASE; index--)
		if (s->log[index].members)
			return s->log[index].members;
	return MEMBERS_AT_START;
}

/* Wherever a truncation may lead, what is in force there is known. */
static bool same_configs(const struct model_state *s, const struct raft_journal_state *st)
{
	uint32_t n = st->base_config.n;
	size_t k = 0;

	for (uint64_t i = st->base_index; i <= s->last; i++) {
		for (; k < st->n_configs && st->configs[k].index <= i; k++)
			n = st->configs[k].config.n;
		if ((i == st->base_index || i >= st->commit) && n != members_at(s, i))
			return false;
	}
	return true;
}

long model_match(const struct model *m, const struct raft_journal_state *st, size_t min)
{
	static struct model_state s;
	uint64_t last = st->base_index + st->n_entries;
	uint32_t pub = st->n_publications ? st->publications[st->n_publications - 1].mx_frame : 0;
	long found = -1;

	state_at_start(&s);
	for (size_t p = 0;; p++) {
		bool same = p >= min && s.last == last && s.term == st->term && s.vote == st->vote && s.mark == st->mark.index &&
		            s.pub == pub;
		for (size_t i = 0; same && i < st->n_entries; i++) {
			const struct wire_entry *e = &st->entries[i];
			const struct model_op *o = &s.log[e->index];
			same = e->index == st->base_index + 1 + i && e->term == o->term && e->sum == o->sum && e->size == o->size;
		}
		if (same && same_configs(&s, st))
			found = (long)p;
		if (p == m->n)
			return found;
		apply(&s, &m->ops[p]);
	}
}

static bool is_hole(const struct raft_journal_state *st, uint64_t index)
{
	for (size_t i = 0; i < st->n_holes; i++)
		if (st->holes[i] == index)
			return true;
	return false;
}

/* The log alone. */
static bool same_log(const struct model_state *s, const struct raft_journal_state *st)
{
	if (s->last != st->base_index + st->n_entries)
		return false;
	for (size_t i = 0; i < st->n_entries; i++) {
		const struct wire_entry *e = &st->entries[i];
		const struct model_op *o = &s->log[e->index];
		bool unknown = is_hole(st, e->index) && !e->size && !e->sum;
		if (e->index != st->base_index + 1 + i || e->term != o->term || (!unknown && (e->sum != o->sum || e->size != o->size)))
			return false;
	}
	return same_configs(s, st);
}

bool model_match_damaged(const struct model *m, const struct raft_journal_state *st)
{
	static struct model_state s;

	state_at_start(&s);
	for (size_t p = 0; p < m->n; p++)
		apply(&s, &m->ops[p]);
	return same_log(&s, st) && s.term == st->term && s.vote == st->vote && st->mark.index <= s.mark && !st->forgetful;
}

bool model_match_salvaged(const struct model *m, const struct raft_journal_state *st)
{
	static struct model_state s;
	bool found = false;

	state_at_start(&s);
	for (size_t p = 0; !found; p++) {
		found = same_log(&s, st);
		if (p == m->n)
			break;
		apply(&s, &m->ops[p]);
	}
	for (size_t p = 0; p < m->n; p++)
		apply(&s, &m->ops[p]);
	return found && st->forgetful && !st->vote && st->term <= s.term;
}

size_t model_fill(const struct model *m, struct raft_journal *j, const struct raft_journal_state *st)
{
	static struct model_state s;
	static uint8_t data[MODEL_DATA_MAX];
	size_t n = st->n_holes;
	uint64_t *holes = calloc(n + 1, sizeof(*holes));
	struct wire_err err;

	assert_non_null(holes);
	if (n)
		memcpy(holes, st->holes, n * sizeof(*holes));
	state_at_start(&s);
	for (size_t p = 0; p < m->n; p++)
		apply(&s, &m->ops[p]);
	for (size_t i = 0; i < n; i++) {
		const struct model_op *o = &s.log[holes[i]];
		struct wire_entry e = { .index = holes[i], .term = o->term, .kind = o->members ? WIRE_ENTRY_CONFIG : WIRE_ENTRY_DATA, .size = o->size,
			                .sum = o->sum, .data = data };
		content(data, o);
		must(raft_journal_fill(j, &e, &err), &err);
		assert_int_equal(raft_journal_fill(j, &e, &err), WIRE_INVALID); /* it is none any more */
	}
	free(holes);
	return n;
}

void model_check_data(struct raft_journal *j, const struct raft_journal_state *st)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;

	for (size_t i = 0; i < st->n_entries; i++) {
		if (is_hole(st, st->entries[i].index)) {
			assert_int_equal(raft_journal_read(j, st->entries[i].index, &b, &e, &err), WIRE_CORRUPT);
			continue;
		}
		must(raft_journal_read(j, st->entries[i].index, &b, &e, &err), &err);
		assert_int_equal(e.sum, st->entries[i].sum);
		assert_int_equal(e.term, st->entries[i].term);
		assert_int_equal(wire_hash(b.data, b.len, 0), e.sum);
	}
	assert_true(st->commit >= st->base_index && st->commit <= st->base_index + st->n_entries);
	assert_true(st->mark.index >= st->base_index);
	wire_buf_free(&b);
}

static void did(struct model_world *w, struct model_op o)
{
	assert_true(w->m.n < MODEL_OPS_MAX && w->s.last + 1 < MODEL_LOG_MAX);
	w->m.ops[w->m.n++] = o;
	apply(&w->s, &o);
}

/* False once the power is gone. What the journal was told then may be there or not, so it counts as done. */
static bool lives(struct model_world *w, int rc, const struct wire_err *err)
{
	if (rc == WIRE_IO)
		w->dead = true;
	else
		must(rc, err);
	return !w->dead;
}

void model_entries(struct model_world *w, uint32_t n)
{
	static uint8_t data[8][MODEL_DATA_MAX];
	struct wire_entry e[8] = { 0 };
	struct model_op o[8];
	struct wire_err err;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t members = model_rnd(12) ? 0 : (uint32_t)model_rnd(3) + 2;
		uint32_t size = members ? config_bytes(members) : (uint32_t)model_rnd(model_rnd(8) ? 120 : w->shape->data_max);
		o[i] = (struct model_op){ .what = MODEL_ENTRY, .index = w->s.last + 1 + i, .term = w->s.term, .size = size, .tag = ++w->tag, .members = members };
		content(data[i], &o[i]);
		o[i].sum = wire_hash(data[i], size, 0);
		e[i] = (struct wire_entry){ .index = o[i].index, .term = o[i].term, .kind = members ? WIRE_ENTRY_CONFIG : WIRE_ENTRY_DATA, .size = size,
			                    .sum = o[i].sum, .data = data[i] };
	}
	lives(w, raft_journal_append_entries(w->j, e, n, w->commit, &err), &err);
	for (uint32_t i = 0; i < n; i++)
		did(w, o[i]);
}

void model_publish(struct model_world *w)
{
	struct wire_err err;
	struct raft_journal_publication p = { .mx_frame = ++w->tag, .index = w->commit };

	lives(w, raft_journal_append_publication(w->j, &p, &err), &err);
	did(w, (struct model_op){ .what = MODEL_PUBLISH, .index = p.index, .tag = p.mx_frame });
}

static void act_new_term(struct model_world *w)
{
	struct wire_err err;
	uint64_t vote = model_rnd(3) + 1;

	if (w->s.last > w->commit && model_rnd(2)) {
		uint64_t from = w->commit + 1 + model_rnd(w->s.last - w->commit);
		bool ok = lives(w, raft_journal_append_truncate(w->j, from, &err), &err);
		did(w, (struct model_op){ .what = MODEL_TRUNCATE, .index = from });
		if (!ok)
			return;
	}
	lives(w, raft_journal_append_vote(w->j, w->s.term + 1, vote, &err), &err);
	did(w, (struct model_op){ .what = MODEL_VOTE, .term = w->s.term + 1, .vote = vote });
}

void model_sync(struct model_world *w)
{
	struct wire_err err;

	if (!lives(w, raft_journal_sync(w->j, &err), &err))
		return;
	w->m.synced = w->m.n;
	if (model_rnd(4))
		w->commit = w->s.last - model_rnd(w->s.last - w->commit + 1);
}

static void act_mark(struct model_world *w)
{
	struct wire_err err;
	struct raft_journal_mark m = { .index = w->commit, .checksum = w->commit * 3, .db_pages = 7 };

	bool ok = lives(w, raft_journal_append_mark(w->j, &m, &err), &err);
	did(w, (struct model_op){ .what = MODEL_MARK, .index = m.index });
	if (ok && model_rnd(2))
		lives(w, raft_journal_trim(w->j, m.index - model_rnd(3) % (m.index - w->base + 1), &err), &err);
	w->base = raft_journal_base(w->j);
}

void model_act(struct model_world *w, bool with_trims)
{
	struct wire_err err;
	uint64_t r = model_rnd(100);

	if (r < 40)
		model_entries(w, (uint32_t)model_rnd(5) + 1);
	else if (r < 55)
		model_publish(w);
	else if (r < 80)
		model_sync(w);
	else if (r < 84)
		act_new_term(w);
	else if (r < 88 && with_trims)
		act_mark(w);
	else if (r < 91)
		lives(w, raft_journal_append_commit(w->j, w->commit, &err), &err);
	else if (r < 93)
		lives(w, raft_journal_append_note(w->j, "follower in term 7", &err), &err);
	else
		lives(w, raft_journal_upkeep(w->j, &err), &err);
}

void model_go_back(struct model_world *w, size_t n, const struct raft_journal_state *st)
{
	w->m.n = w->m.synced = n;
	state_at_start(&w->s);
	for (size_t i = 0; i < n; i++)
		apply(&w->s, &w->m.ops[i]);
	w->base = st->base_index;
	w->commit = st->commit;
	w->dead = false;
}

void model_begin(struct model_world *w, const struct model_shape *shape)
{
	struct raft_journal_state st;
	struct wire_err err;

	memset(&w->m, 0, sizeof(w->m));
	state_at_start(&w->s);
	w->commit = w->base = MODEL_BASE;
	w->tag = 0;
	w->dead = false;
	w->shape = shape;
	w->d = model_disk(shape);
	must(raft_journal_open(disk_env(w->d), "j", &shape->opts, &w->j, &st, &err), &err);
	assert_int_equal(st.n_entries, 0);
	assert_int_equal(st.base_config.n, 3);
}

void model_drop(struct raft_journal *j)
{
	j->failed = true;
	raft_journal_close(j);
}

void model_check_goes_on(const struct model_shape *shape, struct disk *d, struct raft_journal *j, const struct raft_journal_state *before)
{
	uint64_t last = before->base_index + before->n_entries, term = before->term;
	struct wire_entry e = { .index = last + 1, .term = term, .kind = WIRE_ENTRY_NOOP, .sum = wire_hash("", 0, 0) };
	struct raft_journal_state st;
	struct wire_err err;

	must(raft_journal_append_entries(j, &e, 1, 0, &err), &err);
	must(raft_journal_sync(j, &err), &err);
	raft_journal_close(j);
	must(raft_journal_open(disk_env(d), "j", &shape->opts, &j, &st, &err), &err);
	assert_int_equal(st.base_index + st.n_entries, last + 1);
	assert_int_equal(st.cut_bytes, 0);
	model_check_data(j, &st);
	model_drop(j);
}

