/* The node thread: feeds the core, in the order of durability that raft/README.md gives. The thread also writes and syncs the
 * journal: two hand-overs less on the way of a commit than with a thread of its own, and a node whose disk hangs falls silent by itself. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* First of all: the update's messages may tell somebody of a commit, whose reads here must not miss it, or to stand for election. */
static void share_lease(struct shell_node *n, const struct raft_update *u, const struct wire_clock_reading *now)
{
	struct node_lease *l = n->lease;
	uint64_t until = atomic_load_explicit(&l->until_us, memory_order_relaxed);

	if (atomic_load_explicit(&l->read_index, memory_order_relaxed) == u->read_index &&
	    until == u->lease_until_us)
		return;
	if (until && !u->lease_until_us && now->status == WIRE_CLOCK_OK && now->earliest_us == now->latest_us) { /* given up: until then, at least, nobody else committed anything */
		pthread_mutex_lock(&n->mu);
		node_fresh_learn(n, until <= now->latest_us ? until - 1 : now->latest_us - 1, atomic_load_explicit(&l->read_index, memory_order_relaxed));
		pthread_mutex_unlock(&n->mu);
	}
	atomic_store(&l->read_index, u->read_index);
	atomic_store(&l->until_us, u->lease_until_us);
}

/* Others rely on a witness's log, whatever it has by now, until a configuration in which it is none is committed. mu held. */
static void share_keeps_log(struct shell_node *n)
{
	const struct raft_member *self = raft_config_find(&n->shared.config, n->conf.node);

	if (self && (self->flags & RAFT_WITNESS))
		n->keeps_log = true;
	else if (self && n->shared.config_committed)
		n->keeps_log = n->store->witness;
}

static void share(struct shell_node *n, const struct raft_update *u)
{
	struct node_shared *s = &n->shared;
	bool news, voided, was_removed = s->removed;

	pthread_mutex_lock(&n->mu);
	news = u->role_changed || s->transfer_to != u->transfer_to;
	voided = s->role != u->role || s->term != u->term;
	if (s->transfer_to && !u->transfer_to && u->role == RAFT_LEADER)
		snprintf(n->transfer_note, sizeof n->transfer_note, "member %016llx did not take over within an election timeout", (unsigned long long)s->transfer_to);
	s->role = u->role;
	s->level = u->level;
	s->term = u->term;
	s->leader = u->leader;
	s->commit = u->commit;
	s->last_index = u->last_index;
	s->persisted = u->truncate_from && u->truncate_from <= s->persisted ? u->truncate_from - 1 : s->persisted; /* what replaces them is not durable */
	s->leader_ready = u->leader_ready;
	s->forgetful = u->forgetful;
	s->needs_image = u->needs_image;
	if (s->holes)
		s->holes = (uint32_t)raft_journal_holes(n->journal);
	s->transfer_to = u->transfer_to;
	if (u->config_changed)
		s->config = *raft_config_current(n->raft);
	s->config_committed = raft_config_committed(n->raft);
	share_keeps_log(n);
	if (u->role != RAFT_LEADER || n->keeps_log)
		s->keep_above = u->keep_above;
	/* A node without any configuration has just not heard yet. */
	s->removed = u->removed || (s->config_committed && s->config.n && !s->config.joint && !raft_config_find(&s->config, n->conf.node));
	if (voided)
		node_grants_void(n);
	if (u->config_changed || voided)
		node_show_voters(n);
	node_forward_role(n, u->role);
	node_forward_settle(n);
	node_settle_pending(n);
	node_settle_reads(n, u);
	n->store->moved(n);
	if (news || s->removed != was_removed)
		pthread_cond_broadcast(&n->published_cond);
	pthread_mutex_unlock(&n->mu);
	node_forward_release_void(n);
	if (s->removed && !was_removed)
		shell_log(n, n->store->witness ? "this witness was removed from its cluster: it takes no part any more. Stop it, and delete %s"
		                               : "this node was removed from its cluster: it takes no part any more. Join anew under another file, or walraft detach %s",
		          n->store->witness ? n->paths.dir : n->paths.db);
}

