/* The node's latest events (raft/telemetry.h) and how many there were of each. A ring: an asker that comes too late is told how many it
 * has missed. Heartbeats alone push all else out of it within minutes, so what is no routine has another, smaller one. */
#include "shell/events.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AT_ONCE 512 /* in one answer */

struct kept { uint64_t seq, at_us; struct raft_told told; };

struct node_events {
	pthread_mutex_t mu; /* innermost */
	uint64_t n;         /* events so far; the latest EVENTS_KEPT are in the ring */
	uint64_t count[RAFT_TOLD_COUNT];
	struct kept ring[EVENTS_KEPT];
	bool routine[RAFT_TOLD_COUNT];
	uint64_t n_rare;
	struct kept rare[EVENTS_SHOWN];
};

static bool is_routine(unsigned event)
{
	static const char *const of[] = {
		"message.", "journal.", "machine.", "log.proposed", "log.durable", "log.committed", "log.taken", "log.trimmed",
		"read.round", "read.served", "lease.", "quorum.heartbeat", "quorum.succeeded", "quorum.idle",
		"quorum.active", "peer.catch_up_round", "peer.window",
	};
	const char *name = raft_told_name(event);

	for (size_t i = 0; i < sizeof of / sizeof *of; i++)
		if (!strncmp(name, of[i], strlen(of[i])))
			return true;
	return false;
}

struct node_events *node_events_new(void)
{
	struct node_events *e = calloc(1, sizeof *e);

	if (!e)
		return NULL;
	pthread_mutex_init(&e->mu, NULL);
	for (unsigned i = 0; i < RAFT_TOLD_COUNT; i++)
		e->routine[i] = is_routine(i);
	return e;
}

void node_events_free(struct node_events *e)
{
	if (!e)
		return;
	pthread_mutex_destroy(&e->mu);
	free(e);
}

void node_events_put(struct node_events *e, const struct raft_told *told, size_t n)
{
	struct timespec t;
	uint64_t at;

	if (!n)
		return;
	clock_gettime(CLOCK_REALTIME, &t); /* for people; nothing is decided by it */
	at = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
	pthread_mutex_lock(&e->mu);
	for (size_t i = 0; i < n; i++) {
		struct kept k = { .seq = e->n + 1, .at_us = at, .told = told[i] };

		e->ring[e->n++ % EVENTS_KEPT] = k;
		if (!e->routine[told[i].event])
			e->rare[e->n_rare++ % EVENTS_SHOWN] = k;
		e->count[told[i].event]++;
	}
	pthread_mutex_unlock(&e->mu);
}

void node_tell(struct node_events *e, enum raft_told_event event, uint64_t peer, uint64_t a, uint64_t b)
{
	node_events_put(e, &(struct raft_told){ .event = (uint16_t)event, .peer = peer, .v = { a, b } }, 1);
}

void node_events_journal(void *events, enum raft_journal_event event, uint64_t a, uint64_t b)
{
	static const enum raft_told_event told[RAFT_JOURNAL_EVENTS] = {
		[RAFT_JOURNAL_APPEND] = RAFT_TOLD_JOURNAL_APPEND,
		[RAFT_JOURNAL_COMMIT_BUFFER] = RAFT_TOLD_JOURNAL_COMMIT_BUFFER,
		[RAFT_JOURNAL_REVERSE_FIND] = RAFT_TOLD_JOURNAL_REVERSE_FIND,
		[RAFT_JOURNAL_REWIND] = RAFT_TOLD_JOURNAL_REWIND,
		[RAFT_JOURNAL_TRUNCATE] = RAFT_TOLD_JOURNAL_TRUNCATE,
		[RAFT_JOURNAL_SYNC] = RAFT_TOLD_JOURNAL_SYNC,
		[RAFT_JOURNAL_FILL] = RAFT_TOLD_JOURNAL_FILL,
	};

	if (event != RAFT_JOURNAL_FETCH) /* node_tell_fetch: who reads knows how many belong together */
		node_tell(events, told[event], 0, a, b);
}

void node_tell_fetch(struct node_events *e, uint64_t first, uint64_t last, uint64_t bytes)
{
	struct raft_told t = { .event = RAFT_TOLD_JOURNAL_FETCH, .v = { first, bytes } };

	if (first != last)
		t = (struct raft_told){ .event = RAFT_TOLD_JOURNAL_FETCH_BETWEEN, .v = { first, last, bytes } };
	node_events_put(e, &t, 1);
}

static void put(struct wire_buf *b, const char *key, uint64_t v)
{
	char text[96];
	int n = snprintf(text, sizeof text, "%s%" PRIu64, key, v);

	wire_put_bytes(b, text, (size_t)n);
}

void node_events_counts_json(struct node_events *e, struct wire_buf *b)
{
	uint64_t count[RAFT_TOLD_COUNT];
	bool any = false;

	pthread_mutex_lock(&e->mu);
	memcpy(count, e->count, sizeof count);
	pthread_mutex_unlock(&e->mu);
	wire_put_u8(b, '{');
	for (unsigned i = 0; i < RAFT_TOLD_COUNT; i++) {
		char key[80];

		if (!count[i])
			continue;
		snprintf(key, sizeof key, "%s\"%s\":", any ? "," : "", raft_told_name(i));
		put(b, key, count[i]);
		any = true;
	}
	wire_put_u8(b, '}');
}

void node_events_json(struct node_events *e, uint64_t after, struct wire_buf *b)
{
	struct kept *copy = malloc(AT_ONCE * sizeof *copy);
	uint64_t first, next, n = 0;

	if (!copy) {
		b->failed = true;
		return;
	}
	pthread_mutex_lock(&e->mu);
	if (after == UINT64_MAX) {
		after = e->n > EVENTS_SHOWN ? e->n - EVENTS_SHOWN : 0;
		for (uint64_t i = e->n_rare > EVENTS_SHOWN ? e->n_rare - EVENTS_SHOWN : 0; i < e->n_rare; i++)
			if (e->rare[i % EVENTS_SHOWN].seq <= after)
				copy[n++] = e->rare[i % EVENTS_SHOWN];
	} else if (after > e->n) { /* a number of before the node's start */
		after = 0;
	}
	first = e->n > EVENTS_KEPT && after < e->n - EVENTS_KEPT ? e->n - EVENTS_KEPT : after;
	next = first;
	while (n < AT_ONCE && next < e->n)
		copy[n++] = e->ring[next++ % EVENTS_KEPT];
	pthread_mutex_unlock(&e->mu);
	put(b, "{\"next\":", next);
	put(b, ",\"missed\":", first - (after < first ? after : first));
	wire_put_bytes(b, ",\"events\":[", 11);
	for (uint64_t i = 0; i < n; i++) {
		put(b, i ? ",{\"seq\":" : "{\"seq\":", copy[i].seq);
		put(b, ",\"time_us\":", copy[i].at_us);
		wire_put_u8(b, ',');
		raft_told_put_json(&copy[i].told, b);
		wire_put_u8(b, '}');
	}
	wire_put_bytes(b, "]}", 2);
	free(copy);
}
