/* Sessions of those who ask, and the threads that answer them.
 *
 * Threads are made when there is something to do, THREADS_MAX at most, and end when there has been nothing for a while; a node that nobody asks has none. A session with
 * messages stands in the queue once, and is with one thread at a time. What one asker can take up: a thread (of several), a database connection, a snapshot of IDLE_S at the
 * most, INBOX_MAX bytes. Who sends more than that is disconnected. There are WIRE_ASKERS_MAX of them, which the link sees to.
 *
 * Lock: q->mu, innermost; held over no call but of query_session_stop. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include "shell/query.h"
#include "vfs/vfs.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_MAX 8
#define INBOX_MAX (2 * WIRE_ASK_MAX)
#define INBOX_COUNT_MAX 128u
#define WAIT_MAX_US 5000000u /* for a thread */

struct member { /* of the list of sessions */
	uint32_t conn;
	struct query_session *session;
	struct wire_link_msg *inbox, **tail;
	size_t bytes;
	unsigned count;
	bool queued, busy; /* in the queue; with a thread */
	bool gone, flood;
	uint64_t since_us; /* the first message of the inbox came */
	struct member *next, *next_queued;
};

struct node_queries {
	struct shell_node *n;
	pthread_mutex_t mu;
	pthread_cond_t wake;
	bool stop;
	struct member *members, *queue, **queue_tail;
	unsigned threads, idle, queued; /* queued: length of the queue */
	struct slot { pthread_t thread; bool made, ended; struct node_queries *q; } slot[THREADS_MAX]; /* made: to be joined; changed by staff alone */
};

struct node_queries *node_queries_new(struct shell_node *n)
{
	struct node_queries *q = calloc(1, sizeof *q);

	if (!q)
		return NULL;
	q->n = n;
	q->queue_tail = &q->queue;
	pthread_mutex_init(&q->mu, NULL);
	node_cond_init(&q->wake);
	return q;
}

/* --- the queue; mu held --- */

static struct member *find(struct node_queries *q, uint32_t conn)
{
	struct member *m = q->members;

	while (m && m->conn != conn)
		m = m->next;
	return m;
}

static void enqueue(struct node_queries *q, struct member *m)
{
	if (m->queued || m->busy)
		return;
	m->queued = true;
	m->next_queued = NULL;
	*q->queue_tail = m;
	q->queue_tail = &m->next_queued;
	q->queued++;
	pthread_cond_signal(&q->wake);
}

static struct member *dequeue(struct node_queries *q)
{
	struct member *m = q->queue;

	if (!m)
		return NULL;
	q->queue = m->next_queued;
	if (!q->queue)
		q->queue_tail = &q->queue;
	q->queued--;
	m->queued = false;
	m->busy = true;
	return m;
}

static struct wire_link_msg *take_message(struct member *m)
{
	struct wire_link_msg *lm = m->inbox;

	if (!lm)
		return NULL;
	m->inbox = lm->next;
	if (!m->inbox)
		m->tail = &m->inbox;
	m->count--;
	m->bytes -= lm->msg.data_len;
	return lm;
}

/* --- threads --- */

/* Nobody else has m now, and it is in no queue. */
static void member_free(struct node_queries *q, struct member *m)
{
	struct wire_link_msg *lm;
	struct member **at = &q->members;

	pthread_mutex_lock(&q->mu);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	pthread_mutex_unlock(&q->mu);
	while ((lm = take_message(m)))
		wire_link_msg_free(lm);
	query_session_free(m->session);
	free(m);
}

static void work(struct node_queries *q, struct member *m)
{
	struct wire_link_msg *lm;
	bool late, flood;

	pthread_mutex_lock(&q->mu);
	lm = m->gone ? NULL : take_message(m);
	late = lm && node_now_us(q->n) > m->since_us + WAIT_MAX_US;
	flood = m->flood;
	m->since_us = node_now_us(q->n);
	pthread_mutex_unlock(&q->mu);
	if (flood) {
		wire_link_hang_up(q->n->link, m->conn);
	} else if (lm && late && lm->msg.type == WIRE_MSG_QUERY_OPEN) {
		query_session_refuse(m->session, &lm->msg, WIRE_BUSY, "this member is busy with other questions: ask another one, or try again later");
	} else if (lm) {
		query_session_do(m->session, &lm->msg);
	}
	if (lm)
		wire_link_msg_free(lm);
}

/* Sessions that nobody works for lose what was not used for long. False: none has anything that could be lost later. */
static bool expire(struct node_queries *q)
{
	bool more = false;

	pthread_mutex_lock(&q->mu);
	for (struct member *m = q->members; m; m = m->next) {
		bool has;

		if (m->busy || m->queued) {
			more = true;
			continue;
		}
		m->busy = true;
		pthread_mutex_unlock(&q->mu);
		has = query_session_expire(m->session, node_now_us(q->n));
		pthread_mutex_lock(&q->mu);
		more |= has;
		m->busy = false;
		if (m->inbox || m->gone)
			enqueue(q, m);
	}
	pthread_mutex_unlock(&q->mu);
	return more;
}

