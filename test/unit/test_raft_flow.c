/* Windows, batches, back-off, catching up, backlog: raft/flow.c. */
#include "test/unit/raft_pilot.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

static struct raft_progress progress(struct pilot *p, uint64_t of, uint64_t peer)
{
	struct raft_progress g;

	assert_true(raft_progress_of(p->n[of].raft, peer, &g));
	return g;
}

/* Node 1 leads three voters that have these limits. */
static struct pilot *open_with(struct raft_init knobs)
{
	struct pilot *p = pilot_open(3, 0);

	for (uint64_t id = 1; id <= 3; id++)
		pilot_stop(p, id);
	p->knobs = knobs;
	for (uint64_t id = 1; id <= 3; id++)
		pilot_start(p, id);
	pilot_elect(p, 1);
	pilot_wait(p, 60000);
	assert_true(p->n[1].u.leader_ready);
	return p;
}

/* Bytes of entries that are on their way from 1 to 2. */
static uint64_t on_the_way(struct pilot *p)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < p->n_q; i++)
		for (uint32_t k = 0; p->q[i].m.type == WIRE_MSG_APPEND && p->q[i].m.to == 2 && k < p->q[i].m.n_entries; k++)
			bytes += p->q[i].entries[k].size;
	return bytes;
}

/* It begins at one append, grows by what is acknowledged (so it doubles with each round trip), is halved by a stall, and grows by one
 * append per window from there on; never below one append, nor above the limit. */
static void window_adapts(void **state)
{
	struct pilot *p = open_with((struct raft_init){ .append_max_bytes = 200, .window_bytes = 3200 });
	uint64_t in_flight[8] = { 0 };

	(void)state;
	p->cut[1][3] = p->cut[3][1] = true;
	assert_int_equal(progress(p, 1, 2).window_bytes, 200);
	for (int i = 0; i < 4; i++)
		pilot_propose(p, 1, 32);
	for (int trip = 0; trip < 5; trip++) {
		/* an append may pass it: while catching up that is half a window */
		in_flight[trip] = on_the_way(p);
		assert_in_range(in_flight[trip], progress(p, 1, 2).window_bytes, progress(p, 1, 2).window_bytes * 3 / 2);
		for (uint32_t n = p->n_q; n > 0; n--) /* there */
			pilot_next(p);
		for (uint32_t n = p->n_q; n > 0; n--) /* and back */
			pilot_next(p);
		assert_true(trip == 0 || in_flight[trip] >= 3200 || in_flight[trip] >= in_flight[trip - 1] * 3 / 2);
	}
	assert_int_equal(progress(p, 1, 2).window_bytes, 3200);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	/* stalls: what is sent is lost, heartbeats are answered */
	for (uint64_t w = 1600; w >= 100; w /= 2) {
		p->deaf_to[WIRE_MSG_APPEND] = true;
		pilot_propose(p, 1, 1);
		while (progress(p, 1, 2).state == RAFT_REPLICATE)
			pilot_wait(p, 1000);
		assert_int_equal(progress(p, 1, 2).window_bytes, w > 200 ? w : 200);
		p->deaf_to[WIRE_MSG_APPEND] = false;
		pilot_wait(p, 120000);
		assert_int_equal(progress(p, 1, 2).state, RAFT_REPLICATE);
	}
	/* additive from now on: one window of one append, one more append */
	uint64_t before = progress(p, 1, 2).window_bytes;
	pilot_propose(p, 1, 2);
	pilot_run(p);
	assert_in_range(progress(p, 1, 2).window_bytes, before + 50, before + 201);
	pilot_close(p);
}

/* A stalled peer gets one append with each heartbeat, and a small one, so that it goes on at once when the way is free. */
static void back_off_keeps_sending(void **state)
{
	struct pilot *p = open_with((struct raft_init){ 0 });
	uint32_t sent = 0;

	(void)state;
	p->cut[1][3] = p->cut[3][1] = true;
	p->deaf_to[WIRE_MSG_APPEND] = true;
	pilot_propose(p, 1, 32);
	pilot_run(p);
	pilot_wait(p, 400000); /* by now it is known */
	for (int ms = 0; ms < 2000; ms++) {
		p->now_us += 1000;
		for (uint64_t id = 1; id <= 2; id++)
			if (p->n[id].u.deadline_us <= p->now_us)
				pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
		while (p->n_q) {
			sent += p->q[0].m.type == WIRE_MSG_APPEND && p->q[0].m.to == 2;
			pilot_next(p);
		}
	}
	assert_in_range(sent, 35, 41);
	assert_int_equal(progress(p, 1, 2).inflight, 1);
	p->deaf_to[WIRE_MSG_APPEND] = false;
	pilot_wait(p, 60000);
	assert_int_equal(p->n[2].last, p->n[1].last);
	assert_int_equal(p->n[1].commit, p->n[1].last);
	pilot_close(p);
}

