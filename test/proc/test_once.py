#!/usr/bin/python3
"""Clients whose steps are applied exactly once, whatever happens: each repeats a step on some node or other until it knows that it was applied, while nodes are killed, stopped and cut off.

Each row holds the id of its transaction, so that what walraft_outcome says of every commit whose outcome was open can be compared with what is there.
--rounds N faults; --full is 300.
"""
import os
import random
import subprocess
import threading
import time

import netns
from cluster import SqlError
from harness import MODULE, PYTHON, Failed, Test, child_env, die_with_parent, wait_until

REPEATED = 8 | (0x58 << 8)
COMMIT_UNKNOWN = 10 | (0x58 << 8)
t = Test(__file__, deadline_s=240)
rounds = t.args.rounds or (300 if t.full else 6)
CLIENTS = 9
pause = threading.Event().wait  # how long a fault lasts
TABLE = "CREATE TABLE step(id INTEGER PRIMARY KEY, client TEXT, n INTEGER, txid TEXT);"


class Client(threading.Thread):
	"""One client: its steps one after the other, each repeated until it is known to be applied."""

	def __init__(self, c, i, lock, stop):
		super().__init__(daemon=True)
		self.c, self.name_, self.lock, self.stop = c, "client-%d" % i, lock, stop
		self.rnd = random.Random(t.seed * 100 + i)
		self.open_ = {}         # generation of the node's process that the connection is of
		self.applied = {}       # step: position
		self.open_ids = []      # of commits whose outcome was not told
		self.refused_ids = []   # of transactions that were told not to be committed
		self.repeats, self.codes, self.wrong, self.step = 0, {}, [], 0
		self.start()

	def sql(self, n, sql, params=()):
		with self.lock:
			p = n.send("exec", conn=self.name_, sql=sql, params=list(params))
		return p.result(30)["rows"]

	def connect(self, n):
		if self.open_.get(n.i) == n.generation:
			return
		with self.lock:
			p = n.send("open", conn=self.name_, pragmas=["walraft_timeout=400"], params={}, busy_s=0.4)
		p.result(30)
		self.open_[n.i] = n.generation

	def attempt(self, n):
		"""True: the step is applied."""
		txid, committing = None, False
		try:
			self.connect(n)
			self.sql(n, "BEGIN IMMEDIATE")
			at, txid = self.sql(n, "SELECT walraft_once(?, ?), walraft_transaction()", [self.name_, self.step])[0]
			if at is not None:
				self.repeats += 1
				self.applied[self.step] = at
				self.sql(n, "ROLLBACK")
				return True
			self.sql(n, "INSERT INTO step(client, n, txid) VALUES(?, ?, ?)", [self.name_, self.step, txid])
			committing = True
			self.sql(n, "COMMIT")
			committing = False
			self.applied[self.step] = self.sql(n, "SELECT walraft_position()")[0][0]
			return True
		except SqlError as e:
			self.codes[e.code] = self.codes.get(e.code, 0) + 1
			if committing and e.code in (COMMIT_UNKNOWN, REPEATED):
				self.open_ids.append(txid)
			elif committing:
				self.refused_ids.append(txid)
			if e.in_transaction:
				self.rollback(n)
		except Failed:
			self.codes["died"] = self.codes.get("died", 0) + 1
			if committing:
				self.open_ids.append(txid)
		return False

	def rollback(self, n):
		try:
			self.sql(n, "ROLLBACK")
		except (SqlError, Failed):
			self.open_.pop(n.i, None)

	def run(self):
		while not self.stop.is_set():
			self.step += 1
			while self.step not in self.applied and not (self.stop.is_set() and self.step - 1 in self.applied and not self.open_ids):
				live = [n for n in self.c.nodes if n.alive()]
				n = self.rnd.choice(live) if live else None
				if not n or not self.attempt(n):
					self.stop.wait(0.02)
				if self.stop.is_set() and self.step not in self.applied and time.monotonic() > self.stop.until:
					return


def fault(c, net):
	"""One fault, and its end."""
	kind = t.rnd.choice(("kill", "kill the leader", "stop", "stop the leader", "cut", "cut the leader"))
	try:
		n = c.leader(3) if kind.endswith("leader") else t.rnd.choice(c.nodes)
	except Failed:
		n = t.rnd.choice(c.nodes)
	if kind.startswith("kill"):
		n.kill9()
		pause(0.1)
		n.start(wait_s=0)
		wait_until(lambda: n.alive() and n.send("open", conn="main", pragmas=[], params={}).result(30), 30, "node %d is open" % n.i)
	elif kind.startswith("cut") and net:
		net.cut(n.i)
		pause(t.rnd.uniform(0.3, 1.2))
		net.heal(n.i)
	else:
		n.sigstop()
		pause(t.rnd.uniform(0.3, 1.2))
		n.cont()
	return kind.split()[0]


