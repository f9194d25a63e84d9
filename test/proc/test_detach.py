#!/usr/bin/python3
"""Leaving and coming back: detach, adopt, an address given later, setting up from several processes at once; killed in the middle, too."""
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import time

import harness
from harness import Failed, Test, stock, stock_copy, stock_rows, wait_until, walraft
from load import SCHEMA

t = Test(__file__, deadline_s=400)
rounds = t.args.rounds or (150 if t.full else 15)


def url():
	return "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]


def make_db(name, mode="wal"):
	db = os.path.join(t.tmp(name), "app.db")
	r = stock(db, "PRAGMA journal_mode=%s;%s" % (mode, SCHEMA))
	assert r.returncode == 0, r.stderr
	return db


def refused(name, r, *words):
	"""A point: exit 1, stderr has every word (regular expressions)."""
	missing = [w for w in words if not re.search(w, r.stderr, re.I)]
	return t.ok(r.returncode == 1 and not missing and len(r.stderr) < 2000, name,
	            "exit %d, missing %s in: %r, stdout %r" % (r.returncode, missing, r.stderr, r.stdout))


def done(name, r):
	t.need(r.returncode == 0, name, "exit %d: %s%s" % (r.returncode, r.stdout, r.stderr))
	return r


def plain(db, name):
	left = [n for n in sorted(os.listdir(os.path.dirname(db))) if n.startswith("app.db-")]
	t.ok(not left, "%s: nothing is left beside the database" % name, left)


def one_node(name, listen=True):
	"""A cluster object with one node whose database is set up, and the node."""
	c = t.cluster(n=1, create=False)
	r = stock(c[0].db, "PRAGMA journal_mode=wal;" + SCHEMA)
	assert r.returncode == 0, r.stderr
	done("%s: init" % name, walraft("init", c[0].db, *(["--listen", c[0].url] if listen else ["--no-listen"])))
	return c, c[0]


def insert(n, keys):
	for k in keys:
		n.sql("INSERT INTO kv(k) VALUES(?)", [k])


def keys(db):
	return stock_rows(db, "SELECT k FROM kv ORDER BY id")


@t.case("detach")
def detach():
	c, n = one_node("detach")
	n.worker()
	c.leader()
	insert(n, ["a", "b"])
	refused("while its node runs: names the process", walraft("detach", n.db), "in use by process %d" % n.pid)
	t.equal(n.one("SELECT count(*) FROM kv"), 2, "which is undisturbed")
	n.term()
	r = done("detach", walraft("detach", n.db))
	t.ok("plain database" in r.stdout and "journal_mode=delete" in r.stdout, "it says what the database is now", r.stdout)
	plain(n.db, "detach")
	t.equal(stock_rows(n.db, "SELECT k FROM kv; PRAGMA journal_mode; PRAGMA integrity_check"), ["a", "b", "wal", "ok"],
	        "all rows are there, in WAL mode")
	t.equal(stock_rows(n.db, "PRAGMA journal_mode=delete; INSERT INTO kv(k) VALUES('c'); SELECT count(*) FROM kv"), ["delete", "3"],
	        "it is anybody's again")
	refused("detach of a plain database", walraft("detach", n.db), "not set up", "app\\.db")
	refused("detach of no database", walraft("detach", n.db + "x"), "app\\.dbx", "does not exist")
	done("it can be set up again", walraft("init", n.db, "--listen", n.url))
	a = json.loads(done("detach --json", walraft("detach", n.db, "--json")).stdout)
	t.equal((a["path"], a["dropped"], a["other_members"], a["as_it_is"]), (os.path.realpath(n.db), 0, 0, False), "which tells the same")
	plain(n.db, "detach --json")


@t.case("what only the journal has")
def journal_only():
	c, n = one_node("power loss")
	n.worker()
	c.leader()
	before = stock_copy(n.db, os.path.join(n.dir, "before"))
	insert(n, ["r%d" % i for i in range(50)])
	n.kill9()
	# The WAL is not synced at commit: a power loss may leave it as it was.
	for suffix in ("", "-wal"):
		shutil.copyfile(before + suffix, n.db + suffix)
	os.unlink(n.db + "-shm")
	t.equal(keys(stock_copy(n.db, os.path.join(n.dir, "look"))), [], "the files have none of the rows")
	done("detach", walraft("detach", n.db))
	t.equal(keys(n.db), ["r%d" % i for i in range(50)], "the plain database has all that was acknowledged")
	plain(n.db, "power loss")


