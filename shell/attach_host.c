/* The host's side of attached processes: a connection of node.sock that began with `attach`, on a thread of its own. What stands behind it, a ticket or the write lock and the
 * frames of a transaction, is a proxy's (vfs/proxy.h), and goes with the connection: whoever dies, frees it. One that stops in a transaction keeps it, like a
 * stopped writer in SQLite; one that stops in the middle of a message is cut off. */
#include "shell/attach_msg.h"
#include "shell/node_impl.h"
#include "vfs/proxy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PEERS_MAX 1000u
#define STACK_BYTES (512u << 10)
#define DRAIN_S 1            /* for what is under way when the node ends */
#define STALL_MS 10000u      /* for one message to come, or to be taken */
#define SLEEP_MAX_US 100000u /* who has died is found out after that */

struct node_peer {
	struct node_peer *next;
	struct shell_node *n;
	pthread_t thread;
	struct attach_link link;
	int fd; /* the link's, for shutting it down */
	bool ended; /* attach_mu */
	bool watches;
	struct vfs_proxy *proxy; /* NULL: nothing was written yet */
};

/* ---- what is shown ---- */

int node_show(struct shell_node *n, struct wire_err *err)
{
	int rc = shell_shared_host(n->env, n->paths.shared, &n->shown, &n->marks, err);

	if (!rc)
		n->lease = &n->shown->lease;
	return rc;
}

void node_unshow(struct shell_node *n)
{
	n->lease = &n->own_lease;
	if (n->shown) {
		atomic_store(&n->shown->pub.owner, 0);
		shell_shared_unmap(n->shown);
	}
	n->shown = NULL;
	n->marks = NULL;
}

void node_grants_void(struct shell_node *n)
{
	if (n->shown)
		atomic_fetch_add(&n->shown->voided, 1);
}

void node_show_voters(struct shell_node *n)
{
	if (n->shown)
		atomic_store(&n->shown->several_voters, node_several_voters(n));
}

void node_show_alive(struct shell_node *n)
{
	if (n->shown)
		atomic_store_explicit(&n->shown->alive_us, node_now_us(n), memory_order_relaxed);
}

/* ---- answers ---- */

static void put_fail(struct attach_link *l, int code, const char *text)
{
	size_t at = attach_begin(l, ATTACH_FAIL);

	wire_put_u32(&l->out, (uint32_t)code);
	wire_put_text(&l->out, text);
	attach_end(l, at);
}

static bool handle_lock(struct node_peer *p, struct wire_in *in)
{
	struct attach_link *l = &p->link;
	uint32_t flags = wire_get_u32(in), timeout_ms = wire_get_u32(in);
	uint64_t voided = atomic_load(&p->n->shown->voided); /* before the grant, so that nothing is missed */
	struct wire_err err = { 0 };
	struct vfs_proxy_grant g;
	int rc = WIRE_OK;
	size_t at;

	if (!attach_is_whole(in))
		return false;
	if (!p->proxy && !(p->proxy = vfs_proxy_new(p->n->db)))
		rc = wire_fail(&err, WIRE_NOMEM, "no memory in the process that hosts the node");
	if (!rc)
		rc = vfs_proxy_lock(p->proxy, flags, timeout_ms, &g, &err);
	if (rc) {
		put_fail(l, rc, err.text);
		return true;
	}
	at = attach_begin(l, ATTACH_GRANT);
	wire_put_u64(&l->out, g.grant.epoch);
	wire_put_bytes(&l->out, g.grant.txid, VFS_TXID_BYTES);
	wire_put_u8(&l->out, g.grant.fresh);
	wire_put_u64(&l->out, g.sequence);
	wire_put_u64(&l->out, voided);
	attach_put_header(&l->out, &g.base);
	attach_end(l, at);
	return true;
}

static bool handle_sleep(struct node_peer *p, struct wire_in *in)
{
	uint32_t us = wire_get_u32(in), slept = 0;
	size_t at;

	if (!attach_is_whole(in))
		return false;
	if (p->proxy)
		slept = vfs_proxy_sleep(p->proxy, us < SLEEP_MAX_US ? us : SLEEP_MAX_US);
	at = attach_begin(&p->link, ATTACH_DONE);
	wire_put_u32(&p->link.out, slept);
	attach_end(&p->link, at);
	return true;
}

static bool handle_unlock(struct node_peer *p, struct wire_in *in)
{
	bool keep = wire_get_u8(in);

	if (!attach_is_whole(in))
		return false;
	if (p->proxy)
		vfs_proxy_unlock(p->proxy, keep);
	return true;
}

