/* Priorities (raft/priority.c): who stands first, who gets leadership back, and what is left alone. */
#include "test/unit/raft_pilot.h"
#include <stdlib.h>
#include <string.h>

enum { ELECTION_US = 300000 };

/* Voters with these priorities, as many as there are before a -1. */
static struct pilot *open_with(const int *priorities)
{
	struct raft_config c = { .level = RAFT_LEVEL };

	for (; priorities[c.n] >= 0; c.n++)
		c.m[c.n] = (struct raft_member){ .id = c.n + 1, .flags = RAFT_VOTER, .priority = (uint8_t)priorities[c.n] };
	return pilot_open_as(&c, c.n);
}

static uint64_t leader_of(const struct pilot *p)
{
	for (uint64_t id = 1; id <= p->count; id++)
		if (p->n[id].u.role == RAFT_LEADER && p->n[id].u.leader_ready)
			return id;
	return 0;
}

/* How long until it leads, up to `us`. With load: something is proposed to whoever leads. */
static uint64_t until_leads(struct pilot *p, uint64_t id, uint64_t us, bool load)
{
	uint64_t from = p->now_us;

	for (int i = 0; p->now_us < from + us && leader_of(p) != id; i++) {
		if (load && leader_of(p) && p->n[leader_of(p)].last < PILOT_LOG - 60 && i % 40 == 0)
			(void)pilot_propose(p, leader_of(p), 1);
		pilot_wait(p, 1000);
	}
	return p->now_us - from;
}

/* Of those that are there the first by priority stands first, and leads. */
static void first_stands_first(void **state)
{
	(void)state;
	for (uint64_t turn = 0; turn < 12; turn++) {
		struct pilot *p = open_with((const int[]){ 10, 200, 50, 100, 0, -1 });
		p->now_us += turn * 1313;
		until_leads(p, 2, 3000000, false);
		assert_int_equal(p->n[2].u.term, 1); /* nobody else was in the way */
		pilot_isolate(p, 2, true);
		until_leads(p, 4, 3000000, false);
		assert_int_equal(p->n[4].u.role, RAFT_LEADER);
		assert_int_equal(p->n[4].u.term, 2);
		pilot_close(p);
	}
}

/* 5.4.1: who is first and lacks something cannot win; the others wait longer, but not for ever. */
static void first_lacks_something(void **state)
{
	struct pilot *p = open_with((const int[]){ 100, 255, 50, -1 });

	(void)state;
	pilot_isolate(p, 2, true);
	pilot_elect(p, 1);
	pilot_propose(p, 1, 3);
	pilot_wait(p, 50000);
	assert_int_equal(p->n[3].last, 4);
	pilot_isolate(p, 1, true);
	p->cut[2][3] = p->cut[3][2] = false;
	until_leads(p, 3, 4000000, false);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	assert_int_equal(p->n[3].log[4].term, 1);
	until_leads(p, 2, 3000000, false); /* level now */
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_int_equal(p->n[2].log[4].term, 1);
	pilot_close(p);
}

/* With priority 0 one stands when nobody else has for several timeouts. */
static void none_at_all(void **state)
{
	struct pilot *p = open_with((const int[]){ 100, 0, 0, -1 });

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_isolate(p, 1, true);
	uint64_t from = p->now_us;
	for (int i = 0; i < 5 * ELECTION_US / 1000 - 60; i++) {
		pilot_wait(p, 1000);
		assert_true(p->n[2].u.role == RAFT_FOLLOWER && p->n[3].u.role == RAFT_FOLLOWER);
	}
	while (!p->n[2].u.leader_ready && !p->n[3].u.leader_ready && p->now_us < from + 9 * ELECTION_US)
		pilot_wait(p, 1000);
	assert_true(p->n[2].u.leader_ready || p->n[3].u.leader_ready);
	pilot_close(p);
	/* All alike: no reason to wait. */
	p = open_with((const int[]){ 0, 0, 0, -1 });
	from = p->now_us;
	while (!leader_of(p) && p->now_us < from + 3 * ELECTION_US)
		pilot_wait(p, 1000);
	assert_int_not_equal(leader_of(p), 0);
	pilot_close(p);
}

