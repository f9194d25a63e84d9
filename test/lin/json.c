#include "test/lin/json.h"
#include "test/lin/history.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* The parser calls itself for what is nested. */
#define DEPTH_MAX 64

static bool canon(struct lin_json *j, int depth);
static lin_value value(struct lin_json *j, int depth);

static bool bad(struct lin_json *j, const char *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The first problem is the one to tell. */
static bool bad(struct lin_json *j, const char *at, const char *fmt, ...)
{
	char text[120];
	va_list ap;

	if (j->problem[0])
		return false;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	snprintf(j->problem, sizeof j->problem, "bad JSON at column %zu: %s", (size_t)(at - j->begin) + 1, text);
	return false;
}

static void skip_space(struct lin_json *j)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\r' || *j->at == '\n'))
		j->at++;
}

static bool take(struct lin_json *j, char c)
{
	skip_space(j);
	if (j->at >= j->end || *j->at != c)
		return false;
	j->at++;
	return true;
}

static bool hex4(struct lin_json *j, uint32_t *ret_code)
{
	uint32_t code = 0;

	for (int i = 0; i < 4; i++, j->at++) {
		char c = j->at < j->end ? *j->at : '\0';

		if (c >= '0' && c <= '9')
			code = code * 16 + (uint32_t)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			code = code * 16 + (uint32_t)((c | 0x20) - 'a') + 10;
		else
			return bad(j, j->at, "four hexadecimal digits belong here");
	}
	*ret_code = code;
	return true;
}

