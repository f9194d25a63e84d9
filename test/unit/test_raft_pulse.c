/* Heartbeats, silence and hanging disks: raft/pulse.c. */
#include "test/unit/raft_pilot.h"
#include <stdlib.h>
#include <string.h>

enum { ELECTION_US = 300000 };

static uint64_t leader_of(const struct pilot *p)
{
	uint64_t best = 0;

	for (uint64_t id = 1; id <= p->count; id++)
		if (p->n[id].raft && p->n[id].u.role == RAFT_LEADER && (!best || p->n[id].u.term > p->n[best].u.term))
			best = id;
	return best;
}

/* How long it takes until somebody else leads, up to `us`. */
static uint64_t until_other(struct pilot *p, uint64_t than, uint64_t us)
{
	uint64_t from = p->now_us;

	while (p->now_us < from + us && (!leader_of(p) || leader_of(p) == than))
		pilot_wait(p, 1000);
	return p->now_us - from;
}

/* ---- disks ---- */

/* The leader's disk hangs, another voter is level: that one leads an instant after persist_us. The lease is void, reads fail. */
static void hanging_disk_hands_over(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	p->n[1].hold = true;
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	pilot_wait(p, 250000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(p->n[1].u.lease_until_us > p->now_us);
	pilot_drop_all(p);
	p->now_us += 60000;
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TICK });
	assert_int_equal(p->n[1].u.role, RAFT_FOLLOWER);
	assert_int_equal(p->n[1].u.lease_until_us, 0);
	assert_int_equal(pilot_count(p, WIRE_MSG_TIMEOUT_NOW, 1, 0), 1);
	pilot_read(p, 1, 7);
	assert_int_equal(pilot_settled(p, 1, 7)->code, WIRE_NOTLEADER);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_NOTLEADER);
	assert_true(until_other(p, 1, ELECTION_US) < 20000);
	pilot_wait(p, 10000);
	assert_int_equal(p->n[leader_of(p)].commit, 3); /* what the disk did not take was committed by the others */
	pilot_close(p);
}

/* Under load nobody is level; the others' timers do it, within three election timeouts of the disk's last sign of life. */
static void hanging_disk_under_load(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	uint64_t from = p->now_us;

	(void)state;
	p->n[1].hold = true;
	while (leader_of(p) <= 1 && p->now_us < from + 3 * ELECTION_US) {
		if (p->n[1].u.role == RAFT_LEADER && p->n[1].last < PILOT_LOG - 20)
			pilot_propose(p, 1, 1);
		p->now_us += 5000;
		for (uint64_t id = 1; id <= 3; id++)
			pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
		/* acks are never in time */
		for (uint32_t i = p->n_q; i > 0; i--)
			if (p->q[0].m.type != WIRE_MSG_APPEND_RESP || p->n[1].u.role != RAFT_LEADER)
				pilot_next(p);
			else
				pilot_next(p), pilot_propose(p, 1, p->n[1].last < PILOT_LOG - 20);
	}
	assert_true(leader_of(p) > 1);
	assert_true(p->now_us - from <= 3 * ELECTION_US);
	pilot_close(p);
}

/* A write that is not durable keeps a node from standing, as vote requests would wait for it; after it, all is as before. */
static void nobody_stands_on_a_hanging_disk(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	p->n[2].hold = true;
	pilot_propose(p, 1, 1);
	pilot_run(p);
	pilot_isolate(p, 2, true);
	p->n[1].hold = true;
	pilot_propose(p, 1, 1);
	pilot_run(p);
	pilot_isolate(p, 1, true); /* 3 has what its disk lacks */
	pilot_stop(p, 3);
	pilot_wait(p, 5 * ELECTION_US);
	for (uint64_t id = 1; id <= 2; id++) {
		assert_int_equal(p->n[id].u.role, RAFT_FOLLOWER);
		assert_int_equal(p->n[id].u.term, 1);
	}
	pilot_step(p, 2, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = p->n[2].last, .term = 1 });
	pilot_wait(p, 2 * ELECTION_US);
	assert_int_equal(p->n[2].u.role, RAFT_PRECANDIDATE);
	pilot_close(p);
}

