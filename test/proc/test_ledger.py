#!/usr/bin/python3
"""What a node knows of transactions and clients' steps outlives restarts, trimmed journals and images; and where its ledger is lost it says what it cannot tell."""
import os

from harness import Test, wait_until, walraft

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


def grow(n, kb=3000):
	"""So much of the log that the journal's segments go."""
	for i in range(kb // 100):
		n.sql("INSERT INTO kv(k, pad) VALUES('grow' || abs(random()), hex(randomblob(50000)))")


def trimmed(n):
	"""Until its journal does not reach back to its beginning any more."""
	def look():
		grow(n, 1000)
		return n.status()["journal_base"] > 1
	wait_until(look, 60, "node %d forgets the beginning of its log" % n.i)


@t.case("restarts, trimmed journals, images")
def kept():
	c = t.cluster(n=4, create=False)
	c.create(2)
	l = c.leader()
	apply_step(l, "c1", 5, "c1-5")
	at, txid = l.sql("SELECT walraft_position(), walraft_transaction()")[0]
	l.sql("BEGIN IMMEDIATE")
	lost = l.one("SELECT walraft_transaction()")
	l.sql("ROLLBACK")
	trimmed(l)

	def knows(n, what):
		t.equal(n.sql("SELECT walraft_outcome(?), walraft_outcome_position(?), walraft_outcome(?, 20000)", [txid, txid, lost])[0], ["committed", at, "not committed"],
		        "node %d, %s: outcomes" % (n.i, what))
		t.equal(begin_step(n, "c1", 5), at, "node %d, %s: the step is recognised" % (n.i, what))
		n.sql("ROLLBACK")

	for i, how in ((2, "worker"), (3, "worker")):
		c.join(i)
		c[i].start(how)
		knows(c[i], "joined by an image")
	ledgers_equal(c, "all ledgers are equal")
	for n in c.nodes:
		n.kill9() if n.i % 2 else n.term()
		n.start()
		knows(n, "killed and started" if n.i % 2 else "ended and started")
	for n in c.nodes:
		n.kill9()
	c.start_all()
	c.wait_ready()
	for n in c.nodes:
		knows(n, "all killed")
	ledgers_equal(c, "all ledgers are equal again")


@t.case("a lost or damaged ledger")
def damaged():
	c = t.cluster(n=1)
	n = c[0]
	ledger = n.db + "-walraft/ledger"
	apply_step(n, "c1", 1, "c1-1")
	at, txid = n.sql("SELECT walraft_position(), walraft_transaction()")[0]
	n.term()
	for how in ("removed", "emptied", "damaged", "of another database"):
		if how == "removed":
			os.unlink(ledger)
		else:
			with open(ledger, "r+b") as f:
				f.seek(0 if how == "emptied" else 25 if how == "of another database" else 70)
				f.truncate(0) if how == "emptied" else f.write(b"\xff\xff")
		n.start()
		t.equal((begin_step(n, "c1", 1), n.one("SELECT walraft_outcome(?)", [txid])), (at, "committed"), "a ledger that is %s is made from the journal" % how)
		n.sql("ROLLBACK")
		n.sql("INSERT INTO kv(k) VALUES('one more')")
		n.term()
	n.start()
	trimmed(n)
	apply_step(n, "c2", 1, "c2-1")
	n.term()
	os.unlink(ledger)
	n.start()
	st = n.status()["ledger"]
	t.ok(not st["whole"] and st["from"] > 1, "a journal that does not reach back far enough: the ledger is not whole", st)
	t.equal(n.one("SELECT walraft_outcome(?)", [txid]), "unknown", "what lies before is not known, and not taken for lost")
	t.ok("too old" in n.one("SELECT walraft_error()"), "and why")
	n.sql("BEGIN IMMEDIATE")
	e = n.error("SELECT walraft_once('c1', 1)")
	t.ok(e and "ledger of this node was lost" in e.text, "a step that may have been applied is refused", e)
	n.sql("ROLLBACK")
	n.sql("INSERT INTO kv(k) VALUES('goes on')")
	t.equal(n.one("SELECT walraft_outcome(walraft_transaction())"), "committed", "newer ones are known")
	n.term()
	r = walraft("adopt", n.db)
	t.ok(r.returncode == 0, "walraft adopt begins a new ledger", r.stderr)
	n.start()
	t.ok(n.status()["ledger"]["whole"], "which is whole")
	t.equal(apply_step(n, "c1", 1, "c1-1 anew"), None, "and clients begin anew")
	t.equal(n.one("SELECT walraft_outcome(?)", [txid]), "unknown", "what became of earlier transactions stays unknown")


t.run()
