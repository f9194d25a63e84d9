"""Ground for the process tests: TAP, waiting, stock SQLite, finding the build.

A test file makes one Test, gives it cases by decorator and calls run(). Each point is a TAP line; a failed point prints
the tails of the logs of every cluster still alive, the seed, and the command that repeats the run.

Environment: WALRAFT_BUILD (build directory), WALRAFT_FULL=1 (full sizes; argument --full), WALRAFT_SEED (argument
--seed N), WALRAFT_KEEP=1 (leave the temporary directories), WALRAFT_CASE (argument: run only cases whose name has it).
Another SQLite than the system's, for test/newest: WALRAFT_HOST_SQLITE (directory of the libsqlite3.so.0 that nodes and
applications run on), WALRAFT_HOST_SHELL (sqlite3 shell that loads the extension), WALRAFT_STOCK_SQLITE and
WALRAFT_STOCK_SHELL (the same for stock processes).
"""
import argparse
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
SYSTEM_SHELL = "/usr/bin/sqlite3"
SQLITE3 = os.environ.get("WALRAFT_STOCK_SHELL") or SYSTEM_SHELL
HOST_SHELL = os.environ.get("WALRAFT_HOST_SHELL") or SYSTEM_SHELL
PYTHON = "/usr/bin/python3"
HOST_SQLITE = os.environ.get("WALRAFT_HOST_SQLITE", "")
STOCK_SQLITE = os.environ.get("WALRAFT_STOCK_SQLITE", "")

# Extended codes, see the manual of the extension.
READONLY_NOT_LEADER = 8 | 0x57 << 8
IOERR_NOT_COMMITTED = 10 | 0x57 << 8
IOERR_UNKNOWN = 10 | 0x58 << 8
IOERR_FENCED = 10 | 0x59 << 8
IOERR_READ_GATE = 10 | 0x5A << 8
IOERR_NODE_FAILED = 10 | 0x5B << 8


def _guess_build():
	b = os.environ.get("WALRAFT_BUILD")
	if b:
		return os.path.abspath(b)
	for d in (os.getcwd(), os.path.join(HERE, "..", "..", "build"), os.path.join(HERE, "..", "..")):
		if os.path.exists(os.path.join(d, ".libs", "walraft.so")):
			return os.path.abspath(d)
	return os.path.abspath(os.path.join(HERE, "..", "..", "build"))


BUILD = _guess_build()
MODULE = os.path.join(BUILD, ".libs", "walraft.so")


def _command():
	real = os.path.join(BUILD, ".libs", "walraft")
	return real if os.access(real, os.X_OK) else os.path.join(BUILD, "walraft")


WALRAFT = _command()


def _sanitizer_runtime():
	"""A module built with a sanitizer needs the runtime in its host before all else."""
	try:
		out = subprocess.run(["ldd", MODULE], capture_output=True, text=True).stdout
	except OSError:
		return ""
	return " ".join(w.split()[2] for w in out.splitlines()
	                if "=> /" in w and any(s in w for s in ("libasan", "libtsan", "libubsan", "libclang_rt")))


SANITIZER = _sanitizer_runtime()


def child_env(extra=None):
	env = dict(os.environ)
	env["WALRAFT_BUILD"] = BUILD
	env["PYTHONDONTWRITEBYTECODE"] = "1"
	if HOST_SQLITE:
		env["LD_LIBRARY_PATH"] = HOST_SQLITE
	if SANITIZER:
		env["LD_PRELOAD"] = SANITIZER
		env.setdefault("ASAN_OPTIONS", "detect_leaks=0")
		env.setdefault("TSAN_OPTIONS", "suppressions=" + os.path.join(HERE, "..", "tsan.supp"))
	for k, v in (extra or {}).items():
		env[k] = v + " " + env[k] if k == "LD_PRELOAD" and env.get(k) else v
	return env


_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
	"""preexec_fn: no node outlives its test, whatever happens to the test."""
	_libc.prctl(1, signal.SIGKILL)


class Failed(Exception):
	"""A condition that a case can't go on without."""


class TimedOut(Failed):
	pass


def wait_until(cond, deadline_s, what, every_s=0.01):
	"""Polls cond() until it gives something true, which is returned. Exceptions of cond count as false."""
	end = time.monotonic() + deadline_s
	last = None
	while True:
		try:
			last = cond()
			if last:
				return last
		except TimedOut:
			raise
		except Exception as e:  # the node may not be there yet
			last = e
		if time.monotonic() > end:
			raise TimedOut("after %g s not so: %s (last: %r)" % (deadline_s, what, last))
		time.sleep(every_s)


