/* Which entry the recovered files stand at (DESIGN section 5).
 *
 * T is the table of page hashes as the file `pages` has it, with the log replayed over it from the mark on. First try: the WAL's last commit is one whose publication was
 * noted. Else by content: the smallest index at which T agrees with the real pages wherever the log touched them, with the size, and with the entry's state
 * checksum; what the log did not touch is then read too, because whoever removed the WAL may have written as well. Commitment is never inferred: the log
 * given ends at what is committed, or at what this node's own files can't be ahead of. */
#include "vfs/db_impl.h"
#include "wire/hash.h"
#include "wire/msg.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct touched { uint32_t pgno; uint64_t content; bool differs; };

struct search {
	struct vfs_db *db;
	const struct vfs_db_start *start;
	struct vfs_pages *t;
	struct db_open_tx open;
	struct wire_buf data;
	uint64_t sum; /* that the log claims at the replayed index */
	/* pages touched since the mark, a hash table of n_slots (power of two), pgno 0: empty */
	struct touched *slot;
	uint32_t n_slots, n_touched, n_differ;
	void *page;
};

static struct touched *slot_of(struct touched *slot, uint32_t n_slots, uint32_t pgno)
{
	uint32_t i = (pgno * 2654435761u) & (n_slots - 1);

	while (slot[i].pgno && slot[i].pgno != pgno)
		i = (i + 1) & (n_slots - 1);
	return &slot[i];
}

static int touch(struct search *s, uint32_t pgno, struct wire_err *err)
{
	if (s->n_touched * 2 >= s->n_slots) {
		uint32_t n = s->n_slots ? s->n_slots * 2 : 1024;
		struct touched *grown = calloc(n, sizeof *grown);

		if (!grown)
			return wire_fail(err, WIRE_NOMEM, "finding the position of %s: out of memory", s->db->path);
		for (uint32_t i = 0; i < s->n_slots; i++)
			if (s->slot[i].pgno)
				*slot_of(grown, n, s->slot[i].pgno) = s->slot[i];
		free(s->slot);
		s->slot = grown;
		s->n_slots = n;
	}
	struct touched *p = slot_of(s->slot, s->n_slots, pgno);
	if (!p->pgno) {
		p->pgno = pgno;
		s->n_touched++;
	}
	return WIRE_OK;
}

/* 0 for a page that is not there. */
static int content_hash(struct search *s, uint32_t pgno, uint64_t *ret_hash, struct wire_err *err)
{
	struct vfs_db *db = s->db;
	int rc;

	if (pgno > db->hdr.n_page || vfs_pages_is_lock_page(db->page_size, pgno)) {
		*ret_hash = 0;
		return WIRE_OK;
	}
	rc = db_read_page(db, pgno, s->page, err);
	if (rc == WIRE_CORRUPT) { /* the file is too short for it: differs from any hash */
		*ret_hash = 0;
		return WIRE_OK;
	}
	if (rc)
		return rc;
	*ret_hash = wire_page_hash(pgno, s->page, db->page_size);
	return WIRE_OK;
}

/* ---- replay ---- */

static int read_head(struct search *s, uint64_t index, bool *ret_data, uint64_t *ret_term, struct vfs_pageset_head *ret_head, struct wire_err *err)
{
	uint8_t kind;
	int rc;

	wire_buf_reset(&s->data);
	rc = s->start->read_entry(s->start->read_ctx, index, &kind, ret_term, &s->data, err);
	*ret_data = rc == WIRE_OK && kind == WIRE_ENTRY_DATA;
	if (*ret_data)
		rc = vfs_pageset_head_get(s->data.data, s->data.len, ret_head, err);
	if (rc)
		return wire_context(err, "finding the position of %s: entry %llu", s->db->path, (unsigned long long)index), rc;
	return WIRE_OK;
}

static void compare(struct search *s, uint32_t pgno)
{
	struct touched *p;
	bool differs;

	if (!s->n_slots)
		return;
	p = slot_of(s->slot, s->n_slots, pgno);
	if (!p->pgno)
		return;
	differs = p->content != vfs_pages_hash(s->t, pgno);
	s->n_differ += (uint32_t)differs - (uint32_t)p->differs;
	p->differs = differs;
}

