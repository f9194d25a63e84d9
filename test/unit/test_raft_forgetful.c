/* Forgetful nodes: the rules at the head of raft/forgetful.c, each with what goes wrong without it. */
#include "test/unit/raft_pilot.h"
#include <string.h>

/* Node 3 of three loses its disk and starts again. */
static struct pilot *open_with_loss(void)
{
	struct pilot *p = pilot_open_led(3, 1);

	pilot_propose(p, 1, 5);
	pilot_wait(p, 200000);
	assert_int_equal(p->n[3].commit, 6);
	pilot_wipe(p, 3);
	pilot_start(p, 3);
	return p;
}

/* "vvr": as pilot_config, and r is a learner that is to be a voter. */
static int config(struct pilot *p, uint64_t id, const char *flags)
{
	struct raft_config c = { 0 };

	for (uint32_t k = 0; flags[k]; k++)
		if (flags[k] != '-')
			c.m[c.n++] = (struct raft_member){ .id = k + 1, .flags = flags[k] == 'v' ? RAFT_VOTER :
				                           flags[k] == 'r' ? RAFT_LEARNER | RAFT_RISING : RAFT_LEARNER };
	pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &c });
	return p->n[id].u.proposal_code;
}

static struct raft_progress progress(struct pilot *p, uint64_t leader, uint64_t peer)
{
	struct raft_progress g;

	assert_true(raft_progress_of(p->n[leader].raft, peer, &g));
	return g;
}

/* The whole way: level, demoted, promoted; then it counts and leads like before. */
static void readmission(void **state)
{
	struct pilot *p = open_with_loss();

	(void)state;
	assert_true(p->n[3].forgetful);
	pilot_wait(p, 500000);
	assert_true(progress(p, 1, 3).forgot && p->n[3].forgetful);
	assert_int_equal(progress(p, 1, 3).match, 6);
	assert_int_equal(p->n[3].last, 6);
	assert_int_equal(config(p, 1, "vvr"), WIRE_OK);
	pilot_wait(p, 500000);
	assert_false(p->n[3].forgetful);
	assert_int_equal(p->n[3].vote, 1);
	assert_false(progress(p, 1, 3).forgot);
	assert_int_equal(config(p, 1, "vvv"), WIRE_OK);
	pilot_wait(p, 500000);
	pilot_stop(p, 2);
	pilot_propose(p, 1, 1);
	pilot_wait(p, 100000);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	pilot_start(p, 2);
	pilot_wait(p, 100000);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_wait(p, 200000);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* Rule 1: no vote, no pre-vote, not for a transfer either; it does not stand, and is nobody to hand over to. */
static void no_vote_and_no_candidate(void **state)
{
	struct pilot *p = open_with_loss();

	(void)state;
	pilot_wait(p, 300000);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_INVALID);
	pilot_drop_all(p);
	p->now_us += 1000000;
	for (int flags = 0; flags <= WIRE_MSG_TRANSFER; flags += WIRE_MSG_TRANSFER) {
		struct wire_msg q = { .type = WIRE_MSG_VOTE_REQ, .flags = (uint8_t)flags, .from = 2, .to = 3, .term = 2, .index = 9, .log_term = 1 };
		pilot_deliver(p, q);
		q.type = WIRE_MSG_PREVOTE_REQ;
		pilot_deliver(p, q);
	}
	for (uint32_t i = 0; i < p->n_q; i++)
		assert_true(p->q[i].m.from != 3 || (p->q[i].m.flags & WIRE_MSG_REJECT));
	assert_int_equal(p->n[3].vote, 0);
	pilot_drop_all(p);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_TIMEOUT_NOW, .from = 1, .to = 3, .term = 1, .index = 6, .log_term = 1 });
	assert_int_equal(p->n[3].u.role, RAFT_FOLLOWER);
	pilot_isolate(p, 3, true);
	pilot_wait(p, 3000000);
	assert_int_equal(p->n[3].u.role, RAFT_FOLLOWER);
	pilot_close(p);
}

/* Rule 1, the reason: node 3 voted for node 2 in term 2, then lost its disk. With its new ack the leader of term 1 would
 * commit what the leader of term 2 does not have (I3). Nor does it make a read or a lease (I7, I11). */
