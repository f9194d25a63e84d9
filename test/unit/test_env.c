/* The real environment: files, directories, clocks, and what happens when a step of a replacement fails. */
#include "wire/env.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const struct wire_env *env;
static char top[64];

static const char *at(const char *name)
{
	static char mem[4][256];
	static unsigned turn;
	char *path = mem[turn++ % 4];

	(void)snprintf(path, sizeof mem[0], "%s/%s", top, name);
	return path;
}

static int remove_entry(void *arg, const char *name)
{
	(void)arg;
	if (env->unlink(env->ctx, at(name), NULL) != WIRE_OK)
		(void)rmdir(at(name));
	return 0;
}

static int setup(void **state)
{
	(void)state;
	env = wire_env_posix();
	strcpy(top, "/tmp/walraft-env-XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	(void)env->list(env->ctx, top, remove_entry, NULL, NULL);
	return rmdir(top);
}

static struct wire_file *open_file(const char *name, int flags)
{
	struct wire_file *f = NULL;
	struct wire_err err = { 0 };

	if (env->open(env->ctx, at(name), flags, &f, &err))
		fail_msg("%s", err.text);
	return f;
}

static void file_round_trip(void **state)
{
	struct wire_file *f = open_file("a", WIRE_OPEN_WRITE | WIRE_OPEN_CREATE);
	uint64_t size = 77;
	char mem[16];
	size_t n;

	(void)state;
	assert_int_equal(env->size(env->ctx, f, &size, NULL), WIRE_OK);
	assert_int_equal(size, 0);
	assert_int_equal(env->write(env->ctx, f, "hello", 5, 10, NULL), WIRE_OK);
	assert_int_equal(env->sync(env->ctx, f, NULL), WIRE_OK);
	assert_int_equal(env->size(env->ctx, f, &size, NULL), WIRE_OK);
	assert_int_equal(size, 15);
	memset(mem, '?', sizeof mem);
	assert_int_equal(env->read(env->ctx, f, mem, sizeof mem, 8, &n, NULL), WIRE_OK);
	assert_int_equal(n, 7);
	assert_memory_equal(mem, "\0\0hello??", 9);
	assert_int_equal(env->read(env->ctx, f, mem, 3, 15, &n, NULL), WIRE_OK);
	assert_int_equal(n, 0);
	assert_int_equal(env->truncate(env->ctx, f, 12, NULL), WIRE_OK);
	assert_int_equal(env->read(env->ctx, f, mem, sizeof mem, 10, &n, NULL), WIRE_OK);
	assert_int_equal(n, 2);
	assert_int_equal(env->truncate(env->ctx, f, 1 << 20, NULL), WIRE_OK);
	assert_int_equal(env->size(env->ctx, f, &size, NULL), WIRE_OK);
	assert_int_equal(size, 1 << 20);
	env->close(env->ctx, f);
	env->close(env->ctx, NULL);
}

static void beyond_four_gigabytes(void **state)
{
	struct wire_file *f = open_file("big", WIRE_OPEN_WRITE | WIRE_OPEN_CREATE);
	uint64_t where = ((uint64_t)1 << 32) + 5, size;
	size_t n;
	char c;

	(void)state;
	assert_int_equal(env->write(env->ctx, f, "x", 1, where, NULL), WIRE_OK);
	assert_int_equal(env->size(env->ctx, f, &size, NULL), WIRE_OK);
	assert_true(size == where + 1);
	assert_int_equal(env->read(env->ctx, f, &c, 1, where, &n, NULL), WIRE_OK);
	assert_int_equal(c, 'x');
	assert_int_equal(env->write(env->ctx, f, "x", 1, UINT64_MAX, NULL), WIRE_INVALID);
	assert_int_equal(env->read(env->ctx, f, &c, 2, INT64_MAX, &n, NULL), WIRE_INVALID);
	assert_int_equal(env->truncate(env->ctx, f, UINT64_MAX, NULL), WIRE_INVALID);
	env->close(env->ctx, f);
}

static void open_flags(void **state)
{
	struct wire_file *f = (struct wire_file *)&env;
	struct wire_err err = { 0 };
	struct stat st;

	(void)state;
	assert_int_equal(env->open(env->ctx, at("none"), WIRE_OPEN_WRITE, &f, &err), WIRE_NOTFOUND);
	assert_int_equal(err.sys, ENOENT);
	assert_non_null(strstr(err.text, at("none")));
	assert_ptr_equal(f, &env);
	assert_int_equal(env->open(env->ctx, at("n"), WIRE_OPEN_CREATE, &f, NULL), WIRE_INVALID);
	assert_int_equal(env->open(env->ctx, at("n"), WIRE_OPEN_WRITE | WIRE_OPEN_EXCL, &f, NULL), WIRE_INVALID);
	f = open_file("n", WIRE_OPEN_WRITE | WIRE_OPEN_CREATE | WIRE_OPEN_EXCL);
	assert_int_equal(env->write(env->ctx, f, "1", 1, 0, NULL), WIRE_OK);
	env->close(env->ctx, f);
	assert_int_equal(stat(at("n"), &st), 0);
	assert_int_equal(st.st_mode & 0133, 0);
	assert_int_equal(st.st_size, 1);
	assert_int_equal(env->open(env->ctx, at("n"), WIRE_OPEN_WRITE | WIRE_OPEN_CREATE | WIRE_OPEN_EXCL, &f, NULL),
	                 WIRE_EXISTS);
	f = open_file("n", WIRE_OPEN_WRITE | WIRE_OPEN_CREATE);
	env->close(env->ctx, f);
	f = open_file("n", WIRE_OPEN_READ);
	assert_int_equal(env->write(env->ctx, f, "2", 1, 0, &err), WIRE_IO);
	assert_int_equal(err.sys, EBADF);
	env->close(env->ctx, f);
}

static void full_device(void **state)
{
	struct wire_file *f = NULL;
	struct wire_err err = { 0 };

	(void)state;
	if (env->open(env->ctx, "/dev/full", WIRE_OPEN_WRITE, &f, NULL))
		skip();
	assert_int_equal(env->write(env->ctx, f, "x", 1, 0, &err), WIRE_FULL);
	assert_int_equal(err.sys, ENOSPC);
	assert_non_null(strstr(err.text, "/dev/full"));
	env->close(env->ctx, f);
}

static int collect(void *arg, const char *name)
{
	char *names = arg;

	strcat(names, name);
	strcat(names, " ");
	return 0;
}

static int stop_at_once(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return WIRE_TOOBIG;
}

static void directories(void **state)
{
	char names[512] = "";
	int calls = 0;

	(void)state;
	assert_int_equal(env->mkdir(env->ctx, at("d"), NULL), WIRE_OK);
	assert_int_equal(env->mkdir(env->ctx, at("d"), NULL), WIRE_EXISTS);
	assert_int_equal(env->mkdir(env->ctx, at("no/d"), NULL), WIRE_NOTFOUND);
	assert_int_equal(env->list(env->ctx, at("d"), collect, names, NULL), WIRE_OK);
	assert_string_equal(names, "");
	env->close(env->ctx, open_file("d/one", WIRE_OPEN_WRITE | WIRE_OPEN_CREATE));
	assert_int_equal(env->list(env->ctx, at("d"), collect, names, NULL), WIRE_OK);
	assert_string_equal(names, "one ");
	assert_int_equal(env->rename(env->ctx, at("d/one"), at("d/two"), NULL), WIRE_OK);
	assert_int_equal(env->rename(env->ctx, at("d/one"), at("d/two"), NULL), WIRE_NOTFOUND);
	assert_int_equal(env->sync_dir(env->ctx, at("d"), NULL), WIRE_OK);
	assert_int_equal(env->sync_dir(env->ctx, at("e"), NULL), WIRE_NOTFOUND);
	assert_int_equal(env->sync_dir(env->ctx, at("d/two"), NULL), WIRE_IO);
	env->close(env->ctx, open_file("d/three", WIRE_OPEN_WRITE | WIRE_OPEN_CREATE));
	assert_int_equal(env->list(env->ctx, at("d"), stop_at_once, &calls, NULL), WIRE_TOOBIG);
	assert_int_equal(calls, 1);
	assert_int_equal(env->list(env->ctx, at("e"), collect, names, NULL), WIRE_NOTFOUND);
	assert_int_equal(env->unlink(env->ctx, at("d/two"), NULL), WIRE_OK);
	assert_int_equal(env->unlink(env->ctx, at("d/two"), NULL), WIRE_NOTFOUND);
	assert_int_equal(env->unlink(env->ctx, at("d/three"), NULL), WIRE_OK);
}

static void renames_to_what_is_free(void **state)
{
	struct wire_err err;
	char *data = NULL;
	size_t len;

	(void)state;
	assert_int_equal(wire_env_replace(env, at("from"), "new", 3, NULL), WIRE_OK);
	assert_int_equal(wire_env_replace(env, at("to"), "other's", 7, NULL), WIRE_OK);
	assert_int_equal(env->rename_new(env->ctx, at("from"), at("to"), &err), WIRE_EXISTS);
	assert_int_equal(wire_env_slurp(env, at("to"), 100, &data, &len, NULL), WIRE_OK);
	assert_string_equal(data, "other's");
	free(data);
	assert_int_equal(env->unlink(env->ctx, at("to"), NULL), WIRE_OK);
	assert_int_equal(env->rename_new(env->ctx, at("from"), at("to"), &err), WIRE_OK);
	assert_int_equal(wire_env_slurp(env, at("to"), 100, &data, &len, NULL), WIRE_OK);
	assert_string_equal(data, "new");
	free(data);
	assert_int_equal(env->rename_new(env->ctx, at("from"), at("to"), &err), WIRE_NOTFOUND);
}

static void clocks(void **state)
{
	uint64_t a = env->now_ns(env->ctx), b = a, tries;

	(void)state;
	for (tries = 0; b == a && tries < 1000000; tries++)
		b = env->now_ns(env->ctx);
	assert_true(b > a);
	assert_true(env->wall_us(env->ctx) > 1600000000000000u);
}

static void random_differs(void **state)
{
	uint8_t a[1000] = { 0 }, b[1000] = { 0 };
	unsigned zeros = 0;

	(void)state;
	env->random(env->ctx, a, sizeof a - 1);
	env->random(env->ctx, b, sizeof b);
	assert_memory_not_equal(a, b, 64);
	assert_int_equal(a[sizeof a - 1], 0);
	for (size_t i = 0; i < sizeof a - 1; i++)
		zeros += a[i] == 0;
	assert_true(zeros < 100);
}

static void slurps(void **state)
{
	char *data = NULL;
	struct wire_err err = { 0 };
	size_t len = 0;

	(void)state;
	assert_int_equal(wire_env_replace(env, at("s"), "text\n", 5, NULL), WIRE_OK);
	assert_int_equal(wire_env_slurp(env, at("s"), 4, &data, &len, &err), WIRE_TOOBIG);
	assert_null(data);
	assert_int_equal(wire_env_slurp(env, at("s"), 5, &data, &len, NULL), WIRE_OK);
	assert_int_equal(len, 5);
	assert_string_equal(data, "text\n");
	free(data);
	assert_int_equal(wire_env_replace(env, at("s"), NULL, 0, NULL), WIRE_OK);
	assert_int_equal(wire_env_slurp(env, at("s"), 0, &data, &len, NULL), WIRE_OK);
	assert_int_equal(len, 0);
	assert_string_equal(data, "");
	free(data);
	assert_int_equal(wire_env_slurp(env, at("t"), 5, &data, &len, NULL), WIRE_NOTFOUND);
}

/* A layer that fails the nth call and notes the order of all. */
static struct {
	char calls[128];
	unsigned fail_at, n;
} fault;

static int faulty(const char *what, struct wire_err *err)
{
	strcat(fault.calls, what);
	return ++fault.n == fault.fail_at ? wire_fail(err, WIRE_IO, "made to fail: %s", what) : WIRE_OK;
}

static int faulty_open(void *ctx, const char *path, int flags, struct wire_file **ret_file, struct wire_err *err)
{
	int rc = faulty("open ", err);

	return rc ? rc : env->open(ctx, path, flags, ret_file, err);
}

static int faulty_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t where, struct wire_err *err)
{
	int rc = faulty("write ", err);

	/* A prefix may be there after a failure. */
	return rc ? (env->write(ctx, f, src, n / 2, where, NULL), rc) : env->write(ctx, f, src, n, where, err);
}

