/* The simulated driver of one node: what raft/README.md asks of a real one, with a disk that forgets. */
#include "test/unit/raft_sim_impl.h"
#include "wire/hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t term_at(const struct sim_log *l, uint64_t index)
{
	if (index == l->base)
		return l->base_term;
	return index > l->base && index <= l->last ? l->e[index].term : 0;
}

static void put(struct sim_log *l, uint64_t truncate_from, uint64_t first, const struct sim_entry *e, uint32_t n)
{
	if (truncate_from && truncate_from <= l->last)
		l->last = truncate_from - 1;
	for (uint32_t i = 0; i < n; i++)
		l->e[first + i] = e[i];
	if (n)
		l->last = first + n - 1;
}

/* Copies a message for the network, with the entries' data from the node's journal. */
static struct wire_msg copy_msg(struct sim *s, struct sim_node *n, const struct wire_msg *m)
{
	struct wire_msg c = *m;

	if (!m->n_entries)
		return c;
	c.entries = sim_alloc(s, m->n_entries * sizeof(*c.entries));
	for (uint32_t i = 0; i < m->n_entries; i++) {
		uint64_t index = m->index + 1 + i;
		if (m->entries[i].index != index || term_at(&n->log, index) != m->entries[i].term || index <= n->log.base)
			sim_fail(s, "node %u sends entry %u that its journal lacks", (unsigned)n->id, (unsigned)index);
		const struct sim_entry *e = &n->log.e[index];
		if (e->hole)
			sim_fail(s, "node %u sends entry %u, which it cannot read", (unsigned)n->id, (unsigned)index);
		c.entries[i] = (struct wire_entry){ .index = index, .term = e->term, .kind = e->kind, .size = e->size, .sum = e->sum, .data = e->data };
		if (e->kind != m->entries[i].kind || e->size != m->entries[i].size)
			sim_fail(s, "node %u: metadata of entry %u differ from the journal's", (unsigned)n->id, (unsigned)index);
	}
	return c;
}

/* Thesis 3.10. A stale leader may send one when the target has lost that part of its log to a later one already. */
static void check_told(struct sim *s, struct sim_node *n, const struct wire_msg *m)
{
	const struct sim_node *to = &s->n[m->to - 1];

	if (m->type == WIRE_MSG_VOTE_REQ && (m->flags & WIRE_MSG_TRANSFER) && m->term < LOG_MAX &&
	    !(s->told[m->term - 1] >> n->id & 1))
		sim_fail(s, "node %u says in term %u that the leader told it to stand", (unsigned)n->id, (unsigned)m->term);
	if (m->type != WIRE_MSG_TIMEOUT_NOW)
		return;
	if (n->role != RAFT_LEADER || n->now_term != m->term || m->index != n->log.last ||
	    m->log_term != term_at(&n->log, m->index))
		sim_fail(s, "node %u sends TIMEOUT_NOW of term %u at %u", (unsigned)n->id, (unsigned)m->term,
		         (unsigned)m->index);
	if (!to->forgetful && to->now_term <= m->term && to->disk.base <= m->index && term_at(&to->disk, m->index) != m->log_term)
		sim_fail(s, "node %u tells node %u to stand, which lacks %u", (unsigned)n->id, (unsigned)m->to,
		         (unsigned)m->index);
	if (m->term < LOG_MAX)
		s->told[m->term] |= UINT64_C(1) << m->to;
}

