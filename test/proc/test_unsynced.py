#!/usr/bin/python3
"""The library that makes kill -9 a power loss (unsynced.c): what was synced is there, what was not is gone, and the
process itself sees all that it wrote."""
import os
import signal
import subprocess

import harness
from harness import Test

t = Test(__file__, deadline_s=60)
LIB = next((p for p in (os.path.join(harness.BUILD, "test/proc/.libs/unsynced.so"),
                        os.path.join(harness.BUILD, "test/proc/unsynced.so")) if os.path.exists(p)), None)


def env(d):
	return harness.child_env({"LD_PRELOAD": LIB, "UNSYNCED_ROOT": d})


def child(d, code, killed=True):
	"""Runs code with `p` = the path of a file and `kill()`; returns what it printed."""
	head = "import os, signal\np = %r\ndef kill(): os.kill(os.getpid(), signal.SIGKILL)\n" % (d + "/f")
	p = subprocess.run([harness.PYTHON, "-c", head + code], env=env(d), stdout=subprocess.PIPE, text=True, timeout=30)
	t.need(p.returncode == (-signal.SIGKILL if killed else 0), "the child ended as it should", p.returncode)
	return p.stdout


def content(d):
	with open(d + "/f", "rb") as f:
		return f.read()


@t.case("synced bytes stay, others go")
def stays():
	d = t.tmp("a")
	child(d, "f = os.open(p, os.O_RDWR | os.O_CREAT)\n"
	         "os.write(f, b'a' * 5000); os.fdatasync(f)\n"
	         "os.pwrite(f, b'b' * 5000, 2000); os.ftruncate(f, 6000); kill()")
	t.equal(content(d), b"a" * 5000, "the first write is there, the second and the truncation are not")
	child(d, "f = os.open(p, os.O_RDWR)\n"
	         "os.pwrite(f, b'c' * 100, 4950); os.ftruncate(f, 5010); os.fsync(f); os.ftruncate(f, 3); kill()")
	t.equal(content(d), b"a" * 4950 + b"c" * 60, "a synced truncation is there, a later one is not")
	child(d, "f = os.open(p, os.O_RDWR | os.O_TRUNC); os.write(f, b'new'); kill()")
	t.equal(content(d), b"a" * 4950 + b"c" * 60, "emptying a file by opening it is undone")
	child(d, "f = os.open(p, os.O_RDWR)\nos.ftruncate(f, 10); os.ftruncate(f, 20); os.fsync(f); kill()")
	t.equal(content(d), b"a" * 10 + b"\0" * 10, "cut and grown: zeros, not the old bytes")


@t.case("closing is not syncing")
def closing():
	d = t.tmp("b")
	out = child(d, "f = os.open(p, os.O_RDWR | os.O_CREAT); os.write(f, b'x' * 9000); os.close(f)\n"
	               "g = os.open(p, os.O_RDONLY); print(len(os.read(g, 20000)), os.path.getsize(p), flush=True); kill()")
	t.equal(out, "9000 9000\n", "what was written is read through a later descriptor")
	t.equal(content(d), b"", "and gone with the process")
	child(d, "f = os.open(p, os.O_RDWR); os.write(f, b'y'); os.close(f)\n"
	         "g = os.open(p, os.O_RDONLY); os.fsync(g); kill()")
	t.equal(content(d), b"y", "a sync through any descriptor syncs the file")
	child(d, "f = os.open(p, os.O_RDWR); os.write(f, b'z')", killed=False)
	t.equal(content(d), b"z", "an orderly exit loses nothing")


@t.case("all descriptors agree")
def agree():
	d = t.tmp("c")
	out = child(d, "a = os.open(p, os.O_RDWR | os.O_CREAT); b = os.open(p, os.O_RDWR); c = os.dup(a)\n"
	               "os.pwrite(a, b'1' * 10000, 0); os.pwrite(b, b'2' * 10, 4090); os.pwrite(c, b'3', 12000)\n"
	               "for f in (a, b, c): print(os.pread(f, 12, 4089), os.pread(f, 2, 11999), os.fstat(f).st_size, os.stat(p).st_size)\n"
	               "print(os.lseek(b, 0, os.SEEK_END), os.read(b, 1)); os.lseek(b, -2, os.SEEK_END); print(os.read(b, 9), flush=True)\n"
	               "os.close(a); os.fsync(c); kill()")
	line = "b'122222222221' b'\\x003' 12001 12001\n"
	t.equal(out, line * 3 + "12001 b''\nb'\\x003'\n", "contents, sizes and offsets")
	t.equal(content(d), b"1" * 4090 + b"2" * 10 + b"1" * 5900 + b"\0" * 2000 + b"3", "and so it is synced")


@t.case("files that are removed")
def removed():
	d = t.tmp("d")
	out = child(d, "f = os.open(p, os.O_RDWR | os.O_CREAT); os.write(f, b'old' * 3000); os.close(f); os.unlink(p)\n"
	               "f = os.open(p, os.O_RDWR | os.O_CREAT); print(os.fstat(f).st_size, os.read(f, 10))\n"
	               "g = os.open(p + '2', os.O_RDWR | os.O_CREAT); os.write(g, b'two'); os.fsync(g); os.rename(p + '2', p)\n"
	               "print(os.path.getsize(p), flush=True); kill()")
	t.equal(out, "0 b''\n3\n", "a new file of the same name starts empty; a rename replaces it")
	t.equal(content(d), b"two", "the renamed file is there")


@t.case("stock SQLite")
def sqlite():
	for mode, sync, want in (("wal", "OFF", 0), ("wal", "FULL", 20), ("delete", "OFF", 0), ("delete", "FULL", 20)):
		d = t.tmp("%s-%s" % (mode, sync))
		db = d + "/x.db"
		harness.stock_rows(db, "PRAGMA journal_mode=%s; CREATE TABLE t(x);" % mode)
		sql = "PRAGMA synchronous=%s;\n" % sync + "".join("INSERT INTO t VALUES(%d);\n" % i for i in range(20)) + \
			"SELECT 'rows', count(*) FROM t;\n"
		p = subprocess.Popen([harness.HOST_SHELL, db], env=env(d), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
		                     preexec_fn=harness.die_with_parent)
		p.stdin.write(sql)
		p.stdin.flush()
		line = p.stdout.readline()
		p.kill()
		p.wait()
		t.need(line == "rows|20\n", "%s, synchronous=%s: the process sees its rows" % (mode, sync), line)
		rows = int(harness.stock_rows(db, "SELECT count(*) FROM t")[0])
		t.equal(rows, want, "%s, synchronous=%s: %d rows after the kill" % (mode, sync, want))
		t.equal(harness.stock_rows(db, "PRAGMA integrity_check"), ["ok"], "%s, synchronous=%s: intact" % (mode, sync))


if not LIB:
	print("Bail out! unsynced.so is missing: build first (make check builds it), or set WALRAFT_BUILD", flush=True)
	raise SystemExit(99)
t.run()
