/* Leadership transfer (thesis 3.10), as the leader and the group see it; test_raft_takeover.c has the target's side. */
#include "test/unit/raft_pilot.h"
#include <string.h>

enum { ELECTION_US = 300000, HEARTBEAT_US = 50000 };

static struct raft_event tick(void)
{
	return (struct raft_event){ .type = RAFT_EV_TICK };
}

/* 3.10: the target is told at once when it is level, wins without any wait, and the old leader follows it. */
static void plain(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	uint64_t at = p->now_us;

	(void)state;
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	assert_true(p->n[1].u.transfer_to == 3);
	assert_int_equal(pilot_count(p, WIRE_MSG_TIMEOUT_NOW, 1, 0), 1);
	struct wire_msg m = *pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 3);
	assert_true(m.term == 1 && m.index == p->n[1].last && m.log_term == 1);
	pilot_run(p);
	assert_true(p->now_us == at);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	assert_int_equal(p->n[3].u.term, 2);
	assert_true(p->n[3].u.leader_ready);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	assert_true(p->n[1].u.transfer_to == 0);
	for (uint64_t k = 1; k <= 3; k++)
		assert_true(p->n[k].u.leader == 3);
	assert_int_equal(pilot_propose(p, 3, 1), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[3].commit, p->n[3].last);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_NOTLEADER);
	pilot_close(p);
}

/* A leader that the new configuration leaves out tells a level voter of it to stand, and there is no time without a leader but for the votes. */
static void left_out_leader_hands_over(void **state)
{
	struct pilot *p = pilot_open_led(4, 0);
	uint64_t at = p->now_us;

	(void)state;
	assert_int_equal(pilot_config(p, 1, "-vvv"), WIRE_OK);
	pilot_run(p);
	assert_true(p->now_us == at);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	uint64_t leader = p->n[2].u.leader;
	assert_true(leader >= 2 && leader <= 4 && p->n[leader].u.leader_ready);
	assert_int_equal(p->n[leader].u.term, 2);
	pilot_close(p);
}

/* What it says is lost: they elect one by themselves. */
static void left_out_leader_is_not_heard(void **state)
{
	struct pilot *p = pilot_open_led(4, 0);

	(void)state;
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true;
	assert_int_equal(pilot_config(p, 1, "-vvv"), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	pilot_wait(p, 10 * ELECTION_US);
	assert_true(p->n[2].u.leader >= 2);
	pilot_close(p);
}

/* 3.10 between two: the old leader's vote is needed, and it does not refuse because it leads. */
static void old_leader_votes(void **state)
{
	struct pilot *p = pilot_open_led(2, 0);

	(void)state;
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].u.vote, 2);
	pilot_close(p);
}

/* 3.10 step 2: a target that lags gets the rest of the log first, and is told as soon as it has acknowledged all. */
static void lagging_target_catches_up(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	uint32_t told = 0;

	(void)state;
	p->knobs.append_max_bytes = 250;
	p->knobs.window_msgs = 2;
	for (uint64_t k = 1; k <= 3; k++) {
		pilot_stop(p, k);
		pilot_start(p, k);
	}
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_isolate(p, 3, true);
	for (int i = 0; i < 5; i++)
		assert_int_equal(pilot_propose(p, 1, 30), WIRE_OK);
	pilot_wait(p, 100000);
	assert_int_equal(p->n[1].commit, 151);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_wait(p, 60000);
	assert_int_equal(p->n[3].last, 1);
	pilot_isolate(p, 3, false);
	while (p->n[1].u.transfer_to == 3 && !told) {
		struct raft_progress pr;
		if (!pilot_next(p)) {
			p->now_us += 250;
			for (uint64_t k = 1; k <= 2; k++)
				if (p->n[k].u.deadline_us <= p->now_us)
					pilot_step(p, k, tick());
		}
		told = pilot_count(p, WIRE_MSG_TIMEOUT_NOW, 1, 0);
		assert_true(raft_progress_of(p->n[1].raft, 3, &pr));
		assert_int_equal(told, pr.match == 151);
	}
	assert_int_equal(told, 1);
	pilot_run(p);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	assert_int_equal(p->n[3].last, 152);
	pilot_close(p);
}

