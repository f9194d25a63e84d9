/* How far each member is, known on every member: the leader looks at what heartbeats' answers tell it, and now and then says it to all (LAG; lag_news.c has its bytes).
 *
 * With news LAG goes out four times a second at most, once more a second after the last news, for it may be lost, and every ten seconds when there is none: with a heartbeat that goes out anyway.
 * Ages are durations by the sender's clock, to which the receiver adds its own; they are for people, and for choosing whom to ask: nothing that is promised depends on them. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <string.h>

#define SEND_US 250000u
#define AGAIN_US 1000000u
#define REST_US 10000000u

/* --- the leader --- */

static uint8_t flags_of(const struct raft_progress *p)
{
	return (uint8_t)((p->alive ? LAG_ALIVE : 0) | (p->forgot ? LAG_FORGOT : 0) | (p->full ? LAG_FULL : 0) | (p->state == RAFT_SNAPSHOT ? LAG_IMAGE : 0));
}

static void look(struct shell_node *n, uint64_t now_us, struct node_lag *ret_lag) /* mu held */
{
	const struct node_shared *s = &n->shared;

	*ret_lag = (struct node_lag){ .at_us = now_us, .term = s->term, .leader = n->conf.node, .commit = s->commit, .n = s->config.n };
	for (uint32_t i = 0; i < s->config.n; i++) {
		struct node_lag_row *row = &ret_lag->row[i];
		const struct raft_progress *p = &s->progress[i];
		uint64_t told = n->lag_told_us[i] && n->lag_told_id[i] == s->config.m[i].id ? n->lag_told_us[i] : now_us;

		row->id = s->config.m[i].id;
		if (row->id == n->conf.node) {
			row->flags = LAG_ALIVE;
			row->applied = n->store->applied(n);
			told = now_us;
		} else {
			row->flags = flags_of(p);
			row->applied = p->applied;
			row->silent_us = !p->last_contact_us ? UINT64_MAX : now_us > p->last_contact_us ? now_us - p->last_contact_us : 0;
		}
		row->lag_us = node_lag_behind_us(&n->commits, row->applied, row->flags & LAG_ALIVE ? told : now_us);
	}
}

void node_lag_heard(struct shell_node *n, const struct wire_msg *m)
{
	const struct raft_config *c = &n->shared.config; /* this thread alone changes it */
	uint64_t now = node_now_us(n);

	if (m->from == n->shared.leader)
		atomic_store_explicit(&n->leader_heard_us, now, memory_order_relaxed);
	if (m->type != WIRE_MSG_HEARTBEAT_RESP)
		return;
	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].id == m->from) {
			n->lag_told_id[i] = m->from;
			n->lag_told_us[i] = now;
		}
}

static bool is_news(const struct node_lag *a, const struct node_lag *b)
{
	if (a->term != b->term || a->leader != b->leader || a->n != b->n || a->commit != b->commit)
		return true;
	for (uint32_t i = 0; i < a->n; i++)
		if (a->row[i].id != b->row[i].id || a->row[i].flags != b->row[i].flags || a->row[i].applied != b->row[i].applied)
			return true;
	return false;
}

static void say(struct shell_node *n, const struct node_lag *lag)
{
	struct wire_msg m = { .type = WIRE_MSG_LAG, .term = lag->term };
	struct wire_buf b = WIRE_BUF_INIT;

	node_lag_put(lag, &b);
	m.data = b.data;
	m.data_len = (uint32_t)b.len;
	for (uint32_t i = 0; i < lag->n && !b.failed; i++)
		if (lag->row[i].id != n->conf.node && (lag->row[i].flags & LAG_ALIVE))
			node_send(n, lag->row[i].id, &m);
	wire_buf_free(&b);
}

void node_lag_tick(struct shell_node *n, uint64_t now_us)
{
	struct node_lag lag;
	bool leads, news;

	pthread_mutex_lock(&n->mu);
	leads = n->shared.role == RAFT_LEADER;
	if (leads) {
		look(n, now_us, &lag);
		n->shared.lag = lag;
	}
	pthread_mutex_unlock(&n->mu);
	if (!leads || lag.n < 2)
		return;
	news = is_news(&lag, &n->lag_said);
	if (now_us < n->lag_said.at_us + (news ? SEND_US : n->lag_said_twice ? REST_US : AGAIN_US))
		return;
	n->lag_said_twice = !news;
	n->lag_said = lag;
	say(n, &lag);
}

/* --- the others --- */

void node_lag_msg(struct shell_node *n, const struct wire_link_msg *lm)
{
	const struct wire_msg *m = &lm->msg;
	struct node_lag lag;

	if (lm->guest || m->group != n->conf.group || m->to != n->conf.node || node_lag_get(m->data, m->data_len, &lag, NULL))
		return;
	lag.at_us = node_now_us(n);
	lag.term = m->term;
	lag.leader = m->from;
	pthread_mutex_lock(&n->mu);
	if (n->shared.role != RAFT_LEADER && lag.term >= n->shared.lag.term && raft_config_find(&n->shared.config, m->from))
		n->shared.lag = lag;
	pthread_mutex_unlock(&n->mu);
}

uint64_t node_known_commit(const struct shell_node *n)
{
	uint64_t known = n->shared.commit;

	if (n->shared.lag.commit > known)
		known = n->shared.lag.commit;
	if (n->fresh.known_index > known)
		known = n->fresh.known_index;
	return n->store->applied((struct shell_node *)n) > known ? n->store->applied((struct shell_node *)n) : known;
}

/* --- whom to ask instead --- */

/* A member that has the database, was alive by the latest word of a leader, and lacks least; the leader before others. */
static const struct raft_member *better(const struct shell_node *n, const struct node_lag_row **ret_row) /* mu held */
{
	const struct node_shared *s = &n->shared;
	const struct raft_member *best = NULL;

	for (uint32_t i = 0; i < s->config.n; i++) {
		const struct raft_member *m = &s->config.m[i];
		const struct node_lag_row *row = node_lag_row(&s->lag, m->id);

		if (m->id == n->conf.node || (m->flags & (RAFT_WITNESS | RAFT_AWAITED)) || !*m->url || !row || !(row->flags & LAG_ALIVE) || (row->flags & (LAG_FORGOT | LAG_IMAGE)))
			continue;
		if (!best || row->lag_us < (*ret_row)->lag_us || (row->lag_us == (*ret_row)->lag_us && m->id == s->lag.leader)) {
			best = m;
			*ret_row = row;
		}
	}
	return best;
}

void node_lag_hint(const struct shell_node *n, char dst[NODE_HINT_BYTES])
{
	const struct node_lag *lag = &n->shared.lag;
	const struct node_lag_row *row = NULL;
	const struct raft_member *m = better(n, &row);
	uint64_t age_ms = (node_now_us(n) - lag->at_us) / 1000;

	*dst = 0;
	if (m && row->applied >= lag->commit)
		snprintf(dst, NODE_HINT_BYTES, "; better try %s, which had all that was committed %llu ms ago", m->url, (unsigned long long)age_ms);
	else if (m)
		snprintf(dst, NODE_HINT_BYTES, "; better try %s, which lacked %llu entries %llu ms ago", m->url, (unsigned long long)(lag->commit - row->applied), (unsigned long long)age_ms);
}
