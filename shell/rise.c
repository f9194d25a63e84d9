/* A witness becomes a full replica, in this order, and a kill leaves:
 *
 *   1. marks are held: the journal keeps all above the latest one, which is not above the image's index
 *   2. the image is fetched into image.tmp                       a witness; what is there is removed at its start
 *   3. the log reaches the image's index, committed              a witness
 *   4. `installing`, the database gets its name, `pages`         a witness; its start removes what `installing` names
 *   5. a mark in the journal: the state at the image's index     a witness; to its log a mark means nothing
 *   6. node.conf: no witness any more                            a full replica whose journal begins at or below its database, as after a join
 *   7. `installing` goes; the node is started anew
 *
 * To the core it stays a witness until the leader has changed the configuration, which it does when this node has published as much as a learner must have that
 * is to be a voter: until then nobody relies on its database, and it forgets nothing that a data voter lacks. Nothing is taken back of what it
 * voted or acknowledged: journal and identity stay. */
#include "shell/rise.h"
#include "shell/image_in.h"
#include "shell/node_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_US 200000u /* before the next member is asked */

struct rise {
	struct shell_node *n;
	bool (*stop)(void);
	uint64_t source;
	struct shell_image_in image;
};

/* --- refusing --- */

/* The value of a text in a status, "" where it is null. */
static void status_text(const char *json, const char *key, char *dst, size_t cap)
{
	const char *at = strstr(json, key);
	size_t len = at ? strcspn(at + strlen(key), "\"") : 0;

	if (at && len < cap) {
		memcpy(dst, at + strlen(key), len);
		dst[len] = 0;
	}
}

int shell_witness_refuse(const struct shell_paths *paths, struct shell_node *n, struct wire_err *err)
{
	char url[RAFT_URL_MAX + 1] = "";
	struct wire_buf b = WIRE_BUF_INIT;

	if (n) {
		shell_node_leader_url(n, url, sizeof url);
	} else if (!shell_control_ask(paths, "status", &b, NULL)) {
		b.data[b.len - 1] = 0;
		status_text((char *)b.data, "\"leader_url\":\"", url, sizeof url);
	}
	wire_buf_free(&b);
	return wire_fail(err, WIRE_UNSUPPORTED, "%s is a witness: it votes and keeps the log, but has no database. Use another member%s%s; %s", paths->db,
	                 *url ? ", for instance the leader at " : "", url, "walraft serve runs a witness, walraft promote makes it a full replica");
}

/* --- who sends the image --- */

bool shell_witness_is_rising(struct shell_node *n)
{
	const unsigned want = RAFT_VOTER | RAFT_WITNESS | RAFT_RISING;
	const struct raft_member *self;
	bool rising;

	pthread_mutex_lock(&n->mu);
	self = raft_config_find(&n->shared.config, n->conf.node);
	rising = n->store->witness && !n->failed && n->shared.config_committed && self && (self->flags & want) == want;
	pthread_mutex_unlock(&n->mu);
	return rising;
}

static bool has_database(const struct raft_member *m)
{
	return m && (m->flags & (RAFT_VOTER | RAFT_LEARNER)) && !(m->flags & RAFT_WITNESS);
}

/* The leader first, then the others in turn. */
static uint64_t next_source(struct shell_node *n, uint64_t before)
{
	const struct raft_config *c = &n->shared.config;
	uint64_t found = 0;
	uint32_t at = 0;

	pthread_mutex_lock(&n->mu);
	if (!before && has_database(raft_config_find(c, n->shared.leader)))
		found = n->shared.leader;
	while (at < c->n && c->m[at].id != before)
		at++;
	for (uint32_t i = 1; i <= c->n && !found; i++) {
		const struct raft_member *m = &c->m[(at + i) % c->n];

		if (has_database(m) && m->id != n->conf.node)
			found = m->id;
	}
	pthread_mutex_unlock(&n->mu);
	return found;
}

static int check_stop(struct rise *r, struct wire_err *err)
{
	if (node_stopping(r->n) || (r->stop && r->stop()))
		return wire_fail(err, WIRE_BUSY, "the node is ending");
	if (!shell_witness_is_rising(r->n))
		return wire_fail(err, WIRE_BUSY, "the cluster does not want this witness to be a full replica any more");
	return WIRE_OK;
}

static void pause_us(struct shell_node *n, uint64_t us)
{
	uint64_t until = node_now_us(n) + us;

	pthread_mutex_lock(&n->mu);
	while (!n->stop && !n->failed && node_wait(n, &n->published_cond, until))
		;
	pthread_mutex_unlock(&n->mu);
}

/* --- callbacks of the fetch --- */

static void send_request(void *ctx, const struct wire_msg *q)
{
	struct rise *r = ctx;

	node_send(r->n, r->source, q);
}

static int receive(void *ctx, unsigned ms, struct wire_link_msg **ret_msg, struct wire_err *err)
{
	struct rise *r = ctx;
	struct node_witness *w = &r->n->witness;
	struct wire_link_msg *m;
	struct timespec t;
	int rc;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&r->n->image_mu);
	while (!w->inbox && pthread_cond_timedwait(&w->inbox_cond, &r->n->image_mu, &t) != ETIMEDOUT)
		;
	m = w->inbox;
	if (m) {
		w->inbox = m->next;
		w->queued--;
		if (!w->inbox)
			w->inbox_tail = &w->inbox;
	}
	pthread_mutex_unlock(&r->n->image_mu);
	rc = check_stop(r, err);
	if (rc && m)
		wire_link_msg_free(m);
	else
		*ret_msg = m;
	return rc;
}

