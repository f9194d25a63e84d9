/* A log of real transactions and a replica to publish them into. The transactions are made by SQLite on a plain database, page by page compared before
 * and after; the replica is a file beside it. What the node's journal would know is in shared memory, so that it outlives a killed child. */
#ifndef TEST_DB_WORLD_H
#define TEST_DB_WORLD_H

#include "vfs/db.h"
#include <sqlite3.h>
#include <sys/types.h>

#define WORLD_KNOWN_MAX 65536u
#define WORLD_TOTAL 100000 /* sum over both accounts tables, after every transaction */

struct world_entry { uint8_t kind; uint64_t term; uint8_t *data; size_t len; };
struct world_state { uint64_t sum; uint32_t pages; };
struct world_journal {
	uint64_t mark_index, mark_sum, n_known, n_marks, n_restarts;
	uint32_t mark_pages;
	struct vfs_known_pos known[WORLD_KNOWN_MAX];
};

struct world {
	char dir[64], source[96], replica[96], pages[96];
	sqlite3 *sql;
	uint32_t page_size, model_pages;
	uint8_t *model; /* pages after the last entry */
	uint64_t n, cap, term;
	struct world_entry *log;   /* [index - 1] */
	struct world_state *state; /* [index] */
	struct world_journal *journal;
	int (*effects)(struct world *w, uint64_t upto, const struct vfs_effect *effects, size_t n); /* NULL: nobody listens; of databases opened from then on */
	uint32_t seed;
};

void world_init_sqlite(void); /* fills sqlite3_api; once */
uint32_t world_random(struct world *w, uint32_t below);
void world_new(struct world *w, uint32_t page_size, uint32_t seed); /* with two accounts tables, already adopted as the replica at index 0 */
void world_free(struct world *w);
void world_sql(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The difference to the last call as entries: one, or with chunk_pages > 0 chunks of so many pages, a NOOP between them; close: with the last one. */
void world_commit(struct world *w, uint32_t chunk_pages, bool close);
void world_transaction(struct world *w); /* a random one, committed */
void world_noop(struct world *w);
int world_read_entry(void *ctx, uint64_t index, uint8_t *ret_kind, uint64_t *ret_term, struct wire_buf *ret_data, struct wire_err *err);
struct vfs_node_ops world_ops(struct world *w);
int world_open(struct world *w, struct vfs_db **ret_db, struct wire_err *err);
struct vfs_db *world_must_open(struct world *w);
void world_apply(struct world *w, struct vfs_db *db, uint64_t last);
void world_check(struct world *w, struct vfs_db *db); /* checksum and size as the log says; at its end all pages */

/* Processes without walraft: this program with other arguments, see world_main. With WORLD_PATIENT in the environment they have a busy timeout, which
 * stock processes need among themselves while no node is there (one that closes last locks the others out). */
pid_t world_start_reader(struct world *w);
uint64_t world_stop_reader(pid_t pid, struct world *w); /* number of reads; fails on any error or inconsistent sum */
int world_stock(const char *path, const char *sql, char *out, size_t cap); /* one statement in a process of its own; an SQLite code */
bool world_main(int argc, char **argv, int *ret_status);

#endif