/* The next session with something to do, or NULL after a second; *ret_end: the thread is not needed any more. mu held. */
static struct member *next_member(struct node_queries *q, bool *ret_end)
{
	struct member *m = dequeue(q);
	struct timespec t;

	if (m || q->stop) {
		*ret_end = q->stop;
		return m;
	}
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec++;
	q->idle++;
	while (!q->queue && !q->stop && pthread_cond_timedwait(&q->wake, &q->mu, &t) == 0)
		;
	q->idle--;
	m = q->stop ? NULL : dequeue(q);
	/* The last one looks after what is left. */
	*ret_end = q->stop || (!m && q->threads > 1);
	return m;
}

static void *run(void *arg)
{
	struct slot *me = arg;
	struct node_queries *q = me->q;
	bool end = false;

	pthread_setname_np(pthread_self(), "walraft:query");
	pthread_mutex_lock(&q->mu);
	while (!end) {
		struct member *m = next_member(q, &end);

		if (!m && !end) {
			bool more;

			pthread_mutex_unlock(&q->mu);
			more = expire(q);
			pthread_mutex_lock(&q->mu);
			end = !more && !q->queue;
			continue;
		}
		if (!m)
			continue;
		pthread_mutex_unlock(&q->mu);
		work(q, m);
		pthread_mutex_lock(&q->mu);
		m->busy = false;
		if (m->gone) {
			m->busy = true;
			pthread_mutex_unlock(&q->mu);
			member_free(q, m);
			pthread_mutex_lock(&q->mu);
		} else if (m->inbox) {
			enqueue(q, m);
		}
	}
	q->threads--;
	me->ended = true;
	pthread_mutex_unlock(&q->mu);
	return NULL;
}

/* One thread more, when all have something to do. mu held. Without one, those that are there do it later. */
static void staff(struct node_queries *q)
{
	if (q->queued <= q->idle || q->threads == THREADS_MAX || q->stop)
		return;
	for (int i = 0; i < THREADS_MAX; i++) {
		struct slot *s = &q->slot[i];

		if (s->made && !s->ended)
			continue;
		if (s->made)
			pthread_join(s->thread, NULL); /* it holds no lock, and does nothing more */
		s->q = q;
		s->ended = false;
		s->made = pthread_create(&s->thread, NULL, run, s) == 0;
		q->threads += s->made;
		return;
	}
}

/* --- from the link's threads --- */

static struct member *new_member(struct node_queries *q, uint32_t conn)
{
	struct member *m = calloc(1, sizeof *m);

	if (!m)
		return NULL;
	m->session = query_session_new(q->n, conn);
	if (!m->session) {
		free(m);
		return NULL;
	}
	m->conn = conn;
	m->tail = &m->inbox;
	m->next = q->members;
	q->members = m;
	return m;
}

void node_queries_take(struct node_queries *q, struct wire_link_msg *lm)
{
	struct member *m;
	bool taken = false;

	pthread_mutex_lock(&q->mu);
	m = q->stop || !lm->conn ? NULL : find(q, lm->conn);
	if (!m && !q->stop && lm->conn)
		m = new_member(q, lm->conn);
	if (m && (m->count >= INBOX_COUNT_MAX || m->bytes + lm->msg.data_len > INBOX_MAX)) {
		m->flood = true;
		enqueue(q, m);
	} else if (m) {
		if (!m->inbox)
			m->since_us = node_now_us(q->n);
		lm->next = NULL;
		*m->tail = lm;
		m->tail = &lm->next;
		m->count++;
		m->bytes += lm->msg.data_len;
		taken = true;
		enqueue(q, m);
	}
	if (m)
		staff(q);
	pthread_mutex_unlock(&q->mu);
	if (!taken)
		wire_link_msg_free(lm);
}

void node_queries_gone(void *node, uint32_t conn)
{
	struct node_queries *q = ((struct shell_node *)node)->queries;
	struct member *m;

	pthread_mutex_lock(&q->mu);
	m = find(q, conn);
	if (m) {
		m->gone = true;
		query_session_stop(m->session);
		enqueue(q, m);
		staff(q);
	}
	pthread_mutex_unlock(&q->mu);
}

/* --- the end --- */

void node_queries_stop(struct node_queries *q)
{
	if (!q)
		return;
	pthread_mutex_lock(&q->mu);
	q->stop = true;
	for (struct member *m = q->members; m; m = m->next)
		query_session_stop(m->session);
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->mu);
	for (int i = 0; i < THREADS_MAX; i++)
		if (q->slot[i].made)
			pthread_join(q->slot[i].thread, NULL);
	while (q->members)
		member_free(q, q->members);
}

void node_queries_free(struct node_queries *q)
{
	if (!q)
		return;
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->mu);
	free(q);
}
