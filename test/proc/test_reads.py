#!/usr/bin/python3
"""Reads at each level on leader and follower: what they see and cost, what they are told when they cannot be answered, and in what time; positions, waiting
for them; the table of members; schemas and long transactions on followers."""
import collections
import json
import os
import re
import shutil
import subprocess
import time

import harness
import load
from harness import IOERR_READ_GATE, Test, wait_until

t = Test(__file__)
LEVELS = ["linearizable", "lease", "bounded:500", "stale"]
STALL = os.path.join(harness.BUILD, "test/proc/.libs/stall.so")


pool = {}


def case(name, nodes, faults=False):
	"""A case on a cluster of so many nodes that others have used, with no rows in kv. Its nodes can be held up by a file in a node's directory."""
	def deco(fn):
		def run():
			if faults and harness.SANITIZER:
				t.skip(name, "a second library is preloaded")
				return
			c = pool.pop(nodes, None)
			if c is None:
				c = t.cluster(n=nodes, env={} if harness.SANITIZER else {"LD_PRELOAD": STALL, "STALL": "stall", "HOLD": "hold", "CUT": "cut"})
			else:
				t.clusters.append(c)
			c.leader().sql("DELETE FROM kv")
			c.converge()
			fn(c, c.leader(), *c.followers())
			t.clusters.remove(c)  # one that a case failed on is not used again
			pool[nodes] = c
		t.case(name)(run)
		return run
	return deco


def flag(node, name, text=""):
	with open(os.path.join(node.dir, name), "w") as f:
		f.write(text)


def unflag(node, name):
	os.unlink(os.path.join(node.dir, name))


def cut(c, node):
	"""It says nothing to anybody."""
	flag(node, "cut", "\n".join(n.url.rsplit(":", 1)[1] for n in c.nodes if n is not node))


def lease_read(n, sql, conn):
	"""A group that was at rest has no lease: it gets one as soon as somebody asks."""
	return wait_until(lambda: n.sql(sql, conn=conn), 5, "a read by the lease on node %d" % n.i)


def refused(n, name, conn, sql="SELECT count(*) FROM kv", within_ms=(0, 10000), words=()):
	"""Points: the read fails with its code, in that time, and says why."""
	began = time.monotonic()
	e = n.error(sql, conn=conn)
	took = (time.monotonic() - began) * 1000
	t.ok(e is not None and e.code == IOERR_READ_GATE, name + ": fails with the code of reads", repr(e))
	t.ok(within_ms[0] <= took <= within_ms[1], name + ": after %.0f ms" % took, "not within %s" % (within_ms,))
	text = e.walraft_error if e else ""
	t.ok(all(w in text for w in words), name + ": walraft_error() says %s" % ", ".join(words), text)
	return text


@case("levels are set and told", 2)
def setting(c, l, f):
	for text in LEVELS + ["bounded:1", "bounded:86400000"]:
		t.equal([l.one("PRAGMA walraft_read='%s'" % text), l.one("PRAGMA walraft_read"), l.one("SELECT walraft_read()")], [text] * 3, "%s by pragma" % text)
	t.equal([l.one("SELECT walraft_read('%s')" % v) for v in ("LEASE", "Bounded:70", "Stale")], ["lease", "bounded:70", "stale"], "by function, in any case of letters")
	for bad in ("", "bounded", "bounded:", "bounded:x", "bounded:0", "bounded:-5", "bounded:5s", "bounded: 5", "bounded:86400001", "bounded:99999999999999999999", "strong", "stale ", "lease:5"):
		for sql in ("PRAGMA walraft_read='%s'" % bad, "SELECT walraft_read('%s')" % bad):
			e = l.error(sql)
			t.ok(e is not None and all(w in e.text for w in ("linearizable", "lease", "bounded:<ms>", "stale")), "%s lists what is possible" % sql, repr(e))
	t.ok(l.error("SELECT walraft_read(NULL)") is not None, "NULL is no level")
	t.equal(l.one("PRAGMA walraft_read"), "stale", "after all that the level is what it was")
	l.open("uri", walraft_read="bounded:250")
	t.equal(l.one("SELECT walraft_read()", conn="uri"), "bounded:250", "by the URI")
	e = None
	try:
		l.open("wrong", walraft_read="bounded")
	except Exception as x:
		e = x
	t.ok(e is not None and "bounded:<ms>" in str(e), "a wrong one in the URI lists them too", repr(e))
	plain = l.one("SELECT walraft_read()")
	l.open("plain", vfs="", touch=False)
	t.equal([plain, l.one("SELECT walraft_read()", conn="plain")], ["stale", None], "NULL where the database is not replicated")


