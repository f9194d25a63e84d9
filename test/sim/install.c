/* New and lost disks: a node's first journal, images, a disk that is lost with the node's id, or under it. */
#include "test/sim/check.h"
#include <stdlib.h>
#include <string.h>

static void fresh_disk(struct sim_node *n)
{
	disk_free(n->backup);
	n->backup = NULL;
	disk_free(n->disk);
	n->disk = disk_new(&n->sim->rng, &n->sim->counts->disk);
	n->has_journal = n->rotted = n->rotted_much = false;
}

static void make_journal(struct sim_node *n, uint64_t term, uint64_t index, uint64_t index_term, const struct raft_config *c)
{
	struct sim *s = n->sim;
	struct raft_journal_opts opts = store_options(s);
	struct raft_journal_mark mark = { .index = index, .checksum = n->checkpoint.hash, .db_pages = 1 };
	struct wire_err err;

	if (raft_journal_create(disk_env(n->disk), STORE_DIRECTORY, &opts, term, index, index_term, c, &mark, &err))
		sim_fail(s, "journal", "%s: %s", node_name(n), err.text);
	n->has_journal = true;
	n->log_base = n->log_last = n->dur_index = n->dur_attested = n->marked = index;
	n->dur_term = term;
	n->dur_vote = 0;
	n->dur_forgetful = n->forgetful;
	n->n_written = 0;
	while (n->cap_log <= index)
		n->log = sim_grow(n->log, &n->cap_log, n->cap_log, sizeof(*n->log));
	n->log[index] = (struct log_link){ .term = index_term, .chain = s->check->committed[index].chain };
}

void node_create(struct sim_node *n, const struct raft_config *c)
{
	const struct raft_member *m = raft_config_find(c, n->id);

	fresh_disk(n);
	n->witness = m && (m->flags & RAFT_WITNESS);
	n->checkpoint = (struct machine){ 0 };
	make_journal(n, 0, 0, 0, c);
}

void node_wipe(struct sim_node *n)
{
	check_i5_wiped(n);
	n->sim->lost_id = n->id;
	n->sim->counts->wipes++;
	sim_trace(n->sim, "node %llu: its disk is lost", n->id, 0, 0, 0, 0, 0);
	node_stop(n, END_KILL);
	n->life++;
	fresh_disk(n);
	n->generation++;
	n->id = 1 + n->slot + 100 * n->generation;
	if (rng_chance(&n->sim->rng, n->sim->p.old_programs))
		n->level = 1;
	n->voted_term = n->voted_for = 0;
	n->forgetful = n->dur_forgetful = n->journal_forgetful = n->salvaging = false;
	n->witness = n->full = false;
}

static void config_at(const struct sim *s, uint64_t index, struct raft_config *ret)
{
	const struct members *m = &s->check->configs[s->check->committed[index].config];

	*ret = (struct raft_config){ .joint = m->joint, .level = m->level, .quorums = m->quorums, .old_quorums = m->old_quorums, .n = m->n };
	for (uint32_t i = 0; i < m->n; i++) {
		ret->m[i].id = m->m[i].id;
		ret->m[i].flags = m->m[i].flags;
		ret->m[i].priority = m->m[i].priority;
	}
}

/* Writes into the journal of a stopped node. */
static void keep(struct sim_node *n, uint64_t term, uint64_t vote, bool forgetful)
{
	struct raft_journal_opts opts = store_options(n->sim);
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_err err;

	if (raft_journal_open(disk_env(n->disk), STORE_DIRECTORY, &opts, &j, &st, &err)) {
		sim_fail(n->sim, "journal", "%s: %s", node_name(n), err.text);
		return;
	}
	if (raft_journal_append_vote(j, term, vote, &err) || (forgetful && raft_journal_append_forgetful(j, true, &err)))
		sim_fail(n->sim, "journal", "%s: %s", node_name(n), err.text);
	raft_journal_close(j);
	n->dur_term = term;
	n->dur_vote = vote;
	n->dur_forgetful = forgetful;
}

/* A witness gets a position only, none that a data voter may lack. */
uint64_t node_image_index(const struct sim_node *n, const struct sim_node *from)
{
	return n->witness && from->keep_above < from->machine.index ? from->keep_above : from->machine.index;
}

