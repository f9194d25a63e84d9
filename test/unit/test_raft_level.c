/* Feature levels (raft/level.c), and what removed members are told. */
#include "test/unit/raft_pilot.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

/* count nodes with a configuration of that level; programs know up to levels[id - 1]. */
static struct pilot *open_at(const char *flags, uint32_t count, uint8_t level, const uint32_t *levels)
{
	struct raft_config c = { 0 };
	struct pilot *p;

	pilot_members(&c, flags);
	c.level = level;
	p = pilot_open_as(&c, 0);
	p->count = count;
	for (uint32_t id = 1; id <= count; id++) {
		if (raft_config_find(&c, id))
			p->n[id].base_config = c;
		p->knobs.level = levels[id - 1];
		pilot_start(p, id);
	}
	return p;
}

static uint8_t level_of(struct pilot *p, uint64_t id)
{
	return raft_config_current(p->n[id].raft)->level;
}

/* Raised once the last member has been upgraded, not before; what needs it is refused until then, and says who lacks it. */
static void rolling_upgrade(void **state)
{
	static const uint32_t old[] = { 1, 1, 1, 1 };
	struct pilot *p = open_at("vvvl", 4, 1, old);
	struct raft_config c = { 0 };
	struct raft_progress g;

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 200000);
	p->knobs.level = 2;
	for (uint64_t id = 4; id >= 1; id--) {
		for (uint64_t k = 1; k <= 4; k++) {
			assert_int_equal(level_of(p, k), 1);
			assert_int_equal(p->n[k].u.level, 1);
		}
		if (id == 1) {
			pilot_members(&c, "vvvl");
			c.quorums.commit = 2;
			assert_int_equal(pilot_change(p, 1, &c), WIRE_VERSION);
			assert_true(p->n[1].u.proposal_member == 1);
			assert_non_null(strstr(p->n[1].refusal, "member 1 "));
			assert_true(raft_progress_of(p->n[1].raft, 2, &g) && g.level == 2);
		}
		pilot_stop(p, id);
		pilot_start(p, id);
		pilot_wait(p, 200000);
	}
	pilot_wait(p, 3000000);
	for (uint64_t k = 1; k <= 4; k++) {
		assert_int_equal(level_of(p, k), 2);
		assert_int_equal(p->n[k].u.level, 2);
	}
	uint64_t leader = p->n[1].u.leader;
	assert_int_equal(pilot_change(p, leader, &c), WIRE_OK);
	assert_int_equal(level_of(p, leader), 2);
	pilot_close(p);
}

/* One that is down has announced nothing to this leader, so nothing is raised; the refusal names it. */
static void one_is_away(void **state)
{
	static const uint32_t levels[] = { 2, 2, 2, 2 };
	struct pilot *p = open_at("vvv", 4, 1, levels);

	(void)state;
	pilot_isolate(p, 3, true);
	pilot_elect(p, 1);
	pilot_wait(p, 500000);
	assert_int_equal(level_of(p, 1), 1);
	assert_int_equal(pilot_config(p, 1, "vvvx"), WIRE_VERSION);
	assert_true(p->n[1].u.proposal_member == 3);
	assert_non_null(strstr(p->n[1].refusal, "has not told"));
	pilot_isolate(p, 3, false);
	p->deaf_to[WIRE_MSG_APPEND_RESP] = true; /* so that it is not committed at once */
	for (int i = 0; i < 1000 && level_of(p, 1) == 1; i++)
		pilot_wait(p, 1000);
	assert_int_equal(level_of(p, 1), 2);
	assert_int_equal(p->n[1].last, 2); /* one entry, and no joint configuration */
	p->deaf_to[WIRE_MSG_APPEND_RESP] = false;
	pilot_wait(p, 300000);
	assert_int_equal(p->n[1].u.level, 2);
	assert_int_equal(pilot_config(p, 1, "vvvx"), WIRE_OK);
	pilot_close(p);
}

/* It is not lowered by who asks with a lower one. */
static void never_lowered(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);
	struct raft_config c = { 0 };

	(void)state;
	pilot_members(&c, "vvvl");
	c.level = 0;
	assert_int_equal(pilot_change(p, 1, &c), WIRE_OK);
	assert_int_equal(level_of(p, 1), RAFT_LEVEL);
	pilot_close(p);
}

