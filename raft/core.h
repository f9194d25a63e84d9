/* Insides of the core, shared by the files of this folder and by nobody else. raft/README.md explains them from the
 * outside.
 *
 * One step: begin (scratch is emptied) -> handle the event -> timers -> leader's flush -> finish (update is filled).
 * Every state change goes through one function: raft_become for roles, raft_peer_to for a peer's progress,
 * raft_commit_to for the commit index, raft_configs_* for the configuration. */
#ifndef RAFT_CORE_H
#define RAFT_CORE_H

#include "raft/raft.h"
#include "raft/telemetry.h"
#include <assert.h>

/* Above this a term or index in a message is nonsense; keeps all additions from overflowing. */
#define RAFT_NUMBER_MAX (UINT64_MAX >> 2)
/* Moments of sending that a leader remembers. */
#define RAFT_SENDINGS 64u
/* priority.c: steps of an election timeout; heartbeats; and as multiples of the election timeout. */
#define RAFT_PRIORITY_STEPS 3u
#define RAFT_FIT_HEARTBEATS 10u
#define RAFT_RETRY_TIMEOUTS 4u
#define RAFT_RETRY_LONGEST 256u
#define RAFT_ASKED_TIMEOUTS 200u
#define RAFT_LEFT_TIMEOUTS 10u
/* Waits of a witness that leads and comes to nothing, until it leaves that to a data voter. */
#define RAFT_WITNESS_TIMEOUTS 10u
/* For how long a silent learner is still waited for with what may be forgotten (witness.c). */
#define RAFT_KEEP_TIMEOUTS 30u
/* Entries that a member may lack and still be near the end of the log. */
#define RAFT_NEAR_ENTRIES 64u
/* fetch.c: a request is repeated so often. source.c: waits without progress before another source is tried; election timeouts for which the
 * leader then serves a member itself. */
#define RAFT_FETCH_TRIES 4u
#define RAFT_SOURCE_TIMEOUTS 2u
#define RAFT_SOURCE_PAUSE 10u
/* Requests for a read index that other nodes may have waiting here. */
#define RAFT_REMOTE_READS_MAX 4096u

/* ---- log.c: metadata of the log, a ring ---- */
struct raft_log_meta {
	uint64_t term;
	uint64_t end; /* bytes of all entries up to this one, from some beginning */
	uint32_t size;
	uint8_t kind;
};
struct raft_log {
	struct raft_log_meta *ring;
	size_t cap, head, n; /* cap is a power of two or 0 */
	uint64_t base_index, base_term, base_end;
};
uint64_t raft_log_last(const struct raft_log *l);
uint64_t raft_log_last_term(const struct raft_log *l);
uint64_t raft_log_term(const struct raft_log *l, uint64_t index);     /* 0 outside base .. last */
struct raft_log_meta raft_log_at(const struct raft_log *l, uint64_t index); /* base < index <= last */
bool raft_log_matches(const struct raft_log *l, uint64_t index, uint64_t term);
bool raft_log_append(struct raft_log *l, uint64_t term, uint32_t size, uint8_t kind); /* false: no memory */
void raft_log_truncate(struct raft_log *l, uint64_t from);
void raft_log_trim(struct raft_log *l, uint64_t upto);
void raft_log_restart(struct raft_log *l, uint64_t index, uint64_t term); /* empty, above that */
void raft_log_correct(struct raft_log *l, uint64_t index, uint32_t size, uint8_t kind); /* O(n) */
uint64_t raft_log_bytes_above(const struct raft_log *l, uint64_t index); /* of the entries above index */
/* Largest index <= `index` whose term is <= `term`, as far as the log reaches down; the entry at which two logs may
 * still agree (fast back-up, end of section 5.3 of the paper). */
uint64_t raft_log_back_up(const struct raft_log *l, uint64_t index, uint64_t term);

