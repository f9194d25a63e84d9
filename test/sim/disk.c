#include "test/sim/disk_impl.h"
#include "test/sim/memory.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Paths are one directory deep for the simulator's journals; what is before the last slash is the node's. */
static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int fail_dead(struct wire_err *err)
{
	return wire_fail(err, WIRE_IO, "the node is dead");
}

/* Every call that touches the disk comes through here: true at and after the crash. */
static bool dies(struct sim_disk *d)
{
	if (!d->dead && d->crash_in && --d->crash_in == 0)
		d->dead = true;
	return d->dead;
}

static struct name *find(struct dir *dir, const char *path)
{
	const char *text = base_name(path);

	for (uint32_t i = 0; i < dir->n; i++)
		if (!strcmp(dir->names[i].text, text))
			return &dir->names[i];
	return NULL;
}

/* A file without names and handles, not even in a directory that may come back, is gone. */
void disk_collect(struct sim_disk *d)
{
	for (uint32_t i = 0; i < DISK_FILES; i++)
		d->inodes[i].links = 0;
	for (uint32_t i = 0; i < d->dir.n; i++)
		d->inodes[d->dir.names[i].inode].links++;
	for (size_t k = 0; k < d->n_past; k++)
		for (uint32_t i = 0; i < d->past[k].dir.n; i++)
			d->inodes[d->past[k].dir.names[i].inode].links++;
	for (uint32_t i = 0; i < DISK_FILES; i++)
		if (!d->inodes[i].links && !d->inodes[i].opens)
			d->inodes[i].used = false;
}

/* Nobody relies on anything else; what a salvage has set aside may never be synced. */
static bool is_segment(const char *name)
{
	size_t n = strlen(name);

	return n > 4 && !strcmp(name + n - 4, ".seg");
}

static void will_change(struct sim_disk *d, const char *to)
{
	/* In time a file system makes its directories durable by itself. */
	if (d->n_past == PAST_MAX) {
		memmove(d->past, d->past + PAST_MAX / 2, PAST_MAX / 2 * sizeof(*d->past));
		d->n_past = PAST_MAX / 2;
	}
	if (d->n_past == d->cap_past)
		d->past = memory_sure(d->past, (d->cap_past = d->cap_past * 2 + 4) * sizeof(*d->past));
	d->past[d->n_past++] = (struct past){ .dir = d->dir, .seq = ++d->seq, .matters = to && is_segment(to) };
}

static uint8_t new_inode(struct sim_disk *d)
{
	for (int turn = 0; turn < 2; turn++) {
		for (uint32_t i = 0; i < DISK_FILES; i++) {
			struct inode *f = &d->inodes[i];
			if (f->used)
				continue;
			if (f->cap) {
				memset(f->now, 0, f->cap);
				memset(f->durable, 0, f->cap);
			}
			f->used = true;
			f->links = f->opens = 0;
			f->size = f->durable_size = f->n_ops = f->n_bytes = 0;
			return (uint8_t)i;
		}
		disk_collect(d);
	}
	abort();
}

static void resize(struct inode *i, size_t size)
{
	if (size > i->cap) {
		size_t cap = size * 2;
		i->now = memory_sure(i->now, cap);
		i->durable = memory_sure(i->durable, cap);
		memset(i->now + i->cap, 0, cap - i->cap);
		memset(i->durable + i->cap, 0, cap - i->cap);
		i->cap = cap;
	}
	if (size < i->size)
		memset(i->now + size, 0, i->size - size);
	i->size = size;
}

static uint64_t d_now(void *ctx)
{
	(void)ctx;
	return 0;
}

static void d_random(void *ctx, void *dst, size_t n)
{
	struct sim_disk *d = ctx;
	uint8_t *p = dst;

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)rng_next(d->rng);
}

static int d_open(void *ctx, const char *path, int flags, struct wire_file **ret_file, struct wire_err *err)
{
	struct sim_disk *d = ctx;
	struct name *n = find(&d->dir, path);

	if (dies(d))
		return fail_dead(err);
	if (!n && !(flags & WIRE_OPEN_CREATE))
		return wire_fail(err, WIRE_NOTFOUND, "%s", path);
	if (n && (flags & WIRE_OPEN_EXCL))
		return wire_fail(err, WIRE_EXISTS, "%s", path);
	if (!n) {
		assert(d->dir.n < DISK_FILES && strlen(base_name(path)) < DISK_NAME);
		uint8_t inode = new_inode(d);
		will_change(d, path);
		n = &d->dir.names[d->dir.n++];
		strcpy(n->text, base_name(path));
		n->inode = inode;
	}
	struct wire_file *f = memory_sure(NULL, sizeof(*f));
	*f = (struct wire_file){ .d = d, .inode = n->inode, .writable = flags & WIRE_OPEN_WRITE };
	d->inodes[n->inode].opens++;
	*ret_file = f;
	return WIRE_OK;
}

