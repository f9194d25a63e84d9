#include "test/unit/shim_host.h"
#include "test/unit/db_world.h"
#include "wire/hash.h"
#include "wire/msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct shim_cluster *current; /* whose hosts open_db finds */

/* ---- the node's part ---- */

static void append(struct shim_cluster *c, const void *data, size_t len)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 1024;
		c->log = realloc(c->log, c->cap * sizeof *c->log);
	}
	c->log[c->n] = (struct shim_entry){ .term = c->term, .len = len };
	if (len) {
		c->log[c->n].data = malloc(len);
		memcpy(c->log[c->n].data, data, len);
	}
	c->n++;
	c->n_entries++;
	c->entry_bytes += len;
	if (len > c->largest)
		c->largest = len;
}

static int read_gate(void *ctx, const struct vfs_read_want *want, uint32_t timeout_ms, bool *ret_waited, struct wire_err *err)
{
	struct shim_node *n = ctx;
	int gate;

	(void)timeout_ms;
	pthread_mutex_lock(&n->cluster->mutex);
	n->n_gates++;
	gate = n->cluster->gate;
	pthread_mutex_unlock(&n->cluster->mutex);
	*ret_waited = true;
	return gate && want->level == VFS_READ_LINEARIZABLE ? wire_fail(err, gate, "no quorum") : WIRE_OK;
}

static int wait_published(void *ctx, uint64_t index, uint32_t timeout_ms, struct wire_err *err)
{
	struct shim_node *n = ctx;

	(void)timeout_ms;
	return vfs_db_published(n->db) >= index ? WIRE_OK : wire_fail(err, WIRE_TIMEOUT, "not published");
}

static bool valid(struct shim_node *n, uint64_t epoch)
{
	return n->cluster->leader == n && n->cluster->term == epoch;
}

static int write_lock(void *ctx, const void *who, unsigned flags, uint32_t timeout_ms, struct vfs_grant *ret_grant, struct wire_err *err)
{
	struct shim_node *n = ctx;
	struct shim_cluster *c = n->cluster;
	int rc = WIRE_OK;

	(void)flags, (void)timeout_ms;
	*err = (struct wire_err){ 0 };
	if (!vfs_wlock_try(vfs_db_wlock(n->db), who))
		return WIRE_BUSY;
	pthread_mutex_lock(&c->mutex);
	if (c->leader != n)
		rc = wire_fail(err, WIRE_NOTLEADER, "this node does not lead");
	else if (vfs_db_published(n->db) != c->n)
		rc = wire_fail(err, WIRE_BUSY, "entries are not settled");
	else
		ret_grant->epoch = c->term;
	ret_grant->fresh = !c->old_grants;
	pthread_mutex_unlock(&c->mutex);
	wire_env_posix()->random(NULL, ret_grant->txid, VFS_TXID_BYTES);
	if (rc)
		vfs_wlock_release(vfs_db_wlock(n->db), who, false);
	return rc;
}

static uint32_t write_sleep(void *ctx, const void *who, uint32_t us)
{
	return vfs_wlock_sleep(vfs_db_wlock(((struct shim_node *)ctx)->db), who, us);
}

static void write_unlock(void *ctx, const void *who, bool keep)
{
	vfs_wlock_release(vfs_db_wlock(((struct shim_node *)ctx)->db), who, keep);
}

static void write_forget(void *ctx, const void *who)
{
	vfs_wlock_forget(vfs_db_wlock(((struct shim_node *)ctx)->db), who);
}

static bool epoch_valid(void *ctx, uint64_t epoch)
{
	struct shim_node *n = ctx;
	bool ok;

	pthread_mutex_lock(&n->cluster->mutex);
	ok = valid(n, epoch);
	pthread_mutex_unlock(&n->cluster->mutex);
	return ok;
}

static int propose(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct shim_node *n = ctx;
	struct shim_cluster *c = n->cluster;
	int rc = WIRE_OK;

	(void)timeout_ms;
	pthread_mutex_lock(&c->mutex);
	if (!valid(n, epoch)) {
		rc = wire_fail(err, WIRE_FENCED, "leadership was lost");
	} else {
		append(c, data, len);
		*ret_index = c->n;
		if (c->proposals_left && --c->proposals_left == 0) {
			c->leader = NULL;
			c->term++;
		}
	}
	pthread_mutex_unlock(&c->mutex);
	return rc;
}

