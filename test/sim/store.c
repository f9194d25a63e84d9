/* A node's journal and what is beside it: writing, reading, publishing, checkpoints, starting, stopping, images. */
#include "test/sim/check.h"
#include <stdlib.h>
#include <string.h>

enum { KEEP_MAX = 600 };

static void on_event(void *ctx, enum raft_journal_event event, uint64_t a, uint64_t b)
{
	struct sim_counts *c = ctx;

	(void)a, (void)b;
	c->journal_told[event]++;
}

struct raft_journal_opts store_options(const struct sim *s)
{
	return (struct raft_journal_opts){ .on_event = on_event, .event_ctx = s->counts, .group = GROUP, .segment_bytes = s->p.segment_bytes, .first_bytes = s->p.first_bytes };
}

/* ---- the log ---- */

static void cache_put(struct sim_node *n, const struct wire_entry *e)
{
	if (!n->sim->p.cache_slots)
		return;
	struct cache_slot *c = &n->cache[e->index % n->sim->p.cache_slots];
	if (c->cap < e->size) {
		c->data = realloc(c->data, c->cap = e->size);
		if (!c->data)
			abort();
	}
	c->e = *e;
	if (e->size)
		memcpy(c->data, e->data, e->size);
	c->e.data = e->size ? c->data : NULL;
}

static void put_link(struct sim_node *n, const struct wire_entry *e)
{
	struct raft_config c;

	if (n->cap_log <= e->index)
		n->log = sim_grow(n->log, &n->cap_log, n->cap_log, sizeof(*n->log));
	n->log[e->index] = (struct log_link){ .term = e->term, .chain = check_chain(n->log[e->index - 1].chain, e->term, e->kind, e->sum, e->size) };
	check_i2_appended(n, e->index);
	if (e->kind == WIRE_ENTRY_CONFIG && raft_config_get(e->data, e->size, &c, NULL) == WIRE_OK) {
		check_i13_appended(n, e);
		n->configs = sim_grow(n->configs, &n->cap_configs, n->n_configs, sizeof(*n->configs));
		n->configs[n->n_configs].index = e->index;
		check_members(&c, &n->configs[n->n_configs].m);
		check_level_config(n, e->index, &n->configs[n->n_configs].m);
		check_quorums_config(n, e->index, &n->configs[n->n_configs++].m);
	}
	n->log_last = e->index;
}

static void forget_from(struct sim_node *n, uint64_t from)
{
	uint64_t was = n->log[from].chain;

	n->log_last = from - 1;
	while (n->n_configs > 1 && n->configs[n->n_configs - 1].index >= from)
		n->n_configs--;
	check_refresh(n);
	holes_truncate(n, from);
	if (n->dur_index >= from)
		n->dur_index = from - 1;
	if (n->dur_attested >= from)
		n->dur_attested = from - 1;
	for (size_t i = 0; i < n->n_written; i++) {
		struct written *w = &n->written[i];
		w->index = w->index >= from ? from - 1 : w->index;
		w->attests = w->attests >= from ? from - 1 : w->attests;
	}
	if (was == n->sim->check->committed[from <= n->sim->check->last ? from : 0].chain)
		if (n->log_last < n->machine.index)
			sim_fail(n->sim, "I4 state machine safety", "%s truncates its log from %llu, and has published %llu", node_name(n),
			         (unsigned long long)from, (unsigned long long)n->machine.index);
}

void store_remember(struct sim_node *n, const struct raft_update *u)
{
	if (u->truncate_from && u->truncate_from <= n->log_last)
		forget_from(n, u->truncate_from);
	for (uint32_t i = 0; i < u->n_entries; i++) {
		if (u->entries[i].index != n->log_last + 1) {
			sim_fail(n->sim, "I2 log matching", "%s appends entry %llu behind entry %llu", node_name(n),
			         (unsigned long long)u->entries[i].index, (unsigned long long)n->log_last);
			return;
		}
		put_link(n, &u->entries[i]);
		cache_put(n, &u->entries[i]);
	}
}

