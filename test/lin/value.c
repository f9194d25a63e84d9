/* Values. Each distinct one has a number, so that comparing is comparing numbers; a list is its rest and its last element,
 * so that reads of a growing list share all memory but one entry each. */
#include "test/lin/history.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 256u

bool lin_grow(void *array_ptr, size_t *cap, size_t count, size_t size)
{
	void *old, *array;
	size_t want = *cap ? *cap * 2 : 64;

	if (count < *cap)
		return true;
	memcpy(&old, array_ptr, sizeof old);
	array = reallocarray(old, want, size);
	if (!array)
		return false;
	memcpy(array_ptr, &array, sizeof array);
	*cap = want;
	return true;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15u;
	return h ^ (h >> 29);
}

static uint64_t hash_text(const uint8_t *p, size_t len)
{
	uint64_t h = len;

	for (size_t i = 0; i < len; i++)
		h = mix(h, p[i]);
	return mix(h, 1);
}

static void link_entry(struct lin_history *h, lin_value v)
{
	uint32_t *head = &h->buckets[h->values[v].hash & (h->bucket_count - 1)];

	h->values[v].next = *head;
	*head = v;
}

static bool more_buckets(struct lin_history *h)
{
	size_t count = h->bucket_count ? h->bucket_count * 2 : BUCKETS_MIN;
	uint32_t *buckets = malloc(count * sizeof *buckets);

	if (!buckets)
		return false;
	free(h->buckets);
	memset(buckets, 0xff, count * sizeof *buckets);
	h->buckets = buckets;
	h->bucket_count = count;
	for (lin_value v = 0; v < h->value_count; v++)
		link_entry(h, v);
	return true;
}

static lin_value add_value(struct lin_history *h, const struct lin_value_entry *e)
{
	lin_value v = (lin_value)h->value_count;

	if (h->value_count >= LIN_BAD - 1 || !lin_grow(&h->values, &h->value_cap, h->value_count, sizeof *h->values) ||
	    (h->value_count >= h->bucket_count && !more_buckets(h)))
		return LIN_BAD;
	h->values[v] = *e;
	h->values[v].process = h->values[v].key = LIN_NO_OP;
	h->value_count++;
	link_entry(h, v);
	return v;
}

int lin_values_init(struct lin_history *h, struct wire_err *err)
{
	struct lin_value_entry none = { .hash = hash_text((const uint8_t *)"null", 4), .length = 4 };
	struct lin_value_entry empty = { .hash = mix(0, 2), .list = true };

	wire_put_bytes(&h->text, "null", 4);
	if (h->text.failed || !more_buckets(h) || add_value(h, &none) != LIN_NULL || add_value(h, &empty) != LIN_EMPTY)
		return wire_fail(err, WIRE_NOMEM, "no memory for a history");
	return WIRE_OK;
}

lin_value lin_canonical(struct lin_history *h, const void *text, size_t len)
{
	struct lin_value_entry e = { .hash = hash_text(text, len), .length = (uint32_t)len, .text = h->text.len };
	lin_value v;

	if (len >= UINT32_MAX)
		return LIN_BAD;
	for (v = h->buckets[e.hash & (h->bucket_count - 1)]; v != LIN_BAD; v = h->values[v].next) {
		const struct lin_value_entry *o = &h->values[v];

		if (!o->list && o->length == len && memcmp(h->text.data + o->text, text, len) == 0)
			return v;
	}
	wire_put_bytes(&h->text, text, len);
	v = h->text.failed ? LIN_BAD : add_value(h, &e);
	if (v == LIN_BAD) {
		h->text.len = e.text;
		h->text.failed = false;
	}
	return v;
}

lin_value lin_int(struct lin_history *h, int64_t n)
{
	char text[24];
	int len = snprintf(text, sizeof text, "%" PRId64, n);

	return lin_canonical(h, text, (size_t)len);
}

