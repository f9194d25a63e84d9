/* Messages between an attached process and its host: whole ones get through, in pieces of any size, and nothing else does. */
#include "shell/attach_msg.h"
#include "wire/hash.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static void pair(struct attach_link *a, struct attach_link *b)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	assert_true(attach_link_init(a, fd[0]));
	assert_true(attach_link_init(b, fd[1]));
}

static void end(struct attach_link *a, struct attach_link *b)
{
	attach_link_close(a);
	attach_link_close(b);
}

static void *send_many(void *arg)
{
	struct attach_link *a = arg;

	for (uint32_t n = 0; n < 300; n++) {
		size_t at = attach_begin(a, ATTACH_FRAMES), size = (size_t)(n * 7919u % ATTACH_PIECE);

		wire_put_u64(&a->out, n);
		for (size_t i = 0; i < size; i++)
			wire_put_u8(&a->out, (uint8_t)(n + i));
		attach_end(a, at);
		if (n % 3 == 0) /* several at once */
			continue;
		assert_int_equal(attach_send(a, 5000, NULL), WIRE_OK);
	}
	assert_int_equal(attach_send(a, 5000, NULL), WIRE_OK);
	return NULL;
}

static void streams(void **unused)
{
	struct attach_link a, b;
	enum attach_type type;
	struct wire_in in;
	pthread_t writer;

	(void)unused;
	pair(&a, &b);
	assert_int_equal(pthread_create(&writer, NULL, send_many, &a), 0);
	for (uint32_t n = 0; n < 300; n++) {
		const uint8_t *p;
		size_t size;

		assert_int_equal(attach_receive(&b, 5000, 5000, &type, &in, NULL), WIRE_OK);
		assert_int_equal(type, ATTACH_FRAMES);
		assert_int_equal(wire_get_u64(&in), n);
		size = wire_in_left(&in);
		assert_int_equal(size, n * 7919u % ATTACH_PIECE);
		p = wire_get_bytes(&in, size);
		for (size_t i = 0; i < size; i++)
			assert_int_equal(p[i], (uint8_t)(n + i));
		assert_true(attach_is_whole(&in));
	}
	pthread_join(writer, NULL);
	attach_link_close(&a);
	assert_int_equal(attach_receive(&b, 5000, 5000, &type, &in, NULL), WIRE_CLOSED);
	end(&a, &b);
}

static int receive_bytes(const void *p, size_t n)
{
	struct attach_link a, b;
	enum attach_type type;
	struct wire_in in;
	int rc;

	pair(&a, &b);
	assert_int_equal(send(a.fd, p, n, 0), (ssize_t)n);
	rc = attach_receive(&b, 20, 20, &type, &in, NULL);
	end(&a, &b);
	return rc;
}

static void nonsense(void **unused)
{
	static const uint8_t good[8] = { 0, 0, 0, 0, ATTACH_LEADER, ATTACH_VERSION, 0, 0 };
	static const struct { int at; uint8_t byte; } wrong[] = { { 2, 0xff }, { 3, 1 }, { 4, 0 }, { 4, ATTACH_TYPE_MAX + 1 }, { 5, 0 }, { 5, 2 }, { 6, 1 }, { 7, 1 } };
	uint8_t bytes[8];

	(void)unused;
	assert_int_equal(receive_bytes(good, sizeof good), WIRE_OK);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		memcpy(bytes, good, sizeof bytes);
		bytes[wrong[i].at] = wrong[i].byte;
		assert_int_equal(receive_bytes(bytes, sizeof bytes), WIRE_INVALID);
	}
	for (size_t n = 1; n < sizeof good; n++)
		assert_int_equal(receive_bytes(good, n), WIRE_TIMEOUT);
	memcpy(bytes, good, sizeof bytes);
	bytes[0] = 9; /* of which nothing comes */
	assert_int_equal(receive_bytes(bytes, sizeof bytes), WIRE_TIMEOUT);
}

/* Ends in one way or another, and reads no byte that is not there (sanitizers tell). */
static void noise(void **unused)
{
	unsigned seed = getenv("WALRAFT_SEED") ? (unsigned)strtoul(getenv("WALRAFT_SEED"), NULL, 10) : (unsigned)getpid();
	uint8_t bytes[64];

	(void)unused;
	print_message("# seed %u; repeat with: WALRAFT_SEED=%u test/unit/test_attach_msg\n", seed, seed);
	for (uint64_t round = 0; round < 300; round++) {
		uint64_t r = wire_hash(&round, sizeof round, seed);
		size_t n = 8 + (size_t)(r % 56);
		struct vfs_walindex_hdr hdr;
		struct vfs_once once = { 0 };
		struct wire_in in;

		for (size_t i = 0; i < n; i++)
			bytes[i] = (uint8_t)wire_hash(&i, sizeof i, r);
		in = wire_in_make(bytes, n);
		attach_get_step(&in, &once);
		assert_true(in.bad || once.id_len <= VFS_ONCE_ID_MAX);
		in = wire_in_make(bytes, n);
		attach_get_header(&in, &hdr);
		assert_int_equal(in.bad, n < sizeof hdr);
		bytes[0] = (uint8_t)(n - 8);
		memset(bytes + 1, 0, 3);
		(void)receive_bytes(bytes, n);
	}
}

static void descriptors(void **unused)
{
	struct attach_link a, b;
	enum attach_type type;
	struct wire_in in;
	int fd[2], got = -1;
	char c = 0;

	(void)unused;
	assert_int_equal(pipe(fd), 0);
	for (int with = 0; with < 2; with++) {
		pair(&a, &b);
		attach_end(&a, attach_begin(&a, ATTACH_LEADER));
		assert_int_equal(attach_send_fd(&a, with ? fd[1] : -1, 1000, NULL), WIRE_OK);
		assert_int_equal(attach_receive_fd(&b, 1000, &got, NULL), WIRE_OK);
		assert_int_equal(attach_receive(&b, 1000, 1000, &type, &in, NULL), WIRE_OK);
		assert_int_equal(type, ATTACH_LEADER);
		assert_int_equal(got >= 0, with);
		end(&a, &b);
	}
	assert_int_equal(write(got, "x", 1), 1);
	assert_int_equal(read(fd[0], &c, 1), 1);
	assert_int_equal(c, 'x');
	close(got);
	close(fd[0]);
	close(fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(streams), cmocka_unit_test(nonsense), cmocka_unit_test(noise), cmocka_unit_test(descriptors) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
