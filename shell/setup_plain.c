/* A plain connection that settles a database: all of it in the file, no writer beside. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/setup_impl.h"
#include "vfs/vfs.h"
#include "wire/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS 2000000000ull
#define NAP_NS 2000000
#define PROGRESS_PAGES 4096

/* --- who has it --- */

/* The first other process with a lock on the file, from the kernel's list; 0: none that we can see. */
static long find_holder(const char *path, bool *ret_self)
{
	struct stat st;
	FILE *f = stat(path, &st) ? NULL : fopen("/proc/locks", "re");
	char line[256];
	long found = 0;

	*ret_self = false;
	while (f && !found && fgets(line, sizeof line, f)) {
		unsigned major, minor;
		unsigned long long inode;
		char kind[16];
		long pid;

		if (sscanf(line, "%*s %15s %*s %*s %ld %x:%x:%llu", kind, &pid, &major, &minor, &inode) != 5 || strcmp(kind, "POSIX") ||
		    inode != st.st_ino || makedev(major, minor) != st.st_dev)
			continue;
		if (pid == (long)getpid())
			*ret_self = true;
		else if (pid > 0)
			found = pid;
	}
	if (f)
		fclose(f);
	return found;
}

static void name_holder(const struct shell_paths *paths, char *dst, size_t cap)
{
	char comm[64], name[64] = "";
	bool self;
	long pid = find_holder(paths->db, &self);
	FILE *f;

	if (!pid) {
		snprintf(dst, cap, self ? "another connection of this process" : "another process");
		return;
	}
	snprintf(comm, sizeof comm, "/proc/%ld/comm", pid);
	f = fopen(comm, "re");
	if (f) {
		if (fgets(name, sizeof name, f))
			name[strcspn(name, "\n")] = 0;
		fclose(f);
	}
	snprintf(dst, cap, "process %ld%s%s%s", pid, *name ? " (" : "", name, *name ? ")" : "");
}

static int busy(const struct shell_paths *paths, const char *what, struct wire_err *err)
{
	char who[128];

	name_holder(paths, who, sizeof who);
	return wire_fail(err, WIRE_BUSY, "%s is in use (%s) by %s; close it there and try again", paths->db, what, who);
}

/* --- SQLite --- */

static int sql_fail(const struct setup_plain *p, struct wire_err *err)
{
	const char *path = p->paths->db;

	switch (p->db ? sqlite3_errcode(p->db) & 0xff : SQLITE_NOMEM) {
	case SQLITE_NOTADB:
		return wire_fail(err, WIRE_INVALID, "%s is not a database that SQLite can read", path);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
		return busy(p->paths, "locked", err);
	case SQLITE_CORRUPT:
		return wire_fail(err, WIRE_CORRUPT, "%s is damaged (%s); repair it first", path, sqlite3_errmsg(p->db));
	case SQLITE_FULL:
		return wire_fail(err, WIRE_FULL, "%s: no space left on its disk", path);
	case SQLITE_NOMEM:
		return wire_fail(err, WIRE_NOMEM, "no memory for opening %s", path);
	case SQLITE_PERM:
	case SQLITE_READONLY:
		return wire_fail(err, WIRE_PERM, "%s cannot be written: %s", path, sqlite3_errmsg(p->db));
	default:
		return wire_fail(err, WIRE_IO, "%s: %s", path, sqlite3_errmsg(p->db));
	}
}

static int run(struct setup_plain *p, const char *sql, struct wire_err *err)
{
	return sqlite3_exec(p->db, sql, NULL, NULL, NULL) ? sql_fail(p, err) : WIRE_OK;
}

/* First column of the first row, as text or number. */
static int query(struct setup_plain *p, const char *sql, char *text, size_t cap, int64_t *number, struct wire_err *err)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(p->db, sql, -1, &s, NULL);

	if (!rc && sqlite3_step(s) == SQLITE_ROW) {
		if (text)
			snprintf(text, cap, "%s", (const char *)sqlite3_column_text(s, 0));
		if (number)
			*number = sqlite3_column_int64(s, 0);
		rc = WIRE_OK;
	} else {
		rc = sql_fail(p, err);
	}
	sqlite3_finalize(s);
	return rc;
}

static int file_of(struct setup_plain *p, int op, sqlite3_file **ret, struct wire_err *err)
{
	*ret = NULL;
	if (sqlite3_file_control(p->db, "main", op, ret) || !*ret || !(*ret)->pMethods)
		return wire_fail(err, WIRE_INTERNAL, "%s: SQLite gives no file handle", p->paths->db);
	return WIRE_OK;
}

static int wait_a_moment(void *ctx, int tries)
{
	const struct setup_plain *p = ctx;
	struct timespec t = { .tv_nsec = NAP_NS };

	(void)tries;
	if (p->env->now_ns(p->env->ctx) >= p->deadline_ns)
		return 0;
	nanosleep(&t, NULL);
	return 1;
}

/* --- settling --- */

static int settle_wal(struct setup_plain *p, struct wire_err *err)
{
	sqlite3_file *f;
	sqlite3_int64 size = 0;
	int64_t is_busy = 0;
	int rc = query(p, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, 0, &is_busy, err);

	if (!rc && is_busy)
		rc = busy(p->paths, "its WAL cannot be checkpointed", err);
	if (!rc)
		rc = run(p, "BEGIN IMMEDIATE", err);
	if (!rc)
		rc = file_of(p, SQLITE_FCNTL_JOURNAL_POINTER, &f, err);
	if (!rc && (f->pMethods->xFileSize(f, &size) || size))
		rc = busy(p->paths, "it is being written to", err);
	return rc;
}

