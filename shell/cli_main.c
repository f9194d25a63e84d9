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
	const char *name, *args, *what, *more;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "init", "DB --listen URL | --no-listen [--insecure] [--json]", "make an existing database the first node of a new cluster",
	  "The database stays where it is, and its content as it is; a rollback-journal database is put into WAL mode. No program\n"
	  "may have it open meanwhile. What the node needs is kept in DB-walraft/ beside it. With --no-listen the node has no\n"
	  "address, and its cluster stays one of one node. A node without an address, also one that a program made by\n"
	  "walraft_auto, gets it by init with --listen; then others can join it.\n",
	  cli_init },
	{ "join", "DB --listen URL --peer URL [--learner | --witness [--keep-log SIZE] [--promote-after S]] [--priority N] [--insecure] [--timeout S] [--json]",
	  "make a replica of a running cluster's database, and a voter of it",
	  "DB is the new file: it must not exist, its directory must. A join that was interrupted is finished by the same\n"
	  "command. A node counts for the quorum from the end of join on, so start it at once.\n"
	  "With --learner it gets all writes and serves reads, but does not count; walraft promote makes it a voter. A node whose\n"
	  "address was named by walraft add becomes that member, with the kind and priority that were given there.\n"
	  "With --witness it becomes one that votes and keeps the log but has no database: DB is not made, only DB-walraft/, and\n"
	  "walraft serve DB runs it. Two data nodes and a witness go on when any one of the three is lost. It keeps what a data\n"
	  "node that is away lacks, 1 GiB at most unless --keep-log says otherwise (64M, 4G); at the limit it takes no more. With\n"
	  "--promote-after it becomes a full replica by itself once a data node is silent for so many seconds; else walraft\n"
	  "promote makes it one.\n",
	  cli_join },
	{ "serve", "DB [--json]", "run the node of a database until SIGTERM or SIGINT",
	  "For replicas that no application has open; an application that opens file:DB?vfs=walraft is the node itself.\n"
	  "With --json, a line with path, url and pid goes to standard output once the node runs.\n",
	  cli_serve },
	{ "status", "DB [--json]", "show the running node of a database and its members",
	  "Asks the node's process on this host, serve or application. 'match' and 'seen' of others are known to the leader only.\n",
	  cli_status },
	{ "members", "DB [--json]", "show the members of the cluster as its leader sees them",
	  "Works on the host of any member whose node runs. 'lag' is in entries; 'rounds' are those of a learner that catches up.\n"
	  "States: leader; follower; rising: a learner on its way to be a voter; awaited: added, but has not joined yet; unreachable:\n"
	  "has not answered the leader lately; lacks image: needs entries that nobody has any more, join it anew;\n"
	  "leaving: on its way out, in a change that is not over.\n",
	  cli_members },
	{ "add", "DB URL [--learner | --witness] [--priority N] [--timeout S] [--json]", "name a member that is to come",
	  "It gets an id, which is printed, and is shown as awaited until walraft join --listen URL was run on its host. It counts for\n"
	  "nothing until then, and can be removed. Not needed for join; it settles kind and priority beforehand.\n",
	  cli_add },
	{ "promote", "DB ID... [--timeout S] [--json]", "make voters of learners, full replicas of witnesses",
	  "Waits until they have caught up. A learner that does not keep up with the writes is refused. A witness gets a database.\n", cli_promote },
	{ "demote", "DB ID... [--timeout S] [--json]", "make learners of voters",
	  "If the leader is one of them, another voter leads first.\n", cli_demote },
	{ "remove", "DB ID... [--timeout S] [--json]", "remove members",
	  "Also ones that are gone for good, and the leader: another voter leads first. Refused when those that are left and answer are no\n"
	  "quorum: the cluster would stand still. What a removed member has gets no newer; walraft detach makes its file a plain one.\n",
	  cli_remove },
	{ "priority", "DB ID N [--timeout S] [--json]", "set who should lead: 0 (only while nobody else can) to 255",
	  "Members have 100 if nothing else was said. The leader hands over to one of higher priority once that has caught up; but for\n"
	  "a minute after walraft transfer to a named member it leaves leadership there.\n", cli_priority },
	{ "quorum", "DB [--commit N] [--elect N] [--timeout S] [--json]", "set how many voters a commit and an election take",
	  "0 is a majority. Allowed is what makes any two quorums that must meet do so: N for elections may not be under a majority, and\n"
	  "both together must be more than the voters. With commits by less than a majority, what was acknowledged is lost when those few\n"
	  "voters are.\n", cli_quorum },
	{ "change", "DB WHAT=ID,ID... ... [--timeout S] [--json]", "change several members at once, as one change",
	  "WHAT is promote, demote or remove: promote=D,E,F remove=A,B,C replaces all voters in one step, in which both the old and the new\n"
	  "majority have every write.\n", cli_change },
	{ "transfer", "DB [ID] [--timeout S] [--json]", "hand the leadership over",
	  "To that voter, or to the one that suits best. The transaction under way ends first (an idle one is rolled back after 2 s), later\n"
	  "ones wait with their busy timeouts; it takes some 20 ms.\n", cli_transfer },
	{ "adopt", "DB [--json]", "take a file that was changed outside walraft as it is",
	  "For a database that is its cluster's only member, and is refused because a program without walraft wrote to it while its\n"
	  "node was stopped, or because it was put back from a copy. The file as it is becomes the newest state. What the node had\n"
	  "committed and the file does not have is gone. A database that its node accepts is left alone.\n",
	  cli_adopt },
	{ "detach", "DB [--force] [--timeout S] [--json]", "make a replicated database a plain one again",
	  "No program may have it open meanwhile. All that is committed is put into the file first, which takes a quorum where\n"
	  "there are other members. DB-walraft/ is removed. With --force also for a database whose cluster has other members, which\n"
	  "go on counting this one for their quorum; without a quorum it then has what is known here to be committed; and a file\n"
	  "that its node refuses is left as it is.\n",
	  cli_detach },
	{ "events", "DB [--follow] [--json]", "show what the running node of a database decided lately, and why",
	  "The latest hundred events, and before them the latest hundred that are no routine: elections, members, transfers, repairs.\n"
	  "Routine is messages, commits, writes of the journal, reads. With --follow also those that come, until SIGTERM or SIGINT.\n"
	  "With --json one object a line. How often each came is in the status, under \"events\".\n",
	  cli_events },
};

