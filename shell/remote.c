#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/ext.h"
#include "shell/remote.h"
#include "wire/hash.h"
#include "wire/link.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS 5000u
#define TIMEOUT_MS_MAX 86400000u
#define URLS_MAX 16u
#define USAGE "write CREATE VIRTUAL TABLE r USING walraft_remote('tcp://HOST:PORT', 'table' [, level='stale'] [, timeout=5000])"

/* --- arguments --- */

/* Without the blanks around it, and the quotes. */
static char *plain(const char *arg)
{
	size_t n;
	char *s, *to, quote;

	while (isspace((unsigned char)*arg))
		arg++;
	n = strlen(arg);
	while (n && isspace((unsigned char)arg[n - 1]))
		n--;
	s = to = malloc(n + 1);
	if (!s)
		return NULL;
	memcpy(s, arg, n);
	s[n] = 0;
	quote = *s;
	if (n < 2 || (quote != '\'' && quote != '"') || s[n - 1] != quote)
		return s;
	s[n - 1] = 0;
	for (const char *from = s + 1; *from; from++) {
		*to++ = *from;
		if (*from == quote && from[1] == quote)
			from++;
	}
	*to = 0;
	return s;
}

/* The value of NAME=value, or NULL. */
static const char *option(const char *arg, const char *name)
{
	size_t n = strlen(name);

	while (isspace((unsigned char)*arg))
		arg++;
	if (sqlite3_strnicmp(arg, name, (int)n))
		return NULL;
	for (arg += n; isspace((unsigned char)*arg); arg++)
		;
	return *arg == '=' ? arg + 1 : NULL;
}

static int check_urls(const char *urls, struct wire_err *err)
{
	unsigned n = 0;
	int rc = WIRE_OK;

	for (const char *p = urls; p && !rc; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		char url[WIRE_TEXT_MAX + 2];
		size_t len = strcspn(p, ",");

		snprintf(url, sizeof url, "%.*s", (int)(len < sizeof url ? len : sizeof url - 1), p);
		rc = ++n > URLS_MAX ? wire_fail(err, WIRE_INVALID, "more than %u addresses", URLS_MAX) : wire_url_check(url, NULL, err);
	}
	return rc;
}

static int set_timeout(struct remote_table *t, const char *text, struct wire_err *err)
{
	char *s = plain(text), *end = NULL;
	unsigned long v = s ? strtoul(s, &end, 10) : 0;
	bool ok = s && *s >= '0' && *s <= '9' && !*end && v >= 1 && v <= TIMEOUT_MS_MAX;
	int rc = ok ? WIRE_OK : wire_fail(err, WIRE_INVALID, "timeout is in milliseconds, from 1 to %u, not %s", TIMEOUT_MS_MAX, s ? s : "");

	if (ok)
		t->timeout_ms = (uint32_t)v;
	free(s);
	return rc;
}

static int read_arguments(struct remote_table *t, int argc, const char *const *argv, struct wire_err *err)
{
	int rc = WIRE_OK;

	t->timeout_ms = TIMEOUT_MS;
	for (int i = 3; i < argc && !rc; i++) {
		const char *v;

		if ((v = option(argv[i], "timeout"))) {
			rc = set_timeout(t, v, err);
		} else if ((v = option(argv[i], "level"))) {
			free(t->level);
			t->level = plain(v);
		} else if (!t->urls) {
			t->urls = plain(argv[i]);
			rc = t->urls ? check_urls(t->urls, err) : WIRE_NOMEM;
		} else if (!t->name) {
			t->name = plain(argv[i]);
		} else {
			rc = wire_fail(err, WIRE_INVALID, "what is %.100s? " USAGE, argv[i]);
		}
	}
	if (!rc && (!t->urls || !t->name || !*t->name))
		rc = wire_fail(err, WIRE_INVALID, "a member's address or the table is missing: " USAGE);
	if (!rc && !t->level)
		t->level = strdup("linearizable");
	if (!rc && (!t->level || strlen(t->name) > WIRE_QUERY_NAME_MAX || strlen(t->level) > 64))
		rc = wire_fail(err, WIRE_INVALID, "a name or a level is too long");
	return rc;
}

