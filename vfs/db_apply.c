/* Entries of the log into publications: many small ones merged into one, and large or chunked or shrinking ones each streamed by itself.
 *
 * Merged: the newest body of each page in memory. Streamed: one pass over the entries for page numbers and hashes, a second one that makes the bodies as the
 * frames are written, so that memory is 28 bytes a page whatever the transaction's size. */
#include "vfs/db_impl.h"
#include "wire/hash.h"
#include "wire/msg.h"
#include <stdlib.h>
#include <string.h>

#define MERGE_BYTES (4u << 20)
#define MERGE_ENTRIES 1000u

struct pending { uint32_t pgno; uint64_t hash, index; };

struct apply {
	struct vfs_db *db;
	db_read_entry_fn read_entry;
	void *read_ctx;
	struct db_open_tx open;
	struct wire_buf data;
	struct vfs_pageset_dec dec;
	uint32_t max_entries;

	uint64_t index;  /* of the last entry that is in here, or was without pages */
	uint32_t n_entries;
	uint64_t sum;      /* state checksum and size with what is pending */
	uint32_t db_pages;
	struct pending *page;
	uint8_t *body; /* n * page_size, in the order of page */
	uint32_t n, cap;
	uint32_t *slot, n_slots; /* place in page + 1; n_slots is a power of two >= 2 * cap */
	uint32_t *order;

	struct vfs_effect *effects; /* of the entries after the published index up to this one's */
	size_t n_effects, cap_effects;
	uint64_t term; /* of the latest entry */
};

/* ---- effects ---- */

/* For one more: nothing that was taken in may lack its own. */
static int effect_room(struct apply *a, struct wire_err *err)
{
	size_t cap = a->cap_effects ? a->cap_effects * 2 : 16;
	struct vfs_effect *grown;

	if (a->n_effects < a->cap_effects)
		return WIRE_OK;
	grown = realloc(a->effects, cap * sizeof *grown);
	if (!grown)
		return wire_fail(err, WIRE_NOMEM, "applying entry %llu to %s: out of memory", (unsigned long long)a->index + 1, a->db->path);
	a->effects = grown;
	a->cap_effects = cap;
	return WIRE_OK;
}

/* h NULL: only the entry's term counts. */
static void add_effect(struct apply *a, uint64_t index, uint64_t term, const struct vfs_pageset_head *h)
{
	if (h)
		a->effects[a->n_effects++] = db_effect_of(h, index, term);
	else if (term != a->term)
		a->effects[a->n_effects++] = (struct vfs_effect){ .index = index, .term = term };
	a->term = term;
}

/* ---- pending pages ---- */

static uint32_t *slot_of(const struct apply *a, uint32_t pgno)
{
	uint32_t i = (pgno * 2654435761u) & (a->n_slots - 1);

	while (a->slot[i] && a->page[a->slot[i] - 1].pgno != pgno)
		i = (i + 1) & (a->n_slots - 1);
	return &a->slot[i];
}

static int grow(struct apply *a, struct wire_err *err)
{
	uint32_t cap = a->cap ? a->cap * 2 : 16;
	struct pending *page = realloc(a->page, cap * sizeof *page);
	uint8_t *body;
	uint32_t *slot;

	if (page)
		a->page = page;
	body = page ? realloc(a->body, (size_t)cap * a->db->page_size) : NULL;
	if (body)
		a->body = body;
	slot = body ? calloc((size_t)cap * 2, sizeof *slot) : NULL;
	if (!slot)
		return wire_fail(err, WIRE_NOMEM, "applying entries to %s: out of memory", a->db->path);
	free(a->slot);
	a->slot = slot;
	a->n_slots = cap * 2;
	a->cap = cap;
	for (uint32_t i = 0; i < a->n; i++)
		*slot_of(a, a->page[i].pgno) = i + 1;
	return WIRE_OK;
}

static void forget(struct apply *a)
{
	if (a->slot)
		memset(a->slot, 0, a->n_slots * sizeof *a->slot);
	a->n = 0;
	a->n_entries = 0;
	a->sum = vfs_pages_checksum(a->db->pages);
	a->db_pages = a->db->hdr.n_page;
}

static int no_base(struct apply *a, uint64_t index, uint32_t pgno, struct wire_err *err)
{
	return wire_fail(err, WIRE_CORRUPT, "%s: entry %llu has ranges for page %u, which was not there before it", a->db->path, (unsigned long long)index, pgno);
}

