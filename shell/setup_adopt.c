/* A changed file becomes its lone node's new state; a replicated database becomes a plain one. Both change what is there at one moment, before which all is as it
 * was and after which all is as it shall be. */
#include "shell/ledger.h"
#include "shell/setup_impl.h"
#include "wire/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- adopt ---
 *
 * The new state is an entry without pages behind the journal's last one, in a term of its own, with a checkpoint mark there that says the file's size and checksum: a
 * node that starts goes by the latest mark, and whatever was noted below it counts no more. So the moment is the sync of that mark.
 *
 *   killed before                          what a start finds
 *   - the file is settled                  the changed file: refused, as before
 *   - `pages` is replaced (a rename)       the same: checkpointed, in WAL mode
 *   - the entry and the mark are durable   page hashes that are newer than the mark, and agree with no state of the log: refused, as before. Of the records any
 *                                          first part may be there: a higher term, an entry that changes nothing, but no mark
 *   - the ledger is begun anew             the new state, with the ledger of before, or what the journal gives of one
 *   - the end                              the new state; what became of earlier transactions is not known any more, and clients' steps begin anew
 * Adopting again is right each time; it takes the next index and term. */

static int check_sole(const struct shell_paths *paths, const struct shell_conf *conf, const struct raft_journal_state *st, struct wire_err *err)
{
	const struct raft_config *c = st->n_configs ? &st->configs[st->n_configs - 1].config : &st->base_config;
	const struct raft_member *self = raft_config_find(c, conf->node);

	if (self && c->n == 1 && (self->flags & RAFT_VOTER))
		return WIRE_OK;
	return wire_fail(err, WIRE_UNSUPPORTED, "%s is one of %u members of its cluster, and cannot take another state than the others: remove the file with its -wal and -shm, and %s, and join again",
	                 paths->db, c->n, paths->dir);
}

static int append_state(struct raft_journal *j, uint64_t term, const struct shell_setup_result *r, struct wire_err *err)
{
	const struct wire_entry e = { .index = r->index, .term = term, .kind = WIRE_ENTRY_NOOP, .sum = wire_hash("", 0, 0) };
	const struct raft_journal_mark mark = { .index = r->index, .checksum = r->checksum, .db_pages = r->pages };
	int rc = raft_journal_append_note(j, "the database file is adopted as it is", err);

	if (!rc)
		rc = raft_journal_append_vote(j, term, 0, err);
	if (!rc)
		rc = raft_journal_append_entries(j, &e, 1, r->index, err);
	if (!rc)
		rc = raft_journal_append_mark(j, &mark, err);
	return rc ? rc : raft_journal_sync(j, err);
}

/* The file may lack what was applied once: who repeats it then must not be told that it is there. */
static int begin_ledger(const struct wire_env *env, const struct shell_paths *paths, uint64_t term, const struct shell_setup_result *r, struct wire_err *err)
{
	struct shell_ledger *l = shell_ledger_new(r->index, term, true);
	int rc = l ? shell_ledger_flush(l, env, paths->ledger, r->conf.group, err) : wire_fail(err, WIRE_NOMEM, "out of memory");

	shell_ledger_free(l);
	return rc;
}

static int adopt_file(const struct wire_env *env, const struct shell_paths *paths, struct raft_journal *j, uint64_t term, shell_setup_progress *progress,
                      struct shell_setup_result *r, struct wire_err *err)
{
	struct setup_plain plain;
	struct vfs_pages *pages = NULL;
	int rc = setup_plain_open(env, paths, true, &plain, err);

	if (rc)
		return rc;
	r->page_size = plain.page_size;
	r->pages = plain.pages;
	rc = setup_plain_hash(&plain, r->conf.group, r->index, progress, &pages, err);
	if (!rc) {
		r->checksum = vfs_pages_checksum(pages);
		rc = setup_write_pages(env, paths, pages, r->index, err);
		vfs_pages_free(pages);
	}
	if (!rc)
		rc = append_state(j, term, r, err);
	if (!rc)
		rc = begin_ledger(env, paths, term, r, err);
	setup_plain_close(&plain);
	return rc;
}

static int adopt(const struct wire_env *env, const struct shell_paths *paths, bool auto_only, shell_setup_progress *progress, struct shell_setup_result *r,
                 struct wire_err *err)
{
	struct raft_journal_opts opts = { 0 };
	struct raft_journal_state st;
	struct raft_journal *j = NULL;
	int rc = shell_conf_read(env, paths, &r->conf, err);

