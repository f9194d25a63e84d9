#include "shell/cli.h"
#include <sqlite3.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_row(const char *text, struct wire_err *err)
{
	(void)err;
	printf("%s\n", text);
}

static void take_failure(const char *text, struct wire_err *err)
{
	wire_fail(err, WIRE_CLOSED, "the node has ended its part: %s", text);
}

/* SQLite's own JSON functions make the table from the answer. */
static int each_row(sqlite3 *db, const char *json, const char *sql, void (*each)(const char *text, struct wire_err *err), struct wire_err *err)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

	if (!rc)
		rc = sqlite3_bind_text(s, 1, json, -1, SQLITE_STATIC);
	while (!rc && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		each((const char *)sqlite3_column_text(s, 0), err);
		rc = SQLITE_OK;
	}
	if (rc != SQLITE_DONE)
		wire_fail(err, WIRE_CORRUPT, "the node's answer is not understood: %s", sqlite3_errmsg(db));
	sqlite3_finalize(s);
	return rc == SQLITE_DONE ? WIRE_OK : WIRE_CORRUPT;
}

static const char head_sql[] =
        "SELECT printf('%-12s %s', k, v) FROM (SELECT 1 AS o, 'database' AS k, ?1->>'path' AS v"
        " UNION ALL SELECT 2, 'node', (?1->>'node_id') || '  ' || coalesce(?1->>'url', '(no listener)')"
        " UNION ALL SELECT 3, 'role', (?1->>'role') || CASE ?1->>'ready' WHEN 1 THEN ', ready' ELSE '' END || ', term ' || (?1->>'term')"
        " UNION ALL SELECT 4, 'leader', coalesce(?1->>'leader_url', iif(?1->>'leader_id' = ?1->>'node_id', 'this node (it has no address)', '(unknown)'))"
        " UNION ALL SELECT 5, 'position', 'published ' || (?1->>'published') || ', committed ' || (?1->>'commit') || ', last ' || (?1->>'last_index')"
        " UNION ALL SELECT 6, 'checksum', ?1->>'checksum'"
        " UNION ALL SELECT 7, 'pages', (?1->>'db_pages') || ' of ' || (?1->>'page_size') || ' bytes, ' || (?1->>'wal_frames') || ' WAL frames'"
        " UNION ALL SELECT 8, 'journal', printf('%.1f MiB on disk', (?1->>'journal_disk_bytes') / 1048576.0)"
        " UNION ALL SELECT 9, 'FAILED', ?1->>'failure' WHERE ?1->>'failure' IS NOT NULL) ORDER BY o";
static const char members_sql[] =
        "SELECT printf('%-16s  %-8s  %-4s  %12s  %10s  %s', 'member', 'kind', 'up', 'match', 'seen', 'url')"
        " UNION ALL SELECT printf('%-16s  %-8s  %-4s  %12s  %10s  %s', value->>'id', value->>'kind', CASE value->>'up' WHEN 1 THEN 'yes' ELSE 'no' END,"
        " iif(?1->>'role' = 'leader' OR value->>'self', value->>'match', '-'), coalesce((value->>'last_contact_ms') || ' ms', '-'), (value->>'url') || CASE value->>'self' WHEN 1 THEN '  (this node)' ELSE '' END)"
        " FROM json_each(?1, '$.members')";

static const char failure_sql[] = "SELECT ?1->>'failure' WHERE ?1->>'failure' IS NOT NULL";

/* A node that has failed is told as an error, behind what else there is to tell. */
static int show(const char *json, bool as_json, struct wire_err *err)
{
	sqlite3 *db = NULL;
	int rc = WIRE_OK;

	err->code = WIRE_OK;
	if (sqlite3_open(":memory:", &db))
		rc = wire_fail(err, WIRE_INTERNAL, "SQLite does not start");
	if (!rc && as_json)
		printf("%s\n", json);
	if (!rc && !as_json)
		rc = each_row(db, json, head_sql, print_row, err);
	if (!rc && !as_json)
		rc = each_row(db, json, members_sql, print_row, err);
	if (!rc)
		rc = each_row(db, json, failure_sql, take_failure, err);
	fflush(stdout); /* before what goes to stderr */
	sqlite3_close(db);
	return rc ? rc : err->code;
}

int cli_status(int argc, char **argv)
{
	struct cli_opts o;
	struct wire_err err;
	struct wire_buf b = WIRE_BUF_INIT;
	struct shell_conf conf;
	struct shell_paths *paths;
	int rc;

	if (cli_parse(argc, argv, "j", &o))
		return 2;
	if (o.help)
		return 0;
	paths = malloc(sizeof *paths);
	rc = paths ? shell_paths_make(o.db, paths, &err) : wire_fail(&err, WIRE_NOMEM, "out of memory");
	if (!rc)
		rc = shell_conf_read(wire_env_posix(), paths, &conf, &err);
	if (!rc)
		rc = shell_control_ask(paths, "status", &b, &err);
	if (!rc) {
		b.data[b.len - 1] = 0; /* the newline that it ends with */
		rc = show((char *)b.data, o.json, &err);
	}
	wire_buf_free(&b);
	free(paths);
	return rc ? cli_fail(&o, &err) : 0;
}
