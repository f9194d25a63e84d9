/* The nodes of this process: who shares one, who starts it, who ends it. */
#include "shell/node_impl.h"
#include "shell/rise.h"
#include "vfs/wlock.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAIN_MS 2000u /* for the transaction under way to end */

static pthread_mutex_t registry_mu = PTHREAD_MUTEX_INITIALIZER; /* over list, phases, references. Not held while a node starts or ends: that may take long */
static pthread_cond_t registry_moved = PTHREAD_COND_INITIALIZER;
static struct shell_node *registry;

/* A child shares nothing with its parent's node; the descriptors would keep the parent's lock alive. The link looks after its own. */
static void after_fork_in_child(void)
{
	for (struct shell_node *n = registry; n; n = n->next) {
		if (n->lock_fd >= 0)
			close(n->lock_fd);
		if (n->control_fd >= 0)
			close(n->control_fd);
		node_attach_after_fork(n);
	}
	registry = NULL;
	pthread_mutex_init(&registry_mu, NULL);
	pthread_cond_init(&registry_moved, NULL);
}

/* A host that ends without closing its databases: the others should not have to wait for an election. Nothing is stopped or freed: its threads may still be at work. */
static void at_exit(void)
{
	if (pthread_mutex_trylock(&registry_mu))
		return;
	for (struct shell_node *n = registry; n; n = n->next)
		if (n->phase == NODE_RUNS)
			node_hand_over(n);
	pthread_mutex_unlock(&registry_mu);
}

static void install_handlers(void)
{
	pthread_atfork(NULL, NULL, after_fork_in_child);
	(void)atexit(at_exit); /* without it an election takes its time */
}

static struct shell_node *find(const char *canonical_path)
{
	struct shell_node *n = registry;

	while (n && strcmp(n->paths.db, canonical_path))
		n = n->next;
	return n;
}

/* The last step of a node, whether it ran or did not start. Returns the lock of the directory where that is to be kept, else -1. */
static int end_node(struct shell_node *n, enum node_phase how)
{
	struct shell_node **at = &registry;
	bool waited_for;
	int lock;

	node_stop(n);
	lock = n->lock_fd;
	n->lock_fd = -1;
	pthread_mutex_lock(&registry_mu);
	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	n->phase = how;
	waited_for = n->waiting != 0;
	pthread_cond_broadcast(&registry_moved);
	pthread_mutex_unlock(&registry_mu);
	if (!waited_for)
		node_free(n);
	return lock;
}

static int start_registered(struct shell_node *n, struct wire_err *err)
{
	sigset_t all;
	int rc = shell_conf_read(n->env, &n->paths, &n->conf, err);

	if (!rc && !n->conf.joining && !n->conf.witness && access(n->paths.db, F_OK) && errno == ENOENT)
		rc = wire_fail(err, WIRE_NOTFOUND, "%s is not there, but its node directory %s is: put the file back from a copy and run walraft adopt %s, or remove the directory too to begin anew", n->paths.db, n->paths.dir, n->paths.db);
	if (!rc && n->conf.joining)
		rc = wire_fail(err, WIRE_INVALID, "%s has not finished joining its cluster; run walraft join again", n->paths.db);
	if (!rc) {
		/* Threads, ours and nng's, inherit the mask: the host's signals stay the host's. */
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &n->host_signals);
		rc = node_start(n, err);
		pthread_sigmask(SIG_SETMASK, &n->host_signals, NULL);
	}
	return rc;
}

/* registry_mu held. The node of these paths that runs, with a reference; or a new one, that the caller is to start; or the error with which the start that was under way ended. */
static int enter(const struct shell_paths *paths, bool needs_database, bool (*stop)(void), struct shell_node **ret_node, struct wire_err *err)
{
	struct shell_node *n;

	while ((n = find(paths->db)) && n->phase != NODE_RUNS) {
		int rc;
		enum node_phase how;

		n->waiting++;
		while (n->phase == NODE_STARTS || n->phase == NODE_ENDS)
			pthread_cond_wait(&registry_moved, &registry_mu);
		how = n->phase;
		rc = n->start_err.code;
		if (how == NODE_FAILED && err)
			*err = n->start_err;
		if (!--n->waiting && how != NODE_RUNS)
			node_free(n);
		if (how == NODE_FAILED)
			return rc;
	}
	if (n && needs_database && n->store->witness)
		return shell_witness_refuse(paths, n, err);
	if (!n) {
		n = node_new(paths);
		if (!n)
			return wire_fail(err, WIRE_NOMEM, "no memory for a node");
		n->stop_asked = stop;
		n->next = registry;
		registry = n;
	}
	n->refs++;
	*ret_node = n;
	return WIRE_OK;
}

