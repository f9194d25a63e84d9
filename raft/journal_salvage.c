/* What is kept of a journal whose damage leaves open what it had: raft/JOURNAL.md, "Salvage".
 *
 * The file `salvage` in the journal's directory says what was decided. Its rename is the moment: before it the journal is the damaged one, and from then on
 * whoever opens it first does what the file says, from the beginning, until the file is gone.
 *
 *   0   u64 sum     hash of all that follows
 *   8   u64 magic   "wlvraftS"
 *   16  u32 version 2
 *   20  u64 group
 *   28  u64 keep    place up to which the journal is kept; 0: not at all
 *   36  u64 synced  what attests it: the largest place that was known durable
 *   44  u64 term    the highest that was found
 *   52  u64 oldest  number of the segment that the log begins in
 *   60  keep 0 only: u64 base index, u64 base term, u64 mark index, u64 mark checksum, u32 mark pages, then the configuration */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x5374666172766c77u /* "wlvraftS" */
enum { DECISION_MAX = 64 << 10, BAD_MAX = 8, COPY_PIECE = 256 << 10 };

struct decision {
	uint64_t keep, synced, term, oldest;
	struct raft_journal_start start;
};

static void decision_path(const char *dir, char path[RAFT_JRN_PATH_MAX])
{
	snprintf(path, RAFT_JRN_PATH_MAX, "%s/salvage", dir);
}

static int write_decision(const struct wire_env *env, const char *dir, uint64_t group, const struct decision *d, struct wire_err *err)
{
	char path[RAFT_JRN_PATH_MAX];
	struct wire_buf b = WIRE_BUF_INIT;

	wire_put_u64(&b, 0);
	wire_put_u64(&b, MAGIC);
	wire_put_u32(&b, RAFT_JRN_VERSION);
	wire_put_u64(&b, group);
	wire_put_u64(&b, d->keep);
	wire_put_u64(&b, d->synced);
	wire_put_u64(&b, d->term);
	wire_put_u64(&b, d->oldest);
	if (!d->keep) {
		wire_put_u64(&b, d->start.base_index);
		wire_put_u64(&b, d->start.base_term);
		wire_put_u64(&b, d->start.mark.index);
		wire_put_u64(&b, d->start.mark.checksum);
		wire_put_u32(&b, d->start.mark.db_pages);
		raft_config_put(&d->start.base_config, &b);
	}
	int rc = b.failed ? wire_fail(err, WIRE_NOMEM, "no memory for salvaging a journal") : WIRE_OK;
	if (!rc) {
		wire_set_u64(&b, 0, wire_hash(b.data + 8, b.len - 8, 0));
		decision_path(dir, path);
		rc = wire_env_replace(env, path, b.data, b.len, err);
	}
	wire_buf_free(&b);
	return rc;
}

static int parse_decision(const uint8_t *p, size_t n, uint64_t group, struct decision *d, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, n);
	int rc = WIRE_OK;

	if (n < 60 || wire_get_u64(&in) != wire_hash(p + 8, n - 8, 0) || wire_get_u64(&in) != MAGIC)
		return wire_fail(err, WIRE_CORRUPT, "it is damaged");
	if (wire_get_u32(&in) != RAFT_JRN_VERSION)
		return wire_fail(err, WIRE_VERSION, "it is of another version of this program");
	if (wire_get_u64(&in) != group)
		return wire_fail(err, WIRE_FOREIGN, "it belongs to another group");
	d->keep = wire_get_u64(&in);
	d->synced = wire_get_u64(&in);
	d->term = wire_get_u64(&in);
	d->oldest = wire_get_u64(&in);
	if (!d->keep) {
		d->start.base_index = wire_get_u64(&in);
		d->start.base_term = wire_get_u64(&in);
		d->start.mark.index = wire_get_u64(&in);
		d->start.mark.checksum = wire_get_u64(&in);
		d->start.mark.db_pages = wire_get_u32(&in);
		size_t left = wire_in_left(&in);
		const uint8_t *config = wire_get_bytes(&in, left);
		rc = config ? raft_config_get(config, left, &d->start.base_config, err) : WIRE_CORRUPT;
	}
	if (!rc && (in.bad || wire_in_left(&in)))
		rc = wire_fail(err, WIRE_CORRUPT, "it is damaged");
	return rc;
}

