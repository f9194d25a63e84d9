#!/usr/bin/python3
"""walraft as the default VFS: the cases of test_hosts_use and test_hosts_files, opened without any word of walraft. What is not set up passes through, or
sets itself up; then a transaction over two such databases is that of stock SQLite."""
import os

import hosts
import hosts_cases
from harness import Test, stock_rows

t = Test(__file__, deadline_s=240)
pairs = hosts.Pairs(t, env={"HOSTS_DEFAULT": "1"})
pairs.cases(dict(hosts_cases.USE, missing={}))
pairs.cases(hosts_cases.FILES)

auto = hosts.Pairs(t, nodes=1, env={"HOSTS_DEFAULT": "1", "HOSTS_AUTO": "1"})
AUTO = {n: dict(hosts_cases.USE, **hosts_cases.FILES)[n]
        for n in ("beside", "twice", "flags", "shared-cache", "backup-out", "backup-in", "serialize", "threads")}
# The main database of these is a file that has set itself up.
AUTO["guest"] = {"journal mode from a file": "^error 1: .*stays in WAL mode", "locking mode from a file": "^error 1: .*shared with its node", "write after it from a file": "^$",
                 "reason from memory": "", "reason from a file": ""}
AUTO["vacuum"] = {"the copy": ";wal$"}
auto.cases(AUTO, "auto: ")


@t.case("auto: files beside it stay plain")
def beside():
	p = auto.get()
	if not os.path.exists(os.path.join(p.host.dir, "beside.db")):
		p.case("beside")
	db, plain = (os.path.join(h.dir, "beside.db") for h in (p.host, p.plain))
	t.ok(os.path.exists(db) and not os.path.exists(db + "-walraft"), "an attached file does not set itself up")
	t.equal(hosts.dump(db), hosts.dump(plain), "the content is the same")


@t.case("switches")
def switches():
	h = hosts.Host(t, hosts.lone_db(t, "switches", listen=False), load=False)
	saw = h.run("switches")
	t.equal({k: saw[k] for k in ("at first", "auto on", "default on", "default VFS", "a new file", "what is set up")}, {
		"at first": "0|0", "auto on": "1|1", "default on": "1|1", "default VFS": "walraft", "a new file": "1|leader", "what is set up": "1|leader"},
		"walraft_auto(1) and walraft_default_vfs(1): whatever is opened is replicated")
	wrong = {k: saw[k] for k in ("auto 2", "auto NULL", "auto text", "default -1", "default text", "two arguments", "not by a view") if not saw[k].startswith("error 1: ")}
	t.ok(not wrong, "wrong values are errors, and a schema cannot call them", wrong)
	t.equal({k: saw[k] for k in ("default VFS after sqlite3_shutdown", "switches after sqlite3_shutdown", "by name after sqlite3_shutdown", "default VFS when loaded again", "by default after a reset")}, {
		"default VFS after sqlite3_shutdown": "unix", "switches after sqlite3_shutdown": "1|0", "by name after sqlite3_shutdown": "1", "default VFS when loaded again": "walraft",
		"by default after a reset": "1"}, "after sqlite3_shutdown the default VFS is SQLite's own, until the module is loaded again; by name walraft goes on")
	t.equal({k: saw[k] for k in ("off", "default VFS when off", "a plain file")}, {"off": "0|0", "default VFS when off": "unix", "a plain file": "delete;NULL"}, "off again")
	t.equal([os.path.exists(os.path.join(h.dir, f + ".db-walraft")) for f in ("auto", "plain")], [True, False], "only what was opened with both on was set up")
	t.equal(stock_rows(h.db, "SELECT a FROM seed"), ["1", "2", "3"], "all rows are there")
	h.end("switches")


@t.case("passing through")
def passing():
	"""Opened by the default VFS without auto, a plain file stays what it is, in every mode of it."""
	h = hosts.Host(t, hosts.lone_db(t, "passing", listen=False), env={"HOSTS_DEFAULT": "1"})
	for mode in ("delete", "truncate", "persist", "memory", "off", "wal"):
		path = os.path.join(h.dir, mode + ".db")
		h.try_open("p", path)
		t.equal(h.sql("PRAGMA journal_mode=%s; CREATE TABLE t(a); INSERT INTO t VALUES(1); SELECT count(*), walraft_status() FROM t; PRAGMA locking_mode=exclusive; INSERT INTO t VALUES(2)" % mode, "p"),
		        "%s;1|NULL;exclusive" % mode, "journal_mode=%s of a file that is not set up" % mode)
		h.close("p")
		t.equal((stock_rows(path, "SELECT count(*) FROM t"), os.path.exists(path + "-walraft"), os.path.exists(path + "-wal")), (["2"], False, False), "it stays a plain file")
	for name in (":memory:", "file::memory:?cache=shared", "file:%s/x.db?mode=memory" % h.dir):
		t.equal(h.try_open("p", name), "ok", "open " + name.replace(h.dir, ""))
		t.equal(h.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1); SELECT a, walraft_status() FROM t; PRAGMA journal_mode", "p"), "1|NULL;memory", "and use it")
		h.close("p")
	h.end("passing through")


hosts.run(t, pairs, auto)
