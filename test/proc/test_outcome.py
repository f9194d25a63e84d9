#!/usr/bin/python3
"""What became of a transaction, asked on any node, and steps of clients that are applied exactly once: one by one, with each error. Under faults: test_once.py."""
import os
import time

from cluster import Node
from harness import Test, wait_until

REPEATED = 8 | (0x58 << 8)
t = Test(__file__, deadline_s=200)


def ledgers_equal(c, name):
	"""A point: one ledger on all nodes at one index."""
	c.converge()
	s = {n.i: n.status()["ledger"] for n in c.replicas()}
	t.ok(len({(v["index"], v["checksum"], v["sessions"], v["transactions"], v["from"]) for v in s.values()}) == 1 and all(v["whole"] for v in s.values()), name, s)


def begin_step(n, client, step, conn="main", idle=None):
	n.sql("BEGIN IMMEDIATE", conn=conn)
	return n.one("SELECT walraft_once(?, ?%s)" % ("" if idle is None else ", %d" % idle), [client, step], conn=conn)


def apply_step(n, client, step, key, conn="main"):
	"""The position at which it was applied before, or None after applying it."""
	at = begin_step(n, client, step, conn)
	if at is None:
		n.sql("INSERT INTO kv(k) VALUES(?)", [key], conn=conn)
		n.sql("COMMIT", conn=conn)
	else:
		n.sql("ROLLBACK", conn=conn)
	return at


@t.case("ids and outcomes")
def ids():
	c = t.cluster(n=3)
	l = c.leader()
	f = c.followers()[0]
	for n in c.nodes:
		n.open("fresh")
	t.equal(l.one("SELECT walraft_transaction()", conn="fresh"), None, "no id before the first write transaction")
	t.equal(f.one("SELECT walraft_outcome(NULL)"), None, "the outcome of NULL is NULL")
	l.sql("INSERT INTO kv(k) VALUES('one')")
	one, at = l.sql("SELECT walraft_transaction(), walraft_position()")[0]
	t.ok(len(one) == 32 and not one.startswith("0" * 12), "an id is 32 hex digits", one)
	for n in c.nodes:
		t.equal(n.sql("SELECT walraft_outcome(?), walraft_outcome_position(?)", [one, one])[0], ["committed", at], "node %d: it is committed, at its position" % n.i)
	t.equal(f.one("SELECT walraft_outcome(?, 0)", [one.upper()]), "committed", "without waiting, and in upper case")
	l.sql("BEGIN IMMEDIATE")
	l.sql("INSERT INTO kv(k) VALUES('two')")
	two = l.one("SELECT walraft_transaction()")
	t.ok(two != one, "a running transaction has an id of its own")
	t.equal(l.one("SELECT walraft_outcome(?)", [two]), "unknown", "its own connection is told that it is not known")
	t.ok("just running" in l.one("SELECT walraft_error()"), "and why")
	for n in (l, f):
		t.equal(n.one("SELECT walraft_outcome(?, 300)", [two], conn="fresh"), "unknown", "node %d: while it runs it is not known" % n.i)
		t.ok("still running" in n.one("SELECT walraft_error()", conn="fresh"), "and why", n.one("SELECT walraft_error()", conn="fresh"))
	waits = [n.ask("SELECT walraft_outcome(?, 20000)", [two], conn="fresh") for n in c.nodes]
	l.sql("ROLLBACK")
	for n, w in zip(c.nodes, waits):
		t.equal(w.result()["rows"][0][0], "not committed", "node %d: whoever waits is told when it is rolled back" % n.i)
	t.equal(l.one("SELECT walraft_transaction()"), two, "its id stays the latest one")
	for bad in ("''", "'xyz'", "'%s'" % one[:31], "'%s0'" % one, "17", "'%s'" % ("0" * 32), "x'00'"):
		e = f.error("SELECT walraft_outcome(%s)" % bad)
		t.ok(e and "32 hex digits" in str(e), "no id: %s" % bad[:20], e)
	t.ok(f.error("SELECT walraft_outcome('%s', -1)" % one), "a wait below zero is an error")
	future = "%012x%s" % (int(one[:12], 16) + 5, one[12:])
	t.equal(f.one("SELECT walraft_outcome(?, 300)", [future]), "unknown", "an id of a term that has not been is not known")
	# Without a leader: what is certain is told at once, the rest is not known, in time.
	lost = "%s%s" % (two[:24], "0fffffff")
	c.followers()[1].sigstop() if c.followers()[1] is not f else c.followers()[0].sigstop()
	l.sigstop()
	t.equal(f.one("SELECT walraft_outcome(?)", [one]), "committed", "without a leader: what was seen is committed")
	began = time.monotonic()
	t.equal(f.one("SELECT walraft_outcome(?, 700)", [lost]), "unknown", "what was not is not known")
	t.ok(0.6 < time.monotonic() - began < 5, "after the time given", time.monotonic() - began)
	t.ok("not known yet" in f.one("SELECT walraft_error()"), "and why", f.one("SELECT walraft_error()"))
	for n in c.nodes:
		n.cont()
	t.equal(f.one("SELECT walraft_outcome(?, 30000)", [lost]), "not committed", "with a leader it is")
	t.equal(f.one("SELECT walraft_outcome(?)", [two]), "not committed", "as is the other one")
	ledgers_equal(c, "all ledgers are equal")


