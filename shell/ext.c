#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include "shell/attach.h"
#include "shell/ext.h"
#include "shell/node.h"
#include "shell/resident.h"
#include "shell/setup.h"
#include "vfs/vfs.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int connection_init(sqlite3 *db, char **pz_error, const struct sqlite3_api_routines *api);

/* The host may have called sqlite3_reset_auto_extension, or shut SQLite down, since the last connection. */
static void opening(void *ctx)
{
	(void)ctx;
	(void)sqlite3_auto_extension((void (*)(void))connection_init); /* fails for want of memory only, which the open then tells of itself */
}

static bool has_node_conf(const char *path)
{
	char conf[PATH_MAX];
	int n = snprintf(conf, sizeof conf, "%s-walraft/node.conf", path);

	return n > 0 && n < (int)sizeof conf && access(conf, F_OK) == 0;
}

static bool is_set_up(void *ctx, const char *path)
{
	(void)ctx;
	return has_node_conf(path);
}

#define HOST_WAIT_NS 10000000000ull /* for who has the lock of the node directory, and no node yet or any more */
#define HOST_NAP_NS 5000000

/* Two threads must not set the same database up at once, nor find it half done. Not held while a node with members starts: it may wait for them. */
static pthread_mutex_t setup_mu = PTHREAD_MUTEX_INITIALIZER;

/* do_it: of setup.h, for the database at path. */
static int change_setup(const char *path, int (*do_it)(const struct wire_env *, const struct shell_paths *, struct wire_err *), struct wire_err *err)
{
	struct shell_paths *paths = malloc(sizeof *paths);
	int rc = paths ? shell_paths_make(path, paths, err) : wire_fail(err, WIRE_NOMEM, "no memory for setting up %s", path);

	if (!rc)
		rc = do_it(wire_env_posix(), paths, err);
	free(paths);
	return rc;
}

static int set_up(const char *path, bool may_set_up, struct wire_err *err)
{
	int rc = WIRE_OK;

	pthread_mutex_lock(&setup_mu);
	if (may_set_up && !has_node_conf(path))
		rc = change_setup(path, shell_setup_auto, err);
	pthread_mutex_unlock(&setup_mu);
	return rc == WIRE_EXISTS ? WIRE_OK : rc;
}

/* It set itself up, and has no members to wait for: its start is short. */
static bool is_alone(const char *path)
{
	struct shell_paths *paths = malloc(sizeof *paths);
	struct shell_conf conf;
	bool alone = paths && !shell_paths_make(path, paths, NULL) && !shell_conf_read(wire_env_posix(), paths, &conf, NULL) && conf.auto_made && !*conf.listen;

	free(paths);
	return alone;
}

/* Once more with nobody of this process changing its setup beside. */
static int open_alone(const char *path, struct shell_node **ret_node, struct wire_err *err)
{
	int rc;

	pthread_mutex_lock(&setup_mu);
	rc = shell_node_acquire(path, ret_node, err);
	/* As with SQLite alone, others may have used it meanwhile. Where it was set up by a person, or has members, the first error stands. */
	if (rc == WIRE_CHANGED && !change_setup(path, shell_setup_readopt, NULL))
		rc = shell_node_acquire(path, ret_node, err);
	pthread_mutex_unlock(&setup_mu);
	return rc;
}

static int host(const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err)
{
	struct shell_node *n;
	int rc = shell_node_acquire(path, &n, err);

	if ((rc == WIRE_CHANGED || rc == WIRE_BUSY) && may_set_up && is_alone(path))
		rc = open_alone(path, &n, err);
	if (!rc)
		*ret_db = shell_node_connected(n);
	return rc;
}

static int attach(const char *path, struct vfs_db **ret_db, struct wire_err *err)
{
	struct shell_attached *a;
	int rc = shell_attach(path, &a, err);

	if (!rc) {
		*ret_db = shell_attached_db(a);
		vfs_db_ref(*ret_db);
	}
	return rc;
}

