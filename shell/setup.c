/* A database becomes the first node of a cluster, and its node gets an address.
 *
 * node.conf gets its name last, when all else is durable: an attempt that was interrupted left nothing that counts, and may be repeated. The syncs: the database (its
 * header); then together the journal's segment, pages, node.conf under its other name, the directories of the journal, the node and the database; and after the rename
 * the node directory. */
#include "shell/setup_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define FIRST_INDEX 1
#define FIRST_TERM 1
#define PATIENCE_NS 2000000000ull /* while another process sets it up */
#define NAP_NS 2000000

static int check_file(const struct shell_paths *paths, struct wire_err *err)
{
	struct stat st;

	if (stat(paths->db, &st))
		return wire_fail(err, WIRE_NOTFOUND, "%s does not exist; make the database first, for instance with sqlite3", paths->db);
	if (!S_ISREG(st.st_mode))
		return wire_fail(err, WIRE_INVALID, "%s is not a file", paths->db);
	return WIRE_OK;
}

/* Who has the lock is the node of this database, or sets it up just now: node.conf, which comes last, tells. *ret_conf: what it says; WIRE_NOTFOUND: nothing yet. */
static int claim(const struct wire_env *env, const struct shell_paths *paths, int *ret_lock, struct wire_err *err)
{
	uint64_t deadline = env->now_ns(env->ctx) + PATIENCE_NS;
	struct timespec nap = { .tv_nsec = NAP_NS };
	struct shell_conf conf;
	char who[32];

	for (;;) {
		int lock = -1, rc = shell_dir_make(env, paths, &lock, err), conf_rc;

		if (rc && rc != WIRE_BUSY)
			return rc;
		conf_rc = shell_conf_read(env, paths, &conf, err);
		if (!rc && conf_rc == WIRE_NOTFOUND) {
			*ret_lock = lock;
			return WIRE_OK;
		}
		if (!rc)
			shell_lock_release(lock);
		if (!conf_rc)
			return shell_dir_tell_exists(paths, &conf, err);
		if (conf_rc != WIRE_NOTFOUND)
			return conf_rc;
		if (env->now_ns(env->ctx) >= deadline) {
			shell_lock_holder(paths, who);
			return wire_fail(err, WIRE_BUSY, "%s is just being set up by process %s; try again when that has ended", paths->db, *who ? who : "(unknown)");
		}
		nanosleep(&nap, NULL);
	}
}

int setup_write_pages(const struct wire_env *env, const struct shell_paths *paths, struct vfs_pages *pages, uint64_t index, struct wire_err *err)
{
	struct vfs_pages_flush *flush;
	int rc = vfs_pages_flush_begin(pages, index, &flush, err);

	return rc ? rc : vfs_pages_flush_write(flush, env, paths->pages, err);
}

static int write_node(const struct wire_env *env, const struct shell_paths *paths, struct vfs_pages *pages, const struct shell_setup_result *r, struct wire_err *err)
{
	struct raft_journal_opts opts = { .group = r->conf.group, .first_bytes = SHELL_JOURNAL_FIRST_BYTES };
	struct raft_journal_mark mark = { .index = r->index, .checksum = r->checksum, .db_pages = r->pages };
	struct raft_config *c = calloc(1, sizeof *c);
	struct setup_later later;
	int rc = c ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "out of memory");

	setup_later_begin(&later, env, paths->conf);
	if (!rc) {
		c->n = 1;
		c->level = RAFT_LEVEL;
		c->m[0] = (struct raft_member){ .id = r->conf.node, .flags = RAFT_VOTER, .priority = RAFT_PRIORITY };
		snprintf(c->m[0].url, sizeof c->m[0].url, "%s", r->conf.listen);
		shell_dir_clear(env, paths);
		rc = setup_write_pages(&later.env, paths, pages, r->index, err);
	}
	if (!rc)
		rc = raft_journal_create(&later.env, paths->journal, &opts, FIRST_TERM, r->index, FIRST_TERM, c, &mark, err);
	if (!rc)
		rc = shell_dir_sync_parent(&later.env, paths, err);
	if (!rc)
		rc = shell_conf_write(&later.env, paths, &r->conf, err);
	setup_later_end(&later);
	free(c);
	return rc;
}