@case("each level, on leader and follower", 3)
def each_level(c, l, *fs):
	for n in c.nodes:
		for level in LEVELS:
			n.open(level, pragmas=["walraft_read='%s'" % level])
	lease_read(l, "SELECT count(*) FROM kv", "lease")
	wrong = []
	for i in range(15):
		l.sql("INSERT INTO kv(k) VALUES('r%d')" % i)
		for n in c.nodes:
			for level in ("linearizable", "lease"):
				if n.one("SELECT count(*) FROM kv", conn=level) != i + 1:
					wrong.append((n.i, level, i))
	t.equal(wrong, [], "linearizable and lease see each row right after its commit, on all nodes")
	at = l.one("SELECT walraft_position()")
	for f in fs:
		f.sql("SELECT walraft_wait('%s')" % at)
	t.equal([f.one("SELECT count(*) FROM kv", conn="stale") for f in fs], [15, 15], "stale reads see what was waited for")

	# What they cost.
	def cost(n, level, reads=200):
		before = n.status()["reads"]
		for _ in range(reads):
			n.sql("SELECT count(*) FROM kv", conn=level)
		after = n.status()["reads"]
		return after["asked"] - before["asked"]
	for n in c.nodes:
		t.equal(cost(n, "stale"), 0, "200 stale reads on node %d ask nobody" % n.i)
	lease_read(l, "SELECT count(*) FROM kv", "lease")
	t.equal(cost(l, "lease"), 0, "nor 200 by the lease on the leader")
	began = time.monotonic()
	asked = cost(fs[0], "bounded:500")
	span = time.monotonic() - began
	t.ok(asked <= 3 + span / 0.04, "200 bounded ones on a follower asked %d times in %.2f s" % (asked, span))
	t.equal(cost(fs[0], "linearizable"), 200, "200 linearizable ones, one after the other, ask each time")

	# What comes in while a read begins makes SQLite look again; that is no new read.
	l.start_load(threads=3)
	c.wait_acked(20)
	t.equal(cost(fs[0], "linearizable", 300), 300, "300 linearizable ones beside writers on the leader ask 300 times")
	l.stop_load()
	rows = l.one("SELECT count(*) FROM kv")

	# Bounded: what was acknowledged longer ago than that is there.
	late = []
	fs[0].open("b60", pragmas=["walraft_read='bounded:60'"])
	for i in range(12):
		l.sql("INSERT INTO kv(k) VALUES('b%d')" % i)
		acked = time.monotonic()
		while True:
			begin = time.monotonic()
			seen = fs[0].one("SELECT count(*) FROM kv", conn="b60")
			if begin - acked > 0.06:
				break
		if seen != rows + i + 1:
			late.append((i, seen))
	t.equal(late, [], "a bounded read sees all that was acknowledged longer ago than its bound")


@case("a thousand readers share a round", 2)
def crowd(c, l, f):
	l.sql("INSERT INTO kv(k) VALUES('a')")
	c.converge()
	go = os.path.join(c.dir, "go")
	n = 1000 if not harness.SANITIZER else 100
	p = f.send("crowd", threads=n, rounds=1, sql="SELECT count(*) FROM kv", go=go, pragmas=["walraft_read='linearizable'", "walraft_timeout=20000"])
	wait_until(lambda: os.path.exists(go + ".ready"), 60, "all connections are open")
	before = f.status()["reads"]
	# With the leader stopped nobody is answered before all wait. Nobody else can be elected: there are two voters.
	l.sigstop()
	open(go, "w").close()
	wait_until(lambda: f.status()["reads"]["asked"] - before["asked"] >= n, 30, "all readers have asked", every_s=0.002)
	began = time.monotonic()
	l.cont()
	a = p.result(60)
	after = f.status()["reads"]
	took = time.monotonic() - began
	t.equal([a["reads"], a["seen"], a["n_errors"]], [n, [1], 0], "%d readers see the row, none an error" % n)
	asked, requests = after["asked"] - before["asked"], after["requests"] - before["requests"]
	t.ok(requests <= 10 + asked / 50, "%d waiting reads made %d questions to the leader; the last was answered %.0f ms after it went on" % (asked, requests, took * 1000))
	c.leader()


