#ifndef SHELL_SETUP_H
#define SHELL_SETUP_H
#include "shell/conf.h"
/* Makes paths->db a cluster of one node without a listener. */
static inline int shell_setup_auto(const struct wire_env *env, const struct shell_paths *paths, struct wire_err *err)
{ (void)env; return wire_fail(err, WIRE_UNSUPPORTED, "%s: setting up from within a program is not built in yet", paths->db); }
#endif
