#include "shell/cli.h"

#include <stdio.h>
#include <unistd.h>

static void log_line(const char *text)
{
	fprintf(stderr, "walraft: %s\n", text);
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
		rc = shell_node_acquire(o.db, &n, &err);
	if (rc)
		return cli_fail(&o, &err);
	paths = shell_node_paths(n);
	if (shell_conf_read(wire_env_posix(), paths, &conf, &err))
		conf.listen[0] = 0;
	fprintf(stderr, "walraft: serving %s at %s\n", paths->db, *conf.listen ? conf.listen : "(no listener)");
	if (o.json) {
		printf("{\"path\":\"");
		cli_put_json(stdout, paths->db);
		printf("\",\"url\":\"%s\",\"pid\":%ld}\n", conf.listen, (long)getpid());
		fflush(stdout);
	}
	while (!*failure && !cli_wait_signal(500))
		shell_node_failure(n, failure, sizeof failure);
	shell_node_release(n);
	return *failure ? 1 : 0;
}
