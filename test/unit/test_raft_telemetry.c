/* What the core tells of its decisions (raft/telemetry.h): each event of it in a scenario that makes it, with its fields; and none is left out. */
#include "test/unit/raft_told.h"
#include <string.h>

static int begin(void **state)
{
	(void)state;
	told_forget();
	return 0;
}

static void tick(struct pilot *p, uint64_t id, uint64_t us)
{
	p->now_us += us;
	pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
}

/* ---- a commit ---- */

/* All that a lone write makes of it, in order: no event without a decision. */
static void commit(void **state)
{
	static const enum raft_told_event leader[] = {
		RAFT_TOLD_LOG_PROPOSED, RAFT_TOLD_MSG_SENT, RAFT_TOLD_MSG_SENT, /* appends */
		RAFT_TOLD_LOG_DURABLE,
		RAFT_TOLD_MSG_RECEIVED, RAFT_TOLD_LOG_COMMITTED,
		RAFT_TOLD_MSG_RECEIVED, /* the other's */
		RAFT_TOLD_MSG_SENT, RAFT_TOLD_MSG_SENT, RAFT_TOLD_MSG_RECEIVED, RAFT_TOLD_MSG_RECEIVED, /* the others hear of it */
	};
	static const enum raft_told_event follower[] = {
		RAFT_TOLD_MSG_RECEIVED, RAFT_TOLD_LOG_TAKEN, RAFT_TOLD_MSG_SENT, RAFT_TOLD_LOG_DURABLE,
		RAFT_TOLD_MSG_RECEIVED, RAFT_TOLD_LOG_COMMITTED, RAFT_TOLD_MSG_SENT,
	};
	struct pilot *p = pilot_open_led(3, 0);
	uint32_t n[4] = { 0 };

	(void)state;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 60000);
	while (p->now_us % 50000 != 1000) /* between two heartbeats */
		pilot_wait(p, 250);
	told_forget();
	pilot_propose(p, 1, 1);
	pilot_wait(p, 2000);
	for (uint32_t i = 0; i < told_n; i++) {
		const enum raft_told_event *want = told_kept[i].node == 1 ? leader : follower;
		uint32_t at = n[told_kept[i].node]++, all = told_kept[i].node == 1 ? sizeof(leader) / sizeof(*leader) : sizeof(follower) / sizeof(*follower);
		if (at >= all || told_kept[i].t.event != want[at])
			fail_msg("node %u tells as number %u: %s", (unsigned)told_kept[i].node, at, raft_told_name(told_kept[i].t.event));
	}
	assert_true(n[1] == sizeof(leader) / sizeof(*leader) && n[2] == n[3] && n[2] == sizeof(follower) / sizeof(*follower));
	told_is(1, RAFT_TOLD_LOG_PROPOSED, ",\"first_index\":3,\"last_index\":3,\"bytes\":100");
	told_is(2, RAFT_TOLD_LOG_TAKEN, ",\"peer\":\"0000000000000001\",\"first_index\":3,\"last_index\":3");
	told_is(3, RAFT_TOLD_LOG_COMMITTED, ",\"peer\":\"0000000000000001\",\"index\":3");
	told_is(1, RAFT_TOLD_LOG_DURABLE, ",\"index\":3");
	told_is(2, RAFT_TOLD_MSG_SENT, ",\"peer\":\"0000000000000001\",\"term\":1,\"index\":3,\"entries\":0,\"why\":\"HEARTBEAT_RESP\"");
	assert_true(told_must(1, RAFT_TOLD_MSG_RECEIVED)->peer > 1);
	pilot_close(p);
}

/* Refused, each for its reason. */
static void proposals(void **state)
{
	struct pilot *p = told_open_with(3, (struct raft_init){ .uncommitted_bytes = 1000 });

	(void)state;
	pilot_propose(p, 2, 1);
	told_is(2, RAFT_TOLD_LOG_PROPOSAL_REFUSED, ",\"backlog_bytes\":0,\"why\":\"this node does not lead\"");
	pilot_propose(p, 1, 0);
	assert_string_equal(told_must(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED)->why, "it is empty");
	pilot_isolate(p, 1, true);
	pilot_propose(p, 1, 10);
	pilot_propose(p, 1, 1);
	told_is(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED, ",\"backlog_bytes\":1000,\"why\":\"too much is not committed yet\"");
	assert_int_equal(told_times(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED), 2);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	pilot_propose(p, 1, 1);
	assert_string_equal(told_must(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED)->why, "leadership is being handed over");
	pilot_close(p);
}

