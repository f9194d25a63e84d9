/* SQLite's wal-index, over any set of 32 KiB regions (the real -shm mapping, or a connection's private copy).
 *
 *   region 0: two copies of struct vfs_walindex_hdr (48 bytes each), struct vfs_ckpt_info (40 bytes), aPgno[4062], aHash[8192]
 *   region n: aPgno[4096], aHash[8192] (u16: index in aPgno + 1; 0 is empty; hash key (pgno * 383) & 8191, linear probing)
 *   All in the byte order of the machine. A header is valid if and only if both copies are equal and the checksum matches. */
#ifndef VFS_WALINDEX_H
#define VFS_WALINDEX_H

#include "wire/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VFS_REGION_BYTES 32768
#define VFS_REGION0_FRAMES 4062u
#define VFS_REGION_FRAMES 4096u
#define VFS_READMARK_NOT_USED 0xffffffffu
#define VFS_READERS 5

struct vfs_walindex_hdr {
	uint32_t version, unused, change;
	uint8_t is_init, big_end_cksum;
	uint16_t page_size; /* 65536 is 1 */
	uint32_t mx_frame, n_page, frame_cksum[2];
	uint8_t salt[8]; /* the 8 bytes as in the WAL header */
	uint32_t cksum[2];
};
_Static_assert(sizeof(struct vfs_walindex_hdr) == 48, "wal-index header");

struct vfs_ckpt_info {
	uint32_t backfill, read_mark[VFS_READERS];
	uint8_t lock[8];
	uint32_t backfill_attempted, unused;
};
_Static_assert(sizeof(struct vfs_ckpt_info) == 40, "checkpoint info");

/* Regions by index; get(ctx, i) returns the mapped region, NULL when it cannot be had (only growth can fail). */
struct vfs_regions {
	void *ctx;
	void *(*get)(void *ctx, uint32_t region);
};

uint32_t vfs_walindex_region_of(uint32_t frame); /* 1-based frame -> region index */
/* Copies out the header when it is valid (either both copies are equal, or, with torn_ok, the first valid single copy). */
bool vfs_walindex_read_header(const void *region0, bool torn_ok, struct vfs_walindex_hdr *ret_hdr);
/* Sets the checksum in *hdr and writes copy 1, full barrier, copy 0. */
void vfs_walindex_write_header(void *region0, struct vfs_walindex_hdr *hdr);
struct vfs_ckpt_info *vfs_walindex_ckpt_info(void *region0);
/* Appends frame -> pgno; zeroes the hash of a region at its first entry; cleans leftovers above frame-1 (of a writer that
 * died) where it finds any. frame must be above the published header's mx_frame: readers rely on all up to it. WIRE_NOMEM when the region cannot be had; never for
 * a region that was had before. WIRE_CORRUPT when the region is damaged: the wal-index must be made anew. */
int vfs_walindex_append(const struct vfs_regions *r, uint32_t frame, uint32_t pgno, struct wire_err *err);
/* Latest frame <= mx_frame and >= min_frame that holds pgno; 0: none. All regions up to mx_frame's must be there. */
uint32_t vfs_walindex_find(const struct vfs_regions *r, uint32_t pgno, uint32_t min_frame, uint32_t mx_frame);
uint32_t vfs_walindex_pgno(const struct vfs_regions *r, uint32_t frame);

#endif
