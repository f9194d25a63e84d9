/* The ledger of a node: opened with its database, fed by what is published, made durable at each checkpoint mark.
 *
 * Its file is at or above the latest mark, since the mark is written after it; what lies above it in the log is read again at a start, as far as the database has it. It may also be
 * ahead of the database, after a power loss or in an image: then it has entries that are committed and will be published again, and skips them.
 *
 *   the file                                   what is done
 *   reaches the mark                           replayed from there; a torn tail is behind it
 *   is missing or damaged, or ends before      made from the journal, when that reaches back to the beginning of the database, or to where the file ends. Else it begins anew where the
 *   the mark                                   journal begins: outcomes of what lies before are too old to tell, and steps of clients that it does not know are refused (not applied
 *                                              twice). A node of several joins again to have one that is whole; a lone one is adopted
 *   is of another database, or, on a lone      the same: it was put there from another copy
 *   voter, ahead of its journal */
#include "shell/node_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BEGINNING 1 /* index of a database that has just been set up: setup.c */

struct replay { struct shell_node *n; struct shell_ledger *l; };

static int replay_one(void *ctx, const struct vfs_effect *e, struct wire_err *err)
{
	struct replay *r = ctx;

	return shell_ledger_apply(r->l, e->index, e, 1, err);
}

static uint64_t index_of(struct shell_ledger *l)
{
	struct shell_ledger_state st;

	shell_ledger_state(l, &st);
	return st.index;
}

static int replay(struct shell_node *n, struct shell_ledger *l, uint64_t above, uint64_t published, struct wire_err *err)
{
	struct replay r = { n, l };
	int rc = vfs_log_effects(above + 1, published, node_read_entry, n, replay_one, &r, err);

	return rc ? rc : shell_ledger_apply(l, published, NULL, 0, err);
}

static bool is_lone(struct shell_node *n)
{
	bool lone;

	pthread_mutex_lock(&n->mu);
	lone = n->shared.config.n == 1;
	pthread_mutex_unlock(&n->mu);
	return lone;
}

/* NULL without an error: there is none that is of use, and the log says why. */
static int load(struct shell_node *n, uint64_t last_index, struct shell_ledger **ret_ledger, struct wire_err *err)
{
	struct shell_ledger *l = NULL;
	uint64_t cut;
	char bad[PATH_MAX + 8];
	int rc = shell_ledger_open(n->env, n->paths.ledger, n->conf.group, &l, &cut, err);

	*ret_ledger = NULL;
	if (rc == WIRE_NOTFOUND)
		return WIRE_OK;
	if (!rc && cut)
		shell_log(n, "the ledger had a torn tail of %" PRIu64 " bytes", cut);
	if (!rc && index_of(l) > last_index && is_lone(n))
		rc = wire_fail(err, WIRE_FOREIGN, "the ledger %s has entry %" PRIu64 ", the journal ends with %" PRIu64 ": one of them was put back from another copy", n->paths.ledger,
		               index_of(l), last_index);
	if (!rc) {
		*ret_ledger = l;
		return WIRE_OK;
	}
	shell_ledger_free(l);
	if (rc != WIRE_CORRUPT && rc != WIRE_FOREIGN)
		return rc;
	shell_log(n, "%s", err->text);
	snprintf(bad, sizeof bad, "%s.bad", n->paths.ledger);
	(void)n->env->rename(n->env->ctx, n->paths.ledger, bad, NULL);
	return WIRE_OK;
}

static int begin_at(struct shell_node *n, uint64_t index, bool whole, struct shell_ledger **ret_ledger, struct wire_err *err)
{
	*ret_ledger = shell_ledger_new(index, raft_journal_term(n->journal, index), whole);
	return *ret_ledger ? WIRE_OK : wire_fail(err, WIRE_NOMEM, "no memory for the ledger of %s", n->paths.db);
}

/* From what the journal has, when the file does not reach what the database needs: *l is that file's, or NULL. */
static int heal(struct shell_node *n, uint64_t published, struct shell_ledger **l, struct wire_err *err)
{
	uint64_t base = raft_journal_base(n->journal);
	bool whole = base == BEGINNING || (*l && index_of(*l) >= base);
	int rc = WIRE_OK;

	if (!*l || index_of(*l) < base) {
		shell_ledger_free(*l);
		rc = begin_at(n, base, whole, l, err);
	}
	if (!rc)
		rc = replay(n, *l, base, published, err);
	if (rc == WIRE_CORRUPT) { /* an entry in between cannot be read */
		shell_log(n, "the ledger cannot be made from the journal: %s", err->text);
		shell_ledger_free(*l);
		whole = false;
		rc = begin_at(n, published, whole, l, err);
	}
	if (rc)
		return rc;
	if (!whole)
		shell_log(n, "the ledger is missing or damaged, and the journal does not reach back far enough: outcomes of transactions up to entry %" PRIu64
		             " cannot be told here, and walraft_once is refused for clients that are not known since. %s", base,
		          is_lone(n) ? "walraft adopt has clients begin anew" : "Remove this member and join again to have a whole one");
	else if (base != BEGINNING || published > BEGINNING)
		shell_log(n, "the ledger was made from the journal up to entry %" PRIu64, published);
	return WIRE_OK;
}

