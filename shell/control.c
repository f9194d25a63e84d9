/* node.sock: one request a connection, a word and a newline; the answer ends with the connection.
 *
 *   status                      the node's status as a JSON object
 *   rows                        the members for the table walraft_members, as bytes (shell_node_members_rows)
 *   events [AFTER]              events behind that number, or the latest (shell/events.h)
 *   members, transfer, change   about the group, see change.c; answered by the leader, within ASK_MS
 *   yield                       the node is to go to another process, see heir.h
 *   attach VERSION              the connection is an attached process's from then on (attach_msg.h)
 *
 * Each connection has a thread of its own, of which there are at most SLOTS: who asks slowly, or waits, keeps nobody else waiting.
 * The socket lies in the node directory; whoever may write there may ask. */
#include "shell/heir.h"
#include "shell/node_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#define CONTROL_TIMEOUT_MS 2000
#define ASK_MS 1000
#define SLOTS 8

struct slot { struct shell_node *n; pthread_t thread; int fd; bool used; atomic_bool ended; };

/* A path too long for sockaddr_un is reached through a descriptor of its directory. */
int node_control_address(const struct shell_paths *paths, struct sockaddr_un *a, int *ret_dir_fd, struct wire_err *err)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_dir_fd = -1;
	if (strlen(paths->sock) < sizeof a->sun_path) {
		memcpy(a->sun_path, paths->sock, strlen(paths->sock) + 1);
		return WIRE_OK;
	}
	*ret_dir_fd = open(paths->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret_dir_fd < 0)
		return wire_fail_errno(err, errno, "cannot open %s", paths->dir);
	snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/node.sock", *ret_dir_fd);
	return WIRE_OK;
}

int node_control_open(struct shell_node *n, struct wire_err *err)
{
	struct sockaddr_un a;
	int dir_fd, rc = node_control_address(&n->paths, &a, &dir_fd, err);

	if (rc)
		return rc;
	unlink(n->paths.sock); /* of a node that was killed; the lock says that it is not there any more */
	n->control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (n->control_fd < 0 || bind(n->control_fd, (struct sockaddr *)&a, sizeof a) || listen(n->control_fd, 16) ||
	    pipe2(n->control_stop, O_CLOEXEC))
		rc = wire_fail_errno(err, errno, "cannot listen on %s", n->paths.sock);
	if (dir_fd >= 0)
		close(dir_fd);
	return rc;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* False: not by then, or the node ends. stop: node's end of the pipe that tells, or -1. */
static bool wait_for(int fd, short events, int stop, uint64_t deadline_ms)
{
	struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = stop, .events = POLLIN } };
	uint64_t now = now_ms();
	int rc = now < deadline_ms ? poll(p, 2, (int)(deadline_ms - now)) : 0;

	return rc > 0 && !p[1].revents && p[0].revents;
}

/* The limit is for the whole line: who sends it byte by byte keeps the node from ending no longer than who sends nothing. */
static bool read_line(int fd, int stop, char *line, size_t cap)
{
	uint64_t deadline = now_ms() + CONTROL_TIMEOUT_MS;
	size_t len = 0;

	for (;;) {
		ssize_t got;

		if (!wait_for(fd, POLLIN, stop, deadline))
			return false;
		got = read(fd, line + len, cap - 1 - len);
		if (got <= 0)
			return false;
		len += (size_t)got;
		line[len] = 0;
		if (strchr(line, '\n'))
			return *strchr(line, '\n') = 0, true;
		if (len == cap - 1)
			return false;
	}
}

static void write_all(int fd, int stop, const uint8_t *p, size_t n)
{
	uint64_t deadline = now_ms() + CONTROL_TIMEOUT_MS;

	while (n) {
		ssize_t put = wait_for(fd, POLLOUT, stop, deadline) ? send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) : -1;

		if (put <= 0)
			return; /* the asker sees a cut answer */
		p += put;
		n -= (size_t)put;
	}
}

