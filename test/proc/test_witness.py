#!/usr/bin/python3
"""Two nodes with the database and a witness that has only the log.

No acknowledged row is lost whichever data node dies, for good too; the witness never serves SQL and never grants writes;
its log is bounded while both data nodes live, keeps what one lacks that is away, and has a limit at which writes wait;
it becomes a full replica by command or by itself, also when it is killed on the way.
--rounds N; --full has more of everything.
"""
import os
import re
import time

import harness
from harness import Failed, Test, wait_until, walraft

t = Test(__file__, deadline_s=150)
SEGMENT = 16 << 20
ONE_ROW = "INSERT INTO kv(k, pad) VALUES('%s', '')"


# With it a kill is a power loss: what was not synced is gone (test_powerloss).
UNSYNCED = next((p for p in (os.path.join(harness.BUILD, "test/proc/.libs/unsynced.so"),
                             os.path.join(harness.BUILD, "test/proc/unsynced.so")) if os.path.exists(p)), None)


STALL_SO = os.path.join(harness.BUILD, "test/proc/.libs/stall.so")


def trio(extra=(), power=False):
	"""Nodes 0 and 1 have the database, node 2 is the witness."""
	env = {"LD_PRELOAD": UNSYNCED, "UNSYNCED_ROOT": "@DATA@"} if power and UNSYNCED else None
	c = t.cluster(create=False, n=3, kind="worker", env=env)
	c.init()
	c[0].worker()
	c.join(1)
	c[1].worker()
	c.join_witness(2, extra=extra)
	c.leader()
	return c


def write_mib(c, mib):
	"""Incompressible rows of about mib MiB, on the leader."""
	l = c.leader()
	l.sql("CREATE TABLE IF NOT EXISTS big(v)")
	for i in range(mib * 2):
		l.sql("INSERT INTO big(v) VALUES(randomblob(520000))")


def data_leader(c, among=None, deadline_s=20):
	return c.leader(deadline_s, among or c.replicas())


def boot(n):
	"""Starts an application without waiting for its first read, which needs a quorum; the answer to its open."""
	n.worker(wait_s=0)
	return n.send("open", conn="main", pragmas=[], params={})


def keys_of(c, n):
	return [k for k, in n.sql("SELECT k FROM kv ORDER BY id")]


def members_by_url(s):
	return {m["url"]: m for m in s["members"]}


class Watch:
	"""Whether the witness ever said that it grants writes; how often it led is in its log."""

	def __init__(self, n):
		self.n, self.ready = n, 0

	def look(self):
		try:
			self.ready += self.n.status(3)["ready"]
		except Failed:
			pass

	def led(self):
		with open(self.n.log) as f:
			return len(re.findall(r": leader in term", f.read()))


