#include "vfs/pages.h"

#include "wire/buf.h"
#include "wire/hash.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "walrpag1"
#define VERSION 1u
#define HDR 64u
#define REC 16u
#define LOCK_BYTE 0x40000000u
#define BLOCK 64u /* records that are marked and written together */
#define IO_RECS 8192u

struct vfs_pages {
	uint32_t page_size, count, cap;
	uint64_t group, checksum;
	uint64_t *hash, *changed; /* [cap] */
	uint8_t *dirty;           /* [cap / BLOCK]; 1: the block differs from the file */
	bool all_dirty;           /* there is no file that one could add to */
};

/* A copy of what is to be written: runs of records. */
struct run { uint32_t first, n; }; /* first: from 0 */
struct vfs_pages_flush {
	uint8_t header[HDR];
	bool whole; /* all records: into a new file */
	uint32_t n_runs;
	struct run *runs;
	uint8_t *recs;
};

bool vfs_pages_is_lock_page(uint32_t page_size, uint32_t pgno)
{
	return pgno == LOCK_BYTE / page_size + 1;
}

struct vfs_pages *vfs_pages_new(uint32_t page_size, uint64_t group)
{
	struct vfs_pages *const p = calloc(1, sizeof *p);

	if (p != NULL) {
		p->page_size = page_size;
		p->group = group;
		p->all_dirty = true;
	}
	return p;
}

void vfs_pages_free(struct vfs_pages *p)
{
	if (p == NULL)
		return;
	free(p->hash);
	free(p->changed);
	free(p->dirty);
	free(p);
}

uint32_t vfs_pages_count(const struct vfs_pages *p)
{
	return p->count;
}

uint64_t vfs_pages_checksum(const struct vfs_pages *p)
{
	return p->checksum;
}

uint64_t vfs_pages_hash(const struct vfs_pages *p, uint32_t pgno)
{
	return pgno >= 1 && pgno <= p->count ? p->hash[pgno - 1] : 0;
}

uint64_t vfs_pages_changed(const struct vfs_pages *p, uint32_t pgno)
{
	return pgno >= 1 && pgno <= p->count ? p->changed[pgno - 1] : 0;
}

static int grow(struct vfs_pages *p, uint32_t cap, struct wire_err *err)
{
	uint64_t *const hash = realloc(p->hash, sizeof *hash * cap);
	if (hash != NULL)
		p->hash = hash;
	uint64_t *const changed = hash == NULL ? NULL : realloc(p->changed, sizeof *changed * cap);
	if (changed != NULL)
		p->changed = changed;
	uint8_t *const dirty = changed == NULL ? NULL : realloc(p->dirty, cap / BLOCK);
	if (dirty == NULL)
		return wire_fail(err, WIRE_NOMEM, "no memory for the hashes of %u pages", cap);
	memset(dirty + p->cap / BLOCK, 0, (cap - p->cap) / BLOCK);
	p->dirty = dirty;
	p->cap = cap;
	return WIRE_OK;
}

int vfs_pages_reserve(struct vfs_pages *p, uint32_t count, struct wire_err *err)
{
	if (count <= p->cap)
		return WIRE_OK;

	/* Page by page growth must not cost a move each time. */
	const uint64_t wanted = count > p->cap + (uint64_t)p->cap / 8 ? count : p->cap + (uint64_t)p->cap / 8;
	const uint64_t rounded = (wanted + 1023) / 1024 * 1024;
	const uint64_t most = UINT32_MAX / BLOCK * BLOCK;
	if (count > most)
		return wire_fail(err, WIRE_TOOBIG, "%u pages are more than a database can have", count);
	return grow(p, (uint32_t)(rounded < most ? rounded : most), err);
}

int vfs_pages_resize(struct vfs_pages *p, uint32_t count, struct wire_err *err)
{
	const int rc = vfs_pages_reserve(p, count, err);
	if (rc != WIRE_OK)
		return rc;

	for (uint32_t i = count; i < p->count; i++)
		p->checksum ^= p->hash[i];
	if (count > p->count) {
		memset(&p->hash[p->count], 0, sizeof *p->hash * (count - p->count));
		memset(&p->changed[p->count], 0, sizeof *p->changed * (count - p->count));
		memset(&p->dirty[p->count / BLOCK], 1, (count - 1) / BLOCK - p->count / BLOCK + 1);
	}
	p->count = count;
	return WIRE_OK;
}

void vfs_pages_set(struct vfs_pages *p, uint32_t pgno, uint64_t hash, uint64_t index)
{
	assert(pgno >= 1 && pgno <= p->count);
	if (vfs_pages_is_lock_page(p->page_size, pgno))
		hash = 0;
	p->checksum ^= p->hash[pgno - 1] ^ hash;
	p->hash[pgno - 1] = hash;
	p->changed[pgno - 1] = index;
	p->dirty[(pgno - 1) / BLOCK] = 1;
}

void vfs_pages_dirty_all(struct vfs_pages *p)
{
	p->all_dirty = true;
}

/* ---- flush ---- */

