/* Nodes without network for the shim's tests: one log in memory, and hosts (a database each, with its vfs_db) of which at most one leads. A commit on the
 * leader is committed at once, or as `outcome` says; the others get it by shim_follow. All run in this process; connections open hosts by path. */
#ifndef TEST_SHIM_HOST_H
#define TEST_SHIM_HOST_H

#include "vfs/vfs.h"
#include <pthread.h>
#include <sqlite3.h>

#define SHIM_HOSTS 3

struct shim_entry { uint64_t term; uint8_t *data; size_t len; };

struct shim_cluster;
struct shim_node {
	struct shim_cluster *cluster;
	char path[96], pages[128];
	struct vfs_db *db;
	uint64_t n_gates, n_commits, n_restarts, n_marks, mark_index, mark_sum;
	uint32_t mark_pages;
	struct vfs_known_pos *known;
	size_t n_known, cap_known;
};

struct shim_cluster {
	char dir[64];
	pthread_mutex_t mutex; /* guards the log and all below */
	struct shim_entry *log; /* [index - 1]; data NULL: changes nothing */
	uint64_t n, cap;
	uint64_t term;            /* epoch of the leader */
	struct shim_node *leader; /* NULL: none */
	int outcome;              /* of the next commits: WIRE_OK, or an error; WIRE_UNKNOWN: is in the log nevertheless */
	int gate;                 /* of read gates */
	uint32_t proposals_left;  /* then leadership is lost; 0: never */
	pthread_mutex_t starting; /* held while a node ends and starts; outside of mutex */
	uint64_t n_opens;         /* calls of open_db */
	bool old_grants;          /* write locks that are had were given before they were asked for */
	bool fail_publication, alone; /* alone: each node says that it is its cluster's only voter */
	uint64_t n_entries, entry_bytes, largest;
	struct shim_node node[SHIM_HOSTS];
	uint32_t n_nodes;
};

void shim_cluster_new(struct shim_cluster *c, uint32_t n_nodes, uint32_t page_size, const char *schema);
void shim_cluster_free(struct shim_cluster *c);
void shim_lead(struct shim_cluster *c, struct shim_node *n); /* NULL: nobody */
/* Ends n's node and starts it again, under the connections that use it; checkpoint: as at an orderly end, all is copied into the file. */
void shim_restart(struct shim_node *n, bool checkpoint);
/* Publishes on n all that is in the log. */
void shim_follow(struct shim_node *n);
sqlite3 *shim_open(struct shim_node *n, const char *parameters); /* e.g. "&walraft_read=stale"; with a busy timeout of 10 s */
void shim_sql(sqlite3 *db, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int shim_try(sqlite3 *db, const char *sql); /* the extended result code */
int64_t shim_int(sqlite3 *db, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Lets the others follow node 0, and compares. */
void shim_same_state(struct shim_cluster *c);
/* walraft had nothing to say on this connection. */
void shim_no_complaint(sqlite3 *db);
/* State checksum recomputed from pages and by the object, integrity_check by the shim and by a stock process. */
void shim_check(struct shim_node *n);

#endif
