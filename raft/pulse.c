/* Pulse: when heartbeats go out, for how long they may stay away before anybody minds, and the leader's own disk.
 *
 * Round trips. A heartbeat with a number that this peer was not sent before is timed, one at a time; the first answer that names
 * it is the sample (smoothed as in RFC 6298), so that no repeated and no late answer is one. Answers wait for the peer's disk,
 * and so does what is measured. (Heartbeats that follow within a few milliseconds share a number; if the first of them is lost the
 * sample is too long by no more than that.)
 *
 * Silence. Each heartbeat announces for how long the leader may be silent: two intervals, of which one may be lost, and the
 * longest round trip of late, at least election_us and at most silence_max_us. A follower's timer for standing is
 * random in [T, 2T), T being the latest announcement (by the number of its sending, so that one that was overtaken does not
 * count); the leader's CheckQuorum gives each peer the T that it was told. So delays of several election timeouts end no
 * leadership once they have been measured.
 *
 * Why that harms nothing. Timers are no part of safety (paper 5.6). A voter refuses votes for election_us after a contact,
 * whatever was announced, so the promise of I11 is as it was; pre-votes, which promise nothing, are refused for T. A longer CheckQuorum
 * keeps a leader that is cut off in its role for longer, not in its lease: that ends L after the latest sending that a quorum
 * answered (lease.c), and without it reads need a round and writes a quorum, which such a leader does not get.
 *
 * Idle groups. When nothing was proposed or read for silence_max_us and all live members are level, heartbeats announce that much,
 * flagged IDLE; to a peer that has answered such a one they go out only every seven tenths of it. An answer that does not come in time brings the short interval back for that peer, so that one loss is made good before anybody's patience ends. The first
 * proposal or read sends a heartbeat at once, in the same step: neither waits for more than its own round. A lease ends meanwhile,
 * unless raft_event.lease_used says that somebody reads by it; the next read then needs one round. A follower that has doubts (its
 * link to the leader went down; a read was not answered) goes back to the short timeout, and a leader that is asked for a pre-vote
 * answers with a heartbeat too.
 *
 * Moments. Heartbeats fall on multiples of their interval on the clock, so that those of all groups in a process go out in one turn
 * (raft/bundle.h). Only the first of a leader, and what answers a need, goes at once.
 *
 * Disk. A leader that has waited persist_us for its disk, without any sign of it, while another voter has what it waits for, steps
 * down; to a voter that is level it says TIMEOUT_NOW first (thesis 3.10: the target could as well have waited for its timeout). Where
 * nobody is ahead, all disks are slow or nobody is there, and another leader would do no better. Nobody stands while its own disk
 * hangs: its requests would wait for that very disk (I9). */
#include "raft/core.h"
#include <string.h>

enum { PEAK_DECAY = 256 }; /* samples until a peak has lost most of its height */

/* ---- what is told of the quorum ---- */

static uint64_t heard_of(const struct raft_peer *p)
{
	return p->forgot ? 0 : p->heard_us;
}

/* When a quorum had been heard, or it was made leader; UINT64_MAX: it is one by itself. */
static uint64_t quorum_heard_us(const struct raft *r)
{
	uint64_t won = r->stood_us + r->votes_took_us, heard = raft_quorum(r, RAFT_TO_COMMIT, heard_of, UINT64_MAX);

	return heard > won ? heard : won;
}

static void tell_beat(struct raft *r, uint32_t peers)
{
	if (!r->telemetry || !peers)
		return;
	if (r->news.beat_us && quorum_heard_us(r) < r->news.beat_us)
		raft_tell(r, RAFT_TOLD_QUORUM_MISSED, 0, r->now_us - quorum_heard_us(r), 0, 0);
	raft_tell(r, RAFT_TOLD_QUORUM_HEARTBEAT, 0, r->lease.number, peers, r->commit);
	r->news.beat_us = r->now_us;
}

void raft_pulse_tell_heard(struct raft *r)
{
	if (!r->telemetry || !r->news.beat_us || quorum_heard_us(r) < r->news.beat_us)
		return;
	raft_tell(r, RAFT_TOLD_QUORUM_SUCCEEDED, 0, r->now_us - r->news.beat_us, r->commit, 0);
	r->news.beat_us = 0;
}

