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
		.mark = l->mark,
		.n_pubs = l->n_pubs,
		.config = *raft_jrn_log_config(l, last),
	};
	memcpy(ret_h->pubs, l->pubs, sizeof(l->pubs));
}

int raft_jrn_seg_create(const struct raft_journal *j, uint64_t no, const void *head, size_t head_bytes,
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
	s->size = j->segment_bytes;
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

/* The first retired segment that nobody reads and whose end is durably recorded. */
static struct raft_jrn_seg *take_retired(struct raft_journal *j, bool to_reuse)
{
	for (size_t i = 0; i < j->n_retired; i++) {
		struct raft_jrn_seg *s = j->retired[i];
		if (s->refs || s->free_after > j->synced || (to_reuse && s->size != j->segment_bytes))
			continue;
		memmove(j->retired + i, j->retired + i + 1, (--j->n_retired - i) * sizeof(*j->retired));
		return s;
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

int raft_jrn_prepare(struct raft_journal *j, struct wire_err *err)
{
	assert(!j->preparing && !j->next);
	uint64_t no = raft_jrn_current(j)->no + 1;
	int rc;

	if (no >= UINT32_MAX)
		return wire_fail(err, WIRE_TOOBIG, "journal %s has used up its segment numbers", j->dir);
	struct raft_jrn_seg *s = take_retired(j, true);
	j->preparing = true;
	pthread_mutex_unlock(&j->mu);
	if (s) {
		rc = recycle(j, s, no, err);
		if (rc)
			raft_jrn_seg_free(j, s); /* whatever name it has, the next open sorts it out */
	} else {
		rc = raft_jrn_seg_create(j, no, NULL, 0, &s, err);
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

int raft_jrn_roll(struct raft_journal *j, struct wire_err *err)
{
	while (j->preparing || !j->next) {
		if (j->preparing) {
			pthread_cond_wait(&j->cv, &j->mu);
			continue;
		}
		int rc = raft_jrn_prepare(j, err);
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

int raft_jrn_remove_retired(struct raft_journal *j, struct wire_err *err)
{
	const struct wire_env *env = j->env;
	struct raft_jrn_seg *s;
	int rc = WIRE_OK;

	while (!rc && j->n_retired > RAFT_JRN_SPARES && (s = take_retired(j, false)) != NULL) {
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
