/* Insides of the disk, shared by disk.c (calls) and disk_power.c (what a power loss leaves, rot). */
#ifndef TEST_SIM_DISK_IMPL_H
#define TEST_SIM_DISK_IMPL_H

#include "test/sim/disk.h"
#include <stddef.h>

enum { PAST_MAX = 16 };

struct op { /* one write; its bytes lie in the file's `bytes` */
	uint64_t seq;
	size_t at, n, from;
	bool cut; /* only a part of what was to be written */
};
struct inode {
	bool used;
	uint32_t links, opens;
	uint8_t *now, *durable;
	size_t size, durable_size, cap;
	struct op *ops;
	size_t n_ops, cap_ops;
	uint8_t *bytes;
	size_t n_bytes, cap_bytes;
};
struct name {
	char text[DISK_NAME];
	uint8_t inode;
};
struct dir {
	struct name names[DISK_FILES];
	uint32_t n;
};
struct past { /* the directory before a change that is not durable */
	struct dir dir;
	uint64_t seq;
	bool matters; /* a segment would be missing without it */
};
struct wire_file {
	struct sim_disk *d;
	uint8_t inode;
	bool writable;
};
struct sim_disk {
	struct wire_env env;
	struct rng *rng;
	struct disk_counts *counts;
	struct inode inodes[DISK_FILES];
	struct dir dir;
	struct past *past;
	size_t n_past, cap_past;
	uint64_t seq;
	uint32_t crash_in; /* 0: no crash is planned */
	bool dead, full, fail_sync, fail_write;
};

void disk_collect(struct sim_disk *d); /* files that nothing leads to any more are gone */

#endif
