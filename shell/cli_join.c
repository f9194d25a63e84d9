/* walraft join: a new replica. As a guest it asks to be added as a learner, fetches a consistent image while writes go on, sets up its
 * files, then starts the node and lets the leader make it a voter once it has caught up.
 *
 * node.conf says "joining" from the first step to the last file. A join that was killed is repeated with the same node id; files it left are its own
 * and are replaced. */
#include "raft/journal.h"
#include "shell/cli.h"
#include "shell/image_in.h"
#include "shell/setup.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ASK_MS 250 /* unanswered requests are repeated */
#define TELL_US 2000000u /* what takes so long is told about */
#define PEER_ID 1  /* what our link calls the peer before its real id is known */

struct join {
	const struct wire_env *env;
	struct shell_paths paths;
	struct shell_conf conf;
	struct cli_opts o;
	struct wire_link *link;
	uint64_t peer, deadline_us;
	bool voter; /* what it is in the end */
	bool again; /* an earlier join was interrupted */
	struct raft_config config;
	struct shell_image_in image;
	struct base { uint64_t index, term; } base; /* of a witness's log */

	pthread_mutex_t mu;
	pthread_cond_t cond;
	struct wire_link_msg *inbox, **tail;
	char refused[256];
};

static uint64_t now_us(const struct join *j)
{
	return j->env->now_ns(j->env->ctx) / 1000;
}

/* --- the link's side --- */

static void on_msg(void *ctx, struct wire_link_msg *m)
{
	struct join *j = ctx;

	/* The leader already sends heartbeats to its new learner; they must not look as if something was coming in. */
	if (m->msg.type != WIRE_MSG_JOIN_RESP && m->msg.type != WIRE_MSG_IMAGE_INFO && m->msg.type != WIRE_MSG_IMAGE_CHUNK) {
		wire_link_msg_free(m);
		return;
	}
	m->next = NULL;
	pthread_mutex_lock(&j->mu);
	*j->tail = m;
	j->tail = &m->next;
	pthread_cond_signal(&j->cond);
	pthread_mutex_unlock(&j->mu);
}

static void on_peer(void *ctx, uint64_t peer, bool up)
{
	(void)ctx, (void)peer, (void)up;
}

static void on_refused(void *ctx, uint64_t peer, const char *why)
{
	struct join *j = ctx;

	(void)peer;
	pthread_mutex_lock(&j->mu);
	snprintf(j->refused, sizeof j->refused, "%s", why);
	pthread_cond_signal(&j->cond);
	pthread_mutex_unlock(&j->mu);
}

/* The next message, or NULL after `ms`. */
static struct wire_link_msg *receive(struct join *j, unsigned ms)
{
	struct wire_link_msg *m;
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&j->mu);
	while (!j->inbox && !*j->refused && pthread_cond_timedwait(&j->cond, &j->mu, &t) != ETIMEDOUT)
		;
	m = j->inbox;
	if (m && !(j->inbox = m->next))
		j->tail = &j->inbox;
	pthread_mutex_unlock(&j->mu);
	return m;
}

static int check_stop(struct join *j, struct wire_err *err)
{
	int rc = cli_wait_signal(0) ? wire_fail(err, WIRE_BUSY, "interrupted; run walraft join again to finish") : WIRE_OK;

	pthread_mutex_lock(&j->mu);
	if (!rc && *j->refused)
		rc = wire_fail(err, WIRE_FOREIGN, "%s refused us: %s", j->o.peer, j->refused);
	pthread_mutex_unlock(&j->mu);
	return rc;
}

static void send(struct join *j, const struct wire_msg *q, enum wire_lane lane)
{
	struct wire_msg m = *q;

	m.from = j->conf.node;
	m.to = j->peer;
	m.group = j->conf.group;
	(void)wire_link_send(j->link, j->peer, lane, &m); /* repeated until answered */
}

/* --- being added --- */

/* Another node leads: from now on ask that one. */
static int follow_leader(struct join *j, const struct wire_msg *m, struct wire_err *err)
{
	char url[RAFT_URL_MAX + 1];

	if (!m->hint || m->data_len > RAFT_URL_MAX)
		return WIRE_OK; /* no leader yet: ask again */
	memcpy(url, m->data, m->data_len);
	url[m->data_len] = 0;
	if (j->peer == m->hint)
		return WIRE_OK;
	wire_link_remove_peer(j->link, j->peer);
	j->peer = m->hint;
	return wire_link_add_peer(j->link, j->peer, url, err);
}

