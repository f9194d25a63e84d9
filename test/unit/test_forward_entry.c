/* Entries of transactions that run on other nodes (shell/grants_entry.c, shell/forward_entry.c), and who waits for them (shell/settle.c), with the rest of a node left out: copies that come late or
 * in another order, answers that are not for this, and the order of those who wait. */
#include "shell/forward_entry.c"
#include "shell/grants_entry.c"
#include "shell/settle.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ASKER 7u
#define LEADER 3u
#define TERM 5u
#define NUMBER 9u

static struct shell_node *node;
static struct wire_msg said; /* the latest message */
static unsigned n_said, n_proposed, n_ended;
static int propose_code;
static uint64_t last_index;

/* ---- what the rest of a node would do ---- */

void node_send(struct shell_node *n, uint64_t to, const struct wire_msg *m)
{
	(void)n;
	said = *m;
	said.to = to;
	n_said++;
}

int node_step(struct shell_node *n, struct raft_event *ev, int *ret_code, uint64_t *ret_index)
{
	(void)n, (void)ev, (void)ret_code, (void)ret_index;
	return WIRE_OK;
}

int node_handle_requests(struct shell_node *n, struct request *r)
{
	if (node_grants_may_propose(n, r)) {
		n_proposed += !propose_code;
		last_index += !propose_code;
		node_grants_proposed(n, r, propose_code, last_index);
	} else {
		node_grants_proposed(n, r, WIRE_FENCED, 0);
	}
	request_unref(r);
	return WIRE_OK;
}

struct request *request_new(enum request_kind kind)
{
	struct request *r = calloc(1, sizeof *r);

	assert_non_null(r);
	r->kind = kind;
	r->refs = 2;
	pthread_cond_init(&r->cond, NULL);
	return r;
}

void grants_refuse(struct shell_node *n, const struct wire_msg *q, uint8_t type, int code, const char *why)
{
	struct wire_msg m = { .type = type, .flags = WIRE_MSG_REJECT, .corr = q->corr, .hint = (uint64_t)code, .term = q->term, .log_term = q->log_term, .commit = q->commit };

	(void)why;
	node_send(n, q->from, &m);
}

void grants_end(struct shell_node *n, struct grant_ticket *t)
{
	assert_ptr_equal(n->grants.first, t);
	n->grants.first = NULL;
	n_ended++;
	free(t);
}

void vfs_db_status(struct vfs_db *db, struct vfs_db_status *ret_status)
{
	(void)db;
	*ret_status = (struct vfs_db_status){ .checksum = 4711, .db_pages = 10, .page_size = 4096 };
}

uint64_t raft_term_of(const struct raft *r, uint64_t index)
{
	(void)r, (void)index;
	return TERM;
}

uint64_t node_now_us(const struct shell_node *n)
{
	(void)n;
	return 1000000;
}

bool node_wait(struct shell_node *n, pthread_cond_t *cond, uint64_t deadline_us)
{
	(void)n, (void)cond, (void)deadline_us;
	return false;
}

void node_tell(struct node_events *e, enum raft_told_event event, uint64_t peer, uint64_t a, uint64_t b)
{
	(void)e, (void)event, (void)peer, (void)a, (void)b;
}

void node_fresh_learn(struct shell_node *n, uint64_t at_us, uint64_t index)
{
	(void)n, (void)at_us, (void)index;
}

struct forward_ticket *forward_find_epoch(struct shell_node *n, uint64_t epoch)
{
	(void)n, (void)epoch;
	return NULL;
}

bool forward_is_stale(const struct shell_node *n, const struct forward_ticket *t)
{
	(void)n, (void)t;
	return false;
}

void forward_look_soon(struct shell_node *n, uint64_t now)
{
	(void)n, (void)now;
}

int forward_send(struct shell_node *n, uint64_t to, enum wire_lane lane, struct wire_msg *m)
{
	(void)lane;
	node_send(n, to, m);
	return WIRE_OK;
}

int forward_may_ask(const struct shell_node *n, struct wire_err *err)
{
	(void)n, (void)err;
	return WIRE_OK;
}

/* ---- the leader ---- */