/* --- one step --- */

static int write_journal(struct shell_node *n, const struct raft_update *u, struct wire_err *err)
{
	int rc = WIRE_OK;

	if (u->truncate_from)
		rc = raft_journal_append_truncate(n->journal, u->truncate_from, err);
	if (!rc && u->n_entries)
		rc = raft_journal_append_entries(n->journal, u->entries, u->n_entries, u->commit, err);
	if (!rc && u->hard_state_changed)
		rc = raft_journal_append_vote(n->journal, u->term, u->vote, err);
	if (!rc && u->n_fills)
		rc = node_fills_write(n, u, err);
	if (!rc && n->forgetful && !u->forgetful) {
		rc = raft_journal_append_forgetful(n->journal, false, err);
		n->must_sync = true;
		n->forgetful = false;
		shell_log(n, "this node is re-admitted: what it promises counts again");
	}
	if (!rc && u->role_changed) {
		char note[96], leader[32] = "no leader known";

		if (u->leader)
			snprintf(leader, sizeof leader, "leader %016llx", (unsigned long long)u->leader);
		snprintf(note, sizeof note, "%s in term %llu, %s", raft_role_name(u->role), (unsigned long long)u->term, leader);
		rc = raft_journal_append_note(n->journal, note, err);
		if (!n->shared.removed) /* it asks again and again whether it is one */
			shell_log(n, "%s", note);
	}
	return rc;
}

static int absorb(struct shell_node *n, const struct raft_update *u)
{
	struct wire_err err;
	int rc = WIRE_OK;

	if (u->config_changed)
		node_link_members(n);
	if (u->truncate_from)
		entry_cache_drop_from(n->cache, u->truncate_from);
	for (uint32_t i = 0; i < u->n_entries; i++)
		entry_cache_put(n->cache, &u->entries[i]);
	for (uint32_t i = 0; i < u->n_msgs && !rc; i++)
		rc = u->msgs[i].after_persist ? node_send_late(n, &u->msgs[i]) : node_send_raft(n, &u->msgs[i]);
	if (rc)
		return rc;
	if (write_journal(n, u, &err)) {
		node_fail(n, "journal: %s", err.text);
		return err.code;
	}
	n->must_sync |= u->must_sync;
	n->last_index = u->last_index;
	n->deadline_us = u->deadline_us;
	n->backlog_bytes = u->backlog_bytes;
	if (u->role_changed)
		node_grants_end_all(n);
	node_forward_bind(n, u);
	share(n, u);
	if (u->prefer) { /* a member of a higher priority is fit to lead */
		char line[48];

		snprintf(line, sizeof line, "transfer to=%016llx", (unsigned long long)u->prefer);
		node_drain_for(n, line);
	}
	return WIRE_OK;
}

int node_step(struct shell_node *n, struct raft_event *ev, int *ret_code, uint64_t *ret_index)
{
	struct wire_clock_reading now;
	struct raft_update u;
	struct wire_err err;

	n->clock.now(n->clock.ctx, &now);
	ev->clock = (struct raft_clock){ now.earliest_us, now.latest_us, now.status != WIRE_CLOCK_OK };
	ev->now_us = node_now_us(n);
	ev->lease_used = node_lease_used(n, ev->now_us);
	if (raft_step(n->raft, ev, &u, &err)) {
		node_fail(n, "%s", err.text);
		return err.code;
	}
	share_lease(n, &u, &now);
	node_lag_commit(&n->commits, u.commit, ev->now_us);
	for (uint32_t i = 0; i < u.n_told; i++)
		if (u.told[i].event == RAFT_TOLD_READ_ROUND)
			atomic_fetch_add_explicit(&n->read_counts.rounds, 1, memory_order_relaxed);
	node_events_put(n->events, u.told, u.n_told);
	if (u.refusal)
		snprintf(n->refusal, sizeof n->refusal, "%s", u.refusal);
	if (ret_code)
		*ret_code = u.proposal_code;
	if (ret_index)
		*ret_index = u.proposal_index;
	return absorb(n, &u);
}

