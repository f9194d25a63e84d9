#!/usr/bin/python3
"""Loading the module into hosts of all kinds, children of fork and exec, and SQLite that is told to be otherwise beneath it. Each in a fresh process, on
a cluster of one."""
import os
import re
import shutil

import harness
import hosts
from harness import Test, stock, stock_rows

t = Test(__file__, deadline_s=200)
REPLICATED = "1|leader"


def fresh(case, arg="", db=None, listen=False, load=False):
	"""The case in a process of its own, which loads the module by itself; what it saw, and the database."""
	db = db or hosts.lone_db(t, "%s-%d" % (case, listen), listen=listen)
	h = hosts.Host(t, db, load=load)
	saw = h.run(case, arg)
	h.end(case)
	return saw, db


def has(saw, want, what):
	"""A point: all that is wanted was seen; values are regular expressions."""
	bad = ["%s: %r, should match %r" % (k, saw.get(k), v) for k, v in want.items() if k not in saw or not re.search(v, saw[k])]
	t.ok(not bad, what, "\n".join(bad))


def case(name, child_threads=False):
	"""child_threads: children of fork start threads."""
	def deco(fn):
		@t.case(name)
		def run():
			if child_threads and "tsan" in harness.SANITIZER:
				t.skip(name, "ThreadSanitizer knows no threads in forked children")
				return
			try:
				fn()
			finally:
				hosts.kill_all(t)
		return run
	return deco


# ---- loading ----

@case("from :memory:, then closed")
def memory():
	saw, db = fresh("from-memory")
	has(saw, {"first: replicated": REPLICATED, "again: replicated": REPLICATED}, "a connection that is closed may have loaded it")
	t.equal(stock_rows(db, "SELECT count(*) FROM loaded"), ["2"], "both rows are there")


@case("sqlite3_shutdown and sqlite3_initialize")
def shutdown():
	saw, db = fresh("shutdown")
	has(saw, {"shutdown": "^0$", "initialize": "^0$", "before: replicated": REPLICATED, "after: replicated": REPLICATED, "loaded again: replicated": REPLICATED},
	    "vfs=walraft goes on after them, and after loading again")
	t.equal(stock_rows(db, "SELECT count(*) FROM loaded"), ["5"], "all rows are there")


@case("sqlite3_reset_auto_extension")
def reset():
	saw, _ = fresh("reset-auto")
	has(saw, {"after: replicated": REPLICATED, "loaded again: replicated": REPLICATED, "open before": "^1$"}, "databases are replicated after it, and after loading again")
	has(saw, {"what is not set up": "^14: .*walraft init"}, "what is not set up is refused after it")


@case("unloading")
def unload():
	saw, _ = fresh("unload")
	has(saw, {"still there": "^1$", "after: replicated": REPLICATED}, "the module stays, and works, whatever the host unloads")


@case("loading twice")
def twice():
	saw, _ = fresh("load-twice")
	has(saw, {"by another connection": "^0$", "by one that is replicated": "^0$", "by SQL": "^NULL$", "by SQL on a replicated one": "^NULL$", "by the name of its entry": "^0$",
	          "which writes": "^1$", "after: replicated": REPLICATED}, "the module may be loaded again by any connection")


@case("a copy under another path")
def copy():
	other = os.path.join(t.tmp("copy"), "walraft.so")
	shutil.copy(harness.MODULE, other)
	saw, _ = fresh("load-copy", other)
	has(saw, {"code": "^[1-9]", "text": "another copy|already|loaded"}, "a second copy of the module is refused, with a text")
	has(saw, {"the first": "^1$", "after: replicated": REPLICATED}, "the first goes on")


@case("plain connections in the same process")
def outsider():
	h = hosts.Host(t, hosts.lone_db(t, "outsider", listen=False))
	saw = h.run("outsider")
	has(saw, {"read": "^1$", "sees commits": "^1;3$", "attached": "^1;3$"}, "they read what is committed")
	has(saw, dict({k: "^error 5: database is locked" for k in ("write", "journal mode", "vacuum", "write attached")}, checkpoint="^1.-1.-1$"), "and are kept from writing")
	has(saw, {"the replicated one goes on": "^1;3;5;ok$"}, "the replicated connection goes on")
	r = stock(h.db, "INSERT INTO inside VALUES(7)")
	t.ok("locked" in r.stderr, "the locks of the process are all there after their close: another process cannot write", r.stderr)
	h.run("outsider-end")
	h.end("a plain connection")
	t.equal(stock_rows(h.db, "SELECT a FROM inside"), ["1", "3", "5", "6"], "all rows are there")


# ---- sqlite3_config ----

@case("SQLITE_CONFIG_SINGLETHREAD")
def single():
	saw, _ = fresh("single-thread")
	has(saw, {"code": "^[1-9]", "text": "thread"}, "refused, with a text")


