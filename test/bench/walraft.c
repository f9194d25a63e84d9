/* A node of walraft with its load in the same process, or plain SQLite for comparison. usage: walraft DB [MODULE]
 * With MODULE the database is opened by vfs=walraft, and this process is its node. Obeys lines of standard input, answers
 * with result lines and then "END":
 *   w THREADS SECONDS FIGURE          single-row inserts, one transaction each, a connection per thread
 *   r THREADS SECONDS FIGURE LEVEL    point reads; LEVEL linearizable, stale, or - (not set)
 *   load                              inserts by four threads until the process ends; answers once they run
 *   poll PID                          kills PID if not 0, then tries to insert until that works here or shows up from the
 *                                     other survivor; "at T" is the time of success in ms, "other" when it came from there
 *   exec SQL */
#include "common.h"
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>

#define THREADS_MAX 256
#define ROWS_READ 1000

struct run {
	char mode; /* w, r */
	const char *level;
	double from, end;
};

struct worker {
	pthread_t thread;
	const struct run *run;
	struct lat lat;
	unsigned seed;
	unsigned long errors;
};

static char uri[4096];
static const char *peer;

static void fail(sqlite3 *db, const char *what)
{
	fprintf(stderr, "bench: %s: %s (%d)\n", what, sqlite3_errmsg(db), sqlite3_extended_errcode(db));
	exit(1);
}

static sqlite3 *open_db(const char *level)
{
	sqlite3 *db;
	char sql[128];

	if (sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL))
		fail(db, "open");
	sqlite3_busy_timeout(db, 60000);
	snprintf(sql, sizeof sql, "PRAGMA walraft_read='%s'", level);
	if (strcmp(level, "-") && sqlite3_exec(db, sql, NULL, NULL, NULL))
		fail(db, sql);
	return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, char mode)
{
	sqlite3_stmt *st;

	/* At level lease a leader that was idle has none yet, and the read that fails makes it take one. */
	for (int i = 0; sqlite3_prepare_v2(db, mode == 'r' ? "SELECT v FROM t WHERE id=?" : "INSERT INTO t(v) VALUES(?)", -1, &st, NULL); i++) {
		if ((sqlite3_errcode(db) & 0xff) != SQLITE_IOERR || i == 1000)
			fail(db, "prepare");
		usleep(1000);
	}
	return st;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	sqlite3 *db = open_db(w->run->level);
	sqlite3_stmt *st = prepare(db, w->run->mode);
	bool reading = w->run->mode == 'r';
	char v[100];
	double t0;

	memset(v, 'x', sizeof v);
	while ((t0 = now_us()) < w->run->end) {
		int rc;

		if (reading)
			sqlite3_bind_int(st, 1, 1 + rand_r(&w->seed) % ROWS_READ);
		else
			sqlite3_bind_text(st, 1, v, sizeof v, SQLITE_STATIC);
		rc = sqlite3_step(st);
		if (rc != (reading ? SQLITE_ROW : SQLITE_DONE) && !w->errors++)
			fprintf(stderr, "bench: %s (%d)\n", sqlite3_errmsg(db), sqlite3_extended_errcode(db));
		sqlite3_reset(st);
		if (t0 >= w->run->from)
			lat_add(&w->lat, now_us() - t0);
	}
	sqlite3_finalize(st);
	sqlite3_close(db);
	return NULL;
}

/* Errors are reported beside the rate: a run that has some is not a measurement. */
static void run_load(char mode, int n, double seconds, const char *figure, const char *level)
{
	static struct worker w[THREADS_MAX];
	struct run run = { .mode = mode, .level = level, .from = now_us() + 0.5e6 };
	struct lat all = { 0 };
	unsigned long errors = 0;
	char name[96];

	if (n < 1 || n > THREADS_MAX)
		die("threads");
	run.end = run.from + seconds * 1e6;
	memset(w, 0, sizeof w);
	for (int i = 0; i < n; i++) {
		w[i].run = &run;
		w[i].seed = (unsigned)i;
		if (pthread_create(&w[i].thread, NULL, work, &w[i]))
			die("pthread_create");
	}
	for (int i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		for (size_t j = 0; j < w[i].lat.n; j++)
			lat_add(&all, (double)w[i].lat.v[j]);
		free(w[i].lat.v);
		errors += w[i].errors;
	}
	emit_run(peer, figure, &all, (now_us() - run.from) / 1e6);
	if (errors) {
		snprintf(name, sizeof name, "%s_errors", figure);
		emit(peer, name, (double)errors, "count");
	}
	free(all.v);
}