def free_ports(n):
	"""Ports below the ephemeral range, so that no outgoing connection takes one in the meantime."""
	import socket
	out = []
	while len(out) < n:
		p = random.SystemRandom().randrange(10000, 32000)
		with socket.socket() as s:
			try:
				s.bind(("127.0.0.1", p))
			except OSError:
				continue
		if p not in out:
			out.append(p)
	return out


def run_cmd(args, timeout=60, env=None, **kw):
	"""Runs a command to its end; returns the CompletedProcess, with text. One that takes too long is killed: status -9."""
	try:
		return subprocess.run(args, capture_output=True, text=True, timeout=timeout, env=child_env(env),
		                      stdin=kw.pop("stdin", subprocess.DEVNULL), preexec_fn=die_with_parent, **kw)
	except subprocess.TimeoutExpired as e:
		out, err = ((b or b"").decode("utf-8", "replace") for b in (e.stdout, e.stderr))
		return subprocess.CompletedProcess(args, -9, out, err + "\n(still running after %g s: killed)" % timeout)


def walraft(*args, timeout=60, **kw):
	return run_cmd([WALRAFT, *map(str, args)], timeout=timeout, **kw)


def stock_env():
	env = dict(os.environ)
	env.pop("LD_PRELOAD", None)
	env.pop("LD_LIBRARY_PATH", None)
	if STOCK_SQLITE:
		env["LD_LIBRARY_PATH"] = STOCK_SQLITE
	return env


def need_host_sqlite(pid):
	"""A run with another SQLite is worth nothing when the process took the system's."""
	with open("/proc/%d/maps" % pid) as f:
		libs = {line.split(None, 5)[5].strip() for line in f if "libsqlite3.so" in line}
	if HOST_SQLITE and libs != {os.path.realpath(os.path.join(HOST_SQLITE, "libsqlite3.so.0"))}:
		raise Failed("process %d runs on %s, not on the library in %s" % (pid, sorted(libs), HOST_SQLITE))


def stock(path, sql, timeout=60):
	"""The stock shell without the extension. Returns the CompletedProcess; output rows are separated by '|'."""
	return subprocess.run([SQLITE3, "-batch", "-init", "/dev/null", "-bail", path, sql], capture_output=True, text=True,
	                      timeout=timeout, stdin=subprocess.DEVNULL, env=stock_env())


def stock_rows(path, sql, timeout=60):
	r = stock(path, sql, timeout)
	if r.returncode:
		raise Failed("stock sqlite3 on %s: %s" % (path, r.stderr.strip()))
	return r.stdout.split("\n")[:-1]


def stock_copy(db, into):
	"""Copies db and its -wal, nothing else, as a backup tool would find them after a crash."""
	os.makedirs(into, exist_ok=True)
	dst = os.path.join(into, os.path.basename(db))
	for suffix in ("", "-wal"):
		if os.path.exists(db + suffix):
			shutil.copyfile(db + suffix, dst + suffix)
	return dst


def rss_anon_kb(pid):
	"""Memory of the process's own: without mapped files (-shm, libraries)."""
	with open("/proc/%d/status" % pid) as f:
		for line in f:
			if line.startswith("RssAnon:"):
				return int(line.split()[1])
	raise Failed("no RssAnon of %d" % pid)


class RssWatch:
	"""Samples RssAnon of processes until stopped; growth() in KiB per pid since the start."""

	def __init__(self, pids):
		self.base = {p: rss_anon_kb(p) for p in pids}
		self.peak = dict(self.base)
		self._stop = threading.Event()
		self._thread = threading.Thread(target=self._run, daemon=True)
		self._thread.start()

	def _run(self):
		while not self._stop.wait(0.005):
			for p in self.base:
				try:
					self.peak[p] = max(self.peak[p], rss_anon_kb(p))
				except (OSError, Failed):
					pass

	def stop(self):
		self._stop.set()
		self._thread.join()

	def growth(self):
		return {p: self.peak[p] - self.base[p] for p in self.base}