static int persist(struct shell_node *n)
{
	uint64_t index = n->last_index;
	struct raft_event ev = { .type = RAFT_EV_PERSISTED, .index = index, .term = raft_term_of(n->raft, index) };
	struct wire_err err;

	n->must_sync = false;
	if (raft_journal_sync(n->journal, &err)) {
		node_fail(n, "journal: %s", err.text);
		return err.code;
	}
	pthread_mutex_lock(&n->mu);
	n->shared.persisted = index;
	pthread_mutex_unlock(&n->mu);
	if (node_step(n, &ev, NULL, NULL))
		return WIRE_CLOSED;
	return n->n_filled ? node_fills_done(n) : WIRE_OK;
}

/* Makes durable what the batch wrote, tells the core, then sends what had to wait for it; what the core's answer adds waits for a sync of its own. */
static int finish_batch(struct shell_node *n)
{
	int rc = WIRE_OK;

	while (!rc && (n->must_sync || n->n_late)) {
		size_t ready = n->n_late;

		if (n->must_sync)
			rc = persist(n);
		for (size_t i = 0; i < ready; i++) {
			if (!rc)
				rc = node_send_raft(n, &n->late[i]);
			if (n->late[i].n_entries)
				free(n->late[i].entries);
		}
		n->n_late -= ready;
		if (n->n_late)
			memmove(n->late, n->late + ready, n->n_late * sizeof *n->late);
	}
	return rc;
}

/* The core first: it must not ask for what the journal has forgotten. What stays in the files stays in the core's log too: others may have lost it. */
static int trim(struct shell_node *n)
{
	struct raft_event ev = { .type = RAFT_EV_TRIMMED };
	struct wire_err err;
	int rc;

	pthread_mutex_lock(&n->mu);
	ev.index = n->trim_to < n->shared.commit ? n->trim_to : n->shared.commit;
	n->trim_to = 0;
	pthread_mutex_unlock(&n->mu);
	/* A learner may have been added since that was asked for. */
	if (n->keeps_log)
		ev.index = ev.index < n->shared.keep_above ? ev.index : n->shared.keep_above;
	else if (n->shared.role == RAFT_LEADER && raft_min_match(n->raft) < ev.index)
		ev.index = raft_min_match(n->raft);
	ev.index = raft_journal_trim_base(n->journal, ev.index);
	if (ev.index <= raft_journal_base(n->journal))
		return WIRE_OK;
	rc = node_step(n, &ev, NULL, NULL);
	if (!rc && (rc = raft_journal_trim(n->journal, ev.index, &err)))
		node_fail(n, "journal: %s", err.text);
	return rc;
}

/* --- events --- */

static bool is_raft(uint8_t type)
{
	return type >= WIRE_MSG_PREVOTE_REQ && type <= WIRE_MSG_FETCH_RESP;
}

static int handle_msg(struct shell_node *n, struct wire_link_msg *m)
{
	struct raft_event ev = { .type = RAFT_EV_MESSAGE, .msg = &m->msg };

	if (m->msg.type >= WIRE_MSG_LOCK_REQ && m->msg.type <= WIRE_MSG_PROPOSE_RESP)
		return node_grants_msg(n, m);
	if (!is_raft(m->msg.type)) {
		if (m->msg.type == WIRE_MSG_LAG)
			node_lag_msg(n, m);
		else if (!node_outcome_msg(n, m))
			node_membership_msg(n, m);
		return n->failed ? WIRE_CLOSED : WIRE_OK;
	}
	if (m->guest || m->msg.group != n->conf.group || m->msg.to != n->conf.node)
		return WIRE_OK;
	node_lag_heard(n, &m->msg);
	if (m->msg.type == WIRE_MSG_HEARTBEAT && n->store->witness)
		node_witness_told(n, &m->msg);
	return node_step(n, &ev, NULL, NULL);
}

