/* A journal that was damaged, lost, or put back from an old copy, and a database that waits for what other members have of it.
 *
 *   the journal                                              the node
 *   opens, with damaged entries (holes) up to the mark       starts; the core fetches them
 *   opens, with holes above the mark                         runs without its database until they are fetched: its position is found by them
 *   does not open; missing; older than the file `mark`       forgetful: as far as it can be kept, else from `mark` on, and then as above. Not the only voter:
 *                                                            nobody has what is missing, and what it acknowledged would be gone in silence
 *   opens, and the database is not in it                     the same: its end may be lost, with what it acknowledged
 * Forgetful is what raft/forgetful.c describes: no vote, and no answer that counts, before the leader has re-admitted it. */
#include "shell/node_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_US 30000000u /* without anything that comes in */
#define LEVEL_US 5000000u     /* without anything new to come in, from a leader */
#define IMAGE_US 2000000u     /* that long the leader says that only an image helps */
#define POLL_US 100000u
#define LEAD_US 2000000u      /* so long this node may lead without its database before it hands over */

static struct raft_journal_opts options(struct shell_node *n)
{
	return (struct raft_journal_opts){ .group = n->conf.group, .on_event = node_events_journal, .event_ctx = n->events };
}

static int open_journal(struct shell_node *n, struct raft_journal_state *ret_st, struct wire_err *err)
{
	struct raft_journal_opts opts = options(n);
	int rc = raft_journal_open(n->env, n->paths.journal, &opts, &n->journal, ret_st, err);

	if (!rc && ret_st->cut_bytes)
		shell_log(n, "cut %llu bytes of a torn tail from the journal", (unsigned long long)ret_st->cut_bytes);
	if (!rc && ret_st->n_holes)
		shell_log(n, "%zu entries in the journal are damaged, the first is %llu: they are fetched from other members", ret_st->n_holes,
		          (unsigned long long)ret_st->holes[0]);
	return rc;
}

/* How many voters there are beside this node. */
static uint32_t other_voters(const struct shell_node *n, const struct raft_config *c)
{
	uint32_t others = 0;

	for (uint32_t i = 0; i < c->n; i++)
		others += c->m[i].id != n->conf.node && (c->m[i].flags & (RAFT_VOTER | RAFT_VOTER_OLD));
	return others;
}

/* mark NULL: there is none. *err says why it did not open. */
static int salvage(struct shell_node *n, const struct raft_journal_start *mark, struct raft_journal_state *ret_st, struct wire_err *err)
{
	struct raft_journal_opts opts = options(n);
	struct raft_journal_remains *left = calloc(1, sizeof *left);
	struct wire_err e;
	int rc = left ? raft_journal_examine(n->env, n->paths.journal, &opts, left, &e) : WIRE_NOMEM;

	if (!rc || rc == WIRE_NOTFOUND) {
		const struct raft_config *c = left->log ? &left->config : mark ? &mark->base_config : NULL;

		if (!c) {
			rc = wire_context(err, "nothing of the journal of %s can be kept, and nothing beside it tells where the database stands: remove the file with its -wal and -shm, and %s, and join again under a new address",
			                  n->paths.db, n->paths.dir);
			goto end;
		}
		if (!other_voters(n, c)) {
			rc = wire_context(err, "%s has no other voter that could give it what is lost: restore %s and the database from one copy", n->paths.db, n->paths.dir);
			goto end;
		}
		shell_log(n, "%s", err->text);
		rc = raft_journal_salvage(n->env, n->paths.journal, &opts, mark, err);
	} else if (left) {
		*err = e;
	}
	if (!rc)
		rc = open_journal(n, ret_st, err);
	if (!rc)
		shell_log(n, "the journal is kept up to entry %llu; this node votes and counts again once the others have re-admitted it",
		          (unsigned long long)(ret_st->base_index + ret_st->n_entries));
end:
	free(left);
	return rc;
}

/* The file was written when the journal had all that it tells of. */
static bool is_older(const struct raft_journal_state *st, const struct raft_journal_start *mark)
{
	uint64_t last = st->base_index + st->n_entries;

	if (st->term < mark->term || last < mark->base_index)
		return true;
	if (mark->base_index < st->base_index)
		return false;
	return (mark->base_index == st->base_index ? st->base_term : st->entries[mark->base_index - st->base_index - 1].term) != mark->base_term;
}

/* The journal says from now on that it may lack something; *st is as after a start. */
static int forget(struct shell_node *n, uint64_t term, struct raft_journal_state *st, struct wire_err *err)
{
	int rc = raft_journal_append_forgetful(n->journal, true, err);

	if (!rc)
		rc = raft_journal_append_vote(n->journal, term > st->term ? term : st->term, 0, err);
	if (!rc)
		rc = raft_journal_sync(n->journal, err);
	raft_journal_close(n->journal);
	n->journal = NULL;
	return rc ? rc : open_journal(n, st, err);
}

