/* Calls that must be refused: a driver's, an administrator's or an operator's mistakes. They have the code that the contracts name, and
 * change nothing: all other properties hold afterwards, the node goes on. */
#include "test/sim/check.h"
#include <string.h>

static void refused(struct sim_node *n, const char *what, int code, int want)
{
	/* A journal that found no room at its end refuses all; upkeep does not tell that from one that is only to be expected. */
	if (code != want && code != WIRE_FULL && !disk_crashed(n->disk) && !n->rotted)
		sim_fail(n->sim, "refusals", "%s: %s has code %d, not %d", node_name(n), what, code, want);
}

/* ---- of the core ---- */

static void wrong_config(struct sim_node *n)
{
	static struct raft_config c;
	struct raft_event ev = { .type = RAFT_EV_CONFIG, .config = &c };
	int code = WIRE_OK;
	uint64_t last = n->log_last;

	c = *raft_config_current(n->raft);
	switch (rng_below(&n->sim->rng, 8)) {
	case 0:
		for (uint32_t i = 0; i < c.n; i++)
			c.m[i].flags = RAFT_LEARNER;
		break;
	case 1:
		c.m[c.n] = c.m[0];
		c.n++;
		break;
	case 2:
		c.m[0].flags |= 128;
		break;
	case 3:
		c.joint = true;
		break;
	case 4:
		c.n = RAFT_MEMBERS_MAX + 1;
		break;
	case 5:
		c.m[0].id = 0;
		break;
	case 6: /* two elections need not meet */
		c.quorums.elect = (uint8_t)(raft_config_voters(&c, false) / 2);
		c.quorums.commit = (uint8_t)raft_config_voters(&c, false);
		break;
	case 7: /* an election and a commit need not meet */
		c.quorums.elect = (uint8_t)(raft_config_voters(&c, false) / 2 + 1);
		c.quorums.commit = (uint8_t)(raft_config_voters(&c, false) - c.quorums.elect);
		break;
	}
	if ((c.quorums.elect && !c.quorums.commit) || (c.quorums.commit && !c.quorums.elect) || c.joint)
		c.joint = true; /* 0 stands for a majority: that one could be */
	if (n->raft && node_ask(n, ev, &code, NULL) && !n->failing)
		refused(n, "a configuration that cannot be", code, n->role == RAFT_LEADER ? WIRE_INVALID : WIRE_NOTLEADER);
	if (n->log_last != last && n->role != RAFT_LEADER)
		sim_fail(n->sim, "refusals", "%s appends what it refuses", node_name(n));
}

/* Both halves of a joint configuration together have too many members. */
static void large_config(struct sim_node *n)
{
	static struct raft_config c;
	struct raft_event ev = { .type = RAFT_EV_CONFIG, .config = &c };
	int code = WIRE_INVALID;

	if (rng_chance(&n->sim->rng, 500)) {
		/* What may be beyond the group's level: that is the core's business (check_level.c). */
		c = *raft_config_current(n->raft);
		c.quorums.commit = c.quorums.elect = (uint8_t)(raft_config_voters(&c, false) / 2 + 1);
		node_ask(n, ev, &code, NULL);
		return;
	}
	c = (struct raft_config){ .n = RAFT_MEMBERS_MAX };
	for (uint32_t i = 0; i < c.n; i++)
		c.m[i] = (struct raft_member){ .id = 100000 + i, .flags = RAFT_VOTER };
	if (node_ask(n, ev, &code, NULL) && code == WIRE_OK)
		sim_fail(n->sim, "refusals", "%s takes a joint configuration of more members than there can be", node_name(n));
}

static void wrong_proposal(struct sim_node *n)
{
	struct wire_entry e = { .kind = WIRE_ENTRY_NOOP };
	struct raft_event ev = { .type = RAFT_EV_PROPOSE, .n_entries = rng_below32(&n->sim->rng, 2), .entries = &e };
	int code = WIRE_OK;

	if (node_ask(n, ev, &code, NULL) && !n->failing)
		refused(n, "a proposal without data", code, n->role == RAFT_LEADER ? WIRE_INVALID : WIRE_NOTLEADER);
}

static void wrong_transfer(struct sim_node *n)
{
	struct raft_event ev = { .type = RAFT_EV_TRANSFER, .peer = rng_chance(&n->sim->rng, 500) ? n->id : 99999 };
	int code = WIRE_OK;

	if (node_ask(n, ev, &code, NULL) && code == WIRE_OK && !n->failing)
		sim_fail(n->sim, "refusals", "%s hands over to itself, or to a stranger", node_name(n));
}

static void no_core(struct sim_node *n, const char *what, const struct raft_init *in)
{
	struct wire_err err = { 0 };
	struct raft *r = raft_new(in, &err);

	if (!r && err.text[0])
		return;
	raft_free(r);
	sim_fail(n->sim, "refusals", "a core starts, or does not say why not, with %s", what);
}

