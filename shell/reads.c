/* The read gate: when may a read of a level begin (README.md, "Levels of reads", has what each promises, and why it holds). On the reader's thread. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <string.h>

/* After a read by the lease, or one that found none, the node keeps its lease alive for so long where it leads: else each read after a pause would fail. */
#define LEASE_WANTED_US 60000000u
/* A background question to the leader is not repeated sooner. */
#define REFRESH_US 10000u
/* The node thread comes to a request within far less, unless its disk hangs. */
#define STUCK_US 200000u
/* The leader tells more often while there is news. */
#define TOLD_US 1000000u

/* --- waiting for the publication --- */

static int lagging(struct shell_node *n, uint64_t index, struct wire_err *err) /* mu held */
{
	uint64_t published = n->store->applied(n);
	char hint[NODE_HINT_BYTES];

	node_lag_hint(n, hint);
	return wire_fail(err, WIRE_TIMEOUT, "this node lags: it lacks %llu of the entries that the read has to see (it has published %llu of %llu)%s",
	                 (unsigned long long)(index > published ? index - published : 0), (unsigned long long)published, (unsigned long long)index, hint);
}

/* WIRE_TIMEOUT: err is not filled. */
static int until_published(struct shell_node *n, uint64_t index, uint64_t deadline_us, struct wire_err *err) /* mu held */
{
	while (vfs_db_published(n->db) < index) {
		if (n->stop || n->failed)
			return node_closed(n, err);
		if (!node_wait(n, &n->published_cond, deadline_us))
			return vfs_db_published(n->db) < index ? WIRE_TIMEOUT : WIRE_OK;
	}
	return WIRE_OK;
}

static int wait_published(struct shell_node *n, uint64_t index, uint64_t deadline_us, struct wire_err *err)
{
	int rc;

	if (vfs_db_published(n->db) >= index)
		return WIRE_OK;
	pthread_mutex_lock(&n->mu);
	rc = until_published(n, index, deadline_us, err);
	if (rc == WIRE_TIMEOUT)
		rc = lagging(n, index, err);
	pthread_mutex_unlock(&n->mu);
	return rc;
}

/* What others know to be committed is known here, too. mu held. */
static bool is_told(const struct shell_node *n)
{
	return n->shared.leader && node_now_us(n) < n->shared.lag.at_us + TOLD_US;
}

int node_wait_published(void *node, uint64_t index, uint32_t timeout_ms, struct wire_err *err)
{
	struct shell_node *n = node;
	uint64_t known;
	char hint[NODE_HINT_BYTES];
	int rc;

	if (vfs_db_published(n->db) >= index)
		return WIRE_OK;
	pthread_mutex_lock(&n->mu);
	rc = until_published(n, index, node_now_us(n) + (uint64_t)timeout_ms * 1000, err);
	if (rc == WIRE_TIMEOUT) {
		known = node_known_commit(n);
		node_lag_hint(n, hint);
		if (index > known)
			rc = wire_fail(err, rc, "position %016llx did not come about within %u ms: the latest that this node knows to be committed is %016llx, and it has published %016llx%s. "
			                        "Is it a position of this database, and of a commit that was acknowledged?",
			               (unsigned long long)index, timeout_ms, (unsigned long long)known, (unsigned long long)vfs_db_published(n->db), is_told(n) ? "" : hint);
		else
			rc = wire_fail(err, rc, "position %016llx was not published here within %u ms: this node lags by %llu entries%s", (unsigned long long)index, timeout_ms,
			               (unsigned long long)(index - vfs_db_published(n->db)), hint);
	}
	pthread_mutex_unlock(&n->mu);
	return rc;
}

/* --- asking for a read index --- */

/* A reading of the leases' clock that is no later than the present; 0: it cannot tell. */
static uint64_t now_at_least_us(struct shell_node *n)
{
	struct wire_clock_reading now;

	n->clock.now(n->clock.ctx, &now);
	return now.status == WIRE_CLOCK_OK ? now.earliest_us : 0;
}

static const char *member_url(const struct shell_node *n, uint64_t id) /* mu held */
{
	const struct raft_member *m = id ? raft_config_find(&n->shared.config, id) : NULL;

	return m && *m->url ? m->url : "without an address";
}

/* The node thread has not come to it for long: it writes the journal itself, and so waits with it. mu held. */
static bool is_stuck(const struct shell_node *n, const struct request *r)
{
	const struct request *q = n->requests;

	while (q && q != r)
		q = q->next;
	return r && q && node_now_us(n) > r->posted_us + STUCK_US;
}