/* --- declaring --- */

/* A word or several, perhaps with sizes, that cannot mean anything but a type to SQLite's parser or to the interface of virtual tables. */
static bool is_plain_type(const char *type)
{
	static const char *const meaning[] = { "hidden", "generated", "always", "primary", "unique", "check", "default", "collate", "references", "constraint", "not", "null", "as" };
	bool sizes = false;

	for (const char *p = type; *p;) {
		size_t n = 0;

		while (isalnum((unsigned char)p[n]) || p[n] == '_')
			n++;
		for (size_t i = 0; i < sizeof meaning / sizeof *meaning; i++)
			if (n == strlen(meaning[i]) && sqlite3_strnicmp(p, meaning[i], (int)n) == 0)
				return false;
		if (n) {
			p += n;
			if (sizes)
				continue;
		} else if (*p == '(' && p != type && !sizes) {
			n = strspn(p + 1, "0123456789, +-");
			if (p[n + 1] != ')')
				return false;
			p += n + 2;
			sizes = true;
		} else if (*p == ' ') {
			p++;
		} else {
			return false;
		}
	}
	return !*type || isalpha((unsigned char)*type);
}

static const char *affinity_name(enum wire_affinity a)
{
	return a == WIRE_AFFINITY_TEXT ? "TEXT" : a == WIRE_AFFINITY_NUMERIC ? "NUMERIC" : "";
}

/* plainly: only with types and collations that every SQLite knows. */
static char *declaration(struct remote_table *t, bool plainly)
{
	const struct wire_shape *s = t->shape;
	sqlite3_str *sql = sqlite3_str_new(t->db);

	for (uint32_t i = 0; i < s->n_columns; i++) {
		const struct wire_shape_column *c = &s->columns[i];
		const char *type = !plainly && is_plain_type(c->type) ? c->type : affinity_name(wire_affinity_of(c->type));
		bool known = wire_query_collation_of(c->collation, &t->collation[i]);

		if (!known)
			t->collation[i] = plainly ? WIRE_QUERY_BINARY : WIRE_QUERY_COLLATIONS;
		t->affinity[i] = wire_affinity_of(type);
		sqlite3_str_appendf(sql, "%s\"%w\" %s", i ? ", " : "CREATE TABLE x(", c->name, type);
		if (known ? t->collation[i] != WIRE_QUERY_BINARY : !plainly)
			sqlite3_str_appendf(sql, " COLLATE \"%w\"", c->collation);
	}
	for (uint32_t k = 1, n = 0; s->keyed && k <= s->n_columns; k++)
		for (uint32_t i = 0; i < s->n_columns; i++)
			if (s->columns[i].key == k)
				sqlite3_str_appendf(sql, "%s\"%w\"", n++ ? ", " : ", PRIMARY KEY(", s->columns[i].name);
	sqlite3_str_appendall(sql, s->keyed ? ")) WITHOUT ROWID" : ")");
	return sqlite3_str_finish(sql);
}

static int declare(struct remote_table *t, struct wire_err *err)
{
	int rc = SQLITE_ERROR;

	t->affinity = calloc(t->shape->n_columns, sizeof *t->affinity);
	t->collation = calloc(t->shape->n_columns, sizeof *t->collation);
	if (!t->affinity || !t->collation)
		return wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", t->name);
	for (int plainly = 0; plainly < 2 && rc != SQLITE_OK; plainly++) {
		char *sql = declaration(t, plainly);

		rc = sql ? sqlite3_declare_vtab(t->db, sql) : SQLITE_NOMEM;
		sqlite3_free(sql);
	}
	return rc == SQLITE_OK ? WIRE_OK : wire_fail(err, rc == SQLITE_NOMEM ? WIRE_NOMEM : WIRE_INVALID, "cannot declare the columns of %s: %s", t->name, sqlite3_errmsg(t->db));
}

static void table_free(struct remote_table *t)
{
	wire_shape_free(t->shape);
	free(t->affinity);
	free(t->collation);
	free(t->urls);
	free(t->name);
	free(t->level);
	free(t);
}

