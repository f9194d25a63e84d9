/* From a question to a SELECT. No byte of the asker's gets into the text but the table's name, which has been found in the schema; columns are named by the schema, values are bound. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/query.h"

#include <stdlib.h>
#include <string.h>

#define WIDE_VALUES_MAX 100u /* they become a chain of ORs, and SQLite limits the depth of expressions */

/* --- the shape of a table --- */

static int sql_failed(sqlite3 *db, const char *table, struct wire_err *err)
{
	return wire_fail(err, sqlite3_errcode(db) == SQLITE_NOMEM ? WIRE_NOMEM : WIRE_IO, "looking at table %s: %s", table, sqlite3_errmsg(db));
}

static int prepare(sqlite3 *db, const char *sql, const char *table, sqlite3_stmt **ret_stmt, struct wire_err *err)
{
	if (sqlite3_prepare_v2(db, sql, -1, ret_stmt, NULL) != SQLITE_OK || sqlite3_bind_text(*ret_stmt, 1, table, -1, SQLITE_STATIC) != SQLITE_OK)
		return sql_failed(db, table, err);
	return WIRE_OK;
}

static char *text_of(sqlite3_stmt *stmt, int column)
{
	const char *s = (const char *)sqlite3_column_text(stmt, column);

	return strdup(s ? s : "");
}

/* *ret_strict: columns of type ANY keep what they are given. *ret_btree: it is no view and no virtual table. Not what only looks like a table, such as SQLite's functions that give rows. */
static int find_table(sqlite3 *db, const char *table, struct wire_shape *s, bool *ret_strict, bool *ret_btree, struct wire_err *err)
{
	sqlite3_stmt *stmt = NULL;
	bool found = false;
	int rc = prepare(db, "SELECT l.type, l.wr, l.strict FROM pragma_table_list(?1) AS l WHERE l.schema = 'main' AND (l.name IN ('sqlite_master', 'sqlite_schema')"
	                     " OR EXISTS (SELECT 1 FROM main.sqlite_schema AS m WHERE m.type IN ('table', 'view') AND m.name = l.name))", table, &stmt, err);

	if (!rc && sqlite3_step(stmt) == SQLITE_ROW) {
		const char *type = (const char *)sqlite3_column_text(stmt, 0);

		found = true;
		s->kind = type && strcmp(type, "view") == 0 ? WIRE_SHAPE_VIEW : WIRE_SHAPE_TABLE;
		s->keyed = sqlite3_column_int(stmt, 1) != 0;
		*ret_strict = sqlite3_column_int(stmt, 2) != 0;
		*ret_btree = type && strcmp(type, "table") == 0;
	}
	if (!rc && sqlite3_reset(stmt) != SQLITE_OK)
		rc = sql_failed(db, table, err);
	sqlite3_finalize(stmt);
	return rc || found ? rc : wire_fail(err, WIRE_NOTFOUND, "no such table: %s", table);
}

static int add_column(sqlite3 *db, const char *table, struct wire_shape *s, sqlite3_stmt *stmt, bool strict)
{
	struct wire_shape_column *grown = realloc(s->columns, (s->n_columns + 1) * sizeof *grown), *c;
	const char *type = (const char *)sqlite3_column_text(stmt, 1), *collation = NULL;

	if (!grown)
		return WIRE_NOMEM;
	s->columns = grown;
	c = &grown[s->n_columns];
	*c = (struct wire_shape_column){ .name = text_of(stmt, 0), .type = strict && type && sqlite3_stricmp(type, "ANY") == 0 ? strdup("") : text_of(stmt, 1),
	                                 .not_null = sqlite3_column_int(stmt, 2) != 0, .key = (uint32_t)sqlite3_column_int(stmt, 3) };
	s->n_columns++;
	if (s->kind == WIRE_SHAPE_TABLE && c->name)
		(void)sqlite3_table_column_metadata(db, "main", table, c->name, NULL, &collation, NULL, NULL, NULL);
	c->collation = strdup(collation ? collation : "BINARY");
	return c->name && c->type && c->collation ? WIRE_OK : WIRE_NOMEM;
}

