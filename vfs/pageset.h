/* Page sets: what one transaction changed, as the data of DATA entries.
 *
 * A transaction is one entry (FIRST|CLOSE), or several chunks of about 1 MiB: the first has FIRST, the last CLOSE; all of one transaction carry the
 * same transaction id and term, and the close names the index of the first and the number of chunks. A close whose chunks are not all there with its term is
 * ignored (its beginning was superseded). No page is in two chunks; pages ascend within an entry and over the chunks.
 *
 *   bytes   u8 version (1), u8 flags, u16 chunk number (from 0; saturates), u32 page size, 16 bytes transaction id, u64 timestamp (us since 1970, the
 *           leader's), u64 first index (close of a chunked transaction; else 0), u32 number of chunks (in CLOSE), u32 0, u64 checksum before, u64 checksum after (in CLOSE; else 0),
 *           u32 db pages before, u32 db pages after (in CLOSE; else 0), u32 number of pages here, u32 raw length of the body
 *           (fixed header: VFS_PAGESET_HDR bytes); with ONCE in flags: u8 length of the client's id (1 to 64), u64 its sequence number, u32 idle timeout in seconds (from 1), the id;
 *           body: lz4 block when LZ4 is set in flags, else as it is.
 *   body    per page: varint pgno minus the previous one's (from 0), u64 hash after, varint n ranges; n = 0: full page follows;
 *           else n times varint gap to the end of the previous range, varint length (>= 1), bytes. (A page without any
 *           difference has one range of one byte.)
 *   valid if and only if it parses to exactly its end, its body is at most VFS_PAGESET_RAW_MAX bytes raw, pages ascend, ranges lie inside the page,
 *   the lock-byte page is not there, a single entry has no page above its db pages after, the chunk number is 0 exactly in FIRST, and ONCE comes with CLOSE only. */
#ifndef VFS_PAGESET_H
#define VFS_PAGESET_H

#include "wire/buf.h"
#include "wire/err.h"

#define VFS_TXID_BYTES 16
#define VFS_CHUNK_BYTES (1u << 20)
#define VFS_PAGESET_HDR 80
#define VFS_ONCE_ID_MAX 64
#define VFS_PAGESET_ONCE_MAX (13 + VFS_ONCE_ID_MAX)
#define VFS_PAGESET_RAW_MAX ((4u << 20) - VFS_PAGESET_HDR - VFS_PAGESET_ONCE_MAX) /* an unpacked entry stays within what a message may carry */
enum vfs_pageset_flags { VFS_PAGESET_FIRST = 1, VFS_PAGESET_CLOSE = 2, VFS_PAGESET_LZ4 = 4, VFS_PAGESET_ONCE = 8 };

/* The step of a client's that the transaction is, so that it can be recognised when it is repeated. id_len 0: none. */
struct vfs_once {
	uint64_t seq;
	uint32_t idle_s; /* the client is forgotten when so much time of the log has passed since its last step */
	uint8_t id_len;
	uint8_t id[VFS_ONCE_ID_MAX];
};

struct vfs_pageset_head {
	uint8_t flags;
	uint16_t chunk;
	uint32_t page_size, n_chunks, db_before, db_after, n_pages, raw_len;
	uint8_t txid[VFS_TXID_BYTES];
	uint64_t timestamp_us, first_index, sum_before, sum_after;
	struct vfs_once once; /* in CLOSE; else none */
};

/* Encoder of one entry. Pages are added in ascending order; base NULL: the page in full. Ranges nearer than 16 bytes are joined; when they would
 * take more than seven eighths of a page the page goes in full. */
struct vfs_pageset_enc { struct wire_buf body; uint32_t n_pages, last_pgno, page_size; };
void vfs_pageset_enc_init(struct vfs_pageset_enc *e, uint32_t page_size);
void vfs_pageset_enc_add(struct vfs_pageset_enc *e, uint32_t pgno, const void *base, const void *page, uint64_t hash_after);
/* Appends header and (perhaps packed) body to `out`; fills page_size, n_pages, raw_len and the flags LZ4 and ONCE itself, and what its flags make 0 (or
 * n_chunks 1); resets e for the next chunk. WIRE_NOMEM, WIRE_TOOBIG: `out` is as before. */
int vfs_pageset_enc_finish(struct vfs_pageset_enc *e, const struct vfs_pageset_head *head, struct wire_buf *out, struct wire_err *err);
void vfs_pageset_enc_free(struct vfs_pageset_enc *e);

int vfs_pageset_head_get(const void *p, size_t n, struct vfs_pageset_head *ret_head, struct wire_err *err);

/* Decoder: open, then next until *ret_pgno is 0. body_mem is scratch owned by the decoder. */
struct vfs_pageset_dec { struct vfs_pageset_head head; struct wire_buf body_mem; struct wire_in in; uint32_t left, last_pgno; };
int vfs_pageset_dec_open(struct vfs_pageset_dec *d, const void *p, size_t n, struct wire_err *err); /* re-opening one reuses its memory; zero it before the first */
struct vfs_pageset_page { uint32_t pgno; uint64_t hash_after; bool full; uint32_t n_ranges; struct wire_in ranges; };
int vfs_pageset_dec_next(struct vfs_pageset_dec *d, struct vfs_pageset_page *ret_page, struct wire_err *err); /* pgno 0: the end */
/* Turns `page` (holding the base version, unless p->full) into the version after, and checks hash_after: WIRE_CORRUPT when it differs. */
int vfs_pageset_apply(const struct vfs_pageset_page *p, uint32_t page_size, void *page, struct wire_err *err);
void vfs_pageset_dec_free(struct vfs_pageset_dec *d);

#endif
