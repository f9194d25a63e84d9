/* LD_PRELOAD for process tests: moments that no test meets by chance.
 *
 *   STALL=FILE  while FILE exists, a write to a journal segment that begins with an entry's record waits
 *   HOLD=FILE   while FILE exists, a write to a -wal waits: what is committed is not published
 *   CUT=FILE    while FILE exists, nothing is sent to the TCP ports that it lists, as if the socket's buffer were full
 *   DIE=FILE    while FILE exists and holds a number n, the process dies of SIGKILL instead of its n-th renaming or removal of a file */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define ENTRY_TYPE 1   /* raft/journal_impl.h: RAFT_JRN_ENTRY */
#define TYPE_OFFSET 12 /* raft/JOURNAL.md: of the type in a record's head */

static void rest(long us)
{
	nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

static int is_entry_of_journal(int fd, const unsigned char *p, size_t n)
{
	char link[64], path[4096];
	ssize_t len;

	if (n <= TYPE_OFFSET || p[TYPE_OFFSET] != ENTRY_TYPE)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof path);
	return len > 4 && !memcmp(path + len - 4, ".seg", 4);
}

static int is_wal(int fd)
{
	char link[64], path[4096];
	ssize_t len;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof path);
	return len > 4 && !memcmp(path + len - 4, "-wal", 4);
}

static ssize_t held_write(int fd, const void *p, size_t n, off_t at)
{
	static ssize_t (*real)(int, const void *, size_t, off_t);
	const char *file = getenv("STALL"), *hold = getenv("HOLD");

	if (!real)
		real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
	if (hold && !access(hold, F_OK) && is_wal(fd))
		while (!access(hold, F_OK))
			rest(1000);
	if (file && !access(file, F_OK) && is_entry_of_journal(fd, p, n))
		while (!access(file, F_OK))
			rest(1000);
	return real(fd, p, n, at);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	return held_write(fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
	return held_write(fd, p, n, at);
}

static int is_cut(int fd)
{
	const char *file = getenv("CUT");
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	unsigned port;
	int cut = 0;
	FILE *f;

	if (!file || access(file, F_OK) || getpeername(fd, (struct sockaddr *)&a, &len) || a.sin_family != AF_INET)
		return 0;
	f = fopen(file, "r");
	while (f && fscanf(f, "%u", &port) == 1)
		cut |= port == ntohs(a.sin_port);
	if (f)
		fclose(f);
	return cut;
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	static ssize_t (*real)(int, const struct msghdr *, int);

	if (!real)
		real = (ssize_t (*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
	if (is_cut(fd)) {
		rest(100);
		errno = EAGAIN;
		return -1;
	}
	return real(fd, m, flags);
}

static void one_more(void)
{
	static int count;
	const char *file = getenv("DIE");
	FILE *f = file ? fopen(file, "r") : NULL;
	int n;

	if (f && fscanf(f, "%d", &n) == 1 && __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == n)
		kill(getpid(), SIGKILL);
	if (f)
		fclose(f);
}

int rename(const char *from, const char *to)
{
	static int (*real)(const char *, const char *);

	if (!real)
		real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
	one_more();
	return real(from, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	static int (*real)(int, const char *, int, const char *, unsigned);

	if (!real)
		real = (int (*)(int, const char *, int, const char *, unsigned))dlsym(RTLD_NEXT, "renameat2");
	one_more();
	return real(from_fd, from, to_fd, to, flags);
}

int unlink(const char *path)
{
	static int (*real)(const char *);

	if (!real)
		real = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
	one_more();
	return real(path);
}
