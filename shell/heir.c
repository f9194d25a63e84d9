#include "shell/heir.h"
#include "shell/node_impl.h"
#include "shell/resident.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MS 5000   /* a host that has no answer for so long is stopped, or stuck */
#define END_MS 20000     /* for the node to end: its writers get 2 s, a transfer 1, a checkpoint is left out */

/* ---- bytes with descriptors ---- */

static bool send_with(int socket, const char *text, size_t n, int fd)
{
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = { .room = { 0 } };
	struct iovec io = { (void *)(uintptr_t)text, n };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };

	if (fd >= 0) {
		m.msg_control = control.room;
		m.msg_controllen = sizeof control.room;
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL) == (ssize_t)n;
}

/* One byte; *ret_fd -1: without a descriptor. 0: the end; -1: not in time. */
static int receive_byte(int socket, char *ret_byte, int *ret_fd, int timeout_ms)
{
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = { .room = { 0 } };
	struct iovec io = { ret_byte, 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room };
	struct pollfd p = { .fd = socket, .events = POLLIN };
	struct cmsghdr *c;
	ssize_t got;

	*ret_fd = -1;
	do
		got = poll(&p, 1, timeout_ms);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -1;
	got = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
	if (got <= 0)
		return 0;
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return 1;
}

/* ---- who asks ---- */

static int ask(const struct shell_paths *paths, const char *line, int *ret_socket, struct wire_err *err)
{
	const struct timeval limit = { .tv_sec = ANSWER_MS / 1000 };
	struct sockaddr_un a;
	int dir_fd = -1, fd, e = 0, rc = node_control_address(paths, &a, &dir_fd, err);

	if (rc)
		return rc == WIRE_NOTFOUND ? wire_fail(err, WIRE_CLOSED, "no process hosts the node of %s", paths->db) : rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) || connect(fd, (struct sockaddr *)&a, sizeof a) || !send_with(fd, line, strlen(line), -1))
		e = errno;
	if (dir_fd >= 0)
		close(dir_fd);
	if (!e) {
		*ret_socket = fd;
		return WIRE_OK;
	}
	if (fd >= 0)
		close(fd);
	if (e == ENOENT || e == ECONNREFUSED || e == ECONNRESET || e == EPIPE)
		return wire_fail(err, WIRE_CLOSED, "no process hosts the node of %s", paths->db);
	if (e == EAGAIN)
		return wire_fail(err, WIRE_TIMEOUT, "the process that hosts the node of %s does not answer: it is stopped, or stuck; continue it, or kill it, and another takes over", paths->db);
	return wire_fail_errno(err, e, "cannot reach the process that hosts the node of %s", paths->db);
}

static void shm_name(const struct shell_paths *paths, char dst[PATH_MAX + 8])
{
	snprintf(dst, PATH_MAX + 8, "%s-shm", paths->db);
}

static int refusal(int s, struct wire_err *err)
{
	char text[512];
	ssize_t got = recv(s, text, sizeof text - 1, MSG_WAITALL); /* to the end */

	text[got > 0 ? got : 0] = 0;
	return wire_fail(err, WIRE_BUSY, "%s", *text ? text : "the process that hosts the node does not give it up");
}

int shell_heir_ask(const struct shell_paths *paths, int *ret_lock_fd, struct vfs_shmlock **ret_shm, struct wire_err *err)
{
	struct vfs_shmlock *shm = NULL;
	char name[PATH_MAX + 8], byte = 0;
	int s = -1, fd = -1, rc = ask(paths, "yield\n", &s, err);

	if (rc)
		return rc;
	shm_name(paths, name);
	rc = receive_byte(s, &byte, &fd, ANSWER_MS);
	if (rc == 1 && byte == 'N') {
		rc = refusal(s, err);
		goto out;
	}
	if (rc == 1 && byte == 'Y' && fd >= 0 && vfs_shmlock_adopt(name, fd, &shm, NULL))
		shm = NULL;
	if (rc == 1 && (byte == 'Y' || byte == 'y'))
		rc = receive_byte(s, &byte, &fd, END_MS);
	if (rc == 1 && byte == 'L' && fd >= 0) {
		*ret_lock_fd = fd;
		*ret_shm = shm;
		shm = NULL;
		rc = WIRE_OK;
	} else if (rc < 0) {
		rc = wire_fail(err, WIRE_TIMEOUT, "the process that hosts the node of %s was asked to give it up, and does not: it is stopped, or stuck", paths->db);
	} else {
		rc = wire_fail(err, WIRE_CLOSED, "the process that hosted the node of %s has ended", paths->db);
	}
out:
	close(s);
	if (shm)
		vfs_shmlock_let_go(shm);
	return rc;
}

/* ---- the host ---- */

static bool send_lock(struct shell_node *n, int fd)
{
	int lock = n->db ? vfs_db_lock_fd(n->db, true) : -1;

	return send_with(fd, lock >= 0 ? "Y" : "y", 1, lock);
}

void node_heir_yield(struct shell_node *n, int fd)
{
	char text[PATH_MAX + 200];

	if (shell_resident_yield(n->paths.db, fd))
		return;
	snprintf(text, sizeof text, "N%s is in use by process %ld, which is no application that would give it up: end that one first", n->paths.db, (long)getpid());
	(void)send_with(fd, text, strlen(text), -1);
	close(fd);
}

void shell_heir_yield_now(struct shell_node *n, int fd)
{
	int lock = -1;

	if (send_lock(n, fd))
		shell_node_end(n, &lock);
	else
		shell_node_release(n); /* who asked is gone */
	if (lock >= 0) {
		(void)send_with(fd, "L", 1, lock);
		close(lock); /* it is not unlocked: the other end has it now, or it goes with this */
	}
	close(fd);
}