static void serve(struct shell_node *n, int fd)
{
	struct wire_buf b = WIRE_BUF_INIT;
	char line[NODE_LINE_MAX] = "";

	if (read_line(fd, n->control_stop[0], line, sizeof line)) {
		if (!strncmp(line, "attach ", 7)) {
			node_attach_serve(n, fd, line);
			return;
		}
		if (!strcmp(line, "yield")) {
			node_heir_yield(n, fd);
			return;
		}
		if (!strcmp(line, "status"))
			shell_node_status_json(n, &b);
		else if (!strcmp(line, "rows"))
			shell_node_members_rows(n, &b);
		else if (!strncmp(line, "events", 6) && (!line[6] || line[6] == ' '))
			node_events_json(n->events, line[6] ? strtoull(line + 7, NULL, 10) : UINT64_MAX, &b);
		else
			node_member_ask(n, line, ASK_MS, &b);
		wire_put_u8(&b, '\n');
		if (!b.failed)
			write_all(fd, n->control_stop[0], b.data, b.len);
	}
	wire_buf_free(&b);
	close(fd);
}

static void *serve_main(void *arg)
{
	struct slot *s = arg;

	serve(s->n, s->fd);
	atomic_store(&s->ended, true);
	return NULL;
}

/* Without a slot or a thread the connection is served here, and the next ones wait. */
static void hand_out(struct shell_node *n, struct slot *slots, int fd)
{
	struct slot *free_slot = NULL;

	for (size_t i = 0; i < SLOTS; i++) {
		struct slot *s = &slots[i];

		if (s->used && atomic_load(&s->ended)) {
			pthread_join(s->thread, NULL);
			s->used = false;
		}
		if (!s->used)
			free_slot = s;
	}
	if (free_slot) {
		free_slot->n = n;
		free_slot->fd = fd;
		atomic_store(&free_slot->ended, false);
		free_slot->used = !pthread_create(&free_slot->thread, NULL, serve_main, free_slot);
	}
	if (!free_slot || !free_slot->used)
		serve(n, fd);
}

void *node_control_main(void *node)
{
	struct shell_node *n = node;
	struct slot slots[SLOTS] = { 0 };

	for (;;) {
		struct pollfd p[2] = { { .fd = n->control_fd, .events = POLLIN }, { .fd = n->control_stop[0], .events = POLLIN } };
		int fd;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		if (!(p[0].revents & POLLIN))
			continue;
		fd = accept4(n->control_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			hand_out(n, slots, fd);
	}
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].used)
			pthread_join(slots[i].thread, NULL);
	return NULL;
}

void node_control_close(struct shell_node *n)
{
	if (n->started & THREAD_CONTROL) {
		ssize_t put = write(n->control_stop[1], "x", 1);

		(void)put; /* a pipe with room for one byte */
		pthread_join(n->thread_control, NULL);
	}
	for (int i = 0; i < 2; i++)
		if (n->control_stop[i] >= 0)
			close(n->control_stop[i]);
	if (n->control_fd >= 0) {
		close(n->control_fd);
		unlink(n->paths.sock);
	}
}

int shell_control_ask(const struct shell_paths *paths, const char *request, struct wire_buf *ret_answer, struct wire_err *err)
{
	const struct timeval limit = { .tv_sec = 5 };
	struct sockaddr_un a;
	int dir_fd = -1, fd, rc = node_control_address(paths, &a, &dir_fd, err);
	char chunk[NODE_LINE_MAX + 1];
	ssize_t got;

	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) { /* connect, too: nobody may be accepting */
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	}
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
		rc = errno == ENOENT || errno == ECONNREFUSED
		             ? wire_fail(err, WIRE_CLOSED, "the node of %s is not running; start it with: walraft serve %s",
		                         paths->db, paths->db)
		     : errno == EAGAIN ? wire_fail(err, WIRE_TIMEOUT, "the node of %s does not answer: its process is stopped, or stuck", paths->db)
		                       : wire_fail_errno(err, errno, "cannot reach the node of %s", paths->db);
	} else {
		snprintf(chunk, sizeof chunk, "%s\n", request);
		write_all(fd, -1, (const uint8_t *)chunk, strlen(chunk));
		while ((got = read(fd, chunk, sizeof chunk)) > 0)
			wire_put_bytes(ret_answer, chunk, (size_t)got);
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			rc = wire_fail(err, WIRE_TIMEOUT, "the node of %s does not answer: its process is stopped, or stuck", paths->db);
		else if (got < 0 || ret_answer->failed || !ret_answer->len || ret_answer->data[ret_answer->len - 1] != '\n')
			rc = wire_fail(err, WIRE_IO, "the node of %s gave no whole answer", paths->db);
	}
	if (fd >= 0)
		close(fd);
	if (dir_fd >= 0)
		close(dir_fd);
	return rc;
}
