/* Finds out, from the files alone, what the journal holds, and cuts a torn tail: raft/JOURNAL.md, "Recovery". */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int raft_jrn_damaged(const struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const char *what, struct wire_err *err)
{
	return wire_fail(err, WIRE_CORRUPT, "journal %s, segment %016llu.seg, offset %u: %s. The disk or another program changed what "
	                 "was durable; nothing was cut. Rebuild this node from its peers (remove the database and its -walraft directory here, "
	                 "walraft join), or restore the file from a copy", r->j->dir, (unsigned long long)no, off, what);
}

int raft_jrn_compare_nos(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

bool raft_jrn_is_there(const struct raft_jrn_recovery *r, uint64_t no)
{
	return r->n_nos && bsearch(&no, r->nos, r->n_nos, sizeof(*r->nos), raft_jrn_compare_nos);
}

int raft_jrn_open_file(const struct raft_jrn_recovery *r, uint64_t no, struct wire_file **ret_file, struct wire_err *err)
{
	char path[RAFT_JRN_PATH_MAX];

	raft_jrn_path(r->j, no, path);
	return r->j->env->open(r->j->env->ctx, path, WIRE_OPEN_WRITE, ret_file, err);
}

/* Reads a file, or its first `limit` bytes, into buf; zeros stand for what is missing up to the size in its header. */
static int load_file(struct raft_jrn_recovery *r, struct wire_file *f, uint64_t no, uint32_t limit, struct wire_err *err)
{
	const struct wire_env *env = r->j->env;
	struct raft_jrn_header h;
	uint64_t size;
	size_t got;
	int rc = env->size(env->ctx, f, &size, err);

	if (rc)
		return rc;
	if (size > RAFT_JRN_SEGMENT_MAX)
		return raft_jrn_damaged(r, no, 0, "the file is larger than a segment can be", err);
	r->file_size = (uint32_t)size;
	uint32_t n = size < limit ? (uint32_t)size : limit;
	if (!raft_jrn_grow((void **)&r->buf, &r->cap, 0, n + RAFT_JRN_SECTOR, 1))
		return wire_fail(err, WIRE_NOMEM, "no memory to read a journal segment");
	rc = env->read(env->ctx, f, r->buf, n, 0, &got, err);
	if (rc)
		return rc;
	r->size = (uint32_t)got;
	if (limit == UINT32_MAX && !raft_jrn_get_header(r->buf, got, no, &h, NULL) && h.segment_bytes > got) {
		if (!raft_jrn_grow((void **)&r->buf, &r->cap, 0, h.segment_bytes, 1))
			return wire_fail(err, WIRE_NOMEM, "no memory to read a journal segment");
		memset(r->buf + got, 0, h.segment_bytes - got);
		r->size = h.segment_bytes;
	}
	return WIRE_OK;
}

static int load(struct raft_jrn_recovery *r, uint64_t no, uint32_t limit, struct wire_err *err)
{
	struct wire_file *f;
	int rc = raft_jrn_open_file(r, no, &f, err);

	if (rc)
		return rc;
	rc = load_file(r, f, no, limit, err);
	r->j->env->close(r->j->env->ctx, f);
	return rc;
}

static void claim_record(struct raft_jrn_claims *c, const struct raft_jrn_rec *rec)
{
	raft_jrn_raise(&c->synced, rec->synced);
	raft_jrn_raise(&c->commit, rec->commit);
	if (rec->type == RAFT_JRN_TRIM)
		raft_jrn_raise(&c->oldest, wire_le64(rec->payload));
}

static void claim_header(struct raft_jrn_claims *c, const struct raft_jrn_header *h)
{
	raft_jrn_raise(&c->synced, h->synced);
	raft_jrn_raise(&c->commit, h->commit);
	raft_jrn_raise(&c->oldest, h->oldest);
}

static void candidate(struct raft_jrn_recovery *r, uint64_t no)
{
	if (no >= r->floor && (!r->oldest || no < r->oldest))
		r->oldest = no;
}

/* Looks for valid heads at every place from `from` on in the segment that was read. */
static void sweep(struct raft_jrn_recovery *r, uint64_t no, uint32_t from)
{
	struct raft_jrn_header h;
	struct raft_jrn_rec rec;

	r->claims.end = 0;
	if (from == 0 && !raft_jrn_get_header(r->buf, r->size, no, &h, NULL)) {
		claim_header(&r->claims, &h);
		r->claims.end = h.bytes;
	}
	for (uint32_t off = from; off < r->size; off += 8) {
		if (!raft_jrn_parse(r->buf + off, r->size - off, r->j->group, no, off, &rec))
			continue;
		claim_record(&r->claims, &rec);
		if (!r->j->n_segs && rec.type == RAFT_JRN_TRIM)
			candidate(r, wire_le64(rec.payload));
		r->claims.end = off + rec.total;
	}
}

static int read_headers(struct raft_jrn_recovery *r, struct wire_err *err)
{
	struct raft_jrn_header h;
	struct wire_err e;
	size_t valid = 0;

	for (size_t i = 0; i < r->n_nos; i++) {
		int rc = load(r, r->nos[i], RAFT_JRN_HEADER_MAX, err);
		if (rc)
			return rc;
		rc = raft_jrn_get_header(r->buf, r->size, r->nos[i], &h, &e);
		if (rc == WIRE_VERSION) {
			if (err)
				*err = e;
			return rc;
		}
		if (rc)
			continue;
		if (h.group != r->j->group)
			return wire_fail(err, WIRE_FOREIGN, "journal %s belongs to group %016llx, not to %016llx; it was copied from another "
			                 "database", r->j->dir, (unsigned long long)h.group, (unsigned long long)r->j->group);
		candidate(r, h.oldest);
		valid++;
	}
	return valid ? WIRE_OK : raft_jrn_damaged(r, r->nos[0], 0, "no segment has a valid header", err);
}

int raft_jrn_find_oldest(struct raft_jrn_recovery *r, struct wire_err *err)
{
	size_t k = r->n_nos - 1;

	while (k && r->nos[k - 1] == r->nos[k] - 1)
		k--;
	r->floor = r->nos[k];
	int rc = read_headers(r, err);
	/* Files below the first one are gone: only after a trim that is durable. Which of those that are found that was is
	 * not known yet, so the lowest that the files allow is taken; replaying comes to the later ones. */
	for (size_t i = k; i < r->n_nos && !rc && r->oldest != r->floor; i++) {
		rc = load(r, r->nos[i], UINT32_MAX, err);
		if (!rc)
			sweep(r, r->nos[i], 0);
	}
	r->claims = (struct raft_jrn_claims){ 0 };
	if (!rc && !r->oldest)
		rc = raft_jrn_damaged(r, r->floor - 1, 0, "this segment is missing", err);
	return rc;
}

static bool keep_publication(struct raft_journal *j, const struct raft_journal_publication *p)
{
	if (!raft_jrn_grow((void **)&j->open_pubs, &j->cap_open_pubs, j->n_open_pubs, 1, sizeof(*j->open_pubs)))
		return false;
	j->open_pubs[j->n_open_pubs++] = *p;
	return true;
}

/* A database at or above the mark is found by what was published from there on, and one before it. */
static void drop_old_publications(struct raft_journal *j)
{
	size_t k = 0;

	while (k < j->n_open_pubs && j->open_pubs[k].index < j->log.mark.index)
		k++;
	k -= k > 0;
	if (k)
		memmove(j->open_pubs, j->open_pubs + k, (j->n_open_pubs - k) * sizeof(*j->open_pubs));
	j->n_open_pubs -= k;
}

static int replay_entry(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const struct raft_jrn_rec *rec, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	uint64_t last = raft_jrn_log_last(&j->log);
	bool is_config = rec->kind == WIRE_ENTRY_CONFIG;
	struct raft_config c;

	if (rec->kind > WIRE_ENTRY_CONFIG || rec->index_low != (uint32_t)(last + 1) || rec->term < raft_jrn_log_term(&j->log, last))
		return raft_jrn_damaged(r, no, off, "the entry does not follow the one before it", err);
	if (is_config && raft_config_get(rec->data, rec->size, &c, err))
		return wire_context(err, "journal %s, entry %llu", j->dir, (unsigned long long)last + 1);
	if (!raft_jrn_log_reserve(&j->log, 1, is_config) ||
	    !raft_jrn_grow((void **)&j->open_entries, &j->cap_open_entries, j->n_open_entries, 1, sizeof(*j->open_entries)))
		return wire_fail(err, WIRE_NOMEM, "no memory for the journal's entries");
	struct raft_jrn_at at = { .seg = (uint32_t)no, .off = off, .size = rec->size };
	raft_jrn_log_append(&j->log, rec->term, at, is_config ? &c : NULL);
	j->open_entries[j->n_open_entries++] = (struct wire_entry){ .index = last + 1, .term = rec->term, .kind = rec->kind,
		                                                    .size = rec->size, .sum = rec->sum };
	return WIRE_OK;
}

static int replay_truncate(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, uint64_t from, struct wire_err *err)
{
	struct raft_journal *j = r->j;

	if (from <= j->log.base_index || from > raft_jrn_log_last(&j->log))
		return raft_jrn_damaged(r, no, off, "the truncation names an entry that is not there", err);
	raft_jrn_log_truncate(&j->log, from);
	j->n_open_entries = j->log.n;
	return WIRE_OK;
}

static int replay_record(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const struct raft_jrn_rec *rec, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_log *l = &j->log;
	struct raft_journal_publication p;

	switch (rec->type) {
	case RAFT_JRN_ENTRY:
		return replay_entry(r, no, off, rec, err);
	case RAFT_JRN_TRUNCATE:
		return replay_truncate(r, no, off, wire_le64(rec->payload), err);
	case RAFT_JRN_VOTE:
		if (wire_le64(rec->payload) < l->term)
			return raft_jrn_damaged(r, no, off, "the term goes back", err);
		l->term = wire_le64(rec->payload);
		l->vote = wire_le64(rec->payload + 8);
		break;
	case RAFT_JRN_PUBLICATION:
		raft_jrn_get_publication(rec->payload, &p);
		if (p.index > raft_jrn_log_last(l))
			return raft_jrn_damaged(r, no, off, "the publication names an entry that is not there", err);
		if (!keep_publication(j, &p))
			return wire_fail(err, WIRE_NOMEM, "no memory for the journal's publications");
		raft_jrn_log_published(l, &p);
		raft_jrn_raise(&j->commit_seen, p.index);
		break;
	case RAFT_JRN_MARK:
		l->mark.index = wire_le64(rec->payload);
		l->mark.checksum = wire_le64(rec->payload + 8);
		l->mark.db_pages = wire_le32(rec->payload + 16);
		if (l->mark.index > raft_jrn_log_last(l))
			return raft_jrn_damaged(r, no, off, "the checkpoint mark names an entry that is not there", err);
		raft_jrn_raise(&j->commit_seen, l->mark.index);
		drop_old_publications(j);
		break;
	}
	return WIRE_OK;
}

static int begin_segment(struct raft_jrn_recovery *r, const struct raft_jrn_header *h, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_log *l = &j->log;

	if (!j->n_segs) {
		l->base_index = h->first_index - 1;
		l->base_term = h->prev_term;
		l->base_config = h->config;
		l->term = h->term;
		l->vote = h->vote;
		l->mark = h->mark;
		for (uint32_t i = 0; i < h->n_pubs; i++) {
			raft_jrn_log_published(l, &h->pubs[i]);
			if (!keep_publication(j, &h->pubs[i]))
				return wire_fail(err, WIRE_NOMEM, "no memory for the journal's publications");
		}
		raft_jrn_raise(&j->commit_seen, l->base_index);
	} else if (h->first_index != raft_jrn_log_last(l) + 1 || h->prev_term != raft_jrn_log_term(l, raft_jrn_log_last(l)) ||
	           h->term != l->term || h->vote != l->vote) {
		return raft_jrn_damaged(r, h->no, 0, "the segment does not follow the one before it", err);
	}
	claim_header(&r->claims, h);
	raft_jrn_raise(&j->commit_seen, h->commit);
	return WIRE_OK;
}

/* Replays one segment. *ret_off: where its valid records end, 0 when its header is not valid; *ret_ended: by a segment end,
 * which lies there. */
static int replay_segment(struct raft_jrn_recovery *r, uint64_t no, uint32_t *ret_off, bool *ret_ended, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_seg *s = calloc(1, sizeof(*s));
	struct raft_jrn_header h;
	struct raft_jrn_rec rec;

	if (!s)
		return wire_fail(err, WIRE_NOMEM, "no memory for a journal segment");
	int rc = raft_jrn_open_file(r, no, &s->file, err);
	if (!rc)
		rc = load_file(r, s->file, no, UINT32_MAX, err);
	*ret_off = 0;
	*ret_ended = false;
	if (rc || raft_jrn_get_header(r->buf, r->size, no, &h, NULL)) {
		raft_jrn_seg_free(j, s);
		return rc;
	}
	rc = begin_segment(r, &h, err);
	if (!rc && !raft_jrn_segs_push(j, s))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for the list of segments");
	if (rc) {
		raft_jrn_seg_free(j, s);
		return rc;
	}
	s->no = no;
	s->size = h.segment_bytes;
	s->recycled = h.recycled;
	s->first_index = h.first_index;
	uint32_t off = h.bytes;
	while (off + RAFT_JRN_REC_HEAD <= h.segment_bytes &&
	       raft_jrn_parse(r->buf + off, h.segment_bytes - off, j->group, no, off, &rec) && raft_jrn_data_ok(&rec)) {
		if (rec.type == RAFT_JRN_END) {
			claim_record(&r->claims, &rec);
			*ret_ended = true;
			break;
		}
		rc = replay_record(r, no, off, &rec, err);
		if (rc)
			return rc;
		claim_record(&r->claims, &rec);
		raft_jrn_raise(&j->commit_seen, rec.commit);
		off += rec.total;
	}
	*ret_off = off;
	return WIRE_OK;
}

/* Decides whether what is bad at (no, off) may be cut. On return claims cover all that is recognised after it. */
static int judge(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, struct wire_err *err)
{
	uint64_t last = raft_jrn_log_last(&r->j->log);

	if (r->claims.synced > raft_jrn_pos(no, off))
		return raft_jrn_damaged(r, no, off, raft_jrn_is_there(r, no) ? "a record that was durable is not valid" : "this segment is missing", err);
	if (r->claims.commit > last)
		return raft_jrn_damaged(r, no, off, "a record of committed entries is not valid", err);
	return WIRE_OK;
}

/* Drops the files above segment `no`, highest first, but for an unbegun one that comes next. A dropped one is never
 * reused: its number will be, and its records would be valid again. */
static int drop_later(struct raft_jrn_recovery *r, uint64_t no, uint64_t *cut_bytes, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	const struct wire_env *env = j->env;
	int rc = WIRE_OK;

	while (!rc && r->n_nos && r->nos[r->n_nos - 1] > no) {
		uint64_t at = r->nos[r->n_nos - 1];
		rc = load(r, at, UINT32_MAX, err);
		if (rc)
			break;
		sweep(r, at, 0);
		*cut_bytes += r->claims.end;
		if (at == no + 1 && !r->claims.end && raft_jrn_may_follow(j, r->file_size, raft_jrn_current(j)->size)) {
			struct raft_jrn_seg *s = calloc(1, sizeof(*s));
			if (!s)
				return wire_fail(err, WIRE_NOMEM, "no memory for a journal segment");
			*s = (struct raft_jrn_seg){ .no = at, .size = r->file_size, .recycled = true };
			rc = raft_jrn_open_file(r, at, &s->file, err);
			if (rc)
				free(s);
			else
				j->next = s;
		} else {
			char path[RAFT_JRN_PATH_MAX];
			raft_jrn_path(j, at, path);
			rc = env->unlink(env->ctx, path, err);
			if (!rc)
				rc = env->sync_dir(env->ctx, j->dir, err);
		}
		r->n_nos--;
	}
	return rc;
}

/* Overwrites what is recognised behind the end of the log in the last segment. */
static int clean_tail(struct raft_jrn_recovery *r, uint32_t off, uint64_t *cut_bytes, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_seg *s = raft_jrn_current(j);
	int rc = load_file(r, s->file, s->no, UINT32_MAX, err);

	if (rc)
		return rc;
	sweep(r, s->no, off);
	uint32_t end = r->claims.end, to;
	if (!s->recycled)
		for (uint32_t i = r->size; i > off && i > end; i--)
			if (r->buf[i - 1]) {
				end = i;
				break;
			}
	if (end > off)
		*cut_bytes += end - off;
	to = end > off ? end : off;
	if (r->file_size < s->size)
		to = s->size; /* preallocates it again */
	return raft_jrn_zero(j->env, s->file, off, to, err);
}

int raft_jrn_replay(struct raft_jrn_recovery *r, uint64_t *ret_cut_bytes, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	uint64_t no = r->oldest, cut = 0;
	uint32_t off = 0, end = 0;
	bool ended = true;
	int rc = WIRE_OK;

	for (; ended && raft_jrn_is_there(r, no); no++) {
		rc = replay_segment(r, no, &off, &ended, err);
		if (rc)
			return rc;
		if (!off)
			break; /* not begun, or not valid */
		end = off;
		if (!ended)
			break;
		off = 0;
	}
	/* Now the first thing that is not valid lies at (no, off), the log ends at `end` in the last segment replayed. */
	if (!j->n_segs)
		return raft_jrn_damaged(r, no, 0, "the oldest segment has no valid header", err);
	const struct raft_jrn_claims said = r->claims; /* by what stays */
	if (off)
		sweep(r, no, off);
	for (size_t i = 0; i < r->n_nos; i++) {
		if (r->nos[i] < no || (off && r->nos[i] == no))
			continue;
		rc = load(r, r->nos[i], UINT32_MAX, err);
		if (rc)
			return rc;
		sweep(r, r->nos[i], 0);
	}
	rc = judge(r, no, off, err);
	if (!rc)
		rc = drop_later(r, raft_jrn_current(j)->no, &cut, err);
	if (!rc)
		rc = clean_tail(r, end, &cut, err);
	if (rc)
		return rc;
	r->claims = said;
	for (size_t i = 0; i < j->n_segs && !rc; i++)
		if (j->segs[i]->no >= said.synced >> 32)
			rc = j->env->sync(j->env->ctx, j->segs[i]->file, err);
	if (!rc)
		rc = j->env->sync_dir(j->env->ctx, j->dir, err);
	if (rc)
		return rc;
	j->off = end;
	j->synced = raft_jrn_pos(raft_jrn_current(j)->no, end);
	j->synced_said = r->claims.synced;
	j->dirty_from = raft_jrn_current(j)->no;
	j->durable_index = raft_jrn_log_last(&j->log);
	j->commit_said = r->claims.commit;
	*ret_cut_bytes = cut;
	return WIRE_OK;
}
