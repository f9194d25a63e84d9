/* Messages: what is encoded comes back, and nothing else is ever taken for a message. */
#include "wire/hash.h"
#include "wire/link.h"
#include "wire/msg.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state += 0x9e3779b97f4a7c15u;
	uint64_t z = rng_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t below(uint64_t n)
{
	return rng() % n;
}

static uint64_t number(void)
{
	uint64_t r = rng();
	return r >> (below(65) & 63);
}

static uint8_t pool[1 << 16];

static struct wire_msg random_msg(struct wire_entry *entries)
{
	struct wire_msg m = { .type = (uint8_t)(1 + below(WIRE_MSG_COUNT - 1)), .flags = (uint8_t)below(2 * WIRE_MSG_TRANSFER) };
	uint64_t *const v[] = { &m.group, &m.from, &m.to, &m.corr, &m.term, &m.log_term, &m.commit, &m.hint };
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		*v[i] = number();
	m.index = number() / 2;
	size_t text = below(3) ? below(20) : below(WIRE_TEXT_MAX + 1);
	for (size_t i = 0; i < text; i++)
		m.text[i] = (char)('!' + below(90));
	m.n_entries = below(2) ? (uint32_t)below(5) : 0;
	m.entries = m.n_entries ? entries : NULL;
	for (uint32_t i = 0; i < m.n_entries; i++) {
		uint32_t size = below(4) ? (uint32_t)below(40) : (uint32_t)below(3000);
		const uint8_t *data = size ? pool + below(sizeof(pool) - size) : NULL;
		entries[i] = (struct wire_entry){ .term = number(),
			                          .kind = (uint8_t)below(3),
			                          .size = size,
			                          .sum = wire_hash(data, size, 0),
			                          .data = data };
	}
	m.data_len = below(2) ? (uint32_t)below(200) : 0;
	m.data = m.data_len ? pool + below(sizeof(pool) - m.data_len) : NULL;
	return m;
}

static void assert_same(const struct wire_msg *a, const struct wire_msg *b)
{
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->flags, b->flags);
	assert_true(a->group == b->group && a->from == b->from && a->to == b->to && a->corr == b->corr);
	assert_true(a->term == b->term && a->index == b->index && a->log_term == b->log_term);
	assert_true(a->commit == b->commit && a->hint == b->hint);
	assert_string_equal(a->text, b->text);
	assert_int_equal(a->n_entries, b->n_entries);
	for (uint32_t i = 0; i < a->n_entries; i++) {
		const struct wire_entry *x = &a->entries[i], *y = &b->entries[i];
		assert_true(y->index == a->index + 1 + i);
		assert_true(x->term == y->term && x->kind == y->kind && x->size == y->size && x->sum == y->sum);
		if (x->size)
			assert_memory_equal(x->data, y->data, x->size);
	}
	assert_int_equal(a->data_len, b->data_len);
	if (a->data_len)
		assert_memory_equal(a->data, b->data, a->data_len);
}

static void round_trip(void **state)
{
	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct wire_entry entries[8], *mem = NULL;
		struct wire_msg m = random_msg(entries), back;
		struct wire_buf b = WIRE_BUF_INIT;
		struct wire_err err;
		wire_put_u8(&b, 0xee); /* encoding appends */
		assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_OK);
		assert_int_equal(b.len, 1 + wire_msg_size(&m));
		assert_int_equal(wire_msg_decode(b.data + 1, b.len - 1, &back, &mem, &err), WIRE_OK);
		assert_same(&m, &back);
		assert_true((mem == NULL) == (m.n_entries == 0));
		free(mem);
		wire_buf_free(&b);
	}
}

/* The copy has exactly its size, so that a sanitizer sees a read past the end. */
static int decode_copy(const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);
	assert_non_null(copy);
	memcpy(copy, p, n);
	struct wire_msg m;
	struct wire_entry *mem = NULL;
	struct wire_err err;
	unsigned version;
	int rc = wire_msg_decode(copy, n, &m, &mem, &err);
	if (rc == WIRE_OK)
		free(mem);
	else
		assert_true((rc == WIRE_CORRUPT || rc == WIRE_VERSION) && err.text[0] && !mem);
	int hello = wire_msg_decode_hello(copy, n, &m, &version, &err);
	assert_true(hello == WIRE_OK || hello == WIRE_CORRUPT);
	free(copy);
	return rc == WIRE_OK ? rc : hello == WIRE_OK ? hello : rc;
}

static void mutate(uint8_t *p, size_t *n)
{
	switch (below(5)) {
	case 0:
		p[below(*n)] ^= (uint8_t)(1u << below(8));
		break;
	case 1:
		*n = below(*n);
		break;
	case 2:
		p[below(*n)] = (uint8_t)rng();
		break;
	case 3: {
		size_t at = below(*n);
		memmove(p + at, p + at + 1, *n - at - 1);
		*n -= 1;
		break;
	}
	default:
		p[*n] = (uint8_t)rng();
		*n += 1;
	}
}

