"""Clients that write down what they ask and what they are told, for the judges in levels.py.

Each client is a thread with a connection and a file of its own: lines as of test/lin/README.md, the invocation written before the
operation begins, so that a kill leaves it open. Times are of CLOCK_MONOTONIC_RAW, which all processes of the machine share and
skew.c leaves true. Notes beside lin's members: level, and in answers n, the number of the snapshot that was seen (hist).

What is done: registers are written, read, compared and set (what a transaction read is its `old`, so that the line for it comes just before its
COMMIT; what dies earlier has not happened); elements are appended to lists; money moves between accounts, whose total stays. Keys
change with the time, so that none gets long. Each written value is unique in the run.
"""
import collections
import json
import os
import random
import sqlite3
import threading
import time

import load

ACCOUNTS, TOTAL = 10, 1000
SCHEMA = """
CREATE TABLE reg(k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID;
CREATE TABLE lst(k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID;
CREATE TABLE bank(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);
CREATE TABLE hist(n INTEGER PRIMARY KEY, k TEXT NOT NULL, v TEXT NOT NULL);
CREATE TRIGGER reg_new AFTER INSERT ON reg BEGIN INSERT INTO hist(k, v) VALUES(new.k, new.v); END;
CREATE TRIGGER reg_set AFTER UPDATE ON reg BEGIN INSERT INTO hist(k, v) VALUES(new.k, new.v); END;
CREATE TRIGGER lst_new AFTER INSERT ON lst BEGIN INSERT INTO hist(k, v) VALUES(new.k, new.v); END;
CREATE TRIGGER lst_set AFTER UPDATE ON lst BEGIN INSERT INTO hist(k, v) VALUES(new.k, substr(new.v, length(old.v) + 2)); END;
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9) INSERT INTO bank SELECT i, 100 FROM n;
INSERT INTO hist VALUES(1, 'first', 'first');
"""
WRITE = "INSERT INTO reg VALUES(?, ?) ON CONFLICT(k) DO UPDATE SET v = excluded.v"
APPEND = "INSERT INTO lst VALUES(?, ?) ON CONFLICT(k) DO UPDATE SET v = v || ',' || excluded.v"
READ = "SELECT (SELECT v FROM reg WHERE k = ?), (SELECT max(n) FROM hist)"
READ_LIST = "SELECT (SELECT v FROM lst WHERE k = ?), (SELECT max(n) FROM hist)"
READ_BANK = "SELECT (SELECT sum(v) FROM bank WHERE id %s 5), (SELECT max(n) FROM hist)"

# uri: of the database; log: beginning of the files' names; level: text of the pragma; start_ns, turn_s: keys change each turn_s from
# start_ns on; pace_ms: mean rest between operations; writes: share of operations that write
Spec = collections.namedtuple("Spec", "uri log tag seed level start_ns turn_s pace_ms writes timeout_ms")


def now_ns():
	return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


