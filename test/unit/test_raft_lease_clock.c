/* Leases and the clocks that they are measured by (I11): wrong rates, jumps, doubt, and true time within an error. */
#include "test/unit/raft_pilot.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ELECTION_US = 300000, HEARTBEAT_US = 50000, LEASE_US = 187800 };

static struct raft_event tick(void)
{
	return (struct raft_event){ .type = RAFT_EV_TICK };
}

static uint64_t lease(const struct pilot *p, uint64_t id)
{
	return p->n[id].u.lease_until_us;
}

/* Whether the leader's lease holds now, by the latest that its clock says. */
static bool leased(const struct pilot *p)
{
	const struct pilot_node *n = &p->n[1];

	return (n->absolute ? p->now_us + n->late_us : pilot_clock(p, 1)) < n->u.lease_until_us;
}

/* One heartbeat of node 1 to node 2 and back, in no time. */
static void round_trip(struct pilot *p)
{
	pilot_drop_all(p);
	while (!pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2)) {
		p->now_us += 1000;
		pilot_step(p, 1, tick());
	}
	pilot_deliver(p, *pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2));
	pilot_deliver(p, *pilot_find(p, WIRE_MSG_HEARTBEAT_RESP, 2, 1));
	pilot_drop_all(p);
}

static bool votes(struct pilot *p)
{
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .from = 3, .to = 2, .term = 9, .index = 100, .log_term = 8 });
	return p->n[2].u.vote == 3;
}

/* A leader and a voter, each with its clock; microseconds by which the promise outlasts the lease, negative: it does not. */
static int64_t margin(struct pilot *p)
{
	uint64_t end = 0, first_vote = 0;

	for (uint64_t k = 1; k <= 3; k++) {
		pilot_stop(p, k);
		pilot_start(p, k);
		pilot_step(p, k, tick());
	}
	p->now_us += 1000000; /* enough for the slowest clock */
	pilot_elect(p, 1);
	for (int i = 0; i < 8; i++) {
		p->now_us += 5000;
		pilot_step(p, 1, tick());
		pilot_run(p);
	}
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	round_trip(p);
	uint64_t start = p->now_us;
	assert_true(leased(p));
	/* Nobody hears of anybody any more; node 3 asks node 2 for its vote. A coarse look, then a fine one around both ends. */
	for (; !first_vote || leased(p); p->now_us += 7) {
		if (leased(p))
			end = p->now_us;
		if (!first_vote && votes(p))
			first_vote = p->now_us;
		assert_true(p->now_us < start + 5 * ELECTION_US);
	}
	pilot_drop_all(p);
	return (int64_t)first_vote - (int64_t)end;
}

