/* Clients: one operation at a time, on the node that they believe leads or on any; what ends without an outcome is tried
 * again under the same number, or given up. */
#include "test/sim/check.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

enum {
	PATIENCE = 6, /* election timeouts until a client gives up waiting, at most */
	ENTRY_MAX = 2048,
};

static void wake_client(struct sim *s, uint32_t client, uint64_t in_us)
{
	struct sim_client *c = &s->c[client];

	c->deadline_us = s->now_us + in_us;
	sim_post(s, (struct sim_event){ .at_us = c->deadline_us, .type = EV_CLIENT, .slot = (uint8_t)client });
}

static void rest(struct sim *s, uint32_t client)
{
	s->c[client].state = CLIENT_IDLE;
	wake_client(s, client, 100 + rng_below(&s->rng, 2 * (uint64_t)s->p.think_us));
}

void client_begin(struct sim *s)
{
	for (uint32_t i = 0; i < s->p.clients; i++)
		rest(s, i);
}

/* No two writes of a run have the same. */
static uint64_t value_of(uint32_t client, uint64_t seq)
{
	return (uint64_t)(client + 1) << 40 | seq;
}

static struct sim_node *choose(struct sim *s, struct sim_client *c, bool write)
{
	struct sim_node *n = &s->n[c->hint];

	if (!n->up || rng_chance(&s->rng, write ? 120 : 400)) {
		n = &s->n[rng_below(&s->rng, SLOTS)];
		for (uint32_t i = 0; i < SLOTS && !n->up; i++)
			n = &s->n[(n->slot + 1) % SLOTS];
	}
	return n->up ? n : NULL;
}

static void begin(struct sim *s, uint32_t client)
{
	struct sim_client *c = &s->c[client];
	bool write = c->again || rng_chance(&s->rng, 600);
	struct sim_node *n = choose(s, c, write);

	if (!c->again) {
		c->key = rng_below32(&s->rng, MACHINE_KEYS);
		c->floor = check_i7_invoked(s, c->key);
		if (write)
			c->seq++;
		check_linear_invoked(s, client, write, c->key, write ? value_of(client, c->seq) : 0);
	}
	if (!n) {
		if (!write)
			check_linear_ended(s, client, WIRE_UNKNOWN, 0);
		rest(s, client);
		c->again = write;
		return;
	}
	c->state = write ? CLIENT_WRITING : CLIENT_READING;
	c->slot = n->slot;
	c->began_us = s->now_us;
	if (write)
		c->attempt = check_i8_attempt(s, client, c->key, c->seq);
	if (!write)
		c->attempt = 0;
	wake_client(s, client, (1 + rng_below(&s->rng, PATIENCE)) * s->p.election_us);
	node_deliver(n, (struct sim_request){ .kind = write ? REQ_WRITE : REQ_READ, .client = client, .attempt = c->attempt });
}

/* Nobody knows how it ended. */
static void unknown(struct sim *s, uint32_t client)
{
	struct sim_client *c = &s->c[client];

	if (c->state == CLIENT_WRITING) {
		s->counts->writes_unknown++;
		c->again = rng_chance(&s->rng, 700);
		s->counts->writes_again += c->again;
		if (!c->again)
			check_linear_ended(s, client, WIRE_UNKNOWN, 0);
	} else {
		check_linear_ended(s, client, WIRE_UNKNOWN, 0);
		s->counts->reads_failed++;
	}
	c->hint = rng_below32(&s->rng, SLOTS);
	rest(s, client);
}

void client_event(struct sim *s, uint32_t client)
{
	struct sim_client *c = &s->c[client];

	if (c->deadline_us != s->now_us)
		return; /* it was woken by an answer */
	if (c->state != CLIENT_IDLE)
		unknown(s, client);
	else if (s->resting)
		rest(s, client);
	else
		begin(s, client);
}

static bool waits(const struct sim_node *n, uint32_t client, uint64_t attempt)
{
	const struct sim_client *c = &n->sim->c[client];

	return c->state == CLIENT_WRITING && c->slot == n->slot && c->attempt == attempt;
}

