#!/usr/bin/python3
"""walraft in a Python application, with SQLAlchemy 1.4 or 2.

Usage: order_sqlalchemy.py MODULE DATABASE [SECONDS]
Places one order in a database that is set up, and tries for so many seconds (30). Python 3.11 or later.
"""
import sqlite3
import sys
import time
import urllib.parse

from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

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


def load(module):
	loader = sqlite3.connect(":memory:")
	loader.enable_load_extension(True)
	loader.load_extension(module)  # stays loaded for the whole process
	loader.close()


def engine_of(path, parameters):
	"""QueuePool keeps connections, and the node ends with the last of them; version 1.4's default for files keeps none."""
	url = "sqlite:///file:%s?vfs=walraft&%s&uri=true" % (urllib.parse.quote(path), parameters)
	engine = create_engine(url, poolclass=QueuePool, connect_args={"timeout": 5})

	@event.listens_for(engine, "connect")
	def on_connect(connection, _):
		connection.isolation_level = None  # SQLAlchemy begins, not the module sqlite3

	return engine


def writing(engine):
	"""The same engine, with transactions that take the write lock at their begin."""
	writer = engine.execution_options()

	@event.listens_for(writer, "begin")
	def on_begin(connection):
		connection.exec_driver_sql("BEGIN IMMEDIATE")

	return writer


def why_again(engine, code):
	"""Why it is worth another try; None: it is not."""
	if code != NOT_LEADER:
		return AGAIN.get(code)
	with engine.connect() as connection:
		leader = connection.scalar(text("SELECT walraft_leader()"))
	return leader + " leads" if leader else "an election is under way"


def retry(engine, writer, patience_s, is_done, write):
	"""Runs write() in a transaction until it is committed. Each try looks first: an earlier one may have come through."""
	deadline = time.monotonic() + patience_s
	while True:
		try:
			with writer.begin() as connection:
				if not is_done(connection):
					write(connection)
			return
		except DBAPIError as e:
			why = why_again(engine, e.orig.sqlite_errorcode)
			if not why:
				raise
			print("retry: %d %s" % (e.orig.sqlite_errorcode, why), flush=True)
			if time.monotonic() >= deadline:
				raise GaveUp(why) from e
		time.sleep(0.1)


def main(module, path, patience_s="30"):
	load(module)
	engine = engine_of(path, "walraft_timeout=2000")
	order = {"order": "python-sqlalchemy"}  # made by the client, once for all tries

	def is_done(connection):
		return connection.scalar(text("SELECT 1 FROM orders WHERE id = :order"), order)

	def write(connection):
		connection.execute(text("INSERT INTO orders(id, item, pieces) VALUES (:order, 'pear', 2)"), order)
		connection.execute(text("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'"))

	retry(engine, writing(engine), float(patience_s), is_done, write)
	print("written: " + order["order"])

	select = text("SELECT pieces || ' ' || item FROM orders WHERE id = :order")
	stale = engine_of(path, "walraft_read=stale")  # fast, and a few milliseconds behind
	with stale.connect() as connection:
		print("stale: %s" % connection.scalar(select, order))
	with engine.connect() as connection:
		print("default: %s" % connection.scalar(select, order))
	stale.dispose()
	engine.dispose()


try:
	main(*sys.argv[1:])
except GaveUp as e:
	sys.exit("gave up: %s" % e)
