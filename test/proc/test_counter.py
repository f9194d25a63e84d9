#!/usr/bin/python3
"""Four processes on each of two nodes increment one counter, while a node is killed every two seconds: the counter is what was acknowledged, and those of unknown
outcome that walraft_outcome says are committed."""
import collections
import os
import signal
import subprocess
import time

import harness
from harness import Test, wait_until

t = Test(__file__, full_deadline_s=1800)

PROCESSES = 4
SCHEMA = "CREATE TABLE counter(id INTEGER PRIMARY KEY, n INTEGER NOT NULL); INSERT INTO counter VALUES(1, 0);"


class Counters:
	"""The processes of one node."""

	def __init__(self, node):
		self.node, self.procs, self.n = node, [], 0

	def start_one(self):
		log = os.path.join(self.node.c.dir, "log", "counts-n%d-%d" % (self.node.i, self.n))
		self.n += 1
		with open(self.node.log, "ab") as err:
			self.procs.append(subprocess.Popen([harness.PYTHON, os.path.join(harness.HERE, "counter.py"), self.node.db, harness.MODULE, log],
			                                   stdin=subprocess.DEVNULL, stdout=err, stderr=err, env=harness.child_env(),
			                                   preexec_fn=harness.die_with_parent))

	def start(self):
		while len(self.procs) < PROCESSES:
			self.start_one()

	def host(self):
		try:
			with open(self.node.db + "-walraft/lock") as f:
				pid = int(f.read().split()[0])
		except (OSError, ValueError, IndexError):
			return None
		return next((p for p in self.procs if p.pid == pid), None)

	def kill(self, procs):
		for p in procs:
			p.kill()
		for p in procs:
			p.wait()
			self.procs.remove(p)

	def end(self):
		"""They end by themselves; how."""
		for p in self.procs:
			p.send_signal(signal.SIGTERM)
		codes = [p.wait(60) for p in self.procs]
		self.procs = []
		return codes


def logs(c):
	top = os.path.join(c.dir, "log")
	return [os.path.join(top, name) for name in sorted(os.listdir(top)) if name.startswith("counts-")]


def acknowledged(c):
	n = 0
	for path in logs(c):
		with open(path) as f:
			n += sum(line.startswith("A ") for line in f)
	return n


def told(c):
	"""What each transaction was told last: A, N, U, or B for nothing at all; and what nobody must be told; errors, counted."""
	last, wrong, errors = {}, [], collections.Counter()
	for path in logs(c):
		with open(path) as f:
			for line in f:
				what, _, rest = line.rstrip("\n").partition(" ")
				id, _, text = rest.partition(" ")
				if what == "X":
					wrong.append(rest)
				elif what != "#" and len(id) == 32:
					if last.get(id, "B") != "B" or (what == "B" and id in last):
						wrong.append("%s was %s, then %s" % (id, last[id], what))
					last[id] = what
				if text or what == "#":
					errors[rest if what == "#" else text] += 1
	return last, wrong, errors


def judge(c, what, before_joining):
	last, wrong, errors = told(c)
	t.ok(not wrong, "%s: nobody is told what must never be told" % what, wrong[:5])
	node = c[0]
	node.open("judge")
	ask = {}

	def settled(id):
		ask[id] = node.one("SELECT walraft_outcome(?, 5000)", [id], conn="judge")
		return ask[id] != "unknown"
	for id in last:
		wait_until(lambda: settled(id), 20, "the outcome of %s is known" % id)
	n = node.one("SELECT n FROM counter", conn="judge")
	kinds = collections.Counter((last[id], ask[id]) for id in last)
	t.say("%s: counter %d; %s" % (what, n, ", ".join("%s: %s %d" % (k + (v,)) for k, v in sorted(kinds.items()))))
	for text, count in errors.most_common(6):
		t.say("%5d x %s" % (count, text))
	t.equal([id for id in last if last[id] == "A" and ask[id] != "committed"], [], "%s: what was acknowledged is committed" % what)
	t.equal([id for id in last if last[id] == "N" and ask[id] != "not committed"], [], "%s: what was told not to be committed is not" % what)
	t.equal(n, sum(a == "committed" for a in ask.values()), "%s: the counter is what was acknowledged, and what is said to be committed" % what)
	for m in c.nodes[1:]:
		m.open("judge")
		others = {id: m.one("SELECT walraft_outcome(?, 5000)", [id], conn="judge") for id in ask}
		# Of what was before it joined a node may not know.
		different = [id for id in ask if others[id] != ask[id] and not (others[id] == "unknown" and id in before_joining)]
		t.equal(different, [], "%s: node %d says the same" % (what, m.i))
	return len(last), kinds


@t.case("a node is killed every two seconds")
def kills():
	rounds = t.args.rounds or (60 if t.full else 4)
	c = t.cluster(create=False, n=3, schema=SCHEMA)
	c.init()
	nodes = [Counters(c[i]) for i in range(2)]
	nodes[0].start_one()
	wait_until(lambda: acknowledged(c) > 0, 30, "the first increment")
	c.join(1)
	nodes[1].start_one()
	wait_until(lambda: c[1].status()["role"] == "follower", 30, "node 1 takes part")
	c.join(2)
	c[2].worker()
	wait_until(lambda: c[2].status()["role"] in ("follower", "leader"), 30, "node 2 takes part")
	before_joining = set(told(c)[0])
	for n in nodes:
		n.start()
	wait_until(lambda: acknowledged(c) > 20, 30, "increments")
	for i in range(rounds):
		before = acknowledged(c)
		due = time.monotonic() + 2
		victim = nodes[t.rnd.randrange(2)]
		if t.rnd.randrange(3):
			host = victim.host()
			victim.kill([host] if host else [])
		else:
			victim.kill(list(victim.procs))
		wait_until(lambda: acknowledged(c) > before, 30, "increments after kill %d" % i)
		wait_until(lambda: time.monotonic() > due - 0.5 or acknowledged(c) > before + 50, 30, "a moment")
		victim.start()
		wait_until(lambda: time.monotonic() > due, 30, "two seconds after the kill before")
	before = acknowledged(c)
	wait_until(lambda: acknowledged(c) > before + 20, 60, "increments after the last kill")
	t.equal([code for n in nodes for code in n.end()], [0] * (2 * PROCESSES), "the processes end by themselves")
	for m in c.nodes[:2]:
		m.worker()
	n, _ = judge(c, "after %d kills" % rounds, before_joining)
	t.ok(n > 10 * rounds, "enough was done", n)
	c.checksums_equal("checksums are equal")
	t.equal(c.stop(), [0, 0, 0], "all end well")


t.run()