/* WIRE_NOTFOUND: nothing was decided. */
static int read_decision(const struct wire_env *env, const char *dir, uint64_t group, struct decision *d, struct wire_err *err)
{
	char path[RAFT_JRN_PATH_MAX], *text;
	size_t n;

	decision_path(dir, path);
	int rc = wire_env_slurp(env, path, DECISION_MAX, &text, &n, err);
	if (rc)
		return rc;
	rc = parse_decision((const uint8_t *)text, n, group, d, err);
	free(text);
	return rc ? wire_context(err, "%s, which says what is kept of a damaged journal", path) : WIRE_OK;
}

/* ---- looking ---- */

static int sweep_all(struct raft_jrn_recovery *r, struct wire_err *err)
{
	int rc = WIRE_OK;

	for (size_t i = 0; i < r->n_nos && !rc; i++) {
		rc = raft_jrn_load(r, r->nos[i], UINT32_MAX, err);
		if (!rc)
			raft_jrn_sweep(r, r->nos[i], 0);
	}
	return rc;
}

static void end_look(struct raft_jrn_recovery *r)
{
	free(r->buf);
	free(r->nos);
	if (!r->j)
		return;
	r->j->failed = true; /* closes without writing */
	raft_journal_close(r->j);
}

/* Where the log may begin when the segment that it did begin in is missing or damaged: a header tells all of what was before, if the database needs
 * nothing of that. */
static int find_later(struct raft_jrn_recovery *r, struct wire_err *err)
{
	uint64_t after = r->oldest;
	struct raft_jrn_header h;

	for (size_t i = 0; i < r->n_nos; i++) {
		if (r->nos[i] < r->floor || r->nos[i] <= after)
			continue;
		int rc = raft_jrn_load(r, r->nos[i], RAFT_JRN_HEADER_MAX, err);
		if (rc)
			return rc;
		if (raft_jrn_get_header(r->buf, r->size, r->nos[i], &h, NULL) || h.group != r->j->group || h.mark.index + 1 < h.first_index)
			continue;
		r->oldest = h.no;
		r->swept = false;
		return WIRE_OK;
	}
	return wire_fail(err, WIRE_CORRUPT, "nothing of journal %s can be kept", r->j->dir);
}

/* Replays, up to limit if something was decided. WIRE_CORRUPT with j->n_segs 0: there is nothing to begin with. */
static int look(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct decision *d,
                struct raft_jrn_recovery *r, struct wire_err *err)
{
	*r = (struct raft_jrn_recovery){ .limit = UINT64_MAX };
	if (d)
		raft_jrn_follow(r, &(struct raft_jrn_decided){ .keep = d->keep, .synced = d->synced, .oldest = d->oldest });
	int rc = raft_jrn_new(env, dir, opts, &r->j, err);

	if (!rc)
		rc = raft_jrn_list_segments(r, err);
	if (!rc && !r->n_nos)
		rc = wire_fail(err, WIRE_NOTFOUND, "there is no journal in %s", dir);
	if (!rc)
		rc = raft_jrn_find_oldest(r, err);
	if (!rc)
		rc = raft_jrn_walk(r, err);
	if (rc == WIRE_CORRUPT && !d && !r->j->n_segs) {
		rc = find_later(r, err);
		if (!rc)
			rc = raft_jrn_walk(r, err);
	}
	return rc;
}

/* What can be kept, in *d but for the start, and what that is. */
static int decide(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, struct decision *d,
                  struct raft_journal_remains *remains, struct wire_err *err)
{
	struct raft_jrn_recovery r;
	int rc = look(env, dir, opts, NULL, &r, err);

	*d = (struct decision){ 0 };
	*remains = (struct raft_journal_remains){ 0 };
	if (!rc || rc == WIRE_CORRUPT) {
		uint64_t at = raft_jrn_doubtful(&r);
		d->keep = !r.j->n_segs ? 0 : at ? at : r.stop;
		rc = sweep_all(&r, err);
		d->synced = r.claims.synced;
		d->oldest = r.j->n_segs ? r.j->segs[0]->no : 0;
		d->term = remains->term = r.claims.term;
	}
	end_look(&r);
	if (rc || !d->keep)
		return rc;
	rc = look(env, dir, opts, d, &r, err);
	/* What is left out may have been what settled something before it: that it is committed. */
	for (uint64_t at; !rc && (at = raft_jrn_doubtful(&r)) && at < d->keep; rc = look(env, dir, opts, d, &r, err)) {
		d->keep = at;
		end_look(&r);
	}
	if (!rc) {
		const struct raft_jrn_log *l = &r.j->log;
		uint64_t last = raft_jrn_log_last(l);
		*remains = (struct raft_journal_remains){ .term = d->term, .log = true, .base_index = l->base_index, .last_index = last,
			                                  .commit = r.j->commit_seen, .n_holes = l->n_holes, .mark = l->mark,
			                                  .config = *raft_jrn_log_config(l, last) };
		/* Without the mark the database cannot be told from the log. */
		if (raft_jrn_doubtful(&r) || l->mark.index > last || l->mark.index < l->base_index)
			d->keep = 0;
	}
	end_look(&r);
	if (!rc && !d->keep)
		*remains = (struct raft_journal_remains){ .term = d->term };
	return rc;
}