/* ---- roles and elections ---- */

static void election(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	told_is(1, RAFT_TOLD_ELECTION_TIMEOUT, ",\"term\":0,\"waited_us\":1000000");
	told_is(1, RAFT_TOLD_ROLE_PRECANDIDATE, ",\"term\":0,\"last_index\":0");
	told_is(1, RAFT_TOLD_ROLE_CANDIDATE, ",\"term\":1,\"last_index\":0");
	told_is(1, RAFT_TOLD_ROLE_LEADER, ",\"term\":1,\"last_index\":0");
	assert_int_equal(told_times(1, RAFT_TOLD_ELECTION_COUNTED), 2); /* one for the pre-vote, one for the vote: then it leads */
	assert_true(told_must(1, RAFT_TOLD_ELECTION_COUNTED)->v[0] == 1 && !told_must(1, RAFT_TOLD_ELECTION_COUNTED)->v[1] && told_must(1, RAFT_TOLD_ELECTION_COUNTED)->v[2]);
	told_is(2, RAFT_TOLD_ELECTION_GRANTED, ",\"peer\":\"0000000000000001\",\"term\":1,\"prevote\":0");
	told_is(2, RAFT_TOLD_ROLE_FOLLOWER, ",\"peer\":\"0000000000000001\",\"term\":1,\"last_index\":0,\"why\":\"a leader of the term\"");
	assert_string_equal(told_must(1, RAFT_TOLD_LOG_PROPOSED)->why, "the first entry of a leader");
	pilot_close(p);
}

static void votes_refused(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	struct wire_msg m = told_vote(3, 2, 2, 9, 9);

	(void)state;
	pilot_deliver(p, m);
	told_is(2, RAFT_TOLD_ELECTION_REFUSED, ",\"peer\":\"0000000000000003\",\"term\":2,\"prevote\":0,\"why\":\"a leader is alive\"");
	m.type = WIRE_MSG_PREVOTE_REQ;
	pilot_deliver(p, m);
	assert_int_equal(told_must(2, RAFT_TOLD_ELECTION_REFUSED)->v[1], 1);
	p->now_us += 2000000;
	pilot_deliver(p, told_vote(3, 2, 1, 9, 9));
	assert_string_equal(told_must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "this node has voted in that term, or knows its leader");
	pilot_deliver(p, told_vote(8, 2, 5, 0, 0));
	assert_string_equal(told_must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "it is no member, and its log is behind");
	pilot_deliver(p, told_vote(3, 2, 5, 0, 0));
	assert_string_equal(told_must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "its log is behind");
	assert_string_equal(told_must(2, RAFT_TOLD_ROLE_FOLLOWER)->why, "a later term");
	pilot_deliver(p, told_vote(3, 2, 4, 9, 9));
	assert_string_equal(told_must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "its term is over");
	assert_null(told_find(2, RAFT_TOLD_ELECTION_LOST));
	/* both others have more than node 1, or so they say */
	pilot_drop_all(p);
	tick(p, 3, 1000000);
	for (uint64_t id = 1; id <= 2; id++)
		pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_PREVOTE_RESP, .flags = WIRE_MSG_REJECT, .from = id, .to = 3, .term = 1,
			                            .corr = pilot_find(p, WIRE_MSG_PREVOTE_REQ, 3, 0)->corr });
	told_is(3, RAFT_TOLD_ELECTION_LOST, ",\"term\":2,\"prevote\":1");
	assert_string_equal(told_must(3, RAFT_TOLD_ROLE_FOLLOWER)->why, "it stands or leads no more");
	pilot_close(p);
}

