#include "shell/image_in.h"
#include "shell/ledger.h"
#include "shell/setup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK_MS 250       /* unanswered requests are repeated */
#define CHUNK_WINDOW 8   /* chunks asked for and not arrived */
#define STALL_MS 3000    /* no chunk for so long: ask again; several times: open the image again */
#define OPENS_MAX 20     /* images that were begun and came to nothing */
#define INSTALLING "device %llu inode %llu\n" /* the marker's text: which file is being put into place */

static uint64_t now_us(const struct shell_image_in *in)
{
	return in->env->now_ns(in->env->ctx) / 1000;
}

static void more_time(struct shell_image_in *in)
{
	in->deadline_us = now_us(in) + (uint64_t)in->timeout_s * 1000000;
}

/* --- fetching --- */

static void on_page(void *ctx, uint32_t pgno, uint64_t hash)
{
	struct shell_image_in *in = ctx;

	if (!vfs_pages_is_lock_page(in->info.page_size, pgno))
		vfs_pages_set(in->pages, pgno, hash, in->info.index);
}

void shell_image_drop(struct shell_image_in *in)
{
	if (in->recv)
		snap_recv_abort(in->recv);
	in->recv = NULL;
	if (in->pages)
		vfs_pages_free(in->pages);
	in->pages = NULL;
}

/* An answer to IMAGE_OPEN. *ret_opened stays false when somebody else is to be asked. */
static int take_info(struct shell_image_in *in, const struct wire_msg *m, bool *ret_opened, struct wire_err *err)
{
	int rc;

	if (m->flags & WIRE_MSG_REJECT)
		return in->refused && in->refused(in->ctx, m->text) ? WIRE_OK : wire_fail(err, WIRE_IO, "no image is to be had: %s", m->text);
	rc = snap_info_get(m->data, m->data_len, &in->info, err);
	if (!rc && in->opened)
		rc = in->opened(in->ctx, &in->info, err);
	*ret_opened = !rc;
	return rc;
}

static int open_image(struct shell_image_in *in, struct wire_err *err)
{
	struct wire_msg q = { .type = WIRE_MSG_IMAGE_OPEN };
	int rc = WIRE_OK;
	bool opened = false;

	shell_image_drop(in);
	q.corr = in->corr = shell_random_id(in->env);
	while (!rc && !opened) {
		struct wire_link_msg *m = NULL;

		if (now_us(in) >= in->deadline_us)
			return wire_fail(err, WIRE_TIMEOUT, "no member sends an image");
		in->send(in->ctx, &q);
		rc = in->receive(in->ctx, ASK_MS, &m, err);
		if (m && !rc && m->msg.type == WIRE_MSG_IMAGE_INFO && m->msg.corr == in->corr)
			rc = take_info(in, &m->msg, &opened, err);
		if (m)
			wire_link_msg_free(m);
	}
	if (!rc && !(in->pages = vfs_pages_new(in->info.page_size, in->group)))
		rc = wire_fail(err, WIRE_NOMEM, "no memory for page hashes");
	if (!rc)
		rc = vfs_pages_resize(in->pages, in->info.pages, err);
	if (!rc)
		rc = snap_recv_open(in->env, in->paths->image, &in->info, on_page, in, &in->recv, err);
	return rc;
}

static void ask_chunks(struct shell_image_in *in, unsigned *in_flight)
{
	struct wire_msg q = { .type = WIRE_MSG_IMAGE_GET, .corr = in->corr };
	uint32_t first, n;

	while (*in_flight < CHUNK_WINDOW && snap_recv_next(in->recv, &first, &n)) {
		q.index = first;
		q.hint = n;
		in->send(in->ctx, &q);
		++*in_flight;
	}
}

static int take_chunk(struct shell_image_in *in, const struct wire_msg *m, struct wire_err *err)
{
	uint64_t done, total;
	int rc;

	if (m->flags & WIRE_MSG_REJECT)
		return wire_fail(err, WIRE_CLOSED, "%s", m->text);
	more_time(in);
	rc = snap_recv_chunk(in->recv, m->data, m->data_len, err);
	snap_recv_progress(in->recv, &done, &total);
	if (in->progress)
		in->progress(in->ctx, done, total);
	return rc;
}

