/* A node's driver: the loop of raft/README.md, as shell/driver.c has it, in simulated time. */
#include "test/sim/check.h"
#include "test/sim/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *node_name(const struct sim_node *n)
{
	static char text[4][32];
	static unsigned turn;
	char *t = text[turn++ % 4];

	snprintf(t, sizeof(text[0]), "node %llu", (unsigned long long)n->id);
	return t;
}

/* ---- clock ---- */

uint64_t node_local_us(const struct sim_node *n)
{
	int64_t d = (int64_t)(n->sim->now_us - n->clock_real_us);

	return n->clock_local_us + (uint64_t)(d + d * n->clock_ppm / 1000000);
}

void node_set_clock(struct sim_node *n, int64_t ppm, int64_t jump_us)
{
	n->clock_local_us = node_local_us(n) + (uint64_t)jump_us;
	n->clock_real_us = n->sim->now_us;
	n->clock_ppm = ppm;
	n->due_for_us = 0;
}

/* What the clock of the leases says; all 0 when that is the node's clock. */
static struct raft_clock lease_clock(const struct sim_node *n)
{
	uint64_t true_us = n->sim->now_us + 60000000;

	if (!n->clock_early_us)
		return (struct raft_clock){ 0 };
	return (struct raft_clock){ .earliest_us = true_us - n->clock_early_us, .latest_us = true_us + n->clock_late_us, .unsure = n->clock_unsure };
}

void node_draw_interval(struct sim_node *n)
{
	struct rng *r = &n->sim->rng;
	uint64_t most = n->sim->p.election_us / 3;

	n->clock_early_us = 1 + rng_below(r, rng_chance(r, 500) ? 2000 : most);
	n->clock_late_us = rng_below(r, rng_chance(r, 500) ? 2000 : most);
	n->clock_unsure = rng_chance(r, 200);
}

bool node_has_lease(const struct sim_node *n)
{
	struct raft_clock c = lease_clock(n);

	if (!n->up || n->lease_until_us == UINT64_MAX)
		return n->up; /* a lone voter needs no clock */
	if (c.unsure)
		return false;
	return (n->clock_early_us ? c.latest_us : node_local_us(n)) < n->lease_until_us;
}

bool node_is_witness(const struct sim_node *n)
{
	for (size_t i = n->n_configs; i > 0; i--) {
		const struct members *m = &n->configs[i - 1].m;
		for (uint32_t k = 0; k < m->n; k++)
			if (m->m[k].id == n->id)
				return (m->m[k].flags & RAFT_WITNESS) != 0;
	}
	return false;
}

bool node_keeps(const struct sim_node *n)
{
	for (size_t i = 0; i < n->n_configs; i++)
		for (uint32_t k = 0; k < n->configs[i].m.n; k++)
			if (n->configs[i].m.m[k].id == n->id && (n->configs[i].m.m[k].flags & RAFT_WITNESS))
				return true;
	return false;
}

bool node_awake(const struct sim_node *n)
{
	return n->up && n->asleep_until_us <= n->sim->now_us;
}

static bool at_work(const struct sim_node *n)
{
	return node_awake(n) && (!n->syncing || n->sim->p.overlap);
}

/* Clocks deviate by less than a tenth, so the first guess is near. */
static uint64_t to_real(const struct sim_node *n, uint64_t local_us)
{
	uint64_t now = n->sim->now_us;

	if (local_us <= n->clock_local_us)
		return now;
	int64_t d = (int64_t)(local_us - n->clock_local_us), x = (int64_t)((__int128)d * 1000000 / (1000000 + n->clock_ppm));
	while (x + x * n->clock_ppm / 1000000 < d)
		x++;
	uint64_t at = n->clock_real_us + (uint64_t)x;
	return at > now ? at : now;
}

uint64_t node_due_us(const struct sim_node *cn)
{
	struct sim_node *n = (struct sim_node *)cn; /* only the remembered answer changes */

	if (!n->up || n->deadline_local_us == UINT64_MAX || (n->syncing && !n->sim->p.overlap))
		return UINT64_MAX;
	if (n->due_for_us != n->deadline_local_us) {
		n->due_us = to_real(n, n->deadline_local_us);
		n->due_for_us = n->deadline_local_us;
	}
	return n->due_us > n->asleep_until_us ? n->due_us : n->asleep_until_us;
}