/* ---- progress.c: peers ---- */
struct raft_inflight {
	uint64_t last; /* index of the append's last entry */
	uint64_t bytes;
};
struct raft_peer {
	uint64_t id;
	uint8_t flags; /* as in the current configuration */
	uint8_t state; /* enum raft_progress_state */
	uint8_t priority;
	bool paused;   /* PROBE: one is out, wait */
	bool full;     /* a witness that takes no more entries */
	bool voted, granted; /* in the campaign that runs */
	bool forgot; /* leader: as its latest answer says; it counts nowhere (forgetful.c) */
	uint64_t epoch; /* counts returns to PROBE; refusals of what was sent before the latest one are late */
	uint64_t match, next, applied;
	uint64_t first_match;     /* the first one that this leader knew; 0: none yet */
	uint32_t level;           /* that it announced to this leader; 0: none yet */
	uint32_t tries;           /* priority.c: transfers to it by ourselves, lately; kept from term to term, and so is: */
	uint64_t tried_us;        /* when the latest was begun */
	uint64_t fit_since_us;    /* priority.c: since when it could lead; 0: it cannot, or need not */
	uint64_t heard_us;        /* latest answer to this leader; 0: none */
	uint64_t round_target, round_began_us; /* rounds.c: the round that runs, if one is open */
	uint32_t rounds, round_us;             /* finished ones, how long the latest took */
	bool round_open;
	uint64_t alive_until_us;  /* CheckQuorum counts it until then (pulse.c) */
	uint64_t commit_sent;     /* commit index that it has been told, if nothing was lost */
	uint64_t awaits;          /* index whose commit it is to be told at once; 0: none */
	uint64_t round_ack;       /* latest read round that it answered */
	uint64_t leased_us;       /* when the latest heartbeat was sent that it is known to have received; 0: never */
	uint64_t sent_us;         /* since when it owes us progress */
	uint64_t stall_us;        /* how long that may take before we send again */
	/* pulse.c: heartbeats to it */
	uint64_t beat_due_us;     /* when the next goes out */
	uint64_t beat_number;     /* number of the latest */
	uint64_t asked_us;        /* when the first went out that is not answered; 0: all are */
	uint64_t quiet_number;    /* the first that announced a long silence; 0: none since we were active */
	bool quiet;               /* it has answered that one */
	uint64_t timed_number, timed_us; /* the one that is timed; 0: none */
	uint8_t timed_lost;       /* how many such were not answered in a row */
	uint32_t rtt_us, rtt_var_us, rtt_peak_us; /* 0: unknown. peak: the longest, slowly forgotten */
	/* source.c: who serves it */
	uint64_t source, source_upto;                /* 0: this leader; else up to there */
	uint64_t source_match, source_due_us;        /* progress, and when there must be more */
	uint64_t source_say_us, source_look_us;      /* when it is told again; when it is looked at again */
	uint32_t sources_tried;                      /* bits by place in peers[] */
	struct raft_inflight *fl; /* ring of window_msgs, allocated with the peer */
	uint32_t fl_head, fl_n;
	uint64_t fl_bytes;
	/* flow.c */
	uint64_t window, slow_bytes; /* bytes that may be in flight; where slow start ends */
	uint64_t batch_due_us; /* when what waits goes out at the latest; 0: nothing waits */
	bool catching; /* larger appends, until all is sent */
	bool backing;  /* stalled, no progress since */
	/* telemetry alone: heartbeats by number that are not answered yet, the latest that is; silent for too long; the window when that was news */
	uint8_t beats[RAFT_SENDINGS];
	uint64_t answered_number, window_told;
	bool late;
};

/* ---- readindex.c ---- */
struct raft_pending_read {
	uint64_t corr, from; /* from 0: asked on this node */
	uint64_t id;         /* follower: order among those forwarded; requests name the newest one they stand for */
	uint64_t round;      /* leader: the round that serves it; 0: joins the next */
	uint64_t deadline_us;
};

