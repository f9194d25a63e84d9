/* The table walraft_members: the members of the main database's cluster, as this node knows them (shell/lag.c). Has no rows where that is not a replicated one.
 *
 *   id               16 hex digits
 *   name             what its people call it; NULL: it has none
 *   address          URL; NULL: it has none
 *   kind             voter, learner, witness
 *   role             leader, follower, unreachable, rising, awaited, lacks image, leaving, forgetful, full (as `state` of `walraft members`)
 *   applied          index of the last entry that it has published, as it told last
 *   lag, lag_ms      entries that it lacked of what was committed then, and for how long the first of those had been committed; 0: none
 *   last_contact_ms  since when the leader has not heard of it; of the leader: since when this node has not
 *   self             1: it is this node
 *
 * NULL: not known, or never. Each scan looks anew, whatever the snapshot. SQLite begins a read of the main database for it, as for all tables of modules: at a level that cannot be had at the time
 * the statement fails like any other; walraft_status() has the same and reads nothing. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/attach.h"
#include "shell/ext.h"
#include "shell/node.h"
#include "vfs/vfs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum column { COL_ID, COL_NAME, COL_ADDRESS, COL_KIND, COL_ROLE, COL_APPLIED, COL_LAG, COL_LAG_MS, COL_LAST_CONTACT_MS, COL_SELF };

struct table {
	sqlite3_vtab head;
	sqlite3 *db;
};

struct row {
	char id[17], name[128], address[RAFT_URL_MAX + 1], kind[16], role[24];
	uint64_t number[4]; /* from COL_APPLIED on: one more than it is, 0 not known */
	bool self;
};

struct cursor {
	sqlite3_vtab_cursor head;
	struct row *rows;
	size_t n, at;
};

static int table_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **ret_table, char **ret_error)
{
	struct table *t;
	int rc = sqlite3_declare_vtab(db, "CREATE TABLE x(id TEXT, name TEXT, address TEXT, kind TEXT, role TEXT, applied INTEGER, lag INTEGER, lag_ms INTEGER, "
	                                  "last_contact_ms INTEGER, self INTEGER)");

	(void)aux, (void)argc, (void)argv, (void)ret_error;
	if (rc)
		return rc;
	t = sqlite3_malloc(sizeof *t);
	if (!t)
		return SQLITE_NOMEM;
	*t = (struct table){ .db = db };
	*ret_table = &t->head;
	return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *table)
{
	sqlite3_free(table);
	return SQLITE_OK;
}

static int table_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
	(void)table;
	info->estimatedCost = 10;
	info->estimatedRows = 5;
	return SQLITE_OK;
}

static int cursor_open(sqlite3_vtab *table, sqlite3_vtab_cursor **ret_cursor)
{
	struct cursor *c = sqlite3_malloc(sizeof *c);

	(void)table;
	if (!c)
		return SQLITE_NOMEM;
	*c = (struct cursor){ .rows = NULL };
	*ret_cursor = &c->head;
	return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *cursor)
{
	struct cursor *c = (struct cursor *)cursor;

	sqlite3_free(c->rows);
	sqlite3_free(c);
	return SQLITE_OK;
}

static int parse(struct cursor *c, const struct wire_buf *b)
{
	struct wire_in in = wire_in_make(b->data, b->len);
	uint64_t n = b->len ? wire_get_varint(&in) : 0;

	if (n > RAFT_MEMBERS_MAX)
		return SQLITE_CORRUPT;
	c->rows = n ? sqlite3_malloc64(n * sizeof *c->rows) : NULL;
	if (n && !c->rows)
		return SQLITE_NOMEM;
	for (c->n = 0; c->n < n; c->n++) {
		struct row *r = &c->rows[c->n];

		snprintf(r->id, sizeof r->id, "%016" PRIx64, wire_get_u64(&in));
		wire_get_text(&in, r->name, sizeof r->name);
		wire_get_text(&in, r->address, sizeof r->address);
		wire_get_text(&in, r->kind, sizeof r->kind);
		wire_get_text(&in, r->role, sizeof r->role);
		for (size_t i = 0; i < sizeof r->number / sizeof *r->number; i++)
			r->number[i] = wire_get_varint(&in);
		r->self = wire_get_u8(&in);
	}
	return in.bad || wire_in_left(&in) ? SQLITE_CORRUPT : SQLITE_OK;
}

