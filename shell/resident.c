#include "shell/resident.h"
#include "shell/attach.h"
#include "shell/heir.h"
#include "shell/node_impl.h"
#include "vfs/attached.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define AGAIN_MS 100u /* between attempts to find a node */

/* One for each database that this process has connections on. The thread is there from the first attachment, or the first request to yield, on. */
struct resident {
	struct resident *next;
	char *path;
	unsigned connections;
	bool may_set_up;
	struct vfs_db *hold; /* what the thread opened last; keeps a node, or an attachment, that no connection uses yet */
	pthread_t thread;
	bool running, wanted, stop;
	int yield_fd; /* -1: nobody wants it */
	pthread_cond_t wake;
};

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; /* over all of this; not held over the ops */
static struct resident *residents;
static const struct shell_resident_ops *ops;

static struct resident *find(const char *path)
{
	struct resident *r = residents;

	while (r && strcmp(r->path, path) != 0)
		r = r->next;
	return r;
}

/* ---- the thread ---- */

static void drop(struct vfs_db *db)
{
	if (!db)
		return;
	ops->close(db);
	vfs_db_unref(db);
}

/* mu held; it is let go meanwhile. */
static void settle(struct resident *r)
{
	struct vfs_db *db = NULL, *old = NULL;
	const int fd = r->yield_fd;
	bool may_set_up = r->may_set_up;
	struct shell_node *n;
	struct timespec t;
	int rc;

	r->wanted = false;
	r->yield_fd = -1;
	pthread_mutex_unlock(&mu);
	if (fd >= 0) {
		n = shell_node_find(r->path);
		if (n)
			shell_heir_yield_now(n, fd);
		else
			close(fd);
	}
	rc = ops->open(r->path, may_set_up, &db, NULL);
	pthread_mutex_lock(&mu);
	if (!rc) {
		old = r->hold;
		r->hold = db;
		r->wanted |= vfs_db_is_retired(db); /* its end may have been told before it was held */
		pthread_mutex_unlock(&mu);
		drop(old);
		pthread_mutex_lock(&mu);
		return;
	}
	/* Whatever is wrong may be over soon, and the connections tell it meanwhile to whoever uses them. */
	r->wanted = true;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += AGAIN_MS * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	while (!r->stop && r->yield_fd < 0 && pthread_cond_timedwait(&r->wake, &mu, &t) != ETIMEDOUT)
		;
}

static void *resident_main(void *arg)
{
	struct resident *r = arg;

	pthread_mutex_lock(&mu);
	while (!r->stop) {
		if (r->wanted)
			settle(r);
		else
			pthread_cond_wait(&r->wake, &mu);
	}
	pthread_mutex_unlock(&mu);
	return NULL;
}

/* mu held. */
static int start(struct resident *r, struct wire_err *err)
{
	sigset_t all, before;
	int e;

	if (r->running)
		return WIRE_OK;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* the host's signals stay the host's */
	e = pthread_create(&r->thread, NULL, resident_main, r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e)
		return wire_fail_errno(err, e, "cannot start a thread for %s", r->path);
	r->running = true;
	return WIRE_OK;
}

static void tell(const char *path)
{
	struct resident *r;

	pthread_mutex_lock(&mu);
	r = find(path);
	if (r && r->running) {
		r->wanted = true;
		pthread_cond_signal(&r->wake);
	}
	pthread_mutex_unlock(&mu);
}

static void gone(struct shell_attached *a)
{
	tell(shell_attached_paths(a)->db);
}

bool shell_resident_yield(const char *canonical_path, int fd)
{
	struct resident *r;
	bool ours;

	pthread_mutex_lock(&mu);
	r = find(canonical_path);
	ours = r && r->yield_fd < 0 && !start(r, NULL);
	if (ours) {
		r->yield_fd = fd;
		r->wanted = true;
		pthread_cond_signal(&r->wake);
	}
	pthread_mutex_unlock(&mu);
	return ours;
}

/* ---- connections ---- */

static struct resident *new_resident(const char *path)
{
	struct resident *r = calloc(1, sizeof *r);

	if (r && !(r->path = strdup(path))) {
		free(r);
		r = NULL;
	}
	if (!r)
		return NULL;
	node_cond_init(&r->wake);
	r->yield_fd = -1;
	r->next = residents;
	residents = r;
	return r;
}

static void end(struct resident *r)
{
	if (r->running)
		pthread_join(r->thread, NULL);
	if (r->yield_fd >= 0)
		close(r->yield_fd);
	drop(r->hold);
	pthread_cond_destroy(&r->wake);
	free(r->path);
	free(r);
}

/* mu held. True: it was the last one; the caller ends it. */
static bool leave(struct resident *r)
{
	if (--r->connections)
		return false;
	for (struct resident **at = &residents; *at; at = &(*at)->next) {
		if (*at == r) {
			*at = r->next;
			break;
		}
	}
	r->stop = true;
	pthread_cond_signal(&r->wake);
	return true;
}

int shell_resident_open(const char *path, bool may_set_up, struct vfs_db **ret_db, struct wire_err *err)
{
	struct vfs_db *db;
	struct resident *r;
	bool last = false;
	int rc = ops->open(path, may_set_up, &db, err);

	if (rc)
		return rc;
	pthread_mutex_lock(&mu);
	r = find(vfs_db_path(db));
	if (!r)
		r = new_resident(vfs_db_path(db));
	if (r) {
		r->connections++;
		r->may_set_up |= may_set_up;
		if (vfs_db_is_attached(db))
			rc = start(r, err);
		if (rc) {
			last = leave(r);
		} else if (r->running && vfs_db_is_retired(db)) { /* too early for `gone` to find it */
			r->wanted = true;
			pthread_cond_signal(&r->wake);
		}
	} else {
		rc = wire_fail(err, WIRE_NOMEM, "no memory for opening %s", path);
	}
	pthread_mutex_unlock(&mu);
	if (last)
		end(r);
	if (rc)
		drop(db);
	else
		*ret_db = db;
	return rc;
}

void shell_resident_close(struct vfs_db *db)
{
	struct resident *r;
	bool last;

	pthread_mutex_lock(&mu);
	r = find(vfs_db_path(db));
	last = r && leave(r);
	pthread_mutex_unlock(&mu);
	if (last)
		end(r);
	ops->close(db);
}

static void after_fork_in_child(void)
{
	pthread_mutex_init(&mu, NULL);
	for (struct resident *r = residents; r; r = r->next)
		if (r->yield_fd >= 0)
			close(r->yield_fd);
	residents = NULL;
}

void shell_resident_init(const struct shell_resident_ops *o)
{
	ops = o;
	shell_attach_on_gone(gone);
	pthread_atfork(NULL, NULL, after_fork_in_child);
}
