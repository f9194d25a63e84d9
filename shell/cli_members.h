/* Asking about a group, for the commands: by the node of a database on this host, which asks the leader. One thread. */
#ifndef SHELL_CLI_MEMBERS_H
#define SHELL_CLI_MEMBERS_H

#include "shell/cli.h"

#define CLI_ID_BYTES 17 /* 16 hex digits */

struct cli_group {
	const struct cli_opts *o;
	struct shell_paths *paths;
	struct shell_conf conf;
	sqlite3 *sql;           /* takes answers apart */
	struct wire_buf answer; /* the latest, JSON with a NUL */
	char state[16], text[512];
	char told_text[512];
	uint64_t tell_at_ms;
	bool told;
};

/* The caller closes it also after a failure. */
int cli_group_open(struct cli_group *g, const struct cli_opts *o, struct wire_err *err);
void cli_group_close(struct cli_group *g);
/* One question, one answer: state, text and the rest as shell/change.c describes them. WIRE_CLOSED: no node runs; WIRE_TIMEOUT: it does not answer. */
int cli_group_ask(struct cli_group *g, const char *line, struct wire_err *err);
/* Asks until it is done, refused, the time of --timeout is over or a signal comes (cli_signals_block); what it waits for is told on stderr. without_us: it is done, too, when this
 * node is no member any more. */
int cli_group_drive(struct cli_group *g, const char *line, bool without_us, struct wire_err *err);
const char *cli_group_json(const struct cli_group *g);
/* First column of the last row of sql, with the latest answer as ?1 and text as ?2; "" none. */
int cli_group_get(struct cli_group *g, const char *sql, const char *text, char *dst, size_t cap, struct wire_err *err);
/* The member that a person means by an address, an id, or the beginning of one; from the latest answer. WIRE_NOTFOUND, WIRE_INVALID (several). */
int cli_group_member(struct cli_group *g, const char *name, char id[CLI_ID_BYTES], struct wire_err *err);
int cli_group_show(struct cli_group *g, struct wire_err *err); /* the latest answer, as a table or JSON */

#endif
