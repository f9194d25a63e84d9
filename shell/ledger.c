#include "shell/ledger_impl.h"
#include "wire/buf.h"
#include "wire/hash.h"

#include <stdlib.h>
#include <string.h>

#define TERM_SEED 1

struct shell_ledger *shell_ledger_new(uint64_t index, uint64_t term, bool whole)
{
	struct shell_ledger *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	pthread_mutex_init(&l->mu, NULL);
	l->index = l->from = index;
	l->whole = whole;
	if (term && ledger_term_put(l, term, index)) {
		shell_ledger_free(l);
		return NULL;
	}
	l->f.flushed = index;
	return l;
}

void shell_ledger_free(struct shell_ledger *l)
{
	if (!l)
		return;
	ledger_file_close(&l->f);
	free(l->terms);
	ledger_ids_free(&l->ids);
	ledger_sessions_free(&l->sessions);
	pthread_mutex_destroy(&l->mu);
	free(l);
}

int ledger_term_put(struct shell_ledger *l, uint64_t term, uint64_t first)
{
	uint8_t b[16];

	if (l->n_terms == l->cap_terms) {
		uint32_t cap = l->cap_terms ? l->cap_terms * 2 : 8;
		struct ledger_term *grown = realloc(l->terms, cap * sizeof *grown);

		if (!grown)
			return WIRE_NOMEM;
		l->terms = grown;
		l->cap_terms = cap;
	}
	l->terms[l->n_terms++] = (struct ledger_term){ term, first };
	l->term = term;
	wire_set_le64(b, term);
	wire_set_le64(b + 8, first);
	l->terms_sum ^= wire_hash(b, sizeof b, TERM_SEED);
	return WIRE_OK;
}

uint64_t ledger_checksum(const struct shell_ledger *l)
{
	return l->terms_sum ^ l->ids.sum ^ l->sessions.sum;
}

/* The step is one that was applied before only when somebody proposed it without looking; the log has it all the same. */
static int apply_step(struct shell_ledger *l, const struct vfs_effect *e)
{
	const struct ledger_session *before = ledger_sessions_find(&l->sessions, e->once.id, e->once.id_len);
	struct shell_session s = { .seq = e->once.seq, .index = e->index, .time_us = l->time_us, .until_us = l->time_us + e->once.idle_s * 1000000ull };

	if (before && before->s.seq >= s.seq)
		return WIRE_OK;
	/* Never shorter: see the file's rule. */
	if (before && before->s.until_us > s.until_us)
		s.until_us = before->s.until_us;
	return ledger_sessions_put(&l->sessions, e->once.id, e->once.id_len, &s);
}

static int apply_one(struct shell_ledger *l, const struct vfs_effect *e)
{
	uint64_t term = e->term;
	int rc = WIRE_OK;

	if (!term) {
		struct shell_txid id;

		shell_txid_get(e->txid, &id);
		term = id.term;
	}
	if (term > l->term)
		rc = ledger_term_put(l, term, e->index);
	if (rc || !e->transaction)
		return rc;
	if (e->timestamp_us > l->time_us)
		l->time_us = e->timestamp_us;
	ledger_sessions_expire(&l->sessions, l->time_us);
	rc = ledger_ids_put(&l->ids, e->txid, e->index, &l->from);
	if (!rc && e->once.id_len)
		rc = apply_step(l, e);
	return rc;
}

int shell_ledger_apply(struct shell_ledger *l, uint64_t upto, const struct vfs_effect *effects, size_t n, struct wire_err *err)
{
	int rc = WIRE_OK;

	pthread_mutex_lock(&l->mu);
	for (size_t i = 0; i < n && !rc; i++) {
		if (effects[i].index <= l->index)
			continue;
		rc = apply_one(l, &effects[i]);
		if (!rc)
			l->index = effects[i].index;
	}
	if (!rc && upto > l->index)
		l->index = upto;
	pthread_mutex_unlock(&l->mu);
	return rc ? wire_fail(err, rc, "no memory for the ledger") : WIRE_OK;
}

bool shell_ledger_declare_whole(struct shell_ledger *l)
{
	bool was;

	pthread_mutex_lock(&l->mu);
	was = l->whole;
	l->whole = true;
	pthread_mutex_unlock(&l->mu);
	return !was;
}

/* ---- questions ---- */

/* Did the term of that id have no entry above the id's index? By the first entry of the next term; mu. */
static bool had_none_above(const struct shell_ledger *l, const struct shell_txid *id)
{
	for (uint32_t i = 0; i < l->n_terms; i++)
		if (l->terms[i].term > id->term)
			return l->terms[i].first <= id->index + 1;
	return false;
}

enum shell_outcome shell_ledger_outcome(struct shell_ledger *l, const uint8_t txid[VFS_TXID_BYTES], bool settled, uint64_t *ret_index)
{
	enum shell_outcome outcome = SHELL_OUTCOME_OPEN;
	const struct ledger_id *found;
	struct shell_txid id;

	shell_txid_get(txid, &id);
	pthread_mutex_lock(&l->mu);
	found = ledger_ids_find(&l->ids, txid);
	if (found) {
		outcome = SHELL_OUTCOME_COMMITTED;
		*ret_index = found->index;
	} else if (settled || l->term > id.term) {
		outcome = id.index >= l->from || had_none_above(l, &id) ? SHELL_OUTCOME_LOST : SHELL_OUTCOME_TOO_OLD;
	}
	pthread_mutex_unlock(&l->mu);
	return outcome;
}

int shell_ledger_session(struct shell_ledger *l, const uint8_t *id, size_t len, struct shell_session *ret_session, struct wire_err *err)
{
	const struct ledger_session *found;
	int rc = WIRE_OK;

	pthread_mutex_lock(&l->mu);
	found = ledger_sessions_find(&l->sessions, id, len);
	if (found)
		*ret_session = found->s;
	else if (!l->whole)
		rc = wire_fail(err, WIRE_UNSUPPORTED, "the ledger of this node was lost, and it cannot tell which steps were applied before; use another node, and let this one join again (or walraft adopt, when there is no other)");
	else if (l->sessions.n >= SHELL_LEDGER_SESSIONS_MAX)
		rc = wire_fail(err, WIRE_FULL, "there are %u clients already, which is the most; they are forgotten when their idle timeouts have passed", SHELL_LEDGER_SESSIONS_MAX);
	else
		*ret_session = (struct shell_session){ 0 };
	pthread_mutex_unlock(&l->mu);
	return rc;
}

void shell_ledger_state(struct shell_ledger *l, struct shell_ledger_state *ret_state)
{
	pthread_mutex_lock(&l->mu);
	*ret_state = (struct shell_ledger_state){ .index = l->index, .term = l->term, .time_us = l->time_us, .from = l->from, .checksum = ledger_checksum(l),
		                                  .terms = l->n_terms, .ids = l->ids.n, .sessions = l->sessions.n, .whole = l->whole };
	ret_state->memory_bytes = sizeof *l + l->cap_terms * sizeof *l->terms + l->ids.cap * (sizeof *l->ids.slot + 2 * sizeof(uint32_t)) + ledger_sessions_memory(&l->sessions);
	ret_state->file_bytes = l->file_bytes;
	pthread_mutex_unlock(&l->mu);
}
