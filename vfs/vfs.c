/* Registration, opening, and what is shared between connections: seats and the list of writers. */
#include "vfs/conn.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

SQLITE_EXTENSION_INIT3

#define TIMEOUT_MS 5000u
#define TIMEOUT_MS_MAX 86400000u

/* A seat stands for a connection in the memory of threads that were refused the write lock: such a thread may come to xSleep after another one closed the
 * connection. Seats are used again, never freed; `use` tells whose turn it is. */
struct shim_seat {
	struct shim_seat *next_free;
	struct vfs_conn *conn; /* NULL: free */
	uint64_t use;
	uint32_t sleepers;
};

static struct {
	pthread_mutex_t mutex; /* a leaf */
	pthread_cond_t left;   /* a sleeper left its seat */
	struct shim_seat *free_seats;
	struct vfs_conn *writers;
	struct vfs_host_ops ops;
	sqlite3_vfs vfs;
	bool registered;
} shared = { .mutex = PTHREAD_MUTEX_INITIALIZER, .left = PTHREAD_COND_INITIALIZER };

static _Thread_local bool thread_is_node;
static _Thread_local struct { struct shim_seat *seat; uint64_t use, at_ns; bool reserved; } refused;

#define REFUSAL_FRESH_NS 5000000 /* a busy handler sleeps right after the refusal; a later sleep is for something else */

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static atomic_uint fork_generation, n_open;
static atomic_bool forked_open; /* this is a child of a process that had databases open */

/* ---- errors, forks ---- */

int shim_fail(struct vfs_conn *c, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(c->error, sizeof c->error, fmt, ap);
	va_end(ap);
	return code;
}

static void after_fork(void)
{
	/* Another thread of the parent may have held it. */
	pthread_mutex_init(&shared.mutex, NULL);
	atomic_fetch_add(&fork_generation, 1);
	if (atomic_exchange(&n_open, 0) > 0)
		atomic_store(&forked_open, true);
}

int shim_alive(struct vfs_conn *c)
{
	if (c->generation == atomic_load_explicit(&fork_generation, memory_order_relaxed))
		return SQLITE_OK;
	return shim_fail(c, WALRAFT_IOERR_NODE, "%s was opened before a fork: a child cannot use its parent's connection; open the database in a program of its own", c->path);
}

sqlite3_vfs *shim_base(struct vfs_conn *c)
{
	return c->vfs->pAppData;
}

/* ---- seats ---- */

static struct shim_seat *seat_take(struct vfs_conn *c)
{
	struct shim_seat *s;

	pthread_mutex_lock(&shared.mutex);
	s = shared.free_seats;
	if (s)
		shared.free_seats = s->next_free;
	else
		s = calloc(1, sizeof *s);
	if (s)
		s->conn = c;
	pthread_mutex_unlock(&shared.mutex);
	return s;
}

static void seat_leave(struct shim_seat *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&shared.mutex);
	s->conn = NULL;
	s->use++;
	while (s->sleepers > 0)
		pthread_cond_wait(&shared.left, &shared.mutex);
	s->next_free = shared.free_seats;
	shared.free_seats = s;
	pthread_mutex_unlock(&shared.mutex);
}

void shim_refused(struct vfs_conn *c, bool reserved)
{
	refused.seat = c->seat;
	refused.use = c->seat->use;
	refused.reserved = reserved;
	refused.at_ns = monotonic_ns();
}

void shim_granted(struct vfs_conn *c)
{
	if (refused.seat == c->seat)
		refused.seat = NULL;
}

void shim_read_begins(void)
{
	refused.seat = NULL;
}

static int vfs_sleep(sqlite3_vfs *v, int us)
{
	sqlite3_vfs *base = v->pAppData;
	struct shim_seat *s = refused.seat;
	struct vfs_conn *c = NULL;
	uint32_t slept;

	if (!s || us < 0)
		return base->xSleep(base, us);
	/* Once for each refusal: SQLite also sleeps between its attempts to begin a read, and must not be sent on at once then. */
	refused.seat = NULL;
	pthread_mutex_lock(&shared.mutex);
	if (s->conn && s->use == refused.use && shim_alive(s->conn) == SQLITE_OK) {
		c = s->conn;
		s->sleepers++;
	}
	pthread_mutex_unlock(&shared.mutex);
	if (!c)
		return base->xSleep(base, us);
	/* The attempt that was refused had passed the read gate, and SQLite repeats it within the same call: what is published now includes what that gate asked for. Waiting
	 * for another round while the lock is reserved for us would let nobody write in the meantime. */
	c->token = monotonic_ns() - refused.at_ns < REFUSAL_FRESH_NS;
	/* The lock waits for this thread: every moment would be one that nobody writes in. */
	slept = refused.reserved ? 0 : vfs_wlock_sleep(vfs_db_wlock(c->db), c, (uint32_t)us);
	pthread_mutex_lock(&shared.mutex);
	if (--s->sleepers == 0)
		pthread_cond_broadcast(&shared.left);
	pthread_mutex_unlock(&shared.mutex);
	return slept > INT32_MAX ? INT32_MAX : (int)slept;
}

