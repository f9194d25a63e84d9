/* Start, failure and end of a node. */
#include "shell/node_impl.h"
#include "vfs/shmlock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void (*_Atomic log_line)(const char *text);

void shell_log_to(void (*line)(const char *text))
{
	atomic_store(&log_line, line);
}

void shell_log(const struct shell_node *n, const char *fmt, ...)
{
	void (*line)(const char *) = atomic_load(&log_line);
	char text[1024];
	int len;
	va_list ap;

	if (!line)
		return;
	len = snprintf(text, sizeof text, "%s: ", n->paths.db);
	if (len < 0 || (size_t)len >= sizeof text)
		len = 0;
	va_start(ap, fmt);
	vsnprintf(text + len, sizeof text - (size_t)len, fmt, ap);
	va_end(ap);
	line(text);
}

uint64_t node_now_us(const struct shell_node *n)
{
	return n->env->now_ns(n->env->ctx) / 1000;
}

void node_fail(struct shell_node *n, const char *fmt, ...)
{
	va_list ap;
	bool first;

	pthread_mutex_lock(&n->mu);
	first = !n->failed;
	atomic_store(&n->lease->ended, true);
	if (first) {
		va_start(ap, fmt);
		vsnprintf(n->failure, sizeof n->failure, fmt, ap);
		va_end(ap);
		n->failed = true;
		node_grants_void(n);
	}
	pthread_cond_broadcast(&n->wake);
	pthread_cond_broadcast(&n->publish_wake);
	pthread_cond_broadcast(&n->published_cond);
	pthread_cond_broadcast(&n->drain_wake);
	pthread_mutex_unlock(&n->mu);
	if (first)
		shell_log(n, "this node has ended its part in the cluster: %s", n->failure);
}

void shell_node_failure(struct shell_node *n, char *dst, size_t cap)
{
	pthread_mutex_lock(&n->mu);
	snprintf(dst, cap, "%s", n->failure);
	pthread_mutex_unlock(&n->mu);
}

bool node_stopping(struct shell_node *n)
{
	bool stop;

	pthread_mutex_lock(&n->mu);
	stop = n->stop || n->failed;
	pthread_mutex_unlock(&n->mu);
	return stop;
}

void node_cond_init(pthread_cond_t *c)
{
	pthread_condattr_t a;

	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(c, &a);
	pthread_condattr_destroy(&a);
}

bool node_wait(struct shell_node *n, pthread_cond_t *cond, uint64_t deadline_us)
{
	uint64_t now = node_now_us(n), left;
	struct timespec t;

	if (now >= deadline_us)
		return false;
	left = deadline_us - now;
	if (left > 60000000)
		left = 60000000; /* callers loop */
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(left / 1000000);
	t.tv_nsec += (long)(left % 1000000) * 1000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return pthread_cond_timedwait(cond, &n->mu, &t) != ETIMEDOUT || node_now_us(n) < deadline_us;
}

void node_published(struct shell_node *n)
{
	pthread_mutex_lock(&n->mu);
	pthread_cond_broadcast(&n->published_cond);
	pthread_mutex_unlock(&n->mu);
	node_grants_published(n);
}

/* --- start --- */

static int open_link(struct shell_node *n, struct wire_err *err)
{
	struct wire_link_opts opts = {
		.listen_url = n->conf.listen,
		.cluster = n->conf.cluster,
		.self = n->conf.node,
		.group = n->conf.group,
		.queue_max_bytes = 12u << 20,
		.silence_ms = NODE_LINK_SILENCE_MS,
		.ctx = n,
		.on_asker_gone = node_queries_gone,
		.on_msg = node_on_msg,
		.on_peer = node_on_peer,
		.on_refused = node_on_refused,
	};
	bool loopback;
	int rc;

	if (!*n->conf.listen)
		return WIRE_OK;
	rc = wire_url_check(n->conf.listen, &loopback, err);
	if (!rc && !loopback && !n->conf.insecure)
		rc = wire_fail(err, WIRE_PERM, "%s is not a loopback address, and links are not encrypted yet: use --insecure if you accept that", n->conf.listen);
	if (!rc)
		rc = wire_link_open(&opts, &n->link, err);
	return rc;
}

