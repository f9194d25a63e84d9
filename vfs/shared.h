/* What the process that publishes a database shows to other processes of the machine, in memory that all of them have mapped (shell/shared.h says whose). The owner alone
 * writes; who attaches only reads.
 *
 * The latest state is in slot[latch & 1]. The next one goes into the other slot, and counts once `latch` has moved: whoever reads a slot and then finds `latch` where it was has read
 * a whole one. So an owner that is stopped or killed at any place leaves a whole state behind, and keeps no reader waiting. What it does to the wal-index itself in the meantime
 * is beyond that state's last frame, and so nothing to its readers; but for a restart of the WAL, which makes region 0 anew: `restarts` is odd then, and copies that were begun
 * before are thrown away.
 *
 * `sequence` and `index` move after the state that they are of: who sees them finds that state, or a later one. */
#ifndef VFS_SHARED_H
#define VFS_SHARED_H

#include "vfs/walindex.h"
#include <stdatomic.h>

#define VFS_SHARED_WORDS (sizeof(struct vfs_walindex_hdr) / sizeof(uint64_t))

struct vfs_shared {
	_Atomic uint64_t owner; /* names one run of one process; another one's is here before that one touches the database. 0: nobody's */
	_Atomic uint64_t sequence, index; /* vfs_db_sequence, vfs_db_published */
	_Atomic uint64_t restarts;
	_Atomic uint64_t writes_far; /* vfs_db_writes_far */
	_Atomic uint64_t latch;
	struct { _Atomic uint64_t word[VFS_SHARED_WORDS]; } slot[2];
};
_Static_assert(sizeof(struct vfs_walindex_hdr) % sizeof(uint64_t) == 0, "a header is whole words");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "shared between processes");

/* The owner's, one thread at a time. */
void vfs_shared_show(struct vfs_shared *s, const struct vfs_walindex_hdr *hdr, uint64_t sequence, uint64_t index);
void vfs_shared_restart(struct vfs_shared *s, bool begins);

void vfs_shared_state(const struct vfs_shared *s, struct vfs_walindex_hdr *ret_hdr); /* any thread, any process */

#endif
