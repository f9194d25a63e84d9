/* Good and bad histories, each named after what it shows. A history is written as words: a process, and what it does.
 *
 *     A+w1   invokes a write of 1         A.     ended ok            A=1    its read ended with 1; A=- with nothing;
 *     A+c12  a cas from 1 to 2            A!     failed              A=[12] with the list 1, 2
 *     A+a1   an append of 1               A?     outcome unknown
 *     A+r    a read
 *
 * All is about one key, or with a second letter, as in Ay+r, about that key. Values are digits, - is that of an absent key. */
#include "test/lin/search.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct history {
	const char *name, *words;
	enum lin_verdict verdict;
	const char *conflict; /* of a violation: numbers of the operations, the one that is stuck last */
};

#define GOOD(name, words) { name, words, LIN_LINEARIZABLE, NULL }
#define BAD(name, words, conflict) { name, words, LIN_VIOLATION, conflict }

static const struct history histories[] = {
	GOOD("nothing happened", ""),
	GOOD("a read of a key that is absent", "A+r A=-"),
	GOOD("one after the other", "A+w1 A. B+r B=1 A+w2 A. B+r B=2"),
	GOOD("a read during a write sees the old value", "A+w1 A. A+w2 B+r B=1 A."),
	GOOD("a read during a write sees the new value", "A+w1 A. A+w2 B+r B=2 A."),
	GOOD("reads during a write: the old value, then the new one", "A+w1 A. A+w2 B+r B=1 C+r C=2 A."),
	GOOD("two writes at once, the first to end wins", "A+w1 B+w2 A. B. C+r C=1"),
	GOOD("two writes at once, the last to end wins", "A+w1 B+w2 A. B. C+r C=2"),
	GOOD("a write ends before a read that overlaps it sees the one before", "A+w1 A. B+r A+w2 A. B=1"),
	GOOD("a chain of cas", "A+w1 A. B+c12 B. C+c23 C. A+r A=3"),
	GOOD("a cas that creates the key", "A+c-1 A. B+r B=1"),
	GOOD("a cas back and forth", "A+w1 A. B+c12 C+c21 D+c12 B. C. D. A+r A=2"),
	GOOD("a cas that changes nothing", "A+w1 A. B+c11 B. C+r C=1"),
	GOOD("a write of nothing deletes the key", "A+w1 A. A+w- A. B+r B=-"),
	GOOD("a failed write is not seen", "A+w1 A. B+w2 B! C+r C=1"),
	GOOD("an operation that never ends", "A+w1 A. B+w2 C+r C=1 C+r C=2"),
	GOOD("a read that never ends", "A+w1 A. B+r C+r C=1"),
	GOOD("an unknown read", "A+r A? B+w1 B."),
	GOOD("an unknown write that is never seen", "A+w1 A. B+w2 B? C+r C=1 C+r C=1"),
	GOOD("an unknown write that is seen at once", "A+w1 A. B+w2 B? C+r C=2 C+r C=2"),
	GOOD("an unknown write that is seen late", "A+w1 A. B+w2 B? C+r C=1 C+w3 C. C+r C=3 C+r C=2"),
	GOOD("an unknown write that is overwritten before it is seen", "A+w1 A? B+w2 B. C+r C=2"),
	GOOD("two unknown writes of one value, seen twice", "A+w1 A? B+w1 B? C+r C=1 C+w2 C. C+r C=1"),
	GOOD("an unknown cas that somebody else's cas needs", "A+w1 A. B+c12 B? C+c23 C. D+r D=3"),
	GOOD("an unknown cas of an unknown write", "A+w1 A? B+c12 B? C+r C=2"),
	GOOD("an unknown cas, of two, that a write must wait for", "A+w1 B+w2 C+r D+r E+c13 E? F+c13 F? B. A. D=2 C=1 G+r G=3"),
	GOOD("three cas, each of another write, beside an unknown one",
	     "U+w1 U? A+w1 B+w1 C+w1 D+c12 D. E+c12 E. F+c12 F. A. B. C. X+w- X. Y+r Y=-"),
	GOOD("a process goes on after an unknown write", "A+w1 A? A+w2 A. A+r A=1"),
	GOOD("two keys do not know of each other", "Ax+w1 Ax. By+r By=- Ay+w2 Ay. Bx+r Bx=1"),
	GOOD("appends one after the other", "A+a1 A. B+a2 B. C+r C=[12]"),
	GOOD("appends at once, in one order", "A+a1 B+a2 A. B. C+r C=[12]"),
	GOOD("appends at once, in the other order", "A+a1 B+a2 A. B. C+r C=[21]"),
	GOOD("an append is seen before it ended", "A+a1 B+r B=[1] A."),
	GOOD("a read of an empty list", "A+r A=[] B+r B=- A+a1 A."),
	GOOD("the same element twice", "A+a1 A. B+a1 B. C+r C=[11]"),
	GOOD("an unknown append that is never seen", "A+a1 A. B+a2 B? C+r C=[1]"),
	GOOD("an unknown append that is seen late", "A+a1 A. B+a2 B? C+r C=[1] D+a3 D. C+r C=[132]"),

	BAD("a stale read", "A+w1 A. A+w2 A. B+r B=1", "0 1 2"),
	BAD("a stale read, after somebody else's read", "A+w1 A. A+w2 B+r B=2 B+r B=1 A.", "0 2 3"),
	BAD("a read of the initial state, after a write", "A+w1 A. B+r B=-", "0 1"),
	BAD("a lost update: the write is not seen", "A+w1 A. B+w2 B. C+r C=1 C+r C=1", "0 1 2"),
	BAD("a lost update: two cas from one read", "A+w0 A. A+r A=0 B+r B=0 A+c01 B+c02 A. B.", "3 4"),
	BAD("cas: both succeed", "A+w1 A. B+c12 C+c13 B. C.", "1 2"),
	BAD("cas of a value that is not there", "A+w1 A. B+c23 B.", "1"),
	BAD("cas of a value that is gone", "A+w1 A. A+w2 A. B+c13 B.", "0 1 2"),
	BAD("a dirty read: of a failed write", "A+w1 A. B+w2 B! C+r C=2", "2"),
	BAD("a dirty read: while the write that fails is under way", "A+w1 A. B+w2 C+r C=2 B!", "2"),
	BAD("a read of the future", "A+r A=1 B+w1 B.", "0"),
	BAD("a read of the future: of a write that is seen too early by one", "A+r A=1 B+w1 A+r A=1 B.", "0"),
	BAD("a value that nobody wrote", "A+w1 A. B+r B=7", "1"),
	BAD("non-monotonic reads", "A+w1 A. A+w2 B+r B=2 C+r C=1 A.", "0 2 3"),
	BAD("non-monotonic reads: there and back", "A+w1 A. A+w2 B+r B=1 B+r B=2 B+r B=1 A.", "2 3 4"),
	BAD("reads disagree on the order of two writes", "A+w1 B+w2 C+r C=1 C+r C=2 D+r D=1 A. B.", "2 3 4"),
	BAD("an unknown write is seen, then lost", "A+w1 A. B+w2 B? C+r C=2 C+r C=1", "0 2 3"),
	BAD("an unknown write is seen before it was invoked", "A+w1 A. C+r C=2 B+w2 B?", "1"),
	BAD("an unknown write is seen twice", "A+w1 A? B+r B=1 C+w2 C. B+r B=1", "1 2 3"),
	BAD("an unknown cas is needed twice", "A+w1 A. B+c12 B? C+c23 C. D+c24 D.", "2 3"),
	BAD("an unknown cas of what was overwritten", "A+w1 A. A+w3 A. B+c12 B? C+r C=2", "0 1 3"),
	BAD("one of two keys", "Ax+w1 Ax. Ay+w1 Ay. Ay+w2 Ay. Bx+r Bx=1 By+r By=1", "1 2 4"),
	BAD("a lost append", "A+a1 A. B+r B=[]", "0 1"),
	BAD("an append that is seen, then lost", "A+a1 A? B+r B=[1] B+r B=[]", "1 2"),
	BAD("appends in the wrong order", "A+a1 A. B+a2 B. C+r C=[21]", "0 2"),
	BAD("reads disagree on the order of appends", "A+a1 B+a2 C+r C=[1] D+r D=[2] A. B.", "2 3"),
	BAD("an element that nobody appended", "A+a1 A. B+r B=[13]", "1"),
	BAD("an element of a failed append", "A+a1 A. B+a2 B! C+r C=[12]", "2"),
	BAD("an append that took effect twice", "A+a1 A. B+r B=[11]", "1"),
	BAD("an append of the future", "A+r A=[1] B+a1 B.", "0"),
	BAD("a hole in a list", "A+a1 A. B+a2 B. C+a3 C. D+r D=[13]", "1 3"),
	BAD("an append is seen before one that ended earlier", "A+a1 A. B+a2 C+r C=[2] B.", "0 2"),
};

