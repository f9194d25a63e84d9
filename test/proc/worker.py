"""A node in an application: loads the extension, opens the database, obeys its standard input.

One JSON request per line {"id", "cmd", ...}, one JSON answer per line {"id", "ok", ...}, in the order of completion. Each
named connection has a thread of its own, so that one may wait while others go on. Ends at end of input or SIGTERM.

  open   conn, uri parameters, pragmas           a connection; without walraft: {"vfs": ""}
  exec   conn, sql, params, many                 rows, or code and text of the error; t0 and t1 in monotonic ns
  write  conn, sql, tag, seconds   a row after the other, "tag:number" its key; how many, the longest wait
  dump   conn, sql, file                         rows as lines of a file
  poll   conn, sql, until, timeout_s             runs the query until its first value is >= until; t1 when seen
  spin   conn, sql, until, timeout_s             the same without a rest; per value seen, when the latest read that gave it began
  crowd  threads, rounds, sql, go, pragmas, params, warm   that many connections, opened first; once the file go is there all read, rounds times (warm: and once before); errors, and how long each took (ms)
  race   threads, seconds, sql, busy_s, go       that many connections, opened first; once the file go is there all run the statements over and over; how often each did, errors by code
  load   threads, log, tag, seed, pause_ms, pad  starts writers, see load.py
  clients  log, tag, seed, levels, ...           starts clients that record their history, one for each of levels, see history.py
  stop   -                                       ends the writers and clients; counts of outcomes
  close  conn
"""
import json
import os
import queue
import signal
import sqlite3
import sys
import threading
import time

import history
import load


def send(lock, msg):
	data = (json.dumps(msg) + "\n").encode()
	with lock:
		while data:
			data = data[os.write(1, data):]


def uri(path, params):
	q = dict({"vfs": "walraft"}, **params)
	q = {k: v for k, v in q.items() if v != ""}
	return "file:" + path + ("?" + "&".join("%s=%s" % kv for kv in q.items()) if q else "")


def explain(con, e):
	a = {"ok": False, "code": getattr(e, "sqlite_errorcode", -1), "error": str(e), "type": type(e).__name__}
	if con is not None:
		try:
			a["walraft_error"] = con.execute("SELECT walraft_error()").fetchone()[0]
		except sqlite3.Error as e2:
			a["walraft_error"] = "(%s)" % e2
		a["in_transaction"] = con.in_transaction
	return a


def plain(v):
	return v.hex() if isinstance(v, bytes) else v


