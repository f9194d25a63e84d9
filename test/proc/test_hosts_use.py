#!/usr/bin/python3
"""What applications do on connections: the same on a replicated database as on a plain one, and nothing of it is lost on the way to the other node.

The cases are in test/hosts; each runs on both, then what they saw, the two nodes, and the content are compared."""
import hosts
from harness import Test

t = Test(__file__, deadline_s=200)
pairs = hosts.Pairs(t)
REFUSED = "^error 22286: .*%s"

# test/hosts/use.c
pairs.case("blob")
pairs.case("cacheflush")
pairs.case("hooks")
pairs.case("limits")
pairs.case("facts")
pairs.case("spill")
pairs.case("beside")
pairs.case("guest")
pairs.case("twice")

# test/hosts/open.c
pairs.case("parameters", differ=dict(
	{p + ": open": REFUSED % ("app\\.db is a replicated database: %s is refused, because" % p) for p in ("immutable=1", "nolock=1", "readonly_shm=1")},
	**{p + ": " + what: None for p in ("immutable=1", "nolock=1", "readonly_shm=1") for what in ("write", "read")}, rows="^6$"))
pairs.case("flags")
pairs.case("missing", differ={
	"mode=rw: open": REFUSED % "none\\.db does not exist.*walraft init",
	"mode=ro: open": REFUSED % "none\\.db does not exist.*walraft init",
	"mode=rwc: open": REFUSED % "none\\.db does not exist.*walraft init", "mode=rwc: write": None, "mode=rwc: read": None, "made by mode=rwc": "^0$",
	"no directory: open": REFUSED % "/nonexistent/none\\.db.*No such file",
	"a directory: open": REFUSED % "not set up.*walraft init",
	"named VFS: open": REFUSED % "named\\.db.*walraft init", "named VFS: write": None, "named VFS: read": None,
})
pairs.case("shared-cache")
pairs.case("unlock-notify")

# test/hosts/busy.c
pairs.case("busy-handler")
pairs.case("busy-timeout")
pairs.case("interrupt")

# test/hosts/thread.c
pairs.case("threads")
pairs.case("handed-on")
pairs.case("refused-elsewhere")
pairs.case("opening")

# test/hosts/leave.c
pairs.case("close-busy")

pairs.run()
