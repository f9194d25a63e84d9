/* Insides of the simulator: raft_sim.c (events, faults, clients), raft_sim_node.c (driver, disk, checks) and
 * raft_sim_clock.c (clocks and leases). */
#ifndef TEST_UNIT_RAFT_SIM_IMPL_H
#define TEST_UNIT_RAFT_SIM_IMPL_H

#include "raft/raft.h"
#include "test/unit/raft_sim.h"

enum { NODES = 6, LOG_MAX = 4096, READS_MAX = 64, WRITES_MAX = 4096 };

struct sim_entry {
	uint64_t term, sum;
	uint8_t kind;
	uint32_t size;
	bool hole; /* its data cannot be read */
	const uint8_t *data; /* owned by the run's arena */
};

/* Entries by index: e[i] is index i; those at and below base are not there any more. */
struct sim_log {
	uint64_t base, base_term, last;
	struct sim_entry e[LOG_MAX];
};

struct sim_write { /* one update's worth, not durable yet */
	uint64_t done_us;
	uint64_t truncate_from, term, vote, first, commit;
	bool must_sync, forgetful;
	uint32_t n_entries;
	struct sim_entry *entries; /* arena */
	uint32_t n_fills;
	uint64_t *fills; /* arena: indexes */
	uint32_t n_msgs;
	struct wire_msg *msgs; /* arena; to send after it */
};

struct sim_read { uint64_t corr, floor, at_us; };

struct sim_clock { uint64_t since_us, read_us; int64_t ppm; }; /* at true time since_us it showed read_us */

struct sim_node {
	uint64_t id;
	struct raft *raft; /* NULL: down */
	bool asleep;
	struct sim_clock clock;
	uint64_t clock_seen_us, clock_top_us, deadline_us; /* on that clock: as of the latest step, greatest seen; next tick */
	bool absolute; /* measures leases by a clock that tells true time */
	uint64_t lease_until_us, read_index; /* what the driver shows to other threads */
	/* durable */
	uint64_t term, vote, commit_mark;
	bool forgetful;
	struct raft_config base_config;
	struct sim_log disk;
	/* lost by a crash */
	struct sim_log log; /* as written, synced or not */
	struct sim_write writes[WRITES_MAX];
	uint32_t w_head, w_n;
	uint64_t commit, applied;
	enum raft_role role;
	bool ready;
	uint64_t keep_above; /* as its core said last */
	uint64_t leader, now_term;
	uint64_t transfer_to, transfer_since_us; /* on the node's clock */
	struct sim_read reads[READS_MAX];
	uint32_t n_reads;
	uint64_t vote_sent_term, vote_sent_to; /* never lost: what others have heard */
};

enum sim_event_type { SIM_MSG, SIM_DISK, SIM_FAULT, SIM_CLIENT };
struct sim_event {
	uint64_t at_us, seq;
	enum sim_event_type type;
	uint64_t node;
	struct wire_msg *msg;
};

struct sim {
	uint64_t seed, rng, now_us, seq, value;
	bool verbose, failed, quiet, resting; /* quiet: no new faults; resting: no proposals */
	uint32_t loss, repeat, delay_us, slow_us; /* per mille, per mille, longest, for one message in 50 */
	uint32_t disk_us; /* longest write; 0: durable at once */
	bool with_configs, with_trim, with_crashes, with_cuts, with_transfers, with_jumps;
	bool with_losses, with_holes, all_absolute, worst_rates;
	bool with_shapes; /* quorums of other sizes, priorities, witnesses */
	uint32_t witnesses, have_data; /* bits by id: members are witnesses; have been made full replicas */
	uint32_t told_ppm; /* drift_ppm for the core */
	uint32_t drift_ppm, clock_error_us;
	bool cut[NODES][NODES];
	struct sim_node n[NODES];
	struct sim_event *heap;
	size_t n_heap, cap_heap;
	void *arena;
	uint64_t leaders[LOG_MAX]; /* by term */
	uint64_t told[LOG_MAX];    /* by term: bit id: its leader sent it TIMEOUT_NOW */
	struct sim_log committed;
	struct raft_log_config configs[256];
	uint32_t n_configs;
	struct raft_sim_counts *counts;
};

uint64_t sim_random(struct sim *s, uint64_t below);
bool sim_chance(struct sim *s, uint32_t per_mille);
void *sim_alloc(struct sim *s, size_t n);
void sim_post(struct sim *s, struct sim_event ev);
void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

uint64_t sim_clock(const struct sim *s, const struct sim_node *n); /* what it shows now */
uint64_t sim_clock_when(const struct sim *s, const struct sim_node *n, uint64_t read_us); /* true time at which it shows that; not before now */
void sim_clock_start(struct sim *s, struct sim_node *n);
void sim_clock_rate(struct sim *s, struct sim_node *n);
void sim_clock_jump(struct sim *s, struct sim_node *n);
struct raft_clock sim_lease_clock(struct sim *s, struct sim_node *n);
bool sim_lease_valid(const struct sim *s, const struct sim_node *n);
void sim_check_leases(struct sim *s, const struct sim_node *leader); /* leader: has just become one; or NULL */
void sim_read_by_lease(struct sim *s); /* at every node that holds one */

void sim_send(struct sim *s, const struct wire_msg *m);
void sim_step(struct sim *s, struct sim_node *n, struct raft_event ev);
void sim_disk(struct sim *s, struct sim_node *n); /* completes writes that are due */
void sim_start(struct sim *s, struct sim_node *n);
void sim_crash(struct sim *s, struct sim_node *n);
void sim_damage(struct sim *s, struct sim_node *n); /* of a stopped node: entries that others have are holes */
bool sim_may_lose(struct sim *s); /* a voter's disk, and the group goes on */
void sim_lose(struct sim *s, struct sim_node *n); /* its disk; it is down after that */
void sim_trim(struct sim *s, struct sim_node *n, uint64_t index);
bool sim_needs_image(struct sim *s, struct sim_node *n); /* its disk lacks the last committed entry */
/* Gives a stopped node the committed state of now; a witness, which has none, a place up to which nothing is needed. */
void sim_image(struct sim *s, struct sim_node *n, uint64_t keep_above);
void sim_shape_draw(struct sim *s, struct raft_config *first); /* at the start of a run */
void sim_shape(struct sim *s, const struct raft_config *now, struct raft_config *c); /* a random configuration gets the rest */
bool sim_shape_spares(const struct raft_config *c, uint64_t id); /* there are quorums without it */
bool sim_is_witness(const struct sim *s, uint64_t id); /* in any configuration that may still count */
void sim_check_keep(struct sim *s); /* K of raft/witness.c */
void sim_check_matching(struct sim *s);
const struct raft_config *sim_config_at(struct sim *s, uint64_t index);

#endif
