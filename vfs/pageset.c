#include "vfs/pageset.h"

#include "vfs/pages.h"
#include "wire/hash.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1u
#define JOIN_GAP 16u /* nearer ranges are joined: two varints and the loop cost about as much */
#define KNOWN_FLAGS (VFS_PAGESET_FIRST | VFS_PAGESET_CLOSE | VFS_PAGESET_LZ4 | VFS_PAGESET_ONCE)
#define PAGE_SIZE_MAX 65536u
#define RANGES_MAX (PAGE_SIZE_MAX / (JOIN_GAP + 1) + 1)

/* Offsets in the header; page numbers etc. are little endian. */
enum {
	AT_VERSION = 0, AT_FLAGS = 1, AT_CHUNK = 2, AT_PAGE_SIZE = 4, AT_TXID = 8, AT_TIMESTAMP = 24, AT_FIRST_INDEX = 32,
	AT_N_CHUNKS = 40, AT_RESERVED = 44, AT_SUM_BEFORE = 48, AT_SUM_AFTER = 56, AT_DB_BEFORE = 64, AT_DB_AFTER = 68,
	AT_N_PAGES = 72, AT_RAW_LEN = 76, AT_END = 80,
};
_Static_assert(AT_END == VFS_PAGESET_HDR, "header");

static bool is_page_size(uint32_t n)
{
	return n >= 512 && n <= PAGE_SIZE_MAX && (n & (n - 1)) == 0;
}

/* ---- differences ---- */

struct ranges {
	uint32_t n, bytes, last_end; /* bytes: encoded size of all closed ranges */
	uint16_t at[RANGES_MAX], len_1[RANGES_MAX]; /* len_1: length - 1, for 65,536 must fit */
};

static uint32_t varint_size(uint32_t v)
{
	uint32_t n = 1;
	while ((v >>= 7) != 0)
		n++;
	return n;
}

static void add_range(struct ranges *r, uint32_t from, uint32_t to)
{
	r->bytes += varint_size(from - r->last_end) + varint_size(to - from) + (to - from);
	r->at[r->n] = (uint16_t)from;
	r->len_1[r->n] = (uint16_t)(to - from - 1);
	r->n++;
	r->last_end = to;
}

static uint64_t word_at(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return v;
}

/* First and one past the last differing byte of a word, from the XOR of both. */
static uint32_t first_byte(uint64_t x)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return (uint32_t)__builtin_clzll(x) / 8;
#else
	return (uint32_t)__builtin_ctzll(x) / 8;
#endif
}

static uint32_t end_byte(uint64_t x)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return 8 - (uint32_t)__builtin_ctzll(x) / 8;
#else
	return 8 - (uint32_t)__builtin_clzll(x) / 8;
#endif
}

static bool block_differs(const uint8_t *a, const uint8_t *b)
{
	uint64_t x = 0;
	for (int i = 0; i < 64; i += 8)
		x |= word_at(a + i) ^ word_at(b + i);
	return x != 0;
}

/* Byte ranges that differ; a word is shorter than JOIN_GAP, so equal bytes inside one never part two ranges. Returns false as
 * soon as they cost more than `most` bytes. */
static bool find_ranges(const uint8_t *a, const uint8_t *b, uint32_t size, uint32_t most, struct ranges *r)
{
	uint32_t from = 0, to = 0; /* the open range; to 0: none */

	r->n = r->bytes = r->last_end = 0;
	for (uint32_t block = 0; block < size; block += 64) {
		if (!block_differs(a + block, b + block))
			continue;
		for (uint32_t i = block; i < block + 64; i += 8) {
			const uint64_t x = word_at(a + i) ^ word_at(b + i);
			if (x == 0)
				continue;
			const uint32_t lo = i + first_byte(x), hi = i + end_byte(x);
			if (to != 0 && lo - to < JOIN_GAP) {
				to = hi;
				continue;
			}
			if (to != 0)
				add_range(r, from, to);
			from = lo;
			to = hi;
		}
		if (r->bytes + (to - from) > most)
			return false;
	}
	/* No range at all would say "full page": one byte of an unchanged page is the shortest way to name it. */
	add_range(r, from, to != 0 ? to : 1);
	return r->bytes <= most;
}

/* ---- encoder ---- */

void vfs_pageset_enc_init(struct vfs_pageset_enc *e, uint32_t page_size)
{
	assert(is_page_size(page_size));
	*e = (struct vfs_pageset_enc){ .page_size = page_size };
}

void vfs_pageset_enc_free(struct vfs_pageset_enc *e)
{
	wire_buf_free(&e->body);
}