static void compare_all(struct search *s)
{
	for (uint32_t i = 0; i < s->n_slots; i++)
		if (s->slot[i].pgno)
			compare(s, s->slot[i].pgno);
}

/* Brings T over the entry at index. */
static int replay(struct search *s, uint64_t index, struct wire_err *err)
{
	struct vfs_pageset_page p;
	struct vfs_pageset_head h;
	struct db_cursor c;
	enum db_step step;
	uint64_t term, first;
	bool is_data, shrinks;
	int rc = read_head(s, index, &is_data, &term, &h, err);

	if (rc || !is_data)
		return rc;
	step = db_open_tx_step(&s->open, &h, index, term);
	if (step == DB_STEP_SKIP)
		return WIRE_OK;
	first = step == DB_STEP_CLOSE ? s->open.first : index;
	s->open = (struct db_open_tx){ 0 };
	shrinks = h.db_after < vfs_pages_count(s->t);
	rc = vfs_pages_resize(s->t, h.db_after, err);
	if (rc)
		return rc;
	if (shrinks)
		compare_all(s);
	db_cursor_init(&c, s->start->read_entry, s->start->read_ctx, first, index, term, &h);
	while ((rc = db_cursor_next(&c, &p, err)) == WIRE_OK && p.pgno) {
		if (vfs_pages_is_lock_page(s->db->page_size, p.pgno))
			continue;
		vfs_pages_set(s->t, p.pgno, p.hash_after, index);
		compare(s, p.pgno);
	}
	db_cursor_free(&c);
	if (rc)
		return wire_context(err, "finding the position of %s", s->db->path), rc;
	s->sum = h.sum_after;
	return WIRE_OK;
}

static int load_table(struct search *s, struct wire_err *err)
{
	const struct vfs_db_start *start = s->start;
	uint64_t index;
	int rc;

	vfs_pages_free(s->t);
	s->t = NULL;
	rc = vfs_pages_load(start->env, start->pages_path, start->group, &s->t, &index, err);
	if (rc)
		return wire_context(err, "the page table of %s", s->db->path), rc;
	if (index < start->mark_index)
		return wire_fail(err, WIRE_CORRUPT, "%s is of entry %llu, older than the checkpoint mark of entry %llu in the journal: restore both from one copy, or remove %s and %s-walraft and join again",
		                 start->pages_path, (unsigned long long)index, (unsigned long long)start->mark_index, s->db->path, s->db->path);
	s->open = (struct db_open_tx){ 0 };
	s->sum = start->mark_checksum;
	s->n_differ = 0;
	for (uint32_t i = 0; i < s->n_slots; i++)
		s->slot[i].differs = false;
	return WIRE_OK;
}

static bool agrees(const struct search *s)
{
	return s->n_differ == 0 && vfs_pages_count(s->t) == s->db->hdr.n_page && vfs_pages_checksum(s->t) == s->sum;
}

/* ---- the two searches ---- */

static int collect_touched(struct search *s, uint64_t last, struct wire_err *err)
{
	struct vfs_pageset_dec dec = { 0 };
	struct vfs_pageset_page p;
	int rc = touch(s, 1, err);

	for (uint64_t i = s->start->mark_index + 1; rc == WIRE_OK && i <= last; i++) {
		struct vfs_pageset_head h;
		uint64_t term;
		bool is_data;

		rc = read_head(s, i, &is_data, &term, &h, err);
		if (rc || !is_data)
			continue;
		rc = vfs_pageset_dec_open(&dec, s->data.data, s->data.len, err);
		while (rc == WIRE_OK && (rc = vfs_pageset_dec_next(&dec, &p, err)) == WIRE_OK && p.pgno)
			rc = touch(s, p.pgno, err);
		if (rc)
			wire_context(err, "finding the position of %s: entry %llu", s->db->path, (unsigned long long)i);
	}
	vfs_pageset_dec_free(&dec);
	for (uint32_t i = 0; rc == WIRE_OK && i < s->n_slots; i++)
		if (s->slot[i].pgno)
			rc = content_hash(s, s->slot[i].pgno, &s->slot[i].content, err);
	return rc;
}

