/* Membership requests on the node thread: those of nodes that join and of learners on their way to vote, and the way of people's requests (change.c) to the leader. Each is answered from the state as it is: done (answered), possible (started, unanswered),
 * or refused. The asker repeats itself until it is answered, so nothing is remembered here. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMOTE_RETRY_US 200000
#define PROPOSE_RETRY_US 200000
#define BEHIND_MAX 64 /* entries that a learner may have to publish yet when it becomes a voter */

static void refuse(struct shell_node *n, const struct wire_msg *q, int type, const char *why)
{
	struct wire_msg m = { .type = (uint8_t)type, .flags = WIRE_MSG_REJECT, .corr = q->corr };
	const struct raft_member *leader = raft_config_find(raft_config_current(n->raft), n->shared.leader);

	snprintf(m.text, sizeof m.text, "%s", why);
	if (n->shared.role != RAFT_LEADER && leader) {
		m.hint = leader->id;
		m.data = (const uint8_t *)leader->url;
		m.data_len = (uint32_t)strlen(leader->url);
	}
	node_send(n, q->from, &m);
}

static void propose_config(struct shell_node *n, const struct wire_msg *q, int reply_type, const struct raft_config *c)
{
	struct raft_event ev = { .type = RAFT_EV_CONFIG, .config = c };
	int code = WIRE_OK;

	if (node_step(n, &ev, &code, NULL))
		return;
	if (code && code != WIRE_BUSY)
		refuse(n, q, reply_type, code == WIRE_NOTLEADER ? "not the leader" : n->refusal);
}

/* node.conf gives this node an address that the cluster's configuration does not know yet: it was set up without one. */
static bool url_is_old(const struct shell_node *n, const struct raft_config *now)
{
	const struct raft_member *self = raft_config_find(now, n->conf.node);

	return self && *n->conf.listen && strcmp(self->url, n->conf.listen) != 0;
}

static void propose_url(struct shell_node *n, const struct raft_config *now, uint64_t now_us)
{
	struct raft_config *c = malloc(sizeof *c);
	struct raft_event ev = { .type = RAFT_EV_CONFIG, .config = c };
	int code = WIRE_NOMEM;
	uint64_t again;

	if (c) {
		*c = *now;
		for (uint32_t i = 0; i < c->n; i++)
			if (c->m[i].id == n->conf.node)
				snprintf(c->m[i].url, sizeof c->m[i].url, "%s", n->conf.listen);
		if (!node_step(n, &ev, &code, NULL) && !code)
			shell_log(n, "telling the cluster this node's address, %s", n->conf.listen);
		free(c);
	}
	/* Where it was taken the next batch must come at once: this one has synced the journal already. */
	again = code ? now_us + PROPOSE_RETRY_US : now_us;
	if (n->deadline_us > again)
		n->deadline_us = again;
}

static void accept_join(struct shell_node *n, const struct wire_msg *m, const struct raft_config *now)
{
	struct wire_msg r = { .type = WIRE_MSG_JOIN_RESP, .corr = m->corr, .term = n->conf.cluster };
	struct wire_buf b = WIRE_BUF_INIT;

	if (!node_witness_base(n, &r))
		return;
	raft_config_put(now, &b);
	r.data = b.data;
	r.data_len = (uint32_t)b.len;
	if (!b.failed)
		node_send(n, m->from, &r);
	wire_buf_free(&b);
}

/* Another member has the asker's address. If that one was only named so far, it is the asker, who takes its id: the answer goes to whoever listens at that address. */
static void tell_address_taken(struct shell_node *n, const struct wire_msg *m, const struct raft_member *other)
{
	struct wire_msg r = { .type = WIRE_MSG_JOIN_RESP, .flags = WIRE_MSG_REJECT, .corr = m->corr };

	if (!(other->flags & RAFT_AWAITED)) {
		refuse(n, m, WIRE_MSG_JOIN_RESP, "another member has this address; give this node one of its own, or remove that member first");
		return;
	}
	r.index = other->id;
	snprintf(r.text, sizeof r.text, "awaited");
	node_send(n, m->from, &r);
}

static uint8_t wanted_flags(const struct wire_msg *m)
{
	uint8_t known = RAFT_LEARNER | RAFT_WITNESS | RAFT_RISING;

	return m->hint & RAFT_LEARNER ? (uint8_t)(m->hint & known) : RAFT_LEARNER | RAFT_RISING;
}

/* Adds it, or notes that it has come. */
static void take_in(struct shell_node *n, const struct wire_msg *m, const struct raft_config *now, bool awaited)
{
	struct raft_config *c = malloc(sizeof *c);

	if (!c)
		return; /* it asks again */
	*c = *now;
	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].id == m->from)
			c->m[i].flags &= (uint8_t)~RAFT_AWAITED;
	if (!awaited) {
		c->m[c->n] = (struct raft_member){ .id = m->from, .flags = wanted_flags(m), .priority = (uint8_t)m->index };
		snprintf(c->m[c->n].url, sizeof c->m[c->n].url, "%s", m->text);
		c->n++;
	}
	shell_log(n, "%s %016llx at %s", awaited ? "here comes awaited member" : "adding learner", (unsigned long long)m->from, m->text);
	propose_config(n, m, WIRE_MSG_JOIN_RESP, c);
	free(c);
}

