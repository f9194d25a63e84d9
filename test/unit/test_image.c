#include "snapshot/image.h"
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

static char dir[] = "/tmp/walraft-image-XXXXXX";
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

static const char *path_of(const char *name)
{
	static char paths[4][160];
	static int turn;
	char *const path = paths[turn++ % 4];
	snprintf(path, sizeof paths[0], "%s/%s", dir, name);
	return path;
}

/* ---- a database in memory, and what the receiver said of it ---- */

struct base { struct snap_info info; uint8_t *data; uint32_t *told; uint64_t *hash; uint32_t fail_at; };

static int read_page(void *ctx, uint32_t pgno, void *dst, struct wire_err *err)
{
	const struct base *const b = ctx;
	if (pgno == b->fail_at)
		return wire_fail(err, WIRE_IO, "cannot read page %u", pgno);
	assert_in_range(pgno, 1, b->info.pages);
	memcpy(dst, b->data + (size_t)(pgno - 1) * b->info.page_size, b->info.page_size);
	return WIRE_OK;
}

static void on_page(void *ctx, uint32_t pgno, uint64_t hash)
{
	struct base *const b = ctx;
	assert_in_range(pgno, 1, b->info.pages);
	b->told[pgno]++;
	b->hash[pgno] = hash;
}

static struct base base_new(uint32_t page_size, uint32_t pages)
{
	struct base b = { .info = { .index = 42, .term = 3, .page_size = page_size, .pages = pages } };
	const size_t size = (size_t)pages * page_size;

	b.data = malloc(size + 1);
	b.told = calloc(pages + 1, sizeof *b.told);
	b.hash = calloc(pages + 1, sizeof *b.hash);
	for (uint32_t i = 1; i <= pages; i++) {
		uint8_t *const page = b.data + (size_t)(i - 1) * page_size;
		memset(page, (int)below(256), page_size);
		if (below(2))
			for (uint32_t k = 0; k < page_size; k++)
				page[k] = (uint8_t)next_random();
		b.info.checksum ^= wire_page_hash(i, page, page_size);
	}
	return b;
}

static void base_free(struct base *b)
{
	free(b->data);
	free(b->told);
	free(b->hash);
}

static struct snap_recv *receive(struct base *b, const char *temp)
{
	struct snap_recv *r = NULL;
	assert_int_equal(snap_recv_open(wire_env_posix(), temp, &b->info, on_page, b, &r, NULL), WIRE_OK);
	return r;
}

static void encode(struct wire_buf *out, struct base *b, uint32_t first, uint32_t n)
{
	wire_buf_reset(out);
	assert_int_equal(snap_chunk_encode(out, &b->info, first, n, read_page, b, NULL), WIRE_OK);
	assert_true(out->len <= SNAP_CHUNK_MAX);
}

static void give(struct snap_recv *r, struct base *b, uint32_t first, uint32_t n)
{
	struct wire_buf out = WIRE_BUF_INIT;
	encode(&out, b, first, n);
	assert_int_equal(snap_recv_chunk(r, out.data, out.len, NULL), WIRE_OK);
	wire_buf_free(&out);
}

static void check_file(const struct base *b, const char *path)
{
	char *bytes = NULL;
	size_t n = 0;
	assert_int_equal(wire_env_slurp(wire_env_posix(), path, 64u << 20, &bytes, &n, NULL), WIRE_OK);
	assert_int_equal(n, (size_t)b->info.pages * b->info.page_size);
	assert_memory_equal(bytes, b->data, n);
	free(bytes);
}

