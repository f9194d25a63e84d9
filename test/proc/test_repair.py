#!/usr/bin/python3
"""Journals that are damaged, lost, or put back from an old copy, on real nodes, while the others work.

What is missing is fetched; a node that may have forgotten an acknowledgement or a vote gives none before it is re-admitted, comes back by itself, and no
acknowledged row is lost though another node is killed right afterwards. --rounds N; --full is 10 rounds a case.
"""
import os
import shutil
import struct
import subprocess
import time

import harness
from harness import Failed, Test, wait_until

t = Test(__file__, deadline_s=240)
rounds = t.args.rounds or (10 if t.full else 1)

ENTRY, VOTE, END = 1, 3, 10
ENTRY_DATA_AT = 48
DATA = 1  # kind of entry


def segments(journal):
	return sorted(os.path.join(journal, f) for f in os.listdir(journal) if f.endswith(".seg"))


def records(path):
	"""(offset, type, length of the payload) of the records of a segment, as raft/JOURNAL.md has them."""
	with open(path, "rb") as f:
		b = f.read()
	at, found = struct.unpack_from("<I", b, 20)[0], []
	while 0 < at and at + 28 <= len(b):
		length, kind = struct.unpack_from("<IB", b, at + 8)
		if not 0 < kind <= 11 or at + 28 + length > len(b):
			break
		found.append((at, kind, length))
		at += (28 + length + 7) // 8 * 8
		if kind == END:
			break
	return found


def flip(path, at):
	with open(path, "r+b") as f:
		f.seek(at)
		byte = f.read(1)[0]
		f.seek(at)
		f.write(bytes([byte ^ 0x10]))


def journal(node):
	return os.path.join(node.db + "-walraft", "journal")


def last_vote(node):
	"""Path and offset of the latest vote record, if no later segment's header repeats it."""
	path = [p for p in segments(journal(node)) if records(p)][-1]
	votes = [at for at, kind, _ in records(path) if kind == VOTE]
	return (path, votes[-1]) if votes else None


def member(status, node):
	return next(m for m in status["members"] if m["url"] == node.url)


def load_cluster():
	# Slow enough that the others do not trim what the node lacks while it is away: then only a new image would do.
	c = t.cluster(n=3, kind="worker")
	for n in c.nodes:
		n.start_load(threads=1, pause_ms=40)
	c.wait_acked(15)
	return c


def wait_readmitted(c, node, what):
	def look():
		try:
			s = c.leader().status()
		except Failed:
			return None
		return s if member(s, node)["kind"] == "voter" and len([m for m in s["members"] if m["kind"] == "voter"]) == 3 else None
	node.wait_status(lambda s: not s["forgetful"] and not s["mending"], 40, what + " is not forgetful any more")
	return wait_until(look, 40, what + " is a voter again")


def comes_back(c, node, what, before_start):
	"""The node stops, something is done to its files, it starts, and another one is killed as soon as it counts again."""
	others = [n for n in c.nodes if n is not node]
	how = t.rnd.choice([node.term, node.kill9])
	how()
	c.wait_acked(20)
	before_start()
	node.worker()
	wait_readmitted(c, node, what)
	t.equal(node.status()["events"].get("role.readmitted"), 1, "%s: it was re-admitted (after %s)" % (what, how.__name__))
	victim = t.rnd.choice(others)
	victim.kill9()
	node.start_load(threads=1, pause_ms=40)
	c.wait_acked(15)
	victim.worker()
	victim.start_load(threads=1, pause_ms=40)
	c.wait_acked(15)


def finish(c, what):
	for n in c.nodes:
		if n.kind == "worker":
			n.stop_load()
	c.verify_load(what)
	c.integrity(what + "integrity")


@t.case("a journal that is gone")
def removed():
	for r in range(rounds):
		c = load_cluster()
		node = t.rnd.choice(c.followers())
		# A checkpoint must have been: without one nothing beside the journal tells where the database stands.
		node.term()
		node.worker()
		comes_back(c, node, "removed %d" % r, lambda: shutil.rmtree(journal(node)))
		finish(c, "removed %d: " % r)


