/* Readers of other processes look things up while we append, without any lock. What makes that right, as in SQLite's own wal.c:
 *   - a reader ignores every frame above the mx_frame of the header that it read;
 *   - the slots of frames up to mx_frame never change or move, so that no probe sequence that leads to one of them is broken;
 *   - a slot is stored after its page number, and the header after all slots.
 * So only frames above the published mx_frame may be appended; whatever stands above them is rubbish of a writer that died. */
#include "vfs/walindex.h"

#include "vfs/walfmt.h"
#include <assert.h>
#include <stddef.h>
#include <string.h>

#define SLOTS 8192u
#define WALINDEX_VERSION 3007000u
#define HDR_CKSUM_BYTES offsetof(struct vfs_walindex_hdr, cksum)
#define REGION0_HEAD (2 * sizeof(struct vfs_walindex_hdr) + sizeof(struct vfs_ckpt_info))

_Static_assert(REGION0_HEAD == 136, "what stands before the page numbers of region 0");
_Static_assert(REGION0_HEAD + 4 * VFS_REGION0_FRAMES + 2 * SLOTS == VFS_REGION_BYTES, "region 0");
_Static_assert(4 * VFS_REGION_FRAMES + 2 * SLOTS == VFS_REGION_BYTES, "region n");

/* Where a region keeps what; frame `zero + i + 1` has page number pgno[i] and slot value i + 1. */
struct table {
	uint32_t *pgno;
	uint16_t *slot;
	uint32_t zero, frames;
};

static struct table table_of(void *base, uint32_t region)
{
	uint8_t *const bytes = base;
	uint8_t *const slots = bytes + VFS_REGION_BYTES - 2 * SLOTS;
	struct table t = { .slot = (uint16_t *)(void *)slots };

	if (region == 0) {
		t.pgno = (uint32_t *)(void *)(bytes + REGION0_HEAD);
		t.frames = VFS_REGION0_FRAMES;
	} else {
		t.pgno = (uint32_t *)base;
		t.zero = VFS_REGION0_FRAMES + (region - 1) * VFS_REGION_FRAMES;
		t.frames = VFS_REGION_FRAMES;
	}
	return t;
}

static uint32_t first_slot(uint32_t pgno)
{
	return (pgno * 383u) & (SLOTS - 1);
}

static uint32_t next_slot(uint32_t slot)
{
	return (slot + 1) & (SLOTS - 1);
}

uint32_t vfs_walindex_region_of(uint32_t frame)
{
	assert(frame > 0);
	return (uint32_t)(((uint64_t)frame + VFS_REGION_FRAMES - VFS_REGION0_FRAMES - 1) / VFS_REGION_FRAMES);
}

/* Word by word and atomically: another process may be writing them. */
static void copy_words(void *dst, const void *src, size_t n)
{
	uint32_t *const to = dst;
	const uint32_t *const from = src;

	for (size_t i = 0; i < n / 4; i++)
		__atomic_store_n(&to[i], __atomic_load_n(&from[i], __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}

static bool is_valid(const struct vfs_walindex_hdr *h)
{
	uint32_t sum[2] = { 0, 0 };

	vfs_wal_cksum(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, h, HDR_CKSUM_BYTES, sum);
	return h->is_init != 0 && h->version == WALINDEX_VERSION && h->cksum[0] == sum[0] && h->cksum[1] == sum[1];
}

bool vfs_walindex_read_header(const void *region0, bool torn_ok, struct vfs_walindex_hdr *ret_hdr)
{
	const struct vfs_walindex_hdr *const real = region0;
	struct vfs_walindex_hdr h[2];

	/* In the writer's opposite order: equal copies then are one header and no mixture. */
	copy_words(&h[0], &real[0], sizeof h[0]);
	__sync_synchronize();
	copy_words(&h[1], &real[1], sizeof h[1]);

	if (memcmp(&h[0], &h[1], sizeof h[0]) == 0) {
		if (!is_valid(&h[0]))
			return false;
		*ret_hdr = h[0];
		return true;
	}
	for (int i = 0; torn_ok && i < 2; i++) {
		if (is_valid(&h[i])) {
			*ret_hdr = h[i];
			return true;
		}
	}
	return false;
}

void vfs_walindex_write_header(void *region0, struct vfs_walindex_hdr *hdr)
{
	struct vfs_walindex_hdr *const real = region0;

	hdr->version = WALINDEX_VERSION;
	hdr->is_init = 1;
	hdr->cksum[0] = hdr->cksum[1] = 0;
	vfs_wal_cksum(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, hdr, HDR_CKSUM_BYTES, hdr->cksum);

	__sync_synchronize();
	copy_words(&real[1], hdr, sizeof *hdr);
	__sync_synchronize();
	copy_words(&real[0], hdr, sizeof *hdr);
	__sync_synchronize();
}

struct vfs_ckpt_info *vfs_walindex_ckpt_info(void *region0)
{
	return (struct vfs_ckpt_info *)(void *)((uint8_t *)region0 + 2 * sizeof(struct vfs_walindex_hdr));
}

static void zero_pgnos(const struct table *t, uint32_t from)
{
	for (uint32_t i = from; i < t->frames; i++)
		__atomic_store_n(&t->pgno[i], 0, __ATOMIC_RELAXED);
}

/* Takes out all that stands above the first `keep` frames of a region; slots first, so that an end in the middle leaves the page
 * number behind which the next writer is told by. */
static void cut(const struct table *t, uint32_t keep)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		if (__atomic_load_n(&t->slot[i], __ATOMIC_RELAXED) > keep)
			__atomic_store_n(&t->slot[i], 0, __ATOMIC_RELAXED);
	}
	__sync_synchronize();
	zero_pgnos(t, keep);
}