/* Who has no leader and does not stand says why, once as long as that is so. */
static void lonely(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	pilot_wait(p, 200000);
	told_forget(); /* that it knows no configuration */
	pilot_isolate(p, 4, true);
	pilot_wait(p, 5000000);
	const struct raft_told *t = told_must(4, RAFT_TOLD_ROLE_LONELY);
	assert_true(t->v[0] == 1 && t->v[1] >= 300000 && told_times(4, RAFT_TOLD_ROLE_LONELY) == 1);
	assert_string_equal(t->why, "it is no voter");
	p->n[3].hold = true;
	pilot_propose(p, 1, 1);
	pilot_run(p);
	pilot_isolate(p, 3, true);
	pilot_wait(p, 5000000);
	assert_string_equal(told_must(3, RAFT_TOLD_ROLE_LONELY)->why, "its disk hangs");
	assert_null(told_find(3, RAFT_TOLD_ELECTION_TIMEOUT));
	pilot_close(p);
}

static void deposed(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .from = 3, .to = 2, .term = 1 });
	told_is(2, RAFT_TOLD_ROLE_NO_LEADER, ",\"peer\":\"0000000000000003\",\"its_term\":1,\"term\":1,\"why\":\"that term has another leader\"");
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND, .from = 3, .to = 2, .term = 0 });
	assert_string_equal(told_must(2, RAFT_TOLD_ROLE_NO_LEADER)->why, "its term is over");
	/* its disk hangs, the others go on */
	p->n[1].hold = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 250000);
	pilot_drop_all(p);
	tick(p, 1, 60000);
	const struct raft_told *t = told_must(1, RAFT_TOLD_DISK_SLOW);
	assert_true(t->peer > 1 && t->v[0] >= 300000 && t->v[1] == 1);
	uint64_t next = t->peer;
	pilot_run(p);
	told_is(next, RAFT_TOLD_ELECTION_ORDERED, ",\"peer\":\"0000000000000001\",\"term\":1,\"last_index\":2");
	pilot_close(p);
}

/* ---- heartbeats ---- */

static void heartbeats(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	told_forget();
	pilot_wait(p, 500000);
	/* one for both peers, and one answer of a quorum */
	assert_int_equal(told_times(1, RAFT_TOLD_QUORUM_HEARTBEAT), 10);
	assert_int_equal(told_times(1, RAFT_TOLD_QUORUM_SUCCEEDED), 10);
	assert_true(told_must(1, RAFT_TOLD_QUORUM_HEARTBEAT)->v[1] == 2 && told_must(1, RAFT_TOLD_QUORUM_HEARTBEAT)->v[2] == 1);
	assert_false(told_find(1, RAFT_TOLD_QUORUM_MISSED) || told_find(1, RAFT_TOLD_HEARTBEAT_DUPLICATE) || told_find(1, RAFT_TOLD_HEARTBEAT_ORDER));
	/* the latest answers after the next ones, and then again */
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT_RESP, .from = 2, .to = 1, .term = 1, .index = 1, .commit = RAFT_LEVEL };
	p->deaf_to[WIRE_MSG_HEARTBEAT_RESP] = true;
	pilot_wait(p, 100000);
	p->deaf_to[WIRE_MSG_HEARTBEAT_RESP] = false;
	uint64_t latest = told_must(1, RAFT_TOLD_QUORUM_HEARTBEAT)->v[0];
	for (int i = 0; i < 3; i++) {
		m.log_term = i == 0 ? latest : latest - 1;
		pilot_deliver(p, m);
	}
	const struct raft_told *t = told_must(1, RAFT_TOLD_HEARTBEAT_ORDER);
	assert_true(t->peer == 2 && t->v[0] == latest - 1 && t->v[1] == latest && told_times(1, RAFT_TOLD_HEARTBEAT_ORDER) == 1);
	t = told_must(1, RAFT_TOLD_HEARTBEAT_DUPLICATE);
	assert_true(t->peer == 2 && t->v[0] == latest - 1 && told_times(1, RAFT_TOLD_HEARTBEAT_DUPLICATE) == 1);
	pilot_wait(p, 200000);
	/* nobody answers */
	told_forget();
	pilot_isolate(p, 3, true);
	pilot_wait(p, 350000);
	t = told_must(1, RAFT_TOLD_HEARTBEAT_LATE);
	assert_true(t->peer == 3 && t->v[0] >= 300000 && told_times(1, RAFT_TOLD_HEARTBEAT_LATE) == 1);
	assert_null(told_find(1, RAFT_TOLD_QUORUM_MISSED));
	pilot_isolate(p, 1, true);
	pilot_wait(p, 500000);
	assert_in_range(told_times(1, RAFT_TOLD_QUORUM_MISSED), 4, 6);
	t = told_must(1, RAFT_TOLD_QUORUM_CHECK);
	assert_true(t->v[0] >= 300000 && t->v[0] < 400000 && told_times(1, RAFT_TOLD_QUORUM_CHECK) == 1);
	assert_string_equal(told_must(1, RAFT_TOLD_ROLE_FOLLOWER)->why, "it stands or leads no more");
	assert_string_equal(told_must(1, RAFT_TOLD_LEASE_LOST)->why, "no quorum has renewed it");
	pilot_close(p);
}

