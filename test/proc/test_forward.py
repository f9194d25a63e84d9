#!/usr/bin/python3
"""Ordinary writes on nodes that do not lead: what they can do, what becomes of them when nodes die or are stopped, and that all writers of the cluster get their turns."""
import os
import time

import harness
import netns
from harness import IOERR_FENCED, READONLY_NOT_LEADER, Test, wait_until

t = Test(__file__, deadline_s=240)
no_net = netns.available()
BUSY, BUSY_SNAPSHOT = 5, 5 | 2 << 8
SLACK_S = 0.6  # for a machine that is busy with other tests
CLEAN = {harness.IOERR_NOT_COMMITTED, IOERR_FENCED, READONLY_NOT_LEADER, BUSY}


def rows(node, conn="main"):
	return [r[0] for r in node.sql("SELECT k FROM kv ORDER BY id", conn=conn)]


def same_everywhere(c, what=""):
	c.checksums_equal(what + "checksums are equal")
	c.integrity(what + "integrity_check is ok on every node")


def stays_at_home(l, f, g):
	f.open("uri", walraft_write="local")
	e = f.error("INSERT INTO kv(k) VALUES('no')", conn="uri")
	t.ok(e is not None and e.code == READONLY_NOT_LEADER and l.url in e.walraft_error, "walraft_write=local: refused, and the leader is named", e and e.walraft_error)
	f.sql("PRAGMA walraft_write='forward'", conn="uri")
	f.sql("INSERT INTO kv(k) VALUES('yes')", conn="uri")
	l.open("uri", walraft_write="local")
	l.sql("INSERT INTO kv(k) VALUES('leader')", conn="uri")
	t.equal(rows(g)[-2:], ["yes", "leader"], "forward, and local on the leader, write")
	e = None
	try:
		f.open("wrong", walraft_write="sometimes")
	except Exception as x:
		e = x
	t.ok(e is not None and "walraft_write" in str(e), "another word in the URI is an error", repr(e))


def waits_for_its_turn(l, f):
	f.send("open", conn="second", pragmas=[], params={}, busy_s=1).result()
	l.sql("BEGIN IMMEDIATE")
	t0 = time.monotonic()
	e = f.error("INSERT INTO kv(k) VALUES('no')", conn="second")
	s = time.monotonic() - t0
	l.sql("ROLLBACK")
	t.ok(e is not None and e.code == BUSY and 0.8 < s < 1.5 + SLACK_S, "with busy_timeout 1000 it waits for a second", (repr(e), s))
	f.sql("INSERT INTO kv(k) VALUES('second')", conn="second")


def learner_writes(c):
	n = c[3]
	c.join(3, extra=["--learner"])
	n.worker()
	n.sql("INSERT INTO kv(k) VALUES('learner')")
	n.sql("BEGIN IMMEDIATE")
	n.sql("INSERT INTO kv(k) VALUES('learner again')")
	n.sql("COMMIT")
	t.equal([rows(m)[-2:] for m in c.nodes], [["learner", "learner again"]] * 4, "a learner writes")


