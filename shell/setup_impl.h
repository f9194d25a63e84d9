/* Inside of setup*.c. */
#ifndef SHELL_SETUP_IMPL_H
#define SHELL_SETUP_IMPL_H

#include "shell/setup.h"
#include "vfs/pages.h"

struct sqlite3;

/* A database under a plain connection of SQLite's, held so that nobody else writes to it. */
struct setup_plain {
	const struct wire_env *env;
	const struct shell_paths *paths;
	struct sqlite3 *db;
	uint64_t deadline_ns; /* until then a locked database is waited for */
	uint32_t page_size, pages;
};

/* On return the database is in WAL mode, durably and wholly in its file, its WAL empty or missing, and writers are kept out until the close. may_be_empty: one without
 * pages gets its first. Errors as in setup.h; nothing is left open then. */
int setup_plain_open(const struct wire_env *env, const struct shell_paths *paths, bool may_be_empty, struct setup_plain *ret_plain, struct wire_err *err);
void setup_plain_close(struct setup_plain *p);
/* The hashes of all pages, each last changed at index. The caller frees them. */
int setup_plain_hash(struct setup_plain *p, uint64_t group, uint64_t index, shell_setup_progress *progress, struct vfs_pages **ret_pages, struct wire_err *err);

/* Takes the lock of a directory that should be there. WIRE_NOTFOUND: not set up. */
int setup_lock(const struct shell_paths *paths, int *ret_lock, struct wire_err *err);
int setup_write_pages(const struct wire_env *env, const struct shell_paths *paths, struct vfs_pages *pages, uint64_t index, struct wire_err *err);

#define SETUP_LATER_MAX 8
/* For writing new files: has no clock, no reads. A file whose sync is owed stays open. */
struct setup_later {
	struct wire_env env;
	const struct wire_env *real;
	const char *last; /* borrowed */
	struct wire_file *files[SETUP_LATER_MAX];
	char *dirs[SETUP_LATER_MAX];
	uint32_t n_files, n_dirs;
	bool last_done;
};
/* l->env is `real`, but puts off all syncs until something is renamed to `last`; then it syncs for real, renames, and what is synced after that is synced at once. */
void setup_later_begin(struct setup_later *l, const struct wire_env *real, const char *last);
void setup_later_end(struct setup_later *l); /* gives up what is owed */

#endif