/* ---- lease.c ---- */
struct raft_lease {
	uint32_t length_us;
	/* the clock of the leases, as of this step */
	struct raft_clock clock;
	uint64_t greatest_us;  /* of all earliest_us since it was last unsure */
	uint64_t promise_us;   /* follower: latest_us at the last sign of the leader; 0: unknown */
	/* leader: its sendings in this term */
	uint64_t number, first; /* latest given; those below `first` are forgotten */
	uint64_t sent_us[RAFT_SENDINGS]; /* by number % RAFT_SENDINGS: the earliest that it can have been */
	uint64_t told; /* the log's end in the latest TIMEOUT_NOW, until a later entry is committed; 0: none */
};

struct raft {
	uint64_t self, now_us, rng;
	uint32_t election_us, heartbeat_us, window_msgs, window_bytes, append_max_bytes, commit_delay_us, catch_up_bytes, persist_us, silence_max_us;
	uint32_t uncommitted_bytes;

	uint64_t term, vote;
	struct raft_log log;
	uint64_t commit, applied;
	uint64_t durable; /* the log is durable here up to this index */
	uint64_t matched; /* follower: the log is known to equal that of this term's leader up to this index */

	enum raft_role role;
	uint64_t leader;
	bool no_prevote, no_check_quorum, leave_silently;
	bool ever_contact;
	uint64_t contact_us;           /* last sign of a live leader; a restart counts (I11) */
	uint64_t election_deadline_us; /* UINT64_MAX: none */
	uint64_t silence_us, silence_number; /* follower: for how long its leader may be silent, and which sending said so; 0: election_us */
	uint64_t patience_us;          /* the same, by the network alone, of the latest leader that said so */
	uint64_t owed_us;              /* the disk's latest sign of life, if something waits for it */
	uint64_t stood_us, votes_took_us; /* when it began; leader: how long it took */
	uint64_t campaign;             /* id of the round of votes or pre-votes that runs */
	uint64_t ask_due_us;           /* candidates: when those that have not answered are asked again */
	bool ordered;                  /* candidate: the leader told us to stand (thesis 3.10) */

	/* configurations: the latest committed one and all later ones; the last is in force. configs[0] may be at or
	 * below base_index. */
	struct raft_log_config *configs;
	size_t n_configs, cap_configs;
	uint64_t config_changes; /* counts changes of what is in force */

	struct raft_peer peers[RAFT_MEMBERS_MAX];
	uint32_t n_peers;

	/* leader */
	uint64_t term_start; /* index of the first entry of its term */
	bool elected_alone;  /* won without a message: term and vote are durable no earlier than entry term_start */
	uint64_t commit_due_us; /* UINT64_MAX: none */
	uint64_t active_us;     /* when something was last proposed or read */
	bool ask_first;            /* the driver begins transfers */
	uint64_t prefer, preferred; /* in this step; the latest that no TRANSFER has followed */
	uint64_t transfer_to;      /* who shall lead instead; 0: no transfer is under way */
	uint64_t transfer_index;   /* the log's end since it began */
	uint64_t transfer_due_us;  /* when TIMEOUT_NOW is sent again; UINT64_MAX: it was not sent yet */
	uint64_t transfer_end_us;  /* when it is given up */
	uint64_t transfer_hold_us; /* for how long its target is to keep leadership */
	uint64_t hold_until_us;    /* until then no transfer for the sake of priorities */

	bool told_removed;         /* somebody's committed configuration does not have us, and no leader has spoken to us since */

	uint64_t keep_above;       /* witness.c: known committed and durable on every data voter */
	uint64_t keep_log_bytes;
	uint32_t level;            /* that this program understands */

	struct raft_lease lease;

	struct raft_pending_read *reads;
	size_t n_reads, cap_reads, n_remote_reads;
	uint64_t round, round_done; /* latest read round begun, latest that a quorum answered */
	uint64_t round_index;       /* commit index when the latest began */
	uint64_t read_id;        /* follower: latest id given */
	uint64_t request_due_us; /* follower: when a request for those waiting is due */

