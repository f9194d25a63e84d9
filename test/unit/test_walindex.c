/* The wal-index against the -shm that SQLite keeps, and against a plain array as a model. */
#include "vfs/walfmt.h"
#include "vfs/walindex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REGIONS 8

static char dir[] = "/tmp/walraft-walindex-XXXXXX";
static uint64_t seed;

/* Regions in one piece of memory; those from `had` on cannot be had. */
struct memory { uint8_t *base; uint32_t had; };

static void *get(void *ctx, uint32_t region)
{
	struct memory *const m = ctx;
	return region < m->had ? m->base + (size_t)region * VFS_REGION_BYTES : NULL;
}

static struct memory memory_new(void)
{
	return (struct memory){ calloc(REGIONS, VFS_REGION_BYTES), REGIONS };
}

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

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

static void regions_of_frames(void **state)
{
	(void)state;
	assert_int_equal(vfs_walindex_region_of(1), 0);
	assert_int_equal(vfs_walindex_region_of(4062), 0);
	assert_int_equal(vfs_walindex_region_of(4063), 1);
	assert_int_equal(vfs_walindex_region_of(8158), 1);
	assert_int_equal(vfs_walindex_region_of(8159), 2);
	assert_int_equal(vfs_walindex_region_of(0xffffffffu), (0xffffffffu - 4063) / 4096 + 1);
}

/* Makes the wal-index of the WAL file from nothing and compares it with the -shm that SQLite has made meanwhile. */
static void compare_with_shm(const char *path)
{
	char name[160];
	snprintf(name, sizeof name, "%s-wal", path);
	struct image wal = slurp(name);
	snprintf(name, sizeof name, "%s-shm", path);
	struct image shm = slurp(name);
	struct memory ours = memory_new();
	struct memory theirs = { shm.data, (uint32_t)(shm.len / VFS_REGION_BYTES) };
	const struct vfs_regions r = { &ours, get }, s = { &theirs, get };
	struct vfs_walindex_hdr hdr;
	struct vfs_wal_header h;

	assert_true(vfs_walindex_read_header(shm.data, false, &hdr));
	assert_true(vfs_wal_header_get(wal.data, &h));
	uint32_t sum[2] = { h.cksum[0], h.cksum[1] };
	struct vfs_walindex_hdr made = { .page_size = (uint16_t)(h.page_size == 65536 ? 1 : h.page_size),
	                                 .change = hdr.change, .big_end_cksum = h.big_end_cksum };
	memcpy(made.salt, wal.data + 16, sizeof made.salt);

	for (uint32_t i = 1; i <= hdr.mx_frame; i++) {
		const uint8_t *const at = wal.data + vfs_frame_offset(h.page_size, i);
		struct vfs_frame_header f;
		uint8_t again[VFS_FRAME_HDR];

		vfs_frame_get(at, &f);
		vfs_frame_put(&h, f.pgno, f.db_pages, at + VFS_FRAME_HDR, sum, again);
		assert_memory_equal(at, again, sizeof again);
		assert_int_equal(vfs_walindex_append(&r, i, f.pgno, NULL), WIRE_OK);
		assert_int_equal(vfs_walindex_pgno(&s, i), f.pgno);
		if (f.db_pages != 0) {
			made.mx_frame = i;
			made.n_page = f.db_pages;
			memcpy(made.frame_cksum, sum, sizeof sum);
		}
	}
	vfs_walindex_write_header(ours.base, &made);
	assert_memory_equal(ours.base, shm.data, 96);
	for (uint32_t region = 0; region <= vfs_walindex_region_of(hdr.mx_frame); region++) {
		/* Above the last frame SQLite may have left remnants of a rolled back transaction, but here it has not. */
		const size_t from = region == 0 ? 136 : 0;
		assert_memory_equal(ours.base + (size_t)region * VFS_REGION_BYTES + from,
		                    shm.data + (size_t)region * VFS_REGION_BYTES + from, VFS_REGION_BYTES - from);
	}
	for (uint32_t pgno = 1; pgno <= hdr.n_page + 5; pgno++) {
		for (int i = 0; i < 4; i++) {
			const uint32_t mx = i == 0 ? hdr.mx_frame : 1 + (uint32_t)(next_random() % hdr.mx_frame);
			const uint32_t min = i < 2 ? 1 : 1 + (uint32_t)(next_random() % mx);
			uint32_t expected = mx;
			while (expected >= min && vfs_walindex_pgno(&s, expected) != pgno)
				expected--;
			if (expected < min)
				expected = 0;
			assert_int_equal(vfs_walindex_find(&r, pgno, min, mx), expected);
			assert_int_equal(vfs_walindex_find(&s, pgno, min, mx), expected);
		}
	}
	free(ours.base);
	free(shm.data);
	free(wal.data);
}