static void d_close(void *ctx, struct wire_file *f)
{
	struct sim_disk *d = ctx;

	d->inodes[f->inode].opens--;
	free(f);
}

static int d_read(void *ctx, struct wire_file *f, void *dst, size_t n, uint64_t at, size_t *ret_n, struct wire_err *err)
{
	struct sim_disk *d = ctx;
	const struct inode *i = &d->inodes[f->inode];

	if (dies(d))
		return fail_dead(err);
	size_t left = at < i->size ? i->size - (size_t)at : 0;
	*ret_n = n < left ? n : left;
	if (*ret_n)
		memcpy(dst, i->now + at, *ret_n);
	return WIRE_OK;
}

static void put(struct sim_disk *d, struct inode *i, const void *src, size_t n, size_t at, bool cut)
{
	if (!n)
		return;
	if (at + n > i->size)
		resize(i, at + n);
	memcpy(i->now + at, src, n);
	if (i->n_ops == i->cap_ops)
		i->ops = memory_sure(i->ops, (i->cap_ops = i->cap_ops * 2 + 16) * sizeof(*i->ops));
	if (i->n_bytes + n > i->cap_bytes)
		i->bytes = memory_sure(i->bytes, i->cap_bytes = (i->n_bytes + n) * 2);
	i->ops[i->n_ops++] = (struct op){ .seq = ++d->seq, .at = at, .n = n, .from = i->n_bytes, .cut = cut };
	memcpy(i->bytes + i->n_bytes, src, n);
	i->n_bytes += n;
}

static int d_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	struct sim_disk *d = ctx;
	struct inode *i = &d->inodes[f->inode];

	assert(f->writable);
	if (d->dead)
		return fail_dead(err);
	if (dies(d)) {
		d->counts->cut_writes++;
		put(d, i, src, rng_below(d->rng, n), (size_t)at, true);
		return fail_dead(err);
	}
	if (d->full && at + n > i->size) {
		d->counts->full++;
		put(d, i, src, at < i->size ? i->size - (size_t)at : 0, (size_t)at, true);
		return wire_fail(err, WIRE_FULL, "no space left");
	}
	if (d->fail_write) {
		d->fail_write = false;
		d->counts->write_errors++;
		put(d, i, src, rng_below(d->rng, n), (size_t)at, true);
		return wire_fail(err, WIRE_IO, "the write failed");
	}
	put(d, i, src, n, (size_t)at, false);
	return WIRE_OK;
}

static int d_sync(void *ctx, struct wire_file *f, struct wire_err *err)
{
	struct sim_disk *d = ctx;
	struct inode *i = &d->inodes[f->inode];

	if (dies(d))
		return fail_dead(err);
	if (d->fail_sync) {
		d->fail_sync = false;
		d->counts->sync_errors++;
		return wire_fail(err, WIRE_IO, "the sync failed");
	}
	for (size_t k = 0; k < i->n_ops; k++)
		memcpy(i->durable + i->ops[k].at, i->now + i->ops[k].at, i->ops[k].n);
	if (i->durable_size > i->size)
		memset(i->durable + i->size, 0, i->durable_size - i->size);
	i->durable_size = i->size;
	i->n_ops = i->n_bytes = 0;
	return WIRE_OK;
}

static int d_truncate(void *ctx, struct wire_file *f, uint64_t size, struct wire_err *err)
{
	struct sim_disk *d = ctx;

	if (dies(d))
		return fail_dead(err);
	resize(&d->inodes[f->inode], (size_t)size);
	return WIRE_OK;
}

static int d_size(void *ctx, struct wire_file *f, uint64_t *ret_size, struct wire_err *err)
{
	struct sim_disk *d = ctx;

	if (dies(d))
		return fail_dead(err);
	*ret_size = d->inodes[f->inode].size;
	return WIRE_OK;
}

static int d_rename(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	struct sim_disk *d = ctx;
	struct name *n, *old;

	if (dies(d))
		return fail_dead(err);
	n = find(&d->dir, from);
	old = find(&d->dir, to);
	if (!n)
		return wire_fail(err, WIRE_NOTFOUND, "%s", from);
	will_change(d, to);
	if (old) {
		old->inode = n->inode;
		*n = d->dir.names[--d->dir.n];
	} else {
		strcpy(n->text, base_name(to));
	}
	return WIRE_OK;
}

static int d_rename_new(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	struct sim_disk *d = ctx;

	if (find(&d->dir, to))
		return wire_fail(err, WIRE_EXISTS, "%s", to);
	return d_rename(ctx, from, to, err);
}

static int d_unlink(void *ctx, const char *path, struct wire_err *err)
{
	struct sim_disk *d = ctx;
	struct name *n;

	if (dies(d))
		return fail_dead(err);
	n = find(&d->dir, path);
	if (!n)
		return wire_fail(err, WIRE_NOTFOUND, "%s", path);
	will_change(d, NULL);
	*n = d->dir.names[--d->dir.n];
	return WIRE_OK;
}

