#!/usr/bin/python3
"""Processes that attach to the one that hosts the node: they read the files by themselves and write through it, as if each were the only one. What one
of them does, dies of, or is stopped in, harms nobody else."""
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import harness
import load
from cluster import Node, SqlError
from harness import Test, walraft, wait_until

t = Test(__file__, deadline_s=240)
BUSY = 5


class Attached(Node):
	"""One more process of a node's machine, on the same database."""
	made = 0

	def __init__(self, host):
		Attached.made += 1
		self.c, self.i, self.url, self.dir, self.db = host.c, host.i, host.url, host.dir, host.db
		self.log = os.path.join(host.c.dir, "log", "attached%d.log" % Attached.made)
		self.proc, self.kind, self.generation, self.stopped, self.witness = None, None, 1000 * Attached.made, False, False
		procs.append(self)


procs = []


def case(name):
	def deco(fn):
		@t.case(name)
		def run():
			try:
				fn()
			finally:
				for p in procs:
					if p.alive():
						p.kill9()
				procs.clear()
		return run
	return deco


def attach(host, n=1, **kw):
	return [Attached(host).worker(**kw) for _ in range(n)]


def is_host(n):
	"""Does this process host the node?"""
	with open(os.path.join(n.db + "-walraft", "lock")) as f:
		return f.read().strip() == str(n.pid)


def value(n, sql, conn="main"):
	return n.sql(sql, conn=conn)[0][0]


def code_of(n, sql, conn="main", timeout_s=60):
	e = n.error(sql, conn=conn, timeout_s=timeout_s)
	return e.code if e else 0


