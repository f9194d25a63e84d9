#!/usr/bin/python3
"""A leader that is cut off, or stopped, while the others elect and write.

A commit under way at the cut leaves nothing in the files; a default-level read never returns less than was acknowledged.
The controls read locally (walraft_read=stale) under the same conditions, and do see the past: the test can fail.
"""
import os
import time

import harness
import netns
from harness import Failed, IOERR_READ_GATE, Test, stock_copy, stock_rows, wait_until
from cluster import SqlError

t = Test(__file__, deadline_s=200)
no_net = netns.available()


def pending_commit(c, l, cut):
	"""Cuts the leader off and begins a COMMIT there that can't get its quorum; returns its Pending."""
	l.open("w", walraft_timeout="60000")
	l.sql("INSERT INTO kv(k) VALUES('before')")
	c.converge()
	# The read gate is passed while there is a quorum; what is cut off is the commit.
	l.sql("BEGIN IMMEDIATE", conn="w")
	l.sql("INSERT INTO kv(k) VALUES('doomed')", conn="w")
	cut()
	p = l.ask("COMMIT", conn="w")
	# On the way: in the leader's log, not committed.
	l.wait_status(lambda s: s["last_index"] > s["commit"], 10, "the commit is under way")
	return p


def check_files(c, l, what):
	copy = stock_copy(l.db, os.path.join(c.dir, "copy"))
	t.equal(stock_rows(copy, "SELECT k FROM kv; PRAGMA integrity_check"), ["before", "ok"],
	        "%s: a copy of db and -wal of the killed leader lacks the row" % what)


def rejoin(c, l, what, heal=lambda: None):
	"""The others go on, the old leader comes back: the row is nowhere."""
	others = [n for n in c.nodes if n is not l]
	n = c.leader(among=others)
	n.sql("INSERT INTO kv(k) VALUES('after')")
	heal()
	l.start()
	c.checksums_equal("%s: checksums are equal after the return of the old leader" % what)
	t.equal([m.stock("SELECT k FROM kv ORDER BY id") for m in c.nodes], [["before", "after"]] * 3,
	        "%s: the row is on no node" % what)
	c.integrity("%s: integrity_check is ok on every node" % what)


@t.case("commit, followers stopped, leader killed")
def commit_stopped():
	c = t.cluster(n=3)
	l = c.leader()
	others = c.followers()
	p = pending_commit(c, l, lambda: [n.sigstop() for n in others])
	l.open("r", pragmas=["walraft_read='stale'"])
	t.equal(l.sql("SELECT k FROM kv", conn="r"), [["before"]], "a stale read on the leader doesn't see the pending row")
	t.equal(l.stock("SELECT k FROM kv"), ["before"], "nor does a stock reader")
	t.ok(not p.done(), "the COMMIT has not returned")
	l.kill9()
	check_files(c, l, "stopped followers")
	# What the followers had received before the stop they may commit, unless the leader's log never reached them; the
	# sockets' buffers hold it here. So only agreement is asked for.
	for n in others:
		n.cont()
	new = c.leader()
	new.sql("INSERT INTO kv(k) VALUES('after')")
	l.start()
	c.checksums_equal("stopped followers: checksums are equal after the return of the old leader")
	rows = [m.stock("SELECT k FROM kv ORDER BY id") for m in c.nodes]
	t.ok(rows[0] == rows[1] == rows[2] and rows[0][0] == "before" and rows[0][-1] == "after" and len(rows[0]) <= 3,
	     "stopped followers: the row is on all nodes or on none", rows)


@t.case("commit, leader cut off, killed")
def commit_cut():
	if no_net:
		t.skip("commit, leader cut off, killed", no_net)
		return
	c = t.cluster(n=3, net=netns.Network(3))
	l = c.leader()
	p = pending_commit(c, l, lambda: c.net.cut(l.i))
	t.equal(l.stock("SELECT k FROM kv"), ["before"], "a stock reader doesn't see the pending row")
	t.ok(not p.done(), "the COMMIT has not returned")
	l.kill9()
	check_files(c, l, "cut off")
	# Healed only then: until a new leader has written, what still lies in the dead process's sockets may rightly be committed.
	rejoin(c, l, "cut off", heal=lambda: c.net.heal(l.i))


