/* Questions, rows and shapes: what is encoded comes back, and nothing else is taken for one. */
#include "wire/query.h"
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state += 0x9e3779b97f4a7c15u;
	uint64_t z = rng_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(rng() % n);
}

static const uint8_t bytes[300] = "some bytes\0and others";

static struct wire_value random_value(void)
{
	struct wire_value v = { .type = (uint8_t)below(5) };
	if (v.type == WIRE_VALUE_INTEGER)
		v.i = (int64_t)rng();
	if (v.type == WIRE_VALUE_REAL)
		v.r = (double)rng() / 3;
	if (v.type >= WIRE_VALUE_TEXT && (v.len = below(sizeof(bytes))))
		v.data = bytes;
	return v;
}

static void assert_value(const struct wire_value *a, const struct wire_value *b)
{
	assert_int_equal(a->type, b->type);
	assert_true(a->i == b->i && memcmp(&a->r, &b->r, sizeof(a->r)) == 0);
	assert_int_equal(a->len, b->len);
	if (a->len)
		assert_memory_equal(a->data, b->data, a->len);
}

/* An exact copy, so that a read beyond it is found by a sanitizer. */
static uint8_t *copy_of(const uint8_t *p, size_t n)
{
	uint8_t *c = malloc(n ? n : 1);
	assert_non_null(c);
	memcpy(c, p, n);
	return c;
}

/* --- rows --- */

static void put_row(struct wire_buf *b, const struct wire_value *v, uint32_t n)
{
	struct wire_buf body = WIRE_BUF_INIT;
	for (uint32_t i = 0; i < n; i++)
		wire_put_value(&body, &v[i]);
	wire_put_varint(b, body.len);
	wire_put_bytes(b, body.data, body.len);
	wire_buf_free(&body);
}

static void rows_come_back(void **state)
{
	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct wire_value v[20], got[20];
		uint32_t n = below(21);
		struct wire_buf b = WIRE_BUF_INIT;
		size_t used = 0;
		for (uint32_t i = 0; i < n; i++)
			v[i] = random_value();
		put_row(&b, v, n);
		size_t whole = b.len;
		put_row(&b, v, n);
		/* Cut anywhere, there is no row yet. */
		size_t cut = below((uint32_t)whole);
		uint8_t *p = copy_of(b.data, cut);
		assert_int_equal(wire_row_take(p, cut, 1 << 20, n, got, &used), WIRE_ROW_MORE);
		free(p);
		assert_int_equal(wire_row_take(b.data, b.len, 1 << 20, n, got, &used), WIRE_ROW_WHOLE);
		assert_int_equal(used, whole);
		for (uint32_t i = 0; i < n; i++)
			assert_value(&got[i], &v[i]);
		/* Of another number of columns, or larger than allowed. */
		assert_int_equal(wire_row_take(b.data, b.len, 1 << 20, n + 1 > 20 ? 19 : n + 1, got, &used), WIRE_ROW_BAD);
		if (whole > 3)
			assert_int_equal(wire_row_take(b.data, b.len, 1, n, got, &used), WIRE_ROW_BAD);
		wire_buf_free(&b);
	}
	const uint8_t endless[11] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80 };
	size_t used;
	struct wire_value v;
	assert_int_equal(wire_row_take(endless, 9, 100, 1, &v, &used), WIRE_ROW_MORE);
	assert_int_equal(wire_row_take(endless, 11, 100, 1, &v, &used), WIRE_ROW_BAD);
}

static void special_numbers(void **state)
{
	(void)state;
	const double r[] = { -0.0, INFINITY, -INFINITY, 5e-324, 1.7976931348623157e308 };
	for (size_t i = 0; i < sizeof(r) / sizeof(r[0]); i++) {
		struct wire_buf b = WIRE_BUF_INIT;
		struct wire_value v = { .type = WIRE_VALUE_REAL, .r = r[i] };
		wire_put_value(&b, &v);
		struct wire_in in = wire_in_make(b.data, b.len);
		struct wire_value got = wire_get_value(&in);
		assert_value(&got, &v);
		wire_buf_free(&b);
	}
}

/* --- questions --- */

