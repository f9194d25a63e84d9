/* Whoever runs the cluster: replaces members whose disks are lost, brings the number of voters back, makes learners of
 * new nodes and voters of learners, carries images to those that need one; and, as a fault, changes members at random. */
#include "test/sim/check.h"
#include <stdlib.h>
#include <string.h>

struct sim_node *sim_by_id(struct sim *s, uint64_t id)
{
	uint64_t slot = (id - 1) % 100;

	return id && slot < SLOTS && s->n[slot].id == id ? &s->n[slot] : NULL;
}

struct sim_node *sim_leader(struct sim *s)
{
	struct sim_node *best = NULL;

	for (uint32_t i = 0; i < SLOTS; i++)
		if (node_awake(&s->n[i]) && s->n[i].role == RAFT_LEADER && (!best || s->n[i].term > best->term))
			best = &s->n[i];
	return best;
}

static bool usable(struct sim *s, uint64_t id)
{
	const struct sim_node *n = sim_by_id(s, id);

	return n && n->has_journal && id != s->lost_id && !n->forgetful && !n->dur_forgetful && !n->n_holes;
}

/* Whether quorums of the voters have their disks. */
static bool safe(struct sim *s, const struct raft_config *c, uint64_t without)
{
	uint32_t good = 0;

	for (uint32_t i = 0; i < c->n; i++)
		good += (c->m[i].flags & RAFT_VOTER) && c->m[i].id != without && usable(s, c->m[i].id);
	return good >= raft_config_quorum(c, false, RAFT_TO_COMMIT) && good >= raft_config_quorum(c, false, RAFT_TO_ELECT);
}

static bool settled(const struct sim_node *l)
{
	return l->ready && raft_config_committed(l->raft) && !raft_config_current(l->raft)->joint;
}

/* The group can go on without n's disk, and no other one is missing. Judged by all configurations that may still count. */
bool admin_may_lose(struct sim *s, const struct sim_node *n)
{
	struct sim_node *l = sim_leader(s);
	uint32_t voters = 0;

	if (s->lost_id || !l || l == n || !settled(l) || !n->has_journal)
		return false;
	/* It may be a leader of the past. */
	for (uint32_t i = 0; i < SLOTS; i++) {
		const struct sim_node *o = &s->n[i];
		if (o->has_journal && o->n_configs && o->log[o->configs[o->n_configs - 1].index].term > l->term)
			return false;
	}
	const struct raft_config *c = raft_config_current(l->raft);
	for (uint32_t i = 0; i < c->n; i++) {
		voters += (c->m[i].flags & RAFT_VOTER) != 0;
		/* Whoever is there has heard of this configuration, so that no older one counts for it. */
		const struct sim_node *o = sim_by_id(s, c->m[i].id);
		if (!o || !o->has_journal)
			return false;
	}
	return voters >= 3 && safe(s, c, n->id);
}

static bool propose(struct sim *s, struct sim_node *l, struct raft_config *c)
{
	struct raft_event ev = { .type = RAFT_EV_CONFIG, .config = c };
	int code = WIRE_OK;

	/* Sizes that were right for other voters. */
	if (raft_config_check(c, NULL) != WIRE_OK)
		c->quorums = (struct raft_quorums){ 0 };
	if (!safe(s, c, 0) || !node_ask(l, ev, &code, NULL))
		return false;
	sim_trace(s, "admin: node %llu is asked for a configuration of %llu members, code %llu", l->id, c->n, (uint64_t)code, 0, 0, 0);
	return code == WIRE_OK;
}

static void drop(struct raft_config *c, uint64_t id)
{
	for (uint32_t i = 0; i < c->n; i++) {
		if (c->m[i].id != id)
			continue;
		memmove(&c->m[i], &c->m[i + 1], (c->n - i - 1) * sizeof(c->m[0]));
		c->n--;
		return;
	}
}

uint8_t admin_draw_priority(struct sim *s)
{
	static const uint8_t some[] = { 0, 1, 50, RAFT_PRIORITY, RAFT_PRIORITY, 200 };

	return s->p.priorities ? some[rng_below(&s->rng, sizeof(some))] : RAFT_PRIORITY;
}

/* What it is stays what it has: a witness among them is a node without a database. */
static void add(struct sim *s, struct raft_config *c, struct sim_node *n, uint8_t flags)
{
	if (n->has_journal && n->witness)
		flags |= RAFT_WITNESS;
	c->m[c->n] = (struct raft_member){ .id = n->id, .flags = flags, .priority = admin_draw_priority(s) };
	c->n++;
}

/* Sizes of quorums that meet; a majority half of the time. */
void admin_draw_quorums(struct sim *s, struct raft_config *c)
{
	uint32_t n = raft_config_voters(c, false);

	c->quorums = (struct raft_quorums){ 0 };
	if (!n || rng_chance(&s->rng, 500))
		return;
	uint32_t elect = n / 2 + 1 + rng_below32(&s->rng, n - n / 2), least = n + 1 - elect;
	c->quorums.elect = (uint8_t)elect;
	c->quorums.commit = (uint8_t)(least + rng_below32(&s->rng, n - least + 1));
}