/* The two bytes that say WAL, and nothing else: a write by way of SQLite would change the file's counters as well. */
static int settle_rollback(struct setup_plain *p, struct wire_err *err)
{
	static const uint8_t wal_version[2] = { 2, 2 };
	sqlite3_file *f;
	int rc = run(p, "BEGIN EXCLUSIVE", err);

	if (!rc)
		rc = file_of(p, SQLITE_FCNTL_FILE_POINTER, &f, err);
	if (!rc && f->pMethods->xWrite(f, wal_version, 2, 18))
		rc = wire_fail(err, WIRE_IO, "cannot write the header of %s", p->paths->db);
	return rc;
}

/* What SQLite preallocated, or left, behind the last page is no page: a node that starts goes by the size of the file. The sync is also for what others wrote,
 * who may have had synchronous=OFF. */
static int finish_file(struct setup_plain *p, struct wire_err *err)
{
	sqlite3_int64 want = (sqlite3_int64)p->pages * p->page_size, size = 0;
	sqlite3_file *f;
	int rc = file_of(p, SQLITE_FCNTL_FILE_POINTER, &f, err);

	if (rc)
		return rc;
	if (f->pMethods->xFileSize(f, &size))
		return wire_fail(err, WIRE_IO, "cannot find the size of %s", p->paths->db);
	if (size > want && f->pMethods->xTruncate(f, want))
		return wire_fail(err, WIRE_IO, "cannot cut %s behind its last page", p->paths->db);
	if (f->pMethods->xSync(f, SQLITE_SYNC_NORMAL))
		return wire_fail(err, WIRE_IO, "cannot sync %s", p->paths->db);
	return WIRE_OK;
}

static int settle(struct setup_plain *p, bool may_be_empty, struct wire_err *err)
{
	const char *path = p->paths->db;
	char mode[32];
	int64_t n = 0;
	int rc = run(p, "PRAGMA synchronous=FULL", err);

	if (!rc)
		rc = query(p, "PRAGMA schema_version", NULL, 0, &n, err); /* rolls a hot journal back */
	if (!rc)
		rc = query(p, "PRAGMA journal_mode", mode, sizeof mode, NULL, err);
	if (!rc)
		rc = query(p, "PRAGMA page_count", NULL, 0, &n, err);
	if (!rc && !n && !may_be_empty)
		rc = wire_fail(err, WIRE_INVALID, "%s is empty: there is nothing to replicate yet", path);
	if (!rc && !n) {
		rc = query(p, "PRAGMA journal_mode=wal", mode, sizeof mode, NULL, err);
		if (!rc && strcmp(mode, "wal"))
			rc = wire_fail(err, WIRE_BUSY, "%s cannot be put into WAL mode (it stays in mode %s)", path, mode);
	}
	if (rc)
		return rc;
	rc = strcmp(mode, "wal") ? settle_rollback(p, err) : settle_wal(p, err);
	if (!rc && !(rc = query(p, "PRAGMA page_size", NULL, 0, &n, err)))
		p->page_size = (uint32_t)n;
	if (!rc && !(rc = query(p, "PRAGMA page_count", NULL, 0, &n, err)))
		p->pages = (uint32_t)n;
	return rc ? rc : finish_file(p, err);
}

int setup_plain_open(const struct wire_env *env, const struct shell_paths *paths, bool may_be_empty, struct setup_plain *ret_plain, struct wire_err *err)
{
	struct setup_plain *p = ret_plain;
	int rc = WIRE_OK;

	*p = (struct setup_plain){ .env = env, .paths = paths, .deadline_ns = env->now_ns(env->ctx) + PATIENCE_NS };
	if (sqlite3_open_v2(paths->db, &p->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOMUTEX, vfs_base_name()))
		rc = sql_fail(p, err);
	else if (sqlite3_db_readonly(p->db, "main"))
		rc = wire_fail(err, WIRE_PERM, "%s is read-only for this user: permission to write it is needed", paths->db);
	if (!rc) {
		sqlite3_busy_handler(p->db, wait_a_moment, p);
		rc = settle(p, may_be_empty, err);
	}
	if (rc)
		setup_plain_close(p);
	return rc;
}

void setup_plain_close(struct setup_plain *p)
{
	sqlite3_close(p->db);
	p->db = NULL;
}

int setup_plain_hash(struct setup_plain *p, uint64_t group, uint64_t index, shell_setup_progress *progress, struct vfs_pages **ret_pages, struct wire_err *err)
{
	struct vfs_pages *pages = vfs_pages_new(p->page_size, group);
	uint8_t *page = malloc(p->page_size);
	sqlite3_file *f;
	int rc = pages && page ? file_of(p, SQLITE_FCNTL_FILE_POINTER, &f, err)
	                       : wire_fail(err, WIRE_NOMEM, "no memory for page hashes of %s", p->paths->db);

	if (!rc)
		rc = vfs_pages_resize(pages, p->pages, err);
	for (uint32_t i = 1; i <= p->pages && !rc; i++) {
		if (vfs_pages_is_lock_page(p->page_size, i))
			continue;
		if (f->pMethods->xRead(f, page, (int)p->page_size, (sqlite3_int64)(i - 1) * p->page_size))
			rc = wire_fail(err, WIRE_IO, "cannot read page %u of %s", i, p->paths->db);
		else
			vfs_pages_set(pages, i, wire_page_hash(i, page, p->page_size), index);
		if (progress && (i % PROGRESS_PAGES == 0 || i == p->pages))
			progress((uint64_t)i * p->page_size, (uint64_t)p->pages * p->page_size);
	}
	free(page);
	if (rc)
		vfs_pages_free(pages);
	else
		*ret_pages = pages;
	return rc;
}