static void header_put(const struct vfs_pages *p, uint64_t index, uint8_t dst[HDR])
{
	memset(dst, 0, HDR);
	memcpy(dst, MAGIC, 8);
	wire_set_le32(dst + 8, VERSION);
	wire_set_le32(dst + 12, p->page_size);
	wire_set_le64(dst + 16, p->group);
	wire_set_le64(dst + 24, index);
	wire_set_le32(dst + 32, p->count);
	wire_set_le64(dst + 40, p->checksum);
	wire_set_le64(dst + 56, wire_hash(dst, 56, 0));
}

/* Runs of dirty blocks within the count; with runs NULL only counts them. */
static uint32_t find_runs(const struct vfs_pages *p, struct run *runs, size_t *ret_recs)
{
	const uint32_t blocks = p->count / BLOCK + (p->count % BLOCK != 0);
	uint32_t n_runs = 0;
	size_t recs = 0;

	for (uint32_t b = 0; b < blocks;) {
		if (!p->all_dirty && !p->dirty[b]) {
			b++;
			continue;
		}
		const uint32_t first = b;
		while (b < blocks && (p->all_dirty || p->dirty[b]))
			b++;
		const uint32_t n = (b == blocks ? p->count : b * BLOCK) - first * BLOCK;
		if (runs != NULL)
			runs[n_runs] = (struct run){ first * BLOCK, n };
		n_runs++;
		recs += n;
	}
	*ret_recs = recs;
	return n_runs;
}

int vfs_pages_flush_begin(struct vfs_pages *p, uint64_t index, struct vfs_pages_flush **ret_flush, struct wire_err *err)
{
	size_t recs;
	const uint32_t n_runs = find_runs(p, NULL, &recs);
	struct vfs_pages_flush *const f = calloc(1, sizeof *f);

	if (f == NULL)
		return wire_fail(err, WIRE_NOMEM, "no memory to write the page hashes");
	f->runs = malloc(sizeof *f->runs * n_runs + 1);
	f->recs = malloc(recs * REC + 1);
	if (f->runs == NULL || f->recs == NULL) {
		free(f->runs);
		free(f->recs);
		free(f);
		return wire_fail(err, WIRE_NOMEM, "no memory to write %zu page hashes", recs);
	}

	header_put(p, index, f->header);
	f->whole = p->all_dirty;
	f->n_runs = find_runs(p, f->runs, &recs);
	uint8_t *at = f->recs;
	for (uint32_t i = 0; i < n_runs; i++) {
		for (uint32_t j = f->runs[i].first; j < f->runs[i].first + f->runs[i].n; j++, at += REC) {
			wire_set_le64(at, p->hash[j]);
			wire_set_le64(at + 8, p->changed[j]);
		}
	}
	if (p->cap > 0)
		memset(p->dirty, 0, p->cap / BLOCK);
	p->all_dirty = false;
	*ret_flush = f;
	return WIRE_OK;
}

/* The records are durable before the header that names them is written. */
static int write_file(const struct vfs_pages_flush *f, const struct wire_env *env, struct wire_file *file,
                      struct wire_err *err)
{
	const uint8_t *from = f->recs;
	int rc = WIRE_OK;

	for (uint32_t i = 0; i < f->n_runs && rc == WIRE_OK; i++) {
		const size_t n = (size_t)f->runs[i].n * REC;
		rc = env->write(env->ctx, file, from, n, HDR + (uint64_t)f->runs[i].first * REC, err);
		from += n;
	}
	if (rc == WIRE_OK)
		rc = env->sync(env->ctx, file, err);
	if (rc == WIRE_OK)
		rc = env->write(env->ctx, file, f->header, HDR, 0, err);
	if (rc == WIRE_OK)
		rc = env->sync(env->ctx, file, err);
	return rc;
}

/* A new file comes into being beside the old one, so that there is never a half of one under the name. */
static int write_new(const struct vfs_pages_flush *f, const struct wire_env *env, const char *path, struct wire_err *err)
{
	const size_t len = strlen(path);
	char *const temp = malloc(len + sizeof ".new");
	char *const dir = malloc(len + 2);
	struct wire_file *file = NULL;
	int rc = WIRE_NOMEM;

	if (temp == NULL || dir == NULL) {
		wire_fail(err, WIRE_NOMEM, "no memory to write %s", path);
		goto out;
	}
	memcpy(temp, path, len);
	memcpy(temp + len, ".new", sizeof ".new");
	memcpy(dir, path, len + 1);
	char *const slash = strrchr(dir, '/');
	if (slash == NULL)
		memcpy(dir, ".", 2);
	else
		slash[slash == dir ? 1 : 0] = '\0';

	rc = env->open(env->ctx, temp, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &file, err);
	if (rc != WIRE_OK)
		goto out;
	rc = env->truncate(env->ctx, file, 0, err);
	if (rc == WIRE_OK)
		rc = write_file(f, env, file, err);
	env->close(env->ctx, file);
	if (rc == WIRE_OK)
		rc = env->rename(env->ctx, temp, path, err);
	if (rc == WIRE_OK)
		rc = env->sync_dir(env->ctx, dir, err);
	else
		env->unlink(env->ctx, temp, NULL); /* best effort: the next flush truncates it */
out:
	free(temp);
	free(dir);
	return rc;
}

