# Tests print TAP. Unit tests (test/unit) are listed by the folder that they test; here are those of the whole product.

# Process tests: Python programs that print TAP themselves and run real nodes. To add one, put it here.
PROC_TESTS = \
	test/proc/test_basic.py \
	test/proc/test_forward.py \
	test/proc/test_wrong_uses.py \
	test/proc/test_detach.py \
	test/proc/test_position.py \
	test/proc/test_private_view.py \
	test/proc/test_attach.py \
	test/proc/test_cutoff.py \
	test/proc/test_levels.py \
	test/proc/test_latency.py \
	test/proc/test_join_kill.py \
	test/proc/test_large.py \
	test/proc/test_stock_reader.py \
	test/proc/test_kill.py \
	test/proc/test_takeover.py \
	test/proc/test_repair.py \
	test/proc/test_rolling.py \
	test/proc/test_members.py \
	test/proc/test_transfer.py \
	test/proc/test_replace.py \
	test/proc/test_stall_disk.py \
	test/proc/test_auto.py \
	test/proc/test_valgrind.py \
	test/proc/test_trim.py \
	test/proc/test_witness.py \
	test/proc/test_events.py test/proc/test_backlog.py test/proc/test_idle.py test/proc/test_reads.py \
	test/proc/test_edges.py \
	test/proc/test_outcome.py test/proc/test_once.py test/proc/test_ledger.py \
	test/proc/test_examples.py \
	test/proc/test_remote.py test/proc/test_remote_members.py \
	test/proc/test_prefork.py \
	test/proc/test_counter.py test/proc/test_fair.py \
	test/proc/test_unsynced.py \
	test/proc/test_powerloss.py \
	$(HOST_TESTS)
# Those of the table in vfs/README.md: each feature that a host of SQLite's may use.
HOST_TESTS = \
	test/proc/test_hosts_cluster.py \
	test/proc/test_hosts_default.py \
	test/proc/test_hosts_files.py \
	test/proc/test_hosts_leave.py \
	test/proc/test_hosts_load.py \
	test/proc/test_hosts_pragmas.py \
	test/proc/test_hosts_table.py \
	test/proc/test_hosts_use.py
# What they share and run.
PROC_FILES = \
	test/README.md test/proc/hosts.py test/proc/hosts_cases.py \
	test/proc/counter.py test/proc/cluster.py test/proc/harness.py test/proc/load.py test/proc/netns.py test/proc/remote.py \
	test/proc/stock_reader.py test/proc/worker.py test/proc/history.py test/proc/levels.py \
	test/demo/packages.py test/demo/run \
	test/newest/README.md test/newest/run test/newest/sqlite.py test/newest/test_calls.py \
	test/bench/README.md test/bench/all.sh test/bench/common.h test/bench/lib.sh test/bench/median.sh test/bench/reads.sh test/bench/etcd.c \
	test/bench/postgres.sh test/bench/prio.c test/bench/sqlite.c test/bench/sqlite.sh test/bench/walraft.c \
	test/bench/walraft.sh

# Programs for users to copy from, in many languages; only that in C is compiled here.
EXAMPLE_FILES = \
	test/examples/README.md test/proc/examples.py \
	test/examples/order_sqlite3.py test/examples/order_sqlalchemy.py test/examples/order_sqlite3.php test/examples/order_pdo.php \
	test/examples/order.rb test/examples/order.pl test/examples/order.tcl test/examples/order.go \
	test/examples/web_gunicorn.py test/examples/node/package.json test/examples/node/order_sqlite3.js test/examples/node/order_better.js test/examples/node/run
EXTRA_DIST += $(EXAMPLE_FILES)
check_PROGRAMS += test/examples/order
test_examples_order_SOURCES = test/examples/order.c
test_examples_order_LDADD = $(SQLITE_LIBS)

# A host of SQLite's, for the tests of the table; it loads the module like any other.
check_PROGRAMS += test/hosts/hosts
test_hosts_hosts_SOURCES = test/hosts/host.h test/hosts/host.c test/hosts/busy.c test/hosts/control.c test/hosts/copy.c test/hosts/fork.c \
	test/hosts/leave.c test/hosts/load.c test/hosts/open.c test/hosts/thread.c test/hosts/use.c test/hosts/wal.c
test_hosts_hosts_LDADD = $(SQLITE_LIBS) -ldl

