#!/usr/bin/python3
"""The whole path on three nodes: adoption, joining, writing, reading, refusing, ending."""
import os
import subprocess
import json

import harness
from harness import READONLY_NOT_LEADER, Test, stock, stock_rows, wait_until, walraft
from load import SCHEMA

t = Test(__file__)


def shell(db, *lines, timeout=60):
	"""The stock shell with the extension loaded, as its own node."""
	script = ".load %s\n.open file:%s?vfs=walraft\n%s\n" % (harness.MODULE[:-3], db, "\n".join(lines))
	return subprocess.run([harness.HOST_SHELL, "-batch", "-init", "/dev/null"], input=script, capture_output=True, text=True,
	                      timeout=timeout, env=harness.child_env(), preexec_fn=harness.die_with_parent)


def make_db(path, page_size, mode):
	os.makedirs(os.path.dirname(path), exist_ok=True)
	r = stock(path, "PRAGMA page_size=%d; PRAGMA journal_mode=%s; %s INSERT INTO kv(k) VALUES('before');"
	          % (page_size, mode, SCHEMA))
	assert r.returncode == 0, r.stderr


@t.case("init leaves the bytes")
def init_bytes():
	for mode in ("delete", "wal"):
		for page_size in (512, 4096, 65536):
			what = "%s, page size %d" % (mode, page_size)
			db = os.path.join(t.tmp("init-%s-%d" % (mode, page_size)), "app.db")
			make_db(db, page_size, mode)
			before = open(db, "rb").read()
			r = walraft("init", db, "--listen", "tcp://127.0.0.1:%d" % harness.free_ports(1)[0])
			t.need(r.returncode == 0, "init (%s)" % what, r.stderr)
			after = open(db, "rb").read()
			diff = [i for i in range(min(len(before), len(after))) if before[i] != after[i]]
			t.ok(len(before) == len(after) and set(diff) <= {18, 19}, "init changes bytes 18 and 19 at most (%s)" % what,
			     "sizes %d %d, differs at %s" % (len(before), len(after), diff[:20]))
			t.equal(after[18:20], b"\x02\x02", "the database is in WAL mode (%s)" % what)
			t.equal(stock_rows(db, "SELECT k FROM kv"), ["before"], "stock sqlite3 reads it (%s)" % what)


@t.case("page sizes replicate")
def page_sizes():
	for mode, page_size in (("delete", 512), ("wal", 65536)):
		c = t.cluster(n=2, kind="worker", pragmas="PRAGMA page_size=%d; PRAGMA journal_mode=%s;" % (page_size, mode))
		l = c.leader()
		l.sql("INSERT INTO kv(k, pad) VALUES('big', hex(zeroblob(200000)))")
		l.sql("DELETE FROM kv WHERE k = 'big'")
		l.sql("INSERT INTO kv(k, pad) VALUES('small', 'x')")
		c.checksums_equal("checksums are equal after large and small rows (page size %d)" % page_size)
		t.equal([n.stock("PRAGMA page_size; SELECT k FROM kv") for n in c.nodes], [[str(page_size), "small"]] * 2,
		        "both files have the row and the page size %d" % page_size)
		c.integrity("both files are in order (page size %d)" % page_size)
		c.destroy()


