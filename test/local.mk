# Tests print TAP. Unit tests (test/unit) are listed by the folder that they test; here are those of the whole product.

# Process tests: Python programs that print TAP themselves and run real nodes. To add one, put it here.
PROC_TESTS =
# What they share and run.
PROC_FILES = \
	test/proc/harness.py

TESTS += test/tidy.py $(PROC_TESTS)
EXTRA_DIST += test/tidy.py $(PROC_TESTS) $(PROC_FILES)

# A test program that takes longer is killed, and counts as failed.
TEST_TIMEOUT_S = 900

# Read by the tests:
#   WALRAFT_BUILD  absolute; there are the `walraft` command and .libs/walraft.so
#   WALRAFT_SRC    absolute; read-only under `make distcheck`
#   WALRAFT_SEED   from the caller: repeats a random test
AM_TESTS_ENVIRONMENT = \
	WALRAFT_BUILD='$(abs_top_builddir)'; export WALRAFT_BUILD; \
	WALRAFT_SRC='$(abs_top_srcdir)'; export WALRAFT_SRC; \
	PYTHONDONTWRITEBYTECODE=1; export PYTHONDONTWRITEBYTECODE; \
	UBSAN_OPTIONS="print_stacktrace=1:$$UBSAN_OPTIONS"; export UBSAN_OPTIONS;

TEST_EXTENSIONS = .py
TAP_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh --merge
LOG_DRIVER = $(TAP_DRIVER)
LOG_COMPILER = timeout --kill-after=10 $(TEST_TIMEOUT_S)
PY_LOG_DRIVER = $(TAP_DRIVER)
PY_LOG_COMPILER = timeout --kill-after=10 $(TEST_TIMEOUT_S) $(PYTHON3)
