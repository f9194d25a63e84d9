#!/usr/bin/python3
"""Calls and options that SQLite got after 3.40, on a replicated database: each does what it does on any, or is refused; none
takes the node's locks away. Run by test/newest/run, which puts the library in place. What a version lacks is skipped.
"""
import ctypes
import hashlib
import os
import random
import sqlite3
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "proc"))

import harness  # noqa: E402
from harness import Failed, stock, stock_rows, walraft  # noqa: E402

t = harness.Test(__file__)

OK, BUSY, READONLY, NOTFOUND, MISUSE = 0, 5, 8, 12, 21
FCNTL_RESET_CACHE, FCNTL_NULL_IO, FCNTL_BLOCK_ON_CONNECT, FCNTL_NEWEST = 42, 43, 44, 45
CHECKPOINT_NOOP, CHECKPOINT_PASSIVE = -1, 0
SETLK_BLOCK_ON_CONNECT = 1
DBCONFIG_ATTACH_WRITE = 1021
OPEN_READWRITE_CREATE_URI = 2 | 4 | 64

lib = ctypes.CDLL("libsqlite3.so.0")
lib.sqlite3_errmsg.restype = ctypes.c_char_p
VERSION = tuple(int(x) for x in sqlite3.sqlite_version.split("."))
OPTIONS = {r[0] for r in sqlite3.connect(":memory:").execute("PRAGMA compile_options")}


class Raw:
	"""A connection of the C interface, for what python's module does not pass on."""

	def __init__(self, db):
		self.p = ctypes.c_void_p()
		rc = lib.sqlite3_open_v2(uri(db).encode(), ctypes.byref(self.p), OPEN_READWRITE_CREATE_URI, None)
		if rc:
			raise Failed("open: %d %s" % (rc, lib.sqlite3_errmsg(self.p)))

	def exec(self, sql):
		return lib.sqlite3_exec(self.p, sql.encode(), None, None, None)

	def control(self, op, arg=None):
		return lib.sqlite3_file_control(self.p, b"main", op, arg)

	def close(self):
		return lib.sqlite3_close(self.p)


def uri(db, vfs="walraft"):
	return "file:%s?vfs=%s" % (db, vfs)


def connect(db, timeout=5):
	con = sqlite3.connect(uri(db), uri=True, isolation_level=None, timeout=timeout)
	con.execute("PRAGMA locking_mode=normal").fetchall()  # where exclusive is the default of the build
	return con


def database(name):
	"""A replicated one with a row in it, and a connection that keeps its node up."""
	db = os.path.join(t.tmp(name), "app.db")
	r = stock(db, "PRAGMA journal_mode=wal; CREATE TABLE t(x INTEGER PRIMARY KEY, b BLOB); INSERT INTO t VALUES(1, NULL);")
	if r.returncode:
		raise Failed(r.stderr)
	r = walraft("init", db, "--listen", "tcp://127.0.0.1:%d" % harness.free_ports(1)[0])
	if r.returncode:
		raise Failed(r.stderr)
	return db, connect(db)


def node_locks(db):
	"""The byte ranges that this process has locked in the database and its -shm."""
	inodes = {os.stat(db + s).st_ino: s or "db" for s in ("", "-shm")}
	out = set()
	with open("/proc/locks") as f:
		for line in f:
			w = line.split()
			if w[1] == "POSIX" and w[4] == str(os.getpid()) and int(w[5].rsplit(":", 1)[1]) in inodes:
				out.add((inodes[int(w[5].rsplit(":", 1)[1])], w[3], w[6]))
	return out


def beside(db, con, what):
	"""The node's locks stand, a stock process reads and is kept from writing, and the database goes on."""
	locks = node_locks(db)
	t.ok({("db", "READ", "1073741826"), ("-shm", "WRITE", "120")} <= locks, "%s: the node's locks stand" % what, locks)
	n = con.execute("SELECT count(*) FROM t").fetchone()[0]
	t.equal(stock_rows(db, "SELECT count(*) FROM t"), [str(n)], "%s: a stock process reads" % what)
	t.ok(stock(db, "INSERT INTO t(b) VALUES(0)").returncode != 0, "%s: a stock process cannot write" % what)
	con.execute("INSERT INTO t(b) VALUES(1)")
	t.ok(os.path.exists(db + "-wal"), "%s: -wal is there" % what)
	t.equal(stock_rows(db, "SELECT count(*) FROM t"), [str(n + 1)], "%s: a stock process sees the next row" % what)