static int members_rows(sqlite3 *db, struct wire_buf *b, struct wire_err *err)
{
	struct vfs_conn *conn = vfs_conn_of(db);
	struct vfs_db *mine = conn ? vfs_conn_db(conn) : NULL;
	struct shell_attached *a = mine ? shell_attached_find(mine) : NULL;
	struct shell_node *n = mine && !a ? shell_node_find(vfs_db_path(mine)) : NULL;
	int rc = WIRE_OK;

	if (a) {
		rc = shell_control_ask(shell_attached_paths(a), "rows", b, err);
		if (!rc && b->len)
			b->len--; /* the newline */
		shell_attached_release(a);
	} else if (n) {
		shell_node_members_rows(n, b);
		shell_node_release(n);
	}
	return rc;
}

static int cursor_filter(sqlite3_vtab_cursor *cursor, int idx, const char *idx_text, int argc, sqlite3_value **argv)
{
	struct cursor *c = (struct cursor *)cursor;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_err err;
	int rc;

	(void)idx, (void)idx_text, (void)argc, (void)argv;
	sqlite3_free(c->rows);
	c->rows = NULL;
	c->n = c->at = 0;
	if (members_rows(((struct table *)cursor->pVtab)->db, &b, &err)) {
		sqlite3_free(cursor->pVtab->zErrMsg);
		cursor->pVtab->zErrMsg = sqlite3_mprintf("walraft_members: %s", err.text);
		rc = SQLITE_ERROR;
	} else {
		rc = b.failed ? SQLITE_NOMEM : parse(c, &b);
	}
	wire_buf_free(&b);
	if (rc)
		c->n = 0;
	return rc;
}

static int cursor_next(sqlite3_vtab_cursor *cursor)
{
	((struct cursor *)cursor)->at++;
	return SQLITE_OK;
}

static int cursor_eof(sqlite3_vtab_cursor *cursor)
{
	const struct cursor *c = (struct cursor *)cursor;

	return c->at >= c->n;
}

static void text_or_null(sqlite3_context *ctx, const char *text)
{
	if (*text)
		sqlite3_result_text(ctx, text, -1, SQLITE_TRANSIENT);
}

static int cursor_column(sqlite3_vtab_cursor *cursor, sqlite3_context *ctx, int column)
{
	const struct cursor *c = (struct cursor *)cursor;
	const struct row *r = &c->rows[c->at];

	switch ((enum column)column) {
	case COL_ID:
		text_or_null(ctx, r->id);
		break;
	case COL_NAME:
		text_or_null(ctx, r->name);
		break;
	case COL_ADDRESS:
		text_or_null(ctx, r->address);
		break;
	case COL_KIND:
		text_or_null(ctx, r->kind);
		break;
	case COL_ROLE:
		text_or_null(ctx, r->role);
		break;
	case COL_APPLIED:
	case COL_LAG:
	case COL_LAG_MS:
	case COL_LAST_CONTACT_MS:
		if (r->number[column - COL_APPLIED])
			sqlite3_result_int64(ctx, (sqlite3_int64)(r->number[column - COL_APPLIED] - 1));
		break;
	case COL_SELF:
		sqlite3_result_int(ctx, r->self);
		break;
	}
	return SQLITE_OK;
}

static int cursor_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *ret_rowid)
{
	*ret_rowid = (sqlite3_int64)((struct cursor *)cursor)->at + 1;
	return SQLITE_OK;
}

int shell_members_table_register(sqlite3 *db)
{
	static const sqlite3_module module = { .xConnect = table_connect, .xBestIndex = table_best_index, .xDisconnect = table_disconnect, .xOpen = cursor_open, .xClose = cursor_close,
		                               .xFilter = cursor_filter, .xNext = cursor_next, .xEof = cursor_eof, .xColumn = cursor_column, .xRowid = cursor_rowid };

	return sqlite3_create_module_v2(db, "walraft_members", &module, NULL, NULL);
}
