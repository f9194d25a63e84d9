/* Requests about the group's members, on the node thread. A line of words, from node.sock or from another member's node:
 *
 *   members
 *   transfer [to=ID] [from=ID]      leadership; to: to that voter; from: nothing is to be done if another one leads by now
 *   change WORD...                  all of them in one configuration, by way of a joint one if the voters differ:
 *     add=ID,FLAGS,PRIORITY,URL       a member that is to come; the asker chose the id
 *     replica=ID                      of a witness that votes: it gets a database
 *     promote=ID  demote=ID  remove=ID  priority=ID,N  commit=N  elect=N   (quorum sizes, 0: a majority)
 *
 * ID: up to 16 hex digits. The answer is a JSON object: state and text, and if there is something to show what node_members_json puts.
 *
 *   done      it is so, and committed
 *   working   not yet: begun, or waiting for what the text says. Ask again
 *   refused   it cannot be: the text says why
 *   noleader  this node knows none. Ask again
 *   removed   this node is no member any more
 *   failed    this node has ended its part
 *
 * Each is answered from the state as it is, and says what shall be, not what shall happen: so it may be asked again, at any member, until it is done. Nothing is remembered but a line that
 * waits for the write lock (handover.c). */
#include "shell/node_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAUGHT_UP_ENTRIES 64 /* so close behind a learner's published state must be to the commit index */
#define ROUNDS_MAX 10u       /* thesis 4.2.1: a learner that has not caught up by then does not keep up */

struct change {
	struct raft_member add[RAFT_MEMBERS_MAX];
	struct { uint64_t id; uint8_t priority; } priorities[RAFT_MEMBERS_MAX];
	uint64_t promote[RAFT_MEMBERS_MAX], replica[RAFT_MEMBERS_MAX], demote[RAFT_MEMBERS_MAX], remove[RAFT_MEMBERS_MAX];
	uint32_t n_add, n_priorities, n_promote, n_replica, n_demote, n_remove;
	bool quorums[2]; /* commit, elect are given */
	struct raft_quorums size;
};

/* --- answers --- */

void node_member_answer(struct wire_buf *answer, const char *state, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	node_json_put(answer, "{\"state\":\"%s\",\"text\":", state);
	node_json_string(answer, text);
	node_json_put(answer, "}");
}

static void answer_done(struct shell_node *n, struct wire_buf *answer)
{
	struct node_shared *s = malloc(sizeof *s);

	if (!s) {
		answer->failed = true;
		return;
	}
	node_share_progress(n, node_now_us(n));
	pthread_mutex_lock(&n->mu);
	*s = n->shared;
	pthread_mutex_unlock(&n->mu);
	node_json_put(answer, "{\"state\":\"done\",\"text\":\"\",");
	node_members_json(n, s, answer);
	node_json_put(answer, "}");
	free(s);
}

/* --- the words --- */

static bool parse_id(const char *s, const char **ret_end, uint64_t *ret_id)
{
	char *end;

	*ret_id = strtoull(s, &end, 16);
	*ret_end = end;
	return end > s && end - s <= 16 && *ret_id;
}

static bool parse_byte(const char *s, const char **ret_end, uint8_t *ret_value)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);

	*ret_end = end;
	*ret_value = (uint8_t)v;
	return *s >= '0' && *s <= '9' && v <= 255;
}

static bool parse_add(struct change *c, const char *s)
{
	struct raft_member m = { 0 };

	if (c->n_add == RAFT_MEMBERS_MAX || !parse_id(s, &s, &m.id) || *s++ != ',' || !parse_byte(s, &s, &m.flags) || *s++ != ',' ||
	    !parse_byte(s, &s, &m.priority) || *s++ != ',' || strlen(s) > RAFT_URL_MAX || wire_url_check(s, &(bool){ false }, NULL))
		return false;
	if (!(m.flags & RAFT_LEARNER) || (m.flags & ~(RAFT_LEARNER | RAFT_RISING | RAFT_WITNESS)))
		return false;
	m.flags |= RAFT_AWAITED;
	snprintf(m.url, sizeof m.url, "%s", s);
	c->add[c->n_add++] = m;
	return true;
}

static bool parse_list(uint64_t *ids, uint32_t *n, const char *s)
{
	return *n < RAFT_MEMBERS_MAX && parse_id(s, &s, &ids[*n]) && !*s && ++*n;
}

static bool parse_priority(struct change *c, const char *s)
{
	uint32_t i = c->n_priorities;

	return i < RAFT_MEMBERS_MAX && parse_id(s, &s, &c->priorities[i].id) && *s++ == ',' && parse_byte(s, &s, &c->priorities[i].priority) && !*s &&
	       ++c->n_priorities;
}

