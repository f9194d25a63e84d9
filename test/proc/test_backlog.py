#!/usr/bin/python3
"""A transaction that is larger than what a leader lets go uncommitted: its proposals wait, and nothing fails. Entries go to the
followers as they are stored: nothing is unpacked for sending."""
from harness import Test

t = Test(__file__, deadline_s=240)


@t.case("a large transaction of bytes that no packing makes smaller")
def large():
	c = t.cluster(n=3, kind="worker")
	l = c.leader()
	before = l.status()
	for r in range(3):
		l.sql("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 40) "
		      "INSERT INTO kv(k) SELECT hex(randomblob(4)) || i || CAST(randomblob(1000000) AS TEXT) FROM s")
		l.sql("INSERT INTO kv(k) VALUES('small %d')" % r)
	c.converge()
	c.checksums_equal("checksums are equal")
	s = l.status()
	t.equal(l.sql("SELECT count(*) FROM kv"), [[123]], "all rows are there")
	t.equal(s["term"], before["term"], "the leader still leads, in the same term")
	sent = s["entries_sent"] - before["entries_sent"]
	t.ok(sent >= 2 * 100, "entries were sent", sent)
	t.equal(s["send_unpacks"], 0, "and no block was unpacked for that: %d entries, %d proposals were held" %
	        (sent, s["events"].get("log.proposal_refused", 0)))
	c.destroy()


@t.case("rows that pack well, to a follower that was away")
def packed():
	c = t.cluster(n=3, kind="worker")
	l, f = c.leader(), c.followers()[0]
	f.term()
	for _ in range(20):
		l.sql("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 200) "
		      "INSERT INTO kv(k) SELECT hex(randomblob(8)) || printf('%.4000c', 'x') FROM s")
	f.start()
	c.converge()
	c.checksums_equal("checksums are equal")
	s = l.status()
	t.ok(s["entries_sent"] >= 40 and s["send_unpacks"] == 0, "they were sent packed as they are", (s["entries_sent"], s["send_unpacks"]))
	c.destroy()


t.run()
