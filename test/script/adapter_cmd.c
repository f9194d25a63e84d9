/* The commands to nodes that are there. */
#include "test/script/adapter.h"
#include "wire/hash.h"
#include <string.h>

/* ---- time, proposals ---- */

void cmd_tick(struct line *l)
{
	struct node *n = line_live(l);
	uint64_t count = l->wrong ? 0 : line_count(l, 1);

	if (!line_ended(l))
		return;
	if (count > 1000000) {
		show_error("at most 1000000 ticks at once");
		return;
	}
	for (uint64_t i = 0; i < count && n->raft; i++)
		node_tick(n, HEARTBEAT_US);
	printf("{\"ok\":true,\"role\":\"%s\"}\n", n->raft ? raft_role_name(n->u.role) : "down");
}

void cmd_timeout(struct line *l)
{
	struct node *n = line_live(l);

	if (!line_ended(l))
		return;
	node_timeout(n);
	printf("{\"ok\":true,\"role\":\"%s\"}\n", n->raft ? raft_role_name(n->u.role) : "down");
}

static void refused(const struct node *n, int code, const char *why)
{
	if (code == WIRE_NOTLEADER) {
		printf("{\"error\":\"not leader\"");
		show_id("leader", n->u.leader);
		puts("}");
		return;
	}
	show_error("%s: %s", code == WIRE_BUSY ? "busy" : code == WIRE_INVALID ? "invalid" : "refused", why);
}

void cmd_propose(struct line *l)
{
	struct node *n = line_live(l);
	int code;
	uint64_t index;

	if (!l->wrong && l->at >= l->n)
		line_wrong(l, "a value is missing", NULL);
	const char *value = l->wrong ? "" : l->arg[l->at++];
	size_t size = strlen(value);
	if (!l->wrong && size > WIRE_ENTRY_MAX)
		line_wrong(l, "the value is too long", NULL);
	if (!line_ended(l))
		return;
	struct wire_entry e = {
		.kind = WIRE_ENTRY_DATA, .size = (uint32_t)size, .sum = wire_hash(value, size, 0), .data = (const uint8_t *)value
	};
	uint64_t term = n->u.term;
	node_step(n, (struct raft_event){ .type = RAFT_EV_PROPOSE, .entries = &e, .n_entries = 1 }, &code, &index);
	if (code == WIRE_OK)
		printf("{\"ok\":true,\"index\":%llu,\"term\":%llu}\n", (unsigned long long)index, (unsigned long long)term);
	else
		refused(n, code, "leadership is being handed over, or too much is not committed yet");
}

/* ---- members ---- */

static const char *const changes[] = { "add", "add-learner", "add-witness", "remove", "promote" };
static const uint8_t flags_of[] = { RAFT_VOTER, RAFT_LEARNER, RAFT_VOTER | RAFT_WITNESS, 0, RAFT_VOTER };

/* false: it cannot be applied to these members (text in *ret_why). */
static bool change(struct raft_config *c, struct change what, const char **ret_why)
{
	uint32_t k = 0;

	while (k < c->n && c->m[k].id != what.id)
		k++;
	if (k == c->n && (what.kind == REMOVE || what.kind == PROMOTE)) {
		*ret_why = "to be changed, but no member";
		return false;
	}
	if (what.kind == REMOVE) {
		c->m[k] = c->m[--c->n];
		return true;
	}
	if (k == RAFT_MEMBERS_MAX) {
		*ret_why = "more than 32 members";
		return false;
	}
	if (k == c->n)
		c->m[c->n++] = (struct raft_member){ .id = what.id, .priority = RAFT_PRIORITY };
	c->m[k].flags = flags_of[what.kind];
	return true;
}

static bool apply_plan(struct raft_config *c, const struct plan *p, const char **ret_why)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (!change(c, p->what[i], ret_why))
			return false;
	return true;
}

