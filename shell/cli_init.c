/* walraft init: an existing database becomes the first node of a new cluster, in place; or one that has been one without an address gets it. */
#include "shell/cli.h"
#include "shell/setup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void reading(uint64_t done, uint64_t total)
{
	cli_progress("reading", done, total);
}

static void put_ids(const struct shell_paths *paths, const struct shell_conf *conf)
{
	printf("{\"path\":\"");
	cli_put_json(stdout, paths->db);
	printf("\",\"cluster\":\"%016" PRIx64 "\",\"group\":\"%016" PRIx64 "\",\"node_id\":\"%016" PRIx64 "\",\"url\":\"%s\"", conf->cluster, conf->group, conf->node,
	       conf->listen);
}

static void report_new(const struct cli_opts *o, const struct shell_paths *paths, const struct shell_setup_result *r)
{
	if (o->json) {
		put_ids(paths, &r->conf);
		printf(",\"pages\":%u,\"page_size\":%u,\"checksum\":\"%016" PRIx64 "\"}\n", r->pages, r->page_size, r->checksum);
		return;
	}
	printf("%s is node %016" PRIx64 " of the new cluster %016" PRIx64 " (%u pages of %u bytes).\n", paths->db, r->conf.node, r->conf.cluster, r->pages, r->page_size);
	if (!*r->conf.listen)
		printf("It has no address: a cluster of one, until walraft init %s --listen URL gives it one.\n", o->db);
	printf("Start it: walraft serve %s, or open file:%s?vfs=walraft in a program.\n", o->db, o->db);
}

static void report_address(const struct cli_opts *o, const struct shell_paths *paths, const struct shell_conf *conf)
{
	if (o->json) {
		put_ids(paths, conf);
		printf("}\n");
		return;
	}
	printf("%s, node %016" PRIx64 " of cluster %016" PRIx64 ", now has the address %s.\n"
	       "Start it: walraft serve %s, or open file:%s?vfs=walraft in a program.\n"
	       "While it runs others join it: walraft join NEWDB --listen THEIR-URL --peer %s\n",
	       paths->db, conf->node, conf->cluster, conf->listen, o->db, o->db, conf->listen);
}

static int init(const struct cli_opts *o, struct wire_err *err)
{
	const struct wire_env *env = wire_env_posix();
	struct shell_paths *paths = malloc(sizeof *paths);
	struct shell_setup_opts opts = { .listen = o->listen, .insecure = o->insecure, .progress = reading };
	struct shell_setup_result r;
	struct shell_conf conf;
	int rc = paths ? cli_sqlite_init(err) : wire_fail(err, WIRE_NOMEM, "out of memory");

	if (!rc)
		rc = shell_paths_make(o->db, paths, err);
	if (!rc) {
		rc = shell_setup_new(env, paths, &opts, &r, err);
		if (!rc)
			report_new(o, paths, &r);
		else if (rc == WIRE_EXISTS && o->listen && !(rc = shell_setup_listen(env, paths, o->listen, o->insecure, &conf, err)))
			report_address(o, paths, &conf);
	}
	free(paths);
	return rc;
}

int cli_init(int argc, char **argv)
{
	struct cli_opts o;
	struct wire_err err;

	if (cli_parse(argc, argv, "lnij", &o))
		return 2;
	return o.help || !init(&o, &err) ? 0 : cli_fail(&o, &err);
}