void raft_pulse_tell_lost(struct raft *r)
{
	raft_tell(r, RAFT_TOLD_QUORUM_CHECK, 0, r->now_us - quorum_heard_us(r), 0, 0);
}

static void tell_late(struct raft *r, struct raft_peer *p)
{
	if (p->late || p->forgot || r->now_us < p->alive_until_us)
		return;
	p->late = true;
	raft_tell(r, RAFT_TOLD_HEARTBEAT_LATE, p->id, r->now_us - (p->heard_us ? p->heard_us : r->stood_us + r->votes_took_us), 0, 0);
}

/* `beats` counts by number what is not answered yet. */
static void note_sending(struct raft_peer *p, uint64_t number)
{
	uint8_t *left = &p->beats[number % RAFT_SENDINGS];

	if (number != p->beat_number)
		*left = 0;
	if (number && *left < UINT8_MAX)
		++*left;
}

static void note_answer(struct raft *r, struct raft_peer *p, uint64_t number)
{
	uint8_t *left = &p->beats[number % RAFT_SENDINGS];

	if (!number || number > p->beat_number || p->beat_number - number >= RAFT_SENDINGS)
		return;
	if (!*left) {
		raft_tell(r, RAFT_TOLD_HEARTBEAT_DUPLICATE, p->id, number, 0, 0);
		return;
	}
	--*left;
	if (number < p->answered_number)
		raft_tell(r, RAFT_TOLD_HEARTBEAT_ORDER, p->id, number, p->answered_number, 0);
	else
		p->answered_number = number;
}

static void tell_idle(struct raft *r, bool idle)
{
	if (idle != r->news.idle)
		raft_tell(r, idle ? RAFT_TOLD_QUORUM_IDLE : RAFT_TOLD_QUORUM_ACTIVE, 0, idle ? r->silence_max_us : r->heartbeat_us, 0, 0);
	r->news.idle = idle;
}

/* ---- silence ---- */

static uint64_t longest(const struct raft *r)
{
	return r->silence_max_us;
}

/* By the network alone. */
static uint64_t silence(const struct raft *r, const struct raft_peer *p)
{
	uint64_t trip = p->rtt_us + 4 * (uint64_t)p->rtt_var_us, t;

	if (trip < p->rtt_peak_us)
		trip = p->rtt_peak_us;
	t = 2 * (uint64_t)r->heartbeat_us + trip;
	if (t < r->election_us)
		t = r->election_us;
	return t < longest(r) ? t : longest(r);
}

uint64_t raft_patience(const struct raft *r)
{
	uint64_t t = r->election_us;

	if (r->role != RAFT_LEADER)
		return r->patience_us > t ? r->patience_us : t;
	for (uint32_t i = 0; i < r->n_peers; i++)
		if ((r->peers[i].flags & (RAFT_VOTER | RAFT_VOTER_OLD)) && silence(r, &r->peers[i]) > t)
			t = silence(r, &r->peers[i]);
	return t;
}

uint64_t raft_election_timeout(const struct raft *r)
{
	if (r->role == RAFT_FOLLOWER && r->leader)
		return r->silence_us > r->election_us ? r->silence_us : r->election_us;
	return raft_patience(r);
}

bool raft_leader_expected(const struct raft *r)
{
	return r->role == RAFT_FOLLOWER && r->leader && r->now_us < r->contact_us + raft_election_timeout(r);
}

void raft_pulse_announced(struct raft *r, const struct wire_msg *m)
{
	uint64_t t = m->index < longest(r) ? m->index : longest(r);

	if (m->log_term && m->log_term < r->silence_number)
		return;
	if (m->log_term)
		r->silence_number = m->log_term;
	r->silence_us = t;
	/* Of the network an idle leader says nothing. */
	if (!(m->flags & WIRE_MSG_IDLE))
		r->patience_us = t;
	raft_reset_election(r);
}

void raft_pulse_forget_leader(struct raft *r)
{
	r->silence_us = r->silence_number = 0;
}

/* The timer begins anew, short; votes are promised as before. */
void raft_pulse_doubt(struct raft *r)
{
	if (r->role != RAFT_FOLLOWER || r->silence_us <= r->patience_us)
		return;
	raft_tell(r, RAFT_TOLD_ELECTION_DOUBT, r->leader, r->silence_us, r->patience_us, 0);
	r->silence_us = r->patience_us;
	raft_reset_election(r);
}

/* ---- the leader's peers ---- */

