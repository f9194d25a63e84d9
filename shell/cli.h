/* The `walraft` command. Each subcommand parses its own options, prints results on stdout (a table, or JSON with --json), progress and
 * errors on stderr, and returns the exit status: 0 done, 1 failed, 2 wrong usage. */
#ifndef SHELL_CLI_H
#define SHELL_CLI_H

#include "shell/node.h"

#include <sqlite3.h>
#include <stdio.h>

struct cli_opts {
	const char *db, *listen, *peer;
	char **args; /* behind the database's path */
	int n_args;
	bool json, insecure, no_listen, force, follow, help, learner, witness;
	unsigned timeout_s;
	unsigned long keep_log_bytes, promote_after_s; /* 0: not given */
	int priority, commit, elect; /* -1: not given */
};

/* allowed: letters of the options a command takes: l listen, n no-listen, p peer, j json, i insecure, t timeout, f force, w follow, L learner, W witness, k keep-log,
 * a promote-after, P priority, C commit, E elect; x: further arguments. l (or n, where that is allowed) and p are needed then, and checked. Prints the help of the command when asked for it.
 * -1: wrong, told on stderr. */
int cli_parse(int argc, char **argv, const char *allowed, struct cli_opts *ret_opts);
/* text as the inside of a JSON string. */
void cli_put_json(FILE *f, const char *text);
/* Prints "walraft: text" on stderr (with --json as {"error": ...}) and returns 1. */
int cli_fail(const struct cli_opts *o, const struct wire_err *err);
/* A bar that overwrites itself on a terminal, a line every few seconds elsewhere; nothing when all is done at once. done >= total ends it. */
void cli_progress(const char *what, uint64_t done, uint64_t total);
/* Loads the extension that is linked into this program into SQLite. */
int cli_sqlite_init(struct wire_err *err);
/* Blocks SIGINT, SIGTERM, SIGHUP in this and later threads, so that cli_wait_signal (or cli_signal_pending) gets them. */
void cli_signals_block(void);
int cli_wait_signal(unsigned timeout_ms); /* number of the signal, 0: time passed */

/* One SQL statement with the node's answer as ?1 (and text as ?2): its rows' first columns, one after the other. WIRE_CORRUPT when the answer is not understood. */
int cli_each_row(sqlite3 *db, const char *json, const char *text, const char *sql, void (*each)(void *ctx, const char *row), void *ctx, struct wire_err *err);
/* The table of members from a node's answer, on stdout; `node` is marked as the one on this host, whoever has answered. */
int cli_members_table(sqlite3 *db, const char *json, uint64_t node, struct wire_err *err);

int cli_init(int argc, char **argv);
int cli_join(int argc, char **argv);
int cli_serve(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_adopt(int argc, char **argv);
int cli_detach(int argc, char **argv);
int cli_events(int argc, char **argv);
int cli_members(int argc, char **argv);
int cli_add(int argc, char **argv);
int cli_promote(int argc, char **argv);
int cli_demote(int argc, char **argv);
int cli_remove(int argc, char **argv);
int cli_priority(int argc, char **argv);
int cli_quorum(int argc, char **argv);
int cli_change(int argc, char **argv);
int cli_transfer(int argc, char **argv);

#endif
