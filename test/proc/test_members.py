#!/usr/bin/python3
"""Members by command: added, promoted, demoted, removed, and what is refused, with the reason."""
import json
import threading
import time

from harness import Test, wait_until

t = Test(__file__)


@t.case("a learner, from its name to its end")
def learner():
	c = t.cluster(n=4, kind="serve", create=False)
	c.create(3)
	l, f = c.leader(), c.followers()[0]
	r = f.command("add", c[3].url, "--learner", "--priority", "7", "--json")
	t.need(not r.returncode, "add, asked on a follower", r.stderr)
	id = json.loads(r.stdout)["id"]
	m = f.members()[c[3].url]
	t.equal([m["id"], m["state"], m["kind"], m["priority"], m["votes"]], [id, "awaited", "learner", 7, False], "it is awaited")
	r = l.command("add", c[3].url, "--learner", "--priority", "7", "--json")
	t.equal(json.loads(r.stdout)["id"], id, "named again as it was, it has the same id")
	r = f.command("add", c[3].url)
	t.ok(r.returncode == 1 and id in r.stderr, "another of that address is refused", r.stderr)
	r = f.command("promote", c[3].url)
	t.ok(r.returncode == 1 and "has not joined yet" in r.stderr, "a member that never came cannot vote", r.stderr)
	t.ok(not f.command("remove", id[:6]).returncode, "it can be removed, by the beginning of its id")
	t.ok(c[3].url not in l.members(), "it is gone")
	r = f.command("remove", id)
	t.ok(r.returncode == 1 and "no member has" in r.stderr, "a second time it is not there", r.stderr)
	id = json.loads(l.command("add", c[3].url, "--learner", "--json").stdout)["id"]
	c.join(3, peer=f.i)
	c[3].start()
	wait_until(lambda: c[3].status()["leader_id"], 20, "it has a leader")
	m = c[3].members()[c[3].url]
	t.equal([m["id"], m["kind"], m["rising"]], [id, "learner", False], "who joins at the address is that member, and stays a learner")
	m = c[3].members(c[3].url, name="promote")
	t.ok(m[c[3].url]["votes"], "promoted, asked on itself")
	t.equal(sum(v["votes"] for u, v in m.items() if u), 4, "four voters")
	m = l.members(c[3].url, name="demote")
	t.ok(not m[c[3].url]["votes"] and not m[c[3].url]["rising"], "demoted, it stays a learner")
	was = c.leader()
	m = c[3].members(was.url, name="demote")
	t.ok(not m[was.url]["votes"] and m[""]["leader_url"] != was.url, "the leader is demoted: another one leads")
	m = was.members(was.url, name="promote")
	t.ok(m[was.url]["votes"], "and promoted again")
	m = f.members(f.url, "9", name="priority")
	t.equal(m[f.url]["priority"], 9, "priority")
	c.checksums_equal("all checksums are equal")


@t.case("the leader is removed, and comes back")
def leader_leaves():
	c = t.cluster(n=3, kind="worker")
	l = c.leader()
	l.sql("INSERT INTO kv(k) VALUES('before')")
	r = l.command("remove", l.url)
	t.ok(not r.returncode, "asked on itself", r.stderr)
	rest = [n for n in c.nodes if n is not l]
	new = c.leader(among=rest)
	new.sql("INSERT INTO kv(k) VALUES('after')")
	t.equal(sorted(u for u in new.members() if u), sorted(n.url for n in rest), "two members are left")
	wait_until(lambda: json.loads(l.command("status", "--json").stdout)["removed"], 30, "it knows")
	e = l.error("SELECT count(*) FROM kv")
	t.ok(e and "removed" in e.walraft_error, "reads there are refused with the reason", repr(e))
	before = new.status()
	l.term()
	l.serve()
	wait_until(lambda: json.loads(l.command("status", "--json").stdout)["removed"], 30, "after a restart it finds out again")
	t.ok("was removed" in l.log_text(), "its log says so", l.log_text())
	r = l.command("members")
	t.ok(r.returncode == 1 and "removed" in r.stderr, "members says so", r.stderr)
	end = time.monotonic() + 2
	while time.monotonic() < end:
		new.sql("UPDATE b SET v = v + 1 WHERE id = 1")
	after = new.status()
	t.equal([after["term"], after["leader_id"]], [before["term"], before["leader_id"]], "it disturbs nobody")
	l.term()
	r = l.command("detach")
	t.ok(not r.returncode, "it can be detached without --force", r.stderr)
	t.equal(l.stock("SELECT k FROM kv"), ["before"], "and has what was committed while it was a member")
	c.checksums_equal("the others' checksums are equal")