static bool handle_gate(struct node_peer *p, struct wire_in *in)
{
	const struct vfs_node_ops *ops = vfs_db_ops(p->n->db);
	struct vfs_read_want want = { .level = (enum vfs_read_level)wire_get_u8(in) };
	uint32_t timeout_ms;
	struct wire_err err = { 0 };
	bool waited;
	size_t at;
	int rc;

	want.bound_ms = wire_get_u32(in);
	timeout_ms = wire_get_u32(in);
	if (!attach_is_whole(in) || want.level > VFS_READ_STALE)
		return false;
	rc = ops->read_gate(ops->ctx, &want, timeout_ms, &waited, &err);
	if (rc) {
		put_fail(&p->link, rc, err.text);
		return true;
	}
	at = attach_begin(&p->link, ATTACH_DONE);
	wire_put_u8(&p->link.out, waited);
	attach_end(&p->link, at);
	return true;
}

static bool handle_wait(struct node_peer *p, struct wire_in *in)
{
	const struct vfs_node_ops *ops = vfs_db_ops(p->n->db);
	uint64_t index = wire_get_u64(in);
	uint32_t timeout_ms = wire_get_u32(in);
	struct wire_err err = { 0 };
	int rc;

	if (!attach_is_whole(in))
		return false;
	rc = ops->wait_published(ops->ctx, index, timeout_ms, &err);
	if (rc)
		put_fail(&p->link, rc, err.text);
	else
		attach_end(&p->link, attach_begin(&p->link, ATTACH_DONE));
	return true;
}

static bool handle_valid(struct node_peer *p, struct wire_in *in)
{
	const struct vfs_node_ops *ops = vfs_db_ops(p->n->db);
	uint64_t epoch = wire_get_u64(in), voided = atomic_load(&p->n->shown->voided);
	size_t at;

	if (!attach_is_whole(in))
		return false;
	at = attach_begin(&p->link, ATTACH_DONE);
	wire_put_u8(&p->link.out, ops->epoch_valid(ops->ctx, epoch));
	wire_put_u64(&p->link.out, voided);
	attach_end(&p->link, at);
	return true;
}

static bool handle_leader(struct node_peer *p, struct wire_in *in)
{
	char url[RAFT_URL_MAX + 1];
	size_t at;

	if (!attach_is_whole(in))
		return false;
	shell_node_leader_url(p->n, url, sizeof url);
	at = attach_begin(&p->link, ATTACH_DONE);
	wire_put_text(&p->link.out, url);
	attach_end(&p->link, at);
	return true;
}

static bool handle_status(struct node_peer *p, struct wire_in *in)
{
	struct wire_buf *b = &p->link.out;
	struct vfs_db_status s;
	size_t at;

	if (!attach_is_whole(in))
		return false;
	vfs_db_status(p->n->db, &s);
	at = attach_begin(&p->link, ATTACH_DONE);
	wire_put_u64(b, s.index);
	wire_put_u64(b, s.checksum);
	wire_put_u32(b, s.db_pages);
	wire_put_u32(b, s.page_size);
	wire_put_u32(b, s.wal_frames);
	wire_put_u32(b, s.backfilled);
	wire_put_u64(b, s.publications);
	wire_put_u64(b, s.restarts);
	wire_put_u64(b, s.checkpoints);
	attach_end(&p->link, at);
	return true;
}

static bool handle_frames(struct node_peer *p, struct wire_in *in)
{
	uint64_t at = wire_get_u64(in);
	size_t n = wire_in_left(in);
	const uint8_t *bytes = wire_get_bytes(in, n);

	if (!attach_is_whole(in) || !bytes || !n)
		return false;
	if (p->proxy)
		vfs_proxy_frames(p->proxy, at, bytes, (uint32_t)n);
	return true;
}

static bool handle_commit(struct node_peer *p, struct wire_in *in)
{
	struct wire_buf *b = &p->link.out;
	struct vfs_remote_commit c = { .epoch = wire_get_u64(in) };
	struct vfs_remote_result r;
	size_t at;

	c.sequence = wire_get_u64(in);
	c.n_frames = wire_get_u32(in);
	c.db_after = wire_get_u32(in);
	c.timeout_ms = wire_get_u32(in);
	c.rewritten = wire_get_u8(in);
	c.bytes = wire_get_u64(in);
	attach_get_header(in, &c.base);
	attach_get_step(in, &c.once);
	if (!attach_is_whole(in) || !p->proxy)
		return false;
	vfs_proxy_commit(p->proxy, &c, &r);
	at = attach_begin(&p->link, ATTACH_COMMITTED);
	wire_put_u32(b, (uint32_t)r.code);
	wire_put_text(b, r.text);
	wire_put_u8(b, r.mended);
	wire_put_u64(b, r.index);
	attach_put_header(b, &r.after);
	attach_end(&p->link, at);
	return true;
}

