/* Children of a process that has links, or had them. */
#include "test/unit/link_host.h"
#include "wire/link_nng.h"
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* A listening socket of the host on the port of a link, but another address, and a connection of its own. */
struct host {
	int listener, dialled, accepted;
};

static void host_open(struct host *h, const char *link_url)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t n = sizeof(a);
	a.sin_port = htons((uint16_t)atoi(strrchr(link_url, ':') + 1));
	inet_pton(AF_INET, "127.0.0.2", &a.sin_addr);
	h->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(h->listener, (struct sockaddr *)&a, n), 0);
	assert_int_equal(listen(h->listener, 1), 0);
	h->dialled = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(h->dialled, (struct sockaddr *)&a, n), 0);
	h->accepted = accept(h->listener, NULL, NULL);
	assert_true(h->accepted >= 0);
}

static bool host_works(const struct host *h)
{
	char c = 'x';
	int on = 0;
	socklen_t n = sizeof(on);
	return getsockopt(h->listener, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on &&
	       send(h->dialled, &c, 1, MSG_NOSIGNAL) == 1 && recv(h->accepted, &c, 1, MSG_WAITALL) == 1;
}

static void host_close(struct host *h)
{
	close(h->listener);
	close(h->dialled);
	close(h->accepted);
}

/* In a child: of the sockets that there are, only the host's are left; and of all else, when nng is ours. */
static bool only_host(const struct link_stock *before, const struct host *h)
{
	struct link_stock now;
	link_take_stock(&now);
	for (unsigned i = 0; i < now.n_fds; i++) {
		bool known = now.fds[i] == h->listener || now.fds[i] == h->dialled || now.fds[i] == h->accepted;
		for (unsigned k = 0; k < before->n_fds; k++)
			known |= before->fds[k] == now.fds[i];
		if (!known && (wire_nng_own || link_is_tcp(now.fds[i])))
			return false;
	}
	return now.n_fds >= before->n_fds + 3;
}

static bool refused_in_child(void)
{
	struct link_node n;
	struct wire_err err = { 0 };
	struct wire_link *l = NULL;
	link_init_node(&n);
	struct wire_link_opts o = link_options(&n, 9, CLUSTER);
	return wire_link_open(&o, &l, &err) == WIRE_UNSUPPORTED && !l && err.code == WIRE_UNSUPPORTED &&
	       strstr(err.text, n.url) && strstr(err.text, "forked");
}

static void child_of_a_node(void **state)
{
	(void)state;
	struct link_stock before;
	struct host h;
	pthread_t t[2];
	link_take_first_stock(&before);
	link_open_pair();
	/* The host's get the numbers of descriptors that were a link's. */
	struct link_stock paired;
	static struct link_node third;
	link_take_stock(&paired);
	link_open_node(&third, 3, CLUSTER);
	link_add(&third, 1, link_pair[0].url);
	LINK_WAIT(&third, link_count(&third, 1, true) == 1);
	link_close_node(&third);
	link_check_stock(&paired);
	host_open(&h, link_pair[0].url);
	for (unsigned i = 0; i < link_rounds("WALRAFT_FORKS", 20); i++) {
		if (i == 1)
			link_begin_chatter(t); /* from now on in the middle of things */
		pid_t pid = link_start_child();
		if (pid == 0) {
			LINK_CHILD(only_host(&before, &h));
			LINK_CHILD(host_works(&h));
			LINK_CHILD(refused_in_child());
			pid_t grandchild = fork();
			if (grandchild == 0)
				_exit(!refused_in_child());
			int status = -1;
			LINK_CHILD(waitpid(grandchild, &status, 0) == grandchild && status == 0);
			wire_link_close(link_pair[0].link); /* the parent's: nothing happens */
			LINK_CHILD(host_works(&h));
			_exit(0);
		}
		link_check_child(pid);
	}
	link_end_chatter(t, 0);
	link_end_chatter(t, 1);
	assert_true(wire_link_is_up(link_pair[0].link, 2) && wire_link_is_up(link_pair[1].link, 1));
	assert_int_equal(link_pair[0].n_events, 1);
	assert_true(host_works(&h));
	host_close(&h);
	link_close_pair();
}

/* Says hello as a node, and waits until it is welcome: the other side has taken the connection then. */
static void greet(int fd)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_msg m = { .type = WIRE_MSG_HELLO, .from = 2, .to = 1, .term = CLUSTER, .text = "tcp://127.0.0.1:9" };
	uint8_t prefix[4];
	assert_int_equal(wire_msg_encode(&m, &b, NULL), WIRE_OK);
	wire_set_le32(prefix, (uint32_t)b.len);
	assert_int_equal(send(fd, prefix, sizeof(prefix), MSG_NOSIGNAL), sizeof(prefix));
	assert_int_equal(send(fd, b.data, b.len, MSG_NOSIGNAL), b.len);
	wire_buf_free(&b);
	assert_int_equal(recv(fd, prefix, sizeof(prefix), MSG_WAITALL), sizeof(prefix));
	for (uint32_t left = wire_le32(prefix); left; left--)
		assert_int_equal(recv(fd, prefix, 1, MSG_WAITALL), 1);
}

