/* shell/ledger: against a naive model, with random entries, through crashes, damage and copies. */
#include "shell/ledger_impl.h"
#include "test/unit/journal_disk.h"
#include "wire/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define GROUP 77
#define PATH "n/ledger"

static uint64_t rng;

static uint32_t below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng >> 16) % n);
}

/* ---- the model: a log, and everything looked up by going through it ---- */

struct model {
	struct vfs_effect *e; /* in the order of the log */
	size_t n, cap;
	uint64_t index, term, clock_us;
	uint64_t *checksum;   /* [n]: of the ledger after so many effects; 0: not known */
	struct shell_txid_source source;
	uint32_t clients;
	uint64_t seq[256];
};

static void model_free(struct model *m)
{
	free(m->e);
	free(m->checksum);
}

static void model_begin(struct model *m, uint32_t clients)
{
	*m = (struct model){ .index = 1, .term = 1, .clock_us = 1700000000000000u, .clients = clients };
}

static uint8_t client_id(uint32_t client, uint8_t id[VFS_ONCE_ID_MAX])
{
	char text[80];

	snprintf(text, sizeof text, "%0*u", (int)(1 + client * 63 / 256), client);
	memcpy(id, text, strlen(text));
	return (uint8_t)strlen(text);
}

/* One more entry of the log: mostly a transaction. */
static void model_add(struct model *m)
{
	struct vfs_effect e = { 0 };
	uint64_t granted;

	if (m->n == m->cap) {
		m->cap = m->cap * 2 + 256;
		m->e = realloc(m->e, m->cap * sizeof *m->e);
		m->checksum = realloc(m->checksum, (m->cap + 1) * sizeof *m->checksum);
	}
	granted = m->index;
	m->index += below(8) ? 1 : 1 + below(4);
	e.index = m->index;
	if (below(40) == 0) {
		m->term += 1 + below(3);
	} else {
		for (uint32_t lost = below(3); lost; lost--)
			shell_txid_next(&m->source, m->term, granted, e.txid); /* of transactions that were rolled back */
		shell_txid_next(&m->source, m->term, granted, e.txid);
		e.transaction = true;
		m->clock_us += below(20) ? below(3000000) : 0;
		e.timestamp_us = m->clock_us - (below(4) ? 0 : below(5000000));
		if (m->clients && below(2)) {
			uint32_t client = below(m->clients);

			e.once.id_len = client_id(client, e.once.id);
			e.once.seq = m->seq[client] += 1 + below(3);
			e.once.idle_s = 1 + below(400);
		}
	}
	e.term = m->term;
	m->checksum[m->n] = 0;
	m->e[m->n++] = e;
}

static uint64_t model_time(const struct model *m, size_t n)
{
	uint64_t t = 0;

	for (size_t i = 0; i < n; i++)
		if (m->e[i].transaction && m->e[i].timestamp_us > t)
			t = m->e[i].timestamp_us;
	return t;
}

static struct shell_session model_session(const struct model *m, size_t n, uint32_t client)
{
	struct shell_session s = { 0 };
	uint8_t id[VFS_ONCE_ID_MAX], len = client_id(client, id);
	uint64_t t = 0;

	for (size_t i = 0; i < n; i++) {
		const struct vfs_effect *e = &m->e[i];

		if (!e->transaction)
			continue;
		t = e->timestamp_us > t ? e->timestamp_us : t;
		if (s.index && s.until_us < t)
			s = (struct shell_session){ 0 };
		if (e->once.id_len == len && !memcmp(e->once.id, id, len) && e->once.seq > s.seq) {
			uint64_t until = t + e->once.idle_s * 1000000ull;

			s = (struct shell_session){ e->once.seq, e->index, t, until > s.until_us ? until : s.until_us };
		}
	}
	return s;
}

static enum shell_outcome model_outcome(const struct model *m, size_t n, const uint8_t txid[VFS_TXID_BYTES], uint64_t *ret_index)
{
	struct shell_txid id;

	shell_txid_get(txid, &id);
	for (size_t i = 0; i < n; i++)
		if (m->e[i].transaction && !memcmp(m->e[i].txid, txid, VFS_TXID_BYTES)) {
			*ret_index = m->e[i].index;
			return SHELL_OUTCOME_COMMITTED;
		}
	return n && m->e[n - 1].term > id.term ? SHELL_OUTCOME_LOST : SHELL_OUTCOME_OPEN;
}

