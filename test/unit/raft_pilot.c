#include "test/unit/raft_pilot.h"
#include "wire/hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void (*pilot_on_told)(uint64_t node, const struct raft_told *told, uint32_t n);

void pilot_members(struct raft_config *c, const char *flags)
{
	static const struct { char name; uint8_t flags; } kinds[] = {
		{ 'v', RAFT_VOTER }, { 'l', RAFT_LEARNER }, { 'w', RAFT_VOTER | RAFT_WITNESS }, { 'x', RAFT_LEARNER | RAFT_WITNESS },
	};

	c->level = RAFT_LEVEL;
	c->n = 0;
	for (uint32_t k = 0; flags[k]; k++)
		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
			if (flags[k] == kinds[i].name)
				c->m[c->n++] = (struct raft_member){ .id = k + 1, .flags = kinds[i].flags, .priority = RAFT_PRIORITY };
}

struct pilot *pilot_open_as(const struct raft_config *c, uint32_t count)
{
	struct pilot *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->now_us = 1000000;
	p->count = count;
	for (uint32_t id = 1; id <= count; id++) {
		if (raft_config_find(c, id))
			p->n[id].base_config = *c;
		pilot_start(p, id);
	}
	return p;
}

static struct pilot *open_with(uint32_t voters, uint32_t others, uint32_t drift_ppm)
{
	struct pilot *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->knobs.drift_ppm = drift_ppm;
	p->now_us = 1000000;
	p->count = voters + others;
	for (uint32_t id = 1; id <= voters; id++) {
		struct raft_config *c = &p->n[id].base_config;
		c->level = RAFT_LEVEL;
		for (uint32_t k = 1; k <= voters; k++)
			c->m[c->n++] = (struct raft_member){ .id = k, .flags = RAFT_VOTER, .priority = RAFT_PRIORITY };
	}
	for (uint32_t id = 1; id <= p->count; id++)
		pilot_start(p, id);
	return p;
}

struct pilot *pilot_open(uint32_t voters, uint32_t others)
{
	return open_with(voters, others, 0);
}

struct pilot *pilot_open_no_leases(uint32_t voters, uint32_t others)
{
	return open_with(voters, others, RAFT_NO_LEASES);
}

struct pilot *pilot_open_led(uint32_t voters, uint32_t others)
{
	struct pilot *p = pilot_open(voters, others);

	pilot_elect(p, 1);
	pilot_wait(p, 100000);
	assert_int_equal(p->n[1].u.role, RAFT_LEADER);
	assert_true(p->n[1].u.leader_ready && p->n[1].u.term == 1);
	return p;
}

void pilot_isolate(struct pilot *p, uint64_t id, bool cut)
{
	for (uint64_t k = 1; k <= p->count; k++)
		p->cut[id][k] = p->cut[k][id] = cut;
}

void pilot_stop(struct pilot *p, uint64_t id)
{
	raft_free(p->n[id].raft);
	p->n[id].raft = NULL;
	p->n[id].n_reads = 0;
}

void pilot_drop_all(struct pilot *p)
{
	for (uint32_t i = 0; i < p->n_q; i++)
		free(p->q[i].entries);
	p->n_q = 0;
}

void pilot_close(struct pilot *p)
{
	for (uint32_t id = 1; id <= p->count; id++)
		pilot_stop(p, id);
	pilot_drop_all(p);
	free(p);
}

void pilot_start(struct pilot *p, uint64_t id)
{
	struct pilot_node *n = &p->n[id];
	static struct wire_entry entries[PILOT_LOG];
	static struct raft_log_config configs[PILOT_LOG / 8];
	static uint64_t holes[PILOT_LOG];
	struct raft_init in = p->knobs;
	struct wire_err err = { 0 };

	for (uint64_t i = 1; i <= n->last; i++) {
		const struct pilot_entry *e = &n->log[i];
		entries[i - 1] = (struct wire_entry){ .index = i, .term = e->term, .kind = e->kind, .size = e->size };
		if (e->hole)
			holes[in.n_holes++] = i;
		if (e->kind != WIRE_ENTRY_CONFIG)
			continue;
		configs[in.n_configs].index = i;
		assert_int_equal(raft_config_get(e->data, e->size, &configs[in.n_configs++].config, NULL), WIRE_OK);
	}
	in.telemetry = pilot_on_told != NULL;
	in.self = id;
	in.seed = id;
	in.now_us = pilot_clock(p, id);
	in.term = n->term;
	in.vote = n->vote;
	in.base_config = n->base_config;
	in.entries = entries;
	in.n_entries = (size_t)n->last;
	in.configs = configs;
	in.commit = n->commit;
	in.applied = n->unpublished ? 0 : n->commit;
	in.forgetful = n->forgetful;
	in.holes = holes;
	n->raft = raft_new(&in, &err);
	if (!n->raft)
		fail_msg("%s", err.text);
}

