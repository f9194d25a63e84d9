#include "vfs/walfmt.h"

#include "wire/buf.h"
#include <assert.h>
#include <string.h>

#define WAL_MAGIC 0x377f0682u /* the lowest bit says that checksums are over big-endian words */
#define WAL_FORMAT 3007000u
#define PAGE_SIZE_MIN 512u
#define PAGE_SIZE_MAX 65536u

/* The recurrence s1 += x[i] + s2; s2 += x[i+1] + s1, over 32-bit words in the byte order that the file names. */
void vfs_wal_cksum(bool big_end, const void *p, size_t n, uint32_t sum[2])
{
	assert(n % 8 == 0);
	const bool swap = big_end != (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
	const uint8_t *at = p;
	uint32_t s1 = sum[0], s2 = sum[1];
	uint32_t x[2];

	if (!swap) {
		for (size_t i = 0; i < n; i += 8) {
			memcpy(x, at + i, sizeof x);
			s1 += x[0] + s2;
			s2 += x[1] + s1;
		}
	} else {
		for (size_t i = 0; i < n; i += 8) {
			memcpy(x, at + i, sizeof x);
			s1 += __builtin_bswap32(x[0]) + s2;
			s2 += __builtin_bswap32(x[1]) + s1;
		}
	}
	sum[0] = s1;
	sum[1] = s2;
}

void vfs_wal_header_put(struct vfs_wal_header *h, uint8_t dst[VFS_WAL_HDR])
{
	wire_set_be32(dst, WAL_MAGIC | (h->big_end_cksum ? 1u : 0u));
	wire_set_be32(dst + 4, WAL_FORMAT);
	wire_set_be32(dst + 8, h->page_size);
	wire_set_be32(dst + 12, h->ckpt_seq);
	wire_set_be32(dst + 16, h->salt[0]);
	wire_set_be32(dst + 20, h->salt[1]);
	h->cksum[0] = h->cksum[1] = 0;
	vfs_wal_cksum(h->big_end_cksum, dst, 24, h->cksum);
	wire_set_be32(dst + 24, h->cksum[0]);
	wire_set_be32(dst + 28, h->cksum[1]);
}

bool vfs_wal_header_get(const uint8_t src[VFS_WAL_HDR], struct vfs_wal_header *ret_h)
{
	const uint32_t magic = wire_be32(src);
	struct vfs_wal_header h = {
		.page_size = wire_be32(src + 8),
		.ckpt_seq = wire_be32(src + 12),
		.salt = { wire_be32(src + 16), wire_be32(src + 20) },
		.big_end_cksum = (magic & 1) != 0,
	};

	if ((magic & ~1u) != WAL_MAGIC || wire_be32(src + 4) != WAL_FORMAT)
		return false;
	if (h.page_size < PAGE_SIZE_MIN || h.page_size > PAGE_SIZE_MAX || (h.page_size & (h.page_size - 1)) != 0)
		return false;
	vfs_wal_cksum(h.big_end_cksum, src, 24, h.cksum);
	if (h.cksum[0] != wire_be32(src + 24) || h.cksum[1] != wire_be32(src + 28))
		return false;
	*ret_h = h;
	return true;
}

void vfs_frame_put(const struct vfs_wal_header *h, uint32_t pgno, uint32_t db_pages, const void *page, uint32_t sum[2],
                   uint8_t dst[VFS_FRAME_HDR])
{
	wire_set_be32(dst, pgno);
	wire_set_be32(dst + 4, db_pages);
	wire_set_be32(dst + 8, h->salt[0]);
	wire_set_be32(dst + 12, h->salt[1]);
	vfs_wal_cksum(h->big_end_cksum, dst, 8, sum);
	vfs_wal_cksum(h->big_end_cksum, page, h->page_size, sum);
	wire_set_be32(dst + 16, sum[0]);
	wire_set_be32(dst + 20, sum[1]);
}

void vfs_frame_get(const uint8_t src[VFS_FRAME_HDR], struct vfs_frame_header *ret_f)
{
	*ret_f = (struct vfs_frame_header){
		.pgno = wire_be32(src),
		.db_pages = wire_be32(src + 4),
		.salt = { wire_be32(src + 8), wire_be32(src + 12) },
		.cksum = { wire_be32(src + 16), wire_be32(src + 20) },
	};
}

uint64_t vfs_frame_offset(uint32_t page_size, uint32_t frame)
{
	assert(frame > 0);
	return VFS_WAL_HDR + (uint64_t)(frame - 1) * (VFS_FRAME_HDR + (uint64_t)page_size);
}