/* Where all disks are slow another leader would do no better: it goes on, or no entry would ever be committed. */
static void slow_disks_everywhere(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	uint64_t term = p->n[1].u.term;

	(void)state;
	for (int round = 0; round < 5; round++) {
		for (uint64_t id = 1; id <= 3; id++)
			p->n[id].hold = true;
		p->deaf_to[WIRE_MSG_APPEND_RESP] = true; /* they wait for the disks */
		pilot_propose(p, 1, 1);
		for (int i = 0; i < 40; i++) {
			pilot_wait(p, 10000);
			for (uint64_t id = 2; id <= 3; id++)
				assert_int_equal(p->n[id].u.term, term);
		}
		assert_int_equal(p->n[1].u.role, RAFT_LEADER);
		p->deaf_to[WIRE_MSG_APPEND_RESP] = false;
		for (uint64_t id = 1; id <= 3; id++) {
			p->n[id].hold = false;
			pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = p->n[id].last, .term = term });
		}
		pilot_wait(p, 100000);
		assert_int_equal(p->n[1].commit, p->n[1].last);
	}
	pilot_close(p);
}

/* ---- round trips ---- */

static struct raft_progress progress(struct pilot *p, uint64_t of, uint64_t peer)
{
	struct raft_progress g;

	assert_true(raft_progress_of(p->n[of].raft, peer, &g));
	return g;
}

/* The answers of a beat arrive `us` after it. */
static struct wire_msg beat(struct pilot *p, uint64_t us)
{
	struct wire_msg answer = { 0 };

	pilot_drop_all(p);
	p->now_us = p->n[1].u.deadline_us;
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TICK });
	assert_int_equal(pilot_count(p, WIRE_MSG_HEARTBEAT, 1, 2), 1);
	for (uint32_t i = p->n_q; i > 0; i--)
		pilot_next(p);
	answer = *pilot_find(p, WIRE_MSG_HEARTBEAT_RESP, 2, 1);
	p->now_us += us;
	pilot_run(p);
	return answer;
}

/* RFC 6298: 7/8 and 1/8, 3/4 and 1/4. An answer that is repeated, or names an earlier heartbeat, is no sample. */
static void round_trips_are_measured(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);
	struct wire_msg first, second;

	(void)state;
	pilot_stop(p, 1);
	pilot_stop(p, 3);
	pilot_start(p, 1);
	pilot_elect(p, 1);
	pilot_drop_all(p);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(progress(p, 1, 2).rtt_us <= 1);
	for (int i = 0; i < 100; i++)
		first = beat(p, 8000);
	assert_in_range(progress(p, 1, 2).rtt_us, 7990, 8010);
	assert_in_range(progress(p, 1, 2).rtt_var_us, 0, 20);
	second = beat(p, 16000);
	assert_in_range(progress(p, 1, 2).rtt_us, 8990, 9010);
	assert_in_range(progress(p, 1, 2).rtt_var_us, 1990, 2020);
	struct raft_progress g = progress(p, 1, 2);
	p->now_us += 5000;
	pilot_deliver(p, second);
	pilot_deliver(p, first);
	assert_int_equal(progress(p, 1, 2).rtt_us, g.rtt_us);
	assert_int_equal(progress(p, 1, 2).rtt_var_us, g.rtt_var_us);
	pilot_close(p);
}

/* A network that delays, in order, by what `delay` says. */
struct late { struct pilot_msg m; uint64_t at_us; };
struct slow_net {
	struct late v[PILOT_QUEUE];
	uint32_t n;
	uint64_t last_us[PILOT_NODES + 1][PILOT_NODES + 1], state;
	uint64_t beat_us[PILOT_NODES + 1], longest_us; /* the longest that a follower was without any sign of its leader */
};

static uint64_t draw(struct slow_net *w, uint64_t below)
{
	w->state = w->state * 6364136223846793005u + 1442695040888963407u;
	return (w->state >> 33) % below;
}