static int add_page(struct apply *a, uint64_t index, const struct vfs_pageset_head *h, const struct vfs_pageset_page *p, struct wire_err *err)
{
	struct vfs_db *db = a->db;
	uint32_t *slot;
	uint64_t old;
	int rc;

	if (p->pgno > h->db_after)
		return wire_fail(err, WIRE_CORRUPT, "%s: entry %llu has page %u beyond the end (%u pages)", db->path, (unsigned long long)index, p->pgno, h->db_after);
	if (!p->full && p->pgno > h->db_before)
		return no_base(a, index, p->pgno, err);
	if (a->n == a->cap) {
		rc = grow(a, err);
		if (rc)
			return rc;
	}
	slot = slot_of(a, p->pgno);
	if (!*slot) {
		uint8_t *body = a->body + (size_t)a->n * db->page_size;

		if (!p->full) {
			if (p->pgno > db->hdr.n_page)
				return no_base(a, index, p->pgno, err);
			rc = db_read_page(db, p->pgno, body, err);
			if (rc)
				return wire_context(err, "entry %llu, page %u", (unsigned long long)index, p->pgno), rc;
		}
		a->page[a->n] = (struct pending){ .pgno = p->pgno, .hash = vfs_pages_hash(db->pages, p->pgno) };
		*slot = ++a->n;
	}
	old = a->page[*slot - 1].hash;
	rc = vfs_pageset_apply(p, db->page_size, a->body + (size_t)(*slot - 1) * db->page_size, err);
	if (rc)
		return wire_context(err, "%s: entry %llu, page %u", db->path, (unsigned long long)index, p->pgno), rc;
	a->page[*slot - 1].hash = p->hash_after;
	a->page[*slot - 1].index = index;
	if (!vfs_pages_is_lock_page(db->page_size, p->pgno))
		a->sum ^= old ^ p->hash_after;
	return WIRE_OK;
}

static int merge(struct apply *a, uint64_t index, const struct vfs_pageset_head *h, struct wire_err *err)
{
	struct vfs_pageset_page p;
	int rc = vfs_pageset_dec_open(&a->dec, a->data.data, a->data.len, err);

	for (;;) {
		if (rc == WIRE_OK)
			rc = vfs_pageset_dec_next(&a->dec, &p, err);
		if (rc)
			return wire_context(err, "%s: entry %llu", a->db->path, (unsigned long long)index), rc;
		if (p.pgno == 0)
			break;
		rc = add_page(a, index, h, &p, err);
		if (rc)
			return rc;
	}
	a->db_pages = h->db_after;
	if (a->sum != h->sum_after)
		return wire_fail(err, WIRE_CORRUPT, "%s: after entry %llu the state checksum is %016llx, not the entry's %016llx: this replica has diverged", a->db->path,
		                 (unsigned long long)index, (unsigned long long)a->sum, (unsigned long long)h->sum_after);
	a->n_entries++;
	a->index = index;
	return WIRE_OK;
}

/* ---- publishing what is pending ---- */

static int pending_frame(void *ctx, uint32_t i, uint8_t *dst, struct wire_err *err)
{
	const struct apply *a = ctx;

	(void)err;
	memcpy(dst, a->body + (size_t)a->order[i] * a->db->page_size, a->db->page_size);
	return WIRE_OK;
}

static int by_pgno(const void *x, const void *y, void *ctx)
{
	const struct pending *page = ctx;
	uint32_t a = page[*(const uint32_t *)x].pgno, b = page[*(const uint32_t *)y].pgno;

	return (a > b) - (a < b);
}

static int flush(struct apply *a, struct wire_err *err)
{
	struct vfs_publication p = { .index = a->index, .n_frames = a->n, .db_pages = a->db_pages, .ctx = a, .frame = pending_frame, .n_updates = a->n,
		                     .checksum_after = a->sum, .n_effects = a->n_effects, .effects = a->effects };
	struct vfs_page_update *updates;
	uint32_t *pgnos;
	int rc = WIRE_OK;

	if (a->n == 0) {
		rc = db_advance_locked(a->db, a->index, &a->open, a->effects, a->n_effects, err);
		a->n_effects = 0;
		return rc;
	}
	a->order = malloc(a->n * sizeof *a->order);
	pgnos = malloc(a->n * sizeof *pgnos);
	updates = malloc(a->n * sizeof *updates);
	if (!a->order || !pgnos || !updates) {
		rc = wire_fail(err, WIRE_NOMEM, "applying entries to %s: out of memory", a->db->path);
		goto out;
	}
	for (uint32_t i = 0; i < a->n; i++)
		a->order[i] = i;
	qsort_r(a->order, a->n, sizeof *a->order, by_pgno, a->page);
	for (uint32_t i = 0; i < a->n; i++) {
		const struct pending *page = &a->page[a->order[i]];

		pgnos[i] = page->pgno;
		updates[i] = (struct vfs_page_update){ page->pgno, page->hash, page->index };
	}
	p.pgnos = pgnos;
	p.updates = updates;
	rc = db_publish_locked(a->db, &p, err);
out:
	free(a->order);
	a->order = NULL;
	free(pgnos);
	free(updates);
	if (rc == WIRE_OK) {
		a->n_effects = 0;
		forget(a);
	}
	return rc;
}