/* I11: L'/(1+d) >= L/(1-d). At the bound it is tight, beyond it broken. */
static void rates(void **state)
{
	static const struct { uint32_t told; int32_t leader, voter; bool holds; } cases[] = {
		{ 0, 0, 0, true }, { 0, -230000, 230000, true }, { 0, 230000, -230000, true }, { 0, -260000, 260000, false },
		{ 200, -200, 200, true }, { 200, -20000, 0, false }, { 200, 0, 20000, false }, { 500000, -500000, 500000, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pilot *p = pilot_open(3, 0);
		p->knobs.drift_ppm = cases[i].told;
		p->n[1].rate_ppm = cases[i].leader;
		p->n[2].rate_ppm = cases[i].voter;
		int64_t us = margin(p);
		printf("# told %u, leader %d, voter %d ppm: the promise outlasts the lease by %lld us\n", cases[i].told, cases[i].leader,
		       cases[i].voter, (long long)us);
		assert_int_equal(us > 0, cases[i].holds);
		if (cases[i].holds && cases[i].leader < 0)
			assert_true(us < 100);
		pilot_close(p);
	}
}

/* I11, clocks that tell true time within an error: whatever the errors of both, and whatever the rates of their other clocks,
 * the promise outlasts the lease. Of different kinds too. */
static void true_time(void **state)
{
	const char *one = getenv("WALRAFT_SEED");
	uint64_t seed = one ? strtoull(one, NULL, 10) : (uint64_t)time(NULL);

	(void)state;
	printf("# repeat: WALRAFT_SEED=%llu test/unit/test_raft_lease_clock\n", (unsigned long long)seed);
	srand48((long)seed);
	for (int i = 0; i < 300; i++) {
		struct pilot *p = pilot_open(3, 0);
		bool both = drand48() < 0.5;
		/* With true time on both sides rates are of no interest, up to a factor of two. */
		int32_t wrong = both ? 450000 : (int32_t)RAFT_DRIFT_PPM;
		p->knobs.drift_ppm = both ? 1 : 0;
		p->now_us = 1000000000;
		for (uint64_t k = 1; k <= 2; k++) {
			struct pilot_node *n = &p->n[k];
			n->absolute = both || lrand48() % 2;
			n->early_us = (uint64_t)lrand48() % 40000;
			n->late_us = (uint64_t)lrand48() % 40000;
			n->rate_ppm = (int32_t)((drand48() * 2 - 1) * wrong);
		}
		if (margin(p) <= 0)
			fail_msg("round %d: absolute %d %d, rates %d %d: voted during the lease", i, p->n[1].absolute, p->n[2].absolute,
			         p->n[1].rate_ppm, p->n[2].rate_ppm);
		pilot_close(p);
	}
}

/* I11: the ends that are compared. From the earliest that the sending can have been, to the latest that now can be. */
static void ends_of_intervals(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	p->n[1].absolute = true;
	p->n[1].early_us = 3000;
	p->n[1].late_us = 500;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	round_trip(p);
	uint64_t sent = p->now_us;
	assert_int_equal(lease(p, 1), sent - 3000 + LEASE_US);
	p->now_us = sent - 3000 + LEASE_US - 500 - 1;
	pilot_step(p, 1, tick());
	assert_int_equal(lease(p, 1), sent - 3000 + LEASE_US);
	p->now_us++;
	pilot_step(p, 1, tick());
	assert_int_equal(lease(p, 1), 0);
	/* An error as long as the lease: none at all. */
	pilot_run(p);
	p->n[1].early_us = LEASE_US;
	pilot_wait(p, LEASE_US + HEARTBEAT_US);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(lease(p, 1), 0);
	pilot_close(p);
}

/* I11: the ends that a voter compares. From the latest that it can have heard of the leader, to the earliest that now can be. */
static void ends_of_promises(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	p->n[2].absolute = true;
	p->n[2].early_us = 3000;
	p->n[2].late_us = 2000;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	round_trip(p);
	p->now_us += ELECTION_US + 2000 + 3000 - 1;
	assert_false(votes(p));
	p->now_us++;
	assert_true(votes(p));
	pilot_close(p);
}

/* I11: who measures its promise by true time does not stand for election itself before it ends. */
static void candidates_wait_too(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	p->n[2].absolute = true;
	p->n[2].rate_ppm = 900000; /* its other clock is far too fast */
	pilot_stop(p, 2);
	pilot_start(p, 2);
	pilot_elect(p, 1);
	pilot_run(p);
	round_trip(p);
	uint64_t heard = p->now_us;
	pilot_isolate(p, 1, true);
	pilot_isolate(p, 3, true);
	for (; p->now_us < heard + ELECTION_US; p->now_us += 250) {
		if (p->n[2].u.deadline_us <= pilot_clock(p, 2))
			pilot_step(p, 2, tick());
		assert_int_equal(p->n[2].u.role, RAFT_FOLLOWER);
		pilot_drop_all(p);
	}
	while (p->n[2].u.role == RAFT_FOLLOWER && p->now_us < heard + 10 * ELECTION_US)
		pilot_wait(p, 1000);
	assert_int_not_equal(p->n[2].u.role, RAFT_FOLLOWER);
	pilot_close(p);
}

/* A clock of true time that is set back by an hour, which it never should, keeps nobody from voting for longer than twice the
 * time. */
static void false_true_time(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	p->now_us = 5000000000;
	p->n[2].absolute = true;
	for (uint64_t k = 1; k <= 3; k++) {
		pilot_stop(p, k);
		pilot_start(p, k);
		pilot_step(p, k, tick());
	}
	pilot_elect(p, 1);
	pilot_run(p);
	pilot_isolate(p, 1, true);
	p->n[2].early_us = 3600000000;
	p->now_us += 2 * ELECTION_US - 250;
	assert_false(votes(p));
	p->now_us += 250;
	assert_true(votes(p));
	pilot_close(p);
}

/* I11: when the clock goes back, what was measured by it is void, and so are the answers to what was sent before. */
static void goes_back(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	round_trip(p);
	assert_true(lease(p, 1) > p->now_us);
	pilot_drop_all(p);
	p->now_us += HEARTBEAT_US;
	pilot_step(p, 1, tick());
	pilot_deliver(p, *pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2));
	struct wire_msg late = *pilot_find(p, WIRE_MSG_HEARTBEAT_RESP, 2, 1);
	p->now_us -= 1;
	pilot_step(p, 1, tick());
	assert_int_equal(lease(p, 1), 0);
	pilot_deliver(p, late);
	assert_int_equal(lease(p, 1), 0);
	p->now_us += 100000; /* past all that it showed before */
	pilot_deliver(p, late);
	assert_int_equal(lease(p, 1), 0);
	round_trip(p);
	assert_true(lease(p, 1) > p->now_us);
	pilot_close(p);
}

