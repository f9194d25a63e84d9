/* Links between nodes of one process. */
#include "test/unit/link_world.h"
#include "wire/hash.h"
#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void count_only(struct link_node *n)
{
	pthread_mutex_lock(&n->lock);
	n->counting = true;
	pthread_mutex_unlock(&n->lock);
}

static void order_per_lane(struct link_node *v, size_t nodes, uint64_t messages)
{
	for (size_t i = 0; i < nodes; i++)
		link_open_node(&v[i], i + 1, CLUSTER);
	link_connect_nodes(v, nodes);
	for (size_t i = 0; i < nodes; i++) {
		link_drain(&v[i], (nodes - 1) * WIRE_LANE_COUNT);
		count_only(&v[i]);
	}
	struct wire_msg m = { .type = WIRE_MSG_APPEND_RESP };
	for (uint64_t k = 1; k <= messages; k++)
		for (size_t i = 0; i < nodes; i++)
			for (size_t to = 0; to < nodes; to++)
				for (int lane = 0; lane < WIRE_LANE_COUNT && i != to; lane++) {
					m.group = (uint64_t)lane;
					m.corr = k;
					link_send_all(&v[i], to + 1, (enum wire_lane)lane, &m);
				}
	for (size_t i = 0; i < nodes; i++)
		for (size_t from = 0; from < nodes; from++)
			for (int lane = 0; lane < WIRE_LANE_COUNT && i != from; lane++)
				LINK_WAIT(&v[i], v[i].seen[lane][from + 1] == messages);
	for (size_t i = 0; i < nodes; i++) {
		assert_false(v[i].disorder);
		assert_int_equal(v[i].n_events, nodes - 1);
	}
	for (size_t i = 0; i < nodes; i++)
		link_close_node(&v[i]);
}

static void order_of_two(void **state)
{
	(void)state;
	static struct link_node v[2];
	order_per_lane(v, 2, 20000);
}

static void order_of_three(void **state)
{
	(void)state;
	static struct link_node v[3];
	order_per_lane(v, 3, 2000);
}

static void big_message(void **state)
{
	(void)state;
	static struct link_node v[2];
	uint8_t *data = malloc(WIRE_ENTRY_MAX);
	assert_non_null(data);
	for (size_t i = 0; i < WIRE_ENTRY_MAX; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	link_open_node(&v[0], 1, CLUSTER);
	link_open_node(&v[1], 2, CLUSTER);
	link_connect_nodes(v, 2);
	link_drain(&v[1], WIRE_LANE_COUNT);
	struct wire_entry e = { .term = 3,
		                .kind = WIRE_ENTRY_DATA,
		                .size = WIRE_ENTRY_MAX,
		                .sum = wire_hash(data, WIRE_ENTRY_MAX, 0),
		                .data = data };
	struct wire_msg m = { .type = WIRE_MSG_APPEND, .index = 41, .n_entries = 1, .entries = &e };
	for (int i = 0; i < 4; i++)
		assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_LOG, &m), WIRE_OK);
	for (int i = 0; i < 4; i++) {
		struct wire_link_msg *r = link_take(&v[1], DEADLINE_MS);
		assert_non_null(r);
		assert_false(r->guest);
		assert_true(r->msg.from == 1 && r->msg.n_entries == 1 && r->msg.entries[0].index == 42);
		assert_memory_equal(r->msg.entries[0].data, data, WIRE_ENTRY_MAX);
		wire_link_msg_free(r);
	}
	struct wire_entry three[3] = { e, e, e };
	m.entries = three;
	m.n_entries = 3;
	assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_LOG, &m), WIRE_TOOBIG);
	link_close_node(&v[0]);
	link_close_node(&v[1]);
	free(data);
}

