/* Opening a main database and its -wal, and the end of a connection. A main database is opened in one of these ways:
 *
 *   set up                       replicated: its node is found or started
 *   not set up, auto             newborn.c: the base VFS's, until it is set up
 *   else, asked for by name      an error that tells how to set it up: in the URI here, as an argument of sqlite3_open_v2 by the auto-extension (vfs_stray_main)
 *   else                         the base VFS's own file: the shim has no part in it */
#include "vfs/conn.h"
#include "vfs/shmlock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

#define TIMEOUT_MS 5000u
#define TIMEOUT_MS_MAX 86400000u

static _Thread_local char open_error[SHIM_TEXT];
static _Thread_local uint64_t open_error_at;

const char *shim_thread_open_error(uint64_t *ret_at)
{
	*ret_at = open_error_at;
	return open_error;
}

/* ---- a connection ---- */

static _Thread_local bool thread_serves;

void vfs_thread_serves(bool on)
{
	thread_serves = on;
}

void shim_conn_close(struct vfs_conn *c)
{
	struct vfs_host_ops ops = shim_host_ops();

	if (c->db)
		vfs_db_ops(c->db)->write_forget(vfs_db_ops(c->db)->ctx, c);
	shim_seat_leave(c->seat);
	shim_session_free(c);
	if (c->db) {
		if (!c->node && !c->serves)
			ops.close_db(ops.ctx, c->db);
		vfs_db_unref(c->db);
		vfs_shmlock_sweep();
	}
	free(c->path);
	free(c->open_error);
	free(c);
}

static struct vfs_conn *conn_new(sqlite3_vfs *v, const char *path)
{
	struct vfs_conn *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->vfs = v;
	c->name = path;
	c->node = shim_thread_is_node();
	c->serves = thread_serves;
	c->generation = shim_fork_generation();
	c->timeout_ms = TIMEOUT_MS;
	c->read_slot = -1;
	c->path = strdup(path);
	c->seat = shim_seat_take(c);
	if (!c->path || !c->seat) {
		shim_conn_close(c);
		return NULL;
	}
	return c;
}

int shim_attach(struct vfs_conn *c, bool may_set_up, struct wire_err *err)
{
	struct vfs_host_ops ops = shim_host_ops();
	struct vfs_db *db = NULL;
	int rc = WIRE_OK;

	if (c->node || c->serves)
		db = vfs_db_find(c->path);
	else
		rc = ops.open_db(ops.ctx, c->path, may_set_up, &db, err);
	if (rc)
		return rc;
	if (!db)
		return wire_fail(err, WIRE_NOTFOUND, "%s is not open in this process", c->path);
	c->db = db;
	c->may_set_up = may_set_up;
	c->page_size = vfs_db_page_size(db);
	return WIRE_OK;
}

/* ---- parameters ---- */

int shim_parse_ms(const char *text, uint32_t *ret_ms, struct wire_err *err)
{
	char *end;
	unsigned long long v = strtoull(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || v > TIMEOUT_MS_MAX)
		return wire_fail(err, WIRE_INVALID, "walraft_timeout is in milliseconds, from 1 to %u, not '%s'", TIMEOUT_MS_MAX, text);
	*ret_ms = (uint32_t)v;
	return WIRE_OK;
}

int vfs_conn_set_timeout_ms(struct vfs_conn *c, uint32_t ms, struct wire_err *err)
{
	if (ms == 0 || ms > TIMEOUT_MS_MAX)
		return wire_fail(err, WIRE_INVALID, "walraft_timeout is in milliseconds, from 1 to %u, not %u", TIMEOUT_MS_MAX, ms);
	c->timeout_ms = ms;
	return WIRE_OK;
}

static int read_parameters(struct vfs_conn *c, const char *name, struct wire_err *err)
{
	static const struct { const char *name, *why; } refuses[] = {
		{ "immutable", "it would be read without its WAL" },
		{ "nolock", "its node must know of readers" },
		{ "readonly_shm", "its readers leave marks in -shm" },
	};
	const char *level = sqlite3_uri_parameter(name, "walraft_read"), *timeout = sqlite3_uri_parameter(name, "walraft_timeout"),
	           *write = sqlite3_uri_parameter(name, "walraft_write");
	uint32_t ms;
	int rc = WIRE_OK;

	for (size_t i = 0; i < sizeof refuses / sizeof *refuses; i++) {
		if (sqlite3_uri_boolean(name, refuses[i].name, 0))
			return wire_fail(err, WIRE_INVALID, "%s is a replicated database: %s=1 is refused, because %s", c->path, refuses[i].name, refuses[i].why);
	}
	if (level)
		rc = vfs_conn_set_read_level(c, level, err);
	if (rc == WIRE_OK && write)
		rc = vfs_conn_set_write(c, write, err);
	if (rc == WIRE_OK && timeout)
		rc = shim_parse_ms(timeout, &ms, err);
	if (rc == WIRE_OK && timeout)
		rc = vfs_conn_set_timeout_ms(c, ms, err);
	return rc;
}

