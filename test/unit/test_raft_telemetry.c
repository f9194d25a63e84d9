/* What the core tells of its decisions (raft/telemetry.h): each event of it in a scenario that makes it, with its fields; and none is left out. */
#include "test/unit/raft_pilot.h"
#include <stdio.h>
#include <string.h>

enum { KEPT = 1 << 16 };

static struct { uint64_t node; struct raft_told t; } kept[KEPT];
static uint32_t n_kept;
static uint64_t count[RAFT_TOLD_COUNT];

static void on_told(uint64_t node, const struct raft_told *told, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		assert_true(told[i].event < RAFT_TOLD_JOURNAL && n_kept < KEPT);
		kept[n_kept].node = node;
		kept[n_kept++].t = told[i];
		count[told[i].event]++;
	}
}

/* The latest one of that node; NULL: none since the scenario began. */
static const struct raft_told *find(uint64_t node, enum raft_told_event event)
{
	for (uint32_t i = n_kept; i > 0; i--)
		if (kept[i - 1].node == node && kept[i - 1].t.event == event)
			return &kept[i - 1].t;
	return NULL;
}

static uint32_t times(uint64_t node, enum raft_told_event event)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < n_kept; i++)
		n += kept[i].node == node && kept[i].t.event == event;
	return n;
}

static const struct raft_told *must(uint64_t node, enum raft_told_event event)
{
	const struct raft_told *t = find(node, event);

	if (!t)
		fail_msg("node %u does not tell of %s", (unsigned)node, raft_told_name(event));
	return t;
}

/* As JSON without its name. */
static void is(uint64_t node, enum raft_told_event event, const char *json)
{
	struct wire_buf b = WIRE_BUF_INIT;
	char name[80];

	raft_told_put_json(must(node, event), &b);
	wire_put_u8(&b, 0);
	snprintf(name, sizeof name, "\"event\":\"%s\"", raft_told_name(event));
	assert_memory_equal(b.data, name, strlen(name));
	assert_string_equal((char *)b.data + strlen(name), json);
	wire_buf_free(&b);
}

static int begin(void **state)
{
	(void)state;
	n_kept = 0;
	return 0;
}

static struct pilot *open_with(uint32_t voters, uint32_t others, struct raft_init knobs)
{
	struct pilot *p = pilot_open(voters, others);

	for (uint64_t id = 1; id <= p->count; id++)
		pilot_stop(p, id);
	p->knobs = knobs;
	for (uint64_t id = 1; id <= p->count; id++)
		pilot_start(p, id);
	pilot_elect(p, 1);
	pilot_wait(p, 60000);
	assert_true(p->n[1].u.leader_ready);
	return p;
}

static void fill_log(struct pilot *p, uint32_t n)
{
	for (; n; n -= n > 16 ? 16 : n) {
		assert_int_equal(pilot_propose(p, 1, n > 16 ? 16 : n), WIRE_OK);
		pilot_wait(p, 60000);
	}
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
	n_kept = 0;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 2000);
	for (uint32_t i = 0; i < n_kept; i++) {
		const enum raft_told_event *want = kept[i].node == 1 ? leader : follower;
		uint32_t at = n[kept[i].node]++, all = kept[i].node == 1 ? sizeof(leader) / sizeof(*leader) : sizeof(follower) / sizeof(*follower);
		if (at >= all || kept[i].t.event != want[at])
			fail_msg("node %u tells as number %u: %s", (unsigned)kept[i].node, at, raft_told_name(kept[i].t.event));
	}
	assert_true(n[1] == sizeof(leader) / sizeof(*leader) && n[2] == n[3] && n[2] == sizeof(follower) / sizeof(*follower));
	is(1, RAFT_TOLD_LOG_PROPOSED, ",\"first_index\":3,\"last_index\":3,\"bytes\":100");
	is(2, RAFT_TOLD_LOG_TAKEN, ",\"peer\":\"0000000000000001\",\"first_index\":3,\"last_index\":3");
	is(3, RAFT_TOLD_LOG_COMMITTED, ",\"peer\":\"0000000000000001\",\"index\":3");
	is(1, RAFT_TOLD_LOG_DURABLE, ",\"index\":3");
	is(2, RAFT_TOLD_MSG_SENT, ",\"peer\":\"0000000000000001\",\"term\":1,\"index\":3,\"entries\":0,\"why\":\"HEARTBEAT_RESP\"");
	assert_true(must(1, RAFT_TOLD_MSG_RECEIVED)->peer > 1);
	pilot_close(p);
}

