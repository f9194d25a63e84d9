/* The locks of -shm on an open file description: between processes, beside SQLite's own, and the descriptors of which the process gets rid only when that harms nobody. */
#include "test/unit/db_world.h"
#include "vfs/shmlock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[64], shm[80];

static void make(void)
{
	sqlite3 *db;

	snprintf(path, sizeof path, "/tmp/walraft-shmlock-XXXXXX");
	close(mkstemp(path));
	snprintf(shm, sizeof shm, "%s-shm", path);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode = wal; CREATE TABLE t(x); INSERT INTO t VALUES (1)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void clean(void)
{
	char wal[80];

	snprintf(wal, sizeof wal, "%s-wal", path);
	unlink(wal);
	unlink(shm);
	unlink(path);
}

static sqlite3 *plain(void)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT * FROM t", NULL, NULL, NULL), SQLITE_OK);
	return db;
}

static int elsewhere(const char *sql) /* in a process of its own */
{
	char out[64];

	return world_stock(path, sql, out, sizeof out) & 0xff;
}

/* A truncating checkpoint is held up by any reader's lock. */
static bool reader_is_felt(void)
{
	char out[64];

	assert_int_equal(world_stock(path, "PRAGMA wal_checkpoint(TRUNCATE)", out, sizeof out), SQLITE_OK);
	return *out == '1';
}

static int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct stat st, want;
	struct dirent *e;
	int n = 0;

	assert_int_equal(stat(shm, &want), 0);
	while ((e = readdir(d)) != NULL)
		n += *e->d_name != '.' && fstat(atoi(e->d_name), &st) == 0 && st.st_ino == want.st_ino && st.st_dev == want.st_dev;
	closedir(d);
	return n;
}

/* In the process itself, and in others. */
static void test_excludes(void **state)
{
	struct vfs_shmlock *l, *second, *held;
	struct wire_err err;
	sqlite3 *db;

	(void)state;
	make();
	db = plain();
	assert_int_equal(vfs_shmlock_take(shm, &l, &err), WIRE_OK);
	assert_int_equal(vfs_shmlock_take(shm, &second, &err), WIRE_BUSY);
	assert_int_equal(elsewhere("INSERT INTO t VALUES (2)"), SQLITE_BUSY);
	assert_int_equal(elsewhere("SELECT * FROM t"), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "COMMIT; INSERT INTO t VALUES (2)", NULL, NULL, NULL), SQLITE_BUSY);
	held = vfs_shmlock_hold(shm);
	assert_ptr_equal(held, l);
	vfs_shmlock_release(l, true);
	assert_int_equal(elsewhere("INSERT INTO t VALUES (2)"), SQLITE_BUSY);
	vfs_shmlock_let_go(held);
	sqlite3_close(db);
	vfs_shmlock_sweep();
	assert_int_equal(elsewhere("INSERT INTO t VALUES (2)"), SQLITE_OK);
	clean();
}

/* A reader of SQLite's in the process keeps its READ lock, whatever is released here; the descriptor goes with the last handle, and is used again before. */
static void test_closes_late(void **state)
{
	struct vfs_shmlock *l;
	struct wire_err err;
	sqlite3 *db;

	(void)state;
	make();
	db = plain();
	assert_int_equal(descriptors(), 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(vfs_shmlock_take(shm, &l, &err), WIRE_OK);
		assert_int_equal(descriptors(), 2);
		vfs_shmlock_release(l, true);
		assert_int_equal(descriptors(), 2);
		assert_int_equal(elsewhere("INSERT INTO t VALUES (3)"), SQLITE_OK);
		assert_true(reader_is_felt());
	}
	assert_int_equal(sqlite3_exec(db, "SELECT * FROM t; COMMIT", NULL, NULL, NULL), SQLITE_OK);
	assert_false(reader_is_felt());
	sqlite3_close(db);
	vfs_shmlock_sweep();
	db = plain();
	assert_int_equal(descriptors(), 1);
	sqlite3_close(db);
	clean();
}

static void send_fd(int socket, int fd)
{
	char byte = 1, room[CMSG_SPACE(sizeof fd)] = { 0 };
	struct iovec io = { &byte, 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	assert_int_equal(sendmsg(socket, &m, 0), 1);
}

static int receive_fd(int socket)
{
	char byte, room[CMSG_SPACE(sizeof(int))];
	struct iovec io = { &byte, 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
	int fd;

	assert_int_equal(recvmsg(socket, &m, MSG_CMSG_CLOEXEC), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

/* A host that is killed: whoever was sent the descriptor keeps stock writers out, and goes on with it; who was not is told so. */
static void test_survives(void **state)
{
	struct vfs_shmlock *l, *second;
	struct wire_err err;
	sqlite3 *db;
	pid_t host;
	int s[2];

	(void)state;
	make();
	db = plain();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	host = fork();
	if (host == 0) {
		if (vfs_shmlock_take(shm, &l, NULL) != WIRE_OK)
			_exit(1);
		send_fd(s[1], vfs_shmlock_fd(l));
		for (;;)
			pause();
	}
	assert_int_equal(vfs_shmlock_adopt(shm, receive_fd(s[0]), &l, &err), WIRE_OK);
	kill(host, SIGKILL);
	waitpid(host, NULL, 0);
	assert_int_equal(elsewhere("INSERT INTO t VALUES (2)"), SQLITE_BUSY);
	assert_false(vfs_shmlock_is_elsewhere(shm));
	host = fork();
	if (host == 0) { /* a newcomer */
		vfs_shmlock_after_fork();
		_exit(vfs_shmlock_is_elsewhere(shm) && vfs_shmlock_take(shm, &l, &err) == WIRE_BUSY ? 0 : 1);
	}
	int status;
	waitpid(host, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(vfs_shmlock_take(shm, &second, &err), WIRE_OK);
	vfs_shmlock_let_go(l);
	assert_int_equal(elsewhere("INSERT INTO t VALUES (2)"), SQLITE_BUSY);
	vfs_shmlock_release(second, true);
	assert_int_equal(elsewhere("INSERT INTO t VALUES (2)"), SQLITE_OK);
	sqlite3_close(db);
	close(s[0]);
	close(s[1]);
	vfs_shmlock_sweep();
	clean();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_excludes), cmocka_unit_test(test_closes_late), cmocka_unit_test(test_survives) };
	int status;

	if (world_main(argc, argv, &status))
		return status;
	world_init_sqlite();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
