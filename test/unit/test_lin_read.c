/* JSON lines: what is understood, what is refused and in which words, and which order counts. And the command: its exit
 * status, its table, its JSON, its page. */
#include "test/lin/lin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define P(process, type) "{\"process\":" process ",\"type\":\"" type "\","
#define WRITE(p, v) P(p, "invoke") "\"op\":\"write\",\"key\":\"x\",\"value\":" v "}\n"
#define READ(p) P(p, "invoke") "\"op\":\"read\",\"key\":\"x\"}\n"
#define OK(p) P(p, "ok") "\"op\":\"write\"}\n"
#define TOLD(p, v) P(p, "ok") "\"value\":" v "}\n"

/* With NUL and with bytes that are no characters. */
static int read_bytes(struct lin_history **ret_h, const char *text, size_t len, bool by_lines, struct wire_err *err)
{
	FILE *f = fmemopen((void *)(uintptr_t)(len ? text : "\n"), len ? len : 1, "r");
	int rc;

	assert_non_null(f);
	rc = lin_history_read(ret_h, f, "name", by_lines, err);
	fclose(f);
	return rc;
}

static enum lin_verdict verdict_of(const char *text, bool by_lines)
{
	struct lin_history *h;
	struct lin_report *r;
	struct wire_err err;
	enum lin_verdict v;

	if (read_bytes(&h, text, strlen(text), by_lines, &err))
		fail_msg("%s", err.text);
	assert_int_equal(lin_check(h, NULL, &r, NULL), WIRE_OK);
	v = r->verdict;
	lin_report_free(r);
	lin_history_free(h);
	return v;
}

struct refusal {
	const char *name, *text, *words;
};

#define INVOKE P("1", "invoke")