/* Refused, each for its reason. */
static void proposals(void **state)
{
	struct pilot *p = open_with(3, 0, (struct raft_init){ .uncommitted_bytes = 1000 });

	(void)state;
	pilot_propose(p, 2, 1);
	is(2, RAFT_TOLD_LOG_PROPOSAL_REFUSED, ",\"backlog_bytes\":0,\"why\":\"this node does not lead\"");
	pilot_propose(p, 1, 0);
	assert_string_equal(must(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED)->why, "it is empty");
	pilot_isolate(p, 1, true);
	pilot_propose(p, 1, 10);
	pilot_propose(p, 1, 1);
	is(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED, ",\"backlog_bytes\":1000,\"why\":\"too much is not committed yet\"");
	assert_int_equal(times(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED), 2);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	pilot_propose(p, 1, 1);
	assert_string_equal(must(1, RAFT_TOLD_LOG_PROPOSAL_REFUSED)->why, "leadership is being handed over");
	pilot_close(p);
}

/* ---- roles and elections ---- */

static void election(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	is(1, RAFT_TOLD_ELECTION_TIMEOUT, ",\"term\":0,\"waited_us\":1000000");
	is(1, RAFT_TOLD_ROLE_PRECANDIDATE, ",\"term\":0,\"last_index\":0");
	is(1, RAFT_TOLD_ROLE_CANDIDATE, ",\"term\":1,\"last_index\":0");
	is(1, RAFT_TOLD_ROLE_LEADER, ",\"term\":1,\"last_index\":0");
	assert_int_equal(times(1, RAFT_TOLD_ELECTION_COUNTED), 2); /* one for the pre-vote, one for the vote: then it leads */
	assert_true(must(1, RAFT_TOLD_ELECTION_COUNTED)->v[0] == 1 && !must(1, RAFT_TOLD_ELECTION_COUNTED)->v[1] && must(1, RAFT_TOLD_ELECTION_COUNTED)->v[2]);
	is(2, RAFT_TOLD_ELECTION_GRANTED, ",\"peer\":\"0000000000000001\",\"term\":1,\"prevote\":0");
	is(2, RAFT_TOLD_ROLE_FOLLOWER, ",\"peer\":\"0000000000000001\",\"term\":1,\"last_index\":0,\"why\":\"a leader of the term\"");
	assert_string_equal(must(1, RAFT_TOLD_LOG_PROPOSED)->why, "the first entry of a leader");
	pilot_close(p);
}

static struct wire_msg vote(uint64_t from, uint64_t to, uint64_t term, uint64_t index, uint64_t log_term)
{
	return (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .from = from, .to = to, .term = term, .index = index, .log_term = log_term };
}