static bool handle_step(struct node_peer *p, struct wire_in *in)
{
	const struct vfs_node_ops *ops = vfs_db_ops(p->n->db);
	struct vfs_once once = { 0 };
	struct vfs_step step;
	struct wire_err err = { 0 };
	size_t at;
	int rc;

	attach_get_step(in, &once);
	if (!attach_is_whole(in) || !once.id_len)
		return false;
	rc = ops->step_of(ops->ctx, &once, &step, &err);
	if (rc) {
		put_fail(&p->link, rc, err.text);
		return true;
	}
	at = attach_begin(&p->link, ATTACH_DONE);
	wire_put_u64(&p->link.out, step.seq);
	wire_put_u64(&p->link.out, step.index);
	attach_end(&p->link, at);
	return true;
}

static bool handle_outcome(struct node_peer *p, struct wire_in *in)
{
	const struct vfs_node_ops *ops = vfs_db_ops(p->n->db);
	const uint8_t *txid = wire_get_bytes(in, VFS_TXID_BYTES);
	uint32_t timeout_ms = wire_get_u32(in);
	struct wire_err err = { 0 };
	uint64_t index;
	size_t at;
	int rc;

	if (!attach_is_whole(in))
		return false;
	rc = ops->outcome(ops->ctx, txid, timeout_ms, &index, &err);
	if (rc) {
		put_fail(&p->link, rc, err.text);
		return true;
	}
	at = attach_begin(&p->link, ATTACH_DONE);
	wire_put_u64(&p->link.out, index);
	attach_end(&p->link, at);
	return true;
}

/* False: that was no question. */
static bool handle(struct node_peer *p, enum attach_type type, struct wire_in *in)
{
	switch (type) {
	case ATTACH_LOCK: return handle_lock(p, in);
	case ATTACH_SLEEP: return handle_sleep(p, in);
	case ATTACH_UNLOCK: return handle_unlock(p, in);
	case ATTACH_GATE: return handle_gate(p, in);
	case ATTACH_WAIT: return handle_wait(p, in);
	case ATTACH_STEP: return handle_step(p, in);
	case ATTACH_OUTCOME: return handle_outcome(p, in);
	case ATTACH_VALID: return handle_valid(p, in);
	case ATTACH_LEADER: return handle_leader(p, in);
	case ATTACH_STATUS: return handle_status(p, in);
	case ATTACH_FRAMES: return handle_frames(p, in);
	case ATTACH_COMMIT: return handle_commit(p, in);
	default: return false;
	}
}

/* ---- connections ---- */

/* Who watches gets the locks of -shm as well: so they are there for as long as anybody is who could be the next host. */
static int put_hello(struct node_peer *p)
{
	struct attach_link *l = &p->link;
	size_t at = attach_begin(l, ATTACH_HELLO);
	int lock_fd = p->watches ? vfs_db_lock_fd(p->n->db, true) : -1;

	wire_put_u64(&l->out, atomic_load(&p->n->shown->pub.owner));
	wire_put_u32(&l->out, vfs_db_page_size(p->n->db));
	wire_put_u64(&l->out, atomic_load(&p->n->shown->clock));
	attach_end(l, at);
	return attach_send_fd(l, lock_fd, STALL_MS, NULL);
}

static void *peer_main(void *arg)
{
	struct node_peer *p = arg;
	struct shell_node *n = p->n;
	enum attach_type type;
	struct wire_in in;
	int rc = put_hello(p);

	while (!rc && !(rc = attach_receive(&p->link, 0, STALL_MS, &type, &in, NULL)) && handle(p, type, &in)) {
		if (p->link.out.len || p->link.out.failed)
			rc = attach_send(&p->link, STALL_MS, NULL);
	}
	vfs_proxy_free(p->proxy);
	p->proxy = NULL;
	pthread_mutex_lock(&n->attach_mu);
	attach_link_close(&p->link); /* under it: node_attach_close shuts down no other file of that number */
	p->ended = true;
	n->n_peers--;
	pthread_cond_broadcast(&n->attach_left);
	pthread_mutex_unlock(&n->attach_mu);
	return NULL;
}

