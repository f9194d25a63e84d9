#!/usr/bin/python3
"""Large transactions: 64 MiB (--full: 1 GiB) with little memory; the leader killed in the middle leaves none of it."""
from harness import Failed, RssWatch, SANITIZER, Test, wait_until

t = Test(__file__, deadline_s=200)
MIB = 1 << 20
size = (1024 if t.full else 64) * MIB
LIMIT_KB = 64 * 1024
SCHEMA = "CREATE TABLE big(id INTEGER PRIMARY KEY, tag TEXT, v BLOB);"
ROW = 32000
TIMEOUT_MS = "1200000"


def fill(tag, n_bytes):
	return ("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < %d) "
	        "INSERT INTO big(tag, v) SELECT '%s', randomblob(%d) FROM c" % (n_bytes // ROW, tag, ROW))


@t.case("a large transaction")
def large():
	c = t.cluster(n=3, schema=SCHEMA)
	l = c.leader()
	for n in c.nodes:
		n.open("big", walraft_timeout=TIMEOUT_MS)
	l.sql(fill("warm", 2 * MIB), conn="big")
	c.converge()
	watch = RssWatch([n.pid for n in c.nodes])
	l.ask(fill("large", size), conn="big").result(1800)
	c.converge(600)
	watch.stop()
	t.equal([n.stock("SELECT count(*), sum(length(v)) FROM big WHERE tag = 'large'") for n in c.nodes],
	        [["%d|%d" % (size // ROW, size // ROW * ROW)]] * 3, "%d MiB are on all nodes" % (size // MIB))
	for n in c.nodes:
		kb = watch.growth()[n.pid]
		name = "node %d (%s) grew by at most %d MiB" % (n.i, "leader" if n is l else "follower", LIMIT_KB // 1024)
		if SANITIZER:
			t.skip(name, "memory of a sanitizer build says nothing")
		else:
			t.ok(kb <= LIMIT_KB, "%s: %.1f MiB" % (name, kb / 1024))
	# A change to all of it: ranges against old pages, and a spill that is rewritten.
	l.ask("UPDATE big SET tag = 'changed' WHERE tag = 'large'", conn="big").result(1800)
	c.checksums_equal("checksums are equal after an update of all of it", 600)
	l.ask("DELETE FROM big WHERE tag = 'changed' AND id % 2", conn="big").result(1800)
	l.ask("VACUUM", conn="big").result(1800)
	c.checksums_equal("checksums are equal after VACUUM", 600)
	c.integrity("integrity_check is ok on every node")


@t.case("the leader killed in the middle")
def killed():
	c = t.cluster(n=3, schema=SCHEMA)
	for r in range(6 if t.full else 3):
		l = c.leader()
		l.open("big", walraft_timeout=TIMEOUT_MS)
		f = c.followers()[0]
		start = f.status()["journal_bytes_appended"]
		part = (4 + r * 12) * MIB if not t.full else (20 + r * 150) * MIB
		p = l.ask(fill("killed%d" % r, size), conn="big")
		wait_until(lambda: f.status()["journal_bytes_appended"] - start > part or p.done(), 900,
		           "a part of the transaction is in a follower's journal", every_s=0.002)
		l.kill9()
		a = p.raw(30)
		if a and a["ok"]:
			raise Failed("the transaction ended before the kill; make the part smaller")
		new = c.leader()
		new.sql("INSERT INTO big(tag) VALUES('after%d')" % r)
		l.start()
		c.checksums_equal("round %d: checksums are equal" % r, 300)
		t.equal([n.stock("SELECT count(*) FROM big WHERE tag LIKE 'killed%'") for n in c.nodes], [["0"]] * 3,
		        "round %d: none of the transaction is on any node" % r)
	c.integrity("integrity_check is ok on every node")
	l = c.leader()
	l.open("again", walraft_timeout=TIMEOUT_MS)
	l.ask(fill("again", size // 4), conn="again").result(1800)
	c.checksums_equal("a large transaction after them is committed", 300)


@t.case("rollback of a large transaction")
def rollback():
	c = t.cluster(n=3, schema=SCHEMA)
	l = c.leader()
	before = l.status()
	l.open("big", walraft_timeout=TIMEOUT_MS)
	l.sql("BEGIN IMMEDIATE", conn="big")
	l.ask(fill("never", size // 4), conn="big").result(600)
	l.sql("ROLLBACK", conn="big")
	l.sql("INSERT INTO big(tag) VALUES('small')", conn="big")
	after = c.checksums_equal("checksums are equal") and l.status()
	t.equal(l.sql("SELECT count(*) FROM big", conn="big"), [[1]], "only the small row is there")
	t.ok(after and after["journal_bytes_appended"] - before["journal_bytes_appended"] < MIB, "the rolled back one was not sent")


t.run()
