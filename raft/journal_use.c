/* Reading, trimming, upkeep. */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char *raft_journal_event_name(enum raft_journal_event event)
{
	static const char *const names[RAFT_JOURNAL_EVENTS] = {
		[RAFT_JOURNAL_APPEND] = "append", [RAFT_JOURNAL_COMMIT_BUFFER] = "commit-buffer", [RAFT_JOURNAL_FETCH] = "fetch",
		[RAFT_JOURNAL_REVERSE_FIND] = "reverse-find",
		[RAFT_JOURNAL_REWIND] = "rewind", [RAFT_JOURNAL_TRUNCATE] = "truncate", [RAFT_JOURNAL_SYNC] = "sync",
		[RAFT_JOURNAL_FILL] = "fill",
	};

	return (unsigned)event < RAFT_JOURNAL_EVENTS ? names[event] : "?";
}

/* Reads the record of an entry from the disk; no lock is held. */
static int read_entry(const struct raft_journal *j, const struct raft_jrn_seg *s, uint64_t index, struct raft_jrn_at at,
                      struct wire_buf *ret_data, struct wire_entry *ret_entry, struct wire_err *err)
{
	size_t n = RAFT_JRN_REC_HEAD + RAFT_JRN_ENTRY_HEAD + at.size, got;
	struct raft_jrn_rec rec;

	wire_buf_reset(ret_data);
	if (!wire_buf_reserve(ret_data, n))
		return wire_fail(err, WIRE_NOMEM, "no memory for entry %llu of %u bytes", (unsigned long long)index, at.size);
	int rc = j->env->read(j->env->ctx, s->file, ret_data->data, n, at.off, &got, err);
	if (rc)
		return rc;
	/* Opening takes zeros for what a shortened file lacks, too. */
	memset(ret_data->data + got, 0, n - got);
	if (!at.off || !raft_jrn_parse(ret_data->data, n, j->group, at.seg, at.off, &rec) || !raft_jrn_has_data(rec.type) ||
	    rec.size != at.size || rec.index_low != (uint32_t)index || !raft_jrn_data_ok(&rec))
		return wire_fail(err, WIRE_CORRUPT, "entry %llu in segment %u of journal %s at offset %u is damaged: the disk or another "
		                 "program changed it; at its next start this node fetches it from its peers", (unsigned long long)index,
		                 at.seg, j->dir, at.off);
	/* The caller's buffer holds just the data. */
	memmove(ret_data->data, rec.data, rec.size);
	ret_data->len = rec.size;
	*ret_entry = (struct wire_entry){ .index = index, .term = rec.term, .kind = rec.kind, .size = rec.size,
		                          .sum = rec.sum, .data = rec.size ? ret_data->data : NULL };
	return WIRE_OK;
}

int raft_journal_read(struct raft_journal *j, uint64_t index, struct wire_buf *ret_data, struct wire_entry *ret_entry,
                      struct wire_err *err)
{
	pthread_mutex_lock(&j->mu);
	uint64_t base = j->log.base_index, last = raft_jrn_log_last(&j->log);
	if (index <= base || index > last) {
		pthread_mutex_unlock(&j->mu);
		return wire_fail(err, WIRE_NOTFOUND, "entry %llu is not in journal %s, which has %llu to %llu",
		                 (unsigned long long)index, j->dir, (unsigned long long)base + 1, (unsigned long long)last);
	}
	struct raft_jrn_at at = j->log.at[j->log.head + (size_t)(index - base - 1)];
	struct raft_jrn_seg *s = raft_jrn_seg_find(j, at.seg);
	assert(s);
	s->refs++;
	pthread_mutex_unlock(&j->mu);
	int rc = read_entry(j, s, index, at, ret_data, ret_entry, err);
	pthread_mutex_lock(&j->mu);
	s->refs--;
	raft_jrn_tell(j, RAFT_JOURNAL_FETCH, index, at.size);
	pthread_mutex_unlock(&j->mu);
	return rc;
}

/* Position of the oldest segment that a trim to index keeps. */
static size_t oldest_kept(const struct raft_journal *j, uint64_t index)
{
	uint64_t low = UINT64_MAX;
	size_t k;

	/* A segment may be the oldest when the log below its first index never changed again. */
	for (k = j->n_segs; --k > 0;) {
		uint64_t first = j->segs[k]->first_index;
		if (first <= low && first - 1 <= index && first - 1 <= raft_jrn_log_last(&j->log) && !j->segs[k]->lost_header)
			break;
		low = first < low ? first : low;
	}
	return k;
}

uint64_t raft_journal_trim_base(struct raft_journal *j, uint64_t index)
{
	pthread_mutex_lock(&j->mu);
	size_t k = oldest_kept(j, index);
	uint64_t base = k && j->segs[k]->first_index - 1 > j->log.base_index ? j->segs[k]->first_index - 1 : j->log.base_index;
	pthread_mutex_unlock(&j->mu);
	return base;
}

int raft_journal_trim(struct raft_journal *j, uint64_t index, struct wire_err *err)
{
	struct wire_err cause;
	uint8_t payload[8];
	size_t k;
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	if (index > j->log.mark.index)
		return raft_jrn_refuse_append(j, wire_fail(err, WIRE_INVALID, "cannot trim the journal to %llu: the latest checkpoint mark is at %llu",
		                                  (unsigned long long)index, (unsigned long long)j->log.mark.index));
	k = oldest_kept(j, index);
	raft_jrn_tell(j, RAFT_JOURNAL_REVERSE_FIND, index, k ? j->segs[k]->first_index - 1 : j->log.base_index);
	if (!k)
		return raft_jrn_refuse_append(j, WIRE_OK);
	wire_set_le64(payload, j->segs[k]->no);
	rc = raft_jrn_append_small(j, RAFT_JRN_TRIM, 0, payload, sizeof(payload), &cause);
	if (!rc && !raft_jrn_retire(j, k))
		rc = wire_fail(&cause, WIRE_NOMEM, "no memory for the list of segments");
	return raft_jrn_end_append(j, rc, &cause, err);
}