static bool parse_word(struct change *c, const char *word)
{
	const char *value = strchr(word, '=');
	size_t len = value ? (size_t)(value++ - word) : 0;
	bool elect = len == 5 && !memcmp(word, "elect", 5);

	if (len == 3 && !memcmp(word, "add", 3))
		return parse_add(c, value);
	if (len == 7 && !memcmp(word, "promote", 7))
		return parse_list(c->promote, &c->n_promote, value);
	if (len == 7 && !memcmp(word, "replica", 7))
		return parse_list(c->replica, &c->n_replica, value);
	if (len == 6 && !memcmp(word, "demote", 6))
		return parse_list(c->demote, &c->n_demote, value);
	if (len == 6 && !memcmp(word, "remove", 6))
		return parse_list(c->remove, &c->n_remove, value);
	if (len == 8 && !memcmp(word, "priority", 8))
		return parse_priority(c, value);
	if (elect || (len == 6 && !memcmp(word, "commit", 6))) {
		c->quorums[elect] = true;
		return parse_byte(value, &value, elect ? &c->size.elect : &c->size.commit) && !*value;
	}
	return false;
}

/* --- what a learner must be to vote --- */

enum node_readiness node_ready_to_vote(struct shell_node *n, const struct raft_member *m, char *why, size_t cap)
{
	struct raft_progress p = { 0 };
	uint64_t lag;

	if (m->flags & RAFT_AWAITED) {
		snprintf(why, cap, "%s has not joined yet: walraft join there comes first", m->url);
		return NODE_REFUSED;
	}
	if (!raft_progress_of(n->raft, m->id, &p) || !p.alive) {
		snprintf(why, cap, "%s does not answer: is its node running?", m->url);
		return NODE_WORKING;
	}
	if (p.forgot) {
		snprintf(why, cap, "%s has lost what it had promised, and is just being told what it lacks", m->url);
		return NODE_WORKING;
	}
	lag = n->shared.last_index > p.match ? n->shared.last_index - p.match : 0;
	/* Both what it holds durably and what it has published: a voter that must first publish gigabytes would hold reads up. */
	if (p.caught_up && p.applied + CAUGHT_UP_ENTRIES >= n->shared.commit)
		return NODE_READY;
	if (!p.caught_up && p.rounds >= ROUNDS_MAX) {
		snprintf(why, cap, "%s does not keep up with the writes: it is %" PRIu64 " entries behind after %u rounds of catching up, of which the latest took %u ms. Give it a faster disk or network, or write less meanwhile",
		         m->url, lag, p.rounds, p.round_us / 1000);
		return NODE_REFUSED;
	}
	snprintf(why, cap, "%s is catching up: %" PRIu64 " entries behind", m->url, lag);
	return NODE_WORKING;
}

/* --- the configuration that is asked for --- */

static struct raft_member *find(struct raft_config *c, uint64_t id)
{
	return (struct raft_member *)raft_config_find(c, id);
}

static enum node_readiness promote(struct shell_node *n, struct raft_config *c, uint64_t id, char *why, size_t cap)
{
	struct raft_member *m = find(c, id);
	enum node_readiness ready;

	if (!m) {
		snprintf(why, cap, "there is no member %016" PRIx64 " to be promoted", id);
		return NODE_REFUSED;
	}
	if (m->flags & RAFT_VOTER)
		return NODE_READY;
	ready = node_ready_to_vote(n, m, why, cap);
	if (ready == NODE_READY)
		m->flags = (uint8_t)(RAFT_VOTER | (m->flags & RAFT_WITNESS));
	return ready;
}

/* It fetches an image once the configuration says that it is rising, and asks for the end of it (witness_member.c). */
static enum node_readiness make_replica(struct raft_config *c, uint64_t id, char *why, size_t cap)
{
	struct raft_member *m = find(c, id);

	if (!m || !(m->flags & RAFT_VOTER)) {
		snprintf(why, cap, "there is no voting member %016" PRIx64 " to become a full replica", id);
		return NODE_REFUSED;
	}
	if (!(m->flags & RAFT_WITNESS))
		return NODE_READY;
	if (m->flags & RAFT_RISING) {
		snprintf(why, cap, "%s is fetching the database", m->url);
		return NODE_WORKING;
	}
	m->flags |= RAFT_RISING;
	return NODE_READY;
}

static enum node_readiness demote(struct raft_config *c, uint64_t id, char *why, size_t cap)
{
	struct raft_member *m = find(c, id);