static void handle_join(struct shell_node *n, const struct wire_msg *m)
{
	const struct raft_config *now = raft_config_current(n->raft);
	const struct raft_member *self = raft_config_find(now, m->from);
	struct wire_err err;
	bool loopback, settled = !now->joint && raft_config_committed(n->raft);

	if (n->shared.role != RAFT_LEADER) {
		refuse(n, m, WIRE_MSG_JOIN_RESP, "not the leader");
		return;
	}
	/* Whoever is answered dials what the configuration says. It will say it in a moment: the asker repeats itself. */
	if (url_is_old(n, now))
		return;
	if (wire_url_check(m->text, &loopback, &err)) {
		refuse(n, m, WIRE_MSG_JOIN_RESP, err.text);
		return;
	}
	for (uint32_t i = 0; i < now->n; i++)
		if (now->m[i].id != m->from && !strcmp(now->m[i].url, m->text)) {
			if (settled)
				tell_address_taken(n, m, &now->m[i]);
			return;
		}
	if (self && strcmp(self->url, m->text) != 0) {
		refuse(n, m, WIRE_MSG_JOIN_RESP, "this node is a member under another address");
		return;
	}
	if (!self && now->n == RAFT_MEMBERS_MAX) {
		refuse(n, m, WIRE_MSG_JOIN_RESP, "the cluster has as many members as it can have");
		return;
	}
	/* Also when an earlier join of it was cut short: a data voter without a database would count for what it does not have. */
	if (self && ((self->flags ^ wanted_flags(m)) & RAFT_WITNESS)) {
		refuse(n, m, WIRE_MSG_JOIN_RESP, self->flags & RAFT_WITNESS ? "it was added as a witness: join with --witness, or remove that member first"
		                                                           : "it was added as a replica: join without --witness, or remove that member first");
		return;
	}
	if (!settled)
		return;
	if (self && !(self->flags & RAFT_AWAITED))
		accept_join(n, m, now);
	else
		take_in(n, m, now, self != NULL);
}

static void handle_promote(struct shell_node *n, const struct wire_msg *m)
{
	const struct raft_config *now = raft_config_current(n->raft);
	const struct raft_member *self = raft_config_find(now, m->from);
	struct raft_config *c;
	char why[WIRE_TEXT_MAX + 1];
	enum node_readiness ready;

	if (n->shared.role != RAFT_LEADER || !self) {
		refuse(n, m, WIRE_MSG_PROMOTE_RESP, self ? "not the leader" : "not a member of this cluster");
		return;
	}
	if (now->joint || !raft_config_committed(n->raft))
		return;
	if ((self->flags & RAFT_VOTER) && (self->flags & RAFT_WITNESS) && (m->hint || (self->flags & RAFT_RISING))) {
		node_witness_asks(n, m, self);
		return;
	}
	if (self->flags & RAFT_VOTER) {
		struct wire_msg r = { .type = WIRE_MSG_PROMOTE_RESP, .corr = m->corr };

		node_send(n, m->from, &r);
		return;
	}
	ready = node_ready_to_vote(n, self, why, sizeof why);
	if (ready == NODE_REFUSED)
		refuse(n, m, WIRE_MSG_PROMOTE_RESP, why);
	if (ready != NODE_READY || m->index + BEHIND_MAX < n->shared.commit || !(c = malloc(sizeof *c)))
		return;
	*c = *now;
	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].id == m->from)
			c->m[i].flags = (uint8_t)(RAFT_VOTER | (c->m[i].flags & RAFT_WITNESS));
	shell_log(n, "promoting learner %016llx to voter", (unsigned long long)m->from);
	propose_config(n, m, WIRE_MSG_PROMOTE_RESP, c);
	free(c);
}

/* --- what people ask --- */

/* The group's, whichever member it comes from, or one that was removed just now by what it asks about. */
static void serve_member(struct shell_node *n, const struct wire_link_msg *lm)
{
	struct wire_msg r = { .type = WIRE_MSG_MEMBER_RESP, .corr = lm->msg.corr };
	struct wire_buf b = WIRE_BUF_INIT;
	char line[NODE_LINE_MAX];

	if (lm->guest || !lm->msg.data_len || lm->msg.data_len >= sizeof line || n->shared.role != RAFT_LEADER)
		return; /* the asker has its time limit */
	memcpy(line, lm->msg.data, lm->msg.data_len);
	line[lm->msg.data_len] = 0;
	node_member_line(n, line, &b);
	r.data = b.data;
	r.data_len = (uint32_t)b.len;
	if (!b.failed && b.len)
		node_send(n, lm->msg.from, &r);
	wire_buf_free(&b);
}