static const struct {
	char letter;
	const char *name, *what;
} options[] = {
	{ 'l', "--listen URL", "this node's own address, at which the others reach it" },
	{ 'n', "--no-listen", "no address: no other node can join" },
	{ 'p', "--peer URL", "address of any running member" },
	{ 'L', "--learner", "a learner that stays one, until it is promoted" },
	{ 'P', "--priority N", "for leading, 0 to 255 (100)" },
	{ 'C', "--commit N", "voters that must have an entry before it is committed; 0: a majority" },
	{ 'E', "--elect N", "voters that must elect a leader; 0: a majority" },
	{ 'i', "--insecure", "accept an address beyond loopback although links are not encrypted" },
	{ 'f', "--force", "do it although other members count on this one" },
	{ 'w', "--follow", "go on with what comes" },
	{ 'W', "--witness", "vote and keep the log, have no database" },
	{ 'k', "--keep-log SIZE", "of a witness: the most that its log may hold (1G)" },
	{ 'a', "--promote-after S", "of a witness: become a full replica when a data node is silent for S seconds" },
	{ 't', "--timeout S", "give up after so many seconds (30) without an end, or when nothing moved" },
	{ 'j', "--json", "results as JSON, and errors but those of usage" },
};

static void usage(FILE *f)
{
	fprintf(f, "walraft %s: SQLite, replicated\n\nusage:\n", PACKAGE_VERSION);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		fprintf(f, "  walraft %s %s\n      %s\n", commands[i].name, commands[i].args, commands[i].what);
	fprintf(f, "  walraft COMMAND --help\n  walraft --version | --help\n\n"
	           "URL is tcp://HOST:PORT. Exit status: 0 done, 1 failed, 2 wrong usage.\n"
	           "In programs: load the extension walraft, then open file:DB?vfs=walraft\n");
}

