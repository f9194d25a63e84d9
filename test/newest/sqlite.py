"""SQLite libraries to test with: where their sources are had from, how they are built, which options are tried.

Only names and versions are kept here; the sources come from packages of the npm registry, unpacked into a directory of the
caller's. Nothing of a package is run.
"""
import glob
import os
import re
import shutil
import subprocess
import tarfile

# (package, version, SQLite's version that it must hold). No version: the registry's latest, dropped when what it holds is
# here already.
SOURCES = (
	("better-sqlite3", "8.2.0", "3.41.0"),
	("better-sqlite3", "8.7.0", "3.43.1"),
	("better-sqlite3", "9.6.0", "3.45.3"),
	("better-sqlite3", "11.3.0", "3.46.1"),
	("better-sqlite3", "11.6.0", "3.47.1"),
	("better-sqlite3", "11.10.0", "3.49.2"),
	("better-sqlite3", "12.4.1", "3.50.4"),
	("better-sqlite3", "12.6.2", "3.51.2"),
	("better-sqlite3", "12.8.0", "3.51.3"),
	("sqlite3", "6.0.1", "3.52.0"),
	("@photostructure/sqlite", "1.2.1", "3.53.0"),  # node:sqlite's copy
	("better-sqlite3", "12.11.1", "3.53.2"),
	("better-sqlite3", "13.2.0", "3.54.1"),
	("better-sqlite3", "", ""),
	("sqlite3", "", ""),
)
# SQLite's bedrock branch (WAL2, BEGIN CONCURRENT), of which ordinary WAL mode must work.
BEDROCK = ("@rocicorp/zero-sqlite3", "1.1.0", "3.51.0")

# What Debian's library has and its programs (python3, sqlite3) link.
DEBIAN = {name: value for name, _, value in (d.partition("=") for d in """
	SQLITE_THREADSAFE=1 SQLITE_SECURE_DELETE SQLITE_ENABLE_COLUMN_METADATA SQLITE_ENABLE_DBSTAT_VTAB SQLITE_ENABLE_FTS3
	SQLITE_ENABLE_FTS3_PARENTHESIS SQLITE_ENABLE_FTS3_TOKENIZER SQLITE_ENABLE_FTS4 SQLITE_ENABLE_FTS5 SQLITE_ENABLE_RTREE
	SQLITE_ENABLE_LOAD_EXTENSION SQLITE_ENABLE_MATH_FUNCTIONS SQLITE_ENABLE_PREUPDATE_HOOK SQLITE_ENABLE_SESSION
	SQLITE_ENABLE_STMTVTAB SQLITE_ENABLE_UNLOCK_NOTIFY SQLITE_ENABLE_UPDATE_DELETE_LIMIT SQLITE_LIKE_DOESNT_MATCH_BLOBS
	SQLITE_OMIT_LOOKASIDE SQLITE_SOUNDEX SQLITE_USE_URI SQLITE_MAX_VARIABLE_NUMBER=250000 HAVE_ISNAN HAVE_USLEEP
	""".split())}
# Without these the test programs would not start; nothing of walraft's depends on them.
NEEDED = ("SQLITE_ENABLE_COLUMN_METADATA", "SQLITE_ENABLE_LOAD_EXTENSION", "SQLITE_ENABLE_PREUPDATE_HOOK",
          "SQLITE_ENABLE_SESSION", "SQLITE_ENABLE_UNLOCK_NOTIFY", "HAVE_USLEEP")

SYSTEM_LIBS = ["-lm", "-ldl", "-lpthread"]

VARIANTS = {
	"default": {},
	"setlk1": {"SQLITE_ENABLE_SETLK_TIMEOUT": "1"},
	"setlk2": {"SQLITE_ENABLE_SETLK_TIMEOUT": "2"},
	"walsync": {"SQLITE_DEFAULT_WAL_SYNCHRONOUS": "1", "SQLITE_USE_URI": "1", "SQLITE_DQS": "0"},
	"exclusive": {"SQLITE_DEFAULT_LOCKING_MODE": "1"},
	"mmap": {"SQLITE_DEFAULT_MEMSTATUS": "0", "SQLITE_MAX_MMAP_SIZE": "0x7fff0000",
	         "SQLITE_DEFAULT_MMAP_SIZE": "268435456"},
	"threads2": {"SQLITE_THREADSAFE": "2"},
	"snapshot": {"SQLITE_ENABLE_SNAPSHOT": "1", "SQLITE_ENABLE_API_ARMOR": "1", "SQLITE_DEFAULT_SYNCHRONOUS": "3"},
	"asserts": {"SQLITE_DEBUG": "1"},  # SQLite's own assertions about what its VFS did
	"better-sqlite3": None,            # the defines that come with the package
}
# What an application has to do first there.
PRAGMAS = {"exclusive": "locking_mode=normal"}


def run(args, **kw):
	r = subprocess.run(args, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kw)
	if r.returncode:
		raise RuntimeError("%s ended with %d: %s" % (" ".join(args), r.returncode, (r.stderr or r.stdout)[-2000:]))
	return r.stdout