int node_journal_open(struct shell_node *n, struct raft_journal_state *ret_st, struct wire_err *err)
{
	struct raft_journal_start *mark = malloc(sizeof *mark);
	struct wire_err none;
	int rc;

	if (!mark)
		return wire_fail(err, WIRE_NOMEM, "no memory for a node");
	if (node_mark_read(n, mark, &none)) {
		free(mark);
		mark = NULL;
	}
	rc = open_journal(n, ret_st, err);
	if (rc == WIRE_CORRUPT || rc == WIRE_NOTFOUND) {
		rc = salvage(n, mark, ret_st, err);
	} else if (!rc && mark && is_older(ret_st, mark) && !ret_st->forgetful) {
		shell_log(n, "the journal ends at entry %llu in term %llu, and there was a checkpoint at entry %llu in term %llu: it was put back from an older copy. This node votes and counts again once the others have re-admitted it",
		          (unsigned long long)(ret_st->base_index + ret_st->n_entries), (unsigned long long)ret_st->term, (unsigned long long)mark->base_index,
		          (unsigned long long)mark->term);
		if (!other_voters(n, &mark->base_config))
			rc = wire_fail(err, WIRE_CORRUPT, "journal %s is older than its database, and there is no other voter to give it what is lost: restore both from one copy",
			               n->paths.journal);
		else
			rc = forget(n, mark->term, ret_st, err);
	}
	free(mark);
	return rc;
}

/* ---- holes ---- */

int node_fills_write(struct shell_node *n, const struct raft_update *u, struct wire_err *err)
{
	int rc = WIRE_OK;

	if (n->n_filled + u->n_fills > n->cap_filled) {
		size_t cap = n->n_filled + u->n_fills + 64;
		struct wire_entry *p = realloc(n->filled, cap * sizeof *p);

		if (!p)
			return wire_fail(err, WIRE_NOMEM, "no memory for damaged entries");
		n->filled = p;
		n->cap_filled = cap;
	}
	for (uint32_t i = 0; i < u->n_fills && !rc; i++) {
		rc = raft_journal_fill(n->journal, &u->fills[i], err);
		n->filled[n->n_filled++] = u->fills[i];
	}
	n->must_sync = true;
	if (!rc && u->n_fills)
		shell_log(n, "%u damaged entries from %llu on are as they were", u->n_fills, (unsigned long long)u->fills[0].index);
	return rc;
}

int node_fills_done(struct shell_node *n)
{
	size_t ready = n->n_filled;
	int rc = WIRE_OK;

	/* A step may add more, which are not synced yet. */
	for (size_t i = 0; i < ready && !rc; i++) {
		struct raft_event ev = { .type = RAFT_EV_FILLED, .index = n->filled[i].index, .term = n->filled[i].term };

		rc = node_step(n, &ev, NULL, NULL);
	}
	n->n_filled -= ready;
	memmove(n->filled, n->filled + ready, n->n_filled * sizeof *n->filled);
	return rc;
}

/* ---- the database waits ---- */

struct mending {
	struct raft_journal_state st; /* what is asked of it to open the database: the end of the log changes */
	struct raft_journal_publication *publications;
	uint64_t tried;       /* log end that the database was not found in */
	uint64_t moved_at_us; /* when something of use came in last, or a leader came or went */
	uint64_t began_us, seen, end_us;
	uint64_t own_last;    /* end of the log at the start: unless that has lost its end, the database is not beyond it */
	uint64_t image_at_us; /* by then it is sure that only an image helps */
	uint32_t holes;
	bool led, forgetful;
	struct wire_err why;
};

/* The log as far as it is sure, when it is worth another try; 0: not yet. */
static uint64_t worth_a_try(struct shell_node *n, struct mending *m, bool *ret_give_up)
{
	const struct node_shared *s = &n->shared;
	uint64_t now = node_now_us(n), sure;
	bool led, lead, wait;

	pthread_mutex_lock(&n->mu);
	sure = s->commit < s->persisted ? s->commit : s->persisted;
	led = s->leader != 0;
	/* Others' writes go on, and are no sign that anything will be found. */
	if ((sure != m->seen && (s->forgetful || m->seen < m->own_last)) || s->holes != m->holes || led != m->led || s->forgetful != m->forgetful)
		m->moved_at_us = now;
	m->seen = sure;
	m->holes = s->holes;
	m->led = led;
	m->forgetful = s->forgetful;
	wait = !led && n->stop_asked; /* whoever can be told to end need not */
	m->image_at_us = !s->needs_image ? UINT64_MAX : m->image_at_us == UINT64_MAX ? now + IMAGE_US : m->image_at_us;
	lead = s->role == RAFT_LEADER && s->leader_ready && now > m->began_us + LEAD_US;
	pthread_mutex_unlock(&n->mu);
	*ret_give_up = (!wait && now > m->moved_at_us + (led && !m->holes ? LEVEL_US : PATIENCE_US)) || now > m->image_at_us || now > m->end_us;
	if (lead) {
		node_hand_over(n);
		m->began_us = node_now_us(n);
	}
	return m->holes || sure <= m->tried || sure < m->st.mark.index ? 0 : sure;
}