static lin_value digit(struct lin_history *h, char c)
{
	return c == '-' ? LIN_NULL : lin_int(h, c - '0');
}

static lin_value value(struct lin_history *h, const char *text)
{
	lin_value list = LIN_EMPTY;

	if (*text != '[')
		return digit(h, *text);
	for (text++; *text != ']'; text++)
		list = lin_push(h, list, digit(h, *text));
	return list;
}

static void add_word(struct lin_history *h, const char *word)
{
	char process[2] = { word[0], '\0' }, key[2] = "x";
	struct lin_event e = { .process = lin_text(h, process) };

	word++;
	if (islower((unsigned char)*word))
		key[0] = *word++;
	e.key = lin_text(h, key);
	e.type = *word == '+' ? LIN_INVOKE : *word == '!' ? LIN_FAIL : *word == '?' ? LIN_INFO : LIN_OK;
	if (*word == '+') {
		word++;
		e.kind = *word == 'r' ? LIN_READ : *word == 'w' ? LIN_WRITE : *word == 'c' ? LIN_CAS : LIN_APPEND;
		if (e.kind == LIN_CAS)
			e.old = digit(h, *++word);
		if (e.kind != LIN_READ)
			e.value = digit(h, word[1]);
	} else if (*word == '=') {
		e.value = value(h, word + 1);
	}
	assert_int_equal(lin_history_add(h, &e, NULL), WIRE_OK);
}