@t.case("statements")
def statements():
	c = t.cluster(n=4, kind="worker", create=False)
	c.create(3)
	l, (f, g) = c.leader(), c.followers()
	f.sql("INSERT INTO kv(k) VALUES('auto')")
	f.sql("BEGIN IMMEDIATE")
	f.sql("INSERT INTO kv(k) SELECT 'after ' || count(*) FROM kv")
	e = g.send("open", conn="hasty", pragmas=[], params={}, busy_s=0).result() and g.error("INSERT INTO kv(k) VALUES('no')", conn="hasty")
	t.ok(e is not None and e.code == BUSY, "while it thinks, a writer elsewhere without patience gets SQLITE_BUSY", repr(e))
	patient = l.ask("INSERT INTO kv(k) VALUES('patient')")
	t.equal([rows(g), patient.done()], [["auto"], False], "nobody sees what it wrote, and a patient writer waits")
	f.sql("COMMIT")
	patient.result()
	t.equal(rows(g), ["auto", "after 1", "patient"], "then both are there")

	f.sql("BEGIN")
	f.sql("SELECT count(*) FROM kv")
	g.sql("INSERT INTO kv(k) VALUES('between')")
	e = f.error("INSERT INTO kv(k) VALUES('too late')")
	t.ok(e is not None and e.code == BUSY_SNAPSHOT and e.in_transaction, "a deferred transaction that read before another's commit gets BUSY_SNAPSHOT", repr(e))
	t.equal(f.one("SELECT count(*) FROM kv"), 3, "and goes on reading")
	f.sql("ROLLBACK")
	f.sql("BEGIN")
	f.sql("SELECT count(*) FROM kv")
	f.sql("INSERT INTO kv(k) VALUES('deferred')")
	f.sql("COMMIT")
	t.equal(rows(l)[-2:], ["between", "deferred"], "one that nobody disturbed commits")

	for s in ("BEGIN", "INSERT INTO kv(k) VALUES('kept')", "SAVEPOINT a", "INSERT INTO kv(k, pad) VALUES('gone', hex(randomblob(20000)))", "ROLLBACK TO a", "RELEASE a", "COMMIT",
	          "BEGIN IMMEDIATE", "INSERT INTO kv(k) VALUES('rolled back')", "ROLLBACK",
	          "CREATE TABLE d(x PRIMARY KEY, y)", "INSERT INTO d VALUES(1, 2), (3, 4)", "ALTER TABLE d ADD COLUMN z", "CREATE INDEX d_y ON d(y)", "DROP INDEX d_y", "PRAGMA user_version=7"):
		f.sql(s)
	t.equal(rows(g)[-2:], ["deferred", "kept"], "savepoints")
	t.equal([n.sql("SELECT *, (SELECT user_version FROM pragma_user_version) FROM d") for n in (l, f, g)], [[[1, 2, None, 7], [3, 4, None, 7]]] * 3, "schema changes")
	f.sql("CREATE TEMP TABLE own(a)")
	before = l.status()["last_index"]
	f.sql("INSERT INTO own SELECT id FROM kv")
	t.ok(l.status()["last_index"] == before and f.one("SELECT count(*) FROM own") == len(rows(g)), "a write to a temporary table is none")
	f.sql("ATTACH '%s' AS plain" % os.path.join(f.dir, "plain.db"))
	f.sql("CREATE TABLE plain.p AS SELECT k FROM kv")
	f.sql("DETACH plain")

	f.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) INSERT INTO kv(k, pad) SELECT 'big' || i, hex(randomblob(1000)) FROM n")
	f.sql("BEGIN")
	f.sql("UPDATE kv SET pad = hex(randomblob(1000)) WHERE k LIKE 'big%' AND id % 2")
	f.sql("DELETE FROM kv WHERE k LIKE 'big%' AND id % 3 = 0")
	f.sql("COMMIT")
	want = f.sql("SELECT count(*), sum(length(pad)) FROM kv")
	t.equal([n.sql("SELECT count(*), sum(length(pad)) FROM kv") for n in (l, f, g)], [want] * 3, "transactions of several chunks")
	f.sql("DELETE FROM kv WHERE k LIKE 'big%'")
	f.sql("VACUUM")
	f.sql("INSERT INTO kv(k) VALUES('after VACUUM')")
	t.equal(rows(g)[-1], "after VACUUM", "VACUUM")
	stays_at_home(l, f, g)
	waits_for_its_turn(l, f)
	learner_writes(c)
	same_everywhere(c)