/* ---- comparing ---- */

static void feed(struct shell_ledger *l, struct model *m, size_t from, size_t to)
{
	struct wire_err err;

	while (from < to) {
		size_t n = 1 + below(20);

		n = n < to - from ? n : to - from;
		assert_int_equal(shell_ledger_apply(l, m->e[from + n - 1].index, m->e + from, n, &err), WIRE_OK);
		from += n;
	}
}

static uint64_t sum_of(struct shell_ledger *l)
{
	struct shell_ledger_state st;

	shell_ledger_state(l, &st);
	return st.checksum;
}

static void check_sessions(struct shell_ledger *l, const struct model *m, size_t n)
{
	struct shell_ledger_state st;
	uint32_t live = 0;

	for (uint32_t c = 0; c < m->clients; c++) {
		struct shell_session want = model_session(m, n, c), have;
		uint8_t id[VFS_ONCE_ID_MAX], len = client_id(c, id);
		struct wire_err err;

		assert_int_equal(shell_ledger_session(l, id, len, &have, &err), WIRE_OK);
		assert_true(have.seq == want.seq && have.index == want.index && have.time_us == want.time_us && have.until_us == want.until_us);
		live += want.index != 0;
	}
	shell_ledger_state(l, &st);
	assert_int_equal(st.sessions, live);
	assert_true(st.time_us == model_time(m, n));
}

static void check_outcomes(struct shell_ledger *l, const struct model *m, size_t n, int probes)
{
	for (int i = 0; i < probes; i++) {
		const struct vfs_effect *e = &m->e[below((uint32_t)m->n)];
		enum shell_outcome want, have;
		uint64_t at = 0, want_at = 0;
		struct shell_txid id;
		uint8_t txid[VFS_TXID_BYTES];

		if (!e->transaction)
			continue;
		shell_txid_get(e->txid, &id);
		if (below(2))
			id.number += 100000; /* a grant that nothing came of */
		shell_txid_put(&id, txid);
		want = model_outcome(m, n, txid, &want_at);
		have = shell_ledger_outcome(l, txid, false, &at);
		assert_int_equal(have, want);
		assert_true(at == want_at);
		if (want == SHELL_OUTCOME_OPEN)
			assert_int_equal(shell_ledger_outcome(l, txid, true, &at), SHELL_OUTCOME_LOST);
	}
}

static struct shell_ledger *fresh(void)
{
	struct shell_ledger *l = shell_ledger_new(1, 1, true);

	assert_non_null(l);
	return l;
}

static void against_the_model(void **state)
{
	(void)state;
	for (int round = 0; round < 12; round++) {
		struct shell_ledger *l = fresh();
		struct model m;

		model_begin(&m, 1 + below(256));
		for (int step = 0; step < 20; step++) {
			size_t had = m.n;

			for (uint32_t n = below(120); n; n--)
				model_add(&m);
			feed(l, &m, had, m.n);
			if (!m.n)
				continue;
			check_sessions(l, &m, m.n);
			check_outcomes(l, &m, m.n, 60);
			/* What it has already changes nothing. */
			uint64_t sum = sum_of(l);
			feed(l, &m, m.n / 2, m.n);
			assert_true(sum_of(l) == sum);
		}
		shell_ledger_free(l);
		model_free(&m);
	}
}

/* In one go, one by one, or over a file: the same. */
static void one_state_for_one_index(void **state)
{
	struct disk *d = disk_new();
	struct shell_ledger *a = fresh(), *b = fresh(), *c = NULL;
	struct wire_err err;
	struct model m;
	uint64_t index, cut;

	(void)state;
	model_begin(&m, 200);
	for (int i = 0; i < 3000; i++)
		model_add(&m);
	feed(a, &m, 0, m.n);
	for (size_t i = 0; i < m.n; i++) {
		assert_int_equal(shell_ledger_apply(b, m.e[i].index, &m.e[i], 1, &err), WIRE_OK);
		if (i == 1000) {
			assert_int_equal(shell_ledger_copy(b, disk_env(d), "copy", GROUP, &index, &err), WIRE_OK);
			assert_true(index == m.e[i].index);
		}
	}
	assert_int_equal(shell_ledger_open(disk_env(d), "copy", GROUP, &c, &cut, &err), WIRE_OK);
	assert_int_equal(cut, 0);
	feed(c, &m, 0, m.n);
	assert_true(sum_of(a) == sum_of(b) && sum_of(a) == sum_of(c) && sum_of(a) != 0);
	check_sessions(c, &m, m.n);
	check_outcomes(c, &m, m.n, 500);
	shell_ledger_free(a);
	shell_ledger_free(b);
	shell_ledger_free(c);
	model_free(&m);
	disk_free(d);
}