def calls_of_reads(trace, go):
	"""Per system call, how often the thread made it between its two marks; without what is Python's."""
	inside, count = None, collections.Counter()
	with open(trace, errors="replace") as f:
		for line in f:
			tid, _, call = line.partition(" ")
			call = call.strip()
			if go + ".from" in call:
				inside = tid
			elif go + ".to" in call:
				inside = None
			elif tid == inside and re.match(r"[a-z0-9_]+\(", call):
				count[call.split("(")[0]] += 1
	return {k: v for k, v in count.items() if k not in ("futex", "mmap", "munmap", "mprotect", "madvise", "brk", "sched_yield", "clock_nanosleep", "restart_syscall", "rt_sigprocmask")}


@case("system calls of reads", 3)
def calls(c, l, *fs):
	strace = shutil.which("strace")
	trace, reads = os.path.join(c.dir, "trace"), 300
	if not strace:
		t.skip("reads by the lease cost no system call more than SQLite's", "no strace")
		return
	l.sql("INSERT INTO kv(k, pad) VALUES('a', 'x')")
	c.converge()
	plain = os.path.join(c.dir, "data", "plain.db")
	harness.stock(plain, "PRAGMA journal_mode=wal; " + load.SCHEMA + "INSERT INTO kv(k, pad) VALUES('a', 'x')")

	def count(node, level, path=None):
		go = os.path.join(c.dir, "go-%s-%d-%s" % (level.split(":")[0], node.i, "plain" if path else ""))
		p = node.send("crowd", threads=1, rounds=reads, warm=True, sql="SELECT count(*) FROM kv WHERE id = 1", go=go, path=path, params={"vfs": ""} if path else {},
		              pragmas=["walraft_read='%s'" % level])
		wait_until(lambda: os.path.exists(go + ".ready"), 20, "the connection is open")
		s = subprocess.Popen([strace, "-f", "-qq", "-s", "400", "-o", trace, "-p", str(node.pid)], stderr=subprocess.PIPE, text=True, preexec_fn=harness.die_with_parent)
		try:
			# It is attached once it has written something, or has ended because it may not.
			wait_until(lambda: s.poll() is not None or (os.path.exists(trace) and os.path.getsize(trace)), 20, "strace is attached")
			if s.poll() is not None:
				return s.stderr.read()
			open(go, "w").close()
			a = p.result(60)
			t.equal([a["n_errors"], a["seen"]], [0, [1]], "%d reads at level %s" % (reads, level))
		finally:
			open(go, "w").close()
			if s.poll() is None:
				s.terminate()
				s.wait()
		got = calls_of_reads(trace, go)
		os.unlink(trace)
		return got
	want = count(l, "stale", plain)
	if isinstance(want, str):
		t.skip("reads by the lease cost no system call more than SQLite's", "strace: " + want.strip())
		return
	t.ok(sum(want.values()) >= reads, "stock SQLite's: %s" % want)
	lease_read(l, "SELECT count(*) FROM kv", "main")
	for n, level in ((l, "linearizable"), (l, "lease"), (l, "bounded:60000"), (l, "stale"), (fs[0], "bounded:60000"), (fs[0], "stale")):
		got = count(n, level)
		t.ok(not isinstance(got, str) and got.get("fcntl") == want["fcntl"] and all(v <= want.get(k, 0) for k, v in got.items()),
		     "level %s on the %s makes no more" % (level, "leader" if n is l else "follower"), "got:  %s\nwant: %s" % (got, want))


