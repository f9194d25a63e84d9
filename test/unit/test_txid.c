/* shell/txid: ids of transactions. */
#include "shell/txid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void bytes_and_text(void **state)
{
	const struct shell_txid id = { .term = 0x010203040506, .index = 0xa1a2a3a4a5a6, .number = 0xfffefdfc };
	static const uint8_t want[VFS_TXID_BYTES] = { 1, 2, 3, 4, 5, 6, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xff, 0xfe, 0xfd, 0xfc };
	uint8_t b[VFS_TXID_BYTES], again[VFS_TXID_BYTES];
	char text[SHELL_TXID_TEXT];
	struct shell_txid back;

	(void)state;
	shell_txid_put(&id, b);
	assert_memory_equal(b, want, sizeof want);
	shell_txid_get(b, &back);
	assert_true(back.term == id.term && back.index == id.index && back.number == id.number);
	shell_txid_text(b, text);
	assert_string_equal(text, "010203040506a1a2a3a4a5a6fffefdfc");
	assert_true(shell_txid_parse(text, strlen(text), again));
	assert_memory_equal(again, b, sizeof b);
	assert_true(shell_txid_parse("010203040506A1A2A3A4A5A6FFFEFDFC", 32, again));
	assert_memory_equal(again, b, sizeof b);
}

static void malformed(void **state)
{
	static const char *const bad[] = { "", "0", "010203040506a1a2a3a4a5a6fffefdf", "010203040506a1a2a3a4a5a6fffefdfcc", "010203040506a1a2a3a4a5a6fffefdfg",
		                           " 10203040506a1a2a3a4a5a6fffefdfc", "000000000000a1a2a3a4a5a6fffefdfc", "00000000000000000000000000000000" };
	uint8_t id[VFS_TXID_BYTES], before[VFS_TXID_BYTES];

	(void)state;
	memset(id, 0x5a, sizeof id);
	memcpy(before, id, sizeof id);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_false(shell_txid_parse(bad[i], strlen(bad[i]), id));
		assert_memory_equal(id, before, sizeof id);
	}
	assert_false(shell_txid_parse("010203040506a1a2\0003a4a5a6fffefdfc", 32, id));
}

static void numbers(void **state)
{
	struct shell_txid_source s = { 0 };
	uint8_t a[VFS_TXID_BYTES], b[VFS_TXID_BYTES];
	struct shell_txid id;

	(void)state;
	assert_int_equal(shell_txid_next(&s, 3, 100, a), 1);
	assert_int_equal(shell_txid_next(&s, 3, 100, b), 2);
	assert_memory_not_equal(a, b, sizeof a);
	assert_true(memcmp(a, b, sizeof a) < 0);
	shell_txid_get(b, &id);
	assert_true(id.term == 3 && id.index == 100 && id.number == 2);
	assert_int_equal(shell_txid_next(&s, 5, 100, a), 1);
	shell_txid_get(a, &id);
	assert_true(id.term == 5 && id.index == 100 && id.number == 1);
	s.number = UINT32_MAX;
	assert_true(shell_txid_next(&s, 5, 101, b) == 1ull << 32);
	shell_txid_get(b, &id);
	assert_true(id.index == 101 && id.number == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bytes_and_text), cmocka_unit_test(malformed), cmocka_unit_test(numbers) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("txid", tests, NULL, NULL);
}
