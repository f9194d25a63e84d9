/* The simulator's events: time, network, faults and clients. */
#include "test/unit/raft_sim_impl.h"
#include "wire/hash.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char error[512];

const char *raft_sim_error(void)
{
	return error;
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->failed)
		return;
	s->failed = true;
	int n = snprintf(error, sizeof(error), "seed %llu at %llu us: ", (unsigned long long)s->seed, (unsigned long long)s->now_us);
	va_start(ap, fmt);
	vsnprintf(error + n, sizeof(error) - (size_t)n, fmt, ap);
	va_end(ap);
}

uint64_t sim_random(struct sim *s, uint64_t below)
{
	s->rng ^= s->rng << 13;
	s->rng ^= s->rng >> 7;
	s->rng ^= s->rng << 17;
	return (s->rng * 0x2545f4914f6cdd1du >> 11) % below;
}

bool sim_chance(struct sim *s, uint32_t per_mille)
{
	return sim_random(s, 1000) < per_mille;
}

/* Freed at the end of the run. */
struct block { struct block *next; size_t used, size; };

void *sim_alloc(struct sim *s, size_t n)
{
	struct block *b = s->arena;

	n = (n + 15) & ~(size_t)15;
	if (!b || b->used + n > b->size) {
		size_t size = n > (1u << 20) ? n : 1u << 20;
		b = malloc(sizeof(*b) + 16 + size);
		if (!b)
			abort();
		*b = (struct block){ .next = s->arena, .size = size };
		s->arena = b;
	}
	void *p = (uint8_t *)b + ((sizeof(*b) + 15) & ~(size_t)15) + b->used;
	b->used += n;
	return p;
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us < b->at_us || (a->at_us == b->at_us && a->seq < b->seq);
}

void sim_post(struct sim *s, struct sim_event ev)
{
	if (s->n_heap == s->cap_heap) {
		s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 256;
		s->heap = realloc(s->heap, s->cap_heap * sizeof(*s->heap));
		if (!s->heap)
			abort();
	}
	ev.seq = ++s->seq;
	size_t i = s->n_heap++;
	for (; i && before(&ev, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = ev;
}

static struct sim_event take(struct sim *s)
{
	struct sim_event top = s->heap[0], last = s->heap[--s->n_heap];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < s->n_heap) {
		if (k + 1 < s->n_heap && before(&s->heap[k + 1], &s->heap[k]))
			k++;
		if (!before(&s->heap[k], &last))
			break;
		s->heap[i] = s->heap[k];
		i = k;
	}
	s->heap[i] = last;
	return top;
}

void sim_send(struct sim *s, const struct wire_msg *m)
{
	if (!m->to || m->to > NODES || s->cut[m->from - 1][m->to - 1] || sim_chance(s, s->loss))
		return;
	for (int copies = sim_chance(s, s->repeat) ? 2 : 1; copies; copies--) {
		struct wire_msg *c = sim_alloc(s, sizeof(*c));
		*c = *m;
		uint64_t delay = 50 + sim_random(s, s->delay_us) + (sim_chance(s, 20) ? sim_random(s, s->slow_us) : 0);
		sim_post(s, (struct sim_event){ .at_us = s->now_us + delay, .type = SIM_MSG, .node = m->to, .msg = c });
	}
}

static void propose(struct sim *s, struct sim_node *n)
{
	uint64_t data[8][8];
	struct wire_entry e[8];
	uint32_t count = 1 + (uint32_t)sim_random(s, sim_chance(s, 100) ? 8 : 2);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t size = 8 + (uint32_t)sim_random(s, 57);
		memset(data[i], 0, sizeof(data[i]));
		data[i][0] = ++s->value; /* no two are the same */
		e[i] = (struct wire_entry){ .kind = WIRE_ENTRY_DATA, .size = size, .sum = wire_hash(data[i], size, 0), .data = (uint8_t *)data[i] };
	}
	sim_step(s, n, (struct raft_event){ .type = RAFT_EV_PROPOSE, .entries = e, .n_entries = count });
}

static void read_one(struct sim *s, struct sim_node *n)
{
	if (n->n_reads == READS_MAX)
		return;
	uint64_t floor = s->committed.last, corr = ++s->value;
	n->reads[n->n_reads++] = (struct sim_read){ .corr = corr, .floor = floor, .at_us = s->now_us };
	sim_step(s, n, (struct raft_event){ .type = RAFT_EV_READ, .corr = corr });
}

