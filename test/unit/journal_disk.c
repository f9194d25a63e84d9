#include "test/unit/journal_disk.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 256, SECTOR = 512, NAME = 128 };

struct op {
	size_t at, n;
	uint8_t *bytes;
};
struct inode {
	uint8_t *now, *durable;
	size_t size, durable_size, cap;
	struct op *ops;
	size_t n_ops, cap_ops;
};
struct wire_file {
	struct inode *i;
	bool writable;
};
struct name {
	char path[NAME];
	struct inode *i;
};
struct dir {
	struct name names[FILES];
	size_t n;
};
struct disk {
	struct wire_env env;
	pthread_mutex_t mu;
	struct dir dir;
	struct dir *past; /* the directory before each change that is not durable */
	size_t n_past, cap_past;
	struct inode **inodes;
	size_t n_inodes, cap_inodes;
	int fail_write, fail_sync, power;
	unsigned syncs;
	void (*on_sync)(void *arg);
	void *on_sync_arg;
};

static void *need(void *p)
{
	if (!p)
		abort();
	return p;
}

/* mu is held. */
static int without_power(struct disk *d, struct wire_err *err)
{
	if (d->power < 0 || d->power-- > 0)
		return WIRE_OK;
	d->power = 0;
	return wire_fail(err, WIRE_IO, "the power is gone");
}

static struct name *find(struct dir *dir, const char *path)
{
	for (size_t i = 0; i < dir->n; i++)
		if (!strcmp(dir->names[i].path, path))
			return &dir->names[i];
	return NULL;
}

static void will_change(struct disk *d)
{
	if (d->n_past == d->cap_past)
		d->past = need(realloc(d->past, (d->cap_past = d->cap_past * 2 + 4) * sizeof(*d->past)));
	d->past[d->n_past++] = d->dir;
}

static struct inode *new_inode(struct disk *d)
{
	if (d->n_inodes == d->cap_inodes)
		d->inodes = need(realloc(d->inodes, (d->cap_inodes = d->cap_inodes * 2 + 16) * sizeof(*d->inodes)));
	return d->inodes[d->n_inodes++] = need(calloc(1, sizeof(struct inode)));
}

static void resize(struct inode *i, size_t size)
{
	if (size > i->cap) {
		size_t cap = size * 2;
		i->now = need(realloc(i->now, cap));
		i->durable = need(realloc(i->durable, cap));
		memset(i->now + i->cap, 0, cap - i->cap);
		memset(i->durable + i->cap, 0, cap - i->cap);
		i->cap = cap;
	}
	if (size < i->size)
		memset(i->now + size, 0, i->size - size);
	i->size = size;
}

static void drop_ops(struct inode *i)
{
	for (size_t k = 0; k < i->n_ops; k++)
		free(i->ops[k].bytes);
	i->n_ops = 0;
}

static uint64_t d_now(void *ctx)
{
	(void)ctx;
	return 0;
}

static void d_random(void *ctx, void *dst, size_t n)
{
	(void)ctx;
	memset(dst, 7, n);
}

static int d_open(void *ctx, const char *path, int flags, struct wire_file **ret_file, struct wire_err *err)
{
	struct disk *d = ctx;
	int rc = WIRE_OK;

	pthread_mutex_lock(&d->mu);
	struct name *n = find(&d->dir, path);
	if (!n && !(flags & WIRE_OPEN_CREATE)) {
		rc = wire_fail(err, WIRE_NOTFOUND, "%s", path);
	} else if (n && (flags & WIRE_OPEN_EXCL)) {
		rc = wire_fail(err, WIRE_EXISTS, "%s", path);
	} else if (n || !(rc = without_power(d, err))) {
		if (!n) {
			will_change(d);
			assert(d->dir.n < FILES && strlen(path) < NAME);
			n = &d->dir.names[d->dir.n++];
			strcpy(n->path, path);
			n->i = new_inode(d);
		}
		struct wire_file *f = need(calloc(1, sizeof(*f)));
		f->i = n->i;
		f->writable = flags & WIRE_OPEN_WRITE;
		*ret_file = f;
	}
	pthread_mutex_unlock(&d->mu);
	return rc;
}

static void d_close(void *ctx, struct wire_file *f)
{
	(void)ctx;
	free(f);
}

static int d_read(void *ctx, struct wire_file *f, void *dst, size_t n, uint64_t at, size_t *ret_n, struct wire_err *err)
{
	struct disk *d = ctx;

	(void)err;
	pthread_mutex_lock(&d->mu);
	size_t left = at < f->i->size ? f->i->size - (size_t)at : 0;
	*ret_n = n < left ? n : left;
	if (*ret_n)
		memcpy(dst, f->i->now + at, *ret_n);
	pthread_mutex_unlock(&d->mu);
	return WIRE_OK;
}

