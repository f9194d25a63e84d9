/* The write lock of the cluster: grants of a leader, transactions that run on other nodes under them, proposals that come late, and what
 * their outcome is said to be. DESIGN, sections 7 and 8; README.md here has the rules and what is found without each.
 *
 * Below it is Raft, by its effects: an election is one step (a majority whose logs are no better, in a term that none of them had); so is the
 * copying of a leader's log. A leader that was replaced goes on until it hears of it. Everything else may come at any time, late, or never. */
#define N 3  /* nodes */
#define A 2  /* transactions: 1 runs on node 1, 2 on node 2; whoever leads */
#ifdef ONE_TRANSACTION /* 1 alone, but more terms, and entries of a leader besides: chunks of that transaction, say */
#define TERMS 3
#define BESIDES 1
#define L 4 /* entries of a log */
#else
#define TERMS 2
#define BESIDES 0
#define L 5
#endif
#define GRANTS 2 /* of a leader in a term */

#define W (L + 1)
#define E(n, i) log[(n) * W + (i)] /* term * 4 + transaction; 0: of the leader itself */
#define TERM(n, i) (E(n, i) / 4)
#define LAST(n) TERM(n, last[n])
#define ID(a) (gterm[a] * 8 + gno[a])

byte term[N], last[N], commit[N], published[N], log[N * W];
bool leads[N];
/* Of a leader, in its memory: where its term begins; the latest grant's number, whether a proposal may come under it; the entry that has the lock. */
byte begins[N], grants[N], entry[N];
bool open[N];

/* Transactions. */
#define IDLE 0
#define GRANTED 1
#define RUNS 2 /* or its proposal is on its way to the leader */
#define OVER 3 /* that had it, or it is lost */
byte state[A + 1], gterm[A + 1], gno[A + 1], gindex[A + 1], gleader[A + 1], base[A + 1];
byte asked; /* the outcome of 1: the leader's answer, an index, + 1 */
bool told_no[A + 1];

/* What is committed, as seen from outside. */
byte n_committed, committed[W];
bool done[A + 1];
byte i, j, tmp, besides;

inline check_committed(n)
{
	i = 1;
	do
	:: i > commit[n] -> break
	:: else ->
		if
		:: i <= n_committed -> assert(committed[i] == E(n, i))
		:: else ->
			committed[i] = E(n, i);
			n_committed = i;
			tmp = E(n, i) % 4;
			if
			:: tmp ->
				assert(!done[tmp]);    /* once at most */
				assert(!told_no[tmp]); /* "not committed", and then it appears */
				j = base[tmp] + 1;
				do
				:: j >= i -> break
				:: else ->
					assert(E(n, j) % 4 == 0); /* a lost update */
					j++
				od;
				done[tmp] = true
			:: else
			fi
		fi;
		i++
	od;
	i = 0; j = 0; tmp = 0
}

inline forget(n)
{
	leads[n] = false;
	begins[n] = 0; grants[n] = 0; entry[n] = 0; open[n] = false
}

inline copy_log(l, f)
{
	i = 1;
	do
	:: i > L -> break
	:: else -> E(f, i) = E(l, i); i++
	od;
	i = 0;
	last[f] = last[l]
}

#define ELECT(n, v) \
	:: d_step { term[n] < TERMS && term[v] < TERMS && last[n] < L && (LAST(n) > LAST(v) || (LAST(n) == LAST(v) && last[n] >= last[v])) -> \
		term[n] = (term[n] > term[v] -> term[n] : term[v]) + 1; \
		term[v] = term[n]; \
		forget(n); forget(v); \
		leads[n] = true; \
		last[n]++; \
		E(n, last[n]) = term[n] * 4; \
		begins[n] = last[n] }

#define REPLICATE(l, f) \
	:: d_step { leads[l] && term[l] >= term[f] && (term[l] > term[f] || last[f] != last[l] || commit[f] < commit[l]) -> \
		if :: leads[f] -> forget(f) :: else fi; \
		term[f] = term[l]; \
		copy_log(l, f); \
		commit[f] = (commit[l] > commit[f] -> commit[l] : commit[f]) } \
	:: d_step { leads[l] && term[f] == term[l] && last[f] == last[l] && commit[l] < last[l] && LAST(l) == term[l] -> \
		commit[l] = last[l]; \
		check_committed(l) }

