/* What links leave in the process that has them, and what they do when it has too little for them. */
#include "test/unit/link_host.h"
#include "wire/link_nng.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STRANGER_UID = 65534 };

static void nothing_stays(void **state)
{
	(void)state;
	struct link_stock before;
	pthread_t t[2];
	unsigned rounds = link_rounds("WALRAFT_CYCLES", 20);
	if (!wire_nng_own) { /* what it started is there for good, but does not become more */
		link_open_pair();
		link_close_pair();
	}
	link_take_first_stock(&before);
	for (unsigned i = 0; i < rounds; i++) {
		link_open_pair();
		link_begin_chatter(t);
		for (int k = 0; k < 2; k++)
			LINK_WAIT(&link_pair[k], link_pair[k].seen[0][2 - k] > 0);
		/* One goes while the other still sends to it. */
		for (int k = 0; k < 2; k++) {
			link_end_chatter(t, k);
			link_close_node(&link_pair[k]);
		}
		link_check_stock(&before);
	}
}

static void others_go_on(void **state)
{
	(void)state;
	static struct link_node third;
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .corr = 7 };
	link_open_pair();
	for (int i = 0; i < 10; i++) {
		link_open_node(&third, 3, CLUSTER);
		link_add(&third, 1, link_pair[0].url);
		link_close_node(&third);
	}
	assert_int_equal(wire_link_send(link_pair[0].link, 2, WIRE_LANE_LOG, &m), WIRE_OK);
	link_drain(&link_pair[1], 1);
	link_close_pair();
}

struct opener {
	unsigned rounds;
	bool failed;
};

static void *open_and_close(void *arg)
{
	struct opener *o = arg;
	struct link_node n;
	link_init_node(&n);
	for (unsigned i = 0; i < o->rounds && !o->failed; i++) {
		struct wire_err err;
		link_free_url(n.url, sizeof(n.url));
		struct wire_link_opts opts = link_options(&n, 1, CLUSTER);
		int rc = wire_link_open(&opts, &n.link, &err);
		/* Another of the openers was faster. */
		if (rc == WIRE_BUSY)
			continue;
		o->failed = rc != WIRE_OK || wire_link_add_peer(n.link, 2, "tcp://127.0.0.1:1", &err);
		if (rc == WIRE_OK)
			wire_link_close(n.link);
	}
	n.link = NULL;
	link_close_node(&n);
	return NULL;
}

/* The last close of one is at the same time as the first open of another. */
static void at_the_same_time(void **state)
{
	(void)state;
	struct link_stock before;
	struct opener o[3] = { { 30, false }, { 30, false }, { 30, false } };
	pthread_t t[3];
	link_take_first_stock(&before);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, open_and_close, &o[i]), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 3; i++)
		assert_false(o[i].failed);
	link_check_stock(&before);
}

/* the process ends */

static void exit_under_load(void **state)
{
	(void)state;
	for (unsigned i = 0; i < link_rounds("WALRAFT_EXITS", 5); i++) {
		pid_t pid = link_start_child();
		if (pid == 0) {
			pthread_t t[2];
			link_open_pair();
			link_begin_chatter(t);
			exit(0);
		}
		link_check_child(pid);
	}
}

/* limits */

static bool open_in_child(struct link_node *n, int *ret_code, struct wire_err *err)
{
	link_init_node(n);
	struct wire_link_opts o = link_options(n, 1, CLUSTER);
	*ret_code = wire_link_open(&o, &n->link, err);
	return *ret_code == WIRE_OK;
}

static void no_threads_left(void **state)
{
	(void)state;
	if (!wire_nng_own)
		skip();
	for (rlim_t limit = 1; limit < 24; limit++) {
		pid_t pid = link_start_child();
		if (pid == 0) {
			struct link_stock before;
			struct rlimit r;
			struct link_node n;
			struct wire_err err = { 0 };
			int rc;
			/* The limit does not count for root. */
			LINK_CHILD(geteuid() || setuid(STRANGER_UID) == 0);
			LINK_CHILD(getrlimit(RLIMIT_NPROC, &r) == 0);
			rlim_t old = r.rlim_cur;
			r.rlim_cur = limit;
			link_warm_up();
			link_take_stock(&before);
			LINK_CHILD(setrlimit(RLIMIT_NPROC, &r) == 0);
			bool ok = open_in_child(&n, &rc, &err);
			LINK_CHILD(limit > 1 || !ok);
			LINK_CHILD(ok || (rc == WIRE_IO && strstr(err.text, n.url)));
			LINK_CHILD(ok || strstr(err.text, "thread"));
			LINK_CHILD(ok || link_comes_to(&before, CHECK_MS));
			r.rlim_cur = old;
			LINK_CHILD(setrlimit(RLIMIT_NPROC, &r) == 0);
			LINK_CHILD(ok || open_in_child(&n, &rc, &err));
			wire_link_close(n.link);
			LINK_CHILD(link_comes_to(&before, CHECK_MS));
			_exit(0);
		}
		link_check_child(pid);
	}
}

