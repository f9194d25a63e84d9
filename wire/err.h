/* Errors.
 *
 * Every fallible function returns an `int` that is one of `enum wire_code` (0 is success) and takes, as its last
 * parameter, an optional `struct wire_err *` that receives a sentence for a person. On failure all other
 * out-parameters (`ret_...`) are untouched. The sentence says what happened, to which file or peer, and what to do;
 * callers add context as the error travels up. No function here allocates or can fail itself. */
#ifndef WIRE_ERR_H
#define WIRE_ERR_H

#include <stdbool.h>

#define WIRE_CODES(X)                                                                                                  \
	X(OK, "ok")                                                                                                    \
	X(NOMEM, "out of memory")                                                                                      \
	X(IO, "input/output error")                                                                                    \
	X(FULL, "no space left")                                                                                       \
	X(CORRUPT, "corrupt data")                                                                                     \
	X(CHANGED, "changed outside walraft")                                                                          \
	X(INVALID, "invalid argument or input")                                                                        \
	X(NOTFOUND, "not found")                                                                                       \
	X(EXISTS, "already there")                                                                                     \
	X(BUSY, "busy")                                                                                                \
	X(PERM, "permission denied")                                                                                   \
	X(VERSION, "other protocol or format version")                                                                 \
	X(FOREIGN, "belongs to another cluster or database")                                                           \
	X(NOTLEADER, "not the leader")                                                                                 \
	X(LOST, "not committed")                                                                                       \
	X(UNKNOWN, "outcome unknown")                                                                                  \
	X(FENCED, "write lock was lost")                                                                               \
	X(TIMEOUT, "timed out")                                                                                        \
	X(CLOSED, "closed")                                                                                            \
	X(TOOBIG, "too large")                                                                                         \
	X(UNSUPPORTED, "not supported")                                                                                \
	X(INTERNAL, "internal error")

enum wire_code {
#define X(name, text) WIRE_##name,
	WIRE_CODES(X)
#undef X
	        WIRE_CODE_COUNT
};

struct wire_err {
	int code;       /* enum wire_code */
	int sys;        /* errno, when the cause was a system call; else 0 */
	char text[512]; /* NUL-terminated, without trailing newline */
};

/* Fills `err` (may be NULL) and returns `code`, so that `return wire_fail(err, WIRE_IO, "...")` reads as one step. */
int wire_fail(struct wire_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same from an errno: appends ": strerror" and returns the code that fits (ENOSPC and EDQUOT are FULL; EACCES,
 * EPERM and EROFS PERM; ENOENT NOTFOUND; EEXIST EXISTS; EADDRINUSE BUSY; ENOMEM NOMEM; others IO). */
int wire_fail_errno(struct wire_err *err, int sys, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "fmt...: " before the text that is there. Returns err->code (WIRE_INTERNAL when err is NULL). */
int wire_context(struct wire_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Short English phrase of a code, "unknown code" outside the range. Never NULL. */
const char *wire_code_text(int code);

#endif
