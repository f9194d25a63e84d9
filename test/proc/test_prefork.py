#!/usr/bin/python3
"""A web application in several processes a node: gunicorn with four workers on each of three nodes. All of them write while workers and whole nodes are killed."""
import http.client
import os
import signal
import subprocess
import threading
import time

import harness
from harness import Test, wait_until

t = Test(__file__, full_deadline_s=1800)
WORKERS = 4
EXAMPLES = os.path.join(harness.HERE, "..", "examples")
PIECES = 1000000


class Site:
	"""The application on one node."""

	def __init__(self, node, port):
		self.node, self.port, self.proc = node, port, None
		self.log = os.path.join(node.c.dir, "log", "web-n%d.log" % node.i)

	def start(self):
		with open(self.log, "ab") as log:
			# A session of its own, so that all its processes can be killed at once.
			self.proc = subprocess.Popen(
				[harness.PYTHON, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", "127.0.0.1:%d" % self.port, "--timeout", "60",
				 "--graceful-timeout", "5", "web_gunicorn:application"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=EXAMPLES, start_new_session=True,
				env=harness.child_env({"MODULE": harness.MODULE[:-3], "DATABASE": self.node.db, "PYTHONDONTWRITEBYTECODE": "1"}))

	def workers(self):
		"""Their process ids."""
		try:
			with open("/proc/%d/task/%d/children" % (self.proc.pid, self.proc.pid)) as f:
				return [int(p) for p in f.read().split()]
		except OSError:
			return []

	def host(self):
		"""Which of them runs the node."""
		try:
			with open(self.node.db + "-walraft/lock") as f:
				return int(f.read().split()[0])
		except (OSError, ValueError, IndexError):
			return None

	def kill(self):
		try:
			os.killpg(self.proc.pid, signal.SIGKILL)
		except ProcessLookupError:
			pass
		self.proc.wait()

	def term(self):
		self.proc.terminate()
		return self.proc.wait(60)

	def ask(self, method, path, timeout_s=30):
		"""(status, text, worker)."""
		c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
		try:
			c.request(method, path)
			r = c.getresponse()
			return r.status, r.read().decode().strip(), int(r.getheader("X-Worker") or 0)
		finally:
			c.close()

	def tail(self, lines=40):
		with open(self.log, errors="replace") as f:
			return "".join(f.readlines()[-lines:])


class Clients:
	"""Threads that place orders, each at whatever node answers, until it is told that it is placed."""

	def __init__(self, sites, n):
		self.sites, self.stop, self.placed, self.answers, self.unlike = sites, threading.Event(), [], {}, []
		self.longest, self.lock = 0, threading.Lock()
		self.threads = [threading.Thread(target=self.run, args=(k,), daemon=True) for k in range(n)]
		for th in self.threads:
			th.start()

	def run(self, k):
		i = 0
		while not self.stop.is_set():
			order, begun, at = "c%d-%d" % (k, i), time.monotonic(), (k + i) % len(self.sites)
			i += 1
			while True:
				try:
					status, text, worker = self.sites[at].ask("PUT", "/orders/" + order)
				except (OSError, http.client.HTTPException):
					status, text, worker = 0, "", 0
				if status == 200:
					break
				if status not in (0, 503):
					self.unlike.append((status, text))
				at = (at + 1) % len(self.sites)
				if self.stop.wait(0.02) and time.monotonic() > begun + 60:
					return
			with self.lock:
				self.placed.append(order)
				self.answers.setdefault((at, worker), 0)
				self.answers[at, worker] += 1
				self.longest = max(self.longest, time.monotonic() - begun)

	def wait_more(self, n, deadline_s, what):
		want = len(self.placed) + n
		wait_until(lambda: len(self.placed) >= want, deadline_s, what, every_s=0.02)

	def end(self):
		self.stop.set()
		for th in self.threads:
			th.join(90)
		return not any(th.is_alive() for th in self.threads)


def no_gunicorn():
	return "" if subprocess.run([harness.PYTHON, "-c", "import gunicorn"], stderr=subprocess.DEVNULL).returncode == 0 else "gunicorn is not installed"


def make_sites():
	c = t.cluster(kind="serve", schema="CREATE TABLE stock(item PRIMARY KEY, pieces); CREATE TABLE orders(id PRIMARY KEY, item, pieces);"
	              "INSERT INTO stock VALUES ('pear', %d);" % PIECES)
	c.stop()
	sites = [Site(n, p) for n, p in zip(c.nodes, harness.free_ports(3))]
	for s in sites:
		s.start()
	return c, sites


def all_workers_answer(s):
	"""Each worker has the database open."""
	seen = set()

	def look():
		status, _, worker = s.ask("GET", "/stock", 15)
		if status == 200:
			seen.add(worker)
		return len(seen & set(s.workers())) == WORKERS
	wait_until(look, 60, "all workers of node %d answer (%s)" % (s.node.i, seen), every_s=0.001)


def verify(c, sites, clients):
	for s in sites:
		s.term()
	orders = set(clients.placed)
	t.ok(len(orders) == len(clients.placed), "no order was placed twice by its client")
	first = None
	for s in sites:
		# What a node has not published at its end comes when it is started again.
		s.node.start(kind="serve")
	c.wait_ready()
	c.converge()
	for s in sites:
		rows = s.node.stock("SELECT id FROM orders")
		left = int(s.node.stock("SELECT pieces FROM stock")[0])
		t.ok(orders <= set(rows), "node %d has all %d orders that were acknowledged" % (s.node.i, len(orders)), sorted(orders - set(rows))[:10])
		t.ok(len(rows) == len(set(rows)) == PIECES - left, "node %d: each order took its piece once (%d)" % (s.node.i, len(rows)), (len(rows), len(set(rows)), PIECES - left))
		first = first or sorted(rows)
		t.ok(sorted(rows) == first, "node %d has the same orders" % s.node.i)
	c.checksums_equal("checksums are equal")
	c.integrity("integrity_check")


@t.case("all workers of all nodes write")
def quiet():
	if no_gunicorn():
		t.skip("four workers on each of three nodes", no_gunicorn())
		return
	c, sites = make_sites()
	try:
		for s in sites:
			all_workers_answer(s)
		t.ok(True, "four workers on each of three nodes have the database open")
		clients = Clients(sites, 12)
		wait_until(lambda: len(clients.answers) >= 3 * WORKERS, 60, "each of them has placed an order: %s" % clients.answers)
		t.ok(True, "each of the twelve processes has placed orders")
		clients.wait_more(200, 60, "200 more orders")
		t.ok(clients.end(), "all clients got their last answer")
		t.ok(not clients.unlike, "no answer but 200 and 503", clients.unlike[:5])
		t.ok(clients.longest < 5, "none waited long while others wrote (%.1f s)" % clients.longest, clients.answers)
		t.say("%d orders: %s" % (len(clients.placed), clients.answers))
		verify(c, sites, clients)
	except Exception:
		for s in sites:
			t.say("-- log of the site on node %d\n%s" % (s.node.i, s.tail()))
		raise
	finally:
		for s in sites:
			s.kill()


@t.case("workers and nodes are killed")
def kills():
	if no_gunicorn():
		t.skip("four workers on each of three nodes", no_gunicorn())
		return
	c, sites = make_sites()
	rounds = t.args.rounds or (60 if t.full else 6)
	try:
		for s in sites:
			all_workers_answer(s)
		clients = Clients(sites, 12)
		clients.wait_more(20, 60, "orders are placed")
		slowest = 0
		for i in range(rounds):
			s = t.rnd.choice(sites)
			what = ("a worker", "the host", "the node")[i % 3]
			began = time.monotonic()
			if what == "the node":
				s.kill()
				clients.wait_more(20, 60, "orders are placed while node %d is down" % s.node.i)
				s.start()
			else:
				workers = wait_until(s.workers, 20, "node %d has workers" % s.node.i)
				host = s.host()
				victim = host if what == "the host" and host in workers else t.rnd.choice(workers)
				os.kill(victim, signal.SIGKILL)
			clients.wait_more(30, 60, "orders are placed after %s of node %d was killed" % (what, s.node.i))
			slowest = max(slowest, time.monotonic() - began)
		t.ok(True, "orders went on after each of %d kills (the slowest round took %.1f s)" % (rounds, slowest))
		for s in sites:
			all_workers_answer(s)
		t.ok(True, "in the end all workers of all nodes answer")
		t.ok(clients.end(), "all clients got their last answer")
		t.ok(not clients.unlike, "no answer but 200 and 503", clients.unlike[:5])
		t.say("%d orders, the slowest took %.1f s" % (len(clients.placed), clients.longest))
		verify(c, sites, clients)
	except Exception:
		for s in sites:
			t.say("-- log of the site on node %d\n%s" % (s.node.i, s.tail()))
		raise
	finally:
		for s in sites:
			s.kill()


t.run()
