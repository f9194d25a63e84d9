/* Witnesses (raft/witness.c): they vote, keep what data voters lack, never serve, and hand leadership over. */
#include "test/unit/raft_pilot.h"
#include <stdlib.h>
#include <string.h>

static struct pilot *open_as(const char *flags, uint32_t count)
{
	struct raft_config c = { 0 };

	pilot_members(&c, flags);
	return pilot_open_as(&c, count);
}

static struct pilot *open_led(const char *flags, uint32_t count)
{
	struct pilot *p = open_as(flags, count);

	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	assert_true(p->n[1].u.leader_ready);
	return p;
}

static uint64_t keep_of(struct pilot *p, uint64_t id)
{
	return p->n[id].u.keep_above;
}

/* At least one voter must have the database, in both halves. */
static void only_witnesses(void **state)
{
	static const struct { const char *members; int rc; } cases[] = {
		{ "w", WIRE_INVALID }, { "ww", WIRE_INVALID }, { "lww", WIRE_INVALID }, { "xw", WIRE_INVALID }, { "x", WIRE_INVALID },
		{ "vw", WIRE_OK }, { "vww", WIRE_OK }, { "vx", WIRE_OK }, { "lvw", WIRE_OK },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct raft_config c = { 0 };
		pilot_members(&c, cases[i].members);
		assert_int_equal(raft_config_check(&c, NULL), cases[i].rc);
		for (uint32_t k = 0; k < c.n; k++)
			c.m[k].flags |= c.m[k].flags & RAFT_VOTER ? RAFT_VOTER_OLD : 0;
		c.joint = true;
		assert_int_equal(raft_config_check(&c, NULL), cases[i].rc);
	}
	struct raft_config c = { .joint = true };
	pilot_members(&c, "vvw"); /* the outgoing half has the witness alone */
	c.m[2].flags |= RAFT_VOTER_OLD;
	assert_int_equal(raft_config_check(&c, NULL), WIRE_INVALID);
	c.m[1].flags |= RAFT_VOTER_OLD;
	assert_int_equal(raft_config_check(&c, NULL), WIRE_OK);
	pilot_members(&c, "v");
	c.joint = false;
	c.m[0].flags = RAFT_WITNESS;
	assert_int_equal(raft_config_check(&c, NULL), WIRE_INVALID);
}

/* The table's promise: what two of three have, survives whichever data node dies. `last` is the one that got the last write. */
static void data_node_dies(uint64_t dies)
{
	struct pilot *p = open_led("vvw", 3);

	assert_int_equal(pilot_propose(p, 1, 3), WIRE_OK);
	pilot_wait(p, 100000);
	/* Acknowledged by the leader and the witness alone. */
	p->cut[1][2] = p->cut[2][1] = p->cut[2][3] = p->cut[3][2] = true;
	assert_int_equal(pilot_propose(p, 1, 3), WIRE_OK);
	pilot_run(p);
	uint64_t acked = p->n[1].commit, sum = 0;
	assert_int_equal(acked, p->n[1].last);
	assert_true(keep_of(p, 3) <= acked - 3);
	sum = p->n[1].log[acked].sum;
	memset(p->cut, 0, sizeof(p->cut));
	pilot_isolate(p, dies, true);
	uint64_t left = 3 - dies;
	pilot_wait(p, 4000000);
	assert_int_equal(p->n[left].u.role, RAFT_LEADER); /* not the witness */
	assert_true(p->n[left].u.leader_ready);
	assert_true(p->n[left].commit >= acked);
	assert_int_equal(p->n[left].log[acked].sum, sum);
	assert_int_equal(pilot_propose(p, left, 1), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[left].commit, p->n[left].last);
	pilot_close(p);
}

static void leader_dies(void **state)
{
	(void)state;
	data_node_dies(1);
}

static void follower_dies(void **state)
{
	(void)state;
	data_node_dies(2);
}

