/* The world: events in order of time, the parameters of a run, its end, and the trace of what happened. */
#include "test/sim/check.h"
#include "test/sim/memory.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *sim_grow(void *array, size_t *cap, size_t n, size_t elem)
{
	if (n < *cap)
		return array;
	while (n >= *cap)
		*cap = *cap ? *cap * 2 : 16;
	return memory_sure(array, *cap * elem);
}

void sim_trace(struct sim *s, const char *fmt, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	s->trace[s->n_trace++ % TRACE_MAX] = (struct sim_trace){ .fmt = fmt, .at_us = s->now_us, .a = { a, b, c, d, e, f } };
	s->digest = rng_mix(s->digest, rng_mix(s->now_us, rng_mix(a, rng_mix(b, rng_mix(c, rng_mix(d, rng_mix(e, f)))))));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void print_trace(const struct sim_trace *t)
{
	typedef unsigned long long ull;

	printf("# %12llu us  ", (ull)t->at_us);
	printf(t->fmt, (ull)t->a[0], (ull)t->a[1], (ull)t->a[2], (ull)t->a[3], (ull)t->a[4], (ull)t->a[5]);
	printf("\n");
}
#pragma GCC diagnostic pop

void sim_report(const struct sim *s, size_t tail)
{
	uint64_t n = s->n_trace < tail ? s->n_trace : tail;

	n = n < TRACE_MAX ? n : TRACE_MAX;
	for (uint64_t i = s->n_trace - n; i < s->n_trace; i++)
		print_trace(&s->trace[i % TRACE_MAX]);
	if (s->failed)
		printf("# seed %llu, at %llu us: %s: %s\n", (unsigned long long)s->seed, (unsigned long long)s->now_us, s->property, s->error);
}

void sim_fail(struct sim *s, const char *property, const char *fmt, ...)
{
	va_list ap;

	if (s->failed || (s->without && !strncmp(property, s->without, strlen(s->without))))
		return;
	s->failed = true;
	snprintf(s->property, sizeof(s->property), "%s", property);
	va_start(ap, fmt);
	vsnprintf(s->error, sizeof(s->error), fmt, ap);
	va_end(ap);
}

void sim_counts_add(struct sim_counts *a, const struct sim_counts *b)
{
	uint64_t *x = (uint64_t *)a;
	const uint64_t *y = (const uint64_t *)b;

	_Static_assert(sizeof(*a) % sizeof(uint64_t) == 0, "counts are all alike");
	for (size_t i = 0; i < sizeof(*a) / sizeof(uint64_t); i++)
		x[i] += y[i];
}

/* ---- events ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us < b->at_us || (a->at_us == b->at_us && a->seq < b->seq);
}

void sim_post(struct sim *s, struct sim_event ev)
{
	s->heap = sim_grow(s->heap, &s->cap_heap, s->n_heap, sizeof(*s->heap));
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

static void handle(struct sim *s, const struct sim_event *ev)
{
	struct sim_node *n = ev->slot < SLOTS ? &s->n[ev->slot] : NULL;
	bool now = n && n->life == ev->life;

	switch ((enum sim_event_type)ev->type) {
	case EV_MSG:
		net_arrive(s, ev->msg);
		break;
	case EV_SYNCED:
		if (now && n->up)
			node_synced(n);
		break;
	case EV_START:
		if (now && !n->up)
			node_start(n);
		break;
	case EV_UPKEEP:
		if (now && n->up)
			store_upkeep(n);
		break;
	case EV_APPLY:
		if (now && n->up)
			node_apply(n);
		break;
	case EV_CUTOFF:
		if (!s->quiet)
			net_cut_off(s, n->slot);
		break;
	case EV_WAKE:
		if (now && n->up)
			node_drain(n);
		break;
	case EV_CLIENT:
		client_event(s, ev->slot);
		break;
	case EV_ADMIN:
		admin_event(s);
		break;
	case EV_CHAOS:
		chaos_event(s);
		break;
	}
}

void sim_until(struct sim *s, uint64_t at_us)
{
	while (!s->failed) {
		uint64_t at = s->n_heap ? s->heap[0].at_us : UINT64_MAX;
		struct sim_node *due = NULL;
		for (uint32_t i = 0; i < SLOTS; i++) {
			uint64_t d = node_due_us(&s->n[i]);
			if (d < at) {
				at = d;
				due = &s->n[i];
			}
		}
		if (at > at_us) {
			s->now_us = at_us;
			return;
		}
		if (at > s->now_us)
			s->now_us = at;
		if (due) {
			node_tick(due);
		} else {
			struct sim_event ev = take(s);
			handle(s, &ev);
		}
	}
}

/* ---- a run ---- */

static uint32_t pick(struct sim *s, uint32_t n, const uint32_t *of)
{
	return of[rng_below(&s->rng, n)];
}
#define PICK(s, ...) pick(s, sizeof((uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t), (const uint32_t[]){ __VA_ARGS__ })

static void draw_params(struct sim *s)
{
	struct sim_params *p = &s->p;

	p->voters = PICK(s, 1, 2, 3, 3, 3, 3, 4, 5, 5);
	p->level = rng_chance(&s->rng, 850) ? 2 : 1;
	p->witnesses = p->level >= 2 && p->voters >= 2 && rng_chance(&s->rng, 350) ? 1 + rng_below32(&s->rng, p->voters / 2) : 0;
	p->priorities = rng_chance(&s->rng, 400);
	p->bundles = rng_chance(&s->rng, 300);
	p->ask_first = rng_chance(&s->rng, 500);
	p->old_programs = rng_chance(&s->rng, 300) ? 300 : 0;
	if (p->old_programs)
		p->level = 1;
	p->shaped = p->level >= 2 && rng_chance(&s->rng, 400);
	p->keep_log_bytes = PICK(s, 0, 0, 4096, 20000);
	p->catch_up_bytes = PICK(s, 0, 300, 2000, UINT32_MAX);
	p->clients = 1 + rng_below32(&s->rng, CLIENTS);
	p->election_us = PICK(s, 300000, 600000, 1200000, 2400000);
	p->heartbeat_us = p->election_us / PICK(s, 3, 6, 6, 6);
	p->window_msgs = PICK(s, 0, 0, 3);
	p->window_bytes = PICK(s, 0, 0, 0, 512);
	p->append_max_bytes = PICK(s, 0, 0, 0, 128);
	p->cache_slots = PICK(s, 0, 4, 64, 256);
	p->delay_us = PICK(s, 50, 500, 5000, 20000);
	p->jitter_us = PICK(s, 1, 500, 10000, p->election_us / 8);
	p->slow_us = PICK(s, 0, 0, p->election_us, 4 * p->election_us);
	p->loss = PICK(s, 0, 0, 5, 50, 150);
	p->repeat = PICK(s, 0, 0, 10, 100);
	p->fifo = rng_chance(&s->rng, 500);
	p->bytes_per_ms = PICK(s, 0, 0, 0, 50, 1000);
	/* An append that takes longer than all timeouts to send says nothing about anything else. */
	if (p->bytes_per_ms == 50)
		p->append_max_bytes = 2048;
	p->sync_us = PICK(s, 0, 200, 2000, 10000, 40000);
	p->stall_us = PICK(s, 0, 0, p->election_us * 4);
	p->overlap = rng_chance(&s->rng, 500);
	p->apply_us = PICK(s, 0, 0, 2000, 200000);
	p->segment_bytes = PICK(s, 4096, 8192, 16384, 65536);
	p->first_bytes = PICK(s, 2048, 4096);
	p->think_us = PICK(s, 20000, 100000, 200000, 400000);
	p->entry_bytes = PICK(s, 40, 60, 200, 800);
	p->trim_every = PICK(s, 10, 50, 200);
	p->trim_past = PICK(s, 0, 20, 300);
	p->drift_ppm = PICK(s, 0, 500, 20000, 110000);
	p->jumps = rng_chance(&s->rng, 200);
	p->bound_ppm = p->jumps || rng_chance(&s->rng, 200) ? RAFT_NO_LEASES : p->drift_ppm ? p->drift_ppm : 1;
	p->lease_reads = rng_chance(&s->rng, 700);
	p->interval_clocks = PICK(s, 0, 0, 500, 1000);
	if (p->entry_bytes == 800 && p->segment_bytes < 16384)
		p->segment_bytes = 16384;
	p->chaos_us = PICK(s, 300000, 1000000, 2000000, 4000000);
	p->chaos_mask = (uint32_t)rng_next(&s->rng) | (uint32_t)rng_next(&s->rng) | 1u << CHAOS_HEAL;
}

/* By a source of their own, so that older seeds stay what they were. */
static void draw_limits(struct sim *s)
{
	struct rng own = { .state = rng_mix(s->seed, 0x11a175) };
	struct sim_params *p = &s->p;

	if (rng_chance(&own, 250))
		p->uncommitted_bytes = 1500;
	if (rng_chance(&own, 400))
		p->silence_max_us = rng_chance(&own, 500) ? p->election_us : 3 * p->election_us;
	if (rng_chance(&own, 500))
		p->persist_us = rng_chance(&own, 500) ? p->election_us / 3 : 4 * p->election_us;
}

static void set_up(struct sim *s)
{
	struct raft_config first = { .level = RAFT_LEVEL };

	draw_params(s);
	draw_limits(s);
	for (uint32_t i = 0; i < s->p.voters; i++)
		first.m[first.n++] = (struct raft_member){ .id = i + 1, .flags = RAFT_VOTER, .priority = admin_draw_priority(s) };
	for (uint32_t i = 0; i < s->p.witnesses && s->p.level >= 2; i++)
		first.m[s->p.voters - 1 - i].flags |= RAFT_WITNESS;
	first.level = s->p.level;
	if (s->p.shaped)
		admin_draw_quorums(s, &first);
	check_new(s, &first);
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct sim_node *n = &s->n[i];
		n->sim = s;
		n->slot = i;
		n->id = i + 1;
		n->level = rng_chance(&s->rng, s->p.old_programs) ? 1 : RAFT_LEVEL;
		n->clock_local_us = 1000000 + rng_below(&s->rng, 1000000);
		n->clock_ppm = (int64_t)rng_below(&s->rng, 2 * (uint64_t)s->p.drift_ppm + 1) - s->p.drift_ppm;
		if (rng_chance(&s->rng, s->p.interval_clocks))
			node_draw_interval(n);
		n->deadline_local_us = UINT64_MAX;
		n->disk = disk_new(&s->rng, &s->counts->disk);
		if (s->p.cache_slots && !(n->cache = calloc(s->p.cache_slots, sizeof(*n->cache))))
			abort();
		n->log = sim_grow(NULL, &n->cap_log, 0, sizeof(*n->log));
		if (i < s->p.voters)
			node_create(n, &first);
	}
	for (uint32_t i = 0; i < s->p.voters; i++)
		node_start(&s->n[i]);
	if (s->verbose)
		sim_trace(s, "%llu voters, %llu of them witnesses (log of %llu bytes); quorums: %llu commit, %llu elect (0: majority); level %llu", s->p.voters,
		          s->p.witnesses, s->p.keep_log_bytes, first.quorums.commit, first.quorums.elect, s->p.level);
	client_begin(s);
	admin_event(s);
	chaos_event(s);
}

