/* Handles on databases that the process was forked with. SQLite's unix VFS keeps what the process has locked by inode, in memory that a child gets a copy of: of a file that the parent had open it believes
 * to have locks that are the parent's, and takes none of its own (a SHARED lock on the file, READ locks of -shm: a checkpoint would go over what the child reads). It cannot be
 * told otherwise. So a child reaches such databases, and no others, by handles that are not SQLite's: they do the little that walraft needs of one, and lock by open file
 * descriptions, which know nothing of processes, and lose nothing when another descriptor is closed. To other processes the locks are SQLite's own, byte for byte.
 *
 * What it does not reach: connections of the child's by the VFS `unix` to such a file are as unsafe as they always were. */
#ifndef VFS_CHILD_H
#define VFS_CHILD_H

#include <sqlite3ext.h>
#include <stdbool.h>

/* As base->xOpen of a main database. */
int child_open(sqlite3_vfs *base, const char *path, sqlite3_file *f, int flags, int *out);

#endif