@case("a follower that is cut off", 3, faults=True)
def follower_cut(c, l, f, other):
	l.sql("INSERT INTO kv(k) VALUES('a')")
	c.converge()
	for level in LEVELS + ["bounded:60000", "bounded:20"]:
		f.open(level, pragmas=["walraft_read='%s'" % level, "walraft_timeout=700"])
		f.sql("SELECT count(*) FROM kv", conn=level if level != "lease" else "linearizable")
	wait_until(lambda: {r[0] for r in f.sql("SELECT role FROM walraft_members WHERE applied IS NOT NULL")} == {"leader", "follower"}, 10, "the follower knows how far all are")
	cut(c, f)
	text = refused(f, "linearizable on a follower that cannot ask", "linearizable", within_ms=(650, 1900), words=["cut off", "better try tcp://"])
	t.ok(l.url in text.split("better try")[1] or other.url in text.split("better try")[1], "it names another node", text)
	t.equal([f.one("SELECT count(*) FROM kv", conn=v) for v in ("stale", "bounded:60000")], [1, 1], "stale and loosely bounded reads go on")
	refused(f, "bounded tightly", "bounded:20", within_ms=(650, 1900), words=["cut off"])
	unflag(f, "cut")
	wait_until(lambda: f.one("SELECT count(*) FROM kv", conn="linearizable") == 1, 20, "it reads again once it is back")
	t.ok(True, "it reads again once it is back")

	# A bound that is over is noticed, however the wait began.
	f.open("b900", pragmas=["walraft_read='bounded:900'", "walraft_timeout=100"])
	f.sql("SELECT count(*) FROM kv", conn="b900")
	cut(c, f)
	l = c.leader(among=[n for n in c.nodes if n is not f])
	began, old = time.monotonic(), 0
	l.sql("INSERT INTO kv(k) VALUES('b')")
	acked = time.monotonic()

	def over():
		nonlocal old
		begin = time.monotonic()
		e = f.error("SELECT count(*) FROM kv", conn="b900")
		if e is None:
			old = max(old, begin - acked)
		return e
	e = wait_until(over, 10, "the bounded read fails")
	t.ok(e.code == IOERR_READ_GATE, "a bounded read fails once what the node knows is too old", repr(e))
	seen = f.one("SELECT count(*) FROM kv", conn="stale")
	t.ok(seen == 2 or old <= 0.9, "and none was answered with less than it promised (the latest %.2f s after the commit that it lacks)" % old)
	t.say("%.2f s until then" % (time.monotonic() - began))
	unflag(f, "cut")
	c.converge(60)


@case("a leader without its majority", 3)
def leader_alone(c, l, *fs):
	l.sql("INSERT INTO kv(k) VALUES('a')")
	c.converge()
	for level in LEVELS + ["bounded:60000"]:
		l.open(level, pragmas=["walraft_read='%s'" % level, "walraft_timeout=600"])
	lease_read(l, "SELECT count(*) FROM kv", "lease")
	t.equal(l.one("SELECT count(*) FROM kv", conn="bounded:60000"), 1, "a bounded read")
	for f in fs:
		f.sigstop()
	wait_until(lambda: l.error("SELECT count(*) FROM kv", conn="lease"), 5, "the lease is over", every_s=0.001)
	refused(l, "by the lease, without one", "lease", within_ms=(0, 300), words=["lease"])
	refused(l, "linearizable, without a majority", "linearizable", within_ms=(550, 1800), words=["majority"])
	t.equal([l.one("SELECT count(*) FROM kv", conn=v) for v in ("stale", "bounded:60000")], [1, 1], "stale and loosely bounded reads go on")
	wait_until(lambda: l.status()["role"] != "leader", 10, "it has stepped down")
	refused(l, "by the lease, where no leader is known", "lease", within_ms=(0, 300), words=["no leader is known"])
	refused(l, "linearizable, where no leader is known", "linearizable", within_ms=(550, 1800), words=["no leader is known"])
	t.equal(l.one("SELECT count(*) FROM kv", conn="bounded:60000"), 1, "what it knew as the leader counts still")
	for f in fs:
		f.cont()
	c.leader()
	t.equal(l.one("SELECT count(*) FROM kv", conn="linearizable"), 1, "and again, with a leader")


@case("a node whose disk hangs", 3, faults=True)
def disk_hangs(c, l, f, other):
	f.open("short", pragmas=["walraft_timeout=600"])
	f.sql("SELECT count(*) FROM kv", conn="short")
	flag(f, "stall")
	l.sql("INSERT INTO kv(k) VALUES('a')")
	refused(f, "linearizable on a follower whose disk hangs", "short", within_ms=(550, 1900), words=["held up", "disk", "better try tcp://"])
	unflag(f, "stall")
	t.equal(f.one("SELECT count(*) FROM kv"), 1, "it reads on when the disk does")


