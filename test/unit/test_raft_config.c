/* Configuration changes (thesis 4.2, 4.3; I13) and reads (thesis 6.4; I7). */
#include "test/unit/raft_pilot.h"
#include <stdlib.h>
#include <string.h>

static void bytes_round_trip(void **state)
{
	struct raft_config c = { .joint = true, .n = 2 }, d;
	struct wire_buf b = WIRE_BUF_INIT;

	(void)state;
	c.m[0] = (struct raft_member){ .id = 7, .flags = RAFT_VOTER | RAFT_VOTER_OLD, .url = "tcp://127.0.0.1:7401" };
	c.m[1] = (struct raft_member){ .id = UINT64_MAX, .flags = RAFT_LEARNER };
	raft_config_put(&c, &b);
	assert_false(b.failed);
	assert_int_equal(raft_config_get(b.data, b.len, &d, NULL), WIRE_OK);
	assert_memory_equal(&c, &d, sizeof(c));
	for (size_t n = 0; n < b.len; n++)
		assert_int_not_equal(raft_config_get(b.data, n, &d, NULL), WIRE_OK);
	b.data[1] = 0; /* OLD without joint */
	assert_int_equal(raft_config_get(b.data, b.len, &d, NULL), WIRE_CORRUPT);
	b.data[0] = 9;
	assert_int_equal(raft_config_get(b.data, b.len, &d, NULL), WIRE_VERSION);
	wire_buf_free(&b);
}

/* A learner joins by a simple entry, gets the log, and counts for nothing. */
static void learner(void **state)
{
	struct pilot *p = pilot_open(1, 1);

	(void)state;
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TICK });
	assert_int_equal(pilot_config(p, 1, "vl"), WIRE_OK);
	assert_true(p->n[1].u.config_changed);
	assert_false(raft_config_current(p->n[1].raft)->joint);
	assert_true(raft_config_committed(p->n[1].raft)); /* without its ack */
	pilot_wait(p, 200000);
	assert_int_equal(p->n[2].commit, p->n[1].commit);
	assert_int_equal(p->n[2].u.leader, 1);
	p->cut[1][2] = p->cut[2][1] = true;
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	pilot_wait(p, 2000000);
	assert_int_equal(p->n[2].u.role, RAFT_FOLLOWER); /* it never stands */
	assert_int_equal(p->n[2].u.leader, 0);
	assert_int_equal(p->n[2].u.term, p->n[1].u.term);
	pilot_close(p);
}

/* 4.3: while joint, both majorities are needed; the final configuration follows by itself. */
static void joint_needs_both(uint32_t side)
{
	struct pilot *p = pilot_open(3, 2);

	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	assert_int_equal(pilot_config(p, 1, "v--vv"), WIRE_OK);
	assert_true(raft_config_current(p->n[1].raft)->joint);
	p->cut[1][side] = p->cut[1][side + 1] = true;
	pilot_wait(p, 100000);
	assert_int_equal(p->n[1].commit, 1); /* the other side's majority alone */
	assert_int_equal(pilot_config(p, 1, "vvv"), WIRE_BUSY);
	p->cut[1][side] = false;
	pilot_wait(p, 300000);
	assert_false(raft_config_current(p->n[1].raft)->joint);
	assert_true(raft_config_committed(p->n[1].raft));
	assert_int_equal(raft_config_current(p->n[4].raft)->n, 3);
	/* 2 and 3 are out; 4 or 5 is enough */
	p->cut[1][2] = p->cut[1][3] = p->cut[1][5] = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 100000);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	pilot_close(p);
}

static void joint_needs_old_majority(void **state)
{
	(void)state;
	joint_needs_both(2);
}

static void joint_needs_new_majority(void **state)
{
	(void)state;
	joint_needs_both(4);
}