	/* fetch.c: entries from a member that the leader has named */
	struct {
		uint64_t source, upto, term, corr; /* source 0: none; term: ours when it was named */
		uint64_t asked;                    /* the entry before the first of the latest request */
		uint64_t due_us;                   /* when that is repeated */
		uint32_t tries;
	} fetch;
	uint64_t image_index, image_term; /* what the leader of that term has trimmed */
	/* holes.c, ascending */
	struct raft_hole *holes;
	size_t n_holes;
	uint64_t holes_corr, holes_due_us;
	uint32_t holes_turn;

	/* forgetful.c */
	bool forgetful;
	uint64_t forgetful_corr;   /* of the question */
	uint64_t forgetful_floor;  /* the answer: the log's end of a leader that was confirmed since; 0: none yet */
	uint64_t forgetful_due_us; /* when the question is asked again */

	/* scratch of one step */
	bool nomem;
	bool hard_changed;
	uint64_t truncate_from;
	struct wire_entry *new_entries;
	size_t n_new, cap_new;
	struct wire_entry *fills;
	size_t n_fills, cap_fills;
	struct wire_buf config_bytes;
	struct wire_msg *msgs;
	size_t *msg_at; /* where in `pool` the message's entries begin */
	size_t n_msgs, cap_msgs;
	struct wire_entry *pool;
	size_t n_pool, cap_pool;
	struct raft_read *settled;
	size_t n_settled, cap_settled;
	int proposal_code;
	uint64_t proposal_index;
	uint64_t proposal_member;
	bool transfer_ended;
	struct wire_err stop; /* why this node cannot go on; code 0: it can */
	struct wire_err refusal; /* of a CONFIG; code 0: none */
	bool telemetry;
	struct raft_told *told;
	size_t n_told, cap_told;
	/* what was told already, so that only news is */
	struct {
		const char *lonely; /* why it does not stand */
		uint64_t beat_us;   /* leader: the latest heartbeat, until a quorum has been heard since */
		bool idle, leased, removed;
	} news;
};

/* ---- telemetry.c: does nothing unless asked for ---- */
void raft_tell(struct raft *r, enum raft_told_event event, uint64_t peer, uint64_t a, uint64_t b, uint64_t c);
void raft_tell_why(struct raft *r, enum raft_told_event event, uint64_t peer, const char *why, uint64_t a, uint64_t b, uint64_t c);

void raft_tell_config(struct raft *r, enum raft_told_event event, const struct raft_log_config *c);
void raft_tell_news(struct raft *r, uint64_t lease_until_us); /* at the end of a step: what the state has become */

/* ---- step.c ---- */
/* Makes room for one more element; false and r->nomem when memory is short. */
bool raft_grow(struct raft *r, void **array, size_t *cap, size_t n, size_t elem);
uint64_t raft_random(struct raft *r);
/* A new message to `to` with the current term; NULL when memory is short. Valid until the next call. */
struct wire_msg *raft_send(struct raft *r, enum wire_msg_type type, uint64_t to, bool after_persist);
/* An entry at the end of the log and in the update. */
void raft_append(struct raft *r, const struct wire_entry *e);
void raft_commit_to(struct raft *r, uint64_t index);

/* ---- role.c ---- */
void raft_become(struct raft *r, enum raft_role role);
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader);
void raft_reset_election(struct raft *r);
void raft_contact(struct raft *r);