/* A window that has moved on tells what it cannot tell. */
static void window(void **state)
{
	struct shell_ledger *l = fresh();
	struct shell_txid_source source = { 0 };
	struct vfs_effect e = { .index = 1, .transaction = true };
	struct shell_ledger_state st;
	uint8_t first[VFS_TXID_BYTES], unused[VFS_TXID_BYTES], edge[VFS_TXID_BYTES];
	struct wire_err err;
	uint64_t at = 0;

	(void)state;
	for (uint32_t i = 0; i < SHELL_LEDGER_IDS + 1000; i++) {
		e.term = 2;
		shell_txid_next(&source, e.term, e.index, e.txid);
		if (i == 0)
			memcpy(first, e.txid, sizeof first);
		if (i == 1)
			shell_txid_next(&source, e.term, e.index, unused);
		e.index++;
		assert_int_equal(shell_ledger_apply(l, e.index, &e, 1, &err), WIRE_OK);
	}
	shell_ledger_state(l, &st);
	assert_int_equal(st.ids, SHELL_LEDGER_IDS);
	assert_true(st.from == 1001);
	assert_int_equal(shell_ledger_outcome(l, first, false, &at), SHELL_OUTCOME_OPEN);
	assert_int_equal(shell_ledger_outcome(l, first, true, &at), SHELL_OUTCOME_TOO_OLD);
	assert_int_equal(shell_ledger_outcome(l, unused, true, &at), SHELL_OUTCOME_TOO_OLD);
	shell_txid_put(&(struct shell_txid){ .term = 2, .index = st.from, .number = UINT32_MAX }, edge);
	assert_int_equal(shell_ledger_outcome(l, edge, true, &at), SHELL_OUTCOME_LOST);
	shell_txid_put(&(struct shell_txid){ .term = 2, .index = st.from - 1, .number = UINT32_MAX }, edge);
	assert_int_equal(shell_ledger_outcome(l, edge, true, &at), SHELL_OUTCOME_TOO_OLD);
	/* The next term begins right above the index at which this one was granted: nothing of its own term can be there. */
	shell_txid_put(&(struct shell_txid){ .term = 1, .index = 1, .number = 1 }, edge);
	assert_int_equal(shell_ledger_outcome(l, edge, false, &at), SHELL_OUTCOME_LOST);
	assert_int_equal(shell_ledger_outcome(l, e.txid, false, &at), SHELL_OUTCOME_COMMITTED);
	assert_true(at == e.index);
	shell_ledger_free(l);
}

static void what_was_lost_is_not_invented(void **state)
{
	struct shell_ledger *l = shell_ledger_new(500, 3, false), *again = NULL;
	struct disk *d = disk_new();
	struct vfs_effect e = { .index = 600, .term = 9 };
	uint8_t id[VFS_TXID_BYTES];
	struct shell_ledger_state st;
	struct shell_session s;
	struct wire_err err;
	uint64_t at = 0, cut;

	(void)state;
	assert_non_null(l);
	assert_int_equal(shell_ledger_apply(l, 700, &e, 1, &err), WIRE_OK);
	shell_txid_put(&(struct shell_txid){ .term = 3, .index = 400, .number = 1 }, id);
	assert_int_equal(shell_ledger_outcome(l, id, false, &at), SHELL_OUTCOME_TOO_OLD);
	shell_txid_put(&(struct shell_txid){ .term = 3, .index = 500, .number = 1 }, id);
	assert_int_equal(shell_ledger_outcome(l, id, false, &at), SHELL_OUTCOME_LOST);
	assert_int_equal(shell_ledger_session(l, (const uint8_t *)"x", 1, &s, &err), WIRE_UNSUPPORTED);
	e = (struct vfs_effect){ .index = 701, .term = 9, .transaction = true, .timestamp_us = 5, .once = { .seq = 4, .idle_s = 60, .id_len = 1, .id = "x" } };
	assert_int_equal(shell_ledger_apply(l, 701, &e, 1, &err), WIRE_OK);
	assert_int_equal(shell_ledger_session(l, (const uint8_t *)"x", 1, &s, &err), WIRE_OK);
	assert_true(s.seq == 4 && s.index == 701);
	assert_int_equal(shell_ledger_session(l, (const uint8_t *)"y", 1, &s, &err), WIRE_UNSUPPORTED);
	assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
	assert_int_equal(shell_ledger_open(disk_env(d), PATH, GROUP, &again, &cut, &err), WIRE_OK);
	shell_ledger_state(again, &st);
	assert_true(!st.whole && st.index == 701 && st.from == 500);
	shell_ledger_free(l);
	shell_ledger_free(again);
	disk_free(d);
}

