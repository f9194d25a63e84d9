/* One connection that asks: its database connection, its questions, its answers.
 *
 * While any question is open there is a transaction, which the first one began, with the read gate, and the last one ends: so all see one snapshot. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/query.h"
#include "vfs/vfs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CURSORS_MAX 32u
#define SHAPES_MAX 8u
#define IDLE_S 60u             /* a question's snapshot keeps the WAL from being restarted */
#define DATABASE_IDLE_US 5000000u
#define BATCH_MIN 1024u
#define WORKING_US 1000000u    /* so often an asker hears that it is being worked on */
#define PROGRESS_OPS 2000
#define BUSY_MS 2000

struct cursor {
	uint64_t corr;
	sqlite3_stmt *stmt; /* NULL: all rows were sent */
	bool row, headed;   /* stmt has a row; its length was written */
	int column;         /* next to be written, */
	size_t done;        /* of which so many bytes were */
	struct cursor *next;
};

struct shape { struct shape *next; int64_t version; char *table; struct wire_shape *shape; };

struct query_session {
	struct shell_node *n;
	uint32_t conn;
	sqlite3 *db;
	char *level;
	struct cursor *cursors;
	unsigned n_cursors;
	struct shape *shapes;
	bool expired; /* questions were given up */
	uint64_t used_us;
	atomic_bool stop;
	/* while it works for one */
	uint64_t corr, told_us, working_us;
};

/* --- answers --- */

static void answer(struct query_session *s, const struct wire_msg *m)
{
	struct wire_msg a = *m;

	a.type = WIRE_MSG_QUERY_ROWS;
	a.group = s->n->conf.group;
	if (wire_link_answer(s->n->link, s->conn, &a) == WIRE_BUSY)
		wire_link_hang_up(s->n->link, s->conn); /* it asks, and does not read */
	s->told_us = node_now_us(s->n);
}

/* Whom else to ask: the leader, else a member that can be reached, else any that has the database: this node may have heard of nobody yet. */
static void better_member(struct shell_node *n, char *url, size_t cap)
{
	const struct node_shared *sh = &n->shared;
	const struct raft_member *best = NULL;
	int best_rank = -1;

	pthread_mutex_lock(&n->mu);
	for (uint32_t i = 0; i < sh->config.n; i++) {
		const struct raft_member *m = &sh->config.m[i];
		const int rank = m->id == sh->leader ? 2 : sh->up[i] ? 1 : 0;

		if (m->id == n->conf.node || m->flags & (RAFT_WITNESS | RAFT_AWAITED) || rank <= best_rank)
			continue;
		best = m;
		best_rank = rank;
	}
	snprintf(url, cap, "%s", best ? best->url : "");
	pthread_mutex_unlock(&n->mu);
}

static bool elsewhere(int code)
{
	return code == WIRE_TIMEOUT || code == WIRE_CLOSED || code == WIRE_BUSY || code == WIRE_UNSUPPORTED;
}

void query_session_refuse(struct query_session *s, const struct wire_msg *m, int code, const char *why)
{
	struct wire_msg a = { .corr = m->corr, .flags = WIRE_MSG_REJECT, .hint = (uint64_t)code, .data = (const uint8_t *)why, .data_len = (uint32_t)strlen(why) };

	if (elsewhere(code))
		better_member(s->n, a.text, sizeof a.text);
	answer(s, &a);
}

/* --- the database connection --- */

static int progress(void *ctx)
{
	struct query_session *s = ctx;
	struct wire_msg a = { .corr = s->corr, .hint = 2 };

	if (atomic_load(&s->stop))
		return 1;
	if (node_now_us(s->n) - s->told_us >= s->working_us)
		answer(s, &a);
	return 0;
}

