/* Segment files. A file gets its final name when it is prepared, durably, long before it is begun; beginning it is
 * writing its header. A segment's number is used once, but for those that recovery drops, whose files are unlinked: so
 * whatever older content a reused file has, its checksums are seeded with another number. */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void raft_jrn_path(const struct raft_journal *j, uint64_t no, char path[RAFT_JRN_PATH_MAX])
{
	snprintf(path, RAFT_JRN_PATH_MAX, "%s/%016llu.seg", j->dir, (unsigned long long)no);
}

int raft_jrn_zero(const struct wire_env *env, struct wire_file *f, uint32_t from, uint32_t to, struct wire_err *err)
{
	static const uint8_t zeros[256 << 10];
	int rc = WIRE_OK;

	while (from < to && !rc) {
		uint32_t n = to - from < sizeof(zeros) ? to - from : (uint32_t)sizeof(zeros);
		rc = env->write(env->ctx, f, zeros, n, from, err);
		from += n;
	}
	return rc;
}

void raft_jrn_make_header(const struct raft_journal *j, uint64_t no, uint32_t size, bool recycled, uint64_t oldest,
                          struct raft_jrn_header *ret_h)
{
	const struct raft_jrn_log *l = &j->log;
	uint64_t last = raft_jrn_log_last(l);

	*ret_h = (struct raft_jrn_header){
		.segment_bytes = size,
		.recycled = recycled,
		.group = j->group,
		.no = no,
		.oldest = oldest,
		.synced = j->synced,
		.commit = raft_jrn_sayable_commit(j),
		.first_index = last + 1,
		.prev_term = raft_jrn_log_term(l, last),
		.term = l->term,
		.vote = l->vote,
		.forgetful = l->forgetful,
		.mark = l->mark,
		.n_pubs = l->n_pubs,
		.config = *raft_jrn_log_config(l, last),
	};
	memcpy(ret_h->pubs, l->pubs, sizeof(l->pubs));
}

int raft_jrn_seg_create(const struct raft_journal *j, uint64_t no, uint32_t size, const void *head, size_t head_bytes,
                        struct raft_jrn_seg **ret_seg, struct wire_err *err)
{
	const struct wire_env *env = j->env;
	char path[RAFT_JRN_PATH_MAX], tmp[RAFT_JRN_PATH_MAX + 8];
	struct raft_jrn_seg *s = calloc(1, sizeof(*s));

	if (!s)
		return wire_fail(err, WIRE_NOMEM, "no memory for a journal segment");
	raft_jrn_path(j, no, path);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	s->no = no;
	s->size = size;
	int rc = env->open(env->ctx, tmp, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &s->file, err);
	if (rc) {
		free(s);
		return rc;
	}
	rc = env->truncate(env->ctx, s->file, 0, err);
	if (!rc)
		rc = raft_jrn_zero(env, s->file, 0, s->size, err);
	if (!rc && head_bytes)
		rc = env->write(env->ctx, s->file, head, head_bytes, 0, err);
	if (!rc)
		rc = env->sync(env->ctx, s->file, err);
	if (!rc)
		rc = env->rename(env->ctx, tmp, path, err);
	if (rc) {
		raft_jrn_seg_free(j, s);
		env->unlink(env->ctx, tmp, NULL); /* gives the room back; what stays is removed at the next open */
		return rc;
	}
	rc = env->sync_dir(env->ctx, j->dir, err);
	if (rc) {
		raft_jrn_seg_free(j, s);
		return rc;
	}
	*ret_seg = s;
	return WIRE_OK;
}

void raft_jrn_seg_free(const struct raft_journal *j, struct raft_jrn_seg *s)
{
	if (!s)
		return;
	if (s->file)
		j->env->close(j->env->ctx, s->file);
	free(s);
}

bool raft_jrn_segs_push(struct raft_journal *j, struct raft_jrn_seg *s)
{
	if (!raft_jrn_grow((void **)&j->segs, &j->cap_segs, j->n_segs, 1, sizeof(struct raft_jrn_seg *)))
		return false;
	j->segs[j->n_segs++] = s;
	return true;
}

bool raft_jrn_retired_push(struct raft_journal *j, struct raft_jrn_seg *s)
{
	if (!raft_jrn_grow((void **)&j->retired, &j->cap_retired, j->n_retired, 1, sizeof(struct raft_jrn_seg *)))
		return false;
	j->retired[j->n_retired++] = s;
	return true;
}

