"""Cases of test/hosts that run both on a plain database and on a replicated one, and what the replicated one answers otherwise: by observation, an expression that
the answer matches, or None where there is none."""

REFUSED = "^error 22286: .*%s"
PARAMETERS = ("immutable=1", "nolock=1", "readonly_shm=1")
CHECKPOINTS = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")
GUESTS = ("memory", "a file")

USE = {
	# use.c
	"blob": {},
	"cacheflush": {},
	"hooks": {},
	"limits": {},
	"facts": {},
	"spill": {},
	"beside": {},
	"guest": {"reason from %s" % g: "" for g in GUESTS},
	"twice": {},
	# open.c
	"parameters": dict({p + ": open": REFUSED % ("app\\.db is a replicated database: %s is refused, because" % p) for p in PARAMETERS},
	                   **{p + ": " + what: None for p in PARAMETERS for what in ("write", "read")}, rows="^6$"),
	"flags": {},
	"missing": {
		"mode=rw: open": REFUSED % "none\\.db does not exist.*walraft init",
		"mode=ro: open": REFUSED % "none\\.db does not exist.*walraft init",
		"mode=rwc: open": REFUSED % "none\\.db does not exist.*walraft init", "mode=rwc: write": None, "mode=rwc: read": None, "made by mode=rwc": "^0$",
		"no directory: open": REFUSED % "/nonexistent/none\\.db.*No such file",
		"a directory: open": REFUSED % "not set up.*walraft init",
		"named VFS: open": REFUSED % "named\\.db.*walraft init", "named VFS: write": None, "named VFS: read": None,
	},
	"shared-cache": {},
	"unlock-notify": {},
	# busy.c
	"busy-handler": {},
	"busy-timeout": {},
	"interrupt": {},
	# thread.c
	"threads": {},
	"handed-on": {},
	"refused-elsewhere": {},
	"opening": {},
	# leave.c
	"close-busy": {},
}

FILES = {
	# wal.c
	"checkpoints": dict({"call " + m: "^5 database is locked" for m in CHECKPOINTS}, **{"pragma " + m: "^busy 1$" for m in CHECKPOINTS}),
	"autocheckpoint": {},
	"snapshot": {"open the older": "^[1-9]", "rows of the older": "^2$", "write on the older": "", "open the newer": "^[1-9]", "recover": "^[1-9]"},
	"memory-map": {"set": "^0$", "asked": "^0$"},
	# copy.c
	"backup-out": {},
	"backup-in": {},
	"vacuum": {},
	"serialize": {},
	"deserialize": {"which can be asked": "^NULL$"},
	# control.c
	"controls": {"PERSIST_WAL asked": "^0, 1$", "PERSIST_WAL set": "^0, 1$", "LOCK_TIMEOUT": "^12, 100$", "VFSNAME": "^0, walraft/unix$"},
	"reserve-bytes": {},
	"data-version": {},
	"defensive": {"journal mode off": "^error 1: .*stays in WAL mode", "still known": "^leader$"},
	"reset-database": {},
}

# For hosts whose only connection it is. Pragmas that name no schema are for attached databases too, but their file is not asked: SQLite then finds
# that it cannot have the file for itself.
ALONE = {
	"last-close": {"-wal after a close": "^1$"},
	"guest": {k % g: v for g in GUESTS for k, v in {
		"journal mode from %s": "^error 5: database is locked$", "journal mode after it from %s": "^wal$", "write after it from %s": "^error 5: database is locked$",
		"reason from %s": "replicated"}.items()},
}