/* ---- config.c ---- */
const struct raft_log_config *raft_config_last(const struct raft *r);
const struct raft_config *raft_config_before(const struct raft *r, uint64_t index); /* as entries below that index have it; index is above the commit index */
uint8_t raft_self_flags(const struct raft *r);
bool raft_self_votes(const struct raft *r);   /* a voter in either half of the current configuration */
bool raft_may_campaign(const struct raft *r);
bool raft_alone(const struct raft *r);        /* and the only one */
bool raft_configs_push(struct raft *r, uint64_t index, const struct raft_config *c);
void raft_configs_truncate(struct raft *r, uint64_t from);
void raft_configs_prune(struct raft *r);
/* The same voters (as such, whatever else they are), and as many for each kind of quorum. Neither is joint. */
bool raft_config_same_quorums(const struct raft_config *a, const struct raft_config *b);
/* Way into and out of a joint configuration (thesis 4.3). false: the union has too many members. */
bool raft_config_join(const struct raft_config *old, const struct raft_config *target, struct raft_config *ret);
void raft_config_leave(const struct raft_config *joint, struct raft_config *ret);

/* ---- progress.c ---- */
struct raft_peer *raft_peer(struct raft *r, uint64_t id);
bool raft_peers_sync(struct raft *r); /* after a change of configuration */
void raft_peers_free(struct raft *r);
void raft_peers_begin(struct raft *r); /* a new leader's view of them */
void raft_peer_to(struct raft *r, struct raft_peer *p, enum raft_progress_state state);
void raft_peer_ack(struct raft *r, struct raft_peer *p, uint64_t index);
void raft_peer_reject(struct raft *r, struct raft_peer *p, const struct wire_msg *m);
void raft_peer_check_stall(struct raft *r, struct raft_peer *p);
void raft_peer_sent(struct raft *r, struct raft_peer *p, uint64_t last, uint64_t bytes);
bool raft_peer_may_send(const struct raft *r, const struct raft_peer *p);

/* ---- quorum.c ---- */
/* The largest value that a quorum of that kind has reached: the quorum-th largest over the voters, the smaller of both halves
 * when joint. */
uint64_t raft_quorum(const struct raft *r, enum raft_quorum_kind kind, uint64_t (*get)(const struct raft_peer *), uint64_t self_value);

/* ---- election.c ---- */
void raft_campaign(struct raft *r);
void raft_campaign_ordered(struct raft *r); /* without a pre-vote, and heard by voters with a live leader */
void raft_ask_votes(struct raft *r); /* (again) those who have not answered */
void raft_heed_removal(struct raft *r, const struct wire_msg *m);
bool raft_removed(const struct raft *r);
bool raft_leader_alive(const struct raft *r); /* votes are refused */
const char *raft_hindrance(const struct raft *r); /* why it does not stand for election now; NULL: nothing keeps it from that */
void raft_on_vote_req(struct raft *r, const struct wire_msg *m);
void raft_on_vote_resp(struct raft *r, const struct wire_msg *m);

/* ---- leader.c ---- */
void raft_leader_begin(struct raft *r);
void raft_leader_timers(struct raft *r);
void raft_leader_flush(struct raft *r);
uint64_t raft_leader_deadline(const struct raft *r);
/* A leader's message, which waits for the disk only when the term itself may not be durable. */
struct wire_msg *raft_leader_send(struct raft *r, enum wire_msg_type type, uint64_t to);
void raft_heartbeat(struct raft *r, struct raft_peer *p);
void raft_propose(struct raft *r, const struct raft_event *ev);
/* An entry of our own, made here. */
void raft_append_local(struct raft *r, enum wire_entry_kind kind, const uint8_t *data, uint32_t size);
void raft_tell_commit(struct raft *r); /* now, those that do not know of it */
void raft_tell_soon(struct raft *r, uint64_t peer, uint64_t index); /* RAFT_EV_TELL */
void raft_on_append_resp(struct raft *r, const struct wire_msg *m);
void raft_on_heartbeat_resp(struct raft *r, const struct wire_msg *m);
bool raft_leader_is_ready(const struct raft *r);

/* ---- change.c ---- */
void raft_propose_config(struct raft *r, const struct raft_config *target);
void raft_change_go_on(struct raft *r); /* leader: the next configuration, when the latest one is committed */