	if (!m) {
		snprintf(why, cap, "there is no member %016" PRIx64 " to be demoted", id);
		return NODE_REFUSED;
	}
	if (!(m->flags & RAFT_AWAITED))
		m->flags = (uint8_t)(RAFT_LEARNER | (m->flags & RAFT_WITNESS));
	return NODE_READY;
}

static enum node_readiness add(struct raft_config *c, const struct raft_member *m, char *why, size_t cap)
{
	if (raft_config_find(c, m->id))
		return NODE_READY; /* by this request, when it was asked before; it may have come since */
	for (uint32_t i = 0; i < c->n; i++)
		if (!strcmp(c->m[i].url, m->url)) {
			snprintf(why, cap, "%s is the address of member %016" PRIx64, m->url, c->m[i].id);
			return NODE_REFUSED;
		}
	if (c->n == RAFT_MEMBERS_MAX) {
		snprintf(why, cap, "the group has %u members, as many as it can have", c->n);
		return NODE_REFUSED;
	}
	c->m[c->n++] = *m;
	return NODE_READY;
}

static void remove_member(struct raft_config *c, uint64_t id)
{
	struct raft_member *m = find(c, id);

	if (!m)
		return; /* it is so already */
	memmove(m, m + 1, (size_t)(c->m + c->n - (m + 1)) * sizeof *m);
	memset(&c->m[--c->n], 0, sizeof *m);
}

/* Removals first: an address may be given to another member, and there is room for it. */
static enum node_readiness apply(struct shell_node *n, const struct change *ch, struct raft_config *c, char *why, size_t cap)
{
	enum node_readiness r = NODE_READY, worst = NODE_READY;

	for (uint32_t i = 0; i < ch->n_remove; i++)
		remove_member(c, ch->remove[i]);
	for (uint32_t i = 0; i < ch->n_add && r != NODE_REFUSED; i++)
		r = add(c, &ch->add[i], why, cap);
	for (uint32_t i = 0; i < ch->n_demote && r != NODE_REFUSED; i++)
		r = demote(c, ch->demote[i], why, cap);
	for (uint32_t i = 0; i < ch->n_priorities && r != NODE_REFUSED; i++) {
		struct raft_member *m = find(c, ch->priorities[i].id);

		if (m)
			m->priority = ch->priorities[i].priority;
		else
			r = NODE_REFUSED;
		if (!m)
			snprintf(why, cap, "there is no member %016" PRIx64, ch->priorities[i].id);
	}
	for (uint32_t i = 0; i < ch->n_promote && r != NODE_REFUSED; i++) {
		r = promote(n, c, ch->promote[i], why, cap);
		worst = r > worst ? r : worst;
	}
	for (uint32_t i = 0; i < ch->n_replica && r != NODE_REFUSED; i++) {
		r = make_replica(c, ch->replica[i], why, cap);
		worst = r > worst ? r : worst;
	}
	if (ch->quorums[0])
		c->quorums.commit = ch->size.commit;
	if (ch->quorums[1])
		c->quorums.elect = ch->size.elect;
	return r > worst ? r : worst;
}

static bool same(const struct raft_config *a, const struct raft_config *b)
{
	struct wire_buf x = WIRE_BUF_INIT, y = WIRE_BUF_INIT;
	bool same;

	raft_config_put(a, &x);
	raft_config_put(b, &y);
	same = !x.failed && !y.failed && x.len == y.len && !memcmp(x.data, y.data, x.len);
	wire_buf_free(&x);
	wire_buf_free(&y);
	return same;
}

/* --- may it be? --- */

static bool answers(struct shell_node *n, uint64_t id)
{
	struct raft_progress p = { 0 };

	if (id == n->conf.node)
		return true;
	return raft_progress_of(n->raft, id, &p) && p.alive;
}

static bool voters_differ(const struct raft_config *a, const struct raft_config *b)
{
	for (uint32_t i = 0; i < a->n; i++) {
		const struct raft_member *m = raft_config_find(b, a->m[i].id);

		if ((a->m[i].flags & RAFT_VOTER) && !(m && (m->flags & RAFT_VOTER)))
			return true;
	}
	return false;
}

/* To go on, and to have a leader again. */
static uint32_t quorum_of(const struct raft_config *c)
{
	uint32_t commit = raft_config_quorum(c, false, RAFT_TO_COMMIT), elect = raft_config_quorum(c, false, RAFT_TO_ELECT);

	return commit > elect ? commit : elect;
}

/* A configuration whose voters do not answer would be committed by nobody: the group would stand still from the moment on at which it takes effect. */
static enum node_readiness check_alive(struct shell_node *n, const struct raft_config *now, const struct raft_config *c, char *why, size_t cap)
{
	uint32_t voters = 0, alive = 0, need;
	char silent[128] = "";

