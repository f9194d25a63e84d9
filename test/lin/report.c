/* The report as a table for people, and as JSON for programs. */
#include "test/lin/history.h"

#include <inttypes.h>
#include <string.h>

/* More keys that are fine are only counted. */
#define FINE_KEYS_SHOWN 40u
#define CONFLICT_SHOWN 30u
#define KEY_WIDTH 24

static const char *model_text(enum lin_model m)
{
	return m == LIN_LIST ? "list" : "register";
}

static void put_key_name(const struct lin_history *h, lin_value key, struct wire_buf *b)
{
	struct wire_buf name = WIRE_BUF_INIT;
	size_t width = 0;

	lin_value_put(h, key, 0, &name);
	/* Bytes that begin a character. */
	for (size_t i = 0; i < name.len; i++)
		width += (name.data[i] & 0xc0) != 0x80;
	wire_put_bytes(b, name.data, name.len);
	for (; width < KEY_WIDTH; width++)
		wire_put_u8(b, ' ');
	b->failed |= name.failed;
	wire_buf_free(&name);
}

static void put_row(const struct lin_history *h, const struct lin_key_report *k, struct wire_buf *b)
{
	put_key_name(h, k->key, b);
	lin_putf(b, "  %-8s  %8zu  %8zu  %6zu  %6zu  %10" PRIu64 "  %s\n", model_text(k->model), k->ops, k->ok, k->fail, k->info,
	         k->states, k->verdict == LIN_LINEARIZABLE ? "linearizable" : k->verdict == LIN_VIOLATION ? "VIOLATION" : "UNDECIDED");
}

static void put_op_line(const struct lin_history *h, uint32_t i, struct wire_buf *b)
{
	const struct lin_op *op = lin_op_at(h, i);

	lin_putf(b, "    line %zu", op->invoke_line);
	if (op->end_line)
		lin_putf(b, " to %zu", op->end_line);
	lin_putf(b, ": process ");
	lin_value_put(h, op->process, 0, b);
	lin_putf(b, ", ");
	lin_op_put(h, i, b);
	lin_putf(b, "%s\n", op->outcome == LIN_INFO ? " (outcome unknown)" : "");
}

static void put_why(const struct lin_history *h, const struct lin_key_report *k, struct wire_buf *b)
{
	size_t from = k->conflict_count > CONFLICT_SHOWN ? k->conflict_count - CONFLICT_SHOWN : 0;

	lin_putf(b, "\nkey ");
	lin_value_put(h, k->key, 0, b);
	lin_putf(b, ": with the %zu operations that had ended ok before, no order has a place for\n", k->prefix_ok);
	put_op_line(h, k->stuck, b);
	if (k->conflict_count > 1) {
		lin_putf(b, "  These cannot all have happened as told, whatever is believed of the others; of them none can be spared:\n");
		if (from)
			lin_putf(b, "    (%zu earlier ones)\n", from);
		for (size_t i = from; i < k->conflict_count; i++)
			put_op_line(h, k->conflict[i], b);
	} else if (k->conflict_count == 1) {
		lin_putf(b, "  It cannot have happened as told, whatever is believed of the others.\n");
	}
	if (!k->exact)
		lin_putf(b, "  Limits ended the search for the reason: an earlier operation may be to blame, or fewer.\n");
}