/* 4.2.2: a leader that is not in the new configuration leads until that is committed, and then steps down. */
static void removed_leader_steps_down(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	assert_int_equal(pilot_config(p, 1, "-vv"), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	assert_int_equal(raft_config_current(p->n[2].raft)->n, 2);
	assert_true(raft_config_committed(p->n[2].raft));
	pilot_wait(p, 2000000);
	assert_true(p->n[2].u.role == RAFT_LEADER || p->n[3].u.role == RAFT_LEADER);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	pilot_close(p);
}

/* 4.1, raft#323: a configuration goes together with its entry. */
static void rolled_back_with_its_entry(void **state)
{
	struct pilot *p = pilot_open(3, 2);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	for (uint64_t k = 2; k <= 5; k++)
		p->cut[1][k] = p->cut[k][1] = true;
	assert_int_equal(pilot_config(p, 1, "vvvvv"), WIRE_OK);
	assert_int_equal(raft_config_current(p->n[1].raft)->n, 5);
	pilot_wait(p, 1500000);
	assert_true(p->n[2].u.role == RAFT_LEADER || p->n[3].u.role == RAFT_LEADER);
	memset(p->cut, 0, sizeof(p->cut));
	pilot_wait(p, 500000);
	assert_int_equal(raft_config_current(p->n[1].raft)->n, 3);
	assert_true(raft_config_committed(p->n[1].raft));
	pilot_close(p);
}

/* 4.2.2: the node whose log reaches furthest is left out by an entry that is not committed: it must be able to lead. */
static void left_out_but_needed(void **state)
{
	struct pilot *p = pilot_open(2, 2);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	assert_int_equal(pilot_config(p, 1, "-vvv"), WIRE_OK);
	for (int i = 0; i < 1000 && raft_config_current(p->n[1].raft)->n != 3; i++) {
		/* until the joint one is committed and the final one is in node 1's log alone */
		struct wire_msg m = p->q[0].m;
		struct wire_entry *mine = p->q[0].entries;
		assert_true(p->n_q > 0);
		memmove(p->q, p->q + 1, --p->n_q * sizeof(p->q[0]));
		pilot_deliver(p, m);
		free(mine);
	}
	assert_int_equal(raft_config_current(p->n[1].raft)->n, 3);
	pilot_drop_all(p);
	for (uint64_t k = 1; k <= 4; k++) {
		pilot_stop(p, k);
		pilot_start(p, k);
	}
	pilot_wait(p, 5000000);
	assert_int_equal(raft_config_current(p->n[2].raft)->n, 3);
	assert_true(raft_config_committed(p->n[2].raft));
	pilot_close(p);
}

/* I13, and what cannot be. */
static void refused_changes(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct raft_config c = { .n = 2 };

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvv"), WIRE_NOTLEADER);
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_elect(p, 1);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(pilot_config(p, 1, "vvl"), WIRE_BUSY); /* no entry of this term is committed */
	assert_int_equal(pilot_config(p, 1, ""), WIRE_INVALID);
	assert_int_equal(pilot_config(p, 1, "lll"), WIRE_INVALID);
	c.m[0] = c.m[1] = (struct raft_member){ .id = 1, .flags = RAFT_VOTER };
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &c });
	assert_int_equal(p->n[1].u.proposal_code, WIRE_INVALID);
	pilot_close(p);
}