@case("a follower that lags", 3, faults=True)
def lagging(c, l, f, other):
	l.sql("INSERT INTO kv(k) VALUES('a')")
	c.converge()
	for level in LEVELS + ["bounded:60000"]:
		f.open(level, pragmas=["walraft_read='%s'" % level, "walraft_timeout=600"])
		f.sql("SELECT count(*) FROM kv", conn=level)
	flag(f, "hold")
	for i in range(30):
		l.sql("INSERT INTO kv(k) VALUES('h%d')" % i)
	at = l.one("SELECT walraft_position()")
	text = refused(f, "linearizable on a follower that does not publish", "linearizable", within_ms=(550, 1800), words=["lags", "better try tcp://"])
	t.ok("lacks" in text, "it says by how much", text)
	refused(f, "lease, there", "lease", within_ms=(550, 1800), words=["lags"])
	t.equal([f.one("SELECT count(*) FROM kv", conn=v) for v in ("stale", "bounded:60000")], [1, 1], "stale and loosely bounded reads go on")
	e = f.error("SELECT walraft_wait('%s', 300)" % at, conn="stale")
	t.ok(e is not None and e.code == IOERR_READ_GATE and "lags by" in e.text and "better try tcp://" in e.text, "so does walraft_wait", repr(e))
	rows = wait_until(lambda: [r for r in other.sql("SELECT lag, lag_ms, role FROM walraft_members WHERE address='%s'" % f.url) if r[0] and r[0] >= 29 and r[1] > 300], 10, "others know of it")
	t.ok(rows[0][2] == "follower", "others see the lag in walraft_members: %s" % rows)
	mine = f.sql("SELECT lag, lag_ms FROM walraft_members WHERE self", conn="stale")
	t.ok(mine[0][0] >= 29 and mine[0][1] > 300, "it sees its own", mine)
	began = time.monotonic()
	p = f.ask("SELECT walraft_wait('%s', 20000)" % at, conn="stale")
	unflag(f, "hold")
	t.ok(p.result(30)["rows"][0][0] >= at, "walraft_wait returns once it has caught up (%.0f ms)" % ((time.monotonic() - began) * 1000))
	t.equal(f.one("SELECT count(*) FROM kv", conn="stale"), 31, "and a stale read sees all")
	wait_until(lambda: other.sql("SELECT lag, lag_ms FROM walraft_members WHERE address='%s'" % f.url) == [[0, 0]], 10, "others know that")
	t.ok(True, "others see that it has caught up")