/* The same for one that cannot tell; meanwhile heartbeats have no number. */
static void cannot_tell(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	assert_true(lease(p, 1) > p->now_us);
	p->n[1].unsure = true;
	pilot_step(p, 1, tick());
	assert_int_equal(lease(p, 1), 0);
	pilot_wait(p, 2 * HEARTBEAT_US);
	assert_int_equal(lease(p, 1), 0);
	pilot_isolate(p, 1, true);
	pilot_drop_all(p);
	p->now_us += HEARTBEAT_US;
	pilot_step(p, 1, tick());
	assert_int_equal(pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2)->log_term, 0);
	p->n[1].unsure = false;
	pilot_step(p, 1, tick());
	assert_int_equal(lease(p, 1), 0); /* nothing from before counts */
	pilot_isolate(p, 1, false);
	pilot_wait(p, 2 * HEARTBEAT_US);
	assert_true(lease(p, 1) > p->now_us);
	/* Reads need rounds meanwhile, and get them. */
	p->n[1].unsure = true;
	pilot_read(p, 1, 1);
	assert_null(pilot_settled(p, 1, 1));
	pilot_run(p);
	assert_int_equal(pilot_settled(p, 1, 1)->code, WIRE_OK);
	pilot_close(p);
}

/* I11: after a suspension the clock shows the time that is gone: the lease is over before anything else happens. */
static void over_after_a_suspension(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	uint64_t end = lease(p, 1);
	p->now_us += 3600000000;
	assert_true(end <= p->now_us); /* what other threads see */
	pilot_read(p, 1, 1);
	assert_int_equal(lease(p, 1), 0);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	assert_int_equal(pilot_settled(p, 1, 1)->code, WIRE_NOTLEADER);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rates),
		cmocka_unit_test(true_time),
		cmocka_unit_test(ends_of_intervals),
		cmocka_unit_test(ends_of_promises),
		cmocka_unit_test(candidates_wait_too),
		cmocka_unit_test(false_true_time),
		cmocka_unit_test(goes_back),
		cmocka_unit_test(cannot_tell),
		cmocka_unit_test(over_after_a_suspension),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft leases and clocks", tests, NULL, NULL);
}
