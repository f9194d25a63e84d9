/* A host of links, for tests of what they leave in it. */
#include "test/unit/link_host.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

unsigned link_rounds(const char *name, unsigned normally)
{
	const char *s = getenv(name);
	return s ? (unsigned)atoi(s) : normally;
}

void link_take_stock(struct link_stock *s)
{
	memset(s, 0, sizeof(*s));
	DIR *dir = opendir("/proc/self/task");
	for (struct dirent *d; (d = readdir(dir));)
		s->threads += d->d_name[0] != '.';
	closedir(dir);
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			s->fds[s->n_fds++] = fd;
}

static void *nothing(void *arg)
{
	return arg;
}

void link_warm_up(void)
{
	pthread_t t;
	if (pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL))
		abort();
}

bool link_is_tcp(int fd)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof(a);
	return getsockname(fd, (struct sockaddr *)&a, &n) == 0 && a.ss_family == AF_INET;
}

static bool any_tcp(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (link_is_tcp(fd))
			return true;
	return false;
}

void link_take_first_stock(struct link_stock *s)
{
	LINK_POLL(!any_tcp()); /* a shared nng closes its sockets a little later */
	link_take_stock(s);
}

bool link_is_stock(const struct link_stock *want)
{
	struct link_stock s;
	link_take_stock(&s);
	return s.threads <= want->threads && s.n_fds == want->n_fds &&
	       memcmp(s.fds, want->fds, sizeof(s.fds)) == 0;
}

/* A thread that was joined may be listed for a moment. */
bool link_comes_to(const struct link_stock *want, uint64_t ms)
{
	uint64_t end = link_now_ns() + ms * 1000000;
	bool ok;
	while (!(ok = link_is_stock(want)) && link_now_ns() < end)
		sched_yield();
	return ok;
}

void link_check_stock(const struct link_stock *want)
{
	struct link_stock s;
	if (link_comes_to(want, CHECK_MS))
		return;
	link_take_stock(&s);
	for (unsigned i = 0; i < s.n_fds; i++) {
		char path[64], name[256] = "";
		snprintf(path, sizeof(path), "/proc/self/fd/%d", s.fds[i]);
		(void)!readlink(path, name, sizeof(name) - 1);
		print_message("# %s: %s\n", path, name);
	}
	fail_msg("%u threads, %u descriptors; there were %u, %u", s.threads, s.n_fds, want->threads, want->n_fds);
}

/* two nodes */

struct link_node link_pair[2];

void link_open_pair(void)
{
	link_open_node(&link_pair[0], 1, CLUSTER);
	link_open_node(&link_pair[1], 2, CLUSTER);
	link_connect_nodes(link_pair, 2);
	for (int i = 0; i < 2; i++)
		link_drain(&link_pair[i], WIRE_LANE_COUNT);
}

void link_close_pair(void)
{
	link_close_node(&link_pair[0]);
	link_close_node(&link_pair[1]);
}

static atomic_bool stop[2];

static void *chatter(void *arg)
{
	struct link_node *n = arg;
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .corr = 1 };
	bool second = n != link_pair;
	for (unsigned i = 0; !atomic_load(&stop[second]); i++) {
		(void)wire_link_send(n->link, second ? 1 : 2, (enum wire_lane)(i % WIRE_LANE_COUNT), &m);
		if (i % 64 == 0)
			sched_yield();
	}
	return NULL;
}

void link_begin_chatter(pthread_t t[2])
{
	for (int i = 0; i < 2; i++) {
		atomic_store(&stop[i], false);
		pthread_mutex_lock(&link_pair[i].lock);
		link_pair[i].counting = true; /* the inbox stays empty */
		pthread_mutex_unlock(&link_pair[i].lock);
		assert_int_equal(pthread_create(&t[i], NULL, chatter, &link_pair[i]), 0);
	}
}

void link_end_chatter(pthread_t t[2], int i)
{
	atomic_store(&stop[i], true);
	pthread_join(t[i], NULL);
}

/* children */

void link_check_child(pid_t pid)
{
	int status = -1;
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("the child ended with status %x", (unsigned)status);
}

pid_t link_start_child(void)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		alarm(60);
	return pid;
}