class Conn(threading.Thread):
	def __init__(self, out, path):
		super().__init__(daemon=True)
		self.out, self.path, self.q, self.con = out, path, queue.Queue(), None
		self.start()

	def run(self):
		while True:
			m = self.q.get()
			if m is None:
				break
			try:
				a = getattr(self, "do_" + m["cmd"])(m)
			except Exception as e:
				a = explain(self.con, e)
			a["id"] = m["id"]
			a.setdefault("ok", True)
			send(self.out, a)
			if m["cmd"] == "close":
				break
		if self.con is not None:
			self.con.close()
			self.con = None

	def do_open(self, m):
		self.con = sqlite3.connect(uri(self.path, m.get("params", {})), uri=True, isolation_level=None,
		                           timeout=m.get("busy_s", 5))
		for p in load.FIRST_PRAGMAS + m.get("pragmas", []):
			self.con.execute("PRAGMA " + p).fetchall()
		# The file is opened lazily: touch it, so that errors of opening are errors of open.
		self.con.execute("PRAGMA schema_version").fetchall() if m.get("touch", True) else None
		return {}

	def do_exec(self, m):
		t0 = time.monotonic_ns()
		if m.get("many"):
			self.con.executemany(m["sql"], m["many"])
			rows = []
		else:
			rows = [[plain(v) for v in r] for r in self.con.execute(m["sql"], m.get("params", [])).fetchall()]
		return {"rows": rows, "t0": t0, "t1": time.monotonic_ns()}

	def do_write(self, m):
		begin = time.monotonic()
		done, longest, errors = 0, 0, []
		while time.monotonic() < begin + m["seconds"] and len(errors) < 5:
			t0 = time.monotonic()
			try:
				self.con.execute(m["sql"], ["%s:%d" % (m["tag"], done)])
				done += 1
			except sqlite3.Error as e:
				errors.append("%s %s; %s" % (getattr(e, "sqlite_errorcode", -1), e, explain(self.con, e).get("walraft_error")))
			longest = max(longest, time.monotonic() - t0)
		return {"done": done, "errors": errors, "longest_ms": longest * 1000}

	def do_dump(self, m):
		n = 0
		with open(m["file"], "w") as f:
			for r in self.con.execute(m["sql"]):
				f.write("|".join(str(plain(v)) for v in r) + "\n")
				n += 1
		return {"rows": n}

	def do_poll(self, m):
		end = time.monotonic() + m.get("timeout_s", 10)
		while time.monotonic() < end:
			v = self.con.execute(m["sql"]).fetchone()[0]
			t1 = time.monotonic_ns()
			if v is not None and v >= m["until"]:
				return {"rows": [[v]], "t1": t1}
			time.sleep(m.get("every_s", 0.0002))
		return {"ok": False, "code": -1, "error": "not seen in time, last %r" % v}

	def do_spin(self, m):
		end, latest, errors, n, v = time.monotonic() + m["timeout_s"], {}, {}, 0, None
		while time.monotonic() < end and (v is None or v < m["until"]):
			t0 = time.monotonic_ns()
			try:
				v = self.con.execute(m["sql"]).fetchone()[0]
			except sqlite3.Error as e:
				errors[e.sqlite_errorcode] = errors.get(e.sqlite_errorcode, 0) + 1
				continue
			latest[v] = t0
			n += 1
		return {"latest": sorted(latest.items()), "reads": n, "errors": errors}

	def do_race(self, m):
		done, errors, lock = [0] * m["threads"], {}, threading.Lock()
		ready = threading.Barrier(m["threads"] + 1)

		def run(i):
			con = sqlite3.connect(uri(self.path, m.get("params", {})), uri=True, isolation_level=None, timeout=m.get("busy_s", 5))
			con.execute("PRAGMA schema_version").fetchall()
			ready.wait()
			while not os.path.exists(m["go"]):
				time.sleep(0.005)
			end = time.monotonic() + m["seconds"]
			while time.monotonic() < end:
				try:
					for s in m["sql"]:
						con.execute(s)
					done[i] += 1
				except sqlite3.Error as e:
					with lock:
						k = "%d %s" % (e.sqlite_errorcode, e)
						errors[k] = errors.get(k, 0) + 1
					if con.in_transaction:
						con.execute("ROLLBACK")
			con.close()

		threads = [threading.Thread(target=run, args=(i,)) for i in range(m["threads"])]
		for t in threads:
			t.start()
		ready.wait()
		send(self.out, {"id": m["ready"], "ok": True})
		for t in threads:
			t.join()
		return {"done": done, "errors": errors}

	def do_close(self, m):
		self.con.close()
		self.con = None
		return {}


def start(loads):
	for l in loads:
		if not l.started_once:
			l.started_once = True
			l.start()


