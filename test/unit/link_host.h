/* A host of links, for tests of what they leave in it: its threads and descriptors, two nodes, and its children. */
#ifndef TEST_LINK_HOST_H
#define TEST_LINK_HOST_H

#include "test/unit/link_world.h"
#include <unistd.h>

enum { FDS_MAX = 256, CHECK_MS = 10000 };

struct link_stock {
	unsigned threads, n_fds;
	int fds[FDS_MAX];
};

unsigned link_rounds(const char *name, unsigned normally); /* from the environment, for longer runs by hand */
/* To be called first in a process, a forked one, too: a sanitizer starts a thread beside a process's first one. */
void link_warm_up(void);
void link_take_stock(struct link_stock *s);
void link_take_first_stock(struct link_stock *s); /* before anything is opened */
bool link_is_stock(const struct link_stock *want);
bool link_comes_to(const struct link_stock *want, uint64_t ms); /* a thread that was joined may be listed for a moment */
void link_check_stock(const struct link_stock *want);
bool link_is_tcp(int fd);

extern struct link_node link_pair[2]; /* ids 1 and 2 */
void link_open_pair(void);
void link_close_pair(void);
void link_begin_chatter(pthread_t t[2]); /* each sends as fast as it can; what comes in is counted only */
void link_end_chatter(pthread_t t[2], int i);

/* A child checks nothing by cmocka, but ends with a status, having named the line. It is killed after a minute. */
pid_t link_start_child(void);
void link_check_child(pid_t pid); /* waits; it must end with status 0 */
#define LINK_CHILD(cond)                                                                                                 \
	do {                                                                                                           \
		if (!(cond)) {                                                                                         \
			dprintf(STDERR_FILENO, "# child: not so at line %d: %s\n", __LINE__, #cond);                   \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

#endif
