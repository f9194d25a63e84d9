#!/usr/bin/python3
"""Tables of a cluster, read from a host that has no replica of it (walraft_remote): the answers."""
import os
import sqlite3
import subprocess

from harness import Test, wait_until
from remote import here, host, refusal, remote

t = Test(__file__)

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
           "odd": ['"select"', '"a ""b"', '"hidden"', '"größe"', "g"], "v": ["vi", "vs", "vu", "vt", "vn", "vc"]}
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

	sizes = [0, 1, 16383, 16384, 300000, 3000000, 9000000]
	l.sql("CREATE TABLE big(n INTEGER PRIMARY KEY, b BLOB, s TEXT)")
	for n in sizes:
		l.sql("INSERT OR REPLACE INTO big VALUES(?, randomblob(?), replace(hex(zeroblob(?)), '0', 'x'))", [n, n, n // 2])
	wait_rows(l, "SELECT 1 FROM big WHERE n = %d" % sizes[-1])
	remote(db, "big", l)
	t.equal(db.execute("SELECT * FROM big").fetchall(), there.execute("SELECT * FROM big").fetchall(), "rows of up to 18 MB")
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


t.run()
