/* Serves images of the database to joining nodes, on a thread of its own: views are read chunk by chunk as they are asked for, so
 * that memory is bounded and nothing waits for a slow receiver. A view not asked for in half a minute is closed. */
#include "shell/node_impl.h"
#include "snapshot/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IMAGE_IDLE_US 30000000u
#define IMAGE_QUEUE_MAX 256u

static void reply(struct shell_node *n, const struct wire_msg *q, int type, const struct wire_buf *data, const char *refusal)
{
	struct wire_msg m = { .type = (uint8_t)type, .corr = q->corr, .index = q->index, .hint = q->hint };

	if (refusal) {
		m.flags = WIRE_MSG_REJECT;
		snprintf(m.text, sizeof m.text, "%s", refusal);
	} else {
		m.data = data->data;
		m.data_len = (uint32_t)data->len;
	}
	node_send(n, q->from, &m);
}

static void session_close(struct shell_node *n, struct image_session *s)
{
	if (s->view)
		vfs_view_close(s->view);
	if (s->ledger)
		n->env->close(n->env->ctx, s->ledger);
	memset(s, 0, sizeof *s);
}

static struct image_session *session_of(struct shell_node *n, const struct wire_msg *m)
{
	for (int i = 0; i < IMAGE_SESSIONS; i++)
		if (n->image[i].view && n->image[i].from == m->from && n->image[i].corr == m->corr)
			return &n->image[i];
	return NULL;
}

static int read_page(void *ctx, uint32_t pgno, void *dst, struct wire_err *err)
{
	return vfs_view_read(ctx, pgno, dst, err);
}

static int make_info(struct shell_node *n, const struct image_session *s, struct snap_info *ret, struct wire_err *err)
{
	const struct vfs_view_info *v = &s->info;
	struct wire_buf b = WIRE_BUF_INIT;
	struct raft_config *c = malloc(sizeof *c);
	int rc = c ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "no memory for an image");

	*ret = (struct snap_info){ .index = v->index, .checksum = v->checksum, .page_size = v->page_size, .pages = v->db_pages,
		                    .beside_bytes = s->ledger_bytes };
	if (!rc) {
		pthread_mutex_lock(&n->mu);
		*c = n->shared.config;
		if (!n->shared.config_committed)
			rc = WIRE_UNKNOWN;
		pthread_mutex_unlock(&n->mu);
		ret->term = raft_journal_term(n->journal, v->index);
		if (!rc && !ret->term)
			rc = wire_fail(err, WIRE_BUSY, "the journal was trimmed meanwhile; open the image again");
	}
	if (!rc) {
		raft_config_put(c, &b);
		if (b.failed || b.len > sizeof ret->config)
			rc = wire_fail(err, WIRE_TOOBIG, "the configuration does not fit an image");
		else
			memcpy(ret->config, b.data, ret->config_len = (uint32_t)b.len);
	}
	wire_buf_free(&b);
	free(c);
	return rc;
}

/* The view first: the ledger may be ahead of it, but not behind. */
static int session_open(struct shell_node *n, struct image_session *s, const struct wire_msg *m, struct wire_err *err)
{
	int rc;

	*s = (struct image_session){ .from = m->from, .corr = m->corr };
	rc = n->store->view_open(n, &s->view, &s->info, err);
	if (!rc)
		rc = node_ledger_copy(n, (unsigned)(s - n->image), s->info.index, &s->ledger, &s->ledger_bytes, err);
	if (!rc)
		node_tell(n->events, RAFT_TOLD_MACHINE_SNAPSHOT, m->from, s->info.index, s->info.db_pages);
	return rc;
}

static void serve_open(struct shell_node *n, const struct wire_msg *m)
{
	struct image_session *s = session_of(n, m);
	struct wire_buf b = WIRE_BUF_INIT;
	struct snap_info *info = malloc(sizeof *info);
	struct wire_err err = { .text = "out of memory" };
	int rc = info ? WIRE_OK : WIRE_NOMEM;
	bool member;

	pthread_mutex_lock(&n->mu);
	member = raft_config_find(&n->shared.config, m->from) != NULL;
	pthread_mutex_unlock(&n->mu);
	if (!rc && !member)
		rc = wire_fail(&err, WIRE_PERM, "images are for members of the cluster: ask to join first");
	for (int i = 0; i < IMAGE_SESSIONS && !s && !rc; i++)
		if (!n->image[i].view || n->image[i].from == m->from) {
			s = &n->image[i];
			session_close(n, s);
		}
	if (!s && !rc)
		rc = wire_fail(&err, WIRE_BUSY, "this node is already serving %d images; try again later", IMAGE_SESSIONS);
	if (!rc && !s->view)
		rc = session_open(n, s, m, &err);
	if (!rc)
		rc = make_info(n, s, info, &err);
	if (!rc) {
		s->used_us = node_now_us(n);
		snap_info_put(info, &b);
	} else if (s) {
		session_close(n, s);
	}
	/* The image carries the configuration, which must not be one that may be superseded: no answer then, the asker repeats itself. */
	if (rc != WIRE_UNKNOWN)
		reply(n, m, WIRE_MSG_IMAGE_INFO, &b, rc ? err.text : NULL);
	wire_buf_free(&b);
	free(info);
}

