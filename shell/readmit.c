/* The leader's part in bringing a member back that has forgotten what it promised (raft/forgetful.c): it is made a learner on its way to be a voter. The rest follows by
 * itself: the member, no voter in a committed configuration, is no longer forgetful, and is promoted as learners are once it has caught up. One at a time, and
 * each only while the others are enough for a quorum, for otherwise nothing is committed anyway. */
#include "shell/node_impl.h"

#include <inttypes.h>
#include <stdlib.h>

#define READMIT_RETRY_US 200000

static const struct raft_member *who_forgot(struct shell_node *n, const struct raft_config *now)
{
	struct raft_progress p;

	for (uint32_t i = 0; i < now->n; i++)
		if (now->m[i].id != n->conf.node && (now->m[i].flags & RAFT_VOTER) && raft_progress_of(n->raft, now->m[i].id, &p) && p.forgot)
			return &now->m[i];
	return NULL;
}

void node_readmit_tick(struct shell_node *n, uint64_t now_us)
{
	const struct raft_config *now = raft_config_current(n->raft);
	const struct raft_member *m;
	struct raft_config *c;
	struct raft_event ev = { .type = RAFT_EV_CONFIG };
	int code = WIRE_OK;

	if (n->shared.role != RAFT_LEADER || !n->shared.leader_ready || now->joint || !raft_config_committed(n->raft) || now_us < n->readmit_at_us)
		return;
	n->readmit_at_us = now_us + READMIT_RETRY_US;
	m = who_forgot(n, now);
	if (!m || !(c = malloc(sizeof *c)))
		return;
	*c = *now;
	c->m[m - now->m].flags = (uint8_t)((m->flags & RAFT_WITNESS) | RAFT_LEARNER | RAFT_RISING);
	ev.config = c;
	shell_log(n, "member %016" PRIx64 " at %s has lost what it had promised: it is a learner until it has caught up", m->id, m->url);
	if (!node_step(n, &ev, &code, NULL) && code)
		shell_log(n, "its re-admission has to wait (%s)", wire_code_text(code));
	free(c);
	/* Where it was taken the next batch must come at once: this one has synced the journal already. */
	if (!code && n->deadline_us > now_us)
		n->deadline_us = now_us;
}