@t.case("a witness at work")
def at_work():
	c = trio(extra=["--keep-log", "64M"])
	w = c[2]
	c[0].sql(ONE_ROW % "first")
	c.checksums_equal("both data nodes have the row")
	t.equal(sorted(os.listdir(w.dir)), ["app.db-walraft"], "the witness has a node directory and no database")
	s = w.status()
	t.equal([s["witness"]["limit_bytes"], s["witness"]["full"], s["witness"]["kept_for"], s["ready"]], [64 << 20, False, None, False],
	        "its status tells of its log")
	t.equal([c[0].status()["witness"], members_by_url(c[0].status())[w.url]["kind"]], [None, "witness"], "members shows it as a witness")
	leader = data_leader(c)
	r = harness.run_cmd([harness.PYTHON, "-c", """if 1:
		import sqlite3, sys
		m = sqlite3.connect(":memory:")
		m.enable_load_extension(True)
		m.load_extension(%r)
		m.execute("SELECT walraft_auto(1)")
		for vfs in ("?vfs=walraft", "?vfs=walraft&walraft_auto=1"):
			try:
				sqlite3.connect("file:" + %r + vfs, uri=True).execute("SELECT 1").fetchall()
				print("opened")
			except sqlite3.Error as e:
				print(e)
		""" % (harness.MODULE, w.db)])
	t.ok(r.stdout.count("is a witness") == 2 and r.stdout.count(leader.url) == 2, "opening it in a program is refused, and names the leader",
	     r.stdout + r.stderr)
	for command in (["adopt"], ["detach", "--force"], ["init", "--listen", "tcp://127.0.0.1:9"], ["join", "--listen", w.url, "--peer", c[0].url]):
		r = walraft(command[0], w.db, *command[1:])
		t.ok(r.returncode == 1 and r.stderr.strip(), "walraft %s of it is refused" % command[0], r.stdout + r.stderr)
	t.equal(sorted(os.listdir(w.dir)), ["app.db-walraft"], "and nothing came of all that")
	r = walraft("join", os.path.join(t.tmp("late"), "app.db"), "--listen", "tcp://127.0.0.1:%d" % harness.free_ports(1)[0], "--keep-log", "64M", "--peer", w.url)
	t.ok(r.returncode == 2 and "--witness" in r.stderr, "--keep-log without --witness is a usage error", r.stderr)
	extra = c.nodes[0].__class__(c, 3, "tcp://127.0.0.1:%d" % harness.free_ports(1)[0])
	c.nodes.append(extra)
	c.join(3, peer=2)
	extra.worker()
	t.ok(extra.one("SELECT count(*) FROM kv") == 1, "a replica joins by way of the witness")
	c.checksums_equal("and has the same state")
	t.equal([n.term() for n in (extra, w)], [0, 0], "a witness ends cleanly")
	w.serve()
	data_leader(c).sql(ONE_ROW % "second")
	w.wait_status(lambda s: s["published"] >= 4 and s["commit"] == data_leader(c).status()["commit"], 20, "it is back, with the whole log")


@t.case("kill -9 of any of the three")
def kills():
	c = trio(power=t.full)
	for n in c[0], c[1]:
		n.start_load(threads=3)
	c.wait_acked(50)
	watch, killed = Watch(c[2]), {0: 0, 1: 0, 2: 0}
	for r in range(t.args.rounds or (100 if t.full else 6)):
		victim = c[r % 3] if r < 3 else t.rnd.choice(c.nodes)
		killed[victim.i] += 1
		victim.kill9()
		c.wait_acked(t.rnd.randrange(1, 60))
		watch.look()
		victim.start()
		if victim is not c[2]:
			victim.start_load(threads=3)
		if t.rnd.random() < 0.6:
			top = max(s["commit"] for s in c.statuses().values())
			victim.wait_status(lambda s: s["published"] >= top, 30, "catches up to %d in round %d" % (top, r))
	t.say("killed %s; the witness led %d times" % (killed, watch.led()))
	c.wait_acked(1)
	for n in c[0], c[1]:
		n.stop_load()
	c.verify_load(files=not t.full)
	t.equal(watch.ready, 0, "the witness never granted writes")


@t.case("a data node is lost for good while the other was behind")
def levelled():
	c = trio(power=True)
	w, watch = c[2], Watch(c[2])
	for r in range(1 if not t.full else 8):
		# The one that stays away is first a follower, so that the witness has what it lacks.
		data = [c[0], c[1]] if r % 2 == 0 else [c[1], c[0]]
		c.converge()
		late = data[1]
		late.kill9()
		l = data_leader(c, [data[0]])
		lost_log = os.path.join(c.dir, "log", "acks-x%d" % r)
		for i in range(40):
			l.sql(ONE_ROW % ("r%d.%d" % (r, i)))
		want = keys_of(c, l)
		for _ in range(2):
			w.kill9()  # its log must be on its disk
			w.serve()
			l.sql(ONE_ROW % "between")
			want.append("between")
		l.kill9()
		saved = l.dir + "-lost%d" % r
		os.rename(l.dir, saved)
		opened = boot(late)
		t.say("the witness has the log from %d on" % w.status()["journal_base"])
		deadline = time.monotonic() + 20
		while time.monotonic() < deadline:
			watch.look()
			try:
				if late.status(3)["role"] == "leader" and late.status(3)["ready"]:
					break
			except Failed:
				pass
		opened.result(20)
		t.equal(keys_of(c, late), want, "all rows that the lost node had acknowledged with the witness are there")
		late.sql(ONE_ROW % "after")
		t.ok(watch.led() > 0 and watch.ready == 0, "the witness led to level it, %d times, and granted no writes" % watch.led())
		os.rename(saved, l.dir)
		l.start()
		c.checksums_equal("the lost node, found again, has the same state")
		late.kill9()
		late.start()