int vfs_walindex_append(const struct vfs_regions *r, uint32_t frame, uint32_t pgno, struct wire_err *err)
{
	const uint32_t region = vfs_walindex_region_of(frame);
	void *const base = r->get(r->ctx, region);

	if (base == NULL)
		return wire_fail(err, WIRE_NOMEM, "the wal-index cannot grow to region %u, for frame %u; free memory or disk "
		                 "space where the -shm file is", region, frame);

	const struct table t = table_of(base, region);
	const uint32_t at = frame - t.zero - 1;

	if (at == 0 || __atomic_load_n(&t.pgno[at], __ATOMIC_RELAXED) != 0)
		cut(&t, at);

	uint32_t slot = first_slot(pgno);
	for (uint32_t probes = 0; __atomic_load_n(&t.slot[slot], __ATOMIC_RELAXED) != 0; slot = next_slot(slot)) {
		/* Every frame has one slot: more of them than frames is damage. */
		if (probes++ == at)
			return wire_fail(err, WIRE_CORRUPT, "region %u of the wal-index is damaged (more slots in use than frames); "
			                 "restart the node, which makes the wal-index anew", region);
	}
	__atomic_store_n(&t.pgno[at], pgno, __ATOMIC_RELAXED);
	__atomic_store_n(&t.slot[slot], (uint16_t)(at + 1), __ATOMIC_RELEASE);
	return WIRE_OK;
}

/* Latest frame of the region within the bounds. */
static uint32_t find_in(const struct table *t, uint32_t pgno, uint32_t min_frame, uint32_t mx_frame)
{
	uint32_t found = 0;
	uint32_t slot = first_slot(pgno);

	for (uint32_t probes = 0; probes < SLOTS; probes++, slot = next_slot(slot)) {
		const uint32_t value = __atomic_load_n(&t->slot[slot], __ATOMIC_ACQUIRE);
		if (value == 0)
			break;
		if (value > t->frames)
			continue;
		const uint32_t frame = t->zero + value;
		if (frame <= mx_frame && frame >= min_frame && frame > found
		    && __atomic_load_n(&t->pgno[value - 1], __ATOMIC_RELAXED) == pgno)
			found = frame;
	}
	return found;
}

uint32_t vfs_walindex_find(const struct vfs_regions *r, uint32_t pgno, uint32_t min_frame, uint32_t mx_frame)
{
	if (min_frame == 0)
		min_frame = 1;
	if (mx_frame < min_frame)
		return 0;

	const uint32_t lowest = vfs_walindex_region_of(min_frame);
	for (uint32_t region = vfs_walindex_region_of(mx_frame) + 1; region-- > lowest;) {
		void *const base = r->get(r->ctx, region);
		assert(base != NULL); /* frames up to mx_frame are there, so their regions are; going on would find an older page */
		const struct table t = table_of(base, region);
		const uint32_t frame = find_in(&t, pgno, min_frame, mx_frame);
		if (frame != 0)
			return frame;
	}
	return 0;
}

uint32_t vfs_walindex_pgno(const struct vfs_regions *r, uint32_t frame)
{
	const uint32_t region = vfs_walindex_region_of(frame);
	void *const base = r->get(r->ctx, region);

	assert(base != NULL);
	const struct table t = table_of(base, region);
	return __atomic_load_n(&t.pgno[frame - t.zero - 1], __ATOMIC_RELAXED);
}
