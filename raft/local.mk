# The core: consensus as a pure function.
RAFT_CORE_SOURCES = raft/raft.h raft/config.h raft/core.h raft/step.c raft/role.c raft/election.c raft/leader.c raft/pulse.c raft/flow.c raft/change.c \
	raft/follower.c raft/progress.c raft/quorum.c raft/readindex.c raft/lease.c raft/transfer.c raft/witness.c raft/priority.c raft/level.c raft/log.c raft/config.c raft/invariant.c \
	raft/bundle.h raft/bundle.c \
	raft/telemetry.h raft/telemetry.c
# Members that lack something, and where they get it.
RAFT_CORE_SOURCES += raft/forgetful.c raft/rounds.c raft/fetch.c raft/source.c raft/holes.c raft/image.c
# The journal.
RAFT_JOURNAL_SOURCES = raft/journal.h raft/journal_impl.h raft/journal.c raft/journal_use.c raft/journal_open.c \
	raft/journal_scan.c raft/journal_replay.c raft/journal_recover.c raft/journal_salvage.c raft/journal_seg.c \
	raft/journal_log.c raft/journal_record.c

noinst_LTLIBRARIES += libraft.la
libraft_la_SOURCES = $(RAFT_CORE_SOURCES) $(RAFT_JOURNAL_SOURCES)

RAFT_CORE_TESTS = test/unit/test_raft_bundle test/unit/test_raft_flow test/unit/test_raft test/unit/test_raft_replication test/unit/test_raft_config \
	test/unit/test_raft_transfer test/unit/test_raft_takeover test/unit/test_raft_lease \
	test/unit/test_raft_lease_clock test/unit/test_raft_sim test/unit/test_raft_witness \
	test/unit/test_raft_pulse test/unit/test_raft_level test/unit/test_raft_priority
RAFT_CORE_TESTS += test/unit/test_raft_forgetful test/unit/test_raft_rounds test/unit/test_raft_fetch test/unit/test_raft_holes test/unit/test_raft_hostile test/unit/test_raft_keep
RAFT_CORE_TESTS += test/unit/test_raft_telemetry
check_PROGRAMS += $(RAFT_CORE_TESTS)
TESTS += $(RAFT_CORE_TESTS)
RAFT_TEST_LIBS = libraft.la libwire.la $(CMOCKA_LIBS) $(XXHASH_LIBS) $(LZ4_LIBS)
RAFT_PILOT = test/unit/raft_pilot.h test/unit/raft_pilot.c
test_unit_test_raft_telemetry_SOURCES = test/unit/test_raft_telemetry.c test/unit/raft_told.h test/unit/raft_told.c test/unit/raft_told_peers.c $(RAFT_PILOT)
test_unit_test_raft_telemetry_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_fetch_SOURCES = test/unit/test_raft_fetch.c $(RAFT_PILOT)
test_unit_test_raft_fetch_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_holes_SOURCES = test/unit/test_raft_holes.c $(RAFT_PILOT)
test_unit_test_raft_holes_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_keep_SOURCES = test/unit/test_raft_keep.c $(RAFT_PILOT)
test_unit_test_raft_keep_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_hostile_SOURCES = test/unit/test_raft_hostile.c
test_unit_test_raft_hostile_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_forgetful_SOURCES = test/unit/test_raft_forgetful.c $(RAFT_PILOT)
test_unit_test_raft_forgetful_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_rounds_SOURCES = test/unit/test_raft_rounds.c $(RAFT_PILOT)
test_unit_test_raft_rounds_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_SOURCES = test/unit/test_raft.c $(RAFT_PILOT)
test_unit_test_raft_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_replication_SOURCES = test/unit/test_raft_replication.c $(RAFT_PILOT)
test_unit_test_raft_replication_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_config_SOURCES = test/unit/test_raft_config.c $(RAFT_PILOT)
test_unit_test_raft_config_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_transfer_SOURCES = test/unit/test_raft_transfer.c $(RAFT_PILOT)
test_unit_test_raft_transfer_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_takeover_SOURCES = test/unit/test_raft_takeover.c $(RAFT_PILOT)
test_unit_test_raft_takeover_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_lease_SOURCES = test/unit/test_raft_lease.c $(RAFT_PILOT)
test_unit_test_raft_lease_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_lease_clock_SOURCES = test/unit/test_raft_lease_clock.c $(RAFT_PILOT)
test_unit_test_raft_lease_clock_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_level_SOURCES = test/unit/test_raft_level.c $(RAFT_PILOT)
test_unit_test_raft_level_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_priority_SOURCES = test/unit/test_raft_priority.c $(RAFT_PILOT)
test_unit_test_raft_priority_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_witness_SOURCES = test/unit/test_raft_witness.c $(RAFT_PILOT)
test_unit_test_raft_witness_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_bundle_SOURCES = test/unit/test_raft_bundle.c
test_unit_test_raft_bundle_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_flow_SOURCES = test/unit/test_raft_flow.c $(RAFT_PILOT)
test_unit_test_raft_flow_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_pulse_SOURCES = test/unit/test_raft_pulse.c $(RAFT_PILOT)
test_unit_test_raft_pulse_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_raft_sim_SOURCES = test/unit/test_raft_sim.c test/unit/raft_sim.h test/unit/raft_sim_impl.h \
	test/unit/raft_sim.c test/unit/raft_sim_shape.c test/unit/raft_sim_node.c test/unit/raft_sim_clock.c
