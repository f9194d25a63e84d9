/* walraft add, promote, demote, remove, priority, quorum, change, transfer: a line for the leader (shell/change.c), made from what a person said. Ids are looked up first, so that the
 * line means the same however often it is asked. */
#include "shell/cli_members.h"
#include "shell/setup.h"
#include "wire/link.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct line {
	struct cli_group g;
	struct cli_opts o;
	struct wire_buf text;
	bool without_us; /* this host's node is among those that are removed */
};

static void put(struct line *l, const char *a, const char *b)
{
	wire_put_bytes(&l->text, a, strlen(a));
	wire_put_bytes(&l->text, b, strlen(b));
}

static int put_member(struct line *l, const char *verb, const char *name, struct wire_err *err)
{
	char id[CLI_ID_BYTES], word[32], own[CLI_ID_BYTES], kind[16];
	int rc = cli_group_member(&l->g, name, id, err);

	if (rc)
		return rc;
	snprintf(own, sizeof own, "%016" PRIx64, l->g.conf.node);
	if (!strcmp(verb, "remove") && !strcmp(id, own))
		l->without_us = true;
	if (!strcmp(verb, "promote")) {
		rc = cli_group_get(&l->g, "SELECT value->>'kind' FROM json_each(?1, '$.members') WHERE value->>'id' = ?2 AND value->>'votes'", id, kind, sizeof kind, err);
		verb = strcmp(kind, "witness") ? verb : "replica";
	}
	snprintf(word, sizeof word, " %s=", verb);
	put(l, word, id);
	return rc;
}

/* --- one for each command --- */

typedef int (*maker)(struct line *l, struct wire_err *err);

static int make_each(struct line *l, const char *verb, struct wire_err *err)
{
	int rc = WIRE_OK;

	put(l, "change", "");
	for (int i = 0; i < l->o.n_args && !rc; i++)
		rc = put_member(l, verb, l->o.args[i], err);
	return rc;
}

static int make_promote(struct line *l, struct wire_err *err)
{
	return make_each(l, "promote", err);
}

static int make_demote(struct line *l, struct wire_err *err)
{
	return make_each(l, "demote", err);
}

static int make_remove(struct line *l, struct wire_err *err)
{
	return make_each(l, "remove", err);
}

/* Repeated, it says the same again. */
static int find_awaited(struct line *l, int priority, char id[CLI_ID_BYTES], struct wire_err *err)
{
	char sql[320];

	snprintf(sql, sizeof sql,
	         "SELECT value->>'id' FROM json_each(?1, '$.members') WHERE value->>'url' = ?2 AND value->>'state' = 'awaited' AND value->>'priority' = %d"
	         " AND value->>'kind' = '%s' AND value->>'rising' = %d",
	         priority, l->o.witness ? "witness" : "learner", !l->o.learner);
	return cli_group_get(&l->g, sql, l->o.args[0], id, CLI_ID_BYTES, err);
}

static int make_add(struct line *l, struct wire_err *err)
{
	unsigned flags = l->o.witness ? RAFT_LEARNER | RAFT_WITNESS | RAFT_RISING : l->o.learner ? RAFT_LEARNER : RAFT_LEARNER | RAFT_RISING;
	int priority = l->o.priority < 0 ? RAFT_PRIORITY : l->o.priority;
	char word[80], taken[CLI_ID_BYTES], awaited[CLI_ID_BYTES] = "";
	int rc = cli_group_get(&l->g, "SELECT value->>'id' FROM json_each(?1, '$.members') WHERE value->>'url' = ?2", l->o.args[0], taken, sizeof taken, err);

	if (!rc)
		rc = find_awaited(l, priority, awaited, err);
	if (!rc && *taken && !*awaited)
		rc = wire_fail(err, WIRE_EXISTS, "%s is the address of member %s", l->o.args[0], taken);
	if (!*awaited)
		snprintf(awaited, sizeof awaited, "%016" PRIx64, shell_random_id(wire_env_posix()));
	snprintf(word, sizeof word, "change add=%s,%u,%d,", awaited, flags, priority);
	put(l, word, l->o.args[0]);
	return rc;
}

