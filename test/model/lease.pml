/* Reads under a lease while another leader is elected: raft/lease.c, shell/node_ops.c. README.md here has the rules and what is found without each.
 *
 * Time goes by in steps that no clock sees. In each of them a node's clock goes on by SLOW or FAST, as it likes: 2.5, and 20 % less or more. A follower
 * keeps a promise for PROMISE of its own clock, a leader counts on it for LEASE of its own: PROMISE / FAST = LEASE / SLOW, I11. All times are kept as what is
 * left of them. Between any two steps of a node as much time goes by as can be: messages, readers and nodes are as slow as they like.
 *
 * Node 0 leads at first, with leases by the promises of node 1; node 2 is one that has not heard from it for long. Node 1 or 2 may be elected, once. What is
 * committed: 0 before all, 1 by node 0, 2 by the next leader. */
#define SLOW 2
#define FAST 3
#define PROMISE 6
#ifdef AS_LONG_AS_THE_PROMISE
#define LEASE 6
#else
#define LEASE 4
#endif

#ifdef FASTER_THAN_BELIEVED
#define FASTEST 6
#else
#define FASTEST FAST
#endif

bool leads[3], votes_later[3]; /* it has voted in the next term */
/* A heartbeat of node 0: on its way there, or its answer is on its way back; what is left of a lease that is counted from its sending. */
mtype = { NONE, THERE, BACK };
mtype beat = NONE;
byte stamp, lease, promise; /* the promise: of node 1 */
bool wanted;              /* node 0 has asked another one to stand */
bool has_1[3];            /* in its log */
bool knows;               /* the next leader: an entry of its own is committed */
byte committed, published, later, acknowledged; /* committed as node 0 knows it, later as the next leader does */
/* A reader on node 0. */
mtype = { IDLE, BEGUN, HAS_END, HAS_LEASE, HAS_INDEX };
mtype reader = IDLE;
byte at_least, until, needed;
byte by;

#define LESS(x) x = (x > by -> x - by : 0)

#ifdef LEASE_GOES_ON_IN_A_TRANSFER
#define UNTIL lease
#else
#define UNTIL (wanted -> 0 : lease)
#endif
#ifdef NO_PROMISE
#define HEARS(v) true
#else
#define HEARS(v) (promise == 0 || wanted)
#endif
#ifdef COUNTED_FROM_THE_ANSWER
#define COUNTED LEASE
#else
#define COUNTED stamp
#endif
#ifdef A_RESTART_IS_NO_CONTACT
#define AFRESH 0
#else
#define AFRESH PROMISE
#endif
#ifdef READS_BEFORE_ITS_FIRST_COMMIT
#define READY true
#else
#define READY knows
#endif
#ifdef NOT_WAITING_FOR_PUBLICATION
#define PUBLISHED true
#else
#define PUBLISHED (published >= needed)
#endif

#define FOLLOWER(v, w) \
	:: d_step { leads[0] && !votes_later[v] && !has_1[v] -> has_1[v] = true } \
	:: d_step { leads[0] && !votes_later[v] && has_1[v] && !committed -> committed = 1 } \
	/* Elected by the other follower, or by node 0, which leads no more then; whose logs are not better. */ \
	:: d_step { !leads[1] && !leads[2] && HEARS(1) && has_1[v] >= has_1[w] -> leads[v] = true; votes_later[v] = true; votes_later[w] = true } \
	:: d_step { !leads[1] && !leads[2] && (v == 2 || HEARS(1)) && has_1[v] -> leads[v] = true; votes_later[v] = true; votes_later[0] = true; leads[0] = false } \
	:: d_step { leads[v] && !knows -> knows = true; votes_later[w] = true; later = has_1[v] } \
	:: d_step { leads[v] && knows && later < 2 -> later = 2 }

inline goes_on(n)
{
	if
	:: by = SLOW
	:: by = FASTEST
#ifdef STANDS_STILL_WHILE_SUSPENDED
	:: n == 0 -> by = 0
#endif
	fi
}

init {
	d_step { leads[0] = true; has_1[0] = true; promise = PROMISE }
	do
	:: atomic { lease + stamp + promise + until > 0 -> goes_on(0); LESS(lease); LESS(until); LESS(stamp); goes_on(1); LESS(promise); by = 0 }
	:: d_step { leads[0] && beat == NONE && lease < LEASE -> beat = THERE; stamp = LEASE }
	:: d_step { beat == THERE && !votes_later[1] -> beat = BACK; promise = PROMISE }
	:: d_step { beat == BACK && leads[0] -> lease = (COUNTED > lease -> COUNTED : lease); beat = NONE; stamp = 0 }
	:: d_step { !leads[1] && promise != AFRESH -> promise = AFRESH } /* its process ends, and another one begins */
	FOLLOWER(1, 2) FOLLOWER(2, 1)
	:: d_step { leads[0] && !wanted -> wanted = true } /* a transfer */
	:: d_step { published < committed -> published = committed }
	/* A client of another node may be answered before this one has published. */
	:: d_step { committed > acknowledged -> acknowledged = committed }
	:: d_step { later > acknowledged -> acknowledged = later }
	:: (leads[1] || leads[2]) && READY -> assert(later >= acknowledged) /* a read there, under a lease of its own */
	:: d_step { reader == IDLE -> at_least = acknowledged; reader = BEGUN }
	:: d_step { reader == BEGUN && leads[0] && UNTIL > 0 -> until = UNTIL; reader = HAS_END }
	:: d_step { reader == HAS_END -> reader = (until > 0 -> HAS_LEASE : BEGUN); until = 0 } /* it looks at the clock */
	:: d_step { reader == HAS_LEASE -> needed = committed; reader = HAS_INDEX }
	:: d_step { reader == HAS_INDEX && PUBLISHED -> assert(published >= at_least); reader = IDLE; at_least = 0; needed = 0 }
	od
}