/* In the words that SQLite knows for a boolean; WIRE_INVALID for others. */
static int auto_wanted(const char *name, int flags, bool *ret_auto, struct wire_err *err)
{
	static const char *const yes[] = { "1", "on", "yes", "true" }, *const no[] = { "0", "off", "no", "false" };
	const char *text = sqlite3_uri_parameter(name, "walraft_auto");
	bool on = vfs_auto(), known = !text;

	for (size_t i = 0; text && i < sizeof yes / sizeof *yes; i++) {
		known |= sqlite3_stricmp(text, yes[i]) == 0 || sqlite3_stricmp(text, no[i]) == 0;
		on = i == 0 ? sqlite3_stricmp(text, yes[i]) == 0 : on || sqlite3_stricmp(text, yes[i]) == 0;
	}
	if (!known)
		return wire_fail(err, WIRE_INVALID, "walraft_auto is 1 or 0, not '%s'", text);
	/* Who only reads sets nothing up. */
	*ret_auto = on && !(flags & SQLITE_OPEN_READONLY) && !sqlite3_uri_boolean(name, "immutable", 0);
	return WIRE_OK;
}

static bool asked_by_name(const char *name)
{
	const char *vfs = sqlite3_uri_parameter(name, "vfs");

	return vfs && strcmp(vfs, "walraft") == 0;
}

/* ---- main databases ---- */

enum way { PASSES, REPLICATED, NEWBORN };

/* For a database that is not set up; c->real is open afterwards, unless it passes. */
static int look_at_file(struct vfs_conn *c, const char *name, int flags, int *out, enum way *ret_way)
{
	sqlite3_vfs *base = shim_base(c);
	int got = 0, rc = base->xOpen(base, name, c->real, flags, &got);

	if (rc == SQLITE_OK && !(got & SQLITE_OPEN_READONLY)) {
		*ret_way = NEWBORN;
		if (out)
			*out = got;
		return SQLITE_OK;
	}
	if (c->real->pMethods)
		c->real->pMethods->xClose(c->real);
	*ret_way = PASSES; /* a file that may only be read, as SQLite falls back to */
	return rc;
}

static int choose(struct vfs_conn *c, const char *name, int flags, int *out, enum way *ret_way, bool *ret_auto, struct wire_err *err)
{
	struct vfs_host_ops ops = shim_host_ops();
	bool automatic = false;

	if (auto_wanted(name, flags, &automatic, err) != WIRE_OK)
		return SQLITE_OK;
	*ret_auto = automatic;
	if (c->node || c->serves || ops.is_set_up(ops.ctx, name)) {
		*ret_way = REPLICATED;
		return SQLITE_OK;
	}
	if (automatic)
		return look_at_file(c, name, flags, out, ret_way);
	/* Its opening fails, with the text that says how to set it up. */
	*ret_way = asked_by_name(name) ? REPLICATED : PASSES;
	return SQLITE_OK;
}

/* sqlite3_open succeeds on such a file, whose every use fails: so there is a connection that can tell why. */
static int open_failed(struct vfs_conn *c, sqlite3_file *f, int flags, int *out, const struct wire_err *err)
{
	if (c->real->pMethods)
		c->real->pMethods->xClose(c->real);
	c->open_error = strdup(err->text);
	if (!c->open_error) {
		shim_conn_close(c);
		return SQLITE_NOMEM;
	}
	shim_fail(c, 0, "%s", err->text);
	snprintf(open_error, sizeof open_error, "%s", err->text);
	open_error_at = c->error_at;
	f->pMethods = &shim_failed_methods;
	if (out)
		*out = flags;
	return SQLITE_OK;
}

static int open_replicated(struct vfs_conn *c, const char *name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_vfs *base = shim_base(c);
	int rc = c->real->pMethods ? SQLITE_OK : vfs_db_open_handle(base, name, c->real, flags, out);

	if (rc == SQLITE_OK) {
		f->pMethods = &shim_main_methods;
		return SQLITE_OK;
	}
	if (c->real->pMethods)
		c->real->pMethods->xClose(c->real);
	shim_conn_close(c);
	return rc;
}

int shim_open_main(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_vfs *base = v->pAppData;
	struct shim_file *file = (struct shim_file *)f;
	struct vfs_conn *c = conn_new(v, name);
	struct wire_err err = { 0 };
	enum way way = REPLICATED;
	bool automatic = false;
	int rc;

	f->pMethods = NULL;
	if (!c)
		return SQLITE_NOMEM;
	file->conn = c;
	c->real = (sqlite3_file *)(file + 1);
	memset(c->real, 0, (size_t)base->szOsFile);
	*open_error = 0;
	open_error_at = 0;
	rc = choose(c, name, flags, out, &way, &automatic, &err);
	if (rc != SQLITE_OK || way == PASSES) {
		shim_conn_close(c);
		return rc != SQLITE_OK ? rc : base->xOpen(base, name, f, flags, out);
	}
	if (err.code || read_parameters(c, name, &err) != WIRE_OK)
		return open_failed(c, f, flags, out, &err);
	if (way == NEWBORN) {
		c->named = sqlite3_uri_parameter(name, "walraft_auto") != NULL;
		f->pMethods = &shim_newborn_methods;
		return SQLITE_OK;
	}
	if (shim_attach(c, automatic, &err) == WIRE_OK)
		return open_replicated(c, name, f, flags, out);
	return open_failed(c, f, flags, out, &err);
}

int shim_open_wal(struct vfs_conn *c, const char *name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_vfs *base = shim_base(c);
	struct shim_wal *w = (struct shim_wal *)f;
	int rc;

	f->pMethods = NULL;
	w->conn = c;
	w->real = (sqlite3_file *)(w + 1);
	memset(w->real, 0, (size_t)base->szOsFile);
	rc = base->xOpen(base, name, w->real, flags, out);
	if (rc == SQLITE_OK)
		f->pMethods = &shim_wal_methods;
	else if (w->real->pMethods)
		w->real->pMethods->xClose(w->real);
	return rc;
}