void raft_pulse_begin(struct raft *r, struct raft_peer *p)
{
	p->rtt_us = p->rtt_var_us = p->rtt_peak_us = 0;
	p->timed_number = p->timed_us = p->beat_number = p->quiet_number = p->asked_us = 0;
	p->timed_lost = 0;
	p->quiet = p->late = false;
	p->answered_number = 0;
	memset(p->beats, 0, sizeof(p->beats));
	p->beat_due_us = r->now_us;
	/* Before anything is measured, the time that the votes took tells something. */
	uint64_t first = silence(r, p), votes = 2 * r->votes_took_us + 2 * (uint64_t)r->heartbeat_us;
	if (first < votes && votes <= longest(r))
		first = votes;
	p->alive_until_us = r->now_us + first;
}

void raft_pulse_made_voter(struct raft *r, struct raft_peer *p)
{
	if (p->alive_until_us < r->now_us + silence(r, p))
		p->alive_until_us = r->now_us + silence(r, p);
}

void raft_pulse_contact(struct raft *r, struct raft_peer *p)
{
	uint64_t t = p->quiet ? longest(r) : silence(r, p);

	p->late = false;
	p->alive_until_us = r->now_us + t;
}

static void sample(struct raft *r, struct raft_peer *p)
{
	uint64_t us = r->now_us - p->timed_us;
	uint32_t s = (uint32_t)(us > longest(r) ? longest(r) : us ? us : 1);

	if (!p->rtt_us) {
		p->rtt_us = s;
		p->rtt_var_us = s / 2;
	} else {
		uint32_t off = s > p->rtt_us ? s - p->rtt_us : p->rtt_us - s;
		p->rtt_var_us = (uint32_t)((3 * (uint64_t)p->rtt_var_us + off) / 4);
		p->rtt_us = (uint32_t)((7 * (uint64_t)p->rtt_us + s + 7) / 8);
	}
	p->rtt_peak_us -= p->rtt_peak_us / PEAK_DECAY;
	if (p->rtt_peak_us < s)
		p->rtt_peak_us = s;
	p->timed_number = 0;
	p->timed_lost = 0;
}

void raft_pulse_answered(struct raft *r, struct raft_peer *p, uint64_t number)
{
	p->asked_us = 0;
	note_answer(r, p, number);
	if (number && number == p->timed_number)
		sample(r, p);
	if (p->quiet_number && number >= p->quiet_number && number <= p->beat_number)
		p->quiet = true;
}

/* A lost one is given up the later the more were lost in a row: perhaps it is not lost. */
static void time_it(struct raft *r, struct raft_peer *p, uint64_t number)
{
	uint64_t limit = silence(r, p) << p->timed_lost;

	if (!number || number == p->beat_number)
		return;
	if (p->timed_number && r->now_us < p->timed_us + (limit < longest(r) ? limit : longest(r)))
		return;
	if (p->timed_number && p->timed_lost < 4)
		p->timed_lost++;
	p->timed_number = number;
	p->timed_us = r->now_us;
}

/* ---- idle ---- */

static bool dead(const struct raft *r, const struct raft_peer *p)
{
	return r->now_us >= p->heard_us + longest(r);
}

static bool idle(const struct raft *r)
{
	uint64_t last = raft_log_last(&r->log);

	if (longest(r) <= r->election_us || r->now_us < r->active_us + longest(r) || r->n_reads || r->transfer_to || r->commit != last ||
	    r->durable != last || r->lease.clock.unsure)
		return false;
	for (uint32_t i = 0; i < r->n_peers; i++)
		if (!dead(r, &r->peers[i]) && (r->peers[i].match != last || r->peers[i].commit_sent != last))
			return false;
	return true;
}

static uint64_t next_beat(const struct raft *r, const struct raft_peer *p)
{
	uint64_t interval = p->quiet && longest(r) > 2 * (uint64_t)r->heartbeat_us ? longest(r) / 10 * 7 : r->heartbeat_us;

	return (r->now_us / interval + 1) * interval;
}