@case("positions", 3)
def positions(c, l, *fs):
	for n in c.nodes:
		n.open("s", pragmas=["walraft_read='stale'", "walraft_timeout=400"])
	t.equal([n.one("SELECT walraft_position()", conn="s") for n in c.nodes], [None] * 3, "NULL before a connection's first commit")
	t.equal(fs[0].one("SELECT walraft_wait(walraft_position())", conn="s"), None, "waiting for that is no wait")
	last, missed = "", []
	for i in range(60):
		l.sql("INSERT INTO kv(k) VALUES('p%d')" % i, conn="s")
		at = l.one("SELECT walraft_position()", conn="s")
		t.need(len(at) == 16 and at > last, "positions are 16 digits that grow", (last, at))
		last = at
		got = fs[i % 2].one("SELECT walraft_wait('%s')" % at, conn="s")
		if got < at or fs[i % 2].one("SELECT count(*) FROM kv", conn="s") != i + 1:
			missed.append(i)
	t.equal(missed, [], "after walraft_wait a stale read on a follower sees the write, sixty times")
	# Each node writes in turn; the next one waits for it.
	missed, rows = [], 60
	for i in range(30):
		n, m = c.nodes[i % 3], c.nodes[(i + 1) % 3]
		n.sql("INSERT INTO kv(k) VALUES('q%d')" % i, conn="s")
		at = n.one("SELECT walraft_position()", conn="s")
		rows += 1
		t.need(at and at > last, "the position of a commit on node %d is behind the last one" % n.i, (last, at)) if not at or at <= last else None
		last = at
		m.sql("SELECT walraft_wait('%s')" % at, conn="s")
		if m.one("SELECT count(*) FROM kv", conn="s") != rows:
			missed.append(i)
	t.equal(missed, [], "the same with writes on all nodes, thirty times")
	last = l.one("SELECT walraft_position()", conn="s")
	l.sql("SELECT count(*) FROM kv", conn="s")
	t.equal(l.one("SELECT walraft_position()", conn="s"), last, "reads do not change it")
	l.error("INSERT INTO kv(id, k) VALUES(1, 'again')", conn="s")
	t.equal(l.one("SELECT walraft_position()", conn="s"), last, "nor do failed writes")
	top = "%016x" % c.converge()[0]["published"]
	t.equal({n.one("SELECT walraft_published()") for n in c.nodes}, {top}, "walraft_published() is the node's")
	last = top
	f = fs[0]
	f.sql("BEGIN", conn="s")
	t.ok(f.one("SELECT walraft_wait('%s')" % last, conn="s") >= last, "a BEGIN that has read nothing yet may wait")
	f.sql("SELECT count(*) FROM kv", conn="s")
	e = f.error("SELECT walraft_wait('%s')" % last, conn="s")
	t.ok(e is not None and "transaction" in e.text, "one that has read may not", repr(e))
	f.sql("ROLLBACK", conn="s")
	e = f.error("SELECT walraft_wait('%s') FROM kv" % last, conn="s")
	t.ok(e is not None and "transaction" in e.text, "nor a statement that reads", repr(e))
	for bad in ("''", "'x'", "12", "'00'", "'%sz'" % last[:15], "' %s'" % last[1:], "x'00'"):
		e = f.error("SELECT walraft_wait(%s)" % bad, conn="s")
		t.ok(e is not None and "16 hex digits" in e.text, "walraft_wait(%s) says what a position is" % bad, repr(e))
	for bad in ("-1", "'soon'", "1.5", "86400001", "NULL"):
		e = f.error("SELECT walraft_wait('%s', %s)" % (last, bad), conn="s")
		t.ok(e is not None and "milliseconds" in e.text, "a time of %s is an error" % bad, repr(e))
	for ms, args in ((400, ""), (150, ", 150"), (0, ", 0")):
		for far in ("ffffffffffffffff", "%016x" % (int(last, 16) + 1)):
			began = time.monotonic()
			e = f.error("SELECT walraft_wait('%s'%s)" % (far, args), conn="s")
			took = (time.monotonic() - began) * 1000
			t.ok(e is not None and e.code == IOERR_READ_GATE and "did not come about" in e.text and last in e.text and ms * 0.95 <= took < ms + 1000,
			     "a position of the future fails after %d ms: %.0f" % (ms, took), repr(e))
	t.equal(f.one("SELECT walraft_wait('%s', 0)" % last, conn="s"), last, "0 ms is enough for what is there")
	f.open("plain", vfs="", touch=False)
	t.equal([f.one("SELECT %s" % s, conn="plain") for s in ("walraft_position()", "walraft_published()", "walraft_wait('%s')" % last)], [None] * 3, "NULL where the database is not replicated")


ATTACHED = """
import json, sqlite3, sys
db, module, position = sys.argv[1:]
boot = sqlite3.connect(":memory:")
boot.enable_load_extension(True)
boot.load_extension(module)
con = sqlite3.connect("file:%s?vfs=walraft" % db, uri=True, isolation_level=None)

def one(sql):
	try:
		return con.execute(sql).fetchone()[0]
	except sqlite3.Error as e:
		return "%s %s" % (e.sqlite_errorcode, e)

out = {"waited": one("SELECT walraft_wait('%s', 5000)" % position)}
for level in ("stale", "linearizable", "bounded:500", "lease"):
	con.execute("PRAGMA walraft_read='%s'" % level).fetchall()
	for _ in range(1000):  # a lease may have to be had first
		out[level] = one("SELECT count(*) FROM kv")
		if level != "lease" or out[level] == 1:
			break
out["future"] = one("SELECT walraft_wait('ffffffffffffffff', 100)")
out["table"] = con.execute("SELECT address, role, applied, lag, self FROM walraft_members ORDER BY address").fetchall()
con.execute("PRAGMA walraft_read='bounded:2000'").fetchall()
one("SELECT count(*) FROM kv")
before = json.loads(one("SELECT walraft_status()"))["reads"]["asked"]
for _ in range(500):
	one("SELECT count(*) FROM kv")
out["asked"] = json.loads(one("SELECT walraft_status()"))["reads"]["asked"] - before
out["error"] = one("SELECT walraft_error()")
con.execute("INSERT INTO kv(k) VALUES('attached' || walraft_published())")
out["position"] = one("SELECT walraft_position()")
print(json.dumps(out))
"""