#ifdef FREE_AT_COMMIT
#define RESOLVED(n) commit[n]
#else
#define RESOLVED(n) published[n]
#endif

#ifdef NOT_READY
#define READY(l) true
#else
#define READY(l) (published[l] >= begins[l])
#endif

#define NODE(n) \
	:: d_step { published[n] < commit[n] -> published[n]++; \
		if :: entry[n] && RESOLVED(n) >= entry[n] -> entry[n] = 0 :: else fi } \
	:: d_step { entry[n] && RESOLVED(n) >= entry[n] -> entry[n] = 0 } \
	:: d_step { leads[n] && !BESIDES -> forget(n); commit[n] = published[n] } /* its process ends, and another one begins */ \
	:: d_step { open[n] -> open[n] = false } /* its holder was silent for too long, or is gone */

#define APPEND(l) :: d_step { leads[l] && besides < BESIDES && last[l] < L -> besides++; last[l]++; E(l, last[l]) = term[l] * 4 }

#define GRANT(l, a) \
	:: d_step { leads[l] && READY(l) && !open[l] && !entry[l] && grants[l] < GRANTS && state[a] == IDLE -> \
		grants[l]++; \
		open[l] = true; \
		gterm[a] = term[l]; gno[a] = grants[l]; gindex[a] = published[l]; gleader[a] = l; \
		state[a] = GRANTED }

#ifdef NO_CATCHING_UP
#define CAUGHT_UP(a, home) true
#else
#define CAUGHT_UP(a, home) (published[home] >= gindex[a])
#endif
#ifdef ANY_TERM
#define SAME_TERM(a, l) true
#else
#define SAME_TERM(a, l) (term[l] == gterm[a])
#endif
#ifdef ANY_TOKEN
#define SAME_TOKEN(a, l) true
#else
#define SAME_TOKEN(a, l) (open[l] && grants[l] == gno[a])
#endif

#define REFUSE(a) assert(!done[a]); told_no[a] = true

inline look(n, a, ret, upto)
{
	ret = 0;
	i = 1;
	do
	:: i > upto -> break
	:: else ->
		if :: E(n, i) % 4 == a -> ret = 1 :: else fi;
		i++
	od;
	i = 0
}

/* Sent once more after it was lost, or its answer: the leader then says that it was not proposed only if it knows. */
bool again; /* transaction 1 */
#ifdef REFUSES_WHAT_IT_DOES_NOT_KNOW
#define CERTAIN(l, a) true
#else
#define CERTAIN(l, a) ((a != 1 || !again) || (leads[l] && term[l] == gterm[a] && !tmp))
#endif

/* The proposal reaches the node that gave the grant. */
#define PROPOSE(a, l) \
	:: d_step { state[a] == RUNS && gleader[a] == l && last[l] < L -> \
		state[a] = OVER; \
		if \
		:: leads[l] && SAME_TERM(a, l) && SAME_TOKEN(a, l) -> \
			last[l]++; \
			E(l, last[l]) = term[l] * 4 + a; \
			TAKE_LOCK(l); \
			open[l] = STAYS_OPEN \
		:: else -> \
			look(l, a, tmp, last[l]); \
			if :: CERTAIN(l, a) -> REFUSE(a) :: else fi; \
			tmp = 0 \
		fi }
#ifdef MANY_UNDER_ONE_GRANT
#define STAYS_OPEN true
#else
#define STAYS_OPEN false
#endif
#ifdef NO_ENTRY_LOCK
#define TAKE_LOCK(l) skip
#else
#define TAKE_LOCK(l) entry[l] = last[l]
#endif
#ifdef LATER_TERM_IN_THE_LOG
#define LATER(n, a) (LAST(n) > gterm[a])
#else
#define LATER(n, a) (TERM(n, published[n]) > gterm[a])
#endif

