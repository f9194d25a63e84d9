/* A deterministic simulator of one group for unit tests of the core: nodes with disks that lose what was not synced, and a
 * network that loses, delays, reorders and repeats messages and falls apart. Everything follows from the seed.
 *
 * Fault model. Disk: writes complete in order after a random time; a crash loses those that have not completed. Network:
 * per run a rate of loss and of repetition, a range of delays; links are cut one way or both ways, with and without the
 * node being told. Nodes: crash, all at once too; sleep while messages queue up. Clocks: rates are wrong by up to the bound
 * that the core is told, mostly by just that, and change; clocks go back, a leader's jumps ahead; in some runs nodes, or all,
 * measure leases by a clock that tells true time within an error. Leaders are asked at random moments to hand over, to a
 * node of any kind or to whichever suits.
 *
 * Checked throughout: I1 (one leader per term), I2 (log matching), I3 (a new leader has all that is committed), I4 (what a
 * node publishes at an index never differs), I5 (nothing committed is lost by a crash of all), I7 (a read's index is not
 * below anything published before it began), I9 (one vote per term and node across crashes, published is durable), reads are
 * settled in time, and at the end, with the network healed or still losing messages, the group makes progress again. Of
 * leases (I11): nobody becomes leader while another node's lease lasts, and whenever anything is published, whoever holds one
 * knows of it, by what its other threads would see while the node's own thread sleeps; at the end somebody gets one. Of
 * transfers (thesis 3.10): nothing is proposed during one, it ends within an election timeout, only who has the leader's
 * whole log durably is told to stand, only who was told in the term before asks with the flag, and at the end one succeeds. */
#ifndef TEST_UNIT_RAFT_SIM_H
#define TEST_UNIT_RAFT_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct raft_sim_counts { uint64_t steps, commits, elections, reads_ok, reads_failed, configs, images, crashes, transfers, handed_over, lease_reads, losses, fills, fetched; };

/* Runs one seed. False when a check failed; the sentence is in raft_sim_error(). Counts are added to. bad_clocks: how many
 * times worse than the bound clocks are; 1, except for a control that must fail. */
bool raft_sim_run(uint64_t seed, bool verbose, uint32_t bad_clocks, struct raft_sim_counts *counts);
const char *raft_sim_error(void);

#endif