static const struct refusal refusals[] = {
	{ "a line that is no JSON", "hello\n", "name:1: bad JSON at column 1: a line is an object" },
	{ "the second line is bad", READ("1") "{\n", "name:2: bad JSON at column 3" },
	{ "blank lines count", "\n \n" "{]\n", "name:3: bad JSON at column 2" },
	{ "an array", "[1]\n", "a line is an object" },
	{ "an object that does not end", "{\"process\":1", "'}' is missing" },
	{ "a comma too many", "{\"process\":1,}\n", "a string belongs here" },
	{ "two objects in a line", READ("1") "{} {}\n", "something follows the object" },
	{ "a member twice", "{\"process\":1,\"process\":1}\n", "bad JSON at column 14: the member is there twice" },
	{ "a string that does not end", "{\"process\":\"a}\n", "control character in a string" },
	{ "an unknown escape", "{\"process\":\"\\q\"}\n", "unknown escape" },
	{ "half of a surrogate pair", "{\"process\":\"\\ud800\"}\n", "half of a surrogate pair" },
	{ "an escape with too few digits", "{\"process\":\"\\u12\"}\n", "four hexadecimal digits" },
	{ "bytes that are not UTF-8", "{\"process\":\"\xc0\x80\"}\n", "not UTF-8" },
	{ "UTF-8 that is cut", "{\"process\":\"\xe2\x82\"}\n", "not UTF-8" },
	{ "a number with a leading zero", "{\"process\":01}\n", "',' or '}' belongs here" },
	{ "a number without digits", "{\"process\":-}\n", "a digit belongs here" },
	{ "a word that is no value", "{\"process\":nul}\n", "a value belongs here" },
	{ "no process", "{\"type\":\"invoke\",\"op\":\"read\",\"key\":1}\n", "there is no \"process\"" },
	{ "a process that is no name", "{\"process\":1.5,\"type\":\"invoke\",\"op\":\"read\",\"key\":1}\n", "\"process\" must be an integer or a string" },
	{ "an empty name", "{\"process\":\"\",\"type\":\"invoke\",\"op\":\"read\",\"key\":1}\n", "string that is not empty" },
	{ "no type", "{\"process\":1,\"op\":\"read\",\"key\":1}\n", "there is no \"type\": it is invoke, ok, fail or info" },
	{ "an unknown type", P("1", "begin") "\"op\":\"read\",\"key\":1}\n", "unknown \"type\": it is invoke, ok, fail or info" },
	{ "no operation", INVOKE "\"key\":1}\n", "there is no \"op\": it is read, write, cas or append" },
	{ "an unknown operation", INVOKE "\"op\":\"delete\",\"key\":1}\n", "unknown \"op\": it is read, write, cas or append" },
	{ "no key", INVOKE "\"op\":\"read\"}\n", "there is no \"key\"" },
	{ "a key that is null", INVOKE "\"op\":\"read\",\"key\":null}\n", "\"key\" must be an integer or a string" },
	{ "a write without a value", INVOKE "\"op\":\"write\",\"key\":1}\n", "there is no \"value\" to write" },
	{ "a cas without a pair", INVOKE "\"op\":\"cas\",\"key\":1,\"value\":3}\n", "\"value\" of a cas must be [old,new]" },
	{ "a cas of three", INVOKE "\"op\":\"cas\",\"key\":1,\"value\":[1,2,3]}\n", "\"value\" of a cas must be [old,new]" },
	{ "a read that is invoked with a value", INVOKE "\"op\":\"read\",\"key\":1,\"value\":3}\n", "a read is invoked without a value" },
	{ "a read's ok without a value", READ("1") P("1", "ok") "\"op\":\"read\"}\n", "name:2: there is no \"value\": the ok of a read" },
	{ "an ok without an invocation", READ("1") TOLD("2", "1"), "name:2: process 2 ends an operation (ok), but has none under way" },
	{ "an ok after an info", WRITE("1", "1") P("1", "info") "\"op\":\"write\"}\n" OK("1"), "name:3: process 1 ends an operation (ok), but has none" },
	{ "an invocation while another is under way", WRITE("1", "1") READ("1"), "process 1 invokes an operation while its write of line 1 is under way" },
	{ "the end of another operation", WRITE("1", "1") P("1", "ok") "\"op\":\"read\",\"value\":1}\n", "process 1 ends a read, but has a write of line 1 under way" },
	{ "the end on another key", WRITE("1", "1") P("1", "ok") "\"key\":\"y\"}\n", "ends an operation on key \"y\", but the one of line 1 under way is on key \"x\"" },
	{ "the end with another value", WRITE("1", "1") P("1", "ok") "\"value\":2}\n", "\"value\" is not the one of the invocation in line 1" },
	{ "a register that is appended to", WRITE("1", "1") OK("1") INVOKE "\"op\":\"append\",\"key\":\"x\",\"value\":2}\n",
	  "name:3: append to key \"x\", which is a register by line 1" },
	{ "a list that is written", INVOKE "\"op\":\"append\",\"key\":\"x\",\"value\":2}\n" WRITE("2", "1"),
	  "write of key \"x\", to which line 1 appends" },
	{ "a list that is read as a number", INVOKE "\"op\":\"append\",\"key\":\"x\",\"value\":2}\n" READ("2") TOLD("2", "1"),
	  "name:3: 1 was read of key \"x\", which is a list by line 1" },
	{ "a number that is appended to", READ("2") TOLD("2", "1") INVOKE "\"op\":\"append\",\"key\":\"x\",\"value\":2}\n",
	  "append to key \"x\", of which line 2 read what is no list" },
	{ "a time that is no integer", INVOKE "\"op\":\"read\",\"key\":1,\"time\":1.5}\n", "\"time\" must be an integer: nanoseconds" },
	{ "a line without time after one with", INVOKE "\"op\":\"read\",\"key\":1,\"time\":1}\n" TOLD("1", "1"), "name:2: the line has no time" },
	{ "a line with time after one without", READ("1") P("1", "ok") "\"value\":1,\"time\":3}\n", "name:2: the line has a time" },
	{ "time that goes back", INVOKE "\"op\":\"read\",\"key\":1,\"time\":5}\n" P("1", "ok") "\"value\":1,\"time\":4}\n",
	  "time of process 1 goes back: 4 is before 5 in line 1" },
};

