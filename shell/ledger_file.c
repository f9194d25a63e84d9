/* The ledger's file: read, appended to, written anew (ledger.h has the bytes and the rule). */
#include "shell/ledger_impl.h"
#include "wire/buf.h"
#include "wire/hash.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x4c74666172766c77u
#define VERSION 1
#define HEAD_BYTES 64
#define BLOCK_BYTES (64u << 10)         /* a block is ended by the item that makes it so long */
#define BLOCK_MAX (BLOCK_BYTES + 256)
#define BLOCK_COMMITS 0x80000000u
#define BATCH 512u                      /* ids or sessions that are read in one hold of the lock */
#define KEEP_BYTES (256u << 10)         /* so much may be outdated in any file */
#define FLAG_NOT_WHOLE 1

/* ---- blocks ---- */

struct writer {
	const struct wire_env *env;
	struct wire_file *file;
	uint64_t number, at; /* at: where buf goes */
	struct wire_buf buf; /* sealed blocks, and one that is not */
	size_t open;         /* where that begins */
};

static void begin_block(struct writer *w)
{
	w->open = w->buf.len;
	wire_put_u32(&w->buf, 0);
}

static void seal(struct writer *w, uint32_t commits)
{
	size_t len = w->buf.len - w->open - 4;

	if (!len || w->buf.failed)
		return;
	wire_set_u32(&w->buf, w->open, (uint32_t)len | commits);
	wire_put_u64(&w->buf, wire_hash(w->buf.data + w->open, len + 4, w->number ^ (w->at + w->open)));
	begin_block(w);
}

static void item_done(struct writer *w)
{
	if (w->buf.len - w->open >= BLOCK_BYTES)
		seal(w, 0);
}

static int write_out(struct writer *w, struct wire_err *err)
{
	int rc;

	seal(w, 0);
	if (w->buf.failed)
		return wire_fail(err, WIRE_NOMEM, "no memory for writing the ledger");
	rc = w->open ? w->env->write(w->env->ctx, w->file, w->buf.data, w->open, w->at, err) : WIRE_OK;
	if (rc)
		return rc;
	w->at += w->open;
	wire_buf_reset(&w->buf);
	begin_block(w);
	return WIRE_OK;
}

/* ---- items ---- */

static void put_term(struct writer *w, const struct ledger_term *t)
{
	struct wire_buf *b = &w->buf;

	wire_put_u8(b, 'T');
	wire_put_varint(b, t->term);
	wire_put_varint(b, t->first);
	item_done(w);
}

static void put_id(struct writer *w, const struct ledger_id *e)
{
	struct wire_buf *b = &w->buf;
	struct shell_txid id;
	int64_t above;

	shell_txid_get(e->id, &id);
	above = (int64_t)(e->index - id.index);
	wire_put_u8(b, 'I');
	wire_put_varint(b, e->index);
	wire_put_varint(b, id.term);
	wire_put_varint(b, (uint64_t)above << 1 ^ (above < 0 ? UINT64_MAX : 0));
	wire_put_varint(b, id.number);
	item_done(w);
}

static void put_session(struct writer *w, const struct ledger_session *e)
{
	struct wire_buf *b = &w->buf;

	wire_put_u8(b, 'S');
	wire_put_varint(b, e->s.index);
	wire_put_varint(b, e->s.seq);
	wire_put_varint(b, e->s.time_us);
	wire_put_varint(b, e->s.until_us - e->s.time_us);
	wire_put_u8(b, e->len);
	wire_put_bytes(b, e->id, e->len);
	item_done(w);
}

static void put_commit(struct writer *w, const struct shell_ledger *l) /* mu */
{
	struct wire_buf *b = &w->buf;

	wire_put_u8(b, 'C');
	wire_put_u8(b, l->whole ? 0 : FLAG_NOT_WHOLE);
	wire_put_varint(b, l->index);
	wire_put_varint(b, l->term);
	wire_put_varint(b, l->time_us);
	wire_put_varint(b, l->from);
	wire_put_varint(b, l->n_terms);
	wire_put_varint(b, l->ids.n);
	wire_put_varint(b, l->sessions.n);
	wire_put_u64(b, ledger_checksum(l));
	seal(w, BLOCK_COMMITS);
}

/* ---- writing ---- */

