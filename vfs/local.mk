# libvfs.la: SQLite's formats, the published database, the shim. Sources by part, each added to by its own list.
VFS_FORMAT_SOURCES = \
	vfs/walfmt.c vfs/walfmt.h \
	vfs/walindex.c vfs/walindex.h \
	vfs/pages.c vfs/pages.h \
	vfs/pageset.c vfs/pageset.h \
	vfs/wlock.c vfs/wlock.h \
	vfs/shmlock.c vfs/shmlock.h
VFS_DB_SOURCES = \
	vfs/db.c vfs/db.h vfs/db_impl.h \
	vfs/db_open.c vfs/db_life.c vfs/db_recover.c \
	vfs/db_position.c vfs/db_log.c \
	vfs/db_publish.c vfs/db_apply.c \
	vfs/db_checkpoint.c vfs/db_view.c \
	vfs/shared.c vfs/shared.h \
	vfs/attached.c vfs/attached.h
VFS_SHIM_SOURCES = \
	vfs/vfs.c vfs/vfs.h vfs/conn.h \
	vfs/child.c vfs/child.h vfs/pass.c \
	vfs/open.c vfs/successor.c vfs/newborn.c \
	vfs/file.c vfs/shm.c vfs/wal.c \
	vfs/store.c vfs/capture.c \
	vfs/commit_remote.c vfs/once.c \
	vfs/level.c \
	vfs/proxy.c vfs/proxy.h

noinst_LTLIBRARIES += libvfs.la
libvfs_la_SOURCES = $(VFS_FORMAT_SOURCES) $(VFS_DB_SOURCES) $(VFS_SHIM_SOURCES)

EXTRA_DIST += vfs/README.md vfs/DB.md

VFS_TEST_LIBS = libvfs.la libwire.la $(SQLITE_LIBS) $(LZ4_LIBS) $(XXHASH_LIBS) $(CMOCKA_LIBS)

VFS_FORMAT_TESTS = \
	test/unit/test_walfmt \
	test/unit/test_walindex \
	test/unit/test_pages \
	test/unit/test_pageset \
	test/unit/test_wlock \
	test/unit/test_wlock_async
check_PROGRAMS += $(VFS_FORMAT_TESTS)
TESTS += $(VFS_FORMAT_TESTS)

test_unit_test_walfmt_SOURCES = test/unit/test_walfmt.c
test_unit_test_walfmt_LDADD = $(VFS_TEST_LIBS)
test_unit_test_walindex_SOURCES = test/unit/test_walindex.c
test_unit_test_walindex_LDADD = $(VFS_TEST_LIBS)
test_unit_test_pages_SOURCES = test/unit/test_pages.c
test_unit_test_pages_LDADD = $(VFS_TEST_LIBS)
test_unit_test_pageset_SOURCES = test/unit/test_pageset.c
test_unit_test_pageset_LDADD = $(VFS_TEST_LIBS)
test_unit_test_wlock_SOURCES = test/unit/test_wlock.c
test_unit_test_wlock_LDADD = $(VFS_TEST_LIBS)
test_unit_test_wlock_async_SOURCES = test/unit/test_wlock_async.c
test_unit_test_wlock_async_LDADD = $(VFS_TEST_LIBS)

VFS_DB_TESTS = \
	test/unit/test_db_apply test/unit/test_db_effects \
	test/unit/test_shmlock \
	test/unit/test_db_open
check_PROGRAMS += $(VFS_DB_TESTS)
TESTS += $(VFS_DB_TESTS)

test_unit_test_shmlock_SOURCES = test/unit/test_shmlock.c test/unit/db_world.c test/unit/db_world.h
test_unit_test_shmlock_LDADD = $(VFS_TEST_LIBS)
test_unit_test_db_apply_SOURCES = test/unit/test_db_apply.c test/unit/db_world.c test/unit/db_world.h
test_unit_test_db_apply_LDADD = $(VFS_TEST_LIBS)
test_unit_test_db_effects_SOURCES = test/unit/test_db_effects.c test/unit/db_world.c test/unit/db_world.h
test_unit_test_db_effects_LDADD = $(VFS_TEST_LIBS)
test_unit_test_db_open_SOURCES = test/unit/test_db_open.c test/unit/db_world.c test/unit/db_world.h
test_unit_test_db_open_LDADD = $(VFS_TEST_LIBS)

# Several nodes in one process, behind the shim's connections.
VFS_SHIM_TESTS = \
	test/unit/test_shim \
	test/unit/test_shim_use \
	test/unit/test_shim_outer \
	test/unit/test_shim_private \
	test/unit/test_shim_outlive \
	test/unit/test_shim_threads
check_PROGRAMS += $(VFS_SHIM_TESTS)
TESTS += $(VFS_SHIM_TESTS)
VFS_SHIM_WORLD = test/unit/shim_host.c test/unit/shim_host.h test/unit/db_world.c test/unit/db_world.h

test_unit_test_shim_SOURCES = test/unit/test_shim.c $(VFS_SHIM_WORLD)
test_unit_test_shim_LDADD = $(VFS_TEST_LIBS)
test_unit_test_shim_private_SOURCES = test/unit/test_shim_private.c $(VFS_SHIM_WORLD)
test_unit_test_shim_private_LDADD = $(VFS_TEST_LIBS)
test_unit_test_shim_outlive_SOURCES = test/unit/test_shim_outlive.c $(VFS_SHIM_WORLD)
test_unit_test_shim_outlive_LDADD = $(VFS_TEST_LIBS)
test_unit_test_shim_threads_SOURCES = test/unit/test_shim_threads.c $(VFS_SHIM_WORLD)
test_unit_test_shim_threads_LDADD = $(VFS_TEST_LIBS)
test_unit_test_shim_use_SOURCES = test/unit/test_shim_use.c $(VFS_SHIM_WORLD)
test_unit_test_shim_use_LDADD = $(VFS_TEST_LIBS)
test_unit_test_shim_outer_SOURCES = test/unit/test_shim_outer.c $(VFS_SHIM_WORLD)
test_unit_test_shim_outer_LDADD = $(VFS_TEST_LIBS)

check_PROGRAMS += test/unit/test_shared
TESTS += test/unit/test_shared
test_unit_test_shared_SOURCES = test/unit/test_shared.c
test_unit_test_shared_LDADD = $(VFS_TEST_LIBS)