static void votes_refused(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	struct wire_msg m = vote(3, 2, 2, 9, 9);

	(void)state;
	pilot_deliver(p, m);
	is(2, RAFT_TOLD_ELECTION_REFUSED, ",\"peer\":\"0000000000000003\",\"term\":2,\"prevote\":0,\"why\":\"a leader is alive\"");
	m.type = WIRE_MSG_PREVOTE_REQ;
	pilot_deliver(p, m);
	assert_int_equal(must(2, RAFT_TOLD_ELECTION_REFUSED)->v[1], 1);
	p->now_us += 2000000;
	pilot_deliver(p, vote(3, 2, 1, 9, 9));
	assert_string_equal(must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "this node has voted in that term, or knows its leader");
	pilot_deliver(p, vote(8, 2, 5, 0, 0));
	assert_string_equal(must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "it is no member, and its log is behind");
	pilot_deliver(p, vote(3, 2, 5, 0, 0));
	assert_string_equal(must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "its log is behind");
	assert_string_equal(must(2, RAFT_TOLD_ROLE_FOLLOWER)->why, "a later term");
	pilot_deliver(p, vote(3, 2, 4, 9, 9));
	assert_string_equal(must(2, RAFT_TOLD_ELECTION_REFUSED)->why, "its term is over");
	assert_null(find(2, RAFT_TOLD_ELECTION_LOST));
	/* both others have more than node 1, or so they say */
	pilot_drop_all(p);
	tick(p, 3, 1000000);
	for (uint64_t id = 1; id <= 2; id++)
		pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_PREVOTE_RESP, .flags = WIRE_MSG_REJECT, .from = id, .to = 3, .term = 1,
			                            .corr = pilot_find(p, WIRE_MSG_PREVOTE_REQ, 3, 0)->corr });
	is(3, RAFT_TOLD_ELECTION_LOST, ",\"term\":2,\"prevote\":1");
	assert_string_equal(must(3, RAFT_TOLD_ROLE_FOLLOWER)->why, "it stands or leads no more");
	pilot_close(p);
}

/* Who has no leader and does not stand says why, once as long as that is so. */
static void lonely(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	pilot_wait(p, 200000);
	n_kept = 0; /* that it knows no configuration */
	pilot_isolate(p, 4, true);
	pilot_wait(p, 5000000);
	const struct raft_told *t = must(4, RAFT_TOLD_ROLE_LONELY);
	assert_true(t->v[0] == 1 && t->v[1] >= 300000 && times(4, RAFT_TOLD_ROLE_LONELY) == 1);
	assert_string_equal(t->why, "it is no voter");
	p->n[3].hold = true;
	pilot_propose(p, 1, 1);
	pilot_run(p);
	pilot_isolate(p, 3, true);
	pilot_wait(p, 5000000);
	assert_string_equal(must(3, RAFT_TOLD_ROLE_LONELY)->why, "its disk hangs");
	assert_null(find(3, RAFT_TOLD_ELECTION_TIMEOUT));
	pilot_close(p);
}

static void deposed(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .from = 3, .to = 2, .term = 1 });
	is(2, RAFT_TOLD_ROLE_NO_LEADER, ",\"peer\":\"0000000000000003\",\"its_term\":1,\"term\":1,\"why\":\"that term has another leader\"");
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND, .from = 3, .to = 2, .term = 0 });
	assert_string_equal(must(2, RAFT_TOLD_ROLE_NO_LEADER)->why, "its term is over");
	/* its disk hangs, the others go on */
	p->n[1].hold = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 250000);
	pilot_drop_all(p);
	tick(p, 1, 60000);
	const struct raft_told *t = must(1, RAFT_TOLD_DISK_SLOW);
	assert_true(t->peer > 1 && t->v[0] >= 300000 && t->v[1] == 1);
	uint64_t next = t->peer;
	pilot_run(p);
	is(next, RAFT_TOLD_ELECTION_ORDERED, ",\"peer\":\"0000000000000001\",\"term\":1,\"last_index\":2");
	pilot_close(p);
}

/* ---- heartbeats ---- */