# kill -9 as a power loss: for LD_PRELOAD, so it takes libc's names and has no sanitizer in it. -rpath makes it a shared
# library although it is not installed.
check_LTLIBRARIES += test/proc/unsynced.la test/proc/stall.la test/proc/skew.la
test_proc_unsynced_la_SOURCES = test/proc/unsynced.h test/proc/unsynced.c test/proc/unsynced_file.c
test_proc_unsynced_la_CFLAGS = $(AM_CFLAGS) -fvisibility=default -fno-sanitize=all
test_proc_unsynced_la_LDFLAGS = -pthread -module -shared -avoid-version -rpath $(abs_builddir)/test/proc
test_proc_unsynced_la_LIBADD = -ldl
test_proc_stall_la_SOURCES = test/proc/stall.c
test_proc_stall_la_CFLAGS = $(test_proc_unsynced_la_CFLAGS)
test_proc_stall_la_LDFLAGS = $(test_proc_unsynced_la_LDFLAGS)
test_proc_stall_la_LIBADD = -ldl
test_proc_skew_la_SOURCES = test/proc/skew.c
test_proc_skew_la_CFLAGS = $(test_proc_unsynced_la_CFLAGS)
test_proc_skew_la_LDFLAGS = $(test_proc_unsynced_la_LDFLAGS)
test_proc_skew_la_LIBADD = -ldl

# The linearizability checker: a library for tests, and a command.
noinst_LTLIBRARIES += liblin.la
liblin_la_SOURCES = test/lin/lin.h test/lin/value.c test/lin/history.h test/lin/history.c test/lin/json.h test/lin/json.c test/lin/read.c \
	test/lin/search.h test/lin/check.c test/lin/right.c test/lin/explain.c test/lin/window.c test/lin/memo.c test/lin/list.c test/lin/reduce.c \
	test/lin/register.h test/lin/register.c test/lin/register_choose.c test/lin/register_state.c test/lin/register_deep.c test/lin/register_wide.c \
	test/lin/report.c test/lin/picture.h test/lin/picture.c test/lin/html.c
liblin_la_LIBADD = -lm
LIN_LIBS = liblin.la libwire.la
check_PROGRAMS += test/lin/lin
test_lin_lin_SOURCES = test/lin/main.c
test_lin_lin_LDADD = $(LIN_LIBS)

LIN_TESTS = test/unit/test_lin test/unit/test_lin_read test/unit/test_lin_random test/unit/test_lin_large
check_PROGRAMS += $(LIN_TESTS)
TESTS += $(LIN_TESTS)
test_unit_test_lin_SOURCES = test/unit/test_lin.c
test_unit_test_lin_LDADD = $(LIN_LIBS) $(CMOCKA_LIBS)
test_unit_test_lin_read_SOURCES = test/unit/test_lin_read.c
test_unit_test_lin_read_LDADD = $(LIN_LIBS) $(CMOCKA_LIBS)
test_unit_test_lin_random_SOURCES = test/unit/test_lin_random.c test/unit/lin_brute.h test/unit/lin_brute.c
test_unit_test_lin_random_LDADD = $(LIN_LIBS) $(CMOCKA_LIBS)
test_unit_test_lin_large_SOURCES = test/unit/test_lin_large.c test/unit/lin_load.h test/unit/lin_load.c
test_unit_test_lin_large_LDADD = $(LIN_LIBS) $(CMOCKA_LIBS)
EXTRA_DIST += test/lin/README.md

TESTS += test/tidy.py test/model/run.py $(PROC_TESTS)
EXTRA_DIST += test/model/README.md test/model/run.py test/model/token.pml test/model/lease.pml test/model/takeover.pml
EXTRA_DIST += test/tidy.py test/tsan.supp test/valgrind.supp $(PROC_TESTS) $(PROC_FILES)

# The models, and that each rule of theirs is needed: make model ONLY='part of a name'
.PHONY: model
model:
	$(AM_V_at)CC='$(CC)' $(PYTHON3) $(srcdir)/test/model/run.py --rules $(ONLY)

# A test program that takes longer is killed, and counts as failed.
UNIT_TIMEOUT_S = 180
PROC_TIMEOUT_S = 600

# Read by the tests:
#   WALRAFT_BUILD  absolute; there are the `walraft` command and .libs/walraft.so
#   WALRAFT_SRC    absolute; read-only under `make distcheck`
#   WALRAFT_SEED   from the caller: repeats a random test
AM_TESTS_ENVIRONMENT = \
	WALRAFT_BUILD='$(abs_top_builddir)'; export WALRAFT_BUILD; \
	WALRAFT_SRC='$(abs_top_srcdir)'; export WALRAFT_SRC; \
	PYTHONDONTWRITEBYTECODE=1; export PYTHONDONTWRITEBYTECODE; \
	UBSAN_OPTIONS="print_stacktrace=1:$$UBSAN_OPTIONS"; export UBSAN_OPTIONS; \
	TSAN_OPTIONS="suppressions=$(abs_top_srcdir)/test/tsan.supp:$$TSAN_OPTIONS"; export TSAN_OPTIONS;

TEST_EXTENSIONS = .py
TAP_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh --merge
LOG_DRIVER = $(TAP_DRIVER)
LOG_COMPILER = timeout --kill-after=10 $(UNIT_TIMEOUT_S)
PY_LOG_DRIVER = $(TAP_DRIVER)
PY_LOG_COMPILER = timeout --kill-after=10 $(PROC_TIMEOUT_S) $(PYTHON3)