static int added(struct join *j, const struct wire_msg *m, struct wire_err *err)
{
	const struct raft_member *leader;
	int rc = raft_config_get(m->data, m->data_len, &j->config, err);

	if (rc)
		return rc;
	j->base = (struct base){ .index = m->index, .term = m->log_term };
	j->conf.cluster = m->term;
	j->conf.group = m->group;
	leader = raft_config_find(&j->config, m->from);
	if (!leader || j->peer == m->from)
		return WIRE_OK;
	wire_link_remove_peer(j->link, j->peer);
	j->peer = m->from;
	return wire_link_add_peer(j->link, j->peer, leader->url, err);
}

static int open_link(struct join *j, struct wire_err *err)
{
	struct wire_link_opts opts = {
		.listen_url = j->conf.listen, .self = j->conf.node, .ctx = j, .on_msg = on_msg, .on_peer = on_peer, .on_refused = on_refused,
		.queue_max_bytes = 4u << 20,
	};

	return wire_link_open(&opts, &j->link, err);
}

/* This address was named before (walraft add): go on as that member. */
static int take_id(struct join *j, const struct wire_msg *m, struct wire_err *err)
{
	int rc;

	wire_link_close(j->link);
	j->link = NULL;
	j->conf.node = m->index;
	rc = shell_conf_write(j->env, &j->paths, &j->conf, err);
	if (!rc)
		rc = open_link(j, err);
	j->peer = PEER_ID;
	return rc ? rc : wire_link_add_peer(j->link, j->peer, j->o.peer, err);
}

static int ask_to_join(struct join *j, struct wire_err *err)
{
	uint8_t kind = j->o.witness ? RAFT_LEARNER | RAFT_WITNESS | RAFT_RISING : j->o.learner ? RAFT_LEARNER : RAFT_LEARNER | RAFT_RISING;
	struct wire_msg q = { .type = WIRE_MSG_JOIN_REQ, .hint = kind, .index = (uint64_t)(j->o.priority < 0 ? RAFT_PRIORITY : j->o.priority) };
	char last[WIRE_TEXT_MAX + 1] = "no answer";
	uint64_t tell_at = now_us(j) + TELL_US;
	int rc = WIRE_OK;
	bool done = false;

	snprintf(q.text, sizeof q.text, "%s", j->conf.listen);
	for (j->deadline_us = now_us(j) + (uint64_t)j->o.timeout_s * 1000000; !rc && !done;) {
		struct wire_link_msg *m;
		bool refused;

		if (now_us(j) >= j->deadline_us)
			return wire_fail(err, WIRE_TIMEOUT, "%s did not take this node in within %u s (%s); does its node run, and does its cluster have a leader?",
			                 j->o.peer, j->o.timeout_s, last);
		if (now_us(j) >= tell_at) {
			if (!j->o.json)
				fprintf(stderr, "waiting for %s to take this node in (%s) ...\n", j->o.peer, last);
			tell_at = now_us(j) + 5 * TELL_US;
		}
		send(j, &q, WIRE_LANE_CONTROL);
		m = receive(j, ASK_MS);
		rc = check_stop(j, err);
		if (!m || rc) {
			if (m)
				wire_link_msg_free(m);
			continue;
		}
		refused = m->msg.flags & WIRE_MSG_REJECT;
		if (m->msg.to != j->conf.node) { /* an answer to who we were before take_id */
			wire_link_msg_free(m);
			continue;
		}
		if (m->msg.type == WIRE_MSG_JOIN_RESP && refused) {
			snprintf(last, sizeof last, "%s", m->msg.text);
			if (m->msg.index)
				rc = take_id(j, &m->msg, err);
			else if (strcmp(last, "not the leader"))
				rc = wire_fail(err, WIRE_EXISTS, "%s refused to take this node in: %s", j->o.peer, last);
			else
				rc = follow_leader(j, &m->msg, err);
		} else if (m->msg.type == WIRE_MSG_JOIN_RESP) {
			rc = added(j, &m->msg, err);
			done = true;
		}
		wire_link_msg_free(m);
	}
	return rc;
}

/* --- the image --- */

static void send_for_image(void *ctx, const struct wire_msg *q)
{
	send(ctx, q, WIRE_LANE_CONTROL);
}

static int receive_image(void *ctx, unsigned ms, struct wire_link_msg **ret_msg, struct wire_err *err)
{
	struct wire_link_msg *m = receive(ctx, ms);
	int rc = check_stop(ctx, err);

	if (rc && m)
		wire_link_msg_free(m);
	else
		*ret_msg = m;
	return rc;
}

/* The configuration in force at the image's index: the journal begins with it. */
static int image_opened(void *ctx, const struct snap_info *info, struct wire_err *err)
{
	struct join *j = ctx;

	return raft_config_get(info->config, info->config_len, &j->config, err);
}

static void image_progress(void *ctx, uint64_t done, uint64_t total)
{
	(void)ctx;
	cli_progress("fetching", done, total);
}