static int read_columns(sqlite3 *db, const char *table, struct wire_shape *s, bool strict, struct wire_err *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = prepare(db, "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid", table, &stmt, err);

	while (!rc && sqlite3_step(stmt) == SQLITE_ROW)
		if (add_column(db, table, s, stmt, strict))
			rc = wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", table);
	if (!rc && sqlite3_reset(stmt) != SQLITE_OK)
		rc = sql_failed(db, table, err);
	sqlite3_finalize(stmt);
	if (!rc && (!s->n_columns || s->n_columns > WIRE_QUERY_COLUMNS_MAX))
		rc = wire_fail(err, WIRE_UNSUPPORTED, "%s has %u columns that can be read", table, s->n_columns);
	return rc;
}

/* Columns of a view that are expressions have an affinity, but no type that would tell of it: a table that is made of them does. */
static int view_types(sqlite3 *db, const char *view, struct wire_shape *s, struct wire_err *err)
{
	sqlite3_stmt *stmt = NULL;
	char *sql = sqlite3_mprintf("CREATE TEMP TABLE walraft_view AS SELECT * FROM main.\"%w\" LIMIT 0", view);
	int rc = sql ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", view);
	uint32_t i = 0;

	if (!rc && sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		rc = sql_failed(db, view, err);
	sqlite3_free(sql);
	if (!rc && sqlite3_prepare_v2(db, "SELECT type FROM pragma_table_info('walraft_view', 'temp') ORDER BY cid", -1, &stmt, NULL) != SQLITE_OK)
		rc = sql_failed(db, view, err);
	for (; !rc && i < s->n_columns && sqlite3_step(stmt) == SQLITE_ROW; i++) {
		if (*s->columns[i].type)
			continue;
		free(s->columns[i].type);
		s->columns[i].type = text_of(stmt, 0);
		if (!s->columns[i].type)
			rc = wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", view);
	}
	sqlite3_finalize(stmt);
	(void)sqlite3_exec(db, "DROP TABLE IF EXISTS temp.walraft_view", NULL, NULL, NULL);
	return rc;
}

/* Columns of a view that are columns of a table compare by its collation. Where SQLite was built without telling of that, they are taken for BINARY. */
static int view_collations(sqlite3 *db, const char *view, struct wire_shape *s, struct wire_err *err)
{
	sqlite3_stmt *stmt = NULL;
	char *sql;
	int rc = WIRE_OK;

	if (!sqlite3_api->column_origin_name || !sqlite3_api->column_table_name)
		return WIRE_OK;
	sql = sqlite3_mprintf("SELECT * FROM main.\"%w\"", view);
	if (!sql)
		return wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", view);
	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
		rc = sql_failed(db, view, err);
	sqlite3_free(sql);
	for (uint32_t i = 0; !rc && i < s->n_columns && (int)i < sqlite3_column_count(stmt); i++) {
		const char *table = sqlite3_column_table_name(stmt, (int)i), *column = sqlite3_column_origin_name(stmt, (int)i), *collation = NULL;
		char *copy;

		if (!table || !column || sqlite3_table_column_metadata(db, "main", table, column, NULL, &collation, NULL, NULL, NULL) != SQLITE_OK || !collation)
			continue;
		copy = strdup(collation);
		if (!copy) {
			rc = wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", view);
			break;
		}
		free(s->columns[i].collation);
		s->columns[i].collation = copy;
	}
	sqlite3_finalize(stmt);
	return rc;
}

static uint32_t column_by_name(const struct wire_shape *s, const char *name)
{
	for (uint32_t i = 0; name && i < s->n_columns; i++)
		if (sqlite3_stricmp(s->columns[i].name, name) == 0)
			return i + 1;
	return 0;
}

/* Under which of its names the rowid can be had; NULL: under none, columns have taken them all. */
static const char *rowid_name(const struct wire_shape *s)
{
	static const char *const names[] = { "rowid", "_rowid_", "oid" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!column_by_name(s, names[i]))
			return names[i];
	return NULL;
}

static bool add_index_column(struct wire_shape_index *x, uint32_t column)
{
	uint32_t *grown = realloc(x->columns, (x->n + 1) * sizeof *grown);

	if (!grown)
		return false;
	x->columns = grown;
	x->columns[x->n++] = column;
	return true;
}

static bool new_index(struct wire_shape *s, bool unique)
{
	struct wire_shape_index *grown = realloc(s->indexes, (s->n_indexes + 1) * sizeof *grown);

	if (!grown)
		return false;
	s->indexes = grown;
	grown[s->n_indexes++] = (struct wire_shape_index){ .unique = unique };
	return true;
}

/* One row for each column of each index that covers all rows, in order. */
static int read_indexes(sqlite3 *db, const char *table, struct wire_shape *s, struct wire_err *err)
{
	sqlite3_stmt *stmt = NULL;
	int64_t last = -1;
	bool cut = false;
	int rc = prepare(db, "SELECT l.seq, l.\"unique\", x.cid, x.name, x.coll FROM pragma_index_list(?1, 'main') AS l, pragma_index_xinfo(l.name, 'main') AS x "
	                     "WHERE l.partial = 0 AND x.key = 1 ORDER BY l.seq, x.seqno", table, &stmt, err);

	while (!rc && sqlite3_step(stmt) == SQLITE_ROW) {
		uint32_t c = sqlite3_column_int(stmt, 2) == -1 ? 0 : column_by_name(s, (const char *)sqlite3_column_text(stmt, 3));
		const char *collation = (const char *)sqlite3_column_text(stmt, 4);
		bool ok = true;

		if (sqlite3_column_int64(stmt, 0) != last) {
			last = sqlite3_column_int64(stmt, 0);
			cut = false;
			ok = new_index(s, sqlite3_column_int(stmt, 1) != 0);
		}
		/* An expression, or a column in another order than the table's. */
		if ((!c && sqlite3_column_int(stmt, 2) != -1) || (c && collation && sqlite3_stricmp(collation, s->columns[c - 1].collation)))
			cut = true;
		if (ok && cut)
			s->indexes[s->n_indexes - 1].unique = false;
		else if (ok)
			ok = add_index_column(&s->indexes[s->n_indexes - 1], c);
		if (!ok)
			rc = wire_fail(err, WIRE_NOMEM, "no memory for the indexes of %s", table);
	}
	if (!rc && sqlite3_reset(stmt) != SQLITE_OK)
		rc = sql_failed(db, table, err);
	sqlite3_finalize(stmt);
	return rc;
}

/* An INTEGER PRIMARY KEY has no index of its own: the table is one. */
static int add_rowid_index(struct wire_shape *s, struct wire_err *err)
{
	uint32_t key = 0, n = 0;

	for (uint32_t i = 0; i < s->n_columns; i++)
		if (s->columns[i].key) {
			key = i + 1;
			n++;
		}
	if (!s->rowid)
		return WIRE_OK;
	if (!new_index(s, true) || !add_index_column(&s->indexes[s->n_indexes - 1], 0))
		return wire_fail(err, WIRE_NOMEM, "no memory for the indexes of a table");
	if (n == 1 && sqlite3_stricmp(s->columns[key - 1].type, "INTEGER") == 0)
		if (!new_index(s, true) || !add_index_column(&s->indexes[s->n_indexes - 1], key))
			return wire_fail(err, WIRE_NOMEM, "no memory for the indexes of a table");
	return WIRE_OK;
}

/* ANALYZE's count, or the largest rowid; 0: not known. Neither failing is worth a word. */
static uint64_t about_rows(sqlite3 *db, const char *table, const struct wire_shape *s, bool btree)
{
	sqlite3_stmt *stmt = NULL;
	sqlite3_int64 n = 0;
	char *sql;

	if (sqlite3_prepare_v2(db, "SELECT CAST(stat AS INTEGER) FROM main.sqlite_stat1 WHERE tbl = ?1 COLLATE NOCASE LIMIT 1", -1, &stmt, NULL) == SQLITE_OK) {
		sqlite3_bind_text(stmt, 1, table, -1, SQLITE_STATIC);
		if (sqlite3_step(stmt) == SQLITE_ROW)
			n = sqlite3_column_int64(stmt, 0);
	}
	sqlite3_finalize(stmt);
	if (n > 0 || !btree || !s->rowid)
		return n > 0 ? (uint64_t)n : 0;
	stmt = NULL;
	sql = sqlite3_mprintf("SELECT max(%s) FROM main.\"%w\"", rowid_name(s), table);
	if (sql && sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW)
		n = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_free(sql);
	return n > 0 ? (uint64_t)n : 0;
}

int query_shape(sqlite3 *db, const char *table, struct wire_shape **ret_shape, struct wire_err *err)
{
	struct wire_shape *s = calloc(1, sizeof *s);
	bool strict = false, btree = false;
	int rc;

	if (sqlite3_stricmp(table, "sqlite_schema") == 0)
		table = "sqlite_master"; /* the name by which pragmas know it */
	rc = s ? find_table(db, table, s, &strict, &btree, err) : wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", table);
	if (!rc)
		rc = read_columns(db, table, s, strict, err);
	if (!rc && s->kind == WIRE_SHAPE_VIEW)
		rc = view_types(db, table, s, err);
	if (!rc && s->kind == WIRE_SHAPE_VIEW)
		rc = view_collations(db, table, s, err);
	if (!rc) {
		s->rowid = s->kind == WIRE_SHAPE_TABLE && !s->keyed && rowid_name(s);
		rc = read_indexes(db, table, s, err);
	}
	if (!rc)
		rc = add_rowid_index(s, err);
	if (!rc) {
		s->rows = about_rows(db, table, s, btree);
		*ret_shape = s;
	} else {
		wire_shape_free(s);
	}
	return rc;
}

/* --- the SELECT --- */

/* A column of a view that no declared type tells of may have any affinity at all: it is asked for without. */
static void put_column(sqlite3_str *sql, const struct wire_shape *s, uint32_t column, bool compared)
{
	if (!column)
		sqlite3_str_appendf(sql, "%s", rowid_name(s));
	else
		sqlite3_str_appendf(sql, "%s\"%w\"", compared && s->kind == WIRE_SHAPE_VIEW && !*s->columns[column - 1].type ? "+" : "", s->columns[column - 1].name);
}

static enum wire_affinity affinity(const struct wire_shape *s, uint32_t column)
{
	return column ? wire_affinity_of(s->columns[column - 1].type) : WIRE_AFFINITY_NUMERIC;
}

/* The comparison of one value, which is parameter number `at`. */
static void put_compare(sqlite3_str *sql, const struct wire_shape *s, const struct wire_query_where *w, enum wire_query_fit fit, int at)
{
	static const char *const ops[] = { [WIRE_QUERY_EQ] = "=",   [WIRE_QUERY_IS] = "IS",  [WIRE_QUERY_LT] = "<",       [WIRE_QUERY_LE] = "<=",
		                           [WIRE_QUERY_GT] = ">",   [WIRE_QUERY_GE] = ">=",  [WIRE_QUERY_LIKE] = "LIKE",  [WIRE_QUERY_GLOB] = "GLOB" };
	const char *op = ops[w->op];

	sqlite3_str_appendall(sql, "(");
	put_column(sql, s, w->column, true);
	if (w->op != WIRE_QUERY_LIKE && w->op != WIRE_QUERY_GLOB)
		sqlite3_str_appendf(sql, " COLLATE %s", wire_query_collation_name(w->collation));
	sqlite3_str_appendf(sql, " %s ?%d", op, at);
	/* The ranges are there for an index: of all texts, and of those that may begin a number. */
	if (fit == WIRE_FIT_NUMBER) {
		sqlite3_str_appendall(sql, " OR (");
		put_column(sql, s, w->column, true);
		sqlite3_str_appendall(sql, " >= '' AND ");
		put_column(sql, s, w->column, true);
		sqlite3_str_appendall(sql, " < x'' AND ");
		put_column(sql, s, w->column, true);
		sqlite3_str_appendf(sql, " %s CAST(?%d AS NUMERIC))", op, at);
	} else if (fit == WIRE_FIT_TEXT) {
		sqlite3_str_appendall(sql, " OR (");
		put_column(sql, s, w->column, true);
		sqlite3_str_appendall(sql, " >= char(9) AND ");
		put_column(sql, s, w->column, true);
		sqlite3_str_appendall(sql, " < ':' AND ");
		put_column(sql, s, w->column, true);
		sqlite3_str_appendall(sql, " <= CAST(9e999 AS REAL))");
	}
	sqlite3_str_appendall(sql, ")");
}

/* One of several values: a list where each is compared as it stands, else one by one. */
static int put_equal(sqlite3_str *sql, const struct wire_shape *s, const struct wire_query_where *w, int at, struct wire_err *err)
{
	bool plain = true;

	for (uint32_t i = 0; i < w->n_values; i++)
		plain &= wire_query_fit(affinity(s, w->column), w->op, w->values[i].type, w->literal) == WIRE_FIT_EXACT;
	if (!plain && w->n_values > WIDE_VALUES_MAX)
		return wire_fail(err, WIRE_INVALID, "a column is compared with %u values", w->n_values);
	sqlite3_str_appendall(sql, "(");
	if (plain && w->n_values > 1) {
		put_column(sql, s, w->column, true);
		sqlite3_str_appendf(sql, " COLLATE %s IN (", wire_query_collation_name(w->collation));
		for (uint32_t i = 0; i < w->n_values; i++)
			sqlite3_str_appendf(sql, "%s?%d", i ? "," : "", at + (int)i);
		sqlite3_str_appendall(sql, ")");
	} else {
		for (uint32_t i = 0; i < w->n_values; i++) {
			sqlite3_str_appendall(sql, i ? " OR " : "");
			put_compare(sql, s, w, wire_query_fit(affinity(s, w->column), w->op, w->values[i].type, w->literal), at + (int)i);
		}
	}
	sqlite3_str_appendall(sql, ")");
	return WIRE_OK;
}

static int put_where(sqlite3_str *sql, const struct wire_query *q, const struct wire_shape *s, int *at, struct wire_err *err)
{
	for (uint32_t i = 0; i < q->n_where; i++) {
		const struct wire_query_where *w = &q->where[i];
		enum wire_query_fit fit = w->n_values ? wire_query_fit(affinity(s, w->column), w->op, w->values[0].type, w->literal) : WIRE_FIT_EXACT;
		int rc = WIRE_OK;

		sqlite3_str_appendall(sql, i ? " AND " : " WHERE ");
		if (fit == WIRE_FIT_NEVER)
			return wire_fail(err, WIRE_INVALID, "a comparison that cannot be made here");
		if (w->op == WIRE_QUERY_IS_NULL || w->op == WIRE_QUERY_NOT_NULL) {
			put_column(sql, s, w->column, false);
			sqlite3_str_appendall(sql, w->op == WIRE_QUERY_IS_NULL ? " IS NULL" : " IS NOT NULL");
		} else if (w->op == WIRE_QUERY_EQ) {
			rc = put_equal(sql, s, w, *at, err);
		} else {
			put_compare(sql, s, w, fit, *at);
		}
		if (rc)
			return rc;
		*at += (int)w->n_values;
	}
	return WIRE_OK;
}

static int check(const struct wire_query *q, const struct wire_shape *s, struct wire_err *err)
{
	bool ok = q->n_columns != 0;

	for (uint32_t i = 0; i < q->n_columns; i++)
		ok &= q->columns[i] ? q->columns[i] <= s->n_columns : s->rowid;
	for (uint32_t i = 0; i < q->n_where; i++)
		ok &= q->where[i].column ? q->where[i].column <= s->n_columns : s->rowid;
	for (uint32_t i = 0; i < q->n_order; i++)
		ok &= q->order[i].column ? q->order[i].column <= s->n_columns : s->rowid;
	return ok ? WIRE_OK : wire_fail(err, WIRE_INVALID, "the question names columns that %s does not have", q->table);
}

static int bind(sqlite3_stmt *stmt, int at, const struct wire_value *v)
{
	switch (v->type) {
	case WIRE_VALUE_INTEGER:
		return sqlite3_bind_int64(stmt, at, v->i);
	case WIRE_VALUE_REAL:
		return sqlite3_bind_double(stmt, at, v->r);
	case WIRE_VALUE_TEXT:
		return sqlite3_bind_text64(stmt, at, v->len ? (const char *)v->data : "", v->len, SQLITE_TRANSIENT, SQLITE_UTF8);
	case WIRE_VALUE_BLOB:
		return v->len ? sqlite3_bind_blob64(stmt, at, v->data, v->len, SQLITE_TRANSIENT) : sqlite3_bind_zeroblob(stmt, at, 0);
	default:
		return sqlite3_bind_null(stmt, at);
	}
}

static int bind_all(sqlite3_stmt *stmt, const struct wire_query *q)
{
	int at = 1, rc = SQLITE_OK;

	for (uint32_t i = 0; i < q->n_where; i++)
		for (uint32_t k = 0; k < q->where[i].n_values && rc == SQLITE_OK; k++)
			rc = bind(stmt, at++, &q->where[i].values[k]);
	if (rc == SQLITE_OK && q->limited)
		rc = sqlite3_bind_int64(stmt, at, q->limit > INT64_MAX ? INT64_MAX : (sqlite3_int64)q->limit);
	return rc;
}

int query_prepare(sqlite3 *db, const struct wire_query *q, const struct wire_shape *s, sqlite3_stmt **ret_stmt, struct wire_err *err)
{
	sqlite3_str *sql = sqlite3_str_new(db);
	sqlite3_stmt *stmt = NULL;
	char *text;
	int at = 1, rc = check(q, s, err);

	for (uint32_t i = 0; i < q->n_columns && !rc; i++) {
		sqlite3_str_appendall(sql, i ? ", " : "SELECT ");
		put_column(sql, s, q->columns[i], false);
	}
	sqlite3_str_appendf(sql, " FROM main.\"%w\"", q->table);
	if (!rc)
		rc = put_where(sql, q, s, &at, err);
	for (uint32_t i = 0; i < q->n_order && !rc; i++) {
		sqlite3_str_appendall(sql, i ? ", " : " ORDER BY ");
		put_column(sql, s, q->order[i].column, false);
		sqlite3_str_appendf(sql, " COLLATE %s%s", wire_query_collation_name(q->order[i].collation), q->order[i].desc ? " DESC" : "");
	}
	if (q->limited)
		sqlite3_str_appendf(sql, " LIMIT ?%d", at);
	text = sqlite3_str_finish(sql);
	if (!rc && !text)
		rc = wire_fail(err, WIRE_NOMEM, "no memory for a question");
	if (!rc && (sqlite3_prepare_v2(db, text, -1, &stmt, NULL) != SQLITE_OK || bind_all(stmt, q) != SQLITE_OK))
		rc = wire_fail(err, WIRE_IO, "%s: %s", q->table, sqlite3_errmsg(db));
	sqlite3_free(text);
	if (rc)
		sqlite3_finalize(stmt);
	else
		*ret_stmt = stmt;
	return rc;
}
