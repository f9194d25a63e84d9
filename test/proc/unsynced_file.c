/* What is unsynced of each file, and which descriptor is which file. */
#include "test/proc/unsynced.h"
#include <dlfcn.h>

struct unsynced_real real;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct unsynced_file *files;
_Atomic(struct unsynced_file *) unsynced_of_fd[UNSYNCED_FDS];
atomic_bool unsynced_osync[UNSYNCED_FDS];
char unsynced_root[PATH_MAX];
static atomic_int owner;

static void after_fork(void)
{
	atomic_store(&owner, getpid());
	pthread_mutex_init(&table, NULL);
}

void unsynced_resolve(void)
{
	static atomic_bool done;

	if (atomic_load(&done))
		return;
#define FIND(name) *(void **)&real.name = dlsym(RTLD_NEXT, #name)
	FIND(openat), FIND(close), FIND(close_range), FIND(dup), FIND(dup2), FIND(dup3), FIND(fcntl), FIND(fclose);
	FIND(read), FIND(write), FIND(pread), FIND(pwrite), FIND(readv), FIND(writev), FIND(preadv2), FIND(pwritev2);
	FIND(lseek), FIND(ftruncate), FIND(fallocate), FIND(posix_fallocate), FIND(fsync), FIND(fdatasync);
	FIND(fstat), FIND(fstatat), FIND(statx), FIND(mmap), FIND(unlinkat), FIND(renameat2), FIND(copy_file_range);
	FIND(sendfile), FIND(_exit);
	const char *r = getenv("UNSYNCED_ROOT");
	if (!r || !realpath(r, unsynced_root))
		unsynced_root[0] = 0;
	atomic_store(&owner, getpid());
	atomic_store(&done, true);
}

__attribute__((constructor)) static void begin(void)
{
	unsynced_resolve();
	pthread_atfork(NULL, NULL, after_fork);
}

/* False in a child of vfork, which shares this memory but not the descriptors. */
bool unsynced_ours(void)
{
	return atomic_load(&owner) == getpid();
}

/* ---- contents; f->mu is held ---- */
static struct unsynced_page *find_page(struct unsynced_file *f, uint64_t no)
{
	struct unsynced_page *p = f->pages[no % UNSYNCED_BUCKETS];

	while (p && p->no != no)
		p = p->next;
	return p;
}

/* Bytes of the real file, zeros where it has none that count. */
static int real_bytes(struct unsynced_file *f, int fd, uint8_t *dst, size_t n, uint64_t at)
{
	size_t have = at >= f->cut ? 0 : n < f->cut - at ? n : (size_t)(f->cut - at), got = 0;

	while (got < have) {
		ssize_t k = real.pread(fd, dst + got, have - got, (off_t)(at + got));
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -1;
		if (k == 0)
			break;
		got += (size_t)k;
	}
	memset(dst + got, 0, n - got);
	return 0;
}

static void drop_pages(struct unsynced_file *f, uint64_t from_no)
{
	for (size_t b = 0; b < UNSYNCED_BUCKETS; b++) {
		for (struct unsynced_page **pp = &f->pages[b]; *pp;) {
			struct unsynced_page *p = *pp;
			if (p->no < from_no) {
				pp = &p->next;
				continue;
			}
			*pp = p->next;
			free(p);
		}
	}
}

int unsynced_make_dirty(struct unsynced_file *f, int fd)
{
	struct stat st;
	char path[32];

	if (f->dirty)
		return 0;
	if (f->out < 0) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		f->out = real.openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC);
		if (f->out < 0)
			return -1;
	}
	if (real.fstat(fd, &st))
		return -1;
	f->size = f->cut = (uint64_t)st.st_size;
	f->dirty = true;
	return 0;
}