/* Where witnesses vote, who is new must have the log first (raft/witness.c): it becomes a learner, and the change follows by itself. */
static bool propose_learners(struct node *n, const struct plan *p, uint64_t *ret_index)
{
	const struct raft_config *now = raft_config_current(n->raft);
	struct raft_config c = *now;
	int code;

	for (uint32_t i = 0; i < p->n; i++) {
		if (p->what[i].kind == REMOVE || p->what[i].kind == PROMOTE || raft_config_find(now, p->what[i].id) || c.n == RAFT_MEMBERS_MAX)
			continue;
		c.m[c.n++] = (struct raft_member){ .id = p->what[i].id, .priority = RAFT_PRIORITY,
			.flags = RAFT_LEARNER | (p->what[i].kind == ADD_WITNESS ? RAFT_WITNESS : 0) };
	}
	if (c.n == now->n)
		return false;
	node_step(n, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &c }, &code, ret_index);
	if (code == WIRE_OK)
		world.plan = *p;
	return code == WIRE_OK;
}

bool plan_target(const struct node *n, struct raft_config *ret_target)
{
	const char *why = NULL;
	struct raft_config c = *raft_config_current(n->raft);

	if (!world.plan.n || n->u.role != RAFT_LEADER || c.joint || !raft_config_committed(n->raft) || !apply_plan(&c, &world.plan, &why))
		return false;
	*ret_target = c;
	return true;
}

void cmd_conf(struct line *l)
{
	struct node *n = line_live(l);
	struct raft_config c = { 0 };
	struct plan p = { 0 };
	const char *why = NULL;
	int code, first = l->at;
	uint64_t index, ids[RAFT_MEMBERS_MAX];

	while (!l->wrong && l->at < l->n) {
		char *v = NULL;
		int kind = 0;
		while (kind <= PROMOTE && !(v = line_option(l, changes[kind])))
			kind++;
		uint32_t count = v ? line_ids(l, v, ids, RAFT_MEMBERS_MAX) : 0;
		if (!count || p.n + count > PLAN_MAX)
			line_wrong(l, "not understood", l->arg[v ? l->at - 1 : l->at]);
		for (uint32_t i = 0; i < count && !l->wrong; i++)
			p.what[p.n++] = (struct change){ (enum change_kind)kind, ids[i] };
	}
	if (!l->wrong && l->at == first)
		line_wrong(l, "conf ID add=4 | add-learner=4 | add-witness=4 | remove=1 | promote=3", NULL);
	if (!line_ended(l))
		return;
	c = *raft_config_current(n->raft);
	/* Who does not lead refuses, whatever the change. */
	if (n->u.role == RAFT_LEADER && c.joint) {
		show_error("busy: an earlier change is not complete");
		return;
	}
	if (n->u.role == RAFT_LEADER && !apply_plan(&c, &p, &why)) {
		show_error("invalid: %s", why);
		return;
	}
	uint64_t term = n->u.term;
	node_step(n, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &c }, &code, &index);
	if (code == WIRE_OK)
		world.plan.n = 0;
	if (code == WIRE_BUSY && n->raft && propose_learners(n, &p, &index))
		code = WIRE_OK;
	if (code == WIRE_OK)
		printf("{\"ok\":true,\"index\":%llu,\"term\":%llu}\n", (unsigned long long)index, (unsigned long long)term);
	else
		refused(n, code, world.refusal);
}

void cmd_transfer(struct line *l)
{
	struct node *n = line_live(l);
	uint64_t to = l->wrong ? 0 : line_id(l);
	int code;

	if (!line_ended(l))
		return;
	if (n->u.role == RAFT_LEADER && to == n->id) {
		show_error("invalid: it leads already");
		return;
	}
	node_step(n, (struct raft_event){ .type = RAFT_EV_TRANSFER, .peer = to }, &code, NULL);
	if (code == WIRE_OK)
		show_ok();
	else
		refused(n, code, code == WIRE_BUSY ? "another transfer or a change of members is under way" : "it is no voter");
}

void cmd_read(struct line *l)
{
	struct node *n = line_live(l);

	if (line_ended(l))
		node_read(n); /* it answers when it is served or refused */
}

