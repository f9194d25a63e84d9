/* Telemetry of a node: one event for each decision, named, with fields whose names end with their units. The core puts those of
 * a step into the update (raft_init.telemetry); the driver adds the journal's and the state machine's, stamps them with its time,
 * and keeps them. The table is the documentation of the whole stream.
 *
 * Fields: `peer` is the other node, 0 when there is none; `why` says in words what decided, NULL when nothing is to say; v[] as
 * the table names them; where a name ends with _id it is a node, 16 hex digits in JSON. Indexes are of the log. All strings live for ever. */
#ifndef RAFT_TELEMETRY_H
#define RAFT_TELEMETRY_H

#include "wire/buf.h"
#include <stdint.h>

/* X(name of the constant, name in the stream, names of v[0] .. v[3]: "" not used) */
#define RAFT_TOLD_TABLE(X) \
	/* leading: heartbeats, and who answers them. Messages that only carry a commit or a read round are none of these */ \
	X(QUORUM_HEARTBEAT, "quorum.heartbeat", "sending", "peers", "commit_index", "") /* it was time for one */ \
	X(QUORUM_SUCCEEDED, "quorum.succeeded", "took_us", "commit_index", "", "") /* a quorum was heard since: still leading */ \
	X(QUORUM_MISSED, "quorum.missed", "silent_us", "", "", "") /* no quorum was heard between two heartbeats */ \
	X(QUORUM_CHECK, "quorum.check_failed", "silent_us", "", "", "") /* CheckQuorum: steps down */ \
	X(QUORUM_IDLE, "quorum.idle", "silence_us", "", "", "") /* nothing happens: heartbeats announce so long a silence */ \
	X(QUORUM_ACTIVE, "quorum.active", "heartbeat_us", "", "", "") \
	X(HEARTBEAT_DUPLICATE, "heartbeat.duplicate", "sending", "", "", "") /* peer had answered all of that number */ \
	X(HEARTBEAT_LATE, "heartbeat.missed_deadline", "silent_us", "", "", "") /* CheckQuorum does not count peer any more */ \
	X(HEARTBEAT_ORDER, "heartbeat.out_of_order", "sending", "latest_sending", "", "") \
	X(ROUND_EXPIRED, "heartbeat.round_expired", "round", "reads", "", "") /* reads gave up waiting for a quorum */ \
	/* what this node is */ \
	X(ROLE_FOLLOWER, "role.follower", "term", "last_index", "", "") /* of peer, 0: of nobody yet */ \
	X(ROLE_PRECANDIDATE, "role.precandidate", "term", "last_index", "", "") \
	X(ROLE_CANDIDATE, "role.candidate", "term", "last_index", "", "") \
	X(ROLE_LEADER, "role.leader", "term", "last_index", "", "") \
	X(ROLE_LONELY, "role.lonely", "term", "waited_us", "", "") /* no sign of a leader, and it does not stand: why */ \
	X(ROLE_LEFT_OUT, "role.left_out", "index", "", "", "") /* it led; the committed configuration is without it */ \
	X(ROLE_NO_LEADER, "role.not_the_leader", "its_term", "term", "", "") /* peer believes that it leads */ \
	X(ROLE_IMAGE, "role.receiving_snapshot", "trimmed_index", "index", "", "") /* peer has trimmed what follows index */ \
	X(ROLE_REMOVED, "role.removed", "term", "commit_index", "", "") \
	X(ROLE_FORGETFUL, "role.forgetful", "term", "last_index", "", "") /* asks peer to be re-admitted */ \
	X(ROLE_READMITTED, "role.readmitted", "term", "index", "", "") \
	/* elections */ \
	X(ELECTION_TIMEOUT, "election.timeout", "term", "waited_us", "", "") /* stands */ \
	X(ELECTION_ORDERED, "election.ordered", "term", "last_index", "", "") /* stands, since peer, the leader, says so */ \
	X(ELECTION_DECLINED, "election.order_declined", "its_term", "its_last_index", "", "") \
	X(ELECTION_DOUBT, "election.doubt", "silence_us", "patience_us", "", "") /* the leader may be gone: waits less */ \
	X(ELECTION_GRANTED, "election.vote_granted", "term", "prevote", "", "") /* to peer */ \
	X(ELECTION_REFUSED, "election.vote_refused", "term", "prevote", "", "") \
	X(ELECTION_COUNTED, "election.vote_counted", "term", "prevote", "granted", "") /* of peer */ \
	X(ELECTION_LOST, "election.lost", "term", "prevote", "", "") /* so many refuse that no quorum is left */ \
	/* log */ \
	X(LOG_PROPOSED, "log.proposed", "first_index", "last_index", "bytes", "") \
	X(LOG_PROPOSAL_REFUSED, "log.proposal_refused", "backlog_bytes", "", "", "") \
	X(LOG_TAKEN, "log.taken", "first_index", "last_index", "", "") /* from peer */ \
	X(LOG_REFUSED, "log.refused", "index", "hint_index", "", "") /* peer's append */ \
	X(LOG_TRUNCATED, "log.truncated", "from_index", "last_index", "", "") \
	X(LOG_DURABLE, "log.durable", "index", "", "", "") \
	X(LOG_COMMITTED, "log.committed", "index", "", "", "") \
	X(LOG_TRIMMED, "log.trimmed", "index", "", "", "") \
	X(LOG_IMAGE, "log.image", "index", "term", "", "") /* the state is that of an image now */ \
	X(DISK_SLOW, "log.disk_hangs", "waited_us", "index", "", "") /* another shall lead; peer: is told to stand */ \
	/* how a peer is doing, as its leader sees it */ \
	X(PEER_PROBE, "peer.probe", "match_index", "next_index", "", "") \
	X(PEER_REPLICATE, "peer.replicate", "match_index", "next_index", "", "") \
	X(PEER_SNAPSHOT, "peer.snapshot", "match_index", "next_index", "", "") \
	X(PEER_REFUSED, "peer.refused", "index", "next_index", "", "") /* its log does not agree at index */ \
	X(PEER_STALLED, "peer.stalled", "waited_us", "match_index", "", "") \
	X(PEER_WINDOW, "peer.window", "window_bytes", "rtt_us", "", "") /* half or twice what was told before */ \
	X(PEER_LEVEL, "peer.level", "level", "level_in_force", "", "") /* what its program understands */ \
	X(PEER_FORGOT, "peer.forgot", "match_index", "claimed_index", "", "") \
	X(PEER_REMEMBERS, "peer.remembers", "index", "", "", "") \
	X(PEER_FULL, "peer.full", "match_index", "", "", "") /* a witness at its limit, or not any more */ \
	X(PEER_ROUND, "peer.catch_up_round", "round", "took_us", "index", "") /* of one that was not caught up */ \
	X(PEER_SOURCE, "peer.catch_up_source", "source_id", "upto_index", "", "") /* who serves peer; 0: this leader again */ \
	/* membership, leadership */ \
	X(CONFIG_APPENDED, "config.appended", "index", "members", "joint", "level") /* in force from here on */ \
	X(CONFIG_COMMITTED, "config.committed", "index", "members", "joint", "level") \
	X(CONFIG_UNDONE, "config.undone", "index", "members", "joint", "level") /* back to that one */ \
	X(CONFIG_REFUSED, "config.refused", "index", "", "", "") /* peer: the member that it is for; index: in force */ \
	X(TRANSFER_BEGUN, "transfer.begun", "index", "match_index", "", "") \
	X(TRANSFER_PROPOSED, "transfer.proposed", "index", "match_index", "", "") /* peer had better lead; the driver says when */ \
	X(TRANSFER_TOLD, "transfer.told", "index", "", "", "") /* peer is level, and shall stand */ \
	X(TRANSFER_REFUSED, "transfer.refused", "index", "", "", "") \
	X(TRANSFER_GIVEN_UP, "transfer.given_up", "index", "", "", "") \
	/* reads and leases */ \
	X(READ_ROUND, "read.round", "round", "reads", "index", "") \
	X(READ_SERVED, "read.served", "reads", "index", "by_lease", "") /* peer: the leader that was asked */ \
	X(READ_FAILED, "read.failed", "reads", "", "", "") \
	X(READ_REFUSED, "read.refused", "waiting", "", "", "") /* to peer */ \
	X(LEASE_HELD, "lease.held", "term", "", "", "") \
	X(LEASE_LOST, "lease.lost", "term", "", "", "") \
	/* entries from others than the leader */ \
	X(FETCH_ASKED, "fetch.asked", "first_index", "last_index", "", "") \
	X(FETCH_DECLINED, "fetch.declined", "upto_index", "commit_index", "", "") /* what the leader proposed: peer as a source */ \
	X(FETCH_SERVED, "fetch.served", "first_index", "last_index", "", "") \
	X(FETCH_REFUSED, "fetch.refused", "first_index", "have_index", "", "") \
	X(FETCH_TAKEN, "fetch.taken", "first_index", "last_index", "", "") \
	X(FETCH_ENDED, "fetch.ended", "upto_index", "commit_index", "", "") \
	X(FETCH_FILLED, "fetch.filled", "index", "", "", "") /* a hole */ \
	/* messages; why is the type */ \
	X(MSG_SENT, "message.sent", "term", "index", "entries", "") \
	X(MSG_RECEIVED, "message.received", "term", "index", "entries", "") \
	/* the journal (raft/journal.h); the shell tells of fetches, which knows how many belong together */ \
	X(JOURNAL_APPEND, "journal.append", "first_index", "last_index", "", "") \
	X(JOURNAL_COMMIT_BUFFER, "journal.commit_buffer", "bytes", "offset_bytes", "", "") /* records go to the file */ \
	X(JOURNAL_FETCH, "journal.fetch", "index", "bytes", "", "") \
	X(JOURNAL_FETCH_BETWEEN, "journal.fetch_between", "first_index", "last_index", "bytes", "") /* for one message */ \
	X(JOURNAL_REVERSE_FIND, "journal.reverse_find", "index", "base_index", "", "") /* from the end, for trimming */ \
	X(JOURNAL_REWIND, "journal.rewind", "index", "segment", "", "") /* a truncation goes into an older segment */ \
	X(JOURNAL_TRUNCATE, "journal.truncate", "from_index", "entries", "", "") \
	X(JOURNAL_SYNC, "journal.sync", "took_us", "index", "", "") \
	X(JOURNAL_FILL, "journal.fill", "index", "bytes", "", "") /* of a hole */ \
	/* the state machine (the shell tells) */ \
	X(MACHINE_COMMAND, "machine.command", "index", "", "", "") /* one published by the connection that committed it */ \
	X(MACHINE_COMMANDS, "machine.commands", "first_index", "last_index", "", "") /* several at once */ \
	X(MACHINE_QUERY, "machine.query", "index", "", "", "") /* a linearizable read let go; not those by lease */ \
	X(MACHINE_SNAPSHOT, "machine.snapshot", "index", "pages", "", "") /* an image opened for peer */

enum raft_told_event {
#define X(id, name, a, b, c, d) RAFT_TOLD_##id,
	RAFT_TOLD_TABLE(X)
#undef X
	        RAFT_TOLD_COUNT,
	/* the core's are before these */
	RAFT_TOLD_JOURNAL = RAFT_TOLD_JOURNAL_APPEND,
	RAFT_TOLD_MACHINE = RAFT_TOLD_MACHINE_COMMAND
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
