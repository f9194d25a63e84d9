/* I7 again, judged by what clients saw alone: the history of each run is given to the checker of test/lin, which knows nothing of
 * logs, versions or terms. Registers, each value written once.
 *
 * An attempt that ended without an outcome and is tried again under the same number is the same operation still: the state
 * machine lets one of the attempts take effect. What was given up may take effect later, or never. */
#include "test/lin/lin.h"
#include "test/sim/check.h"
#include <stdlib.h>
#include <string.h>

static void record(struct sim *s, uint32_t client, enum lin_type type, bool write, uint32_t key, uint64_t value)
{
	struct check *k = s->check;

	k->history = sim_grow(k->history, &k->cap_history, k->n_history, sizeof(*k->history));
	k->history[k->n_history++] = (struct happened){ .at_us = s->now_us, .value = value, .client = (uint8_t)client,
		                                        .type = (uint8_t)type, .write = write, .key = (uint8_t)key };
}

void check_linear_invoked(struct sim *s, uint32_t client, bool write, uint32_t key, uint64_t value)
{
	record(s, client, LIN_INVOKE, write, key, value);
}

void check_linear_ended(struct sim *s, uint32_t client, int code, uint64_t value)
{
	const struct check *k = s->check;
	size_t i = k->n_history;

	while (i && k->history[i - 1].client != client)
		i--;
	if (!i || k->history[i - 1].type != LIN_INVOKE)
		return; /* it was given up before */
	const struct happened h = k->history[i - 1];
	record(s, client, code == WIRE_OK ? LIN_OK : h.write ? LIN_INFO : LIN_FAIL, h.write, h.key, h.write ? h.value : value);
}

static lin_value value_of(struct lin_history *l, uint64_t value)
{
	return value ? lin_int(l, (int64_t)value) : LIN_NULL;
}

static struct lin_history *feed(struct sim *s)
{
	const struct check *k = s->check;
	struct lin_history *l = NULL;
	struct wire_err err = { 0 };
	int rc = lin_history_new(&l, LIN_ORDER_FED, &err);

	for (size_t i = 0; i < k->n_history && !rc; i++) {
		const struct happened *h = &k->history[i];
		struct lin_event e = { .type = (enum lin_type)h->type, .process = lin_int(l, h->client), .kind = h->write ? LIN_WRITE : LIN_READ,
			               .key = lin_int(l, h->key), .time_ns = (int64_t)h->at_us * 1000 };
		if (h->write || h->type == LIN_OK)
			e.value = value_of(l, h->value);
		rc = lin_history_add(l, &e, &err);
	}
	if (rc)
		sim_fail(s, "simulator", "the clients' history cannot be: %s", err.text);
	return l;
}

static void tell(struct sim *s, const struct lin_history *l, const struct lin_key_report *r)
{
	struct wire_buf b = WIRE_BUF_INIT;

	if (r->verdict == LIN_UNDECIDED) {
		sim_fail(s, CHECK_LINEAR, "a limit ended the search for an order of %zu operations", r->ops);
		return;
	}
	lin_op_put(l, r->stuck, &b);
	for (size_t i = 0; i < r->conflict_count && b.len < 300; i++) {
		if (r->conflict[i] == r->stuck)
			continue;
		wire_put_bytes(&b, "; ", 2);
		lin_op_put(l, r->conflict[i], &b);
	}
	if (b.failed)
		abort();
	sim_fail(s, CHECK_LINEAR, "no order of the operations has a place for this one, with those that it is in conflict with: %.*s", (int)b.len,
	         (const char *)b.data);
	wire_buf_free(&b);
}

void check_linear(struct sim *s)
{
	struct lin_history *l = s->failed ? NULL : feed(s);
	struct lin_report *r = NULL;
	struct wire_err err = { 0 };

	if (!l)
		return;
	s->counts->judged += lin_op_count(l);
	if (!s->failed && lin_check(l, NULL, &r, &err))
		abort(); /* no memory */
	for (size_t i = 0; r && i < r->key_count; i++)
		if (r->keys[i].verdict != LIN_LINEARIZABLE)
			tell(s, l, &r->keys[i]);
	lin_report_free(r);
	lin_history_free(l);
}

void check_linear_write(const struct sim *s, FILE *f)
{
	static const char *const types[] = { [LIN_INVOKE] = "invoke", [LIN_OK] = "ok", [LIN_FAIL] = "fail", [LIN_INFO] = "info" };
	const struct check *k = s->check;

	for (size_t i = 0; i < k->n_history; i++) {
		const struct happened *h = &k->history[i];
		fprintf(f, "{\"process\":%u,\"type\":\"%s\",\"op\":\"%s\",\"key\":%u", h->client, types[h->type], h->write ? "write" : "read", h->key);
		if ((h->write || h->type == LIN_OK) && h->value)
			fprintf(f, ",\"value\":%llu", (unsigned long long)h->value);
		else if (h->write || h->type == LIN_OK)
			fprintf(f, ",\"value\":null");
		fprintf(f, ",\"time\":%llu}\n", (unsigned long long)h->at_us * 1000);
	}
}
