/* XXH3 checksums and lz4 blocks: thin wrappers, so that the libraries are named in one place. */
#ifndef WIRE_HASH_H
#define WIRE_HASH_H

#include "wire/buf.h"
#include "wire/err.h"

/* XXH3-64 of n bytes with a seed. */
uint64_t wire_hash(const void *p, size_t n, uint64_t seed);

/* Hash of database page `pgno` (1-based) with `size` bytes: XXH3-64 seeded with pgno. The state checksum of a database
 * is the XOR of this over all its pages except the lock-byte page. */
uint64_t wire_page_hash(uint32_t pgno, const void *page, size_t size);

/* Appends the lz4 block of src to `dst` when it is at least an eighth smaller than n, and returns true; otherwise (or
 * when memory fails) leaves dst as it was and returns false. n <= LZ4_MAX_INPUT_SIZE. */
bool wire_lz4_pack(struct wire_buf *dst, const void *src, size_t n);

/* Unpacks a block of `n` bytes into exactly raw_len bytes at dst. WIRE_CORRUPT when it does not give exactly that. */
int wire_lz4_unpack(void *dst, size_t raw_len, const void *src, size_t n, struct wire_err *err);

/* How often the calling thread has called it. */
uint64_t wire_lz4_unpacks(void);

#endif
