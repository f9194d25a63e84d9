/* Where the log ends, and the cutting of a torn tail: raft/JOURNAL.md, "Recovery". */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Decides whether what is bad at r->stop may be cut, and whether all that damage before it left open was settled. */
static int judge(struct raft_jrn_recovery *r, struct wire_err *err)
{
	uint64_t last = raft_jrn_log_last(&r->j->log), no = r->stop >> 32, at = raft_jrn_doubtful(r);
	uint32_t off = (uint32_t)r->stop;

	if (r->claims.synced > r->stop)
		return raft_jrn_damaged(r, no, off, raft_jrn_is_there(r, no) ? "a record that was durable is not valid" : "this segment is missing", err);
	if (r->without && r->said.oldest <= r->without)
		return raft_jrn_damaged(r, r->without, 0, "the oldest segment has no valid header", err);
	if (at)
		return raft_jrn_damaged(r, at >> 32, (uint32_t)at, r->doubt.log || r->doubt.config ?
		                        "records that were durable are not valid, and may have had entries that nothing tells of" :
		                        "records that were durable are not valid, and may have had configurations that are not known to be superseded", err);
	if (r->doubt.hard)
		return raft_jrn_damaged(r, r->doubt.at >> 32, (uint32_t)r->doubt.at, "a record that was durable is not valid, and may have been a vote", err);
	if (r->claims.commit > last)
		return raft_jrn_damaged(r, no, off, "a record of committed entries is not valid", err);
	if (r->j->log.mark.index > last || r->j->log.mark.index < r->j->log.base_index)
		return raft_jrn_damaged(r, no, off, "the latest checkpoint mark is missing, or names an entry that is", err);
	return WIRE_OK;
}

/* Makes r->claims speak of all that is behind r->stop. */
static int sweep_behind(struct raft_jrn_recovery *r, struct wire_err *err)
{
	uint64_t no = r->stop >> 32;
	uint32_t off = (uint32_t)r->stop;
	int rc = WIRE_OK;

	for (size_t i = 0; i < r->n_nos && !rc && !r->swept; i++) {
		if (r->nos[i] < no)
			continue;
		rc = raft_jrn_load(r, r->nos[i], UINT32_MAX, err);
		if (!rc)
			raft_jrn_sweep(r, r->nos[i], r->nos[i] == no ? off : 0);
	}
	return rc;
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
		rc = raft_jrn_load(r, at, UINT32_MAX, err);
		if (rc)
			break;
		raft_jrn_sweep(r, at, 0);
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
	int rc = raft_jrn_load_file(r, s->file, s->no, UINT32_MAX, err);

	if (rc)
		return rc;
	raft_jrn_sweep(r, s->no, off);
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
	uint64_t cut = 0;
	int rc = raft_jrn_walk(r, err);

	if (!rc && !r->decided)
		rc = sweep_behind(r, err);
	if (!rc && !r->decided)
		rc = judge(r, err);
	if (!rc)
		rc = drop_later(r, raft_jrn_current(j)->no, &cut, err);
	if (!rc)
		rc = clean_tail(r, r->end, &cut, err);
	for (size_t i = 0; i < j->n_segs && !rc; i++)
		if (j->segs[i]->no >= r->said.synced >> 32)
			rc = j->env->sync(j->env->ctx, j->segs[i]->file, err);
	if (!rc)
		rc = j->env->sync_dir(j->env->ctx, j->dir, err);
	if (rc)
		return rc;
	j->off = r->end;
	j->synced = raft_jrn_pos(raft_jrn_current(j)->no, r->end);
	j->synced_said = r->said.synced;
	j->dirty_from = raft_jrn_current(j)->no;
	j->durable_index = raft_jrn_log_last(&j->log);
	j->commit_said = r->said.commit;
	*ret_cut_bytes = cut;
	return WIRE_OK;
}
