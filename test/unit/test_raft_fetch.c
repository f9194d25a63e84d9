/* Catching up from a member that is not the leader: raft/fetch.c and raft/source.c; images, raft/image.c. */
#include "test/unit/raft_pilot.h"
#include <string.h>

static struct raft_progress progress(struct pilot *p, uint64_t leader, uint64_t peer)
{
	struct raft_progress g;

	assert_true(raft_progress_of(p->n[leader].raft, peer, &g));
	return g;
}

/* Node 1 leads three voters; `extra` nodes to come. A member that lacks more than 2000 bytes is sent to another one; appends hold
 * five entries. */
static struct pilot *open_world(uint32_t extra)
{
	struct pilot *p = pilot_open(3, extra);

	p->knobs.catch_up_bytes = 2000;
	p->knobs.append_max_bytes = 500;
	p->knobs.window_msgs = 4;
	for (uint64_t id = 1; id <= p->count; id++) {
		pilot_stop(p, id);
		pilot_start(p, id);
	}
	pilot_elect(p, 1);
	pilot_wait(p, 100000);
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

static void tick(struct pilot *p)
{
	p->now_us += 250;
	for (uint32_t id = 1; id <= p->count; id++)
		if (p->n[id].raft && p->n[id].u.deadline_us <= pilot_clock(p, id))
			pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
}

/* What goes to a node for so long. */
struct flow { uint32_t from_leader, from_others, catch_ups; };
static struct flow run_and_count(struct pilot *p, uint64_t us, uint64_t to)
{
	struct flow f = { 0 };
	uint64_t end = p->now_us + us;