static int setup(void **state)
{
	struct grant_ticket *t = calloc(1, sizeof *t);

	(void)state;
	node = calloc(1, sizeof *node);
	assert_true(node && t);
	pthread_mutex_init(&node->mu, NULL);
	node->conf.node = LEADER;
	node->shared.role = RAFT_LEADER;
	node->shared.term = node->grants.used_term = TERM;
	*t = (struct grant_ticket){ .node = ASKER, .id = 1, .state = GRANT_GIVEN, .number = NUMBER, .txid = { 1, 2, 3 } };
	node->grants.first = t;
	n_said = n_proposed = n_ended = 0;
	propose_code = WIRE_OK;
	last_index = 100;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(node->grants.first);
	while (node->pending) {
		struct pending *p = node->pending;

		node->pending = p->next;
		free(p);
	}
	free(node);
	return 0;
}

/* An entry of the transaction, sent for the copies-th time. n_chunks 0: it does not close it. */
static void propose(uint64_t corr, uint32_t chunk, uint32_t n_chunks, uint64_t first_index, uint64_t copies)
{
	struct vfs_pageset_head h = { .flags = (uint8_t)((chunk ? 0 : VFS_PAGESET_FIRST) | (n_chunks ? VFS_PAGESET_CLOSE : 0)), .chunk = (uint16_t)chunk, .n_chunks = n_chunks,
		                      .txid = { 1, 2, 3 }, .first_index = first_index, .sum_before = 4711, .db_before = 10, .db_after = n_chunks ? 10 : 0, .sum_after = n_chunks ? 1 : 0 };
	struct wire_msg m = { .type = WIRE_MSG_PROPOSE_REQ, .from = ASKER, .corr = corr, .term = TERM, .log_term = NUMBER, .commit = copies, .hint = n_chunks != 0 };
	struct vfs_pageset_enc enc;
	struct wire_buf out = WIRE_BUF_INIT;
	uint8_t page[4096] = { 0 };

	vfs_pageset_enc_init(&enc, sizeof page);
	vfs_pageset_enc_add(&enc, chunk + 1, NULL, page, 1);
	assert_int_equal(vfs_pageset_enc_finish(&enc, &h, &out, NULL), WIRE_OK);
	m.data = out.data;
	m.data_len = (uint32_t)out.len;
	assert_int_equal(node_grants_propose(node, &m), WIRE_OK);
	wire_buf_free(&out);
	vfs_pageset_enc_free(&enc);
}

static bool was_refused(bool certain)
{
	return (said.flags & WIRE_MSG_REJECT) && said.type == WIRE_MSG_PROPOSE_RESP && said.log_term == NUMBER && said.term == TERM && said.commit == certain;
}

/* The asker sends a chunk again, has the answer to the first copy before the second one has left, and the next chunk overtakes that: proposed once more, it would make the close one that names too few, which nobody but
 * its asker takes for a commit. */
static void chunk_that_comes_late(void **state)
{
	(void)state;
	propose(11, 0, 0, 0, 0);
	propose(12, 1, 0, 0, 0);
	propose(13, 2, 0, 0, 0);
	assert_int_equal(n_proposed, 3);
	propose(12, 1, 0, 0, 1);
	propose(11, 0, 0, 0, 1);
	assert_int_equal(n_proposed, 3);
	propose(13, 2, 0, 0, 1); /* the latest one is answered again */
	assert_int_equal(n_proposed, 3);
	assert_int_equal(said.index, 103);
	propose(14, 3, 4, 101, 0);
	assert_int_equal(n_proposed, 4);
	assert_int_equal(n_ended, 0);
	assert_int_equal(node->grants.first->state, GRANT_CLOSING);
}

static void close_that_names_others(void **state)
{
	(void)state;
	propose(11, 0, 0, 0, 0);
	propose(12, 1, 3, 101, 0);
	assert_int_equal(n_proposed, 1);
	assert_true(was_refused(true));
	assert_int_equal(n_ended, 1);
}

static void close_with_another_beginning(void **state)
{
	(void)state;
	propose(11, 0, 0, 0, 0);
	propose(12, 1, 2, 100, 0);
	assert_int_equal(n_proposed, 1);
	assert_true(was_refused(true));
}

/* What was refused is not proposed when another copy of it comes: its connection has been told that it is not committed. */
static void refused_and_again(void **state)
{
	(void)state;
	propose_code = WIRE_BUSY;
	propose(11, 0, 1, 0, 0);
	assert_true(was_refused(true));
	assert_int_equal(said.hint, WIRE_BUSY);
	propose_code = WIRE_OK;
	propose(11, 0, 1, 0, 1);
	assert_int_equal(n_proposed, 0);
	assert_true(was_refused(true));
}

/* Who does not lead any more can only tell of a thing that was sent once. */
static void deposed(void **state)
{
	(void)state;
	node->shared.role = RAFT_FOLLOWER;
	propose(11, 0, 1, 0, 0);
	assert_int_equal(n_said, 1);
	assert_true(was_refused(false));
	propose(11, 0, 1, 0, 1);
	assert_int_equal(n_said, 1);
	assert_int_equal(n_proposed, 0);
}