void pilot_wipe(struct pilot *p, uint64_t id)
{
	struct pilot_node *n = &p->n[id];

	pilot_stop(p, id);
	n->term = n->vote = n->last = n->commit = 0;
	n->base_config.n = 0;
	n->forgetful = true;
}

void pilot_damage(struct pilot *p, uint64_t id, uint64_t index)
{
	struct pilot_entry *e = &p->n[id].log[index];

	assert_null(p->n[id].raft);
	assert_true(index && index <= p->n[id].last && e->kind != WIRE_ENTRY_CONFIG);
	e->hole = true;
	e->size = 0;
	e->sum = 0;
}

void pilot_log(struct pilot *p, uint64_t id, uint64_t term, const uint64_t *terms, uint32_t n)
{
	assert_null(p->n[id].raft);
	p->n[id].term = term;
	p->n[id].last = n;
	for (uint32_t i = 0; i < n; i++)
		p->n[id].log[i + 1] = (struct pilot_entry){ .term = terms[i], .kind = WIRE_ENTRY_DATA };
}

uint64_t pilot_clock(const struct pilot *p, uint64_t id)
{
	return p->now_us * (uint64_t)(1000000 + p->n[id].rate_ppm) / 1000000;
}

static void queue(struct pilot *p, struct pilot_node *n, const struct wire_msg *m)
{
	assert_true(p->n_q < PILOT_QUEUE);
	struct pilot_msg *q = &p->q[p->n_q++];

	*q = (struct pilot_msg){ .m = *m };
	if (!m->n_entries)
		return;
	q->entries = calloc(m->n_entries, sizeof(*q->entries));
	assert_non_null(q->entries);
	for (uint32_t i = 0; i < m->n_entries; i++) {
		struct pilot_entry *e = &n->log[m->index + 1 + i];
		assert_int_equal(e->term, m->entries[i].term);
		assert_false(e->hole);
		q->entries[i] = m->entries[i];
		q->entries[i].data = e->data;
		q->entries[i].sum = e->sum;
	}
	q->m.entries = q->entries;
}

void pilot_step(struct pilot *p, uint64_t id, struct raft_event ev)
{
	struct pilot_node *n = &p->n[id];
	struct raft_update u;
	struct wire_err err = { 0 };

	if (!n->raft)
		return;
	ev.now_us = pilot_clock(p, id);
	if (n->absolute)
		ev.clock = (struct raft_clock){ p->now_us - n->early_us, p->now_us + n->late_us, n->unsure };
	else if (n->unsure) /* it still shows something */
		ev.clock = (struct raft_clock){ ev.now_us, ev.now_us, true };
	if (raft_step(n->raft, &ev, &u, &err) != WIRE_OK)
		fail_msg("node %u: %s", (unsigned)id, err.text);
	if (pilot_on_told)
		pilot_on_told(id, u.told, u.n_told);
	u.told = NULL;
	n->term = u.term;
	n->vote = u.vote;
	n->forgetful = u.forgetful;
	if (u.prefer)
		n->preferred = u.prefer;
	if (u.truncate_from)
		n->last = u.truncate_from - 1;
	for (uint32_t i = 0; i < u.n_entries; i++) {
		const struct wire_entry *e = &u.entries[i];
		assert_true(e->index == n->last + 1 && e->index < PILOT_LOG && e->size <= sizeof(n->log[0].data));
		n->log[++n->last] = (struct pilot_entry){ .term = e->term, .kind = e->kind, .size = e->size, .sum = e->sum };
		if (e->size)
			memcpy(n->log[n->last].data, e->data, e->size);
	}
	uint64_t filled[16];
	uint32_t n_filled = 0;
	for (uint32_t i = 0; i < u.n_fills; i++) {
		const struct wire_entry *e = &u.fills[i];
		struct pilot_entry *h = &n->log[e->index];
		assert_true(h->hole && h->term == e->term && e->size <= sizeof(h->data) && n_filled < 16);
		*h = (struct pilot_entry){ .term = e->term, .kind = e->kind, .size = e->size, .sum = e->sum };
		if (e->size)
			memcpy(h->data, e->data, e->size);
		assert_int_equal(wire_hash(e->size ? (const void *)e->data : "", e->size, 0), e->sum);
		filled[n_filled++] = e->index;
	}
	for (uint32_t i = 0; i < u.n_msgs; i++)
		queue(p, n, &u.msgs[i]);
	for (uint32_t i = 0; i < u.n_reads; i++) {
		assert_true(n->n_reads < PILOT_READS);
		n->reads[n->n_reads++] = u.reads[i];
	}
	bool appended = u.n_entries > 0;
	u.msgs = NULL;
	u.entries = NULL;
	u.fills = NULL;
	u.reads = NULL;
	snprintf(n->refusal, sizeof(n->refusal), "%s", u.refusal ? u.refusal : "");
	u.refusal = NULL;
	n->u = u;
	if (appended && !n->hold) {
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = n->last, .term = n->log[n->last].term });
		n->u.proposal_code = u.proposal_code;
		n->u.proposal_index = u.proposal_index;
		n->u.config_changed |= u.config_changed;
	}
	for (uint32_t i = 0; i < n_filled && !n->hold; i++)
		pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_FILLED, .index = filled[i], .term = n->log[filled[i]].term });
	n->commit = n->u.commit;
}

