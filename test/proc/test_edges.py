#!/usr/bin/python3
"""Moments that are rarely met: a timeout within the journal's write, a truncated entry that is committed after all, a join beside leftovers,
a join cut short before its promotion, a forked child that outlives the host."""
import os
import shutil
import subprocess

import harness
from cluster import SqlError
from harness import IOERR_NOT_COMMITTED, Test, TimedOut, wait_until, walraft

t = Test(__file__, deadline_s=200)
STALL_SO = os.path.join(harness.BUILD, "test/proc/.libs/stall.so")
SCHEMA = "CREATE TABLE kv(id INTEGER PRIMARY KEY, v TEXT);"


def no_layer(name):
	if harness.SANITIZER:
		t.skip(name, "not beside a sanitizer's runtime")
	elif not os.path.exists(STALL_SO):
		t.skip(name, "stall.so is not built")
	else:
		return False
	return True


def opened(n, conn, pragmas=(), **params):
	n.send("open", conn=conn, pragmas=list(pragmas), params={k: str(v) for k, v in params.items()}).result()


def put(path, text):
	with open(path + ".new", "w") as f:
		f.write(text)
	os.rename(path + ".new", path)


def port(n):
	return n.url.rsplit(":", 1)[1]


@t.case("timeout within the journal's write")
def slow_write():
	if no_layer("timeout within the journal's write"):
		return
	c = t.cluster(n=1, create=False, schema=SCHEMA)
	c.init()
	stall = os.path.join(c.dir, "stall")
	n = c[0].worker(env={"LD_PRELOAD": STALL_SO, "STALL": stall})
	c.leader()
	n.sql("INSERT INTO kv VALUES(1, 'before')")
	opened(n, "a", walraft_timeout=300)
	opened(n, "b", ["busy_timeout=10000"], walraft_timeout=20000)
	n.sql("SELECT * FROM kv", conn="a")
	n.sql("SELECT * FROM kv", conn="b")
	put(stall, "")
	e = n.error("INSERT INTO kv VALUES(2, 'timed out')", conn="a")
	t.equal(e.code, harness.IOERR_UNKNOWN, "a commit in a slow journal is told to be open")
	p = n.ask("INSERT INTO kv VALUES(3, 'next')", conn="b")
	try:
		p.result(0.5)
		t.ok(False, "the next writer waits for it")
	except TimedOut:
		t.ok(True, "the next writer waits for it")
	os.unlink(stall)
	p.result(30)
	t.equal(n.status()["failure"], None, "the node goes on")
	n.kill9()
	n.worker()
	t.equal(n.sql("SELECT id FROM kv ORDER BY id"), [[1], [2], [3]], "after a restart all of it is there")
	n.sql("INSERT INTO kv VALUES(4, 'after')")


@t.case("truncated, then committed")
def truncated():
	if no_layer("truncated, then committed"):
		return
	c = t.cluster(n=5, schema=SCHEMA)
	stall, cut = os.path.join(c.dir, "stall"), os.path.join(c.dir, "cut")
	for n in c.nodes[2:]:  # they will vote, and then hang with the new leader's entry
		n.kill9()
		n.worker(env={"LD_PRELOAD": STALL_SO, "STALL": stall, "CUT": cut + "2"}, walraft_read="stale")
	c[0].kill9()
	c[0].worker(env={"LD_PRELOAD": STALL_SO, "CUT": cut})
	c.make_leader(0)
	a, keeper, others = c[0], c[1], c.nodes[2:]
	opened(a, "w", walraft_timeout=60000)
	a.sql("INSERT INTO kv VALUES(1, 'a')", conn="w")
	top = a.status()["last_index"]
	for n in c.nodes:
		n.wait_status(lambda s: s["published"] >= top, 10, "has published the first row")
	a.sql("BEGIN IMMEDIATE", conn="w")
	a.sql("INSERT INTO kv VALUES(2, 'lost?')", conn="w")
	put(stall, "")
	put(cut, " ".join(port(n) for n in others))
	put(cut + "2", port(keeper))
	p = a.ask("COMMIT", conn="w")
	wait_until(lambda: keeper.status()["last_index"] > top, 2, "one follower has the entry", 0.001)
	keeper.sigstop()
	try:  # a short-lived leader of the three others makes the old one truncate
		told = p.result(6)
	except (SqlError, TimedOut) as e:
		told = e
	for n in others:
		n.kill9()
	a.sigstop()
	for n in others[:2]:
		n.serve(wait_s=0)
	keeper.cont()
	c.leader(30)
	rows = keeper.stock("SELECT id FROM kv ORDER BY id")
	t.ok(not (isinstance(told, SqlError) and told.code == IOERR_NOT_COMMITTED and "2" in rows), "what was reported not committed is not there",
	     "%r %r" % (told, rows))
	os.unlink(cut)
	a.cont()
	if isinstance(told, TimedOut):
		try:
			told = p.result(30)
		except SqlError as e:
			told = e
	rows = a.sql("SELECT id FROM kv ORDER BY id", conn="w")
	t.ok(([2] in rows) != isinstance(told, SqlError), "in the end its asker learns what came of it", "%r %r" % (told, rows))
	c.checksums_equal("checksums are equal")


