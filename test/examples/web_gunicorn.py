"""walraft in a web application with several processes: gunicorn, Flask and Django alike.

    MODULE=/usr/local/lib/walraft DATABASE=app.db gunicorn --workers 4 web_gunicorn:application

Each worker opens the database for itself, after the fork, and before anybody asks: the first one runs the node, the others attach to it, and
when it ends another one takes its place. Any worker on any node writes. (With `walraft serve` beside, that is the node, and workers may come
and go.) Not with --preload, which imports this file before the fork.

    PUT /orders/ID     places an order; may be repeated with the same ID until it is answered by 200, here or at another node
    GET /orders/ID     the order
    GET /stock         what is left
"""
import os
import sqlite3
import threading
import time
import urllib.parse

PATIENCE_S = 10
# After these the transaction may be tried again; nothing of it is there, but after 22538 it may be.
AGAIN = {5, 517, 22280, 22282, 22538, 22794, 23050}
REOPEN = {23306, 22286}  # the node of this connection is gone: open the database anew

_connection = None


def connect():
	loader = sqlite3.connect(":memory:")
	loader.enable_load_extension(True)
	loader.load_extension(os.environ["MODULE"])  # stays loaded for the whole process
	loader.close()
	uri = "file:%s?vfs=walraft&walraft_timeout=3000" % urllib.parse.quote(os.environ["DATABASE"])
	return sqlite3.connect(uri, uri=True, timeout=3, isolation_level=None)


def keep():
	"""From its start on the process has a part in the node, which the other nodes need for their majority."""
	while True:
		try:
			db = connect()
			db.execute("SELECT walraft_leader()").fetchall()
			threading.Event().wait()
		except sqlite3.OperationalError:
			time.sleep(0.2)


threading.Thread(target=keep, daemon=True).start()


def connection():
	global _connection
	if _connection is None:
		_connection = connect()
	return _connection


def hang_up():
	global _connection
	if _connection is not None:
		_connection.close()
	_connection = None


class Unavailable(Exception):
	pass


def retry(work):
	"""work(db) until it succeeds. It is run again after any failure that may pass, so it must look what is there already."""
	deadline = time.monotonic() + PATIENCE_S
	while True:
		try:
			return work(connection())
		except sqlite3.OperationalError as e:
			code = getattr(e, "sqlite_errorcode", 0)
			if _connection is None or code in REOPEN:
				hang_up()  # it could not be opened, or has lost its node
			elif code not in AGAIN:
				raise
			if time.monotonic() > deadline:
				raise Unavailable("%d: %s" % (code, e)) from e
		time.sleep(0.05)


def place(order):
	def work(db):
		with db:  # commits at the end, or rolls back
			db.execute("BEGIN IMMEDIATE")
			if not db.execute("SELECT 1 FROM orders WHERE id = ?", (order,)).fetchone():
				db.execute("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 1)", (order,))
				db.execute("UPDATE stock SET pieces = pieces - 1 WHERE item = 'pear'")
	retry(work)
	return "placed"


def find(order):
	row = retry(lambda db: db.execute("SELECT pieces || ' ' || item FROM orders WHERE id = ?", (order,)).fetchone())
	return row[0] if row else None


def left():
	return str(retry(lambda db: db.execute("SELECT pieces FROM stock WHERE item = 'pear'").fetchone())[0])


def application(environ, start_response):
	method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
	try:
		if method == "PUT" and path.startswith("/orders/"):
			status, text = "200 OK", place(path[len("/orders/"):])
		elif method == "GET" and path.startswith("/orders/"):
			text = find(path[len("/orders/"):])
			status = "200 OK" if text else "404 Not Found"
		elif method == "GET" and path == "/stock":
			status, text = "200 OK", left()
		else:
			status, text = "404 Not Found", None
	except Unavailable as e:
		status, text = "503 Service Unavailable", str(e)
	body = ((text or status) + "\n").encode()
	start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("X-Worker", str(os.getpid()))])
	return [body]
