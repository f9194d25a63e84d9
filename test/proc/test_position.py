#!/usr/bin/python3
"""A restarted node finds its position: after kills, after a stock process recovered, checkpointed and deleted the WAL, with
a -shm left over; and refuses a file that was changed outside."""
import os
import subprocess

import harness
from harness import Test, stock, stock_rows, wait_until, walraft

t = Test(__file__, deadline_s=200)


def some_writes(c, n=30):
	l = c.leader()
	for i in range(n):
		l.sql("INSERT INTO kv(k, pad) VALUES('w%d', hex(randomblob(%d)))" % (i, t.rnd.randrange(1, 600)))
		if i % 3 == 0:
			l.sql("UPDATE a SET v = v + 1 WHERE id < %d" % t.rnd.randrange(100))
	return l


def stock_takes_over(db):
	"""A stock writer-capable process that recovers, reads, and as the last closer checkpoints and deletes the WAL."""
	r = stock(db, "SELECT count(*) FROM kv")
	assert r.returncode == 0, r.stderr
	return not os.path.exists(db + "-wal")


@t.case("a follower, a leader, all: killed and started")
def killed():
	c = t.cluster(n=3)
	rounds = 20 if t.full else 4
	for r in range(rounds):
		l = some_writes(c)
		victim = (c.followers()[0], l)[r % 2]
		victim.kill9()
		how = ("nothing", "stock took the WAL", "no -shm", "a wrong -shm")[(r // 2 + r) % 4]
		if how == "stock took the WAL":
			t.ok(stock_takes_over(victim.db), "round %d: stock sqlite3 recovered and deleted the WAL of the killed node" % r)
		elif how == "no -shm":
			os.unlink(victim.db + "-shm")
		elif how == "a wrong -shm":
			with open(victim.db + "-shm", "r+b") as f:
				f.write(os.urandom(32768))
		some_writes(c)
		victim.start()
		c.checksums_equal("round %d: %s killed, %s: checksums are equal after its return"
		                  % (r, "leader" if victim is l else "follower", how))
	c.integrity("integrity_check is ok on every node")


@t.case("all nodes at once")
def all_at_once():
	c = t.cluster(n=3)
	for r, how in enumerate(("nothing", "one taken by stock", "all taken by stock", "clean end, then stock")):
		some_writes(c)
		rows = c.converge() and c[0].stock("SELECT count(*), max(id) FROM kv")
		if how.startswith("clean"):
			t.equal(c.stop(), [0, 0, 0], "all end cleanly")
		else:
			for n in c.nodes:
				n.proc.kill()
			for n in c.nodes:
				n.proc.wait()
		for n in c.nodes[:{"nothing": 0, "one taken by stock": 1}.get(how, 3)]:
			t.ok(stock_takes_over(n.db), "%s: the WAL of node %d is gone" % (how, n.i))
		c.start_all()
		c.wait_ready()
		c.checksums_equal("%s: checksums are equal after the start" % how)
		t.equal([n.stock("SELECT count(*), max(id) FROM kv") for n in c.nodes], [rows] * 3, "%s: with all rows" % how)
	c.integrity("integrity_check is ok on every node")


@t.case("a stock process killed after its checkpoint")
def stock_checkpoint():
	"""db newer than any checkpoint mark of the node, the WAL still there."""
	c = t.cluster(n=3)
	some_writes(c, 60)
	n = c.followers()[0]
	n.kill9()
	con = subprocess.Popen([harness.SQLITE3, "-batch", "-init", "/dev/null", n.db], stdin=subprocess.PIPE, text=True,
	                       stdout=subprocess.PIPE, env=harness.stock_env(), preexec_fn=harness.die_with_parent)
	con.stdin.write("PRAGMA wal_checkpoint(PASSIVE);\nSELECT 'done';\n")
	con.stdin.flush()
	wait_until(lambda: "done" in con.stdout.readline(), 10, "the stock checkpoint is done")
	con.kill()
	con.wait()
	con.stdin.close()
	t.ok(os.path.exists(n.db + "-wal"), "a stock process checkpointed and was killed; the WAL is there")
	some_writes(c)
	n.start()
	c.checksums_equal("checksums are equal after the start")


@t.case("changed outside")
def changed():
	c = t.cluster(n=3)
	for what, sql in (("a row", "INSERT INTO kv(k) VALUES('outside')"),
	                  ("the same number of pages", "UPDATE a SET v = v + 1 WHERE id = 5"),
	                  ("VACUUM after a change", "DELETE FROM kv; VACUUM")):
		some_writes(c)
		n = c.followers()[0]
		c.converge()
		if what == "a row":
			n.term()
		else:
			n.kill9()
		saved = {s: open(n.db + s, "rb").read() for s in ("", "-wal") if os.path.exists(n.db + s)}
		r = stock(n.db, sql)
		assert r.returncode == 0, r.stderr
		some_writes(c)
		r = walraft("serve", n.db, timeout=30)
		t.ok(r.returncode != 0 and "outside" in r.stderr and n.db in r.stderr,
		     "%s changed by stock sqlite3: serve refuses, and names the file" % what, "%s %s" % (r.returncode, r.stderr))
		t.ok(r.returncode > 0, "%s: it does not crash" % what, r.returncode)
		for s in ("", "-wal", "-shm"):
			if os.path.exists(n.db + s):
				os.unlink(n.db + s)
			if s in saved:
				with open(n.db + s, "wb") as f:
					f.write(saved[s])
		n.start()
		c.checksums_equal("%s: with the file of before it starts and catches up" % what)
	t.equal(c[0].stock("SELECT count(*) FROM kv WHERE k = 'outside'"), ["0"], "the outside row is nowhere")


@t.case("single node")
def single():
	c = t.cluster(n=1, create=False)
	n = c[0]
	c.init()
	for r in range(4):
		n.worker()
		c.wait_ready()
		for i in range(20):
			n.sql("INSERT INTO kv(k) VALUES('%d.%d')" % (r, i))
		if r % 2:
			n.kill9()
			stock_takes_over(n.db)
		else:
			t.equal(n.term(), 0, "round %d: SIGTERM ends with status 0" % r)
		t.equal(stock_rows(n.db, "SELECT count(*) FROM kv"), [str(20 * (r + 1))], "round %d: all rows are in the file" % r)


t.run()