@t.case("detach a member")
def member():
	c = t.cluster(n=3, kind="worker")
	l = c.leader()
	insert(l, ["one"])
	f = c.followers()[0]
	c.converge()
	f.term()
	insert(l, ["two"])
	refused("without --force", walraft("detach", f.db), "2 other members", "--force")
	t.ok(os.path.exists(f.db + "-walraft/node.conf"), "which changed nothing")
	r = done("with --force", walraft("detach", f.db, "--force"))
	t.ok("2 other members" in r.stdout, "it says that the others count it", r.stdout)
	t.equal(keys(f.db), ["one", "two"], "it caught up with them first")
	plain(f.db, "a member")
	insert(l, ["three"])
	t.ok(True, "the others go on")
	other = [n for n in c.live() if n is not l][0]
	c.converge()
	# An entry that only the leader has: nobody can tell what becomes of it.
	other.sigstop()
	l.sql("PRAGMA walraft_timeout=300")
	l.sql("PRAGMA walraft_read='stale'")
	e = l.error("INSERT INTO kv(k) VALUES('four')")
	t.ok(e is not None and e.code == harness.IOERR_UNKNOWN, "without a majority a commit's outcome is unknown", repr(e))
	l.kill9()
	other.kill9()
	r = walraft("detach", l.db, "--force", "--timeout", "1", "--json")
	a = json.loads(done("with --force, without a quorum", r).stdout)
	t.ok(a["dropped"] >= 1 and a["other_members"] == 2, "it says how much is dropped", a)
	t.equal(keys(l.db), ["one", "two", "three"], "what was known to be committed is there")
	plain(l.db, "without a quorum")


@t.case("detach what was changed")
def detach_changed():
	c, n = one_node("changed")
	n.worker()
	c.leader()
	insert(n, ["mine"])
	n.term()
	stock_rows(n.db, "INSERT INTO kv(k) VALUES('theirs')")
	refused("a file that its node refuses", walraft("detach", n.db), "changed outside", "--force")
	r = done("with --force", walraft("detach", n.db, "--force"))
	t.ok("as the file was" in r.stdout, "it says so", r.stdout)
	t.equal(keys(n.db), ["mine", "theirs"], "the file is as it was")
	plain(n.db, "changed")
	db = make_db("reader")
	done("init", walraft("init", db, "--no-listen"))
	p = subprocess.Popen([harness.SQLITE3, "-batch", "-init", "/dev/null", db], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
	                     env=harness.stock_env(), preexec_fn=harness.die_with_parent)
	p.stdin.write("BEGIN; SELECT 'rows', count(*) FROM a;\n")
	p.stdin.flush()
	wait_until(lambda: "rows" in p.stdout.readline(), 10, "a reader has it open")
	r = walraft("detach", db)
	refused("while a stock reader reads", r, "in use", "process %d" % p.pid)
	p.stdin.close()
	p.wait()
	p.stdout.close()
	done("and when it has ended", walraft("detach", db))
	t.equal(stock_rows(db, "SELECT count(*) FROM a"), ["100"], "the rows are there")
	plain(db, "reader")


LIB = next((p for p in (os.path.join(harness.BUILD, "test/proc/.libs/unsynced.so"), os.path.join(harness.BUILD, "test/proc/unsynced.so"))
            if os.path.exists(p) and not harness.SANITIZER), None)  # a sanitizer's runtime wants to be the only one before libc


