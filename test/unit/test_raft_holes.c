/* Holes: entries whose data a disk has lost (raft/holes.c). */
#include "test/unit/raft_pilot.h"
#include "wire/hash.h"

static struct pilot *open_world(uint32_t voters, uint32_t entries)
{
	struct pilot *p = pilot_open_led(voters, 0);

	for (; entries; entries -= entries > 8 ? 8 : entries) {
		pilot_propose(p, 1, entries > 8 ? 8 : entries);
		pilot_wait(p, 60000);
	}
	return p;
}

static bool whole(const struct pilot_node *n)
{
	for (uint64_t i = 1; i <= n->last; i++)
		if (n->log[i].hole)
			return false;
	return true;
}

/* A follower fetches what it lost, from the leader; until that is durable nothing from there on is published. */
static void follower_is_repaired(void **state)
{
	struct pilot *p = open_world(3, 20);

	(void)state;
	pilot_stop(p, 3);
	pilot_damage(p, 3, 10);
	pilot_damage(p, 3, 11);
	pilot_damage(p, 3, 15);
	p->n[3].unpublished = true;
	p->n[3].hold = true;
	pilot_start(p, 3);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TICK });
	assert_int_equal(p->n[3].u.commit, 9);
	pilot_wait(p, 300000);
	assert_true(whole(&p->n[3]));
	assert_int_equal(p->n[3].u.commit, 9);
	for (uint64_t i = 15; i >= 10; i--)
		pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_FILLED, .index = i, .term = 1 });
	assert_int_equal(p->n[3].u.commit, 21);
	assert_int_equal(p->n[3].log[10].sum, p->n[1].log[10].sum);
	assert_int_equal(p->n[3].log[15].size, 100);
	pilot_close(p);
}

/* Each node has one, elsewhere, and nobody leads: they fill each other's, then elect. */
static void everybody_has_one(void **state)
{
	struct pilot *p = open_world(3, 20);

	(void)state;
	for (uint64_t id = 1; id <= 3; id++) {
		pilot_stop(p, id);
		pilot_damage(p, id, 5 * id);
		p->n[id].unpublished = true;
	}
	for (uint64_t id = 1; id <= 3; id++)
		pilot_start(p, id);
	pilot_wait(p, 3000000);
	uint32_t leaders = 0;
	for (uint64_t id = 1; id <= 3; id++) {
		assert_true(whole(&p->n[id]));
		leaders += p->n[id].u.role == RAFT_LEADER;
		assert_true(p->n[id].commit >= 21);
	}
	assert_int_equal(leaders, 1);
	pilot_close(p);
}

/* It does not stand as long as it has one, votes by the log that it has, and acknowledges none of it to a new leader. */
static void votes_but_does_not_stand(void **state)
{
	struct pilot *p = open_world(3, 5);

	(void)state;
	pilot_stop(p, 3);
	pilot_damage(p, 3, 4);
	pilot_start(p, 3);
	pilot_isolate(p, 3, true);
	pilot_wait(p, 3000000);
	assert_int_equal(p->n[3].u.role, RAFT_FOLLOWER);
	pilot_drop_all(p);
	struct wire_msg q = { .type = WIRE_MSG_VOTE_REQ, .from = 2, .to = 3, .term = 2, .index = 4, .log_term = 1 };
	pilot_deliver(p, q);
	assert_true(pilot_find(p, WIRE_MSG_VOTE_RESP, 3, 2)->flags & WIRE_MSG_REJECT);
	q.index = 6;
	q.term = 3;
	pilot_deliver(p, q);
	assert_int_equal(p->n[3].vote, 2);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .from = 2, .to = 3, .term = 3, .commit = 6 });
	assert_int_equal(pilot_find(p, WIRE_MSG_HEARTBEAT_RESP, 3, 2)->index, 3);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND, .from = 2, .to = 3, .term = 3, .index = 6, .log_term = 1 });
	assert_int_equal(pilot_find(p, WIRE_MSG_APPEND_RESP, 3, 2)->index, 3);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_TIMEOUT_NOW, .from = 2, .to = 3, .term = 3, .index = 6, .log_term = 1 });
	assert_int_equal(p->n[3].u.role, RAFT_FOLLOWER);
	pilot_close(p);
}

/* An append that carries the entry fills it, too; another entry at that place does not, it takes the place. */
static void appends_fill_or_replace(void **state)
{
	static const uint8_t data[] = "abc";
	static const uint64_t terms[] = { 1, 1, 1, 1, 1, 1 };

	(void)state;
	for (uint64_t term = 1; term <= 2; term++) {
		struct wire_entry e = { .index = 6, .term = term, .kind = WIRE_ENTRY_DATA, .size = 3, .sum = wire_hash(data, 3, 0), .data = data };
		struct wire_msg m = { .type = WIRE_MSG_APPEND, .from = 1, .to = 3, .term = term, .index = 5, .log_term = 1, .n_entries = 1, .entries = &e };
		struct pilot *p = pilot_open(3, 0);
		pilot_stop(p, 3);
		pilot_log(p, 3, 1, terms, 6);
		pilot_damage(p, 3, 6);
		pilot_start(p, 3);
		pilot_deliver(p, m);
		assert_true(whole(&p->n[3]));
		assert_true(p->n[3].last == 6 && p->n[3].log[6].term == term && p->n[3].log[6].size == 3);
		pilot_drop_all(p);
		pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .from = 1, .to = 3, .term = term, .commit = 6 });
		assert_int_equal(pilot_find(p, WIRE_MSG_HEARTBEAT_RESP, 3, 1)->index, 6);
		pilot_close(p);
	}
}

