#include "test/unit/db_world.h"
#include "vfs/pageset.h"
#include "wire/hash.h"
#include "wire/msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const struct sqlite3_api_routines *sqlite3_api;

static int grab_api(sqlite3 *db, const char **msg, const struct sqlite3_api_routines *api)
{
	(void)db;
	(void)msg;
	sqlite3_api = api;
	return SQLITE_OK;
}

void world_init_sqlite(void)
{
	sqlite3 *db;

	sqlite3_auto_extension((void (*)(void))grab_api);
	if (sqlite3_open(":memory:", &db) != SQLITE_OK || !sqlite3_api)
		abort();
	sqlite3_close(db);
	sqlite3_cancel_auto_extension((void (*)(void))grab_api);
}

uint32_t world_random(struct world *w, uint32_t below)
{
	w->seed = w->seed * 1664525u + 1013904223u;
	return (w->seed >> 8) % below;
}

/* ---- the log ---- */

void world_sql(struct world *w, const char *fmt, ...)
{
	va_list ap;
	char *sql, *msg = NULL;

	va_start(ap, fmt);
	sql = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	if (sqlite3_exec(w->sql, sql, NULL, NULL, &msg) != SQLITE_OK)
		fail_msg("%s: %s", sql, msg);
	sqlite3_free(sql);
}

static void append_entry(struct world *w, uint8_t kind, struct wire_buf *data)
{
	if (w->n + 1 >= w->cap) {
		w->cap = w->cap ? w->cap * 2 : 256;
		w->log = realloc(w->log, w->cap * sizeof *w->log);
		w->state = realloc(w->state, (w->cap + 1) * sizeof *w->state);
	}
	w->log[w->n] = (struct world_entry){ kind, w->term, data ? data->data : NULL, data ? data->len : 0 };
	w->n++;
	w->state[w->n] = w->state[w->n - 1];
}

void world_noop(struct world *w) { append_entry(w, WIRE_ENTRY_NOOP, NULL); }

static uint8_t *read_source(struct world *w, uint32_t *ret_pages)
{
	int fd = open(w->source, O_RDONLY);
	off_t size = lseek(fd, 0, SEEK_END);
	uint8_t *p = malloc((size_t)size);

	assert_true(fd >= 0 && p && pread(fd, p, (size_t)size, 0) == size);
	close(fd);
	p[18] = p[19] = 2; /* the source keeps a rollback journal, the replica a WAL */
	*ret_pages = (uint32_t)((size_t)size / w->page_size);
	return p;
}

static uint64_t model_sum(const struct world *w, const uint8_t *pages, uint32_t n)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum ^= wire_page_hash(i + 1, pages + (size_t)i * w->page_size, w->page_size);
	return sum;
}

static void finish_chunk(struct world *w, struct vfs_pageset_enc *enc, const struct vfs_pageset_head *h)
{
	struct wire_buf data = WIRE_BUF_INIT;
	struct wire_err err;

	assert_int_equal(vfs_pageset_enc_finish(enc, h, &data, &err), WIRE_OK);
	append_entry(w, WIRE_ENTRY_DATA, &data);
}

void world_commit(struct world *w, uint32_t chunk_pages, bool close)
{
	struct vfs_pageset_head h = { .page_size = w->page_size, .flags = VFS_PAGESET_FIRST, .n_chunks = 1, .timestamp_us = w->n, .db_before = w->model_pages };
	struct vfs_pageset_enc enc;
	uint32_t n_now, in_chunk = 0;
	uint8_t *now = read_source(w, &n_now);
	uint64_t sum = w->state[w->n].sum, first = w->n + 1;

	vfs_pageset_enc_init(&enc, w->page_size);
	for (size_t i = 0; i < sizeof h.txid; i++)
		h.txid[i] = (uint8_t)world_random(w, 256);
	h.sum_before = sum;
	for (uint32_t i = n_now; i < w->model_pages; i++)
		sum ^= wire_page_hash(i + 1, w->model + (size_t)i * w->page_size, w->page_size);
	for (uint32_t i = 0; i < n_now; i++) {
		const uint8_t *page = now + (size_t)i * w->page_size, *base = i < w->model_pages ? w->model + (size_t)i * w->page_size : NULL;

		if (base && memcmp(base, page, w->page_size) == 0)
			continue;
		if (chunk_pages && in_chunk == chunk_pages) {
			struct vfs_pageset_head mid = h;

			mid.sum_before = 0;
			mid.db_before = 0;
			mid.n_chunks = 0;
			finish_chunk(w, &enc, &mid);
			world_noop(w);
			h.flags = 0;
			h.chunk++;
			h.n_chunks++;
			in_chunk = 0;
		}
		if (base)
			sum ^= wire_page_hash(i + 1, base, w->page_size);
		sum ^= wire_page_hash(i + 1, page, w->page_size);
		vfs_pageset_enc_add(&enc, i + 1, base, page, wire_page_hash(i + 1, page, w->page_size));
		in_chunk++;
	}
	assert_true(in_chunk > 0);
	h.flags |= VFS_PAGESET_CLOSE;
	h.first_index = h.chunk ? first : 0;
	h.sum_after = sum;
	h.db_after = n_now;
	if (close) {
		finish_chunk(w, &enc, &h);
		w->state[w->n] = (struct world_state){ sum, n_now };
		free(w->model);
		w->model = now;
		w->model_pages = n_now;
	} else {
		free(now); /* the next call makes a transaction of the same changes again */
	}
	vfs_pageset_enc_free(&enc);
}