static void heartbeats(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	n_kept = 0;
	pilot_wait(p, 500000);
	/* one for both peers, and one answer of a quorum */
	assert_int_equal(times(1, RAFT_TOLD_QUORUM_HEARTBEAT), 10);
	assert_int_equal(times(1, RAFT_TOLD_QUORUM_SUCCEEDED), 10);
	assert_true(must(1, RAFT_TOLD_QUORUM_HEARTBEAT)->v[1] == 2 && must(1, RAFT_TOLD_QUORUM_HEARTBEAT)->v[2] == 1);
	assert_false(find(1, RAFT_TOLD_QUORUM_MISSED) || find(1, RAFT_TOLD_HEARTBEAT_DUPLICATE) || find(1, RAFT_TOLD_HEARTBEAT_ORDER));
	/* the latest answers after the next ones, and then again */
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT_RESP, .from = 2, .to = 1, .term = 1, .index = 1, .commit = RAFT_LEVEL };
	p->deaf_to[WIRE_MSG_HEARTBEAT_RESP] = true;
	pilot_wait(p, 100000);
	p->deaf_to[WIRE_MSG_HEARTBEAT_RESP] = false;
	uint64_t latest = must(1, RAFT_TOLD_QUORUM_HEARTBEAT)->v[0];
	for (int i = 0; i < 3; i++) {
		m.log_term = i == 0 ? latest : latest - 1;
		pilot_deliver(p, m);
	}
	const struct raft_told *t = must(1, RAFT_TOLD_HEARTBEAT_ORDER);
	assert_true(t->peer == 2 && t->v[0] == latest - 1 && t->v[1] == latest && times(1, RAFT_TOLD_HEARTBEAT_ORDER) == 1);
	t = must(1, RAFT_TOLD_HEARTBEAT_DUPLICATE);
	assert_true(t->peer == 2 && t->v[0] == latest - 1 && times(1, RAFT_TOLD_HEARTBEAT_DUPLICATE) == 1);
	pilot_wait(p, 200000);
	/* nobody answers */
	n_kept = 0;
	pilot_isolate(p, 3, true);
	pilot_wait(p, 350000);
	t = must(1, RAFT_TOLD_HEARTBEAT_LATE);
	assert_true(t->peer == 3 && t->v[0] >= 300000 && times(1, RAFT_TOLD_HEARTBEAT_LATE) == 1);
	assert_null(find(1, RAFT_TOLD_QUORUM_MISSED));
	pilot_isolate(p, 1, true);
	pilot_wait(p, 500000);
	assert_in_range(times(1, RAFT_TOLD_QUORUM_MISSED), 4, 6);
	t = must(1, RAFT_TOLD_QUORUM_CHECK);
	assert_true(t->v[0] >= 300000 && t->v[0] < 400000 && times(1, RAFT_TOLD_QUORUM_CHECK) == 1);
	assert_string_equal(must(1, RAFT_TOLD_ROLE_FOLLOWER)->why, "it stands or leads no more");
	assert_string_equal(must(1, RAFT_TOLD_LEASE_LOST)->why, "no quorum has renewed it");
	pilot_close(p);
}

static void idle(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_wait(p, 10000000);
	is(1, RAFT_TOLD_QUORUM_IDLE, ",\"silence_us\":3000000");
	pilot_step(p, 2, (struct raft_event){ .type = RAFT_EV_UNREACHABLE, .peer = 1 });
	const struct raft_told *t = must(2, RAFT_TOLD_ELECTION_DOUBT);
	assert_true(t->peer == 1 && t->v[0] == 3000000 && t->v[1] < 1000000);
	assert_null(find(1, RAFT_TOLD_QUORUM_ACTIVE));
	pilot_propose(p, 1, 1);
	pilot_wait(p, 100000);
	is(1, RAFT_TOLD_QUORUM_ACTIVE, ",\"heartbeat_us\":50000");
	assert_true(times(1, RAFT_TOLD_QUORUM_IDLE) == 1 && times(1, RAFT_TOLD_QUORUM_ACTIVE) == 1);
	pilot_close(p);
}

/* ---- reads ---- */

