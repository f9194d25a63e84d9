/* Whole databases: backup out and in, VACUUM and VACUUM INTO, serialize and deserialize. */
#include "test/hosts/host.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sqlite3 *plain(const char *path, const char *sql)
{
	sqlite3 *db = NULL;

	if (*path == '/')
		unlink(path);
	must(sqlite3_open(path, &db) == SQLITE_OK, "open %s", path);
	sqlite3_extended_result_codes(db, 1);
	exec(db, sql);
	return db;
}

static const char *beside(const char *name)
{
	static char path[5000];

	snprintf(path, sizeof path, "%s/%s", host.dir, name);
	return path;
}

/* Copies in steps of n pages; the code of the last step. */
static int copy(sqlite3 *to, sqlite3 *from, int n)
{
	sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
	int rc;

	if (!b)
		return sqlite3_extended_errcode(to);
	while ((rc = sqlite3_backup_step(b, n)) == SQLITE_OK)
		;
	sqlite3_backup_finish(b);
	return rc;
}

static void backup_out(void)
{
	sqlite3 *db = host_open("-"), *other = host_open("-"), *to;
	sqlite3_backup *b;

	exec(db, "DROP TABLE IF EXISTS saved; CREATE TABLE saved(id INTEGER PRIMARY KEY, pad)");
	exec(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO saved SELECT i, hex(zeroblob(400)) FROM n");
	to = plain(beside("out.db"), "SELECT 1");
	saw_rc(to, "at once", copy(to, db, -1));
	saw_sql(to, "rows of the copy", "SELECT count(*), sum(length(pad)) FROM saved; PRAGMA integrity_check");
	saw_sql(to, "the copy can be written to", "INSERT INTO saved VALUES(1000, 'x'); SELECT count(*) FROM saved");
	host_close(to);
	to = plain(":memory:", "SELECT 1");
	b = sqlite3_backup_init(to, "main", db, "main");
	must(b, "backup: %s", sqlite3_errmsg(to));
	saw("step", "%d", sqlite3_backup_step(b, 5));
	exec(db, "INSERT INTO saved VALUES(300, 'by the same connection')");
	saw("step", "%d", sqlite3_backup_step(b, 5));
	exec(other, "INSERT INTO saved VALUES(301, 'by another')");
	saw("rest", "%d", sqlite3_backup_step(b, -1));
	saw("left", "%d", sqlite3_backup_remaining(b));
	saw("finish", "%d", sqlite3_backup_finish(b));
	saw_sql(to, "rows of the second copy", "SELECT count(*), sum(length(pad)) FROM saved; PRAGMA integrity_check");
	host_close(to);
	saw_sql(db, "rows of the source", "SELECT count(*) FROM saved");
	host_close(db);
	host_close(other);
}

/* Replaces the whole content, with the tables of other cases: that is what a backup does. */
static void backup_in(void)
{
	sqlite3 *db = host_open("-"), *other = host_open("-"), *from;
	sqlite3_backup *b;
	char was[5000];

	snprintf(was, sizeof was, "%s/was.db", host.dir);
	from = plain(was, "SELECT 1");
	must(copy(from, db, -1) == SQLITE_DONE, "save what was");
	host_close(from);
	exec(db, "DROP TABLE IF EXISTS replaced; CREATE TABLE replaced(a)");
	exec(other, "SELECT * FROM replaced");

	from = plain(beside("other-size.db"), "PRAGMA page_size=8192; CREATE TABLE restored(a); INSERT INTO restored VALUES(1)");
	saw_rc(db, "another page size", copy(db, from, -1));
	host_close(from);
	saw_sql(db, "nothing happened", "SELECT count(*) FROM replaced; SELECT count(*) FROM sqlite_schema WHERE name = 'restored'");

	from = plain(beside("same-size.db"), "PRAGMA page_size=4096; CREATE TABLE restored(a, b); INSERT INTO restored VALUES(1, zeroblob(30000)), (2, 'x')");
	b = sqlite3_backup_init(db, "main", from, "main");
	must(b, "backup: %s", sqlite3_errmsg(db));
	saw("first step", "%d", sqlite3_backup_step(b, 3));
	saw_sql(other, "others before it is done", "SELECT count(*) FROM replaced");
	saw("given up", "%d", sqlite3_backup_finish(b));
	saw_sql(other, "others after it was given up", "SELECT count(*) FROM replaced");
	saw_rc(db, "in steps", copy(db, from, 2));
	host_close(from);
	saw_sql(db, "rows", "SELECT a, length(b) FROM restored; PRAGMA integrity_check; PRAGMA journal_mode");
	saw_sql(other, "others", "SELECT count(*) FROM restored; SELECT count(*) FROM sqlite_schema");
	saw_sql(other, "and write", "INSERT INTO restored VALUES(3, 'y'); SELECT count(*) FROM restored");

	from = plain(beside("from-wal.db"), "PRAGMA journal_mode=wal; CREATE TABLE restored(a); INSERT INTO restored VALUES(7)");
	exec(other, "BEGIN; SELECT * FROM restored");
	saw_rc(db, "beside a reader", copy(db, from, -1));
	host_close(from);
	saw_sql(other, "who sees what was", "SELECT a FROM restored");
	exec(other, "COMMIT");
	saw_sql(other, "and then what is", "SELECT a FROM restored");

	exec(db, "BEGIN IMMEDIATE");
	from = plain(":memory:", "PRAGMA page_size=4096; CREATE TABLE m(a)");
	sqlite3_busy_timeout(other, 0);
	saw_rc(other, "while another writes", copy(other, from, -1));
	exec(db, "COMMIT");
	host_close(from);

	must(sqlite3_open(was, &from) == SQLITE_OK, "open %s", was);
	saw_rc(db, "back", copy(db, from, 50));
	host_close(from);
	saw_sql(db, "in order", "PRAGMA integrity_check");
	host_close(db);
	host_close(other);
}

static void vacuum(void)
{
	sqlite3 *db = host_open("-"), *other = host_open("-"), *copy_db;
	char sql[6000];

	exec(db, "DROP TABLE IF EXISTS packed; CREATE TABLE packed(id INTEGER PRIMARY KEY, pad)");
	exec(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO packed SELECT i, hex(zeroblob(900)) FROM n");
	exec(db, "DELETE FROM packed WHERE id % 3");
	saw_sql(db, "pages are free", "SELECT freelist_count > 50 FROM pragma_freelist_count");
	exec(other, "BEGIN; SELECT count(*) FROM packed");
	saw_sql(db, "beside a reader", "VACUUM");
	saw_sql(other, "who reads on", "SELECT count(*) FROM packed; COMMIT");
	saw_sql(db, "packed", "SELECT freelist_count FROM pragma_freelist_count; SELECT count(*) FROM packed; PRAGMA integrity_check");
	saw_sql(db, "page size", "PRAGMA page_size=8192; VACUUM; PRAGMA page_size");
	saw_sql(db, "auto_vacuum", "PRAGMA auto_vacuum=full; VACUUM; PRAGMA auto_vacuum");
	saw_sql(db, "shrinks by itself", "DELETE FROM packed WHERE id > 100; SELECT freelist_count FROM pragma_freelist_count");
	saw_sql(db, "incremental", "PRAGMA auto_vacuum=incremental; VACUUM; PRAGMA auto_vacuum; DELETE FROM packed; SELECT freelist_count > 5 FROM pragma_freelist_count");
	saw_sql(db, "in steps", "PRAGMA incremental_vacuum(3); PRAGMA incremental_vacuum; SELECT freelist_count FROM pragma_freelist_count");
	saw_sql(db, "none", "PRAGMA auto_vacuum=none; VACUUM; PRAGMA auto_vacuum; PRAGMA integrity_check");
	saw_sql(db, "in a transaction", "BEGIN; VACUUM");
	exec(db, "COMMIT");

	exec(db, "INSERT INTO packed VALUES(1, 'into')");
	snprintf(sql, sizeof sql, "%s/into.db", host.dir);
	unlink(sql);
	snprintf(sql, sizeof sql, "VACUUM INTO '%s/into.db'", host.dir);
	saw_sql(db, "into", sql);
	saw_sql(db, "into what exists", sql);
	snprintf(sql, sizeof sql, "%s/into.db", host.dir);
	must(sqlite3_open(sql, &copy_db) == SQLITE_OK, "open %s", sql);
	saw_sql(copy_db, "the copy", "SELECT pad FROM packed; PRAGMA integrity_check; INSERT INTO packed VALUES(2, 'own'); SELECT count(*) FROM packed; PRAGMA journal_mode");
	host_close(copy_db);
	saw_sql(db, "the source", "SELECT count(*) FROM packed");
	host_close(db);
	host_close(other);
}

static void serialize(void)
{
	sqlite3 *db = host_open("-"), *copy_db = plain(":memory:", "SELECT 1");
	sqlite3_int64 n = 0, pages;
	unsigned char *image;

	exec(db, "DROP TABLE IF EXISTS serial; CREATE TABLE serial(a, pad); INSERT INTO serial VALUES(1, zeroblob(9000)), (2, 'x')");
	image = sqlite3_serialize(db, "main", &n, 0);
	pages = ask_int(db, "PRAGMA page_count");
	saw("image", "%d, of all pages %d", image != NULL, n == pages * ask_int(db, "PRAGMA page_size"));
	saw("no copy", "%d", sqlite3_serialize(db, "main", &n, SQLITE_SERIALIZE_NOCOPY) != NULL);
	/* An image in WAL mode cannot be read from memory. */
	image[18] = image[19] = 1;
	saw("into memory", "%d", sqlite3_deserialize(copy_db, "main", image, n, n, SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE));
	saw_sql(copy_db, "the copy", "SELECT a, length(pad) FROM serial; PRAGMA integrity_check; INSERT INTO serial VALUES(3, 'y')");
	saw_sql(db, "the source", "SELECT count(*) FROM serial");
	host_close(copy_db);
	host_close(db);
}

static void deserialize(void)
{
	sqlite3 *db = host_open("-"), *other = host_open("-"), *from = plain(":memory:", "CREATE TABLE elsewhere(a); INSERT INTO elsewhere VALUES(1)");
	sqlite3_int64 n = 0;
	unsigned char *image = sqlite3_serialize(from, "main", &n, 0);

	exec(db, "DROP TABLE IF EXISTS left; CREATE TABLE left(a); INSERT INTO left VALUES(1)");
	exec(db, "BEGIN; INSERT INTO left VALUES(2)");
	saw("in a transaction", "%d", sqlite3_deserialize(db, "main", image, n, n, SQLITE_DESERIALIZE_RESIZEABLE));
	exec(db, "COMMIT");
	saw("deserialize", "%d", sqlite3_deserialize(db, "main", image, n, n, SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE));
	saw_sql(db, "the connection is elsewhere", "INSERT INTO elsewhere VALUES(2); SELECT count(*) FROM elsewhere; SELECT count(*) FROM sqlite_schema; PRAGMA journal_mode");
	if (host.module)
		saw_sql(db, "which can be asked", "SELECT walraft_status()");
	saw_sql(other, "the file is as it was", "SELECT a FROM left; SELECT count(*) FROM sqlite_schema WHERE name = 'elsewhere'");
	saw_sql(other, "others write to it", "INSERT INTO left VALUES(3); SELECT count(*) FROM left");
	host_close(from);
	host_close(db);
	host_close(other);
}

/* On a node that does not lead, with writes to stay there. */
static void copy_out(void)
{
	sqlite3 *db = host_open("-"), *from = plain(":memory:", "PRAGMA page_size=4096; CREATE TABLE m(a)"), *to = plain(":memory:", "SELECT 1");
	sqlite3_blob *b = NULL;
	sqlite3_int64 n = 0;
	unsigned char *image = sqlite3_serialize(db, "main", &n, 0);

	saw_sql(db, "writes", "PRAGMA walraft_write=local");
	saw("serialize", "%d", image != NULL && n > 0);
	sqlite3_free(image);
	saw("backup into it", "%d", copy(db, from, -1) & 0xff);
	host_close(from);
	saw("backup", "%d", copy(to, db, -1));
	saw("blob", "%d", sqlite3_blob_open(db, "main", "serial", "pad", 1, 1, &b) & 0xff);
	sqlite3_blob_close(b);
	host_close(to);
	host_close(db);
}

const struct host_case copy_cases[] = {
	{ "backup-out", backup_out }, { "backup-in", backup_in }, { "vacuum", vacuum }, { "serialize", serialize }, { "deserialize", deserialize }, { "copy-out", copy_out },
	{ 0 },
};
