#!/usr/bin/python3
"""Tables of a cluster, read from a host that has no replica of it (walraft_remote)."""
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import threading
import time

import harness
from harness import Test, wait_until

t = Test(__file__)
ERROR_REMOTE = 1 | 0x57 << 8


def host(path=":memory:"):
	db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
	db.enable_load_extension(True)
	db.load_extension(harness.MODULE[:-3])
	db.text_factory = text
	return db


def text(b):
	"""What is TEXT need not be UTF-8."""
	return b.decode("utf-8", "surrogateescape")


def remote(db, name, node, table=None, extra=""):
	url = node if isinstance(node, str) else node.url
	db.execute("CREATE VIRTUAL TABLE temp.%s USING walraft_remote('%s', '%s'%s)" % (name, url, table or name, extra))


def refusal(db, sql, params=()):
	"""The text of the error that sql must give, or None."""
	try:
		db.execute(sql, params).fetchall()
		return None
	except sqlite3.Error as e:
		return str(e)


def here(node):
	"""The file as stock SQLite reads it."""
	db = sqlite3.connect("file:%s?mode=ro" % node.db, uri=True, isolation_level=None)
	db.text_factory = text
	return db


VALUES = "(0), (1), (-1), (5), (9223372036854775807), (-9223372036854775808), (0.0), (-0.0), (1.5), (5.0), (1e300), (-1e-300), (9e999), (''), ('5'), " \
         "('5.0'), ('05'), (' 5'), ('5x'), ('abc'), ('ABC'), ('abc '), ('z'), ('é'), ('2024-06-01'), ('-'), (x''), (x'00'), (x'35'), (x'ff00'), (NULL)"
TABLES = """
CREATE TABLE typed(id INTEGER PRIMARY KEY, i INTEGER, r REAL, s TEXT, b BLOB, n NUMERIC, u, c TEXT COLLATE NOCASE, d VARCHAR(10) NOT NULL DEFAULT 'x');
CREATE INDEX typed_s ON typed(s);
CREATE INDEX typed_u ON typed(u, i);
CREATE INDEX typed_c ON typed(c);
CREATE TABLE keyed(a TEXT COLLATE NOCASE, b, c INT, PRIMARY KEY(b, a)) WITHOUT ROWID;
CREATE TABLE fixed(x ANY, y INT) STRICT;
CREATE TABLE odd("select" INT, "a ""b" TEXT, "hidden" HIDDEN, rowid TEXT, "größe" DEC(5, 2), g AS (rowid || '!'));
CREATE VIEW v AS SELECT i AS vi, s || '' AS vs, u AS vu, CAST(i AS TEXT) AS vt, CAST(n AS NUMERIC) AS vn, c AS vc FROM typed;
"""


def fill(l):
	for sql in TABLES.split(";\n"):
		if sql.strip():
			l.sql(sql)
	l.sql("WITH v(x) AS (VALUES %s) INSERT INTO typed(i, r, s, b, n, u, c) SELECT a.x, a.x, b.x, a.x, b.x, b.x, a.x FROM v a, v b WHERE random() %% 3 = 0" % VALUES)
	l.sql("WITH v(x) AS (VALUES %s) INSERT OR IGNORE INTO keyed SELECT a.x, b.x, 7 FROM v a, v b WHERE a.x NOTNULL AND b.x NOTNULL AND random() %% 3 = 0" % VALUES)
	l.sql("WITH v(x) AS (VALUES %s) INSERT INTO fixed SELECT x, 3 FROM v" % VALUES)
	l.sql("WITH v(x) AS (VALUES %s) INSERT INTO odd SELECT 1, x, x, x, x FROM v" % VALUES)


NAMES = ("typed", "keyed", "fixed", "odd", "v")
COLUMNS = {"typed": ["id", "i", "r", "s", "b", "n", "u", "c", "rowid"], "keyed": ["a", "b", "c"], "fixed": ["x", "y", "rowid"],
           "odd": ['"select"', '"a ""b"', '"hidden"', '"größe"', "g"], "v": ["vi", "vs", "vu", "vt", "vn"]}