static int d_write(void *ctx, struct wire_file *f, const void *src, size_t n, uint64_t at, struct wire_err *err)
{
	struct disk *d = ctx;
	struct inode *i = f->i;

	assert(f->writable);
	pthread_mutex_lock(&d->mu);
	int rc = without_power(d, err);
	if (rc) {
		pthread_mutex_unlock(&d->mu);
		return rc;
	}
	if (d->fail_write >= 0 && d->fail_write-- == 0) {
		d->fail_write = 0;
		rc = wire_fail(err, WIRE_FULL, "no space left");
		n /= 2; /* a part of it gets there */
	}
	if (at + n > i->size)
		resize(i, (size_t)at + n);
	memcpy(i->now + at, src, n);
	if (i->n_ops == i->cap_ops)
		i->ops = need(realloc(i->ops, (i->cap_ops = i->cap_ops * 2 + 16) * sizeof(*i->ops)));
	i->ops[i->n_ops] = (struct op){ .at = (size_t)at, .n = n, .bytes = need(malloc(n + 1)) };
	memcpy(i->ops[i->n_ops++].bytes, src, n);
	pthread_mutex_unlock(&d->mu);
	return rc;
}

static int d_sync(void *ctx, struct wire_file *f, struct wire_err *err)
{
	struct disk *d = ctx;

	if (d->on_sync)
		d->on_sync(d->on_sync_arg);
	pthread_mutex_lock(&d->mu);
	int rc = without_power(d, err);
	d->syncs++;
	if (rc) {
		/* nothing happens */
	} else if (d->fail_sync >= 0 && d->fail_sync-- == 0) {
		rc = wire_fail(err, WIRE_IO, "sync failed");
	} else {
		if (f->i->cap)
			memcpy(f->i->durable, f->i->now, f->i->cap);
		f->i->durable_size = f->i->size;
		drop_ops(f->i);
	}
	pthread_mutex_unlock(&d->mu);
	return rc;
}

static int d_truncate(void *ctx, struct wire_file *f, uint64_t size, struct wire_err *err)
{
	struct disk *d = ctx;

	pthread_mutex_lock(&d->mu);
	int rc = without_power(d, err);
	if (!rc)
		resize(f->i, (size_t)size);
	pthread_mutex_unlock(&d->mu);
	return rc;
}

static int d_size(void *ctx, struct wire_file *f, uint64_t *ret_size, struct wire_err *err)
{
	struct disk *d = ctx;

	(void)err;
	pthread_mutex_lock(&d->mu);
	*ret_size = f->i->size;
	pthread_mutex_unlock(&d->mu);
	return WIRE_OK;
}

static int d_rename(void *ctx, const char *from, const char *to, struct wire_err *err)
{
	struct disk *d = ctx;
	int rc = WIRE_OK;

	pthread_mutex_lock(&d->mu);
	struct name *n = find(&d->dir, from), *old = find(&d->dir, to);
	if (!n) {
		rc = wire_fail(err, WIRE_NOTFOUND, "%s", from);
	} else if (!(rc = without_power(d, err))) {
		will_change(d);
		struct inode *i = n->i;
		if (old) {
			old->i = i;
			*n = d->dir.names[--d->dir.n];
		} else {
			strcpy(n->path, to);
		}
	}
	pthread_mutex_unlock(&d->mu);
	return rc;
}

static int d_unlink(void *ctx, const char *path, struct wire_err *err)
{
	struct disk *d = ctx;
	int rc = WIRE_OK;

	pthread_mutex_lock(&d->mu);
	struct name *n = find(&d->dir, path);
	if (!n) {
		rc = wire_fail(err, WIRE_NOTFOUND, "%s", path);
	} else if (!(rc = without_power(d, err))) {
		will_change(d);
		*n = d->dir.names[--d->dir.n];
	}
	pthread_mutex_unlock(&d->mu);
	return rc;
}

static int d_mkdir(void *ctx, const char *path, struct wire_err *err)
{
	(void)ctx, (void)path, (void)err;
	return WIRE_OK;
}

static int d_sync_dir(void *ctx, const char *path, struct wire_err *err)
{
	struct disk *d = ctx;

	(void)path;
	pthread_mutex_lock(&d->mu);
	int rc = without_power(d, err);
	if (!rc)
		d->n_past = 0;
	pthread_mutex_unlock(&d->mu);
	return rc;
}

static int d_list(void *ctx, const char *path, int (*each)(void *arg, const char *name), void *arg, struct wire_err *err)
{
	struct disk *d = ctx;
	size_t n = strlen(path);
	struct dir now = d->dir;

	(void)err;
	for (size_t i = 0; i < now.n; i++) {
		int rc = strncmp(now.names[i].path, path, n) ? 0 : each(arg, now.names[i].path + n + 1);
		if (rc)
			return rc;
	}
	return WIRE_OK;
}

struct disk *disk_new(void)
{
	struct disk *d = need(calloc(1, sizeof(*d)));