/* Messages get lost: TIMEOUT_NOW is sent again each heartbeat interval, the deadline says when. */
static void lost_message_is_repeated(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_wait(p, 20000); /* out of step with the heartbeats */
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	for (int i = 0; i < 3; i++) {
		uint64_t sent = p->now_us;
		p->now_us++;
		pilot_step(p, 1, tick());
		pilot_transfer(p, 1, 2);
		assert_int_equal(pilot_count(p, WIRE_MSG_TIMEOUT_NOW, 1, 2), 1); /* not at each step */
		p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true;
		pilot_run(p);
		p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = false;
		while (!pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 2)) {
			assert_true(p->n[1].u.deadline_us > p->now_us && p->n[1].u.deadline_us <= sent + HEARTBEAT_US);
			pilot_run(p);
			p->now_us = p->n[1].u.deadline_us;
			pilot_step(p, 1, tick());
		}
		assert_true(p->now_us == sent + HEARTBEAT_US);
	}
	pilot_run(p);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* 3.10: without success for an election timeout, proposals are taken again. Until then none is, and reads go on. The target
 * was told to stand, so that the leader adds an entry of its own for the sake of its lease (I11). */
static void given_up(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	uint64_t last = p->n[1].last, end = p->now_us + ELECTION_US;

	(void)state;
	pilot_isolate(p, 3, true);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	while (p->now_us < end) {
		assert_true(p->n[1].u.transfer_to == 3);
		assert_true(p->n[1].u.deadline_us <= end);
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_BUSY);
		assert_int_equal(pilot_config(p, 1, "vv"), WIRE_BUSY);
		pilot_wait(p, 10000);
	}
	assert_int_equal(p->n[1].last, last + 1);
	assert_int_equal(p->n[1].log[last + 1].kind, WIRE_ENTRY_NOOP);
	assert_true(p->n[1].u.transfer_to == 0);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].u.term, 1);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	assert_int_equal(p->n[1].last, last + 2);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, last + 2);
	assert_int_equal(pilot_config(p, 1, "vv"), WIRE_OK);
	pilot_close(p);
}

/* The time to give up is one that the update names. */
static void given_up_in_time(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_wait(p, 20000);
	uint64_t end = p->now_us + ELECTION_US;
	for (uint64_t peer = 2; peer <= 3; peer++) { /* level and silent; behind */
		pilot_isolate(p, peer, true);
		assert_int_equal(pilot_transfer(p, 1, peer), WIRE_OK);
		while (p->n[1].u.transfer_to) {
			pilot_run(p);
			assert_true(p->n[1].u.deadline_us > p->now_us && p->n[1].u.deadline_us <= end);
			p->now_us = p->n[1].u.deadline_us;
			pilot_step(p, 1, tick());
		}
		assert_true(p->now_us == end);
		assert_int_equal(p->n[1].u.role, RAFT_LEADER);
		end += ELECTION_US;
		pilot_isolate(p, peer, false);
		p->cut[1][3] = true;
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
		pilot_run(p);
	}
	pilot_close(p);
}

/* A proposal that comes in the very step in which it is given up is taken. */
static void given_up_before_the_proposal(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_isolate(p, 3, true);
	pilot_transfer(p, 1, 3);
	pilot_wait(p, ELECTION_US - 250);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_BUSY);
	p->now_us += 250;
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	assert_true(p->n[1].u.transfer_to == 0);
	pilot_close(p);
}

/* 6.4: a read-index round does not depend on it. */
static void reads_go_on(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_isolate(p, 3, true);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_read(p, 1, 1);
	pilot_read(p, 2, 2);
	pilot_run(p);
	assert_int_equal(pilot_settled(p, 1, 1)->code, WIRE_OK);
	assert_int_equal(pilot_settled(p, 2, 2)->code, WIRE_OK);
	assert_true(p->n[1].u.transfer_to == 3);
	pilot_close(p);
}

