/* SQLite's WAL file, as bytes. Source: SQLite's file format document, section 4, and the head of its wal.c.
 *
 *   header  32 bytes, big endian: magic 0x377f0682 (checksums over little-endian words) or 0x377f0683 (big-endian),
 *           format 3007000, page size, checkpoint sequence, salt-1, salt-2, checksum-1, checksum-2 over the first 24
 *   frame   24 bytes, big endian: page number, database size in pages after a commit (else 0), salt-1, salt-2,
 *           checksum-1, checksum-2 (cumulative, over the first 8 bytes of the frame header and the page); then the page
 *   A frame is valid if and only if its salts equal the header's and its checksum continues the chain of all before it.
 *   What counts is all valid frames up to the last one that is a commit. */
#ifndef VFS_WALFMT_H
#define VFS_WALFMT_H

#include "wire/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VFS_WAL_HDR 32
#define VFS_FRAME_HDR 24

/* Salts are the 32-bit values as the big-endian bytes read, in both structs. */
struct vfs_wal_header {
	uint32_t page_size, ckpt_seq, salt[2];
	bool big_end_cksum;
	uint32_t cksum[2]; /* start of the frames' chain */
};
struct vfs_frame_header { uint32_t pgno, db_pages, salt[2], cksum[2]; };

/* Continues a checksum over n bytes (n % 8 == 0). */
void vfs_wal_cksum(bool big_end, const void *p, size_t n, uint32_t sum[2]);
void vfs_wal_header_put(struct vfs_wal_header *h, uint8_t dst[VFS_WAL_HDR]); /* also sets h->cksum */
bool vfs_wal_header_get(const uint8_t src[VFS_WAL_HDR], struct vfs_wal_header *ret_h); /* false: not valid */
/* Fills dst from pgno, db_pages, salt and page; sum is continued. */
void vfs_frame_put(const struct vfs_wal_header *h, uint32_t pgno, uint32_t db_pages, const void *page, uint32_t sum[2],
                   uint8_t dst[VFS_FRAME_HDR]);
void vfs_frame_get(const uint8_t src[VFS_FRAME_HDR], struct vfs_frame_header *ret_f);
uint64_t vfs_frame_offset(uint32_t page_size, uint32_t frame); /* of the frame's header; frame is 1-based */

#endif
