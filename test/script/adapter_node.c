/* A node: core, clock, disk, state machine. The disk is a struct store; a write is an item in a queue until it ends, and
 * what waits for it goes out then, in the order of raft/README.md. */
#include "test/script/adapter.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

struct world world;

void *grow(void *array, size_t *cap, size_t n, size_t elem)
{
	if (n < *cap)
		return array;
	*cap = *cap ? *cap * 2 : 8;
	void *p = realloc(array, *cap * elem);
	if (!p) {
		fprintf(stderr, "raft-adapter: out of memory\n");
		exit(1);
	}
	return p;
}

void entries_add(struct entries *l, const struct wire_entry *e)
{
	size_t cap = 0;

	l->e = grow(l->e, &l->cap, l->n, sizeof(*l->e));
	struct wire_entry *to = &l->e[l->n++];
	*to = *e;
	to->data = NULL;
	if (!e->size)
		return;
	uint8_t *data = grow(NULL, &cap, 0, e->size);
	memcpy(data, e->data, e->size);
	to->data = data;
}

static void drop_data(struct wire_entry *e)
{
	free((void *)(uintptr_t)e->data);
}

void entries_cut(struct entries *l, uint64_t from)
{
	while (l->n && l->e[l->n - 1].index >= from)
		drop_data(&l->e[--l->n]);
}

static void entries_trim(struct entries *l, uint64_t upto)
{
	size_t k = 0;

	while (k < l->n && l->e[k].index <= upto)
		drop_data(&l->e[k++]);
	if (k)
		memmove(l->e, l->e + k, (l->n - k) * sizeof(*l->e));
	l->n -= k;
}

void entries_copy(struct entries *to, const struct entries *from, uint64_t upto)
{
	for (size_t i = 0; i < from->n && from->e[i].index <= upto; i++)
		entries_add(to, &from->e[i]);
}

void entries_free(struct entries *l)
{
	entries_cut(l, 0);
	free(l->e);
	*l = (struct entries){ 0 };
}

void image_free(struct image *i)
{
	if (i)
		entries_free(&i->applied);
	free(i);
}

static void write_free(struct write *w)
{
	entries_free(&w->entries);
	image_free(w->image);
	for (size_t i = 0; i < w->n_after; i++)
		packet_free(&w->after[i]);
	free(w->after);
}

struct node *node_find(uint64_t id)
{
	for (size_t i = 0; i < world.n_nodes; i++)
		if (world.nodes[i]->id == id)
			return world.nodes[i];
	return NULL;
}

struct node *node_new(uint64_t id, const struct store *disk, const struct options *o)
{
	size_t cap = 0;
	struct node *n = memset(grow(NULL, &cap, 0, sizeof(*n)), 0, sizeof(*n));

	n->id = id;
	n->now_us = ELECTION_US;
	n->disk = *disk;
	n->options = *o;
	n->applied_index = disk->base_index;
	return n;
}

static void store_copy(struct store *to, const struct store *from)
{
	entries_free(&to->log);
	*to = *from;
	to->log = (struct entries){ 0 };
	entries_copy(&to->log, &from->log, UINT64_MAX);
}

