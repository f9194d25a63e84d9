/* The loadable extension: entry point, SQL functions, and what ties connections to nodes. */
#ifndef SHELL_EXT_H
#define SHELL_EXT_H

#include <sqlite3.h>

struct sqlite3_api_routines;

/* The entry point that SQLite calls; also given to sqlite3_auto_extension by programs that link it. Registers the VFS "walraft", and the functions on
 * this and all later connections. SQLITE_OK_LOAD_PERMANENTLY. */
#ifdef _WIN32
__declspec(dllexport)
#endif
__attribute__((visibility("default"))) int sqlite3_walraft_init(sqlite3 *db, char **pz_error,
                                                                 const struct sqlite3_api_routines *api);

/* SQL functions on one connection; sqlfn.c lists them. An SQLite result code. */
int shell_sqlfn_register(sqlite3 *db);
int shell_sqlfn_reads_register(sqlite3 *db); /* sqlfn_reads.c */
int shell_sqlfn_outcomes_register(struct sqlite3 *db); /* sqlfn_outcomes.c */
int shell_members_table_register(sqlite3 *db); /* members_table.c */
int shell_remote_register(sqlite3 *db);        /* remote.c */

#endif