LITERALS = [x.strip("() ") for x in VALUES.split("), (")]


def exact(rows):
	"""With types, and the sign of 0.0."""
	return [tuple(repr(x) for x in r) for r in rows]


def wait_rows(node, sql):
	"""The member's file has what was committed."""
	wait_until(lambda: here(node).execute(sql).fetchall(), 10, "node %d has published %s" % (node.i, sql))


@t.case("all types")
def types():
	c = t.cluster(n=1)
	l = c.leader()
	fill(l)
	db, there = host(), here(l)
	for name in NAMES:
		remote(db, name, l)
		sql = "SELECT * FROM " + name
		t.equal(sorted(exact(db.execute(sql))), sorted(exact(there.execute(sql))), "all rows of %s, value by value" % name)
	sql = "SELECT rowid, id FROM typed ORDER BY rowid DESC"
	t.equal(db.execute(sql).fetchall(), there.execute(sql).fetchall(), "the rowid")
	t.ok("no such column: rowid" in str(refusal(db, "SELECT rowid FROM keyed")), "a table without rowids shows none")
	t.equal([r[1:3] for r in db.execute("PRAGMA table_info(typed)")][:4], [("id", "INTEGER"), ("i", "INTEGER"), ("r", "REAL"), ("s", "TEXT")],
	        "columns are declared as the member's are")
	t.equal(exact(db.execute("SELECT name FROM odd, pragma_table_info('odd') LIMIT 6")), exact(there.execute("SELECT name FROM odd, pragma_table_xinfo('odd') LIMIT 6")),
	        "odd names of columns")

	sizes = [0, 1, 16383, 16384, 300000, 3000000, 20000000]
	l.sql("CREATE TABLE big(n INTEGER PRIMARY KEY, b BLOB, s TEXT)")
	for n in sizes:
		l.sql("INSERT OR REPLACE INTO big VALUES(?, randomblob(?), replace(hex(zeroblob(?)), '0', 'x'))", [n, n, n // 2])
	wait_rows(l, "SELECT 1 FROM big WHERE n = %d" % sizes[-1])
	remote(db, "big", l)
	t.equal(db.execute("SELECT * FROM big").fetchall(), there.execute("SELECT * FROM big").fetchall(), "rows of up to 40 MB")
	db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000000) if hasattr(db, "setlimit") else None
	if hasattr(db, "setlimit"):
		t.ok("SQLITE_LIMIT_LENGTH" in str(refusal(db, "SELECT * FROM big")), "a row above SQLITE_LIMIT_LENGTH is refused")
	l.sql("CREATE TABLE none(x)")
	remote(db, "none", l)
	t.equal(db.execute("SELECT count(*), max(x) FROM none").fetchall(), [(0, None)], "an empty table")
	wide = ", ".join("c%d" % i for i in range(500))
	l.sql("CREATE TABLE wide(%s)" % wide)
	l.sql("INSERT INTO wide VALUES(%s)" % ", ".join(str(i) for i in range(500)))
	remote(db, "wide", l)
	t.equal(db.execute("SELECT c0, c62, c63, c64, c499 FROM wide WHERE c400 = 400").fetchall(), [(0, 62, 63, 64, 499)], "columns beyond the sixty-third")


def condition(rnd, table):
	col = rnd.choice(COLUMNS[table])
	lit = lambda: rnd.choice(LITERALS)
	kind = rnd.randrange(16)
	if kind < 7:
		return "%s %s %s" % (col, rnd.choice(["=", "<", "<=", ">", ">=", "IS", "<>", "IS NOT", "=="]), lit()), ()
	if kind < 10:
		v = sqlite3.connect(":memory:").execute("SELECT " + lit()).fetchone()[0]
		return "%s %s ?" % (col, rnd.choice(["=", "<", "<=", ">", ">=", "IS"])), (v,)
	if kind == 10:
		return "%s BETWEEN %s AND %s" % (col, lit(), lit()), ()
	if kind == 11:
		return "%s IN (%s)" % (col, ", ".join(lit() for _ in range(rnd.randrange(1, 5)))), ()
	if kind == 12:
		return "%s %s" % (col, rnd.choice(["IS NULL", "IS NOT NULL", "NOTNULL"])), ()
	if kind == 13:
		return "%s %s '%s'" % (col, rnd.choice(["LIKE", "GLOB", "NOT LIKE"]), rnd.choice(["a%", "5*", "%5%", "A%", "*", "", "20__-%"])), ()
	if kind == 14:
		return "%s COLLATE %s %s %s" % (col, rnd.choice(["NOCASE", "BINARY", "RTRIM"]), rnd.choice(["=", "<", ">="]), lit()), ()
	return "%s %s %s" % (col, rnd.choice(["=", "<", ">="]), rnd.choice(COLUMNS[table])), ()


def query(rnd):
	table = rnd.choice(NAMES)
	used = rnd.sample(COLUMNS[table], rnd.randrange(1, len(COLUMNS[table]) + 1))
	parts, params = [], ()
	for _ in range(rnd.randrange(4)):
		sql, p = condition(rnd, table)
		if parts:
			parts.append(rnd.choice(["AND", "AND", "AND", "OR"]))
		parts.append(sql)
		params += p
	where = " WHERE " + " ".join(parts) if parts else ""
	order = ""
	if rnd.random() < 0.4:
		# By all columns that are shown, so that rows which are equal there are equal altogether.
		keys = rnd.sample(used, len(used))
		order = " ORDER BY " + ", ".join(k + rnd.choice(["", " DESC", " COLLATE BINARY"]) for k in keys)
		if rnd.random() < 0.6:
			order += " LIMIT %d" % rnd.randrange(-1, 30) + rnd.choice(["", " OFFSET %d" % rnd.randrange(9)])
	return "SELECT %s%s FROM %s%s%s" % (rnd.choice(["", "", "", "DISTINCT "]), ", ".join(used), table, where, order), params, bool(order)


@t.case("the same as on the member")
def same():
	c = t.cluster(n=1)
	l = c.leader()
	fill(l)
	db, there = host(), here(l)
	for name in NAMES:
		remote(db, name, l)
	# As SQLite sorts, 5 and 5.0 are one, 'a' and 'A' perhaps too: which of them DISTINCT or LIMIT leaves is open.
	wrong, n = [], t.args.rounds or (20000 if t.full else 2500)
	for i in range(n):
		sql, params, ordered = query(t.rnd)
		one, other = ([] for _ in range(2))
		try:
			other = there.execute(sql, params).fetchall()
		except sqlite3.Error as e:
			other = str(e)
		try:
			one = db.execute(sql, params).fetchall()
		except sqlite3.Error as e:
			one = str(e)
		if isinstance(one, str) or isinstance(other, str):
			same = one == other
		elif "DISTINCT" in sql or "LIMIT" in sql:
			same = len(one) == len(other)
		else:
			same = sorted(exact(one)) == sorted(exact(other))
		if not same:
			wrong.append((sql, params, len(other) if isinstance(other, list) else other, len(one) if isinstance(one, list) else one))
	t.ok(not wrong, "%d random queries have the member's answers" % n, "\n".join(map(str, wrong[:12])))
	# Affinities of the other side, which the member can't know.
	db.execute("CREATE TABLE temp.o(i INTEGER, s TEXT, u, n NUMERIC)")
	db.execute("WITH v(x) AS (VALUES %s) INSERT INTO o SELECT x, x, x, x FROM v" % VALUES)
	db.executescript(TABLES.replace("TABLE ", "TABLE temp.m_").replace("VIEW v", "TEMP VIEW m_v").replace("INDEX ", "INDEX temp.").replace("ON ", "ON m_").replace("FROM typed", "FROM m_typed"))
	for name in NAMES[:4]:
		cols = ", ".join('"%s"' % r[1].replace('"', '""') for r in db.execute("PRAGMA temp.table_info(m_%s)" % name))
		db.execute("INSERT INTO m_%s(%s) SELECT %s FROM %s" % (name, cols, cols, name))
	wrong = []
	for name in NAMES:
		for col in COLUMNS[name]:
			for own in "isun":
				for op in ("=", "<", "<=", ">", ">=", "IS", "IN"):
					sql = "SELECT count(*), total(length(%s)) FROM temp.o CROSS JOIN %%s AS x WHERE x.%s %s o.%s" % ("o.u", col, op, own)
					if op == "IN":
						sql = "SELECT count(*), 0 FROM %%s AS x WHERE x.%s IN (SELECT %s FROM temp.o)" % (col, own)
					a, b = (db.execute(sql % f).fetchall() for f in (name, "m_" + name))
					if a != b:
						wrong.append((sql % name, a, b))
	t.ok(not wrong, "comparisons with columns of all affinities", "\n".join(map(str, wrong[:12])))


@t.case("what is left to the member")
def plans():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("CREATE TABLE many(id INTEGER PRIMARY KEY, k INT, s TEXT)")
	l.sql("CREATE INDEX many_k ON many(k)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO many SELECT i, i % 500, 'text ' || i FROM n")
	db = host()
	remote(db, "many", l)

	def sent(sql, *params):
		"""Bytes that the member sent for it."""
		before = received()
		rows = db.execute(sql, params).fetchall()
		return received() - before, rows

	def received():
		inode = {os.readlink("/proc/self/fd/" + f) for f in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + f)}
		out = subprocess.run(["ss", "-tiHO", "state", "established", "dst", l.url[6:]], capture_output=True, text=True).stdout
		return sum(int(w.split(":")[1]) for w in out.split() if w.startswith("bytes_received:")) if inode else 0
	all_bytes, _ = sent("SELECT * FROM many")
	t.ok(all_bytes > 400000, "a scan sends all", all_bytes)
	for sql, rows, most in (("SELECT s FROM many WHERE id = 77", 1, 1000), ("SELECT s FROM many WHERE k = 3", 40, 3000), ("SELECT s FROM many WHERE id > 19990", 10, 1000),
	                        ("SELECT s FROM many WHERE id BETWEEN 5 AND 9", 5, 1000), ("SELECT s FROM many WHERE id IN (1, 5, 700)", 3, 1000),
	                        ("SELECT id FROM many WHERE s = 'text 5'", 1, 1000), ("SELECT id FROM many WHERE s LIKE 'text 1999%'", 11, 1500),
	                        ("SELECT s FROM many ORDER BY k, id LIMIT 5", 5, 20000), ("SELECT s FROM many LIMIT 3", 3, 20000),
	                        ("SELECT s FROM many WHERE id IN (SELECT k FROM many WHERE id < 10)", 9, 3000)):
		got, r = sent(sql)
		t.ok(len(r) == rows and got < most, "%s: %d bytes" % (sql, got), (len(r), got))
	got, r = sent("SELECT count(k) FROM many")
	t.ok(got < all_bytes * 0.75, "only the columns that are used are sent (%d of %d bytes)" % (got, all_bytes))
	db.execute("CREATE TABLE own(a INTEGER PRIMARY KEY, many INT)")
	db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30) INSERT INTO own SELECT i, i * 7 FROM n")
	db.execute("ANALYZE")
	got, r = sent("SELECT own.a, many.s FROM own JOIN many ON many.id = own.many")
	t.ok(r == [(i, "text %d" % (i * 7)) for i in range(1, 31)] and got < 20000, "a join asks for the rows that it needs (%d bytes)" % got)
	r = db.execute("SELECT x.id, y.id FROM many x JOIN many y ON y.id = x.k WHERE x.id BETWEEN 501 AND 510").fetchall()
	t.equal(r, [(i, i % 500) for i in range(501, 511)], "a join with itself")
	r = db.execute("SELECT count(*) FROM own LEFT JOIN many ON many.id = own.many AND many.k = 7").fetchall()
	t.equal(r, [(30,)], "an outer join")