/* Nothing is proposed during a transfer, and it ends in time. */
static void check_transfer(struct sim *s, struct sim_node *n, const struct raft_event *ev, const struct raft_update *u)
{
	enum { PATIENCE_US = 10 * 300000 }; /* an election timeout, longer where the network is slow */
	bool fresh = u->transfer_to && ev->type == RAFT_EV_TRANSFER && u->proposal_code == WIRE_OK;

	if (u->transfer_to && (u->role != RAFT_LEADER || u->n_entries))
		sim_fail(s, "node %u appends, or is %s, during a transfer", (unsigned)n->id, raft_role_name(u->role));
	if (u->transfer_to && ev->type == RAFT_EV_PROPOSE && u->proposal_code != WIRE_BUSY)
		sim_fail(s, "node %u answers %d to a proposal during a transfer", (unsigned)n->id, u->proposal_code);
	if (u->role == RAFT_LEADER && !u->transfer_to && ev->type == RAFT_EV_PROPOSE && u->proposal_code != WIRE_OK &&
	    !(u->proposal_code == WIRE_BUSY && sim_is_witness(s, n->id)))
		sim_fail(s, "node %u answers %d to a proposal, no transfer under way", (unsigned)n->id, u->proposal_code);
	if (u->transfer_to && n->transfer_to && !fresh &&
	    (u->transfer_to != n->transfer_to || n->clock_top_us >= n->transfer_since_us + PATIENCE_US))
		sim_fail(s, "node %u: a transfer does not end", (unsigned)n->id);
	if (u->transfer_to && !n->transfer_to)
		n->transfer_since_us = n->clock_top_us; /* its own idea, or asked for */
	if (fresh && (!n->transfer_to || n->clock_top_us >= n->transfer_since_us + PATIENCE_US)) {
		n->transfer_since_us = n->clock_top_us;
		s->counts->transfers++;
	}
	n->transfer_to = u->transfer_to;
}

/* I9 */
static void check_msg(struct sim *s, struct sim_node *n, const struct wire_msg *m)
{
	bool term_matters = m->type != WIRE_MSG_READ_REQ && m->type != WIRE_MSG_READ_RESP && m->type != WIRE_MSG_PREVOTE_REQ &&
	                    m->type != WIRE_MSG_PREVOTE_RESP && m->type != WIRE_MSG_FETCH_RESP; /* which is only compared */

	if (term_matters && m->term > n->term)
		sim_fail(s, "I9: node %u sends %s of term %u, durable is %u", (unsigned)n->id, wire_msg_name(m->type), (unsigned)m->term, (unsigned)n->term);
	if (m->type == WIRE_MSG_APPEND_RESP && !(m->flags & WIRE_MSG_REJECT) && m->index > n->disk.last)
		sim_fail(s, "I9: node %u acknowledges %u, durable is %u", (unsigned)n->id, (unsigned)m->index, (unsigned)n->disk.last);
	if (m->type == WIRE_MSG_HEARTBEAT_RESP && m->index > n->disk.last)
		sim_fail(s, "I9: node %u claims %u, durable is %u", (unsigned)n->id, (unsigned)m->index, (unsigned)n->disk.last);
	check_told(s, n, m);
	s->counts->fetched += m->type == WIRE_MSG_FETCH_RESP ? m->n_entries : 0;
	uint64_t to = 0;
	if (m->type == WIRE_MSG_VOTE_RESP && !(m->flags & WIRE_MSG_REJECT))
		to = m->to;
	if (m->type == WIRE_MSG_VOTE_REQ)
		to = n->id;
	if (!to)
		return;
	if (m->term < n->vote_sent_term || (m->term == n->vote_sent_term && to != n->vote_sent_to))
		sim_fail(s, "node %u votes for %u in term %u after %u in term %u", (unsigned)n->id, (unsigned)to, (unsigned)m->term,
		         (unsigned)n->vote_sent_to, (unsigned)n->vote_sent_term);
	n->vote_sent_term = m->term;
	n->vote_sent_to = to;
}

static void publish(struct sim *s, struct sim_node *n, uint64_t commit)
{
	if (commit < n->commit)
		sim_fail(s, "node %u: commit index falls from %u to %u", (unsigned)n->id, (unsigned)n->commit, (unsigned)commit);
	if (commit > n->disk.last)
		sim_fail(s, "I9: node %u publishes %u, durable is %u", (unsigned)n->id, (unsigned)commit, (unsigned)n->disk.last);
	for (uint64_t i = n->commit + 1; i <= commit && !s->failed; i++) {
		struct sim_entry *mine = &n->disk.e[i], *all = &s->committed.e[i];
		if (mine->hole)
			sim_fail(s, "node %u publishes entry %u, which it cannot read", (unsigned)n->id, (unsigned)i);
		if (i <= s->committed.last) {
			if (mine->term != all->term || mine->sum != all->sum || mine->kind != all->kind)
				sim_fail(s, "I4: node %u publishes another entry %u: term %u, committed was term %u", (unsigned)n->id, (unsigned)i,
				         (unsigned)mine->term, (unsigned)all->term);
			continue;
		}
		*all = *mine;
		s->committed.last = i;
		s->counts->commits++;
		if (mine->kind != WIRE_ENTRY_CONFIG || s->n_configs == 256)
			continue;
		struct raft_log_config *c = &s->configs[s->n_configs++];
		c->index = i;
		if (raft_config_get(mine->data, mine->size, &c->config, NULL) != WIRE_OK)
			sim_fail(s, "configuration at %u cannot be read", (unsigned)i);
		s->counts->configs++;
	}
	n->commit = commit;
	sim_check_keep(s);
	sim_check_leases(s, NULL);
}

