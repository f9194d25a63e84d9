/* Records in their order, and what is certain in spite of damage among them: raft/JOURNAL.md, "Recovery" and "Damage". */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { TRUNCATION_BYTES = (RAFT_JRN_REC_HEAD + 8 + 7) / 8 * 8 };

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

/* The next entry; size 0 and so on where `hole` says that they are not known. */
static int add_entry(struct raft_jrn_recovery *r, struct raft_jrn_at at, uint64_t term, const struct raft_jrn_hole *what, bool is_hole,
                     const struct raft_config *config, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_hole h = *what;

	h.index = raft_jrn_log_last(&j->log) + 1;
	if (!raft_jrn_log_reserve(&j->log, 1, config != NULL) || (is_hole && !raft_jrn_log_add_hole(&j->log, &h)) ||
	    !raft_jrn_grow((void **)&j->open_entries, &j->cap_open_entries, j->n_open_entries, 1, sizeof(*j->open_entries)))
		return wire_fail(err, WIRE_NOMEM, "no memory for the journal's entries");
	raft_jrn_log_append(&j->log, term, at, config);
	j->open_entries[j->n_open_entries++] =
		(struct wire_entry){ .index = h.index, .term = term, .kind = h.kind, .size = h.size, .sum = h.sum };
	return WIRE_OK;
}

static void truncate_log(struct raft_jrn_recovery *r, uint64_t from)
{
	struct raft_jrn_doubt *d = &r->doubt;

	raft_jrn_log_truncate(&r->j->log, from);
	r->j->n_open_entries = r->j->log.n;
	if (d->config && d->lost_last >= from)
		d->lost_last = from - 1;
	if (!d->hidden_at || from - 1 > d->hidden_last)
		return;
	if (from - 1 >= d->hidden_first) {
		d->config = true;
		d->at = d->hidden_at;
		d->lost_first = d->hidden_first;
		d->lost_last = from - 1;
	}
	d->hidden_at = 0;
}

/* What is in force at the log's end is certain again. But among what was lost there may have been a change and the way back, or what a configuration that
 * is there took the place of; a truncation would tell. */
static void settle_config(struct raft_jrn_recovery *r)
{
	const struct raft_jrn_log *l = &r->j->log;
	struct raft_jrn_doubt *d = &r->doubt;
	uint64_t last = d->lost_last - 1;
	size_t k = 0;

	d->config = false;
	while (k < l->n_configs && l->configs[k].index <= d->lost_last)
		k++;
	if (k < l->n_configs)
		last = l->configs[k].index - 1;
	if (last < d->lost_first)
		return;
	if (!d->hidden_at || d->hidden_last < r->j->commit_seen) {
		d->hidden_first = d->lost_first;
		d->hidden_at = d->at;
	}
	d->hidden_last = last;
}

uint64_t raft_jrn_doubtful(const struct raft_jrn_recovery *r)
{
	const struct raft_jrn_doubt *d = &r->doubt;

	/* What hides is before what was found later. */
	if (d->hidden_at && d->hidden_last >= r->j->commit_seen)
		return d->hidden_at;
	return d->log || d->config ? d->at : 0;
}

/* After damage: the log stood at `index`, and the entry there, or the one that follows it, has this term. If our log has an entry of that term at the lower of
 * both ends, then (I2) it is the same log up to there, and all between the two ends has the term too. And if the damage is too small for a truncation and
 * an entry, the log is ours up to `index`. */
static int settle_log(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, uint64_t index, uint64_t term, struct wire_err *err)
{
	const struct raft_jrn_hole unknown = { .kind = WIRE_ENTRY_DATA };
	struct raft_journal *j = r->j;
	uint64_t last = raft_jrn_log_last(&j->log), low = index < last ? index : last;
	int rc = WIRE_OK;

	bool too_small = index <= last && r->doubt.bytes < TRUNCATION_BYTES + raft_jrn_entry_bytes(0);
	if (low < j->log.base_index || (!too_small && raft_jrn_log_term(&j->log, low) != term) || index < j->commit_seen ||
	    (index > last && index - last > r->doubt.bytes / raft_jrn_entry_bytes(0)))
		return raft_jrn_damaged(r, no, off, "what was before this is damaged, and it is not certain which entries that were", err);
	if (index < last)
		truncate_log(r, index + 1);
	for (; last < index && !rc; last++) {
		rc = add_entry(r, (struct raft_jrn_at){ .seg = (uint32_t)(r->doubt.at >> 32) }, term, &unknown, true, NULL, err);
		if (!r->doubt.config)
			r->doubt.lost_first = last + 1;
		r->doubt.lost_last = last + 1;
		r->doubt.config = true;
	}
	r->doubt.log = false;
	return rc;
}

