#include "vfs/pages.h"
#include "vfs/pageset.h"
#include "wire/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(next_random() % n);
}

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)next_random();
}

/* Changes of all kinds: none, single bytes, runs, the ends, everything. */
static void change(uint8_t *p, uint32_t n)
{
	const uint32_t kind = below(6);

	if (kind == 5) {
		fill(p, n);
		return;
	}
	for (uint32_t i = kind == 0 ? 0 : 1u << below(kind * 3); i > 0; i--) {
		const uint32_t at = below(4) == 0 ? (below(2) ? 0 : n - 1) : below(n);
		uint32_t len = 1 + below(kind == 4 ? n / 8 : 24);
		if (len > n - at)
			len = n - at;
		fill(p + at, len);
	}
}

static const struct vfs_pageset_head single = {
	.flags = VFS_PAGESET_FIRST | VFS_PAGESET_CLOSE, .db_before = 900, .db_after = 0xfffffffe, .sum_before = 11, .sum_after = 12,
	.timestamp_us = 1700000000000000, .txid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
};

static struct vfs_once some_step(uint32_t id_len)
{
	struct vfs_once o = { .seq = ((uint64_t)below(UINT32_MAX) << 32) | below(UINT32_MAX), .idle_s = 1 + below(100000), .id_len = (uint8_t)id_len };

	fill(o.id, id_len);
	return o;
}

#define PAGES 12
struct model { uint32_t size, n, pgno[PAGES]; bool has_base[PAGES]; uint8_t *base[PAGES], *after[PAGES]; };

static struct model model_new(uint32_t size)
{
	struct model m = { .size = size, .n = below(PAGES + 1) };
	uint32_t pgno = 0;

	for (uint32_t i = 0; i < m.n; i++) {
		pgno += 1 + (below(3) == 0 ? below(100000) : 0);
		pgno += vfs_pages_is_lock_page(size, pgno);
		m.pgno[i] = pgno;
		m.has_base[i] = below(8) != 0;
		m.base[i] = malloc(size);
		m.after[i] = malloc(size);
		if (below(2))
			fill(m.base[i], size);
		else
			memset(m.base[i], (int)below(256), size);
		memcpy(m.after[i], m.base[i], size);
		change(m.after[i], size);
	}
	return m;
}

static void model_free(struct model *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		free(m->base[i]);
		free(m->after[i]);
	}
}

static void encode(const struct model *m, struct vfs_pageset_enc *e, struct wire_buf *out)
{
	for (uint32_t i = 0; i < m->n; i++)
		vfs_pageset_enc_add(e, m->pgno[i], m->has_base[i] ? m->base[i] : NULL, m->after[i],
		                    wire_page_hash(m->pgno[i], m->after[i], m->size));
	struct vfs_pageset_head head = single;
	if (below(2))
		head.once = some_step(1 + below(VFS_ONCE_ID_MAX));
	assert_int_equal(vfs_pageset_enc_finish(e, &head, out, NULL), WIRE_OK);
}

static void check(const struct model *m, struct vfs_pageset_dec *d, const struct wire_buf *in)
{
	struct vfs_pageset_page p;
	uint8_t *const page = malloc(m->size);

	assert_int_equal(vfs_pageset_dec_open(d, in->data, in->len, NULL), WIRE_OK);
	assert_int_equal(d->head.n_pages, m->n);
	assert_int_equal(d->head.page_size, m->size);
	for (uint32_t i = 0; i < m->n; i++) {
		assert_int_equal(vfs_pageset_dec_next(d, &p, NULL), WIRE_OK);
		assert_int_equal(p.pgno, m->pgno[i]);
		assert_true(m->has_base[i] || p.full);
		memcpy(page, m->base[i], m->size);
		if (p.full)
			memset(page, 0xee, m->size);
		assert_int_equal(vfs_pageset_apply(&p, m->size, page, NULL), WIRE_OK);
		assert_memory_equal(page, m->after[i], m->size);
		/* Over another base the hash tells: ranges leave at least an eighth of a page as it was. */
		if (!p.full) {
			struct wire_err err = { 0 };
			for (uint32_t k = 0; k < m->size; k++)
				page[k] = (uint8_t)~m->base[i][k];
			assert_int_equal(vfs_pageset_apply(&p, m->size, page, &err), WIRE_CORRUPT);
			assert_non_null(strstr(err.text, "page"));
		}
	}
	assert_int_equal(vfs_pageset_dec_next(d, &p, NULL), WIRE_OK);
	assert_int_equal(p.pgno, 0);
	assert_int_equal(vfs_pageset_dec_next(d, &p, NULL), WIRE_OK);
	assert_int_equal(p.pgno, 0);
	free(page);
}

