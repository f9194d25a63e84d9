/* Small histories, and whether they are linearizable by the definition: all orders are tried, without any cleverness. */
#ifndef TEST_UNIT_LIN_BRUTE_H
#define TEST_UNIT_LIN_BRUTE_H

#include "test/lin/lin.h"

#define BRUTE_OPS_MAX 8
#define BRUTE_NEVER UINT32_MAX

struct brute_op {
	uint32_t process, key;
	enum lin_kind kind;
	enum lin_type outcome;
	int value, old;         /* 0: the key is absent */
	int list[BRUTE_OPS_MAX]; /* what a read of a list returned */
	int list_len;
	uint32_t inv, end;      /* times; end also of one that failed; BRUTE_NEVER */
};

struct brute {
	bool list;
	uint32_t count;
	struct brute_op ops[BRUTE_OPS_MAX];
};

/* Of key `key`: whether the history up to and without time `cut` has an order, when of the operations in the bit set
 * `doubted` reads are left out, and others taken as of unknown outcome. */
bool brute_check(const struct brute *b, uint32_t key, uint32_t cut, uint32_t doubted);

/* A random history of up to `max` operations: those of a true store, with up to five of them changed. */
void brute_make(struct brute *b, uint64_t seed, uint32_t max);

/* The same with the names and numbers of lin.h; operations are numbered as in `b`. With `coarse`, times are a tenth, and
 * processes are fed one after the other: then ret_op[i] is the number that operation i got. */
struct lin_history *brute_feed(const struct brute *b, bool coarse, uint32_t *ret_op);
void brute_print(const struct brute *b);

#endif
