#!/usr/bin/python3
"""Power loss on all nodes at once: a file layer under each node drops, at the kill, every byte that was not yet synced.

No acknowledged row is lost. --rounds N; --full is 20. The control shows that the layer does drop: a process that
writes without syncing loses its bytes.
"""
import os
import subprocess

import harness
from harness import Test

t = Test(__file__, deadline_s=200)
rounds = t.args.rounds or (20 if t.full else 3)
LIB = next((p for p in (os.path.join(harness.BUILD, "test/proc/.libs/unsynced.so"),
                        os.path.join(harness.BUILD, "test/proc/unsynced.so")) if os.path.exists(p)), None)


@t.case("the layer drops what is not synced")
def control():
	if not LIB:
		t.skip("control", "unsynced.so is not built")
		return
	d = t.tmp("control")
	code = ("import os, sys, time\n"
	        "f = os.open('%s/f', os.O_RDWR | os.O_CREAT, 0o644)\n"
	        "os.pwrite(f, b'a' * 100, 0); os.fdatasync(f); d = os.open('%s', os.O_RDONLY); os.fsync(d)\n"
	        "os.pwrite(f, b'b' * 100, 100)\n"
	        "assert os.pread(f, 200, 0) == b'a' * 100 + b'b' * 100\n"
	        "print('written', flush=True); time.sleep(60)\n") % (d, d)
	p = subprocess.Popen([harness.PYTHON, "-c", code], stdout=subprocess.PIPE, text=True,
	                     env=harness.child_env({"LD_PRELOAD": LIB, "UNSYNCED_ROOT": d}), preexec_fn=harness.die_with_parent)
	line = p.stdout.readline()
	p.kill()
	p.wait()
	t.need(line == "written\n", "the writer read back what it wrote", line)
	t.equal(open(d + "/f", "rb").read()[:200].rstrip(b"\0"), b"a" * 100, "after the kill only the synced bytes are there")


@t.case("power loss of all nodes")
def power():
	if not LIB:
		t.skip("power loss of all nodes", "unsynced.so is not built")
		return
	c = t.cluster(n=3, kind="worker", env={"LD_PRELOAD": LIB, "UNSYNCED_ROOT": "@DATA@"})
	for r in range(rounds):
		for n in c.nodes:
			n.start_load(threads=4)
		c.wait_acked(t.rnd.randrange(20, 400))
		order = list(c.nodes)
		t.rnd.shuffle(order)
		for n in order:
			n.proc.kill()
		for n in order:
			n.proc.wait()
		c.start_all()
		c.wait_ready()
		t.say("round %d: %d rows acknowledged so far" % (r + 1, c.acked()))
	# The rows as the nodes read them; the files below may lag behind, as far as they are not synced.
	what = "after %d power losses: " % rounds
	c.verify_load(what, files=False)
	c.stop()
	c.verify_files(what, c.nodes)


t.run()