	while (p->now_us < end) {
		tick(p);
		while (p->n_q) {
			const struct wire_msg *m = &p->q[0].m;
			if (m->to == to && m->type == WIRE_MSG_APPEND)
				f.from_leader += m->n_entries;
			if (m->to == to && m->type == WIRE_MSG_FETCH_RESP)
				f.from_others += m->n_entries;
			f.catch_ups += m->to == to && m->type == WIRE_MSG_CATCH_UP;
			assert_true(m->type != WIRE_MSG_FETCH_RESP || m->from != 1);
			pilot_next(p);
		}
	}
	return f;
}

/* The leader sends a few entries until it knows how far behind the learner is, and the rest comes from another member. Learners come
 * before voters. */
static void learner_catches_up_from_another(void **state)
{
	struct pilot *p = open_world(2);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	fill_log(p, 120);
	assert_int_equal(pilot_config(p, 1, "vvvll"), WIRE_OK);
	p->n[5].commit = 0;
	struct flow f = run_and_count(p, 1000000, 5);
	assert_int_equal(p->n[5].commit, p->n[1].last);
	assert_true(f.from_others > 100 && f.from_leader < 30 && f.catch_ups > 0);
	assert_int_equal(progress(p, 1, 5).source, 0);
	assert_int_equal(progress(p, 1, 5).match, p->n[1].last);
	assert_int_equal(p->n[5].log[50].sum, p->n[1].log[50].sum);
	/* what is proposed then comes from the leader again */
	pilot_propose(p, 1, 3);
	f = run_and_count(p, 200000, 5);
	assert_true(f.from_leader == 3 && !f.from_others);
	pilot_close(p);
}

static void source_is_a_learner_first(void **state)
{
	struct pilot *p = open_world(2);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	fill_log(p, 60);
	assert_int_equal(pilot_config(p, 1, "vvvll"), WIRE_OK);
	for (int i = 0; i < 2000 && !progress(p, 1, 5).source; i++) {
		if (!pilot_next(p))
			pilot_wait(p, 250);
	}
	assert_int_equal(progress(p, 1, 5).source, 4);
	pilot_close(p);
}

/* The source dies in the middle: another one takes over; when all are tried the leader does it itself. */
static void source_dies(void **state)
{
	struct pilot *p = open_world(2);

	(void)state;
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	fill_log(p, 160);
	p->deaf_to[WIRE_MSG_FETCH_RESP] = true;
	assert_int_equal(pilot_config(p, 1, "vvvll"), WIRE_OK);
	for (int i = 0; i < 2000 && !progress(p, 1, 5).source; i++)
		pilot_wait(p, 250);
	assert_int_equal(progress(p, 1, 5).source, 4);
	uint64_t match = progress(p, 1, 5).match;
	pilot_stop(p, 4);
	for (int i = 0; i < 4000 && (progress(p, 1, 5).source == 4 || !progress(p, 1, 5).source); i++)
		pilot_wait(p, 500);
	assert_true(progress(p, 1, 5).source == 2 || progress(p, 1, 5).source == 3);
	assert_int_equal(progress(p, 1, 5).match, match);
	p->deaf_to[WIRE_MSG_FETCH_RESP] = false;
	pilot_wait(p, 1000000);
	assert_int_equal(p->n[5].commit, p->n[1].last);
	/* nobody's answers arrive */
	pilot_stop(p, 5);
	pilot_wipe(p, 5);
	p->deaf_to[WIRE_MSG_FETCH_RESP] = true;
	pilot_start(p, 5);
	pilot_wait(p, 10000000);
	assert_int_equal(p->n[5].commit, p->n[1].last);
	pilot_close(p);
}

/* Two answers to a request, and the next request leaves with the first: never nothing on the way. */
static void link_is_kept_busy(void **state)
{
	struct pilot *p = open_world(0);
	uint32_t idle = 0, answers = 0;

	(void)state;
	pilot_isolate(p, 3, true);
	fill_log(p, 150);
	pilot_isolate(p, 3, false);
	for (int i = 0; i < 20000 && p->n[3].commit < p->n[1].last; i++) {
		while (!p->n_q)
			tick(p);
		bool first = pilot_count(p, WIRE_MSG_FETCH_RESP, 2, 3) == 2;
		if (p->n_q && p->q[0].m.type == WIRE_MSG_FETCH_RESP) {
			answers++;
			bool more = p->q[0].m.hint < p->n[1].last;
			pilot_next(p);
			idle += first && more && !pilot_count(p, WIRE_MSG_FETCH_REQ, 3, 2);
		} else {
			pilot_next(p);
		}
	}
	assert_int_equal(p->n[3].commit, p->n[1].last);
	assert_true(answers >= 10 && !idle);
	pilot_close(p);
}

/* What the source knows of in a later term than ours is not believed (I3), nor what it has not committed; what differs is replaced,
 * and no answer is a sign of the leader. */
static void what_is_taken(void **state)
{
	static const uint64_t mine[] = { 1, 1, 2, 2 };
	static struct wire_entry e[3];
	struct pilot *p = pilot_open(3, 0);
	struct wire_msg m = { .type = WIRE_MSG_CATCH_UP, .from = 1, .to = 3, .term = 4, .index = 5, .hint = 2 };

	(void)state;
	pilot_stop(p, 3);
	pilot_log(p, 3, 4, mine, 4);
	p->n[3].commit = 2;
	pilot_start(p, 3);
	pilot_deliver(p, (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .from = 1, .to = 3, .term = 4, .commit = 2 });
	pilot_drop_all(p);
	pilot_deliver(p, m);
	const struct wire_msg *q = pilot_find(p, WIRE_MSG_FETCH_REQ, 3, 2);
	assert_true(q && q->index == 2 && q->log_term == 1 && q->hint == 5 && !q->commit);
	struct wire_msg a = { .type = WIRE_MSG_FETCH_RESP, .from = 2, .to = 3, .corr = q->corr, .term = 5, .index = 2, .log_term = 1, .commit = 5,
		              .hint = 5, .n_entries = 3, .entries = e };
	for (int i = 0; i < 3; i++)
		e[i] = (struct wire_entry){ .index = 3 + (uint64_t)i, .term = 3, .kind = WIRE_ENTRY_NOOP };
	/* of a later term */
	pilot_deliver(p, a);
	assert_true(p->n[3].commit == 2 && p->n[3].log[3].term == 2);
	/* another's answer, another question's */
	a.term = 4;
	a.from = 1;
	pilot_deliver(p, a);
	a.from = 2;
	a.corr++;
	pilot_deliver(p, a);
	a.corr--;
	assert_int_equal(p->n[3].commit, 2);
	/* terms that fall */
	e[1].term = 2;
	pilot_deliver(p, a);
	assert_int_equal(p->n[3].commit, 2);
	e[1].term = 3;
	/* the last one is not committed at the source */
	a.commit = 4;
	p->now_us += 250000;
	uint64_t deadline = p->n[3].u.deadline_us;
	pilot_drop_all(p);
	pilot_deliver(p, a);
	assert_true(p->n[3].commit == 4 && p->n[3].last == 4 && p->n[3].log[3].term == 3);
	const struct wire_msg *ack = pilot_find(p, WIRE_MSG_APPEND_RESP, 3, 1);
	assert_true(ack && ack->index == 4);
	assert_true(p->n[3].u.deadline_us <= deadline || p->n[3].u.deadline_us <= p->now_us + 300000);
	/* again, and one that does not fit on: nothing */
	pilot_deliver(p, a);
	a.index = 7;
	pilot_deliver(p, a);
	assert_int_equal(p->n[3].last, 4);
	pilot_close(p);
}

/* Who is asked: only what is committed there, from what is not trimmed, to members. */
static void what_is_served(void **state)
{
	struct pilot *p = open_world(1);
	struct wire_msg q = { .type = WIRE_MSG_FETCH_REQ, .from = 3, .to = 2, .corr = 9, .index = 0, .hint = 100 };

	(void)state;
	fill_log(p, 20);
	assert_int_equal(p->n[2].commit, 21);
	pilot_drop_all(p);
	/* not committed at 2 yet */
	p->deaf_to[WIRE_MSG_HEARTBEAT] = true;
	pilot_propose(p, 1, 1);
	pilot_run(p);
	assert_true(p->n[2].last == 22 && p->n[2].commit == 21);
	pilot_drop_all(p);
	pilot_deliver(p, q);
	assert_int_equal(pilot_count(p, WIRE_MSG_FETCH_RESP, 2, 3), 2);
	const struct wire_msg *a = pilot_find(p, WIRE_MSG_FETCH_RESP, 2, 3);
	assert_true(a->corr == 9 && a->commit == 21 && a->n_entries > 0 && a->hint == a->index + a->n_entries);
	q.index = 15;
	pilot_drop_all(p);
	pilot_deliver(p, q);
	a = pilot_find(p, WIRE_MSG_FETCH_RESP, 2, 3);
	assert_int_equal(a->hint, 21);
	/* unless who asks knows the term of the last */
	q.hint = 22;
	q.commit = 1;
	pilot_drop_all(p);
	pilot_deliver(p, q);
	assert_int_equal(pilot_find(p, WIRE_MSG_FETCH_RESP, 2, 3)->hint, 22);
	q.commit = 2;
	pilot_drop_all(p);
	pilot_deliver(p, q);
	assert_int_equal(pilot_find(p, WIRE_MSG_FETCH_RESP, 2, 3)->hint, 21);
	q.index = 21;
	pilot_drop_all(p);
	pilot_deliver(p, q);
	assert_true(pilot_find(p, WIRE_MSG_FETCH_RESP, 2, 3)->flags & WIRE_MSG_REJECT);
	pilot_step(p, 2, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = 10 });
	q.index = 5;
	pilot_drop_all(p);
	pilot_deliver(p, q);
	assert_true(pilot_find(p, WIRE_MSG_FETCH_RESP, 2, 3)->flags & WIRE_MSG_REJECT);
	q.from = 4;
	pilot_drop_all(p);
	pilot_deliver(p, q);
	assert_int_equal(p->n_q, 0);
	pilot_close(p);
}

