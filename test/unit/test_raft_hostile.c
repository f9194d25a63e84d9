/* A peer that says anything: messages with right and wrong numbers at random, to a core in every role. Whatever they are, the core goes
 * on, its invariants hold (raft/invariant.c), and what it says to its driver keeps to raft/README.md. A peer that lies can make the
 * group wrong, but it cannot stop this node, or make it read what is not there.
 *
 * WALRAFT_RUNS=n for more of them, WALRAFT_SEED=n to repeat one. */
#include "raft/raft.h"
#include "wire/hash.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MEMBERS = 6, ENTRIES = 6, HEARD = 64, STEPS = 3000 };

struct world {
	uint64_t rng, seed;
	struct raft *raft;
	struct raft_update u; /* of the latest step; without pointers */
	uint64_t now_us, pending_index, pending_term; /* not durable yet */
	struct wire_entry fills[64];                  /* the same */
	uint32_t n_fills;
	uint64_t heard[HEARD]; /* numbers that it has said lately */
	uint32_t n_heard;
	uint64_t asked, asked_corr; /* its latest FETCH_REQ */
	bool leveled;
	struct wire_buf bytes[ENTRIES];
	struct raft_config config;
};

static uint64_t draw(struct world *w, uint64_t n)
{
	uint64_t z = w->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31)) % n;
}

static void random_config(struct world *w, struct raft_config *c)
{
	memset(c, 0, sizeof *c);
	c->level = RAFT_LEVEL;
	for (uint32_t id = 1; id <= MEMBERS; id++) {
		static const uint8_t flags[] = { RAFT_VOTER, RAFT_VOTER, RAFT_VOTER, RAFT_VOTER | RAFT_WITNESS, RAFT_LEARNER,
		                                 RAFT_LEARNER | RAFT_WITNESS, RAFT_LEARNER | RAFT_RISING };
		if (id > 3 && draw(w, 2))
			continue;
		c->m[c->n++] = (struct raft_member){ .id = id, .priority = (uint8_t)draw(w, 200),
		                                     .flags = id < 3 ? RAFT_VOTER : flags[draw(w, sizeof flags)] };
	}
	if (!draw(w, 4)) {
		c->joint = true;
		for (uint32_t i = 0; i < c->n; i++)
			c->m[i].flags |= !i || draw(w, 2) ? RAFT_VOTER_OLD : 0;
	}
	if (!draw(w, 4)) {
		c->quorums.elect = (uint8_t)raft_config_voters(c, false);
		c->quorums.commit = (uint8_t)(1 + draw(w, c->quorums.elect));
	}
	if (!draw(w, 8))
		c->level = (uint8_t)draw(w, 5);
}

static void take_update(struct world *w, const struct raft_event *ev)
{
	struct wire_err err = { 0 };
	struct raft_update u;
	int rc = raft_step(w->raft, ev, &u, &err);

	if (rc != WIRE_OK) {
		if (rc == WIRE_VERSION && w->leveled) {
			raft_free(w->raft);
			w->raft = NULL;
			return;
		}
		fail_msg("WALRAFT_SEED=%llu: %s", (unsigned long long)w->seed, err.text);
	}
	for (uint32_t i = 0; i < u.n_msgs; i++) {
		if (u.msgs[i].type == WIRE_MSG_FETCH_REQ) {
			w->asked = u.msgs[i].to;
			w->asked_corr = u.msgs[i].corr;
		}
		w->heard[w->n_heard++ % HEARD] = draw(w, 2) ? u.msgs[i].corr : u.msgs[i].log_term;
	}
	for (uint32_t i = 0; i < u.n_fills && w->n_fills < 64; i++)
		w->fills[w->n_fills++] = u.fills[i];
	if (u.n_entries) {
		w->pending_index = u.entries[u.n_entries - 1].index;
		w->pending_term = u.entries[u.n_entries - 1].term;
	}
	u.entries = u.fills = NULL;
	u.msgs = NULL;
	u.reads = NULL;
	w->u = u;
}

