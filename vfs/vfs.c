/* Registration, the VFS's methods, and what is shared between connections: seats and the list of writers. */
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
	struct vfs_conn *writers, *conns;
	struct vfs_host_ops ops;
	sqlite3_vfs vfs;
	bool registered, wants_default;
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

static atomic_uint fork_generation;
static atomic_bool auto_on;

/* ---- errors, forks ---- */

int shim_fail(struct vfs_conn *c, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(c->error, sizeof c->error, fmt, ap);
	va_end(ap);
	c->error_at = shim_error_number();
	return code;
}

uint64_t shim_error_number(void)
{
	static _Atomic uint64_t last;

	return atomic_fetch_add(&last, 1) + 1;
}

static void after_fork(void)
{
	/* Other threads of the parent may have held them. */
	pthread_mutex_init(&shared.mutex, NULL);
	pthread_cond_init(&shared.left, NULL);
	atomic_fetch_add(&fork_generation, 1);
	shim_newborn_after_fork();
	vfs_db_after_fork();
	for (struct vfs_conn *c = shared.conns; c; c = c->next)
		if (c->db && vfs_db_is_retired(c->db))
			vfs_db_inherit(c->db);
	shared.writers = shared.conns = NULL;
}

unsigned shim_fork_generation(void)
{
	return atomic_load_explicit(&fork_generation, memory_order_relaxed);
}

int shim_alive(struct vfs_conn *c)
{
	if (c->generation == shim_fork_generation())
		return SQLITE_OK;
	return shim_fail(c, WALRAFT_IOERR_NODE, "%s was opened before a fork: a child cannot use its parent's connection; it opens one of its own", c->path);
}

sqlite3_vfs *shim_base(struct vfs_conn *c)
{
	return c->vfs->pAppData;
}

struct vfs_host_ops shim_host_ops(void)
{
	struct vfs_host_ops ops;

	pthread_mutex_lock(&shared.mutex);
	ops = shared.ops;
	pthread_mutex_unlock(&shared.mutex);
	return ops;
}

bool shim_thread_is_node(void)
{
	return thread_is_node;
}

/* ---- seats ---- */

struct shim_seat *shim_seat_take(struct vfs_conn *c)
{
	struct shim_seat *s;

	pthread_mutex_lock(&shared.mutex);
	s = shared.free_seats;
	if (s)
		shared.free_seats = s->next_free;
	else
		s = calloc(1, sizeof *s);
	if (s) {
		s->conn = c;
		c->next = shared.conns;
		shared.conns = c;
	}
	pthread_mutex_unlock(&shared.mutex);
	return s;
}

void shim_seat_leave(struct shim_seat *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&shared.mutex);
	for (struct vfs_conn **at = &shared.conns; *at; at = &(*at)->next) {
		if (*at == s->conn) {
			*at = s->conn->next;
			break;
		}
	}
	s->conn = NULL;
	s->use++;
	while (s->sleepers > 0)
		pthread_cond_wait(&shared.left, &shared.mutex);
	s->next_free = shared.free_seats;
	shared.free_seats = s;
	pthread_mutex_unlock(&shared.mutex);
}

/* What of c's statements runs, when it is a single one that writes; NULL else. In a call of SQLite's on c only. */
static sqlite3_stmt *sole_writer(struct vfs_conn *c)
{
	sqlite3_stmt *found = NULL;

	if (!c->sql || !*c->sql)
		return NULL;
	for (sqlite3_stmt *s = sqlite3_next_stmt(*c->sql, NULL); s; s = sqlite3_next_stmt(*c->sql, s)) {
		if (!sqlite3_stmt_busy(s))
			continue;
		if (found || sqlite3_stmt_readonly(s))
			return NULL;
		found = s;
	}
	return found;
}

bool shim_sole_writer(struct vfs_conn *c)
{
	return sole_writer(c) != NULL;
}