/* The table's promise: it leads again within seconds of its return, once it is caught up; under load, and when idle. */
static void returns(bool load)
{
	struct pilot *p = open_with((const int[]){ 200, 100, 100, -1 });

	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_isolate(p, 1, true);
	pilot_wait(p, 2000000);
	uint64_t second = p->n[2].u.role == RAFT_LEADER ? 2 : 3;
	assert_int_equal(p->n[second].u.role, RAFT_LEADER);
	for (int i = 0; i < 20; i++) {
		pilot_propose(p, second, 2);
		pilot_wait(p, 20000);
	}
	pilot_wait(p, load ? 0 : 20000000);
	pilot_isolate(p, 1, false);
	uint64_t took = until_leads(p, 1, 10000000, load);
	assert_true(took > 10 * 50000 && took < 3000000); /* fit for ten heartbeats */
	assert_true(p->n[1].u.leader_ready);
	uint64_t term = p->n[1].u.term;
	pilot_wait(p, 5000000);
	assert_true(p->n[1].u.role == RAFT_LEADER && p->n[1].u.term == term);
	pilot_close(p);
}

static void returns_under_load(void **state)
{
	(void)state;
	returns(true);
}

static void returns_to_an_idle_group(void **state)
{
	(void)state;
	returns(false);
}

/* Not while it lacks something, nor while it comes and goes. */
static void not_fit(void **state)
{
	struct pilot *p = open_with((const int[]){ 100, 200, 100, -1 });
	struct raft_progress g;

	(void)state;
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true;
	pilot_elect(p, 1);
	pilot_isolate(p, 2, true);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(pilot_propose(p, 1, 10), WIRE_OK);
		pilot_wait(p, 1000);
	}
	p->deaf_to[WIRE_MSG_APPEND] = true; /* it is heard, and gets nothing */
	pilot_isolate(p, 2, false);
	for (int i = 0; i < 2000; i++) {
		pilot_wait(p, 1000);
		assert_true(p->n[1].u.transfer_to == 0);
	}
	assert_true(raft_progress_of(p->n[1].raft, 2, &g) && g.match < 50);
	pilot_isolate(p, 2, true);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	for (int i = 0; i < 20; i++) { /* 150 ms there, 400 ms away */
		pilot_isolate(p, 2, i % 2);
		for (int k = 0; k < (i % 2 ? 400 : 150); k++) {
			if (k % 100 == 0) /* an idle group does not look so often */
				assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
			pilot_wait(p, 1000);
			assert_true(p->n[1].u.transfer_to == 0);
		}
	}
	pilot_close(p);
}

/* One that never takes it is tried ever less: proposals are refused for an election timeout each time. */
static void tries_get_rare(void **state)
{
	struct pilot *p = open_with((const int[]){ 100, 200, 100, -1 });
	uint32_t tries = 0, busy_ms = 0;
	bool before = false;

	(void)state;
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true;
	pilot_elect(p, 1);
	for (int i = 0; i < 120000; i++) {
		pilot_wait(p, 1000);
		bool now = p->n[1].u.transfer_to != 0;
		tries += now && !before;
		busy_ms += now;
		before = now;
	}
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(tries >= 5 && tries <= 8); /* after 1.2 s, 2.4 s, 4.8 s, ... */
	assert_true(busy_ms < 3000);
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = false;
	until_leads(p, 2, 80000000, false);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* What somebody asked for is left alone: for a minute if a peer was named, for a while if not. */
static void asked_for(void **state)
{
	struct pilot *p = open_with((const int[]){ 200, 100, 100, -1 });

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	pilot_wait(p, 59000000);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	until_leads(p, 1, 10000000, false);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_OK);
	pilot_run(p);
	assert_int_not_equal(leader_of(p), 1);
	uint64_t took = until_leads(p, 1, 10000000, false);
	assert_true(took > 2500000 && took < 5000000);
	/* The hold is of that transfer: whoever comes to lead otherwise hands over as usual. */
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_run(p);
	pilot_isolate(p, 3, true);
	assert_true(until_leads(p, 1, 5000000, false) < 3000000);
	pilot_close(p);
}

