#!/usr/bin/python3
"""The journal is trimmed below the checkpoint mark once all members have what it holds, kept for one that is away, and the WAL stays bounded."""
from harness import Test

t = Test(__file__, deadline_s=200)
SEGMENT = 16 << 20


def write(c, mib):
	"""Random rows of about mib MiB, on the leader."""
	l = c.leader()
	for _ in range(mib * 4):
		l.sql("INSERT INTO kv(k, pad) SELECT hex(randomblob(8)), randomblob(4096) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64) SELECT i FROM n)")


@t.case("trimmed on all members")
def trimmed():
	c = t.cluster(n=3)
	write(c, 64)
	c.converge()
	for n in c.nodes:
		s = n.wait_status(lambda s: s["journal_base"] > 1 and s["journal_disk_bytes"] <= 4 * SEGMENT, 20, "its journal is trimmed")
		t.ok(s["journal_bytes_appended"] > 60 << 20, "node %d: %d MiB were written to the journal, %d are kept" % (
			n.i, s["journal_bytes_appended"] >> 20, s["journal_disk_bytes"] >> 20))
		t.ok(s["restarts"] > 1 and s["wal_frames"] < 3 * 4000, "node %d: the WAL was restarted %d times, has %d frames" % (n.i, s["restarts"], s["wal_frames"]))
	for n in c.nodes:
		n.kill9()
	c.start_all()
	c.wait_ready()
	c.checksums_equal("a start from the trimmed journals: checksums are equal")


@t.case("kept for a member that is away")
def kept():
	c = t.cluster(n=3)
	away = c.followers()[0]
	away.kill9()
	write(c, 48)
	l = c.leader()
	before = l.status()["journal_base"]
	t.ok(l.status()["journal_disk_bytes"] >= 3 * SEGMENT, "what the absent member lacks is kept", l.status()["journal_disk_bytes"])
	away.start()
	c.checksums_equal("back, it catches up from the journal: checksums are equal")
	write(c, 4)
	s = c.leader().wait_status(lambda s: s["journal_base"] > before, 20, "the journal is trimmed after its return")
	t.ok(True, "then it is trimmed (base %d, was %d)" % (s["journal_base"], before))
	c.integrity("integrity_check is ok on every node")


t.run()
