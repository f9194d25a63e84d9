#include "wire/env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What one system call is asked to move: below the kernel's own limit of a little under 2 GiB. */
#define IO_MAX ((size_t)1 << 30)

_Static_assert(sizeof(off_t) == 8, "files may be larger than 2 GiB");

struct wire_file {
	int fd;
	char path[];
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	/* Fails only on a kernel without the clock, where nothing that relies on time may go on. */
	if (clock_gettime(id, &ts) != 0)
		abort();
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t posix_now_ns(void *ctx)
{
	(void)ctx;
	return clock_ns(CLOCK_BOOTTIME);
}

static uint64_t posix_wall_us(void *ctx)
{
	(void)ctx;
	return clock_ns(CLOCK_REALTIME) / 1000;
}

static void posix_random(void *ctx, void *dst, size_t n)
{
	uint8_t *p = dst;

	(void)ctx;
	while (n > 0) {
		ssize_t got = getrandom(p, n, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			abort();
		}
		p += got;
		n -= (size_t)got;
	}
}

static int posix_open(void *ctx, const char *path, int flags, struct wire_file **ret_file, struct wire_err *err)
{
	int how = O_CLOEXEC | (flags & WIRE_OPEN_WRITE ? O_RDWR : O_RDONLY);
	size_t len = strlen(path) + 1;
	struct wire_file *f;

	(void)ctx;
	if (((flags & WIRE_OPEN_CREATE) && !(flags & WIRE_OPEN_WRITE)) ||
	    ((flags & WIRE_OPEN_EXCL) && !(flags & WIRE_OPEN_CREATE)))
		return wire_fail(err, WIRE_INVALID, "cannot open %s: flags %d do not fit together", path, flags);
	if (flags & WIRE_OPEN_CREATE)
		how |= O_CREAT;
	if (flags & WIRE_OPEN_EXCL)
		how |= O_EXCL;
	f = malloc(sizeof *f + len);
	if (!f)
		return wire_fail(err, WIRE_NOMEM, "cannot open %s: out of memory", path);
	memcpy(f->path, path, len);
	do
		f->fd = open(path, how, 0644);
	while (f->fd < 0 && errno == EINTR);
	if (f->fd < 0) {
		int sys = errno;

		free(f);
		return wire_fail_errno(err, sys, "cannot %s %s", flags & WIRE_OPEN_EXCL ? "create" : "open", path);
	}
	*ret_file = f;
	return WIRE_OK;
}

static void posix_close(void *ctx, struct wire_file *f)
{
	(void)ctx;
	if (!f)
		return;
	/* What had to be durable was synced before; no write of ours is reported as late as here. */
	(void)close(f->fd);
	free(f);
}

/* Also keeps the arithmetic on offsets below from overflowing. */
static int check_range(const struct wire_file *f, uint64_t at, size_t n, struct wire_err *err)
{
	if (at > INT64_MAX || n > INT64_MAX - at)
		return wire_fail(err, WIRE_INVALID, "%s: %zu bytes at offset %llu are beyond any file", f->path, n,
		                 (unsigned long long)at);
	return WIRE_OK;
}

static int posix_read(void *ctx, struct wire_file *f, void *dst, size_t n, uint64_t at, size_t *ret_n,
                      struct wire_err *err)
{
	uint8_t *p = dst;
	size_t done = 0;
	int rc = check_range(f, at, n, err);