/* ---- writers ---- */

struct vfs_conn *shim_other_writer(struct vfs_conn *c)
{
	struct vfs_conn *w;

	if (!c->sql || !*c->sql)
		return NULL;
	pthread_mutex_lock(&shared.mutex);
	for (w = shared.writers; w && !(w->db != c->db && w->sql && *w->sql == *c->sql); w = w->next_writer)
		;
	pthread_mutex_unlock(&shared.mutex);
	return w;
}

void shim_writer_add(struct vfs_conn *c)
{
	pthread_mutex_lock(&shared.mutex);
	c->next_writer = shared.writers;
	shared.writers = c;
	pthread_mutex_unlock(&shared.mutex);
}

void shim_writer_remove(struct vfs_conn *c)
{
	pthread_mutex_lock(&shared.mutex);
	for (struct vfs_conn **at = &shared.writers; *at; at = &(*at)->next_writer) {
		if (*at == c) {
			*at = c->next_writer;
			break;
		}
	}
	pthread_mutex_unlock(&shared.mutex);
}

/* ---- opening ---- */

void shim_conn_close(struct vfs_conn *c)
{
	struct vfs_host_ops ops;

	pthread_mutex_lock(&shared.mutex);
	ops = shared.ops;
	pthread_mutex_unlock(&shared.mutex);
	if (c->db)
		vfs_wlock_forget(vfs_db_wlock(c->db), c);
	seat_leave(c->seat);
	shim_session_free(c);
	if (c->db) {
		vfs_db_unref(c->db);
		atomic_fetch_sub(&n_open, 1);
		if (!c->node)
			ops.close_db(ops.ctx, c->path);
	}
	free(c->path);
	free(c->open_error);
	free(c);
}

static struct vfs_conn *conn_new(sqlite3_vfs *v, const char *path)
{
	struct vfs_conn *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->vfs = v;
	c->node = thread_is_node;
	c->generation = atomic_load(&fork_generation);
	c->timeout_ms = TIMEOUT_MS;
	c->read_slot = -1;
	c->path = strdup(path);
	c->seat = seat_take(c);
	if (!c->path || !c->seat) {
		shim_conn_close(c);
		return NULL;
	}
	return c;
}

int shim_parse_ms(const char *text, uint32_t *ret_ms, struct wire_err *err)
{
	char *end;
	unsigned long long v = strtoull(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || v > TIMEOUT_MS_MAX)
		return wire_fail(err, WIRE_INVALID, "walraft_timeout is in milliseconds, from 1 to %u, not '%s'", TIMEOUT_MS_MAX, text);
	*ret_ms = (uint32_t)v;
	return WIRE_OK;
}

static int read_parameters(struct vfs_conn *c, const char *name, struct wire_err *err)
{
	static const struct { const char *name, *why; } refuses[] = {
		{ "immutable", "it would be read without its WAL" },
		{ "nolock", "its node must know of readers" },
		{ "readonly_shm", "its readers leave marks in -shm" },
	};
	const char *level = sqlite3_uri_parameter(name, "walraft_read"), *timeout = sqlite3_uri_parameter(name, "walraft_timeout");
	uint32_t ms;
	int rc = WIRE_OK;

	for (size_t i = 0; i < sizeof refuses / sizeof *refuses; i++) {
		if (sqlite3_uri_boolean(name, refuses[i].name, 0))
			return wire_fail(err, WIRE_INVALID, "%s is a replicated database: %s=1 is refused, because %s", c->path, refuses[i].name, refuses[i].why);
	}
	if (level)
		rc = vfs_conn_set_read_level(c, level, err);
	if (rc == WIRE_OK && timeout)
		rc = shim_parse_ms(timeout, &ms, err);
	if (rc == WIRE_OK && timeout)
		rc = vfs_conn_set_timeout_ms(c, ms, err);
	return rc;
}