/* On node n somebody wants to know what became of it. */
#define OUTCOME(n, a) \
	:: d_step { state[a] >= RUNS && !told_no[a] && !done[a] && LATER(n, a) -> \
		look(n, a, tmp, published[n]); \
		if :: tmp -> assert(done[a]) :: else -> REFUSE(a) fi; tmp = 0 }
#define ANSWERED(n, a) \
	:: d_step { state[a] >= RUNS && !told_no[a] && asked && published[n] >= asked - 1 -> \
		look(n, a, tmp, published[n]); \
		if :: tmp -> assert(done[a]) :: else -> REFUSE(a) fi; \
		asked = 0; tmp = 0 }

#ifdef OUTCOME_OF_AN_OPEN_GRANT
#define IS_OPEN(l, a) false
#else
#define IS_OPEN(l, a) (open[l] && grants[l] == gno[a])
#endif
#ifdef OUTCOME_FROM_WHAT_IS_PUBLISHED
#define END(l) published[l]
#else
#define END(l) last[l]
#endif

#ifdef A_LATER_LEADER_SETTLES
#define KNOWS(l, a) (term[l] >= gterm[a])
#else
#define KNOWS(l, a) (term[l] == gterm[a])
#endif

/* Asked in the very term: nothing of it comes behind the leader's log, once no proposal is taken for it any more. A leader of a later term cannot know: a third
 * one may have more of that term than it has. (OUTCOME is what its answer is good for: to wait for an entry of a later term.) */
#define ASK(l, a) \
	:: d_step { state[a] >= RUNS && !told_no[a] && !done[a] && !asked && leads[l] && KNOWS(l, a) && !IS_OPEN(l, a) -> asked = END(l) + 1 }

#define ASKER(a, home) \
	:: d_step { state[a] == GRANTED && CAUGHT_UP(a, home) -> base[a] = published[home]; state[a] = RUNS } \
	:: state[a] == RUNS -> state[a] = OVER /* lost */

init {
	d_step {
		term[0] = 1; term[1] = 1; term[2] = 1;
		leads[0] = true; begins[0] = 1; last[0] = 1; E(0, 1) = 4
	}
	do
	ELECT(0, 1) ELECT(0, 2) ELECT(1, 0) ELECT(1, 2) ELECT(2, 0) ELECT(2, 1)
	REPLICATE(0, 1) REPLICATE(0, 2) REPLICATE(1, 0) REPLICATE(1, 2) REPLICATE(2, 0) REPLICATE(2, 1)
	NODE(0) NODE(1) NODE(2)
	GRANT(0, 1) GRANT(1, 1) GRANT(2, 1)
	PROPOSE(1, 0) PROPOSE(1, 1) PROPOSE(1, 2)
	ASK(0, 1) ASK(1, 1) ASK(2, 1)
	OUTCOME(0, 1) OUTCOME(1, 1) OUTCOME(2, 1)
	ANSWERED(0, 1) ANSWERED(1, 1) ANSWERED(2, 1)
	ASKER(1, 1)
#ifdef ONE_TRANSACTION
	APPEND(0) APPEND(1) APPEND(2)
#else
	GRANT(0, 2) GRANT(1, 2) GRANT(2, 2)
	PROPOSE(2, 0) PROPOSE(2, 1) PROPOSE(2, 2)
	OUTCOME(0, 2) OUTCOME(1, 2) OUTCOME(2, 2)
	ASKER(2, 2)
#endif
	/* Of the two transactions, to have fewer states, only 1 is sent again, and the leader is asked of it; only 2 is rolled back, and tried again. */
	:: d_step { state[1] == OVER && !again && !told_no[1] && !done[1] -> again = true; state[1] = RUNS }
#ifndef ONE_TRANSACTION
	:: d_step { (state[2] == GRANTED || state[2] == RUNS) && !told_no[2] -> state[2] = IDLE; gterm[2] = 0; gno[2] = 0; gindex[2] = 0; base[2] = 0 }
#endif
	od
}
