/* Transactions as they lie in the log: which entry changes the database, and the pages of one over all its chunks. */
#include "vfs/db_impl.h"
#include "wire/msg.h"
#include <string.h>

enum db_step db_open_tx_step(struct db_open_tx *t, const struct vfs_pageset_head *h, uint64_t index, uint64_t term)
{
	bool first = h->flags & VFS_PAGESET_FIRST, close = h->flags & VFS_PAGESET_CLOSE, continues;

	if (first) {
		/* Whatever was open has lost its writer: its close can't come any more. */
		*t = (struct db_open_tx){ 0 };
		if (close)
			return DB_STEP_WHOLE;
		t->first = index;
		t->term = term;
		t->chunks = 1;
		memcpy(t->txid, h->txid, sizeof t->txid);
		return DB_STEP_SKIP;
	}
	continues = t->first && t->term == term && memcmp(t->txid, h->txid, sizeof t->txid) == 0;
	if (!continues)
		return DB_STEP_SKIP;
	t->chunks++;
	if (!close)
		return DB_STEP_SKIP;
	if (h->first_index == t->first && h->n_chunks == t->chunks)
		return DB_STEP_CLOSE;
	*t = (struct db_open_tx){ 0 };
	return DB_STEP_SKIP;
}

struct vfs_effect db_effect_of(const struct vfs_pageset_head *h, uint64_t index, uint64_t term)
{
	struct vfs_effect e = { .index = index, .term = term, .transaction = true, .timestamp_us = h->timestamp_us, .once = h->once };

	memcpy(e.txid, h->txid, sizeof e.txid);
	return e;
}

int vfs_log_effects(uint64_t first, uint64_t last, db_read_entry_fn read_entry, void *read_ctx, int (*each)(void *ctx, const struct vfs_effect *e, struct wire_err *err), void *ctx,
                    struct wire_err *err)
{
	struct wire_buf data = WIRE_BUF_INIT;
	struct db_open_tx open = { 0 };
	uint64_t before = 0;
	int rc = WIRE_OK;

	for (uint64_t index = first; index <= last && rc == WIRE_OK; index++) {
		struct vfs_effect e = { .index = index };
		struct vfs_pageset_head h;
		uint8_t kind;

		wire_buf_reset(&data);
		rc = read_entry(read_ctx, index, &kind, &e.term, &data, err);
		if (rc == WIRE_OK && kind == WIRE_ENTRY_DATA) {
			rc = vfs_pageset_head_get(data.data, data.len, &h, err);
			if (rc == WIRE_OK && db_open_tx_step(&open, &h, index, e.term) != DB_STEP_SKIP) {
				e = db_effect_of(&h, index, e.term);
				open = (struct db_open_tx){ 0 };
			}
		}
		if (rc)
			wire_context(err, "entry %llu", (unsigned long long)index);
		else if (e.transaction || e.term != before)
			rc = each(ctx, &e, err);
		before = e.term;
	}
	wire_buf_free(&data);
	return rc;
}

void db_cursor_init(struct db_cursor *c, db_read_entry_fn read_entry, void *read_ctx, uint64_t first, uint64_t close, uint64_t term, const struct vfs_pageset_head *h)
{
	*c = (struct db_cursor){ .read_entry = read_entry, .read_ctx = read_ctx, .first = first, .close = close, .term = term, .at = first,
		                 .page_size = h->page_size, .db_after = h->db_after };
	memcpy(c->txid, h->txid, sizeof c->txid);
}

void db_cursor_rewind(struct db_cursor *c)
{
	c->at = c->first;
	c->last_pgno = 0;
	c->decoding = false;
}

void db_cursor_free(struct db_cursor *c)
{
	vfs_pageset_dec_free(&c->dec);
	wire_buf_free(&c->data);
}

static int next_entry(struct db_cursor *c, struct wire_err *err)
{
	struct vfs_pageset_head h;
	uint64_t term, index = c->at++;
	uint8_t kind;
	int rc;

	wire_buf_reset(&c->data);
	rc = c->read_entry(c->read_ctx, index, &kind, &term, &c->data, err);
	if (rc || kind != WIRE_ENTRY_DATA || term != c->term)
		return rc;
	rc = vfs_pageset_head_get(c->data.data, c->data.len, &h, err);
	if (rc)
		return wire_context(err, "entry %llu", (unsigned long long)index), rc;
	if (memcmp(h.txid, c->txid, sizeof c->txid) != 0)
		return WIRE_OK;
	if (h.page_size != c->page_size)
		return wire_fail(err, WIRE_CORRUPT, "entry %llu is for pages of %u bytes, not %u", (unsigned long long)index, h.page_size, c->page_size);
	rc = vfs_pageset_dec_open(&c->dec, c->data.data, c->data.len, err);
	if (rc)
		return wire_context(err, "entry %llu", (unsigned long long)index), rc;
	c->decoding = true;
	return WIRE_OK;
}

int db_cursor_next(struct db_cursor *c, struct vfs_pageset_page *ret_page, struct wire_err *err)
{
	struct vfs_pageset_page page;
	int rc;

	for (;;) {
		while (!c->decoding) {
			if (c->at > c->close) {
				*ret_page = (struct vfs_pageset_page){ 0 };
				return WIRE_OK;
			}
			rc = next_entry(c, err);
			if (rc)
				return rc;
		}
		rc = vfs_pageset_dec_next(&c->dec, &page, err);
		if (rc)
			return wire_context(err, "entry %llu", (unsigned long long)(c->at - 1)), rc;
		if (page.pgno)
			break;
		c->decoding = false;
	}
	if (page.pgno <= c->last_pgno || page.pgno > c->db_after)
		return wire_fail(err, WIRE_CORRUPT, "entry %llu: page %u is out of order or beyond the end of the database (%u pages)",
		                 (unsigned long long)(c->at - 1), page.pgno, c->db_after);
	c->last_pgno = page.pgno;
	*ret_page = page;
	return WIRE_OK;
}