static void change_config(struct sim *s, struct sim_node *n)
{
	struct raft_config c = { 0 };
	bool voter = false;
	uint64_t alone = sim_chance(s, 200) ? 1 + sim_random(s, NODES) : 0;

	for (uint32_t i = 0; i < NODES; i++) {
		uint64_t dice = alone ? (i + 1 == alone ? 0 : 7 + sim_random(s, 3)) : sim_random(s, 10);
		if (dice >= 8)
			continue;
		c.m[c.n].id = i + 1;
		c.m[c.n++].flags = dice < 6 ? RAFT_VOTER : RAFT_LEARNER;
		voter |= dice < 6;
	}
	if (s->with_shapes && n->raft)
		sim_shape(s, raft_config_current(n->raft), &c);
	if (voter)
		sim_step(s, n, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &c });
}

/* The driver's part for forgetful nodes: no voters as long as they are; the others are promoted again. */
static bool readmit(struct sim *s, struct sim_node *n)
{
	struct raft_config c = *raft_config_current(n->raft);
	struct raft_progress p;
	bool anybody = false, change = false;

	for (uint32_t i = 0; i < c.n; i++) {
		bool forgot = raft_progress_of(n->raft, c.m[i].id, &p) && p.forgot;
		anybody |= s->n[c.m[i].id - 1].forgetful;
		if (forgot && (c.m[i].flags & RAFT_VOTER)) {
			c.m[i].flags = RAFT_LEARNER | RAFT_RISING | (c.m[i].flags & RAFT_WITNESS);
			c.quorums = (struct raft_quorums){ 0 }; /* with one voter less they may not fit */
			change = true;
		} else if (!forgot && (c.m[i].flags & RAFT_RISING) && p.last_contact_us) {
			c.m[i].flags = RAFT_VOTER | (c.m[i].flags & RAFT_WITNESS);
			change = true;
		}
	}
	if (change && !c.joint)
		sim_step(s, n, (struct raft_event){ .type = RAFT_EV_CONFIG, .config = &c });
	return anybody;
}

static void hand_over(struct sim *s, struct sim_node *n)
{
	uint64_t peer = sim_chance(s, 500) ? 0 : 1 + sim_random(s, NODES);

	sim_step(s, n, (struct raft_event){ .type = RAFT_EV_TRANSFER, .peer = peer });
}

static bool lossy(struct sim *s)
{
	for (uint32_t i = 0; i < NODES; i++)
		if (s->n[i].forgetful)
			return true;
	return false;
}

static void client(struct sim *s)
{
	struct sim_node *n = &s->n[sim_random(s, NODES)];

	/* Mostly whoever thinks that it leads, also when two do. */
	for (int tries = 0; tries < NODES && n->role != RAFT_LEADER && !sim_chance(s, 100); tries++)
		n = &s->n[n->id % NODES];
	if (n->raft && !n->asleep && !s->resting && s->committed.last < LOG_MAX / 2) {
		/* Once there are no more faults clients wait for their commits: proposals that outrun a lossy network with a tiny
		 * window for ever would keep each new leader from committing anything (paper 5.4.2). */
		uint64_t limit = s->quiet ? n->commit + 32 : LOG_MAX - 64;
		if (sim_chance(s, 500) && n->log.last < limit)
			propose(s, n);
		else if (s->with_losses && n->role == RAFT_LEADER && sim_chance(s, 200) && readmit(s, n))
			; /* nobody else may go meanwhile */
		else if (s->with_configs && !s->quiet && !lossy(s) && sim_chance(s, 30))
			change_config(s, n);
		if (s->with_transfers && !s->quiet && sim_chance(s, 60))
			hand_over(s, n);
	}
	n = &s->n[sim_random(s, NODES)];
	if (n->raft && !n->asleep)
		read_one(s, n);
	sim_read_by_lease(s);
	sim_post(s, (struct sim_event){ .at_us = s->now_us + 500 + sim_random(s, 20000), .type = SIM_CLIENT });
}

static void cut(struct sim *s)
{
	uint32_t a = (uint32_t)sim_random(s, NODES), spared = sim_chance(s, 500) ? 300 : 0;
	bool one_way = sim_chance(s, 300), told = sim_chance(s, 500), leader = sim_chance(s, 500);

	for (uint32_t i = 0; i < NODES; i++)
		if (leader && s->n[i].ready)
			a = i;
	for (uint32_t b = 0; b < NODES; b++) {
		if (a == b || sim_chance(s, spared))
			continue;
		s->cut[a][b] = true;
		if (!one_way)
			s->cut[b][a] = true;
		if (!told)
			continue;
		sim_step(s, &s->n[a], (struct raft_event){ .type = RAFT_EV_UNREACHABLE, .peer = b + 1 });
		sim_step(s, &s->n[b], (struct raft_event){ .type = RAFT_EV_UNREACHABLE, .peer = a + 1 });
	}
}