int raft_jrn_say_oldest(struct raft_journal *j, struct wire_err *err)
{
	struct wire_err cause;
	uint8_t payload[8];
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	wire_set_le64(payload, j->segs[0]->no);
	rc = raft_jrn_append_small(j, RAFT_JRN_TRIM, 0, payload, sizeof(payload), &cause);
	return raft_jrn_end_append(j, rc, &cause, err);
}

size_t raft_journal_holes(struct raft_journal *j)
{
	pthread_mutex_lock(&j->mu);
	size_t n = j->log.n_holes;
	pthread_mutex_unlock(&j->mu);
	return n;
}

uint64_t raft_journal_base(struct raft_journal *j)
{
	pthread_mutex_lock(&j->mu);
	uint64_t base = j->log.base_index;
	pthread_mutex_unlock(&j->mu);
	return base;
}

uint64_t raft_journal_term(struct raft_journal *j, uint64_t index)
{
	pthread_mutex_lock(&j->mu);
	bool there = index >= j->log.base_index && index <= raft_jrn_log_last(&j->log);
	uint64_t term = there ? raft_jrn_log_term(&j->log, index) : 0;
	pthread_mutex_unlock(&j->mu);
	return term;
}

int raft_journal_start_at(struct raft_journal *j, uint64_t index, struct raft_journal_start *ret_start, struct wire_err *err)
{
	pthread_mutex_lock(&j->mu);
	bool there = index >= j->log.base_index && index <= raft_jrn_log_last(&j->log);
	if (there) {
		ret_start->term = j->log.term;
		ret_start->base_index = index;
		ret_start->base_term = raft_jrn_log_term(&j->log, index);
		ret_start->base_config = *raft_jrn_log_config(&j->log, index);
	}
	pthread_mutex_unlock(&j->mu);
	return there ? WIRE_OK : wire_fail(err, WIRE_NOTFOUND, "entry %llu is not in journal %s", (unsigned long long)index, j->dir);
}

/* Says in a record what is durable, so that recovery knows it without another sync. */
static int say_synced(struct raft_journal *j, struct wire_err *err)
{
	struct wire_err cause;
	int rc = raft_jrn_begin_append(j, err);

	if (rc)
		return rc;
	if (j->synced_said < j->synced || j->commit_said < raft_jrn_sayable_commit(j))
		rc = raft_jrn_append_small(j, RAFT_JRN_SYNC, 0, NULL, 0, &cause);
	return raft_jrn_end_append(j, rc, &cause, err);
}

/* How far the current segment is filled before the next one is prepared. A young journal stays small until it is written
 * to; one that has grown is written to, and gets most of a segment's time for the preparation. */
static uint32_t prepare_above(const struct raft_journal *j)
{
	uint32_t size = raft_jrn_current(j)->size;

	return size < j->segment_bytes ? size / 2 : size / 4;
}

int raft_journal_upkeep(struct raft_journal *j, struct wire_err *err)
{
	bool must_sync = false, must_say;
	int rc = WIRE_OK;

	pthread_mutex_lock(&j->mu);
	must_say = j->synced_said < j->synced || j->commit_said < raft_jrn_sayable_commit(j);
	for (size_t i = 0; i < j->n_retired; i++)
		must_sync |= j->retired[i]->free_after > j->synced;
	pthread_mutex_unlock(&j->mu);
	if (must_say)
		rc = say_synced(j, err);
	if (!rc && must_sync)
		rc = raft_journal_sync(j, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&j->mu);
	if (j->failed)
		rc = raft_jrn_report(j, err);
	else if (!j->next && !j->preparing && j->off > prepare_above(j))
		rc = raft_jrn_prepare(j, 0, err);
	if (!rc)
		rc = raft_jrn_remove_retired(j, err);
	pthread_mutex_unlock(&j->mu);
	return rc;
}

void raft_journal_stats(struct raft_journal *j, struct raft_journal_stats *ret_stats)
{
	pthread_mutex_lock(&j->mu);
	struct raft_journal_stats s = { .bytes_appended = j->bytes_appended, .syncs = j->syncs, .entries = j->entries };
	for (size_t i = 0; i < j->n_segs; i++)
		s.disk_bytes += j->segs[i]->size;
	for (size_t i = 0; i < j->n_retired; i++)
		s.disk_bytes += j->retired[i]->size;
	if (j->next)
		s.disk_bytes += j->next->size;
	pthread_mutex_unlock(&j->mu);
	*ret_stats = s;
}

void raft_journal_close(struct raft_journal *j)
{
	if (!j)
		return;
	if (!j->failed && j->n_segs && !raft_journal_sync(j, NULL) && !say_synced(j, NULL))
		raft_journal_sync(j, NULL);
	raft_jrn_forget_open_state(j);
	for (size_t i = 0; i < j->n_segs; i++)
		raft_jrn_seg_free(j, j->segs[i]);
	for (size_t i = 0; i < j->n_retired; i++)
		raft_jrn_seg_free(j, j->retired[i]);
	raft_jrn_seg_free(j, j->next);
	free(j->segs);
	free(j->retired);
	raft_jrn_log_free(&j->log);
	wire_buf_free(&j->out);
	pthread_mutex_destroy(&j->wmu);
	pthread_mutex_destroy(&j->mu);
	pthread_cond_destroy(&j->cv);
	free(j->dir);
	free(j);
}
