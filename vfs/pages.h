/* Per page of a database: hash (wire_page_hash) and index of the last change. In memory as two arrays (16 bytes a page),
 * on disk as the file `pages` beside the journal. It lives in vfs/ because capture and publication cannot work without it; images read it
 * through struct vfs_db.
 *
 *   file    64-byte header: magic "walrpag1", u32 version 1, u32 page size, u64 group, u64 index (of the mark it was flushed for),
 *           u32 page count, u32 0, u64 state checksum, u64 0, u64 XXH3 of the 56 bytes before; then 16 bytes a page: u64 hash, u64 last-changed index.
 *   After a flush that was not followed by its mark the records may be newer than the header: the entries since the mark, replayed over it, give the
 *   right state (see vfs_db_open). The state checksum at the end tells.
 *
 * The lock-byte page has hash 0 and is not counted in the checksum. Not thread-safe: the owner's lock serves. */
#ifndef VFS_PAGES_H
#define VFS_PAGES_H

#include "wire/env.h"

struct vfs_pages; /* grows with the database */

struct vfs_pages *vfs_pages_new(uint32_t page_size, uint64_t group);
void vfs_pages_free(struct vfs_pages *p);
uint32_t vfs_pages_count(const struct vfs_pages *p);
uint64_t vfs_pages_checksum(const struct vfs_pages *p);           /* XOR of all hashes */
uint64_t vfs_pages_hash(const struct vfs_pages *p, uint32_t pgno); /* 0 above the count */
uint64_t vfs_pages_changed(const struct vfs_pages *p, uint32_t pgno);
int vfs_pages_reserve(struct vfs_pages *p, uint32_t count, struct wire_err *err); /* later sets and resizes up to count cannot fail */
int vfs_pages_resize(struct vfs_pages *p, uint32_t count, struct wire_err *err);  /* dropped hashes leave the checksum; new pages have hash 0 */
void vfs_pages_set(struct vfs_pages *p, uint32_t pgno, uint64_t hash, uint64_t index); /* pgno <= count; marks it for the next flush */
bool vfs_pages_is_lock_page(uint32_t page_size, uint32_t pgno); /* the page that holds byte 0x40000000 */

/* Writes what changed since the last load or flush, and the header, and syncs. `copy`-then-write: the owner's lock is needed only during
 * vfs_pages_flush_begin; vfs_pages_flush_write may run beside sets. */
struct vfs_pages_flush;
int vfs_pages_flush_begin(struct vfs_pages *p, uint64_t index, struct vfs_pages_flush **ret_flush, struct wire_err *err);
int vfs_pages_flush_write(struct vfs_pages_flush *f, const struct wire_env *env, const char *path, struct wire_err *err); /* frees f; on failure the pages stay marked: call vfs_pages_dirty_all */
void vfs_pages_dirty_all(struct vfs_pages *p);
/* WIRE_NOTFOUND, WIRE_CORRUPT (header), WIRE_FOREIGN (group or page size). */
int vfs_pages_load(const struct wire_env *env, const char *path, uint64_t group, struct vfs_pages **ret_pages, uint64_t *ret_index, struct wire_err *err);

#endif