/* It leads when it alone has all: serves nobody, makes the data voter level, hands over. */
static void witness_leads_to_hand_over(void **state)
{
	struct pilot *p = open_led("vvw", 3);
	bool led = false;

	(void)state;
	pilot_isolate(p, 2, true);
	assert_int_equal(pilot_propose(p, 1, 5), WIRE_OK);
	pilot_run(p);
	uint64_t acked = p->n[1].commit;
	pilot_isolate(p, 2, false);
	pilot_isolate(p, 1, true);
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true; /* to see it */
	for (int i = 0; i < 4000 && p->n[2].u.role != RAFT_LEADER; i++) {
		pilot_wait(p, 1000);
		assert_false(p->n[3].u.leader_ready);
		if (p->n[3].u.role != RAFT_LEADER)
			continue;
		if (!led) {
			assert_int_equal(pilot_propose(p, 3, 1), WIRE_BUSY);
			assert_int_equal(pilot_config(p, 3, "-vw"), WIRE_BUSY);
			assert_non_null(strstr(p->n[3].refusal, "a witness leads"));
			assert_int_equal(p->n[3].u.transfer_to, 2);
			assert_int_equal(p->n[3].commit, p->n[3].last);
		}
		led = true;
		p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = false;
	}
	assert_true(led);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	pilot_wait(p, 300000);
	assert_true(p->n[2].u.leader_ready && p->n[2].commit > acked);
	for (uint64_t i = 1; i <= acked; i++)
		assert_int_equal(p->n[2].log[i].term, p->n[1].log[i].term);
	pilot_close(p);
}

/* Both data voters level and alive: the witness waits longer, one of them leads (I4: by votes all the same). */
static void data_voters_stand_first(void **state)
{
	(void)state;
	for (int turn = 0; turn < 10; turn++) {
		struct pilot *p = open_as("vvw", 3);
		p->now_us += (uint64_t)turn * 977;
		for (int i = 0; i < 3000 && p->n[1].u.role != RAFT_LEADER && p->n[2].u.role != RAFT_LEADER; i++) {
			pilot_wait(p, 1000);
			assert_int_equal(p->n[3].u.role, RAFT_FOLLOWER);
		}
		assert_true(p->n[1].u.leader_ready || p->n[2].u.leader_ready);
		pilot_close(p);
	}
}

/* 3.10: the first target does not take it, so the next one gets it. */
static void next_target(void **state)
{
	struct pilot *p = open_led("vvvww", 5);

	(void)state;
	pilot_isolate(p, 2, true);
	pilot_isolate(p, 3, true);
	assert_int_equal(pilot_propose(p, 1, 5), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	pilot_isolate(p, 1, true);
	pilot_isolate(p, 2, false);
	pilot_isolate(p, 3, false);
	p->cut[1][2] = p->cut[2][1] = p->cut[1][3] = p->cut[3][1] = true;
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = true;
	uint64_t witness = 0, first = 0, second = 0;
	for (int i = 0; i < 6000 && !second; i++) {
		pilot_wait(p, 1000);
		witness = p->n[4].u.role == RAFT_LEADER ? 4 : p->n[5].u.role == RAFT_LEADER ? 5 : 0;
		uint64_t to = witness ? p->n[witness].u.transfer_to : 0;
		if (!first)
			first = to;
		else if (to && to != first)
			second = to;
	}
	assert_true(first && second);
	assert_int_equal(first + second, 5); /* 2 and 3 */
	p->deaf_to[WIRE_MSG_TIMEOUT_NOW] = false;
	pilot_wait(p, 2000000);
	assert_true(p->n[2].u.leader_ready || p->n[3].u.leader_ready);
	pilot_close(p);
}

/* No leadership for a witness by request, and none for a shutdown. */
static void no_transfer_to_a_witness(void **state)
{
	struct pilot *p = open_led("vvw", 3);

	(void)state;
	assert_int_equal(pilot_transfer(p, 1, 3), WIRE_INVALID);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_OK);
	assert_int_equal(p->n[1].u.transfer_to, 2);
	pilot_close(p);
	p = open_led("vw", 2);
	assert_int_equal(pilot_transfer(p, 1, 0), WIRE_INVALID);
	pilot_close(p);
}

/* K: what may be forgotten is committed and durable on every data voter, those of the outgoing half too, and on learners
 * that are there. */