@t.case("who may do what")
def refusals():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("INSERT INTO kv(k, pad) VALUES('one', 'p')")
	db = host()
	remote(db, "kv", l)
	for sql in ("INSERT INTO kv(k) VALUES('x')", "UPDATE kv SET pad = 1", "DELETE FROM kv", "CREATE INDEX i ON kv(k)", "ALTER TABLE kv ADD COLUMN z"):
		t.ok(any(w in str(refusal(db, sql)) for w in ("may not be modified", "virtual tables may not be")), "%s is refused" % sql, refusal(db, sql))
	dead = "tcp://127.0.0.1:%d" % harness.free_ports(1)[0]
	for args, what in (("'%s', 'nothing'" % l.url, "no such table: nothing"), ("'%s', 'kv; DROP TABLE kv'" % l.url, "no such table"), ("'%s', 'main.kv'" % l.url, "no such table"),
	                   ("'%s', 'pragma_table_list'" % l.url, "no such table"), ("'%s'" % l.url, "is missing"), ("'walraft', 'kv'", "is no node address"),
	                   ("'%s', 'kv', level='wrong'" % l.url, "wrong"), ("'%s', 'kv', timeout=0" % l.url, "timeout is in milliseconds"),
	                   ("'%s', 'kv', wrong=1" % l.url, "what is"), ("'%s', 'kv'" % dead, "cannot connect"), ("'%s,', 'kv'" % l.url, "is no node address")):
		e = refusal(db, "CREATE VIRTUAL TABLE temp.no USING walraft_remote(%s)" % args)
		t.ok(what in str(e), "walraft_remote(%s) says so" % args, e)
	try:
		db.execute("CREATE VIRTUAL TABLE temp.no USING walraft_remote('%s', 'kv')" % dead)
	except sqlite3.Error as e:
		t.equal(getattr(e, "sqlite_errorcode", None), ERROR_REMOTE, "the extended code")
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "the table that was there goes on")
	for level in ("linearizable", "lease", "stale", "bounded:1000"):
		remote(db, "l", l, "kv", ", level='%s', timeout = 2000" % level)
		t.equal(db.execute("SELECT k FROM l").fetchall(), [("one",)], "level " + level)
		db.execute("DROP TABLE l")
	db.execute("CREATE VIRTUAL TABLE s USING walraft_remote('%s', 'sqlite_schema')" % l.url)
	t.ok(("kv",) in db.execute("SELECT name FROM s WHERE type = 'table'").fetchall(), "sqlite_schema tells which tables there are")

	db.execute("CREATE TABLE own(x)")
	db.execute("BEGIN")
	db.execute("INSERT INTO own SELECT k FROM kv")
	l.sql("ALTER TABLE kv RENAME COLUMN pad TO filling")
	e = refusal(db, "INSERT INTO own SELECT k FROM kv")
	t.ok("create it anew" in str(e), "other columns than at first: an error that says what to do", e)
	refusal(db, "CREATE VIRTUAL TABLE temp.no USING walraft_remote('%s', 'kv')" % dead)
	t.ok(db.in_transaction, "the transaction goes on after the errors")
	db.execute("COMMIT")
	t.equal(db.execute("SELECT x FROM own").fetchall(), [("one",)], "and is committed with what it wrote")
	db.execute("DROP TABLE kv")
	remote(db, "kv", l)
	t.equal(db.execute("SELECT filling FROM kv").fetchall(), [("p",)], "made anew, it has the new column")

	path = os.path.join(t.tmp("plain"), "plain.db")
	plain = host(path)
	plain.execute("CREATE VIRTUAL TABLE r USING walraft_remote('%s', 'kv')" % l.url)
	plain.execute("CREATE VIEW rv AS SELECT k FROM r")
	t.equal(host(path).execute("SELECT k FROM rv").fetchall(), [("one",)], "it can be kept in a database, and used in a view")
	l.term()
	e = refusal(host(path), "SELECT k FROM r")
	t.ok("cannot connect" in str(e), "with no member there its use is an error", e)


