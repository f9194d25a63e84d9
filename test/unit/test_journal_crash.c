/* What a journal is after it was cut, damaged, or lost what was not synced. A model keeps every operation in order; what
 * is recovered must be the model's state after some number of them, at least as many as were durable.
 *
 * WALRAFT_SEED repeats the random part: WALRAFT_SEED=n test_journal_crash */
#include "test/unit/journal_kit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPS_MAX = 6000, LOG_MAX = 6000, DATA_MAX = 900, BASE = 5 };

enum what { ENTRY, TRUNCATE, VOTE, PUBLISH, MARK };
struct op {
	enum what what;
	uint64_t index, term, vote, sum;
	uint32_t size, tag;
};
struct model {
	struct op ops[OPS_MAX];
	size_t n, synced; /* ops that are durable for sure */
};
struct state {
	uint64_t last, term, vote, mark;
	uint32_t pub;
	struct op log[LOG_MAX];
};

static uint64_t rnd_state;

static uint64_t rnd(uint64_t n)
{
	rnd_state = rnd_state * 6364136223846793005u + 1442695040888963407u;
	return (rnd_state >> 33) % n;
}

static void fill(uint8_t *data, uint32_t size, uint32_t tag)
{
	for (uint32_t i = 0; i < size; i++)
		data[i] = (uint8_t)(tag * 31 + i * 7 + (i >> 8));
}

static void apply(struct state *s, const struct op *o)
{
	switch (o->what) {
	case ENTRY:
		s->log[++s->last] = *o;
		if (o->term > s->term) {
			s->term = o->term;
			s->vote = 0;
		}
		break;
	case TRUNCATE:
		s->last = o->index - 1;
		break;
	case VOTE:
		s->term = o->term;
		s->vote = o->vote;
		break;
	case PUBLISH:
		s->pub = o->tag;
		break;
	case MARK:
		s->mark = o->index;
		break;
	}
}

static struct raft_config three(void)
{
	struct raft_config c = { .n = 3 };

	for (uint32_t i = 0; i < 3; i++) {
		c.m[i].id = i + 1;
		c.m[i].flags = RAFT_VOTER;
		snprintf(c.m[i].url, sizeof(c.m[i].url), "tcp://127.0.0.1:%u", 7401 + i);
	}
	return c;
}

static void state_at_start(struct state *s)
{
	memset(s, 0, offsetof(struct state, log));
	s->last = BASE;
	s->term = 2;
	s->mark = BASE;
}

static struct disk *fresh(void)
{
	struct disk *d = disk_new();
	struct raft_config c = three();
	struct raft_journal_mark m = { .index = BASE, .checksum = 99, .db_pages = 3 };
	struct wire_err err;

	if (raft_journal_create(disk_env(d), "j", &small, 2, BASE, 2, &c, &m, &err))
		fail_msg("%s", err.text);
	return d;
}

/* Which prefix of the model is this? -1: none of at least `min` operations. */
static long match(const struct model *m, const struct raft_journal_state *st, size_t min)
{
	static struct state s;
	uint64_t last = st->base_index + st->n_entries;
	uint32_t pub = st->n_publications ? st->publications[st->n_publications - 1].mx_frame : 0;
	long found = -1;

	state_at_start(&s);
	for (size_t p = 0;; p++) {
		bool same = p >= min && s.last == last && s.term == st->term && s.vote == st->vote && s.mark == st->mark.index &&
		            s.pub == pub;
		for (size_t i = 0; same && i < st->n_entries; i++) {
			const struct wire_entry *e = &st->entries[i];
			const struct op *o = &s.log[e->index];
			same = e->index == st->base_index + 1 + i && e->term == o->term && e->sum == o->sum && e->size == o->size;
		}
		if (same)
			found = (long)p;
		if (p == m->n)
			return found;
		apply(&s, &m->ops[p]);
	}
}

/* Every entry can be read and is what the log says. */
static void check_data(struct raft_journal *j, const struct raft_journal_state *st)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;

	for (size_t i = 0; i < st->n_entries; i++) {
		if (raft_journal_read(j, st->entries[i].index, &b, &e, &err))
			fail_msg("%s", err.text);
		assert_int_equal(e.sum, st->entries[i].sum);
		assert_int_equal(e.term, st->entries[i].term);
		assert_int_equal(wire_hash(b.data, b.len, 0), e.sum);
	}
	assert_true(st->commit >= st->base_index && st->commit <= st->base_index + st->n_entries);
	assert_true(st->mark.index >= st->base_index);
	wire_buf_free(&b);
}

