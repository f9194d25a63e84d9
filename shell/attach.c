#include "shell/attach_impl.h"
#include "shell/node_impl.h"
#include "vfs/attached.h"
#include "vfs/shmlock.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_MS 5000u /* a host that has no answer for so long is stopped, or stuck */
#define NO_FD (-2)
#define STACK_BYTES (256u << 10)

static pthread_mutex_t registry_mu = PTHREAD_MUTEX_INITIALIZER;
static struct shell_attached *registry;
static void (*_Atomic on_gone)(struct shell_attached *a);

void shell_attach_on_gone(void (*gone)(struct shell_attached *a))
{
	atomic_store(&on_gone, gone);
}

/* ---- connections ---- */

static int open_socket(const struct shell_paths *paths, int *ret_fd, struct wire_err *err)
{
	const struct timeval limit = { .tv_sec = CONNECT_MS / 1000 };
	struct sockaddr_un a;
	int dir_fd, fd, e = 0, rc = node_control_address(paths, &a, &dir_fd, err);

	if (rc)
		return rc == WIRE_NOTFOUND ? wire_fail(err, WIRE_CLOSED, "no process hosts the node of %s", paths->db) : rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* connect, too, waits for somebody to accept. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) || connect(fd, (struct sockaddr *)&a, sizeof a))
		e = errno;
	if (dir_fd >= 0)
		close(dir_fd);
	if (!e) {
		*ret_fd = fd;
		return WIRE_OK;
	}
	if (fd >= 0)
		close(fd);
	if (e == ENOENT || e == ECONNREFUSED || e == ECONNRESET)
		return wire_fail(err, WIRE_CLOSED, "no process hosts the node of %s", paths->db);
	if (e == EAGAIN)
		return wire_fail(err, WIRE_TIMEOUT, "the process that hosts the node of %s does not answer: it is stopped, or stuck; continue it, or kill it, and another takes over", paths->db);
	return wire_fail_errno(err, e, "cannot reach the process that hosts the node of %s", paths->db);
}

struct hello { uint64_t owner, clock; uint32_t page_size; };

/* ret_lock_fd: NULL unless it is to watch the host. -1: there is none; -2 before: none is wanted. */
static int greet(const struct shell_paths *paths, struct attach_link *l, struct hello *ret_hello, int *ret_lock_fd, struct wire_err *err)
{
	const char *line = ret_lock_fd ? ATTACH_WATCH_LINE "\n" : ATTACH_LINE "\n";
	enum attach_type type;
	struct wire_in in;
	struct hello h;
	char text[sizeof err->text];
	uint32_t code;
	int rc;

	wire_put_bytes(&l->out, line, strlen(line));
	rc = attach_send(l, CONNECT_MS, err);
	if (!rc && ret_lock_fd)
		rc = attach_receive_fd(l, CONNECT_MS, *ret_lock_fd == NO_FD ? NULL : ret_lock_fd, err);
	if (!rc)
		rc = attach_receive(l, CONNECT_MS, CONNECT_MS, &type, &in, err);
	if (rc == WIRE_TIMEOUT)
		return wire_fail(err, rc, "the process that hosts the node of %s does not answer: it is stopped, or stuck; continue it, or kill it, and another takes over", paths->db);
	if (rc == WIRE_CLOSED) /* it ended just now, or is about to */
		return wire_fail(err, rc, "the process that hosted the node of %s has ended", paths->db);
	if (!rc && type == ATTACH_FAIL) {
		code = wire_get_u32(&in);
		wire_get_text(&in, text, sizeof text);
		if (attach_is_whole(&in) && code > WIRE_OK && code < WIRE_CODE_COUNT)
			return wire_fail(err, (int)code, "%s", text);
	}
	if (!rc && type == ATTACH_HELLO) {
		h.owner = wire_get_u64(&in);
		h.page_size = wire_get_u32(&in);
		h.clock = wire_get_u64(&in);
		if (attach_is_whole(&in)) {
			*ret_hello = h;
			return WIRE_OK;
		}
	}
	return wire_fail(err, WIRE_VERSION, "the process that hosts the node of %s runs another version of walraft: use the same one in all processes", paths->db);
}