@t.case("one snapshot")
def snapshot():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, x INT, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO n SELECT i, 0, printf('%0100d', i) FROM n")
	db = host()
	remote(db, "n", l)
	cur = db.execute("SELECT x, pad FROM n ORDER BY id")
	first = cur.fetchone()[0]
	l.sql("UPDATE n SET x = 1")
	t.equal([first, sum(r[0] for r in cur)], [0, 0], "a scan sees one snapshot, whatever is committed meanwhile")
	t.equal(db.execute("SELECT sum(x) FROM n").fetchall(), [(5000,)], "the next statement sees what was committed before it")
	cur = db.execute("SELECT a.x + b.x FROM n a JOIN n b ON b.id = a.id ORDER BY a.id")
	first = cur.fetchone()[0]
	l.sql("UPDATE n SET x = 2")
	t.equal({first} | {r[0] for r in cur}, {2}, "so do all cursors of a join, each time that they are asked")
	cur = db.execute("SELECT x, pad FROM n")
	cur.fetchone()
	l.sql("DELETE FROM n")
	t.equal([db.execute("SELECT count(*) FROM n").fetchone()[0], len(cur.fetchall())], [5000, 4999], "and two statements at a time")
	t.equal(db.execute("SELECT count(*) FROM n").fetchall(), [(0,)], "after them it is the present")


