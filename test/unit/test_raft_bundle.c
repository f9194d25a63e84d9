/* Heartbeats of many groups in one message: raft/bundle.h; and that groups' heartbeats fall together by themselves (raft/pulse.c). */
#include "raft/bundle.h"
#include "raft/raft.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static struct wire_msg beat(uint64_t group, uint64_t from, uint64_t to)
{
	return (struct wire_msg){ .type = WIRE_MSG_HEARTBEAT, .group = group, .from = from, .to = to, .term = 7, .corr = group * 3,
		                  .commit = 1000 + group, .log_term = 5, .index = 900000, .hint = 11, .flags = WIRE_MSG_IDLE };
}

static void assert_same(const struct wire_msg *a, const struct wire_msg *b)
{
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->flags, b->flags);
	assert_true(a->group == b->group && a->from == b->from && a->to == b->to && a->corr == b->corr && a->term == b->term);
	assert_true(a->index == b->index && a->log_term == b->log_term && a->commit == b->commit && a->hint == b->hint);
}

static void in_and_out(void **state)
{
	struct raft_bundle *b = raft_bundle_new();
	struct wire_msg m, *v;
	size_t n;

	(void)state;
	assert_non_null(b);
	for (int turn = 0; turn < 3; turn++) {
		assert_false(raft_bundle_get(b, &m));
		for (uint64_t g = 1; g <= 50; g++)
			for (uint64_t to = 2; to <= 3; to++) {
				m = beat(g, 1, to);
				m.type = g % 2 ? WIRE_MSG_HEARTBEAT : WIRE_MSG_HEARTBEAT_RESP;
				assert_int_equal(raft_bundle_put(b, &m, NULL), WIRE_OK);
			}
		m = beat(9, 1, 4);
		assert_int_equal(raft_bundle_put(b, &m, NULL), WIRE_OK);
		for (uint64_t to = 2; to <= 3; to++) {
			assert_true(raft_bundle_get(b, &m));
			assert_int_equal(m.type, WIRE_MSG_BUNDLE);
			assert_int_equal(m.to, to);
			assert_int_equal(raft_bundle_open(&m, &v, &n, NULL), WIRE_OK);
			assert_int_equal(n, 50);
			for (uint64_t g = 1; g <= 50; g++) {
				struct wire_msg want = beat(g, 1, to);
				want.type = g % 2 ? WIRE_MSG_HEARTBEAT : WIRE_MSG_HEARTBEAT_RESP;
				assert_same(&v[g - 1], &want);
			}
			free(v);
		}
		/* one that is alone needs no wrapping */
		assert_true(raft_bundle_get(b, &m));
		struct wire_msg want = beat(9, 1, 4);
		assert_same(&m, &want);
	}
	assert_false(raft_bundle_get(b, &m));
	raft_bundle_free(b);
}

/* More than one bundle may hold: several, each of which the wire takes. */
static void limits(void **state)
{
	struct raft_bundle *b = raft_bundle_new();
	struct wire_buf bytes = WIRE_BUF_INIT;
	struct wire_msg m, *v;
	size_t n, all = 0, bundles = 0;
	struct wire_err err;

	(void)state;
	assert_non_null(b);
	for (uint64_t g = 1; g <= 3 * RAFT_BUNDLE_MAX - 5; g++) {
		m = beat(g << 40, UINT64_MAX - 1, UINT64_MAX);
		assert_int_equal(raft_bundle_put(b, &m, NULL), WIRE_OK);
	}
	while (raft_bundle_get(b, &m)) {
		wire_buf_reset(&bytes);
		assert_int_equal(wire_msg_encode(&m, &bytes, &err), WIRE_OK);
		assert_int_equal(raft_bundle_open(&m, &v, &n, NULL), WIRE_OK);
		assert_int_equal(v[0].group, (all + 1) << 40);
		all += n;
		bundles++;
		free(v);
	}
	assert_int_equal(all, 3 * RAFT_BUNDLE_MAX - 5);
	assert_int_equal(bundles, 3);
	m = beat(1, 1, 2);
	m.type = WIRE_MSG_APPEND;
	assert_int_equal(raft_bundle_put(b, &m, &err), WIRE_INVALID);
	m = beat(1, 1, 2);
	strcpy(m.text, "x");
	assert_int_equal(raft_bundle_put(b, &m, &err), WIRE_INVALID);
	assert_false(raft_bundle_get(b, &m));
	wire_buf_free(&bytes);
	raft_bundle_free(b);
}

