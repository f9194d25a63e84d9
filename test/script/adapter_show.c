/* Answers, as JSON on standard output. */
#include "test/script/adapter.h"
#include <stdarg.h>
#include <string.h>

bool valid_utf8(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	while (*p) {
		unsigned more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : *p >= 0xe0 && *p < 0xf0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : 9;
		if (more == 9 || (*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
		    (*p == 0xf4 && p[1] > 0x8f))
			return false;
		for (p++; more; more--, p++)
			if ((*p & 0xc0) != 0x80)
				return false;
	}
	return true;
}

void show_text(const char *s, size_t n)
{
	putchar('"');
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

void show_error(const char *fmt, ...)
{
	char text[700];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* A long argument may have been cut within a character. */
	while (!valid_utf8(text))
		text[strlen(text) - 1] = 0;
	printf("{\"error\":");
	show_text(text, strlen(text));
	puts("}");
}

void show_id(const char *key, uint64_t id)
{
	if (id)
		printf(",\"%s\":%llu", key, (unsigned long long)id);
	else
		printf(",\"%s\":null", key);
}

static void show_number(const char *key, uint64_t v)
{
	printf(",\"%s\":%llu", key, (unsigned long long)v);
}

/* Those with one of `flags` and none of `without`, in the order of their numbers. */
static void show_members(const char *key, const struct raft_config *c, uint8_t flags, uint8_t without)
{
	uint64_t last = 0;

	printf("\"%s\":[", key);
	for (;;) {
		uint64_t next = UINT64_MAX;
		for (uint32_t i = 0; i < c->n; i++)
			if ((c->m[i].flags & flags) && !(c->m[i].flags & without) && c->m[i].id > last && c->m[i].id < next)
				next = c->m[i].id;
		if (next == UINT64_MAX)
			break;
		printf("%s%llu", last ? "," : "", (unsigned long long)next);
		last = next;
	}
	putchar(']');
}

static void show_config(const struct raft_config *c)
{
	printf(",\"members\":{");
	show_members("voters", c, RAFT_VOTER, RAFT_WITNESS);
	putchar(',');
	show_members("learners", c, RAFT_LEARNER, RAFT_WITNESS);
	putchar(',');
	show_members("witnesses", c, RAFT_WITNESS, 0);
	putchar(',');
	show_members("outgoing", c, RAFT_VOTER_OLD, 0);
	printf(",\"joint\":%s}", c->joint ? "true" : "false");
}

static void show_peers(const struct node *n, const struct raft_config *c)
{
	static const char *const names[] = { "probe", "replicate", "snapshot" };
	struct raft_progress g;
	const char *comma = "";

	printf(",\"progress\":{");
	for (uint32_t i = 0; i < c->n; i++) {
		if (!raft_progress_of(n->raft, c->m[i].id, &g))
			continue;
		printf("%s\"%llu\":{\"state\":\"%s\",\"match\":%llu,\"next\":%llu,\"inflight\":%u}", comma, (unsigned long long)c->m[i].id,
		       names[g.state], (unsigned long long)g.match, (unsigned long long)g.next, g.inflight);
		comma = ",";
	}
	putchar('}');
}

void show_state(const struct node *n)
{
	const struct store *s = &n->mem;
	struct raft_config space;

	printf("{\"role\":\"%s\"", n->raft ? raft_role_name(n->u.role) : "down");
	show_number("term", s->term);
	show_id("vote", s->vote);
	show_id("leader", n->u.leader);
	show_number("commit", n->u.commit);
	show_number("applied", n->applied_index);
	show_number("first", s->base_index + 1);
	show_number("last", s->base_index + s->log.n);
	node_config_at(n, UINT64_MAX, &space);
	show_config(&space);
	printf(",\"down\":%s", n->raft ? "false" : "true");
	show_number("durable", n->disk.base_index + n->disk.log.n);
	show_number("writes_waiting", node_writes(n));
	if (n->raft && n->u.role == RAFT_LEADER) {
		show_id("transfer", n->u.transfer_to);
		printf(",\"ready\":%s,\"lease\":%s", n->u.leader_ready ? "true" : "false", n->u.lease_until_us > n->now_us ? "true" : "false");
		show_peers(n, &space);
	}
	puts("}");
}

static const char *kind_of_entry(const struct wire_entry *e)
{
	return e->kind == WIRE_ENTRY_NOOP ? "noop" : e->kind == WIRE_ENTRY_CONFIG ? "conf" : "value";
}

void show_entries(const struct entries *l, uint64_t upto, bool with_kinds)
{
	const char *comma = "";

	putchar('[');
	for (size_t i = 0; i < l->n && l->e[i].index <= upto; i++) {
		const struct wire_entry *e = &l->e[i];
		printf("%s[%llu,%llu,", comma, (unsigned long long)e->index, (unsigned long long)e->term);
		show_text((const char *)e->data, e->kind == WIRE_ENTRY_DATA ? e->size : 0);
		if (with_kinds)
			printf(",\"%s\"", kind_of_entry(e));
		putchar(']');
		comma = ",";
	}
	puts("]");
}

/* first and last: of the entries that it carries, acknowledges or tells of. */
void show_queue(uint64_t from, uint64_t to)
{
	const char *comma = "";

	putchar('[');
	for (size_t i = 0; i < world.n_net; i++) {
		const struct packet *p = &world.net[i];
		const struct wire_msg *m = &p->m;
		if (!net_match(p, from, to, NULL))
			continue;
		bool carries = m->type == WIRE_MSG_APPEND || m->type == WIRE_MSG_FETCH_RESP;
		printf("%s{\"kind\":\"%s\"", comma, p->kind);
		show_number("term", m->term);
		uint64_t at = m->type == WIRE_MSG_HEARTBEAT ? 0 : m->index;
		show_number("first", carries ? at + 1 : p->image ? 1 : at);
		show_number("last", at + m->n_entries);
		if (carries) {
			show_number("prev", m->index);
			show_number("prev_term", m->log_term);
		}
		if (m->type == WIRE_MSG_PREVOTE_REQ || m->type == WIRE_MSG_VOTE_REQ || p->image)
			show_number("last_term", m->log_term);
		if (m->type == WIRE_MSG_APPEND || m->type == WIRE_MSG_HEARTBEAT)
			show_number("commit", m->commit);
		if (m->flags & WIRE_MSG_REJECT || strstr(p->kind, "_resp"))
			printf(",\"reject\":%s", m->flags & WIRE_MSG_REJECT ? "true" : "false");
		putchar('}');
		comma = ",";
	}
	puts("]");
}

void show_read(const struct node *n, uint64_t index)
{
	printf("{\"ok\":true,\"read\":%llu", (unsigned long long)n->id);
	show_number("index", index);
	show_number("applied", n->applied_index);
	puts("}");
	fflush(stdout);
}

void show_read_refused(const struct node *n, const char *why)
{
	printf("{\"error\":\"%s\",\"read\":%llu", why, (unsigned long long)n->id);
	show_id("leader", n->u.leader);
	puts("}");
	fflush(stdout);
}

void show_ok(void)
{
	puts("{\"ok\":true}");
}