static void *load_for_ever(void *arg)
{
	static struct run run = { .mode = 'w', .level = "-", .from = 1e300, .end = 1e300 };
	struct worker *w = arg;

	w->run = &run;
	return work(w);
}

static void start_load(void)
{
	static struct worker w[4];
	pthread_t th;

	for (int i = 0; i < 4; i++)
		if (pthread_create(&th, NULL, load_for_ever, &w[i]))
			die("pthread_create");
}

static void poll_insert(pid_t victim)
{
	sqlite3 *db = open_db("linearizable"), *reader = open_db("stale");
	sqlite3_stmt *ins, *seen;
	bool other = false;
	double t0;

	sqlite3_exec(db, "PRAGMA walraft_timeout=1000", NULL, NULL, NULL);
	if (sqlite3_prepare_v2(db, "INSERT INTO failover(node) VALUES('survivor')", -1, &ins, NULL) ||
	    sqlite3_prepare_v2(reader, "SELECT count(*) FROM failover", -1, &seen, NULL))
		fail(db, "prepare");
	t0 = now_us();
	if (victim) {
		kill(victim, SIGKILL);
		printf("killed %.3f\n", t0 / 1e3);
	}
	while (sqlite3_step(ins) != SQLITE_DONE) {
		sqlite3_reset(ins);
		other = sqlite3_step(seen) == SQLITE_ROW && sqlite3_column_int(seen, 0) > 0;
		sqlite3_reset(seen);
		if (other)
			break;
		if (now_us() - t0 > 60e6) {
			fprintf(stderr, "bench: no write in 60 s: %s\n", sqlite3_errmsg(db));
			break;
		}
		pause_us(500);
	}
	if (other)
		puts("other");
	else
		printf("at %.3f\n", now_us() / 1e3);
	sqlite3_finalize(ins);
	sqlite3_finalize(seen);
	sqlite3_close(db);
	sqlite3_close(reader);
}

static void obey(sqlite3 *db, char *line)
{
	char figure[64], level[32];
	double seconds;
	int n;

	line[strcspn(line, "\n")] = 0;
	if (sscanf(line, "w %d %lf %63s", &n, &seconds, figure) == 3)
		run_load('w', n, seconds, figure, "-");
	else if (sscanf(line, "r %d %lf %63s %31s", &n, &seconds, figure, level) == 4)
		run_load('r', n, seconds, figure, level);
	else if (sscanf(line, "poll %d", &n) == 1)
		poll_insert((pid_t)n);
	else if (!strcmp(line, "load"))
		start_load();
	else if (!strncmp(line, "exec ", 5) && sqlite3_exec(db, line + 5, NULL, NULL, NULL))
		fail(db, line + 5);
	puts("END");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[65536], *why = NULL;
	sqlite3 *db;

	if (argc < 2)
		return 2;
	peer = argc > 2 ? "walraft" : "plain";
	snprintf(uri, sizeof uri, "file:%s%s", argv[1], argc > 2 ? "?vfs=walraft" : "");
	if (argc > 2) {
		if (sqlite3_open(":memory:", &db) || sqlite3_enable_load_extension(db, 1) ||
		    sqlite3_load_extension(db, argv[2], NULL, &why)) {
			fprintf(stderr, "bench: %s: %s\n", argv[2], why ? why : sqlite3_errmsg(db));
			return 1;
		}
		sqlite3_close(db);
	}
	db = open_db("-");
	if (sqlite3_exec(db, "SELECT 1 FROM sqlite_schema", NULL, NULL, NULL))
		fail(db, "first read");
	puts("END");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
		obey(db, line);
	sqlite3_close(db);
	return 0;
}