class Client(threading.Thread):
	def __init__(self, spec, number):
		super().__init__(daemon=True)
		self.spec, self.name = spec, "%s.%s.%d" % (spec.tag, spec.level.split(":")[0], number)
		self.stop, self.started_once = threading.Event(), False
		self.rnd = random.Random("%s/%s" % (self.name, spec.seed))
		self.counts, self.seq = collections.Counter(), 0
		self.fd = os.open("%s-%s" % (spec.log, self.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
		self.con, self.no_writes_until = None, 0

	# -- the record --
	def note(self, type_, **m):
		m = dict(process=self.name, type=type_, **m)
		m.setdefault("time", now_ns())
		os.write(self.fd, (json.dumps(m) + "\n").encode())

	def invoke(self, op, key, value=None, **m):
		self.op = op
		self.note("invoke", op=op, key=key, level=self.spec.level, **({} if value is None else {"value": value}), **m)

	def done(self, type_, **m):
		self.counts[type_] += 1
		if self.op in ("write", "append") and self.con and (self.rnd.random() < 0.1 if type_ == "ok" else m["code"] & 0xFF == sqlite3.SQLITE_IOERR and m["code"] != load.READ_GATE):
			m["id"] = self.id()  # what failed otherwise had no write lock
		self.note(type_, **m)
		self.op = None

	def id(self):
		"""Of the transaction under way, or of the latest one that had the write lock."""
		return self.con.execute("SELECT walraft_transaction()").fetchone()[0]

	# -- operations --
	def key(self, kind):
		if kind == "r" and self.rnd.random() < 0.1:
			return "r"  # one that stays
		return "%s%d.%d" % (kind, self.rnd.randrange(2), (now_ns() - self.spec.start_ns) // int(self.spec.turn_s * 1e9))

	def value(self):
		self.seq += 1
		return "%s.%d" % (self.name, self.seq)

	def read(self):
		key = self.key("r")
		self.invoke("read", key)
		v, n = self.con.execute(READ, (key,)).fetchone()
		self.done("ok", value=v, n=n)

	def read_list(self):
		key = self.key("l")
		self.invoke("read", key)
		v, n = self.con.execute(READ_LIST, (key,)).fetchone()
		self.done("ok", value=v.split(",") if v else [], n=n)

	def read_bank(self):
		"""Two statements of one transaction: one snapshot."""
		self.invoke("bank", "bank")
		self.con.execute("BEGIN")
		a, n = self.con.execute(READ_BANK % "<").fetchone()
		b, m = self.con.execute(READ_BANK % ">=").fetchone()
		self.con.execute("COMMIT")
		self.done("ok", value=a + b, n=n, m=m)

	def write(self):
		key, v = self.key("r"), self.value()
		self.invoke("write", key, v)
		self.con.execute(WRITE, (key, v))
		self.done("ok")

	def append(self):
		key, v = self.key("l"), self.value()
		self.invoke("append", key, v)
		self.con.execute(APPEND, (key, v))
		self.done("ok")

	def cas(self):
		key, v, began = self.key("r"), self.value(), now_ns()
		self.con.execute("BEGIN" if self.rnd.random() < 0.25 else "BEGIN IMMEDIATE")
		old, n = self.con.execute(READ, (key,)).fetchone()
		self.invoke("read", key, time=began)  # whatever becomes of the rest
		self.done("ok", value=old, n=n)
		if self.rnd.random() < 0.2:
			self.stop.wait(self.rnd.uniform(0, 0.03))  # thinks
		self.con.execute(WRITE, (key, v))
		self.invoke("cas", key, [old, v], n=n, id=self.id())
		self.committing = True
		self.con.execute("COMMIT")
		self.done("ok")

	def transfer(self):
		v, began = self.value(), now_ns()
		a, b = self.rnd.sample(range(ACCOUNTS), 2)
		d = self.rnd.randrange(1, 20)
		self.con.execute("BEGIN IMMEDIATE")
		self.con.execute("UPDATE bank SET v = v - ? WHERE id = ?", (d, a))
		self.con.execute("UPDATE bank SET v = v + ? WHERE id = ?", (d, b))
		self.con.execute("INSERT INTO hist(k, v) VALUES('bank', ?)", (v,))
		if self.rnd.random() < 0.2:
			self.con.execute("ROLLBACK")
			return
		self.invoke("transfer", "bank", v, time=began, id=self.id())
		self.committing = True
		self.con.execute("COMMIT")
		self.done("ok")

	def why(self):
		try:
			return self.con.execute("SELECT walraft_error()").fetchone()[0]
		except sqlite3.Error as e:
			return str(e)

	def failed(self, e):
		code = getattr(e, "sqlite_errorcode", -1)
		what = {"N": "fail", "U": "info"}.get(load.judge(e, self.committing), "wrong")
		self.counts["error %d" % code] += 1
		if what == "wrong":
			self.note("wrong", text="%d %s%s" % (code, e, " at a commit" if self.committing else ""))
		if self.op:
			self.done("info" if what == "wrong" else what, code=code, why=self.why())
		if code == load.READONLY_NOT_LEADER:
			self.no_writes_until = now_ns() + 20000000
		if self.con.in_transaction:
			try:
				self.con.execute("ROLLBACK")
			except sqlite3.Error as e2:
				self.note("wrong", text="ROLLBACK: %s" % e2)

	def connect(self):
		try:
			self.con = sqlite3.connect(self.spec.uri, uri=True, isolation_level=None, timeout=2)
			for p in load.FIRST_PRAGMAS + ["walraft_timeout=%d" % self.spec.timeout_ms, "walraft_read='%s'" % self.spec.level]:
				self.con.execute("PRAGMA " + p).fetchall()
			return True
		except sqlite3.Error as e:
			self.note("note", text="open: %s" % e)
			if self.con:
				self.con.close()
			self.con = None
			return False

	def run(self):
		reads, writes = (self.read, self.read_list, self.read_bank), (self.write, self.append, self.cas, self.transfer)
		while not self.stop.is_set():
			if self.con is None and not self.connect():
				self.stop.wait(0.05)
				continue
			self.op, self.committing = None, False
			writing = self.rnd.random() < self.spec.writes and now_ns() > self.no_writes_until
			try:
				self.rnd.choice(writes if writing else reads)()
			except sqlite3.Error as e:
				self.failed(e)
				self.stop.wait(0.005)
			self.stop.wait(self.rnd.expovariate(1000 / self.spec.pace_ms))
		if self.con is not None:
			self.con.close()
		os.close(self.fd)