@t.case("a journal from an old copy")
def old_copy():
	for r in range(rounds):
		c = load_cluster()
		node = t.rnd.choice(c.followers())
		copy = os.path.join(c.dir, "copy%d" % r)
		node.term()
		shutil.copytree(journal(node), copy)
		node.worker()
		c.wait_acked(15)

		def put_back():
			shutil.rmtree(journal(node))
			shutil.copytree(copy, journal(node))
		comes_back(c, node, "old copy %d" % r, put_back)
		finish(c, "old copy %d: " % r)


@t.case("a damaged vote")
def vote():
	c = load_cluster()
	done = 0
	for r in range(rounds * 3):
		# A new election, so that the latest vote record is in the segment that is written to.
		l = c.leader()
		l.sigstop()
		c.leader()
		l.cont()
		c.wait_acked(10)
		node = t.rnd.choice(c.followers())
		found = []
		damage = lambda: found.append(last_vote(node)) or (found[0] and flip(found[0][0], found[0][1] + 36))
		node.term()
		damage()
		if not found[0]:
			node.worker()
			node.start_load(threads=1, pause_ms=40)
			continue
		c.wait_acked(10)
		node.worker()
		t.ok(any(f.endswith(".bad") for f in os.listdir(journal(node))), "vote %d: what is damaged is set aside" % r)
		wait_readmitted(c, node, "vote %d" % r)
		t.equal(node.status()["events"].get("role.readmitted"), 1, "vote %d: it was re-admitted" % r)
		node.start_load(threads=1, pause_ms=40)
		victim = t.rnd.choice([n for n in c.nodes if n is not node])
		victim.kill9()
		c.wait_acked(20)
		victim.worker()
		victim.start_load(threads=1, pause_ms=40)
		done += 1
		if done == rounds:
			break
	t.ok(done == rounds, "%d damaged votes" % done)
	finish(c, "vote: ")


def entries(node):
	"""(path, offset, size) of the entries with data; a configuration cannot be a hole."""
	found = []
	for path in segments(journal(node)):
		with open(path, "rb") as f:
			b = f.read()
		found += [(path, at, length - 20) for at, kind, length in records(path) if kind == ENTRY and b[at + 13] == DATA]
	return found


@t.case("a damaged entry heals")
def hole():
	for r in range(rounds):
		c = load_cluster()
		node = t.rnd.choice(c.followers())
		how = t.rnd.choice([node.term, node.kill9])
		how()
		path, at, size = t.rnd.choice(entries(node)[:-5])
		flip(path, at + ENTRY_DATA_AT + t.rnd.randrange(size))
		c.wait_acked(10)
		node.worker()
		node.wait_status(lambda s: s["holes"] == 0 and not s["mending"], 30, "it is fetched")
		t.ok(not node.status()["forgetful"], "hole %d: nothing is forgotten (after %s)" % (r, how.__name__))
		node.start_load(threads=1, pause_ms=40)
		victim = t.rnd.choice([n for n in c.nodes if n is not node])
		victim.kill9()
		c.wait_acked(15)
		victim.worker()
		victim.start_load(threads=1, pause_ms=40)
		c.wait_acked(15)
		finish(c, "hole %d: " % r)
		# And it is in place for good.
		node.term()
		node.serve()
		t.ok("damaged" not in node.log_text(), "hole %d: it stays so" % r, node.log_text())


@t.case("a damaged entry on each node")
def three_holes():
	for r in range(rounds):
		c = load_cluster()
		c.wait_acked(30)
		for n in c.nodes:
			n.proc.kill()
		for n in c.nodes:
			n.proc.wait()
		# Entries that all have, so that each is whole somewhere else.
		common = min(len(entries(n)) for n in c.nodes)
		picks = t.rnd.sample(range(5, common - 10), 3)
		for n, k in zip(c.nodes, picks):
			path, at, size = entries(n)[k]
			flip(path, at + ENTRY_DATA_AT + t.rnd.randrange(size))
		c.start_all()
		c.wait_ready()
		for n in c.nodes:
			n.wait_status(lambda s: s["holes"] == 0 and not s["mending"] and not s["forgetful"], 30, "is whole")
			n.start_load(threads=1, pause_ms=40)
		c.wait_acked(15)
		finish(c, "three %d: " % r)


