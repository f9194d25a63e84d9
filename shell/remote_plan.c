/* What of a statement is left to the member. A plan is text, in idxStr, since EXPLAIN QUERY PLAN shows it; words, in this order:
 *
 *   u<hex>             columns used: bit i for column i, from 0; bit 63 for all from there on
 *   w<c>.<op>.<k>.<f>  a condition; its value is the next argument of xFilter. c: column from 1, 0 the rowid; op: enum wire_query_op; k: collation; f: 1 literal, 2 a list (IN)
 *   l, f               LIMIT, OFFSET: arguments, too
 *   o<c>.<d>           the member sorts; d: 1 descending
 *   p                  there are other conditions
 *
 * SQLite tests all conditions again (`omit` is never set), so what the member does with them may be more than is wanted, never less. Except with LIMIT: that is left to it only
 * when what it does is exact. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/remote.h"

#include <stdlib.h>
#include <string.h>

#define VALUES_BYTES_MAX 45000u /* of a question; its limit is WIRE_ASK_MAX */
#define WIDE_VALUES_MAX 100u    /* query_sql.c's */
#define ROWS_UNKNOWN 100000.0
#define COST_QUESTION 300.0 /* a round trip, in rows that are looked at */
#define COST_SCANNED 0.3
#define COST_RETURNED 2.0
/* Before, conditions between two columns of the table were not shown to xBestIndex, and did not keep LIMIT from it. */
#define LIMIT_SINCE 3047000

enum { FLAG_LITERAL = 1, FLAG_LIST = 2 };

/* --- choosing --- */

static int op_of(int constraint)
{
	switch (constraint) {
	case SQLITE_INDEX_CONSTRAINT_EQ:
		return WIRE_QUERY_EQ;
	case SQLITE_INDEX_CONSTRAINT_IS:
		return WIRE_QUERY_IS;
	case SQLITE_INDEX_CONSTRAINT_LT:
		return WIRE_QUERY_LT;
	case SQLITE_INDEX_CONSTRAINT_LE:
		return WIRE_QUERY_LE;
	case SQLITE_INDEX_CONSTRAINT_GT:
		return WIRE_QUERY_GT;
	case SQLITE_INDEX_CONSTRAINT_GE:
		return WIRE_QUERY_GE;
	case SQLITE_INDEX_CONSTRAINT_ISNULL:
		return WIRE_QUERY_IS_NULL;
	case SQLITE_INDEX_CONSTRAINT_ISNOTNULL:
		return WIRE_QUERY_NOT_NULL;
	case SQLITE_INDEX_CONSTRAINT_LIKE:
		return WIRE_QUERY_LIKE;
	case SQLITE_INDEX_CONSTRAINT_GLOB:
		return WIRE_QUERY_GLOB;
	default:
		return -1;
	}
}

struct choice {
	struct remote_table *t;
	sqlite3_index_info *info;
	sqlite3_str *text;
	int args, limit, offset; /* limit, offset: their constraints, or -1 */
	bool partial, can_sort;
	uint8_t *op; /* of each constraint that is used, else WIRE_QUERY_OPS */
};

static uint32_t column_of(int column)
{
	return column < 0 ? 0 : (uint32_t)column + 1;
}