static int code_of(const struct wire_err *err)
{
	return err->code == WIRE_NOMEM ? SQLITE_NOMEM : WALRAFT_ERROR_REMOTE;
}

static int remote_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **ret_tab, char **pz_error)
{
	struct remote_table *t = calloc(1, sizeof *t);
	struct wire_err err = { 0 };
	int rc;

	if (!t)
		return SQLITE_NOMEM;
	t->db = db;
	t->pool = aux;
	rc = read_arguments(t, argc, argv, &err);
	if (!rc)
		rc = remote_ask_shape(t, &t->shape, &err);
	if (!rc)
		rc = declare(t, &err);
	if (!rc) {
		*ret_tab = &t->base;
		return SQLITE_OK;
	}
	err.code = rc;
	*pz_error = sqlite3_mprintf("walraft_remote: %s", err.text);
	table_free(t);
	return code_of(&err);
}

/* Not the same function as remote_connect: else the module itself would be a table. */
static int remote_create(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **ret_tab, char **pz_error)
{
	return remote_connect(db, aux, argc, argv, ret_tab, pz_error);
}

static int remote_disconnect(sqlite3_vtab *tab)
{
	table_free((struct remote_table *)tab);
	return SQLITE_OK;
}

static int remote_rename(sqlite3_vtab *tab, const char *name)
{
	(void)tab, (void)name;
	return SQLITE_OK;
}

/* --- cursors --- */

struct remote_cursor {
	sqlite3_vtab_cursor base;
	struct remote_answer answer;
	struct wire_value *values; /* of the row, as asked for; they point into answer.in */
	uint32_t n_values, *place; /* place: of each column in values, from 1; 0: it was not asked for */
	size_t row_at, row_len;    /* in answer.in */
	bool eof;
};

static int fail(struct remote_cursor *c, const struct wire_err *err)
{
	sqlite3_free(c->base.pVtab->zErrMsg);
	c->base.pVtab->zErrMsg = sqlite3_mprintf("walraft_remote: %s", err->text);
	c->eof = true;
	return code_of(err);
}

static struct remote_table *table_of(struct remote_cursor *c)
{
	return (struct remote_table *)c->base.pVtab;
}

static int remote_open(sqlite3_vtab *tab, sqlite3_vtab_cursor **ret_cursor)
{
	struct remote_table *t = (struct remote_table *)tab;
	struct remote_cursor *c = calloc(1, sizeof *c);

	if (c) {
		c->values = calloc(t->shape->n_columns + 1, sizeof *c->values);
		c->place = calloc(t->shape->n_columns + 1, sizeof *c->place);
	}
	if (!c || !c->values || !c->place) {
		if (c) {
			free(c->values);
			free(c->place);
		}
		free(c);
		return SQLITE_NOMEM;
	}
	c->eof = true;
	*ret_cursor = &c->base;
	return SQLITE_OK;
}

static int remote_close(sqlite3_vtab_cursor *cursor)
{
	struct remote_cursor *c = (struct remote_cursor *)cursor;

	remote_ask_end(&c->answer);
	free(c->values);
	free(c->place);
	free(c);
	return SQLITE_OK;
}

static int remote_next(sqlite3_vtab_cursor *cursor)
{
	struct remote_cursor *c = (struct remote_cursor *)cursor;
	struct remote_answer *a = &c->answer;
	size_t max = (size_t)sqlite3_limit(table_of(c)->db, SQLITE_LIMIT_LENGTH, -1) + 20 * ((size_t)c->n_values + 1);
	struct wire_err err;

	for (;;) {
		size_t used = 0;
		enum wire_row_state state = wire_row_take(a->in.data ? a->in.data + a->used : (const uint8_t *)"", a->in.len - a->used, max, c->n_values, c->values, &used);

		if (state == WIRE_ROW_WHOLE) {
			c->row_at = a->used;
			c->row_len = used;
			a->used += used;
			c->eof = false;
			return SQLITE_OK;
		}
		if (state == WIRE_ROW_BAD || (a->end && a->in.len != a->used)) {
			wire_fail(&err, WIRE_CORRUPT, "a row of %s is malformed, or larger than SQLITE_LIMIT_LENGTH", table_of(c)->name);
			return fail(c, &err);
		}
		if (a->end) {
			c->eof = true;
			return SQLITE_OK;
		}
		if (a->used)
			memmove(a->in.data, a->in.data + a->used, a->in.len - a->used);
		a->in.len -= a->used;
		a->used = 0;
		if (remote_ask_more(a, table_of(c), &err))
			return fail(c, &err);
	}
}

