/* Linearizability checker.
 *
 * A history is what clients of a store saw: when each operation was invoked, when it ended, and how. It is linearizable
 * when each operation can be given one instant between its invocation and its end such that all results are those of a
 * store that executes the operations at these instants, one after the other. Keys are independent of each other, so each
 * is checked alone (Herlihy & Wing 1990: linearizability is local).
 *
 *     lin_history_new(&h, LIN_ORDER_FED, NULL);
 *     lin_history_add(h, &(struct lin_event){ .type = LIN_INVOKE, .process = lin_int(h, 1), .kind = LIN_WRITE,
 *                                             .key = lin_text(h, "x"), .value = lin_int(h, 7) }, &err);
 *     lin_history_add(h, &(struct lin_event){ .type = LIN_OK, .process = lin_int(h, 1) }, &err);
 *     lin_check(h, &(struct lin_limits){ .time_ms = 60000 }, &report, &err);
 *
 * What an event means, and the same as JSON lines: README.md in this folder.
 *
 * Threads: a history belongs to one thread while it is fed; any number may check and print one that is complete. Errors:
 * as in wire/err.h. No function prints, and none keeps a pointer to its arguments. */
#ifndef TEST_LIN_LIN_H
#define TEST_LIN_LIN_H

#include "wire/buf.h"
#include "wire/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct lin_history;

/* ---- Values: of one history, lives as long as that; equal ones are the same number ---- */

typedef uint32_t lin_value;

#define LIN_NULL 0u         /* JSON's null: the key is absent */
#define LIN_EMPTY 1u        /* the empty list */
#define LIN_BAD UINT32_MAX  /* memory failed; lin_history_add refuses it with WIRE_NOMEM, so callers need not look */

lin_value lin_int(struct lin_history *h, int64_t n);
lin_value lin_text(struct lin_history *h, const char *utf8); /* a string */
/* The list `list` with one more element at its end. `list` itself stays. LIN_BAD when it is no list. */
lin_value lin_push(struct lin_history *h, lin_value list, lin_value element);

bool lin_is_list(const struct lin_history *h, lin_value v);
size_t lin_list_length(const struct lin_history *h, lin_value list); /* 0 for what is no list */
/* The list without its last element, which goes to *ret_last (may be NULL). `list` is a list, not LIN_EMPTY. */
lin_value lin_list_pop(const struct lin_history *h, lin_value list, lin_value *ret_last);
/* Appends the value as JSON; of a list of more than `items_max` elements (0: no bound) only the last ones, after "...",
 * which is no JSON any more. */
void lin_value_put(const struct lin_history *h, lin_value v, size_t items_max, struct wire_buf *b);

/* ---- Feeding ---- */

enum lin_type { LIN_INVOKE = 1, LIN_OK, LIN_FAIL, LIN_INFO };
enum lin_kind { LIN_READ = 1, LIN_WRITE, LIN_CAS, LIN_APPEND };

enum lin_order {
	LIN_ORDER_FED, /* events happened in the order in which they are fed; times are for pictures only */
	LIN_ORDER_TIME /* events happened at their times; those of one process are fed in order, processes in any order */
};

struct lin_event {
	enum lin_type type;
	lin_value process;  /* anything but LIN_NULL */
	enum lin_kind kind; /* at the end of an operation 0, or the one that was invoked */
	lin_value key;      /* at the end of an operation LIN_NULL, or the one that was invoked */
	lin_value value;    /* invoke: written, appended, or the new one of a cas; LIN_OK of a read: what was read; else unused */
	lin_value old;      /* invoke of a cas: the expected one; else unused */
	int64_t time_ns;    /* on one clock for all; not looked at with LIN_ORDER_FED */
	size_t line;        /* where it stands, for messages; 0: its number among the events fed, from 1 */
};

/* Frees nothing on failure. The history is freed by lin_history_free (NULL is fine). */
int lin_history_new(struct lin_history **ret_h, enum lin_order order, struct wire_err *err);
void lin_history_free(struct lin_history *h);

/* WIRE_INVALID with a sentence when the event cannot be (an end without an invocation, time that goes back, a key that is
 * both register and list ...); WIRE_NOMEM. The history is then as it was before. */
int lin_history_add(struct lin_history *h, const struct lin_event *e, struct wire_err *err);

/* Reads JSON lines up to the end of `f`, which stays open. `name` is for messages, which begin with "name:line: ". With
 * `by_lines` the order of lines counts though they have times. WIRE_INVALID for bad input, WIRE_IO, WIRE_NOMEM. */
