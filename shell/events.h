/* The latest events of a node, for `walraft events` and the counts in its status. Any thread; each call is short. */
#ifndef SHELL_EVENTS_H
#define SHELL_EVENTS_H

#include "raft/journal.h"
#include "raft/telemetry.h"
#include <pthread.h>
#include <stddef.h>

#define EVENTS_KEPT 4096 /* about half a MiB a node */
#define EVENTS_SHOWN 100 /* to an asker that names no beginning */

struct node_events;

struct node_events *node_events_new(void); /* NULL: no memory */
void node_events_free(struct node_events *e);
void node_events_put(struct node_events *e, const struct raft_told *told, size_t n);
void node_tell(struct node_events *e, enum raft_told_event event, uint64_t peer, uint64_t a, uint64_t b);
/* raft_journal_opts.on_event, with the node_events as ctx. */
void node_events_journal(void *events, enum raft_journal_event event, uint64_t a, uint64_t b);
/* Entries were read from the journal: one, or several for one message. */
void node_tell_fetch(struct node_events *e, uint64_t first, uint64_t last, uint64_t bytes);

/* {"log.committed":12,...}: those that there were since the node's start. */
void node_events_counts_json(struct node_events *e, struct wire_buf *b);
/* {"next":N,"missed":K,"events":[{"seq","time_us" (since 1970),"event",...}]}: those behind number `after`, some hundreds at most; ask again with
 * `next`. UINT64_MAX: the latest EVENTS_SHOWN, and before them the latest
 * EVENTS_SHOWN that are no routine (messages, commits, the journal's writes, reads) as far as they are older. missed: how many behind `after` are not kept any more. */
void node_events_json(struct node_events *e, uint64_t after, struct wire_buf *b);

#endif
