/* Linearizable reads by read-index (thesis 6.4). The leader notes its commit index, makes sure by a round of heartbeats
 * that it led at some moment after that, and answers. Rounds are shared: all reads that come while one runs join the next.
 * With a lease (6.4.1, lease.c) it needs no round: no other leader can have committed anything by now.
 *
 * No late or duplicate reply can satisfy a read that began after it. A round's number is used once in a term, and a term
 * is led once. A follower's ids begin at a random number at each start and rise; a request names the newest read that it
 * stands for, and the answer settles that one and all older ones. */
#include "raft/core.h"

static uint64_t round_of(const struct raft_peer *p)
{
	return p->round_ack;
}

static void settle(struct raft *r, const struct raft_pending_read *q, int code, uint64_t index)
{
	if (q->from) {
		r->n_remote_reads--;
		/* Who asked has a deadline of its own. */
		if (code == WIRE_TIMEOUT)
			return;
		/* Not held back for the disk: the index is committed, the refusal promises nothing. */
		struct wire_msg *m = raft_send(r, WIRE_MSG_READ_RESP, q->from, false);
		if (!m)
			return;
		m->term = 0;
		m->corr = q->corr;
		m->index = index;
		m->hint = raft_log_last(&r->log);
		m->flags = code == WIRE_OK ? 0 : WIRE_MSG_REJECT;
		return;
	}
	if (!raft_grow(r, (void **)&r->settled, &r->cap_settled, r->n_settled, sizeof(*r->settled)))
		return;
	r->settled[r->n_settled++] = (struct raft_read){ .corr = q->corr, .index = index, .code = code };
}

static void tell(struct raft *r, size_t reads, int code, uint64_t index)
{
	if (code == WIRE_OK)
		raft_tell(r, RAFT_TOLD_READ_SERVED, r->role == RAFT_LEADER ? 0 : r->leader, reads, index, raft_lease_until(r) != 0);
	else if (code == WIRE_TIMEOUT && r->role == RAFT_LEADER && r->round_done < r->round)
		raft_tell(r, RAFT_TOLD_ROUND_EXPIRED, 0, r->round, reads, 0);
	else
		raft_tell_why(r, RAFT_TOLD_READ_FAILED, r->leader == r->self ? 0 : r->leader,
		              code != WIRE_TIMEOUT ? "who was asked does not lead" : r->role == RAFT_LEADER ? "no entry of this leader is committed yet" : "no answer came", reads, 0, 0);
}

/* Settles those for which done() holds, keeps the order of the others. */
static void settle_if(struct raft *r, bool (*done)(const struct raft *, const struct raft_pending_read *, uint64_t),
                      uint64_t arg, int code, uint64_t index)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->n_reads; i++) {
		struct raft_pending_read q = r->reads[i];
		if (done(r, &q, arg))
			settle(r, &q, code, index);
		else
			r->reads[kept++] = q;
	}
	if (kept < r->n_reads)
		tell(r, r->n_reads - kept, code, index);
	r->n_reads = kept;
}

static bool any(const struct raft *r, const struct raft_pending_read *q, uint64_t arg)
{
	(void)r, (void)q, (void)arg;
	return true;
}

static bool expired(const struct raft *r, const struct raft_pending_read *q, uint64_t arg)
{
	(void)arg;
	return q->deadline_us <= r->now_us;
}

static bool in_round(const struct raft *r, const struct raft_pending_read *q, uint64_t round)
{
	(void)r;
	return q->round && q->round <= round;
}

static bool up_to_id(const struct raft *r, const struct raft_pending_read *q, uint64_t id)
{
	(void)r;
	return q->id <= id;
}

static void add(struct raft *r, uint64_t corr, uint64_t from)
{
	uint64_t patience = raft_patience(r), most = r->silence_max_us;

	/* Over a slow network: it may have to wait for a round that has begun, and a follower's for its way. */
	if (patience > r->election_us)
		patience *= r->role == RAFT_LEADER ? 2 : 3;
	uint64_t deadline = r->now_us + (patience < most ? patience : most);

	if (!raft_grow(r, (void **)&r->reads, &r->cap_reads, r->n_reads, sizeof(*r->reads)))
		return;
	/* In order, though patience may shrink. */
	if (r->n_reads && r->reads[r->n_reads - 1].deadline_us > deadline)
		deadline = r->reads[r->n_reads - 1].deadline_us;
	r->reads[r->n_reads++] = (struct raft_pending_read){
		.corr = corr,
		.from = from,
		.id = ++r->read_id,
		.deadline_us = deadline,
	};
	if (from)
		r->n_remote_reads++;
}

