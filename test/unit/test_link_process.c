/* Links to another process: its answers, and what happens when it is stopped or killed. */
#include "test/unit/link_world.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_ID = 90, CHILD_PEER_ID = 91 };

/* The other process: answers READ_REQ, and sends heartbeats every 50 ms otherwise. It is forked before nng is used. */
static pid_t child_pid;
static char child_url[64], child_peer_url[64];

static void child_main(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	static struct link_node n;
	link_init_node(&n);
	memcpy(n.url, child_url, sizeof(n.url));
	struct wire_link_opts o = link_options(&n, CHILD_ID, CLUSTER);
	struct wire_err err = { 0 };
	if (wire_link_open(&o, &n.link, &err) || wire_link_add_peer(n.link, CHILD_PEER_ID, child_peer_url, &err)) {
		fprintf(stderr, "# %s\n", err.text);
		_exit(1);
	}
	for (;;) {
		struct wire_link_msg *m = link_take(&n, 50);
		struct wire_msg out = { .type = m ? WIRE_MSG_READ_RESP : WIRE_MSG_HEARTBEAT };
		if (m) {
			out.corr = m->msg.corr;
			out.data = m->msg.data;
			out.data_len = m->msg.data_len;
		}
		(void)wire_link_send(n.link, CHILD_PEER_ID, WIRE_LANE_CONTROL, &out);
		wire_link_msg_free(m);
	}
}

static void open_child_peer(struct link_node *n)
{
	link_init_node(n);
	memcpy(n->url, child_peer_url, sizeof(n->url));
	struct wire_link_opts o = link_options(n, CHILD_PEER_ID, CLUSTER);
	o.silence_ms = 300;
	struct wire_err err = { 0 };
	if (wire_link_open(&o, &n->link, &err))
		fail_msg("%s", err.text);
	link_add(n, CHILD_ID, child_url);
	LINK_WAIT(n, link_count(n, CHILD_ID, true) == 1);
}

/* Waits for the answer to a question that may have to be asked again, because a connection may be lost in between. */
static void ask(struct link_node *n, uint64_t corr, const uint8_t *data, uint32_t len)
{
	struct wire_msg m = { .type = WIRE_MSG_READ_REQ, .corr = corr, .data = data, .data_len = len };
	for (uint64_t end = link_now_ns() + DEADLINE_MS * 1000000ull; link_now_ns() < end;) {
		uint64_t again = link_now_ns() + 100 * 1000000ull;
		int rc = wire_link_send(n->link, CHILD_ID, WIRE_LANE_CONTROL, &m);
		do {
			struct wire_link_msg *r = link_take(n, rc == WIRE_OK ? 100 : 5);
			bool mine = r && r->msg.type == WIRE_MSG_READ_RESP && r->msg.corr == corr;
			wire_link_msg_free(r);
			if (mine)
				return;
		} while (rc == WIRE_OK && link_now_ns() < again);
	}
	fail_msg("no answer from the other process");
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void round_trip_time(void **state)
{
	(void)state;
	enum { ROUNDS = 3000 };
	static uint64_t t[ROUNDS];
	static uint8_t data[280];
	static struct link_node n;
	open_child_peer(&n);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t from = link_now_ns();
		ask(&n, i + 1, data, sizeof(data));
		t[i] = link_now_ns() - from;
	}
	qsort(t, ROUNDS, sizeof(t[0]), compare);
	printf("# round trip of a 300-byte message between two processes: p50 %.1f us, p99 %.1f us\n",
	       (double)t[ROUNDS / 2] / 1000, (double)t[ROUNDS * 99 / 100] / 1000);
	link_close_node(&n);
}

static void stopped_peer_is_noticed(void **state)
{
	(void)state;
	static struct link_node n;
	open_child_peer(&n);
	ask(&n, 1, NULL, 0);
	for (size_t round = 1; round <= 2; round++) {
		uint64_t from = link_now_ns();
		assert_int_equal(kill(child_pid, SIGSTOP), 0);
		LINK_WAIT(&n, link_count(&n, CHILD_ID, false) == round);
		uint64_t silent_ms = (link_now_ns() - from) / 1000000u;
		assert_int_equal(kill(child_pid, SIGCONT), 0);
		from = link_now_ns();
		ask(&n, 1000 + round, NULL, 0);
		printf("# stopped peer noticed after %" PRIu64 " ms, back after %" PRIu64 " ms\n", silent_ms,
		       (link_now_ns() - from) / 1000000u);
		LINK_WAIT(&n, link_count(&n, CHILD_ID, true) >= round + 1);
	}
	link_check_alternating(&n, CHILD_ID);
	link_close_node(&n);
}

static void killed_peer_is_noticed(void **state)
{
	(void)state;
	static struct link_node n;
	open_child_peer(&n);
	ask(&n, 1, NULL, 0);
	size_t before = link_count(&n, CHILD_ID, false);
	uint64_t from = link_now_ns();
	assert_int_equal(kill(child_pid, SIGKILL), 0);
	LINK_WAIT(&n, link_count(&n, CHILD_ID, false) > before);
	printf("# killed peer noticed after %" PRIu64 " us\n", (link_now_ns() - from) / 1000u);
	assert_int_equal(waitpid(child_pid, NULL, 0), child_pid);
	link_close_node(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip_time),
		cmocka_unit_test(stopped_peer_is_noticed),
		cmocka_unit_test(killed_peer_is_noticed),
	};
	link_free_url(child_url, sizeof(child_url));
	link_free_url(child_peer_url, sizeof(child_peer_url));
	child_pid = fork();
	if (child_pid == 0)
		child_main();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	kill(child_pid, SIGKILL);
	return rc;
}