def kill_at_random(args, longest_s):
	"""Runs the command and kills it at a random moment, half of the times so that what it had not synced is lost; True when it had ended before."""
	env = {}
	if LIB and t.rnd.randrange(2):
		env = {"LD_PRELOAD": LIB, "UNSYNCED_ROOT": os.path.join(t.dir, "rounds")}
	p = subprocess.Popen([harness.WALRAFT, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=harness.child_env(env),
	                     preexec_fn=harness.die_with_parent)
	try:
		out = p.communicate(timeout=t.rnd.random() * longest_s)[0]
		if p.returncode != 0:
			raise Failed("%s ended with %d: %s" % (args[0], p.returncode, out.decode("utf-8", "replace")))
		return True
	except subprocess.TimeoutExpired:
		p.kill()
		p.communicate()
		return False


def template(name):
	"""A directory with a database whose last rows are in the journal only."""
	c, n = one_node(name, listen=False)
	n.worker()
	c.leader()
	insert(n, ["in both"])
	before = stock_copy(n.db, os.path.join(n.dir, "before"))
	insert(n, ["r%d" % i for i in range(20)])
	n.kill9()
	for suffix in ("", "-wal"):
		shutil.copyfile(before + suffix, n.db + suffix)
	os.unlink(n.db + "-shm")
	return n


def place(n, i):
	"""A copy of the template's files; its node runs on them as on the original."""
	d = os.path.join(t.tmp("rounds"), str(i))
	shutil.copytree(n.dir, d, ignore=lambda _, names: [x for x in names if x == "node.sock"])
	return os.path.join(d, "app.db")


def serve_once(db, look):
	"""Starts walraft serve, calls look while it runs, ends it. Its error text when it does not start."""
	p = subprocess.Popen([harness.WALRAFT, "serve", db], stderr=subprocess.PIPE, text=True, env=harness.child_env(), preexec_fn=harness.die_with_parent)
	text = ""
	for line in p.stderr:
		text += line
		if line.startswith("walraft: serving "):
			break
	else:
		p.wait(20)
		p.stderr.close()
		return text
	try:
		look()
	finally:
		p.terminate()
		p.wait(20)
		p.stderr.close()
	return None


def timed(args):
	t0 = time.monotonic()
	done("%s, undisturbed" % args[0], walraft(*args))
	return time.monotonic() - t0


@t.case("detach killed")
def detach_killed():
	n = template("detach killed")
	want = keys(n.db)[:1] + ["r%d" % i for i in range(20)]
	longest = timed(["detach", place(n, "timed")])
	seen, bad = {"node": 0, "half removed": 0, "plain": 0, "ended": 0}, []
	for i in range(rounds):
		db = place(n, i)
		if kill_at_random(["detach", db], longest * 1.1):
			seen["ended"] += 1
		elif os.path.exists(db + "-walraft/node.conf"):
			seen["node"] += 1
			if i % 2:
				err = serve_once(db, lambda: wait_until(lambda: keys(db) == want, 20, "the node publishes all rows"))
				if err:
					bad.append((i, "the node does not start", err))
			r = walraft("detach", db)
			if r.returncode:
				bad.append((i, "detach again", r.stderr))
		elif os.path.exists(db + "-walraft"):
			seen["half removed"] += 1
			if keys(db) != want:
				bad.append((i, "rows, before the directory is gone", keys(db)))
			r = walraft("detach", db) if i % 2 else walraft("init", db, "--no-listen")
			if r.returncode and os.path.exists(db + "-walraft/detached"):
				bad.append((i, "detach or init again", r.stderr))
		else:
			seen["plain"] += 1
		if keys(db) != want or stock_rows(db, "PRAGMA integrity_check") != ["ok"]:
			bad.append((i, "rows", keys(db), stock_rows(db, "PRAGMA integrity_check")))
	t.say("detach killed: %s" % seen)
	t.ok(not bad, "detach killed %d times: each time the replicated database or the plain one, with all rows" % rounds, bad[:5])
	t.ok(seen["node"] > 0, "some were killed before it was a plain one", seen)


@t.case("init killed")
def init_killed():
	sql = "PRAGMA journal_mode=%s;" + SCHEMA + "INSERT INTO kv(k) VALUES('mine');"
	db = os.path.join(t.tmp("rounds/init-timed"), "app.db")
	stock_rows(db, sql % "delete")
	longest = timed(["init", db, "--no-listen"])
	seen, bad = {"plain": 0, "with leftovers": 0, "node": 0}, []
	for i in range(rounds):
		db = os.path.join(t.tmp("rounds/init-%d" % i), "app.db")
		stock_rows(db, sql % ("delete", "wal")[i % 2])
		kill_at_random(["init", db, "--no-listen"], longest * 1.1)
		if os.path.exists(db + "-walraft/node.conf"):
			seen["node"] += 1
		else:
			seen["with leftovers" if os.path.exists(db + "-walraft") else "plain"] += 1
			if keys(db) != ["mine"] or stock_rows(db, "PRAGMA integrity_check") != ["ok"]:
				bad.append((i, "rows", keys(db)))
			r = walraft("init", db, "--no-listen")
			if r.returncode:
				bad.append((i, "init again", r.stderr))
		err = serve_once(db, lambda: wait_until(lambda: json.loads(walraft("status", db, "--json").stdout)["ready"], 20, "ready"))
		if err or keys(db) != ["mine"]:
			bad.append((i, "the node", err, keys(db)))
	t.say("init killed: %s" % seen)
	t.ok(not bad, "init killed %d times: each time a plain database or a whole node" % rounds, bad[:5])
	t.ok(seen["node"] > 0 and seen["node"] < rounds, "some were killed before, some after", seen)


@t.case("adopt")
def adopt():
	c, n = one_node("adopt")
	n.worker()
	c.leader()
	insert(n, ["mine"])
	before = n.status()
	refused("while its node runs", walraft("adopt", n.db), "in use by process %d" % n.pid)
	n.term()
	r = done("of a file that is as it was", walraft("adopt", n.db))
	t.ok("nothing to adopt" in r.stdout, "leaves it alone", r.stdout)
	stock_rows(n.db, "INSERT INTO kv(k) VALUES('theirs')")
	refused("serve names it", walraft("serve", n.db, timeout=20), "changed outside", "walraft adopt")
	a = json.loads(done("adopt --json", walraft("adopt", n.db, "--json")).stdout)
	t.ok(a["adopted"] and a["node_id"] == before["node_id"] and a["index"] > before["last_index"], "the state has an index of its own", (a, before))
	n.worker()
	after = c.leader().status()
	t.equal([after[k] for k in ("node_id", "cluster", "group", "url")], [before[k] for k in ("node_id", "cluster", "group", "url")], "ids and address stay")
	t.ok(after["term"] > before["term"] and after["last_index"] > a["index"], "terms and indexes go up", (before, a, after))
	t.equal(n.sql("SELECT k FROM kv ORDER BY id"), [["mine"], ["theirs"]], "the node has the file's rows")
	insert(n, ["later"])
	n.kill9()
	n.worker()
	c.leader()
	t.equal(n.one("SELECT count(*) FROM kv"), 3, "and goes on, over a kill")
	other = os.path.join(t.tmp("adopt-join"), "app.db")
	done("a node joins it", walraft("join", other, "--listen", url(), "--peer", n.url))
	t.equal(keys(other), ["mine", "theirs", "later"], "and gets the rows")
	n.term()
	stock_rows(n.db, "INSERT INTO kv(k) VALUES('no')")
	refused("with another member it is refused", walraft("adopt", n.db), "2 members", "join again")
	refused("not set up", walraft("adopt", make_db("adopt-plain")), "not set up")


@t.case("adopt other changes")
def adopt_changes():
	def restore(n):
		for suffix in ("-wal", "-shm"):
			if os.path.exists(n.db + suffix):
				os.unlink(n.db + suffix)
		shutil.copyfile(os.path.join(n.dir, "copy.db"), n.db)
	changes = (
		("put back from a copy", restore, ["old"]),
		("rollback mode", lambda n: stock_rows(n.db, "PRAGMA journal_mode=delete; INSERT INTO kv(k) VALUES('theirs')"), ["old", "new", "theirs"]),
		("another page size", lambda n: stock_rows(n.db, "PRAGMA journal_mode=delete; PRAGMA page_size=1024; VACUUM; INSERT INTO kv(k) VALUES('t')"),
		 ["old", "new", "t"]),
		("made smaller", lambda n: stock_rows(n.db, "DELETE FROM a; DELETE FROM kv; VACUUM"), []),
	)
	for what, change, want in changes:
		c, n = one_node(what, listen=False)
		n.worker()
		c.leader()
		insert(n, ["old"])
		n.term()
		stock_rows(n.db, "VACUUM INTO '%s'" % os.path.join(n.dir, "copy.db"))
		n.worker()
		c.leader()
		insert(n, ["new"])
		n.term()
		change(n)
		refused("%s: refused at first" % what, walraft("serve", n.db, timeout=20), "walraft adopt")
		done("%s: adopt" % what, walraft("adopt", n.db))
		n.worker()
		c.leader()
		t.equal([k for k, in n.sql("SELECT k FROM kv ORDER BY id")], want, "%s: the file's rows" % what)
		insert(n, ["after"])
		n.term()
		t.equal(stock_rows(n.db, "SELECT k FROM kv ORDER BY id; PRAGMA integrity_check"), want + ["after", "ok"], "%s: and it goes on" % what)
		c.destroy()


@t.case("adopt killed")
def adopt_killed():
	c, n = one_node("adopt killed", listen=False)
	n.worker()
	c.leader()
	insert(n, ["mine"])
	n.term()
	stock_rows(n.db, "INSERT INTO kv(k) VALUES('theirs')")
	want = ["mine", "theirs"]
	longest = timed(["adopt", place(n, "adopt-timed")])
	seen, bad = {"refused": 0, "new": 0, "ended": 0}, []
	for i in range(rounds):
		db = place(n, "adopt-%d" % i)
		if kill_at_random(["adopt", db], longest * 1.1):
			seen["ended"] += 1
		if keys(db) != want:
			bad.append((i, "rows", keys(db)))
		err = serve_once(db, lambda: wait_until(lambda: json.loads(walraft("status", db, "--json").stdout)["ready"], 20, "ready"))
		seen["refused" if err else "new"] += 1
		if err:
			if not re.search("changed outside.*walraft adopt", err):
				bad.append((i, "refusal", err))
			for step in ("adopt", "serve"):
				r = walraft("adopt", db)
				if r.returncode or ("nothing to adopt" in r.stdout) != (step == "serve"):
					bad.append((i, step, r.stdout, r.stderr))
		if keys(db) != want:
			bad.append((i, "rows at the end", keys(db)))
	t.say("adopt killed: %s" % seen)
	t.ok(not bad, "adopt killed %d times: each time refused as before, or the new state" % rounds, bad[:5])
	t.ok(seen["refused"] > 0 and seen["new"] > 0, "some were killed before, some after", seen)


@t.case("an address later")
def address():
	c = t.cluster(n=2, create=False)
	n = c[0]
	stock_rows(n.db, SCHEMA)
	r = walraft("init", n.db, "--listen", n.url, "--no-listen")
	t.ok(r.returncode == 2 and "--no-listen" in r.stderr, "both at once", r.stderr)
	r = walraft("init", n.db)
	t.ok(r.returncode == 2 and "--listen" in r.stderr and "--no-listen" in r.stderr, "neither: both are explained", r.stderr)
	# An application that wants no more than an embedded database makes it.
	n.worker(walraft_auto="1")
	c.leader()
	insert(n, ["alone"])
	ids = {k: n.status()[k] for k in ("node_id", "cluster", "group")}
	t.ok("auto yes\n" in open(n.db + "-walraft/node.conf").read(), "node.conf says that it was set up by itself")
	t.equal([m["url"] for m in n.status()["members"]], [""], "it has no address")
	refused("while it runs", walraft("init", n.db, "--listen", n.url), "in use by process %d" % n.pid)
	n.term()
	r = done("init --listen gives it one", walraft("init", n.db, "--listen", n.url))
	t.ok(n.url in r.stdout and "walraft join" in r.stdout, "and says how others join", r.stdout)
	t.ok("auto" not in open(n.db + "-walraft/node.conf").read(), "from now on it is a node that somebody wanted")
	refused("init --listen again", walraft("init", n.db, "--listen", n.url), "already replicated")
	refused("init with another address", walraft("init", n.db, "--listen", url()), "already", re.escape(n.url), "cannot be changed")
	refused("init --no-listen of it", walraft("init", n.db, "--no-listen"), "already")
	# The second one asks from before the first one's start on.
	p = subprocess.Popen([harness.WALRAFT, "join", c[1].db, "--listen", c[1].url, "--peer", n.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
	                     text=True, env=harness.child_env(), preexec_fn=harness.die_with_parent)
	n.worker()
	out = p.communicate(timeout=60)[0]
	t.need(p.returncode == 0, "a second node joins", out)
	c[1].worker()
	c.wait_ready(members=2)
	t.equal({k: n.status()[k] for k in ids}, ids, "the ids stay")
	t.equal([sorted(m["url"] for m in x.status()["members"]) for x in c.nodes], [sorted([n.url, c[1].url])] * 2, "both know both addresses")
	insert(c.leader(), ["both"])
	c.checksums_equal("checksums are equal")
	t.equal([x.stock("SELECT k FROM kv") for x in c.nodes], [["alone", "both"]] * 2, "both have all rows")
	# The configuration that they have must do for dialling, also after both were down.
	for x in c.nodes:
		x.term()
	c.start_all()
	insert(c.leader(), ["again"])
	c.checksums_equal("and after a restart of both")


def run_all(args_list):
	ps = [subprocess.Popen(a, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=harness.child_env(),
	                       preexec_fn=harness.die_with_parent) for a in args_list]
	return [(p.communicate(timeout=60), p.returncode) for p in ps]


@t.case("several at once")
def several():
	bad = []
	for i in range(3 if not t.full else 20):
		db = make_db("race%d" % i, ("wal", "delete")[i % 2])
		got = run_all([[harness.WALRAFT, "init", db, "--listen", url()] for _ in range(4)] + [[harness.WALRAFT, "init", db, "--no-listen"] for _ in range(2)])
		winners = [out for (out, err), code in got if code == 0]
		bad += [(out, err, code) for (out, err), code in got if code and not (code == 1 and re.search("already|in use", err))]
		# One that was set up without an address may have been given one by another.
		if not winners or len(winners) > 2 or len([w for w in winners if "new cluster" in w]) != 1:
			bad.append(winners)
		err = serve_once(db, lambda: None)
		if err:
			bad.append(err)
	t.ok(not bad, "six processes that set one database up: one does, the others say so", bad[:5])
	script = ("import sqlite3, sys\nc = sqlite3.connect(':memory:'); c.enable_load_extension(True); c.load_extension(sys.argv[1])\n"
	          "d = sqlite3.connect('file:%s?vfs=walraft&walraft_auto=1' % sys.argv[2], uri=True, timeout=10)\n"
	          "for attempt in range(20):\n"
	          "  try: d.execute('INSERT INTO kv(k) VALUES(1)'); d.commit(); print('wrote'); break\n"
	          "  except sqlite3.OperationalError as e:\n"
	          "    if getattr(e, 'sqlite_errorcode', 0) != 22794: raise\n"  # the process that hosted the node has ended: repeat it
	          "    d.rollback()\n"
	          "d.close()")
	db = make_db("autorace")
	got = run_all([[harness.PYTHON, "-c", script, harness.MODULE[:-3], db] for _ in range(6)])
	wrote = [out for (out, err), code in got if code == 0]
	bad = [(err, code) for (out, err), code in got if code and not re.search("in use by process", err)]
	t.ok(wrote and not bad, "six applications that open one automatic database: some write, the others say who has it", (got, bad))
	t.equal(len(keys(db)), len(wrote), "each row that was acknowledged is there")
	bad = []
	db = make_db("around")
	for i in range(5 if not t.full else 50):
		got = run_all([[harness.WALRAFT, "init", db, "--no-listen"], [harness.WALRAFT, "detach", db], [harness.WALRAFT, "init", db, "--no-listen"],
		               [harness.WALRAFT, "detach", db]])
		bad += [(err, code) for (out, err), code in got if code and not (code == 1 and re.search("already|in use|not set up|set up by process", err))]
	r = walraft("init", db, "--no-listen")
	if r.returncode and "already" not in r.stderr:
		bad.append(r.stderr)
	err = serve_once(db, lambda: None)
	t.ok(not bad and not err, "init and detach of one database at once do not meet half-way", (bad[:5], err))
	t.equal(stock_rows(db, "SELECT count(*) FROM a; PRAGMA integrity_check"), ["100", "ok"], "and its rows are there")


@t.case("the node directory")
def directory():
	db = make_db("setgid")
	os.chmod(db, 0o640)
	os.chmod(os.path.dirname(db), 0o2775)
	done("init", walraft("init", db, "--no-listen"))
	mode = stat.S_IMODE(os.stat(db + "-walraft").st_mode)
	t.equal(oct(mode), oct(0o2750), "who may read the database may come in; the group that it gave is inherited")
	total = sum(os.stat(os.path.join(d, f)).st_blocks * 512 for d, _, fs in os.walk(db + "-walraft") for f in fs)
	t.ok(total < 1 << 20, "it takes less than 1 MiB", total)
	db = make_db("leftovers")
	os.makedirs(db + "-walraft/journal")
	for name in ("journal/0000000000000001.seg", "pages", "pages.new", "image.tmp", "installing", "installing.tmp", "node.conf.tmp", "detached"):
		with open(os.path.join(db + "-walraft", name), "w") as f:
			f.write("rubbish")
	with open(db, "r+b") as f:
		f.truncate(4096)
	refused("init of a damaged database", walraft("init", db, "--no-listen"), "app\\.db")
	t.ok(not os.path.exists(db + "-walraft"), "takes the leftovers of other attempts with it", os.path.exists(db + "-walraft") and os.listdir(db + "-walraft"))
	db = make_db("tail")
	with open(db, "ab") as f:
		f.write(bytes(3 * 4096))
	size = os.path.getsize(db) - 3 * 4096
	done("init of a database with room behind its last page", walraft("init", db, "--no-listen"))
	t.equal(os.path.getsize(db), size, "cuts it")
	t.equal(serve_once(db, lambda: None), None, "and its node starts")


@t.case("status of a failed node")
def failed():
	c, n = one_node("failed")
	n.worker()
	c.leader()
	t.equal(walraft("status", n.db).returncode, 0, "status of a node that works: exit 0")
	resource.prlimit(n.pid, resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
	errors = filter(None, (n.error("INSERT INTO kv(k) VALUES('%d')" % i) for i in range(100)))
	t.ok(next(errors, None) is not None, "a WAL that cannot grow ends the node's part")
	for args in ([], ["--json"]):
		r = walraft("status", n.db, *args)
		t.ok(r.returncode == 1 and "failed" in r.stdout and "has ended its part" in r.stderr, "status %s: the table, exit 1, and why" % " ".join(args),
		     "exit %d: %s%s" % (r.returncode, r.stdout, r.stderr))
	t.equal(json.loads(r.stdout)["role"], "failed", "which is still JSON")
	n.kill9()
	n.worker()
	c.leader()
	t.ok(True, "it starts again")


@t.case("a file that appears during a join")
def appears():
	c = t.cluster(n=2, create=False, schema=SCHEMA + "CREATE TABLE big(v); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
	              " INSERT INTO big SELECT randomblob(32000) FROM n;")
	c.init()
	c[0].worker()
	c.leader()
	j = c[1]
	p = subprocess.Popen([harness.WALRAFT, "join", j.db, "--listen", j.url, "--peer", c[0].url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
	                     env=harness.child_env(), preexec_fn=harness.die_with_parent)
	wait_until(lambda: os.path.exists(j.db + "-walraft/image.tmp") or p.poll() is not None, 30, "the image begins to arrive", 0.001)
	p.send_signal(signal.SIGSTOP)
	stock_rows(j.db, "CREATE TABLE theirs(x); INSERT INTO theirs VALUES(1)")
	p.send_signal(signal.SIGCONT)
	out, err = p.communicate(timeout=60)
	refused("a database that appears meanwhile", subprocess.CompletedProcess(p.args, p.returncode, out, err), "appeared meanwhile", "app\\.db")
	t.equal(stock_rows(j.db, "SELECT x FROM theirs"), ["1"], "is left alone")
	refused("join again while it is there", walraft("join", j.db, "--listen", j.url, "--peer", c[0].url), "exists")
	os.rename(j.db, j.db + ".moved")
	done("and when it is moved away", walraft("join", j.db, "--listen", j.url, "--peer", c[0].url))
	j.worker()
	c.wait_ready(members=2)
	c.checksums_equal("it is a replica")


t.run()
