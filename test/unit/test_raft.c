/* Elections: paper 5.2, 5.4; thesis 9.6 (pre-vote), 6.2 (CheckQuorum), 4.2.3 (refusal under a live leader). */
#include "test/unit/raft_pilot.h"
#include <string.h>

static struct raft_event tick(void)
{
	return (struct raft_event){ .type = RAFT_EV_TICK };
}

/* 5.2: a candidate that a majority votes for leads; the others learn it; its NOOP is committed. */
static void wins_with_a_majority(void **state)
{
	struct pilot *p = pilot_open(5, 0);

	(void)state;
	p->cut[1][4] = p->cut[1][5] = true;
	pilot_elect(p, 1);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].u.term, 1);
	assert_true(p->n[1].u.leader_ready);
	assert_int_equal(p->n[2].u.leader, 1);
	assert_int_equal(p->n[1].log[1].kind, WIRE_ENTRY_NOOP);
	assert_int_equal(p->n[4].u.leader, 0);
	pilot_close(p);
}

/* 9.6: without a majority the term stays where it is. */
static void prevote_keeps_the_term(void **state)
{
	struct pilot *p = pilot_open(5, 0);

	(void)state;
	for (uint64_t k = 3; k <= 5; k++)
		p->cut[1][k] = true;
	for (int i = 0; i < 5; i++)
		pilot_elect(p, 1);
	assert_int_equal(p->n[1].u.term, 0);
	assert_int_not_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* 9.6, 4.2.3: a node that was cut off comes back, and neither term nor leader change. */
static void returning_node_does_not_disturb(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	for (uint64_t k = 1; k <= 2; k++)
		p->cut[k][3] = p->cut[3][k] = true;
	pilot_wait(p, 3000000);
	assert_int_equal(p->n[3].u.leader, 0);
	memset(p->cut, 0, sizeof(p->cut));
	pilot_wait(p, 1000000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	for (uint64_t k = 1; k <= 3; k++)
		assert_int_equal(p->n[k].u.term, 1);
	assert_int_equal(p->n[3].u.leader, 1);
	pilot_close(p);
}

/* 4.2.3, I11: a vote request within the shortest election timeout after a sign of the leader is not even a reason to take
 * up its term; after it, it is. */
static void votes_are_refused_under_a_live_leader(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_msg m = { .type = WIRE_MSG_VOTE_REQ, .from = 3, .to = 2, .term = 9, .index = 100, .log_term = 8 };

	(void)state;
	pilot_elect(p, 1);
	p->now_us += 299999;
	pilot_deliver(p, m);
	assert_int_equal(p->n[2].u.term, 1);
	assert_null(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 3));
	m.type = WIRE_MSG_PREVOTE_REQ;
	pilot_deliver(p, m);
	assert_int_equal(pilot_find(p, WIRE_MSG_PREVOTE_RESP, 2, 3)->flags, WIRE_MSG_REJECT);
	p->now_us += 1;
	m.type = WIRE_MSG_VOTE_REQ;
	pilot_deliver(p, m);
	assert_int_equal(p->n[2].u.term, 9);
	assert_int_equal(p->n[2].u.vote, 3);
	assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 3)->flags, 0);
	pilot_close(p);
}

/* I11: a restart counts as contact. */
static void restart_counts_as_contact(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_msg m = { .type = WIRE_MSG_VOTE_REQ, .from = 3, .to = 2, .term = 9, .index = 100, .log_term = 8 };

	(void)state;
	p->now_us += 299999;
	pilot_deliver(p, m);
	assert_int_equal(p->n[2].u.term, 0);
	p->now_us += 1;
	pilot_deliver(p, m);
	assert_int_equal(p->n[2].u.vote, 3);
	pilot_close(p);
}

/* 5.2, I9: one vote a term, remembered over a restart, and told only once it is durable. */
static void one_vote_per_term(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_msg m = { .type = WIRE_MSG_VOTE_REQ, .from = 3, .to = 2, .term = 4 };

	(void)state;
	p->now_us += 1000000;
	pilot_deliver(p, m);
	assert_true(p->n[2].u.hard_state_changed && p->n[2].u.must_sync);
	assert_true(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 3)->after_persist);
	m.from = 1;
	pilot_deliver(p, m);
	assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 1)->flags, WIRE_MSG_REJECT);
	pilot_stop(p, 2);
	pilot_start(p, 2);
	pilot_drop_all(p);
	p->now_us += 1000000;
	pilot_deliver(p, m);
	assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 1)->flags, WIRE_MSG_REJECT);
	m.from = 3;
	pilot_deliver(p, m);
	assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 3)->flags, 0);
	pilot_close(p);
}

/* 5.4.1: the last terms are compared first, then the lengths. */
static void election_restriction(void **state)
{
	static const struct { uint64_t index, log_term; bool granted; } cases[] = {
		{ 2, 3, true }, { 3, 3, true }, { 1, 3, false }, { 9, 2, false }, { 1, 4, true }, { 0, 0, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pilot *p = pilot_open(3, 0);
		pilot_stop(p, 2);
		pilot_log(p, 2, 5, (const uint64_t[]){ 1, 3 }, 2);
		pilot_start(p, 2);
		p->now_us += 1000000;
		pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .from = 3, .to = 2, .term = 6,
			                            .index = cases[i].index, .log_term = cases[i].log_term });
		assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 3)->flags == 0, cases[i].granted);
		pilot_close(p);
	}
}