static void decoded_is_what_was_encoded(void **state)
{
	(void)state;
	struct vfs_pageset_dec d = { 0 };
	for (uint32_t size = 512; size <= 65536; size *= 2) {
		struct vfs_pageset_enc e;
		struct wire_buf out = WIRE_BUF_INIT;
		vfs_pageset_enc_init(&e, size);
		for (int i = 0; i < 200; i++) {
			struct model m = model_new(size);
			wire_buf_reset(&out);
			encode(&m, &e, &out);
			check(&m, &d, &out);
			model_free(&m);
		}
		wire_buf_free(&out);
		vfs_pageset_enc_free(&e);
	}
	vfs_pageset_dec_free(&d);
}

/* Differences at every pair of distances around the join and at word boundaries. */
static void ranges_are_exact(void **state)
{
	(void)state;
	struct vfs_pageset_enc e;
	struct vfs_pageset_dec d = { 0 };
	struct wire_buf out = WIRE_BUF_INIT;
	uint8_t base[512], after[512];

	fill(base, sizeof base);
	vfs_pageset_enc_init(&e, 512);
	for (uint32_t a = 0; a < 80; a++) {
		for (uint32_t b = a; b < a + 60; b++) {
			struct vfs_pageset_page p;
			memcpy(after, base, sizeof base);
			after[a] ^= 0xff;
			after[b] = base[b] ^ 0xff;
			wire_buf_reset(&out);
			vfs_pageset_enc_add(&e, 3, base, after, wire_page_hash(3, after, 512));
			assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, NULL), WIRE_OK);
			assert_int_equal(vfs_pageset_dec_open(&d, out.data, out.len, NULL), WIRE_OK);
			assert_int_equal(vfs_pageset_dec_next(&d, &p, NULL), WIRE_OK);
			const bool apart = b > a && b - a - 1 >= 16;
			assert_int_equal(p.n_ranges, apart ? 2 : 1);
			/* Gap and length take one byte each. */
			assert_int_equal(wire_in_left(&p.ranges), apart ? 6 : 2 + b - a + 1);
		}
	}
	wire_buf_free(&out);
	vfs_pageset_enc_free(&e);
	vfs_pageset_dec_free(&d);
}

/* What an insert of 100 bytes does to a leaf: 8 bytes of the header, a cell pointer, the cell. */
static void small_changes_are_small_entries(void **state)
{
	(void)state;
	struct vfs_pageset_enc e;
	struct wire_buf out = WIRE_BUF_INIT;
	uint8_t base[4096], after[4096];

	fill(base, sizeof base);
	memcpy(after, base, sizeof base);
	fill(after + 3, 4);
	fill(after + 60, 2);
	fill(after + 3000, 104);
	vfs_pageset_enc_init(&e, sizeof base);
	vfs_pageset_enc_add(&e, 2, base, after, wire_page_hash(2, after, sizeof after));
	assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, NULL), WIRE_OK);
	assert_in_range(out.len, VFS_PAGESET_HDR + 110, VFS_PAGESET_HDR + 132);

	/* A counter: two bytes. */
	wire_buf_reset(&out);
	memcpy(after, base, sizeof base);
	after[1234] ^= 1;
	after[1235] ^= 1;
	vfs_pageset_enc_add(&e, 2, base, after, wire_page_hash(2, after, sizeof after));
	assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, NULL), WIRE_OK);
	assert_int_equal(out.len, VFS_PAGESET_HDR + 1 + 8 + 1 + 2 + 1 + 2);

	/* Compressible: lz4; all random: in full, and no more than its size and a dozen bytes. */
	wire_buf_reset(&out);
	memset(after, 7, sizeof after);
	vfs_pageset_enc_add(&e, 2, NULL, after, 1);
	assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, NULL), WIRE_OK);
	assert_true(out.len < VFS_PAGESET_HDR + 100);
	assert_int_equal(out.data[1] & VFS_PAGESET_LZ4, VFS_PAGESET_LZ4);
	wire_buf_reset(&out);
	fill(after, sizeof after);
	vfs_pageset_enc_add(&e, 2, base, after, wire_page_hash(2, after, sizeof after));
	assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, NULL), WIRE_OK);
	assert_int_equal(out.len, VFS_PAGESET_HDR + 10 + sizeof after);
	wire_buf_free(&out);
	vfs_pageset_enc_free(&e);
}