static int d_mkdir(void *ctx, const char *path, struct wire_err *err)
{
	struct sim_disk *d = ctx;

	(void)path;
	return dies(d) ? fail_dead(err) : WIRE_OK;
}

static int d_sync_dir(void *ctx, const char *path, struct wire_err *err)
{
	struct sim_disk *d = ctx;

	if (dies(d))
		return fail_dead(err);
	/* The parent's sync is about the journal's own name, which is not simulated. */
	if (!strchr(path, '/'))
		return WIRE_OK;
	d->n_past = 0;
	return WIRE_OK;
}

static int d_list(void *ctx, const char *path, int (*each)(void *arg, const char *name), void *arg, struct wire_err *err)
{
	struct sim_disk *d = ctx;

	(void)path;
	if (dies(d))
		return fail_dead(err);
	for (uint32_t i = 0; i < d->dir.n; i++) {
		int rc = each(arg, d->dir.names[i].text);
		if (rc)
			return rc;
	}
	return WIRE_OK;
}

struct sim_disk *disk_new(struct rng *rng, struct disk_counts *counts)
{
	struct sim_disk *d = memory_sure(NULL, sizeof(*d));

	memset(d, 0, sizeof(*d));
	d->rng = rng;
	d->counts = counts;
	d->env = (struct wire_env){ .ctx = d, .now_ns = d_now, .wall_us = d_now, .random = d_random, .open = d_open,
		                    .close = d_close, .read = d_read, .write = d_write, .sync = d_sync,
		                    .truncate = d_truncate, .size = d_size, .rename = d_rename, .rename_new = d_rename_new,
		                    .unlink = d_unlink, .mkdir = d_mkdir, .sync_dir = d_sync_dir, .list = d_list };
	return d;
}

struct sim_disk *disk_copy(const struct sim_disk *d)
{
	struct sim_disk *c = disk_new(d->rng, d->counts);

	/* Names are as at the last sync of the directory, contents as at those of the files. */
	c->dir = d->n_past ? d->past[0].dir : d->dir;
	for (uint32_t k = 0; k < c->dir.n; k++) {
		const struct inode *from = &d->inodes[c->dir.names[k].inode];
		struct inode *to = &c->inodes[c->dir.names[k].inode];
		to->used = true;
		resize(to, from->durable_size);
		to->durable_size = from->durable_size;
		if (from->durable_size) {
			memcpy(to->now, from->durable, from->durable_size);
			memcpy(to->durable, from->durable, from->durable_size);
		}
	}
	disk_collect(c);
	return c;
}

void disk_free(struct sim_disk *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < DISK_FILES; i++) {
		free(d->inodes[i].now);
		free(d->inodes[i].durable);
		free(d->inodes[i].ops);
		free(d->inodes[i].bytes);
	}
	free(d->past);
	free(d);
}

const struct wire_env *disk_env(struct sim_disk *d)
{
	return &d->env;
}

void disk_crash_after(struct sim_disk *d, uint32_t calls)
{
	d->crash_in = calls;
	if (!calls)
		d->dead = true;
}

bool disk_crashed(const struct sim_disk *d)
{
	return d->dead;
}

void disk_set_full(struct sim_disk *d, bool full)
{
	d->full = full;
}

void disk_fail_sync(struct sim_disk *d)
{
	d->fail_sync = true;
}

void disk_fail_write(struct sim_disk *d)
{
	d->fail_write = true;
}

bool disk_fail_pending(const struct sim_disk *d)
{
	return d->fail_sync || d->fail_write;
}

void disk_clear_faults(struct sim_disk *d)
{
	d->full = d->fail_sync = d->fail_write = false;
	if (!d->dead)
		d->crash_in = 0;
}

uint64_t disk_bytes(const struct sim_disk *d)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < d->dir.n; i++)
		n += d->inodes[d->dir.names[i].inode].size;
	return n;
}

uint64_t disk_mark(const struct sim_disk *d)
{
	return d->seq;
}

bool disk_durable(const struct sim_disk *d, uint64_t mark)
{
	for (size_t k = 0; k < d->n_past; k++)
		if (d->past[k].matters && d->past[k].seq <= mark)
			return false;
	for (uint32_t i = 0; i < d->dir.n; i++) {
		const struct inode *f = &d->inodes[d->dir.names[i].inode];
		if (!is_segment(d->dir.names[i].text))
			continue;
		/* A part of a header is none: that segment was not begun, and nobody relies on it. */
		size_t first = f->n_ops && f->ops[0].cut && !f->ops[0].at;
		if (f->n_ops > first && f->ops[first].seq <= mark)
			return false;
	}
	return true;
}
