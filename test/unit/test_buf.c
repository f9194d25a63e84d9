/* Buffers: layouts byte by byte, bounds, memory that ends, and random sequences that must come back. */
#include "wire/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t seed, rng_state;

static uint64_t rng(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void layout(void **state)
{
	static const uint8_t want[] = { 0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a,
		                        0x09, 0x08, 0xac, 0x02, 2,    'h',  'i',  0,    'r',  'a',  'w' };
	struct wire_buf b = WIRE_BUF_INIT;

	(void)state;
	wire_put_u8(&b, 0x01);
	wire_put_u16(&b, 0x0203);
	wire_put_u32(&b, 0x04050607);
	wire_put_u64(&b, 0x08090a0b0c0d0e0f);
	wire_put_varint(&b, 300);
	wire_put_text(&b, "hi");
	wire_put_text(&b, NULL);
	wire_put_bytes(&b, "raw", 3);
	wire_put_bytes(&b, NULL, 0);
	assert_false(b.failed);
	assert_int_equal(b.len, sizeof want);
	assert_memory_equal(b.data, want, sizeof want);
	wire_set_u32(&b, 3, 0xdeadbeef);
	wire_set_u64(&b, 7, 1);
	assert_int_equal(wire_le32(b.data + 3), 0xdeadbeef);
	assert_int_equal(wire_le64(b.data + 7), 1);
	assert_int_equal(b.data[15], 0xac);
	wire_buf_reset(&b);
	assert_int_equal(b.len, 0);
	assert_non_null(b.data);
	wire_buf_free(&b);
	assert_null(b.data);
	assert_int_equal(b.cap, 0);
}

static void loads_and_stores(void **state)
{
	uint8_t mem[16] = { 0 };

	(void)state;
	wire_set_le32(mem + 1, 0x80818283);
	assert_memory_equal(mem + 1, "\x83\x82\x81\x80", 4);
	assert_int_equal(wire_le32(mem + 1), 0x80818283);
	assert_int_equal(wire_be32(mem + 1), 0x83828180);
	wire_set_be32(mem + 1, 0x80818283);
	assert_memory_equal(mem + 1, "\x80\x81\x82\x83", 4);
	wire_set_le64(mem + 3, 0xf0f1f2f3f4f5f6f7);
	assert_memory_equal(mem + 3, "\xf7\xf6\xf5\xf4\xf3\xf2\xf1\xf0", 8);
	assert_true(wire_le64(mem + 3) == 0xf0f1f2f3f4f5f6f7);
}

static void reads_past_the_end(void **state)
{
	struct wire_in in = wire_in_make("\x01\x02\x03", 3);

	(void)state;
	assert_int_equal(wire_in_left(&in), 3);
	assert_int_equal(wire_get_u32(&in), 0);
	assert_true(in.bad);
	assert_int_equal(wire_get_u8(&in), 0);
	assert_int_equal(wire_get_varint(&in), 0);
	assert_null(wire_get_bytes(&in, 0));

	in = wire_in_make("\x01\x02\x03", 3);
	assert_int_equal(wire_get_u16(&in), 0x0201);
	assert_int_equal(wire_get_u8(&in), 3);
	assert_false(in.bad);
	assert_non_null(wire_get_bytes(&in, 0));
	assert_null(wire_get_bytes(&in, SIZE_MAX));
	assert_true(in.bad);

	in = wire_in_make(NULL, 0);
	assert_int_equal(wire_in_left(&in), 0);
	assert_int_equal(wire_get_u8(&in), 0);
	assert_true(in.bad);
}

static void varint_case(const char *bytes, size_t n, bool good, uint64_t want)
{
	struct wire_in in = wire_in_make(bytes, n);
	uint64_t got = wire_get_varint(&in);

	assert_int_equal(in.bad, !good);
	assert_true(got == want);
	if (good)
		assert_int_equal(wire_in_left(&in), 0);
}

static void varints(void **state)
{
	(void)state;
	varint_case("\x00", 1, true, 0);
	varint_case("\x7f", 1, true, 127);
	varint_case("\x80\x01", 2, true, 128);
	varint_case("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, true, UINT64_MAX);
	varint_case("", 0, false, 0);
	varint_case("\x80", 1, false, 0);                                          /* ends in the middle */
	varint_case("\x80\x00", 2, false, 0);                                      /* overlong zero */
	varint_case("\xff\x80\x00", 3, false, 0);                                  /* overlong */
	varint_case("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, false, 0);     /* 2^64 and more */
	varint_case("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, false, 0); /* eleven bytes */
}

static void varint_edges_come_back(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		for (int delta = -1; delta <= 1; delta++) {
			uint64_t v = ((uint64_t)1 << bit) + (uint64_t)(int64_t)delta;
			struct wire_buf b = WIRE_BUF_INIT;

			wire_put_varint(&b, v);
			assert_true(b.len <= 10);
			varint_case((const char *)b.data, b.len, true, v);
			wire_buf_free(&b);
		}
	}
}

static void text_case(const char *bytes, size_t n, size_t cap, bool good, const char *want)
{
	struct wire_in in = wire_in_make(bytes, n);
	char dst[8] = "???????";

	assert_true(cap <= sizeof dst);
	wire_get_text(&in, dst, cap);
	assert_int_equal(in.bad, !good);
	assert_string_equal(dst, want);
	for (size_t i = cap; i < sizeof dst - 1; i++)
		assert_int_equal(dst[i], '?');
}

static void texts(void **state)
{
	(void)state;
	text_case("\x02hi", 3, 3, true, "hi");
	text_case("\x00", 1, 1, true, "");
	text_case("\x02hi", 3, 2, false, "");   /* no room for the NUL */
	text_case("\x03hi", 3, 8, false, "");   /* longer than the input */
	text_case("\x02h\0", 3, 8, false, "");  /* a NUL within */
	text_case("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, 8, false, "");
	text_case("", 0, 8, false, "");
}

static void memory_ends(void **state)
{
	struct wire_buf b = WIRE_BUF_INIT;

	(void)state;
	wire_put_u32(&b, 1);
	assert_false(wire_buf_reserve(&b, SIZE_MAX));
	assert_true(b.failed);
	assert_false(wire_buf_reserve(&b, 1));
	wire_put_u32(&b, 2);
	wire_put_text(&b, "x");
	assert_int_equal(b.len, 4);
	wire_set_u64(&b, 100, 1); /* what was to be overwritten may not have been put */
	wire_buf_reset(&b);
	wire_put_u8(&b, 3);
	assert_false(b.failed);
	assert_int_equal(b.len, 1);
	wire_buf_free(&b);
}

static void reserve_gives_room(void **state)
{
	struct wire_buf b = WIRE_BUF_INIT;
	const uint8_t *data;

	(void)state;
	assert_true(wire_buf_reserve(&b, 1000));
	data = b.data;
	for (int i = 0; i < 1000; i++)
		wire_put_u8(&b, (uint8_t)i);
	assert_ptr_equal(b.data, data);
	assert_true(wire_buf_reserve(&b, b.cap - b.len));
	assert_ptr_equal(b.data, data);
	wire_buf_free(&b);
}

/* The nth thing of a sequence that depends on the generator alone, so that it can be put and then got. */
static void put_or_get(struct wire_buf *b, struct wire_in *in)
{
	uint64_t v = rng() >> (rng() % 64);
	uint8_t bytes[64] = { 0 };
	char text[64] = { 0 }, got[64];
	size_t n = v % sizeof bytes;

	switch (rng() % 7) {
	case 0: b ? wire_put_u8(b, (uint8_t)v) : assert_int_equal(wire_get_u8(in), (uint8_t)v); break;
	case 1: b ? wire_put_u16(b, (uint16_t)v) : assert_int_equal(wire_get_u16(in), (uint16_t)v); break;
	case 2: b ? wire_put_u32(b, (uint32_t)v) : assert_int_equal(wire_get_u32(in), (uint32_t)v); break;
	case 3: b ? wire_put_u64(b, v) : assert_true(wire_get_u64(in) == v); break;
	case 4: b ? wire_put_varint(b, v) : assert_true(wire_get_varint(in) == v); break;
	case 5:
		for (size_t i = 0; i < n; i++)
			bytes[i] = (uint8_t)rng();
		if (b)
			wire_put_bytes(b, bytes, n);
		else
			assert_memory_equal(wire_get_bytes(in, n), bytes, n);
		break;
	default:
		for (size_t i = 0; i < n; i++)
			text[i] = (char)(1 + rng() % 127);
		text[n] = '\0';
		if (b) {
			wire_put_text(b, text);
		} else {
			wire_get_text(in, got, sizeof got);
			assert_string_equal(got, text);
		}
	}
}

static void sequences_come_back(void **state)
{
	(void)state;
	for (int round = 0; round < 300; round++) {
		struct wire_buf b = WIRE_BUF_INIT;
		uint64_t start = rng();
		unsigned n = 1 + (unsigned)(rng() % 200);
		struct wire_in in;

		rng_state = start;
		for (unsigned i = 0; i < n; i++)
			put_or_get(&b, NULL);
		assert_false(b.failed);
		in = wire_in_make(b.data, b.len);
		rng_state = start;
		for (unsigned i = 0; i < n; i++)
			put_or_get(NULL, &in);
		assert_false(in.bad);
		assert_int_equal(wire_in_left(&in), 0);
		wire_buf_free(&b);
	}
}

/* No input makes a read leave its bounds (the sanitizer watches the exact allocation) or go on after bad. */
static void garbage_stays_inside(void **state)
{
	(void)state;
	for (int round = 0; round < 2000; round++) {
		size_t n = rng() % 64;
		uint8_t *mem = malloc(n + 1);
		struct wire_in in;
		char text[16];

		assert_non_null(mem);
		mem = realloc(mem, n ? n : 1);
		assert_non_null(mem);
		for (size_t i = 0; i < n; i++)
			mem[i] = (uint8_t)rng();
		in = wire_in_make(mem, n);
		while (!in.bad) {
			switch (rng() % 4) {
			case 0: (void)wire_get_u16(&in); break;
			case 1: (void)wire_get_varint(&in); break;
			case 2: (void)wire_get_bytes(&in, 1 + rng() % 8); break;
			default: wire_get_text(&in, text, sizeof text);
			}
			assert_true(wire_in_left(&in) <= n);
		}
		free(mem);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout),
		cmocka_unit_test(loads_and_stores),
		cmocka_unit_test(reads_past_the_end),
		cmocka_unit_test(varints),
		cmocka_unit_test(varint_edges_come_back),
		cmocka_unit_test(texts),
		cmocka_unit_test(memory_ends),
		cmocka_unit_test(reserve_gives_room),
		cmocka_unit_test(sequences_come_back),
		cmocka_unit_test(garbage_stays_inside),
	};
	const char *given = argc > 1 ? argv[1] : getenv("WALRAFT_SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	rng_state = seed;
	printf("# seed %llu; repeat with: %s %llu\n", (unsigned long long)seed, argv[0], (unsigned long long)seed);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