static void settle(struct sim *s, struct sim_node *n, const struct raft_update *u)
{
	for (uint32_t i = 0; i < u->n_reads; i++) {
		uint32_t k = 0;
		while (k < n->n_reads && n->reads[k].corr != u->reads[i].corr)
			k++;
		if (k == n->n_reads) {
			sim_fail(s, "node %u settles a read that nobody asked for", (unsigned)n->id);
			return;
		}
		struct sim_read q = n->reads[k];
		n->reads[k] = n->reads[--n->n_reads];
		if (u->reads[i].code != WIRE_OK) {
			s->counts->reads_failed++;
			continue;
		}
		s->counts->reads_ok++;
		if (u->reads[i].index < q.floor)
			sim_fail(s, "I7: node %u reads at %u, but %u had been published before", (unsigned)n->id,
			         (unsigned)u->reads[i].index, (unsigned)q.floor);
	}
}

static void check_leader(struct sim *s, struct sim_node *n, const struct raft_update *u)
{
	if (u->role != RAFT_LEADER || (n->role == RAFT_LEADER && n->now_term == u->term))
		return;
	s->counts->elections++;
	if (u->term < LOG_MAX) {
		if (s->leaders[u->term] && s->leaders[u->term] != n->id)
			sim_fail(s, "I1: nodes %u and %u lead term %u", (unsigned)s->leaders[u->term], (unsigned)n->id, (unsigned)u->term);
		s->leaders[u->term] = n->id;
		s->counts->handed_over += s->told[u->term - 1] >> n->id & 1;
	}
	sim_check_leases(s, n);
	for (uint64_t i = n->log.base + 1; i <= s->committed.last; i++)
		if (i > n->log.last || n->log.e[i].term != s->committed.e[i].term) {
			sim_fail(s, "I3: node %u leads term %u without committed entry %u", (unsigned)n->id, (unsigned)u->term, (unsigned)i);
			return;
		}
}

static void write_update(struct sim *s, struct sim_node *n, const struct raft_update *u)
{
	struct sim_write w = { .truncate_from = u->truncate_from, .term = u->term, .vote = u->vote, .n_entries = u->n_entries,
		               .must_sync = u->must_sync, .forgetful = u->forgetful, .commit = u->commit };

	if (u->n_entries) {
		w.first = u->entries[0].index;
		w.entries = sim_alloc(s, u->n_entries * sizeof(*w.entries));
	}
	for (uint32_t i = 0; i < u->n_entries; i++) {
		const struct wire_entry *e = &u->entries[i];
		uint8_t *data = e->size ? sim_alloc(s, e->size) : NULL;
		if (e->size && e->data)
			memcpy(data, e->data, e->size);
		if (e->index != w.first + i || (e->size && (!e->data || wire_hash(data, e->size, 0) != e->sum)))
			sim_fail(s, "node %u: entry %u of the update is not whole", (unsigned)n->id, (unsigned)e->index);
		w.entries[i] = (struct sim_entry){ .term = e->term, .sum = e->sum, .kind = e->kind, .size = e->size, .data = data };
	}
	if (u->n_entries && u->entries[u->n_entries - 1].index >= LOG_MAX) {
		sim_fail(s, "the simulator's log is full");
		return;
	}
	if (u->n_fills)
		w.fills = sim_alloc(s, u->n_fills * sizeof(*w.fills));
	for (uint32_t i = 0; i < u->n_fills; i++) {
		const struct wire_entry *e = &u->fills[i];
		struct sim_entry *h = &n->log.e[e->index];
		if (!h->hole || h->term != e->term || h->sum != e->sum || h->kind != e->kind || wire_hash(e->size ? (const void *)e->data : "", e->size, 0) != e->sum)
			sim_fail(s, "I2: node %u fills hole %u with something else", (unsigned)n->id, (unsigned)e->index);
		h->hole = false;
		w.fills[w.n_fills++] = e->index;
		s->counts->fills++;
	}
	put(&n->log, w.truncate_from, w.first, w.entries, w.n_entries);
	for (uint32_t i = 0; i < u->n_msgs; i++)
		if (!u->msgs[i].after_persist) {
			struct wire_msg m = copy_msg(s, n, &u->msgs[i]);
			check_msg(s, n, &m);
			sim_send(s, &m);
		}
	w.msgs = sim_alloc(s, (u->n_msgs + 1) * sizeof(*w.msgs));
	for (uint32_t i = 0; i < u->n_msgs; i++)
		if (u->msgs[i].after_persist)
			w.msgs[w.n_msgs++] = copy_msg(s, n, &u->msgs[i]);
	if (!w.must_sync && !w.n_msgs)
		return;
	if (n->w_n == WRITES_MAX) {
		sim_fail(s, "node %u writes without end", (unsigned)n->id);
		return;
	}
	uint64_t after = n->w_n ? n->writes[(n->w_head + n->w_n - 1) % WRITES_MAX].done_us : s->now_us;
	w.done_us = s->now_us + (w.must_sync && s->disk_us ? sim_random(s, s->disk_us) : 0);
	if (w.done_us < after)
		w.done_us = after;
	n->writes[(n->w_head + n->w_n++) % WRITES_MAX] = w;
	if (w.done_us > s->now_us)
		sim_post(s, (struct sim_event){ .at_us = w.done_us, .type = SIM_DISK, .node = n->id });
}