/* What a bundle must not hold: other types, another sender's or addressee's, itself; nor too many. */
static void strangers_are_refused(void **state)
{
	struct wire_buf one = WIRE_BUF_INIT, data = WIRE_BUF_INIT;
	struct wire_msg *v = NULL, bad[4] = { beat(1, 1, 2), beat(1, 1, 2), beat(1, 1, 2), beat(1, 1, 2) };
	struct wire_msg m = { .type = WIRE_MSG_BUNDLE, .from = 1, .to = 2 };
	struct wire_err err;
	size_t n = 0;

	(void)state;
	bad[0].type = WIRE_MSG_VOTE_REQ;
	bad[1].from = 3;
	bad[2].to = 3;
	bad[3].type = WIRE_MSG_BUNDLE;
	for (int i = 0; i < 4; i++) {
		struct wire_msg good = beat(5, 1, 2);
		wire_buf_reset(&data);
		for (int k = 0; k < 2; k++) {
			wire_buf_reset(&one);
			assert_int_equal(wire_msg_encode(k ? &bad[i] : &good, &one, &err), WIRE_OK);
			wire_put_varint(&data, one.len);
			wire_put_bytes(&data, one.data, one.len);
		}
		m.data = data.data;
		m.data_len = (uint32_t)data.len;
		assert_int_equal(raft_bundle_open(&m, &v, &n, &err), WIRE_CORRUPT);
		assert_null(v);
	}
	wire_buf_reset(&data);
	struct wire_msg good = beat(5, 1, 2);
	wire_buf_reset(&one);
	assert_int_equal(wire_msg_encode(&good, &one, &err), WIRE_OK);
	for (uint32_t i = 0; i <= RAFT_BUNDLE_MAX; i++) {
		wire_put_varint(&data, one.len);
		wire_put_bytes(&data, one.data, one.len);
	}
	m.data = data.data;
	m.data_len = (uint32_t)data.len;
	assert_int_equal(raft_bundle_open(&m, &v, &n, &err), WIRE_CORRUPT);
	m.data_len = 0;
	assert_int_equal(raft_bundle_open(&m, &v, &n, &err), WIRE_CORRUPT);
	wire_buf_free(&one);
	wire_buf_free(&data);
}