/* 6.4: a round that is unanswered when the target wins is never finished by the old leader. */
static void old_leader_serves_no_read(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_transfer(p, 1, 2);
	struct wire_msg now = *pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 2);
	pilot_drop_all(p);
	p->cut[2][1] = p->cut[3][1] = p->cut[1][2] = p->cut[1][3] = true;
	pilot_deliver(p, now);
	pilot_run(p);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(pilot_propose(p, 2, 1), WIRE_OK);
	pilot_run(p);
	pilot_read(p, 1, 1);
	memset(p->cut, 0, sizeof(p->cut));
	pilot_run(p);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	assert_int_equal(pilot_settled(p, 1, 1)->code, WIRE_NOTLEADER);
	pilot_close(p);
}

/* What each request is answered. */
static void answers(void **state)
{
	struct pilot *p = pilot_open_led(3, 2);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	pilot_wait(p, 200000);
	assert_int_equal(pilot_transfer(p, 2, 3), WIRE_NOTLEADER);
	assert_int_equal(pilot_transfer(p, 2, 0), WIRE_NOTLEADER);
	assert_int_equal(pilot_transfer(p, 1, 1), WIRE_INVALID);  /* itself */
	assert_int_equal(pilot_transfer(p, 1, 4), WIRE_INVALID);  /* a learner */
	assert_int_equal(pilot_transfer(p, 1, 5), WIRE_INVALID);  /* no member */
	assert_int_equal(pilot_transfer(p, 1, 77), WIRE_INVALID); /* unknown */
	assert_true(p->n[1].u.transfer_to == 0);
	pilot_isolate(p, 2, true);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	pilot_wait(p, 200000);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_OK);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_BUSY);
	assert_int_equal(pilot_transfer(p, 1, 4), WIRE_INVALID);
	assert_true(p->n[1].u.transfer_to == 2);
	pilot_wait(p, 100000); /* asking again gave it no more time */
	assert_true(p->n[1].u.transfer_to == 0);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_close(p);
}

/* Alone there is nobody to take over. */
static void single_voter(void **state)
{
	struct pilot *p = pilot_open(1, 1);

	(void)state;
	pilot_step(p, 1, tick());
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_INVALID);
	assert_int_equal(pilot_transfer(p, 1, 1), WIRE_INVALID);
	assert_int_equal(pilot_config(p, 1, "vl"), WIRE_OK);
	pilot_wait(p, 200000);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_INVALID);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_close(p);
}

/* Not while the voters change: the target might be none in the end. A voter that was removed is none. */
static void not_during_a_change(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	for (uint64_t k = 2; k <= 4; k++)
		p->cut[k][1] = true;
	assert_int_equal(pilot_config(p, 1, "vv-v"), WIRE_OK);
	assert_true(raft_config_current(p->n[1].raft)->joint);
	pilot_run(p);
	for (uint64_t k = 2; k <= 4; k++)
		assert_int_equal(pilot_transfer(p, 1, k), WIRE_BUSY);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_BUSY);
	assert_int_equal(pilot_transfer(p, 1, 9), WIRE_INVALID);
	for (uint64_t k = 2; k <= 4; k++)
		p->cut[k][1] = false;
	pilot_wait(p, 250000);
	assert_true(raft_config_committed(p->n[1].raft) && !raft_config_current(p->n[1].raft)->joint);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_INVALID);
	assert_int_equal(pilot_transfer(p, 1, 4), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[4].u.role, RAFT_LEADER);
	/* A change of learners is one too. */
	p->cut[1][4] = p->cut[2][4] = true;
	assert_int_equal(pilot_config(p, 4, "vvlv"), WIRE_OK);
	assert_false(raft_config_current(p->n[4].raft)->joint);
	assert_int_equal(pilot_transfer(p, 4, 1), WIRE_BUSY);
	pilot_close(p);
}

