#include "vfs/child.h"
#include "vfs/walindex.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

SQLITE_EXTENSION_INIT3

/* SQLite's lock bytes (os.h, os_unix.c). */
#define PENDING_BYTE 0x40000000
#define RESERVED_BYTE (PENDING_BYTE + 1)
#define SHARED_FIRST (PENDING_BYTE + 2)
#define SHARED_SIZE 510
#define SHM_BASE 120
#define SHM_DMS 128

struct state {
	int fd, shm_fd; /* -1 */
	bool locked;    /* SHARED */
	char *path, *shm_path;
	dev_t dev;
	ino_t ino;
	uint32_t n_maps;
	void **map; /* each of map_bytes() */
};

struct child_file {
	sqlite3_file head;
	struct state *s;
};

static struct state *state(sqlite3_file *f)
{
	return ((struct child_file *)f)->s;
}

/* -1 with errno; F_OFD_GETLK leaves in *ret_type what is in the way. */
static int lock(int fd, int command, short type, off_t start, off_t len, short *ret_type)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
	int rc;

	do
		rc = fcntl(fd, command, &l);
	while (rc < 0 && errno == EINTR);
	if (ret_type)
		*ret_type = l.l_type;
	return rc;
}

static int lock_code(int rc, int code)
{
	return rc == 0 ? SQLITE_OK : errno == EAGAIN || errno == EACCES ? SQLITE_BUSY : code;
}

/* ---- the file ---- */

static int child_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	uint8_t *dst = p;
	size_t left = (size_t)n;

	while (left > 0) {
		ssize_t got = pread(state(f)->fd, dst, left, at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return SQLITE_IOERR_READ;
		if (got == 0) {
			memset(dst, 0, left);
			return SQLITE_IOERR_SHORT_READ;
		}
		dst += got;
		left -= (size_t)got;
		at += got;
	}
	return SQLITE_OK;
}

static int child_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	const uint8_t *src = p;
	size_t left = (size_t)n;

	while (left > 0) {
		ssize_t put = pwrite(state(f)->fd, src, left, at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put == 0 || errno == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
		src += put;
		left -= (size_t)put;
		at += put;
	}
	return SQLITE_OK;
}

static int child_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	return ftruncate(state(f)->fd, size) == 0 ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}

static int child_sync(sqlite3_file *f, int flags)
{
	(void)flags;
	return fdatasync(state(f)->fd) == 0 ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

static int child_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
	struct stat st;

	if (fstat(state(f)->fd, &st) != 0)
		return SQLITE_IOERR_FSTAT;
	*ret_size = st.st_size;
	return SQLITE_OK;
}

/* No more than SHARED: what is above it is refused by the shim, and not asked for by the node. */
static int child_lock(sqlite3_file *f, int level)
{
	struct state *s = state(f);
	int rc;

	if (level > SQLITE_LOCK_SHARED)
		return SQLITE_BUSY;
	if (level < SQLITE_LOCK_SHARED || s->locked)
		return SQLITE_OK;
	/* As SQLite does: who waits for an exclusive lock keeps newcomers out by the pending byte. */
	rc = lock_code(lock(s->fd, F_OFD_SETLK, F_RDLCK, PENDING_BYTE, 1, NULL), SQLITE_IOERR_LOCK);
	if (rc)
		return rc;
	rc = lock_code(lock(s->fd, F_OFD_SETLK, F_RDLCK, SHARED_FIRST, SHARED_SIZE, NULL), SQLITE_IOERR_LOCK);
	if (lock(s->fd, F_OFD_SETLK, F_UNLCK, PENDING_BYTE, 1, NULL) != 0 && rc == SQLITE_OK)
		rc = SQLITE_IOERR_UNLOCK;
	s->locked = rc == SQLITE_OK;
	return rc;
}

static int child_unlock(sqlite3_file *f, int level)
{
	struct state *s = state(f);

	if (level != SQLITE_LOCK_NONE || !s->locked)
		return SQLITE_OK;
	s->locked = false;
	return lock(s->fd, F_OFD_SETLK, F_UNLCK, PENDING_BYTE, 2 + SHARED_SIZE, NULL) == 0 ? SQLITE_OK : SQLITE_IOERR_UNLOCK;
}

