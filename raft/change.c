/* The way through a configuration change (thesis 4.3; I13). */
#include "raft/core.h"

/* Takes effect at once (thesis 4.1). */
static void append_config(struct raft *r, const struct raft_config *c)
{
	assert(!r->config_bytes.len);
	raft_config_put(c, &r->config_bytes);
	if (r->config_bytes.failed) {
		r->nomem = true;
		return;
	}
	raft_append_local(r, WIRE_ENTRY_CONFIG, r->config_bytes.data, (uint32_t)r->config_bytes.len);
	if (r->nomem)
		return;
	raft_configs_push(r, raft_log_last(&r->log), c);
}

/* WIRE_OK: *ret is what is to be appended. *why: in general, what a refusal is for; the text in err has the numbers. */
static int judge(struct raft *r, const struct raft_config *target, struct raft_config *ret, const char **why, struct wire_err *err)
{
	const struct raft_config *now = raft_config_current(r);

	*why = "this node does not lead";
	if (r->role != RAFT_LEADER)
		return wire_fail(err, WIRE_NOTLEADER, "this node does not lead");
	*why = "it is no configuration to go to";
	if (!target || target->joint || !target->n)
		return wire_fail(err, WIRE_INVALID, "this is no configuration to go to");
	if (target->n > RAFT_MEMBERS_MAX)
		return raft_config_check(target, err);
	struct raft_config c = *target;
	c.level = now->level;
	if (raft_config_needs(&c) > c.level)
		c.level = raft_config_needs(&c); /* refused below */
	if (raft_config_check(&c, err) != WIRE_OK)
		return WIRE_INVALID;
	*why = "a member lacks a feature level";
	int rc = raft_level_change(r, &c, err);
	if (rc != WIRE_OK)
		return rc;
	*why = "an earlier change, or the first entry of this leader, is not committed yet";
	/* I13; thesis 3.10 */
	if (!raft_leader_is_ready(r) || !raft_config_committed(r) || now->joint)
		return wire_fail(err, WIRE_BUSY, "an earlier change, or the first entry of this leader, is not committed yet; try again");
	*why = "leadership is being handed over";
	if (r->transfer_to && !raft_self_witness(r))
		return wire_fail(err, WIRE_BUSY, "leadership is being handed over; try again");
	*why = "witnesses: somebody may lack what they may have forgotten, or one leads";
	rc = raft_witness_change(r, &c, err);
	if (rc != WIRE_OK)
		return rc;
	*why = "old and new members are too many";
	struct raft_config plain = c;
	/* Thesis 4.3. When voters and sizes stay the same, so do all quorums, and there is nothing to join. */
	if (!raft_config_same_quorums(now, &plain) && !raft_config_join(now, &plain, &c))
		return wire_fail(err, WIRE_INVALID, "old and new members together are more than %d; change fewer at once", RAFT_MEMBERS_MAX);
	*ret = c;
	return WIRE_OK;
}

void raft_propose_config(struct raft *r, const struct raft_config *target)
{
	struct raft_config c;
	const char *why;

	r->proposal_code = judge(r, target, &c, &why, &r->refusal);
	if (r->proposal_code != WIRE_OK) {
		raft_tell_why(r, RAFT_TOLD_CONFIG_REFUSED, r->proposal_member, why, raft_config_last(r)->index, 0, 0);
		return;
	}
	/* Newer than the wish that is held on to (priority.c). */
	for (uint32_t i = 0; i < c.n; i++) {
		const struct raft_member *m = raft_config_find(raft_config_current(r), c.m[i].id);
		if (m && m->priority != c.m[i].priority)
			r->hold_until_us = 0;
	}
	r->proposal_index = raft_log_last(&r->log) + 1;
	append_config(r, &c);
}

/* Thesis 4.3: once the joint configuration is committed, the new one alone takes its place; once that is, a leader that
 * it leaves out steps down, having told the others that far. With nothing of that to do, the level may be raised. */
void raft_change_go_on(struct raft *r)
{
	struct raft_config next;

	if (!raft_leader_is_ready(r) || !raft_config_committed(r))
		return;
	if (raft_config_current(r)->joint) {
		raft_config_leave(raft_config_current(r), &next);
		append_config(r, &next);
	} else if (!raft_self_votes(r)) {
		raft_tell(r, RAFT_TOLD_ROLE_LEFT_OUT, 0, raft_config_last(r)->index, 0, 0);
		raft_tell_commit(r);
		if (r->leave_silently)
			raft_become_follower(r, r->term, 0);
		else
			raft_transfer_leave(r);
	} else if (raft_level_raise(r, &next)) {
		append_config(r, &next);
	}
}