/* ---- messages ---- */

static void send_now(struct sim_node *n, struct sim_msg *sm)
{
	struct wire_msg m = { .type = sm->type, .flags = sm->flags, .from = sm->from, .to = sm->to, .corr = sm->corr, .term = sm->term,
		              .index = sm->index, .log_term = sm->log_term, .commit = sm->commit, .hint = sm->hint,
		              .n_entries = sm->n_entries, .entries = sm->entries };

	check_i9_message(n, &m, sm->mark);
	check_forgetful_message(n, &m);
	check_holes_message(n, &m);
	check_quorums_vote(n, &m);
	check_i11_told(n, &m);
	check_i12_message(n, &m);
	if (bundles_take(n, &m))
		free(sm);
	else
		net_send(n->sim, sm);
}

/* With the entries' data, now: a later step may supersede them. NULL: the node failed, or the addressee is no more. */
static struct sim_msg *pack(struct sim_node *n, const struct raft_update *u, const struct wire_msg *m)
{
	struct sim_node *to = sim_by_id(n->sim, m->to);
	size_t data = 0, head = sizeof(struct sim_msg) + m->n_entries * sizeof(struct wire_entry);

	if (!to)
		return NULL;
	for (uint32_t i = 0; i < m->n_entries; i++)
		data += m->entries[i].size;
	struct sim_msg *c = malloc(head + data);
	if (!c)
		abort();
	*c = (struct sim_msg){ .n_entries = m->n_entries, .type = m->type, .flags = m->flags, .from_slot = (uint8_t)n->slot,
		               .to_slot = (uint8_t)to->slot, .from = n->id, .to = m->to, .corr = m->corr, .term = m->term,
		               .index = m->index, .log_term = m->log_term, .commit = m->commit, .hint = m->hint,
		               .bytes = (uint32_t)(64 + m->n_entries * 24 + data) };
	uint8_t *at = (uint8_t *)c + head;
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct wire_entry *want = &m->entries[i];
		struct wire_entry *e = &c->entries[i];
		if (!store_entry(n, u, m->index + 1 + i, want->term, e)) {
			free(c);
			return NULL;
		}
		if (e->kind != want->kind || e->size != want->size || e->term != want->term || want->index != m->index + 1 + i)
			sim_fail(n->sim, "I2 log matching", "%s: the core and the journal differ at entry %llu", node_name(n),
			         (unsigned long long)want->index);
		if (e->size)
			memcpy(at, e->data, e->size);
		e->data = e->size ? at : NULL;
		at += e->size;
	}
	return c;
}

static void dispatch(struct sim_node *n, const struct raft_update *u)
{
	for (uint32_t i = 0; i < u->n_msgs && !n->failing; i++) {
		struct sim_msg *m = pack(n, u, &u->msgs[i]);
		if (!m)
			continue;
		if (!u->msgs[i].after_persist) {
			send_now(n, m);
			continue;
		}
		n->late = sim_grow(n->late, &n->cap_late, n->n_late, sizeof(struct sim_msg *));
		n->late[n->n_late++] = m;
	}
}

static void send_late(struct sim_node *n, size_t ready)
{
	for (size_t i = 0; i < ready; i++) {
		if (n->failing || n->sim->failed)
			free(n->late[i]);
		else
			send_now(n, n->late[i]);
	}
	n->n_late -= ready;
	if (ready)
		memmove(n->late, n->late + ready, n->n_late * sizeof(struct sim_msg *));
}

/* ---- steps ---- */

void node_call(struct sim_node *n)
{
	memory_begin(n->memory_in);
}

bool node_called(struct sim_node *n)
{
	bool failed;

	n->memory_in = memory_end(&failed);
	n->sim->counts->memory += failed;
	return !failed;
}

