#!/usr/bin/python3
"""What reads at each level see, from histories that clients on all nodes record while nodes are cut off, stopped, killed, and their clocks go wrong.

At the levels linearizable and lease nothing old is ever read, be the clocks as wrong as RAFT_DRIFT_PPM allows. Beyond it, and at level stale, old
values are read, and the judges (levels.py, test/lin) find them. --full: a minute each, --minutes N for more.
"""
import os
import shutil
import time

import harness
import history
import levels
import load
import netns
from harness import IOERR_READ_GATE, Test, wait_until
from cluster import Node, SqlError

DRIFT_PPM = 230000  # RAFT_DRIFT_PPM of raft/raft.h

t = Test(__file__, deadline_s=200)
no_net = netns.available()
no_skew = "a second library is preloaded" if harness.SANITIZER else ""


class Guest(Node):
	"""Another process on the host of a node, which uses the same files: whichever comes first is the node."""

	def __init__(self, node):
		self.__dict__.update(node.__dict__)
		self.log = os.path.join(self.c.dir, "log", "guest%d.log" % self.i)
		self.proc, self.generation, self.stopped = None, 0, False


class World:
	"""A cluster with clients, whose clocks may be set wrong."""

	def __init__(self, drift=True, **kw):
		libs = " ".join(os.path.join(harness.BUILD, "test/proc/.libs", l) for l in ("skew.so", "stall.so"))
		env = {"LD_PRELOAD": libs, "SKEW": "skew", "STALL": "stall"} if drift and not no_skew else {}
		self.c = t.cluster(create=False, n=3, schema=history.SCHEMA, env=env, net=None if no_net else netns.Network(3), **kw)
		self.drifting = bool(env)
		self.clocks = [levels.Clock(os.path.join(n.dir, "skew")) for n in self.c.nodes]
		self.c.create()
		self.log = os.path.join(self.c.dir, "log", "history")
		self.start_ns = history.now_ns()
		self.guests = []

	def invite(self):
		self.guests = [Guest(n) for n in self.c.nodes]
		for g in self.guests:
			g.worker()

	def drift(self, n, ppm):
		"""The rate of the clock of node n's machine, from now on."""
		if self.drifting:
			self.clocks[n.i].set(ppm)

	def clients(self, n, mixed=("linearizable", "stale"), readers=("linearizable", "lease", "bounded:50", "bounded:1000")):
		"""Starts clients in node n; those that only read are not held up by commits that find no quorum."""
		where = "n"
		if isinstance(n, Guest):
			where, mixed, readers = "guest", mixed[:1], readers[:2] + ("stale",)
		for which, levels_, pace_ms, writes in (("", mixed, 6, 0.5), ("r", readers, 10, 0)):
			n.send("clients", log=self.log, tag="%s%d%sg%d" % (where, n.i, which, n.generation), seed=t.seed, levels=list(levels_), start_ns=self.start_ns,
			       turn_s=3, pace_ms=pace_ms, writes=writes, timeout_ms=1000).result()

	def end(self, what):
		"""Ends the clients; all nodes are up. The judge."""
		c = self.c
		for n in c.nodes + self.guests:
			n.sql("SELECT max(n) FROM hist")  # whose host has gone looks for another one: there is to be one when the clients have left
			n.stop_load()
		c.checksums_equal(what + ": checksums are equal")
		h = levels.History(self.log)
		hist = [[int(r[0]), r[1], r[2]] for r in (l.split("|") for l in c[0].stock("SELECT n, k, v FROM hist ORDER BY n"))]
		for n in c.nodes[1:]:
			t.equal(n.stock("SELECT count(*), max(n) FROM hist"), ["%d|%d" % (len(hist), len(hist))], "%s: node %d has the same history" % (what, n.i))
		return levels.Judge(h, hist)

	def judge(self, what):
		"""All that must be so."""
		j = self.end(what)
		t.say("\n".join(j.h.count()))
		for name, text in j.JUDGED:
			bad = getattr(j, name)()
			if not t.ok(not bad, "%s: %s" % (what, text), "%d wrong:\n%s" % (len(bad), "\n".join(bad[:10]))):
				self.keep()
		ids = sorted({op.id for op in j.h.ops if op.id})
		for n in t.rnd.sample(self.c.nodes + self.guests, 2):
			n.open("outcomes", pragmas=["walraft_read='stale'"])
			bad = j.ids({i: n.one("SELECT walraft_outcome(?)", [i], conn="outcomes") for i in ids})
			if not t.ok(not bad, "%s: walraft_outcome is right about %d transactions, of %d the commit was not told" % (
					what, len(ids), sum(op.outcome in ("info", "open") and bool(op.id) for op in j.h.ops)), "%d wrong:\n%s" % (len(bad), "\n".join(bad[:10]))):
				self.keep()
		file = os.path.join(self.c.dir, "linear.jsonl")
		j.h.write(file, levels.LINEAR)
		rc, text = levels.lin(file)
		t.say("\n".join(text.splitlines()[-4:]))
		if not t.ok(rc == 0, "%s: the history of writes and linearizable reads is linearizable" % what, text[-3000:]):
			self.keep()
		return j

	def keep(self):
		to = os.path.join(harness.BUILD, "test/proc/levels-%d" % t.seed)
		shutil.copytree(os.path.join(self.c.dir, "log"), to, dirs_exist_ok=True)
		for f in os.listdir(self.c.dir):
			if f.startswith("linear"):
				shutil.copy(os.path.join(self.c.dir, f), to)
		t.say("the history, logs and pictures: " + to)