static void other_cluster_is_refused(void **state)
{
	(void)state;
	static struct link_node a, b;
	link_open_node(&a, 1, CLUSTER);
	link_open_node(&b, 2, CLUSTER + 1);
	link_add(&a, 2, b.url);
	LINK_WAIT(&a, a.n_refused > 0);
	assert_true(a.refused_peer == 2);
	assert_non_null(strstr(a.refused, "cluster 0000000000001268"));
	assert_non_null(strstr(a.refused, b.url));
	struct wire_msg m = { .type = WIRE_MSG_VOTE_REQ };
	(void)wire_link_send(a.link, 2, WIRE_LANE_CONTROL, &m);
	LINK_WAIT(&a, a.n_refused > 1); /* it stays refused, and says so again */
	assert_null(b.first);
	assert_int_equal(b.n_refused, 0);
	link_close_node(&a);
	link_close_node(&b);
}

static void other_node_is_refused(void **state)
{
	(void)state;
	static struct link_node a, b;
	link_open_node(&a, 1, CLUSTER);
	link_open_node(&b, 2, CLUSTER);
	link_add(&a, 3, b.url);
	LINK_WAIT(&a, a.n_refused > 0);
	assert_non_null(strstr(a.refused, "node 0000000000000002"));
	struct wire_err err;
	assert_int_equal(wire_link_add_peer(a.link, 1, b.url, &err), WIRE_INVALID);
	assert_int_equal(wire_link_add_peer(a.link, 0, b.url, &err), WIRE_INVALID);
	assert_int_equal(wire_link_add_peer(a.link, 4, "tcp://nowhere", &err), WIRE_INVALID);
	link_close_node(&a);
	link_close_node(&b);
}

static void guest_joins(void **state)
{
	(void)state;
	static struct link_node a, g;
	link_open_node(&a, 1, CLUSTER);
	link_open_node(&g, 77, 0);
	link_add(&g, 5, a.url); /* a guest knows an address, not whose it is */
	LINK_WAIT(&g, link_count(&g, 5, true) == 1);
	struct wire_msg m = { .type = WIRE_MSG_JOIN_REQ, .corr = 9 };
	assert_int_equal(wire_link_send(g.link, 5, WIRE_LANE_CONTROL, &m), WIRE_OK);
	struct wire_link_msg *r = link_take(&a, DEADLINE_MS);
	assert_non_null(r);
	assert_true(r->guest && r->msg.type == WIRE_MSG_JOIN_REQ && r->msg.from == 77);
	wire_link_msg_free(r);
	m = (struct wire_msg){ .type = WIRE_MSG_JOIN_RESP, .corr = 9, .term = CLUSTER };
	assert_int_equal(wire_link_send(a.link, 77, WIRE_LANE_CONTROL, &m), WIRE_OK);
	r = link_take(&g, DEADLINE_MS);
	assert_non_null(r);
	assert_true(!r->guest && r->msg.type == WIRE_MSG_JOIN_RESP && r->msg.from == 1);
	wire_link_msg_free(r);
	assert_int_equal(a.n_events, 0);

	/* On the same connection, a member from now on. */
	wire_link_remove_peer(g.link, 5);
	link_add(&g, 1, a.url);
	LINK_WAIT(&g, link_count(&g, 1, true) == 1);
	m = (struct wire_msg){ .type = WIRE_MSG_READ_REQ };
	assert_int_equal(wire_link_send(g.link, 1, WIRE_LANE_CONTROL, &m), WIRE_OK);
	wire_link_set_cluster(g.link, CLUSTER);
	assert_int_equal(wire_link_send(g.link, 1, WIRE_LANE_CONTROL, &m), WIRE_OK);
	for (int i = 0; i < 2; i++) {
		r = link_take(&a, DEADLINE_MS);
		assert_non_null(r);
		assert_int_equal(r->guest, i == 0);
		wire_link_msg_free(r);
	}
	assert_int_equal(g.n_refused, 0);
	link_add(&a, 77, g.url); /* a guest becomes a peer without a new connection */
	LINK_WAIT(&a, link_count(&a, 77, true) == 1);
	link_close_node(&g);
	LINK_WAIT(&a, link_count(&a, 77, false) == 1);
	link_close_node(&a);
}

