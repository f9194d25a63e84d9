/* The published state as another process shows it. What keeps a copy of the wal-index right although nothing keeps the host from going on:
 *
 *   - The header is a whole one (vfs/shared.h). All regions up to its last frame were complete when it was shown, and of one WAL they do not change but behind that frame,
 *     where readers do not look.
 *   - A restart of the WAL is found out by `restarts`, which is odd while one is under way: the copy is made again.
 *   - Another host is found out by `owner`, which is changed before anything of the database is: the copy counts for nothing, and all calls fail from then on. */
#include "vfs/attached.h"
#include "vfs/db_impl.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RESTART_NAP_NS 50000
#define RESTART_NAPS 20000u /* a second: a restart takes microseconds, unless the host is stopped in it */

bool attached_is_ours(const struct vfs_db *db)
{
	return atomic_load_explicit(&db->shared->owner, memory_order_seq_cst) == db->owner;
}

static int host_gone(struct vfs_db *db, struct wire_err *err)
{
	return wire_fail(err, WIRE_CLOSED, "the process that hosted the node of %s has ended: open the database again", db->path);
}

bool vfs_db_is_attached(const struct vfs_db *db)
{
	return db->attached;
}

/* ---- the published state ---- */

uint64_t attached_sequence(const struct vfs_db *db)
{
	uint64_t sequence = atomic_load_explicit(&db->shared->sequence, memory_order_acquire);

	/* Not to be mistaken for a state that was seen: the next pull fails. */
	return attached_is_ours(db) ? sequence : UINT64_MAX;
}

uint64_t attached_published(const struct vfs_db *db)
{
	return atomic_load_explicit(&db->shared->index, memory_order_acquire);
}

/* Waits for the end of a restart; *ret_restarts is even. */
static int no_restart(struct vfs_db *db, uint64_t *ret_restarts, struct wire_err *err)
{
	const struct timespec nap = { .tv_nsec = RESTART_NAP_NS };

	for (uint32_t naps = 0;; naps++) {
		uint64_t n = atomic_load_explicit(&db->shared->restarts, memory_order_seq_cst);

		if (!attached_is_ours(db))
			return host_gone(db, err);
		if (!(n & 1)) {
			*ret_restarts = n;
			return WIRE_OK;
		}
		if (naps == RESTART_NAPS)
			return wire_fail(err, WIRE_TIMEOUT, "the process that hosts the node of %s was stopped, or has ended, in a restart of the WAL", db->path);
		nanosleep(&nap, NULL);
	}
}

static int copy_region(struct vfs_db *db, const struct vfs_regions *to, uint32_t region, struct wire_err *err)
{
	const size_t skip = region == 0 ? 2 * sizeof(struct vfs_walindex_hdr) + sizeof(struct vfs_ckpt_info) : 0;
	const uint8_t *src = vfs_db_real_region(db, region, false);
	uint8_t *dst = to->get(to->ctx, region);

	if (!dst)
		return wire_fail(err, WIRE_NOMEM, "no room for region %u of a connection's wal-index", region);
	if (!src)
		return wire_fail(err, WIRE_IO, "%s-shm has no region %u", db->path, region);
	memcpy(dst + skip, src + skip, VFS_REGION_BYTES - skip);
	return WIRE_OK;
}

static int copy_index(struct vfs_db *db, const struct vfs_walindex_hdr *have, const struct vfs_walindex_hdr *hdr, const struct vfs_regions *to, struct wire_err *err)
{
	uint32_t from = 0;
	int rc = WIRE_OK;

	if (have->is_init && memcmp(have->salt, hdr->salt, sizeof hdr->salt) == 0 && have->mx_frame > 0 && have->mx_frame <= hdr->mx_frame)
		from = vfs_walindex_region_of(have->mx_frame);
	for (uint32_t i = from; i <= vfs_walindex_region_of(hdr->mx_frame ? hdr->mx_frame : 1) && rc == WIRE_OK; i++)
		rc = copy_region(db, to, i, err);
	return rc;
}

int attached_pull(struct vfs_db *db, struct vfs_pull *pull, const struct vfs_regions *to, struct wire_err *err)
{
	struct vfs_walindex_hdr hdr;
	uint8_t *region0;

	for (;;) {
		uint64_t restarts = 0;
		int rc = no_restart(db, &restarts, err);

		if (rc)
			return rc;
		vfs_shared_state(db->shared, &hdr);
		if (memcmp(&pull->hdr, &hdr, sizeof hdr) == 0)
			return attached_is_ours(db) ? WIRE_OK : host_gone(db, err);
		rc = copy_index(db, &pull->hdr, &hdr, to, err);
		/* From here until it is whole the copy is nothing. */
		memset(&pull->hdr, 0, sizeof pull->hdr);
		region0 = rc ? NULL : to->get(to->ctx, 0);
		if (rc == WIRE_OK && !region0)
			rc = wire_fail(err, WIRE_NOMEM, "no room for region 0 of a connection's wal-index");
		if (rc)
			return attached_is_ours(db) ? rc : host_gone(db, err);
		db_load_ckpt_info(db, vfs_walindex_ckpt_info(region0));
		atomic_thread_fence(memory_order_seq_cst);
		if (!attached_is_ours(db))
			return host_gone(db, err);
		if (atomic_load_explicit(&db->shared->restarts, memory_order_seq_cst) == restarts)
			break;
	}
	memcpy(region0 + sizeof hdr, &hdr, sizeof hdr);
	atomic_thread_fence(memory_order_seq_cst);
	memcpy(region0, &hdr, sizeof hdr);
	pull->hdr = hdr;
	return WIRE_OK;
}

/* ---- opening ---- */

static int map_first(struct vfs_db *db, struct wire_err *err)
{
	void *p = NULL;

	db->shm_mapped = true; /* the handle is closed by xShmUnmap also when this fails */
	p = vfs_db_real_region(db, 0, false);
	if (!p)
		return wire_fail(err, WIRE_CLOSED, "%s-shm is not there: the process that hosts the node has ended", db->path);
	return WIRE_OK;
}

int vfs_db_attach(const struct vfs_attached_start *start, struct vfs_db **ret_db, struct wire_err *err)
{
	struct vfs_db *db = db_new(start->path, start->env, start->ops, err);
	int rc;

	if (!db)
		return WIRE_NOMEM;
	db->attached = true;
	db->shared = (struct vfs_shared *)(uintptr_t)start->shared; /* never written through */
	db->owner = start->owner;
	db->page_size = start->page_size;
	rc = db_open_anchor(db, start->path, err);
	if (rc == WIRE_OK)
		rc = map_first(db, err);
	if (rc == WIRE_OK && !attached_is_ours(db))
		rc = host_gone(db, err);
	if (rc) {
		vfs_db_close(db);
		return rc;
	}
	db->unmap = start->unmap;
	db_list(db);
	*ret_db = db;
	return WIRE_OK;
}
