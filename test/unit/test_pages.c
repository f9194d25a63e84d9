#include "vfs/pages.h"
#include "wire/buf.h"
#include "wire/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char dir[] = "/tmp/walraft-pages-XXXXXX";
static uint64_t seed;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static const char *path_of(const char *name)
{
	static char path[160];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void resize(struct vfs_pages *p, uint32_t n)
{
	assert_int_equal(vfs_pages_resize(p, n, NULL), WIRE_OK);
}

static int flush(struct vfs_pages *p, uint64_t index, const struct wire_env *env, const char *path, struct wire_err *err)
{
	struct vfs_pages_flush *f = NULL;
	assert_int_equal(vfs_pages_flush_begin(p, index, &f, err), WIRE_OK);
	const int rc = vfs_pages_flush_write(f, env, path, err);
	if (rc != WIRE_OK)
		vfs_pages_dirty_all(p);
	return rc;
}

/* The file says the same as memory. */
static void check_file(const struct vfs_pages *p, const char *path, uint64_t group, uint64_t index)
{
	struct vfs_pages *q = NULL;
	uint64_t at = 0;
	assert_int_equal(vfs_pages_load(wire_env_posix(), path, group, &q, &at, NULL), WIRE_OK);
	assert_true(at == index);
	assert_int_equal(vfs_pages_count(q), vfs_pages_count(p));
	assert_true(vfs_pages_checksum(q) == vfs_pages_checksum(p));
	for (uint32_t i = 1; i <= vfs_pages_count(p); i++) {
		assert_true(vfs_pages_hash(q, i) == vfs_pages_hash(p, i));
		assert_true(vfs_pages_changed(q, i) == vfs_pages_changed(p, i));
	}
	vfs_pages_free(q);
}

static void sets_and_sizes(void **state)
{
	(void)state;
	struct vfs_pages *const p = vfs_pages_new(4096, 1);

	assert_int_equal(vfs_pages_count(p), 0);
	assert_true(vfs_pages_hash(p, 0) == 0 && vfs_pages_hash(p, 1) == 0 && vfs_pages_checksum(p) == 0);
	resize(p, 10);
	vfs_pages_set(p, 1, 0x11, 5);
	vfs_pages_set(p, 10, 0x22, 6);
	assert_true(vfs_pages_checksum(p) == 0x33);
	vfs_pages_set(p, 1, 0x44, 7);
	assert_true(vfs_pages_checksum(p) == 0x66);
	assert_true(vfs_pages_changed(p, 1) == 7 && vfs_pages_changed(p, 10) == 6 && vfs_pages_changed(p, 11) == 0);
	resize(p, 9);
	assert_true(vfs_pages_checksum(p) == 0x44 && vfs_pages_hash(p, 10) == 0);
	resize(p, 10);
	assert_true(vfs_pages_hash(p, 10) == 0 && vfs_pages_changed(p, 10) == 0 && vfs_pages_checksum(p) == 0x44);
	resize(p, 0);
	assert_true(vfs_pages_checksum(p) == 0);
	vfs_pages_free(p);
	vfs_pages_free(NULL);
}

static void lock_page(void **state)
{
	(void)state;
	assert_true(vfs_pages_is_lock_page(4096, 262145));
	assert_false(vfs_pages_is_lock_page(4096, 262144));
	assert_false(vfs_pages_is_lock_page(4096, 262146));
	assert_true(vfs_pages_is_lock_page(512, 2097153));
	assert_true(vfs_pages_is_lock_page(65536, 16385));

	struct vfs_pages *const p = vfs_pages_new(65536, 1);
	resize(p, 20000);
	vfs_pages_set(p, 16385, 99, 1);
	assert_true(vfs_pages_hash(p, 16385) == 0 && vfs_pages_checksum(p) == 0);
	vfs_pages_free(p);
}

/* Random changes, sizes and flushes; after each flush the file is the same as memory. */
static void files_follow_memory(void **state)
{
	(void)state;
	const char *const path = path_of("follow");
	struct vfs_pages *p = vfs_pages_new(1024, 77);

	for (uint64_t index = 1; index <= 60; index++) {
		const uint32_t n = (uint32_t)(next_random() % 3 == 0 ? next_random() % 20000 : vfs_pages_count(p) + next_random() % 300);
		resize(p, n);
		for (uint64_t i = next_random() % 100; n > 0 && i > 0; i--)
			vfs_pages_set(p, 1 + (uint32_t)(next_random() % n), next_random(), index);
		assert_int_equal(flush(p, index, wire_env_posix(), path, NULL), WIRE_OK);
		check_file(p, path, 77, index);
		if (index % 7 == 0) { /* go on with what was loaded */
			uint64_t at = 0;
			vfs_pages_free(p);
			assert_int_equal(vfs_pages_load(wire_env_posix(), path, 77, &p, &at, NULL), WIRE_OK);
		}
	}
	vfs_pages_free(p);
}

/* Sets between begin and write are not in this flush, but in the next one. */
static void sets_beside_a_flush(void **state)
{
	(void)state;
	const char *const path = path_of("beside");
	struct vfs_pages *const p = vfs_pages_new(4096, 3), *q = NULL;
	struct vfs_pages_flush *f = NULL;
	uint64_t at = 0;

	resize(p, 1000);
	vfs_pages_set(p, 500, 1, 1);
	assert_int_equal(vfs_pages_flush_begin(p, 1, &f, NULL), WIRE_OK);
	vfs_pages_set(p, 500, 2, 2);
	assert_int_equal(vfs_pages_flush_write(f, wire_env_posix(), path, NULL), WIRE_OK);
	assert_int_equal(vfs_pages_load(wire_env_posix(), path, 3, &q, &at, NULL), WIRE_OK);
	assert_true(vfs_pages_hash(q, 500) == 1 && at == 1);
	vfs_pages_free(q);
	assert_int_equal(flush(p, 2, wire_env_posix(), path, NULL), WIRE_OK);
	check_file(p, path, 3, 2);
	vfs_pages_free(p);
}

/* ---- an env that fails, and one that counts ---- */

static struct wire_env faulty;
static int left;
static uint64_t written;

static int faulty_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	if (left-- <= 0)
		return wire_fail(err, WIRE_FULL, "no space");
	written += n;
	return wire_env_posix()->write(ctx, f, src, n, at, err);
}

