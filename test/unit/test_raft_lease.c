/* Leader leases (thesis 6.4.1; I11). test_raft_lease_clock.c has the clocks. */
#include "test/unit/raft_pilot.h"
#include <string.h>

/* L = L' (1 - d) / (1 + d) with L' = 300,000 and d = 0.23, cut to microseconds, less four. */
enum { ELECTION_US = 300000, HEARTBEAT_US = 50000, LEASE_US = 187800 };

static struct raft_event tick(void)
{
	return (struct raft_event){ .type = RAFT_EV_TICK };
}

static uint64_t lease(const struct pilot *p, uint64_t id)
{
	return p->n[id].u.lease_until_us;
}

/* Steps node 1 until it sends heartbeats, which stay in the queue. */
static void beat(struct pilot *p)
{
	pilot_drop_all(p);
	while (!pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2)) {
		p->now_us += 1000;
		pilot_step(p, 1, tick());
	}
}

/* The answer of a voter to what waits for it, as it would come back. */
static struct wire_msg answer_of(struct pilot *p, uint64_t from)
{
	struct wire_msg m = *pilot_find(p, WIRE_MSG_HEARTBEAT, 1, from);

	pilot_deliver(p, m);
	return *pilot_find(p, WIRE_MSG_HEARTBEAT_RESP, from, 1);
}

/* I11: it lasts for L from the sending of what was answered, not from the answer. */
static void counts_from_the_sending(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	beat(p);
	uint64_t sent = p->now_us, before = lease(p, 1);
	assert_true(before > 0 && before < sent + LEASE_US);
	struct wire_msg a = answer_of(p, 2);
	p->now_us += 30000;
	pilot_deliver(p, a);
	assert_int_equal(lease(p, 1), sent + LEASE_US);
	pilot_close(p);
}

/* I11: of five it is the second latest answer that makes it three with the leader. */
static void needs_a_quorum(void **state)
{
	struct pilot *p = pilot_open_led(5, 0);
	uint64_t sent[4];
	struct wire_msg a[4];

	(void)state;
	for (uint64_t i = 0; i < 4; i++) {
		beat(p);
		sent[i] = p->now_us;
		a[i] = answer_of(p, i + 2);
	}
	uint64_t before = lease(p, 1);
	pilot_deliver(p, a[0]);
	assert_int_equal(lease(p, 1), before);
	pilot_deliver(p, a[3]);
	assert_int_equal(lease(p, 1), sent[0] + LEASE_US);
	pilot_deliver(p, a[2]);
	assert_int_equal(lease(p, 1), sent[2] + LEASE_US);
	pilot_deliver(p, a[1]);
	assert_int_equal(lease(p, 1), sent[2] + LEASE_US);
	pilot_close(p);
}

/* I11: answers that are late, repeated, of another term, or to what was not sent extend nothing. */
static void wrong_answers(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	beat(p);
	struct wire_msg old = answer_of(p, 2);
	beat(p);
	uint64_t sent = p->now_us;
	struct wire_msg good = answer_of(p, 2);
	pilot_deliver(p, good);
	assert_int_equal(lease(p, 1), sent + LEASE_US);
	p->now_us += 20000;
	pilot_step(p, 1, tick());
	struct wire_msg wrong[6];
	for (int i = 0; i < 6; i++)
		wrong[i] = good;
	wrong[1] = old;
	wrong[2].log_term = good.log_term + 1;
	wrong[3].log_term = UINT64_MAX;
	wrong[4].log_term = 0;
	wrong[5].term = 0;
	for (int i = 0; i < 12; i++) {
		wrong[i / 2].from = 2 + (uint64_t)i % 2;
		pilot_deliver(p, wrong[i / 2]);
		assert_int_equal(lease(p, 1), sent + LEASE_US);
	}
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* I11: what was answered in an earlier term, led by the same node, is worth nothing in this one. */
static void begins_anew_in_each_term(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	for (int i = 0; i < 5; i++)
		beat(p);
	struct wire_msg old = answer_of(p, 2);
	pilot_drop_all(p);
	p->deaf_to[WIRE_MSG_HEARTBEAT] = true;
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &(struct wire_msg){
		.type = WIRE_MSG_HEARTBEAT_RESP, .flags = WIRE_MSG_REJECT, .from = 2, .to = 1, .term = 2 } });
	assert_int_equal(lease(p, 1), 0);
	pilot_elect(p, 1);
	assert_true(p->n[1].u.leader_ready && p->n[1].u.term == 3);
	assert_int_equal(lease(p, 1), 0);
	pilot_deliver(p, old);
	old.term = 3; /* even if it said so */
	pilot_deliver(p, old);
	assert_int_equal(lease(p, 1), 0);
	pilot_close(p);
}