static void idle(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_wait(p, 10000000);
	told_is(1, RAFT_TOLD_QUORUM_IDLE, ",\"silence_us\":3000000");
	pilot_step(p, 2, (struct raft_event){ .type = RAFT_EV_UNREACHABLE, .peer = 1 });
	const struct raft_told *t = told_must(2, RAFT_TOLD_ELECTION_DOUBT);
	assert_true(t->peer == 1 && t->v[0] == 3000000 && t->v[1] < 1000000);
	assert_null(told_find(1, RAFT_TOLD_QUORUM_ACTIVE));
	pilot_propose(p, 1, 1);
	pilot_wait(p, 100000);
	told_is(1, RAFT_TOLD_QUORUM_ACTIVE, ",\"heartbeat_us\":50000");
	assert_true(told_times(1, RAFT_TOLD_QUORUM_IDLE) == 1 && told_times(1, RAFT_TOLD_QUORUM_ACTIVE) == 1);
	pilot_close(p);
}

/* ---- reads ---- */

static void reads(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	told_is(1, RAFT_TOLD_LEASE_HELD, ",\"term\":1");
	pilot_read(p, 1, 1);
	told_is(1, RAFT_TOLD_READ_SERVED, ",\"reads\":1,\"index\":1,\"by_lease\":1");
	pilot_read(p, 2, 2);
	pilot_run(p);
	told_is(2, RAFT_TOLD_READ_SERVED, ",\"peer\":\"0000000000000001\",\"reads\":1,\"index\":1,\"by_lease\":0");
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_READ_REQ, .from = 3, .to = 2, .corr = 1 });
	told_is(2, RAFT_TOLD_READ_REFUSED, ",\"peer\":\"0000000000000003\",\"waiting\":0,\"why\":\"this node does not lead\"");
	p->cut[2][1] = true;
	pilot_read(p, 2, 3);
	pilot_wait(p, 400000);
	told_is(2, RAFT_TOLD_READ_FAILED, ",\"peer\":\"0000000000000001\",\"reads\":1,\"why\":\"no answer came\"");
	pilot_close(p);
	p = pilot_open_no_leases(3, 0);
	told_forget();
	pilot_read(p, 1, 1);
	told_is(1, RAFT_TOLD_READ_FAILED, ",\"reads\":1,\"why\":\"no leader is known\"");
	pilot_elect(p, 1);
	pilot_wait(p, 60000);
	pilot_read(p, 1, 2);
	told_is(1, RAFT_TOLD_READ_ROUND, ",\"round\":1,\"reads\":1,\"index\":1");
	pilot_run(p);
	told_is(1, RAFT_TOLD_READ_SERVED, ",\"reads\":1,\"index\":1,\"by_lease\":0");
	pilot_drop_all(p);
	pilot_read(p, 1, 3);
	p->deaf_to[WIRE_MSG_HEARTBEAT_RESP] = true; /* appends are answered: it goes on to lead */
	for (int i = 0; i < 8; i++) {
		pilot_propose(p, 1, 1);
		pilot_wait(p, 50000);
	}
	told_is(1, RAFT_TOLD_ROUND_EXPIRED, ",\"round\":2,\"reads\":1");
	assert_null(told_find(1, RAFT_TOLD_LEASE_HELD));
	pilot_close(p);
}