static void mutations_are_refused(void **state)
{
	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct wire_entry entries[8];
		struct wire_msg m = random_msg(entries);
		struct wire_buf b = WIRE_BUF_INIT;
		assert_int_equal(wire_msg_encode(&m, &b, NULL), WIRE_OK);
		size_t n = b.len;
		uint8_t *p = malloc(n + 16);
		assert_non_null(p);
		memcpy(p, b.data, n);
		for (uint64_t k = 1 + below(4); k && n && n < b.len + 16; k--)
			mutate(p, &n);
		bool same = n == b.len && memcmp(p, b.data, n) == 0;
		assert_true((decode_copy(p, n) == WIRE_OK) == same);
		free(p);
		wire_buf_free(&b);
	}
}

/* The same with a checksum that fits, so that the fields' own checks are what stands between. */
static void sealed_mutations_are_safe(void **state)
{
	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct wire_entry entries[8];
		struct wire_msg m = random_msg(entries);
		struct wire_buf b = WIRE_BUF_INIT;
		assert_int_equal(wire_msg_encode(&m, &b, NULL), WIRE_OK);
		size_t n = b.len;
		uint8_t *p = malloc(n + 16);
		assert_non_null(p);
		memcpy(p, b.data, n);
		for (uint64_t k = 1 + below(4); k && n && n < b.len + 16; k--)
			mutate(p, &n);
		if (n >= 8) {
			wire_set_le64(p + n - 8, wire_hash(p, n - 8, p[0]));
			decode_copy(p, n);
		}
		free(p);
		wire_buf_free(&b);
	}
}

static void truncations_are_refused(void **state)
{
	(void)state;
	struct wire_entry entries[8];
	struct wire_msg m = random_msg(entries);
	while (m.n_entries < 2)
		m = random_msg(entries);
	struct wire_buf b = WIRE_BUF_INIT;
	assert_int_equal(wire_msg_encode(&m, &b, NULL), WIRE_OK);
	for (size_t n = 0; n < b.len; n++) {
		assert_int_not_equal(decode_copy(b.data, n), WIRE_OK);
		if (n >= 8) {
			uint8_t *p = malloc(n);
			assert_non_null(p);
			memcpy(p, b.data, n);
			wire_set_le64(p + n - 8, wire_hash(p, n - 8, p[0]));
			assert_int_not_equal(decode_copy(p, n), WIRE_OK);
			free(p);
		}
	}
	wire_buf_free(&b);
}

static void limits(void **state)
{
	(void)state;
	struct wire_err err;
	struct wire_buf b = WIRE_BUF_INIT;
	uint8_t *big = calloc(1, WIRE_MSG_MAX + 1);
	struct wire_entry *entries = calloc(WIRE_ENTRIES_MAX + 1, sizeof(*entries)), *mem = NULL;
	assert_non_null(big);
	assert_non_null(entries);
	struct wire_msg m = { .type = WIRE_MSG_IMAGE_CHUNK, .data = big, .data_len = WIRE_MSG_MAX }, back;
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_TOOBIG);
	m.data_len = 0;
	m.data_len = WIRE_MSG_MAX - (uint32_t)wire_msg_size(&m) - 3;
	assert_int_equal(wire_msg_size(&m), WIRE_MSG_MAX);
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_OK);
	assert_int_equal(wire_msg_decode(b.data, b.len, &back, &mem, &err), WIRE_OK);
	m.data_len++;
	wire_buf_reset(&b);
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_TOOBIG);
	assert_int_equal(b.len, 0);
	for (uint32_t i = 0; i <= WIRE_ENTRIES_MAX; i++)
		entries[i].sum = wire_hash(NULL, 0, 0);
	m = (struct wire_msg){ .type = WIRE_MSG_APPEND, .entries = entries, .n_entries = WIRE_ENTRIES_MAX };
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_OK);
	assert_int_equal(wire_msg_decode(b.data, b.len, &back, &mem, &err), WIRE_OK);
	assert_same(&m, &back);
	free(mem);
	m.n_entries++;
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_TOOBIG);
	m.n_entries = 1;
	entries[0].data = big;
	entries[0].size = WIRE_ENTRY_MAX + 1;
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_TOOBIG);
	entries[0].data = NULL;
	entries[0].size = 10;
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_INVALID);
	m = (struct wire_msg){ .type = WIRE_MSG_NONE };
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_INVALID);
	m.type = WIRE_MSG_COUNT;
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_INVALID);
	wire_buf_free(&b);
	free(entries);
	free(big);
}