void node_fail(struct sim_node *n, const char *why, const struct wire_err *err)
{
	if (n->failing)
		return;
	n->failing = true;
	sim_trace(n->sim, disk_crashed(n->disk) ? "node %llu: dies within a call of its disk" : "node %llu: fails by an error of its disk",
	          n->id, 0, 0, 0, 0, 0);
	if (n->sim->verbose)
		printf("#   %s: %s\n", why, err->text);
}

static void note_role(struct sim_node *n, const struct raft_update *u)
{
	struct sim *s = n->sim;
	bool leads = u->role == RAFT_LEADER && (n->role != RAFT_LEADER || n->term != u->term);

	if (u->role_changed)
		sim_trace(s, "node %llu: role %llu in term %llu, leader %llu; log to %llu, committed %llu", n->id, u->role, u->term, u->leader,
		          u->last_index, u->commit);
	if (n->forgetful && !u->forgetful)
		n->readmitted = true;
	n->forgetful = u->forgetful;
	n->needs_image = u->needs_image;
	if (u->prefer)
		n->prefer = u->prefer;
	n->role = u->role;
	n->term = u->term;
	n->leader = u->leader;
	n->ready = u->leader_ready;
	n->transfer_to = u->transfer_to;
	n->lease_until_us = u->lease_until_us;
	n->read_index = u->read_index;
	if (u->lease_until_us && !node_has_lease(n))
		sim_fail(s, "I11 leases", "%s says that it has a lease until %llu of its clock, which is over", node_name(n),
		         (unsigned long long)u->lease_until_us);
	if (!leads)
		return;
	s->counts->elections++;
	s->counts->witnesses_led += node_is_witness(n);
	n->commit_at_election = u->commit;
	check_i1_leader(n, u->term);
	check_quorums_elected(n);
	check_i3_complete(n);
	check_i11_elected(n);
}

static void after_step(struct sim_node *n, const struct raft_update *u)
{
	struct sim *s = n->sim;

	if (u->commit < n->commit)
		sim_fail(s, "I4 state machine safety", "%s: the commit index falls from %llu to %llu", node_name(n),
		         (unsigned long long)n->commit, (unsigned long long)u->commit);
	if (u->last_index != n->log_last)
		sim_fail(s, "I2 log matching", "%s: the core's log ends at %llu, the journal's at %llu", node_name(n),
		         (unsigned long long)u->last_index, (unsigned long long)n->log_last);
	check_witness_told(n, u);
	n->keep_above = u->keep_above;
	n->commit = u->commit;
	n->last_index = u->last_index;
	n->must_sync |= u->must_sync;
	n->deadline_local_us = u->deadline_us;
	for (uint32_t i = 0; i < u->n_reads; i++)
		client_granted(n, &u->reads[i]);
	if (u->n_reads)
		client_serve(n);
	if (u->config_changed || u->truncate_from)
		check_i13_in_force(n);
	if (n->readmitted)
		check_forgetful_ends(n);
	n->readmitted = false;
	if (n->commit <= n->machine.index || n->failing || s->failed)
		return;
	if (!s->p.apply_us) {
		store_publish(n, n->commit);
	} else if (!n->apply_due) {
		n->apply_due = true;
		sim_post(s, (struct sim_event){ .at_us = s->now_us + rng_below(&s->rng, s->p.apply_us), .type = EV_APPLY,
			                        .slot = (uint8_t)n->slot, .life = n->life });
	}
}