struct world {
	struct disk *d;
	struct raft_journal *j;
	struct model m;
	struct state s;
	uint64_t commit, base;
	uint32_t tag;
};

static void did(struct world *w, struct op o)
{
	assert_true(w->m.n < OPS_MAX && w->s.last + 1 < LOG_MAX);
	w->m.ops[w->m.n++] = o;
	apply(&w->s, &o);
}

static void act_entries(struct world *w, uint32_t n)
{
	static uint8_t data[8][DATA_MAX];
	struct wire_entry e[8] = { 0 };
	struct wire_err err;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t size = (uint32_t)rnd(rnd(8) ? 120 : DATA_MAX);
		fill(data[i], size, ++w->tag);
		e[i] = (struct wire_entry){ .index = w->s.last + 1 + i, .term = w->s.term, .kind = WIRE_ENTRY_DATA, .size = size,
			                    .sum = wire_hash(data[i], size, 0), .data = data[i] };
	}
	must(raft_journal_append_entries(w->j, e, n, w->commit, &err), &err);
	for (uint32_t i = 0; i < n; i++)
		did(w, (struct op){ ENTRY, e[i].index, e[i].term, 0, e[i].sum, e[i].size, 0 });
}

static void act_publish(struct world *w)
{
	struct wire_err err;
	struct raft_journal_publication p = { .mx_frame = ++w->tag, .index = w->commit };

	must(raft_journal_append_publication(w->j, &p, &err), &err);
	did(w, (struct op){ .what = PUBLISH, .index = p.index, .tag = p.mx_frame });
}

static void act_new_term(struct world *w)
{
	struct wire_err err;
	uint64_t vote = rnd(3) + 1;

	if (w->s.last > w->commit && rnd(2)) {
		uint64_t from = w->commit + 1 + rnd(w->s.last - w->commit);
		must(raft_journal_append_truncate(w->j, from, &err), &err);
		did(w, (struct op){ .what = TRUNCATE, .index = from });
	}
	must(raft_journal_append_vote(w->j, w->s.term + 1, vote, &err), &err);
	did(w, (struct op){ .what = VOTE, .term = w->s.term + 1, .vote = vote });
}

static void act_sync(struct world *w)
{
	struct wire_err err;

	must(raft_journal_sync(w->j, &err), &err);
	w->m.synced = w->m.n;
	if (rnd(4))
		w->commit = w->s.last - rnd(w->s.last - w->commit + 1);
}

static void act_mark(struct world *w)
{
	struct wire_err err;
	struct raft_journal_mark m = { .index = w->commit, .checksum = w->commit * 3, .db_pages = 7 };

	must(raft_journal_append_mark(w->j, &m, &err), &err);
	did(w, (struct op){ .what = MARK, .index = m.index });
	if (rnd(2))
		must(raft_journal_trim(w->j, m.index - rnd(3) % (m.index - w->base + 1), &err), &err);
	w->base = raft_journal_base(w->j);
}

static void act(struct world *w, bool with_trims)
{
	struct wire_err err;
	uint64_t r = rnd(100);

	if (r < 40)
		act_entries(w, (uint32_t)rnd(5) + 1);
	else if (r < 55)
		act_publish(w);
	else if (r < 80)
		act_sync(w);
	else if (r < 84)
		act_new_term(w);
	else if (r < 88 && with_trims)
		act_mark(w);
	else if (r < 91)
		must(raft_journal_append_commit(w->j, w->commit, &err), &err);
	else if (r < 93)
		must(raft_journal_append_note(w->j, "follower in term 7", &err), &err);
	else
		must(raft_journal_upkeep(w->j, &err), &err);
}

static void begin(struct world *w)
{
	struct raft_journal_state st;
	struct wire_err err;

	memset(&w->m, 0, sizeof(w->m));
	state_at_start(&w->s);
	w->commit = w->base = BASE;
	w->tag = 0;
	w->d = fresh();
	must(raft_journal_open(disk_env(w->d), "j", &small, &w->j, &st, &err), &err);
	assert_int_equal(st.n_entries, 0);
	assert_int_equal(st.base_config.n, 3);
}

/* Ends the use of a journal as a kill would: nothing is written any more. */
static void drop(struct raft_journal *j)
{
	j->failed = true;
	raft_journal_close(j);
}

