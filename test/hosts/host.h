/* A host program of SQLite's, told by its standard input what to do; test/proc/hosts.py drives it. The same cases run on a plain database without
 * the module and on a replicated one, so that what they saw can be compared.
 *
 * Commands, a line each: load; open NAME PARAMETERS; sql NAME STATEMENTS; close NAME; run CASE [ARGUMENT]. Parameters are those of the database's URI, "-" for
 * none; a name with a colon or a slash in it is one of its own, opened as it is.
 * Answers go to the descriptor that --report names: any number of lines "saw TAB what TAB value", then "end". Nothing is ever written to the standard
 * output and error, which the driver checks. A condition that a case cannot go on without ends the process with a line "died TAB why". */
#ifndef HOSTS_HOST_H
#define HOSTS_HOST_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host {
	const char *db;     /* path of the database */
	const char *dir;    /* a directory for other files */
	const char *module; /* NULL: stock SQLite */
	bool is_default;    /* walraft is the default VFS; from the environment (HOSTS_DEFAULT; HOSTS_AUTO: databases set themselves up) */
	const char *vfs;    /* to be asked for by name; NULL: none */
	const char *arg;    /* of the case, "" none */
	int report;
	bool leave;         /* main returns when the case is over, whatever is open */
};
extern struct host host;

struct host_case {
	const char *name;
	void (*run)(void);
};
/* Ended by a case without a name. */
extern const struct host_case load_cases[], open_cases[], use_cases[], wal_cases[], copy_cases[], control_cases[], busy_cases[], thread_cases[],
	fork_cases[], leave_cases[];

/* An observation, of at most 3,000 bytes. */
void saw(const char *what, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void must(bool cond, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Loads the module by a connection to :memory:, which is closed again, and sets what the environment says. Nothing without a module. */
void host_load(void);
/* file:PATH?vfs=walraft&PARAMETERS, without the VFS for stock SQLite. At most cap bytes; returns buf. */
const char *host_uri(char *buf, size_t cap, const char *path, const char *params);
/* host.db by its URI. host_open: it must succeed; busy timeout 5 s. host_try: the code of sqlite3_open_v2, and the handle that it left. */
sqlite3 *host_open(const char *params);
int host_try(const char *params, int flags, sqlite3 **ret_db);
void host_close(sqlite3 *db);

/* Rows as "a|b;c|d", NULL as "NULL", blobs in hex; "error CODE: text" with the extended code. In buf, which is returned. */
const char *ask_into(char *buf, size_t cap, sqlite3 *db, const char *sql);
#define ASK_BYTES 3000
#define ask(db, sql) ask_into((char[ASK_BYTES]){ 0 }, ASK_BYTES, db, sql)
/* Statements that must succeed. */
void exec(sqlite3 *db, const char *sql);
int64_t ask_int(sqlite3 *db, const char *sql);
void saw_sql(sqlite3 *db, const char *what, const char *sql);
/* Code and, unless it is 0, text of a call that returned rc. */
void saw_rc(sqlite3 *db, const char *what, int rc);

int64_t now_ms(void);
/* Polls until cond(arg), at most for timeout_ms. */
bool until(bool (*cond)(void *), void *arg, int64_t timeout_ms);
void rest_ms(int ms);

/* A thread of a case. */
struct task;
struct task *task_start(void (*run)(void *), void *arg);
void task_join(struct task *t);

int count_fds(void);
int count_threads(void);

#endif
