/* sqlite3_file_control and sqlite3_db_config. */
#include "test/hosts/host.h"
#include <stdio.h>
#include <string.h>

static void control_int(sqlite3 *db, const char *what, int op, int value)
{
	int v = value, rc = sqlite3_file_control(db, "main", op, &v);

	saw(what, "%d, %d", rc, v);
}

static void control_int64(sqlite3 *db, const char *what, int op, sqlite3_int64 value)
{
	sqlite3_int64 v = value;
	int rc = sqlite3_file_control(db, "main", op, &v);

	saw(what, "%d, %lld", rc, (long long)v);
}

static void control_text(sqlite3 *db, const char *what, int op, const char *schema)
{
	char *text = NULL;
	int rc = sqlite3_file_control(db, schema, op, &text);

	saw(what, "%d, %s", rc, text ? text : "NULL");
	sqlite3_free(text);
}

static void controls(void)
{
	sqlite3 *db = host_open("-");
	sqlite3_file *file = NULL, *journal = NULL;
	sqlite3_vfs *vfs = NULL;

	exec(db, "DROP TABLE IF EXISTS controlled; CREATE TABLE controlled(a); INSERT INTO controlled VALUES(1)");
	control_int(db, "PERSIST_WAL asked", SQLITE_FCNTL_PERSIST_WAL, -1);
	control_int(db, "PERSIST_WAL set", SQLITE_FCNTL_PERSIST_WAL, 0);
	control_int(db, "POWERSAFE_OVERWRITE asked", SQLITE_FCNTL_POWERSAFE_OVERWRITE, -1);
	control_int(db, "POWERSAFE_OVERWRITE off", SQLITE_FCNTL_POWERSAFE_OVERWRITE, 0);
	exec(db, "PRAGMA synchronous=full; INSERT INTO controlled VALUES(2)");
	control_int(db, "POWERSAFE_OVERWRITE on", SQLITE_FCNTL_POWERSAFE_OVERWRITE, 1);
	control_int(db, "CHUNK_SIZE", SQLITE_FCNTL_CHUNK_SIZE, 1 << 20);
	control_int64(db, "SIZE_HINT", SQLITE_FCNTL_SIZE_HINT, 5 << 20);
	exec(db, "INSERT INTO controlled VALUES(zeroblob(50000)); DELETE FROM controlled WHERE length(a) > 10");
	control_int(db, "CHUNK_SIZE off", SQLITE_FCNTL_CHUNK_SIZE, 0);
	control_int64(db, "MMAP_SIZE asked", SQLITE_FCNTL_MMAP_SIZE, -1);
	control_int64(db, "MMAP_SIZE set", SQLITE_FCNTL_MMAP_SIZE, 1 << 20);
	control_int64(db, "SIZE_LIMIT", SQLITE_FCNTL_SIZE_LIMIT, -1);
	control_int(db, "HAS_MOVED", SQLITE_FCNTL_HAS_MOVED, 7);
	control_int(db, "LAST_ERRNO", SQLITE_FCNTL_LAST_ERRNO, 7);
	control_int(db, "EXTERNAL_READER", SQLITE_FCNTL_EXTERNAL_READER, 7);
	saw("RESET_CACHE", "%d", sqlite3_file_control(db, "main", SQLITE_FCNTL_RESET_CACHE, NULL));
	control_int(db, "unknown", 7777, 1);
	saw("SYNC", "%d", sqlite3_file_control(db, "main", SQLITE_FCNTL_SYNC, NULL));
	saw("COMMIT_PHASETWO", "%d", sqlite3_file_control(db, "main", SQLITE_FCNTL_COMMIT_PHASETWO, NULL));
	saw("no such schema", "%d", sqlite3_file_control(db, "none", SQLITE_FCNTL_SYNC, NULL));
	if (host.module)
		control_int(db, "LOCK_TIMEOUT", SQLITE_FCNTL_LOCK_TIMEOUT, 100);
	control_text(db, "VFSNAME", SQLITE_FCNTL_VFSNAME, "main");
	exec(db, "ATTACH ':memory:' AS mem; CREATE TABLE mem.m(a)");
	control_text(db, "VFSNAME of memory", SQLITE_FCNTL_VFSNAME, "mem");
	saw("FILE_POINTER", "%d, %d", sqlite3_file_control(db, NULL, SQLITE_FCNTL_FILE_POINTER, &file), file && file->pMethods);
	saw("JOURNAL_POINTER", "%d, %d", sqlite3_file_control(db, NULL, SQLITE_FCNTL_JOURNAL_POINTER, &journal), journal && journal->pMethods);
	saw("VFS_POINTER", "%d, %s", sqlite3_file_control(db, NULL, SQLITE_FCNTL_VFS_POINTER, &vfs), vfs ? vfs->zName : "NULL");
	saw_sql(db, "rows", "SELECT a FROM controlled; PRAGMA integrity_check");
	host_close(db);
}

static int reserve(sqlite3 *db, int bytes)
{
	int v = bytes, rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &v);

	return rc ? -rc : v;
}

