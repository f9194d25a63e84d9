/* Questions and rows as bytes. */
#include "wire/query.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- values and rows --- */

void wire_put_value(struct wire_buf *b, const struct wire_value *v)
{
	uint64_t bits;
	wire_put_u8(b, v->type);
	switch (v->type) {
	case WIRE_VALUE_INTEGER:
		wire_put_u64(b, (uint64_t)v->i);
		break;
	case WIRE_VALUE_REAL:
		memcpy(&bits, &v->r, sizeof(bits));
		wire_put_u64(b, bits);
		break;
	case WIRE_VALUE_TEXT:
	case WIRE_VALUE_BLOB:
		wire_put_varint(b, v->len);
		wire_put_bytes(b, v->data, v->len);
		break;
	}
}

struct wire_value wire_get_value(struct wire_in *in)
{
	struct wire_value v = { .type = wire_get_u8(in) };
	uint64_t n;
	switch (v.type) {
	case WIRE_VALUE_NULL:
		break;
	case WIRE_VALUE_INTEGER:
		v.i = (int64_t)wire_get_u64(in);
		break;
	case WIRE_VALUE_REAL:
		n = wire_get_u64(in);
		memcpy(&v.r, &n, sizeof(n));
		break;
	case WIRE_VALUE_TEXT:
	case WIRE_VALUE_BLOB:
		n = wire_get_varint(in);
		if (n > wire_in_left(in))
			in->bad = true;
		else if (n)
			v.data = wire_get_bytes(in, v.len = (size_t)n);
		break;
	default:
		in->bad = true;
	}
	return in->bad ? (struct wire_value){ 0 } : v;
}

enum wire_row_state wire_row_take(const uint8_t *p, size_t len, size_t row_max, uint32_t n, struct wire_value *ret_v, size_t *ret_used)
{
	struct wire_in head = wire_in_make(p, len), in;
	uint64_t size = wire_get_varint(&head);
	if (head.bad)
		return len < 10 ? WIRE_ROW_MORE : WIRE_ROW_BAD;
	if (size > row_max)
		return WIRE_ROW_BAD;
	if (size > wire_in_left(&head))
		return WIRE_ROW_MORE;
	in = wire_in_make(head.p, (size_t)size);
	for (uint32_t i = 0; i < n; i++)
		ret_v[i] = wire_get_value(&in);
	if (in.bad || wire_in_left(&in))
		return WIRE_ROW_BAD;
	*ret_used = (size_t)(in.end - p);
	return WIRE_ROW_WHOLE;
}

/* --- comparisons --- */

static const char *const collations[WIRE_QUERY_COLLATIONS] = { "BINARY", "NOCASE", "RTRIM" };

const char *wire_query_collation_name(unsigned collation)
{
	return collations[collation];
}

bool wire_query_collation_of(const char *name, uint8_t *ret_collation)
{
	for (uint8_t i = 0; name && i < WIRE_QUERY_COLLATIONS; i++) {
		if (strcasecmp(name, collations[i]) == 0) {
			*ret_collation = i;
			return true;
		}
	}
	return false;
}

static bool contains(const char *text, const char *word)
{
	for (size_t n = strlen(word); *text; text++)
		if (strncasecmp(text, word, n) == 0)
			return true;
	return false;
}

/* https://www.sqlite.org/datatype3.html, section 3.1; INTEGER, REAL and NUMERIC compare alike. */
enum wire_affinity wire_affinity_of(const char *type)
{
	if (!*type)
		return WIRE_AFFINITY_NONE;
	if (contains(type, "INT"))
		return WIRE_AFFINITY_NUMERIC;
	if (contains(type, "CHAR") || contains(type, "CLOB") || contains(type, "TEXT"))
		return WIRE_AFFINITY_TEXT;
	return contains(type, "BLOB") ? WIRE_AFFINITY_NONE : WIRE_AFFINITY_NUMERIC;
}