static void choose_condition(struct choice *c, int i)
{
	const struct sqlite3_index_constraint *k = &c->info->aConstraint[i];
	int op = op_of(k->op);
	uint8_t collation = WIRE_QUERY_BINARY;
	sqlite3_value *literal = NULL;
	unsigned flags = 0;

	if (op < 0 || !k->usable || (k->iColumn < 0 && !c->t->shape->rowid) ||
	    (k->iColumn >= 0 && op != WIRE_QUERY_IS_NULL && op != WIRE_QUERY_NOT_NULL && !wire_query_collation_of(sqlite3_vtab_collation(c->info, i), &collation)) ||
	    c->args + 2 >= (int)WIRE_QUERY_WHERE_MAX) {
		c->partial = true;
		return;
	}
	if (op == WIRE_QUERY_EQ && sqlite3_vtab_in(c->info, i, -1)) {
		sqlite3_vtab_in(c->info, i, 1);
		flags |= FLAG_LIST;
	} else if (sqlite3_vtab_rhs_value(c->info, i, &literal) == SQLITE_OK && literal) {
		flags |= FLAG_LITERAL;
	}
	c->op[i] = (uint8_t)op;
	c->info->aConstraintUsage[i].argvIndex = ++c->args;
	sqlite3_str_appendf(c->text, " w%u.%d.%u.%u", column_of(k->iColumn), op, collation, flags);
}

static bool equal_on(const struct choice *c, uint32_t column)
{
	for (int i = 0; i < c->info->nConstraint; i++)
		if (column_of(c->info->aConstraint[i].iColumn) == column && (c->op[i] == WIRE_QUERY_EQ || c->op[i] == WIRE_QUERY_IS))
			return true;
	return false;
}

static bool range_on(const struct choice *c, uint32_t column)
{
	for (int i = 0; i < c->info->nConstraint; i++)
		if (column_of(c->info->aConstraint[i].iColumn) == column && c->op[i] >= WIRE_QUERY_LT && c->op[i] <= WIRE_QUERY_GE)
			return true;
	return false;
}

/* Does x give the wanted order, perhaps backwards? Columns that are equal to a value do not matter. */
static bool sorts(const struct choice *c, const struct wire_shape_index *x)
{
	uint32_t k = 0;

	for (int i = 0; i < c->info->nOrderBy; i++) {
		uint32_t column = column_of(c->info->aOrderBy[i].iColumn);

		while (k < x->n && x->columns[k] != column && equal_on(c, x->columns[k]))
			k++;
		if (k == x->n || x->columns[k++] != column || c->info->aOrderBy[i].desc != c->info->aOrderBy[0].desc)
			return false;
	}
	return true;
}

/* Cheap for the member, or worth it: nobody fetches all to sort and to throw most of it away. */
static bool leave_order(struct choice *c)
{
	bool cheap = c->limit >= 0;

	for (int i = 0; i < c->info->nOrderBy; i++) {
		int column = c->info->aOrderBy[i].iColumn;

		if (column < 0 ? !c->t->shape->rowid : c->t->collation[column] == WIRE_QUERY_COLLATIONS)
			return false;
	}
	for (uint32_t i = 0; i < c->t->shape->n_indexes && !cheap; i++)
		cheap = sorts(c, &c->t->shape->indexes[i]);
	return c->info->nOrderBy > 0 && c->info->nOrderBy <= (int)WIRE_QUERY_ORDER_MAX && cheap;
}

static void estimate(struct choice *c)
{
	const struct wire_shape *s = c->t->shape;
	double rows = s->rows ? (double)s->rows : ROWS_UNKNOWN, scanned = rows, returned;
	bool unique = false;

	for (uint32_t i = 0; i < s->n_indexes; i++) {
		const struct wire_shape_index *x = &s->indexes[i];
		double left = rows;
		uint32_t k = 0;

		for (; k < x->n && equal_on(c, x->columns[k]); k++)
			left /= k ? 5 : 20;
		if (k < x->n && range_on(c, x->columns[k]))
			left /= 4;
		if (x->unique && k == x->n && k)
			left = 1;
		unique |= x->unique && k == x->n && k;
		scanned = left < scanned ? left : scanned;
	}
	returned = rows;
	for (int i = 0; i < c->info->nConstraint; i++)
		if (c->op[i] != WIRE_QUERY_OPS)
			returned /= c->op[i] == WIRE_QUERY_EQ || c->op[i] == WIRE_QUERY_IS ? 10 : c->op[i] == WIRE_QUERY_NOT_NULL ? 1.1 : 3;
	if (returned > scanned)
		returned = scanned;
	if (scanned < 1)
		scanned = 1;
	if (returned < 1)
		returned = 1;
	c->info->estimatedCost = COST_QUESTION + scanned * COST_SCANNED + returned * COST_RETURNED;
	c->info->estimatedRows = (sqlite3_int64)returned;
	if (unique)
		c->info->idxFlags |= SQLITE_INDEX_SCAN_UNIQUE;
}

