/* nng as our own: configure makes a copy of the static libnng in which the names of nng_own.syms are replaced by those
 * below.
 *
 * Nobody else in the process can reach that copy, so that it can be ended (nng_fini) and begun anew, which nng 1.5.2
 * does well once all that was opened is freed. What the replacements are for:
 * - All its descriptors are known, and closed in a forked child, which would keep addresses and connections open else.
 *   They are close-on-exec from the beginning.
 * - Its handler in forked children is not installed: it forbids nng there for ever, also when nothing of it was running
 *   in the parent, and a new one would come to the list with every start.
 * - Its threads are given, see link_nng_use.c; and as many as for CPUS_MAX processors, since they only hand over.
 * - It waits for its look-ups of names when it ends, which takes as long as the name server likes. */
#include "wire/link_nng.h"
#include <errno.h>
#include <netdb.h>
#include <nng/nng.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CPUS_MAX = 4, FDS_MAX = 1 << 20, WORD_BITS = 64 };

const bool wire_nng_own = true;

/* Names by which the copy knows this file. */
FILE *wire_nng_stdout, *wire_nng_stderr;
int wire_nng_socket(int domain, int type, int protocol);
int wire_nng_accept(int listener, struct sockaddr *a, socklen_t *len);
int wire_nng_eventfd(unsigned count, int flags);
int wire_nng_epoll_create1(int flags);
int wire_nng_close(int fd);
int wire_nng_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
long wire_nng_sysconf(int name);
int wire_nng_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int wire_nng_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret);

/* descriptors */

static pthread_mutex_t fds_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t fds[FDS_MAX / WORD_BITS]; /* fds_lock: a bit is set while nng has that descriptor */

static int known(int fd)
{
	if (fd >= FDS_MAX) {
		close(fd);
		errno = EMFILE;
		return -1;
	}
	if (fd >= 0)
		fds[fd / WORD_BITS] |= 1ull << fd % WORD_BITS;
	return fd;
}

int wire_nng_socket(int domain, int type, int protocol)
{
	pthread_mutex_lock(&fds_lock);
	int fd = known(socket(domain, type | SOCK_CLOEXEC, protocol));
	pthread_mutex_unlock(&fds_lock);
	return fd;
}

int wire_nng_accept(int listener, struct sockaddr *a, socklen_t *len)
{
	pthread_mutex_lock(&fds_lock);
	int fd = known(accept4(listener, a, len, SOCK_CLOEXEC)); /* does not wait: nng's listeners are non-blocking */
	pthread_mutex_unlock(&fds_lock);
	return fd;
}

int wire_nng_eventfd(unsigned count, int flags)
{
	pthread_mutex_lock(&fds_lock);
	int fd = known(eventfd(count, flags | EFD_CLOEXEC));
	pthread_mutex_unlock(&fds_lock);
	return fd;
}

int wire_nng_epoll_create1(int flags)
{
	pthread_mutex_lock(&fds_lock);
	int fd = known(epoll_create1(flags | EPOLL_CLOEXEC));
	pthread_mutex_unlock(&fds_lock);
	return fd;
}

int wire_nng_close(int fd)
{
	pthread_mutex_lock(&fds_lock);
	if (fd >= 0 && fd < FDS_MAX)
		fds[fd / WORD_BITS] &= ~(1ull << fd % WORD_BITS);
	int rc = close(fd);
	pthread_mutex_unlock(&fds_lock);
	return rc;
}

void wire_nng_fork_lock(void)
{
	pthread_mutex_lock(&fds_lock);
}

void wire_nng_fork_unlock(void)
{
	pthread_mutex_unlock(&fds_lock);
}

void wire_nng_fork_close(void)
{
	for (int i = 0; i < FDS_MAX / WORD_BITS; i++)
		for (; fds[i]; fds[i] &= fds[i] - 1)
			close(i * WORD_BITS + __builtin_ctzll(fds[i]));
}

void wire_nng_came(const void *key, struct nng_stream *s)
{
	(void)key;
	(void)s;
}

void wire_nng_listens(const void *key, struct nng_stream_listener *l)
{
	(void)key;
	(void)l;
}

void wire_nng_went(const void *key)
{
	(void)key;
}

/* threads */

int wire_nng_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	return wire_nng_take_thread(id, attr, run, arg);
}

long wire_nng_sysconf(int name)
{
	long n = sysconf(name);
	return name == _SC_NPROCESSORS_ONLN && n > CPUS_MAX ? CPUS_MAX : n;
}

unsigned wire_nng_threads(void)
{
	long cpus = wire_nng_sysconf(_SC_NPROCESSORS_ONLN);
	/* Two for tasks and one for expiry each; four that look up names; poller, reaper, timer. */
	return 3 * (unsigned)(cpus > 0 ? cpus : 1) + 7;
}

int wire_nng_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	(void)prepare;
	(void)parent;
	(void)child;
	return 0;
}

/* names */

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t names_news = PTHREAD_COND_INITIALIZER;
static unsigned n_names; /* names_lock: look-ups under way */

static void count_name(bool begins)
{
	pthread_mutex_lock(&names_lock);
	n_names += begins ? 1 : -1u;
	if (!n_names)
		pthread_cond_broadcast(&names_news);
	pthread_mutex_unlock(&names_lock);
}

int wire_nng_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
	count_name(true);
	int rc = getaddrinfo(host, service, hints, ret);
	int sys = errno;
	count_name(false);
	errno = sys;
	return rc;
}

bool wire_nng_names_done(unsigned wait_ms)
{
	struct timespec until;
	int rc = 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&names_lock);
	while (n_names && rc == 0)
		rc = pthread_cond_clockwait(&names_news, &names_lock, CLOCK_MONOTONIC, &until);
	bool done = n_names == 0;
	pthread_mutex_unlock(&names_lock);
	return done;
}

/* start and end */

int wire_nng_start(struct wire_err *err)
{
	nng_aio *aio;
	wire_nng_stdout = stdout;
	wire_nng_stderr = stderr; /* where it says why it aborts, should it ever */
	int rv = nng_aio_alloc(&aio, NULL, NULL);
	if (rv)
		return wire_fail(err, rv == NNG_ENOMEM ? WIRE_NOMEM : WIRE_IO, "cannot start nng: %s", nng_strerror(rv));
	nng_aio_free(aio);
	return WIRE_OK;
}

void wire_nng_stop(void)
{
	nng_fini();
}