static void guest_is_forgotten(void **state)
{
	(void)state;
	static struct link_node a, g;
	link_open_node(&a, 1, CLUSTER);
	link_open_node(&g, 77, 0);
	link_add(&g, 5, a.url);
	LINK_POLL(wire_link_is_up(a.link, 77));
	link_close_node(&g);
	/* Until then the guest's queue takes packets, for its return; afterwards nobody of that name is known. */
	struct wire_msg m = { .type = WIRE_MSG_JOIN_RESP };
	LINK_POLL(wire_link_send(a.link, 77, WIRE_LANE_CONTROL, &m) == WIRE_CLOSED);
	link_close_node(&a);
}

static void peer_comes_and_goes(void **state)
{
	(void)state;
	static struct link_node v[2];
	link_open_node(&v[0], 1, CLUSTER);
	link_open_node(&v[1], 2, CLUSTER);
	link_connect_nodes(v, 2);
	assert_true(wire_link_is_up(v[0].link, 2));
	for (size_t round = 1; round <= 3; round++) {
		char url[64];
		memcpy(url, v[1].url, sizeof(url));
		link_close_node(&v[1]);
		LINK_WAIT(&v[0], link_count(&v[0], 2, false) == round);
		struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .corr = 5 };
		LINK_POLL(wire_link_send(v[0].link, 2, WIRE_LANE_CONTROL, &m) ==
		          WIRE_CLOSED); /* lanes are lost one by one */
		assert_false(wire_link_is_up(v[0].link, 2));
		link_init_node(&v[1]);
		memcpy(v[1].url, url, sizeof(url));
		struct wire_link_opts o = link_options(&v[1], 2, CLUSTER);
		struct wire_err err = { 0 };
		if (wire_link_open(&o, &v[1].link, &err))
			fail_msg("%s", err.text);
		LINK_WAIT(&v[0], link_count(&v[0], 2, true) == round + 1);
		assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_CONTROL, &m), WIRE_OK);
		struct wire_link_msg *r = link_take(&v[1], DEADLINE_MS);
		assert_non_null(r);
		assert_true(r->msg.corr == 5);
		wire_link_msg_free(r);
	}
	link_check_alternating(&v[0], 2);
	link_add(&v[1], 1, v[0].url);
	LINK_WAIT(&v[1], link_count(&v[1], 1, true) == 1);
	wire_link_remove_peer(v[0].link, 2);
	/* It is still connected to us, and may have to be told what became of it. */
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .corr = 6 };
	assert_int_equal(wire_link_send(v[0].link, 2, WIRE_LANE_CONTROL, &m), WIRE_OK);
	struct wire_link_msg *r = link_take(&v[1], DEADLINE_MS);
	assert_non_null(r);
	assert_true(r->msg.corr == 6);
	wire_link_msg_free(r);
	link_close_node(&v[1]);
	LINK_POLL(wire_link_send(v[0].link, 2, WIRE_LANE_CONTROL, &m) == WIRE_CLOSED);
	assert_true(link_count(&v[0], 2, false) == 3); /* it is no peer: nothing is heard of its end */
	link_close_node(&v[0]);
}

static void address_taken(void **state)
{
	(void)state;
	static struct link_node a, b;
	struct wire_err err;
	link_open_node(&a, 1, CLUSTER);
	link_init_node(&b);
	memcpy(b.url, a.url, sizeof(b.url));
	struct wire_link_opts o = link_options(&b, 2, CLUSTER);
	assert_int_equal(wire_link_open(&o, &b.link, &err), WIRE_BUSY);
	assert_non_null(strstr(err.text, a.url));
	assert_non_null(strstr(err.text, "taken"));
	assert_non_null(strstr(err.text, "ss -ltnp"));
	o.listen_url = "tcp://198.51.100.7:7401"; /* documentation range: not ours */
	assert_int_equal(wire_link_open(&o, &b.link, &err), WIRE_INVALID);
	o.listen_url = "tcp://127.0.0.1";
	assert_int_equal(wire_link_open(&o, &b.link, &err), WIRE_INVALID);
	link_close_node(&a);
	b.link = NULL;
	link_close_node(&b);
}

