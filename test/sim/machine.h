/* The replicated state machine: registers whose every write is also an element of a list (by the hash of the list), with a
 * checksum of the state. A client's write takes effect once, however often its entry is committed: by the client's number. */
#ifndef TEST_SIM_MACHINE_H
#define TEST_SIM_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MACHINE_KEYS = 6, MACHINE_CLIENTS = 8, MACHINE_OP_BYTES = 40 };

struct machine_op {
	uint64_t attempt; /* no two proposals have the same */
	uint64_t seq;     /* the client's number of the write; a repeated attempt has the same */
	uint64_t value;
	uint32_t client, key;
};

struct machine_key { uint64_t value, version, list; };

struct machine {
	uint64_t index; /* entries up to here are in it */
	uint64_t hash;
	struct machine_key key[MACHINE_KEYS];
	uint64_t seq[MACHINE_CLIENTS];
};

/* An entry's data: MACHINE_OP_BYTES, then filling up to `size`. */
void machine_op_put(const struct machine_op *op, uint8_t *dst, uint32_t size);
bool machine_op_get(const uint8_t *src, size_t size, struct machine_op *ret_op); /* false: not such bytes */
/* Entry index m->index + 1. op: NULL when it carries none. True when the op took effect. */
bool machine_apply(struct machine *m, uint64_t term, const struct machine_op *op);

#endif
