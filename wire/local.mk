noinst_LTLIBRARIES += libwire.la
libwire_la_SOURCES = \
	wire/err.c wire/err.h \
	wire/buf.c wire/buf.h \
	wire/hash.c wire/hash.h \
	wire/env.c wire/env.h \
	wire/clock.c wire/clock.h wire/clock_bound.c \
	wire/msg.c wire/msg.h \
	wire/url.c \
	wire/link.c wire/link.h wire/link_impl.h wire/link_io.h \
	wire/ask.c wire/ask.h \
	wire/query.c wire/query_shape.c wire/query.h \
	wire/link_greet.c wire/link_greet.h \
	wire/link_in.c wire/link_ask.c \
	wire/link_outlet.c \
	wire/link_watch.c \
	wire/link_nng.c wire/link_nng.h \
	wire/link_nng_use.c
libwire_la_LIBADD = $(NNG_LIBS) $(LZ4_LIBS) $(XXHASH_LIBS)
EXTRA_DIST += wire/README.md wire/nng_own.syms

# NNG_LIBS has the copy, see wire/link_nng_own.c.
if NNG_OWN
libwire_la_SOURCES += wire/link_nng_own.c
EXTRA_libwire_la_DEPENDENCIES = wire/libwirenng.a
wire/libwirenng.a: $(NNG_ARCHIVE) $(srcdir)/wire/nng_own.syms
	$(AM_V_at)$(MKDIR_P) wire
	$(AM_V_GEN)$(OBJCOPY) --redefine-syms=$(srcdir)/wire/nng_own.syms $(NNG_ARCHIVE) $@
CLEANFILES += wire/libwirenng.a
else
libwire_la_SOURCES += wire/link_nng_shared.c
endif

WIRE_TESTS = \
	test/unit/test_err \
	test/unit/test_buf \
	test/unit/test_hash \
	test/unit/test_env \
	test/unit/test_clock \
	test/unit/test_msg \
	test/unit/test_query \
	test/unit/test_link \
	test/unit/test_link_host \
	test/unit/test_link_fork \
	test/unit/test_link_hostile \
	test/unit/test_link_process
check_PROGRAMS += $(WIRE_TESTS)
TESTS += $(WIRE_TESTS)
WIRE_TEST_LIBS = libwire.la $(CMOCKA_LIBS)

test_unit_test_err_SOURCES = test/unit/test_err.c
test_unit_test_err_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_buf_SOURCES = test/unit/test_buf.c
test_unit_test_buf_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_hash_SOURCES = test/unit/test_hash.c
test_unit_test_hash_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_env_SOURCES = test/unit/test_env.c
test_unit_test_env_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_clock_SOURCES = test/unit/test_clock.c
test_unit_test_clock_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_msg_SOURCES = test/unit/test_msg.c
test_unit_test_msg_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_query_SOURCES = test/unit/test_query.c
test_unit_test_query_LDADD = $(WIRE_TEST_LIBS)
LINK_WORLD = test/unit/link_world.c test/unit/link_world.h
test_unit_test_link_SOURCES = test/unit/test_link.c $(LINK_WORLD)
test_unit_test_link_LDADD = $(WIRE_TEST_LIBS)
LINK_HOST = $(LINK_WORLD) test/unit/link_host.c test/unit/link_host.h
test_unit_test_link_host_SOURCES = test/unit/test_link_host.c $(LINK_HOST)
test_unit_test_link_host_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_link_fork_SOURCES = test/unit/test_link_fork.c $(LINK_HOST)
test_unit_test_link_fork_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_link_hostile_SOURCES = test/unit/test_link_hostile.c $(LINK_WORLD)
test_unit_test_link_hostile_LDADD = $(WIRE_TEST_LIBS)
test_unit_test_link_process_SOURCES = test/unit/test_link_process.c $(LINK_WORLD)
test_unit_test_link_process_LDADD = $(WIRE_TEST_LIBS)