void world_transaction(struct world *w)
{
	uint32_t what = world_random(w, 100), amount = world_random(w, 50);

	world_sql(w, "BEGIN");
	world_sql(w, "UPDATE a SET v = v - %u WHERE id = %u; UPDATE b SET v = v + %u WHERE id = %u", amount, world_random(w, 100) + 1, amount, world_random(w, 100) + 1);
	world_sql(w, "UPDATE counter SET n = n + 1");
	if (what < 50)
		world_sql(w, "INSERT INTO t(x) VALUES (randomblob(%u))", world_random(w, 2 * w->page_size) % 9000 + 1);
	else if (what < 60)
		world_sql(w, "UPDATE t SET x = randomblob(%u) WHERE id %% 13 = %u", world_random(w, 500) + 1, world_random(w, 13));
	else if (what < 65)
		world_sql(w, "DELETE FROM t WHERE id %% 3 = %u", world_random(w, 3));
	world_sql(w, "COMMIT");
	if (what == 99)
		world_sql(w, "VACUUM");
	world_commit(w, 0, true);
	if (world_random(w, 10) == 0)
		world_noop(w);
}

int world_read_entry(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err)
{
	struct world *w = ctx;

	if (index == 0 || index > w->n)
		return wire_fail(err, WIRE_INTERNAL, "entry %llu was asked for, there are %llu", (unsigned long long)index, (unsigned long long)w->n);
	*ret_kind = w->log[index - 1].kind;
	*ret_term = w->log[index - 1].term;
	wire_put_bytes(ret_data, w->log[index - 1].data, w->log[index - 1].len);
	return WIRE_OK;
}

/* ---- the node's part ---- */

static int note_publication(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err)
{
	struct world_journal *j = ((struct world *)ctx)->journal;

	(void)err;
	assert_true(j->n_known < WORLD_KNOWN_MAX);
	j->known[j->n_known] = (struct vfs_known_pos){ *pos, index };
	__atomic_store_n(&j->n_known, j->n_known + 1, __ATOMIC_RELEASE);
	return WIRE_OK;
}

static int note_restart(void *ctx, const struct vfs_wal_pos *pos, uint64_t index, struct wire_err *err)
{
	((struct world *)ctx)->journal->n_restarts++;
	return note_publication(ctx, pos, index, err);
}

static int note_mark(void *ctx, uint64_t index, uint64_t checksum, uint32_t db_pages, struct wire_err *err)
{
	struct world *w = ctx;

	(void)err;
	assert_true(checksum == w->state[index].sum);
	assert_int_equal(db_pages, w->state[index].pages);
	w->journal->mark_sum = checksum;
	w->journal->mark_pages = db_pages;
	__atomic_store_n(&w->journal->mark_index, index, __ATOMIC_RELEASE);
	w->journal->n_marks++;
	return WIRE_OK;
}

static int tell_effects(void *ctx, uint64_t upto, const struct vfs_effect *effects, size_t n, struct wire_err *err)
{
	struct world *w = ctx;
	int rc = w->effects ? w->effects(w, upto, effects, n) : WIRE_OK;

	return rc ? wire_fail(err, rc, "no more effects") : WIRE_OK;
}

struct vfs_node_ops world_ops(struct world *w)
{
	return (struct vfs_node_ops){ .ctx = w, .note_publication = note_publication, .note_restart = note_restart, .note_mark = note_mark, .effects = tell_effects };
}

