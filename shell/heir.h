/* The line `yield` over node.sock: the process that hosts a node hands it to another one, `walraft serve`. First comes the descriptor with the locks of -shm (vfs/shmlock.h), then, when the node has
 * ended here, that of the node directory's lock, so that nobody comes in between.
 *
 * Answers: a byte Y with the descriptor of -shm, y without one (there are no such locks here), or N and a text: refused; then L with the directory's lock. */
#ifndef SHELL_HEIR_H
#define SHELL_HEIR_H

#include "shell/conf.h"
#include "vfs/shmlock.h"

struct shell_node;

/* Has the process that hosts the node give it up. The caller takes the lock (shell_lock_inherit) and lets go of *ret_shm (may be NULL) when the node runs. WIRE_CLOSED: nobody answers now, or it ended
 * meanwhile; WIRE_BUSY: it does not give it, the text tells; WIRE_TIMEOUT: it is stopped, or stuck. */
int shell_heir_ask(const struct shell_paths *paths, int *ret_lock_fd, struct vfs_shmlock **ret_shm, struct wire_err *err);

/* The host's side, on threads of the control socket; fd is taken. */
void node_heir_yield(struct shell_node *n, int fd);
/* resident.c: ends the node for whoever is at the other end of fd, which is taken. */
void shell_heir_yield_now(struct shell_node *n, int fd);

#endif