/* Bytes at the end of each page that SQLite leaves free: set by the next VACUUM. */
static void reserve_bytes(void)
{
	sqlite3 *db = host_open("-"), *other;

	exec(db, "DROP TABLE IF EXISTS reserved; CREATE TABLE reserved(a); INSERT INTO reserved VALUES(zeroblob(20000))");
	saw("asked", "%d", reserve(db, -1));
	saw("set", "%d", reserve(db, 24));
	saw_sql(db, "vacuum", "VACUUM");
	other = host_open("-");
	exec(other, "SELECT count(*) FROM reserved"); /* until then it goes by the header in the file, which is older than that in the WAL */
	saw("then", "%d", reserve(other, -1));
	saw_sql(other, "rows", "INSERT INTO reserved VALUES(2); SELECT length(a) FROM reserved; PRAGMA integrity_check");
	reserve(db, 0);
	exec(db, "VACUUM");
	saw("back", "%d", reserve(db, -1));
	host_close(db);
	host_close(other);
}

static unsigned version(sqlite3 *db)
{
	unsigned v = 0;

	must(sqlite3_file_control(db, "main", SQLITE_FCNTL_DATA_VERSION, &v) == SQLITE_OK, "data version");
	return v;
}

/* The pragma tells of others' commits only, the control of own ones too. */
static void data_version(void)
{
	sqlite3 *a = host_open("-"), *b = host_open("-");
	int64_t p0, p1, p2, p3;
	unsigned v0, v1, v2;

	exec(a, "DROP TABLE IF EXISTS versions; CREATE TABLE versions(a)");
	exec(a, "SELECT * FROM versions");
	p0 = ask_int(a, "PRAGMA data_version");
	v0 = version(a);
	exec(a, "INSERT INTO versions VALUES(1)");
	p1 = ask_int(a, "PRAGMA data_version");
	v1 = version(a);
	exec(b, "INSERT INTO versions VALUES(2)");
	p2 = ask_int(a, "PRAGMA data_version");
	exec(a, "SELECT * FROM versions");
	v2 = version(a);
	p3 = ask_int(a, "PRAGMA data_version");
	saw("own commit", "pragma %d, control %d", p0 != p1, v0 != v1);
	saw("another's commit", "pragma %d, control %d", p1 != p2, v1 != v2);
	saw("no commit", "pragma %d", p2 != p3);
	host_close(a);
	host_close(b);
}

/* ---- sqlite3_db_config ---- */

static void config_int(sqlite3 *db, const char *what, int op, int value)
{
	int now = -7, rc = sqlite3_db_config(db, op, value, &now);

	saw(what, "%d, %d", rc, now);
}

static void defensive(void)
{
	sqlite3 *db = host_open("-");

	exec(db, "DROP TABLE IF EXISTS guarded; CREATE TABLE guarded(a)");
	config_int(db, "defensive", SQLITE_DBCONFIG_DEFENSIVE, 1);
	saw_sql(db, "schema", "PRAGMA writable_schema=1; UPDATE sqlite_schema SET sql = 'x' WHERE name = 'guarded'");
	saw_sql(db, "journal mode off", "PRAGMA journal_mode=off");
	saw_sql(db, "write", "INSERT INTO guarded VALUES(1); SELECT a FROM guarded");
	config_int(db, "not defensive", SQLITE_DBCONFIG_DEFENSIVE, 0);
	config_int(db, "foreign keys", SQLITE_DBCONFIG_ENABLE_FKEY, 1);
	config_int(db, "no triggers", SQLITE_DBCONFIG_ENABLE_TRIGGER, 0);
	config_int(db, "no trust in the schema", SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0);
	config_int(db, "no strings in double quotes", SQLITE_DBCONFIG_DQS_DML, 0);
	config_int(db, "legacy format", SQLITE_DBCONFIG_LEGACY_FILE_FORMAT, 1);
	sqlite3_db_config(db, SQLITE_DBCONFIG_MAINDBNAME, "first");
	saw_sql(db, "main under another name", "INSERT INTO first.guarded VALUES(2); SELECT a FROM main.guarded; SELECT name FROM pragma_database_list");
	if (host.module)
		saw_sql(db, "still known", "SELECT json_extract(walraft_status(), '$.role')");
	host_close(db);
}

/* Takes everything away, as it does in SQLite. */
static void reset(void)
{
	sqlite3 *db = host_open("-"), *other = host_open("-");

	exec(db, "DROP TABLE IF EXISTS gone; CREATE TABLE gone(a); PRAGMA user_version=77");
	exec(other, "SELECT * FROM gone");
	config_int(db, "on", SQLITE_DBCONFIG_RESET_DATABASE, 1);
	saw_sql(db, "vacuum", "VACUUM");
	config_int(db, "off", SQLITE_DBCONFIG_RESET_DATABASE, 0);
	saw_sql(db, "empty", "SELECT count(*) FROM sqlite_schema; PRAGMA user_version; PRAGMA journal_mode");
	saw_sql(other, "for others too", "SELECT count(*) FROM sqlite_schema");
	saw_sql(other, "and usable", "CREATE TABLE anew(a); INSERT INTO anew VALUES(1); SELECT a FROM anew; PRAGMA integrity_check; PRAGMA journal_mode");
	saw_sql(db, "by both", "INSERT INTO anew VALUES(2); SELECT a FROM anew");
	host_close(db);
	host_close(other);
}

const struct host_case control_cases[] = {
	{ "controls", controls }, { "reserve-bytes", reserve_bytes }, { "data-version", data_version }, { "defensive", defensive }, { "reset-database", reset },
	{ 0 },
};