static void reads(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	is(1, RAFT_TOLD_LEASE_HELD, ",\"term\":1");
	pilot_read(p, 1, 1);
	is(1, RAFT_TOLD_READ_SERVED, ",\"reads\":1,\"index\":1,\"by_lease\":1");
	pilot_read(p, 2, 2);
	pilot_run(p);
	is(2, RAFT_TOLD_READ_SERVED, ",\"peer\":\"0000000000000001\",\"reads\":1,\"index\":1,\"by_lease\":0");
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_READ_REQ, .from = 3, .to = 2, .corr = 1 });
	is(2, RAFT_TOLD_READ_REFUSED, ",\"peer\":\"0000000000000003\",\"waiting\":0,\"why\":\"this node does not lead\"");
	p->cut[2][1] = true;
	pilot_read(p, 2, 3);
	pilot_wait(p, 400000);
	is(2, RAFT_TOLD_READ_FAILED, ",\"peer\":\"0000000000000001\",\"reads\":1,\"why\":\"no answer came\"");
	pilot_close(p);
	p = pilot_open_no_leases(3, 0);
	n_kept = 0;
	pilot_read(p, 1, 1);
	is(1, RAFT_TOLD_READ_FAILED, ",\"reads\":1,\"why\":\"no leader is known\"");
	pilot_elect(p, 1);
	pilot_wait(p, 60000);
	pilot_read(p, 1, 2);
	is(1, RAFT_TOLD_READ_ROUND, ",\"round\":1,\"reads\":1,\"index\":1");
	pilot_run(p);
	is(1, RAFT_TOLD_READ_SERVED, ",\"reads\":1,\"index\":1,\"by_lease\":0");
	pilot_drop_all(p);
	pilot_read(p, 1, 3);
	p->deaf_to[WIRE_MSG_HEARTBEAT_RESP] = true; /* appends are answered: it goes on to lead */
	for (int i = 0; i < 8; i++) {
		pilot_propose(p, 1, 1);
		pilot_wait(p, 50000);
	}
	is(1, RAFT_TOLD_ROUND_EXPIRED, ",\"round\":2,\"reads\":1");
	assert_null(find(1, RAFT_TOLD_LEASE_HELD));
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
	is(3, RAFT_TOLD_LOG_REFUSED, ",\"peer\":\"0000000000000001\",\"index\":4,\"hint_index\":4,\"why\":\"the log does not agree there\"");
	m.index = 2;
	m.log_term = 1;
	m.entries = &e;
	m.n_entries = 1;
	pilot_deliver(p, m);
	is(3, RAFT_TOLD_LOG_TRUNCATED, ",\"from_index\":3,\"last_index\":4");
	is(3, RAFT_TOLD_CONFIG_UNDONE, ",\"index\":0,\"members\":3,\"joint\":0,\"level\":2");
	is(3, RAFT_TOLD_LOG_TAKEN, ",\"peer\":\"0000000000000001\",\"first_index\":3,\"last_index\":3");
	e = (struct wire_entry){ .index = 4, .term = 3, .kind = WIRE_ENTRY_CONFIG, .size = 1, .data = (const uint8_t *)"x" };
	m.index = 3;
	m.log_term = 3;
	pilot_deliver(p, m);
	assert_string_equal(must(3, RAFT_TOLD_LOG_REFUSED)->why, "a configuration cannot be read");
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = 2, .term = 1, .corr = 2, .config = &c });
	is(3, RAFT_TOLD_LOG_IMAGE, ",\"index\":2,\"term\":1,\"why\":\"the log has that entry, and stays\"");
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 1 });
	is(3, RAFT_TOLD_LOG_TRIMMED, ",\"index\":1");
	p->n[3].last = 8;
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = 8, .term = 3, .corr = 5, .config = &c });
	assert_string_equal(must(3, RAFT_TOLD_LOG_IMAGE)->why, "the log begins anew there");
	assert_int_equal(must(3, RAFT_TOLD_CONFIG_APPENDED)->v[0], 8);
	pilot_close(p);
}

/* ---- peers ---- */