/* Why no read can be confirmed here, and where it could be. r: one that was not answered in time; NULL: it was. mu held. */
static int unconfirmed(struct shell_node *n, const struct request *r, struct wire_err *err)
{
	const struct node_shared *s = &n->shared;
	char hint[NODE_HINT_BYTES];

	node_lag_hint(n, hint);
	if (s->removed)
		return wire_fail(err, WIRE_NOTLEADER, "this node was removed from its cluster, and what it has gets no newer: use another member, or walraft detach %s%s", n->paths.db, hint);
	if (is_stuck(n, r))
		return wire_fail(err, WIRE_TIMEOUT, "this node is held up: the disk of %s does not go on%s", n->paths.dir, hint);
	if (s->role == RAFT_LEADER)
		return wire_fail(err, WIRE_TIMEOUT, "this node leads, but a majority of the voters does not answer it: it is cut off, or they are down%s", hint);
	if (!s->leader)
		return wire_fail(err, WIRE_TIMEOUT, "no leader is known: an election is under way, or this node is cut off from the majority%s", hint);
	return wire_fail(err, WIRE_TIMEOUT, "the leader, %s, gave no answer: this node is cut off from it, or it is from the majority%s", member_url(n, s->leader), hint);
}

/* One read-index round, repeated while leadership is open. */
static int read_index(struct shell_node *n, uint64_t deadline_us, uint64_t *ret_index, struct wire_err *err)
{
	for (;;) {
		struct request *r = request_new(REQUEST_READ);
		int rc, code = WIRE_OK;

		if (!r)
			return wire_fail(err, WIRE_NOMEM, "no memory for a read");
		r->begun_us = now_at_least_us(n);
		rc = request_ask(n, r, deadline_us, err);
		if (!rc) { /* answered: nobody changes it any more */
			code = r->code;
			*ret_index = r->index;
		}
		pthread_mutex_lock(&n->mu);
		if (rc == WIRE_TIMEOUT) {
			rc = unconfirmed(n, r, err);
		} else if (rc || code == WIRE_OK) {
			/* answered, or closed */
		} else if (code == WIRE_CLOSED) {
			rc = node_closed(n, err);
		} else if (n->shared.removed || node_now_us(n) >= deadline_us) {
			rc = unconfirmed(n, NULL, err);
		} else if (!n->stop && !n->failed) {
			uint64_t until = node_now_us(n) + 10000;

			/* No leader now: until the next change of roles, or a moment, and again. */
			node_wait(n, &n->published_cond, until < deadline_us ? until : deadline_us);
		}
		request_unref(r);
		pthread_mutex_unlock(&n->mu);
		if (rc || code == WIRE_OK)
			return rc;
	}
}

/* Nobody waits for the answer: it wakes a group that is at rest, and tells node_fresh. However many readers ask for it, no more often than every so many microseconds. */
static void ask_aside(struct shell_node *n, uint64_t every_us)
{
	uint64_t asked = atomic_load_explicit(&n->fresh.asked_us, memory_order_relaxed), now = node_now_us(n);
	struct request *r;

	if (now < asked + (every_us > REFRESH_US ? every_us : REFRESH_US) || !atomic_compare_exchange_strong(&n->fresh.asked_us, &asked, now))
		return;
	r = request_new(REQUEST_READ);
	if (!r)
		return; /* whoever needs it asks for itself */
	r->begun_us = now_at_least_us(n);
	request_post(n, r);
}

/* --- the lease --- */

/* Without a lock, on the reader's thread. The lease is read first, then the clock, then the index: at the moment of the first, this node led, so that the
 * index, which only grows, covers all that was acknowledged before. What happens later does not matter, be it hours: a read may count as done at any
 * moment between its beginning and its end, and what it will see is no older than that index, since the READ lock comes after this (README.md). */
bool node_lease_covers(struct shell_node *n, uint64_t *ret_index)
{
	uint64_t until = atomic_load_explicit(&n->lease->until_us, memory_order_acquire);
	struct wire_clock_reading now;

	if (!until || atomic_load_explicit(&n->lease->ended, memory_order_relaxed))
		return false;
	if (until != UINT64_MAX) {
		n->clock.now(n->clock.ctx, &now);
		if (now.status != WIRE_CLOCK_OK || now.latest_us >= until)
			return false;
	}
	*ret_index = atomic_load_explicit(&n->lease->read_index, memory_order_acquire);
	if (!atomic_load_explicit(&n->lease->used, memory_order_relaxed))
		atomic_store_explicit(&n->lease->used, true, memory_order_relaxed);
	return true;
}

bool node_lease_used(struct shell_node *n, uint64_t now_us)
{
	uint64_t wanted = atomic_load_explicit(&n->lease->wanted_us, memory_order_relaxed);
	bool used = atomic_exchange_explicit(&n->lease->used, false, memory_order_relaxed);

	if (n->marks && atomic_load_explicit(&n->marks->lease_used, memory_order_relaxed))
		used |= atomic_exchange_explicit(&n->marks->lease_used, 0, memory_order_relaxed) != 0;
	if (n->marks && atomic_load_explicit(&n->marks->lease_wanted, memory_order_relaxed) && atomic_exchange_explicit(&n->marks->lease_wanted, 0, memory_order_relaxed)) {
		wanted = now_us;
		atomic_store_explicit(&n->lease->wanted_us, wanted, memory_order_relaxed);
	}
	return used || (wanted && now_us < wanted + LEASE_WANTED_US);
}