static bool refused(void *ctx, const char *why)
{
	struct rise *r = ctx;

	shell_log(r->n, "no image from member %016llx: %s", (unsigned long long)r->source, why);
	r->source = next_source(r->n, r->source);
	pause_us(r->n, PAUSE_US);
	return true;
}

/* One that is older than what the journal may have forgotten is of no use; the next one is newer. */
static int opened(void *ctx, const struct snap_info *info, struct wire_err *err)
{
	struct rise *r = ctx;
	uint64_t mark;

	pthread_mutex_lock(&r->n->mu);
	mark = r->n->mark_index;
	pthread_mutex_unlock(&r->n->mu);
	if (info->index < mark)
		return wire_fail(err, WIRE_CLOSED, "its state of entry %llu is older than this node's log, which begins behind entry %llu", (unsigned long long)info->index,
		                 (unsigned long long)mark);
	return WIRE_OK;
}

/* --- putting it into place --- */

/* Until what is committed here reaches the image. */
static int wait_log(struct rise *r, unsigned timeout_s, struct wire_err *err)
{
	uint64_t want = r->image.info.index, at = 0, deadline = 0;
	int rc = WIRE_OK;

	for (;;) {
		uint64_t now = r->n->store->applied(r->n);

		if (now >= want)
			break;
		if (!deadline || now > at)
			deadline = node_now_us(r->n) + (uint64_t)timeout_s * 1000000;
		at = now;
		rc = check_stop(r, err);
		if (!rc && node_now_us(r->n) >= deadline)
			rc = wire_fail(err, WIRE_TIMEOUT, "the log stays at entry %llu, the image is of entry %llu", (unsigned long long)now, (unsigned long long)want);
		if (rc)
			return rc;
		pause_us(r->n, 10000);
	}
	if (raft_journal_term(r->n->journal, want) != r->image.info.term)
		return wire_fail(err, WIRE_CORRUPT, "the image of entry %llu is not of this log's entry", (unsigned long long)want);
	return WIRE_OK;
}

static int mark_image(struct rise *r, struct wire_err *err)
{
	const struct snap_info *i = &r->image.info;
	struct raft_journal_mark m = { .index = i->index, .checksum = i->checksum, .db_pages = i->pages };
	int rc = raft_journal_append_mark(r->n->journal, &m, err);

	return rc ? rc : raft_journal_sync(r->n->journal, err);
}

static int install(struct rise *r, struct wire_err *err)
{
	struct shell_conf conf = r->n->conf;
	int rc = shell_image_install(&r->image, err);

	if (!rc)
		rc = mark_image(r, err);
	if (!rc)
		rc = r->n->env->sync_dir(r->n->env->ctx, r->n->paths.dir, err);
	if (rc) {
		(void)shell_image_undo(r->n->env, &r->n->paths);
		return rc;
	}
	conf.witness = false;
	conf.keep_log_bytes = conf.promote_after_s = 0;
	rc = shell_conf_write(r->n->env, &r->n->paths, &conf, err);
	if (!rc)
		shell_image_installed(&r->image);
	else /* it may say the one or the other: the next start reads which */
		node_fail(r->n, "%s", err->text);
	return rc;
}

static void hold(struct shell_node *n, bool on)
{
	pthread_mutex_lock(&n->witness.mark_mu);
	n->witness.hold = on;
	pthread_mutex_unlock(&n->witness.mark_mu);
	pthread_mutex_lock(&n->image_mu);
	n->witness.fetching = on;
	if (!on)
		node_witness_drop(n);
	pthread_mutex_unlock(&n->image_mu);
}

/* A program without walraft that opens the name of a witness's database for a look makes an empty file. */
static void drop_empty(const char *db)
{
	struct stat st;

	if (!lstat(db, &st) && S_ISREG(st.st_mode) && !st.st_size)
		unlink(db);
}

int shell_witness_rise(struct shell_node *n, unsigned timeout_s, bool (*stop)(void), struct wire_err *err)
{
	struct rise *r = calloc(1, sizeof *r);
	int rc;

	if (!r)
		return wire_fail(err, WIRE_NOMEM, "no memory for an image");
	*r = (struct rise){ .n = n, .stop = stop, .source = next_source(n, 0) };
	r->image = (struct shell_image_in){
		.env = n->env, .paths = &n->paths, .group = n->conf.group, .timeout_s = timeout_s, .ctx = r, .send = send_request,
		.receive = receive, .refused = refused, .opened = opened,
	};
	hold(n, true);
	drop_empty(n->paths.db);
	rc = access(n->paths.db, F_OK) ? WIRE_OK : wire_fail(err, WIRE_EXISTS, "%s is there, where the database of this node has to be; move it away", n->paths.db);
	if (!rc)
		rc = shell_image_fetch(&r->image, err);
	if (!rc)
		rc = wait_log(r, timeout_s, err);
	if (!rc)
		rc = install(r, err);
	shell_image_drop(&r->image);
	/* From node.conf's change on a mark of the log's kind would be taken for one of the database. */
	if (rc)
		hold(n, false);
	free(r);
	return rc;
}