static int faulty_truncate(void *ctx, struct wire_file *f, uint64_t size, struct wire_err *err)
{
	int rc = faulty("truncate ", err);

	return rc ? rc : env->truncate(ctx, f, size, err);
}

static int faulty_sync(void *ctx, struct wire_file *f, struct wire_err *err)
{
	int rc = faulty("sync ", err);

	return rc ? rc : env->sync(ctx, f, err);
}

static int faulty_rename(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	int rc = faulty("rename ", err);

	return rc ? rc : env->rename(ctx, from, to, err);
}

static int faulty_sync_dir(void *ctx, const char *path, struct wire_err *err)
{
	int rc;

	assert_string_equal(path, top);
	rc = faulty("sync_dir", err);
	return rc ? rc : env->sync_dir(ctx, path, err);
}

static void replace_is_atomic(void **state)
{
	static const char *const order = "open truncate write sync rename sync_dir";
	struct wire_env layer = *env;

	(void)state;
	layer.open = faulty_open;
	layer.write = faulty_write;
	layer.truncate = faulty_truncate;
	layer.sync = faulty_sync;
	layer.rename = faulty_rename;
	layer.sync_dir = faulty_sync_dir;
	for (unsigned fail_at = 1; fail_at <= 7; fail_at++) {
		bool replaced = fail_at > 5;
		struct wire_err err = { 0 };
		char *data = NULL;
		size_t len;
		int rc;

		assert_int_equal(wire_env_replace(env, at("r"), "old", 3, NULL), WIRE_OK);
		memset(&fault, 0, sizeof fault);
		fault.fail_at = fail_at;
		rc = wire_env_replace(&layer, at("r"), "new one", 7, &err);
		assert_int_equal(rc, fail_at <= 6 ? WIRE_IO : WIRE_OK);
		assert_memory_equal(fault.calls, order, strlen(fault.calls));
		assert_int_equal(wire_env_slurp(env, at("r"), 100, &data, &len, NULL), WIRE_OK);
		assert_string_equal(data, replaced ? "new one" : "old");
		free(data);
		assert_int_equal(access(at("r.tmp"), F_OK), -1);
	}
	assert_string_equal(fault.calls, order);
}

