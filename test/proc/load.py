"""Writers with a record of what they were told.

The log has a line per event, written by one write(2) before the next step, so that it survives a kill of the process:
  B key     about to try           A key   acknowledged
  N key     told: not committed (or rolled back by the writer itself)
  U key     told: outcome unknown  X key text   an answer that must never be given
A key with B alone was being written when the process died: unknown.

Each key goes into kv once; some go with a transfer that adds the same amount to a and b, whose totals always agree.
"""
import collections
import os
import random
import sqlite3
import threading

READONLY_NOT_LEADER = 8 | 0x57 << 8
NOT_COMMITTED = {READONLY_NOT_LEADER, 10 | 0x57 << 8, 10 | 0x59 << 8}
UNKNOWN = {10 | 0x58 << 8, 10 | 0x5B << 8}
READ_GATE = 10 | 0x5A << 8
# What applications do first on a connection, for SQLites with uncommon defaults (test/newest).
FIRST_PRAGMAS = [p for p in os.environ.get("WALRAFT_FIRST_PRAGMAS", "").split(";") if p]

SCHEMA = """
CREATE TABLE kv(id INTEGER PRIMARY KEY, k TEXT NOT NULL, pad TEXT);
CREATE INDEX kv_k ON kv(k);
CREATE TABLE a(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);
CREATE TABLE b(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO a SELECT i, 0 FROM n;
INSERT INTO b SELECT id, 0 FROM a;
"""
TOTALS = "SELECT (SELECT sum(v) FROM a), (SELECT sum(v) FROM b)"

Spec = collections.namedtuple("Spec", "uri log tag seed pause_ms pad timeout_ms")


def judge(e, committing):
	"""What an error says about the transaction: N it is not committed, U unknown, X nobody must ever be told this."""
	code = getattr(e, "sqlite_errorcode", -1)
	if code in NOT_COMMITTED or code == READ_GATE:
		return "N"
	if code in UNKNOWN:
		return "U"
	if code & 0xFF == sqlite3.SQLITE_BUSY and not (committing and code == sqlite3.SQLITE_BUSY):
		return "N"
	return "X"


class Writer(threading.Thread):
	def __init__(self, spec, number):
		super().__init__(daemon=True)
		self.spec, self.number = spec, number
		self.stop = threading.Event()
		self.started_once = False
		self.rnd = random.Random("%s/%d/%s" % (spec.tag, number, spec.seed))
		self.counts = collections.Counter()
		self.fd = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
		self.con = None

	def note(self, what, key, text=""):
		self.counts[what] += 1
		os.write(self.fd, (" ".join(filter(None, (what, key, text))) + "\n").encode())

	def connect(self):
		self.con = sqlite3.connect(self.spec.uri, uri=True, isolation_level=None, timeout=5)
		for p in FIRST_PRAGMAS + ["walraft_timeout=%d" % self.spec.timeout_ms]:
			self.con.execute("PRAGMA " + p).fetchall()

	def transaction(self, key):
		con, kind = self.con, self.rnd.random()
		pad = "x" * self.rnd.randrange(self.spec.pad * 2 + 1)
		if kind < 0.6:
			con.execute("INSERT INTO kv(k, pad) VALUES(?, ?)", (key, pad))
			return "A"
		self.explicit = True
		con.execute("BEGIN IMMEDIATE")
		con.execute("INSERT INTO kv(k, pad) VALUES(?, ?)", (key, pad))
		d = self.rnd.randrange(1, 1000)
		con.execute("UPDATE a SET v = v + ? WHERE id = ?", (d, self.rnd.randrange(100)))
		if kind < 0.7:
			con.execute("SAVEPOINT s")
			con.execute("INSERT INTO kv(k, pad) VALUES('never:' || ?, ?)", (key, pad * 20))
			con.execute("ROLLBACK TO s")
			con.execute("RELEASE s")
		con.execute("UPDATE b SET v = v + ? WHERE id = ?", (d, self.rnd.randrange(100)))
		if kind > 0.95:
			con.execute("ROLLBACK")
			return "N"
		self.committing = True
		con.execute("COMMIT")
		return "A"

	def attempt(self, key):
		self.explicit = self.committing = False
		self.note("B", key)
		try:
			self.note(self.transaction(key), key)
			return True
		except sqlite3.Error as e:
			what = judge(e, self.committing)
			text = "%s %s%s" % (getattr(e, "sqlite_errorcode", -1), e, " at COMMIT" if self.committing else "")
			self.note(what, key, text.replace("\n", " "))
			if self.con.in_transaction:
				try:
					self.con.execute("ROLLBACK")
				except sqlite3.Error as e2:
					self.note("X", key, "ROLLBACK: %s" % e2)
			return False

	def run(self):
		seq = 0
		while not self.stop.is_set():
			key = "%s.%d.%d" % (self.spec.tag, self.number, seq)
			seq += 1
			try:
				if self.con is None:
					self.connect()
			except sqlite3.Error as e:
				self.note("E", key, str(e))
				self.con = None
				self.stop.wait(0.05)
				continue
			if self.attempt(key):
				self.stop.wait(self.rnd.random() * 2 * self.spec.pause_ms / 1000)
			else:
				self.stop.wait(0.03)
		if self.con is not None:
			self.con.close()
		os.close(self.fd)


class Outcomes:
	"""All logs of a run read back. The strongest statement about a key counts."""

	def __init__(self, files):
		self.acked, self.not_committed, self.unknown, self.wrong = set(), set(), set(), []
		self.begun = set()
		for f in files:
			with open(f) as h:
				for line in h:
					if not line.endswith("\n"):
						continue  # the kill came inside the write
					what, key, *text = line.rstrip("\n").split(" ", 2)
					{"B": self.begun, "A": self.acked, "N": self.not_committed, "U": self.unknown}.get(what, set()).add(key)
					if what == "X":
						self.wrong.append(line.strip())
						self.unknown.add(key)
		self.unknown |= self.begun - self.acked - self.not_committed

	def check(self, t, keys, where):
		"""Three points about the keys found in a database (a list, with repetitions)."""
		have = set(keys)
		t.ok(len(have) == len(keys), "%s: each row is there once" % where,
		     [k for k, n in collections.Counter(keys).items() if n > 1][:10])
		t.ok(not self.acked - have, "%s: all %d acknowledged rows are there" % (where, len(self.acked)),
		     "lost %d: %s" % (len(self.acked - have), sorted(self.acked - have)[:10]))
		ghosts = have & self.not_committed | have - self.begun
		t.ok(not ghosts, "%s: none of the %d rows reported lost is there" % (where, len(self.not_committed)),
		     "%d: %s" % (len(ghosts), sorted(ghosts)[:10]))


def failures(files, allowed=()):
	"""What writers were told but an acknowledgement, the leader's address, or nothing since they rolled back themselves. allowed: codes."""
	bad, fine = [], {"", str(READONLY_NOT_LEADER)} | {str(c) for c in allowed}
	for f in files:
		with open(f) as h:
			for line in h:
				what, _, *text = line.rstrip("\n").split(" ", 2)
				code = text[0].split(" ")[0] if text else ""
				if not (what in ("B", "A") or (what == "N" and code in fine)):
					bad.append(line.strip())
	return bad


def acked_count(files):
	n = 0
	for f in files:
		try:
			with open(f, "rb") as h:
				n += sum(1 for line in h if line[:1] == b"A")
		except FileNotFoundError:
			pass
	return n