/* A database of the same name must not be replaced, whoever made it meanwhile; one left by an interrupted join was removed at the start. */
static int install(struct join *j, struct wire_err *err)
{
	struct raft_journal_opts opts = { .group = j->conf.group, .first_bytes = SHELL_JOURNAL_FIRST_BYTES };
	const struct snap_info *info = &j->image.info;
	struct raft_journal_mark mark = { .index = info->index, .checksum = info->checksum, .db_pages = info->pages };
	int rc = shell_image_install(&j->image, err);

	if (!rc)
		rc = raft_journal_create(j->env, j->paths.journal, &opts, info->term, info->index, info->term, &j->config, &mark, err);
	if (!rc)
		rc = j->env->sync_dir(j->env->ctx, j->paths.dir, err);
	if (!rc) {
		j->conf.joining = false;
		rc = shell_conf_write(j->env, &j->paths, &j->conf, err);
	}
	if (!rc)
		shell_image_installed(&j->image);
	return rc;
}

/* Its log begins at a committed entry of the leader's; what comes behind that arrives as it does at any member. */
static int begin_log(struct join *j, struct wire_err *err)
{
	struct raft_journal_opts opts = { .group = j->conf.group, .first_bytes = SHELL_JOURNAL_FIRST_BYTES };
	struct raft_journal_mark mark = { .index = j->base.index };
	int rc = raft_journal_create(j->env, j->paths.journal, &opts, j->base.term, j->base.index, j->base.term, &j->config, &mark, err);

	if (!rc)
		rc = j->env->sync_dir(j->env->ctx, j->paths.dir, err);
	if (!rc) {
		j->conf.joining = false;
		rc = shell_conf_write(j->env, &j->paths, &j->conf, err);
	}
	return rc;
}

static int fetch(struct join *j, struct wire_err *err)
{
	int rc;

	j->image = (struct shell_image_in){
		.env = j->env, .paths = &j->paths, .group = j->conf.group, .timeout_s = j->o.timeout_s, .ctx = j, .send = send_for_image,
		.receive = receive_image, .opened = image_opened, .progress = image_progress,
	};
	rc = shell_image_fetch(&j->image, err);
	if (!rc)
		rc = install(j, err);
	shell_image_drop(&j->image);
	return rc;
}

/* --- from the first step to the last --- */

/* New, or the rest of an interrupted join. */
static int begin(struct join *j, struct wire_err *err)
{
	int rc = shell_conf_read(j->env, &j->paths, &j->conf, err);
	bool ours;

	if (!rc && !j->conf.joining)
		return wire_fail(err, WIRE_EXISTS, "%s is already set up as a replica; start it with walraft serve %s", j->paths.db, j->o.db);
	if (rc && rc != WIRE_NOTFOUND)
		return rc;
	j->again = !rc;
	ours = j->again && shell_image_is_ours(j->env, &j->paths);
	if (!ours && !access(j->paths.db, F_OK))
		return wire_fail(err, WIRE_EXISTS, "%s exists already; a replica is fetched whole: move that file away, or give another name", j->paths.db);
	rc = ours ? WIRE_OK : shell_image_refuse_orphans(j->env, &j->paths, err);
	if (rc)
		return rc;
	(void)shell_image_undo(j->env, &j->paths);
	shell_dir_clear(j->env, &j->paths);
	if (!j->again)
		j->conf = (struct shell_conf){ .node = shell_random_id(j->env) };
	j->conf.joining = true;
	j->conf.insecure = j->o.insecure;
	j->conf.witness = j->o.witness;
	j->conf.keep_log_bytes = (uint32_t)j->o.keep_log_bytes;
	j->conf.promote_after_s = (uint32_t)j->o.promote_after_s;
	snprintf(j->conf.listen, sizeof j->conf.listen, "%s", j->o.listen);
	rc = shell_dir_sync_parent(j->env, &j->paths, err);
	return rc ? rc : shell_conf_write(j->env, &j->paths, &j->conf, err);
}

static int prepare(struct join *j, int *ret_lock, struct wire_err *err)
{
	int lock, rc = shell_dir_make(j->env, &j->paths, &lock, err);

	if (rc == WIRE_BUSY && !shell_conf_read(j->env, &j->paths, &j->conf, NULL) && j->conf.joining) {
		char who[32];

		shell_lock_holder(&j->paths, who);
		return wire_fail(err, WIRE_BUSY, "process %s is just joining %s to a cluster", *who ? who : "(unknown)", j->paths.db);
	}
	if (rc)
		return rc;
	rc = begin(j, err);
	if (!rc) {
		*ret_lock = lock;
		return WIRE_OK;
	}
	if (access(j->paths.conf, F_OK))
		shell_dir_remove(j->env, &j->paths);
	shell_lock_release(lock);
	return rc;
}