static uint64_t number(struct world *w)
{
	uint64_t near = draw(w, 4) ? 0 : draw(w, 9);

	switch (draw(w, 12)) {
	case 0: return 0;
	case 1: return w->u.term + near - 1;
	case 2: return w->u.term + near;
	case 3: return w->u.last_index - near;
	case 4: return w->u.last_index + near;
	case 5: return w->u.commit - near;
	case 6: return w->u.commit + near;
	case 7:
	case 8: return w->heard[draw(w, HEARD)];
	case 9: return draw(w, 20);
	case 10: return draw(w, 40) ? w->u.commit : UINT64_MAX >> draw(w, 12);
	default: return 1 + draw(w, MEMBERS);
	}
}

static void fill_entries(struct world *w, struct wire_msg *m, struct wire_entry *e)
{
	uint64_t term = draw(w, 3) ? m->log_term : draw(w, m->term + 2);

	m->n_entries = draw(w, 3) ? (uint32_t)draw(w, ENTRIES + 1) : 0;
	m->entries = m->n_entries ? e : NULL;
	for (uint32_t i = 0; i < m->n_entries; i++) {
		term += draw(w, 5) ? 0 : 1;
		if (!draw(w, 5))
			term = m->term;
		if (!draw(w, 50))
			term = draw(w, m->term + 2);
		uint64_t ours = m->index < UINT64_MAX / 2 ? raft_term_of(w->raft, m->index + 1 + i) : 0;
		if (ours && draw(w, 2))
			term = ours;
		e[i] = (struct wire_entry){ .index = m->index + 1 + i, .term = term, .kind = WIRE_ENTRY_DATA };
		wire_buf_reset(&w->bytes[i]);
		if (!draw(w, 6)) {
			struct raft_config c;
			random_config(w, &c);
			e[i].kind = WIRE_ENTRY_CONFIG;
			raft_config_put(&c, &w->bytes[i]);
			if (!draw(w, 8) && w->bytes[i].len)
				w->bytes[i].data[draw(w, w->bytes[i].len)] ^= (uint8_t)(1u << draw(w, 8));
		} else {
			for (uint64_t k = draw(w, 40); k; k--)
				wire_put_u8(&w->bytes[i], (uint8_t)k);
		}
		e[i].data = w->bytes[i].len ? w->bytes[i].data : NULL;
		e[i].size = (uint32_t)w->bytes[i].len;
	}
}