static int commit(void *ctx, uint64_t epoch, const void *data, size_t len, uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct shim_node *n = ctx;
	struct shim_cluster *c = n->cluster;
	int rc;

	(void)timeout_ms;
	pthread_mutex_lock(&c->mutex);
	rc = valid(n, epoch) ? c->outcome : WIRE_NOTLEADER;
	if (rc == WIRE_OK || rc == WIRE_UNKNOWN)
		append(c, data, len);
	else if (rc == WIRE_LOST)
		append(c, NULL, 0); /* superseded by an entry of the next leader */
	if (rc == WIRE_OK) {
		*ret_index = c->n;
		n->n_commits++;
	} else {
		wire_fail(err, rc, "as the test wants it");
	}
	pthread_mutex_unlock(&c->mutex);
	return rc;
}

/* In a thread of the test's own, where cmocka's assertions must not be used. */
static void commit_end(void *ctx, uint64_t index, bool published)
{
	struct shim_node *n = ctx;

	if (!n->cluster->fail_publication && (!published || vfs_db_published(n->db) < index)) {
		fprintf(stderr, "entry %" PRIu64 " was not published\n", index);
		abort();
	}
}

static int note_publication(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err)
{
	struct shim_node *n = ctx;

	if (n->cluster->fail_publication)
		return wire_fail(err, WIRE_FULL, "the journal's disk is full");
	if (n->n_known == n->cap_known) {
		n->cap_known = n->cap_known ? n->cap_known * 2 : 1024;
		n->known = realloc(n->known, n->cap_known * sizeof *n->known);
	}
	n->known[n->n_known++] = (struct vfs_known_pos){ *pos, index };
	return WIRE_OK;
}

static int note_restart(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err)
{
	((struct shim_node *)ctx)->n_restarts++;
	return note_publication(ctx, pos, index, err);
}

static int note_mark(void *ctx, uint64_t index, uint64_t checksum, uint32_t db_pages, struct wire_err *err)
{
	struct shim_node *n = ctx;

	(void)err;
	n->mark_index = index;
	n->mark_sum = checksum;
	n->mark_pages = db_pages;
	n->n_marks++;
	return WIRE_OK;
}

static void leader_url(void *ctx, char *dst, size_t cap)
{
	struct shim_cluster *c = ((struct shim_node *)ctx)->cluster;

	snprintf(dst, cap, "%s", c->leader ? "tcp://leader:1" : "");
}

static bool several_voters(void *ctx)
{
	struct shim_node *n = ctx;

	return !n->cluster->alone;
}

static uint64_t wall_us(void *ctx, uint64_t epoch)
{
	(void)ctx, (void)epoch;
	return 1;
}

static int read_entry(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err)
{
	struct shim_cluster *c = ctx;
	int rc = WIRE_OK;

	pthread_mutex_lock(&c->mutex);
	if (index == 0 || index > c->n) {
		rc = wire_fail(err, WIRE_INTERNAL, "no entry %" PRIu64, index);
	} else {
		const struct shim_entry *e = &c->log[index - 1];

		*ret_kind = e->len ? WIRE_ENTRY_DATA : WIRE_ENTRY_NOOP;
		*ret_term = e->term;
		wire_put_bytes(ret_data, e->data, e->len);
	}
	pthread_mutex_unlock(&c->mutex);
	return rc;
}

static void opening(void *ctx)
{
	(void)ctx;
}

static bool is_set_up(void *ctx, const char *path)
{
	(void)ctx;
	for (uint32_t i = 0; i < current->n_nodes; i++)
		if (strcmp(current->node[i].path, path) == 0)
			return true;
	return false;
}

static int open_db(void *ctx, const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err)
{
	(void)ctx, (void)may_set_up;
	pthread_mutex_lock(&current->starting); /* one that is on its way is waited for */
	current->n_opens++;
	*ret_db = vfs_db_find(path);
	pthread_mutex_unlock(&current->starting);
	return *ret_db ? WIRE_OK : wire_fail(err, WIRE_NOTFOUND, "%s is not set up: see walraft init", path);
}

static void close_db(void *ctx, struct vfs_db *db)
{
	(void)ctx;
	(void)db;
}

/* ---- clusters ---- */