/* What status shows of the members; not worth the work at every step. */
void node_share_progress(struct shell_node *n, uint64_t now_us)
{
	struct node_shared *s = &n->shared;

	n->progress_at_us = now_us + 100000;
	pthread_mutex_lock(&n->mu);
	s->now_us = now_us;
	if (s->role == RAFT_LEADER && !n->keeps_log)
		s->keep_above = raft_min_match(n->raft);
	for (uint32_t i = 0; i < s->config.n; i++) {
		struct raft_progress p = { 0 };

		(void)raft_progress_of(n->raft, s->config.m[i].id, &p);
		s->progress[i] = p;
		s->up[i] = s->config.m[i].id == n->conf.node || (n->link && wire_link_is_up(n->link, s->config.m[i].id));
	}
	pthread_mutex_unlock(&n->mu);
}

/* Somebody else shall lead: see node_hand_over. */
static int hand_over(struct shell_node *n)
{
	struct raft_event ev = { .type = RAFT_EV_TRANSFER };
	int code = WIRE_OK, rc = node_step(n, &ev, &code, NULL);

	pthread_mutex_lock(&n->mu);
	n->hand_over = rc || code ? HAND_OVER_REFUSED : HAND_OVER_UNDER_WAY;
	pthread_cond_broadcast(&n->published_cond);
	pthread_mutex_unlock(&n->mu);
	return rc;
}

struct batch {
	struct wire_link_msg *msgs;
	struct request *requests;
	struct peer_event *peers;
	bool stop, trim, hand_over;
};

static void take_batch(struct shell_node *n, struct batch *b)
{
	const uint64_t due = n->deadline_us < n->side_due_us ? n->deadline_us : n->side_due_us;

	pthread_mutex_lock(&n->mu);
	while (!n->stop && !n->failed && !n->inbox && !n->requests && !n->peer_events && !n->trim_to && n->hand_over != HAND_OVER_ASKED && !n->drain.run &&
	       !atomic_load_explicit(&n->side_look, memory_order_relaxed) && node_now_us(n) < due)
		node_wait(n, &n->wake, due);
	atomic_store_explicit(&n->side_look, false, memory_order_relaxed);
	*b = (struct batch){ n->inbox, n->requests, n->peer_events, n->stop || n->failed, n->trim_to != 0, n->hand_over == HAND_OVER_ASKED };
	n->inbox = NULL;
	n->inbox_tail = &n->inbox;
	n->requests = NULL;
	n->requests_tail = &n->requests;
	n->peer_events = NULL;
	n->peer_events_tail = &n->peer_events;
	pthread_mutex_unlock(&n->mu);
}

