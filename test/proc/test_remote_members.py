#!/usr/bin/python3
"""Remote tables (walraft_remote): what is refused, members that die, hang or are cut off, many askers, hostile ones."""
import ctypes
import ctypes.util
import os
import re
import socket
import sqlite3
import struct
import subprocess
import threading
import time

import harness
import netns
from harness import Test, wait_until
from remote import ERROR_REMOTE, host, refusal, remote

t = Test(__file__)





@t.case("who may do what")
def refusals():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("INSERT INTO kv(k, pad) VALUES('one', 'p')")
	db = host()
	remote(db, "kv", l)
	for sql in ("INSERT INTO kv(k) VALUES('x')", "UPDATE kv SET pad = 1", "DELETE FROM kv", "CREATE INDEX i ON kv(k)", "ALTER TABLE kv ADD COLUMN z"):
		t.ok(any(w in str(refusal(db, sql)) for w in ("may not be modified", "virtual tables may not be")), "%s is refused" % sql, refusal(db, sql))
	dead = "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]
	for args, what in (("'%s', 'nothing'" % l.url, "no such table: nothing"), ("'%s', 'kv; DROP TABLE kv'" % l.url, "no such table"), ("'%s', 'main.kv'" % l.url, "no such table"),
	                   ("'%s', 'pragma_table_list'" % l.url, "no such table"), ("'%s'" % l.url, "is missing"), ("'walraft', 'kv'", "is no node address"),
	                   ("'%s', 'kv', level='wrong'" % l.url, "wrong"), ("'%s', 'kv', timeout=0" % l.url, "timeout is in milliseconds"),
	                   ("'%s', 'kv', wrong=1" % l.url, "what is"), ("'%s', 'kv'" % dead, "cannot connect"), ("'%s,', 'kv'" % l.url, "is no node address")):
		e = refusal(db, "CREATE VIRTUAL TABLE temp.no USING walraft_remote(%s)" % args)
		t.ok(what in str(e), "walraft_remote(%s) says so" % args, e)
	try:
		db.execute("CREATE VIRTUAL TABLE temp.no USING walraft_remote('%s', 'kv')" % dead)
	except sqlite3.Error as e:
		t.equal(getattr(e, "sqlite_errorcode", None), ERROR_REMOTE, "the extended code")
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "the table that was there goes on")
	for level in ("linearizable", "lease", "stale", "bounded:1000"):
		remote(db, "l", l, "kv", ", level='%s', timeout = 2000" % level)
		t.equal(db.execute("SELECT k FROM l").fetchall(), [("one",)], "level " + level)
		db.execute("DROP TABLE l")
	db.execute("CREATE VIRTUAL TABLE s USING walraft_remote('%s', 'sqlite_schema')" % l.url)
	t.ok(("kv",) in db.execute("SELECT name FROM s WHERE type = 'table'").fetchall(), "sqlite_schema tells which tables there are")

	db.execute("CREATE TABLE own(x)")
	db.execute("BEGIN")
	db.execute("INSERT INTO own SELECT k FROM kv")
	l.sql("ALTER TABLE kv RENAME COLUMN pad TO filling")
	e = refusal(db, "INSERT INTO own SELECT k FROM kv")
	t.ok("create it anew" in str(e), "other columns than at first: an error that says what to do", e)
	refusal(db, "CREATE VIRTUAL TABLE temp.no USING walraft_remote('%s', 'kv')" % dead)
	t.ok(db.in_transaction, "the transaction goes on after the errors")
	db.execute("COMMIT")
	t.equal(db.execute("SELECT x FROM own").fetchall(), [("one",)], "and is committed with what it wrote")
	db.execute("DROP TABLE kv")
	remote(db, "kv", l)
	t.equal(db.execute("SELECT filling FROM kv").fetchall(), [("p",)], "made anew, it has the new column")

	path = os.path.join(t.tmp("plain"), "plain.db")
	plain = host(path)
	plain.execute("CREATE VIRTUAL TABLE r USING walraft_remote('%s', 'kv')" % l.url)
	plain.execute("CREATE VIEW rv AS SELECT k FROM r")
	t.equal(host(path).execute("SELECT k FROM rv").fetchall(), [("one",)], "it can be kept in a database, and used in a view")
	l.term()
	e = refusal(host(path), "SELECT k FROM r")
	t.ok("cannot connect" in str(e), "with no member there its use is an error", e)