static void what_may_be_forgotten(void **state)
{
	struct pilot *p = open_led("vvwl", 4);

	(void)state;
	pilot_propose(p, 1, 2);
	pilot_wait(p, 200000);
	uint64_t all = p->n[1].last;
	for (uint64_t k = 1; k <= 4; k++)
		assert_int_equal(keep_of(p, k), all);
	pilot_isolate(p, 2, true);
	pilot_propose(p, 1, 2);
	pilot_wait(p, 200000);
	assert_int_equal(p->n[3].commit, all + 2);
	assert_int_equal(keep_of(p, 3), all); /* a data voter lacks it */
	pilot_isolate(p, 2, false);
	pilot_wait(p, 400000);
	assert_int_equal(keep_of(p, 3), all + 2);
	pilot_isolate(p, 4, true);
	pilot_propose(p, 1, 1);
	pilot_wait(p, 300000);
	assert_int_equal(keep_of(p, 3), all + 2); /* the learner was there a moment ago */
	pilot_wait(p, 16000000);
	assert_int_equal(keep_of(p, 3), all + 3); /* and is gone */
	/* The leader's own disk. */
	p->n[1].hold = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	assert_int_equal(p->n[3].last, all + 4);
	assert_int_equal(p->n[3].u.read_index, all + 4); /* committed by two others */
	assert_int_equal(keep_of(p, 3), all + 3);
	p->n[1].hold = false;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	assert_int_equal(keep_of(p, 3), all + 5);
	pilot_close(p);
}

/* A data node is told no more than what every voter has, for however long one is away: it may lead next, and what it has trimmed
 * nobody else could bring that one. The witness, back, is level with the new leader by appends. */
static void a_witness_that_is_away_is_waited_for(void **state)
{
	struct pilot *p = open_led("vvw", 3);

	(void)state;
	pilot_propose(p, 1, 2);
	pilot_wait(p, 200000);
	uint64_t all = p->n[1].last;
	assert_int_equal(keep_of(p, 2), all);
	pilot_isolate(p, 3, true);
	pilot_propose(p, 1, 5);
	pilot_wait(p, 30000000);
	assert_int_equal(p->n[2].commit, all + 5);
	assert_int_equal(keep_of(p, 2), all);
	pilot_isolate(p, 3, false);
	pilot_isolate(p, 1, true);
	pilot_wait(p, 10000000);
	assert_true(p->n[2].u.leader_ready);
	assert_int_equal(p->n[3].commit, p->n[2].last);
	pilot_close(p);
}

/* A data voter that is on its way out holds it until that is committed. */
static void outgoing_voter_counts(void **state)
{
	struct pilot *p = open_led("vvwvv", 5);

	(void)state;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	uint64_t all = p->n[1].last;
	assert_int_equal(keep_of(p, 3), all);
	pilot_isolate(p, 5, true);
	pilot_isolate(p, 2, true); /* so that the joint configuration is not committed: three of the new half's four are needed */
	pilot_isolate(p, 4, true);
	assert_int_equal(pilot_config(p, 1, "vvwv"), WIRE_OK);
	pilot_wait(p, 200000);
	pilot_isolate(p, 2, false);
	pilot_isolate(p, 4, false);
	p->cut[5][2] = p->cut[2][5] = p->cut[4][5] = p->cut[5][4] = true;
	assert_int_equal(keep_of(p, 3), all);
	pilot_wait(p, 500000);
	assert_int_equal(raft_config_current(p->n[3].raft)->n, 4);
	assert_true(keep_of(p, 3) > all); /* number 5 counts no more */
	pilot_close(p);
}

/* It is permanent: a new leader, which knows nothing of the others yet, does not lower it. */
static void kept_over_terms(void **state)
{
	struct pilot *p = open_led("vvw", 3);

	(void)state;
	pilot_propose(p, 1, 3);
	pilot_wait(p, 200000);
	uint64_t all = p->n[1].last;
	assert_int_equal(keep_of(p, 3), all);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = all });
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = all }); /* asserted: not above keep_above */
	pilot_isolate(p, 1, true);
	pilot_wait(p, 2500000);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_int_equal(keep_of(p, 3), all);
	pilot_propose(p, 2, 1);
	pilot_wait(p, 200000);
	assert_int_equal(keep_of(p, 3), all);
	assert_true(p->n[3].commit > all);
	pilot_close(p);
}