@t.case("members come and go")
def members():
	c = t.cluster(n=3)
	l = c.leader()
	f, g = c.followers()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO n SELECT i, printf('%0100d', i) FROM n")
	db = host()
	remote(db, "n", f, extra=", timeout=3000")
	t.equal(db.execute("SELECT count(*) FROM n").fetchall(), [(30000,)], "a linearizable read at a follower")
	l.sql("DELETE FROM n WHERE id > 29000")
	t.equal(db.execute("SELECT count(*) FROM n").fetchall(), [(29000,)], "sees what was acknowledged just before")
	remote(db, "m", "%s,%s" % (f.url, g.url), "n", ", timeout=3000")
	cur = db.execute("SELECT * FROM m")
	cur.fetchone()
	f.kill9()
	try:
		cur.fetchall()
		e = ""
	except sqlite3.Error as x:
		e = str(x)
	t.ok("run the statement again" in e, "a member that dies in the middle of a scan: an error, and no end of the rows", e)
	t.equal(db.execute("SELECT count(*) FROM m").fetchall(), [(29000,)], "run again, the next address answers")
	e = refusal(db, "SELECT count(*) FROM n")
	t.ok("cannot connect" in str(e), "with no other address it says so", e)
	f.start()
	wait_until(lambda: db.execute("SELECT count(*) FROM n").fetchall() == [(29000,)], 20, "the first one answers again")
	t.ok(True, "a member that is back answers")

	c.wait_ready()
	l, (f, g) = c.leader(), c.followers()
	db = host()
	remote(db, "n", f, extra=", timeout=1000")
	remote(db, "s", f, "n", ", level='stale', timeout=1000")
	for n in (l, g):
		n.sigstop()
	t0 = time.monotonic()
	e = refusal(db, "SELECT count(*) FROM n")
	t.ok(e and time.monotonic() - t0 < 6, "cut off from its quorum a member refuses, in time (%.1f s)" % (time.monotonic() - t0), e)
	t.ok("may do better" in str(e) or "quorum" in str(e) or "leader" in str(e), "and says why", e)
	t.equal(db.execute("SELECT count(*) FROM s").fetchall(), [(29000,)], "at level stale it answers")
	for n in (l, g):
		n.cont()
	c.wait_ready()
	wait_until(lambda: db.execute("SELECT count(*) FROM n").fetchall() == [(29000,)], 20, "it answers again")
	cur = db.execute("SELECT * FROM s")
	cur.fetchone()
	f.sigstop()
	t0 = time.monotonic()
	try:
		cur.fetchall()
		e = ""
	except sqlite3.Error as x:
		e = str(x)
	t.ok("does not answer in time" in e and time.monotonic() - t0 < 10, "a member that hangs in the middle of a scan: an error in time (%.1f s)" % (time.monotonic() - t0), e)
	f.cont()
	wait_until(lambda: db.execute("SELECT count(*) FROM s").fetchall() == [(29000,)], 20, "it answers again")
	t.equal(f.term(), 0, "a member that was asked ends as ever")