/* A node that was killed is gone, although a child of it lives. */
static void child_outlives_a_node(void **state)
{
	(void)state;
	int tell[2], hold[2];
	pid_t pids[2];
	char url[64], c;
	assert_int_equal(pipe(tell), 0);
	assert_int_equal(pipe(hold), 0);
	link_free_url(url, sizeof(url));
	pids[0] = link_start_child();
	if (pids[0] == 0) {
		struct link_node n;
		struct wire_err err;
		link_init_node(&n);
		memcpy(n.url, url, sizeof(url));
		struct wire_link_opts o = link_options(&n, 1, CLUSTER);
		LINK_CHILD(wire_nng_own || !wire_nng_lost());
		LINK_CHILD(wire_link_open(&o, &n.link, &err) == WIRE_OK);
		LINK_CHILD(write(tell[1], "o", 1) == 1 && read(hold[0], &c, 1) == 1);
		pids[1] = link_start_child();
		if (pids[1] == 0) {
			close(hold[1]);
			(void)!read(hold[0], &c, 1); /* until the test ends */
			_exit(0);
		}
		LINK_CHILD(write(tell[1], &pids[1], sizeof(pids[1])) == sizeof(pids[1]));
		(void)!read(hold[0], &c, 1);
		_exit(0);
	}
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	a.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
	assert_int_equal(read(tell[0], &c, 1), 1);
	int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&a, sizeof(a)), 0);
	greet(peer);
	assert_int_equal(write(hold[1], "f", 1), 1);
	assert_int_equal(read(tell[0], &pids[1], sizeof(pids[1])), sizeof(pids[1]));
	kill(pids[0], SIGKILL);
	assert_int_equal(waitpid(pids[0], NULL, 0), pids[0]);
	struct pollfd p = { .fd = peer, .events = POLLIN };
	assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
	assert_true(recv(peer, &c, 1, 0) <= 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(kill(pids[1], 0), 0);
	for (int i = 0; i < 2; i++) {
		close(tell[i]);
		close(hold[i]);
	}
	close(peer);
	close(fd);
}

static void child_after_the_last_close(void **state)
{
	(void)state;
	struct link_stock before;
	link_open_pair();
	link_close_pair();
	link_take_stock(&before);
	for (unsigned i = 0; i < link_rounds("WALRAFT_FORKS", 5); i++) {
		pid_t pid = link_start_child();
		if (pid == 0 && wire_nng_own) {
			link_warm_up();
			link_take_stock(&before);
			link_open_pair();
			link_close_pair();
			LINK_CHILD(link_comes_to(&before, CHECK_MS));
			pid = link_start_child(); /* and so on */
			if (pid == 0) {
				link_open_pair();
				link_close_pair();
				_exit(0);
			}
			int status = -1;
			LINK_CHILD(waitpid(pid, &status, 0) == pid && status == 0);
			_exit(0);
		}
		if (pid == 0)
			_exit(!refused_in_child());
		link_check_child(pid);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First, as with a shared nng no child may use links once its parent did. */
		cmocka_unit_test(child_outlives_a_node),
		cmocka_unit_test(child_of_a_node),
		cmocka_unit_test(child_after_the_last_close),
	};
	link_warm_up();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
