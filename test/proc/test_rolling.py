#!/usr/bin/python3
"""Planned ends: a node that leads hands the leadership over before it goes, and a rolling restart fails no write."""
import time

import harness
import load
from harness import Test, wait_until

t = Test(__file__)

# An election after a death takes 0.3 s at least. Sanitizers are slow, and theirs sleeps for a second at exit.
LEAD_ELSEWHERE_S = 3 if harness.SANITIZER else 0.25


@t.case("a leader that ends hands over")
def hand_over():
	for kind in ("serve", "worker"):
		c = t.cluster(n=3, kind=kind)
		took, terms = [], []
		for _ in range(t.args.rounds or (30 if t.full else 6)):
			l = c.leader()
			others = [n for n in c.nodes if n is not l]
			terms.append(l.status()["term"])
			t0 = time.monotonic()
			l.term()
			c.leader(among=others)
			took.append(time.monotonic() - t0)
			l.start()
		terms.append(c.leader().status()["term"])
		t.say("%s: %s ms from SIGTERM to the next leader" % (kind, " ".join("%.0f" % (s * 1000) for s in took)))
		t.ok(sorted(took)[len(took) // 2] < LEAD_ELSEWHERE_S, "%s: the next one leads before an election could have begun" % kind, took)
		t.equal(terms[-1] - terms[0], len(took), "%s: one election each" % kind)
		c.checksums_equal("%s: all checksums are equal" % kind)
		c.destroy()


@t.case("a rolling restart under load")
def rolling():
	c = t.cluster(n=3, kind="worker")
	for n in c.nodes:
		n.start_load(threads=3)
	c.wait_acked(200)
	for turn in range(t.args.rounds or (10 if t.full else 2)):
		for n in c.nodes:
			n.term()
			n.worker()
			n.start_load(threads=3)
			c.wait_acked(100)
	for n in c.nodes:
		n.stop_load()
	bad = load.failures(c.ack_logs)
	t.ok(not bad, "no write failed: writers met an acknowledgement or the leader's address", "%d: %s" % (len(bad), "\n".join(bad[:20])))
	c.verify_load()


t.run()