static void put_utf8(struct wire_buf *b, uint32_t c)
{
	if (c < 0x80) {
		wire_put_u8(b, (uint8_t)c);
	} else if (c < 0x800) {
		wire_put_u8(b, (uint8_t)(0xc0 | c >> 6));
		wire_put_u8(b, (uint8_t)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		wire_put_u8(b, (uint8_t)(0xe0 | c >> 12));
		wire_put_u8(b, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
		wire_put_u8(b, (uint8_t)(0x80 | (c & 0x3f)));
	} else {
		wire_put_u8(b, (uint8_t)(0xf0 | c >> 18));
		wire_put_u8(b, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
		wire_put_u8(b, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
		wire_put_u8(b, (uint8_t)(0x80 | (c & 0x3f)));
	}
}

static bool escape(struct lin_json *j, struct wire_buf *out)
{
	static const char letters[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
	const char *from = j->at - 1, *found;
	uint32_t code, low;

	if (j->at >= j->end)
		return bad(j, from, "the string is not closed");
	if (*j->at != 'u') {
		found = *j->at ? strchr(letters, *j->at) : NULL;
		if (!found)
			return bad(j, from, "unknown escape");
		j->at++;
		wire_put_u8(out, (uint8_t)means[found - letters]);
		return true;
	}
	j->at++;
	if (!hex4(j, &code))
		return false;
	if (code >= 0xd800 && code < 0xdc00) {
		if (j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u')
			return bad(j, from, "half of a surrogate pair");
		j->at += 2;
		if (!hex4(j, &low))
			return false;
		if (low < 0xdc00 || low >= 0xe000)
			return bad(j, from, "half of a surrogate pair");
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	} else if (code >= 0xdc00 && code < 0xe000) {
		return bad(j, from, "half of a surrogate pair");
	}
	put_utf8(out, code);
	return true;
}

/* Copies one character of several bytes; the second byte's range excludes overlong forms, surrogates and what is beyond
 * Unicode (Unicode standard, table 3-7). */
static bool utf8(struct lin_json *j, struct wire_buf *out)
{
	const uint8_t *p = (const uint8_t *)j->at;
	size_t left = (size_t)(j->end - j->at), n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	uint8_t low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80, high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;

	if (p[0] < 0xc2 || p[0] > 0xf4 || left < n || p[1] < low || p[1] > high)
		return bad(j, j->at, "not UTF-8");
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return bad(j, j->at, "not UTF-8");
	wire_put_bytes(out, p, n);
	j->at += n;
	return true;
}

/* The string that begins here, unescaped. */
static bool string(struct lin_json *j, struct wire_buf *out)
{
	const char *from = j->at;

	if (!take(j, '"'))
		return bad(j, j->at, "a string belongs here");
	while (j->at < j->end && *j->at != '"') {
		unsigned char c = (unsigned char)*j->at;

		if (c < 0x20)
			return bad(j, j->at, "control character in a string");
		if (c >= 0x80) {
			if (!utf8(j, out))
				return false;
		} else if (c == '\\') {
			j->at++;
			if (!escape(j, out))
				return false;
		} else {
			wire_put_u8(out, c);
			j->at++;
		}
	}
	if (j->at >= j->end)
		return bad(j, from, "the string is not closed");
	j->at++;
	return true;
}

static bool canon_string(struct lin_json *j)
{
	struct wire_buf raw = WIRE_BUF_INIT;
	bool ok = string(j, &raw);

	if (ok && raw.failed)
		j->scratch.failed = true;
	else if (ok)
		lin_put_string(&j->scratch, (const char *)raw.data, raw.len);
	wire_buf_free(&raw);
	return ok;
}

static bool digits(struct lin_json *j)
{
	const char *from = j->at;

	while (j->at < j->end && *j->at >= '0' && *j->at <= '9')
		j->at++;
	return j->at > from || bad(j, j->at, "a digit belongs here");
}

static bool canon_number(struct lin_json *j)
{
	const char *from = j->at;

	if (*j->at == '-')
		j->at++;
	if (j->at < j->end && *j->at == '0')
		j->at++;
	else if (!digits(j))
		return false;
	if (j->at < j->end && *j->at == '.') {
		j->at++;
		if (!digits(j))
			return false;
	}
	if (j->at < j->end && (*j->at | 0x20) == 'e') {
		j->at++;
		if (j->at < j->end && (*j->at == '+' || *j->at == '-'))
			j->at++;
		if (!digits(j))
			return false;
	}
	wire_put_bytes(&j->scratch, from, (size_t)(j->at - from));
	return true;
}

static bool canon_word(struct lin_json *j)
{
	static const char *const words[] = { "null", "true", "false" };

	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		size_t n = strlen(words[i]);

		if ((size_t)(j->end - j->at) >= n && memcmp(j->at, words[i], n) == 0) {
			wire_put_bytes(&j->scratch, words[i], n);
			j->at += n;
			return true;
		}
	}
	return bad(j, j->at, "a value belongs here");
}

/* What is between the brackets of an array or object, and the closing one. */
static bool canon_items(struct lin_json *j, bool object, int depth)
{
	char close = object ? '}' : ']';
	const char *from = j->at - 1;

	if (depth >= DEPTH_MAX)
		return bad(j, from, "nested deeper than %d", DEPTH_MAX);
	for (bool first = true; !take(j, close); first = false) {
		if (!first && !take(j, ','))
			return bad(j, j->at, j->at < j->end ? "',' or '%c' belongs here" : "the '%c' is missing", close);
		if (!first)
			wire_put_u8(&j->scratch, ',');
		if (object) {
			skip_space(j);
			if (!canon_string(j))
				return false;
			if (!take(j, ':'))
				return bad(j, j->at, "':' belongs here");
			wire_put_u8(&j->scratch, ':');
		}
		if (!canon(j, depth + 1))
			return false;
	}
	wire_put_u8(&j->scratch, (uint8_t)close);
	return true;
}

/* Appends the value that begins here to `scratch`, without spaces and needless escapes. */
static bool canon(struct lin_json *j, int depth)
{
	skip_space(j);
	if (j->at >= j->end)
		return bad(j, j->at, "the line ends where a value belongs");
	switch (*j->at) {
	case '"':
		return canon_string(j);
	case '{':
	case '[':
		wire_put_u8(&j->scratch, (uint8_t)*j->at);
		return canon_items(j, *j->at++ == '{', depth);
	default:
		if (*j->at == '-' || (*j->at >= '0' && *j->at <= '9'))
			return canon_number(j);
		return canon_word(j);
	}
}

static lin_value list(struct lin_json *j, int depth)
{
	lin_value v = LIN_EMPTY, item;
	const char *from = j->at++;

	if (depth >= DEPTH_MAX) {
		bad(j, from, "nested deeper than %d", DEPTH_MAX);
		return LIN_BAD;
	}
	for (bool first = true; !take(j, ']'); first = false) {
		if (!first && !take(j, ',')) {
			bad(j, j->at, j->at < j->end ? "',' or ']' belongs here" : "the ']' is missing");
			return LIN_BAD;
		}
		item = value(j, depth + 1);
		if (item == LIN_BAD)
			return LIN_BAD;
		v = lin_push(j->h, v, item);
		if (v == LIN_BAD) {
			j->nomem = true;
			return LIN_BAD;
		}
	}
	return v;
}

static lin_value value(struct lin_json *j, int depth)
{
	lin_value v;

	skip_space(j);
	if (j->at < j->end && *j->at == '[')
		return list(j, depth);
	wire_buf_reset(&j->scratch);
	if (!canon(j, depth))
		return LIN_BAD;
	v = j->scratch.failed ? LIN_BAD : lin_canonical(j->h, j->scratch.data, j->scratch.len);
	if (v == LIN_BAD)
		j->nomem = true;
	return v;
}

static void look_at(struct lin_json_member *m, const struct wire_buf *text)
{
	char digits_text[24];
	char *end;

	m->is_string = text->len > 0 && text->data[0] == '"';
	if (text->len == 0 || text->len >= sizeof digits_text || m->is_string)
		return;
	memcpy(digits_text, text->data, text->len);
	digits_text[text->len] = '\0';
	errno = 0;
	m->number_value = strtoll(digits_text, &end, 10);
	m->is_int = !errno && *end == '\0' && end > digits_text;
}

/* What nobody asks for must not fill the history's memory. */
static bool wanted(const struct lin_json *j, const struct lin_json_member *m)
{
	static const char *const names[] = { "process", "type", "op", "key", "value", "time" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i]) == m->name_len && memcmp(names[i], j->names.data + m->name, m->name_len) == 0)
			return true;
	return false;
}

static bool member(struct lin_json *j)
{
	struct lin_json_member *m = &j->members[j->count];
	const char *from;

	skip_space(j);
	from = j->at;
	if (j->count >= LIN_JSON_MEMBERS_MAX)
		return bad(j, from, "more than %d members", LIN_JSON_MEMBERS_MAX);
	*m = (struct lin_json_member){ .name = j->names.len, .value = LIN_NULL };
	if (!string(j, &j->names))
		return false;
	m->name_len = j->names.len - m->name;
	if (j->names.failed) {
		j->nomem = true;
		return false;
	}
	for (size_t i = 0; i < j->count; i++)
		if (j->members[i].name_len == m->name_len &&
		    memcmp(j->names.data + j->members[i].name, j->names.data + m->name, m->name_len) == 0)
			return bad(j, from, "the member is there twice");
	if (!take(j, ':'))
		return bad(j, j->at, "':' belongs here");
	wire_buf_reset(&j->scratch);
	if (!wanted(j, m))
		return canon(j, 1);
	m->value = value(j, 1);
	if (m->value == LIN_BAD)
		return false;
	if (!lin_is_list(j->h, m->value))
		look_at(m, &j->scratch);
	j->count++;
	return true;
}

bool lin_json_parse(struct lin_json *j, const char *line, size_t len)
{
	j->begin = j->at = line;
	j->end = line + len;
	j->count = 0;
	j->problem[0] = '\0';
	j->nomem = false;
	wire_buf_reset(&j->names);
	if (!take(j, '{'))
		return bad(j, j->at, "a line is an object, {...}");
	for (bool first = true; !take(j, '}'); first = false) {
		if (!first && !take(j, ','))
			return bad(j, j->at, j->at < j->end ? "',' or '}' belongs here" : "the '}' is missing");
		if (!member(j))
			return false;
	}
	skip_space(j);
	return j->at == j->end || bad(j, j->at, "something follows the object");
}

const struct lin_json_member *lin_json_find(const struct lin_json *j, const char *name)
{
	for (size_t i = 0; i < j->count; i++)
		if (strlen(name) == j->members[i].name_len && memcmp(name, j->names.data + j->members[i].name, strlen(name)) == 0)
			return &j->members[i];
	return NULL;
}

void lin_json_free(struct lin_json *j)
{
	wire_buf_free(&j->names);
	wire_buf_free(&j->scratch);
}
