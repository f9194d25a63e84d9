#!/usr/bin/python3
"""Writers on all nodes at once get about the same: the slowest at least half of the mean."""
import time

import harness
from harness import Test, wait_until

t = Test(__file__, full_deadline_s=600)

WRITERS = 8  # on each of three nodes


def counts(c):
	"""Acknowledged rows of each writer, as the database has them."""
	rows = c.leader().stock("SELECT substr(k, 1, instr(k, ':') - 1), count(*) FROM kv GROUP BY 1")
	return {name: int(n) for name, n in (r.split("|") for r in rows)}


def run(name, seconds, pragmas=()):
	c = t.cluster(n=3)
	for n in c.nodes:
		for k in range(WRITERS):
			n.open("w%d" % k, pragmas=list(pragmas))
	begin = time.monotonic()
	sent = [(n, k, n.send("write", conn="w%d" % k, sql="INSERT INTO kv(k) VALUES(?)", tag="n%dw%d" % (n.i, k), seconds=seconds)) for n in c.nodes for k in range(WRITERS)]
	answers = {"n%dw%d" % (n.i, k): p.result(seconds + 60) for n, k, p in sent}
	took = time.monotonic() - begin
	done = {w: a["done"] for w, a in answers.items()}
	errors = {w: a["errors"] for w, a in answers.items() if a["errors"]}
	mean = sum(done.values()) / len(done)
	l = c.leader()
	for n in c.nodes:
		mine = sorted(done["n%dw%d" % (n.i, k)] for k in range(WRITERS))
		t.say("%s: node %d%s: %s; longest wait %.0f ms" % (name, n.i, ", which leads" if n is l else "", mine,
		                                                   max(answers["n%dw%d" % (n.i, k)]["longest_ms"] for k in range(WRITERS))))
	t.say("%s: %.0f transactions a second, mean %.0f, slowest %d, fastest %d" % (name, sum(done.values()) / took, mean, min(done.values()), max(done.values())))
	t.equal(errors, {}, "%s: no write fails" % name)
	t.ok(min(done.values()) >= mean / 2, "%s: the slowest has at least half of the mean" % name, done)
	t.equal(counts(c), done, "%s: what each was acknowledged is there" % name)
	t.equal(c.stop(), [0, 0, 0], "%s: all end well" % name)


@t.case("24 writers on three nodes")
def fair():
	# The waits are part of it: busy_timeout is long enough for all.
	run("24 writers", 60 if t.full else 8)


t.run()