/* Left to the core, it is the voter that lacks least, of those that are alive; a learner or a silent one never is. */
static void best_target_is_picked(void **state)
{
	struct pilot *p = pilot_open_led(5, 1);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvvvl"), WIRE_OK);
	pilot_wait(p, 200000);
	/* 2 has all but is silent for long, 6 is a learner, 4 lacks less than 3 and 5 */
	p->cut[1][3] = p->cut[1][5] = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 1000);
	pilot_isolate(p, 2, true);
	p->cut[1][3] = p->cut[1][5] = false;
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_wait(p, ELECTION_US + 1000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_propose(p, 1, 1);
	pilot_wait(p, 1000);
	assert_true(p->n[4].last == p->n[2].last && p->n[6].last == p->n[2].last);
	assert_true(p->n[3].last < p->n[4].last && p->n[5].last < p->n[4].last);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_OK);
	assert_true(p->n[1].u.transfer_to == 4);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_wait(p, 250000);
	assert_int_equal(p->n[4].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* Among equals it is the one that has published most. */
static void best_target_has_published(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = p->n[3].commit });
	pilot_wait(p, HEARTBEAT_US);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_OK);
	assert_true(p->n[1].u.transfer_to == 3);
	pilot_close(p);
}

/* Nobody that could take over in time: refused at once, rather than given up later. */
static void nobody_suits(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct raft_progress pr;

	(void)state;
	/* A new leader has heard from nobody. */
	p->deaf_to[WIRE_MSG_APPEND] = p->deaf_to[WIRE_MSG_HEARTBEAT] = true;
	pilot_elect(p, 2);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_int_equal(pilot_transfer(p, 2, 0), WIRE_INVALID);
	pilot_close(p);

	/* One is silent, the other one lacks what is trimmed. */
	p = pilot_open_led(3, 0);
	p->cut[1][3] = true;
	pilot_propose(p, 1, 3);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = p->n[1].last });
	pilot_isolate(p, 2, true);
	p->cut[1][3] = false;
	pilot_wait(p, ELECTION_US + 50000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(raft_progress_of(p->n[1].raft, 3, &pr) && pr.state == RAFT_SNAPSHOT);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_INVALID);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK); /* by name it is tried */
	assert_int_equal(pilot_count(p, WIRE_MSG_TIMEOUT_NOW, 1, 0), 0);
	pilot_close(p);
}

/* Losing leadership ends it, by CheckQuorum too; led again, the node begins without one. */
static void ends_with_the_leadership(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_isolate(p, 1, true);
	pilot_wait(p, 200000);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	pilot_wait(p, 150000);
	assert_int_not_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(p->n[1].u.transfer_to == 0);
	pilot_isolate(p, 1, false);
	pilot_wait(p, 2000000);
	pilot_elect(p, 1);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(p->n[1].u.transfer_to == 0);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),
		cmocka_unit_test(left_out_leader_hands_over),
		cmocka_unit_test(left_out_leader_is_not_heard),
		cmocka_unit_test(old_leader_votes),
		cmocka_unit_test(lagging_target_catches_up),
		cmocka_unit_test(lost_message_is_repeated),
		cmocka_unit_test(given_up),
		cmocka_unit_test(given_up_in_time),
		cmocka_unit_test(given_up_before_the_proposal),
		cmocka_unit_test(reads_go_on),
		cmocka_unit_test(old_leader_serves_no_read),
		cmocka_unit_test(answers),
		cmocka_unit_test(single_voter),
		cmocka_unit_test(not_during_a_change),
		cmocka_unit_test(best_target_is_picked),
		cmocka_unit_test(best_target_has_published),
		cmocka_unit_test(nobody_suits),
		cmocka_unit_test(ends_with_the_leadership),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft leadership transfer", tests, NULL, NULL);
}