/* Sizes of quorums that need not meet are refused, with numbers that help. */
static void sizes_that_need_not_meet(void **state)
{
	static const struct { const char *members; struct raft_quorums q; const char *why; } cases[] = {
		{ "vvvvv", { 0, 0 }, NULL }, { "vvvvv", { 2, 4 }, NULL }, { "vvvvv", { 4, 3 }, NULL }, { "vvvvv", { 1, 5 }, NULL },
		{ "vvvvv", { 5, 3 }, NULL }, { "vvvv", { 2, 3 }, NULL }, { "v", { 1, 1 }, NULL }, { "vvvl", { 1, 3 }, NULL },
		{ "vvvvv", { 2, 3 }, "choose 4 for elections, or 3 for commits" },
		{ "vvvvv", { 1, 0 }, "choose 5 for elections, or 3 for commits" },
		{ "vvvvv", { 4, 2 }, "two leaders at once; choose at least 3" },
		{ "vvvv", { 3, 2 }, "two leaders at once; choose at least 3" },
		{ "vvvl", { 4, 0 }, "commits by 4 voters, but there are only 3" },
		{ "vvv", { 0, 4 }, "elections by 4 voters, but there are only 3" },
		{ "vll", { 2, 0 }, "there is only 1" },
	};
	struct wire_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct raft_config c = { .quorums = cases[i].q };
		pilot_members(&c, cases[i].members);
		int rc = raft_config_check(&c, &err);
		if (rc != (cases[i].why ? WIRE_INVALID : WIRE_OK) || (rc && !strstr(err.text, cases[i].why)))
			fail_msg("case %zu: %d, %s", i, rc, rc ? err.text : "");
		/* Every pair of sizes: allowed if and only if the quorums meet. */
		uint32_t n = raft_config_voters(&c, false);
		for (uint8_t commit = 1; commit <= n; commit++) {
			for (uint8_t elect = 1; elect <= n; elect++) {
				c.quorums = (struct raft_quorums){ commit, elect };
				assert_int_equal(raft_config_check(&c, NULL) == WIRE_OK, commit + elect > n && 2 * elect > n);
			}
		}
		c.joint = true; /* the outgoing half is asked too */
		c.quorums = (struct raft_quorums){ 0 };
		c.old_quorums = cases[i].q;
		for (uint32_t k = 0; k < c.n; k++)
			c.m[k].flags |= c.m[k].flags & RAFT_VOTER ? RAFT_VOTER_OLD : 0;
		assert_int_equal(raft_config_check(&c, NULL), cases[i].why ? WIRE_INVALID : WIRE_OK);
	}
}

/* Commits by two of five, elections by four: each takes its own number, leases and CheckQuorum those of commits. */
static void commits_by_few(void **state)
{
	struct raft_config c = { .quorums = { 2, 4 } };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vvvvv");
	p = pilot_open_as(&c, 5);
	pilot_isolate(p, 4, true);
	pilot_isolate(p, 5, true);
	pilot_elect(p, 1);
	pilot_wait(p, 2000000);
	for (uint64_t k = 1; k <= 5; k++)
		assert_int_not_equal(p->n[k].u.role, RAFT_LEADER); /* three votes are not enough */
	pilot_close(p);
	p = pilot_open_as(&c, 5);
	pilot_isolate(p, 5, true);
	pilot_elect(p, 1);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_wait(p, 100000);
	for (uint64_t k = 3; k <= 5; k++)
		pilot_isolate(p, k, true);
	pilot_wait(p, 2000000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(p->n[1].u.lease_until_us > p->now_us);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_read(p, 1, 7);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	assert_int_equal(pilot_settled(p, 1, 7)->code, WIRE_OK);
	pilot_isolate(p, 2, true);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_wait(p, 700000);
	assert_true(p->n[1].commit < p->n[1].last);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	pilot_close(p);
}

/* The other way round: commits by four need four, elections three; whoever is elected by three has it all. */
static void commits_by_many(void **state)
{
	struct raft_config c = { .quorums = { 4, 3 } };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vvvvv");
	p = pilot_open_as(&c, 5);
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_isolate(p, 4, true);
	pilot_isolate(p, 5, true);
	uint64_t before = p->n[1].commit;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 100000);
	assert_int_equal(p->n[1].commit, before);
	pilot_wait(p, 600000); /* CheckQuorum: it could commit nothing */
	assert_int_not_equal(p->n[1].u.lease_until_us > p->now_us, true);
	pilot_isolate(p, 4, false);
	pilot_wait(p, 3000000);
	for (uint64_t k = 1; k <= 4; k++)
		assert_true(p->n[k].commit > before + 1);
	pilot_close(p);
}

