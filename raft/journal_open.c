/* Create and open; what is between is in journal_recover.c. */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Files that a trim left behind become spares, and a trim that the replayed records tell of is done again. */
static int settle_trims(struct raft_jrn_recovery *r, struct wire_err *err)
{
	struct raft_journal *j = r->j;
	uint64_t before = j->log.base_index;
	size_t k = 0, drop;

	raft_jrn_raise(&r->oldest, r->said.oldest);
	for (size_t i = 0; i < r->n_nos && r->nos[i] < j->segs[0]->no; i++) {
		struct raft_jrn_seg *s = calloc(1, sizeof(*s));
		int rc = s ? raft_jrn_open_file(r, r->nos[i], &s->file, err) : wire_fail(err, WIRE_NOMEM, "no memory for a journal segment");
		uint64_t size = 0;
		if (!rc)
			rc = j->env->size(j->env->ctx, s->file, &size, err);
		if (!rc && !raft_jrn_retired_push(j, s))
			rc = wire_fail(err, WIRE_NOMEM, "no memory for the list of segments");
		if (rc) {
			raft_jrn_seg_free(j, s);
			return rc;
		}
		s->no = r->nos[i];
		s->size = (uint32_t)size;
	}
	while (k < j->n_segs - 1 && j->segs[k]->no < r->oldest)
		k++;
	/* The mark that the trim relied on may have been damaged since. */
	while (k && (j->segs[k]->lost_header || j->segs[k]->first_index - 1 > j->log.mark.index))
		k--;
	if (k && (j->segs[k]->first_index - 1 < before || j->segs[k]->first_index - 1 > raft_jrn_log_last(&j->log)))
		return raft_jrn_damaged(r, j->segs[k]->no, 0, "a trim names a segment that the log cannot begin with", err);
	if (k && !raft_jrn_retire(j, k))
		return wire_fail(err, WIRE_NOMEM, "no memory for the list of segments");
	drop = (size_t)(j->log.base_index - before);
	if (drop)
		memmove(j->open_entries, j->open_entries + drop, (j->n_open_entries - drop) * sizeof(*j->open_entries));
	j->n_open_entries -= drop;
	return WIRE_OK;
}

struct name_list {
	char (*names)[32];
	size_t n, cap;
};

static int each_tmp(void *arg, const char *name)
{
	struct name_list *l = arg;
	size_t n = strlen(name);

	if (n < 32 && n > 8 && !strcmp(name + n - 8, ".seg.tmp") && raft_jrn_grow((void **)&l->names, &l->cap, l->n, 1, 32))
		memcpy(l->names[l->n++], name, n + 1);
	return 0;
}

/* What an unfinished preparation left; room is what they would take from it. */
int raft_jrn_remove_unfinished(const struct raft_journal *j, struct wire_err *err)
{
	struct name_list l = { 0 };
	char path[RAFT_JRN_PATH_MAX];
	int rc = j->env->list(j->env->ctx, j->dir, each_tmp, &l, err);

	for (size_t i = 0; i < l.n && !rc; i++) {
		snprintf(path, sizeof(path), "%s/%s", j->dir, l.names[i]);
		rc = j->env->unlink(j->env->ctx, path, err);
	}
	free(l.names);
	return rc;
}

int raft_jrn_new(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts,
                 struct raft_journal **ret_journal, struct wire_err *err)
{
	uint32_t bytes = opts->segment_bytes ? opts->segment_bytes : RAFT_JRN_SEGMENT_DEFAULT;
	uint32_t first = opts->first_bytes ? opts->first_bytes : bytes;

	if (bytes > RAFT_JRN_SEGMENT_MAX || bytes % RAFT_JRN_SECTOR || first < RAFT_JRN_SEGMENT_MIN || first > bytes ||
	    first % RAFT_JRN_SECTOR)
		return wire_fail(err, WIRE_INVALID, "segments of %u bytes, the first of %u: not multiples of %d from %u to %u, or the first "
		                 "is larger", bytes, first, RAFT_JRN_SECTOR, RAFT_JRN_SEGMENT_MIN, RAFT_JRN_SEGMENT_MAX);
	if (strlen(dir) + 32 > RAFT_JRN_PATH_MAX)
		return wire_fail(err, WIRE_INVALID, "the path of the journal's directory is too long: %.100s...", dir);
	struct raft_journal *j = calloc(1, sizeof(*j));
	if (!j || !(j->dir = strdup(dir))) {
		free(j);
		return wire_fail(err, WIRE_NOMEM, "no memory for a journal");
	}
	j->env = env;
	j->group = opts->group;
	j->segment_bytes = bytes;
	j->first_bytes = first;
	j->on_event = opts->on_event;
	j->event_ctx = opts->event_ctx;
	pthread_mutex_init(&j->wmu, NULL);
	pthread_mutex_init(&j->mu, NULL);
	pthread_cond_init(&j->cv, NULL);
	*ret_journal = j;
	return WIRE_OK;
}

static int list_holes(struct raft_journal *j, struct wire_err *err)
{
	j->open_holes = calloc(j->log.n_holes + 1, sizeof(*j->open_holes));
	if (!j->open_holes)
		return wire_fail(err, WIRE_NOMEM, "no memory for the list of damaged entries");
	for (size_t i = 0; i < j->log.n_holes; i++)
		j->open_holes[i] = j->log.holes[i].index;
	return WIRE_OK;
}

