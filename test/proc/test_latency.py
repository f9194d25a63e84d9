#!/usr/bin/python3
"""On an idle cluster a commit is readable by a stale read on every follower within 5 ms (median) of its acknowledgement."""
import statistics
import time

from harness import SANITIZER, Test

t = Test(__file__, deadline_s=120)
tries = 500 if t.full else 50


@t.case("commit to readable on followers")
def latency():
	c = t.cluster(n=3, schema="CREATE TABLE n(id INTEGER PRIMARY KEY);")
	l, fs = c.leader(), c.followers()
	for f in fs:
		f.open("s", pragmas=["walraft_read='stale'"])
	late = {f.i: [] for f in fs}
	for i in range(1, tries + 1):
		ps = [f.send("poll", conn="s", sql="SELECT max(id) FROM n", until=i, timeout_s=10) for f in fs]
		# The idle time is the point here: the commit must not ride on a heartbeat that is due anyway.
		time.sleep(0.3 if i % 10 == 0 else 0.005 + t.rnd.random() * 0.03)
		acked = l.ask("INSERT INTO n VALUES(?)", [i]).result()["t1"]
		for f, p in zip(fs, ps):
			late[f.i].append(max(0, p.result()["t1"] - acked) / 1e6)
	for f in fs:
		v = sorted(late[f.i])
		med = statistics.median(v)
		name = "node %d: median %.2f ms, p90 %.2f, worst %.2f" % (f.i, med, v[int(len(v) * 0.9)], v[-1])
		if SANITIZER:
			t.skip(name, "sanitizer build")
		else:
			t.ok(med < 5, name + ": median under 5 ms")
	c.checksums_equal("checksums are equal")


t.run()
