/* An image in place of the log (RAFT_EV_IMAGE). It is the state after a committed entry, (index, term), so taking it is like taking all entries up to
 * there from a leader that has them committed:
 *   - One that is not above what is published here is ignored.
 *   - If the log has that entry, all before agree (I2), and what comes after may have been acknowledged: it is kept. Only commit and
 *     applied move, and the driver keeps its journal (it asks raft_term_of first).
 *   - Else what the log has from there on was never committed, and goes (I3): the log begins anew above index, with the image's
 *     configuration, which is that of the latest entry of its kind up to index.
 *   - Whoever made it knew the commit in a term that the event says; ours must not be lower (fetch.c says why). */
#include "raft/core.h"

void raft_on_image(struct raft *r, const struct raft_event *ev)
{
	uint64_t known_in = ev->corr > ev->term ? ev->corr : ev->term;

	assert(r->role != RAFT_LEADER);
	if (ev->index <= r->applied || ev->index > RAFT_NUMBER_MAX || known_in > RAFT_NUMBER_MAX)
		return;
	if (ev->index <= r->commit && !raft_log_matches(&r->log, ev->index, ev->term)) {
		wire_fail(&r->stop, WIRE_CORRUPT, "an image says that entry %llu is of term %llu, but here the committed one is of term %llu; the "
		          "image, or this node's log, is of another history", (unsigned long long)ev->index, (unsigned long long)ev->term,
		          (unsigned long long)raft_log_term(&r->log, ev->index));
		return;
	}
	if (known_in > r->term)
		raft_become_follower(r, known_in, 0);
	else if (r->role != RAFT_FOLLOWER)
		raft_become_follower(r, r->term, 0);
	if (raft_log_matches(&r->log, ev->index, ev->term)) {
		if (r->matched < ev->index)
			r->matched = ev->index;
		raft_commit_to(r, ev->index);
		if (r->applied < ev->index && ev->index <= r->durable)
			r->applied = ev->index;
		/* One that only keeps the log is given none above the keep_above of whoever made it (K of witness.c). */
		if ((raft_self_flags(r) & (RAFT_WITNESS | RAFT_RISING)) == RAFT_WITNESS)
			raft_keep_told(r, ev->index);
		raft_tell_why(r, RAFT_TOLD_LOG_IMAGE, 0, "the log has that entry, and stays", ev->index, ev->term, 0);
		return;
	}
	/* As with an entry that has such a configuration: the step fails, and the node must not go on. */
	if (raft_level_check(r->level, ev->config, &r->stop) != WIRE_OK)
		return;
	raft_log_restart(&r->log, ev->index, ev->term);
	r->n_holes = 0;
	r->commit = r->matched = r->durable = r->applied = ev->index;
	r->n_configs = 0;
	if (!raft_configs_push(r, ev->index, ev->config))
		return;
	raft_tell_why(r, RAFT_TOLD_LOG_IMAGE, 0, "the log begins anew there", ev->index, ev->term, 0);
}