static void heal(struct sim *s)
{
	memset(s->cut, 0, sizeof(s->cut));
	for (uint32_t a = 0; a < NODES; a++)
		for (uint32_t b = 0; b < NODES; b++)
			if (a != b && !s->n[a].asleep && sim_chance(s, 300))
				sim_step(s, &s->n[a], (struct raft_event){ .type = RAFT_EV_REACHABLE, .peer = b + 1 });
}

static void start(struct sim *s, struct sim_node *n)
{
	if (!n->raft)
		sim_start(s, n);
}

static void wake(struct sim *s, struct sim_node *n)
{
	n->asleep = false;
	sim_step(s, n, (struct raft_event){ .type = RAFT_EV_TICK });
}

/* A peer whose missing entries are trimmed gets an image by other means. */
static void bring_images(struct sim *s)
{
	for (uint32_t a = 0; a < NODES; a++) {
		struct raft_progress p;
		for (uint32_t b = 0; b < NODES; b++) {
			struct sim_node *n = &s->n[b];
			if (!s->n[a].raft || !raft_progress_of(s->n[a].raft, b + 1, &p) || p.state != RAFT_SNAPSHOT || !sim_needs_image(s, n))
				continue;
			if (n->raft)
				sim_crash(s, n);
			sim_image(s, n, n->keep_above > s->n[a].keep_above ? n->keep_above : s->n[a].keep_above);
			start(s, n);
		}
	}
}

static struct sim_node *some_node(struct sim *s)
{
	const struct raft_config *c = sim_config_at(s, s->committed.last);

	return &s->n[sim_chance(s, 700) ? c->m[sim_random(s, c->n)].id - 1 : sim_random(s, NODES)];
}

static void fault(struct sim *s)
{
	struct sim_node *n = some_node(s);

	sim_post(s, (struct sim_event){ .at_us = s->now_us + 1000 + sim_random(s, 150000), .type = SIM_FAULT });
	bring_images(s);
	if (s->quiet)
		return;
	if (sim_chance(s, 200))
		sim_clock_rate(s, n);
	if (s->with_losses && sim_chance(s, 150) && sim_may_lose(s))
		sim_lose(s, n);
	switch (sim_random(s, 11)) {
	case 0:
	case 1:
		if (s->with_crashes && n->raft)
			sim_crash(s, n);
		if (s->with_holes && !n->raft && sim_chance(s, 300))
			sim_damage(s, n);
		if (sim_chance(s, 300)) /* at once again: those who counted on it may still do */
			start(s, n);
		break;
	case 2:
	case 3:
		for (uint32_t i = 0; i < NODES; i++)
			if (sim_chance(s, 700))
				start(s, &s->n[i]);
		break;
	case 4:
	case 10:
		if (s->with_cuts)
			cut(s);
		break;
	case 5:
		heal(s);
		break;
	case 6:
		if (s->with_crashes && sim_chance(s, 150))
			for (uint32_t i = 0; i < NODES; i++)
				if (s->n[i].raft)
					sim_crash(s, &s->n[i]);
		break;
	case 7:
		if (s->with_trim && n->raft && n->applied > n->log.base)
			sim_trim(s, n, n->log.base + 1 + sim_random(s, n->applied - n->log.base));
		break;
	case 8:
		if (n->asleep)
			wake(s, n);
		else
			n->asleep = sim_chance(s, 300);
		break;
	case 9:
		if (s->with_jumps && n->raft && !n->asleep)
			sim_clock_jump(s, n);
		break;
	}
}

static void handle(struct sim *s, struct sim_event ev)
{
	struct sim_node *n = ev.node ? &s->n[ev.node - 1] : NULL;

	switch (ev.type) {
	case SIM_MSG:
		if (n->asleep) {
			ev.at_us = s->now_us + 20000;
			sim_post(s, ev);
		} else if (!s->cut[ev.msg->from - 1][ev.msg->to - 1]) {
			sim_step(s, n, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = ev.msg });
		}
		break;
	case SIM_DISK:
		if (n->asleep) {
			ev.at_us = s->now_us + 20000;
			sim_post(s, ev);
		} else if (n->raft) {
			sim_disk(s, n);
		}
		break;
	case SIM_FAULT:
		fault(s);
		break;
	case SIM_CLIENT:
		client(s);
		break;
	}
}