def turns(c):
	"""Writers without rest on all three nodes."""
	seconds, go = (60 if t.full else 4), os.path.join(c.dir, "go")
	c.leader().sql("CREATE TABLE n(v)")
	c.leader().sql("INSERT INTO n VALUES(0)")
	races = [n.race(8, seconds, ["BEGIN IMMEDIATE", "UPDATE n SET v = v + 1", "COMMIT"] if i else ["UPDATE n SET v = v + 1"], go, busy_s=60) for i, n in enumerate(c.nodes)]
	open(go, "w").close()
	done, errors = [], []
	for p in races:
		a = p.result(seconds + 90)
		done += a["done"]
		errors.append(a["errors"])
	mean = sum(done) / len(done)
	t.ok(not any(errors), "24 writers on three nodes for %d s, without an error" % seconds, errors)
	t.equal(c.leader().one("SELECT v FROM n"), sum(done), "the counter is what they were told")
	t.ok(min(done) >= mean / 2, "the slowest gets at least half the mean", done)
	t.say("%d a second; least %d, mean %.0f, most %d; by node %s" % (sum(done) / seconds, min(done), mean, max(done), [sum(done[i:i + 8]) for i in (0, 8, 16)]))


@t.case("no SQLITE_BUSY without contention, turns for all with it")
def quiet():
	c = t.cluster(n=3, kind="worker")
	l, (f, g) = c.leader(), c.followers()
	for level in ("linearizable", "stale"):
		f.send("open", conn=level, pragmas=["walraft_read='%s'" % level], params={}, busy_s=0).result()
		t0 = time.monotonic()
		e = f.send("exec", conn=level, sql="INSERT INTO kv(k) VALUES(?)", many=[["%s%d" % (level, i)] for i in range(500)]).raw()
		t.ok(e["ok"], "500 autocommits at level %s with busy_timeout 0" % level, e)
		t.say("%.2f ms each" % ((time.monotonic() - t0) * 2))
	for n in c.nodes:
		n.send("open", conn="turns", pragmas=[], params={}, busy_s=0).result()
	failed = []
	for i in range(60):
		e = c[i % 3].error("INSERT INTO kv(k) VALUES('turn%d')" % i, conn="turns")
		if e is not None:
			failed.append((i, repr(e)))
	t.ok(not failed, "nodes that write in turns, each right after the other, with busy_timeout 0", failed)
	t.equal(len(rows(g)), 1060, "all are there")
	turns(c)
	same_everywhere(c)


def time_to_lock(node, deadline_s=10):
	"""Seconds until the node has the write lock; it gives it back."""
	t0 = time.monotonic()
	wait_until(lambda: node.error("BEGIN IMMEDIATE", conn="next") is None, deadline_s, "the lock is free", every_s=0.01)
	s = time.monotonic() - t0
	node.sql("INSERT INTO kv(k) SELECT 'next' || count(*) FROM kv", conn="next")
	node.sql("COMMIT", conn="next")
	return s


@t.case("holders that die, are stopped, or lose their leader")
def faults():
	c = t.cluster(n=3, kind="worker")
	l, (f, g) = c.leader(), c.followers()
	for n in (l, g):
		n.open("next")
	f.sql("BEGIN IMMEDIATE")
	f.sql("INSERT INTO kv(k) VALUES('dies')")
	f.kill9()
	s = time_to_lock(g)
	t.ok(s < 1.0 + SLACK_S, "the lock of a holder that was killed is free within a second", "%.2f s" % s)
	f.worker()
	f.open("a")
	f.sql("BEGIN IMMEDIATE", conn="a")
	f.sql("INSERT INTO kv(k) VALUES('stopped')", conn="a")
	f.sigstop()
	s = time_to_lock(l)
	t.ok(s < 1.0 + SLACK_S, "so is that of one that is stopped", "%.2f s" % s)
	f.cont()
	e = f.error("COMMIT", conn="a")
	t.ok(e is not None and e.code == IOERR_FENCED and not e.in_transaction, "whose late commit is refused", repr(e))
	f.sql("INSERT INTO kv(k) VALUES('again')", conn="a")
	t.equal(rows(f, "a"), ["next0", "next1", "again"], "and which then goes on")
	f.sql("BEGIN IMMEDIATE", conn="a")
	f.sql("INSERT INTO kv(k) VALUES('leaderless')", conn="a")
	l.kill9()
	e = f.error("COMMIT", conn="a", timeout_s=30)
	t.ok(e is not None and e.code in CLEAN | {harness.IOERR_UNKNOWN}, "a commit whose leader is gone fails", repr(e))
	new = c.leader()
	f.sql("PRAGMA busy_timeout=10000", conn="a")
	f.sql("INSERT INTO kv(k) VALUES('new leader')", conn="a")
	got = rows(new)
	t.ok(got[-1] == "new leader" and (e is None or e.code == harness.IOERR_UNKNOWN or "leaderless" not in got), "and nothing of it is there when it said so", (got, repr(e)))
	l.worker()
	same_everywhere(c)