int raft_journal_examine(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, struct raft_journal_remains *ret_remains,
                         struct wire_err *err)
{
	struct raft_journal_remains remains;
	struct decision d;
	int rc = decide(env, dir, opts, &d, &remains, err);

	if (!rc)
		*ret_remains = remains;
	return rc;
}

/* ---- doing ---- */

struct bad_files {
	uint64_t nos[BAD_MAX + 1];
	size_t n;
};

static int each_bad(void *arg, const char *name)
{
	struct bad_files *b = arg;
	unsigned long long no = 0;
	size_t digits = strspn(name, "0123456789");

	if (digits == 16 && !strcmp(name + digits, ".seg.bad") && sscanf(name, "%llu", &no) == 1 && b->n <= BAD_MAX)
		b->nos[b->n++] = no;
	return 0;
}

static void bad_path(const struct raft_journal *j, uint64_t no, char path[RAFT_JRN_PATH_MAX])
{
	snprintf(path, RAFT_JRN_PATH_MAX, "%s/%016llu.seg.bad", j->dir, (unsigned long long)no);
}

/* True when a copy of segment `no` may be kept: there is none yet, and not too many others; the oldest one makes room. */
static int room_for_bad(const struct raft_journal *j, uint64_t no, bool *ret_room, struct wire_err *err)
{
	struct bad_files b = { .n = 0 };
	char path[RAFT_JRN_PATH_MAX];
	int rc = j->env->list(j->env->ctx, j->dir, each_bad, &b, err);

	*ret_room = true;
	for (size_t i = 0; i < b.n; i++)
		*ret_room &= b.nos[i] != no;
	if (rc || !*ret_room || b.n < BAD_MAX)
		return rc;
	qsort(b.nos, b.n, sizeof(*b.nos), raft_jrn_compare_nos);
	bad_path(j, b.nos[0], path);
	return j->env->unlink(j->env->ctx, path, err);
}

static int set_aside(const struct raft_journal *j, uint64_t no, struct wire_err *err)
{
	char from[RAFT_JRN_PATH_MAX], to[RAFT_JRN_PATH_MAX];
	bool room;
	int rc = room_for_bad(j, no, &room, err);

	raft_jrn_path(j, no, from);
	bad_path(j, no, to);
	if (rc)
		return rc;
	return room ? j->env->rename(j->env->ctx, from, to, err) : j->env->unlink(j->env->ctx, from, err);
}

static int copy_bytes(const struct raft_journal *j, struct wire_file *from, struct wire_file *to, struct wire_err *err)
{
	uint8_t *piece = malloc(COPY_PIECE);
	int rc = piece ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "no memory for copying a journal segment");
	uint64_t at = 0;

	for (size_t got = COPY_PIECE; !rc && got == COPY_PIECE; at += got) {
		rc = j->env->read(j->env->ctx, from, piece, COPY_PIECE, at, &got, err);
		if (!rc && got)
			rc = j->env->write(j->env->ctx, to, piece, got, at, err);
	}
	free(piece);
	return rc ? rc : j->env->sync(j->env->ctx, to, err);
}

/* The segment that is kept in part, for people: without room on the disk there is none. */
static int copy_aside(const struct raft_jrn_recovery *r, uint64_t no, struct wire_err *err)
{
	const struct raft_journal *j = r->j;
	struct wire_file *from, *to;
	char path[RAFT_JRN_PATH_MAX];
	bool room;
	int rc = room_for_bad(j, no, &room, err);

	if (rc || !room)
		return rc;
	bad_path(j, no, path);
	rc = raft_jrn_open_file(r, no, &from, err);
	if (rc)
		return rc;
	rc = j->env->open(j->env->ctx, path, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &to, err);
	if (!rc) {
		rc = copy_bytes(j, from, to, err);
		j->env->close(j->env->ctx, to);
		if (rc == WIRE_FULL)
			rc = j->env->unlink(j->env->ctx, path, err);
	}
	j->env->close(j->env->ctx, from);
	return rc == WIRE_FULL ? WIRE_OK : rc;
}

