#include "test/hosts/host.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct host host = { .report = -1, .arg = "" };

/* ---- the report ---- */

static void put_line(const char *line, size_t n)
{
	while (n > 0) {
		ssize_t k = write(host.report, line, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			_exit(4);
		line += k;
		n -= (size_t)k;
	}
}

static void report(const char *kind, const char *what, const char *fmt, va_list ap)
{
	char line[4096];
	size_t n = (size_t)snprintf(line, sizeof line, "%s\t%s\t", kind, what), from = n;
	int k = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);

	n += k < 0 ? 0 : (size_t)k < sizeof line - n - 1 ? (size_t)k : sizeof line - n - 2;
	for (size_t i = from; i < n; i++) {
		if (line[i] == '\n' || line[i] == '\t')
			line[i] = ' ';
	}
	line[n++] = '\n';
	put_line(line, n);
}

void saw(const char *what, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report("saw", what, fmt, ap);
	va_end(ap);
}

void must(bool cond, const char *fmt, ...)
{
	va_list ap;

	if (cond)
		return;
	va_start(ap, fmt);
	report("died", "", fmt, ap);
	va_end(ap);
	_exit(3);
}

/* ---- SQLite ---- */

void host_load(void)
{
	sqlite3 *db = NULL;
	char *why = NULL;

	if (!host.module)
		return;
	must(sqlite3_open(":memory:", &db) == SQLITE_OK, "no :memory: database");
	sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
	must(sqlite3_load_extension(db, host.module, NULL, &why) == SQLITE_OK, "load: %s", why ? why : "?");
	if (host.is_default)
		exec(db, "SELECT walraft_default_vfs(1)");
	if (getenv("HOSTS_AUTO"))
		exec(db, "SELECT walraft_auto(1)");
	host_close(db);
}

const char *host_uri(char *buf, size_t cap, const char *path, const char *params)
{
	const bool none = !*params || strcmp(params, "-") == 0;
	const char *vfs = host.vfs ? "vfs=walraft" : "";

	snprintf(buf, cap, "file:%s%s%s%s%s", path, *vfs || !none ? "?" : "", vfs, *vfs && !none ? "&" : "", none ? "" : params);
	return buf;
}

int host_try(const char *params, int flags, sqlite3 **ret_db)
{
	char uri[5000];

	*ret_db = NULL;
	return sqlite3_open_v2(host_uri(uri, sizeof uri, host.db, params), ret_db, flags | SQLITE_OPEN_URI, NULL);
}

sqlite3 *host_open(const char *params)
{
	sqlite3 *db;
	int rc = host_try(params, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db);

	must(rc == SQLITE_OK, "open %s (%s): %d %s", host.db, params, rc, db ? sqlite3_errmsg(db) : "");
	sqlite3_extended_result_codes(db, 1);
	sqlite3_busy_timeout(db, 5000);
	return db;
}

void host_close(sqlite3 *db)
{
	int rc = sqlite3_close(db);

	if (rc != SQLITE_OK)
		must(false, "close: %d %s", rc, sqlite3_errmsg(db));
}

static size_t put_value(char *buf, size_t cap, sqlite3_stmt *st, int i)
{
	static const char hex[] = "0123456789abcdef";
	const uint8_t *p;
	size_t n, k = 0;

	switch (sqlite3_column_type(st, i)) {
	case SQLITE_NULL:
		return (size_t)snprintf(buf, cap, "NULL");
	case SQLITE_BLOB:
		p = sqlite3_column_blob(st, i);
		n = (size_t)sqlite3_column_bytes(st, i);
		for (size_t j = 0; j < n && k + 2 < cap; j++) {
			buf[k++] = hex[p[j] >> 4];
			buf[k++] = hex[p[j] & 15];
		}
		buf[k] = 0;
		return k;
	default:
		k = (size_t)snprintf(buf, cap, "%s", (const char *)sqlite3_column_text(st, i));
		return k < cap ? k : cap - 1;
	}
}

/* The rows of one statement, after what is in buf; SQLITE_DONE or the error. */
static int put_rows(char *buf, size_t cap, size_t *n, sqlite3_stmt *st)
{
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(st) && *n + 8 < cap; i++) {
			if (*n)
				buf[(*n)++] = i ? '|' : ';';
			*n += put_value(buf + *n, cap - *n, st, i);
		}
	}
	return rc;
}

const char *ask_into(char *buf, size_t cap, sqlite3 *db, const char *sql)
{
	size_t n = 0;

	*buf = 0;
	while (*sql) {
		sqlite3_stmt *st = NULL;
		int rc = sqlite3_prepare_v2(db, sql, -1, &st, &sql);

		if (rc == SQLITE_OK && st)
			rc = put_rows(buf, cap, &n, st);
		if (rc != SQLITE_OK && rc != SQLITE_DONE) {
			snprintf(buf, cap, "error %d: %s", sqlite3_extended_errcode(db), sqlite3_errmsg(db));
			sqlite3_finalize(st);
			return buf;
		}
		sqlite3_finalize(st);
	}
	return buf;
}

void exec(sqlite3 *db, const char *sql)
{
	const char *got = ask(db, sql);

	must(strncmp(got, "error ", 6) != 0, "%.500s: %s", sql, got);
}

int64_t ask_int(sqlite3 *db, const char *sql)
{
	const char *got = ask(db, sql);

	must(strncmp(got, "error ", 6) != 0, "%.500s: %s", sql, got);
	return strtoll(got, NULL, 10);
}

