/* Private frames: the first SHIM_STORE_MEMORY bytes in memory, all above in a temporary file. The base VFS makes that file where SQLite puts its own
 * temporary files ($SQLITE_TMPDIR, $TMPDIR, /var/tmp, ...) and unlinks it at once. */
#include "vfs/conn.h"
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT3

#define KEEP_BYTES (256u << 10)

static int open_file(struct shim_store *s, sqlite3_vfs *base)
{
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXCLUSIVE | SQLITE_OPEN_DELETEONCLOSE | SQLITE_OPEN_TEMP_DB;
	sqlite3_file *f = calloc(1, (size_t)base->szOsFile);
	int out = 0, rc;

	if (!f)
		return SQLITE_IOERR_NOMEM;
	rc = base->xOpen(base, NULL, f, flags, &out);
	if (rc != SQLITE_OK) {
		if (f->pMethods)
			f->pMethods->xClose(f);
		free(f);
		return rc;
	}
	s->file = f;
	return SQLITE_OK;
}

static int grow(struct shim_store *s, size_t need)
{
	size_t cap = s->cap ? s->cap : 64u << 10;
	uint8_t *mem;

	while (cap < need)
		cap *= 2;
	mem = realloc(s->mem, cap);
	if (!mem)
		return SQLITE_IOERR_NOMEM;
	s->mem = mem;
	s->cap = cap;
	return SQLITE_OK;
}

int shim_store_write(struct shim_store *s, sqlite3_vfs *base, const void *p, uint32_t n, uint64_t at)
{
	const uint8_t *from = p;
	const uint64_t end = at + n;

	if (at > s->end)
		return SQLITE_IOERR_WRITE;
	if (at < SHIM_STORE_MEMORY) {
		uint32_t part = end <= SHIM_STORE_MEMORY ? n : (uint32_t)(SHIM_STORE_MEMORY - at);

		if (at + part > s->cap) {
			int rc = grow(s, (size_t)at + part);
			if (rc)
				return rc;
		}
		memcpy(s->mem + at, from, part);
		from += part;
		at += part;
		n -= part;
	}
	if (n > 0) {
		int rc = s->file ? SQLITE_OK : open_file(s, base);

		if (rc == SQLITE_OK)
			rc = s->file->pMethods->xWrite(s->file, from, (int)n, (sqlite3_int64)(at - SHIM_STORE_MEMORY));
		if (rc)
			return rc;
	}
	if (end > s->end)
		s->end = end;
	return SQLITE_OK;
}

int shim_store_read(struct shim_store *s, void *p, uint32_t n, uint64_t at)
{
	uint8_t *to = p;
	bool is_short = false;

	if (at >= s->end || n > s->end - at) {
		uint32_t there = at >= s->end ? 0 : (uint32_t)(s->end - at);

		memset(to + there, 0, n - there);
		n = there;
		is_short = true;
	}
	if (n > 0 && at < SHIM_STORE_MEMORY) {
		uint32_t part = at + n <= SHIM_STORE_MEMORY ? n : (uint32_t)(SHIM_STORE_MEMORY - at);

		memcpy(to, s->mem + at, part);
		to += part;
		at += part;
		n -= part;
	}
	if (n > 0) {
		int rc = s->file->pMethods->xRead(s->file, to, (int)n, (sqlite3_int64)(at - SHIM_STORE_MEMORY));
		if (rc)
			return rc;
	}
	return is_short ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

void shim_store_clear(struct shim_store *s)
{
	if (s->file) {
		s->file->pMethods->xClose(s->file);
		free(s->file);
		s->file = NULL;
	}
	if (s->cap > KEEP_BYTES) {
		free(s->mem);
		s->mem = NULL;
		s->cap = 0;
	}
	s->end = 0;
}

void shim_store_free(struct shim_store *s)
{
	shim_store_clear(s);
	free(s->mem);
	*s = (struct shim_store){ 0 };
}