bool node_start(struct node *n)
{
	struct raft_init in = { 0 };
	struct raft_log_config *configs = NULL;
	size_t cap = 0;
	struct wire_err err = { 0 };
	const struct store *d = &n->disk;

	for (size_t i = 0; i < d->log.n; i++) {
		const struct wire_entry *e = &d->log.e[i];
		if (e->kind != WIRE_ENTRY_CONFIG)
			continue;
		configs = grow(configs, &cap, in.n_configs, sizeof(*configs));
		configs[in.n_configs].index = e->index;
		if (raft_config_get(e->data, e->size, &configs[in.n_configs++].config, &err) != WIRE_OK)
			break;
	}
	in.self = n->id;
	in.seed = ++n->lives * 1000 + n->id;
	in.now_us = n->now_us;
	in.term = d->term;
	in.vote = d->vote;
	in.base_index = d->base_index;
	in.base_term = d->base_term;
	in.base_config = d->base_config;
	in.entries = d->log.e;
	in.n_entries = d->log.n;
	in.configs = configs;
	in.commit = in.applied = n->applied_index;
	in.election_us = ELECTION_US;
	in.heartbeat_us = HEARTBEAT_US;
	in.silence_max_us = ELECTION_US; /* a tick is a heartbeat, and ten are a timeout, whatever goes on */
	in.silence_max_us = ELECTION_US; /* ten ticks are an election timeout, however long messages wait */
	in.window_msgs = n->options.window_msgs;
	in.append_max_bytes = n->options.append_bytes;
	in.commit_delay_us = 1;
	in.drift_ppm = n->options.lease ? 0 : RAFT_NO_LEASES;
	in.forgetful = n->forgetful;
	in.catch_up_bytes = n->options.catch_up_bytes ? n->options.catch_up_bytes : UINT32_MAX;
	in.no_prevote = n->options.no_prevote;
	in.no_check_quorum = n->options.no_check_quorum;
	/* Without leases nobody counts on it, and a driver does not want to wait before it can be asked for its vote. */
	in.promised_nothing = !n->options.lease;
	in.leave_silently = true; /* elections are begun by commands */
	if (!err.code)
		n->raft = raft_new(&in, &err);
	free(configs);
	if (!n->raft) {
		snprintf(world.broken, sizeof(world.broken), "%s", err.text);
		return false;
	}
	store_copy(&n->mem, d);
	n->u = (struct raft_update){
		.term = in.term, .vote = in.vote, .commit = in.commit, .last_index = d->base_index + d->log.n, .deadline_us = UINT64_MAX
	};
	return true;
}

static void drop_writes(struct node *n)
{
	for (size_t i = 0; i < n->n_writes; i++)
		write_free(&n->writes[i]);
	n->n_writes = 0;
}

void node_stop(struct node *n)
{
	raft_free(n->raft);
	n->raft = NULL;
	drop_writes(n);
	n->hold = n->fail_next = false;
	while (n->n_reads) {
		n->n_reads--;
		show_read_refused(n, "node stopped");
	}
	store_copy(&n->mem, &n->disk);
	n->u = (struct raft_update){ .term = n->disk.term, .vote = n->disk.vote, .commit = n->applied_index };
}

void node_free(struct node *n)
{
	node_stop(n);
	entries_free(&n->mem.log);
	entries_free(&n->disk.log);
	entries_free(&n->applied);
	free(n->writes);
	free(n->reads);
	free(n);
}

const struct wire_entry *node_entry(const struct node *n, uint64_t index)
{
	const struct store *s = &n->mem;

	return index > s->base_index && index - s->base_index <= s->log.n ? &s->log.e[index - s->base_index - 1] : NULL;
}

void node_config_at(const struct node *n, uint64_t index, struct raft_config *ret_config)
{
	*ret_config = n->mem.base_config;
	for (size_t i = 0; i < n->mem.log.n && n->mem.log.e[i].index <= index; i++)
		if (n->mem.log.e[i].kind == WIRE_ENTRY_CONFIG)
			raft_config_get(n->mem.log.e[i].data, n->mem.log.e[i].size, ret_config, NULL);
}

static void broke(struct node *n, const char *why)
{
	world.failed = true;
	if (!world.broken[0])
		snprintf(world.broken, sizeof(world.broken), "node %llu stopped: %s", (unsigned long long)n->id, why);
	node_stop(n);
}

static struct write *add_write(struct node *n)
{
	n->writes = grow(n->writes, &n->cap_writes, n->n_writes, sizeof(*n->writes));
	struct write *w = &n->writes[n->n_writes++];
	*w = (struct write){ 0 };
	return w;
}

size_t node_writes(const struct node *n)
{
	size_t real = 0;

	for (size_t i = 0; i < n->n_writes; i++)
		real += n->writes[i].real;
	return real;
}

/* A message waits for all writes that were queued before it. */
static void send_all(struct node *n, const struct raft_update *u)
{
	struct write *w = u->must_sync ? &n->writes[n->n_writes - 1] : NULL;

	for (uint32_t i = 0; i < u->n_msgs; i++) {
		struct packet p;
		if (u->msgs[i].type == WIRE_MSG_CATCH_UP && !u->msgs[i].hint)
			continue; /* that an image is needed; it comes unasked */
		packet_make(&p, n, &u->msgs[i]);
		if (!u->msgs[i].after_persist || (!w && !n->n_writes)) {
			net_send(&p);
			continue;
		}
		if (!w)
			w = add_write(n);
		w->after = grow(w->after, &w->cap_after, w->n_after, sizeof(*w->after));
		w->after[w->n_after++] = p;
	}
}

