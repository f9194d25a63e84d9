#include "shell/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONF_MAX 65536

static int join_path(char dst[PATH_MAX], const char *a, const char *b, struct wire_err *err)
{
	int n = snprintf(dst, PATH_MAX, "%s%s", a, b);

	if (n < 0 || n >= PATH_MAX)
		return wire_fail(err, WIRE_INVALID, "path too long: %.200s...", a);
	return WIRE_OK;
}

/* The directory is resolved, the last component kept unless it is itself a link: the database may not exist yet. */
static int canonical(const char *db, char dst[PATH_MAX], struct wire_err *err)
{
	char dir[PATH_MAX], resolved[PATH_MAX];
	const char *slash = strrchr(db, '/'), *base = slash ? slash + 1 : db;
	size_t n = slash ? (size_t)(slash - db) : 0;

	if (!*base || !strcmp(base, ".") || !strcmp(base, ".."))
		return wire_fail(err, WIRE_INVALID, "'%s' does not name a database file", db);
	if (realpath(db, dst))
		return WIRE_OK;
	if (errno != ENOENT)
		return wire_fail_errno(err, errno, "cannot resolve %s", db);
	if (n >= sizeof dir)
		return wire_fail(err, WIRE_INVALID, "path too long: %.200s...", db);
	memcpy(dir, db, n);
	dir[n] = 0;
	if (!realpath(n ? dir : slash ? "/" : ".", resolved))
		return wire_fail_errno(err, errno, "cannot find the directory of %s", db);
	if (join_path(dst, strcmp(resolved, "/") ? resolved : "", "/", err))
		return err ? err->code : WIRE_INVALID;
	if (strlen(dst) + strlen(base) >= PATH_MAX)
		return wire_fail(err, WIRE_INVALID, "path too long: %.200s...", db);
	strcat(dst, base);
	return WIRE_OK;
}

int shell_paths_make(const char *db, struct shell_paths *ret_paths, struct wire_err *err)
{
	struct shell_paths p;
	int rc = canonical(db, p.db, err);

	if (!rc)
		rc = join_path(p.dir, p.db, "-walraft", err);
	if (!rc)
		rc = join_path(p.conf, p.dir, "/node.conf", err);
	if (!rc)
		rc = join_path(p.lock, p.dir, "/lock", err);
	if (!rc)
		rc = join_path(p.sock, p.dir, "/node.sock", err);
	if (!rc)
		rc = join_path(p.shared, p.dir, "/node-shm", err);
	if (!rc)
		rc = join_path(p.journal, p.dir, "/journal", err);
	if (!rc)
		rc = join_path(p.pages, p.dir, "/pages", err);
	if (!rc)
		rc = join_path(p.mark, p.dir, "/mark", err);
	if (!rc)
		rc = join_path(p.ledger, p.dir, "/ledger", err);
	if (!rc)
		rc = join_path(p.image, p.dir, "/image.tmp", err);
	if (!rc)
		rc = join_path(p.installing, p.dir, "/installing", err);
	if (!rc)
		rc = join_path(p.detached, p.dir, "/detached", err);
	if (!rc)
		*ret_paths = p;
	return rc;
}

static int parse_hex(const char *v, uint64_t *ret)
{
	char *end;

	if (strlen(v) != 16 || strspn(v, "0123456789abcdef") != 16)
		return -1;
	*ret = strtoull(v, &end, 16);
	return *end || !*ret ? -1 : 0;
}

static int parse_number(const char *v, unsigned long min, unsigned long max, uint32_t *ret)
{
	char *end;
	unsigned long n = strtoul(v, &end, 10);

	if (*v < '0' || *v > '9' || *end || n < min || n > max)
		return -1;
	*ret = (uint32_t)n;
	return 0;
}

enum { HAVE_VERSION = 1, HAVE_STATE = 2, HAVE_CLUSTER = 4, HAVE_GROUP = 8, HAVE_NODE = 16 };