static void wrong_init(struct sim_node *n)
{
	const struct wire_entry e[] = { { .index = 1, .term = 2 }, { .index = 2, .term = 1 } };
	struct raft_log_config at = { .index = 1, .config = { .n = 1, .m = { { .id = 1, .flags = RAFT_VOTER } } } };
	struct raft_init in = { .self = 1, .seed = 1, .now_us = 1, .term = 2, .base_config = at.config };

	no_core(n, "a log whose terms fall", &(struct raft_init){ .self = 1, .term = 2, .entries = e, .n_entries = 2 });
	no_core(n, "an entry of a later term", &(struct raft_init){ .self = 1, .term = 1, .entries = e, .n_entries = 1 });
	no_core(n, "a configuration where none is", &(struct raft_init){ .self = 1, .term = 2, .entries = e, .n_entries = 1, .configs = &at,
	                                                                 .n_configs = 1 });
	in.self = 0;
	no_core(n, "no id", &in);
	in.self = 1;
	in.base_term = 3;
	no_core(n, "a base of a later term", &in);
	in.base_term = 0;
	in.commit = 1;
	no_core(n, "a commit index above the log", &in);
	in.commit = 0;
	in.base_config.m[0].flags = RAFT_LEARNER;
	no_core(n, "a base without a voter", &in);
	struct wire_entry c = { .index = 1, .term = 1, .kind = WIRE_ENTRY_CONFIG };
	in.base_config = at.config;
	at.config.m[0].id = 0;
	in.entries = &c;
	in.n_entries = in.n_configs = 1;
	in.configs = &at;
	no_core(n, "a configuration with no id", &in);
}

/* ---- of the journal ---- */

static void wrong_entries(struct sim_node *n)
{
	uint64_t next = n->log_last + 1, term = n->log[n->log_last].term;
	struct wire_entry gap = { .index = next + 1, .term = term + 1 }, old = { .index = next, .term = term ? term - 1 : 0 };
	struct wire_entry kind = { .index = next, .term = term + 1, .kind = 77 }, none = { .index = next, .term = term + 1, .kind = 1, .size = 8 };
	struct wire_entry large = { .index = next, .term = term + 1, .kind = 1, .size = WIRE_ENTRY_MAX + 1, .data = (const uint8_t *)"" };
	struct wire_err err;

	refused(n, "an entry behind a gap", raft_journal_append_entries(n->journal, &gap, 1, 0, &err), WIRE_INVALID);
	refused(n, "an entry of an earlier term", raft_journal_append_entries(n->journal, &old, 1, 0, &err), WIRE_INVALID);
	refused(n, "an entry of no kind", raft_journal_append_entries(n->journal, &kind, 1, 0, &err), WIRE_INVALID);
	refused(n, "an entry without its data", raft_journal_append_entries(n->journal, &none, 1, 0, &err), WIRE_INVALID);
	refused(n, "an entry that is too large", raft_journal_append_entries(n->journal, &large, 1, 0, &err), WIRE_TOOBIG);
}

/* A configuration with some byte changed, or some bytes fewer or more: refused, or one that can be. */
static void wrong_config_entry(struct sim_node *n)
{
	struct wire_buf b = WIRE_BUF_INIT;
	struct rng *r = &n->sim->rng;
	static struct raft_config c;
	struct wire_err err = { 0 };
	size_t len;

	raft_config_put(raft_config_current(n->raft), &b);
	wire_put_u8(&b, 0);
	len = b.len - 1;
	switch (rng_below(r, 3)) {
	case 0:
		len = rng_below(r, len);
		break;
	case 1:
		len++;
		break;
	default:
		b.data[rng_below(r, rng_chance(r, 500) && len > 20 ? 20 : len)] ^= (uint8_t)(1u << rng_below(r, 8));
		break;
	}
	int rc = raft_config_get(b.data, len, &c, &err);
	if (rc) {
		struct wire_entry e = { .index = n->log_last + 1, .term = n->term + 1, .kind = WIRE_ENTRY_CONFIG, .size = (uint32_t)len, .data = b.data };
		refused(n, "a configuration that cannot be read", raft_journal_append_entries(n->journal, &e, 1, 0, &err), rc);
	}
	wire_buf_free(&b);
}