@t.case("a question that is forgotten")
def forgotten():
	if not t.full:
		t.skip("a question that is forgotten", "takes a minute: --full")
		return
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) INSERT INTO n SELECT i, printf('%0100d', i) FROM n")
	db = host()
	remote(db, "n", l)
	cur = db.execute("SELECT * FROM n")
	cur.fetchone()
	l.sql("UPDATE n SET pad = 'x'")

	def restarts():
		l.sql("UPDATE n SET pad = pad || 'y' WHERE id % 7 = 0")
		return l.status()["wal_frames"] < 2000
	wait_until(restarts, 120, "its snapshot keeps the WAL from being restarted no longer", every_s=0.5)
	t.ok(True, "after a minute the member gives the snapshot up")
	try:
		cur.fetchall()
		e = ""
	except sqlite3.Error as x:
		e = str(x)
	t.ok("nothing was asked for" in e, "and says so when more is asked for", e)
	t.equal(db.execute("SELECT count(*) FROM n").fetchall(), [(50000,)], "the next statement is answered")


@t.case("members come and go")
def members():
	c = t.cluster(n=3)
	l = c.leader()
	f, g = c.followers()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO n SELECT i, printf('%0100d', i) FROM n")
	db = host()
	remote(db, "n", f, extra=", timeout=3000")
	t.equal(db.execute("SELECT count(*) FROM n").fetchall(), [(30000,)], "a linearizable read at a follower")
	l.sql("DELETE FROM n WHERE id > 29000")
	t.equal(db.execute("SELECT count(*) FROM n").fetchall(), [(29000,)], "sees what was acknowledged just before")
	remote(db, "m", "%s,%s" % (f.url, g.url), "n", ", timeout=3000")
	cur = db.execute("SELECT * FROM m")
	cur.fetchone()
	f.kill9()
	try:
		cur.fetchall()
		e = ""
	except sqlite3.Error as x:
		e = str(x)
	t.ok("run the statement again" in e, "a member that dies in the middle of a scan: an error, and no end of the rows", e)
	t.equal(db.execute("SELECT count(*) FROM m").fetchall(), [(29000,)], "run again, the next address answers")
	e = refusal(db, "SELECT count(*) FROM n")
	t.ok("cannot connect" in str(e), "with no other address it says so", e)
	f.start()
	wait_until(lambda: db.execute("SELECT count(*) FROM n").fetchall() == [(29000,)], 20, "the first one answers again")
	t.ok(True, "a member that is back answers")

	c.wait_ready()
	l, (f, g) = c.leader(), c.followers()
	db = host()
	remote(db, "n", f, extra=", timeout=1000")
	remote(db, "s", f, "n", ", level='stale', timeout=1000")
	for n in (l, g):
		n.sigstop()
	t0 = time.monotonic()
	e = refusal(db, "SELECT count(*) FROM n")
	t.ok(e and time.monotonic() - t0 < 6, "cut off from its quorum a member refuses, in time (%.1f s)" % (time.monotonic() - t0), e)
	t.ok("may do better" in str(e) or "quorum" in str(e) or "leader" in str(e), "and says why", e)
	t.equal(db.execute("SELECT count(*) FROM s").fetchall(), [(29000,)], "at level stale it answers")
	for n in (l, g):
		n.cont()
	c.wait_ready()
	wait_until(lambda: db.execute("SELECT count(*) FROM n").fetchall() == [(29000,)], 20, "it answers again")
	cur = db.execute("SELECT * FROM s")
	cur.fetchone()
	f.sigstop()
	t0 = time.monotonic()
	try:
		cur.fetchall()
		e = ""
	except sqlite3.Error as x:
		e = str(x)
	t.ok("does not answer in time" in e and time.monotonic() - t0 < 10, "a member that hangs in the middle of a scan: an error in time (%.1f s)" % (time.monotonic() - t0), e)
	f.cont()
	wait_until(lambda: db.execute("SELECT count(*) FROM s").fetchall() == [(29000,)], 20, "it answers again")
	t.equal(f.term(), 0, "a member that was asked ends as ever")