static int child_reserved(sqlite3_file *f, int *ret)
{
	short type = F_UNLCK;

	if (lock(state(f)->fd, F_OFD_GETLK, F_WRLCK, RESERVED_BYTE, 1, &type) != 0)
		return SQLITE_IOERR_CHECKRESERVEDLOCK;
	*ret = type != F_UNLCK;
	return SQLITE_OK;
}

static int child_control(sqlite3_file *f, int op, void *arg)
{
	struct state *s = state(f);
	struct stat st;

	switch (op) {
	case SQLITE_FCNTL_HAS_MOVED:
		*(int *)arg = stat(s->path, &st) != 0 || st.st_ino != s->ino || st.st_dev != s->dev;
		return SQLITE_OK;
	case SQLITE_FCNTL_VFSNAME:
		*(char **)arg = sqlite3_mprintf("%s", "unix");
		return SQLITE_OK;
	case SQLITE_FCNTL_LOCKSTATE:
		*(int *)arg = s->locked ? SQLITE_LOCK_SHARED : SQLITE_LOCK_NONE;
		return SQLITE_OK;
	default:
		return SQLITE_NOTFOUND;
	}
}

static int child_sector(sqlite3_file *f)
{
	(void)f;
	return 4096;
}

static int child_traits(sqlite3_file *f)
{
	(void)f;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* ---- -shm ---- */

static size_t map_bytes(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return page > VFS_REGION_BYTES ? page : VFS_REGION_BYTES;
}

/* The rule of SQLite's dead man's switch: whoever has the file open holds DMS shared; who comes to one that nobody holds empties it. */
static int hold_switch(struct state *s)
{
	short type = F_UNLCK;
	int rc;

	if (lock(s->shm_fd, F_OFD_GETLK, F_WRLCK, SHM_DMS, 1, &type) != 0)
		return SQLITE_IOERR_LOCK;
	if (type == F_WRLCK)
		return SQLITE_BUSY;
	if (type == F_UNLCK) {
		rc = lock_code(lock(s->shm_fd, F_OFD_SETLK, F_WRLCK, SHM_DMS, 1, NULL), SQLITE_IOERR_SHMLOCK);
		if (rc == SQLITE_OK && ftruncate(s->shm_fd, 3) != 0)
			rc = SQLITE_IOERR_SHMOPEN;
		if (rc)
			return rc;
	}
	return lock_code(lock(s->shm_fd, F_OFD_SETLK, F_RDLCK, SHM_DMS, 1, NULL), SQLITE_IOERR_SHMLOCK);
}

static int open_shm(struct state *s)
{
	struct stat st;
	int rc;

	if (s->shm_fd >= 0)
		return SQLITE_OK;
	if (fstat(s->fd, &st) != 0)
		return SQLITE_IOERR_FSTAT;
	s->shm_fd = open(s->shm_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, st.st_mode & 0777);
	if (s->shm_fd < 0)
		return SQLITE_CANTOPEN;
	rc = hold_switch(s);
	if (rc) {
		close(s->shm_fd);
		s->shm_fd = -1;
	}
	return rc;
}

/* Each block of the file is there before it is mapped: a full disk is an error, and no signal. */
static int grow(struct state *s, off_t from, off_t to)
{
	for (off_t at = from / 4096 * 4096 + 4095; at < to; at += 4096)
		if (at >= from && pwrite(s->shm_fd, "", 1, at) != 1)
			return SQLITE_IOERR_SHMSIZE;
	return SQLITE_OK;
}

static int map_one(struct state *s, uint32_t i)
{
	void **grown, *p;

	if (i >= s->n_maps) {
		grown = realloc(s->map, (i + 8) * sizeof *grown);
		if (!grown)
			return SQLITE_IOERR_NOMEM;
		memset(grown + s->n_maps, 0, (i + 8 - s->n_maps) * sizeof *grown);
		s->map = grown;
		s->n_maps = i + 8;
	}
	if (s->map[i])
		return SQLITE_OK;
	p = mmap(NULL, map_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, s->shm_fd, (off_t)i * (off_t)map_bytes());
	if (p == MAP_FAILED)
		return SQLITE_IOERR_SHMMAP;
	s->map[i] = p;
	return SQLITE_OK;
}

static int child_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **pp)
{
	struct state *s = state(f);
	const size_t per_map = map_bytes() / VFS_REGION_BYTES;
	const uint32_t i = (uint32_t)((size_t)region / per_map);
	const off_t end = (off_t)(i + 1) * (off_t)map_bytes();
	struct stat st;
	int rc;

	*pp = NULL;
	if (size != VFS_REGION_BYTES)
		return SQLITE_IOERR_SHMSIZE;
	rc = open_shm(s);
	if (rc)
		return rc;
	if (fstat(s->shm_fd, &st) != 0)
		return SQLITE_IOERR_SHMSIZE;
	if (st.st_size < end) {
		if (!extend)
			return SQLITE_OK;
		rc = grow(s, st.st_size, end);
	}
	if (rc == SQLITE_OK)
		rc = map_one(s, i);
	if (rc == SQLITE_OK)
		*pp = (uint8_t *)s->map[i] + (size_t)region % per_map * VFS_REGION_BYTES;
	return rc;
}

