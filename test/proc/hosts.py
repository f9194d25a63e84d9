"""Hosts of SQLite's as processes (test/hosts): what they see, and that a replicated database looks like a plain one.

Host is one such process. Pair runs the same cases in two of them, one on a plain WAL database with stock SQLite, one on the leader of two nodes,
compares what they saw, and after each case the two nodes with each other and with the plain database.
"""
import os
import re
import select
import subprocess
import time

import harness
from harness import Failed, stock, walraft

PROGRAM = os.path.join(harness.BUILD, "test", "hosts", "hosts")


SEED = "CREATE TABLE seed(a);"


class Host:
	"""A host process. Ends by end(), which checks that it wrote nothing to its standard output and error."""

	def __init__(self, t, db, replicated=True, env=None, load=True):
		self.t, self.db, self.replicated = t, db, replicated
		t.hosts_made = getattr(t, "hosts_made", 0) + 1
		self.dir = t.tmp("host%d" % t.hosts_made)
		self.out_path = os.path.join(self.dir, "output")
		r, w = os.pipe()
		args = [PROGRAM, str(w), db, self.dir] + ([harness.MODULE] if replicated else [])
		with open(self.out_path, "wb") as out:
			self.proc = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=out, stderr=out, pass_fds=[w], env=harness.child_env(env),
			                             preexec_fn=harness.die_with_parent)
		os.close(w)
		self.report, self.buf, self.last = r, b"", ""
		t.hosts = getattr(t, "hosts", []) + [self]
		self.command("")
		harness.need_host_sqlite(self.proc.pid)
		if load and replicated:
			self.command("load")

	def _line(self, end):
		while b"\n" not in self.buf:
			left = end - time.monotonic()
			if left <= 0 or not select.select([self.report], [], [], left)[0]:
				raise harness.TimedOut("no answer of the host to: " + self.last)
			data = os.read(self.report, 1 << 16)
			if not data:
				return None
			self.buf += data
		line, self.buf = self.buf.split(b"\n", 1)
		return line.decode("utf-8", "replace").split("\t")

	def send(self, line):
		self.last = line
		self.proc.stdin.write((line + "\n").encode())
		self.proc.stdin.flush()

	def answers(self, timeout_s=60):
		"""What it saw up to the end of the command, as pairs."""
		end, out = time.monotonic() + timeout_s, []
		while True:
			m = self._line(end)
			if m is None:
				self.proc.wait(10)
				raise Failed("the host ended with %s during: %s; it had said %r and written %r" % (
					self.proc.returncode, self.last, out[-5:], self.output()[-2000:]))
			if m[0] == "end":
				return out
			if m[0] == "died":
				raise Failed("%s: %s" % (self.last, m[2]))
			out.append((m[1], m[2]))

	def command(self, line, timeout_s=60):
		self.send(line)
		return self.answers(timeout_s)

	def run(self, case, arg="", timeout_s=60):
		"""What the case saw; with the same name several times: the last one."""
		return dict(self.command(("run %s %s" % (case, arg)).strip(), timeout_s))

	def open(self, name="main", params="-"):
		a = self.command("open %s %s" % (name, params))[0][1]
		if a != "ok":
			raise Failed("open %s: %s" % (params, a))
		return self

	def try_open(self, name, params="-"):
		return self.command("open %s %s" % (name, params))[0][1]

	def sql(self, text, name="main", timeout_s=60):
		return self.command("sql %s %s" % (name, text), timeout_s)[0][1]

	def close(self, name="main"):
		return self.command("close " + name)[0][1]

	def output(self):
		with open(self.out_path, "rb") as f:
			return f.read().decode("utf-8", "replace")

	def rest(self, timeout_s=60):
		"""What is said until the report is closed, by children too."""
		end, out = time.monotonic() + timeout_s, []
		while True:
			m = self._line(end)
			if m is None:
				return out
			out.append(tuple(m[1:]))

	def finish(self, timeout_s=30):
		"""Closes its input; the exit status."""
		try:
			self.proc.stdin.close()
		except OSError:
			pass
		try:
			return self.proc.wait(timeout_s)
		except subprocess.TimeoutExpired:
			raise harness.TimedOut("the host did not end") from None

	def end(self, what):
		"""A point: exit status 0 and no output."""
		status = self.finish()
		self.t.ok(status == 0 and self.output() == "", what + ": the host ended well and wrote nothing", "status %s, output %r" % (status, self.output()[-3000:]))

	def kill(self):
		if self.proc.poll() is None:
			self.proc.kill()
			self.proc.wait()
		try:
			self.proc.stdin.close()
		except OSError:
			pass
		if self.report >= 0:
			os.close(self.report)
			self.report = -1


