/* A naive ledger: the log, and everything looked up by going through it. */
#ifndef TEST_UNIT_LEDGER_MODEL_H
#define TEST_UNIT_LEDGER_MODEL_H

#include "shell/ledger_impl.h"

struct model {
	struct vfs_effect *e; /* in the order of the log */
	size_t n, cap;
	uint64_t index, term, clock_us;
	uint64_t *checksum;   /* [n]: of the ledger after so many effects; 0: not known */
	struct shell_txid_source source;
	uint32_t clients;
	uint64_t seq[256];
};

void model_begin(struct model *m, uint32_t clients);
void model_free(struct model *m);
void model_add(struct model *m); /* one more entry of the log: mostly a transaction */

void feed(struct shell_ledger *l, struct model *m, size_t from, size_t to); /* applies effects from .. to - 1, some at a time */
void check_sessions(struct shell_ledger *l, const struct model *m, size_t n); /* it is as after n effects */
void check_outcomes(struct shell_ledger *l, const struct model *m, size_t n, int probes);
uint64_t sum_of(struct shell_ledger *l);
struct shell_ledger *fresh(void); /* as a new cluster's */

uint32_t below(uint32_t n);
void ledger_seed(const char *test); /* prints it, with how to repeat */

#endif