static void heads(void **state)
{
	(void)state;
	struct vfs_pageset_enc e;
	struct wire_buf out = WIRE_BUF_INIT;
	struct vfs_pageset_head h;
	struct vfs_pageset_head in = {
		.flags = VFS_PAGESET_FIRST, .n_chunks = 9, .db_before = 3, .db_after = 4, .sum_before = 5, .sum_after = 6,
		.first_index = 7, .timestamp_us = 8, .txid = { 0xaa },
	};
	vfs_pageset_enc_init(&e, 1024);

	/* A first chunk has no outcome yet. */
	assert_int_equal(vfs_pageset_enc_finish(&e, &in, &out, NULL), WIRE_OK);
	assert_int_equal(out.len, VFS_PAGESET_HDR);
	assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_OK);
	assert_int_equal(h.flags, VFS_PAGESET_FIRST);
	assert_true(h.n_chunks == 0 && h.first_index == 0 && h.sum_after == 0 && h.db_after == 0);
	assert_true(h.db_before == 3 && h.sum_before == 5 && h.timestamp_us == 8 && h.page_size == 1024 && h.n_pages == 0);
	assert_memory_equal(h.txid, in.txid, sizeof h.txid);

	/* The close names them all. */
	wire_buf_reset(&out);
	wire_put_u8(&out, 0x77); /* it appends */
	in.flags = VFS_PAGESET_CLOSE;
	in.chunk = 0x1234;
	assert_int_equal(vfs_pageset_enc_finish(&e, &in, &out, NULL), WIRE_OK);
	assert_int_equal(vfs_pageset_head_get(out.data + 1, out.len - 1, &h, NULL), WIRE_OK);
	assert_true(h.chunk == 0x1234 && h.n_chunks == 9 && h.first_index == 7 && h.sum_after == 6 && h.db_after == 4);

	/* A single one. */
	wire_buf_reset(&out);
	in.flags = VFS_PAGESET_FIRST | VFS_PAGESET_CLOSE;
	in.chunk = 0;
	assert_int_equal(vfs_pageset_enc_finish(&e, &in, &out, NULL), WIRE_OK);
	assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_OK);
	assert_true(h.n_chunks == 1 && h.first_index == 0 && h.sum_after == 6 && h.db_after == 4);

	struct wire_err err;
	out.data[0] = 2;
	assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, &err), WIRE_VERSION);
	out.data[0] = 1;
	assert_int_equal(vfs_pageset_head_get(out.data, VFS_PAGESET_HDR - 1, &h, &err), WIRE_CORRUPT);
	out.data[1] |= 16;
	assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, &err), WIRE_CORRUPT);
	wire_buf_free(&out);
	vfs_pageset_enc_free(&e);
}