@t.case("join beside leftovers")
def leftovers():
	c = t.cluster(n=3, schema=SCHEMA)
	l, n = c.leader(), c.followers()[0]
	for _ in range(30):
		l.sql("INSERT INTO kv(v) VALUES(randomblob(3000))")
	c.checksums_equal("checksums are equal at first")
	n.term()
	os.unlink(n.db)
	shutil.rmtree(n.db + "-walraft")
	t.ok(os.path.exists(n.db + "-wal"), "the WAL of the database that was removed is left")
	l.sql("UPDATE kv SET v = randomblob(3000)")
	at = "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]
	r = walraft("join", n.db, "--listen", at, "--peer", l.url, timeout=60)
	t.ok(r.returncode == 1 and n.db + "-wal" in r.stderr and os.path.exists(n.db + "-wal"), "join names it and lets it be", r.stderr)
	os.unlink(n.db + "-wal")
	r = walraft("join", n.db, "--listen", at, "--peer", l.url, timeout=60)
	t.equal(r.returncode, 0, "with it gone join succeeds beside the old -shm")
	n.worker()
	c.checksums_equal("then checksums are equal")


@t.case("join cut short before its promotion")
def learner():
	c = t.cluster(n=2, create=False, schema=SCHEMA)
	c.init()
	c[0].worker()
	c.leader()
	n = c[1]
	p = subprocess.Popen([harness.WALRAFT, "join", n.db, "--listen", n.url, "--peer", c[0].url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
	                     cwd=n.dir, env=harness.child_env(), preexec_fn=harness.die_with_parent)

	def member():
		try:
			with open(n.db + "-walraft/node.conf") as f:
				return "state member" in f.read()
		except OSError:
			return False
	wait_until(member, 20, "the files are installed", 0.0002)
	p.kill()
	p.wait()
	n.worker()
	n.wait_status(lambda s: all(m["kind"] == "voter" for m in s["members"]), 20, "it becomes a voter by itself")
	t.ok(True, "the node becomes a voter by itself")
	c.leader().sql("INSERT INTO kv(v) VALUES('both')")
	c.checksums_equal("checksums are equal")


@t.case("an interrupted join touches no file but its own")
def not_its_own():
	c = t.cluster(n=2, create=False, schema=SCHEMA)
	c.init()
	c[0].worker()
	c.leader()
	n = c[1]
	dead = "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]
	r = walraft("join", n.db, "--listen", n.url, "--peer", dead, "--timeout", "1", timeout=30)
	t.ok(r.returncode == 1 and os.path.exists(n.db + "-walraft/node.conf"), "a join that got no answer keeps its id", r.stderr)
	with open(n.db, "w") as f:
		f.write("somebody's own")
	r = walraft("join", n.db, "--listen", n.url, "--peer", c[0].url, timeout=30)
	t.ok(r.returncode == 1 and "exists already" in r.stderr, "a file that appeared meanwhile is refused", r.stderr)
	with open(n.db) as f:
		t.equal(f.read(), "somebody's own", "and left as it was")
	os.unlink(n.db)
	r = walraft("join", n.db, "--listen", n.url, "--peer", c[0].url, timeout=30)
	t.equal(r.returncode, 0, "with it gone the join finishes")
	n.worker()
	c.wait_ready(members=2)
	other = os.path.join(c.dir, "third.db")
	r = walraft("join", other, "--listen", n.url.replace("127.0.0.1", "localhost"), "--peer", c[0].url, timeout=30)
	t.ok(r.returncode == 1, "an address that is taken is refused", r.stderr)


CHILD = """
import sqlite3, os, sys, signal
m = sqlite3.connect(":memory:")
m.enable_load_extension(True)
m.load_extension(sys.argv[1])
c = sqlite3.connect("file:" + sys.argv[2] + "?vfs=walraft", uri=True, isolation_level=None)
c.execute("INSERT INTO kv(v) VALUES('host')")
if os.fork() == 0:
	try:
		c.execute("INSERT INTO kv(v) VALUES('child')")
		print("wrote", flush=True)
	except sqlite3.Error as e:
		print("refused", hex(e.sqlite_errorcode), flush=True)
	print(os.getpid(), flush=True)
	signal.pause()
signal.pause()
"""


@t.case("a forked child outlives the host")
def forked():
	c = t.cluster(n=1, create=False, schema=SCHEMA)
	c.init()
	n = c[0]
	p = subprocess.Popen([harness.PYTHON, "-c", CHILD, harness.MODULE, n.db], stdout=subprocess.PIPE, text=True, env=harness.child_env(),
	                     preexec_fn=harness.die_with_parent)
	t.ok(p.stdout.readline().startswith("refused"), "the inherited connection refuses to write")
	child = int(p.stdout.readline())
	try:
		p.kill()
		p.wait()
		n.worker()
		t.equal(n.sql("SELECT v FROM kv"), [["host"]], "with the child alive the node starts again")
	finally:
		os.kill(child, 9)


t.run()
