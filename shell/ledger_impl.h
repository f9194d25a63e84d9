/* Inside of ledger*.c. */
#ifndef SHELL_LEDGER_IMPL_H
#define SHELL_LEDGER_IMPL_H

#include "shell/ledger.h"
#include "shell/txid.h"
#include <pthread.h>

struct ledger_term { uint64_t term, first; };
struct ledger_id { uint8_t id[VFS_TXID_BYTES]; uint64_t index; };

/* Ids in a ring: the one with number i (from 0, in the order of the log) lies at i & (cap - 1). Chains of slot + 1, 0 ends them. */
struct ledger_ids {
	struct ledger_id *slot;
	uint32_t *next, *bucket; /* cap of each */
	uint32_t cap, n;
	uint64_t end; /* number of the next one */
	uint64_t sum;
};
int ledger_ids_put(struct ledger_ids *w, const uint8_t id[VFS_TXID_BYTES], uint64_t index, uint64_t *from); /* moves *from when it forgets one; WIRE_NOMEM */
const struct ledger_id *ledger_ids_find(const struct ledger_ids *w, const uint8_t id[VFS_TXID_BYTES]);
const struct ledger_id *ledger_ids_at(const struct ledger_ids *w, uint64_t number); /* end - n .. end - 1 */
void ledger_ids_free(struct ledger_ids *w);

/* Sessions in slots that never move, so that a copy can go over them while they change. References are slot + 1; 0: none. */
struct ledger_session {
	struct shell_session s;
	uint32_t newer, older; /* by index of their latest step; of a free slot: older is the next free one */
	uint32_t chain;        /* of a bucket */
	uint32_t heap_at;
	uint8_t len;           /* 0: free */
	uint8_t id[VFS_ONCE_ID_MAX];
};
#define LEDGER_CHUNK 256u
struct ledger_sessions {
	struct ledger_session **chunk;
	uint32_t n_chunks, cap_chunks, used, n; /* used: slots that were ever used */
	uint32_t free, newest;
	uint32_t *bucket, n_buckets;
	uint32_t *heap, cap_heap; /* of references: the first one is forgotten first */
	uint64_t sum, id_bytes;
};
struct ledger_session *ledger_sessions_at(const struct ledger_sessions *t, uint32_t ref);
const struct ledger_session *ledger_sessions_find(const struct ledger_sessions *t, const uint8_t *id, size_t len);
int ledger_sessions_put(struct ledger_sessions *t, const uint8_t *id, size_t len, const struct shell_session *s); /* WIRE_NOMEM; its index is the highest so far */
void ledger_sessions_expire(struct ledger_sessions *t, uint64_t time_us);
uint64_t ledger_sessions_memory(const struct ledger_sessions *t);
void ledger_sessions_free(struct ledger_sessions *t);

/* ledger_file.c; for the one thread that flushes. */
struct ledger_file {
	const struct wire_env *env; /* NULL: there is no file yet */
	struct wire_file *file;
	uint64_t number, at, flushed; /* bytes that count; the ledger's index there */
	bool whole;                   /* as the file says */
	bool failed;
};

struct shell_ledger {
	pthread_mutex_t mu;
	uint64_t index, term, time_us, from;
	bool whole;
	struct ledger_term *terms;
	uint32_t n_terms, cap_terms;
	uint64_t terms_sum;
	struct ledger_ids ids;
	struct ledger_sessions sessions;
	struct ledger_file f;
	_Atomic uint64_t file_bytes;
};
int ledger_term_put(struct shell_ledger *l, uint64_t term, uint64_t first); /* WIRE_NOMEM */
uint64_t ledger_checksum(const struct shell_ledger *l); /* mu */
void ledger_file_close(struct ledger_file *f);

#endif