	if (!voters_differ(now, c) && !voters_differ(c, now) && now->quorums.commit == c->quorums.commit && now->quorums.elect == c->quorums.elect)
		return NODE_READY;
	for (uint32_t i = 0; i < c->n; i++) {
		size_t len = strlen(silent);

		if (!(c->m[i].flags & RAFT_VOTER))
			continue;
		voters++;
		if (answers(n, c->m[i].id))
			alive++;
		else
			snprintf(silent + len, sizeof silent - len, "%s%s", len ? ", " : "", c->m[i].url);
	}
	if (!voters) {
		snprintf(why, cap, "no voter would be left. A database that shall have no cluster any more is made a plain one by walraft detach");
		return NODE_REFUSED;
	}
	need = quorum_of(c);
	if (alive >= need)
		return NODE_READY;
	snprintf(why, cap, "it would leave no quorum: of %u voters %u %s needed, and %u answer%s (silent: %s; start them, or remove them too)", voters, need, need == 1 ? "is" : "are", alive, alive == 1 ? "s" : "", silent);
	/* A new leader has not heard from all yet. */
	return node_now_us(n) < n->leads_since_us + NODE_SILENT_US ? NODE_WORKING : NODE_REFUSED;
}

/* Who leads instead of this node, which `c` has as no voter: the one of its voters that is one now and lacks least; 0: none. */
static uint64_t successor(struct shell_node *n, const struct raft_config *now, const struct raft_config *c)
{
	uint64_t best = 0, best_match = 0;

	for (uint32_t i = 0; i < c->n; i++) {
		const struct raft_member *m = &c->m[i], *was = raft_config_find(now, m->id);
		struct raft_progress p = { 0 };

		if (m->id == n->conf.node || !(m->flags & RAFT_VOTER) || (m->flags & RAFT_WITNESS) || !was || !(was->flags & RAFT_VOTER) || !answers(n, m->id))
			continue;
		if (raft_progress_of(n->raft, m->id, &p) && p.state != RAFT_SNAPSHOT && (!best || p.match > best_match)) {
			best = m->id;
			best_match = p.match;
		}
	}
	return best;
}

static bool votes(const struct raft_config *c, uint64_t id)
{
	const struct raft_member *m = raft_config_find(c, id);

	return m && (m->flags & RAFT_VOTER);
}

/* --- doing it --- */

static void transfer_to(struct shell_node *n, uint64_t peer, const char *line, struct wire_buf *answer)
{
	struct raft_event ev = { .type = RAFT_EV_TRANSFER, .peer = peer };
	int code = WIRE_OK;

	if (!node_is_drained(n)) {
		node_drain_for(n, line);
		node_member_answer(answer, "working", "the leader hands over once the transaction under way there has ended%s%s", *n->transfer_note ? "; before: " : "", n->transfer_note);
		return;
	}
	if (node_step(n, &ev, &code, NULL))
		return;
	if (code == WIRE_INVALID)
		snprintf(n->transfer_note, sizeof n->transfer_note, "%s", peer ? "that member is no voter" : "no other voter is in reach and near enough to the log's end");
	node_member_answer(answer, "working", "leadership is being handed over");
}

static void propose(struct shell_node *n, const struct raft_config *c, struct wire_buf *answer)
{
	struct raft_event ev = { .type = RAFT_EV_CONFIG, .config = c };
	int code = WIRE_OK;

	if (node_step(n, &ev, &code, NULL))
		return;
	if (code == WIRE_INVALID) {
		node_member_answer(answer, "refused", "%s", n->refusal);
		return;
	}
	if (!code)
		shell_log(n, "changing the members: entry %llu", (unsigned long long)n->last_index);
	node_member_answer(answer, "working", code ? "another change is under way" : "the change is being committed");
}

static void change_to(struct shell_node *n, const struct raft_config *c, const char *line, struct wire_buf *answer)
{
	const struct raft_config *now = raft_config_current(n->raft);
	bool leaves = votes(now, n->conf.node) && !votes(c, n->conf.node);
	struct wire_err err;
	char why[400] = "";
	enum node_readiness r;
	uint64_t next;

	if (raft_config_check(c, &err)) {
		node_member_answer(answer, "refused", "%s", err.text);
		return;
	}
	r = check_alive(n, now, c, why, sizeof why);
	next = leaves ? successor(n, now, c) : 0;
	if (r != NODE_READY) {
		node_member_answer(answer, r == NODE_WORKING ? "working" : "refused", "%s", why);
	} else if (next) { /* the next leader goes on */
		transfer_to(n, next, line, answer);
	} else if (leaves && !node_is_drained(n)) {
		node_drain_for(n, line);
		node_member_answer(answer, "working", "the leader, which will be none, waits for the transaction under way there to end");
	} else {
		propose(n, c, answer);
	}
}

