/* Status as JSON: what `walraft status --json` and walraft_status() show.
 *
 *   path, node_id, group, cluster (16 hex digits), url, role (also failed, removed), removed (it is no member any more), published, checksum (state checksum
 *   at published, 16 hex digits), ready (a write transaction may begin here), failure (null, or why this node has ended its part),
 *   forgetful (it has lost what it had promised, and is not re-admitted yet), mending (its database is not open yet: entries are to be fetched first),
 *   holes (damaged entries that are to be fetched),
 *   ledger: null, or {index, checksum (of the ledger at that index, 16 hex digits: the same on all nodes), from (ids of all transactions above that entry are kept), terms, transactions
 *   (ids that are kept), sessions (clients of walraft_once), whole (it knows all of them), memory_bytes, file_bytes},
 *   db_pages, page_size, wal_frames, wal_backfilled, publications, restarts, checkpoints,
 *   journal_bytes_appended, journal_disk_bytes, journal_syncs, journal_entries, journal_base,
 *   reads: {asked: that had to ask the core (those by a lease, stale, or fresh enough ones do not), requests: questions to the leader, each for all reads that waited
 *   then, rounds: of heartbeats to confirm reads, where this node led},
 *   events: how often each of raft/telemetry.h's events came, by name,
 *   witness: null, or {kept_above: its log has all behind that entry, kept_for: URL of the data voter that lacks most and is away (null: none), limit_bytes,
 *   full (it takes no more entries)};
 * and what `walraft members` shows too, there as the leader sees it:
 *   leader_id, leader_url (null: unknown), term, commit, last_index, level (feature level in force), joint (a change is on its way through a joint
 *   configuration), config_committed, commit_quorum, election_quorum (0: a majority), transfer_to (while leadership is handed over),
 *   members: [{id, url, kind: voter | learner | witness, votes, rising (a learner on its way to vote), state: leader | follower | rising | awaited | unreachable |
 *   lacks image | leaving | forgetful | full, joint, outgoing (votes in the old half of it), self, up, priority, match;
 *   lag (entries), lag_ms, applied, last_contact_ms: as the leader told last (lag.c), null where it has not told anything or has never heard of it;
 *   of others known to the leader only, else null: rtt_us, level, rounds, round_ms (catch-up, raft.h), caught_up, forgot, full, source (who serves its catch-up)}] */
#include "shell/node_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define put node_json_put
#define put_string node_json_string
#define put_text node_json_text

void node_json_put(struct wire_buf *b, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof text)
		b->failed = true;
	else
		wire_put_bytes(b, text, (size_t)n);
}