/* What is newer than `since`, and the commit; mostly little. ids_from: number of the first id that is wanted. mu held. */
static void put_news(struct writer *w, const struct shell_ledger *l, uint64_t since, uint64_t ids_from)
{
	uint32_t terms = l->n_terms, ref = l->sessions.newest;

	while (terms && l->terms[terms - 1].first > since)
		terms--;
	for (; terms < l->n_terms; terms++)
		put_term(w, &l->terms[terms]);
	if (ids_from < l->ids.end - l->ids.n)
		ids_from = l->ids.end - l->ids.n;
	for (; ids_from < l->ids.end; ids_from++)
		put_id(w, ledger_ids_at(&l->ids, ids_from));
	for (; ref; ref = ledger_sessions_at(&l->sessions, ref)->older) {
		if (ledger_sessions_at(&l->sessions, ref)->s.index <= since)
			break;
		put_session(w, ledger_sessions_at(&l->sessions, ref));
	}
	put_commit(w, l);
}

static uint64_t ids_after(const struct shell_ledger *l, uint64_t index) /* number of the first id above index; mu */
{
	uint64_t i = l->ids.end;

	while (i > l->ids.end - l->ids.n && ledger_ids_at(&l->ids, i - 1)->index > index)
		i--;
	return i;
}

/* The next ids from *number on; false: that is all for now. */
static bool some_ids(struct shell_ledger *l, struct writer *w, uint64_t *number)
{
	uint32_t n = 0;

	pthread_mutex_lock(&l->mu);
	if (*number < l->ids.end - l->ids.n)
		*number = l->ids.end - l->ids.n;
	for (; n < BATCH && *number < l->ids.end; n++)
		put_id(w, ledger_ids_at(&l->ids, (*number)++));
	pthread_mutex_unlock(&l->mu);
	return n == BATCH;
}

static bool some_sessions(struct shell_ledger *l, struct writer *w, uint32_t *slots)
{
	bool more;

	pthread_mutex_lock(&l->mu);
	for (uint32_t n = 0; n < BATCH && *slots < l->sessions.used; n++) {
		const struct ledger_session *e = ledger_sessions_at(&l->sessions, ++*slots);

		if (e->len)
			put_session(w, e);
	}
	more = *slots < l->sessions.used;
	pthread_mutex_unlock(&l->mu);
	return more;
}

static int write_head(struct writer *w, uint64_t group, struct wire_err *err)
{
	uint8_t head[HEAD_BYTES] = { 0 };

	wire_set_le64(head + 8, MAGIC);
	wire_set_le32(head + 16, VERSION);
	wire_set_le32(head + 20, SHELL_LEDGER_IDS);
	wire_set_le64(head + 24, group);
	wire_set_le64(head + 32, w->number);
	wire_set_le64(head, wire_hash(head + 8, sizeof head - 8, 0));
	w->at = sizeof head;
	begin_block(w);
	return w->env->write(w->env->ctx, w->file, head, sizeof head, 0, err);
}

/* All of it, while it changes: whatever moved since the beginning comes once more at the end. *ret_index: as of when it is. */
static int write_all(struct shell_ledger *l, struct writer *w, uint64_t group, uint64_t *ret_index, struct wire_err *err)
{
	uint64_t since, ids = 0;
	uint32_t slots = 0;
	bool more = true;
	int rc = WIRE_OK;

	rc = write_head(w, group, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&l->mu);
	since = l->index;
	for (uint32_t i = 0; i < l->n_terms; i++) /* few, in any life */
		put_term(w, &l->terms[i]);
	pthread_mutex_unlock(&l->mu);
	for (; !rc && more; rc = w->open ? write_out(w, err) : WIRE_OK)
		more = some_ids(l, w, &ids);
	for (more = true; !rc && more; rc = w->open ? write_out(w, err) : WIRE_OK)
		more = some_sessions(l, w, &slots);
	if (rc)
		return rc;
	pthread_mutex_lock(&l->mu);
	put_news(w, l, since, ids);
	*ret_index = l->index;
	pthread_mutex_unlock(&l->mu);
	return write_out(w, err);
}