static void no_descriptors_left(void **state)
{
	(void)state;
	struct link_stock before;
	struct rlimit r;
	struct link_node n;
	struct wire_err err = { 0 };
	int rc;
	link_take_first_stock(&before);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
	rlim_t old = r.rlim_cur;
	unsigned failed = 0;
	for (int more = 0; more < 4; more++) {
		char url[64];
		link_free_url(url, sizeof(url));
		int first_free = open("/dev/null", O_RDONLY | O_CLOEXEC);
		close(first_free);
		link_init_node(&n);
		memcpy(n.url, url, sizeof(url));
		struct wire_link_opts o = link_options(&n, 1, CLUSTER);
		r.rlim_cur = (rlim_t)(first_free + more);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
		rc = wire_link_open(&o, &n.link, &err);
		r.rlim_cur = old;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
		if (rc != WIRE_OK) {
			assert_int_equal(rc, WIRE_IO);
			assert_non_null(strstr(err.text, url));
			n.link = NULL;
			failed++;
		}
		link_close_node(&n);
		link_check_stock(&before);
	}
	assert_true(failed > 0);
	link_open_pair();
	link_close_pair();
}

/* A name server that does not answer: getaddrinfo of this name waits until it is told to go on. */

static const char slow_name[] = "slow.walraft.invalid";
static atomic_uint n_slow;
static atomic_bool slow_ends;

__attribute__((visibility("default"))) int getaddrinfo(const char *host, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **ret)
{
	static int (*_Atomic real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	if (host && strcmp(host, slow_name) == 0) {
		atomic_fetch_add(&n_slow, 1);
		while (!atomic_load(&slow_ends))
			sched_yield();
		atomic_fetch_sub(&n_slow, 1);
		return EAI_NONAME;
	}
	if (!atomic_load(&real)) {
		void *f = dlsym(RTLD_NEXT, "getaddrinfo");
		int (*call)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
		memcpy(&call, &f, sizeof(call));
		atomic_store(&real, call);
	}
	return atomic_load(&real)(host, service, hints, ret);
}

static void a_mute_name_server(void **state)
{
	(void)state;
	static struct link_node n;
	struct link_stock before;
	char url[64];
	snprintf(url, sizeof(url), "tcp://%s:7401", slow_name);
	link_take_first_stock(&before);
	for (int round = 0; round < 3; round++) {
		atomic_store(&slow_ends, false);
		link_open_node(&n, 1, CLUSTER);
		link_add(&n, 2, url);
		LINK_POLL(atomic_load(&n_slow) > 0);
		uint64_t begin = link_now_ns();
		link_close_node(&n);
		assert_true(link_now_ns() - begin < 5 * 1000000000ull);
		if (round == 1) { /* meanwhile the next one comes, and goes */
			link_open_pair();
			link_close_pair();
		} else if (round == 2) { /* or stays */
			link_open_pair();
		}
		assert_true(atomic_load(&n_slow) > 0);
		assert_true(!wire_nng_own || !link_is_stock(&before));
		atomic_store(&slow_ends, true);
		LINK_POLL(atomic_load(&n_slow) == 0);
		if (round == 2) {
			struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT };
			assert_int_equal(wire_link_send(link_pair[0].link, 2, WIRE_LANE_LOG, &m), WIRE_OK);
			link_drain(&link_pair[1], 1);
			link_close_pair();
		}
		if (wire_nng_own)
			link_check_stock(&before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First, as with a shared nng no child may use links once its parent did. */
		cmocka_unit_test(no_threads_left),
		cmocka_unit_test(exit_under_load),
		cmocka_unit_test(nothing_stays),
		cmocka_unit_test(others_go_on),
		cmocka_unit_test(at_the_same_time),
		cmocka_unit_test(no_descriptors_left),
		cmocka_unit_test(a_mute_name_server),
	};
	link_warm_up();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