void node_install(struct sim_node *n, struct sim_node *from, bool same)
{
	struct sim *s = n->sim;
	uint64_t index = node_image_index(n, from), term = n->hard_term, vote = n->hard_vote, index_term = s->check->committed[index].term;
	struct raft_config c;

	if (n->up)
		node_stop(n, END_KILL);
	fresh_disk(n);
	n->life++;
	n->checkpoint = n->witness ? (struct machine){ .index = index } : from->machine;
	config_at(s, index, &c);
	make_journal(n, same && term > index_term ? term : index_term, index, index_term, &c);
	bool goes_on = same && term >= index_term;
	if (goes_on || n->forgetful)
		keep(n, goes_on ? term : index_term, goes_on ? vote : 0, n->forgetful);
	sim_trace(s, "node %llu: gets an image of index %llu from node %llu", n->id, index, from->id, 0, 0, 0);
	if (same)
		s->counts->images++;
	else
		s->counts->joins++;
	node_start(n);
}

/* ---- a disk that is lost, under the same id ---- */

static void forget(struct sim_node *n)
{
	struct sim *s = n->sim;

	check_i5_wiped(n);
	node_stop(n, END_KILL);
	n->life++;
	n->forgetful = n->journal_forgetful = true;
	s->lost_id = n->id;
	check_forgetful_begins(n);
	/* Nothing that it had may be asked for. */
	n->dur_index = n->dur_attested = n->dur_term = n->dur_vote = 0;
}

/* Empty, with an image of what another one has published. */
bool node_forget(struct sim_node *n, struct sim_node *from)
{
	if (from->machine.index > n->sim->check->last)
		return false;
	forget(n);
	n->sim->counts->forgets++;
	sim_trace(n->sim, "node %llu: its disk is lost, the node comes back under its id", n->id, 0, 0, 0, 0, 0);
	node_install(n, from, false);
	return true;
}

void node_backup(struct sim_node *n)
{
	disk_free(n->backup);
	n->backup = disk_copy(n->disk);
	n->backup_checkpoint = n->checkpoint;
}

/* The operator, or a mark beside the journal, says that this disk is an old one. */
static void keep_as_found(struct sim_node *n)
{
	struct raft_journal_opts opts = store_options(n->sim);
	struct raft_journal_state st;
	struct raft_journal *j;
	struct wire_err err;

	if (raft_journal_open(disk_env(n->disk), STORE_DIRECTORY, &opts, &j, &st, &err)) {
		sim_fail(n->sim, "I10 only what is synced counts", "%s cannot open a copy of its journal: %s", node_name(n), err.text);
		return;
	}
	if (raft_journal_append_forgetful(j, true, &err) || raft_journal_sync(j, &err))
		sim_fail(n->sim, "journal", "%s: %s", node_name(n), err.text);
	raft_journal_close(j);
	n->dur_forgetful = true;
}

/* A copy of its disk from earlier takes the place of its disk. */
bool node_roll_back(struct sim_node *n)
{
	struct sim_disk *old = n->backup;

	if (!old)
		return false;
	n->backup = NULL;
	forget(n);
	n->sim->counts->rollbacks++;
	sim_trace(n->sim, "node %llu: its disk is as it was earlier", n->id, 0, 0, 0, 0, 0);
	fresh_disk(n);
	disk_free(n->disk);
	n->disk = old;
	n->has_journal = true;
	n->checkpoint = n->backup_checkpoint;
	keep_as_found(n);
	node_start(n);
	return true;
}

/* What can be kept of a damaged journal is kept; where nothing can, it begins at what `from` has published (NULL: only if it need not).
 * False: it is as before, or the next start goes on with it. */
bool node_salvage(struct sim_node *n, struct sim_node *from)
{
	struct sim *s = n->sim;
	struct raft_journal_opts opts = store_options(s);
	struct raft_journal_remains left;
	struct raft_journal_start start;
	struct wire_err err;
	int rc = raft_journal_examine(disk_env(n->disk), STORE_DIRECTORY, &opts, &left, &err);

	if (rc == WIRE_NOTFOUND) {
		left = (struct raft_journal_remains){ 0 };
		rc = WIRE_OK;
	}
	if (!rc && !left.log && (!from || from->witness || from->machine.index > s->check->last))
		return false;
	if (!rc && !left.log) {
		uint64_t index = from->machine.index;
		start = (struct raft_journal_start){ .term = s->check->committed[index].term, .base_index = index,
			                             .base_term = s->check->committed[index].term,
			                             .mark = { .index = index, .checksum = from->machine.hash, .db_pages = 1 } };
		config_at(s, index, &start.base_config);
		n->checkpoint = from->machine;
	}
	if (!n->salvaging)
		forget(n);
	n->salvaging = true;
	if (!rc)
		rc = raft_journal_salvage(disk_env(n->disk), STORE_DIRECTORY, &opts, left.log ? NULL : &start, &err);
	if (rc && !disk_crashed(n->disk) && rc != WIRE_FULL && rc != WIRE_IO)
		sim_fail(s, "journal", "%s: a salvage fails: %s", node_name(n), err.text);
	if (rc)
		return false;
	sim_trace(s, "node %llu: its journal is salvaged", n->id, 0, 0, 0, 0, 0);
	s->counts->salvages++;
	n->rotted = n->rotted_much = false;
	n->dur_forgetful = true;
	return true;
}