@t.case("file controls")
def file_controls():
	db, con = database("controls")
	raw = Raw(db)
	t.equal(raw.exec("PRAGMA locking_mode=normal; SELECT count(*) FROM t"), OK, "a connection of the C interface reads")
	rc = raw.control(FCNTL_NULL_IO)
	t.ok(rc != OK, "NULL_IO, which would close a descriptor and with it drop the node's locks, is refused", rc)
	beside(db, con, "NULL_IO")
	t.equal(raw.exec("INSERT INTO t(b) VALUES(2)"), OK, "the connection goes on after NULL_IO")
	t.equal(raw.control(FCNTL_RESET_CACHE), OK, "RESET_CACHE")
	t.equal(raw.exec("SELECT sum(x) FROM t"), OK, "a read after RESET_CACHE")
	on = ctypes.c_int(1)
	rc = raw.control(FCNTL_BLOCK_ON_CONNECT, ctypes.byref(on))
	t.ok(rc in (OK, NOTFOUND), "BLOCK_ON_CONNECT", rc)
	beside(db, con, "BLOCK_ON_CONNECT")
	t.equal(raw.exec("INSERT INTO t(b) VALUES(3)"), OK, "the connection goes on after BLOCK_ON_CONNECT")
	for op in range(FCNTL_NEWEST + 1, 64):
		if raw.control(op, ctypes.create_string_buffer(64)) != NOTFOUND:
			t.ok(False, "file control %d is new: look at what it does" % op)
	t.equal(raw.close(), OK, "close")
	con.close()


