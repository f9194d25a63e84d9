"""One process of test_counter.py: increments a counter, and writes down what it was told, by one write(2) each:

  B id    about to COMMIT         A id    acknowledged
  N id    told: not committed     U id    told: unknown
  X text  what must never be told
An id with B alone was being committed when the process died."""
import os
import signal
import sqlite3
import sys
import time

import load

path, module, log = sys.argv[1:4]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def note(*words):
	os.write(fd, (" ".join(words).replace("\n", " ") + "\n").encode())


def connect():
	c = sqlite3.connect(":memory:")
	c.enable_load_extension(True)
	c.execute("SELECT load_extension(?)", (module,))
	c.close()
	c = sqlite3.connect("file:%s?vfs=walraft" % path, uri=True, isolation_level=None, timeout=5)
	for p in load.FIRST_PRAGMAS + ["walraft_timeout=5000"]:
		c.execute("PRAGMA " + p).fetchall()
	return c


def end(con):
	try:
		if con.in_transaction:
			con.execute("ROLLBACK")
		return con
	except sqlite3.Error:
		con.close()
		return None


def increment(con):
	id = ""
	try:
		con.execute("BEGIN IMMEDIATE")
		id = con.execute("SELECT walraft_transaction()").fetchone()[0]
		n = con.execute("SELECT n FROM counter").fetchone()[0]
		con.execute("UPDATE counter SET n = ?", (n + 1,))
		note("B", id)
		con.execute("COMMIT")
		note("A", id)
		return con
	except sqlite3.Error as e:
		what = load.judge(e, bool(id))
		text = "%s %s" % (getattr(e, "sqlite_errorcode", -1), e)
		note(what, id, text)
		return end(con)


con = None
while True:
	try:
		con = con or connect()
	except sqlite3.Error as e:
		note("#", "open: %s" % e)
		time.sleep(0.05)
		continue
	con = increment(con)