@case("SQLITE_CONFIG_MULTITHREAD")
def multi():
	saw, _ = fresh("multi-thread")
	has(saw, {"after: replicated": REPLICATED}, "works")


@case("SQLITE_CONFIG_LOG")
def log():
	saw, _ = fresh("error-log")
	has(saw, {"messages": "^0$"}, "ordinary use writes nothing to the error log, as in stock SQLite")


@case("SQLITE_CONFIG_MMAP_SIZE")
def mapped():
	db = hosts.lone_db(t, "map-config", listen=False)
	h = hosts.Host(t, db, load=False)
	h.run("map-config")
	has(h.run("memory-map"), {"equal reads": "^30$", "in order": "^ok$"}, "reads under writes of another connection are right")
	h.end("mmap_size by configuration")


# ---- fork ----

@case("fork: the inherited connection")
def inherited():
	saw, db = fresh("fork-inherited")
	has(saw, {"child: read": "^error 23306:", "child: write": "^error 23306:", "child: the reason": "fork", "child: close": "^0$", "child": "^exit 0, signal 0$"},
	    "a child's calls on it fail with a text, and the child lives")
	has(saw, {"child in a transaction: commit": "^error 23306:", "child in a transaction: the reason": "fork", "child in a transaction: afterwards": "^error 23306:",
	          "child in a transaction: close": "^0$", "child in a transaction": "^exit 0, signal 0$"}, "so does the commit of an inherited transaction")
	has(saw, {"parent": "^1$", "parent in a transaction": "^1;2;3$", "opened again": "^1;2;3;4$"}, "the parent goes on")
	t.equal(stock_rows(db, "SELECT a FROM forked"), ["1", "2", "3", "4"], "the rows are the parent's")


@case("fork: a child opens the same database", child_threads=True)
def same():
	saw, _ = fresh("fork-same")
	has(saw, {"child": "^exit 0, signal 0$", "child: open": "^0:", "parent": "^99;1$"}, "the child attaches to its parent's node, and writes; the parent sees it, and goes on")
	has(saw, {"child after the close": "^exit 0, signal 0$", "child after the close: open": "^0:", "rows": "^3$"}, "after the parent's close it hosts the node")


@case("fork: a child outlives its parent", child_threads=True)
def orphan():
	h = hosts.Host(t, hosts.lone_db(t, "fork-orphan", listen=False), load=False)
	h.run("fork-orphan")
	h.end("fork-orphan")
	rest = dict(h.rest())
	has(rest, {"child: open": "^0:", "child: inherited": "^error 23306:"}, "it opens the database and hosts the node; what it inherited is of no use")
	again = hosts.Host(t, h.db).open()
	t.equal(again.sql("INSERT INTO forked VALUES(1); SELECT count(*) FROM forked"), "2", "another process opens the database, and finds the child's row")
	again.end("another process")


@case("fork: a child opens another database", child_threads=True)
def other():
	for listen, beside_listens in ((False, False), (True, False), (True, True)):
		what = " (addresses: %d of its parent's, %d of its own)" % (listen, beside_listens)
		beside = hosts.lone_db(t, "fork-beside%d%d" % (listen, beside_listens), listen=beside_listens)
		saw, _ = fresh("fork-other", beside, hosts.lone_db(t, "fork-parent%d%d" % (listen, beside_listens), listen=listen))
		has(saw, {"child": "^exit 0, signal 0$", "child after the close": "^exit 0, signal 0$", "parent": "^1$", "parent later: write": "^1.1$"}, "parent and child go on" + what)
		if beside_listens:
			has(saw, {"child: open": "^(14|22286): .*fork"}, "it is refused with a text" + what)
		else:
			has(saw, {"child: open": "^0:", "child: write": "^1.1$", "child after the close: write": "^1.1$"}, "it works" + what)
			t.equal(stock_rows(beside, "SELECT count(*) FROM forked"), ["3"], "its rows, and later the parent's, are there" + what)


@case("fork: nothing was open", child_threads=True)
def nothing():
	db = hosts.lone_db(t, "fork-fresh", "PRAGMA journal_mode=wal; CREATE TABLE forked(a);", listen=False)
	saw, _ = fresh("fork-fresh", db=db)
	has(saw, {"child": "^exit 0, signal 0$", "child: open": "^0:"}, "a child of a process that only loaded the module is like any other")
	t.equal(stock_rows(db, "SELECT count(*) FROM forked"), ["1"], "its row is there")


@case("exec: descriptors")
def descriptors():
	for listen in (False, True):
		saw, _ = fresh("exec-list", listen=listen)
		# The shell does not live with ThreadSanitizer's runtime, which it inherits.
		has(saw, {"system()": "^[07]$" if "tsan" in harness.SANITIZER else "^7$", "parent": "^2$"}, "system() beside a transaction%s" % (" (with an address)" if listen else ""))
		t.equal(saw.get("inside"), saw.get("before"), "a program that is run by exec inherits none of walraft's%s" % (" (with an address)" if listen else ""))


t.run()