static int sql_failed(struct query_session *s, struct wire_err *err)
{
	int code = sqlite3_extended_errcode(s->db);
	const char *why = vfs_error_text(s->db);

	if (atomic_load(&s->stop))
		return wire_fail(err, WIRE_CLOSED, "this member is ending");
	if (code == WALRAFT_IOERR_READ || code == WALRAFT_IOERR_NODE)
		return wire_fail(err, WIRE_TIMEOUT, "%s", *why ? why : sqlite3_errmsg(s->db));
	if ((code & 0xff) == SQLITE_BUSY)
		return wire_fail(err, WIRE_BUSY, "%s", sqlite3_errmsg(s->db));
	return wire_fail(err, (code & 0xff) == SQLITE_NOMEM ? WIRE_NOMEM : WIRE_IO, "%s", sqlite3_errmsg(s->db));
}

static int run(struct query_session *s, const char *sql, struct wire_err *err)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? WIRE_OK : sql_failed(s, err);
}

static int open_database(struct query_session *s, struct wire_err *err)
{
	struct shell_node *n = s->n;
	int rc;

	if (!n->db)
		return n->conf.witness ? wire_fail(err, WIRE_UNSUPPORTED, "this member is a witness, which has no tables: ask another one")
		                       : wire_fail(err, WIRE_CLOSED, "this member is being repaired: ask another one");
	vfs_thread_serves(true);
	rc = sqlite3_open_v2(n->paths.db, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, "walraft");
	vfs_thread_serves(false);
	if (rc == SQLITE_OK) {
		sqlite3_extended_result_codes(s->db, 1);
		sqlite3_busy_timeout(s->db, BUSY_MS);
		sqlite3_progress_handler(s->db, PROGRESS_OPS, progress, s);
		/* What the schema says is not to reach further than its data: a table there may itself be one of another cluster. */
		sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		sqlite3_create_module_v2(s->db, "walraft_remote", NULL, NULL, NULL);
		return WIRE_OK;
	}
	if (s->db)
		(void)sql_failed(s, err);
	else
		wire_fail(err, WIRE_NOMEM, "no memory for a connection");
	sqlite3_close_v2(s->db);
	s->db = NULL;
	return err->code;
}

static void drop_shapes(struct query_session *s)
{
	while (s->shapes) {
		struct shape *x = s->shapes;

		s->shapes = x->next;
		wire_shape_free(x->shape);
		free(x->table);
		free(x);
	}
}

static void close_database(struct query_session *s)
{
	if (s->db)
		sqlite3_close_v2(s->db);
	s->db = NULL;
	drop_shapes(s);
}

/* --- questions --- */

static struct cursor **find(struct query_session *s, uint64_t corr)
{
	struct cursor **at = &s->cursors;

	while (*at && (*at)->corr != corr)
		at = &(*at)->next;
	return at;
}

static void forget(struct query_session *s, struct cursor **at)
{
	struct cursor *c = *at;

	*at = c->next;
	s->n_cursors--;
	sqlite3_finalize(c->stmt);
	free(c);
}

