/* walraft init: an existing database becomes the first node of a new cluster, in place. Nothing of the file changes but header
 * bytes 18 and 19 (file format versions: 2 is WAL) where the database is not in WAL mode yet. node.conf is written last: an init that was
 * interrupted left nothing that counts, and may be repeated. */
#include "raft/journal.h"
#include "shell/cli.h"
#include "vfs/pages.h"
#include "wire/hash.h"
#include <sqlite3.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FIRST_INDEX 1
#define FIRST_TERM 1

static int sql_fail(sqlite3 *db, const char *path, struct wire_err *err)
{
	int rc = sqlite3_errcode(db);

	switch (rc & 0xff) {
	case SQLITE_NOTADB:
		return wire_fail(err, WIRE_INVALID, "%s is not a database that SQLite can read", path);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return wire_fail(err, WIRE_BUSY, "%s is in use (locked) by another process; close it there and try again", path);
	case SQLITE_CORRUPT:
		return wire_fail(err, WIRE_CORRUPT, "%s is damaged (%s); repair it first", path, sqlite3_errmsg(db));
	case SQLITE_FULL:
		return wire_fail(err, WIRE_FULL, "%s: no space left on its disk", path);
	case SQLITE_PERM:
	case SQLITE_READONLY:
		return wire_fail(err, WIRE_PERM, "%s cannot be written: %s", path, sqlite3_errmsg(db));
	default:
		return wire_fail(err, WIRE_IO, "%s: %s", path, sqlite3_errmsg(db));
	}
}

static int run(sqlite3 *db, const char *path, const char *sql, struct wire_err *err)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) ? sql_fail(db, path, err) : WIRE_OK;
}

/* First column of the first row, as text or number. */
static int query(sqlite3 *db, const char *path, const char *sql, char *text, size_t cap, int64_t *number, struct wire_err *err)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

	if (!rc && sqlite3_step(s) == SQLITE_ROW) {
		if (text)
			snprintf(text, cap, "%s", (const char *)sqlite3_column_text(s, 0));
		if (number)
			*number = sqlite3_column_int64(s, 0);
		rc = WIRE_OK;
	} else {
		rc = sql_fail(db, path, err);
	}
	sqlite3_finalize(s);
	return rc;
}

static int check_hot_journal(const struct wire_env *env, const char *path, struct wire_err *err)
{
	static const uint8_t magic[8] = { 0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7 };
	char name[PATH_MAX];
	struct wire_file *f;
	uint8_t head[8];
	size_t got = 0;
	int rc;

	if (snprintf(name, sizeof name, "%s-journal", path) >= (int)sizeof name)
		return wire_fail(err, WIRE_INVALID, "path too long: %.200s...", path);
	rc = env->open(env->ctx, name, WIRE_OPEN_READ, &f, err);
	if (rc == WIRE_NOTFOUND)
		return WIRE_OK;
	if (rc)
		return rc;
	rc = env->read(env->ctx, f, head, sizeof head, 0, &got, err);
	env->close(env->ctx, f);
	if (!rc && got == sizeof head && !memcmp(head, magic, sizeof magic))
		rc = wire_fail(err, WIRE_BUSY, "%s has a hot journal (%s): a transaction was interrupted, or is under way. Open it once with sqlite3 to have it rolled back, then try again",
		               path, name);
	return rc;
}

struct adopted {
	uint32_t page_size, pages;
	uint64_t checksum;
};

static int main_file(sqlite3 *db, int op, const char *path, sqlite3_file **ret, struct wire_err *err)
{
	*ret = NULL;
	if (sqlite3_file_control(db, "main", op, ret) || !*ret || !(*ret)->pMethods)
		return wire_fail(err, WIRE_INTERNAL, "%s: SQLite gives no file handle", path);
	return WIRE_OK;
}

/* Into WAL mode with an empty WAL, and a lock that keeps writers out until the connection closes. */
static int settle(sqlite3 *db, const char *path, struct wire_err *err)
{
	static const uint8_t wal_version[2] = { 2, 2 };
	char mode[32];
	sqlite3_file *f;
	sqlite3_int64 size = 0;
	int64_t n = 0;
	int rc = query(db, path, "PRAGMA schema_version", NULL, 0, &n, err);

	if (!rc)
		rc = query(db, path, "PRAGMA journal_mode", mode, sizeof mode, NULL, err);
	if (!rc)
		rc = query(db, path, "PRAGMA page_count", NULL, 0, &n, err);
	if (!rc && !n) {
		rc = query(db, path, "PRAGMA journal_mode=wal", mode, sizeof mode, NULL, err);
		if (!rc && strcmp(mode, "wal"))
			rc = wire_fail(err, WIRE_BUSY, "%s cannot be put into WAL mode (it stays in mode %s)", path, mode);
	}
	if (rc)
		return rc;
	if (!strcmp(mode, "wal")) {
		rc = query(db, path, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, 0, &n, err);
		if (!rc && n)
			rc = wire_fail(err, WIRE_BUSY, "%s is in use: its WAL cannot be checkpointed; close it in other programs and try again", path);
		if (!rc)
			rc = run(db, path, "BEGIN IMMEDIATE", err);
		if (!rc)
			rc = main_file(db, SQLITE_FCNTL_JOURNAL_POINTER, path, &f, err);
		if (!rc && (f->pMethods->xFileSize(f, &size) || size))
			rc = wire_fail(err, WIRE_BUSY, "%s is being written to by another program; stop it and try again", path);
		return rc;
	}
	rc = run(db, path, "BEGIN EXCLUSIVE", err);
	if (!rc)
		rc = main_file(db, SQLITE_FCNTL_FILE_POINTER, path, &f, err);
	if (!rc && (f->pMethods->xWrite(f, wal_version, 2, 18) || f->pMethods->xSync(f, SQLITE_SYNC_NORMAL)))
		rc = wire_fail(err, WIRE_IO, "cannot write the header of %s", path);
	return rc;
}