/* What the log did not touch since the mark. WIRE_OK with *ret_pgno the first page that is not as it was, 0: none. */
static int compare_rest(struct search *s, uint32_t *ret_pgno, struct wire_err *err)
{
	for (uint32_t pgno = 1; pgno <= s->db->hdr.n_page; pgno++) {
		uint64_t want = vfs_pages_hash(s->t, pgno), have;
		int rc;

		if (want == 0 || slot_of(s->slot, s->n_slots, pgno)->pgno)
			continue; /* never written by anyone, or compared already */
		rc = content_hash(s, pgno, &have, err);
		if (rc)
			return rc;
		if (have != want) {
			*ret_pgno = pgno;
			return WIRE_OK;
		}
	}
	*ret_pgno = 0;
	return WIRE_OK;
}

static int refuse(struct search *s, uint32_t pgno, struct wire_err *err)
{
	const char *path = s->db->path;
	char what[96] = "";

	if (pgno)
		snprintf(what, sizeof what, "; page %u is not as it was left", pgno);
	return wire_fail(err, WIRE_CHANGED, "%s was changed outside walraft (it is at no position between %llu and %llu of its log%s). Where it is its cluster's only member, walraft adopt %s takes it as it is; else restore it from a copy of this position, or remove the file with its -wal and -shm, and %s-walraft, and join again under a new address",
	                 path, (unsigned long long)s->start->mark_index, (unsigned long long)s->start->last_index, what, path, path);
}

static int by_content(struct search *s, uint64_t *ret_index, struct wire_err *err)
{
	uint32_t pgno = 0;
	uint64_t index = s->start->mark_index;
	int rc = collect_touched(s, s->start->last_index, err);

	if (rc == WIRE_OK)
		rc = load_table(s, err);
	if (rc)
		return rc;
	compare_all(s);
	while (!agrees(s)) {
		if (index == s->start->last_index)
			return refuse(s, 0, err);
		rc = replay(s, ++index, err);
		if (rc)
			return rc;
	}
	rc = compare_rest(s, &pgno, err);
	if (rc)
		return rc;
	if (pgno)
		return refuse(s, pgno, err);
	*ret_index = index;
	return WIRE_OK;
}

static const struct vfs_known_pos *known_here(const struct search *s)
{
	const struct vfs_db *db = s->db;
	const struct vfs_db_start *start = s->start;

	for (size_t i = start->n_known; i-- > 0;) {
		const struct vfs_known_pos *k = &start->known[i];

		if (db->hdr.mx_frame && k->pos.mx_frame == db->hdr.mx_frame && k->pos.salt[0] == db->wal_hdr.salt[0] && k->pos.salt[1] == db->wal_hdr.salt[1] &&
		    k->pos.cksum[0] == db->hdr.frame_cksum[0] && k->pos.cksum[1] == db->hdr.frame_cksum[1] && k->index >= start->mark_index &&
		    k->index <= start->last_index)
			return k;
	}
	return NULL;
}

static int by_note(struct search *s, bool *ret_found, uint64_t *ret_index, struct wire_err *err)
{
	const struct vfs_known_pos *k = known_here(s);
	int rc;

	*ret_found = false;
	if (!k)
		return WIRE_OK;
	rc = collect_touched(s, k->index, err);
	if (rc == WIRE_OK)
		rc = load_table(s, err);
	if (rc)
		return rc;
	compare_all(s);
	for (uint64_t i = s->start->mark_index + 1; i <= k->index; i++) {
		rc = replay(s, i, err);
		if (rc)
			return rc;
	}
	*ret_found = agrees(s);
	*ret_index = k->index;
	return WIRE_OK;
}

int db_find_position(struct vfs_db *db, const struct vfs_db_start *start, struct wire_err *err)
{
	struct search s = { .db = db, .start = start, .page = malloc(db->page_size) };
	uint64_t index;
	bool found = false;
	int rc;

	if (!s.page)
		return wire_fail(err, WIRE_NOMEM, "finding the position of %s: out of memory", db->path);
	rc = by_note(&s, &found, &index, err);
	if (rc == WIRE_OK && !found)
		rc = by_content(&s, &index, err);
	if (rc == WIRE_OK) {
		db->pages = s.t;
		s.t = NULL;
		db->open = s.open;
		atomic_store(&db->index, index);
		db->marked_index = start->mark_index;
	}
	vfs_pages_free(s.t);
	free(s.slot);
	free(s.page);
	wire_buf_free(&s.data);
	return rc;
}