static int start_thread(struct shell_node *n, pthread_t *t, void *(*run)(void *), unsigned bit, struct wire_err *err)
{
	int e = pthread_create(t, NULL, run, n);

	if (e)
		return wire_fail_errno(err, e, "cannot start a thread for %s", n->paths.db);
	n->started |= bit;
	return WIRE_OK;
}

int node_start_threads(struct shell_node *n, unsigned which, struct wire_err *err)
{
	const struct { unsigned bit; pthread_t *thread; void *(*run)(void *); } all[] = {
		{ THREAD_PUBLISHER, &n->thread_publisher, node_publisher_main }, { THREAD_CHECKPOINT, &n->thread_checkpoint, node_checkpoint_main },
		{ THREAD_UPKEEP, &n->thread_upkeep, node_upkeep_main }, { THREAD_IMAGES, &n->thread_images, node_images_main },
		{ THREAD_CONTROL, &n->thread_control, node_control_main }, { THREAD_MOVER, &n->thread_mover, node_mover_main },
		{ THREAD_NODE, &n->thread_node, node_thread_main },
	};
	int rc = WIRE_OK;

	for (size_t i = 0; i < sizeof all / sizeof *all && !rc; i++)
		if (which & ~n->started & all[i].bit)
			rc = start_thread(n, all[i].thread, all[i].run, all[i].bit, err);
	return rc;
}

/* Nothing was acknowledged that is not in the files too: whoever changed them since has seen it all. */
static bool files_have_all(const struct raft_journal_state *st)
{
	for (size_t i = 0; i < st->n_entries; i++)
		if (st->entries[i].kind == WIRE_ENTRY_DATA && st->entries[i].index > st->mark.index)
			return false;
	return true;
}

/* The host was killed, and processes that were attached to it keep its locks of -shm, so that no stock writer comes in: one of them has to go on, which they are about to. */
static int leave_to_attached(struct shell_node *n, struct wire_err *err)
{
	char shm[PATH_MAX + 8];

	snprintf(shm, sizeof shm, "%s-shm", n->paths.db);
	if (!vfs_shmlock_is_elsewhere(shm))
		return WIRE_OK;
	wire_fail(err, WIRE_BUSY, "the process that hosted the node of %s has ended, and another one that uses the database by walraft is to go on as its host; it does not: is it stopped?", n->paths.db);
	if (err)
		err->sys = EWOULDBLOCK;
	return WIRE_BUSY;
}

int node_start(struct shell_node *n, struct wire_err *err)
{
	struct raft_journal_state st;
	bool whole;
	int rc = shell_lock_take(&n->paths, &n->lock_fd, err);

	if (!rc)
		rc = leave_to_attached(n, err);
	/* Another process may have changed it before it gave up the lock: given the node an address, or detached the database. */
	if (!rc)
		rc = shell_conf_read(n->env, &n->paths, &n->conf, err);
	n->store = n->conf.witness ? &node_store_witness : &node_store_database;
	if (!rc && !n->conf.witness)
		rc = node_show(n, err);
	if (!rc)
		rc = node_journal_open(n, &st, err);
	n->mark_index = rc ? 0 : st.mark.index;
	whole = !rc && files_have_all(&st);
	if (!rc)
		rc = open_link(n, err);
	/* What the journal recovered is valid until something is appended to it, which opening the database may do. */
	if (!rc)
		rc = node_driver_start(n, &st, err);
	if (!rc)
		rc = node_store_open(n, &st, err);
	if (rc == WIRE_CHANGED && !whole) /* to be decided by a person */
		rc = WIRE_CORRUPT;
	if (!rc && n->control_fd < 0)
		rc = node_control_open(n, err);
	if (!rc)
		rc = node_start_threads(n, n->store->threads | THREADS_ALWAYS, err);
	return rc;
}