static int faulty_sync(void *ctx, struct wire_file *f, struct wire_err *err)
{
	if (left-- <= 0)
		return wire_fail(err, WIRE_IO, "sync failed");
	return wire_env_posix()->sync(ctx, f, err);
}

static void failed_flushes(void **state)
{
	(void)state;
	const char *const path = path_of("failed");
	struct vfs_pages *const p = vfs_pages_new(4096, 3), *q = NULL;
	uint64_t at = 0;

	faulty = *wire_env_posix();
	faulty.write = faulty_write;
	faulty.sync = faulty_sync;
	resize(p, 5000);
	for (uint32_t i = 1; i <= 5000; i++)
		vfs_pages_set(p, i, next_random(), i);
	/* The first file comes whole or not at all. */
	for (int steps = 0; steps < 4; steps++) {
		struct wire_err err = { 0 };
		left = steps;
		assert_int_not_equal(flush(p, 1, &faulty, path, &err), WIRE_OK);
		assert_int_not_equal(err.code, WIRE_OK);
		assert_int_equal(vfs_pages_load(wire_env_posix(), path, 3, &q, &at, NULL), WIRE_NOTFOUND);
	}
	left = 100;
	assert_int_equal(flush(p, 1, &faulty, path, NULL), WIRE_OK);
	check_file(p, path, 3, 1);

	/* Later ones add: a failure leaves the old header over old or new records. */
	for (int steps = 0; steps < 5; steps++) { /* two writes, sync, header, sync */
		vfs_pages_set(p, 17, next_random(), 20);
		vfs_pages_set(p, 4000, next_random(), 20);
		left = steps;
		assert_int_not_equal(flush(p, 20, &faulty, path, NULL), WIRE_OK);
		assert_int_equal(vfs_pages_load(wire_env_posix(), path, 3, &q, &at, NULL), WIRE_OK);
		assert_true(at == (steps == 4 ? 20 : 1));
		vfs_pages_free(q);
		left = 100;
		assert_int_equal(flush(p, 1, &faulty, path, NULL), WIRE_OK);
		check_file(p, path, 3, 1);
	}
	/* What did not change is not written again. */
	vfs_pages_set(p, 17, next_random(), 21);
	written = 0;
	assert_int_equal(flush(p, 21, &faulty, path, NULL), WIRE_OK);
	assert_in_range(written, 64 + 16, 64 + 4096);
	vfs_pages_free(p);
}

static void write_bytes(const char *path, const void *data, size_t n)
{
	FILE *const f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	fclose(f);
}

static void bad_files(void **state)
{
	(void)state;
	const char *const path = path_of("bad");
	struct vfs_pages *const p = vfs_pages_new(4096, 3), *q = NULL;
	struct wire_err err = { 0 };
	uint64_t at = 0;
	char *bytes = NULL;
	size_t n = 0;

	assert_int_equal(vfs_pages_load(wire_env_posix(), path, 3, &q, &at, &err), WIRE_NOTFOUND);
	resize(p, 100);
	vfs_pages_set(p, 3, 3, 3);
	assert_int_equal(flush(p, 1, wire_env_posix(), path, NULL), WIRE_OK);
	assert_int_equal(vfs_pages_load(wire_env_posix(), path, 4, &q, &at, &err), WIRE_FOREIGN);
	assert_int_equal(wire_env_slurp(wire_env_posix(), path, 1 << 20, &bytes, &n, NULL), WIRE_OK);
	assert_int_equal(n, 64 + 1600);
	for (size_t bit = 0; bit < 64 * 8; bit++) {
		bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
		write_bytes(path, bytes, n);
		assert_int_equal(vfs_pages_load(wire_env_posix(), path, 3, &q, &at, &err), WIRE_CORRUPT);
		bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
	}
	for (size_t cut = 0; cut < n; cut += 37) {
		write_bytes(path, bytes, cut);
		assert_int_equal(vfs_pages_load(wire_env_posix(), path, 3, &q, &at, &err), WIRE_CORRUPT);
		assert_non_null(strstr(err.text, path));
	}
	assert_null(q);
	free(bytes);
	vfs_pages_free(p);
}

static int set_up(void **state)
{
	const char *const given = getenv("WALRAFT_SEED");
	(void)state;
	seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	if (seed == 0)
		seed = 1;
	printf("# seed %llu; again with WALRAFT_SEED=%llu test/unit/test_pages\n", (unsigned long long)seed,
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
		cmocka_unit_test(sets_and_sizes),      cmocka_unit_test(lock_page),      cmocka_unit_test(files_follow_memory),
		cmocka_unit_test(sets_beside_a_flush), cmocka_unit_test(failed_flushes), cmocka_unit_test(bad_files),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