/* However often heartbeats go out, an answer to an early one counts from no later than that, and is remembered. */
static void many_sendings(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	beat(p);
	uint64_t sent = p->now_us;
	struct wire_msg a = answer_of(p, 2);
	for (int i = 0; i < 2000; i++) { /* each sends one to node 3 */
		p->now_us += 100;
		pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_REACHABLE, .peer = 3 });
		if (i == 1500) {
			pilot_deliver(p, a);
			assert_int_equal(lease(p, 1), sent + LEASE_US);
		}
		if (i % 50 == 0)
			pilot_drop_all(p);
	}
	uint64_t latest = p->now_us;
	a = answer_of(p, 3);
	pilot_deliver(p, a);
	assert_true(lease(p, 1) <= latest + LEASE_US && lease(p, 1) + ELECTION_US / 32 > latest + LEASE_US);
	pilot_close(p);
}

/* Thesis 6.4: no lease before an entry of its own term is committed, however many answer. */
static void new_leader_has_none(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_elect(p, 2);
	pilot_wait(p, HEARTBEAT_US);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_int_equal(lease(p, 2), 0);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_wait(p, 4 * HEARTBEAT_US);
	assert_true(p->n[2].u.leader_ready && lease(p, 2) > p->now_us);
	pilot_close(p);
}

/* 6.4.1: with a lease a read is settled in its step and no message is sent; in the very microsecond of its end, not. */
static void reads(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_isolate(p, 1, true);
	p->now_us = lease(p, 1) - 1;
	pilot_step(p, 1, tick());
	pilot_drop_all(p);
	pilot_read(p, 1, 1);
	assert_int_equal(p->n_q, 0);
	assert_int_equal(pilot_settled(p, 1, 1)->code, WIRE_OK);
	assert_int_equal(pilot_settled(p, 1, 1)->index, p->n[1].commit);
	/* A follower's request too. */
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_READ_REQ, .from = 2, .to = 1, .corr = 77 });
	assert_int_equal(p->n_q, 1);
	assert_int_equal(pilot_find(p, WIRE_MSG_READ_RESP, 1, 2)->index, p->n[1].commit);
	p->now_us++;
	assert_true(p->now_us == lease(p, 1));
	pilot_read(p, 1, 2);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(lease(p, 1), 0);
	assert_null(pilot_settled(p, 1, 2));
	assert_int_equal(pilot_count(p, WIRE_MSG_HEARTBEAT, 1, 0), 2);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_READ_REQ, .from = 2, .to = 1, .corr = 78 });
	assert_int_equal(pilot_count(p, WIRE_MSG_READ_RESP, 1, 2), 1);
	pilot_close(p);
}

static uint32_t rounds, questions;

static void count_rounds(uint64_t node, const struct raft_told *told, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		rounds += node == 1 && told[i].event == RAFT_TOLD_READ_ROUND;
}

/* Delivers the queue, one message after the other, and counts what a follower asks. */
static void run_counting(struct pilot *p)
{
	do
		questions += p->n_q && p->q[0].m.type == WIRE_MSG_READ_REQ;
	while (pilot_next(p));
}

/* A follower has one question on its way at a time, and then one for all reads that came meanwhile; the leader, without a lease, makes one round for each. */
static void many_readers(void **state)
{
	struct pilot *p;

	(void)state;
	pilot_on_told = count_rounds;
	p = pilot_open_no_leases(3, 0);
	pilot_elect(p, 1);
	pilot_propose(p, 1, 1);
	pilot_run(p);
	rounds = questions = 0;
	for (uint64_t i = 1; i <= 500; i++)
		pilot_read(p, 2, i);
	assert_int_equal(pilot_count(p, WIRE_MSG_READ_REQ, 2, 1), 1);
	for (uint64_t i = 501; i <= 1000; i++)
		pilot_read(p, 2, i);
	assert_int_equal(p->n_q, 1);
	run_counting(p);
	for (uint64_t i = 1; i <= 1000; i++)
		assert_int_equal(pilot_settled(p, 2, i)->code, WIRE_OK);
	assert_int_equal(questions, 2);
	assert_int_equal(rounds, 2);
	pilot_on_told = NULL;
	pilot_close(p);
}

/* Reads that waited for a round are settled by a lease that comes before its end. */
static void waiting_reads(void **state)
{
	struct pilot *p = pilot_open_led(5, 0);

	(void)state;
	p->now_us += LEASE_US;
	pilot_step(p, 1, tick());
	pilot_drop_all(p);
	p->now_us += 10000;
	pilot_read(p, 1, 1);
	struct wire_msg a = answer_of(p, 2), b = answer_of(p, 3);
	a.corr = b.corr = 0;
	pilot_deliver(p, a);
	assert_null(pilot_settled(p, 1, 1));
	pilot_deliver(p, b);
	assert_int_equal(pilot_settled(p, 1, 1)->code, WIRE_OK);
	pilot_close(p);
}