static void take_reads(struct node *n, const struct raft_update *u)
{
	for (uint32_t i = 0; i < u->n_reads; i++) {
		size_t k = 0;
		while (k < n->n_reads && n->reads[k].corr != u->reads[i].corr)
			k++;
		if (k == n->n_reads)
			continue;
		if (u->reads[i].code == WIRE_OK) {
			n->reads[k].granted = true;
			n->reads[k].index = u->reads[i].index;
			continue;
		}
		memmove(n->reads + k, n->reads + k + 1, (--n->n_reads - k) * sizeof(*n->reads));
		show_read_refused(n, u->reads[i].code == WIRE_TIMEOUT ? "timeout" : "not leader");
	}
}

/* One step, without what follows from it. */
static void step(struct node *n, struct raft_event ev)
{
	struct raft_update u;
	struct wire_err err = { 0 };

	world.begun = true;
	ev.now_us = n->now_us;
	/* Round trips are what the driver makes them: without a clock for leases they are not measured, and nothing adapts to them. */
	ev.clock.unsure = !n->options.lease;
	if (raft_step(n->raft, &ev, &u, &err) != WIRE_OK) {
		broke(n, err.text);
		return;
	}
	if (u.truncate_from)
		entries_cut(&n->mem.log, u.truncate_from);
	for (uint32_t i = 0; i < u.n_entries; i++)
		entries_add(&n->mem.log, &u.entries[i]);
	n->mem.term = u.term;
	n->mem.vote = u.vote;
	if (u.must_sync) {
		struct write *w = add_write(n);
		*w = (struct write){ .real = true, .hard = u.hard_state_changed, .term = u.term, .vote = u.vote, .truncate_from = u.truncate_from };
		for (uint32_t i = 0; i < u.n_entries; i++)
			entries_add(&w->entries, &u.entries[i]);
	}
	if (u.refusal)
		snprintf(world.refusal, sizeof(world.refusal), "%s", u.refusal);
	send_all(n, &u);
	n->u = u;
	take_reads(n, &u);
	n->u.msgs = NULL;
	n->u.entries = n->u.fills = NULL;
	n->u.reads = NULL;
	n->u.told = NULL;
	n->u.refusal = NULL;
	n->forgetful = u.forgetful;
}

/* What the log has of it is kept, as raft_on_image does. */
static void install(struct node *n, struct image *i, uint64_t from)
{
	const struct raft_event ev = { .type = RAFT_EV_IMAGE, .index = i->index, .term = i->term, .config = &i->config };

	if (n->u.role == RAFT_LEADER) /* since it was sent */
		return;
	if (i->index > n->u.commit && raft_term_of(n->raft, i->index) == i->term)
		step(n, ev);
	if (n->raft && i->index > n->u.commit && raft_term_of(n->raft, i->index) != i->term) {
		struct store *both[] = { &n->disk, &n->mem };
		for (size_t k = 0; k < 2; k++) {
			entries_free(&both[k]->log);
			both[k]->base_index = i->index;
			both[k]->base_term = i->term;
			both[k]->base_config = i->config;
		}
		entries_free(&n->applied);
		entries_copy(&n->applied, &i->applied, UINT64_MAX);
		n->applied_index = i->index;
		/* The journal begins anew with the term and vote of now; what was to be written to the old one, and told then, is not. */
		n->disk.term = n->mem.term;
		n->disk.vote = n->mem.vote;
		drop_writes(n);
		step(n, ev);
	}
	if (n->raft)
		net_image_done(n, from);
}