def moment(low_s, high_s):
	end = time.monotonic() + t.rnd.uniform(low_s, high_s)
	wait_until(lambda: time.monotonic() > end, high_s + 5, "a moment")


class Faults:
	"""Something goes wrong, for a while, and is put right."""

	def __init__(self, w):
		self.w, self.c, self.done = w, w.c, []
		self.late_clients = Recorder(w, "late")
		self.kinds = ["stop", "kill", "transfer", "late"] + ([] if no_net else ["cut", "cut_in", "cut_out"]) + (["drift", "hang"] if w.drifting else [])
		self.kinds += ["drift_cut"] * 2 if w.drifting and not no_net else []
		self.kinds += ["kill_all"] if t.full or t.args.minutes else []

	def node(self):
		"""A node, the leader as often as both others together."""
		l = self.c.leader()
		return l if t.rnd.random() < 0.5 else t.rnd.choice([n for n in self.c.nodes if n is not l])

	def process(self, n):
		"""One of those on its machine."""
		return t.rnd.choice([n] + [g for g in self.w.guests if g.i == n.i])

	def one(self, kind):
		n = self.node()
		self.done.append("%s n%d" % (kind, n.i))
		getattr(self, kind)(n)
		self.c.leader()

	def stop(self, n):
		n = self.process(n)
		n.sigstop()
		moment(0.4, 1.4)
		n.cont()

	def kill(self, n):
		n = self.process(n)
		n.kill9()
		moment(0, 0.6)
		n.start(wait_s=20)
		self.w.clients(n)

	def kill_all(self, _):
		for n in self.c.nodes + self.w.guests:
			n.kill9()
		self.c.start_all()
		for g in self.w.guests:
			g.start()
		for n in self.c.nodes + self.w.guests:
			self.w.clients(n)

	def late(self, _):
		"""A transaction on a node that does not lead, until the leader has given its write lock to others: the node is stopped, or its COMMIT is on the way for so long."""
		n = t.rnd.choice([m for m in self.c.nodes if m is not self.c.leader()])
		rec, v = self.late_clients, "late%d" % len(self.done)
		n.open("late", pragmas=["walraft_timeout=3000"])
		try:
			n.sql("BEGIN IMMEDIATE", conn="late")
			n.sql(history.WRITE, ["r", v], conn="late")
		except SqlError as e:  # others have the lock, or it is between leaders
			t.say("late: %s" % e)
			return
		if no_net or t.rnd.random() < 0.3:
			n.sigstop()
			moment(1.0, 1.3)
			n.cont()
			rec.do(n, "write", "r", v, sql="COMMIT", conn="late")
		else:
			self.c.net.cut_out(n.i)
			answer = rec.begin(n, "write", "r", v, sql="COMMIT", conn="late")
			moment(1.0, 1.3)
			self.c.net.heal(n.i)
			rec.end(n, answer, "write", v, "COMMIT")

	def transfer(self, n):
		n.command("transfer", t.rnd.choice([m.url for m in self.c.nodes]))

	def _cut(self, n, how):
		how(n.i)
		moment(0.3, 1.1)
		self.c.net.heal(n.i)

	def cut(self, n):
		self._cut(n, self.c.net.cut)

	def cut_in(self, n):
		self._cut(n, self.c.net.cut_in)

	def cut_out(self, n):
		self._cut(n, self.c.net.cut_out)

	def hang(self, _):
		"""The leader's disk: its own thread knows of nothing, the readers' threads go on."""
		file = os.path.join(self.c.leader().dir, "stall")
		open(file, "w").close()
		moment(0.7, 1.1)
		os.unlink(file)

	def drift(self, n):
		"""All clocks within the bound, and mostly at its ends: the node's slow, so that its lease lasts, the others' fast."""
		b = DRIFT_PPM - 1
		for m in self.c.nodes:
			self.w.drift(m, t.rnd.choice([-b if m is n else b, -b if m is n else b, 0, t.rnd.randrange(-b, b)]))

	def drift_cut(self, _):
		"""A lease that lasts as long as it may, at a leader that is cut off while the others have the least patience."""
		l, b = self.c.leader(), DRIFT_PPM - 1
		for m in self.c.nodes:
			self.w.drift(m, -b if m is l else b)
		moment(0.3, 0.4)  # for heartbeats at the new rates
		self._cut(l, self.c.net.cut)

	def run(self, seconds):
		"""Each kind once, and so on until the time is over."""
		end, bag = time.monotonic() + seconds, t.rnd.sample(self.kinds, len(self.kinds))
		while bag or time.monotonic() < end:
			bag = bag or t.rnd.sample(self.kinds, len(self.kinds))
			self.one(bag.pop())
			moment(0.05, 0.3)
		t.say("faults: " + ", ".join(self.done))