/* I7: a quorum without the leader's own disk commits. Who has heard of it may have shown it, so that a read must see it, though
 * it is not published here. */
static void read_index_is_not_held_back(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	uint64_t last = p->n[1].last;

	(void)state;
	p->n[1].hold = true;
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[1].u.commit, last);
	assert_int_equal(p->n[1].u.read_index, last + 1);
	pilot_wait(p, 1000);
	assert_int_equal(p->n[2].commit, last + 1);
	pilot_read(p, 1, 1);
	assert_int_equal(pilot_settled(p, 1, 1)->index, last + 1);
	pilot_close(p);
}

/* I11: gone in the step in which leadership is, by a later term or by silence. */
static void void_at_step_down(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	assert_true(lease(p, 1) > p->now_us);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT_RESP, .flags = WIRE_MSG_REJECT, .from = 2, .to = 1, .term = 5 });
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	assert_int_equal(lease(p, 1), 0);
	for (uint64_t k = 2; k <= 3; k++)
		assert_int_equal(lease(p, k), 0);
	pilot_close(p);

	p = pilot_open_led(3, 0);
	pilot_isolate(p, 1, true);
	while (lease(p, 1)) {
		assert_true(lease(p, 1) > p->now_us);
		p->now_us += 1000;
		pilot_step(p, 1, tick());
	}
	assert_int_equal(p->n[1].u.role, RAFT_LEADER); /* a lease ends before CheckQuorum does */
	pilot_close(p);
}

/* I11, 3.10: none from the first TIMEOUT_NOW on. While the target is not level yet it goes on. */
static void void_at_a_transfer(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	p->deaf_to[WIRE_MSG_APPEND_RESP] = true;
	pilot_isolate(p, 3, true);
	pilot_propose(p, 1, 1);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_wait(p, 60000);
	assert_true(p->n[1].u.transfer_to == 3 && lease(p, 1) > p->now_us);
	p->deaf_to[WIRE_MSG_APPEND_RESP] = false;
	pilot_isolate(p, 3, false);
	while (!pilot_find(p, WIRE_MSG_TIMEOUT_NOW, 1, 3)) {
		assert_true(lease(p, 1) > p->now_us);
		if (pilot_next(p))
			continue;
		p->now_us += 250;
		pilot_step(p, 1, tick());
	}
	assert_int_equal(lease(p, 1), 0);
	pilot_close(p);
}

/* I11: a transfer that is given up leaves the leader without a lease until a later entry, which it appends itself, is
 * committed. */
static void comes_back_with_an_entry(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	uint64_t last = p->n[1].last;

	(void)state;
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true;
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	while (p->n[1].u.transfer_to) {
		assert_int_equal(lease(p, 1), 0);
		assert_int_equal(p->n[1].last, last);
		pilot_run(p);
		p->now_us += 1000;
		pilot_step(p, 1, tick());
	}
	assert_int_equal(p->n[1].last, last + 1);
	assert_int_equal(p->n[1].log[last + 1].kind, WIRE_ENTRY_NOOP);
	assert_int_equal(lease(p, 1), 0);
	/* Answers to heartbeats do not bring it back, the commit does. */
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_wait(p, 10000);
	assert_int_equal(lease(p, 1), 0);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_wait(p, 6 * HEARTBEAT_US);
	assert_int_equal(p->n[1].commit, last + 1);
	assert_int_equal(p->n[1].last, last + 1); /* one is enough */
	assert_true(lease(p, 1) > p->now_us);
	pilot_close(p);

	/* One that the target was never told of costs nothing. */
	p = pilot_open_led(3, 0);
	p->deaf_to[WIRE_MSG_APPEND_RESP] = true;
	pilot_isolate(p, 3, true);
	pilot_propose(p, 1, 1);
	last = p->n[1].last;
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_wait(p, ELECTION_US + 1000);
	assert_true(!p->n[1].u.transfer_to && p->n[1].last == last && lease(p, 1) > p->now_us);
	pilot_close(p);
}

