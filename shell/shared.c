#include "shell/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t MAGIC[8] = "walr-shm";

uint64_t shell_shared_clock(void)
{
	struct stat st;

	/* A kernel without time namespaces has one clock for all. */
	if (stat("/proc/self/ns/time", &st))
		return errno == ENOENT && !access("/proc/self/ns", F_OK) ? 1 : 0;
	return (uint64_t)st.st_ino;
}

/* Whole, so that no later store finds the disk full. */
static int make_whole(int fd, const char *path, struct wire_err *err)
{
	static const uint8_t zeros[SHELL_SHARED_PAGE];
	struct stat st;

	if (fstat(fd, &st))
		return wire_fail_errno(err, errno, "cannot look at %s", path);
	for (off_t at = st.st_size; at < 2 * (off_t)SHELL_SHARED_PAGE;) {
		size_t n = (size_t)(2 * (off_t)SHELL_SHARED_PAGE - at);
		ssize_t put = pwrite(fd, zeros, n < sizeof zeros ? n : sizeof zeros, at);

		if (put <= 0)
			return wire_fail_errno(err, put ? errno : ENOSPC, "cannot write %s", path);
		at += put;
	}
	return WIRE_OK;
}

static int map(int fd, const char *path, bool host, struct shell_shared **ret_shared, struct shell_shared_marks **ret_marks, struct wire_err *err)
{
	uint8_t *p = mmap(NULL, 2 * (size_t)SHELL_SHARED_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return wire_fail_errno(err, errno, "cannot map %s", path);
	if (!host && mprotect(p, SHELL_SHARED_PAGE, PROT_READ)) {
		int e = errno;

		munmap(p, 2 * (size_t)SHELL_SHARED_PAGE);
		return wire_fail_errno(err, e, "cannot map %s", path);
	}
	*ret_shared = (struct shell_shared *)p;
	*ret_marks = (struct shell_shared_marks *)(p + SHELL_SHARED_PAGE);
	return WIRE_OK;
}

int shell_shared_host(const struct wire_env *env, const char *path, struct shell_shared **ret_shared, struct shell_shared_marks **ret_marks, struct wire_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644), rc;
	struct shell_shared_marks *marks;
	struct shell_shared *s;
	uint64_t owner = 0;

	if (fd < 0)
		return wire_fail_errno(err, errno, "cannot open %s", path);
	rc = make_whole(fd, path, err);
	if (!rc)
		rc = map(fd, path, true, &s, &marks, err);
	close(fd);
	if (rc)
		return rc;
	while (!owner)
		env->random(env->ctx, &owner, sizeof owner);
	atomic_store(&s->pub.owner, owner);
	atomic_store(&s->lease.until_us, 0);
	atomic_store(&s->lease.read_index, 0);
	atomic_store(&s->lease.ended, false);
	atomic_store(&s->lease.fresh_us, 0);
	atomic_store(&s->lease.used, false);
	atomic_store(&s->clock, shell_shared_clock());
	atomic_fetch_add(&s->voided, 1);
	atomic_store(&s->several_voters, 1);
	s->version = SHELL_SHARED_VERSION;
	s->bytes = sizeof *s;
	memcpy(s->magic, MAGIC, sizeof MAGIC);
	atomic_store(&s->lease.wanted_us, 0);
	atomic_store(&marks->lease_used, 0);
	atomic_store(&marks->lease_wanted, 0);
	*ret_shared = s;
	*ret_marks = marks;
	return WIRE_OK;
}

int shell_shared_attach(const char *path, uint64_t owner, const struct shell_shared **ret_shared, struct shell_shared_marks **ret_marks, struct wire_err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), rc = WIRE_OK;
	struct shell_shared_marks *marks;
	struct shell_shared *s;
	struct stat st;

	if (fd < 0)
		return wire_fail_errno(err, errno, "cannot open %s", path);
	if (fstat(fd, &st) || st.st_size < 2 * (off_t)SHELL_SHARED_PAGE)
		rc = wire_fail(err, WIRE_CLOSED, "%s is not whole", path);
	if (!rc)
		rc = map(fd, path, false, &s, &marks, err);
	close(fd);
	if (rc)
		return rc;
	if (memcmp(s->magic, MAGIC, sizeof MAGIC) != 0 || s->version != SHELL_SHARED_VERSION || s->bytes != sizeof *s)
		rc = wire_fail(err, WIRE_VERSION, "the process that hosts the node runs another version of walraft: use the same one in all processes (%s)", path);
	else if (atomic_load(&s->pub.owner) != owner)
		rc = wire_fail(err, WIRE_CLOSED, "the process that hosted the node has ended");
	if (rc) {
		shell_shared_unmap(s);
		return rc;
	}
	*ret_shared = s;
	*ret_marks = marks;
	return WIRE_OK;
}

void shell_shared_unmap(const struct shell_shared *s)
{
	if (s)
		munmap((void *)(uintptr_t)s, 2 * (size_t)SHELL_SHARED_PAGE);
}