static int connect_to(const struct shell_paths *paths, struct attach_link *ret_link, struct hello *ret_hello, int *ret_lock_fd, struct wire_err *err)
{
	int fd = -1, rc = open_socket(paths, &fd, err);
	struct attach_link l;

	if (rc)
		return rc;
	if (!attach_link_init(&l, fd)) {
		close(fd);
		return wire_fail(err, WIRE_NOMEM, "no memory for attaching to the node of %s", paths->db);
	}
	rc = greet(paths, &l, ret_hello, ret_lock_fd, err);
	if (rc)
		attach_link_close(&l);
	else
		*ret_link = l;
	return rc;
}

bool attached_is_owner_there(const struct shell_attached *a)
{
	return atomic_load_explicit(&a->shared->pub.owner, memory_order_seq_cst) == a->owner;
}

int attached_gone(struct shell_attached *a, struct wire_err *err)
{
	return wire_fail(err, WIRE_CLOSED, "the process that hosted the node has ended: open %s again", a->paths.db);
}

int attached_connect(struct shell_attached *a, struct attach_link *ret_link, struct wire_err *err)
{
	struct hello h;
	struct attach_link l;
	int rc;

	if (atomic_load(&a->gone) || !attached_is_owner_there(a))
		return attached_gone(a, err);
	rc = connect_to(&a->paths, &l, &h, NULL, err);
	if (rc)
		return rc;
	if (h.owner != a->owner) {
		attach_link_close(&l);
		return attached_gone(a, err);
	}
	*ret_link = l;
	return WIRE_OK;
}

/* ---- the host's end ---- */

static void *watch_main(void *arg)
{
	struct shell_attached *a = arg;
	void (*gone)(struct shell_attached *);
	enum attach_type type;
	struct wire_in in;

	/* It says nothing on this connection, ever. */
	while (!attach_receive(&a->watch, 0, CONNECT_MS, &type, &in, NULL))
		;
	atomic_store(&a->gone, true);
	if (atomic_load(&a->closing))
		return NULL;
	vfs_db_close(a->db); /* its connections go over to what comes after it */
	a->closed = true;
	gone = atomic_load(&on_gone);
	if (gone)
		gone(a);
	return NULL;
}

static int start_watching(struct shell_attached *a, struct wire_err *err)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int e;

	sigfillset(&all);
	pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&a->watcher, &attr, watch_main, a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (e)
		return wire_fail_errno(err, e, "cannot start a thread for %s", a->paths.db);
	a->watching = true;
	return WIRE_OK;
}

/* ---- objects ---- */

static void destroy(struct shell_attached *a)
{
	atomic_store(&a->closing, true);
	if (a->watching) {
		(void)shutdown(a->watch.fd, SHUT_RDWR);
		pthread_join(a->watcher, NULL);
	}
	attach_link_close(&a->watch);
	if (a->db) {
		if (!a->closed)
			vfs_db_close(a->db);
		attached_drop_lines(a);
		vfs_db_unref(a->db); /* unmaps what is shared */
	} else {
		shell_shared_unmap(a->shared);
	}
	if (a->lock)
		vfs_shmlock_let_go(a->lock);
	a->clock.close(a->clock.ctx);
	pthread_mutex_destroy(&a->mu);
	free(a);
}

static void unmap(const struct vfs_shared *shared)
{
	shell_shared_unmap((const struct shell_shared *)(const void *)((const char *)shared - offsetof(struct shell_shared, pub)));
}

static int open_attached(struct shell_attached *a, struct wire_err *err)
{
	struct vfs_node_ops ops;
	struct hello h;
	char shm[PATH_MAX + 8];
	int lock_fd = -1, rc;

	/* One that the process has is enough: none can be closed while SQLite uses the file. */
	snprintf(shm, sizeof shm, "%s-shm", a->paths.db);
	a->lock = vfs_shmlock_hold(shm);
	if (a->lock)
		lock_fd = NO_FD;
	rc = connect_to(&a->paths, &a->watch, &h, &lock_fd, err);
	if (lock_fd >= 0 && vfs_shmlock_adopt(shm, lock_fd, &a->lock, rc ? NULL : err) && !rc)
		rc = WIRE_CLOSED;
	if (rc)
		return rc;
	a->owner = h.owner;
	a->page_size = h.page_size;
	a->same_clock = h.clock && h.clock == shell_shared_clock();
	rc = shell_shared_attach(a->paths.shared, a->owner, &a->shared, &a->marks, err);
	if (rc)
		return rc;
	attached_ops_make(a, &ops);
	struct vfs_attached_start start = { .path = a->paths.db, .shared = &a->shared->pub, .unmap = unmap, .owner = a->owner, .page_size = a->page_size, .env = a->env, .ops = &ops };
	rc = vfs_db_attach(&start, &a->db, err);
	if (rc)
		return rc;
	vfs_db_ref(a->db); /* ours, for as long as this object is there */
	return start_watching(a, err);
}

