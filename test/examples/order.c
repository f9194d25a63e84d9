/* walraft in an application in C.
 *
 * Usage: order MODULE DATABASE [SECONDS]
 * Places one order in a database that is set up, and tries for so many seconds (30). */
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { NOT_LEADER = 22280, NOT_COMMITTED = 22282, UNKNOWN = 22538, FENCED = 22794, NO_MAJORITY = 23050 };

struct order {
	sqlite3 *db;
	const char *id; /* made by the client, once for all tries */
};

/* Runs a statement with the order's id as its parameter, if it has one. text: its first value, "" without a row. The extended code. */
static int run(const struct order *o, const char *sql, char *text, size_t size)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(o->db, sql, -1, &s, NULL);

	*text = '\0';
	if (rc)
		return rc;
	if (sqlite3_bind_parameter_count(s))
		sqlite3_bind_text(s, 1, o->id, -1, SQLITE_STATIC);
	while ((rc = sqlite3_step(s)) == SQLITE_ROW)
		if (sqlite3_column_text(s, 0))
			snprintf(text, size, "%s", (const char *)sqlite3_column_text(s, 0));
	return sqlite3_finalize(s);
}

/* Why it is worth another try; NULL: it is not. After these nothing of the transaction is there, but after UNKNOWN it may be. */
static const char *why_again(const struct order *o, int code, char *text, size_t size)
{
	char leader[256];

	switch (code) {
	case SQLITE_BUSY:
		return "locked";
	case NOT_COMMITTED:
		return "not committed";
	case UNKNOWN:
		return "outcome unknown";
	case FENCED:
		return "leadership was lost";
	case NO_MAJORITY:
		return "no majority answers";
	case NOT_LEADER:
		if (run(o, "SELECT walraft_leader()", leader, sizeof leader) || !*leader)
			return "an election is under way";
		snprintf(text, size, "%s leads", leader);
		return text;
	default:
		return NULL;
	}
}

/* Looks first: an earlier try may have come through. */
static int try_to_place(const struct order *o)
{
	char found[8];
	int rc = run(o, "BEGIN IMMEDIATE", found, sizeof found);

	if (rc == SQLITE_OK)
		rc = run(o, "SELECT 1 FROM orders WHERE id = ?", found, sizeof found);
	if (rc == SQLITE_OK && !*found) {
		rc = run(o, "INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)", found, sizeof found);
		if (rc == SQLITE_OK)
			rc = run(o, "UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'", found, sizeof found);
	}
	if (rc == SQLITE_OK)
		rc = run(o, "COMMIT", found, sizeof found);
	return rc;
}

/* Tries until the transaction is committed. */
static bool place(const struct order *o, int patience_s)
{
	time_t deadline = time(NULL) + patience_s;
	char text[300];

	for (;;) {
		int rc = try_to_place(o);
		const char *why;

		if (rc == SQLITE_OK)
			return true;
		if (!sqlite3_get_autocommit(o->db))
			sqlite3_exec(o->db, "ROLLBACK", NULL, NULL, NULL);
		why = why_again(o, rc, text, sizeof text);
		if (!why) {
			fprintf(stderr, "failed: %s (%d)\n", sqlite3_errstr(rc), rc);
			return false;
		}
		printf("retry: %d %s\n", rc, why);
		if (time(NULL) >= deadline) {
			fprintf(stderr, "gave up: %s\n", why);
			return false;
		}
		sqlite3_sleep(100);
	}
}

/* The module stays loaded for the whole process. */
static bool load(const char *module)
{
	sqlite3 *db = NULL;
	char *error = NULL;
	bool ok = sqlite3_open(":memory:", &db) == SQLITE_OK &&
	          sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL) == SQLITE_OK &&
	          sqlite3_load_extension(db, module, NULL, &error) == SQLITE_OK;

	if (!ok)
		fprintf(stderr, "%s\n", error ? error : sqlite3_errmsg(db));
	sqlite3_free(error);
	sqlite3_close(db);
	return ok;
}

static sqlite3 *open_db(const char *path, const char *read_level)
{
	char *pragma = sqlite3_mprintf("PRAGMA walraft_timeout=2000; PRAGMA walraft_read=%Q;", read_level);
	sqlite3 *db = NULL;

	/* As an argument the VFS needs no URI, and parameters are set by PRAGMA instead. */
	if (!pragma || sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "walraft") ||
	    sqlite3_extended_result_codes(db, 1) || sqlite3_busy_timeout(db, 5000) ||
	    sqlite3_exec(db, pragma, NULL, NULL, NULL)) {
		fprintf(stderr, "%s\n", db ? sqlite3_errmsg(db) : "out of memory");
		sqlite3_close(db);
		db = NULL;
	}
	sqlite3_free(pragma);
	return db;
}

static bool show(const char *level, const struct order *o)
{
	char text[80];
	int rc = run(o, "SELECT pieces || ' ' || item FROM orders WHERE id = ?", text, sizeof text);

	if (rc)
		fprintf(stderr, "%s: %s\n", level, sqlite3_errmsg(o->db));
	else
		printf("%s: %s\n", level, text);
	return rc == SQLITE_OK;
}

int main(int argc, char **argv)
{
	struct order order = { .id = "c" }, stale = order;
	bool ok = false;

	if (argc < 3) {
		fprintf(stderr, "usage: order MODULE DATABASE [SECONDS]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (load(argv[1]) && (order.db = open_db(argv[2], "linearizable"))) {
		ok = place(&order, argc > 3 ? atoi(argv[3]) : 30);
		if (ok)
			printf("written: %s\n", order.id);
		stale.db = ok ? open_db(argv[2], "stale") : NULL; /* fast, and a few milliseconds behind */
		ok = stale.db && show("stale", &stale) && show("default", &order);
	}
	sqlite3_close(stale.db);
	sqlite3_close(order.db);
	return ok ? 0 : 1;
}
