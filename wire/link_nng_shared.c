/* nng as a shared library, which the host may be using, too: it is never ended, so that its threads and its two own
 * descriptors stay from the first link on until the process ends; they do not become more.
 *
 * In a forked child, the sockets of links are found by their addresses: no two sockets of a machine have both ends in
 * common, or listen on the same one. A connection that is just being dialled is not known yet, nor are the epoll and
 * event descriptors. */
#include "wire/link_nng.h"
#include <arpa/inet.h>
#include <nng/nng.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOCKETS_MAX = 1024, FDS_MAX = 1 << 20, TASK_THREADS_MAX = 16, EXPIRE_THREADS_MAX = 256 };

const bool wire_nng_own = false;

struct end {
	int family; /* 0: none */
	uint16_t port;
	uint8_t addr[16];
};

struct known {
	const void *key;
	struct end local, remote;
};

static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static struct known known[SOCKETS_MAX]; /* from here on: known_lock */
static size_t n_known;

static struct end end_of(const nng_sockaddr *a)
{
	struct end e = { 0 };
	if (a->s_family == NNG_AF_INET) {
		e.family = AF_INET;
		e.port = a->s_in.sa_port;
		memcpy(e.addr, &a->s_in.sa_addr, sizeof(a->s_in.sa_addr));
	} else if (a->s_family == NNG_AF_INET6) {
		e.family = AF_INET6;
		e.port = a->s_in6.sa_port;
		memcpy(e.addr, a->s_in6.sa_addr, sizeof(e.addr));
	}
	return e;
}

static struct end end_of_socket(int fd, int (*name)(int, struct sockaddr *, socklen_t *))
{
	struct end e = { 0 };
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_storage room;
	} a;
	socklen_t len = sizeof(a);
	if (name(fd, &a.any, &len) != 0)
		return e;
	if (a.any.sa_family == AF_INET) {
		e.port = a.in.sin_port;
		memcpy(e.addr, &a.in.sin_addr, sizeof(a.in.sin_addr));
	} else if (a.any.sa_family == AF_INET6) {
		e.port = a.in6.sin6_port;
		memcpy(e.addr, &a.in6.sin6_addr, sizeof(e.addr));
	} else {
		return e;
	}
	e.family = a.any.sa_family;
	return e;
}

static bool same(const struct end *a, const struct end *b)
{
	return a->family == b->family && a->port == b->port && memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

static void add(const struct known *k)
{
	pthread_mutex_lock(&known_lock);
	if (k->local.family && n_known < SOCKETS_MAX)
		known[n_known++] = *k;
	pthread_mutex_unlock(&known_lock);
}

void wire_nng_came(const void *key, struct nng_stream *s)
{
	nng_sockaddr local, remote;
	if (nng_stream_get_addr(s, NNG_OPT_LOCADDR, &local) == 0 &&
	    nng_stream_get_addr(s, NNG_OPT_REMADDR, &remote) == 0)
		add(&(struct known){ key, end_of(&local), end_of(&remote) });
}

void wire_nng_listens(const void *key, struct nng_stream_listener *l)
{
	nng_sockaddr local;
	if (nng_stream_listener_get_addr(l, NNG_OPT_LOCADDR, &local) == 0)
		add(&(struct known){ .key = key, .local = end_of(&local) });
}

void wire_nng_went(const void *key)
{
	pthread_mutex_lock(&known_lock);
	for (size_t i = 0; i < n_known; i++) {
		if (known[i].key == key) {
			known[i] = known[--n_known];
			break;
		}
	}
	pthread_mutex_unlock(&known_lock);
}

void wire_nng_fork_lock(void)
{
	pthread_mutex_lock(&known_lock);
}

void wire_nng_fork_unlock(void)
{
	pthread_mutex_unlock(&known_lock);
}

static bool is_known(int fd)
{
	struct end local = end_of_socket(fd, getsockname);
	if (!local.family)
		return false;
	struct end remote = end_of_socket(fd, getpeername);
	for (size_t i = 0; i < n_known; i++)
		if (same(&known[i].local, &local) && same(&known[i].remote, &remote))
			return true;
	return false;
}

void wire_nng_fork_close(void)
{
	struct rlimit r;
	if (!n_known || getrlimit(RLIMIT_NOFILE, &r) != 0)
		return;
	int end = r.rlim_cur < FDS_MAX ? (int)r.rlim_cur : FDS_MAX;
	for (int fd = 0; fd < end; fd++)
		if (is_known(fd))
			close(fd);
}

unsigned wire_nng_threads(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = cpus > 0 ? (unsigned)cpus : 1;
	/* Those for tasks, and for expiry; four that look up names; poller, reaper, timer. */
	return (2 * n < TASK_THREADS_MAX ? 2 * n : TASK_THREADS_MAX) +
	       (n < EXPIRE_THREADS_MAX ? n : EXPIRE_THREADS_MAX) + 7;
}

int wire_nng_start(struct wire_err *err)
{
	nng_aio *aio;
	int rv = nng_aio_alloc(&aio, NULL, NULL);
	if (rv)
		return wire_fail(err, rv == NNG_ENOMEM ? WIRE_NOMEM : WIRE_IO, "cannot start nng: %s", nng_strerror(rv));
	nng_aio_free(aio);
	return WIRE_OK;
}

void wire_nng_stop(void)
{
}

bool wire_nng_names_done(unsigned wait_ms)
{
	(void)wait_ms;
	return true;
}