struct raft_jrn_seg *raft_jrn_seg_find(const struct raft_journal *j, uint64_t no)
{
	uint64_t first = j->segs[0]->no;

	return no >= first && no - first < j->n_segs ? j->segs[no - first] : NULL;
}

uint32_t raft_jrn_double(const struct raft_journal *j, uint64_t from, uint32_t at_least)
{
	while (from < at_least)
		from *= 2;
	return from < j->segment_bytes ? (uint32_t)from : j->segment_bytes;
}

bool raft_jrn_may_follow(const struct raft_journal *j, uint32_t size, uint32_t prev_bytes)
{
	return size >= raft_jrn_double(j, 2 * (uint64_t)prev_bytes, 0) && size <= j->segment_bytes && !(size % RAFT_JRN_SECTOR);
}

static struct raft_jrn_seg *take_retired(struct raft_journal *j, size_t i)
{
	struct raft_jrn_seg *s = j->retired[i];

	memmove(j->retired + i, j->retired + i + 1, (--j->n_retired - i) * sizeof(*j->retired));
	return s;
}

/* Of the retired segments that nobody reads and whose end is durably recorded the first that may follow the last one we have
 * and has at_least so many bytes. */
static struct raft_jrn_seg *take_spare(struct raft_journal *j, uint32_t at_least)
{
	uint32_t prev = raft_jrn_current(j)->size;

	for (size_t i = 0; i < j->n_retired; i++) {
		struct raft_jrn_seg *s = j->retired[i];
		if (s->refs || s->free_after > j->synced || s->size < at_least || !raft_jrn_may_follow(j, s->size, prev))
			continue;
		return take_retired(j, i);
	}
	return NULL;
}

static int recycle(const struct raft_journal *j, struct raft_jrn_seg *s, uint64_t no, struct wire_err *err)
{
	const struct wire_env *env = j->env;
	char from[RAFT_JRN_PATH_MAX], to[RAFT_JRN_PATH_MAX];

	raft_jrn_path(j, s->no, from);
	raft_jrn_path(j, no, to);
	int rc = env->rename(env->ctx, from, to, err);
	if (!rc)
		rc = env->sync_dir(env->ctx, j->dir, err);
	if (!rc) {
		s->no = no;
		s->recycled = true;
	}
	return rc;
}

int raft_jrn_prepare(struct raft_journal *j, uint32_t at_least, struct wire_err *err)
{
	assert(!j->preparing && !j->next);
	uint64_t no = raft_jrn_current(j)->no + 1;
	uint32_t size = raft_jrn_double(j, 2 * (uint64_t)raft_jrn_current(j)->size, at_least);
	int rc;

	if (no >= UINT32_MAX)
		return wire_fail(err, WIRE_TOOBIG, "journal %s has used up its segment numbers", j->dir);
	struct raft_jrn_seg *s = take_spare(j, at_least);
	j->preparing = true;
	pthread_mutex_unlock(&j->mu);
	if (s) {
		rc = recycle(j, s, no, err);
		if (rc)
			raft_jrn_seg_free(j, s); /* whatever name it has, the next open sorts it out */
	} else {
		rc = raft_jrn_seg_create(j, no, size, NULL, 0, &s, err);
	}
	pthread_mutex_lock(&j->mu);
	j->preparing = false;
	if (!rc)
		j->next = s;
	pthread_cond_broadcast(&j->cv);
	return rc ? wire_context(err, "preparing a journal segment") : WIRE_OK;
}