static void same_bytes_as_sqlite(void **state)
{
	static const int sizes[] = { 512, 1024, 4096, 65536 };
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		char path[128], text[64];
		sqlite3 *db = NULL;

		snprintf(path, sizeof path, "%s/p%d.db", dir, sizes[i]);
		assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
		snprintf(text, sizeof text, "PRAGMA page_size=%d", sizes[i]);
		sql(db, text);
		sql(db, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF");
		sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
		/* Above 4,062 and 8,158 frames for the smaller pages. */
		const int rounds = sizes[i] <= 1024 ? 5200 : sizes[i] == 4096 ? 4100 : 300;
		for (int k = 0; k < rounds; k++)
			sql(db, "INSERT INTO t(b) VALUES(randomblob(100))");
		compare_with_shm(path);
		sql(db, "BEGIN; DELETE FROM t WHERE a%3=0; UPDATE t SET b=zeroblob(10) WHERE a%7=0; COMMIT");
		compare_with_shm(path);
		/* Restarted: region 0 starts anew over what was there. */
		sql(db, "PRAGMA wal_checkpoint(RESTART); INSERT INTO t(b) VALUES(1); INSERT INTO t(b) VALUES(2)");
		compare_with_shm(path);
		sqlite3_close(db);
	}
}

/* Random appends, ends of a writer in the middle, and lookups of readers at any earlier header; the model is an array. */
static void lookups_equal_the_model(void **state)
{
	(void)state;
	for (int round = 0; round < 6; round++) {
		struct memory m = memory_new();
		const struct vfs_regions r = { &m, get };
		static uint32_t model[1 + 30000];
		const uint32_t most = 20000, spread = round < 3 ? 50 : 100000;
		uint32_t mx = 0;

		if (round % 2 == 1)
			for (size_t i = 0; i < (size_t)REGIONS * VFS_REGION_BYTES; i++)
				m.base[i] = (uint8_t)next_random(); /* rubbish in regions that nobody has begun */
		while (mx < most) {
			/* One that dies leaves frames above mx; the next writer's start there over. */
			const bool dies = next_random() % 4 == 0;
			uint32_t n = 1 + (uint32_t)(next_random() % 40);
			if (next_random() % 50 == 0)
				n += 4500;
			for (uint32_t i = 1; i <= n && mx + i < 30000; i++) {
				const uint32_t pgno = 1 + (uint32_t)(next_random() % spread);
				assert_int_equal(vfs_walindex_append(&r, mx + i, pgno, NULL), WIRE_OK);
				if (!dies)
					model[mx + i] = pgno;
			}
			if (!dies)
				mx = mx + n < 30000 ? mx + n : 29999;
			for (int i = 0; mx > 0 && i < 5; i++) {
				const uint32_t at = 1 + (uint32_t)(next_random() % mx), min = 1 + (uint32_t)(next_random() % at);
				const uint32_t pgno = i == 0 ? model[at] : 1 + (uint32_t)(next_random() % spread);
				uint32_t expected = at;
				while (expected >= min && model[expected] != pgno)
					expected--;
				assert_int_equal(vfs_walindex_find(&r, pgno, min, at), expected < min ? 0 : expected);
			}
		}
		free(m.base);
	}
}