void raft_read_ask(struct raft *r, uint64_t corr)
{
	if (!r->leader) {
		raft_tell_why(r, RAFT_TOLD_READ_FAILED, 0, "no leader is known", 1, 0, 0);
		settle(r, &(struct raft_pending_read){ .corr = corr }, WIRE_NOTLEADER, 0);
		return;
	}
	add(r, corr, 0);
	if (r->role != RAFT_LEADER)
		raft_read_forward(r);
}

void raft_on_read_req(struct raft *r, const struct wire_msg *m)
{
	bool full = r->n_remote_reads >= RAFT_REMOTE_READS_MAX;

	if (raft_peer(r, m->from) && r->role == RAFT_LEADER && !full) {
		add(r, m->corr, m->from);
		return;
	}
	raft_tell_why(r, RAFT_TOLD_READ_REFUSED, m->from, !raft_peer(r, m->from) ? "it is no member" : full ? "too many wait here" : "this node does not lead", r->n_remote_reads,
	              0, 0);
	if (!raft_peer(r, m->from) || full)
		return;
	struct wire_msg *a = raft_send(r, WIRE_MSG_READ_RESP, m->from, false);
	if (!a)
		return;
	a->term = 0;
	a->corr = m->corr;
	a->flags = WIRE_MSG_REJECT;
}

void raft_on_read_resp(struct raft *r, const struct wire_msg *m)
{
	if (r->role == RAFT_LEADER || m->corr > r->read_id || raft_forgetful_told(r, m))
		return;
	if (m->flags & WIRE_MSG_REJECT) {
		if (m->from == r->leader)
			settle_if(r, up_to_id, m->corr, WIRE_NOTLEADER, 0);
		return;
	}
	/* Good whoever sent it, and however late: it led after the request was made. */
	settle_if(r, up_to_id, m->corr, WIRE_OK, m->index);
	r->request_due_us = 0;
	raft_read_forward(r);
}

void raft_read_forward(struct raft *r)
{
	if (r->role == RAFT_LEADER || !r->leader || !r->n_reads || r->now_us < r->request_due_us)
		return;
	struct wire_msg *m = raft_send(r, WIRE_MSG_READ_REQ, r->leader, false);
	if (!m)
		return;
	m->term = 0;
	m->corr = r->reads[r->n_reads - 1].id;
	r->request_due_us = r->now_us + r->heartbeat_us;
}

void raft_read_pump(struct raft *r)
{
	/* Without an entry of its own term committed, a leader may not know what is committed (thesis 6.4, step 1). */
	if (!raft_leader_is_ready(r))
		return;
	if (r->n_reads && raft_lease_until(r)) {
		settle_if(r, any, 0, WIRE_OK, r->commit);
		return;
	}
	while (r->n_reads) {
		if (r->round_done < r->round) {
			if (raft_quorum(r, RAFT_TO_COMMIT, round_of, r->round) < r->round)
				return;
			r->round_done = r->round;
			settle_if(r, in_round, r->round, WIRE_OK, r->round_index);
			continue;
		}
		r->round++;
		r->round_index = r->commit;
		raft_tell(r, RAFT_TOLD_READ_ROUND, 0, r->round, r->n_reads, r->round_index);
		for (size_t i = 0; i < r->n_reads; i++)
			r->reads[i].round = r->round;
		for (uint32_t i = 0; i < r->n_peers; i++)
			if (r->peers[i].flags & (RAFT_VOTER | RAFT_VOTER_OLD))
				raft_heartbeat(r, &r->peers[i]);
		if (r->nomem)
			return;
	}
}

void raft_read_fail_all(struct raft *r)
{
	settle_if(r, any, 0, WIRE_NOTLEADER, 0);
	r->request_due_us = 0;
}

void raft_read_adopt(struct raft *r)
{
	for (size_t i = 0; i < r->n_reads; i++)
		r->reads[i].round = 0;
}

void raft_read_timers(struct raft *r)
{
	if (!r->n_reads)
		return;
	if (r->reads[0].deadline_us <= r->now_us)
		raft_pulse_doubt(r); /* whom we asked may be gone */
	settle_if(r, expired, 0, WIRE_TIMEOUT, 0);
	raft_read_forward(r);
}

uint64_t raft_read_deadline(const struct raft *r)
{
	if (!r->n_reads)
		return UINT64_MAX;
	/* In order of arrival, so the first is the oldest. */
	uint64_t d = r->reads[0].deadline_us;

	if (r->role != RAFT_LEADER && r->leader && r->request_due_us < d)
		d = r->request_due_us;
	return d;
}