test_unit_test_raft_sim_LDADD = $(RAFT_TEST_LIBS)

EXTRA_DIST += raft/README.md raft/JOURNAL.md
RAFT_JOURNAL_TESTS = test/unit/test_journal test/unit/test_journal_grow test/unit/test_journal_crash \
	test/unit/test_journal_repair test/unit/test_journal_salvage test/unit/test_journal_threads test/unit/test_journal_memory
RAFT_JOURNAL_KIT = test/unit/journal_kit.h test/unit/journal_disk.h test/unit/journal_disk.c
check_PROGRAMS += $(RAFT_JOURNAL_TESTS)
TESTS += $(RAFT_JOURNAL_TESTS)
test_unit_test_journal_SOURCES = test/unit/test_journal.c $(RAFT_JOURNAL_KIT)
test_unit_test_journal_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_journal_grow_SOURCES = test/unit/test_journal_grow.c $(RAFT_JOURNAL_KIT)
test_unit_test_journal_grow_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_journal_crash_SOURCES = test/unit/test_journal_crash.c test/unit/journal_model.h test/unit/journal_model.c \
	$(RAFT_JOURNAL_KIT)
test_unit_test_journal_crash_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_journal_repair_SOURCES = test/unit/test_journal_repair.c test/unit/journal_damage.h test/unit/journal_model.h \
	test/unit/journal_model.c $(RAFT_JOURNAL_KIT)
test_unit_test_journal_repair_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_journal_salvage_SOURCES = test/unit/test_journal_salvage.c test/unit/journal_damage.h test/unit/journal_model.h \
	test/unit/journal_model.c $(RAFT_JOURNAL_KIT)
test_unit_test_journal_salvage_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_journal_memory_SOURCES = test/unit/test_journal_memory.c test/sim/memory.h test/sim/memory.c test/unit/journal_damage.h \
	test/unit/journal_model.h test/unit/journal_model.c $(RAFT_JOURNAL_KIT)
test_unit_test_journal_memory_LDFLAGS = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup
test_unit_test_journal_memory_LDADD = $(RAFT_TEST_LIBS)
test_unit_test_journal_threads_SOURCES = test/unit/test_journal_threads.c $(RAFT_JOURNAL_KIT)
test_unit_test_journal_threads_LDADD = $(RAFT_TEST_LIBS)
