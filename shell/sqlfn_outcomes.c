/* SQL functions about transactions, on the main database of the connection that calls them.
 *
 *   walraft_transaction()                     id of the write transaction that this connection runs, else of its latest one, as 32 hex digits; NULL before the first
 *   walraft_outcome(id [, timeout_ms])        'committed', 'not committed' (and never will be), or 'unknown': walraft_error() tells why. On any node of the cluster. Waits for
 *                                             walraft_timeout, or timeout_ms, at most; 0: only what is certain here. NULL for NULL
 *   walraft_outcome_position(id [, ms])       of a committed one, its position, as walraft_position() gives it; else NULL
 *   walraft_once(client, step [, idle_s])     in a transaction: it is that step of that client's (a text of 1 to 64 bytes, and a number from 0 on that grows from step to step).
 *                                             NULL: it was not applied before; the record of it is committed with the transaction, or not at all. Else its position: the transaction
 *                                             repeats what was applied, and cannot write. A step below the client's latest one is an error that says so. The client is forgotten when
 *                                             idle_s seconds (a day) have passed, by the timestamps of the log, without a step of its
 *
 * walraft_once takes the write lock, as BEGIN IMMEDIATE does. It does so by a statement that writes to the table walraft_step, which is ours and has no rows: SQLite takes WRITE for that, and
 * tells the table of savepoints, so that a ROLLBACK TO takes the step back too. Nobody's hooks are touched. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/ext.h"
#include "shell/ledger.h"
#include "shell/txid.h"
#include "vfs/vfs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WAIT_MS_MAX 86400000

static struct vfs_conn *conn_of(sqlite3_context *c)
{
	struct vfs_conn *conn = vfs_conn_of(sqlite3_context_db_handle(c));

	return conn && !vfs_conn_open_error(conn) ? conn : NULL;
}

static void fail(sqlite3_context *c, int code, const char *text)
{
	sqlite3_result_error(c, text, -1);
	if (code)
		sqlite3_result_error_code(c, code);
}

static void result_position(sqlite3_context *c, uint64_t index)
{
	char text[24];

	snprintf(text, sizeof text, "%016" PRIx64, index);
	sqlite3_result_text(c, text, -1, SQLITE_TRANSIENT);
}

/* ---- ids and outcomes ---- */

static void fn_transaction(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct vfs_conn *conn = conn_of(c);
	uint8_t id[VFS_TXID_BYTES];
	char text[SHELL_TXID_TEXT];

	(void)argc, (void)argv;
	if (!conn || !vfs_conn_txid(conn, id))
		return;
	shell_txid_text(id, text);
	sqlite3_result_text(c, text, -1, SQLITE_TRANSIENT);
}

static bool parse_outcome(sqlite3_context *c, struct vfs_conn *conn, int argc, sqlite3_value **argv, uint8_t ret_id[VFS_TXID_BYTES], uint32_t *ret_ms)
{
	const char *text = (const char *)sqlite3_value_text(argv[0]);
	sqlite3_int64 ms = vfs_conn_timeout_ms(conn);
	char why[160];

	if (!text || !shell_txid_parse(text, (size_t)sqlite3_value_bytes(argv[0]), ret_id)) {
		snprintf(why, sizeof why, "a transaction's id is 32 hex digits as walraft_transaction() gives them, not '%.40s'", text ? text : "");
		fail(c, 0, why);
		return false;
	}
	if (argc > 1) {
		ms = sqlite3_value_int64(argv[1]);
		if (sqlite3_value_numeric_type(argv[1]) != SQLITE_INTEGER || ms < 0 || ms > WAIT_MS_MAX) {
			fail(c, 0, "the second argument is in milliseconds, from 0 to 86400000");
			return false;
		}
	}
	*ret_ms = (uint32_t)ms;
	return true;
}

static void outcome(sqlite3_context *c, int argc, sqlite3_value **argv, bool position)
{
	struct vfs_conn *conn = conn_of(c);
	uint8_t id[VFS_TXID_BYTES];
	struct wire_err err;
	uint64_t index = 0;
	uint32_t ms;
	int rc;

	if (!conn || sqlite3_value_type(argv[0]) == SQLITE_NULL || !parse_outcome(c, conn, argc, argv, id, &ms))
		return;
	rc = vfs_conn_outcome(conn, id, ms, &index, &err);
	if (!position)
		sqlite3_result_text(c, rc ? "unknown" : index ? "committed" : "not committed", -1, SQLITE_STATIC);
	else if (!rc && index)
		result_position(c, index);
}