/* I11: none from the proposal of a configuration until it is committed; a joint one is not the end of it. */
static void void_during_a_change(void **state)
{
	static const char *const targets[] = { "vv", "vvvv", "vvvl", "v--v", "-vvv" };

	(void)state;
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		struct pilot *p = pilot_open_led(3, 1);
		assert_true(lease(p, 1) > p->now_us);
		assert_int_equal(pilot_config(p, 1, targets[i]), WIRE_OK);
		assert_int_equal(lease(p, 1), 0);
		while (p->n[1].u.role == RAFT_LEADER && (raft_config_current(p->n[1].raft)->joint || !raft_config_committed(p->n[1].raft))) {
			assert_int_equal(lease(p, 1), 0);
			if (pilot_next(p))
				continue;
			p->now_us += 250;
			for (uint64_t k = 1; k <= 4; k++)
				if (p->n[k].u.deadline_us <= p->now_us)
					pilot_step(p, k, tick());
		}
		/* Left out, it steps down. */
		assert_int_equal(p->n[1].u.role == RAFT_LEADER, targets[i][0] == 'v');
		pilot_wait(p, HEARTBEAT_US);
		assert_int_equal(lease(p, 1) != 0, targets[i][0] == 'v');
		pilot_close(p);
	}
}

/* Alone there is nobody who could be elected: for as long as it leads, whatever the clock says; until a second voter is
 * proposed. */
static void single_voter(void **state)
{
	struct pilot *p = pilot_open(1, 2);

	(void)state;
	p->n[1].hold = true;
	pilot_step(p, 1, tick());
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(lease(p, 1), 0);
	p->n[1].hold = false;
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = 1, .term = 1 });
	assert_true(lease(p, 1) == UINT64_MAX);
	p->now_us += 10000000;
	p->n[1].unsure = true;
	pilot_step(p, 1, tick());
	assert_true(lease(p, 1) == UINT64_MAX);
	assert_int_equal(pilot_config(p, 1, "vl"), WIRE_OK);
	assert_true(lease(p, 1) == UINT64_MAX); /* committed in its step */
	pilot_wait(p, 1000);
	assert_int_equal(pilot_config(p, 1, "vv"), WIRE_OK);
	assert_int_equal(lease(p, 1), 0);
	p->n[1].unsure = false;
	pilot_wait(p, 4 * HEARTBEAT_US);
	assert_true(lease(p, 1) > p->now_us && lease(p, 1) <= p->now_us + LEASE_US);
	pilot_close(p);
}

/* The same where one voter alone commits, and all are needed for an election (quorum.c): its own vote is given after the end. */
static void quorum_of_one(void **state)
{
	struct raft_config c = { .quorums = { 1, 2 } };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vv");
	p = pilot_open_as(&c, 2);
	pilot_elect(p, 1);
	pilot_wait(p, HEARTBEAT_US);
	pilot_isolate(p, 2, true);
	pilot_wait(p, 2000000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(lease(p, 1) == UINT64_MAX);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .flags = WIRE_MSG_TRANSFER, .from = 2, .to = 1, .term = 9, .index = 99,
	                                    .log_term = 8, .corr = 1 });
	assert_int_equal(p->n[1].u.vote, 2);
	assert_int_equal(lease(p, 1), 0);
	pilot_close(p);
}

/* I11: a restarted voter still keeps the promise that it may have given before. */
static void restarted_voter_keeps_its_promise(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_run(p);
	pilot_isolate(p, 1, true);
	uint64_t end = lease(p, 1);
	pilot_stop(p, 2);
	pilot_start(p, 2);
	pilot_step(p, 2, tick());
	for (; p->now_us < end; p->now_us += 500) {
		pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .from = 3, .to = 2, .term = 9, .index = 100, .log_term = 8 });
		assert_true(p->n[2].u.vote != 3);
	}
	/* The leader that restarts has none. */
	pilot_stop(p, 1);
	pilot_start(p, 1);
	pilot_step(p, 1, tick());
	assert_int_equal(lease(p, 1), 0);
	pilot_close(p);
}

/* What the shell switches off, is off. */
static void no_leases(void **state)
{
	struct pilot *p = pilot_open_no_leases(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 200000);
	assert_true(p->n[1].u.leader_ready && !lease(p, 1));
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_from_the_sending),
		cmocka_unit_test(needs_a_quorum),
		cmocka_unit_test(wrong_answers),
		cmocka_unit_test(begins_anew_in_each_term),
		cmocka_unit_test(many_sendings),
		cmocka_unit_test(new_leader_has_none),
		cmocka_unit_test(reads),
		cmocka_unit_test(waiting_reads),
		cmocka_unit_test(many_readers),
		cmocka_unit_test(read_index_is_not_held_back),
		cmocka_unit_test(void_at_step_down),
		cmocka_unit_test(void_at_a_transfer),
		cmocka_unit_test(comes_back_with_an_entry),
		cmocka_unit_test(void_during_a_change),
		cmocka_unit_test(single_voter),
		cmocka_unit_test(quorum_of_one),
		cmocka_unit_test(restarted_voter_keeps_its_promise),
		cmocka_unit_test(no_leases),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft leases", tests, NULL, NULL);
}
