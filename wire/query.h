/* Questions in SQL, as a host without a replica asks them (QUERY_* of wire/msg.h): what is asked, of which shape a table is, and how rows travel. Nobody sends
 * SQL: a question names a table, numbers of its columns, and comparisons with values, from which the node makes a SELECT (shell/query_sql.c).
 *
 *   QUERY_OPEN   corr = question; index = the one that it takes the place of, in the same snapshot (0: none); commit = bytes wanted at first, term = rows wanted at first (0, and UINT64_MAX: as many as there is room for); hint = 0: rows, 1: the
 *                table's shape; data = struct wire_query
 *   QUERY_NEXT   corr; commit = bytes wanted. One for each QUERY_ROWS but the first
 *   QUERY_CLOSE  corr: nothing more is wanted; not answered. A question is closed by this alone, also when all its rows were sent: so long the snapshot is kept
 *   QUERY_ROWS   corr; hint = 0: there is more, 1: that was the end, 2: not the answer, but it is being worked on; data = the next piece of the rows, or the shape.
 *                Flags REJECT: hint = code of wire/err.h, data = why, text = URL of a member that may do better, or "". The question is closed
 *
 * Rows are one sequence of bytes, cut anywhere: each is its length (varint), then the values. A value is a tag (enum wire_value_type), then INTEGER: 8 bytes; REAL: 8 bytes, IEEE;
 * TEXT (UTF-8) and BLOB: varint length and the bytes; NULL: nothing.
 *
 * Comparisons. The asker's SQLite tests every row again, so that a node may send too many but never too few. What `column OP value` means depends on both sides'
 * affinity, and of the side of the value only the value is known: it may come from a column of numeric affinity, which makes numbers of the texts that it is compared
 * with, or not. wire_query_fit says what a node does about it. */
#ifndef WIRE_QUERY_H
#define WIRE_QUERY_H

#include "wire/buf.h"
#include "wire/err.h"

#define WIRE_QUERY_COLUMNS_MAX 32767u
#define WIRE_QUERY_WHERE_MAX 64u
#define WIRE_QUERY_VALUES_MAX 2048u /* in all comparisons together */
#define WIRE_QUERY_ORDER_MAX 64u
#define WIRE_QUERY_NAME_MAX 16384u  /* bytes of a table's, a column's, a type's name */
#define WIRE_QUERY_BATCH_MAX (1u << 20)

enum wire_value_type { WIRE_VALUE_NULL, WIRE_VALUE_INTEGER, WIRE_VALUE_REAL, WIRE_VALUE_TEXT, WIRE_VALUE_BLOB };
struct wire_value {
	uint8_t type; /* enum wire_value_type */
	int64_t i;
	double r;
	const uint8_t *data; /* TEXT, BLOB: borrowed */
	size_t len;
};

void wire_put_value(struct wire_buf *b, const struct wire_value *v);
struct wire_value wire_get_value(struct wire_in *in); /* in->bad: malformed, and NULL */

enum wire_row_state { WIRE_ROW_MORE, WIRE_ROW_WHOLE, WIRE_ROW_BAD };
/* Takes a row of n values from the beginning of p: WHOLE: *ret_used bytes of it, values point into p. MORE: it ends within the row. BAD: no row can begin so. */
enum wire_row_state wire_row_take(const uint8_t *p, size_t len, size_t row_max, uint32_t n, struct wire_value *ret_v, size_t *ret_used);

enum wire_query_op {
	WIRE_QUERY_EQ, /* to one of the values */
	WIRE_QUERY_IS,
	WIRE_QUERY_LT, WIRE_QUERY_LE, WIRE_QUERY_GT, WIRE_QUERY_GE,
	WIRE_QUERY_IS_NULL, WIRE_QUERY_NOT_NULL, /* no value */
	WIRE_QUERY_LIKE, WIRE_QUERY_GLOB,
	WIRE_QUERY_OPS
};
enum wire_query_collation { WIRE_QUERY_BINARY, WIRE_QUERY_NOCASE, WIRE_QUERY_RTRIM, WIRE_QUERY_COLLATIONS };
const char *wire_query_collation_name(unsigned collation);
/* False: none of those three. */
bool wire_query_collation_of(const char *name, uint8_t *ret_collation);

/* Columns are counted from 1; 0 is the rowid. */
struct wire_query_where {
	uint32_t column;
	uint8_t op, collation;
	bool literal; /* the values stand in the statement itself */
	uint32_t n_values;
	struct wire_value *values;
};
struct wire_query_order { uint32_t column; uint8_t collation; bool desc; };
struct wire_query {
	char *table, *level; /* level: as in PRAGMA walraft_read */
	uint32_t timeout_ms; /* for what comes before the first row */
	uint64_t shape;      /* fingerprint of the shape that the asker knows; 0: none, it asks for it */
	uint32_t n_columns, n_where, n_order;
	uint32_t *columns;   /* in this order in each row */
	struct wire_query_where *where; /* all must hold */
	struct wire_query_order *order;
	bool limited;
	uint64_t limit;
};

void wire_query_put(struct wire_buf *b, const struct wire_query *q);
/* Values point into p. WIRE_CORRUPT, WIRE_NOMEM. */
int wire_query_get(const void *p, size_t n, struct wire_query **ret_query, struct wire_err *err);
void wire_query_free(struct wire_query *q); /* of wire_query_get; NULL allowed */

enum wire_affinity { WIRE_AFFINITY_NONE, WIRE_AFFINITY_TEXT, WIRE_AFFINITY_NUMERIC };
enum wire_affinity wire_affinity_of(const char *declared_type);

/* How a comparison of a column with a value is put to the node. */
enum wire_query_fit {
	WIRE_FIT_EXACT,  /* as it stands, and it gives what the asker's SQLite would */
	WIRE_FIT_MORE,   /* as it stands, and it may give more */
	WIRE_FIT_NUMBER, /* also rows whose text is a number and compares so with the value */
	WIRE_FIT_TEXT,   /* also rows whose text is a number: less than any text */
	WIRE_FIT_NEVER,  /* not at all */
};
enum wire_query_fit wire_query_fit(enum wire_affinity a, unsigned op, unsigned value_type, bool literal);

/* A table or view as it is declared at the asker. */
enum wire_shape_kind { WIRE_SHAPE_TABLE, WIRE_SHAPE_VIEW };
struct wire_shape_column {
	char *name, *type, *collation;
	uint32_t key; /* place in the primary key, from 1; 0: none */
	bool not_null;
};
struct wire_shape_index { bool unique; uint32_t n; uint32_t *columns; }; /* columns as in wire_query; those behind an expression are left out, and then it is not unique */
struct wire_shape {
	uint8_t kind;
	bool rowid, keyed; /* keyed: WITHOUT ROWID */
	uint32_t n_columns, n_indexes;
	struct wire_shape_column *columns;
	struct wire_shape_index *indexes;
	uint64_t rows; /* about */
};
void wire_shape_put(struct wire_buf *b, const struct wire_shape *s);
int wire_shape_get(const void *p, size_t n, struct wire_shape **ret_shape, struct wire_err *err);
void wire_shape_free(struct wire_shape *s); /* made by malloc throughout; NULL allowed */
/* For query*.c: a name, malloc'ed; NULL: in->bad or *failed is set. */
char *wire_query_name(struct wire_in *in, bool *failed);
uint64_t wire_shape_fingerprint(const struct wire_shape *s); /* of what a declaration depends on; never 0 */

#endif