enum wire_query_fit wire_query_fit(enum wire_affinity a, unsigned op, unsigned type, bool literal)
{
	bool less = op == WIRE_QUERY_LT || op == WIRE_QUERY_LE, equal = op == WIRE_QUERY_EQ || op == WIRE_QUERY_IS;
	if (op == WIRE_QUERY_LIKE || op == WIRE_QUERY_GLOB)
		return WIRE_FIT_MORE; /* the asker may have functions of its own by these names */
	/* Numbers, blobs and NULL are nothing that an affinity of the other side could change. */
	if (op == WIRE_QUERY_IS_NULL || op == WIRE_QUERY_NOT_NULL || a == WIRE_AFFINITY_NUMERIC || type == WIRE_VALUE_BLOB || type == WIRE_VALUE_NULL)
		return WIRE_FIT_EXACT;
	/* A text that comes from a numeric column is no number, and numbers are less than it. A literal comes from no column. */
	if (type == WIRE_VALUE_TEXT)
		return equal || literal ? WIRE_FIT_EXACT : less ? WIRE_FIT_TEXT : WIRE_FIT_MORE;
	if (equal)
		return WIRE_FIT_NUMBER;
	/* A number is compared with texts as a number, as a text, or as less than they are. */
	if (a == WIRE_AFFINITY_TEXT)
		return WIRE_FIT_NEVER;
	return less ? WIRE_FIT_NUMBER : WIRE_FIT_MORE;
}

/* --- questions --- */

enum { FLAG_DESC = 1, FLAG_LITERAL = 1 };

void wire_query_put(struct wire_buf *b, const struct wire_query *q)
{
	wire_put_text(b, q->table);
	wire_put_text(b, q->level);
	wire_put_varint(b, q->timeout_ms);
	wire_put_u64(b, q->shape);
	wire_put_varint(b, q->n_columns);
	for (uint32_t i = 0; i < q->n_columns; i++)
		wire_put_varint(b, q->columns[i]);
	wire_put_varint(b, q->n_where);
	for (uint32_t i = 0; i < q->n_where; i++) {
		const struct wire_query_where *w = &q->where[i];
		wire_put_varint(b, w->column);
		wire_put_u8(b, w->op);
		wire_put_u8(b, w->collation);
		wire_put_u8(b, w->literal ? FLAG_LITERAL : 0);
		wire_put_varint(b, w->n_values);
		for (uint32_t k = 0; k < w->n_values; k++)
			wire_put_value(b, &w->values[k]);
	}
	wire_put_varint(b, q->n_order);
	for (uint32_t i = 0; i < q->n_order; i++) {
		wire_put_varint(b, q->order[i].column);
		wire_put_u8(b, q->order[i].collation);
		wire_put_u8(b, q->order[i].desc ? FLAG_DESC : 0);
	}
	wire_put_u8(b, q->limited);
	wire_put_varint(b, q->limit);
}

static uint32_t get_u32(struct wire_in *in, uint64_t max)
{
	uint64_t v = wire_get_varint(in);
	if (v > max)
		in->bad = true;
	return in->bad ? 0 : (uint32_t)v;
}

static uint8_t get_below(struct wire_in *in, unsigned end)
{
	uint8_t v = wire_get_u8(in);
	if (v >= end)
		in->bad = true;
	return in->bad ? 0 : v;
}

/* n elements; each takes at least one byte of the input, so that nobody can have us take memory for what is not there. */
static void *get_array(struct wire_in *in, uint32_t n, size_t size, bool *failed)
{
	void *p = NULL;
	if (n > wire_in_left(in))
		in->bad = true;
	if (!in->bad && n && !(p = calloc(n, size)))
		*failed = true;
	return p;
}