/* ---- witness.c ---- */
bool raft_self_witness(const struct raft *r);
bool raft_self_keeps(const struct raft *r);           /* a witness in any configuration that may still count */
void raft_keep_update(struct raft *r);               /* leader */
uint64_t raft_keep_hint(struct raft *r, const struct raft_peer *p); /* what a heartbeat tells p of it */
uint64_t raft_keep_above(struct raft *r);            /* keep_above, or where a witness's log began in an earlier life */
void raft_keep_told(struct raft *r, uint64_t index); /* committed and durable on every data voter, as its leader says */
bool raft_witness_full(struct raft *r);
bool raft_witness_declines(struct raft *r, uint64_t first, const struct wire_entry *entries, uint32_t n);
uint64_t raft_full_upto(const struct raft *r);       /* leader: a full one is sent entries up to there all the same */
void raft_witness_heard(struct raft *r, struct raft_peer *p, bool full); /* leader: what p says of itself */
void raft_witness_pump(struct raft *r);              /* leading as one: hands over */
bool raft_witness_leaves(struct raft *r);                /* a leader that cannot commit its first entry, and another might; true: it is none any more */
int raft_witness_change(struct raft *r, const struct raft_config *target, struct wire_err *err); /* may it be proposed? */

/* ---- priority.c ---- */
uint64_t raft_priority_delay(const struct raft *r);
void raft_priority_pump(struct raft *r); /* leader: hands over to who had better lead */
uint64_t raft_priority_deadline(const struct raft *r);
/* ---- flow.c ---- */
void raft_flow_begin(struct raft *r, struct raft_peer *p);
uint64_t raft_flow_stall(const struct raft *r, const struct raft_peer *p); /* how long progress may take */
void raft_flow_acked(struct raft *r, struct raft_peer *p, uint64_t in_flight, uint64_t acked); /* bytes; in_flight: with them */
void raft_flow_stalled(struct raft *r, struct raft_peer *p);
void raft_flow_moved(struct raft *r, struct raft_peer *p);         /* its match did */
uint64_t raft_flow_append_max(const struct raft *r, const struct raft_peer *p);
void raft_flow_note(struct raft *r, struct raft_peer *p);          /* what waits for it, before anything is sent */
bool raft_flow_ready(const struct raft *r, const struct raft_peer *p); /* REPLICATE: an append may go now */
uint64_t raft_flow_deadline(const struct raft *r);
uint64_t raft_flow_backlog(const struct raft *r);
bool raft_flow_admits(const struct raft *r, const struct wire_entry *entries, uint32_t n);

/* ---- pulse.c ---- */
void raft_pulse_begin(struct raft *r, struct raft_peer *p);
void raft_pulse_made_voter(struct raft *r, struct raft_peer *p);
void raft_pulse_contact(struct raft *r, struct raft_peer *p);
void raft_pulse_announce(struct raft *r, struct raft_peer *p, struct wire_msg *heartbeat); /* it goes out; log_term is set */
void raft_pulse_answered(struct raft *r, struct raft_peer *p, uint64_t number);
void raft_pulse_asked_for_vote(struct raft *r, uint64_t peer); /* it misses its leader */
void raft_pulse_link(struct raft *r, struct raft_peer *p, bool up);
void raft_pulse_active(struct raft *r);                       /* leader: something is proposed or read */
void raft_pulse_flush(struct raft *r);
uint64_t raft_pulse_deadline(const struct raft *r);
bool raft_quorum_lost(const struct raft *r);                  /* CheckQuorum */
void raft_pulse_tell_heard(struct raft *r);                   /* telemetry: of a quorum, perhaps; and that there is none */
void raft_pulse_tell_lost(struct raft *r);
void raft_pulse_announced(struct raft *r, const struct wire_msg *heartbeat); /* follower, of its leader */
void raft_pulse_forget_leader(struct raft *r);
void raft_pulse_doubt(struct raft *r);                        /* follower: the leader may be gone, though it may be silent for long */
bool raft_leader_expected(const struct raft *r);              /* follower: no reason to miss the leader yet; pre-votes are refused */
uint64_t raft_election_timeout(const struct raft *r);         /* the shortest now */
uint64_t raft_patience(const struct raft *r);                 /* how long an answer may take: an election timeout, or what the network needs */
bool raft_disk_hangs(const struct raft *r);
bool raft_disk_replaces(struct raft *r);                      /* leader: it does, and another one should lead: we have stepped down */

