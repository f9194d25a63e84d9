/* The ring of a node's events, and what the journal tells as events (shell/events.h). */
#include "shell/events.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *text(struct wire_buf *b)
{
	wire_put_u8(b, 0);
	assert_false(b->failed);
	return (const char *)b->data;
}

/* Who asks too late is told how many are gone; who goes on with `next` sees all of the others once. */
static void ring(void **state)
{
	struct node_events *e = node_events_new();
	uint64_t after = 0, seen = 0;
	struct wire_buf b = WIRE_BUF_INIT;
	char want[80];

	(void)state;
	assert_non_null(e);
	node_events_json(e, UINT64_MAX, &b);
	assert_string_equal(text(&b), "{\"next\":0,\"missed\":0,\"events\":[]}");
	for (uint64_t i = 1; i <= EVENTS_KEPT + 10; i++)
		node_tell(e, RAFT_TOLD_LOG_COMMITTED, 0, i, 0);
	for (uint64_t next; after < EVENTS_KEPT + 10; after = next) {
		wire_buf_reset(&b);
		node_events_json(e, after, &b);
		next = strtoull(text(&b) + strlen("{\"next\":"), NULL, 10);
		snprintf(want, sizeof want, "{\"next\":%" PRIu64 ",\"missed\":%d,", next, after ? 0 : 10);
		assert_memory_equal(b.data, want, strlen(want));
		for (const char *p = (const char *)b.data; (p = strstr(p, "\"seq\":")); p++, seen++)
			assert_int_equal(strtoull(p + 6, NULL, 10), seen + 11);
		assert_true(next > after);
	}
	assert_true(seen == EVENTS_KEPT && after == EVENTS_KEPT + 10);
	wire_buf_reset(&b);
	node_events_counts_json(e, &b);
	snprintf(want, sizeof want, "{\"log.committed\":%d}", EVENTS_KEPT + 10);
	assert_string_equal(text(&b), want);
	wire_buf_free(&b);
	node_events_free(e);
}

/* What is no routine is shown after routine has pushed it out of the ring, once, and not to whoever goes on with `next`. */
static void rare(void **state)
{
	struct node_events *e = node_events_new();
	struct wire_buf b = WIRE_BUF_INIT;
	const char *p;

	(void)state;
	assert_non_null(e);
	for (uint64_t i = 0; i < EVENTS_SHOWN + 7; i++)
		node_tell(e, RAFT_TOLD_ROLE_LEADER, 0, i, 0);
	for (uint64_t i = 0; i < EVENTS_KEPT + 10; i++)
		node_tell(e, RAFT_TOLD_LOG_COMMITTED, 0, i, 0);
	node_tell(e, RAFT_TOLD_ROLE_FOLLOWER, 0, 1, 0);
	node_events_json(e, UINT64_MAX, &b);
	p = text(&b);
	for (uint64_t i = 0; i < 2 * EVENTS_SHOWN - 1; i++) {
		/* The oldest EVENTS_SHOWN - 1 are role.leader without the first 8, then the latest of all follow. */
		uint64_t seq = i < EVENTS_SHOWN - 1 ? i + 9 : EVENTS_SHOWN + 7 + EVENTS_KEPT + 11 - (2 * EVENTS_SHOWN - 2 - i);

		p = strstr(p, "\"seq\":");
		assert_non_null(p);
		assert_int_equal(strtoull(p += 6, NULL, 10), seq);
	}
	assert_null(strstr(p, "\"seq\":"));
	wire_buf_reset(&b);
	node_events_json(e, EVENTS_SHOWN + 7 + EVENTS_KEPT + 10, &b);
	assert_null(strstr(text(&b), "role.leader"));
	assert_non_null(strstr((const char *)b.data, "role.follower"));
	wire_buf_free(&b);
	node_events_free(e);
}

/* The latest event as JSON, from its name on. */
static void latest_is(struct node_events *e, const char *want)
{
	struct wire_buf b = WIRE_BUF_INIT;
	char end[200];
	const char *at = NULL;

	node_events_json(e, UINT64_MAX, &b);
	for (const char *p = text(&b); (p = strstr(p, "\"event\":")); p++)
		at = p;
	assert_non_null(at);
	snprintf(end, sizeof end, "%s}]}", want);
	assert_string_equal(at, end);
	wire_buf_free(&b);
}

/* Each of the journal's events has one of the same name, with its numbers; of fetches who reads tells. */
static void journal(void **state)
{
	struct node_events *e = node_events_new();
	static const char *const fields[RAFT_JOURNAL_EVENTS][2] = {
		[RAFT_JOURNAL_APPEND] = { "first_index", "last_index" }, [RAFT_JOURNAL_COMMIT_BUFFER] = { "bytes", "offset_bytes" },
		[RAFT_JOURNAL_REVERSE_FIND] = { "index", "base_index" }, [RAFT_JOURNAL_REWIND] = { "index", "segment" },
		[RAFT_JOURNAL_TRUNCATE] = { "from_index", "entries" }, [RAFT_JOURNAL_SYNC] = { "took_us", "index" },
		[RAFT_JOURNAL_FILL] = { "index", "bytes" },
	};
	int told = 0;

	(void)state;
	for (int i = 0; i < RAFT_JOURNAL_EVENTS; i++) {
		char name[40], want[160];
		if (i == RAFT_JOURNAL_FETCH)
			continue;
		snprintf(name, sizeof name, "%s", raft_journal_event_name((enum raft_journal_event)i));
		for (char *p = name; *p; p++)
			if (*p == '-')
				*p = '_';
		node_events_journal(e, (enum raft_journal_event)i, 7, 8);
		snprintf(want, sizeof want, "\"event\":\"journal.%s\",\"%s\":7,\"%s\":8", name, fields[i][0], fields[i][1]);
		latest_is(e, want);
		told++;
	}
	node_events_journal(e, RAFT_JOURNAL_FETCH, 1, 1);
	node_tell_fetch(e, 5, 5, 100);
	latest_is(e, "\"event\":\"journal.fetch\",\"index\":5,\"bytes\":100");
	node_tell_fetch(e, 5, 9, 500);
	latest_is(e, "\"event\":\"journal.fetch_between\",\"first_index\":5,\"last_index\":9,\"bytes\":500");
	assert_int_equal(told + 2, RAFT_TOLD_MACHINE - RAFT_TOLD_JOURNAL);
	node_events_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring),
		cmocka_unit_test(rare),
		cmocka_unit_test(journal),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
