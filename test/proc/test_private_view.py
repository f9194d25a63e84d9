#!/usr/bin/python3
"""A transaction that idles on a leader while leadership is lost and others' entries are published beneath it.

After its ROLLBACK (or its refused COMMIT) the same connection, with the page cache it has, reads what the others wrote,
and later writes; all state checksums agree. Without private views its ROLLBACK takes over the published header, keeps the
cache of before, and the next transaction replicates corruption.
"""
import time

from harness import READONLY_NOT_LEADER, Test
from cluster import SqlError

t = Test(__file__, deadline_s=200)

SCHEMA = """
CREATE TABLE w(id INTEGER PRIMARY KEY, v TEXT, n INTEGER);
CREATE INDEX w_n ON w(n);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000)
INSERT INTO w SELECT i, hex(randomblob(100)), i FROM c;
"""

# What X does before it idles. Each begins with BEGIN IMMEDIATE.
SHAPES = {
	"unspilled": ["INSERT INTO w(v, n) VALUES('x', -1)"],
	"spilled": ["UPDATE w SET v = hex(randomblob(100)) WHERE id % 3 = 0", "INSERT INTO w(v, n) SELECT v, -1 FROM w"],
	"spilled, rewritten": ["UPDATE w SET n = n + 1", "UPDATE w SET n = n + 1", "UPDATE w SET n = -1 WHERE id % 2"],
	"savepoints": ["SAVEPOINT a", "UPDATE w SET v = 'x' || v", "SAVEPOINT b", "DELETE FROM w WHERE id % 2", "ROLLBACK TO b",
	               "RELEASE a"],
}
DIGEST = "SELECT count(*), sum(n), sum(length(v)), max(id) FROM w"


def others_write(node, rnd):
	"""Entries on the same pages and on new ones."""
	for _ in range(10):
		node.sql("INSERT INTO w(v, n) VALUES(hex(randomblob(100)), ?)", [rnd.randrange(1000)])
		node.sql("UPDATE w SET n = n + 1, v = hex(randomblob(90)) WHERE id % 97 = ?", [rnd.randrange(97)])
	node.sql("DELETE FROM w WHERE id % 211 = ?", [rnd.randrange(211)])


def one_round(c, x, shape, end, tag):
	"""x leads; its connection "x" idles in a transaction; it loses leadership; the others write."""
	c.make_leader(x.i)
	x.sql(DIGEST, conn="x")
	x.sql("BEGIN IMMEDIATE", conn="x")
	for s in SHAPES[shape]:
		x.sql(s, conn="x")
	inside = x.sql(DIGEST, conn="x")
	x.sigstop()
	new = c.leader()
	others_write(new, t.rnd)
	x.cont()
	top = new.status()["commit"]
	x.wait_status(lambda s: s["published"] >= top and s["role"] == "follower", 30, "publishes beneath the transaction")
	others_write(new, t.rnd)
	want = new.sql(DIGEST)
	top = new.status()["commit"]
	x.wait_status(lambda s: s["published"] >= top, 30, "publishes more")

	try:
		again = x.sql(DIGEST, conn="x")
		t.equal(again, inside, tag + ": inside, the transaction still reads itself")
	except SqlError as e:
		t.ok(e.code & 0xFF == 10, tag + ": inside, a read fails with IOERR at worst", repr(e))
	e = x.error(end, conn="x")
	if end == "COMMIT":
		t.ok(e is not None and e.code & 0xFF != 5 and e.code != READONLY_NOT_LEADER and e.code & 0xFF == 10,
		     tag + ": COMMIT is refused with an IOERR of its own", repr(e))
		if e is None or e.in_transaction:
			x.error("ROLLBACK", conn="x")
	else:
		t.ok(e is None or not e.in_transaction, tag + ": ROLLBACK", repr(e))
	t.equal(x.sql(DIGEST, conn="x"), want, tag + ": the connection then reads what the others wrote")
	t.equal(x.sql("PRAGMA quick_check", conn="x"), [["ok"]], tag + ": and finds the database in order")
	e = x.error("INSERT INTO w(v, n) VALUES('no', 0)", conn="x")
	t.ok(e is not None and e.code == READONLY_NOT_LEADER, tag + ": its write is refused while another leads", repr(e))
	c.make_leader(x.i)
	x.sql("UPDATE w SET n = n + 5, v = v || 'y' WHERE id % 53 = 0", conn="x")
	x.sql("INSERT INTO w(v, n) VALUES('written by x', -7)", conn="x")
	c.checksums_equal(tag + ": leading again it writes; checksums are equal")


@t.case("leadership lost beneath a transaction")
def lost():
	c = t.cluster(n=3, schema=SCHEMA)
	x = c[0]
	x.open("x", pragmas=["cache_size=5", "walraft_write='local'"])
	rounds = [(s, e) for s in SHAPES for e in ("ROLLBACK", "COMMIT")]
	if not t.full:
		rounds = [("spilled", "ROLLBACK"), ("spilled, rewritten", "COMMIT"), ("unspilled", "ROLLBACK")]
	for i, (shape, end) in enumerate(rounds):
		one_round(c, x, shape, end, "%s, %s" % (shape, end))
	c.integrity("integrity_check is ok on every node")
	t.equal(len({tuple(n.stock(DIGEST)) for n in c.nodes}), 1, "all files have the same rows")
	t.equal(c[1].stock("SELECT count(*) FROM w WHERE v = 'no' OR n = -1"), ["0"], "nothing of the lost transactions is there")


@t.case("readers beside a long transaction")
def readers():
	"""While X holds its transaction, other connections of the process and stock readers see the committed state."""
	c = t.cluster(n=3, schema=SCHEMA)
	x = c.leader()
	want = x.sql(DIGEST)
	x.open("x", pragmas=["cache_size=5"])
	x.open("busy", pragmas=["busy_timeout=200"])
	x.sql("BEGIN IMMEDIATE", conn="x")
	x.sql("DELETE FROM w WHERE id % 2", conn="x")
	x.sql("UPDATE w SET v = 'zzz'", conn="x")
	t.equal(x.sql(DIGEST), want, "another connection sees nothing of it")
	t.equal(x.stock(DIGEST), ["|".join(map(str, want[0]))], "nor does a stock reader")
	t0 = time.monotonic()
	e = x.error("INSERT INTO w(v, n) VALUES('b', 0)", conn="busy")
	t.ok(e is not None and e.code & 0xFF == 5, "a second writer gets BUSY after its timeout (%.0f ms)"
	     % ((time.monotonic() - t0) * 1000), repr(e))
	p = x.ask("INSERT INTO w(v, n) VALUES('waited', 0)")
	x.sql("COMMIT", conn="x")
	p.result()
	t.equal(x.sql("SELECT count(*) FROM w WHERE v = 'zzz'"), [[1000]], "after COMMIT it is there")
	c.checksums_equal("checksums are equal")


t.run()
