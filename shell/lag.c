/* How far each member is, known on every member: the leader looks at what heartbeats' answers tell it, and now and then says it to all (LAG).
 *
 *   bytes of LAG   varint 1, varint commit index, varint number of rows, per row u64 id, u8 flags (enum node_lag_flags), varint applied index,
 *                  varint for how long (us) the first entry that it lacked had been committed when it told so (0: it lacked none), varint 1 + how long (us) nothing was
 *                  heard of it (0: never).  The message's term is the leader's.
 *   valid if       the fields end exactly at the end, there are RAFT_MEMBERS_MAX rows at most.
 *
 * With news LAG goes out four times a second at most, once more a second after the last news, for it may be lost, and every ten seconds when there is none: with a heartbeat that goes out anyway.
 * Ages are durations by the sender's clock, to which the receiver adds its own; they are for people, and for choosing whom to ask: nothing that is promised depends on them. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <string.h>

#define SEND_US 250000u
#define AGAIN_US 1000000u
#define REST_US 10000000u
#define SAMPLE_US 10000u
#define FORMAT 1

/* --- since when what is committed is --- */

/* Every second one of the older half goes: what is long ago need not be known to the millisecond. */
static void thin(struct node_commits *c)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->n; i++)
		if (i >= c->n / 2 || i % 2 == 0)
			c->at[kept++] = c->at[i];
	c->n = kept;
}

void node_lag_commit(struct shell_node *n, uint64_t commit, uint64_t now_us)
{
	struct node_commits *c = &n->commits;

	if (c->n && (commit <= c->at[c->n - 1].index || now_us < c->at[c->n - 1].us + SAMPLE_US))
		return;
	if (c->n == NODE_COMMITS)
		thin(c);
	c->at[c->n].index = commit;
	c->at[c->n++].us = now_us;
}

/* For how long, at `when_us`, the entry behind `applied` had been committed; 0: it was not, as far as this node remembers. */
static uint64_t behind_us(const struct node_commits *c, uint64_t applied, uint64_t when_us)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (c->at[i].index > applied)
			return when_us > c->at[i].us ? when_us - c->at[i].us : 0;
	return 0;
}

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
		row->lag_us = behind_us(&n->commits, row->applied, row->flags & LAG_ALIVE ? told : now_us);
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

void node_lag_put(const struct node_lag *lag, struct wire_buf *b)
{
	wire_put_varint(b, FORMAT);
	wire_put_varint(b, lag->commit);
	wire_put_varint(b, lag->n);
	for (uint32_t i = 0; i < lag->n; i++) {
		const struct node_lag_row *row = &lag->row[i];

		wire_put_u64(b, row->id);
		wire_put_u8(b, row->flags);
		wire_put_varint(b, row->applied);
		wire_put_varint(b, row->lag_us);
		wire_put_varint(b, row->silent_us == UINT64_MAX ? 0 : row->silent_us + 1);
	}
}

int node_lag_get(const void *p, size_t size, struct node_lag *ret_lag, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, size);
	struct node_lag lag = { 0 };
	uint64_t format = wire_get_varint(&in), rows;

	lag.commit = wire_get_varint(&in);
	rows = wire_get_varint(&in);
	if (in.bad || format != FORMAT || rows > RAFT_MEMBERS_MAX)
		return wire_fail(err, WIRE_CORRUPT, "news of members that are no such");
	for (lag.n = 0; lag.n < rows; lag.n++) {
		struct node_lag_row *row = &lag.row[lag.n];
		uint64_t silent;

		row->id = wire_get_u64(&in);
		row->flags = wire_get_u8(&in);
		row->applied = wire_get_varint(&in);
		row->lag_us = wire_get_varint(&in);
		silent = wire_get_varint(&in);
		row->silent_us = silent ? silent - 1 : UINT64_MAX;
	}
	if (in.bad || wire_in_left(&in))
		return wire_fail(err, WIRE_CORRUPT, "news of members that are cut, or too long");
	*ret_lag = lag;
	return WIRE_OK;
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

const struct node_lag_row *node_lag_row(const struct node_lag *lag, uint64_t id)
{
	for (uint32_t i = 0; i < lag->n; i++)
		if (lag->row[i].id == id)
			return &lag->row[i];
	return NULL;
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