@t.case("what would cost the quorum is refused")
def quorum():
	c = t.cluster(n=3, kind="serve")
	l = c.leader()
	dead, alive = c.followers()
	dead.kill9()
	wait_until(lambda: l.members()[dead.url]["state"] == "unreachable", 20, "its end is noticed")
	for verb in ("remove", "demote"):
		r = alive.command(verb, alive.url)
		t.ok(r.returncode == 1 and "no quorum" in r.stderr and dead.url in r.stderr, "%s: refused, with who is silent" % verb, r.stderr)
	r = l.command("quorum", "--commit", "1", "--elect", "2")
	t.ok(r.returncode == 1 and r.stderr.strip(), "quorum sizes that need not meet are refused with the reason: " + r.stderr.strip())
	m = l.members(dead.url, name="remove")
	t.equal(sorted(u for u in m if u), sorted((l.url, alive.url)), "the dead one can be removed")
	m = l.members(alive.url, name="remove")
	t.equal([u for u in m if u], [l.url], "then the other one")
	began = time.monotonic()
	r = l.command("transfer")
	t.ok(r.returncode == 1 and "nobody can lead" in r.stderr and time.monotonic() - began < 10, "a transfer to nobody is refused at once", r.stderr)
	r = l.command("remove", l.url)
	t.ok(r.returncode == 1 and "walraft detach" in r.stderr, "the last one is not removed but detached", r.stderr)
	alive.term()


@t.case("wrong words, and two for one member")
def words():
	c = t.cluster(n=2, kind="serve")
	l = c.leader()
	other = c.followers()[0]
	wrong = (["priority", l.url, "256"], ["priority", l.url], ["quorum"], ["change", "promote="], ["change", "promote"], ["change", "sell=" + l.url], ["change"],
	         ["add", "http://x"], ["add", "tcp://127.0.0.1:9", "--learner", "--witness"])
	for args in wrong:
		r = l.command(*args)
		t.ok(r.returncode == 2 and "--help" in r.stderr, "%s is wrong usage" % " ".join(args), r.stderr)
	r = l.command("change", "promote=" + other.url, "demote=" + other.url)
	t.ok(r.returncode == 1 and "two different things" in r.stderr, "promoted and demoted at once: refused", r.stderr)
	r = l.command("change", "promote=%s,%s" % (other.url, other.url))
	t.ok(not r.returncode, "the same said twice is no harm", r.stderr)
	m = other.command("members").stdout
	here = [s for s in m.splitlines() if "(this node)" in s]
	t.ok(len(here) == 1 and other.url in here[0], "of all members the one on this host is marked, whoever answers", m)


def percentile(v, p):
	return sorted(v)[int(len(v) * p)]


@t.case("a learner joins while others write")
def latency():
	c = t.cluster(n=4, kind="worker", create=False)
	c.create(3)
	l = c.leader()
	l.sql("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO kv(k, pad) SELECT 'x' || i, randomblob(1000) FROM n"
	      % (100000 if t.full else 10000))

	def commits(until):
		took, end = [], time.monotonic() + 30
		while (len(took) < 400 or not until()) and time.monotonic() < end:
			a = l.send("exec", conn="main", sql="UPDATE a SET v = v + 1 WHERE id = 1", params=[]).result()
			took.append((a["t1"] - a["t0"]) / 1e6)
		return took
	plain = commits(lambda: True)
	j = threading.Thread(target=lambda: c.join(3, peer=l.i, extra=["--learner"]))
	j.start()
	during = commits(lambda: not j.is_alive())
	j.join()
	p = [percentile(v, 0.99) for v in (plain, during)]
	t.say("p50 %.2f and %.2f ms, p99 %.2f and %.2f ms, before and while it joined" % (percentile(plain, 0.5), percentile(during, 0.5), *p))
	t.ok(p[1] < 5 * p[0] + 20, "commits go on while a learner joins", p)
	c[3].worker()
	wait_until(lambda: c[3].status()["leader_id"], 20, "it has a leader")
	c.checksums_equal("all checksums are equal")


t.run()
