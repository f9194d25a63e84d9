#!/usr/bin/python3
"""Lints the tree: sizes of files, who includes whom, what the core may call, leftovers. Prints TAP, one point per rule."""
import os
import re
import sys

TOP = os.environ.get("WALRAFT_SRC") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FOLDERS = ("wire", "raft", "vfs", "snapshot", "shell", "test")
SOURCE = (".c", ".h", ".py", ".sh", ".mk")
LINES_MAX = 600
LINES_ALLOWED = ()  # files that may be longer

# What each folder may include of ours; a test may include everything.
MAY_INCLUDE = {
	"wire": {"wire"},
	"raft": {"raft", "wire"},
	"vfs": {"vfs", "wire"},
	"snapshot": {"snapshot", "wire"},
	"shell": {"shell", "wire", "raft", "vfs", "snapshot"},
}
# The consensus core is a pure function: it takes the time from its caller and does nothing to the world.
IMPURE_HEADERS = ("time.h", "pthread.h", "threads.h", "stdio.h", "unistd.h", "fcntl.h", "signal.h", "sqlite3.h",
                  "sqlite3ext.h", "wire/env.h", "wire/link.h", "sys/")
IMPURE_CALLS = re.compile(r"\b(time|clock_gettime|gettimeofday|nanosleep|usleep|sleep|rand|random|getrandom|open|fopen|read|"
                          r"write|pread|pwrite|close|fsync|fdatasync|printf|fprintf|getenv|pthread_\w+|wire_env_\w+)\s*\(")
LEFTOVER = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
SLEEP = re.compile(r"\bsleep\s*\(")  # a poll may rest between two looks, for less than that
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def read(path):
	with open(os.path.join(TOP, path), encoding="utf-8") as f:
		return f.read()


def sources():
	out = []
	for folder in FOLDERS:
		for where, dirs, names in os.walk(os.path.join(TOP, folder)):
			dirs[:] = sorted(d for d in dirs if not d.startswith((".", "__")))
			out += [os.path.relpath(os.path.join(where, n), TOP) for n in sorted(names)
			        if n.endswith(SOURCE) and not n.startswith(".")]
	return out


def code_lines(text):
	"""The lines without comments and literals, as (number, line)."""
	return enumerate(NOT_CODE.sub(lambda m: "\n" * m.group().count("\n"), text).split("\n"), 1)


def includes(text):
	for number, line in enumerate(text.split("\n"), 1):
		m = INCLUDE.match(line)
		if m:
			yield number, m.group(1), m.group(2)


def is_c(path):
	return path.endswith((".c", ".h"))


def is_core(path):
	return path.startswith("raft/") and is_c(path) and not os.path.basename(path).startswith("journal")


def too_long(files):
	for path in files:
		n = read(path).count("\n")
		if n > LINES_MAX and path not in LINES_ALLOWED:
			yield "%s has %d lines, more than %d: split it by phase" % (path, n, LINES_MAX)


def wrong_includes(files):
	for path in filter(is_c, files):
		folder = path.split("/")[0]
		if folder not in MAY_INCLUDE:
			continue
		for number, kind, name in includes(read(path)):
			target = name.split("/")[0]
			if kind == '"' and "/" not in name:
				yield '%s:%d: "%s" is not written from the top of the tree' % (path, number, name)
			elif target in FOLDERS and target not in MAY_INCLUDE[folder]:
				yield "%s:%d: %s/ must not include %s" % (path, number, folder, name)


def wrong_nng(files):
	for path in filter(is_c, files):
		if path.startswith(("wire/link_nng", "test/")):
			continue
		for number, _, name in includes(read(path)):
			if name.startswith("nng"):
				yield "%s:%d: only wire/link_nng*.c includes %s" % (path, number, name)


def impure_core(files):
	for path in filter(is_core, files):
		text = read(path)
		for number, _, name in includes(text):
			if name.startswith(IMPURE_HEADERS):
				yield "%s:%d: the core must not include %s" % (path, number, name)
		for number, line in code_lines(text):
			m = IMPURE_CALLS.search(line)
			if m:
				yield "%s:%d: the core must not call %s" % (path, number, m.group(1))


def leftovers(files):
	for path in files:
		for number, line in enumerate(read(path).split("\n"), 1):
			if LEFTOVER.search(line):
				yield "%s:%d: %s" % (path, number, line.strip())


def sleeps(files):
	for path in files:
		if is_c(path) and path.startswith("test/"):
			for number, line in code_lines(read(path)):
				if SLEEP.search(line):
					yield "%s:%d: a test polls a condition with a deadline" % (path, number)


RULES = (
	("files are at most %d lines" % LINES_MAX, too_long),
	("folders include only what is below them", wrong_includes),
	("only wire/link_nng*.c includes nng", wrong_nng),
	("the consensus core is pure", impure_core),
	("nothing is left for later", leftovers),
	("no test sleeps", sleeps),
)


def main():
	files = sources()
	print("1..%d" % (len(RULES) + 1))
	ok = sum(map(is_core, files)) > 0 and "wire/link_nng.c" in files
	print("%s 1 - the tree is there" % ("ok" if ok else "not ok"))
	failed = not ok
	for i, (name, rule) in enumerate(RULES, 2):
		found = list(rule(files))
		for line in found:
			print("# " + line)
		print("%s %d - %s" % ("not ok" if found else "ok", i, name), flush=True)
		failed |= bool(found)
	return 1 if failed else 0


sys.exit(main())