/* A lone voter has nobody to ask. */
static void nobody_to_ask(void **state)
{
	struct wire_entry e = { .index = 1, .term = 1, .kind = WIRE_ENTRY_DATA };
	uint64_t hole = 1;
	struct raft_init in = { .self = 1, .term = 1, .entries = &e, .n_entries = 1, .holes = &hole, .n_holes = 1 };
	struct wire_err err = { 0 };

	(void)state;
	in.base_config.m[in.base_config.n++] = (struct raft_member){ .id = 1, .flags = RAFT_VOTER };
	assert_null(raft_new(&in, &err));
	assert_int_equal(err.code, WIRE_CORRUPT);
	in.base_config.m[in.base_config.n++] = (struct raft_member){ .id = 2, .flags = RAFT_LEARNER };
	struct raft *r = raft_new(&in, &err);
	assert_non_null(r);
	raft_free(r);
	hole = 2;
	assert_null(raft_new(&in, &err));
	assert_int_equal(err.code, WIRE_INVALID);
}

/* Nobody else has it and it is not committed: the others, a quorum without this node, go on, and it is superseded. */
static void superseded(void **state)
{
	struct pilot *p = open_world(3, 5);

	(void)state;
	/* node 1 appends what comes nowhere */
	pilot_isolate(p, 1, true);
	pilot_propose(p, 1, 1);
	assert_int_equal(p->n[1].last, 7);
	pilot_stop(p, 1);
	pilot_drop_all(p);
	pilot_damage(p, 1, 7);
	pilot_start(p, 1);
	pilot_isolate(p, 1, false);
	pilot_wait(p, 4000000);
	assert_true(whole(&p->n[1]));
	assert_true(p->n[1].commit >= 7 && p->n[1].log[7].term > 1);
	pilot_close(p);
}

/* Committed, and trimmed by all others: an image is needed. */
static void trimmed_elsewhere(void **state)
{
	struct pilot *p = open_world(3, 20);

	(void)state;
	pilot_stop(p, 3);
	pilot_damage(p, 3, 10);
	p->n[3].unpublished = true;
	for (uint64_t id = 1; id <= 2; id++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 15 });
	pilot_start(p, 3);
	pilot_wait(p, 1000000);
	assert_true(p->n[3].u.needs_image);
	struct raft_config c = *raft_config_current(p->n[1].raft);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = 21, .term = 1, .corr = 1, .config = &c });
	assert_int_equal(p->n[3].u.commit, 21);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 15 });
	assert_false(p->n[3].u.needs_image);
	pilot_close(p);
}

/* The same on a witness: it may have an image up to keep_above only, so a new leader that lacks the entry must not hold that for it. */
static void trimmed_elsewhere_for_a_witness(void **state)
{
	struct raft_config c = { 0 };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vvw");
	p = pilot_open_as(&c, 3);
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_propose(p, 1, 20);
	pilot_wait(p, 100000);
	pilot_stop(p, 3);
	pilot_damage(p, 3, 10);
	p->n[3].unpublished = true;
	for (uint64_t id = 1; id <= 2; id++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 15 });
	pilot_stop(p, 1);
	pilot_start(p, 3);
	pilot_elect(p, 2);
	pilot_start(p, 1);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 15 });
	pilot_wait(p, 1000000);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_true(p->n[3].u.needs_image);
	assert_int_equal(p->n[2].u.keep_above, p->n[2].commit);
	assert_int_equal(p->n[3].u.keep_above, p->n[2].commit);
	pilot_close(p);
}

/* A forgetful node with a hole has not all that it may have acknowledged, before it is filled. */
static void forgetful_with_a_hole(void **state)
{
	struct pilot *p = open_world(3, 20);

	(void)state;
	pilot_stop(p, 3);
	pilot_damage(p, 3, 10);
	p->n[3].forgetful = true;
	p->n[3].hold = true;
	pilot_start(p, 3);
	pilot_wait(p, 300000);
	assert_int_equal(pilot_config(p, 1, "vvl"), WIRE_OK);
	pilot_wait(p, 2000000);
	uint64_t last = p->n[1].last;
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = last, .term = 1 });
	pilot_wait(p, 200000);
	assert_true(raft_config_committed(p->n[3].raft) && p->n[3].u.last_index == last && p->n[3].commit == last);
	assert_true(whole(&p->n[3]) && p->n[3].u.forgetful);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_FILLED, .index = 10, .term = 1 });
	assert_false(p->n[3].u.forgetful);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follower_is_repaired),
		cmocka_unit_test(everybody_has_one),
		cmocka_unit_test(votes_but_does_not_stand),
		cmocka_unit_test(appends_fill_or_replace),
		cmocka_unit_test(nobody_to_ask),
		cmocka_unit_test(superseded),
		cmocka_unit_test(trimmed_elsewhere),
		cmocka_unit_test(trimmed_elsewhere_for_a_witness),
		cmocka_unit_test(forgetful_with_a_hole),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft holes", tests, NULL, NULL);
}
