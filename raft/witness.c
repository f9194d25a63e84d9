/* Witnesses: members that vote and keep the log but have no database.
 *
 * What they promise. Let `data voters` be those of the committed configuration and of all later ones in the log, both halves of a joint
 * one. Then
 *
 *   K   no witness forgets an entry that is not durable on every data voter besides itself:
 *       base of its log <= keep_above <= what is committed and durable on each of them.
 *
 * With K two data nodes A, B and a witness W lose no acknowledged write whichever data node dies. A write is acknowledged when two
 * of the three have it durably (I5, I12). Say that A dies. If B has the write, it is there. If not, W has it, and by K all else
 * that B lacks: W's log begins no later than B's ends. Only W can be elected by the two then (paper 5.4.1); it brings B level by
 * ordinary appends, never by an image, and hands leadership over. In general: a quorum that elects contains a member that
 * has the write; if that is a witness, then every data voter that is left is brought level by it.
 *
 * How K is kept:
 *   - keep_above is computed by the leader as the smallest of its commit index and of what is durable on each data voter; one that
 *     is no peer any more, but may still count, holds it where it is. What is committed is never superseded (I3, I4), and what is
 *     durable stays, so the number stays true in later terms, under other leaders: a node keeps the largest it has heard.
 *   - One thing can make it untrue: another data voter. So where there are witnesses, a member becomes a data voter (a new one, or a
 *     witness that has a database now) only once it has durably all that any witness may have been told: up to the
 *     leader's own keep_above, and up to the first entry of the term, since earlier leaders told no more than what they
 *     had committed, which lies below that. It starts as a learner, from an image or from the leader's log, and asks when it is there.
 *   - The entry that makes it one may be missing in a later leader's log, and be in force again under yet another. So a leader
 *     tells more only once an entry of its own term is committed: an entry that its log lacks is in no later leader's log then (I3).
 *   - A witness begins somewhere, too: it becomes a voter only once every data voter has what it had when this leader first
 *     heard from it; its log begins no later. An image for a witness is a position only, not above its keep_above.
 *   - Who has the database, as a voter or a learner, does not become a witness: it may have forgotten what others lack. It is
 *     removed first, and comes back with a new log. A witness that is made a full replica keeps to all this until that is committed; what it
 *     lacks itself does not count, or an image could not help it when the leader has trimmed that.
 *   - A voter whose disk is lost is forgetful, and counts again as a data voter only after it has been made one anew, by the rule above.
 *     Until then it is a dead data node: it neither votes nor holds keep_above, else a witness that lags could not be helped, and
 *     nobody else may be left to commit its re-admission.
 * Asserted in step.c (TRIMMED), in invariant.c, and in the simulator.
 *
 * Leading. A witness stands later than data voters do (priority.c), but must be able to win: it may be the only one that has it
 * all. As a leader it commits by its own NOOP, goes on with a joint configuration, answers read rounds and heartbeats, but is never
 * `ready`: no proposals, no changes, no write grants. Data voters get level by the usual appends, and as soon as nothing
 * uncommitted is in the way it hands over to the one that lacks least; to another one if that does not take it.
 *
 * It may be unable to commit even its NOOP: it needs the vote of a member that lacks what it has forgotten, and can give no image. A data
 * voter that is level may have that in its log, and has an image. So it steps down after a while, and tells such a one to stand.
 *
 * Full. A data voter that is away for long makes the log that a witness must keep grow. From keep_log_bytes on it takes no more
 * entries: it does not acknowledge them, and says so with each heartbeat answer; the leader sends it heartbeats only and
 * tries again when it says so no more. It goes on to vote, by what it has. An append that supersedes entries is taken, else a full
 * log of superseded ones could never change. So its limit is passed by at most one append. With two exceptions: when the data voter does
 * not come back it must be removed. So a full one is sent, flagged, and takes, what comes up to a configuration that is not committed, and
 * up to the first entry of a leader, which it needs to propose one: what clients had proposed before that, at most uncommitted_bytes each time. */
#include "raft/core.h"

static bool data_voter(const struct raft_member *m)
{
	return m && (m->flags & (RAFT_VOTER | RAFT_VOTER_OLD)) && !(m->flags & RAFT_WITNESS);
}

static bool witness_voter(const struct raft_member *m)
{
	return m && (m->flags & RAFT_VOTER) && (m->flags & RAFT_WITNESS);
}

/* One that the latest configuration leaves out may lead until that is committed (raft_may_campaign). */
bool raft_self_witness(const struct raft *r)
{
	for (size_t i = r->n_configs; i > 0; i--) {
		const struct raft_member *m = raft_config_find(&r->configs[i - 1].config, r->self);
		if (m)
			return (m->flags & RAFT_WITNESS) != 0;
	}
	return false;
}