/* ---- messages ---- */

void cmd_queue(struct line *l)
{
	uint64_t from = line_id(l), to = l->wrong ? 0 : line_id(l);

	if (line_ended(l))
		show_queue(from, to);
}

static void move(struct line *l, bool deliver)
{
	uint64_t from = line_id(l), to = l->wrong ? 0 : line_id(l), count = UINT64_MAX, moved = 0, lost = 0;
	const char *kind = NULL, *v;

	while (!l->wrong && l->at < l->n) {
		if ((v = line_option(l, "kind")))
			kind = v;
		else if (strchr(l->arg[l->at], '=') || count != UINT64_MAX)
			line_wrong(l, "not understood", l->arg[l->at]);
		else
			count = line_count(l, 1);
	}
	if (!l->wrong && kind && !net_known_kind(kind))
		line_wrong(l, "no such kind of message", kind);
	if (!l->wrong && deliver && !node_find(to))
		line_wrong(l, "no such node", l->arg[2]);
	if (!line_ended(l))
		return;
	/* Those that wait now: what is sent in answer goes the other way. */
	for (size_t i = 0; i < world.n_net && moved + lost < count;) {
		if (!net_match(&world.net[i], from, to, kind)) {
			i++;
			continue;
		}
		struct packet p = net_take(i);
		if (!deliver)
			packet_free(&p);
		else if (!net_deliver(&p)) {
			lost++;
			continue;
		}
		moved++;
	}
	printf("{\"ok\":true,\"%s\":%llu,\"lost\":%llu}\n", deliver ? "delivered" : "dropped", (unsigned long long)moved, (unsigned long long)lost);
}

void cmd_deliver(struct line *l)
{
	move(l, true);
}

void cmd_drop(struct line *l)
{
	move(l, false);
}