/* A change of sizes is a change of quorums: through a joint configuration, by the sizes of either half. */
static void sizes_change_jointly(void **state)
{
	struct raft_config c = { 0 };
	struct pilot *p = pilot_open_led(5, 0);

	(void)state;
	pilot_members(&c, "vvvvv");
	c.quorums = (struct raft_quorums){ 3, 3 }; /* the same as majorities */
	assert_int_equal(pilot_change(p, 1, &c), WIRE_OK);
	assert_false(raft_config_current(p->n[1].raft)->joint);
	pilot_wait(p, 100000);
	for (uint64_t k = 4; k <= 5; k++)
		pilot_isolate(p, k, true);
	c.quorums = (struct raft_quorums){ 4, 3 };
	assert_int_equal(pilot_change(p, 1, &c), WIRE_OK);
	assert_true(raft_config_current(p->n[1].raft)->joint);
	pilot_wait(p, 100000);
	assert_true(raft_config_current(p->n[1].raft)->joint); /* the new half wants four */
	pilot_isolate(p, 4, false);
	pilot_wait(p, 2000000);
	for (uint64_t k = 1; k <= 4; k++) {
		assert_false(raft_config_current(p->n[k].raft)->joint);
		assert_int_equal(raft_config_current(p->n[k].raft)->quorums.commit, 4);
		assert_int_equal(raft_config_current(p->n[k].raft)->old_quorums.commit, 0);
		assert_true(raft_config_committed(p->n[k].raft));
	}
	pilot_close(p);
}

/* Sizes that fitted five voters do not fit six, nor three. */
static void voters_that_do_not_fit_the_sizes(void **state)
{
	struct raft_config c = { .quorums = { 2, 4 } };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vvvvv");
	p = pilot_open_as(&c, 6);
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_members(&c, "vvvvvv");
	assert_int_equal(pilot_change(p, 1, &c), WIRE_INVALID);
	assert_non_null(strstr(p->n[1].refusal, "choose 5 for elections, or 3 for commits"));
	pilot_members(&c, "vvv");
	assert_int_equal(pilot_change(p, 1, &c), WIRE_INVALID);
	assert_non_null(strstr(p->n[1].refusal, "elections by 4 voters"));
	pilot_members(&c, "vvvvvl");
	assert_int_equal(pilot_change(p, 1, &c), WIRE_OK);
	pilot_close(p);
}

/* 6.4: a read costs one round; reads that come while one runs share the next. */
static void reads_share_rounds(void **state)
{
	struct pilot *p = pilot_open_no_leases(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_drop_all(p);
	pilot_read(p, 1, 10);
	for (uint64_t k = 11; k < 15; k++)
		pilot_read(p, 1, k);
	assert_int_equal(pilot_count(p, WIRE_MSG_HEARTBEAT, 1, 0), 2);
	assert_null(pilot_settled(p, 1, 10));
	pilot_run(p);
	for (uint64_t k = 10; k < 15; k++) {
		assert_int_equal(pilot_settled(p, 1, k)->code, WIRE_OK);
		assert_int_equal(pilot_settled(p, 1, k)->index, 1);
	}
	pilot_close(p);
}

/* 6.4, etcd#20418: answers to an earlier round, late or repeated, satisfy nobody. */
static void late_answers_satisfy_nobody(void **state)
{
	struct pilot *p = pilot_open_no_leases(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_read(p, 1, 1);
	uint64_t first = pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2)->corr;
	pilot_run(p);
	assert_non_null(pilot_settled(p, 1, 1));
	pilot_read(p, 1, 2);
	pilot_drop_all(p);
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT_RESP, .from = 2, .to = 1, .term = 1, .corr = first };
	for (int i = 0; i < 3; i++) {
		pilot_deliver(p, m);
		m.from = 5 - m.from;
	}
	assert_null(pilot_settled(p, 1, 2));
	m.corr = first + 1;
	m.term = 0;
	pilot_deliver(p, m);
	assert_null(pilot_settled(p, 1, 2));
	m.corr = first + 7; /* a round that has not begun */
	m.term = 1;
	pilot_deliver(p, m);
	assert_null(pilot_settled(p, 1, 2));
	m.corr = first + 1;
	pilot_deliver(p, m);
	assert_int_equal(pilot_settled(p, 1, 2)->code, WIRE_OK);
	pilot_close(p);
}

