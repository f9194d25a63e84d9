#!/usr/bin/python3
"""Checks the models with spin. Without arguments: that they hold. --rules: also that spin finds a violation when a rule is taken away, each in turn,
and what takes long to search; with a table. A part of a name limits that. Prints TAP. SPIN, CC: programs to be used."""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SPIN, CC = os.environ.get("SPIN", "spin"), shlex.split(os.environ.get("CC", "cc"))
MODELS = ("token", "lease", "takeover")
# What is shown of a model with --rules only: other sizes of it.
LONG = (("token", "ONE_TRANSACTION"),)
# What a model does without, by its #ifdef.
RULES = {
	"token": ("ANY_TOKEN", "ANY_TERM", "NO_ENTRY_LOCK", "FREE_AT_COMMIT", "NOT_READY", "NO_CATCHING_UP", "MANY_UNDER_ONE_GRANT", "REFUSES_WHAT_IT_DOES_NOT_KNOW",
	          "LATER_TERM_IN_THE_LOG", "OUTCOME_OF_AN_OPEN_GRANT", "OUTCOME_FROM_WHAT_IS_PUBLISHED",
	          "ONE_TRANSACTION A_LATER_LEADER_SETTLES"),
	"lease": ("NO_PROMISE", "A_RESTART_IS_NO_CONTACT", "COUNTED_FROM_THE_ANSWER", "AS_LONG_AS_THE_PROMISE", "FASTER_THAN_BELIEVED",
	          "STANDS_STILL_WHILE_SUSPENDED", "LEASE_GOES_ON_IN_A_TRANSFER", "READS_BEFORE_ITS_FIRST_COMMIT", "NOT_WAITING_FOR_PUBLICATION"),
	"takeover": ("ACKNOWLEDGES_WHAT_IS_NOT_SYNCED", "LEADER_COUNTS_WHAT_IS_NOT_SYNCED", "PUBLISHES_WHAT_IS_NOT_SYNCED",
	             "PUBLISHES_BEFORE_THE_QUORUM", "KEPT_AND_NOT_SYNCED_AT_A_START", "NOT_IN_WHAT_IS_PUBLISHED", "ANSWERS_BEFORE_THE_QUORUM"),
}


def check(model, rule, defines, where):
	"""(violated assertion or None, states, seconds). The whole space is searched; without a rule in breadth, so that what is found is short."""
	text = os.path.join(HERE, model + ".pml")
	subprocess.run([SPIN] + ["-D" + d for d in defines] + ["-a", text], cwd=where, check=True, stdout=subprocess.PIPE)
	flags = ["-w", "-DSAFETY", "-DNOREDUCE"] + (["-O1", "-DBFS", "-DCOLLAPSE"] if rule else ["-O2"])
	subprocess.run(CC + flags + ["-o", "pan", "pan.c"], cwd=where, check=True)
	begin = time.monotonic()
	out = subprocess.run(["./pan", "-E", "-w24"] + ([] if rule else ["-m100000"]), cwd=where, check=True, stdout=subprocess.PIPE,
	                     stderr=subprocess.STDOUT, universal_newlines=True).stdout
	seconds = time.monotonic() - begin
	states, errors = re.search(r"(\d+) states, stored", out), re.search(r"errors: (\d+)", out)
	if not states or not errors or re.search(r"out of memory|max search depth too small|Search not completed", out) and not rule:
		raise RuntimeError("spin did not finish:\n" + out)
	what = re.search(r"assertion violated (.*) \(at depth", out)
	if (errors.group(1) != "0") != bool(what):
		raise RuntimeError("spin did not say what it found:\n" + out)
	return what and what.group(1), int(states.group(1)), seconds


def main():
	rules = "--rules" in sys.argv
	only = [a for a in sys.argv[1:] if not a.startswith("--")]
	if not shutil.which(SPIN):
		print("1..0 # SKIP spin is not installed")
		return 0
	tries = [(m, r, (r or "").split()) for m in MODELS for r in (None,) + (RULES[m] if rules else ())]
	tries += [(m, None, d.split()) for m, d in LONG if rules]
	tries = [(m, r, d) for m, r, d in tries if not only or any(o in " ".join([m] + d) for o in only)]
	print("1..%d" % len(tries))
	ok, table = True, []
	for k, (model, rule, defines) in enumerate(tries):
		with tempfile.TemporaryDirectory() as where:
			what, states, seconds = check(model, rule, defines, where)
		good = bool(what) == bool(rule)
		ok = ok and good
		table.append("| %s | %s | %s | %s | %.1f |" % (model, " ".join(defines), what and "`%s`" % what or "", format(states, ","), seconds))
		print("%s %d - %s%s" % ("ok" if good else "not ok", k + 1, model, ": " + " ".join(defines) if defines else ""), flush=True)
		print("# %s states, %.1f s%s" % (format(states, ","), seconds, ": " + what if what else ""), flush=True)
	if rules:
		print("\n".join("# " + line for line in table))
	return 0 if ok else 1


if __name__ == "__main__":
	sys.exit(main())
