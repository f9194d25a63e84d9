/* What is left of a database in its host: after a close, at the end of the process, and of threads, descriptors and signals. */
#include "test/hosts/host.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <dirent.h>
#include <unistd.h>

static void close_busy(void)
{
	sqlite3 *db = host_open("-"), *other;
	sqlite3_stmt *st = NULL;

	exec(db, "DROP TABLE IF EXISTS leaving; CREATE TABLE leaving(a); INSERT INTO leaving VALUES(1), (2), (3)");
	must(sqlite3_prepare_v2(db, "SELECT a FROM leaving", -1, &st, NULL) == SQLITE_OK, "prepare");
	saw("row", "%d", sqlite3_step(st));
	saw_rc(db, "close with a statement", sqlite3_close(db));
	saw("next row", "%d, %d", sqlite3_step(st), sqlite3_column_int(st, 0));
	saw("close_v2", "%d", sqlite3_close_v2(db));
	saw("row of a zombie", "%d, %d", sqlite3_step(st), sqlite3_column_int(st, 0));
	other = host_open("-");
	saw_sql(other, "another writes", "INSERT INTO leaving VALUES(4); SELECT count(*) FROM leaving");
	host_close(other);
	saw("finalize", "%d", sqlite3_finalize(st));
	db = host_open("-");
	saw_sql(db, "opened again", "SELECT count(*) FROM leaving");
	host_close(db);
}

/* The last connection is a zombie in a read: the node goes on until that is over. */
static void zombie(void)
{
	sqlite3 *db;
	sqlite3_stmt *st = NULL;
	int before, during;

	host_load();
	db = host_open("-");
	exec(db, "DROP TABLE IF EXISTS leaving; CREATE TABLE leaving(a); INSERT INTO leaving VALUES(1), (2)");
	before = count_threads();
	must(sqlite3_prepare_v2(db, "SELECT a FROM leaving", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW, "step");
	saw("close_v2", "%d", sqlite3_close_v2(db));
	during = count_threads();
	saw("node runs on", "%d", during == before);
	saw("next row", "%d", sqlite3_step(st));
	saw("finalize", "%d", sqlite3_finalize(st));
	saw("node has ended", "%d", count_threads() < during);
}

/* ---- the end of the process while threads commit ---- */

struct writer {
	int round, by;
};

static void write_on(void *p)
{
	struct writer *w = p;
	sqlite3 *db = host_open("-");
	char sql[160];

	for (int i = 0;; i++) {
		snprintf(sql, sizeof sql, "INSERT INTO acked VALUES(%d, %d, %d)", w->round, w->by, i);
		exec(db, sql);
		saw("acked", "%d %d %d", w->round, w->by, i);
	}
}

static void exit_now(void *p)
{
	(void)p;
	exit(0);
}

/* host.arg: round, milliseconds, and how: return, exit, thread. */
static void leave(void)
{
	static struct writer writers[4];
	int round = 0, ms = 0;
	char how[20] = "";
	sqlite3 *db;

	must(sscanf(host.arg, "%d %d %19s", &round, &ms, how) == 3, "arguments");
	host_load();
	db = host_open("-");
	exec(db, "CREATE TABLE IF NOT EXISTS acked(round, by, n)");
	saw_sql(db, "rows", "SELECT count(*) FROM acked");
	for (int i = 0; i < 4; i++) {
		writers[i] = (struct writer){ round, i };
		task_start(write_on, &writers[i]);
	}
	rest_ms(ms);
	if (strcmp(how, "exit") == 0)
		exit(0);
	if (strcmp(how, "thread") == 0)
		task_join(task_start(exit_now, NULL));
	host.leave = true;
}

/* ---- descriptors and threads ---- */

static bool threads_are(void *n)
{
	return count_threads() <= *(int *)n;
}

static void nothing(void *p)
{
	(void)p;
}

/* host.arg: rounds. */
static void cycles(void)
{
	int rounds = atoi(host.arg), fds, threads, first_fds = 0, first_threads = 0;
	sqlite3_int64 memory = 0;
	sqlite3 *db, *other;

	host_load();
	task_join(task_start(nothing, NULL)); /* a sanitizer begins a thread of its own with the first one */
	fds = count_fds();
	threads = count_threads();
	for (int i = 0; i < rounds; i++) {
		db = host_open("-");
		other = host_open("-");
		exec(db, "CREATE TABLE IF NOT EXISTS cycled(a); INSERT INTO cycled VALUES(1)");
		exec(other, "PRAGMA cache_size=2; BEGIN; INSERT INTO cycled VALUES(zeroblob(100000)); ROLLBACK; SELECT count(*) FROM cycled");
		host_close(db);
		host_close(other);
		if (i == 0) {
			first_fds = count_fds();
			first_threads = count_threads();
			memory = sqlite3_memory_used();
		}
	}
	saw("left after the first", "%d descriptors, %d threads", first_fds - fds, first_threads - threads);
	until(threads_are, &first_threads, 2000);
	saw("left after the last", "%d descriptors, %d threads", count_fds() - fds, count_threads() - threads);
	saw("more of SQLite's memory", "%lld", (long long)(sqlite3_memory_used() - memory));
	db = host_open("-");
	saw("rows", "%d", ask_int(db, "SELECT count(*) FROM cycled WHERE a = 1") >= rounds);
	host_close(db);
}

/* ---- signals ---- */

static atomic_int elsewhere, handled;
static pthread_t main_thread;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
	if (!pthread_equal(pthread_self(), main_thread))
		elsewhere++;
}