/* At its limit it acknowledges nothing more, says so, and is tried again when a data voter that was away has caught up. */
static void full(void **state)
{
	struct raft_config c = { 0 };
	struct pilot *p;
	struct raft_progress g;

	(void)state;
	pilot_members(&c, "vvw");
	p = pilot_open_as(&c, 0);
	p->count = 3;
	p->knobs.keep_log_bytes = 1000; /* ten entries */
	for (uint64_t k = 1; k <= 3; k++) {
		p->n[k].base_config = c;
		pilot_start(p, k);
	}
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	for (int i = 0; i < 30; i++) { /* with all there it never fills up */
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
		pilot_wait(p, 60000);
		assert_int_equal(p->n[1].commit, p->n[1].last);
	}
	pilot_isolate(p, 2, true);
	uint64_t before = p->n[1].last;
	for (int i = 0; i < 15; i++) {
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
		pilot_wait(p, 60000);
	}
	assert_int_equal(p->n[3].last, before + 10);
	assert_int_equal(p->n[1].commit, before + 10);
	assert_true(raft_progress_of(p->n[1].raft, 3, &g));
	assert_true(g.full);
	assert_int_equal(g.match, before + 10);
	/* Only heartbeats go there, and it is heard: the leader stays. */
	pilot_wait(p, 1000000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_drop_all(p);
	pilot_propose(p, 1, 1);
	assert_int_equal(pilot_count(p, WIRE_MSG_APPEND, 1, 3), 0);
	pilot_isolate(p, 2, false);
	pilot_wait(p, 1500000);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	assert_int_equal(p->n[3].last, p->n[1].last);
	raft_progress_of(p->n[1].raft, 3, &g);
	assert_false(g.full);
	pilot_close(p);
}

/* Full of entries that are superseded, it takes those that supersede them. */
static void full_of_what_is_superseded(void **state)
{
	struct raft_config c = { 0 };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vvw");
	p = pilot_open_as(&c, 0);
	p->count = 3;
	p->knobs.keep_log_bytes = 300;
	for (uint64_t k = 1; k <= 3; k++) {
		p->n[k].base_config = c;
		pilot_start(p, k);
	}
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_isolate(p, 2, true);
	p->deaf_to[WIRE_MSG_APPEND_RESP] = p->deaf_to[WIRE_MSG_HEARTBEAT_RESP] = true;
	pilot_propose(p, 1, 5);
	pilot_run(p);
	assert_int_equal(p->n[3].last, 6);
	assert_int_equal(p->n[3].commit, 1);
	/* The witness' log goes: another life of the other two, in a later term, without those five. */
	struct wire_entry e[2] = { { .term = 9, .kind = WIRE_ENTRY_NOOP }, { .term = 9, .kind = WIRE_ENTRY_NOOP } };
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND, .from = 2, .to = 3, .term = 9, .index = 6, .log_term = 1, .n_entries = 1, .entries = e });
	assert_int_equal(p->n[3].last, 6); /* full: not taken */
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND, .from = 2, .to = 3, .term = 9, .index = 1, .log_term = 1, .n_entries = 2, .entries = e });
	assert_int_equal(p->n[3].last, 3);
	assert_int_equal(p->n[3].log[3].term, 9);
	pilot_close(p);
}

/* On the way in and up: learners first, and no joint configuration for what changes no quorum. */
static void promotions(void **state)
{
	struct pilot *p = open_led("vv", 4);
	struct raft_config c = { 0 };

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvw"), WIRE_BUSY); /* never heard of */
	assert_non_null(strstr(p->n[1].refusal, "let it be a learner first"));
	assert_int_equal(pilot_config(p, 1, "vvx"), WIRE_OK);
	pilot_wait(p, 200000);
	assert_int_equal(pilot_config(p, 1, "vvw"), WIRE_OK);
	assert_true(raft_config_current(p->n[1].raft)->joint);
	pilot_wait(p, 200000);
	assert_false(raft_config_current(p->n[1].raft)->joint);
	pilot_members(&c, "vvw");
	c.m[2].flags |= RAFT_RISING;
	assert_int_equal(pilot_change(p, 1, &c), WIRE_OK);
	assert_false(raft_config_current(p->n[1].raft)->joint);
	pilot_wait(p, 200000);
	assert_int_equal(pilot_config(p, 1, "vvv"), WIRE_OK); /* a full replica now */
	assert_false(raft_config_current(p->n[1].raft)->joint);
	pilot_wait(p, 200000);
	assert_int_equal(raft_config_current(p->n[3].raft)->m[2].flags, RAFT_VOTER);
	assert_int_equal(pilot_config(p, 1, "vvw"), WIRE_INVALID); /* and not back */
	assert_non_null(strstr(p->n[1].refusal, "removed and added again"));
	assert_int_equal(pilot_config(p, 1, "vvx"), WIRE_INVALID);
	pilot_close(p);
}

