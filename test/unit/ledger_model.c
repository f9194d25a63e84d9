#include "test/unit/ledger_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

uint64_t ledger_rng;

uint32_t below(uint32_t n)
{
	ledger_rng ^= ledger_rng << 13;
	ledger_rng ^= ledger_rng >> 7;
	ledger_rng ^= ledger_rng << 17;
	return (uint32_t)((ledger_rng >> 16) % n);
}

/* ---- the model: a log, and everything looked up by going through it ---- */

void model_free(struct model *m)
{
	free(m->e);
	free(m->checksum);
}

void model_begin(struct model *m, uint32_t clients)
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
void model_add(struct model *m)
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

void feed(struct shell_ledger *l, struct model *m, size_t from, size_t to)
{
	struct wire_err err;

	while (from < to) {
		size_t n = 1 + below(20);

		n = n < to - from ? n : to - from;
		assert_int_equal(shell_ledger_apply(l, m->e[from + n - 1].index, m->e + from, n, &err), WIRE_OK);
		from += n;
	}
}

uint64_t sum_of(struct shell_ledger *l)
{
	struct shell_ledger_state st;

	shell_ledger_state(l, &st);
	return st.checksum;
}

void check_sessions(struct shell_ledger *l, const struct model *m, size_t n)
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

void check_outcomes(struct shell_ledger *l, const struct model *m, size_t n, int probes)
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

struct shell_ledger *fresh(void)
{
	struct shell_ledger *l = shell_ledger_new(1, 1, true);

	assert_non_null(l);
	return l;
}

void ledger_seed(const char *test)
{
	const char *given = getenv("WALRAFT_SEED");

	ledger_rng = given ? (uint64_t)strtoull(given, NULL, 10) : ((uint64_t)time(NULL) << 20 ^ (uint64_t)getpid());
	ledger_rng = ledger_rng ? ledger_rng : 1;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	printf("# WALRAFT_SEED=%llu test/unit/%s\n", (unsigned long long)ledger_rng, test);
	fflush(stdout);
}