/* Any damage: refused as a whole, or (where lengths only move between messages) still valid messages of the bundle's own. */
static void damage_is_refused(void **state)
{
	const char *given = getenv("WALRAFT_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	struct raft_bundle *b = raft_bundle_new();
	struct wire_msg m, *v;
	size_t n;

	(void)state;
	print_message("# seed %u; repeat: WALRAFT_SEED=%u test/unit/test_raft_bundle\n", seed, seed);
	srand(seed);
	assert_non_null(b);
	for (uint64_t g = 1; g <= 20; g++) {
		m = beat(g, 1, 2);
		assert_int_equal(raft_bundle_put(b, &m, NULL), WIRE_OK);
	}
	assert_true(raft_bundle_get(b, &m));
	const uint8_t *whole = m.data;
	uint32_t len = m.data_len;
	for (int i = 0; i < 200000; i++) {
		/* exactly as long as its memory, so that a sanitizer sees what is read beyond it */
		uint32_t cut = rand() % 4 ? len : (uint32_t)rand() % len;
		uint8_t *p = malloc(cut ? cut : 1);
		assert_non_null(p);
		memcpy(p, whole, cut);
		bool changed = cut < len;
		for (int k = rand() % 3; cut && k >= 0; k--) {
			uint8_t *at = &p[(uint32_t)rand() % cut], was = *at;
			*at = (uint8_t)rand();
			changed |= *at != was;
		}
		struct wire_msg d = { .type = WIRE_MSG_BUNDLE, .from = 1, .to = 2, .data = p, .data_len = cut };
		if (raft_bundle_open(&d, &v, &n, NULL) == WIRE_OK) {
			/* cut between two messages, or not damaged at all */
			for (size_t k = 0; k < n; k++) {
				struct wire_msg want = beat(k + 1, 1, 2);
				assert_same(&v[k], &want);
			}
			assert_true(!changed || n < 20 || !memcmp(p, whole, len));
			free(v);
		}
		free(p);
	}
	raft_bundle_free(b);
}

/* ---- three nodes, each a driver with as many groups as one likes ---- */

enum { NODES = 3, GROUPS_MAX = 100, ELECTION_US = 300000 };

struct host {
	struct raft *r[GROUPS_MAX];
	uint64_t due_us[GROUPS_MAX];
	struct raft_bundle *out;
	bool leads[GROUPS_MAX];
};

struct sent { struct wire_msg m; uint8_t *data; };
struct world {
	struct host h[NODES + 1];
	struct sent *q;
	size_t n_q, cap_q;
	uint64_t now_us;
	uint32_t groups;
	uint64_t sent[NODES + 1][NODES + 1], appends;
};

static void transmit(struct world *w, const struct wire_msg *m)
{
	if (w->n_q == w->cap_q) {
		w->cap_q = w->cap_q ? 2 * w->cap_q : 64;
		w->q = realloc(w->q, w->cap_q * sizeof(*w->q));
		assert_non_null(w->q);
	}
	struct sent *s = &w->q[w->n_q++];
	*s = (struct sent){ .m = *m };
	if (m->n_entries) { /* only NOOPs here */
		s->m.entries = calloc(m->n_entries, sizeof(*m->entries));
		assert_non_null(s->m.entries);
		memcpy(s->m.entries, m->entries, m->n_entries * sizeof(*m->entries));
		w->appends++;
	}
	if (m->data_len) {
		s->data = malloc(m->data_len);
		assert_non_null(s->data);
		memcpy(s->data, m->data, m->data_len);
		s->m.data = s->data;
	}
	w->sent[m->from][m->to]++;
}

static void step(struct world *w, uint64_t id, uint32_t g, struct raft_event ev)
{
	struct host *h = &w->h[id];
	struct raft_update u;
	struct wire_err err;

	ev.now_us = w->now_us;
	if (raft_step(h->r[g], &ev, &u, &err))
		fail_msg("%s", err.text);
	for (uint32_t i = 0; i < u.n_msgs; i++) {
		u.msgs[i].group = g;
		u.msgs[i].from = id;
		if (raft_bundle_takes(&u.msgs[i]))
			assert_int_equal(raft_bundle_put(h->out, &u.msgs[i], NULL), WIRE_OK);
		else
			transmit(w, &u.msgs[i]);
	}
	h->due_us[g] = u.deadline_us;
	h->leads[g] = u.role == RAFT_LEADER;
	if (!u.n_entries)
		return;
	struct raft_event done = { .type = RAFT_EV_PERSISTED, .index = u.last_index, .term = raft_term_of(h->r[g], u.last_index) };
	step(w, id, g, done);
}

static void end_turn(struct world *w, uint64_t id)
{
	struct wire_msg m;

	while (raft_bundle_get(w->h[id].out, &m))
		transmit(w, &m);
}

static void turn(struct world *w)
{
	for (uint64_t id = 1; id <= NODES; id++) {
		for (uint32_t g = 0; g < w->groups; g++)
			if (w->h[id].due_us[g] <= w->now_us)
				step(w, id, g, (struct raft_event){ .type = RAFT_EV_TICK });
		end_turn(w, id);
	}
	while (w->n_q) {
		struct sent s = w->q[0];
		memmove(w->q, w->q + 1, --w->n_q * sizeof(*w->q));
		struct wire_msg *v = NULL, *msgs = &s.m;
		size_t n = 1;
		if (s.m.type == WIRE_MSG_BUNDLE) {
			assert_int_equal(raft_bundle_open(&s.m, &v, &n, NULL), WIRE_OK);
			msgs = v;
		}
		for (size_t i = 0; i < n; i++)
			step(w, s.m.to, (uint32_t)msgs[i].group, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &msgs[i] });
		end_turn(w, s.m.to);
		free(v);
		free(s.m.entries);
		free(s.data);
	}
}

