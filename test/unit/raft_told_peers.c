/* Scenarios of test_raft_telemetry: how the leader sees its peers, who lacks something, members, leadership. */
#include "test/unit/raft_told.h"
#include <string.h>

/* ---- peers ---- */

void told_replication(void **state)
{
	struct pilot *p = told_open_with(3, (struct raft_init){ .append_max_bytes = 200, .window_bytes = 3200 });

	(void)state;
	assert_true(told_must(1, RAFT_TOLD_PEER_REPLICATE)->v[1] >= 1 && told_must(1, RAFT_TOLD_PEER_LEVEL)->v[0] == RAFT_LEVEL);
	assert_int_equal(told_times(1, RAFT_TOLD_PEER_LEVEL), 2);
	/* from one append to the most: told when it has doubled */
	told_fill_log(p, 100);
	const struct raft_told *t = told_must(1, RAFT_TOLD_PEER_WINDOW);
	assert_true(t->v[0] > 800 && told_times(1, RAFT_TOLD_PEER_WINDOW) <= 2 * 4);
	/* catch-up rounds: the first of each peer alone, who keeps up has told nothing since */
	assert_int_equal(told_times(1, RAFT_TOLD_PEER_ROUND), 2);
	assert_true(told_must(1, RAFT_TOLD_PEER_ROUND)->v[0] == 1);
	told_forget();
	p->cut[1][2] = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	p->cut[1][2] = false;
	assert_null(told_find(1, RAFT_TOLD_PEER_STALLED)); /* nothing was heard of it either */
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	t = told_must(1, RAFT_TOLD_PEER_STALLED);
	assert_true(t->v[0] >= 100000 && told_must(1, RAFT_TOLD_PEER_PROBE)->peer == t->peer);
	pilot_close(p);
}

/* What a node had from another leader differs: the way back is told. */
void told_logs_differ(void **state)
{
	static const uint64_t one[] = { 1, 1, 1, 1 }, three[] = { 1, 1, 2, 2, 2, 2 };
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	for (uint64_t id = 1; id <= 3; id++) {
		pilot_stop(p, id);
		pilot_log(p, id, 3, id == 3 ? three : one, id == 3 ? 6 : 4);
	}
	for (uint64_t id = 1; id <= 3; id++)
		pilot_start(p, id);
	pilot_isolate(p, 3, true);
	pilot_elect(p, 1);
	pilot_isolate(p, 3, false);
	pilot_wait(p, 500000);
	const struct raft_told *t = told_must(1, RAFT_TOLD_PEER_REFUSED);
	assert_true(t->peer == 3 && t->v[0] == 4 && t->v[1] == 3);
	told_is(3, RAFT_TOLD_LOG_TRUNCATED, ",\"from_index\":3,\"last_index\":6");
	pilot_close(p);
}

void told_full_witness(void **state)
{
	struct raft_config c = { 0 };
	struct pilot *p;

	(void)state;
	pilot_members(&c, "vvw");
	p = pilot_open_as(&c, 0);
	p->count = 3;
	p->knobs.keep_log_bytes = 1000;
	for (uint64_t k = 1; k <= 3; k++) {
		p->n[k].base_config = c;
		pilot_start(p, k);
	}
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_isolate(p, 2, true);
	for (int i = 0; i < 15; i++) {
		pilot_propose(p, 1, 1);
		pilot_wait(p, i < 9 ? 60000 : 100);
	}
	assert_string_equal(told_must(3, RAFT_TOLD_LOG_REFUSED)->why, "the log of this witness is full");
	pilot_wait(p, 100000);
	assert_true(told_must(1, RAFT_TOLD_PEER_FULL)->peer == 3 && !strcmp(told_must(1, RAFT_TOLD_PEER_FULL)->why, "it takes no more entries"));
	pilot_isolate(p, 2, false);
	pilot_wait(p, 1500000);
	assert_string_equal(told_must(1, RAFT_TOLD_PEER_FULL)->why, "it takes entries again");
	assert_int_equal(told_times(1, RAFT_TOLD_PEER_FULL), 2);
	/* it leads when nobody else can, and hands over */
	pilot_isolate(p, 2, true);
	pilot_propose(p, 1, 1);
	pilot_run(p);
	pilot_isolate(p, 2, false);
	pilot_isolate(p, 1, true);
	for (int i = 0; i < 4000 && p->n[2].u.role != RAFT_LEADER; i++)
		pilot_wait(p, 1000);
	assert_true(told_must(3, RAFT_TOLD_TRANSFER_BEGUN)->peer == 2 && !strcmp(told_must(3, RAFT_TOLD_TRANSFER_BEGUN)->why, "a witness leads"));
	assert_null(told_find(3, RAFT_TOLD_TRANSFER_REFUSED));
	pilot_close(p);
}

