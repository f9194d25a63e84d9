/* The loadable module's only object of its own: pulls the entry point out of the convenience libraries. */
#include "shell/ext.h"

__attribute__((used)) static int (*const entry)(sqlite3 *, char **, const struct sqlite3_api_routines *) = sqlite3_walraft_init;