@t.case("a node that goes over to another process")
def over():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) INSERT INTO n SELECT i, printf('%0100d', i) FROM n")
	db = host()
	remote(db, "n", l)
	cur = db.execute("SELECT * FROM n")
	cur.fetchone()
	daemon = subprocess.Popen([harness.WALRAFT, "serve", l.db], stderr=subprocess.PIPE, text=True, env=harness.child_env(), preexec_fn=harness.die_with_parent)
	while "serving" not in daemon.stderr.readline():
		if daemon.poll() is not None:
			raise harness.Failed("the daemon did not take the node")
	try:
		cur.fetchall()
		e = ""
	except sqlite3.Error as x:
		e = str(x)
	t.ok("run the statement again" in e, "a scan is cut short with an error", e)
	wait_until(lambda: db.execute("SELECT count(*) FROM n").fetchall() == [(50000,)], 20, "the daemon answers")
	t.ok(True, "the daemon answers instead")
	l.sql("CREATE VIRTUAL TABLE temp.r USING walraft_remote('%s', 'n')" % l.url)
	l.sql("BEGIN IMMEDIATE")
	l.sql("INSERT INTO n(pad) SELECT pad FROM temp.r WHERE id < 10")
	t.equal(l.sql("SELECT count(*) FROM temp.r"), [[50000]], "a host of the same cluster asks in the middle of its own transaction, and sees what is committed")
	l.sql("COMMIT")
	t.equal(db.execute("SELECT count(*) FROM n").fetchall(), [(50009,)], "and then all")
	daemon.terminate()
	t.equal(daemon.wait(30), 0, "the daemon ends as ever")


@t.case("a member that was removed")
def removed():
	c = t.cluster(n=2)
	l, f = c.leader(), c.followers()[0]
	l.sql("INSERT INTO kv(k) VALUES('one')")
	db = host()
	remote(db, "kv", f, extra=", level='stale'")
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "a follower answers")
	r = l.command("remove", f.url)
	t.need(r.returncode == 0, "it is removed", r.stderr)
	wait_until(lambda: "was removed" in f.command("status", "--json").stderr or f.status()["removed"], 20, "it knows")
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "then it names a member, and that one answers")
	l.kill9()
	e = refusal(db, "SELECT k FROM kv")
	t.ok("removed" in str(e), "with no other left it says that it was removed, also at level stale", e)


CLIENT = r"""
import sqlite3, sys, time
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension(sys.argv[1])
db.execute("CREATE VIRTUAL TABLE temp.n USING walraft_remote('%s', 'n', timeout=1500)" % sys.argv[2])
for line in sys.stdin:
	start = time.monotonic()
	try:
		if line == "begin\n":
			cur = db.execute("SELECT * FROM n")
			out = cur.fetchone() is not None
		else:
			out = len((cur if line == "rest\n" else db.execute("SELECT * FROM n")).fetchall())
	except sqlite3.Error as e:
		out = str(e)
	print("%.1f %s" % (time.monotonic() - start, out), flush=True)
"""