static void use(struct choice *c, int i, const char *word)
{
	if (i < 0)
		return;
	c->info->aConstraintUsage[i].argvIndex = ++c->args;
	sqlite3_str_appendf(c->text, " %s", word);
}

int remote_best_index(sqlite3_vtab *tab, sqlite3_index_info *info)
{
	struct choice c = { .t = (struct remote_table *)tab, .info = info, .limit = -1, .offset = -1 };
	bool sort;

	c.op = malloc((size_t)info->nConstraint + 1);
	c.text = sqlite3_str_new(c.t->db);
	if (!c.op) {
		sqlite3_free(sqlite3_str_finish(c.text));
		return SQLITE_NOMEM;
	}
	memset(c.op, WIRE_QUERY_OPS, (size_t)info->nConstraint + 1);
	sqlite3_str_appendf(c.text, "u%llx", (unsigned long long)info->colUsed);
	for (int i = 0; i < info->nConstraint; i++) {
		const struct sqlite3_index_constraint *k = &info->aConstraint[i];

		if (k->op == SQLITE_INDEX_CONSTRAINT_LIMIT && k->usable)
			c.limit = i;
		else if (k->op == SQLITE_INDEX_CONSTRAINT_OFFSET && k->usable)
			c.offset = i;
		else if (k->op != SQLITE_INDEX_CONSTRAINT_LIMIT && k->op != SQLITE_INDEX_CONSTRAINT_OFFSET)
			choose_condition(&c, i);
	}
	sort = leave_order(&c);
	if (info->nOrderBy > 0 && !sort)
		c.limit = c.offset = -1;
	use(&c, c.limit, "l");
	if (c.limit >= 0)
		use(&c, c.offset, "f");
	for (int i = 0; i < info->nOrderBy && sort; i++)
		sqlite3_str_appendf(c.text, " o%u.%d", column_of(info->aOrderBy[i].iColumn), info->aOrderBy[i].desc ? 1 : 0);
	if (c.partial)
		sqlite3_str_appendall(c.text, " p");
	info->orderByConsumed = sort;
	estimate(&c);
	free(c.op);
	info->idxStr = sqlite3_str_finish(c.text);
	info->needToFreeIdxStr = 1;
	return info->idxStr ? SQLITE_OK : SQLITE_NOMEM;
}

/* --- reading it --- */

struct reading {
	const struct remote_table *t;
	struct remote_plan *p;
	size_t bytes;
	uint32_t n_values;
	bool exact;
};

/* WIRE_TOOBIG: the question would be too long. */
static int copy_value(struct reading *r, sqlite3_value *from, struct wire_value *v)
{
	int type = sqlite3_value_type(from);
	const void *p;
	uint8_t *copy;

	*v = (struct wire_value){ .type = WIRE_VALUE_NULL };
	r->bytes += 12;
	if (type == SQLITE_INTEGER) {
		v->type = WIRE_VALUE_INTEGER;
		v->i = sqlite3_value_int64(from);
	} else if (type == SQLITE_FLOAT) {
		v->type = WIRE_VALUE_REAL;
		v->r = sqlite3_value_double(from);
	}
	if (type == SQLITE_TEXT || type == SQLITE_BLOB) {
		p = type == SQLITE_TEXT ? sqlite3_value_text(from) : sqlite3_value_blob(from);
		v->len = (size_t)sqlite3_value_bytes(from);
		r->bytes += v->len;
		if (r->bytes > VALUES_BYTES_MAX)
			return WIRE_TOOBIG;
		copy = malloc(v->len + 1);
		if (!copy || (v->len && !p)) {
			free(copy);
			return WIRE_NOMEM;
		}
		if (v->len)
			memcpy(copy, p, v->len);
		v->type = type == SQLITE_TEXT ? WIRE_VALUE_TEXT : WIRE_VALUE_BLOB;
		v->data = copy;
	}
	return r->bytes > VALUES_BYTES_MAX || ++r->n_values > WIRE_QUERY_VALUES_MAX ? WIRE_TOOBIG : WIRE_OK;
}

