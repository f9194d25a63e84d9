#!/usr/bin/python3
"""What walraft leaves behind in its host: after a close, at an exit while threads commit, of descriptors, threads and signals. No host ever writes a
byte to its standard output or error, nor dies of a signal: each case checks that at its end."""
import harness
import hosts
from harness import Test, stock_rows, wait_until

t = Test(__file__, deadline_s=240)
rounds = t.args.rounds or (12 if harness.SANITIZER else 50)
OWN_NNG = "libnng" not in harness.run_cmd(["ldd", harness.MODULE]).stdout


def case(name):
	def deco(fn):
		@t.case(name)
		def run():
			try:
				fn()
			finally:
				hosts.kill_all(t)
		return run
	return deco


@case("a zombie connection")
def zombie():
	h = hosts.Host(t, hosts.lone_db(t, "zombie", listen=False), load=False)
	saw = h.run("zombie")
	t.equal(saw, {"close_v2": "0", "node runs on": "1", "next row": "100", "finalize": "0", "node has ended": "1"},
	        "the node runs until the last statement of a zombie is finalized")
	h.end("zombie")


@case("exit while threads commit")
def leave():
	"""What was acknowledged is there: rows of one thread are numbered without gaps, so that counting them is enough."""
	db = hosts.lone_db(t, "leave", listen=True)
	acked, lost, bad = {}, [], []
	for i in range(rounds):
		h = hosts.Host(t, db, load=False)
		how = ("return", "exit", "thread")[i % 3]
		h.send("run leave %d %d %s" % (i, t.rnd.randrange(40), how))
		first = None
		for m in h.rest():
			if m and m[0] == "rows":
				first = int(m[1])
			elif m and m[0] == "acked":
				r, by, n = (int(v) for v in m[1].split())
				acked[r, by] = n + 1
			elif m != ():
				bad.append("round %d: %r" % (i, m))
		before = sum(n for (r, by), n in acked.items() if r < i)
		if first is None or first < before:
			lost.append("round %d began with %s rows, %d had been acknowledged" % (i, first, before))
		status = h.finish()
		if status != 0 or h.output():
			bad.append("round %d, %s: status %s, output %r" % (i, how, status, h.output()[-2000:]))
		hosts.kill_all(t)
		if bad or lost:
			break
	t.ok(not bad, "%d hosts ended while 4 threads were committing: none crashed or said anything" % rounds, "\n".join(bad[:5]))
	t.ok(not lost, "each found the rows that were acknowledged before", "\n".join(lost[:5]))
	rows = {tuple(int(v) for v in r.split("|")[:2]): tuple(int(v) for v in r.split("|")[2:])
	        for r in stock_rows(db, "SELECT round, by, count(*), count(DISTINCT n), max(n) + 1 FROM acked GROUP BY round, by")}
	wrong = ["%r: %d acknowledged, there are %r" % (k, n, rows.get(k)) for k, n in acked.items()
	         if k not in rows or len(set(rows[k])) != 1 or not n <= rows[k][0] <= n + 1]
	t.ok(not wrong and len(acked) > rounds, "all %d acknowledged rows are there, none twice, and at most one more of each thread" % sum(acked.values()), "\n".join(wrong[:10]))
	t.equal(stock_rows(db, "PRAGMA integrity_check"), ["ok"], "and the file is in order")


@case("descriptors and threads")
def cycles():
	saw = {}
	for listen in (False, True):
		h = hosts.Host(t, hosts.lone_db(t, "cycles%d" % listen, listen=listen), load=False)
		saw[listen] = h.run("cycles", "50", timeout_s=120)
		h.end("cycles")
	h = hosts.Host(t, hosts.plain_db(t, "cycles-auto"), load=False, env={"HOSTS_DEFAULT": "1", "HOSTS_AUTO": "1"})
	t.equal(h.run("cycles", "50", timeout_s=120), saw[False], "a database that has set itself up leaves the same")
	h.end("cycles, set up by itself")
	t.equal(saw[False], {"left after the first": "0 descriptors, 0 threads", "left after the last": "0 descriptors, 0 threads", "more of SQLite's memory": "0", "rows": "1"},
	        "without an address nothing is left, after 1 cycle and after 50")
	if OWN_NNG:
		t.equal(saw[True], saw[False], "with an address neither")
	else:  # the shared library's threads end with the process
		t.equal(saw[True]["left after the last"], saw[True]["left after the first"], "with an address 50 cycles leave no more than the first")
		t.equal(saw[True]["more of SQLite's memory"], "0", "nor any of SQLite's memory")


@case("signals")
def signals():
	for listen in (False, True):
		h = hosts.Host(t, hosts.lone_db(t, "signals%d" % listen, listen=listen), load=False)
		saw = h.run("signals")
		t.equal(saw, {"dispositions changed": "0", "mask changed": "0", "other threads": "1", "threads that take signals": "0", "pending": "1, handled 0",
		              "handled in the end": "1, by others 0", "dispositions changed after the close": "0"},
		        "mask and dispositions are the host's, and no thread of walraft's takes a signal%s" % (" (with an address)" if listen else ""))
		h.end("signals")


@case("broken pipes")
def pipes():
	h = hosts.Host(t, hosts.lone_db(t, "pipes", listen=False))
	t.equal(h.run("broken-pipes"), {"asked": "100, SIGPIPE by default 1", "rows": "100"}, "clients that do not wait for their answer do no harm")
	h.end("broken pipes")


@hosts.steady(t, "peers that are killed")
def peers():
	p = hosts.Pair(t, nodes=3)
	p.host.sql("CREATE TABLE piped(id INTEGER PRIMARY KEY, pad)")
	ids = 0
	for i in range(6):
		n = p.c[1 + i % 2]
		for half in range(2):
			for _ in range(20):
				ids += 1
				wait_until(lambda: p.host.sql("INSERT INTO piped VALUES(%d, zeroblob(5000))" % ids) in ("", "error 1555: UNIQUE constraint failed: piped.id"), 30, "row %d is written" % ids)
			if not half:
				n.kill9()
		n.serve()
	t.equal(p.host.sql("SELECT count(*) FROM piped"), "240", "peers that are killed under load do no harm")
	p.c.checksums_equal("and have all when they are back")
	p.end("peers")


t.run()