@t.case("a network that is cut")
def cut():
	why = netns.available()
	if why:
		t.skip("a client that is cut off", why)
		return
	net = netns.Network(2)
	c = t.cluster(n=1, net=net)
	l = c.leader()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO n SELECT i, printf('%0100d', i) FROM n")
	p = subprocess.Popen(net.prefix_cmd(1) + [harness.PYTHON, "-c", CLIENT, harness.MODULE[:-3], l.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
	                     env=harness.child_env(), preexec_fn=harness.die_with_parent)

	def say(word):
		p.stdin.write(word + "\n")
		p.stdin.flush()
		took, out = p.stdout.readline().strip().split(" ", 1)
		return float(took), out
	t.equal(say("begin")[1], "True", "a scan begins")
	net.cut(1)
	took, out = say("rest")
	t.ok("in time" in out and took < 5, "cut off in the middle: an error after %.1f s" % took, out)
	took, out = say("all")
	t.ok("in time" in out and took < 5, "cut off before: an error after %.1f s" % took, out)
	net.heal(1)
	wait_until(lambda: say("all")[1] == "100000", 20, "it answers again")
	t.ok(True, "healed, the same table answers")
	net.cut(1)
	l.sql("INSERT INTO n(pad) VALUES('x')")
	t.equal(l.term(), 0, "a member ends without waiting for who is cut off")
	p.kill()
	p.wait()


@t.case("a witness")
def witness():
	c = t.cluster(n=3, create=False)
	c.create(n=2)
	c.join_witness(2)
	c.leader().sql("INSERT INTO kv(k) VALUES('one')")
	db = host()
	remote(db, "kv", c[2])
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "a witness names a member that has tables, and that one is asked")
	for n in c.nodes[:2]:
		n.kill9()
	e = refusal(host(), "CREATE VIRTUAL TABLE r USING walraft_remote('%s', 'kv')" % c[2].url)
	t.ok("witness" in str(e), "with no other one left it says what it is", e)


@t.case("many at once")
def many():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO n SELECT i, printf('%0100d', i) FROM n")
	wrong, counts = [], []

	def client(k, db):
		remote(db, "n", l)
		for i in range(15):
			r = db.execute("SELECT count(*), sum(id) FROM n WHERE id > ?", (k * 10 + i,)).fetchall()
			want = 3000 - (k * 10 + i)
			if r[0][0] != want:
				wrong.append((k, i, r, want))
			counts.append(1)
		db.close()
	threads = [threading.Thread(target=client, args=(k, host())) for k in range(16)]
	for th in threads:
		th.start()
	for th in threads:
		th.join()
	t.ok(not wrong and len(counts) == 16 * 15, "sixteen clients at a time", wrong[:5])

	held = [host() for _ in range(70)]
	ok, busy = 0, ""
	for db in held:
		e = refusal(db, "CREATE VIRTUAL TABLE temp.n USING walraft_remote('%s', 'n')" % l.url)
		ok, busy = ok + (e is None), e or busy
	t.ok(ok == 64 and "busy" in busy, "more connections than there is room for are refused, with the reason", (ok, busy))
	for db in held:
		db.close()
	db = host()
	wait_until(lambda: refusal(db, "CREATE VIRTUAL TABLE temp.n USING walraft_remote('%s', 'n')" % l.url) is None, 10, "there is room again")
	cursors = [db.execute("SELECT pad FROM n") for _ in range(31)]
	t.equal({len(r.fetchmany(50)) for r in cursors}, {50}, "31 statements are open on one connection")
	more = [refusal(db, "SELECT a.id FROM n a, n b WHERE a.id = 1 AND b.id = 2")]
	t.ok("questions open" in str(more[0]), "more than 32 are refused", more)
	t.equal({len(r.fetchall()) for r in cursors}, {2950}, "those that are open go on")

	fds, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
	db = host()
	remote(db, "n", l)
	t.equal(len(os.listdir("/proc/self/task")), threads, "a client has no thread")
	cur = db.execute("SELECT id FROM n")
	cur.fetchone()
	pid = os.fork()
	if pid == 0:
		code = 1
		try:
			e = ""
			try:
				cur.fetchall()
			except sqlite3.Error as x:
				e = str(x)
			again = db.execute("SELECT count(*) FROM n").fetchall()
			code = 0 if "forked" in e and again == [(3000,)] else 2
		finally:
			os._exit(code)
	t.equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "a forked child is told that the cursor is its parent's, and then has a connection of its own")
	t.equal(len(cur.fetchall()), 2999, "the parent's cursor goes on")
	del cur
	db.close()
	t.equal(len(os.listdir("/proc/self/fd")), fds, "no descriptor is left after the close")
	wait_until(lambda: not [x for x in os.listdir("/proc/%d/task" % l.pid) if "query" in open("/proc/%d/task/%s/comm" % (l.pid, x)).read()], 20, "no thread is left at the member")
	t.ok(True, "when nobody asks, the member has no thread for it")


def checksum():
	xx = ctypes.CDLL(ctypes.util.find_library("xxhash"))
	xx.XXH3_64bits_withSeed.restype = ctypes.c_uint64
	xx.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
	return lambda data: struct.pack("<Q", xx.XXH3_64bits_withSeed(data, len(data), 1))


