/* Telemetry of a node: one event for each decision, named, with fields whose names end with their units. The core puts those of
 * a step into the update (raft_init.telemetry); the driver adds the journal's and the state machine's, stamps them with its time,
 * and keeps them. The table is the documentation of the whole stream.
 *
 * Fields: `peer` is the other node, 0 when there is none; `why` says in words what decided, NULL when nothing is to say; v[] as
 * the table names them. Indexes are of the log. All strings live for ever. */
#ifndef RAFT_TELEMETRY_H
#define RAFT_TELEMETRY_H

#include "wire/buf.h"
#include <stdint.h>

/* X(name of the constant, name in the stream, names of v[0] .. v[3]: "" not used) */
#define RAFT_TOLD_TABLE(X)                                                                                             \
	/* leading: rounds of heartbeats */                                                                            \
	X(QUORUM_HEARTBEAT, "quorum.heartbeat", "round", "sending", "commit_index", "silence_us") /* goes out to peer */ \
	X(QUORUM_SUCCEEDED, "quorum.succeeded", "round", "commit_index", "", "") /* a quorum answered: still leading */ \
	X(QUORUM_MISSED, "quorum.missed", "silent_us", "", "", "") /* no quorum answered since the last heartbeat */     \
	X(QUORUM_CHECK, "quorum.check_failed", "silent_us", "", "", "") /* CheckQuorum: steps down */                   \
	X(HEARTBEAT_DUPLICATE, "heartbeat.duplicate", "sending", "", "", "") /* peer had answered that one */            \
	X(HEARTBEAT_LATE, "heartbeat.missed_deadline", "silent_us", "", "", "") /* peer, for more than a heartbeat's time */ \
	X(HEARTBEAT_ORDER, "heartbeat.out_of_order", "sending", "latest_sending", "", "")                              \
	X(ROUND_EXPIRED, "heartbeat.round_expired", "round", "reads", "", "") /* reads gave up waiting for it */         \
	/* what this node is */                                                                                        \
	X(ROLE_FOLLOWER, "role.follower", "term", "", "", "") /* of peer, 0: of nobody yet */                            \
	X(ROLE_PRECANDIDATE, "role.precandidate", "term", "last_index", "", "")                                        \
	X(ROLE_CANDIDATE, "role.candidate", "term", "last_index", "", "")                                              \
	X(ROLE_LEADER, "role.leader", "term", "last_index", "", "")                                                    \
	X(ROLE_LONELY, "role.lonely", "waited_us", "", "", "") /* heard from no leader, and may not stand */             \
	X(ROLE_IMAGE, "role.receiving_snapshot", "index", "", "", "") /* what it needs is trimmed at the leader */       \
	X(ROLE_REMOVED, "role.removed", "index", "", "", "")                                                           \
	X(ROLE_FORGETFUL, "role.forgetful", "term", "", "", "")                                                        \
	X(ROLE_READMITTED, "role.readmitted", "term", "index", "", "")                                                 \
	/* elections */                                                                                                \
	X(ELECTION_TIMEOUT, "election.timeout", "waited_us", "term", "", "")                                           \
	X(ELECTION_GRANTED, "election.vote_granted", "term", "prevote", "", "") /* to peer */                            \
	X(ELECTION_REFUSED, "election.vote_refused", "term", "prevote", "", "")                                        \
	X(ELECTION_ANSWER, "election.vote_counted", "term", "prevote", "granted", "") /* of peer */                      \
	/* log */                                                                                                      \
	X(LOG_PROPOSED, "log.proposed", "first_index", "last_index", "bytes", "")                                      \
	X(LOG_BACKLOG, "log.proposal_refused", "backlog_bytes", "", "", "")                                            \
	X(LOG_TAKEN, "log.taken", "first_index", "last_index", "", "") /* from peer */                                   \
	X(LOG_REFUSED, "log.refused", "index", "hint_index", "", "") /* peer's append: it does not agree there */        \
	X(LOG_TRUNCATED, "log.truncated", "from_index", "last_index", "", "")                                          \
	X(LOG_DURABLE, "log.durable", "index", "", "", "")                                                             \
	X(LOG_COMMITTED, "log.committed", "index", "", "", "")                                                         \
	X(LOG_TRIMMED, "log.trimmed", "index", "", "", "")                                                             \
	X(LOG_IMAGE, "log.restarted", "index", "term", "", "") /* an image took its place */                             \
	X(DISK_SLOW, "log.disk_hangs", "waited_us", "index", "", "")                                                   \
	/* how a peer is doing */                                                                                      \
	X(PEER_PROBE, "peer.probe", "match_index", "next_index", "", "")                                               \
	X(PEER_REPLICATE, "peer.replicate", "match_index", "next_index", "", "")                                       \
	X(PEER_SNAPSHOT, "peer.snapshot", "match_index", "next_index", "", "")                                         \
	X(PEER_STALLED, "peer.stalled", "waited_us", "match_index", "", "")                                            \
	X(PEER_WINDOW, "peer.window", "window_bytes", "rtt_us", "", "")                                                \
	X(PEER_FORGOT, "peer.forgot", "match_index", "claimed_index", "", "")                                          \
	X(PEER_FULL, "peer.full", "match_index", "", "", "") /* a witness at its limit */                                \
	X(PEER_ROUND, "peer.catch_up_round", "round", "took_us", "index", "")                                          \
	X(PEER_SOURCE, "peer.catch_up_source", "source", "upto_index", "", "")                                         \
	/* membership, leadership */                                                                                   \
	X(CONFIG_APPENDED, "config.appended", "index", "members", "joint", "level")                                    \
	X(CONFIG_COMMITTED, "config.committed", "index", "members", "joint", "level")                                  \
	X(CONFIG_UNDONE, "config.undone", "from_index", "", "", "")                                                    \
	X(CONFIG_REFUSED, "config.refused", "", "", "", "")                                                            \
	X(TRANSFER_BEGUN, "transfer.begun", "index", "", "", "")                                                       \
	X(TRANSFER_TOLD, "transfer.told", "index", "", "", "")                                                         \
	X(TRANSFER_GIVEN_UP, "transfer.given_up", "waited_us", "", "", "")                                             \
	/* reads and leases */                                                                                         \
	X(READ_ROUND, "read.round", "round", "reads", "index", "")                                                     \
	X(READ_SERVED, "read.served", "reads", "index", "by_lease", "")                                                \
	X(READ_FAILED, "read.failed", "reads", "", "", "")                                                             \
	X(LEASE_HELD, "lease.held", "until_us", "", "", "")                                                            \
	X(LEASE_LOST, "lease.lost", "", "", "", "")                                                                    \
	/* entries from others than the leader */                                                                      \
	X(FETCH_ASKED, "fetch.asked", "first_index", "last_index", "", "")                                             \
	X(FETCH_SERVED, "fetch.served", "first_index", "last_index", "", "")                                           \
	X(FETCH_TAKEN, "fetch.taken", "first_index", "last_index", "", "")                                             \
	X(FETCH_FILLED, "fetch.filled", "index", "", "", "") /* a hole */                                                \
	/* messages */                                                                                                 \
	X(MSG_SENT, "message.sent", "term", "index", "entries", "")                                                    \
	X(MSG_RECEIVED, "message.received", "term", "index", "entries", "")                                            \
	/* the journal (raft/journal.h tells) */                                                                       \
	X(JOURNAL_APPEND, "journal.append", "first_index", "last_index", "", "")                                       \
	X(JOURNAL_COMMIT_BUFFER, "journal.commit_buffer", "bytes", "", "", "")                                         \
	X(JOURNAL_FETCH, "journal.fetch", "index", "", "", "")                                                         \
	X(JOURNAL_FETCH_BETWEEN, "journal.fetch_between", "first_index", "last_index", "", "")                         \
	X(JOURNAL_REVERSE_FIND, "journal.reverse_find", "position", "found", "", "")                                   \
	X(JOURNAL_REWIND, "journal.rewind", "index", "", "", "")                                                       \
	X(JOURNAL_TRUNCATE, "journal.truncate", "from_index", "", "", "")                                              \
	X(JOURNAL_SYNC, "journal.sync", "took_us", "", "", "")                                                         \
	/* the state machine (the shell tells) */                                                                      \
	X(MACHINE_COMMAND, "machine.command", "index", "", "", "") /* one published by the connection that committed it */ \
	X(MACHINE_COMMANDS, "machine.commands", "first_index", "last_index", "", "") /* several at once */               \
	X(MACHINE_QUERY, "machine.query", "index", "", "", "") /* a linearizable read let go; not those by lease */   \
	X(MACHINE_SNAPSHOT, "machine.snapshot", "index", "pages", "", "") /* an image opened for peer */

enum raft_told_event {
#define X(id, name, a, b, c, d) RAFT_TOLD_##id,
	RAFT_TOLD_TABLE(X)
#undef X
	        RAFT_TOLD_COUNT
};

struct raft_told {
	uint16_t event; /* enum raft_told_event */
	uint64_t peer;
	const char *why;
	uint64_t v[4];
};

const char *raft_told_name(unsigned event); /* "quorum.heartbeat"; "?" outside the range */

/* Appends the event as JSON object without braces: "event":"log.committed","index":12. Ids of nodes are 16 hex digits. */
void raft_told_put_json(const struct raft_told *t, struct wire_buf *b);

#endif