static void is_refused(void **state)
{
	const struct refusal *c = *state;
	struct lin_history *h = NULL;
	struct wire_err err = { 0 };

	assert_int_equal(read_bytes(&h, c->text, strlen(c->text), false, &err), WIRE_INVALID);
	assert_null(h);
	if (!strstr(err.text, c->words) || strncmp(err.text, "name:", 5) != 0)
		fail_msg("%s", err.text);
}

static void deep_nesting_is_refused(void **state)
{
	char line[400];
	struct lin_history *h;
	struct wire_err err;
	int n = snprintf(line, sizeof line, INVOKE "\"op\":\"write\",\"key\":1,\"value\":");

	(void)state;
	memset(line + n, '[', 100);
	memset(line + n + 100, ']', 100);
	snprintf(line + n + 200, sizeof line - (size_t)n - 200, "}\n");
	assert_int_equal(read_bytes(&h, line, strlen(line), false, &err), WIRE_INVALID);
	assert_non_null(strstr(err.text, "nested deeper than 64"));
}

static void nul_is_refused(void **state)
{
	static const char line[] = "{\"process\":\"a\0b\"}\n";
	struct lin_history *h;
	struct wire_err err;

	(void)state;
	assert_int_equal(read_bytes(&h, line, sizeof line - 1, false, &err), WIRE_INVALID);
	assert_non_null(strstr(err.text, "control character"));
}

/* What the reader says of a file that it cannot read. */
static void a_directory_is_no_history(void **state)
{
	FILE *f = fopen("/", "r");
	struct lin_history *h;
	struct wire_err err;

	(void)state;
	assert_non_null(f);
	assert_int_equal(lin_history_read(&h, f, "/", false, &err), WIRE_IO);
	assert_non_null(strstr(err.text, "cannot read"));
	fclose(f);
}

static void values_are_compared_as_values(void **state)
{
	(void)state;
	assert_int_equal(verdict_of(WRITE("1", "\"A\\u00e4\"") OK("1") READ("1") TOLD("1", "\"\\u0041\xc3\xa4\""), false), LIN_LINEARIZABLE);
	assert_int_equal(verdict_of(WRITE("1", "{ \"a\" : [ 1, null ] }") OK("1") READ("1") TOLD("1", "{\"a\":[1,null]}"), false), LIN_LINEARIZABLE);
	assert_int_equal(verdict_of(WRITE("1", "[1,[2]]") OK("1") READ("1") TOLD("1", "[ 1 , [ 2 ] ]"), false), LIN_LINEARIZABLE);
	assert_int_equal(verdict_of(WRITE("1", "\"\\ud83d\\ude00\"") OK("1") READ("1") TOLD("1", "\"\xf0\x9f\x98\x80\""), false), LIN_LINEARIZABLE);
	assert_int_equal(verdict_of(WRITE("1", "1") OK("1") READ("1") TOLD("1", "\"1\""), false), LIN_VIOLATION);
	assert_int_equal(verdict_of(WRITE("1", "true") OK("1") READ("1") TOLD("1", "false"), false), LIN_VIOLATION);
	assert_int_equal(verdict_of(WRITE("1", "[1]") OK("1") READ("1") TOLD("1", "[1,1]"), false), LIN_VIOLATION);
	assert_int_equal(verdict_of(WRITE("1", "-1.5e3") OK("1") READ("1") TOLD("1", "-1.5e3"), false), LIN_LINEARIZABLE);
}