static void infos(void **state)
{
	(void)state;
	static struct snap_info i = { .index = 1, .term = 2, .checksum = 3, .page_size = 4096, .pages = 5, .config_len = 300 }, got;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_err err;

	memset(i.config, 0x5a, 300);
	snap_info_put(&i, &b);
	assert_int_equal(snap_info_get(b.data, b.len, &got, NULL), WIRE_OK);
	assert_memory_equal(&got, &i, sizeof i);
	for (size_t n = 0; n < b.len; n++) {
		uint8_t *const exact = malloc(n + 1);
		memcpy(exact, b.data, n);
		assert_int_equal(snap_info_get(exact, n, &got, &err), WIRE_CORRUPT);
		free(exact);
	}
	wire_put_u8(&b, 0);
	assert_int_equal(snap_info_get(b.data, b.len, &got, &err), WIRE_CORRUPT);
	b.data[0] = 9;
	assert_int_equal(snap_info_get(b.data, b.len, &got, &err), WIRE_VERSION);

	static const uint32_t sizes[] = { 0, 100, 513, 131072 };
	for (size_t k = 0; k < 4; k++) {
		i.page_size = sizes[k];
		wire_buf_reset(&b);
		snap_info_put(&i, &b);
		assert_int_equal(snap_info_get(b.data, b.len, &got, &err), WIRE_CORRUPT);
	}
	/* A configuration longer than there is room for. */
	i.page_size = 4096;
	wire_buf_reset(&b);
	i.config_len = 0;
	snap_info_put(&i, &b);
	b.len--;
	wire_put_varint(&b, SNAP_CONFIG_MAX + 1);
	for (int k = 0; k <= SNAP_CONFIG_MAX; k++)
		wire_put_u8(&b, 1);
	assert_int_equal(snap_info_get(b.data, b.len, &got, &err), WIRE_CORRUPT);
	assert_memory_equal(&got.index, &i.index, sizeof got.index);
	wire_buf_free(&b);
}

/* Chunks lost, twice, in any order: the file is the image, and every page is told of once. */
static void whole_images(void **state)
{
	(void)state;
	const char *const temp = path_of("temp"), *const final = path_of("final");
	for (uint32_t size = 512; size <= 65536; size *= 2) {
		const uint32_t usual = snap_chunk_pages(size);
		const uint32_t counts[] = { 0, 1, usual, usual + 1, 3 * usual + 1 + below(usual) };
		assert_int_equal(usual, SNAP_CHUNK_BYTES / size);
		for (size_t c = 0; c < 5; c++) {
			struct base b = base_new(size, counts[c]);
			struct snap_recv *const r = receive(&b, temp);
			uint64_t done, total;

			while (!snap_recv_complete(r)) {
				uint32_t first[8], n[8], asked = 0;
				while (asked < 8 && snap_recv_next(r, &first[asked], &n[asked]))
					asked++;
				for (uint32_t i = asked; i > 0; i--) {
					const uint32_t k = below(i); /* any order */
					if (below(4) != 0)
						give(r, &b, first[k], n[k]);
					if (below(4) == 0)
						give(r, &b, first[k], n[k]);
					first[k] = first[i - 1];
					n[k] = n[i - 1];
				}
				if (asked == 0)
					snap_recv_retry(r);
			}
			snap_recv_progress(r, &done, &total);
			assert_true(done == total && total == (uint64_t)counts[c] * size);
			assert_int_equal(snap_recv_finish(r, final, NULL), WIRE_OK);
			check_file(&b, final);
			assert_int_not_equal(access(temp, F_OK), 0);
			for (uint32_t i = 1; i <= counts[c]; i++) {
				assert_int_equal(b.told[i], 1);
				assert_true(b.hash[i] == wire_page_hash(i, b.data + (size_t)(i - 1) * size, size));
			}
			unlink(final);
			base_free(&b);
		}
	}
}

