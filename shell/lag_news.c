/* What the leader says of its members, as bytes, and since when what is committed is: the parts of lag.c that know nothing of threads and messages.
 *
 *   bytes of LAG   varint 1, varint commit index, varint number of rows, per row u64 id, u8 flags (enum node_lag_flags), varint applied index,
 *                  varint for how long (us) the first entry that it lacked had been committed when it told so (0: it lacked none), varint 1 + how long (us) nothing was
 *                  heard of it (0: never).  The message's term is the leader's.
 *   valid if       the fields end exactly at the end, there are RAFT_MEMBERS_MAX rows at most. */
#include "shell/node_impl.h"

#define SAMPLE_US 10000u
#define FORMAT 1

/* Every second one of the older half goes: what is long ago need not be known to the millisecond. */
static void thin(struct node_commits *c)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->n; i++)
		if (i >= c->n / 2 || i % 2 == 0)
			c->at[kept++] = c->at[i];
	c->n = kept;
}

void node_lag_commit(struct node_commits *c, uint64_t commit, uint64_t now_us)
{
	if (c->n && commit <= c->at[c->n - 1].index)
		return;
	if (c->n && now_us < c->at[c->n - 1].us + SAMPLE_US) { /* as if it had been that little while ago */
		c->at[c->n - 1].index = commit;
		return;
	}
	if (c->n == NODE_COMMITS)
		thin(c);
	c->at[c->n].index = commit;
	c->at[c->n++].us = now_us;
}

uint64_t node_lag_behind_us(const struct node_commits *c, uint64_t applied, uint64_t when_us)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (c->at[i].index > applied)
			return when_us > c->at[i].us ? when_us - c->at[i].us : 0;
	return 0;
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

const struct node_lag_row *node_lag_row(const struct node_lag *lag, uint64_t id)
{
	for (uint32_t i = 0; i < lag->n; i++)
		if (lag->row[i].id == id)
			return &lag->row[i];
	return NULL;
}