@t.case("disk")
def disk():
	c = trio()
	w = c[2]
	mib = 100 if not t.full else 600
	write_mib(c, mib)
	s = w.wait_status(lambda s: s["journal_disk_bytes"] <= 5 * SEGMENT and s["journal_base"] > 1, 20, "its journal is trimmed")
	t.ok(s["journal_bytes_appended"] > (mib << 20) * 9 // 10, "%d MiB went through the witness, which keeps %d" % (s["journal_bytes_appended"] >> 20,
	                                                                                               s["journal_disk_bytes"] >> 20))
	away = [n for n in (c[0], c[1]) if n is not data_leader(c)][0]
	c.converge()
	top = w.status()["commit"]
	away.kill9()
	write_mib(c, 64)
	s = w.wait_status(lambda s: s["witness"]["kept_for"] == away.url, 10, "it tells for whom it keeps its log")
	t.ok(s["journal_disk_bytes"] > 60 << 20 and s["journal_base"] <= top, "with a data node away it keeps all that that one lacks: %d MiB"
	     % (s["journal_disk_bytes"] >> 20))
	away.start()
	s = w.wait_status(lambda s: s["journal_disk_bytes"] <= 5 * SEGMENT and s["journal_base"] > top, 30, "its journal shrinks when that is back")
	w.wait_status(lambda s: s["witness"]["kept_for"] is None, 10, "and keeps it for nobody")
	t.ok(True, "and lets go of it when that one is back: %d MiB" % (s["journal_disk_bytes"] >> 20))
	c.checksums_equal("checksums are equal")


@t.case("the limit of the log")
def limit():
	c = trio(extra=["--keep-log", "1M"])
	w = c[2]
	c.converge()
	away = [n for n in (c[0], c[1]) if n is not data_leader(c)][0]
	away.kill9()
	l = data_leader(c)
	l.sql("PRAGMA walraft_timeout=1500")
	acked, e = [], None
	for i in range(40):
		e = l.error("INSERT INTO kv(k, pad) VALUES('l%d', randomblob(100000))" % i)
		if e:
			break
		acked.append("l%d" % i)
	t.ok(e and e.code == harness.IOERR_UNKNOWN and 5 <= len(acked) <= 20, "at the limit a write waits and then fails by name, after %d rows" % len(acked), repr(e))
	s = w.wait_status(lambda s: s["witness"]["full"], 5, "the witness says that it is full")
	t.ok(s["witness"]["kept_for"] == away.url, "and for whom it keeps its log", s["witness"])
	r = walraft("status", l.db)
	t.ok("keep-log" in r.stdout and away.url in r.stdout, "the leader's status says what to do", r.stdout + r.stderr)
	away.start()
	wait_until(lambda: l.error(ONE_ROW % "again") is None, 20, "writes go on when the data node is back")
	t.ok(True, "writes go on when the data node is back")
	w.wait_status(lambda s: not s["witness"]["full"], 20, "it is not full any more")
	c.checksums_equal("checksums are equal")
	t.ok(set(acked) <= set(keys_of(c, data_leader(c))), "no acknowledged row is lost")