static void asking(void **state)
{
	(void)state;
	struct base b = base_new(65536, 10); /* chunks of 4, 4, 2 */
	struct snap_recv *const r = receive(&b, path_of("asking"));
	uint32_t first = 0, n = 0;
	uint64_t done = 0, total = 0;

	assert_true(snap_recv_next(r, &first, &n));
	assert_true(first == 1 && n == 4);
	assert_true(snap_recv_next(r, &first, &n));
	assert_true(first == 5 && n == 4);
	give(r, &b, 1, 4);
	snap_recv_progress(r, &done, &total);
	assert_true(done == 4 * 65536 && total == 10 * 65536);
	assert_true(snap_recv_next(r, &first, &n));
	assert_true(first == 9 && n == 2);
	assert_false(snap_recv_next(r, &first, &n));
	assert_false(snap_recv_complete(r));
	snap_recv_retry(r);
	assert_true(snap_recv_next(r, &first, &n));
	assert_true(first == 5 && n == 4);
	give(r, &b, 9, 99); /* clipped; had not been asked for again */
	assert_false(snap_recv_next(r, &first, &n));
	snap_recv_abort(r);
	assert_int_not_equal(access(path_of("asking"), F_OK), 0);
	snap_recv_abort(NULL);
	base_free(&b);
}

static void sender_refuses(void **state)
{
	(void)state;
	struct base b = base_new(4096, 1000);
	struct wire_buf out = WIRE_BUF_INIT;
	struct wire_err err;

	wire_put_u8(&out, 1);
	assert_int_equal(snap_chunk_encode(&out, &b.info, 0, 1, read_page, &b, &err), WIRE_INVALID);
	assert_int_equal(snap_chunk_encode(&out, &b.info, 1, 0, read_page, &b, &err), WIRE_INVALID);
	assert_int_equal(snap_chunk_encode(&out, &b.info, 1001, 1, read_page, &b, &err), WIRE_INVALID);
	assert_int_equal(snap_chunk_encode(&out, &b.info, 1, 256, read_page, &b, &err), WIRE_TOOBIG);
	assert_int_equal(snap_chunk_encode(&out, &b.info, 1, 0xffffffffu, read_page, &b, &err), WIRE_TOOBIG);
	b.fail_at = 3;
	assert_int_equal(snap_chunk_encode(&out, &b.info, 1, 64, read_page, &b, &err), WIRE_IO);
	assert_int_equal(out.len, 1);
	wire_buf_free(&out);
	base_free(&b);
}

/* Whatever comes, the receiver takes only what is right. */
static void bent_chunks(void **state)
{
	(void)state;
	struct base b = base_new(1024, 700);
	struct snap_recv *const r = receive(&b, path_of("bent"));
	struct wire_buf out = WIRE_BUF_INIT;
	struct wire_err err;

	for (int i = 0; i < 1500; i++) {
		encode(&out, &b, 1 + 256 * below(3), 256);
		size_t n = out.len;
		if (below(3) == 0)
			n = below((uint32_t)n);
		uint8_t *const exact = malloc(n + 1);
		memcpy(exact, out.data, n);
		for (uint32_t k = n < out.len ? 0 : 1; k > 0; k--)
			exact[below(2) ? below((uint32_t)n) : below(13)] ^= (uint8_t)(1u << below(8));
		/* Half of them with a checksum that fits: everything else has to be right too. */
		const bool resealed = below(2) && n >= 21;
		if (resealed)
			wire_set_le64(exact + n - 8, wire_hash(exact, n - 8, 0));
		const int rc = snap_recv_chunk(r, exact, n, &err);
		if (!resealed)
			assert_int_equal(rc, WIRE_CORRUPT);
		else
			assert_true(rc == WIRE_OK || rc == WIRE_CORRUPT);
		free(exact);
	}
	/* Right in itself, but not what is asked for. */
	encode(&out, &b, 2, 256);
	assert_int_equal(snap_recv_chunk(r, out.data, out.len, &err), WIRE_CORRUPT);
	encode(&out, &b, 1, 255);
	assert_int_equal(snap_recv_chunk(r, out.data, out.len, &err), WIRE_CORRUPT);
	snap_recv_abort(r);
	wire_buf_free(&out);
	base_free(&b);
}