static int write_new(struct shell_ledger *l, const struct wire_env *env, const char *path, uint64_t group, struct writer *w, uint64_t *ret_index, struct wire_err *err)
{
	int rc;

	*w = (struct writer){ .env = env };
	env->random(env->ctx, &w->number, sizeof w->number);
	rc = env->open(env->ctx, path, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &w->file, err);
	if (rc)
		return rc;
	rc = env->truncate(env->ctx, w->file, 0, err);
	if (!rc)
		rc = write_all(l, w, group, ret_index, err);
	wire_buf_free(&w->buf);
	if (rc)
		env->close(env->ctx, w->file);
	return rc;
}

int shell_ledger_copy(struct shell_ledger *l, const struct wire_env *env, const char *path, uint64_t group, uint64_t *ret_index, struct wire_err *err)
{
	struct writer w;
	int rc = write_new(l, env, path, group, &w, ret_index, err);

	if (!rc)
		env->close(env->ctx, w.file);
	return rc;
}

/* ---- flushing ---- */

void ledger_file_close(struct ledger_file *f)
{
	if (f->file)
		f->env->close(f->env->ctx, f->file);
	f->file = NULL;
}

static int sync_dir_of(const struct wire_env *env, const char *path, struct wire_err *err)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];

	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash == path ? 1 : slash - path) : 1, slash ? path : ".");
	return env->sync_dir(env->ctx, dir, err);
}

/* Into its place only when it is durable: whichever of the two a crash leaves is whole. */
static int replace(struct shell_ledger *l, const struct wire_env *env, const char *path, uint64_t group, struct wire_err *err)
{
	struct ledger_file *f = &l->f;
	char fresh[PATH_MAX];
	struct writer w;
	uint64_t index;
	bool whole = l->whole; /* this thread's to change */
	int rc;

	if (snprintf(fresh, sizeof fresh, "%s.new", path) >= (int)sizeof fresh)
		return wire_fail(err, WIRE_INVALID, "%s is too long a name", path);
	rc = write_new(l, env, fresh, group, &w, &index, err);
	if (rc)
		return rc;
	rc = env->sync(env->ctx, w.file, err);
	if (!rc)
		rc = env->rename(env->ctx, fresh, path, err);
	if (!rc)
		rc = sync_dir_of(env, path, err);
	if (rc) {
		env->close(env->ctx, w.file);
		return rc;
	}
	ledger_file_close(f);
	*f = (struct ledger_file){ .env = env, .file = w.file, .number = w.number, .at = w.at, .flushed = index, .whole = whole };
	return WIRE_OK;
}

static int append(struct shell_ledger *l, struct wire_err *err)
{
	struct ledger_file *f = &l->f;
	struct writer w = { .env = f->env, .file = f->file, .number = f->number, .at = f->at };
	uint64_t index;
	bool whole;
	int rc;

	begin_block(&w);
	pthread_mutex_lock(&l->mu);
	index = l->index;
	whole = l->whole;
	if (index != f->flushed || whole != f->whole)
		put_news(&w, l, f->flushed, ids_after(l, f->flushed));
	pthread_mutex_unlock(&l->mu);
	rc = write_out(&w, err);
	if (!rc && w.at != f->at)
		rc = f->env->sync(f->env->ctx, f->file, err);
	wire_buf_free(&w.buf);
	if (rc)
		return rc;
	f->at = w.at;
	f->flushed = index;
	f->whole = whole;
	return WIRE_OK;
}

/* About what a new file would have. */
static uint64_t needed_bytes(struct shell_ledger *l)
{
	uint64_t bytes;

	pthread_mutex_lock(&l->mu);
	bytes = HEAD_BYTES + 8u * l->n_terms + 12u * l->ids.n + 22u * l->sessions.n + l->sessions.id_bytes;
	pthread_mutex_unlock(&l->mu);
	return bytes;
}

int shell_ledger_flush(struct shell_ledger *l, const struct wire_env *env, const char *path, uint64_t group, struct wire_err *err)
{
	struct ledger_file *f = &l->f;
	int rc;

	if (f->failed)
		rc = wire_fail(err, WIRE_IO, "an earlier write of it failed");
	else if (!f->file || f->at > needed_bytes(l) * 3 / 2 + KEEP_BYTES)
		rc = replace(l, env, path, group, err);
	else
		rc = append(l, err);
	if (rc) {
		f->failed = true;
		wire_context(err, "the ledger %s", path);
	}
	l->file_bytes = f->at;
	return rc;
}