void node_json_string(struct wire_buf *b, const char *s)
{
	wire_put_u8(b, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			put(b, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			put(b, "\\u%04x", (unsigned char)*s);
		else
			wire_put_u8(b, (uint8_t)*s);
	}
	wire_put_u8(b, '"');
}

void node_json_text(struct wire_buf *b, const char *key, const char *value)
{
	put(b, "\"%s\":", key);
	if (value && *value)
		put_string(b, value);
	else
		put(b, "null");
	wire_put_u8(b, ',');
}

static void put_number(struct wire_buf *b, const char *key, bool known, uint64_t value)
{
	if (known)
		put(b, ",\"%s\":%" PRIu64, key, value);
	else
		put(b, ",\"%s\":null", key);
}

static const char *kind_of(const struct raft_member *m)
{
	if (m->flags & RAFT_WITNESS)
		return "witness";
	return m->flags & (RAFT_VOTER | RAFT_VOTER_OLD) ? "voter" : "learner";
}

/* What the present leader told of it; NULL: nothing, or there is none. */
static const struct node_lag_row *told_row(const struct node_shared *s, uint64_t id)
{
	return s->role != RAFT_LEADER && s->leader && s->lag.leader == s->leader ? node_lag_row(&s->lag, id) : NULL;
}

/* What it does, as far as this node can tell. */
static const char *state_of(const struct shell_node *n, const struct node_shared *s, uint32_t i)
{
	const struct raft_member *m = &s->config.m[i];
	const struct raft_progress *p = &s->progress[i];
	const struct node_lag_row *row = told_row(s, m->id);
	bool leads = s->role == RAFT_LEADER, self = m->id == n->conf.node;

	if (m->flags & RAFT_AWAITED)
		return "awaited";
	if (m->id == s->leader)
		return "leader";
	if (!self && (leads ? !p->alive : row ? !(row->flags & LAG_ALIVE) : !s->up[i]))
		return "unreachable";
	if (p->forgot || (row && (row->flags & LAG_FORGOT)) || (self && s->forgetful))
		return "forgetful";
	if (p->full || (row && (row->flags & LAG_FULL)))
		return "full";
	if (leads ? p->state == RAFT_SNAPSHOT && !self : row && (row->flags & LAG_IMAGE))
		return "lacks image";
	if (s->config.joint && !(m->flags & (RAFT_VOTER | RAFT_LEARNER)))
		return "leaving";
	return m->flags & RAFT_RISING ? "rising" : "follower";
}

/* How far a member is, as this node knows by now. */
struct member_lag {
	bool known, heard; /* heard: silent_ms is known */
	uint64_t applied, entries, ms, silent_ms;
};

static struct member_lag lag_of(const struct shell_node *n, const struct node_shared *s, uint64_t id, uint64_t published)
{
	const struct node_lag_row *row = node_lag_row(&s->lag, id);
	uint64_t now = node_now_us(n), since = s->lag.at_us && now > s->lag.at_us ? now - s->lag.at_us : 0, commit = s->commit > s->lag.commit ? s->commit : s->lag.commit;
	uint64_t heard = atomic_load_explicit(&n->leader_heard_us, memory_order_relaxed);
	struct member_lag l = { .known = row && row->silent_us != UINT64_MAX };

	if (row) {
		l.applied = row->applied;
		commit = s->lag.commit;
		l.heard = row->silent_us != UINT64_MAX;
		l.silent_ms = l.heard ? (row->silent_us + since) / 1000 : 0;
	}
	if (id == n->conf.node) {
		l = (struct member_lag){ .known = true, .heard = true, .applied = published };
		commit = s->commit > s->lag.commit ? s->commit : s->lag.commit;
	} else if (id == s->leader && heard) {
		l.heard = true;
		l.silent_ms = now > heard ? (now - heard) / 1000 : 0;
	}
	l.entries = commit > l.applied ? commit - l.applied : 0;
	l.ms = l.entries ? ((row ? row->lag_us : 0) + since) / 1000 : 0;
	return l;
}

static void put_member(const struct shell_node *n, const struct node_shared *s, uint32_t i, struct wire_buf *b)
{
	const struct raft_member *m = &s->config.m[i];
	const struct raft_progress *p = &s->progress[i];
	bool self = m->id == n->conf.node, leads = s->role == RAFT_LEADER, known = leads && !self;
	uint64_t match = self ? s->persisted : p->match;
	struct member_lag l = lag_of(n, s, m->id, n->store->applied((struct shell_node *)n));

	put(b, "{\"id\":\"%016" PRIx64 "\",\"url\":", m->id);
	put_string(b, m->url);
	put(b, ",\"kind\":\"%s\",\"votes\":%s,\"rising\":%s,\"state\":\"%s\",\"joint\":%s,\"outgoing\":%s,\"self\":%s,\"up\":%s,\"priority\":%u",
	    kind_of(m), m->flags & (RAFT_VOTER | RAFT_VOTER_OLD) ? "true" : "false", m->flags & RAFT_RISING ? "true" : "false", state_of(n, s, i),
	    s->config.joint ? "true" : "false", m->flags & RAFT_VOTER_OLD ? "true" : "false", self ? "true" : "false", s->up[i] || self ? "true" : "false", m->priority);
	put_number(b, "match", true, match);
	/* The leader's own figure is of the log, not of what was published. */
	put_number(b, "lag", leads || l.known, !leads ? l.entries : s->last_index > match ? s->last_index - match : 0);
	put_number(b, "lag_ms", l.known, l.ms);
	put_number(b, "applied", l.known, l.applied);
	put_number(b, "last_contact_ms", l.heard, l.silent_ms);
	put_number(b, "rtt_us", known && p->rtt_us, p->rtt_us);
	put_number(b, "level", known && p->level, p->level);
	put_number(b, "rounds", known, p->rounds);
	put_number(b, "round_ms", known && p->rounds, p->round_us / 1000);
	put(b, ",\"caught_up\":%s,\"forgot\":%s,\"full\":%s,\"source\":", p->caught_up ? "true" : "false", p->forgot ? "true" : "false", p->full ? "true" : "false");
	if (known && p->source)
		put(b, "\"%016" PRIx64 "\"}", p->source);
	else
		put(b, "null}");
}

void node_members_json(const struct shell_node *n, const struct node_shared *s, struct wire_buf *b)
{
	const struct raft_config *c = &s->config;
	const struct raft_member *leader = s->leader ? raft_config_find(c, s->leader) : NULL;

	if (s->leader)
		put(b, "\"leader_id\":\"%016" PRIx64 "\",", s->leader);
	else
		put(b, "\"leader_id\":null,");
	put_text(b, "leader_url", leader ? leader->url : NULL);
	put(b, "\"term\":%" PRIu64 ",\"commit\":%" PRIu64 ",\"last_index\":%" PRIu64 ",\"level\":%u,\"joint\":%s,\"config_committed\":%s,\"commit_quorum\":%u,\"election_quorum\":%u,",
	    s->term, s->commit, s->last_index, s->level, c->joint ? "true" : "false", s->config_committed ? "true" : "false", c->quorums.commit, c->quorums.elect);
	if (s->transfer_to)
		put(b, "\"transfer_to\":\"%016" PRIx64 "\",", s->transfer_to);
	put(b, "\"members\":[");
	for (uint32_t i = 0; i < c->n; i++) {
		if (i)
			wire_put_u8(b, ',');
		put_member(n, s, i, b);
	}
	put(b, "]");
}

void shell_node_leader_url(struct shell_node *n, char *dst, size_t cap)
{
	const struct raft_member *m;

	pthread_mutex_lock(&n->mu);
	m = n->shared.leader ? raft_config_find(&n->shared.config, n->shared.leader) : NULL;
	snprintf(dst, cap, "%s", m ? m->url : "");
	pthread_mutex_unlock(&n->mu);
}

void shell_node_status_json(struct shell_node *n, struct wire_buf *b)
{
	struct node_shared *s = malloc(sizeof *s);
	struct vfs_db_status v;
	struct raft_journal_stats j;
	char failure[sizeof n->failure];

	if (!s) {
		b->failed = true;
		return;
	}
	shell_node_failure(n, failure, sizeof failure);
	pthread_mutex_lock(&n->mu);
	*s = n->shared;
	pthread_mutex_unlock(&n->mu);
	n->store->status(n, &v);
	raft_journal_stats(n->journal, &j);
	wire_put_u8(b, '{');
	put_text(b, "path", n->paths.db);
	put(b, "\"node_id\":\"%016" PRIx64 "\",\"group\":\"%016" PRIx64 "\",\"cluster\":\"%016" PRIx64 "\",", n->conf.node,
	    n->conf.group, n->conf.cluster);
	put_text(b, "url", n->conf.listen);
	put_text(b, "role", *failure ? "failed" : s->removed ? "removed" : raft_role_name(s->role));
	put(b, "\"removed\":%s,\"published\":%" PRIu64 ",\"checksum\":\"%016" PRIx64 "\",\"ready\":%s,", s->removed ? "true" : "false", v.index, v.checksum,
	    s->role == RAFT_LEADER && s->leader_ready && v.index == s->last_index ? "true" : "false");
	node_ledger_status(n, b);
	put_text(b, "failure", failure);
	put(b, "\"forgetful\":%s,\"mending\":%s,\"holes\":%" PRIu32 ",", s->forgetful ? "true" : "false", s->mending ? "true" : "false", s->holes);
	put(b, "\"db_pages\":%" PRIu32 ",\"page_size\":%" PRIu32 ",\"wal_frames\":%" PRIu32 ",\"wal_backfilled\":%" PRIu32
	       ",\"publications\":%" PRIu64 ",\"restarts\":%" PRIu64 ",\"checkpoints\":%" PRIu64 ",",
	    v.db_pages, v.page_size, v.wal_frames, v.backfilled, v.publications, v.restarts, v.checkpoints);
	put(b, "\"journal_bytes_appended\":%" PRIu64 ",\"journal_disk_bytes\":%" PRIu64 ",\"journal_syncs\":%" PRIu64
	       ",\"journal_entries\":%" PRIu64 ",\"journal_base\":%" PRIu64 ",",
	    j.bytes_appended, j.disk_bytes, j.syncs, j.entries, raft_journal_base(n->journal));
	put(b, "\"reads\":{\"asked\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"rounds\":%" PRIu64 "},", atomic_load(&n->read_counts.asked),
	    atomic_load(&n->read_counts.requests), atomic_load(&n->read_counts.rounds));
	put(b, "\"entries_sent\":%" PRIu64 ",\"send_unpacks\":%" PRIu64 ",", atomic_load(&n->entries_sent), atomic_load(&n->send_unpacks));
	put(b, "\"events\":");
	node_events_counts_json(n->events, b);
	put(b, ",");
	node_witness_status(n, b);
	node_members_json(n, s, b);
	put(b, "}");
	free(s);
}

void shell_node_members_rows(struct shell_node *n, struct wire_buf *b)
{
	struct node_shared *s = malloc(sizeof *s);

	if (!s) {
		b->failed = true;
		return;
	}
	pthread_mutex_lock(&n->mu);
	*s = n->shared;
	pthread_mutex_unlock(&n->mu);
	wire_put_varint(b, s->config.n);
	for (uint32_t i = 0; i < s->config.n; i++) {
		const struct raft_member *m = &s->config.m[i];
		struct member_lag l = lag_of(n, s, m->id, n->store->applied(n));

		wire_put_u64(b, m->id);
		wire_put_text(b, ""); /* a node has no name of its own yet */
		wire_put_text(b, m->url);
		wire_put_text(b, kind_of(m));
		wire_put_text(b, state_of(n, s, i));
		wire_put_varint(b, l.known ? l.applied + 1 : 0);
		wire_put_varint(b, l.known ? l.entries + 1 : 0);
		wire_put_varint(b, l.known ? l.ms + 1 : 0);
		wire_put_varint(b, l.heard ? l.silent_ms + 1 : 0);
		wire_put_u8(b, m->id == n->conf.node);
	}
	free(s);
}