int lin_history_read(struct lin_history **ret_h, FILE *f, const char *name, bool by_lines, struct wire_err *err);

/* ---- What was fed ---- */

#define LIN_NO_OP UINT32_MAX

struct lin_op {
	lin_value process, key;
	enum lin_kind kind;
	enum lin_type outcome;           /* LIN_OK, LIN_FAIL, or LIN_INFO, also for one that never ended */
	lin_value value, old;            /* as in lin_event; value of a read that is not LIN_OK: LIN_NULL */
	int64_t invoked_ns, ended_ns;    /* ended_ns only when end_line is not 0 */
	size_t invoke_line, end_line;    /* end_line 0: never ended */
	uint64_t invoke_seq, end_seq;    /* number of the event among those fed, from 1; end_seq 0: never ended */
	uint32_t session;                /* counts up when a process goes on after an operation without outcome */
};

size_t lin_op_count(const struct lin_history *h);
/* Operations are numbered from 0 in the order in which their invocations were fed. Valid until the next add. */
const struct lin_op *lin_op_at(const struct lin_history *h, size_t op);
/* Whether times were given (LIN_ORDER_TIME, or some time_ns other than 0). */
bool lin_has_times(const struct lin_history *h);
/* "read -> 3", "write 3", "cas 1 -> 2", "append 3"; of long lists only the end. */
void lin_op_put(const struct lin_history *h, size_t op, struct wire_buf *b);

/* ---- Checking ---- */

enum lin_model { LIN_REGISTER, LIN_LIST };
enum lin_verdict { LIN_LINEARIZABLE, LIN_VIOLATION, LIN_UNDECIDED };
enum lin_limit { LIN_LIMIT_NONE, LIN_LIMIT_STATES, LIN_LIMIT_TIME };

#define LIN_STATES_DEFAULT 50000000u

/* For tests: the searches of a register (register.h). All come to the same verdict, sooner or later. */
enum lin_search { LIN_DEEP_THEN_WIDE, LIN_DEEP, LIN_WIDE };

struct lin_limits {
	uint64_t states;  /* that may be looked at for one key; 0: LIN_STATES_DEFAULT */
	uint64_t time_ms; /* for all keys together; 0: none */
	enum lin_search search;
};

struct lin_key_report {
	lin_value key;
	enum lin_model model;
	enum lin_verdict verdict;
	enum lin_limit limit; /* which one was hit; LIN_UNDECIDED only */
	size_t ops, ok, fail, info;
	uint64_t states; /* looked at for the verdict */

	/* LIN_LINEARIZABLE: an order of the operations that explains all results: those that are ok, and those of unknown
	 * outcome that somebody saw. LIN_VIOLATION: the same for the longest linearizable prefix. Else empty. */
	uint32_t *order;
	size_t order_count;

	/* LIN_VIOLATION only. The history of the key up to, and without, the end of operation `stuck` is linearizable; with
	 * that end it is not: no order has a place for it. prefix_ok operations ended ok before. `conflict` are operations,
	 * `stuck` among them, in the order of their invocation, that cannot all have happened as told, whatever is believed
	 * of the others (other reads left out, other writes taken as of unknown outcome); of these none can be spared. When
	 * limits ended the search for these (`exact` false), the prefix may be longer in truth, and the conflict or the order
	 * may be empty. */
	size_t prefix_ok;
	uint32_t stuck;
	uint32_t *conflict;
	size_t conflict_count;
	bool exact;
};

struct lin_report {
	enum lin_verdict verdict; /* LIN_VIOLATION if any key's is; else LIN_UNDECIDED if any key's is; else LIN_LINEARIZABLE */
	struct lin_key_report *keys; /* in the order of their first appearance */
	size_t key_count;
};

/* `limits` may be NULL. WIRE_NOMEM only; limits are no error: they give LIN_UNDECIDED. */
int lin_check(const struct lin_history *h, const struct lin_limits *limits, struct lin_report **ret_report,
              struct wire_err *err);
void lin_report_free(struct lin_report *r); /* NULL is fine */

const char *lin_verdict_text(enum lin_verdict v); /* "linearizable", "violation", "undecided" */

/* ---- Showing; all append to `b` ---- */

void lin_put_table(const struct lin_history *h, const struct lin_report *r, struct wire_buf *b);
void lin_put_json(const struct lin_history *h, const struct lin_report *r, struct wire_buf *b);
/* A self-contained page with a picture of the history around each violation. */
void lin_put_html(const struct lin_history *h, const struct lin_report *r, const char *title, struct wire_buf *b);

#endif
