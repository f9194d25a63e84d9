/* Large histories of a true store under load: 16 processes, operations that overlap, some of unknown outcome that take effect
 * late or never. */
#ifndef TEST_UNIT_LIN_LOAD_H
#define TEST_UNIT_LIN_LOAD_H

#include "test/lin/lin.h"

enum load_kind {
	LOAD_UNIQUE,   /* reads and writes, each value written once */
	LOAD_AGAIN,    /* likewise, but a write of unknown outcome is repeated until it is known */
	LOAD_CAS,      /* reads, writes, and cas from what the process saw last, all of new values */
	LOAD_FEW,      /* reads, writes and cas of the values 0 to 4 */
	LOAD_LIST,     /* reads and appends of values that are new */
	LOAD_LIST_FEW  /* of the values 0 to 4 */
};

/* A read that does not tell the truth. */
enum load_lie {
	LIE_NONE,
	LIE_STALE,   /* tells of a value that was overwritten long ago; of a list, its older state */
	LIE_UNHEARD, /* tells of a value that nobody wrote */
	LIE_LOST,    /* from here on, the store has forgotten its last write or append that was acknowledged */
	LIE_LAST     /* registers: all told the truth; then, alone, one writes, and reads something else */
};

struct load {
	enum load_kind kind;
	uint32_t processes, ops, unknown; /* so many operations have no known outcome */
	uint32_t reads_of_10;
	enum load_lie lie;
	uint32_t lie_at; /* from the first fitting operation behind this one on */
	uint64_t seed;
};

/* Aborts when memory fails. */
struct lin_history *load_make(const struct load *l);

#endif