static void follow_hint(struct sim_node *n, uint32_t client)
{
	struct sim *s = n->sim;
	struct sim_node *l = n->leader ? sim_by_id(s, n->leader) : NULL;

	s->c[client].hint = l ? l->slot : rng_below32(&s->rng, SLOTS);
}

/* A definite no: nothing was proposed, or it is lost for good. */
static void refused(struct sim_node *n, uint32_t client)
{
	struct sim *s = n->sim;

	s->c[client].again = true;
	follow_hint(n, client);
	s->c[client].state = CLIENT_IDLE;
	wake_client(s, client, 1000 + rng_below(&s->rng, s->p.election_us / 4));
}

static void done(struct sim *s, uint32_t client)
{
	s->c[client].again = false;
	rest(s, client);
}

static void fill(struct sim *s, const struct machine_op *op, uint8_t data[ENTRY_MAX], struct wire_entry *ret_e)
{
	uint32_t size = MACHINE_OP_BYTES + rng_below32(&s->rng, 2 * (s->p.entry_bytes - MACHINE_OP_BYTES) + 1);

	machine_op_put(op, data, size);
	*ret_e = (struct wire_entry){ .kind = WIRE_ENTRY_DATA, .size = size, .sum = wire_hash(data, size, 0), .data = data };
}

static void await(struct sim_node *n, uint64_t index, uint64_t attempt, uint32_t client)
{
	n->pending = sim_grow(n->pending, &n->cap_pending, n->n_pending, sizeof(*n->pending));
	n->pending[n->n_pending++] = (struct sim_pending){ .index = index, .term = n->term, .attempt = attempt, .client = client };
}

/* Without effect on the state, but in the log, and to be settled like all. */
void client_burst(struct sim_node *n, uint32_t count)
{
	struct sim *s = n->sim;

	for (uint32_t i = 0; i < count && n->up && !n->failing && !s->failed; i++) {
		struct machine_op op = { .attempt = check_i8_attempt(s, 0, 0, 0) };
		uint8_t data[ENTRY_MAX];
		struct wire_entry e;
		struct raft_event ev = { .type = RAFT_EV_PROPOSE, .n_entries = 1, .entries = &e };
		uint64_t index = 0;
		int code = WIRE_CLOSED;
		fill(s, &op, data, &e);
		if (!node_ask(n, ev, &code, &index) || code != WIRE_OK)
			return;
		await(n, index, op.attempt, 0);
	}
	client_settle(n);
}

void client_write(struct sim_node *n, uint32_t client, uint64_t attempt)
{
	struct sim *s = n->sim;
	const struct sim_client *c = &s->c[client];
	struct machine_op op = { .attempt = attempt, .seq = c->seq, .value = value_of(client, c->seq), .client = client, .key = c->key };
	uint8_t data[ENTRY_MAX];
	struct wire_entry e;
	struct raft_event ev = { .type = RAFT_EV_PROPOSE, .n_entries = 1, .entries = &e };
	uint64_t index = 0;
	int code = WIRE_CLOSED;

	if (!waits(n, client, attempt))
		return; /* given up while the node slept: never proposed */
	fill(s, &op, data, &e);
	if (!node_ask(n, ev, &code, &index))
		return;
	if (code == WIRE_OK && n->up && !n->failing) {
		/* Alone it may be published already: it was not in the list then. */
		await(n, index, attempt, client);
		client_settle(n);
	} else if (code != WIRE_OK && waits(n, client, attempt)) {
		refused(n, client);
	}
}

