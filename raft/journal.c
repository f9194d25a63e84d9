/* Append and sync. The bytes are in journal_record.c, opening in journal_recover.c. */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A batch is written in pieces of about this size. */
#define WRITE_PIECE (1u << 20)

static int set_failed(struct raft_journal *j, const struct wire_err *cause)
{
	if (!j->failed) {
		j->failed = true;
		j->failure = *cause;
		wire_context(&j->failure, "journal %s can no longer be written; restart the node once the cause is removed", j->dir);
	}
	return j->failure.code;
}

int raft_jrn_report(const struct raft_journal *j, struct wire_err *err)
{
	if (err)
		*err = j->failure;
	return j->failure.code;
}

void raft_jrn_forget_open_state(struct raft_journal *j)
{
	free(j->open_entries);
	free(j->open_pubs);
	free(j->open_holes);
	j->open_entries = NULL;
	j->open_pubs = NULL;
	j->open_holes = NULL;
	j->n_open_entries = j->cap_open_entries = j->n_open_pubs = j->cap_open_pubs = 0;
}

int raft_jrn_begin_append(struct raft_journal *j, struct wire_err *err)
{
	pthread_mutex_lock(&j->wmu);
	pthread_mutex_lock(&j->mu);
	if (j->failed) {
		int rc = raft_jrn_report(j, err);
		pthread_mutex_unlock(&j->mu);
		pthread_mutex_unlock(&j->wmu);
		return rc;
	}
	raft_jrn_forget_open_state(j);
	wire_buf_reset(&j->out);
	return WIRE_OK;
}

int raft_jrn_end_append(struct raft_journal *j, int rc, const struct wire_err *cause, struct wire_err *err)
{
	if (rc) {
		set_failed(j, cause);
		rc = raft_jrn_report(j, err);
		pthread_cond_broadcast(&j->cv);
	}
	pthread_mutex_unlock(&j->mu);
	pthread_mutex_unlock(&j->wmu);
	return rc;
}

int raft_jrn_refuse_append(struct raft_journal *j, int rc)
{
	pthread_mutex_unlock(&j->mu);
	pthread_mutex_unlock(&j->wmu);
	return rc;
}

static int flush(struct raft_journal *j, struct wire_err *err)
{
	if (j->out.failed)
		return wire_fail(err, WIRE_NOMEM, "no memory for %zu bytes of journal records", j->out.len);
	if (!j->out.len)
		return WIRE_OK;
	int rc = j->env->write(j->env->ctx, raft_jrn_current(j)->file, j->out.data, j->out.len, j->off, err);
	if (rc)
		return rc;
	j->off += (uint32_t)j->out.len;
	j->bytes_appended += j->out.len;
	raft_jrn_tell(j, RAFT_JOURNAL_COMMIT_BUFFER, j->out.len, j->off - j->out.len);
	wire_buf_reset(&j->out);
	return WIRE_OK;
}

/* On return a record of `bytes` fits behind what is in `out`. */
static int make_room(struct raft_journal *j, uint32_t bytes, bool entry, struct wire_err *err)
{
	int rc = WIRE_OK;

	for (int turn = 0; !rc; turn++) {
		const struct raft_jrn_seg *cur = raft_jrn_current(j);
		uint64_t end = (uint64_t)j->off + j->out.len + bytes + RAFT_JRN_END_BYTES;
		/* After a truncation into an older segment: entries go on in a segment whose header says where, so that
		 * older ones can be trimmed. */
		bool behind = entry && raft_jrn_log_last(&j->log) + 1 < cur->first_index;
		if (end <= cur->size && !behind) {
			if (j->out.len + bytes > WRITE_PIECE)
				rc = flush(j, err);
			return rc;
		}
		if (turn == 2)
			return wire_fail(err, WIRE_TOOBIG, "a record of %u bytes does not fit into a segment of %u", bytes, cur->size);
		rc = flush(j, err);
		if (!rc)
			rc = raft_jrn_roll(j, bytes, err);
	}
	return rc;
}

static void put_record(struct raft_journal *j, struct raft_jrn_rec *rec)
{
	const struct raft_jrn_seg *cur = raft_jrn_current(j);

	rec->synced = j->synced;
	rec->commit = raft_jrn_sayable_commit(j);
	raft_jrn_put(&j->out, j->group, cur->no, j->off + (uint32_t)j->out.len, rec);
	j->synced_said = j->synced;
	if (rec->commit > j->commit_said)
		j->commit_said = rec->commit;
}