/* To the next event or deadline, whichever is first. */
static void advance(struct sim *s)
{
	uint64_t at = s->heap[0].at_us;
	struct sim_node *wake = NULL;

	for (uint32_t i = 0; i < NODES; i++) {
		struct sim_node *n = &s->n[i];
		uint64_t due = n->raft && !n->asleep ? sim_clock_when(s, n, n->deadline_us) : UINT64_MAX;
		if (due < at) {
			at = due;
			wake = n;
		}
	}
	if (at > s->now_us)
		s->now_us = at;
	if (wake)
		sim_step(s, wake, (struct raft_event){ .type = RAFT_EV_TICK });
	else
		handle(s, take(s));
}

static void run_until(struct sim *s, uint64_t at_us)
{
	uint32_t k = 0;

	while (!s->failed && s->now_us < at_us) {
		advance(s);
		if (++k % 64 == 0)
			sim_check_matching(s);
		for (uint32_t i = 0; i < NODES && k % 16 == 0; i++)
			for (uint32_t q = 0; q < s->n[i].n_reads; q++)
				/* A clock that goes back makes its node wait. */
				if (!s->n[i].asleep && s->n[i].raft && s->n[i].reads[q].at_us + (s->with_jumps ? 12000000 : 5000000) < s->now_us)
					sim_fail(s, "node %u does not settle a read", i + 1);
	}
}

/* Whether the group works again: a leader, and all members have what is committed. */
static bool settled(struct sim *s, uint64_t floor)
{
	for (uint32_t i = 0; i < NODES; i++) {
		struct sim_node *n = &s->n[i];
		if (n->role != RAFT_LEADER || !n->ready || n->commit <= floor || raft_config_current(n->raft)->joint)
			continue;
		bool all = true;
		const struct raft_config *c = raft_config_current(n->raft);
		for (uint32_t k = 0; k < c->n; k++)
			all &= s->n[c->m[k].id - 1].commit > floor && !s->n[c->m[k].id - 1].forgetful;
		if (all)
			return true;
	}
	return false;
}

static void recover(struct sim *s)
{
	s->quiet = true;
	if (sim_chance(s, 500))
		s->loss = 0;
	else if (s->loss > 250)
		s->loss = 250;
	for (uint32_t i = 0; i < NODES; i++) {
		wake(s, &s->n[i]);
		start(s, &s->n[i]);
	}
	heal(s);
	uint64_t floor = s->committed.last, end = s->now_us + 60000000;
	for (uint32_t i = 0; i < NODES; i++)
		if (s->n[i].log.last > floor)
			floor = s->n[i].log.last;
	while (!s->failed && !settled(s, floor)) {
		run_until(s, s->now_us + 50000);
		if (s->now_us > end)
			sim_fail(s, "no progress after healing: committed %u, wanted more than %u", (unsigned)s->committed.last, (unsigned)floor);
	}
}

/* With nothing in the way but late messages, and what gets lost, a leader has a lease before long. */
static void check_lease(struct sim *s)
{
	uint64_t end = s->now_us + 60000000, before = s->counts->lease_reads;

	while (!s->failed && s->told_ppm != RAFT_NO_LEASES && s->counts->lease_reads == before) {
		run_until(s, s->now_us + 10000);
		sim_read_by_lease(s);
		if (s->now_us > end)
			sim_fail(s, "no leader gets a lease after healing");
	}
}

/* With nothing in the way but late messages, a leader gets rid of its office. Clients rest: with a tiny window on a slow
 * network nobody might ever be near enough to the log's end to get level within an election timeout; a thousand entries, one
 * to an append, take two minutes. */
static void check_handover(struct sim *s)
{
	uint64_t before = s->counts->handed_over, end = s->now_us + 300000000;

	s->resting = true;
	s->loss = 0;
	while (!s->failed && s->counts->handed_over == before) {
		for (uint32_t i = 0; i < NODES; i++) {
			struct sim_node *n = &s->n[i];
			if (n->role != RAFT_LEADER || !n->ready)
				continue;
			const struct raft_config *c = raft_config_current(n->raft);
			uint32_t voters = 0;
			for (uint32_t k = 0; k < c->n; k++)
				voters += (c->m[k].flags & RAFT_VOTER) && !(c->m[k].flags & RAFT_WITNESS);
			if (voters == 1 && raft_config_committed(n->raft))
				return;
			sim_step(s, n, (struct raft_event){ .type = RAFT_EV_TRANSFER });
		}
		run_until(s, s->now_us + 100000);
		if (s->now_us > end)
			sim_fail(s, "no transfer succeeds after healing");
	}
}

