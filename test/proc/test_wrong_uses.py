#!/usr/bin/python3
"""Wrong uses: each gets a clear error that says what happened, to which file or peer, and what to do; and does no harm."""
import os
import re
import shutil
import socket
import subprocess
import time

import harness
from harness import Test, stock, stock_rows, wait_until, walraft
from cluster import SqlError
from load import SCHEMA

t = Test(__file__, deadline_s=200)


def url():
	return "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]


def make_db(name, mode="wal"):
	db = os.path.join(t.tmp(name), "app.db")
	r = stock(db, "PRAGMA journal_mode=%s;%s" % (mode, SCHEMA))
	assert r.returncode == 0, r.stderr
	return db


def refused(name, r, *words):
	"""A point: non-zero exit (no signal), nothing on stdout, stderr has every word (regular expressions)."""
	missing = [w for w in words if not re.search(w, r.stderr, re.I)]
	return t.ok(r.returncode > 0 and not missing and len(r.stderr) < 2000, name,
	            "exit %d, missing %s in: %r, stdout %r" % (r.returncode, missing, r.stderr, r.stdout))


def untouched(db, name):
	t.ok(not os.path.exists(db + "-walraft"), "%s: nothing was made beside it" % name,
	     os.path.exists(db + "-walraft") and os.listdir(db + "-walraft"))


@t.case("command line")
def command_line():
	refused("no command", walraft(), "usage|help")
	refused("an unknown command", walraft("frobnicate"), "frobnicate", "help")
	db = make_db("cli")
	refused("an unknown flag", walraft("init", db, "--frob"), "--frob")
	refused("init without a database", walraft("init", "--listen", url()), "database|usage|missing")
	refused("init without --listen", walraft("init", db), "--listen")
	refused("--listen without a value", walraft("init", db, "--listen"), "--listen")
	refused("join without --peer", walraft("join", db + "2", "--listen", url()), "--peer")
	refused("too many arguments", walraft("init", db, "extra", "--listen", url()), "extra argument")
	for bad in ("127.0.0.1:7000", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:99999", "tcp://:7000", "udp://127.0.0.1:7000",
	            "tcp://127.0.0.1:7000x", "tcp://" + "a" * 300 + ":7000", ""):
		refused("a bad URL: %.40s" % bad, walraft("init", db, "--listen", bad), "url|address|tcp://|port")
	refused("an address beyond loopback", walraft("init", db, "--listen", "tcp://10.1.2.3:7000"), "--insecure", "10\\.1\\.2\\.3")
	refused("an address of all interfaces", walraft("init", db, "--listen", "tcp://0.0.0.0:7000"), "0\\.0\\.0\\.0")
	untouched(db, "bad command lines")
	t.equal(stock_rows(db, "PRAGMA integrity_check"), ["ok"], "and the database is as it was")


@t.case("files")
def files():
	d = t.tmp("files")
	junk = os.path.join(d, "junk.db")
	with open(junk, "wb") as f:
		f.write(os.urandom(8192))
	refused("not a database", walraft("init", junk, "--listen", url()), "not a database", re.escape(junk))
	untouched(junk, "not a database")
	refused("a missing file", walraft("init", os.path.join(d, "none.db"), "--listen", url()), "none\\.db",
	        "no such file|does not exist|not found")
	t.ok(not os.path.exists(os.path.join(d, "none.db")), "and none was made")
	refused("a missing directory", walraft("init", "/nonexistent/dir/app.db", "--listen", url()), "/nonexistent/dir")
	refused("a directory", walraft("init", d, "--listen", url()), re.escape(d))
	cut = os.path.join(d, "cut.db")
	shutil.copyfile(make_db("whole", "delete"), cut)
	os.truncate(cut, 4096 + 100)
	refused("a database that is cut short", walraft("init", cut, "--listen", url()), re.escape(cut))
	untouched(cut, "a database that is cut short")
	refused("serve of what is not set up", walraft("serve", make_db("plain")), "walraft init")
	refused("status of what is not set up", walraft("status", make_db("plain2")), "walraft init|not set up|not running")
	refused("join onto an existing file", walraft("join", make_db("exists"), "--listen", url(), "--peer", url()), "exists", "app\\.db")
	t.equal(stock_rows(os.path.join(t.dir, "exists", "app.db"), "PRAGMA integrity_check"), ["ok"], "which stays as it was")