/* ---- the log ---- */

static void log_replaced(void **state)
{
	static const uint64_t mine[] = { 1, 1, 2, 2 };
	struct pilot *p = pilot_open(3, 0);
	struct raft_config c = p->n[3].base_config;
	struct wire_buf b = WIRE_BUF_INIT;

	(void)state;
	pilot_stop(p, 3);
	pilot_log(p, 3, 2, mine, 4);
	raft_config_put(&c, &b);
	memcpy(p->n[3].log[4].data, b.data, b.len);
	p->n[3].log[4].kind = WIRE_ENTRY_CONFIG;
	p->n[3].log[4].size = (uint32_t)b.len;
	wire_buf_free(&b);
	pilot_start(p, 3);
	struct wire_entry e = { .index = 3, .term = 3, .kind = WIRE_ENTRY_NOOP };
	struct wire_msg m = { .type = WIRE_MSG_APPEND, .from = 1, .to = 3, .term = 3, .index = 4, .log_term = 3 };
	pilot_deliver(p, m);
	told_is(3, RAFT_TOLD_LOG_REFUSED, ",\"peer\":\"0000000000000001\",\"index\":4,\"hint_index\":4,\"why\":\"the log does not agree there\"");
	m.index = 2;
	m.log_term = 1;
	m.entries = &e;
	m.n_entries = 1;
	pilot_deliver(p, m);
	told_is(3, RAFT_TOLD_LOG_TRUNCATED, ",\"from_index\":3,\"last_index\":4");
	told_is(3, RAFT_TOLD_CONFIG_UNDONE, ",\"index\":0,\"members\":3,\"joint\":0,\"level\":2");
	told_is(3, RAFT_TOLD_LOG_TAKEN, ",\"peer\":\"0000000000000001\",\"first_index\":3,\"last_index\":3");
	e = (struct wire_entry){ .index = 4, .term = 3, .kind = WIRE_ENTRY_CONFIG, .size = 1, .data = (const uint8_t *)"x" };
	m.index = 3;
	m.log_term = 3;
	pilot_deliver(p, m);
	assert_string_equal(told_must(3, RAFT_TOLD_LOG_REFUSED)->why, "a configuration cannot be read");
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = 2, .term = 1, .corr = 2, .config = &c });
	told_is(3, RAFT_TOLD_LOG_IMAGE, ",\"index\":2,\"term\":1,\"why\":\"the log has that entry, and stays\"");
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 1 });
	told_is(3, RAFT_TOLD_LOG_TRIMMED, ",\"index\":1");
	p->n[3].last = 8;
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = 8, .term = 3, .corr = 5, .config = &c });
	assert_string_equal(told_must(3, RAFT_TOLD_LOG_IMAGE)->why, "the log begins anew there");
	assert_int_equal(told_must(3, RAFT_TOLD_CONFIG_APPENDED)->v[0], 8);
	pilot_close(p);
}

/* The last test: the scenarios have made each event of the core, so none is in the table that is never told. */
static void none_is_left_out(void **state)
{
	(void)state;
	for (int i = 0; i < RAFT_TOLD_JOURNAL; i++)
		if (!told_count[i])
			fail_msg("no scenario makes %s", raft_told_name((unsigned)i));
	for (unsigned i = 0; i < RAFT_TOLD_COUNT; i++)
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(raft_told_name(i), raft_told_name(k));
	assert_string_equal(raft_told_name(RAFT_TOLD_COUNT), "?");
}

#define scenario(f) cmocka_unit_test_setup(f, begin)

int main(void)
{
	const struct CMUnitTest tests[] = {
		scenario(commit),
		scenario(proposals),
		scenario(election),
		scenario(votes_refused),
		scenario(lonely),
		scenario(deposed),
		scenario(heartbeats),
		scenario(idle),
		scenario(reads),
		scenario(log_replaced),
		scenario(told_replication),
		scenario(told_logs_differ),
		scenario(told_full_witness),
		scenario(told_forgetful),
		scenario(told_fetching),
		scenario(told_configurations),
		scenario(told_transfers),
		scenario(none_is_left_out),
	};

	told_begin();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft telemetry", tests, NULL, NULL);
}
