/* A library for LD_PRELOAD that makes kill -9 a power loss.
 *
 * What a process writes into regular files under the directory in UNSYNCED_ROOT stays in its memory until it calls
 * fsync or fdatasync on that file (by any descriptor), which writes it to the real file and really syncs. The process
 * itself reads what it wrote, through every descriptor of the file, and sees the file's new size. When it is killed,
 * what was not synced never happened. When it exits by itself, all is written out, as a kernel would do later.
 *
 * It covers: writes of all kinds, truncation, allocation. It does not cover, and passes through at once:
 *  - creation, rename and unlink of files: as if each were durable when it returns;
 *  - files whose names end in -shm (they are mapped and shared), sockets, pipes, directories;
 *  - descriptors that were open before this process was executed, and stdio (FILE *) on files opened by fopen;
 *  - other processes: they see only what was synced. A process that forks takes a copy of what is unsynced along.
 * Mapping a covered file fails with ENODEV; SQLite reads and writes it instead. An end by any signal that the process
 * does not handle loses what was not synced, as SIGKILL does.
 *
 * unsynced.h says how it is built. */
#include "test/proc/unsynced.h"
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

/* O_TRUNC of a covered file must not reach the real one yet. */
static int open_at(int dir, const char *path, int flags, mode_t mode)
{
	unsynced_resolve();
	if (!unsynced_root[0] || !(flags & O_TRUNC) || (flags & O_ACCMODE) == O_RDONLY)
		return unsynced_did_open(real.openat(dir, path, flags, mode), flags);
	int fd = unsynced_did_open(real.openat(dir, path, flags & ~O_TRUNC, mode), flags);
	struct unsynced_file *f = unsynced_file_of(fd);
	int rc = 0;
	if (f) {
		pthread_mutex_lock(&f->mu);
		rc = unsynced_cut_to(f, fd, 0);
		pthread_mutex_unlock(&f->mu);
	} else if (fd >= 0) {
		struct stat st;
		rc = !real.fstat(fd, &st) && S_ISREG(st.st_mode) ? real.ftruncate(fd, 0) : 0;
	}
	if (rc) {
		close(fd);
		return -1;
	}
	return fd;
}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & (O_CREAT | __O_TMPFILE) ? (mode_t)va_arg(ap, unsigned) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = mode_of(flags, ap);
	va_end(ap);
	return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = mode_of(flags, ap);
	va_end(ap);
	return open_at(dir, path, flags, mode);
}

int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags)
{
	return open_at(AT_FDCWD, path, flags, 0);
}

int __openat_2(int dir, const char *path, int flags);
int __openat_2(int dir, const char *path, int flags)
{
	return open_at(dir, path, flags, 0);
}

int creat(const char *path, mode_t mode)
{
	return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd)
{
	unsynced_resolve();
	unsynced_let_go(fd);
	return real.close(fd);
}

int close_range(unsigned from, unsigned to, int flags)
{
	unsynced_resolve();
	for (unsigned fd = from; fd <= to && fd < UNSYNCED_FDS && !(flags & (int)CLOSE_RANGE_CLOEXEC); fd++)
		unsynced_let_go((int)fd);
	return real.close_range(from, to, flags);
}

int fclose(FILE *s)
{
	unsynced_resolve();
	unsynced_let_go(fileno(s));
	return real.fclose(s);
}

int dup(int fd)
{
	unsynced_resolve();
	int to = real.dup(fd);
	unsynced_share(fd, to);
	return to;
}

int dup2(int fd, int to)
{
	unsynced_resolve();
	if (fd != to)
		unsynced_let_go(to);
	int rc = real.dup2(fd, to);
	if (rc >= 0 && fd != to)
		unsynced_share(fd, to);
	return rc;
}

int dup3(int fd, int to, int flags)
{
	unsynced_resolve();
	if (fd != to)
		unsynced_let_go(to);
	int rc = real.dup3(fd, to, flags);
	if (rc >= 0)
		unsynced_share(fd, to);
	return rc;
}