@t.case("three nodes")
def three():
	c = t.cluster(n=3, kind="worker")
	l = c.leader()
	fs = c.followers()
	st = l.status()
	t.equal(sorted(m["url"] for m in st["members"]), sorted(n.url for n in c.nodes), "status names the three members")
	keys = {"path", "node_id", "url", "role", "leader_id", "leader_url", "term", "commit", "last_index", "published",
	        "checksum", "db_pages", "page_size", "wal_frames", "members", "journal_bytes_appended", "journal_disk_bytes",
	        "journal_syncs", "ready"}
	t.ok(keys <= set(st), "status --json has all its keys", sorted(keys - set(st)))
	r = walraft("status", l.db)
	t.ok(r.returncode == 0 and l.url in r.stdout and "leader" in r.stdout, "status for people names URL and role",
	     r.stdout + r.stderr)

	l.sql("INSERT INTO kv(k) VALUES('python')")
	for f in fs:
		wait_until(lambda: f.stock("SELECT k FROM kv") == ["python"], 5, "the row is in node %d's file" % f.i)
		t.ok(True, "the row is in node %d's file, for stock sqlite3" % f.i)
	t.equal([f.sql("SELECT k FROM kv") for f in fs], [[["python"]]] * 2, "a default-level read on a follower has it")
	for f in fs:
		f.open("stale", pragmas=["walraft_read='stale'"])
	t.equal([f.sql("SELECT k FROM kv", conn="stale") for f in fs], [[["python"]]] * 2, "a stale read has it")
	for f in fs:
		f.open("lin", pragmas=["walraft_read='linearizable'"])
	for i in range(20):
		l.sql("INSERT INTO kv(k) VALUES('r%d')" % i)
		got = [f.one("SELECT count(*) FROM kv", conn=("main", "lin")[i % 2]) for f in fs]
		if got != [i + 2] * 2:
			break
	t.equal(got, [21] * 2, "twenty linearizable reads on followers, each right after an acknowledged write")
	t.ok(fs[0].error("PRAGMA walraft_read='wrong'") is not None, "an unknown read level is an error")
	fs[0].open("uri", walraft_read="stale", walraft_timeout="1234")
	t.equal([fs[0].one("PRAGMA walraft_read", conn="uri"), int(fs[0].one("PRAGMA walraft_timeout", conn="uri"))],
	        ["stale", 1234], "read level and timeout are taken from the URI")

	t.equal(fs[0].sql("PRAGMA walraft_write"), [["forward"]], "writes go to the leader by default")
	t.ok(fs[0].error("PRAGMA walraft_write='wrong'") is not None, "an unknown way of writing is an error")
	for f in fs:
		f.sql("PRAGMA walraft_write='local'")
		for sql in ("INSERT INTO kv(k) VALUES('no')", "BEGIN IMMEDIATE", "CREATE TABLE no(x)"):
			e = f.error(sql)
			t.ok(e is not None and e.code == READONLY_NOT_LEADER, "%s on follower %d gives READONLY" % (sql, f.i), repr(e))
		t.equal(f.one("SELECT walraft_leader()"), l.url, "walraft_leader() on node %d names the leader" % f.i)
		f.sql("BEGIN")
		f.sql("SELECT count(*) FROM kv")
		e = f.error("INSERT INTO kv(k) VALUES('no')")
		t.ok(e is not None and e.code == READONLY_NOT_LEADER and e.in_transaction,
		     "a write inside a read transaction on node %d gives READONLY and leaves it open" % f.i, repr(e))
		t.equal(f.one("SELECT count(*) FROM kv"), 21, "the transaction goes on reading")
		f.sql("ROLLBACK")
	t.equal(l.one("SELECT walraft_leader()"), l.url, "walraft_leader() on the leader is itself")
	t.equal(json.loads(l.one("SELECT walraft_status()"))["role"], "leader", "walraft_status() is JSON")
	t.ok(l.one("SELECT walraft_position()"), "walraft_position() has text")
	s = c.converge()
	t.equal({n.one("SELECT walraft_checksum()") for n in c.nodes}, {s[0]["checksum"]},
	        "walraft_checksum() is the status's, on all nodes")
	c.checksums_equal("checksums are equal")

	for n in c.nodes:
		for sql in ("INSERT INTO kv(k) VALUES('stock')", "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO kv(k) VALUES('s')",
		            "VACUUM"):
			r = stock(n.db, sql)
			t.ok(r.returncode != 0 and "database is locked" in r.stderr, "a stock writer on node %d: %s" % (n.i, sql.split()[0]),
			     "%d %r" % (r.returncode, r.stderr))
		r = stock(n.db, "PRAGMA journal_mode=delete")
		t.ok("locked" in r.stderr or r.stdout.strip() == "wal", "a stock journal_mode=delete on node %d" % n.i, r.stdout)
		t.equal(open(n.db, "rb").read(20)[18:], b"\x02\x02", "node %d is still in WAL mode" % n.i)
	c.checksums_equal("checksums are equal after the stock writers")

	r = shell(l.db, "SELECT count(*) FROM kv;")
	t.ok(r.returncode == 0 and not r.stderr, "a second process attaches to the first", (r.returncode, r.stdout, r.stderr))

	journal = l.status()["journal_bytes_appended"]
	for i in range(50):
		l.sql("INSERT INTO kv(k, pad) VALUES('j%d', '%s')" % (i, "y" * 100))
	per = (l.status()["journal_bytes_appended"] - journal) / 50
	t.ok(0 < per <= 1400, "a row of 100 bytes with an index costs few journal bytes", per)

	t.equal(c.stop(), [0, 0, 0], "SIGTERM ends all three with status 0")
	t.equal({tuple(n.stock("SELECT count(*) FROM kv; PRAGMA integrity_check")) for n in c.nodes}, {("71", "ok")},
	        "after the end the three files are plain databases with all rows")
	r = walraft("status", l.db)
	t.ok(r.returncode == 1 and "not running" in r.stderr, "status of a node that does not run", r.stderr)