/* A program that is too old does not start on such a log, nor go on when it gets one: nothing is acknowledged. */
static void too_old(void **state)
{
	struct raft_config c = { 0 };
	struct raft_init in = { .self = 2, .now_us = 1, .term = 1, .level = 1 };
	struct wire_err err = { 0 };
	struct wire_buf b = WIRE_BUF_INIT;
	struct raft_update u;

	(void)state;
	pilot_members(&c, "vv");
	in.base_config = c;
	assert_null(raft_new(&in, &err));
	assert_int_equal(err.code, WIRE_VERSION);
	assert_non_null(strstr(err.text, "upgrade walraft"));
	in.base_config.level = 1;
	struct wire_entry e = { .index = 1, .term = 1, .kind = WIRE_ENTRY_CONFIG };
	struct raft_log_config lc = { .index = 1, .config = c };
	in.entries = &e;
	in.configs = &lc;
	in.n_entries = in.n_configs = 1;
	assert_null(raft_new(&in, &err));
	assert_int_equal(err.code, WIRE_VERSION);
	in.n_entries = in.n_configs = 0;
	struct raft *r = raft_new(&in, &err);
	assert_non_null(r);
	raft_config_put(&c, &b);
	e.data = b.data;
	e.size = (uint32_t)b.len;
	e.sum = wire_hash(b.data, b.len, 0);
	struct wire_msg m = { .type = WIRE_MSG_APPEND, .from = 1, .to = 2, .term = 1, .n_entries = 1, .entries = &e };
	assert_int_equal(raft_step(r, &(struct raft_event){ .type = RAFT_EV_MESSAGE, .now_us = 2, .msg = &m }, &u, &err), WIRE_VERSION);
	assert_non_null(strstr(err.text, "upgrade walraft"));
	raft_free(r);
	/* Nor when an image brings it. */
	r = raft_new(&in, &err);
	assert_non_null(r);
	assert_int_equal(raft_step(r, &(struct raft_event){ .type = RAFT_EV_IMAGE, .now_us = 2, .index = 5, .term = 1, .corr = 1, .config = &c }, &u, &err),
	                 WIRE_VERSION);
	raft_free(r);
	/* Above what any program of this version knows: told as such, not as damage. */
	b.data[2] = RAFT_LEVEL + 1;
	b.data[b.len - 1] ^= 0xff;
	assert_int_equal(raft_config_get(b.data, b.len, &c, &err), WIRE_VERSION);
	wire_buf_free(&b);
}

/* A learner that knows too little is seen in the progress, is sent nothing, and is not promoted. */
static void learner_too_old(void **state)
{
	static const uint32_t levels[] = { 2, 2, 2, 1 };
	struct pilot *p = open_at("vvv", 4, 2, levels);
	struct raft_progress g;

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 200000);
	p->deaf_to[WIRE_MSG_APPEND] = true; /* it would stop at the first one, but heartbeats are first here */
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	pilot_wait(p, 200000);
	assert_true(raft_progress_of(p->n[1].raft, 4, &g));
	assert_int_equal(g.level, 1);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_propose(p, 1, 1);
	assert_int_equal(pilot_count(p, WIRE_MSG_APPEND, 1, 4), 0);
	pilot_wait(p, 500000);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	assert_int_equal(pilot_config(p, 1, "vvvv"), WIRE_VERSION);
	assert_true(p->n[1].u.proposal_member == 4);
	assert_int_equal(pilot_config(p, 1, "vvv"), WIRE_OK);
	pilot_close(p);
}

/* Removed members are told when they ask for votes; a leader's word ends it, and who may be elected is not changed. */
static void removed_is_told(void **state)
{
	struct pilot *p = pilot_open_led(4, 0);

	(void)state;
	pilot_isolate(p, 4, true);
	assert_int_equal(pilot_config(p, 1, "vvv"), WIRE_OK);
	pilot_wait(p, 300000);
	assert_false(p->n[4].u.removed);
	pilot_isolate(p, 4, false);
	for (int i = 0; i < 3000 && !p->n[4].u.removed; i++)
		pilot_wait(p, 1000);
	assert_true(p->n[4].u.removed);
	assert_true(p->n[4].u.deadline_us != UINT64_MAX); /* it goes on asking */
	for (uint64_t k = 1; k <= 3; k++)
		assert_false(p->n[k].u.removed);
	assert_int_equal(p->n[1].u.term, 1);
	assert_int_equal(pilot_config(p, 1, "vvvv"), WIRE_OK);
	pilot_wait(p, 600000);
	assert_false(p->n[4].u.removed);
	assert_true(p->n[4].u.leader != 0);
	pilot_close(p);
}

/* A leader that removes itself sees it in its own log. */
static void removed_by_its_own_log(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "-vv"), WIRE_OK);
	pilot_run(p);
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	assert_true(p->n[1].u.removed);
	assert_false(p->n[2].u.removed);
	pilot_close(p);
}

/* Nobody refuses a vote that is not a refusal: a stranger that is ahead may be a member by what is not known here. */
static void strangers_may_win(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	p->now_us += 1000000;
	struct wire_msg m = { .type = WIRE_MSG_PREVOTE_REQ, .from = 9, .to = 2, .term = 3, .corr = 5, .index = 99, .log_term = 2 };
	pilot_deliver(p, m);
	assert_int_equal(pilot_find(p, WIRE_MSG_PREVOTE_RESP, 2, 9)->flags, 0);
	m.log_term = 0;
	m.index = 0;
	pilot_deliver(p, m);
	assert_int_equal(pilot_find(p, WIRE_MSG_PREVOTE_RESP, 2, 9)->flags, WIRE_MSG_REJECT | WIRE_MSG_REMOVED);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rolling_upgrade),
		cmocka_unit_test(one_is_away),
		cmocka_unit_test(never_lowered),
		cmocka_unit_test(too_old),
		cmocka_unit_test(learner_too_old),
		cmocka_unit_test(removed_is_told),
		cmocka_unit_test(removed_by_its_own_log),
		cmocka_unit_test(strangers_may_win),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft feature levels", tests, NULL, NULL);
}
