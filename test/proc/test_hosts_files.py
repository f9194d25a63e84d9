#!/usr/bin/python3
"""What applications do to files: checkpoints, backups, VACUUM, serialization, file controls. The same on a replicated database as on a plain one, and
nothing of it is lost on the way to the other node. Where SQLite would leave the WAL to the application, the node has it.

The cases are in test/hosts; each runs on both, then what they saw, the two nodes, and the content are compared."""
import hosts
import hosts_cases
from harness import Test

t = Test(__file__, deadline_s=200)
pairs = hosts.Pairs(t)
pairs.cases(hosts_cases.FILES)
hosts.run(t, pairs)