static int replay_entry(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const struct raft_jrn_rec *rec, bool data_ok, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_hole what = { .kind = rec->kind, .size = rec->size, .sum = rec->sum, .known = true };
	struct raft_jrn_at at = { .seg = (uint32_t)no, .off = off, .size = rec->size };
	bool is_config = rec->kind == WIRE_ENTRY_CONFIG;
	struct raft_config c;

	if (r->doubt.log) {
		uint64_t most = raft_jrn_log_last(&j->log) + r->doubt.bytes / raft_jrn_entry_bytes(0) + 1;
		uint64_t index = raft_jrn_full_index(most, rec->index_low);
		int rc = index ? settle_log(r, no, off, index - 1, rec->term, err) : raft_jrn_damaged(r, no, off, "an entry has no index", err);
		if (rc)
			return rc;
	}
	uint64_t last = raft_jrn_log_last(&j->log);
	if (rec->kind > WIRE_ENTRY_CONFIG || rec->index_low != (uint32_t)(last + 1) || rec->term < raft_jrn_log_term(&j->log, last))
		return raft_jrn_damaged(r, no, off, "the entry does not follow the one before it", err);
	if (is_config && !data_ok)
		return raft_jrn_damaged(r, no, off, "a configuration is not valid", err);
	if (is_config && raft_config_get(rec->data, rec->size, &c, err))
		return wire_context(err, "journal %s, entry %llu", j->dir, (unsigned long long)last + 1);
	return add_entry(r, at, rec->term, &what, !data_ok, is_config ? &c : NULL, err);
}

/* One that fills nothing is of a hole that is trimmed, superseded, or can be read again. */
static void replay_fill(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const struct raft_jrn_rec *rec)
{
	struct raft_journal *j = r->j;
	uint64_t index = raft_jrn_full_index(raft_jrn_log_last(&j->log), rec->index_low);
	struct raft_jrn_hole *h = raft_jrn_log_hole(&j->log, index);

	if (!h || raft_jrn_log_term(&j->log, index) != rec->term ||
	    (h->known && (h->kind != rec->kind || h->size != rec->size || h->sum != rec->sum)))
		return;
	struct wire_entry *e = &j->open_entries[index - j->log.base_index - 1];
	e->kind = rec->kind;
	e->size = rec->size;
	e->sum = rec->sum;
	raft_jrn_log_fill(&j->log, h, (struct raft_jrn_at){ .seg = (uint32_t)no, .off = off, .size = rec->size });
}

static int replay_truncate(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, uint64_t from, struct wire_err *err)
{
	struct raft_journal *j = r->j;

	if (r->doubt.log)
		return raft_jrn_damaged(r, no, off, "what was before this truncation is damaged", err);
	if (from <= j->log.base_index || from > raft_jrn_log_last(&j->log))
		return raft_jrn_damaged(r, no, off, "the truncation names an entry that is not there", err);
	truncate_log(r, from);
	return WIRE_OK;
}

static int replay_publication(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const struct raft_journal_publication *p, struct wire_err *err)
{
	struct raft_journal *j = r->j;

	if (p->index > raft_jrn_log_last(&j->log) && !r->doubt.log)
		return raft_jrn_damaged(r, no, off, "the publication names an entry that is not there", err);
	if (!keep_publication(j, p))
		return wire_fail(err, WIRE_NOMEM, "no memory for the journal's publications");
	raft_jrn_log_published(&j->log, p);
	raft_jrn_raise(&j->commit_seen, p->index);
	return WIRE_OK;
}