static void dispositions(struct sigaction *all)
{
	for (int i = 1; i < NSIG; i++) {
		memset(&all[i], 0, sizeof all[i]);
		sigaction(i, NULL, &all[i]);
	}
}

static int differ(const struct sigaction *a, const struct sigaction *b)
{
	int n = 0;

	for (int i = 1; i < NSIG; i++)
		n += a[i].sa_handler != b[i].sa_handler || a[i].sa_flags != b[i].sa_flags;
	return n;
}

/* Threads that do not block what a thread can block; the caller's is left out. The C library keeps 32 and 33 for itself. */
static int open_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = 0;

	must(d, "/proc/self/task");
	for (struct dirent *e; (e = readdir(d));) {
		char path[300], line[200];
		unsigned long long mask = 0;
		FILE *f;

		snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
		if (e->d_name[0] == '.' || atoi(e->d_name) == getpid() || !(f = fopen(path, "r")))
			continue;
		while (fgets(line, sizeof line, f))
			sscanf(line, "SigBlk: %llx", &mask);
		fclose(f);
		n += (mask | 1ull << 31 | 1ull << 32 | 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1)) != ~0ull;
	}
	closedir(d);
	return n;
}

static bool was_handled(void *p)
{
	(void)p;
	return handled > 0;
}

static void signals(void)
{
	static struct sigaction before[NSIG], after[NSIG];
	struct sigaction act = { .sa_handler = on_signal };
	static sigset_t mask_before, mask_after;
	sigset_t usr1, pending;
	sqlite3 *db;

	main_thread = pthread_self();
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigaction(SIGUSR1, &act, NULL);
	dispositions(before);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
	host_load();
	db = host_open("-");
	exec(db, "DROP TABLE IF EXISTS signalled; CREATE TABLE signalled(a); INSERT INTO signalled VALUES(1)");
	dispositions(after);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
	saw("dispositions changed", "%d", differ(before, after));
	saw("mask changed", "%d", memcmp(&mask_before, &mask_after, sizeof mask_before) != 0);
	saw("other threads", "%d", count_threads() > 1);
	saw("threads that take signals", "%d", open_threads());
	/* With the signal blocked here nobody is left to take it. */
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	kill(getpid(), SIGUSR1);
	for (int i = 0; i < 20; i++)
		exec(db, "INSERT INTO signalled VALUES(2)");
	sigpending(&pending);
	saw("pending", "%d, handled %d", sigismember(&pending, SIGUSR1), (int)handled);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	until(was_handled, NULL, 5000);
	saw("handled in the end", "%d, by others %d", (int)handled, (int)elsewhere);
	host_close(db);
	dispositions(after);
	saw("dispositions changed after the close", "%d", differ(before, after));
}

/* Clients of the node's socket that do not wait for their answer; host.arg: how many. */
static void broken_pipes(void)
{
	sqlite3 *db = host_open("-");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct sigaction act;
	int asked = 0;

	exec(db, "DROP TABLE IF EXISTS piped; CREATE TABLE piped(a)");
	snprintf(to.sun_path, sizeof to.sun_path, "%s-walraft/node.sock", host.db);
	for (int i = 0; i < 100; i++) {
		int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (s >= 0 && connect(s, (struct sockaddr *)&to, sizeof to) == 0)
			asked += send(s, "status\n", 7, MSG_NOSIGNAL) == 7;
		close(s);
		exec(db, "INSERT INTO piped VALUES(1)");
	}
	sigaction(SIGPIPE, NULL, &act);
	saw("asked", "%d, SIGPIPE by default %d", asked, act.sa_handler == SIG_DFL);
	saw_sql(db, "rows", "SELECT count(*) FROM piped");
	host_close(db);
}

const struct host_case leave_cases[] = {
	{ "close-busy", close_busy }, { "zombie", zombie }, { "leave", leave }, { "cycles", cycles }, { "signals", signals }, { "broken-pipes", broken_pipes },
	{ 0 },
};
