#include "shell/txid.h"

#include <assert.h>
#include <string.h>

static void put_be(uint8_t *dst, unsigned bytes, uint64_t v)
{
	for (unsigned i = bytes; i-- > 0; v >>= 8)
		dst[i] = (uint8_t)v;
}

static uint64_t get_be(const uint8_t *src, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | src[i];
	return v;
}

void shell_txid_put(const struct shell_txid *id, uint8_t dst[VFS_TXID_BYTES])
{
	assert(id->term < 1ull << 48 && id->index < 1ull << 48);
	put_be(dst, 6, id->term);
	put_be(dst + 6, 6, id->index);
	put_be(dst + 12, 4, id->number);
}

void shell_txid_get(const uint8_t src[VFS_TXID_BYTES], struct shell_txid *ret_id)
{
	*ret_id = (struct shell_txid){ .term = get_be(src, 6), .index = get_be(src + 6, 6), .number = (uint32_t)get_be(src + 12, 4) };
}

void shell_txid_text(const uint8_t src[VFS_TXID_BYTES], char dst[SHELL_TXID_TEXT])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < VFS_TXID_BYTES; i++) {
		dst[2 * i] = digits[src[i] >> 4];
		dst[2 * i + 1] = digits[src[i] & 15];
	}
	dst[2 * VFS_TXID_BYTES] = 0;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool shell_txid_parse(const char *text, size_t len, uint8_t ret_id[VFS_TXID_BYTES])
{
	uint8_t id[VFS_TXID_BYTES];
	struct shell_txid parts;

	if (len != 2 * VFS_TXID_BYTES)
		return false;
	for (size_t i = 0; i < VFS_TXID_BYTES; i++) {
		int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		id[i] = (uint8_t)(high << 4 | low);
	}
	shell_txid_get(id, &parts);
	if (!parts.term)
		return false;
	memcpy(ret_id, id, sizeof id);
	return true;
}

uint64_t shell_txid_next(struct shell_txid_source *s, uint64_t term, uint64_t index, uint8_t ret_id[VFS_TXID_BYTES])
{
	struct shell_txid id = { .term = term, .index = index };

	assert(term >= s->term);
	if (term != s->term)
		*s = (struct shell_txid_source){ .term = term };
	id.number = (uint32_t)++s->number;
	shell_txid_put(&id, ret_id);
	return s->number;
}