/* ---- the file ---- */

/* The number of effects that a ledger at this index has seen. */
static size_t effects_at(const struct model *m, uint64_t index)
{
	size_t n = 0;

	while (n < m->n && m->e[n].index <= index)
		n++;
	return n;
}

static void remember(struct model *m, struct shell_ledger *l)
{
	m->checksum[m->n ? m->n - 1 : 0] = sum_of(l);
}

/* Work, flushes, power losses at any change of the disk: what opens is a state that there was, and none before the last flush that had succeeded. */
static void crashes(void **state)
{
	long lives = 0, torn = 0, missing = 0;

	(void)state;
	for (int round = 0; round < 25; round++) {
		struct disk *d = disk_new();
		struct shell_ledger *l = fresh();
		struct wire_err err;
		struct model m;
		uint64_t durable = 0;

		model_begin(&m, 60);
		for (int life = 0; life < 15; life++, lives++) {
			bool power = true;

			disk_cut_power(d, below(3) ? (int)below(life ? 60 : 10) : -1);
			for (uint32_t flushes = 1 + below(12); flushes && power; flushes--) {
				size_t had = m.n;

				for (uint32_t n = 1 + below(300); n; n--)
					model_add(&m);
				feed(l, &m, had, m.n);
				remember(&m, l);
				power = shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err) == WIRE_OK;
				if (power)
					durable = m.index;
				else
					assert_int_not_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
			}
			shell_ledger_free(l);
			l = NULL;
			disk_crash(d, ((uint64_t)below(1u << 30) << 20) + (uint64_t)life);
			uint64_t cut = 0;
			struct shell_ledger_state st = { 0 };
			int rc = shell_ledger_open(disk_env(d), PATH, GROUP, &l, &cut, &err);
			if (rc) {
				if (durable || (rc != WIRE_NOTFOUND && rc != WIRE_CORRUPT))
					fail_msg("life %d: %s", life, err.text);
				missing++;
				l = fresh();
			} else {
				shell_ledger_state(l, &st);
			}
			torn += cut > 0;
			assert_true(st.index >= durable);
			size_t n = effects_at(&m, st.index);
			if (!rc)
				assert_true(n && m.e[n - 1].index == st.index && m.checksum[n - 1] == st.checksum);
			feed(l, &m, n, m.n); /* as a start does, from the journal */
			if (m.n) {
				check_sessions(l, &m, m.n);
				check_outcomes(l, &m, m.n, 30);
			}
		}
		shell_ledger_free(l);
		model_free(&m);
		disk_free(d);
	}
	printf("# %ld lives, %ld with a torn tail, %ld before the first flush\n", lives, torn, missing);
	assert_true(torn > 8 && missing > 2);
}

static struct disk *some_file(struct model *m)
{
	struct disk *d = disk_new();
	struct shell_ledger *l = fresh();
	struct wire_err err;

	model_begin(m, 20);
	for (int i = 0; i < 6; i++) {
		size_t had = m->n;

		for (int n = 0; n < 40; n++)
			model_add(m);
		feed(l, m, had, m->n);
		remember(m, l);
		assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
	}
	shell_ledger_free(l);
	return d;
}

