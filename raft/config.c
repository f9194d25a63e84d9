/* Configurations: bytes, the way through a joint one, and which is in force. */
#include "raft/core.h"
#include <stdlib.h>
#include <string.h>

enum { VERSION = 2, KNOWN_FLAGS = RAFT_VOTER | RAFT_VOTER_OLD | RAFT_LEARNER | RAFT_WITNESS | RAFT_RISING | RAFT_AWAITED };

void raft_config_put(const struct raft_config *c, struct wire_buf *b)
{
	assert(c->n <= RAFT_MEMBERS_MAX);
	wire_put_u8(b, VERSION);
	wire_put_u8(b, c->joint);
	wire_put_u8(b, c->level);
	wire_put_u8(b, c->quorums.commit);
	wire_put_u8(b, c->quorums.elect);
	wire_put_u8(b, c->old_quorums.commit);
	wire_put_u8(b, c->old_quorums.elect);
	wire_put_u16(b, (uint16_t)c->n);
	for (uint32_t i = 0; i < c->n; i++) {
		wire_put_u64(b, c->m[i].id);
		wire_put_u8(b, c->m[i].flags);
		wire_put_u8(b, c->m[i].priority);
		wire_put_text(b, c->m[i].url);
	}
}

uint8_t raft_config_peek_level(const void *p, size_t n)
{
	struct wire_in in = wire_in_make(p, n);
	uint8_t version = wire_get_u8(&in);

	(void)wire_get_u8(&in);
	uint8_t level = wire_get_u8(&in);
	return in.bad || version != VERSION ? 0 : level;
}

int raft_config_get(const void *p, size_t n, struct raft_config *ret_config, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, n);
	struct raft_config c = { 0 };
	uint8_t version = wire_get_u8(&in), joint = wire_get_u8(&in);
	uint16_t count;

	if (!in.bad && version != VERSION)
		return wire_fail(err, WIRE_VERSION, "configuration has format version %u, this program knows %d; upgrade it",
		                 version, VERSION);
	c.level = wire_get_u8(&in);
	if (!in.bad && c.level > RAFT_LEVEL)
		return wire_fail(err, WIRE_VERSION, "the group uses feature level %u, but this program knows only those up to %u; upgrade walraft on this node",
		                 c.level, RAFT_LEVEL);
	c.quorums.commit = wire_get_u8(&in);
	c.quorums.elect = wire_get_u8(&in);
	c.old_quorums.commit = wire_get_u8(&in);
	c.old_quorums.elect = wire_get_u8(&in);
	count = wire_get_u16(&in);
	if (in.bad)
		return wire_fail(err, WIRE_CORRUPT, "configuration of %zu bytes is too short", n);
	if (!joint && (c.old_quorums.commit || c.old_quorums.elect))
		return wire_fail(err, WIRE_CORRUPT, "configuration has outgoing quorums but is not joint");
	if (joint > 1 || count > RAFT_MEMBERS_MAX)
		return wire_fail(err, WIRE_CORRUPT, "configuration with joint=%u and %u members", joint, count);
	c.joint = joint;
	for (uint32_t i = 0; i < count; i++) {
		struct raft_member *m = &c.m[i];
		m->id = wire_get_u64(&in);
		m->flags = wire_get_u8(&in);
		m->priority = wire_get_u8(&in);
		wire_get_text(&in, m->url, sizeof(m->url));
		if (in.bad)
			return wire_fail(err, WIRE_CORRUPT, "configuration ends within member %u of %u", i + 1, count);
		if (!m->id || raft_config_find(&c, m->id))
			return wire_fail(err, WIRE_CORRUPT, "configuration names member %llu twice or as 0",
			                 (unsigned long long)m->id);
		if ((m->flags & ~KNOWN_FLAGS) || ((m->flags & RAFT_VOTER_OLD) && !c.joint))
			return wire_fail(err, WIRE_CORRUPT, "configuration gives member %llu the flags %u",
			                 (unsigned long long)m->id, m->flags);
		c.n++;
	}
	if (wire_in_left(&in))
		return wire_fail(err, WIRE_CORRUPT, "configuration has %zu bytes behind its end", wire_in_left(&in));
	*ret_config = c;
	return WIRE_OK;
}

const struct raft_member *raft_config_find(const struct raft_config *c, uint64_t id)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].id == id)
			return &c->m[i];
	return NULL;
}

uint32_t raft_config_voters(const struct raft_config *c, bool old_half)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->n; i++)
		n += (c->m[i].flags & (old_half ? RAFT_VOTER_OLD : RAFT_VOTER)) != 0;
	return n;
}

uint32_t raft_config_quorum(const struct raft_config *c, bool old_half, enum raft_quorum_kind kind)
{
	struct raft_quorums q = old_half ? c->old_quorums : c->quorums;
	uint8_t size = kind == RAFT_TO_ELECT ? q.elect : q.commit;

	return size ? size : raft_config_voters(c, old_half) / 2 + 1;
}