static int start(struct shell_node *n, struct wire_err *err)
{
	struct wire_err e = { 0 };
	int rc = start_registered(n, &e);

	pthread_mutex_lock(&registry_mu);
	n->start_err = e;
	n->start_err.code = rc;
	n->phase = rc ? NODE_ENDS : NODE_RUNS;
	pthread_cond_broadcast(&registry_moved);
	pthread_mutex_unlock(&registry_mu);
	if (!rc)
		return WIRE_OK;
	if (err)
		*err = e;
	end_node(n, NODE_FAILED);
	return rc;
}

static bool is_witness(const struct shell_paths *paths)
{
	struct shell_conf conf;

	return !shell_conf_read(wire_env_posix(), paths, &conf, NULL) && conf.witness;
}

static int acquire(const char *path, bool needs_database, bool (*stop)(void), struct shell_node **ret_node, struct wire_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct shell_paths *paths = malloc(sizeof *paths);
	struct shell_node *n = NULL;
	int rc;

	if (!paths)
		return wire_fail(err, WIRE_NOMEM, "no memory for a node");
	pthread_once(&once, install_handlers);
	rc = shell_paths_make(path, paths, err);
	if (!rc && needs_database && is_witness(paths)) {
		n = shell_node_find(paths->db);
		rc = shell_witness_refuse(paths, n, err); /* it may ask another process */
		if (n)
			shell_node_release(n);
	}
	if (!rc) {
		bool is_new;

		pthread_mutex_lock(&registry_mu);
		rc = enter(paths, needs_database, stop, &n, err);
		is_new = !rc && n->phase == NODE_STARTS;
		pthread_mutex_unlock(&registry_mu);
		if (is_new)
			rc = start(n, err);
	}
	if (!rc)
		*ret_node = n;
	free(paths);
	return rc;
}

int shell_node_acquire(const char *path, struct shell_node **ret_node, struct wire_err *err)
{
	return acquire(path, true, NULL, ret_node, err);
}

int shell_node_run(const char *path, bool (*stop)(void), struct shell_node **ret_node, struct wire_err *err)
{
	return acquire(path, false, stop, ret_node, err);
}

/* registry_mu held. A reference is given back; true: the caller is to end the node. */
static bool drop(struct shell_node *n)
{
	if (--n->refs)
		return false;
	if (n->phase != NODE_RUNS) { /* shell_node_end waits for this one */
		pthread_cond_broadcast(&registry_moved);
		return false;
	}
	n->phase = NODE_ENDS;
	return true;
}

void shell_node_release(struct shell_node *n)
{
	bool last;

	pthread_mutex_lock(&registry_mu);
	last = drop(n);
	pthread_mutex_unlock(&registry_mu);
	if (last)
		end_node(n, NODE_ENDED);
}

struct vfs_db *shell_node_connected(struct shell_node *n)
{
	struct vfs_db *db;

	pthread_mutex_lock(&registry_mu);
	n->connections++;
	db = n->db;
	vfs_db_ref(db);
	pthread_mutex_unlock(&registry_mu);
	return db;
}

void shell_node_left(struct vfs_db *db)
{
	struct shell_node *n;
	bool last = false;

	pthread_mutex_lock(&registry_mu);
	for (n = registry; n && n->db != db; n = n->next)
		;
	if (n && n->connections) {
		n->connections--;
		last = drop(n);
	}
	pthread_mutex_unlock(&registry_mu);
	if (last)
		end_node(n, NODE_ENDED);
}

/* Nobody writes from here on, if that was to be had: what was begun is committed, or rolled back, before its node goes. The lock goes with the database. */
static void drain_writers(struct shell_node *n)
{
	if (n->db)
		(void)vfs_wlock_take(vfs_db_wlock(n->db), &n->connections, DRAIN_MS);
}

void shell_node_end(struct shell_node *n, int *ret_lock_fd)
{
	bool is_mine;

	pthread_mutex_lock(&registry_mu);
	is_mine = n->phase == NODE_RUNS; /* or another thread is at it */
	n->phase = NODE_ENDS;
	n->refs -= n->connections + 1;
	n->connections = 0;
	if (!is_mine)
		pthread_cond_broadcast(&registry_moved);
	while (is_mine && n->refs)
		pthread_cond_wait(&registry_moved, &registry_mu);
	pthread_mutex_unlock(&registry_mu);
	if (!is_mine)
		return;
	drain_writers(n);
	n->keep_lock = true;
	*ret_lock_fd = end_node(n, NODE_ENDED);
}

struct shell_node *shell_node_find(const char *canonical_path)
{
	struct shell_node *n;

	pthread_mutex_lock(&registry_mu);
	n = find(canonical_path);
	if (n && n->phase != NODE_RUNS)
		n = NULL;
	if (n)
		n->refs++;
	pthread_mutex_unlock(&registry_mu);
	return n;
}

struct vfs_db *shell_node_db(struct shell_node *n)
{
	return n->db;
}

const struct shell_paths *shell_node_paths(struct shell_node *n)
{
	return &n->paths;
}