@t.case("steps of clients")
def steps():
	c = t.cluster(n=3)
	l = c.leader()
	l.open("b")
	t.equal(apply_step(l, "c1", 7, "s7"), None, "the first time a step is applied")
	at = l.one("SELECT walraft_position()")
	t.equal(begin_step(l, "c1", 7), at, "the second time its position is returned")
	t.equal(l.one("SELECT count(*) FROM kv WHERE k = 's7'"), 1, "reads go on")
	l.sql("INSERT INTO kv(k) VALUES('s7 again')")
	e = l.error("COMMIT")
	t.ok(e and e.code == REPEATED, "a COMMIT of writes is refused with a code of its own", e)
	t.ok(e and not e.in_transaction and "applied before" in e.walraft_error, "the transaction is over, and why is told", e)
	t.equal(l.sql("SELECT k FROM kv WHERE k LIKE 's7%'"), [["s7"]], "nothing of it is there")
	t.equal(begin_step(l, "c1", 7), at, "again")
	l.sql("COMMIT")
	t.equal(begin_step(l, "c1", 7), at, "a repetition that writes nothing can be committed; or rolled back")
	l.sql("ROLLBACK")
	t.equal(begin_step(l, "c1", 7), at, "with much to write")
	e = l.error("INSERT INTO kv(k, pad) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT 'big' || i, hex(randomblob(2000)) FROM n")
	e = e or l.error("COMMIT")
	t.ok(e and e.code == REPEATED, "spilled pages are refused likewise", e)
	if e and e.in_transaction:
		l.sql("ROLLBACK")
	t.equal(l.one("SELECT count(*) FROM kv WHERE k LIKE 'big%'"), 0, "and nothing is there")
	t.equal(l.sql("PRAGMA integrity_check"), [["ok"]], "integrity")
	l.sql("BEGIN")
	e = l.error("SELECT walraft_once('c1', 6)")
	t.ok(e and e.code == REPEATED and "moved on" in e.text and at in e.text, "a lower step is an error that says that the client has moved on", e)
	t.ok(e and "moved on" in str(e.walraft_error), "walraft_error() says so, too", e and e.walraft_error)
	l.sql("ROLLBACK")
	e = l.error("SELECT walraft_once('c1', 8)")
	t.ok(e and "BEGIN IMMEDIATE" in e.text, "outside of a transaction: an error that says what to do", e)
	l.sql("BEGIN")
	t.equal(l.one("SELECT walraft_once('c1', 8)"), None, "a deferred transaction becomes one that writes")
	e = l.error("BEGIN IMMEDIATE", conn="b")
	t.ok(e and e.code == 5, "so that nobody else writes meanwhile", e)
	e = l.error("SELECT walraft_once('c1', 9)")
	t.ok(e and "one transaction is one step" in e.text, "one step for a transaction", e)
	l.sql("COMMIT")
	t.equal(begin_step(l, "c1", 8), None, "one that changed nothing left no record")
	l.sql("INSERT INTO kv(k) VALUES('rolled back')")
	l.sql("ROLLBACK")
	t.equal(begin_step(l, "c1", 8), None, "nor did one that was rolled back")
	l.sql("ROLLBACK")
	l.sql("INSERT INTO kv(k) VALUES('plain')")
	t.equal(begin_step(l, "c1", 8), None, "and the connection has forgotten it")
	l.sql("ROLLBACK")
	l.sql("SAVEPOINT outer_one")
	l.sql("SAVEPOINT s")
	t.equal(l.one("SELECT walraft_once('c2', 1)"), None, "a step within a savepoint")
	l.sql("ROLLBACK TO s")
	t.equal(l.one("SELECT walraft_once('c2', 2)"), None, "is undone with it, and another one can be")
	l.sql("RELEASE s")
	l.sql("SAVEPOINT later")
	l.sql("INSERT INTO kv(k) VALUES('gone')")
	l.sql("ROLLBACK TO later")
	l.sql("INSERT INTO kv(k) VALUES('c2-2')")
	l.sql("RELEASE outer_one")
	t.equal(begin_step(l, "c2", 2), l.one("SELECT walraft_position()"), "which stays when later ones are rolled back")
	l.sql("ROLLBACK")
	for bad in ("NULL, 1", "'', 1", "'%s', 1" % ("x" * 65), "'x', -1", "'x', 'y'", "'x', 1, 0", "'x', 1, 'soon'"):
		l.sql("BEGIN")
		t.ok(l.error("SELECT walraft_once(%s)" % bad), "refused: walraft_once(%s)" % (bad if len(bad) < 30 else "too long an id"))
		l.sql("ROLLBACK")
	t.equal(apply_step(l, "x" * 64, 0, "longest"), None, "an id of 64 bytes, and step 0")
	t.ok(apply_step(l, "x" * 64, 0, "longest again"), "are recognised too")
	l.sql("DELETE FROM kv WHERE k = 'nobody'")
	t.equal(l.sql("SELECT count(*) FROM kv WHERE k LIKE 'longest%'"), [[1]], "and applied once")
	ledgers_equal(c, "all ledgers are equal")
	t.equal(l.status()["ledger"]["sessions"], 3, "three clients are known")
	# A new leader knows as much.
	l.sigstop()
	n = c.leader()
	t.equal(begin_step(n, "c1", 7), at, "a new leader returns the same position")
	n.sql("ROLLBACK")
	t.equal(apply_step(n, "c1", 8, "s8"), None, "and the next step is applied there")
	l.cont()
	ledgers_equal(c, "all ledgers are equal again")