/* After the last question: the snapshot is over. */
static void end_if_last(struct query_session *s)
{
	if (!s->cursors && s->db && !sqlite3_get_autocommit(s->db))
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

static void forget_all(struct query_session *s)
{
	while (s->cursors)
		forget(s, &s->cursors);
	end_if_last(s);
}

static int begin(struct query_session *s, const struct wire_query *q, struct wire_err *err)
{
	struct vfs_conn *c;
	int rc = s->db ? WIRE_OK : open_database(s, err);

	if (rc)
		return rc;
	if (s->n_cursors)
		return s->level && strcmp(s->level, q->level) == 0 ? WIRE_OK : wire_fail(err, WIRE_INVALID, "questions of several levels on one connection");
	free(s->level);
	s->level = strdup(q->level);
	c = vfs_conn_of(s->db);
	if (!s->level || !c)
		return wire_fail(err, WIRE_NOMEM, "no memory for a question");
	rc = vfs_conn_set_read_level(c, q->level, err);
	if (!rc)
		rc = vfs_conn_set_timeout_ms(c, q->timeout_ms ? q->timeout_ms : 1, err);
	return rc ? rc : run(s, "BEGIN", err);
}

static int schema_version(struct query_session *s, int64_t *ret_version, struct wire_err *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = WIRE_OK;

	if (sqlite3_prepare_v2(s->db, "PRAGMA main.schema_version", -1, &stmt, NULL) != SQLITE_OK || sqlite3_step(stmt) != SQLITE_ROW)
		rc = sql_failed(s, err);
	else
		*ret_version = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return rc;
}

/* In the snapshot. The first to read there is schema_version, which passes the gate. */
static int shape_of(struct query_session *s, const char *table, const struct wire_shape **ret_shape, struct wire_err *err)
{
	struct shape *x;
	int64_t version = 0;
	unsigned n = 0;
	int rc = schema_version(s, &version, err);

	if (rc)
		return rc;
	for (x = s->shapes; x && (x->version != version || strcmp(x->table, table)); x = x->next)
		n++;
	if (!x) {
		if (n >= SHAPES_MAX || (s->shapes && s->shapes->version != version))
			drop_shapes(s);
		x = calloc(1, sizeof *x);
		if (!x || !(x->table = strdup(table))) {
			free(x);
			return wire_fail(err, WIRE_NOMEM, "no memory for the columns of %s", table);
		}
		rc = query_shape(s->db, table, &x->shape, err);
		if (rc) {
			free(x->table);
			free(x);
			return rc;
		}
		x->version = version;
		x->next = s->shapes;
		s->shapes = x;
	}
	*ret_shape = x->shape;
	return WIRE_OK;
}

/* --- rows --- */

static size_t varint_size(uint64_t v)
{
	size_t n = 1;

	while (v >>= 7)
		n++;
	return n;
}

static int value_type(int sqlite_type)
{
	switch (sqlite_type) {
	case SQLITE_INTEGER:
		return WIRE_VALUE_INTEGER;
	case SQLITE_FLOAT:
		return WIRE_VALUE_REAL;
	case SQLITE_TEXT:
		return WIRE_VALUE_TEXT;
	case SQLITE_BLOB:
		return WIRE_VALUE_BLOB;
	default:
		return WIRE_VALUE_NULL;
	}
}

/* UTF-8, whatever the database's encoding. False: no memory. */
static bool bytes_of(sqlite3_stmt *stmt, int column, int type, const uint8_t **ret_p, size_t *ret_n)
{
	*ret_p = type == WIRE_VALUE_TEXT ? sqlite3_column_text(stmt, column) : sqlite3_column_blob(stmt, column);
	*ret_n = (size_t)sqlite3_column_bytes(stmt, column);
	return *ret_p || !*ret_n;
}

static bool put_head(struct cursor *c, struct wire_buf *b)
{
	uint64_t size = 0;

	for (int i = 0; i < sqlite3_column_count(c->stmt); i++) {
		int type = value_type(sqlite3_column_type(c->stmt, i));
		const uint8_t *p;
		size_t n = 0;

		if (type >= WIRE_VALUE_TEXT && !bytes_of(c->stmt, i, type, &p, &n))
			return false;
		size += type >= WIRE_VALUE_TEXT ? 1 + varint_size(n) + n : type == WIRE_VALUE_NULL ? 1u : 9u;
	}
	wire_put_varint(b, size);
	c->headed = true;
	c->column = 0;
	c->done = 0;
	return true;
}

/* The next column, or as much of it as there is room for. Asking for bytes made UTF-8 of the value for good, so its type is asked for by what it was: the
 * conversion keeps it TEXT. */
static bool put_column(struct cursor *c, struct wire_buf *b, size_t max)
{
	int type = value_type(sqlite3_column_type(c->stmt, c->column));
	struct wire_value v = { .type = (uint8_t)type };
	const uint8_t *p = NULL;
	size_t n = 0, take;

	if (type < WIRE_VALUE_TEXT) {
		if (type == WIRE_VALUE_INTEGER)
			v.i = sqlite3_column_int64(c->stmt, c->column);
		else if (type == WIRE_VALUE_REAL)
			v.r = sqlite3_column_double(c->stmt, c->column);
		wire_put_value(b, &v);
		c->column++;
		return true;
	}
	if (!bytes_of(c->stmt, c->column, type, &p, &n))
		return false;
	if (!c->done) {
		wire_put_u8(b, (uint8_t)type);
		wire_put_varint(b, n);
	}
	take = b->len < max ? max - b->len : 1;
	if (take > n - c->done)
		take = n - c->done;
	if (take)
		wire_put_bytes(b, p + c->done, take);
	c->done += take;
	if (c->done == n) {
		c->column++;
		c->done = 0;
	}
	return true;
}

/* Fills b with max bytes or a little more, or with what there is. *ret_end: that was all. */
static int fill(struct query_session *s, struct cursor *c, size_t max, uint64_t rows, struct wire_buf *b, bool *ret_end, struct wire_err *err)
{
	*ret_end = !c->stmt;
	while (!*ret_end && b->len < max && rows) {
		bool ok = true;

		if (!c->row) {
			int rc = sqlite3_step(c->stmt);

			if (rc != SQLITE_ROW && rc != SQLITE_DONE)
				return sql_failed(s, err);
			*ret_end = rc == SQLITE_DONE;
			c->row = rc == SQLITE_ROW;
			c->headed = false;
			continue;
		}
		if (!c->headed)
			ok = put_head(c, b);
		while (ok && c->column < sqlite3_column_count(c->stmt) && b->len < max)
			ok = put_column(c, b, max);
		if (!ok || b->failed)
			return wire_fail(err, WIRE_NOMEM, "no memory for a row");
		c->row = c->column < sqlite3_column_count(c->stmt);
		rows -= !c->row;
	}
	return WIRE_OK;
}

/* Another piece of c's rows, or the error that ends it. */
static int send_rows(struct query_session *s, struct cursor *c, const struct wire_msg *m, struct wire_err *err)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_msg a = { .corr = c->corr };
	bool end = false;
	size_t max = m->commit < BATCH_MIN ? BATCH_MIN : m->commit > WIRE_QUERY_BATCH_MAX ? WIRE_QUERY_BATCH_MAX : (size_t)m->commit;
	int rc = fill(s, c, max, m->term ? m->term : UINT64_MAX, &b, &end, err);

	if (!rc) {
		a.hint = end;
		a.data = b.data;
		a.data_len = (uint32_t)b.len;
		answer(s, &a);
	}
	if (end) { /* the snapshot stays until the question is closed */
		sqlite3_finalize(c->stmt);
		c->stmt = NULL;
	}
	wire_buf_free(&b);
	return rc;
}

