#!/usr/bin/python3
"""Random commands to raft-adapter, by a driver that knows no more than its README. Prints TAP, one point per kind of group.

    WALRAFT_BUILD=build test/script/random_driver.py [--runs N] [--seed S]

Throughout: one leader a term (I1), no index with two committed entries on whatever nodes (I2, I4, I5), applied <= commit <= last,
and a read that began when an index was committed anywhere sees at least that (I7). At the end disks work, all nodes run, clocks go on and messages
arrive: a leader must commit a new value on all members within a bound (liveness). WALRAFT_SEED repeats one run and prints its commands."""
import json
import os
import random
import subprocess
import sys

ADAPTER = os.path.join(os.environ.get("WALRAFT_BUILD", "build"), "test/script/adapter")
KINDS = (  # name, PreVote, CheckQuorum, with a witness
	("as shipped", 1, 1, False),
	("a witness", 1, 1, True),
	("without PreVote", 0, 1, False),
	("without CheckQuorum", 1, 0, False),
	("plain Raft", 0, 0, False),
	("plain Raft and a witness", 0, 0, True),
)
STEPS, ROUNDS, SPARE = 300, 300, 2


class Wrong(Exception):
	pass


class Group:
	def __init__(self, seed, prevote, checkquorum, witness):
		self.random = random.Random(seed)
		self.process = subprocess.Popen([ADAPTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		self.told, self.reads, self.count = [], {}, 0
		self.leaders, self.committed, self.values = {}, {}, 0
		n = self.random.choice((3, 4, 5) if witness else (1, 2, 3, 3, 3, 4, 5))
		self.ids = self.near = list(range(1, n + SPARE + 1))
		switches = "prevote=%d checkquorum=%d" % (prevote, checkquorum)
		limits = " window=%d append=%d catchup=%d" % (self.random.choice((1, 2, 8)), self.random.choice((1, 10)), self.random.choice((1, 20, 4000000))) if self.random.random() < 0.4 else ""
		members = "voters=" + ",".join(map(str, range(1, n if witness else n + 1))) + (" witnesses=%d" % n if witness else "")
		for i in self.ids:
			self.do("new %d %s%s %s" % (i, members if i <= n else "", limits, switches))

	def do(self, command):
		"""The command's answer; those to earlier reads are judged on the way."""
		self.count += 1
		self.told.append(command)
		self.process.stdin.write(("%s\necho %d\n" % (command, self.count)).encode())
		self.process.stdin.flush()
		own = None
		while True:
			line = self.process.stdout.readline()
			if not line:
				raise Wrong("raft-adapter ended: " + self.process.stderr.read().decode()[-1000:])
			answer = json.loads(line)
			if isinstance(answer, dict) and answer.get("echo") == str(self.count):
				return own
			if isinstance(answer, dict) and "read" in answer:
				self.judge_read(answer)
			else:
				own = answer

	def judge_read(self, answer):
		floors = self.reads[answer["read"]]
		if "ok" not in answer:
			floors.remove(max(floors))
			return
		if answer["index"] < min(floors):
			raise Wrong("I7: a read sees index %d, %d was committed before" % (answer["index"], min(floors)))
		floors.remove(max(f for f in floors if f <= answer["index"]))

	def states(self):
		return {i: self.do("state %d" % i) for i in self.ids}

	def step(self):
		r = self.random
		i, j = r.choice(self.ids), r.choice(self.ids)
		if r.random() < 0.05: # other nodes hear each other from now on
			self.near = r.sample(self.ids, r.randint(1, len(self.ids)))
		what = r.choices(("tick", "timeout", "propose", "deliver", "drop", "settle", "persist", "restart", "compact", "link", "transfer", "read",
		                  "conf"), (18, 5, 14, 14, 4, 22, 4, 4, 3, 2, 2, 5, 3))[0]
		if what in ("propose", "read", "conf", "transfer", "compact") and r.random() < 0.7:
			i = r.choice([k for k, s in self.states().items() if s["role"] == "leader"] or [i])
		if what == "tick":
			self.do("tick %d %d" % (i, r.choice((1, 1, 1, 2, 3, 10, 12))))
		elif what == "propose":
			self.values += 1
			self.do("propose %d v%d" % (i, self.values))
		elif what in ("deliver", "drop"):
			self.do("%s %d %d%s" % (what, i, j, r.choice(("", " 1", " 2", " kind=append", " kind=heartbeat"))))
		elif what == "settle":
			half = r.choice((self.near, [k for k in self.ids if k not in self.near])) or self.ids
			self.do("settle %s max=%d" % (",".join(map(str, half)), r.choice((5, 50, 1000))))
		elif what == "persist":
			self.do("persist %d %s" % (i, r.choice(("ok", "hold", "release", "release 1", "ok", "fail"))))
		elif what == "compact":
			self.do("compact %d %d" % (i, r.randint(0, self.do("state %d" % i)["applied"])))
		elif what == "link":
			self.do("%s %d %d" % (r.choice(("unreachable", "reachable")), i, j))
		elif what == "transfer":
			self.do("transfer %d %d" % (i, j))
		elif what == "read":
			self.reads.setdefault(i, []).append(max(s["commit"] for s in self.states().values()))
			self.do("read %d" % i)
		elif what == "conf":
			changes = [r.choice(("add=", "add-learner=", "remove=", "promote=", "add-witness=")) + str(r.choice(self.ids))
			           for _ in range(r.choice((1, 1, 2, 3)))]
			self.do("conf %d %s" % (i, " ".join(changes)))
		else:
			self.do("%s %d" % (what, i))

	def check(self):
		for i, s in self.states().items():
			if s["role"] == "leader" and self.leaders.setdefault(s["term"], i) != i:
				raise Wrong("I1: nodes %d and %d lead term %d" % (self.leaders[s["term"]], i, s["term"]))
			if not s["applied"] <= s["commit"] <= s["last"]:
				raise Wrong("node %d: applied %d, commit %d, last %d" % (i, s["applied"], s["commit"], s["last"]))
			for index, term, value in self.do("applied %d" % i) + [e for e in self.do("log %d" % i) if e[0] <= s["commit"]]:
				if self.committed.setdefault(index, (term, value)) != (term, value):
					raise Wrong("I4: node %d has %s at index %d, it was %s" % (i, (term, value), index, self.committed[index]))

	def heal(self):
		for i in self.ids:
			self.do("persist %d ok" % i)
			if self.do("state %d" % i)["role"] == "down":
				self.do("restart %d" % i)
		everyone = ",".join(map(str, self.ids))
		for turn in range(ROUNDS):
			for i in self.ids:
				self.do("tick %d" % i)
			if not self.do("settle %s max=20000" % everyone)["quiet"]:
				raise Wrong("liveness: messages without end")
			for i, s in self.states().items() if turn % 4 == 3 else ():
				if s["role"] != "leader":
					continue
				index = self.do("propose %d end%d" % (i, turn)).get("index")
				for _ in range(2):
					self.do("settle %s max=20000" % everyone)
					self.do("tick %d" % i)
				members = sum((s["members"][k] for k in ("voters", "learners", "witnesses")), [])
				now = self.states()
				if index and all(now[m]["commit"] >= index for m in members) and now[i]["role"] == "leader":
					return
		raise Wrong("liveness: no value is committed on all members after %d ticks" % ROUNDS)

	def end(self):
		self.process.stdin.close()
		code = self.process.wait(60)
		if code:
			raise Wrong("raft-adapter ended with %d: %s" % (code, self.process.stderr.read().decode()[-1000:]))


def run(seed, kind):
	group = Group(seed, *kind[1:])
	try:
		for i in range(STEPS):
			group.step()
			if i % 20 == 19:
				group.check()
		group.heal()
		group.check()
		group.end()
		return group.told, None
	except Wrong as e:
		return group.told, str(e)
	finally:
		group.process.kill()
		group.process.wait()
		for stream in (group.process.stdin, group.process.stdout, group.process.stderr):
			stream.close()


def number(name, standard):
	return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else standard


def main():
	if "WALRAFT_SEED" in os.environ:
		seed = int(os.environ["WALRAFT_SEED"])
		told, wrong = run(seed, KINDS[seed % len(KINDS)])
		print("\n".join(told + ["# " + (wrong or "nothing wrong")]))
		return 1 if wrong else 0
	runs, first, failed = number("--runs", 12), number("--seed", 0), False
	print("1..%d" % len(KINDS))
	for n, kind in enumerate(KINDS):
		ok = True
		for seed in range(first * len(KINDS) + n, (first + runs) * len(KINDS), len(KINDS)):
			wrong = run(seed, kind)[1]
			if wrong:
				ok = False
				print("# seed %d: %s\n# again: WALRAFT_BUILD=%s WALRAFT_SEED=%d test/script/random_driver.py" % (
					seed, wrong, os.environ.get("WALRAFT_BUILD", "build"), seed))
				break
		failed |= not ok
		print("%s %d - %s, %d runs of %d commands" % ("ok" if ok else "not ok", n + 1, kind[0], runs, STEPS), flush=True)
	return 1 if failed else 0


sys.exit(main())