static void propose_large(struct pilot *p, uint32_t n)
{
	static uint8_t data[500];
	struct wire_entry e = { .kind = WIRE_ENTRY_DATA, .size = sizeof(data), .data = data, .sum = wire_hash(data, sizeof(data), 0) };

	for (uint32_t i = 0; i < n; i++)
		pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_PROPOSE, .entries = &e, .n_entries = 1 });
}

/* Who is far behind gets larger appends until it is caught up, then the usual ones again. */
static void catching_up(void **state)
{
	struct pilot *p = open_with((struct raft_init){ .append_max_bytes = 1000, .window_bytes = 50000 });
	uint32_t largest = 0, appends = 0;

	(void)state;
	pilot_isolate(p, 3, true);
	for (int i = 0; i < 8; i++) {
		propose_large(p, 25);
		pilot_wait(p, 20000);
	}
	assert_true(p->n[1].commit > 200);
	pilot_isolate(p, 3, false);
	for (int ms = 0; ms < 1000; ms++) {
		p->now_us += 1000;
		for (uint64_t id = 1; id <= 3; id++)
			if (p->n[id].u.deadline_us <= p->now_us)
				pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
		while (p->n_q) {
			const struct wire_msg *m = &p->q[0].m;
			if (m->type == WIRE_MSG_APPEND && m->to == 3) {
				largest = m->n_entries > largest ? m->n_entries : largest;
				appends++;
			}
			pilot_next(p);
		}
	}
	assert_int_equal(p->n[3].last, p->n[1].last);
	assert_true(largest >= 10); /* usual are two */
	assert_true(appends < 60);  /* else a hundred */
	propose_large(p, 1);
	propose_large(p, 3);
	for (uint32_t i = 0; i < p->n_q; i++)
		if (p->q[i].m.type == WIRE_MSG_APPEND)
			assert_true(p->q[i].m.n_entries <= 2);
	pilot_close(p);
}

/* With a follower stopped, no more than a window is sent to it, however long and however much is written. */
static void stopped_follower_is_bounded(void **state)
{
	struct pilot *p = open_with((struct raft_init){ .append_max_bytes = 500, .window_bytes = 2000 });
	uint64_t bytes = 0;

	(void)state;
	p->cut[3][1] = true; /* it answers nothing */
	for (int i = 0; i < 60; i++) {
		pilot_propose(p, 1, 4);
		while (p->n_q) {
			for (uint32_t k = 0; p->q[0].m.type == WIRE_MSG_APPEND && p->q[0].m.to == 3 && k < p->q[0].m.n_entries; k++)
				bytes += p->q[0].entries[k].size;
			if (p->q[0].m.to == 3)
				p->q[0].m.type = WIRE_MSG_NONE;
			pilot_next(p);
		}
		pilot_wait(p, 20000);
	}
	assert_int_equal(p->n[1].commit, p->n[1].last);
	assert_true(bytes <= 2500);
	assert_true(progress(p, 1, 3).inflight <= 5);
	pilot_close(p);
}

/* ---- over a network with a delay ---- */

enum { ONE_WAY_US = 5000, STEP_US = 100 };

struct late { struct pilot_msg m; uint64_t at_us; };
struct net {
	struct late v[PILOT_QUEUE];
	uint32_t n, appends, entries; /* to node 2 */
};

static void pass(struct pilot *p, struct net *w)
{
	uint32_t kept = 0;

	p->now_us += STEP_US;
	for (uint64_t id = 1; id <= 3; id++)
		if (p->n[id].u.deadline_us <= p->now_us)
			pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
	for (uint32_t i = 0; i < w->n; i++) {
		if (w->v[i].at_us > p->now_us) {
			w->v[kept++] = w->v[i];
			continue;
		}
		pilot_deliver(p, w->v[i].m.m);
		free(w->v[i].m.entries);
	}
	w->n = kept;
	for (uint32_t i = 0; i < p->n_q; i++) {
		const struct wire_msg *m = &p->q[i].m;
		assert_true(w->n < PILOT_QUEUE);
		w->v[w->n++] = (struct late){ .m = p->q[i], .at_us = p->now_us + ONE_WAY_US };
		w->appends += m->type == WIRE_MSG_APPEND && m->to == 2;
		w->entries += m->type == WIRE_MSG_APPEND && m->to == 2 ? m->n_entries : 0;
	}
	p->n_q = 0;
}