int raft_jrn_append_small(struct raft_journal *j, uint8_t type, uint8_t kind, const void *payload, uint32_t length, struct wire_err *err)
{
	struct raft_jrn_rec rec = { .type = type, .kind = kind, .payload = payload, .length = length };
	int rc = make_room(j, raft_jrn_align(RAFT_JRN_REC_HEAD + length), false, err);

	if (rc)
		return rc;
	put_record(j, &rec);
	return flush(j, err);
}

/* The largest record of an entry or a fill. */
static uint32_t entry_room(const struct raft_journal *j)
{
	return j->segment_bytes - RAFT_JRN_SECTOR * 2 - RAFT_JRN_END_BYTES;
}

/* Nothing here changes the journal, so that what is refused has left no trace. */
static int check_entries(const struct raft_journal *j, const struct wire_entry *entries, uint32_t n, size_t *ret_configs,
                         struct wire_err *err)
{
	uint64_t index = raft_jrn_log_last(&j->log), term = raft_jrn_log_term(&j->log, index);
	uint32_t room = entry_room(j);
	size_t configs = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct wire_entry *e = &entries[i];
		if (e->index != ++index || e->term < term || !e->term)
			return wire_fail(err, WIRE_INVALID, "entry %llu of term %llu cannot follow entry %llu of term %llu in the journal",
			                 (unsigned long long)e->index, (unsigned long long)e->term, (unsigned long long)index - 1,
			                 (unsigned long long)term);
		if (e->kind > WIRE_ENTRY_CONFIG || (e->size && !e->data))
			return wire_fail(err, WIRE_INVALID, "entry %llu has kind %u and %s data", (unsigned long long)e->index, e->kind,
			                 e->data ? "its" : "no");
		if (e->size > WIRE_ENTRY_MAX || raft_jrn_entry_bytes(e->size) > room)
			return wire_fail(err, WIRE_TOOBIG, "entry %llu has %u bytes; the journal takes %u", (unsigned long long)e->index,
			                 e->size, room < WIRE_ENTRY_MAX ? room : WIRE_ENTRY_MAX);
		if (e->kind == WIRE_ENTRY_CONFIG) {
			struct raft_config c;
			int rc = raft_config_get(e->data, e->size, &c, err);
			if (rc)
				return rc;
			configs++;
		}
		term = e->term;
	}
	*ret_configs = configs;
	return WIRE_OK;
}

static int append_entry(struct raft_journal *j, const struct wire_entry *e, struct wire_err *err)
{
	struct raft_jrn_rec rec = { .type = RAFT_JRN_ENTRY, .kind = e->kind, .index_low = (uint32_t)e->index,
		                    .term = e->term, .sum = e->sum, .size = e->size, .data = e->data };
	struct raft_config c;
	int rc = make_room(j, raft_jrn_entry_bytes(e->size), true, err);

	if (!rc && e->kind == WIRE_ENTRY_CONFIG)
		rc = raft_config_get(e->data, e->size, &c, err);
	if (rc)
		return rc;
	struct raft_jrn_at at = { .seg = (uint32_t)raft_jrn_current(j)->no, .off = j->off + (uint32_t)j->out.len, .size = e->size };
	put_record(j, &rec);
	raft_jrn_log_append(&j->log, e->term, at, e->kind == WIRE_ENTRY_CONFIG ? &c : NULL);
	j->entries++;
	return WIRE_OK;
}