static void ends_may_be_short_or_full(void **state)
{
	(void)state;
	assert_int_equal(verdict_of("{\"process\":\"c 1\",\"type\":\"invoke\",\"op\":\"cas\",\"key\":7,\"value\":[null,2],\"node\":{\"a\":1}}\r\n"
	                            "{\"process\":\"c 1\",\"type\":\"ok\",\"op\":\"cas\",\"key\":7,\"value\":[null,2],\"note\":\"x\"}\n\n"
	                            "{\"process\":\"c 1\",\"type\":\"invoke\",\"op\":\"read\",\"key\":7,\"value\":null}\n"
	                            "{\"process\":\"c 1\",\"type\":\"ok\",\"value\":2}",
	                            false),
	                 LIN_LINEARIZABLE);
	assert_int_equal(verdict_of("", false), LIN_LINEARIZABLE);
}

#define AT(p, type, rest, t) P(p, type) rest "\"time\":" t "}\n"
#define W(v) "\"op\":\"write\",\"key\":\"x\",\"value\":" v ","
#define R "\"op\":\"read\",\"key\":\"x\","
#define V(v) "\"value\":" v ","

/* Processes one after the other in the file, at the same time in truth. */
static void times_count_not_lines(void **state)
{
	static const char text[] = AT("1", "invoke", W("1"), "10") AT("1", "ok", "", "20") AT("1", "invoke", W("2"), "30") AT("1", "ok", "", "40")
	        AT("2", "invoke", R, "22") AT("2", "ok", V("1"), "28");

	(void)state;
	assert_int_equal(verdict_of(text, false), LIN_LINEARIZABLE);
	assert_int_equal(verdict_of(text, true), LIN_VIOLATION);
}

/* A clock that does not tell the two apart must not tell that one was first. */
static void equal_times_overlap(void **state)
{
	(void)state;
	assert_int_equal(verdict_of(AT("1", "invoke", W("1"), "10") AT("1", "ok", "", "20") AT("2", "invoke", R, "20") AT("2", "ok", V("null"), "25"), false),
	                 LIN_LINEARIZABLE);
	assert_int_equal(verdict_of(AT("1", "invoke", W("1"), "10") AT("1", "ok", "", "20") AT("2", "invoke", R, "21") AT("2", "ok", V("null"), "25"), false),
	                 LIN_VIOLATION);
	assert_int_equal(verdict_of(AT("1", "invoke", W("1"), "-9223372036854775808") AT("1", "ok", "", "0") AT("2", "invoke", R, "0")
	                                    AT("2", "ok", V("null"), "9223372036854775807"),
	                            false),
	                 LIN_LINEARIZABLE);
}

/* ---- The command ---- */

static char dir[64];

static void path_of(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", dir, name);
}