@case("another process of the host", 3)
def attached(c, l, f, other):
	l.sql("INSERT INTO kv(k) VALUES('a')")
	at = l.one("SELECT walraft_position()")
	for n in (l, f):
		r = harness.run_cmd([harness.PYTHON, "-c", ATTACHED, n.db, harness.MODULE, at])
		t.need(r.returncode == 0, "a process attaches to node %d" % n.i, r.stderr)
		a = json.loads(r.stdout)
		t.equal([a["waited"] >= at] + [a[v] for v in LEVELS[:2] + ["bounded:500", "stale"]], [True, 1, 1, 1, 1], "it waits for a position, and reads at each level")
		t.ok(a["asked"] <= 5, "500 bounded reads of it asked %d times" % a["asked"])
		t.ok(str(IOERR_READ_GATE) in a["future"] and "did not come about" in a["future"] and "did not come about" in a["error"], "a position of the future fails there, too", a["future"])
		for m in c.nodes:
			m.sql("SELECT walraft_wait('%s')" % a["position"])
			m.open("seen", pragmas=["walraft_read='stale'"])
		t.equal([m.one("SELECT count(*) FROM kv WHERE k LIKE 'attached%'", conn="seen") for m in c.nodes], [1] * 3, "what it writes is seen wherever its position is waited for")
		l.sql("DELETE FROM kv WHERE k LIKE 'attached%'")
		at = l.one("SELECT walraft_position()")
		t.equal([[x[0], x[1], x[4]] for x in a["table"]], sorted([m.url, "leader" if m is l else "follower", int(m is n)] for m in c.nodes), "walraft_members is its host's")


@case("the table of members", 3)
def members(c, l, *fs):
	l.sql("INSERT INTO kv(k) VALUES('a')")
	c.converge()
	ids = {n.url: n.status()["node_id"] for n in c.nodes}
	sql = "SELECT id, name, address, kind, role, applied, lag, lag_ms, self FROM walraft_members ORDER BY address"

	def rows_of(n, top):
		return sorted([ids[m.url], None, m.url, "voter", "leader" if m is l else "follower", top, 0, 0, int(m is n)] for m in c.nodes)
	top = l.status()["commit"]
	for n in c.nodes:
		want = sorted(rows_of(n, top), key=lambda r: r[2])
		wait_until(lambda: n.sql(sql) == want, 15, "node %d knows how far all are" % n.i)
		t.equal(n.sql(sql), want, "node %d knows address, kind, role, position and lag of all" % n.i)
		contact = n.sql("SELECT last_contact_ms FROM walraft_members")
		t.ok(all(r[0] is not None and 0 <= r[0] < 30000 for r in contact), "and when they were last heard of", contact)
	t.equal(l.one("SELECT count(*) FROM walraft_members m JOIN walraft_members n USING (id) WHERE m.lag = 0"), 3, "it can be joined")
	f, other = fs
	f.kill9()
	for n in (l, other):
		wait_until(lambda: n.sql("SELECT role FROM walraft_members WHERE address='%s'" % f.url) == [["unreachable"]], 15, "node %d sees that one died" % n.i)
		t.ok(True, "node %d sees that node %d died" % (n.i, f.i))
	for i in range(5):
		l.sql("INSERT INTO kv(k) VALUES('m%d')" % i)
	for n in (l, other):
		r = wait_until(lambda: [r for r in n.sql("SELECT lag, lag_ms, last_contact_ms FROM walraft_members WHERE address='%s'" % f.url) if r[0] == 5 and r[1] > 0], 15, "its lag is known")
		t.ok(r[0][2] > 0, "node %d knows its lag: %s" % (n.i, r[0]))
	st = other.status()["members"]
	t.ok(any(m["url"] == f.url and m["state"] == "unreachable" and m["lag"] == 5 for m in st), "status of another follower shows it", st)
	f.start()
	c.converge()
	for n in c.nodes:
		wait_until(lambda: n.sql("SELECT role, lag FROM walraft_members WHERE address='%s'" % f.url) == [["follower", 0]], 15, "it is back")
	t.ok(True, "and all see that it is back")
	f.open("plain", vfs="", touch=False)
	t.equal(f.sql("SELECT * FROM walraft_members", conn="plain"), [], "no rows where the database is not replicated")
	e = f.error("INSERT INTO walraft_members(id) VALUES('x')")
	t.ok(e is not None, "it cannot be written", repr(e))