/* ---- streaming one transaction ---- */

struct stream {
	struct vfs_db *db;
	struct db_cursor cursor;
	uint32_t *pgnos, n, cap;
	struct vfs_page_update *updates;
};

static int stream_frame(void *ctx, uint32_t i, uint8_t *dst, struct wire_err *err)
{
	struct stream *s = ctx;
	struct vfs_pageset_page p;
	int rc = db_cursor_next(&s->cursor, &p, err);

	if (rc)
		return rc;
	if (p.pgno != s->pgnos[i])
		return wire_fail(err, WIRE_CORRUPT, "%s: entries %llu to %llu of the journal changed while they were applied", s->db->path,
		                 (unsigned long long)s->cursor.first, (unsigned long long)s->cursor.close);
	if (!p.full)
		rc = db_read_page(s->db, p.pgno, dst, err);
	if (rc == WIRE_OK)
		rc = vfs_pageset_apply(&p, s->db->page_size, dst, err);
	return rc ? (wire_context(err, "%s: entry %llu, page %u", s->db->path, (unsigned long long)(s->cursor.at - 1), p.pgno), rc) : WIRE_OK;
}

static int stream_collect(struct stream *s, uint32_t db_before, struct wire_err *err)
{
	struct vfs_pageset_page p;

	for (;;) {
		int rc = db_cursor_next(&s->cursor, &p, err);

		if (rc || p.pgno == 0)
			return rc;
		if (!p.full && p.pgno > db_before)
			return wire_fail(err, WIRE_CORRUPT, "%s: entry %llu has ranges for page %u, which was not there before it", s->db->path,
			                 (unsigned long long)(s->cursor.at - 1), p.pgno);
		if (s->n == s->cap) {
			uint32_t cap = s->cap ? s->cap + s->cap / 2 : 4096;
			uint32_t *pgnos = realloc(s->pgnos, cap * sizeof *pgnos);
			struct vfs_page_update *updates;

			if (pgnos)
				s->pgnos = pgnos;
			updates = pgnos ? realloc(s->updates, cap * sizeof *updates) : NULL;
			if (!updates)
				return wire_fail(err, WIRE_NOMEM, "applying entry %llu to %s: out of memory", (unsigned long long)s->cursor.close, s->db->path);
			s->updates = updates;
			s->cap = cap;
		}
		s->pgnos[s->n] = p.pgno;
		s->updates[s->n++] = (struct vfs_page_update){ p.pgno, p.hash_after, s->cursor.close };
	}
}

static int stream_tx(struct apply *a, uint64_t first, uint64_t index, uint64_t term, const struct vfs_pageset_head *h, struct wire_err *err)
{
	struct stream s = { .db = a->db };
	struct vfs_publication p = { .index = index, .db_pages = h->db_after, .ctx = &s, .frame = stream_frame, .checksum_after = h->sum_after };
	int rc;

	db_cursor_init(&s.cursor, a->read_entry, a->read_ctx, first, index, term, h);
	rc = stream_collect(&s, h->db_before, err);
	if (rc == WIRE_OK && s.n == 0)
		rc = wire_fail(err, WIRE_CORRUPT, "%s: entry %llu changes the size but no page", a->db->path, (unsigned long long)index);
	if (rc == WIRE_OK) {
		add_effect(a, index, term, h);
		db_cursor_rewind(&s.cursor);
		p.n_frames = p.n_updates = s.n;
		p.pgnos = s.pgnos;
		p.updates = s.updates;
		p.effects = a->effects;
		p.n_effects = a->n_effects--; /* its own is not left behind when this fails */
		rc = db_publish_locked(a->db, &p, err);
	}
	db_cursor_free(&s.cursor);
	free(s.pgnos);
	free(s.updates);
	if (rc == WIRE_OK) {
		a->index = index;
		a->n_effects = 0;
		forget(a);
	}
	return rc;
}

/* ---- the range ---- */

