#include "wire/buf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define VARINT_MAX 10

void wire_buf_free(struct wire_buf *b)
{
	free(b->data);
	*b = WIRE_BUF_INIT;
}

void wire_buf_reset(struct wire_buf *b)
{
	b->len = 0;
	b->failed = false;
}

bool wire_buf_reserve(struct wire_buf *b, size_t more)
{
	size_t cap = b->cap;
	uint8_t *data;

	if (b->failed)
		return false;
	if (more <= b->cap - b->len)
		return true;
	if (more > SIZE_MAX / 2 - b->len) {
		b->failed = true;
		return false;
	}
	if (cap < 64)
		cap = 64;
	while (cap < b->len + more)
		cap += cap / 2;
	data = realloc(b->data, cap);
	if (!data) {
		b->failed = true;
		return false;
	}
	b->data = data;
	b->cap = cap;
	return true;
}

static void put_le(struct wire_buf *b, uint64_t v, size_t n)
{
	if (!wire_buf_reserve(b, n))
		return;
	for (size_t i = 0; i < n; i++)
		b->data[b->len++] = (uint8_t)(v >> (8 * i));
}

void wire_put_u8(struct wire_buf *b, uint8_t v)
{
	put_le(b, v, 1);
}

void wire_put_u16(struct wire_buf *b, uint16_t v)
{
	put_le(b, v, 2);
}

void wire_put_u32(struct wire_buf *b, uint32_t v)
{
	put_le(b, v, 4);
}

void wire_put_u64(struct wire_buf *b, uint64_t v)
{
	put_le(b, v, 8);
}

void wire_put_varint(struct wire_buf *b, uint64_t v)
{
	uint8_t bytes[VARINT_MAX];
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		bytes[n++] = (uint8_t)(v | 0x80);
	bytes[n++] = (uint8_t)v;
	wire_put_bytes(b, bytes, n);
}

void wire_put_bytes(struct wire_buf *b, const void *p, size_t n)
{
	if (n == 0 || !wire_buf_reserve(b, n))
		return;
	memcpy(b->data + b->len, p, n);
	b->len += n;
}

void wire_put_text(struct wire_buf *b, const char *s)
{
	size_t n = s ? strlen(s) : 0;

	wire_put_varint(b, n);
	wire_put_bytes(b, s, n);
}

void wire_set_u32(struct wire_buf *b, size_t at, uint32_t v)
{
	if (b->failed)
		return;
	assert(at <= b->len && b->len - at >= 4);
	wire_set_le32(b->data + at, v);
}

void wire_set_u64(struct wire_buf *b, size_t at, uint64_t v)
{
	if (b->failed)
		return;
	assert(at <= b->len && b->len - at >= 8);
	wire_set_le64(b->data + at, v);
}

struct wire_in wire_in_make(const void *p, size_t n)
{
	/* An empty input needs a pointer all the same: arithmetic on NULL is undefined. */
	const uint8_t *start = p ? p : (const uint8_t *)"";

	assert(p || n == 0);
	return (struct wire_in){ .p = start, .end = start + n };
}

size_t wire_in_left(const struct wire_in *in)
{
	return (size_t)(in->end - in->p);
}

const uint8_t *wire_get_bytes(struct wire_in *in, size_t n)
{
	const uint8_t *p = in->p;

	if (in->bad)
		return NULL;
	if (n > wire_in_left(in)) {
		in->bad = true;
		return NULL;
	}
	in->p += n;
	return p;
}

static uint64_t get_le(struct wire_in *in, size_t n)
{
	const uint8_t *p = wire_get_bytes(in, n);
	uint64_t v = 0;

	if (!p)
		return 0;
	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t wire_get_u8(struct wire_in *in)
{
	return (uint8_t)get_le(in, 1);
}

uint16_t wire_get_u16(struct wire_in *in)
{
	return (uint16_t)get_le(in, 2);
}

uint32_t wire_get_u32(struct wire_in *in)
{
	return (uint32_t)get_le(in, 4);
}

uint64_t wire_get_u64(struct wire_in *in)
{
	return get_le(in, 8);
}

uint64_t wire_get_varint(struct wire_in *in)
{
	const uint8_t *p = in->p;
	uint64_t v = 0;

	if (in->bad)
		return 0;
	for (unsigned i = 0; i < VARINT_MAX && p < in->end; i++) {
		uint8_t byte = *p++;

		/* The tenth byte has room for one bit; a last byte of zero says that a shorter form was possible. */
		if ((i == VARINT_MAX - 1 && byte > 1) || (i > 0 && byte == 0))
			break;
		v |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte < 0x80) {
			in->p = p;
			return v;
		}
	}
	in->bad = true;
	return 0;
}

void wire_get_text(struct wire_in *in, char *dst, size_t cap)
{
	uint64_t n = wire_get_varint(in);
	const uint8_t *p;

	assert(cap > 0);
	dst[0] = '\0';
	if (n >= cap) {
		in->bad = true;
		return;
	}
	p = wire_get_bytes(in, (size_t)n);
	if (!p)
		return;
	if (memchr(p, 0, (size_t)n)) {
		in->bad = true;
		return;
	}
	memcpy(dst, p, (size_t)n);
	dst[n] = '\0';
}

uint32_t wire_le32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t wire_le64(const void *p)
{
	return wire_le32(p) | (uint64_t)wire_le32((const uint8_t *)p + 4) << 32;
}

uint32_t wire_be32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
}

void wire_set_le32(void *p, uint32_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
	b[2] = (uint8_t)(v >> 16);
	b[3] = (uint8_t)(v >> 24);
}

void wire_set_le64(void *p, uint64_t v)
{
	wire_set_le32(p, (uint32_t)v);
	wire_set_le32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

void wire_set_be32(void *p, uint32_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)(v >> 24);
	b[1] = (uint8_t)(v >> 16);
	b[2] = (uint8_t)(v >> 8);
	b[3] = (uint8_t)v;
}