void sim_step(struct sim *s, struct sim_node *n, struct raft_event ev)
{
	struct raft_update u;
	struct wire_err err = { 0 };

	if (!n->raft || s->failed)
		return;
	ev.now_us = n->clock_seen_us = sim_clock(s, n);
	if (n->clock_top_us < ev.now_us)
		n->clock_top_us = ev.now_us;
	ev.clock = sim_lease_clock(s, n);
	s->counts->steps++;
	if (raft_step(n->raft, &ev, &u, &err) != WIRE_OK) {
		sim_fail(s, "node %u: %s", (unsigned)n->id, err.text);
		return;
	}
	if (u.deadline_us <= ev.now_us)
		sim_fail(s, "node %u wants to be stepped again at once, after event %d as %s", (unsigned)n->id, ev.type, raft_role_name(u.role));
	if (s->verbose && (u.role_changed || u.config_changed))
		printf("# %8llu node %u term %u %s leader %u last %u commit %u\n", (unsigned long long)s->now_us, (unsigned)n->id,
		       (unsigned)u.term, raft_role_name(u.role), (unsigned)u.leader, (unsigned)u.last_index, (unsigned)u.commit);
	n->read_index = u.read_index;
	n->lease_until_us = u.lease_until_us;
	write_update(s, n, &u);
	check_leader(s, n, &u);
	n->deadline_us = u.deadline_us;
	bool turned = (n->role == RAFT_LEADER) != (u.role == RAFT_LEADER);
	n->role = u.role;
	if (turned)
		sim_clock_rate(s, n);
	n->ready = u.leader_ready;
	n->keep_above = u.keep_above;
	n->leader = u.leader;
	n->now_term = u.term;
	settle(s, n, &u);
	check_transfer(s, n, &ev, &u);
	if (ev.type == RAFT_EV_PROPOSE && u.proposal_code == WIRE_OK && u.proposal_index != u.entries[0].index)
		sim_fail(s, "node %u: proposal got index %u", (unsigned)n->id, (unsigned)u.proposal_index);
	uint64_t commit = u.commit, last = u.last_index;
	if (last != n->log.last)
		sim_fail(s, "node %u: last index %u, journal %u", (unsigned)n->id, (unsigned)last, (unsigned)n->log.last);
	sim_disk(s, n);
	if (commit > n->commit)
		publish(s, n, commit);
	if (n->raft && n->commit > n->applied && sim_chance(s, 300)) {
		n->applied = n->commit;
		sim_step(s, n, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = n->applied });
	}
}