static void free_node(struct sim_node *n)
{
	if (n->up) {
		raft_free(n->raft);
		disk_crash_after(n->disk, 0);
		raft_journal_close(n->journal);
	}
	for (size_t i = 0; i < n->n_inbox; i++)
		if (n->inbox[i].kind == REQ_MSG)
			free(n->inbox[i].msg);
	for (size_t i = 0; i < n->n_late; i++)
		free(n->late[i]);
	for (uint32_t i = 0; n->cache && i < n->sim->p.cache_slots; i++)
		free(n->cache[i].data);
	disk_free(n->disk);
	disk_free(n->backup);
	free(n->late);
	free(n->inbox);
	free(n->cache);
	free(n->pending);
	free(n->readings);
	free(n->log);
	free(n->written);
	free(n->configs);
	bundles_drop(n);
	free(n->holes);
	free(n->fills);
	wire_buf_free(&n->scratch);
}

void sim_free(struct sim *s)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		free_node(&s->n[i]);
	for (size_t i = 0; i < s->n_heap; i++)
		free(s->heap[i].msg);
	free(s->heap);
	check_free(s);
	free(s);
}

/* Faults for a while, then none until all is well again, and so on. */
bool sim_run(uint64_t seed, uint64_t time_us, bool verbose, const char *without, struct sim_counts *counts, struct sim **ret_sim)
{
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	*ret_sim = s;
	s->seed = seed;
	sim_running(s);
	s->verbose = verbose;
	s->without = without;
	s->counts = counts;
	s->rng.state = seed * 0x9e3779b97f4a7c15u + 1;
	set_up(s);
	while (!s->failed && s->now_us < time_us) {
		struct sim_params p = s->p;
		uint64_t end = s->now_us + 10000000 + rng_below(&s->rng, 60000000);
		sim_until(s, end < time_us ? end : time_us);
		if (s->failed)
			break;
		sim_trace(s, "faults stop", 0, 0, 0, 0, 0, 0);
		chaos_end(s);
		check_live(s);
		s->quiet = false;
		s->p = p;
		counts->episodes++;
	}
	check_linear(s);
	counts->runs++;
	counts->sim_us += s->now_us;
	return !s->failed;
}