static void replication(void **state)
{
	struct pilot *p = open_with(3, 0, (struct raft_init){ .append_max_bytes = 200, .window_bytes = 3200 });

	(void)state;
	assert_true(must(1, RAFT_TOLD_PEER_REPLICATE)->v[1] >= 1 && must(1, RAFT_TOLD_PEER_LEVEL)->v[0] == RAFT_LEVEL);
	assert_int_equal(times(1, RAFT_TOLD_PEER_LEVEL), 2);
	/* from one append to the most: told when it has doubled */
	fill_log(p, 100);
	const struct raft_told *t = must(1, RAFT_TOLD_PEER_WINDOW);
	assert_true(t->v[0] > 800 && times(1, RAFT_TOLD_PEER_WINDOW) <= 2 * 4);
	/* catch-up rounds: the first of each peer alone, who keeps up has told nothing since */
	assert_int_equal(times(1, RAFT_TOLD_PEER_ROUND), 2);
	assert_true(must(1, RAFT_TOLD_PEER_ROUND)->v[0] == 1);
	n_kept = 0;
	p->cut[1][2] = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	p->cut[1][2] = false;
	assert_null(find(1, RAFT_TOLD_PEER_STALLED)); /* nothing was heard of it either */
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_propose(p, 1, 1);
	pilot_wait(p, 200000);
	t = must(1, RAFT_TOLD_PEER_STALLED);
	assert_true(t->v[0] >= 100000 && must(1, RAFT_TOLD_PEER_PROBE)->peer == t->peer);
	pilot_close(p);
}

/* What a node had from another leader differs: the way back is told. */
static void logs_differ(void **state)
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
	const struct raft_told *t = must(1, RAFT_TOLD_PEER_REFUSED);
	assert_true(t->peer == 3 && t->v[0] == 4 && t->v[1] == 3);
	is(3, RAFT_TOLD_LOG_TRUNCATED, ",\"from_index\":3,\"last_index\":6");
	pilot_close(p);
}

static void full_witness(void **state)
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
	assert_string_equal(must(3, RAFT_TOLD_LOG_REFUSED)->why, "the log of this witness is full");
	pilot_wait(p, 100000);
	assert_true(must(1, RAFT_TOLD_PEER_FULL)->peer == 3 && !strcmp(must(1, RAFT_TOLD_PEER_FULL)->why, "it takes no more entries"));
	pilot_isolate(p, 2, false);
	pilot_wait(p, 1500000);
	assert_string_equal(must(1, RAFT_TOLD_PEER_FULL)->why, "it takes entries again");
	assert_int_equal(times(1, RAFT_TOLD_PEER_FULL), 2);
	/* it leads when nobody else can, and hands over */
	pilot_isolate(p, 2, true);
	pilot_propose(p, 1, 1);
	pilot_run(p);
	pilot_isolate(p, 2, false);
	pilot_isolate(p, 1, true);
	for (int i = 0; i < 4000 && p->n[2].u.role != RAFT_LEADER; i++)
		pilot_wait(p, 1000);
	assert_true(must(3, RAFT_TOLD_TRANSFER_BEGUN)->peer == 2 && !strcmp(must(3, RAFT_TOLD_TRANSFER_BEGUN)->why, "a witness leads"));
	assert_null(find(3, RAFT_TOLD_TRANSFER_REFUSED));
	pilot_close(p);
}

static void forgetful(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	pilot_propose(p, 1, 5);
	pilot_wait(p, 200000);
	pilot_wipe(p, 3);
	pilot_start(p, 3);
	pilot_wait(p, 500000);
	is(3, RAFT_TOLD_ROLE_FORGETFUL, ",\"peer\":\"0000000000000001\",\"term\":1,\"last_index\":0");
	assert_true(must(1, RAFT_TOLD_PEER_FORGOT)->peer == 3 && must(1, RAFT_TOLD_PEER_FORGOT)->v[0] == 6);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_TRANSFER, .peer = 1 });
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_TIMEOUT_NOW, .from = 1, .to = 3, .term = 1, .index = 6, .log_term = 1 });
	is(3, RAFT_TOLD_ELECTION_DECLINED, ",\"peer\":\"0000000000000001\",\"its_term\":1,\"its_last_index\":6,\"why\":\"its disk was lost: it must be re-admitted first\"");
	pilot_deliver(p, vote(2, 3, 2, 9, 1));
	assert_string_equal(must(3, RAFT_TOLD_ELECTION_REFUSED)->why, "what this node has promised is lost");
	assert_int_equal(pilot_config(p, 1, "vvl"), WIRE_OK);
	pilot_wait(p, 500000);
	assert_true(must(3, RAFT_TOLD_ROLE_READMITTED)->v[1] >= 6 && times(3, RAFT_TOLD_ROLE_FORGETFUL) == 1);
	is(1, RAFT_TOLD_PEER_REMEMBERS, ",\"peer\":\"0000000000000003\",\"index\":8");
	pilot_close(p);
}