/* A journal that was recovered works: one more entry, and the same again after a close. */
static void check_goes_on(struct disk *d, struct raft_journal *j, const struct raft_journal_state *before)
{
	uint64_t last = before->base_index + before->n_entries, term = before->term;
	struct wire_entry e = { .index = last + 1, .term = term, .kind = WIRE_ENTRY_NOOP, .sum = wire_hash("", 0, 0) };
	struct raft_journal_state st;
	struct wire_err err;

	must(raft_journal_append_entries(j, &e, 1, 0, &err), &err);
	must(raft_journal_sync(j, &err), &err);
	raft_journal_close(j);
	must(raft_journal_open(disk_env(d), "j", &small, &j, &st, &err), &err);
	assert_int_equal(st.base_index + st.n_entries, last + 1);
	assert_int_equal(st.cut_bytes, 0);
	check_data(j, &st);
	drop(j);
}

static void journal_of_a_few_segments(struct world *w)
{
	struct wire_err err;

	begin(w);
	while (w->j->n_segs < 3 || w->j->off < 2500)
		act(w, false);
	act_sync(w);
	must(raft_journal_upkeep(w->j, &err), &err);
	act_entries(w, 3);
	act_publish(w);
}

static void test_every_cut(void **ctx)
{
	static struct world w;
	long cut_some = 0, rot = 0;

	(void)ctx;
	rnd_state = 11;
	journal_of_a_few_segments(&w);
	uint64_t synced = w.j->synced, said = w.j->synced_said, end = raft_jrn_pos(raft_jrn_current(w.j)->no, w.j->off);
	for (uint64_t no = 1; no <= raft_jrn_current(w.j)->no; no++) {
		uint32_t stop = no == raft_jrn_current(w.j)->no ? w.j->off : 4096;
		for (uint32_t off = 0; off <= stop; off++) {
			struct disk *d = disk_copy(w.d);
			struct raft_journal_state st;
			struct raft_journal *j;
			struct wire_err err;
			char path[64];
			size_t size;

			snprintf(path, sizeof(path), "j/%016llu.seg", (unsigned long long)no);
			if (off % 2)
				disk_shorten(d, path, off);
			else
				memset(disk_bytes(d, path, &size) + off, 0, 4096 - off);
			int rc = raft_journal_open(disk_env(d), "j", &small, &j, &st, &err);
			/* The end of a full segment says nothing but where it ends: a cut in the zeros behind it is none. */
			if (raft_jrn_pos(no, off) >= synced)
				assert_int_equal(rc, WIRE_OK);
			if (rc) {
				assert_int_equal(rc, WIRE_CORRUPT);
				assert_non_null(strstr(err.text, ".seg"));
				rot++;
			} else {
				assert_true(match(&w.m, &st, raft_jrn_pos(no, off) >= synced ? w.m.synced : 0) >= 0);
				if (no < said >> 32)
					assert_int_equal(match(&w.m, &st, 0), w.m.n);
				if (raft_jrn_pos(no, off) == end)
					assert_int_equal(match(&w.m, &st, 0), w.m.n);
				check_data(j, &st);
				cut_some += st.cut_bytes > 0;
				check_goes_on(d, j, &st);
			}
			disk_free(d);
		}
	}
	assert_true(cut_some > 100 && rot > 100);
	drop(w.j);
	disk_free(w.d);
}

static void test_every_bit_flip(void **ctx)
{
	static struct world w;
	long rot = 0, cut = 0, harmless = 0;

	(void)ctx;
	rnd_state = 12;
	journal_of_a_few_segments(&w);
	uint64_t said = w.j->synced_said;
	for (uint64_t no = 1; no <= raft_jrn_current(w.j)->no; no++) {
		uint32_t stop = no == raft_jrn_current(w.j)->no ? w.j->off + 600 : 4096;
		struct disk *d = disk_copy(w.d);
		for (uint32_t bit = 0; bit < stop * 8; bit += no == raft_jrn_current(w.j)->no ? 1 : 3) {
			struct raft_journal_state st;
			struct raft_journal *j;
			struct wire_err err;
			char path[64];
			size_t size;

			snprintf(path, sizeof(path), "j/%016llu.seg", (unsigned long long)no);
			disk_bytes(d, path, &size)[bit / 8] ^= (uint8_t)(1 << bit % 8);
			int rc = raft_journal_open(disk_env(d), "j", &small, &j, &st, &err);
			if (rc) {
				assert_int_equal(rc, WIRE_CORRUPT);
				assert_true(raft_jrn_pos(no, bit / 8) < said); /* never for what was not known durable */
				disk_bytes(d, path, &size)[bit / 8] ^= (uint8_t)(1 << bit % 8);
				rot++;
				continue;
			}
			long p = match(&w.m, &st, 0);
			assert_true(p >= 0);
			if (raft_jrn_pos(no, bit / 8) < said)
				assert_int_equal(p, w.m.n); /* padding: nothing is missing */
			else
				assert_true(p >= (long)w.m.synced);
			if (p < (long)w.m.n)
				cut++;
			else
				harmless++;
			check_data(j, &st);
			drop(j);
			disk_free(d);
			d = disk_copy(w.d); /* the cut changed it */
		}
		disk_free(d);
	}
	print_message("# bit flips: %ld reported as rot, %ld cut, %ld harmless\n", rot, cut, harmless);
	assert_true(rot > 10000 && cut > 500);
	drop(w.j);
	disk_free(w.d);
}