uint8_t raft_config_needs(const struct raft_config *c)
{
	bool two = c->quorums.commit || c->quorums.elect || c->old_quorums.commit || c->old_quorums.elect;

	for (uint32_t i = 0; i < c->n; i++)
		two |= (c->m[i].flags & RAFT_WITNESS) != 0;
	return two ? 2 : 1;
}

/* The proof is in quorum.c. */
static int check_quorums(const struct raft_config *c, bool old_half, struct wire_err *err)
{
	uint32_t n = raft_config_voters(c, old_half), commit = raft_config_quorum(c, old_half, RAFT_TO_COMMIT),
	         elect = raft_config_quorum(c, old_half, RAFT_TO_ELECT);
	const char *half = old_half ? "outgoing " : "";

	if (commit > n || elect > n)
		return wire_fail(err, WIRE_INVALID, "%s by %u %svoters, but there %s only %u; choose at most %u, or 0 for a majority",
		                 commit > n ? "commits" : "elections", commit > n ? commit : elect, half, n == 1 ? "is" : "are", n, n);
	if (2 * elect <= n)
		return wire_fail(err, WIRE_INVALID, "elections by %u of %u %svoters could make two leaders at once; choose at least %u, "
		                 "or 0 for a majority", elect, n, half, n / 2 + 1);
	if (commit + elect <= n)
		return wire_fail(err, WIRE_INVALID, "elections by %u of %u %svoters could miss what %u of them have committed: the two "
		                 "must add up to more than %u; choose %u for elections, or %u for commits", elect, n, half, commit, n,
		                 n + 1 - commit, n + 1 - elect);
	return WIRE_OK;
}

static int check_half(const struct raft_config *c, bool old_half, struct wire_err *err)
{
	uint8_t flag = old_half ? RAFT_VOTER_OLD : RAFT_VOTER;
	bool data = false;

	if (!raft_config_voters(c, old_half))
		return wire_fail(err, WIRE_INVALID, "no voter would be left; name at least one");
	for (uint32_t i = 0; i < c->n; i++)
		data |= (c->m[i].flags & flag) && !(c->m[i].flags & RAFT_WITNESS);
	if (!data)
		return wire_fail(err, WIRE_INVALID, "all voters would be witnesses, which keep no database; at least one voter must have it");
	return check_quorums(c, old_half, err);
}

static bool flags_fit(const struct raft_config *c, uint8_t flags)
{
	if (!(flags & (RAFT_VOTER | RAFT_VOTER_OLD | RAFT_LEARNER)) || (flags & ~KNOWN_FLAGS))
		return false;
	if ((flags & RAFT_VOTER_OLD) && !c->joint)
		return false;
	if ((flags & RAFT_VOTER) && (flags & RAFT_LEARNER))
		return false;
	if ((flags & RAFT_AWAITED) && !(flags & RAFT_LEARNER))
		return false;
	return !(flags & RAFT_RISING) || (flags & (RAFT_LEARNER | RAFT_WITNESS));
}

int raft_config_check(const struct raft_config *c, struct wire_err *err)
{
	if (c->n > RAFT_MEMBERS_MAX)
		return wire_fail(err, WIRE_INVALID, "%u members; %d are possible", c->n, RAFT_MEMBERS_MAX);
	for (uint32_t i = 0; i < c->n; i++) {
		uint64_t id = c->m[i].id;
		if (!id || raft_config_find(c, id) != &c->m[i])
			return wire_fail(err, WIRE_INVALID, "member %llu is there twice or is 0", (unsigned long long)id);
		if (!flags_fit(c, c->m[i].flags))
			return wire_fail(err, WIRE_INVALID, "member %llu has the flags %u", (unsigned long long)id, c->m[i].flags);
	}
	if (!c->joint && (c->old_quorums.commit || c->old_quorums.elect))
		return wire_fail(err, WIRE_INVALID, "outgoing quorums without an outgoing half");
	if (raft_config_needs(c) > (c->level ? c->level : 1))
		return wire_fail(err, WIRE_INVALID, "witnesses and quorums other than majorities need feature level %u, but the group has %u",
		                 raft_config_needs(c), c->level ? c->level : 1);
	if (!c->n)
		return WIRE_OK;
	int rc = check_half(c, false, err);
	return rc || !c->joint ? rc : check_half(c, true, err);
}

bool raft_config_same_quorums(const struct raft_config *a, const struct raft_config *b)
{
	const struct raft_config *c[2] = { a, b };

	for (int side = 0; side < 2; side++) {
		for (uint32_t i = 0; i < c[side]->n; i++) {
			const struct raft_member *other = raft_config_find(c[!side], c[side]->m[i].id);
			if ((c[side]->m[i].flags & RAFT_VOTER) && !(other && (other->flags & RAFT_VOTER)))
				return false;
		}
	}
	return raft_config_quorum(a, false, RAFT_TO_COMMIT) == raft_config_quorum(b, false, RAFT_TO_COMMIT) &&
	       raft_config_quorum(a, false, RAFT_TO_ELECT) == raft_config_quorum(b, false, RAFT_TO_ELECT);
}