/* One "key value" line; returns 0 or -1 for a bad one. */
static int parse_line(char *line, struct shell_conf *c, unsigned *have)
{
	char *key = line + strspn(line, " \t"), *v = key + strcspn(key, " \t"), *end;

	if (!*key || *key == '#')
		return 0;
	if (!*v)
		return -1;
	*v++ = 0;
	v += strspn(v, " \t");
	for (end = v + strlen(v); end > v && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r');)
		*--end = 0;
	if (!strcmp(key, "version"))
		return *have |= HAVE_VERSION, strcmp(v, "1") ? -1 : 0;
	if (!strcmp(key, "state")) {
		*have |= HAVE_STATE;
		c->joining = !strcmp(v, "joining");
		return c->joining || !strcmp(v, "member") ? 0 : -1;
	}
	if (!strcmp(key, "cluster"))
		return *have |= HAVE_CLUSTER, parse_hex(v, &c->cluster);
	if (!strcmp(key, "group"))
		return *have |= HAVE_GROUP, parse_hex(v, &c->group);
	if (!strcmp(key, "node"))
		return *have |= HAVE_NODE, parse_hex(v, &c->node);
	if (!strcmp(key, "insecure"))
		return c->insecure = !strcmp(v, "yes"), c->insecure ? 0 : -1;
	if (!strcmp(key, "kind"))
		return c->witness = !strcmp(v, "witness"), c->witness || !strcmp(v, "replica") ? 0 : -1;
	if (!strcmp(key, "keep-log"))
		return parse_number(v, SHELL_KEEP_LOG_MIN, SHELL_KEEP_LOG_MAX, &c->keep_log_bytes);
	if (!strcmp(key, "promote-after"))
		return parse_number(v, 1, SHELL_PROMOTE_AFTER_MAX, &c->promote_after_s);
	if (!strcmp(key, "auto"))
		return c->auto_made = !strcmp(v, "yes"), c->auto_made ? 0 : -1;
	if (strcmp(key, "listen") || strlen(v) > RAFT_URL_MAX)
		return -1;
	memcpy(c->listen, v, strlen(v) + 1);
	return 0;
}

int shell_conf_read(const struct wire_env *env, const struct shell_paths *paths, struct shell_conf *ret_conf,
                    struct wire_err *err)
{
	struct shell_conf c = { 0 };
	struct wire_err why;
	char *text, *line, *next;
	unsigned have = 0, need = HAVE_VERSION | HAVE_STATE | HAVE_NODE;
	size_t len;
	int number = 0, rc = wire_env_slurp(env, paths->conf, CONF_MAX, &text, &len, &why);

	if (rc == WIRE_NOTFOUND && access(paths->db, F_OK))
		return wire_fail(err, WIRE_NOTFOUND,
		                 "%s does not exist; make it and run walraft init, or fetch it from a cluster with walraft join", paths->db);
	if (rc == WIRE_NOTFOUND)
		return wire_fail(err, WIRE_NOTFOUND,
		                 "%s is not set up for replication; for the first node of a new cluster: walraft init %s --listen tcp://127.0.0.1:PORT; a replica of a cluster is made by walraft join, under a name that does not exist yet", paths->db,
		                 paths->db);
	if (rc)
		return wire_fail(err, rc, "%s", why.text);
	for (line = text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		number++;
		if (parse_line(line, &c, &have)) {
			rc = wire_fail(err, WIRE_CORRUPT, "%s: line %d is not understood; mend it, or restore the file from a copy",
			               paths->conf, number);
			free(text);
			return rc;
		}
	}
	free(text);
	if (!c.joining)
		need |= HAVE_CLUSTER | HAVE_GROUP;
	if ((have & need) != need)
		return wire_fail(err, WIRE_CORRUPT, "%s lacks one of: version, state, cluster, group, node; restore it from a copy",
		                 paths->conf);
	*ret_conf = c;
	return WIRE_OK;
}

int shell_conf_write(const struct wire_env *env, const struct shell_paths *paths, const struct shell_conf *c,
                     struct wire_err *err)
{
	char text[1024];
	int n = snprintf(text, sizeof text,
	                 "# Identity of this walraft node; written by walraft.\n"
	                 "version 1\nstate %s\nnode %016" PRIx64 "\n",
	                 c->joining ? "joining" : "member", c->node);

	if (!c->joining)
		n += snprintf(text + n, sizeof text - (size_t)n, "cluster %016" PRIx64 "\ngroup %016" PRIx64 "\n", c->cluster,
		              c->group);
	if (*c->listen)
		n += snprintf(text + n, sizeof text - (size_t)n, "listen %s\n", c->listen);
	if (c->insecure)
		n += snprintf(text + n, sizeof text - (size_t)n, "insecure yes\n");
	if (c->witness)
		n += snprintf(text + n, sizeof text - (size_t)n, "kind witness\n");
	if (c->keep_log_bytes)
		n += snprintf(text + n, sizeof text - (size_t)n, "keep-log %" PRIu32 "\n", c->keep_log_bytes);
	if (c->promote_after_s)
		n += snprintf(text + n, sizeof text - (size_t)n, "promote-after %" PRIu32 "\n", c->promote_after_s);
	if (c->auto_made)
		n += snprintf(text + n, sizeof text - (size_t)n, "auto yes\n");
	return wire_env_replace(env, paths->conf, text, (size_t)n, err);
}

void shell_lock_holder(const struct shell_paths *paths, char dst[32])
{
	int fd = open(paths->lock, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : pread(fd, dst, 31, 0);

	if (fd >= 0)
		close(fd);
	dst[got > 0 ? got : 0] = 0;
	dst[strspn(dst, "0123456789")] = 0;
}

/* Whoever removes a node directory has its lock, and a file that was opened before is nobody's lock any more. */
static bool is_still_there(int fd, const char *path)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat(path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static atomic_int inherited = -1;

void shell_lock_inherit(int fd)
{
	atomic_store(&inherited, fd);
}

int shell_lock_take(const struct shell_paths *paths, int *ret_fd, struct wire_err *err)
{
	char text[32];
	int fd = atomic_exchange(&inherited, -1), n;

	if (fd >= 0 && !is_still_there(fd, paths->lock)) {
		close(fd);
		fd = -1;
	}
	while (fd < 0) {
		fd = open(paths->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			return wire_fail_errno(err, errno, "cannot open %s", paths->lock);
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			int e = errno;

			close(fd);
			if (e != EWOULDBLOCK)
				return wire_fail_errno(err, e, "cannot lock %s", paths->lock);
			shell_lock_holder(paths, text);
			wire_fail(err, WIRE_BUSY, "%s is in use by process %s, which hosts its walraft node, or a walraft command is at work on it: stop that first", paths->db,
			          *text ? text : "(unknown)");
			if (err)
				err->sys = EWOULDBLOCK;
			return WIRE_BUSY;
		}
		if (is_still_there(fd, paths->lock))
			break;
		close(fd);
		fd = -1;
	}
	n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
	if (pwrite(fd, text, (size_t)n, 0) != n || ftruncate(fd, n)) {
		int e = errno;

		close(fd);
		return wire_fail_errno(err, e, "cannot write %s", paths->lock);
	}
	*ret_fd = fd;
	return WIRE_OK;
}

void shell_lock_release(int fd)
{
	/* A child that was forked meanwhile may have the file open as well. */
	(void)flock(fd, LOCK_UN);
	close(fd);
}