char *wire_query_name(struct wire_in *in, bool *failed)
{
	uint64_t n = wire_get_varint(in);
	const uint8_t *p;
	char *s;
	if (n > WIRE_QUERY_NAME_MAX || n > wire_in_left(in))
		in->bad = true;
	if (in->bad)
		return NULL;
	p = n ? wire_get_bytes(in, (size_t)n) : (const uint8_t *)"";
	if (memchr(p, 0, (size_t)n))
		in->bad = true;
	s = malloc((size_t)n + 1);
	if (!s) {
		*failed = true;
		return NULL;
	}
	memcpy(s, p, (size_t)n);
	s[n] = 0;
	return s;
}

static void get_where(struct wire_in *in, struct wire_query_where *w, uint32_t *budget, bool *failed)
{
	w->column = get_u32(in, WIRE_QUERY_COLUMNS_MAX);
	w->op = get_below(in, WIRE_QUERY_OPS);
	w->collation = get_below(in, WIRE_QUERY_COLLATIONS);
	w->literal = get_below(in, 2);
	uint32_t n = get_u32(in, *budget);
	bool none = w->op == WIRE_QUERY_IS_NULL || w->op == WIRE_QUERY_NOT_NULL;
	if (none ? n != 0 : w->op == WIRE_QUERY_EQ ? n == 0 : n != 1)
		in->bad = true;
	w->values = get_array(in, n, sizeof(*w->values), failed);
	if (!w->values)
		return;
	w->n_values = n;
	*budget -= n;
	for (uint32_t i = 0; i < n; i++)
		w->values[i] = wire_get_value(in);
}

static void get_lists(struct wire_in *in, struct wire_query *q, bool *failed)
{
	uint32_t budget = WIRE_QUERY_VALUES_MAX, n = get_u32(in, WIRE_QUERY_COLUMNS_MAX);
	if ((q->columns = get_array(in, n, sizeof(*q->columns), failed)))
		q->n_columns = n;
	for (uint32_t i = 0; i < q->n_columns; i++)
		q->columns[i] = get_u32(in, WIRE_QUERY_COLUMNS_MAX);
	n = get_u32(in, WIRE_QUERY_WHERE_MAX);
	if ((q->where = get_array(in, n, sizeof(*q->where), failed)))
		q->n_where = n;
	for (uint32_t i = 0; i < q->n_where && !in->bad && !*failed; i++)
		get_where(in, &q->where[i], &budget, failed);
	n = get_u32(in, WIRE_QUERY_ORDER_MAX);
	if ((q->order = get_array(in, n, sizeof(*q->order), failed)))
		q->n_order = n;
	for (uint32_t i = 0; i < q->n_order; i++) {
		q->order[i].column = get_u32(in, WIRE_QUERY_COLUMNS_MAX);
		q->order[i].collation = get_below(in, WIRE_QUERY_COLLATIONS);
		q->order[i].desc = get_below(in, 2);
	}
	q->limited = get_below(in, 2);
	q->limit = wire_get_varint(in);
}

int wire_query_get(const void *p, size_t n, struct wire_query **ret_query, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, n);
	struct wire_query *q = calloc(1, sizeof(*q));
	bool failed = !q;
	if (q) {
		q->table = wire_query_name(&in, &failed);
		q->level = wire_query_name(&in, &failed);
		q->timeout_ms = get_u32(&in, UINT32_MAX);
		q->shape = wire_get_u64(&in);
		get_lists(&in, q, &failed);
	}
	if (!failed && !in.bad && !wire_in_left(&in)) {
		*ret_query = q;
		return WIRE_OK;
	}
	wire_query_free(q);
	return failed ? wire_fail(err, WIRE_NOMEM, "no memory for a question") : wire_fail(err, WIRE_CORRUPT, "a question is malformed");
}

void wire_query_free(struct wire_query *q)
{
	if (!q)
		return;
	for (uint32_t i = 0; i < q->n_where; i++)
		free(q->where[i].values);
	free(q->where);
	free(q->columns);
	free(q->order);
	free(q->table);
	free(q->level);
	free(q);
}