class Source:
	"""One package, fetched and unpacked into a directory of its own below `into`."""

	def __init__(self, into, package, version, expect):
		self.name = package + ("@" + version if version else "")
		self.dir = os.path.join(into, re.sub(r"[^\w.]+", "-", self.name).strip("-"))
		if not glob.glob(os.path.join(self.dir, "*.tgz")):
			os.makedirs(self.dir, exist_ok=True)
			run(["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", self.dir, self.name])
			self._unpack(glob.glob(os.path.join(self.dir, "*.tgz"))[0])
			for inner in glob.glob(os.path.join(self.dir, "package", "deps", "sqlite-autoconf-*.tar.gz")):
				self._unpack(inner)
		found = sorted(glob.glob(os.path.join(self.dir, "**", "sqlite3.c"), recursive=True), key=len)
		if not found:
			raise RuntimeError("%s has no sqlite3.c any more" % self.name)
		self.path = os.path.dirname(found[0])
		with open(os.path.join(self.path, "sqlite3.h"), encoding="utf-8") as f:
			self.version = re.search(r'^#define SQLITE_VERSION\s+"([\d.]+)"', f.read(), re.M).group(1)
		if expect and self.version != expect:
			raise RuntimeError("%s holds SQLite %s, not %s" % (self.name, self.version, expect))

	def _unpack(self, archive):
		with tarfile.open(archive) as tar:
			tar.extractall(self.dir, filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(self.dir)

	def key(self):
		return [int(x) for x in self.version.split(".")]

	def own_defines(self):
		"""What the package itself compiles SQLite with; None when it does not say."""
		path = os.path.join(self.dir, "package", "deps", "defines.gypi")
		if not os.path.exists(path):
			return None
		with open(path, encoding="utf-8") as f:
			found = re.findall(r"'((?:SQLITE|HAVE)_\w+)(?:=([^']*))?'", f.read())
		return dict(found)


def fetch(into, sources=SOURCES):
	"""Sources by version, the newest last."""
	got = {}
	for s in sources:
		source = Source(into, *s)
		got.setdefault(source.version, source)
	return sorted(got.values(), key=Source.key)


def exported(path):
	return set(re.findall(r"\b[TtWDB] (sqlite3\w*)$", run(["nm", "-D", "--defined-only", path]), re.M))


def wanted(path):
	return set(re.findall(r"\bU (sqlite3\w*)$", run(["nm", "-D", "--undefined-only", path]), re.M))


class Library:
	"""libsqlite3.so.0 and a shell on it, from one source with one variant's options."""

	def __init__(self, into, source, variant, programs, system_shell):
		self.source, self.variant = source, variant
		self.dir = os.path.join(into, "%s-%s" % (os.path.basename(source.dir), variant))
		self.path = os.path.join(self.dir, "libsqlite3.so.0")
		self.shell = os.path.join(self.dir, "sqlite3")
		own = VARIANTS[variant]
		if own is None:
			defines = dict(source.own_defines(), **{n: DEBIAN[n] for n in NEEDED})
		else:
			defines = dict(DEBIAN, **own)
		os.makedirs(self.dir, exist_ok=True)
		self.cc = [os.environ.get("CC", "cc"), "-O1", "-g", "-w", "-fPIC", "-I" + source.path]
		self.cc += ["-D%s%s" % (n, "=" + v if v else "") for n, v in sorted(defines.items())]
		self.stubs = self._build(programs)
		main = os.path.join(source.path, "shell.c")
		if os.path.exists(main):
			run(self.cc + ["-o", self.shell, main, self.path, "-Wl,-rpath," + self.dir, *SYSTEM_LIBS])
		else:
			self._borrow(system_shell)

	def _build(self, programs):
		"""Returns the functions that the options left out although a test program names them: it would not start without."""
		core = os.path.join(self.dir, "sqlite3.o")
		if not os.path.exists(core):
			run(self.cc + ["-c", "-o", core + ".tmp", os.path.join(self.source.path, "sqlite3.c")])
			os.rename(core + ".tmp", core)
		link = [self.cc[0], "-shared", "-Wl,-soname,libsqlite3.so.0", "-o", self.path, core]
		run(link + SYSTEM_LIBS)
		left_out = sorted(set.union(*map(wanted, programs)) - exported(self.path))
		if left_out:
			stubs = self._write("stubs.c", "".join("int %s(void) { return 0; }\n" % s for s in left_out))
			run(link + ["-fPIC", stubs] + SYSTEM_LIBS)
		return left_out

	def _borrow(self, system_shell):
		"""The system's shell on our library. It refuses one of another source, and so is told another."""
		env = dict(os.environ)
		env.pop("LD_LIBRARY_PATH", None)
		ask = [system_shell, "-batch", "-init", "/dev/null", ":memory:", "SELECT sqlite_source_id()"]
		source_id = run(ask, env=env).strip()
		c = self._write("same.c", 'const char *sqlite3_sourceid(void) { return "%s"; }\n' % source_id)
		same = os.path.join(self.dir, "same.so")
		run([self.cc[0], "-shared", "-fPIC", "-o", same, c])
		self._write("sqlite3", '#!/bin/sh\nLD_PRELOAD="%s $LD_PRELOAD" LD_LIBRARY_PATH=%s exec %s "$@"\n' % (
			same, self.dir, system_shell))
		os.chmod(self.shell, 0o755)

	def _write(self, name, text):
		path = os.path.join(self.dir, name)
		with open(path, "w", encoding="utf-8") as f:
			f.write(text)
		return path

	def check(self, python):
		"""Raises unless an application and the shell see the source's version."""
		env = dict(os.environ, LD_LIBRARY_PATH=self.dir)
		seen = [run([python, "-c", "import sqlite3; print(sqlite3.sqlite_version)"], env=env).strip(),
		        run([self.shell, "-batch", "-init", "/dev/null", ":memory:", "SELECT sqlite_version()"]).strip()]
		if seen != [self.source.version] * 2:
			raise RuntimeError("%s: python and the shell see SQLite %s" % (self.path, " and ".join(seen)))


def tools_missing():
	return [t for t in ("npm", "nm", os.environ.get("CC", "cc")) if not shutil.which(t)]