bool raft_config_join(const struct raft_config *old, const struct raft_config *target, struct raft_config *ret)
{
	struct raft_config c = *target;

	assert(!old->joint && !target->joint);
	c.joint = true;
	c.old_quorums = old->quorums;
	for (uint32_t i = 0; i < old->n; i++) {
		if (!(old->m[i].flags & RAFT_VOTER))
			continue;
		uint32_t k = 0;
		while (k < c.n && c.m[k].id != old->m[i].id)
			k++;
		if (k == RAFT_MEMBERS_MAX)
			return false;
		if (k == c.n) {
			c.m[c.n] = old->m[i];
			c.m[c.n++].flags = old->m[i].flags & RAFT_WITNESS;
		}
		c.m[k].flags |= RAFT_VOTER_OLD;
	}
	*ret = c;
	return true;
}

void raft_config_leave(const struct raft_config *joint, struct raft_config *ret)
{
	assert(joint->joint);
	memset(ret, 0, sizeof(*ret));
	ret->level = joint->level;
	ret->quorums = joint->quorums;
	for (uint32_t i = 0; i < joint->n; i++) {
		uint8_t flags = joint->m[i].flags & (uint8_t)~RAFT_VOTER_OLD;
		if (!(flags & (RAFT_VOTER | RAFT_LEARNER)))
			continue;
		ret->m[ret->n] = joint->m[i];
		ret->m[ret->n++].flags = flags;
	}
}

const struct raft_log_config *raft_config_last(const struct raft *r)
{
	return &r->configs[r->n_configs - 1];
}

const struct raft_config *raft_config_before(const struct raft *r, uint64_t index)
{
	size_t k = r->n_configs - 1;

	while (k && r->configs[k].index >= index)
		k--;
	return &r->configs[k].config;
}

const struct raft_config *raft_config_current(const struct raft *r)
{
	return &raft_config_last(r)->config;
}

bool raft_config_committed(const struct raft *r)
{
	return raft_config_last(r)->index <= r->commit;
}

uint8_t raft_self_flags(const struct raft *r)
{
	const struct raft_member *m = raft_config_find(raft_config_current(r), r->self);
	return m ? m->flags : 0;
}

bool raft_self_votes(const struct raft *r)
{
	return (raft_self_flags(r) & (RAFT_VOTER | RAFT_VOTER_OLD)) != 0;
}

/* A voter that the latest configuration leaves out stands for election all the same until that is committed (thesis
 * 4.2.2): its log may be the only one that reaches so far, and the others may still need its old vote. */
bool raft_may_campaign(const struct raft *r)
{
	if (r->forgetful || r->n_holes)
		return false;
	if (raft_self_votes(r))
		return true;
	if (r->n_configs < 2 || raft_config_committed(r))
		return false;
	const struct raft_member *m = raft_config_find(&r->configs[r->n_configs - 2].config, r->self);
	return m && (m->flags & (RAFT_VOTER | RAFT_VOTER_OLD));
}

bool raft_alone(const struct raft *r)
{
	const struct raft_config *c = raft_config_current(r);

	for (uint32_t i = 0; i < c->n; i++)
		if (c->m[i].id != r->self && (c->m[i].flags & (RAFT_VOTER | RAFT_VOTER_OLD)))
			return false;
	return raft_self_votes(r);
}

bool raft_configs_push(struct raft *r, uint64_t index, const struct raft_config *c)
{
	if (!raft_grow(r, (void **)&r->configs, &r->cap_configs, r->n_configs, sizeof(*r->configs)))
		return false;
	assert(!r->n_configs || raft_config_last(r)->index < index);
	r->configs[r->n_configs++] = (struct raft_log_config){ .index = index, .config = *c };
	r->config_changes++;
	raft_tell_config(r, RAFT_TOLD_CONFIG_APPENDED, raft_config_last(r));
	return raft_peers_sync(r);
}

/* A configuration is undone together with its entry (thesis 4.1: servers always use the latest one in their log). */
void raft_configs_truncate(struct raft *r, uint64_t from)
{
	size_t n = r->n_configs;

	while (r->n_configs > 1 && raft_config_last(r)->index >= from)
		r->n_configs--;
	if (r->n_configs == n)
		return;
	raft_tell_config(r, RAFT_TOLD_CONFIG_UNDONE, raft_config_last(r));
	r->config_changes++;
	raft_peers_sync(r);
}

void raft_configs_prune(struct raft *r)
{
	size_t k = 0;

	while (k + 1 < r->n_configs && r->configs[k + 1].index <= r->commit)
		raft_tell_config(r, RAFT_TOLD_CONFIG_COMMITTED, &r->configs[++k]);
	if (!k)
		return;
	memmove(r->configs, r->configs + k, (r->n_configs - k) * sizeof(*r->configs));
	r->n_configs -= k;
}
