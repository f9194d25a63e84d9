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
		put_text(b, ",\"");
		put_text(b, table[t->event].field[i]);
		put_text(b, "\":");
		put_number(b, t->v[i], 10, 1);
	}
	if (t->why) {
		put_text(b, ",\"why\":\"");
		put_text(b, t->why);
		put_text(b, "\"");
	}
}

void raft_tell(struct raft *r, enum raft_told_event event, uint64_t peer, uint64_t a, uint64_t b, uint64_t c)
{
	if (r->telemetry)
		raft_tell_why(r, event, peer, NULL, a, b, c);
}

void raft_tell_why(struct raft *r, enum raft_told_event event, uint64_t peer, const char *why, uint64_t a, uint64_t b, uint64_t c)
{
	if (!r->telemetry || !raft_grow(r, (void **)&r->told, &r->cap_told, r->n_told, sizeof(*r->told)))
		return;
	r->told[r->n_told++] = (struct raft_told){ .event = (uint16_t)event, .peer = peer, .why = why, .v = { a, b, c } };
}