void vfs_pageset_enc_add(struct vfs_pageset_enc *e, uint32_t pgno, const void *base, const void *page, uint64_t hash_after)
{
	struct ranges r;
	const uint8_t *const bytes = page;

	assert(pgno > e->last_pgno);
	wire_put_varint(&e->body, pgno - e->last_pgno);
	wire_put_u64(&e->body, hash_after);
	if (base == NULL || !find_ranges(base, page, e->page_size, e->page_size / 8 * 7, &r)) {
		wire_put_varint(&e->body, 0);
		wire_put_bytes(&e->body, page, e->page_size);
	} else {
		uint32_t end = 0;
		wire_put_varint(&e->body, r.n);
		for (uint32_t i = 0; i < r.n; i++) {
			const uint32_t len = r.len_1[i] + 1u;
			wire_put_varint(&e->body, r.at[i] - end);
			wire_put_varint(&e->body, len);
			wire_put_bytes(&e->body, bytes + r.at[i], len);
			end = r.at[i] + len;
		}
	}
	e->last_pgno = pgno;
	e->n_pages++;
}

static void head_put(const struct vfs_pageset_head *h, uint8_t dst[VFS_PAGESET_HDR])
{
	const bool close = (h->flags & VFS_PAGESET_CLOSE) != 0;
	const bool chunked = (h->flags & VFS_PAGESET_FIRST) == 0;

	memset(dst, 0, VFS_PAGESET_HDR);
	dst[AT_VERSION] = VERSION;
	dst[AT_FLAGS] = h->flags;
	dst[AT_CHUNK] = (uint8_t)(h->chunk & 0xff);
	dst[AT_CHUNK + 1] = (uint8_t)(h->chunk >> 8);
	wire_set_le32(dst + AT_PAGE_SIZE, h->page_size);
	memcpy(dst + AT_TXID, h->txid, VFS_TXID_BYTES);
	wire_set_le64(dst + AT_TIMESTAMP, h->timestamp_us);
	wire_set_le64(dst + AT_FIRST_INDEX, close && chunked ? h->first_index : 0);
	wire_set_le32(dst + AT_N_CHUNKS, !close ? 0 : chunked ? h->n_chunks : 1);
	wire_set_le64(dst + AT_SUM_BEFORE, h->sum_before);
	wire_set_le64(dst + AT_SUM_AFTER, close ? h->sum_after : 0);
	wire_set_le32(dst + AT_DB_BEFORE, h->db_before);
	wire_set_le32(dst + AT_DB_AFTER, close ? h->db_after : 0);
	wire_set_le32(dst + AT_N_PAGES, h->n_pages);
	wire_set_le32(dst + AT_RAW_LEN, h->raw_len);
}

static void once_put(const struct vfs_once *o, struct wire_buf *out)
{
	wire_put_u8(out, o->id_len);
	wire_put_u64(out, o->seq);
	wire_put_u32(out, o->idle_s);
	wire_put_bytes(out, o->id, o->id_len);
}

int vfs_pageset_enc_finish(struct vfs_pageset_enc *e, const struct vfs_pageset_head *head, struct wire_buf *out,
                           struct wire_err *err)
{
	struct vfs_pageset_head h = *head;
	const size_t start = out->len;
	uint8_t bytes[VFS_PAGESET_HDR] = { 0 };

	if (e->body.failed)
		return wire_fail(err, WIRE_NOMEM, "no memory for the page set of a transaction");
	if (e->body.len > VFS_PAGESET_RAW_MAX)
		return wire_fail(err, WIRE_TOOBIG, "a chunk of %zu bytes is above the limit of %u", e->body.len, VFS_PAGESET_RAW_MAX);

	h.page_size = e->page_size;
	h.n_pages = e->n_pages;
	h.raw_len = (uint32_t)e->body.len;
	h.flags = (uint8_t)(head->flags & (VFS_PAGESET_FIRST | VFS_PAGESET_CLOSE));
	wire_put_bytes(out, bytes, sizeof bytes);
	if (head->once.id_len && (h.flags & VFS_PAGESET_CLOSE)) {
		assert(head->once.id_len <= VFS_ONCE_ID_MAX && head->once.idle_s);
		h.flags |= VFS_PAGESET_ONCE;
		once_put(&head->once, out);
	}
	if (wire_lz4_pack(out, e->body.data, e->body.len))
		h.flags |= VFS_PAGESET_LZ4;
	else
		wire_put_bytes(out, e->body.data, e->body.len);
	if (out->failed) {
		out->len = start;
		return wire_fail(err, WIRE_NOMEM, "no memory for the page set of a transaction");
	}
	head_put(&h, out->data + start);
	wire_buf_reset(&e->body);
	e->n_pages = 0;
	e->last_pgno = 0;
	return WIRE_OK;
}

