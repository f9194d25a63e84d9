/* Feature levels: what a group may use is switched on only when every member understands it.
 *
 * A configuration has a level, and what is in force is that of the latest one in the log. Each member announces the level of its program
 * with every heartbeat answer; the leader believes only what was said in its own term. Once all members and itself announce a
 * higher level than the one in force, it proposes the same configuration with that level, under I13 like any other change; voters and
 * sizes stay, so it needs no joint one. Levels do not fall: the core puts the one in force into each new configuration.
 *
 * So a level is in the log only if every member of the configuration before it had a program that knows it, unless one was replaced
 * by an older program since, or a new member has one. Such a node stops at the first configuration it does not understand,
 * with an error that says to upgrade: it acknowledges nothing that it might read wrongly. A member that announces too little is sent
 * nothing but heartbeats, so that it is seen in the leader's progress; it is not made a voter. */
#include "raft/core.h"

static uint8_t level_of(const struct raft_config *c)
{
	return c->level ? c->level : 1;
}

uint32_t raft_level_in_force(const struct raft *r)
{
	return level_of(&r->configs[0].config);
}

int raft_level_check(uint32_t own, const struct raft_config *c, struct wire_err *err)
{
	if (level_of(c) <= own)
		return WIRE_OK;
	return wire_fail(err, WIRE_VERSION, "the group uses feature level %u, but this program knows only those up to %u; upgrade walraft on this node",
	                 level_of(c), own);
}

bool raft_level_reads(struct raft *r, const struct wire_entry *e, struct raft_config *ret_config)
{
	struct wire_err err = { 0 };
	struct raft_config c;
	int rc = raft_config_get(e->data, e->size, &c, &err);

	if (rc == WIRE_OK)
		rc = raft_level_check(r->level, &c, &err);
	/* Anything else that cannot be read is none of a leader's, and is ignored like other nonsense. */
	if (rc == WIRE_VERSION && raft_config_peek_level(e->data, e->size) > r->level && r->stop.code == WIRE_OK)
		r->stop = err;
	if (rc != WIRE_OK || raft_config_check(&c, NULL) != WIRE_OK)
		return false;
	*ret_config = c;
	return true;
}

/* Sent nothing but heartbeats. */
bool raft_level_lacks(const struct raft *r, const struct raft_peer *p)
{
	return p->level && p->level < level_of(raft_config_current(r));
}

static uint32_t announced(struct raft *r, uint64_t id)
{
	const struct raft_peer *p = id == r->self ? NULL : raft_peer(r, id);

	return id == r->self ? r->level : p ? p->level : 0;
}

int raft_level_change(struct raft *r, const struct raft_config *target, struct wire_err *err)
{
	const struct raft_config *now = raft_config_current(r);
	uint8_t has = level_of(now), needs = raft_config_needs(target);

	for (uint32_t i = 0; i < now->n && needs > has; i++) {
		uint32_t level = announced(r, now->m[i].id);
		if (level >= needs)
			continue;
		r->proposal_member = now->m[i].id;
		return wire_fail(err, WIRE_VERSION, "this needs feature level %u of all members, but member %llu at %s %s %u; %s it", needs,
		                 (unsigned long long)now->m[i].id, now->m[i].url, level ? "has only" : "has not told that it has more than", level ? level : has,
		                 level ? "upgrade" : "wait for");
	}
	if (needs > has)
		return wire_fail(err, WIRE_BUSY, "the group is about to go from feature level %u to %u; try again", has, needs);
	for (uint32_t i = 0; i < target->n; i++) {
		const struct raft_member *m = &target->m[i], *was = raft_config_find(now, m->id);
		uint32_t level = announced(r, m->id);
		if (!level || level >= has || (was && !(m->flags & ~was->flags & RAFT_VOTER)))
			continue;
		r->proposal_member = m->id;
		return wire_fail(err, WIRE_VERSION, "the group uses feature level %u, but member %llu at %s knows only those up to %u; upgrade it first",
		                 has, (unsigned long long)m->id, m->url, level);
	}
	return WIRE_OK;
}

bool raft_level_raise(struct raft *r, struct raft_config *ret_config)
{
	const struct raft_config *now = raft_config_current(r);
	uint32_t level = r->level;

	for (uint32_t i = 0; i < r->n_peers; i++)
		if (r->peers[i].level < level)
			level = r->peers[i].level;
	if (level <= level_of(now) || level > UINT8_MAX || r->transfer_to || raft_self_witness(r))
		return false;
	*ret_config = *now;
	ret_config->level = (uint8_t)level;
	return true;
}
