/* Children: by fork alone, which share nothing with their parent's node, and by exec. */
#include "test/hosts/host.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs fn in a child; what became of it. */
static void in_child(const char *what, void (*fn)(sqlite3 *), sqlite3 *db)
{
	pid_t pid = fork();
	int status = 0;

	must(pid >= 0, "fork");
	if (pid == 0) {
		alarm(20);
		fn(db);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid, "wait");
	saw(what, "exit %d, signal %d", WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static sqlite3 *begin(void)
{
	sqlite3 *db;

	host_load();
	db = host_open("-");
	exec(db, "DROP TABLE IF EXISTS forked; CREATE TABLE forked(a)");
	return db;
}

static void use_inherited(sqlite3 *db)
{
	saw_sql(db, "child: read", "SELECT count(*) FROM forked");
	saw_sql(db, "child: write", "INSERT INTO forked VALUES(99)");
	saw_sql(db, "child: the reason", "SELECT walraft_error()");
	saw("child: close", "%d", sqlite3_close(db));
}

/* What is in the page cache is there for the child too, but nothing of it can be committed. */
static void commit_inherited(sqlite3 *db)
{
	saw_sql(db, "child in a transaction: commit", "INSERT INTO forked VALUES(98); COMMIT");
	saw_sql(db, "child in a transaction: the reason", "SELECT walraft_error()");
	saw_sql(db, "child in a transaction: afterwards", "SELECT count(*) FROM forked");
	saw("child in a transaction: close", "%d", sqlite3_close(db));
}

static void inherited(void)
{
	sqlite3 *db = begin();

	in_child("child", use_inherited, db);
	saw_sql(db, "parent", "INSERT INTO forked VALUES(1); SELECT a FROM forked");
	exec(db, "BEGIN; INSERT INTO forked VALUES(2)");
	in_child("child in a transaction", commit_inherited, db);
	saw_sql(db, "parent in a transaction", "INSERT INTO forked VALUES(3); COMMIT; SELECT a FROM forked");
	host_close(db);
	db = host_open("-");
	saw_sql(db, "opened again", "INSERT INTO forked VALUES(4); SELECT a FROM forked");
	host_close(db);
}

static const char *when = "child";

static void open_same(sqlite3 *inherited_db)
{
	sqlite3 *db;
	char key[100];
	int rc = host_try("-", SQLITE_OPEN_READWRITE, &db);

	(void)inherited_db;
	snprintf(key, sizeof key, "%s: open", when);
	saw(key, "%d: %s", rc, sqlite3_errmsg(db));
	snprintf(key, sizeof key, "%s: write", when);
	if (rc == SQLITE_OK)
		saw_sql(db, key, "INSERT INTO forked VALUES(99)");
	sqlite3_close(db);
}

static void same(void)
{
	sqlite3 *db = begin();

	saw("parent's id", "%d", (int)getpid());
	in_child("child", open_same, db);
	saw_sql(db, "parent", "INSERT INTO forked VALUES(1); SELECT a FROM forked");
	host_close(db);
	when = "child after the close";
	in_child("child after the close", open_same, NULL);
	db = host_open("-");
	saw_sql(db, "rows", "SELECT count(*) FROM forked");
	host_close(db);
}

static bool is_orphan(void *p)
{
	return getppid() != *(pid_t *)p;
}

/* The child reports when the parent has ended, which its driver brings about. */
static void orphan(void)
{
	sqlite3 *db = begin();
	pid_t parent = getpid(), pid = fork();

	must(pid >= 0, "fork");
	if (pid == 0) {
		alarm(60);
		if (until(is_orphan, &parent, 30000))
			open_same(db);
		saw("child: inherited", "%s", ask(db, "SELECT count(*) FROM forked"));
		_exit(0);
	}
	saw("child's id", "%d", (int)pid);
}

static void open_other(sqlite3 *inherited_db)
{
	sqlite3 *db = NULL;
	char uri[5000], key[100];
	int rc = sqlite3_open_v2(host_uri(uri, sizeof uri, host.arg, "-"), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL);

	(void)inherited_db;
	snprintf(key, sizeof key, "%s: open", when);
	saw(key, "%d: %s", rc, sqlite3_errmsg(db));
	snprintf(key, sizeof key, "%s: write", when);
	if (rc == SQLITE_OK)
		saw_sql(db, key, "CREATE TABLE IF NOT EXISTS forked(a); INSERT INTO forked VALUES(1); SELECT walraft_position() > '', count(*) > 0 FROM forked");
	sqlite3_close(db);
}

/* host.arg: another database. */
static void other(void)
{
	sqlite3 *db = begin();

	in_child("child", open_other, db);
	saw_sql(db, "parent", "INSERT INTO forked VALUES(1); SELECT count(*) FROM forked");
	host_close(db);
	when = "child after the close";
	in_child("child after the close", open_other, NULL);
	when = "parent later";
	open_other(NULL);
}

/* Nothing was open before. */
static void fresh(void)
{
	host_load();
	in_child("child", open_same, NULL);
}

/* ---- exec ---- */

static void list_fds(const char *what)
{
	char fd[20], self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	pid_t pid;
	int status;

	must(n > 0, "/proc/self/exe");
	self[n] = 0;
	snprintf(fd, sizeof fd, "%d", host.report);
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		execl(self, "host", "--fds", fd, what, (char *)NULL);
		_exit(9);
	}
	must(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0, "exec");
}

static void exec_list(void)
{
	sqlite3 *db, *other_db;

	host_load();
	list_fds("before");
	db = host_open("-");
	exec(db, "DROP TABLE IF EXISTS forked; CREATE TABLE forked(a)");
	other_db = host_open("-");
	exec(other_db, "BEGIN; SELECT * FROM forked");
	exec(db, "PRAGMA cache_size=2; BEGIN; INSERT INTO forked VALUES(zeroblob(8000000))");
	list_fds("inside");
	exec(db, "COMMIT");
	exec(other_db, "COMMIT");
	saw("system()", "%d", system("exit 7") >> 8);
	saw_sql(db, "parent", "INSERT INTO forked VALUES(1); SELECT count(*) FROM forked");
	exec(db, "DELETE FROM forked");
	host_close(db);
	host_close(other_db);
}

const struct host_case fork_cases[] = {
	{ "fork-inherited", inherited }, { "fork-same", same }, { "fork-orphan", orphan }, { "fork-other", other }, { "fork-fresh", fresh }, { "exec-list", exec_list },
	{ 0 },
};
