#include "wire/hash.h"

#include <assert.h>
#include <lz4.h>
#include <xxhash.h>

uint64_t wire_hash(const void *p, size_t n, uint64_t seed)
{
	return XXH3_64bits_withSeed(n > 0 ? p : "", n, seed);
}

uint64_t wire_page_hash(uint32_t pgno, const void *page, size_t size)
{
	assert(pgno > 0);
	return XXH3_64bits_withSeed(page, size, pgno);
}

bool wire_lz4_pack(struct wire_buf *dst, const void *src, size_t n)
{
	bool failed_before = dst->failed;
	size_t limit = n - n / 8 - (n % 8 != 0);
	int packed;

	assert(n <= LZ4_MAX_INPUT_SIZE);
	if (limit == 0)
		return false;
	if (!wire_buf_reserve(dst, limit)) {
		dst->failed = failed_before;
		return false;
	}
	/* The bound on the size is the room given: lz4 gives up as soon as the block would not fit. */
	packed = LZ4_compress_default(src, (char *)dst->data + dst->len, (int)n, (int)limit);
	if (packed <= 0)
		return false;
	dst->len += (size_t)packed;
	return true;
}

static _Thread_local uint64_t unpacks;

uint64_t wire_lz4_unpacks(void)
{
	return unpacks;
}

int wire_lz4_unpack(void *dst, size_t raw_len, const void *src, size_t n, struct wire_err *err)
{
	int got;

	unpacks++;
	if (n > LZ4_MAX_INPUT_SIZE || raw_len > LZ4_MAX_INPUT_SIZE)
		return wire_fail(err, WIRE_CORRUPT, "lz4 block of %zu bytes for %zu is larger than any block can be", n,
		                 raw_len);
	got = LZ4_decompress_safe(src, dst, (int)n, (int)raw_len);
	if (got < 0 || (size_t)got != raw_len)
		return wire_fail(err, WIRE_CORRUPT, "lz4 block of %zu bytes does not unpack to %zu bytes", n, raw_len);
	return WIRE_OK;
}