static void serve_get(struct shell_node *n, const struct wire_msg *m)
{
	struct image_session *s = session_of(n, m);
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_err err;
	struct snap_info *info;
	int rc;

	if (!s) {
		reply(n, m, WIRE_MSG_IMAGE_CHUNK, NULL, "this image is no longer open; open it again");
		return;
	}
	s->used_us = node_now_us(n);
	info = calloc(1, sizeof *info);
	rc = info ? WIRE_OK : wire_fail(&err, WIRE_NOMEM, "out of memory");
	if (!rc) {
		info->page_size = s->info.page_size;
		info->pages = s->info.db_pages;
		if (!m->index || m->index > info->pages || !m->hint || m->hint > snap_chunk_pages(info->page_size))
			rc = wire_fail(&err, WIRE_INVALID, "page range outside the image");
	}
	if (!rc)
		rc = snap_chunk_encode(&b, info, (uint32_t)m->index, (uint32_t)m->hint, read_page, s->view, &err);
	reply(n, m, WIRE_MSG_IMAGE_CHUNK, &b, rc ? err.text : NULL);
	wire_buf_free(&b);
	free(info);
}

/* A piece of the ledger: index 0, hint is its number. */
static void serve_piece(struct shell_node *n, const struct wire_msg *m)
{
	struct image_session *s = session_of(n, m);
	uint32_t number = m->hint < UINT32_MAX ? (uint32_t)m->hint : UINT32_MAX, len = s ? snap_piece_bytes(s->ledger_bytes, number) : 0;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_err err = { .text = "this image is no longer open; open it again" };
	uint8_t *bytes = len ? malloc(len) : NULL;
	size_t got = 0;
	int rc = s ? WIRE_OK : WIRE_CLOSED;

	if (!rc && !len)
		rc = wire_fail(&err, WIRE_INVALID, "there is no such piece of the ledger");
	if (!rc && !bytes)
		rc = wire_fail(&err, WIRE_NOMEM, "out of memory");
	if (!rc)
		rc = n->env->read(n->env->ctx, s->ledger, bytes, len, (uint64_t)number * SNAP_PIECE_BYTES, &got, &err);
	if (!rc && got < len)
		rc = wire_fail(&err, WIRE_CORRUPT, "the copy of the ledger has become shorter");
	if (!rc) {
		s->used_us = node_now_us(n);
		snap_piece_put(&b, number, bytes, len);
	}
	reply(n, m, WIRE_MSG_IMAGE_CHUNK, &b, rc ? err.text : b.failed ? "out of memory" : NULL);
	wire_buf_free(&b);
	free(bytes);
}

static void serve(struct shell_node *n, const struct wire_msg *m)
{
	struct image_session *s;

	switch (m->type) {
	case WIRE_MSG_IMAGE_OPEN:
		serve_open(n, m);
		break;
	case WIRE_MSG_IMAGE_GET:
		if (m->index)
			serve_get(n, m);
		else
			serve_piece(n, m);
		break;
	default:
		s = session_of(n, m);
		if (s)
			session_close(n, s);
	}
}

void node_images_queue(struct shell_node *n, struct wire_link_msg *m)
{
	pthread_mutex_lock(&n->image_mu);
	if (n->image_queued >= IMAGE_QUEUE_MAX) {
		pthread_mutex_unlock(&n->image_mu);
		wire_link_msg_free(m);
		return;
	}
	m->next = NULL;
	*n->image_tail = m;
	n->image_tail = &m->next;
	n->image_queued++;
	pthread_cond_signal(&n->image_wake);
	pthread_mutex_unlock(&n->image_mu);
}

/* The next request, or NULL after at most a second. */
static struct wire_link_msg *next_request(struct shell_node *n)
{
	struct wire_link_msg *m;
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec++;
	pthread_mutex_lock(&n->image_mu);
	if (!n->image_inbox)
		pthread_cond_timedwait(&n->image_wake, &n->image_mu, &t);
	m = n->image_inbox;
	if (m) {
		n->image_inbox = m->next;
		if (!n->image_inbox)
			n->image_tail = &n->image_inbox;
		n->image_queued--;
	}
	pthread_mutex_unlock(&n->image_mu);
	return m;
}

void *node_images_main(void *node)
{
	struct shell_node *n = node;

	while (!node_stopping(n)) {
		struct wire_link_msg *m = next_request(n);
		uint64_t now = node_now_us(n);

		if (m) {
			serve(n, &m->msg);
			wire_link_msg_free(m);
		}
		for (int i = 0; i < IMAGE_SESSIONS; i++)
			if (n->image[i].view && now > n->image[i].used_us + IMAGE_IDLE_US)
				session_close(n, &n->image[i]);
	}
	return NULL;
}

void node_images_close(struct shell_node *n)
{
	struct wire_link_msg *m;

	while ((m = n->image_inbox)) {
		n->image_inbox = m->next;
		wire_link_msg_free(m);
	}
	for (int i = 0; i < IMAGE_SESSIONS; i++)
		session_close(n, &n->image[i]);
}