def check(c, clients, what):
	"""On each node: rows, positions and outcomes agree."""
	unknown = committed = 0
	for n in c.replicas():
		rows = n.sql("SELECT client, n, txid, walraft_outcome_position(txid) FROM step ORDER BY id")
		ids = {r[2] for r in rows}
		there = {}
		for client, step, txid, at in rows:
			there.setdefault((client, step), []).append(at)
		doubles = {k: v for k, v in there.items() if len(v) != 1}
		t.ok(not doubles, "%s, node %d: no step is applied twice (%d rows)" % (what, n.i, len(rows)), list(doubles.items())[:5])
		wrong = [(cl.name_, s, at, there.get((cl.name_, s))) for cl in clients for s, at in cl.applied.items() if there.get((cl.name_, s)) != [at]]
		t.ok(not wrong, "%s, node %d: each step that was applied is there, at the position that was told" % (what, n.i), wrong[:5])
		open_ids = [i for cl in clients for i in cl.open_ids]
		told = {i: n.one("SELECT walraft_outcome(?, 20000)", [i]) for i in open_ids}
		bad = [(i, o, i in ids) for i, o in told.items() if o != ("committed" if i in ids else "not committed")]
		t.ok(not bad, "%s, node %d: outcomes of %d commits that were open agree with what is there" % (what, n.i, len(told)), bad[:5])
		refused = [i for cl in clients for i in cl.refused_ids]
		t.ok(not [i for i in refused if i in ids], "%s, node %d: none of %d that were told not to be committed is there" % (what, n.i, len(refused)), refused[:5])
		unknown, committed = len(told), sum(o == "committed" for o in told.values())
	return unknown, committed


def ledgers(c):
	c.converge()
	return {(s["index"], s["checksum"], s["sessions"], s["whole"]) for s in (n.status()["ledger"] for n in c.replicas())}


@t.case("clients under kills, stops and cuts")
def clients():
	net = None if netns.available() else netns.Network(4)
	c = t.cluster(n=4, net=net, schema=TABLE, create=False)
	c.create(3)
	lock, stop = threading.Lock(), threading.Event()
	stop.until = float("inf")
	used = c.nodes
	c.nodes = used[:3]
	all_ = [Client(c, i, lock, stop) for i in range(CLIENTS)]
	kinds = {}
	for _ in range(rounds):
		done = sum(len(cl.applied) for cl in all_)
		kind = fault(c, net)
		kinds[kind] = kinds.get(kind, 0) + 1
		wait_until(lambda: sum(len(cl.applied) for cl in all_) >= done + 10, 60, "steps go on after: %s" % kind)
	stop.until = time.monotonic() + 30
	stop.set()
	for cl in all_:
		cl.join(60)
	t.ok(not any(cl.is_alive() for cl in all_), "all clients end")
	t.ok(all(cl.applied for cl in all_), "each has got on: %d steps, %d of them recognised when repeated; faults %s" % (
		sum(len(cl.applied) for cl in all_), sum(cl.repeats for cl in all_), kinds))
	unknown, committed = check(c, all_, "after the faults")
	codes = {}
	for cl in all_:
		for k, v in cl.codes.items():
			codes[k] = codes.get(k, 0) + v
	t.say("errors by code: %s; %d commits were open, %d of them committed" % (codes, unknown, committed))
	t.ok(unknown > 0 and committed > 0 or not t.full, "some were open, some of these committed")
	t.ok(len(ledgers(c)) == 1, "one ledger on all nodes", ledgers(c))
	c.nodes = used
	c.join(3)
	c[3].start()
	for n in c.nodes[:3]:
		n.kill9()
	c.nodes[3].kill9()
	c.start_all()
	c.wait_ready()
	check(c, all_, "after a join by an image, and all killed")
	t.ok(len(ledgers(c)) == 1, "one ledger on all nodes still", ledgers(c))
	for cl in all_:
		step, at = sorted(cl.applied.items())[-1]
		n = t.rnd.choice(c.nodes)
		n.sql("BEGIN IMMEDIATE")
		if n.one("SELECT walraft_once(?, ?)", [cl.name_, step]) != at:
			t.ok(False, "%s: step %d is recognised" % (cl.name_, step))
		n.sql("ROLLBACK")
	t.ok(True, "the latest step of each client is recognised on some node")