/* 6.2: a leader that hears from no majority for an election timeout steps down, and takes no more proposals. */
static void check_quorum(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	p->cut[2][1] = p->cut[3][1] = true;
	pilot_wait(p, 200000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_wait(p, 150000);
	assert_int_not_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_NOTLEADER);
	pilot_close(p);
}

/* A leader that slept takes no proposal before it knows that it still leads. */
static void sleeper_takes_no_proposal(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	p->now_us += 400000;
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_NOTLEADER);
	assert_true(p->n[1].u.role_changed);
	pilot_close(p);
}

/* Alone there is nobody to ask: leader at the first tick, committed once durable, a read is answered in its step. */
static void single_voter_needs_no_messages(void **state)
{
	struct pilot *p = pilot_open(1, 0);

	(void)state;
	pilot_step(p, 1, tick());
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(p->n[1].u.leader_ready);
	p->n[1].hold = true;
	assert_int_equal(pilot_propose(p, 1, 2), WIRE_OK);
	assert_int_equal(p->n[1].u.proposal_index, 2);
	assert_int_equal(p->n[1].u.commit, 1);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = 3, .term = 1 });
	assert_int_equal(p->n[1].u.commit, 3);
	pilot_read(p, 1, 7);
	assert_int_equal(pilot_settled(p, 1, 7)->code, WIRE_OK);
	assert_int_equal(pilot_settled(p, 1, 7)->index, 3);
	assert_int_equal(p->n_q, 0);
	assert_true(p->n[1].u.deadline_us == UINT64_MAX);
	pilot_close(p);
}

/* I9: elected by nobody but itself, a leader's term is durable no earlier than its first entry. */
static void lonely_term_waits_for_the_disk(void **state)
{
	struct pilot *p = pilot_open(1, 1);

	(void)state;
	pilot_step(p, 1, tick());
	assert_int_equal(pilot_config(p, 1, "vl"), WIRE_OK);
	pilot_run(p);
	pilot_stop(p, 1);
	pilot_start(p, 1);
	p->n[1].hold = true;
	pilot_step(p, 1, tick());
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(pilot_find(p, WIRE_MSG_APPEND, 1, 2)->after_persist);
	pilot_drop_all(p);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = p->n[1].last, .term = 2 });
	p->now_us += 50000;
	pilot_step(p, 1, tick());
	assert_false(pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2)->after_persist);
	pilot_close(p);
}

/* 4.2.3: strangers with great terms move nobody; answers from them do not end a leader's term. */
static void strangers_do_not_disturb(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	static const uint8_t types[] = { WIRE_MSG_APPEND_RESP, WIRE_MSG_HEARTBEAT_RESP, WIRE_MSG_VOTE_RESP, WIRE_MSG_PREVOTE_RESP, WIRE_MSG_VOTE_REQ };

	(void)state;
	pilot_elect(p, 1);
	for (size_t i = 0; i < sizeof(types); i++)
		pilot_deliver(p, (struct wire_msg){ .type = types[i], .flags = WIRE_MSG_REJECT, .from = 77, .to = 1, .term = 50 });
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].u.term, 1);
	p->now_us += 1000000;
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .from = 77, .to = 2, .term = 50 });
	assert_int_equal(p->n[2].u.term, 1);
	pilot_close(p);
}

/* A late grant of an earlier campaign does not count in this one. */
static void late_prevote_does_not_count(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_msg late;

	(void)state;
	p->now_us += 1000000;
	pilot_step(p, 1, tick());
	late = *pilot_find(p, WIRE_MSG_PREVOTE_REQ, 1, 2);
	pilot_drop_all(p);
	p->now_us += 1000000;
	pilot_step(p, 1, tick());
	late = (struct wire_msg){ .type = WIRE_MSG_PREVOTE_RESP, .from = 2, .to = 1, .term = 1, .corr = late.corr };
	pilot_deliver(p, late);
	assert_int_equal(p->n[1].u.role, RAFT_PRECANDIDATE);
	late.corr = pilot_find(p, WIRE_MSG_PREVOTE_REQ, 1, 2)->corr;
	pilot_deliver(p, late);
	assert_int_equal(p->n[1].u.role, RAFT_CANDIDATE);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wins_with_a_majority),
		cmocka_unit_test(prevote_keeps_the_term),
		cmocka_unit_test(returning_node_does_not_disturb),
		cmocka_unit_test(votes_are_refused_under_a_live_leader),
		cmocka_unit_test(restart_counts_as_contact),
		cmocka_unit_test(one_vote_per_term),
		cmocka_unit_test(election_restriction),
		cmocka_unit_test(check_quorum),
		cmocka_unit_test(sleeper_takes_no_proposal),
		cmocka_unit_test(single_voter_needs_no_messages),
		cmocka_unit_test(lonely_term_waits_for_the_disk),
		cmocka_unit_test(strangers_do_not_disturb),
		cmocka_unit_test(late_prevote_does_not_count),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft elections", tests, NULL, NULL);
}
