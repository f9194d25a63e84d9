/* A pinned view: a read mark on a handle of its own, as any reader of SQLite's holds one. */
#include "vfs/db_impl.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

#define PIN_WAIT_US 2000000u
#define PIN_NAP_US 1000u

struct vfs_view {
	struct vfs_db *db;
	struct db_file handle;
	int slot;
	uint32_t mx_frame, db_pages;
};

static int view_lock(struct vfs_view *v, int slot, int flags)
{
	return v->handle.f->pMethods->xShmLock(v->handle.f, DB_SHM_READ(slot), 1, flags);
}

static bool pin_slot(struct vfs_view *v, int slot, bool set)
{
	uint32_t *mark = &db_ckpt_info(v->db)->read_mark[slot];

	if (set) {
		if (view_lock(v, slot, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) != SQLITE_OK)
			return false;
		__atomic_store_n(mark, v->mx_frame, __ATOMIC_SEQ_CST);
		view_lock(v, slot, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
	} else if (__atomic_load_n(mark, __ATOMIC_SEQ_CST) != v->mx_frame) {
		return false;
	}
	if (view_lock(v, slot, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) != SQLITE_OK)
		return false;
	/* Between the two locks another process may have taken the slot for a mark of its own. */
	if (__atomic_load_n(mark, __ATOMIC_SEQ_CST) == v->mx_frame) {
		v->slot = slot;
		return true;
	}
	view_lock(v, slot, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
	return false;
}

/* Under pub nothing is published or restarted, so that the mark is that of the state read with it. */
static bool pin(struct vfs_view *v, struct vfs_view_info *info)
{
	struct vfs_db *db = v->db;
	bool pinned = false;

	pthread_mutex_lock(&db->pub);
	v->mx_frame = db->hdr.mx_frame;
	v->db_pages = db->hdr.n_page;
	for (int set = 0; set < 2 && !pinned; set++)
		for (int i = 1; i < VFS_READERS && !pinned; i++)
			pinned = pin_slot(v, i, set);
	*info = (struct vfs_view_info){ db_state_index(db), vfs_pages_checksum(db->pages), db->hdr.n_page, db->page_size };
	pthread_mutex_unlock(&db->pub);
	return pinned;
}

int vfs_view_open(struct vfs_db *db, struct vfs_view **ret_view, struct vfs_view_info *ret_info, struct wire_err *err)
{
	struct vfs_view *v = calloc(1, sizeof *v);
	struct vfs_view_info info;
	void volatile *p;
	int rc;

	if (!v)
		return wire_fail(err, WIRE_NOMEM, "view of %s: out of memory", db->path);
	v->db = db;
	pthread_mutex_init(&v->handle.io, NULL);
	rc = db_file_open(db, &v->handle, db->file_name, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, err);
	if (rc == WIRE_OK) {
		int rc2 = v->handle.f->pMethods->xShmMap(v->handle.f, 0, VFS_REGION_BYTES, 0, &p);

		if (rc2 != SQLITE_OK)
			rc = db_fail(db, err, rc2, "mapping the -shm of", db->path);
	}
	for (uint32_t waited = 0; rc == WIRE_OK && !pin(v, &info); waited += PIN_NAP_US) {
		if (waited >= PIN_WAIT_US)
			rc = wire_fail(err, WIRE_BUSY, "%s has no free read mark: too many readers of older states; try again", db->path);
		else
			db_nap_us(db, PIN_NAP_US);
	}
	if (rc) {
		vfs_view_close(v);
		return rc;
	}
	*ret_view = v;
	*ret_info = info;
	return WIRE_OK;
}

int vfs_view_read(struct vfs_view *v, uint32_t pgno, void *dst, struct wire_err *err)
{
	struct vfs_db *db = v->db;
	struct vfs_regions r = db_regions(db);
	bool is_short;
	uint32_t frame;
	int rc;

	if (pgno == 0 || pgno > v->db_pages)
		return wire_fail(err, WIRE_INVALID, "the view of %s has no page %u (%u pages)", db->path, pgno, v->db_pages);
	pthread_mutex_lock(&db->pub);
	frame = vfs_walindex_find(&r, pgno, 1, v->mx_frame);
	pthread_mutex_unlock(&db->pub);
	if (frame)
		return db_file_read(db, &db->wal, dst, db->page_size, vfs_frame_offset(db->page_size, frame) + VFS_FRAME_HDR, NULL, err);
	rc = db_file_read(db, &db->anchor, dst, db->page_size, (uint64_t)(pgno - 1) * db->page_size, &is_short, err);
	/* Only a page that nobody ever wrote may lie beyond the file's end; SQLite reads it as zeros, and so was the rest of dst filled. */
	if (rc == WIRE_OK && is_short && vfs_db_page_hash(db, pgno) != 0)
		return wire_fail(err, WIRE_CORRUPT, "%s ends before page %u", db->path, pgno);
	return rc;
}

uint64_t vfs_view_page_hash(struct vfs_view *v, uint32_t pgno, const void *page)
{
	return vfs_pages_is_lock_page(v->db->page_size, pgno) ? 0 : wire_page_hash(pgno, page, v->db->page_size);
}

void vfs_view_close(struct vfs_view *v)
{
	if (!v)
		return;
	if (v->handle.f) {
		if (v->slot)
			view_lock(v, v->slot, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
		v->handle.f->pMethods->xShmUnmap(v->handle.f, 0);
		db_file_close(&v->handle);
	}
	pthread_mutex_destroy(&v->handle.io);
	free(v);
}
