#!/usr/bin/python3
"""Leadership on request: walraft transfer, also under load, where no write may fail."""
import threading
import time

import harness
import load
from harness import Test, wait_until

t = Test(__file__)


@t.case("back and forth under load")
def back_and_forth():
	c = t.cluster(n=3, kind="worker")
	for n in c.nodes:
		n.start_load(threads=3)
	c.wait_acked(100)
	took = []
	for turn in range(t.args.rounds or (20 if t.full else 8)):
		l = c.leader()
		to = t.rnd.choice([n for n in c.nodes if n is not l])
		asked = t.rnd.choice(c.nodes)
		t0 = time.monotonic()
		r = asked.command("transfer", *([to.url] if turn % 3 else []), "--json")
		took.append((time.monotonic() - t0) * 1000)
		t.ok(not r.returncode, "turn %d: asked on node %d, done" % (turn, asked.i), r.stderr)
		new = c.leader()
		t.ok(new is to if turn % 3 else new is not l, "turn %d: node %d leads" % (turn, new.i))
		c.wait_acked(40)
	for n in c.nodes:
		n.stop_load()
	t.say("%s ms each" % " ".join("%.0f" % ms for ms in took))
	bad = load.failures(c.ack_logs)
	t.ok(not bad, "no write failed: writers met an acknowledgement or the leader's address", "%d: %s" % (len(bad), "\n".join(bad[:20])))
	c.verify_load()


@t.case("priorities under load")
def priorities():
	c = t.cluster(n=3, kind="worker")
	for n in c.nodes:
		n.start_load(threads=3)
	for turn in range(6 if t.full else 3):
		c.wait_acked(40)
		l = c.leader()
		to = t.rnd.choice([n for n in c.nodes if n is not l])
		t0 = time.monotonic()
		r = l.command("priority", to.url, str(101 + turn))
		t.ok(not r.returncode, "turn %d: node %d shall lead" % (turn, to.i), r.stderr)
		wait_until(lambda: c.leader() is to, 20, "it leads")
		t.say("it led after %.0f ms" % ((time.monotonic() - t0) * 1000))
	c.wait_acked(40)
	for n in c.nodes:
		n.stop_load()
	bad = load.failures(c.ack_logs)
	t.ok(not bad, "no write failed: writers met an acknowledgement or the leader's address", "%d: %s" % (len(bad), "\n".join(bad[:20])))
	c.verify_load()


@t.case("a transaction under way ends first, an idle one does not hold it up")
def transactions():
	c = t.cluster(n=3, kind="worker")
	l = c.leader()
	to = c.followers()[0]
	l.open("w")
	l.open("late")
	l.sql("BEGIN IMMEDIATE", conn="w")
	l.sql("INSERT INTO kv(k) VALUES('first')", conn="w")
	done = []
	p = threading.Thread(target=lambda: done.append(l.command("transfer", to.url)))
	p.start()
	# Queues up behind it, and gets the new leader's address in the end, or was faster.
	late = l.ask("INSERT INTO kv(k) VALUES('late')", conn="late")
	l.sql("COMMIT", conn="w")
	p.join(30)
	t.ok(done and not done[0].returncode, "the transaction was committed, then another node led", done and done[0].stderr)
	t.ok(c.leader() is to, "the one that was named leads")
	a = late.raw()
	t.ok(a["ok"] or a["code"] == harness.READONLY_NOT_LEADER, "a later writer was committed before or got the leader's address", a)
	to.open("idle")
	to.sql("BEGIN IMMEDIATE", conn="idle")
	to.sql("INSERT INTO kv(k) VALUES('idle')", conn="idle")
	r = to.command("transfer", l.url)
	t.ok(not r.returncode, "an idle transaction is waited for no longer than that", r.stderr)
	e = to.error("COMMIT", conn="idle")
	t.ok(e is not None and e.code in (harness.IOERR_FENCED, harness.IOERR_NOT_COMMITTED), "its commit says that it was rolled back", repr(e))
	c.checksums_equal("all checksums are equal")
	keys = c.keys(l)
	t.ok("first" in keys and "idle" not in keys, "the first one's row is there, the idle one's is not", keys)


@t.case("refusals")
def refusals():
	c = t.cluster(n=4, kind="serve", create=False)
	c.create(3)
	l = c.leader()
	dead = c.followers()[0]
	dead.kill9()
	wait_until(lambda: l.members()[dead.url]["state"] == "unreachable", 20, "its end is noticed")
	for n in c.live():
		r = n.command("transfer", dead.url)
		t.ok(r.returncode == 1 and "does not answer" in r.stderr, "asked on node %d: a dead one is refused with the reason" % n.i, r.stderr)
	c.join(3, peer=l.i, extra=["--learner"])
	c[3].start()
	r = l.command("transfer", c[3].url)
	t.ok(r.returncode == 1 and "no voter" in r.stderr, "a learner is refused with the reason", r.stderr)
	r = l.command("transfer", "tcp://127.0.0.1:1")
	t.ok(r.returncode == 1 and "no member has" in r.stderr, "nobody is refused", r.stderr)
	t.ok(not l.command("transfer", l.url).returncode, "to the leader itself there is nothing to do")
	t.ok(c.leader() is l, "it leads as before")


t.run()
