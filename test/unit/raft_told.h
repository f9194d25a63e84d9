/* What the nodes of a pilot have told (raft/telemetry.h), for test_raft_telemetry. */
#ifndef TEST_UNIT_RAFT_TOLD_H
#define TEST_UNIT_RAFT_TOLD_H

#include "test/unit/raft_pilot.h"

extern uint64_t told_count[RAFT_TOLD_COUNT]; /* since the program began */
extern struct told_kept { uint64_t node; struct raft_told t; } told_kept[];
extern uint32_t told_n;

void told_begin(void);  /* from here on pilots are listened to */
void told_forget(void); /* all but told_count */
const struct raft_told *told_find(uint64_t node, enum raft_told_event event); /* the latest; NULL: none */
const struct raft_told *told_must(uint64_t node, enum raft_told_event event); /* the latest, which there must be */
uint32_t told_times(uint64_t node, enum raft_told_event event);
void told_is(uint64_t node, enum raft_told_event event, const char *json); /* the latest, as JSON without its name */

/* Node 1 leads so many voters that have these limits. */
struct pilot *told_open_with(uint32_t voters, struct raft_init knobs);
void told_fill_log(struct pilot *p, uint32_t n);
struct wire_msg told_vote(uint64_t from, uint64_t to, uint64_t term, uint64_t index, uint64_t log_term); /* a request */

/* raft_told_peers.c: scenarios of peers, of who lacks something, of members and of leadership */
void told_replication(void **state);
void told_logs_differ(void **state);
void told_full_witness(void **state);
void told_forgetful(void **state);
void told_fetching(void **state);
void told_configurations(void **state);
void told_transfers(void **state);

#endif
