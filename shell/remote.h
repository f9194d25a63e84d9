/* Tables of another cluster, or of this one, read from a host that has no replica:
 *
 *   CREATE VIRTUAL TABLE [temp.]r USING walraft_remote('tcp://HOST:PORT[,tcp://HOST:PORT...]', 'table' [, level='linearizable'] [, timeout=5000]);
 *
 * remote.c is the module (declaring the table, cursors), remote_plan.c what is left to the member, remote_ask.c the connections.
 *
 * Connections: one for each connection of SQLite's, list of addresses and level, made when it is needed, shared by all tables and cursors, and closed with the connection of
 * SQLite's. No thread, and nothing that a fork could harm: a child makes connections of its own.
 *
 * Snapshots: while a cursor is open, the member keeps a read transaction for the connection: cursors that are open at a time see one snapshot. */
#ifndef SHELL_REMOTE_H
#define SHELL_REMOTE_H

#include "wire/ask.h"
#include "wire/query.h"

#include <sqlite3ext.h>

/* SQLITE_ERROR: no rows from the member, the message says why. Not an I/O error, at which SQLite would roll the whole transaction back. */
#define WALRAFT_ERROR_REMOTE (1 | (0x58 << 8))

struct remote_pool; /* of one connection of SQLite's */

struct remote_table {
	sqlite3_vtab base;
	sqlite3 *db;
	struct remote_pool *pool;
	char *urls, *name, *level; /* level "": the member's default */
	uint32_t timeout_ms;
	struct wire_shape *shape;
	enum wire_affinity *affinity; /* of each column as it is declared here */
	uint8_t *collation;           /* the same; WIRE_QUERY_COLLATIONS: one that no member is asked to compare by */
};

/* --- remote_ask.c; rc of wire/err.h --- */

struct remote_pool *remote_pool_new(void);
void remote_pool_free(struct remote_pool *p); /* no answer is open */

/* The answer to one question. */
struct remote_answer {
	struct remote_link *link; /* NULL: none is open */
	uint64_t corr, generation;
	struct wire_buf in;  /* rows received; `used` bytes of it are done with */
	size_t used;
	bool end;            /* in has the last of them */
	struct wire_buf ahead; /* the next piece, which may come while another question is waited for; last: of all */
	bool last;
	bool asked;          /* a further piece is under way */
	bool began;          /* some came */
	uint64_t batch;
	struct wire_err err; /* code 0: none; else the question is over */
	struct remote_answer *next;
};
/* Asks, in place of what was asked before with the same answer, and waits for the first piece. rows: how many are likely to be all that is used; UINT64_MAX: not known. */
int remote_ask(struct remote_answer *a, struct remote_table *t, const struct wire_query *q, uint64_t rows, struct wire_err *err);
int remote_ask_more(struct remote_answer *a, struct remote_table *t, struct wire_err *err); /* appends to a->in, unless that was all */
void remote_ask_end(struct remote_answer *a); /* nothing when it is none; a can be used again */
int remote_ask_shape(struct remote_table *t, struct wire_shape **ret_shape, struct wire_err *err);

/* --- remote_plan.c --- */

int remote_best_index(sqlite3_vtab *tab, sqlite3_index_info *info);

/* What xBestIndex left in idxStr, with the values of xFilter: a question. WIRE_NOTFOUND: no row can be wanted. Free with remote_plan_free, in any case. */
struct remote_plan {
	struct wire_query q;
	bool partial;   /* not all of the conditions are in q */
	uint64_t first; /* rows that are wanted at most; UINT64_MAX: all */
};
int remote_plan_read(const struct remote_table *t, const char *text, int argc, sqlite3_value **argv, struct remote_plan *ret_plan);
void remote_plan_free(struct remote_plan *p);

#endif