class Attached(Node):
	"""One more process of a node's machine, on the same database."""

	def __init__(self, host):
		self.c, self.i, self.url, self.dir, self.db = host.c, host.i, host.url, host.dir, host.db
		self.log = os.path.join(host.c.dir, "log", "attached.log")
		self.proc, self.kind, self.generation, self.stopped, self.witness = None, None, 1000, False, False


@t.case("in an attached process")
def attached():
	c = t.cluster(n=1)
	a = Attached(c[0]).worker()
	try:
		t.equal(apply_step(a, "c1", 1, "a1"), None, "a step is applied through the host")
		at, txid = a.sql("SELECT walraft_position(), walraft_transaction()")[0]
		t.equal(begin_step(a, "c1", 1), at, "and recognised")
		a.sql("INSERT INTO kv(k) VALUES('a1 again')")
		e = a.error("COMMIT")
		t.ok(e and e.code == REPEATED and not e.in_transaction, "its writes are refused", e)
		t.equal(apply_step(c[0], "c1", 1, "a1 again"), at, "as in the host")
		t.equal(apply_step(c[0], "c1", 2, "a2"), None, "the next step in the host")
		t.ok(begin_step(a, "c1", 2), "is known to the other")
		a.sql("ROLLBACK")
		for n in (a, c[0]):
			t.equal(n.sql("SELECT walraft_outcome(?), walraft_outcome_position(?)", [txid, txid])[0], ["committed", at], "the outcome of its transaction")
		a.sql("BEGIN IMMEDIATE")
		t.equal(c[0].one("SELECT walraft_outcome(?, 200)", [a.one("SELECT walraft_transaction()")]), "unknown", "of one that runs")
		a.sql("ROLLBACK")
		t.equal(a.one("SELECT walraft_outcome(walraft_transaction())"), "not committed", "and that was rolled back")
		t.equal(c[0].sql("SELECT k FROM kv WHERE k LIKE 'a%' ORDER BY id"), [["a1"], ["a2"]], "each step is there once")
	finally:
		a.kill9()


@t.case("clients are forgotten by the time of the log")
def expiry():
	c = t.cluster(n=2)
	l = c.leader()
	begin_step(l, "short", 1, idle=1)
	l.sql("INSERT INTO kv(k) VALUES('short')")
	l.sql("COMMIT")
	apply_step(l, "long", 1, "long")
	time_of = lambda: l.sql("INSERT INTO kv(k) VALUES('tick') RETURNING 1") and l.status()["ledger"]["sessions"]
	wait_until(lambda: time_of() == 1, 10, "the short one is forgotten", every_s=0.1)
	ledgers_equal(c, "by all alike")
	t.equal(begin_step(l, "short", 1), None, "its step counts as new")
	l.sql("ROLLBACK")
	t.ok(begin_step(l, "long", 1), "the other one's does not")
	l.sql("ROLLBACK")


t.run()
