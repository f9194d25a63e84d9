/* The WAL format against files that SQLite itself wrote. */
#include "vfs/walfmt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/walraft-walfmt-XXXXXX";

struct image { uint8_t *data; size_t len; };

static struct image slurp(const char *path)
{
	struct image m = { 0 };
	FILE *const f = fopen(path, "rb");

	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	m.len = (size_t)ftell(f);
	rewind(f);
	m.data = malloc(m.len + 1);
	assert_non_null(m.data);
	assert_int_equal(fread(m.data, 1, m.len, f), m.len);
	fclose(f);
	return m;
}

static void sql(sqlite3 *db, const char *text)
{
	char *why = NULL;
	if (sqlite3_exec(db, text, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s: %s", text, why);
}

/* Some commits, one of them with spilled and rewritten frames; then the WAL as it is while the database is open. */
static struct image sqlite_wal(const char *name, int page_size)
{
	char path[128], wal[160], text[128];
	sqlite3 *db = NULL;

	snprintf(path, sizeof path, "%s/%s%d.db", dir, name, page_size);
	snprintf(wal, sizeof wal, "%s-wal", path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	snprintf(text, sizeof text, "PRAGMA page_size=%d", page_size);
	sql(db, text);
	sql(db, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=10");
	sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)");
	for (int i = 0; i < 20; i++)
		sql(db, "INSERT INTO t(b) VALUES(randomblob(200))");
	sql(db, "BEGIN; INSERT INTO t(b) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<300) "
	        "SELECT randomblob(100) FROM c; UPDATE t SET b=randomblob(100) WHERE a%3=0; COMMIT");
	const struct image m = slurp(wal);
	sqlite3_close(db);
	return m;
}

/* Reads every frame, makes it again from its parts, and compares bytes. */
static void check_frames(const struct image *m, uint32_t page_size)
{
	struct vfs_wal_header h;
	uint8_t again[VFS_WAL_HDR];

	assert_true(m->len > VFS_WAL_HDR);
	assert_true(vfs_wal_header_get(m->data, &h));
	assert_int_equal(h.page_size, page_size);
	struct vfs_wal_header copy = h;
	copy.cksum[0] = copy.cksum[1] = 0;
	vfs_wal_header_put(&copy, again);
	assert_memory_equal(again, m->data, VFS_WAL_HDR);
	assert_int_equal(copy.cksum[0], h.cksum[0]);
	assert_int_equal(copy.cksum[1], h.cksum[1]);

	uint32_t sum[2] = { h.cksum[0], h.cksum[1] };
	uint32_t frame = 1, commits = 0;
	for (; vfs_frame_offset(page_size, frame) < m->len; frame++) {
		const uint8_t *const at = m->data + vfs_frame_offset(page_size, frame);
		struct vfs_frame_header f;
		uint8_t made[VFS_FRAME_HDR];

		vfs_frame_get(at, &f);
		assert_memory_equal(f.salt, h.salt, sizeof f.salt);
		vfs_frame_put(&h, f.pgno, f.db_pages, at + VFS_FRAME_HDR, sum, made);
		assert_memory_equal(made, at, VFS_FRAME_HDR);
		assert_int_equal(f.cksum[0], sum[0]);
		assert_int_equal(f.cksum[1], sum[1]);
		commits += f.db_pages != 0;
	}
	assert_int_equal(vfs_frame_offset(page_size, frame), m->len);
	assert_true(commits >= 22);
}

static void same_bytes_as_sqlite(void **state)
{
	(void)state;
	for (int size = 512; size <= 65536; size *= 2) {
		struct image m = sqlite_wal("same", size);
		check_frames(&m, (uint32_t)size);
		free(m.data);
	}
}

/* SQLite takes a WAL that we wrote, with both kinds of checksums, and recovers exactly what is committed in it. */
static void sqlite_recovers_ours(void **state)
{
	(void)state;
	for (int big = 0; big < 2; big++) {
		char path[128], wal[160];
		sqlite3 *db = NULL;
		const uint32_t size = 4096;
		struct image m = sqlite_wal(big ? "big" : "little", (int)size);

		struct vfs_wal_header h;
		assert_true(vfs_wal_header_get(m.data, &h));
		h.big_end_cksum = big != 0;
		h.salt[0] = 0x01020304;
		h.salt[1] = 0xfffefdfc;
		vfs_wal_header_put(&h, m.data);
		uint32_t sum[2] = { h.cksum[0], h.cksum[1] };
		for (uint32_t i = 1; vfs_frame_offset(size, i) < m.len; i++) {
			uint8_t *const at = m.data + vfs_frame_offset(size, i);
			struct vfs_frame_header f;
			vfs_frame_get(at, &f);
			vfs_frame_put(&h, f.pgno, f.db_pages, at + VFS_FRAME_HDR, sum, at);
		}

		snprintf(path, sizeof path, "%s/ours%d.db", dir, big);
		snprintf(wal, sizeof wal, "%s-wal", path);
		/* An empty database in WAL mode: page 1 of the first frame. */
		FILE *f = fopen(path, "wb");
		assert_non_null(f);
		assert_int_equal(fwrite(m.data + VFS_WAL_HDR + VFS_FRAME_HDR, 1, size, f), size);
		fclose(f);
		f = fopen(wal, "wb");
		assert_non_null(f);
		assert_int_equal(fwrite(m.data, 1, m.len, f), m.len);
		fclose(f);

		sqlite3_stmt *stmt = NULL;
		assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
		assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &stmt, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
		assert_int_equal(sqlite3_column_int(stmt, 0), 320);
		sqlite3_finalize(stmt);
		assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
		assert_string_equal((const char *)sqlite3_column_text(stmt, 0), "ok");
		sqlite3_finalize(stmt);
		sqlite3_close(db);
		free(m.data);
	}
}

static void bad_headers_are_refused(void **state)
{
	(void)state;
	struct vfs_wal_header h = { .page_size = 4096, .salt = { 1, 2 } }, got = { .page_size = 7 };
	uint8_t b[VFS_WAL_HDR], bent[VFS_WAL_HDR];

	vfs_wal_header_put(&h, b);
	assert_true(vfs_wal_header_get(b, &got));
	got.page_size = 7;
	for (size_t bit = 0; bit < 8 * VFS_WAL_HDR; bit++) {
		memcpy(bent, b, sizeof b);
		bent[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(vfs_wal_header_get(bent, &got));
		assert_int_equal(got.page_size, 7);
	}
	static const uint32_t sizes[] = { 0, 1, 256, 513, 4095, 131072 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		h.page_size = sizes[i];
		vfs_wal_header_put(&h, b);
		assert_false(vfs_wal_header_get(b, &got));
	}
	memset(b, 0, sizeof b);
	assert_false(vfs_wal_header_get(b, &got));
}

static void checksums_continue(void **state)
{
	(void)state;
	uint8_t bytes[64];
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 37 + 5);
	for (int big = 0; big < 2; big++) {
		uint32_t whole[2] = { 3, 4 }, parts[2] = { 3, 4 }, slow[2] = { 3, 4 };
		vfs_wal_cksum(big, bytes, 64, whole);
		vfs_wal_cksum(big, bytes, 24, parts);
		vfs_wal_cksum(big, bytes + 24, 0, parts);
		vfs_wal_cksum(big, bytes + 24, 40, parts);
		assert_memory_equal(whole, parts, sizeof whole);
		for (size_t i = 0; i < 64; i += 8) {
			uint32_t x[2];
			for (size_t j = 0; j < 2; j++) {
				const uint8_t *const p = bytes + i + 4 * j;
				x[j] = big ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]
				           : (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
			}
			slow[0] += x[0] + slow[1];
			slow[1] += x[1] + slow[0];
		}
		assert_memory_equal(whole, slow, sizeof whole);
	}
}

static void offsets_are_64_bit(void **state)
{
	(void)state;
	assert_true(vfs_frame_offset(4096, 1) == 32);
	assert_true(vfs_frame_offset(4096, 2) == 32 + 24 + 4096);
	assert_true(vfs_frame_offset(65536, 4000000000u) == 32 + 3999999999ull * 65560);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command) != 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_bytes_as_sqlite),  cmocka_unit_test(sqlite_recovers_ours),
		cmocka_unit_test(bad_headers_are_refused), cmocka_unit_test(checksums_continue),
		cmocka_unit_test(offsets_are_64_bit),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