@t.case("a witness")
def witness():
	c = t.cluster(n=3, create=False)
	c.create(n=2)
	c.join_witness(2)
	c.leader().sql("INSERT INTO kv(k) VALUES('one')")
	db = host()
	remote(db, "kv", c[2])
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "a witness names a member that has tables, and that one is asked")
	for n in c.nodes[:2]:
		n.kill9()
	e = refusal(host(), "CREATE VIRTUAL TABLE r USING walraft_remote('%s', 'kv')" % c[2].url)
	t.ok("witness" in str(e), "with no other one left it says what it is", e)


@t.case("many at once")
def many():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("CREATE TABLE n(id INTEGER PRIMARY KEY, pad TEXT)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO n SELECT i, printf('%0100d', i) FROM n")
	wrong, counts = [], []

	def client(k):
		db = host()
		remote(db, "n", l)
		for i in range(15):
			r = db.execute("SELECT count(*), sum(id) FROM n WHERE id > ?", (k * 10 + i,)).fetchall()
			want = 3000 - (k * 10 + i)
			if r[0][0] != want:
				wrong.append((k, i, r, want))
			counts.append(1)
		db.close()
	threads = [threading.Thread(target=client, args=(k,)) for k in range(16)]
	for th in threads:
		th.start()
	for th in threads:
		th.join()
	t.ok(not wrong and len(counts) == 16 * 15, "sixteen clients at a time", wrong[:5])

	held = [host() for _ in range(70)]
	ok, busy = 0, ""
	for db in held:
		e = refusal(db, "CREATE VIRTUAL TABLE temp.n USING walraft_remote('%s', 'n')" % l.url)
		ok, busy = ok + (e is None), e or busy
	t.ok(ok == 64 and "busy" in busy, "more connections than there is room for are refused, with the reason", (ok, busy))
	for db in held:
		db.close()
	db = host()
	wait_until(lambda: refusal(db, "CREATE VIRTUAL TABLE temp.n USING walraft_remote('%s', 'n')" % l.url) is None, 10, "there is room again")
	cursors = [db.execute("SELECT pad FROM n") for _ in range(31)]
	t.equal({len(r.fetchmany(50)) for r in cursors}, {50}, "31 statements are open on one connection")
	more = [refusal(db, "SELECT a.id FROM n a, n b WHERE a.id = 1 AND b.id = 2")]
	t.ok("questions open" in str(more[0]), "more than 32 are refused", more)
	t.equal({len(r.fetchall()) for r in cursors}, {2950}, "those that are open go on")

	fds, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
	db = host()
	remote(db, "n", l)
	t.equal(len(os.listdir("/proc/self/task")), threads, "a client has no thread")
	cur = db.execute("SELECT id FROM n")
	cur.fetchone()
	pid = os.fork()
	if pid == 0:
		code = 1
		try:
			e = ""
			try:
				cur.fetchall()
			except sqlite3.Error as x:
				e = str(x)
			again = db.execute("SELECT count(*) FROM n").fetchall()
			code = 0 if "forked" in e and again == [(3000,)] else 2
		finally:
			os._exit(code)
	t.equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "a forked child is told that the cursor is its parent's, and then has a connection of its own")
	t.equal(len(cur.fetchall()), 2999, "the parent's cursor goes on")
	del cur
	db.close()
	t.equal(len(os.listdir("/proc/self/fd")), fds, "no descriptor is left after the close")
	wait_until(lambda: not [x for x in os.listdir("/proc/%d/task" % l.pid) if "query" in open("/proc/%d/task/%s/comm" % (l.pid, x)).read()], 20, "no thread is left at the member")
	t.ok(True, "when nobody asks, the member has no thread for it")