static int make_priority(struct line *l, struct wire_err *err)
{
	int rc;

	put(l, "change", "");
	rc = put_member(l, "priority", l->o.args[0], err);
	put(l, ",", l->o.args[1]);
	return rc;
}

static int make_quorum(struct line *l, struct wire_err *err)
{
	char word[48];

	(void)err;
	put(l, "change", "");
	if (l->o.commit >= 0 && snprintf(word, sizeof word, " commit=%d", l->o.commit) > 0)
		put(l, word, "");
	if (l->o.elect >= 0 && snprintf(word, sizeof word, " elect=%d", l->o.elect) > 0)
		put(l, word, "");
	return WIRE_OK;
}

/* One member cannot become two things. */
static int check_once(struct line *l, const char *verb, const char *name, struct wire_err *err)
{
	char id[CLI_ID_BYTES];
	int rc = cli_group_member(&l->g, name, id, err);
	size_t len = strlen(verb);

	for (size_t at = 0; !rc && at + CLI_ID_BYTES <= l->text.len; at++) {
		const char *word = (const char *)l->text.data + at;

		if (*word != '=' || memcmp(word + 1, id, CLI_ID_BYTES - 1) != 0 || (at >= len && !memcmp(word - len, verb, len)))
			continue;
		if (strcmp(verb, "promote") || at < 7 || memcmp(word - 7, "replica", 7))
			rc = wire_fail(err, WIRE_INVALID, "%s is named for two different things; what shall it be?", name);
	}
	return rc;
}

static int make_change(struct line *l, struct wire_err *err)
{
	int rc = WIRE_OK;

	put(l, "change", "");
	for (int i = 0; i < l->o.n_args && !rc; i++) {
		char *verb = l->o.args[i], *ids = strchr(verb, '='), *rest;

		*ids++ = 0;
		for (char *id = strtok_r(ids, ",", &rest); id && !rc; id = strtok_r(NULL, ",", &rest)) {
			rc = check_once(l, verb, id, err);
			if (!rc)
				rc = put_member(l, verb, id, err);
		}
	}
	return rc;
}

static int make_transfer(struct line *l, struct wire_err *err)
{
	char leader[CLI_ID_BYTES];
	int rc = cli_group_get(&l->g, "SELECT ?1->>'leader_id'", NULL, leader, sizeof leader, err);

	put(l, "transfer", "");
	if (!rc && l->o.n_args)
		return put_member(l, "to", l->o.args[0], err);
	if (!rc)
		put(l, " from=", leader);
	return rc;
}

/* --- what is wrong before any node is asked --- */

static bool is_word(const char *arg)
{
	static const char *const verbs[] = { "promote=", "demote=", "remove=" };

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (!strncmp(arg, verbs[i], strlen(verbs[i])) && arg[strlen(verbs[i])])
			return true;
	return false;
}

static int check_usage(const struct cli_opts *o, maker make, struct wire_err *err)
{
	if (make == make_priority) {
		char *end;
		unsigned long v = strtoul(o->args[1], &end, 10);

		if (o->args[1][0] < '0' || o->args[1][0] > '9' || *end || v > 255)
			return wire_fail(err, WIRE_INVALID, "a priority is a number from 0 to 255, not '%s'", o->args[1]);
	}
	if (make == make_quorum && o->commit < 0 && o->elect < 0)
		return wire_fail(err, WIRE_INVALID, "give --commit N, --elect N or both; 0 is a majority");
	if (make == make_add && o->learner && o->witness)
		return wire_fail(err, WIRE_INVALID, "--learner and --witness contradict each other: a witness votes");
	for (int i = 0; make == make_change && i < o->n_args; i++)
		if (!is_word(o->args[i]))
			return wire_fail(err, WIRE_INVALID, "'%s' is none of promote=ID,... demote=ID,... remove=ID,...", o->args[i]);
	return make == make_add ? wire_url_check(o->args[0], &(bool){ false }, err) : WIRE_OK;
}

/* --- what they share --- */