int world_open(struct world *w, struct vfs_db **ret_db, struct wire_err *err)
{
	struct vfs_node_ops ops = world_ops(w);
	struct vfs_db_start start = { .path = w->replica, .pages_path = w->pages, .group = 7, .mark_index = w->journal->mark_index,
		                      .mark_checksum = w->journal->mark_sum, .mark_db_pages = w->journal->mark_pages, .last_index = w->n,
		                      .known = w->journal->known, .n_known = w->journal->n_known, .read_ctx = w, .read_entry = world_read_entry,
		                      .env = wire_env_posix(), .ops = &ops };

	return vfs_db_open(&start, ret_db, err);
}

struct vfs_db *world_must_open(struct world *w)
{
	struct wire_err err = { 0 };
	struct vfs_db *db = NULL;

	if (world_open(w, &db, &err) != WIRE_OK)
		fail_msg("open: %s", err.text);
	return db;
}

void world_apply(struct world *w, struct vfs_db *db, uint64_t last)
{
	struct wire_err err = { 0 };

	if (vfs_db_apply(db, last, world_read_entry, w, &err) != WIRE_OK)
		fail_msg("apply up to %llu: %s", (unsigned long long)last, err.text);
	assert_true(vfs_db_published(db) == last);
}

void world_check(struct world *w, struct vfs_db *db)
{
	struct vfs_db_status st;
	struct wire_err err = { 0 };
	uint8_t *page = malloc(w->page_size);

	vfs_db_status(db, &st);
	assert_true(st.index <= w->n && st.checksum == w->state[st.index].sum);
	assert_int_equal(st.db_pages, w->state[st.index].pages);
	assert_int_equal(st.page_size, w->page_size);
	for (uint32_t i = 1; st.index == w->n && i <= st.db_pages; i++) {
		if (vfs_db_read_page(db, i, page, &err) != WIRE_OK)
			fail_msg("page %u: %s", i, err.text);
		assert_memory_equal(page, w->model + (size_t)(i - 1) * w->page_size, w->page_size);
		assert_true(vfs_db_page_hash(db, i) == wire_page_hash(i, page, w->page_size));
	}
	free(page);
}

static void adopt(struct world *w)
{
	struct vfs_pages *p = vfs_pages_new(w->page_size, 7);
	struct vfs_pages_flush *f;
	struct wire_err err;
	int fd = open(w->replica, O_CREAT | O_WRONLY, 0644);

	assert_true(fd >= 0 && write(fd, w->model, (size_t)w->model_pages * w->page_size) == (ssize_t)w->model_pages * (ssize_t)w->page_size);
	close(fd);
	assert_int_equal(vfs_pages_resize(p, w->model_pages, &err), WIRE_OK);
	for (uint32_t i = 1; i <= w->model_pages; i++)
		vfs_pages_set(p, i, wire_page_hash(i, w->model + (size_t)(i - 1) * w->page_size, w->page_size), 0);
	assert_int_equal(vfs_pages_flush_begin(p, 0, &f, &err), WIRE_OK);
	assert_int_equal(vfs_pages_flush_write(f, wire_env_posix(), w->pages, &err), WIRE_OK);
	vfs_pages_free(p);
	w->state = malloc(sizeof *w->state);
	w->state[0] = (struct world_state){ model_sum(w, w->model, w->model_pages), w->model_pages };
	w->journal->mark_sum = w->state[0].sum;
	w->journal->mark_pages = w->model_pages;
}

