#include "shell/cli.h"
#include <sqlite3.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define POLL_MS 200

static const char json_sql[] = "SELECT value FROM json_each(?1, '$.events')";
static const char text_sql[] =
        "SELECT printf('%s.%03d  %-26s', strftime('%H:%M:%S', t / 1000000, 'unixepoch', 'localtime'), t / 1000 % 1000, e->>'event') ||"
        " (SELECT coalesce(group_concat('  ' || key || ' ' || atom, ''), '') FROM json_each(e) WHERE key NOT IN ('seq', 'time_us', 'event'))"
        " FROM (SELECT value AS e, value->>'time_us' AS t FROM json_each(?1, '$.events'))";
static const char next_sql[] = "SELECT ?1->>'next'";
static const char missed_sql[] = "SELECT ?1->>'missed' WHERE ?1->>'missed' > 0";

static int column(sqlite3 *db, const char *json, const char *sql, void (*each)(const char *text, void *arg), void *arg, struct wire_err *err)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

	if (!rc)
		rc = sqlite3_bind_text(s, 1, json, -1, SQLITE_STATIC);
	while (!rc && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		each((const char *)sqlite3_column_text(s, 0), arg);
		rc = SQLITE_OK;
	}
	if (rc != SQLITE_DONE)
		wire_fail(err, WIRE_CORRUPT, "the node's answer is not understood: %s", sqlite3_errmsg(db));
	sqlite3_finalize(s);
	return rc == SQLITE_DONE ? WIRE_OK : WIRE_CORRUPT;
}

static void print(const char *text, void *arg)
{
	(void)arg;
	printf("%s\n", text);
}

static void tell_missed(const char *text, void *arg)
{
	(void)arg;
	fprintf(stderr, "walraft: %s events are not kept any more\n", text);
}

static void number(const char *text, void *arg)
{
	*(uint64_t *)arg = strtoull(text, NULL, 10);
}

/* Prints what there is behind *after, which moves on. */
static int show(sqlite3 *db, const struct shell_paths *paths, bool json, uint64_t *after, bool *ret_more, struct wire_err *err)
{
	struct wire_buf b = WIRE_BUF_INIT;
	char request[64];
	uint64_t next = *after;
	int rc;

	if (*after == UINT64_MAX)
		snprintf(request, sizeof request, "events");
	else
		snprintf(request, sizeof request, "events %" PRIu64, *after);
	rc = shell_control_ask(paths, request, &b, err);
	if (!rc) {
		b.data[b.len - 1] = 0; /* the newline that it ends with */
		rc = column(db, (char *)b.data, missed_sql, tell_missed, NULL, err);
	}
	if (!rc)
		rc = column(db, (char *)b.data, json ? json_sql : text_sql, print, NULL, err);
	if (!rc)
		rc = column(db, (char *)b.data, next_sql, number, &next, err);
	*ret_more = *after != UINT64_MAX && next != *after;
	*after = next;
	wire_buf_free(&b);
	fflush(stdout);
	return rc;
}

int cli_events(int argc, char **argv)
{
	struct cli_opts o;
	struct wire_err err;
	struct shell_conf conf;
	struct shell_paths *paths;
	sqlite3 *db = NULL;
	uint64_t after = UINT64_MAX;
	bool more;
	int rc;

	if (cli_parse(argc, argv, "jw", &o))
		return 2;
	if (o.help)
		return 0;
	cli_signals_block();
	paths = malloc(sizeof *paths);
	rc = paths ? shell_paths_make(o.db, paths, &err) : wire_fail(&err, WIRE_NOMEM, "out of memory");
	if (!rc)
		rc = shell_conf_read(wire_env_posix(), paths, &conf, &err);
	if (!rc && sqlite3_open(":memory:", &db))
		rc = wire_fail(&err, WIRE_INTERNAL, "SQLite does not start");
	if (!rc)
		rc = show(db, paths, o.json, &after, &more, &err);
	while (!rc && o.follow && !cli_wait_signal(POLL_MS)) {
		do
			rc = show(db, paths, o.json, &after, &more, &err);
		while (!rc && more);
	}
	sqlite3_close(db);
	free(paths);
	return rc ? cli_fail(&o, &err) : 0;
}
