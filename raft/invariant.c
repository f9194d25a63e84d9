/* What must hold inside the core between any two steps. */
#include "raft/core.h"

#define CHECK(cond)                                                                                                    \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			return wire_fail(err, WIRE_INTERNAL, "node %llu, term %llu: not true that %s",                 \
			                 (unsigned long long)r->self, (unsigned long long)r->term, #cond);             \
	} while (0)

static int check_log(const struct raft *r, struct wire_err *err)
{
	uint64_t base = r->log.base_index, last = raft_log_last(&r->log);

	CHECK(base <= r->applied && r->applied <= r->commit && r->commit <= r->matched && r->matched <= last);
	CHECK(base <= r->durable && r->durable <= last);
	CHECK(r->log.base_term <= raft_log_last_term(&r->log) && raft_log_last_term(&r->log) <= r->term);
	/* Only the part that steps touch; the whole would make every step slow. */
	for (uint64_t i = last > base + 8 ? last - 8 : base; i < last; i++)
		CHECK(raft_log_term(&r->log, i) <= raft_log_term(&r->log, i + 1));
	for (size_t i = 0; i < r->n_new; i++) {
		const struct wire_entry *e = &r->new_entries[i];
		CHECK(e->index == last - r->n_new + 1 + i && e->term == raft_log_term(&r->log, e->index));
	}
	CHECK(!r->truncate_from || r->truncate_from > r->commit || r->n_new);
	for (size_t i = 0; i < r->n_holes; i++)
		CHECK(r->holes[i].index > (i ? r->holes[i - 1].index : base) && r->holes[i].index <= last);
	CHECK(!r->fetch.source || (r->fetch.term == r->term && r->fetch.upto > r->commit && r->role == RAFT_FOLLOWER));
	CHECK(!r->truncate_from || r->truncate_from == last - r->n_new + 1);
	return WIRE_OK;
}

static int check_config(const struct raft *r, struct wire_err *err)
{
	CHECK(r->n_configs > 0);
	for (size_t i = 0; i < r->n_configs; i++) {
		const struct raft_log_config *c = &r->configs[i];
		CHECK(raft_config_check(&c->config, NULL) == WIRE_OK);
		CHECK(raft_level_check(r->level, &c->config, NULL) == WIRE_OK && (!i || c->config.level >= r->configs[i - 1].config.level));
		CHECK(!i || (c->index > r->configs[i - 1].index && c->index > r->commit));
		CHECK(c->index <= r->log.base_index ||
		      (c->index <= raft_log_last(&r->log) && raft_log_at(&r->log, c->index).kind == WIRE_ENTRY_CONFIG));
	}
	const struct raft_config *now = raft_config_current(r);
	CHECK(r->n_peers + (raft_config_find(now, r->self) != NULL) == now->n);
	for (uint32_t i = 0; i < r->n_peers; i++)
		CHECK(raft_config_find(now, r->peers[i].id) && raft_config_find(now, r->peers[i].id)->flags == r->peers[i].flags);
	return WIRE_OK;
}

/* Thesis 3.10. */
static int check_transfer(const struct raft *r, struct wire_err *err)
{
	CHECK(!r->ordered || r->role == RAFT_CANDIDATE);
	if (!r->transfer_to) {
		CHECK(!r->transfer_index && r->transfer_due_us == UINT64_MAX && r->transfer_end_us == UINT64_MAX);
		return WIRE_OK;
	}
	CHECK(r->role == RAFT_LEADER && r->transfer_to != r->self);
	const struct raft_config *now = raft_config_current(r);
	const struct raft_member *target = raft_config_find(now, r->transfer_to);
	CHECK(target && (target->flags & RAFT_VOTER) && !(target->flags & RAFT_WITNESS) && !now->joint && raft_config_committed(r));
	/* Nothing was proposed since it began. */
	CHECK(r->transfer_index == raft_log_last(&r->log) && !r->n_new);
	CHECK(r->now_us < r->transfer_end_us && r->now_us < r->transfer_due_us);
	return WIRE_OK;
}

/* K of witness.c. What earlier leaders told may be above what a new one knows to be committed, but lies below its term. */
static int check_keep(const struct raft *r, struct wire_err *err)
{
	if (r->role != RAFT_LEADER)
		return WIRE_OK;
	CHECK(r->keep_above <= r->commit || r->keep_above < r->term_start);
	return WIRE_OK;
}

/* I11 */
static int check_lease(const struct raft *r, struct wire_err *err)
{
	const struct raft_lease *l = &r->lease;
	uint64_t until = raft_lease_until(r), latest = l->number >= l->first ? l->sent_us[l->number % RAFT_SENDINGS] : 0;

	CHECK(l->length_us < r->election_us && l->first <= l->number + 1);
	for (uint32_t i = 0; i < r->n_peers && r->role == RAFT_LEADER; i++)
		CHECK(r->peers[i].leased_us <= latest);
	if (!until)
		return WIRE_OK;
	CHECK(raft_leader_is_ready(r) && raft_config_committed(r) && !raft_config_current(r)->joint);
	CHECK(r->transfer_due_us == UINT64_MAX && (!l->told || r->commit > l->told));
	/* Every election needs this node's own vote. */
	CHECK((until == UINT64_MAX) == (raft_config_quorum(raft_config_current(r), false, RAFT_TO_COMMIT) == 1 && raft_self_votes(r)));
	CHECK(until == UINT64_MAX || (!l->clock.unsure && until > l->clock.latest_us && until <= latest + l->length_us));
	return WIRE_OK;
}