static int remote_filter(sqlite3_vtab_cursor *cursor, int number, const char *text, int argc, sqlite3_value **argv)
{
	struct remote_cursor *c = (struct remote_cursor *)cursor;
	struct remote_table *t = table_of(c);
	struct remote_plan p;
	struct wire_err err = { 0 };
	int rc = remote_plan_read(t, text, argc, argv, &p);

	(void)number;
	c->eof = true;
	memset(c->place, 0, (t->shape->n_columns + 1) * sizeof *c->place);
	c->n_values = p.q.n_columns;
	for (uint32_t i = 0; i < p.q.n_columns; i++)
		c->place[p.q.columns[i]] = i + 1;
	if (rc == WIRE_NOMEM)
		wire_fail(&err, rc, "no memory for a question");
	if (!rc)
		rc = remote_ask(&c->answer, t, &p.q, p.first, &err);
	remote_plan_free(&p);
	if (rc == WIRE_NOTFOUND && !err.code)
		return SQLITE_OK;
	return rc ? fail(c, &err) : remote_next(cursor);
}

static int remote_eof(sqlite3_vtab_cursor *cursor)
{
	return ((struct remote_cursor *)cursor)->eof;
}

static int remote_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int i)
{
	struct remote_cursor *c = (struct remote_cursor *)cursor;
	const struct wire_value *v;

	if (i < 0 || (uint32_t)i >= table_of(c)->shape->n_columns || !c->place[i + 1]) {
		sqlite3_result_null(out);
		return SQLITE_OK;
	}
	v = &c->values[c->place[i + 1] - 1];
	switch (v->type) {
	case WIRE_VALUE_INTEGER:
		sqlite3_result_int64(out, v->i);
		break;
	case WIRE_VALUE_REAL:
		sqlite3_result_double(out, v->r);
		break;
	case WIRE_VALUE_TEXT:
		sqlite3_result_text64(out, v->len ? (const char *)v->data : "", v->len, SQLITE_TRANSIENT, SQLITE_UTF8);
		break;
	case WIRE_VALUE_BLOB:
		sqlite3_result_blob64(out, v->len ? (const void *)v->data : "", v->len, SQLITE_TRANSIENT);
		break;
	default:
		sqlite3_result_null(out);
	}
	return SQLITE_OK;
}

/* Rows of a view have none. SQLite asks for it to find what two branches of an OR have in common: equal rows are in both, so their bytes do. */
static int remote_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *ret_rowid)
{
	struct remote_cursor *c = (struct remote_cursor *)cursor;

	if (c->place[0])
		*ret_rowid = c->values[c->place[0] - 1].i;
	else
		*ret_rowid = (sqlite3_int64)wire_hash(c->answer.in.data + c->row_at, c->row_len, 0);
	return SQLITE_OK;
}

static void pool_free(void *pool)
{
	remote_pool_free(pool);
}

int shell_remote_register(sqlite3 *db)
{
	static const sqlite3_module module = {
		.iVersion = 1, .xCreate = remote_create, .xConnect = remote_connect, .xBestIndex = remote_best_index, .xDisconnect = remote_disconnect,
		.xDestroy = remote_disconnect, .xOpen = remote_open, .xClose = remote_close, .xFilter = remote_filter, .xNext = remote_next, .xEof = remote_eof,
		.xColumn = remote_column, .xRowid = remote_rowid, .xRename = remote_rename,
	};
	struct remote_pool *pool = remote_pool_new();

	return pool ? sqlite3_create_module_v2(db, "walraft_remote", &module, pool, pool_free) : SQLITE_NOMEM;
}