@t.case("others have it open")
def open_elsewhere():
	db = make_db("excl")
	p = subprocess.Popen([harness.SQLITE3, "-batch", "-init", "/dev/null", db], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
	                     text=True, env=harness.stock_env(), preexec_fn=harness.die_with_parent)
	p.stdin.write("PRAGMA locking_mode=exclusive; BEGIN IMMEDIATE; INSERT INTO kv(k) VALUES('x'); SELECT 'held';\n")
	p.stdin.flush()
	wait_until(lambda: "held" in p.stdout.readline(), 10, "the other process holds it")
	refused("open in exclusive mode elsewhere", walraft("init", db, "--listen", url()), "locked|in use|exclusive", "app\\.db")
	untouched(db, "open in exclusive mode elsewhere")
	p.stdin.write("COMMIT;\n")
	p.stdin.close()
	p.wait()
	r = walraft("init", db, "--listen", url())
	t.ok(r.returncode == 0, "init works when it is free", r.stderr)

	hot = make_db("hot", "delete")
	p = subprocess.Popen([harness.SQLITE3, "-batch", "-init", "/dev/null", hot], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
	                     text=True, env=harness.stock_env(), preexec_fn=harness.die_with_parent)
	p.stdin.write("PRAGMA cache_size=2; BEGIN; INSERT INTO kv(k, pad) SELECT 'hot', hex(zeroblob(2000)) FROM a; SELECT 'spilled';\n")
	p.stdin.flush()
	wait_until(lambda: "spilled" in p.stdout.readline(), 10, "a transaction is spilled")
	p.kill()
	p.wait()
	p.stdin.close()
	assert os.path.getsize(hot + "-journal") > 0
	r = walraft("init", hot, "--listen", url())
	t.ok(r.returncode == 0 and not os.path.exists(hot + "-journal"), "init rolls a hot journal back, as any first opener does", r.stderr)
	t.equal(stock_rows(hot, "SELECT count(*) FROM kv; PRAGMA integrity_check"), ["0", "ok"], "nothing of the interrupted transaction is there")


@t.case("already replicated")
def already():
	db = make_db("twice")
	u = url()
	assert walraft("init", db, "--listen", u).returncode == 0
	conf = open(db + "-walraft/node.conf").read()
	refused("init twice", walraft("init", db, "--listen", url()), "already", "app\\.db")
	refused("join of what is set up", walraft("join", db, "--listen", url(), "--peer", url()), "already|exists")
	t.equal(open(db + "-walraft/node.conf").read(), conf, "node.conf is as it was")

	for what, text in (("an unknown key", conf + "frobnicate yes\n"), ("no node id", re.sub(r"(?m)^node .*\n", "", conf)),
	                   ("a bad id", re.sub(r"(?m)^node .*$", "node zzzz", conf)), ("rubbish", "\x00\xff\x01 rubbish\n"),
	                   ("nothing", ""), ("a future version", re.sub(r"(?m)^version .*$", "version 99", conf))):
		with open(db + "-walraft/node.conf", "w", encoding="latin-1") as f:
			f.write(text)
		refused("node.conf has %s" % what, walraft("serve", db, timeout=20), "node\\.conf")
	with open(db + "-walraft/node.conf", "w") as f:
		f.write(conf)

	with socket.socket() as s:
		s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		s.bind(("127.0.0.1", int(u.rsplit(":", 1)[1])))
		s.listen()
		refused("the address is taken", walraft("serve", db, timeout=20), re.escape(u), "in use|taken")
	p = subprocess.Popen([harness.WALRAFT, "serve", db], stderr=subprocess.PIPE, text=True, env=harness.child_env(),
	                     preexec_fn=harness.die_with_parent)
	line = next((text for text in p.stderr if text.startswith("walraft: serving ")), "")
	t.ok(line.startswith("walraft: serving ") and u in line, "with node.conf of before, and the address free, it serves", line)
	refused("a second node process", walraft("serve", db, timeout=20), "in use by process %d" % p.pid)
	refused("init while it runs", walraft("init", db, "--listen", url()), "already")
	p.terminate()
	t.equal(p.wait(20), 0, "the first one is undisturbed and ends cleanly")
	p.stderr.close()


@t.case("another cluster")
def another_cluster():
	dead = url()
	r = walraft("join", os.path.join(t.tmp("dead"), "app.db"), "--listen", url(), "--peer", dead, "--timeout", "3", timeout=90)
	refused("join with a peer that is not there", r, re.escape(dead))
	# Something else listens there.
	with socket.socket() as s:
		s.bind(("127.0.0.1", 0))
		s.listen()
		peer = "tcp://127.0.0.1:%d" % s.getsockname()[1]
		r = walraft("join", os.path.join(t.tmp("mute"), "app.db"), "--listen", url(), "--peer", peer, "--timeout", "3", timeout=90)
		refused("join with a peer that is not walraft", r, re.escape(peer))
	a = t.cluster(n=2, kind="serve")
	refused("join with an address of its own that a member has",
	        walraft("join", os.path.join(t.tmp("dup"), "app.db"), "--listen", a[1].url, "--peer", a[0].url, timeout=90), "in use|taken|member")
	refused("join with itself as peer",
	        walraft("join", os.path.join(t.tmp("self"), "app.db"), "--listen", a[0].url, "--peer", a[0].url, timeout=90), "")
	t.equal(len(a.leader().status()["members"]), 2, "the cluster still has its two members")
	# Node 0 of the cluster goes, and a node of another cluster takes its address.
	a[0].term()
	b = t.cluster(n=1, kind="serve", create=False)
	b[0].url = a[0].url
	b.init()
	b[0].serve()
	before = b.leader().status()
	n = a[1]
	wait_until(lambda: re.search("belongs to cluster [0-9a-f]+ and you to", n.log_text() + b[0].log_text(), re.I), 20,
	           "one of the two says that the other is of another cluster")
	t.ok(True, "a peer of another cluster: the log says so")
	n.wait_status(lambda s: s["role"] != "leader", 5, "it leads no more, having been handed the leadership at the end of node 0")
	t.ok(True, "the node does not take it for its quorum")
	after = b[0].status()
	t.equal([after[k] for k in ("term", "role", "checksum")], [before[k] for k in ("term", "role", "checksum")],
	        "nor is the other cluster disturbed")
	# A node that was left half-joined to one cluster is not joined to another.
	b[0].term()
	a[0].serve()
	a.leader()
	a.checksums_equal("with its own peer back the cluster is whole")