static void close_again(void **state)
{
	(void)state;
	propose(11, 0, 1, 0, 0);
	propose(11, 0, 1, 0, 1);
	assert_int_equal(n_proposed, 1);
	assert_int_equal(said.index, 101);
	free(node->grants.first); /* it is published */
	node->grants.first = NULL;
	said.index = 0;
	propose(11, 0, 1, 0, 2);
	assert_int_equal(n_proposed, 1);
	assert_int_equal(said.index, 101);
}

/* ---- the asker ---- */

static struct request *wait_for(uint64_t corr, bool is_close, uint64_t sendings)
{
	struct forwarded *f = calloc(1, sizeof *f);
	struct request *r = request_new(REQUEST_PROPOSE);

	assert_non_null(f);
	r->is_close = is_close;
	*f = (struct forwarded){ .next = node->forward.waiting, .req = r, .leader = LEADER, .term = TERM, .number = NUMBER, .corr = corr, .sendings = sendings };
	node->forward.waiting = f;
	atomic_fetch_add(&node->forward.n_waiting, 1);
	return r;
}

static void answer(struct wire_msg m)
{
	m.type = WIRE_MSG_PROPOSE_RESP;
	forward_entry_answer(node, &m);
}

static void end_wait(struct request *r)
{
	assert_true(r->done);
	request_unref(r);
}

static void answers_to_others(void **state)
{
	struct request *r = wait_for(21, false, 1);

	(void)state;
	answer((struct wire_msg){ .from = LEADER, .corr = 21, .term = TERM, .log_term = NUMBER - 1, .index = 5 });
	answer((struct wire_msg){ .from = LEADER, .corr = 21, .term = TERM - 1, .log_term = NUMBER, .flags = WIRE_MSG_REJECT, .commit = 1, .hint = WIRE_FENCED });
	answer((struct wire_msg){ .from = LEADER, .corr = 21, .term = TERM, .log_term = NUMBER - 1, .flags = WIRE_MSG_REJECT, .commit = 1, .hint = WIRE_FENCED });
	answer((struct wire_msg){ .from = LEADER + 1, .corr = 21, .term = TERM, .log_term = NUMBER, .flags = WIRE_MSG_REJECT, .commit = 1, .hint = WIRE_FENCED });
	assert_false(r->done);
	answer((struct wire_msg){ .from = LEADER, .corr = 21, .term = TERM, .log_term = NUMBER, .index = 6 });
	assert_int_equal(r->code, WIRE_OK);
	assert_int_equal(r->index, 6);
	end_wait(r);
}

static void refusals(void **state)
{
	struct request *r = wait_for(21, true, 2);
	struct wire_msg no = { .from = LEADER, .corr = 21, .term = TERM, .log_term = NUMBER, .flags = WIRE_MSG_REJECT, .hint = WIRE_FENCED };

	(void)state;
	answer(no); /* of the first copy: the second one may have come before it */
	assert_false(r->done);
	no.commit = 1;
	answer(no);
	assert_int_equal(r->code, WIRE_FENCED);
	end_wait(r);
	r = wait_for(22, true, 1);
	no.corr = 22;
	no.commit = 0;
	answer(no);
	assert_int_equal(r->code, WIRE_FENCED);
	end_wait(r);
}

/* One of an earlier leadership waits at an index that is not reached again yet: what a connection is about to publish is not the publisher's all the same. */
static void order_of_waiting(void **state)
{
	static const uint64_t index[] = { 15, 11, 20, 12 };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct pending *p = calloc(1, sizeof *p);

		assert_non_null(p);
		p->index = index[i];
		node_pending_add(node, p);
	}
	node->shared.commit = node->shared.persisted = 13;
	assert_int_equal(node_publish_limit(node), 10);
	node_pending_remove(node, 11);
	assert_int_equal(node_publish_limit(node), 11);
	node_pending_remove(node, 12);
	assert_int_equal(node_publish_limit(node), 13);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(chunk_that_comes_late, setup, teardown),
		cmocka_unit_test_setup_teardown(close_that_names_others, setup, teardown),
		cmocka_unit_test_setup_teardown(close_with_another_beginning, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_and_again, setup, teardown),
		cmocka_unit_test_setup_teardown(deposed, setup, teardown),
		cmocka_unit_test_setup_teardown(close_again, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_to_others, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(order_of_waiting, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
