#!/usr/bin/python3
"""Several processes on one database: the one that hosts the node is killed, stopped, ends, or gives it to a daemon; the others go on."""
import os
import signal
import subprocess
import threading
import time

import harness
import load
from cluster import Node, SqlError
from harness import Test, wait_until

t = Test(__file__, deadline_s=240)

PROCESSES = 4
FENCED, UNKNOWN = harness.IOERR_FENCED, harness.IOERR_UNKNOWN
SLOW = 10 if harness.SANITIZER else 1


class Guest(Node):
	"""Another process of the machine that uses a node's database."""

	def __init__(self, cluster, i, node):
		super().__init__(cluster, 100 + i, node.url)
		self.db = node.db


def host_pid(db):
	"""Who has the node; None: nobody just now."""
	try:
		with open(db + "-walraft/lock") as f:
			pid = int(f.read().strip() or 0)
	except (OSError, ValueError):
		return None
	return pid or None


def guests(c, node, n=PROCESSES):
	all_of_them = [Guest(c, i, node) for i in range(n)]
	for g in all_of_them:
		g.worker()
	return all_of_them


def host_of(procs, but=None, deadline_s=20):
	"""The process that hosts the node, once one of them does and answers."""
	db = procs[0].db

	def look():
		pid = host_pid(db)
		for p in procs:
			if p.alive() and p.pid == pid and p is not but:
				r = harness.walraft("status", db, "--json", timeout=10)
				return p if r.returncode == 0 else None
	return wait_until(look, deadline_s, "one of the processes hosts the node", every_s=0.002)


class Stock(threading.Thread):
	"""A program without walraft that tries to write all the time. It must never get in while a process that uses walraft lives."""

	def __init__(self, db):
		super().__init__(daemon=True)
		self.p = subprocess.Popen([harness.PYTHON, "-c", """
import sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
got = tries = reads = 0
print("ready", flush=True)
import select
while not select.select([0], [], [], 0)[0]:
	tries += 1
	try:
		con.execute("INSERT INTO kv(k) VALUES('stock')")
		got += 1
	except sqlite3.OperationalError:
		pass
	try:
		s = con.execute("SELECT (SELECT sum(v) FROM a) - (SELECT sum(v) FROM b)").fetchone()[0]
		assert s == 0, s
		reads += 1
	except sqlite3.OperationalError as e:
		if "locked" not in str(e):
			raise
print(got, tries, reads, flush=True)
""", db], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=harness.stock_env(), preexec_fn=harness.die_with_parent)
		self.p.stdout.readline()

	def end(self):
		out, _ = self.p.communicate(b"x", timeout=30)
		return [int(x) for x in out.split()]


def new_database(c):
	"""A cluster of one on which no process runs yet."""
	c.init()
	return c[0]


def writes_go_on(procs, deadline_s=20):
	"""Every living process has a row acknowledged after now."""
	def one(p):
		def look():
			try:
				p.sql("INSERT INTO kv(k) VALUES('on:' || hex(randomblob(8)))")
				return True
			except SqlError as e:
				if e.code not in load.NOT_COMMITTED | load.UNKNOWN and e.code & 0xFF != 5:
					raise
		wait_until(look, deadline_s, "a write of process %d" % p.i, every_s=0.005)
	for p in procs:
		one(p)


