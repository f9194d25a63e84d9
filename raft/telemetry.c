/* The table of events as data, and events as JSON. */
#include "raft/telemetry.h"
#include "raft/core.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

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

static void put(struct wire_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct wire_buf *b, const char *fmt, ...)
{
	char text[160];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text))
		b->failed = true;
	else
		wire_put_bytes(b, text, (size_t)n);
}

void raft_told_put_json(const struct raft_told *t, struct wire_buf *b)
{
	put(b, "\"event\":\"%s\"", raft_told_name(t->event));
	if (t->peer)
		put(b, ",\"peer\":\"%016" PRIx64 "\"", t->peer);
	for (int i = 0; i < 4 && t->event < RAFT_TOLD_COUNT; i++)
		if (*table[t->event].field[i])
			put(b, ",\"%s\":%" PRIu64, table[t->event].field[i], t->v[i]);
	if (t->why)
		put(b, ",\"why\":\"%s\"", t->why);
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