static void acks_do_not_count(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 100000);
	pilot_isolate(p, 1, true);
	/* 2 stands; the vote of 3 is on its way for long */
	p->now_us += 1000000;
	pilot_step(p, 2, (struct raft_event){ .type = RAFT_EV_TICK });
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TICK });
	pilot_drop_all(p);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .from = 2, .to = 3, .term = 2, .index = 2, .log_term = 1 });
	assert_int_equal(p->n[3].vote, 2);
	pilot_drop_all(p);
	/* 1 went on leading all the while, for those whom its clock was slow for */
	p->now_us -= 1000000;
	pilot_wipe(p, 3);
	pilot_start(p, 3);
	pilot_isolate(p, 1, false);
	pilot_isolate(p, 2, true);
	uint64_t before = p->n[1].commit;
	pilot_propose(p, 1, 1);
	pilot_read(p, 1, 7);
	pilot_wait(p, 150000);
	assert_int_equal(p->n[3].last, 3);
	assert_int_equal(progress(p, 1, 3).match, 3);
	assert_int_equal(p->n[1].commit, before);
	/* and is no sign of a quorum for CheckQuorum */
	pilot_wait(p, 1000000);
	assert_true(p->n[1].u.role != RAFT_LEADER);
	assert_int_equal(p->n[1].u.lease_until_us, 0);
	assert_true(!pilot_settled(p, 1, 7) || pilot_settled(p, 1, 7)->index <= before || pilot_settled(p, 1, 7)->code != WIRE_OK);
	pilot_close(p);
}

/* What it said before the loss, and comes late, counts as from a crashed node; but nothing that it said since. */
static void late_words_of_the_life_before(void **state)
{
	struct pilot *p = open_with_loss();

	(void)state;
	pilot_wait(p, 300000);
	pilot_isolate(p, 2, true);
	pilot_propose(p, 1, 2);
	pilot_run(p);
	assert_int_equal(progress(p, 1, 3).match, 8);
	assert_int_equal(p->n[1].commit, 6);
	/* a late ack is not even looked at, a late answer to a heartbeat lets it count with what it said there */
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND_RESP, .from = 3, .to = 1, .term = 1, .index = 6 });
	assert_true(progress(p, 1, 3).forgot);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT_RESP, .from = 3, .to = 1, .term = 1, .index = 6 });
	assert_false(progress(p, 1, 3).forgot);
	assert_int_equal(progress(p, 1, 3).match, 6);
	assert_int_equal(p->n[1].commit, 6);
	pilot_wait(p, 100000);
	assert_true(progress(p, 1, 3).forgot);
	assert_int_equal(p->n[1].commit, 6);
	pilot_isolate(p, 2, false);
	pilot_wait(p, 200000);
	assert_int_equal(p->n[1].commit, 8);
	pilot_close(p);
}

/* Rule 2 c: an old configuration that left it out, and a later one that brought it back, end nothing when they are replayed,
 * after a restart neither. */
static void old_removal_is_replayed(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	assert_int_equal(config(p, 1, "vv"), WIRE_OK);
	pilot_wait(p, 300000);
	assert_int_equal(config(p, 1, "vvl"), WIRE_OK);
	pilot_wait(p, 300000);
	assert_int_equal(config(p, 1, "vvv"), WIRE_OK);
	pilot_wait(p, 300000);
	pilot_wipe(p, 3);
	p->knobs.append_max_bytes = 1; /* one entry at a time */
	pilot_start(p, 3);
	pilot_wait(p, 500000);
	assert_int_equal(p->n[3].commit, p->n[1].last);
	assert_true(p->n[3].forgetful);
	pilot_stop(p, 3);
	pilot_start(p, 3);
	pilot_wait(p, 500000);
	assert_true(p->n[3].forgetful);
	assert_int_equal(config(p, 1, "vvr"), WIRE_OK);
	pilot_wait(p, 500000);
	assert_false(p->n[3].forgetful);
	pilot_stop(p, 3);
	pilot_start(p, 3);
	pilot_wait(p, 500000);
	assert_false(p->n[3].forgetful);
	pilot_close(p);
}

/* Rule 2 a: the floor of a leader that is none any more would be too low; it comes only after a round. Here the leader of
 * term 1 has lost its quorum, and what the others did since has removed node 3 and added it again. */
static void floor_needs_a_quorum(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	p->knobs.drift_ppm = RAFT_NO_LEASES;
	pilot_wipe(p, 3);
	pilot_start(p, 3);
	pilot_isolate(p, 2, true);
	pilot_wait(p, 150000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[3].u.leader, 1);
	assert_int_equal(pilot_count(p, WIRE_MSG_READ_RESP, 1, 3), 0);
	pilot_close(p);
}