@t.case("the host is killed")
def killed():
	rounds = t.args.rounds or (200 if t.full else 15)
	c = t.cluster(create=False, n=1)
	procs = guests(c, new_database(c))
	stock = Stock(procs[0].db)
	fresh, gaps, born = len(procs), [], {}
	for p in procs:
		p.start_load(threads=2, pause_ms=2, pad=3000)
	c.wait_acked(50)
	for i in range(rounds):
		victim = host_of(procs)
		acked = c.acked()
		t0 = time.monotonic()
		victim.kill9()
		rest = [p for p in procs if p is not victim]
		host_of(rest)
		wait_until(lambda: c.acked() > acked + 3, 20 * SLOW, "commits after kill %d" % i, every_s=0.002)
		gaps.append(time.monotonic() - t0)
		if not all(p.alive() for p in rest):
			t.need(False, "no process but the killed one ends", [p.i for p in rest if not p.alive()])
		procs[procs.index(victim)] = g = Guest(c, fresh, c[0])
		fresh += 1
		g.worker()
		g.start_load(threads=2, pause_ms=2, pad=3000)
	for p in procs:
		p.stop_load()
	gaps.sort()
	got, tries, reads = stock.end()
	t.say("%d kills: gap between kill and next acknowledged commits: median %.0f ms, worst %.0f ms; stock process: %d writes tried, %d reads" % (
		rounds, gaps[len(gaps) // 2] * 1000, gaps[-1] * 1000, tries, reads))
	t.equal(got, 0, "no write of a process without walraft got in")
	o = load.Outcomes(c.ack_logs)
	t.ok(not o.wrong, "no writer was told what must never be told", o.wrong[:10])
	keys = [r[0] for r in procs[0].sql("SELECT k FROM kv WHERE k NOT LIKE 'on:%'")]
	o.check(t, keys, "after %d kills" % rounds)
	told = sum(l.startswith("U") for f in c.ack_logs for l in open(f))
	t.ok(len(o.unknown) - told <= 2 * rounds, "open is what the killed ones were at, at most one transaction of each writer", (len(o.unknown), told))
	t.say("%d commits were told to be open" % told)
	t.equal(procs[1].one("PRAGMA integrity_check"), "ok", "the database is whole")
	for p in procs:
		p.term()

def commits_go_on(c, procs, more, what):
	"""On failure with what all processes' threads are at, where gdb is there to tell."""
	acked = c.acked()
	try:
		wait_until(lambda: c.acked() > acked + more, 20 * SLOW, what, every_s=0.002)
	except harness.TimedOut:
		if os.environ.get("WALRAFT_GDB"):
			for p in procs:
				r = subprocess.run(["gdb", "-p", str(p.pid), "-batch", "-ex", "thread apply all bt 14"], capture_output=True, text=True)
				t.say("process %d, %d\n%s" % (p.i, p.pid, r.stdout))
		raise


class Readers:
	"""A connection in each process that reads all the time, and keeps every answer that is an error."""

	def __init__(self, procs):
		self.procs, self.errors, self.count = procs, [], 0
		self.stop, self.threads = threading.Event(), []
		for p in procs:
			p.open("reader")
			self.threads.append(threading.Thread(target=self.run, args=(p,), daemon=True))
			self.threads[-1].start()

	def run(self, p):
		while not self.stop.is_set():
			try:
				a, b = p.sql("SELECT (SELECT sum(v) FROM a), (SELECT sum(v) FROM b)", conn="reader")[0]
				if a != b:
					self.errors.append("process %d: %d is not %d" % (p.i, a, b))
				self.count += 1
			except Exception as e:
				self.errors.append("process %d: %r" % (p.i, e))
				return

	def end(self):
		self.stop.set()
		for th in self.threads:
			th.join(60)
		return self.errors


def no_write_failed(c, what):
	"""None of the writers, all with a busy timeout, was told anything but an acknowledgement."""
	bad = [l for l in load.failures(c.ack_logs) if not l.startswith("N") or " 5 " not in l]
	t.ok(not bad, "%s: no write failed" % what, "%d: %s" % (len(bad), "\n".join(bad[:20])))


@t.case("a daemon takes precedence")
def precedence():
	c = t.cluster(create=False, n=1)
	procs = guests(c, new_database(c))
	stock = Stock(procs[0].db)
	readers = Readers(procs)
	for p in procs:
		p.start_load(threads=2, pause_ms=2)
	c.wait_acked(50)
	long_reader = host_of(procs)
	long_reader.open("long")
	long_reader.sql("BEGIN", conn="long")
	seen = long_reader.one("SELECT count(*) FROM kv", conn="long")
	for i in range(t.args.rounds or (20 if t.full else 3)):
		t0 = time.monotonic()
		c[0].serve()
		t.need(host_pid(c[0].db) == c[0].pid, "the daemon hosts the node", (host_pid(c[0].db), c[0].pid))
		commits_go_on(c, procs + [c[0]], 20, "commits by way of the daemon")
		took = time.monotonic() - t0
		if i % 2:
			c[0].kill9()
		else:
			t.equal(c[0].term(), 0, "the daemon ends well")
		host_of(procs)
		commits_go_on(c, procs, 20, "commits after the daemon's end")
	t.say("from the start of serve to 20 commits by way of it: %.0f ms" % (took * 1000))
	t.equal(long_reader.one("SELECT count(*) FROM kv", conn="long"), seen, "a read transaction that spans it all sees what it saw")
	long_reader.sql("COMMIT", conn="long")
	for p in procs:
		p.stop_load()
	errors = readers.end()
	t.ok(not errors, "no read failed (%d reads)" % readers.count, errors[:10])
	got, tries, _ = stock.end()
	t.equal(got, 0, "no write of a process without walraft got in (%d tried)" % tries)
	o = load.Outcomes(c.ack_logs)
	t.ok(not o.wrong, "no writer was told what must never be told", o.wrong[:10])
	o.check(t, [r[0] for r in procs[0].sql("SELECT k FROM kv")], "after all")


@t.case("a second daemon")
def second_daemon():
	c = t.cluster(create=False, n=1)
	new_database(c).serve()
	r = c[0].command("serve", timeout=20)
	t.ok(r.returncode == 1 and "in use by process %d" % c[0].pid in r.stderr, "is refused by the first one", (r.returncode, r.stderr))


@t.case("the host closes, or ends")
def closes():
	c = t.cluster(create=False, n=1)
	procs = guests(c, new_database(c))
	readers = Readers(procs[1:])
	first = host_of(procs)
	t.equal(first.i, procs[0].i, "the first process hosts the node")
	for p in procs[1:]:
		p.start_load(threads=2, pause_ms=2)
	c.wait_acked(20)
	t0 = time.monotonic()
	first.send("close", conn="main").result()
	host_of(procs, but=first)
	acked = c.acked()
	wait_until(lambda: c.acked() > acked + 3, 20 * SLOW, "commits after the close", every_s=0.002)
	t.say("from the close of the host's last connection to commits by way of the next one: %.0f ms" % ((time.monotonic() - t0) * 1000))
	first.open("main")
	t.equal(first.one("SELECT count(*) FROM kv WHERE k = 'x'"), 0, "the process that closed opens it again, and attaches")
	second = host_of(procs)
	t.ok(second is not first, "another one hosts the node now")
	for p in procs[1:]:
		p.stop_load()
	errors = readers.end()
	t.ok(not errors, "no read failed (%d reads)" % readers.count, errors[:10])
	second.term()
	rest = [p for p in procs if p is not second]
	writes_go_on(rest)
	load.Outcomes(c.ack_logs).check(t, [r[0] for r in rest[0].sql("SELECT k FROM kv WHERE k NOT LIKE 'on:%'")], "after all")
	for p in rest:
		p.term()
	t.equal(host_pid(c[0].db) in [p.pid for p in procs], True, "the last one's name is in the lock")
	r = harness.stock(c[0].db, "INSERT INTO kv(k) VALUES('plain')")
	t.ok(r.returncode == 0, "after the last one has ended a process without walraft writes", r.stderr)


@t.case("processes that are idle take over")
def idle():
	c = t.cluster(n=3)
	l = c.leader()
	spare = [Guest(c, i, l) for i in range(2)]
	for g in spare:
		g.worker()
	others = [n for n in c.nodes if n is not l]
	others[0].kill9()  # with the host the second one of three goes: whoever takes over is needed
	l.kill9()
	t0 = time.monotonic()
	host_of(spare)
	t.say("hosted again after %.0f ms" % ((time.monotonic() - t0) * 1000))
	wait_until(lambda: others[1].error("INSERT INTO kv(k) VALUES('voter')") is None or spare[0].error("INSERT INTO kv(k) VALUES('voter')") is None, 20 * SLOW, "a quorum of two")
	t.ok(True, "the cluster has its voter, though nobody used that database")


@t.case("the host is stopped")
def stopped():
	c = t.cluster(create=False, n=1)
	procs = guests(c, new_database(c), 3)
	host = host_of(procs)
	rest = [p for p in procs if p is not host]
	rest[0].sql("INSERT INTO kv(k) VALUES('before')")
	for p in rest:
		p.sql("PRAGMA walraft_timeout=1000")
	host.sigstop()
	t0 = time.monotonic()
	e = rest[0].error("INSERT INTO kv(k) VALUES('never')")
	took = time.monotonic() - t0
	t.ok(e and e.code in load.NOT_COMMITTED | load.UNKNOWN | {harness.IOERR_NODE_FAILED}, "a write gets an error that is walraft's", e and (e.code, e.walraft_error))
	t.ok(e and "stopped, or stuck" in str(e.walraft_error), "it says what may be the matter", e and e.walraft_error)
	t.ok(took < 10, "in time", took)
	t.equal(host_pid(host.db), host.pid, "nobody takes over from one that lives")
	new = Guest(c, 9, c[0])
	try:
		new.worker(wait_s=15)
		t.ok(False, "a new process is told, too")
	except (SqlError, harness.Failed) as x:
		t.ok("stopped, or stuck" in str(x), "a new process is told, too", str(x))
	r = c[0].command("serve", timeout=60)
	t.ok(r.returncode == 1 and "stopped, or stuck" in r.stderr, "and so is walraft serve", (r.returncode, r.stderr))
	host.cont()
	writes_go_on(procs)
	t.equal(host_pid(host.db), host.pid, "it still hosts the node")
	t.equal(rest[1].one("SELECT count(*) FROM kv WHERE k = 'before'"), 1, "all goes on")


@t.case("all processes die")
def all_die():
	c = t.cluster(create=False, n=1)
	procs = guests(c, new_database(c), 3)
	for p in procs:
		p.sql("INSERT INTO kv(k) VALUES('%d')" % p.i)
	for p in procs:
		p.proc.kill()
	for p in procs:
		p.proc.wait()
	r = harness.stock(c[0].db, "SELECT count(*) FROM kv")
	t.equal(r.stdout.strip(), "3", "a process without walraft reads what was acknowledged")
	r = harness.stock(c[0].db, "INSERT INTO kv(k) VALUES('stock')")
	t.ok(r.returncode == 0, "with nobody left to keep the locks it writes, too", r.stderr)
	late = Guest(c, 8, c[0])
	try:
		late.worker()
		t.ok(False, "the next process that uses walraft is told that the file was changed")
	except (SqlError, harness.Failed) as x:
		t.ok("changed outside walraft" in str(x), "the next process that uses walraft is told that the file was changed", str(x))
	t.equal(harness.walraft("adopt", c[0].db).returncode, 0, "adopt takes it as it is")
	again = Guest(c, 9, c[0]).worker()
	t.equal(again.one("SELECT count(*) FROM kv"), 4, "with the row")


@t.case("a follower's host is killed in a cluster under load")
def clustered():
	c = t.cluster(n=3)
	shared = c.followers()[0]
	procs = guests(c, shared, 2) + [shared]
	for p in c.nodes + procs[:2]:
		p.start_load(threads=2, pause_ms=2)
	c.wait_acked(50)
	fresh = 10
	for i in range(t.args.rounds or (40 if t.full else 4)):
		victim = host_of(procs)
		victim.kill9()
		rest = [p for p in procs if p is not victim]
		host_of(rest)
		writes_go_on(rest)
		procs[procs.index(victim)] = g = Guest(c, fresh, shared)
		fresh += 1
		g.worker()
		g.start_load(threads=2, pause_ms=2)
	live = [p for p in c.nodes + procs if p.alive()]
	for p in dict.fromkeys(live):
		p.stop_load()
	o = load.Outcomes(c.ack_logs)
	t.ok(not o.wrong, "no writer was told what must never be told", o.wrong[:10])
	for p in (c.leader(), procs[0]):
		o.check(t, [r[0] for r in p.sql("SELECT k FROM kv WHERE k NOT LIKE 'on:%'")], "process %d" % p.i)


FORKS = """
import os, sqlite3, sys, time, signal
path, so, children = sys.argv[1], sys.argv[2], int(sys.argv[3])
boot = sqlite3.connect(":memory:")
boot.enable_load_extension(True)
boot.load_extension(so)
def connect():
	return sqlite3.connect("file:%s?vfs=walraft&walraft_auto=1" % path, uri=True, isolation_level=None, timeout=20)
parent = connect()
parent.execute("INSERT INTO kv(k) VALUES('parent')")
def say(*words):
	os.write(1, (" ".join(str(w) for w in words) + "\\n").encode())
def child(i):
	try:
		parent.execute("SELECT count(*) FROM kv").fetchone()
		say("child %d: the inherited connection can be used" % i)
	except sqlite3.Error as e:
		if "disk I/O error" not in str(e):
			say("child %d: %s" % (i, e))
	c, r = connect(), connect()
	r.execute("BEGIN")
	seen = r.execute("SELECT count(*), sum(length(k)) FROM kv").fetchone()
	say("ready %d" % os.getpid())
	n = 0
	while not os.path.exists(path + ".stop"):
		try:
			c.execute("INSERT INTO kv(k, pad) VALUES(?, randomblob(3000))", ("c%d.%d" % (i, n),))
			say("A c%d.%d" % (i, n))
		except sqlite3.Error as e:
			say("U c%d.%d %s %s" % (i, n, e.sqlite_errorcode, c.execute("SELECT walraft_error()").fetchone()[0]))
		n += 1
	if r.execute("SELECT count(*), sum(length(k)) FROM kv").fetchone() != seen:
		say("child %d: a snapshot that changes" % i)
	r.execute("COMMIT")
	if c.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
		say("child %d: integrity" % i)
	c.close()
	r.close()
	say("end %d" % os.getpid())
	os._exit(0)
for i in range(children):
	if os.fork() == 0:
		child(i)
say("ready %d" % os.getpid())
while True:
	parent.execute("INSERT INTO kv(k) VALUES('p' || hex(randomblob(4)))")
	time.sleep(0.002)
"""


@t.case("children of a process that hosts the node")
def forks():
	# Without an address: nng cannot be used on both sides of a fork.
	c = t.cluster(create=False, n=1)
	alone = os.path.join(c[0].dir, "alone.db")
	harness.stock(alone, "PRAGMA journal_mode=wal;" + load.SCHEMA)
	log = os.path.join(c.dir, "log", "forks")
	with open(log, "wb") as out:
		p = subprocess.Popen([harness.PYTHON, "-c", FORKS, alone, harness.MODULE, "3"], stdout=out, stderr=out, env=harness.child_env(), preexec_fn=harness.die_with_parent)

	def lines():
		return open(log).read().splitlines()
	wait_until(lambda: len([l for l in lines() if l.startswith("ready")]) == 4, 20 * SLOW, "parent and children are ready")
	stock = Stock(alone)
	wait_until(lambda: len([l for l in lines() if l.startswith("A ")]) > 300, 30 * SLOW, "commits of children")
	p.kill()
	p.wait()
	before = len([l for l in lines() if l.startswith("A ")])
	wait_until(lambda: len([l for l in lines() if l.startswith("A ")]) > before + 300, 30 * SLOW, "commits after the parent was killed")
	got, tries, _ = stock.end()
	open(alone + ".stop", "w").close()
	wait_until(lambda: len([l for l in lines() if l.startswith("end")]) == 3, 30 * SLOW, "the children end")
	t.equal(got, 0, "no write of a process without walraft got in (%d tried)" % tries)
	odd = [l for l in lines() if not l.startswith(("A ", "U ", "ready", "end"))]
	t.ok(not odd, "children read what they saw, and cannot use what they inherited", odd[:5])
	told = [l for l in lines() if l.startswith("U ")]
	t.ok(len(told) <= 3, "each child was told at most once of a commit that was cut off", told[:5])
	have = harness.stock_rows(alone, "SELECT k FROM kv WHERE k LIKE 'c%'")
	acked = [l[2:] for l in lines() if l.startswith("A ")]
	t.ok(not set(acked) - set(have), "all %d acknowledged rows of children are there" % len(acked), sorted(set(acked) - set(have))[:5])
	t.equal(len(set(have)), len(have), "each once")


t.run()
