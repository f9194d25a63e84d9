"""A cluster of node processes on this machine: `walraft serve`, or worker.py (an application that is its own node)."""
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import harness
import load
from harness import Failed, wait_until, walraft


class SqlError(Exception):
	def __init__(self, answer):
		super().__init__("%s: %s (code %s; %s)" % (answer.get("type"), answer.get("error"), answer.get("code"),
		                                           answer.get("walraft_error")))
		self.code = answer.get("code", -1)
		self.text = answer.get("error", "")
		self.walraft_error = answer.get("walraft_error") or ""
		self.in_transaction = answer.get("in_transaction")


class Pending:
	"""The answer to a request that was sent; result() waits for it."""

	def __init__(self, what):
		self.what, self.q = what, queue.Queue()
		self.answer = None

	def done(self):
		if self.answer is None:
			try:
				self.answer = self.q.get_nowait()
			except queue.Empty:
				return False
		return True

	def raw(self, timeout_s=60):
		if self.answer is None:
			try:
				self.answer = self.q.get(timeout=timeout_s)
			except queue.Empty:
				raise harness.TimedOut("no answer in %g s to %s" % (timeout_s, self.what)) from None
		return self.answer

	def result(self, timeout_s=60):
		a = self.raw(timeout_s)
		if a is None:
			raise Failed("the process died during %s" % self.what)
		if not a["ok"]:
			raise SqlError(a)
		return a