class Crowd(threading.Thread):
	"""Readers that are all let go at once. Threads with small stacks: there may be a thousand."""

	def __init__(self, out, path, m):
		super().__init__(daemon=True)
		self.out, self.path, self.m = out, path, m
		self.start()

	def one(self, i, ready, go):
		con = sqlite3.connect(uri(self.m.get("path") or self.path, self.m.get("params", {})), uri=True, isolation_level=None, check_same_thread=False)
		for p in load.FIRST_PRAGMAS + ["walraft_read='stale'"]:  # which a plain database takes for nothing
			con.execute("PRAGMA " + p).fetchall()
		con.execute("SELECT count(*) FROM sqlite_schema").fetchall()
		for p in self.m.get("pragmas", []):
			con.execute("PRAGMA " + p).fetchall()
		ready.release()
		go.wait()
		con.execute(self.m["sql"]).fetchall() if self.m.get("warm") else None
		os.path.exists(self.m["go"] + ".from")  # for who looks at system calls
		for _ in range(self.m.get("rounds", 1)):
			t0 = time.monotonic()
			try:
				self.seen[i].append(con.execute(self.m["sql"]).fetchone()[0])
			except sqlite3.Error as e:
				self.errors.append("%s %s" % (getattr(e, "sqlite_errorcode", -1), e))
			self.took[i].append((time.monotonic() - t0) * 1000)
		os.path.exists(self.m["go"] + ".to")
		con.close()

	def run(self):
		n = self.m["threads"]
		ready, go = threading.Semaphore(0), threading.Event()
		self.seen, self.took, self.errors = [[] for _ in range(n)], [[] for _ in range(n)], []
		threading.stack_size(256 * 1024)
		threads = [threading.Thread(target=self.one, args=(i, ready, go), daemon=True) for i in range(n)]
		for t in threads:
			t.start()
		threading.stack_size(0)
		for _ in threads:
			ready.acquire()
		open(self.m["go"] + ".ready", "w").close()
		while not os.path.exists(self.m["go"]):
			time.sleep(0.001)
		go.set()
		for t in threads:
			t.join()
		took = sorted(x for l in self.took for x in l)
		send(self.out, {"id": self.m["id"], "ok": True, "seen": sorted({x for l in self.seen for x in l}), "reads": sum(map(len, self.seen)),
		                "errors": self.errors[:5], "n_errors": len(self.errors), "worst_ms": took[-1], "median_ms": took[len(took) // 2]})


def main():
	path, so = sys.argv[1], sys.argv[2]
	out = threading.Lock()
	if so:
		boot = sqlite3.connect(":memory:")
		boot.enable_load_extension(True)
		boot.load_extension(so)
		boot.close()
	conns, loads = {}, []

	def bye(*_):
		for l in loads:
			l.stop.set()
		for l in loads:
			l.join(20)
		for c in list(conns.values()):
			c.q.put(None)
		for c in list(conns.values()):
			c.join(20)
		sys.stdout.flush()
		os._exit(0)

	# On a thread of its own: a handler would wait for the main thread, which may be about to block in a read.
	signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
	threading.Thread(target=lambda: bye(signal.sigwait([signal.SIGTERM])), daemon=True).start()
	send(out, {"id": 0, "ok": True})
	for line in sys.stdin:
		m = json.loads(line)
		cmd = m["cmd"]
		if cmd == "load":
			spec = load.Spec(uri(path, {}), m["log"], m["tag"], m["seed"], m.get("pause_ms", 2), m.get("pad", 100),
			                 m.get("timeout_ms", 3000))
			loads += [load.Writer(spec, t) for t in range(m.get("threads", 4))]
			start(loads)
			send(out, {"id": m["id"], "ok": True})
		elif cmd == "clients":
			spec = history.Spec(uri(path, {}), m["log"], m["tag"], m["seed"], "", m["start_ns"], m["turn_s"], m["pace_ms"], m["writes"], m["timeout_ms"])
			loads += [history.Client(spec._replace(level=l), t) for t, l in enumerate(m["levels"])]
			start(loads)
			send(out, {"id": m["id"], "ok": True})
		elif cmd == "crowd":
			Crowd(out, path, m)
		elif cmd == "stop":
			for l in loads:
				l.stop.set()
			for l in loads:
				l.join()
			counts = {}
			for l in loads:
				for k, v in l.counts.items():
					counts[k] = counts.get(k, 0) + v
			loads = []
			send(out, {"id": m["id"], "ok": True, "counts": counts})
		else:
			c = conns.get(m["conn"])
			if c is None or not c.is_alive():
				c = conns[m["conn"]] = Conn(out, path)
			c.q.put(m)
	bye()


if __name__ == "__main__":
	main()
