/* Replication and commit: paper 5.3, 5.4.2, figures 7 and 8; pipelining, loss, trimmed logs. */
#include "test/unit/raft_pilot.h"
#include <string.h>

static void assert_same_logs(struct pilot *p, uint64_t a, uint64_t b)
{
	assert_int_equal(p->n[a].last, p->n[b].last);
	for (uint64_t i = 1; i <= p->n[a].last; i++)
		assert_int_equal(p->n[a].log[i].term, p->n[b].log[i].term);
}

static void open_with_logs(struct pilot *p, uint64_t term, const uint64_t (*logs)[12], const uint32_t *lens)
{
	for (uint32_t id = 1; id <= p->count; id++) {
		pilot_stop(p, id);
		pilot_log(p, id, term, logs[id - 1], lens[id - 1]);
		pilot_start(p, id);
	}
}

/* Figure 7: whatever followers have, a new leader makes their logs its own. */
static void figure_7(void **state)
{
	static const uint64_t logs[7][12] = {
		{ 1, 1, 1, 4, 4, 5, 5, 6, 6, 6 },          /* leader */
		{ 1, 1, 1, 4, 4, 5, 5, 6, 6 },             /* (a) */
		{ 1, 1, 1, 4 },                            /* (b) */
		{ 1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6 },       /* (c) */
		{ 1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7 },    /* (d) */
		{ 1, 1, 1, 4, 4, 4, 4 },                   /* (e) */
		{ 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3 },       /* (f) */
	};
	static const uint32_t lens[7] = { 10, 9, 4, 11, 12, 7, 11 };
	struct pilot *p = pilot_open(7, 0);

	(void)state;
	open_with_logs(p, 7, logs, lens);
	pilot_elect(p, 1);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	pilot_wait(p, 200000);
	for (uint64_t id = 2; id <= 7; id++) {
		assert_same_logs(p, 1, id);
		assert_int_equal(p->n[id].commit, 11);
	}
	pilot_close(p);
}

/* Figure 8, 5.4.2, I12: an entry of an earlier term on a majority is not committed by counting; with one of the current
 * term above it, it is. */
static void figure_8(void **state)
{
	static const uint64_t logs[5][12] = { { 1, 2 }, { 1, 2 }, { 1 }, { 1 }, { 1, 3 } };
	static const uint32_t lens[5] = { 2, 2, 1, 1, 2 };
	struct pilot *p = pilot_open(5, 0);

	(void)state;
	open_with_logs(p, 3, logs, lens);
	p->now_us += 1000000;
	p->cut[1][5] = p->cut[5][1] = true;
	/* (c): S1 leads term 4; its own entry is not durable, and has come nowhere */
	p->n[1].hold = true;
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_elect(p, 1);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].u.term, 4);
	for (uint64_t id = 2; id <= 4; id++)
		pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND_RESP, .from = id, .to = 1, .term = 4, .index = 2 });
	assert_int_equal(p->n[1].commit, 0);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = 3, .term = 4 });
	assert_int_equal(p->n[1].commit, 0);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND_RESP, .from = 2, .to = 1, .term = 4, .index = 3 });
	assert_int_equal(p->n[1].commit, 0);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND_RESP, .from = 3, .to = 1, .term = 4, .index = 3 });
	assert_int_equal(p->n[1].commit, 3);
	pilot_close(p);
}

/* Thesis 10.2.1: the leader's own disk counts like any other; what is committed without it is published after it. */
static void slow_leader_disk(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_stop(p, 1);
	p->knobs.persist_us = 5000000;
	pilot_start(p, 1);
	pilot_elect(p, 1);
	p->n[1].hold = true;
	pilot_propose(p, 1, 1);
	assert_false(pilot_find(p, WIRE_MSG_APPEND, 1, 2)->after_persist);
	p->cut[1][3] = true;
	pilot_run(p);
	pilot_wait(p, 10000);
	assert_int_equal(p->n[1].u.commit, 1); /* one follower and nobody else: */
	assert_int_equal(p->n[2].u.commit, 1); /* it is told nothing */
	p->cut[1][3] = false;
	pilot_wait(p, 300000);
	assert_int_equal(p->n[2].commit, 2);
	assert_int_equal(p->n[1].u.commit, 1); /* I9 */
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = 2, .term = 1 });
	assert_int_equal(p->n[1].u.commit, 2);
	pilot_close(p);
}

/* What PERSISTED tells about an entry that was superseded meanwhile does not count. */
static void persisted_names_the_entry(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_entry e = { .term = 1, .kind = WIRE_ENTRY_NOOP };
	struct wire_msg m = { .type = WIRE_MSG_APPEND, .from = 2, .to = 1, .term = 1, .n_entries = 1, .entries = &e };

	(void)state;
	p->n[1].hold = true;
	pilot_deliver(p, m);
	e.term = m.term = 2;
	m.from = 3;
	m.commit = 1;
	pilot_deliver(p, m);
	assert_int_equal(p->n[1].u.truncate_from, 1);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = 1, .term = 1 });
	assert_int_equal(p->n[1].u.commit, 0);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = 1, .term = 2 });
	assert_int_equal(p->n[1].u.commit, 1);
	pilot_close(p);
}