static void usage_of(const char *name, const char *allowed)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(name, commands[i].name))
			printf("usage: walraft %s %s\n\n%c%s.\n%s\n", name, commands[i].args, commands[i].what[0] - 'a' + 'A',
			       commands[i].what + 1, commands[i].more);
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (strchr(allowed, options[i].letter))
			printf("  %-17s %s\n", options[i].name, options[i].what);
	if (strchr(allowed, 'l'))
		printf("\nURL is tcp://HOST:PORT, for instance tcp://127.0.0.1:7401\n");
}

/* URL that may be listened at: well formed, one that others can dial, loopback unless insecure. */
static int check_listen(const struct cli_opts *o, bool may_lack, struct wire_err *err)
{
	bool loopback;
	int rc;

	if (o->listen && o->no_listen)
		return wire_fail(err, WIRE_INVALID, "--listen and --no-listen contradict each other: give one of them");
	if (o->no_listen)
		return WIRE_OK;
	if (!o->listen)
		return wire_fail(err, WIRE_INVALID, "--listen is missing: the URL other nodes reach this one at, like tcp://127.0.0.1:7401%s",
		                 may_lack ? "; or --no-listen, for a node that no other shall join" : "");
	rc = wire_url_check(o->listen, &loopback, err);
	if (!rc && (!strncmp(o->listen, "tcp://0.0.0.0:", 14) || !strncmp(o->listen, "tcp://[::]:", 11)))
		return wire_fail(err, WIRE_INVALID, "%s stands for all addresses of this host, but --listen is what the other nodes dial: give one of them",
		                 o->listen);
	if (!rc && !loopback && !o->insecure)
		rc = wire_fail(err, WIRE_PERM, "%s is not a loopback address, and links between nodes are not encrypted yet: anyone on that network could read and change the database. Give --insecure if you accept that",
		               o->listen);
	return rc;
}

static int check_urls(const struct cli_opts *o, const char *allowed, struct wire_err *err)
{
	bool loopback;
	int rc = strchr(allowed, 'l') ? check_listen(o, strchr(allowed, 'n') != NULL, err) : WIRE_OK;

	if (rc || !strchr(allowed, 'p'))
		return rc;
	if (!o->peer)
		return wire_fail(err, WIRE_INVALID, "--peer is missing: the URL of any running member, like tcp://127.0.0.1:7401");
	if (!strcmp(o->peer, o->listen))
		return wire_fail(err, WIRE_INVALID, "--peer is the address of another node, one that runs: not %s, this node's own", o->listen);
	return wire_url_check(o->peer, &loopback, err);
}

static int parse_byte(const char *command, const char *option, const char *text, int *ret_value)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || v > 255) {
		fprintf(stderr, "walraft %s: --%s takes a number, 0 to 255, not '%s'\n", command, option, text);
		return -1;
	}
	*ret_value = (int)v;
	return 0;
}

static int parse_timeout(const char *command, const char *text, unsigned *ret_s)
{
	char *end;
	unsigned long s = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || !s || s > 86400) {
		fprintf(stderr, "walraft %s: --timeout takes seconds, 1 to 86400, not '%s'\n", command, text);
		return -1;
	}
	*ret_s = (unsigned)s;
	return 0;
}

static int parse_number(const char *command, const char *what, const char *text, unsigned long max, unsigned long *ret_n)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || !n || n > max) {
		fprintf(stderr, "walraft %s: %s, 1 to %lu, not '%s'\n", command, what, max, text);
		return -1;
	}
	*ret_n = n;
	return 0;
}