static void random_query(struct wire_buf *b, struct wire_query *q, struct wire_value *values, struct wire_query_where *where, uint32_t *columns,
                         struct wire_query_order *order)
{
	static char table[] = "größe \"x\"", level[] = "bounded:500";
	uint32_t at = 0;
	*q = (struct wire_query){ .table = table, .level = level, .timeout_ms = below(100000), .shape = rng(), .columns = columns, .where = where, .order = order,
		                  .limited = below(2), .limit = rng() >> below(64) };
	q->n_columns = below(10);
	for (uint32_t i = 0; i < q->n_columns; i++)
		columns[i] = below(WIRE_QUERY_COLUMNS_MAX + 1);
	q->n_where = below(6);
	for (uint32_t i = 0; i < q->n_where; i++) {
		struct wire_query_where *w = &where[i];
		*w = (struct wire_query_where){ .column = below(100), .op = (uint8_t)below(WIRE_QUERY_OPS), .collation = (uint8_t)below(WIRE_QUERY_COLLATIONS), .literal = below(2) };
		w->n_values = w->op == WIRE_QUERY_EQ ? 1 + below(8) : w->op == WIRE_QUERY_IS_NULL || w->op == WIRE_QUERY_NOT_NULL ? 0 : 1;
		w->values = &values[at];
		for (uint32_t k = 0; k < w->n_values; k++)
			values[at++] = random_value();
	}
	q->n_order = below(4);
	for (uint32_t i = 0; i < q->n_order; i++)
		order[i] = (struct wire_query_order){ .column = below(50), .collation = (uint8_t)below(WIRE_QUERY_COLLATIONS), .desc = below(2) };
	wire_query_put(b, q);
	assert_false(b->failed);
}

static void assert_query(const struct wire_query *a, const struct wire_query *b)
{
	assert_string_equal(a->table, b->table);
	assert_string_equal(a->level, b->level);
	assert_true(a->timeout_ms == b->timeout_ms && a->shape == b->shape && a->limited == b->limited && a->limit == b->limit);
	assert_true(a->n_columns == b->n_columns && a->n_where == b->n_where && a->n_order == b->n_order);
	for (uint32_t i = 0; i < a->n_columns; i++)
		assert_int_equal(a->columns[i], b->columns[i]);
	for (uint32_t i = 0; i < a->n_where; i++) {
		const struct wire_query_where *v = &a->where[i], *w = &b->where[i];
		assert_true(v->column == w->column && v->op == w->op && v->collation == w->collation && v->literal == w->literal && v->n_values == w->n_values);
		for (uint32_t k = 0; k < v->n_values; k++)
			assert_value(&v->values[k], &w->values[k]);
	}
	for (uint32_t i = 0; i < a->n_order; i++)
		assert_true(a->order[i].column == b->order[i].column && a->order[i].collation == b->order[i].collation && a->order[i].desc == b->order[i].desc);
}

static void questions_come_back(void **state)
{
	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct wire_value values[64];
		struct wire_query_where where[8];
		struct wire_query_order order[8];
		uint32_t columns[16];
		struct wire_query q, *got = NULL;
		struct wire_buf b = WIRE_BUF_INIT;
		struct wire_err err;
		random_query(&b, &q, values, where, columns, order);
		assert_int_equal(wire_query_get(b.data, b.len, &got, &err), WIRE_OK);
		assert_query(got, &q);
		wire_query_free(got);
		/* Cut, too long, damaged: refused, or another question that is within all limits; nothing outside is read. */
		size_t cut = below((uint32_t)b.len);
		uint8_t *p = copy_of(b.data, cut);
		assert_int_equal(wire_query_get(p, cut, &got, &err), WIRE_CORRUPT);
		free(p);
		wire_put_u8(&b, 0);
		assert_int_equal(wire_query_get(b.data, b.len, &got, &err), WIRE_CORRUPT);
		p = copy_of(b.data, b.len - 1);
		for (uint32_t k = 1 + below(4); k; k--)
			p[below((uint32_t)b.len - 1)] = (uint8_t)rng();
		if (wire_query_get(p, b.len - 1, &got, &err) == WIRE_OK) {
			for (uint32_t i = 0; i < got->n_where; i++)
				assert_true(got->where[i].op < WIRE_QUERY_OPS && got->where[i].collation < WIRE_QUERY_COLLATIONS && got->where[i].column <= WIRE_QUERY_COLUMNS_MAX);
			wire_query_free(got);
		}
		free(p);
		wire_buf_free(&b);
	}
}

/* Counts that promise more than is there must not cost memory. */
static void large_counts(void **state)
{
	(void)state;
	const uint64_t counts[] = { WIRE_QUERY_COLUMNS_MAX, WIRE_QUERY_COLUMNS_MAX + 1, UINT32_MAX, UINT64_MAX };
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct wire_buf b = WIRE_BUF_INIT;
		struct wire_query *q = NULL;
		struct wire_err err;
		wire_put_text(&b, "t");
		wire_put_text(&b, "stale");
		wire_put_varint(&b, 1);
		wire_put_u64(&b, 1);
		wire_put_varint(&b, counts[i]);
		wire_put_u64(&b, 0);
		assert_int_equal(wire_query_get(b.data, b.len, &q, &err), WIRE_CORRUPT);
		wire_buf_free(&b);
	}
}