/* --- requests --- */

static void send_shape(struct query_session *s, const struct wire_msg *m, const struct wire_shape *shape)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_msg a = { .corr = m->corr, .hint = 1 };

	wire_shape_put(&b, shape);
	a.data = b.data;
	a.data_len = (uint32_t)b.len;
	if (b.failed || b.len > WIRE_MSG_MAX / 2)
		query_session_refuse(s, m, b.failed ? WIRE_NOMEM : WIRE_TOOBIG, "the description of this table is too large");
	else
		answer(s, &a);
	wire_buf_free(&b);
}

static int add_cursor(struct query_session *s, const struct wire_msg *m, const struct wire_query *q, const struct wire_shape *shape, struct cursor **ret_cursor, struct wire_err *err)
{
	struct cursor *c;
	int rc;

	if (q->shape != wire_shape_fingerprint(shape))
		return wire_fail(err, WIRE_CHANGED, "the columns of %s are not what they were when this table was connected; close the connection and open it again, or drop the table and create it anew", q->table);
	if (s->n_cursors >= CURSORS_MAX)
		return wire_fail(err, WIRE_BUSY, "this connection has %u questions open already, and no more are answered at a time", CURSORS_MAX);
	if (*find(s, m->corr))
		return wire_fail(err, WIRE_INVALID, "two questions of one number");
	c = calloc(1, sizeof *c);
	if (!c)
		return wire_fail(err, WIRE_NOMEM, "no memory for a question");
	c->corr = m->corr;
	rc = query_prepare(s->db, q, shape, &c->stmt, err);
	if (rc) {
		free(c);
		return rc;
	}
	c->next = s->cursors;
	s->cursors = c;
	s->n_cursors++;
	*ret_cursor = c;
	return WIRE_OK;
}