/* 6.4 step 1, rqlite#1944: a new leader serves no read before an entry of its own term is committed. */
static void new_leader_waits_with_reads(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_propose(p, 1, 2);
	pilot_run(p);
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_elect(p, 2);
	assert_int_equal(p->n[2].u.role, RAFT_LEADER);
	assert_false(p->n[2].u.leader_ready);
	assert_int_equal(p->n[2].commit, 1); /* it does not know that 3 is committed */
	pilot_read(p, 2, 1);
	pilot_run(p);
	assert_null(pilot_settled(p, 2, 1));
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_wait(p, 250000);
	assert_int_equal(pilot_settled(p, 2, 1)->code, WIRE_OK);
	assert_int_equal(pilot_settled(p, 2, 1)->index, 4);
	pilot_close(p);
}

/* An old leader that is cut off settles no read; at step-down they fail. */
static void cut_off_leader_serves_no_read(void **state)
{
	struct pilot *p = pilot_open_no_leases(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	for (uint64_t k = 2; k <= 3; k++)
		p->cut[1][k] = p->cut[k][1] = true;
	pilot_wait(p, 200000);
	pilot_read(p, 1, 5);
	pilot_wait(p, 50000);
	assert_null(pilot_settled(p, 1, 5));
	pilot_wait(p, 400000);
	assert_int_equal(pilot_settled(p, 1, 5)->code, WIRE_NOTLEADER);
	pilot_read(p, 1, 6);
	assert_int_equal(pilot_settled(p, 1, 6)->code, WIRE_NOTLEADER);
	pilot_close(p);
}

/* A follower asks the leader; a lost request is repeated; unanswered for an election timeout it fails. */
static void follower_reads(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_propose(p, 1, 1);
	pilot_run(p);
	pilot_read(p, 2, 1);
	pilot_read(p, 2, 2);
	pilot_run(p);
	assert_int_equal(pilot_settled(p, 2, 1)->index, 2);
	assert_int_equal(pilot_settled(p, 2, 2)->code, WIRE_OK);
	p->deaf_to[WIRE_MSG_READ_REQ] = true;
	pilot_read(p, 2, 3);
	pilot_run(p);
	p->deaf_to[WIRE_MSG_READ_REQ] = false;
	pilot_wait(p, 60000);
	assert_int_equal(pilot_settled(p, 2, 3)->code, WIRE_OK);
	p->deaf_to[WIRE_MSG_READ_RESP] = true;
	pilot_read(p, 2, 4);
	pilot_wait(p, 299000);
	assert_null(pilot_settled(p, 2, 4));
	pilot_wait(p, 2000);
	assert_int_equal(pilot_settled(p, 2, 4)->code, WIRE_TIMEOUT);
	pilot_close(p);
}

/* When the leader loses its place, it says so to those who asked. */
static void waiting_followers_are_told(void **state)
{
	struct pilot *p = pilot_open_no_leases(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_read(p, 2, 9);
	p->deaf_to[WIRE_MSG_HEARTBEAT] = true;
	pilot_run(p);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT_RESP, .from = 3, .to = 1, .term = 5, .flags = WIRE_MSG_REJECT });
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	pilot_run(p);
	assert_int_equal(pilot_settled(p, 2, 9)->code, WIRE_NOTLEADER);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_round_trip),
		cmocka_unit_test(learner),
		cmocka_unit_test(joint_needs_old_majority),
		cmocka_unit_test(joint_needs_new_majority),
		cmocka_unit_test(removed_leader_steps_down),
		cmocka_unit_test(rolled_back_with_its_entry),
		cmocka_unit_test(left_out_but_needed),
		cmocka_unit_test(refused_changes),
		cmocka_unit_test(sizes_that_need_not_meet),
		cmocka_unit_test(commits_by_few),
		cmocka_unit_test(commits_by_many),
		cmocka_unit_test(sizes_change_jointly),
		cmocka_unit_test(voters_that_do_not_fit_the_sizes),
		cmocka_unit_test(reads_share_rounds),
		cmocka_unit_test(late_answers_satisfy_nobody),
		cmocka_unit_test(new_leader_waits_with_reads),
		cmocka_unit_test(cut_off_leader_serves_no_read),
		cmocka_unit_test(follower_reads),
		cmocka_unit_test(waiting_followers_are_told),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft configurations and reads", tests, NULL, NULL);
}