bool raft_self_keeps(const struct raft *r)
{
	for (size_t i = 0; i < r->n_configs; i++) {
		const struct raft_member *m = raft_config_find(&r->configs[i].config, r->self);
		if (m && (m->flags & RAFT_WITNESS))
			return true;
	}
	return false;
}

/* Known to be durable there, and to be as here. */
static uint64_t held_by(struct raft *r, uint64_t id)
{
	if (id == r->self)
		return r->durable;
	const struct raft_peer *p = raft_peer(r, id);
	return p && !p->forgot ? p->match : 0;
}

/* Learners, and witnesses themselves, take no part in K. They are waited for while they are there: it is cheaper for all. But not for
 * one that lacks what is trimmed here, such as a witness with a hole: it can only be helped by an image, which it may have up to
 * keep_above. */
static bool waited_for(const struct raft *r, const struct raft_peer *p)
{
	if (p->first_match && p->match < r->log.base_index)
		return false;
	return p->state != RAFT_SNAPSHOT && p->heard_us &&
	       r->now_us < p->heard_us + RAFT_KEEP_TIMEOUTS * (uint64_t)r->election_us + r->silence_max_us;
}

/* What is at most `commit`, and durable on every data voter but that one. */
static uint64_t on_all_but(struct raft *r, uint64_t id, uint64_t commit)
{
	uint64_t keep = commit;

	for (size_t k = 0; k < r->n_configs && keep > r->keep_above; k++) {
		const struct raft_config *c = &r->configs[k].config;
		for (uint32_t i = 0; i < c->n; i++) {
			const struct raft_peer *p = raft_peer(r, c->m[i].id);
			bool counts = data_voter(&c->m[i]) && c->m[i].id != id && !(p && p->forgot);
			uint64_t held = counts ? held_by(r, c->m[i].id) : keep;
			if (held < keep)
				keep = held;
		}
	}
	return keep > r->keep_above ? keep : r->keep_above;
}

/* As long as no entry of the own term is committed a configuration may be in somebody's log, and be in force later, that names
 * other data voters, who are as far as its leader knew, and no further. */
static uint64_t sure(const struct raft *r)
{
	return raft_leader_is_ready(r) ? r->commit : r->keep_above;
}

void raft_keep_update(struct raft *r)
{
	uint64_t keep = on_all_but(r, 0, sure(r));

	assert(r->role == RAFT_LEADER);
	for (uint32_t i = 0; i < r->n_peers && keep > r->keep_above; i++)
		if (waited_for(r, &r->peers[i]) && r->peers[i].match < keep)
			keep = r->peers[i].match;
	raft_keep_told(r, keep);
}

uint64_t raft_keep_hint(struct raft *r, const struct raft_peer *p)
{
	for (size_t k = 0; k + 1 < r->n_configs; k++) {
		const struct raft_member *m = raft_config_find(&r->configs[k].config, p->id);
		if (m && (m->flags & RAFT_WITNESS) && data_voter(raft_config_find(raft_config_current(r), p->id)))
			return on_all_but(r, p->id, sure(r));
	}
	const struct raft_member *to = raft_config_find(raft_config_current(r), p->id);
	uint64_t keep = r->keep_above;
	/* It may lead next, with no other voter but one that is away now, a witness above all: nobody else could bring
	 * that one what it lacks. Too little is always true. */
	for (uint32_t i = 0; i < r->n_peers && to && !(to->flags & RAFT_WITNESS); i++) {
		const struct raft_member *m = raft_config_find(raft_config_current(r), r->peers[i].id);
		if (m && (m->flags & (RAFT_VOTER | RAFT_VOTER_OLD)) && r->peers[i].match < keep)
			keep = r->peers[i].match;
	}
	return keep;
}

/* What a data node has trimmed says nothing of the others: after a restart it does not know how far they were. What a witness has
 * forgotten was not needed when it did, by K; or it had not been one yet, and then none counts on it before every data voter has
 * what it began with. It is not told to others, which hear what the leader of the term knows. */
uint64_t raft_keep_above(struct raft *r)
{
	/* For an image: a witness that needs one has not what is acknowledged anyway, and may be needed for the first entry. */
	if (r->role == RAFT_LEADER && !raft_leader_is_ready(r) && !raft_self_keeps(r))
		return on_all_but(r, 0, r->commit);
	return raft_self_keeps(r) && r->log.base_index > r->keep_above ? r->log.base_index : r->keep_above;
}

void raft_keep_told(struct raft *r, uint64_t index)
{
	if (index > r->keep_above && index <= RAFT_NUMBER_MAX)
		r->keep_above = index;
}

/* What it must keep has reached the limit. */
bool raft_witness_full(struct raft *r)
{
	return raft_self_witness(r) && raft_log_bytes_above(&r->log, raft_keep_above(r)) >= r->keep_log_bytes;
}