/* ---- reading ---- */

struct reader {
	const struct wire_env *env;
	struct wire_file *file;
	const char *path;
	uint64_t number, at, size;
	uint8_t *block; /* BLOCK_MAX + 12 */
};

static int damaged(const struct reader *r, struct wire_err *err, const char *what)
{
	return wire_fail(err, WIRE_CORRUPT, "the ledger %s is damaged: %s", r->path, what);
}

static int read_head(struct reader *r, uint64_t group, struct wire_err *err)
{
	uint8_t head[HEAD_BYTES];
	size_t n;
	int rc = r->env->size(r->env->ctx, r->file, &r->size, err);

	if (!rc)
		rc = r->env->read(r->env->ctx, r->file, head, sizeof head, 0, &n, err);
	if (rc)
		return rc;
	if (n < sizeof head || wire_le64(head) != wire_hash(head + 8, HEAD_BYTES - 8, 0) || wire_le64(head + 8) != MAGIC)
		return damaged(r, err, "its beginning is not what was written there");
	if (wire_le32(head + 16) != VERSION || wire_le32(head + 20) != SHELL_LEDGER_IDS)
		return wire_fail(err, WIRE_VERSION, "the ledger %s has format %u, this program knows %u: use the version of walraft that wrote it", r->path, wire_le32(head + 16), VERSION);
	if (wire_le64(head + 24) != group)
		return wire_fail(err, WIRE_FOREIGN, "the ledger %s is of another database", r->path);
	r->number = wire_le64(head + 32);
	return WIRE_OK;
}

/* The next block's items; *ret_in is empty at the end, be it torn or not. */
static int next_block(struct reader *r, struct wire_in *ret_in, bool *ret_commits, struct wire_err *err)
{
	uint32_t len;
	size_t n;
	int rc = r->env->read(r->env->ctx, r->file, r->block, 4, r->at, &n, err);

	*ret_in = wire_in_make(r->block, 0);
	if (rc || n < 4)
		return rc;
	len = wire_le32(r->block) & ~BLOCK_COMMITS;
	if (len == 0 || len > BLOCK_MAX)
		return WIRE_OK;
	rc = r->env->read(r->env->ctx, r->file, r->block + 4, len + 8, r->at + 4, &n, err);
	if (rc || n < len + 8 || wire_le64(r->block + 4 + len) != wire_hash(r->block, len + 4, r->number ^ r->at))
		return rc;
	*ret_in = wire_in_make(r->block + 4, len);
	*ret_commits = wire_le32(r->block) & BLOCK_COMMITS;
	r->at += 12 + (uint64_t)len;
	return WIRE_OK;
}

struct commit { uint64_t flags, index, term, time_us, from, terms, ids, sessions, checksum; };

static int get_item(struct shell_ledger *l, struct wire_in *in, struct commit *ret_commit)
{
	uint8_t kind = wire_get_u8(in);
	uint64_t v[8];

	if (kind == 'C') {
		v[0] = wire_get_u8(in);
		for (int i = 1; i < 8; i++)
			v[i] = wire_get_varint(in);
		*ret_commit = (struct commit){ v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], wire_get_u64(in) };
		return in->bad ? WIRE_CORRUPT : WIRE_OK;
	}
	for (int i = 0; i < (kind == 'T' ? 2 : 4); i++)
		v[i] = wire_get_varint(in);
	if (kind == 'T') {
		if (in->bad || v[0] <= l->term || (l->n_terms && v[1] < l->terms[l->n_terms - 1].first))
			return WIRE_CORRUPT;
		return ledger_term_put(l, v[0], v[1]);
	}
	if (kind == 'I') {
		const struct shell_txid id = { .term = v[1], .index = v[0] - (v[2] >> 1 ^ (v[2] & 1 ? UINT64_MAX : 0)), .number = (uint32_t)v[3] };
		uint8_t bytes[VFS_TXID_BYTES];
		uint64_t from;

		if (in->bad || id.term >> 48 || id.index >> 48 || v[3] > UINT32_MAX || (l->ids.n && v[0] <= ledger_ids_at(&l->ids, l->ids.end - 1)->index))
			return WIRE_CORRUPT;
		shell_txid_put(&id, bytes);
		return ledger_ids_put(&l->ids, bytes, v[0], &from);
	}
	if (kind == 'S') {
		const struct shell_session s = { .index = v[0], .seq = v[1], .time_us = v[2], .until_us = v[2] + v[3] };
		uint8_t len = wire_get_u8(in);
		const uint8_t *id = len && len <= VFS_ONCE_ID_MAX ? wire_get_bytes(in, len) : NULL;

		return in->bad || !id ? WIRE_CORRUPT : ledger_sessions_put(&l->sessions, id, len, &s);
	}
	return WIRE_CORRUPT;
}

