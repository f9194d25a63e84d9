/* Insides of the library that makes kill -9 a power loss; unsynced.c says what it does.
 *
 * unsynced_file.c  the real functions, files' contents, which descriptor is which file
 * unsynced.c       the functions that take the place of libc's
 *
 * Locks: the table's protects the list of files and which descriptor is which; a file's own `mu` its contents. The table's
 * first. No lock is held during a real fsync. Descriptors for writing out are opened through /proc and closed only while
 * the process has no other descriptor of the file, since closing one gives up the process's POSIX locks on it. */
#ifndef TEST_PROC_UNSYNCED_H
#define TEST_PROC_UNSYNCED_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#pragma GCC visibility push(hidden)

struct unsynced_real {
	int (*openat)(int, const char *, int, ...);
	int (*close)(int);
	int (*close_range)(unsigned, unsigned, int);
	int (*dup)(int);
	int (*dup3)(int, int, int);
	int (*dup2)(int, int);
	int (*fcntl)(int, int, ...);
	int (*fclose)(FILE *);
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*pread)(int, void *, size_t, off_t);
	ssize_t (*pwrite)(int, const void *, size_t, off_t);
	ssize_t (*readv)(int, const struct iovec *, int);
	ssize_t (*writev)(int, const struct iovec *, int);
	ssize_t (*preadv2)(int, const struct iovec *, int, off_t, int);
	ssize_t (*pwritev2)(int, const struct iovec *, int, off_t, int);
	off_t (*lseek)(int, off_t, int);
	int (*ftruncate)(int, off_t);
	int (*fallocate)(int, int, off_t, off_t);
	int (*posix_fallocate)(int, off_t, off_t);
	int (*fsync)(int);
	int (*fdatasync)(int);
	int (*fstat)(int, struct stat *);
	int (*fstatat)(int, const char *, struct stat *, int);
	int (*statx)(int, const char *, int, unsigned, struct statx *);
	void *(*mmap)(void *, size_t, int, int, int, off_t);
	int (*unlinkat)(int, const char *, int);
	int (*renameat2)(int, const char *, int, const char *, unsigned);
	ssize_t (*copy_file_range)(int, off_t *, int, off_t *, size_t, unsigned);
	ssize_t (*sendfile)(int, int, off_t *, size_t);
	void (*_exit)(int) __attribute__((noreturn));
};
extern struct unsynced_real real; /* libc's own */
void unsynced_resolve(void);      /* makes `real` usable; cheap when it is */

enum { UNSYNCED_PAGE = 4096, UNSYNCED_FDS = 65536, UNSYNCED_BUCKETS = 1024 };

struct unsynced_page {
	uint64_t no;
	struct unsynced_page *next;
	uint8_t data[UNSYNCED_PAGE];
};
struct unsynced_file {
	dev_t dev;
	ino_t ino;
	struct unsynced_file *next;
	unsigned fds; /* under `table` */
	pthread_mutex_t mu;
	bool dirty;
	uint64_t size; /* when dirty */
	uint64_t cut;  /* when dirty: the real file's bytes count only below this */
	int out;       /* descriptor to write out by; -1: none */
	struct unsynced_page *pages[UNSYNCED_BUCKETS];
};

extern _Atomic(struct unsynced_file *) unsynced_of_fd[UNSYNCED_FDS];
extern atomic_bool unsynced_osync[UNSYNCED_FDS]; /* opened with O_SYNC or O_DSYNC */
extern char unsynced_root[PATH_MAX];             /* "": nothing is covered */

/* The covered file behind a descriptor, or NULL. */
static inline struct unsynced_file *unsynced_file_of(int fd)
{
	return fd >= 0 && fd < UNSYNCED_FDS ? atomic_load_explicit(&unsynced_of_fd[fd], memory_order_acquire) : NULL;
}
bool unsynced_ours(void); /* false in a child of vfork, which shares this memory but not the descriptors */

/* With f->mu held; fd is any descriptor of f, to write a writable one. -1 with errno on failure. */
int unsynced_make_dirty(struct unsynced_file *f, int fd);
ssize_t unsynced_put(struct unsynced_file *f, int fd, const void *src, size_t n, uint64_t at);
ssize_t unsynced_get(struct unsynced_file *f, int fd, void *dst, size_t n, uint64_t at); /* f is dirty */
int unsynced_cut_to(struct unsynced_file *f, int fd, uint64_t size);
int unsynced_write_out(struct unsynced_file *f);

/* With no lock held. */
void unsynced_write_out_all(void);
int unsynced_did_open(int fd, int flags);  /* returns fd, keeps errno */
void unsynced_let_go(int fd);              /* before it is closed */
void unsynced_share(int from, int to);     /* `to` is now a duplicate */
void unsynced_fix_size(dev_t dev, ino_t ino, off_t *size); /* the size that this process must see */
void unsynced_lost_name(const struct stat *st); /* of a file whose last name was removed */

#pragma GCC visibility pop

#endif
