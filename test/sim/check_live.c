/* Liveness: once faults stop, a commit is acknowledged and all members come to the same state, within a bound of simulated
 * time: this many of the longest election timeouts, and what joining a lost member anew takes. */
#include "test/sim/check.h"

enum { TIMEOUTS = 150 };

/* All members that have a disk are up and equal; the leader's configuration is settled. */
static bool all_equal(struct sim *s)
{
	const struct sim_node *l = sim_leader(s);

	if (!l || !l->ready || !raft_config_committed(l->raft) || raft_config_current(l->raft)->joint || l->machine.index != s->check->last)
		return false;
	const struct raft_config *c = raft_config_current(l->raft);
	for (uint32_t i = 0; i < c->n; i++) {
		const struct sim_node *n = sim_by_id(s, c->m[i].id);
		if (!n || !n->has_journal)
			continue; /* lost, or just added: the administrator's business */
		if (!n->up || n->machine.index != l->machine.index || (!n->witness && n->machine.hash != l->machine.hash) || n->log_last != l->log_last)
			return false;
	}
	return true;
}

static void tell_progress(struct sim *s)
{
	const struct sim_node *l = sim_leader(s);
	struct raft_progress p;

	for (uint32_t i = 0; l && i < raft_config_current(l->raft)->n; i++)
		if (raft_progress_of(l->raft, raft_config_current(l->raft)->m[i].id, &p))
			sim_trace(s, "leader %llu of member %llu: state %llu (probe, replicate, snapshot), match %llu, next %llu; its flags are %llu", l->id,
			          raft_config_current(l->raft)->m[i].id, p.state, p.match, p.next, raft_config_current(l->raft)->m[i].flags);
	for (uint32_t i = 0; i < SLOTS; i++)
		if (s->n[i].has_journal)
			sim_trace(s, "node %llu: up %llu, log %llu to %llu, published %llu, witness %llu", s->n[i].id, s->n[i].up, s->n[i].log_base, s->n[i].log_last,
			          s->n[i].machine.index, s->n[i].witness);
}

static bool wait_for(struct sim *s, uint64_t writes)
{
	uint64_t end = s->now_us + TIMEOUTS * 2 * (uint64_t)s->p.election_us;

	while (!s->failed && s->now_us < end) {
		sim_until(s, s->now_us + s->p.heartbeat_us / 2);
		if (writes ? s->counts->writes_ok > writes : all_equal(s))
			return true;
	}
	if (!s->failed)
		tell_progress(s);
	return false;
}

/* Who is to lead, of those that can; 0: more than one, or nobody is preferred. */
static uint8_t best_priority(const struct raft_config *c)
{
	uint8_t best = 0;

	for (uint32_t i = 0; i < c->n; i++)
		if ((c->m[i].flags & (RAFT_VOTER | RAFT_WITNESS)) == RAFT_VOTER && c->m[i].priority > best)
			best = c->m[i].priority;
	return best;
}

static bool preferred_leads(struct sim *s)
{
	const struct sim_node *l = sim_leader(s);

	if (!l || !l->ready)
		return false;
	const struct raft_config *c = raft_config_current(l->raft);
	return raft_config_find(c, l->id) && raft_config_find(c, l->id)->priority == best_priority(c);
}

/* The voter with the highest priority leads again (raft/priority.c). It may have been tried in vain while there were faults, so that
 * the next try is far. */
static void check_preferred(struct sim *s)
{
	enum { LONG = 700 };
	uint64_t end = s->now_us + LONG * (uint64_t)s->p.election_us;

	while (!s->failed && !preferred_leads(s) && s->now_us < end)
		sim_until(s, s->now_us + s->p.election_us);
	if (!s->failed && !preferred_leads(s)) {
		tell_progress(s);
		sim_fail(s, "liveness", "the preferred voter does not lead %d election timeouts after all are level", LONG);
	}
	s->counts->preferred++;
}

/* Others can elect one of them that has a database, and commit. */
static bool can_spare(struct sim *s, const struct sim_node *l)
{
	uint32_t data = 0, voters = 0;

	if (!l || !l->ready || !raft_config_committed(l->raft) || s->lost_id)
		return false;
	const struct raft_config *c = raft_config_current(l->raft);
	for (uint32_t i = 0; i < c->n; i++) {
		const struct sim_node *n = sim_by_id(s, c->m[i].id);
		if (!(c->m[i].flags & RAFT_VOTER) || !n || n == l || !n->up)
			continue;
		voters++;
		data += !(c->m[i].flags & RAFT_WITNESS);
	}
	return data && !c->joint && voters >= raft_config_quorum(c, false, RAFT_TO_ELECT) && voters >= raft_config_quorum(c, false, RAFT_TO_COMMIT);
}

/* A leader whose disk hangs is replaced, also where it goes on being alive (raft/pulse.c). */
static void check_hanging_disk(struct sim *s)
{
	enum { HANGS = 60, REPLACED = 50 }; /* election timeouts; silence may be ten times as long, and priorities add to that */
	struct sim_node *l = sim_leader(s);
	uint64_t end = s->now_us + REPLACED * (uint64_t)s->p.election_us;

	if (!can_spare(s, l))
		return;
	s->counts->hangs++;
	l->hangs_until_us = s->now_us + HANGS * (uint64_t)s->p.election_us;
	sim_trace(s, "node %llu: its disk hangs", l->id, 0, 0, 0, 0, 0);
	/* Who leads instead has committed an entry of its own. */
	while (!s->failed && s->now_us < end && (!sim_leader(s) || sim_leader(s) == l || !sim_leader(s)->ready))
		sim_until(s, s->now_us + s->p.heartbeat_us);
	if (!s->failed && s->now_us >= end) {
		tell_progress(s);
		sim_fail(s, "liveness", "%s, whose disk hangs, is not replaced within %d election timeouts", node_name(l), REPLACED);
	}
	l->hangs_until_us = 0;
}

void check_live(struct sim *s)
{
	uint64_t from = s->now_us, writes = s->counts->writes_ok + 1;

	if (!wait_for(s, writes)) {
		sim_fail(s, "liveness", "no write is acknowledged within %llu s after the faults", (unsigned long long)(s->now_us - from) / 1000000);
		return;
	}
	/* Clients rest, or somebody would always lag by one. */
	s->resting = true;
	if (!wait_for(s, 0))
		sim_fail(s, "liveness", "the members are not equal within %llu s after the faults", (unsigned long long)(s->now_us - from) / 1000000);
	if (!s->failed && s->p.priorities && s->asked_until_us < s->now_us && rng_chance(&s->rng, 150))
		check_preferred(s);
	s->resting = false;
	if (!s->failed && rng_chance(&s->rng, 150))
		check_hanging_disk(s);
}