/* ---- level.c ---- */
uint32_t raft_level_in_force(const struct raft *r);
int raft_level_check(uint32_t own, const struct raft_config *c, struct wire_err *err); /* WIRE_VERSION: it is above `own` */
/* An entry's configuration; false: it cannot be read, or may not be in force. If that is for its level, the step fails. */
bool raft_level_reads(struct raft *r, const struct wire_entry *e, struct raft_config *ret_config);
bool raft_level_lacks(const struct raft *r, const struct raft_peer *p);
int raft_level_change(struct raft *r, const struct raft_config *target, struct wire_err *err); /* may it be proposed? */
bool raft_level_raise(struct raft *r, struct raft_config *ret_config); /* leader: to be proposed now */

/* ---- follower.c ---- */
void raft_on_append(struct raft *r, const struct wire_msg *m);
void raft_on_heartbeat(struct raft *r, const struct wire_msg *m);
/* Entries from `first` on, which are not below what is committed. They replace what differs. false: no leader can have sent them, or a
 * configuration cannot be read, nothing was changed; or no memory. */
bool raft_take(struct raft *r, uint64_t first, const struct wire_entry *entries, uint32_t n);
void raft_ack(struct raft *r, uint64_t leader); /* of all that matches, once it is durable */

/* ---- transfer.c ---- */
void raft_transfer(struct raft *r, uint64_t peer);
void raft_transfer_auto(struct raft *r, struct raft_peer *p); /* by ourselves; does nothing where it cannot be */
void raft_transfer_next(struct raft *r);   /* the same, to whom it was tried with longest ago */
bool raft_transfer_near(const struct raft *r, const struct raft_peer *p); /* it lacks so little that a transfer will be short */
void raft_transfer_end(struct raft *r);    /* given up, or leadership is lost */
void raft_transfer_timers(struct raft *r);
void raft_transfer_pump(struct raft *r);   /* leader: tells the target when it is level, and again */
uint64_t raft_transfer_leave(struct raft *r); /* steps down; whoever has the whole log is told to stand at once: its id, 0: nobody */
uint64_t raft_transfer_deadline(const struct raft *r);
void raft_on_timeout_now(struct raft *r, const struct wire_msg *m);

/* ---- readindex.c ---- */
void raft_read_ask(struct raft *r, uint64_t corr);
void raft_on_read_req(struct raft *r, const struct wire_msg *m);
void raft_on_read_resp(struct raft *r, const struct wire_msg *m);
void raft_read_pump(struct raft *r);      /* leader: finish and begin rounds */
void raft_read_forward(struct raft *r);   /* follower: (re)send a request when one is due */
void raft_read_fail_all(struct raft *r);  /* leadership is lost */
void raft_read_adopt(struct raft *r);     /* leadership is won: those forwarded become ours */
void raft_read_timers(struct raft *r);
uint64_t raft_read_deadline(const struct raft *r);

/* ---- lease.c ---- */
uint32_t raft_lease_length(uint32_t election_us, uint32_t drift_ppm);
void raft_lease_time(struct raft *r, const struct raft_event *ev); /* at the beginning of each step */
void raft_lease_begin(struct raft *r);                            /* a new leader has none */
uint64_t raft_lease_stamp(struct raft *r);                        /* the number for a heartbeat that goes out now; 0: not to be counted */
void raft_lease_ack(struct raft *r, struct raft_peer *p, uint64_t number);
void raft_lease_told(struct raft *r, uint64_t index);             /* TIMEOUT_NOW goes out, the log ends at index */
bool raft_lease_wants_entry(const struct raft *r);                /* only a further entry can give it back */
uint64_t raft_lease_until(const struct raft *r);                  /* 0: none now */
void raft_lease_contact(struct raft *r);                          /* follower: a sign of the leader */
bool raft_lease_promised(const struct raft *r);                   /* follower: it may still count on us */