bool store_entry(struct sim_node *n, const struct raft_update *u, uint64_t index, uint64_t term, struct wire_entry *ret_e)
{
	struct wire_err err;

	if (u && u->n_entries && index >= u->entries[0].index && index <= u->entries[u->n_entries - 1].index) {
		*ret_e = u->entries[index - u->entries[0].index];
		return true;
	}
	if (n->sim->p.cache_slots) {
		const struct cache_slot *c = &n->cache[index % n->sim->p.cache_slots];
		if (c->e.index == index && c->e.term == term) {
			*ret_e = c->e;
			return true;
		}
	}
	node_call(n);
	int rc = raft_journal_read(n->journal, index, &n->scratch, ret_e, &err);
	if (rc) {
		if (node_called(n) && !n->rotted && !disk_crashed(n->disk))
			sim_fail(n->sim, "I2 log matching", "%s cannot read entry %llu: %s", node_name(n), (unsigned long long)index, err.text);
		node_fail(n, "read", &err);
		return false;
	}
	node_called(n);
	return true;
}

static void note_written(struct sim_node *n)
{
	check_refresh(n);
	n->must_mark = disk_mark(n->disk);
	n->written = sim_grow(n->written, &n->cap_written, n->n_written, sizeof(*n->written));
	n->written[n->n_written++] = (struct written){ .mark = n->must_mark, .index = n->log_last, .term = n->hard_term,
		                                       .vote = n->hard_vote, .attests = n->dur_index, .forgetful = n->forgetful };
}

void store_write(struct sim_node *n, const struct raft_update *u)
{
	struct wire_err err;
	int rc = WIRE_OK;

	node_call(n);
	if (u->truncate_from)
		rc = raft_journal_append_truncate(n->journal, u->truncate_from, &err);
	if (!rc && u->n_entries)
		rc = raft_journal_append_entries(n->journal, u->entries, u->n_entries, u->commit, &err);
	if (!rc && u->n_fills)
		rc = holes_write(n, u, &err);
	if (!rc && u->hard_state_changed && n->journal_forgetful && !u->forgetful)
		rc = raft_journal_append_forgetful(n->journal, n->journal_forgetful = false, &err);
	if (!rc && u->hard_state_changed)
		rc = raft_journal_append_vote(n->journal, u->term, u->vote, &err);
	bool memory = node_called(n);
	if (rc) {
		if (rc != WIRE_IO && rc != WIRE_FULL && (memory || rc != WIRE_NOMEM))
			sim_fail(n->sim, "journal", "%s: %s", node_name(n), err.text);
		node_fail(n, "append", &err);
		return;
	}
	if (u->n_entries && u->entries[u->n_entries - 1].term > n->hard_term) {
		n->hard_term = u->entries[u->n_entries - 1].term;
		n->hard_vote = 0;
	}
	if (u->hard_state_changed) {
		n->hard_term = u->term;
		n->hard_vote = u->vote;
	}
	if (u->must_sync)
		note_written(n);
	if (u->role_changed && raft_journal_append_note(n->journal, raft_role_name(u->role), &err))
		node_fail(n, "note", &err);
}

/* ---- publishing ---- */

void store_publish(struct sim_node *n, uint64_t upto)
{
	struct raft_journal_publication p = { .salt = { n->slot, 7 }, .index = upto };
	struct wire_err err;
	struct wire_entry e;
	struct machine_op op;

	if (n->machine.index >= upto || n->failing)
		return;
	if (n->witness) {
		check_i9_publish(n, upto);
		n->machine.index = upto;
		return;
	}
	p.mx_frame = (uint32_t)upto;
	node_call(n);
	int rc = raft_journal_append_publication(n->journal, &p, &err);
	node_called(n);
	if (rc) {
		node_fail(n, "publication", &err);
		return;
	}
	while (n->machine.index < upto && !n->sim->failed) {
		uint64_t i = n->machine.index + 1;
		if (!store_entry(n, NULL, i, n->log[i].term, &e))
			return;
		bool has = e.kind == WIRE_ENTRY_DATA && machine_op_get(e.data, e.size, &op);
		machine_apply(&n->machine, e.term, has ? &op : NULL);
		check_published(n, i, &e);
		check_i4_same(n, i);
	}
	client_settle(n);
	client_serve(n);
}