@t.case("the witness is away for long, then a data node is lost")
def away():
	if not t.full:  # it must be away for longer than the core waits for members that do not vote
		t.skip("the witness is away for long, then a data node is lost", "with --full")
		return
	c = trio()
	w = c[2]
	w.kill9()
	l = data_leader(c)
	other = [n for n in (c[0], c[1]) if n is not l][0]
	write_mib(c, 40)
	since = time.monotonic()
	wait_until(lambda: other.status()["journal_base"] > 30 or time.monotonic() > since + 25, 35, "the other data node trims its journal, or does not")
	t.say("the journals begin behind %d and %d" % (l.status()["journal_base"], other.status()["journal_base"]))
	write_mib(c, 10)
	c.converge()
	l.kill9()
	w.serve()
	other = c.leader(20, [other])
	other.sql(ONE_ROW % "alone")
	t.ok(True, "the other data node and the witness go on")
	l.start()
	c.checksums_equal("checksums are equal")


def promote(c, w):
	return walraft("promote", data_leader(c).db, w.url)


def order_and_kill(c, w):
	"""The cluster wants it to be a full replica, which it finds out when it is started."""
	w.kill9()
	r = walraft("promote", data_leader(c).db, w.url, "--timeout", "1")
	t.need(r.returncode == 1 and "may still come about" in r.stderr, "walraft promote of a witness that is not there goes on waiting", r.stdout + r.stderr)


def is_replica(w):
	s = w.status(3)
	return s["witness"] is None and members_by_url(s)[w.url]["kind"] == "voter"


@t.case("promotion by command")
def by_command():
	c = trio()
	w = c[2]
	write_mib(c, 8)
	c[0].start_load(threads=2)
	c[1].start_load(threads=2)
	c.wait_acked(20)
	open(w.db, "x").close()  # as a stock program leaves it that has looked there
	r = promote(c, w)
	t.need(r.returncode == 0, "walraft promote of a witness", r.stdout + r.stderr)
	wait_until(lambda: is_replica(w), 30, "the witness is a full replica")
	w.witness = False
	c.wait_acked(10)
	for n in c[0], c[1]:
		n.stop_load()
	c.verify_load("promoted: ")
	t.ok("kind" not in open(os.path.join(w.dir, "app.db-walraft", "node.conf")).read(), "node.conf calls it a witness no more")
	want = keys_of(c, data_leader(c))
	t.equal(w.term(), 0, "it ends cleanly")
	w.worker()
	for n in c[0], c[1]:
		c.leader()
		n.kill9()
		c.leader().sql(ONE_ROW % ("without%d" % n.i))
		want.append("without%d" % n.i)
		n.worker()
		c.converge()
	t.equal(keys_of(c, w), want, "an application opens it, and it stands in for either of the others")


@t.case("promotion that is killed at any moment")
def killed_on_the_way():
	if not t.full:
		t.skip("promotion that is killed at any moment", "with --full; at each of its steps below")
		return
	c = trio(power=True)
	w = c[2]
	write_mib(c, 12)
	c[0].start_load(threads=2, pause_ms=5)
	c[1].start_load(threads=2, pause_ms=5)
	c.wait_acked(20)
	dir = os.path.join(w.dir, "app.db-walraft")
	points = [("image.tmp",), ("image.tmp",), ("installing",), ("pages",)] + [()] * 40
	met = 0
	order_and_kill(c, w)
	w.serve()
	for p in points:
		def there():
			return is_replica(w) or (p and os.path.exists(os.path.join(dir, p[0])))
		if p:
			try:
				wait_until(there, 15, "%s is there" % p, every_s=0.0005)
			except harness.TimedOut:
				continue
		else:
			end = time.monotonic() + t.rnd.random() * 0.5
			wait_until(lambda: time.monotonic() >= end, 2, "a random moment")
		if is_replica(w):
			break
		met += 1
		w.kill9()
		c.wait_acked(3)
		w.serve()
	wait_until(lambda: is_replica(w), 40, "the witness is a full replica")
	w.witness = False
	t.equal(w.term(), 0, "it ends cleanly")
	w.worker()
	t.ok(met > 0, "killed %d times on the way, it is a full replica in the end" % met)
	for n in c[0], c[1]:
		n.stop_load()
	c.verify_load("killed: ", files=False)
	t.equal(sorted(set(os.listdir(dir)) - {"pages.new", "ledger.new"}), ["journal", "ledger", "lock", "node-shm", "node.conf", "node.sock", "pages"], "nothing is left over")


