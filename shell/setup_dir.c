/* The node directory: made, emptied, removed. Whoever does that has its lock, so that two who set a database up at once, or one who does while another removes it, do
 * not work in one directory. */
#include "shell/setup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAKE_TRIES 100 /* another process may remove it between our steps */

struct leftover { const struct wire_env *env; const char *dir; };

static int remove_one(void *arg, const char *name)
{
	const struct leftover *l = arg;
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/%s", l->dir, name) < (int)sizeof path)
		(void)l->env->unlink(l->env->ctx, path, NULL);
	return 0;
}

void shell_dir_clear(const struct wire_env *env, const struct shell_paths *paths)
{
	static const char *const names[] = { "installing", "installing.tmp", "image.tmp", "pages", "pages.new", "mark", "mark.tmp", "ledger", "ledger.new", "ledger.in", "ledger.bad", "ledger.out0", "ledger.out1", "ledger.out2", "ledger.out3", "node.conf.tmp", "node.sock", "node-shm" };
	struct leftover journal = { env, paths->journal }, dir = { env, paths->dir };

	(void)env->list(env->ctx, paths->journal, remove_one, &journal, NULL);
	(void)rmdir(paths->journal);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		(void)remove_one(&dir, names[i]);
	/* The last one: it says that all others may go. */
	(void)env->unlink(env->ctx, paths->detached, NULL);
}

void shell_dir_remove(const struct wire_env *env, const struct shell_paths *paths)
{
	(void)env->unlink(env->ctx, paths->conf, NULL);
	shell_dir_clear(env, paths);
	(void)env->unlink(env->ctx, paths->lock, NULL);
	(void)rmdir(paths->dir);
}

int shell_dir_sync_parent(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	char parent[PATH_MAX];

	snprintf(parent, sizeof parent, "%s", paths->db);
	*strrchr(parent, '/') = 0;
	return env->sync_dir(env->ctx, *parent ? parent : "/", err);
}

/* The journal holds what the database holds: who may not read that may not come in here. A group that files inherit stays. */
static void set_mode(const struct shell_paths *paths)
{
	struct stat db, dir;

	if (!stat(paths->db, &db) && !stat(paths->dir, &dir))
		(void)chmod(paths->dir, (dir.st_mode & S_ISGID) | 0700 | (db.st_mode & 0040 ? 0050 : 0) | (db.st_mode & 0004 ? 0005 : 0));
}

int shell_dir_make(const struct wire_env *env, const struct shell_paths *paths, int *ret_lock, struct wire_err *err)
{
	int lock = -1, rc = WIRE_NOTFOUND;

	for (int i = 0; i < MAKE_TRIES && rc == WIRE_NOTFOUND; i++) {
		rc = env->mkdir(env->ctx, paths->dir, err);
		if (rc && rc != WIRE_EXISTS) {
			wire_context(err, "cannot make the node directory %s", paths->dir);
			return rc;
		}
		if (!rc)
			set_mode(paths);
		rc = shell_lock_take(paths, &lock, err);
	}
	if (!rc)
		*ret_lock = lock;
	else if (rc != WIRE_BUSY)
		(void)rmdir(paths->dir); /* one that is not empty stays */
	return rc;
}

int shell_dir_tell_exists(const struct shell_paths *paths, const struct shell_conf *conf, struct wire_err *err)
{
	if (conf->joining)
		return wire_fail(err, WIRE_EXISTS, "%s has begun to join a cluster; run walraft join again, or remove %s", paths->db, paths->dir);
	return wire_fail(err, WIRE_EXISTS, "%s is already replicated (node %016" PRIx64 " of cluster %016" PRIx64 "); start it with walraft serve %s", paths->db,
	                 conf->node, conf->cluster, paths->db);
}

uint64_t shell_random_id(const struct wire_env *env)
{
	uint64_t id = 0;

	while (!id)
		env->random(env->ctx, &id, sizeof id);
	return id;
}
