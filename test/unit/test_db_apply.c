/* Publication: entries of a log into a replica that stock processes read meanwhile. */
#include "test/unit/db_world.h"
#include "vfs/db_impl.h"
#include "wire/hash.h"
#include "wire/msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t seed = 1;

static void checkpoint(struct vfs_db *db, uint32_t restart_frames, bool *ret_restarted)
{
	struct wire_err err = { 0 };
	bool restarted = false;

	if (vfs_db_checkpoint(db, restart_frames, &restarted, &err) != WIRE_OK)
		fail_msg("checkpoint: %s", err.text);
	if (ret_restarted)
		*ret_restarted = restarted;
}

static void follow(uint32_t page_size, uint32_t n_tx, bool with_reader)
{
	struct world w;
	struct vfs_db *db;
	struct vfs_db_status st;
	uint32_t most = 0;
	uint64_t reads = 0;
	pid_t reader = 0;
	char out[64];

	world_new(&w, page_size, seed);
	for (uint32_t i = 0; i < n_tx; i++)
		world_transaction(&w);
	db = world_must_open(&w);
	world_check(&w, db);
	if (with_reader)
		reader = world_start_reader(&w);
	for (uint64_t at = 0; at < w.n;) {
		uint64_t next = at + 1 + (world_random(&w, 40) ? 0 : world_random(&w, 60));

		at = next < w.n ? next : w.n;
		world_apply(&w, db, at);
		vfs_db_status(db, &st);
		most = st.wal_frames > most ? st.wal_frames : most;
		if (world_random(&w, 40) == 0) {
			world_check(&w, db);
			/* No restart in the first part, so that the wal-index grows over several regions. */
			checkpoint(db, at > w.n / 2 ? 200 : 1000000, NULL);
			world_check(&w, db);
		}
	}
	world_check(&w, db);
	vfs_db_status(db, &st);
	if (reader)
		reads = world_stop_reader(reader, &w);
	assert_int_equal(world_stock(w.replica, "PRAGMA integrity_check", out, sizeof out), SQLITE_OK);
	assert_string_equal(out, "ok\n");
	assert_int_equal(world_stock(w.replica, "UPDATE counter SET n = 0", NULL, 0), SQLITE_BUSY);
	assert_true(st.restarts > 0 && st.checkpoints > 0 && reads > 0);
	printf("# page size %u: %llu entries, %llu publications, at most %u frames, %llu restarts, %llu checkpoints, %llu reads\n", page_size, (unsigned long long)w.n,
	       (unsigned long long)st.publications, most, (unsigned long long)st.restarts, (unsigned long long)st.checkpoints, (unsigned long long)reads);
	vfs_db_close(db);
	assert_int_equal(world_stock(w.replica, "PRAGMA integrity_check", out, sizeof out), SQLITE_OK);
	assert_string_equal(out, "ok\n");
	world_free(&w);
}

static void test_follow_512(void **state) { (void)state; follow(512, 1200, true); }
static void test_follow_4096(void **state) { (void)state; follow(4096, 3000, true); }
static void test_follow_65536(void **state) { (void)state; follow(65536, 250, true); }

static void test_merges(void **state)
{
	struct vfs_db_status st;
	struct vfs_db *db;
	struct world w;

	(void)state;
	world_new(&w, 4096, seed + 1);
	for (int i = 0; i < 400; i++)
		world_transaction(&w);
	db = world_must_open(&w);
	world_apply(&w, db, w.n);
	world_check(&w, db);
	vfs_db_status(db, &st);
	assert_true(st.publications < 60);
	vfs_db_close(db);
	world_free(&w);
}

