#!/usr/bin/python3
"""Proof that the simulator bites: puts one bug at a time (mutations.py) into a copy of the core's and the journal's sources and runs
random seeds until a property fails. Assertions and raft_invariants are compiled out, so that the simulator alone must find it.

    mutants.py SRCDIR [--cc CC] [--cflags FLAGS] [--libs LIBS] [--wall S] [--seed N] [--jobs N] [part of a bug's name ...]

Builds below ./mutants. Prints TAP: the bug, the property that failed, the simulated seconds that it took, the seed; at the end the same as
a table."""
import argparse
import concurrent.futures
import glob
import os
import shlex
import subprocess
import sys
import time

import mutations


def arguments():
	p = argparse.ArgumentParser()
	p.add_argument("src")
	p.add_argument("--cc", default="cc")
	p.add_argument("--cflags", default="-O2 -std=c17 -pthread")
	p.add_argument("--libs", default="-lxxhash -llz4 -lm -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup")
	p.add_argument("--wall", type=int, default=300, help="seconds for a bug until it counts as not found")
	p.add_argument("--time", type=int, default=100, help="simulated seconds of a run")
	p.add_argument("--seed", type=int, default=int(time.time()) * 1000)
	p.add_argument("--jobs", type=int, default=os.cpu_count())
	p.add_argument("only", nargs="*")
	return p.parse_intermixed_args()


class Builder:
	def __init__(self, args):
		self.args = args
		self.top = os.path.abspath("mutants")
		self.flags = shlex.split(args.cflags) + ["-D_GNU_SOURCE", "-DNDEBUG", "-w"]
		raft = [os.path.relpath(f, args.src) for f in sorted(glob.glob(os.path.join(args.src, "raft/*.c")))]
		sim = [os.path.relpath(f, args.src) for f in sorted(glob.glob(os.path.join(args.src, "test/sim/*.c")))
		       if not f.endswith("test_sim.c")]
		lin = [os.path.relpath(f, args.src) for f in sorted(glob.glob(os.path.join(args.src, "test/lin/*.c"))) if not f.endswith("main.c")]
		self.raft, self.rest = raft, sim + lin + ["wire/buf.c", "wire/env.c", "wire/err.c", "wire/hash.c", "wire/msg.c"]
		os.makedirs(self.top, exist_ok=True)

	def compile(self, path, out, include):
		os.makedirs(os.path.dirname(out), exist_ok=True)
		run([self.args.cc] + self.flags + ["-I" + i for i in include] + ["-c", path, "-o", out])
		return out

	def base(self):
		"""All objects without a bug. The simulator itself keeps its assertions of its own business."""
		with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
			jobs = {f: pool.submit(self.compile, os.path.join(self.args.src, f), os.path.join(self.top, "base", f + ".o"), [self.args.src])
			        for f in self.raft + self.rest}
			self.objects = {f: j.result() for f, j in jobs.items()}

	def mutant(self, number, changes):
		"""The path of a simulator with that bug; None when a text is not there exactly once."""
		where = os.path.join(self.top, "%02d" % number)
		objects = dict(self.objects)
		for file, old, new in changes:
			with open(os.path.join(self.args.src, file), encoding="utf-8") as f:
				text = f.read()
			if text.count(old) != 1:
				return None
			copy = os.path.join(where, file)
			os.makedirs(os.path.dirname(copy), exist_ok=True)
			with open(copy, "w", encoding="utf-8") as f:
				f.write(text.replace(old, new))
			objects[file] = self.compile(copy, os.path.join(where, file + ".o"), [where, self.args.src])
		program = os.path.join(where, "sim")
		run([self.args.cc] + self.flags + list(objects.values()) + ["-o", program] + shlex.split(self.args.libs))
		return program


def run(command):
	done = subprocess.run(command, capture_output=True, text=True)
	if done.returncode:
		sys.exit("%s\n%s" % (" ".join(command), done.stderr))


def hunt(args, program, seed, flags):
	"""(found, property, simulated seconds and the seed)"""
	command = [program, "--terse", "--jobs", "1", "--wall", str(args.wall), "--time", str(args.time), "--seed", str(seed), "--tail", "0"] + flags
	try:
		done = subprocess.run(command, capture_output=True, text=True, timeout=args.wall + 60)
	except subprocess.TimeoutExpired:
		return True, "hangs", ""
	for line in done.stdout.splitlines():
		words = line.split(" ", 3)
		if words[0] == "failed":
			return True, words[3], "%s s, seed %s" % (words[2], words[1])
	if done.returncode < 0:
		return True, "killed by signal %d" % -done.returncode, ""
	return False, "not found", "in %d s of wall time %s" % (args.wall, done.stdout.strip())


def one(args, builder, number, bug):
	name, file = bug[:2]
	changes = file if isinstance(file, list) else [bug[1:4]]
	program = builder.mutant(number, changes)
	if not program:
		return False, name, "the text that it changes is no longer there: bring mutations.py up to date", ""
	found, what, when = hunt(args, program, args.seed + number * 100000, list(bug[4:]) if isinstance(file, str) else [])
	return found, name, what, when


def main():
	args = arguments()
	bugs = [b for b in mutations.CORE + mutations.JOURNAL if not args.only or any(o in b[0] for o in args.only)]
	builder = Builder(args)
	builder.base()
	print("1..%d" % len(bugs))
	print("# repeat: make mutants SEED=%d" % args.seed)
	good, rows = True, []
	with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
		jobs = [pool.submit(one, args, builder, i, b) for i, b in enumerate(bugs)]
		for number, job in enumerate(jobs, 1):
			found, name, what, when = job.result()
			good &= found
			rows.append((name, what, when))
			print("%sok %d - %s: %s, %s" % ("" if found else "not ", number, name, what, when), flush=True)
	print_table(rows)
	return 0 if good else 1


def print_table(rows):
	head = ("mutation", "property that failed", "simulated time")
	width = [max(len(r[i]) for r in [head] + rows) for i in range(2)]
	for row in [head] + rows:
		print("# %-*s  %-*s  %s" % (width[0], row[0], width[1], row[1], row[2]))


if __name__ == "__main__":
	sys.exit(main())
