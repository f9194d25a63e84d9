/* Membership of witnesses, on the node thread: where one's log begins, when it becomes a full replica, and what the leader tells it of those who lag. Like members.c it
 * remembers nothing of a request: the asker repeats itself. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_US 500000u
#define BEHIND_MAX 64u      /* entries that a replica may have to publish yet when its database begins to count */
#define REST_US 3000000u     /* so long a live member may be silent: between the heartbeats of an idle group, of which one was lost */
#define SILENT_US 1000000u  /* a data voter of whom so long nothing was heard is named as the one that keeps the log from being trimmed */

/* The new member's log begins behind the commit index. The configuration in force there is the one that the answer carries, since that is committed. The core makes it a
 * voter only once every data voter has what it began with (raft/witness.c, K). */
bool node_witness_base(struct shell_node *n, struct wire_msg *ret_msg)
{
	uint64_t commit = atomic_load(&n->lease->read_index), term = raft_term_of(n->raft, commit);

	if (!term)
		return false;
	ret_msg->index = commit;
	ret_msg->log_term = term;
	return true;
}

static uint64_t silent_us(const struct shell_node *n, uint64_t id, uint64_t now_us)
{
	struct raft_progress p;
	uint64_t since = n->leads_since_us;

	if (!raft_progress_of(n->raft, id, &p))
		return 0;
	if (p.last_contact_us > since)
		since = p.last_contact_us;
	return now_us > since ? now_us - since : 0;
}

static bool is_other_data_voter(const struct shell_node *n, const struct raft_member *m)
{
	return m->id != n->conf.node && (m->flags & RAFT_VOTER) && !(m->flags & RAFT_WITNESS);
}

static void change_flags(struct shell_node *n, uint64_t id, uint8_t flags)
{
	struct raft_config *c = malloc(sizeof *c);
	struct raft_event ev = { .type = RAFT_EV_CONFIG, .config = c };

	if (!c)
		return; /* it asks again */
	*c = *raft_config_current(n->raft);
	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].id == id)
			c->m[i].flags = flags;
	(void)node_step(n, &ev, NULL, NULL);
	free(c);
}

/* hint: seconds. A data voter that is silent for so long may never come back, and with the next one lost there would be no database. */
static void rise_if_alone(struct shell_node *n, const struct wire_msg *m, const struct raft_member *self)
{
	const struct raft_config *now = raft_config_current(n->raft);
	uint64_t now_us = node_now_us(n);

	for (uint32_t i = 0; i < now->n; i++) {
		if (!is_other_data_voter(n, &now->m[i]) || silent_us(n, now->m[i].id, now_us) < m->hint * 1000000 + REST_US)
			continue;
		shell_log(n, "%s was not heard from for %llu s: witness %s shall become a full replica", now->m[i].url, (unsigned long long)m->hint, self->url);
		change_flags(n, self->id, self->flags | RAFT_RISING);
		return;
	}
}

void node_witness_asks(struct shell_node *n, const struct wire_msg *m, const struct raft_member *self)
{
	struct raft_progress p;

	if (m->hint) {
		if (!(self->flags & RAFT_RISING) && m->hint <= SHELL_PROMOTE_AFTER_MAX)
			rise_if_alone(n, m, self);
		return;
	}
	if (!(self->flags & RAFT_RISING) || !raft_progress_of(n->raft, m->from, &p) || p.match + BEHIND_MAX < n->shared.last_index ||
	    m->index + BEHIND_MAX < n->shared.commit)
		return;
	shell_log(n, "witness %s has its database: it is a full replica from now on", self->url);
	change_flags(n, self->id, (uint8_t)(self->flags & ~(RAFT_WITNESS | RAFT_RISING)));
}

void node_witness_tick(struct shell_node *n, uint64_t now_us)
{
	struct wire_msg m = { .type = WIRE_MSG_PROMOTE_REQ, .index = n->store->applied(n) };
	const struct raft_member *self = raft_config_find(raft_config_current(n->raft), n->conf.node);
	const uint8_t voter = RAFT_VOTER | RAFT_WITNESS;

	if (n->shared.role == RAFT_LEADER && n->leads_term != n->shared.term) {
		n->leads_term = n->shared.term;
		n->leads_since_us = now_us;
	}
	if (!self || (self->flags & voter) != voter || now_us < n->promote_at_us || !n->shared.leader || n->shared.leader == n->conf.node)
		return;
	/* Has its database and says so; or asks for one, should it come to that. */
	if (n->store->witness && (!n->conf.promote_after_s || (self->flags & RAFT_RISING)))
		return;
	if (n->store->witness)
		m.hint = n->conf.promote_after_s;
	n->promote_at_us = now_us + ASK_US;
	node_send(n, n->shared.leader, &m);
}

/* A witness cannot know for whom it keeps its log: heartbeats to it name the data voter that lags most, if it is away. */
void node_witness_tell(struct shell_node *n, struct wire_msg *m)
{
	const struct raft_config *now = raft_config_current(n->raft);
	const struct raft_member *to = raft_config_find(now, m->to), *last = NULL;
	uint64_t lowest = n->shared.commit, now_us = node_now_us(n);

	for (uint32_t i = 0; to && (to->flags & RAFT_WITNESS) && i < now->n; i++) {
		struct raft_progress p;

		if (!is_other_data_voter(n, &now->m[i]) || !raft_progress_of(n->raft, now->m[i].id, &p) || p.match >= lowest ||
		    silent_us(n, now->m[i].id, now_us) < SILENT_US)
			continue;
		lowest = p.match;
		last = &now->m[i];
	}
	if (last)
		snprintf(m->text, sizeof m->text, "%s", last->url);
}

void node_witness_told(struct shell_node *n, const struct wire_msg *m)
{
	pthread_mutex_lock(&n->mu);
	snprintf(n->witness.lacking, sizeof n->witness.lacking, "%s", m->text);
	pthread_mutex_unlock(&n->mu);
}