static void headers(void **state)
{
	(void)state;
	struct memory m = memory_new();
	struct vfs_walindex_hdr h = { .change = 5, .page_size = 4096, .mx_frame = 10, .n_page = 3 }, got = { 0 };
	struct vfs_walindex_hdr newer;

	assert_false(vfs_walindex_read_header(m.base, true, &got)); /* zeros */
	vfs_walindex_write_header(m.base, &h);
	assert_true(vfs_walindex_read_header(m.base, false, &got));
	assert_memory_equal(&got, &h, sizeof h);
	assert_int_equal(got.version, 3007000);
	assert_int_equal(got.is_init, 1);

	/* A writer that stopped between the copies. */
	uint8_t *const other = calloc(1, VFS_REGION_BYTES);
	newer = h;
	newer.mx_frame = 20;
	vfs_walindex_write_header(other, &newer);
	memcpy(m.base + 48, other + 48, 48);
	assert_false(vfs_walindex_read_header(m.base, false, &got));
	assert_true(vfs_walindex_read_header(m.base, true, &got));
	assert_int_equal(got.mx_frame, 10);
	m.base[3] ^= 1;
	assert_true(vfs_walindex_read_header(m.base, true, &got));
	assert_int_equal(got.mx_frame, 20);
	m.base[50] ^= 1;
	assert_false(vfs_walindex_read_header(m.base, true, &got));

	/* Equal but wrong, in any bit. */
	for (size_t bit = 0; bit < 48 * 8; bit++) {
		vfs_walindex_write_header(m.base, &h);
		m.base[bit / 8] ^= (uint8_t)(1u << bit % 8);
		m.base[48 + bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(vfs_walindex_read_header(m.base, true, &got));
	}
	struct vfs_ckpt_info *const info = vfs_walindex_ckpt_info(m.base);
	assert_ptr_equal(info, m.base + 96);
	free(other);
	free(m.base);
}

static void growth_fails_and_damage_is_told(void **state)
{
	(void)state;
	struct memory m = memory_new();
	const struct vfs_regions r = { &m, get };
	struct wire_err err = { 0 };

	m.had = 1;
	for (uint32_t i = 1; i <= VFS_REGION0_FRAMES; i++)
		assert_int_equal(vfs_walindex_append(&r, i, i, &err), WIRE_OK);
	assert_int_equal(vfs_walindex_append(&r, VFS_REGION0_FRAMES + 1, 7, &err), WIRE_NOMEM);
	assert_int_equal(err.code, WIRE_NOMEM);
	assert_int_equal(vfs_walindex_find(&r, 7, 1, VFS_REGION0_FRAMES), 7);

	/* All slots taken: neither an append nor a lookup may run for ever. */
	m.had = 2;
	assert_int_equal(vfs_walindex_append(&r, VFS_REGION0_FRAMES + 1, 7, &err), WIRE_OK);
	memset(m.base + 2 * VFS_REGION_BYTES - 16384, 1, 16384);
	assert_int_equal(vfs_walindex_append(&r, VFS_REGION0_FRAMES + 2, 7, &err), WIRE_CORRUPT);
	assert_int_equal(vfs_walindex_find(&r, 9999, 1, VFS_REGION0_FRAMES + 1), 0);
	free(m.base);
}

/* ---- a reader in another process, while a writer appends, dies and publishes ---- */

#define LAST_FRAME 24000u
#define PAGES 64u

static uint32_t page_of(uint32_t frame)
{
	return 1 + (frame * 2654435761u >> 7) % PAGES;
}

/* Returns the number of lookups, -1 after a wrong one. */
static int read_beside(const struct vfs_regions *r, uint8_t *base, atomic_uint *stop)
{
	int lookups = 0;
	uint32_t rotate = 0;
	while (!atomic_load(stop)) {
		struct vfs_walindex_hdr h;
		if (!vfs_walindex_read_header(base, false, &h) || h.mx_frame == 0)
			continue;
		const uint32_t pgno = 1 + rotate++ % PAGES;
		uint32_t expected = h.mx_frame;
		while (expected > 0 && page_of(expected) != pgno)
			expected--;
		if (vfs_walindex_find(r, pgno, 1, h.mx_frame) != expected)
			return -1;
		lookups++;
	}
	return lookups;
}

static void readers_beside_a_writer(void **state)
{
	(void)state;
	uint8_t *const shared = mmap(NULL, (REGIONS + 1) * VFS_REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(shared, MAP_FAILED);
	struct memory m = { shared, REGIONS };
	const struct vfs_regions r = { &m, get };
	atomic_uint *const stop = (atomic_uint *)(void *)(shared + REGIONS * VFS_REGION_BYTES);
	atomic_uint *const ready = stop + 1;

	const pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		atomic_store(ready, 1);
		const int n = read_beside(&r, shared, stop);
		_exit(n < 0 ? 1 : n < 100 ? 2 : 0);
	}
	while (!atomic_load(ready))
		sched_yield();
	struct vfs_walindex_hdr h = { .page_size = 4096 };
	for (uint32_t mx = 0; mx < LAST_FRAME;) {
		const uint32_t n = 1 + (uint32_t)(next_random() % 12);
		if (next_random() % 8 == 0) /* a writer that dies */
			for (uint32_t i = 1; i <= n; i++)
				assert_int_equal(vfs_walindex_append(&r, mx + i, 1 + (uint32_t)(next_random() % PAGES), NULL), WIRE_OK);
		for (uint32_t i = 1; i <= n; i++)
			assert_int_equal(vfs_walindex_append(&r, mx + i, page_of(mx + i), NULL), WIRE_OK);
		mx += n;
		h.mx_frame = mx;
		h.change++;
		vfs_walindex_write_header(shared, &h);
		if (mx % 64 == 0)
			sched_yield();
	}
	atomic_store(stop, 1);
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), 1);
	munmap(shared, (REGIONS + 1) * VFS_REGION_BYTES);
}