static void put(struct pilot *p, struct slow_net *w, uint64_t delay_us)
{
	for (uint32_t i = 0; i < p->n_q; i++) {
		const struct wire_msg *m = &p->q[i].m;
		uint64_t at = p->now_us + delay_us, *last = &w->last_us[m->from][m->to];
		*last = at > *last ? at : *last;
		assert_true(w->n < PILOT_QUEUE);
		w->v[w->n++] = (struct late){ .m = p->q[i], .at_us = *last };
	}
	p->n_q = 0;
}

static void get(struct pilot *p, struct slow_net *w)
{
	uint32_t kept = 0;
	static struct late due[PILOT_QUEUE];
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->n; i++) {
		if (w->v[i].at_us <= p->now_us)
			due[n++] = w->v[i];
		else
			w->v[kept++] = w->v[i];
	}
	w->n = kept;
	for (uint32_t i = 0; i < n; i++) {
		struct wire_msg *m = &due[i].m.m;
		if (m->type == WIRE_MSG_HEARTBEAT) {
			if (w->beat_us[m->to] && p->now_us - w->beat_us[m->to] > w->longest_us)
				w->longest_us = p->now_us - w->beat_us[m->to];
			w->beat_us[m->to] = p->now_us;
		}
		pilot_deliver(p, *m);
		free(due[i].m.entries);
	}
}

/* One step of a millisecond. */
static void slow_wait(struct pilot *p, struct slow_net *w, uint64_t delay_us)
{
	p->now_us += 1000;
	for (uint64_t id = 1; id <= p->count; id++)
		if (p->n[id].u.deadline_us <= p->now_us)
			pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
	put(p, w, delay_us);
	get(p, w);
	put(p, w, delay_us);
}

/* Links that stand still for up to 700 ms again and again, where the shortest election timeout is 300: once the leader has
 * measured that for some seconds, nobody stands any more. */
static void jitter_elects_nobody(void **state)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct pilot *p = pilot_open(3, 0);
		struct slow_net *w = calloc(1, sizeof(*w));
		uint64_t stall_end = 0, next = 0, term = 0, minute = 60000000;

		(void)state;
		assert_non_null(w);
		w->state = seed * 7919;
		pilot_elect(p, 1);
		p->now_us = 10000000;
		uint64_t from = p->now_us;
		while (p->now_us < from + 3 * minute) {
			if (p->now_us >= next) {
				stall_end = p->now_us + draw(w, 700000);
				next = stall_end + draw(w, 3000000);
			}
			slow_wait(p, w, (stall_end > p->now_us ? stall_end - p->now_us : 0) + draw(w, 20000));
			if (p->now_us == from + minute) {
				term = 0;
				w->longest_us = 0;
				for (uint64_t id = 1; id <= 3; id++)
					term = p->n[id].u.term > term ? p->n[id].u.term : term;
			}
			/* of the last minutes */
			for (uint64_t id = 1; id <= 3 && p->now_us > from + minute; id++)
				if (p->n[id].u.term > term)
					fail_msg("seed %u: node %u is in term %u, was %u", (unsigned)seed, (unsigned)id, (unsigned)p->n[id].u.term,
					         (unsigned)term);
		}
		assert_true(leader_of(p));
		assert_true(w->longest_us > 2 * ELECTION_US); /* the usual timer ends before that, whatever was drawn */
		for (uint32_t i = 0; i < w->n; i++)
			free(w->v[i].m.entries);
		free(w);
		pilot_close(p);
	}
}