class Node:
	def __init__(self, cluster, i, url):
		self.c, self.i, self.url = cluster, i, url
		self.dir = os.path.join(cluster.dir, "data", "n%d" % i)
		os.makedirs(self.dir)
		self.db = os.path.join(self.dir, "app.db")
		self.log = os.path.join(cluster.dir, "log", "n%d.log" % i)
		self.proc, self.kind, self.generation = None, None, 0
		self.stopped = False
		self.witness = False  # has no database

	# -- process --
	def alive(self):
		return self.proc is not None and self.proc.poll() is None

	@property
	def pid(self):
		return self.proc.pid

	def _spawn(self, args, pipes, env=None):
		if self.alive():
			raise Failed("node %d runs already" % self.i)
		self.generation += 1
		self.stopped = False
		e = dict(self.c.env)
		e.update(env or {})
		log = open(self.log, "ab")
		log.write(b"--- generation %d: %s\n" % (self.generation, " ".join(args).encode()))
		log.flush()
		self.log_from = log.tell()
		pre = self.c.net.prefix_cmd(self.i) if self.c.net else []
		self.proc = subprocess.Popen(pre + args, stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
		                             stdout=subprocess.PIPE if pipes else log, stderr=log, cwd=self.dir,
		                             env=harness.child_env(e), preexec_fn=harness.die_with_parent)
		log.close()

	def log_text(self):
		with open(self.log, "rb") as f:
			f.seek(self.log_from)
			return f.read().decode("utf-8", "replace")

	def serve(self, wait_s=20, env=None):
		"""Starts `walraft serve` and waits for its line."""
		self.kind = "serve"
		self._spawn([harness.WALRAFT, "serve", self.db], False, env)
		if wait_s:
			wait_until(lambda: "walraft: serving " in self.log_text() or not self.alive(), wait_s,
			           "node %d serves" % self.i)
			if not self.alive():
				raise Failed("serve of node %d ended with %s: %s" % (self.i, self.proc.returncode, self.log_text()))
			harness.need_host_sqlite(self.pid)
		return self

	def worker(self, wait_s=20, env=None, **params):
		"""Starts worker.py, with one connection "main" that keeps the node up."""
		self.kind = "worker"
		self._spawn([harness.PYTHON, os.path.join(harness.HERE, "worker.py"), self.db, harness.MODULE], True, env)
		self.pending, self.next_id = {0: Pending("start")}, 1
		hello = self.pending[0]
		threading.Thread(target=self._read, args=(self.proc, self.pending), daemon=True).start()
		hello.result(wait_s or 20)
		harness.need_host_sqlite(self.pid)
		if wait_s:
			self.open("main", timeout_s=wait_s, **params)
		return self

	def _read(self, proc, pending):
		for line in proc.stdout:
			try:
				m = json.loads(line)
			except ValueError:
				continue  # cut by a kill
			p = pending.pop(m["id"], None)
			if p:
				p.q.put(m)
		for p in list(pending.values()):
			p.q.put(None)

	def start(self, kind=None, **kw):
		return getattr(self, kind or self.kind or self.c.kind)(**kw)

	def send(self, cmd, **m):
		p = Pending("%s on node %d: %s" % (cmd, self.i, str(m)[:200]))
		m.update(id=self.next_id, cmd=cmd)
		self.pending[self.next_id] = p
		self.next_id += 1
		try:
			self.proc.stdin.write((json.dumps(m) + "\n").encode())
			self.proc.stdin.flush()
		except BrokenPipeError:
			p.q.put(None)
		return p

	def open(self, conn, timeout_s=30, pragmas=(), **params):
		return self.send("open", conn=conn, pragmas=list(pragmas), params=params).result(timeout_s)

	def ask(self, sql, params=(), conn="main"):
		"""Sends a statement, does not wait."""
		return self.send("exec", conn=conn, sql=sql, params=list(params))

	def sql(self, sql, params=(), conn="main", timeout_s=60):
		return self.ask(sql, params, conn).result(timeout_s)["rows"]

	def one(self, sql, params=(), conn="main", timeout_s=60):
		return self.sql(sql, params, conn, timeout_s)[0][0]

	def error(self, sql, conn="main", timeout_s=60):
		"""The SqlError that the statement must give; None when it succeeds."""
		try:
			self.sql(sql, conn=conn, timeout_s=timeout_s)
			return None
		except SqlError as e:
			return e

	def race(self, threads, seconds, sql, go, **kw):
		"""Starts connections of their own that run the statements over and over once the file `go` is there. The answer that is yet to come."""
		ready = self.pending[self.next_id] = Pending("race on node %d" % self.i)
		self.next_id += 1
		p = self.send("race", conn="race%d" % self.next_id, threads=threads, seconds=seconds, sql=sql, go=go, ready=self.next_id - 1, **kw)
		ready.result()
		return p

	def start_load(self, threads=4, **kw):
		log = os.path.join(self.c.dir, "log", "acks-n%d-g%d" % (self.i, self.generation))
		if log not in self.c.ack_logs:
			self.c.ack_logs.append(log)
		tag = "n%dg%d" % (self.i, self.generation)
		return self.send("load", threads=threads, log=log, tag=tag, seed=self.c.t.seed, **kw).result()

	def stop_load(self):
		return self.send("stop").result(60)["counts"]

	def kill9(self):
		self.proc.kill()
		self.proc.wait()

	def term(self, timeout_s=30):
		"""SIGTERM and the exit status."""
		self.cont()
		self.proc.terminate()
		try:
			return self.proc.wait(timeout_s)
		except subprocess.TimeoutExpired:
			raise harness.TimedOut("node %d did not end %g s after SIGTERM" % (self.i, timeout_s)) from None

	def sigstop(self):
		self.proc.send_signal(signal.SIGSTOP)
		wait_until(lambda: open("/proc/%d/stat" % self.pid).read().rsplit(")", 1)[1].split()[0] == "T", 5,
		           "node %d is stopped" % self.i)
		self.stopped = True

	def cont(self):
		if self.alive() and self.stopped:
			self.proc.send_signal(signal.SIGCONT)
		self.stopped = False

	# -- state --
	def status(self, timeout_s=10):
		r = walraft("status", self.db, "--json", timeout=timeout_s)
		if r.returncode:
			raise Failed("status of node %d: %s" % (self.i, r.stderr.strip()))
		return json.loads(r.stdout)

	def wait_status(self, cond, deadline_s, what):
		def look():
			s = self.status()
			return s if cond(s) else None
		return wait_until(look, deadline_s, "node %d: %s" % (self.i, what), every_s=0.02)

	def stock(self, sql):
		return harness.stock_rows(self.db, sql)

	def command(self, name, *args, timeout=60):
		"""A walraft command on this node's database."""
		return walraft(name, self.db, *args, timeout=timeout)

	def members(self, *args, name="members"):
		"""What the command answers, as {address: member}, and all of it under ""."""
		r = self.command(name, *args, "--json")
		if r.returncode:
			raise Failed("%s of node %d: %s" % (name, self.i, r.stderr.strip()))
		a = json.loads(r.stdout)
		return dict({m["url"]: m for m in a["members"]}, **{"": a})