/* It opens as some state that was flushed, or does not open. */
static bool opens(struct disk *d, const struct model *m, uint64_t *ret_index)
{
	struct shell_ledger_state st;
	struct shell_ledger *l;
	struct wire_err err;
	uint64_t cut;
	int rc = shell_ledger_open(disk_env(d), PATH, GROUP, &l, &cut, &err);
	size_t n;

	if (rc) {
		assert_true(rc == WIRE_CORRUPT || rc == WIRE_VERSION || rc == WIRE_FOREIGN);
		return false;
	}
	shell_ledger_state(l, &st);
	shell_ledger_free(l);
	n = effects_at(m, st.index);
	assert_true(n && m->checksum[n - 1] && m->checksum[n - 1] == st.checksum);
	*ret_index = st.index;
	return true;
}

static void every_cut_and_every_flipped_bit(void **state)
{
	struct model m;
	struct disk *d = some_file(&m);
	long cut = 0, refused = 0, shorter = 0;
	size_t size;
	uint8_t *bytes;
	uint64_t index = 0;

	(void)state;
	bytes = disk_bytes(d, PATH, &size);
	for (size_t i = 0; i < size * 8; i += 11) {
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		if (opens(d, &m, &index))
			shorter++;
		else
			refused++;
		/* What reaches the last flush has all of it. */
		assert_true(index < m.e[m.n - 1].index || opens(d, &m, &index) == false);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	assert_true(opens(d, &m, &index) && index == m.e[m.n - 1].index);
	for (size_t n = size; n > 5; n -= 1 + below(5)) {
		struct disk *copy = disk_copy(d);

		disk_shorten(copy, PATH, n - 1);
		index = 0;
		cut += opens(copy, &m, &index);
		assert_true(index < m.e[m.n - 1].index);
		disk_free(copy);
	}
	printf("# %zu bytes; flips: %ld refused, %ld opened as of an earlier flush; %ld shorter files opened\n", size, refused, shorter, cut);
	assert_true(refused > 100 && shorter > 100 && cut > 50);
	model_free(&m);
	disk_free(d);
}

static void of_another_database(void **state)
{
	struct model m;
	struct disk *d = some_file(&m);
	struct shell_ledger *l;
	struct wire_err err;
	uint64_t cut;

	(void)state;
	assert_int_equal(shell_ledger_open(disk_env(d), PATH, GROUP + 1, &l, &cut, &err), WIRE_FOREIGN);
	assert_int_equal(shell_ledger_open(disk_env(d), "n/other", GROUP, &l, &cut, &err), WIRE_NOTFOUND);
	model_free(&m);
	disk_free(d);
}

/* ---- copies while it changes ---- */

struct busy { struct shell_ledger *l; struct model *m; size_t at; _Atomic bool done; };

static void *apply_on(void *arg)
{
	struct busy *b = arg;
	struct wire_err err;

	for (; b->at < b->m->n; b->at++) {
		if (shell_ledger_apply(b->l, b->m->e[b->at].index, &b->m->e[b->at], 1, &err))
			abort();
		b->m->checksum[b->at] = sum_of(b->l);
	}
	b->done = true;
	return NULL;
}

static void copies_of_a_busy_one(void **state)
{
	struct busy b = { .l = fresh() };
	struct disk *d = disk_new();
	uint64_t *indexes = calloc(2000, sizeof *indexes);
	long copies = 0, flushes = 0;
	struct wire_err err;
	struct model m;
	pthread_t t;

	(void)state;
	model_begin(&m, 256);
	for (int i = 0; i < 30000; i++)
		model_add(&m);
	b.m = &m;
	assert_int_equal(pthread_create(&t, NULL, apply_on, &b), 0);
	while (!b.done && copies < 2000) {
		char name[32];

		snprintf(name, sizeof name, "copy%ld", copies % 100);
		assert_int_equal(shell_ledger_copy(b.l, disk_env(d), name, GROUP, &indexes[copies % 100], &err), WIRE_OK);
		copies++;
		assert_int_equal(shell_ledger_flush(b.l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
		flushes++;
	}
	pthread_join(t, NULL);
	for (long i = 0; i < copies && i < 100; i++) {
		struct shell_ledger *l;
		uint64_t cut;
		char name[32];
		size_t n;

		snprintf(name, sizeof name, "copy%ld", i);
		if (shell_ledger_open(disk_env(d), name, GROUP, &l, &cut, &err))
			fail_msg("%s", err.text);
		n = effects_at(&m, indexes[i]);
		assert_true(cut == 0 && (!n || sum_of(l) == m.checksum[n - 1]));
		shell_ledger_free(l);
	}
	printf("# %ld copies and %ld flushes while 30,000 entries were applied\n", copies, flushes);
	assert_true(copies > 3);
	free(indexes);
	shell_ledger_free(b.l);
	model_free(&m);
	disk_free(d);
}

/* ---- size ---- */

#define MANY 100000u

static void many_sessions(void **state)
{
	struct shell_ledger *l = fresh(), *again;
	struct disk *d = disk_new();
	struct shell_txid_source source = { 0 };
	struct vfs_effect e = { .index = 1, .term = 7, .transaction = true, .timestamp_us = 1700000000000000u };
	struct shell_ledger_state st, back;
	struct wire_err err;
	uint64_t cut, most = 0;

	(void)state;
	for (uint32_t i = 0; i < 4 * MANY; i++) {
		char id[VFS_ONCE_ID_MAX + 1];

		snprintf(id, sizeof id, "%064u", i % MANY);
		shell_txid_next(&source, e.term, e.index, e.txid);
		e.index++;
		e.timestamp_us += 1000;
		e.once = (struct vfs_once){ .seq = i, .idle_s = SHELL_LEDGER_IDLE_S, .id_len = VFS_ONCE_ID_MAX };
		memcpy(e.once.id, id, VFS_ONCE_ID_MAX);
		assert_int_equal(shell_ledger_apply(l, e.index, &e, 1, &err), WIRE_OK);
		if (i % 500 == 0) {
			assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
			shell_ledger_state(l, &st);
			most = st.file_bytes > most ? st.file_bytes : most;
		}
	}
	assert_int_equal(shell_ledger_flush(l, disk_env(d), PATH, GROUP, &err), WIRE_OK);
	shell_ledger_state(l, &st);
	assert_true(st.sessions == MANY && st.ids == SHELL_LEDGER_IDS);
	printf("# %u sessions with ids of %d bytes, and %u ids: %.1f MiB of memory, at most %.1f MiB of file\n", st.sessions, VFS_ONCE_ID_MAX, st.ids,
	       (double)st.memory_bytes / 1048576, (double)most / 1048576);
	assert_true(st.memory_bytes < 20u << 20);
	assert_true(most < 20u << 20);
	assert_int_equal(shell_ledger_open(disk_env(d), PATH, GROUP, &again, &cut, &err), WIRE_OK);
	shell_ledger_state(again, &back);
	assert_true(back.checksum == st.checksum && back.sessions == MANY && back.memory_bytes < 20u << 20);
	/* All of them are idle for too long at once. */
	e.index++;
	e.timestamp_us += (uint64_t)SHELL_LEDGER_IDLE_S * 1000000 + 1;
	e.once = (struct vfs_once){ .seq = 1, .idle_s = 60, .id_len = 3, .id = "new" };
	shell_txid_next(&source, e.term, e.index, e.txid);
	assert_int_equal(shell_ledger_apply(again, e.index, &e, 1, &err), WIRE_OK);
	shell_ledger_state(again, &back);
	assert_int_equal(back.sessions, 1);
	shell_ledger_free(l);
	shell_ledger_free(again);
	disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_the_model), cmocka_unit_test(one_state_for_one_index), cmocka_unit_test(window),
		cmocka_unit_test(what_was_lost_is_not_invented), cmocka_unit_test(crashes), cmocka_unit_test(every_cut_and_every_flipped_bit),
		cmocka_unit_test(of_another_database), cmocka_unit_test(copies_of_a_busy_one), cmocka_unit_test(many_sessions),
	};
	const char *given = getenv("WALRAFT_SEED");

	rng = given ? strtoull(given, NULL, 10) : ((uint64_t)time(NULL) << 20 ^ (uint64_t)getpid());
	rng = rng ? rng : 1;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	printf("# WALRAFT_SEED=%llu test/unit/test_ledger\n", (unsigned long long)rng);
	fflush(stdout);
	return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