void raft_pulse_announce(struct raft *r, struct raft_peer *p, struct wire_msg *m)
{
	uint64_t number = m->log_term, t = silence(r, p);
	bool at_rest = idle(r);

	time_it(r, p, number);
	note_sending(p, number);
	tell_idle(r, at_rest);
	if (at_rest) {
		t = longest(r);
		m->flags |= WIRE_MSG_IDLE;
		/* The answer must not be one to an earlier heartbeat of the same number. */
		if (!p->quiet_number && number != p->beat_number)
			p->quiet_number = number;
		if (dead(r, p))
			p->quiet = true; /* no use; its own request for a pre-vote, or its link, will tell of it */
	} else {
		p->quiet_number = 0;
		p->quiet = false;
	}
	m->index = t > r->election_us ? t : 0;
	if (!p->asked_us)
		p->asked_us = r->now_us;
	p->beat_number = number;
	p->beat_due_us = next_beat(r, p);
}

/* Fast again with this peer. */
static void rouse(struct raft *r, struct raft_peer *p)
{
	if (p->quiet && p->alive_until_us > r->now_us + silence(r, p))
		p->alive_until_us = r->now_us + silence(r, p);
	p->quiet = false;
	p->quiet_number = 0;
	p->beat_due_us = r->now_us;
}

void raft_pulse_asked_for_vote(struct raft *r, uint64_t id)
{
	struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer(r, id) : NULL;

	if (p && p->quiet)
		rouse(r, p);
}

void raft_pulse_link(struct raft *r, struct raft_peer *p, bool up)
{
	if (p->quiet)
		rouse(r, p);
	if (!up && p->alive_until_us > r->now_us + silence(r, p))
		p->alive_until_us = r->now_us + silence(r, p);
}

static bool overdue(const struct raft *r, const struct raft_peer *p)
{
	return p->quiet && !dead(r, p) && p->asked_us && r->now_us >= p->asked_us + silence(r, p);
}

/* ---- the leader's timers ---- */

void raft_pulse_active(struct raft *r)
{
	r->active_us = r->now_us;
	for (uint32_t i = 0; i < r->n_peers; i++)
		if (r->peers[i].quiet_number || r->peers[i].quiet)
			rouse(r, &r->peers[i]);
}

/* All heartbeats that are due, but those that something else has sent already. */
void raft_pulse_flush(struct raft *r)
{
	uint32_t sent = 0;

	for (uint32_t i = 0; i < r->n_peers && !r->nomem; i++) {
		struct raft_peer *p = &r->peers[i];
		tell_late(r, p);
		if (overdue(r, p))
			rouse(r, p);
		if (p->beat_due_us > r->now_us)
			continue;
		if (!sent++)
			raft_keep_update(r);
		raft_heartbeat(r, p);
	}
	tell_beat(r, sent);
}

static uint64_t alive_until_of(const struct raft_peer *p)
{
	return p->alive_until_us;
}

bool raft_quorum_lost(const struct raft *r)
{
	return !r->no_check_quorum && raft_quorum(r, RAFT_TO_COMMIT, alive_until_of, UINT64_MAX) <= r->now_us;
}

/* ---- the disk ---- */

bool raft_disk_hangs(const struct raft *r)
{
	return r->durable < raft_log_last(&r->log) && r->now_us >= r->owed_us + r->persist_us;
}

bool raft_disk_replaces(struct raft *r)
{
	bool ahead = false;

	if (!raft_disk_hangs(r))
		return false;
	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		ahead |= (p->flags & (RAFT_VOTER | RAFT_VOTER_OLD)) && !p->forgot && p->match > r->durable;
	}
	if (!ahead)
		return false;
	uint64_t waited_us = r->now_us - r->owed_us;
	raft_tell(r, RAFT_TOLD_DISK_SLOW, raft_transfer_leave(r), waited_us, r->durable, 0);
	return true;
}

uint64_t raft_pulse_deadline(const struct raft *r)
{
	uint64_t d = r->no_check_quorum ? UINT64_MAX : raft_quorum(r, RAFT_TO_COMMIT, alive_until_of, UINT64_MAX);
	uint64_t disk = r->owed_us + r->persist_us;

	if (r->durable < raft_log_last(&r->log) && disk > r->now_us && disk < d)
		d = disk;
	for (uint32_t i = 0; i < r->n_peers; i++) {
		const struct raft_peer *p = &r->peers[i];
		if (p->beat_due_us < d)
			d = p->beat_due_us;
		if (p->quiet && !dead(r, p) && p->asked_us && p->asked_us + silence(r, p) < d)
			d = p->asked_us + silence(r, p);
	}
	return d;
}