/* A read on a follower over a network with round trips of 400 ms is answered: patience is announced as well. */
static void reads_over_a_slow_network(void **state)
{
	struct pilot *p = pilot_open_no_leases(3, 0);
	struct slow_net *w = calloc(1, sizeof(*w));

	(void)state;
	assert_non_null(w);
	for (int i = 0; i < 20000; i++)
		slow_wait(p, w, 200000);
	uint64_t leader = leader_of(p), term = p->n[1].u.term;
	assert_true(leader && p->n[leader].u.leader_ready);
	for (int i = 0; i < 60000; i++)
		slow_wait(p, w, 200000);
	assert_int_equal(p->n[1].u.term, term);
	pilot_read(p, leader, 5);
	pilot_read(p, leader % 3 + 1, 6);
	for (int i = 0; i < 2000; i++)
		slow_wait(p, w, 200000);
	assert_int_equal(pilot_settled(p, leader, 5)->code, WIRE_OK);
	assert_int_equal(pilot_settled(p, leader % 3 + 1, 6)->code, WIRE_OK);
	for (uint32_t i = 0; i < w->n; i++)
		free(w->v[i].m.entries);
	free(w);
	pilot_close(p);
}

/* ---- idle groups ---- */

/* Counts what goes over the network meanwhile. */
static uint32_t wait_counting(struct pilot *p, uint64_t us, enum wire_msg_type type)
{
	uint64_t end = p->now_us + us;
	uint32_t n = 0;

	while (p->now_us < end) {
		p->now_us += 1000;
		for (uint64_t id = 1; id <= p->count; id++)
			if (p->n[id].raft && p->n[id].u.deadline_us <= pilot_clock(p, id))
				pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
		while (p->n_q) {
			n += !type || p->q[0].m.type == type;
			pilot_next(p);
		}
	}
	return n;
}

static struct pilot *open_idle(void)
{
	struct pilot *p = pilot_open_led(3, 0);

	pilot_wait(p, 20 * ELECTION_US);
	return p;
}

/* Less than a message a second for each peer, answers counted; nobody stands. The first read, and the first proposal, wait for
 * their own round only, and the lease comes back with it. */
static void idle_group_is_quiet(void **state)
{
	struct pilot *p = open_idle();

	(void)state;
	assert_true(wait_counting(p, 60000000, 0) < 2 * 60);
	assert_int_equal(leader_of(p), 1);
	assert_int_equal(p->n[1].u.term, 1);
	pilot_wait(p, 200000);
	assert_true(p->n[1].u.lease_until_us <= p->now_us);
	pilot_read(p, 1, 3);
	pilot_run(p); /* no time passes */
	assert_int_equal(pilot_settled(p, 1, 3)->code, WIRE_OK);
	assert_true(p->n[1].u.lease_until_us > p->now_us);
	assert_true(wait_counting(p, 1000000, WIRE_MSG_HEARTBEAT) >= 2 * 19);
	assert_true(p->n[1].u.lease_until_us > p->now_us);
	pilot_wait(p, 20 * ELECTION_US);
	assert_true(wait_counting(p, 60000000, 0) < 2 * 60);
	assert_int_equal(pilot_propose(p, 1, 1), WIRE_OK);
	assert_int_equal(pilot_count(p, WIRE_MSG_APPEND, 1, 0), 2);
	pilot_run(p);
	assert_int_equal(p->n[1].commit, 2);
	pilot_close(p);
}

/* A read on a follower of an idle group costs its round. */
static void idle_group_answers_followers(void **state)
{
	struct pilot *p = open_idle();

	(void)state;
	pilot_read(p, 3, 4);
	pilot_run(p);
	assert_int_equal(pilot_settled(p, 3, 4)->code, WIRE_OK);
	pilot_close(p);
}

/* As long as somebody reads by the lease it is renewed, though the core sees no read. */
static void used_lease_is_renewed(void **state)
{
	struct pilot *p = pilot_open_led(3, 0);

	(void)state;
	for (int i = 0; i < 200; i++) {
		pilot_wait(p, 100000);
		assert_true(p->n[1].u.lease_until_us > p->now_us);
		pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TICK, .lease_used = true });
	}
	pilot_close(p);
}