/* Power losses in the middle of work: the journal always opens, and nothing durable is missing. */
static void test_lost_writes(void **ctx)
{
	static struct world w;
	const char *given = getenv("WALRAFT_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
	long crashes = 0, cuts = 0, trimmed = 0;

	(void)ctx;
	print_message("# WALRAFT_SEED=%llu\n", (unsigned long long)seed);
	for (uint64_t round = 0; round < 200; round++) {
		rnd_state = (seed * 1000 + round) * 0x9e3779b97f4a7c15u + 1;
		begin(&w);
		for (int life = 0; life < 12; life++) {
			struct raft_journal_state st;
			struct wire_err err;

			for (uint64_t n = rnd(120); n > 0; n--)
				act(&w, true);
			trimmed += raft_journal_base(w.j) > BASE;
			if (rnd(8) == 0) {
				raft_journal_close(w.j);
				w.m.synced = w.m.n;
			} else {
				drop(w.j);
			}
			for (int twice = 0; twice < 2; twice++) {
				disk_crash(w.d, rnd(1u << 30));
				crashes++;
				int rc = raft_journal_open(disk_env(w.d), "j", &small, &w.j, &st, &err);
				if (rc)
					fail_msg("seed %llu round %llu: %s", (unsigned long long)seed, (unsigned long long)round, err.text);
				long p = match(&w.m, &st, w.m.synced);
				if (p < 0)
					fail_msg("seed %llu round %llu: not a legal state", (unsigned long long)seed,
					         (unsigned long long)round);
				check_data(w.j, &st);
				cuts += st.cut_bytes > 0;
				/* From here on this prefix is the past. */
				w.m.n = w.m.synced = (size_t)p;
				if (!twice && rnd(2))
					break;
				if (!twice)
					drop(w.j); /* a crash right after a recovery */
			}
			state_at_start(&w.s);
			for (size_t i = 0; i < w.m.n; i++)
				apply(&w.s, &w.m.ops[i]);
			w.base = st.base_index;
			w.commit = st.commit;
		}
		drop(w.j);
		disk_free(w.d);
	}
	print_message("# %ld crashes, %ld with a torn tail, %ld with a trimmed journal\n", crashes, cuts, trimmed);
	assert_true(cuts > 50 && trimmed > 50);
}

/* A segment that is trimmed before its end was synced: recovery may begin in it as long as its file is there. */
static void test_trim_before_sync(void **ctx)
{
	static uint8_t data[900];

	(void)ctx;
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct disk *d = fresh();
		struct raft_journal_state st;
		struct raft_journal *j;
		struct wire_err err;

		must(raft_journal_open(disk_env(d), "j", &small, &j, &st, &err), &err);
		for (uint64_t i = 1; j->n_segs == 1; i++) {
			must(append(j, BASE + i, 2, data, sizeof(data), &err), &err);
			if (j->n_segs == 1)
				must(raft_journal_sync(j, &err), &err);
		}
		uint64_t last = raft_jrn_log_last(&j->log);
		must(raft_journal_append_mark(j, &(struct raft_journal_mark){ .index = last - 1 }, &err), &err);
		must(raft_journal_trim(j, last - 1, &err), &err);
		assert_int_equal(j->n_segs, 1);
		must(raft_journal_sync(j, &err), &err);
		must(append(j, last + 1, 2, data, sizeof(data), &err), &err);
		must(raft_journal_sync(j, &err), &err);
		drop(j);
		disk_crash(d, seed);
		must(raft_journal_open(disk_env(d), "j", &small, &j, &st, &err), &err);
		assert_int_equal(st.base_index, last - 1);
		assert_int_equal(st.n_entries, 2);
		drop(j);
		disk_free(d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_every_bit_flip),
		cmocka_unit_test(test_trim_before_sync),
		cmocka_unit_test(test_lost_writes),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