@case("writers in five processes")
def writers():
	c = t.cluster(n=1)
	host = c[0]
	others = attach(host, 4)
	t.ok(is_host(host) and not any(is_host(p) for p in others), "the first process hosts the node, four others attach")
	role = [json.loads(value(p, "SELECT walraft_status()"))["role"] for p in others]
	t.equal(role, ["leader"] * 4, "walraft_status() asks the host")
	t.equal({value(p, "SELECT walraft_leader()") for p in others}, {host.url}, "so does walraft_leader()")
	t.equal({value(p, "SELECT walraft_checksum()") for p in others}, {host.status()["checksum"]}, "and walraft_checksum()")
	reader = subprocess.Popen([harness.PYTHON, os.path.join(harness.HERE, "stock_reader.py"), host.db, load.TOTALS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
	                          env=harness.stock_env())
	for p in [host] + others:
		p.start_load(threads=2, pause_ms=0)
	c.wait_acked(20000 if t.full else 1500, 120)
	counts = [p.stop_load() for p in [host] + others]
	out, _ = reader.communicate("")
	t.ok(all(x.get("A", 0) > 20 for x in counts), "each of them wrote", counts)
	saw = json.loads(out.splitlines()[-1]) if out else {}
	t.ok(saw.get("reads", 0) > 10 and not saw.get("errors") and not saw.get("apart"), "a stock reader beside them saw no error and no inconsistent sum", out[-1000:])
	c.verify_load()
	positions = [value(p, "SELECT walraft_position()", conn="w") for p in others for _ in [p.open("w")] for _ in [p.sql("INSERT INTO kv(k) VALUES('p')", conn="w")]]
	t.ok(len(set(positions)) == 4 and positions == sorted(positions), "each knows the position of its commit", positions)


@case("one counter")
def counter():
	c = t.cluster(n=1, schema="CREATE TABLE n(v); INSERT INTO n VALUES(0)")
	ps = [c[0]] + attach(c[0], 3)
	rounds = 400 if t.full else 60
	jobs = [p.send("exec", conn="main", sql="UPDATE n SET v = v + ?", many=[[1]] * rounds) for p in ps]
	for j in jobs:
		j.result(120)
	t.equal({value(p, "SELECT v FROM n") for p in ps}, {4 * rounds}, "increments of four processes are all there, and each process reads them")
	t.equal(c[0].stock("SELECT v FROM n; PRAGMA integrity_check"), [str(4 * rounds), "ok"], "stock sqlite3 too")


@case("transactions of every kind")
def kinds():
	c = t.cluster(n=1)
	host = c[0]
	a, b = attach(host, 2)
	a.sql("PRAGMA cache_size=10")
	a.sql("CREATE TABLE big(id INTEGER PRIMARY KEY, x BLOB)")
	t.equal(value(b, "SELECT count(*) FROM big"), 0, "a table of one process is there for the other")
	b.open("old")
	b.sql("BEGIN", conn="old")
	value(b, "SELECT count(*) FROM big", conn="old")
	a.sql("BEGIN")
	a.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 3000) INSERT INTO big SELECT i, randomblob(4000) FROM n")
	t.equal(value(a, "SELECT count(*) FROM big"), 3000, "12 MB that spilled are there for their own transaction")
	t.equal(value(b, "SELECT count(*) FROM big"), 0, "and for nobody else")
	a.sql("SAVEPOINT s")
	a.sql("UPDATE big SET x = zeroblob(4000) WHERE id % 3 = 0")
	a.sql("DELETE FROM big WHERE id > 2000")
	a.sql("ROLLBACK TO s")
	a.sql("UPDATE big SET x = x'00' WHERE id = 1")
	a.sql("COMMIT")
	t.equal([value(p, "SELECT count(*) || ' ' || sum(length(x)) FROM big") for p in (a, b, host)], ["3000 %d" % (2999 * 4000 + 1)] * 3, "and when they are committed, for all")
	t.equal(value(b, "SELECT count(*) FROM big", conn="old"), 0, "a reader that began before keeps its snapshot")
	a.sql("BEGIN")
	a.sql("DELETE FROM big")
	a.sql("ROLLBACK")
	t.equal([value(p, "SELECT count(*) FROM big") for p in (a, b)], [3000] * 2, "a rollback leaves all as it was")
	b.sql("COMMIT", conn="old")
	b.sql("DELETE FROM big WHERE id > 10")
	b.sql("VACUUM")
	t.equal([value(p, "SELECT count(*) FROM big") for p in (a, b, host)], [10] * 3, "VACUUM in an attached process")
	t.ok(value(a, "PRAGMA page_count") < 100, "the file is small again for the others too")
	a.sql("ALTER TABLE big ADD COLUMN y")
	t.equal(value(b, "SELECT count(*) FROM big WHERE y IS NULL"), 10, "a change of the schema is noticed")
	# A snapshot that is too old to write from.
	b.sql("BEGIN")
	value(b, "SELECT count(*) FROM big")
	a.sql("DELETE FROM big WHERE id = 10")
	t.equal(code_of(b, "INSERT INTO big(x) VALUES(1)"), 517, "SQLITE_BUSY_SNAPSHOT for one that read before")
	b.sql("ROLLBACK")
	a.sql("BEGIN IMMEDIATE")
	b.open("impatient", pragmas=["busy_timeout=0"])
	t.equal(code_of(b, "INSERT INTO big(x) VALUES(1)", conn="impatient"), BUSY, "SQLITE_BUSY while another process writes")
	waits = b.send("exec", conn="main", sql="INSERT INTO big(x) VALUES(2)")
	a.sql("COMMIT")
	waits.result(10)
	t.ok(True, "a busy timeout waits for another process's transaction")
	t.equal({r[0][0] for r in [p.sql("PRAGMA integrity_check") for p in (a, b, host)]}, {"ok"}, "integrity_check in all of them")


@case("on a cluster's nodes")
def members():
	c = t.cluster(n=3)
	l = c.leader()
	f = c.followers()[0]
	a, = attach(l)
	x, = attach(f)
	a.sql("CREATE TABLE s(x)")
	a.sql("INSERT INTO s WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300) SELECT randomblob(4000) FROM n")
	t.equal(value(x, "SELECT count(*) FROM s"), 300, "a process attached to a follower reads what another one's process has committed")
	t.equal(value(x, "SELECT walraft_leader()"), l.url, "and knows the leader")
	for level in ("lease", "bounded:10000", "stale"):
		x.sql("PRAGMA walraft_read='%s'" % level)
		t.equal(value(x, "SELECT count(*) FROM s"), 300, "at level %s too" % level)
	x.sql("INSERT INTO s VALUES('from the follower')")
	x.sql("BEGIN IMMEDIATE")
	x.sql("INSERT INTO s SELECT randomblob(2000) FROM s LIMIT 200")
	x.sql("COMMIT")
	x.sql("UPDATE s SET x = 'changed' WHERE x = 'from the follower'")
	t.equal(value(a, "SELECT count(*) || ' ' || sum(x = 'changed') FROM s"), "501 1", "it writes there, too")
	x.sql("PRAGMA walraft_write='local'")
	t.equal(code_of(x, "DELETE FROM s"), harness.READONLY_NOT_LEADER, "unless that is refused")
	at = a.sql("SELECT walraft_position()")[0][0]
	t.equal(value(x, "SELECT walraft_wait('%s') IS NOT NULL" % at), 1, "and waits for the other's position")
	c.checksums_equal("all nodes have the same")