static void fn_outcome(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	outcome(c, argc, argv, false);
}

static void fn_outcome_position(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	outcome(c, argc, argv, true);
}

/* ---- steps ---- */

static bool parse_once(sqlite3_context *c, int argc, sqlite3_value **argv, struct vfs_once *ret_once)
{
	struct vfs_once o = { .idle_s = SHELL_LEDGER_IDLE_S };
	const unsigned char *id = sqlite3_value_text(argv[0]);
	int len = sqlite3_value_bytes(argv[0]);
	sqlite3_int64 idle = SHELL_LEDGER_IDLE_S;
	char why[160];

	if (sqlite3_value_type(argv[0]) == SQLITE_NULL || !id || len < 1 || len > VFS_ONCE_ID_MAX || memchr(id, 0, (size_t)len)) {
		fail(c, 0, "walraft_once takes a client's id first: a text of 1 to 64 bytes");
		return false;
	}
	if (sqlite3_value_numeric_type(argv[1]) != SQLITE_INTEGER || sqlite3_value_int64(argv[1]) < 0) {
		fail(c, 0, "walraft_once takes the number of the step second: an integer from 0 on");
		return false;
	}
	if (argc > 2) {
		idle = sqlite3_value_int64(argv[2]);
		if (sqlite3_value_numeric_type(argv[2]) != SQLITE_INTEGER || idle < 1 || idle > (sqlite3_int64)SHELL_LEDGER_IDLE_MAX_S) {
			snprintf(why, sizeof why, "walraft_once takes an idle timeout in seconds third: from 1 to %u", SHELL_LEDGER_IDLE_MAX_S);
			fail(c, 0, why);
			return false;
		}
	}
	o.seq = (uint64_t)sqlite3_value_int64(argv[1]);
	o.idle_s = (uint32_t)idle;
	o.id_len = (uint8_t)len;
	memcpy(o.id, id, (size_t)len);
	*ret_once = o;
	return true;
}

/* The transaction is one that writes, and the table walraft_step is in it. */
static bool take_part(sqlite3_context *c)
{
	sqlite3 *db = sqlite3_context_db_handle(c);
	const char *why;
	int rc;

	if (sqlite3_get_autocommit(db)) {
		fail(c, 0, "walraft_once makes a transaction a step of a client's, and there is none: BEGIN IMMEDIATE, then SELECT walraft_once(...), then the writes, then COMMIT");
		return false;
	}
	if (sqlite3_exec(db, "DELETE FROM walraft_step WHERE 0", NULL, NULL, NULL) == SQLITE_OK)
		return true;
	rc = sqlite3_extended_errcode(db);
	why = vfs_error_text(db);
	fail(c, rc, (rc & 0xff) == SQLITE_READONLY && *why ? why : sqlite3_errmsg(db));
	return false;
}

static int code_of(int code)
{
	return code == WIRE_FENCED ? WALRAFT_IOERR_FENCED : 0;
}

static void fn_once(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct vfs_conn *conn = conn_of(c);
	struct vfs_once once;
	struct vfs_step step;
	struct wire_err err;
	int rc;

	if (!conn || !vfs_conn_db(conn)) {
		fail(c, 0, "walraft_once needs a replicated database, which this connection's main database is not (or not yet: it is empty)");
		return;
	}
	if (!parse_once(c, argc, argv, &once) || !take_part(c))
		return;
	rc = vfs_conn_once(conn, &once, &step, &err);
	if (rc) {
		fail(c, code_of(rc), err.text);
	} else if (step.index && once.seq == step.seq) {
		result_position(c, step.index);
	} else if (step.index && once.seq < step.seq) {
		fail(c, WALRAFT_READONLY_REPEATED, vfs_error_text(sqlite3_context_db_handle(c)));
	}
}

/* ---- the table walraft_step ---- */

struct step_table { sqlite3_vtab head; sqlite3 *db; };

static int table_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **ret_table, char **ret_error)
{
	struct step_table *t;
	int rc = sqlite3_declare_vtab(db, "CREATE TABLE walraft_step(unused)");

	(void)aux, (void)argc, (void)argv, (void)ret_error;
	if (rc)
		return rc;
	sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
	t = sqlite3_malloc(sizeof *t);
	if (!t)
		return SQLITE_NOMEM;
	*t = (struct step_table){ .db = db };
	*ret_table = &t->head;
	return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *t)
{
	sqlite3_free(t);
	return SQLITE_OK;
}