static void say_anything(struct world *w)
{
	static const uint8_t types[] = { WIRE_MSG_PREVOTE_REQ, WIRE_MSG_PREVOTE_RESP, WIRE_MSG_VOTE_REQ, WIRE_MSG_VOTE_RESP,
	                                 WIRE_MSG_APPEND, WIRE_MSG_APPEND, WIRE_MSG_APPEND_RESP, WIRE_MSG_HEARTBEAT, WIRE_MSG_HEARTBEAT_RESP,
	                                 WIRE_MSG_READ_REQ, WIRE_MSG_READ_RESP, WIRE_MSG_TIMEOUT_NOW, WIRE_MSG_CATCH_UP, WIRE_MSG_CATCH_UP,
	                                 WIRE_MSG_FETCH_REQ, WIRE_MSG_FETCH_RESP, WIRE_MSG_FETCH_RESP, WIRE_MSG_FETCH_RESP };
	struct wire_entry entries[ENTRIES];
	struct wire_msg m = { .type = types[draw(w, sizeof types)], .to = 1, .from = w->u.leader > 1 && draw(w, 2) ? w->u.leader : draw(w, MEMBERS + 2) };

	m.term = draw(w, 20) ? w->u.term : draw(w, 3) ? w->u.term + 1 : number(w);
	m.flags = draw(w, 3) ? 0 : (uint8_t)(1u << draw(w, 7));
	m.index = number(w);
	m.log_term = draw(w, 2) ? raft_term_of(w->raft, m.index) : number(w);
	m.corr = number(w);
	m.commit = number(w);
	m.hint = number(w);
	if (m.type == WIRE_MSG_CATCH_UP && draw(w, 2)) {
		m.index = w->u.last_index + draw(w, 9);
		m.hint = 2 + draw(w, MEMBERS - 1);
	}
	if (m.type == WIRE_MSG_FETCH_RESP && draw(w, 4)) {
		m.from = w->asked;
		m.corr = w->asked_corr;
		m.index = w->u.commit + draw(w, 5) - draw(w, 5) * !draw(w, 3);
		m.log_term = raft_term_of(w->raft, m.index);
	}
	if (m.term < 1000)
		fill_entries(w, &m, entries);
	/* who asks for votes gets them, often enough to lead at times */
	if (w->u.role == RAFT_PRECANDIDATE || w->u.role == RAFT_CANDIDATE) {
		bool pre = w->u.role == RAFT_PRECANDIDATE;
		m.type = pre ? WIRE_MSG_PREVOTE_RESP : WIRE_MSG_VOTE_RESP;
		m.flags = 0;
		m.term = w->u.term + pre;
		m.n_entries = 0;
		for (uint32_t i = 0; i < HEARD && w->raft; i++) {
			m.corr = w->heard[i];
			m.from = 2 + draw(w, MEMBERS);
			take_update(w, &(struct raft_event){ .type = RAFT_EV_MESSAGE, .now_us = w->now_us, .msg = &m });
		}
		return;
	}
	for (uint64_t n = draw(w, 8) ? 1 : 2; n && w->raft; n--)
		take_update(w, &(struct raft_event){ .type = RAFT_EV_MESSAGE, .now_us = w->now_us, .msg = &m });
}

static void do_anything(struct world *w)
{
	static const uint8_t data[40];
	struct wire_entry e = { .kind = WIRE_ENTRY_DATA, .size = sizeof data, .sum = wire_hash(data, sizeof data, 0), .data = data };
	struct raft_event ev = { .type = RAFT_EV_TICK };
	struct raft_config c;
	uint64_t most = w->u.keep_above; /* it may have been made a witness */

	w->now_us += draw(w, 4) ? draw(w, 20000) : draw(w, 30) ? draw(w, 1000000) : draw(w, 100000000);
	switch (draw(w, 10)) {
	case 0:
		ev = (struct raft_event){ .type = RAFT_EV_PROPOSE, .entries = &e, .n_entries = 1 };
		break;
	case 1:
		ev = (struct raft_event){ .type = RAFT_EV_READ, .corr = draw(w, 1000) };
		break;
	case 2:
		random_config(w, &c);
		ev = (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &c };
		break;
	case 3:
		ev = (struct raft_event){ .type = RAFT_EV_TRANSFER, .peer = draw(w, MEMBERS + 1) };
		break;
	case 4:
		ev = (struct raft_event){ .type = draw(w, 2) ? RAFT_EV_REACHABLE : RAFT_EV_UNREACHABLE, .peer = draw(w, MEMBERS + 1) };
		break;
	case 5:
		ev = (struct raft_event){ .type = RAFT_EV_APPLIED, .index = w->u.commit };
		break;
	case 6:
		ev = (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = draw(w, (most < w->u.commit ? most : w->u.commit) + 1) };
		break;
	case 7:
		if (w->n_fills) {
			w->n_fills--;
			ev = (struct raft_event){ .type = RAFT_EV_FILLED, .index = w->fills[w->n_fills].index, .term = w->fills[w->n_fills].term };
		}
		break;
	default:
		break;
	}
	ev.now_us = w->now_us;
	take_update(w, &ev);
}