/* What a member needs is trimmed at the leader: it is told so, gets an image, and goes on from there. */
static void image(void **state)
{
	struct pilot *p = open_world(1);

	(void)state;
	fill_log(p, 40);
	assert_int_equal(pilot_config(p, 1, "vvvl"), WIRE_OK);
	pilot_isolate(p, 4, true);
	pilot_run(p);
	pilot_wait(p, 200000);
	uint64_t index = p->n[1].commit, term = p->n[1].log[index].term;
	for (uint64_t id = 1; id <= 3; id++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = index });
	pilot_isolate(p, 4, false);
	assert_false(p->n[4].u.needs_image);
	pilot_wait(p, 1500000);
	assert_true(p->n[4].u.needs_image);
	assert_int_equal(progress(p, 1, 4).state, RAFT_SNAPSHOT);
	struct raft_config c = *raft_config_current(p->n[1].raft);
	p->n[4].last = index;
	p->n[4].log[index].term = term;
	pilot_step(p, 4, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = index, .term = term, .config = &c });
	assert_true(p->n[4].u.commit == index && p->n[4].u.last_index == index && !p->n[4].u.needs_image && p->n[4].u.config_changed);
	assert_int_equal(raft_config_current(p->n[4].raft)->n, 4);
	fill_log(p, 3);
	pilot_wait(p, 1000000);
	assert_int_equal(p->n[4].commit, p->n[1].last);
	/* one that is older than what is there: nothing */
	pilot_step(p, 4, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = index, .term = term, .config = &c });
	assert_int_equal(p->n[4].u.commit, p->n[1].last);
	pilot_close(p);
}