static int table_best_index(sqlite3_vtab *t, sqlite3_index_info *info)
{
	(void)t;
	info->estimatedCost = 1;
	info->estimatedRows = 0;
	return SQLITE_OK;
}

static int cursor_open(sqlite3_vtab *t, sqlite3_vtab_cursor **ret_cursor)
{
	sqlite3_vtab_cursor *c = sqlite3_malloc(sizeof *c);

	(void)t;
	if (!c)
		return SQLITE_NOMEM;
	memset(c, 0, sizeof *c);
	*ret_cursor = c;
	return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *c)
{
	sqlite3_free(c);
	return SQLITE_OK;
}

static int cursor_filter(sqlite3_vtab_cursor *c, int idx, const char *idx_text, int argc, sqlite3_value **argv)
{
	(void)c, (void)idx, (void)idx_text, (void)argc, (void)argv;
	return SQLITE_OK;
}

static int cursor_next(sqlite3_vtab_cursor *c)
{
	(void)c;
	return SQLITE_OK;
}

static int cursor_eof(sqlite3_vtab_cursor *c)
{
	(void)c;
	return 1;
}

static int cursor_column(sqlite3_vtab_cursor *c, sqlite3_context *ctx, int column)
{
	(void)c, (void)ctx, (void)column;
	return SQLITE_OK;
}

static int cursor_rowid(sqlite3_vtab_cursor *c, sqlite3_int64 *ret_rowid)
{
	(void)c;
	*ret_rowid = 0;
	return SQLITE_OK;
}

static int table_update(sqlite3_vtab *t, int argc, sqlite3_value **argv, sqlite3_int64 *ret_rowid)
{
	(void)argc, (void)argv, (void)ret_rowid;
	t->zErrMsg = sqlite3_mprintf("walraft_step is a table without rows; use walraft_once()");
	return SQLITE_READONLY;
}

static int table_begin(sqlite3_vtab *t)
{
	(void)t;
	return SQLITE_OK;
}

static int savepoint(sqlite3_vtab *t, enum vfs_savepoint_op op, int n)
{
	struct vfs_conn *conn = vfs_conn_of(((struct step_table *)t)->db);

	if (conn)
		vfs_conn_savepoint(conn, op, n);
	return SQLITE_OK;
}

static int table_savepoint(sqlite3_vtab *t, int n)
{
	return savepoint(t, VFS_SAVEPOINT_BEGIN, n);
}

static int table_release(sqlite3_vtab *t, int n)
{
	return savepoint(t, VFS_SAVEPOINT_RELEASE, n);
}

static int table_rollback_to(sqlite3_vtab *t, int n)
{
	return savepoint(t, VFS_SAVEPOINT_ROLLBACK, n);
}

static int register_table(sqlite3 *db)
{
	static const sqlite3_module module = { .iVersion = 2, .xConnect = table_connect, .xBestIndex = table_best_index, .xDisconnect = table_disconnect, .xOpen = cursor_open,
		                               .xClose = cursor_close, .xFilter = cursor_filter, .xNext = cursor_next, .xEof = cursor_eof, .xColumn = cursor_column,
		                               .xRowid = cursor_rowid, .xUpdate = table_update, .xBegin = table_begin, .xSavepoint = table_savepoint,
		                               .xRelease = table_release, .xRollbackTo = table_rollback_to };

	return sqlite3_create_module_v2(db, "walraft_step", &module, NULL, NULL);
}

int shell_sqlfn_outcomes_register(sqlite3 *db)
{
	static const struct {
		const char *name;
		int argc;
		void (*fn)(sqlite3_context *, int, sqlite3_value **);
	} fns[] = {
		{ "walraft_transaction", 0, fn_transaction }, { "walraft_outcome", 1, fn_outcome }, { "walraft_outcome", 2, fn_outcome },
		{ "walraft_outcome_position", 1, fn_outcome_position }, { "walraft_outcome_position", 2, fn_outcome_position },
		{ "walraft_once", 2, fn_once }, { "walraft_once", 3, fn_once },
	};

	for (size_t i = 0; i < sizeof fns / sizeof *fns; i++) {
		int rc = sqlite3_create_function_v2(db, fns[i].name, fns[i].argc, SQLITE_UTF8 | SQLITE_DIRECTONLY, NULL, fns[i].fn, NULL, NULL, NULL);

		if (rc && rc != SQLITE_BUSY) /* as in shell_sqlfn_register */
			return rc;
	}
	return register_table(db);
}
