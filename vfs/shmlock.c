#include "vfs/shmlock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

SQLITE_EXTENSION_INIT3

#define FIRST_BYTE 120 /* of WRITE; CKPT is the next one (SQLite, os_unix.c: (22 + 8) * 4) */

struct vfs_shmlock {
	struct vfs_shmlock *next;
	int fd;
	dev_t dev;
	ino_t ino;
	unsigned holders; /* 0: only waits to be closed, or used again */
	bool taken;       /* one of the holders is a node */
	bool locked;      /* as far as this process knows */
};

static struct {
	pthread_mutex_t mutex;
	struct vfs_shmlock *first;
} table = { PTHREAD_MUTEX_INITIALIZER, NULL };

static int lock_call(int fd, int command, short type, pid_t *ret_pid)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = FIRST_BYTE, .l_len = 2 };
	int rc;

	do
		rc = fcntl(fd, command, &l);
	while (rc < 0 && errno == EINTR);
	if (rc == 0 && ret_pid)
		*ret_pid = l.l_type == F_UNLCK ? 0 : l.l_pid;
	return rc;
}

/* ---- the table; all below with the mutex held ---- */

static struct vfs_shmlock *next_of(struct vfs_shmlock *l, const struct stat *st)
{
	while (l && (l->dev != st->st_dev || l->ino != st->st_ino))
		l = l->next;
	return l;
}

static struct vfs_shmlock *put(int fd, const struct stat *st)
{
	struct vfs_shmlock *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	l->fd = fd;
	l->dev = st->st_dev;
	l->ino = st->st_ino;
	l->next = table.first;
	table.first = l;
	return l;
}

/* Is no descriptor of that file open in the process but those that nobody holds here? When that cannot be found out one is. */
static bool may_close(const struct vfs_shmlock *l)
{
	unsigned unused = 0, open_ones = 0;
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	struct stat st;
	bool held = !d;

	for (const struct vfs_shmlock *o = table.first; o; o = o->next) {
		if (o->dev != l->dev || o->ino != l->ino)
			continue;
		held |= o->holders != 0;
		unused++;
	}
	while (!held && (e = readdir(d)) != NULL) {
		int fd = atoi(e->d_name);

		open_ones += *e->d_name != '.' && fd != dirfd(d) && fstat(fd, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino;
	}
	if (d)
		closedir(d);
	return !held && open_ones == unused;
}

static void close_all_of(dev_t dev, ino_t ino)
{
	for (struct vfs_shmlock **at = &table.first, *l; (l = *at);) {
		if (l->dev != dev || l->ino != ino) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		close(l->fd);
		free(l);
	}
}

static void sweep(void)
{
	sqlite3_mutex *sqlite;
	struct vfs_shmlock *l = table.first;

	if (!l)
		return;
	/* The unix VFS opens and closes -shm files under it: none comes between the look and the close. */
	sqlite = sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_VFS1);
	sqlite3_mutex_enter(sqlite);
	while (l) {
		if (l->holders || !may_close(l)) {
			l = l->next;
		} else {
			close_all_of(l->dev, l->ino);
			l = table.first;
		}
	}
	sqlite3_mutex_leave(sqlite);
}

static int tell_busy(const char *path, int fd, struct wire_err *err)
{
	pid_t pid = 0;

	if (lock_call(fd, F_OFD_GETLK, F_WRLCK, &pid) == 0 && pid > 0)
		return wire_fail(err, WIRE_BUSY, "%s is locked by process %ld, which writes to the database, or checkpoints it, without walraft: close it there", path, (long)pid);
	return wire_fail(err, WIRE_BUSY, "%s is locked by processes that use the database by walraft: one of them is to go on as its node (are they stopped?)", path);
}

/* ---- the interface ---- */

/* NULL: errno tells. What cannot be remembered stays open, so that it is never closed at the wrong time. */
static struct vfs_shmlock *find_or_open(const char *path, struct stat *ret_st)
{
	struct vfs_shmlock *l;
	int fd;

	if (stat(path, ret_st) != 0)
		return NULL;
	l = next_of(table.first, ret_st);
	if (l)
		return l;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && fstat(fd, ret_st) == 0 ? put(fd, ret_st) : NULL;
}