/* The step of a client's, between header and body: there in a close only, and bounded. */
static void client_steps(void **state)
{
	(void)state;
	struct vfs_pageset_enc e;
	struct vfs_pageset_dec d = { 0 };
	struct wire_buf out = WIRE_BUF_INIT;
	struct vfs_pageset_page p;
	uint8_t page[512] = { 1 };

	vfs_pageset_enc_init(&e, sizeof page);
	for (uint32_t len = 1; len <= VFS_ONCE_ID_MAX; len++) {
		struct vfs_pageset_head in = single, h;

		in.once = some_step(len);
		wire_buf_reset(&out);
		vfs_pageset_enc_add(&e, 1, NULL, page, wire_page_hash(1, page, sizeof page));
		assert_int_equal(vfs_pageset_enc_finish(&e, &in, &out, NULL), WIRE_OK);
		assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_OK);
		assert_true(h.once.id_len == len && h.once.seq == in.once.seq && h.once.idle_s == in.once.idle_s);
		assert_memory_equal(h.once.id, in.once.id, len);
		assert_int_equal(vfs_pageset_dec_open(&d, out.data, out.len, NULL), WIRE_OK);
		assert_int_equal(vfs_pageset_dec_next(&d, &p, NULL), WIRE_OK);
		assert_true(p.pgno == 1 && p.full);
		/* Cut anywhere before its end it is malformed. */
		for (size_t n = VFS_PAGESET_HDR; n < VFS_PAGESET_HDR + 13 + (size_t)len; n++)
			assert_int_equal(vfs_pageset_head_get(out.data, n, &h, NULL), WIRE_CORRUPT);
		out.data[VFS_PAGESET_HDR] = 0;
		assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_CORRUPT);
		out.data[VFS_PAGESET_HDR] = VFS_ONCE_ID_MAX + 1;
		assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_CORRUPT);
		out.data[VFS_PAGESET_HDR] = (uint8_t)len;
		wire_set_le32(out.data + VFS_PAGESET_HDR + 9, 0);
		assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_CORRUPT);
	}
	struct vfs_pageset_head in = single, h;
	in.once = some_step(9);
	in.flags = VFS_PAGESET_FIRST; /* a beginning has none */
	wire_buf_reset(&out);
	assert_int_equal(vfs_pageset_enc_finish(&e, &in, &out, NULL), WIRE_OK);
	assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_OK);
	assert_int_equal(h.once.id_len, 0);
	out.data[1] |= VFS_PAGESET_ONCE;
	assert_int_equal(vfs_pageset_head_get(out.data, out.len, &h, NULL), WIRE_CORRUPT);
	wire_buf_free(&out);
	vfs_pageset_enc_free(&e);
	vfs_pageset_dec_free(&d);
}

static void limits(void **state)
{
	(void)state;
	struct vfs_pageset_enc e;
	struct vfs_pageset_dec d = { 0 };
	struct wire_buf out = WIRE_BUF_INIT;
	struct wire_err err;
	static uint8_t page[65536];

	vfs_pageset_enc_init(&e, sizeof page);
	for (uint32_t i = 1; i <= 65; i++)
		vfs_pageset_enc_add(&e, i, NULL, page, 1);
	wire_put_u8(&out, 1);
	assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, &err), WIRE_TOOBIG);
	assert_int_equal(out.len, 1);
	vfs_pageset_enc_free(&e);

	/* A raw length above the limit is refused before memory is asked for. */
	vfs_pageset_enc_init(&e, sizeof page);
	vfs_pageset_enc_add(&e, 1, NULL, page, 1);
	wire_buf_reset(&out);
	assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, &err), WIRE_OK);
	wire_set_u32(&out, VFS_PAGESET_HDR - 4, VFS_PAGESET_RAW_MAX + 1);
	assert_int_equal(vfs_pageset_dec_open(&d, out.data, out.len, &err), WIRE_CORRUPT);
	wire_set_u32(&out, VFS_PAGESET_HDR - 4, 0xffffffffu);
	assert_int_equal(vfs_pageset_dec_open(&d, out.data, out.len, &err), WIRE_CORRUPT);
	assert_true(d.body_mem.cap == 0);

	/* The lock-byte page, and a page behind the end. */
	struct vfs_pageset_page p;
	vfs_pageset_enc_free(&e);
	vfs_pageset_enc_init(&e, sizeof page);
	vfs_pageset_enc_add(&e, 0x40000000 / 65536 + 1, page, page, 1);
	wire_buf_reset(&out);
	assert_int_equal(vfs_pageset_enc_finish(&e, &single, &out, &err), WIRE_OK);
	assert_int_equal(vfs_pageset_dec_open(&d, out.data, out.len, &err), WIRE_OK);
	assert_int_equal(vfs_pageset_dec_next(&d, &p, &err), WIRE_CORRUPT);
	struct vfs_pageset_head small = single;
	small.db_after = 4;
	vfs_pageset_enc_add(&e, 5, page, page, 1);
	wire_buf_reset(&out);
	assert_int_equal(vfs_pageset_enc_finish(&e, &small, &out, &err), WIRE_OK);
	assert_int_equal(vfs_pageset_dec_open(&d, out.data, out.len, &err), WIRE_OK);
	assert_int_equal(vfs_pageset_dec_next(&d, &p, &err), WIRE_CORRUPT);
	wire_buf_free(&out);
	vfs_pageset_enc_free(&e);
	vfs_pageset_dec_free(&d);
}