void sim_disk(struct sim *s, struct sim_node *n)
{
	while (n->w_n && !s->failed && n->writes[n->w_head].done_us <= s->now_us) {
		struct sim_write w = n->writes[n->w_head];
		n->w_head = (n->w_head + 1) % WRITES_MAX;
		n->w_n--;
		if (w.must_sync) {
			put(&n->disk, w.truncate_from, w.first, w.entries, w.n_entries);
			n->term = w.term;
			n->vote = w.vote;
			n->forgetful = w.forgetful;
			n->commit_mark = w.commit;
		}
		for (uint32_t i = 0; i < w.n_fills; i++)
			n->disk.e[w.fills[i]].hole = false;
		for (uint32_t i = 0; i < w.n_msgs; i++) {
			check_msg(s, n, &w.msgs[i]);
			sim_send(s, &w.msgs[i]);
		}
		if (w.n_entries)
			sim_step(s, n, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = w.first + w.n_entries - 1,
				                            .term = w.entries[w.n_entries - 1].term });
		for (uint32_t i = 0; i < w.n_fills; i++)
			if (w.fills[i] <= n->disk.last)
				sim_step(s, n, (struct raft_event){ .type = RAFT_EV_FILLED, .index = w.fills[i], .term = n->disk.e[w.fills[i]].term });
	}
}

const struct raft_config *sim_config_at(struct sim *s, uint64_t index)
{
	uint32_t k = s->n_configs;

	while (k > 1 && s->configs[k - 1].index > index)
		k--;
	return &s->configs[k - 1].config;
}

void sim_start(struct sim *s, struct sim_node *n)
{
	static struct wire_entry entries[LOG_MAX];
	static struct raft_log_config configs[LOG_MAX / 16];
	static uint64_t holes[LOG_MAX];
	size_t n_entries = 0, n_configs = 0, n_holes = 0;
	struct wire_err err = { 0 };

	for (uint64_t i = n->disk.base + 1; i <= n->disk.last; i++) {
		const struct sim_entry *e = &n->disk.e[i];
		if (e->hole)
			holes[n_holes++] = i;
		entries[n_entries++] = (struct wire_entry){ .index = i, .term = e->term, .kind = e->kind, .size = e->size };
		if (e->kind != WIRE_ENTRY_CONFIG)
			continue;
		configs[n_configs].index = i;
		if (raft_config_get(e->data, e->size, &configs[n_configs++].config, NULL) != WIRE_OK)
			sim_fail(s, "configuration on disk cannot be read");
	}
	n->log = n->disk;
	n->commit = n->commit_mark > n->disk.base ? n->commit_mark : n->disk.base;
	n->applied = n->commit;
	n->w_n = n->n_reads = 0;
	n->transfer_to = 0;
	n->clock_top_us = 0;
	n->role = RAFT_FOLLOWER;
	n->asleep = n->ready = false;
	n->raft = raft_new(&(struct raft_init){
		.self = n->id, .seed = sim_random(s, UINT64_MAX), .now_us = sim_clock(s, n), .drift_ppm = s->told_ppm, .term = n->term, .vote = n->vote,
		.base_index = n->disk.base, .base_term = n->disk.base_term, .base_config = n->base_config, .entries = entries,
		.forgetful = n->forgetful, .n_entries = n_entries, .configs = configs, .n_configs = n_configs, .commit = n->commit, .applied = n->applied,
		.window_msgs = s->seed % 3 ? 0 : 3, .window_bytes = s->seed % 4 ? 0 : 256, .catch_up_bytes = s->seed % 2 ? 0 : 200 + (uint32_t)(s->seed % 1000),
		.holes = holes, .n_holes = n_holes, .append_max_bytes = s->seed % 5 ? 0 : 64,
	}, &err);
	if (!n->raft) {
		sim_fail(s, "node %u does not start: %s", (unsigned)n->id, err.text);
		return;
	}
	sim_step(s, n, (struct raft_event){ .type = RAFT_EV_TICK });
}

void sim_crash(struct sim *s, struct sim_node *n)
{
	raft_free(n->raft);
	n->raft = NULL;
	n->w_n = n->n_reads = 0;
	n->deadline_us = UINT64_MAX;
	n->lease_until_us = 0;
	if (sim_chance(s, 300)) /* the whole machine */
		sim_clock_start(s, n);
	s->counts->crashes++;
}