class Test:
	"""One test file. Points are counted; the plan comes last."""

	def __init__(self, file, deadline_s=240, full_deadline_s=3600):
		ap = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
		ap.add_argument("case", nargs="?", default=os.environ.get("WALRAFT_CASE", ""))
		ap.add_argument("--full", action="store_true", default=os.environ.get("WALRAFT_FULL", "") not in ("", "0"))
		ap.add_argument("--seed", type=int, default=int(os.environ.get("WALRAFT_SEED") or 0))
		ap.add_argument("--minutes", type=float, default=float(os.environ.get("WALRAFT_MINUTES") or 0))
		ap.add_argument("--rounds", type=int, default=int(os.environ.get("WALRAFT_ROUNDS") or 0))
		self.args = ap.parse_args()
		self.file = os.path.relpath(os.path.abspath(file), os.path.join(HERE, "..", ".."))
		self.full = self.args.full
		self.seed = self.args.seed or random.SystemRandom().randrange(1, 1 << 31)
		self.rnd = random.Random(self.seed)
		self.deadline_s = full_deadline_s if self.full else deadline_s
		self.n = self.failed = 0
		self.cases = []
		self.clusters, self.clusters_made = [], 0
		self.dir = tempfile.mkdtemp(prefix="wr-")
		os.chmod(self.dir, 0o755)

	# -- TAP --
	def say(self, text):
		for line in str(text).splitlines():
			print("# " + line, flush=True)

	def ok(self, cond, name, detail=""):
		self.n += 1
		print("%s %d - %s" % ("ok" if cond else "not ok", self.n, name.replace("#", "")), flush=True)
		if not cond:
			self.failed += 1
			self._explain(detail)
		return bool(cond)

	def equal(self, got, want, name):
		return self.ok(got == want, name, "got:  %.2000r\nwant: %.2000r" % (got, want))

	def skip(self, name, why):
		self.n += 1
		print("ok %d - %s # SKIP %s" % (self.n, name, why), flush=True)

	def need(self, cond, name, detail=""):
		"""A point that the rest of the case builds on."""
		if not self.ok(cond, name, detail):
			raise Failed("cannot go on without: " + name)

	def _explain(self, detail):
		self.say(detail)
		for c in self.clusters:
			for line in c.tails():
				self.say(line)
		self.say("seed %d; repeat with: WALRAFT_BUILD=%s WALRAFT_SEED=%d%s %s %s %s" % (
			self.seed, BUILD, self.seed, " WALRAFT_FULL=1" if self.full else "", PYTHON, self.file, self.args.case))

	# -- running --
	def case(self, name):
		def deco(fn):
			self.cases.append((name, fn))
			return fn
		return deco

	def tmp(self, name):
		p = os.path.join(self.dir, name)
		os.makedirs(p, exist_ok=True)
		return p

	def cluster(self, create=True, **kw):
		"""A Cluster (see there), destroyed at the end of the case; complete and ready unless create is false."""
		from cluster import Cluster
		c = Cluster(self, **kw)
		self.clusters.append(c)
		if create:
			c.create()
		return c

	def _one(self, name, fn):
		t0 = time.monotonic()
		try:
			fn()
		except Exception as e:
			self.n += 1
			self.failed += 1
			print("not ok %d - %s: %s" % (self.n, name, str(e).splitlines()[0] if str(e) else repr(e)), flush=True)
			self._explain(traceback.format_exc())
		finally:
			for c in self.clusters:
				try:
					c.destroy()
				except Exception:
					self.say(traceback.format_exc())
			self.clusters = []
			self.say("case %s: %.1f s" % (name, time.monotonic() - t0))

	def run(self):
		def alarm(*_):
			raise TimedOut("the whole test took longer than %d s" % self.deadline_s)

		def term(*_):
			raise KeyboardInterrupt
		signal.signal(signal.SIGALRM, alarm)
		signal.signal(signal.SIGTERM, term)
		signal.alarm(self.deadline_s)
		self.say("seed %d, %s" % (self.seed, "full" if self.full else "short"))
		try:
			for f in (WALRAFT, MODULE):
				if not os.path.exists(f):
					print("Bail out! %s is missing: build first, or set WALRAFT_BUILD" % f, flush=True)
					sys.exit(99)
			for name, fn in self.cases:
				if self.args.case in name:
					self._one(name, fn)
			print("1..%d" % self.n, flush=True)
		finally:
			for c in self.clusters:
				c.destroy()
			if os.environ.get("WALRAFT_KEEP", "") in ("", "0"):
				shutil.rmtree(self.dir, ignore_errors=True)
			else:
				self.say("kept " + self.dir)
		sys.exit(1 if self.failed else 0)