static void run(struct world *w, uint64_t us)
{
	for (uint64_t end = w->now_us + us; w->now_us < end; w->now_us += 1000)
		turn(w);
}

static void open_world(struct world *w, uint32_t groups)
{
	struct raft_init in = { .self = 0 };

	memset(w, 0, sizeof(*w));
	w->now_us = 5000000;
	w->groups = groups;
	for (uint64_t k = 1; k <= NODES; k++)
		in.base_config.m[in.base_config.n++] = (struct raft_member){ .id = k, .flags = RAFT_VOTER };
	in.base_config.level = RAFT_LEVEL; /* else a configuration follows, and this network carries no data */
	for (uint64_t id = 1; id <= NODES; id++) {
		w->h[id].out = raft_bundle_new();
		assert_non_null(w->h[id].out);
		for (uint32_t g = 0; g < groups; g++) {
			in.self = id;
			in.seed = id * 1000 + g;
			in.now_us = w->now_us;
			assert_non_null(w->h[id].r[g] = raft_new(&in, NULL));
		}
	}
}

static void close_world(struct world *w)
{
	for (uint64_t id = 1; id <= NODES; id++) {
		for (uint32_t g = 0; g < w->groups; g++)
			raft_free(w->h[id].r[g]);
		raft_bundle_free(w->h[id].out);
	}
	free(w->q);
}

/* The most that any node sends to any other one in that time. */
static uint64_t most_sent(struct world *w, uint64_t us)
{
	uint64_t most = 0;

	memset(w->sent, 0, sizeof(w->sent));
	run(w, us);
	for (uint64_t a = 1; a <= NODES; a++)
		for (uint64_t b = 1; b <= NODES; b++)
			most = w->sent[a][b] > most ? w->sent[a][b] : most;
	return most;
}

/* A hundred groups, led by whoever won: as many messages per peer as one group's, busy or idle; idle less than one a second. */
static void hundred_groups(void **state)
{
	static struct world w;
	uint64_t fast[2], idle[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		open_world(&w, i ? GROUPS_MAX : 1);
		run(&w, 2000000);
		fast[i] = most_sent(&w, 1000000);
		run(&w, 30 * ELECTION_US);
		idle[i] = most_sent(&w, 60000000);
		for (uint32_t g = 0; g < w.groups; g++)
			assert_int_equal(w.h[1].leads[g] + w.h[2].leads[g] + w.h[3].leads[g], 1);
		close_world(&w);
	}
	print_message("# per peer: one group %u messages a second, %u a minute idle; 100 groups %u and %u\n", (unsigned)fast[0], (unsigned)idle[0],
	              (unsigned)fast[1], (unsigned)idle[1]);
	/* Both send here, so that there are heartbeats and answers in either direction: twice as many, not a hundred times. */
	assert_true(fast[0] >= 19 && fast[1] <= 2 * fast[0] + 2);
	assert_true(idle[1] <= 2 * idle[0] + 2);
	assert_true(idle[1] < 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_and_out),
		cmocka_unit_test(limits),
		cmocka_unit_test(strangers_are_refused),
		cmocka_unit_test(damage_is_refused),
		cmocka_unit_test(hundred_groups),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("raft bundle", tests, NULL, NULL);
}