static int hash_pages(sqlite3 *db, const struct shell_paths *paths, struct vfs_pages *p, uint32_t page_size, uint32_t count, struct wire_err *err)
{
	sqlite3_file *f;
	uint8_t *page = malloc(page_size);
	int rc = page ? main_file(db, SQLITE_FCNTL_FILE_POINTER, paths->db, &f, err) : wire_fail(err, WIRE_NOMEM, "out of memory");

	if (!rc)
		rc = vfs_pages_resize(p, count, err);
	for (uint32_t i = 1; i <= count && !rc; i++) {
		if (vfs_pages_is_lock_page(page_size, i))
			continue;
		if (f->pMethods->xRead(f, page, (int)page_size, (sqlite3_int64)(i - 1) * page_size))
			rc = wire_fail(err, WIRE_IO, "cannot read page %u of %s", i, paths->db);
		else
			vfs_pages_set(p, i, wire_page_hash(i, page, page_size), FIRST_INDEX);
		if (i % 4096 == 0 || i == count)
			cli_progress("reading", (uint64_t)i * page_size, (uint64_t)count * page_size);
	}
	free(page);
	return rc;
}

/* A first attempt may have left a journal or pages; without node.conf they mean nothing. */
struct leftover { const struct wire_env *env; const char *dir; };

static int remove_one(void *arg, const char *name)
{
	struct leftover *l = arg;
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/%s", l->dir, name) < (int)sizeof path)
		(void)l->env->unlink(l->env->ctx, path, NULL);
	return 0;
}

void cli_remove_leftovers(const struct wire_env *env, const struct shell_paths *paths)
{
	struct leftover l = { env, paths->journal };

	(void)env->list(env->ctx, paths->journal, remove_one, &l, NULL);
	(void)env->unlink(env->ctx, paths->pages, NULL);
	(void)env->unlink(env->ctx, paths->image, NULL);
	(void)remove(paths->journal);
}

static int write_node(const struct wire_env *env, const struct shell_paths *paths, const struct shell_conf *conf, struct vfs_pages *p,
                      const struct adopted *a, struct wire_err *err)
{
	struct raft_journal_opts opts = { .group = conf->group };
	struct raft_journal_mark mark = { .index = FIRST_INDEX, .checksum = a->checksum, .db_pages = a->pages };
	struct raft_config *c = calloc(1, sizeof *c);
	struct vfs_pages_flush *flush;
	int rc = c ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "out of memory");

	if (!rc) {
		c->n = 1;
		c->m[0] = (struct raft_member){ .id = conf->node, .flags = RAFT_VOTER };
		snprintf(c->m[0].url, sizeof c->m[0].url, "%s", conf->listen);
		cli_remove_leftovers(env, paths);
		rc = vfs_pages_flush_begin(p, FIRST_INDEX, &flush, err);
	}
	if (!rc)
		rc = vfs_pages_flush_write(flush, env, paths->pages, err);
	if (!rc)
		rc = raft_journal_create(env, paths->journal, &opts, FIRST_TERM, FIRST_INDEX, FIRST_TERM, c, &mark, err);
	if (!rc)
		rc = env->sync_dir(env->ctx, paths->dir, err);
	if (!rc)
		rc = shell_conf_write(env, paths, conf, err);
	free(c);
	return rc;
}

static int adopt(const struct wire_env *env, const struct shell_paths *paths, const struct shell_conf *conf, struct adopted *a, struct wire_err *err)
{
	struct vfs_pages *p = NULL;
	sqlite3 *db = NULL;
	int64_t n = 0;
	int rc = check_hot_journal(env, paths->db, err);

	if (rc)
		return rc;
	if (sqlite3_open_v2(paths->db, &db, SQLITE_OPEN_READWRITE, "unix"))
		rc = sql_fail(db, paths->db, err);
	else if (sqlite3_db_readonly(db, "main"))
		rc = wire_fail(err, WIRE_PERM, "%s is read-only for this user: permission to write it is needed", paths->db);
	if (!rc) {
		sqlite3_busy_timeout(db, 2000);
		rc = settle(db, paths->db, err);
	}
	if (!rc && !(rc = query(db, paths->db, "PRAGMA page_size", NULL, 0, &n, err)))
		a->page_size = (uint32_t)n;
	if (!rc && !(rc = query(db, paths->db, "PRAGMA page_count", NULL, 0, &n, err)))
		a->pages = (uint32_t)n;
	if (!rc && !(p = vfs_pages_new(a->page_size, conf->group)))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for page hashes of %s", paths->db);
	if (!rc)
		rc = hash_pages(db, paths, p, a->page_size, a->pages, err);
	if (!rc) {
		a->checksum = vfs_pages_checksum(p);
		rc = write_node(env, paths, conf, p, a, err);
	}
	if (p)
		vfs_pages_free(p);
	sqlite3_close(db);
	return rc;
}