void told_forgetful(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_propose(p, 1, 5);
	pilot_wait(p, 200000);
	pilot_wipe(p, 3);
	pilot_start(p, 3);
	pilot_wait(p, 500000);
	told_is(3, RAFT_TOLD_ROLE_FORGETFUL, ",\"peer\":\"0000000000000001\",\"term\":1,\"last_index\":0");
	assert_true(told_must(1, RAFT_TOLD_PEER_FORGOT)->peer == 3 && told_must(1, RAFT_TOLD_PEER_FORGOT)->v[0] == 6);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRANSFER, .peer = 1 });
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_TIMEOUT_NOW, .from = 1, .to = 3, .term = 1, .index = 6, .log_term = 1 });
	told_is(3, RAFT_TOLD_ELECTION_DECLINED, ",\"peer\":\"0000000000000001\",\"its_term\":1,\"its_last_index\":6,\"why\":\"its disk was lost: it must be re-admitted first\"");
	pilot_deliver(p, told_vote(2, 3, 2, 9, 1));
	assert_string_equal(told_must(3, RAFT_TOLD_ELECTION_REFUSED)->why, "what this node has promised is lost");
	assert_int_equal(pilot_config(p, 1, "vvl"), WIRE_OK);
	pilot_wait(p, 500000);
	assert_true(told_must(3, RAFT_TOLD_ROLE_READMITTED)->v[1] >= 6 && told_times(3, RAFT_TOLD_ROLE_FORGETFUL) == 1);
	told_is(1, RAFT_TOLD_PEER_REMEMBERS, ",\"peer\":\"0000000000000003\",\"index\":8");
	pilot_close(p);
}

/* ---- entries from others ---- */

void told_fetching(void **state)
{
	struct pilot *p = told_open_with(3, (struct raft_init){ .catch_up_bytes = 2000, .append_max_bytes = 500, .window_msgs = 4 });
	struct wire_msg q = { .type = WIRE_MSG_FETCH_REQ, .from = 3, .to = 2, .corr = 9, .index = 200, .hint = 220 };

	(void)state;
	pilot_isolate(p, 3, true);
	told_fill_log(p, 120);
	pilot_isolate(p, 3, false);
	pilot_wait(p, 1500000);
	assert_int_equal(p->n[3].commit, p->n[1].last);
	const struct raft_told *t = told_must(3, RAFT_TOLD_FETCH_ASKED);
	uint64_t source = t->peer;
	assert_true(source == 2 && !strcmp(t->why, "to catch up"));
	assert_true(told_must(source, RAFT_TOLD_FETCH_SERVED)->peer == 3 && told_must(3, RAFT_TOLD_FETCH_TAKEN)->peer == source);
	assert_true(told_must(3, RAFT_TOLD_FETCH_ENDED)->peer == source && !strcmp(told_must(3, RAFT_TOLD_FETCH_ENDED)->why, "done"));
	t = told_must(1, RAFT_TOLD_PEER_SOURCE);
	assert_true(t->peer == 3 && !t->v[0] && !strcmp(t->why, "it has that"));
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_CATCH_UP, .from = 1, .to = 3, .term = 1, .index = 200, .hint = 9 });
	told_is(3, RAFT_TOLD_FETCH_DECLINED, ",\"peer\":\"0000000000000009\",\"upto_index\":200,\"commit_index\":121,\"why\":\"it is no other member that this node knows\"");
	pilot_deliver(p, q);
	told_is(2, RAFT_TOLD_FETCH_REFUSED, ",\"peer\":\"0000000000000003\",\"first_index\":201,\"have_index\":121,\"why\":\"that is not known to be committed here\"");
	/* a hole */
	pilot_stop(p, 3);
	pilot_damage(p, 3, 10);
	pilot_start(p, 3);
	pilot_wait(p, 200000);
	told_is(3, RAFT_TOLD_FETCH_FILLED, ",\"index\":10");
	assert_string_equal(told_must(3, RAFT_TOLD_FETCH_ASKED)->why, "a hole");
	/* trimmed */
	pilot_isolate(p, 3, true);
	told_fill_log(p, 10);
	pilot_wait(p, 200000);
	for (uint64_t id = 1; id <= 2; id++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = p->n[1].commit });
	pilot_propose(p, 1, 1);
	pilot_isolate(p, 3, false);
	pilot_wait(p, 1500000);
	t = told_must(1, RAFT_TOLD_PEER_SNAPSHOT);
	assert_true(t->peer == 3 && t->v[1] <= 133);
	t = told_must(3, RAFT_TOLD_ROLE_IMAGE);
	assert_true(t->peer == 1 && t->v[0] > t->v[1] && told_times(3, RAFT_TOLD_ROLE_IMAGE) == 1);
	pilot_close(p);
}