/* ---- fetch.c ---- */
/* Entries from .. last into the message that was made last, at most max_bytes unless it is one; how many. */
uint32_t raft_fill_msg(struct raft *r, struct wire_msg *m, uint64_t from, uint64_t last, uint64_t max_bytes, uint64_t *ret_bytes);
bool raft_entries_plausible(const struct wire_msg *m); /* as a leader can have them: terms do not fall, none is above its own */
void raft_on_catch_up(struct raft *r, const struct wire_msg *m);
void raft_on_fetch_req(struct raft *r, const struct wire_msg *m);
void raft_on_fetch_resp(struct raft *r, const struct wire_msg *m);
/* last_term 0: only committed ones will do. */
void raft_fetch_ask(struct raft *r, uint64_t peer, uint64_t corr, uint64_t prev, uint64_t last, uint64_t last_term);
void raft_fetch_step(struct raft *r); /* at the end of each step */
uint64_t raft_fetch_deadline(const struct raft *r);
bool raft_needs_image(const struct raft *r);
void raft_image_told(struct raft *r, uint64_t index); /* the leader has trimmed up to there */

/* ---- source.c ---- */
void raft_source_begin(struct raft *r, struct raft_peer *p);
void raft_source_step(struct raft *r, struct raft_peer *p); /* leader, at the end of each step */
uint64_t raft_source_deadline(const struct raft *r);

/* ---- holes.c ---- */
struct raft_hole {
	uint64_t index;
	bool handed; /* its data is with the driver */
};
int raft_holes_begin(struct raft *r, const uint64_t *holes, size_t n, struct wire_err *err);
void raft_holes_truncate(struct raft *r, uint64_t from);
void raft_holes_trim(struct raft *r, uint64_t upto);
uint64_t raft_hole_before(const struct raft *r, uint64_t above, uint64_t last); /* `last`, or what is before the first hole above `above` */
void raft_holes_offer(struct raft *r, uint64_t first, const struct wire_entry *entries, uint32_t n);
void raft_holes_answered(struct raft *r, const struct wire_msg *m); /* FETCH_RESP */
void raft_on_filled(struct raft *r, uint64_t index, uint64_t term);
void raft_holes_step(struct raft *r); /* at the end of each step */
uint64_t raft_holes_deadline(const struct raft *r);

/* ---- image.c ---- */
void raft_on_image(struct raft *r, const struct raft_event *ev);

/* ---- rounds.c ---- */
void raft_round_begin(struct raft *r, struct raft_peer *p);
void raft_round_step(struct raft *r, struct raft_peer *p); /* leader, at the end of each step */
bool raft_caught_up(const struct raft *r, const struct raft_peer *p);

/* ---- forgetful.c ---- */
void raft_forgetful_begin(struct raft *r);
bool raft_forgetful_told(struct raft *r, const struct wire_msg *m); /* READ_RESP: it answers our question */
void raft_forgetful_step(struct raft *r);                           /* at the end of each step */
uint64_t raft_forgetful_deadline(const struct raft *r);
/* Leader, first of all with each answer to an append or heartbeat: takes note of who has forgotten. false: nothing more is to be
 * done with this answer. */
bool raft_peer_remembers(struct raft *r, struct raft_peer *p, const struct wire_msg *m);

/* ---- invariant.c ---- */
/* WIRE_OK, or WIRE_INTERNAL with what contradicts itself. */
int raft_invariants(const struct raft *r, struct wire_err *err);

#endif
