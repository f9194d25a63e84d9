#include "vfs/shared.h"
#include <string.h>

void vfs_shared_show(struct vfs_shared *s, const struct vfs_walindex_hdr *hdr, uint64_t sequence, uint64_t index)
{
	uint64_t next = atomic_load_explicit(&s->latch, memory_order_relaxed) + 1, word[VFS_SHARED_WORDS];

	memcpy(word, hdr, sizeof word);
	/* The slot is written after its last readers could see that it is no more the latest. */
	atomic_thread_fence(memory_order_release);
	for (size_t i = 0; i < VFS_SHARED_WORDS; i++)
		atomic_store_explicit(&s->slot[next & 1].word[i], word[i], memory_order_relaxed);
	atomic_store_explicit(&s->latch, next, memory_order_release);
	atomic_store_explicit(&s->sequence, sequence, memory_order_release);
	atomic_store_explicit(&s->index, index, memory_order_release);
}

void vfs_shared_restart(struct vfs_shared *s, bool begins)
{
	uint64_t n = atomic_load_explicit(&s->restarts, memory_order_relaxed);

	/* One that an earlier owner did not end is ended by this one. */
	atomic_store_explicit(&s->restarts, begins ? n | 1 : (n | 1) + 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
}

void vfs_shared_state(const struct vfs_shared *s, struct vfs_walindex_hdr *ret_hdr)
{
	uint64_t word[VFS_SHARED_WORDS], latch;

	do {
		latch = atomic_load_explicit(&s->latch, memory_order_acquire);
		for (size_t i = 0; i < VFS_SHARED_WORDS; i++)
			word[i] = atomic_load_explicit(&s->slot[latch & 1].word[i], memory_order_relaxed);
		atomic_thread_fence(memory_order_acquire);
	} while (atomic_load_explicit(&s->latch, memory_order_relaxed) != latch);
	memcpy(ret_hdr, word, sizeof word);
}