lin_value lin_text(struct lin_history *h, const char *utf8)
{
	struct wire_buf b = WIRE_BUF_INIT;
	lin_value v;

	lin_put_string(&b, utf8, strlen(utf8));
	v = b.failed ? LIN_BAD : lin_canonical(h, b.data, b.len);
	wire_buf_free(&b);
	return v;
}

static uint64_t hash_list(lin_value list, lin_value element)
{
	return mix(mix(3, list), element);
}

lin_value lin_find_push(const struct lin_history *h, lin_value list, lin_value element)
{
	uint64_t hash = hash_list(list, element);

	for (lin_value v = h->buckets[hash & (h->bucket_count - 1)]; v != LIN_BAD; v = h->values[v].next) {
		const struct lin_value_entry *o = &h->values[v];

		if (o->list && o->length > 0 && o->rest == list && o->last == element)
			return v;
	}
	return LIN_BAD;
}

lin_value lin_push(struct lin_history *h, lin_value list, lin_value element)
{
	struct lin_value_entry e = { .hash = hash_list(list, element), .list = true, .rest = list, .last = element };
	lin_value v;

	if (!lin_is_list(h, list) || element >= h->value_count || h->values[list].length >= UINT32_MAX - 1)
		return LIN_BAD;
	v = lin_find_push(h, list, element);
	e.length = h->values[list].length + 1;
	return v != LIN_BAD ? v : add_value(h, &e);
}

bool lin_is_list(const struct lin_history *h, lin_value v)
{
	return v < h->value_count && h->values[v].list;
}

size_t lin_list_length(const struct lin_history *h, lin_value list)
{
	return lin_is_list(h, list) ? h->values[list].length : 0;
}

lin_value lin_list_pop(const struct lin_history *h, lin_value list, lin_value *ret_last)
{
	if (ret_last)
		*ret_last = h->values[list].last;
	return h->values[list].rest;
}

void lin_putf(struct wire_buf *b, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof text)
		b->failed = true;
	else
		wire_put_bytes(b, text, (size_t)n);
}

void lin_put_string(struct wire_buf *b, const char *s, size_t len)
{
	wire_put_u8(b, '"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '"' || c == '\\')
			lin_putf(b, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			lin_putf(b, "\\u%04x", c);
		else
			wire_put_u8(b, c);
	}
	wire_put_u8(b, '"');
}

void lin_put_escaped(struct wire_buf *b, const void *s, size_t len)
{
	const uint8_t *p = s;

	for (size_t i = 0; i < len; i++) {
		switch (p[i]) {
		case '<':
			lin_putf(b, "&lt;");
			break;
		case '>':
			lin_putf(b, "&gt;");
			break;
		case '&':
			lin_putf(b, "&amp;");
			break;
		case '"':
			lin_putf(b, "&quot;");
			break;
		default:
			wire_put_u8(b, p[i]);
		}
	}
}

/* A list is printed from its front, but known from its end. Elements that are lists themselves are as deep as the JSON
 * reader allows, or as the program that fed them made them. */
static void put_list(const struct lin_history *h, lin_value list, size_t items_max, struct wire_buf *b)
{
	size_t length = lin_list_length(h, list), shown = items_max && length > items_max ? items_max : length;
	lin_value *items = malloc((shown + 1) * sizeof *items);

	if (!items) {
		b->failed = true;
		return;
	}
	for (size_t i = shown; i-- > 0;)
		list = lin_list_pop(h, list, &items[i]);
	wire_put_u8(b, '[');
	if (shown < length)
		lin_putf(b, "...%zu more,", length - shown);
	for (size_t i = 0; i < shown; i++) {
		if (i)
			wire_put_u8(b, ',');
		lin_value_put(h, items[i], items_max, b);
	}
	wire_put_u8(b, ']');
	free(items);
}

void lin_value_put(const struct lin_history *h, lin_value v, size_t items_max, struct wire_buf *b)
{
	if (lin_is_list(h, v))
		put_list(h, v, items_max, b);
	else
		wire_put_bytes(b, h->text.data + h->values[v].text, h->values[v].length);
}