@t.case("serve and the shell")
def serve_and_shell():
	c = t.cluster(n=3, kind="serve")
	c.converge()
	l = c.leader()
	t.equal(l.term(), 0, "SIGTERM ends serve with status 0")
	c.leader()
	# The shell takes the node over; it is now a follower: it reads, and writes by way of the leader.
	r = shell(l.db, "SELECT 'rows', count(*) FROM kv;", "INSERT INTO kv(k) VALUES('shell');", "SELECT walraft_error();", "SELECT 'now', k FROM kv;", "PRAGMA walraft_write='local';",
	          "INSERT INTO kv(k) VALUES('no');", "SELECT 'leader', walraft_leader();")
	new = c.leader()
	t.ok("rows|0" in r.stdout, "the shell reads as a follower", r.stdout + r.stderr)
	t.ok("now|shell" in r.stdout, "it writes", r.stdout + r.stderr)
	t.ok("readonly" in r.stderr.replace(" ", "").lower(), "its write is refused when it is to stay there", r.stderr)
	t.ok("leader|" + new.url in r.stdout, "walraft_leader() in the shell", r.stdout)
	l.start()
	c.leader()
	for n in c.nodes:
		n.term()
	t.ok(True, "all ended")


@t.case("single node in the shell")
def single():
	db = os.path.join(t.tmp("single"), "app.db")
	make_db(db, 4096, "wal")
	r = walraft("init", db, "--listen", "tcp://127.0.0.1:%d" % harness.free_ports(1)[0], "--json")
	t.ok(r.returncode == 0 and isinstance(json.loads(r.stdout), dict), "init --json prints an object", r.stdout + r.stderr)
	r = shell(db, ".load %s" % harness.MODULE[:-3], "INSERT INTO kv(k) VALUES('shell');", "SELECT k FROM kv;",
	          "SELECT walraft_leader() IS NOT NULL;")
	t.ok(r.returncode == 0 and r.stdout.split() == ["before", "shell", "1"],
	     "the shell, with the extension loaded twice, writes and reads", r.stdout + r.stderr)
	t.equal(stock_rows(db, "SELECT k FROM kv; PRAGMA integrity_check"), ["before", "shell", "ok"], "stock sqlite3 reads it after")
	plain = os.path.join(t.tmp("plain"), "app.db")
	make_db(plain, 4096, "wal")
	r = shell(plain, "SELECT count(*) FROM kv;")
	t.ok("walraft init" in r.stderr, "a database that is not set up: the error names walraft init", r.stderr)
	t.ok(not os.path.exists(plain + "-walraft"), "and nothing was made beside it")
	r = shell(os.path.join(t.tmp("plain"), "none.db"), "SELECT 1;", "CREATE TABLE x(y);")
	t.ok("walraft init" in r.stderr, "a missing database: the error names walraft init", r.stderr)
	r = walraft("--version")
	t.ok(r.returncode == 0 and "walraft" in r.stdout, "walraft --version", r.stdout + r.stderr)
	r = walraft("help")
	t.ok(r.returncode == 0 and all(w in r.stdout for w in ("init", "join", "serve", "status")), "walraft help names the verbs", r.stdout)


t.run()
