/* A host that dies while an attached process commits through it, and the one that takes over: what is on the disks, what is told. raft/journal.h,
 * vfs/README.md; README.md here has the rules and what is found without each.
 *
 * Three nodes. On node 0 a process hosts the node, and another one, attached, commits one transaction X through it, in term 1, where node 0 leads. Processes are
 * killed (what was written stays) or lose their power (what was not synced may be lost, the WAL's frames as well as the journal's records). Below it is Raft as in
 * token.pml, but with disks. */
#define N 3
#define L 2
#define TERMS 2

#define W (L + 1)
#define E(n, i) log[(n) * W + (i)] /* term * 2 + 1 for X; 0: nothing */
#define TERM(n, i) (E(n, i) / 2)
#define LAST(n) TERM(n, last[n])

bool runs[N], leads[N];
byte term[N], last[N], synced[N], commit[N], log[N * W];
byte published, wal_synced, wal[W]; /* node 0's WAL: frames that readers see */
byte match[N * N];                            /* of a leader: entries that the other has, as it said */
byte ends; /* of processes */
byte i;

/* The attached process: its request has gone to the host, or not; what it was told. */
mtype = { BEFORE, WAITS, SEES_END, KNOWS };
mtype app = BEFORE;
bool told_yes, told_no;
byte n_committed, committed[W];

inline check_committed(n)
{
	i = 1;
	do
	:: i > commit[n] -> break
	:: else ->
		if
		:: i <= n_committed -> assert(committed[i] == E(n, i)) /* an acknowledged commit that is gone */
		:: else ->
			committed[i] = E(n, i);
			n_committed = i;
			assert(E(n, i) % 2 == 0 || !told_no) /* "not committed", and then it appears */
		fi;
		i++
	od;
	i = 0
}

inline check_published()
{
	i = 1;
	do
	:: i > published -> break
	:: else ->
		assert(i <= n_committed && wal[i] == committed[i]); /* a reader sees what is not committed */
		i++
	od;
	i = 0
}

/* What a start finds: the database is never above the journal. */
inline check_journal()
{
	i = 1;
	do
	:: i > published -> break
	:: else -> assert(i <= last[0] && wal[i] == E(0, i)); i++
	od;
	i = 0
}

inline ends_part(n)
{
	runs[n] = false; leads[n] = false; commit[n] = 0;
	match[n * N] = 0; match[n * N + 1] = 0; match[n * N + 2] = 0
}

inline cut(n, upto)
{
	i = upto + 1;
	do
	:: i > L -> break
	:: else -> E(n, i) = 0; i++
	od;
	i = 0;
	last[n] = upto
}

/* Over the first `upto` entries; what it has of them already stays synced. */
inline copy_log(l, f)
{
	i = 1;
	do
	:: i > last[l] || E(f, i) != E(l, i) -> break
	:: else -> i++
	od;
	synced[f] = (synced[f] < i - 1 -> synced[f] : i - 1);
	i = 1;
	do
	:: i > L -> break
	:: else -> E(f, i) = E(l, i); i++
	od;
	i = 0;
	last[f] = last[l]
}

#ifdef ACKNOWLEDGES_WHAT_IS_NOT_SYNCED
#define DURABLE(n) last[n]
#else
#define DURABLE(n) synced[n]
#endif
#ifdef LEADER_COUNTS_WHAT_IS_NOT_SYNCED
#define OWN(n) last[n]
#else
#define OWN(n) synced[n]
#endif
#ifdef PUBLISHES_WHAT_IS_NOT_SYNCED
#define MAY_PUBLISH(n) commit[n]
#else
#define MAY_PUBLISH(n) (commit[n] < synced[n] -> commit[n] : synced[n])
#endif
#ifdef PUBLISHES_BEFORE_THE_QUORUM
#undef MAY_PUBLISH
#define MAY_PUBLISH(n) synced[n]
#endif
#ifdef KEPT_AND_NOT_SYNCED_AT_A_START
/* What a killed process had written is taken for durable: acknowledged, and not synced. */
#define SYNC_AT_START(n) kept[n] = last[n]
#define SAID(n) (DURABLE(n) > kept[n] -> DURABLE(n) : kept[n])
byte kept[N];
#else
#define SYNC_AT_START(n) synced[n] = last[n]
#define SAID(n) DURABLE(n)
#endif

/* Votes are synced before they are given; so is what the voter's log is judged by. */
#define ELECT(n, v) \
	:: d_step { runs[n] && runs[v] && term[n] < TERMS && term[v] < TERMS && last[n] < L && (LAST(n) > LAST(v) || (LAST(n) == LAST(v) && last[n] >= last[v])) -> \
		term[n] = (term[n] > term[v] -> term[n] : term[v]) + 1; \
		term[v] = term[n]; \
		leads[v] = false; \
		leads[n] = true; \
		match[n * N] = 0; match[n * N + 1] = 0; match[n * N + 2] = 0; \
		last[n]++; \
		E(n, last[n]) = term[n] * 2 }