def kill_all(t):
	for h in getattr(t, "hosts", []):
		h.kill()
	t.hosts = []


def plain_db(t, name, sql="PRAGMA journal_mode=wal;" + SEED):
	db = os.path.join(t.tmp(name), "app.db")
	r = stock(db, sql)
	if r.returncode:
		raise Failed("making %s: %s" % (db, r.stderr))
	return db


def lone_db(t, name, sql="PRAGMA journal_mode=wal;" + SEED, listen=True):
	"""A database that is a cluster of one."""
	db = plain_db(t, name, sql)
	r = walraft("init", db, *(["--listen", "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]] if listen else ["--no-listen"]))
	if r.returncode:
		raise Failed("init %s: %s" % (db, r.stderr))
	return db


def dump(db):
	"""The content as SQL, as a stock reader finds it."""
	r = stock(db, ".dump")
	if r.returncode:
		raise Failed("dump of %s: %s" % (db, r.stderr))
	return r.stdout


class Pair:
	"""The same program on a plain database, and on the leader of `nodes` nodes. Both have one connection open, "main", unless `alone`. The other nodes are
	`walraft serve`; with two_hosts the second one is such a host too, `other`."""

	def __init__(self, t, **kw):
		self.t, self.kept, self.led = t, None, None
		for _ in range(5):
			if self._make(**kw):
				break
			t.say("another node took the lead meanwhile: once more")
			self.destroy()
			t.clusters.remove(self.c)
		else:
			raise Failed("the host does not get the lead")
		t.pairs = getattr(t, "pairs", []) + [self]

	def _make(self, nodes=2, two_hosts=False, alone=False, env=None, pragmas="PRAGMA journal_mode=wal;"):
		t, self.other = self.t, None
		self.c = c = t.cluster(n=nodes, create=False, schema=SEED, pragmas=pragmas)
		c.init()
		self.host = Host(t, c[0].db, env=env)
		c[0].proc, c[0].kind = self.host.proc, "host"
		self.plain = Host(t, plain_db(t, "plain%d" % t.clusters_made, pragmas + SEED), replicated=False)
		if alone:
			return True
		for h in (self.host, self.plain):
			h.open()
			h.sql("SELECT * FROM seed")
		c.leader()
		for i in range(1, nodes):
			c.join(i)
			if two_hosts:
				self.other = Host(t, c[i].db).open()
				c[i].proc, c[i].kind = self.other.proc, "host"
			else:
				c[i].serve()
		if c.wait_ready(members=nodes) is not c[0]:
			return False
		if nodes > 1:
			self.led = self.term()
		return True

	def term(self):
		terms = [0]
		for n in self.c.nodes:
			try:
				terms.append(n.status()["term"])
			except Failed:
				pass  # it has died
		return max(terms)

	def leads(self):
		"""Whether the host has led all the time: a term has one leader."""
		return self.led is None or self.term() == self.led

	def alike(self, what, stock_saw, saw, differ):
		"""A point: both saw the same, but for what `differ` names: there the replicated one saw what matches its expression, or nothing (None)."""
		wrong = []
		for key in sorted(set(stock_saw) | set(saw) | set(differ), key=str):
			a, b = stock_saw.get(key), saw.get(key)
			if key not in differ:
				fits = a == b
			else:
				fits = a != b and (b is None if differ[key] is None else b is not None and re.search(differ[key], b, re.S))
			if not fits:
				wrong.append("%s: stock %r, here %r%s" % (key, a, b, ", which should be another that matches %r" % differ[key] if key in differ else ""))
		self.t.ok(not wrong and stock_saw, what + ": the same as stock SQLite" + (", but for what the table says" if differ else ""), "\n".join(wrong))

	def settled(self, what):
		"""Points: both nodes have one state, and a stock reader finds the content of the plain database in their files."""
		c, t = self.c, self.t
		if len(c.nodes) > 1:
			c.checksums_equal(what + ": the checksums of both nodes are equal")
		want = dump(self.plain.db)
		bad = [n.i for n in c.nodes if dump(n.db) != want]
		t.ok(not bad, what + ": the nodes have the content of the plain database", "not so: nodes %s" % bad)

	def case(self, name):
		"""What both saw of a case."""
		return [dict(h.command("run " + name)) for h in (self.plain, self.host)]

	def sql(self, what, statements):
		"""What both answered to the statements on "main", and to a write at their end that must reach the other node."""
		last = "INSERT INTO seed VALUES('%s') RETURNING a" % what.replace("'", "")
		return [{s: h.sql(s) for s in [*statements, last]} for h in (self.plain, self.host)]

	def whole(self):
		return self.plain.proc.poll() is None and self.host.proc.poll() is None

	def destroy(self):
		self.c.destroy()
		for h in (self.plain, self.host, self.other):
			if h:
				h.kill()

	def end(self, what):
		self.kept = self.leads()
		self.plain.end(what + ", plain")
		self.host.end(what)


def steady(t, name):
	"""A case as t.case, run again when a pair's host has lost the lead meanwhile, and it does not count then."""
	def deco(fn):
		@t.case(name)
		def run():
			for last in (False, False, False, True):
				points, t.pairs, error = [], [], None
				t.ok = lambda cond, name, detail="": points.append((cond, name, detail)) or bool(cond)
				try:
					fn()
				except Failed as e:
					error = e
				finally:
					del t.ok
					kept = all(p.kept if p.kept is not None else p.leads() for p in t.pairs)
					kill_all(t)
				if kept or last:
					break
				t.say("the host lost the lead: once more")
				for c in t.clusters:
					c.destroy()
				t.clusters = []
			for p in points:
				t.ok(*p)
			if error:
				raise error
		return run
	return deco


class Pairs:
	"""The pair that the cases of a test share; a new one after a host has died. On a machine that is so slow that another node takes the lead meanwhile, a case
	is begun anew on another pair."""

	def __init__(self, t, **kw):
		self.t, self.kw, self.pair = t, kw, None

	def drop(self):
		if self.pair:
			self.pair.destroy()
			self.pair = None

	def get(self):
		if self.pair and not self.pair.whole():
			self.drop()
		if not self.pair:
			self.pair = Pair(self.t, **self.kw)
			self.t.clusters.remove(self.pair.c)  # which ends those of one case
		return self.pair

	def compare(self, what, look, differ):
		"""Points: look(pair) gives what both saw."""
		for _ in range(4):
			p = self.get()
			try:
				saw = look(p)
			except Failed:
				if p.leads():
					raise
			if p.leads():
				p.alike(what, saw[0], saw[1], differ or {})
				p.settled(what)
				return
			self.t.say("the host lost the lead: once more")
			self.drop()
		raise Failed("the host does not keep the lead")

	def sql(self, name, statements, differ=None):
		@self.t.case(name)
		def run():
			self.compare(name, lambda p: p.sql(name, statements), differ)

	def cases(self, cases, prefix=""):
		"""Those of hosts_cases.py."""
		for name, differ in cases.items():
			@self.t.case(prefix + name)
			def run(name=name, differ=differ):
				if name == "snapshot" and "not built in" in self.get().plain.run(name):
					self.t.skip(name, "this SQLite was built without it")
					return
				self.compare(name, lambda p: p.case(name), differ)


def run(t, *pairs):
	"""Runs the test."""
	@t.case("")
	def in_the_end():
		for p in pairs:
			if p.pair:
				p.pair.end("in the end")
	try:
		t.run()
	finally:
		for p in pairs:
			p.drop()
		kill_all(t)