int fcntl(int fd, int command, ...)
{
	va_list ap;
	va_start(ap, command);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	unsynced_resolve();
	int rc = real.fcntl(fd, command, arg);
	if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
		unsynced_share(fd, rc);
	return rc;
}

/* ---- sync ---- */
static int sync_file(int fd, int (*real)(int))
{
	struct unsynced_file *f = unsynced_file_of(fd);
	int rc = 0;

	if (f) {
		pthread_mutex_lock(&f->mu);
		rc = unsynced_write_out(f);
		pthread_mutex_unlock(&f->mu);
	}
	return rc ? rc : real(fd);
}

int fsync(int fd)
{
	unsynced_resolve();
	return sync_file(fd, real.fsync);
}

int fdatasync(int fd)
{
	unsynced_resolve();
	return sync_file(fd, real.fdatasync);
}

void sync(void)
{
	unsynced_resolve();
	unsynced_write_out_all();
}

int syncfs(int fd)
{
	(void)fd;
	unsynced_resolve();
	unsynced_write_out_all();
	return 0;
}

__attribute__((destructor)) static void end(void)
{
	if (unsynced_ours())
		unsynced_write_out_all();
}

void _exit(int code)
{
	unsynced_resolve();
	if (unsynced_ours())
		unsynced_write_out_all();
	real._exit(code);
}

void _Exit(int code)
{
	_exit(code);
}

/* ---- reading and writing ---- */
enum { HERE = -1 }; /* at the descriptor's own offset, which moves on */

static ssize_t do_read(struct unsynced_file *f, int fd, const struct iovec *v, int n, off_t at)
{
	ssize_t sum = 0;

	pthread_mutex_lock(&f->mu);
	if (!f->dirty) {
		pthread_mutex_unlock(&f->mu);
		return at == HERE ? real.readv(fd, v, n) : real.preadv2(fd, v, n, at, 0);
	}
	off_t from = at == HERE ? real.lseek(fd, 0, SEEK_CUR) : at;
	for (int i = 0; i < n && from >= 0; i++) {
		ssize_t k = unsynced_get(f, fd, v[i].iov_base, v[i].iov_len, (uint64_t)(from + sum));
		sum = k < 0 ? -1 : sum + k;
		if (k < (ssize_t)v[i].iov_len)
			break;
	}
	if (at == HERE && sum > 0)
		real.lseek(fd, from + sum, SEEK_SET);
	pthread_mutex_unlock(&f->mu);
	return from < 0 ? -1 : sum;
}

static ssize_t do_write(struct unsynced_file *f, int fd, const struct iovec *v, int n, off_t at)
{
	int flags = real.fcntl(fd, F_GETFL);
	ssize_t sum = 0;

	if ((flags & O_ACCMODE) == O_RDONLY) {
		errno = EBADF;
		return -1;
	}
	pthread_mutex_lock(&f->mu);
	off_t from = at == HERE ? real.lseek(fd, 0, SEEK_CUR) : at;
	if (unsynced_make_dirty(f, fd))
		from = -1;
	else if (flags & O_APPEND)
		from = (off_t)f->size;
	for (int i = 0; i < n && from >= 0 && sum >= 0; i++) {
		ssize_t k = unsynced_put(f, fd, v[i].iov_base, v[i].iov_len, (uint64_t)(from + sum));
		sum = k < 0 ? -1 : sum + k;
	}
	if (at == HERE && from >= 0 && sum > 0)
		real.lseek(fd, from + sum, SEEK_SET);
	if (from >= 0 && sum >= 0 && atomic_load(&unsynced_osync[fd]) && (unsynced_write_out(f) || real.fdatasync(fd)))
		sum = -1;
	pthread_mutex_unlock(&f->mu);
	return from < 0 ? -1 : sum;
}

ssize_t read(int fd, void *dst, size_t n)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f ? do_read(f, fd, &(struct iovec){ dst, n }, 1, HERE) : real.read(fd, dst, n);
}

ssize_t pread(int fd, void *dst, size_t n, off_t at)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f && at >= 0 ? do_read(f, fd, &(struct iovec){ dst, n }, 1, at) : real.pread(fd, dst, n, at);
}

