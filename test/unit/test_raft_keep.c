/* Witnesses and configurations that are undone, or wait: what witnesses may forget (K of raft/witness.c), and how a full one goes on. */
#include "test/unit/raft_pilot.h"
#include <string.h>

static struct pilot *open_led(const char *flags, uint32_t count, uint32_t keep_log_bytes, uint32_t uncommitted_bytes)
{
	struct raft_config c = { 0 };
	struct pilot *p;

	pilot_members(&c, flags);
	p = pilot_open_as(&c, 0);
	p->count = count;
	p->knobs.keep_log_bytes = keep_log_bytes;
	p->knobs.uncommitted_bytes = uncommitted_bytes;
	for (uint64_t k = 1; k <= count; k++) {
		if (raft_config_find(&c, k))
			p->n[k].base_config = c;
		pilot_start(p, k);
	}
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	assert_true(p->n[1].u.leader_ready);
	return p;
}

/* Node 4 is to be a data voter in place of node 2, and was level when node 1 proposed that. Before anybody else has the entry node 2 leads a
 * term, without having got anything committed; then node 1 again, with that configuration. In between the witness was told of nothing
 * that node 4 lacks. */
static void change_survives_a_term_without_it(void **state)
{
	struct pilot *p = open_led("vvwl", 4, 0, 0);

	(void)state;
	pilot_propose(p, 1, 3);
	pilot_wait(p, 200000);
	uint64_t has = p->n[4].last;
	assert_true(has == p->n[1].last && p->n[3].u.keep_above <= has);
	/* What comes now node 4 does not get; the leader waits for it. */
	pilot_isolate(p, 4, true);
	pilot_propose(p, 1, 5);
	pilot_wait(p, 200000);
	uint64_t all = p->n[1].last;
	assert_true(p->n[1].commit == all && p->n[2].commit == all && p->n[3].last == all);
	assert_true(p->n[1].u.keep_above <= has);
	pilot_isolate(p, 1, true);
	struct raft_config c = { 0 };
	pilot_members(&c, "v-wv");
	assert_int_equal(pilot_change(p, 1, &c), WIRE_OK);
	assert_true(raft_config_current(p->n[1].raft)->joint);
	pilot_drop_all(p);
	/* Node 2 leads, and appends get nowhere. Heartbeats do. */
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_elect(p, 2);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	pilot_isolate(p, 1, false);
	pilot_isolate(p, 4, true);
	pilot_wait(p, 200000);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_false(p->n[2].u.leader_ready);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = p->n[3].u.keep_above });
	pilot_isolate(p, 2, true);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_elect(p, 1);
	pilot_wait(p, 300000);
	assert_true(p->n[1].u.leader_ready);
	assert_non_null(raft_config_find(raft_config_current(p->n[1].raft), 4));
	assert_int_equal(raft_config_find(raft_config_current(p->n[1].raft), 4)->flags, RAFT_VOTER);
	assert_true(p->n[3].u.keep_above <= has);
	/* So whichever data node dies, what was acknowledged is there. */
	pilot_isolate(p, 4, false);
	pilot_isolate(p, 1, true);
	pilot_isolate(p, 2, true);
	pilot_wait(p, 8000000);
	assert_true(p->n[4].u.role == RAFT_LEADER && p->n[4].u.leader_ready);
	assert_true(p->n[4].commit > all);
	pilot_close(p);
}

/* A data node is gone for good, and the witness is full of what it lacks. It takes what a change of members, or the first entry of a
 * leader, needs, so that the dead node can be removed; nothing else can be committed before. */
static void dead_member_of_a_full_witness(void **state)
{
	for (int again = 0; again < 2; again++) { /* again: the leader starts anew in between */
		struct pilot *p = open_led("vvw", 4, 1000, 500);
		struct raft_progress g;

		(void)state;
		pilot_isolate(p, 2, true);
		for (int i = 0; i < 30; i++) {
			(void)pilot_propose(p, 1, 1);
			pilot_wait(p, 60000);
		}
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_BUSY);
		uint64_t held = p->n[3].last, last = p->n[1].last;
		assert_true(last > held && p->n[1].commit == held);
		assert_true(raft_progress_of(p->n[1].raft, 3, &g) && g.full);
		if (again) {
			pilot_stop(p, 1);
			pilot_start(p, 1);
			pilot_wait(p, 5000000);
			assert_true(p->n[1].u.role == RAFT_LEADER && p->n[1].u.leader_ready);
			assert_true(p->n[1].commit > last && p->n[3].last == p->n[1].last);
			/* that was all: what is proposed now waits again */
			assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
			pilot_wait(p, 2000000);
			assert_true(p->n[1].commit < p->n[1].last);
		}
		last = p->n[1].last;
		assert_int_equal(pilot_config(p, 1, "v-w"), WIRE_OK);
		pilot_wait(p, 2000000);
		assert_true(p->n[1].commit > last && raft_config_committed(p->n[1].raft) && !raft_config_current(p->n[1].raft)->joint);
		assert_int_equal(p->n[3].u.keep_above, p->n[1].commit);
		assert_true(raft_progress_of(p->n[1].raft, 3, &g) && !g.full);
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
		pilot_wait(p, 200000);
		assert_int_equal(p->n[1].commit, p->n[1].last);
		pilot_close(p);
	}
}

/* A data voter that takes a witness' place must have what that one may have forgotten, too: it counts until it is gone. */
static void data_voter_in_place_of_a_witness(void **state)
{
	struct pilot *p = open_led("vvwl", 4, 0, 0);

	(void)state;
	pilot_isolate(p, 4, true);
	pilot_propose(p, 1, 5);
	pilot_wait(p, 20000000); /* a learner is not waited for for ever */
	assert_true(p->n[3].u.keep_above > p->n[4].last);
	assert_int_equal(pilot_config(p, 1, "vv-v"), WIRE_BUSY);
	assert_non_null(strstr(p->n[1].refusal, "let it be a learner"));
	pilot_isolate(p, 4, false);
	pilot_wait(p, 4000000);
	assert_int_equal(pilot_config(p, 1, "vv-v"), WIRE_OK);
	pilot_wait(p, 1000000);
	assert_true(raft_config_committed(p->n[4].raft) && !raft_config_current(p->n[4].raft)->joint);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(change_survives_a_term_without_it),
		cmocka_unit_test(dead_member_of_a_full_witness),
		cmocka_unit_test(data_voter_in_place_of_a_witness),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft, what witnesses keep", tests, NULL, NULL);
}