ssize_t unsynced_put(struct unsynced_file *f, int fd, const void *src, size_t n, uint64_t at)
{
	const uint8_t *from = src;

	if (unsynced_make_dirty(f, fd))
		return -1;
	for (size_t done = 0; done < n;) {
		uint64_t no = (at + done) / UNSYNCED_PAGE;
		size_t in = (size_t)((at + done) % UNSYNCED_PAGE), k = n - done < UNSYNCED_PAGE - in ? n - done : UNSYNCED_PAGE - in;
		struct unsynced_page *p = find_page(f, no);
		if (!p) {
			p = malloc(sizeof(*p));
			if (!p || (k < UNSYNCED_PAGE && real_bytes(f, f->out, p->data, UNSYNCED_PAGE, no * UNSYNCED_PAGE))) {
				free(p);
				return -1;
			}
			p->no = no;
			p->next = f->pages[no % UNSYNCED_BUCKETS];
			f->pages[no % UNSYNCED_BUCKETS] = p;
		}
		memcpy(p->data + in, from + done, k);
		done += k;
	}
	if (n && at + n > f->size)
		f->size = at + n;
	return (ssize_t)n;
}

ssize_t unsynced_get(struct unsynced_file *f, int fd, void *dst, size_t n, uint64_t at)
{
	uint8_t *to = dst;

	if (at >= f->size)
		return 0;
	n = n < f->size - at ? n : (size_t)(f->size - at);
	for (size_t done = 0; done < n;) {
		size_t in = (size_t)((at + done) % UNSYNCED_PAGE), k = n - done < UNSYNCED_PAGE - in ? n - done : UNSYNCED_PAGE - in;
		const struct unsynced_page *p = find_page(f, (at + done) / UNSYNCED_PAGE);
		if (p)
			memcpy(to + done, p->data + in, k);
		else if (real_bytes(f, fd, to + done, k, at + done))
			return -1;
		done += k;
	}
	return (ssize_t)n;
}

int unsynced_cut_to(struct unsynced_file *f, int fd, uint64_t size)
{
	if (unsynced_make_dirty(f, fd))
		return -1;
	if (size < f->size) {
		struct unsynced_page *p = find_page(f, size / UNSYNCED_PAGE);
		if (p)
			memset(p->data + size % UNSYNCED_PAGE, 0, UNSYNCED_PAGE - size % UNSYNCED_PAGE);
		drop_pages(f, (size + UNSYNCED_PAGE - 1) / UNSYNCED_PAGE);
		f->cut = size < f->cut ? size : f->cut;
	}
	f->size = size;
	return 0;
}

int unsynced_write_out(struct unsynced_file *f)
{
	struct stat st;

	if (!f->dirty)
		return 0;
	if (real.fstat(f->out, &st) || ((uint64_t)st.st_size > f->cut && real.ftruncate(f->out, (off_t)f->cut)))
		return -1;
	for (size_t b = 0; b < UNSYNCED_BUCKETS; b++) {
		for (struct unsynced_page *p = f->pages[b]; p; p = p->next) {
			uint64_t at = p->no * UNSYNCED_PAGE;
			size_t n = at >= f->size ? 0 : f->size - at < UNSYNCED_PAGE ? (size_t)(f->size - at) : UNSYNCED_PAGE;
			if (n && real.pwrite(f->out, p->data, n, (off_t)at) != (ssize_t)n)
				return -1;
		}
	}
	if (real.ftruncate(f->out, (off_t)f->size))
		return -1;
	drop_pages(f, 0);
	f->dirty = false;
	return 0;
}

/* ---- descriptors ---- */
static struct unsynced_file *find_file(dev_t dev, ino_t ino)
{
	struct unsynced_file *f = files;

	while (f && (f->dev != dev || f->ino != ino))
		f = f->next;
	return f;
}

/* Forgets a file without descriptors, when it has no name either or nothing that is unsynced. table is held. */
static void settle(struct unsynced_file *f, bool unlinked)
{
	if (f->fds)
		return;
	pthread_mutex_lock(&f->mu);
	if (unlinked) {
		drop_pages(f, 0);
		f->dirty = false;
	}
	if (!f->dirty && f->out >= 0) {
		real.close(f->out);
		f->out = -1;
	}
	pthread_mutex_unlock(&f->mu);
}

