#!/usr/bin/python3
"""walraft as the default VFS: the cases of test_hosts_use and test_hosts_files, opened without any word of walraft. What is not set up passes through, or
sets itself up; then a transaction over two such databases is that of stock SQLite."""
import os

import hosts
import hosts_cases
from harness import Test

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


@t.case("auto: files beside it are set up too")
def beside():
	p = auto.get()
	if not os.path.exists(os.path.join(p.host.dir, "beside.db")):
		p.case("beside")
	db, plain = (os.path.join(h.dir, "beside.db") for h in (p.host, p.plain))
	t.ok(os.path.exists(db + "-walraft/node.conf"), "an attached file has set itself up")
	t.ok(not os.path.exists(plain + "-walraft"), "with stock SQLite it has not")
	t.equal(hosts.dump(db), hosts.dump(plain), "the content is the same")


hosts.run(t, pairs, auto)
