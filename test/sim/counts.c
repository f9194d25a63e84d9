/* What a number of runs did, and what went wrong in them, for people. */
#include "test/sim/run.h"
#include <stdio.h>

typedef unsigned long long ull;

static const char *const fault_names[CHAOS_KINDS] = {
	[CHAOS_KILL] = "killed", [CHAOS_POWER] = "power lost", [CHAOS_ALL] = "many at once", [CHAOS_IO_CRASH] = "crash in a call of the disk due",
	[CHAOS_CUT] = "partitions", [CHAOS_HEAL] = "network healed", [CHAOS_SLOW] = "slow links", [CHAOS_PAUSE] = "pauses",
	[CHAOS_CLOCK] = "clocks changed", [CHAOS_SYNC_ERROR] = "sync error due", [CHAOS_WRITE_ERROR] = "write error due", [CHAOS_FULL] = "disk full",
	[CHAOS_ROT] = "bit rot", [CHAOS_WIPE] = "disk lost", [CHAOS_MEMBERS] = "members changed at random", [CHAOS_TRANSFER] = "transfers",
	[CHAOS_CLEAN] = "ended cleanly", [CHAOS_LINK] = "false news of links", [CHAOS_BURST] = "bursts of writes",
	[CHAOS_MEMORY] = "memory short soon", [CHAOS_MISTAKE] = "wrong calls",
	[CHAOS_FORGET] = "disk lost under the same id", [CHAOS_ROLL_BACK] = "disk as it was earlier", [CHAOS_UPGRADE] = "programs replaced",
};

static void print_faults(const struct sim_counts *c)
{
	printf("# faults:");
	for (int i = 0; i < CHAOS_KINDS; i++)
		printf("%s %llu %s", i % 6 ? "," : i ? "\n#  " : "", (ull)c->faults[i], fault_names[i]);
	printf("\n#   %llu of the partitions one way; clocks jumped %llu times; %llu syncs hung; %llu allocations failed\n", (ull)c->one_way, (ull)c->jumps, (ull)c->stalls, (ull)c->memory);
	printf("# disks: %llu writes lost by power losses, %llu torn, %llu names lost; %llu crashes in the middle of a write\n",
	       (ull)c->disk.lost_writes, (ull)c->disk.torn_writes, (ull)c->disk.lost_names, (ull)c->disk.cut_writes);
	printf("#   %llu sync errors, %llu write errors, %llu writes found no room, %llu bits rotted: found %llu times, in an unattested tail %llu "
	       "times; %llu disks lost\n#   %llu more of nodes that came back under their ids, %llu old disks, %llu damaged journals salvaged: %llu re-admitted; %llu holes, %llu filled; %llu images for running nodes\n", (ull)c->disk.sync_errors, (ull)c->disk.write_errors, (ull)c->disk.full, (ull)c->disk.rots,
	       (ull)c->rots_found, (ull)c->rots_cut, (ull)c->wipes, (ull)c->forgets, (ull)c->rollbacks, (ull)c->salvages, (ull)c->readmitted, (ull)c->holes,
	       (ull)c->filled, (ull)c->images_running);
}

static void print_messages(const struct sim_counts *c)
{
	uint64_t sent = 0, lost = 0, repeated = 0, overtaken = 0;

	for (int i = 0; i < MSG_KINDS; i++) {
		if (!c->sent[i])
			continue;
		printf("#   %-15s %12llu sent %10llu lost %10llu repeated %10llu overtaken\n", wire_msg_name(i), (ull)c->sent[i], (ull)c->lost[i],
		       (ull)c->repeated[i], (ull)c->overtaken[i]);
		sent += c->sent[i];
		lost += c->lost[i];
		repeated += c->repeated[i];
		overtaken += c->overtaken[i];
	}
	printf("#   all messages    %12llu sent %10llu lost %10llu repeated %10llu overtaken\n", (ull)sent, (ull)lost, (ull)repeated, (ull)overtaken);
}

static void print_told(const struct sim_counts *c)
{
	uint64_t all = 0;
	int n = 0;

	for (int i = 0; i < RAFT_TOLD_COUNT; i++)
		all += c->told[i];
	printf("# telemetry: %llu events; of the core's never told:", (ull)all);
	for (int i = 0; i < RAFT_TOLD_JOURNAL; i++)
		if (!c->told[i])
			printf("%s %s", n++ ? "," : "", raft_told_name((unsigned)i));
	printf("%s; of the journal's:", n ? "" : " none");
	n = 0;
	for (int i = 0; i < RAFT_JOURNAL_EVENTS; i++)
		if (!c->journal_told[i])
			printf("%s %s", n++ ? "," : "", raft_journal_event_name((enum raft_journal_event)i));
	printf("%s\n", n ? "" : " none");
}

void run_print(const struct sim_counts *c, double wall_s)
{
	printf("# %llu runs, %.0f simulated seconds in %.1f s of wall time (%.0f a second), %llu steps, %llu healings\n", (ull)c->runs,
	       (double)c->sim_us / 1e6, wall_s, wall_s > 0 ? (double)c->sim_us / 1e6 / wall_s : 0.0, (ull)c->steps, (ull)c->episodes);
	printf("# %llu committed entries; writes: %llu acknowledged, %llu lost, %llu of unknown outcome, %llu of them tried again\n",
	       (ull)c->commits, (ull)c->writes_ok, (ull)c->writes_lost, (ull)c->writes_unknown, (ull)c->writes_again);
	printf("# reads: %llu served, %llu of them by lease, %llu failed; %llu operations of clients judged by test/lin\n", (ull)c->reads_ok,
	       (ull)c->lease_reads, (ull)c->reads_failed, (ull)c->judged);
	printf("# %llu elections, %llu transfers asked for, %llu membership changes, %llu images, %llu new nodes joined, %llu trims\n"
	       "#   witnesses led %llu times, %llu of them became full replicas; the feature level rose %llu times; %llu times the preferred voter led again, %llu times one\n"
	       "#   whose disk hung was replaced\n",
	       (ull)c->elections, (ull)c->transfers, (ull)c->configs, (ull)c->images, (ull)c->joins, (ull)c->trims,
	       (ull)c->witnesses_led, (ull)c->risen, (ull)c->raised, (ull)c->preferred, (ull)c->hangs);
	printf("# %llu crashes (%llu power losses, %llu within a call of the disk), %llu starts\n", (ull)c->crashes, (ull)c->power_losses,
	       (ull)c->io_crashes, (ull)c->starts);
	print_faults(c);
	print_messages(c);
	print_told(c);
}