static int attach_db(struct vfs_conn *c, struct wire_err *err)
{
	struct vfs_host_ops ops;
	int rc;

	if (atomic_load(&forked_open))
		return wire_fail(err, WIRE_UNSUPPORTED, "this process was forked from one that had replicated databases open; start a program of its own to open %s", c->path);
	if (c->node) {
		c->db = vfs_db_find(c->path);
		if (!c->db)
			return wire_fail(err, WIRE_NOTFOUND, "%s is not open in this process", c->path);
	} else {
		pthread_mutex_lock(&shared.mutex);
		ops = shared.ops;
		pthread_mutex_unlock(&shared.mutex);
		rc = ops.open_db(ops.ctx, c->path, &c->db, err);
		if (rc) {
			c->db = NULL;
			return rc;
		}
	}
	atomic_fetch_add(&n_open, 1);
	c->page_size = vfs_db_page_size(c->db);
	return WIRE_OK;
}

static int open_main(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_vfs *base = v->pAppData;
	struct shim_file *file = (struct shim_file *)f;
	struct vfs_conn *c = conn_new(v, name);
	struct wire_err err = { 0 };
	int rc;

	f->pMethods = NULL;
	if (!c)
		return SQLITE_NOMEM;
	file->conn = c;
	c->real = (sqlite3_file *)(file + 1);
	memset(c->real, 0, (size_t)base->szOsFile);
	if (read_parameters(c, name, &err) != WIRE_OK || attach_db(c, &err) != WIRE_OK) {
		c->open_error = strdup(err.text);
		if (!c->open_error) {
			shim_conn_close(c);
			return SQLITE_NOMEM;
		}
		shim_fail(c, 0, "%s", err.text);
		f->pMethods = &shim_failed_methods;
		if (out)
			*out = flags;
		return SQLITE_OK;
	}
	rc = base->xOpen(base, name, c->real, flags, out);
	if (rc != SQLITE_OK) {
		if (c->real->pMethods)
			c->real->pMethods->xClose(c->real);
		shim_conn_close(c);
		return rc;
	}
	f->pMethods = &shim_main_methods;
	return SQLITE_OK;
}

static int open_wal(struct vfs_conn *c, const char *name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_vfs *base = shim_base(c);
	struct shim_wal *w = (struct shim_wal *)f;
	int rc;

	f->pMethods = NULL;
	w->conn = c;
	w->real = (sqlite3_file *)(w + 1);
	memset(w->real, 0, (size_t)base->szOsFile);
	rc = base->xOpen(base, name, w->real, flags, out);
	if (rc == SQLITE_OK)
		f->pMethods = &shim_wal_methods;
	else if (w->real->pMethods)
		w->real->pMethods->xClose(w->real);
	return rc;
}

static int vfs_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_vfs *base = v->pAppData;

	if (name && (flags & SQLITE_OPEN_MAIN_DB))
		return open_main(v, name, f, flags, out);
	if (name && (flags & SQLITE_OPEN_WAL)) {
		sqlite3_file *main = sqlite3_database_file_object(name);

		if (main && main->pMethods == &shim_main_methods)
			return open_wal(((struct shim_file *)main)->conn, name, f, flags, out);
	}
	return base->xOpen(base, name, f, flags, out);
}

/* Is this the -wal of a database that is open here? */
static bool is_our_wal(const char *name)
{
	size_t n = strlen(name);
	struct vfs_db *db;
	char *path;

	if (n < 5 || strcmp(name + n - 4, "-wal") != 0)
		return false;
	path = strndup(name, n - 4);
	if (!path)
		return true; /* SQLite then leaves the file alone, which is never wrong */
	db = vfs_db_find(path);
	free(path);
	if (!db)
		return false;
	vfs_db_unref(db);
	return true;
}

static int vfs_delete(sqlite3_vfs *v, const char *name, int sync_dir)
{
	sqlite3_vfs *base = v->pAppData;

	return is_our_wal(name) ? SQLITE_OK : base->xDelete(base, name, sync_dir);
}

static int vfs_access(sqlite3_vfs *v, const char *name, int flags, int *ret)
{
	sqlite3_vfs *base = v->pAppData;

	if (flags == SQLITE_ACCESS_EXISTS && is_our_wal(name)) {
		*ret = 1;
		return SQLITE_OK;
	}
	return base->xAccess(base, name, flags, ret);
}

/* ---- what passes through ---- */

static int vfs_full_pathname(sqlite3_vfs *v, const char *name, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xFullPathname(base, name, n, out);
}

static void *vfs_dl_open(sqlite3_vfs *v, const char *name)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xDlOpen(base, name);
}

static void vfs_dl_error(sqlite3_vfs *v, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	base->xDlError(base, n, out);
}

static void (*vfs_dl_sym(sqlite3_vfs *v, void *lib, const char *symbol))(void)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xDlSym(base, lib, symbol);
}

static void vfs_dl_close(sqlite3_vfs *v, void *lib)
{
	sqlite3_vfs *base = v->pAppData;

	base->xDlClose(base, lib);
}

static int vfs_randomness(sqlite3_vfs *v, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xRandomness(base, n, out);
}