static int run_batch(struct shell_node *n, struct batch *b)
{
	int rc = b->stop ? WIRE_CLOSED : WIRE_OK;
	uint64_t published = n->store->applied(n), now;

	while (b->peers) {
		struct peer_event *p = b->peers;
		struct raft_event ev = { .type = p->up ? RAFT_EV_REACHABLE : RAFT_EV_UNREACHABLE, .peer = p->peer };

		if (!rc)
			rc = node_step(n, &ev, NULL, NULL);
		b->peers = p->next;
		free(p);
	}
	if (!rc && published != n->applied_told && published <= n->shared.commit) {
		struct raft_event ev = { .type = RAFT_EV_APPLIED, .index = published };

		n->applied_told = published;
		rc = node_step(n, &ev, NULL, NULL);
	}
	while (b->msgs) {
		struct wire_link_msg *m = b->msgs;

		b->msgs = m->next;
		if (!rc)
			rc = handle_msg(n, m);
		wire_link_msg_free(m);
	}
	if (!rc)
		rc = node_handle_held(n);
	if (rc) {
		for (struct request *r = b->requests, *next; r; r = next) {
			next = r->next;
			pthread_mutex_lock(&n->mu);
			node_settle(r, WIRE_CLOSED, 0);
			pthread_mutex_unlock(&n->mu);
		}
		return rc;
	}
	rc = node_handle_requests(n, b->requests);
	if (!rc)
		node_grants_run(n);
	if (!rc && b->hand_over)
		rc = hand_over(n);
	if (!rc)
		node_drain_run(n);
	now = node_now_us(n);
	if (!rc && now >= n->deadline_us) {
		struct raft_event ev = { .type = RAFT_EV_TICK };

		rc = node_step(n, &ev, NULL, NULL);
	}
	if (!rc)
		rc = finish_batch(n);
	if (!rc && b->trim)
		rc = trim(n);
	if (!rc) {
		if (now >= n->progress_at_us) {
			node_share_progress(n, now);
			node_lag_tick(n, now);
		}
		node_membership_tick(n, now);
		node_member_tick(n);
		node_outcome_tick(n);
	}
	return rc;
}

/* Whoever still waits learns that the node is gone: proposals' outcome is open. */
static void settle_all(struct shell_node *n)
{
	pthread_mutex_lock(&n->mu);
	for (struct pending **at = &n->pending, *p; (p = *at);) {
		if (!p->req) {
			at = &p->next;
			continue;
		}
		node_settle(p->req, WIRE_UNKNOWN, p->index);
		*at = p->next;
		free(p);
	}
	for (struct request *r = n->reads, *next; r; r = next) {
		next = r->next;
		node_settle(r, WIRE_CLOSED, 0);
	}
	n->reads = NULL;
	n->reads_tail = &n->reads;
	node_drop_held(n);
	for (struct request *r = n->asks, *next; r; r = next) {
		next = r->next;
		node_settle(r, WIRE_CLOSED, 0);
	}
	n->asks = NULL;
	node_forward_drop_all(n);
	node_outcome_end(n);
	/* What came in after the last batch. */
	for (struct request *r = n->requests, *next; r; r = next) {
		next = r->next;
		node_settle(r, WIRE_CLOSED, 0);
	}
	n->requests = NULL;
	n->requests_tail = &n->requests;
	n->shared.role = RAFT_FOLLOWER;
	n->shared.leader = 0;
	n->shared.leader_ready = false;
	pthread_cond_broadcast(&n->published_cond);
	pthread_mutex_unlock(&n->mu);
}

void *node_thread_main(void *node)
{
	struct shell_node *n = node;
	struct batch b;

	do
		take_batch(n, &b);
	while (!run_batch(n, &b));
	settle_all(n);
	/* After a failure messages and requests still arrive; they are answered at the door (enqueue checks `failed`). */
	return NULL;
}

/* --- start and end --- */

int node_driver_start(struct shell_node *n, const struct raft_journal_state *st, struct wire_err *err)
{
	struct raft_init init = {
		.self = n->conf.node,
		.now_us = node_now_us(n),
		.term = st->term,
		.vote = st->vote,
		.base_index = st->base_index,
		.base_term = st->base_term,
		.base_config = st->base_config,
		.entries = st->entries,
		.n_entries = st->n_entries,
		.configs = st->configs,
		.n_configs = st->n_configs,
		.commit = st->commit,
		.applied = st->base_index, /* the rest follows as an event, once the database is open */
		.window_bytes = 4u << 20,
		.silence_max_us = NODE_IDLE_US,
		.uncommitted_bytes = 4u << 20, /* more cannot be on its way to a follower */
		.ask_first = true,
		.drift_ppm = n->clock.drift_ppm,
		.telemetry = true,
		.forgetful = st->forgetful,
		.holes = st->holes,
		.n_holes = st->n_holes,
		.keep_log_bytes = n->store->witness ? n->conf.keep_log_bytes : UINT32_MAX,
	};

	n->env->random(n->env->ctx, &init.seed, sizeof init.seed);
	n->cache = calloc(1, sizeof *n->cache);
	n->raft = raft_new(&init, err);
	if (!n->cache || !n->raft)
		return n->raft ? wire_fail(err, WIRE_NOMEM, "no memory for the node") : (err ? err->code : WIRE_NOMEM);
	n->last_index = st->base_index + st->n_entries;
	n->shared.last_index = n->shared.persisted = n->last_index;
	n->shared.commit = st->commit;
	n->shared.term = st->term;
	n->shared.keep_above = st->base_index;
	n->shared.forgetful = n->forgetful = st->forgetful;
	n->shared.holes = (uint32_t)st->n_holes;
	n->start_base = st->base_index;
	n->shared.config = *raft_config_current(n->raft);
	n->applied_told = init.applied;
	n->keeps_log = true; /* until the first step tells */
	n->deadline_us = 0; /* the first step tells */
	n->side_due_us = UINT64_MAX;
	node_link_members(n);
	return WIRE_OK;
}

