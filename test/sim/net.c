/* Messages on their way: delay, loss, repetition, reordering or not, one-way and two-way cuts, slow and narrow links. */
#include "test/sim/sim.h"
#include <stdlib.h>
#include <string.h>

/* As wire_link: appends have a lane of their own, and heartbeats do not queue behind them. */
static int lane_of(const struct sim_msg *m)
{
	return m->type == WIRE_MSG_APPEND || m->type == WIRE_MSG_FETCH_RESP;
}

static uint64_t delay_us(struct sim *s, const struct sim_link *l)
{
	uint64_t d = 20 + s->p.delay_us + rng_below(&s->rng, s->p.jitter_us);

	if (s->p.slow_us && rng_chance(&s->rng, 10))
		d += rng_below(&s->rng, s->p.slow_us);
	if (l->slow_us)
		d += l->slow_us / 2 + rng_below(&s->rng, l->slow_us);
	return d;
}

static void post(struct sim *s, struct sim_msg *m)
{
	struct sim_link *l = &s->link[m->from_slot][m->to_slot];
	uint64_t at = s->now_us;
	int lane = lane_of(m);

	if (s->p.bytes_per_ms) {
		at = l->busy_us[lane] > at ? l->busy_us[lane] : at;
		at += (uint64_t)m->bytes * 1000 / s->p.bytes_per_ms;
		l->busy_us[lane] = at;
	}
	at += delay_us(s, l);
	if (s->p.fifo && at <= l->last_us[lane])
		at = l->last_us[lane] + 1;
	l->last_us[lane] = at;
	sim_post(s, (struct sim_event){ .at_us = at, .type = EV_MSG, .slot = m->to_slot, .msg = m });
}

static struct sim_msg *copy(const struct sim_msg *m)
{
	size_t head = sizeof(*m) + m->n_entries * sizeof(*m->entries), data = m->data_len;

	for (uint32_t i = 0; i < m->n_entries; i++)
		data += m->entries[i].size;
	struct sim_msg *c = malloc(head + data);
	if (!c)
		abort();
	memcpy(c, m, head + data);
	for (uint32_t i = 0; i < m->n_entries; i++)
		if (c->entries[i].size)
			c->entries[i].data = (const uint8_t *)c + (c->entries[i].data - (const uint8_t *)m);
	return c;
}

void net_send(struct sim *s, struct sim_msg *m)
{
	struct sim_link *l = &s->link[m->from_slot][m->to_slot];
	/* A link that has queued for a second drops what comes on top. */
	bool jammed = s->p.bytes_per_ms && l->busy_us[lane_of(m)] > s->now_us + 1000000;

	s->counts->sent[m->type]++;
	m->number = ++l->sent;
	if (l->cut || jammed || (s->p.loss && rng_chance(&s->rng, s->p.loss))) {
		s->counts->lost[m->type]++;
		free(m);
		return;
	}
	if (s->p.repeat && rng_chance(&s->rng, s->p.repeat)) {
		s->counts->repeated[m->type]++;
		post(s, copy(m));
	}
	post(s, m);
}

void net_arrive(struct sim *s, struct sim_msg *m)
{
	struct sim_link *l = &s->link[m->from_slot][m->to_slot];
	struct sim_node *to = &s->n[m->to_slot];

	if (l->cut || !to->up || to->id != m->to) {
		s->counts->lost[m->type]++;
		free(m);
		return;
	}
	s->counts->overtaken[m->type] += m->number < l->arrived;
	if (m->number > l->arrived)
		l->arrived = m->number;
	if (s->verbose)
		sim_trace(s, "message %llu of node %llu to node %llu: term %llu, index %llu, entries %llu", m->type, m->from, m->to, m->term,
		          m->index, m->n_entries);
	node_deliver(to, (struct sim_request){ .kind = REQ_MSG, .msg = m });
}

void net_cut(struct sim *s, uint32_t from, uint32_t to)
{
	s->link[from][to].cut = true;
}

void net_cut_off(struct sim *s, uint32_t slot)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		net_cut(s, slot, i);
		net_cut(s, i, slot);
	}
}

void net_heal(struct sim *s)
{
	for (uint32_t a = 0; a < SLOTS; a++) {
		for (uint32_t b = 0; b < SLOTS; b++) {
			s->link[a][b].cut = false;
			s->link[a][b].slow_us = 0;
		}
	}
}
