/* walraft members, and what the commands that change them share: asking the node of a database on this host, which asks the leader, until it is done. */
#include "shell/cli_members.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ASK_AGAIN_MS 30
#define TELL_MS 1000 /* what takes so long is told about */

int cli_group_open(struct cli_group *g, const struct cli_opts *o, struct wire_err *err)
{
	int rc = WIRE_OK;

	*g = (struct cli_group){ .o = o, .answer = WIRE_BUF_INIT };
	g->paths = malloc(sizeof *g->paths);
	if (!g->paths)
		return wire_fail(err, WIRE_NOMEM, "out of memory");
	if (sqlite3_open(":memory:", &g->sql))
		rc = wire_fail(err, WIRE_INTERNAL, "SQLite does not start");
	if (!rc)
		rc = shell_paths_make(o->db, g->paths, err);
	if (!rc)
		rc = shell_conf_read(wire_env_posix(), g->paths, &g->conf, err);
	return rc;
}

void cli_group_close(struct cli_group *g)
{
	sqlite3_close(g->sql);
	wire_buf_free(&g->answer);
	free(g->paths);
}

const char *cli_group_json(const struct cli_group *g)
{
	return (const char *)g->answer.data;
}

struct copy { char *dst; size_t cap; };

static void copy_row(void *ctx, const char *row)
{
	struct copy *c = ctx;

	snprintf(c->dst, c->cap, "%s", row);
}

int cli_group_get(struct cli_group *g, const char *sql, const char *text, char *dst, size_t cap, struct wire_err *err)
{
	*dst = 0;
	return cli_each_row(g->sql, cli_group_json(g), text, sql, copy_row, &(struct copy){ dst, cap }, err);
}

int cli_group_ask(struct cli_group *g, const char *line, struct wire_err *err)
{
	int rc;

	wire_buf_reset(&g->answer);
	rc = shell_control_ask(g->paths, line, &g->answer, err);
	if (rc)
		return rc;
	g->answer.data[g->answer.len - 1] = 0; /* the newline that it ends with */
	rc = cli_group_get(g, "SELECT ?1->>'state'", NULL, g->state, sizeof g->state, err);
	return rc ? rc : cli_group_get(g, "SELECT ?1->>'text'", NULL, g->text, sizeof g->text, err);
}

static uint64_t now_ms(void)
{
	const struct wire_env *env = wire_env_posix();

	return env->now_ns(env->ctx) / 1000000;
}

/* At most once a second, over the line before on a terminal. */
static void tell(struct cli_group *g, uint64_t now, bool end)
{
	bool tty = isatty(2);

	if (end) {
		if (g->told && tty)
			fprintf(stderr, "\r\033[K");
		return;
	}
	if (g->o->json || now < g->tell_at_ms || !strcmp(g->told_text, g->text))
		return;
	g->tell_at_ms = now + TELL_MS;
	snprintf(g->told_text, sizeof g->told_text, "%s", g->text);
	fprintf(stderr, tty ? "\r\033[K%s ..." : "%s ...\n", g->text);
	fflush(stderr);
	g->told = true;
}

int cli_group_drive(struct cli_group *g, const char *line, bool without_us, struct wire_err *err)
{
	uint64_t now = now_ms(), end = now + (uint64_t)g->o->timeout_s * 1000;
	int rc;

	for (g->tell_at_ms = now + TELL_MS;; now = now_ms()) {
		rc = cli_group_ask(g, line, err);
		if (rc && rc != WIRE_TIMEOUT)
			break;
		if (rc)
			snprintf(g->text, sizeof g->text, "%s", err->text);
		else if (!strcmp(g->state, "done"))
			break;
		else if (!strcmp(g->state, "removed") && without_us)
			break;
		else if (!strcmp(g->state, "refused"))
			rc = wire_fail(err, WIRE_INVALID, "%s", g->text);
		else if (!strcmp(g->state, "removed"))
			rc = wire_fail(err, WIRE_FOREIGN, "%s: this node was removed from its cluster; ask on the host of a member", g->paths->db);
		else if (!strcmp(g->state, "failed"))
			rc = wire_fail(err, WIRE_CLOSED, "%s", g->text);
		else
			rc = WIRE_TIMEOUT;
		if (rc != WIRE_TIMEOUT)
			break;
		if (now >= end)
			rc = wire_fail(err, WIRE_TIMEOUT, "not done within %u s, and may still come about: %s", g->o->timeout_s, g->text);
		else if (cli_wait_signal(ASK_AGAIN_MS))
			rc = wire_fail(err, WIRE_CLOSED, "interrupted; what has begun may still come about, see walraft members");
		else
			rc = WIRE_OK;
		if (rc)
			break;
		tell(g, now, false);
	}
	tell(g, now, true);
	return rc;
}

static const char ids_sql[] =
        "SELECT CASE count(*) WHEN 1 THEN min(value->>'id') WHEN 0 THEN '' ELSE 'several' END FROM json_each(?1, '$.members')"
        " WHERE value->>'url' = ?2 OR (length(?2) > 0 AND substr(value->>'id', 1, length(?2)) = lower(?2))";

int cli_group_member(struct cli_group *g, const char *name, char id[CLI_ID_BYTES], struct wire_err *err)
{
	char found[CLI_ID_BYTES];
	int rc = cli_group_get(g, ids_sql, name, found, sizeof found, err);

	if (!rc && !*found)
		rc = wire_fail(err, WIRE_NOTFOUND, "no member has the id or address %s; see walraft members %s", name, g->o->db);
	else if (!rc && !strcmp(found, "several"))
		rc = wire_fail(err, WIRE_INVALID, "several members' ids begin with %s; see walraft members %s", name, g->o->db);
	if (!rc)
		memcpy(id, found, sizeof found);
	return rc;
}

int cli_group_show(struct cli_group *g, struct wire_err *err)
{
	if (!g->o->json)
		return cli_members_table(g->sql, cli_group_json(g), g->conf.node, err);
	printf("%s\n", cli_group_json(g));
	return WIRE_OK;
}

/* Without a leader what this node knows is shown all the same, and told to be no more than that. */
static int members(struct cli_group *g, struct wire_err *err)
{
	char text[sizeof g->text];
	int rc = cli_group_ask(g, "members", err);

	if (rc)
		return rc;
	if (!strcmp(g->state, "done"))
		return cli_group_show(g, err);
	snprintf(text, sizeof text, "%s", g->text);
	rc = cli_group_ask(g, "status", err);
	if (!rc)
		rc = cli_group_show(g, err);
	fflush(stdout);
	return rc ? rc : wire_fail(err, WIRE_NOTLEADER, "this is what the node of %s knows by itself: %s", g->paths->db, text);
}

int cli_members(int argc, char **argv)
{
	struct cli_opts o;
	struct cli_group g;
	struct wire_err err;
	int rc;

	if (cli_parse(argc, argv, "j", &o))
		return 2;
	if (o.help)
		return 0;
	rc = cli_group_open(&g, &o, &err);
	if (!rc)
		rc = members(&g, &err);
	cli_group_close(&g);
	return rc ? cli_fail(&o, &err) : 0;
}
