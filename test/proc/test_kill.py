#!/usr/bin/python3
"""kill -9 of a random node, the leader included, round after round, under load from four threads in every node's process.

Every acknowledged row is there exactly once on all nodes, no row reported lost is, all checksums are equal.
--rounds N; --full is 200.
"""
from harness import Test

t = Test(__file__, deadline_s=200)
rounds = t.args.rounds or (200 if t.full else 8)


@t.case("kill -9 of a random node")
def kill():
	c = t.cluster(n=3, kind="worker")
	for n in c.nodes:
		n.start_load(threads=4)
	c.wait_acked(50)
	killed_leaders = 0
	for r in range(rounds):
		# Every third victim is the leader of the moment, so that short runs have some too.
		victim = c.leader() if r % 3 == 0 else t.rnd.choice(c.nodes)
		was = c.leader()
		killed_leaders += victim is was
		victim.kill9()
		c.wait_acked(t.rnd.randrange(1, 60))
		victim.start()
		victim.start_load(threads=4)
		if t.rnd.random() < 0.7:
			top = c.leader().status()["commit"]
			victim.wait_status(lambda s: s["published"] >= top, 30, "catches up to %d in round %d" % (top, r))
		if r % 25 == 24:
			c.wait_acked(1)
			t.say("round %d of %d, %d rows acknowledged" % (r + 1, rounds, c.acked()))
	t.ok(killed_leaders > 0, "%d rounds, in %d the leader was killed" % (rounds, killed_leaders))
	for n in c.nodes:
		n.stop_load()
	c.verify_load()
	c.wait_ready().sql("INSERT INTO kv(k) VALUES('after')")
	c.converge()
	t.equal(c.stop(), [0, 0, 0], "all nodes end cleanly")
	t.equal(len({tuple(n.stock("SELECT count(*), sum(id) FROM kv; PRAGMA integrity_check")) for n in c.nodes}), 1,
	        "and leave equal files")


@t.case("kill -9 of all nodes at once")
def kill_all():
	c = t.cluster(n=3, kind="worker")
	for _ in range(3 if not t.full else 20):
		for n in c.nodes:
			n.start_load(threads=4)
		c.wait_acked(100)
		for n in c.nodes:
			n.proc.kill()
		for n in c.nodes:
			n.proc.wait()
		c.start_all()
		c.wait_ready()
	c.verify_load("all at once: ")


t.run()