@t.case("holders that are cut off")
def cut_off():
	if no_net:
		t.skip("holders that are cut off", no_net)
		return
	c = t.cluster(n=3, kind="worker", net=netns.Network(3))
	l, (f, g) = c.leader(), c.followers()
	l.open("next")
	f.open("a", walraft_timeout="2000")
	f.sql("BEGIN IMMEDIATE", conn="a")
	f.sql("INSERT INTO kv(k) VALUES('cut off')", conn="a")
	c.net.cut(f.i)
	s = time_to_lock(l)
	t.ok(s < 1.0 + SLACK_S, "the lock of a holder that is cut off is free within a second", "%.2f s" % s)
	p = f.ask("COMMIT", conn="a")
	a = p.raw(20)
	t.ok(not a["ok"] and a["code"] in (IOERR_FENCED, harness.IOERR_UNKNOWN, harness.IOERR_NOT_COMMITTED), "its commit fails", a)
	e = f.error("INSERT INTO kv(k) VALUES('still cut off')", conn="a")
	t.ok(e is not None and e.code in (BUSY, READONLY_NOT_LEADER, harness.IOERR_READ_GATE), "and so does what it tries then", repr(e))
	c.net.heal(f.i)
	f.sql("PRAGMA busy_timeout=10000", conn="a")
	wait_until(lambda: f.error("INSERT INTO kv(k) VALUES('back')", conn="a") is None, 15, "it writes again")
	t.equal(rows(c.leader()), ["next0", "back"], "nothing of it is there, but what it wrote afterwards")
	# The commit is on its way when the leader is cut off from everybody: another one leads, and its log decides.
	l = c.leader()
	f = c.followers()[0]
	f.open("b", walraft_timeout="8000")
	f.sql("BEGIN IMMEDIATE", conn="b")
	f.sql("INSERT INTO kv(k) VALUES('in flight')", conn="b")
	c.net.cut(l.i)
	a = f.ask("COMMIT", conn="b").raw(20)
	t.ok(not a["ok"] and a["code"] in (IOERR_FENCED, harness.IOERR_NOT_COMMITTED), "a commit that did not reach its leader before another one led is not committed", a)
	c.net.heal(l.i)
	c.leader()
	t.ok("in flight" not in rows(f, "b"), "and is not there")
	same_everywhere(c)


@t.case("leaders die under forwarded writes")
def leaders_die():
	c = t.cluster(n=3, kind="worker")
	for n in c.nodes:
		n.start_load(threads=3, pause_ms=1)
	for r in range(8 if t.full else 2):
		l = c.leader()
		c.wait_acked(60)
		(l.kill9 if r % 2 == 0 else l.sigstop)()
		c.leader(among=[n for n in c.nodes if n is not l])
		c.wait_acked(30)
		if l.stopped:
			l.cont()
		else:
			l.worker().start_load(threads=3, pause_ms=1)
		c.leader()
	for n in c.nodes:
		n.stop_load()
	c.verify_load()


t.run()
