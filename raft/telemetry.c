/* The table of events as data, and events as JSON. */
#include "raft/telemetry.h"
#include "raft/core.h"
#include <string.h>

static const struct {
	const char *name, *field[4];
} table[RAFT_TOLD_COUNT] = {
#define X(id, name, a, b, c, d) [RAFT_TOLD_##id] = { name, { a, b, c, d } },
	RAFT_TOLD_TABLE(X)
#undef X
};

const char *raft_told_name(unsigned event)
{
	return event < RAFT_TOLD_COUNT ? table[event].name : "?";
}

static void put_text(struct wire_buf *b, const char *s)
{
	wire_put_bytes(b, s, strlen(s));
}

/* At least `width` digits. */
static void put_number(struct wire_buf *b, uint64_t v, unsigned base, int width)
{
	char digits[20];
	int at = (int)sizeof(digits);

	for (; v || width > 0 || at == (int)sizeof(digits); v /= base, width--)
		digits[--at] = "0123456789abcdef"[v % base];
	wire_put_bytes(b, digits + at, sizeof(digits) - (size_t)at);
}

void raft_told_put_json(const struct raft_told *t, struct wire_buf *b)
{
	put_text(b, "\"event\":\"");
	put_text(b, raft_told_name(t->event));
	put_text(b, "\"");
	if (t->peer) {
		put_text(b, ",\"peer\":\"");
		put_number(b, t->peer, 16, 16);
		put_text(b, "\"");
	}
	for (int i = 0; i < 4 && t->event < RAFT_TOLD_COUNT && *table[t->event].field[i]; i++) {
		const char *name = table[t->event].field[i];
		bool id = strlen(name) > 3 && !strcmp(name + strlen(name) - 3, "_id");
		put_text(b, ",\"");
		put_text(b, name);
		put_text(b, id ? "\":\"" : "\":");
		put_number(b, t->v[i], id ? 16 : 10, id ? 16 : 1);
		put_text(b, id ? "\"" : "");
	}
	if (t->why) {
		put_text(b, ",\"why\":\"");
		put_text(b, t->why);
		put_text(b, "\"");
	}
}

/* A node does not end for want of memory to tell of what it does. */
static void add(struct raft *r, struct raft_told t)
{
	bool nomem = r->nomem;

	if (r->telemetry && raft_grow(r, (void **)&r->told, &r->cap_told, r->n_told, sizeof(*r->told)))
		r->told[r->n_told++] = t;
	r->nomem = nomem;
}

void raft_tell(struct raft *r, enum raft_told_event event, uint64_t peer, uint64_t a, uint64_t b, uint64_t c)
{
	if (r->telemetry)
		raft_tell_why(r, event, peer, NULL, a, b, c);
}

void raft_tell_why(struct raft *r, enum raft_told_event event, uint64_t peer, const char *why, uint64_t a, uint64_t b, uint64_t c)
{
	add(r, (struct raft_told){ .event = (uint16_t)event, .peer = peer, .why = why, .v = { a, b, c } });
}

void raft_tell_config(struct raft *r, enum raft_told_event event, const struct raft_log_config *c)
{
	add(r, (struct raft_told){ .event = (uint16_t)event, .v = { c->index, c->config.n, c->config.joint, c->config.level } });
}

static const char *why_no_lease(const struct raft *r)
{
	if (r->role != RAFT_LEADER)
		return "it leads no more";
	if (r->lease.clock.unsure)
		return "the clock cannot tell";
	if (r->lease.told && r->commit <= r->lease.told)
		return "another member was told to stand";
	return raft_config_committed(r) ? "no quorum has renewed it" : "a change of the configuration is not committed";
}

void raft_tell_news(struct raft *r, uint64_t lease_until_us)
{
	if (!r->telemetry)
		return;
	if (!r->news.leased != !lease_until_us)
		raft_tell_why(r, lease_until_us ? RAFT_TOLD_LEASE_HELD : RAFT_TOLD_LEASE_LOST, 0, lease_until_us ? NULL : why_no_lease(r), r->term, 0, 0);
	r->news.leased = lease_until_us != 0;
	if (raft_removed(r) && !r->news.removed)
		raft_tell(r, RAFT_TOLD_ROLE_REMOVED, 0, r->term, r->commit, 0);
	r->news.removed = raft_removed(r);
}