def length(short_s):
	return t.args.minutes * 60 if t.args.minutes else 60 if t.full else short_s


GOOD = [  # process, level, op, key, value, began, ended, outcome, seen, number
	("a", "", "write", "r", "1", 10, 20, "ok", None, None),  # number 2
	("b", "lease", "read", "r", None, 30, 40, "ok", "1", 2),
	("a", "", "append", "l", "2", 30, 50, "ok", None, None),  # 3
	("b", "", "append", "l", "3", 60, 70, "fail", None, None),
	("b", "", "cas", "r", ["1", "4"], 80, 120, "info", None, 3),  # 4
	("c", "bounded:1", "read", "l", None, 130, 140, "ok", ["2"], 3),
	("d", "bounded:1", "read", "r", None, 150, 160, "ok", "4", 4),
	("c", "linearizable", "bank", "bank", None, 150, 160, "ok", history.TOTAL, 4),
]
HIST = [(1, "first", "first"), (2, "r", "1"), (3, "l", "2"), (4, "r", "4")]


def judged(name, ops, hist):
	"""What each judge says, as counts."""
	log = os.path.join(t.tmp("judges"), name)
	for i, (process, level, op, key, value, began, ended, outcome, seen, n) in enumerate(ops):
		c = history.Client(history.Spec("", log, "%d" % i, 0, level, 0, 3, 1, 0, 0), 0)
		c.name = process
		c.invoke(op, key, value, time=began * 1000000, **({} if n is None else {"n": n}))
		c.done(outcome, time=ended * 1000000, **({} if seen is None else {"value": seen}), **({"m": n} if op == "bank" else {}))
	j = levels.Judge(levels.History(log), hist)
	return {name: len(getattr(j, name)()) for name, _ in j.JUDGED if getattr(j, name)()}


@t.case("the judges")
def judges():
	def but(i, **kw):
		names = ("process", "level", "op", "key", "value", "began", "ended", "outcome", "seen", "n")
		return GOOD[:i] + [tuple(kw.get(name, v) for name, v in zip(names, GOOD[i]))] + GOOD[i + 1:]
	for name, ops, hist, want in (
		("what is right", GOOD, HIST, {}),
		("lost", GOOD, HIST[:2] + [(3, "l", "x"), HIST[3]], {"outcomes": 2, "values": 1}),
		("twice", GOOD, HIST + [(5, "r", "1")], {"outcomes": 1, "order": 3, "bounded": 2, "back": 1}),
		("failed but there", but(2, outcome="fail"), HIST, {"outcomes": 1}),
		("invented", GOOD, HIST + [(5, "r", "x")], {"outcomes": 1}),
		("a cas over others", but(4, n=2), HIST, {"outcomes": 1}),
		("never committed", but(1, seen="9"), HIST, {"values": 1}),
		("torn", but(7, seen=history.TOTAL - 1), HIST, {"values": 1}),
		("an older value", but(7, n=2), HIST, {"order": 1, "back": 1}),
		("a write before what was there", but(0, process="e", began=60, ended=70), HIST, {"order": 1}),
		("bounded, too old", but(6, seen="1", n=2), HIST, {"bounded": 1}),
		("bounded, just within", but(6, seen="1", n=2, began=51, ended=52), HIST, {}),
		("stale, back", GOOD + [("d", "stale", "read", "l", None, 170, 180, "ok", ["2"], 3)], HIST, {"back": 1}),
		("stale, older", GOOD + [("e", "stale", "read", "l", None, 170, 180, "ok", [], 2)], HIST, {}),
	):
		t.equal(judged(name, ops, hist), want, "the judges' word on: " + name)