	pthread_mutex_init(&d->mu, NULL);
	d->fail_write = d->fail_sync = d->power = -1;
	d->env = (struct wire_env){ .ctx = d, .now_ns = d_now, .wall_us = d_now, .random = d_random, .open = d_open,
		                    .close = d_close, .read = d_read, .write = d_write, .sync = d_sync,
		                    .truncate = d_truncate, .size = d_size, .rename = d_rename, .unlink = d_unlink,
		                    .mkdir = d_mkdir, .sync_dir = d_sync_dir, .list = d_list };
	return d;
}

void disk_free(struct disk *d)
{
	for (size_t i = 0; i < d->n_inodes; i++) {
		drop_ops(d->inodes[i]);
		free(d->inodes[i]->ops);
		free(d->inodes[i]->now);
		free(d->inodes[i]->durable);
		free(d->inodes[i]);
	}
	free(d->inodes);
	free(d->past);
	pthread_mutex_destroy(&d->mu);
	free(d);
}

struct disk *disk_copy(struct disk *d)
{
	struct disk *c = disk_new();

	for (size_t k = 0; k < d->dir.n; k++) {
		struct name *n = &c->dir.names[c->dir.n++];
		struct inode *from = d->dir.names[k].i;
		*n = d->dir.names[k];
		n->i = new_inode(c);
		resize(n->i, from->size);
		if (from->size) {
			memcpy(n->i->now, from->now, from->size);
			memcpy(n->i->durable, from->now, from->size);
		}
		n->i->durable_size = from->size;
	}
	return c;
}

const struct wire_env *disk_env(struct disk *d)
{
	return &d->env;
}

static uint64_t next_random(uint64_t *x)
{
	*x += 0x9e3779b97f4a7c15u;
	uint64_t z = *x;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* A sector ends in the state after any number of the writes that touched it. */
static void crash_sector(struct inode *i, size_t at, uint64_t *rnd)
{
	size_t touching = 0;

	for (size_t k = 0; k < i->n_ops; k++)
		touching += i->ops[k].at < at + SECTOR && i->ops[k].at + i->ops[k].n > at;
	/* Often all or nothing, as a disk would do it. */
	uint64_t how = next_random(rnd) % 3;
	size_t keep = how == 0 ? 0 : how == 1 ? touching : next_random(rnd) % (touching + 1);
	for (size_t k = 0; k < i->n_ops && keep; k++) {
		const struct op *o = &i->ops[k];
		size_t from = o->at > at ? o->at : at, to = o->at + o->n < at + SECTOR ? o->at + o->n : at + SECTOR;
		if (from >= to)
			continue;
		memcpy(i->durable + from, o->bytes + (from - o->at), to - from);
		keep--;
	}
}

void disk_crash(struct disk *d, uint64_t seed)
{
	uint64_t rnd = seed;

	if (d->n_past) {
		size_t keep = next_random(&rnd) % (d->n_past + 1);
		if (keep < d->n_past)
			d->dir = d->past[keep];
		d->n_past = 0;
	}
	for (size_t k = 0; k < d->n_inodes; k++) {
		struct inode *i = d->inodes[k];
		for (size_t at = 0; at < i->size && i->n_ops; at += SECTOR)
			crash_sector(i, at, &rnd);
		if (i->n_ops && next_random(&rnd) % 2)
			i->durable_size = i->size;
		if (i->cap)
			memcpy(i->now, i->durable, i->cap);
		i->size = i->durable_size;
		if (i->cap > i->size)
			memset(i->now + i->size, 0, i->cap - i->size);
		drop_ops(i);
	}
	d->fail_write = d->fail_sync = d->power = -1;
}

uint8_t *disk_bytes(struct disk *d, const char *path, size_t *ret_size)
{
	struct name *n = find(&d->dir, path);

	if (n)
		*ret_size = n->i->size;
	return n ? n->i->now : NULL;
}

void disk_shorten(struct disk *d, const char *path, size_t size)
{
	struct name *n = find(&d->dir, path);

	assert(n);
	resize(n->i, size);
}

size_t disk_files(struct disk *d)
{
	return d->dir.n;
}

const char *disk_name(struct disk *d, size_t i)
{
	return d->dir.names[i].path;
}

void disk_fail_write(struct disk *d, int after)
{
	d->fail_write = after;
}

void disk_fail_sync(struct disk *d, int after)
{
	d->fail_sync = after;
}

void disk_cut_power(struct disk *d, int after)
{
	d->power = after;
}

unsigned disk_syncs(struct disk *d)
{
	return d->syncs;
}

uint64_t disk_total(struct disk *d)
{
	uint64_t n = 0;

	for (size_t i = 0; i < d->dir.n; i++)
		n += d->dir.names[i].i->size;
	return n;
}

void disk_on_sync(struct disk *d, void (*call)(void *arg), void *arg)
{
	d->on_sync = call;
	d->on_sync_arg = arg;
}