	(void)ctx;
	if (rc)
		return rc;
	while (done < n) {
		size_t want = n - done < IO_MAX ? n - done : IO_MAX;
		ssize_t got = pread(f->fd, p + done, want, (off_t)(at + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return wire_fail_errno(err, errno, "cannot read %zu bytes at offset %llu of %s", n - done,
			                       (unsigned long long)(at + done), f->path);
		if (got == 0)
			break;
		done += (size_t)got;
	}
	*ret_n = done;
	return WIRE_OK;
}

static int posix_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	const uint8_t *p = src;
	size_t done = 0;
	int rc = check_range(f, at, n, err);

	(void)ctx;
	if (rc)
		return rc;
	while (done < n) {
		size_t want = n - done < IO_MAX ? n - done : IO_MAX;
		ssize_t got = pwrite(f->fd, p + done, want, (off_t)(at + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return wire_fail_errno(err, got < 0 ? errno : EIO, "cannot write %zu bytes at offset %llu of %s",
			                       n - done, (unsigned long long)(at + done), f->path);
		done += (size_t)got;
	}
	return WIRE_OK;
}

static int posix_sync(void *ctx, struct wire_file *f, struct wire_err *err)
{
	(void)ctx;
	/* Never tried again: after a failure the kernel may have dropped the dirty pages, and a second call would lie. */
	if (fdatasync(f->fd) != 0)
		return wire_fail_errno(err, errno, "cannot sync %s", f->path);
	return WIRE_OK;
}

static int posix_truncate(void *ctx, struct wire_file *f, uint64_t size, struct wire_err *err)
{
	int rc = check_range(f, size, 0, err);

	(void)ctx;
	if (rc)
		return rc;
	do
		rc = ftruncate(f->fd, (off_t)size);
	while (rc != 0 && errno == EINTR);
	if (rc != 0)
		return wire_fail_errno(err, errno, "cannot set the size of %s to %llu bytes", f->path,
		                       (unsigned long long)size);
	return WIRE_OK;
}

static int posix_size(void *ctx, struct wire_file *f, uint64_t *ret_size, struct wire_err *err)
{
	struct stat st;

	(void)ctx;
	if (fstat(f->fd, &st) != 0)
		return wire_fail_errno(err, errno, "cannot find the size of %s", f->path);
	*ret_size = (uint64_t)st.st_size;
	return WIRE_OK;
}

static int posix_rename(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	(void)ctx;
	if (rename(from, to) != 0)
		return wire_fail_errno(err, errno, "cannot rename %s to %s", from, to);
	return WIRE_OK;
}

static int posix_rename_new(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	(void)ctx;
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return WIRE_OK;
	/* Not every file system knows it. */
	if ((errno == EINVAL || errno == ENOSYS) && link(from, to) == 0) {
		if (unlink(from) != 0)
			return wire_fail_errno(err, errno, "cannot remove %s, which is %s now", from, to);
		return WIRE_OK;
	}
	return wire_fail_errno(err, errno, "cannot rename %s to %s", from, to);
}

static int posix_unlink(void *ctx, const char *path, struct wire_err *err)
{
	(void)ctx;
	if (unlink(path) != 0)
		return wire_fail_errno(err, errno, "cannot remove %s", path);
	return WIRE_OK;
}

static int posix_mkdir(void *ctx, const char *path, struct wire_err *err)
{
	(void)ctx;
	if (mkdir(path, 0755) != 0)
		return wire_fail_errno(err, errno, "cannot create the directory %s", path);
	return WIRE_OK;
}

static int posix_sync_dir(void *ctx, const char *path, struct wire_err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = WIRE_OK;

	(void)ctx;
	if (fd < 0)
		return wire_fail_errno(err, errno, "cannot open the directory %s", path);
	if (fsync(fd) != 0)
		rc = wire_fail_errno(err, errno, "cannot sync the directory %s", path);
	(void)close(fd);
	return rc;
}

static int posix_list(void *ctx, const char *path, int (*each)(void *arg, const char *name), void *arg,
                      struct wire_err *err)
{
	DIR *dir = opendir(path);
	int rc = WIRE_OK;

	(void)ctx;
	if (!dir)
		return wire_fail_errno(err, errno, "cannot list the directory %s", path);
	while (rc == WIRE_OK) {
		struct dirent *e;

		errno = 0;
		e = readdir(dir);
		if (!e) {
			if (errno != 0)
				rc = wire_fail_errno(err, errno, "cannot list the directory %s", path);
			break;
		}
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = each(arg, e->d_name);
	}
	(void)closedir(dir);
	return rc;
}

const struct wire_env *wire_env_posix(void)
{
	static const struct wire_env env = {
		.now_ns = posix_now_ns,
		.wall_us = posix_wall_us,
		.random = posix_random,
		.open = posix_open,
		.close = posix_close,
		.read = posix_read,
		.write = posix_write,
		.sync = posix_sync,
		.truncate = posix_truncate,
		.size = posix_size,
		.rename = posix_rename,
		.rename_new = posix_rename_new,
		.unlink = posix_unlink,
		.mkdir = posix_mkdir,
		.sync_dir = posix_sync_dir,
		.list = posix_list,
	};

	return &env;
}

int wire_env_slurp(const struct wire_env *env, const char *path, size_t max, char **ret_data, size_t *ret_len,
                   struct wire_err *err)
{
	struct wire_file *f;
	char *data = NULL;
	size_t len = 0;
	uint64_t size;
	int rc;

	rc = env->open(env->ctx, path, WIRE_OPEN_READ, &f, err);
	if (rc)
		return rc;
	rc = env->size(env->ctx, f, &size, err);
	if (rc)
		goto out;
	if (size > max) {
		rc = wire_fail(err, WIRE_TOOBIG, "%s has %llu bytes; at most %zu are expected there", path,
		               (unsigned long long)size, max);
		goto out;
	}
	data = malloc((size_t)size + 1);
	if (!data) {
		rc = wire_fail(err, WIRE_NOMEM, "cannot read %s: out of memory for %llu bytes", path,
		               (unsigned long long)size);
		goto out;
	}
	rc = env->read(env->ctx, f, data, (size_t)size, 0, &len, err);
	if (rc)
		goto out;
	data[len] = '\0';
	*ret_data = data;
	*ret_len = len;
	data = NULL;
out:
	free(data);
	env->close(env->ctx, f);
	return rc;
}

static int write_whole(const struct wire_env *env, const char *path, const void *data, size_t len,
                       struct wire_err *err)
{
	struct wire_file *f;
	int rc;

	rc = env->open(env->ctx, path, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &f, err);
	if (rc)
		return rc;
	/* One that a crash left behind may be longer. */
	rc = env->truncate(env->ctx, f, 0, err);
	if (!rc)
		rc = env->write(env->ctx, f, data, len, 0, err);
	if (!rc)
		rc = env->sync(env->ctx, f, err);
	env->close(env->ctx, f);
	return rc;
}

int wire_env_replace(const struct wire_env *env, const char *path, const void *data, size_t len, struct wire_err *err)
{
	const char *slash = strrchr(path, '/');
	size_t path_len = strlen(path), dir_len = 0;
	char *temp, *dir;
	int rc;

	temp = malloc(path_len + sizeof ".tmp");
	dir = malloc(path_len + 2);
	if (!temp || !dir) {
		rc = wire_fail(err, WIRE_NOMEM, "cannot write %s: out of memory", path);
		goto out;
	}
	memcpy(temp, path, path_len);
	memcpy(temp + path_len, ".tmp", sizeof ".tmp");
	if (slash)
		dir_len = slash == path ? 1 : (size_t)(slash - path);
	memcpy(dir, slash ? path : ".", slash ? dir_len : 1);
	dir[slash ? dir_len : 1] = '\0';

	rc = write_whole(env, temp, data, len, err);
	if (!rc)
		rc = env->rename(env->ctx, temp, path, err);
	if (rc) {
		/* The first error is the one to tell; a leftover is overwritten next time. */
		(void)env->unlink(env->ctx, temp, NULL);
		goto out;
	}
	rc = env->sync_dir(env->ctx, dir, err);
out:
	free(temp);
	free(dir);
	return rc;
}