static void begin(struct world *w)
{
	static struct wire_entry log[40];
	uint64_t holes[40], n = draw(w, 40), term = 1;
	struct wire_err err = { 0 };

	do
		random_config(w, &w->config);
	while (w->config.joint || w->config.level != RAFT_LEVEL || raft_config_check(&w->config, NULL));
	if (!draw(w, 4)) { /* this node is the witness */
		for (uint32_t i = 0; i < w->config.n; i++)
			w->config.m[i].flags &= (uint8_t)~RAFT_WITNESS;
		w->config.m[0].flags |= RAFT_WITNESS;
	}
	struct raft_init in = { .self = 1, .seed = draw(w, UINT64_MAX), .now_us = w->now_us = 1000000, .base_config = w->config,
	                        .entries = log, .n_entries = n, .window_msgs = 4, .append_max_bytes = 200, .catch_up_bytes = 300,
	                        .keep_log_bytes = 2000, .uncommitted_bytes = 2000, .forgetful = !draw(w, 6), .telemetry = !draw(w, 2),
	                        .ask_first = !draw(w, 4), .base_index = draw(w, 2) ? 0 : 7 };
	in.base_term = in.base_index ? 1 : 0;
	in.holes = holes;
	for (uint64_t i = 0; i < n; i++) {
		term += !draw(w, 6);
		log[i] = (struct wire_entry){ .index = in.base_index + 1 + i, .term = term, .kind = WIRE_ENTRY_DATA, .size = 30 };
		if (!draw(w, 20))
			holes[in.n_holes++] = log[i].index;
	}
	if (draw(w, 2))
		in.n_holes = 0;
	in.term = term + draw(w, 3);
	in.commit = in.base_index + draw(w, n + 1);
	w->raft = raft_new(&in, &err);
	if (!w->raft)
		fail_msg("WALRAFT_SEED=%llu: %s", (unsigned long long)w->seed, err.text);
	w->n_fills = 0;
	w->pending_index = 0;
	take_update(w, &(struct raft_event){ .type = RAFT_EV_TICK, .now_us = w->now_us });
}

static void run(uint64_t seed, uint64_t led[4])
{
	struct world w = { .seed = seed, .rng = seed * 77 };

	for (int i = 0; i < ENTRIES; i++)
		w.bytes[i] = WIRE_BUF_INIT;
	w.leveled = true;
	begin(&w);
	for (uint32_t i = 0; i < STEPS && w.raft && w.u.term < 1000; i++) {
		led[w.u.role]++;
		if (draw(&w, 3))
			say_anything(&w);
		else
			do_anything(&w);
		if (w.raft && w.pending_index && draw(&w, 3)) {
			uint64_t index = w.pending_index;
			w.pending_index = 0;
			take_update(&w, &(struct raft_event){ .type = RAFT_EV_PERSISTED, .now_us = w.now_us, .index = index, .term = w.pending_term });
		}
	}
	raft_free(w.raft);
	for (int i = 0; i < ENTRIES; i++)
		wire_buf_free(&w.bytes[i]);
}

static void whatever_is_said(void **state)
{
	const char *seed = getenv("WALRAFT_SEED"), *runs = getenv("WALRAFT_RUNS");
	uint64_t n = runs ? strtoull(runs, NULL, 10) : 300, led[4] = { 0 };

	(void)state;
	if (seed) {
		run(strtoull(seed, NULL, 10), led);
		return;
	}
	for (uint64_t i = 1; i <= n; i++)
		run(i, led);
	printf("# steps as follower %llu, precandidate %llu, candidate %llu, leader %llu\n", (unsigned long long)led[0],
	       (unsigned long long)led[1], (unsigned long long)led[2], (unsigned long long)led[3]);
	assert_true(led[RAFT_FOLLOWER] && led[RAFT_CANDIDATE] && led[RAFT_LEADER] > STEPS);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(whatever_is_said) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft_hostile", tests, NULL, NULL);
}