/* Level lease, where it has to fail at once rather than wait; else WIRE_OK. */
static int without_lease(struct shell_node *n, struct wire_err *err)
{
	bool leads;
	int rc = WIRE_OK;

	pthread_mutex_lock(&n->mu);
	leads = n->shared.role == RAFT_LEADER;
	if (n->stop || n->failed)
		rc = node_closed(n, err);
	else if (n->shared.removed || (!leads && !n->shared.leader))
		rc = unconfirmed(n, NULL, err);
	else if (leads)
		rc = wire_fail(err, WIRE_TIMEOUT, "this node leads, but has no lease at present: it has just become the leader, nothing was asked of it for a while (it is "
		                                  "getting one now), or a majority does not answer. Repeat in a moment, or read at level linearizable, which waits");
	pthread_mutex_unlock(&n->mu);
	if (rc && leads)
		ask_aside(n, 0);
	return rc;
}

static void want_lease(struct shell_node *n)
{
	uint64_t now = node_now_us(n), wanted = atomic_load_explicit(&n->lease->wanted_us, memory_order_relaxed);

	if (now > wanted + LEASE_WANTED_US / 60)
		atomic_store_explicit(&n->lease->wanted_us, now, memory_order_relaxed);
}

/* --- how new what is published here is --- */

static void learn_published(struct shell_node *n) /* mu held */
{
	struct node_fresh *f = &n->fresh;

	if (f->known_us > atomic_load_explicit(&n->lease->fresh_us, memory_order_relaxed) && n->store->applied(n) >= f->known_index)
		atomic_store_explicit(&n->lease->fresh_us, f->known_us, memory_order_release);
}

void node_fresh_learn(struct shell_node *n, uint64_t at_us, uint64_t index)
{
	struct node_fresh *f = &n->fresh;

	if (at_us <= f->known_us)
		return;
	learn_published(n); /* what it replaces is not lost if it is published by now */
	f->known_us = at_us;
	f->known_index = index;
	learn_published(n);
}

/* A lease that is over tells how things were when it ended. Clocks that are known to be inexact tell less; they are not worth the reckoning. */
static void learn_lease_end(struct shell_node *n, const struct wire_clock_reading *now) /* mu held */
{
	uint64_t until = atomic_load_explicit(&n->lease->until_us, memory_order_acquire);

	if (until && until != UINT64_MAX && now->latest_us >= until && now->earliest_us == now->latest_us)
		node_fresh_learn(n, until - 1, atomic_load_explicit(&n->lease->read_index, memory_order_acquire));
}

static int pass_bounded(struct shell_node *n, uint32_t bound_ms, uint64_t deadline_us, struct wire_err *err)
{
	const uint64_t bound_us = (uint64_t)bound_ms * 1000;
	struct wire_clock_reading now;
	uint64_t age, index = 0;
	int rc = WIRE_OK;

	n->clock.now(n->clock.ctx, &now);
	age = shell_age_us(&n->clock, atomic_load_explicit(&n->lease->fresh_us, memory_order_acquire), &now);
	if (age <= bound_us) {
		/* Before it is too old: readers who come without a break do not have to wait then. */
		if (age >= bound_us / 2)
			ask_aside(n, bound_us / 8);
		return WIRE_OK;
	}
	if (!node_lease_covers(n, &index)) {
		pthread_mutex_lock(&n->mu);
		learn_lease_end(n, &now);
		learn_published(n);
		index = n->fresh.known_index;
		age = shell_age_us(&n->clock, n->fresh.known_us, &now);
		pthread_mutex_unlock(&n->mu);
		if (age > bound_us)
			rc = read_index(n, deadline_us, &index, err);
	}
	return rc ? rc : wait_published(n, index, deadline_us, err);
}

/* --- the gate --- */

int node_read_gate(void *node, const struct vfs_read_want *want, uint32_t timeout_ms, bool *ret_waited, struct wire_err *err)
{
	struct shell_node *n = node;
	uint64_t deadline, index = 0;
	bool leased;
	int rc = WIRE_OK;

	*ret_waited = false;
	if (want->level == VFS_READ_STALE)
		return WIRE_OK;
	if (want->level == VFS_READ_BOUNDED) {
		*ret_waited = true;
		return pass_bounded(n, want->bound_ms, node_now_us(n) + (uint64_t)timeout_ms * 1000, err);
	}
	leased = node_lease_covers(n, &index);
	if (want->level == VFS_READ_LEASE)
		want_lease(n);
	if (leased && vfs_db_published(n->db) >= index)
		return WIRE_OK;
	*ret_waited = true;
	deadline = node_now_us(n) + (uint64_t)timeout_ms * 1000;
	if (!leased && want->level == VFS_READ_LEASE)
		rc = without_lease(n, err);
	if (!leased && !rc)
		rc = read_index(n, deadline, &index, err);
	return rc ? rc : wait_published(n, index, deadline, err);
}
