/* Messages as bytes: the layout and its validity rule are in msg.h. */
#include "wire/msg.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

enum {
	SUM_BYTES = 8,
	HEAD_BYTES = 3,      /* version, type, flags */
	ENTRY_MIN_BYTES = 11 /* term, kind, sum, size of an empty entry */
};

static const char *const names[WIRE_MSG_COUNT] = {
#define X(name) #name,
	WIRE_MSG_TYPES(X)
#undef X
};

const char *wire_msg_name(int type)
{
	return type >= 0 && type < WIRE_MSG_COUNT ? names[type] : "?";
}

static size_t varint_size(uint64_t v)
{
	size_t n = 1;
	for (; v >= 0x80; v >>= 7)
		n++;
	return n;
}

static size_t text_len(const struct wire_msg *m)
{
	return strnlen(m->text, sizeof(m->text));
}

size_t wire_msg_size(const struct wire_msg *m)
{
	const uint64_t v[] = { m->group, m->from, m->to, m->corr, m->term, m->index, m->log_term, m->commit, m->hint };
	size_t n = HEAD_BYTES + SUM_BYTES;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		n += varint_size(v[i]);
	n += varint_size(text_len(m)) + text_len(m);
	n += varint_size(m->n_entries);
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct wire_entry *e = &m->entries[i];
		n += varint_size(e->term) + 1 + SUM_BYTES + varint_size(e->size) + e->size;
	}
	return n + varint_size(m->data_len) + m->data_len;
}

static int check(const struct wire_msg *m, size_t *ret_size, struct wire_err *err)
{
	if (m->type == WIRE_MSG_NONE || m->type >= WIRE_MSG_COUNT)
		return wire_fail(err, WIRE_INVALID, "cannot encode a message of type %u", m->type);
	const char *name = wire_msg_name(m->type);
	if (text_len(m) > WIRE_TEXT_MAX)
		return wire_fail(err, WIRE_TOOBIG, "text of a %s message has no end within %u bytes", name,
		                 WIRE_TEXT_MAX);
	if (m->n_entries > WIRE_ENTRIES_MAX)
		return wire_fail(err, WIRE_TOOBIG, "%s message with %u entries; at most %u are allowed", name,
		                 m->n_entries, WIRE_ENTRIES_MAX);
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct wire_entry *e = &m->entries[i];
		if (e->size > WIRE_ENTRY_MAX)
			return wire_fail(err, WIRE_TOOBIG, "entry of %u bytes in a %s message; at most %u are allowed",
			                 e->size, name, WIRE_ENTRY_MAX);
		if (e->kind > WIRE_ENTRY_CONFIG || (e->size && !e->data))
			return wire_fail(err, WIRE_INVALID, "entry %u of a %s message has kind %u and %s data", i, name,
			                 e->kind, e->data ? "its" : "no");
	}
	if (m->data_len && !m->data)
		return wire_fail(err, WIRE_INVALID, "%s message lacks its %u bytes of data", name, m->data_len);
	size_t size = wire_msg_size(m);
	if (size > WIRE_MSG_MAX)
		return wire_fail(err, WIRE_TOOBIG, "%s message of %zu bytes; at most %u are allowed", name, size,
		                 WIRE_MSG_MAX);
	*ret_size = size;
	return WIRE_OK;
}

int wire_msg_encode(const struct wire_msg *m, struct wire_buf *b, struct wire_err *err)
{
	size_t size = 0;
	int rc = check(m, &size, err);
	if (rc)
		return rc;
	size_t start = b->len;
	if (b->failed || !wire_buf_reserve(b, size))
		return wire_fail(err, WIRE_NOMEM, "no memory for a %s message of %zu bytes", wire_msg_name(m->type),
		                 size);
	wire_put_u8(b, WIRE_PROTOCOL);
	wire_put_u8(b, m->type);
	wire_put_u8(b, m->flags);
	const uint64_t v[] = { m->group, m->from, m->to, m->corr, m->term, m->index, m->log_term, m->commit, m->hint };
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		wire_put_varint(b, v[i]);
	wire_put_text(b, m->text);
	wire_put_varint(b, m->n_entries);
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct wire_entry *e = &m->entries[i];
		wire_put_varint(b, e->term);
		wire_put_u8(b, e->kind);
		wire_put_u64(b, e->sum);
		wire_put_varint(b, e->size);
		wire_put_bytes(b, e->data, e->size);
	}
	wire_put_varint(b, m->data_len);
	wire_put_bytes(b, m->data, m->data_len);
	wire_put_u64(b, wire_hash(b->data + start, b->len - start, WIRE_PROTOCOL));
	return WIRE_OK;
}

static int corrupt(struct wire_err *err, const char *what, size_t n)
{
	return wire_fail(err, WIRE_CORRUPT, "malformed message of %zu bytes: %s", n, what);
}