/* WIRE_CLOSED: the image is gone at the sender, open another. */
static int fetch_chunks(struct shell_image_in *in, struct wire_err *err)
{
	unsigned in_flight = 0, stalls = 0;
	int rc = WIRE_OK;

	while (!rc && !snap_recv_complete(in->recv)) {
		struct wire_link_msg *m = NULL;

		ask_chunks(in, &in_flight);
		rc = in->receive(in->ctx, STALL_MS, &m, err);
		if (!m && !rc) {
			if (++stalls == 4)
				return wire_fail(err, WIRE_CLOSED, "the sender of the image fell silent");
			snap_recv_retry(in->recv);
			in_flight = 0;
			continue;
		}
		if (m && !rc && m->msg.type == WIRE_MSG_IMAGE_CHUNK && m->msg.corr == in->corr && m->msg.index) {
			stalls = 0;
			in_flight -= in_flight ? 1 : 0;
			rc = take_chunk(in, &m->msg, err);
		}
		if (m)
			wire_link_msg_free(m);
	}
	return rc;
}

/* ---- the ledger, before the pages: one piece after the other ---- */

static int take_piece(struct shell_image_in *in, const struct wire_msg *m, struct wire_file *f, uint32_t number, struct wire_err *err)
{
	const uint8_t *bytes;
	int rc;

	if (m->flags & WIRE_MSG_REJECT)
		return wire_fail(err, WIRE_CLOSED, "%s", m->text);
	more_time(in);
	rc = snap_piece_get(m->data, m->data_len, in->info.beside_bytes, number, &bytes, err);
	if (rc)
		return rc;
	return in->env->write(in->env->ctx, f, bytes, snap_piece_bytes(in->info.beside_bytes, number), (uint64_t)number * SNAP_PIECE_BYTES, err);
}

static int fetch_piece(struct shell_image_in *in, struct wire_file *f, uint32_t number, struct wire_err *err)
{
	const struct wire_msg q = { .type = WIRE_MSG_IMAGE_GET, .corr = in->corr, .hint = number };
	unsigned stalls = 0;
	bool done = false;
	int rc = WIRE_OK;

	in->send(in->ctx, &q);
	while (!rc && !done) {
		struct wire_link_msg *m = NULL;

		rc = in->receive(in->ctx, STALL_MS, &m, err);
		if (!m && !rc) {
			if (++stalls == 4)
				return wire_fail(err, WIRE_CLOSED, "the sender of the image fell silent");
			in->send(in->ctx, &q);
		} else if (m && !rc && m->msg.type == WIRE_MSG_IMAGE_CHUNK && m->msg.corr == in->corr && !m->msg.index && m->msg.hint == number) {
			rc = take_piece(in, &m->msg, f, number, err);
			done = !rc;
		}
		if (m)
			wire_link_msg_free(m);
	}
	return rc;
}

static void ledger_path(const struct shell_image_in *in, char dst[PATH_MAX + 8])
{
	snprintf(dst, PATH_MAX + 8, "%s.in", in->paths->ledger);
}

static int fetch_ledger(struct shell_image_in *in, struct wire_err *err)
{
	char path[PATH_MAX + 8];
	struct wire_file *f;
	int rc;

	ledger_path(in, path);
	rc = in->env->open(in->env->ctx, path, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &f, err);
	if (rc)
		return rc;
	rc = in->env->truncate(in->env->ctx, f, 0, err);
	for (uint32_t i = 0; !rc && snap_piece_bytes(in->info.beside_bytes, i); i++)
		rc = fetch_piece(in, f, i, err);
	if (!rc)
		rc = in->env->sync(in->env->ctx, f, err);
	in->env->close(in->env->ctx, f);
	return rc;
}

int shell_image_fetch(struct shell_image_in *in, struct wire_err *err)
{
	unsigned opens = 0;
	int rc;

	/* The deadline moves with every chunk that arrives: where each image breaks off at the same page it would do so for ever. */
	more_time(in);
	do {
		rc = open_image(in, err);
		if (!rc)
			rc = fetch_ledger(in, err);
		if (!rc)
			rc = fetch_chunks(in, err);
		if (rc == WIRE_CLOSED && in->refused)
			(void)in->refused(in->ctx, err ? err->text : "");
	} while (rc == WIRE_CLOSED && ++opens < OPENS_MAX && now_us(in) < in->deadline_us);
	if (!rc) {
		struct wire_msg q = { .type = WIRE_MSG_IMAGE_CLOSE, .corr = in->corr };

		in->send(in->ctx, &q);
	}
	return rc;
}

/* --- installing --- */

/* Without their database they mean nothing; beside another one they would be taken for its own. */
static void remove_orphans(const struct wire_env *env, const struct shell_paths *paths)
{
	static const char *const suffixes[] = { "-wal", "-shm", "-journal" };
	char path[PATH_MAX + 16];

	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		snprintf(path, sizeof path, "%s%s", paths->db, suffixes[i]);
		(void)env->unlink(env->ctx, path, NULL);
	}
}