/* Appends do not wait for each other's acks, up to the window in messages; acks open it again. */
static void pipeline_and_window(void **state)
{
	struct pilot *p = pilot_open(1, 0);
	struct raft_progress g;

	(void)state;
	pilot_close(p);
	p = pilot_open(0, 0);
	p->knobs.window_msgs = 4;
	p->count = 3;
	for (uint32_t id = 1; id <= 3; id++) {
		p->n[id].base_config.level = RAFT_LEVEL;
		for (uint64_t k = 1; k <= 3; k++)
			p->n[id].base_config.m[p->n[id].base_config.n++] = (struct raft_member){ .id = k, .flags = RAFT_VOTER };
		pilot_start(p, id);
	}
	pilot_elect(p, 1);
	for (int i = 0; i < 10; i++)
		pilot_propose(p, 1, 1);
	assert_int_equal(pilot_count(p, WIRE_MSG_APPEND, 1, 2), 4);
	assert_true(raft_progress_of(p->n[1].raft, 2, &g));
	assert_int_equal(g.state, RAFT_REPLICATE);
	assert_int_equal(g.inflight, 4);
	assert_int_equal(g.match, 1);
	assert_int_equal(raft_min_match(p->n[1].raft), 1);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, 11);
	assert_int_equal(raft_min_match(p->n[1].raft), 11);
	pilot_close(p);
}

/* Figure 2, AppendEntries 5: an append commits no further than what it is known to match, whatever lies above that. */
static void append_commits_what_it_matches(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_entry e = { .term = 1, .kind = WIRE_ENTRY_DATA };

	(void)state;
	pilot_stop(p, 2);
	pilot_log(p, 2, 1, (const uint64_t[]){ 1, 1, 1 }, 3);
	pilot_start(p, 2);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND, .from = 1, .to = 2, .term = 2, .index = 1, .log_term = 1,
		                            .commit = 3, .n_entries = 1, .entries = &e });
	assert_int_equal(p->n[2].u.commit, 2);
	assert_int_equal(pilot_find(p, WIRE_MSG_APPEND_RESP, 2, 1)->index, 2);
	pilot_close(p);
}

/* A lost ack: the answer to the next heartbeat makes up for it. */
static void lost_ack(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	p->deaf_to[WIRE_MSG_APPEND_RESP] = true;
	pilot_propose(p, 1, 3);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, 1);
	pilot_wait(p, 60000);
	assert_int_equal(p->n[1].commit, 4);
	assert_int_equal(p->n[3].commit, 4);
	pilot_close(p);
}

/* A lost append: the lack of progress is noticed and it is sent again, though nothing else is proposed. */
static void lost_append(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_propose(p, 1, 3);
	pilot_run(p);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_wait(p, 250000);
	assert_int_equal(p->n[1].commit, 4);
	assert_same_logs(p, 1, 2);
	assert_same_logs(p, 1, 3);
	pilot_close(p);
}

/* A lost append in the middle of a pipeline: the follower refuses the next one, and what is missing comes at once. */
static void gap_is_filled_at_once(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_propose(p, 1, 1);
	pilot_drop_all(p);
	pilot_propose(p, 1, 1);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, 3);
	pilot_close(p);
}

/* UNREACHABLE: back to probing from what is known; REACHABLE: it goes on. */
static void link_down_and_up(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct raft_progress g;

	(void)state;
	pilot_elect(p, 1);
	pilot_propose(p, 1, 1);
	pilot_drop_all(p);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_UNREACHABLE, .peer = 2 });
	assert_true(raft_progress_of(p->n[1].raft, 2, &g));
	assert_int_equal(g.state, RAFT_PROBE);
	assert_int_equal(g.next, g.match + 1);
	pilot_propose(p, 1, 1);
	assert_int_equal(pilot_count(p, WIRE_MSG_APPEND, 1, 2), 0);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_REACHABLE, .peer = 2 });
	assert_int_equal(pilot_count(p, WIRE_MSG_APPEND, 1, 2), 1);
	pilot_run(p);
	assert_same_logs(p, 1, 2);
	assert_int_equal(p->n[1].commit, 3);
	pilot_close(p);
}

/* Followers learn at once what is committed, without waiting for a heartbeat or another entry. */
static void commit_is_told_soon(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	pilot_propose(p, 1, 1);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, 2);
	assert_int_equal(p->n[2].commit, 1);
	assert_true(p->n[1].u.deadline_us <= p->now_us + 500);
	pilot_wait(p, 500);
	assert_int_equal(p->n[2].commit, 2);
	assert_int_equal(p->n[3].commit, 2);
	pilot_close(p);
}

