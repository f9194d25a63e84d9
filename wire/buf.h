/* Growable output buffers and bounds-checked input. All integers are little endian; `varint` is LEB128 (7 bits a byte,
 * low group first, at most 10 bytes). A failed allocation sets `failed` and makes later puts no-ops, so that callers
 * check once at the end; a read past the end sets `bad`, returns zeros, and makes later gets no-ops likewise. */
#ifndef WIRE_BUF_H
#define WIRE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_buf {
	uint8_t *data; /* owned; may be NULL while cap is 0 */
	size_t len, cap;
	bool failed;
};

#define WIRE_BUF_INIT ((struct wire_buf){ 0 })

void wire_buf_free(struct wire_buf *b);                 /* frees and resets to WIRE_BUF_INIT */
void wire_buf_reset(struct wire_buf *b);                /* len = 0, failed = false, keeps the memory */
bool wire_buf_reserve(struct wire_buf *b, size_t more); /* room for `more` further bytes */
void wire_put_u8(struct wire_buf *b, uint8_t v);
void wire_put_u16(struct wire_buf *b, uint16_t v);
void wire_put_u32(struct wire_buf *b, uint32_t v);
void wire_put_u64(struct wire_buf *b, uint64_t v);
void wire_put_varint(struct wire_buf *b, uint64_t v);
void wire_put_bytes(struct wire_buf *b, const void *p, size_t n);
void wire_put_text(struct wire_buf *b, const char *s); /* varint length, then the bytes without NUL; NULL is "" */
void wire_set_u32(struct wire_buf *b, size_t at, uint32_t v); /* overwrites 4 bytes put before */
void wire_set_u64(struct wire_buf *b, size_t at, uint64_t v);

struct wire_in {
	const uint8_t *p, *end;
	bool bad;
};

struct wire_in wire_in_make(const void *p, size_t n);
size_t wire_in_left(const struct wire_in *in);
uint8_t wire_get_u8(struct wire_in *in);
uint16_t wire_get_u16(struct wire_in *in);
uint32_t wire_get_u32(struct wire_in *in);
uint64_t wire_get_u64(struct wire_in *in);
uint64_t wire_get_varint(struct wire_in *in); /* an overlong or overflowing one is bad */
const uint8_t *wire_get_bytes(struct wire_in *in, size_t n); /* points into the input; NULL when bad */
/* Copies a put_text into dst[cap] with a NUL; bad when it does not fit or contains a NUL. */
void wire_get_text(struct wire_in *in, char *dst, size_t cap);

/* Unaligned loads and stores for code that lays out bytes by hand. be = big endian (SQLite's formats). */
uint32_t wire_le32(const void *p);
uint64_t wire_le64(const void *p);
uint32_t wire_be32(const void *p);
void wire_set_le32(void *p, uint32_t v);
void wire_set_le64(void *p, uint64_t v);
void wire_set_be32(void *p, uint32_t v);

#endif