/* Bytes, or with K, M, G behind the number. */
static int parse_size(const char *command, const char *text, unsigned long *ret_bytes)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10), unit = 1;

	if (*end && !end[1])
		unit = *end == 'K' ? 1ul << 10 : *end == 'M' ? 1ul << 20 : *end == 'G' ? 1ul << 30 : 0;
	else if (*end)
		unit = 0;
	if (text[0] < '0' || text[0] > '9' || !unit || n > SHELL_KEEP_LOG_MAX / unit || n * unit < SHELL_KEEP_LOG_MIN) {
		fprintf(stderr, "walraft %s: --keep-log takes a size like 64M or 2G, from %uK to less than 4G, not '%s'\n", command, SHELL_KEEP_LOG_MIN >> 10, text);
		return -1;
	}
	*ret_bytes = n * unit;
	return 0;
}

int cli_parse(int argc, char **argv, const char *allowed, struct cli_opts *ret_opts)
{
	static const struct option longs[] = {
		{ "listen", required_argument, NULL, 'l' }, { "peer", required_argument, NULL, 'p' }, { "json", no_argument, NULL, 'j' },
		{ "insecure", no_argument, NULL, 'i' },     { "timeout", required_argument, NULL, 't' }, { "help", no_argument, NULL, 'h' },
		{ "witness", no_argument, NULL, 'W' },  { "keep-log", required_argument, NULL, 'k' }, { "promote-after", required_argument, NULL, 'a' },
		{ "force", no_argument, NULL, 'f' },    { "no-listen", no_argument, NULL, 'n' },
		{ "follow", no_argument, NULL, 'w' },
		{ "learner", no_argument, NULL, 'L' },  { "priority", required_argument, NULL, 'P' },
		{ "commit", required_argument, NULL, 'C' }, { "elect", required_argument, NULL, 'E' },
		{ NULL, 0, NULL, 0 },
	};
	struct cli_opts o = { .timeout_s = 30, .priority = -1, .commit = -1, .elect = -1 };
	const char *name = argv[0];
	char full[32];
	struct wire_err err;
	int c, which = 0;

	snprintf(full, sizeof full, "walraft %s", name);
	argv[0] = full; /* what getopt calls us in its messages */
	optind = 0;
	while ((c = getopt_long(argc, argv, "h", longs, &which)) != -1) {
		if (c == '?')
			goto wrong; /* getopt has told */
		if (c != 'h' && !strchr(allowed, c)) {
			fprintf(stderr, "%s: it has no option --%s\n", full, longs[which].name);
			goto wrong;
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
		case 'n':
			o.no_listen = true;
			break;
		case 'f':
			o.force = true;
			break;
		case 'w':
			o.follow = true;
			break;
		case 'W':
			o.witness = true;
			break;
		case 'k':
			if (parse_size(name, optarg, &o.keep_log_bytes))
				goto wrong;
			break;
		case 'a':
			if (parse_number(name, "--promote-after takes seconds", optarg, SHELL_PROMOTE_AFTER_MAX, &o.promote_after_s))
				goto wrong;
			break;
		case 'L':
			o.learner = true;
			break;
		case 'P':
		case 'C':
		case 'E':
			if (parse_byte(name, longs[which].name, optarg, c == 'P' ? &o.priority : c == 'C' ? &o.commit : &o.elect))
				goto wrong;
			break;
		case 't':
			if (parse_timeout(name, optarg, &o.timeout_s))
				goto wrong;
			break;
		default:
			o.help = true;
		}
	}
	argv[0] = (char *)name;
	if (o.help) {
		usage_of(name, allowed);
		*ret_opts = o;
		return 0;
	}
	o.args = argv + optind + 1;
	o.n_args = argc - optind - 1;
	if (optind == argc || (o.n_args && !strchr(allowed, 'x'))) {
		if (optind == argc)
			fprintf(stderr, "%s: which database? give its path\n", full);
		else
			fprintf(stderr, "%s: one database, please; '%s' is an extra argument\n", full, argv[optind + 1]);
		goto wrong;
	}
	o.db = argv[optind];
	if (!o.witness && (o.keep_log_bytes || o.promote_after_s)) {
		fprintf(stderr, "%s: --keep-log and --promote-after are for a witness: give --witness too\n", full);
		goto wrong;
	}
	if (check_urls(&o, allowed, &err)) {
		cli_fail(&o, &err);
		return -1;
	}
	*ret_opts = o;
	return 0;
wrong:
	argv[0] = (char *)name;
	fprintf(stderr, "see walraft %s --help\n", name);
	return -1;
}

