/* walraft detach: a replicated database becomes a plain one. The WAL is not synced at commit, so after a power loss it may lack what the journal has: the node is
 * started here, and publishes all of it, before its directory goes. */
#include "shell/cli.h"
#include "shell/setup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define LOOK_MS 50
#define GATE_MS 200 /* of one attempt to learn what is committed */
#define PUBLISH_MS 10000
#define ASK_MS 3000 /* to learn whether this is a member still */

struct detach {
	const struct wire_env *env;
	const struct cli_opts *o;
	struct shell_paths paths;
	uint64_t index, dropped;
	uint32_t others;
	bool was_detached, as_it_is, removed;
};

static uint64_t now_ms(const struct detach *d)
{
	return d->env->now_ns(d->env->ctx) / 1000000;
}

static int check_stop(struct shell_node *n, struct wire_err *err)
{
	char failure[512];

	shell_node_failure(n, failure, sizeof failure);
	if (*failure)
		return wire_fail(err, WIRE_IO, "%s", failure);
	if (cli_wait_signal(0))
		return wire_fail(err, WIRE_CLOSED, "interrupted; nothing was changed");
	return WIRE_OK;
}

static int check_members(struct detach *d, struct shell_node *n, struct wire_err *err)
{
	struct shell_self self;
	uint64_t deadline = now_ms(d) + ASK_MS;

	/* One that was removed while it was away finds out by asking the others. */
	for (;;) {
		int rc = check_stop(n, err);

		shell_node_self(n, &self);
		if (rc)
			return rc;
		if (self.removed || self.has_leader || self.members < 2 || d->o->force || now_ms(d) >= deadline)
			break;
		if (cli_wait_signal(LOOK_MS))
			return wire_fail(err, WIRE_CLOSED, "interrupted; nothing was changed");
	}
	d->removed = self.removed;
	d->others = self.members && !self.removed ? self.members - 1 : 0;
	if (!d->others || d->o->force)
		return WIRE_OK;
	return wire_fail(err, WIRE_UNSUPPORTED, "the cluster of %s has %u other member%s, which would go on counting this one for the majority: remove it first, with walraft remove on the host of one that runs, or --force if that is accepted",
	                 d->paths.db, d->others, d->others == 1 ? "" : "s");
}

/* Until all that is committed anywhere is in this node's WAL. WIRE_TIMEOUT: there is no quorum to tell. */
static int catch_up(struct detach *d, struct shell_node *n, struct wire_err *err)
{
	const struct vfs_node_ops *ops = vfs_db_ops(shell_node_db(n));
	uint64_t deadline = now_ms(d) + (uint64_t)d->o->timeout_s * 1000;
	struct shell_self self;
	struct wire_err why = { .text = "entries are still being published" };

	for (;;) {
		bool waited;
		const struct vfs_read_want want = { .level = VFS_READ_LINEARIZABLE };
		int rc = ops->read_gate(ops->ctx, &want, GATE_MS, &waited, &why);

		shell_node_self(n, &self);
		d->index = self.published;
		/* What is behind the read's index on a lone voter is committed too, or will be in a moment. */
		if (!rc && (d->others || self.published == self.last_index))
			return WIRE_OK;
		rc = check_stop(n, err);
		if (rc)
			return rc;
		if (now_ms(d) >= deadline)
			return wire_fail(err, WIRE_TIMEOUT, "%s: what is committed was not to be learned within %u s: %s", d->paths.db, d->o->timeout_s, why.text);
		if (cli_wait_signal(LOOK_MS))
			return wire_fail(err, WIRE_CLOSED, "interrupted; nothing was changed");
	}
}