/* One heartbeat, or its answer, is lost: it is repeated before anybody's patience ends. */
static void idle_group_survives_loss(void **state)
{
	static const enum wire_msg_type lost[] = { WIRE_MSG_HEARTBEAT, WIRE_MSG_HEARTBEAT_RESP };

	(void)state;
	for (int k = 0; k < 2; k++) {
		struct pilot *p = open_idle();
		for (int i = 0; i < 20; i++) {
			p->deaf_to[lost[k]] = true;
			while (!wait_counting(p, 1000, lost[k]))
				;
			p->deaf_to[lost[k]] = false;
			wait_counting(p, 14 * ELECTION_US, 0);
			assert_int_equal(leader_of(p), 1);
			for (uint64_t id = 1; id <= 3; id++)
				assert_int_equal(p->n[id].u.term, 1);
		}
		pilot_close(p);
	}
}

/* 9.6: neither a follower that restarts, nor one that comes back after having been cut off, ends the leadership. */
static void idle_group_and_restarts(void **state)
{
	struct pilot *p = open_idle();

	(void)state;
	pilot_stop(p, 3);
	pilot_wait(p, 40 * ELECTION_US);
	pilot_start(p, 3);
	pilot_wait(p, 40 * ELECTION_US);
	assert_int_equal(p->n[3].u.leader, 1);
	pilot_isolate(p, 2, true);
	pilot_wait(p, 40 * ELECTION_US);
	pilot_isolate(p, 2, false);
	pilot_wait(p, 40 * ELECTION_US);
	assert_int_equal(p->n[2].u.leader, 1);
	for (uint64_t id = 1; id <= 3; id++)
		assert_int_equal(p->n[id].u.term, 1);
	assert_true(wait_counting(p, 60000000, 0) < 2 * 60);
	pilot_close(p);
}

/* An idle leader dies. Its host too: what was announced passes first. The process alone: links break, and the short timeout counts. */
static void idle_leader_is_replaced(void **state)
{
	struct pilot *p = open_idle();

	(void)state;
	pilot_stop(p, 1);
	assert_in_range(until_other(p, 1, 100 * ELECTION_US), 0, 22 * ELECTION_US);
	pilot_close(p);
	p = open_idle();
	pilot_stop(p, 1);
	for (uint64_t id = 2; id <= 3; id++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_UNREACHABLE, .peer = 1 });
	assert_in_range(until_other(p, 1, 100 * ELECTION_US), 0, 3 * ELECTION_US);
	pilot_close(p);
	/* A read asks in vain: that counts too. */
	p = open_idle();
	pilot_stop(p, 1);
	pilot_read(p, 2, 1);
	pilot_read(p, 3, 1);
	assert_in_range(until_other(p, 1, 100 * ELECTION_US), 0, 4 * ELECTION_US);
	assert_int_equal(pilot_settled(p, 2, 1)->code, WIRE_TIMEOUT);
	pilot_close(p);
}

/* 6.2: an idle leader that is cut off notices within what it announced; from the first demand on, within an election timeout. */
static void idle_leader_cut_off(void **state)
{
	struct pilot *p = open_idle();
	uint64_t from = p->now_us;

	(void)state;
	pilot_isolate(p, 1, true);
	while (p->n[1].u.role == RAFT_LEADER)
		pilot_wait(p, 1000);
	assert_in_range(p->now_us - from, 1, 11 * ELECTION_US);
	pilot_close(p);
	p = open_idle();
	pilot_isolate(p, 1, true);
	pilot_propose(p, 1, 1);
	from = p->now_us;
	while (p->n[1].u.role == RAFT_LEADER)
		pilot_wait(p, 1000);
	assert_in_range(p->now_us - from, ELECTION_US / 2, ELECTION_US + 1000);
	pilot_close(p);
}

