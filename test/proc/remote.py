"""Hosts that read a cluster's tables without a replica (walraft_remote)."""
import os
import sqlite3
import sys

import harness

# The test itself is such a host: it loads the module, before which a sanitizer's runtime must be there.
if harness.SANITIZER and harness.SANITIZER.split()[0] not in os.environ.get("LD_PRELOAD", ""):
	os.execve(sys.executable, [sys.executable] + sys.argv, harness.child_env())

ERROR_REMOTE = 1 | 0x58 << 8


def host(path=":memory:"):
	db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
	db.enable_load_extension(True)
	db.load_extension(harness.MODULE[:-3])
	db.text_factory = text
	return db


def text(b):
	"""What is TEXT need not be UTF-8."""
	return b.decode("utf-8", "surrogateescape")


def remote(db, name, node, table=None, extra=""):
	url = node if isinstance(node, str) else node.url
	db.execute("CREATE VIRTUAL TABLE temp.%s USING walraft_remote('%s', '%s'%s)" % (name, url, table or name, extra))


def refusal(db, sql, params=()):
	"""The text of the error that sql must give, or None."""
	try:
		db.execute(sql, params).fetchall()
		return None
	except sqlite3.Error as e:
		return str(e)


def here(node):
	"""The file as stock SQLite reads it."""
	db = sqlite3.connect("file:%s?mode=ro" % node.db, uri=True, isolation_level=None)
	db.text_factory = text
	return db