void unsynced_let_go(int fd)
{
	struct stat st;

	if (!unsynced_file_of(fd) || !unsynced_ours())
		return;
	bool unlinked = !real.fstat(fd, &st) && !st.st_nlink;
	pthread_mutex_lock(&table);
	struct unsynced_file *f = atomic_exchange(&unsynced_of_fd[fd], NULL);
	if (f) {
		f->fds--;
		settle(f, unlinked);
	}
	pthread_mutex_unlock(&table);
}

void unsynced_share(int from, int to)
{
	if (to < 0 || to >= UNSYNCED_FDS || !unsynced_ours())
		return;
	pthread_mutex_lock(&table);
	struct unsynced_file *f = unsynced_file_of(from);
	if (f)
		f->fds++;
	atomic_store(&unsynced_osync[to], f && atomic_load(&unsynced_osync[from]));
	atomic_store(&unsynced_of_fd[to], f);
	pthread_mutex_unlock(&table);
}

static bool is_covered(int fd, struct stat *st)
{
	char link[32], path[PATH_MAX];
	size_t n = strlen(unsynced_root);

	if (!n || fd < 0 || fd >= UNSYNCED_FDS || real.fstat(fd, st) || !S_ISREG(st->st_mode))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t k = readlink(link, path, sizeof(path) - 1);
	if (k <= (ssize_t)n)
		return false;
	path[k] = 0;
	return !strncmp(path, unsynced_root, n) && path[n] == '/' && (k < 4 || strcmp(path + k - 4, "-shm"));
}

int unsynced_did_open(int fd, int flags)
{
	struct stat st;

	if (fd < 0 || fd >= UNSYNCED_FDS || !unsynced_ours())
		return fd;
	int saved = errno;
	bool covered = is_covered(fd, &st);
	pthread_mutex_lock(&table);
	struct unsynced_file *f = atomic_exchange(&unsynced_of_fd[fd], NULL); /* closed behind our back, by stdio */
	if (f)
		f->fds--;
	f = covered ? find_file(st.st_dev, st.st_ino) : NULL;
	if (covered && !f && (f = calloc(1, sizeof(*f))) != NULL) {
		f->dev = st.st_dev;
		f->ino = st.st_ino;
		f->out = -1;
		pthread_mutex_init(&f->mu, NULL);
		f->next = files;
		files = f;
	}
	if (f)
		f->fds++;
	atomic_store(&unsynced_osync[fd], f && (flags & (O_SYNC | O_DSYNC)));
	atomic_store_explicit(&unsynced_of_fd[fd], f, memory_order_release);
	pthread_mutex_unlock(&table);
	errno = saved;
	return fd;
}

void unsynced_write_out_all(void)
{
	pthread_mutex_lock(&table);
	for (struct unsynced_file *f = files; f; f = f->next) {
		pthread_mutex_lock(&f->mu);
		if (f->dirty && !unsynced_write_out(f) && f->out >= 0)
			real.fsync(f->out);
		pthread_mutex_unlock(&f->mu);
	}
	pthread_mutex_unlock(&table);
}

/* The size of a file that has unsynced bytes, whichever way it is named. */
void unsynced_fix_size(dev_t dev, ino_t ino, off_t *size)
{
	pthread_mutex_lock(&table);
	struct unsynced_file *f = find_file(dev, ino);
	if (f) {
		pthread_mutex_lock(&f->mu);
		if (f->dirty)
			*size = (off_t)f->size;
		pthread_mutex_unlock(&f->mu);
	}
	pthread_mutex_unlock(&table);
}

void unsynced_lost_name(const struct stat *st)
{
	if (!unsynced_ours() || !S_ISREG(st->st_mode) || st->st_nlink != 1)
		return;
	pthread_mutex_lock(&table);
	struct unsynced_file *f = find_file(st->st_dev, st->st_ino);
	if (f)
		settle(f, true);
	pthread_mutex_unlock(&table);
}