/* Beats fall on multiples of the interval, the first of a leader on the moment of its election. */
static void beats_fall_on_a_grid(void **state)
{
	struct pilot *p = pilot_open(3, 0);

	(void)state;
	p->now_us += 12345;
	pilot_elect(p, 1);
	pilot_wait(p, 120000);
	for (int i = 0; i < 10; i++) {
		uint64_t due = p->n[1].u.deadline_us;
		assert_true(due > p->now_us && due <= p->now_us + 50000);
		assert_int_equal(due % 50000, 0);
		p->now_us = due;
		pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TICK });
		assert_int_equal(pilot_count(p, WIRE_MSG_HEARTBEAT, 1, 2), 1);
		pilot_run(p);
	}
	pilot_close(p);
	p = pilot_open(3, 0);
	p->deaf_to[WIRE_MSG_HEARTBEAT] = true; /* stay in the queue */
	p->now_us += 1012345;
	for (uint64_t id = 2; id <= 3; id++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
	pilot_drop_all(p);
	pilot_step(p, 1, (struct raft_event){ .type = RAFT_EV_TICK });
	while (p->n[1].u.role != RAFT_LEADER)
		assert_true(pilot_next(p));
	assert_int_equal(pilot_count(p, WIRE_MSG_HEARTBEAT, 1, 0), 2);
	pilot_close(p);
}

/* What an overtaken heartbeat announced does not count, nor more than the bound. */
static void announcements(void **state)
{
	struct pilot *p = pilot_open(3, 0);
	struct wire_msg m = { .type = WIRE_MSG_HEARTBEAT, .from = 1, .to = 2, .term = 1, .log_term = 9, .index = 2000000 };

	(void)state;
	pilot_deliver(p, m);
	assert_in_range(p->n[2].u.deadline_us - p->now_us, 2000000, 3999999);
	m.log_term = 8;
	m.index = 0;
	pilot_deliver(p, m);
	assert_in_range(p->n[2].u.deadline_us - p->now_us, 2000000, 3999999);
	m.log_term = 10;
	m.index = RAFT_LEVEL; /* less than the election timeout */
	pilot_deliver(p, m);
	assert_in_range(p->n[2].u.deadline_us - p->now_us, ELECTION_US, 2 * ELECTION_US);
	m.log_term = 11;
	m.index = UINT64_MAX >> 3;
	pilot_deliver(p, m);
	assert_in_range(p->n[2].u.deadline_us - p->now_us, 10 * ELECTION_US, 20 * ELECTION_US);
	/* votes are promised for the election timeout only (I11), pre-votes are refused for as long as announced */
	p->now_us += 2 * ELECTION_US;
	struct wire_msg v = { .type = WIRE_MSG_PREVOTE_REQ, .from = 3, .to = 2, .term = 2, .index = 5, .log_term = 1 };
	pilot_drop_all(p);
	pilot_deliver(p, v);
	assert_true(pilot_find(p, WIRE_MSG_PREVOTE_RESP, 2, 3)->flags & WIRE_MSG_REJECT);
	v.type = WIRE_MSG_VOTE_REQ;
	pilot_deliver(p, v);
	assert_false(pilot_find(p, WIRE_MSG_VOTE_RESP, 2, 3)->flags & WIRE_MSG_REJECT);
	/* another leader says nothing */
	m = (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .from = 3, .to = 2, .term = 2, .log_term = 1 };
	pilot_deliver(p, m);
	assert_in_range(p->n[2].u.deadline_us - p->now_us, ELECTION_US, 2 * ELECTION_US);
	pilot_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hanging_disk_hands_over),
		cmocka_unit_test(hanging_disk_under_load),
		cmocka_unit_test(nobody_stands_on_a_hanging_disk),
		cmocka_unit_test(slow_disks_everywhere),
		cmocka_unit_test(round_trips_are_measured),
		cmocka_unit_test(jitter_elects_nobody),
		cmocka_unit_test(reads_over_a_slow_network),
		cmocka_unit_test(idle_group_is_quiet),
		cmocka_unit_test(idle_group_answers_followers),
		cmocka_unit_test(used_lease_is_renewed),
		cmocka_unit_test(idle_group_survives_loss),
		cmocka_unit_test(idle_group_and_restarts),
		cmocka_unit_test(idle_leader_is_replaced),
		cmocka_unit_test(idle_leader_cut_off),
		cmocka_unit_test(beats_fall_on_a_grid),
		cmocka_unit_test(announcements),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft pulse", tests, NULL, NULL);
}