/* ---- membership, leadership ---- */

void told_configurations(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	assert_int_equal(pilot_config(p, 2, "vv"), WIRE_NOTLEADER);
	assert_string_equal(told_must(2, RAFT_TOLD_CONFIG_REFUSED)->why, "this node does not lead");
	assert_int_equal(pilot_config(p, 1, "vv-l"), WIRE_OK);
	assert_int_equal(pilot_config(p, 1, "vv"), WIRE_BUSY);
	told_is(1, RAFT_TOLD_CONFIG_REFUSED, ",\"index\":2,\"why\":\"an earlier change, or the first entry of this leader, is not committed yet\"");
	assert_true(told_must(1, RAFT_TOLD_CONFIG_APPENDED)->v[0] == 2 && told_must(1, RAFT_TOLD_CONFIG_APPENDED)->v[1] == 4 && told_must(1, RAFT_TOLD_CONFIG_APPENDED)->v[2] == 1);
	pilot_wait(p, 1000000);
	for (uint64_t id = 1; id <= 2; id++) {
		const struct raft_told *t = told_must(id, RAFT_TOLD_CONFIG_COMMITTED);
		assert_true(t->v[0] == 3 && t->v[1] == 3 && !t->v[2] && t->v[3] == RAFT_LEVEL && told_times(id, RAFT_TOLD_CONFIG_COMMITTED) == 2);
	}
	pilot_wait(p, 2000000); /* it asks for votes, and is told */
	assert_true(told_times(3, RAFT_TOLD_ROLE_REMOVED) >= 1);
	assert_int_equal(pilot_config(p, 1, "-v-l"), WIRE_OK);
	pilot_wait(p, 100000);
	told_is(1, RAFT_TOLD_ROLE_LEFT_OUT, ",\"index\":5");
	pilot_close(p);
}

void told_transfers(void **state)
{
	struct raft_config c = { .level = RAFT_LEVEL };
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	assert_int_equal(pilot_transfer(p, 1, 9), WIRE_INVALID);
	told_is(1, RAFT_TOLD_TRANSFER_REFUSED, ",\"peer\":\"0000000000000009\",\"index\":1,\"why\":\"it is no other voter with a database\"");
	pilot_isolate(p, 2, true);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	told_is(1, RAFT_TOLD_TRANSFER_BEGUN, ",\"peer\":\"0000000000000002\",\"index\":1,\"match_index\":1,\"why\":\"asked for\"");
	told_is(1, RAFT_TOLD_TRANSFER_TOLD, ",\"peer\":\"0000000000000002\",\"index\":1");
	pilot_wait(p, 400000);
	assert_int_equal(told_times(1, RAFT_TOLD_TRANSFER_TOLD), 1);
	told_is(1, RAFT_TOLD_TRANSFER_GIVEN_UP, ",\"peer\":\"0000000000000002\",\"index\":1,\"why\":\"it does not lead in time\"");
	assert_string_equal(told_must(1, RAFT_TOLD_LOG_PROPOSED)->why, "gives the lease back after a transfer");
	pilot_close(p);
	/* for the sake of a priority */
	for (c.n = 0; c.n < 3; c.n++)
		c.m[c.n] = (struct raft_member){ .id = c.n + 1, .flags = RAFT_VOTER, .priority = (uint8_t)(c.n == 1 ? 200 : 100) };
	for (int ask = 0; ask < 2; ask++) {
		p = pilot_open_as(&c, 3);
		p->knobs.ask_first = ask;
		pilot_stop(p, 1);
		pilot_start(p, 1);
		told_forget();
		pilot_elect(p, 1);
		pilot_wait(p, 3000000);
		if (ask)
			told_is(1, RAFT_TOLD_TRANSFER_PROPOSED, ",\"peer\":\"0000000000000002\",\"index\":1,\"match_index\":1");
		else
			assert_string_equal(told_must(1, RAFT_TOLD_TRANSFER_BEGUN)->why, "it comes before this node by priority");
		assert_int_equal(ask, !told_find(1, RAFT_TOLD_TRANSFER_BEGUN));
		pilot_close(p);
	}
}