static int vfs_current_time(sqlite3_vfs *v, double *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xCurrentTime(base, out);
}

static int vfs_last_error(sqlite3_vfs *v, int n, char *out)
{
	sqlite3_vfs *base = v->pAppData;

	return base->xGetLastError ? base->xGetLastError(base, n, out) : 0;
}

static int vfs_current_time_int64(sqlite3_vfs *v, sqlite3_int64 *out)
{
	sqlite3_vfs *base = v->pAppData;
	double day;
	int rc;

	if (base->iVersion >= 2 && base->xCurrentTimeInt64)
		return base->xCurrentTimeInt64(base, out);
	rc = base->xCurrentTime(base, &day);
	*out = (sqlite3_int64)(day * 86400000.0);
	return rc;
}

/* ---- the interface ---- */

int vfs_register(const struct vfs_host_ops *ops, struct wire_err *err)
{
	sqlite3_vfs *base = sqlite3_vfs_find(NULL), *v = &shared.vfs;
	int rc = SQLITE_OK;

	pthread_mutex_lock(&shared.mutex);
	shared.ops = *ops;
	if (!shared.registered && base) {
		size_t head = sizeof(struct shim_file) > sizeof(struct shim_wal) ? sizeof(struct shim_file) : sizeof(struct shim_wal);

		*v = (sqlite3_vfs){ .iVersion = 2, .szOsFile = base->szOsFile + (int)head, .mxPathname = base->mxPathname, .zName = "walraft", .pAppData = base,
			            .xOpen = vfs_open, .xDelete = vfs_delete, .xAccess = vfs_access, .xFullPathname = vfs_full_pathname, .xDlOpen = vfs_dl_open,
			            .xDlError = vfs_dl_error, .xDlSym = vfs_dl_sym, .xDlClose = vfs_dl_close, .xRandomness = vfs_randomness, .xSleep = vfs_sleep,
			            .xCurrentTime = vfs_current_time, .xGetLastError = vfs_last_error, .xCurrentTimeInt64 = vfs_current_time_int64 };
		shared.registered = pthread_atfork(NULL, NULL, after_fork) == 0;
	}
	pthread_mutex_unlock(&shared.mutex);
	if (!shared.registered)
		return wire_fail(err, WIRE_INTERNAL, "the VFS cannot be registered: %s", base ? "out of memory" : "SQLite has no default VFS");
	if (!sqlite3_vfs_find("walraft"))
		rc = sqlite3_vfs_register(v, 0);
	return rc == SQLITE_OK ? WIRE_OK : wire_fail(err, WIRE_INTERNAL, "the VFS cannot be registered: SQLite code %d", rc);
}

void vfs_thread_is_node(bool on)
{
	thread_is_node = on;
}

struct vfs_conn *vfs_conn_of(struct sqlite3 *db)
{
	sqlite3_file *f = NULL;

	if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &f) != SQLITE_OK || !f)
		return NULL;
	if (f->pMethods != &shim_main_methods && f->pMethods != &shim_failed_methods)
		return NULL;
	return ((struct shim_file *)f)->conn;
}

struct vfs_db *vfs_conn_db(struct vfs_conn *c) { return c->db; }
const char *vfs_conn_open_error(struct vfs_conn *c) { return c->open_error; }
const char *vfs_conn_last_error(struct vfs_conn *c) { return c->error; }
enum vfs_read_level vfs_conn_read_level(struct vfs_conn *c) { return c->level; }
uint32_t vfs_conn_timeout_ms(struct vfs_conn *c) { return c->timeout_ms; }
uint64_t vfs_conn_last_index(struct vfs_conn *c) { return c->last_index; }

int vfs_conn_set_read_level(struct vfs_conn *c, const char *text, struct wire_err *err)
{
	if (strcmp(text, "linearizable") == 0)
		c->level = VFS_READ_LINEARIZABLE;
	else if (strcmp(text, "stale") == 0)
		c->level = VFS_READ_STALE;
	else
		return wire_fail(err, WIRE_INVALID, "walraft_read is 'linearizable' or 'stale', not '%s'", text);
	return WIRE_OK;
}

int vfs_conn_set_timeout_ms(struct vfs_conn *c, uint32_t ms, struct wire_err *err)
{
	if (ms == 0 || ms > TIMEOUT_MS_MAX)
		return wire_fail(err, WIRE_INVALID, "walraft_timeout is in milliseconds, from 1 to %u, not %u", TIMEOUT_MS_MAX, ms);
	c->timeout_ms = ms;
	return WIRE_OK;
}

void vfs_conn_txid(struct vfs_conn *c, uint8_t txid[VFS_TXID_BYTES])
{
	memcpy(txid, c->txid, sizeof c->txid);
}