/* ---- decoder ---- */

static int bad(struct wire_err *err, const char *what)
{
	return wire_fail(err, WIRE_CORRUPT, "malformed page set: %s", what);
}

static int head_check(const struct vfs_pageset_head *h, uint32_t reserved, struct wire_err *err)
{
	const bool first = (h->flags & VFS_PAGESET_FIRST) != 0, close = (h->flags & VFS_PAGESET_CLOSE) != 0;

	if ((h->flags & ~KNOWN_FLAGS) != 0 || reserved != 0)
		return bad(err, "unknown flags");
	if (!is_page_size(h->page_size))
		return bad(err, "page size");
	if (first != (h->chunk == 0))
		return bad(err, "chunk number");
	if (!close && (h->n_chunks != 0 || h->first_index != 0 || h->sum_after != 0 || h->db_after != 0))
		return bad(err, "a chunk that does not close has an outcome");
	if (close && first && (h->n_chunks != 1 || h->first_index != 0))
		return bad(err, "a single entry names chunks");
	if (close && !first && (h->n_chunks < 2 || h->first_index == 0))
		return bad(err, "a close without its beginning");
	if (h->raw_len > VFS_PAGESET_RAW_MAX)
		return bad(err, "length of the body");
	if ((h->flags & VFS_PAGESET_ONCE) && !close)
		return bad(err, "a chunk that does not close has a client's step");
	return WIRE_OK;
}

static int once_get(const uint8_t *p, size_t n, struct vfs_once *ret_once, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, n);
	struct vfs_once o = { .id_len = wire_get_u8(&in) };
	const uint8_t *id;

	o.seq = wire_get_u64(&in);
	o.idle_s = wire_get_u32(&in);
	if (!o.id_len || o.id_len > VFS_ONCE_ID_MAX)
		return bad(err, "length of a client's id");
	id = wire_get_bytes(&in, o.id_len);
	if (in.bad || !o.idle_s)
		return bad(err, "a client's step");
	memcpy(o.id, id, o.id_len);
	*ret_once = o;
	return WIRE_OK;
}

/* Where the body begins. */
static size_t head_bytes(const struct vfs_pageset_head *h)
{
	return VFS_PAGESET_HDR + (h->once.id_len ? VFS_PAGESET_ONCE_MAX - VFS_ONCE_ID_MAX + (size_t)h->once.id_len : 0);
}

int vfs_pageset_head_get(const void *p, size_t n, struct vfs_pageset_head *ret_head, struct wire_err *err)
{
	const uint8_t *const b = p;

	if (n < VFS_PAGESET_HDR)
		return bad(err, "shorter than its header");
	if (b[AT_VERSION] != VERSION)
		return wire_fail(err, WIRE_VERSION, "page set of format %u, this program knows %u; upgrade walraft on this node",
		                 b[AT_VERSION], VERSION);

	struct vfs_pageset_head h = {
		.flags = b[AT_FLAGS],
		.chunk = (uint16_t)(b[AT_CHUNK] | b[AT_CHUNK + 1] << 8),
		.page_size = wire_le32(b + AT_PAGE_SIZE),
		.timestamp_us = wire_le64(b + AT_TIMESTAMP),
		.first_index = wire_le64(b + AT_FIRST_INDEX),
		.n_chunks = wire_le32(b + AT_N_CHUNKS),
		.sum_before = wire_le64(b + AT_SUM_BEFORE),
		.sum_after = wire_le64(b + AT_SUM_AFTER),
		.db_before = wire_le32(b + AT_DB_BEFORE),
		.db_after = wire_le32(b + AT_DB_AFTER),
		.n_pages = wire_le32(b + AT_N_PAGES),
		.raw_len = wire_le32(b + AT_RAW_LEN),
	};
	memcpy(h.txid, b + AT_TXID, VFS_TXID_BYTES);
	int rc = head_check(&h, wire_le32(b + AT_RESERVED), err);
	if (rc == WIRE_OK && (h.flags & VFS_PAGESET_ONCE))
		rc = once_get(b + VFS_PAGESET_HDR, n - VFS_PAGESET_HDR, &h.once, err);
	if (rc == WIRE_OK)
		*ret_head = h;
	return rc;
}