/* As shell/workers.c: the state is durable first, then the mark says so, and then the node thread is asked to trim. */
static void checkpoint(struct sim_node *n)
{
	struct sim *s = n->sim;
	uint64_t keep = n->role == RAFT_LEADER && !node_keeps(n) ? raft_min_match(n->raft) : n->keep_above;
	struct raft_journal_mark m = { .index = n->machine.index, .checksum = n->machine.hash, .db_pages = 1 };
	struct wire_err err;

	if (n->witness && keep < m.index)
		m.index = keep;
	if (m.index < n->marked)
		return;
	if (!n->witness)
		n->checkpoint = n->machine;
	node_call(n);
	int rc = raft_journal_append_mark(n->journal, &m, &err);
	if (!rc)
		rc = raft_journal_sync(n->journal, &err);
	node_called(n);
	if (rc) {
		node_fail(n, "mark", &err);
		return;
	}
	n->trim_to = n->marked = m.index;
	/* A journal that has grown too long is trimmed, whoever may still need it. */
	bool past = rng_chance(&s->rng, s->p.trim_past) || m.index >= raft_journal_base(n->journal) + KEEP_MAX;
	if (!past || node_keeps(n))
		n->trim_to = keep < m.index ? keep : m.index;
}

/* The core forgets first: it must not ask for what the journal has forgotten. */
void store_trim(struct sim_node *n)
{
	struct raft_event ev = { .type = RAFT_EV_TRIMMED, .index = n->trim_to };
	struct wire_err err;

	n->trim_to = 0;
	if (ev.index <= raft_journal_base(n->journal) || ev.index > n->commit || !node_ask(n, ev, NULL, NULL) || n->failing)
		return;
	n->core_base = ev.index;
	node_call(n);
	int rc = raft_journal_trim(n->journal, ev.index, &err);
	node_called(n);
	if (rc)
		node_fail(n, "trim", &err);
	else
		check_witness_trimmed(n);
	holes_trim(n);
	n->sim->counts->trims++;
}

void store_upkeep(struct sim_node *n)
{
	struct sim *s = n->sim;
	struct wire_err err;
	int rc;

	sim_post(s, (struct sim_event){ .at_us = s->now_us + 100000 + rng_below(&s->rng, 400000), .type = EV_UPKEEP,
		                        .slot = (uint8_t)n->slot, .life = n->life });
	if (!node_awake(n))
		return;
	node_call(n);
	rc = raft_journal_upkeep(n->journal, &err);
	rc = rc == WIRE_FULL ? WIRE_OK : rc; /* what there is can be filled */
	if (!rc && rng_chance(&s->rng, 300))
		rc = raft_journal_append_commit(n->journal, n->commit, &err);
	node_called(n);
	if (rc)
		node_fail(n, "upkeep", &err);
	else if (!rc && (s->p.chaos_mask >> CHAOS_ROLL_BACK & 1) && !n->forgetful && !n->n_holes && rng_chance(&s->rng, 5))
		node_backup(n);
	else if (n->machine.index >= (n->witness ? n->marked : n->checkpoint.index) + s->p.trim_every && n->machine.index <= n->commit)
		checkpoint(n);
	node_drain(n);
	node_settled(n);
}

/* ---- starting and stopping ---- */

static void reset_driver(struct sim_node *n)
{
	for (size_t i = 0; i < n->n_inbox; i++)
		if (n->inbox[i].kind == REQ_MSG)
			free(n->inbox[i].msg);
	for (size_t i = 0; i < n->n_late; i++)
		free(n->late[i]);
	for (uint32_t i = 0; i < n->sim->p.cache_slots; i++)
		n->cache[i].e.index = 0;
	n->n_inbox = n->n_late = n->n_pending = n->n_readings = n->n_fills = 0;
	bundles_drop(n);
	n->prefer = 0;
	n->needs_image = false;
	n->must_sync = n->syncing = n->failing = n->apply_due = n->ready = false;
	n->role = RAFT_FOLLOWER;
	n->leader = n->transfer_to = n->commit = n->lease_until_us = n->commit_heard = n->keep_above = n->trim_to = 0;
	n->deadline_local_us = UINT64_MAX;
}