static bool among(uint64_t id, const uint64_t *ids, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

void cmd_settle(struct line *l)
{
	uint64_t ids[RAFT_MEMBERS_MAX], max = 1000, done = 0;
	uint32_t n = 0;
	char *v;

	if (l->at >= l->n)
		line_wrong(l, "settle IDS, as in 1,2,3", NULL);
	while (!l->wrong && l->at < l->n) {
		if ((v = line_option(l, "max")))
			line_option_number(l, v, &max);
		else if (strchr(l->arg[l->at], '='))
			line_wrong(l, "not understood", l->arg[l->at]);
		else
			n += line_ids(l, l->arg[l->at++], ids + n, RAFT_MEMBERS_MAX - n);
	}
	for (uint32_t i = 0; i < n && !l->wrong; i++)
		if (!node_find(ids[i]))
			show_error("no node %llu", (unsigned long long)ids[i]), l->wrong = true;
	if (!line_ended(l))
		return;
	for (size_t i = 0; i < world.n_net && done < max;) {
		if (!among(world.net[i].m.from, ids, n) || !among(world.net[i].m.to, ids, n)) {
			i++;
			continue;
		}
		struct packet p = net_take(i);
		net_deliver(&p);
		done++;
	}
	bool quiet = true;
	for (size_t i = 0; i < world.n_net; i++)
		quiet &= !(among(world.net[i].m.from, ids, n) && among(world.net[i].m.to, ids, n));
	printf("{\"ok\":true,\"delivered\":%llu,\"quiet\":%s}\n", (unsigned long long)done, quiet ? "true" : "false");
}

static void link_change(struct line *l, enum raft_event_type type)
{
	struct node *n = line_live(l);
	uint64_t peer = l->wrong ? 0 : line_id(l);

	if (!line_ended(l))
		return;
	node_step(n, (struct raft_event){ .type = type, .peer = peer }, NULL, NULL);
	show_ok();
}

void cmd_unreachable(struct line *l)
{
	link_change(l, RAFT_EV_UNREACHABLE);
}

void cmd_reachable(struct line *l)
{
	link_change(l, RAFT_EV_REACHABLE);
}

/* ---- disk ---- */

void cmd_persist(struct line *l)
{
	struct node *n = line_live(l);
	const char *how = l->wrong ? "" : l->at < l->n ? l->arg[l->at++] : "";
	uint64_t count = UINT64_MAX;

	if (!strcmp(how, "release"))
		count = line_count(l, UINT64_MAX);
	else if (!l->wrong && strcmp(how, "ok") && strcmp(how, "hold") && strcmp(how, "fail"))
		line_wrong(l, "persist ID ok|hold|release [N]|fail", NULL);
	if (!line_ended(l))
		return;
	n->hold = !strcmp(how, "hold") || (!strcmp(how, "release") && n->hold);
	n->fail_next = !strcmp(how, "fail");
	size_t before = node_writes(n);
	if (strcmp(how, "hold"))
		node_release(n, count);
	printf("{\"ok\":true,\"waiting\":%zu,\"was_waiting\":%zu,\"down\":%s}\n", node_writes(n), before, n->raft ? "false" : "true");
}

void cmd_restart(struct line *l)
{
	struct node *n = line_node(l);
	const char *v = l->wrong ? NULL : line_option(l, "lost");
	bool lost = v && line_flag(l, v);

	if (!line_ended(l))
		return;
	node_stop(n);
	if (lost) {
		struct raft_config none = { 0 };
		entries_free(&n->disk.log);
		entries_free(&n->applied);
		n->disk = (struct store){ .base_config = none };
		n->applied_index = 0;
		n->forgetful = true;
	}
	if (node_start(n)) {
		show_ok();
		return;
	}
	show_error("%s", world.broken);
	world.broken[0] = 0;
}

/* A witness by the configuration that is committed, or by a later one, any of which may still count. */
static bool keeps(const struct node *n)
{
	struct raft_config c;

	for (uint64_t i = n->u.commit; i <= n->u.last_index; i++) {
		node_config_at(n, i, &c);
		const struct raft_member *m = raft_config_find(&c, n->id);
		if (m && (m->flags & RAFT_WITNESS))
			return true;
	}
	return false;
}

void cmd_compact(struct line *l)
{
	struct node *n = line_live(l);
	uint64_t index = 0;

	if (!l->wrong && (l->at >= l->n || !line_number(l->arg[l->at++], &index)))
		line_wrong(l, "compact ID INDEX", NULL);
	if (!line_ended(l))
		return;
	if (index > n->applied_index)
		show_error("node %llu has applied only up to %llu", (unsigned long long)n->id, (unsigned long long)n->applied_index);
	else if (keeps(n) && index > n->u.keep_above)
		show_error("a witness keeps what is above %llu, since some data voter may lack it", (unsigned long long)n->u.keep_above);
	else if (!index || index < n->mem.base_index)
		show_error("the log begins at %llu already", (unsigned long long)n->mem.base_index + 1);
	else {
		if (index > n->mem.base_index)
			node_compact(n, index);
		printf("{\"ok\":true,\"first\":%llu}\n", (unsigned long long)n->mem.base_index + 1);
	}
}

/* ---- looking ---- */

void cmd_state(struct line *l)
{
	struct node *n = line_node(l);

	if (line_ended(l))
		show_state(n);
}

void cmd_log(struct line *l)
{
	struct node *n = line_node(l);
	const char *v = l->wrong ? NULL : line_option(l, "kinds");
	bool kinds = v && line_flag(l, v);

	if (line_ended(l))
		show_entries(&n->mem.log, UINT64_MAX, kinds);
}

void cmd_applied(struct line *l)
{
	struct node *n = line_node(l);
	struct raft_config c;

	if (!line_ended(l))
		return;
	/* A witness has no state machine; what is kept here stands for the image that it would get as a full replica. */
	node_config_at(n, n->applied_index, &c);
	const struct raft_member *m = raft_config_find(&c, n->id);
	show_entries(&n->applied, m && (m->flags & RAFT_WITNESS) ? 0 : UINT64_MAX, false);
}