static void replace_survives_a_leftover(void **state)
{
	struct wire_file *f = open_file("l.tmp", WIRE_OPEN_WRITE | WIRE_OPEN_CREATE);
	char *data;
	size_t len;

	(void)state;
	assert_int_equal(env->write(env->ctx, f, "left from a crash", 17, 0, NULL), WIRE_OK);
	env->close(env->ctx, f);
	assert_int_equal(wire_env_replace(env, at("l"), "new", 3, NULL), WIRE_OK);
	assert_int_equal(wire_env_slurp(env, at("l"), 100, &data, &len, NULL), WIRE_OK);
	assert_string_equal(data, "new");
	free(data);
}

static void replace_in_the_current_directory(void **state)
{
	char before[4096];

	(void)state;
	assert_non_null(getcwd(before, sizeof before));
	assert_int_equal(chdir(top), 0);
	assert_int_equal(wire_env_replace(env, "plain", "x", 1, NULL), WIRE_OK);
	assert_int_equal(access("plain", F_OK), 0);
	assert_int_equal(chdir(before), 0);
	assert_int_equal(wire_env_replace(env, at("none/x"), "x", 1, NULL), WIRE_NOTFOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_round_trip),
		cmocka_unit_test(beyond_four_gigabytes),
		cmocka_unit_test(open_flags),
		cmocka_unit_test(full_device),
		cmocka_unit_test(directories),
		cmocka_unit_test(renames_to_what_is_free),
		cmocka_unit_test(clocks),
		cmocka_unit_test(random_differs),
		cmocka_unit_test(slurps),
		cmocka_unit_test(replace_is_atomic),
		cmocka_unit_test(replace_survives_a_leftover),
		cmocka_unit_test(replace_in_the_current_directory),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