struct shell_node *node_new(const struct shell_paths *paths)
{
	struct shell_node *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->events = node_events_new();
	n->queries = node_queries_new(n);
	if (!n->events || !n->queries) {
		node_events_free(n->events);
		node_queries_free(n->queries);
		free(n);
		return NULL;
	}
	n->paths = *paths;
	n->env = wire_env_posix();
	wire_clock_boottime(n->env, &n->clock);
	n->lease = &n->own_lease;
	n->lock_fd = n->control_fd = n->control_stop[0] = n->control_stop[1] = -1;
	pthread_mutex_init(&n->mu, NULL);
	pthread_mutex_init(&n->image_mu, NULL);
	pthread_mutex_init(&n->attach_mu, NULL);
	node_cond_init(&n->wake);
	node_cond_init(&n->publish_wake);
	node_cond_init(&n->published_cond);
	node_cond_init(&n->image_wake);
	node_cond_init(&n->drain_wake);
	node_cond_init(&n->attach_left);
	n->inbox_tail = &n->inbox;
	n->requests_tail = &n->requests;
	n->reads_tail = &n->reads;
	n->peer_events_tail = &n->peer_events;
	n->image_tail = &n->image_inbox;
	node_witness_init(n);
	node_forward_init(n);
	return n;
}

/* --- end --- */

void node_free(struct shell_node *n)
{
	n->clock.close(n->clock.ctx);
	node_queries_free(n->queries);
	node_events_free(n->events);
	free(n);
}

static void leave_to_heirs(struct shell_node *n)
{
	pthread_mutex_lock(&n->attach_mu);
	n->has_heirs = n->attach_relied_on || n->n_peers > 0 || n->keep_lock;
	pthread_mutex_unlock(&n->attach_mu);
	if (!n->db)
		return;
	(void)vfs_db_lock_fd(n->db, n->has_heirs);
	vfs_db_retire(n->db); /* who begins something now waits for what comes after */
}

void node_stop(struct shell_node *n)
{
	node_attach_drain(n);
	node_hand_over(n);
	leave_to_heirs(n);
	pthread_mutex_lock(&n->mu);
	n->stop = true;
	node_grants_void(n);
	atomic_store(&n->lease->ended, true);
	pthread_cond_broadcast(&n->wake);
	pthread_cond_broadcast(&n->publish_wake);
	pthread_cond_broadcast(&n->published_cond);
	pthread_cond_broadcast(&n->drain_wake);
	pthread_mutex_unlock(&n->mu);
	pthread_mutex_lock(&n->image_mu);
	pthread_cond_broadcast(&n->image_wake);
	pthread_mutex_unlock(&n->image_mu);
	node_control_close(n);
	node_attach_close(n);
	if (n->started & THREAD_NODE)
		pthread_join(n->thread_node, NULL);
	if (n->started & THREAD_MOVER)
		pthread_join(n->thread_mover, NULL);
	if (n->started & THREAD_IMAGES)
		pthread_join(n->thread_images, NULL); /* it answers over the link */
	node_queries_stop(n->queries);
	node_forward_close(n);
	if (n->link)
		wire_link_close(n->link);
	node_images_close(n);
	if (n->started & THREAD_PUBLISHER)
		pthread_join(n->thread_publisher, NULL);
	if (n->started & THREAD_CHECKPOINT)
		pthread_join(n->thread_checkpoint, NULL);
	if (n->started & THREAD_UPKEEP)
		pthread_join(n->thread_upkeep, NULL);
	node_witness_drop(n);
	if (n->store)
		n->store->close(n);
	node_driver_free(n);
	if (n->journal)
		raft_journal_close(n->journal);
	while (n->pending) {
		struct pending *p = n->pending;

		n->pending = p->next;
		free(p);
	}
	node_unshow(n);
	if (n->lock_fd >= 0 && !n->keep_lock) {
		shell_lock_release(n->lock_fd);
		n->lock_fd = -1;
	}
}