/* ---- entries from others ---- */

static void fetching(void **state)
{
	struct pilot *p = open_with(3, 0, (struct raft_init){ .catch_up_bytes = 2000, .append_max_bytes = 500, .window_msgs = 4 });
	struct wire_msg q = { .type = WIRE_MSG_FETCH_REQ, .from = 3, .to = 2, .corr = 9, .index = 200, .hint = 220 };

	(void)state;
	pilot_isolate(p, 3, true);
	fill_log(p, 120);
	pilot_isolate(p, 3, false);
	pilot_wait(p, 1500000);
	assert_int_equal(p->n[3].commit, p->n[1].last);
	const struct raft_told *t = must(3, RAFT_TOLD_FETCH_ASKED);
	uint64_t source = t->peer;
	assert_true(source == 2 && !strcmp(t->why, "to catch up"));
	assert_true(must(source, RAFT_TOLD_FETCH_SERVED)->peer == 3 && must(3, RAFT_TOLD_FETCH_TAKEN)->peer == source);
	assert_true(must(3, RAFT_TOLD_FETCH_ENDED)->peer == source && !strcmp(must(3, RAFT_TOLD_FETCH_ENDED)->why, "done"));
	t = must(1, RAFT_TOLD_PEER_SOURCE);
	assert_true(t->peer == 3 && !t->v[0] && !strcmp(t->why, "it has that"));
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_CATCH_UP, .from = 1, .to = 3, .term = 1, .index = 200, .hint = 9 });
	is(3, RAFT_TOLD_FETCH_DECLINED, ",\"peer\":\"0000000000000009\",\"upto_index\":200,\"commit_index\":121,\"why\":\"it is no other member that this node knows\"");
	pilot_deliver(p, q);
	is(2, RAFT_TOLD_FETCH_REFUSED, ",\"peer\":\"0000000000000003\",\"first_index\":201,\"have_index\":121,\"why\":\"that is not known to be committed here\"");
	/* a hole */
	pilot_stop(p, 3);
	pilot_damage(p, 3, 10);
	pilot_start(p, 3);
	pilot_wait(p, 200000);
	is(3, RAFT_TOLD_FETCH_FILLED, ",\"index\":10");
	assert_string_equal(must(3, RAFT_TOLD_FETCH_ASKED)->why, "a hole");
	/* trimmed */
	pilot_isolate(p, 3, true);
	fill_log(p, 10);
	pilot_wait(p, 200000);
	for (uint64_t id = 1; id <= 2; id++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = p->n[1].commit });
	pilot_propose(p, 1, 1);
	pilot_isolate(p, 3, false);
	pilot_wait(p, 1500000);
	t = must(1, RAFT_TOLD_PEER_SNAPSHOT);
	assert_true(t->peer == 3 && t->v[1] <= 133);
	t = must(3, RAFT_TOLD_ROLE_IMAGE);
	assert_true(t->peer == 1 && t->v[0] > t->v[1] && times(3, RAFT_TOLD_ROLE_IMAGE) == 1);
	pilot_close(p);
}

/* ---- membership, leadership ---- */