static void greetings_of_other_versions(void **state)
{
	(void)state;
	struct wire_err err;
	struct wire_buf b = WIRE_BUF_INIT;
	struct wire_msg m = { .type = WIRE_MSG_HELLO, .from = 7, .text = "tcp://h:1" }, back;
	struct wire_entry *mem = NULL;
	unsigned version = 0;
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_OK);
	b.data[0] = WIRE_PROTOCOL + 3;
	assert_int_equal(wire_msg_decode_hello(b.data, b.len, &back, &version, &err), WIRE_CORRUPT);
	wire_set_le64(b.data + b.len - 8, wire_hash(b.data, b.len - 8, WIRE_PROTOCOL + 3));
	assert_int_equal(wire_msg_decode_hello(b.data, b.len, &back, &version, &err), WIRE_OK);
	assert_int_equal(version, WIRE_PROTOCOL + 3);
	assert_true(back.from == 7);
	assert_string_equal(back.text, "tcp://h:1");
	assert_int_equal(wire_msg_decode(b.data, b.len, &back, &mem, &err), WIRE_VERSION);
	wire_buf_reset(&b);
	m.type = WIRE_MSG_VOTE_REQ;
	assert_int_equal(wire_msg_encode(&m, &b, &err), WIRE_OK);
	assert_int_equal(wire_msg_decode_hello(b.data, b.len, &back, &version, &err), WIRE_CORRUPT);
	wire_buf_free(&b);
}

static void names(void **state)
{
	(void)state;
	assert_string_equal(wire_msg_name(WIRE_MSG_APPEND), "APPEND");
	assert_string_equal(wire_msg_name(WIRE_MSG_IMAGE_CLOSE), "IMAGE_CLOSE");
	assert_string_equal(wire_msg_name(WIRE_MSG_COUNT), "?");
	assert_string_equal(wire_msg_name(-1), "?");
}

static void urls(void **state)
{
	(void)state;
	static const struct {
		const char *url;
		bool ok, loopback;
	} cases[] = {
		{ "tcp://127.0.0.1:7401", true, true },
		{ "tcp://127.9.9.9:1", true, true },
		{ "tcp://10.0.0.1:65535", true, false },
		{ "tcp://[::1]:80", true, true },
		{ "tcp://[fd00::2]:80", true, false },
		{ "tcp://localhost:80", true, true },
		{ "tcp://db-1.example:80", true, false },
		{ "tcp://0.0.0.0:80", true, false },
		{ "tcp://LocalHost:80", true, true },
		{ NULL, false, false },
		{ "", false, false },
		{ "tcp://", false, false },
		{ "tcp://:80", false, false },
		{ "tcp://h:0", false, false },
		{ "tcp://h:65536", false, false },
		{ "tcp://h:", false, false },
		{ "tcp://h:99999999999999", false, false },
		{ "tcp://h", false, false },
		{ "tcp://h:80/", false, false },
		{ "tcp://h:+80", false, false },
		{ "tcp://::1:80", false, false },
		{ "tcp://[::1:80", false, false },
		{ "tcp://[]:80", false, false },
		{ "tcp://[1.2.3.4]:80", false, false },
		{ "tcp://256.0.0.1:80", false, false },
		{ "tcp://1.2.3:80", false, false },
		{ "tcp://a b:80", false, false },
		{ "tcp://eth0;h:80", false, false },
		{ "udp://h:80", false, false },
		{ "TCP://h:80", false, false },
		{ "tcp://-h:80", false, false },
		{ "tcp://]:80", false, false },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool loopback = !cases[i].loopback;
		struct wire_err err;
		int rc = wire_url_check(cases[i].url, &loopback, &err);
		if (rc != (cases[i].ok ? WIRE_OK : WIRE_INVALID))
			fail_msg("%s gave %d", cases[i].url, rc);
		if (rc == WIRE_OK)
			assert_int_equal(loopback, cases[i].loopback);
		else
			assert_non_null(strstr(err.text, "tcp://HOST:PORT"));
	}
	char longest[400] = "tcp://";
	memset(longest + 6, 'a', 300);
	memcpy(longest + 306, ":80", 4);
	assert_int_equal(wire_url_check(longest, NULL, NULL), WIRE_INVALID);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(mutations_are_refused),
		cmocka_unit_test(sealed_mutations_are_safe),
		cmocka_unit_test(truncations_are_refused),
		cmocka_unit_test(limits),
		cmocka_unit_test(greetings_of_other_versions),
		cmocka_unit_test(names),
		cmocka_unit_test(urls),
	};
	const char *seed = argc > 1 ? argv[1] : getenv("WALRAFT_SEED");
	rng_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	printf("# seed %" PRIu64 ": WALRAFT_SEED=%" PRIu64 " test/unit/test_msg\n", rng_state, rng_state);
	for (size_t i = 0; i < sizeof(pool); i++)
		pool[i] = (uint8_t)rng();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
