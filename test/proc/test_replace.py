#!/usr/bin/python3
"""All voters are replaced in one change, under load."""
import json

import load
from harness import IOERR_READ_GATE, Test, wait_until

t = Test(__file__)


def is_removed(n):
	return json.loads(n.command("status", "--json").stdout)["removed"]


@t.case("three for three under load")
def replace():
	c = t.cluster(n=6, kind="worker", create=False)
	c.create(3)
	old, new = c.nodes[:3], c.nodes[3:]
	for n in old:
		n.start_load(threads=3)
	c.wait_acked(50)
	for n in new:
		c.join(n.i, extra=["--learner"])
		n.worker()
		n.start_load(threads=3)
	m = old[1].members()
	t.equal([m[n.url]["kind"] for n in new], ["learner"] * 3, "the new ones are learners, and stay it")
	c.wait_acked(50)
	asked = t.rnd.choice(old)
	r = asked.command("change", "promote=" + ",".join(n.url for n in new), "remove=" + ",".join(n.url for n in old))
	t.ok(not r.returncode, "the change is done, asked on node %d" % asked.i, r.stderr)
	m = c.leader(among=new).members()
	t.equal({u: v["kind"] for u, v in m.items() if u}, {n.url: "voter" for n in new}, "the new ones are the voters, and all there is")
	t.ok(not m[""]["joint"], "the change is over")
	for n in old:
		wait_until(lambda: is_removed(n), 30, "node %d knows that it was removed" % n.i)
		r = n.command("status")
		t.ok(r.returncode == 1 and "walraft detach" in r.stderr, "node %d says that it was removed, and what to do" % n.i, r.stderr)
	c.wait_acked(100)
	for n in c.nodes:
		n.stop_load()
	# At a node that has been removed writers are refused as readers are.
	logs = {n.i: [f for f in c.ack_logs if "/acks-n%d-" % n.i in f] for n in c.nodes}
	bad = sum((load.failures(logs[n.i], allowed=[IOERR_READ_GATE] if n in old else []) for n in c.nodes), [])
	t.ok(not bad, "no write failed: writers met an acknowledgement or the leader's address", "%d: %s" % (len(bad), "\n".join(bad[:20])))
	for n in old:
		e = n.error("INSERT INTO kv(k) VALUES('never')")
		t.ok(e and "removed" in e.walraft_error, "node %d: a writer is told that it was removed" % n.i, repr(e))
		n.term()
	c.verify_load()


t.run()