int vfs_pages_flush_write(struct vfs_pages_flush *f, const struct wire_env *env, const char *path, struct wire_err *err)
{
	struct wire_file *file = NULL;
	int rc;

	if (f->whole) {
		rc = write_new(f, env, path, err);
	} else {
		rc = env->open(env->ctx, path, WIRE_OPEN_WRITE, &file, err);
		if (rc == WIRE_OK) {
			rc = write_file(f, env, file, err);
			env->close(env->ctx, file);
		}
	}
	free(f->runs);
	free(f->recs);
	free(f);
	return rc == WIRE_OK ? rc : wire_context(err, "page hashes");
}

/* ---- load ---- */

static int header_get(const uint8_t h[HDR], const char *path, uint64_t group, struct wire_err *err)
{
	const uint32_t page_size = wire_le32(h + 12);

	if (memcmp(h, MAGIC, 8) != 0)
		return wire_fail(err, WIRE_CORRUPT, "%s is not a file of page hashes; remove it, it is made anew from the database",
		                 path);
	if (wire_le64(h + 56) != wire_hash(h, 56, 0))
		return wire_fail(err, WIRE_CORRUPT, "%s has a damaged header; remove it, it is made anew from the database", path);
	if (wire_le32(h + 8) != VERSION)
		return wire_fail(err, WIRE_CORRUPT, "%s has format %u, this program knows %u; use the version of walraft that wrote it",
		                 path, wire_le32(h + 8), VERSION);
	if (page_size < 512 || page_size > 65536 || (page_size & (page_size - 1)) != 0)
		return wire_fail(err, WIRE_CORRUPT, "%s names a page size of %u", path, page_size);
	if (wire_le64(h + 16) != group)
		return wire_fail(err, WIRE_FOREIGN, "%s belongs to another database (group %llx, not %llx)", path,
		                 (unsigned long long)wire_le64(h + 16), (unsigned long long)group);
	return WIRE_OK;
}

static int load_records(struct vfs_pages *p, const struct wire_env *env, struct wire_file *file, const char *path,
                        uint32_t count, struct wire_err *err)
{
	uint64_t size = 0;
	int rc = env->size(env->ctx, file, &size, err);
	if (rc != WIRE_OK)
		return rc;
	if (size < HDR + (uint64_t)count * REC)
		return wire_fail(err, WIRE_CORRUPT, "%s is cut off: %llu bytes for %u pages; remove it, it is made anew from the database",
		                 path, (unsigned long long)size, count);
	rc = vfs_pages_resize(p, count, err);
	if (rc != WIRE_OK)
		return rc;

	uint8_t *const mem = malloc(IO_RECS * REC);
	if (mem == NULL)
		return wire_fail(err, WIRE_NOMEM, "no memory to read %s", path);
	for (uint32_t at = 0; at < count && rc == WIRE_OK;) {
		const uint32_t n = count - at < IO_RECS ? count - at : IO_RECS;
		size_t got = 0;
		rc = env->read(env->ctx, file, mem, (size_t)n * REC, HDR + (uint64_t)at * REC, &got, err);
		if (rc == WIRE_OK && got != (size_t)n * REC)
			rc = wire_fail(err, WIRE_CORRUPT, "%s became shorter while it was read", path);
		for (uint32_t i = 0; rc == WIRE_OK && i < n; i++)
			vfs_pages_set(p, at + i + 1, wire_le64(mem + (size_t)i * REC), wire_le64(mem + (size_t)i * REC + 8));
		at += n;
	}
	free(mem);
	if (rc == WIRE_OK && p->cap > 0)
		memset(p->dirty, 0, p->cap / BLOCK);
	return rc;
}

int vfs_pages_load(const struct wire_env *env, const char *path, uint64_t group, struct vfs_pages **ret_pages,
                   uint64_t *ret_index, struct wire_err *err)
{
	struct vfs_pages *p = NULL;
	struct wire_file *file = NULL;
	uint8_t h[HDR];
	size_t got = 0;
	int rc = env->open(env->ctx, path, WIRE_OPEN_READ, &file, err);

	if (rc != WIRE_OK)
		return rc;
	rc = env->read(env->ctx, file, h, HDR, 0, &got, err);
	if (rc == WIRE_OK && got < HDR)
		rc = wire_fail(err, WIRE_CORRUPT, "%s is cut off in its header; remove it, it is made anew from the database", path);
	if (rc == WIRE_OK)
		rc = header_get(h, path, group, err);
	if (rc == WIRE_OK) {
		p = vfs_pages_new(wire_le32(h + 12), group);
		rc = p == NULL ? wire_fail(err, WIRE_NOMEM, "no memory to read %s", path)
		               : load_records(p, env, file, path, wire_le32(h + 32), err);
	}
	env->close(env->ctx, file);
	if (rc != WIRE_OK) {
		vfs_pages_free(p);
		return rc;
	}
	p->all_dirty = false;
	*ret_pages = p;
	*ret_index = wire_le64(h + 24);
	return WIRE_OK;
}
