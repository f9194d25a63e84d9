/* A disk in memory that forgets, for tests of the journal. What was written and not synced may be lost at a crash, each
 * sector of 512 bytes for itself, in any state that it went through; creations, renames and unlinks that were not made
 * durable survive as a prefix of their order. Writes and syncs can be made to fail. */
#ifndef TEST_UNIT_JOURNAL_DISK_H
#define TEST_UNIT_JOURNAL_DISK_H

#include "wire/env.h"
#include <stdbool.h>

struct disk;

struct disk *disk_new(void);
void disk_free(struct disk *d);
struct disk *disk_copy(struct disk *d); /* as it is for a reader now, all of it durable */
const struct wire_env *disk_env(struct disk *d);

/* A power loss. seed picks what survives. Open files must have been closed. */
void disk_crash(struct disk *d, uint64_t seed);

/* Current bytes of a file, to look at or to damage (then also durable); NULL when missing. */
uint8_t *disk_bytes(struct disk *d, const char *path, size_t *ret_size);
void disk_shorten(struct disk *d, const char *path, size_t size);
size_t disk_files(struct disk *d);
const char *disk_name(struct disk *d, size_t i);

void disk_fail_write(struct disk *d, int after); /* the write after so many is WIRE_FULL, and all later ones; -1: none */
void disk_fail_sync(struct disk *d, int after);  /* the same with WIRE_IO; only that one fails */
/* The change after so many, and all later ones, fail with WIRE_IO and have no effect, as when the power goes there; until
 * disk_crash. A change is a write, a sync, a truncation, and whatever changes or syncs the directory. */
void disk_cut_power(struct disk *d, int after);
unsigned disk_syncs(struct disk *d);
uint64_t disk_total(struct disk *d); /* bytes of all files */
/* Called within each sync of a file, before it takes effect. */
void disk_on_sync(struct disk *d, void (*call)(void *arg), void *arg);

#endif