struct sender {
	struct link_node *node;
	uint64_t peer;
	atomic_bool *stop;
};

static void *send_until_stopped(void *arg)
{
	struct sender *s = arg;
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .text = "x" };
	for (unsigned i = 0; !atomic_load(s->stop); i++) {
		(void)wire_link_send(s->node->link, s->peer, (enum wire_lane)(i % WIRE_LANE_COUNT), &m);
		(void)wire_link_is_up(s->node->link, s->peer);
		if (i % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static void changes_under_load(void **state)
{
	(void)state;
	static struct link_node v[2];
	static atomic_bool stop[2];
	pthread_t t[2];
	struct sender s[2] = { { &v[0], 2, &stop[0] }, { &v[1], 1, &stop[1] } };
	link_open_node(&v[0], 1, CLUSTER);
	link_open_node(&v[1], 2, CLUSTER);
	link_connect_nodes(v, 2);
	for (int i = 0; i < 2; i++) {
		link_drain(&v[i], WIRE_LANE_COUNT);
		count_only(&v[i]); /* the inbox stays empty; the order is not looked at */
		assert_int_equal(pthread_create(&t[i], NULL, send_until_stopped, &s[i]), 0);
	}
	for (size_t round = 0; round < 20; round++) {
		wire_link_remove_peer(v[0].link, 2);
		link_add(&v[0], 2, v[1].url);
		link_add(&v[0], 2, v[1].url);
		LINK_WAIT(&v[0], link_count(&v[0], 2, true) == round + 2);
	}
	/* One is closed while the other still sends to it. */
	for (int i = 1; i >= 0; i--) {
		atomic_store(&stop[i], true);
		pthread_join(t[i], NULL);
		link_close_node(&v[i]);
	}
}

/* How many threads of nng or ours there are; fails when one would take the application's signals. */
static unsigned check_threads(void)
{
	char path[64], line[256], name[64] = "";
	unsigned checked = 0;
	DIR *dir = opendir("/proc/self/task");
	assert_non_null(dir);
	for (struct dirent *d; (d = readdir(dir));) {
		int tid = atoi(d->d_name);
		snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
		FILE *f = tid && tid != (int)getpid() ? fopen(path, "r") : NULL;
		while (f && fgets(line, sizeof(line), f)) {
			unsigned long long blocked;
			(void)sscanf(line, "Name: %63[^\n]", name);
			if (sscanf(line, "SigBlk: %llx", &blocked) != 1 ||
			    (strncmp(name, "nng:", 4) && strcmp(name, "walraft:link")))
				continue;
			unsigned long long want =
			        1ull << (SIGTERM - 1) | 1ull << (SIGCHLD - 1); /* they stand for all */
			assert_true((blocked & want) == want);
			checked++;
		}
		if (f)
			fclose(f);
	}
	closedir(dir);
	return checked;
}

static void signals_stay_with_the_host(void **state)
{
	(void)state;
	static struct link_node n;
	link_open_node(&n, 1, CLUSTER);
	link_add(&n, 2, "tcp://127.0.0.1:1");
	assert_true(check_threads() > 3);
	link_close_node(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_stay_with_the_host),
		cmocka_unit_test(order_of_two),
		cmocka_unit_test(order_of_three),
		cmocka_unit_test(big_message),
		cmocka_unit_test(other_cluster_is_refused),
		cmocka_unit_test(other_node_is_refused),
		cmocka_unit_test(guest_joins),
		cmocka_unit_test(guest_is_forgotten),
		cmocka_unit_test(peer_comes_and_goes),
		cmocka_unit_test(address_taken),
		cmocka_unit_test(changes_under_load),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