static void configurations(void **state)
{
	struct pilot *p = pilot_open_led(3, 1);

	(void)state;
	assert_int_equal(pilot_config(p, 2, "vv"), WIRE_NOTLEADER);
	assert_string_equal(must(2, RAFT_TOLD_CONFIG_REFUSED)->why, "this node does not lead");
	assert_int_equal(pilot_config(p, 1, "vv-l"), WIRE_OK);
	assert_int_equal(pilot_config(p, 1, "vv"), WIRE_BUSY);
	is(1, RAFT_TOLD_CONFIG_REFUSED, ",\"index\":2,\"why\":\"an earlier change, or the first entry of this leader, is not committed yet\"");
	assert_true(must(1, RAFT_TOLD_CONFIG_APPENDED)->v[0] == 2 && must(1, RAFT_TOLD_CONFIG_APPENDED)->v[1] == 4 && must(1, RAFT_TOLD_CONFIG_APPENDED)->v[2] == 1);
	pilot_wait(p, 1000000);
	for (uint64_t id = 1; id <= 2; id++) {
		const struct raft_told *t = must(id, RAFT_TOLD_CONFIG_COMMITTED);
		assert_true(t->v[0] == 3 && t->v[1] == 3 && !t->v[2] && t->v[3] == RAFT_LEVEL && times(id, RAFT_TOLD_CONFIG_COMMITTED) == 2);
	}
	pilot_wait(p, 2000000); /* it asks for votes, and is told */
	assert_true(times(3, RAFT_TOLD_ROLE_REMOVED) >= 1);
	assert_int_equal(pilot_config(p, 1, "-v-l"), WIRE_OK);
	pilot_wait(p, 100000);
	is(1, RAFT_TOLD_ROLE_LEFT_OUT, ",\"index\":5");
	pilot_close(p);
}

static void transfers(void **state)
{
	struct raft_config c = { .level = RAFT_LEVEL };
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	assert_int_equal(pilot_transfer(p, 1, 9), WIRE_INVALID);
	is(1, RAFT_TOLD_TRANSFER_REFUSED, ",\"peer\":\"0000000000000009\",\"index\":1,\"why\":\"it is no other voter with a database\"");
	pilot_isolate(p, 2, true);
	assert_int_equal(pilot_transfer(p, 1, 2), WIRE_OK);
	is(1, RAFT_TOLD_TRANSFER_BEGUN, ",\"peer\":\"0000000000000002\",\"index\":1,\"match_index\":1,\"why\":\"asked for\"");
	is(1, RAFT_TOLD_TRANSFER_TOLD, ",\"peer\":\"0000000000000002\",\"index\":1");
	pilot_wait(p, 400000);
	assert_int_equal(times(1, RAFT_TOLD_TRANSFER_TOLD), 1);
	is(1, RAFT_TOLD_TRANSFER_GIVEN_UP, ",\"peer\":\"0000000000000002\",\"index\":1,\"why\":\"it does not lead in time\"");
	assert_string_equal(must(1, RAFT_TOLD_LOG_PROPOSED)->why, "gives the lease back after a transfer");
	pilot_close(p);
	/* for the sake of a priority */
	for (c.n = 0; c.n < 3; c.n++)
		c.m[c.n] = (struct raft_member){ .id = c.n + 1, .flags = RAFT_VOTER, .priority = (uint8_t)(c.n == 1 ? 200 : 100) };
	for (int ask = 0; ask < 2; ask++) {
		p = pilot_open_as(&c, 3);
		p->knobs.ask_first = ask;
		pilot_stop(p, 1);
		pilot_start(p, 1);
		n_kept = 0;
		pilot_elect(p, 1);
		pilot_wait(p, 3000000);
		if (ask)
			is(1, RAFT_TOLD_TRANSFER_PROPOSED, ",\"peer\":\"0000000000000002\",\"index\":1,\"match_index\":1");
		else
			assert_string_equal(must(1, RAFT_TOLD_TRANSFER_BEGUN)->why, "it comes before this node by priority");
		assert_int_equal(ask, !find(1, RAFT_TOLD_TRANSFER_BEGUN));
		pilot_close(p);
	}
}

/* The last test: the scenarios have made each event of the core, so none is in the table that is never told. */
static void none_is_left_out(void **state)
{
	(void)state;
	for (int i = 0; i < RAFT_TOLD_JOURNAL; i++)
		if (!count[i])
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
		scenario(replication),
		scenario(logs_differ),
		scenario(full_witness),
		scenario(forgetful),
		scenario(fetching),
		scenario(configurations),
		scenario(transfers),
		scenario(none_is_left_out),
	};

	pilot_on_told = on_told;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft telemetry", tests, NULL, NULL);
}