static void write_file(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	path_of(path, sizeof path, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void read_file(const char *name, char *text, size_t size)
{
	char path[128];
	FILE *f;
	size_t n;

	path_of(path, sizeof path, name);
	f = fopen(path, "r");
	assert_non_null(f);
	n = fread(text, 1, size - 1, f);
	text[n] = '\0';
	fclose(f);
}

/* In the test's directory; what it said is in `out` and `err` there. */
static int run(const char *args)
{
	const char *build = getenv("WALRAFT_BUILD");
	char here[512], command[1024];
	int status;

	if (!build)
		build = getcwd(here, sizeof here);
	snprintf(command, sizeof command, "cd %s && '%s'/test/lin/lin >out 2>err %s", dir, build, args);
	status = system(command);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void assert_says(const char *file, const char *words)
{
	static char text[200000];

	read_file(file, text, sizeof text);
	if (!strstr(text, words))
		fail_msg("'%s' is not in %s: %s", words, file, text);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/test-lin-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static void the_command_tells_a_verdict(void **state)
{
	(void)state;
	write_file("good", WRITE("1", "1") OK("1") READ("2") TOLD("2", "1"));
	write_file("bad", WRITE("1", "\"<&\"") OK("1") READ("2") TOLD("2", "null"));
	assert_int_equal(run("good"), 0);
	assert_says("out", "2 operations on 1 keys: linearizable");
	assert_int_equal(run("- <good"), 0);
	assert_int_equal(run("bad"), 1);
	assert_says("out", "VIOLATION");
	assert_says("out", "line 3 to 4: process 2, read -> null");
	assert_int_equal(run("--json bad"), 1);
	assert_says("out", "{\"verdict\":\"violation\",\"keys\":[{\"key\":\"x\",\"model\":\"register\",\"verdict\":\"violation\",\"ops\":2,");
	assert_says("out", "\"stuck\":{\"process\":2,\"op\":\"read\",\"value\":null,\"outcome\":\"ok\",\"invoke_line\":3,\"end_line\":4}");
	assert_int_equal(run("--html page bad"), 1);
	assert_says("page", "<svg");
	assert_says("page", "no order has a place for it");
	assert_says("page", "write &quot;&lt;&amp;&quot;");
	assert_says("page", "</html>");
}

static void the_command_is_undecided(void **state)
{
	(void)state;
	write_file("open", WRITE("1", "1") WRITE("2", "2") WRITE("3", "1") READ("4") TOLD("4", "2") READ("5") TOLD("5", "1") OK("1") OK("2") OK("3"));
	assert_int_equal(run("open"), 0);
	assert_int_equal(run("--states 1 open"), 3);
	assert_says("out", "UNDECIDED");
	assert_says("out", "the limit of states was hit; nothing is known of it");
	assert_int_equal(run("--states 1 --json --html page open"), 3);
	assert_says("out", "\"verdict\":\"undecided\"");
	assert_says("out", "\"limit\":\"states\"");
	assert_says("page", "undecided");
}

static void the_command_refuses(void **state)
{
	(void)state;
	write_file("wrong", READ("1") READ("1"));
	assert_int_equal(run("wrong"), 2);
	assert_says("err", "lin: wrong:2: process 1 invokes");
	assert_int_equal(run("--json wrong"), 2);
	assert_says("out", "{\"error\":\"wrong:2: process 1 invokes");
	assert_int_equal(run("- <wrong"), 2);
	assert_says("err", "lin: standard input:2: ");
	assert_int_equal(run("missing"), 2);
	assert_says("err", "cannot open missing: No such file");
	assert_int_equal(run("--html missing/page good"), 2);
	assert_says("err", "cannot write missing/page");
	assert_int_equal(run("good >/dev/full"), 2);
	assert_int_equal(run("bad >/dev/full"), 1);
	assert_int_equal(run(""), 2);
	assert_says("err", "there is no FILE");
	assert_int_equal(run("a b"), 2);
	assert_int_equal(run("--states 0 good"), 2);
	assert_int_equal(run("--time soon good"), 2);
	assert_int_equal(run("--wrong good"), 2);
	assert_says("err", "usage: lin");
	assert_int_equal(run("--help"), 0);
	assert_says("out", "usage: lin");
}

#define REFUSALS (sizeof refusals / sizeof *refusals)

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(deep_nesting_is_refused),     cmocka_unit_test(nul_is_refused),
		cmocka_unit_test(a_directory_is_no_history),   cmocka_unit_test(values_are_compared_as_values),
		cmocka_unit_test(ends_may_be_short_or_full),   cmocka_unit_test(times_count_not_lines),
		cmocka_unit_test(equal_times_overlap),         cmocka_unit_test(the_command_tells_a_verdict),
		cmocka_unit_test(the_command_is_undecided),    cmocka_unit_test(the_command_refuses),
	};
	struct CMUnitTest tests[REFUSALS + sizeof others / sizeof *others];

	for (size_t i = 0; i < REFUSALS; i++)
		tests[i] = (struct CMUnitTest){ refusals[i].name, is_refused, NULL, NULL, (void *)(uintptr_t)&refusals[i] };
	memcpy(tests + REFUSALS, others, sizeof others);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("histories as JSON lines", tests, make_dir, remove_dir);
}