	if (rc)
		return rc;
	if (r->conf.joining)
		return wire_fail(err, WIRE_UNSUPPORTED, "%s has not finished joining its cluster; run walraft join again", paths->db);
	if (auto_only && (!r->conf.auto_made || *r->conf.listen))
		return wire_fail(err, WIRE_UNSUPPORTED, "%s was not set up by itself: walraft adopt takes it as it is", paths->db);
	if (access(paths->db, F_OK))
		return wire_fail(err, WIRE_NOTFOUND, "%s is not there: put it back from a copy first", paths->db);
	opts.group = r->conf.group;
	rc = raft_journal_open(env, paths->journal, &opts, &j, &st, err);
	if (rc)
		return rc;
	rc = check_sole(paths, &r->conf, &st, err);
	r->index = st.base_index + st.n_entries + 1;
	for (size_t i = 0; i < st.n_entries; i++)
		r->at_risk += st.entries[i].kind == WIRE_ENTRY_DATA && st.entries[i].index > st.mark.index;
	if (!rc)
		rc = adopt_file(env, paths, j, st.term + 1, progress, r, err);
	raft_journal_close(j);
	return rc;
}

static int adopt_locked(const struct wire_env *env, const struct shell_paths *paths, bool auto_only, shell_setup_progress *progress, struct shell_setup_result *ret_result,
                        struct wire_err *err)
{
	struct shell_setup_result r = { 0 };
	int lock, rc = setup_lock(paths, &lock, err);

	if (rc)
		return rc;
	rc = adopt(env, paths, auto_only, progress, &r, err);
	shell_lock_release(lock);
	if (!rc)
		*ret_result = r;
	return rc;
}

int shell_setup_check_sole(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	struct raft_journal_opts opts = { 0 };
	struct raft_journal_state st;
	struct raft_journal *j = NULL;
	struct shell_conf conf;
	int lock, rc = setup_lock(paths, &lock, err);

	if (rc)
		return rc;
	rc = shell_conf_read(env, paths, &conf, err);
	opts.group = conf.group;
	/* What does not open is judged by whoever needs it. */
	if (!rc && !conf.joining && !raft_journal_open(env, paths->journal, &opts, &j, &st, NULL)) {
		rc = check_sole(paths, &conf, &st, err);
		raft_journal_close(j);
	}
	shell_lock_release(lock);
	return rc;
}

int shell_setup_adopt(const struct wire_env *env, const struct shell_paths *paths, shell_setup_progress *progress, struct shell_setup_result *ret_result,
                      struct wire_err *err)
{
	return adopt_locked(env, paths, false, progress, ret_result, err);
}

int shell_setup_readopt(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	struct shell_setup_result r;

	return adopt_locked(env, paths, true, NULL, &r, err);
}

/* --- detach ---
 *
 * The moment is the rename of node.conf.
 *
 *   killed before                            what is left
 *   - the WAL is checkpointed, and synced    the replicated database; its node starts as ever
 *   - node.conf has its other name, durably  the same, with an empty WAL. A power loss may show the rename or not: either is whole
 *   - the node directory is removed          a plain database, with a directory that says `detached`; another detach or init removes it
 *   - the connection is closed               a plain database, its WAL is empty
 *   - the end                                a plain database; a power loss may show the WAL, which is empty, or the directory again
 * Writers are kept out from the checkpoint to the end, so that nothing goes into a database that is still to be its node's. */

bool shell_setup_is_detached(const struct shell_paths *paths)
{
	return access(paths->conf, F_OK) != 0 && access(paths->detached, F_OK) == 0;
}

static int forget_node(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	struct setup_plain plain;
	int rc = setup_plain_open(env, paths, true, &plain, err);

	if (rc)
		return rc;
	rc = env->rename(env->ctx, paths->conf, paths->detached, err);
	if (!rc)
		rc = env->sync_dir(env->ctx, paths->dir, err);
	if (!rc)
		shell_dir_remove(env, paths);
	setup_plain_close(&plain);
	return rc;
}

int shell_setup_detach(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{
	struct shell_conf conf;
	int lock, rc = setup_lock(paths, &lock, err);

	if (rc)
		return rc;
	if (shell_setup_is_detached(paths)) {
		shell_dir_remove(env, paths);
	} else {
		rc = shell_conf_read(env, paths, &conf, err);
		if (!rc && conf.joining)
			rc = wire_fail(err, WIRE_UNSUPPORTED, "%s has not finished joining its cluster, and is no database yet; remove it, if it is there, and %s", paths->db, paths->dir);
		if (!rc)
			rc = forget_node(env, paths, err);
	}
	if (!rc)
		rc = shell_dir_sync_parent(env, paths, err);
	shell_lock_release(lock);
	return rc;
}
