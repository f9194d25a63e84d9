"""Programs of test/examples on three nodes: the program's process is one of them, `walraft serve` the others.

Each is run twice, as a follower, while the others' journals hang. First without patience: it tells that its try got no answer. What came of that is taken back. Then with
patience: a try ends without an answer; another finds, once they go on, what became of that, and places the order if it is not there.
"""
import contextlib
import fcntl
import itertools
import os
import re
import select
import subprocess
import time

import harness
from harness import wait_until

HERE = os.path.join(os.environ.get("WALRAFT_SRC") or os.path.join(harness.HERE, "..", ".."), "test", "examples")
STALL_SO = os.path.join(harness.BUILD, "test/proc/.libs/stall.so")
IN_STOCK, PIECES = 100, 2
SCHEMA = ("CREATE TABLE stock(item TEXT PRIMARY KEY, pieces INTEGER NOT NULL);"
          "CREATE TABLE orders(id TEXT PRIMARY KEY, item TEXT NOT NULL, pieces INTEGER NOT NULL);"
          "INSERT INTO stock VALUES('pear', %d);" % IN_STOCK)


def example(name):
	return os.path.join(HERE, name)


class Language:
	"""order: the id that the program gives its order. probe: a command that succeeds when all that it needs is installed."""

	def __init__(self, name, order, command, probe, unknown=harness.IOERR_UNKNOWN):
		self.name, self.order, self.command, self.probe = name, order, command, probe
		self.unknown = unknown

	def missing(self):
		try:
			r = subprocess.run(self.probe, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
		except OSError as e:
			return "%s: %s" % (self.probe[0], e.strerror)
		first = (r.stderr or r.stdout).strip().splitlines()[:1] or ["status %d" % r.returncode]
		return "%s: %s" % (self.probe[0], first[0]) if r.returncode else None


class Run:
	"""An example at work, as node's process. Its output goes through a pipe that can be closed like a valve: while it is full, the
	program waits with its next line, and its node goes on."""

	def __init__(self, t, language, node, patience_s):
		self.err_path = os.path.join(t.dir, "stderr")
		self.r, self.w = self.make_output()
		with open(self.err_path, "wb") as err:
			self.proc = node.proc = subprocess.Popen(
				language.command + [harness.MODULE, node.db, str(patience_s)], stdin=subprocess.DEVNULL, stdout=self.w, stderr=err,
				cwd=node.dir, env=harness.child_env(), preexec_fn=harness.die_with_parent)
		node.stopped = False
		self.rest, self.lines = b"", []

	def make_output(self):
		r, w = os.pipe()
		fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096)
		return r, w

	def hold(self):
		fill = os.open("/proc/self/fd/%d" % self.w, os.O_WRONLY | os.O_NONBLOCK)  # the flag is this one's alone
		for size in (512, 1):
			try:
				while True:
					os.write(fill, b"\n" * size)
			except BlockingIOError:
				pass
		os.close(fill)

	def let_go(self):
		"""Reading will do."""

	def waits(self):
		tasks = "/proc/%d/task" % self.proc.pid
		for task in os.listdir(tasks):
			with open(os.path.join(tasks, task, "wchan")) as f:
				if "pipe_w" in f.read():
					return True
		return False

	def close_valve(self):
		"""Returns when the program waits with its next line; false: it has ended. The next line() opens it."""
		self.hold()
		wait_until(lambda: self.proc.poll() is not None or self.waits(), 20, "the program waits to write its next line")
		return self.proc.poll() is None

	def line(self, deadline_s=30):
		"""The next line, or None at the end (not that of the pipe, which the valve keeps open)."""
		end = time.monotonic() + deadline_s
		self.let_go()
		while True:
			head, newline, self.rest = self.rest.partition(b"\n")
			if newline and head:
				self.lines.append(head.decode("utf-8", "replace"))
				return self.lines[-1]
			if newline:
				continue
			self.rest = head
			ended = self.proc.poll() is not None
			if select.select([self.r], [], [], 0 if ended else 0.05)[0]:
				self.rest += os.read(self.r, 65536)
			elif ended:
				return None
			elif time.monotonic() > end:
				raise harness.TimedOut("no line in %g s after %r" % (deadline_s, self.lines[-3:]))

	def until(self, start):
		"""Reads on to a line that starts so; whether there was one."""
		while True:
			line = self.line()
			if line is None or line.startswith(start):
				return line is not None

	def end(self):
		"""Reads all; status and standard error."""
		while self.line() is not None:
			pass
		with open(self.err_path, errors="replace") as f:
			return self.proc.returncode, f.read()

	def close(self):
		if self.proc.poll() is None:
			self.proc.kill()
			self.proc.wait()
		os.close(self.w)
		os.close(self.r)


