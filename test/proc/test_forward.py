#!/usr/bin/python3
"""Ordinary writes on nodes that do not lead."""
import threading
import time

import harness
import load
from harness import READONLY_NOT_LEADER, Test, wait_until
from cluster import SqlError

t = Test(__file__)


@t.case("autocommit and BEGIN IMMEDIATE")
def simple():
	c = t.cluster(n=3, kind="worker")
	l, fs = c.leader(), c.followers()
	for f in fs:
		f.sql("INSERT INTO kv(k) VALUES('auto%d')" % f.i)
		f.sql("BEGIN IMMEDIATE")
		n = f.one("SELECT count(*) FROM kv")
		f.sql("INSERT INTO kv(k) VALUES('imm' || ?)", [n])
		f.sql("COMMIT")
	want = ["auto%d" % fs[0].i, "imm1", "auto%d" % fs[1].i, "imm3"]
	t.equal([n.sql("SELECT k FROM kv ORDER BY id") for n in c.nodes], [[[k] for k in want]] * 3, "all nodes have the rows, in order")
	c.checksums_equal("checksums are equal")
	t.equal(c.stop(), [0, 0, 0], "all end well")


t.run()