/* Any entry is whole on at least one disk. */
static bool elsewhere(struct sim *s, const struct sim_node *n, uint64_t index)
{
	for (uint32_t i = 0; i < NODES; i++) {
		const struct sim_log *l = &s->n[i].disk;
		if (s->n[i].id != n->id && index <= l->last && l->e[index].term == n->disk.e[index].term && !l->e[index].hole)
			return true;
	}
	return false;
}

void sim_damage(struct sim *s, struct sim_node *n)
{
	for (uint64_t i = n->disk.base + 1; i <= n->disk.last && i <= s->committed.last; i++)
		if (sim_chance(s, 100) && n->disk.e[i].kind == WIRE_ENTRY_DATA && elsewhere(s, n, i))
			n->disk.e[i].hole = true;
}

/* One at a time, and never one of two: there is no quorum without it (raft/forgetful.c). */
bool sim_may_lose(struct sim *s)
{
	for (uint32_t i = 0; i < NODES; i++) {
		struct sim_node *n = &s->n[i];
		uint32_t voters = 0, old = 0;
		if (!n->raft || n->forgetful)
			return false;
		const struct raft_config *c = raft_config_current(n->raft);
		for (uint32_t k = 0; k < c->n; k++) {
			voters += (c->m[k].flags & RAFT_VOTER) != 0;
			old += (c->m[k].flags & RAFT_VOTER_OLD) != 0;
		}
		if (c->n && (voters < 3 || (c->joint && old < 3)))
			return false;
		for (uint64_t id = 1; id <= NODES; id++)
			if (!sim_shape_spares(c, id))
				return false;
	}
	return true;
}

void sim_lose(struct sim *s, struct sim_node *n)
{
	sim_crash(s, n);
	n->term = n->vote = n->commit_mark = 0;
	n->disk.base = n->disk.base_term = n->disk.last = 0;
	n->base_config.n = 0;
	n->forgetful = true;
	n->vote_sent_term = n->vote_sent_to = 0;
	s->counts->losses++;
}

static void trim_log(struct sim_log *l, uint64_t index)
{
	l->base_term = term_at(l, index);
	l->base = index;
}

void sim_trim(struct sim *s, struct sim_node *n, uint64_t index)
{
	/* Also once it has data: an older configuration may count still. */
	if ((s->witnesses >> n->id & 1) && index > n->keep_above)
		index = n->keep_above;
	if (!n->raft || index <= n->log.base || index > n->applied || index > n->disk.last || n->w_n)
		return;
	n->base_config = *sim_config_at(s, index);
	trim_log(&n->log, index);
	trim_log(&n->disk, index);
	if (n->commit_mark < index)
		n->commit_mark = index;
	sim_step(s, n, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = index });
}

/* A log that is longer may be another one: what never gets committed, of a term that is over. */
bool sim_needs_image(struct sim *s, struct sim_node *n)
{
	return term_at(&n->disk, s->committed.last) != s->committed.e[s->committed.last].term;
}

void sim_image(struct sim *s, struct sim_node *n, uint64_t keep_above)
{
	uint64_t index = sim_is_witness(s, n->id) ? keep_above : s->committed.last, term = s->committed.e[index].term;

	if (n->raft || !sim_needs_image(s, n) || index > s->committed.last || index < n->disk.base || term_at(&n->disk, index) == term)
		return;
	n->disk.base = n->disk.last = n->commit_mark = index;
	n->disk.base_term = term;
	n->base_config = *sim_config_at(s, index);
	if (n->term < term) {
		n->term = term;
		n->vote = 0;
	}
	s->counts->images++;
}

/* I2: two logs with the same term at an index are the same up to there. */
void sim_check_matching(struct sim *s)
{
	for (uint32_t a = 0; a < NODES; a++) {
		for (uint32_t b = a + 1; b < NODES; b++) {
			const struct sim_log *x = &s->n[a].log, *y = &s->n[b].log;
			uint64_t low = (x->base > y->base ? x->base : y->base) + 1;
			uint64_t high = x->last < y->last ? x->last : y->last;
			while (high >= low && x->e[high].term != y->e[high].term)
				high--;
			for (uint64_t i = low; i <= high; i++)
				if (x->e[i].term != y->e[i].term || x->e[i].sum != y->e[i].sum) {
					sim_fail(s, "I2: logs of nodes %u and %u agree at %u, not at %u", a + 1, b + 1, (unsigned)high, (unsigned)i);
					return;
				}
		}
	}
}
