/* Images: a whole database at one index, cut into chunks of consecutive pages, as it goes from one node to another.
 *
 *   info    u8 version (2), u64 index, u64 term, u64 state checksum, u32 page size, u32 pages, u64 bytes of the file beside it, then the configuration in force (varint length, bytes)
 *   chunk   u32 first page, u32 pages, u32 raw length, u8 lz4, body (pages one after the other; lz4 block when lz4 is 1), u64 XXH3 of all before it
 *   piece   of the file beside the image (what the sender keeps of the same state: shell/ledger.h): u32 number from 0, the bytes from number * SNAP_PIECE_BYTES on, u64 XXH3 of all before
 *   A chunk is valid if and only if its checksum matches, its pages lie inside the image, raw length = pages * page size, and it is not longer than SNAP_CHUNK_MAX.
 *
 * This folder knows neither SQLite nor the network: pages come from and go to callbacks and a wire_env file. Memory is bounded by a few chunks; the receiver
 * keeps a byte per chunk. */
#ifndef SNAPSHOT_IMAGE_H
#define SNAPSHOT_IMAGE_H

#include "wire/buf.h"
#include "wire/env.h"
#include "wire/err.h"

#define SNAP_CHUNK_BYTES (256u << 10) /* raw bytes of a usual chunk; at least one page */
#define SNAP_CHUNK_MAX (1u << 20)
#define SNAP_CONFIG_MAX 16384
#define SNAP_PIECE_BYTES (256u << 10)

struct snap_info {
	uint64_t index, term, checksum;
	uint32_t page_size, pages;
	uint64_t beside_bytes; /* of the file beside it */
	uint32_t config_len;
	uint8_t config[SNAP_CONFIG_MAX];
};
void snap_info_put(const struct snap_info *i, struct wire_buf *b);
int snap_info_get(const void *p, size_t n, struct snap_info *ret_info, struct wire_err *err);
uint32_t snap_chunk_pages(uint32_t page_size); /* pages in a usual chunk */

/* Sender: encodes pages first .. first+n-1 (clipped to the image) into out. */
int snap_chunk_encode(struct wire_buf *out, const struct snap_info *info, uint32_t first, uint32_t n,
                      int (*read_page)(void *ctx, uint32_t pgno, void *dst, struct wire_err *err), void *ctx, struct wire_err *err);

uint32_t snap_piece_bytes(uint64_t file_bytes, uint32_t number); /* that the piece has; 0: there is none of that number */
void snap_piece_put(struct wire_buf *out, uint32_t number, const void *bytes, uint32_t len);
/* *ret_bytes points into p: snap_piece_bytes(file_bytes, number). WIRE_CORRUPT: it is not that piece, or damaged. */
int snap_piece_get(const void *p, size_t n, uint64_t file_bytes, uint32_t number, const uint8_t **ret_bytes, struct wire_err *err);

/* Receiver. Writes into `temp_path` (created, preallocated by size), in any order; verifies every chunk; keeps page hashes through on_page (once per page, in
 * any order). */
struct snap_recv;
int snap_recv_open(const struct wire_env *env, const char *temp_path, const struct snap_info *info,
                   void (*on_page)(void *ctx, uint32_t pgno, uint64_t hash), void *ctx, struct snap_recv **ret_recv, struct wire_err *err);
/* The next range to ask for; false: all have been asked for (or arrived). Asked but lost ones come again after snap_recv_retry. */
bool snap_recv_next(struct snap_recv *r, uint32_t *ret_first, uint32_t *ret_n);
void snap_recv_retry(struct snap_recv *r); /* forget what was asked and has not arrived */
int snap_recv_chunk(struct snap_recv *r, const void *p, size_t n, struct wire_err *err); /* a chunk twice is fine */
bool snap_recv_complete(const struct snap_recv *r);
void snap_recv_progress(const struct snap_recv *r, uint64_t *ret_done_bytes, uint64_t *ret_total_bytes);
/* All there: checks the state checksum against info, syncs, renames temp_path to final_path (WIRE_EXISTS when a file is there), syncs the directory. Frees r whatever comes of it. */
int snap_recv_finish(struct snap_recv *r, const char *final_path, struct wire_err *err);
void snap_recv_abort(struct snap_recv *r); /* removes the temporary file, frees r */

#endif