static void do_change(struct shell_node *n, const struct change *ch, const char *line, struct wire_buf *answer)
{
	const struct raft_config *now = raft_config_current(n->raft);
	bool settled = raft_config_committed(n->raft) && !now->joint;
	struct raft_config *c = malloc(sizeof *c);
	char why[400] = "";
	enum node_readiness r;

	if (!c) {
		node_member_answer(answer, "refused", "the leader is out of memory");
		return;
	}
	*c = *now;
	if (!settled || !n->shared.leader_ready) {
		node_member_answer(answer, "working", "a change is being committed");
	} else if ((r = apply(n, ch, c, why, sizeof why)) != NODE_READY) {
		node_member_answer(answer, r == NODE_WORKING ? "working" : "refused", "%s", why);
	} else if (same(now, c)) {
		answer_done(n, answer);
	} else {
		change_to(n, c, line, answer);
	}
	free(c);
}

/* Whether there is another one that could lead, and answers if that is asked for. */
static bool leads_instead(struct shell_node *n, const struct raft_config *c, bool answering)
{
	for (uint32_t i = 0; i < c->n; i++) {
		const struct raft_member *m = &c->m[i];

		if (m->id != n->conf.node && (m->flags & RAFT_VOTER) && !(m->flags & RAFT_WITNESS) && (!answering || answers(n, m->id)))
			return true;
	}
	return false;
}

static void do_transfer(struct shell_node *n, uint64_t to, uint64_t from, const char *line, struct wire_buf *answer)
{
	const struct raft_config *now = raft_config_current(n->raft);

	if (to == n->conf.node || (!to && from != n->conf.node)) {
		*n->transfer_note = 0;
		answer_done(n, answer);
	} else if (to && !votes(now, to)) {
		node_member_answer(answer, "refused", "member %016" PRIx64 " is %s", to, raft_config_find(now, to) ? "no voter: only a voter can lead; promote it first" : "not there");
	} else if (to && !answers(n, to) && node_now_us(n) >= n->leads_since_us + NODE_SILENT_US) {
		node_member_answer(answer, "refused", "%s does not answer: it cannot lead", raft_config_find(now, to)->url);
	} else if (n->shared.transfer_to) {
		node_member_answer(answer, "working", "leadership is being handed over");
	} else if (!to && !leads_instead(n, now, false)) {
		node_member_answer(answer, "refused", "no other voter has a database: nobody can lead instead of %s", n->conf.listen);
	} else if (!to && !leads_instead(n, now, true) && node_now_us(n) >= n->leads_since_us + NODE_SILENT_US) {
		/* The mover would keep the writers waiting again and again, for nothing. */
		node_member_answer(answer, "refused", "no other voter that has a database answers: nobody can lead instead; are their nodes running?");
	} else if (!raft_config_committed(n->raft) || now->joint || !n->shared.leader_ready) {
		node_member_answer(answer, "working", "a change of members is being committed first");
	} else {
		transfer_to(n, to, line, answer);
	}
}

void node_member_line(struct shell_node *n, const char *line, struct wire_buf *answer)
{
	struct change *ch = calloc(1, sizeof *ch);
	char *copy = strdup(line), *rest = copy, *verb = copy ? strtok_r(copy, " ", &rest) : NULL;
	bool good = true;
	uint64_t to = 0, from = 0;

	if (!ch || !copy) {
		answer->failed = true;
	} else if (verb && !strcmp(verb, "members")) {
		answer_done(n, answer);
	} else if (verb && !strcmp(verb, "transfer")) {
		for (char *w; good && (w = strtok_r(NULL, " ", &rest));)
			good = (!strncmp(w, "to=", 3) && parse_list(&to, &(uint32_t){ 0 }, w + 3)) || (!strncmp(w, "from=", 5) && parse_list(&from, &(uint32_t){ 0 }, w + 5));
		if (good)
			do_transfer(n, to, from ? from : n->conf.node, line, answer);
	} else if (verb && !strcmp(verb, "change")) {
		for (char *w; good && (w = strtok_r(NULL, " ", &rest));)
			good = parse_word(ch, w);
		if (good)
			do_change(n, ch, line, answer);
	} else {
		good = false;
	}
	if (!good)
		node_member_answer(answer, "refused", "the leader does not understand this request; is its program as new as this one?");
	free(copy);
	free(ch);
}