def hello(url, version=1):
	import ctypes
	import ctypes.util
	body = bytes([version, 1, 0]) + b"\0" * 5 + b"\0" * 6 + b"\0" + b"\0" + b"\0"
	xx = ctypes.CDLL(ctypes.util.find_library("xxhash"))
	xx.XXH3_64bits_withSeed.restype = ctypes.c_uint64
	xx.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
	return body, xx


@t.case("hostile bytes")
def hostile():
	c = t.cluster(n=1)
	l = c.leader()
	l.sql("INSERT INTO kv(k) VALUES('one')")
	db = host()
	remote(db, "kv", l)
	port = int(l.url.rsplit(":", 1)[1])
	xx = hello(l.url)[1]

	def varint(v):
		out = b""
		while v > 127:
			out, v = out + bytes([v & 127 | 128]), v >> 7
		return out + bytes([v])

	def packet(kind, corr=0, index=0, term=0, commit=0, hint=0, data=b"", text=b""):
		body = bytes([1, kind, 0]) + b"".join(varint(v) for v in (0, 0, 0, corr, term, index, 0, commit, hint)) + varint(len(text)) + text + varint(0) + varint(len(data)) + data
		body += struct.pack("<Q", xx.XXH3_64bits_withSeed(body, len(body), 1))
		return struct.pack("<I", len(body)) + body

	def connect():
		s = socket.create_connection(("127.0.0.1", port), 10)
		s.sendall(packet(HELLO))
		n = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))[0]
		s.recv(n, socket.MSG_WAITALL)
		return s

	def closed(s):
		s.settimeout(10)
		try:
			while s.recv(65536):
				pass
			return True
		except ConnectionError:
			return True
		except socket.timeout:
			return False
	text = open(os.path.join(os.environ.get("WALRAFT_SRC") or os.path.join(harness.HERE, "..", ".."), "wire", "msg.h")).read()
	import re
	types = re.findall(r"^\s*X\(([A-Z_0-9]+)\)", re.sub(r"/\*.*?\*/", "", text, flags=re.S), re.M)
	HELLO, OPEN, NEXT, CLOSE = (types.index(x) for x in ("HELLO", "QUERY_OPEN", "QUERY_NEXT", "QUERY_CLOSE"))
	for kind in ("VOTE_REQ", "APPEND", "JOIN_REQ", "IMAGE_OPEN", "LOCK_REQ", "QUERY_ROWS", "HELLO"):
		s = connect()
		s.sendall(packet(types.index(kind)))
		t.ok(closed(s), "who asks may not send %s" % kind)
	s = connect()
	s.sendall(packet(OPEN, 1, data=b"x" * 70000))
	t.ok(closed(s), "nor a question that is too long")
	s = connect()
	try:
		for i in range(20000):
			s.sendall(packet(OPEN, i + 1, data=os.urandom(200)))
	except OSError:
		pass
	t.ok(closed(s), "nor more than it waits for")
	question = b"\2kv\5stale" + varint(1000) + struct.pack("<Q", 0) + b"\0\0\0\0\0"
	n = 400 if t.full else 120
	for i in range(n):
		s = connect()
		data = bytearray(question)
		for _ in range(t.rnd.randrange(1, 6)):
			k = t.rnd.randrange(len(data) + 1)
			if t.rnd.random() < 0.5 and k < len(data):
				data[k] = t.rnd.randrange(256)
			else:
				data[k:k] = bytes([t.rnd.choice([0, 1, 127, 128, 255, t.rnd.randrange(256)])])
		s.sendall(packet(OPEN, 1, data=bytes(data), hint=t.rnd.randrange(3), index=t.rnd.randrange(2)) + packet(NEXT, t.rnd.randrange(3)) + packet(CLOSE, 1))
		s.close()
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "after %d malformed questions others are answered" % n)
	stalled = []
	l.sql("CREATE TABLE big(b)")
	l.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO big SELECT randomblob(500000) FROM n")
	rss = harness.rss_anon_kb(l.pid)
	for i in range(8):
		d = host()
		remote(d, "big", l)
		cur = d.execute("SELECT b FROM big")
		cur.fetchone()
		stalled.append((d, cur))
	t.equal(db.execute("SELECT k FROM kv").fetchall(), [("one",)], "clients that stall keep nobody else waiting")
	t.ok(harness.rss_anon_kb(l.pid) - rss < 80000, "and cost a bounded amount of memory", harness.rss_anon_kb(l.pid) - rss)
	t.equal({len(cur.fetchall()) for _, cur in stalled}, {39}, "and get their rows when they go on")
	t.equal(l.term(), 0, "the member ends as ever")


t.run()