/* Who asks for a transfer and then says what shall come first has changed his mind. */
static void a_later_wish_counts(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	struct raft_config c;

	(void)state;
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	c = *raft_config_current(p->n[3].raft);
	c.m[1].priority = 200;
	assert_int_equal(pilot_change(p, 3, &c), WIRE_OK);
	assert_true(until_leads(p, 2, 5000000, false) < 2000000);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	pilot_close(p);
}

/* Alike, or learners, or witnesses: nothing moves. */
static void nothing_to_do(void **state)
{
	struct raft_config c = { 0 };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vvwl");
	c.m[2].priority = c.m[3].priority = 255;
	p = pilot_open_as(&c, 4);
	pilot_elect(p, 1);
	for (int i = 0; i < 5000; i++) {
		pilot_wait(p, 1000);
		assert_true(p->n[1].u.role == RAFT_LEADER && p->n[1].u.transfer_to == 0);
	}
	/* A change of priority is a change like any other, without a joint configuration. */
	c.m[1].priority = 101;
	assert_int_equal(pilot_change(p, 1, &c), WIRE_OK);
	assert_false(raft_config_current(p->n[1].raft)->joint);
	assert_true(until_leads(p, 2, 5000000, false) < 2000000);
	pilot_close(p);
}

/* 3.10, peer 0: of those that lack little the one with the highest priority. */
static void best_for_a_shutdown(void **state)
{
	struct pilot *p = open_with((const int[]){ 255, 50, 100, 80, -1 });

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_propose(p, 1, 1);
	pilot_isolate(p, 3, true); /* one entry behind, and a moment ago still there */
	pilot_run(p);
	pilot_isolate(p, 3, false);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_OK);
	assert_true(p->n[1].u.transfer_to == 3);
	pilot_close(p);
}

/* A driver with a transaction under way: nothing moves before it asks. */
static void driver_is_asked_first(void **state)
{
	struct pilot *p = open_with((const int[]){ 100, 200, 50, -1 });

	(void)state;
	p->knobs.ask_first = true;
	for (uint64_t id = 1; id <= 3; id++) {
		pilot_stop(p, id);
		pilot_start(p, id);
	}
	pilot_isolate(p, 2, true);
	until_leads(p, 1, 5000000, false);
	pilot_isolate(p, 2, false);
	assert_true(until_leads(p, 2, 5000000, true) >= 5000000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].preferred, 2);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	/* It was for the priority's sake, not for a person's: the next one to lead hands over just the same. */
	pilot_isolate(p, 2, true);
	until_leads(p, 1, 5000000, false);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	p->n[1].preferred = 0;
	pilot_isolate(p, 2, false);
	for (int i = 0; i < 30000 && !p->n[1].preferred; i++)
		pilot_wait(p, 1000);
	assert_int_equal(p->n[1].preferred, 2);
	assert_int_equal(leader_of(p), 1);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_stands_first),
		cmocka_unit_test(first_lacks_something),
		cmocka_unit_test(none_at_all),
		cmocka_unit_test(returns_under_load),
		cmocka_unit_test(returns_to_an_idle_group),
		cmocka_unit_test(not_fit),
		cmocka_unit_test(tries_get_rare),
		cmocka_unit_test(asked_for),
		cmocka_unit_test(a_later_wish_counts),
		cmocka_unit_test(nothing_to_do),
		cmocka_unit_test(best_for_a_shutdown),
		cmocka_unit_test(driver_is_asked_first),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft priorities", tests, NULL, NULL);
}