void lin_put_table(const struct lin_history *h, const struct lin_report *r, struct wire_buf *b)
{
	size_t fine = 0;

	lin_putf(b, "%-*s  %-8s  %8s  %8s  %6s  %6s  %10s  %s\n", KEY_WIDTH, "key", "model", "ops", "ok", "fail", "info", "states", "verdict");
	for (size_t i = 0; i < r->key_count; i++) {
		fine += r->keys[i].verdict == LIN_LINEARIZABLE;
		if (r->keys[i].verdict != LIN_LINEARIZABLE || fine <= FINE_KEYS_SHOWN)
			put_row(h, &r->keys[i], b);
	}
	if (fine > FINE_KEYS_SHOWN)
		lin_putf(b, "and %zu more keys, all linearizable\n", fine - FINE_KEYS_SHOWN);
	for (size_t i = 0; i < r->key_count; i++) {
		const struct lin_key_report *k = &r->keys[i];

		if (k->verdict == LIN_VIOLATION)
			put_why(h, k, b);
		if (k->verdict != LIN_UNDECIDED)
			continue;
		lin_putf(b, "\nkey ");
		lin_value_put(h, k->key, 0, b);
		lin_putf(b, ": undecided, the limit of %s was hit; nothing is known of it\n", k->limit == LIN_LIMIT_TIME ? "time" : "states");
	}
	lin_putf(b, "\n%zu operations on %zu keys: %s\n", lin_op_count(h), r->key_count, lin_verdict_text(r->verdict));
}

static void put_json_op(const struct lin_history *h, uint32_t i, struct wire_buf *b)
{
	const struct lin_op *op = lin_op_at(h, i);

	lin_putf(b, "{\"process\":");
	lin_value_put(h, op->process, 0, b);
	lin_putf(b, ",\"op\":\"%s\",\"value\":", lin_kind_text(op->kind));
	if (op->kind == LIN_CAS) {
		wire_put_u8(b, '[');
		lin_value_put(h, op->old, 0, b);
		wire_put_u8(b, ',');
	}
	lin_value_put(h, op->value, 0, b);
	lin_putf(b, "%s,\"outcome\":\"%s\",\"invoke_line\":%zu,\"end_line\":", op->kind == LIN_CAS ? "]" : "",
	         op->outcome == LIN_OK ? "ok" : op->outcome == LIN_FAIL ? "fail" : "info", op->invoke_line);
	if (op->end_line)
		lin_putf(b, "%zu}", op->end_line);
	else
		lin_putf(b, "null}");
}

static void put_json_why(const struct lin_history *h, const struct lin_key_report *k, struct wire_buf *b)
{
	lin_putf(b, ",\"prefix_ok\":%zu,\"exact\":%s,\"stuck\":", k->prefix_ok, k->exact ? "true" : "false");
	put_json_op(h, k->stuck, b);
	lin_putf(b, ",\"conflict\":[");
	for (size_t i = 0; i < k->conflict_count; i++) {
		lin_putf(b, "%s", i ? "," : "");
		put_json_op(h, k->conflict[i], b);
	}
	lin_putf(b, "],\"order\":[");
	for (size_t i = 0; i < k->order_count; i++)
		lin_putf(b, "%s%zu", i ? "," : "", lin_op_at(h, k->order[i])->invoke_line);
	wire_put_u8(b, ']');
}

void lin_put_json(const struct lin_history *h, const struct lin_report *r, struct wire_buf *b)
{
	lin_putf(b, "{\"verdict\":\"%s\",\"keys\":[", lin_verdict_text(r->verdict));
	for (size_t i = 0; i < r->key_count; i++) {
		const struct lin_key_report *k = &r->keys[i];

		lin_putf(b, "%s{\"key\":", i ? "," : "");
		lin_value_put(h, k->key, 0, b);
		lin_putf(b, ",\"model\":\"%s\",\"verdict\":\"%s\",\"ops\":%zu,\"ok\":%zu,\"fail\":%zu,\"info\":%zu,\"states\":%" PRIu64,
		         model_text(k->model), lin_verdict_text(k->verdict), k->ops, k->ok, k->fail, k->info, k->states);
		if (k->verdict == LIN_UNDECIDED)
			lin_putf(b, ",\"limit\":\"%s\"", k->limit == LIN_LIMIT_TIME ? "time" : "states");
		if (k->verdict == LIN_VIOLATION)
			put_json_why(h, k, b);
		wire_put_u8(b, '}');
	}
	lin_putf(b, "]}\n");
}