int vfs_pageset_dec_open(struct vfs_pageset_dec *d, const void *p, size_t n, struct wire_err *err)
{
	struct vfs_pageset_head h;
	const int rc = vfs_pageset_head_get(p, n, &h, err);
	if (rc != WIRE_OK)
		return rc;

	const uint8_t *body = (const uint8_t *)p + head_bytes(&h);
	const size_t body_len = n - head_bytes(&h);
	if (h.flags & VFS_PAGESET_LZ4) {
		wire_buf_reset(&d->body_mem);
		if (!wire_buf_reserve(&d->body_mem, h.raw_len + 1u))
			return wire_fail(err, WIRE_NOMEM, "no memory to unpack a page set of %u bytes", h.raw_len);
		const int unpacked = wire_lz4_unpack(d->body_mem.data, h.raw_len, body, body_len, err);
		if (unpacked != WIRE_OK) {
			wire_context(err, "page set");
			return unpacked;
		}
		d->body_mem.len = h.raw_len;
		body = d->body_mem.data;
	} else if (body_len != h.raw_len) {
		return bad(err, "length of the body");
	}
	d->head = h;
	d->in = wire_in_make(body, h.raw_len);
	d->left = h.n_pages;
	d->last_pgno = 0;
	return WIRE_OK;
}

/* Next range of a page; *at is the end of the one before. */
static const uint8_t *next_range(struct wire_in *in, uint32_t page_size, uint32_t *at, uint32_t *ret_len)
{
	const uint64_t gap = wire_get_varint(in);
	const uint64_t len = wire_get_varint(in);

	if (in->bad || len == 0 || gap > page_size - *at || len > page_size - *at - gap)
		return NULL;
	*at += (uint32_t)(gap + len);
	*ret_len = (uint32_t)len;
	return wire_get_bytes(in, (size_t)len);
}

int vfs_pageset_dec_next(struct vfs_pageset_dec *d, struct vfs_pageset_page *ret_page, struct wire_err *err)
{
	struct vfs_pageset_page page = { 0 };
	const uint32_t page_size = d->head.page_size;
	const uint8_t single = VFS_PAGESET_FIRST | VFS_PAGESET_CLOSE;

	if (d->left == 0) {
		if (wire_in_left(&d->in) != 0)
			return bad(err, "bytes behind the last page");
		*ret_page = page;
		return WIRE_OK;
	}

	const uint64_t step = wire_get_varint(&d->in);
	if (d->in.bad || step == 0 || step > UINT32_MAX - 1 - d->last_pgno)
		return bad(err, "page number");
	page.pgno = d->last_pgno + (uint32_t)step;
	if (vfs_pages_is_lock_page(page_size, page.pgno))
		return bad(err, "it has the lock-byte page");
	if ((d->head.flags & single) == single && page.pgno > d->head.db_after)
		return bad(err, "a page behind the end of the database");
	page.hash_after = wire_get_u64(&d->in);
	const uint64_t n_ranges = wire_get_varint(&d->in);
	if (d->in.bad || n_ranges > page_size)
		return bad(err, "number of ranges");
	page.n_ranges = (uint32_t)n_ranges;
	page.full = n_ranges == 0;

	const uint8_t *const begin = d->in.p;
	if (page.full && wire_get_bytes(&d->in, page_size) == NULL)
		return bad(err, "a full page is cut off");
	for (uint32_t i = 0, at = 0, len; i < page.n_ranges; i++) {
		if (next_range(&d->in, page_size, &at, &len) == NULL)
			return bad(err, "a range is cut off or outside its page");
	}
	page.ranges = wire_in_make(begin, (size_t)(d->in.p - begin));
	d->last_pgno = page.pgno;
	d->left--;
	*ret_page = page;
	return WIRE_OK;
}

int vfs_pageset_apply(const struct vfs_pageset_page *p, uint32_t page_size, void *page, struct wire_err *err)
{
	struct wire_in in = p->ranges;
	uint8_t *const to = page;

	if (p->full) {
		const uint8_t *const from = wire_get_bytes(&in, page_size);
		if (from == NULL)
			return bad(err, "a full page is cut off");
		memcpy(to, from, page_size);
	}
	for (uint32_t i = 0, at = 0, len; i < p->n_ranges; i++) {
		const uint8_t *const from = next_range(&in, page_size, &at, &len);
		if (from == NULL)
			return bad(err, "a range is cut off or outside its page");
		memcpy(to + at - len, from, len);
	}
	if (wire_page_hash(p->pgno, page, page_size) != p->hash_after)
		return wire_fail(err, WIRE_CORRUPT, "page %u differs after the change from what the leader had: the database was "
		                 "changed outside walraft, or its disk is bad", p->pgno);
	return WIRE_OK;
}

void vfs_pageset_dec_free(struct vfs_pageset_dec *d)
{
	wire_buf_free(&d->body_mem);
	*d = (struct vfs_pageset_dec){ 0 };
}