static int replay_record(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, const struct raft_jrn_rec *rec, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_log *l = &j->log;
	struct raft_journal_publication p;

	switch (rec->type) {
	case RAFT_JRN_ENTRY:
		return replay_entry(r, no, off, rec, true, err);
	case RAFT_JRN_FILL:
		replay_fill(r, no, off, rec);
		break;
	case RAFT_JRN_TRUNCATE:
		return replay_truncate(r, no, off, wire_le64(rec->payload), err);
	case RAFT_JRN_VOTE:
		if (wire_le64(rec->payload) < l->term || rec->kind > 1)
			return raft_jrn_damaged(r, no, off, "the term goes back", err);
		l->term = wire_le64(rec->payload);
		l->vote = wire_le64(rec->payload + 8);
		l->forgetful = rec->kind;
		r->doubt.hard = false;
		break;
	case RAFT_JRN_PUBLICATION:
		raft_jrn_get_publication(rec->payload, &p);
		return replay_publication(r, no, off, &p, err);
	case RAFT_JRN_MARK:
		l->mark.index = wire_le64(rec->payload);
		l->mark.checksum = wire_le64(rec->payload + 8);
		l->mark.db_pages = wire_le32(rec->payload + 16);
		if (l->mark.index > raft_jrn_log_last(l) && !r->doubt.log)
			return raft_jrn_damaged(r, no, off, "the checkpoint mark names an entry that is not there", err);
		raft_jrn_raise(&j->commit_seen, l->mark.index);
		drop_old_publications(j);
		break;
	}
	return WIRE_OK;
}

/* ---- segments ---- */

/* WIRE_OK when they are the same, WIRE_CORRUPT without a text when not. */
static int compare_configs(const struct raft_config *a, const struct raft_config *b, struct wire_err *err)
{
	struct wire_buf x = WIRE_BUF_INIT, y = WIRE_BUF_INIT;

	raft_config_put(a, &x);
	raft_config_put(b, &y);
	int rc = x.failed || y.failed ? wire_fail(err, WIRE_NOMEM, "no memory to compare configurations") :
	         x.len == y.len && !memcmp(x.data, y.data, x.len) ? WIRE_OK : WIRE_CORRUPT;
	wire_buf_free(&x);
	wire_buf_free(&y);
	return rc;
}

static int begin_log(struct raft_jrn_recovery *r, const struct raft_jrn_header *h, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_log *l = &j->log;

	l->base_index = h->first_index - 1;
	l->base_term = h->prev_term;
	l->base_config = h->config;
	l->term = h->term;
	l->vote = h->vote;
	l->forgetful = h->forgetful;
	l->mark = h->mark;
	for (uint32_t i = 0; i < h->n_pubs; i++) {
		raft_jrn_log_published(l, &h->pubs[i]);
		if (!keep_publication(j, &h->pubs[i]))
			return wire_fail(err, WIRE_NOMEM, "no memory for the journal's publications");
	}
	raft_jrn_raise(&j->commit_seen, l->base_index);
	return WIRE_OK;
}

/* What the header says of the journal before it settles what damage there left open. */
static int settle_by_header(struct raft_jrn_recovery *r, const struct raft_jrn_header *h, struct wire_err *err)
{
	struct raft_jrn_log *l = &r->j->log;
	int rc = r->doubt.log ? settle_log(r, h->no, 0, h->first_index - 1, h->prev_term, err) : WIRE_OK;

	if (rc)
		return rc;
	if (r->doubt.hard && h->term >= l->term) {
		l->term = h->term;
		l->vote = h->vote;
		l->forgetful = h->forgetful;
		r->doubt.hard = false;
	}
	if (r->doubt.config)
		rc = compare_configs(&h->config, raft_jrn_log_config(l, raft_jrn_log_last(l)), err);
	if (rc == WIRE_CORRUPT)
		return raft_jrn_damaged(r, h->no, 0, "what was before this is damaged, and had a configuration", err);
	if (rc)
		return rc;
	if (r->doubt.config)
		settle_config(r);
	/* A mark or publication may be among what is lost. */
	if (h->mark.index > l->mark.index)
		l->mark = h->mark;
	for (uint32_t i = 0; i < h->n_pubs; i++)
		if (!l->n_pubs || h->pubs[i].index > l->pubs[l->n_pubs - 1].index) {
			rc = replay_publication(r, h->no, 0, &h->pubs[i], err);
			if (rc)
				return rc;
		}
	return WIRE_OK;
}

static int begin_segment(struct raft_jrn_recovery *r, const struct raft_jrn_header *h, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	struct raft_jrn_log *l = &j->log;
	int rc = WIRE_OK;

	if (!j->n_segs)
		rc = begin_log(r, h, err);
	else if (r->doubt.at)
		rc = settle_by_header(r, h, err);
	if (rc)
		return rc;
	if (j->n_segs && (h->first_index != raft_jrn_log_last(l) + 1 || h->prev_term != raft_jrn_log_term(l, raft_jrn_log_last(l)) ||
	                  h->term != l->term || h->vote != l->vote || h->forgetful != l->forgetful))
		return raft_jrn_damaged(r, h->no, 0, "the segment does not follow the one before it", err);
	raft_jrn_claim_header(&r->claims, h);
	raft_jrn_claim_header(&r->said, h);
	raft_jrn_raise(&j->commit_seen, h->commit);
	return WIRE_OK;
}