/* Large entries go by streaming, as single ones and as chunks. */
static void test_large_and_chunked(void **state)
{
	struct vfs_db *db;
	struct world w;
	uint64_t open_at;

	(void)state;
	world_new(&w, 1024, seed);
	world_transaction(&w);
	world_sql(&w, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) INSERT INTO t(x) SELECT printf('%%0900d', i) FROM n");
	world_commit(&w, 1000, true);
	world_sql(&w, "UPDATE t SET x = 'z' || substr(x, 2)"); /* few bytes on more pages than are merged */
	world_commit(&w, 0, true);
	world_transaction(&w);
	world_sql(&w, "DELETE FROM t WHERE id > 3000; VACUUM");
	world_commit(&w, 500, true);
	world_transaction(&w);
	/* Chunks whose close never came, and then the same changes by another transaction of a later term. */
	world_sql(&w, "UPDATE t SET x = randomblob(700) WHERE id < 1000");
	open_at = w.n + 1;
	world_commit(&w, 100, false);
	w.term = 2;
	uint64_t in_open = w.n;
	world_commit(&w, 100, true);
	world_transaction(&w);

	db = world_must_open(&w);
	world_apply(&w, db, open_at - 1);
	assert_true(vfs_db_trim_limit(db) == open_at - 1);
	world_apply(&w, db, in_open);
	assert_true(vfs_db_trim_limit(db) == open_at - 1);
	checkpoint(db, 1, NULL);
	assert_true(w.journal->mark_index == open_at - 1);
	vfs_db_close(db);
	/* Also when found again in the middle of open chunks. */
	db = world_must_open(&w);
	world_check(&w, db);
	for (uint64_t i = vfs_db_published(db); i < w.n;)
		world_apply(&w, db, ++i);
	world_check(&w, db);
	assert_true(vfs_db_trim_limit(db) == w.n);
	vfs_db_close(db);
	world_free(&w);
}

