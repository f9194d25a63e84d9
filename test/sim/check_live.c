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
		if (!n->up || n->machine.index != l->machine.index || n->machine.hash != l->machine.hash || n->log_last != l->log_last)
			return false;
	}
	return true;
}

static bool wait_for(struct sim *s, uint64_t writes)
{
	uint64_t end = s->now_us + TIMEOUTS * 2 * (uint64_t)s->p.election_us;

	while (!s->failed && s->now_us < end) {
		sim_until(s, s->now_us + s->p.heartbeat_us / 2);
		if (writes ? s->counts->writes_ok > writes : all_equal(s))
			return true;
	}
	return false;
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
	s->resting = false;
}