/* Closes the current segment by a record and begins the next by its header. */
static int begin_next(struct raft_journal *j, struct wire_err *err)
{
	const struct wire_env *env = j->env;
	struct raft_jrn_seg *cur = raft_jrn_current(j), *s = j->next;
	struct raft_jrn_header h;
	struct raft_jrn_rec end = { .type = RAFT_JRN_END, .synced = j->synced, .commit = raft_jrn_sayable_commit(j) };
	struct wire_buf b = WIRE_BUF_INIT;
	int rc;

	raft_jrn_make_header(j, s->no, s->size, s->recycled, j->segs[0]->no, &h);
	raft_jrn_put(&b, j->group, cur->no, j->off, &end);
	size_t end_bytes = b.len;
	raft_jrn_put_header(&b, &h);
	size_t header_bytes = b.len - end_bytes;
	if (b.failed)
		rc = wire_fail(err, WIRE_NOMEM, "no memory for a segment header");
	else if (header_bytes + RAFT_JRN_END_BYTES > s->size)
		rc = wire_fail(err, WIRE_TOOBIG, "a segment of %u bytes has no room for its header; use larger segments", s->size);
	else if (!raft_jrn_segs_push(j, s))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for the list of segments");
	else
		rc = WIRE_OK;
	if (!rc) {
		j->next = NULL;
		rc = env->write(env->ctx, cur->file, b.data, end_bytes, j->off, err);
		if (!rc)
			rc = env->write(env->ctx, s->file, b.data + end_bytes, header_bytes, 0, err);
	}
	wire_buf_free(&b);
	if (rc)
		return rc;
	s->first_index = h.first_index;
	j->off = (uint32_t)header_bytes;
	j->bytes_appended += end_bytes + header_bytes;
	j->synced_said = h.synced;
	j->commit_said = h.commit > j->commit_said ? h.commit : j->commit_said;
	return WIRE_OK;
}

int raft_jrn_roll(struct raft_journal *j, uint32_t bytes, struct wire_err *err)
{
	struct raft_jrn_header h;

	raft_jrn_make_header(j, raft_jrn_current(j)->no + 1, 0, false, j->segs[0]->no, &h);
	uint32_t need = raft_jrn_header_bytes(&h);
	if (!need)
		return wire_fail(err, WIRE_NOMEM, "no memory for a segment header");
	need += bytes + RAFT_JRN_END_BYTES;
	need = need < j->segment_bytes ? need : j->segment_bytes;
	while (j->preparing || !j->next || j->next->size < need) {
		if (j->preparing) {
			pthread_cond_wait(&j->cv, &j->mu);
			continue;
		}
		/* One that is too small was never begun: the one that is made now takes its name, in one rename, and until then
		 * it is as good as any prepared one for a recovery. */
		raft_jrn_seg_free(j, j->next);
		j->next = NULL;
		j->late++;
		int rc = raft_jrn_prepare(j, need, err);
		if (rc)
			return rc;
	}
	if (j->failed) {
		if (err)
			*err = j->failure;
		return j->failure.code;
	}
	return begin_next(j, err);
}

/* The first retired segment that is free as above and not worth keeping. */
static struct raft_jrn_seg *take_useless(struct raft_journal *j)
{
	uint32_t prev = (j->next ? j->next : raft_jrn_current(j))->size;

	for (size_t i = 0; i < j->n_retired; i++) {
		struct raft_jrn_seg *s = j->retired[i];
		if (s->refs || s->free_after > j->synced || (j->n_retired <= RAFT_JRN_SPARES && raft_jrn_may_follow(j, s->size, prev)))
			continue;
		return take_retired(j, i);
	}
	return NULL;
}

int raft_jrn_remove_retired(struct raft_journal *j, struct wire_err *err)
{
	const struct wire_env *env = j->env;
	struct raft_jrn_seg *s;
	int rc = WIRE_OK;

	while (!rc && (s = take_useless(j)) != NULL) {
		char path[RAFT_JRN_PATH_MAX];
		pthread_mutex_unlock(&j->mu);
		raft_jrn_path(j, s->no, path);
		rc = env->unlink(env->ctx, path, err);
		raft_jrn_seg_free(j, s);
		if (!rc)
			rc = env->sync_dir(env->ctx, j->dir, err);
		pthread_mutex_lock(&j->mu);
	}
	return rc ? wire_context(err, "removing a trimmed journal segment") : WIRE_OK;
}

bool raft_jrn_retire(struct raft_journal *j, size_t k)
{
	assert(k < j->n_segs);
	if (!raft_jrn_grow((void **)&j->retired, &j->cap_retired, j->n_retired, k, sizeof(struct raft_jrn_seg *)))
		return false;
	for (size_t i = 0; i < k; i++) {
		j->segs[i]->free_after = raft_jrn_pos(raft_jrn_current(j)->no, j->off);
		j->retired[j->n_retired++] = j->segs[i];
	}
	memmove(j->segs, j->segs + k, (j->n_segs - k) * sizeof(*j->segs));
	j->n_segs -= k;
	raft_jrn_log_rebase(&j->log, j->segs[0]->first_index - 1);
	return true;
}
