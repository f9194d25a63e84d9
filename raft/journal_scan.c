/* The files as they are: reading them, what is recognised in them whatever lies between, and which of them the log begins in. */
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

int raft_jrn_load_file(struct raft_jrn_recovery *r, struct wire_file *f, uint64_t no, uint32_t limit, struct wire_err *err)
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

int raft_jrn_load(struct raft_jrn_recovery *r, uint64_t no, uint32_t limit, struct wire_err *err)
{
	struct wire_file *f;
	int rc = raft_jrn_open_file(r, no, &f, err);

	if (rc)
		return rc;
	rc = raft_jrn_load_file(r, f, no, limit, err);
	r->j->env->close(r->j->env->ctx, f);
	return rc;
}

static int each_name(void *arg, const char *name)
{
	struct raft_jrn_recovery *r = arg;
	unsigned long long no = 0;
	size_t digits = strspn(name, "0123456789");

	if (digits == 16 && !strcmp(name + digits, ".seg")) {
		sscanf(name, "%llu", &no);
		if (!raft_jrn_grow((void **)&r->nos, &r->cap_nos, r->n_nos, 1, sizeof(*r->nos)))
			r->nomem = true;
		else if (no && no < UINT32_MAX)
			r->nos[r->n_nos++] = no;
	}
	return 0;
}

int raft_jrn_list_segments(struct raft_jrn_recovery *r, struct wire_err *err)
{
	const struct wire_env *env = r->j->env;
	int rc = env->list(env->ctx, r->j->dir, each_name, r, err);

	if (!rc && r->nomem)
		rc = wire_fail(err, WIRE_NOMEM, "no memory for the list of segments");
	if (!rc && r->n_nos)
		qsort(r->nos, r->n_nos, sizeof(*r->nos), raft_jrn_compare_nos);
	return rc;
}

void raft_jrn_claim_record(struct raft_jrn_claims *c, const struct raft_jrn_rec *rec)
{
	raft_jrn_raise(&c->synced, rec->synced);
	raft_jrn_raise(&c->commit, rec->commit);
	if (rec->type == RAFT_JRN_TRIM)
		raft_jrn_raise(&c->oldest, wire_le64(rec->payload));
	if (raft_jrn_has_data(rec->type))
		raft_jrn_raise(&c->term, rec->term);
	if (rec->type == RAFT_JRN_VOTE)
		raft_jrn_raise(&c->term, wire_le64(rec->payload));
}

void raft_jrn_claim_header(struct raft_jrn_claims *c, const struct raft_jrn_header *h)
{
	raft_jrn_raise(&c->synced, h->synced);
	raft_jrn_raise(&c->commit, h->commit);
	raft_jrn_raise(&c->oldest, h->oldest);
	raft_jrn_raise(&c->term, h->term);
}

static void candidate(struct raft_jrn_recovery *r, uint64_t no)
{
	if (no >= r->floor && no > r->without && (!r->oldest || no < r->oldest))
		r->oldest = no;
}

void raft_jrn_sweep(struct raft_jrn_recovery *r, uint64_t no, uint32_t from)
{
	struct raft_jrn_header h;
	struct raft_jrn_rec rec;

	r->claims.end = 0;
	if (from == 0 && !raft_jrn_get_header(r->buf, r->size, no, &h, NULL)) {
		raft_jrn_claim_header(&r->claims, &h);
		r->claims.end = h.bytes;
	}
	for (uint32_t off = from; off < r->size; off += 8) {
		if (!raft_jrn_parse(r->buf + off, r->size - off, r->j->group, no, off, &rec))
			continue;
		raft_jrn_claim_record(&r->claims, &rec);
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
		int rc = raft_jrn_load(r, r->nos[i], RAFT_JRN_HEADER_MAX, err);
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

/* Files below the first one are gone: only after a trim that is durable. Which of those that are found that was is
 * not known yet, so the lowest that the files allow is taken; replaying comes to the later ones. */
static int lowest(struct raft_jrn_recovery *r, size_t first, struct wire_err *err)
{
	int rc = read_headers(r, err);

	for (size_t i = first; i < r->n_nos && !rc && r->oldest != r->floor; i++) {
		rc = raft_jrn_load(r, r->nos[i], UINT32_MAX, err);
		if (!rc)
			raft_jrn_sweep(r, r->nos[i], 0);
	}
	r->claims = (struct raft_jrn_claims){ 0 };
	return rc;
}

static int look_at_header(struct raft_jrn_recovery *r, bool *ret_valid, struct wire_err *err)
{
	struct raft_jrn_header h;
	int rc = r->oldest ? raft_jrn_load(r, r->oldest, RAFT_JRN_HEADER_MAX, err) : WIRE_OK;

	if (!rc)
		*ret_valid = r->oldest && raft_jrn_get_header(r->buf, r->size, r->oldest, &h, NULL) == WIRE_OK;
	return rc;
}

int raft_jrn_find_oldest(struct raft_jrn_recovery *r, struct wire_err *err)
{
	size_t k = r->n_nos - 1;

	while (k && r->nos[k - 1] == r->nos[k] - 1)
		k--;
	r->floor = r->nos[k];
	if (r->decided) {
		r->oldest = r->begins;
		r->claims.synced = r->attested;
		r->swept = true;
		return WIRE_OK;
	}
	int rc = lowest(r, k, err);
	/* A segment whose header is damaged may have been trimmed, and what is below it removed first. */
	bool valid = true;
	if (!rc && r->oldest)
		rc = look_at_header(r, &valid, err);
	if (!rc && !valid) {
		r->without = r->oldest;
		r->oldest = 0;
		rc = lowest(r, k, err);
		if (!rc)
			rc = look_at_header(r, &valid, err);
		if (!rc && !valid) {
			r->oldest = r->without;
			r->without = 0;
		}
	}
	if (!rc && !r->oldest)
		rc = raft_jrn_damaged(r, r->floor - 1, 0, "this segment is missing", err);
	return rc;
}
