/* What a power loss leaves of what was not synced; and rot. */
#include "test/sim/disk_impl.h"
#include <stdlib.h>
#include <string.h>

static void copy_part(struct inode *i, const struct op *o, size_t from, size_t to)
{
	if (from >= to)
		return;
	memcpy(i->durable + from, i->bytes + o->from + (from - o->at), to - from);
}

/* A sector ends in the state after any number of the writes that touched it, the last of them perhaps to a part. */
static void lose_sector(struct sim_disk *d, struct inode *i, size_t at)
{
	size_t touching = 0;

	for (size_t k = 0; k < i->n_ops; k++)
		touching += i->ops[k].at < at + DISK_SECTOR && i->ops[k].at + i->ops[k].n > at;
	if (!touching)
		return;
	size_t keep = rng_chance(d->rng, 500) ? rng_below(d->rng, 2) * touching : rng_below(d->rng, touching + 1);
	bool torn = rng_chance(d->rng, 200);
	d->counts->lost_writes += keep < touching;
	for (size_t k = 0; k < i->n_ops && (keep || torn); k++) {
		const struct op *o = &i->ops[k];
		size_t from = o->at > at ? o->at : at, to = o->at + o->n < at + DISK_SECTOR ? o->at + o->n : at + DISK_SECTOR;
		if (from >= to)
			continue;
		if (!keep) {
			torn = false;
			d->counts->torn_writes++;
			to = from + rng_below(d->rng, to - from + 1);
		} else {
			keep--;
		}
		copy_part(i, o, from, to);
	}
}

static void lose_sectors(struct sim_disk *d, struct inode *i)
{
	size_t low = SIZE_MAX, high = 0;

	for (size_t k = 0; k < i->n_ops; k++) {
		low = i->ops[k].at < low ? i->ops[k].at : low;
		high = i->ops[k].at + i->ops[k].n > high ? i->ops[k].at + i->ops[k].n : high;
	}
	for (size_t at = low / DISK_SECTOR * DISK_SECTOR; at < high; at += DISK_SECTOR)
		lose_sector(d, i, at);
}

static void keep_prefix(struct sim_disk *d, struct inode *i, uint64_t last_seq)
{
	for (size_t k = 0; k < i->n_ops; k++) {
		const struct op *o = &i->ops[k];
		if (o->seq > last_seq) {
			d->counts->lost_writes++;
			continue;
		}
		size_t n = o->seq == last_seq ? rng_below(d->rng, o->n + 1) : o->n;
		d->counts->torn_writes += n < o->n;
		copy_part(i, o, o->at, o->at + n);
	}
}

static uint64_t first_pending(const struct sim_disk *d)
{
	uint64_t first = UINT64_MAX;

	for (uint32_t i = 0; i < DISK_FILES; i++)
		if (d->inodes[i].used && d->inodes[i].n_ops && d->inodes[i].ops[0].seq < first)
			first = d->inodes[i].ops[0].seq;
	return first;
}

static void lose_power(struct sim_disk *d)
{
	uint64_t how = rng_below(d->rng, 4), first = first_pending(d);
	uint64_t last = first > d->seq ? 0 : first + rng_below(d->rng, d->seq - first + 1);

	if (d->n_past) {
		size_t keep = rng_below(d->rng, d->n_past + 1);
		d->counts->lost_names += d->n_past - keep;
		if (keep < d->n_past)
			d->dir = d->past[keep].dir;
		d->n_past = 0;
	}
	for (uint32_t k = 0; k < DISK_FILES; k++) {
		struct inode *i = &d->inodes[k];
		if (!i->used)
			continue;
		if (how == 1)
			keep_prefix(d, i, UINT64_MAX);
		else if (how == 2)
			keep_prefix(d, i, last);
		else if (how == 3 && i->n_ops)
			lose_sectors(d, i);
		else
			d->counts->lost_writes += i->n_ops;
		if (i->size != i->durable_size && (how == 1 || rng_chance(d->rng, 500)))
			i->durable_size = i->size;
		if (i->cap) {
			memset(i->durable + i->durable_size, 0, i->cap - i->durable_size);
			memcpy(i->now, i->durable, i->cap);
		}
		i->size = i->durable_size;
		i->n_ops = i->n_bytes = 0;
	}
}

void disk_revive(struct sim_disk *d, bool power_loss)
{
	if (power_loss)
		lose_power(d);
	d->dead = false;
	d->crash_in = 0;
	disk_collect(d);
}

static void garble(struct sim_disk *d, struct inode *i, size_t at, size_t n, bool zeros)
{
	for (size_t k = at; k < at + n && k < i->durable_size; k++)
		i->now[k] = i->durable[k] = zeros ? 0 : (uint8_t)rng_next(d->rng);
}

/* A sector, some bytes, the beginning of a file, or all of it. */
static void rot_much(struct sim_disk *d, struct name *n, struct inode *i)
{
	size_t at = rng_below(d->rng, i->durable_size);

	switch (rng_below(d->rng, 5)) {
	case 0:
		garble(d, i, at, 8 + rng_below(d->rng, 200), false);
		break;
	case 1:
		garble(d, i, 0, DISK_SECTOR, rng_chance(d->rng, 500));
		break;
	case 2:
		*n = d->dir.names[--d->dir.n];
		disk_collect(d);
		break;
	default:
		garble(d, i, at / DISK_SECTOR * DISK_SECTOR, DISK_SECTOR, rng_chance(d->rng, 500));
		break;
	}
}

bool disk_rot(struct sim_disk *d, bool much)
{
	if (!d->dir.n || d->n_past)
		return false;
	struct name *name = &d->dir.names[rng_below(d->rng, d->dir.n)];
	struct inode *i = &d->inodes[name->inode];
	if (!i->durable_size || i->n_ops)
		return false;
	if (much) {
		d->counts->rots++;
		rot_much(d, name, i);
		return true;
	}
	/* Mostly where something is. */
	size_t at = rng_below(d->rng, i->durable_size);
	for (int turn = 0; turn < 8 && !i->durable[at]; turn++)
		at = rng_below(d->rng, i->durable_size);
	uint8_t bit = (uint8_t)(1u << rng_below(d->rng, 8));
	d->counts->rots++;
	i->durable[at] ^= bit;
	i->now[at] ^= bit;
	return true;
}
