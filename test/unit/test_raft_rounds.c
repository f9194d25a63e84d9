/* Catch-up rounds, thesis 4.2.1: when a member is near enough to be promoted. */
#include "test/unit/raft_pilot.h"

static struct raft_progress progress(struct pilot *p, uint64_t peer)
{
	struct raft_progress g;

	assert_true(raft_progress_of(p->n[1].raft, peer, &g));
	return g;
}

/* A group of three and a learner. */
static struct pilot *open_with_learner(void)
{
	struct pilot *p;

	p = pilot_open_led(3, 1);
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	pilot_wait(p, 2000);
	return p;
}

/* Level at once: one round, and it stays caught up when nothing happens and when all goes on. */
static void quick(void **state)
{
	struct pilot *p = open_with_learner();

	(void)state;
	pilot_wait(p, 200000);
	assert_true(progress(p, 4).rounds >= 1 && progress(p, 4).caught_up);
	assert_true(progress(p, 2).caught_up);
	pilot_wait(p, 5000000);
	assert_true(progress(p, 4).caught_up);
	uint32_t rounds = progress(p, 4).rounds;
	for (int i = 0; i < 10; i++) {
		pilot_propose(p, 1, 1);
		pilot_wait(p, 10000);
		assert_true(progress(p, 4).caught_up);
	}
	assert_true(progress(p, 4).rounds >= rounds + 10);
	pilot_close(p);
}

static void ack(struct pilot *p, uint64_t us_later, uint64_t index)
{
	pilot_wait(p, us_later);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT_RESP, .from = 4, .to = 1, .term = 1, .index = index });
}

/* The learner's answers by hand: the first round takes a second, each next one what the one before left, while writers go on. */
static void rounds_shrink(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	pilot_propose(p, 1, 32);
	pilot_isolate(p, 4, true);
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	assert_int_equal(p->n[1].last, 34);
	pilot_propose(p, 1, 16);
	ack(p, 500000, 20);
	assert_int_equal(progress(p, 4).rounds, 0);
	ack(p, 500000, 34);
	assert_int_equal(progress(p, 4).rounds, 1);
	assert_int_equal(progress(p, 4).round_us, 1000000);
	assert_false(progress(p, 4).caught_up);
	/* what came during the first round is the second, 35 to 50 */
	pilot_propose(p, 1, 4);
	ack(p, 400000, 49);
	assert_int_equal(progress(p, 4).rounds, 1);
	ack(p, 1000, 52);
	assert_int_equal(progress(p, 4).rounds, 2);
	assert_int_equal(progress(p, 4).round_us, 401000);
	assert_false(progress(p, 4).caught_up);
	/* and the third 53 and 54 */
	pilot_propose(p, 1, 1);
	ack(p, 100000, 54);
	assert_int_equal(progress(p, 4).rounds, 3);
	assert_int_equal(progress(p, 4).round_us, 100000);
	assert_true(progress(p, 4).caught_up);
	pilot_close(p);
}

/* Slower than the writers: the round that runs never ends in time. Silent: not caught up either, and again when it is back. */
static void falls_behind(void **state)
{
	struct pilot *p = open_with_learner();

	(void)state;
	pilot_wait(p, 200000);
	assert_true(progress(p, 4).caught_up);
	/* appends are lost, heartbeats are not */
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	assert_true(progress(p, 4).caught_up);
	pilot_wait(p, 200000);
	assert_false(progress(p, 4).caught_up);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_wait(p, 1000000);
	/* that round took too long, but there was nothing to catch up with since: an idle group has no other rounds */
	assert_true(progress(p, 4).round_us > 300000);
	assert_true(progress(p, 4).caught_up);
	pilot_propose(p, 1, 1);
	pilot_wait(p, 100000);
	assert_true(progress(p, 4).caught_up);
	pilot_isolate(p, 4, true);
	pilot_wait(p, 10000000);
	assert_false(progress(p, 4).caught_up);
	pilot_isolate(p, 4, false);
	pilot_wait(p, 3000000);
	assert_true(progress(p, 4).caught_up);
	pilot_close(p);
}

/* A new leader begins anew, and knows nothing before it was answered; who forgot is not caught up however level it is. */
static void new_leader_and_forgetful_member(void **state)
{
	struct pilot *p = open_with_learner();
	struct raft_progress g;

	(void)state;
	pilot_wait(p, 200000);
	pilot_isolate(p, 4, true);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	pilot_wait(p, 200000);
	assert_true(raft_progress_of(p->n[2].raft, 4, &g));
	assert_true(!g.caught_up && !g.rounds);
	pilot_isolate(p, 4, false);
	pilot_wipe(p, 3);
	pilot_start(p, 3);
	pilot_wait(p, 1000000);
	assert_true(raft_progress_of(p->n[2].raft, 4, &g) && g.caught_up);
	assert_true(raft_progress_of(p->n[2].raft, 3, &g));
	assert_true(g.forgot && !g.caught_up && g.match == p->n[2].last);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quick),
		cmocka_unit_test(rounds_shrink),
		cmocka_unit_test(falls_behind),
		cmocka_unit_test(new_leader_and_forgetful_member),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft catch-up rounds", tests, NULL, NULL);
}
