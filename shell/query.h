/* Questions from hosts without a replica (wire/query.h): what a node does about them. query.c has the sessions and threads, query_session.c answers, query_sql.c
 * makes SELECTs. */
#ifndef SHELL_QUERY_H
#define SHELL_QUERY_H

#include "shell/node_impl.h"
#include "wire/query.h"

struct sqlite3;
struct sqlite3_stmt;
struct query_session;

/* query_session.c; on one thread at a time for each session. A session is a connection that asks; all its questions that are open at a time see one snapshot. */
struct query_session *query_session_new(struct shell_node *n, uint32_t conn);
void query_session_free(struct query_session *s); /* closes its database, too */
void query_session_do(struct query_session *s, const struct wire_msg *m);
void query_session_refuse(struct query_session *s, const struct wire_msg *m, int code, const char *why);
/* Gives up what was not used since then: questions first, then the database. False: nothing is left that could be given up later. */
bool query_session_expire(struct query_session *s, uint64_t now_us);
bool query_session_has_database(const struct query_session *s);
/* Any thread: what it does fails soon, and so does all that is asked of it later. */
void query_session_stop(struct query_session *s);

/* query_sql.c */
/* WIRE_NOTFOUND: there is no such table or view. Anything else is SQLite's error, of which db tells. */
int query_shape(struct sqlite3 *db, const char *table, struct wire_shape **ret_shape, struct wire_err *err);
/* WIRE_INVALID: the question is none about this table. */
int query_prepare(struct sqlite3 *db, const struct wire_query *q, const struct wire_shape *s, struct sqlite3_stmt **ret_stmt, struct wire_err *err);

#endif
