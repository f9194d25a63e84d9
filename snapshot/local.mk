# libsnapshot.la: images of a database.
noinst_LTLIBRARIES += libsnapshot.la
libsnapshot_la_SOURCES = snapshot/image.c snapshot/image.h
EXTRA_DIST += snapshot/README.md

check_PROGRAMS += test/unit/test_image
TESTS += test/unit/test_image
test_unit_test_image_SOURCES = test/unit/test_image.c
test_unit_test_image_LDADD = libsnapshot.la libwire.la $(LZ4_LIBS) $(XXHASH_LIBS) $(CMOCKA_LIBS)