void cli_put_json(FILE *f, const char *s)
{
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			fprintf(f, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, f);
}

static bool line_is_open; /* a progress bar stands on the terminal's last line */

int cli_fail(const struct cli_opts *o, const struct wire_err *err)
{
	if (line_is_open)
		fputc('\n', stderr);
	if (o && o->json) {
		fprintf(stderr, "{\"error\":\"");
		cli_put_json(stderr, err->text);
		fprintf(stderr, "\",\"code\":\"%s\"}\n", wire_code_text(err->code));
	} else {
		fprintf(stderr, "walraft: %s\n", err->text);
	}
	return 1;
}

static double seconds(const struct timespec *from, const struct timespec *to)
{
	return (double)(to->tv_sec - from->tv_sec) + (double)(to->tv_nsec - from->tv_nsec) / 1e9;
}

void cli_progress(const char *what, uint64_t done, uint64_t total)
{
	enum { BAR = 30 };
	static const char hashes[] = "##############################", dots[] = "..............................";
	static struct timespec last, start;
	static uint64_t before;
	static bool shown;
	struct timespec now;
	double elapsed, mib = (double)done / 1048576, of = (double)total / 1048576, part;
	bool tty = isatty(2), end = done >= total;
	int full;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (done < before || !start.tv_sec)
		start = last = now;
	before = done;
	elapsed = seconds(&start, &now);
	if (!end && (seconds(&last, &now) < (tty ? 0.2 : 5) || !done))
		return;
	last = now;
	if (!end) {
		part = (double)done / (double)total;
		full = (int)(part * BAR);
		if (tty)
			fprintf(stderr, "\r%s [%.*s%.*s] ", what, full, hashes, BAR - full, dots);
		else
			fprintf(stderr, "%s: ", what);
		fprintf(stderr, "%.1f %%, %.1f of %.1f MiB, %.1f MiB/s, %.0f s left%s", 100 * part, mib, of, mib / elapsed,
		        elapsed * (1 - part) / part, tty ? "\033[K" : "\n");
		shown = true;
		line_is_open = tty;
		return;
	}
	if (shown)
		fprintf(stderr, "%s%s: %.1f MiB in %.1f s, %.1f MiB/s%s\n", tty ? "\r" : "", what, mib, elapsed, mib / elapsed, tty ? "\033[K" : "");
	start.tv_sec = 0;
	before = 0;
	shown = line_is_open = false;
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

static int dispatch(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V") || !strcmp(argv[1], "version")) {
		printf("walraft %s (SQLite %s)\n", PACKAGE_VERSION, sqlite3_libversion());
		return 0;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || (!strcmp(argv[1], "help") && argc == 2)) {
		usage(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "help")) { /* help COMMAND is COMMAND --help */
		argv[1] = argv[2];
		argv[2] = "--help";
		argc = 3;
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "walraft: no command '%s'; see walraft --help\n", argv[1]);
	return 2;
}

int main(int argc, char **argv)
{
	int status = dispatch(argc, argv);

	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "walraft: cannot write the result: %s\n", strerror(errno));
		return status ? status : 1;
	}
	return status;
}