def as_nobody(args, **kw):
	return harness.run_cmd(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *args], **kw)


@t.case("not writable")
def not_writable():
	if os.geteuid() != 0:
		t.skip("directory not writable", "needs root to run as another user")
		return
	binary = os.path.join(t.dir, "walraft-copy")
	shutil.copyfile(harness.WALRAFT, binary)
	os.chmod(binary, 0o755)
	if as_nobody([binary, "--version"]).returncode != 0:
		t.skip("directory not writable", "another user can't run the command")
		return
	db = make_db("ro")
	os.chmod(os.path.dirname(db), 0o755)
	os.chmod(db, 0o666)
	refused("the directory is not writable", as_nobody([binary, "init", db, "--listen", url()]), "permission|writable", re.escape(os.path.dirname(db)))
	untouched(db, "the directory is not writable")
	os.chmod(os.path.dirname(db), 0o777)
	os.chmod(db, 0o444)
	refused("the database is not writable", as_nobody([binary, "init", db, "--listen", url()]), "permission|writable|read.?only", "app\\.db")
	untouched(db, "the database is not writable")
	d = t.tmp("ro-join")
	os.chmod(d, 0o755)
	refused("join into a directory that is not writable",
	        as_nobody([binary, "join", d + "/app.db", "--listen", url(), "--peer", url()], timeout=90), "permission|writable", re.escape(d))
	db = make_db("ro-serve")
	assert walraft("init", db, "--listen", url()).returncode == 0
	refused("serve of another user's node", as_nobody([binary, "serve", db]), "permission|writable", "app\\.db")


@t.case("disk full")
def disk_full():
	mnt = t.tmp("full")
	if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "none", mnt], capture_output=True).returncode:
		t.skip("disk full", "mounting a small file system is not allowed here")
		return
	try:
		on_small_disk(mnt)
	finally:
		for c in t.clusters:
			c.destroy()
		for _ in range(50):
			if subprocess.run(["umount", mnt], capture_output=True).returncode == 0:
				break
			time.sleep(0.1)


def fill_up(path, leave):
	"""Takes all room but `leave` bytes."""
	with open(path, "wb") as f:
		st = os.statvfs(os.path.dirname(path))
		n = st.f_bavail * st.f_frsize - leave
		try:
			os.posix_fallocate(f.fileno(), 0, max(n, 1))
		except OSError as e:
			t.say("ballast: %s" % e)


def on_small_disk(mnt):
	db = os.path.join(mnt, "app.db")
	assert stock(db, "PRAGMA journal_mode=wal;" + SCHEMA).returncode == 0
	ballast = os.path.join(mnt, "ballast")
	fill_up(ballast, 8192)
	refused("init on a full disk", walraft("init", db, "--listen", url()), "space|full", "app\\.db")
	os.unlink(ballast)
	r = walraft("init", db, "--listen", url())
	t.need(r.returncode == 0, "once there is room, init works", r.stderr)

	c = t.cluster(n=1, create=False)
	n = c[0]
	n.db = db
	n.worker()
	c.leader()
	fill_up(ballast, 3 << 20)
	acked, err = 0, None
	for i in range(100000):
		try:
			n.sql("INSERT INTO kv(k, pad) VALUES('%d', hex(zeroblob(20000)))" % i)
			acked += 1
		except (SqlError, harness.Failed) as e:
			err = e
			break
	t.ok(isinstance(err, SqlError), "a commit fails when the disk is full, after %d rows" % acked, repr(err))
	if isinstance(err, SqlError):
		t.ok(re.search("space|full", "%s %s" % (err.text, err.walraft_error), re.I), "its text says why", repr(err))
		t.ok(err.code & 0xFF in (10, 13) and err.code != 5, "its code is IOERR or FULL", err.code)
	n.kill9()
	t.equal(stock_rows(db, "PRAGMA integrity_check"), ["ok"], "the file is in order")
	os.unlink(ballast)
	n.worker()
	c.leader()
	rows = [r[0] for r in n.sql("SELECT k FROM kv ORDER BY id")]
	t.ok(rows[:acked] == [str(i) for i in range(acked)] and len(rows) <= acked + 1,
	     "once there is room the node starts again and has all %d acknowledged rows" % acked, len(rows))
	n.sql("INSERT INTO kv(k) VALUES('again')")
	t.ok(True, "and writes")


t.run()
