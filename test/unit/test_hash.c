/* Hashes against published values, lz4 blocks at their bounds. */
#include "wire/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Values of the reference implementation's own self test (XXH3-64 of an empty input). */
static void known_values(void **state)
{
	(void)state;
	assert_true(wire_hash("", 0, 0) == 0x2d06800538d394c2u);
	assert_true(wire_hash(NULL, 0, 0) == 0x2d06800538d394c2u);
}

static void seed_and_length_count(void **state)
{
	uint8_t page[4096] = { 0 };
	uint64_t h;

	(void)state;
	h = wire_hash(page, sizeof page, 0);
	assert_true(h != wire_hash(page, sizeof page, 1));
	assert_true(h != wire_hash(page, sizeof page - 1, 0));
	for (size_t i = 0; i < sizeof page; i += 97) {
		page[i] ^= 0x10;
		assert_true(h != wire_hash(page, sizeof page, 0));
		page[i] ^= 0x10;
	}
	assert_true(h == wire_hash(page, sizeof page, 0));
}

static void page_hash_is_seeded_with_its_number(void **state)
{
	uint8_t page[512];

	(void)state;
	memset(page, 7, sizeof page);
	assert_true(wire_page_hash(5, page, sizeof page) == wire_hash(page, sizeof page, 5));
	assert_true(wire_page_hash(5, page, sizeof page) != wire_page_hash(6, page, sizeof page));
}

static void fill_random(uint8_t *p, size_t n)
{
	uint64_t x = 88172645463325252u;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)x;
	}
}

static void packs_and_unpacks(void **state)
{
	struct wire_buf b = WIRE_BUF_INIT;
	uint8_t raw[10000], back[10000];
	struct wire_err err;

	(void)state;
	for (size_t i = 0; i < sizeof raw; i++)
		raw[i] = (uint8_t)(i / 100);
	wire_put_text(&b, "before");
	assert_true(wire_lz4_pack(&b, raw, sizeof raw));
	assert_memory_equal(b.data, "\6before", 7);
	assert_true(b.len < 7 + sizeof raw / 8 * 7);
	assert_int_equal(wire_lz4_unpack(back, sizeof back, b.data + 7, b.len - 7, &err), WIRE_OK);
	assert_memory_equal(back, raw, sizeof raw);
	wire_buf_free(&b);
}

static void random_bytes_are_left_alone(void **state)
{
	struct wire_buf b = WIRE_BUF_INIT;
	uint8_t raw[10000];

	(void)state;
	fill_random(raw, sizeof raw);
	wire_put_u8(&b, 9);
	assert_false(wire_lz4_pack(&b, raw, sizeof raw));
	assert_int_equal(b.len, 1);
	assert_int_equal(b.data[0], 9);
	assert_false(b.failed);
	for (size_t n = 0; n < 12; n++)
		assert_false(wire_lz4_pack(&b, raw, n));
	wire_buf_free(&b);
}

/* Grows the compressible tail byte by byte over the point where packing begins to pay: never less than an eighth. */
static void an_eighth_is_the_limit(void **state)
{
	uint8_t raw[1024], back[1024];
	bool refused = false, packed = false;

	(void)state;
	for (size_t zeros = 0; zeros <= 400; zeros++) {
		struct wire_buf b = WIRE_BUF_INIT;

		fill_random(raw, sizeof raw);
		memset(raw + sizeof raw - zeros, 0, zeros);
		if (wire_lz4_pack(&b, raw, sizeof raw)) {
			packed = true;
			assert_true(b.len <= sizeof raw / 8 * 7);
			assert_int_equal(wire_lz4_unpack(back, sizeof back, b.data, b.len, NULL), WIRE_OK);
			assert_memory_equal(back, raw, sizeof raw);
		} else {
			refused = true;
			assert_true(zeros < 200);
			assert_int_equal(b.len, 0);
		}
		wire_buf_free(&b);
	}
	assert_true(refused && packed);
}

static void failed_buffer_stays(void **state)
{
	struct wire_buf b = WIRE_BUF_INIT;
	uint8_t raw[1000] = { 0 };

	(void)state;
	assert_false(wire_buf_reserve(&b, SIZE_MAX));
	assert_false(wire_lz4_pack(&b, raw, sizeof raw));
	assert_true(b.failed);
	wire_buf_free(&b);
}

static void bad_blocks(void **state)
{
	struct wire_buf b = WIRE_BUF_INIT;
	uint8_t raw[1000] = { 0 }, *back = malloc(sizeof raw), *cut;
	struct wire_err err = { 0 };

	(void)state;
	assert_non_null(back);
	assert_true(wire_lz4_pack(&b, raw, sizeof raw));
	assert_int_equal(wire_lz4_unpack(back, sizeof raw - 1, b.data, b.len, &err), WIRE_CORRUPT);
	assert_true(strlen(err.text) > 0);
	/* Every shorter block, in memory of its own so that the sanitizer sees a read past its end. */
	for (size_t n = 0; n < b.len; n++) {
		cut = malloc(n ? n : 1);
		assert_non_null(cut);
		memcpy(cut, b.data, n);
		assert_int_equal(wire_lz4_unpack(back, sizeof raw, cut, n, NULL), WIRE_CORRUPT);
		free(cut);
	}
	assert_int_equal(wire_lz4_unpack(back, sizeof raw, b.data, (size_t)1 << 40, NULL), WIRE_CORRUPT);
	assert_int_equal(wire_lz4_unpack(back, (size_t)1 << 40, b.data, b.len, NULL), WIRE_CORRUPT);
	free(back);
	wire_buf_free(&b);
}

static void too_much_is_missing(void **state)
{
	struct wire_buf b = WIRE_BUF_INIT;
	uint8_t raw[1000] = { 0 }, back[2000];

	(void)state;
	assert_true(wire_lz4_pack(&b, raw, sizeof raw));
	assert_int_equal(wire_lz4_unpack(back, sizeof back, b.data, b.len, NULL), WIRE_CORRUPT);
	wire_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(seed_and_length_count),
		cmocka_unit_test(page_hash_is_seeded_with_its_number),
		cmocka_unit_test(packs_and_unpacks),
		cmocka_unit_test(random_bytes_are_left_alone),
		cmocka_unit_test(an_eighth_is_the_limit),
		cmocka_unit_test(failed_buffer_stays),
		cmocka_unit_test(bad_blocks),
		cmocka_unit_test(too_much_is_missing),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
