/* The command: lin [options] FILE|- */
#include "test/lin/history.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_LINEARIZABLE, EXIT_VIOLATION, EXIT_USAGE, EXIT_UNDECIDED };

struct options {
	const char *html, *file;
	bool json, by_lines;
	struct lin_limits limits;
};

static const char usage_text[] =
        "usage: lin [--html FILE] [--json] [--lines] [--states N] [--time S] FILE|-\n"
        "Checks whether a history of operations is linearizable. FILE has one JSON object a line; - is standard input.\n"
        "  --html FILE  write a page with pictures of the history around violations\n"
        "  --json       the result as JSON\n"
        "  --lines      the order of lines counts, although they have times\n"
        "  --states N   look at no more than N states for a key (50000000)\n"
        "  --time S     take no more than S seconds\n"
        "Exit status: 0 linearizable, 1 violation, 2 bad input or wrong usage, 3 undecided because of a limit.\n";

/* What went wrong, for standard error; as JSON on standard output too, where a program reads that. */
static int fail(const struct options *o, const char *text)
{
	struct wire_buf b = WIRE_BUF_INIT;

	fprintf(stderr, "lin: %s\n", text);
	if (o->json) {
		lin_put_string(&b, text, strlen(text));
		if (!b.failed)
			printf("{\"error\":%.*s}\n", (int)b.len, (const char *)b.data);
	}
	wire_buf_free(&b);
	return EXIT_USAGE;
}

static bool number(const char *text, uint64_t max, uint64_t *ret_n)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || n == 0 || n > max)
		return false;
	*ret_n = n;
	return true;
}

static int wrong(const char *what, const char *arg)
{
	fprintf(stderr, "lin: %s%s\n%s", what, arg, usage_text);
	return EXIT_USAGE;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "html", required_argument, NULL, 'h' },  { "json", no_argument, NULL, 'j' },
		{ "lines", no_argument, NULL, 'l' },       { "states", required_argument, NULL, 's' },
		{ "time", required_argument, NULL, 't' },  { "help", no_argument, NULL, '?' + 256 },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t seconds;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'h')
			o->html = optarg;
		else if (c == 'j')
			o->json = true;
		else if (c == 'l')
			o->by_lines = true;
		else if (c == 's' && !number(optarg, UINT64_MAX / 2, &o->limits.states))
			return wrong("--states needs a number above 0, not ", optarg);
		else if (c == 't' && !number(optarg, 1000000, &seconds))
			return wrong("--time needs seconds, from 1 to 1000000, not ", optarg);
		else if (c == 't')
			o->limits.time_ms = seconds * 1000;
		else if (c == '?' + 256)
			return fputs(usage_text, stdout) < 0 ? EXIT_USAGE : EXIT_LINEARIZABLE;
		else if (c == '?')
			return wrong("see above", "");
	}
	if (optind + 1 != argc)
		return wrong(optind == argc ? "there is no FILE" : "there is more than one FILE", "");
	o->file = argv[optind];
	return -1;
}

static int read_input(const struct options *o, struct lin_history **ret_h, struct wire_err *err)
{
	bool standard = strcmp(o->file, "-") == 0;
	FILE *f = standard ? stdin : fopen(o->file, "r");
	int rc;

	if (!f)
		return wire_fail_errno(err, errno, "cannot open %s", o->file);
	rc = lin_history_read(ret_h, f, standard ? "standard input" : o->file, o->by_lines, err);
	if (!standard)
		fclose(f);
	return rc;
}

static bool write_all(FILE *f, const struct wire_buf *b)
{
	return !b->failed && fwrite(b->data, 1, b->len, f) == b->len && fflush(f) == 0;
}

/* False after it said why. */
static bool show(const struct options *o, const struct lin_history *h, const struct lin_report *r, FILE *html)
{
	struct wire_buf b = WIRE_BUF_INIT;
	char text[512];
	bool ok;

	if (o->json)
		lin_put_json(h, r, &b);
	else
		lin_put_table(h, r, &b);
	ok = write_all(stdout, &b);
	if (!ok)
		fail(o, b.failed ? "no memory for the report" : "cannot write to standard output");
	wire_buf_reset(&b);
	if (html) {
		lin_put_html(h, r, o->file, &b);
		if (!write_all(html, &b)) {
			snprintf(text, sizeof text, "cannot write %s: %s", o->html, b.failed ? "no memory" : strerror(errno));
			fail(o, text);
			ok = false;
		}
	}
	wire_buf_free(&b);
	return ok;
}

int main(int argc, char **argv)
{
	static const int statuses[] = { EXIT_LINEARIZABLE, EXIT_VIOLATION, EXIT_UNDECIDED };
	struct options o = { 0 };
	struct lin_history *h = NULL;
	struct lin_report *r = NULL;
	struct wire_err err;
	FILE *html = NULL;
	int status = parse(argc, argv, &o);

	if (status >= 0)
		return status;
	/* Before a long search, not after it. */
	html = o.html ? fopen(o.html, "w") : NULL;
	if (o.html && !html) {
		wire_fail_errno(&err, errno, "cannot write %s", o.html);
		return fail(&o, err.text);
	}
	if (read_input(&o, &h, &err) || lin_check(h, &o.limits, &r, &err)) {
		status = fail(&o, err.text);
	} else {
		status = statuses[r->verdict];
		/* A violation is one, told well or not. */
		if (!show(&o, h, r, html) && status != EXIT_VIOLATION)
			status = EXIT_USAGE;
	}
	if (html)
		fclose(html);
	lin_report_free(r);
	lin_history_free(h);
	return status;
}