/* An image of an entry that the log has: what comes after it may have been acknowledged, and stays (I5). Of one that it has not:
 * the rest goes with it. */
static void image_and_log(void **state)
{
	static const uint64_t mine[] = { 1, 1, 2, 2, 2 };
	struct pilot *p = pilot_open(3, 0);
	struct raft_config c = p->n[3].base_config;

	(void)state;
	pilot_stop(p, 3);
	pilot_log(p, 3, 2, mine, 5);
	pilot_start(p, 3);
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = 3, .term = 2, .corr = 2, .config = &c });
	assert_true(p->n[3].u.commit == 3 && p->n[3].u.last_index == 5);
	p->n[3].last = 4;
	pilot_step(p, 3, (struct raft_event){ .type = RAFT_EV_IMAGE, .index = 4, .term = 3, .corr = 5, .config = &c });
	assert_true(p->n[3].u.commit == 4 && p->n[3].u.last_index == 4 && p->n[3].u.term == 5 && p->n[3].u.hard_state_changed);
	assert_int_equal(raft_term_of(p->n[3].raft, 4), 3);
	pilot_close(p);
}

/* What an image says came from a peer: one of another history stops the node, and is not taken. */
static void image_of_another_history(void **state)
{
	static const uint64_t terms[] = { 1, 1, 2 };
	struct wire_entry log[3];
	struct raft_init in = { .self = 3, .now_us = 1, .term = 2, .entries = log, .n_entries = 3, .commit = 3 };
	struct raft_event ev = { .type = RAFT_EV_IMAGE, .now_us = 2, .index = 2, .term = 2, .corr = 2, .config = &in.base_config };
	struct wire_err err = { 0 };
	struct raft_update u;

	(void)state;
	pilot_members(&in.base_config, "vvv");
	for (uint64_t i = 0; i < 3; i++)
		log[i] = (struct wire_entry){ .index = i + 1, .term = terms[i], .kind = WIRE_ENTRY_NOOP };
	struct raft *r = raft_new(&in, &err);
	assert_non_null(r);
	assert_int_equal(raft_step(r, &ev, &u, &err), WIRE_CORRUPT);
	assert_non_null(strstr(err.text, "another history"));
	raft_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(learner_catches_up_from_another),
		cmocka_unit_test(source_is_a_learner_first),
		cmocka_unit_test(source_dies),
		cmocka_unit_test(link_is_kept_busy),
		cmocka_unit_test(what_is_taken),
		cmocka_unit_test(what_is_served),
		cmocka_unit_test(image),
		cmocka_unit_test(image_and_log),
		cmocka_unit_test(image_of_another_history),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft catching up from others", tests, NULL, NULL);
}