@case("what applications do on followers", 2)
def followers(c, l, f):
	plain = os.path.join(f.dir, "plain.db")
	l.sql("CREATE TABLE aa(x INTEGER PRIMARY KEY, y)")
	l.sql("INSERT INTO aa(y) VALUES('one')")
	t.equal(f.sql("SELECT * FROM aa"), [[1, "one"]], "a table that another node made is there")
	l.sql("ALTER TABLE aa ADD COLUMN z DEFAULT 7")
	t.equal(f.sql("SELECT * FROM aa"), [[1, "one", 7]], "the same prepared statement sees a new column")
	l.sql("CREATE INDEX aa_y ON aa(y)")
	f.sql("SELECT x FROM aa WHERE y = 'one'")  # EXPLAIN by itself does not look whether the schema has changed
	t.ok("aa_y" in str(f.sql("EXPLAIN QUERY PLAN SELECT x FROM aa WHERE y = 'one'")), "a new index is used")
	l.sql("DROP INDEX aa_y")
	t.equal(f.sql("SELECT x FROM aa WHERE y = 'one'"), [[1]], "and done without once it is gone")
	l.sql("CREATE VIEW v AS SELECT y FROM aa")
	t.equal(f.sql("SELECT * FROM v"), [["one"]], "a view")
	l.sql("DROP VIEW v")
	e = f.error("SELECT * FROM v")
	t.ok(e is not None and "no such table" in e.text, "that is gone", repr(e))
	l.sql("ALTER TABLE aa RENAME TO bb")
	t.ok(f.error("SELECT * FROM aa") is not None and f.sql("SELECT count(*) FROM bb") == [[1]], "a renamed table")

	f.sql("CREATE TEMP TABLE tt(v)")
	f.sql("INSERT INTO tt SELECT y FROM bb")
	f.sql("ATTACH '%s' AS plain" % plain)
	f.sql("CREATE TABLE plain.p AS SELECT * FROM bb")
	f.sql("BEGIN")
	f.sql("INSERT INTO tt VALUES('two')")
	f.sql("INSERT INTO plain.p(y) VALUES('two')")
	t.equal(f.sql("SELECT (SELECT count(*) FROM tt), (SELECT count(*) FROM plain.p), (SELECT count(*) FROM bb)"), [[2, 2, 1]], "temporary and attached tables are written beside it")
	f.sql("COMMIT")
	f.sql("DETACH plain")

	# A snapshot is held while others write, the WAL is restarted, the schema changes.
	f.open("held")
	f.sql("BEGIN", conn="held")
	t.equal(f.sql("SELECT count(*) FROM kv", conn="held"), [[0]], "a long transaction begins")
	l.start_load(threads=3)
	c.wait_acked(300, 120)
	if t.full:
		end = time.monotonic() + 150
		wait_until(lambda: time.monotonic() > end, 200, "two minutes and a half are over", every_s=1)
	l.sql("CREATE TABLE later(x)")
	waits = []
	for i in range(20):
		began = time.monotonic()
		t.need(f.one("SELECT count(*) FROM kv", conn="held") == 0, "the snapshot stays what it was")
		f.one("SELECT count(*) FROM kv")
		waits.append(time.monotonic() - began)
	t.ok(f.error("SELECT * FROM later", conn="held") is not None, "the snapshot does not have a table that was made since")
	l.stop_load()
	behind = c.converge()
	t.ok(behind[f.i]["published"] == behind[l.i]["published"], "it kept nothing from being published")
	f.sql("COMMIT", conn="held")
	t.ok(f.one("SELECT count(*) FROM kv", conn="held") > 0 and f.sql("SELECT * FROM later", conn="held") == [], "after its end the connection sees all")
	t.say("slowest pair of reads beside the load: %.0f ms" % (max(waits) * 1000))
	c.checksums_equal("checksums are equal")
	c.integrity("both files are in order")


try:
	t.run()
finally:
	for left in pool.values():
		left.destroy()