int raft_jrn_open_as_is(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct raft_jrn_decided *decided,
                        struct raft_journal **ret_journal, struct raft_journal_state *ret_state, struct wire_err *err)
{
	struct raft_jrn_recovery r = { .limit = UINT64_MAX };
	uint64_t cut = 0;
	int rc = raft_jrn_new(env, dir, opts, &r.j, err);

	if (rc)
		return rc;
	struct raft_journal *j = r.j;
	if (decided)
		raft_jrn_follow(&r, decided);
	rc = raft_jrn_list_segments(&r, err);
	if (!rc && !r.n_nos)
		rc = wire_fail(err, WIRE_NOTFOUND, "there is no journal in %s", dir);
	if (!rc)
		rc = raft_jrn_find_oldest(&r, err);
	if (!rc)
		rc = raft_jrn_replay(&r, &cut, err);
	if (!rc)
		rc = settle_trims(&r, err);
	if (!rc)
		rc = raft_jrn_remove_unfinished(j, err);
	if (!rc)
		rc = list_holes(j, err);
	free(r.buf);
	free(r.nos);
	if (rc) {
		j->failed = true; /* closes without writing */
		raft_journal_close(j);
		return rc;
	}
	const struct raft_jrn_log *l = &j->log;
	*ret_state = (struct raft_journal_state){
		.term = l->term, .vote = l->vote, .base_index = l->base_index, .base_term = l->base_term,
		.base_config = l->base_config, .entries = j->open_entries, .n_entries = j->n_open_entries,
		.configs = l->configs, .n_configs = l->n_configs,
		.commit = j->commit_seen, .mark = l->mark, .publications = j->open_pubs, .n_publications = j->n_open_pubs,
		.cut_bytes = cut, .holes = j->open_holes, .n_holes = l->n_holes, .forgetful = l->forgetful,
	};
	*ret_journal = j;
	return WIRE_OK;
}

int raft_journal_open(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts,
                      struct raft_journal **ret_journal, struct raft_journal_state *ret_state, struct wire_err *err)
{
	int rc = raft_jrn_finish_salvage(env, dir, opts, err);

	return rc ? rc : raft_jrn_open_as_is(env, dir, opts, NULL, ret_journal, ret_state, err);
}

int raft_jrn_create_first(struct raft_journal *j, struct wire_err *err)
{
	const struct wire_env *env = j->env;
	struct wire_buf b = WIRE_BUF_INIT;
	struct raft_jrn_seg *s = NULL;
	struct raft_jrn_header h;
	int rc;

	raft_jrn_make_header(j, 1, 0, false, 1, &h);
	uint32_t need = raft_jrn_header_bytes(&h) + RAFT_JRN_END_BYTES;
	h.segment_bytes = raft_jrn_double(j, j->first_bytes, need);
	raft_jrn_put_header(&b, &h);
	if (b.failed)
		rc = wire_fail(err, WIRE_NOMEM, "no memory for a segment header");
	else if (b.len + RAFT_JRN_END_BYTES > h.segment_bytes)
		rc = wire_fail(err, WIRE_TOOBIG, "a segment of %u bytes has no room for its header", h.segment_bytes);
	else
		rc = raft_jrn_seg_create(j, 1, h.segment_bytes, b.data, b.len, &s, err);
	wire_buf_free(&b);
	raft_jrn_seg_free(j, s);
	if (rc)
		return rc;
	/* The directory's own name. */
	char *parent = strdup(j->dir);
	if (!parent)
		return wire_fail(err, WIRE_NOMEM, "no memory for a path");
	size_t n = strlen(parent);
	while (n > 1 && parent[n - 1] == '/')
		parent[--n] = 0;
	char *slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = 0;
	rc = env->sync_dir(env->ctx, slash ? parent : ".", err);
	free(parent);
	return rc;
}

int raft_journal_create(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts,
                        uint64_t term, uint64_t base_index, uint64_t base_term, const struct raft_config *base_config,
                        const struct raft_journal_mark *mark, struct wire_err *err)
{
	struct raft_jrn_recovery r = { 0 };
	int rc = raft_jrn_new(env, dir, opts, &r.j, err);

	if (rc)
		return rc;
	struct raft_journal *j = r.j;
	if (mark->index > base_index || base_term > term)
		rc = wire_fail(err, WIRE_INVALID, "a journal from %llu in term %llu cannot have its mark at %llu, or term %llu",
		               (unsigned long long)base_index, (unsigned long long)base_term, (unsigned long long)mark->index,
		               (unsigned long long)term);
	if (!rc) {
		rc = env->mkdir(env->ctx, dir, err);
		rc = rc == WIRE_EXISTS ? WIRE_OK : rc;
	}
	if (!rc)
		rc = raft_jrn_list_segments(&r, err);
	if (!rc && r.n_nos)
		rc = wire_fail(err, WIRE_EXISTS, "there is a journal in %s already", dir);
	if (!rc)
		rc = raft_jrn_remove_unfinished(j, err);
	if (!rc) {
		j->log = (struct raft_jrn_log){ .base_index = base_index, .base_term = base_term, .base_config = *base_config,
			                        .term = term, .mark = *mark };
		j->commit_seen = j->durable_index = base_index;
		rc = raft_jrn_create_first(j, err);
	}
	free(r.nos);
	j->failed = true; /* closes without writing */
	raft_journal_close(j);
	return rc;
}