/* A learner, as all know: nothing to forget, and nothing to wait for but the log. If an entry that it lacks has promoted it, it has. */
static void learners(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	assert_int_equal(config(p, 1, "vvvl"), WIRE_OK);
	pilot_wait(p, 300000);
	pilot_wipe(p, 4);
	pilot_start(p, 4);
	assert_true(p->n[4].forgetful);
	pilot_wait(p, 300000);
	assert_false(p->n[4].forgetful);
	assert_int_equal(config(p, 1, "vvvv"), WIRE_OK);
	pilot_wait(p, 300000);
	pilot_wipe(p, 4);
	pilot_start(p, 4);
	pilot_wait(p, 500000);
	assert_true(p->n[4].forgetful);
	assert_int_equal(p->n[4].commit, p->n[1].last);
	/* four voters: the three others are a quorum of them */
	assert_int_equal(config(p, 1, "vvvr"), WIRE_OK);
	pilot_wait(p, 500000);
	assert_false(p->n[4].forgetful);
	pilot_close(p);
}

/* Two voters cannot lose one; a lone one is refused by raft_new. */
static void small_groups(void **state)
{
	struct pilot *p = pilot_open_led(2, 0);
	struct raft_init in = { .self = 1, .forgetful = true };
	struct wire_err err = { 0 };

	(void)state;
	pilot_wipe(p, 2);
	pilot_start(p, 2);
	config(p, 1, "vr");
	pilot_wait(p, 3000000);
	assert_int_equal(p->n[1].u.role == RAFT_LEADER, false);
	assert_int_equal(p->n[2].u.role, RAFT_FOLLOWER);
	assert_true(p->n[2].forgetful);
	pilot_close(p);
	in.base_config.m[in.base_config.n++] = (struct raft_member){ .id = 1, .flags = RAFT_VOTER };
	assert_null(raft_new(&in, &err));
	assert_int_equal(err.code, WIRE_INVALID);
	assert_non_null(strstr(err.text, "only voter"));
}

/* A heartbeat tells of commits up to where the life before had matched. Here entries 2 and 3 of this life's log are another
 * leader's that were superseded, as a damaged journal may bring back. */
static void old_commit_index_is_not_believed(void **state)
{
	static const uint64_t terms[] = { 1, 2, 2 };
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_stop(p, 3);
	pilot_log(p, 3, 3, terms, 3);
	p->n[3].forgetful = true;
	pilot_start(p, 3);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .from = 1, .to = 3, .term = 3, .commit = 3 });
	assert_int_equal(p->n[3].commit, 0);
	const struct wire_msg *a = pilot_find(p, WIRE_MSG_HEARTBEAT_RESP, 3, 1);
	assert_true(a && (a->flags & WIRE_MSG_FORGOT) && a->index == 0);
	pilot_close(p);
}

/* A leader that has not heard of the loss yet: the first refusal or answer tells it, and match falls. */
static void match_falls(void **state)
{
	struct pilot *p = open_with_loss();

	(void)state;
	assert_int_equal(progress(p, 1, 3).match, 6);
	pilot_propose(p, 1, 1);
	for (int i = 0; i < 50 && !progress(p, 1, 3).forgot; i++)
		assert_true(pilot_next(p));
	assert_true(progress(p, 1, 3).forgot);
	assert_true(progress(p, 1, 3).match < 6);
	assert_int_equal(raft_min_match(p->n[1].raft), progress(p, 1, 3).match);
	pilot_run(p);
	pilot_wait(p, 100000);
	assert_int_equal(p->n[1].commit, 7);
	assert_int_equal(progress(p, 1, 3).match, 7);
	/* again, while it is forgetful */
	pilot_wipe(p, 3);
	pilot_start(p, 3);
	pilot_wait(p, 300000);
	assert_int_equal(p->n[3].last, 7);
	assert_int_equal(progress(p, 1, 3).match, 7);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readmission),
		cmocka_unit_test(no_vote_and_no_candidate),
		cmocka_unit_test(acks_do_not_count),
		cmocka_unit_test(late_words_of_the_life_before),
		cmocka_unit_test(old_removal_is_replayed),
		cmocka_unit_test(floor_needs_a_quorum),
		cmocka_unit_test(learners),
		cmocka_unit_test(small_groups),
		cmocka_unit_test(old_commit_index_is_not_believed),
		cmocka_unit_test(match_falls),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft forgetful nodes", tests, NULL, NULL);
}