static int open_question(struct query_session *s, const struct wire_msg *m, const struct wire_query *q, struct wire_err *err)
{
	const struct wire_shape *shape = NULL;
	struct cursor *c = NULL;
	int rc = WIRE_OK;
	bool removed;

	pthread_mutex_lock(&s->n->mu);
	removed = s->n->shared.removed;
	pthread_mutex_unlock(&s->n->mu);
	if (removed)
		return wire_fail(err, WIRE_CLOSED, "this node was removed from its cluster, and what it has gets no newer: ask a member");
	if (m->index && !*find(s, m->index))
		return wire_fail(err, WIRE_CLOSED, "nothing was asked for for %u s, and the snapshot was given up: run the statement again", IDLE_S);
	s->working_us = q->timeout_ms < 3000 ? q->timeout_ms * 1000ull / 3 : WORKING_US;
	rc = begin(s, q, err);
	if (!rc)
		rc = shape_of(s, q->table, &shape, err);
	if (rc || m->hint) {
		if (!rc)
			send_shape(s, m, shape);
		return rc;
	}
	rc = add_cursor(s, m, q, shape, &c, err);
	if (!rc && m->index)
		forget(s, find(s, m->index));
	if (!rc && (rc = send_rows(s, c, m, err)))
		forget(s, find(s, m->corr));
	return rc;
}

static int do_open(struct query_session *s, const struct wire_msg *m, struct wire_err *err)
{
	struct wire_query *q = NULL;
	int rc = wire_query_get(m->data, m->data_len, &q, err);

	if (!rc)
		rc = open_question(s, m, q, err);
	/* The asker takes the question that it was to replace for closed, too. */
	if (rc && m->index && *find(s, m->index))
		forget(s, find(s, m->index));
	wire_query_free(q);
	return rc;
}

static int do_next(struct query_session *s, const struct wire_msg *m, struct wire_err *err)
{
	struct cursor **at = find(s, m->corr);
	int rc;

	if (!*at)
		return s->expired ? wire_fail(err, WIRE_CLOSED, "nothing was asked for for %u s, and the snapshot was given up: run the statement again", IDLE_S)
		                  : wire_fail(err, WIRE_INVALID, "no such question is open");
	rc = send_rows(s, *at, m, err);
	if (rc)
		forget(s, at);
	return rc;
}

void query_session_do(struct query_session *s, const struct wire_msg *m)
{
	struct wire_err err = { 0 };
	int rc = WIRE_OK;

	s->corr = m->corr;
	s->told_us = node_now_us(s->n);
	if (m->type == WIRE_MSG_QUERY_OPEN)
		rc = do_open(s, m, &err);
	else if (m->type == WIRE_MSG_QUERY_NEXT)
		rc = do_next(s, m, &err);
	else if (*find(s, m->corr))
		forget(s, find(s, m->corr));
	if (rc)
		query_session_refuse(s, m, rc, err.text);
	end_if_last(s);
	s->used_us = node_now_us(s->n);
}

/* --- from the first to the last --- */

struct query_session *query_session_new(struct shell_node *n, uint32_t conn)
{
	struct query_session *s = calloc(1, sizeof *s);

	if (s) {
		s->n = n;
		s->conn = conn;
		s->used_us = node_now_us(n);
	}
	return s;
}

void query_session_free(struct query_session *s)
{
	forget_all(s);
	close_database(s);
	free(s->level);
	free(s);
}

bool query_session_expire(struct query_session *s, uint64_t now_us)
{
	if (s->cursors && now_us > s->used_us + IDLE_S * 1000000ull) {
		forget_all(s);
		s->expired = true;
	}
	if (s->db && !s->cursors && now_us > s->used_us + DATABASE_IDLE_US)
		close_database(s);
	return s->db;
}

bool query_session_has_database(const struct query_session *s)
{
	return s->db;
}

void query_session_stop(struct query_session *s)
{
	atomic_store(&s->stop, true);
}