static struct sim_node *stranger(struct sim *s, const struct raft_config *c)
{
	uint32_t first = rng_below32(&s->rng, SLOTS);

	for (uint32_t i = 0; i < SLOTS; i++) {
		struct sim_node *n = &s->n[(first + i) % SLOTS];
		if (!raft_config_find(c, n->id) && n->id != s->lost_id && !n->rotted && !n->forgetful)
			return n;
	}
	return NULL;
}

static uint32_t count(const struct raft_config *c, uint8_t flag)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < c->n; i++)
		k += (c->m[i].flags & flag) != 0;
	return k;
}

/* A learner that has what is committed becomes a voter. */
static bool promote(struct sim *s, struct sim_node *l, struct raft_config *c)
{
	struct raft_progress p;

	for (uint32_t i = 0; i < c->n; i++) {
		if (!(c->m[i].flags & RAFT_LEARNER) || !usable(s, c->m[i].id) || !raft_progress_of(l->raft, c->m[i].id, &p) ||
		    p.match + 8 < l->commit || p.forgot)
			continue;
		c->m[i].flags = (uint8_t)(RAFT_VOTER | (c->m[i].flags & RAFT_WITNESS));
		propose(s, l, c);
		return true;
	}
	return false;
}

/* One that has forgotten what it promised is to be no voter for a while. */
static bool demote(struct sim *s, struct sim_node *l, struct raft_config *c)
{
	struct raft_progress p;

	for (uint32_t i = 0; i < c->n; i++) {
		if (!(c->m[i].flags & RAFT_VOTER) || !raft_progress_of(l->raft, c->m[i].id, &p) || !p.forgot)
			continue;
		c->m[i].flags = (uint8_t)(RAFT_LEARNER | RAFT_RISING | (c->m[i].flags & RAFT_WITNESS));
		propose(s, l, c);
		return true;
	}
	return false;
}

/* Another one may be lost once this one's id is no member, or the node itself again. */
static void end_loss(struct sim *s, const struct raft_config *c)
{
	struct sim_node *n = sim_by_id(s, s->lost_id);

	if (n && n->has_journal)
		check_refresh(n);
	bool well = n && !n->rotted && !n->salvaging && !n->forgetful && !n->dur_forgetful && !n->n_holes;
	if (raft_config_find(c, s->lost_id) ? well && n->has_journal : well || !n)
		s->lost_id = 0;
}

/* A witness that has a database now. */
static void end_rise(struct sim *s, struct sim_node *l, struct raft_config *c)
{
	for (uint32_t i = 0; i < c->n; i++) {
		const struct sim_node *n = sim_by_id(s, c->m[i].id);
		if (!(c->m[i].flags & RAFT_WITNESS) || !n || !n->has_journal || n->witness)
			continue;
		c->m[i].flags &= (uint8_t)~(RAFT_WITNESS | RAFT_RISING);
		propose(s, l, c);
		return;
	}
}

/* Of a member to be added: a new node may become a witness if there are too few. */
static uint8_t new_flags(struct sim *s, const struct raft_config *c, const struct sim_node *n)
{
	bool more = count(c, RAFT_WITNESS) < s->p.witnesses && c->level >= 2;

	return RAFT_LEARNER | (more && !n->has_journal ? RAFT_WITNESS : 0);
}

static void restore(struct sim *s, struct sim_node *l)
{
	static struct raft_config c;

	c = *raft_config_current(l->raft);
	if (s->lost_id)
		end_loss(s, &c);
	bool lost = s->lost_id && raft_config_find(&c, s->lost_id);
	if (demote(s, l, &c))
		return;
	if (lost && !sim_by_id(s, s->lost_id)) {
		drop(&c, s->lost_id);
		propose(s, l, &c);
	} else if (count(&c, RAFT_VOTER) < s->p.voters) {
		struct sim_node *n = count(&c, RAFT_LEARNER) ? NULL : stranger(s, &c);
		if (n) {
			add(s, &c, n, new_flags(s, &c, n));
			propose(s, l, &c);
		} else {
			promote(s, l, &c);
		}
	} else {
		end_rise(s, l, &c);
	}
}

/* Who has an image to give: the leader, or where that is a witness, the one of the others that has published most. */
static struct sim_node *image_source(struct sim *s, struct sim_node *l)
{
	struct sim_node *best = l->witness ? NULL : l;

	for (uint32_t i = 0; i < SLOTS && l->witness; i++) {
		struct sim_node *n = &s->n[i];
		if (node_awake(n) && !n->witness && !n->forgetful && raft_config_find(raft_config_current(l->raft), n->id) &&
		    (!best || n->machine.index > best->machine.index))
			best = n;
	}
	return best;
}

static bool lacks_what_is_trimmed(struct sim *s, const struct sim_node *l, const struct sim_node *n, uint64_t at)
{
	struct raft_progress p;

	return n->up && raft_progress_of(l->raft, n->id, &p) && p.state == RAFT_SNAPSHOT && n->machine.index < at &&
	       (n->log_last < at || n->log[at].chain != s->check->committed[at].chain);
}