static int check_head(struct apply *a, uint64_t index, const struct vfs_pageset_head *h, struct wire_err *err)
{
	if (h->sum_before != a->sum || h->db_before != a->db_pages)
		return wire_fail(err, WIRE_CORRUPT, "%s: entry %llu follows checksum %016llx and %u pages, here are %016llx and %u: this replica has diverged", a->db->path,
		                 (unsigned long long)index, (unsigned long long)h->sum_before, h->db_before, (unsigned long long)a->sum, a->db_pages);
	if (h->db_after == 0)
		return wire_fail(err, WIRE_CORRUPT, "%s: entry %llu leaves a database without pages", a->db->path, (unsigned long long)index);
	return WIRE_OK;
}

static int apply_data(struct apply *a, uint64_t index, uint64_t term, struct wire_err *err)
{
	const uint32_t max_pages = MERGE_BYTES / a->db->page_size;
	struct db_open_tx open = a->open;
	struct vfs_pageset_head h;
	enum db_step step;
	int rc = vfs_pageset_head_get(a->data.data, a->data.len, &h, err);

	if (rc)
		return wire_context(err, "%s: entry %llu", a->db->path, (unsigned long long)index), rc;
	if (h.page_size != a->db->page_size)
		return wire_fail(err, WIRE_CORRUPT, "%s: entry %llu is for pages of %u bytes, not %u", a->db->path, (unsigned long long)index, h.page_size, a->db->page_size);
	step = db_open_tx_step(&open, &h, index, term);
	if (step == DB_STEP_SKIP) {
		/* What is pending goes out under an index below the beginning of the open transaction. */
		rc = a->n ? flush(a, err) : WIRE_OK;
		if (rc == WIRE_OK) {
			add_effect(a, index, term, NULL);
			a->open = open;
			a->index = index;
		}
		return rc;
	}
	rc = check_head(a, index, &h, err);
	if (rc)
		return rc;
	if (step == DB_STEP_CLOSE || h.n_pages > max_pages || h.db_after < h.db_before) {
		rc = a->n ? flush(a, err) : WIRE_OK;
		if (rc == WIRE_OK)
			rc = stream_tx(a, step == DB_STEP_CLOSE ? open.first : index, index, term, &h, err);
		if (rc == WIRE_OK)
			a->open = (struct db_open_tx){ 0 };
		return rc;
	}
	if (a->n && (a->n + h.n_pages > max_pages || a->n_entries >= a->max_entries)) {
		rc = flush(a, err);
		if (rc)
			return rc;
	}
	rc = merge(a, index, &h, err);
	if (rc == WIRE_OK) {
		add_effect(a, index, term, &h);
		a->open = (struct db_open_tx){ 0 };
	}
	return rc;
}

static int apply_range(struct apply *a, uint64_t last, struct wire_err *err)
{
	int rc = WIRE_OK;

	a->index = vfs_db_published(a->db);
	a->open = a->db->open;
	a->n_effects = 0;
	a->term = 0;
	forget(a);
	while (rc == WIRE_OK && a->index < last) {
		uint64_t index = a->index + 1, term;
		uint8_t kind;

		wire_buf_reset(&a->data);
		rc = effect_room(a, err);
		if (rc)
			break;
		rc = a->read_entry(a->read_ctx, index, &kind, &term, &a->data, err);
		if (rc)
			wire_context(err, "applying entry %llu to %s", (unsigned long long)index, a->db->path);
		else if (kind == WIRE_ENTRY_DATA)
			rc = apply_data(a, index, term, err);
		else
			add_effect(a, a->index = index, term, NULL);
	}
	return rc;
}

int vfs_db_apply(struct vfs_db *db, uint64_t last,
                 int (*read_entry)(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err), void *read_ctx,
                 struct wire_err *err)
{
	struct apply a = { .db = db, .read_entry = read_entry, .read_ctx = read_ctx, .max_entries = MERGE_ENTRIES };
	int rc;

	pthread_mutex_lock(&db->publisher);
	rc = apply_range(&a, last, err);
	if (rc && a.n_entries > 0 && !db->failed) {
		/* The bad entry may have touched what is pending: once more, one at a time, to stop right before it. */
		a.max_entries = 1;
		rc = apply_range(&a, last, err);
	}
	if (rc == WIRE_OK) {
		rc = flush(&a, err);
	} else if (!db->failed) {
		struct wire_err second = { 0 };

		if (a.n_entries == 0)
			forget(&a); /* the bad entry's beginnings */
		flush(&a, &second); /* the first error is the one to tell */
	}
	pthread_mutex_unlock(&db->publisher);
	free(a.page);
	free(a.body);
	free(a.slot);
	free(a.effects);
	wire_buf_free(&a.data);
	vfs_pageset_dec_free(&a.dec);
	return rc;
}