@t.case("commit, leader cut off, healed")
def commit_healed():
	if no_net:
		t.skip("commit, leader cut off, healed", no_net)
		return
	c = t.cluster(n=3, net=netns.Network(3))
	l = c.leader()
	p = pending_commit(c, l, lambda: c.net.cut(l.i))
	others = [n for n in c.nodes if n is not l]
	c.leader(among=others).sql("INSERT INTO kv(k) VALUES('after')")
	c.net.heal(l.i)
	try:
		p.result(60)
		t.ok(False, "the superseded COMMIT returns an error", "it returned OK")
	except SqlError as e:
		t.ok(e.code in (10 | 0x57 << 8, 10 | 0x58 << 8), "the superseded COMMIT returns an error of its own", repr(e))
		t.ok(e.walraft_error not in ("", None), "walraft_error() explains it", repr(e))
	c.checksums_equal("healed: checksums are equal")
	t.equal([m.stock("SELECT k FROM kv ORDER BY id") for m in c.nodes], [["before", "after"]] * 3,
	        "healed: the row is on no node")
	l.sql("SELECT * FROM kv")
	t.ok(True, "healed: the connection goes on")


def counter_cluster(**kw):
	c = t.cluster(n=3, schema="CREATE TABLE n(id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO n VALUES(1, 0);", **kw)
	c.converge()
	return c


READ = "SELECT v FROM n WHERE id = 1"


@t.case("reads on a stopped leader")
def reads_stopped():
	c = counter_cluster()
	value, old_default, old_stale, answers = 0, [], 0, 0
	for r in range(60 if t.full else 12):
		l = c.leader()
		name = "s%d" % r
		l.open(name, pragmas=["walraft_read='stale'"])
		l.open("d" + name, pragmas=["walraft_timeout=3000"])
		c.converge()
		l.sigstop()
		new = c.leader()
		for _ in range(3):
			value += 1
			new.sql("UPDATE n SET v = %d" % value)
		# The reads wait in the pipe: the old leader sees them in the moment it wakes.
		stale = l.ask(READ, conn=name)
		default = l.ask(READ, conn="d" + name)
		l.cont()
		old_stale += stale.result()["rows"][0][0] < value
		try:
			got = default.result()["rows"][0][0]
			answers += 1
			if got < value:
				old_default.append((r, got, value))
		except SqlError as e:
			t.ok(e.code == IOERR_READ_GATE, "a default-level read that fails gives the code of the read gate", repr(e))
		l.send("close", conn=name)
		l.send("close", conn="d" + name)
	t.equal(old_default, [], "%d default-level reads on a leader that slept were never old" % answers)
	t.ok(old_stale > 0, "control: stale reads were old in %d rounds" % old_stale)
	c.checksums_equal("checksums are equal")


@t.case("reads under way when the leader stops")
def reads_under_way():
	"""I11: readers never rest; the process is stopped wherever they are, for longer than its lease lasts."""
	restless(counter_cluster(), 30 if t.full else 6, lambda l: l.sigstop(), lambda l: l.cont())


@t.case("reads while the leader's disk hangs")
def reads_disk_hangs():
	"""I11: the node's own thread knows of nothing, the readers' threads go on, and find the lease over by the clock."""
	if harness.SANITIZER:
		t.skip("reads while the leader's disk hangs", "a second library is preloaded")
		return
	c = counter_cluster(env={"LD_PRELOAD": os.path.join(harness.BUILD, "test/proc/.libs/stall.so"), "STALL": "stall"})
	doomed = []

	def hang(l):
		open(os.path.join(l.dir, "stall"), "w").close()
		doomed.append(l.ask("INSERT INTO n VALUES(NULL, 0)"))

	def go_on(l):
		os.unlink(os.path.join(l.dir, "stall"))
		doomed.pop().raw()

	restless(c, 20 if t.full else 4, hang, go_on)


def restless(c, rounds, stop, go_on):
	value, old, reads, codes = 0, [], 0, set()
	for r in range(rounds):
		l = c.leader()
		c.converge()
		names = ["spin%d-%d" % (r, i) for i in range(2)]
		for name in names:
			l.open(name, pragmas=["walraft_timeout=3000"])
		spins = [l.send("spin", conn=name, sql=READ, until=value + 3, timeout_s=40) for name in names]
		# So that it is not always in the same moment of its renewal.
		end = time.monotonic() + t.rnd.random() * 0.1
		wait_until(lambda: time.monotonic() > end, 5, "a moment")
		stop(l)
		new = c.leader(among=[n for n in c.nodes if n is not l])
		acked = {}
		for _ in range(3):
			value += 1
			new.sql("UPDATE n SET v = %d WHERE id = 1" % value)
			acked[value] = time.monotonic_ns()
		go_on(l)
		for s in spins:
			a = s.result()
			reads += a["reads"]
			codes |= {int(k) for k in a["errors"]}
			old += [(r, v, began - acked[w]) for v, began in a["latest"] for w in acked if w > v and began > acked[w]]
			t.need(a["latest"] and a["latest"][-1][0] == value, "round %d: the reader sees the last value in the end" % r)
		for name in names:
			l.send("close", conn=name)
	t.equal(old, [], "of %d default-level reads without a rest none was older than what was acknowledged before it began" % reads)
	t.ok(codes <= {IOERR_READ_GATE}, "those that fail give the code of the read gate", codes)
	c.checksums_equal("checksums are equal")


