#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include "shell/ext.h"
#include "shell/node.h"
#include "vfs/vfs.h"

static int open_db(void *ctx, const char *path, struct vfs_db **ret_db, struct wire_err *err)
{
	struct shell_node *n;
	int rc = shell_node_acquire(path, &n, err);

	(void)ctx;
	if (rc)
		return rc;
	*ret_db = shell_node_db(n);
	vfs_db_ref(*ret_db);
	return WIRE_OK;
}

/* Each connection holds one reference on its node, given back here. */
static void close_db(void *ctx, const char *path)
{
	struct shell_node *n = shell_node_find(path);

	(void)ctx;
	if (!n)
		return;
	shell_node_release(n);
	shell_node_release(n);
}

static const struct vfs_host_ops host_ops = { .open_db = open_db, .close_db = close_db };

/* Runs for every new connection of the process. A database whose node could not start is refused here, where an error can carry its text. */
static int connection_init(sqlite3 *db, char **pz_error, const struct sqlite3_api_routines *api)
{
	struct vfs_conn *c = vfs_conn_of(db);
	const char *why = c ? vfs_conn_open_error(c) : NULL;

	(void)api;
	if (why) {
		*pz_error = sqlite3_mprintf("walraft: %s", why);
		return WALRAFT_CANTOPEN;
	}
	return shell_sqlfn_register(db);
}

int sqlite3_walraft_init(sqlite3 *db, char **pz_error, const struct sqlite3_api_routines *api)
{
	struct wire_err err;
	int rc;

	SQLITE_EXTENSION_INIT2(api);
	if (sqlite3_libversion_number() < 3040000) {
		*pz_error = sqlite3_mprintf("walraft needs SQLite 3.40 or newer, this is %s", sqlite3_libversion());
		return SQLITE_ERROR;
	}
	if (!sqlite3_threadsafe()) {
		*pz_error = sqlite3_mprintf("walraft needs a thread-safe SQLite; this one was built with SQLITE_THREADSAFE=0");
		return SQLITE_ERROR;
	}
	if (vfs_register(&host_ops, &err)) {
		*pz_error = sqlite3_mprintf("walraft: %s", err.text);
		return SQLITE_ERROR;
	}
	rc = sqlite3_auto_extension((void (*)(void))connection_init);
	if (rc == SQLITE_OK)
		rc = shell_sqlfn_register(db);
	return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
