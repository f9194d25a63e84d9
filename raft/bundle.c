#include "raft/bundle.h"
#include <stdlib.h>
#include <string.h>

/* What surrounds the data of a message is far less. */
#define DATA_MAX (WIRE_MSG_MAX - 1024u)

/* What one message becomes. Those that were taken out keep their buffers for the next turn. */
struct parcel {
	struct wire_buf data;
	struct wire_msg first;
	uint32_t count;
	bool closed; /* full */
};

struct raft_bundle {
	struct parcel *v;
	size_t n, cap, made, taken; /* made: of v, have a buffer; taken: of n, are out */
	struct wire_buf one;
};

struct raft_bundle *raft_bundle_new(void)
{
	return calloc(1, sizeof(struct raft_bundle));
}

void raft_bundle_free(struct raft_bundle *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->made; i++)
		wire_buf_free(&b->v[i].data);
	wire_buf_free(&b->one);
	free(b->v);
	free(b);
}

bool raft_bundle_takes(const struct wire_msg *m)
{
	return (m->type == WIRE_MSG_HEARTBEAT || m->type == WIRE_MSG_HEARTBEAT_RESP) && !m->n_entries && !m->data_len && !m->text[0];
}

static struct parcel *add(struct raft_bundle *b, const struct wire_msg *m)
{
	if (b->n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 16;
		struct parcel *v = realloc(b->v, cap * sizeof(*v));
		if (!v)
			return NULL;
		b->v = v;
		b->cap = cap;
	}
	struct parcel *p = &b->v[b->n];
	if (b->n == b->made) {
		p->data = WIRE_BUF_INIT;
		b->made++;
	}
	b->n++;
	wire_buf_reset(&p->data);
	p->first = *m;
	p->count = 0;
	p->closed = false;
	return p;
}

static struct parcel *find(struct raft_bundle *b, const struct wire_msg *m, size_t more)
{
	for (size_t i = b->n; i > b->taken; i--) {
		struct parcel *p = &b->v[i - 1];
		if (p->first.to != m->to || p->first.from != m->from || p->closed)
			continue;
		if (p->count < RAFT_BUNDLE_MAX && p->data.len + more <= DATA_MAX)
			return p;
		p->closed = true;
	}
	return add(b, m);
}

int raft_bundle_put(struct raft_bundle *b, const struct wire_msg *m, struct wire_err *err)
{
	if (!raft_bundle_takes(m))
		return wire_fail(err, WIRE_INVALID, "a bundle does not take %s messages with entries, text or data", wire_msg_name(m->type));
	if (b->taken == b->n)
		b->taken = b->n = 0;
	wire_buf_reset(&b->one);
	int rc = wire_msg_encode(m, &b->one, err);
	if (rc != WIRE_OK)
		return rc;
	struct parcel *p = find(b, m, b->one.len + 10);
	if (!p || !wire_buf_reserve(&p->data, b->one.len + 10)) {
		if (p && !p->count)
			b->n--; /* it was made for this one */
		return wire_fail(err, WIRE_NOMEM, "no memory for a bundle of heartbeats");
	}
	wire_put_varint(&p->data, b->one.len);
	wire_put_bytes(&p->data, b->one.data, b->one.len);
	p->count++;
	return WIRE_OK;
}

bool raft_bundle_get(struct raft_bundle *b, struct wire_msg *ret_msg)
{
	if (b->taken == b->n)
		return false;
	const struct parcel *p = &b->v[b->taken++];

	*ret_msg = p->first;
	if (p->count == 1)
		return true;
	*ret_msg = (struct wire_msg){
		.type = WIRE_MSG_BUNDLE,
		.from = p->first.from,
		.to = p->first.to,
		.data_len = (uint32_t)p->data.len,
		.data = p->data.data,
	};
	return true;
}

static int open_one(struct wire_in *in, const struct wire_msg *bundle, struct wire_msg *ret, struct wire_err *err)
{
	struct wire_entry *entries = NULL;
	uint64_t n = wire_get_varint(in);
	const uint8_t *p = n && n <= wire_in_left(in) ? wire_get_bytes(in, (size_t)n) : NULL;

	if (in->bad || !p)
		return wire_fail(err, WIRE_CORRUPT, "a bundle from node %016llx has a message that is longer than what is left of it",
		                 (unsigned long long)bundle->from);
	int rc = wire_msg_decode(p, (size_t)n, ret, &entries, err);
	free(entries);
	if (rc == WIRE_NOMEM)
		return rc;
	if (rc != WIRE_OK || !raft_bundle_takes(ret) || ret->from != bundle->from || ret->to != bundle->to)
		return wire_fail(err, WIRE_CORRUPT, "a bundle from node %016llx holds what is no heartbeat of its own, or is damaged",
		                 (unsigned long long)bundle->from);
	return WIRE_OK;
}

int raft_bundle_open(const struct wire_msg *m, struct wire_msg **ret_msgs, size_t *ret_n, struct wire_err *err)
{
	struct wire_msg *v = NULL, one;
	size_t n = 0, cap = 0;
	int rc = WIRE_OK;

	if (m->type != WIRE_MSG_BUNDLE || !m->data_len || !m->data)
		return wire_fail(err, WIRE_CORRUPT, "an empty bundle of heartbeats");
	struct wire_in in = wire_in_make(m->data, m->data_len);
	while (rc == WIRE_OK && wire_in_left(&in)) {
		rc = n < RAFT_BUNDLE_MAX ? open_one(&in, m, &one, err)
		                         : wire_fail(err, WIRE_CORRUPT, "a bundle of more than %u heartbeats", RAFT_BUNDLE_MAX);
		if (rc != WIRE_OK)
			break;
		if (n == cap) {
			cap = cap ? cap * 2 : 16;
			struct wire_msg *more = realloc(v, cap * sizeof(*v));
			if (!more) {
				rc = wire_fail(err, WIRE_NOMEM, "no memory for a bundle of heartbeats");
				break;
			}
			v = more;
		}
		v[n++] = one;
	}
	if (rc != WIRE_OK) {
		free(v);
		return rc;
	}
	*ret_msgs = v;
	*ret_n = n;
	return WIRE_OK;
}