/* Entries from `first` on, of which it has none that is superseded. */
bool raft_witness_declines(struct raft *r, uint64_t first, const struct wire_entry *entries, uint32_t n)
{
	while (n && first <= raft_log_last(&r->log)) {
		if (raft_log_term(&r->log, first) != entries->term)
			return false;
		first++;
		entries++;
		n--;
	}
	return n && raft_witness_full(r);
}

uint64_t raft_full_upto(const struct raft *r)
{
	if (!raft_leader_is_ready(r))
		return r->term_start;
	return raft_config_committed(r) ? 0 : raft_config_last(r)->index;
}

void raft_witness_heard(struct raft *r, struct raft_peer *p, bool full)
{
	if (full && !p->full && p->state == RAFT_REPLICATE)
		raft_peer_to(r, p, RAFT_PROBE);
	if (full != p->full && p->state == RAFT_PROBE)
		p->paused = false;
	if (full != p->full)
		raft_tell_why(r, RAFT_TOLD_PEER_FULL, p->id, full ? "it takes no more entries" : "it takes entries again", p->match, 0, 0);
	p->full = full;
}

/* Leading it, to be rid of it. */
void raft_witness_pump(struct raft *r)
{
	if (r->role != RAFT_LEADER || !raft_self_witness(r) || !raft_leader_is_ready(r) || r->n_new)
		return;
	raft_transfer_next(r);
}

bool raft_witness_leaves(struct raft *r)
{
	bool level = false;

	if (!raft_self_witness(r) || raft_leader_is_ready(r) ||
	    r->now_us < r->stood_us + r->votes_took_us + RAFT_WITNESS_TIMEOUTS * raft_patience(r))
		return false;
	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		level |= (p->flags & RAFT_VOTER) && !(p->flags & RAFT_WITNESS) && !p->forgot && p->match == raft_log_last(&r->log);
	}
	if (level)
		raft_transfer_leave(r);
	return level;
}

static int check_new_data(struct raft *r, const struct raft_member *m, uint64_t floor, struct wire_err *err)
{
	uint64_t held = held_by(r, m->id);

	if (held >= floor)
		return WIRE_OK;
	return wire_fail(err, WIRE_BUSY, "member %llu has the log up to %llu, but witnesses may have forgotten what is below %llu; "
	                 "let it be a learner until it has that", (unsigned long long)m->id, (unsigned long long)held,
	                 (unsigned long long)floor);
}

static int check_new_witness(struct raft *r, const struct raft_config *target, const struct raft_member *w, uint64_t floor,
                             struct wire_err *err)
{
	const struct raft_peer *p = raft_peer(r, w->id);

	if (!p || !p->first_match)
		return wire_fail(err, WIRE_BUSY, "witness %llu has not taken any entry yet; let it be a learner first", (unsigned long long)w->id);
	if (p->first_match > floor)
		floor = p->first_match;
	for (uint32_t i = 0; i < target->n; i++) {
		uint64_t held = data_voter(&target->m[i]) ? held_by(r, target->m[i].id) : floor;
		if (held < floor)
			return wire_fail(err, WIRE_BUSY, "member %llu has the log up to %llu only, and witness %llu may not have what comes then; "
			                 "wait for the member, or remove it", (unsigned long long)target->m[i].id,
			                 (unsigned long long)held, (unsigned long long)w->id);
	}
	return WIRE_OK;
}

int raft_witness_change(struct raft *r, const struct raft_config *target, struct wire_err *err)
{
	const struct raft_config *now = raft_config_current(r);
	uint64_t floor = r->term_start > r->keep_above ? r->term_start : r->keep_above;
	bool witnesses = false;
	int rc = WIRE_OK;

	if (raft_self_witness(r))
		return wire_fail(err, WIRE_BUSY, "a witness leads, until a member that has the database takes over; try again");
	/* Those that go count until they are gone. */
	for (uint32_t i = 0; i < now->n; i++)
		witnesses |= witness_voter(&now->m[i]);
	for (uint32_t i = 0; i < target->n; i++) {
		const struct raft_member *m = &target->m[i];
		const struct raft_member *was = raft_config_find(now, m->id);
		if ((m->flags & RAFT_WITNESS) && was && !(was->flags & RAFT_WITNESS))
			return wire_fail(err, WIRE_INVALID, "member %llu has the database; to be a witness it must be removed and "
			                 "added again", (unsigned long long)m->id);
		witnesses |= (m->flags & RAFT_WITNESS) != 0;
	}
	for (uint32_t i = 0; i < target->n && witnesses && rc == WIRE_OK; i++) {
		const struct raft_member *m = &target->m[i], *was = raft_config_find(now, m->id);
		if (data_voter(m) && !data_voter(was))
			rc = check_new_data(r, m, floor, err);
		else if (witness_voter(m) && !witness_voter(was))
			rc = check_new_witness(r, target, m, floor, err);
	}
	return rc;
}
