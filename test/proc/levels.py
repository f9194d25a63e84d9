"""Judges of the histories that history.py records.

The linearizability checker (test/lin) believes nothing but what clients saw. The judges here also believe the table hist, in which each
committed write has put itself, so that its row numbers are the order of all commits; what was read came with the number of its snapshot. Held against hist, which
must be the same on all nodes in the end, every answer is right or wrong by itself, and the number tells how old it was:

  values      a read shows what hist says for its number: nothing that is not committed, nothing torn, nothing of a fork
  outcomes    what was acknowledged is there once, what failed is not, nothing was invented; a cas saw what comes right before it
  order       linearizable, lease: not older than what was acknowledged, or read at one of these levels, before it began
  bounded:ms  not older than what was acknowledged ms before it began
  stale       (each level) numbers of a connection never go back
"""
import bisect
import collections
import glob
import json
import os
import struct
import time

import harness
import history

LINEAR = ("linearizable", "lease")


class Clock:
	"""The file by which skew.c tells all processes of one machine the time. Right to begin with."""

	CLOCKS = (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)

	def __init__(self, file):
		self.fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
		self.turn, self.ppm, self.then = 0, 0, [(0, 0) for _ in self.CLOCKS]
		self._put()

	def _put(self):
		os.pwrite(self.fd, struct.pack("q", self.turn + 1), 0)
		os.pwrite(self.fd, struct.pack("5q", self.ppm, *(ns for pair in self.then for ns in pair)), 8)
		self.turn += 2
		os.pwrite(self.fd, struct.pack("q", self.turn), 0)

	def set(self, ppm):
		"""Their rate from now on."""
		os.pwrite(self.fd, struct.pack("q", self.turn + 1), 0)  # nobody reads it from here on
		now = [time.clock_gettime_ns(c) for c in self.CLOCKS]
		self.then = [(t, shown + (t - then) + (t - then) * self.ppm // 1000000) for t, (then, shown) in zip(now, self.then)]
		self.ppm = ppm
		self._put()


class Op:
	__slots__ = ("process", "op", "key", "value", "level", "t0", "t1", "outcome", "n", "m", "seen", "code", "id")

	def __init__(self, m):
		self.process, self.op, self.key, self.value, self.level = m["process"], m["op"], m["key"], m.get("value"), m["level"]
		self.t0, self.t1, self.outcome, self.n, self.m, self.seen, self.code = m["time"], None, "open", m.get("n"), None, None, None
		self.id = m.get("id")

	def __repr__(self):
		return "%s: %s %s %r at %s, %.6f to %s s: %s %r n %s" % (self.process, self.op, self.key, self.value, self.level, self.t0 / 1e9,
		                                                         "%.6f" % (self.t1 / 1e9) if self.t1 else "?", self.outcome, self.seen, self.n)

	writes = property(lambda self: self.op in ("write", "append", "cas", "transfer"))
	written = property(lambda self: self.value[1] if self.op == "cas" else self.value)


class History:
	def __init__(self, log):
		self.ops, self.lines, self.wrong = [], [], []
		for f in sorted(glob.glob(log + "-*")):
			under_way = None
			with open(f) as h:
				for line in h:
					if not line.endswith("\n"):
						continue  # the kill came inside the write
					m = json.loads(line)
					if m["type"] == "invoke":
						under_way = Op(m)
						self.ops.append(under_way)
					elif m["type"] == "wrong":
						self.wrong.append(m)
					elif m["type"] != "note":
						op = under_way
						op.outcome, op.t1, op.seen, op.m, op.code = m["type"], m["time"], m.get("value"), m.get("m"), m.get("code")
						op.n, op.id = m.get("n", op.n), m.get("id", op.id)
					if m["type"] not in ("wrong", "note"):
						self.lines.append((under_way, line))
		self.ops.sort(key=lambda op: op.t0)

	def count(self):
		"""Lines for people: operations by kind, level, outcome."""
		c = collections.Counter((op.op, op.level, op.outcome) for op in self.ops)
		outcomes = ("ok", "fail", "info", "open")
		out = ["%-9s %-14s %s" % ("kind", "level", " ".join("%7s" % o for o in outcomes))]
		for op, level in sorted({k[:2] for k in c}):
			out.append("%-9s %-14s %s" % (op, level, " ".join("%7d" % c[op, level, o] for o in outcomes)))
		codes = collections.Counter((op.code, op.outcome) for op in self.ops if op.code)
		return out + ["errors: " + ", ".join("%d|%#x %s: %d" % (code & 0xFF, code >> 8, outcome, n) for (code, outcome), n in codes.most_common())]

	def write(self, file, reads_at):
		"""A file for the checker: all writes, and the reads of these levels."""
		with open(file, "w") as f:
			for op, line in self.lines:
				if op.op in ("write", "append", "cas") or (op.op == "read" and op.level.split(":")[0] in reads_at):
					f.write(line)


def lin(file, time_s=60):
	"""The checker's exit status (0 linearizable, 1 violation) and text; with a picture beside the file."""
	r = harness.run_cmd([os.path.join(harness.BUILD, "test/lin/lin"), "--time", str(time_s), "--html", file + ".html", file], timeout=time_s * 2 + 30)
	return r.returncode, (r.stdout + r.stderr).strip()


class Judge:
	"""Of a history, by hist: rows (n, key, value) in order, as all nodes have them in the end. Each method returns what is wrong, as texts."""

	def __init__(self, h, hist):
		self.h, self.hist = h, hist
		self.at = {v: n for n, k, v in hist}
		self.of_key = collections.defaultdict(lambda: ([], []))
		for n, k, v in hist:
			numbers, values = self.of_key[k]
			numbers.append(n)
			values.append(v)

	def outcomes(self):
		bad = [str(m) for m in self.h.wrong]
		if [n for n, k, v in self.hist] != list(range(1, len(self.hist) + 1)):
			bad.append("hist has gaps")
		if len(self.at) != len(self.hist):
			bad += ["%s is there %d times" % x for x in collections.Counter(v for n, k, v in self.hist).items() if x[1] > 1]
		begun = {"first"}
		for op in self.h.ops:
			if not op.writes:
				continue
			begun.add(op.written)
			n = self.at.get(op.written)
			if op.outcome == "ok" and n is None:
				bad.append("lost: %r" % op)
			elif op.outcome == "fail" and n is not None:
				bad.append("failed, but is there as number %d: %r" % (n, op))
			elif op.op == "cas" and n is not None and n != op.n + 1:
				bad.append("is number %d although it read %d: %r" % (n, op.n, op))
		return bad + ["invented: %s" % v for v in self.at if v not in begun]

	def ids(self, said):
		"""said: what walraft_outcome said of each transaction id. Not one of the judges of JUDGED."""
		bad = []
		for op in self.h.ops:
			right = "committed" if op.writes and op.written in self.at else "not committed"
			if op.writes and op.id and said[op.id] != right:
				bad.append("%s is %s, but it is %s: %r" % (op.id, said[op.id], right, op))
		return bad

	def values(self):
		bad = []
		for op in self.h.ops:
			if op.outcome != "ok" or op.op not in ("read", "bank"):
				continue
			numbers, values = self.of_key[op.key]
			there = bisect.bisect_right(numbers, op.n)
			if op.op == "bank":
				right = op.seen == history.TOTAL and op.n == op.m
			elif op.key[0] == "l":
				right = op.seen == values[:there]
			else:
				right = op.seen == (values[there - 1] if there else None)
			if not right or op.n > len(self.hist):
				bad.append("number %d shows something else: %r" % (op.n, op))
		return bad

	def _older(self, points, ops, by_ns):
		"""points: (moment, number) that were known to be there from then on. Those of ops that began by_ns later and saw less. ops: sorted by t0."""
		points = sorted(points)
		bad, floor, i = [], 0, 0
		for op in ops:
			while i < len(points) and points[i][0] < op.t0 - by_ns:
				floor = max(floor, points[i][1])
				i += 1
			seen = self.at[op.written] - 1 if op.writes else op.n
			if seen < floor:
				bad.append("saw %d, but %d was there before: %r" % (seen, floor, op))
		return bad

	def _acknowledged(self):
		return [op for op in self.h.ops if op.writes and op.outcome == "ok" and op.written in self.at]

	def order(self, levels=LINEAR):
		acked = self._acknowledged()
		reads = [op for op in self.h.ops if op.outcome == "ok" and not op.writes and op.level in levels]
		ops = sorted(acked + reads, key=lambda op: op.t0)
		return self._older([(op.t1, self.at[op.written] if op.writes else op.n) for op in ops], ops, 0)

	def bounded(self):
		bad, acked = [], [(op.t1, self.at[op.written]) for op in self._acknowledged()]
		reads = collections.defaultdict(list)
		for op in self.h.ops:
			if op.level.startswith("bounded:") and op.outcome == "ok" and not op.writes:
				reads[op.level].append(op)
		for level, ops in reads.items():
			bad += self._older(acked, ops, int(level.split(":")[1]) * 1000000)
		return bad

	def back(self):
		bad, seen = [], {}
		for op in self.h.ops:
			n = None if op.outcome != "ok" else self.at.get(op.written) if op.writes else op.n
			if n is None:
				continue
			if n < seen.get(op.process, 0):
				bad.append("went back from %d to %d: %r" % (seen[op.process], n, op))
			seen[op.process] = max(n, seen.get(op.process, 0))
		return bad

	JUDGED = (("outcomes", "acknowledged writes are there once, failed ones are not, each cas is next to what it read"),
	          ("values", "each read, at each level, is of one committed state"),
	          ("order", "linearizable and lease reads, and writes, see all that ended before they began"),
	          ("bounded", "bounded reads see all that was acknowledged so long before they began"),
	          ("back", "no connection goes back in time"))
