/* An image comes in: asked for, received chunk by chunk, checked, and put into place as this node's database. For walraft join, and for a witness that
 * becomes a full replica. One thread at a time; the callbacks are called on it.
 *
 * Order on the disk, so that a kill anywhere leaves something that is known: image.tmp grows; `installing` names its inode; the file gets the database's name; `pages`; `ledger`.
 * What makes the node use it, a journal or a line in node.conf, is the caller's, who then calls shell_image_installed. Until that a database file whose inode
 * `installing` names is ours, and may be removed; any other is somebody's. */
#ifndef SHELL_IMAGE_IN_H
#define SHELL_IMAGE_IN_H

#include "shell/conf.h"
#include "snapshot/image.h"
#include "vfs/pages.h"
#include "wire/link.h"

struct shell_image_in {
	/* set by the caller */
	const struct wire_env *env;
	const struct shell_paths *paths;
	uint64_t group;
	unsigned timeout_s; /* give up when nothing moved for so long */
	void *ctx;
	void (*send)(void *ctx, const struct wire_msg *q); /* to whoever shall serve; may be lost, it is repeated */
	/* The next message (the callee's to free; other types are ignored) or NULL after ms. An error ends the fetch. */
	int (*receive)(void *ctx, unsigned ms, struct wire_link_msg **ret_msg, struct wire_err *err);
	bool (*refused)(void *ctx, const char *why); /* true: somebody else is asked from now on; false: give up. May be NULL: false */
	int (*opened)(void *ctx, const struct snap_info *info, struct wire_err *err); /* what is coming; an error ends the fetch. May be NULL */
	void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes); /* may be NULL */

	/* results of a fetch */
	struct snap_info info;

	/* inside */
	uint64_t corr, deadline_us;
	struct snap_recv *recv;
	struct vfs_pages *pages;
};

/* Fetches a whole image; afterwards shell_image_install or shell_image_drop. WIRE_TIMEOUT, WIRE_IO (refused, with the sender's reason), what a callback gave. */
int shell_image_fetch(struct shell_image_in *in, struct wire_err *err);
/* Puts it into place, with `pages`. WIRE_EXISTS: a file is there under that name (or a WAL without its database, that may be worth something); nothing was changed. */
int shell_image_install(struct shell_image_in *in, struct wire_err *err);
/* It is in use now: the marker goes. */
void shell_image_installed(struct shell_image_in *in);
void shell_image_drop(struct shell_image_in *in); /* frees; after any of the above */

/* The database file is one that an installation, interrupted, was putting into place: removes it, with its marker. False: it is not, or there is none; nothing was done. */
bool shell_image_undo(const struct wire_env *env, const struct shell_paths *paths);
/* Only looks. */
bool shell_image_is_ours(const struct wire_env *env, const struct shell_paths *paths);
/* WIRE_EXISTS: a -wal or -journal is there that may hold somebody's last transactions. */
int shell_image_refuse_orphans(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err);

#endif
