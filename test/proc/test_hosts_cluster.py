#!/usr/bin/python3
"""Hosts on nodes of a cluster: what they see of each other's commits, what is refused away from the leader, commits that wait for their quorum."""
import os

import harness
import hosts
from harness import Test, stock_rows, wait_until

t = Test(__file__, deadline_s=200)
UNSYNCED = next((p for p in (os.path.join(harness.BUILD, "test/proc/.libs/unsynced.so"), os.path.join(harness.BUILD, "test/proc/unsynced.so")) if os.path.exists(p)), None)
NOT_LEADER = "error 22280: "


def case(name):
	return hosts.steady(t, name)


def two_hosts():
	"""A cluster of two hosts: the pair, the other one, the cluster."""
	p = hosts.Pair(t, two_hosts=True)
	return p, p.other, p.c


def finish(p, other):
	"""Points: both nodes have one state, their files one content; the hosts end well."""
	p.c.checksums_equal("the checksums of both nodes are equal")
	t.equal(hosts.dump(p.c[0].db), hosts.dump(p.c[1].db), "and the content")
	p.kept = p.leads()
	other.end("the other host, in the end")
	p.host.end("in the end")


@case("commits of other nodes")
def foreign():
	p, b, c = two_hosts()
	a = p.host
	b.sql("PRAGMA mmap_size=67108864")
	a.sql("CREATE TABLE f(id INTEGER PRIMARY KEY, pad)")
	asked = "PRAGMA data_version"
	v0 = b.sql(asked)
	t.equal(b.sql(asked), v0, "data_version stays while nothing is committed")
	a.sql("INSERT INTO f VALUES(1, 'x')")
	b.sql("SELECT count(*) FROM f")
	v1 = b.sql(asked)
	t.ok(v1 != v0, "and changes with a commit of another node", (v0, v1))
	b.sql("PRAGMA walraft_read='stale'")
	a.sql("INSERT INTO f VALUES(2, 'x')")
	wait_until(lambda: b.sql(asked) != v1, 10, "data_version changes for a reader at level stale")
	b.sql("PRAGMA walraft_read='linearizable'")
	wrong = []
	look = "SELECT count(*), sum(length(pad)), sum(id), max(hex(pad)) FROM f"
	for i in range(25):
		a.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) INSERT INTO f SELECT NULL, randomblob(1500) FROM n")
		if i % 6 == 5:
			a.sql("DELETE FROM f WHERE id % 2; VACUUM")
		if a.sql(look) != b.sql(look):
			wrong.append(i)
	t.ok(not wrong, "with mmap_size set on a follower, its reads are right beside writes and VACUUM on the leader", wrong)
	t.equal(b.sql("PRAGMA integrity_check"), "ok", "and the database is in order")
	finish(p, b)


@case("writes away from the leader")
def elsewhere():
	p, b, c = two_hosts()
	a = p.host
	a.sql("INSERT INTO seed VALUES(1); CREATE TABLE w(a PRIMARY KEY, b); INSERT INTO w VALUES(1, zeroblob(100)); PRAGMA auto_vacuum=2; VACUUM")
	b.sql("SELECT * FROM w")
	b.sql("PRAGMA walraft_write='local'")
	before = c[0].status()["last_index"]
	t.equal(b.run("codes"), {"plain": "8, extended 22280", "extended": "22280", "reason": "%s is written to on the leader, which is %s" % (c[1].db, c[0].url),
	                         "in a transaction": "22280", "which can still read": "1"}, "the code is READONLY, extended if so asked, and the text names the leader")
	copy = os.path.join(b.dir, "copy.db")
	for s in ("INSERT INTO w VALUES(2, 3)", "BEGIN IMMEDIATE", "CREATE TABLE w2(a)", "DROP TABLE w", "VACUUM", "PRAGMA user_version=5", "PRAGMA application_id=5", "PRAGMA incremental_vacuum", "REINDEX", "ANALYZE",
	          "PRAGMA writable_schema=1; UPDATE sqlite_schema SET sql = sql"):
		got = b.sql(s)
		t.ok(got.startswith(NOT_LEADER) or (s == "PRAGMA incremental_vacuum" and got == ""), "%s is refused" % s, got)
	b.sql("PRAGMA writable_schema=0")
	for s, want in (("SELECT count(*) FROM w", "1"), ("PRAGMA integrity_check", "ok"), ("CREATE TEMP TABLE tw(a); INSERT INTO tw VALUES(1); SELECT count(*) FROM tw", "1"),
	                ("ATTACH '%s' AS f; CREATE TABLE f.own(a); INSERT INTO f.own SELECT a FROM w; SELECT a FROM f.own; DETACH f" % copy, "1"), ("ATTACH ':memory:' AS m; CREATE TABLE m.m(a); DETACH m", ""),
	                ("VACUUM INTO '%s2'" % copy, ""), ("PRAGMA journal_mode", "wal"), ("PRAGMA wal_checkpoint", "1|-1|-1")):
		t.equal(b.sql(s), want, "%s" % s.replace(b.dir, ""))
	t.equal(stock_rows(copy + "2", "SELECT count(*) FROM w"), ["1"], "VACUUM INTO made a copy")
	for name in ("backup-out", "serialize"):
		a_saw = a.run(name)
		t.ok(a_saw, name + " on the leader")
	b.sql("SELECT * FROM saved LIMIT 1")
	t.equal(b.run("copy-out"), {"writes": "local", "backup": "101", "serialize": "1", "backup into it": "8", "blob": "8"}, "backup and serialize work on a follower, a backup into it and a blob to write are refused")
	t.ok(c[0].status()["last_index"] > before, "the leader went on")
	finish(p, b)