static void carry_images(struct sim *s, struct sim_node *l)
{
	const struct raft_config *c = raft_config_current(l->raft);
	struct sim_node *from = image_source(s, l);

	for (uint32_t i = 0; i < c->n && !s->failed && from; i++) {
		struct sim_node *n = sim_by_id(s, c->m[i].id);
		if (!n || n == l || n == from || n->rotted || rng_chance(&s->rng, 400))
			continue;
		if (!n->has_journal)
			n->witness = (c->m[i].flags & RAFT_WITNESS) != 0;
		uint64_t at = node_image_index(n, from);
		if (!n->has_journal) {
			node_install(n, from, false);
		} else if (n->up && n->needs_image && n->n_holes && n->machine.index < at) {
			if (!node_take_image(n, from))
				continue;
		} else if (lacks_what_is_trimmed(s, l, n, at)) {
			/* Into a running node, or it was stopped for that. */
			if (rng_chance(&s->rng, 300) || !node_take_image(n, from))
				node_install(n, from, true);
		} else {
			continue;
		}
		if (!node_awake(l) || l->role != RAFT_LEADER || !from->up)
			return;
		c = raft_config_current(l->raft);
	}
}

void admin_event(struct sim *s)
{
	struct sim_node *l = sim_leader(s);

	sim_post(s, (struct sim_event){ .at_us = s->now_us + s->p.election_us / 2 + rng_below(&s->rng, s->p.election_us), .type = EV_ADMIN });
	if (!l)
		return;
	if (settled(l))
		restore(s, l);
	node_drain(l);
	node_settled(l);
	l = sim_leader(s);
	if (l)
		carry_images(s, l);
}

bool admin_change(struct sim *s)
{
	static struct raft_config c;
	struct sim_node *l = sim_leader(s), *n;
	bool done = false;

	if (!l || s->lost_id)
		return false;
	c = *raft_config_current(l->raft);
	if (c.joint || !c.n)
		return false;
	uint64_t some = c.m[rng_below(&s->rng, c.n)].id;
	if (rng_chance(&s->rng, 100))
		for (uint32_t i = 0; i < c.n && node_awake(l); i++)
			if (sim_by_id(s, c.m[i].id) && sim_by_id(s, c.m[i].id) != l && node_rise(sim_by_id(s, c.m[i].id), l))
				return true;
	switch (rng_below(&s->rng, 5)) {
	case 0:
		drop(&c, some);
		break;
	case 1: /* replaced in one change */
		n = stranger(s, &c);
		drop(&c, some);
		if (n && n->has_journal)
			add(s, &c, n, RAFT_VOTER);
		break;
	case 2:
		n = stranger(s, &c);
		if (n && c.n < SLOTS)
			add(s, &c, n, n->has_journal && rng_chance(&s->rng, 300) ? RAFT_VOTER : new_flags(s, &c, n));
		break;
	default:
		for (uint32_t i = 0; i < c.n; i++)
			if (rng_chance(&s->rng, 300))
				c.m[i].flags = (uint8_t)((rng_chance(&s->rng, 600) ? RAFT_VOTER : RAFT_LEARNER) | (c.m[i].flags & RAFT_WITNESS));
		for (uint32_t i = 0; i < c.n; i++)
			if (!usable(s, c.m[i].id))
				c.m[i].flags = (uint8_t)(RAFT_LEARNER | (c.m[i].flags & RAFT_WITNESS));
		for (uint32_t i = 0; i < c.n && s->p.priorities; i++)
			if (rng_chance(&s->rng, 200))
				c.m[i].priority = admin_draw_priority(s);
		if (s->p.shaped)
			admin_draw_quorums(s, &c);
		break;
	}
	if (count(&c, RAFT_VOTER) >= (s->p.voters + 1) / 2)
		done = propose(s, l, &c);
	node_drain(l);
	node_settled(l);
	return done;
}

bool admin_transfer(struct sim *s)
{
	struct sim_node *l = sim_leader(s), *to = &s->n[rng_below(&s->rng, SLOTS)];
	struct raft_event ev = { .type = RAFT_EV_TRANSFER, .peer = rng_chance(&s->rng, 500) ? 0 : to->id };
	int code = WIRE_BUSY;

	if (!l || !node_ask(l, ev, &code, NULL))
		return false;
	s->counts->transfers += code == WIRE_OK;
	if (code == WIRE_OK)
		s->asked_until_us = s->now_us + 250 * (uint64_t)s->p.election_us;
	/* One that does not learn that another leads. */
	if (code == WIRE_OK && !s->quiet && (s->p.chaos_mask >> CHAOS_CUT & 1) && rng_chance(&s->rng, 300))
		sim_post(s, (struct sim_event){ .at_us = s->now_us + rng_below(&s->rng, 6 * (uint64_t)(s->p.delay_us + s->p.jitter_us)),
			                        .type = EV_CUTOFF, .slot = (uint8_t)l->slot });
	node_drain(l);
	node_settled(l);
	return code == WIRE_OK;
}
