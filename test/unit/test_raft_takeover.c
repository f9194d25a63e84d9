/* Leadership transfer (thesis 3.10), as its target and the voters see it: who stands when told to, who hears the requests
 * in spite of a live leader (4.2.3), and what comes late. */
#include "test/unit/raft_pilot.h"

enum { ELECTION_US = 300000, HEARTBEAT_US = 50000 };

static struct raft_event tick(void)
{
	return (struct raft_event){ .type = RAFT_EV_TICK };
}

/* I9: who is told to stand says so to nobody before its term and its vote are durable. */
static void vote_is_durable_first(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_transfer(p, 1, 2);
	struct wire_msg m = *pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 2);
	pilot_drop_all(p);
	pilot_deliver(p, m);
	assert_int_equal(p->n[2].u.role, RAFT_CANDIDATE);
	assert_true(p->n[2].u.must_sync && p->n[2].u.hard_state_changed);
	assert_true(p->n[2].u.term == 2 && p->n[2].u.vote == 2);
	assert_int_equal(pilot_count(p, WIRE_MSG_PREVOTE_REQ, 2, 0), 0);
	assert_int_equal(pilot_count(p, WIRE_MSG_VOTE_REQ, 2, 0), 2);
	for (uint32_t i = 0; i < p->n_q; i++)
		assert_true(p->q[i].m.after_persist && p->q[i].m.flags == WIRE_MSG_TRANSFER);
	pilot_close(p);
}

/* The candidate's requests may be lost too; repeated, they still are heard. */
static void lost_requests_are_repeated(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	p->deaf_to[WIRE_MSG_VOTE_REQ] = true;
	pilot_transfer(p, 1, 2);
	pilot_run(p);
	assert_int_equal(p->n[2].u.role, RAFT_CANDIDATE);
	p->deaf_to[WIRE_MSG_VOTE_REQ] = false;
	pilot_isolate(p, 1, true); /* its vote is not needed, nor the news that it stepped down */
	pilot_wait(p, HEARTBEAT_US + 1000);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* 4.2.3, 3.10: a voter with a live leader, and the leader itself, hear a request only if it is flagged; and then the log
 * and the vote decide as ever. */
static void flag_overrides_the_live_leader(void **state)
{
	(void)state;
	for (uint64_t to = 1; to <= 2; to++) {
		struct pilot *p = pilot_open_led(3, 0);
		struct wire_msg m = { .type = WIRE_MSG_VOTE_REQ, .from = 3, .to = to, .term = 2, .index = 1,
			              .log_term = 1 };

		pilot_deliver(p, m);
		assert_int_equal(p->n[to].u.term, 1);
		assert_null(pilot_find(p, WIRE_MSG_VOTE_RESP, to, 3));
		m.flags = WIRE_MSG_TRANSFER;
		m.type = WIRE_MSG_PREVOTE_REQ; /* means nothing there */
		pilot_deliver(p, m);
		assert_int_equal(pilot_find(p, WIRE_MSG_PREVOTE_RESP, to, 3)->flags, WIRE_MSG_REJECT);
		m.type = WIRE_MSG_VOTE_REQ;
		m.term = 1;
		pilot_deliver(p, m);
		assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, to, 3)->flags, WIRE_MSG_REJECT);
		pilot_drop_all(p);
		m.term = 2;
		pilot_deliver(p, m);
		assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, to, 3)->flags, 0);
		assert_int_equal(p->n[to].u.role, RAFT_FOLLOWER);
		assert_true(p->n[to].u.term == 2 && p->n[to].u.vote == 3);
		/* 5.4.1: not with a shorter log; 5.2: not twice in a term; 4.2.3: not from a stranger */
		m = (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .flags = WIRE_MSG_TRANSFER, .from = 77, .to = to,
			               .term = 3 };
		pilot_deliver(p, m);
		assert_int_equal(p->n[to].u.term, 2);
		m.from = 3;
		pilot_deliver(p, m);
		assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, to, 3)->flags, WIRE_MSG_REJECT);
		assert_true(p->n[to].u.term == 3 && p->n[to].u.vote == 0);
		m.term = 2;
		m.index = 9;
		m.log_term = 2;
		pilot_deliver(p, m);
		assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_RESP, to, 3)->flags, WIRE_MSG_REJECT);
		pilot_close(p);
	}
}