/* Data in the event must live until this returns. */
static void step(struct sim_node *n, struct raft_event *ev, int *ret_code, uint64_t *ret_index)
{
	struct sim *s = n->sim;
	struct raft_update u;
	struct wire_err err = { 0 };

	if (n->failing || s->failed)
		return;
	ev->now_us = node_local_us(n);
	ev->clock = lease_clock(n);
	ev->lease_used = n->lease_used;
	n->lease_used = false;
	s->counts->steps++;
	node_call(n);
	int rc = raft_step(n->raft, ev, &u, &err);
	bool memory = node_called(n);
	if (rc) {
		/* Its program is too old for what it finds in its log. */
		bool old = rc == WIRE_VERSION && n->level < RAFT_LEVEL;
		if (!old && (memory || rc != WIRE_NOMEM))
			sim_fail(s, "core", "%s: %s", node_name(n), err.text);
		node_fail(n, "step", &err);
		return;
	}
	for (uint32_t i = 0; i < u.n_told; i++)
		s->counts->told[u.told[i].event]++;
	if (u.n_told && s->counts->steps % 512 == 0) {
		wire_buf_reset(&n->scratch);
		raft_told_put_json(&u.told[0], &n->scratch);
		if (n->scratch.failed || n->scratch.len < 9 || memcmp(n->scratch.data, "\"event\":\"", 9))
			sim_fail(s, "core", "%s tells of event %u in no words", node_name(n), u.told[0].event);
	}
	if (u.deadline_us <= ev->now_us)
		sim_fail(s, "liveness", "%s wants to be stepped again at once, after event %d as %s", node_name(n), ev->type,
		         raft_role_name(u.role));
	if (s->verbose && u.refusal)
		printf("#   %s refuses a change: %s\n", node_name(n), u.refusal);
	if (ret_code)
		*ret_code = u.proposal_code;
	if (ret_index)
		*ret_index = u.proposal_index;
	note_role(n, &u);
	store_remember(n, &u);
	size_t late = n->n_late;
	dispatch(n, &u);
	if (!n->failing)
		store_write(n, &u);
	for (; late < n->n_late; late++)
		n->late[late]->mark = n->must_mark;
	after_step(n, &u);
}

/* ---- the loop ---- */

static void begin_sync(struct sim_node *n)
{
	struct sim *s = n->sim;
	uint64_t us = s->p.sync_us / 2 + rng_below(&s->rng, s->p.sync_us);

	if (!s->quiet && s->p.stall_us && rng_chance(&s->rng, 1))
		us += rng_below(&s->rng, s->p.stall_us), s->counts->stalls++;
	if (n->hangs_until_us > s->now_us)
		us += n->hangs_until_us - s->now_us;
	n->must_sync = false;
	n->syncing = true;
	n->sync_index = n->last_index;
	n->sync_term = raft_term_of(n->raft, n->last_index);
	n->sync_late = n->n_late;
	n->fills_late = n->n_fills;
	sim_post(s, (struct sim_event){ .at_us = s->now_us + us, .type = EV_SYNCED, .slot = (uint8_t)n->slot, .life = n->life });
}

static void finish(struct sim_node *n)
{
	if (n->failing || n->syncing)
		return;
	if (n->must_sync)
		begin_sync(n);
	else if (n->n_late)
		send_late(n, n->n_late);
}

static void handle_one(struct sim_node *n, struct wire_msg *m)
{
	struct raft_event ev = { .type = RAFT_EV_MESSAGE, .msg = m };

	if ((m->type == WIRE_MSG_HEARTBEAT || m->type == WIRE_MSG_APPEND) && m->commit > n->commit_heard)
		n->commit_heard = m->commit;
	step(n, &ev, NULL, NULL);
}

static void handle_msg(struct sim_node *n, struct sim_msg *sm)
{
	struct wire_msg m = { .type = sm->type, .flags = sm->flags, .group = GROUP, .from = sm->from, .to = sm->to, .corr = sm->corr,
		              .term = sm->term, .index = sm->index, .log_term = sm->log_term, .commit = sm->commit, .hint = sm->hint,
		              .n_entries = sm->n_entries, .entries = sm->n_entries ? sm->entries : NULL };

	if (m.type == WIRE_MSG_BUNDLE)
		bundles_open(n, sm, handle_one);
	else
		handle_one(n, &m);
}

static void handle(struct sim_node *n, const struct sim_request *r)
{
	switch (r->kind) {
	case REQ_MSG:
		if (r->msg->to == n->id)
			handle_msg(n, r->msg);
		free(r->msg);
		break;
	case REQ_WRITE:
		client_write(n, r->client, r->attempt);
		break;
	case REQ_READ:
		client_read(n, r->client);
		break;
	}
}

static void tell_applied(struct sim_node *n)
{
	struct raft_event ev = { .type = RAFT_EV_APPLIED, .index = n->machine.index };

	if (n->machine.index == n->applied_told || n->machine.index > n->commit)
		return;
	n->applied_told = n->machine.index;
	step(n, &ev, NULL, NULL);
}

