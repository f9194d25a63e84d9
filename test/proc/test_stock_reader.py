#!/usr/bin/python3
"""Stock readers, without the extension, loop on every node's file during load, checkpoints, kills and restarts.

They never see an error nor an inconsistent sum: two tables whose totals must agree.
"""
import json
import os
import subprocess
import time

import harness
from harness import Test
from load import TOTALS

t = Test(__file__, deadline_s=150)


def reader(node):
	return subprocess.Popen([harness.PYTHON, os.path.join(harness.HERE, "stock_reader.py"), node.db, TOTALS],
	                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=harness.stock_env(),
	                        preexec_fn=harness.die_with_parent)


def verdict(p, node, what):
	try:
		out, _ = p.communicate(timeout=60)
		v = json.loads(out)
	except (subprocess.TimeoutExpired, ValueError) as e:
		p.kill()
		t.ok(False, "%s: the reader on node %d ended in order" % (what, node.i), repr(e))
		return
	t.say("%s: node %d: %d reads, longest %.0f ms" % (what, node.i, v["reads"], v["longest_s"] * 1000))
	t.ok(v["n_errors"] == 0, "%s: the reader on node %d saw no error" % (what, node.i), v)
	t.ok(v["n_apart"] == 0 and v["reads"] > 50, "%s: its totals always agreed" % what, v)


@t.case("load")
def under_load():
	c = t.cluster(n=3, kind="worker")
	ps = [reader(n) for n in c.nodes]
	for n in c.nodes:
		n.start_load(threads=4, pause_ms=0, pad=1500)
	end = time.monotonic() + (60 if t.full else 8)
	while time.monotonic() < end:
		c.wait_acked(500)
	for n in c.nodes:
		n.stop_load()
	c.converge()
	for p, n in zip(ps, c.nodes):
		verdict(p, n, "load")
	c.verify_load()
	for n in c.nodes:
		size = os.path.getsize(n.db + "-wal")
		t.ok(size < 256 << 20, "the WAL of node %d was restarted in spite of the readers" % n.i, size)


@t.case("restarts")
def restarts():
	c = t.cluster(n=3, kind="worker")
	ps = [reader(n) for n in c.nodes]
	for n in c.nodes:
		n.start_load(threads=2)
	for r in range(20 if t.full else 6):
		n = c.nodes[r % 3]
		c.wait_acked(50)
		if r % 2:
			n.kill9()
		else:
			t.equal(n.term(), 0, "round %d: SIGTERM under load and beside a reader ends with status 0" % r)
		c.wait_acked(50)
		n.start()
		n.start_load(threads=2)
		c.leader()
	for n in c.nodes:
		n.stop_load()
	c.converge()
	for p, n in zip(ps, c.nodes):
		verdict(p, n, "restarts")
	c.verify_load()


t.run()