static int get_entries(struct wire_in *in, const struct wire_msg *m, size_t n, struct wire_entry **ret,
                       struct wire_err *err)
{
	struct wire_entry *v = calloc(m->n_entries, sizeof(*v));
	if (!v)
		return wire_fail(err, WIRE_NOMEM, "no memory for %u entries of a message", m->n_entries);
	const char *what = NULL;
	for (uint32_t i = 0; i < m->n_entries && !what; i++) {
		struct wire_entry *e = &v[i];
		e->index = m->index + 1 + i;
		e->term = wire_get_varint(in);
		e->kind = wire_get_u8(in);
		e->sum = wire_get_u64(in);
		uint64_t size = wire_get_varint(in);
		if (in->bad || size > WIRE_ENTRY_MAX || size > wire_in_left(in)) {
			what = "an entry's size";
			break;
		}
		e->size = (uint32_t)size;
		if (e->size)
			e->data = wire_get_bytes(in, e->size);
		if (e->kind > WIRE_ENTRY_CONFIG)
			what = "an entry's kind";
		else if (wire_hash(e->data, e->size, 0) != e->sum)
			what = "an entry's checksum";
	}
	if (what) {
		free(v);
		return corrupt(err, what, n);
	}
	*ret = v;
	return WIRE_OK;
}

/* Everything but the version rule, which differs between decode and decode_hello. */
static int decode(const uint8_t *p, size_t n, struct wire_msg *ret_msg, struct wire_entry **ret_entries,
                  struct wire_err *err)
{
	if (n < HEAD_BYTES + SUM_BYTES || n > WIRE_MSG_MAX)
		return corrupt(err, "its size", n);
	if (wire_hash(p, n - SUM_BYTES, p[0]) != wire_le64(p + n - SUM_BYTES))
		return corrupt(err, "its checksum", n);
	struct wire_in in = wire_in_make(p + 1, n - SUM_BYTES - 1);
	struct wire_msg m;
	memset(&m, 0, sizeof(m));
	m.type = wire_get_u8(&in);
	m.flags = wire_get_u8(&in);
	if (m.type == WIRE_MSG_NONE || m.type >= WIRE_MSG_COUNT)
		return corrupt(err, "its type", n);
	uint64_t *const v[] = { &m.group, &m.from, &m.to, &m.corr, &m.term, &m.index, &m.log_term, &m.commit, &m.hint };
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		*v[i] = wire_get_varint(&in);
	wire_get_text(&in, m.text, sizeof(m.text));
	uint64_t count = wire_get_varint(&in);
	if (in.bad)
		return corrupt(err, "its fields", n);
	if (count > WIRE_ENTRIES_MAX || count > wire_in_left(&in) / ENTRY_MIN_BYTES || m.index > UINT64_MAX - count)
		return corrupt(err, "its number of entries", n);
	m.n_entries = (uint32_t)count;
	struct wire_entry *entries = NULL;
	int rc = count ? get_entries(&in, &m, n, &entries, err) : WIRE_OK;
	if (rc)
		return rc;
	m.entries = entries;
	uint64_t data_len = wire_get_varint(&in);
	if (in.bad || data_len != wire_in_left(&in)) {
		free(entries);
		return corrupt(err, "its end", n);
	}
	m.data_len = (uint32_t)data_len;
	if (data_len)
		m.data = wire_get_bytes(&in, (size_t)data_len);
	*ret_msg = m;
	*ret_entries = entries;
	return WIRE_OK;
}

int wire_msg_decode(const void *p, size_t n, struct wire_msg *ret_msg, struct wire_entry **ret_entries_mem,
                    struct wire_err *err)
{
	const uint8_t *bytes = p;
	if (!n)
		return corrupt(err, "it is empty", n);
	if (bytes[0] != WIRE_PROTOCOL)
		return wire_fail(err, WIRE_VERSION, "message of protocol version %u; this node speaks %u", bytes[0],
		                 WIRE_PROTOCOL);
	return decode(bytes, n, ret_msg, ret_entries_mem, err);
}

int wire_msg_decode_hello(const void *p, size_t n, struct wire_msg *ret_msg, unsigned *ret_version,
                          struct wire_err *err)
{
	const uint8_t *bytes = p;
	if (n < HEAD_BYTES || (bytes[1] != WIRE_MSG_HELLO && bytes[1] != WIRE_MSG_HELLO_REPLY))
		return corrupt(err, "it is no greeting", n);
	struct wire_msg m;
	struct wire_entry *entries = NULL;
	int rc = decode(bytes, n, &m, &entries, err);
	if (rc)
		return rc;
	free(entries);
	if (entries)
		return corrupt(err, "a greeting has no entries", n);
	*ret_msg = m;
	*ret_version = bytes[0];
	return WIRE_OK;
}