#define REPLICATE(l, f) \
	:: d_step { runs[l] && runs[f] && leads[l] && term[l] >= term[f] && (term[l] > term[f] || last[f] != last[l] || LAST(f) != LAST(l) || commit[f] < commit[l]) -> \
		leads[f] = false; \
		term[f] = term[l]; \
		copy_log(l, f); \
		commit[f] = (commit[l] > commit[f] -> commit[l] : commit[f]) } \
	:: d_step { runs[l] && runs[f] && leads[l] && term[f] == term[l] && last[f] == last[l] && LAST(f) == LAST(l) && match[l * N + f] < SAID(f) -> match[l * N + f] = SAID(f) } \
	:: d_step { leads[l] && commit[l] < last[l] && LAST(l) == term[l] && match[l * N + f] >= last[l] && OWN(l) >= last[l] -> commit[l] = last[l]; check_committed(l) }

#define NODE(n) \
	:: d_step { runs[n] && synced[n] < last[n] -> synced[n] = last[n] } \
	:: d_step { !runs[n] -> runs[n] = true; SYNC_AT_START(n); if :: n == 0 -> check_journal() :: else fi }

/* Killed; without power, which takes what was not synced of the journal. */
#define DIES(n) \
	:: d_step { runs[n] && ends < ENDS -> ends++; ends_part(n) } \
	:: d_step { runs[n] && ends < ENDS && synced[n] < last[n] -> ends++; ends_part(n); cut(n, synced[n]); LOST_SYNC(n) }
#ifdef KEPT_AND_NOT_SYNCED_AT_A_START
#define LOST_SYNC(n) kept[n] = 0
#else
#define LOST_SYNC(n) skip
#endif
#ifndef ENDS
#define ENDS 2
#endif

inline look(n, ret)
{
	ret = false;
	i = 1;
	do
	:: i > published -> break
	:: else ->
		if :: E(n, i) % 2 -> ret = true :: else fi;
		i++
	od;
	i = 0
}
bool found;

#ifdef ANSWERS_BEFORE_THE_QUORUM
#define ANSWERS (synced[0] >= 1)
#else
#define ANSWERS (published >= 1)
#endif
#ifdef NOT_IN_WHAT_IS_PUBLISHED
#define CERTAIN true
#else
#define CERTAIN (found || TERM(0, published) > 1)
#endif

init {
	d_step {
		runs[0] = true; runs[1] = true; runs[2] = true; term[0] = 1; term[1] = 1; term[2] = 1; leads[0] = true
	}
	do
	ELECT(0, 1) ELECT(0, 2) ELECT(1, 0) ELECT(1, 2) ELECT(2, 0) ELECT(2, 1)
	REPLICATE(0, 1) REPLICATE(0, 2) REPLICATE(1, 0) REPLICATE(1, 2) REPLICATE(2, 0) REPLICATE(2, 1)
	NODE(0) NODE(1) NODE(2)
	DIES(0) DIES(1)
	:: d_step { runs[0] && published < MAY_PUBLISH(0) -> published++; wal[published] = E(0, published); check_published() }
	:: d_step { runs[0] && wal_synced < published -> wal_synced = published }
	/* Without power, which takes what was not synced of the WAL, too. */
	:: d_step { runs[0] && ends < ENDS && wal_synced < published -> ends++; ends_part(0); cut(0, synced[0]); LOST_SYNC(0);
		i = wal_synced + 1;
		do :: i > L -> break :: else -> wal[i] = 0; i++ od;
		i = 0;
		published = wal_synced }
	/* The host takes the transaction, or died before. */
	:: d_step { app == BEFORE && runs[0] && leads[0] && term[0] == 1 -> app = WAITS; last[0]++; E(0, last[0]) = 3 }
	/* It answers once it has published. */
	:: d_step { app == WAITS && runs[0] && term[0] == 1 && leads[0] && ANSWERS -> told_yes = true; assert(n_committed >= 1 && committed[1] == 3); app = KNOWS }
	/* Its host is gone, or leads no more: another one answers, or the same one. */
	:: d_step { app == WAITS && (!runs[0] || !leads[0] || term[0] > 1) -> app = SEES_END }
	:: d_step { app == SEES_END && runs[0] -> look(0, found);
		if
		:: CERTAIN ->
			if
			:: found -> told_yes = true; assert(n_committed >= 1 && committed[1] == 3)
			:: else -> told_no = true; assert(n_committed == 0 || committed[1] != 3)
			fi;
			app = KNOWS
		:: else
		fi;
		found = false }
	od
}