static void tick_if_due(struct sim_node *n)
{
	struct raft_event ev = { .type = RAFT_EV_TICK };

	if (node_local_us(n) >= n->deadline_local_us)
		step(n, &ev, NULL, NULL);
}

void node_drain(struct sim_node *n)
{
	size_t i;

	if (!at_work(n))
		return;
	tell_applied(n);
	for (i = 0; i < n->n_inbox && !n->failing && !n->sim->failed; i++) {
		struct sim_request r = n->inbox[i];
		handle(n, &r);
	}
	if (i)
		memmove(n->inbox, n->inbox + i, (n->n_inbox - i) * sizeof(*n->inbox));
	n->n_inbox -= i;
	tick_if_due(n);
	/* Its writers are at an end, mostly. */
	if (n->prefer && rng_chance(&n->sim->rng, 700)) {
		struct raft_event ev = { .type = RAFT_EV_TRANSFER, .peer = n->prefer };
		step(n, &ev, NULL, NULL);
	}
	n->prefer = 0;
	if (n->trim_to)
		store_trim(n);
	finish(n);
	bundles_flush(n);
	node_settled(n);
}

void node_tick(struct sim_node *n)
{
	n->due_for_us = 0;
	node_drain(n);
}

void node_deliver(struct sim_node *n, struct sim_request r)
{
	if (!n->up) {
		if (r.kind == REQ_MSG)
			free(r.msg);
		return;
	}
	n->inbox = sim_grow(n->inbox, &n->cap_inbox, n->n_inbox, sizeof(*n->inbox));
	n->inbox[n->n_inbox++] = r;
	node_drain(n);
}

/* What was written since the sync began waits for the next one, also if the journal's has taken it along. */
void node_synced(struct sim_node *n)
{
	struct sim *s = n->sim;
	struct raft_event ev = { .type = RAFT_EV_PERSISTED, .index = n->sync_index, .term = n->sync_term };
	struct wire_err err;

	if (n->asleep_until_us > s->now_us) {
		sim_post(s, (struct sim_event){ .at_us = n->asleep_until_us, .type = EV_SYNCED, .slot = (uint8_t)n->slot, .life = n->life });
		return;
	}
	n->syncing = false;
	node_call(n);
	int rc = raft_journal_sync(n->journal, &err);
	node_called(n);
	if (rc) {
		node_fail(n, "sync", &err);
		node_settled(n);
		return;
	}
	step(n, &ev, NULL, NULL);
	for (struct sim_fill f = holes_next_durable(n); f.index; f = holes_next_durable(n)) {
		ev = (struct raft_event){ .type = RAFT_EV_FILLED, .index = f.index, .term = f.term };
		step(n, &ev, NULL, NULL);
	}
	send_late(n, n->sync_late);
	node_drain(n);
	node_settled(n);
}

void node_apply(struct sim_node *n)
{
	if (n->asleep_until_us > n->sim->now_us) {
		sim_post(n->sim, (struct sim_event){ .at_us = n->asleep_until_us, .type = EV_APPLY, .slot = (uint8_t)n->slot, .life = n->life });
		return;
	}
	n->apply_due = false;
	store_publish(n, n->commit);
	node_drain(n);
	node_settled(n);
}

bool node_ask(struct sim_node *n, struct raft_event ev, int *ret_code, uint64_t *ret_index)
{
	if (!at_work(n) || n->failing)
		return false;
	step(n, &ev, ret_code, ret_index);
	return true;
}

void node_settled(struct sim_node *n)
{
	struct sim *s = n->sim;

	if (!n->failing || !n->up)
		return;
	/* After an error of a sync what was to be synced is open until the power goes. */
	bool crashed = disk_crashed(n->disk);
	if (crashed)
		s->counts->io_crashes++;
	node_stop(n, crashed && rng_chance(&s->rng, 400) ? END_KILL : END_POWER);
	sim_post(s, (struct sim_event){ .at_us = s->now_us + 10000 + rng_below(&s->rng, 2000000), .type = EV_START, .slot = (uint8_t)n->slot,
		                        .life = n->life });
}
