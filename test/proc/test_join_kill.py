#!/usr/bin/python3
"""join while writes go on; join killed on either side: a second join finishes. Memory on either side (--full: 2 GiB)."""
import os
import subprocess
import time

import harness
from harness import Failed, RssWatch, SANITIZER, Test, walraft, wait_until

t = Test(__file__, deadline_s=200)
MIB = 1 << 20
size = (2048 if t.full else 48) * MIB
SCHEMA = """
CREATE TABLE kv(id INTEGER PRIMARY KEY, k TEXT NOT NULL, pad TEXT);
CREATE INDEX kv_k ON kv(k);
CREATE TABLE a(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);
CREATE TABLE b(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO a SELECT i, 0 FROM n;
INSERT INTO b SELECT id, 0 FROM a;
CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
INSERT INTO big SELECT i, randomblob(32000) FROM n;
""" % (size // 32000)


def tree_bytes(path):
	total = 0
	for d, _, files in os.walk(path):
		for f in files:
			try:
				total += os.stat(os.path.join(d, f)).st_blocks * 512
			except FileNotFoundError:
				pass
	return total


def begin_join(c, n, peer):
	log = open(n.log, "ab")
	p = subprocess.Popen([harness.WALRAFT, "join", n.db, "--listen", n.url, "--peer", peer.url], stdout=log, stderr=log,
	                     stdin=subprocess.DEVNULL, cwd=n.dir, env=harness.child_env(), preexec_fn=harness.die_with_parent)
	log.close()
	return p


def wait_part(n, p, part):
	wait_until(lambda: tree_bytes(n.dir) > part or p.poll() is not None, 120, "a part of the image is there", 0.002)
	if p.poll() is not None:
		raise Failed("join ended (%d) before the kill: make the database larger" % p.returncode)


@t.case("join during writes")
def during_writes():
	c = t.cluster(n=3, create=False, schema=SCHEMA)
	c.init()
	c[0].worker()
	c.leader()
	c[0].start_load(threads=4)
	c.wait_acked(20)
	for i in (1, 2):
		before = c.acked()
		p = begin_join(c, c[i], c[0])
		watch = RssWatch([p.pid, c[0].pid])
		try:
			p.wait(900)
		except subprocess.TimeoutExpired:
			p.kill()
		watch.stop()
		t.need(p.returncode == 0, "join of node %d while writes go on" % i, p.returncode)
		c[i].worker()
		c.wait_ready(members=i + 1)
		t.ok(c.acked() > before, "writes went on during the join (%d rows)" % (c.acked() - before))
		for who, pid in (("join", p.pid), ("peer", c[0].pid)):
			kb = watch.growth()[pid]
			name = "memory of %s grew by at most 64 MiB for %d MiB" % (who, size // MIB)
			if SANITIZER:
				t.skip(name, "sanitizer build")
			else:
				t.ok(kb <= 64 * 1024, "%s: %.1f MiB" % (name, kb / 1024))
		c[i].start_load(threads=2)
	c.wait_acked(50)
	for n in c.nodes:
		n.stop_load()
	c.verify_load()


@t.case("join killed")
def join_killed():
	c = t.cluster(n=3, create=False, schema=SCHEMA)
	c.init()
	c[0].worker()
	c.leader()
	c[0].start_load(threads=2)
	n = c[1]
	for part in (0.1, 0.5, 0.9):
		p = begin_join(c, n, c[0])
		wait_part(n, p, int(size * part))
		p.kill()
		p.wait()
		c.wait_acked(20)
		t.ok(True, "join killed at %d %%; the leader goes on writing" % (part * 100))
		r = walraft("serve", n.db, timeout=30)
		t.ok(r.returncode != 0 and "join" in r.stderr, "serve of a half-joined node says to join again", r.stderr)
	c.join(1)
	n.worker()
	c.wait_ready(members=2)
	t.ok(True, "a further join finishes")
	st = c[0].status()
	t.ok(len(st["members"]) == 2, "the killed ones left no member behind", st["members"])
	c[0].stop_load()
	c.verify_load()


@t.case("peer killed")
def peer_killed():
	c = t.cluster(n=3, create=False, schema=SCHEMA)
	c.init()
	c[0].worker()
	c.leader()
	n = c[1]
	p = begin_join(c, n, c[0])
	wait_part(n, p, size // 3)
	c[0].kill9()
	# Either it waits for the peer, or it ends with an error that says so; then a second one finishes.
	c[0].worker()
	c.leader()
	end = time.monotonic() + 60
	while p.poll() is None and time.monotonic() < end:
		time.sleep(0.05)
	if p.returncode is None:
		p.kill()
		p.wait()
	if not t.ok(p.returncode is not None and p.returncode >= 0, "join ends by itself when its peer is killed", p.returncode):
		t.say("it was still running after 60 s")
	if p.returncode != 0:
		c.join(1)
	n.worker()
	c.wait_ready(members=2)
	c.leader().sql("INSERT INTO kv(k) VALUES('after')")
	t.equal(n.one("SELECT k FROM kv"), "after", "the node is a voter and replicates")
	c.checksums_equal("checksums are equal")
	c.integrity("integrity_check is ok on every node")


@t.case("join through a follower")
def through_follower():
	c = t.cluster(n=3, create=False)
	c.init()
	c[0].worker()
	c.join(1)
	c[1].worker()
	c.wait_ready(members=2)
	f = c.followers()[0]
	r = walraft("join", c[2].db, "--listen", c[2].url, "--peer", f.url)
	if r.returncode == 0:
		c[2].worker()
		c.wait_ready(members=3)
		c.checksums_equal("a join whose peer is a follower works")
	else:
		t.ok(c.leader().url in r.stderr, "a join whose peer is a follower names the leader", r.stderr)
		c.join(2, peer=c.leader().i)
		c[2].worker()
		c.checksums_equal("and works with that")


t.run()