void node_stop(struct sim_node *n, enum node_end how)
{
	struct sim *s = n->sim;

	if (!n->up)
		return;
	sim_trace(s, "node %llu: stops (%llu: clean, kill, power)", n->id, how, 0, 0, 0, 0);
	check_refresh(n);
	n->up = false;
	n->life++;
	client_gone(n);
	raft_free(n->raft);
	n->raft = NULL;
	if (how != END_CLEAN)
		disk_crash_after(n->disk, 0);
	raft_journal_close(n->journal);
	n->journal = NULL;
	if (!disk_crashed(n->disk))
		check_refresh(n);
	disk_revive(n->disk, how == END_POWER);
	if (how != END_CLEAN)
		s->counts->crashes++;
	if (how == END_POWER)
		s->counts->power_losses++;
	n->n_written = 0;
	reset_driver(n);
}

static void again_later(struct sim_node *n)
{
	sim_post(n->sim, (struct sim_event){ .at_us = n->sim->now_us + 100000 + rng_below(&n->sim->rng, 2000000), .type = EV_START,
		                             .slot = (uint8_t)n->slot, .life = n->life });
}

/* Its journal is damaged, or lost its last batch for it: this node is no more. */
static void give_up(struct sim_node *n)
{
	sim_trace(n->sim, "node %llu: given up, its disk is damaged", n->id, 0, 0, 0, 0, 0);
	n->rotted = false;
	node_wipe(n);
}

/* Its disk, if it died, works again; another try. */
static void open_again(struct sim_node *n)
{
	if (disk_crashed(n->disk))
		disk_revive(n->disk, rng_chance(&n->sim->rng, 600));
	again_later(n);
}

static void open_failed(struct sim_node *n, int rc, const struct wire_err *err)
{
	struct sim *s = n->sim;
	bool crashed = disk_crashed(n->disk);

	sim_trace(s, "node %llu: does not start, code %llu", n->id, (uint64_t)rc, 0, 0, 0, 0);
	if (crashed) {
		s->counts->crashes++;
		s->counts->io_crashes++;
		bool power = rng_chance(&s->rng, 600);
		s->counts->power_losses += power;
		disk_revive(n->disk, power);
		again_later(n);
	} else if ((rc == WIRE_CORRUPT || (rc == WIRE_NOTFOUND && n->rotted_much)) && (n->rotted || n->salvaging)) {
		s->counts->rots_found += !n->salvaging;
		if (!n->salvaging && rng_chance(&s->rng, 400))
			give_up(n);
		else if (node_salvage(n, sim_leader(s)))
			again_later(n);
		else
			open_again(n);
	} else if (rc == WIRE_CORRUPT || rc == WIRE_NOTFOUND || s->quiet) {
		sim_fail(s, "I10 only what is synced counts", "%s cannot start: %s", node_name(n), err->text);
	} else {
		disk_revive(n->disk, rc == WIRE_IO);
		again_later(n);
	}
}

static bool start_core(struct sim_node *n, const struct raft_journal_state *st)
{
	struct sim *s = n->sim;
	struct wire_err err;

	node_call(n);
	n->raft = raft_new(&(struct raft_init){
		.self = n->id, .seed = rng_next(&s->rng), .now_us = node_local_us(n), .term = st->term, .vote = st->vote,
		.base_index = st->base_index, .base_term = st->base_term, .base_config = st->base_config, .entries = st->entries,
		.n_entries = st->n_entries, .configs = st->configs, .n_configs = st->n_configs, .commit = st->commit,
		.applied = st->base_index, .election_us = s->p.election_us, .heartbeat_us = s->p.heartbeat_us,
		.window_msgs = s->p.window_msgs, .window_bytes = s->p.window_bytes, .append_max_bytes = s->p.append_max_bytes,
		.uncommitted_bytes = s->p.uncommitted_bytes, .silence_max_us = s->p.silence_max_us, .persist_us = s->p.persist_us,
		.drift_ppm = s->p.bound_ppm, .ask_first = s->p.ask_first, .forgetful = n->forgetful, .level = n->level,
		.keep_log_bytes = s->p.keep_log_bytes, .catch_up_bytes = s->p.catch_up_bytes, .holes = n->holes, .n_holes = n->n_holes, .telemetry = true,
	}, &err);
	bool old = !n->raft && n->level < RAFT_LEVEL && err.code == WIRE_VERSION;
	/* The old disk, or what is left of it, is from when it was the only voter: it needs an image. */
	n->alone = !n->raft && n->forgetful && err.code == WIRE_INVALID;
	if (node_called(n) && !n->raft && !old && !n->alone)
		sim_fail(s, "core", "%s does not start: %s", node_name(n), err.text);
	if (!n->raft)
		node_fail(n, "start", &err);
	return n->raft != NULL;
}