static struct shell_attached *new_attached(const struct shell_paths *paths)
{
	struct shell_attached *a = calloc(1, sizeof *a);

	if (!a)
		return NULL;
	a->paths = *paths;
	a->env = wire_env_posix();
	wire_clock_boottime(a->env, &a->clock);
	a->watch.fd = -1;
	a->refs = 1;
	pthread_mutex_init(&a->mu, NULL);
	node_cond_init(&a->given);
	return a;
}

/* registry_mu held. */
static struct shell_attached *find(const char *canonical_path)
{
	struct shell_attached *a = registry;

	while (a && (atomic_load(&a->gone) || !attached_is_owner_there(a) || strcmp(a->paths.db, canonical_path) != 0))
		a = a->next;
	return a;
}

static void after_fork_in_child(void)
{
	/* The parent's end must not outlive the parent. */
	for (struct shell_attached *a = registry; a; a = a->next) {
		if (a->watch.fd >= 0)
			close(a->watch.fd);
		for (struct attach_line *l = a->lines; l; l = l->next)
			if (l->link.fd >= 0)
				close(l->link.fd);
	}
	registry = NULL;
	pthread_mutex_init(&registry_mu, NULL);
}

static void install_handlers(void)
{
	pthread_atfork(NULL, NULL, after_fork_in_child);
}

int shell_attach(const char *path, struct shell_attached **ret_attached, struct wire_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct shell_paths *paths = malloc(sizeof *paths);
	struct shell_attached *a = NULL, *fresh = NULL;
	int rc;

	pthread_once(&once, install_handlers);
	rc = paths ? shell_paths_make(path, paths, err) : wire_fail(err, WIRE_NOMEM, "no memory for attaching to the node of %s", path);
	if (!rc) {
		pthread_mutex_lock(&registry_mu);
		a = find(paths->db);
		if (a)
			a->refs++;
		pthread_mutex_unlock(&registry_mu);
	}
	if (!rc && !a) {
		fresh = new_attached(paths);
		rc = fresh ? open_attached(fresh, err) : wire_fail(err, WIRE_NOMEM, "no memory for attaching to the node of %s", path);
	}
	if (!rc && fresh) {
		pthread_mutex_lock(&registry_mu);
		a = find(paths->db); /* another thread may have been faster */
		if (a) {
			a->refs++;
		} else {
			fresh->next = registry;
			registry = fresh;
			a = fresh;
			fresh = NULL;
		}
		pthread_mutex_unlock(&registry_mu);
	}
	if (fresh)
		destroy(fresh);
	free(paths);
	if (!rc)
		*ret_attached = a;
	return rc;
}

void shell_attached_release(struct shell_attached *a)
{
	bool last;

	pthread_mutex_lock(&registry_mu);
	last = --a->refs == 0;
	for (struct shell_attached **at = &registry; last && *at; at = &(*at)->next) {
		if (*at == a) {
			*at = a->next;
			break;
		}
	}
	pthread_mutex_unlock(&registry_mu);
	if (last)
		destroy(a);
}

struct shell_attached *shell_attached_find(const struct vfs_db *db)
{
	struct shell_attached *a;

	pthread_mutex_lock(&registry_mu);
	for (a = registry; a && a->db != db; a = a->next)
		;
	if (a)
		a->refs++;
	pthread_mutex_unlock(&registry_mu);
	return a;
}

struct vfs_db *shell_attached_db(struct shell_attached *a) { return a->db; }
const struct shell_paths *shell_attached_paths(const struct shell_attached *a) { return &a->paths; }

bool shell_attached_is_gone(const struct shell_attached *a)
{
	return atomic_load(&a->gone) || !attached_is_owner_there(a);
}
