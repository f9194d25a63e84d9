#include "test/unit/raft_told.h"
#include <stdio.h>
#include <string.h>

enum { KEPT = 1 << 16 };

struct told_kept told_kept[KEPT];
uint32_t told_n;
uint64_t told_count[RAFT_TOLD_COUNT];

static void on_told(uint64_t node, const struct raft_told *told, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		assert_true(told[i].event < RAFT_TOLD_JOURNAL && told_n < KEPT);
		told_kept[told_n].node = node;
		told_kept[told_n++].t = told[i];
		told_count[told[i].event]++;
	}
}

void told_begin(void)
{
	pilot_on_told = on_told;
}

void told_forget(void)
{
	told_n = 0;
}

const struct raft_told *told_find(uint64_t node, enum raft_told_event event)
{
	for (uint32_t i = told_n; i > 0; i--)
		if (told_kept[i - 1].node == node && told_kept[i - 1].t.event == event)
			return &told_kept[i - 1].t;
	return NULL;
}

uint32_t told_times(uint64_t node, enum raft_told_event event)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < told_n; i++)
		n += told_kept[i].node == node && told_kept[i].t.event == event;
	return n;
}

const struct raft_told *told_must(uint64_t node, enum raft_told_event event)
{
	const struct raft_told *t = told_find(node, event);

	if (!t)
		fail_msg("node %u does not tell of %s", (unsigned)node, raft_told_name(event));
	return t;
}

void told_is(uint64_t node, enum raft_told_event event, const char *json)
{
	struct wire_buf b = WIRE_BUF_INIT;
	char name[80];

	raft_told_put_json(told_must(node, event), &b);
	wire_put_u8(&b, 0);
	snprintf(name, sizeof name, "\"event\":\"%s\"", raft_told_name(event));
	assert_memory_equal(b.data, name, strlen(name));
	assert_string_equal((char *)b.data + strlen(name), json);
	wire_buf_free(&b);
}

struct pilot *told_open_with(uint32_t voters, struct raft_init knobs)
{
	struct pilot *p = pilot_open(voters, 0);

	for (uint64_t id = 1; id <= p->count; id++)
		pilot_stop(p, id);
	p->knobs = knobs;
	for (uint64_t id = 1; id <= p->count; id++)
		pilot_start(p, id);
	pilot_elect(p, 1);
	pilot_wait(p, 60000);
	assert_true(p->n[1].u.leader_ready);
	return p;
}

void told_fill_log(struct pilot *p, uint32_t n)
{
	for (; n; n -= n > 16 ? 16 : n) {
		assert_int_equal(pilot_propose(p, 1, n > 16 ? 16 : n), WIRE_OK);
		pilot_wait(p, 60000);
	}
}

struct wire_msg told_vote(uint64_t from, uint64_t to, uint64_t term, uint64_t index, uint64_t log_term)
{
	return (struct wire_msg){ .type = WIRE_MSG_VOTE_REQ, .from = from, .to = to, .term = term, .index = index, .log_term = log_term };
}