/* The end of the last block that counts. */
static int find_end(struct reader *r, uint64_t *ret_end, struct wire_err *err)
{
	uint64_t end = HEAD_BYTES;
	struct wire_in in;
	bool commits = false;
	int rc;

	r->at = HEAD_BYTES;
	while ((rc = next_block(r, &in, &commits, err)) == WIRE_OK && wire_in_left(&in))
		if (commits)
			end = r->at;
	*ret_end = end;
	return rc;
}

static int read_items(struct reader *r, uint64_t end, struct shell_ledger *l, struct commit *ret_commit, struct wire_err *err)
{
	int rc = WIRE_OK;

	for (r->at = HEAD_BYTES; r->at < end && !rc;) {
		struct wire_in in;
		bool commits;

		rc = next_block(r, &in, &commits, err);
		if (rc)
			return rc;
		if (!wire_in_left(&in))
			return damaged(r, err, "what was read just now cannot be read again");
		while (wire_in_left(&in) && !rc)
			rc = get_item(l, &in, ret_commit);
	}
	if (rc == WIRE_NOMEM)
		return wire_fail(err, rc, "no memory for the ledger %s", r->path);
	return rc ? damaged(r, err, "an item in it makes no sense") : WIRE_OK;
}

static int take_commit(const struct reader *r, struct shell_ledger *l, const struct commit *c, struct wire_err *err)
{
	ledger_sessions_expire(&l->sessions, c->time_us);
	l->index = c->index;
	l->term = c->term;
	l->time_us = c->time_us;
	l->from = c->from;
	l->whole = !(c->flags & FLAG_NOT_WHOLE);
	if (c->terms != l->n_terms || c->ids != l->ids.n || c->sessions != l->sessions.n || c->checksum != ledger_checksum(l))
		return damaged(r, err, "it is not what its checksum says");
	return WIRE_OK;
}

static int load(struct reader *r, uint64_t group, struct shell_ledger *l, struct wire_err *err)
{
	struct commit c = { 0 };
	uint64_t end = 0;
	int rc = read_head(r, group, err);

	if (!rc)
		rc = find_end(r, &end, err);
	if (!rc && end == HEAD_BYTES)
		rc = damaged(r, err, "nothing in it can be read");
	if (!rc)
		rc = read_items(r, end, l, &c, err);
	if (!rc)
		rc = take_commit(r, l, &c, err);
	r->at = end;
	return rc;
}

int shell_ledger_open(const struct wire_env *env, const char *path, uint64_t group, struct shell_ledger **ret_ledger, uint64_t *ret_cut, struct wire_err *err)
{
	struct reader r = { .env = env, .path = path, .block = malloc(BLOCK_MAX + 12) };
	struct shell_ledger *l = shell_ledger_new(0, 0, true);
	int rc = l && r.block ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "no memory for the ledger %s", path);

	if (!rc)
		rc = env->open(env->ctx, path, WIRE_OPEN_WRITE, &r.file, err);
	if (!rc)
		rc = load(&r, group, l, err);
	free(r.block);
	if (rc) {
		if (r.file)
			env->close(env->ctx, r.file);
		shell_ledger_free(l);
		return rc;
	}
	l->f = (struct ledger_file){ .env = env, .file = r.file, .number = r.number, .at = r.at, .flushed = l->index, .whole = l->whole };
	l->file_bytes = r.at;
	/* What is torn is not written over: remains of it could be taken for what follows. The next flush begins a new file. */
	if (r.at < r.size)
		ledger_file_close(&l->f);
	*ret_ledger = l;
	*ret_cut = r.size - r.at;
	return WIRE_OK;
}