static void set_up_clocks(struct sim *s, uint32_t bad_clocks)
{
	static const uint32_t bounds[] = { 200, 20000, RAFT_DRIFT_PPM };

	s->drift_ppm = bad_clocks > 1 ? 100000 : bounds[sim_random(s, 3)];
	s->told_ppm = sim_chance(s, 150) ? RAFT_NO_LEASES : s->drift_ppm == RAFT_DRIFT_PPM ? 0 : s->drift_ppm;
	s->drift_ppm *= bad_clocks;
	s->all_absolute = bad_clocks == 1 && sim_chance(s, 200);
	s->clock_error_us = 1 + (uint32_t)sim_random(s, sim_chance(s, 500) ? 1000 : 30000);
	s->with_jumps = sim_chance(s, 300);
	s->worst_rates = sim_chance(s, 500);
	/* With true time at hand no rate matters, as long as it is not twice the right one. */
	if (s->all_absolute)
		s->drift_ppm = 400000;
	if (s->all_absolute && sim_chance(s, 500))
		s->told_ppm = 1;
	for (uint32_t i = 0; i < NODES; i++) {
		sim_clock_start(s, &s->n[i]);
		s->n[i].absolute = s->all_absolute || (bad_clocks == 1 && sim_chance(s, 200));
	}
}

static void set_up(struct sim *s, uint32_t bad_clocks)
{
	uint32_t voters = 1 + (uint32_t)sim_random(s, 5);
	struct raft_config first = { .level = RAFT_LEVEL };

	s->loss = sim_chance(s, 400) ? 0 : (uint32_t)sim_random(s, 300);
	s->repeat = sim_chance(s, 500) ? 0 : (uint32_t)sim_random(s, 200);
	s->delay_us = sim_chance(s, 500) ? 500 : 1 + (uint32_t)sim_random(s, 40000);
	s->slow_us = sim_chance(s, 500) ? 1 : 1 + (uint32_t)sim_random(s, 2000000);
	s->disk_us = sim_chance(s, 300) ? 0 : 1 + (uint32_t)sim_random(s, 50000);
	s->with_configs = sim_chance(s, 500);
	s->with_trim = sim_chance(s, 400);
	s->with_crashes = sim_chance(s, 700);
	s->with_cuts = sim_chance(s, 700);
	s->with_transfers = sim_chance(s, 600);
	s->with_losses = sim_chance(s, 300);
	/* Where nobody trims, leaves or loses a whole disk what one cannot read is somewhere. */
	s->with_holes = s->with_crashes && !s->with_configs && !s->with_trim && !s->with_losses && voters > 1 && sim_chance(s, 300);
	for (uint32_t i = 0; i < voters; i++)
		first.m[first.n++] = (struct raft_member){ .id = i + 1, .flags = RAFT_VOTER };
	sim_shape_draw(s, &first);
	s->configs[s->n_configs++] = (struct raft_log_config){ .config = first };
	set_up_clocks(s, bad_clocks);
	for (uint32_t i = 0; i < NODES; i++) {
		struct sim_node *n = &s->n[i];
		n->id = i + 1;
		if (i < voters)
			n->base_config = first;
	}
	for (uint32_t i = 0; i < NODES; i++)
		sim_start(s, &s->n[i]);
	sim_post(s, (struct sim_event){ .at_us = 1000, .type = SIM_FAULT });
	sim_post(s, (struct sim_event){ .at_us = 1000, .type = SIM_CLIENT });
}

bool raft_sim_run(uint64_t seed, bool verbose, uint32_t bad_clocks, struct raft_sim_counts *counts)
{
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	s->seed = seed;
	s->verbose = verbose;
	s->counts = counts;
	s->rng = (seed + 1) * 0x9e3779b97f4a7c15u | 1;
	for (int i = 0; i < 8; i++)
		sim_random(s, 2);
	set_up(s, bad_clocks);
	run_until(s, 1000000 + sim_random(s, 4000000));
	recover(s);
	check_lease(s);
	if (s->with_transfers)
		check_handover(s);
	sim_check_matching(s);
	for (uint32_t i = 0; i < NODES; i++)
		raft_free(s->n[i].raft);
	while (s->arena) {
		struct block *b = s->arena;
		s->arena = b->next;
		free(b);
	}
	bool ok = !s->failed;
	free(s->heap);
	free(s);
	return ok;
}