static void settle_ask(struct shell_node *n, const struct wire_msg *m)
{
	for (struct request **at = &n->asks, *r; (r = *at); at = &r->next)
		if (r->corr == m->corr) {
			*at = r->next;
			wire_put_bytes(&r->answer, m->data, m->data_len);
			pthread_mutex_lock(&n->mu);
			node_settle(r, WIRE_OK, 0);
			pthread_mutex_unlock(&n->mu);
			return;
		}
}

void node_member_request(struct shell_node *n, struct request *r)
{
	struct wire_msg q = { .type = WIRE_MSG_MEMBER_REQ, .corr = r->corr, .data = r->data, .data_len = r->size };

	if (n->shared.role != RAFT_LEADER && n->shared.leader && !n->shared.removed) {
		r->next = n->asks;
		n->asks = r;
		node_send(n, n->shared.leader, &q);
		return;
	}
	if (n->shared.role == RAFT_LEADER)
		node_member_line(n, (const char *)r->data, &r->answer);
	else if (n->shared.removed)
		node_member_answer(&r->answer, "removed", "this node was removed from its cluster");
	else
		node_member_answer(&r->answer, "noleader", "no leader is known here: an election is under way, or this node is cut off from the majority");
	pthread_mutex_lock(&n->mu);
	node_settle(r, WIRE_OK, 0);
	pthread_mutex_unlock(&n->mu);
}

void node_member_tick(struct shell_node *n)
{
	struct request *r;

	if (!n->asks)
		return;
	pthread_mutex_lock(&n->mu);
	for (struct request **at = &n->asks; (r = *at);) {
		if (r->abandoned) {
			*at = r->next;
			node_settle(r, WIRE_TIMEOUT, 0);
		} else {
			at = &r->next;
		}
	}
	pthread_mutex_unlock(&n->mu);
}

void node_membership_msg(struct shell_node *n, const struct wire_link_msg *lm)
{
	const struct wire_msg *m = &lm->msg;

	switch (m->type) {
	case WIRE_MSG_JOIN_REQ:
		handle_join(n, m);
		break;
	case WIRE_MSG_PROMOTE_REQ:
		if (m->group == n->conf.group)
			handle_promote(n, m);
		break;
	case WIRE_MSG_PROMOTE_RESP:
		pthread_mutex_lock(&n->mu);
		if (m->flags & WIRE_MSG_REJECT)
			snprintf(n->promotion_refusal, sizeof n->promotion_refusal, "%s", m->text);
		pthread_mutex_unlock(&n->mu);
		break;
	case WIRE_MSG_MEMBER_REQ:
		if (m->group == n->conf.group)
			serve_member(n, lm);
		break;
	case WIRE_MSG_MEMBER_RESP:
		if (m->group == n->conf.group && !lm->guest)
			settle_ask(n, m);
		break;
	default:
		break; /* a type that nobody asked for */
	}
}

void node_membership_tick(struct shell_node *n, uint64_t now_us)
{
	struct wire_msg m = { .type = WIRE_MSG_PROMOTE_REQ, .index = n->store->applied(n) };
	const struct raft_config *now = raft_config_current(n->raft);
	const struct raft_member *self = raft_config_find(now, n->conf.node);

	if (n->shared.role == RAFT_LEADER && n->shared.leader_ready && !now->joint && raft_config_committed(n->raft) && url_is_old(n, now)) {
		propose_url(n, now, now_us);
		return;
	}
	node_witness_tick(n, now_us);
	node_readmit_tick(n, now_us);
	/* Also when the join that made it was cut short. */
	if (!self || !(self->flags & RAFT_LEARNER) || !(self->flags & RAFT_RISING) || now_us < n->promote_at_us || !n->shared.leader || n->shared.leader == n->conf.node)
		return;
	n->promote_at_us = now_us + PROMOTE_RETRY_US;
	node_send(n, n->shared.leader, &m);
}

void shell_node_promotion_refusal(struct shell_node *n, char *dst, size_t cap)
{
	pthread_mutex_lock(&n->mu);
	snprintf(dst, cap, "%s", n->promotion_refusal);
	pthread_mutex_unlock(&n->mu);
}

void shell_node_self(struct shell_node *n, struct shell_self *ret_self)
{
	const struct raft_member *m;

	pthread_mutex_lock(&n->mu);
	m = raft_config_find(&n->shared.config, n->conf.node);
	*ret_self = (struct shell_self){
		.voter = m && (m->flags & RAFT_VOTER),
		.learner = m && (m->flags & RAFT_LEARNER),
		.rising = m && (m->flags & RAFT_RISING),
		.removed = n->shared.removed,
		.has_leader = n->shared.leader != 0,
		.stable = !n->shared.config.joint && n->shared.config_committed,
		.members = n->shared.config.n,
		.published = n->store->applied(n),
		.leader_commit = n->shared.commit,
		.last_index = n->shared.last_index,
	};
	pthread_mutex_unlock(&n->mu);
}