/* K, when a data voter comes in: only with all that witnesses may have forgotten. */
static void new_data_voter(void **state)
{
	struct pilot *p = open_led("vvw", 4);

	(void)state;
	pilot_propose(p, 1, 5);
	pilot_wait(p, 200000);
	assert_int_equal(pilot_config(p, 1, "vvwv"), WIRE_BUSY);
	assert_non_null(strstr(p->n[1].refusal, "let it be a learner until"));
	assert_int_equal(pilot_config(p, 1, "v-wv"), WIRE_BUSY);
	assert_int_equal(pilot_config(p, 1, "vvwl"), WIRE_OK);
	pilot_wait(p, 300000);
	assert_int_equal(pilot_config(p, 1, "v-wv"), WIRE_OK);
	pilot_wait(p, 300000);
	assert_int_equal(raft_config_current(p->n[4].raft)->n, 3);
	assert_true(raft_config_committed(p->n[4].raft));
	pilot_close(p);
}

/* K, when a witness comes in: not while a data voter is behind the beginning of its log. */
static void new_witness(void **state)
{
	struct pilot *p = open_led("vvv", 4);

	(void)state;
	pilot_isolate(p, 3, true);
	pilot_propose(p, 1, 5);
	pilot_wait(p, 200000);
	/* The leader has forgotten what number 3 lacks, and the new one begins there. */
	uint64_t base = p->n[1].commit;
	struct raft_config c = *raft_config_current(p->n[1].raft);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = base });
	struct raft_init in = { .self = 4, .seed = 4, .now_us = p->now_us, .term = 1, .base_index = base, .base_term = 1, .base_config = c, .commit = base };
	pilot_stop(p, 4);
	p->n[4].raft = raft_new(&in, NULL);
	p->n[4].last = base;
	p->n[4].log[base] = p->n[1].log[base];
	assert_int_equal(pilot_config(p, 1, "vvvx"), WIRE_OK);
	pilot_wait(p, 300000);
	assert_int_equal(p->n[4].last, p->n[1].last);
	assert_int_equal(pilot_config(p, 1, "vvvw"), WIRE_BUSY);
	assert_non_null(strstr(p->n[1].refusal, "wait for the member, or remove it"));
	assert_int_equal(pilot_config(p, 1, "vv-w"), WIRE_OK);
	pilot_wait(p, 300000);
	assert_true(raft_config_committed(p->n[4].raft) && !raft_config_current(p->n[4].raft)->joint);
	pilot_close(p);
}

/* A witness leads, and needs another one that lacks what it has forgotten: it leaves that to the data voter, whose log has it. */
static void leaves_what_it_cannot_do(void **state)
{
	struct pilot *p = open_led("vvww", 4);

	(void)state;
	pilot_isolate(p, 4, true);
	pilot_propose(p, 1, 10);
	pilot_wait(p, 40000000);
	uint64_t all = p->n[1].commit;
	assert_int_equal(keep_of(p, 3), all);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = all });
	pilot_stop(p, 1);
	pilot_isolate(p, 4, false);
	for (int i = 0; i < 60 && p->n[3].u.role != RAFT_LEADER; i++)
		pilot_elect(p, 3);
	assert_int_equal(p->n[3].u.role, RAFT_LEADER);
	pilot_wait(p, 20000000);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_true(p->n[2].u.leader_ready);
	assert_int_equal(p->n[4].last, p->n[2].last);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_witnesses),
		cmocka_unit_test(leader_dies),
		cmocka_unit_test(follower_dies),
		cmocka_unit_test(witness_leads_to_hand_over),
		cmocka_unit_test(data_voters_stand_first),
		cmocka_unit_test(next_target),
		cmocka_unit_test(no_transfer_to_a_witness),
		cmocka_unit_test(what_may_be_forgotten),
		cmocka_unit_test(a_witness_that_is_away_is_waited_for),
		cmocka_unit_test(outgoing_voter_counts),
		cmocka_unit_test(kept_over_terms),
		cmocka_unit_test(full),
		cmocka_unit_test(full_of_what_is_superseded),
		cmocka_unit_test(promotions),
		cmocka_unit_test(new_data_voter),
		cmocka_unit_test(new_witness),
		cmocka_unit_test(leaves_what_it_cannot_do),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft witnesses", tests, NULL, NULL);
}
