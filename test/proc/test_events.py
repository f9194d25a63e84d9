#!/usr/bin/python3
"""`walraft events`: what a node decided, as lines, as JSON, as it comes, and as counts in its status."""
import json
import os
import socket
import subprocess
import threading

import harness
from harness import Test, wait_until, walraft

t = Test(__file__, deadline_s=120)


def events(node, *options):
	r = walraft("events", node.db, *options)
	t.need(r.returncode == 0, "events of node %d" % node.i, r.stderr)
	return r.stdout.splitlines()


@t.case("what was decided")
def decided():
	c = t.cluster(n=3, kind="worker")
	l, f = c.leader(), c.followers()[0]
	count = lambda node, name: node.status()["events"].get(name, 0)
	before = count(l, "log.committed"), count(f, "log.committed")
	l.sql("INSERT INTO kv(k) VALUES('a')")
	c.converge()
	t.ok(count(l, "log.committed") > before[0] and count(f, "log.committed") > before[1], "a commit counts on the leader and on a follower")
	t.ok(count(l, "machine.command") >= 1, "the leader's connection publishes it")
	t.ok(count(f, "machine.commands") >= 1, "the follower's publisher publishes it")
	t.ok(count(l, "role.leader") == 1 and count(f, "role.leader") == 0, "one has become the leader")
	l.sql("INSERT INTO kv(k) VALUES('b')")
	f.sql("SELECT count(*) FROM kv")
	t.ok(count(f, "machine.query") >= 1 and count(f, "read.served") >= 1, "a read on a follower asks the leader")
	t.ok(sum(count(n, "machine.snapshot") for n in c.nodes) == 2, "each of the two that joined opened an image")
	for n in c.nodes:
		missing = [e for e in ("journal.append", "journal.commit_buffer", "journal.sync", "log.durable", "message.received") if not count(n, e)]
		t.equal(missing, [], "node %d tells what its journal and its core did" % n.i)
	t.ok(count(f, "journal.fetch") >= 1, "the follower reads from its journal what it publishes")
	kept = [json.loads(e) for e in events(l, "--json")]
	latest = kept[-100:]
	t.ok(latest and [e["seq"] for e in latest] == list(range(latest[0]["seq"], latest[0]["seq"] + len(latest))), "as JSON: the latest are numbered without a gap")
	routine = ("message.", "journal.", "machine.", "log.durable", "log.committed", "read.served", "quorum.heartbeat", "quorum.succeeded")
	t.ok(len(kept) <= 200 and not [e for e in kept[:-100] if e["event"].startswith(routine)], "before them is what is no routine", kept[:-100])
	t.ok("role.leader" in [e["event"] for e in kept], "the election is still to be seen")
	commits = [e for e in kept if e["event"] == "log.committed"]
	t.ok(commits and all(e["index"] > 0 for e in commits), "with their fields", kept[-3:])
	peers = {m["id"] for m in l.status()["members"] if not m["self"]}
	t.equal({e["peer"] for e in kept if e["event"] == "message.sent"}, peers, "messages name the members they go to")
	t.ok(any("log.committed" in line and "index " in line for line in events(l)), "as lines for people")
	c.destroy()


@t.case("entries from the journal")
def fetched():
	c = t.cluster(n=3, kind="worker")
	l, away = c.leader(), c.followers()[0]
	away.kill9()
	for i in range(192):  # 12 MiB, more than the cache holds
		l.sql("INSERT INTO kv(k, pad) SELECT hex(randomblob(8)), randomblob(4096) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 16) SELECT i FROM n)")
	away.start()
	c.converge()
	counts = {n.i: n.status()["events"] for n in c.nodes}
	t.ok(sum(e.get("journal.fetch_between", 0) for e in counts.values()) > 0, "what a member lacks that was away is read from a journal, several entries for one message",
	     counts)
	source = [e for i, e in counts.items() if e.get("fetch.served")]
	t.ok(source and counts[l.i].get("peer.catch_up_source", 0) >= 2 and counts[away.i].get("fetch.taken"), "another member serves it: the leader, the source and the member say so", counts)
	c.destroy()


@t.case("as they come")
def follow():
	c = t.cluster(n=1, kind="worker")
	l = c.leader()
	p = subprocess.Popen([harness.WALRAFT, "events", l.db, "--json", "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
	                     env=harness.child_env(), preexec_fn=harness.die_with_parent)
	first = json.loads(p.stdout.readline())
	for i in range(200):
		l.sql("INSERT INTO kv(k) VALUES('k%d')" % i)
	last = l.status()["commit"]
	seq = first["seq"]
	while True:
		e = json.loads(p.stdout.readline())
		if e["seq"] != seq + 1:
			t.need(False, "no event is left out", (seq, e))
		seq = e["seq"]
		if e["event"] == "log.committed" and e["index"] >= last:
			break
	t.ok(True, "every event comes, in order, up to the last commit")
	p.terminate()
	t.equal((p.wait(10), p.stderr.read()), (0, ""), "SIGTERM ends it")
	c.destroy()


@t.case("nobody to ask")
def nobody():
	c = t.cluster(n=1, kind="worker")
	l = c.leader()
	l.term()
	r = walraft("events", l.db)
	t.ok(r.returncode == 1 and "is not running" in r.stderr, "a node that does not run: an error says so", r.stderr)
	c.destroy()


def asker(node):
	s = socket.socket(socket.AF_UNIX)
	s.settimeout(10)
	s.connect(os.path.relpath(os.path.join(node.db + "-walraft", "node.sock")))
	return s


@t.case("those who ask slowly, or too much")
def slow():
	c = t.cluster(n=1, kind="serve")
	n = c[0]
	asking, stop = [asker(n) for _ in range(12)], threading.Event()

	def feed():
		while not stop.wait(0.2):
			for s in list(asking):
				try:
					s.send(b"a")
				except OSError:
					asking.remove(s)
	th = threading.Thread(target=feed, daemon=True)
	th.start()
	wait_until(lambda: not asking, 20, "all of them are sent away in time")
	for text in b"change " + b"x" * 100000 + b"\n", b"", b"change add=\n", b"\0\n":
		s = asker(n)
		try:
			s.send(text)
			s.shutdown(socket.SHUT_WR)
			s.recv(4096)
		except OSError:
			pass
		s.close()
	t.equal(n.status()["role"], "leader", "what is not understood, or too long, does no harm")
	asking.extend(asker(n) for _ in range(7))
	t.equal(n.term(timeout_s=5), 0, "who sends byte by byte does not keep the node from ending")
	stop.set()
	th.join()


t.run()
