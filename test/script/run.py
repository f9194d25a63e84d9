#!/usr/bin/python3
"""Plays the transcripts of this folder to raft-adapter and compares its answers. Prints TAP, one point per transcript.

    WALRAFT_BUILD=build test/script/run.py [part of a name ...]
    WALRAFT_BUILD=build test/script/run.py --record FILE ...    writes the answers that come into FILE

A transcript:

    # what it shows, with its section or invariant
    > state 1
    {"role":"leader","term":2}

A line with > is a command, those below it are the answers expected. Objects must contain what is written; lists must
have as many items as are written, each containing its own. The command's own answer is the last; before it come answers to
earlier `read`s. Without a line any answer but an error will do, and no read may be answered. A `read` has no answer of its
own until it is served or refused. When recorded, answers are cut to the keys that were written there before."""
import glob
import json
import os
import re
import select
import subprocess
import sys

HERE = os.path.join(os.environ["WALRAFT_SRC"], "test/script") if "WALRAFT_SRC" in os.environ else os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("WALRAFT_BUILD", "build")
ADAPTER = os.path.join(BUILD, "test/script/adapter")
DEADLINE_S = 60
SOURCE = re.compile(r"\b(paper|thesis|I\d+)\b", re.I)


class Adapter:
	def __init__(self):
		self.process = subprocess.Popen([ADAPTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
		self.left = b""
		self.count = 0

	def line(self):
		while b"\n" not in self.left:
			if not select.select([self.process.stdout], [], [], DEADLINE_S)[0]:
				raise RuntimeError("no answer within %d s" % DEADLINE_S)
			more = os.read(self.process.stdout.fileno(), 1 << 16)
			if not more:
				raise RuntimeError("raft-adapter ended with %d" % self.process.wait())
			self.left += more
		line, self.left = self.left.split(b"\n", 1)
		return json.loads(line)

	def ask(self, command):
		"""All answers that the command brings. An echo behind it tells where they end."""
		self.count += 1
		self.process.stdin.write(("%s\necho %d\n" % (command, self.count)).encode())
		answers = []
		while True:
			answer = self.line()
			if answer == {"echo": str(self.count)}:
				return answers
			answers.append(answer)

	def end(self):
		self.process.stdin.close()
		code = self.process.wait(DEADLINE_S)
		self.process.stdout.close()
		return code


def contains(got, want):
	if isinstance(want, dict):
		return isinstance(got, dict) and all(k in got and contains(got[k], v) for k, v in want.items())
	if isinstance(want, list):
		return isinstance(got, list) and len(got) == len(want) and all(map(contains, got, want))
	return type(got) is type(want) and got == want


def cut(got, want):
	"""got, reduced to the keys of want."""
	if isinstance(want, dict) and isinstance(got, dict) and "error" not in got:
		return {k: cut(got[k], v) for k, v in want.items() if k in got} or got
	if isinstance(want, list) and isinstance(got, list) and want:
		return [cut(g, want[min(i, len(want) - 1)]) for i, g in enumerate(got)]
	return got


def compact(value):
	return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def read(path):
	"""Items: (line number, text, expected lines); text None for the lines that are no commands, kept as expected[0]."""
	items = []
	with open(path, encoding="utf-8") as f:
		for number, line in enumerate(f.read().split("\n"), 1):
			if line.startswith("> "):
				items.append((number, line[2:], []))
			elif line.startswith(("{", "[")):
				if not items or items[-1][1] is None:
					raise RuntimeError("line %d: an answer without a command" % number)
				items[-1][2].append(json.loads(line))
			elif not line.strip() or line.startswith("#"):
				items.append((number, None, [line]))
			else:
				raise RuntimeError("line %d: neither a command, an answer nor a comment" % number)
	return items


def wrong(command, answers, want):
	if want:
		return len(answers) != len(want) or not all(map(contains, answers, want))
	if command.split()[0] == "read":
		return bool(answers)
	return len(answers) != 1 or "error" in answers[0]


def play(path):
	items = read(path)
	head = [kept[0] for _, text, kept in items[:next((i for i, it in enumerate(items) if it[1] is not None), 0)]]
	if not SOURCE.search(" ".join(head)):
		raise RuntimeError("the comment at its head names no section and no invariant")
	adapter = Adapter()
	try:
		for number, command, want in items:
			if command is None:
				continue
			answers = adapter.ask(command)
			if wrong(command, answers, want):
				raise RuntimeError("line %d: > %s\n  expected\n    %s\n  got\n    %s" % (
					number, command, "\n    ".join(map(compact, want)) or "no error", "\n    ".join(map(compact, answers)) or "no answer"))
	finally:
		code = adapter.end()
	if code:
		raise RuntimeError("raft-adapter ended with %d" % code)


def record(path):
	adapter, out = Adapter(), []
	for _, command, want in read(path):
		if command is None:
			out.append(want[0])
			continue
		answers = adapter.ask(command)
		out.append("> " + command)
		if want or command.split()[0] == "read":
			out += [compact(cut(a, want[min(i, len(want) - 1)] if want else a)) for i, a in enumerate(answers)]
		elif len(answers) != 1 or "error" in answers[0] or "ok" not in answers[0]:
			out += [compact(a) for a in answers]
	adapter.end()
	with open(path, "w", encoding="utf-8") as f:
		f.write("\n".join(out))


def main():
	args = sys.argv[1:]
	if args[:1] == ["--record"]:
		for path in args[1:]:
			record(path)
		return 0
	paths = sorted(p for p in glob.glob(os.path.join(HERE, "*.txt")) if not args or any(a in os.path.basename(p) for a in args))
	with open(os.path.join(HERE, "local.mk"), encoding="utf-8") as f:
		listed = set(re.findall(r"test/script/(\w+\.txt)", f.read()))
	there = set(map(os.path.basename, glob.glob(os.path.join(HERE, "*.txt"))))
	for name in sorted(there ^ listed):
		print("# %s is %s local.mk" % (name, "not in" if name in there else "not there, but in"))
	failed = not paths or there != listed
	print("1..%d" % (len(paths) + 1))
	print("%s 1 - there are transcripts, and local.mk lists them" % ("not ok" if failed else "ok"))
	for i, path in enumerate(paths, 2):
		try:
			play(path)
			ok = True
		except (RuntimeError, OSError, ValueError) as e:
			ok = False
			for line in str(e).split("\n"):
				print("# " + line)
			print("# again: WALRAFT_BUILD=%s test/script/run.py %s" % (BUILD, os.path.basename(path)))
		failed |= not ok
		print("%s %d - %s" % ("ok" if ok else "not ok", i, os.path.basename(path)[:-4]), flush=True)
	return 1 if failed else 0


sys.exit(main())