static int set_up(const struct wire_env *env, const struct shell_paths *paths, const struct shell_setup_opts *opts, struct shell_setup_result *r, struct wire_err *err)
{
	struct setup_plain plain;
	struct vfs_pages *pages = NULL;
	int rc = setup_plain_open(env, paths, !opts->auto_made, &plain, err);

	if (rc)
		return rc;
	r->page_size = plain.page_size;
	r->pages = plain.pages;
	rc = setup_plain_hash(&plain, r->conf.group, r->index, opts->progress, &pages, err);
	if (!rc) {
		r->checksum = vfs_pages_checksum(pages);
		rc = write_node(env, paths, pages, r, err);
		vfs_pages_free(pages);
	}
	setup_plain_close(&plain);
	return rc;
}

int shell_setup_new(const struct wire_env *env, const struct shell_paths *paths, const struct shell_setup_opts *opts, struct shell_setup_result *ret_result,
                    struct wire_err *err)
{
	struct shell_setup_result r = { .conf = { .insecure = opts->insecure, .auto_made = opts->auto_made }, .index = FIRST_INDEX };
	int lock = -1, rc = check_file(paths, err);

	if (!rc)
		rc = claim(env, paths, &lock, err);
	if (rc)
		return rc;
	snprintf(r.conf.listen, sizeof r.conf.listen, "%s", opts->listen ? opts->listen : "");
	r.conf.cluster = shell_random_id(env);
	r.conf.group = shell_random_id(env);
	r.conf.node = shell_random_id(env);
	rc = set_up(env, paths, opts, &r, err);
	if (rc)
		shell_dir_remove(env, paths);
	else
		*ret_result = r;
	shell_lock_release(lock);
	return rc;
}

int shell_setup_auto(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	struct shell_setup_opts opts = { .auto_made = true };
	struct shell_setup_result r;

	return shell_setup_new(env, paths, &opts, &r, err);
}

int setup_lock(const struct shell_paths *paths, int *ret_lock, struct wire_err *err)
{
	int rc = shell_lock_take(paths, ret_lock, err);

	if (rc == WIRE_NOTFOUND)
		return wire_fail(err, WIRE_NOTFOUND, "%s is not set up for replication", paths->db);
	return rc;
}

int shell_setup_listen(const struct wire_env *env, const struct shell_paths *paths, const char *listen, bool insecure, struct shell_conf *ret_conf,
                       struct wire_err *err)
{
	struct shell_conf conf;
	int lock, rc = setup_lock(paths, &lock, err);

	if (rc == WIRE_BUSY && !shell_conf_read(env, paths, &conf, NULL) && (conf.joining || *conf.listen))
		return shell_dir_tell_exists(paths, &conf, err);
	if (rc)
		return rc;
	rc = shell_conf_read(env, paths, &conf, err);
	if (!rc && *conf.listen && strcmp(conf.listen, listen) && !conf.joining)
		rc = wire_fail(err, WIRE_EXISTS, "%s is already replicated, and its node has the address %s, which cannot be changed", paths->db, conf.listen);
	else if (!rc && (conf.joining || *conf.listen))
		rc = shell_dir_tell_exists(paths, &conf, err);
	if (!rc) {
		snprintf(conf.listen, sizeof conf.listen, "%s", listen);
		conf.insecure = insecure;
		conf.auto_made = false;
		rc = shell_conf_write(env, paths, &conf, err);
	}
	shell_lock_release(lock);
	if (!rc)
		*ret_conf = conf;
	return rc;
}