/* raft/pulse.c: nobody waits for longer than may be announced, nothing that is due waits, and who leads has a disk that is no
 * slower than everybody else's. */
static int check_pulse(const struct raft *r, struct wire_err *err)
{
	uint64_t most = r->silence_max_us;

	CHECK(r->silence_us <= most && r->patience_us <= most && raft_election_timeout(r) >= r->election_us);
	CHECK(r->election_deadline_us == UINT64_MAX || r->election_deadline_us <= r->now_us + (RAFT_PRIORITY_STEPS + 3) * most);
	for (uint32_t i = 0; i < r->n_peers && r->role == RAFT_LEADER; i++) {
		const struct raft_peer *p = &r->peers[i];
		CHECK(p->beat_due_us > r->now_us && p->beat_due_us <= r->now_us + most && p->alive_until_us <= r->now_us + most);
		CHECK(p->quiet || p->beat_due_us <= r->now_us + r->heartbeat_us);
		CHECK(!raft_disk_hangs(r) || r->n_new || p->forgot || !(p->flags & (RAFT_VOTER | RAFT_VOTER_OLD)) || p->match <= r->durable);
	}
	return WIRE_OK;
}

static int check_role(const struct raft *r, struct wire_err *err)
{
	CHECK((r->role == RAFT_LEADER) == (r->leader == r->self));
	CHECK((!r->forgetful && !r->n_holes) || r->role == RAFT_FOLLOWER);
	CHECK(r->role == RAFT_FOLLOWER || r->role == RAFT_LEADER || r->leader == 0);
	CHECK(r->role != RAFT_CANDIDATE || r->vote == r->self);
	CHECK((r->role == RAFT_LEADER) == (r->election_deadline_us == UINT64_MAX));
	size_t remote = 0;
	for (size_t i = 0; i < r->n_reads; i++)
		remote += r->reads[i].from != 0;
	CHECK(remote == r->n_remote_reads);
	if (r->role != RAFT_LEADER) {
		CHECK(!remote && r->commit_due_us == UINT64_MAX);
		return WIRE_OK;
	}
	CHECK(r->vote == r->self && r->term_start > 0);
	CHECK(r->term_start <= r->log.base_index || raft_log_term(&r->log, r->term_start) == r->term);
	/* I12 */
	CHECK(r->commit < r->term_start || r->commit <= r->log.base_index || raft_log_term(&r->log, r->commit) == r->term);
	CHECK(r->round_done <= r->round);
	return WIRE_OK;
}

static int check_peers(const struct raft *r, struct wire_err *err)
{
	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		CHECK(!p->forgot || (!p->round_ack && !p->leased_us));
		CHECK(p->match < p->next && p->next <= raft_log_last(&r->log) + 1);
		CHECK(p->match <= raft_log_last(&r->log) && p->round_ack <= r->round);
		CHECK(p->fl_n <= r->window_msgs && (p->fl_n || !p->fl_bytes));
		CHECK(p->state == RAFT_REPLICATE || !p->fl_n);
		CHECK(p->state == RAFT_PROBE || !p->paused);
		/* raft/flow.c */
		CHECK(p->window && p->window <= r->window_bytes && (!p->batch_due_us || p->next <= raft_log_last(&r->log)));
		CHECK(!p->backing || p->state != RAFT_REPLICATE);
		CHECK(p->state != RAFT_REPLICATE || p->fl_n || p->next == p->match + 1);
		/* Nothing waits that could be sent, unless it needs what is trimmed. */
		CHECK(!raft_peer_may_send(r, p));
		uint64_t last = p->match;
		for (uint32_t k = 0; k < p->fl_n; k++) {
			const struct raft_inflight *f = &p->fl[(p->fl_head + k) % r->window_msgs];
			CHECK(f->last > last && f->last < p->next);
			last = f->last;
		}
		CHECK(!p->fl_n || last == p->next - 1);
	}
	return WIRE_OK;
}

int raft_invariants(const struct raft *r, struct wire_err *err)
{
	int rc = check_log(r, err);

	if (rc == WIRE_OK)
		rc = check_config(r, err);
	if (rc == WIRE_OK)
		rc = check_role(r, err);
	if (rc == WIRE_OK)
		rc = check_transfer(r, err);
	if (rc == WIRE_OK)
		rc = check_lease(r, err);
	if (rc == WIRE_OK)
		rc = check_keep(r, err);
	if (rc == WIRE_OK)
		rc = check_pulse(r, err);
	if (rc == WIRE_OK && r->role == RAFT_LEADER)
		rc = check_peers(r, err);
	return rc;
}