/* The first process hosts the node, others attach to it. In between, while it starts or ends, there is neither for a moment. */
static int host_or_attach(const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err)
{
	const struct timespec nap = { .tv_nsec = HOST_NAP_NS };
	const struct wire_env *env = wire_env_posix();
	const uint64_t deadline = env->now_ns(env->ctx) + HOST_WAIT_NS;
	struct vfs_db *db = NULL;
	struct wire_err why;
	int rc = set_up(path, may_set_up, err), attach_rc;

	while (!rc) {
		struct wire_err busy = { 0 };

		rc = host(path, may_set_up, &db, &busy);
		if (!rc)
			break;
		if (err)
			*err = busy;
		if (rc != WIRE_BUSY || busy.sys != EWOULDBLOCK)
			return rc;
		attach_rc = attach(path, &db, &why);
		if (!attach_rc) {
			rc = WIRE_OK;
			break;
		}
		if (attach_rc != WIRE_CLOSED && attach_rc != WIRE_BUSY) {
			if (err)
				*err = why;
			return attach_rc;
		}
		if (env->now_ns(env->ctx) >= deadline)
			return rc;
		nanosleep(&nap, NULL);
		rc = WIRE_OK;
	}
	if (rc)
		return rc;
	*ret_db = db;
	return WIRE_OK;
}

/* Each user holds one reference on its node, or on what it is attached to, given back here. */
static void give_back(struct vfs_db *db)
{
	struct shell_attached *a = shell_attached_find(db);

	if (!a) {
		shell_node_left(db);
		return;
	}
	shell_attached_release(a);
	shell_attached_release(a);
}

static int open_db(void *ctx, const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err)
{
	(void)ctx;
	return shell_resident_open(path, may_set_up, ret_db, err);
}

static void close_db(void *ctx, struct vfs_db *db)
{
	(void)ctx;
	shell_resident_close(db);
}

static const struct shell_resident_ops resident_ops = { .open = host_or_attach, .close = give_back };

static void after_fork_in_child(void)
{
	pthread_mutex_init(&setup_mu, NULL);
}

static void install_fork_handler(void)
{
	pthread_atfork(NULL, NULL, after_fork_in_child);
	shell_resident_init(&resident_ops);
}

static const struct vfs_host_ops host_ops = { .opening = opening, .is_set_up = is_set_up, .open_db = open_db, .close_db = close_db };

static void tell_not_set_up(const char *path, struct wire_err *err)
{
	struct shell_paths *paths = malloc(sizeof *paths);
	struct shell_conf conf;

	if (!paths)
		wire_fail(err, WIRE_NOMEM, "no memory for opening %s", path);
	else if (!shell_paths_make(path, paths, err) && !shell_conf_read(wire_env_posix(), paths, &conf, err))
		wire_fail(err, WIRE_BUSY, "%s was set up while it was being opened; open it again", path);
	free(paths);
}

/* Runs for every new connection of the process. A database whose node could not start is refused here, where an error can carry its text. */
static int connection_init(sqlite3 *db, char **pz_error, const struct sqlite3_api_routines *api)
{
	struct vfs_conn *c = vfs_conn_of(db);
	const char *why = c ? vfs_conn_open_error(c) : NULL, *stray = vfs_stray_main(db);
	struct wire_err err;

	(void)api;
	if (stray) {
		tell_not_set_up(stray, &err);
		why = err.text;
	}
	if (!why && c && vfs_conn_begin(c, &err))
		why = err.text;
	if (why) {
		*pz_error = sqlite3_mprintf("walraft: %s", why);
		return WALRAFT_CANTOPEN;
	}
	return shell_sqlfn_register(db);
}

int sqlite3_walraft_init(sqlite3 *db, char **pz_error, const struct sqlite3_api_routines *api)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct wire_err err;
	int rc;

	SQLITE_EXTENSION_INIT2(api);
	pthread_once(&once, install_fork_handler);
	if (sqlite3_libversion_number() < 3040000) {
		*pz_error = sqlite3_mprintf("walraft needs SQLite 3.40 or newer, this is %s", sqlite3_libversion());
		return SQLITE_ERROR;
	}
	/* Configured for a single thread SQLite has one mutex for all purposes, which is none. */
	if (!sqlite3_threadsafe() || sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_MEM) == sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_PRNG)) {
		*pz_error = sqlite3_mprintf("walraft needs a thread-safe SQLite; this one was %s", sqlite3_threadsafe() ? "configured by SQLITE_CONFIG_SINGLETHREAD" : "built with SQLITE_THREADSAFE=0");
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