/* ---- damage ---- */

/* Makes r->claims speak of all that is behind a place in the segment that was read, or is missing. */
static int sweep_rest(struct raft_jrn_recovery *r, uint64_t no, uint32_t off, struct wire_err *err)
{
	int rc = WIRE_OK;

	if (r->swept)
		return WIRE_OK;
	if (raft_jrn_is_there(r, no))
		raft_jrn_sweep(r, no, off);
	for (size_t i = 0; i < r->n_nos && !rc; i++) {
		if (r->nos[i] <= no)
			continue;
		rc = raft_jrn_load(r, r->nos[i], UINT32_MAX, err);
		if (!rc)
			raft_jrn_sweep(r, r->nos[i], 0);
	}
	if (!rc && raft_jrn_is_there(r, no))
		rc = raft_jrn_load(r, no, UINT32_MAX, err);
	r->swept = !rc;
	return rc;
}

static void doubt(struct raft_jrn_recovery *r, uint64_t at, uint64_t bytes)
{
	if (!r->doubt.log && !r->doubt.config)
		r->doubt.at = at;
	r->doubt.bytes = (r->doubt.log ? r->doubt.bytes : 0) + bytes;
	r->doubt.log = r->doubt.hard = true;
}

/* The next place from `from` on where a record is recognised; 0: none. */
static uint32_t next_valid(const struct raft_jrn_recovery *r, uint64_t no, uint32_t from)
{
	struct raft_jrn_rec rec;

	for (uint32_t off = from; off + RAFT_JRN_REC_HEAD <= r->size; off += 8)
		if (raft_jrn_parse(r->buf + off, r->size - off, r->j->group, no, off, &rec))
			return off;
	return 0;
}

enum next { GO_ON, SEGMENT_ENDS, STOP };

static enum next stop_at(struct raft_jrn_recovery *r, uint64_t no, uint32_t off)
{
	r->stop = raft_jrn_pos(no, off);
	return STOP;
}

/* What lies at *off is not valid: it may have been lost with the power, or was durable and is damaged. */
static int damaged_record(struct raft_jrn_recovery *r, uint64_t no, uint32_t *off, enum next *ret_next, struct wire_err *err)
{
	int rc = sweep_rest(r, no, *off, err);

	if (rc)
		return rc;
	if (r->claims.synced <= raft_jrn_pos(no, *off)) {
		*ret_next = stop_at(r, no, *off);
		return WIRE_OK;
	}
	uint32_t next = next_valid(r, no, *off + 8);
	doubt(r, raft_jrn_pos(no, *off), (next ? next : r->size) - *off);
	*ret_next = next ? GO_ON : SEGMENT_ENDS;
	if (next)
		*off = next;
	else if (!raft_jrn_is_there(r, no + 1))
		*ret_next = stop_at(r, no, *off);
	return WIRE_OK;
}

/* The record's head is valid and its data is not. */
static int damaged_data(struct raft_jrn_recovery *r, uint64_t no, uint32_t *off, const struct raft_jrn_rec *rec, enum next *ret_next,
                        struct wire_err *err)
{
	int rc = sweep_rest(r, no, *off, err);

	if (rc)
		return rc;
	if (r->claims.synced < raft_jrn_pos(no, *off + rec->total)) {
		*ret_next = stop_at(r, no, *off);
		return WIRE_OK;
	}
	*ret_next = GO_ON;
	if (rec->type == RAFT_JRN_ENTRY)
		rc = replay_entry(r, no, *off, rec, false, err);
	if (!rc) {
		raft_jrn_claim_record(&r->said, rec);
		raft_jrn_raise(&r->j->commit_seen, rec->commit);
		*off += rec->total;
	}
	return rc;
}

