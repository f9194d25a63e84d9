/* Leader leases (thesis 6.4.1; I11): for a while after a quorum has heard from its leader nobody else can be elected, so that
 * the leader reads without asking anybody.
 *
 * Promise. Who hears from the leader at true time v votes for nobody else (raft_leader_alive), itself included, until its own
 * clock has gone on by L' = election_us. No clock's rate is wrong by more than d: that is not before v + L'/(1+d).
 *
 * Lease. The leader reads its clock: a; then a heartbeat leaves, which a voter receives at v, later than that reading. The
 * answer names the sending. While the leader's clock shows less than a + L, less than L/(1-d) has passed since, and with
 * L = L'(1-d)/(1+d) that is less than L'/(1+d): the voter's promise still holds. It had not voted in a later term before
 * either, or it would not have taken the heartbeat. If that is so for a quorum (both halves of a joint configuration) then
 * no later term has a leader: two quorums share a voter, and the leader's own vote is given only after its lease is void.
 * Nothing can be committed that the leader does not know of, once an entry of its own term is. A leader that is a quorum of commits by
 * itself, the only voter or by chosen sizes, is in every quorum that elects: its lease holds for as long as it leads.
 *
 * A clock that tells true time with its error (earliest_us .. latest_us, as ClockBound does) is compared by its ends. The
 * leader takes a = earliest when it sends, so that the true time of sending A >= a, and asks for latest < a + L now: the
 * true time x <= latest < a + L <= A + L'/(1+d), as above, whatever the rate of its own clock. The voter, on another
 * machine with other errors, keeps its promise also while earliest < (latest at v) + L', so that true time is at least
 * v + L' when it votes; it need trust no rate either then. Any two kinds of clocks may meet in a group, since L and L' are
 * the same for both.
 *
 * When the promise does not hold:
 *   - A vote request that the leader wanted (WIRE_MSG_TRANSFER) is heard at once: no lease from the first TIMEOUT_NOW on. If
 *     the transfer is given up, none until a later entry is committed: the target may stand late, but then a quorum has what
 *     it lacks, and refuses. An idle leader appends a NOOP for that.
 *   - A node whose log says that it is the only voter stands for election at its start without waiting. Some leader may count
 *     on it only by a configuration that is not committed: no lease from the proposal of a configuration until then.
 *     (Otherwise the quorums of old, joint and new configuration intersect as for elections, thesis 4.3.)
 *   - A clock went back or cannot tell: nothing that was measured by it counts any more. What happens to a clock between two
 *     steps, and is made good before the second, cannot be seen; the system's CLOCK_BOOTTIME does no such thing. */
#include "raft/core.h"

/* Readings are cut to whole microseconds: on either side of both comparisons up to one is lost. */
#define GRAIN_US 4u

static uint64_t leased_of(const struct raft_peer *p)
{
	return p->leased_us;
}

uint32_t raft_lease_length(uint32_t election_us, uint32_t drift_ppm)
{
	uint64_t us = drift_ppm < RAFT_NO_LEASES ? (uint64_t)election_us * (1000000 - drift_ppm) / (1000000 + drift_ppm) : 0;

	return us > GRAIN_US ? (uint32_t)us - GRAIN_US : 0;
}

/* Forgets all that was measured. */
static void forget(struct raft *r)
{
	r->lease.first = r->lease.number + 1;
	for (uint32_t i = 0; i < r->n_peers; i++)
		r->peers[i].leased_us = 0;
	r->lease.promise_us = 0;
	r->lease.greatest_us = 0;
}

void raft_lease_time(struct raft *r, const struct raft_event *ev)
{
	struct raft_clock c = ev->clock;

	if (!c.unsure && !c.earliest_us && !c.latest_us)
		c.earliest_us = c.latest_us = ev->now_us;
	if (c.latest_us < c.earliest_us)
		c.unsure = true;
	if (c.unsure || c.latest_us < r->lease.greatest_us)
		forget(r);
	r->lease.clock = c;
	if (!c.unsure && c.earliest_us > r->lease.greatest_us)
		r->lease.greatest_us = c.earliest_us;
}

void raft_lease_begin(struct raft *r)
{
	r->lease.number = 0;
	r->lease.first = 1;
	r->lease.told = 0;
}

/* Several sendings in a short time share a number, and the earliest of their moments. So the numbers that are remembered
 * reach back for longer than a lease lasts, however often heartbeats go out. */
uint64_t raft_lease_stamp(struct raft *r)
{
	struct raft_lease *l = &r->lease;
	uint64_t grain = r->election_us / RAFT_SENDINGS + 1;

	if (l->clock.unsure)
		return 0;
	if (l->number >= l->first && l->clock.earliest_us < l->sent_us[l->number % RAFT_SENDINGS] + grain)
		return l->number;
	l->number++;
	l->sent_us[l->number % RAFT_SENDINGS] = l->clock.earliest_us;
	return l->number;
}

/* The peer has received a heartbeat of that number, in this term: nobody answers what was not sent, numbers are used once in
 * a term, and a term is led once. However late or often it says so, the moment of sending stays what it was. */
void raft_lease_ack(struct raft *r, struct raft_peer *p, uint64_t number)
{
	const struct raft_lease *l = &r->lease;

	if (number < l->first || number > l->number || l->number - number >= RAFT_SENDINGS)
		return;
	if (l->sent_us[number % RAFT_SENDINGS] > p->leased_us)
		p->leased_us = l->sent_us[number % RAFT_SENDINGS];
}

void raft_lease_told(struct raft *r, uint64_t index)
{
	r->lease.told = index;
}

/* Nothing is proposed during a transfer, so that every later entry was after the latest TIMEOUT_NOW. */
static bool target_may_win(const struct raft *r)
{
	return r->lease.told && r->commit <= r->lease.told;
}

bool raft_lease_wants_entry(const struct raft *r)
{
	return target_may_win(r) && !r->transfer_to && raft_log_last(&r->log) == r->lease.told;
}

uint64_t raft_lease_until(const struct raft *r)
{
	if (!r->lease.length_us || !raft_leader_is_ready(r) || !raft_config_committed(r) || raft_config_current(r)->joint ||
	    target_may_win(r))
		return 0;
	uint64_t sent = raft_quorum(r, RAFT_TO_COMMIT, leased_of, UINT64_MAX);

	if (sent == UINT64_MAX) /* a commit quorum by itself: no election without its own vote */
		return UINT64_MAX;
	if (!sent || r->lease.clock.unsure || sent + r->lease.length_us <= r->lease.clock.latest_us)
		return 0;
	return sent + r->lease.length_us;
}

void raft_lease_contact(struct raft *r)
{
	r->lease.promise_us = r->lease.clock.unsure ? 0 : r->lease.clock.latest_us;
}

/* By the clock of the leases; raft_leader_alive has judged by now_us. An absolute clock that is set back by hours, against
 * all it says, must not keep the group from electing: after twice the time no promise can be meant. */
bool raft_lease_promised(const struct raft *r)
{
	return r->ever_contact && r->lease.promise_us && !r->lease.clock.unsure &&
	       r->lease.clock.earliest_us < r->lease.promise_us + r->election_us &&
	       r->now_us < r->contact_us + 2 * (uint64_t)r->election_us;
}