static int check_new(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	struct shell_conf old;
	struct stat st;
	int rc;

	if (stat(paths->db, &st))
		return wire_fail(err, WIRE_NOTFOUND, "%s does not exist; make the database first, for instance with sqlite3", paths->db);
	if (!S_ISREG(st.st_mode))
		return wire_fail(err, WIRE_INVALID, "%s is not a file", paths->db);
	rc = shell_conf_read(env, paths, &old, err);
	if (rc == WIRE_NOTFOUND)
		return WIRE_OK;
	if (rc)
		return rc;
	if (old.joining)
		return wire_fail(err, WIRE_EXISTS, "%s has begun to join a cluster; run walraft join again, or remove %s", paths->db, paths->dir);
	return wire_fail(err, WIRE_EXISTS, "%s is already replicated (node %016" PRIx64 " of cluster %016" PRIx64 "); start it with walraft serve %s", paths->db,
	                 old.node, old.cluster, paths->db);
}

void cli_undo_dir(const struct wire_env *env, const struct shell_paths *paths)
{
	cli_remove_leftovers(env, paths);
	(void)env->unlink(env->ctx, paths->conf, NULL);
	(void)env->unlink(env->ctx, paths->lock, NULL);
	(void)remove(paths->dir);
}

int cli_make_dir(const struct wire_env *env, const struct shell_paths *paths, int *ret_lock, struct wire_err *err)
{
	char parent[PATH_MAX];
	struct stat st;
	int rc = env->mkdir(env->ctx, paths->dir, err);

	if (rc && rc != WIRE_EXISTS) {
		wire_context(err, "cannot make the node directory %s", paths->dir);
		return rc;
	}
	/* The journal holds what the database holds: who may not read that may not come in here. */
	if (!rc && !stat(paths->db, &st))
		(void)chmod(paths->dir, 0700 | (st.st_mode & 0040 ? 0050 : 0) | (st.st_mode & 0004 ? 0005 : 0));
	/* Whatever is made durable inside must not go with its directory. */
	snprintf(parent, sizeof parent, "%s", paths->db);
	*strrchr(parent, '/') = 0;
	rc = env->sync_dir(env->ctx, *parent ? parent : "/", err);
	return rc ? rc : shell_lock_take(paths, ret_lock, err);
}

uint64_t cli_random_id(const struct wire_env *env)
{
	uint64_t id = 0;

	while (!id)
		env->random(env->ctx, &id, sizeof id);
	return id;
}

static int init(const struct cli_opts *o, struct wire_err *err)
{
	const struct wire_env *env = wire_env_posix();
	struct shell_paths *paths = malloc(sizeof *paths);
	struct shell_conf conf = { .insecure = o->insecure };
	struct adopted a = { 0 };
	int lock = -1, rc = paths ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "out of memory");

	if (!rc)
		rc = shell_paths_make(o->db, paths, err);
	if (!rc)
		rc = check_new(env, paths, err);
	if (!rc)
		rc = cli_make_dir(env, paths, &lock, err);
	if (!rc) {
		snprintf(conf.listen, sizeof conf.listen, "%s", o->listen);
		conf.cluster = cli_random_id(env);
		conf.group = cli_random_id(env);
		conf.node = cli_random_id(env);
		rc = adopt(env, paths, &conf, &a, err);
		if (rc)
			cli_undo_dir(env, paths);
	}
	if (!rc && o->json) {
		printf("{\"path\":\"");
		cli_put_json(stdout, paths->db);
		printf("\",\"cluster\":\"%016" PRIx64 "\",\"group\":\"%016" PRIx64 "\",\"node_id\":\"%016" PRIx64 "\",\"url\":\"%s\",\"pages\":%u,\"page_size\":%u,\"checksum\":\"%016" PRIx64 "\"}\n",
		       conf.cluster, conf.group, conf.node, conf.listen, a.pages, a.page_size, a.checksum);
	} else if (!rc) {
		printf("%s is node %016" PRIx64 " of the new cluster %016" PRIx64 " (%u pages of %u bytes).\nStart it: walraft serve %s, or open file:%s?vfs=walraft in a program.\n",
		       paths->db, conf.node, conf.cluster, a.pages, a.page_size, o->db, o->db);
	}
	if (lock >= 0)
		shell_lock_release(lock);
	free(paths);
	return rc;
}

int cli_init(int argc, char **argv)
{
	struct cli_opts o;
	struct wire_err err;

	if (cli_parse(argc, argv, "lij", &o))
		return 2;
	return o.help || !init(&o, &err) ? 0 : cli_fail(&o, &err);
}