@t.case("commits that wait for their quorum")
def waiting():
	"""A leader without a quorum steps down, but what it has in hand makes it the only one that can be elected."""
	p = hosts.Pair(t, nodes=2)
	h, c = p.host, p.c
	h.run("commit-begin")
	c[1].sigstop()
	h.run("commit-go", "commit")
	t.equal(h.run("commit-interrupt"), {"under way": "1", "interrupt returns at once": "1", "still under way": "1"}, "sqlite3_interrupt does not break off a commit that is on its way")
	c[1].cont()
	t.equal(h.run("commit-end"), {"answer": ""}, "which succeeds when its quorum is back")
	c[1].sigstop()
	c[0].wait_status(lambda s: s["role"] != "leader", 10, "it leads no more, and its lease is over: a read has to wait")
	h.run("commit-go", "read")
	got = h.run("commit-interrupt")
	t.equal(got["interrupt returns at once"], "1", "sqlite3_interrupt beside a read that waits returns at once")
	c[1].cont()
	answer = h.run("commit-end")["answer"]
	t.equal(answer, "error 9: interrupted", "which is told of it when its wait is over")
	t.equal(h.run("commit-close"), {"rows": "99"}, "and the connection goes on")
	c.checksums_equal("the checksums of both nodes are equal")
	t.equal(c[1].stock("SELECT a FROM stopped"), ["99"], "the row is on the other node")
	p.end("in the end")
	hosts.kill_all(t)


@case("two replicated databases in one transaction")
def two_databases():
	p = hosts.Pair(t, nodes=2)
	h, c = p.host, p.c
	others = [hosts.lone_db(t, "lone%d" % i, listen=False) for i in range(2)]
	h.sql("CREATE TABLE m(a)")
	h.sql("ATTACH 'file:%s?vfs=walraft' AS other" % others[0])
	t.equal(h.sql("BEGIN; INSERT INTO m VALUES(1); SELECT count(*) FROM other.seed"), "0", "one may be read while the other is written to")
	got = h.sql("INSERT INTO other.seed VALUES(1)")
	t.ok(got.startswith("error 22273: "), "a write to both is refused while one has several voters", got)
	t.ok("not be atomic" in h.sql("SELECT walraft_error()"), "walraft_error() says why", h.sql("SELECT walraft_error()"))
	h.sql("ROLLBACK")
	t.ok(h.sql("BEGIN IMMEDIATE").startswith("error 22273: "), "BEGIN IMMEDIATE is for both, and so is refused")
	h.sql("ROLLBACK")
	t.equal(h.sql("INSERT INTO m VALUES(2); INSERT INTO other.seed VALUES(2); SELECT a FROM m; SELECT a FROM other.seed"), "2;2", "one after the other they are written to")
	c.checksums_equal("the checksums of both nodes are equal")
	t.equal(c[1].stock("SELECT a FROM m"), ["2"], "and the row is on the other node")
	p.end("in the end")
	lone = hosts.Host(t, others[0]).open()
	lone.sql("ATTACH 'file:%s?vfs=walraft' AS other" % others[1])
	t.equal(lone.sql("BEGIN; INSERT INTO main.seed VALUES(3); INSERT INTO other.seed VALUES(3); COMMIT; SELECT a FROM main.seed; SELECT a FROM other.seed"), "2;3;3", "two of one voter each are written to together")
	t.equal(lone.sql("BEGIN IMMEDIATE; DELETE FROM main.seed; DELETE FROM other.seed; ROLLBACK; SELECT count(*) FROM main.seed; SELECT count(*) FROM other.seed"), "2;1", "and rolled back together")
	lone.end("in the end")
	t.equal([stock_rows(d, "SELECT a FROM seed") for d in others], [["2", "3"], ["3"]], "the rows are there")


@case("synchronous=off and a power loss")
def power():
	if harness.SANITIZER or not UNSYNCED:
		t.skip("power loss", "unsynced.so is not built, or not beside a sanitizer's runtime")
		return
	db = hosts.lone_db(t, "power", listen=False)
	env = {"LD_PRELOAD": UNSYNCED, "UNSYNCED_ROOT": os.path.dirname(db)}
	h = hosts.Host(t, db, env=env).open()
	rows = 0
	for mode in ("off", "normal", "full"):
		h.sql("PRAGMA synchronous=" + mode)
		for _ in range(10):
			rows += h.sql("INSERT INTO seed VALUES(zeroblob(2000))") == ""
		h.kill()
		h = hosts.Host(t, db, env=env).open()
		t.equal(h.sql("SELECT count(*) FROM seed; PRAGMA integrity_check"), "%d;ok" % rows, "synchronous=%s: what was committed is there after a loss of all that was not synced" % mode)
	h.end("in the end")


t.run()