/* --- shapes --- */

static void shapes_come_back(void **state)
{
	(void)state;
	char name[] = "a name", type[] = "VARCHAR(10)", collation[] = "NOCASE";
	uint32_t in_index[] = { 2, 0, 1 };
	struct wire_shape_column columns[] = { { name, type, collation, 0, true }, { type, name, collation, 1, false } };
	struct wire_shape_index indexes[] = { { true, 3, in_index }, { false, 0, NULL } };
	struct wire_shape s = { .kind = WIRE_SHAPE_TABLE, .rowid = true, .n_columns = 2, .n_indexes = 2, .columns = columns, .indexes = indexes, .rows = 1u << 30 }, *got = NULL;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_err err;
	wire_shape_put(&b, &s);
	assert_int_equal(wire_shape_get(b.data, b.len, &got, &err), WIRE_OK);
	assert_true(got->rowid && !got->keyed && got->n_columns == 2 && got->n_indexes == 2 && got->rows == s.rows);
	assert_string_equal(got->columns[1].name, type);
	assert_int_equal(got->columns[1].key, 1);
	assert_int_equal(got->indexes[0].columns[2], 1);
	assert_true(wire_shape_fingerprint(got) == wire_shape_fingerprint(&s));
	/* What a declaration does not depend on is no change; what it does depend on is one. */
	s.rows = 5;
	s.n_indexes = 0;
	assert_true(wire_shape_fingerprint(got) == wire_shape_fingerprint(&s));
	columns[0].collation = type;
	assert_true(wire_shape_fingerprint(got) != wire_shape_fingerprint(&s));
	wire_shape_free(got);
	for (size_t cut = 0; cut < b.len; cut++) {
		uint8_t *p = copy_of(b.data, cut);
		assert_int_equal(wire_shape_get(p, cut, &got, &err), WIRE_CORRUPT);
		free(p);
	}
	for (int round = 0; round < 5000; round++) {
		uint8_t *p = copy_of(b.data, b.len);
		for (uint32_t k = 1 + below(4); k; k--)
			p[below((uint32_t)b.len)] = (uint8_t)rng();
		if (wire_shape_get(p, b.len, &got, &err) == WIRE_OK) {
			for (uint32_t i = 0; i < got->n_indexes; i++)
				for (uint32_t k = 0; k < got->indexes[i].n; k++)
					assert_true(got->indexes[i].columns[k] <= got->n_columns);
			wire_shape_free(got);
		}
		free(p);
	}
	wire_buf_free(&b);
}

static void affinities(void **state)
{
	(void)state;
	static const struct { const char *type; enum wire_affinity a; } of[] = {
		{ "", WIRE_AFFINITY_NONE }, { "blob", WIRE_AFFINITY_NONE }, { "INTEGER", WIRE_AFFINITY_NUMERIC }, { "CHARINT", WIRE_AFFINITY_NUMERIC },
		{ "VARCHAR(10)", WIRE_AFFINITY_TEXT }, { "TextBlob", WIRE_AFFINITY_TEXT }, { "nclob", WIRE_AFFINITY_TEXT }, { "REAL", WIRE_AFFINITY_NUMERIC },
		{ "DATE", WIRE_AFFINITY_NUMERIC }, { "FLOATING POINT", WIRE_AFFINITY_NUMERIC },
	};
	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
		assert_int_equal(wire_affinity_of(of[i].type), of[i].a);
	assert_int_equal(wire_query_fit(WIRE_AFFINITY_TEXT, WIRE_QUERY_LT, WIRE_VALUE_INTEGER, false), WIRE_FIT_NEVER);
	assert_int_equal(wire_query_fit(WIRE_AFFINITY_TEXT, WIRE_QUERY_LT, WIRE_VALUE_TEXT, false), WIRE_FIT_TEXT);
	assert_int_equal(wire_query_fit(WIRE_AFFINITY_NONE, WIRE_QUERY_EQ, WIRE_VALUE_INTEGER, true), WIRE_FIT_NUMBER);
	assert_int_equal(wire_query_fit(WIRE_AFFINITY_NUMERIC, WIRE_QUERY_LT, WIRE_VALUE_TEXT, false), WIRE_FIT_EXACT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_come_back), cmocka_unit_test(special_numbers), cmocka_unit_test(questions_come_back),
		cmocka_unit_test(large_counts),   cmocka_unit_test(shapes_come_back), cmocka_unit_test(affinities),
	};
	const char *seed = getenv("WALRAFT_SEED");
	rng_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	printf("# WALRAFT_SEED=%" PRIu64 " test/unit/test_query\n", rng_state);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