int vfs_shmlock_take(const char *path, struct vfs_shmlock **ret_lock, struct wire_err *err)
{
	struct vfs_shmlock *l, *first;
	struct stat st;
	int e = 0, rc = WIRE_OK;

	pthread_mutex_lock(&table.mutex);
	first = find_or_open(path, &st);
	if (!first)
		rc = wire_fail_errno(err, errno, "cannot open %s", path);
	for (l = first; l && (l->taken || lock_call(l->fd, F_OFD_SETLK, F_WRLCK, NULL) != 0); l = next_of(l->next, &st)) {
		e = l->taken ? EAGAIN : errno;
		l->locked = l->taken;
	}
	if (l) {
		l->locked = l->taken = true;
		l->holders++;
		*ret_lock = l;
	} else if (first) {
		rc = e == EAGAIN || e == EACCES ? tell_busy(path, first->fd, err)
		     : e == EINVAL || e == ENOSYS || e == EOPNOTSUPP
		             ? wire_fail(err, WIRE_UNSUPPORTED, "%s is on a file system without locks of open file descriptions", path)
		             : wire_fail_errno(err, e, "cannot lock %s", path);
		sweep();
	}
	pthread_mutex_unlock(&table.mutex);
	return rc;
}

struct vfs_shmlock *vfs_shmlock_hold(const char *path)
{
	struct vfs_shmlock *l = NULL;
	struct stat st;

	pthread_mutex_lock(&table.mutex);
	if (stat(path, &st) == 0) {
		for (l = next_of(table.first, &st); l; l = next_of(l->next, &st)) {
			/* Whether it still is: another process may have unlocked the description for all, and a third one have made a new one. */
			l->locked = l->locked && lock_call(l->fd, F_OFD_SETLK, F_WRLCK, NULL) == 0;
			if (l->locked)
				break;
		}
	}
	if (l)
		l->holders++;
	pthread_mutex_unlock(&table.mutex);
	return l;
}

int vfs_shmlock_adopt(const char *path, int fd, struct vfs_shmlock **ret_lock, struct wire_err *err)
{
	struct vfs_shmlock *l = NULL;
	struct stat st, named;
	int rc = WIRE_OK;

	pthread_mutex_lock(&table.mutex);
	if (fstat(fd, &st) != 0)
		rc = wire_fail_errno(err, errno, "cannot use the descriptor of %s that was sent", path);
	else if (!(l = put(fd, &st)))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for the lock of %s", path); /* it stays open, see above */
	else if (stat(path, &named) != 0 || named.st_dev != st.st_dev || named.st_ino != st.st_ino)
		rc = wire_fail(err, WIRE_CLOSED, "the descriptor that was sent is not %s", path);
	else if (lock_call(fd, F_OFD_SETLK, F_WRLCK, NULL) != 0)
		rc = wire_fail(err, WIRE_CLOSED, "%s was unlocked, and locked by others, while its descriptor was sent", path);
	if (rc == WIRE_OK) {
		l->locked = true;
		l->holders = 1;
		*ret_lock = l;
	}
	pthread_mutex_unlock(&table.mutex);
	return rc;
}

int vfs_shmlock_fd(const struct vfs_shmlock *l)
{
	return l->fd;
}

void vfs_shmlock_release(struct vfs_shmlock *l, bool alone)
{
	pthread_mutex_lock(&table.mutex);
	l->taken = false;
	if (--l->holders == 0 && alone) {
		(void)lock_call(l->fd, F_OFD_SETLK, F_UNLCK, NULL);
		l->locked = false;
	}
	sweep();
	pthread_mutex_unlock(&table.mutex);
}

void vfs_shmlock_let_go(struct vfs_shmlock *l)
{
	pthread_mutex_lock(&table.mutex);
	l->holders--;
	sweep();
	pthread_mutex_unlock(&table.mutex);
}

void vfs_shmlock_sweep(void)
{
	pthread_mutex_lock(&table.mutex);
	sweep();
	pthread_mutex_unlock(&table.mutex);
}

bool vfs_shmlock_is_elsewhere(const char *path)
{
	bool elsewhere = false;
	struct vfs_shmlock *l;
	pid_t pid = 0;
	struct stat st;

	pthread_mutex_lock(&table.mutex);
	l = find_or_open(path, &st);
	for (; l && !elsewhere; l = next_of(l->next, &st))
		elsewhere = lock_call(l->fd, F_OFD_GETLK, F_WRLCK, &pid) == 0 && pid < 0;
	for (l = next_of(table.first, &st); l && elsewhere; l = next_of(l->next, &st))
		elsewhere = !l->locked || lock_call(l->fd, F_OFD_SETLK, F_WRLCK, NULL) != 0; /* it is this process's own */
	sweep();
	pthread_mutex_unlock(&table.mutex);
	return elsewhere;
}

/* The parent's locks stay the parent's: the child only closes its descriptors, which have no locks of its own to lose. */
void vfs_shmlock_after_fork(void)
{
	pthread_mutex_init(&table.mutex, NULL);
	for (struct vfs_shmlock *l = table.first; l; l = l->next)
		close(l->fd);
	table.first = NULL;
}