class Cluster:
	"""n nodes with one replicated database. kind: "worker" or "serve". See create()."""

	def __init__(self, t, n=3, kind="worker", schema=load.SCHEMA, pragmas="PRAGMA journal_mode=wal;", env=None, net=None):
		self.t, self.kind, self.net, self.env = t, kind, net, dict(env or {})
		t.clusters_made += 1
		self.dir = t.tmp("c%d" % t.clusters_made)
		for d in ("data", "log"):
			os.makedirs(os.path.join(self.dir, d))
		for k, v in self.env.items():
			self.env[k] = v.replace("@DATA@", os.path.join(self.dir, "data"))
		self.ack_logs, self._acked, self._offset = [], 0, {}
		self.schema, self.pragmas = schema, pragmas
		ports = harness.free_ports(n)
		self.nodes = [Node(self, i, "tcp://%s:%d" % (net.addr(i) if net else "127.0.0.1", ports[i])) for i in range(n)]

	def __getitem__(self, i):
		return self.nodes[i]

	def flags(self):
		return ["--insecure"] if self.net else []

	def init(self, i=0):
		n = self.nodes[i]
		if not os.path.exists(n.db):
			r = harness.stock(n.db, self.pragmas + self.schema)
			if r.returncode:
				raise Failed("schema: " + r.stderr)
		r = walraft("init", n.db, "--listen", n.url, *self.flags(), env=self.env)
		if r.returncode:
			raise Failed("init: " + r.stderr)

	def join(self, i, peer=0, timeout=120, extra=()):
		"""join to its end; the node is started at once after it (a cluster of two needs both)."""
		n = self.nodes[i]
		pre = self.net.prefix_cmd(i) if self.net else []
		r = harness.run_cmd(pre + [harness.WALRAFT, "join", n.db, "--listen", n.url, "--peer", self.nodes[peer].url,
		                           *self.flags(), *extra], timeout=timeout, env=self.env)
		if r.returncode:
			raise Failed("join of node %d: %s" % (i, r.stderr))
		return r

	def join_witness(self, i, peer=0, extra=()):
		"""A witness, served."""
		self.join(i, peer, extra=["--witness", *extra])
		self.nodes[i].witness = True
		self.nodes[i].serve()

	def replicas(self):
		"""Live nodes that have the database."""
		return [n for n in self.live() if not n.witness]

	def create(self, n=None):
		"""n: only so many of the nodes."""
		self.init()
		self.nodes[0].start(self.kind)
		for i in range(1, n or len(self.nodes)):
			self.join(i)
			self.nodes[i].start(self.kind)
		self.wait_ready(members=n or len(self.nodes))

	def live(self):
		return [n for n in self.nodes if n.alive() and not n.stopped]

	def statuses(self):
		return {n.i: n.status() for n in self.live()}

	def leader(self, deadline_s=20, among=None):
		"""The node that leads and may grant writes."""
		def look():
			best = None
			for n in among or self.live():
				try:
					s = n.status(3)
				except Failed:
					continue
				if s["role"] == "leader" and s["ready"] and (best is None or s["term"] > best[0]):
					best = (s["term"], n)
			return best and best[1]
		return wait_until(look, deadline_s, "a node leads and is ready")

	def followers(self):
		l = self.leader()
		return [n for n in self.live() if n is not l]

	def start_all(self):
		"""All nodes at once: one alone has no quorum for the first read of its first connection."""
		for n in self.nodes:
			n.start(wait_s=0)
		for p in [n.send("open", conn="main", pragmas=[], params={}) for n in self.nodes if n.kind == "worker"]:
			p.result(20)

	def wait_ready(self, deadline_s=30, members=None):
		l = self.leader(deadline_s)
		if members:
			l.wait_status(lambda s: sum(m["kind"] == "voter" for m in s["members"]) == members, deadline_s,
			              "%d voters" % members)
		return l

	def make_leader(self, i, deadline_s=60):
		"""Stops others in turn until node i leads. Leadership falls to either of the others by chance."""
		end = time.monotonic() + deadline_s
		while time.monotonic() < end:
			l = self.leader()
			if l.i == i:
				return l
			l.sigstop()
			try:
				self.leader()
			finally:
				l.cont()
		raise harness.TimedOut("node %d did not become the leader in %g s" % (i, deadline_s))

	def acked(self):
		"""Acknowledged rows so far, read on from where the last call ended."""
		for f in self.ack_logs:
			try:
				with open(f, "rb") as h:
					h.seek(self._offset.get(f, 0))
					data = h.read()
			except FileNotFoundError:
				continue
			cut = data.rfind(b"\n") + 1
			self._offset[f] = self._offset.get(f, 0) + cut
			self._acked += len(re.findall(rb"^A ", data[:cut], re.M))
		return self._acked

	def wait_acked(self, more, deadline_s=30):
		want = self.acked() + more
		wait_until(lambda: self.acked() >= want, deadline_s, "%d more acknowledged rows" % more, every_s=0.02)

	def converge(self, deadline_s=30):
		"""Waits until every live node has published the same index; returns the statuses by node."""
		def look():
			s = self.statuses()
			top = max(v["last_index"] for v in s.values())
			same = all(v["published"] == v["commit"] == top for v in s.values())
			return s if same and any(v["role"] == "leader" for v in s.values()) else None
		return wait_until(look, deadline_s, "all nodes have published all", every_s=0.03)

	def checksums_equal(self, name, deadline_s=30):
		"""A point: all live nodes at one index, those that have the database with one state checksum."""
		s = {i: v for i, v in self.converge(deadline_s).items() if not self.nodes[i].witness}
		return self.t.ok(len({(v["published"], v["checksum"], v["db_pages"]) for v in s.values()}) == 1,
		                 name, {i: (v["published"], v["checksum"], v["db_pages"]) for i, v in s.items()})

	def integrity(self, name):
		bad = {}
		for n in self.replicas():
			rows = n.stock("PRAGMA integrity_check")
			if rows != ["ok"]:
				bad[n.i] = rows[:5]
		return self.t.ok(not bad, name, bad)

	def keys(self, node):
		"""The keys of kv as the node itself gives them."""
		f = os.path.join(self.dir, "log", "dump-n%d" % node.i)
		if node.kind == "worker":
			name = "dump%d" % random.randrange(1 << 30)
			node.open(name, pragmas=["walraft_read='stale'"])
			node.send("dump", conn=name, sql="SELECT k FROM kv ORDER BY id", file=f).result(120)
			node.send("close", conn=name).result()
			with open(f) as h:
				return h.read().split("\n")[:-1]
		return node.stock("SELECT k FROM kv ORDER BY id")

	def verify_load(self, what="", files=True):
		"""After a load: everything that must hold on every node. All nodes must be up, writers ended. files=False: leaves out what a stock
		process sees, for nodes whose files lag behind what they know."""
		t = self.t
		self.checksums_equal(what + "all checksums are equal")
		out = load.Outcomes(self.ack_logs)
		t.ok(not out.wrong, what + "no answer that must never be given", "\n".join(out.wrong[:20]))
		first = None
		for n in self.replicas():
			keys = self.keys(n)
			out.check(t, keys, "%snode %d" % (what, n.i))
			if first is None:
				first = keys
			t.ok(keys == first, "%snode %d has the same rows in the same order" % (what, n.i), "differ")
		if files:
			self.verify_files(what, self.replicas())
		t.say("%srows: %d acknowledged, %d not committed, %d unknown of which %d are there" % (
			what, len(out.acked), len(out.not_committed), len(out.unknown), len(out.unknown & set(first))))
		return out

	def verify_files(self, what, nodes):
		"""What stock sqlite3 finds in the files."""
		for n in nodes:
			a, b = (int(v) for v in n.stock(load.TOTALS)[0].split("|"))
			self.t.equal(a, b, "%snode %d: the two totals agree" % (what, n.i))
			self.t.equal(n.stock("PRAGMA integrity_check"), ["ok"], "%snode %d: integrity_check" % (what, n.i))

	def tails(self, lines=25):
		out = []
		for n in self.nodes:
			if os.path.exists(n.log):
				with open(n.log, errors="replace") as f:
					out += ["-- log of node %d (%s)" % (n.i, n.url)] + [l.rstrip() for l in f.readlines()[-lines:]]
		return out

	def stop(self):
		"""Ends all nodes by SIGTERM; their exit statuses."""
		return [n.term() for n in self.nodes if n.alive()]

	def destroy(self):
		for n in self.nodes:
			if n.alive():
				n.kill9()
			if n.proc and n.proc.stdin:
				try:
					n.proc.stdin.close()
				except OSError:
					pass
		if self.net:
			self.net.destroy()
		if os.environ.get("WALRAFT_KEEP", "") in ("", "0"):
			shutil.rmtree(self.dir, ignore_errors=True)