static void take_configs(struct sim_node *n, const struct raft_journal_state *st)
{
	n->n_configs = 0;
	n->configs = sim_grow(n->configs, &n->cap_configs, 0, sizeof(*n->configs));
	n->configs[0].index = st->base_index;
	check_members(&st->base_config, &n->configs[n->n_configs++].m);
	for (size_t i = 0; i < st->n_configs; i++) {
		n->configs = sim_grow(n->configs, &n->cap_configs, n->n_configs, sizeof(*n->configs));
		n->configs[n->n_configs].index = st->configs[i].index;
		check_members(&st->configs[i].config, &n->configs[n->n_configs++].m);
	}
}

void node_start(struct sim_node *n)
{
	struct sim *s = n->sim;
	struct raft_journal_opts opts = store_options(s);
	struct raft_journal_state st;
	struct raft_event ev = { .type = RAFT_EV_TICK };
	struct wire_err err;
	int rc;

	if (n->up || !n->has_journal)
		return;
	n->life++;
	node_call(n);
	rc = raft_journal_open(disk_env(n->disk), STORE_DIRECTORY, &opts, &n->journal, &st, &err);
	bool memory = node_called(n);
	if (rc == WIRE_NOMEM && !memory) {
		again_later(n);
		return;
	}
	if (rc) {
		open_failed(n, rc, &err);
		return;
	}
	s->counts->starts++;
	n->up = true;
	holes_found(n, &st);
	if (!check_i10_recovered(n, &st)) {
		s->counts->rots_cut++;
		give_up(n);
		return;
	}
	if (n->rotted && !n->salvaging) {
		n->rotted = false;
		s->lost_id = n->n_holes ? n->id : 0;
	}
	n->core_base = st.base_index;
	n->marked = st.mark.index;
	/* The end may have been written, and kept though it was not synced. */
	bool may_differ = st.forgetful ? n->salvaging : !n->journal_forgetful;
	n->forgetful = n->journal_forgetful = st.forgetful;
	if (st.forgetful != n->dur_forgetful && !may_differ)
		sim_fail(s, "I9 forgetful nodes", "%s starts as %s, on its disk it is not so", node_name(n),
		         st.forgetful ? "one that has forgotten" : "if it had forgotten nothing");
	n->dur_forgetful = st.forgetful;
	if (n->salvaging)
		n->rotted = false;
	n->salvaging = false;
	n->term = n->hard_term = st.term;
	n->hard_vote = st.vote;
	n->last_index = n->log_last;
	n->n_written = 0;
	note_written(n);
	n->written[0].attests = 0; /* nothing was written */
	take_configs(n, &st);
	n->machine = n->witness ? (struct machine){ .index = st.base_index } : n->checkpoint;
	n->applied_told = st.base_index;
	sim_trace(s, "node %llu: starts in term %llu, log %llu to %llu, committed %llu, checkpoint %llu", n->id, st.term, st.base_index,
	          n->log_last, st.commit, n->checkpoint.index);
	if (s->failed || !start_core(n, &st)) {
		node_settled(n);
		if (n->alone && sim_leader(s) && !sim_leader(s)->witness)
			node_install(n, sim_leader(s), false);
		return;
	}
	sim_post(s, (struct sim_event){ .at_us = s->now_us + rng_below(&s->rng, 300000), .type = EV_UPKEEP, .slot = (uint8_t)n->slot,
		                        .life = n->life });
	node_ask(n, ev, NULL, NULL);
	node_drain(n);
	node_settled(n);
}
