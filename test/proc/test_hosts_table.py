#!/usr/bin/python3
"""The table of features in vfs/README.md: each line names cases that exist, and each case of the hosts' tests is in it."""
import os
import re
import runpy
import shutil
import sys

import harness
from harness import Test

HERE = harness.HERE
README = os.path.join(HERE, "..", "..", "vfs", "README.md")
OURS = ("cluster", "default", "files", "leave", "load", "pragmas", "use")
# These are the cases of use and files once more, opened otherwise.
REPEATED = ("default",)


def cases_of(file):
	"""The names of a test's cases, from the test itself, which is loaded but not run."""
	found = []

	def instead_of_running(self):
		found.extend(name for name, _ in self.cases)
		shutil.rmtree(self.dir, ignore_errors=True)
	real, argv = Test.run, sys.argv
	Test.run, sys.argv = instead_of_running, [file]
	try:
		runpy.run_path(file, run_name="__main__")
	finally:
		Test.run, sys.argv = real, argv
	return [n for n in found if n]


def file_of(name):
	for f in ("test_hosts_%s.py" % name, "test_%s.py" % name):
		if os.path.exists(os.path.join(HERE, f)):
			return os.path.join(HERE, f)
	return None


def rows():
	"""The table's lines as (feature, what it does, cells of cases)."""
	with open(README, encoding="utf-8") as f:
		text = f.read().split("## What applications do", 1)[1].split("\n## ", 1)[0]
	for line in text.splitlines():
		cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
		if len(cells) == 3 and cells[0] != "feature" and not set(cells[0]) <= {"-"} and not cells[0].startswith("**"):
			yield cells


def named(cell):
	"""The cases that a cell names, as (test, case)."""
	test = None
	for t_name, case in re.findall(r'`(\w+)`|"([^"]+)"', cell):
		if t_name:
			test = t_name
		else:
			yield test, case


t = Test(__file__)


@t.case("the table and the cases")
def table():
	known, used = {}, set()
	table_rows = list(rows())
	t.ok(len(table_rows) > 50, "the table is there", len(table_rows))
	for feature, _, cell in table_rows:
		names = list(named(cell))
		missing = [] if names else ["no case is named"]
		for test, case in names:
			if test not in known:
				known[test] = cases_of(file_of(test)) if file_of(test) else []
			if case not in known[test]:
				missing.append('%s has no case "%s"' % (test, case))
			used.add((test, case))
		t.ok(not missing, "shown: " + feature, "\n".join(missing))
	for test in OURS:
		known.setdefault(test, cases_of(file_of(test)))
		unused = [c for c in known[test] if (test, c) not in used]
		if test in REPEATED:
			unused = [c for c in unused if re.sub("^auto: ", "", c) not in known["use"] + known["files"]]
		t.ok(not unused, "every case of test_hosts_%s is in the table" % test, unused)


t.run()
