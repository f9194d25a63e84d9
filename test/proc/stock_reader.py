"""A stock reader (no extension): loops over a database until it is killed or told to end by end of input.

  stock_reader.py DB SQL     SQL gives two values that must agree, read in one transaction
Alternates a lasting connection and a new one per read. Prints one JSON line at the end: reads, errors, disagreements.
"""
import json
import select
import sqlite3
import sys
import time

db, sql = sys.argv[1:3]
reads = 0
errors, apart = [], []
lasting = None
longest = 0.0
while not select.select([sys.stdin], [], [], 0)[0]:
	t0 = time.monotonic()
	con = None
	try:
		fresh = reads % 4 == 3
		if fresh or lasting is None:
			con = sqlite3.connect("file:%s?mode=%s" % (db, "ro" if reads % 8 == 3 else "rw"), uri=True, isolation_level=None,
			                      timeout=10)
			if not fresh:
				lasting = con
		use = con or lasting
		use.execute("BEGIN")
		a, b = use.execute(sql).fetchone()
		a2, b2 = use.execute(sql).fetchone()
		use.execute("COMMIT")
		if (a, b) != (a2, b2) or a != b:
			apart.append([a, b, a2, b2])
		if fresh:
			use.close()
		if reads % 500 == 499:
			lasting.close()
			lasting = None
	except sqlite3.Error as e:
		errors.append("%s %s" % (getattr(e, "sqlite_errorcode", ""), e))
		lasting = None
	reads += 1
	longest = max(longest, time.monotonic() - t0)
	time.sleep(0.002)
if lasting:
	lasting.close()
print(json.dumps({"reads": reads, "errors": errors[:10], "n_errors": len(errors), "apart": apart[:10],
                  "n_apart": len(apart), "longest_s": longest}), flush=True)