def distinct(lines):
	"""The lines, each once where it comes several times in a row."""
	return [line for line, _ in itertools.groupby(lines)]


def is_retry(line):
	return re.fullmatch(r"retry: \d+ \S.*", line)


class Shop:
	"""The cluster: node 0 is the examples', one after the other, and down in between."""

	def __init__(self, t, run):
		self.t, self.run = t, run
		self.c = t.cluster(n=3, kind="serve", create=False, schema=SCHEMA)
		self.stall = None
		if not harness.SANITIZER and os.path.exists(STALL_SO):
			self.stall = os.path.join(self.c.dir, "stall")
		env = {"LD_PRELOAD": STALL_SO, "STALL": self.stall} if self.stall else {}
		self.c.init()
		self.c[0].serve()
		for i in (1, 2):
			self.c.join(i)
			self.c[i].serve(env=env)
		self.c.wait_ready(members=3)
		self.c[0].term()
		self.placed = 0

	def mend(self):
		for n in self.c.nodes[1:]:
			n.cont()
		if self.stall and os.path.exists(self.stall):
			os.unlink(self.stall)

	def rest(self):
		"""Node 0 is down; the leader of the others."""
		return self.c.leader(among=self.c.nodes[1:])

	def holds(self, node, order):
		return node.stock("SELECT count(*) FROM orders WHERE id = '%s'; SELECT pieces FROM stock" % order)

	def hang(self):
		"""The others' journals, from the next entry on. The nodes themselves are well until then."""
		self.rest()
		if self.stall:
			open(self.stall, "w").close()
		return self.stall

	def impatient(self, lang):
		what = "%s: without patience it tells that its try got no answer" % lang.name
		if not self.hang():
			self.t.skip(what, "stall.so is not built, or beside a sanitizer's runtime")
			return
		with contextlib.closing(self.run(self.t, lang, self.c[0], 0)) as run:
			status, err = run.end()
		os.unlink(self.stall)
		self.t.ok(status and len(run.lines) == 1 and run.lines[0].startswith("retry: %d " % lang.unknown) and err.startswith("gave up: "), what, (status, run.lines, err))
		self.take_back(lang)

	def take_back(self, lang):
		"""What became of it is as it may be: the next one shall find nothing."""
		node = self.c[0].worker()
		node.sql("UPDATE stock SET pieces = pieces + (SELECT ifnull(sum(pieces), 0) FROM orders WHERE id = ?)", [lang.order])
		node.sql("DELETE FROM orders WHERE id = ?", [lang.order])
		node.term()

	def patient(self, lang):
		self.hang()
		with contextlib.closing(self.run(self.t, lang, self.c[0], 60)) as run:
			self.to_the_end(lang, run)
		self.placed += 1
		want = ["1", str(IN_STOCK - PIECES * self.placed)]
		for n in self.c.nodes[1:]:
			wait_until(lambda: self.holds(n, lang.order) == want, 10, "node %d has the order" % n.i)
		self.t.equal([self.holds(n, lang.order) for n in self.c.nodes], [want] * 3, "%s: each node's file has the order once" % lang.name)

	def to_the_end(self, lang, run):
		if self.stall:
			self.t.ok(run.until("retry: %d " % lang.unknown), "%s: a try ends without an answer" % lang.name, distinct(run.lines))
			os.unlink(self.stall)
		status, err = run.end()
		self.t.equal((status, err), (0, ""), "%s: it ends well, with nothing on standard error" % lang.name)
		shown = "%d pear" % PIECES
		self.t.equal([line for line in distinct(run.lines) if not is_retry(line)],
		             ["written: " + lang.order, "stale: " + shown, "default: " + shown], "%s: its output" % lang.name)
		self.t.say("; ".join(filter(is_retry, distinct(run.lines))))


def run_all(t, languages, prepare, run=Run):
	"""prepare(language) says why it is left out, or None when it is ready."""
	shop = Shop(t, run)
	for lang in languages:
		t0 = time.monotonic()
		try:
			why = prepare(lang)
			if why:
				t.skip(lang.name, why)
				continue
			shop.impatient(lang)
			shop.patient(lang)
		except Exception as e:  # the others' turn comes all the same
			t.ok(False, "%s: to its end" % lang.name, e)
			shop.mend()
		t.say("%s: %.1f s" % (lang.name, time.monotonic() - t0))
	shop.rest()
	shop.c[0].serve()
	shop.c.checksums_equal("all checksums are equal")
	shop.c.integrity("all files are in order")