static void finish_checks(void **state)
{
	(void)state;
	const char *const temp = path_of("fin.part"), *const final = path_of("fin");
	struct base b = base_new(4096, 100);
	struct wire_err err = { 0 };

	/* Not complete. */
	struct snap_recv *r = receive(&b, temp);
	give(r, &b, 1, 64);
	assert_int_equal(snap_recv_finish(r, final, &err), WIRE_INVALID);
	assert_int_not_equal(access(temp, F_OK), 0);
	assert_int_not_equal(access(final, F_OK), 0);

	/* Complete, and not what was promised. */
	r = receive(&b, temp);
	give(r, &b, 1, 64);
	b.data[80 * 4096] ^= 1;
	give(r, &b, 65, 64);
	assert_int_equal(snap_recv_finish(r, final, &err), WIRE_CORRUPT);
	assert_non_null(strstr(err.text, final));
	assert_int_not_equal(access(temp, F_OK), 0);
	assert_int_not_equal(access(final, F_OK), 0);
	b.data[80 * 4096] ^= 1;

	/* A longer remnant of an attempt that was killed. */
	FILE *const f = fopen(temp, "wb");
	assert_non_null(f);
	for (int i = 0; i < 1000000; i++)
		fputc(0xaa, f);
	fclose(f);
	r = receive(&b, temp);
	give(r, &b, 1, 64);
	give(r, &b, 65, 64);
	assert_int_equal(snap_recv_finish(r, final, &err), WIRE_OK);
	check_file(&b, final);

	/* A file that is there already is not ours to replace. */
	r = receive(&b, temp);
	give(r, &b, 1, 64);
	give(r, &b, 65, 64);
	b.data[0] ^= 1;
	FILE *const other = fopen(final, "wb");
	assert_non_null(other);
	assert_int_equal(fwrite(b.data, 4096, 100, other), 100);
	assert_int_equal(fclose(other), 0);
	assert_int_equal(snap_recv_finish(r, final, &err), WIRE_EXISTS);
	check_file(&b, final);
	assert_int_not_equal(access(temp, F_OK), 0);
	base_free(&b);
}

/* The lock-byte page: zeros in the image, no part of the checksum. Only its neighbourhood is real here. */
static void lock_byte_page(void **state)
{
	(void)state;
	struct base b = { .info = { .page_size = 65536, .pages = 16388 } };
	struct wire_buf out = WIRE_BUF_INIT;
	struct snap_recv *r = NULL;
	uint8_t *const chunk = malloc(4 * 65536);

	b.data = calloc(16388, 65536); /* never touched but for four pages */
	assert_non_null(b.data);
	memset(b.data + 16384ull * 65536, 0x77, 4 * 65536);
	b.told = calloc(16389, sizeof *b.told);
	b.hash = calloc(16389, sizeof *b.hash);
	encode(&out, &b, 16385, 4);
	assert_int_equal(out.data[12], 1);
	assert_int_equal(wire_lz4_unpack(chunk, 4 * 65536, out.data + 13, out.len - 21, NULL), WIRE_OK);
	for (int i = 0; i < 65536; i++)
		assert_true(chunk[i] == 0 && chunk[65536 + i] == 0x77);
	r = receive(&b, path_of("lock"));
	assert_int_equal(snap_recv_chunk(r, out.data, out.len, NULL), WIRE_OK);
	assert_true(b.told[16385] == 1 && b.hash[16385] == 0 && b.hash[16386] != 0);
	snap_recv_abort(r);
	free(chunk);
	wire_buf_free(&out);
	base_free(&b);
}

/* ---- disk full ---- */

static int full_after;

static int full_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	if (full_after-- <= 0)
		return wire_fail(err, WIRE_FULL, "no space");
	return wire_env_posix()->write(ctx, f, src, n, at, err);
}

static int bad_sync(void *ctx, struct wire_file *f, struct wire_err *err)
{
	(void)ctx;
	(void)f;
	return wire_fail(err, WIRE_IO, "sync failed");
}

