#!/usr/bin/python3
"""walraft in a Python application, with the module sqlite3.

Usage: order_sqlite3.py MODULE DATABASE [SECONDS]
Places one order in a database that is set up, and tries for so many seconds (30). Python 3.11 or later.
"""
import sqlite3
import sys
import time
import urllib.parse

NOT_LEADER = 22280
# After these the transaction may be tried again; nothing of it is there, but after UNKNOWN it may be.
AGAIN = {
	5: "locked",
	22282: "not committed",
	22538: "outcome unknown",
	22794: "leadership was lost",
	23050: "no majority answers",
}


class GaveUp(Exception):
	pass


def why_again(db, code):
	"""Why it is worth another try; None: it is not."""
	if code != NOT_LEADER:
		return AGAIN.get(code)
	leader, = db.execute("SELECT walraft_leader()").fetchone()
	return leader + " leads" if leader else "an election is under way"


def retry(db, patience_s, is_done, write):
	"""Runs write() in a transaction until it is committed. Each try looks first: an earlier one may have come through."""
	deadline = time.monotonic() + patience_s
	while True:
		try:
			with db:  # commits at the end, or rolls back
				db.execute("BEGIN IMMEDIATE")
				if not is_done():
					write()
			return
		except sqlite3.OperationalError as e:
			why = why_again(db, e.sqlite_errorcode)
			if not why:
				raise
			print("retry: %d %s" % (e.sqlite_errorcode, why), flush=True)
			if time.monotonic() >= deadline:
				raise GaveUp(why) from e
		time.sleep(0.1)


def main(module, path, patience_s="30"):
	loader = sqlite3.connect(":memory:")
	loader.enable_load_extension(True)
	loader.load_extension(module)  # stays loaded for the whole process
	loader.close()

	uri = "file:%s?vfs=walraft" % urllib.parse.quote(path)
	db = sqlite3.connect(uri + "&walraft_timeout=2000", uri=True, timeout=5, isolation_level=None)
	order = "python-sqlite3"  # made by the client, once for all tries

	def is_done():
		return db.execute("SELECT 1 FROM orders WHERE id = ?", (order,)).fetchone()

	def write():
		db.execute("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)", (order,))
		db.execute("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'")

	retry(db, float(patience_s), is_done, write)
	print("written: " + order)

	select = "SELECT pieces || ' ' || item FROM orders WHERE id = ?"
	stale = sqlite3.connect(uri + "&walraft_read=stale", uri=True)  # fast, and a few milliseconds behind
	print("stale: %s" % stale.execute(select, (order,)).fetchone())
	print("default: %s" % db.execute(select, (order,)).fetchone())
	stale.close()
	db.close()


try:
	main(*sys.argv[1:])
except GaveUp as e:
	sys.exit("gave up: %s" % e)