void saw_sql(sqlite3 *db, const char *what, const char *sql)
{
	saw(what, "%s", ask(db, sql));
}

void saw_rc(sqlite3 *db, const char *what, int rc)
{
	if (rc == SQLITE_OK)
		saw(what, "0");
	else
		saw(what, "%d: %s", rc, sqlite3_errmsg(db));
}

/* ---- time, threads, the process ---- */

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void rest_ms(int ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&left, &left) != 0)
		;
}

bool until(bool (*cond)(void *), void *arg, int64_t timeout_ms)
{
	const int64_t end = now_ms() + timeout_ms;

	while (!cond(arg)) {
		if (now_ms() > end)
			return false;
		rest_ms(1);
	}
	return true;
}

struct task {
	pthread_t thread;
	void (*run)(void *);
	void *arg;
};

static void *task_main(void *p)
{
	struct task *t = p;

	t->run(t->arg);
	return NULL;
}

struct task *task_start(void (*run)(void *), void *arg)
{
	struct task *t = calloc(1, sizeof *t);

	must(t, "out of memory");
	t->run = run;
	t->arg = arg;
	must(pthread_create(&t->thread, NULL, task_main, t) == 0, "no thread");
	return t;
}

void task_join(struct task *t)
{
	pthread_join(t->thread, NULL);
	free(t);
}

static int count_entries(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	must(d, "%s: %s", path, strerror(errno));
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

int count_fds(void)
{
	return count_entries("/proc/self/fd") - 1; /* its own */
}

int count_threads(void)
{
	return count_entries("/proc/self/task");
}

/* ---- commands ---- */

static struct named {
	char name[40];
	sqlite3 *db;
} named[16];

static struct named *find_named(const char *name)
{
	for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
		if (strcmp(named[i].name, name) == 0)
			return &named[i];
	}
	must(!*name, "no connection is called %s", name);
	must(false, "too many connections");
	return NULL;
}

static void cmd_open(const char *name, const char *params)
{
	struct named *n = find_named("");
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
	int rc = strpbrk(params, ":/") ? sqlite3_open_v2(params, &n->db, flags | SQLITE_OPEN_URI, NULL) : host_try(params, flags, &n->db);

	if (rc != SQLITE_OK) {
		saw("open", "error %d: %s", n->db ? sqlite3_extended_errcode(n->db) : rc, n->db ? sqlite3_errmsg(n->db) : "");
		sqlite3_close(n->db);
		n->db = NULL;
		return;
	}
	sqlite3_extended_result_codes(n->db, 1);
	sqlite3_busy_timeout(n->db, 5000);
	snprintf(n->name, sizeof n->name, "%s", name);
	saw("open", "ok");
}

static void cmd_close(const char *name)
{
	struct named *n = find_named(name);

	saw("close", "%d", sqlite3_close(n->db));
	memset(n, 0, sizeof *n);
}

static void cmd_run(const char *name)
{
	static const struct host_case *const all[] = { load_cases, open_cases,   use_cases,  wal_cases,   copy_cases, control_cases,
		                                       busy_cases, thread_cases, fork_cases, leave_cases };

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		for (const struct host_case *c = all[i]; c->name; c++) {
			if (strcmp(c->name, name) == 0) {
				c->run();
				return;
			}
		}
	}
	must(false, "no case is called %s", name);
}

static void obey(char *line)
{
	char none[] = "", *cmd = strtok(line, " "), *name = strtok(NULL, " "), *rest = strtok(NULL, "");

	if (!cmd)
		return;
	if (!name)
		name = none;
	if (strcmp(cmd, "load") == 0)
		host_load();
	else if (strcmp(cmd, "open") == 0)
		cmd_open(name, rest ? rest : "-");
	else if (strcmp(cmd, "sql") == 0)
		saw_sql(find_named(name)->db, "sql", rest ? rest : "");
	else if (strcmp(cmd, "close") == 0)
		cmd_close(name);
	else if (strcmp(cmd, "run") == 0) {
		host.arg = rest ? rest : "";
		cmd_run(name);
	} else
		must(false, "what is %s?", cmd);
}

/* Run by exec: the descriptors that this process was born with. */
static int list_fds(int report_fd, const char *what)
{
	char all[3000] = "", path[60], link[1000];
	size_t n = 0;

	host.report = report_fd;
	for (int fd = 0; fd < 1024; fd++) {
		ssize_t k;

		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		k = readlink(path, link, sizeof link - 1);
		if (k < 0 || fd == report_fd || n + (size_t)k + 20 > sizeof all)
			continue;
		link[k] = 0;
		n += (size_t)snprintf(all + n, sizeof all - n, "%d %s, ", fd, link);
	}
	saw(what, "%s", all);
	return 0;
}

int main(int argc, char **argv)
{
	static char line[1 << 16];

	if (argc == 4 && strcmp(argv[1], "--fds") == 0)
		return list_fds(atoi(argv[2]), argv[3]);
	if (argc < 4)
		return 2;
	host.report = atoi(argv[1]);
	host.db = argv[2];
	host.dir = argv[3];
	host.module = argc > 4 ? argv[4] : NULL;
	host.is_default = getenv("HOSTS_DEFAULT") != NULL;
	host.vfs = host.module && !host.is_default ? "walraft" : NULL;
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		obey(line);
		put_line("end\n", 4);
		if (host.leave)
			return 0;
	}
	for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
		if (named[i].db)
			host_close(named[i].db);
	}
	return 0;
}