static int walk_record(struct raft_jrn_recovery *r, uint64_t no, uint32_t *off, enum next *ret_next, struct wire_err *err)
{
	struct raft_jrn_rec rec;
	int rc;

	if (raft_jrn_pos(no, *off) >= r->limit) {
		*ret_next = stop_at(r, no, *off);
		return WIRE_OK;
	}
	if (*off + RAFT_JRN_REC_HEAD > r->size || !raft_jrn_parse(r->buf + *off, r->size - *off, r->j->group, no, *off, &rec))
		return damaged_record(r, no, off, ret_next, err);
	if (!raft_jrn_data_ok(&rec))
		return damaged_data(r, no, off, &rec, ret_next, err);
	*ret_next = rec.type == RAFT_JRN_END ? SEGMENT_ENDS : GO_ON;
	rc = rec.type == RAFT_JRN_END ? WIRE_OK : replay_record(r, no, *off, &rec, err);
	if (rc)
		return rc;
	raft_jrn_claim_record(&r->claims, &rec);
	raft_jrn_claim_record(&r->said, &rec);
	raft_jrn_raise(&r->j->commit_seen, rec.commit);
	if (rec.type != RAFT_JRN_END)
		*off += rec.total;
	return WIRE_OK;
}

/* A segment without a valid header: what that said is known, unless what was before it is damaged too. */
static int lost_header(struct raft_jrn_recovery *r, struct raft_jrn_seg *s, uint32_t *off, enum next *ret_next, struct wire_err *err)
{
	int rc = sweep_rest(r, s->no, 0, err);

	if (rc)
		return rc;
	uint32_t next = next_valid(r, s->no, RAFT_JRN_SECTOR);
	if (!r->j->n_segs || r->claims.synced <= raft_jrn_pos(s->no, 0) || r->doubt.log || !next || r->file_size % RAFT_JRN_SECTOR ||
	    r->file_size < RAFT_JRN_SEGMENT_MIN) {
		*ret_next = stop_at(r, s->no, 0);
		return WIRE_OK;
	}
	doubt(r, raft_jrn_pos(s->no, 0), next);
	s->size = r->file_size;
	s->recycled = s->lost_header = true;
	s->first_index = raft_jrn_log_last(&r->j->log) + 1;
	*off = next;
	*ret_next = GO_ON;
	return WIRE_OK;
}

static int open_segment(struct raft_jrn_recovery *r, struct raft_jrn_seg *s, uint32_t *ret_off, enum next *ret_next, struct wire_err *err)
{
	struct raft_jrn_header h;
	int rc = raft_jrn_open_file(r, s->no, &s->file, err);

	if (!rc)
		rc = raft_jrn_load_file(r, s->file, s->no, UINT32_MAX, err);
	if (rc)
		return rc;
	if (raft_jrn_get_header(r->buf, r->size, s->no, &h, NULL))
		return lost_header(r, s, ret_off, ret_next, err);
	rc = begin_segment(r, &h, err);
	s->size = h.segment_bytes;
	s->recycled = h.recycled;
	s->first_index = h.first_index;
	r->size = h.segment_bytes; /* whatever the file has behind that */
	*ret_off = h.bytes;
	*ret_next = GO_ON;
	return rc;
}

static int walk_segment(struct raft_jrn_recovery *r, uint64_t no, enum next *ret_next, struct wire_err *err)
{
	struct raft_jrn_seg *s = calloc(1, sizeof(*s));
	uint32_t off = 0;

	if (!s)
		return wire_fail(err, WIRE_NOMEM, "no memory for a journal segment");
	s->no = no;
	int rc = open_segment(r, s, &off, ret_next, err);
	if (!rc && *ret_next != STOP && !raft_jrn_segs_push(r->j, s))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for the list of segments");
	if (rc || *ret_next == STOP) {
		raft_jrn_seg_free(r->j, s);
		return rc;
	}
	while (*ret_next == GO_ON && !rc) {
		r->stop = raft_jrn_pos(no, off);
		rc = walk_record(r, no, &off, ret_next, err);
		r->end = off;
	}
	return rc;
}

int raft_jrn_walk(struct raft_jrn_recovery *r, struct wire_err *err)
{
	enum next next = SEGMENT_ENDS;
	uint64_t no = r->oldest;
	int rc = WIRE_OK;

	for (; next == SEGMENT_ENDS && !rc; no++) {
		r->stop = raft_jrn_pos(no, 0);
		if (!raft_jrn_is_there(r, no) || r->stop >= r->limit)
			break;
		rc = walk_segment(r, no, &next, err);
	}
	if (!rc && !r->j->n_segs)
		rc = raft_jrn_damaged(r, r->oldest, 0, "the oldest segment has no valid header", err);
	return rc;
}