static int add_value(struct reading *r, struct wire_query_where *w, sqlite3_value *from)
{
	struct wire_value *grown;
	int rc;

	if (sqlite3_value_type(from) == SQLITE_NULL)
		return WIRE_OK; /* nothing is equal to it */
	grown = realloc(w->values, (w->n_values + 1) * sizeof *grown);
	if (!grown)
		return WIRE_NOMEM;
	w->values = grown;
	rc = copy_value(r, from, &grown[w->n_values]);
	w->n_values++; /* freed later, also when it is too big */
	return rc;
}

static int add_values(struct reading *r, struct wire_query_where *w, sqlite3_value *arg, bool list)
{
	sqlite3_value *v = NULL;
	int sql, rc = WIRE_OK;

	if (!list)
		return add_value(r, w, arg);
	for (sql = sqlite3_vtab_in_first(arg, &v); sql == SQLITE_OK && v && !rc; sql = sqlite3_vtab_in_next(arg, &v))
		rc = add_value(r, w, v);
	return rc || sql == SQLITE_OK || sql == SQLITE_DONE ? rc : WIRE_NOMEM;
}

static void free_values(struct wire_query_where *w)
{
	for (uint32_t i = 0; i < w->n_values; i++)
		free((void *)(uintptr_t)w->values[i].data);
	free(w->values);
	*w = (struct wire_query_where){ 0 };
}

/* WIRE_TOOBIG: this condition is better not asked for. */
static int judge(struct reading *r, const struct wire_query_where *w)
{
	enum wire_affinity a = w->column ? r->t->affinity[w->column - 1] : WIRE_AFFINITY_NUMERIC;
	bool exact = true;

	for (uint32_t i = 0; i < w->n_values; i++) {
		enum wire_query_fit fit = wire_query_fit(a, w->op, w->values[i].type, w->literal);

		if (fit == WIRE_FIT_NEVER)
			return WIRE_TOOBIG;
		exact &= fit == WIRE_FIT_EXACT;
	}
	if (!exact && w->n_values > WIDE_VALUES_MAX)
		return WIRE_TOOBIG;
	r->exact &= exact;
	return WIRE_OK;
}

static int add_condition(struct reading *r, const unsigned long *n, sqlite3_value *arg)
{
	struct remote_plan *p = r->p;
	struct wire_query_where w = { .column = (uint32_t)n[0], .op = (uint8_t)n[1], .collation = (uint8_t)n[2], .literal = n[3] & FLAG_LITERAL };
	size_t bytes = r->bytes;
	uint32_t n_values = r->n_values;
	int rc = WIRE_OK;
	bool none = w.op == WIRE_QUERY_IS_NULL || w.op == WIRE_QUERY_NOT_NULL;

	if (w.op == WIRE_QUERY_IS && sqlite3_value_type(arg) == SQLITE_NULL) {
		w.op = WIRE_QUERY_IS_NULL;
		none = true;
	}
	if (!none)
		rc = add_values(r, &w, arg, n[3] & FLAG_LIST);
	if (!rc && !none && !w.n_values)
		rc = WIRE_NOTFOUND;
	if (!rc)
		rc = judge(r, &w);
	if (rc) {
		free_values(&w);
		r->bytes = bytes;
		r->n_values = n_values;
		p->partial |= rc == WIRE_TOOBIG;
		return rc == WIRE_TOOBIG ? WIRE_OK : rc;
	}
	p->q.where[p->q.n_where++] = w;
	return WIRE_OK;
}

