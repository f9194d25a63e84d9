/* A model of the journal: it keeps every operation in order; what is recovered must be the model's state after some number of
 * them, at least as many as were durable. And a random user, who does the same things to both. */
#ifndef TEST_UNIT_JOURNAL_MODEL_H
#define TEST_UNIT_JOURNAL_MODEL_H

#include "test/unit/journal_kit.h"

enum { MODEL_OPS_MAX = 6000, MODEL_LOG_MAX = 6000, MODEL_DATA_MAX = 6000, MODEL_BASE = 5 };

enum model_what { MODEL_ENTRY, MODEL_TRUNCATE, MODEL_VOTE, MODEL_PUBLISH, MODEL_MARK };
struct model_op {
	enum model_what what;
	uint64_t index, term, vote, sum;
	uint32_t size, tag;
	uint32_t members; /* ENTRY: a configuration of so many; 0: data */
};
struct model {
	struct model_op ops[MODEL_OPS_MAX];
	size_t n, synced; /* ops that are durable for sure */
};
struct model_state {
	uint64_t last, term, vote, mark;
	uint32_t pub;
	struct model_op log[MODEL_LOG_MAX];
};

/* How a journal's segments are, and how large its entries get. */
struct model_shape {
	struct raft_journal_opts opts;
	uint32_t data_max;
};
/* 4 KiB each; 2, 4, 8, 16 KiB and so on; 2 to 256 KiB. */
extern const struct model_shape model_equal, model_growing, model_steep;

struct model_world {
	const struct model_shape *shape;
	struct disk *d;
	struct raft_journal *j;
	struct model m;
	struct model_state s;
	uint64_t commit, base;
	uint32_t tag;
	bool dead; /* the disk refused something, which may or may not have an effect */
};

/* The random numbers' state: set it for a run that can be repeated. model_seed: WALRAFT_SEED, or the time; prints it. */
extern uint64_t model_random;
uint64_t model_rnd(uint64_t n);
uint64_t model_seed(void);

struct disk *model_disk(const struct model_shape *shape); /* with a new journal in "j" */
void model_begin(struct model_world *w, const struct model_shape *shape);
/* After a recovery: the operations from the given one on never were. */
void model_go_back(struct model_world *w, size_t n, const struct raft_journal_state *st);
void model_act(struct model_world *w, bool with_trims); /* something at random */
void model_entries(struct model_world *w, uint32_t n);
void model_publish(struct model_world *w);
void model_sync(struct model_world *w);
/* Ends the use of a journal as a kill would: nothing is written any more. */
void model_drop(struct raft_journal *j);

/* Which prefix of the model is this? -1: none of at least `min` operations. */
long model_match(const struct model *m, const struct raft_journal_state *st, size_t min);
/* The same where something was damaged that was durable: nothing of the log or the hard state is missing but entries' data, of a mark or publications perhaps. */
bool model_match_damaged(const struct model *m, const struct raft_journal_state *st);
/* The log is what it was at some time, and the journal forgetful. */
bool model_match_salvaged(const struct model *m, const struct raft_journal_state *st);
/* Fills all holes; how many there were. */
size_t model_fill(const struct model *m, struct raft_journal *j, const struct raft_journal_state *st);
/* Every entry that is no hole can be read and is what the log says. */
void model_check_data(struct raft_journal *j, const struct raft_journal_state *st);
/* A journal that was recovered works: one more entry, and the same again after a close. Closes it. */
void model_check_goes_on(const struct model_shape *shape, struct disk *d, struct raft_journal *j, const struct raft_journal_state *st);

#endif