static void report_added(const struct line *l)
{
	char id[CLI_ID_BYTES];

	snprintf(id, sizeof id, "%s", strchr((const char *)l->text.data, '=') + 1);
	if (!l->o.json)
		printf("%s is member %s, and awaited. On its host run: walraft join FILE %s--listen %s --peer URL-OF-A-MEMBER\n", l->o.args[0], id, l->o.witness ? "--witness " : "",
		       l->o.args[0]);
	else
		printf("{\"id\":\"%s\",\"url\":\"%s\",%s\n", id, l->o.args[0], cli_group_json(&l->g) + 1);
}

static int report(struct line *l, maker make, struct wire_err *err)
{
	if (make == make_add) {
		report_added(l);
		return WIRE_OK;
	}
	if (!strcmp(l->g.state, "removed") && !l->o.json)
		printf("The node of %s is removed from its cluster.\n", l->g.paths->db);
	else
		return cli_group_show(&l->g, err);
	return WIRE_OK;
}

static int drive(struct line *l, maker make, struct wire_err *err)
{
	int rc = cli_group_open(&l->g, &l->o, err);

	if (!rc)
		rc = cli_group_drive(&l->g, "members", false, err);
	if (!rc)
		rc = make(l, err);
	wire_put_u8(&l->text, 0);
	if (!rc && l->text.failed)
		rc = wire_fail(err, WIRE_NOMEM, "out of memory");
	if (!rc)
		rc = cli_group_drive(&l->g, (const char *)l->text.data, l->without_us, err);
	return rc ? rc : report(l, make, err);
}

/* least, most: how many arguments it takes beside the database; what: they are. */
static int run(int argc, char **argv, const char *allowed, int least, int most, const char *what, maker make)
{
	struct line *l = calloc(1, sizeof *l);
	const char *name = argv[0];
	struct wire_err err;
	int status = 0;

	if (!l) {
		fprintf(stderr, "walraft: out of memory\n");
		return 1;
	}
	if (cli_parse(argc, argv, allowed, &l->o)) {
		status = 2;
	} else if (!l->o.help && (l->o.n_args < least || l->o.n_args > most)) {
		fprintf(stderr, "walraft %s: after the database it takes %s\nsee walraft %s --help\n", name, what, name);
		status = 2;
	} else if (!l->o.help && check_usage(&l->o, make, &err)) {
		fprintf(stderr, "walraft %s: %s\nsee walraft %s --help\n", name, err.text, name);
		status = 2;
	} else if (!l->o.help) {
		cli_signals_block();
		if (drive(l, make, &err))
			status = cli_fail(&l->o, &err);
		cli_group_close(&l->g);
	}
	wire_buf_free(&l->text);
	free(l);
	return status;
}

int cli_add(int argc, char **argv)
{
	return run(argc, argv, "xtjLWP", 1, 1, "the URL of the node that is to come", make_add);
}

int cli_promote(int argc, char **argv)
{
	return run(argc, argv, "xtj", 1, RAFT_MEMBERS_MAX, "ids or URLs of members", make_promote);
}

int cli_demote(int argc, char **argv)
{
	return run(argc, argv, "xtj", 1, RAFT_MEMBERS_MAX, "ids or URLs of members", make_demote);
}

int cli_remove(int argc, char **argv)
{
	return run(argc, argv, "xtj", 1, RAFT_MEMBERS_MAX, "ids or URLs of members", make_remove);
}

int cli_priority(int argc, char **argv)
{
	return run(argc, argv, "xtj", 2, 2, "the id or URL of a member, and a number", make_priority);
}

int cli_quorum(int argc, char **argv)
{
	return run(argc, argv, "tjCE", 0, 0, "nothing but options", make_quorum);
}

int cli_change(int argc, char **argv)
{
	return run(argc, argv, "xtj", 1, RAFT_MEMBERS_MAX, "promote=ID,..., demote=ID,..., remove=ID,...", make_change);
}

int cli_transfer(int argc, char **argv)
{
	return run(argc, argv, "xtj", 0, 1, "at most the id or URL of a voter", make_transfer);
}
