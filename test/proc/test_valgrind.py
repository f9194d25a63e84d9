#!/usr/bin/python3
"""valgrind's memcheck finds nothing in a host of the extension: no bad access, no leak, no descriptor left open."""
import os
import shutil
import subprocess
import time

import examples
import harness
from harness import Test, stock, stock_rows, wait_until, walraft

t = Test(__file__)
VALGRIND = shutil.which("valgrind")
MEMCHECK = [VALGRIND, "-q", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible",
            "--errors-for-leak-kinds=definite,indirect,possible", "--track-fds=yes", "--child-silent-after-fork=yes"]
ORDER = os.path.join(harness.BUILD, "test/examples/order")


def why_not():
	"""Why it cannot be used here; "" when it can. It needs the symbols of the dynamic linker (Debian: libc6-dbg where that is stripped)."""
	if not VALGRIND:
		return "valgrind is not installed"
	if harness.SANITIZER:
		return "not beside a sanitizer"
	r = subprocess.run([VALGRIND, "-q", "/bin/true"], capture_output=True, text=True)
	return r.stderr.strip().splitlines()[0] if r.returncode else ""


WHY_NOT = why_not()


def complaints(text):
	"""What memcheck says but of the descriptors that it was given."""
	out, inherited = [], False
	for line in text.splitlines():
		body = line.split("== ", 1)[-1].strip() if line.startswith("==") else line
		if body.startswith("Open ") or body.startswith("FILE DESCRIPTORS"):
			out.append(body)
		elif "<inherited from parent>" in body:
			out.pop()
		elif body and not body.startswith("=="):
			out.append(body)
	return [b for b in out if not b.startswith("FILE DESCRIPTORS")]


def clean(name, proc, timeout=120):
	out, err = proc.communicate(timeout=timeout)
	t.ok(proc.returncode == 0 and not complaints(err), name, "exit status %s\n%s%s" % (proc.returncode, out, err))
	return out


def start(db, patience_s, cwd):
	return subprocess.Popen(MEMCHECK + [ORDER, harness.MODULE, db, str(patience_s)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
	                        stderr=subprocess.PIPE, text=True, cwd=cwd, preexec_fn=harness.die_with_parent)


@t.case("a single node")
def single():
	if WHY_NOT:
		t.skip("a single node under memcheck", WHY_NOT)
		return
	for option in (["--no-listen"], ["--listen", "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]]):
		db = os.path.join(t.tmp("single" + option[0]), "app.db")
		stock(db, examples.SCHEMA)
		r = walraft("init", db, *option)
		t.need(r.returncode == 0, "init " + option[0], r.stderr)
		out = clean("a host that is a single node (%s): memcheck finds nothing" % option[0], start(db, 30, os.path.dirname(db)))
		t.ok("written: c" in out, "and it has done its work", out)
		t.equal(stock_rows(db, "SELECT count(*) FROM orders"), ["1"], "its row is there")


@t.case("one of three")
def three():
	if WHY_NOT:
		t.skip("a leader of three under memcheck", WHY_NOT)
		return
	c = t.cluster(n=3, kind="serve", schema=examples.SCHEMA)
	n = c[0]
	n.term()
	proc = n.proc = start(n.db, 90, n.dir)
	n.stopped = False
	wait_until(lambda: n.status()["role"], 60, "its node runs")
	end = time.monotonic() + 80
	while proc.poll() is None and time.monotonic() < end:  # until it has led, and ended
		try:
			l = c.leader(5)
		except harness.TimedOut:
			continue
		if l is not n:
			l.sigstop()
			try:
				c.leader(10)
			except harness.TimedOut:
				pass
			finally:
				l.cont()
	out = clean("a host that leads three nodes: memcheck finds nothing", proc)
	t.ok("written: c" in out, "and it has done its work", out)
	n.serve()
	c.checksums_equal("all checksums are equal")


t.run()
