/* One step: event in, update out. What happens inside is in the other files; this one makes the object, takes events
 * apart, runs the timers and puts the update together. */
#include "raft/core.h"
#include <stdlib.h>
#include <string.h>

uint64_t raft_random(struct raft *r)
{
	/* splitmix64 */
	uint64_t z = r->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

bool raft_grow(struct raft *r, void **array, size_t *cap, size_t n, size_t elem)
{
	if (n < *cap)
		return true;
	size_t want = *cap ? *cap * 2 : 16;
	void *p = realloc(*array, want * elem);
	if (!p) {
		r->nomem = true;
		return false;
	}
	*array = p;
	*cap = want;
	return true;
}

struct wire_msg *raft_send(struct raft *r, enum wire_msg_type type, uint64_t to, bool after_persist)
{
	if (r->n_msgs == r->cap_msgs) {
		size_t cap = r->cap_msgs;
		if (!raft_grow(r, (void **)&r->msgs, &cap, r->n_msgs, sizeof(*r->msgs)))
			return NULL;
		size_t *at = realloc(r->msg_at, cap * sizeof(*at));
		if (!at) {
			r->nomem = true;
			return NULL;
		}
		r->msg_at = at;
		r->cap_msgs = cap;
	}
	struct wire_msg *m = &r->msgs[r->n_msgs];
	r->msg_at[r->n_msgs++] = 0;
	memset(m, 0, sizeof(*m));
	m->type = (uint8_t)type;
	m->after_persist = after_persist;
	m->from = r->self;
	m->to = to;
	m->term = r->term;
	return m;
}

void raft_append(struct raft *r, const struct wire_entry *e)
{
	assert(e->index == raft_log_last(&r->log) + 1 && e->term <= r->term);
	if (r->durable == raft_log_last(&r->log))
		r->owed_us = r->now_us;
	if (!raft_grow(r, (void **)&r->new_entries, &r->cap_new, r->n_new, sizeof(*r->new_entries)))
		return;
	if (!raft_log_append(&r->log, e->term, e->size, e->kind)) {
		r->nomem = true;
		return;
	}
	r->new_entries[r->n_new++] = *e;
}

void raft_commit_to(struct raft *r, uint64_t index)
{
	if (index <= r->commit)
		return;
	assert(index <= raft_log_last(&r->log));
	r->commit = index;
	raft_tell(r, RAFT_TOLD_LOG_COMMITTED, r->leader != r->self ? r->leader : 0, index, 0, 0);
	if (r->matched < index)
		r->matched = index;
	raft_configs_prune(r);
}

static uint32_t or(uint32_t value, uint32_t standard)
{
	return value ? value : standard;
}

static int check_init(const struct raft_init *in, struct wire_err *err)
{
	uint64_t last = in->base_index + in->n_entries, term = in->base_term;

	if (!in->self)
		return wire_fail(err, WIRE_INVALID, "a node's id cannot be 0");
	for (size_t i = 0; i < in->n_entries; i++) {
		const struct wire_entry *e = &in->entries[i];
		if (e->index != in->base_index + i + 1 || e->term < term || e->term > in->term)
			return wire_fail(err, WIRE_INVALID,
			                 "the log has index %llu, term %llu where index %llu and a term in %llu..%llu belong",
			                 (unsigned long long)e->index, (unsigned long long)e->term,
			                 (unsigned long long)(in->base_index + i + 1), (unsigned long long)term,
			                 (unsigned long long)in->term);
		term = e->term;
	}
	if (in->base_term > in->term)
		return wire_fail(err, WIRE_INVALID, "the log begins in term %llu, but the current term is %llu",
		                 (unsigned long long)in->base_term, (unsigned long long)in->term);
	if (in->commit > last || in->applied > last)
		return wire_fail(err, WIRE_INVALID, "commit index %llu and applied index %llu, but the log ends at %llu",
		                 (unsigned long long)in->commit, (unsigned long long)in->applied, (unsigned long long)last);
	uint64_t at = in->base_index;
	for (size_t i = 0; i < in->n_configs; i++) {
		const struct raft_log_config *c = &in->configs[i];
		if (c->index <= at || c->index > last || in->entries[c->index - in->base_index - 1].kind != WIRE_ENTRY_CONFIG)
			return wire_fail(err, WIRE_INVALID, "no configuration belongs at index %llu", (unsigned long long)c->index);
		int rc = raft_level_check(or(in->level, RAFT_LEVEL), &c->config, err);
		if (!rc)
			rc = raft_config_check(&c->config, err);
		if (rc) {
			wire_context(err, "configuration at index %llu", (unsigned long long)c->index);
			return rc;
		}
		at = c->index;
	}
	int rc = raft_level_check(or(in->level, RAFT_LEVEL), &in->base_config, err);
	if (!rc)
		rc = raft_config_check(&in->base_config, err);
	if (rc)
		wire_context(err, "configuration at the log's base");
	return rc;
}

static bool fill_log(struct raft *r, const struct raft_init *in)
{
	r->log.base_index = in->base_index;
	r->log.base_term = in->base_term;
	for (size_t i = 0; i < in->n_entries; i++)
		if (!raft_log_append(&r->log, in->entries[i].term, in->entries[i].size, in->entries[i].kind))
			return false;
	if (!raft_configs_push(r, in->base_index, &in->base_config))
		return false;
	for (size_t i = 0; i < in->n_configs; i++)
		if (!raft_configs_push(r, in->configs[i].index, &in->configs[i].config))
			return false;
	return true;
}

struct raft *raft_new(const struct raft_init *in, struct wire_err *err)
{
	if (check_init(in, err) != WIRE_OK)
		return NULL;
	struct raft *r = calloc(1, sizeof(*r));
	if (!r) {
		wire_fail(err, WIRE_NOMEM, "raft: no memory");
		return NULL;
	}
	r->self = in->self;
	r->now_us = in->now_us;
	r->rng = in->seed ^ (in->self * 0x9e3779b97f4a7c15u) ^ (in->now_us << 20) ^ in->term;
	r->election_us = or(in->election_us, 300000);
	r->heartbeat_us = or(in->heartbeat_us, 50000);
	r->window_msgs = or(in->window_msgs, 64);
	r->window_bytes = or(in->window_bytes, 8u << 20);
	r->append_max_bytes = or(in->append_max_bytes, 1u << 20);
	if (r->append_max_bytes > WIRE_MSG_MAX / 2)
		r->append_max_bytes = WIRE_MSG_MAX / 2; /* leaves room for what is around the entries */
	r->ask_first = in->ask_first;
	r->catch_up_bytes = or(in->catch_up_bytes, 4u << 20);
	r->commit_delay_us = or(in->commit_delay_us, 500);
	r->no_prevote = in->no_prevote;
	r->no_check_quorum = in->no_check_quorum;
	r->leave_silently = in->leave_silently;
	/* Without CheckQuorum voters keep no promise. */
	r->lease.length_us = raft_lease_length(r->election_us, in->no_check_quorum ? RAFT_NO_LEASES : or(in->drift_ppm, RAFT_DRIFT_PPM));
	r->lease.clock.unsure = true; /* until the first step */
	r->telemetry = in->telemetry;
	r->level = or(in->level, RAFT_LEVEL);
	r->keep_log_bytes = or(in->keep_log_bytes, 1u << 30);
	r->uncommitted_bytes = or(in->uncommitted_bytes, 64u << 20);
	r->persist_us = or(in->persist_us, r->election_us);
	r->silence_max_us = or(in->silence_max_us, 10 * r->election_us);
	if (r->silence_max_us < r->election_us)
		r->silence_max_us = r->election_us;
	r->term = in->term;
	r->vote = in->vote;
	r->commit_due_us = UINT64_MAX;
	raft_transfer_end(r);
	r->read_id = raft_random(r) >> 2;
	r->campaign = raft_random(r) >> 2;
	if (!fill_log(r, in)) {
		raft_free(r);
		wire_fail(err, WIRE_NOMEM, "raft: no memory for the metadata of %zu entries", in->n_entries);
		return NULL;
	}
	r->durable = raft_log_last(&r->log);
	/* A publication tells of a commit too, and so does a trimmed log. */
	r->applied = in->applied > in->base_index ? in->applied : in->base_index;
	r->commit = in->commit > r->applied ? in->commit : r->applied;
	r->matched = r->commit;
	raft_configs_prune(r);
	/* I11: before the restart we may have heard from a leader that counts on us; alone there is none to count on us. */
	raft_contact(r);
	if (in->forgetful && raft_alone(r)) {
		raft_free(r);
		wire_fail(err, WIRE_INVALID, "this node is the only voter of its group, and its disk was lost or damaged: nobody can tell "
		          "what it had committed, or re-admit it; restore it from a backup");
		return NULL;
	}
	if (in->forgetful)
		raft_forgetful_begin(r);
	if (raft_holes_begin(r, in->holes, in->n_holes, err) != WIRE_OK) {
		raft_free(r);
		return NULL;
	}
	if (raft_alone(r) || in->promised_nothing)
		r->ever_contact = false;
	if (raft_alone(r))
		r->election_deadline_us = r->now_us;
	return r;
}

void raft_free(struct raft *r)
{
	if (!r)
		return;
	raft_peers_free(r);
	wire_buf_free(&r->config_bytes);
	free(r->log.ring);
	free(r->configs);
	free(r->reads);
	free(r->new_entries);
	free(r->holes);
	free(r->fills);
	free(r->msgs);
	free(r->msg_at);
	free(r->pool);
	free(r->settled);
	free(r->told);
	free(r);
}

uint64_t raft_term_of(const struct raft *r, uint64_t index)
{
	return raft_log_term(&r->log, index);
}

static void begin(struct raft *r)
{
	r->hard_changed = false;
	r->truncate_from = 0;
	r->n_new = r->n_fills = r->n_msgs = r->n_pool = r->n_settled = r->n_told = 0;
	r->proposal_code = WIRE_OK;
	r->proposal_index = 0;
	r->proposal_member = 0;
	r->transfer_ended = false;
	r->prefer = 0;
	r->refusal.code = WIRE_OK;
	wire_buf_reset(&r->config_bytes);
}

/* Answers: only members count, and none from an earlier term. A later term ends ours, unless a pre-vote was granted for
 * it, which is only a promise (thesis 9.6). */
static void on_answer(struct raft *r, const struct wire_msg *m)
{
	bool prevote = m->type == WIRE_MSG_PREVOTE_RESP;

	if (!raft_peer(r, m->from))
		return;
	raft_heed_removal(r, m);
	if (m->term > r->term && !(prevote && !(m->flags & WIRE_MSG_REJECT))) {
		raft_become_follower(r, m->term, 0);
		return;
	}
	if (m->term < r->term && !prevote)
		return;
	if (prevote || m->type == WIRE_MSG_VOTE_RESP)
		raft_on_vote_resp(r, m);
	else if (m->type == WIRE_MSG_APPEND_RESP)
		raft_on_append_resp(r, m);
	else
		raft_on_heartbeat_resp(r, m);
}

static void on_message(struct raft *r, const struct wire_msg *m)
{
	if (!m->from || m->from == r->self || m->term > RAFT_NUMBER_MAX || m->index > RAFT_NUMBER_MAX)
		return;
	raft_tell_why(r, RAFT_TOLD_MSG_RECEIVED, m->from, wire_msg_name(m->type), m->term, m->index, m->n_entries);
	switch (m->type) {
	case WIRE_MSG_PREVOTE_REQ:
	case WIRE_MSG_VOTE_REQ:
		raft_pulse_asked_for_vote(r, m->from);
		raft_on_vote_req(r, m);
		break;
	case WIRE_MSG_APPEND:
		raft_on_append(r, m);
		break;
	case WIRE_MSG_HEARTBEAT:
		raft_on_heartbeat(r, m);
		break;
	case WIRE_MSG_TIMEOUT_NOW:
		raft_on_timeout_now(r, m);
		break;
	case WIRE_MSG_PREVOTE_RESP:
	case WIRE_MSG_VOTE_RESP:
	case WIRE_MSG_APPEND_RESP:
	case WIRE_MSG_HEARTBEAT_RESP:
		on_answer(r, m);
		break;
	case WIRE_MSG_CATCH_UP:
		raft_on_catch_up(r, m);
		break;
	case WIRE_MSG_FETCH_REQ:
		raft_on_fetch_req(r, m);
		break;
	case WIRE_MSG_FETCH_RESP:
		raft_on_fetch_resp(r, m);
		break;
	case WIRE_MSG_READ_REQ:
		raft_on_read_req(r, m);
		break;
	case WIRE_MSG_READ_RESP:
		raft_on_read_resp(r, m);
		break;
	default:
		break;
	}
}

static void on_persisted(struct raft *r, uint64_t index, uint64_t term)
{
	r->owed_us = r->now_us;
	/* By log matching (I2) the pair names the whole log up to there; what was superseded meanwhile does not count. */
	if (index > r->durable && raft_log_matches(&r->log, index, term)) {
		r->durable = index;
		raft_tell(r, RAFT_TOLD_LOG_DURABLE, 0, index, 0, 0);
	}
}

static void on_link(struct raft *r, uint64_t peer, bool up)
{
	struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer(r, peer) : NULL;

	if (!up && r->role == RAFT_FOLLOWER && peer == r->leader)
		raft_pulse_doubt(r);
	if (!p)
		return;
	raft_pulse_link(r, p, up);
	if (up) {
		if (p->state == RAFT_PROBE)
			p->paused = false;
		raft_heartbeat(r, p);
		return;
	}
	if (p->state != RAFT_REPLICATE || !p->fl_n)
		return;
	raft_peer_to(r, p, RAFT_PROBE);
	p->paused = true;
	p->sent_us = r->now_us;
}

static void on_trimmed(struct raft *r, uint64_t index)
{
	if (index <= r->log.base_index)
		return;
	assert(index <= r->commit && index <= r->durable);
	/* K of witness.c. */
	assert(!raft_self_keeps(r) || index <= raft_keep_above(r));
	raft_log_trim(&r->log, index);
	raft_holes_trim(r, index);
	if (r->applied < index)
		r->applied = index;
	raft_tell(r, RAFT_TOLD_LOG_TRIMMED, 0, index, 0, 0);
}

static void election_timer(struct raft *r)
{
	uint64_t waited = r->now_us - r->contact_us;
	const char *why = raft_hindrance(r);

	raft_reset_election(r);
	if (!raft_may_campaign(r) || raft_disk_hangs(r))
		r->leader = 0;
	if (!why) {
		raft_tell(r, RAFT_TOLD_ELECTION_TIMEOUT, 0, r->term, waited, 0);
		raft_campaign(r);
	} else if (r->news.lonely != why) {
		raft_tell_why(r, RAFT_TOLD_ROLE_LONELY, 0, why, r->term, waited, 0);
		r->news.lonely = why;
	}
}

static void timers(struct raft *r)
{
	if (r->role != RAFT_LEADER && r->now_us >= r->election_deadline_us)
		election_timer(r);
	if (r->role == RAFT_LEADER)
		raft_leader_timers(r);
	else if (r->role != RAFT_FOLLOWER && r->now_us >= r->ask_due_us)
		raft_ask_votes(r);
	raft_read_timers(r);
}

static void handle(struct raft *r, const struct raft_event *ev)
{
	/* A message may be the very sign of life that a timer asks for, and so may what the disk says; a proposal or a read must not be
	 * taken by a leader whose time is over. */
	if (ev->type == RAFT_EV_PERSISTED)
		on_persisted(r, ev->index, ev->term);
	if (ev->lease_used && r->role == RAFT_LEADER)
		raft_pulse_active(r);
	if (ev->type != RAFT_EV_MESSAGE)
		timers(r);
	switch (ev->type) {
	case RAFT_EV_TICK:
	case RAFT_EV_PERSISTED:
		break;
	case RAFT_EV_MESSAGE:
		on_message(r, ev->msg);
		timers(r);
		break;
	case RAFT_EV_PROPOSE:
		raft_propose(r, ev);
		break;
	case RAFT_EV_TELL:
		raft_tell_soon(r, ev->peer, ev->index);
		break;
	case RAFT_EV_CONFIG:
		raft_propose_config(r, ev->config);
		break;
	case RAFT_EV_TRANSFER:
		raft_transfer(r, ev->peer);
		break;
	case RAFT_EV_READ:
		raft_read_ask(r, ev->corr);
		break;
	case RAFT_EV_APPLIED:
		assert(ev->index <= r->commit);
		if (ev->index > r->applied)
			r->applied = ev->index;
		break;
	case RAFT_EV_UNREACHABLE:
	case RAFT_EV_REACHABLE:
		on_link(r, ev->peer, ev->type == RAFT_EV_REACHABLE);
		break;
	case RAFT_EV_FILLED:
		raft_on_filled(r, ev->index, ev->term);
		break;
	case RAFT_EV_IMAGE:
		raft_on_image(r, ev);
		break;
	case RAFT_EV_TRIMMED:
		on_trimmed(r, ev->index);
		break;
	}
	if (r->role == RAFT_LEADER)
		raft_leader_flush(r);
	raft_forgetful_step(r);
	raft_fetch_step(r);
	raft_holes_step(r);
}

static uint64_t deadline(const struct raft *r)
{
	uint64_t d = raft_read_deadline(r), other = raft_forgetful_deadline(r);

	if (other < d)
		d = other;
	if (raft_fetch_deadline(r) < d)
		d = raft_fetch_deadline(r);
	if (raft_holes_deadline(r) < d)
		d = raft_holes_deadline(r);
	if (r->role == RAFT_LEADER)
		other = raft_leader_deadline(r);
	else
		other = r->leader || raft_may_campaign(r) ? r->election_deadline_us : UINT64_MAX;
	if ((r->role == RAFT_PRECANDIDATE || r->role == RAFT_CANDIDATE) && r->ask_due_us < other)
		other = r->ask_due_us;
	return other < d ? other : d;
}

static void fill_update(struct raft *r, struct raft_update *u)
{
	uint64_t lease_until_us = raft_lease_until(r);

	raft_tell_news(r, lease_until_us);
	for (size_t i = 0; i < r->n_msgs; i++) {
		struct wire_msg *m = &r->msgs[i];
		m->entries = m->n_entries ? r->pool + r->msg_at[i] : NULL;
		raft_tell_why(r, RAFT_TOLD_MSG_SENT, m->to, wire_msg_name(m->type), m->term, m->index, m->n_entries);
	}
	*u = (struct raft_update){
		.must_sync = r->hard_changed || r->n_new || r->n_fills || r->truncate_from,
		.hard_state_changed = r->hard_changed,
		.term = r->term,
		.vote = r->vote,
		.truncate_from = r->truncate_from,
		.entries = r->n_new ? r->new_entries : NULL,
		.n_entries = (uint32_t)r->n_new,
		.fills = r->n_fills ? r->fills : NULL,
		.n_fills = (uint32_t)r->n_fills,
		.msgs = r->n_msgs ? r->msgs : NULL,
		.n_msgs = (uint32_t)r->n_msgs,
		.proposal_code = r->proposal_code,
		.proposal_index = r->proposal_index,
		.proposal_member = r->proposal_member,
		.refusal = r->refusal.code ? r->refusal.text : NULL,
		.reads = r->n_settled ? r->settled : NULL,
		.n_reads = (uint32_t)r->n_settled,
		/* I9: what is not durable here is not published here. */
		.commit = raft_hole_before(r, r->applied, r->commit < r->durable ? r->commit : r->durable),
		.last_index = raft_log_last(&r->log),
		.role = r->role,
		.leader = r->leader,
		.leader_ready = raft_leader_is_ready(r) && !raft_self_witness(r),
		.lease_until_us = lease_until_us,
		.read_index = r->commit,
		.prefer = r->prefer,
		.transfer_to = r->transfer_to,
		.backlog_bytes = raft_flow_backlog(r),
		.forgetful = r->forgetful,
		.needs_image = raft_needs_image(r),
		.keep_above = raft_keep_above(r),
		.level = raft_level_in_force(r),
		.removed = raft_removed(r),
		.deadline_us = deadline(r),
		.told = r->n_told ? r->told : NULL,
		.n_told = (uint32_t)r->n_told,
	};
}

int raft_step(struct raft *r, const struct raft_event *ev, struct raft_update *ret_update, struct wire_err *err)
{
	uint64_t term = r->term, leader = r->leader, configs = r->config_changes;
	enum raft_role role = r->role;

	begin(r);
	raft_lease_time(r, ev);
	if (ev->now_us > r->now_us)
		r->now_us = ev->now_us;
	handle(r, ev);
	if (r->stop.code) {
		if (err)
			*err = r->stop;
		return r->stop.code;
	}
	if (r->nomem)
		return wire_fail(err, WIRE_NOMEM, "raft: no memory at index %llu; the node must stop",
		                 (unsigned long long)raft_log_last(&r->log));
	fill_update(r, ret_update);
	ret_update->role_changed = r->role != role || r->leader != leader || r->term != term;
	ret_update->config_changed = r->config_changes != configs;
#if !defined(NDEBUG) || defined(RAFT_CHECK)
	struct wire_err wrong = { 0 };
	if (raft_invariants(r, &wrong) != WIRE_OK) {
		/* Our own mistake: going on could damage the group's data. */
		return wire_fail(err, WIRE_INTERNAL, "raft: %s; please report it", wrong.text);
	}
#endif
	return WIRE_OK;
}