static int transfer(struct join *j, struct wire_err *err)
{
	int rc = open_link(j, err);

	j->peer = PEER_ID;
	if (!rc) {
		rc = wire_link_add_peer(j->link, j->peer, j->o.peer, err);
		if (!rc)
			rc = ask_to_join(j, err);
		if (!rc)
			rc = j->o.witness ? begin_log(j, err) : fetch(j, err);
		if (j->link)
			wire_link_close(j->link);
	}
	while (j->inbox) {
		struct wire_link_msg *m = j->inbox;

		j->inbox = m->next;
		wire_link_msg_free(m);
	}
	return rc;
}

/* Until it is a voter; of a learner that stays one, until it has published what it knows to be committed. */
static int settle_in(struct join *j, struct wire_err *err)
{
	struct shell_node *n;
	struct shell_self self = { 0 };
	char failure[512] = "", refusal[256];
	uint64_t deadline = now_us(j) + (uint64_t)j->o.timeout_s * 1000000, before = 0;
	int rc = cli_sqlite_init(err);

	if (!rc)
		rc = shell_node_run(j->o.db, NULL, &n, err);
	if (rc)
		return rc;
	for (;;) {
		shell_node_self(n, &self);
		if (self.voter && self.stable)
			break;
		if (self.learner && !self.rising && self.stable && self.has_leader && self.published >= self.leader_commit)
			break;
		if (self.published > before) { /* it moves: patience */
			before = self.published;
			deadline = now_us(j) + (uint64_t)j->o.timeout_s * 1000000;
		}
		shell_node_failure(n, failure, sizeof failure);
		shell_node_promotion_refusal(n, refusal, sizeof refusal);
		if (*failure)
			rc = wire_fail(err, WIRE_IO, "%s", failure);
		else if (cli_wait_signal(50))
			rc = wire_fail(err, WIRE_CLOSED, "interrupted; the replica is a learner: walraft serve %s keeps it up, and walraft join is not needed again", j->o.db);
		else if (now_us(j) >= deadline)
			rc = wire_fail(err, WIRE_TIMEOUT, "the replica is a learner, but was not made a voter in time%s%s", *refusal ? ": " : "", refusal);
		if (rc)
			break;
	}
	j->voter = self.voter;
	shell_node_release(n);
	return rc;
}

static int join(struct join *j, struct wire_err *err)
{
	int lock = -1, rc = shell_paths_make(j->o.db, &j->paths, err);

	if (!rc)
		rc = prepare(j, &lock, err);
	if (!rc)
		rc = transfer(j, err);
	/* A node that was refused is nowhere known; one that only got no answer may be a member by now, and keeps its id. */
	if (lock >= 0 && !j->again && !j->conf.cluster && (rc == WIRE_EXISTS || rc == WIRE_FOREIGN) && access(j->paths.db, F_OK))
		shell_dir_remove(j->env, &j->paths);
	if (lock >= 0)
		shell_lock_release(lock);
	return rc ? rc : settle_in(j, err);
}

static void report(const struct join *j)
{
	const struct snap_info *i = &j->image.info;

	if (j->o.json) {
		printf("{\"path\":\"");
		cli_put_json(stdout, j->paths.db);
		printf("\",\"cluster\":\"%016" PRIx64 "\",\"node_id\":\"%016" PRIx64 "\",\"url\":\"%s\",\"kind\":\"%s\",\"voter\":%s,\"pages\":%u,\"page_size\":%u,\"index\":%" PRIu64 "}\n",
		       j->conf.cluster, j->conf.node, j->conf.listen, j->o.witness ? "witness" : "replica", j->voter ? "true" : "false", i->pages, i->page_size,
		       j->o.witness ? j->base.index : i->index);
	} else {
		printf("%s is node %016" PRIx64 " of cluster %016" PRIx64 ", and a %s.\nStart it now: walraft serve %s", j->paths.db, j->conf.node, j->conf.cluster,
		       j->o.witness ? "witness: it votes, and has no database" : j->voter ? "voter" : "learner", j->o.db);
		if (j->o.witness)
			printf("\n");
		else
			printf(", or open file:%s?vfs=walraft in a program.\n", j->o.db);
	}
}

int cli_join(int argc, char **argv)
{
	struct join *j = calloc(1, sizeof *j);
	struct wire_err err;
	int rc;

	if (!j) {
		fprintf(stderr, "walraft: out of memory\n");
		return 1;
	}
	if (cli_parse(argc, argv, "lpijtWkaLP", &j->o)) {
		free(j);
		return 2;
	}
	j->env = wire_env_posix();
	j->tail = &j->inbox;
	pthread_mutex_init(&j->mu, NULL);
	pthread_cond_init(&j->cond, NULL);
	cli_signals_block();
	rc = j->o.help ? WIRE_OK : join(j, &err);
	if (rc)
		rc = cli_fail(&j->o, &err);
	else if (!j->o.help)
		report(j);
	free(j);
	return rc;
}
