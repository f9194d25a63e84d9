/* Memory that the processes of a machine share about one database: the file node-shm in the node directory, mapped by all. Its first page is the host's, others map it for reading only; on the
 * second one attached processes leave marks. Nothing in it needs to survive anything: each host begins anew. (The name ends as it does since what lies in such files never has to.)
 *
 * It stays one file from host to host, so that a new host can tell those who are attached to the one before it, even if that was killed: it changes `pub.owner` before it touches
 * anything else of the database or of the file. Whoever reads here looks at `owner` last. */
#ifndef SHELL_SHARED_H
#define SHELL_SHARED_H

#include "vfs/shared.h"
#include "wire/clock.h"
#include "wire/env.h"

/* What a reader needs to know where this node leads (raft/README.md, lease_until_us). Written by the node thread, before it sends anything
 * that goes with it; `ended` by whoever ends the node's part. */
struct node_lease {
	_Atomic uint64_t until_us; /* on the node's clock; 0: none, UINT64_MAX: for as long as this is said */
	_Atomic uint64_t read_index;
	atomic_bool used; /* by some reader of the host, since the node thread last told the core */
	atomic_bool ended;
	_Atomic uint64_t wanted_us; /* when a read at level lease was last asked for */
	_Atomic uint64_t fresh_us;  /* all that was acknowledged by anybody until then is published here, on the node's clock; 0: nothing known. For bounded reads; written under the node's mu */
};

/* How long ago a reading of that clock was, at most, as far as its rate may be wrong; UINT64_MAX: it cannot tell, or at_us is 0. fresh.c */
uint64_t shell_age_us(const struct wire_clock *clock, uint64_t at_us, const struct wire_clock_reading *now);

#define SHELL_SHARED_PAGE 4096u
#define SHELL_SHARED_VERSION 1u

struct shell_shared {
	uint8_t magic[8];
	uint32_t version, bytes; /* bytes: sizeof this */
	struct vfs_shared pub;
	struct node_lease lease;
	_Atomic uint64_t clock;     /* whose readings lease.until_us is compared with, see shell_shared_clock; 0: not for others */
	_Atomic uint64_t voided;    /* moves whenever a grant of the write lock may have become void */
	_Atomic uint64_t alive_us;  /* CLOCK_BOOTTIME, of the latest of the host's regular looks around */
	_Atomic uint32_t several_voters;
};
_Static_assert(sizeof(struct shell_shared) <= SHELL_SHARED_PAGE, "the host's page");

struct shell_shared_marks {
	_Atomic uint32_t lease_used;   /* as node_lease.used */
	_Atomic uint32_t lease_wanted; /* a read at level lease was asked for */
};

/* The process has the node directory's lock: makes the file where it is missing and takes it over, with an owner of its own. */
int shell_shared_host(const struct wire_env *env, const char *path, struct shell_shared **ret_shared, struct shell_shared_marks **ret_marks, struct wire_err *err);
/* A process that attaches to `owner`. WIRE_CLOSED: that one is the host no more; WIRE_VERSION: the host is another version of walraft. */
int shell_shared_attach(const char *path, uint64_t owner, const struct shell_shared **ret_shared, struct shell_shared_marks **ret_marks, struct wire_err *err);
void shell_shared_unmap(const struct shell_shared *s);

/* CLOCK_BOOTTIME as this process sees it: processes in another time namespace see another one. 0: not known. */
uint64_t shell_shared_clock(void);

#endif