@t.case("hostile bytes")
def hostile():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("INSERT INTO kv(k) VALUES('one')")
	db = host()
	remote(db, "kv", l)
	port = int(l.url.rsplit(":", 1)[1])
	check = checksum()

	def varint(v):
		out = b""
		while v > 127:
			out, v = out + bytes([v & 127 | 128]), v >> 7
		return out + bytes([v])

	def packet(kind, corr=0, index=0, term=0, commit=0, hint=0, data=b"", text=b""):
		body = bytes([1, kind, 0]) + b"".join(varint(v) for v in (0, 0, 0, corr, term, index, 0, commit, hint)) + varint(len(text)) + text + varint(0) + varint(len(data)) + data
		body += check(body)
		return struct.pack("<I", len(body)) + body

	def connect():
		s = socket.create_connection(("127.0.0.1", port), 10)
		s.sendall(packet(HELLO))
		n = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))[0]
		s.recv(n, socket.MSG_WAITALL)
		return s

	def closed(s):
		s.settimeout(10)
		try:
			while s.recv(65536):
				pass
			return True
		except ConnectionError:
			return True
		except socket.timeout:
			return False
	text = open(os.path.join(os.environ.get("WALRAFT_SRC") or os.path.join(harness.HERE, "..", ".."), "wire", "msg.h")).read()
	types = re.findall(r"^\s*X\(([A-Z_0-9]+)\)", re.sub(r"/\*.*?\*/", "", text, flags=re.S), re.M)
	HELLO, OPEN, NEXT, CLOSE = (types.index(x) for x in ("HELLO", "QUERY_OPEN", "QUERY_NEXT", "QUERY_CLOSE"))
	for kind in ("VOTE_REQ", "APPEND", "JOIN_REQ", "IMAGE_OPEN", "LOCK_REQ", "QUERY_ROWS", "HELLO"):
		s = connect()
		s.sendall(packet(types.index(kind)))
		t.ok(closed(s), "who asks may not send %s" % kind)
	s = connect()
	s.sendall(packet(OPEN, 1, data=b"x" * 70000))
	t.ok(closed(s), "nor a question that is too long")
	s = connect()
	try:
		for i in range(20000):
			s.sendall(packet(OPEN, i + 1, data=os.urandom(200)))
	except OSError:
		pass
	t.ok(closed(s), "nor more than it waits for")
	question = b"\2kv\5stale" + varint(1000) + struct.pack("<Q", 0) + b"\0\0\0\0\0"
	n = 400 if t.full else 120
	for i in range(n):
		s = connect()
		data = bytearray(question)
		for _ in range(t.rnd.randrange(1, 6)):
			k = t.rnd.randrange(len(data) + 1)
			if t.rnd.random() < 0.5 and k < len(data):
				data[k] = t.rnd.randrange(256)
			else:
				data[k:k] = bytes([t.rnd.choice([0, 1, 127, 128, 255, t.rnd.randrange(256)])])
		s.sendall(packet(OPEN, 1, data=bytes(data), hint=t.rnd.randrange(3), index=t.rnd.randrange(2)) + packet(NEXT, t.rnd.randrange(3)) + packet(CLOSE, 1))
		s.close()
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "after %d malformed questions others are answered" % n)
	stalled = []
	l.sql("CREATE TABLE big(b)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO big SELECT randomblob(500000) FROM n")
	rss = harness.rss_anon_kb(l.pid)
	for i in range(8):
		d = host()
		remote(d, "big", l)
		cur = d.execute("SELECT b FROM big")
		cur.fetchone()
		stalled.append((d, cur))
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "clients that stall keep nobody else waiting")
	grown = harness.rss_anon_kb(l.pid) - rss
	t.ok(grown < (400000 if harness.SANITIZER else 80000), "and cost a bounded amount of memory (%d KiB)" % grown)
	t.equal({len(cur.fetchall()) for _, cur in stalled}, {39}, "and get their rows when they go on")
	t.equal(l.term(), 0, "the member ends as ever")


t.run()