int raft_journal_append_entries(struct raft_journal *j, const struct wire_entry *entries, uint32_t n, uint64_t commit,
                                struct wire_err *err)
{
	struct wire_err cause;
	size_t configs;
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	rc = check_entries(j, entries, n, &configs, err);
	if (!rc && !raft_jrn_log_reserve(&j->log, n, configs))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for %u more entries", n);
	if (rc)
		return raft_jrn_refuse_append(j, rc);
	if (commit > j->commit_seen)
		j->commit_seen = commit;
	for (uint32_t i = 0; i < n && !rc; i++)
		rc = append_entry(j, &entries[i], &cause);
	if (!rc)
		rc = flush(j, &cause);
	if (n)
		raft_jrn_tell(j, RAFT_JOURNAL_APPEND, entries[0].index, entries[n - 1].index);
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_journal_append_truncate(struct raft_journal *j, uint64_t from, struct wire_err *err)
{
	struct wire_err cause;
	uint8_t payload[8];
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	uint64_t last = raft_jrn_log_last(&j->log), commit = raft_jrn_sayable_commit(j);
	if (from <= j->log.base_index || from <= commit || from > last + 1)
		return raft_jrn_refuse_append(j, wire_fail(err, WIRE_INVALID, "cannot truncate the journal from %llu: it has %llu to %llu, "
		                                  "committed to %llu", (unsigned long long)from,
		                                  (unsigned long long)j->log.base_index + 1, (unsigned long long)last,
		                                  (unsigned long long)commit));
	if (from == last + 1)
		return raft_jrn_refuse_append(j, WIRE_OK);
	uint64_t in = j->log.at[j->log.head + (size_t)(from - j->log.base_index - 1)].seg;
	if (in < raft_jrn_current(j)->no)
		raft_jrn_tell(j, RAFT_JOURNAL_REWIND, from, in);
	raft_jrn_tell(j, RAFT_JOURNAL_TRUNCATE, from, last + 1 - from);
	wire_set_le64(payload, from);
	rc = raft_jrn_append_small(j, RAFT_JRN_TRUNCATE, 0, payload, sizeof(payload), &cause);
	if (!rc) {
		raft_jrn_log_truncate(&j->log, from);
		if (j->durable_index >= from)
			j->durable_index = from - 1;
		if (j->sync_index >= from)
			j->sync_index = from - 1;
	}
	return raft_jrn_end_append(j, rc, &cause, err);
}

/* Hard state, all of it: a later record makes up for the loss of any earlier one. */
static int append_hard(struct raft_journal *j, uint64_t term, uint64_t vote, bool forgetful, struct wire_err *err)
{
	uint8_t payload[16];

	wire_set_le64(payload, term);
	wire_set_le64(payload + 8, vote);
	int rc = raft_jrn_append_small(j, RAFT_JRN_VOTE, forgetful, payload, sizeof(payload), err);
	if (rc)
		return rc;
	j->log.term = term;
	j->log.vote = vote;
	j->log.forgetful = forgetful;
	return WIRE_OK;
}

int raft_journal_append_vote(struct raft_journal *j, uint64_t term, uint64_t vote, struct wire_err *err)
{
	struct wire_err cause;
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	if (term < j->log.term)
		return raft_jrn_refuse_append(j, wire_fail(err, WIRE_INVALID, "term %llu cannot follow term %llu", (unsigned long long)term,
		                                  (unsigned long long)j->log.term));
	rc = append_hard(j, term, vote, j->log.forgetful, &cause);
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_journal_append_forgetful(struct raft_journal *j, bool forgetful, struct wire_err *err)
{
	struct wire_err cause;
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	rc = append_hard(j, j->log.term, j->log.vote, forgetful, &cause);
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_journal_fill(struct raft_journal *j, const struct wire_entry *e, struct wire_err *err)
{
	struct wire_err cause;
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	struct raft_jrn_hole *h = raft_jrn_log_hole(&j->log, e->index);
	if (!h || e->term != raft_jrn_log_term(&j->log, e->index) || e->kind > WIRE_ENTRY_CONFIG || (e->size && !e->data) ||
	    (h->known && (e->kind != h->kind || e->size != h->size || e->sum != h->sum)) || wire_hash(e->data, e->size, 0) != e->sum)
		return raft_jrn_refuse_append(j, wire_fail(err, WIRE_INVALID, "entry %llu of term %llu is not what is missing in the journal",
		                                  (unsigned long long)e->index, (unsigned long long)e->term));
	if (e->size > WIRE_ENTRY_MAX || raft_jrn_entry_bytes(e->size) > entry_room(j))
		return raft_jrn_refuse_append(j, wire_fail(err, WIRE_TOOBIG, "entry %llu has %u bytes; the journal takes %u", (unsigned long long)e->index,
		                                  e->size, entry_room(j)));
	struct raft_jrn_rec rec = { .type = RAFT_JRN_FILL, .kind = e->kind, .index_low = (uint32_t)e->index, .term = e->term, .sum = e->sum,
		                    .size = e->size, .data = e->data };
	rc = make_room(j, raft_jrn_entry_bytes(e->size), false, &cause);
	struct raft_jrn_at at = { .seg = (uint32_t)raft_jrn_current(j)->no, .off = j->off + (uint32_t)j->out.len, .size = e->size };
	if (!rc) {
		put_record(j, &rec);
		rc = flush(j, &cause);
	}
	if (!rc) {
		raft_jrn_log_fill(&j->log, h, at);
		raft_jrn_tell(j, RAFT_JOURNAL_FILL, e->index, e->size);
	}
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_journal_append_commit(struct raft_journal *j, uint64_t commit, struct wire_err *err)
{
	struct wire_err cause;
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	if (commit > j->commit_seen)
		j->commit_seen = commit;
	if (raft_jrn_sayable_commit(j) > j->commit_said)
		rc = raft_jrn_append_small(j, RAFT_JRN_COMMIT, 0, NULL, 0, &cause);
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_journal_append_publication(struct raft_journal *j, const struct raft_journal_publication *p, struct wire_err *err)
{
	struct wire_err cause;
	uint8_t payload[28];
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	if (p->index > raft_jrn_log_last(&j->log))
		return raft_jrn_refuse_append(j, wire_fail(err, WIRE_INVALID, "publication of entry %llu, which the journal does not have",
		                                  (unsigned long long)p->index));
	if (p->index > j->commit_seen)
		j->commit_seen = p->index;
	raft_jrn_put_publication(payload, p);
	rc = raft_jrn_append_small(j, RAFT_JRN_PUBLICATION, 0, payload, sizeof(payload), &cause);
	if (!rc)
		raft_jrn_log_published(&j->log, p);
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_journal_append_mark(struct raft_journal *j, const struct raft_journal_mark *m, struct wire_err *err)
{
	struct wire_err cause;
	uint8_t payload[20];
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	if (m->index > raft_jrn_log_last(&j->log) || m->index < j->log.mark.index)
		return raft_jrn_refuse_append(j, wire_fail(err, WIRE_INVALID, "checkpoint mark at %llu; the journal ends at %llu, the latest "
		                                  "mark is at %llu", (unsigned long long)m->index,
		                                  (unsigned long long)raft_jrn_log_last(&j->log),
		                                  (unsigned long long)j->log.mark.index));
	wire_set_le64(payload, m->index);
	wire_set_le64(payload + 8, m->checksum);
	wire_set_le32(payload + 16, m->db_pages);
	rc = raft_jrn_append_small(j, RAFT_JRN_MARK, 0, payload, sizeof(payload), &cause);
	if (!rc)
		j->log.mark = *m;
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_journal_append_note(struct raft_journal *j, const char *text, struct wire_err *err)
{
	struct wire_err cause;
	size_t n = strnlen(text, RAFT_JRN_NOTE_MAX);
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	rc = raft_jrn_append_small(j, RAFT_JRN_NOTE, 0, text, (uint32_t)n, &cause);
	return raft_jrn_end_append(j, rc, &cause, err);
}

/* A trimmed segment counts until the trim is durable: recovery may begin in it. */
static struct raft_jrn_seg *find_written(const struct raft_journal *j, uint64_t no)
{
	for (size_t i = 0; i < j->n_retired; i++)
		if (j->retired[i]->no == no)
			return j->retired[i];
	return raft_jrn_seg_find(j, no);
}

/* Syncs all that was appended when it began. mu is held, and dropped meanwhile. */
static void run_sync(struct raft_journal *j)
{
	uint64_t no = raft_jrn_current(j)->no, target = raft_jrn_pos(no, j->off), began = j->on_event ? j->env->now_ns(j->env->ctx) : 0;
	struct wire_err cause;
	int rc = WIRE_OK;

	j->syncing = true;
	j->sync_index = raft_jrn_log_last(&j->log);
	for (uint64_t i = j->dirty_from; i <= no && !rc; i++) {
		struct raft_jrn_seg *s = find_written(j, i);
		assert(s);
		s->refs++;
		pthread_mutex_unlock(&j->mu);
		rc = j->env->sync(j->env->ctx, s->file, &cause);
		pthread_mutex_lock(&j->mu);
		s->refs--;
	}
	j->syncing = false;
	if (rc) {
		set_failed(j, &cause);
	} else {
		j->syncs++;
		if (j->on_event)
			raft_jrn_tell(j, RAFT_JOURNAL_SYNC, (j->env->now_ns(j->env->ctx) - began) / 1000, j->sync_index);
		j->dirty_from = no;
		j->synced = target;
		if (j->sync_index > j->durable_index)
			j->durable_index = j->sync_index;
	}
	pthread_cond_broadcast(&j->cv);
}

int raft_journal_sync(struct raft_journal *j, struct wire_err *err)
{
	int rc = WIRE_OK;

	pthread_mutex_lock(&j->mu);
	uint64_t target = raft_jrn_pos(raft_jrn_current(j)->no, j->off);
	while (!j->failed && j->synced < target) {
		if (j->syncing)
			pthread_cond_wait(&j->cv, &j->mu);
		else
			run_sync(j);
	}
	if (j->failed)
		rc = raft_jrn_report(j, err);
	pthread_mutex_unlock(&j->mu);
	return rc;
}