/* ---- a witness becomes a full replica ---- */

/* It keeps its journal where the image lies within it. To the core it is a witness until the configuration changes. */
bool node_rise(struct sim_node *n, struct sim_node *from)
{
	uint64_t index = from->machine.index;

	if (!n->witness || from->witness || n->forgetful || index < n->marked || index > n->sim->check->last)
		return false;
	n->sim->counts->risen++;
	sim_trace(n->sim, "node %llu: a witness gets a database, of index %llu from node %llu", n->id, index, from->id, 0, 0, 0);
	disk_free(n->backup);
	n->backup = NULL;
	if (index > n->log_last) {
		n->witness = false;
		node_install(n, from, true);
		return true;
	}
	node_stop(n, END_CLEAN);
	n->life++;
	n->witness = false;
	n->checkpoint = from->machine;
	node_start(n);
	return true;
}

/* ---- an image for a running node ---- */

/* The journal begins anew there; term, vote and what it has forgotten stay. */
static void begin_anew(struct sim_node *n, uint64_t index)
{
	struct sim *s = n->sim;
	struct raft_journal_opts opts = store_options(s);
	uint64_t term = n->hard_term, vote = n->hard_vote, index_term = s->check->committed[index].term;
	struct raft_journal_state st;
	struct raft_config c;
	struct wire_err err;

	raft_journal_close(n->journal);
	n->journal = NULL;
	fresh_disk(n);
	config_at(s, index, &c);
	make_journal(n, term > index_term ? term : index_term, index, index_term, &c);
	keep(n, term > index_term ? term : index_term, term >= index_term ? vote : 0, n->forgetful);
	if (raft_journal_open(disk_env(n->disk), STORE_DIRECTORY, &opts, &n->journal, &st, &err))
		sim_fail(s, "journal", "%s: %s", node_name(n), err.text);
	n->journal_forgetful = n->forgetful;
	n->hard_term = n->dur_term;
	n->hard_vote = n->dur_vote;
	n->n_configs = 0;
	n->configs = sim_grow(n->configs, &n->cap_configs, 0, sizeof(*n->configs));
	n->configs[0].index = index;
	check_members(&c, &n->configs[n->n_configs++].m);
	n->n_holes = n->n_fills = n->n_written = 0;
	n->must_mark = 0;
	n->core_base = index;
	for (uint32_t i = 0; i < s->p.cache_slots; i++)
		n->cache[i].e.index = 0;
}

bool node_take_image(struct sim_node *n, struct sim_node *from)
{
	uint64_t index = node_image_index(n, from), term = n->sim->check->committed[index].term;
	struct raft_event ev = { .type = RAFT_EV_IMAGE, .index = index, .term = term, .corr = from->term };
	static struct raft_config c;

	if (!node_awake(n) || n->syncing || n->must_sync || n->n_late || n->failing || n->role == RAFT_LEADER || n->rotted || disk_crashed(n->disk) ||
	    disk_fail_pending(n->disk) || index <= n->machine.index || index > n->sim->check->last)
		return false;
	client_forget_writes(n); /* how they ended cannot be known from an image */
	sim_trace(n->sim, "node %llu: takes an image of index %llu from node %llu, and runs on", n->id, index, from->id, 0, 0, 0);
	n->sim->counts->images_running++;
	if (raft_term_of(n->raft, index) != term)
		begin_anew(n, index);
	if (n->witness) {
		n->machine.index = index;
	} else {
		n->machine = n->checkpoint = from->machine;
		disk_free(n->backup);
		n->backup = NULL;
	}
	config_at(n->sim, index, &c);
	ev.config = &c;
	node_ask(n, ev, NULL, NULL);
	client_serve(n);
	/* A hole that is in the image needs no data any more. */
	struct raft_journal_mark mark = { .index = index, .checksum = n->checkpoint.hash, .db_pages = 1 };
	struct wire_err err;
	if (n->n_holes && !n->failing && n->up && index <= n->commit && index > n->marked) {
		if (raft_journal_append_mark(n->journal, &mark, &err) || raft_journal_sync(n->journal, &err))
			node_fail(n, "mark", &err);
		n->trim_to = n->marked = index;
	}
	node_drain(n);
	node_settled(n);
	return true;
}
