/* SQL functions about reads, on the main database of the connection that calls them. NULL when it is not a replicated one.
 *
 *   walraft_read([level])              the level at which its read transactions begin; sets it (vfs/level.c)
 *   walraft_position()                 of this connection's last commit; NULL before the first
 *   walraft_published()                position up to which this node has published
 *   walraft_wait(position [, ms])      blocks until this node has published it, walraft_timeout or ms at most; gives what walraft_published() would then. NULL for NULL, so that the
 *                                      position of a connection that has not written yet needs no care. An error inside a read transaction, whose snapshot would not move
 *
 * A position is 16 hex digits, so that the text sorts as what it stands for. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/ext.h"
#include "shell/node.h"
#include "vfs/vfs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS_MAX 86400000

static struct vfs_conn *conn_of(sqlite3_context *c)
{
	struct vfs_conn *conn = vfs_conn_of(sqlite3_context_db_handle(c));

	return conn && !vfs_conn_open_error(conn) ? conn : NULL;
}

static void result_position(sqlite3_context *c, uint64_t index)
{
	char text[24];

	snprintf(text, sizeof text, "%016" PRIx64, index);
	sqlite3_result_text(c, text, -1, SQLITE_TRANSIENT);
}

static void fn_read(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct vfs_conn *conn = conn_of(c);
	const char *level = argc ? (const char *)sqlite3_value_text(argv[0]) : NULL;
	char text[VFS_WANT_TEXT_BYTES];
	struct wire_err err;

	if (!conn)
		return;
	if (argc && vfs_conn_set_read_level(conn, level ? level : "NULL", &err)) {
		sqlite3_result_error(c, err.text, -1);
		return;
	}
	vfs_conn_read_level(conn, text);
	sqlite3_result_text(c, text, -1, SQLITE_TRANSIENT);
}

static void fn_position(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct vfs_conn *conn = conn_of(c);

	(void)argc, (void)argv;
	if (conn && vfs_conn_last_index(conn))
		result_position(c, vfs_conn_last_index(conn));
}

static void fn_published(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct vfs_conn *conn = conn_of(c);

	(void)argc, (void)argv;
	if (conn && vfs_conn_db(conn))
		result_position(c, vfs_db_published(vfs_conn_db(conn)));
}

static bool parse_position(const char *text, uint64_t *ret_index)
{
	uint64_t v = 0;

	if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdefABCDEF") != 16)
		return false;
	v = strtoull(text, NULL, 16);
	*ret_index = v;
	return true;
}

static bool parse_wait(sqlite3_context *c, struct vfs_conn *conn, int argc, sqlite3_value **argv, uint64_t *ret_index, uint32_t *ret_ms)
{
	sqlite3_int64 ms = vfs_conn_timeout_ms(conn);
	char text[160];

	if (!parse_position((const char *)sqlite3_value_text(argv[0]), ret_index)) {
		snprintf(text, sizeof text, "walraft_wait takes a position, 16 hex digits as walraft_position() gives them, not '%.40s'", (const char *)sqlite3_value_text(argv[0]));
		sqlite3_result_error(c, text, -1);
		return false;
	}
	if (argc > 1) {
		ms = sqlite3_value_int64(argv[1]);
		if (sqlite3_value_numeric_type(argv[1]) != SQLITE_INTEGER || ms < 0 || ms > WAIT_MS_MAX) {
			sqlite3_result_error(c, "walraft_wait's second argument is in milliseconds, from 0 to 86400000", -1);
			return false;
		}
	}
	*ret_ms = (uint32_t)ms;
	return true;
}

static void fn_wait(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	sqlite3 *db = sqlite3_context_db_handle(c);
	struct vfs_conn *conn = conn_of(c);
	struct wire_err err;
	uint64_t index;
	uint32_t ms;

	if (!conn || sqlite3_value_type(argv[0]) == SQLITE_NULL || !parse_wait(c, conn, argc, argv, &index, &ms))
		return;
	if (sqlite3_txn_state(db, "main") != SQLITE_TXN_NONE) {
		sqlite3_result_error(c, "walraft_wait has no use inside a transaction that has begun to read: its snapshot stays what it is. Wait before it, in a statement that reads no table", -1);
		return;
	}
	if (vfs_conn_wait(conn, index, ms, &err)) {
		sqlite3_result_error(c, err.text, -1);
		sqlite3_result_error_code(c, err.code == WIRE_INVALID ? SQLITE_ERROR : WALRAFT_IOERR_READ);
		return;
	}
	result_position(c, vfs_db_published(vfs_conn_db(conn)));
}

int shell_sqlfn_reads_register(sqlite3 *db)
{
	static const struct {
		const char *name;
		int argc;
		void (*fn)(sqlite3_context *, int, sqlite3_value **);
	} fns[] = {
		{ "walraft_read", 0, fn_read }, { "walraft_read", 1, fn_read }, { "walraft_position", 0, fn_position }, { "walraft_published", 0, fn_published },
		{ "walraft_wait", 1, fn_wait }, { "walraft_wait", 2, fn_wait },
	};

	for (size_t i = 0; i < sizeof fns / sizeof *fns; i++) {
		int rc = sqlite3_create_function_v2(db, fns[i].name, fns[i].argc, SQLITE_UTF8 | SQLITE_DIRECTONLY, NULL, fns[i].fn, NULL, NULL, NULL);

		if (rc && rc != SQLITE_BUSY) /* as in shell_sqlfn_register */
			return rc;
	}
	return SQLITE_OK;
}