@t.case("checkpoints")
def checkpoints():
	db, con = database("checkpoints")
	raw = Raw(db)
	t.equal(raw.exec("PRAGMA locking_mode=normal; SELECT count(*) FROM t"), OK, "a connection of the C interface reads")
	log, done = ctypes.c_int(-7), ctypes.c_int(-7)
	rc = lib.sqlite3_wal_checkpoint_v2(raw.p, None, CHECKPOINT_NOOP, ctypes.byref(log), ctypes.byref(done))
	if rc == MISUSE:
		t.ok(VERSION < (3, 52, 0), "this version knows no NOOP")
	else:
		frames = max(0, (os.path.getsize(db + "-wal") - 32) // 4120)
		t.ok(rc == OK and 0 <= done.value <= log.value <= frames, "a NOOP checkpoint tells the frames",
		     (rc, log.value, done.value, frames))
		for i in range(50):
			con.execute("INSERT INTO t(b) VALUES(?)", (i,))
			rc = lib.sqlite3_wal_checkpoint_v2(raw.p, None, CHECKPOINT_NOOP, ctypes.byref(log), ctypes.byref(done))
			if rc != OK:
				break
		t.ok(rc == OK, "fifty NOOP checkpoints among writes", rc)
	busy = [con.execute("PRAGMA wal_checkpoint(%s)" % m).fetchone()[0] for m in ("passive", "full", "restart", "truncate")]
	t.equal(busy, [1] * 4, "the other checkpoints are busy")
	rc = lib.sqlite3_wal_checkpoint_v2(raw.p, None, CHECKPOINT_PASSIVE, None, None)
	t.equal(rc, BUSY, "so they are by the C interface")
	beside(db, con, "checkpoints")
	raw.close()
	con.close()


@t.case("lock timeouts")
def lock_timeouts():
	if not hasattr(lib, "sqlite3_setlk_timeout"):
		t.skip("lock timeouts", "not in this version")
		return
	db, con = database("setlk")
	raw = Raw(db)
	raw.exec("PRAGMA locking_mode=normal")
	t.equal(lib.sqlite3_setlk_timeout(raw.p, 2000, SETLK_BLOCK_ON_CONNECT), OK, "sqlite3_setlk_timeout")
	rc = raw.exec("SELECT count(*) FROM t; INSERT INTO t(b) VALUES(2); BEGIN EXCLUSIVE; INSERT INTO t(b) VALUES(3); COMMIT")
	t.equal(rc, OK, "reads and writes with it")
	con.execute("BEGIN IMMEDIATE")
	con.execute("INSERT INTO t(b) VALUES(4)")
	rc = raw.exec("INSERT INTO t(b) VALUES(5)")
	t.equal(rc & 0xff, BUSY, "a writer without a busy handler is told that another writes")
	t.equal(raw.exec("BEGIN EXCLUSIVE") & 0xff, BUSY, "so is BEGIN EXCLUSIVE")
	t.equal(raw.exec("SELECT count(*) FROM t"), OK, "a reader beside it reads")
	con.execute("COMMIT")
	t.equal(raw.exec("INSERT INTO t(b) VALUES(6)"), OK, "it writes when the other is done")
	rows = con.execute("SELECT group_concat(b) FROM t WHERE b > 1").fetchone()[0]
	t.equal(rows, "2,3,4,6", "all rows that were acknowledged are there")
	beside(db, con, "lock timeouts")
	raw.close()
	con.close()


@t.case("large values")
def large_values():
	"""Newer versions read a value's overflow pages straight from the database file when they are not in the WAL."""
	db, con = database("large")
	reader = connect(db)
	rows = {}
	for i in range(2, 202):
		rows[i] = os.urandom(t.rnd.randrange(10000, 200000))
		con.execute("INSERT INTO t VALUES(?, ?)", (i, rows[i]))
	t.ok(os.path.getsize(db) > 2 << 20, "the node has carried values into the file", os.path.getsize(db))
	bad = []
	for n in range(400):
		i = t.rnd.choice(list(rows))
		if n % 4 == 0:
			rows[i] = os.urandom(t.rnd.randrange(10000, 200000))
			con.execute("UPDATE t SET b = ? WHERE x = ?", (rows[i], i))
		got = reader.execute("SELECT b FROM t WHERE x = ?", (i,)).fetchone()[0]
		if got != rows[i]:
			bad.append(i)
	t.equal(bad, [], "400 values read beside changes are what was written")
	con.execute("BEGIN")
	con.execute("PRAGMA cache_size=5")
	for i in list(rows)[:40]:
		rows[i] = os.urandom(150000)
		con.execute("UPDATE t SET b = ? WHERE x = ?", (rows[i], i))
	bad = [i for i in rows if con.execute("SELECT b FROM t WHERE x = ?", (i,)).fetchone()[0] != rows[i]]
	t.equal(bad, [], "a transaction that has spilled reads its own values")
	con.execute("COMMIT")
	want = hashlib.sha256(b"".join(rows[i] for i in sorted(rows))).hexdigest()
	got = hashlib.sha256(b"".join(r[0] for r in reader.execute("SELECT b FROM t WHERE x > 1 ORDER BY x"))).hexdigest()
	t.equal(got, want, "all values")
	t.equal(stock_rows(db, "PRAGMA integrity_check"), ["ok"], "a stock process finds the file in order")
	reader.close()
	con.close()


@t.case("attach read-only")
def attach_read_only():
	if VERSION < (3, 49, 0):
		t.skip("ATTACH that may not write", "not in this version")
		return
	db, con = database("attach")
	raw = ctypes.c_void_p()
	lib.sqlite3_open_v2(b":memory:", ctypes.byref(raw), OPEN_READWRITE_CREATE_URI, None)
	t.equal(lib.sqlite3_db_config(raw, DBCONFIG_ATTACH_WRITE, 0, None), OK, "attached databases are for reading only")
	rc = lib.sqlite3_exec(raw, ("ATTACH '%s' AS r; SELECT count(*) FROM r.t" % uri(db)).encode(), None, None, None)
	if rc == OK:
		rc = lib.sqlite3_exec(raw, b"INSERT INTO r.t(b) VALUES(9)", None, None, None)
		t.equal(rc & 0xff, READONLY, "a write to it is refused as read-only")
	else:
		text = lib.sqlite3_errmsg(raw).decode()
		t.ok("DEFAULT_LOCKING_MODE=1" in OPTIONS and "locked" in text, "it is attached, or exclusive mode forbids it", (rc, text))
	beside(db, con, "attach")
	lib.sqlite3_close(raw)
	con.close()


@t.case("snapshots")
def snapshots():
	if "ENABLE_SNAPSHOT" not in OPTIONS:
		t.skip("snapshots", "not in this build")
		return
	db, con = database("snapshots")
	raw, other = Raw(db), Raw(db)
	snap = ctypes.c_void_p()
	other.exec("SELECT count(*) FROM t")
	raw.exec("BEGIN; SELECT count(*) FROM t")
	rc = lib.sqlite3_snapshot_get(raw.p, b"main", ctypes.byref(snap))
	t.equal(rc, OK, "sqlite3_snapshot_get")
	con.execute("INSERT INTO t(b) VALUES(2)")
	other.exec("BEGIN")
	t.equal(lib.sqlite3_snapshot_open(other.p, b"main", snap) & 0xff, BUSY, "sqlite3_snapshot_open is busy")
	other.exec("ROLLBACK")
	raw.exec("COMMIT")
	t.equal(lib.sqlite3_snapshot_recover(other.p, b"main") & 0xff, BUSY, "so is sqlite3_snapshot_recover")
	t.equal(other.exec("INSERT INTO t(b) VALUES(3)"), OK, "the connection goes on")
	lib.sqlite3_snapshot_free(snap)
	beside(db, con, "snapshots")
	raw.close()
	other.close()
	con.close()


@t.case("exclusive by default")
def exclusive_by_default():
	if "DEFAULT_LOCKING_MODE=1" not in OPTIONS:
		t.skip("locking_mode=exclusive by default", "not in this build")
		return
	db, con = database("exclusive")
	raw = Raw(db)
	rc = raw.exec("SELECT count(*) FROM t")
	t.equal(rc & 0xff, BUSY, "a connection in exclusive mode is told that the database is locked")
	rc = raw.exec("PRAGMA locking_mode=normal; INSERT INTO t(b) VALUES(2)")
	t.equal(rc, OK, "PRAGMA locking_mode=normal makes it one like others")
	beside(db, con, "exclusive by default")
	raw.close()
	con.close()


class Concurrent(threading.Thread):
	"""Inserts keys of its own by BEGIN CONCURRENT, again when the commit meets a conflict."""

	def __init__(self, db, number):
		super().__init__(daemon=True)
		self.db, self.number, self.done, self.wrong = db, number, [], []
		self.start()

	def run(self):
		con, rnd = connect(self.db), random.Random("%d/%d" % (t.seed, self.number))
		for key in range(self.number * 1000, self.number * 1000 + 150):
			for _ in range(100):
				try:
					con.execute("BEGIN CONCURRENT")
					con.execute("INSERT INTO t VALUES(?, zeroblob(?))", (key, rnd.randrange(3000)))
					con.execute("COMMIT")
					self.done.append(key)
					break
				except sqlite3.Error as e:
					if e.sqlite_errorcode & 0xff != BUSY:
						self.wrong.append("%d %s" % (e.sqlite_errorcode, e))
					if con.in_transaction:
						con.execute("ROLLBACK")
		con.close()


@t.case("concurrent")
def concurrent():
	try:
		sqlite3.connect(":memory:", isolation_level=None).execute("BEGIN CONCURRENT")
	except sqlite3.Error:
		t.skip("BEGIN CONCURRENT", "not in this SQLite")
		return
	db, con = database("concurrent")
	writers = [Concurrent(db, n) for n in range(1, 5)]
	for w in writers:
		w.join(120)
	t.equal([w.wrong for w in writers], [[]] * 4, "writers by BEGIN CONCURRENT meet conflicts at most")
	done = sorted(k for w in writers for k in w.done)
	t.ok(len(done) > 300, "they commit", len(done))
	t.equal([r[0] for r in con.execute("SELECT x FROM t WHERE x > 1 ORDER BY x")], done, "what they were told is what is there")
	t.equal(stock_rows(db, "SELECT count(*) FROM t WHERE x > 1; PRAGMA integrity_check"), [str(len(done)), "ok"],
	        "a stock process finds the same")
	e = None
	try:
		con.execute("PRAGMA journal_mode=wal2").fetchall()
	except sqlite3.Error as refused:
		e = str(refused)
	t.ok(e and "stays in WAL mode" in e, "WAL2 is refused", e)
	con.close()


boot = sqlite3.connect(":memory:")
boot.enable_load_extension(True)
boot.load_extension(harness.MODULE)
boot.close()
harness.need_host_sqlite(os.getpid())
t.say("SQLite %s" % sqlite3.sqlite_version)
t.run()
