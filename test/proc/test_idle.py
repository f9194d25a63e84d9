#!/usr/bin/python3
"""A group in which nothing happens is quiet, less than a message a second for each peer; it answers at once when it is asked, and a leader
that dies is replaced as soon as ever."""
import time

from harness import Test, wait_until

t = Test(__file__, deadline_s=180)


def sent(node):
	return node.status()["events"].get("message.sent", 0)


def quiet(node, peers):
	"""A span of eight seconds with fewer messages than that to each peer."""
	state = {"at": time.monotonic(), "sent": sent(node), "best": None}

	def span():
		now = time.monotonic()
		if now - state["at"] < 8:
			return False
		rate = (sent(node) - state["sent"]) / (now - state["at"]) / peers
		state.update(at=now, sent=sent(node), best=rate)
		return rate < 1
	wait_until(span, 60, "the leader sends less than a message a second to each peer")
	return state["best"]


@t.case("idle")
def idle():
	c = t.cluster(n=3, kind="worker")
	l = c.leader()
	l.sql("INSERT INTO kv(k) VALUES('a')")
	c.converge()
	term = l.status()["term"]
	rate = quiet(l, 2)
	t.ok(True, "an idle leader sends %.2f messages a second to each peer" % rate)
	began = time.monotonic()
	t.equal(l.sql("SELECT count(*) FROM kv"), [[1]], "a read is answered")
	l.sql("INSERT INTO kv(k) VALUES('b')")
	took = time.monotonic() - began
	t.ok(took < 0.2, "a read and a write take %.0f ms" % (took * 1000))
	t.equal([n.status()["term"] for n in c.nodes], [term] * 3, "nobody has stood for election")
	f = c.followers()[0]
	f.term()
	f.start()
	c.converge()
	if t.full:
		quiet(l, 2)
	t.equal([n.status()["term"] for n in c.nodes], [term] * 3, "nor when a follower was started again")
	began = time.monotonic()
	l.kill9()
	new = c.leader(among=[n for n in c.nodes if n is not l])
	took = time.monotonic() - began
	t.ok(took < 3, "a dead leader is replaced in %.1f s" % took)
	new.sql("INSERT INTO kv(k) VALUES('c')")
	l.start()
	c.converge()
	c.checksums_equal("checksums are equal")
	c.destroy()


t.run()
