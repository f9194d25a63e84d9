/* Inside of a history: for the files of this folder. */
#ifndef TEST_LIN_HISTORY_H
#define TEST_LIN_HISTORY_H

#include "test/lin/lin.h"

struct lin_value_entry {
	uint64_t hash;
	uint32_t next;        /* with the same bucket, LIN_BAD at the end */
	bool list;
	uint32_t length;      /* of a list: elements; of anything else: bytes of its canonical text */
	size_t text;          /* offset in history.text; not for lists */
	lin_value rest, last; /* a list, not the empty one: `rest` with `last` at its end */
	uint32_t process;     /* index of the process or the key of this name, LIN_NO_OP if there is none */
	uint32_t key;
};

struct lin_process {
	uint32_t open; /* operation under way, or LIN_NO_OP */
	uint32_t session;
	int64_t last_ns;
	size_t last_line;
	bool seen;
};

/* Lines that tell whether a key is a register or a list; 0: none. */
struct lin_key {
	lin_value name;
	size_t register_line, list_line, plain_read_line, list_read_line;
};

struct lin_history {
	enum lin_order order;
	bool has_times;
	uint64_t events;
	struct wire_buf text;
	struct lin_value_entry *values;
	size_t value_count, value_cap;
	uint32_t *buckets;
	size_t bucket_count; /* a power of two */
	struct lin_op *ops;
	size_t op_count, op_cap;
	struct lin_process *processes;
	size_t process_count, process_cap;
	struct lin_key *keys;
	size_t key_count, key_cap;
};

int lin_values_init(struct lin_history *h, struct wire_err *err);
/* The value of a canonical JSON text that is neither null nor a list. LIN_BAD when memory fails. */
lin_value lin_canonical(struct lin_history *h, const void *text, size_t len);
/* As lin_push, but LIN_BAD when there is no such value yet. */
lin_value lin_find_push(const struct lin_history *h, lin_value list, lin_value element);
/* Appends a UTF-8 string as canonical JSON: quotes, and escapes only where they must be. */
void lin_put_string(struct wire_buf *b, const char *s, size_t len);
void lin_putf(struct wire_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Appends the text of a page's element or attribute. */
void lin_put_escaped(struct wire_buf *b, const void *s, size_t len);

/* Room for one more element of `size` bytes; false when memory fails. */
bool lin_grow(void *array_ptr, size_t *cap, size_t count, size_t size);

/* The operation that a process has under way, or NULL. */
const struct lin_op *lin_open_op(const struct lin_history *h, lin_value process);
enum lin_model lin_key_model(const struct lin_key *k);
const char *lin_kind_text(enum lin_kind kind);

#endif