/* Only what is published settles anything: an entry that was truncated here may be committed yet. */
void client_settle(struct sim_node *n)
{
	struct sim *s = n->sim;
	size_t kept = 0, count = n->n_pending;

	n->n_pending = 0;
	for (size_t i = 0; i < count; i++) {
		struct sim_pending p = n->pending[i];
		if (p.index > n->machine.index || s->failed) {
			n->pending[kept++] = p;
			continue;
		}
		bool ok = n->log[p.index].term == p.term;
		check_i8_told(s, p.attempt, ok ? WIRE_OK : WIRE_LOST, p.index);
		if (ok)
			s->counts->writes_ok++;
		else
			s->counts->writes_lost++;
		if (ok)
			check_i5_acked(s, p.index);
		if (!waits(n, p.client, p.attempt) || s->failed)
			continue;
		if (ok) {
			check_i7_wrote(s, p.client, s->c[p.client].key, s->c[p.client].floor);
			check_linear_ended(s, p.client, WIRE_OK, 0);
			done(s, p.client);
		} else {
			refused(n, p.client);
		}
	}
	n->n_pending = kept;
}

static void read_failed(struct sim_node *n, uint32_t client)
{
	struct sim *s = n->sim;

	s->counts->reads_failed++;
	check_linear_ended(s, client, WIRE_UNKNOWN, 0);
	follow_hint(n, client);
	rest(s, client);
}

void client_read(struct sim_node *n, uint32_t client)
{
	struct sim *s = n->sim;
	struct raft_event ev = { .type = RAFT_EV_READ, .corr = ++n->next_corr };

	if (s->c[client].state != CLIENT_READING || s->c[client].slot != n->slot)
		return;
	if (n->witness) {
		read_failed(n, client);
		return;
	}
	n->readings = sim_grow(n->readings, &n->cap_readings, n->n_readings, sizeof(*n->readings));
	if (s->p.lease_reads && node_has_lease(n)) {
		n->readings[n->n_readings++] = (struct sim_reading){ .corr = ev.corr, .asked_us = s->c[client].began_us, .client = client,
			                                             .granted = true, .index = n->read_index };
		s->counts->lease_reads++;
		n->lease_used = true;
		client_serve(n);
		return;
	}
	n->readings[n->n_readings++] = (struct sim_reading){ .corr = ev.corr, .asked_us = s->c[client].began_us, .client = client };
	node_ask(n, ev, NULL, NULL);
}

/* It still waits for this very read. */
static bool reads(const struct sim_node *n, const struct sim_reading *r)
{
	const struct sim_client *c = &n->sim->c[r->client];

	return c->state == CLIENT_READING && c->slot == n->slot && c->began_us == r->asked_us;
}

void client_granted(struct sim_node *n, const struct raft_read *r)
{
	for (size_t i = 0; i < n->n_readings; i++) {
		struct sim_reading *q = &n->readings[i];
		if (q->corr != r->corr)
			continue;
		if (r->code == WIRE_OK) {
			q->granted = true;
			q->index = r->index;
			return;
		}
		if (reads(n, q))
			read_failed(n, q->client);
		*q = n->readings[--n->n_readings];
		return;
	}
	sim_fail(n->sim, "I7 linearizable reads and writes", "%s settles a read that nobody asked for, or twice", node_name(n));
}

void client_serve(struct sim_node *n)
{
	struct sim *s = n->sim;

	for (size_t i = 0; i < n->n_readings && !s->failed;) {
		struct sim_reading q = n->readings[i];
		if (!q.granted || q.index > n->machine.index) {
			i++;
			continue;
		}
		n->readings[i] = n->readings[--n->n_readings];
		if (!reads(n, &q))
			continue;
		check_i7_read(n, s->c[q.client].key, s->c[q.client].floor);
		check_linear_ended(s, q.client, WIRE_OK, n->machine.key[s->c[q.client].key].value);
		s->counts->reads_ok++;
		rest(s, q.client);
	}
}

void client_forget_writes(struct sim_node *n)
{
	for (size_t i = 0; i < n->n_pending; i++)
		if (waits(n, n->pending[i].client, n->pending[i].attempt))
			unknown(n->sim, n->pending[i].client);
	n->n_pending = 0;
}

void client_gone(struct sim_node *n)
{
	struct sim *s = n->sim;

	for (uint32_t i = 0; i < s->p.clients; i++)
		if (s->c[i].state != CLIENT_IDLE && s->c[i].slot == n->slot)
			unknown(s, i);
	n->n_pending = n->n_readings = 0;
}