/* A WAL or journal without its database may hold what somebody still wants: theirs to remove. */
int shell_image_refuse_orphans(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	static const char *const suffixes[] = { "-wal", "-journal" };
	char path[PATH_MAX + 16];
	struct stat st;

	(void)env;
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		snprintf(path, sizeof path, "%s%s", paths->db, suffixes[i]);
		if (!stat(path, &st) && st.st_size)
			return wire_fail(err, WIRE_EXISTS, "%s is left from a database that is not there any more, and may hold its last transactions: move it to where that database is, or remove it, then try again", path);
	}
	return WIRE_OK;
}

bool shell_image_is_ours(const struct wire_env *env, const struct shell_paths *paths)
{
	struct stat st;
	char *text, want[64];
	size_t len;
	bool same;

	if (wire_env_slurp(env, paths->installing, 256, &text, &len, NULL))
		return false;
	same = !stat(paths->db, &st);
	if (same) {
		snprintf(want, sizeof want, INSTALLING, (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
		same = !strcmp(text, want);
	}
	free(text);
	return same;
}

bool shell_image_undo(const struct wire_env *env, const struct shell_paths *paths)
{
	if (!shell_image_is_ours(env, paths))
		return false;
	/* While the marker is there the file is known to be ours. */
	(void)env->unlink(env->ctx, paths->db, NULL);
	(void)env->unlink(env->ctx, paths->installing, NULL);
	return true;
}

static int appeared(const struct shell_image_in *in, struct wire_err *err)
{
	return wire_fail(err, WIRE_EXISTS, "%s appeared meanwhile; move it away, then try again", in->paths->db);
}

/* Whole, and not behind the pages. */
static int check_ledger(const struct shell_image_in *in, const char *path, struct wire_err *err)
{
	struct shell_ledger_state st;
	struct shell_ledger *l;
	uint64_t cut;
	int rc = shell_ledger_open(in->env, path, in->group, &l, &cut, err);

	if (rc)
		return rc;
	shell_ledger_state(l, &st);
	shell_ledger_free(l);
	if (cut || st.index < in->info.index)
		return wire_fail(err, WIRE_CORRUPT, "the ledger of the image is of entry %llu, its pages are of entry %llu", (unsigned long long)st.index, (unsigned long long)in->info.index);
	return WIRE_OK;
}

static int install_ledger(struct shell_image_in *in, struct wire_err *err)
{
	char path[PATH_MAX + 8];
	int rc;

	ledger_path(in, path);
	rc = check_ledger(in, path, err);
	if (!rc)
		rc = in->env->rename(in->env->ctx, path, in->paths->ledger, err);
	if (!rc)
		rc = in->env->sync_dir(in->env->ctx, in->paths->dir, err);
	return rc;
}

/* A database of the same name must not be replaced, whoever made it meanwhile. */
int shell_image_install(struct shell_image_in *in, struct wire_err *err)
{
	struct vfs_pages_flush *flush;
	char mark_text[64];
	struct stat st;
	int rc = access(in->paths->db, F_OK) ? shell_image_refuse_orphans(in->env, in->paths, err) : appeared(in, err);

	if (rc)
		return rc;
	/* From here to the end this file is ours under its final name too, and may be replaced. */
	if (stat(in->paths->image, &st))
		return wire_fail_errno(err, errno, "cannot look at %s", in->paths->image);
	snprintf(mark_text, sizeof mark_text, INSTALLING, (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	rc = wire_env_replace(in->env, in->paths->installing, mark_text, strlen(mark_text), err);
	if (rc)
		return rc;
	remove_orphans(in->env, in->paths);
	rc = snap_recv_finish(in->recv, in->paths->db, err);
	in->recv = NULL;
	if (rc == WIRE_EXISTS)
		rc = appeared(in, err);
	if (rc) /* the file is gone, and its inode may be another's next */
		(void)in->env->unlink(in->env->ctx, in->paths->installing, NULL);
	else
		rc = vfs_pages_flush_begin(in->pages, in->info.index, &flush, err);
	if (!rc)
		rc = vfs_pages_flush_write(flush, in->env, in->paths->pages, err);
	if (!rc)
		rc = install_ledger(in, err);
	return rc;
}

void shell_image_installed(struct shell_image_in *in)
{
	(void)in->env->unlink(in->env->ctx, in->paths->installing, NULL);
}