@t.case("each level, with faults")
def faults():
	w = World()
	w.invite()
	for n in w.c.nodes + w.guests:
		w.clients(n)
	f = Faults(w)
	f.run(length(8))
	for n in w.c.nodes:
		w.drift(n, 0)
	j = w.judge("faults")
	for level in {op.level for op in j.h.ops} - {"late"}:
		t.ok(sum(op.level == level and op.outcome == "ok" for op in j.h.ops) > 100, "faults: there are answers at level %s" % level)


def old_read(w, name, level, slow=False):
	"""The leader is cut off while others lead and write: what one more read on it at that level gives. All is in the record, reads under that name. slow: its
	clock nearly stands from then on."""
	c = w.c
	l = c.leader()
	rec = Recorder(w, name)
	rec.do(l, "write", name, "before " + name)
	c.converge()
	l.open(name, pragmas=["walraft_read='%s'" % level, "walraft_timeout=500"])
	rec.do(l, "read", name, conn=name)
	if slow:
		w.drift(l, -980000)
	c.net.cut(l.i)
	new = c.leader(among=[n for n in c.nodes if n is not l])
	rec.do(new, "write", name, "after " + name)
	answer = rec.do(l, "read", name, conn=name)
	if slow:
		w.drift(l, 0)
	c.net.heal(l.i)
	c.converge()
	return answer


class Recorder:
	"""A history of single operations, one after the other; each node's are a client's."""

	def __init__(self, w, name):
		self.clients = [history.Client(history.Spec("", w.log, "t", 0, name, 0, 3, 1, 0, 0), n.i) for n in w.c.nodes]

	def begin(self, n, op, key, value=None, conn="main", sql=history.WRITE):
		self.clients[n.i].invoke(op, key, value)
		if op == "write":
			return n.ask(sql, [key, value] if sql == history.WRITE else [], conn=conn)
		return n.ask(history.READ, [key], conn=conn)

	def end(self, n, answer, op, value, sql=history.WRITE):
		rec = self.clients[n.i]
		try:
			rows = answer.result()["rows"]
		except SqlError as e:
			e.sqlite_errorcode = e.code
			rec.done({"N": "fail"}.get(load.judge(e, sql == "COMMIT"), "info"), code=e.code, why=e.walraft_error)
			return e
		if op == "write":
			rec.done("ok")
			return value
		rec.done("ok", value=rows[0][0], n=rows[0][1])
		return rows[0][0]

	def do(self, n, op, key, value=None, conn="main", sql=history.WRITE):
		return self.end(n, self.begin(n, op, key, value, conn, sql), op, value, sql)


@t.case("old reads are found")
def found():
	"""That there is something to find, at level stale and with a clock beyond the bound; and nothing within it."""
	if no_net:
		t.skip("old reads are found", no_net)
		return
	w = World()
	wrong = {}
	if w.drifting:
		for n in w.c.nodes:
			w.drift(n, 1 - DRIFT_PPM if n is w.c.leader() else DRIFT_PPM - 1)
	answer = old_read(w, "within", "linearizable")
	t.ok(isinstance(answer, SqlError) and answer.code == IOERR_READ_GATE, "clocks within the bound: a leader that is cut off refuses a read", answer)
	wrong["within"] = 0
	for n in w.c.nodes:
		w.drift(n, 0)
	t.equal(old_read(w, "stale", "stale"), "before stale", "stale: a read on a leader that is cut off is old")
	wrong["stale"] = 1
	if w.drifting:
		answer = old_read(w, "beyond", "linearizable", slow=True)
		t.equal(answer, "before beyond", "a leader whose clock nearly stands believes in its lease, and reads what was")
		wrong["beyond"] = 1
	j = w.end("old reads")
	t.equal([b for name, _ in j.JUDGED if name != "order" for b in getattr(j, name)()], [], "nothing is wrong but the order of reads")
	for name, n in wrong.items():
		t.equal(len(j.order((name,))), n, "%s: the judge of order finds so much" % name)
		file = os.path.join(w.c.dir, name + ".jsonl")
		j.h.write(file, (name,))
		rc, text = levels.lin(file)
		t.ok(rc == n and ("violation" in text) == bool(n), "%s: so does the checker" % name, text)


t.run()
