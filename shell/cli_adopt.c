/* walraft adopt: the lone node of a cluster takes a file that was changed outside walraft as it is. */
#include "shell/cli.h"
#include "shell/ledger.h"
#include "shell/setup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void reading(uint64_t done, uint64_t total)
{
	cli_progress("reading", done, total);
}

/* A node that starts shows that the file needs no adopting, which would throw away what only the journal has. WIRE_OK: it does not start, for the file's sake. */
static int check_refused(const struct cli_opts *o, bool *ret_accepted, bool *ret_renewed, struct wire_err *err)
{
	struct shell_node *n;
	int rc = shell_node_acquire(o->db, &n, err);

	if (rc && rc != WIRE_CHANGED && rc != WIRE_CORRUPT && rc != WIRE_NOTFOUND) /* NOTFOUND: the page hashes */
		return rc;
	if (!rc) {
		*ret_renewed = shell_node_renew_ledger(n);
		shell_node_release(n);
	}
	*ret_accepted = !rc;
	return WIRE_OK;
}

static int check_ledger(const struct wire_env *env, const struct shell_paths *paths, uint64_t group, struct wire_err *err)
{
	struct shell_ledger_state st = { .whole = false };
	struct shell_ledger *l;
	uint64_t cut;
	int rc = shell_ledger_open(env, paths->ledger, group, &l, &cut, err);

	if (!rc) {
		shell_ledger_state(l, &st);
		shell_ledger_free(l);
	}
	return rc || st.whole ? rc : wire_fail(err, WIRE_IO, "the ledger %s could not be written", paths->ledger);
}

static void report(const struct cli_opts *o, const struct shell_paths *paths, bool accepted, bool renewed, const struct shell_setup_result *r)
{
	if (o->json) {
		printf("{\"path\":\"");
		cli_put_json(stdout, paths->db);
		printf("\",\"adopted\":%s,\"ledger_renewed\":%s", accepted ? "false" : "true", renewed ? "true" : "false");
		if (!accepted)
			printf(",\"node_id\":\"%016" PRIx64 "\",\"index\":%" PRIu64 ",\"at_risk\":%" PRIu64 ",\"pages\":%u,\"page_size\":%u,\"checksum\":\"%016" PRIx64 "\"",
			       r->conf.node, r->index, r->at_risk, r->pages, r->page_size, r->checksum);
		printf("}\n");
	} else if (renewed) {
		printf("%s is as its node left it, but its ledger was lost: from now on all clients of walraft_once begin anew.\n", paths->db);
	} else if (accepted) {
		printf("%s is as its node left it: there is nothing to adopt.\n", paths->db);
	} else {
		printf("%s is taken as it is (%u pages of %u bytes), as the state of node %016" PRIx64 " at entry %" PRIu64 ".\n", paths->db, r->pages, r->page_size, r->conf.node, r->index);
		if (r->at_risk)
			printf("It may lack some of the last %" PRIu64 " entries, which the node had not checkpointed.\n", r->at_risk);
		printf("Start it: walraft serve %s, or open file:%s?vfs=walraft in a program.\n", o->db, o->db);
	}
}

static int adopt(const struct cli_opts *o, struct wire_err *err)
{
	const struct wire_env *env = wire_env_posix();
	struct shell_paths *paths = malloc(sizeof *paths);
	struct shell_setup_result r = { 0 };
	struct shell_conf conf;
	bool accepted = false, renewed = false;
	int rc = paths ? cli_sqlite_init(err) : wire_fail(err, WIRE_NOMEM, "out of memory");

	if (!rc)
		rc = shell_paths_make(o->db, paths, err);
	if (!rc)
		rc = shell_conf_read(env, paths, &conf, err);
	/* First: a node of several would wait for what the others have of its database. */
	if (!rc)
		rc = shell_setup_check_sole(env, paths, err);
	if (!rc)
		rc = check_refused(o, &accepted, &renewed, err);
	if (!rc && renewed)
		rc = check_ledger(env, paths, conf.group, err);
	if (!rc && !accepted)
		rc = shell_setup_adopt(env, paths, reading, &r, err);
	if (!rc)
		report(o, paths, accepted, renewed, &r);
	free(paths);
	return rc;
}

int cli_adopt(int argc, char **argv)
{
	struct cli_opts o;
	struct wire_err err;

	if (cli_parse(argc, argv, "j", &o))
		return 2;
	return o.help || !adopt(&o, &err) ? 0 : cli_fail(&o, &err);
}