void pilot_deliver(struct pilot *p, struct wire_msg m)
{
	pilot_step(p, m.to, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &m });
}

bool pilot_next(struct pilot *p)
{
	if (!p->n_q)
		return false;
	struct pilot_msg q = p->q[0];
	memmove(p->q, p->q + 1, --p->n_q * sizeof(p->q[0]));
	if (q.m.to <= p->count && !p->cut[q.m.from][q.m.to] && !p->deaf_to[q.m.type])
		pilot_deliver(p, q.m);
	free(q.entries);
	return true;
}

void pilot_run(struct pilot *p)
{
	for (uint32_t turns = 0; pilot_next(p); turns++)
		assert_true(turns < 100000);
}

void pilot_wait(struct pilot *p, uint64_t us)
{
	uint64_t end = p->now_us + us;

	while (p->now_us < end) {
		p->now_us += 250;
		for (uint32_t id = 1; id <= p->count; id++)
			if (p->n[id].raft && p->n[id].u.deadline_us <= pilot_clock(p, id))
				pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
		pilot_run(p);
	}
}

void pilot_elect(struct pilot *p, uint64_t id)
{
	p->now_us += 1000000;
	/* The others' timers end too; what they send is lost, and they wait anew. */
	for (uint32_t k = 1; k <= p->count; k++)
		if (k != id)
			pilot_step(p, k, (struct raft_event){ .type = RAFT_EV_TICK });
	pilot_drop_all(p);
	pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TICK });
	pilot_run(p);
}

int pilot_propose(struct pilot *p, uint64_t id, uint32_t n)
{
	static uint8_t data[100];
	struct wire_entry e[32];

	assert_true(n <= 32);
	for (uint32_t i = 0; i < n; i++)
		e[i] = (struct wire_entry){ .kind = WIRE_ENTRY_DATA, .size = sizeof(data), .data = data, .sum = wire_hash(data, sizeof(data), 0) };
	pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_PROPOSE, .entries = e, .n_entries = n });
	return p->n[id].u.proposal_code;
}

int pilot_change(struct pilot *p, uint64_t id, const struct raft_config *c)
{
	pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = c });
	return p->n[id].u.proposal_code;
}

int pilot_config(struct pilot *p, uint64_t id, const char *flags)
{
	struct raft_config c = { 0 };

	pilot_members(&c, flags);
	return pilot_change(p, id, &c);
}

int pilot_transfer(struct pilot *p, uint64_t id, uint64_t peer)
{
	pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_TRANSFER, .peer = peer });
	return p->n[id].u.proposal_code;
}

void pilot_read(struct pilot *p, uint64_t id, uint64_t corr)
{
	pilot_step(p, id, (struct raft_event){ .type = RAFT_EV_READ, .corr = corr });
}

const struct raft_read *pilot_settled(struct pilot *p, uint64_t id, uint64_t corr)
{
	for (uint32_t i = 0; i < p->n[id].n_reads; i++)
		if (p->n[id].reads[i].corr == corr)
			return &p->n[id].reads[i];
	return NULL;
}

static bool fits(const struct wire_msg *m, enum wire_msg_type type, uint64_t from, uint64_t to)
{
	return m->type == type && (!from || m->from == from) && (!to || m->to == to);
}

struct wire_msg *pilot_find(struct pilot *p, enum wire_msg_type type, uint64_t from, uint64_t to)
{
	for (uint32_t i = p->n_q; i > 0; i--)
		if (fits(&p->q[i - 1].m, type, from, to))
			return &p->q[i - 1].m;
	return NULL;
}

uint32_t pilot_count(struct pilot *p, enum wire_msg_type type, uint64_t from, uint64_t to)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->n_q; i++)
		n += fits(&p->q[i].m, type, from, to);
	return n;
}