/* What this node alone knows to be committed. */
static int take_known(struct detach *d, struct shell_node *n, struct wire_err *err)
{
	uint64_t deadline = now_ms(d) + PUBLISH_MS;
	struct shell_self self;

	for (;;) {
		int rc = check_stop(n, err);

		shell_node_self(n, &self);
		d->index = self.published;
		d->dropped = self.last_index - self.published;
		if (rc || self.published >= self.leader_commit)
			return rc;
		if (now_ms(d) >= deadline)
			return wire_fail(err, WIRE_TIMEOUT, "%s: entries that are committed are not published in time", d->paths.db);
		if (cli_wait_signal(LOOK_MS))
			return wire_fail(err, WIRE_CLOSED, "interrupted; nothing was changed");
	}
}

static int publish_all(struct detach *d, struct wire_err *err)
{
	struct shell_node *n;
	int rc = shell_node_acquire(d->o->db, &n, err);

	if ((rc == WIRE_CHANGED || rc == WIRE_CORRUPT || rc == WIRE_TIMEOUT) && d->o->force) {
		d->as_it_is = true;
		return WIRE_OK;
	}
	if (rc == WIRE_CHANGED || rc == WIRE_CORRUPT || rc == WIRE_TIMEOUT)
		wire_context(err, "its node does not start, and --force gives the file back as it is");
	if (rc)
		return rc;
	rc = check_members(d, n, err);
	if (!rc) {
		rc = d->removed ? WIRE_TIMEOUT : catch_up(d, n, err);
		if (rc == WIRE_TIMEOUT && (d->removed || d->o->force))
			rc = take_known(d, n, err);
	}
	shell_node_release(n);
	return rc;
}

static void report(const struct detach *d)
{
	if (d->o->json) {
		printf("{\"path\":\"");
		cli_put_json(stdout, d->paths.db);
		printf("\",\"index\":%" PRIu64 ",\"dropped\":%" PRIu64 ",\"other_members\":%u,\"as_it_is\":%s}\n", d->index, d->dropped, d->others, d->as_it_is ? "true" : "false");
		return;
	}
	if (d->was_detached)
		printf("%s was detached already; what an interrupted detach had left is removed.\n", d->paths.db);
	else if (d->as_it_is)
		printf("%s is a plain database now, as the file was.\n", d->paths.db);
	else
		printf("%s is a plain database now, with all that was committed up to entry %" PRIu64 ".\n", d->paths.db, d->index);
	if (d->dropped)
		printf("%" PRIu64 " later entries whose outcome was not known here are dropped.\n", d->dropped);
	if (d->others)
		printf("The %u other member%s of its cluster still count%s it for the majority.\n", d->others, d->others == 1 ? "" : "s", d->others == 1 ? "s" : "");
	printf("It is in WAL mode; for a rollback journal: sqlite3 %s 'PRAGMA journal_mode=delete'\n", d->o->db);
}

static int detach(struct detach *d, struct wire_err *err)
{
	struct shell_conf conf;
	int rc = cli_sqlite_init(err);

	if (!rc)
		rc = shell_paths_make(d->o->db, &d->paths, err);
	if (!rc && !shell_conf_read(d->env, &d->paths, &conf, NULL) && conf.witness)
		return wire_fail(err, WIRE_UNSUPPORTED, "%s is a witness, which has no database that could be made a plain one. To be rid of it: walraft remove on the host of another member, then stop it and delete %s",
		                 d->paths.db, d->paths.dir);
	d->was_detached = !rc && shell_setup_is_detached(&d->paths);
	if (!rc && !d->was_detached)
		rc = publish_all(d, err);
	if (!rc)
		rc = shell_setup_detach(d->env, &d->paths, err);
	if (!rc)
		report(d);
	return rc;
}

int cli_detach(int argc, char **argv)
{
	struct detach *d = calloc(1, sizeof *d);
	struct cli_opts o;
	struct wire_err err;
	int status = 0;

	if (!d) {
		fprintf(stderr, "walraft: out of memory\n");
		return 1;
	}
	if (cli_parse(argc, argv, "ftj", &o)) {
		free(d);
		return 2;
	}
	d->env = wire_env_posix();
	d->o = &o;
	cli_signals_block();
	if (!o.help && detach(d, &err))
		status = cli_fail(&o, &err);
	free(d);
	return status;
}
