#include "shell/cli.h"
#include <sqlite3.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_row(void *ctx, const char *row)
{
	(void)ctx;
	printf("%s\n", row);
}

static void take_failure(void *ctx, const char *row)
{
	wire_fail(ctx, WIRE_CLOSED, "%s", row);
}

int cli_each_row(sqlite3 *db, const char *json, const char *text, const char *sql, void (*each)(void *ctx, const char *row), void *ctx, struct wire_err *err)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

	if (!rc)
		rc = sqlite3_bind_text(s, 1, json, -1, SQLITE_STATIC);
	if (!rc && text)
		rc = sqlite3_bind_text(s, 2, text, -1, SQLITE_STATIC);
	while (!rc && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		const char *row = (const char *)sqlite3_column_text(s, 0);

		each(ctx, row ? row : "");
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
        " UNION ALL SELECT 3, 'role', upper(iif(?1->>'removed', 'removed', '')) || iif(?1->>'removed', '', ?1->>'role') || CASE ?1->>'ready' WHEN 1 THEN ', ready' ELSE '' END || ', term ' || (?1->>'term')"
        " UNION ALL SELECT 4, 'leader', coalesce(?1->>'leader_url', iif(?1->>'leader_id' = ?1->>'node_id', 'this node (it has no address)', '(unknown)'))"
        " UNION ALL SELECT 5, 'position', 'published ' || (?1->>'published') || ', committed ' || (?1->>'commit') || ', last ' || (?1->>'last_index')"
        " UNION ALL SELECT 6, 'checksum', ?1->>'checksum' WHERE ?1->>'db_pages' > 0"
        " UNION ALL SELECT 7, 'pages', (?1->>'db_pages') || ' of ' || (?1->>'page_size') || ' bytes, ' || (?1->>'wal_frames') || ' WAL frames' WHERE ?1->>'db_pages' > 0"
        " UNION ALL SELECT 8, 'journal', printf('%.1f MiB on disk', (?1->>'journal_disk_bytes') / 1048576.0)"
        " UNION ALL SELECT 8, 'kept log', 'entries above ' || (?1->>'$.witness.kept_above') || coalesce(', for ' || (?1->>'$.witness.kept_for') || ', which is away', '') ||"
        " printf(', at most %.1f MiB', (?1->>'$.witness.limit_bytes') / 1048576.0) || iif(?1->>'$.witness.full', ': FULL, it takes no more', '') WHERE ?1->>'witness' IS NOT NULL"
        " UNION ALL SELECT 9, 'mending', 'the journal or the database lacks something, which other members are asked for; ' || (?1->>'holes') || ' damaged entries' WHERE ?1->>'mending'"
        " UNION ALL SELECT 9, 'FAILED', ?1->>'failure' WHERE ?1->>'failure' IS NOT NULL) ORDER BY o";
#define ROW "'%-16s  %-7s  %-11s  %4s  %10s  %8s  %8s  %8s  %5s  %6s  %s'"
static const char members_sql[] =
        "SELECT printf(" ROW ", 'member', 'kind', 'state', 'prio', 'match', 'lag', 'seen', 'rtt', 'level', 'rounds', 'url')"
        " UNION ALL SELECT printf(" ROW ", value->>'id', value->>'kind', (value->>'state'), value->>'priority',"
        " iif(value->>'lag' IS NULL AND NOT value->>'self', '-', value->>'match'), coalesce(value->>'lag', '-'), coalesce((value->>'last_contact_ms') || ' ms', '-'),"
        " iif(value->>'rtt_us' > 0, printf('%.2f ms', (value->>'rtt_us') / 1000.0), '-'), coalesce(value->>'level', '-'), coalesce(value->>'rounds', '-'),"
        " (value->>'url') || iif(value->>'id' = ?2, '  (this node)', '') || iif(value->>'outgoing' AND NOT coalesce(?1->>'removed', 0), '  (votes in the old half)', ''))"
        " FROM json_each(?1, '$.members')"
        " UNION ALL SELECT 'Witness ' || (value->>'url') || ' is full, and does not count: it keeps what ' || coalesce((SELECT group_concat(m.value->>'url') FROM json_each(?1, '$.members') m"
        " WHERE m.value->>'kind' = 'voter' AND m.value->>'state' = 'unreachable'), 'a data node') || ' lacks. Bring that back, or raise keep-log in the witness''s node.conf and restart it.'"
        " FROM json_each(?1, '$.members') WHERE value->>'full'"
        " UNION ALL SELECT 'A change is on its way, through a joint configuration.' WHERE ?1->>'joint' AND NOT coalesce(?1->>'removed', 0)"
        " UNION ALL SELECT 'Quorum sizes: ' || iif(?1->>'commit_quorum', ?1->>'commit_quorum', 'a majority') || ' for a commit, ' ||"
        " iif(?1->>'election_quorum', ?1->>'election_quorum', 'a majority') || ' for an election.' WHERE ?1->>'commit_quorum' OR ?1->>'election_quorum'";

int cli_members_table(sqlite3 *db, const char *json, uint64_t node, struct wire_err *err)
{
	char id[17];

	snprintf(id, sizeof id, "%016" PRIx64, node);
	return cli_each_row(db, json, id, members_sql, print_row, NULL, err);
}

static const char failure_sql[] = "SELECT 'the node has ended its part: ' || (?1->>'failure') WHERE ?1->>'failure' IS NOT NULL"
                                  " UNION ALL SELECT 'this node was removed from its cluster; what it has gets no newer. Join anew under another file name, or ' || iif(?1->>'witness' IS NULL, 'make this file a plain database: walraft detach ' || (?1->>'path'), 'stop this witness and delete ' || (?1->>'path') || '-walraft') WHERE ?1->>'removed'";

/* A node that has failed is told as an error, behind what else there is to tell. */
static int show(const char *json, bool as_json, uint64_t node, struct wire_err *err)
{
	sqlite3 *db = NULL;
	int rc = WIRE_OK;

	err->code = WIRE_OK;
	if (sqlite3_open(":memory:", &db))
		rc = wire_fail(err, WIRE_INTERNAL, "SQLite does not start");
	if (!rc && as_json)
		printf("%s\n", json);
	if (!rc && !as_json)
		rc = cli_each_row(db, json, NULL, head_sql, print_row, NULL, err);
	if (!rc && !as_json)
		rc = cli_members_table(db, json, node, err);
	if (!rc)
		rc = cli_each_row(db, json, NULL, failure_sql, take_failure, err, err);
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
		rc = show((char *)b.data, o.json, conf.node, &err);
	}
	wire_buf_free(&b);
	free(paths);
	return rc ? cli_fail(&o, &err) : 0;
}