void world_new(struct world *w, uint32_t page_size, uint32_t seed)
{
	*w = (struct world){ .page_size = page_size, .term = 1, .seed = seed };
	strcpy(w->dir, "/tmp/walraft-db-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->source, sizeof w->source, "%s/source.db", w->dir);
	snprintf(w->replica, sizeof w->replica, "%s/app.db", w->dir);
	snprintf(w->pages, sizeof w->pages, "%s/pages", w->dir);
	w->journal = mmap(NULL, sizeof *w->journal, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(w->journal != MAP_FAILED);
	assert_int_equal(sqlite3_open_v2(w->source, &w->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL), SQLITE_OK);
	world_sql(w, "PRAGMA page_size = %u; PRAGMA synchronous = OFF", page_size);
	world_sql(w, "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE TABLE t(id INTEGER PRIMARY KEY, x);"
	             "CREATE INDEX tx ON t(length(x)); CREATE TABLE counter(n); INSERT INTO counter VALUES (0);"
	             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO a SELECT i, %d FROM n;"
	             "INSERT INTO b SELECT id, 0 FROM a", WORLD_TOTAL / 100);
	w->model = read_source(w, &w->model_pages);
	adopt(w);
}

void world_free(struct world *w)
{
	DIR *d = opendir(w->dir);
	struct dirent *e;
	char path[400];

	sqlite3_close(w->sql);
	while (d && (e = readdir(d)) != NULL) {
		snprintf(path, sizeof path, "%s/%s", w->dir, e->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(w->dir);
	for (uint64_t i = 0; i < w->n; i++)
		free(w->log[i].data);
	free(w->log);
	free(w->state);
	free(w->model);
	munmap(w->journal, sizeof *w->journal);
}

/* ---- processes without walraft ---- */

static pid_t run_self(const char *mode, const char *path, const char *arg, int out)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (out >= 0)
			dup2(out, 1);
		char self[4096] = "";

		/* Not /proc/self/exe itself, which is valgrind's own program under valgrind. */
		if (readlink("/proc/self/exe", self, sizeof self - 1) > 0)
			execl(self, "stock", mode, path, arg, (char *)NULL);
		_exit(127);
	}
	assert_true(pid > 0);
	return pid;
}

int world_stock(const char *path, const char *sql, char *out, size_t cap)
{
	int fds[2], status;
	size_t n = 0;
	ssize_t got;
	char buf[4096];

	assert_int_equal(pipe(fds), 0);
	pid_t pid = run_self("--stock", path, sql, fds[1]);
	close(fds[1]);
	while ((got = read(fds[0], buf + n, sizeof buf - 1 - n)) > 0)
		n += (size_t)got;
	close(fds[0]);
	buf[n] = 0;
	if (out)
		snprintf(out, cap, "%s", buf);
	assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int print_row(void *ctx, int n, char **values, char **names)
{
	(void)ctx;
	(void)names;
	for (int i = 0; i < n; i++)
		printf("%s\n", values[i] ? values[i] : "");
	return 0;
}

static int stock_main(const char *path, const char *sql)
{
	sqlite3 *db;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);

	if (getenv("WORLD_PATIENT"))
		sqlite3_busy_timeout(db, 5000);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, sql, print_row, NULL, NULL);
	fflush(stdout);
	sqlite3_close(db);
	return rc & 0xff;
}

static volatile sig_atomic_t stop;
static void on_term(int sig) { stop = sig; }

static int reader_main(const char *path, const char *report)
{
	uint64_t reads = 0;
	FILE *f;
	char why[200] = "ok";
	sqlite3 *db;
	int last = 0;

	signal(SIGTERM, on_term);
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		return 1;
	while (!stop) {
		sqlite3_stmt *st;

		if (getenv("WORLD_PATIENT"))
			sqlite3_busy_timeout(db, 5000);
		int rc = sqlite3_prepare_v2(db, "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b), (SELECT n FROM counter), (SELECT sum(length(x)) FROM t)", -1, &st, NULL);

		if (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
			if (sqlite3_column_int(st, 0) != WORLD_TOTAL || sqlite3_column_int(st, 1) < last)
				snprintf(why, sizeof why, "read %llu: sum %d, counter %d after %d", (unsigned long long)reads, sqlite3_column_int(st, 0), sqlite3_column_int(st, 1), last);
			last = sqlite3_column_int(st, 1);
		} else {
			snprintf(why, sizeof why, "read %llu: %d %s", (unsigned long long)reads, sqlite3_extended_errcode(db), sqlite3_errmsg(db));
		}
		sqlite3_finalize(st);
		if (strcmp(why, "ok") != 0)
			break;
		if (++reads % 5 == 0) { /* a fresh connection now and then */
			sqlite3_close(db);
			sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);
		}
		usleep(200);
	}
	sqlite3_close(db);
	f = fopen(report, "w");
	fprintf(f, "%llu %s", (unsigned long long)reads, why);
	fclose(f);
	return 0;
}

pid_t world_start_reader(struct world *w)
{
	char report[128];

	snprintf(report, sizeof report, "%s/report", w->dir);
	unlink(report);
	return run_self("--reader", w->replica, report, -1);
}

uint64_t world_stop_reader(pid_t pid, struct world *w)
{
	char path[128], why[256] = "no report";
	unsigned long long reads = 0;
	FILE *f;
	int status;

	kill(pid, SIGTERM);
	assert_true(waitpid(pid, &status, 0) == pid);
	snprintf(path, sizeof path, "%s/report", w->dir);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu %255[^\n]", &reads, why), 2);
	fclose(f);
	assert_string_equal(why, "ok");
	return reads;
}

bool world_main(int argc, char **argv, int *ret_status)
{
	if (argc != 4)
		return false;
	if (strcmp(argv[1], "--stock") == 0)
		*ret_status = stock_main(argv[2], argv[3]);
	else if (strcmp(argv[1], "--reader") == 0)
		*ret_status = reader_main(argv[2], argv[3]);
	else
		return false;
	return true;
}