static struct lin_history *make(const char *words)
{
	struct lin_history *h;
	char word[16];
	int n;

	assert_int_equal(lin_history_new(&h, LIN_ORDER_FED, NULL), WIRE_OK);
	for (; sscanf(words, " %15s%n", word, &n) == 1; words += n)
		add_word(h, word);
	return h;
}

static void check_conflict(const struct lin_report *r, const char *conflict)
{
	const struct lin_key_report *bad = NULL;
	char text[64] = "";
	size_t at = 0;

	for (size_t k = 0; k < r->key_count; k++)
		bad = r->keys[k].verdict == LIN_VIOLATION ? &r->keys[k] : bad;
	assert_non_null(bad);
	for (size_t i = 0; i < bad->conflict_count; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%u", i ? " " : "", bad->conflict[i]);
	assert_string_equal(text, conflict);
	snprintf(text, sizeof text, "%u", bad->stuck);
	assert_string_equal(text, conflict + strlen(conflict) - strlen(text));
	assert_true(bad->exact);
}

static void check_history(void **state)
{
	const struct history *c = *state;

	for (int search = LIN_DEEP_THEN_WIDE; search <= LIN_WIDE; search++) {
		struct lin_history *h = make(c->words);
		struct lin_report *r;

		assert_int_equal(lin_check(h, &(struct lin_limits){ .search = (enum lin_search)search }, &r, NULL), WIRE_OK);
		assert_string_equal(lin_verdict_text(r->verdict), lin_verdict_text(c->verdict));
		if (c->verdict == LIN_VIOLATION)
			check_conflict(r, c->conflict);
		lin_report_free(r);
		lin_history_free(h);
	}
}

/* The order, and the numbers of a report. */
static void report_of_a_good_history(void **state)
{
	struct lin_history *h = make("A+w1 B+w2 A. B. C+r C=1 D+w3 D! D+w4 D? D+w5 D? C+r C=4");
	static const uint32_t order[] = { 1, 0, 2, 4, 6 };
	struct lin_report *r;

	(void)state;
	assert_int_equal(lin_check(h, NULL, &r, NULL), WIRE_OK);
	assert_int_equal(r->key_count, 1);
	assert_int_equal(r->keys[0].verdict, LIN_LINEARIZABLE);
	assert_int_equal(r->keys[0].ops, 7);
	assert_int_equal(r->keys[0].ok, 4);
	assert_int_equal(r->keys[0].fail, 1);
	assert_int_equal(r->keys[0].info, 2);
	assert_int_equal(r->keys[0].limit, LIN_LIMIT_NONE);
	assert_int_equal(r->keys[0].stuck, LIN_NO_OP);
	assert_int_equal(r->keys[0].order_count, 5);
	assert_memory_equal(r->keys[0].order, order, sizeof order);
	lin_report_free(r);
	lin_history_free(h);
}

static void report_of_a_bad_history(void **state)
{
	struct lin_history *h = make("A+w1 A. B+w2 B. C+r C=2 C+r C=1 A+w3 A.");
	static const uint32_t order[] = { 0, 1, 2 };
	struct lin_report *r;

	(void)state;
	assert_int_equal(lin_check(h, NULL, &r, NULL), WIRE_OK);
	assert_int_equal(r->verdict, LIN_VIOLATION);
	assert_int_equal(r->keys[0].prefix_ok, 3);
	assert_int_equal(r->keys[0].stuck, 3);
	assert_int_equal(r->keys[0].order_count, 3);
	assert_memory_equal(r->keys[0].order, order, sizeof order);
	lin_report_free(r);
	lin_history_free(h);
}

static void a_process_that_goes_on_is_another_one(void **state)
{
	struct lin_history *h = make("A+w1 A. A+w2 A? A+w3 A. B+w4 B! B+w5 B.");

	(void)state;
	assert_int_equal(lin_op_at(h, 1)->session, 0);
	assert_int_equal(lin_op_at(h, 2)->session, 1);
	assert_int_equal(lin_op_at(h, 2)->process, lin_op_at(h, 0)->process);
	assert_int_equal(lin_op_at(h, 4)->session, 0);
	lin_history_free(h);
}

/* What all orders are held against: write 1 [0, 3], read 1 [1, 2], read 1 [4, 5], and a write of 2 of unknown outcome from 6. */
static void wrong_orders_are_found(void **state)
{
	struct lin_item items[] = {
		{ .inv = 0, .ret = 3, .need = LIN_NONE, .make = 1 }, { .inv = 1, .ret = 2, .need = 1, .make = LIN_NONE },
		{ .inv = 4, .ret = 5, .need = 1, .make = LIN_NONE }, { .inv = 6, .ret = LIN_NEVER, .need = LIN_NONE, .make = 2, .optional = true },
	};
	const struct lin_problem p = { .model = LIN_REGISTER, .items = items, .count = 4, .value_count = 3 };

	(void)state;
	assert_true(lin_order_is_right(&p, (uint32_t[]){ 0, 1, 2 }, 3));
	assert_true(lin_order_is_right(&p, (uint32_t[]){ 0, 1, 2, 3 }, 4));
	assert_false(lin_order_is_right(&p, (uint32_t[]){ 0, 2, 1 }, 3)); /* against time */
	assert_false(lin_order_is_right(&p, (uint32_t[]){ 1, 0, 2 }, 3)); /* against the model */
	assert_false(lin_order_is_right(&p, (uint32_t[]){ 0, 1 }, 2));    /* one is missing */
	assert_false(lin_order_is_right(&p, (uint32_t[]){ 0, 1, 1, 2 }, 4)); /* one is there twice */
}

#define HISTORIES (sizeof histories / sizeof *histories)

int main(void)
{
	struct CMUnitTest tests[HISTORIES + 4];

	for (size_t i = 0; i < HISTORIES; i++)
		tests[i] = (struct CMUnitTest){ histories[i].name, check_history, NULL, NULL, (void *)(uintptr_t)&histories[i] };
	tests[HISTORIES] = (struct CMUnitTest)cmocka_unit_test(report_of_a_good_history);
	tests[HISTORIES + 1] = (struct CMUnitTest)cmocka_unit_test(report_of_a_bad_history);
	tests[HISTORIES + 2] = (struct CMUnitTest)cmocka_unit_test(a_process_that_goes_on_is_another_one);
	tests[HISTORIES + 3] = (struct CMUnitTest)cmocka_unit_test(wrong_orders_are_found);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("linearizability", tests, NULL, NULL);
}
