/* A disk in memory behind a wire_env, one for each node. What it may do:
 *
 *   crash         at any call, also in the middle of a write: that call and all later ones fail and have no effect
 *   power loss    of what was written since the file's last sync, survive: nothing, everything, a prefix in the order of
 *                 writing that ends at any byte, or of each sector of 512 bytes some number of the writes that touched it,
 *                 the last of them perhaps to a part
 *   directory     creations, renames and unlinks since the directory's last sync survive as a prefix of their order
 *   full          a write that makes a file larger fails after a part of it
 *   errors        of a write (a part is there) and of a sync (what was to be synced stays undecided until a power loss)
 *   rot           of what is durable a bit changes, a sector, or a file is gone */
#ifndef TEST_SIM_DISK_H
#define TEST_SIM_DISK_H

#include "test/sim/rng.h"
#include "wire/env.h"

enum { DISK_FILES = 250, DISK_NAME = 32, DISK_SECTOR = 512 };

struct sim_disk;

/* What happened to disks. Numbers only, all uint64_t: they are added up. */
struct disk_counts {
	uint64_t lost_writes, torn_writes, lost_names; /* by power losses: writes (or sectors of them) without or with a part left; changes of names */
	uint64_t cut_writes, write_errors, sync_errors, full, rots; /* cut: the crash came in the middle of one */
};

struct sim_disk *disk_new(struct rng *rng, struct disk_counts *counts); /* counts are added to. Aborts without memory */
struct sim_disk *disk_copy(const struct sim_disk *d); /* what is durable by now */
void disk_free(struct sim_disk *d); /* NULL is fine */
const struct wire_env *disk_env(struct sim_disk *d);

/* The crash comes at the call after so many; 0 also: now. */
void disk_crash_after(struct sim_disk *d, uint32_t calls);
bool disk_crashed(const struct sim_disk *d);
/* All files were closed, or are of a process that is gone. Loses what a power loss would, or nothing; works again. */
void disk_revive(struct sim_disk *d, bool power_loss);

void disk_set_full(struct sim_disk *d, bool full);
void disk_fail_sync(struct sim_disk *d);  /* the next one */
void disk_fail_write(struct sim_disk *d); /* the next one */
bool disk_fail_pending(const struct sim_disk *d);
void disk_clear_faults(struct sim_disk *d);
/* One bit; much: a sector, or a file. False: there is nothing that could rot now. */
bool disk_rot(struct sim_disk *d, bool much);

uint64_t disk_bytes(const struct sim_disk *d); /* of all files that have a name */
/* What was written so far; durable once disk_durable says so of that number. */
uint64_t disk_mark(const struct sim_disk *d);
bool disk_durable(const struct sim_disk *d, uint64_t mark);

#endif
