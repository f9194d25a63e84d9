# libshell.la: the imperative shell. The module and the command are built from the same objects.
noinst_LTLIBRARIES += libshell.la
libshell_la_SOURCES = shell/conf.c shell/conf.h shell/node.h shell/node_impl.h shell/node.c shell/registry.c shell/driver.c shell/propose.c shell/settle.c shell/send.c shell/node_ops.c shell/reads.c shell/fresh.c shell/lag.c shell/lag_news.c \
	shell/workers.c shell/images.c shell/image_in.c shell/image_in.h shell/members.c shell/change.c shell/handover.c shell/control.c shell/events.h shell/events.c shell/status.c shell/ext.c shell/ext.h shell/sqlfn.c shell/sqlfn_reads.c shell/members_table.c \
	shell/setup.c shell/setup.h shell/setup_impl.h shell/setup_dir.c shell/setup_plain.c shell/setup_adopt.c shell/setup_env.c
libshell_la_SOURCES += shell/resident.c shell/resident.h shell/heir.c shell/heir.h
libshell_la_SOURCES += shell/shared.c shell/shared.h shell/attach.h shell/attach_impl.h shell/attach.c shell/attach_lines.c shell/attach_ops.c shell/attach_commit.c shell/attach_host.c shell/attach_msg.c shell/attach_msg.h shell/mark.c shell/repair.c shell/readmit.c shell/store_db.c shell/witness.c shell/witness_member.c shell/rise.c shell/rise.h
libshell_la_SOURCES += shell/query.h shell/query.c shell/query_session.c shell/query_sql.c shell/remote.h shell/remote.c shell/remote_plan.c shell/remote_ask.c

libshell_la_SOURCES += shell/txid.c shell/txid.h shell/ledger.c shell/ledger.h shell/ledger_impl.h shell/ledger_ids.c shell/ledger_sessions.c shell/ledger_file.c shell/ledger_node.c shell/outcome.c shell/sqlfn_outcomes.c shell/attach_ask.c

# Writing on nodes that do not lead.
libshell_la_SOURCES += shell/grants.h shell/grants_impl.h shell/grants.c shell/grants_entry.c shell/forward_impl.h shell/forward.c shell/forward_keep.c shell/forward_entry.c

EXTRA_DIST += shell/README.md

WALRAFT_LIBS = libshell.la libsnapshot.la libvfs.la libraft.la libwire.la $(NNG_LIBS) $(LZ4_LIBS) $(XXHASH_LIBS)

lib_LTLIBRARIES += walraft.la
walraft_la_SOURCES = shell/module.c
walraft_la_LIBADD = $(WALRAFT_LIBS)
walraft_la_LDFLAGS = -module -avoid-version -shared -export-symbols-regex '^sqlite3_walraft_init$$' -Wl,-z,nodelete -Wl,-z,now

bin_PROGRAMS += walraft
walraft_SOURCES = shell/cli.h shell/cli_main.c shell/cli_init.c shell/cli_join.c shell/cli_serve.c shell/cli_status.c \
	shell/cli_adopt.c shell/cli_detach.c shell/cli_events.c shell/cli_members.h shell/cli_members.c shell/cli_change.c
walraft_LDADD = $(WALRAFT_LIBS) $(SQLITE_LIBS)

check_PROGRAMS += test/unit/test_events
TESTS += test/unit/test_events
test_unit_test_events_SOURCES = test/unit/test_events.c
test_unit_test_events_LDADD = $(WALRAFT_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += test/unit/test_txid
TESTS += test/unit/test_txid
test_unit_test_txid_SOURCES = test/unit/test_txid.c
test_unit_test_txid_LDADD = $(WALRAFT_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += test/unit/test_ledger test/unit/test_ledger_file
TESTS += test/unit/test_ledger test/unit/test_ledger_file
LEDGER_KIT = test/unit/ledger_model.c test/unit/ledger_model.h test/unit/journal_disk.c test/unit/journal_disk.h
test_unit_test_ledger_SOURCES = test/unit/test_ledger.c $(LEDGER_KIT)
test_unit_test_ledger_LDADD = $(WALRAFT_LIBS) $(CMOCKA_LIBS)
test_unit_test_ledger_file_SOURCES = test/unit/test_ledger_file.c $(LEDGER_KIT)
test_unit_test_ledger_file_LDADD = $(WALRAFT_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += test/unit/test_lag
TESTS += test/unit/test_lag
test_unit_test_lag_SOURCES = test/unit/test_lag.c
test_unit_test_lag_LDADD = $(WALRAFT_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += test/unit/test_attach_msg
TESTS += test/unit/test_attach_msg
test_unit_test_attach_msg_SOURCES = test/unit/test_attach_msg.c
test_unit_test_attach_msg_LDADD = $(WALRAFT_LIBS) $(CMOCKA_LIBS)

# Has the files that it tests in itself.
check_PROGRAMS += test/unit/test_forward_entry
TESTS += test/unit/test_forward_entry
test_unit_test_forward_entry_SOURCES = test/unit/test_forward_entry.c
test_unit_test_forward_entry_LDADD = libvfs.la libwire.la $(LZ4_LIBS) $(XXHASH_LIBS) $(CMOCKA_LIBS)