void node_driver_free(struct shell_node *n)
{
	while (n->inbox) {
		struct wire_link_msg *m = n->inbox;

		n->inbox = m->next;
		wire_link_msg_free(m);
	}
	while (n->peer_events) {
		struct peer_event *p = n->peer_events;

		n->peer_events = p->next;
		free(p);
	}
	raft_free(n->raft);
	entry_cache_free(n->cache);
	wire_buf_free(&n->scratch);
	free(n->late);
	free(n->filled);
}

/* --- from the link's threads --- */

void node_on_msg(void *node, struct wire_link_msg *m)
{
	struct shell_node *n = node;

	m->next = NULL;
	if (m->msg.type == WIRE_MSG_IMAGE_OPEN || m->msg.type == WIRE_MSG_IMAGE_GET || m->msg.type == WIRE_MSG_IMAGE_CLOSE) {
		node_images_queue(n, m);
		return;
	}
	if (m->msg.type >= WIRE_MSG_QUERY_OPEN && m->msg.type <= WIRE_MSG_QUERY_CLOSE) {
		node_queries_take(n->queries, m);
		return;
	}
	if (m->msg.type == WIRE_MSG_IMAGE_INFO || m->msg.type == WIRE_MSG_IMAGE_CHUNK) {
		node_witness_queue(n, m);
		return;
	}
	if (node_forward_answer(n, m)) {
		wire_link_msg_free(m);
		return;
	}
	pthread_mutex_lock(&n->mu);
	if (n->stop || n->failed) {
		pthread_mutex_unlock(&n->mu);
		wire_link_msg_free(m);
		return;
	}
	*n->inbox_tail = m;
	n->inbox_tail = &m->next;
	pthread_cond_signal(&n->wake);
	pthread_mutex_unlock(&n->mu);
}

void node_on_peer(void *node, uint64_t peer, bool up)
{
	struct shell_node *n = node;
	struct peer_event *p = calloc(1, sizeof *p);

	if (!p)
		return; /* only a hint: heartbeats find out too */
	*p = (struct peer_event){ .peer = peer, .up = up };
	pthread_mutex_lock(&n->mu);
	*n->peer_events_tail = p;
	n->peer_events_tail = &p->next;
	pthread_cond_signal(&n->wake);
	pthread_mutex_unlock(&n->mu);
}

void node_on_refused(void *node, uint64_t peer, const char *why)
{
	struct shell_node *n = node;
	bool news;

	/* It is said at every attempt to connect; once is enough for a log. */
	pthread_mutex_lock(&n->mu);
	news = strncmp(n->refused, why, sizeof n->refused - 1) != 0;
	snprintf(n->refused, sizeof n->refused, "%s", why);
	pthread_mutex_unlock(&n->mu);
	if (news)
		shell_log(n, "member %016llx refused us: %s", (unsigned long long)peer, why);
}