static void failing_disks(void **state)
{
	(void)state;
	const char *const temp = path_of("full.part"), *const final = path_of("full");
	struct wire_env env = *wire_env_posix();
	struct base b = base_new(4096, 100);
	struct wire_buf out = WIRE_BUF_INIT;
	struct wire_err err;
	struct snap_recv *r = NULL;

	env.write = full_write;
	env.sync = bad_sync;
	full_after = 1;
	assert_int_equal(snap_recv_open(&env, path_of("none/x"), &b.info, on_page, &b, &r, &err), WIRE_NOTFOUND);
	assert_null(r);
	assert_int_equal(snap_recv_open(&env, temp, &b.info, on_page, &b, &r, &err), WIRE_OK);
	give(r, &b, 1, 64);
	encode(&out, &b, 65, 36);
	assert_int_equal(snap_recv_chunk(r, out.data, out.len, &err), WIRE_FULL);
	assert_false(snap_recv_complete(r));
	assert_int_equal(b.told[65], 0);
	full_after = 1; /* there is room again */
	assert_int_equal(snap_recv_chunk(r, out.data, out.len, &err), WIRE_OK);
	assert_true(snap_recv_complete(r));
	assert_int_equal(snap_recv_finish(r, final, &err), WIRE_IO);
	assert_int_not_equal(access(temp, F_OK), 0);
	assert_int_not_equal(access(final, F_OK), 0);
	wire_buf_free(&out);
	base_free(&b);
}

static int set_up(void **state)
{
	const char *const given = getenv("WALRAFT_SEED");
	(void)state;
	seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	if (seed == 0)
		seed = 1;
	printf("# seed %llu; again with WALRAFT_SEED=%llu test/unit/test_image\n", (unsigned long long)seed,
	       (unsigned long long)seed);
	fflush(stdout);
	return mkdtemp(dir) == NULL;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command) != 0;
}

/* Pieces of the file beside the image: each has its place and length, and counts only undamaged. */
static void pieces(void **state)
{
	const uint64_t sizes[] = { 0, 1, SNAP_PIECE_BYTES - 1, SNAP_PIECE_BYTES, SNAP_PIECE_BYTES + 1, 3 * (uint64_t)SNAP_PIECE_BYTES + 77 };
	uint8_t *const file = malloc(4 * SNAP_PIECE_BYTES);

	(void)state;
	for (size_t i = 0; i < 4 * SNAP_PIECE_BYTES; i++)
		file[i] = (uint8_t)(i * 31 + i / 251);
	for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		uint64_t done = 0;
		uint32_t n = 0;

		for (uint32_t len; (len = snap_piece_bytes(sizes[k], n)) != 0; n++) {
			struct wire_buf b = WIRE_BUF_INIT;
			const uint8_t *bytes;
			struct wire_err err;

			snap_piece_put(&b, n, file + done, len);
			assert_int_equal(snap_piece_get(b.data, b.len, sizes[k], n, &bytes, &err), WIRE_OK);
			assert_memory_equal(bytes, file + done, len);
			assert_int_equal(snap_piece_get(b.data, b.len, sizes[k], n + 1, &bytes, &err), WIRE_CORRUPT);
			assert_int_equal(snap_piece_get(b.data, b.len - 1, sizes[k], n, &bytes, &err), WIRE_CORRUPT);
			b.data[b.len / 2] ^= 1;
			assert_int_equal(snap_piece_get(b.data, b.len, sizes[k], n, &bytes, &err), WIRE_CORRUPT);
			done += len;
			wire_buf_free(&b);
		}
		assert_true(done == sizes[k]);
	}
	free(file);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces), cmocka_unit_test(infos),       cmocka_unit_test(whole_images),  cmocka_unit_test(asking),
		cmocka_unit_test(sender_refuses), cmocka_unit_test(bent_chunks), cmocka_unit_test(finish_checks),
		cmocka_unit_test(lock_byte_page), cmocka_unit_test(failing_disks),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