@case("killed processes")
def killed():
	c = t.cluster(n=1)
	host = c[0]
	rounds = t.args.rounds or (100 if t.full else 12)
	slow = []
	for i in range(rounds):
		p, = attach(host)
		if i % 3 == 0:  # with the lock, and idle
			p.sql("BEGIN IMMEDIATE")
			p.sql("INSERT INTO kv(k) VALUES('never')")
		elif i % 3 == 1:  # in the middle of a large commit
			p.sql("BEGIN")
			p.sql("INSERT INTO kv(k, pad) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000) SELECT 'big%d', hex(randomblob(2000)) FROM n" % i)
			p.send("exec", conn="main", sql="COMMIT")
			threading.Event().wait(t.rnd.random() * 0.06)
		else:
			p.start_load(threads=3, pause_ms=0)
			threading.Event().wait(0.02 + t.rnd.random() * 0.1)
		p.kill9()
		t0 = time.monotonic()
		host.sql("INSERT INTO kv(k) VALUES('after%d')" % i)
		slow.append(time.monotonic() - t0)
	t.ok(max(slow) < 1, "%d processes were killed: the lock is free within a second" % rounds, sorted(slow)[-5:])
	host.open("check")
	n = [r[0] for r in host.sql("SELECT count(*) FROM kv WHERE k LIKE 'big%' GROUP BY k", conn="check")]
	t.equal(set(n) - {2000}, set(), "of their large transactions each is there as a whole or not at all")
	t.say("%d of %d large transactions were committed" % (len(n), (rounds + 1) // 3))
	t.equal(value(host, "SELECT count(*) FROM kv WHERE k = 'never'"), 0, "what was not committed is not there")
	out = load.Outcomes(c.ack_logs)
	keys = [r[0] for r in host.sql("SELECT k FROM kv WHERE k NOT LIKE 'big%' AND k NOT LIKE 'after%'", conn="check")]
	out.check(t, keys, "the host")
	c.verify_files("after the kills: ", [host])
	wait_until(lambda: threads_of(host) == threads_before(host), 5, "the host has no threads left of them")
	t.ok(True, "the host has no threads left of them")


def threads_of(n):
	return len(os.listdir("/proc/%d/task" % n.pid))


def fds_of(n):
	return sorted(os.readlink("/proc/%d/fd/%s" % (n.pid, f)).split(":")[0] for f in os.listdir("/proc/%d/fd" % n.pid)
	              if os.path.lexists("/proc/%d/fd/%s" % (n.pid, f)))


def threads_before(n):
	"""Of a worker alone, with the connections that it has: a second one of the same kind."""
	return n.threads_alone if hasattr(n, "threads_alone") else n.__dict__.setdefault("threads_alone", threads_of(n))


@case("a stopped process")
def stopped():
	c = t.cluster(n=3)
	host = c.leader()
	a, b = attach(host, 2)
	a.sql("CREATE TABLE s(x)")
	a.sql("BEGIN IMMEDIATE")
	a.sql("INSERT INTO s VALUES('kept')")
	a.sigstop()
	b.open("impatient", pragmas=["busy_timeout=300"])
	t.equal(code_of(b, "INSERT INTO s VALUES('no')", conn="impatient"), BUSY, "one that is stopped in a transaction keeps the lock")
	t.equal(value(b, "SELECT count(*) FROM s"), 0, "readers do not wait for it")
	a.cont()
	a.sql("COMMIT")
	t.equal(value(b, "SELECT x FROM s"), "kept", "when it goes on, it commits")
	a.sql("BEGIN IMMEDIATE")
	a.sql("INSERT INTO s VALUES('lost')")
	a.sigstop()
	other = [n for n in c.nodes if n is not host][0]
	r = other.command("transfer", other.url, timeout=30)
	t.ok(r.returncode == 0, "the leadership goes elsewhere meanwhile", r.stderr)
	wait_until(lambda: code_of(other, "INSERT INTO s VALUES('other')") == 0, 20, "the new leader writes")
	c.converge()
	a.cont()
	t.equal([code_of(a, "INSERT INTO s VALUES('lost too')") or code_of(a, "COMMIT"), a.one("SELECT count(*) FROM s")], [harness.IOERR_FENCED, 2], "it is fenced, and rolled back")
	t.equal([r[0] for r in a.sql("SELECT x FROM s ORDER BY rowid")], ["kept", "other"], "it sees what the others wrote, and nothing of its own")
	c.checksums_equal("all nodes have the same")
	c.integrity("integrity_check on all nodes")


@case("reads by the lease")
def leases():
	one = t.cluster(n=1, schema="CREATE TABLE n(v); INSERT INTO n VALUES(7)")
	a, = attach(one[0])
	a.sql("UPDATE n SET v = 8")
	one[0].sigstop()
	t.equal([value(a, "SELECT v FROM n") for _ in range(50)], [8] * 50, "reads need no answer of the host of a single node")
	one[0].cont()
	c = t.cluster(n=3, schema="CREATE TABLE n(v); INSERT INTO n VALUES(0)")
	l = c.leader()
	a, = attach(l)
	a.sql("PRAGMA walraft_timeout=1000")
	a.sql("UPDATE n SET v = 1")
	for _ in range(20):
		value(a, "SELECT v FROM n")
	before = l.status()["reads"]["asked"]
	for _ in range(500):
		value(a, "SELECT v FROM n")
	after = l.status()["reads"]["asked"]
	t.ok(after - before < 50, "reads on a leader with a lease ask nobody", (before, after))
	l.sigstop()
	n = value(a, "SELECT v FROM n")
	t.equal(n, 1, "nor do they need an answer of the host while it has a lease")
	new = c.leader(among=[x for x in c.nodes if x is not l])
	wait_until(lambda: code_of(new, "UPDATE n SET v = 2") == 0, 20, "the new leader writes")
	e = a.error("SELECT v FROM n", timeout_s=30)
	t.ok(e and e.code == harness.IOERR_READ_GATE, "when the lease is over, a read is refused, and not answered with what is old", e)
	l.cont()
	wait_until(lambda: value(a, "SELECT v FROM n") == 2, 20, "and is answered when the host goes on")
	t.ok(True, "and is answered when the host goes on")


@case("descriptors and threads")
def leftovers():
	c = t.cluster(n=1)
	host = c[0]
	base = (fds_of(host), threads_of(host))
	p = Attached(host).worker(wait_s=0)
	before = (fds_of(p), threads_of(p))
	for i in range(3):
		for k in range(8):
			p.open("c%d" % k)
		for k in range(8):
			p.sql("INSERT INTO kv(k) VALUES('x')", conn="c%d" % k)
		if i == 0:
			t.ok(threads_of(host) > base[1], "connections that write have threads in the host", (base[1], threads_of(host)))
		for k in range(8):
			p.send("close", conn="c%d" % k).result()
	wait_until(lambda: (fds_of(p), threads_of(p)) == before, 5, "the attached process has what it had: %r, %r" % (before, (fds_of(p), threads_of(p))))
	t.ok(True, "after the last close the attached process has the descriptors and threads of before")
	wait_until(lambda: (fds_of(host), threads_of(host)) == base, 5, "so has the host: %r, %r" % (base, (fds_of(host), threads_of(host))))
	t.ok(True, "and so has the host")


def raw(host):
	s = socket.socket(socket.AF_UNIX)
	d = os.open(os.path.dirname(host.db) + "/" + os.path.basename(host.db) + "-walraft", os.O_RDONLY)
	s.connect("/proc/self/fd/%d/node.sock" % d)
	os.close(d)
	s.settimeout(20)
	return s


@case("peers that speak nonsense")
def nonsense():
	c = t.cluster(n=1)
	host = c[0]
	a, = attach(host)
	fates = []

	def msg(kind, payload, version=1):
		return struct.pack("<IBBH", len(payload), kind, version, 0) + payload
	lock = msg(3, struct.pack("<II", 0, 1000))
	texts = [os.urandom(200), msg(3, b""), msg(3, b"x" * 9), msg(99, b""), msg(0, b""), msg(3, struct.pack("<II", 0, 1000), version=2),
	         struct.pack("<IBBH", 1 << 30, 3, 1, 0), msg(12, b"x" * 40), msg(12, b""), msg(11, b""), msg(7, b"\xff" * 9), msg(11, struct.pack("<Q", 1 << 60) + b"abc") + msg(12, b"\0" * 93),
	         lock + msg(11, struct.pack("<Q", 7) + b"abc") + lock, lock + msg(12, b"\0" * 93) + msg(77, b"")]
	texts += [bytes(t.rnd.randrange(256) for _ in range(t.rnd.randrange(1, 300))) for _ in range(400 if t.full else 40)]
	for text in texts:
		s = raw(host)
		s.sendall(b"attach 1\n")
		s.recv(4096)
		s.sendall(text)
		s.shutdown(socket.SHUT_WR)
		try:
			while s.recv(65536):
				pass
			fates.append(True)
		except OSError:
			fates.append(False)
		s.close()
	t.ok(all(fates) or fates.count(False) < 3, "connections that sent nonsense are closed", fates)
	for line in (b"attach 2\n", b"attach \n", b"attach 1 x\n"):
		s = raw(host)
		s.sendall(line)
		t.ok(b"another version" in s.recv(4096), "another version is told so (%r)" % line)
		s.close()
	# With the lock, and in the middle of a message: it keeps the lock no longer than it takes to see that.
	s = raw(host)
	s.sendall(b"attach 1\n")
	s.recv(4096)
	s.sendall(lock)
	s.recv(4096)
	a.open("impatient", pragmas=["busy_timeout=100"])
	t.equal(code_of(a, "INSERT INTO kv(k) VALUES('y')", conn="impatient"), BUSY, "a connection has the lock")
	s.sendall(struct.pack("<IBBH", 100, 11, 1, 0) + b"half")
	t.equal(code_of(a, "INSERT INTO kv(k) VALUES('z')", conn="impatient"), BUSY, "and while its message is not whole")
	s.close()
	t0 = time.monotonic()
	a.sql("INSERT INTO kv(k) VALUES('z')")
	t.ok(time.monotonic() - t0 < 1, "it is free as soon as that is gone")
	t.equal(value(a, "SELECT count(*) FROM kv"), 1, "the host and other processes go on as before")
	t.equal(host.stock("PRAGMA integrity_check"), ["ok"], "integrity_check")


FORKS = """
import os, signal, sqlite3, sys
boot = sqlite3.connect(":memory:")
boot.enable_load_extension(True)
boot.load_extension(sys.argv[2])
boot.close()
con = sqlite3.connect("file:%s?vfs=walraft" % sys.argv[1], uri=True, isolation_level=None)
con.execute("BEGIN IMMEDIATE")
con.execute("INSERT INTO kv(k) VALUES('never')")
child = os.fork()
if child == 0:
	signal.pause()
print(child, flush=True)
signal.pause()
"""


@case("a child of an attached process")
def forked():
	"""Has copies of its parent's descriptors, which must not keep its parent's lock."""
	c = t.cluster(n=1)
	p = subprocess.Popen([harness.PYTHON, "-c", FORKS, c[0].db, harness.MODULE], stdout=subprocess.PIPE, text=True, env=harness.child_env(), preexec_fn=harness.die_with_parent)
	child = int(p.stdout.readline())
	try:
		c[0].open("impatient", pragmas=["busy_timeout=100"])
		t.equal(code_of(c[0], "INSERT INTO kv(k) VALUES('x')", conn="impatient"), BUSY, "the parent has the lock")
		p.kill()
		p.wait()
		t0 = time.monotonic()
		c[0].sql("INSERT INTO kv(k) VALUES('x')")
		t.ok(time.monotonic() - t0 < 1, "it is free as soon as the parent is dead, although a child of it lives")
		t.equal(c[0].one("SELECT group_concat(k) FROM kv"), "x", "and nothing is left of its transaction")
	finally:
		os.kill(child, signal.SIGKILL)
		if p.poll() is None:
			p.kill()


@case("many connections")
def many():
	c = t.cluster(n=1)
	a, b = attach(c[0], 2)
	for k in range(100):
		a.open("c%d" % k, touch=False)
	jobs = [a.send("exec", conn="c%d" % k, sql="INSERT INTO kv(k) VALUES('m')") for k in range(100)]
	for j in jobs:
		j.result(60)
	t.equal(value(b, "SELECT count(*) FROM kv"), 100, "a hundred connections of one process write")


@case("a thousand readers of a follower's process")
def crowd():
	c = t.cluster(n=3)
	c.leader().sql("INSERT INTO kv(k) VALUES('seen')")
	f = c.followers()[0]
	a, = attach(f)
	go = os.path.join(c.dir, "go")
	n = 300 if harness.SANITIZER else 1000
	job = a.send("crowd", threads=n, rounds=2, sql="SELECT count(*) FROM kv", go=go, pragmas=["walraft_read='linearizable'"])
	wait_until(lambda: os.path.exists(go + ".ready"), 60, "the readers have their connections")
	open(go, "w").close()
	r = job.result(90)
	t.equal([r["seen"], r["reads"], r["errors"]], [[1], 2 * n, []], "%d connections of an attached process read at once" % n)
	t.say("median %.1f ms, worst %.1f ms" % (r["median_ms"], r["worst_ms"]))


@case("the limit")
def limit():
	c = t.cluster(n=1)
	a, = attach(c[0])
	a.sql("INSERT INTO kv(k) VALUES('x')")
	socks, last = [], b""
	for _ in range(1100):
		s = raw(c[0])
		s.sendall(b"attach 1\n")
		last = s.recv(4096)
		if b"which is the limit" in last:
			break
		socks.append(s)
	t.ok(900 < len(socks) <= 1000, "connections beyond a thousand are refused, with a text", (len(socks), last))
	a.sql("INSERT INTO kv(k) VALUES('x')")
	a.open("one more")
	e = a.error("INSERT INTO kv(k) VALUES('y')", conn="one more")
	t.ok(e is None or "limit" in e.walraft_error, "a connection that finds no room is told so", e)
	for s in socks:
		s.close()
	wait_until(lambda: code_of(a, "INSERT INTO kv(k) VALUES('y')", conn="one more") == 0, 10, "there is room again when they are closed")
	t.equal(c[0].stock("PRAGMA integrity_check"), ["ok"], "there is room again when they are closed")


@case("commits that no SQLite would make")
def odd_commits():
	"""Under a grant, and with all that is told about it right: but frames and sizes that do not go together. They harm neither the host nor its files."""
	c = t.cluster(n=1)
	host = c[0]
	a, = attach(host)
	a.sql("INSERT INTO kv(k) VALUES('before')")

	def whole(s):
		got = b""
		while len(got) < 8 or len(got) < 8 + struct.unpack("<I", got[:4])[0]:
			part = s.recv(65536)
			if not part:
				return b"\0" * 8
			got += part
		return got

	def commit(pgnos, db_after):
		s = raw(host)
		s.sendall(b"attach 1\n")
		whole(s)
		s.sendall(struct.pack("<IBBH", 8, 3, 1, 0) + struct.pack("<II", 0, 1000))
		epoch, _, _, sequence, _, header = struct.unpack("<Q16sBQQ48s", whole(s)[8:])
		n_page, = struct.unpack("<I", header[20:24])
		frames = b"".join(struct.pack(">6I", p, 0, 0, 0, 0, 0) + b"x" * 4096 for p in pgnos)
		s.sendall(struct.pack("<IBBHQ", 8 + len(frames), 11, 1, 0, 0) + frames)
		body = struct.pack("<QQIIIBQ48sQIB", epoch, sequence, len(pgnos), db_after(n_page), 5000, 0, len(frames), header, 0, 0, 0)
		s.sendall(struct.pack("<IBBH", len(body), 12, 1, 0) + body)
		try:
			answer = whole(s)
		except socket.timeout:
			answer = None
		s.close()
		return answer and (answer[4], struct.unpack("<i", answer[8:12])[0] if len(answer) > 12 else None)
	for what, pgnos, db_after in (("the largest size", [1], lambda n: 0xffffffff), ("nearly that", [1], lambda n: 0xfffffffe), ("more pages than frames", [1], lambda n: n + 3),
	                              ("page 0", [0], lambda n: n), ("page 0 among others", [2, 0, 2], lambda n: n)):
		t0 = time.monotonic()
		fate = commit(pgnos, db_after)
		t.ok(fate and fate[0] == 13 and fate[1] and time.monotonic() - t0 < 2, "%s: refused at once" % what, (fate, time.monotonic() - t0))
		t.equal(code_of(a, "INSERT INTO kv(k) VALUES('after')", timeout_s=20), 0, "and others write on")
	t.equal(value(a, "SELECT count(*) FROM kv"), 6, "with all that was acknowledged")
	t.equal(host.stock("PRAGMA integrity_check"), ["ok"], "integrity_check")


@case("the host ends")
def host_ends():
	"""In the ordinary way: what is under way gets its outcome, and others go on."""
	c = t.cluster(n=1)
	ps = attach(c[0], 3)
	for p in ps:
		p.start_load(threads=2, pause_ms=0)
	c.wait_acked(200)
	t.equal(c[0].term(), 0, "the host ends while others write")
	c.wait_acked(300)
	counts = [p.stop_load() for p in ps]
	t.ok(not any(x.get("U") for x in counts), "no outcome is unknown", counts)
	t.ok(all(x.get("A", 0) > 40 for x in counts), "each of them wrote on", counts)
	t.equal([value(p, "SELECT count(*) > 0 FROM kv") for p in ps], [1] * 3, "connections that were idle go on too")
	c.nodes[:] = [p for p in ps if is_host(p)]
	c.verify_load()
	t.equal(sum(is_host(p) for p in ps), 1, "one of them hosts the node now")


@case("the host is killed")
def host_killed():
	c = t.cluster(n=1)
	a, b = attach(c[0], 2)
	a.sql("INSERT INTO kv(k) VALUES('one')")
	b.sql("BEGIN IMMEDIATE")
	b.sql("INSERT INTO kv(k) VALUES('two')")
	c[0].kill9()
	e = b.error("COMMIT", timeout_s=20)
	t.ok(e and e.code in (harness.IOERR_FENCED, harness.IOERR_NOT_COMMITTED), "a transaction under way fails, and may be repeated", e)
	wait_until(lambda: code_of(b, "INSERT INTO kv(k) VALUES('three')") == 0, 20, "it writes again")
	wait_until(lambda: code_of(a, "INSERT INTO kv(k) VALUES('four')") == 0, 20, "so does the other")
	t.equal([r[0] for r in a.sql("SELECT k FROM kv ORDER BY id")], ["one", "three", "four"], "the others go on, with all that was acknowledged")
	t.ok(is_host(a) != is_host(b), "one of them hosts the node now")
	t.equal(a.stock("PRAGMA integrity_check"), ["ok"], "integrity_check")


@case("the host is killed while it makes the WAL anew")
def host_killed_in_restart():
	"""It may have been stopped there for so long that readers were told, who get on with the next host all the same."""
	c = t.cluster(n=1)
	a, b = attach(c[0], 2)
	a.sql("INSERT INTO kv(k) VALUES('one')")
	t.equal(value(b, "SELECT count(*) FROM kv"), 1, "a process reads")
	with open(os.path.join(c[0].db + "-walraft", "node-shm"), "r+b", buffering=0) as f:
		restarts, = struct.unpack("<Q", os.pread(f.fileno(), 8, 40))  # vfs/shared.h
		os.pwrite(f.fileno(), struct.pack("<Q", restarts | 1), 40)
	c[0].sql("INSERT INTO kv(k) VALUES('two')")
	e = b.error("SELECT count(*) FROM kv", timeout_s=20)
	t.ok(e and "restart of the WAL" in str(e), "whoever has to wait for its end too long is told so", e)
	c[0].kill9()
	until = time.monotonic() + 20
	code = code_of(b, "SELECT count(*) FROM kv")
	while code and time.monotonic() < until:
		code = code_of(b, "SELECT count(*) FROM kv")
	t.equal(code, 0, "the same connection reads at the next host")
	t.equal(value(a, "SELECT count(*) FROM kv"), 2, "with all that was acknowledged")


t.run()