/* The host's signals are its own meanwhile: this may go on for long. */
static void rest(struct shell_node *n)
{
	uint64_t until = node_now_us(n) + POLL_US;
	sigset_t ours;

	pthread_sigmask(SIG_SETMASK, &n->host_signals, &ours);
	pthread_mutex_lock(&n->mu);
	while (!n->stop && !n->failed && node_wait(n, &n->published_cond, until))
		;
	pthread_mutex_unlock(&n->mu);
	pthread_sigmask(SIG_SETMASK, &ours, NULL);
}

static int give_up(struct shell_node *n, const struct mending *m, struct wire_err *err)
{
	uint64_t now = node_now_us(n);

	if (err)
		*err = m->why;
	if (now > m->image_at_us)
		return wire_fail(err, WIRE_CORRUPT, "the other members do not have what this node has lost in their logs any more: remove %s with its -wal and -shm, and %s; then, on the host of a member, walraft remove this one, and join again", n->paths.db, n->paths.dir);
	if (now > m->end_us)
		return wire_context(err, "%s is still waiting for what other members have of it: open it again, or let walraft serve %s do it", n->paths.db, n->paths.db);
	return wire_context(err, "other members did not give what this node has lost in time (%s)", m->holes ? "damaged entries are missing" : "its database was not found in their log");
}

static int mend(struct shell_node *n, struct mending *m, struct wire_err *err)
{
	bool over = false;
	int rc;

	n->shared.mending = true;
	rc = node_control_open(n, err);
	if (!rc)
		rc = node_start_threads(n, THREADS_ALWAYS, err);
	m->began_us = m->moved_at_us = node_now_us(n);
	m->end_us = n->stop_asked ? UINT64_MAX : m->began_us + PATIENCE_US;
	m->image_at_us = UINT64_MAX;
	while (!rc && !n->db) {
		uint64_t sure = worth_a_try(n, m, &over);

		if (node_stopping(n))
			return wire_fail(err, WIRE_CLOSED, "%s", n->failure);
		if (n->stop_asked && n->stop_asked())
			return wire_fail(err, WIRE_CLOSED, "%s was still waiting for what other members have of it", n->paths.db);
		if (sure) {
			m->st.base_index = sure;
			m->st.n_entries = 0;
			m->tried = sure;
			rc = n->store->open(n, &m->st, &m->why);
			if (rc == WIRE_CHANGED || rc == WIRE_CORRUPT || rc == WIRE_NOTFOUND)
				rc = WIRE_OK;
			else if (rc && err)
				*err = m->why;
		}
		if (!rc && !n->db && over)
			return give_up(n, m, err);
		if (!rc && !n->db)
			rest(n);
	}
	pthread_mutex_lock(&n->mu);
	n->shared.mending = false;
	pthread_mutex_unlock(&n->mu);
	if (!rc)
		shell_log(n, "the database is found again, at entry %llu", (unsigned long long)n->store->applied(n));
	return rc;
}

/* The core has not begun yet: as if the journal had said so. */
static int forget_late(struct shell_node *n, struct raft_journal_state *st, struct wire_err *err)
{
	int rc = forget(n, 0, st, err);

	raft_free(n->raft);
	entry_cache_free(n->cache);
	n->raft = NULL;
	n->cache = NULL;
	return rc ? rc : node_driver_start(n, st, err);
}

int node_store_open(struct shell_node *n, struct raft_journal_state *st, struct wire_err *err)
{
	struct mending m = { .why = { .code = WIRE_TIMEOUT } };
	size_t n_pubs = st->n_publications;
	bool wait = !n->store->witness && st->n_holes && st->holes[st->n_holes - 1] > st->mark.index;
	int rc = WIRE_OK;

	snprintf(m.why.text, sizeof m.why.text, "opening %.400s", n->paths.db);
	if (!wait) {
		rc = n->store->open(n, st, &m.why);
		if (!rc)
			return WIRE_OK;
		if (err)
			*err = m.why;
		wait = st->forgetful && (rc == WIRE_CHANGED || rc == WIRE_CORRUPT || rc == WIRE_NOTFOUND);
		if (!wait && rc == WIRE_CHANGED && !n->store->witness && other_voters(n, &n->shared.config)) {
			shell_log(n, "%s", m.why.text);
			rc = forget_late(n, st, err);
			n_pubs = st->n_publications;
			wait = !rc;
		}
		if (!wait)
			return rc;
	}
	m.publications = calloc(n_pubs + 1, sizeof *m.publications);
	if (!m.publications)
		return wire_fail(err, WIRE_NOMEM, "no memory for a node");
	if (n_pubs)
		memcpy(m.publications, st->publications, n_pubs * sizeof *m.publications);
	m.own_last = st->base_index + st->n_entries;
	m.st = *st;
	m.st.publications = m.publications;
	shell_log(n, "the database waits for what other members have of it");
	rc = mend(n, &m, err);
	free(m.publications);
	return rc;
}