static void test_in_the_middle_of_chunks(void **state)
{
	struct vfs_db *db;
	struct world w;
	uint64_t before;

	(void)state;
	world_new(&w, 1024, seed);
	world_sql(&w, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t(x) SELECT randomblob(900) FROM n");
	world_commit(&w, 0, true);
	before = w.n;
	world_sql(&w, "UPDATE t SET x = randomblob(901)");
	world_commit(&w, 50, true);
	for (uint64_t stop = before; stop < w.n; stop += 2) {
		db = world_must_open(&w);
		world_apply(&w, db, stop > vfs_db_published(db) ? stop : vfs_db_published(db));
		assert_true(vfs_db_trim_limit(db) == before);
		if (stop % 4 == 0)
			checkpoint(db, 1, NULL);
		vfs_db_close(db);
	}
	db = world_must_open(&w);
	world_apply(&w, db, w.n);
	world_check(&w, db);
	vfs_db_close(db);
	world_free(&w);
}

/* A bad entry among good ones: everything before it is there, nothing of it is. */
static void test_bad_entry(void **state)
{
	struct vfs_db *db;
	struct world w;
	struct wire_err err;
	uint64_t bad = 20;

	(void)state;
	world_new(&w, 4096, seed);
	for (int i = 0; i < 30; i++)
		world_transaction(&w);
	db = world_must_open(&w);
	while (w.log[bad - 1].kind != WIRE_ENTRY_DATA)
		bad++;
	w.log[bad - 1].data[56] ^= 1; /* checksum after */
	assert_int_equal(vfs_db_apply(db, w.n, world_read_entry, &w, &err), WIRE_CORRUPT);
	assert_true(vfs_db_published(db) == bad - 1);
	world_check(&w, db);
	w.log[bad - 1].data[56] ^= 1;
	/* And one with a page that does not come out as its hash says. */
	w.log[bad - 1].data[w.log[bad - 1].len - 1] ^= 1;
	assert_int_not_equal(vfs_db_apply(db, w.n, world_read_entry, &w, &err), WIRE_OK);
	assert_true(vfs_db_published(db) == bad - 1);
	world_check(&w, db);
	w.log[bad - 1].data[w.log[bad - 1].len - 1] ^= 1;
	world_apply(&w, db, w.n);
	world_check(&w, db);
	vfs_db_close(db);
	world_free(&w);
}

/* ---- verbatim frames, as a connection of this process would have written them ---- */

struct local { struct world *w; uint8_t *frames; uint32_t n, *pgnos; struct vfs_page_update *updates; };

static int local_frame(void *ctx, uint32_t i, uint8_t *dst, struct wire_err *err)
{
	struct local *l = ctx;

	(void)err;
	memcpy(dst, l->frames + (size_t)i * (VFS_FRAME_HDR + l->w->page_size), VFS_FRAME_HDR + l->w->page_size);
	return WIRE_OK;
}

static void make_local(struct local *l, struct world *w, struct vfs_db *db, uint64_t index)
{
	uint32_t sum[2] = { db->hdr.frame_cksum[0], db->hdr.frame_cksum[1] };
	struct vfs_pageset_dec dec = { 0 };
	struct vfs_pageset_page p;
	struct wire_err err;

	*l = (struct local){ .w = w };
	assert_int_equal(vfs_pageset_dec_open(&dec, w->log[index - 1].data, w->log[index - 1].len, &err), WIRE_OK);
	l->n = dec.head.n_pages;
	l->frames = calloc(l->n, VFS_FRAME_HDR + w->page_size);
	l->pgnos = calloc(l->n, sizeof *l->pgnos);
	l->updates = calloc(l->n, sizeof *l->updates);
	for (uint32_t i = 0; i < l->n; i++) {
		uint8_t *frame = l->frames + (size_t)i * (VFS_FRAME_HDR + w->page_size);

		assert_int_equal(vfs_pageset_dec_next(&dec, &p, &err), WIRE_OK);
		if (!p.full)
			assert_int_equal(vfs_db_read_page(db, p.pgno, frame + VFS_FRAME_HDR, &err), WIRE_OK);
		assert_int_equal(vfs_pageset_apply(&p, w->page_size, frame + VFS_FRAME_HDR, &err), WIRE_OK);
		vfs_frame_put(&db->wal_hdr, p.pgno, i + 1 == l->n ? dec.head.db_after : 0, frame + VFS_FRAME_HDR, sum, frame);
		l->pgnos[i] = p.pgno;
		l->updates[i] = (struct vfs_page_update){ p.pgno, p.hash_after, index };
	}
	vfs_pageset_dec_free(&dec);
}

static void test_verbatim(void **state)
{
	struct vfs_walindex_hdr before;
	struct vfs_db *db;
	struct wire_err err;
	struct world w;

	(void)state;
	world_new(&w, 4096, seed);
	for (int i = 0; i < 50; i++)
		world_transaction(&w);
	db = world_must_open(&w);
	for (uint64_t i = 1; i <= w.n; i++) {
		struct local l;

		if (w.log[i - 1].kind != WIRE_ENTRY_DATA) {
			world_apply(&w, db, i);
			continue;
		}
		make_local(&l, &w, db, i);
		struct vfs_publication p = { .index = i, .n_frames = l.n, .db_pages = w.state[i].pages, .pgnos = l.pgnos, .verbatim = true, .ctx = &l, .frame = local_frame,
			                     .n_updates = l.n, .updates = l.updates, .checksum_after = w.state[i].sum };
		before = db->hdr;
		l.frames[8] ^= 1; /* a salt: of another WAL */
		assert_int_equal(vfs_db_publish(db, &p, &err), WIRE_INTERNAL);
		l.frames[8] ^= 1;
		p.checksum_after ^= 1;
		assert_int_equal(vfs_db_publish(db, &p, &err), WIRE_CORRUPT);
		p.checksum_after ^= 1;
		assert_memory_equal(&before, &db->hdr, sizeof before);
		if (vfs_db_publish(db, &p, &err) != WIRE_OK)
			fail_msg("%s", err.text);
		assert_int_equal(db->hdr.change, before.change + 1);
		free(l.frames);
		free(l.pgnos);
		free(l.updates);
		world_check(&w, db);
	}
	vfs_db_close(db);
	world_free(&w);
}

/* ---- what connections take ---- */

static void *private_get(void *ctx, uint32_t region)
{
	return (uint8_t *)ctx + (size_t)region * VFS_REGION_BYTES;
}

static void test_pull(void **state)
{
	uint8_t *mine = calloc(16, VFS_REGION_BYTES);
	struct vfs_regions r = { mine, private_get };
	struct vfs_pull pull = { 0 };
	struct vfs_db *db;
	struct world w;
	struct wire_err err;

	(void)state;
	world_new(&w, 512, seed);
	for (int i = 0; i < 300; i++)
		world_transaction(&w);
	db = world_must_open(&w);
	for (uint64_t i = 0; i <= w.n; i++) {
		uint64_t sequence = vfs_db_sequence(db);

		if (i)
			world_apply(&w, db, i);
		if (i % 70 == 69)
			checkpoint(db, 1, NULL);
		assert_true(memcmp(&pull.hdr, &db->hdr, sizeof pull.hdr) == 0 || vfs_db_sequence(db) != sequence || i == 0);
		assert_int_equal(vfs_db_pull(db, &pull, &r, &err), WIRE_OK);
		assert_memory_equal(&pull.hdr, &db->hdr, sizeof pull.hdr);
		for (uint32_t k = 0; (i == 0 || sequence != vfs_db_sequence(db)) && k <= vfs_walindex_region_of(db->hdr.mx_frame); k++)
			assert_memory_equal(mine + (size_t)k * VFS_REGION_BYTES, vfs_db_real_region(db, k, false), VFS_REGION_BYTES);
		/* What a rolled back transaction leaves behind. */
		vfs_walindex_append(&r, pull.hdr.mx_frame + 1, 1, &err);
	}
	assert_ptr_equal(vfs_db_find(w.replica), db);
	assert_int_equal(vfs_db_connections(db), 1);
	vfs_db_unref(db);
	assert_null(vfs_db_find("/nowhere"));
	vfs_db_close(db);
	assert_null(vfs_db_find(w.replica));
	free(mine);
	world_free(&w);
}

static void test_watchdog(void **state)
{
	struct vfs_walindex_hdr h;
	struct vfs_db *db;
	struct world w;

	(void)state;
	world_new(&w, 4096, seed);
	db = world_must_open(&w);
	memset(vfs_db_real_region(db, 0, false), 0x55, 60);
	assert_false(vfs_walindex_read_header(vfs_db_real_region(db, 0, false), false, &h));
	vfs_db_watchdog(db);
	assert_true(vfs_walindex_read_header(vfs_db_real_region(db, 0, false), false, &h));
	assert_memory_equal(&h, &db->hdr, sizeof h);
	vfs_db_close(db);
	world_free(&w);
}

static void test_view(void **state)
{
	struct vfs_view_info info;
	struct vfs_view *v;
	struct vfs_db *db;
	struct wire_err err;
	struct world w;
	uint8_t page[4096];
	uint64_t at, sum = 0;
	bool restarted;

	(void)state;
	world_new(&w, 4096, seed);
	for (int i = 0; i < 300; i++)
		world_transaction(&w);
	db = world_must_open(&w);
	at = w.n / 2;
	world_apply(&w, db, at);
	assert_int_equal(vfs_view_open(db, &v, &info, &err), WIRE_OK);
	assert_true(info.index == at && info.checksum == w.state[at].sum);
	assert_int_equal(info.db_pages, w.state[at].pages);
	for (uint64_t i = at; i < w.n; i++) {
		world_apply(&w, db, i + 1);
		if (i % 50 == 0)
			checkpoint(db, 1000000, NULL);
	}
	checkpoint(db, 1, &restarted);
	assert_false(restarted);
	for (uint32_t i = 1; i <= info.db_pages; i++) {
		assert_int_equal(vfs_view_read(v, i, page, &err), WIRE_OK);
		sum ^= vfs_view_page_hash(v, i, page);
	}
	assert_true(sum == info.checksum);
	assert_int_not_equal(vfs_view_read(v, info.db_pages + 1, page, &err), WIRE_OK);
	vfs_view_close(v);
	for (int i = 0; i < 100 && !restarted; i++) {
		usleep(50000);
		checkpoint(db, 1, &restarted);
	}
	assert_true(restarted);
	world_check(&w, db);
	vfs_db_close(db);
	world_free(&w);
}

/* ---- everything at once ---- */

struct crowd { struct world *w; struct vfs_db *db; _Atomic bool over; _Atomic uint32_t restarts, views, pulls; };

static void *checkpoints(void *arg)
{
	struct crowd *c = arg;

	while (!c->over) {
		struct wire_err err;
		bool restarted = false;

		if (vfs_db_checkpoint(c->db, 50, &restarted, &err) != WIRE_OK)
			return "checkpoint failed";
		c->restarts += restarted;
		vfs_db_watchdog(c->db);
		usleep(1000);
	}
	return NULL;
}

static void *views(void *arg)
{
	struct crowd *c = arg;
	uint8_t page[4096];

	while (!c->over) {
		struct vfs_view_info info;
		struct vfs_view *v;
		struct wire_err err;
		uint64_t sum = 0;

		if (vfs_view_open(c->db, &v, &info, &err) != WIRE_OK)
			return "view failed";
		for (uint32_t i = 1; i <= info.db_pages; i++) {
			if (vfs_view_read(v, i, page, &err) != WIRE_OK)
				return "view read failed";
			sum ^= vfs_view_page_hash(v, i, page);
		}
		vfs_view_close(v);
		if (sum != info.checksum || sum != c->w->state[info.index].sum)
			return "view is not of its index";
		c->views++;
		usleep(3000);
	}
	return NULL;
}

static void *pulls(void *arg)
{
	struct crowd *c = arg;
	uint8_t *mine = calloc(64, VFS_REGION_BYTES), page[4096];
	struct vfs_regions r = { mine, private_get };
	struct vfs_pull pull = { 0 };
	char *bad = NULL;

	while (!c->over && !bad) {
		struct vfs_db_status st;
		struct wire_err err;

		if (vfs_db_pull(c->db, &pull, &r, &err) != WIRE_OK || vfs_walindex_find(&r, 1, 1, pull.hdr.mx_frame) == 0)
			bad = "pull failed";
		vfs_db_status(c->db, &st);
		if (st.checksum != c->w->state[st.index].sum)
			bad = "status is not of one index";
		if (vfs_db_read_page(c->db, 1, page, &err) != WIRE_OK || memcmp(page, "SQLite format 3", 16) != 0)
			bad = "page 1 is not one";
		c->pulls++;
	}
	free(mine);
	return bad;
}

static void test_threads(void **state)
{
	void *(*const run[])(void *) = { checkpoints, views, pulls };
	struct crowd c = { 0 };
	pthread_t threads[3];
	struct world w;
	pid_t reader;
	void *bad;

	(void)state;
	world_new(&w, 4096, seed);
	for (int i = 0; i < 1500; i++)
		world_transaction(&w);
	reader = world_start_reader(&w);
	c.w = &w;
	c.db = world_must_open(&w);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run[i], &c), 0);
	for (uint64_t i = 1; i <= w.n; i++)
		world_apply(&w, c.db, i);
	for (int i = 0; i < 10000 && (c.views == 0 || c.pulls == 0); i++) /* on a busy machine they may hardly have begun */
		usleep(1000);
	c.over = true;
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], &bad);
		if (bad)
			fail_msg("%s", (char *)bad);
	}
	world_check(&w, c.db);
	printf("# %u restarts, %u views, %u pulls, %llu stock reads\n", c.restarts, c.views, c.pulls, (unsigned long long)world_stop_reader(reader, &w));
	assert_true(c.views > 0 && c.pulls > 0);
	vfs_db_close(c.db);
	world_free(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follow_512),  cmocka_unit_test(test_follow_4096), cmocka_unit_test(test_follow_65536),
		cmocka_unit_test(test_merges),      cmocka_unit_test(test_large_and_chunked), cmocka_unit_test(test_in_the_middle_of_chunks),
		cmocka_unit_test(test_bad_entry),   cmocka_unit_test(test_verbatim),    cmocka_unit_test(test_pull),
		cmocka_unit_test(test_watchdog),    cmocka_unit_test(test_view),        cmocka_unit_test(test_threads),
	};
	int status;

	if (world_main(argc, argv, &status))
		return status;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	if (getenv("WALRAFT_SEED"))
		seed = (uint32_t)strtoul(getenv("WALRAFT_SEED"), NULL, 10);
	printf("# WALRAFT_SEED=%u %s\n", seed, argv[0]);
	fflush(stdout);
	world_init_sqlite();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
