/* Status as JSON: what `walraft status --json` and walraft_status() show.
 *
 *   path, node_id, group, cluster (16 hex digits), url, role, leader_id, leader_url (null: unknown), term, commit, last_index,
 *   published, checksum (state checksum at published, 16 hex digits), ready (a write transaction may begin here), failure (null, or why this node has ended its part),
 *   db_pages, page_size, wal_frames, wal_backfilled, publications, restarts, checkpoints,
 *   journal_bytes_appended, journal_disk_bytes, journal_syncs, journal_entries, journal_base,
 *   events: how often each of raft/telemetry.h's events came, by name,
 *   witness: null, or {kept_above: its log has all behind that entry, kept_for: URL of the data voter that lacks most and is away (null: none), limit_bytes,
 *   full (it takes no more entries)},
 *   members: [{id, url, kind: voter | learner, joint (in one half of a joint configuration), self, up, match, last_contact_ms (leader only; null: never)}] */
#include "shell/node_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct wire_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct wire_buf *b, const char *fmt, ...)
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

static void put_string(struct wire_buf *b, const char *s)
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

static void put_text(struct wire_buf *b, const char *key, const char *value)
{
	put(b, "\"%s\":", key);
	if (value && *value)
		put_string(b, value);
	else
		put(b, "null");
	wire_put_u8(b, ',');
}

static void put_members(struct shell_node *n, const struct node_shared *s, struct wire_buf *b)
{
	put(b, "\"members\":[");
	for (uint32_t i = 0; i < s->config.n; i++) {
		const struct raft_member *m = &s->config.m[i];
		bool self = m->id == n->conf.node;

		put(b, "%s{\"id\":\"%016" PRIx64 "\",\"url\":", i ? "," : "", m->id);
		put_string(b, m->url);
		put(b, ",\"kind\":\"%s\",\"joint\":%s,\"self\":%s,\"up\":%s,\"match\":%" PRIu64 ",\"last_contact_ms\":",
		    m->flags & (RAFT_VOTER | RAFT_VOTER_OLD) ? "voter" : "learner", s->config.joint ? "true" : "false",
		    self ? "true" : "false", s->up[i] || self ? "true" : "false", self ? s->persisted : s->progress[i].match);
		if (self)
			put(b, "0}");
		else if (!s->progress[i].last_contact_us || s->role != RAFT_LEADER)
			put(b, "null}");
		else
			put(b, "%" PRIu64 "}", s->now_us > s->progress[i].last_contact_us
			                               ? (s->now_us - s->progress[i].last_contact_us) / 1000
			                               : 0);
	}
	put(b, "]}");
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
	char failure[sizeof n->failure], leader[RAFT_URL_MAX + 1];

	if (!s) {
		b->failed = true;
		return;
	}
	shell_node_leader_url(n, leader, sizeof leader);
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
	put_text(b, "role", *failure ? "failed" : raft_role_name(s->role));
	if (s->leader)
		put(b, "\"leader_id\":\"%016" PRIx64 "\",", s->leader);
	else
		put(b, "\"leader_id\":null,");
	put_text(b, "leader_url", leader);
	put(b, "\"term\":%" PRIu64 ",\"commit\":%" PRIu64 ",\"last_index\":%" PRIu64 ",\"published\":%" PRIu64
	       ",\"checksum\":\"%016" PRIx64 "\",\"ready\":%s,",
	    s->term, s->commit, s->last_index, v.index, v.checksum,
	    s->role == RAFT_LEADER && s->leader_ready && v.index == s->last_index ? "true" : "false");
	put_text(b, "failure", failure);
	put(b, "\"db_pages\":%" PRIu32 ",\"page_size\":%" PRIu32 ",\"wal_frames\":%" PRIu32 ",\"wal_backfilled\":%" PRIu32
	       ",\"publications\":%" PRIu64 ",\"restarts\":%" PRIu64 ",\"checkpoints\":%" PRIu64 ",",
	    v.db_pages, v.page_size, v.wal_frames, v.backfilled, v.publications, v.restarts, v.checkpoints);
	put(b, "\"journal_bytes_appended\":%" PRIu64 ",\"journal_disk_bytes\":%" PRIu64 ",\"journal_syncs\":%" PRIu64
	       ",\"journal_entries\":%" PRIu64 ",\"journal_base\":%" PRIu64 ",",
	    j.bytes_appended, j.disk_bytes, j.syncs, j.entries, raft_journal_base(n->journal));
	put(b, "\"entries_sent\":%" PRIu64 ",\"send_unpacks\":%" PRIu64 ",", atomic_load(&n->entries_sent), atomic_load(&n->send_unpacks));
	put(b, "\"events\":");
	node_events_counts_json(n->events, b);
	put(b, ",");
	node_witness_status(n, b);
	put_members(n, s, b);
	free(s);
}
