/* The outside world, behind one table: clock, randomness, files. raft/ (journal) and the shell reach the system only
 * through it, so that a simulator or a fault-injecting layer can take its place. `wire_env_posix()` is the real one.
 *
 * Threads: every function may be called from any thread; two calls on the same file may run at the same time.
 * Paths are NUL-terminated, relative to the process's directory. Errors: wire_err codes with the path in the text. */
#ifndef WIRE_ENV_H
#define WIRE_ENV_H

#include "wire/err.h"
#include <stddef.h>
#include <stdint.h>

struct wire_file; /* owned by the env that opened it */

enum wire_open_flags {
	WIRE_OPEN_READ = 0,
	WIRE_OPEN_WRITE = 1,  /* read and write */
	WIRE_OPEN_CREATE = 2, /* with WRITE: create when missing (mode 0644) */
	WIRE_OPEN_EXCL = 4,   /* with CREATE: WIRE_EXISTS when there */
};

struct wire_env {
	void *ctx;
	/* Nanoseconds of CLOCK_BOOTTIME: runs on while suspended, never goes back. */
	uint64_t (*now_ns)(void *ctx);
	/* Microseconds of the wall clock since 1970: for timestamps only, never for decisions. */
	uint64_t (*wall_us)(void *ctx);
	/* Fills n bytes that are good enough for ids (getrandom). Never fails (aborts where the kernel has none). */
	void (*random)(void *ctx, void *dst, size_t n);

	int (*open)(void *ctx, const char *path, int flags, struct wire_file **ret_file, struct wire_err *err);
	void (*close)(void *ctx, struct wire_file *f);
	/* Reads exactly n bytes; *ret_n < n only at the end of the file. */
	int (*read)(void *ctx, struct wire_file *f, void *dst, size_t n, uint64_t at, size_t *ret_n, struct wire_err *err);
	/* Writes exactly n bytes or fails; after a failure any prefix may be there. */
	int (*write)(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err);
	/* fdatasync: on return all earlier writes of this file, and its size, are durable. */
	int (*sync)(void *ctx, struct wire_file *f, struct wire_err *err);
	int (*truncate)(void *ctx, struct wire_file *f, uint64_t size, struct wire_err *err);
	int (*size)(void *ctx, struct wire_file *f, uint64_t *ret_size, struct wire_err *err);

	int (*rename)(void *ctx, const char *from, const char *to, struct wire_err *err);
	/* The same, but WIRE_EXISTS when there is something at `to`; after a crash both names may be there. */
	int (*rename_new)(void *ctx, const char *from, const char *to, struct wire_err *err);
	int (*unlink)(void *ctx, const char *path, struct wire_err *err); /* WIRE_NOTFOUND when missing */
	int (*mkdir)(void *ctx, const char *path, struct wire_err *err);  /* 0755; WIRE_EXISTS when there */
	/* Makes creations, renames and unlinks in the directory durable. */
	int (*sync_dir)(void *ctx, const char *path, struct wire_err *err);
	/* Calls each(arg, name) for every entry but "." and "..", in no order; stops at the first non-zero and returns it. */
	int (*list)(void *ctx, const char *path, int (*each)(void *arg, const char *name), void *arg, struct wire_err *err);
};

/* The real system. A static object; never freed. */
const struct wire_env *wire_env_posix(void);

/* Reads a whole small file (at most max bytes, else WIRE_TOOBIG) into malloc'ed memory with a NUL behind it. */
int wire_env_slurp(const struct wire_env *env, const char *path, size_t max, char **ret_data, size_t *ret_len,
                   struct wire_err *err);
/* Replaces a file atomically and durably: temporary file beside it, write, sync, rename, sync of the directory. */
int wire_env_replace(const struct wire_env *env, const char *path, const void *data, size_t len, struct wire_err *err);

#endif