ssize_t readv(int fd, const struct iovec *v, int n)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f ? do_read(f, fd, v, n, HERE) : real.readv(fd, v, n);
}

ssize_t preadv2(int fd, const struct iovec *v, int n, off_t at, int flags)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f ? do_read(f, fd, v, n, at) : real.preadv2(fd, v, n, at, flags);
}

ssize_t preadv(int fd, const struct iovec *v, int n, off_t at)
{
	return preadv2(fd, v, n, at, 0);
}

ssize_t __read_chk(int fd, void *dst, size_t n, size_t room);
ssize_t __read_chk(int fd, void *dst, size_t n, size_t room)
{
	if (n > room)
		abort();
	return read(fd, dst, n);
}

ssize_t __pread_chk(int fd, void *dst, size_t n, off_t at, size_t room);
ssize_t __pread_chk(int fd, void *dst, size_t n, off_t at, size_t room)
{
	if (n > room)
		abort();
	return pread(fd, dst, n, at);
}

ssize_t write(int fd, const void *src, size_t n)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f ? do_write(f, fd, &(struct iovec){ (void *)(uintptr_t)src, n }, 1, HERE) : real.write(fd, src, n);
}

ssize_t pwrite(int fd, const void *src, size_t n, off_t at)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f && at >= 0 ? do_write(f, fd, &(struct iovec){ (void *)(uintptr_t)src, n }, 1, at) : real.pwrite(fd, src, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f ? do_write(f, fd, v, n, HERE) : real.writev(fd, v, n);
}

ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int flags)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	return f ? do_write(f, fd, v, n, at) : real.pwritev2(fd, v, n, at, flags);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
	return pwritev2(fd, v, n, at, 0);
}

off_t lseek(int fd, off_t off, int whence)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	off_t rc;

	if (!f || whence == SEEK_SET || whence == SEEK_CUR)
		return real.lseek(fd, off, whence);
	pthread_mutex_lock(&f->mu);
	if (!f->dirty)
		rc = real.lseek(fd, off, whence);
	else if (whence == SEEK_END)
		rc = real.lseek(fd, (off_t)f->size + off, SEEK_SET);
	else if (off < 0 || (uint64_t)off >= f->size)
		rc = (errno = ENXIO, -1);
	else
		rc = real.lseek(fd, whence == SEEK_DATA ? off : (off_t)f->size, SEEK_SET);
	pthread_mutex_unlock(&f->mu);
	return rc;
}

/* ---- sizes ---- */
int ftruncate(int fd, off_t size)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);

	if (!f || size < 0)
		return real.ftruncate(fd, size);
	if ((real.fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
		errno = EINVAL;
		return -1;
	}
	pthread_mutex_lock(&f->mu);
	int rc = unsynced_cut_to(f, fd, (uint64_t)size);
	pthread_mutex_unlock(&f->mu);
	return rc;
}