static void adopt(struct shim_node *n, uint32_t page_size)
{
	int fd = open(n->path, O_RDONLY);
	off_t size = lseek(fd, 0, SEEK_END);
	uint32_t pages = (uint32_t)(size / (off_t)page_size);
	uint8_t *page = malloc(page_size);
	struct vfs_pages *p = vfs_pages_new(page_size, 7);
	struct vfs_pages_flush *f;
	struct wire_err err;

	assert_int_equal(vfs_pages_resize(p, pages, &err), WIRE_OK);
	for (uint32_t i = 1; i <= pages; i++) {
		assert_int_equal(pread(fd, page, page_size, (off_t)(i - 1) * (off_t)page_size), page_size);
		vfs_pages_set(p, i, wire_page_hash(i, page, page_size), 0);
	}
	close(fd);
	free(page);
	n->mark_sum = vfs_pages_checksum(p);
	n->mark_pages = pages;
	assert_int_equal(vfs_pages_flush_begin(p, 0, &f, &err), WIRE_OK);
	assert_int_equal(vfs_pages_flush_write(f, wire_env_posix(), n->pages, &err), WIRE_OK);
	vfs_pages_free(p);
}

static void start_node(struct shim_node *n)
{
	struct vfs_node_ops ops = { .ctx = n, .read_gate = read_gate, .wait_published = wait_published, .write_lock = write_lock, .write_sleep = write_sleep, .write_unlock = write_unlock, .write_forget = write_forget, .epoch_valid = epoch_valid, .propose = propose, .commit = commit,
		                    .commit_end = commit_end, .note_publication = note_publication, .note_restart = note_restart, .note_mark = note_mark,
		                    .leader_url = leader_url, .several_voters = several_voters, .wall_us = wall_us };
	uint64_t last;

	pthread_mutex_lock(&n->cluster->mutex);
	last = n->cluster->n;
	pthread_mutex_unlock(&n->cluster->mutex);

	struct vfs_db_start start = { .path = n->path, .pages_path = n->pages, .group = 7, .mark_index = n->mark_index, .mark_checksum = n->mark_sum,
		                      .mark_db_pages = n->mark_pages, .last_index = last, .known = n->known, .n_known = n->n_known,
		                      .read_ctx = n->cluster, .read_entry = read_entry, .env = wire_env_posix(), .ops = &ops };
	struct wire_err err;

	if (vfs_db_open(&start, &n->db, &err) != WIRE_OK)
		fail_msg("%s", err.text);
}

static void make_file(const char *path, uint32_t page_size, const char *schema)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"), SQLITE_OK);
	shim_sql(db, "PRAGMA page_size = %u", page_size);
	shim_sql(db, "PRAGMA journal_mode = wal");
	shim_sql(db, "%s", schema);
	sqlite3_close(db);
}

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0644);
	char buf[65536];
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof buf)) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	close(in);
	close(out);
}

void shim_cluster_new(struct shim_cluster *c, uint32_t n_nodes, uint32_t page_size, const char *schema)
{
	static const struct vfs_host_ops ops = { .opening = opening, .is_set_up = is_set_up, .open_db = open_db, .close_db = close_db };
	struct wire_err err;

	*c = (struct shim_cluster){ .mutex = PTHREAD_MUTEX_INITIALIZER, .starting = PTHREAD_MUTEX_INITIALIZER, .n_nodes = n_nodes, .term = 1 };
	strcpy(c->dir, "/tmp/walraft-shim-XXXXXX");
	assert_non_null(mkdtemp(c->dir));
	for (uint32_t i = 0; i < n_nodes; i++) {
		struct shim_node *n = &c->node[i];

		n->cluster = c;
		snprintf(n->path, sizeof n->path, "%s/%u.db", c->dir, i);
		snprintf(n->pages, sizeof n->pages, "%s/%u.pages", c->dir, i);
		if (i == 0)
			make_file(n->path, page_size, schema);
		else
			copy_file(c->node[0].path, n->path);
	}
	for (uint32_t i = 0; i < n_nodes; i++) {
		adopt(&c->node[i], page_size);
		start_node(&c->node[i]);
	}
	current = c;
	if (vfs_register(&ops, &err) != WIRE_OK)
		fail_msg("%s", err.text);
	shim_lead(c, &c->node[0]);
}