@t.case("promotion that is killed at each of its steps")
def killed_at_each_step():
	if not os.path.exists(STALL_SO):
		t.skip("promotion that is killed at each of its steps", "stall.so is not built")
		return
	c = trio(power=True)
	w = c[2]
	write_mib(c, 2)
	die = os.path.join(c.dir, "die")
	env = {"LD_PRELOAD": " ".join(filter(None, (STALL_SO, c.env.get("LD_PRELOAD")))), "DIE": die}
	order_and_kill(c, w)
	died = 0
	steps = range(1, 60) if t.full else sorted(t.rnd.sample(range(1, 16), 5)) + list(range(16, 60))
	for n in steps:
		with open(die, "w") as f:
			f.write(str(n))
		w.serve(wait_s=0, env=env)
		wait_until(lambda: not w.alive() or is_replica(w), 30, "it dies at step %d, or is a full replica" % n)
		if w.alive():
			break
		died += 1
		data_leader(c)
	t.ok(w.alive() and died >= 4, "killed at %d of its renamings and removals, it is a full replica in the end" % died)
	w.kill9()
	w.serve()
	w.witness = False
	c.checksums_equal("checksums are equal")
	t.ok(len({(v["index"], v["checksum"], v["whole"]) for v in (n.status()["ledger"] for n in c.replicas())}) == 1, "its ledger came with the image")
	t.equal(sorted(set(os.listdir(os.path.join(w.dir, "app.db-walraft"))) - {"pages.new", "ledger.new"}), ["journal", "ledger", "lock", "node-shm", "node.conf", "node.sock", "pages"], "nothing is left over")


@t.case("promotion by itself")
def by_itself():
	c = trio(extra=["--promote-after", "1"])
	w = c[2]
	c.converge()
	t.ok(not is_replica(w), "while both data nodes live it stays a witness")
	away = [n for n in (c[0], c[1]) if n is not data_leader(c)][0]
	away.kill9()
	l = data_leader(c)
	l.sql(ONE_ROW % "one")
	wait_until(lambda: is_replica(w), 30, "the witness is a full replica")
	w.witness = False
	l.sql(ONE_ROW % "two")
	c.checksums_equal("a data node silent, the witness became a full replica by itself: checksums are equal")
	l.kill9()
	opened = boot(away)
	c.leader(30, [w, away])
	opened.result(20)
	c.converge()
	t.equal(keys_of(c, away), ["one", "two"], "and what the two had is there with the other two")


@t.case("a join that was cut short goes on as what it was")
def other_kind():
	c = t.cluster(create=False, n=4, kind="worker")
	c.create(2)
	for first, then, i in ([], ["--witness"], 2), (["--witness"], [], 3):
		n, part = c[i], os.path.join(c[i].db + "-walraft", "journal" if first else "image.tmp")
		args = ["--listen", n.url, "--peer", c[0].url, "--timeout", "10"]
		if first:
			os.makedirs(n.db + "-walraft")
			open(part, "w").close()  # a file where a directory has to be
		else:
			os.makedirs(os.path.join(part, "x"))
		r = walraft("join", n.db, *args, *first)
		t.ok(r.returncode == 1 and n.url in members_by_url(data_leader(c).status()), "join %s cannot write its files, and is a member already" % " ".join(first),
		     r.stderr)
		os.unlink(part) if first else os.removedirs(os.path.join(part, "x"))
		r = walraft("join", n.db, *args, *then)
		t.ok(r.returncode == 1 and "remove" in r.stderr, "join %s goes on with it: refused, and says what to do" % " ".join(then), r.stderr)
		n.witness = bool(first)
		r = walraft("join", n.db, *args, *first)
		m = members_by_url(data_leader(c).status())[n.url]
		t.equal([r.returncode, m["kind"], os.path.exists(n.db)], [0, "witness" if first else "voter", not first], "as what it was it goes on")
		n.start("serve")


t.run()