@t.case("commits whose outcome is open")
def open_outcomes():
	"""A commit that finds no quorum in time; then the quorum is back, or the leader gone, or cut off while the others go on."""
	net = None if netns.available() else netns.Network(3)
	c = t.cluster(n=3, net=net, schema=TABLE)
	told, wrong, hows = {}, [], {}
	for r in range(400 if t.full else 14):
		l = c.leader()
		n = t.rnd.choice(c.nodes)  # the commit may be a forwarded one
		how = t.rnd.choice(("back", "back", "back", "cut", "killed") if net else ("back", "back", "back", "killed"))
		conn, was = "r%d" % r, n.generation
		n.open(conn)
		others = [m for m in c.nodes if m is not l and m is not n]
		n.sql("BEGIN IMMEDIATE", conn=conn)
		txid = n.one("SELECT walraft_transaction()", conn=conn)
		n.sql("INSERT INTO step(client, n, txid) VALUES('open', ?, ?)", [r, txid], conn=conn)
		n.sql("PRAGMA walraft_timeout=60", conn=conn)
		if how == "cut":
			net.cut(l.i)
		elif n is l:
			for m in others:
				m.sigstop()
		else:
			l.sigstop()
		e = n.error("COMMIT", conn=conn)
		if how == "killed":
			l.kill9()
		for m in c.nodes:
			m.cont()
		if e is None or e.code != COMMIT_UNKNOWN:
			hows["other"] = hows.get("other", 0) + 1
		if how == "killed":
			l.start()
		elif how == "cut":
			# The others go on without it, sometimes.
			if t.rnd.random() < 0.7:
				c.leader(among=[m for m in c.nodes if m is not l])
			net.heal(l.i)
		asked = t.rnd.choice(c.nodes)
		outcome = asked.one("SELECT walraft_outcome(?, 30000)", [txid])
		there = asked.one("SELECT count(*) FROM step WHERE txid = ?", [txid])
		if e is None and outcome != "committed" or (outcome, there) not in (("committed", 1), ("not committed", 0)):
			wrong.append((r, how, str(e), outcome, there))
		if e is not None and e.code == COMMIT_UNKNOWN:
			told[outcome] = told.get(outcome, 0) + 1
			hows[how] = hows.get(how, 0) + 1
		if n.generation == was:
			n.send("close", conn=conn).result()
	t.ok(not wrong, "outcomes agree with what is there: %s of those that were open, %s" % (told, hows), wrong[:5])
	t.ok(told.get("committed", 0) > 0 and (told.get("not committed", 0) > 0 or not net), "there were both", told)
	ids = {i: n for i, n in c.leader().sql("SELECT txid, count(*) FROM step GROUP BY txid")}
	t.ok(set(ids.values()) == {1}, "none is there twice")
	t.ok(len(ledgers(c)) == 1, "one ledger on all nodes", ledgers(c))


@t.case("the manual's example")
def example():
	"""As it is printed there, in an application on a follower's host, while the leader is killed."""
	c = t.cluster(n=3, schema=TABLE)
	leader = c.leader()
	n = [m for m in c.nodes if m is not leader][0]
	with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")) as manual:
		text = manual.read()
	code = text[text.index("def once("):text.index('\nonce(db, "till-7"')]
	app = subprocess.Popen([PYTHON, "-u", "-c", """import sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
db = sqlite3.connect("file:%s?vfs=walraft" % sys.argv[2], uri=True, timeout=5, isolation_level=None)
CODE
for line in sys.stdin:
	step = int(line)
	print(once(db, "app", step, lambda db: db.execute("INSERT INTO step(client, n) VALUES ('app', ?)", (step,))))
""".replace("CODE", code), MODULE, n.db], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_env(), preexec_fn=die_with_parent)
	positions = []
	for i, step in enumerate((1, 1, 2, 3, 4, 4)):
		if i == 3:
			leader.kill9()
		app.stdin.write("%d\n" % step)
		app.stdin.flush()
		positions.append(app.stdout.readline().strip())
	app.stdin.close()
	t.equal(app.wait(20), 0, "it ends well")
	t.ok(all(len(p) == 16 for p in positions) and positions == sorted(positions), "each step has a position", positions)
	t.ok(positions[0] == positions[1] and positions[4] == positions[5], "a step that is repeated has the position that it had", positions)
	t.equal([r[0] for r in n.sql("SELECT n FROM step ORDER BY id")], [1, 2, 3, 4], "each was applied once")


t.run()