static void wrong_places(struct sim_node *n)
{
	uint64_t base = raft_journal_base(n->journal), last = n->log_last;
	struct raft_journal_publication p = { .index = last + 1 };
	struct raft_journal_mark far = { .index = last + 1 }, back = { .index = n->marked - 1 };
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_entry e;
	struct wire_err err;

	refused(n, "a truncation of nothing", raft_journal_append_truncate(n->journal, last + 2, &err), WIRE_INVALID);
	refused(n, "a truncation below the base", raft_journal_append_truncate(n->journal, base, &err), WIRE_INVALID);
	refused(n, "a publication of nothing", raft_journal_append_publication(n->journal, &p, &err), WIRE_INVALID);
	refused(n, "a mark above the log", raft_journal_append_mark(n->journal, &far, &err), WIRE_INVALID);
	if (n->marked)
		refused(n, "a mark that goes back", raft_journal_append_mark(n->journal, &back, &err), WIRE_INVALID);
	if (n->hard_term)
		refused(n, "a vote of an earlier term", raft_journal_append_vote(n->journal, n->hard_term - 1, 0, &err), WIRE_INVALID);
	refused(n, "a trim above the mark", raft_journal_trim(n->journal, n->marked + 1, &err), WIRE_INVALID);
	refused(n, "reading above the end", raft_journal_read(n->journal, last + 1, &b, &e, &err), WIRE_NOTFOUND);
	refused(n, "reading what is trimmed", raft_journal_read(n->journal, base, &b, &e, &err), WIRE_NOTFOUND);
	if (raft_journal_term(n->journal, last) != n->log[last].term || raft_journal_term(n->journal, last + 1))
		sim_fail(n->sim, "refusals", "%s: the journal tells a wrong term of entry %llu, or one of the next", node_name(n),
		         (unsigned long long)last);
	struct raft_journal_start at;
	struct raft_journal_stats stats;
	refused(n, "a beginning above the end", raft_journal_start_at(n->journal, last + 1, &at, &err), WIRE_NOTFOUND);
	if (raft_journal_start_at(n->journal, last, &at, &err) || at.base_term != n->log[last].term || at.base_index != last)
		sim_fail(n->sim, "refusals", "%s: the journal tells wrong of a beginning at entry %llu", node_name(n), (unsigned long long)last);
	raft_journal_stats(n->journal, &stats);
	if (stats.disk_bytes > disk_bytes(n->disk)) /* what a salvage has set aside is not counted */
		sim_fail(n->sim, "refusals", "%s: the journal says that it has %llu bytes, its files have %llu", node_name(n),
		         (unsigned long long)stats.disk_bytes, (unsigned long long)disk_bytes(n->disk));
	/* One that is filled counts here until that is durable. */
	if (raft_journal_holes(n->journal) > n->n_holes)
		sim_fail(n->sim, "refusals", "%s: the journal says that it has %zu holes, it has %zu", node_name(n),
		         raft_journal_holes(n->journal), n->n_holes);
	wire_buf_free(&b);
}

static void wrong_opens(struct sim_node *n)
{
	static char path[5000];
	struct raft_journal_opts good = store_options(n->sim), o = good;
	struct raft_journal_state st;
	struct raft_journal *j;
	struct raft_journal_mark mark = { .index = 5 };
	struct raft_config none = { 0 };
	const struct wire_env *env = disk_env(n->disk);
	struct wire_err err;

	o.group++;
	refused(n, "another group's journal", raft_journal_open(env, STORE_DIRECTORY, &o, &j, &st, &err), WIRE_FOREIGN);
	refused(n, "a second journal", raft_journal_create(env, STORE_DIRECTORY, &good, 0, 0, 0, &none, &(struct raft_journal_mark){ 0 }, &err),
	        WIRE_EXISTS);
	refused(n, "a mark above the base", raft_journal_create(env, STORE_DIRECTORY, &good, 0, 0, 0, &none, &mark, &err), WIRE_INVALID);
	o = good;
	o.segment_bytes++;
	refused(n, "segments of odd size", raft_journal_open(env, STORE_DIRECTORY, &o, &j, &st, &err), WIRE_INVALID);
	memset(path, 'x', sizeof(path) - 1);
	refused(n, "a long path", raft_journal_open(env, path, &good, &j, &st, &err), WIRE_INVALID);
}

static void of_the_core(struct sim_node *n)
{
	switch (rng_below(&n->sim->rng, 5)) {
	case 0:
		wrong_config(n);
		break;
	case 1:
		large_config(n);
		break;
	case 2:
		wrong_proposal(n);
		break;
	case 3:
		wrong_transfer(n);
		break;
	case 4:
		wrong_init(n);
		break;
	}
}

bool mistake(struct sim_node *n)
{
	struct sim *s = n->sim;

	if (!n->up && n->has_journal && !disk_crashed(n->disk))
		wrong_opens(n);
	if (!node_awake(n) || n->failing || !n->raft || !raft_config_current(n->raft)->n)
		return n->has_journal && !n->up;
	if (rng_chance(&s->rng, 500)) {
		of_the_core(n);
	} else if (!disk_fail_pending(n->disk)) {
		wrong_entries(n);
		wrong_config_entry(n);
		wrong_places(n);
	}
	node_drain(n);
	node_settled(n);
	return true;
}
