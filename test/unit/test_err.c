/* Errors: codes, sentences, and what happens when they are too long. */
#include "wire/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void fail_fills(void **state)
{
	struct wire_err err = { .sys = 99 };

	(void)state;
	assert_int_equal(wire_fail(&err, WIRE_CORRUPT, "record %d of %s", 7, "a.seg"), WIRE_CORRUPT);
	assert_int_equal(err.code, WIRE_CORRUPT);
	assert_int_equal(err.sys, 0);
	assert_string_equal(err.text, "record 7 of a.seg");
}

static void no_sentence_wanted(void **state)
{
	(void)state;
	assert_int_equal(wire_fail(NULL, WIRE_LOST, "%s", "x"), WIRE_LOST);
	assert_int_equal(wire_fail_errno(NULL, ENOSPC, "%s", "x"), WIRE_FULL);
	assert_int_equal(wire_context(NULL, "%s", "x"), WIRE_INTERNAL);
}

static void errno_gives_code(void **state)
{
	static const struct {
		int sys, code;
	} cases[] = {
		{ ENOSPC, WIRE_FULL },    { EDQUOT, WIRE_FULL },   { EACCES, WIRE_PERM },     { EPERM, WIRE_PERM },
		{ EROFS, WIRE_PERM },     { ENOENT, WIRE_NOTFOUND }, { EEXIST, WIRE_EXISTS }, { EADDRINUSE, WIRE_BUSY },
		{ ENOMEM, WIRE_NOMEM },   { EIO, WIRE_IO },        { EISDIR, WIRE_IO },       { 0, WIRE_IO },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct wire_err err = { 0 };

		assert_int_equal(wire_fail_errno(&err, cases[i].sys, "cannot %s", "go"), cases[i].code);
		assert_int_equal(err.code, cases[i].code);
		assert_int_equal(err.sys, cases[i].sys);
	}
}

static void errno_says_why(void **state)
{
	struct wire_err err;

	(void)state;
	wire_fail_errno(&err, ENOENT, "cannot open %s", "/x");
	assert_string_equal(err.text, "cannot open /x: No such file or directory");
}

static void context_goes_before(void **state)
{
	struct wire_err err;

	(void)state;
	wire_fail_errno(&err, EIO, "cannot read");
	assert_int_equal(wire_context(&err, "journal %d", 3), WIRE_IO);
	assert_int_equal(err.sys, EIO);
	assert_string_equal(err.text, "journal 3: cannot read: Input/output error");
	assert_int_equal(wire_context(&err, "start"), WIRE_IO);
	assert_string_equal(err.text, "start: journal 3: cannot read: Input/output error");
}

static void may_quote_itself(void **state)
{
	struct wire_err err;

	(void)state;
	wire_fail(&err, WIRE_IO, "first");
	wire_fail(&err, WIRE_CORRUPT, "second, after %s", err.text);
	assert_string_equal(err.text, "second, after first");
	wire_context(&err, "<%s>", err.text);
	assert_string_equal(err.text, "<second, after first>: second, after first");
}

static void long_ones_are_cut(void **state)
{
	const char *why = ": No space left on device";
	struct wire_err err;
	char big[2000];

	(void)state;
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	wire_fail(&err, WIRE_IO, "%s", big);
	assert_int_equal(strlen(err.text), sizeof err.text - 1);

	wire_fail_errno(&err, ENOSPC, "%s", big);
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	assert_string_equal(err.text + strlen(err.text) - strlen(why), why);

	wire_fail(&err, WIRE_IO, "%s", big);
	wire_context(&err, "context");
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	assert_memory_equal(err.text, "context: xxx", 12);

	wire_fail(&err, WIRE_IO, "short");
	wire_context(&err, "%s", big);
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	assert_int_equal(err.code, WIRE_IO);
}

static void codes_have_texts(void **state)
{
	(void)state;
	assert_string_equal(wire_code_text(WIRE_OK), "ok");
	assert_string_equal(wire_code_text(WIRE_INTERNAL), "internal error");
	assert_string_equal(wire_code_text(-1), "unknown code");
	assert_string_equal(wire_code_text(WIRE_CODE_COUNT), "unknown code");
	for (int i = 0; i < WIRE_CODE_COUNT; i++) {
		assert_true(strlen(wire_code_text(i)) > 0);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(wire_code_text(i), wire_code_text(j));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fail_fills),       cmocka_unit_test(no_sentence_wanted),
		cmocka_unit_test(errno_gives_code), cmocka_unit_test(errno_says_why),
		cmocka_unit_test(context_goes_before), cmocka_unit_test(may_quote_itself),
		cmocka_unit_test(long_ones_are_cut), cmocka_unit_test(codes_have_texts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
