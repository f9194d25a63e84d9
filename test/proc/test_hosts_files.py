#!/usr/bin/python3
"""What applications do to files: checkpoints, backups, VACUUM, serialization, file controls. The same on a replicated database as on a plain one, and
nothing of it is lost on the way to the other node. Where SQLite would leave the WAL to the application, the node has it.

The cases are in test/hosts; each runs on both, then what they saw, the two nodes, and the content are compared."""
import hosts
from harness import Test

t = Test(__file__, deadline_s=200)
pairs = hosts.Pairs(t)
MODES = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")

# test/hosts/wal.c
pairs.case("checkpoints", differ=dict({"call " + m: "^5 database is locked" for m in MODES}, **{"pragma " + m: "^busy 1$" for m in MODES}))
pairs.case("autocheckpoint")


@t.case("snapshot")
def snapshot():
	p = pairs.get()
	if "not built in" in p.plain.run("snapshot"):
		t.skip("snapshot", "this SQLite was built without sqlite3_snapshot_open")
		return
	p.case("snapshot", differ={"open the older": "^[1-9]", "rows of the older": "^2$", "write on the older": "", "open the newer": "^[1-9]", "recover": "^[1-9]"})


pairs.case("memory-map", differ={"set": "^0$", "asked": "^0$"})

# test/hosts/copy.c
pairs.case("backup-out")
pairs.case("backup-in")
pairs.case("vacuum")
pairs.case("serialize")
pairs.case("deserialize", differ={"which can be asked": "^NULL$"})

# test/hosts/control.c
pairs.case("controls", differ={"PERSIST_WAL asked": "^0, 1$", "PERSIST_WAL set": "^0, 1$", "VFSNAME": "^0, walraft/unix$"})
pairs.case("reserve-bytes")
pairs.case("data-version")
pairs.case("defensive", differ={"journal mode off": "^error 1: .*stays in WAL mode", "still known": "^leader$"})
pairs.case("reset-database")

pairs.run()