/* The oldest write ends. */
static void complete(struct node *n)
{
	struct write w = n->writes[0];
	struct store *d = &n->disk;

	memmove(n->writes, n->writes + 1, --n->n_writes * sizeof(*n->writes));
	if (w.real && n->fail_next) {
		write_free(&w);
		node_stop(n);
		return;
	}
	if (w.truncate_from)
		entries_cut(&d->log, w.truncate_from);
	for (size_t i = 0; i < w.entries.n; i++)
		entries_add(&d->log, &w.entries.e[i]);
	if (w.hard) {
		d->term = w.term;
		d->vote = w.vote;
	}
	for (size_t i = 0; i < w.n_after; i++)
		net_send(&w.after[i]);
	w.n_after = 0;
	if (w.image)
		install(n, w.image, w.image_from);
	if (w.entries.n && n->raft) {
		const struct wire_entry *last = &w.entries.e[w.entries.n - 1];
		step(n, (struct raft_event){ .type = RAFT_EV_PERSISTED, .index = last->index, .term = last->term });
	}
	write_free(&w);
}

static void apply(struct node *n)
{
	while (n->applied_index < n->u.commit) {
		const struct wire_entry *e = node_entry(n, ++n->applied_index);
		if (e && e->kind == WIRE_ENTRY_DATA)
			entries_add(&n->applied, e);
	}
	step(n, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = n->applied_index });
}

static void serve_reads(struct node *n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n->n_reads; i++) {
		struct pending_read q = n->reads[i];
		if (q.granted && q.index <= n->applied_index)
			show_read(n, q.index);
		else
			n->reads[kept++] = q;
	}
	n->n_reads = kept;
}

/* What follows from a step: the disk, unless it holds, the state machine, and what the core wants to do at once. */
static void pump(struct node *n)
{
	struct raft_config target;
	bool tried = false;

	for (uint32_t turns = 0; n->raft; turns++) {
		if (turns == 100000)
			broke(n, "it never rests");
		else if (n->n_writes && (!n->hold || !n->writes[0].real || n->fail_next))
			complete(n);
		else if (n->applied_index < n->u.commit)
			apply(n);
		else if (!tried && plan_target(n, &target)) {
			tried = true;
			step(n, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &target });
			if (n->u.proposal_code == WIRE_OK)
				world.plan.n = 0;
		} else if (n->u.deadline_us <= n->now_us + 1) {
			n->now_us++;
			step(n, (struct raft_event){ .type = RAFT_EV_TICK });
		} else
			break;
	}
	if (!n->raft)
		return;
	serve_reads(n);
	net_offer_images(n);
}

void node_step(struct node *n, struct raft_event ev, int *ret_code, uint64_t *ret_index)
{
	step(n, ev);
	if (ret_code)
		*ret_code = n->u.proposal_code;
	if (ret_index)
		*ret_index = n->u.proposal_index;
	pump(n);
}

void node_tick(struct node *n, uint64_t us)
{
	n->now_us += us;
	node_step(n, (struct raft_event){ .type = RAFT_EV_TICK }, NULL, NULL);
}

/* Its clock goes on by more than the longest timeout, so that every timer of an election has ended, also of a member that gives
 * others the precedence. */
void node_timeout(struct node *n)
{
	if (n->u.role != RAFT_LEADER)
		node_tick(n, 10 * ELECTION_US);
}

void node_release(struct node *n, size_t count)
{
	while (n->raft && count && n->n_writes) {
		count -= n->writes[0].real;
		complete(n);
	}
	if (n->raft)
		pump(n);
}

void node_read(struct node *n)
{
	n->reads = grow(n->reads, &n->cap_reads, n->n_reads, sizeof(*n->reads));
	n->reads[n->n_reads++] = (struct pending_read){ .corr = ++world.corr };
	node_step(n, (struct raft_event){ .type = RAFT_EV_READ, .corr = world.corr }, NULL, NULL);
}

void node_write_image(struct node *n, struct image *i, uint64_t from)
{
	struct write *w = add_write(n);

	w->real = true;
	w->image = i;
	w->image_from = from;
	pump(n);
}

void node_compact(struct node *n, uint64_t index)
{
	struct store *both[] = { &n->disk, &n->mem };
	struct raft_config config;
	uint64_t term = node_entry(n, index)->term;

	node_config_at(n, index, &config);
	for (size_t k = 0; k < 2; k++) {
		both[k]->base_index = index;
		both[k]->base_term = term;
		both[k]->base_config = config;
		entries_trim(&both[k]->log, index);
	}
	node_step(n, (struct raft_event){ .type = RAFT_EV_TRIMMED, .index = index }, NULL, NULL);
}