void shim_refused(struct vfs_conn *c, bool reserved)
{
	refused.seat = c->seat;
	refused.use = c->seat->use;
	refused.reserved = reserved;
	refused.at_ns = monotonic_ns();
	c->refused_stmt = sole_writer(c);
	c->refused_run = c->refused_stmt ? sqlite3_stmt_status(c->refused_stmt, SQLITE_STMTSTATUS_RUN, 0) : 0;
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

bool shim_repeats_refused(struct vfs_conn *c)
{
	sqlite3_stmt *s = c->refused_stmt;

	c->refused_stmt = NULL;
	return s && sole_writer(c) == s && sqlite3_stmt_status(s, SQLITE_STMTSTATUS_RUN, 0) == c->refused_run;
}

/* *ret_db: c's, with a reference; c may go over to another one meanwhile, should another thread use it. */
static struct vfs_conn *sleeper_sits(struct shim_seat *s, uint64_t use, struct vfs_db **ret_db)
{
	struct vfs_conn *c = NULL;

	pthread_mutex_lock(&shared.mutex);
	if (s->conn && s->use == use && shim_alive(s->conn) == SQLITE_OK) {
		c = s->conn;
		*ret_db = c->db;
		vfs_db_ref(c->db);
		s->sleepers++;
	}
	pthread_mutex_unlock(&shared.mutex);
	return c;
}

static void sleeper_stands(struct shim_seat *s)
{
	pthread_mutex_lock(&shared.mutex);
	if (--s->sleepers == 0)
		pthread_cond_broadcast(&shared.left);
	pthread_mutex_unlock(&shared.mutex);
}

static int vfs_sleep(sqlite3_vfs *v, int us)
{
	sqlite3_vfs *base = v->pAppData;
	struct shim_seat *s = refused.seat;
	struct vfs_conn *c = NULL;
	struct vfs_db *db = NULL;
	uint32_t slept = 0;
	bool waits;

	/* Once for each refusal: SQLite also sleeps between its attempts to begin a read, and must not be sent on at once then. */
	refused.seat = NULL;
	if (s && us >= 0)
		c = sleeper_sits(s, refused.use, &db);
	if (!c)
		return base->xSleep(base, us);
	waits = monotonic_ns() - refused.at_ns < REFUSAL_FRESH_NS && !vfs_db_is_retired(db);
	if (waits)
		/* The lock waits for this thread: every moment would be one that nobody writes in. */
		slept = refused.reserved ? 0 : vfs_db_ops(db)->write_sleep(vfs_db_ops(db)->ctx, c, (uint32_t)us);
	sleeper_stands(s);
	vfs_db_unref(db);
	if (!waits)
		return base->xSleep(base, us);
	return slept > INT32_MAX ? INT32_MAX : (int)slept;
}

struct vfs_db *shim_conn_set_db(struct vfs_conn *c, struct vfs_db *db)
{
	struct vfs_db *old;

	pthread_mutex_lock(&shared.mutex);
	old = c->db;
	c->db = db;
	pthread_mutex_unlock(&shared.mutex);
	return old;
}

/* ---- writers ---- */

struct vfs_conn *shim_other_writer(struct vfs_conn *c)
{
	struct vfs_conn *w;

	if (!c->sql || !*c->sql)
		return NULL;
	pthread_mutex_lock(&shared.mutex);
	for (w = shared.writers; w; w = w->next_writer)
		if (strcmp(vfs_db_path(w->db), vfs_db_path(c->db)) != 0 && w->sql && *w->sql == *c->sql && (w->several_voters || c->several_voters))
			break;
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

/* ---- methods ---- */

static struct vfs_conn *conn_of_wal(const char *name)
{
	const char *db = sqlite3_filename_database(name);
	struct vfs_conn *c;

	pthread_mutex_lock(&shared.mutex);
	for (c = shared.conns; c && c->name != db; c = c->next)
		;
	pthread_mutex_unlock(&shared.mutex);
	return c && c->db ? c : NULL;
}

static int vfs_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_vfs *base = v->pAppData;

	if (name && (flags & SQLITE_OPEN_MAIN_DB)) {
		struct vfs_host_ops ops = shim_host_ops();

		ops.opening(ops.ctx);
		return shim_open_main(v, name, f, flags, out);
	}
	if (name && (flags & SQLITE_OPEN_WAL)) {
		struct vfs_conn *c = conn_of_wal(name);

		if (c)
			return shim_open_wal(c, name, f, flags, out);
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

/* ---- the interface ---- */

static void make_vfs(sqlite3_vfs *v, sqlite3_vfs *base)
{
	const size_t head = sizeof(struct shim_file) > sizeof(struct shim_wal) ? sizeof(struct shim_file) : sizeof(struct shim_wal);

	*v = (sqlite3_vfs){ .iVersion = 2, .szOsFile = base->szOsFile + (int)head, .mxPathname = base->mxPathname, .zName = "walraft", .pAppData = base,
		            .xOpen = vfs_open, .xDelete = vfs_delete, .xAccess = vfs_access, .xSleep = vfs_sleep };
	shim_pass_through(v);
}

int vfs_register(const struct vfs_host_ops *ops, struct wire_err *err)
{
	sqlite3_vfs *base = sqlite3_vfs_find(NULL), *other = sqlite3_vfs_find("walraft");
	bool wants_default;
	int rc = SQLITE_OK;

	if (other && other != &shared.vfs)
		return wire_fail(err, WIRE_EXISTS, "another copy of walraft is loaded in this process already: load the same file everywhere");
	pthread_mutex_lock(&shared.mutex);
	shared.ops = *ops;
	wants_default = shared.wants_default;
	if (!shared.registered && base) {
		make_vfs(&shared.vfs, base);
		shared.registered = pthread_atfork(NULL, NULL, after_fork) == 0;
	}
	pthread_mutex_unlock(&shared.mutex);
	if (!shared.registered)
		return wire_fail(err, WIRE_INTERNAL, "the VFS cannot be registered: %s", base ? "out of memory" : "SQLite has no default VFS");
	if (!other)
		rc = sqlite3_vfs_register(&shared.vfs, 0);
	if (rc == SQLITE_OK && wants_default)
		rc = sqlite3_vfs_register(&shared.vfs, 1);
	return rc == SQLITE_OK ? WIRE_OK : wire_fail(err, WIRE_INTERNAL, "the VFS cannot be registered: SQLite code %d", rc);
}

const char *vfs_base_name(void)
{
	const sqlite3_vfs *base = shared.registered ? shared.vfs.pAppData : NULL;

	return base ? base->zName : "unix";
}

int vfs_set_default(bool on, struct wire_err *err)
{
	sqlite3_vfs *v = on ? &shared.vfs : shared.vfs.pAppData;
	int rc = on == vfs_is_default() ? SQLITE_OK : sqlite3_vfs_register(v, 1);

	if (rc != SQLITE_OK)
		return wire_fail(err, WIRE_INTERNAL, "the default VFS cannot be changed: SQLite code %d", rc);
	pthread_mutex_lock(&shared.mutex);
	shared.wants_default = on;
	pthread_mutex_unlock(&shared.mutex);
	return WIRE_OK;
}

bool vfs_is_default(void)
{
	return sqlite3_vfs_find(NULL) == &shared.vfs;
}

void vfs_set_auto(bool on)
{
	atomic_store(&auto_on, on);
}

bool vfs_auto(void)
{
	return atomic_load(&auto_on);
}

void vfs_thread_is_node(bool on)
{
	thread_is_node = on;
}

static struct vfs_conn *conn_of_schema(struct sqlite3 *db, const char *schema)
{
	sqlite3_file *f = NULL;

	if (sqlite3_file_control(db, schema, SQLITE_FCNTL_FILE_POINTER, &f) != SQLITE_OK || !f)
		return NULL;
	if (f->pMethods != &shim_main_methods && f->pMethods != &shim_failed_methods && f->pMethods != &shim_newborn_methods)
		return NULL;
	return ((struct shim_file *)f)->conn;
}

struct vfs_conn *vfs_conn_of(struct sqlite3 *db)
{
	return conn_of_schema(db, "main");
}

const char *vfs_error_text(struct sqlite3 *db)
{
	uint64_t at;
	const char *name, *text = shim_thread_open_error(&at);

	for (int i = 0; (name = sqlite3_db_name(db, i)) != NULL; i++) {
		struct vfs_conn *c = conn_of_schema(db, name);

		if (c && c->error_at > at) {
			at = c->error_at;
			text = c->error;
		}
	}
	return text;
}

const char *vfs_unreplicated_main(struct sqlite3 *db)
{
	const char *path = sqlite3_db_filename(db, "main");
	struct vfs_host_ops ops = shim_host_ops();

	if (!vfs_is_default() || !path || !*path || vfs_conn_of(db) || sqlite3_db_readonly(db, "main") == 1)
		return NULL;
	return vfs_auto() || ops.is_set_up(ops.ctx, path) ? path : NULL;
}

const char *vfs_stray_main(struct sqlite3 *db)
{
	const char *path = sqlite3_db_filename(db, "main");
	sqlite3_vfs *v = NULL;
	sqlite3_file *f = NULL;

	if (vfs_is_default() || vfs_auto() || !path || !*path || sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &v) != SQLITE_OK || v != &shared.vfs)
		return NULL;
	if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &f) != SQLITE_OK || !f || !f->pMethods || vfs_conn_of(db) || sqlite3_uri_boolean(path, "walraft_auto", 0))
		return NULL;
	return path;
}

struct vfs_db *vfs_conn_db(struct vfs_conn *c) { return c->db; }
const char *vfs_conn_open_error(struct vfs_conn *c) { return c->open_error; }
uint32_t vfs_conn_timeout_ms(struct vfs_conn *c) { return c->timeout_ms; }
uint64_t vfs_conn_last_index(struct vfs_conn *c) { return c->last_index; }
