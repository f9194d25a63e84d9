#include "shell/cli.h"
#include "shell/heir.h"
#include "shell/rise.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS 200
#define RISE_TIMEOUT_S 30    /* without anything that moves */
#define RISE_AGAIN_MS 3000
#define YIELD_AGAIN_MS 20
#define YIELD_WAIT_NS 10000000000ull

static void log_line(const char *text)
{
	fprintf(stderr, "walraft: %s\n", text);
}

static bool stopped;

static bool stop_was_asked(unsigned wait_ms)
{
	stopped |= cli_wait_signal(wait_ms) != 0;
	return stopped;
}

static bool stop_now(void)
{
	return stop_was_asked(0);
}

/* Where an application hosts the node it is asked to give it up, and to attach to this process. In between, while it starts or ends, there may be nobody to ask for a moment. */
static int run_node(const char *db, struct shell_node **ret_node, struct wire_err *err)
{
	static struct shell_paths paths;
	const struct wire_env *env = wire_env_posix();
	const uint64_t deadline = env->now_ns(env->ctx) + YIELD_WAIT_NS;
	int rc = shell_paths_make(db, &paths, err);

	while (!rc) {
		struct vfs_shmlock *shm = NULL;
		struct wire_err why;
		int lock = -1, asked;

		rc = shell_node_run(db, stop_now, ret_node, err);
		if (rc != WIRE_BUSY || err->sys != EWOULDBLOCK)
			return rc;
		asked = shell_heir_ask(&paths, &lock, &shm, &why);
		if (!asked) {
			shell_lock_inherit(lock);
			rc = shell_node_run(db, stop_now, ret_node, err);
			if (shm)
				vfs_shmlock_let_go(shm);
			return rc;
		}
		if (asked != WIRE_CLOSED)
			*err = why;
		if (asked != WIRE_CLOSED || env->now_ns(env->ctx) >= deadline)
			return rc;
		rc = WIRE_OK;
		stop_was_asked(YIELD_AGAIN_MS);
		if (stopped)
			return WIRE_BUSY;
	}
	return rc;
}

/* The same node afterwards, or the full replica that it has become; NULL when that does not start. */
static struct shell_node *rise(const char *db, struct shell_node *n)
{
	static char told[sizeof ((struct wire_err *)0)->text]; /* it is tried again and again; each reason is told once */
	struct wire_err err;

	if (!*told)
		fprintf(stderr, "walraft: this witness becomes a full replica\n");
	if (shell_witness_rise(n, RISE_TIMEOUT_S, stop_now, &err)) {
		if (!stopped && strcmp(told, err.text))
			fprintf(stderr, "walraft: it stays a witness for now: %s\n", err.text);
		snprintf(told, sizeof told, "%s", err.text);
		stop_was_asked(RISE_AGAIN_MS);
		return n;
	}
	shell_node_release(n);
	if (shell_node_run(db, stop_now, &n, &err)) {
		if (!stopped)
			fprintf(stderr, "walraft: %s\n", err.text);
		return NULL;
	}
	fprintf(stderr, "walraft: this node has its database, and catches up\n");
	return n;
}

int cli_serve(int argc, char **argv)
{
	struct cli_opts o;
	struct wire_err err;
	struct shell_node *n;
	const struct shell_paths *paths;
	struct shell_conf conf;
	char failure[512] = "";
	int rc;

	if (cli_parse(argc, argv, "j", &o))
		return 2;
	if (o.help)
		return 0;
	cli_signals_block();
	shell_log_to(log_line);
	rc = cli_sqlite_init(&err);
	if (!rc)
		rc = run_node(o.db, &n, &err);
	if (rc)
		return stopped ? 0 : cli_fail(&o, &err);
	paths = shell_node_paths(n);
	if (shell_conf_read(wire_env_posix(), paths, &conf, &err))
		conf = (struct shell_conf){ 0 };
	fprintf(stderr, "walraft: serving %s at %s%s\n", paths->db, *conf.listen ? conf.listen : "(no listener)", conf.witness ? ", a witness" : "");
	if (o.json) {
		printf("{\"path\":\"");
		cli_put_json(stdout, paths->db);
		printf("\",\"url\":\"%s\",\"pid\":%ld}\n", conf.listen, (long)getpid());
		fflush(stdout);
	}
	while (!*failure && n && !stopped) {
		stop_was_asked(POLL_MS);
		shell_node_failure(n, failure, sizeof failure);
		if (!stopped && !*failure && shell_witness_is_rising(n))
			n = rise(o.db, n);
	}
	if (n)
		shell_node_release(n);
	return *failure || (!n && !stopped) ? 1 : 0;
}