/* Joins the threads of those that have ended. */
static void reap(struct shell_node *n)
{
	struct node_peer *ended = NULL;

	pthread_mutex_lock(&n->attach_mu);
	for (struct node_peer **at = &n->peers, *p; (p = *at);) {
		if (!p->ended) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		p->next = ended;
		ended = p;
	}
	pthread_mutex_unlock(&n->attach_mu);
	for (struct node_peer *p = ended, *next; p; p = next) {
		next = p->next;
		pthread_join(p->thread, NULL);
		free(p);
	}
}

static int start_peer(struct shell_node *n, int fd, bool watches, struct wire_err *err)
{
	struct node_peer *p = calloc(1, sizeof *p);
	pthread_attr_t attr;
	int e;

	if (!p || !attach_link_init(&p->link, fd)) {
		free(p);
		return wire_fail(err, WIRE_NOMEM, "no memory in the process that hosts the node");
	}
	p->n = n;
	p->fd = fd;
	p->watches = watches;
	pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_mutex_lock(&n->attach_mu);
	e = pthread_create(&p->thread, &attr, peer_main, p);
	if (!e) {
		p->next = n->peers;
		n->peers = p;
		n->n_peers++;
	}
	pthread_mutex_unlock(&n->attach_mu);
	pthread_attr_destroy(&attr);
	if (!e)
		return WIRE_OK;
	p->link.fd = -1; /* the caller's */
	attach_link_close(&p->link);
	free(p);
	return wire_fail_errno(err, e, "the process that hosts the node cannot start a thread");
}

void node_attach_serve(struct shell_node *n, int fd, const char *line)
{
	struct wire_err err = { 0 };
	struct attach_link l;
	unsigned peers;
	bool closing, watches = strcmp(line, ATTACH_WATCH_LINE) == 0;
	int rc;

	reap(n);
	pthread_mutex_lock(&n->attach_mu);
	peers = n->n_peers;
	closing = n->attach_closed;
	pthread_mutex_unlock(&n->attach_mu);
	if (strcmp(line, ATTACH_LINE) != 0 && !watches)
		rc = wire_fail(&err, WIRE_VERSION, "the process that hosts the node of %s runs another version of walraft: use the same one in all processes", n->paths.db);
	else if (n->store->witness)
		rc = wire_fail(&err, WIRE_UNSUPPORTED, "%s is a witness's: it has no database", n->paths.db);
	else if (closing || !n->db || !n->shown)
		rc = wire_fail(&err, WIRE_BUSY, "the node of %s is starting or ending", n->paths.db);
	else if (peers >= PEERS_MAX)
		rc = wire_fail(&err, WIRE_FULL, "the process that hosts the node of %s has %u connections of other processes already, which is the limit: close some", n->paths.db, peers);
	else
		rc = start_peer(n, fd, watches, &err);
	if (!rc)
		return;
	if (attach_link_init(&l, fd)) {
		put_fail(&l, rc, err.text);
		(void)attach_send(&l, 1000, NULL);
		attach_link_close(&l);
	} else {
		close(fd);
	}
}

void node_attach_after_fork(struct shell_node *n)
{
	for (struct node_peer *p = n->peers; p; p = p->next)
		if (p->link.fd >= 0)
			close(p->link.fd);
}

void node_attach_drain(struct shell_node *n)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += DRAIN_S;
	pthread_mutex_lock(&n->attach_mu);
	n->attach_closed = true;
	for (struct node_peer *p = n->peers; p; p = p->next) {
		n->attach_relied_on |= !p->ended && p->watches;
		if (!p->ended)
			(void)shutdown(p->fd, SHUT_RD);
	}
	while (n->n_peers && pthread_cond_timedwait(&n->attach_left, &n->attach_mu, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&n->attach_mu);
}

void node_attach_close(struct shell_node *n)
{
	pthread_mutex_lock(&n->attach_mu);
	n->attach_closed = true;
	n->attach_relied_on |= n->keep_lock;
	for (struct node_peer *p = n->peers; p; p = p->next) {
		n->attach_relied_on |= !p->ended && p->watches;
		if (!p->ended)
			(void)shutdown(p->fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&n->attach_mu);
	if (n->db)
		(void)vfs_db_lock_fd(n->db, n->attach_relied_on); /* the locks of -shm stay with whoever may be the next host */
	for (;;) {
		struct node_peer *p;

		pthread_mutex_lock(&n->attach_mu);
		p = n->peers;
		n->peers = p ? p->next : NULL;
		pthread_mutex_unlock(&n->attach_mu);
		if (!p)
			return;
		pthread_join(p->thread, NULL);
		free(p);
	}
}