/* Only what is kept has the names of segments then. */
static int clear_names(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct decision *d, struct wire_err *err)
{
	struct raft_jrn_recovery r = { 0 };
	uint64_t last = d->keep >> 32;
	int rc = raft_jrn_new(env, dir, opts, &r.j, err);

	if (!rc)
		rc = raft_jrn_list_segments(&r, err);
	if (d->keep && !(uint32_t)d->keep)
		last--; /* it ends with the one before */
	for (size_t i = r.n_nos; i-- > 0 && !rc;)
		if (r.nos[i] > last || r.nos[i] < d->oldest)
			rc = set_aside(r.j, r.nos[i], err);
	if (!rc && raft_jrn_is_there(&r, last))
		rc = copy_aside(&r, last, err);
	if (!rc)
		rc = env->sync_dir(env->ctx, dir, err);
	end_look(&r);
	return rc;
}

static int keep_part(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct decision *d, struct wire_err *err)
{
	struct raft_journal_state st;
	struct raft_journal *j;
	const struct raft_jrn_decided decided = { .keep = d->keep, .synced = d->synced, .oldest = d->oldest };
	int rc = raft_jrn_open_as_is(env, dir, opts, &decided, &j, &st, err);

	if (rc)
		return rc;
	rc = raft_jrn_say_oldest(j, err); /* who said it may be set aside */
	if (!rc)
		rc = raft_journal_append_forgetful(j, true, err);
	if (!rc)
		rc = raft_journal_append_vote(j, d->term > st.term ? d->term : st.term, 0, err);
	if (!rc)
		rc = raft_journal_append_note(j, "what was damaged is set aside, in *.seg.bad", err);
	if (!rc)
		rc = raft_journal_sync(j, err);
	if (rc)
		j->failed = true;
	raft_journal_close(j);
	return rc;
}

static int begin_anew(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct decision *d, struct wire_err *err)
{
	const struct raft_journal_start *s = &d->start;
	struct raft_journal *j;
	int rc = raft_jrn_new(env, dir, opts, &j, err);

	if (rc)
		return rc;
	rc = raft_jrn_remove_unfinished(j, err);
	if (!rc) {
		j->log = (struct raft_jrn_log){ .base_index = s->base_index, .base_term = s->base_term, .base_config = s->base_config,
			                        .term = d->term, .forgetful = true, .mark = s->mark };
		j->commit_seen = j->durable_index = s->base_index;
		rc = raft_jrn_create_first(j, err);
	}
	j->failed = true; /* closes without writing */
	raft_journal_close(j);
	return rc;
}

int raft_jrn_finish_salvage(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, struct wire_err *err)
{
	char path[RAFT_JRN_PATH_MAX];
	struct decision d = { 0 };
	struct wire_err none;
	int rc = read_decision(env, dir, opts->group, &d, &none);

	if (rc == WIRE_NOTFOUND)
		return WIRE_OK;
	if (rc) {
		if (err)
			*err = none;
		return rc;
	}
	rc = clear_names(env, dir, opts, &d, err);
	if (!rc)
		rc = d.keep ? keep_part(env, dir, opts, &d, err) : begin_anew(env, dir, opts, &d, err);
	decision_path(dir, path);
	if (!rc)
		rc = env->unlink(env->ctx, path, err);
	if (!rc)
		rc = env->sync_dir(env->ctx, dir, err);
	return rc ? wire_context(err, "salvaging journal %s", dir) : WIRE_OK;
}

int raft_journal_salvage(const struct wire_env *env, const char *dir, const struct raft_journal_opts *opts, const struct raft_journal_start *start,
                         struct wire_err *err)
{
	struct raft_journal_remains remains;
	struct decision d;
	int rc = raft_jrn_finish_salvage(env, dir, opts, err);

	if (rc)
		return rc;
	rc = env->mkdir(env->ctx, dir, err);
	if (rc && rc != WIRE_EXISTS)
		return rc;
	rc = decide(env, dir, opts, &d, &remains, err);
	if (rc && rc != WIRE_NOTFOUND)
		return rc;
	if (!d.keep && !start)
		return wire_fail(err, WIRE_NOTFOUND, "nothing of journal %s can be kept, and nothing says where it began", dir);
	if (start) {
		d.start = *start;
		raft_jrn_raise(&d.term, start->term);
		raft_jrn_raise(&d.term, start->base_term);
	}
	if (!d.keep && start->mark.index > start->base_index)
		return wire_fail(err, WIRE_INVALID, "a journal from %llu cannot have its mark at %llu", (unsigned long long)start->base_index,
		                 (unsigned long long)start->mark.index);
	rc = write_decision(env, dir, opts->group, &d, err);
	return rc ? rc : raft_jrn_finish_salvage(env, dir, opts, err);
}