int node_ledger_open(struct shell_node *n, const struct raft_journal_state *st, uint64_t published, struct wire_err *err)
{
	struct shell_ledger *l;
	int rc = load(n, st->base_index + st->n_entries, &l, err);

	if (rc)
		return rc;
	if (l && index_of(l) >= st->mark.index)
		rc = replay(n, l, st->mark.index, published, err);
	else
		rc = heal(n, published, &l, err);
	if (rc) {
		shell_ledger_free(l);
		return wire_context(err, "the ledger of %s", n->paths.db), rc;
	}
	n->ledger = l;
	return WIRE_OK;
}

bool shell_node_renew_ledger(struct shell_node *n)
{
	struct shell_ledger_state st;

	if (!n->ledger)
		return false;
	shell_ledger_state(n->ledger, &st);
	atomic_store(&n->renew_ledger, !st.whole);
	return !st.whole;
}

void node_ledger_close(struct shell_node *n)
{
	struct wire_err err;

	if (n->ledger && atomic_load(&n->renew_ledger) && shell_ledger_declare_whole(n->ledger) &&
	    shell_ledger_flush(n->ledger, n->env, n->paths.ledger, n->conf.group, &err))
		shell_log(n, "the ledger could not be begun anew: %s", err.text);
	shell_ledger_free(n->ledger);
	n->ledger = NULL;
}

int node_ledger_effects(void *node, uint64_t upto, const struct vfs_effect *effects, size_t count, struct wire_err *err)
{
	struct shell_node *n = node;

	return shell_ledger_apply(n->ledger, upto, effects, count, err);
}

int node_ledger_flush(struct shell_node *n, uint64_t mark_index, struct wire_err *err)
{
	if (!n->ledger) /* a WAL is begun while the database is opened */
		return WIRE_OK;
	if (index_of(n->ledger) < mark_index)
		return wire_fail(err, WIRE_INTERNAL, "the ledger of %s is behind the checkpoint at entry %" PRIu64, n->paths.db, mark_index);
	return shell_ledger_flush(n->ledger, n->env, n->paths.ledger, n->conf.group, err);
}

int node_ledger_copy(struct shell_node *n, unsigned slot, uint64_t below, struct wire_file **ret_file, uint64_t *ret_bytes, struct wire_err *err)
{
	const struct wire_env *env = n->env;
	struct wire_file *f = NULL;
	char path[PATH_MAX + 16];
	uint64_t index, bytes;
	int rc;

	snprintf(path, sizeof path, "%s.out%u", n->paths.ledger, slot);
	rc = shell_ledger_copy(n->ledger, env, path, n->conf.group, &index, err);
	if (!rc)
		rc = env->open(env->ctx, path, WIRE_OPEN_READ, &f, err);
	(void)env->unlink(env->ctx, path, NULL);
	if (!rc)
		rc = env->size(env->ctx, f, &bytes, err);
	if (!rc && index < below)
		rc = wire_fail(err, WIRE_INTERNAL, "the ledger of %s is behind its database", n->paths.db);
	if (rc && f)
		env->close(env->ctx, f);
	if (rc)
		return rc;
	*ret_file = f;
	*ret_bytes = bytes;
	return WIRE_OK;
}

void node_ledger_status(struct shell_node *n, struct wire_buf *b)
{
	struct shell_ledger_state st;

	if (!n->ledger) {
		node_json_put(b, "\"ledger\":null,");
		return;
	}
	shell_ledger_state(n->ledger, &st);
	node_json_put(b, "\"ledger\":{\"index\":%" PRIu64 ",\"checksum\":\"%016" PRIx64 "\",\"from\":%" PRIu64 ",\"terms\":%u,\"transactions\":%u,\"sessions\":%u,\"whole\":%s,\"memory_bytes\":%" PRIu64
	                 ",\"file_bytes\":%" PRIu64 "},", st.index, st.checksum, st.from, st.terms, st.ids, st.sessions, st.whole ? "true" : "false", st.memory_bytes, st.file_bytes);
}
