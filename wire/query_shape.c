/* What a table looks like, as bytes:
 *
 *   u8 kind, u8 flags (1 rowid, 2 keyed), varint columns, each: text name, text type, text collation, varint key, u8 not null;
 *   varint indexes, each: u8 unique, varint columns, each a varint; varint rows. */
#include "wire/hash.h"
#include "wire/query.h"
#include <stdlib.h>

enum { FLAG_ROWID = 1, FLAG_KEYED = 2, INDEXES_MAX = 4096 };

static void put_columns(struct wire_buf *b, const struct wire_shape *s)
{
	wire_put_u8(b, s->kind);
	wire_put_u8(b, (uint8_t)((s->rowid ? FLAG_ROWID : 0) | (s->keyed ? FLAG_KEYED : 0)));
	wire_put_varint(b, s->n_columns);
	for (uint32_t i = 0; i < s->n_columns; i++) {
		const struct wire_shape_column *c = &s->columns[i];
		wire_put_text(b, c->name);
		wire_put_text(b, c->type);
		wire_put_text(b, c->collation);
		wire_put_varint(b, c->key);
		wire_put_u8(b, c->not_null);
	}
}

void wire_shape_put(struct wire_buf *b, const struct wire_shape *s)
{
	put_columns(b, s);
	wire_put_varint(b, s->n_indexes);
	for (uint32_t i = 0; i < s->n_indexes; i++) {
		const struct wire_shape_index *x = &s->indexes[i];
		wire_put_u8(b, x->unique);
		wire_put_varint(b, x->n);
		for (uint32_t k = 0; k < x->n; k++)
			wire_put_varint(b, x->columns[k]);
	}
	wire_put_varint(b, s->rows);
}

uint64_t wire_shape_fingerprint(const struct wire_shape *s)
{
	struct wire_buf b = WIRE_BUF_INIT;
	uint64_t sum;
	put_columns(&b, s);
	sum = b.failed ? 0 : wire_hash(b.data, b.len, 0);
	wire_buf_free(&b);
	return sum ? sum : 1;
}

/* As in query.c: an element takes a byte at least. */
static void *get_array(struct wire_in *in, uint64_t max, size_t size, uint32_t *ret_n, bool *failed)
{
	uint64_t n = wire_get_varint(in);
	void *p = NULL;
	if (n > max || n > wire_in_left(in))
		in->bad = true;
	if (in->bad || !n)
		return NULL;
	p = calloc((size_t)n, size);
	if (p)
		*ret_n = (uint32_t)n;
	else
		*failed = true;
	return p;
}

static void get_column(struct wire_in *in, struct wire_shape_column *c, uint32_t n, bool *failed)
{
	uint64_t key;
	c->name = wire_query_name(in, failed);
	c->type = wire_query_name(in, failed);
	c->collation = wire_query_name(in, failed);
	key = wire_get_varint(in);
	c->not_null = wire_get_u8(in);
	if (key > n)
		in->bad = true;
	else
		c->key = (uint32_t)key;
}

static void get_index(struct wire_in *in, struct wire_shape_index *x, uint32_t n, bool *failed)
{
	x->unique = wire_get_u8(in);
	x->columns = get_array(in, WIRE_QUERY_COLUMNS_MAX, sizeof(*x->columns), &x->n, failed);
	for (uint32_t i = 0; i < x->n; i++) {
		uint64_t c = wire_get_varint(in);
		if (c > n)
			in->bad = true;
		else
			x->columns[i] = (uint32_t)c;
	}
}

int wire_shape_get(const void *p, size_t n, struct wire_shape **ret_shape, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, n);
	struct wire_shape *s = calloc(1, sizeof(*s));
	bool failed = !s;
	uint8_t flags;
	if (!s)
		return wire_fail(err, WIRE_NOMEM, "no memory for a table's columns");
	s->kind = wire_get_u8(&in);
	flags = wire_get_u8(&in);
	s->rowid = flags & FLAG_ROWID;
	s->keyed = flags & FLAG_KEYED;
	if (s->kind > WIRE_SHAPE_VIEW || (s->rowid && s->keyed))
		in.bad = true;
	s->columns = get_array(&in, WIRE_QUERY_COLUMNS_MAX, sizeof(*s->columns), &s->n_columns, &failed);
	for (uint32_t i = 0; i < s->n_columns && !in.bad && !failed; i++)
		get_column(&in, &s->columns[i], s->n_columns, &failed);
	s->indexes = get_array(&in, INDEXES_MAX, sizeof(*s->indexes), &s->n_indexes, &failed);
	for (uint32_t i = 0; i < s->n_indexes && !in.bad && !failed; i++)
		get_index(&in, &s->indexes[i], s->n_columns, &failed);
	s->rows = wire_get_varint(&in);
	if (!failed && !in.bad && !wire_in_left(&in) && s->n_columns) {
		*ret_shape = s;
		return WIRE_OK;
	}
	wire_shape_free(s);
	return failed ? wire_fail(err, WIRE_NOMEM, "no memory for a table's columns") : wire_fail(err, WIRE_CORRUPT, "a table's columns are malformed");
}

void wire_shape_free(struct wire_shape *s)
{
	if (!s)
		return;
	for (uint32_t i = 0; i < s->n_columns; i++) {
		free(s->columns[i].name);
		free(s->columns[i].type);
		free(s->columns[i].collation);
	}
	for (uint32_t i = 0; i < s->n_indexes; i++)
		free(s->indexes[i].columns);
	free(s->columns);
	free(s->indexes);
	free(s);
}
