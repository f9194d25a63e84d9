#!/usr/bin/python3
"""The leader's disk hangs: it is replaced, nothing acknowledged is lost, and it follows once its disk goes on."""
import os
import time

import harness
from harness import Test

t = Test(__file__)
WITHIN_S = 3 * 0.6  # three election timeouts, the longest being twice 300 ms


@t.case("the leader's disk hangs under load")
def hangs():
	if harness.SANITIZER:
		t.skip("the leader's disk hangs under load", "a second library is preloaded")
		return
	c = t.cluster(n=3, kind="worker", env={"LD_PRELOAD": os.path.join(harness.BUILD, "test/proc/.libs/stall.so"), "STALL": "stall"})
	for n in c.nodes:
		n.start_load(threads=2)
	took = []
	for r in range(t.args.rounds or (10 if t.full else 3)):
		c.wait_acked(50)
		l = c.leader()
		others = [n for n in c.nodes if n is not l]
		t0 = time.monotonic()
		open(os.path.join(l.dir, "stall"), "w").close()
		new = c.leader(among=others)
		took.append(time.monotonic() - t0)
		c.wait_acked(20)
		os.unlink(os.path.join(l.dir, "stall"))
		l.wait_status(lambda s: s["role"] == "follower" and s["leader_id"], 20, "the old leader follows")
		t.ok(True, "round %d: node %d led after %.0f ms, and node %d follows" % (r, new.i, took[-1] * 1000, l.i))
	for n in c.nodes:
		n.stop_load()
	t.ok(max(took) < WITHIN_S, "each time within three election timeouts", took)
	c.verify_load()


t.run()