void shim_cluster_free(struct shim_cluster *c)
{
	DIR *d;
	struct dirent *e;
	char path[400];

	for (uint32_t i = 0; i < c->n_nodes; i++) {
		assert_int_equal(vfs_db_connections(c->node[i].db), 0);
		vfs_db_close(c->node[i].db);
		free(c->node[i].known);
	}
	for (uint64_t i = 0; i < c->n; i++)
		free(c->log[i].data);
	free(c->log);
	d = opendir(c->dir);
	while (d && (e = readdir(d)) != NULL) {
		snprintf(path, sizeof path, "%s/%s", c->dir, e->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(c->dir);
}

void shim_lead(struct shim_cluster *c, struct shim_node *n)
{
	if (n)
		shim_follow(n);
	pthread_mutex_lock(&c->mutex);
	c->term++;
	c->leader = n;
	pthread_mutex_unlock(&c->mutex);
}

void shim_follow(struct shim_node *n)
{
	struct shim_cluster *c = n->cluster;
	struct wire_err err;
	uint64_t last;

	pthread_mutex_lock(&c->mutex);
	last = c->n;
	pthread_mutex_unlock(&c->mutex);
	if (last > vfs_db_published(n->db) && vfs_db_apply(n->db, last, read_entry, c, &err) != WIRE_OK) {
		fprintf(stderr, "apply: %s\n", err.text); /* may be in a thread of its own */
		abort();
	}
}

void shim_restart(struct shim_node *n, bool checkpoint)
{
	struct wire_err err;
	bool restarted;

	pthread_mutex_lock(&n->cluster->starting);
	if (checkpoint && vfs_db_checkpoint(n->db, UINT32_MAX, &restarted, &err) != WIRE_OK) {
		fprintf(stderr, "checkpoint: %s\n", err.text);
		abort();
	}
	vfs_db_close(n->db);
	start_node(n);
	pthread_mutex_unlock(&n->cluster->starting);
	shim_follow(n);
}

/* ---- SQL ---- */

sqlite3 *shim_open(struct shim_node *n, const char *parameters)
{
	char uri[256];
	sqlite3 *db;

	snprintf(uri, sizeof uri, "file:%s?vfs=walraft%s", n->path, parameters ? parameters : "");
	if (sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL) != SQLITE_OK) {
		fprintf(stderr, "%s: %s\n", uri, sqlite3_errmsg(db));
		abort();
	}
	sqlite3_extended_result_codes(db, 1);
	sqlite3_busy_timeout(db, 10000);
	return db;
}

int shim_try(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void die(sqlite3 *db, const char *sql)
{
	fprintf(stderr, "%s: %d %s (%s)\n", sql, sqlite3_extended_errcode(db), sqlite3_errmsg(db), vfs_error_text(db));
	abort();
}

void shim_sql(sqlite3 *db, const char *fmt, ...)
{
	va_list ap;
	char *sql;

	va_start(ap, fmt);
	sql = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	if (shim_try(db, sql) != SQLITE_OK)
		die(db, sql);
	sqlite3_free(sql);
}

int64_t shim_int(sqlite3 *db, const char *fmt, ...)
{
	sqlite3_stmt *st;
	va_list ap;
	int64_t v;
	char *sql;

	va_start(ap, fmt);
	sql = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW)
		die(db, sql);
	v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_free(sql);
	return v;
}

void shim_check(struct shim_node *n)
{
	struct vfs_db_status st;
	struct wire_err err;
	uint64_t sum = 0;
	char out[256];
	uint8_t *page;
	sqlite3 *db;

	vfs_db_status(n->db, &st);
	page = malloc(st.page_size);
	for (uint32_t i = 1; i <= st.db_pages; i++) {
		if (vfs_db_read_page(n->db, i, page, &err) != WIRE_OK)
			fail_msg("%s", err.text);
		if (!vfs_pages_is_lock_page(st.page_size, i))
			sum ^= wire_page_hash(i, page, st.page_size);
	}
	free(page);
	assert_true(sum == st.checksum);
	db = shim_open(n, "&walraft_read=stale");
	assert_int_equal(shim_int(db, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"), 0);
	sqlite3_close(db);
	assert_int_equal(world_stock(n->path, "PRAGMA integrity_check", out, sizeof out), SQLITE_OK);
	assert_string_equal(out, "ok\n");
}

void shim_same_state(struct shim_cluster *c)
{
	struct vfs_db_status a, b;

	vfs_db_status(c->node[0].db, &a);
	for (uint32_t i = 1; i < c->n_nodes; i++) {
		shim_follow(&c->node[i]);
		vfs_db_status(c->node[i].db, &b);
		assert_true(a.index == b.index && a.checksum == b.checksum && a.db_pages == b.db_pages);
	}
}

void shim_no_complaint(sqlite3 *db)
{
	assert_string_equal(vfs_error_text(db), "");
}