/* Only the campaign that was ordered is heard in spite of the leader; the next one asks as everybody does. */
static void only_that_campaign(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_transfer(p, 1, 2);
	struct wire_msg m = *pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 2);
	pilot_drop_all(p);
	pilot_isolate(p, 2, true);
	pilot_deliver(p, m);
	pilot_drop_all(p);
	for (int i = 0; i < 200 && p->n[2].u.role == RAFT_CANDIDATE; i++) {
		p->now_us = p->n[2].u.deadline_us;
		pilot_step(p, 2, tick());
		struct wire_msg *v = pilot_find(p, WIRE_MSG_VOTE_REQ, 2, 1);
		assert_true(!v || v->flags == WIRE_MSG_TRANSFER);
		if (p->n[2].u.role == RAFT_CANDIDATE)
			pilot_drop_all(p);
	}
	assert_int_equal(p->n[2].u.role, RAFT_PRECANDIDATE);
	assert_int_equal(pilot_find(p, WIRE_MSG_PREVOTE_REQ, 2, 1)->flags, 0);
	uint64_t campaign = pilot_find(p, WIRE_MSG_PREVOTE_REQ, 2, 3)->corr;
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_PREVOTE_RESP, .from = 3, .to = 2, .term = 3,
		                            .corr = campaign });
	assert_int_equal(p->n[2].u.role, RAFT_CANDIDATE);
	assert_int_equal(pilot_find(p, WIRE_MSG_VOTE_REQ, 2, 1)->flags, 0);
	pilot_close(p);
}

/* Who does not follow that leader in that term, or is no voter, does not stand; nor one whose log ends elsewhere. */
static void ignored_where_it_does_not_belong(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	pilot_wait(p, 200000);
	uint64_t last = p->n[1].last;
	const struct wire_msg good = { .type = WIRE_MSG_TIMEOUT_NOW, .from = 1, .to = 2, .term = 1, .index = last,
		                       .log_term = 1 };
	struct wire_msg bad[8];
	for (size_t i = 0; i < 8; i++)
		bad[i] = good;
	bad[0].from = 3; /* does not lead */
	bad[1].from = 77;
	bad[2].term = 0;
	bad[3].term = 2;
	bad[4].index = last + 1; /* it lacks something */
	bad[5].index = last - 1; /* it has got more since */
	bad[6].log_term = 0;
	bad[7].to = 4; /* a learner */
	for (size_t i = 0; i < 8; i++) {
		pilot_deliver(p, bad[i]);
		assert_int_equal(p->n[bad[i].to].u.role, RAFT_FOLLOWER);
		assert_int_equal(p->n[bad[i].to].u.term, 1);
		assert_int_equal(p->n_q, 0);
	}
	bad[0] = good;
	bad[0].to = 1;
	bad[0].from = 2;
	pilot_deliver(p, bad[0]); /* the leader follows nobody */
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_deliver(p, good);
	assert_int_equal(p->n[2].u.role, RAFT_CANDIDATE);
	pilot_close(p);
}

/* A duplicate, or one that comes when the group has gone on, deposes nobody. */
static void late_message_does_no_harm(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_transfer(p, 1, 2);
	struct wire_msg late = *pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 2);
	pilot_run(p);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	pilot_deliver(p, late); /* to the one that leads now */
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_int_equal(p->n[2].u.term, 2);
	assert_int_equal(pilot_transfer(p, 2, 1), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_deliver(p, late); /* the same nodes in the same roles, in a later term */
	pilot_run(p);
	assert_int_equal(p->n[2].u.role, RAFT_FOLLOWER);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].u.term, 3);
	pilot_close(p);
}

/* Given up, and the leader went on: in the same term too the message is recognised as late. */
static void late_in_the_same_term(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_transfer(p, 1, 2);
	struct wire_msg late = *pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 2);
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true;
	pilot_wait(p, ELECTION_US);
	assert_true(p->n[1].u.transfer_to == 0);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_run(p);
	pilot_deliver(p, late);
	pilot_run(p);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[2].u.term, 1);
	pilot_close(p);
}

/* README, leases: once an entry proposed after the give-up is committed, the target cannot win any more by that message. */
static void late_target_loses_to_newer_entries(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_transfer(p, 1, 2);
	struct wire_msg late = *pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 2);
	pilot_drop_all(p);
	pilot_isolate(p, 2, true);
	pilot_wait(p, ELECTION_US);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	/* Cut off for so long, it still follows: its timer is the longer one. */
	pilot_drop_all(p);
	pilot_deliver(p, late);
	assert_int_equal(p->n[2].u.role, RAFT_CANDIDATE);
	pilot_isolate(p, 2, false);
	pilot_run(p);
	for (uint64_t k = 1; k <= 3; k++) {
		assert_int_equal(p->n[k].u.role, RAFT_FOLLOWER); /* it ends the term, */
		assert_int_equal(p->n[k].u.term, 2);
		assert_int_equal(p->n[k].u.vote, k == 2 ? 2 : 0); /* and nobody votes for it */
	}
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vote_is_durable_first),
		cmocka_unit_test(lost_requests_are_repeated),
		cmocka_unit_test(flag_overrides_the_live_leader),
		cmocka_unit_test(only_that_campaign),
		cmocka_unit_test(ignored_where_it_does_not_belong),
		cmocka_unit_test(late_message_does_no_harm),
		cmocka_unit_test(late_in_the_same_term),
		cmocka_unit_test(late_target_loses_to_newer_entries),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft takeover", tests, NULL, NULL);
}
