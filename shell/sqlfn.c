/* SQL functions, about the main database of the connection that calls them. NULL when it is not a replicated one.
 *
 *   walraft_leader()    URL of the leader; NULL when none is known
 *   walraft_status()    JSON, as `walraft status --json` (shell/status.c)
 *   walraft_error()     why the last call of this connection, or the last open on its thread (ATTACH), failed in walraft's hands; NULL: none did
 *   walraft_checksum()  state checksum of what is published here, 16 hex digits
 *   walraft_version()   version of the library
 *
 * Those about reads and positions: sqlfn_reads.c; the table walraft_members: members_table.c.
 *
 * For the whole process, on any connection; 1 or 0 sets, without an argument they tell what is in force:
 *   walraft_auto([on])         whether databases that are not set up become clusters of one node when they are opened (vfs_set_auto)
 *   walraft_default_vfs([on])  whether walraft is the default VFS (vfs_set_default)
 * An error, although it holds, when the connection itself has a database open by another VFS that it now would be wrong to take for a replicated one. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/attach.h"
#include "shell/ext.h"
#include "shell/node.h"
#include "vfs/vfs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "0.1.0"
#endif

static struct vfs_conn *conn_of(sqlite3_context *c)
{
	struct vfs_conn *conn = vfs_conn_of(sqlite3_context_db_handle(c));

	return conn && vfs_conn_db(conn) ? conn : NULL;
}

static struct shell_node *node_of(sqlite3_context *c)
{
	struct vfs_conn *conn = conn_of(c);

	return conn ? shell_node_find(vfs_db_path(vfs_conn_db(conn))) : NULL;
}

/* NULL: the node is this process's, or there is none. */
static struct shell_attached *attached_of(sqlite3_context *c)
{
	struct vfs_conn *conn = conn_of(c);

	return conn ? shell_attached_find(vfs_conn_db(conn)) : NULL;
}

static void fn_leader(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct vfs_conn *conn = conn_of(c);
	char url[RAFT_URL_MAX + 1];

	(void)argc, (void)argv;
	if (!conn)
		return;
	vfs_db_ops(vfs_conn_db(conn))->leader_url(vfs_db_ops(vfs_conn_db(conn))->ctx, url, sizeof url);
	if (*url)
		sqlite3_result_text(c, url, -1, SQLITE_TRANSIENT);
}

static void fn_status(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct shell_attached *a = attached_of(c);
	struct shell_node *n = a ? NULL : node_of(c);
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_err err = { 0 };
	int rc = WIRE_OK;

	(void)argc, (void)argv;
	if (a) {
		rc = shell_control_ask(shell_attached_paths(a), "status", &b, &err);
		if (!rc && b.len)
			b.len--; /* the newline */
		shell_attached_release(a);
	} else if (n) {
		shell_node_status_json(n, &b);
		shell_node_release(n);
	} else {
		return;
	}
	if (rc)
		sqlite3_result_error(c, err.text, -1);
	else if (b.failed)
		sqlite3_result_error_nomem(c);
	else
		sqlite3_result_text(c, (const char *)b.data, (int)b.len, SQLITE_TRANSIENT);
	wire_buf_free(&b);
}

static void fn_error(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	const char *text = vfs_error_text(sqlite3_context_db_handle(c));

	(void)argc, (void)argv;
	if (*text)
		sqlite3_result_text(c, text, -1, SQLITE_TRANSIENT);
}

static void fn_checksum(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct vfs_conn *conn = conn_of(c);
	struct shell_attached *a;
	struct vfs_db_status s;
	struct wire_err err;
	char text[32];
	int rc = WIRE_OK;

	(void)argc, (void)argv;
	if (!conn)
		return;
	a = attached_of(c);
	if (a) {
		rc = shell_attached_status(a, &s, &err);
		shell_attached_release(a);
	} else {
		vfs_db_status(vfs_conn_db(conn), &s);
	}
	if (rc) {
		sqlite3_result_error(c, err.text, -1);
		return;
	}
	snprintf(text, sizeof text, "%016" PRIx64, s.checksum);
	sqlite3_result_text(c, text, -1, SQLITE_TRANSIENT);
}

static void fn_version(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	(void)argc, (void)argv;
	sqlite3_result_text(c, PACKAGE_VERSION, -1, SQLITE_STATIC);
}

/* The argument of a switch; false: it is none, which the caller is told. */
static bool switch_value(sqlite3_context *c, sqlite3_value *v, const char *name, bool *ret_on)
{
	char text[96];
	sqlite3_int64 i = sqlite3_value_int64(v);

	if (sqlite3_value_numeric_type(v) == SQLITE_INTEGER && (i == 0 || i == 1)) {
		*ret_on = i == 1;
		return true;
	}
	snprintf(text, sizeof text, "%s takes 1 or 0", name);
	sqlite3_result_error(c, text, -1);
	return false;
}

/* What this connection has open stays as it is: who expects otherwise would go on without replication, and not know. */
static void tell(sqlite3_context *c, bool in_force)
{
	const char *path = vfs_unreplicated_main(sqlite3_context_db_handle(c));
	char *text;

	if (!path) {
		sqlite3_result_int(c, in_force);
		return;
	}
	text = sqlite3_mprintf("this holds for later opens, but this connection has %s open already, and goes on without replication: open it again", path);
	if (text)
		sqlite3_result_error(c, text, -1);
	else
		sqlite3_result_error_nomem(c);
	sqlite3_free(text);
}

static void fn_auto(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	bool on;

	if (argc) {
		if (!switch_value(c, argv[0], "walraft_auto", &on))
			return;
		vfs_set_auto(on);
	}
	tell(c, vfs_auto());
}

static void fn_default_vfs(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct wire_err err;
	bool on;

	if (argc) {
		if (!switch_value(c, argv[0], "walraft_default_vfs", &on))
			return;
		if (vfs_set_default(on, &err)) {
			sqlite3_result_error(c, err.text, -1);
			return;
		}
	}
	tell(c, vfs_is_default());
}

int shell_sqlfn_register(sqlite3 *db)
{
	static const struct {
		const char *name;
		int argc;
		void (*fn)(sqlite3_context *, int, sqlite3_value **);
	} fns[] = {
		{ "walraft_leader", 0, fn_leader },     { "walraft_status", 0, fn_status },     { "walraft_error", 0, fn_error },
		{ "walraft_checksum", 0, fn_checksum }, { "walraft_version", 0, fn_version },
		{ "walraft_auto", 0, fn_auto },         { "walraft_auto", 1, fn_auto },
		{ "walraft_default_vfs", 0, fn_default_vfs }, { "walraft_default_vfs", 1, fn_default_vfs },
	};

	for (size_t i = 0; i < sizeof fns / sizeof *fns; i++) {
		int rc = sqlite3_create_function_v2(db, fns[i].name, fns[i].argc, SQLITE_UTF8 | SQLITE_DIRECTONLY, NULL, fns[i].fn, NULL, NULL,
		                                    NULL);

		/* While one of the connection's statements runs (SELECT load_extension(...)) they can't be replaced, but then they are there. */
		if (rc && rc != SQLITE_BUSY)
			return rc;
	}
	int rc = shell_sqlfn_reads_register(db);

	if (!rc)
		rc = shell_remote_register(db);
	if (!rc)
		rc = shell_sqlfn_outcomes_register(db);
	return rc ? rc : shell_members_table_register(db);
}