struct beside { const struct vfs_regions *r; uint8_t *base; atomic_uint stop; int lookups; };

static void *reader_thread(void *arg)
{
	struct beside *const b = arg;
	b->lookups = read_beside(b->r, b->base, &b->stop);
	return NULL;
}

/* The same among threads, where ThreadSanitizer sees every access. */
static void reader_threads_beside_a_writer(void **state)
{
	(void)state;
	struct memory m = memory_new();
	const struct vfs_regions r = { &m, get };
	struct beside b = { .r = &r, .base = m.base };
	pthread_t thread;
	struct vfs_walindex_hdr h = { .page_size = 4096 };

	assert_int_equal(pthread_create(&thread, NULL, reader_thread, &b), 0);
	for (uint32_t mx = 0; mx < LAST_FRAME; mx += 3) {
		for (uint32_t i = 1; mx % 7 == 0 && i <= 3; i++)
			assert_int_equal(vfs_walindex_append(&r, mx + i, 1 + (mx + 5 * i) % PAGES, NULL), WIRE_OK);
		for (uint32_t i = 1; i <= 3; i++)
			assert_int_equal(vfs_walindex_append(&r, mx + i, page_of(mx + i), NULL), WIRE_OK);
		h.mx_frame = mx + 3;
		vfs_walindex_write_header(m.base, &h);
	}
	atomic_store(&b.stop, 1);
	pthread_join(thread, NULL);
	assert_true(b.lookups >= 0);
	free(m.base);
}

static int set_up(void **state)
{
	const char *const given = getenv("WALRAFT_SEED");
	(void)state;
	seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	if (seed == 0)
		seed = 1;
	printf("# seed %llu; again with WALRAFT_SEED=%llu test/unit/test_walindex\n", (unsigned long long)seed,
	       (unsigned long long)seed);
	fflush(stdout);
	return mkdtemp(dir) == NULL;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command) != 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(regions_of_frames),        cmocka_unit_test(same_bytes_as_sqlite),
		cmocka_unit_test(lookups_equal_the_model),  cmocka_unit_test(headers),
		cmocka_unit_test(growth_fails_and_damage_is_told), cmocka_unit_test(readers_beside_a_writer),
		cmocka_unit_test(reader_threads_beside_a_writer),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