static void close_net(struct net *w)
{
	for (uint32_t i = 0; i < w->n; i++)
		free(w->v[i].m.entries);
	free(w);
}

/* One writer: each commit takes the round trip and nothing else. */
static void one_writer_never_waits(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	struct net *w = calloc(1, sizeof(*w));

	(void)state;
	assert_non_null(w);
	for (int i = 0; i < 20000; i++)
		pass(p, w);
	assert_in_range(progress(p, 1, 2).rtt_us, 2 * ONE_WAY_US - 200, 2 * ONE_WAY_US + 400);
	for (int i = 0; i < 100; i++) {
		uint64_t from = p->now_us;
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
		while (p->n[1].commit < p->n[1].last)
			pass(p, w);
		assert_in_range(p->now_us - from, 2 * ONE_WAY_US, 2 * ONE_WAY_US + 2 * STEP_US);
	}
	close_net(w);
	pilot_close(p);
}

/* Many at once share appends, and none waits for more than a quarter of a round trip. */
static void many_writers_share_appends(void **state)
{
	enum { WRITERS = 64, ROUNDS = 3 };
	struct pilot *p = pilot_open_led(3, 0);
	struct net *w = calloc(1, sizeof(*w));
	uint64_t index[WRITERS] = { 0 }, since[WRITERS] = { 0 }, slowest = 0;
	uint32_t left[WRITERS], open = WRITERS;

	(void)state;
	assert_non_null(w);
	for (int i = 0; i < 20000; i++)
		pass(p, w);
	w->appends = w->entries = 0;
	for (uint32_t i = 0; i < WRITERS; i++)
		left[i] = ROUNDS;
	for (uint32_t turn = 0; open; turn++) {
		for (uint32_t i = 0; i < WRITERS; i++) {
			if (index[i] && p->n[1].commit >= index[i]) {
				slowest = p->now_us - since[i] > slowest ? p->now_us - since[i] : slowest;
				index[i] = 0;
				open -= !--left[i];
			}
			/* one begins every 300 us */
			if (index[i] || !left[i] || turn < 3 * i)
				continue;
			assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
			index[i] = p->n[1].last;
			since[i] = p->now_us;
		}
		pass(p, w);
		assert_true(turn < 100000);
	}
	print_message("# 64 writers: %u entries in %u appends; slowest commit %u us with a round trip of %u us\n", (unsigned)w->entries,
	              (unsigned)w->appends, (unsigned)slowest, 2 * ONE_WAY_US);
	assert_int_equal(w->entries, WRITERS * ROUNDS);
	assert_true(w->entries >= 4 * w->appends);
	assert_true(slowest <= 2 * ONE_WAY_US + ONE_WAY_US / 2 + 500);
	close_net(w);
	pilot_close(p);
}

/* ---- backlog ---- */

static void backlog_is_refused(void **state)
{
	struct pilot *p = open_with((struct raft_init){ .uncommitted_bytes = 1000 });

	(void)state;
	pilot_isolate(p, 1, true);
	for (int i = 0; i < 10; i++)
		assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	assert_int_equal(p->n[1].u.backlog_bytes, 1000);
	uint64_t last = p->n[1].last;
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_BUSY);
	assert_int_equal(p->n[1].last, last);
	assert_int_equal(p->n[1].u.transfer_to, 0);
	pilot_isolate(p, 1, false);
	pilot_wait(p, 250000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_int_equal(p->n[1].commit, last);
	assert_int_equal(p->n[1].u.backlog_bytes, 0);
	/* a larger one, when it is alone */
	assert_int_equal(pilot_propose(p, 1, 32), WIRE_OK);
	assert_int_equal(p->n[1].u.backlog_bytes, 3200);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_BUSY);
	pilot_run(p);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	assert_int_equal(pilot_propose(p, 1, 32), WIRE_BUSY);
	assert_int_equal(p->n[2].u.backlog_bytes, 0);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(window_adapts),
		cmocka_unit_test(back_off_keeps_sending),
		cmocka_unit_test(catching_up),
		cmocka_unit_test(stopped_follower_is_bounded),
		cmocka_unit_test(one_writer_never_waits),
		cmocka_unit_test(many_writers_share_appends),
		cmocka_unit_test(backlog_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft flow", tests, NULL, NULL);
}