LEASE_S = 0.188  # at most, from the last heartbeat that a quorum received


@t.case("the lease of a leader whose followers stop")
def lease_ends():
	"""I11: reads are served without anybody's help for as long as the lease lasts, and not for longer."""
	c = counter_cluster()
	served, late = 0, []
	for r in range(10 if t.full else 4):
		l = c.leader()
		c.converge()
		name = "lease%d" % r
		l.open(name, pragmas=["walraft_timeout=600"])
		spin = l.send("spin", conn=name, sql=READ, until=1, timeout_s=1.5)
		others = [n for n in c.nodes if n is not l]
		for n in others:
			n.sigstop()
		stopped = time.monotonic_ns()
		a = spin.result()
		began = a["latest"][-1][1] - stopped
		served += began > 0
		if began > LEASE_S * 1e9:
			late.append((r, began))
		t.ok(str(IOERR_READ_GATE) in a["errors"], "round %d: reads are refused in the end" % r, a["errors"])
		for n in others:
			n.cont()
		l.send("close", conn=name)
		c.leader()
	t.equal(late, [], "no read that began later than the lease can last was served")
	t.ok(served > 0, "in %d rounds reads were served although nobody could answer" % served)


@t.case("a follower that was cut off returns")
def follower_returns():
	"""Pre-votes: its timers have run out many times, and nobody is disturbed."""
	if no_net:
		t.skip("a follower that was cut off returns", no_net)
		return
	c = counter_cluster(net=netns.Network(3))
	value = 0
	for r in range(6 if t.full else 2):
		l = c.leader()
		f = [n for n in c.nodes if n is not l][r % 2]
		before = l.status()
		c.net.cut(f.i)
		f.wait_status(lambda s: not s["leader_id"], 20, "it misses its leader")
		end = time.monotonic() + 2  # several election timeouts
		while time.monotonic() < end:
			value += 1
			l.sql("UPDATE n SET v = %d WHERE id = 1" % value)
		c.net.heal(f.i)
		wait_until(lambda: f.one(READ) == value, 30, "it has caught up")
		after = c.converge()
		t.equal({s["term"] for s in after.values()}, {before["term"]}, "round %d: the term is what it was" % r)
		t.equal({s["leader_id"] for s in after.values()}, {before["leader_id"]}, "round %d: the leader is who it was" % r)
	c.checksums_equal("checksums are equal after the return of a follower")


@t.case("reads on a leader that is cut off")
def reads_cut():
	if no_net:
		t.skip("reads on a leader that is cut off", no_net)
		return
	c = counter_cluster(net=netns.Network(3))
	value = 0
	for r in range(10 if t.full else 2):
		l = c.leader()
		l.open("s%d" % r, pragmas=["walraft_read='stale'"])
		l.open("d%d" % r, pragmas=["walraft_timeout=700"])
		c.net.cut(l.i)
		others = [n for n in c.nodes if n is not l]
		# Reads all the time, from before the election on.
		bad, n_err, new = [], 0, None
		end = time.monotonic() + 30
		while time.monotonic() < end:
			p = l.ask(READ, conn="d%d" % r)
			floor = value
			if new is None:
				try:
					new = c.leader(0.2, among=others)
				except Failed:
					pass
			if new is not None and value < (r + 1) * 4:
				value += 1
				new.sql("UPDATE n SET v = %d" % value)
				end = time.monotonic() + 2
			try:
				got = p.result()["rows"][0][0]
				if got < floor:
					bad.append((got, floor))
			except SqlError as e:
				n_err += 1
				if e.code != IOERR_READ_GATE:
					bad.append(repr(e))
		t.need(new is not None, "round %d: the others elect a leader" % r)
		t.equal(bad, [], "round %d: no default-level read on the cut-off leader was old (%d refused)" % (r, n_err))
		t.ok(n_err > 0, "round %d: without its quorum it refuses them" % r)
		old = l.one(READ, conn="s%d" % r)
		t.ok(old < value, "round %d: control: a stale read there is old" % r, "%d, acknowledged %d" % (old, value))
		e = l.error("INSERT INTO n VALUES(NULL, 0)", conn="d%d" % r)
		t.ok(e is not None, "round %d: a write there fails" % r)
		c.net.heal(l.i)
		wait_until(lambda: l.one(READ, conn="d%d" % r) == value, 30, "the healed node reads the latest value")
		c.checksums_equal("round %d: checksums are equal after healing" % r)


t.run()