int truncate(const char *path, off_t size)
{
	int fd = open_at(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
	int rc = fd < 0 ? -1 : ftruncate(fd, size);

	if (fd >= 0)
		close(fd);
	return rc;
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
	unsynced_resolve();
	struct unsynced_file *f = unsynced_file_of(fd);
	int rc = 0;

	if (!f)
		return real.fallocate(fd, mode, at, n);
	if (mode) { /* holes and the like: callers have a way without */
		errno = EOPNOTSUPP;
		return -1;
	}
	pthread_mutex_lock(&f->mu);
	if (unsynced_make_dirty(f, fd))
		rc = -1;
	else if ((uint64_t)(at + n) > f->size)
		f->size = (uint64_t)(at + n);
	pthread_mutex_unlock(&f->mu);
	return rc;
}

int posix_fallocate(int fd, off_t at, off_t n)
{
	unsynced_resolve();
	return unsynced_file_of(fd) ? (fallocate(fd, 0, at, n) ? errno : 0) : real.posix_fallocate(fd, at, n);
}

int fstat(int fd, struct stat *st)
{
	unsynced_resolve();
	int rc = real.fstat(fd, st);
	if (!rc && unsynced_file_of(fd))
		unsynced_fix_size(st->st_dev, st->st_ino, &st->st_size);
	return rc;
}

int fstatat(int dir, const char *path, struct stat *st, int flags)
{
	unsynced_resolve();
	int rc = real.fstatat(dir, path, st, flags);
	if (!rc && S_ISREG(st->st_mode))
		unsynced_fix_size(st->st_dev, st->st_ino, &st->st_size);
	return rc;
}

int stat(const char *path, struct stat *st)
{
	return fstatat(AT_FDCWD, path, st, 0);
}

int lstat(const char *path, struct stat *st)
{
	return fstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

int statx(int dir, const char *path, int flags, unsigned mask, struct statx *st)
{
	unsynced_resolve();
	int rc = real.statx(dir, path, flags, mask, st);
	if (!rc && S_ISREG(st->stx_mode)) {
		off_t size = (off_t)st->stx_size;
		unsynced_fix_size(makedev(st->stx_dev_major, st->stx_dev_minor), (ino_t)st->stx_ino, &size);
		st->stx_size = (uint64_t)size;
	}
	return rc;
}

/* ---- the rest ---- */
void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
	unsynced_resolve();
	if (!(flags & MAP_ANONYMOUS) && unsynced_file_of(fd)) {
		errno = ENODEV;
		return MAP_FAILED;
	}
	return real.mmap(at, n, prot, flags, fd, off);
}

int unlinkat(int dir, const char *path, int flags)
{
	unsynced_resolve();
	struct stat st;
	bool there = !real.fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW);
	int rc = real.unlinkat(dir, path, flags);
	if (!rc && there)
		unsynced_lost_name(&st);
	return rc;
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	unsynced_resolve();
	struct stat st;
	bool there = !flags && !real.fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW);
	int rc = real.renameat2(from_dir, from, to_dir, to, flags);
	if (!rc && there)
		unsynced_lost_name(&st);
	return rc;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return renameat2(from_dir, from, to_dir, to, 0);
}

int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t n, unsigned flags)
{
	unsynced_resolve();
	if (unsynced_file_of(in) || unsynced_file_of(out)) {
		errno = EXDEV;
		return -1;
	}
	return real.copy_file_range(in, in_at, out, out_at, n, flags);
}

ssize_t sendfile(int out, int in, off_t *at, size_t n)
{
	unsynced_resolve();
	if (unsynced_file_of(in) || unsynced_file_of(out)) {
		errno = EINVAL;
		return -1;
	}
	return real.sendfile(out, in, at, n);
}

/* Where off_t has 64 bits anyway, the names for large files are the same functions. */
_Static_assert(sizeof(off_t) == 8, "off_t has 64 bits");
#define ALSO(name, of) __typeof__(of) name __attribute__((alias(#of)))
ALSO(open64, open);
ALSO(openat64, openat);
ALSO(__open64_2, __open_2);
ALSO(__openat64_2, __openat_2);
ALSO(creat64, creat);
ALSO(fcntl64, fcntl);
ALSO(pread64, pread);
ALSO(pwrite64, pwrite);
ALSO(__pread64_chk, __pread_chk);
ALSO(preadv64, preadv);
ALSO(pwritev64, pwritev);
ALSO(preadv64v2, preadv2);
ALSO(pwritev64v2, pwritev2);
ALSO(lseek64, lseek);
ALSO(ftruncate64, ftruncate);
ALSO(truncate64, truncate);
ALSO(fallocate64, fallocate);
ALSO(posix_fallocate64, posix_fallocate);
ALSO(mmap64, mmap);
ALSO(sendfile64, sendfile);
int fstat64(int fd, struct stat64 *st) __attribute__((alias("fstat")));
int stat64(const char *path, struct stat64 *st) __attribute__((alias("stat")));
int lstat64(const char *path, struct stat64 *st) __attribute__((alias("lstat")));
int fstatat64(int dir, const char *path, struct stat64 *st, int flags) __attribute__((alias("fstatat")));
