#include "shell/cli.h"
#include "shell/ext.h"
#include "wire/link.h"
#include <sqlite3.h>

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "0.1.0"
#endif

static const struct command {
	const char *name, *args, *what;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "init", "DB --listen URL [--insecure] [--json]", "make an existing database the first node of a new cluster", cli_init },
	{ "join", "DB --listen URL --peer URL [--insecure] [--timeout S] [--json]", "make a replica of a running cluster's database, and a voter of it", cli_join },
	{ "serve", "DB", "run the node of a database until SIGTERM or SIGINT", cli_serve },
	{ "status", "DB [--json]", "show the running node of a database and its members", cli_status },
};

static void usage(FILE *f)
{
	fprintf(f, "walraft %s: SQLite, replicated\n\nusage:\n", PACKAGE_VERSION);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		fprintf(f, "  walraft %s %s\n      %s\n", commands[i].name, commands[i].args, commands[i].what);
	fprintf(f, "  walraft --version | --help\n\nURL is tcp://HOST:PORT. In programs: load the extension walraft, then open file:DB?vfs=walraft\n");
}

int cli_parse(int argc, char **argv, const char *allowed, struct cli_opts *ret_opts)
{
	static const struct option longs[] = {
		{ "listen", required_argument, NULL, 'l' }, { "peer", required_argument, NULL, 'p' }, { "json", no_argument, NULL, 'j' },
		{ "insecure", no_argument, NULL, 'i' },     { "timeout", required_argument, NULL, 't' }, { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct cli_opts o = { .timeout_s = 30 };
	char *end;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c == '?')
			return -1; /* getopt has told */
		if (c != 'h' && !strchr(allowed, c)) {
			fprintf(stderr, "walraft %s: this option does not belong to it; see walraft --help\n", argv[0]);
			return -1;
		}
		switch (c) {
		case 'l':
			o.listen = optarg;
			break;
		case 'p':
			o.peer = optarg;
			break;
		case 'j':
			o.json = true;
			break;
		case 'i':
			o.insecure = true;
			break;
		case 't':
			o.timeout_s = (unsigned)strtoul(optarg, &end, 10);
			if (*end || !o.timeout_s || o.timeout_s > 86400) {
				fprintf(stderr, "walraft %s: --timeout takes seconds, 1 to 86400, not '%s'\n", argv[0], optarg);
				return -1;
			}
			break;
		default:
			o.help = true;
		}
	}
	if (!o.help && optind != argc - 1) {
		if (optind == argc)
			fprintf(stderr, "walraft %s: which database? give its path\n", argv[0]);
		else
			fprintf(stderr, "walraft %s: one database, please; '%s' is an extra argument\n", argv[0], argv[optind + 1]);
		return -1;
	}
	o.db = argv[optind];
	if (o.help)
		usage(stdout);
	*ret_opts = o;
	return 0;
}

static void put_json(FILE *f, const char *s)
{
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			fprintf(f, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, f);
}

int cli_fail(const struct cli_opts *o, const struct wire_err *err)
{
	if (o && o->json) {
		fprintf(stderr, "{\"error\":\"");
		put_json(stderr, err->text);
		fprintf(stderr, "\",\"code\":\"%s\"}\n", wire_code_text(err->code));
	} else {
		fprintf(stderr, "walraft: %s\n", err->text);
	}
	return 1;
}

void cli_progress(const char *what, uint64_t done, uint64_t total)
{
	static struct timespec last, start;
	static uint64_t shown;
	struct timespec now;
	double since, elapsed, mb = (double)done / 1048576, left;
	bool tty = isatty(2);

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (done < shown || !start.tv_sec)
		start = last = now;
	shown = done;
	since = (double)(now.tv_sec - last.tv_sec) + (double)(now.tv_nsec - last.tv_nsec) / 1e9;
	elapsed = (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9;
	if (done < total && since < (tty ? 0.2 : 5))
		return;
	last = now;
	left = done && done < total ? elapsed * (double)(total - done) / (double)done : 0;
	fprintf(stderr, "%s%s: %5.1f %% %.1f of %.1f MiB, %.1f MiB/s, %.0f s left%s", tty ? "\r" : "", what,
	        total ? 100.0 * (double)done / (double)total : 100, mb, (double)total / 1048576, elapsed > 0.01 ? mb / elapsed : 0, left,
	        tty && done < total ? "\033[K" : "\n");
	if (done >= total)
		start.tv_sec = 0, shown = 0;
}

int cli_check_listen(const struct cli_opts *o, struct wire_err *err)
{
	bool loopback;
	int rc;

	if (!o->listen)
		return wire_fail(err, WIRE_INVALID, "--listen is missing: the URL other nodes reach this one at, like tcp://127.0.0.1:7401");
	rc = wire_url_check(o->listen, &loopback, err);
	if (!rc && !loopback && !o->insecure)
		rc = wire_fail(err, WIRE_PERM, "%s is not a loopback address, and links between nodes are not encrypted yet: anyone on that network could read and change the database. Give --insecure if you accept that",
		               o->listen);
	return rc;
}

int cli_sqlite_init(struct wire_err *err)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_auto_extension((void (*)(void))sqlite3_walraft_init);

	/* The first connection runs the entry point, as loading would. */
	if (!rc)
		rc = sqlite3_open(":memory:", &db);
	if (rc)
		wire_fail(err, WIRE_INTERNAL, "SQLite does not start: %s", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
	sqlite3_close(db);
	if (!rc)
		sqlite3_cancel_auto_extension((void (*)(void))sqlite3_walraft_init);
	return rc ? WIRE_INTERNAL : WIRE_OK;
}

static sigset_t waited;

void cli_signals_block(void)
{
	sigemptyset(&waited);
	sigaddset(&waited, SIGINT);
	sigaddset(&waited, SIGTERM);
	sigaddset(&waited, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &waited, NULL);
}

int cli_wait_signal(unsigned timeout_ms)
{
	struct timespec t = { .tv_sec = timeout_ms / 1000, .tv_nsec = (long)(timeout_ms % 1000) * 1000000 };
	int sig = sigtimedwait(&waited, NULL, &t);

	return sig > 0 ? sig : 0;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
		printf("walraft %s (SQLite %s)\n", PACKAGE_VERSION, sqlite3_libversion());
		return 0;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "walraft: no command '%s'; see walraft --help\n", argv[1]);
	return 2;
}