/* As SQLite does: a rowid where there is one; the key, by which a table without rowids tells its rows apart; all of a view, where nothing else does. */
static void add_columns(const struct remote_table *t, struct remote_plan *p, unsigned long long used)
{
	const struct wire_shape *s = t->shape;

	if (s->rowid)
		p->q.columns[p->q.n_columns++] = 0;
	for (uint32_t i = 0; i < s->n_columns; i++)
		if (used >> (i < 63 ? i : 63) & 1 || (s->keyed && s->columns[i].key) || (!s->rowid && !s->keyed))
			p->q.columns[p->q.n_columns++] = i + 1;
}

/* The numbers behind a word's letter, n at most; returns how many. */
static unsigned numbers(const char **text, unsigned long *n, unsigned max, int base)
{
	unsigned k = 0;
	char *end;

	do {
		n[k++] = strtoul(*text, &end, base);
		*text = *end == '.' ? end + 1 : end;
	} while (*end == '.' && k < max);
	return k;
}

static void add_order(struct reading *r, const unsigned long *n)
{
	uint32_t column = (uint32_t)n[0];

	r->p->q.order[r->p->q.n_order++] = (struct wire_query_order){ .column = column, .desc = n[1], .collation = column ? r->t->collation[column - 1] : (uint8_t)WIRE_QUERY_BINARY };
}

/* A negative LIMIT is none, a negative OFFSET is 0. */
static void add_limit(struct remote_plan *p, sqlite3_value *v, bool offset)
{
	sqlite3_int64 n = sqlite3_value_int64(v);

	if (!offset)
		p->first = n < 0 ? UINT64_MAX : (uint64_t)n;
	else if (n > 0 && p->first != UINT64_MAX)
		p->first += (uint64_t)n;
}

int remote_plan_read(const struct remote_table *t, const char *text, int argc, sqlite3_value **argv, struct remote_plan *ret_plan)
{
	struct remote_plan *p = ret_plan;
	struct reading r = { .t = t, .p = p, .exact = true };
	int at = 0, rc = WIRE_OK;

	*p = (struct remote_plan){ .first = UINT64_MAX };
	p->q.columns = calloc(t->shape->n_columns + 1, sizeof *p->q.columns);
	p->q.where = calloc((size_t)argc + 1, sizeof *p->q.where);
	p->q.order = calloc(WIRE_QUERY_ORDER_MAX, sizeof *p->q.order);
	if (!p->q.columns || !p->q.where || !p->q.order)
		return WIRE_NOMEM;
	while (*text && !rc) {
		unsigned long n[4] = { 0 };
		char word = *text++;

		if (word == 'u') {
			numbers(&text, n, 1, 16);
			add_columns(t, p, n[0]);
		} else if (word == 'w' && at < argc) {
			numbers(&text, n, 4, 10);
			rc = add_condition(&r, n, argv[at++]);
		} else if ((word == 'l' || word == 'f') && at < argc) {
			add_limit(p, argv[at++], word == 'f');
		} else if (word == 'o') {
			numbers(&text, n, 2, 10);
			add_order(&r, n);
		} else if (word == 'p') {
			p->partial = true;
		}
	}
	p->q.limited = p->first != UINT64_MAX && !p->partial && r.exact && sqlite3_libversion_number() >= LIMIT_SINCE;
	p->q.limit = p->q.limited ? p->first : 0;
	return rc;
}

void remote_plan_free(struct remote_plan *p)
{
	for (uint32_t i = 0; i < p->q.n_where; i++)
		free_values(&p->q.where[i]);
	free(p->q.where);
	free(p->q.columns);
	free(p->q.order);
}