/* A heartbeat never tells a commit index above what the peer is known to have. */
static void heartbeat_commit_is_limited(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	pilot_elect(p, 1);
	p->cut[1][3] = true;
	pilot_propose(p, 1, 2);
	pilot_run(p);
	p->now_us += 50000;
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TICK });
	assert_int_equal(pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 2)->commit, 3);
	assert_int_equal(pilot_find(p, WIRE_MSG_HEARTBEAT, 1, 3)->commit, 1);
	pilot_close(p);
}

/* 5.3: refused ranges are skipped by whole terms, not entry by entry. */
static void fast_back_up(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	uint64_t mine[200], other[200];

	(void)state;
	for (int i = 0; i < 200; i++) {
		mine[i] = i < 10 ? 1 : 3;
		other[i] = i < 10 ? 1 : 2;
	}
	pilot_stop(p, 1);
	pilot_stop(p, 2);
	pilot_log(p, 1, 3, mine, 150);
	pilot_log(p, 2, 3, other, 200);
	pilot_start(p, 1);
	pilot_start(p, 2);
	p->now_us += 1000000;
	pilot_elect(p, 1);
	uint64_t before = p->now_us;
	assert_same_logs(p, 1, 2);
	assert_int_equal(p->now_us, before);
	pilot_close(p);
}

/* A peer that needs what is trimmed gets heartbeats only, until it has come up by other means. */
static void trimmed_log(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct raft_progress g;

	(void)state;
	pilot_elect(p, 1);
	p->cut[1][3] = p->cut[3][1] = true;
	pilot_propose(p, 1, 20);
	pilot_wait(p, 400000);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 15 });
	assert_int_equal(raft_term_of(p->n[1].raft, 15), 1);
	assert_int_equal(raft_term_of(p->n[1].raft, 14), 0);
	p->cut[1][3] = p->cut[3][1] = false;
	pilot_wait(p, 1000000);
	assert_true(raft_progress_of(p->n[1].raft, 3, &g));
	assert_int_equal(g.state, RAFT_SNAPSHOT);
	assert_int_equal(p->n[3].commit, 1);
	/* an answer that shows that it has enough */
	pilot_stop(p, 3);
	memcpy(p->n[3].log, p->n[1].log, sizeof(p->n[1].log));
	p->n[3].last = p->n[3].commit = 16;
	pilot_start(p, 3);
	pilot_wait(p, 200000);
	assert_true(raft_progress_of(p->n[1].raft, 3, &g));
	assert_int_equal(g.state, RAFT_REPLICATE);
	assert_int_equal(p->n[3].commit, 21);
	pilot_close(p);
}

/* Nonsense from a peer changes nothing. */
static void nonsense_is_ignored(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_entry e = { .term = 9, .kind = WIRE_ENTRY_DATA };
	struct wire_msg m = { .type = WIRE_MSG_APPEND, .from = 1, .to = 2, .term = 1, .n_entries = 1, .entries = &e, .index = 1, .log_term = 1 };

	(void)state;
	pilot_elect(p, 1);
	pilot_deliver(p, m); /* a term above the leader's */
	e.term = 1;
	e.kind = 77;
	pilot_deliver(p, m);
	e.kind = WIRE_ENTRY_CONFIG; /* not a configuration */
	e.data = (const uint8_t *)"zzzz";
	e.size = 4;
	pilot_deliver(p, m);
	m.entries = NULL;
	pilot_deliver(p, m);
	m.index = UINT64_MAX;
	pilot_deliver(p, m);
	assert_int_equal(p->n[2].last, 1);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND_RESP, .from = 2, .to = 1, .term = 1, .index = 1000 });
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_APPEND, .from = 2, .to = 1, .term = 1 });
	pilot_deliver(p, (struct wire_msg){ .type = 200, .from = 2, .to = 1, .term = 1 });
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].commit, 1);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figure_7),
		cmocka_unit_test(figure_8),
		cmocka_unit_test(slow_leader_disk),
		cmocka_unit_test(persisted_names_the_entry),
		cmocka_unit_test(pipeline_and_window),
		cmocka_unit_test(append_commits_what_it_matches),
		cmocka_unit_test(lost_ack),
		cmocka_unit_test(lost_append),
		cmocka_unit_test(gap_is_filled_at_once),
		cmocka_unit_test(link_down_and_up),
		cmocka_unit_test(commit_is_told_soon),
		cmocka_unit_test(heartbeat_commit_is_limited),
		cmocka_unit_test(fast_back_up),
		cmocka_unit_test(trimmed_log),
		cmocka_unit_test(nonsense_is_ignored),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft replication", tests, NULL, NULL);
}