/* Bent, cut and extended entries: whatever comes, it ends, within its memory, and a page counts only with its hash. */
static void bent_input(void **state)
{
	(void)state;
	struct vfs_pageset_dec d = { 0 };
	uint32_t whole = 0;
	for (int round = 0; round < 6000; round++) {
		struct model m = model_new(512u << below(4));
		struct vfs_pageset_enc e;
		struct wire_buf out = WIRE_BUF_INIT;
		struct wire_err err = { 0 };

		vfs_pageset_enc_init(&e, m.size);
		encode(&m, &e, &out);
		size_t len = out.len;
		if (below(4) == 0)
			len = below((uint32_t)len + 1);
		uint8_t *const bytes = malloc(len + 1); /* exactly as long, for the sanitizer */
		memcpy(bytes, out.data, len);
		for (uint32_t i = below(4); i > 0 && len > 0; i--) {
			const size_t at = below(2) && len > VFS_PAGESET_HDR ? VFS_PAGESET_HDR + below((uint32_t)len - VFS_PAGESET_HDR)
			                                                   : below((uint32_t)len);
			bytes[at] = (uint8_t)(below(2) ? below(256) : bytes[at] ^ (1u << below(8)));
		}
		uint8_t *const exact = realloc(bytes, len > 0 ? len : 1);
		int rc = vfs_pageset_dec_open(&d, exact, len, &err);
		uint32_t pages = 0;
		while (rc == WIRE_OK) {
			struct vfs_pageset_page p;
			rc = vfs_pageset_dec_next(&d, &p, &err);
			if (rc != WIRE_OK || p.pgno == 0)
				break;
			assert_true(++pages <= d.head.n_pages);
			uint8_t *const page = malloc(d.head.page_size);
			memset(page, 1, d.head.page_size);
			if (vfs_pageset_apply(&p, d.head.page_size, page, &err) == WIRE_OK)
				assert_true(wire_page_hash(p.pgno, page, d.head.page_size) == p.hash_after);
			free(page);
		}
		assert_true(rc == WIRE_OK || rc == WIRE_CORRUPT || rc == WIRE_VERSION);
		whole += rc == WIRE_OK;
		free(exact);
		wire_buf_free(&out);
		vfs_pageset_enc_free(&e);
		model_free(&m);
	}
	assert_in_range(whole, 300, 5700);
	vfs_pageset_dec_free(&d);
}

static void speed(void **state)
{
	(void)state;
	enum { N = 2000 };
	struct vfs_pageset_enc e;
	struct wire_buf out = WIRE_BUF_INIT;
	uint8_t base[4096], after[4096];
	struct timespec a, b;

	fill(base, sizeof base);
	memcpy(after, base, sizeof base);
	fill(after + 100, 50);
	fill(after + 3000, 100);
	vfs_pageset_enc_init(&e, sizeof base);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (uint32_t i = 1; i <= N; i++)
		vfs_pageset_enc_add(&e, i, base, after, 1);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("# %.0f ns a page\n", ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / N);
	vfs_pageset_enc_free(&e);
	wire_buf_free(&out);
}

static int set_up(void **state)
{
	const char *const given = getenv("WALRAFT_SEED");
	(void)state;
	seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	if (seed == 0)
		seed = 1;
	printf("# seed %llu; again with WALRAFT_SEED=%llu test/unit/test_pageset\n", (unsigned long long)seed,
	       (unsigned long long)seed);
	fflush(stdout);
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(decoded_is_what_was_encoded), cmocka_unit_test(ranges_are_exact),
		cmocka_unit_test(small_changes_are_small_entries), cmocka_unit_test(heads), cmocka_unit_test(client_steps), cmocka_unit_test(limits),
		cmocka_unit_test(bent_input), cmocka_unit_test(speed),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up, NULL);
}