static int child_shm_lock(sqlite3_file *f, int first, int n, int flags)
{
	short type = flags & SQLITE_SHM_UNLOCK ? F_UNLCK : flags & SQLITE_SHM_SHARED ? F_RDLCK : F_WRLCK;

	if (state(f)->shm_fd < 0)
		return SQLITE_IOERR_SHMLOCK;
	return lock_code(lock(state(f)->shm_fd, F_OFD_SETLK, type, SHM_BASE + first, n, NULL), SQLITE_IOERR_SHMLOCK);
}

static void child_shm_barrier(sqlite3_file *f)
{
	(void)f;
	__sync_synchronize();
}

static int child_shm_unmap(sqlite3_file *f, int delete)
{
	struct state *s = state(f);

	(void)delete; /* the shim never wants it */
	for (uint32_t i = 0; i < s->n_maps; i++)
		if (s->map[i])
			munmap(s->map[i], map_bytes());
	free(s->map);
	s->map = NULL;
	s->n_maps = 0;
	if (s->shm_fd >= 0)
		close(s->shm_fd);
	s->shm_fd = -1;
	return SQLITE_OK;
}

/* ---- opening ---- */

static void free_state(struct state *s)
{
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	free(s->shm_path);
	free(s);
}

static int child_close(sqlite3_file *f)
{
	child_shm_unmap(f, 0);
	free_state(state(f));
	f->pMethods = NULL;
	return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = child_close,
	.xRead = child_read,
	.xWrite = child_write,
	.xTruncate = child_truncate,
	.xSync = child_sync,
	.xFileSize = child_size,
	.xLock = child_lock,
	.xUnlock = child_unlock,
	.xCheckReservedLock = child_reserved,
	.xFileControl = child_control,
	.xSectorSize = child_sector,
	.xDeviceCharacteristics = child_traits,
	.xShmMap = child_shm_map,
	.xShmLock = child_shm_lock,
	.xShmBarrier = child_shm_barrier,
	.xShmUnmap = child_shm_unmap,
};

int child_open(sqlite3_vfs *base, const char *path, sqlite3_file *f, int flags, int *out)
{
	const bool read_only = flags & SQLITE_OPEN_READONLY;
	struct state *s = calloc(1, sizeof *s);
	struct stat st;

	f->pMethods = NULL;
	if (!s || base->szOsFile < (int)sizeof(struct child_file)) {
		free(s);
		return SQLITE_NOMEM;
	}
	s->shm_fd = -1;
	s->path = strdup(path);
	s->shm_path = malloc(strlen(path) + 5);
	s->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (s->fd < 0 && !read_only && errno == EACCES) {
		s->fd = open(path, O_RDONLY | O_CLOEXEC);
		flags = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
	}
	if (!s->path || !s->shm_path || s->fd < 0 || fstat(s->fd, &st) != 0) {
		int rc = s->fd < 0 ? SQLITE_CANTOPEN : SQLITE_NOMEM;

		free_state(s);
		return rc;
	}
	strcpy(s->shm_path, path);
	strcat(s->shm_path, "-shm");
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	((struct child_file *)f)->s = s;
	f->pMethods = &methods;
	if (out)
		*out = flags;
	return SQLITE_OK;
}