@t.case("no vote before it is re-admitted")
def no_vote():
	c = t.cluster(n=3, kind="serve")
	a, b, d = c.leader(), *c.followers()
	for n in (a, b, d):
		n.term()
	shutil.rmtree(journal(d))
	d.serve(wait_s=0)
	b.serve(wait_s=0)
	wait_until(lambda: "waits for what other members" in d.log_text() or "serving" in d.log_text(), 20, "the node without a journal runs")
	# Two of three, but one of them does not count: b stands again and again, and is not elected.
	b.wait_status(lambda s: s["role"] == "precandidate", 20, "stands")
	seen = set()
	asked = d.status()["events"].get("message.received", 0)
	wait_until(lambda: seen.add(b.status()["role"]) or d.status()["events"].get("message.received", 0) > asked + 10, 20, "it asks again and again")
	t.ok("leader" not in seen, "no leader by the vote of one that forgot", seen)
	t.ok(d.status()["forgetful"], "it knows that it forgot")
	a.serve()
	wait_readmitted(c, d, "no vote")
	t.ok(True, "it counts again once the third is back")
	a.kill9()
	c.leader(among=[b, d])
	t.ok(True, "and elects with the other one")


def waits_alone():
	"""Three nodes that have ended; the journal of one of them, returned, is from an old copy, so that its database is not found in it."""
	c = t.cluster(n=3, kind="worker")
	d = c.followers()[0]
	copy = os.path.join(c.dir, "copy")
	d.term()
	shutil.copytree(journal(d), copy)
	d.worker()
	for i in range(5):
		c.leader().sql("INSERT INTO kv(k, pad) VALUES('%d', '')" % i)
	c.checksums_equal("all have the rows")
	for n in c.nodes:
		n.term()
	shutil.rmtree(journal(d))
	shutil.copytree(copy, journal(d))
	return c, d


@t.case("SIGTERM while it waits")
def ends():
	c, d = waits_alone()
	d.serve(wait_s=0)
	d.wait_status(lambda s: s["mending"], 20, "waits")
	t.equal(d.term(timeout_s=5), 0, "SIGTERM ends a node that waits for its members")
	t.ok("serving" not in d.log_text(), "which it did")


TWO = """if 1:
	import signal, sqlite3, sys, threading, time
	m = sqlite3.connect(":memory:")
	m.enable_load_extension(True)
	m.load_extension(sys.argv[1])
	def first():
		try:
			sqlite3.connect("file:" + sys.argv[2] + "?vfs=walraft", uri=True, timeout=1).execute("SELECT 1 FROM kv").fetchall()
			print("opened")
		except sqlite3.Error as e:
			print(time.monotonic() - began > 20, e)
	began = time.monotonic()
	th = threading.Thread(target=first)
	th.start()
	while sys.stdin.readline() != "go\\n":
		pass
	for auto in 1, 0, 1:
		c = sqlite3.connect("file:" + sys.argv[3] + "?vfs=walraft&walraft_auto=%d" % auto, uri=True)
		c.execute("CREATE TABLE IF NOT EXISTS t(x)")
		c.close()
	print("other")
	sys.stdout.flush()
	th.join()
	sys.stdout.flush()
"""


@t.case("an application waits, and has other databases")
def application():
	c, d = waits_alone()
	p = subprocess.Popen([harness.PYTHON, "-c", TWO, harness.MODULE, d.db, os.path.join(t.tmp("other"), "other.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
	                     text=True, env=harness.child_env(), preexec_fn=harness.die_with_parent)
	try:
		d.wait_status(lambda s: s["mending"], 20, "waits")
		began = time.monotonic()
		p.stdin.write("go\n")
		p.stdin.flush()
		t.equal(p.stdout.readline(), "other\n", "another database of the process is opened meanwhile")
		t.ok(time.monotonic() - began < 10, "at once", time.monotonic() - began)
		if not t.full:
			return # its end takes half a minute
		last = p.stdout.readline()
		t.ok(last.startswith("True") and "other members" in last, "the open fails in the end, and says why", last)
		t.equal(p.wait(20), 0, "and the program ends")
	finally:
		p.kill()
		p.wait()


@t.case("a lone voter")
def lone():
	c = t.cluster(n=1, kind="serve")
	n = c[0]
	n.term()
	shutil.rmtree(journal(n))
	try:
		n.serve()
		t.ok(False, "a lone voter without its journal does not start")
	except Failed as e:
		t.ok("journal" in str(e), "a lone voter without its journal does not start, and says why", str(e))


t.run()
